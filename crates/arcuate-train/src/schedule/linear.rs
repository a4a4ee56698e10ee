//! Linear: after the warm-up, a straight line down to a part of the peak.
//!
//! # What it computes
//! With `p` from 0 (end of the warm-up) to 1 (horizon): `1 - (1 - final) p`. With `hold_steps`, every step has the rate of
//! the first of its stretch, counted from 0 as in schedules that are stepped once an epoch: a warm-up of one stretch trains
//! that stretch with rate 0.
//! # Recipe
//! `[schedule.linear]` with `warmup`, optional `final_fraction`, `hold_steps`
//! # Reference
//! Devlin et al. 2019, BERT; once an epoch in Gross et al. 2025

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ScheduleChecks, climb, descent, part};
use crate::config::{Length, Position};

/// `[schedule.linear]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long the rate climbs to the peak.
    pub warmup: Length,
    /// Rate at the horizon, as a part of the peak.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub final_fraction: f64,
    /// The rate changes only after every so many steps, such as the steps of an epoch; left out: with every step. Warm-up and
    /// horizon must then count steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub hold_steps: Option<u64>,
}

impl Config {
    pub(super) fn fraction(&self, position: Position, horizon: Length) -> f64 {
        let (position, climbed) = match self.hold_steps.filter(|hold| *hold > 0) {
            None => (position, climb(self.warmup, position)),
            Some(hold) => {
                let first = Position { step: position.step - position.step % hold, ..position };
                let warmup = self.warmup.amount() as f64;
                (first, if warmup == 0.0 { 1.0 } else { part(self.warmup.before(first), warmup) })
            }
        };
        climbed * (1.0 - (1.0 - self.final_fraction) * descent(self.warmup, position, horizon))
    }

    pub(super) fn check(&self, horizon: Length) -> Vec<(&'static str, String)> {
        let checks = ScheduleChecks::new(horizon)
            .within_horizon("warmup", self.warmup)
            .fraction("final_fraction", self.final_fraction);
        match self.hold_steps.map(Length::Steps) {
            Some(hold) => checks.not_empty("hold_steps", hold).within_horizon("hold_steps", hold).done(),
            None => checks.done(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn falls_in_equal_steps_to_the_end() {
        let config = Config { warmup: Length::Steps(2), final_fraction: 0.5, hold_steps: None };
        let at = |step| config.fraction(Position::at_step(step), Length::Steps(6));
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(at), [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5]);
    }

    #[test]
    fn a_warmup_as_long_as_the_run_only_climbs() {
        let config = Config { warmup: Length::Steps(4), final_fraction: 0.0, hold_steps: None };
        assert_eq!(config.check(Length::Steps(4)), vec![]);
        let at = |step| config.fraction(Position::at_step(step), Length::Steps(4));
        assert_eq!([0, 1, 2, 3].map(at), [0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn held_rates_are_those_of_a_schedule_stepped_once_an_epoch() {
        let horizon = Length::Steps(50 * 625);
        let rates = |warmup: u64, epochs: &[u64]| -> Vec<f64> {
            let config = Config { warmup: Length::Steps(warmup), final_fraction: 0.0, hold_steps: Some(625) };
            assert_eq!(config.check(horizon), vec![]);
            let at = |step| config.fraction(Position::at_step(step), horizon);
            let constant = |epoch: u64| (0..625).all(|step| at(epoch * 625 + step) == at(epoch * 625));
            assert!(epochs.iter().all(|epoch| constant(*epoch)));
            epochs.iter().map(|epoch| (at(epoch * 625) * 1e6).round() / 1e6).collect()
        };
        assert_eq!(rates(625, &[0, 1, 2, 25, 49]), [0.0, 1.0, 0.979592, 0.510204, 0.020408]);
        assert_eq!(rates(0, &[0, 1, 25, 49]), [1.0, 0.98, 0.5, 0.02]);
        assert_eq!(rates(1250, &[0, 1, 2]), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn stretches_that_no_run_can_hold_are_found() {
        let config = |hold| Config { warmup: Length::Steps(0), final_fraction: 0.0, hold_steps: Some(hold) };
        let message = |hold, horizon| config(hold).check(horizon).into_iter().map(|f| f.1).next().unwrap_or_default();
        assert!(message(0, Length::Steps(5)).contains("use at least 1"));
        assert!(message(6, Length::Steps(5)).contains("longer than the run of 5 steps"));
        let tokens = config(2).check(Length::Tokens(100));
        assert!(tokens.iter().any(|(key, text)| *key == "hold_steps" && text.contains("counts steps")), "{tokens:?}");
    }
}
