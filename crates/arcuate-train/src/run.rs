//! The training loop: batches to updates, with the health referee, evaluation, checkpoints and exact resume.
//!
//! The loop knows neither recipes nor files of the record: what happens around a step is told to `Hooks`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arcuate_data::{Batch, Sampler};
use arcuate_model::{Dropout, Input, Network, Replace, Seen, Visit, is_buffer};
use arcuate_objective::{Objective, Term};
use arcuate_ops::Precision;
use burn::module::Param;
use burn::tensor::{Device, Tensor};

use crate::checkpoint::{Checkpoint, CheckpointStore, LoopState};
use crate::config::{BatchConfig, CheckpointConfig, FreezeUntil, GuardConfig, HorizonConfig, Position, RateRule};
use crate::feed::Feed;
use crate::guard::{Action, BatchId, Guard, Heartbeat, Stall, Watchdog};
use crate::optimizer::{Gradients, Optimizer, OptimizerConfig, learning_rates};
use crate::schedule::ScheduleConfig;
use crate::stop::{StopFlag, StopRequest};
use crate::{Error, Health, Result};

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
    /// `[[freeze_until]]`
    pub freeze_until: Vec<FreezeUntil>,
    /// `[[learning_rate]]`
    pub learning_rate: Vec<RateRule>,
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
    /// Means of what the objective tells beside its loss, by name.
    pub terms: Vec<(&'static str, f64)>,
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

/// Which parameters have gradients in the step after so many.
struct Freeze<'a> {
    always: &'a [String],
    until: &'a [FreezeUntil],
    step: u64,
}

impl<'a> Freeze<'a> {
    fn at(settings: &'a Settings, step: u64) -> Self {
        Self { always: &settings.freeze, until: &settings.freeze_until, step }
    }
}

impl Replace for Freeze<'_> {
    fn replace<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let covers = |until: &FreezeUntil| self.step < until.steps && matches(&until.pattern, name);
        let frozen = self.always.iter().any(|pattern| matches(pattern, name)) || self.until.iter().any(covers);
        param.set_require_grad(!frozen && !is_buffer(name))
    }
}

/// Factors of the learning rate of each parameter of a network.
fn rates(settings: &Settings, network: &Network) -> BTreeMap<String, f64> {
    let names: Vec<String> = network.architecture().parameters().into_iter().map(|info| info.name).collect();
    learning_rates(&settings.learning_rate, &names)
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

/// What one microbatch gives beside its gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct Passed {
    /// Sum of the loss.
    pub sum: f64,
    /// What divides it.
    pub count: f64,
    /// Numbers beside it.
    pub terms: Vec<Term>,
}

/// Adds numbers of a microbatch to those of earlier ones.
fn add_terms(all: &mut Vec<Term>, more: Vec<Term>) {
    for term in more {
        match all.iter_mut().find(|other| other.name == term.name) {
            Some(other) => {
                other.sum += term.sum;
                other.count += term.count;
            }
            None => all.push(term),
        }
    }
}

/// The means of numbers of which something counts.
fn means(terms: &[Term]) -> Vec<(&'static str, f64)> {
    terms.iter().filter(|term| term.count > 0.0).map(|term| (term.name, term.sum / term.count)).collect()
}

/// Sum, count and numbers of one microbatch; its gradients are added to those of earlier ones.
pub fn forward_backward(
    network: &Network,
    objective: &dyn Objective,
    batch: &Batch,
    compute: Compute,
    pass: Pass,
    grads: &mut Gradients,
) -> Result<Passed> {
    let Pass { dropout, seen } = pass;
    let input = Input { dropout, seen, recompute: compute.activation_checkpointing, ..Input::from_batch(batch) };
    let loss = compute.precision.scope(|| -> Result<_> {
        let output = network.forward(&input, &objective.wanted(batch)).map_err(data)?;
        Ok(objective.loss(batch, output))
    })?;
    let sum = f64::from(loss.sum.clone().into_scalar::<f32>());
    // A loss that no trained parameter has a part in has no gradients.
    if loss.count > 0.0 && sum.is_finite() && loss.sum.is_tracked() {
        network.visit(&mut Collect { from: loss.sum.backward(), into: grads });
    }
    Ok(Passed { sum, count: loss.count, terms: loss.terms })
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
    let optimizer = Optimizer::new(settings.optimizer.clone()).with_rates(rates(settings, &network));
    let mut trainer = Trainer {
        settings,
        network: Some(network.replace(&mut Freeze::at(settings, 0))),
        optimizer,
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
        let inner = self.device.clone().inner();
        let optimizer = Optimizer::load(self.settings.optimizer.clone(), &checkpoint.path, &inner).map_err(data)?;
        self.optimizer = optimizer.with_rates(rates(self.settings, &network));
        self.network = Some(network.replace(&mut Freeze::at(self.settings, state.step)));
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

    /// Trains from now on what stayed as it was until this step.
    fn thaw(&mut self) {
        let (settings, step) = (self.settings, self.state.step);
        if settings.freeze_until.iter().any(|until| until.steps == step) {
            let network = self.network.take().expect("a network between steps");
            self.network = Some(network.replace(&mut Freeze::at(settings, step)));
        }
    }

    /// One step; nothing when the run went back to a checkpoint.
    fn step(&mut self) -> Result<Option<StepReport>> {
        let begun = Instant::now();
        let step = self.state.step;
        self.heartbeat.beat(begun, format!("step {step}"));
        self.thaw();
        let (mut grads, mut sum, mut count, mut terms) = (Gradients::new(), 0.0, 0.0, Vec::new());
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
            let passed =
                forward_backward(self.network(), self.objective, &batch, self.settings.compute, pass, &mut grads)?;
            sum += passed.sum;
            count += passed.count;
            add_terms(&mut terms, passed.terms);
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
        let terms = means(&terms);
        if let Some(collapse) = self.guard.watch(step, &terms, norm) {
            if self.settings.guard.stop_on_collapse {
                return Err(Error::Health(Box::new(Health::of_collapse(step, collapse))));
            }
            self.hooks.warn(&collapse.to_string());
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
            terms,
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

    fn network() -> Network {
        let keys = r#"{"llama": {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "intermediate_size": 12,
            "max_seq_len": 8, "tie_word_embeddings": false, "initializer_range": 0.3}}"#;
        let config = serde_json::from_str(keys).expect("a model");
        let architecture =
            arcuate_model::Architecture::new(&config, 11, arcuate_model::Head::Tokens).expect("possible");
        Network::init(architecture, 5, &arcuate_ops::device::cpu().autodiff())
    }

    /// The numbers of all parameters by name.
    fn numbers(network: &Network) -> BTreeMap<String, Vec<f32>> {
        struct Numbers(BTreeMap<String, Vec<f32>>);
        impl Visit for Numbers {
            fn visit<const D: usize>(&mut self, name: &str, value: &Param<Tensor<D>>) {
                self.0.insert(name.to_owned(), arcuate_ops::gradcheck::values(value.val()));
            }
        }
        let mut all = Numbers(BTreeMap::new());
        network.visit(&mut all);
        all.0
    }

    fn adamw() -> OptimizerConfig {
        let keys = r#"{"adamw": {"peak_learning_rate": 0.01, "weight_decay": 0.1, "beta2": 0.98}}"#;
        serde_json::from_str(keys).expect("an optimizer")
    }

    /// One step on the same four tokens.
    fn step(network: Network, optimizer: &mut Optimizer, freeze: &mut Freeze<'_>) -> Network {
        let objective: arcuate_objective::ObjectiveConfig =
            serde_json::from_str(r#"{"next_token": {}}"#).expect("keys");
        let objective = objective.build(&arcuate_objective::Vocabulary::default()).expect("sound");
        let batch = Batch {
            num_rows: 1,
            seq_len: 4,
            input_ids: vec![1, 2, 3, 4],
            targets: vec![2, 3, 4, 5],
            weights: None,
            positions: vec![0, 1, 2, 3],
            may_attend: vec![[0, 4]; 4],
            token_types: vec![0; 4],
            labels: vec![-100],
            logits: None,
            sound: None,
            is_padding: vec![false; 4],
            row_keys: vec![0],
            sources: vec![0],
            num_bytes: 0,
        };
        let network = network.replace(freeze);
        let mut grads = Gradients::new();
        let (objective, compute) = (objective.as_ref(), Compute::default());
        let passed =
            forward_backward(&network, objective, &batch, compute, Pass::default(), &mut grads).expect("sound");
        let norm = global_norm(&grads, passed.count);
        optimizer.update(network, grads, passed.count, norm, 1.0)
    }

    #[test]
    fn what_waits_is_the_same_to_the_bit_and_then_moves_as_if_the_run_began() {
        let until = [FreezeUntil { pattern: "model.layers.*".to_owned(), steps: 3 }];
        let always = ["model.embed_tokens.*".to_owned()];
        let is_waiting = |name: &str| name.starts_with("model.layers.");
        let first = numbers(&network());
        let (mut network, mut optimizer) = (network(), Optimizer::new(adamw()));
        let dir = tempfile::tempdir().expect("a temporary folder");
        for made in 0..3 {
            network = step(network, &mut optimizer, &mut Freeze { always: &always, until: &until, step: made });
            for (name, numbers) in numbers(&network) {
                let stays = is_waiting(&name) || name.starts_with("model.embed_tokens.");
                assert_eq!(numbers == first[&name], stays, "{name} after step {made}");
            }
        }
        let before = numbers(&network);
        network = step(network, &mut optimizer, &mut Freeze { always: &always, until: &until, step: 3 });
        for (name, numbers) in numbers(&network) {
            assert_eq!(numbers == first[&name], name.starts_with("model.embed_tokens."), "{name}");
            if name == "model.layers.0.self_attn.q_proj.weight" {
                // The first update of Adam is the rate times the sign, with a little decay: not what moments of step 4 make.
                let moved = numbers.iter().zip(&before[&name]).map(|(new, old)| (new - old * 0.999).abs());
                assert!(moved.clone().all(|moved| (moved - 0.01).abs() < 1e-3), "{:?}", moved.collect::<Vec<_>>());
            }
        }
        // A resumed run goes on in the same way, to the bit.
        optimizer.save(dir.path()).expect("writable");
        let device = arcuate_ops::device::cpu();
        let mut resumed = Optimizer::load(adamw(), dir.path(), &device).expect("readable");
        let mut freeze = Freeze { always: &always, until: &until, step: 4 };
        let whole = step(network.clone(), &mut optimizer, &mut freeze);
        assert_eq!(numbers(&whole), numbers(&step(network, &mut resumed, &mut freeze)));
    }

    #[test]
    fn rates_scale_updates_and_a_rate_of_nothing_moves_nothing() {
        let rule = |pattern: &str, factor| RateRule { pattern: pattern.to_owned(), factor, layer_decay: None };
        let names: Vec<String> = network().architecture().parameters().into_iter().map(|info| info.name).collect();
        let rates = learning_rates(&[rule("model.layers.0.*", 0.0), rule("model.norm.*", 0.5)], &names);
        let mut none = Freeze { always: &[], until: &[], step: 0 };
        let plain = numbers(&step(network(), &mut Optimizer::new(adamw()), &mut none));
        let paced = numbers(&step(network(), &mut Optimizer::new(adamw()).with_rates(rates), &mut none));
        for (name, first) in numbers(&network()) {
            let factor = match name.as_str() {
                name if name.starts_with("model.layers.0.") => 0.0,
                name if name.starts_with("model.norm.") => 0.5,
                _ => 1.0,
            };
            for ((first, plain), paced) in first.iter().zip(&plain[&name]).zip(&paced[&name]) {
                assert!(((paced - first) - factor * (plain - first)).abs() < 1e-7, "{name}");
                assert!(factor > 0.0 || paced == first, "{name}");
            }
        }
    }

    #[test]
    fn numbers_of_microbatches_add_up_before_they_are_divided() {
        let term = |name, sum, count| Term { name, sum, count };
        let mut all = Vec::new();
        add_terms(&mut all, vec![term("blank_share", 3.0, 4.0), term("empty", 0.0, 0.0)]);
        add_terms(&mut all, vec![term("rows", 1.0, 2.0), term("blank_share", 1.0, 12.0)]);
        assert_eq!(means(&all), [("blank_share", 0.25), ("rows", 0.5)]);
    }

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
