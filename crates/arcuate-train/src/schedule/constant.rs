//! Constant: the peak from the end of the warm-up on.
//!
//! # What it computes
//! `min(1, (step + 1) / warmup)`
//! # Recipe
//! `[schedule.constant]` with optional `warmup`
//! # Reference
//! The usual choice for short fine-tuning; the first phase of WSD

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ScheduleChecks, climb};
use crate::config::{Length, Position};

/// `[schedule.constant]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long the rate climbs to the peak. Left out: it begins there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Length>,
}

impl Config {
    pub(super) fn fraction(&self, position: Position, _horizon: Length) -> f64 {
        self.warmup.map_or(1.0, |warmup| climb(warmup, position))
    }

    pub(super) fn check(&self, horizon: Length) -> Vec<(&'static str, String)> {
        let checks = ScheduleChecks::new(horizon);
        match self.warmup {
            Some(warmup) => checks.not_longer_than_horizon("warmup", warmup).done(),
            None => checks.done(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn climbs_in_equal_steps_and_stays() {
        let config = Config { warmup: Some(Length::Steps(4)) };
        let at = |step| config.fraction(Position::at_step(step), Length::Steps(8));
        assert_eq!([0, 1, 2, 3, 4, 7, 100].map(at), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0]);
    }

    #[test]
    fn without_warmup_begins_at_the_peak() {
        for warmup in [None, Some(Length::Steps(0)), Some(Length::Tokens(0))] {
            assert_eq!(Config { warmup }.fraction(Position::default(), Length::Steps(8)), 1.0);
        }
    }

    #[test]
    fn a_warmup_in_tokens_counts_those_of_the_update() {
        let config = Config { warmup: Some(Length::Tokens(1000)) };
        let position = Position { step: 1, tokens: 300, step_tokens: 200 };
        assert_eq!(config.fraction(position, Length::Steps(8)), 0.5);
    }
}
