//! Tri-stage: climb, hold, then an exponential decay.
//!
//! # What it computes
//! `initial + (1 - initial) step / warmup`, then 1 for `hold`, then `final^(p)` with `p` from 0 to 1 over `decay`,
//! then `final`.
//! # Recipe
//! `[schedule.tri_stage]` with `warmup`, `hold`, `decay`, optional `initial_fraction`, `final_fraction`
//! # Reference
//! Park et al. 2019, SpecAugment; `tri_stage` of fairseq, used to fine-tune wav2vec 2.0

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ScheduleChecks, part};
use crate::config::{Length, Position};

/// `[schedule.tri_stage]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How long the rate climbs to the peak.
    pub warmup: Length,
    /// How long it stays there.
    pub hold: Length,
    /// How long it falls; from then on it stays at `final_fraction`.
    pub decay: Length,
    /// Rate of the first update, as a part of the peak.
    #[serde(default = "one_hundredth")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub initial_fraction: f64,
    /// Rate after the decay, as a part of the peak; above 0, because the decay is exponential.
    #[serde(default = "one_hundredth")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub final_fraction: f64,
}

impl Config {
    pub(super) fn fraction(&self, position: Position, _horizon: Length) -> f64 {
        let done = self.warmup.before(position);
        let [warmup, hold, decay] = [self.warmup, self.hold, self.decay].map(|length| length.amount() as f64);
        if done < warmup {
            self.initial_fraction + (1.0 - self.initial_fraction) * done / warmup
        } else if done < warmup + hold {
            1.0
        } else {
            self.final_fraction.powf(part(done - warmup - hold, decay))
        }
    }

    pub(super) fn check(&self, horizon: Length) -> Vec<(&'static str, String)> {
        ScheduleChecks::new(horizon)
            .within_horizon("warmup", self.warmup)
            .within_horizon("hold", self.hold)
            .within_horizon("decay", self.decay)
            .together_within_horizon("decay", &[self.warmup, self.hold, self.decay])
            .fraction("initial_fraction", self.initial_fraction)
            .positive("final_fraction", self.final_fraction)
            .fraction("final_fraction", self.final_fraction)
            .done()
    }
}

fn one_hundredth() -> f64 {
    0.01
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            warmup: Length::Steps(10),
            hold: Length::Steps(40),
            decay: Length::Steps(50),
            initial_fraction: 0.01,
            final_fraction: 0.01,
        }
    }

    #[test]
    fn follows_the_published_stages() {
        let at = |step| config().fraction(Position::at_step(step), Length::Steps(100));
        // climb 0.01 + 0.099 step; decay exp(ln(0.01) / 50 (step - 50)), a tenth after 25 steps
        let expected = [
            (0, 0.01),
            (1, 0.109),
            (9, 0.901),
            (10, 1.0),
            (49, 1.0),
            (50, 1.0),
            (60, 0.398_107_170_553_497_25),
            (75, 0.1),
            (100, 0.01),
            (1000, 0.01),
        ];
        for (step, value) in expected {
            assert!((at(step) - value).abs() < 1e-15, "step {step}: {} is not {value}", at(step));
        }
    }

    #[test]
    fn follows_published_fine_tuning() {
        let rate = |peak: f64, total: u64, step| {
            let [warmup, hold, decay] = [total / 10, total * 4 / 10, total / 2].map(Length::Steps);
            let config = Config { warmup, hold, decay, initial_fraction: 0.01, final_fraction: 0.05 };
            peak * config.fraction(Position::at_step(step), Length::Steps(total))
        };
        for (peak, total, step, value) in [
            (3e-4, 20_000, 0, 3e-6),
            (3e-4, 20_000, 1000, 1.515e-4),
            (3e-4, 20_000, 2000, 3e-4),
            (3e-4, 20_000, 9999, 3e-4),
            (3e-4, 20_000, 15_000, 6.7082e-5),
            (3e-4, 20_000, 20_000, 1.5e-5),
            (1e-4, 120_000, 0, 1e-6),
            (1e-4, 120_000, 6000, 5.05e-5),
            (1e-4, 120_000, 12_000, 1e-4),
            (1e-4, 120_000, 59_999, 1e-4),
            (1e-4, 120_000, 90_000, 2.236e-5),
            (1e-4, 120_000, 120_000, 5e-6),
        ] {
            let found = rate(peak, total, step);
            assert!((found / value - 1.0).abs() < 5e-5, "{total} {step}: {found}");
        }
    }

    #[test]
    fn stages_that_outlast_the_run_are_found() {
        assert_eq!(config().check(Length::Steps(100)), vec![]);
        let found = config().check(Length::Steps(99));
        assert_eq!(found.len(), 1);
        assert!(found[0].1.contains("100 steps together, longer than the run of 99 steps"), "{}", found[0].1);
    }

    #[test]
    fn a_decay_to_nothing_is_found() {
        let found = Config { final_fraction: 0.0, ..config() }.check(Length::Steps(100));
        assert_eq!(found, [("final_fraction", "`final_fraction` is 0; use a number above 0".to_owned())]);
    }
}
