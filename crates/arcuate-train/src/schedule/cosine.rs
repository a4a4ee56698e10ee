//! Cosine: after the warm-up, half a cosine down to a part of the peak.
//!
//! # What it computes
//! With `p` from 0 (end of the warm-up) to 1 (horizon): `final + (1 - final) (1 + cos(pi p)) / 2`
//! # Recipe
//! `[schedule.cosine]` with `warmup`, optional `final_fraction`
//! # Reference
//! Loshchilov and Hutter 2017, SGDR; one cycle, as in GPT-3 and Llama

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ScheduleChecks, climb, descent, half_cosine};
use crate::config::{Length, Position};

/// `[schedule.cosine]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long the rate climbs to the peak.
    pub warmup: Length,
    /// Rate at the horizon, as a part of the peak.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub final_fraction: f64,
}

impl Config {
    pub(super) fn fraction(&self, position: Position, horizon: Length) -> f64 {
        climb(self.warmup, position) * half_cosine(descent(self.warmup, position, horizon), self.final_fraction)
    }

    pub(super) fn check(&self, horizon: Length) -> Vec<(&'static str, String)> {
        ScheduleChecks::new(horizon)
            .within_horizon("warmup", self.warmup)
            .fraction("final_fraction", self.final_fraction)
            .done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_half_way_between_peak_and_end() {
        let config = Config { warmup: Length::Steps(4), final_fraction: 0.1 };
        let at = |step| config.fraction(Position::at_step(step), Length::Steps(12));
        // 0.1 + 0.9 (1 + cos(pi/4)) / 2 two steps after the warm-up
        let expected = [(0, 0.25), (3, 1.0), (4, 1.0), (6, 0.868_198_051_533_946_4), (8, 0.55), (12, 0.1), (99, 0.1)];
        for (step, value) in expected {
            assert!((at(step) - value).abs() < 1e-15, "step {step}: {} is not {value}", at(step));
        }
    }

    #[test]
    fn steps_and_tokens_agree_when_batches_are_equal() {
        let steps = Config { warmup: Length::Steps(4), final_fraction: 0.0 };
        let tokens = Config { warmup: Length::Tokens(400), final_fraction: 0.0 };
        for step in 0..20 {
            let position = Position { step, tokens: step * 100, step_tokens: 100 };
            let both = (steps.fraction(position, Length::Steps(16)), tokens.fraction(position, Length::Tokens(1600)));
            assert!((both.0 - both.1).abs() < 1e-15, "{both:?}");
        }
    }
}
