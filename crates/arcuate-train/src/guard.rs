//! The health referee: what a loss and a gradient norm mean for the update about to be made.
//!
//! A number that is not finite stops the run before the update. A loss far above its recent mean is a spike: first the
//! update is skipped, then the run goes back to a checkpoint with a lower rate, then it stops. Signs of a collapse that hold for
//! many steps are told, or stop the run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod collapse;
mod spike;
mod stall;

pub use collapse::Collapse;
pub use spike::Spike;
pub use stall::{Heartbeat, Stall, Watchdog};

use crate::config::GuardConfig;
use crate::error::Health;
use crate::exact;
use spike::Window;

/// One row of a batch, named so that it can be found again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchId {
    /// Source of the row.
    pub source: String,
    /// Key of the row within its source.
    pub key: u64,
    /// Ids of the documents in it, where known.
    pub documents: Vec<String>,
}

impl std::fmt::Display for BatchId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.source, self.key)?;
        match self.documents.as_slice() {
            [] => Ok(()),
            [one] => write!(f, " ({one})"),
            [first, rest @ ..] => write!(f, " ({first} and {} more)", rest.len()),
        }
    }
}

/// What to do with the update.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Make it.
    Continue,
    /// Leave it out and go on with the next batch.
    Skip(Spike),
    /// Go back to the last checkpoint (then call [`Guard::rolled_back_to`]) and multiply the learning rate.
    RollBack {
        /// The factor for all learning rates from now on, earlier returns included.
        learning_rate_factor: f64,
        /// What was seen.
        spike: Spike,
    },
    /// Stop the run with [`crate::Error::Health`].
    Stop(Box<Health>),
}

/// What the guard remembers, for the checkpoint. Plain numbers: equal states act alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuardState {
    /// Recent losses without spikes, oldest first.
    #[serde(with = "exact::list")]
    pub losses: Vec<f64>,
    /// Steps of the window whose updates were skipped, oldest first.
    pub skipped_steps: Vec<u64>,
    /// Updates skipped in the whole run.
    pub num_skips: u64,
    /// Times that the run went back.
    pub num_rollbacks: u64,
    /// Factor of the learning rate that follows from them.
    #[serde(with = "exact::one")]
    pub learning_rate_factor: f64,
    /// Steps in a row that each sign of a collapse has been seen.
    #[serde(default)]
    pub signs: BTreeMap<String, u64>,
}

impl Default for GuardState {
    fn default() -> Self {
        Self {
            losses: Vec::new(),
            skipped_steps: Vec::new(),
            num_skips: 0,
            num_rollbacks: 0,
            learning_rate_factor: 1.0,
            signs: BTreeMap::new(),
        }
    }
}

/// Watches the loss and the gradient norm of every step.
#[derive(Debug, Clone)]
pub struct Guard {
    config: GuardConfig,
    window: Window,
    skipped_steps: Vec<u64>,
    num_skips: u64,
    num_rollbacks: u64,
    learning_rate_factor: f64,
    signs: BTreeMap<String, u64>,
}

impl Guard {
    /// A guard that has seen nothing.
    pub fn new(config: GuardConfig) -> Self {
        Self::restore(config, GuardState::default())
    }

    /// The guard of a checkpoint. A window that became shorter keeps the newest losses; other numbers than finite are
    /// dropped.
    pub fn restore(config: GuardConfig, state: GuardState) -> Self {
        let window = Window::restore(config.spike_window_steps, config.spike_sigma, state.losses);
        let factor = state.learning_rate_factor;
        Self {
            config,
            window,
            skipped_steps: state.skipped_steps,
            num_skips: state.num_skips,
            num_rollbacks: state.num_rollbacks,
            learning_rate_factor: if factor.is_finite() && factor > 0.0 { factor } else { 1.0 },
            signs: state.signs,
        }
    }

    /// What to save in the checkpoint.
    pub fn state(&self) -> GuardState {
        GuardState {
            losses: self.window.losses(),
            skipped_steps: self.skipped_steps.clone(),
            num_skips: self.num_skips,
            num_rollbacks: self.num_rollbacks,
            learning_rate_factor: self.learning_rate_factor,
            signs: self.signs.clone(),
        }
    }

    /// The factor of all learning rates: 1 until the run had to go back.
    pub fn learning_rate_factor(&self) -> f64 {
        self.learning_rate_factor
    }

    /// Judges the batch of `step` (from 0) before its update. `batch` is asked for only when the run stops.
    pub fn observe(&mut self, step: u64, loss: f64, grad_norm: f64, batch: impl FnOnce() -> Vec<BatchId>) -> Action {
        if !loss.is_finite() || !grad_norm.is_finite() {
            return Action::Stop(Box::new(self.not_finite(step, loss, grad_norm, batch())));
        }
        let Some(spike) = self.window.judge(step, loss) else {
            return Action::Continue;
        };
        let oldest = (step + 1).saturating_sub(self.config.spike_window_steps as u64);
        self.skipped_steps.retain(|skipped| *skipped >= oldest && *skipped < step);
        if self.skipped_steps.len() < self.config.max_skips {
            self.skipped_steps.push(step);
            self.num_skips += 1;
            return Action::Skip(spike);
        }
        if self.num_rollbacks < self.config.max_rollbacks as u64 {
            self.num_rollbacks += 1;
            self.learning_rate_factor *= self.config.rollback_learning_rate_factor;
            return Action::RollBack { learning_rate_factor: self.learning_rate_factor, spike };
        }
        Action::Stop(Box::new(self.too_many_spikes(spike, batch())))
    }

    /// Looks for signs of a collapse in the means of a step (from 0); each is told once as long as it lasts.
    pub fn watch(&mut self, step: u64, terms: &[(&'static str, f64)], grad_norm: f64) -> Option<Collapse> {
        collapse::watch(&self.config, &mut self.signs, step, terms, grad_norm)
    }

    /// Takes the window of the checkpoint that the run went back to, and remembers that it went back.
    pub fn rolled_back_to(&mut self, checkpoint: GuardState) {
        let (num_rollbacks, factor) = (self.num_rollbacks, self.learning_rate_factor);
        *self = Self::restore(self.config.clone(), checkpoint);
        self.skipped_steps.clear();
        self.num_rollbacks = num_rollbacks.max(self.num_rollbacks);
        self.learning_rate_factor = factor.min(self.learning_rate_factor);
    }

    fn not_finite(&self, step: u64, loss: f64, grad_norm: f64, batch: Vec<BatchId>) -> Health {
        let what = if loss.is_finite() {
            format!("the gradient norm is {grad_norm} (the loss is {loss:.4})")
        } else {
            format!("the loss is {loss}")
        };
        let mut causes = Vec::new();
        if let Some((mean, deviation)) = self.window.mean_and_deviation() {
            let now = if self.window.is_rising() { ", and it was rising" } else { "" };
            causes.push(format!(
                "the learning rate is too high (the loss was {mean:.4} +- {deviation:.4} over the last {} steps{now})",
                self.window.len()
            ));
        } else {
            causes.push("the learning rate or the first warm-up steps are too high".to_owned());
        }
        causes.push("gradients are not clipped (`max_grad_norm`)".to_owned());
        causes.push("one of the rows below holds text that the model cannot take".to_owned());
        let next = "set a lower `peak_learning_rate` or a `max_grad_norm` such as 1.0 in the recipe and run it under \
                    another name; to look at the rows, see `health.json` in the run folder"
            .to_owned();
        Health { step, what, causes, next, batch }
    }

    fn too_many_spikes(&self, spike: Spike, batch: Vec<BatchId>) -> Health {
        let times = self.num_rollbacks;
        let what = format!("{spike}, after going back {times} times to a lower learning rate");
        Health {
            step: spike.step,
            what,
            causes: vec![
                "the learning rate is too high for this model".to_owned(),
                "the data changes its kind at this place, so its loss is higher from here on".to_owned(),
                "broken or repeated documents in the rows below".to_owned(),
            ],
            next:
                "set a lower `peak_learning_rate`, or shuffle the sources into one mixture, or raise `spike_sigma` in \
                   `[guard]` if the data is like that; `health.json` in the run folder lists the rows"
                    .to_owned(),
            batch,
        }
    }
}

#[cfg(test)]
mod tests;
