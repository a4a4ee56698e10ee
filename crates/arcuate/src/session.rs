//! One training from a recipe to its report.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use arcuate_data::{Corpus, Progress, Sampler, SourceSummary, Stage};
use arcuate_eval::{HeldOutOptions, HeldOutResult, RowResult};
use arcuate_model::{Adoption, Architecture, Input, Network};
use arcuate_objective::{EVALUATION, Objective, ObjectiveConfig};
use arcuate_ops::device::Device;
use arcuate_recipe::{Loaded, Recipe, build};
use arcuate_record::{Confusion, Cost, EventWriter, Index, MetricsWriter, Record, RunDir, State};
use arcuate_text::Tokenizer;
use arcuate_train::{Checkpoint, Evaluation, HookError, Hooks, LoopState, StepReport, StopFlag};

use crate::live::Live;
use crate::memory;
use crate::preprocessor;
use crate::terminal::{self, amount, duration, say};

/// What the command line adds to a recipe.
pub(crate) struct Options {
    /// Folder of all runs.
    pub runs_dir: PathBuf,
    /// Machine-readable output.
    pub json: bool,
    /// Resume although the data changed.
    pub accept_changed_data: bool,
    /// Raised by signals.
    pub stop: StopFlag,
}

/// What a finished run leaves for a pipeline.
pub(crate) struct Finished {
    /// The run folder.
    pub path: PathBuf,
}

/// Everything that is built before the first step.
pub(crate) struct Parts {
    pub tokenizer: Tokenizer,
    pub corpus: Corpus,
    pub objective: Box<dyn Objective>,
}

/// Trains, evaluates, samples, reports; resumes when the run folder holds this recipe.
pub(crate) fn run(loaded: &Loaded<Recipe>, text: &str, options: &Options) -> Result<Finished> {
    run_with(loaded, text, options, None)
}

/// Like `run`; leaves a hash of the inputs in the run folder, for a pipeline to compare.
pub(crate) fn run_with(
    loaded: &Loaded<Recipe>,
    text: &str,
    options: &Options,
    inputs: Option<&str>,
) -> Result<Finished> {
    let recipe = &loaded.value;
    if !options.json {
        let device = recipe.device.describe();
        terminal::note(&format!("arcuate {}   {}   {device}", env!("CARGO_PKG_VERSION"), recipe.name));
    }
    let device = crate::device::open(recipe.device)?;
    let resolved = arcuate_recipe::resolved_toml(recipe, &loaded.source);
    let mut folder = RunDir::create_or_open_resolved(&options.runs_dir, &recipe.name, text, &resolved)?;
    let path = folder.path().to_path_buf();
    if let Some(inputs) = inputs {
        folder.write("inputs.hash", inputs.as_bytes())?;
    }
    let result = inside(loaded, &mut folder, &resolved, &device, options);
    let (state, message) = match &result {
        Ok(()) => (State::Done, None),
        Err(error) => match crate::exit::code(error) {
            75 => (State::Preempted, Some(error.to_string())),
            3 => (State::Stopped, Some(error.to_string())),
            _ => (State::Failed, Some(format!("{error:#}"))),
        },
    };
    let step = folder.status().step;
    // The first error matters more than one of writing it down.
    let noted = folder.finish(state, step, message.as_deref());
    let indexed = arcuate_record::summarise(&path)
        .and_then(|summary| Index::open(&options.runs_dir).and_then(|index| index.upsert(&summary)));
    result?;
    noted?;
    indexed?;
    Ok(Finished { path })
}

fn inside(
    loaded: &Loaded<Recipe>,
    folder: &mut RunDir,
    resolved: &str,
    inner: &Device,
    options: &Options,
) -> Result<()> {
    let recipe = &loaded.value;
    let device = inner.clone().autodiff();
    let parts = prepare(recipe, Some(folder.path()), options.json)?;
    let found = arcuate_recipe::diagnose(&build::check_corpus(recipe, &parts.corpus), &loaded.source);
    crate::commands::refuse(found)?;
    let labels = parts.corpus.label_names();
    let found = build::check_network(recipe, &parts.tokenizer, labels, crate::device::available_memory(recipe.device))?;
    crate::commands::refuse(arcuate_recipe::diagnose(&found, &loaded.source))?;
    let (network, adoption) = build::network(recipe, &parts.tokenizer, parts.corpus.label_names(), &device)?;
    if !options.json {
        describe(recipe, &parts, &network, adoption.as_ref());
    }
    let mut settings = build::settings(recipe, &parts.corpus, &parts.tokenizer, folder.path());
    settings.accept_changed_data = options.accept_changed_data;
    let sampler = parts.corpus.sampler(recipe.seed);
    let live = Live::new(options.json, recipe.horizon);
    let begun = Instant::now();
    let path = folder.path().to_path_buf();
    let mut hooks = Recorder { recipe, parts: &parts, folder, metrics: None, events: None, live, path: &path };
    let silent = options.json;
    let work = arcuate_train::Work { network, device: &device, sampler, objective: parts.objective.as_ref() };
    // What preparation freed.
    memory::give_back();
    let outcome = arcuate_train::train(&settings, work, &mut hooks, &options.stop, move |stall| {
        if !silent {
            terminal::note(&format!("\nwarning: {stall}"));
        }
    })?;
    hooks.live.finish();
    save_cost(recipe, &outcome, hooks.folder.path())?;
    let wait = outcome.data_wait_seconds;
    let seconds = begun.elapsed().as_secs_f64();
    drop(hooks);
    let closing = crate::closing::Closing {
        recipe,
        device: inner,
        resolved,
        tokenizer: &parts.tokenizer,
        corpus: &parts.corpus,
        state: &outcome.state,
        ledger: outcome.sampler.ledger(),
        seconds,
        data_wait_seconds: wait,
        num_parameters: outcome.network.num_parameters(),
        json: options.json,
    };
    crate::closing::close(&closing, folder, &options.stop)
}

/// What the training took, for comparisons.
fn save_cost(recipe: &Recipe, outcome: &arcuate_train::Outcome, folder: &Path) -> Result<()> {
    let plan = arcuate_recipe::plan::plan(recipe, &outcome.network.architecture(), 0, |_| Vec::new());
    let state = &outcome.state;
    let cost = Cost {
        steps: state.step,
        tokens: state.tokens,
        flops: plan.flops_per_token * state.tokens as f64,
        seconds: state.train_seconds,
        peak_memory_bytes: memory::peak(),
    };
    Ok(cost.save(folder)?)
}

/// Tokenizer, corpus and objective, with progress bars over what takes time.
pub(crate) fn prepare(recipe: &Recipe, folder: Option<&Path>, quiet: bool) -> Result<Parts> {
    let kept = folder.map(|f| f.join(build::TOKENIZER_FOLDER));
    let begun = Instant::now();
    let bar = terminal::bar("tokens", 0, true);
    if quiet {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    bar.set_message("training the tokenizer");
    let is_new = kept.as_ref().is_none_or(|k| !k.join("tokenizer.json").exists());
    let tokenizer = build::tokenizer(recipe, kept.as_deref(), |bytes| {
        bar.set_length(bytes);
        bar.set_position(bytes);
    });
    bar.finish_and_clear();
    let tokenizer = tokenizer?;
    if let Some(kept) = kept.filter(|_| is_new) {
        save_tokenizer(&tokenizer, &kept)?;
        if !quiet {
            say(
                "tokens",
                &format!("vocabulary {} in {}", tokenizer.vocab_size(), duration(begun.elapsed().as_secs_f64())),
            );
        }
    }
    let bar = terminal::bar("data", 0, true);
    if quiet {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    let progress = Progress::new(|stage, done, total| {
        bar.set_message(match stage {
            Stage::Hash => "reading",
            Stage::Wait => "waiting for another process",
            Stage::Tokenise => "tokenising",
            Stage::Pack => "packing",
            Stage::Scan => "scanning",
            Stage::Download => "downloading",
        });
        bar.set_length(total);
        bar.set_position(done);
        std::ops::ControlFlow::Continue(())
    });
    let corpus = build::corpus(recipe, &tokenizer, &progress);
    drop(progress);
    bar.finish_and_clear();
    let corpus = corpus?;
    let objective = build::objective(recipe, &tokenizer)?;
    Ok(Parts { tokenizer, corpus, objective })
}

/// Writes the tokenizer into a folder that appears whole or not at all.
fn save_tokenizer(tokenizer: &Tokenizer, folder: &Path) -> Result<()> {
    let draft = folder.with_extension(format!("tmp-{}", std::process::id()));
    std::fs::create_dir_all(&draft).with_context(|| format!("cannot make `{}`", draft.display()))?;
    tokenizer.save(&draft)?;
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot replace `{}`", folder.display()))?;
    }
    std::fs::rename(&draft, folder).with_context(|| format!("cannot write `{}`", folder.display()))
}

/// Seconds from one frame of a speech network to the next.
pub(crate) fn seconds_per_frame(recipe: &Recipe, architecture: &Architecture) -> f64 {
    let hop = architecture.downsampling().map_or(1, |downsampling| downsampling.hop());
    recipe
        .data
        .speech
        .as_ref()
        .map_or(hop as f64, |speech| (hop * speech.hearing().hop_samples()) as f64 / f64::from(speech.sample_rate_hz))
}

/// One line about a source of speech.
fn recordings(s: &SourceSummary) -> String {
    let left_out = if s.left_out > 0 { format!(", {} left out for their length", s.left_out) } else { String::new() };
    let bad: u64 = s.bad_items.values().sum();
    let bad = if bad > 0 {
        let reasons = s.bad_items.iter().map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>();
        format!(", {bad} skipped ({})", reasons.join(", "))
    } else {
        String::new()
    };
    format!(
        "{}: {} utterances, {} ({} train, {} held out){left_out}{bad}",
        s.name,
        s.documents,
        duration(s.train_seconds + s.held_out_seconds),
        duration(s.train_seconds),
        duration(s.held_out_seconds),
    )
}

fn describe(recipe: &Recipe, parts: &Parts, network: &Network, adoption: Option<&Adoption>) {
    for s in parts.corpus.summary() {
        if recipe.data.speech.is_some() {
            say("data", &recordings(&s));
            continue;
        }
        say(
            "data",
            &format!(
                "{}: {} documents, {}B ({} train, {} held out), {} train tokens, {:.2} bytes a token",
                s.name,
                s.documents,
                amount(s.bytes as f64),
                s.train_documents,
                s.held_out_documents,
                amount(s.train_tokens as f64),
                s.bytes_per_token()
            ),
        );
    }
    let parameters = network.num_parameters() as f64;
    let architecture = network.architecture();
    let name = architecture.name();
    say("model", &format!("{name}, {} parameters, vocabulary {}", amount(parameters), architecture.vocab_size()));
    let batch = &recipe.batch;
    say(
        "plan",
        &format!(
            "{}, {} {}, {} {}",
            recipe.horizon,
            batch.global_batch(),
            if recipe.data.speech.is_some() {
                let seconds = batch.tokens_per_step() as f64 * seconds_per_frame(recipe, &architecture);
                format!("utterances, at most {}, a step", duration(seconds))
            } else {
                format!("rows of {} tokens a step", batch.max_seq_len)
            },
            recipe.optimizer.name(),
            recipe.optimizer.peak_learning_rate()
        ),
    );
    if let Some(a) = adoption {
        say(
            "init",
            &format!(
                "{} tensors taken, {} resized, {} new, {} unused",
                a.taken.len(),
                a.resized.len(),
                a.new.len(),
                a.unused.len()
            ),
        );
        for (name, there, here) in &a.resized {
            say("", &format!("resized {name}: {there} rows there, {here} here"));
        }
        for (what, names) in [("new", &a.new), ("unused", &a.unused)] {
            for name in names {
                say("", &format!("{what} {name}"));
            }
        }
    }
}

/// Evaluates a network on held-out rows with an objective.
pub(crate) fn evaluate(
    network: &Network,
    recipe: &Recipe,
    corpus: &Corpus,
    objective: &dyn Objective,
    pad_id: u32,
    last: bool,
    confusion: Option<&mut Confusion>,
) -> arcuate_eval::Result<HeldOutResult> {
    let config = recipe.evaluation.as_ref();
    let stride = config.and_then(|c| c.stride_tokens).filter(|_| last);
    let options = HeldOutOptions {
        microbatch: build::evaluation_rows(recipe, &network.architecture()),
        pad_id,
        max_tokens: config.and_then(|c| c.max_tokens).filter(|_| !last),
        covers_text: matches!(recipe.objective, ObjectiveConfig::NextToken(_)),
    };
    measure(network, objective, corpus.held_out(stride)?, &corpus.source_names(), &options, confusion)
}

/// Measures rows with an objective; counts in `confusion` which labels were taken for which.
pub(crate) fn measure(
    network: &Network,
    objective: &dyn Objective,
    rows: impl Iterator<Item = arcuate_data::Result<arcuate_data::Row>>,
    source_names: &[String],
    options: &HeldOutOptions,
    mut confusion: Option<&mut Confusion>,
) -> arcuate_eval::Result<HeldOutResult> {
    let mut progress = |_| std::ops::ControlFlow::Continue(());
    arcuate_eval::evaluate(rows, source_names, options, &mut progress, |batch| {
        let mut batch = batch.clone();
        // Not a step of any run: every evaluation hides the same tokens.
        objective.prepare(&mut batch, 0, EVALUATION);
        let output = network.forward(&Input::from_batch(&batch), &objective.wanted(&batch))?;
        let rows = objective.scores(&batch, output);
        if let Some(confusion) = confusion.as_deref_mut() {
            for (row, label) in rows.iter().zip(&batch.labels) {
                if let (Some(predicted), Ok(label)) = (row.predicted, usize::try_from(*label)) {
                    confusion.add(label, predicted as usize);
                }
            }
        }
        Ok::<_, arcuate_model::Error>(
            rows.iter()
                .map(|r| RowResult {
                    loss_sum: r.loss_sum,
                    count: r.count as u64,
                    correct: r.correct,
                    num_errors: r.num_errors,
                    num_labels: r.num_labels,
                })
                .collect(),
        )
    })
}

/// Writes what happens to the record and to the terminal.
struct Recorder<'a> {
    recipe: &'a Recipe,
    parts: &'a Parts,
    folder: &'a mut RunDir,
    metrics: Option<MetricsWriter>,
    events: Option<EventWriter>,
    live: Live,
    path: &'a Path,
}

impl Recorder<'_> {
    fn write(&mut self, record: &Record) -> Result<(), HookError> {
        if let Some(metrics) = &mut self.metrics {
            metrics.write(record)?;
        }
        if let Some(events) = &mut self.events {
            events.scalars(record.step, &record.kind, &record.values)?;
        }
        self.live.record(record);
        Ok(())
    }
}

impl Hooks for Recorder<'_> {
    fn started(&mut self, state: &LoopState, warnings: &[String]) -> Result<(), HookError> {
        for warning in warnings {
            self.live.warn(warning);
        }
        let metrics_path = self.folder.metrics_path();
        self.metrics = Some(MetricsWriter::open(&metrics_path, Some(state.step))?);
        self.events = Some(EventWriter::create(self.path, (state.step > 0).then_some(state.step))?);
        self.live.started(state.step, state.tokens);
        Ok(())
    }

    fn stepped(&mut self, report: &StepReport, sampler: &Sampler) -> Result<(), HookError> {
        // Only where every token of the text is predicted do bits per byte mean something.
        let covers_text = matches!(self.recipe.objective, ObjectiveConfig::NextToken(_));
        let report = &StepReport { bits_per_byte: report.bits_per_byte.filter(|_| covers_text), ..report.clone() };
        let mut record = Record::new(report.step, "train")
            .value("loss", report.loss)
            .value("learning_rate", report.learning_rate)
            .value("grad_norm", report.grad_norm)
            .value("tokens", report.tokens as f64)
            .value("tokens_per_second", report.step_tokens as f64 / report.seconds.max(1e-9))
            .value("memory_bytes", memory::peak() as f64);
        if let Some(bits) = report.bits_per_byte {
            record = record.value("bits_per_byte", bits);
        }
        if report.skipped {
            record = record.value("skipped", 1.0);
        }
        for (name, value) in &report.terms {
            record = record.value(name, *value);
        }
        self.write(&record)?;
        self.live.stepped(report);
        if report.step.is_multiple_of(50) {
            let mut record = Record::new(report.step, "ledger");
            for entry in sampler.ledger() {
                record = record
                    .value(&format!("{}/tokens", entry.source), entry.tokens as f64)
                    .value(&format!("{}/share", entry.source), entry.share)
                    .value(&format!("{}/repeats", entry.source), entry.repeats);
            }
            self.write(&record)?;
        }
        self.folder.progress(report.step)?;
        Ok(())
    }

    fn evaluate(&mut self, network: &Network, step: u64, last: bool) -> Result<Option<Evaluation>, HookError> {
        let begun = Instant::now();
        let parts = self.parts;
        let pad_id = build::pad_id(&parts.tokenizer);
        self.live.note(if last { "evaluating on all held-out text" } else { "evaluating" });
        let is_classifier = matches!(self.recipe.objective, ObjectiveConfig::Classification(_));
        let mut confusion = (last && is_classifier).then(|| Confusion::new(step, parts.corpus.label_names()));
        let objective = parts.objective.as_ref();
        let result = evaluate(network, self.recipe, &parts.corpus, objective, pad_id, last, confusion.as_mut())?;
        if let Some(confusion) = confusion {
            confusion.save(self.path)?;
        }
        let total = &result.total;
        let mut record = Record::new(step, "eval")
            .value("loss", total.loss)
            .value("perplexity", total.perplexity)
            .value("accuracy", total.accuracy)
            .value("tokens", total.tokens as f64)
            .value("seconds", begun.elapsed().as_secs_f64());
        if let Some(bits) = total.bits_per_byte {
            record = record.value("bits_per_byte", bits);
        }
        if let Some(rate) = total.token_error_rate {
            record = record.value("token_error_rate", rate);
        }
        if last {
            record = record.extra("all", true);
        }
        for (source, measured) in &result.sources {
            record = record.value(&format!("{source}/loss"), measured.loss);
            if let Some(bits) = measured.bits_per_byte {
                record = record.value(&format!("{source}/bits_per_byte"), bits);
            }
        }
        self.write(&record)?;
        let smaller = |metric: &str, value| Evaluation { metric: metric.to_string(), value, smaller_is_better: true };
        let chosen = match total.bits_per_byte {
            _ if self.recipe.objective.is_classification() => {
                Evaluation { metric: "accuracy".to_string(), value: total.accuracy, smaller_is_better: false }
            }
            Some(bits) => smaller("bits_per_byte", bits),
            None => match total.token_error_rate {
                Some(rate) => smaller("token_error_rate", rate),
                None => smaller("loss", total.loss),
            },
        };
        self.live.evaluated(step, &chosen, begun.elapsed().as_secs_f64());
        Ok(Some(chosen))
    }

    fn write_model(&mut self, network: &Network, dir: &Path) -> Result<(), HookError> {
        arcuate_model::save(network, build::token_ids(&self.parts.tokenizer), dir)?;
        self.parts.tokenizer.save(dir)?;
        if let ObjectiveConfig::Prompt(prompt) = &self.recipe.objective {
            prompt.save(dir)?;
        }
        if let Some(speech) = &self.recipe.data.speech {
            preprocessor::save(speech.hearing(), arcuate_eval::hears_padding(&network.architecture()), dir)?;
        }
        Ok(())
    }

    fn saved(&mut self, checkpoint: &Checkpoint, is_best: bool, seconds: f64) -> Result<(), HookError> {
        if let Some(metrics) = &self.metrics {
            metrics.sync()?;
        }
        self.live.saved(checkpoint.step, is_best, seconds);
        Ok(())
    }

    fn documents(&self, row_key: u64) -> Vec<String> {
        self.parts.corpus.describe_row(row_key).map(|(_, ids)| ids).unwrap_or_default()
    }

    fn warn(&mut self, message: &str) {
        self.live.warn(message);
    }
}
