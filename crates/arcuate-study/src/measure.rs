//! What the runs of a study measured and took, read from their folders.

use std::collections::BTreeMap;
use std::path::Path;

use arcuate_recipe::StudyRun;
use arcuate_recipe::study::{MetricConfig, Take};
use arcuate_record::{Cost, Direction, MetricsTail, State, Status};
use serde::{Deserialize, Serialize};

use crate::Result;

/// What is known of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Name of the run.
    pub run: String,
    /// The step without seed and member.
    pub step: String,
    /// Its arm, unless it is shared.
    pub arm: Option<String>,
    /// Its seed, unless it runs once for all.
    pub seed: Option<u64>,
    /// How it stands; `None` if it has not begun.
    pub state: Option<State>,
    /// Why it failed or stopped.
    pub error: Option<String>,
    /// The metric, scaled; only of measured runs that are done.
    pub value: Option<f64>,
    /// What it took.
    pub cost: Cost,
    /// The course of the metric over steps, scaled.
    #[serde(skip)]
    pub curve: Vec<(f64, f64)>,
    /// The training loss over steps.
    #[serde(skip)]
    pub loss: Vec<(f64, f64)>,
}

/// Reads a run; one that is not there yet is a run that has not begun.
pub fn measure(run: &StudyRun, folder: &Path, metric: &MetricConfig) -> Result<Measured> {
    let path = folder.join(&run.name);
    let status = Status::load_live(&path).ok();
    let mut series: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    if run.is_measured {
        MetricsTail::new(&path.join("metrics.jsonl")).poll_each(|record| {
            for name in [metric.name.as_str(), "train/loss"] {
                let value = name.split_once('/').filter(|(kind, _)| *kind == record.kind);
                if let Some(value) = value.and_then(|(_, key)| record.values.get(key)) {
                    series.entry(name).or_default().push((record.step as f64, *value));
                }
            }
        })?;
    }
    let loss = series.get("train/loss").cloned().unwrap_or_default();
    let curve: Vec<(f64, f64)> =
        series.remove(metric.name.as_str()).unwrap_or_default().iter().map(|(x, y)| (*x, y * metric.scale)).collect();
    let state = status.as_ref().map(|status| status.state);
    let value = taken(&curve, metric).filter(|value| value.is_finite() && state == Some(State::Done));
    Ok(Measured {
        run: run.name.clone(),
        step: run.step.clone(),
        arm: run.arm.clone(),
        seed: run.seed,
        state,
        error: status.and_then(|status| status.last_error),
        value,
        cost: Cost::load(&path).unwrap_or_default(),
        curve,
        loss,
    })
}

/// The value that counts.
fn taken(curve: &[(f64, f64)], metric: &MetricConfig) -> Option<f64> {
    let values = curve.iter().map(|point| point.1);
    match metric.take {
        Take::Last => curve.last().map(|point| point.1),
        Take::Best => {
            let direction = match metric.better {
                arcuate_recipe::study::Better::Higher => Direction::HigherIsBetter,
                arcuate_recipe::study::Better::Lower => Direction::LowerIsBetter,
            };
            values.reduce(|best, value| if direction.is_better(value, best) { value } else { best })
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use arcuate_recipe::{Loaded, Study, parse_study};

    const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/tiny.toml");

    /// Two arms, three seeds, one shared step.
    pub(crate) fn study() -> Loaded<Study> {
        let text = format!(
            r#"
name = "small"
claim = "tuning helps"
refuted_if = "it does not"
seeds = [1, 2, 3]
metric = {{ name = "eval/accuracy", better = "higher", take = "last", scale = 100.0, unit = "points" }}
budget = {{ steps = {{ of = "last_training" }} }}
decision = {{ test = "paired_t", interval = "t", confidence = 0.95, correction = "holm" }}
[[shared]]
name = "base"
recipe = "{RECIPE}"
[[arm]]
name = "scratch"
words = "from random weights"
recipe = "{RECIPE}"
[[arm]]
name = "tuned"
recipe = "{RECIPE}"
from = {{ "data.source.addresses.path" = "base/labels.jsonl" }}
[[contrast]]
name = "gain"
words = "tuned weights are better"
arm = "tuned"
against = "scratch"
expected = "better"
smallest_effect = 1.0
[[paper]]
what = "gain"
figure = "+3.6"
place = "Table 4"
beside = "gain"
"#
        );
        parse_study("s.toml", &text, &[]).unwrap_or_else(|found| panic!("{}", found.render(false)))
    }

    /// A study folder in which these runs are done with this accuracy.
    pub(crate) fn folder_with(runs: &[(&str, f64)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, accuracy) in runs {
            let path = folder.path().join(name);
            std::fs::create_dir_all(&path).expect("writable");
            let status = r#"{"state": "done", "step": 20, "last_error": null, "pid": 1, "started": "", "updated": ""}"#;
            std::fs::write(path.join("status.json"), status).expect("writable");
            let first = accuracy + 0.05;
            let lines = format!(
                "{{\"step\": 10, \"kind\": \"train\", \"loss\": 3.0}}\n\
                 {{\"step\": 10, \"kind\": \"eval\", \"accuracy\": {first}}}\n\
                 {{\"step\": 20, \"kind\": \"eval\", \"accuracy\": {accuracy}}}\n"
            );
            std::fs::write(path.join("metrics.jsonl"), lines).expect("writable");
            std::fs::write(path.join("recipe.toml"), format!("name = \"{name}\"\nseed = 1\n")).expect("writable");
            let cost = Cost { steps: 20, tokens: 1000, flops: 1e9, seconds: 2.0, peak_memory_bytes: 5 };
            cost.save(&path).expect("writable");
        }
        folder
    }

    #[test]
    fn the_value_that_counts_is_scaled_and_the_one_that_was_asked_for() {
        let mut study = study().value;
        let folder = folder_with(&[("scratch-seed1", 0.5)]);
        let run = study.runs().into_iter().find(|run| run.name == "scratch-seed1").expect("a run");
        let measured = measure(&run, folder.path(), &study.metric).expect("reads");
        assert_eq!((measured.value, measured.curve.len(), measured.loss.len()), (Some(50.0), 2, 1));
        assert_eq!((measured.cost.tokens, measured.state), (1000, Some(State::Done)));
        study.metric.take = Take::Best;
        let best = measure(&run, folder.path(), &study.metric).expect("reads").value.expect("a value");
        assert!((best - 55.0).abs() < 1e-9);
    }

    #[test]
    fn a_run_that_has_not_begun_or_not_ended_has_no_value() {
        let study = study().value;
        let folder = folder_with(&[("scratch-seed1", 0.5)]);
        let runs = study.runs();
        let missing = measure(&runs[3], folder.path(), &study.metric).expect("reads");
        assert_eq!((missing.state, missing.value, missing.cost.steps), (None, None, 0));
        let status =
            r#"{"state": "failed", "step": 2, "last_error": "no data", "pid": 1, "started": "", "updated": ""}"#;
        std::fs::write(folder.path().join("scratch-seed1/status.json"), status).expect("writable");
        let failed = measure(&runs[1], folder.path(), &study.metric).expect("reads");
        assert_eq!((failed.value, failed.error.as_deref()), (None, Some("no data")));
    }
}
