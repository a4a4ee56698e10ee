//! `arcuate check`: everything that can be known before step 1.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use arcuate_data::{Progress, ScanOptions};
use arcuate_eval::HeldOutOptions;
use arcuate_model::Network;
use arcuate_objective::Objective;
use arcuate_ops::device::Device;
use arcuate_recipe::plan::Plan;
use arcuate_recipe::{Loaded, Override, Recipe, RecipeFile, build};
use arcuate_text::{Tokenizer, TokenizerConfig};
use arcuate_train::{Gradients, Optimizer, Pass, Passed, forward_backward, global_norm};
use serde_json::json;

use crate::memory;
use crate::session::{self, Parts};
use crate::terminal::{amount, duration, say};

mod speech;
mod study;

/// Check a recipe, pipeline or study: types, sense, data, plan, and a rehearsal on the largest batch.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  arcuate check recipes/quickstart.toml
  arcuate check recipes/quickstart.toml --set batch.microbatch=64 --json
  arcuate check recipes/quickstart.toml --no-rehearsal
  arcuate check methods/tiny_language_models/study.toml

The scan of recordings looks at every line of the lists and hears 256 utterances of each source; what it finds is listed
by reason with the first places, and counted against `data.max_bad_items` as a run would.

The rehearsal makes a forward and backward pass, an update, a save, a reload, an evaluation and an export on the
largest batch, in a temporary folder; nothing is written under the runs folder but the token cache.")]
pub(crate) struct Args {
    /// Recipe, pipeline or study file.
    file: PathBuf,
    /// Change a value of the recipe; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder of all runs.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs_dir: PathBuf,
    /// Leave out the rehearsal, and with it the estimate of time.
    #[arg(long)]
    no_rehearsal: bool,
    /// Read all of the data in the scan, however large (otherwise up to 256 MB of text or 256 recordings of each source).
    #[arg(long)]
    full_scan: bool,
    /// Machine-readable output.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<()> {
    let how = How { rehearse: !args.no_rehearsal, scan: true, full_scan: args.full_scan, json: args.json };
    check_file(&args.file, &args.set, &args.runs_dir, how)
}

/// The plan of `run --dry-run`: no scan, no rehearsal.
pub(crate) fn plan_only(file: &Path, set: &[String], runs_dir: &Path, json: bool) -> Result<()> {
    check_file(file, set, runs_dir, How { rehearse: false, scan: false, full_scan: false, json })
}

#[derive(Clone, Copy)]
struct How {
    rehearse: bool,
    scan: bool,
    full_scan: bool,
    json: bool,
}

fn check_file(file: &Path, set: &[String], runs_dir: &Path, how: How) -> Result<()> {
    match arcuate_recipe::load_file(file, &Override::from_flags(set))? {
        RecipeFile::Recipe(loaded) => {
            super::refuse(arcuate_recipe::check_recipe(&loaded))?;
            check_one(&loaded, how)
        }
        RecipeFile::Study(study) => study::check(&study, runs_dir, how),
        RecipeFile::Pipeline(pipeline) => {
            let missing = super::data::fetch::missing(&pipeline.value.fetch);
            if !missing.is_empty() {
                let names = missing.join(" ");
                let message =
                    format!("the data sets of `fetch` are not there yet; run `arcuate data fetch {names}` first");
                return Err(crate::exit::Coded { code: 4, message }.into());
            }
            super::refuse(arcuate_recipe::check_steps(&pipeline))?;
            let mut seen = Vec::new();
            for planned in pipeline.value.runs() {
                if seen.contains(&planned.step) {
                    continue;
                }
                let (mut loaded, findings) = planned.load(runs_dir)?;
                super::refuse(arcuate_recipe::diagnose(&findings, &loaded.source))?;
                // What an earlier step will make is not there yet.
                loaded.value.init_from = loaded.value.init_from.filter(|dir| dir.exists());
                if !how.json {
                    say("step", &planned.step);
                }
                check_one(&loaded, how)?;
                seen.push(planned.step);
            }
            Ok(())
        }
    }
}

fn check_one(loaded: &Loaded<Recipe>, how: How) -> Result<()> {
    let recipe = &loaded.value;
    let begun = Instant::now();
    let (scan, parts) = if how.scan && recipe.data.speech.is_some() {
        let (parts, scan) = speech::scan(recipe, how)?;
        (Some(scan), parts)
    } else {
        let scan = if how.scan { Some(scan(loaded, how)?) } else { None };
        (scan, session::prepare(recipe, None, how.json)?)
    };
    let Parts { tokenizer, corpus, objective } = parts;
    super::refuse(arcuate_recipe::diagnose(&build::check_corpus(recipe, &corpus), &loaded.source))?;
    let available = crate::device::available_memory(recipe.device);
    let found = build::check_network(recipe, &tokenizer, corpus.label_names(), available)?;
    super::refuse(arcuate_recipe::diagnose(&found, &loaded.source))?;
    let architecture = build::architecture(recipe, tokenizer.vocab_size(), corpus.label_names())?;
    let text_bytes = corpus.summary().iter().map(|s| s.bytes).sum();
    let plan = arcuate_recipe::plan::plan(recipe, &architecture, text_bytes, |tokens| corpus.expected_ledger(tokens));
    let mut warnings = source_warnings(&plan, &corpus);
    if let Some(free) = arcuate_train::free_bytes(Path::new(".")) {
        let needed = plan.checkpoint_bytes * plan.num_checkpoints;
        if needed > free {
            warnings.push(format!(
                "the checkpoints need {}B, but only {}B are free here",
                amount(needed as f64),
                amount(free as f64)
            ));
        }
    }
    if let Some(available) = available.filter(|available| plan.memory.expected > *available) {
        warnings.push(format!(
            "about {}B of memory are needed, but {}B are free; lower `batch.microbatch` and raise `batch.accumulate_steps`",
            amount(plan.memory.expected as f64),
            amount(available as f64)
        ));
    }
    let rehearsal = if how.rehearse { Some(rehearse(recipe, &tokenizer, &corpus, objective.as_ref())?) } else { None };
    if how.json {
        let rehearsal = rehearsal.as_ref().map(|r| {
            json!({"seconds_per_step": r.seconds_per_step, "tokens_per_second": r.tokens_per_second,
                "peak_memory_bytes": memory::peak(), "loss": r.loss})
        });
        println!(
            "{}",
            json!({"recipe": recipe.name, "plan": plan, "rehearsal": rehearsal, "warnings": warnings,
                "scan": scan, "corpus": corpus.summary()})
        );
        return Ok(());
    }
    print_plan(recipe, &plan, rehearsal.as_ref());
    for warning in &warnings {
        say("warning", warning);
    }
    say("ok", &format!("checked in {}", duration(begun.elapsed().as_secs_f64())));
    Ok(())
}

fn scan(loaded: &Loaded<Recipe>, how: How) -> Result<serde_json::Value> {
    let recipe = &loaded.value;
    let limit = (!how.full_scan).then_some(256 << 20);
    let options = ScanOptions {
        max_seq_len: Some(recipe.batch.max_seq_len),
        max_bytes_per_source: limit,
        max_tokenised_bytes_per_source: Some(8 << 20),
    };
    // A tokenizer that was not trained on this text may lack parts of it.
    let given = match &recipe.tokenizer {
        TokenizerConfig::File(file) => Some(Tokenizer::load(&file.path)?),
        _ => None,
    };
    let report = arcuate_data::scan(&recipe.data, given.as_ref(), &options, &Progress::none())?;
    if !how.json {
        for finding in &report.findings {
            let places = finding.places.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            say("scan", &format!("{}: {} ({places})", finding.source, finding.message));
        }
    }
    if report.is_refused {
        let first = report.findings.first().map(|f| f.message.clone()).unwrap_or_default();
        let message = match report.num_bad_items {
            0 => first,
            bad => format!("the data has {bad} bad items, more than `max_bad_items` allows: {first}"),
        };
        return Err(crate::exit::Coded { code: 4, message }.into());
    }
    Ok(serde_json::to_value(&report)?)
}

fn source_warnings(plan: &Plan, corpus: &arcuate_data::Corpus) -> Vec<String> {
    let summary = corpus.summary();
    let given: u64 = plan.sources.iter().map(|s| s.tokens).sum();
    let mut warnings: Vec<String> = plan
        .sources
        .iter()
        .filter(|s| s.repeats > 4.0)
        .map(|s| {
            format!("`{}` would be repeated {:.1} times; past 4 repeats little more is learnt", s.source, s.repeats)
        })
        .collect();
    if given + 1 < plan.tokens {
        warnings.push(format!(
            "the sources give {} tokens within their `max_repeats`, but the horizon asks for {}",
            amount(given as f64),
            amount(plan.tokens as f64)
        ));
    }
    if summary.iter().all(|s| s.held_out_documents == 0) {
        warnings.push("no document is held out".to_string());
    }
    warnings
}

/// What the rehearsal measured.
struct Rehearsal {
    loss: f64,
    seconds_per_step: f64,
    tokens_per_second: f64,
    seconds_per_save: f64,
    seconds_per_evaluation: f64,
}

/// Forward, backward, update, save, reload, evaluate and export on the largest batch.
fn rehearse(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    corpus: &arcuate_data::Corpus,
    objective: &dyn Objective,
) -> Result<Rehearsal> {
    let inner = crate::device::open(recipe.device)?;
    let device = inner.clone().autodiff();
    let (mut network, _) = build::network(recipe, tokenizer, corpus.label_names(), &device)?;
    let pad_id = build::pad_id(tokenizer);
    let rows = corpus.largest_microbatch(recipe.seed, recipe.batch.limits())?;
    // Of speech, the sound is what is long.
    let pad_to = recipe.data.speech.is_none().then_some(recipe.batch.max_seq_len);
    let mut batch = arcuate_data::collate(&rows, pad_id, pad_to);
    objective.prepare(&mut batch, recipe.seed, 0);
    let mut optimizer = Optimizer::new(recipe.optimizer.clone());
    let (mut loss, mut seconds) = (0.0, f64::INFINITY);
    for _ in 0..3 {
        let begun = Instant::now();
        let mut grads = Gradients::new();
        let Passed { sum, count, .. } =
            forward_backward(&network, objective, &batch, build::compute(recipe), Pass::default(), &mut grads)?;
        let norm = global_norm(&grads, count);
        loss = sum / count;
        if !(loss.is_finite() && norm.is_finite()) {
            let message = format!(
                "the rehearsal gave loss {loss} and gradient norm {norm}; lower the learning rate or look at the data"
            );
            return Err(crate::exit::Coded { code: 3, message }.into());
        }
        network = optimizer.update(network, grads, count, norm, 0.01);
        seconds = seconds.min(begun.elapsed().as_secs_f64());
    }
    let dir = std::env::temp_dir().join(format!("arcuate-check-{}", std::process::id()));
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
    let result = save_and_evaluate(recipe, tokenizer, corpus, (&network, &inner), &optimizer, objective, &dir);
    let _ = std::fs::remove_dir_all(&dir);
    let (seconds_per_save, seconds_per_evaluation) = result?;
    Ok(Rehearsal {
        loss,
        seconds_per_step: seconds * recipe.batch.accumulate_steps as f64,
        tokens_per_second: batch.num_tokens() as f64 / seconds,
        seconds_per_save,
        seconds_per_evaluation,
    })
}

fn save_and_evaluate(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    corpus: &arcuate_data::Corpus,
    (network, device): (&Network, &Device),
    optimizer: &Optimizer,
    objective: &dyn Objective,
    dir: &Path,
) -> Result<(f64, f64)> {
    let begun = Instant::now();
    arcuate_model::save(network, build::token_ids(tokenizer), dir)?;
    tokenizer.save(dir)?;
    optimizer.save(dir)?;
    let save = begun.elapsed().as_secs_f64();
    let again = arcuate_model::load(dir, device)?;
    if again.values() != network.values() {
        anyhow::bail!("a saved checkpoint does not read back as it was; look at the disk of `{}`", dir.display());
    }
    if recipe.evaluation.is_none() {
        return Ok((save, 0.0));
    }
    let begun = Instant::now();
    let options = HeldOutOptions {
        microbatch: build::evaluation_rows(recipe, &network.architecture()),
        pad_id: build::pad_id(tokenizer),
        max_tokens: Some(2 * recipe.batch.tokens_per_step() as u64),
        covers_text: true,
    };
    // What is predicted may be fewer than what is read, such as one transcript of many frames.
    let mut num_read = 0;
    let rows =
        corpus.held_out(None)?.inspect(|row| num_read += row.as_ref().map_or(0, |row| row.num_positions() as u64));
    session::measure(&again, objective, rows, &corpus.source_names(), &options, None)?;
    let all: u64 = corpus.summary().iter().map(|source| source.held_out_tokens).sum();
    let num_evaluated = recipe.evaluation.as_ref().and_then(|e| e.max_tokens).map_or(all, |most| all.min(most));
    Ok((save, begun.elapsed().as_secs_f64() * num_evaluated as f64 / num_read.max(1) as f64))
}

/// How long a run will take, by the rehearsal.
fn estimated_seconds(recipe: &Recipe, plan: &Plan, r: &Rehearsal) -> f64 {
    let steps = plan.steps as f64;
    let saves = (steps / recipe.checkpoint.every_steps as f64).ceil();
    let evaluations = recipe.evaluation.as_ref().map_or(0.0, |e| (steps / e.every_steps as f64).ceil());
    steps * r.seconds_per_step + saves * r.seconds_per_save + evaluations * r.seconds_per_evaluation
}

fn print_plan(recipe: &Recipe, plan: &Plan, rehearsal: Option<&Rehearsal>) {
    let parts =
        plan.parameters.iter().map(|(name, n)| format!("{name} {}", amount(*n as f64))).collect::<Vec<_>>().join(", ");
    let frozen = plan.num_parameters - plan.num_trained;
    let frozen = if frozen > 0 { format!(", {} of them frozen", amount(frozen as f64)) } else { String::new() };
    say(
        "model",
        &format!("{} {} parameters{frozen}: {parts}", recipe.model.name(), amount(plan.num_parameters as f64)),
    );
    say(
        "work",
        &format!(
            "{} steps of up to {} tokens, {} tokens in all, {}FLOP a token, {}FLOP in all",
            plan.steps,
            plan.tokens_per_step,
            amount(plan.tokens as f64),
            amount(plan.flops_per_token),
            amount(plan.flops_per_token * plan.tokens as f64)
        ),
    );
    let m = &plan.memory;
    let bytes = |n: u64| format!("{}B", amount(n as f64));
    say(
        "memory",
        &format!(
            "{} expected, {} to {}: weights {}, gradients {}, optimizer {}, activations {}, logits {}, compressor {}, rest {}",
            bytes(m.expected),
            bytes(m.low),
            bytes(m.high),
            bytes(m.weights),
            bytes(m.gradients),
            bytes(m.optimizer),
            bytes(m.activations),
            bytes(m.logits),
            bytes(m.compressor),
            bytes(m.base)
        ),
    );
    say(
        "disk",
        &format!(
            "{} checkpoints of {}, {} at most",
            plan.num_checkpoints,
            bytes(plan.checkpoint_bytes),
            bytes(plan.checkpoint_bytes * plan.num_checkpoints)
        ),
    );
    for s in &plan.sources {
        say(
            "data",
            &format!(
                "{}: {} tokens, {:.2} repeats, {:.1}% of the run",
                s.source,
                amount(s.tokens as f64),
                s.repeats,
                100.0 * s.share
            ),
        );
    }
    if let Some(r) = rehearsal {
        let seconds = estimated_seconds(recipe, plan, r);
        say(
            "time",
            &format!(
                "about {} ({} tokens/s, {:.3} s a step; rehearsal loss {:.2})",
                duration(seconds),
                amount(r.tokens_per_second),
                r.seconds_per_step,
                r.loss
            ),
        );
    }
}
