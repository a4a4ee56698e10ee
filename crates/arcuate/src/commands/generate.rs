//! `arcuate generate`: continues a prompt, streaming the text as it is generated.

pub(super) mod folder;

use std::io::{Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use arcuate_decode::{GenerateConfig, Generation, Generator, Reason, SamplingConfig, end_tokens};
use serde_json::json;

use super::runs::output;
use crate::{exit, terminal};

/// Longest prompt that is read from standard input.
const MAX_PROMPT_BYTES: u64 = 16 << 20;

/// Continue a prompt with a checkpoint, streaming the text as it is generated.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  arcuate generate runs/quickstart/checkpoints/best --prompt \"Fellow citizens\"
  echo \"Fellow citizens\" | arcuate generate runs/quickstart/checkpoints/best - --temperature 0
  arcuate generate models/llama --prompt \"Once\" --num 3 --top-p 0.9 --stop \"\\n\\n\" --json

The same seed gives the same text. Prompt and text go to standard output, timing to standard error.")]
#[command(group(clap::ArgGroup::new("source").required(true).args(["prompt", "stdin"])))]
pub(crate) struct Args {
    /// Checkpoint folder with the tokenizer beside the model.
    dir: PathBuf,
    /// `-` reads the prompt from standard input.
    #[arg(value_name = "-", value_parser = ["-"])]
    stdin: Option<String>,
    /// Text to continue; `-` reads it from standard input.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
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
    /// How many continuations.
    #[arg(long, value_name = "N", default_value_t = 1)]
    num: u64,
    /// Print prompt and continuations as JSON when all are done.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    folder::check(&args.dir)?;
    let config = config(&args)?;
    let prompt = match args.prompt.as_deref() {
        Some(prompt) if prompt != "-" => prompt.to_owned(),
        _ => read_prompt()?,
    };
    let start = Instant::now();
    let opened = folder::open(&args.dir)?;
    let generator = Generator::new(&opened.network, &opened.tokenizer, config).map_err(coded)?;
    terminal::say("load", &format!("{} in {}", args.dir.display(), terminal::duration(start.elapsed().as_secs_f64())));
    let mut results = Vec::new();
    for item in 0..args.num {
        if !args.json {
            let heading = if args.num > 1 { format!("--- {} of {} ---\n", item + 1, args.num) } else { String::new() };
            let (bold, plain) = if output::color() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            if show(&format!("{heading}{bold}{prompt}{plain}"))?.is_break() {
                return Ok(());
            }
        }
        let start = Instant::now();
        let mut failure = None;
        let result = generator.generate(&prompt, item, |text| {
            if args.json {
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
        let generation = result.map_err(coded)?;
        if generation.reason == Reason::Interrupted || (!args.json && show("\n")?.is_break()) {
            return Ok(());
        }
        let seconds = start.elapsed().as_secs_f64();
        terminal::say("done", &timing(&generation, seconds));
        results.push((generation, seconds));
    }
    if !args.json {
        return Ok(());
    }
    let generations: Vec<_> = results
        .iter()
        .map(|(generation, seconds)| {
            let mut value = json!(generation);
            value["seconds"] = json!(seconds);
            value["tokens_per_second"] = json!(speed(generation, *seconds));
            value
        })
        .collect();
    output::json(&json!({ "model": args.dir, "prompt": prompt, "seed": args.seed, "generations": generations }))
}

fn config(args: &Args) -> anyhow::Result<GenerateConfig> {
    if args.num == 0 {
        return Err(exit::usage("`--num` is 0; ask for 1 or more continuations"));
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

/// Standard input to its end; one line break at the end belongs to the shell, not to the prompt.
fn read_prompt() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MAX_PROMPT_BYTES + 1).read_to_end(&mut bytes);
    read.context("cannot read the prompt from standard input")?;
    if bytes.len() as u64 > MAX_PROMPT_BYTES {
        return Err(exit::usage(format!(
            "the prompt on standard input has more than {MAX_PROMPT_BYTES} bytes; shorten it"
        )));
    }
    let mut prompt = String::from_utf8(bytes)
        .map_err(|error| exit::usage(format!("the prompt on standard input is not UTF-8: {}", error.utf8_error())))?;
    if prompt.ends_with('\n') {
        prompt.pop();
    }
    Ok(prompt)
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
