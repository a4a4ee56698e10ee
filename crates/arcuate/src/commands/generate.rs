//! `arcuate generate`: continues prompts, streaming the text of a single one as it is generated.

pub(super) mod folder;
mod prompts;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use arcuate_decode::{GenerateConfig, Generation, Generator, Reason, SamplingConfig, end_tokens};
use serde_json::json;

use super::runs::output;
use crate::{exit, terminal};

/// Continue prompts with a checkpoint; a single text is streamed as it is generated.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  arcuate generate runs/quickstart/checkpoints/best --prompt \"Fellow citizens\"
  echo \"Fellow citizens\" | arcuate generate runs/quickstart/checkpoints/best - --temperature 0
  arcuate generate models/llama --prompt \"Once\" --num 3 --top-p 0.9 --stop \"\\n\\n\" --json
  arcuate generate models/llama --prompts questions.jsonl --batch-size 32 --json

The same seed gives the same text. Prompt and text go to standard output, timing to standard error.
A file of prompts has one a line: text, or in a `.jsonl` file objects such as {\"prompt\": \"Once\"}.")]
#[command(group(clap::ArgGroup::new("source").required(true).multiple(true).args(["prompt", "prompts", "stdin"])))]
pub(crate) struct Args {
    /// Checkpoint folder with the tokenizer beside the model.
    dir: PathBuf,
    /// `-` reads the prompt from standard input.
    #[arg(value_name = "-", value_parser = ["-"])]
    stdin: Option<String>,
    /// Text to continue; `-` reads it from standard input; may be repeated.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Vec<String>,
    /// File of texts to continue, one a line, or `.jsonl` with `prompt` in each object.
    #[arg(long, value_name = "FILE")]
    prompts: Option<PathBuf>,
    /// Longest continuation in tokens.
    #[arg(long, value_name = "N", default_value_t = 200)]
    max_new_tokens: usize,
    /// Divides the logits; 0 always takes the most probable token.
    #[arg(long, value_name = "T", default_value_t = 0.8)]
    temperature: f64,
    /// Keep only the K most probable tokens.
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep the smallest set of tokens whose probabilities reach P.
    #[arg(long, value_name = "P")]
    top_p: Option<f64>,
    /// Keep tokens with at least this share of the best token's probability.
    #[arg(long, value_name = "P")]
    min_p: Option<f64>,
    /// Divides positive and multiplies negative logits of tokens seen before; 1 is off.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repetition_penalty: f64,
    /// Text before which a continuation ends; `\n` is a line break; may be repeated.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Seed of the draws.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many continuations of each prompt.
    #[arg(long, value_name = "N", default_value_t = 1)]
    num: u64,
    /// How many continuations are computed together; 1 streams each of them.
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch_size: usize,
    /// Print prompts and continuations as JSON when all are done.
    #[arg(long)]
    json: bool,
}

/// A continuation with what was asked and how long its batch took.
struct Done {
    prompt: String,
    generation: Generation,
    seconds: f64,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    folder::check(&args.dir)?;
    let config = config(&args)?;
    let prompts = prompts::read(&args)?;
    let start = Instant::now();
    let opened = folder::open(&args.dir)?;
    let generator = Generator::new(&opened.network, &opened.tokenizer, config).map_err(coded)?;
    for (index, prompt) in prompts.iter().enumerate() {
        // A prompt that cannot be continued is told before hours are spent on the others.
        generator.encode(prompt).map_err(|error| match prompts.len() {
            1 => coded(error),
            _ => coded(error).context(format!("prompt {}", index + 1)),
        })?;
    }
    terminal::say("load", &format!("{} in {}", args.dir.display(), terminal::duration(start.elapsed().as_secs_f64())));
    // The draws of a continuation follow from its number, so they do not depend on the batch.
    let jobs: Vec<(&str, u64)> =
        prompts.iter().flat_map(|prompt| (0..args.num).map(move |_| prompt.as_str())).zip(0..).collect();
    let start = Instant::now();
    let mut done = Vec::with_capacity(jobs.len());
    for batch in jobs.chunks(args.batch_size) {
        if run_batch(&args, &generator, batch, jobs.len(), &mut done)?.is_break() {
            return Ok(());
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let num_tokens: usize = done.iter().map(|one| one.generation.num_new_tokens()).sum();
    if done.len() > 1 {
        let rate = num_tokens as f64 / seconds.max(1e-9);
        let text = format!(
            "{} continuations, {num_tokens} tokens in {}, {rate:.1} tok/s",
            done.len(),
            terminal::duration(seconds)
        );
        terminal::say("all", &text);
    }
    if args.json { output::json(&answer(&args, &prompts, &done, seconds)) } else { Ok(()) }
}

/// Continues a batch and shows it; breaks off when nobody reads any more.
fn run_batch(
    args: &Args,
    generator: &Generator,
    batch: &[(&str, u64)],
    num_jobs: usize,
    done: &mut Vec<Done>,
) -> anyhow::Result<ControlFlow<()>> {
    let heading = |prompt: &str, number: usize| {
        let heading = if num_jobs > 1 { format!("--- {number} of {num_jobs} ---\n") } else { String::new() };
        let (bold, plain) = if output::color() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
        format!("{heading}{bold}{prompt}{plain}")
    };
    let streams = !args.json && batch.len() == 1;
    if streams && show(&heading(batch[0].0, done.len() + 1))?.is_break() {
        return Ok(ControlFlow::Break(()));
    }
    let start = Instant::now();
    let mut failure = None;
    let result = generator.generate_batch(batch, |_, text| {
        if !streams {
            return ControlFlow::Continue(());
        }
        show(text).unwrap_or_else(|error| {
            failure = Some(error);
            ControlFlow::Break(())
        })
    });
    if let Some(error) = failure {
        return Err(error);
    }
    let generations = result.map_err(coded)?;
    let seconds = start.elapsed().as_secs_f64();
    for ((prompt, _), generation) in batch.iter().zip(generations) {
        let shown = match (args.json, streams) {
            (true, _) => String::new(),
            (false, true) => "\n".to_owned(),
            (false, false) => format!("{}{}\n", heading(prompt, done.len() + 1), generation.text),
        };
        if generation.reason == Reason::Interrupted || show(&shown)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        terminal::say("done", &timing(&generation, seconds));
        done.push(Done { prompt: (*prompt).to_owned(), generation, seconds });
    }
    Ok(ControlFlow::Continue(()))
}

/// The answer for programs; with one prompt, it stands on top too.
fn answer(args: &Args, prompts: &[String], done: &[Done], seconds: f64) -> serde_json::Value {
    let generations: Vec<_> = done
        .iter()
        .map(|one| {
            let mut value = json!(one.generation);
            value["prompt"] = json!(one.prompt);
            value["seconds"] = json!(one.seconds);
            value["tokens_per_second"] = json!(speed(&one.generation, one.seconds));
            value
        })
        .collect();
    let mut answer = json!({ "model": args.dir });
    if let [prompt] = prompts {
        answer["prompt"] = json!(prompt);
    }
    let num_tokens: usize = done.iter().map(|one| one.generation.num_new_tokens()).sum();
    answer["seed"] = json!(args.seed);
    answer["batch_size"] = json!(args.batch_size);
    answer["generations"] = json!(generations);
    answer["seconds"] = json!(seconds);
    answer["tokens_per_second"] = json!(num_tokens as f64 / seconds.max(1e-9));
    answer
}

fn config(args: &Args) -> anyhow::Result<GenerateConfig> {
    if args.num == 0 {
        return Err(exit::usage("`--num` is 0; ask for 1 or more continuations"));
    }
    if args.batch_size == 0 {
        return Err(exit::usage("`--batch-size` is 0; compute 1 or more continuations together"));
    }
    if args.stop.iter().any(String::is_empty) {
        return Err(exit::usage("a `--stop` text is empty; leave it out, or give the text before which to end"));
    }
    Ok(GenerateConfig {
        sampling: SamplingConfig {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            repetition_penalty: args.repetition_penalty,
        },
        max_new_tokens: args.max_new_tokens,
        stop: args.stop.iter().map(|text| text.replace("\\n", "\n").replace("\\t", "\t")).collect(),
        end_tokens: end_tokens(&args.dir).map_err(coded)?,
        ignore_end: false,
        seed: args.seed,
    })
}

/// Writes to standard output at once; breaks off when nobody reads any more.
fn show(text: &str) -> anyhow::Result<ControlFlow<()>> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

fn speed(generation: &Generation, seconds: f64) -> f64 {
    generation.num_new_tokens() as f64 / seconds.max(1e-9)
}

fn timing(generation: &Generation, seconds: f64) -> String {
    let why = match generation.reason {
        Reason::EndToken => "the model ended the text",
        Reason::StopString => "a stop text appeared",
        Reason::MaxNewTokens => "--max-new-tokens reached",
        Reason::Length => "the longest sequence of the model reached",
        Reason::Interrupted => "interrupted",
    };
    format!(
        "{} tokens after {} of the prompt in {}, {:.1} tok/s; {why}",
        generation.num_new_tokens(),
        generation.num_prompt_tokens,
        terminal::duration(seconds),
        speed(generation, seconds)
    )
}

/// What the user asked for wrongly is exit code 2, what is wrong with the files is 4.
fn coded(error: arcuate_decode::Error) -> anyhow::Error {
    use arcuate_decode::Error;
    match error {
        Error::Model(arcuate_model::Error::Unsupported(message)) => exit::usage(message),
        Error::Model(error) => error.into(),
        Error::Text(error) => error.into(),
        Error::Config { key, problem } => exit::usage(format!("`--{}` {problem}", key.replace('_', "-"))),
        Error::NotCausal { .. } | Error::EmptyPrompt | Error::PromptTooLong { .. } => exit::usage(error.to_string()),
        other => exit::Coded { code: 4, message: other.to_string() }.into(),
    }
}
