//! Noam: the schedule of the first Transformer, whose rate follows from the width of the model.
//!
//! # What it computes
//! With `n = step + 1`: `hidden_size^-0.5 min(n^-0.5, n warmup^-1.5)`. The peak learning rate of the optimizer is then
//! the factor before that formula (1 or 2 in the literature), and the largest rate is `(hidden_size warmup)^-0.5` of it.
//! # Recipe
//! `[schedule.noam]` with `warmup` (at least 1) and `hidden_size`
//! # Reference
//! Vaswani et al. 2017, Attention Is All You Need, equation 3

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ScheduleChecks;
use crate::config::{Length, Position};

/// `[schedule.noam]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long the rate climbs.
    pub warmup: Length,
    /// The width in the formula: that of the model in the paper, any other number to keep the rates of another width.
    #[schemars(range(min = 1))]
    pub hidden_size: u64,
}

impl Config {
    pub(super) fn fraction(&self, position: Position, _horizon: Length) -> f64 {
        let warmup = self.warmup.amount().max(1) as f64;
        let done = self.warmup.after(position).max(1.0);
        (self.hidden_size.max(1) as f64).powf(-0.5) * done.powf(-0.5).min(done * warmup.powf(-1.5))
    }

    pub(super) fn check(&self, horizon: Length) -> Vec<(&'static str, String)> {
        let mut found = ScheduleChecks::new(horizon)
            .not_longer_than_horizon("warmup", self.warmup)
            .not_empty("warmup", self.warmup)
            .done();
        if self.hidden_size == 0 {
            found.push(("hidden_size", "`hidden_size` is 0; use the width of the model".to_owned()));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_published_formula() {
        let config = Config { warmup: Length::Steps(4000), hidden_size: 512 };
        let at = |step| config.fraction(Position::at_step(step), Length::Steps(100_000));
        // 512^-0.5 = 0.04419417382415922; 4000^-1.5 = 3.952847075210474e-6; 4000^-0.5 = 0.015811388300841896
        let expected = [
            (0, 1.746_928_107_421_711e-7),
            (1999, 3.493_856_214_843_422e-4),
            (3999, 6.987_712_429_686_844e-4),
            (15_999, 3.493_856_214_843_422e-4),
            (99_999, 1.397_542_485_937_368_6e-4),
        ];
        for (step, value) in expected {
            assert!((at(step) / value - 1.0).abs() < 1e-12, "step {step}: {} is not {value}", at(step));
        }
    }

    #[test]
    fn follows_published_multilingual_pretraining() {
        let config = Config { warmup: Length::Steps(20_000), hidden_size: 512 };
        let rate = |updates: u64| config.fraction(Position::at_step(updates - 1), Length::Steps(100_000));
        for (updates, value) in [(1, 1.5625e-8), (10_000, 1.5625e-4), (20_000, 3.125e-4), (40_000, 2.2097e-4)] {
            assert!((rate(updates) / value - 1.0).abs() < 1e-5, "{updates}: {}", rate(updates));
        }
    }

    #[test]
    fn is_the_inverse_square_root_scaled() {
        let noam = Config { warmup: Length::Steps(25), hidden_size: 4 };
        let plain = super::super::inverse_sqrt::Config { warmup: Length::Steps(25) };
        for step in 0..200 {
            let position = Position::at_step(step);
            let (scaled, reference) =
                (noam.fraction(position, Length::Steps(200)), plain.fraction(position, Length::Steps(200)));
            // (4 x 25)^-0.5 = 0.1
            assert!((scaled - 0.1 * reference).abs() < 1e-15, "step {step}");
        }
    }
}
