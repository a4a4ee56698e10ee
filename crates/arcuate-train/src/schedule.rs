//! Learning-rate schedules: one file each, chosen by the `[schedule.<name>]` table of a recipe.
//!
//! A schedule is a pure function of the position and the horizon that gives a multiplier of the peak learning rate. The
//! first update has step 0: a warm-up of `n` gives it `1/n` (never nothing) and reaches the peak with its `n`-th update.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{HorizonConfig, Length, Position};

pub mod constant;
pub mod cosine;
pub mod inverse_sqrt;
pub mod linear;
pub mod noam;
pub mod polynomial;
pub mod rewarm;
pub mod tri_stage;
pub mod wsd;

macro_rules! schedules {
    ($($variant:ident => $module:ident),* $(,)?) => {
        /// The `[schedule.<name>]` table; exactly one name per recipe.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ScheduleConfig {
            $(
                #[doc = concat!("`[schedule.", stringify!($module), "]`")]
                $variant($module::Config)
            ),*
        }

        impl ScheduleConfig {
            /// The names that may follow `schedule.` in a recipe.
            pub const NAMES: &[&str] = &[$(stringify!($module)),*];

            /// The name of this choice.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($module)),* }
            }

            /// What the peak learning rate is multiplied by for the update at `position`.
            pub fn fraction(&self, position: Position, horizon: HorizonConfig) -> f64 {
                match self { $(Self::$variant(config) => config.fraction(position, horizon)),* }
            }

            /// Values that no run of this horizon can use, each with its key.
            pub fn check(&self, horizon: HorizonConfig) -> Vec<(&'static str, String)> {
                match self { $(Self::$variant(config) => config.check(horizon)),* }
            }
        }
    };
}

schedules! {
    Constant => constant,
    Cosine => cosine,
    InverseSqrt => inverse_sqrt,
    Linear => linear,
    Noam => noam,
    Polynomial => polynomial,
    Rewarm => rewarm,
    TriStage => tri_stage,
    Wsd => wsd,
}

/// The straight climb to the peak: `(step + 1) / warmup`, at most 1.
fn climb(warmup: Length, position: Position) -> f64 {
    if warmup.amount() == 0 { 1.0 } else { (warmup.after(position) / warmup.amount() as f64).min(1.0) }
}

/// Where the update stands between the end of the warm-up (0) and the horizon (1). A warm-up in another unit than the
/// horizon has no place on it and counts as nothing; `check` refuses it.
fn descent(warmup: Length, position: Position, horizon: Length) -> f64 {
    let start = if warmup.same_unit(&horizon) { warmup.amount() } else { 0 };
    part(horizon.before(position) - start as f64, horizon.amount() as f64 - start as f64)
}

/// `done / total` held within 0 and 1; a stretch of no length is over at once.
fn part(done: f64, total: f64) -> f64 {
    if done <= 0.0 {
        0.0
    } else if done >= total {
        1.0
    } else {
        done / total
    }
}

/// Half a cosine from 1 to `last` while `part` goes from 0 to 1.
fn half_cosine(part: f64, last: f64) -> f64 {
    last + (1.0 - last) * 0.5 * (1.0 + (std::f64::consts::PI * part).cos())
}

/// Collects what is wrong with one schedule table.
struct ScheduleChecks {
    horizon: Length,
    found: Vec<(&'static str, String)>,
}

impl ScheduleChecks {
    fn new(horizon: Length) -> Self {
        Self { horizon, found: Vec::new() }
    }

    /// A stretch that must lie within the horizon, in the same unit.
    fn within_horizon(mut self, key: &'static str, length: Length) -> Self {
        let horizon = self.horizon;
        if !length.same_unit(&horizon) {
            let message = format!(
                "`{key}` counts {} but the horizon counts {}; give both in {}",
                length.unit(),
                horizon.unit(),
                horizon.unit()
            );
            self.found.push((key, message));
        } else if length.amount() > horizon.amount() {
            let message =
                format!("`{key}` of {length} is longer than the run of {horizon}; shorten it or lengthen the horizon");
            self.found.push((key, message));
        }
        self
    }

    /// A stretch that may count anything, but not outlast a horizon in the same unit.
    fn not_longer_than_horizon(self, key: &'static str, length: Length) -> Self {
        if length.same_unit(&self.horizon) { self.within_horizon(key, length) } else { self }
    }

    /// Stretches that follow each other within the horizon.
    fn together_within_horizon(mut self, key: &'static str, lengths: &[Length]) -> Self {
        let horizon = self.horizon;
        let alone = lengths.iter().all(|length| length.same_unit(&horizon) && length.amount() <= horizon.amount());
        let sum = lengths.iter().map(|length| u128::from(length.amount())).sum::<u128>();
        if alone && sum > u128::from(horizon.amount()) {
            let unit = horizon.unit();
            let message = format!(
                "the parts of the schedule are {sum} {unit} together, longer than the run of {horizon}; shorten one or lengthen the horizon"
            );
            self.found.push((key, message));
        }
        self
    }

    /// A stretch that must not be empty.
    fn not_empty(mut self, key: &'static str, length: Length) -> Self {
        if length.amount() == 0 {
            self.found.push((key, format!("`{key}` is {length}; use at least 1")));
        }
        self
    }

    /// A part of the peak, from 0 to 1.
    fn fraction(mut self, key: &'static str, value: f64) -> Self {
        if !(0.0..=1.0).contains(&value) {
            self.found.push((key, format!("`{key}` is {value}; use a number from 0 to 1, a part of the peak")));
        }
        self
    }

    /// A number above zero.
    fn positive(mut self, key: &'static str, value: f64) -> Self {
        if !(value.is_finite() && value > 0.0) {
            self.found.push((key, format!("`{key}` is {value}; use a number above 0")));
        }
        self
    }

    fn done(self) -> Vec<(&'static str, String)> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ScheduleConfig {
        serde_json::from_str(text).expect("a valid schedule table")
    }

    /// One valid table for each name.
    fn all() -> Vec<ScheduleConfig> {
        [
            r#"{"constant": {"warmup": {"steps": 10}}}"#,
            r#"{"cosine": {"warmup": {"steps": 10}}}"#,
            r#"{"inverse_sqrt": {"warmup": {"steps": 10}}}"#,
            r#"{"linear": {"warmup": {"steps": 10}}}"#,
            r#"{"noam": {"warmup": {"steps": 10}, "hidden_size": 64}}"#,
            r#"{"polynomial": {"warmup": {"steps": 10}, "power": 2.0}}"#,
            r#"{"rewarm": {"warmup": {"steps": 10}, "start_fraction": 0.1, "final_fraction": 0.1}}"#,
            r#"{"tri_stage": {"warmup": {"steps": 10}, "hold": {"steps": 40}, "decay": {"steps": 50}}}"#,
            r#"{"wsd": {"warmup": {"steps": 10}, "decay": {"steps": 20}, "shape": "linear"}}"#,
        ]
        .map(read)
        .into()
    }

    #[test]
    fn every_schedule_is_listed_and_sorted() {
        assert!(ScheduleConfig::NAMES.is_sorted());
        let names: Vec<_> = all().iter().map(ScheduleConfig::name).collect();
        assert_eq!(names, ScheduleConfig::NAMES);
    }

    #[test]
    fn every_schedule_stays_between_nothing_and_the_peak() {
        for schedule in all() {
            for step in 0..200 {
                let fraction = schedule.fraction(Position::at_step(step), Length::Steps(100));
                assert!((0.0..=1.0).contains(&fraction), "{} at step {step}: {fraction}", schedule.name());
            }
        }
    }

    #[test]
    fn no_update_within_the_horizon_is_wasted() {
        for schedule in all() {
            for step in [0, 99] {
                let fraction = schedule.fraction(Position::at_step(step), Length::Steps(100));
                assert!(fraction > 0.0, "{} at step {step}", schedule.name());
            }
        }
    }

    #[test]
    fn valid_tables_pass_the_check() {
        for schedule in all() {
            assert_eq!(schedule.check(Length::Steps(100)), vec![], "{}", schedule.name());
        }
    }

    #[test]
    fn a_warmup_longer_than_the_run_is_found_in_every_schedule() {
        for schedule in all() {
            let found = schedule.check(Length::Steps(9));
            assert!(found.iter().any(|(key, _)| *key == "warmup"), "{}: {found:?}", schedule.name());
        }
        let message = &all()[1].check(Length::Steps(9))[0].1;
        assert_eq!(
            message,
            "`warmup` of 10 steps is longer than the run of 9 steps; shorten it or lengthen the horizon"
        );
    }

    #[test]
    fn units_are_mixed_only_where_the_horizon_does_not_matter() {
        let accepted: Vec<_> =
            all().iter().filter(|schedule| schedule.check(Length::Tokens(1000)).is_empty()).map(|s| s.name()).collect();
        assert_eq!(accepted, ["constant", "inverse_sqrt", "noam"]);
    }

    #[test]
    fn extreme_lengths_neither_panic_nor_leave_the_numbers() {
        for schedule in all() {
            for horizon in [Length::Steps(0), Length::Tokens(0), Length::Steps(u64::MAX), Length::Tokens(u64::MAX)] {
                for step in [0, 1, u64::MAX] {
                    let position = Position { step, tokens: step, step_tokens: u64::MAX };
                    let fraction = schedule.fraction(position, horizon);
                    assert!(fraction.is_finite(), "{} at {step} of {horizon}", schedule.name());
                }
            }
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(serde_json::from_str::<ScheduleConfig>(r#"{"cosine": {"warmup_steps": 10}}"#).is_err());
        assert!(serde_json::from_str::<ScheduleConfig>(r#"{"step": {}}"#).is_err());
    }
}
