//! WSD (warm-up, stable, decay): the peak for most of the run, then a decay at its end.
//!
//! # What it computes
//! 1 until `decay` before the horizon, then with `p` from 0 to 1 one of `1 - p` (linear), `(1 + cos(pi p)) / 2` (cosine),
//! `1 - sqrt(p)` (one_minus_sqrt), scaled to end at `final_fraction`. A run can be lengthened from any checkpoint of
//! the stable part, as nothing before depended on the horizon.
//! # Recipe
//! `[schedule.wsd]` with `warmup`, `decay`, `shape`, optional `final_fraction`
//! # Reference
//! Hu et al. 2024, MiniCPM; Hägele et al. 2024, Scaling Laws and Compute-Optimal Training Beyond Fixed Durations

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ScheduleChecks, climb, half_cosine, part};
use crate::config::{Length, Position};

/// `[schedule.wsd]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long the rate climbs to the peak.
    pub warmup: Length,
    /// How long it falls at the end of the run.
    pub decay: Length,
    /// How it falls.
    pub shape: Shape,
    /// Rate at the horizon, as a part of the peak.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub final_fraction: f64,
}

/// The form of the last part of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Half a cosine.
    Cosine,
    /// A straight line.
    Linear,
    /// One minus the square root: fast at first.
    OneMinusSqrt,
}

impl Config {
    pub(super) fn fraction(&self, position: Position, horizon: Length) -> f64 {
        let decay = if self.decay.same_unit(&horizon) { self.decay.amount() as f64 } else { 0.0 };
        let part = part(horizon.before(position) - (horizon.amount() as f64 - decay), decay);
        let height = match self.shape {
            Shape::Cosine => half_cosine(part, 0.0),
            Shape::Linear => 1.0 - part,
            Shape::OneMinusSqrt => 1.0 - part.sqrt(),
        };
        climb(self.warmup, position) * (self.final_fraction + (1.0 - self.final_fraction) * height)
    }

    pub(super) fn check(&self, horizon: Length) -> Vec<(&'static str, String)> {
        ScheduleChecks::new(horizon)
            .within_horizon("warmup", self.warmup)
            .within_horizon("decay", self.decay)
            .together_within_horizon("decay", &[self.warmup, self.decay])
            .fraction("final_fraction", self.final_fraction)
            .done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: Shape, expected: [(u64, f64); 7]) {
        let config = Config { warmup: Length::Steps(2), decay: Length::Steps(4), shape, final_fraction: 0.2 };
        for (step, value) in expected {
            let fraction = config.fraction(Position::at_step(step), Length::Steps(10));
            assert!((fraction - value).abs() < 1e-15, "{shape:?} at step {step}: {fraction} is not {value}");
        }
    }

    #[test]
    fn falls_in_a_straight_line_at_the_end() {
        check(Shape::Linear, [(0, 0.5), (1, 1.0), (6, 1.0), (7, 0.8), (8, 0.6), (9, 0.4), (10, 0.2)]);
    }

    #[test]
    fn falls_along_a_cosine_at_the_end() {
        let (high, low) = (0.882_842_712_474_619, 0.317_157_287_525_381); // 0.2 + 0.4 (1 +- sqrt(1/2))
        check(Shape::Cosine, [(0, 0.5), (5, 1.0), (6, 1.0), (7, high), (8, 0.6), (9, low), (10, 0.2)]);
    }

    #[test]
    fn falls_fast_at_first_with_one_minus_sqrt() {
        let (at_half, at_three_quarters) = (0.434_314_575_050_762, 0.307_179_676_972_449);
        check(
            Shape::OneMinusSqrt,
            [(0, 0.5), (5, 1.0), (6, 1.0), (7, 0.6), (8, at_half), (9, at_three_quarters), (10, 0.2)],
        );
    }

    #[test]
    fn does_not_depend_on_the_horizon_before_the_decay() {
        let config =
            Config { warmup: Length::Steps(5), decay: Length::Steps(10), shape: Shape::Linear, final_fraction: 0.0 };
        for step in 0..=90 {
            let position = Position::at_step(step);
            assert_eq!(config.fraction(position, Length::Steps(100)), config.fraction(position, Length::Steps(9999)));
        }
    }

    #[test]
    fn warmup_and_decay_that_overlap_are_found() {
        let config =
            Config { warmup: Length::Steps(60), decay: Length::Steps(50), shape: Shape::Linear, final_fraction: 0.0 };
        assert_eq!(config.check(Length::Steps(100))[0].0, "decay");
        assert_eq!(config.check(Length::Steps(110)), vec![]);
    }
}
