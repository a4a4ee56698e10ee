//! The work list: which runs a process takes on, and which of them are done.
//!
//! A run is done when its folder says so and was made from the same inputs: recipe, weights, tokenizer and files that it
//! takes from other runs. Both marks are written in one step each, so a kill at any instant leaves a run done or not done.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::str::FromStr;

use arcuate_recipe::{Source, Study, StudyRun, Work, build};
use arcuate_record::is_done_with;

use crate::{Error, Result};

/// A part of the work, for arrays of jobs: part `index` of `count`, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which part.
    pub index: usize,
    /// How many parts there are.
    pub count: usize,
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index, count }),
            _ => Err(Error::BadShard { text: text.chars().take(40).collect() }),
        }
    }
}

/// Which runs are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Only these arms; empty is all.
    pub only: Vec<String>,
    /// Only this part of their runs.
    pub shard: Option<Shard>,
}

/// The wanted runs with everything that they take something from, in the order of the list. The measured runs are dealt
/// out one by one among the shards; a run that several shards need is in the list of each, and the first one makes it.
pub fn select<'a>(study: &Study, runs: &'a [StudyRun], selection: &Selection) -> Result<Vec<&'a StudyRun>> {
    if let Some(name) = selection.only.iter().find(|name| study.arm.iter().all(|arm| arm.name != **name)) {
        let known = study.arm.iter().map(|arm| format!("`{}`", arm.name)).collect::<Vec<_>>().join(", ");
        return Err(Error::UnknownArm { name: name.clone(), known });
    }
    let is_wanted = |run: &&StudyRun| {
        let arm = run.arm.as_deref().unwrap_or_default();
        run.is_measured && (selection.only.is_empty() || selection.only.iter().any(|name| name == arm))
    };
    let mine = |index: &usize| selection.shard.is_none_or(|shard| index % shard.count == shard.index - 1);
    let wanted = runs.iter().filter(is_wanted).enumerate().filter(|(index, _)| mine(index)).map(|(_, run)| run);
    let mut names: BTreeSet<&str> = wanted.map(|run| run.name.as_str()).collect();
    // A run comes after those it needs, so one pass from the end finds everything.
    for run in runs.iter().rev() {
        if names.contains(run.name.as_str()) {
            names.extend(run.needs.iter().map(String::as_str));
        }
    }
    Ok(runs.iter().filter(|run| names.contains(run.name.as_str())).collect())
}

/// A hash of everything that a run depends on. What it takes from other runs must be there.
pub fn inputs(run: &StudyRun, folder: &Path, source: &Source) -> Result<String> {
    let mut text = match run.load(folder, source) {
        Some(loaded) => build::inputs(&loaded?.0.value)?,
        None => run.definition(folder),
    };
    for (_, path) in run.handed(folder) {
        text += &content_hash(&path)?;
    }
    if let Work::Eval(eval, models) = &run.work {
        for model in models {
            text += &content_hash(&run.checkpoint(folder, model))?;
        }
        if let Some((_, file)) = run.task(folder, eval).split_once(':') {
            text += &content_hash(Path::new(file))?;
        }
    }
    Ok(build::hash(&text))
}

/// Whether a run has come to its end with the inputs that it would have now. A run whose inputs are not there is not done.
pub fn is_done(run: &StudyRun, folder: &Path, source: &Source) -> bool {
    inputs(run, folder, source).is_ok_and(|inputs| is_done_with(&folder.join(&run.name), &inputs))
}

/// The manifest of a checkpoint, or a hash of a file.
fn content_hash(path: &Path) -> Result<String> {
    let cannot = |cause| Error::Input { path: path.to_path_buf(), cause };
    if path.is_dir() {
        let manifest = path.join("manifest.json");
        return match std::fs::read_to_string(&manifest) {
            Ok(text) => Ok(text),
            // A model from elsewhere has no manifest; its size and name must do.
            Err(_) => Ok(path.display().to_string()),
        };
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).map_err(cannot)?).map_err(cannot)?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::{folder_with, study};

    fn names(selection: &Selection) -> Vec<String> {
        let study = study().value;
        let runs = study.runs();
        select(&study, &runs, selection).expect("sound").into_iter().map(|run| run.name.clone()).collect()
    }

    #[test]
    fn everything_is_wanted_unless_said_otherwise() {
        let all =
            ["base", "scratch-seed1", "tuned-seed1", "scratch-seed2", "tuned-seed2", "scratch-seed3", "tuned-seed3"];
        assert_eq!(names(&Selection::default()), all);
    }

    #[test]
    fn an_arm_comes_with_what_it_needs_and_nothing_else() {
        let only = |name: &str| Selection { only: vec![name.to_owned()], shard: None };
        assert_eq!(names(&only("scratch")), ["scratch-seed1", "scratch-seed2", "scratch-seed3"]);
        assert_eq!(names(&only("tuned")), ["base", "tuned-seed1", "tuned-seed2", "tuned-seed3"]);
        let study = study().value;
        let error = select(&study, &study.runs(), &only("tunde")).expect_err("unknown").to_string();
        assert!(error.contains("no arm `tunde`") && error.contains("`scratch`, `tuned`"), "{error}");
    }

    #[test]
    fn shards_share_the_measured_runs_without_rest() {
        let part = |index| names(&Selection { only: Vec::new(), shard: Some(Shard { index, count: 2 }) });
        let mut all: Vec<String> = part(1).into_iter().chain(part(2)).filter(|name| name != "base").collect();
        all.sort();
        let mut expected: Vec<String> =
            names(&Selection::default()).into_iter().filter(|name| name != "base").collect();
        expected.sort();
        assert_eq!(all, expected);
    }

    #[test]
    fn shards_are_written_as_fractions() {
        assert_eq!("2/4".parse::<Shard>().expect("a shard"), Shard { index: 2, count: 4 });
        for text in ["", "2", "0/4", "5/4", "1/0", "a/b", "-1/2"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_run_is_done_only_with_the_same_inputs() {
        let study = study();
        let folder = folder_with(&[]);
        let run = &study.value.runs()[1];
        assert!(!is_done(run, folder.path(), &study.source));
        let inputs = inputs(run, folder.path(), &study.source).expect("nothing is missing");
        let path = folder.path().join(&run.name);
        std::fs::create_dir_all(&path).expect("writable");
        std::fs::write(path.join("inputs.hash"), &inputs).expect("writable");
        assert!(!is_done(run, folder.path(), &study.source), "no status yet");
        let status = r#"{"state": "done", "step": 5, "last_error": null, "pid": 1, "started": "", "updated": ""}"#;
        std::fs::write(path.join("status.json"), status).expect("writable");
        assert!(is_done(run, folder.path(), &study.source));
        std::fs::write(path.join("inputs.hash"), "other").expect("writable");
        assert!(!is_done(run, folder.path(), &study.source));
    }

    #[test]
    fn a_run_whose_model_is_missing_is_not_done() {
        let study = study();
        let folder = folder_with(&[]);
        let run = &study.value.runs()[2];
        assert_eq!(run.name, "tuned-seed1");
        assert!(matches!(inputs(run, folder.path(), &study.source), Err(Error::Input { .. })));
        assert!(!is_done(run, folder.path(), &study.source));
    }
}
