//! Polynomial: after the warm-up, the remaining part of the run to a power.
//!
//! # What it computes
//! With `r` from 1 (end of the warm-up) to 0 (horizon): `final + (1 - final) r^power`
//! # Recipe
//! `[schedule.polynomial]` with `warmup`, `power`, optional `final_fraction`
//! # Reference
//! `polynomial_decay` of fairseq

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ScheduleChecks, climb, descent};
use crate::config::{Length, Position};

/// `[schedule.polynomial]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long the rate climbs to the peak.
    pub warmup: Length,
    /// Exponent: 1 is a straight line, 2 falls faster at first.
    #[schemars(range(min = 0.0))]
    pub power: f64,
    /// Rate at the horizon, as a part of the peak.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub final_fraction: f64,
}

impl Config {
    pub(super) fn fraction(&self, position: Position, horizon: Length) -> f64 {
        let remaining = 1.0 - descent(self.warmup, position, horizon);
        climb(self.warmup, position) * (self.final_fraction + (1.0 - self.final_fraction) * remaining.powf(self.power))
    }

    pub(super) fn check(&self, horizon: Length) -> Vec<(&'static str, String)> {
        ScheduleChecks::new(horizon)
            .within_horizon("warmup", self.warmup)
            .positive("power", self.power)
            .fraction("final_fraction", self.final_fraction)
            .done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_the_remaining_part() {
        let config = Config { warmup: Length::Steps(2), power: 2.0, final_fraction: 0.2 };
        let at = |step| config.fraction(Position::at_step(step), Length::Steps(6));
        // remaining parts 1, 3/4, 1/2, 1/4, 0 from step 2 on: 0.2 + 0.8 r^2
        for (step, value) in [(1, 1.0), (2, 1.0), (3, 0.65), (4, 0.4), (5, 0.25), (6, 0.2), (60, 0.2)] {
            assert!((at(step) - value).abs() < 1e-15, "step {step}: {} is not {value}", at(step));
        }
    }

    #[test]
    fn power_one_is_the_straight_line() {
        let polynomial = Config { warmup: Length::Steps(3), power: 1.0, final_fraction: 0.1 };
        let linear = super::super::linear::Config { warmup: Length::Steps(3), final_fraction: 0.1, hold_steps: None };
        for step in 0..15 {
            let position = Position::at_step(step);
            let horizon = Length::Steps(12);
            assert!((polynomial.fraction(position, horizon) - linear.fraction(position, horizon)).abs() < 1e-15);
        }
    }

    #[test]
    fn follows_the_line_of_published_pretraining() {
        let config = Config { warmup: Length::Steps(32_000), power: 1.0, final_fraction: 0.0 };
        // A peak of 5e-3; the climb counts the update under way.
        let rate = |step| 5e-3 * config.fraction(Position::at_step(step), Length::Steps(1_000_000));
        for (step, value) in [(15_999, 2.5e-3), (31_999, 5e-3), (32_000, 5e-3), (516_000, 2.5e-3), (1_000_000, 0.0)] {
            assert!((rate(step) - value).abs() < 1e-15, "step {step}: {}", rate(step));
        }
    }

    #[test]
    fn a_power_of_zero_is_found() {
        let config = Config { warmup: Length::Steps(3), power: 0.0, final_fraction: 2.0 };
        let keys: Vec<_> = config.check(Length::Steps(10)).into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["power", "final_fraction"]);
    }
}
