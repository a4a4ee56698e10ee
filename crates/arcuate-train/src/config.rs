//! The recipe tables that belong to the training loop: batch, horizon, checkpoints, guards.

use arcuate_data::MicrobatchLimits;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A stretch of training, in optimizer steps or in tokens: `{ steps = 40 }` or `{ tokens = 1_000_000 }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Length {
    /// So many optimizer steps.
    Steps(u64),
    /// So many trained tokens.
    Tokens(u64),
}

/// `[horizon]`: how long the run trains, `steps = 800` or `tokens = 1_000_000`; exactly one of them.
pub type HorizonConfig = Length;

/// Where a run stands just before an update. Schedules are pure functions of this and the horizon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Steps made so far, so the first update has 0.
    pub step: u64,
    /// Tokens trained on so far, without those of this update.
    pub tokens: u64,
    /// Tokens of this update, over all its microbatches.
    pub step_tokens: u64,
}

impl Position {
    /// A position for lengths in steps; lengths in tokens see nothing done.
    pub fn at_step(step: u64) -> Self {
        Self { step, tokens: 0, step_tokens: 0 }
    }
}

impl Length {
    /// How much of this unit was done before the update at `position`.
    pub fn before(&self, position: Position) -> f64 {
        match self {
            Self::Steps(_) => position.step as f64,
            Self::Tokens(_) => position.tokens as f64,
        }
    }

    /// How much of this unit is done once the update at `position` is made.
    pub fn after(&self, position: Position) -> f64 {
        match self {
            Self::Steps(_) => position.step as f64 + 1.0,
            Self::Tokens(_) => position.tokens as f64 + position.step_tokens as f64,
        }
    }

    /// Whether so many steps and tokens fill this length.
    pub fn is_reached(&self, step: u64, tokens: u64) -> bool {
        match *self {
            Self::Steps(steps) => step >= steps,
            Self::Tokens(wanted) => tokens >= wanted,
        }
    }

    /// The part of this length that so many steps and tokens fill, 0 to 1.
    pub fn progress(&self, step: u64, tokens: u64) -> f64 {
        let (done, total) = match *self {
            Self::Steps(steps) => (step, steps),
            Self::Tokens(wanted) => (tokens, wanted),
        };
        if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) }
    }

    /// The number without its unit.
    pub fn amount(&self) -> u64 {
        match *self {
            Self::Steps(amount) | Self::Tokens(amount) => amount,
        }
    }

    /// `steps` or `tokens`.
    pub fn unit(&self) -> &'static str {
        match self {
            Self::Steps(_) => "steps",
            Self::Tokens(_) => "tokens",
        }
    }

    /// Whether both count the same thing.
    pub fn same_unit(&self, other: &Self) -> bool {
        self.unit() == other.unit()
    }
}

impl std::fmt::Display for Length {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.amount(), self.unit())
    }
}

/// `[batch]`: what one step of the optimizer sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchConfig {
    /// Tokens in a row; longer documents are cut. Of speech: frames of the network; longer utterances are left out, or cut where
    /// nothing of their transcript is needed.
    #[schemars(range(min = 1))]
    pub max_seq_len: usize,
    /// Rows in one forward pass; memory grows with it.
    #[schemars(range(min = 1))]
    pub microbatch: usize,
    /// Forward passes whose gradients are added up before one step. The result is that of one large batch.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub accumulate_steps: usize,
    /// Most frames in one forward pass of speech, padding included: rows of similar length are put together, fewer of them
    /// where they are long. Left out: always `microbatch` rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_frames: Option<usize>,
}

impl BatchConfig {
    /// What one forward pass takes.
    pub fn limits(&self) -> MicrobatchLimits {
        MicrobatchLimits { rows: self.microbatch, tokens: self.max_frames.map(|frames| frames as u64) }
    }

    /// The most positions that one forward pass computes, padding included.
    pub fn positions_per_pass(&self) -> usize {
        let all = self.microbatch.saturating_mul(self.max_seq_len);
        self.max_frames.map_or(all, |most| all.min(most.max(self.max_seq_len)))
    }

    /// Rows in one step of the optimizer.
    pub fn global_batch(&self) -> usize {
        self.microbatch.saturating_mul(self.accumulate_steps)
    }

    /// The most tokens one step of the optimizer can hold.
    pub fn tokens_per_step(&self) -> usize {
        self.positions_per_pass().saturating_mul(self.accumulate_steps)
    }

    /// Values that no run can use, each with its key.
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let keys = [
            ("max_seq_len", self.max_seq_len),
            ("microbatch", self.microbatch),
            ("accumulate_steps", self.accumulate_steps),
        ];
        let mut found: Vec<_> = keys.into_iter().filter(|(_, value)| *value == 0).map(at_least_one).collect();
        let product =
            self.microbatch.checked_mul(self.accumulate_steps).and_then(|rows| rows.checked_mul(self.max_seq_len));
        if product.is_none_or(|tokens| tokens > i32::MAX as usize) {
            let message =
                "`max_seq_len` x `microbatch` x `accumulate_steps` is more than 2147483647 tokens a step; lower one";
            found.push(("max_seq_len", message.to_owned()));
        }
        found
    }
}

/// `[checkpoint]`: how often the run is saved and which saves are kept. The last and the best always are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Save after every so many steps, and after the last.
    #[schemars(range(min = 1))]
    pub every_steps: u64,
    /// Keep so many of the newest checkpoints.
    #[serde(default = "one")]
    #[schemars(range(min = 1))]
    pub keep_last: usize,
    /// Also keep, for good, every checkpoint whose step is a multiple of this. Left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub keep_every_steps: Option<u64>,
}

impl CheckpointConfig {
    /// Whether a checkpoint is due after so many steps.
    pub fn is_due(&self, step: u64) -> bool {
        step > 0 && self.every_steps > 0 && step.is_multiple_of(self.every_steps)
    }

    /// Values that no run can use, each with its key.
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if self.every_steps == 0 {
            found.push(at_least_one(("every_steps", 0)));
        }
        if self.keep_last == 0 {
            found.push(at_least_one(("keep_last", 0)));
        }
        match self.keep_every_steps {
            Some(0) => {
                found.push(("keep_every_steps", "`keep_every_steps` is 0; leave it out to keep none".to_owned()))
            }
            Some(keep) if self.every_steps > 0 && !keep.is_multiple_of(self.every_steps) => {
                let every = self.every_steps;
                let message = format!(
                    "`keep_every_steps` {keep} is not a multiple of `every_steps` {every}, so most of these steps have no checkpoint to keep; use a multiple of {every}"
                );
                found.push(("keep_every_steps", message));
            }
            _ => {}
        }
        found
    }
}

/// `[[freeze_until]]`: parameters that stay as they are at first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeUntil {
    /// Names of parameters; `*` stands for any characters.
    pub pattern: String,
    /// Steps for which they do not move. Nothing decays them either, and optimizers begin with them as if the run began then.
    #[schemars(range(min = 1))]
    pub steps: u64,
}

/// `[[learning_rate]]`: parameters that learn at another rate. Of several that cover a name the first counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateRule {
    /// Names of parameters; `*` stands for any characters.
    pub pattern: String,
    /// Factor of the learning rate.
    #[schemars(range(min = 0.0))]
    pub factor: f64,
    /// One more factor for each layer that lies above, such as 0.9: the first number in a name is that of its layer, and the
    /// highest one under the pattern is the top. Left out: all layers alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub layer_decay: Option<f64>,
}

/// `[guard]`: when the run skips an update, goes back, or stops to save what was learnt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GuardConfig {
    /// Steps whose losses a new loss is compared with.
    #[schemars(range(min = 8, max = 65536))]
    pub spike_window_steps: usize,
    /// A loss above the mean of the window by so many standard deviations is a spike: its update is not made.
    #[schemars(range(min = 1.0))]
    pub spike_sigma: f64,
    /// So many updates may be skipped within one window; the next spike goes back to the last checkpoint.
    pub max_skips: usize,
    /// The learning rate is multiplied by this each time the run goes back.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub rollback_learning_rate_factor: f64,
    /// So many times may the run go back; the next time it stops.
    pub max_rollbacks: usize,
    /// A step (or evaluation, or save) that makes no progress for so long is reported as stalled.
    #[schemars(range(min = 1))]
    pub stall_seconds: u64,
    /// A sign of collapse (dead codebooks, only blanks, a loss at chance, no gradient) is told once it has held for so many steps
    /// in a row.
    #[schemars(range(min = 1))]
    pub collapse_steps: u64,
    /// The first so many steps are not looked at for such signs: many runs begin like that.
    pub collapse_after_steps: u64,
    /// Stop the run at such a sign instead of telling it and going on.
    pub stop_on_collapse: bool,
}

impl Default for GuardConfig {
    fn default() -> Self {
        Self {
            spike_window_steps: 128,
            spike_sigma: 6.0,
            max_skips: 3,
            rollback_learning_rate_factor: 0.5,
            max_rollbacks: 2,
            stall_seconds: 600,
            collapse_steps: 200,
            collapse_after_steps: 500,
            stop_on_collapse: false,
        }
    }
}

impl GuardConfig {
    /// Values that no run can use, each with its key.
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if !(8..=65_536).contains(&self.spike_window_steps) {
            let window = self.spike_window_steps;
            found.push((
                "spike_window_steps",
                format!("`spike_window_steps` is {window}; use a number from 8 to 65536, such as 128"),
            ));
        }
        if !self.spike_sigma.is_finite() || self.spike_sigma < 1.0 {
            let sigma = self.spike_sigma;
            found.push(("spike_sigma", format!("`spike_sigma` is {sigma}; use a number of at least 1, such as 6")));
        }
        let factor = self.rollback_learning_rate_factor;
        if !(factor > 0.0 && factor <= 1.0) {
            found.push((
                "rollback_learning_rate_factor",
                format!("`rollback_learning_rate_factor` is {factor}; use a number above 0 and at most 1, such as 0.5"),
            ));
        }
        if self.stall_seconds == 0 {
            found.push(at_least_one(("stall_seconds", 0)));
        }
        if self.collapse_steps == 0 {
            found.push(at_least_one(("collapse_steps", 0)));
        }
        found
    }
}

fn one() -> usize {
    1
}

fn at_least_one((key, _): (&'static str, usize)) -> (&'static str, String) {
    (key, format!("`{key}` is 0; use at least 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(found: &[(&'static str, String)]) -> Vec<&'static str> {
        found.iter().map(|(key, _)| *key).collect()
    }

    #[test]
    fn lengths_read_as_one_key_tables() {
        let steps: Length = serde_json::from_str(r#"{"steps": 40}"#).expect("a length in steps");
        let tokens: Length = serde_json::from_str(r#"{"tokens": 1000000}"#).expect("a length in tokens");
        assert_eq!((steps, tokens), (Length::Steps(40), Length::Tokens(1_000_000)));
        for wrong in [r#"{}"#, r#"{"steps": 1, "tokens": 2}"#, r#"{"epochs": 1}"#, r#"{"steps": -1}"#] {
            assert!(serde_json::from_str::<Length>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn positions_count_the_update_under_way_only_afterwards() {
        let position = Position { step: 3, tokens: 300, step_tokens: 90 };
        let (steps, tokens) = (Length::Steps(0), Length::Tokens(0));
        assert_eq!((steps.before(position), steps.after(position)), (3.0, 4.0));
        assert_eq!((tokens.before(position), tokens.after(position)), (300.0, 390.0));
    }

    #[test]
    fn a_horizon_is_reached_in_its_own_unit() {
        assert!(Length::Steps(10).is_reached(10, 0) && !Length::Steps(10).is_reached(9, u64::MAX));
        assert!(Length::Tokens(10).is_reached(0, 11) && !Length::Tokens(10).is_reached(99, 9));
        assert_eq!(Length::Steps(8).progress(2, 0), 0.25);
        assert_eq!(Length::Tokens(0).progress(0, 0), 1.0);
    }

    #[test]
    fn an_empty_guard_table_is_the_default() {
        let config: GuardConfig = serde_json::from_str("{}").expect("all keys have defaults");
        assert_eq!(config, GuardConfig::default());
        assert_eq!(config.check(), vec![]);
        assert!(serde_json::from_str::<GuardConfig>(r#"{"sigma": 6.0}"#).is_err());
    }

    #[test]
    fn guard_values_out_of_range_are_found_together() {
        let config = GuardConfig {
            spike_window_steps: 1,
            spike_sigma: f64::NAN,
            rollback_learning_rate_factor: 0.0,
            stall_seconds: 0,
            collapse_steps: 0,
            ..GuardConfig::default()
        };
        let expected =
            ["spike_window_steps", "spike_sigma", "rollback_learning_rate_factor", "stall_seconds", "collapse_steps"];
        assert_eq!(keys(&config.check()), expected);
    }

    #[test]
    fn a_batch_of_nothing_or_of_too_much_is_found() {
        let batch = BatchConfig { max_seq_len: 256, microbatch: 8, accumulate_steps: 2, max_frames: None };
        assert_eq!((batch.global_batch(), batch.tokens_per_step()), (16, 4096));
        assert_eq!(batch.check(), vec![]);
        let empty = BatchConfig { microbatch: 0, ..batch.clone() };
        assert_eq!(keys(&empty.check()), ["microbatch"]);
        let huge = BatchConfig { microbatch: usize::MAX, ..batch };
        assert_eq!(keys(&huge.check()), ["max_seq_len"]);
    }

    #[test]
    fn checkpoints_are_due_at_multiples_but_not_at_the_start() {
        let config: CheckpointConfig = serde_json::from_str(r#"{"every_steps": 50}"#).expect("one key is enough");
        assert_eq!((config.keep_last, config.keep_every_steps), (1, None));
        assert_eq!([0, 49, 50, 100].map(|step| config.is_due(step)), [false, false, true, true]);
    }

    #[test]
    fn keeping_steps_that_are_never_saved_is_found() {
        let config = CheckpointConfig { every_steps: 50, keep_last: 0, keep_every_steps: Some(120) };
        assert_eq!(keys(&config.check()), ["keep_last", "keep_every_steps"]);
        let config = CheckpointConfig { every_steps: 50, keep_last: 1, keep_every_steps: Some(200) };
        assert_eq!(config.check(), vec![]);
    }
}
