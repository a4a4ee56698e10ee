//! Re-warming: continued pretraining starts where the last run ended, climbs again, then decays.
//!
//! # What it computes
//! `start + (1 - start) min(1, (step + 1) / warmup)`, then half a cosine from 1 to `final_fraction` at the horizon.
//! # Recipe
//! `[schedule.rewarm]` with `warmup`, `start_fraction`, `final_fraction`
//! # Reference
//! Gupta et al. 2023, Continual Pre-Training of Large Language Models: How to (re)warm your model?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ScheduleChecks, climb, descent, half_cosine};
use crate::config::{Length, Position};

/// `[schedule.rewarm]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long the rate climbs back to the peak.
    pub warmup: Length,
    /// Rate before the climb, as a part of the peak: usually that with which the earlier run ended.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub start_fraction: f64,
    /// Rate at the horizon, as a part of the peak.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub final_fraction: f64,
}

impl Config {
    pub(super) fn fraction(&self, position: Position, horizon: Length) -> f64 {
        let climbed = climb(self.warmup, position);
        if climbed < 1.0 {
            self.start_fraction + (1.0 - self.start_fraction) * climbed
        } else {
            half_cosine(descent(self.warmup, position, horizon), self.final_fraction)
        }
    }

    pub(super) fn check(&self, horizon: Length) -> Vec<(&'static str, String)> {
        ScheduleChecks::new(horizon)
            .within_horizon("warmup", self.warmup)
            .fraction("start_fraction", self.start_fraction)
            .fraction("final_fraction", self.final_fraction)
            .done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn climbs_from_the_start_fraction_and_falls_to_the_final_one() {
        let config = Config { warmup: Length::Steps(4), start_fraction: 0.2, final_fraction: 0.1 };
        let at = |step| config.fraction(Position::at_step(step), Length::Steps(12));
        for (step, value) in [(0, 0.4), (1, 0.6), (2, 0.8), (3, 1.0), (4, 1.0), (8, 0.55), (12, 0.1), (50, 0.1)] {
            assert!((at(step) - value).abs() < 1e-15, "step {step}: {} is not {value}", at(step));
        }
    }

    #[test]
    fn from_nothing_it_is_the_cosine() {
        let rewarm = Config { warmup: Length::Steps(5), start_fraction: 0.0, final_fraction: 0.3 };
        let cosine = super::super::cosine::Config { warmup: Length::Steps(5), final_fraction: 0.3 };
        for step in 0..30 {
            let position = Position::at_step(step);
            assert_eq!(
                rewarm.fraction(position, Length::Steps(25)),
                cosine.fraction(position, Length::Steps(25)),
                "step {step}"
            );
        }
    }
}
