//! Golden numbers: the losses that a shortened recipe must reproduce, in a file beside it.
//!
//! `recipes/NAME.toml` has `recipes/NAME.golden.toml`; `methods/NAME/tiny.toml` has `methods/NAME/golden.toml`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::workspace;

/// Tolerance of a new golden file: processors differ in the order in which they add.
const DEFAULT_TOLERANCE: f64 = 1e-3;
/// Number of steps that a new golden file holds.
const NUM_STEPS: usize = 10;

/// A golden file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Steps that are compared.
    pub steps: Vec<u64>,
    /// Training loss of each.
    pub loss: Vec<f64>,
    /// Largest difference that is allowed.
    pub tolerance: f64,
}

/// A shortened recipe and its golden file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The recipe.
    pub recipe: PathBuf,
    /// The golden file; it may be missing.
    pub golden: PathBuf,
}

/// All shortened recipes of the tree.
pub fn pairs() -> Vec<Pair> {
    let root = workspace::root();
    let mut pairs = Vec::new();
    for golden in workspace::files_under(&root.join("recipes"), ".golden.toml") {
        let recipe = golden.to_string_lossy().replace(".golden.toml", ".toml");
        pairs.push(Pair { recipe: PathBuf::from(recipe), golden });
    }
    let tiny = root.join("recipes").join("tiny.toml");
    if tiny.is_file() && pairs.iter().all(|pair| pair.recipe != tiny) {
        pairs.push(Pair { golden: tiny.with_file_name("tiny.golden.toml"), recipe: tiny });
    }
    for recipe in workspace::files_under(&root.join("methods"), "/tiny.toml") {
        pairs.push(Pair { golden: recipe.with_file_name("golden.toml"), recipe });
    }
    pairs
}

impl Golden {
    /// Reads a golden file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| {
            format!("cannot read `{}`; `cargo xtask golden --update` writes it", workspace::relative(path))
        })?;
        let golden: Self = toml::from_str(&text).with_context(|| format!("in `{}`", workspace::relative(path)))?;
        if golden.steps.len() != golden.loss.len() || golden.steps.is_empty() {
            bail!("`{}` has {} steps and {} losses", workspace::relative(path), golden.steps.len(), golden.loss.len());
        }
        Ok(golden)
    }

    /// The numbers of a run, at the steps of `earlier` as far as the run has them, else spread over the run.
    pub fn of(losses: &BTreeMap<u64, f64>, earlier: Option<&Self>) -> Self {
        let kept = earlier.map(|golden| golden.steps.clone()).unwrap_or_default();
        let mut steps: Vec<u64> = kept.into_iter().filter(|step| losses.contains_key(step)).collect();
        if steps.is_empty() {
            let all: Vec<u64> = losses.keys().copied().collect();
            let last = all.len().saturating_sub(1);
            let count = NUM_STEPS.min(all.len());
            steps = (0..count).map(|index| all[index * last / count.saturating_sub(1).max(1)]).collect();
        }
        let loss = steps.iter().filter_map(|step| losses.get(step)).map(|loss| (loss * 1e6).round() / 1e6).collect();
        Self { steps, loss, tolerance: earlier.map_or(DEFAULT_TOLERANCE, |golden| golden.tolerance) }
    }

    /// The file's text.
    pub fn text(&self) -> String {
        let list = |items: Vec<String>| items.join(", ");
        format!(
            "# Training losses of the recipe beside this file; `cargo xtask golden --update` writes them.\nsteps = [{}]\nloss = [{}]\ntolerance = {:?}\n",
            list(self.steps.iter().map(ToString::to_string).collect()),
            list(self.loss.iter().map(|loss| format!("{loss:?}")).collect()),
            self.tolerance
        )
    }

    /// The largest difference of a run from these numbers; an error says where it is too large.
    pub fn compare(&self, losses: &BTreeMap<u64, f64>) -> Result<f64> {
        let mut largest = 0.0_f64;
        let mut wrong = Vec::new();
        for (step, wanted) in self.steps.iter().zip(&self.loss) {
            let Some(got) = losses.get(step) else {
                wrong.push(format!("step {step}: no loss instead of {wanted}"));
                continue;
            };
            let difference = (got - wanted).abs();
            largest = largest.max(difference);
            // Not `>`, so that NaN fails.
            if !matches!(difference.partial_cmp(&self.tolerance), Some(order) if order.is_le()) {
                wrong.push(format!("step {step}: {got} instead of {wanted}"));
            }
        }
        if wrong.is_empty() {
            return Ok(largest);
        }
        bail!(
            "{} of {} losses differ by more than {}:\n  {}\nif the change is meant to alter numbers, run `cargo xtask golden --update` and show both tables",
            wrong.len(),
            self.steps.len(),
            self.tolerance,
            wrong.join("\n  ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses() -> BTreeMap<u64, f64> {
        (1..=30_u32).map(|step| (u64::from(step), 6.0 - f64::from(step) / 10.0)).collect()
    }

    #[test]
    fn new_numbers_span_the_run_and_read_back() {
        let golden = Golden::of(&losses(), None);
        assert_eq!((golden.steps.len(), golden.steps.first(), golden.steps.last()), (10, Some(&1), Some(&30)));
        let read: Golden = toml::from_str(&golden.text()).expect("own text");
        assert_eq!(read, golden);
    }

    #[test]
    fn an_update_keeps_steps_and_tolerance() {
        let earlier = Golden { steps: vec![1, 30, 99], loss: vec![0.0; 3], tolerance: 0.5 };
        let golden = Golden::of(&losses(), Some(&earlier));
        assert_eq!((golden.steps, golden.loss, golden.tolerance), (vec![1, 30], vec![5.9, 3.0], 0.5));
    }

    #[test]
    fn a_run_agrees_with_its_own_numbers() {
        let largest = Golden::of(&losses(), None).compare(&losses()).expect("equal");
        assert!(largest < 1e-6);
    }

    #[test]
    fn a_changed_missing_or_undefined_loss_fails() {
        let golden = Golden::of(&losses(), None);
        for change in [Some(5.91), Some(f64::NAN), None] {
            let mut got = losses();
            got.remove(&1);
            got.extend(change.map(|loss| (1, loss)));
            let error = golden.compare(&got).expect_err("differs").to_string();
            assert!(error.starts_with("1 of 10 losses differ") && error.contains("step 1: "), "{error}");
        }
    }

    #[test]
    fn a_short_run_gives_all_its_steps() {
        let one = BTreeMap::from([(1, 5.0)]);
        assert_eq!(Golden::of(&one, None).steps, [1]);
        let three: BTreeMap<u64, f64> = losses().into_iter().take(3).collect();
        assert_eq!(Golden::of(&three, None).steps, [1, 2, 3]);
    }
}
