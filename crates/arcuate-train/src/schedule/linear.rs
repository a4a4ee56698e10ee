//! Linear: after the warm-up, a straight line down to a part of the peak.
//!
//! # What it computes
//! With `p` from 0 (end of the warm-up) to 1 (horizon): `1 - (1 - final) p`
//! # Recipe
//! `[schedule.linear]` with `warmup`, optional `final_fraction`
//! # Reference
//! Devlin et al. 2019, BERT

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ScheduleChecks, climb, descent};
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
}

impl Config {
    pub(super) fn fraction(&self, position: Position, horizon: Length) -> f64 {
        climb(self.warmup, position) * (1.0 - (1.0 - self.final_fraction) * descent(self.warmup, position, horizon))
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
    fn falls_in_equal_steps_to_the_end() {
        let config = Config { warmup: Length::Steps(2), final_fraction: 0.5 };
        let at = |step| config.fraction(Position::at_step(step), Length::Steps(6));
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(at), [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5]);
    }

    #[test]
    fn a_warmup_as_long_as_the_run_only_climbs() {
        let config = Config { warmup: Length::Steps(4), final_fraction: 0.0 };
        assert_eq!(config.check(Length::Steps(4)), vec![]);
        let at = |step| config.fraction(Position::at_step(step), Length::Steps(4));
        assert_eq!([0, 1, 2, 3].map(at), [0.25, 0.5, 0.75, 1.0]);
    }
}
