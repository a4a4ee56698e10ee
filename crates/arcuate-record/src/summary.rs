//! One run in one row: state, step, times, and the last and best value of each metric.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::run_dir::read_text;
use crate::{MetricsTail, Result, State, Status};

/// What `runs list` shows of a run. Metrics are named `kind/name`, as in TensorBoard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Name of the run: its folder's name.
    pub name: String,
    /// The folder.
    pub path: PathBuf,
    /// What it is doing or how it ended.
    pub state: State,
    /// Finished steps.
    pub step: u64,
    /// First start, UTC.
    pub started: String,
    /// Last change, UTC.
    pub updated: String,
    /// Why it failed or stopped.
    pub last_error: Option<String>,
    /// First half of the BLAKE3 hash of `recipe.toml`.
    pub recipe_hash: String,
    /// Best value of each metric.
    pub best: BTreeMap<String, f64>,
    /// Last value of each metric.
    pub last: BTreeMap<String, f64>,
}

/// Which way a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Losses, error rates, seconds.
    LowerIsBetter,
    /// Accuracies, scores, speeds.
    HigherIsBetter,
    /// Neither: learning rates, counts.
    Neutral,
}

impl Direction {
    /// What the name of a metric says about it.
    pub fn of(metric: &str) -> Self {
        const HIGHER: [&str; 10] =
            ["accuracy", "f1", "matthews", "bleu", "chrf", "rouge", "exact_match", "per_second", "mfu", "precision"];
        const LOWER: [&str; 8] = ["loss", "perplexity", "bits_per", "error", "wer", "cer", "nll", "step_seconds"];
        let name = metric.rsplit('/').next().unwrap_or(metric);
        let has = |words: &[&str]| words.iter().any(|word| name == *word || word.len() > 3 && name.contains(word));
        let has_short = |words: &[&str]| name.split('_').any(|part| words.contains(&part));
        if has(&HIGHER) || has_short(&HIGHER) {
            Self::HigherIsBetter
        } else if has(&LOWER) || has_short(&LOWER) {
            Self::LowerIsBetter
        } else {
            Self::Neutral
        }
    }

    /// Whether `new` is better than `old`. Nothing is better in a neutral metric.
    pub fn is_better(self, new: f64, old: f64) -> bool {
        match self {
            Self::LowerIsBetter => new < old,
            Self::HigherIsBetter => new > old,
            Self::Neutral => false,
        }
    }
}

/// Reads a run folder. Fails if it has no readable status; a missing or damaged metrics file only leaves gaps.
pub fn summarise(run_path: &Path) -> Result<RunSummary> {
    let status = Status::load_live(run_path)?;
    let recipe = read_text(&run_path.join("recipe.toml"))?.unwrap_or_default();
    let (mut best, mut last) = (BTreeMap::<String, f64>::new(), BTreeMap::new());
    MetricsTail::new(&run_path.join("metrics.jsonl")).poll_each(|record| {
        for (name, value) in record.values {
            let name = format!("{}/{name}", record.kind);
            let direction = Direction::of(&name);
            if value.is_finite() && direction != Direction::Neutral {
                let held = best.entry(name.clone()).or_insert(value);
                if direction.is_better(value, *held) {
                    *held = value;
                }
            }
            if value.is_finite() {
                last.insert(name, value);
            } else {
                last.remove(&name);
            }
        }
    })?;
    Ok(RunSummary {
        name: run_path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        path: run_path.to_path_buf(),
        state: status.state,
        step: status.step,
        started: status.started,
        updated: status.updated,
        last_error: status.last_error,
        recipe_hash: blake3::hash(recipe.as_bytes()).to_hex()[..32].to_owned(),
        best,
        last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MetricsWriter, Record, RunDir};

    #[test]
    fn names_tell_the_direction() {
        use Direction::{HigherIsBetter, LowerIsBetter, Neutral};
        let cases = [
            ("eval/loss", LowerIsBetter),
            ("eval/bits_per_byte", LowerIsBetter),
            ("train/tokens_per_second", HigherIsBetter),
            ("eval/macro_f1", HigherIsBetter),
            ("eval/accuracy", HigherIsBetter),
            ("eval/wer", LowerIsBetter),
            ("train/learning_rate", Neutral),
            ("train/answer_length", Neutral),
        ];
        for (name, direction) in cases {
            assert_eq!(Direction::of(name), direction, "{name}");
        }
    }

    #[test]
    fn the_best_and_the_last_value_are_kept() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let mut run = RunDir::create_or_open(root.path(), "a", "seed = 1").expect("opens");
        let mut metrics = MetricsWriter::open(&run.metrics_path(), None).expect("opens");
        for (step, loss) in [(1, 3.0), (2, 1.5), (3, 2.0), (4, f64::NAN)] {
            let record = Record::new(step, "eval").value("loss", loss).value("accuracy", loss / 10.0);
            metrics.write(&record).expect("writes");
        }
        run.finish(State::Done, 4, None).expect("writes");
        let summary = summarise(run.path()).expect("reads");
        assert_eq!((summary.name.as_str(), summary.state, summary.step), ("a", State::Done, 4));
        assert_eq!((summary.best["eval/loss"], summary.best["eval/accuracy"]), (1.5, 0.3));
        assert!(!summary.last.contains_key("eval/loss"));
    }

    #[test]
    fn a_run_without_metrics_has_a_summary() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let run = RunDir::create_or_open(root.path(), "a", "seed = 1").expect("opens");
        let summary = summarise(run.path()).expect("reads");
        assert!(summary.best.is_empty() && summary.state == State::Running);
    }
}
