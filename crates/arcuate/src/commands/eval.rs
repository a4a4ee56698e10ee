//! `arcuate eval`: metrics of a checkpoint with intervals, in the shape that lm-eval writes.

mod transcripts;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use arcuate_data::speech::SpeechSourceConfig;
use arcuate_data::{Corpus, CorpusOptions, Document, Framing, Progress, Split, Stage, reader};
use arcuate_eval::{
    ClassificationResult, CommitteeMean, Done, Error, EvalModel, HeldOutOptions, HeldOutResult, RegressionResult,
    RowResult, TaggingResult, Task, TaskResult, causal_rows, class_logits, classification_task, classify, committee,
    evaluate, held_out_task, labelled_documents, lm_eval_json, predict_numbers, regression_task, run_task, tag,
    tagging_task,
};
use arcuate_model::Input;
use arcuate_objective::ObjectiveConfig;
use arcuate_recipe::{Recipe, build};
use arcuate_record::statistics::Bootstrap;
use arcuate_record::{Cost, format_bytes, format_count, format_number, text_table, write_atomic};
use arcuate_text::Tokenizer;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::generate::folder;
use super::runs::output;
use crate::{exit, terminal};

/// Measure a checkpoint on texts, multiple-choice questions, labelled documents or held-out data.
#[derive(clap::Args)]
#[command(after_help = "Tasks:
  text:FILE             loss, perplexity and bits per byte of a text
  choice:FILE.jsonl     multiple choice by log-likelihood; lines {\"context\", \"choices\", \"answer\"}
  number:FILE.jsonl     correlation of predicted numbers with the right ones; lines {\"text\", \"label\"}
  classify:FILE.jsonl   a classifier's accuracy and macro-F1; lines {\"text\", \"label\"}
  tag:FILE.jsonl        a tagger's accuracy and F1 over entities; lines {\"text\", \"tags\"}
  recipe:FILE.toml      the held-out part of a recipe's data, by the recipe's objective
  held-out              the same for the run that the checkpoint belongs to
  transcripts:LIST      word and character error rates of a speech recogniser on a list of recordings: a NeMo manifest,
                        a folder with texts beside the sound, or another format by its name, `transcripts:kaldi:DIR`
Files may also be .gz or .zst.

Examples:
  arcuate eval runs/quickstart/checkpoints/best held-out
  arcuate eval runs/quickstart/checkpoints/best text:story.txt choice:quiz.jsonl --json
  arcuate eval runs/asr/checkpoints/best transcripts:test.jsonl --lm words.arpa --save-transcripts found.jsonl
  arcuate eval models/llama recipe:recipes/quickstart.toml --stride 128 --output results.json

No result depends on the microbatch. Intervals are 95% bootstrap intervals.")]
pub(crate) struct Args {
    /// Checkpoint folder with the tokenizer beside the model.
    model: PathBuf,
    /// What to measure.
    #[arg(required = true, value_name = "TASK")]
    tasks: Vec<String>,
    /// Take only the first N questions or documents.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Measure only about this many tokens of a text or of held-out data.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_tokens: Option<u64>,
    /// Rows in one forward pass: speed and memory, not results.
    #[arg(long, value_name = "N", default_value_t = 8)]
    microbatch: usize,
    /// Tokens by which windows over long texts move; smaller gives more context and takes longer.
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Longest row in tokens; left out: what the model takes (for recipes, what the recipe says).
    #[arg(long, value_name = "N")]
    max_seq_len: Option<usize>,
    /// Seed of bootstrap draws and of the tokens that a masked model is asked for.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Also write the result as JSON to this file.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the result as JSON, as lm-eval writes it.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    transcripts: transcripts::Flags,
}

/// A task with the recipe it needs.
enum Job {
    File(Task),
    Recipe(String, Box<Recipe>),
    Transcripts(String, Box<SpeechSourceConfig>),
}

impl Job {
    fn name(&self) -> String {
        match self {
            Self::File(task) => task.to_string(),
            Self::Recipe(name, _) | Self::Transcripts(name, _) => name.clone(),
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let results = results(&args, &mut Cost::default())?;
    let value = lm_eval_json(&args.model.display().to_string(), args.microbatch, &results);
    if let Some(file) = &args.output {
        write_atomic(file, format!("{value:#}\n").as_bytes()).context("cannot write the result")?;
        terminal::say("wrote", &file.display().to_string());
    }
    if args.json { output::json(&value) } else { output::text(&table(&results)) }
}

/// One task over one model, or over several classifiers that answer together.
pub(crate) fn one_task(
    models: &[PathBuf],
    task: &str,
    mean: Option<CommitteeMean>,
    limit: Option<u64>,
    cost: &mut Cost,
) -> anyhow::Result<TaskResult> {
    let args = |model: &PathBuf| Args {
        model: model.clone(),
        tasks: vec![task.to_owned()],
        limit,
        max_tokens: None,
        microbatch: 16,
        stride: None,
        max_seq_len: None,
        seed: 0,
        output: None,
        json: false,
        transcripts: transcripts::Flags::default(),
    };
    let first = models.first().context("an evaluation needs a model")?;
    let Some(mean) = mean.filter(|_| models.len() > 1) else {
        return results(&args(first), cost)?.pop().context("a task has a result");
    };
    let mut members = Vec::new();
    let mut labels: Option<Vec<String>> = None;
    for model in models {
        folder::check(model)?;
        let job = jobs(&args(model))?.pop().context("a task is named")?;
        let opened = folder::open(model)?;
        let eval = EvalModel { microbatch: 16, max_items: limit, ..opened.eval() };
        let own = eval.classes();
        let known = labels.get_or_insert_with(|| own.clone());
        if *known != own {
            let message = format!(
                "`{}` has the classes {own:?}, the first member of the committee has {known:?}; train them on the same labels",
                model.display()
            );
            return Err(exit::Coded { code: 4, message }.into());
        }
        let mut total = Done::default();
        let mut quiet = |done: Done| {
            total = done;
            ControlFlow::Continue(())
        };
        members.push(match job {
            Job::File(Task::Classify(file)) => {
                class_logits(&eval, labelled_documents(&file).map_err(coded)?, &mut quiet).map_err(coded)?
            }
            Job::Recipe(_, recipe) => {
                let eval = EvalModel { max_seq_len: Some(recipe.batch.max_seq_len), ..eval };
                class_logits(&eval, held_out_documents(&recipe)?, &mut quiet).map_err(coded)?
            }
            other => {
                let other = other.name();
                let message =
                    format!("a committee cannot answer `{other}`; it takes `classify:`, `held-out` and `recipe:`");
                return Err(exit::usage(message));
            }
        });
        add_cost(cost, &eval, total);
        terminal::say("eval", &format!("{} {task}", model.display()));
    }
    let items = committee(&members, mean).map_err(coded)?;
    let labels = labels.unwrap_or_default();
    let result = ClassificationResult::new(&labels, &items, &Bootstrap::default()).map_err(coded)?;
    let mut result = classification_task(&Task::HeldOut, &result);
    task.clone_into(&mut result.task);
    Ok(result)
}

/// Adds what a task took to what others took.
pub(in crate::commands) fn add_cost(cost: &mut Cost, model: &EvalModel<'_>, done: Done) {
    let row_len = done.tokens / done.rows.max(1);
    cost.tokens += done.tokens;
    cost.flops += done.tokens as f64 * model.network.architecture().forward_flops(row_len as usize);
}

fn results(args: &Args, cost: &mut Cost) -> anyhow::Result<Vec<TaskResult>> {
    folder::check(&args.model)?;
    if args.microbatch == 0 || args.stride == Some(0) || args.max_seq_len == Some(0) {
        return Err(exit::usage("`--microbatch`, `--stride` and `--max-seq-len` must be 1 or more"));
    }
    args.transcripts.check()?;
    let jobs = jobs(args)?;
    if let Some(file) = &args.output {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !parent.is_dir() || file.is_dir() {
            return Err(exit::usage(format!(
                "`{}` cannot be written; name a file in a folder that exists",
                file.display()
            )));
        }
    }
    let opened = folder::open(&args.model)?;
    let model = EvalModel {
        microbatch: args.microbatch,
        stride_tokens: args.stride,
        max_seq_len: args.max_seq_len,
        max_tokens: args.max_tokens,
        max_items: args.limit,
        seed: args.seed,
        ..opened.eval()
    };
    let mut results = Vec::new();
    for job in &jobs {
        let start = Instant::now();
        let bar = counter();
        let mut total = Done::default();
        let mut progress = |done: Done| {
            total = done;
            bar.set_position(done.rows);
            bar.set_message(format!("{} tokens", format_count(done.tokens)));
            ControlFlow::Continue(())
        };
        let result = match job {
            Job::File(task) => run_task(task, &model, &mut progress).map_err(coded),
            Job::Recipe(name, recipe) if matches!(recipe.objective, ObjectiveConfig::Ctc(_)) => {
                transcripts::recipe_task(name, recipe, &args.model, &model, &args.transcripts, &mut progress)
            }
            Job::Recipe(name, recipe) => recipe_task(name, recipe, &model, &mut progress),
            Job::Transcripts(name, list) => {
                transcripts::list_task(name, list, &args.model, &model, &args.transcripts, &mut progress)
            }
        };
        bar.finish_and_clear();
        add_cost(cost, &model, total);
        results.push(result.with_context(|| format!("`{}`", job.name()))?);
        terminal::say("eval", &format!("{} in {}", job.name(), terminal::duration(start.elapsed().as_secs_f64())));
    }
    Ok(results)
}

/// All tasks, with their files there and their recipes read, before anything is computed.
fn jobs(args: &Args) -> anyhow::Result<Vec<Job>> {
    let mut jobs: Vec<Job> = Vec::new();
    for text in &args.tasks {
        let job = match text.strip_prefix("recipe:") {
            _ if text.starts_with("transcripts:") => Job::Transcripts(text.clone(), Box::new(transcripts::list(text)?)),
            Some(file) => Job::Recipe(text.clone(), Box::new(arcuate_recipe::load_recipe(Path::new(file), &[])?.value)),
            None => match text.parse::<Task>() {
                Ok(Task::HeldOut) => Job::Recipe(text.clone(), Box::new(own_recipe(&args.model)?)),
                Ok(task) => Job::File(task),
                Err(_) => {
                    let forms = Task::FORMS.map(|form| format!("`{form}`")).join(", ");
                    let message = format!(
                        "there is no task `{text}`; a task is one of {forms}, `recipe:FILE.toml`, `transcripts:LIST`"
                    );
                    return Err(exit::usage(message));
                }
            },
        };
        if let Job::File(task) = &job
            && let Some(file) = task.file().filter(|file| !file.is_file())
        {
            return Err(exit::usage(format!(
                "`{}` of the task `{text}` is not a file; check the path",
                file.display()
            )));
        }
        if jobs.iter().any(|known| known.name() == job.name()) {
            return Err(exit::usage(format!("the task `{text}` is named twice; name every task once")));
        }
        jobs.push(job);
    }
    Ok(jobs)
}

/// The recipe of the run in whose folder a checkpoint lies.
fn own_recipe(model: &Path) -> anyhow::Result<Recipe> {
    let real = model.canonicalize().with_context(|| format!("cannot read `{}`", model.display()))?;
    let resolved = real.parent().and_then(Path::parent).map(|run| run.join("resolved.toml"));
    let Some(resolved) = resolved.filter(|path| path.is_file()) else {
        return Err(exit::usage(format!(
            "`{}` lies in no run folder, so its held-out data is not known; name a recipe: `recipe:FILE.toml`",
            model.display()
        )));
    };
    Ok(arcuate_recipe::load_recipe(&resolved, &[])?.value)
}

/// The held-out part of a recipe's data, by the recipe's objective.
fn recipe_task(
    name: &str,
    recipe: &Recipe,
    model: &EvalModel<'_>,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> anyhow::Result<TaskResult> {
    let longest = model.max_seq_len.unwrap_or(recipe.batch.max_seq_len);
    let model = EvalModel { max_seq_len: Some(longest), ..*model };
    let mut result = match &recipe.objective {
        ObjectiveConfig::Prompt(prompt) if prompt.regression.is_some() => {
            let items = predict_numbers(&model, held_out_documents(recipe)?, progress).map_err(coded)?;
            let bootstrap = Bootstrap { seed: model.seed, ..Bootstrap::default() };
            regression_task(&Task::HeldOut, &RegressionResult::new(&items, &bootstrap).map_err(coded)?)
        }
        ObjectiveConfig::Classification(_) | ObjectiveConfig::Prompt(_) => {
            let items = classify(&model, held_out_documents(recipe)?, progress).map_err(coded)?;
            let bootstrap = Bootstrap { seed: model.seed, ..Bootstrap::default() };
            let labels = model.classes();
            classification_task(&Task::HeldOut, &ClassificationResult::new(&labels, &items, &bootstrap).map_err(coded)?)
        }
        ObjectiveConfig::Tagging(_) => {
            let items = tag(&model, held_out_documents(recipe)?, progress).map_err(coded)?;
            let bootstrap = Bootstrap { seed: model.seed, ..Bootstrap::default() };
            let result = TaggingResult::new(&model.classes(), &items, &bootstrap).map_err(coded)?;
            tagging_task(&Task::HeldOut, &result)
        }
        objective => held_out_task(&Task::HeldOut, &held_out(recipe, objective, &model, progress)?, &model),
    };
    name.clone_into(&mut result.task);
    Ok(result)
}

fn held_out(
    recipe: &Recipe,
    objective: &ObjectiveConfig,
    model: &EvalModel<'_>,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> anyhow::Result<HeldOutResult> {
    let is_causal = matches!(objective, ObjectiveConfig::NextToken(_));
    let architecture = model.network.architecture();
    if is_causal != architecture.is_causal() {
        return Err(exit::usage(format!(
            "`{}` is not what `[objective.{}]` trains; name a recipe that fits the model",
            architecture.name(),
            objective.name()
        )));
    }
    let framing = if is_causal { Framing::CausalLm } else { Framing::Bert };
    let options = CorpusOptions {
        max_seq_len: model.max_seq_len(),
        framing,
        labels: false,
        logits: false,
        tags: false,
        prompt: None,
    };
    let corpus = open_corpus(recipe, model.tokenizer, &options)?;
    let rows = corpus.held_out(model.stride_tokens.filter(|_| is_causal))?;
    let how = HeldOutOptions {
        microbatch: model.microbatch,
        pad_id: model.pad_id(),
        max_tokens: model.max_tokens,
        covers_text: is_causal,
    };
    let names = corpus.source_names();
    let network = model.network.valid();
    if is_causal {
        return evaluate(rows, &names, &how, progress, |batch| causal_rows(&network, batch)).map_err(coded);
    }
    let objective = build::objective(recipe, model.tokenizer)?;
    let seed = model.seed;
    let measure = |batch: &arcuate_data::Batch| -> arcuate_model::Result<Vec<RowResult>> {
        let mut batch = batch.clone();
        // As in a run, where every evaluation hides the same tokens.
        objective.prepare(&mut batch, seed, arcuate_objective::EVALUATION);
        let output = network.forward(&Input::from_batch(&batch), &objective.wanted(&batch))?;
        let row = |score: arcuate_objective::RowScore| RowResult {
            loss_sum: score.loss_sum,
            count: score.count as u64,
            correct: score.correct,
            num_errors: score.num_errors,
            num_labels: score.num_labels,
        };
        Ok(objective.scores(&batch, output).into_iter().map(row).collect())
    };
    evaluate(rows, &names, &how, progress, measure).map_err(coded)
}

fn open_corpus(recipe: &Recipe, tokenizer: &Tokenizer, options: &CorpusOptions) -> anyhow::Result<Corpus> {
    let bar = terminal::bar("data", 0, true);
    let watch = Progress::new(|stage, done, total| {
        bar.set_length(total);
        bar.set_position(done);
        bar.set_message(match stage {
            Stage::Hash => "reading",
            Stage::Wait => "waiting for another process",
            Stage::Tokenise => "tokenising",
            Stage::Pack => "packing",
            Stage::Scan => "scanning",
            Stage::Download => "downloading",
        });
        ControlFlow::Continue(())
    });
    let corpus = Corpus::open(&recipe.data, tokenizer, options, &watch);
    bar.finish_and_clear();
    Ok(corpus?)
}

/// Held-out documents of all sources that have a label or tags; items that are bad end the reading with their place.
fn held_out_documents(recipe: &Recipe) -> anyhow::Result<impl Iterator<Item = arcuate_data::Result<Document>>> {
    let mut sources = Vec::new();
    for name in recipe.data.source.keys() {
        sources.push(reader::open(&recipe.data, name)?);
    }
    let fraction = recipe.data.held_out_fraction;
    let is_wanted = move |document: &arcuate_data::Result<Document>| match document {
        Ok(document) => {
            let is_labelled = document.label.is_some() || document.tags.is_some();
            Split::of(&document.id, fraction) == Split::HeldOut && is_labelled
        }
        // The run that trained the model has decided how many bad items are too many.
        Err(error) => !error.is_bad_item(),
    };
    Ok(sources.into_iter().flatten().filter(is_wanted))
}

/// Rows and tokens so far; the number of rows is not known before.
pub(super) fn counter() -> ProgressBar {
    let bar = terminal::bar("eval", 0, false);
    if let Ok(style) = ProgressStyle::with_template("{prefix:<8}{human_pos} rows  {msg}  {elapsed}") {
        bar.set_style(style);
    }
    bar
}

/// What was asked wrongly is exit code 2, what is wrong with a file is 4.
pub(super) fn coded(error: Error) -> anyhow::Error {
    match error {
        Error::Model(arcuate_model::Error::Unsupported(message)) | Error::Unsupported(message) => exit::usage(message),
        Error::Model(error) => error.into(),
        Error::Text(error) => error.into(),
        Error::Data(error) => error.into(),
        Error::Measure(error) => anyhow::Error::from_boxed(error),
        other @ (Error::Empty { .. } | Error::Io { .. } | Error::Line { .. } | Error::UnknownLabel { .. }) => {
            exit::Coded { code: 4, message: other.to_string() }.into()
        }
        other => other.into(),
    }
}

fn table(results: &[TaskResult]) -> String {
    let mut rows = Vec::new();
    for result in results {
        for (name, metric) in &result.metrics {
            let interval = metric.interval.map_or_else(
                || "-".to_owned(),
                |[low, high]| format!("{} to {}", format_number(low), format_number(high)),
            );
            rows.push(vec![
                result.task.clone(),
                name.clone(),
                format_number(metric.value),
                metric.stderr.map_or_else(|| "-".to_owned(), |error| format!("±{}", format_number(error))),
                interval,
                if metric.higher_is_better { "higher" } else { "lower" }.to_owned(),
            ]);
        }
    }
    let mut text = text_table(&["task", "metric", "value", "std. error", "95% interval", "better"], &rows);
    let notes: Vec<String> =
        results.iter().filter_map(|result| Some(format!("{}: {}\n", result.task, note(result)?))).collect();
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&notes.concat());
    }
    let sources = sources(results);
    if !sources.is_empty() {
        text.push('\n');
        text.push_str(&text_table(&["task", "source", "tokens", "loss", "perplexity", "bits/byte"], &sources));
    }
    text
}

/// How much was measured, and what guessing would give.
fn note(result: &TaskResult) -> Option<String> {
    let details = &result.details;
    if let Some(words) = details["words"].as_object() {
        let number = |key: &str| words.get(key).and_then(Value::as_u64).unwrap_or(0);
        return Some(format!(
            "{} utterances, {} substitutions, {} insertions and {} deletions of words, spelling `{}`",
            result.num_effective,
            number("substitutions"),
            number("insertions"),
            number("deletions"),
            result.config["normaliser"].as_str().unwrap_or_default()
        ));
    }
    let number = |key: &str| details[key].as_f64();
    if let (Some(tokens), Some(bytes)) = (details["tokens"].as_u64(), details["bytes"].as_u64()) {
        let cut = if details["is_partial"] == Value::Bool(true) { ", not all of it" } else { "" };
        return Some(format!("{} tokens, {}{cut}", format_count(tokens), format_bytes(bytes)));
    }
    if let Some(chance) = number("chance") {
        return Some(format!("{} questions, guessing gives {}", result.num_effective, format_number(chance)));
    }
    let majority = number("majority_accuracy")?;
    if let (Some(words), Some(cut)) = (details["words"].as_u64(), details["cut_words"].as_u64()) {
        let cut = if cut > 0 { format!(" and {} that did not fit", format_count(cut)) } else { String::new() };
        let (words, majority) = (format_count(words), format_number(majority));
        return Some(format!("{words} words{cut}, the most frequent tag gives {majority}"));
    }
    Some(format!("{} documents, the most frequent class gives {}", result.num_effective, format_number(majority)))
}

/// Rows by source, where there is more than one.
fn sources(results: &[TaskResult]) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for result in results {
        let Some(sources) = result.details["sources"].as_object().filter(|sources| sources.len() > 1) else { continue };
        for (name, measured) in sources {
            let number = |key: &str| measured[key].as_f64().map_or_else(|| "-".to_owned(), format_number);
            let cells = [number("tokens"), number("loss"), number("perplexity"), number("bits_per_byte")];
            rows.push([result.task.clone(), name.clone()].into_iter().chain(cells).collect());
        }
    }
    rows
}
