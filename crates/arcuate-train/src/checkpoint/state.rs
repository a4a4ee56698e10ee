//! `state.json`: where the loop stands, beside the weights and the state of the optimizer.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::manifest::read_json;
use crate::error::{Error, Result};
use crate::exact;
use crate::guard::GuardState;

const NAME: &str = "state.json";
const FORMAT: u32 = 1;
/// A window of losses and a few integers take kilobytes.
const MAX_BYTES: u64 = 64 << 20;

/// Everything the loop needs to go on bit for bit, apart from tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopState {
    /// Version of this layout.
    pub format: u32,
    /// Steps made.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Tokens of padding seen.
    #[serde(default)]
    pub padding_tokens: u64,
    /// Bytes of text trained on.
    #[serde(default)]
    pub bytes: u64,
    /// Seconds of training over all sessions, for the report only.
    #[serde(default, with = "exact::one")]
    pub train_seconds: f64,
    /// Seed of all random streams.
    pub seed: u64,
    /// State of the sampler, as the data crate wrote it.
    pub sampler: serde_json::Value,
    /// State of the health referee.
    pub guard: GuardState,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Accumulators of the metrics between two lines, by name.
    #[serde(default, with = "exact::map")]
    pub metrics: BTreeMap<String, f64>,
    /// Fingerprint of the data.
    pub data_fingerprint: String,
    /// Hash of the recipe, without what may change between sessions.
    pub recipe_hash: String,
    /// Versions of this program and of what decides its numbers.
    pub versions: BTreeMap<String, String>,
}

/// The best evaluation of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Step after which it was made.
    pub step: u64,
    /// Name of the metric, such as `bits_per_byte`.
    pub metric: String,
    /// Its value.
    #[serde(with = "exact::one")]
    pub value: f64,
}

impl LoopState {
    /// The state before the first step.
    pub fn new(seed: u64, data_fingerprint: impl Into<String>, recipe_hash: impl Into<String>) -> Self {
        Self {
            format: FORMAT,
            step: 0,
            tokens: 0,
            padding_tokens: 0,
            bytes: 0,
            train_seconds: 0.0,
            seed,
            sampler: serde_json::Value::Null,
            guard: GuardState::default(),
            best: None,
            metrics: BTreeMap::new(),
            data_fingerprint: data_fingerprint.into(),
            recipe_hash: recipe_hash.into(),
            versions: BTreeMap::from([("arcuate".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
        }
    }

    /// Writes `state.json` into a checkpoint folder. Every number reads back to the same bits.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let path = dir.join(NAME);
        let mut text = serde_json::to_string_pretty(self).map_err(|error| Error::io("write", &path, error.into()))?;
        text.push('\n');
        std::fs::write(&path, text).map_err(|source| Error::io("write", &path, source))
    }

    /// Reads `state.json` of a checkpoint folder.
    pub fn load(dir: &Path) -> Result<Self> {
        let format: Format = read_json(dir, NAME, MAX_BYTES)?;
        if format.format > FORMAT {
            return Err(Error::NewerFormat { path: dir.join(NAME), found: format.format, supported: FORMAT });
        }
        read_json(dir, NAME, MAX_BYTES)
    }

    /// Refuses data that is not what this state was trained on; `what` says what differs, `override_hint` how to go on.
    pub fn check_data(&self, found: &str, what: impl Into<String>, override_hint: &str) -> Result<()> {
        if self.data_fingerprint == found {
            return Ok(());
        }
        Err(Error::DataChanged {
            expected: self.data_fingerprint.clone(),
            found: found.to_owned(),
            what: what.into(),
            override_hint: override_hint.to_owned(),
        })
    }

    /// Refuses another recipe in the same run folder.
    pub fn check_recipe(&self, checkpoint: &Path, found: &str) -> Result<()> {
        if self.recipe_hash == found {
            return Ok(());
        }
        let (path, expected) = (checkpoint.to_owned(), self.recipe_hash.clone());
        Err(Error::RecipeChanged { path, expected, found: found.to_owned() })
    }

    /// Notes an evaluation; true if it is the best so far. Of equal values the first stays the best.
    pub fn note_evaluation(&mut self, metric: &str, value: f64, smaller_is_better: bool) -> bool {
        let is_better = |best: &Best| if smaller_is_better { value < best.value } else { value > best.value };
        let is_best = value.is_finite() && self.best.as_ref().is_none_or(is_better);
        if is_best {
            self.best = Some(Best { step: self.step, metric: metric.to_owned(), value });
        }
        is_best
    }
}

/// The one key that every version of the file has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> LoopState {
        let mut state = LoopState::new(17, "data", "recipe");
        state.step = 400;
        state.sampler = serde_json::json!({"drawn": [1, 2, 18446744073709551615_u64]});
        state.guard.losses = vec![0.1 + 0.2, 1.0 / 3.0, f64::MIN_POSITIVE, 5e-324, f64::MAX, -0.0];
        state.metrics.insert("loss_sum".to_owned(), 8.123_456_789_012_345e-7);
        state.metrics.insert("worst".to_owned(), f64::INFINITY);
        state
    }

    #[test]
    fn a_state_reads_back_to_the_same_bits() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        state().save(dir.path()).expect("writable");
        let read = LoopState::load(dir.path()).expect("readable");
        assert_eq!(read, state());
        let bits = |state: &LoopState| state.guard.losses.iter().map(|loss| loss.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&read), bits(&state()));
    }

    #[test]
    fn a_broken_or_missing_state_is_damage() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        assert!(matches!(LoopState::load(dir.path()), Err(Error::Damaged { .. })));
        for text in ["", "{}", "[]", r#"{"format": 1}"#, "\u{0}\u{0}\u{0}"] {
            std::fs::write(dir.path().join(NAME), text).expect("writable");
            assert!(matches!(LoopState::load(dir.path()), Err(Error::Damaged { .. })), "{text}");
        }
    }

    #[test]
    fn a_newer_state_is_not_called_damage() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join(NAME), r#"{"format": 9, "new": 1}"#).expect("writable");
        assert!(matches!(LoopState::load(dir.path()), Err(Error::NewerFormat { found: 9, .. })));
    }

    #[test]
    fn changed_data_and_recipes_are_refused_by_name() {
        let state = state();
        assert!(state.check_data("data", "", "").is_ok());
        let error = state.check_data("other", "source `a` has 3 documents more", "--accept-data").expect_err("changed");
        assert_eq!(error.exit_code(), 4);
        assert!(error.to_string().ends_with("source `a` has 3 documents more; put the old data back, or give the run another name, or go on with the new data by `--accept-data`"), "{error}");
        assert!(state.check_recipe(Path::new("x"), "recipe").is_ok());
        assert_eq!(state.check_recipe(Path::new("x"), "other").expect_err("changed").exit_code(), 2);
    }

    #[test]
    fn the_first_of_equal_evaluations_stays_the_best() {
        let mut state = state();
        assert!(state.note_evaluation("bits_per_byte", 1.5, true));
        state.step = 500;
        assert!(!state.note_evaluation("bits_per_byte", 1.5, true));
        assert!(!state.note_evaluation("bits_per_byte", f64::NAN, true));
        assert_eq!(state.best.as_ref().map(|best| best.step), Some(400));
        assert!(state.note_evaluation("bits_per_byte", 1.4, true));
        assert_eq!(state.best.as_ref().map(|best| best.step), Some(500));
    }
}
