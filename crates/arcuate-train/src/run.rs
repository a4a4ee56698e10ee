//! The training loop: batches to updates, with the health referee, evaluation, checkpoints and exact resume.
//!
//! The loop knows neither recipes nor files of the record: what happens around a step is told to `Hooks`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arcuate_data::{Batch, Sampler};
use arcuate_model::{Dropout, Input, Network, Replace, Seen, Visit, is_buffer};
use arcuate_objective::Objective;
use arcuate_ops::Precision;
use burn::module::Param;
use burn::tensor::{Device, Tensor};

use crate::checkpoint::{Checkpoint, CheckpointStore, LoopState};
use crate::config::{BatchConfig, CheckpointConfig, GuardConfig, HorizonConfig, Position};
use crate::feed::Feed;
use crate::guard::{Action, BatchId, Guard, Heartbeat, Stall, Watchdog};
use crate::optimizer::{Gradients, Optimizer, OptimizerConfig};
use crate::schedule::ScheduleConfig;
use crate::stop::{StopFlag, StopRequest};
use crate::{Error, Result};

/// What one run is made of, apart from network and data.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Seed of all random streams.
    pub seed: u64,
    /// How microbatches are computed.
    pub compute: Compute,
    /// `[batch]`
    pub batch: BatchConfig,
    /// `[optimizer.<name>]`
    pub optimizer: OptimizerConfig,
    /// `[schedule.<name>]`
    pub schedule: ScheduleConfig,
    /// `[horizon]`
    pub horizon: HorizonConfig,
    /// `[checkpoint]`
    pub checkpoint: CheckpointConfig,
    /// `[guard]`
    pub guard: GuardConfig,
    /// Patterns of parameter names that stay as they are; `*` stands for any text.
    pub freeze: Vec<String>,
    /// Evaluate after every so many steps, and after the last; none: never.
    pub evaluate_every_steps: Option<u64>,
    /// Folder of the checkpoints.
    pub checkpoints: PathBuf,
    /// Folder in which a health report is left.
    pub run_dir: PathBuf,
    /// Hash of the recipe, compared on resume.
    pub recipe_hash: String,
    /// Fingerprint of the data, compared on resume.
    pub data_fingerprint: String,
    /// Go on although the data changed.
    pub accept_changed_data: bool,
    /// The token that fills rows.
    pub pad_id: u32,
}

/// Numbers of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepReport {
    /// Steps made, this one included.
    pub step: u64,
    /// Tokens trained on so far.
    pub tokens: u64,
    /// Tokens of this step.
    pub step_tokens: u64,
    /// Mean loss of the batch in nats.
    pub loss: f64,
    /// Bits per byte of text, where tokens are predicted one by one.
    pub bits_per_byte: Option<f64>,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Seconds that the step took.
    pub seconds: f64,
    /// Whether the referee left out the update.
    pub skipped: bool,
}

/// What an evaluation found: the metric that chooses the best checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Such as `bits_per_byte`.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// Whether smaller is better.
    pub smaller_is_better: bool,
}

/// An error of something that the loop calls.
pub type HookError = Box<dyn std::error::Error + Send + Sync>;

/// What happens around the steps.
pub trait Hooks {
    /// The run begins after `state.step` steps; on a resume, what was recorded later is void.
    fn started(&mut self, state: &LoopState, warnings: &[String]) -> std::result::Result<(), HookError>;
    /// A step was made.
    fn stepped(&mut self, report: &StepReport, sampler: &Sampler) -> std::result::Result<(), HookError>;
    /// Evaluates a network without a tape.
    fn evaluate(
        &mut self,
        network: &Network,
        step: u64,
        last: bool,
    ) -> std::result::Result<Option<Evaluation>, HookError>;
    /// Writes the files of a checkpoint that are not the loop's: model, configuration, tokenizer.
    fn write_model(&mut self, network: &Network, dir: &Path) -> std::result::Result<(), HookError>;
    /// A checkpoint was saved.
    fn saved(&mut self, checkpoint: &Checkpoint, is_best: bool, seconds: f64) -> std::result::Result<(), HookError>;
    /// The ids of the documents in a row, for messages.
    fn documents(&self, _row_key: u64) -> Vec<String> {
        Vec::new()
    }
    /// Something the user should know.
    fn warn(&mut self, message: &str);
}

/// How a run ended.
pub struct Outcome {
    /// The network, with a tape.
    pub network: Network,
    /// The state after the last step.
    pub state: LoopState,
    /// The ledger of tokens and the like.
    pub sampler: Sampler,
    /// Seconds that the loop spent waiting for rows.
    pub data_wait_seconds: f64,
}

fn data(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Hook(Box::new(error))
}

/// Whether a pattern with `*` covers a name.
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices().map(|(i, _)| i).chain([rest.len()]).any(|i| matches(tail, &rest[i..]))
        }),
    }
}

struct Freeze<'a>(&'a [String]);

impl Replace for Freeze<'_> {
    fn replace<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let frozen = self.0.iter().any(|pattern| matches(pattern, name));
        param.set_require_grad(!frozen && !is_buffer(name))
    }
}

/// Moves gradients off the tape and adds them to those of earlier microbatches.
pub(crate) struct Collect<'a> {
    pub(crate) from: burn::tensor::Gradients,
    pub(crate) into: &'a mut Gradients,
}

impl Visit for Collect<'_> {
    fn visit<const D: usize>(&mut self, name: &str, value: &Param<Tensor<D>>) {
        let value = value.val();
        let Some(grad) = value.grad_remove(&mut self.from) else { return };
        let len: usize = grad.dims().iter().product();
        let grad = grad.reshape([len]);
        let sum = match self.into.remove(name) {
            Some(before) => before + grad,
            None => grad,
        };
        self.into.insert(name.to_string(), sum);
    }
}

/// How a microbatch is computed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Compute {
    /// Number format of the products.
    pub precision: Precision,
    /// Whether layers are computed again on the way back instead of being kept.
    pub activation_checkpointing: bool,
}

/// What a training pass has beside its batch.
#[derive(Debug, Clone, Default)]
pub struct Pass {
    /// Where dropout masks come from; none: nothing is dropped.
    pub dropout: Option<Dropout>,
    /// Where batch norms leave their statistics; none: they are forgotten.
    pub seen: Option<Seen>,
}

/// Sum, count and gradients of one microbatch, added to those of earlier ones.
pub fn forward_backward(
    network: &Network,
    objective: &dyn Objective,
    batch: &Batch,
    compute: Compute,
    pass: Pass,
    grads: &mut Gradients,
) -> Result<(f64, f64)> {
    let Pass { dropout, seen } = pass;
    let input = Input { dropout, seen, recompute: compute.activation_checkpointing, ..Input::from_batch(batch) };
    let loss = compute.precision.scope(|| -> Result<_> {
        let output = network.forward(&input, &objective.wanted(batch)).map_err(data)?;
        Ok(objective.loss(batch, output))
    })?;
    let sum = f64::from(loss.sum.clone().into_scalar::<f32>());
    if loss.count > 0.0 && sum.is_finite() {
        network.visit(&mut Collect { from: loss.sum.backward(), into: grads });
    }
    Ok((sum, loss.count))
}

/// Norm over all gradients, divided by the count.
pub fn global_norm(grads: &Gradients, count: f64) -> f64 {
    arcuate_ops::global_norm::global_norm(grads.values().cloned()) / count
}

struct Trainer<'a> {
    settings: &'a Settings,
    network: Option<Network>,
    optimizer: Optimizer,
    feed: Feed,
    objective: &'a dyn Objective,
    guard: Guard,
    state: LoopState,
    store: CheckpointStore,
    device: Device,
    hooks: &'a mut dyn Hooks,
    heartbeat: Arc<Heartbeat>,
    data_wait: Duration,
}

/// What is trained, on what, for what.
pub struct Work<'a> {
    /// The network, with a tape.
    pub network: Network,
    /// Where it lives, with a tape.
    pub device: &'a Device,
    /// The order of the rows.
    pub sampler: Sampler,
    /// What is minimised.
    pub objective: &'a dyn Objective,
}

/// Trains until the horizon, a stop request or the referee ends the run; goes on from the newest sound checkpoint.
pub fn train(
    settings: &Settings,
    work: Work<'_>,
    hooks: &mut dyn Hooks,
    stop: &StopFlag,
    stalled: impl Fn(Stall) + Send + 'static,
) -> Result<Outcome> {
    let Work { network, device, sampler, objective } = work;
    let heartbeat = Arc::new(Heartbeat::new(Duration::from_secs(settings.guard.stall_seconds), Instant::now()));
    let _watchdog = Watchdog::spawn(heartbeat.clone(), Duration::from_secs(1), stalled)
        .map_err(|e| Error::io("start the watchdog of", &settings.run_dir, e))?;
    let mut trainer = Trainer {
        settings,
        network: Some(network.replace(&mut Freeze(&settings.freeze))),
        optimizer: Optimizer::new(settings.optimizer.clone()),
        feed: Feed::new(sampler, settings.batch.limits(), settings.pad_id),
        objective,
        guard: Guard::new(settings.guard.clone()),
        state: LoopState::new(settings.seed, settings.data_fingerprint.clone(), settings.recipe_hash.clone()),
        store: CheckpointStore::open(&settings.checkpoints, settings.checkpoint.clone())?,
        device: device.clone(),
        hooks,
        heartbeat,
        data_wait: Duration::ZERO,
    };
    trainer.resume()?;
    let result = trainer.run(stop);
    if let Err(Error::Health(health)) = &result {
        health.save(&settings.run_dir)?;
    }
    result?;
    Ok(Outcome {
        network: trainer.network.take().expect("a network between steps"),
        state: trainer.state,
        sampler: trainer.feed.into_sampler(),
        data_wait_seconds: trainer.data_wait.as_secs_f64(),
    })
}

impl Trainer<'_> {
    fn network(&self) -> &Network {
        self.network.as_ref().expect("a network between steps")
    }

    fn resume(&mut self) -> Result<()> {
        let found = self.store.latest_valid()?;
        if let Some(checkpoint) = &found.checkpoint {
            let state = LoopState::load(&checkpoint.path)?;
            state.check_recipe(&checkpoint.path, &self.settings.recipe_hash)?;
            if !self.settings.accept_changed_data {
                let what = "the files of a source, its keys, the tokenizer or the split";
                state.check_data(&self.settings.data_fingerprint, what, "--accept-changed-data")?;
            }
            self.load(checkpoint, state)?;
            self.store.settle(checkpoint, self.state.best.as_ref().map(|b| b.step))?;
        }
        self.hooks.started(&self.state, &found.warnings).map_err(Error::Hook)
    }

    /// Puts weights, optimiser, data order and guard back to what a checkpoint holds.
    fn load(&mut self, checkpoint: &Checkpoint, state: LoopState) -> Result<()> {
        let network = arcuate_model::load(&checkpoint.path, &self.device).map_err(data)?;
        self.network = Some(network.replace(&mut Freeze(&self.settings.freeze)));
        let inner = self.device.clone().inner();
        self.optimizer = Optimizer::load(self.settings.optimizer.clone(), &checkpoint.path, &inner).map_err(data)?;
        let sampler = serde_json::from_value(state.sampler.clone()).map_err(data)?;
        self.feed.restore(&sampler).map_err(data)?;
        self.guard = Guard::restore(self.settings.guard.clone(), state.guard.clone());
        self.state = state;
        self.state.data_fingerprint = self.settings.data_fingerprint.clone();
        Ok(())
    }

    fn done(&self) -> bool {
        self.settings.horizon.is_reached(self.state.step, self.state.tokens)
    }

    fn run(&mut self, stop: &StopFlag) -> Result<()> {
        let mut saved = self.store.last().map(|c| c.step);
        // A kill may have come between the last step and its evaluation; a finished run evaluates nothing again.
        while !self.done() {
            if stop.get() == StopRequest::Now {
                return Err(Error::Preempted { step: saved.unwrap_or(0) });
            }
            let report = self.step()?;
            let Some(report) = report else { continue };
            self.hooks.stepped(&report, self.feed.sampler()).map_err(Error::Hook)?;
            let step = self.state.step;
            let last = self.done();
            let stopping = stop.is_requested() && !last;
            let mut is_best = false;
            let evaluation_due = self.settings.evaluate_every_steps.is_some_and(|n| step.is_multiple_of(n) || last);
            if evaluation_due {
                self.heartbeat.beat(Instant::now(), format!("step {step}: evaluation"));
                let network = self.network().valid();
                if let Some(e) = self.hooks.evaluate(&network, step, last).map_err(Error::Hook)? {
                    is_best = self.state.note_evaluation(&e.metric, e.value, e.smaller_is_better);
                }
            }
            if self.settings.checkpoint.is_due(step) || last || is_best || stopping {
                self.save(is_best)?;
                saved = Some(step);
            }
            if stopping {
                return Err(Error::Preempted { step });
            }
        }
        Ok(())
    }

    fn save(&mut self, is_best: bool) -> Result<()> {
        let begun = Instant::now();
        self.heartbeat.beat(begun, format!("step {}: save", self.state.step));
        self.state.sampler = serde_json::to_value(self.feed.sampler().state()).map_err(data)?;
        self.state.guard = self.guard.state();
        let network = self.network.as_ref().expect("a network between steps");
        let (hooks, optimizer, state) = (&mut self.hooks, &self.optimizer, &self.state);
        let write = |dir: &Path| -> std::result::Result<(), HookError> {
            hooks.write_model(network, dir)?;
            optimizer.save(dir)?;
            state.save(dir)?;
            Ok(())
        };
        let checkpoint =
            if is_best { self.store.save_best(state.step, write)? } else { self.store.save(state.step, write)? };
        self.hooks.saved(&checkpoint, is_best, begun.elapsed().as_secs_f64()).map_err(Error::Hook)
    }

    /// One step; nothing when the run went back to a checkpoint.
    fn step(&mut self) -> Result<Option<StepReport>> {
        let begun = Instant::now();
        let step = self.state.step;
        self.heartbeat.beat(begun, format!("step {step}"));
        let (mut grads, mut sum, mut count) = (Gradients::new(), 0.0, 0.0);
        let (mut tokens, mut bytes, mut padding) = (0, 0, 0);
        let mut ids: Vec<(u32, u64)> = Vec::new();
        let seen = Seen::default();
        for micro in 0..self.settings.batch.accumulate_steps as u64 {
            let waiting = Instant::now();
            let mut batch = self.feed.next().map_err(data)?;
            self.objective.prepare(&mut batch, self.settings.seed, step);
            self.data_wait += waiting.elapsed();
            let counter = step * self.settings.batch.accumulate_steps as u64 + micro;
            let dropout = Some(Dropout { seed: self.settings.seed, step: counter });
            let pass = Pass { dropout, seen: Some(seen.clone()) };
            let (s, c) =
                forward_backward(self.network(), self.objective, &batch, self.settings.compute, pass, &mut grads)?;
            sum += s;
            count += c;
            tokens += batch.num_tokens() as u64;
            bytes += batch.num_bytes;
            padding += (batch.num_positions() - batch.num_tokens()) as u64;
            ids.extend(batch.sources.iter().copied().zip(batch.row_keys.iter().copied()));
        }
        let count = if count > 0.0 { count } else { 1.0 };
        let loss = sum / count;
        let norm = if loss.is_finite() { global_norm(&grads, count) } else { f64::NAN };
        let (hooks, sampler) = (&*self.hooks, self.feed.sampler());
        let batch_ids = || {
            let names = sampler.ledger();
            ids.iter()
                .map(|(source, key)| BatchId {
                    source: names.get(*source as usize).map(|l| l.source.clone()).unwrap_or_default(),
                    key: *key,
                    documents: hooks.documents(*key),
                })
                .collect()
        };
        let mut skipped = false;
        match self.guard.observe(step, loss, norm, batch_ids) {
            Action::Continue => {}
            Action::Skip(spike) => {
                self.hooks.warn(&format!("{spike}; the update is left out"));
                skipped = true;
            }
            Action::RollBack { learning_rate_factor, spike } => {
                return self.go_back(&spike.to_string(), learning_rate_factor).map(|()| None);
            }
            Action::Stop(health) => return Err(Error::Health(health)),
        }
        let position = Position { step, tokens: self.state.tokens, step_tokens: tokens };
        let factor =
            self.settings.schedule.fraction(position, self.settings.horizon) * self.guard.learning_rate_factor();
        if !skipped {
            let network = self.network.take().expect("a network between steps");
            // What an update that is left out has seen may not be finite.
            self.network = Some(self.optimizer.update(network, grads, count, norm, factor).fold(&seen));
        }
        self.state.step += 1;
        self.state.tokens += tokens;
        self.state.bytes += bytes;
        self.state.padding_tokens += padding;
        let seconds = begun.elapsed().as_secs_f64();
        self.state.train_seconds += seconds;
        Ok(Some(StepReport {
            step: self.state.step,
            tokens: self.state.tokens,
            step_tokens: tokens,
            loss,
            bits_per_byte: (bytes > 0).then(|| sum / std::f64::consts::LN_2 / bytes as f64),
            grad_norm: norm,
            learning_rate: factor * self.settings.optimizer.peak_learning_rate(),
            seconds,
            skipped,
        }))
    }

    fn go_back(&mut self, why: &str, learning_rate_factor: f64) -> Result<()> {
        let guard = self.guard.clone();
        let found = self.store.latest_valid()?;
        let Some(checkpoint) = found.checkpoint else {
            self.hooks.warn(&format!("{why}; there is no checkpoint to go back to, so the update is left out"));
            return Ok(());
        };
        self.hooks.warn(&format!(
            "{why}; going back to the checkpoint of step {} with {learning_rate_factor} of the learning rate",
            checkpoint.step
        ));
        let state = LoopState::load(&checkpoint.path)?;
        let saved_guard = state.guard.clone();
        self.load(&checkpoint, state)?;
        self.guard = guard;
        self.guard.rolled_back_to(saved_guard);
        self.hooks.started(&self.state, &[]).map_err(Error::Hook)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover_names() {
        for (pattern, name, covered) in [
            ("a.b", "a.b", true),
            ("a.b", "a.bc", false),
            ("a.*", "a.b.c", true),
            ("*.weight", "x.y.weight", true),
            ("*.layers.0.*", "model.layers.0.mlp", true),
            ("*.layers.0.*", "model.layers.10.mlp", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), covered, "{pattern} {name}");
        }
    }
}
