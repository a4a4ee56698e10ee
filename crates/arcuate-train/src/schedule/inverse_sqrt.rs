//! Inverse square root: after the warm-up, a slow decay that needs no horizon.
//!
//! # What it computes
//! `(step + 1) / warmup` up to the peak, then `sqrt(warmup / (step + 1))`
//! # Recipe
//! `[schedule.inverse_sqrt]` with `warmup` (at least 1)
//! # Reference
//! Vaswani et al. 2017, scaled to reach exactly the peak; `inverse_sqrt` of fairseq; T5

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ScheduleChecks, climb};
use crate::config::{Length, Position};

/// `[schedule.inverse_sqrt]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long the rate climbs to the peak; the decay is the slower the longer this is.
    pub warmup: Length,
}

impl Config {
    pub(super) fn fraction(&self, position: Position, _horizon: Length) -> f64 {
        let warmup = self.warmup.amount().max(1) as f64;
        let done = self.warmup.after(position);
        if done <= warmup { climb(self.warmup, position) } else { (warmup / done).sqrt() }
    }

    pub(super) fn check(&self, horizon: Length) -> Vec<(&'static str, String)> {
        ScheduleChecks::new(horizon)
            .not_longer_than_horizon("warmup", self.warmup)
            .not_empty("warmup", self.warmup)
            .done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_when_four_times_the_warmup_is_done() {
        let config = Config { warmup: Length::Steps(4) };
        let at = |step| config.fraction(Position::at_step(step), Length::Steps(1000));
        assert_eq!([0, 1, 3, 15, 63].map(at), [0.25, 0.5, 1.0, 0.5, 0.25]);
        assert!((at(7) - 0.5_f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn follows_published_conformers() {
        let config = Config { warmup: Length::Steps(25_000) };
        let rate = |updates: u64| 2e-3 * config.fraction(Position::at_step(updates - 1), Length::Steps(400_000));
        for (updates, value) in [(1000, 8e-5), (25_000, 2e-3), (100_000, 1e-3), (400_000, 5e-4)] {
            assert!((rate(updates) - value).abs() < 1e-15, "{updates}: {}", rate(updates));
        }
    }

    #[test]
    fn counts_tokens_when_the_warmup_does() {
        let config = Config { warmup: Length::Tokens(400) };
        let position = Position { step: 3, tokens: 1500, step_tokens: 100 };
        assert_eq!(config.fraction(position, Length::Steps(10)), 0.5);
        assert_eq!(config.check(Length::Steps(10)), vec![]);
    }

    #[test]
    fn an_empty_warmup_is_found() {
        assert_eq!(Config { warmup: Length::Steps(0) }.check(Length::Steps(10))[0].0, "warmup");
    }
}
