//! `arcuate export`: writes a checkpoint for other programs and reads it back before it says so.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use arcuate_model::{Head, Input, Network, Wanted};
use arcuate_ops::gradcheck::values;
use arcuate_ops::rng::Stream;
use arcuate_record::{format_bytes, format_count, text_table};
use serde_json::json;

use super::generate::folder;
use super::runs::output;
use crate::{exit, terminal};

/// Files of the public layout beside the weights; those that are there are taken.
const PUBLIC_FILES: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
];
/// Rows and longest row of the batch on which logits are compared.
const ROWS: usize = 2;
const MAX_TOKENS: usize = 32;

/// Write a checkpoint for other programs; reload and compare it before reporting success.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  arcuate export runs/quickstart/checkpoints/best --to hf --output quickstart-hf

`hf` is the layout that Transformers, vLLM and llama.cpp's converter read: config, safetensors, tokenizer. All tensors and
the logits of a random batch are compared with the original; on any difference nothing is left behind.")]
pub(crate) struct Args {
    /// Checkpoint folder.
    dir: PathBuf,
    /// Layout to write.
    #[arg(long, value_enum)]
    to: Format,
    /// Folder to write; must not exist or be empty.
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The public Transformers layout
    Hf,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let Format::Hf = args.to;
    refuse_occupied(&args.output)?;
    terminal::say("read", &args.dir.display().to_string());
    let original = folder::network(&args.dir)?;
    refuse_extension(&args.dir, &original)?;
    if args.dir.join("tokenizer.json").is_file() {
        folder_tokenizer(&args.dir, &original)?;
    } else {
        terminal::say("note", "there is no tokenizer beside the model, so the export has none either");
    }
    let names = files(&args.dir)?;
    let aside = aside(&args.output)?;
    let written = write_and_compare(&args.dir, &aside, &names, &original);
    let comparison = match written.and_then(|comparison| move_in_place(&aside, &args.output).map(|()| comparison)) {
        Ok(comparison) => comparison,
        Err(error) => {
            let _ = fs::remove_dir_all(&aside);
            return Err(error);
        }
    };
    let sizes: Vec<(&String, u64)> =
        names.iter().map(|name| (name, fs::metadata(args.output.join(name)).map_or(0, |m| m.len()))).collect();
    if args.json {
        let files: Vec<_> = sizes.iter().map(|(name, bytes)| json!({ "name": name, "bytes": bytes })).collect();
        return output::json(&json!({
            "format": "hf", "output": args.output, "files": files, "tensors": comparison.num_tensors,
            "parameters": comparison.num_parameters, "logits_compared": comparison.num_logits, "identical": true,
        }));
    }
    let rows: Vec<Vec<String>> =
        sizes.iter().map(|(name, bytes)| vec![(*name).clone(), format_bytes(*bytes)]).collect();
    output::text(&text_table(&["file", "size"], &rows))?;
    output::text(&format!(
        "wrote {}: {} tensors ({} parameters) and {} logits read back identical",
        args.output.display(),
        comparison.num_tensors,
        format_count(comparison.num_parameters as u64),
        format_count(comparison.num_logits as u64)
    ))
}

fn refuse_occupied(output: &Path) -> anyhow::Result<()> {
    if output.is_dir() {
        let mut entries = fs::read_dir(output).with_context(|| format!("cannot read `{}`", output.display()))?;
        if entries.next().is_some() {
            let message = format!("`{}` is not empty and nothing is overwritten; name a new folder", output.display());
            return Err(exit::usage(message));
        }
    } else if output.exists() {
        return Err(exit::usage(format!("`{}` is a file; name a new folder", output.display())));
    }
    Ok(())
}

/// Refuses a network that other programs would read without an error and compute otherwise.
fn refuse_extension(dir: &Path, network: &Network) -> anyhow::Result<()> {
    let architecture = network.architecture();
    let Some(key) = architecture.extension() else { return Ok(()) };
    let message = format!(
        "`{}` is a `{}` with `{key}`, which the public layout does not have: other programs would leave it out in silence; use the checkpoint folder with arcuate, or train without `{key}`",
        dir.display(),
        architecture.name()
    );
    Err(exit::Coded { code: 4, message }.into())
}

/// Refuses a tokenizer that belongs to another model.
fn folder_tokenizer(dir: &Path, network: &Network) -> anyhow::Result<()> {
    let tokenizer = arcuate_text::Tokenizer::load(dir)?;
    let (tokens, rows) = (tokenizer.vocab_size(), network.architecture().vocab_size());
    if tokens > rows {
        let message = format!(
            "the tokenizer in `{}` has {tokens} tokens but the model only {rows}, so it is the tokenizer of another model",
            dir.display()
        );
        return Err(exit::Coded { code: 4, message }.into());
    }
    Ok(())
}

/// Names of the files to copy: weights in one or several parts, and what lies beside them.
fn files(dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut names: Vec<String> =
        PUBLIC_FILES.iter().filter(|name| dir.join(name).is_file()).map(|name| (*name).to_owned()).collect();
    let index = dir.join("model.safetensors.index.json");
    if !index.is_file() {
        names.push("model.safetensors".to_owned());
        return Ok(names);
    }
    // That the index is sound was seen when the network was loaded.
    let text = fs::read_to_string(&index).with_context(|| format!("cannot read `{}`", index.display()))?;
    let value: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("cannot read `{}`", index.display()))?;
    let map = value["weight_map"].as_object().into_iter().flat_map(|map| map.values());
    let parts: BTreeSet<String> = map.filter_map(|part| part.as_str()).map(str::to_owned).collect();
    names.push("model.safetensors.index.json".to_owned());
    names.extend(parts);
    Ok(names)
}

/// A folder beside the output, so that the last step is one rename.
fn aside(output: &Path) -> anyhow::Result<PathBuf> {
    let name = output.file_name().map(|name| name.to_string_lossy().into_owned());
    let Some(name) = name else {
        return Err(exit::usage(format!("`{}` is not the name of a new folder", output.display())));
    };
    let aside = output.with_file_name(format!(".{name}.{}", std::process::id()));
    fs::create_dir_all(&aside).with_context(|| format!("cannot create `{}`", aside.display()))?;
    Ok(aside)
}

struct Comparison {
    num_tensors: usize,
    num_parameters: usize,
    num_logits: usize,
}

fn write_and_compare(from: &Path, to: &Path, names: &[String], original: &Network) -> anyhow::Result<Comparison> {
    for name in names {
        let target = to.join(name);
        let copied = fs::copy(from.join(name), &target).and_then(|_| fs::File::open(&target)?.sync_all());
        copied.with_context(|| format!("cannot write `{}`", target.display()))?;
    }
    let differs = |what: String| -> anyhow::Error {
        let message = format!("what was written differs from the original: {what}; check the disk and try again");
        exit::Coded { code: 1, message }.into()
    };
    terminal::say("reload", "the export, to compare");
    let reloaded = folder::network(to)?;
    let (ours, theirs) = (original.values(), reloaded.values());
    if ours.len() != theirs.len() {
        return Err(differs(format!("{} tensors instead of {}", theirs.len(), ours.len())));
    }
    for (name, (shape, numbers)) in &ours {
        let same = theirs.get(name).is_some_and(|(other, found)| other == shape && same_bits(numbers, found));
        if !same {
            return Err(differs(format!("tensor `{name}`")));
        }
    }
    drop(theirs);
    let (expected, found) = (logits(original)?, logits(&reloaded)?);
    if !same_bits(&expected, &found) {
        return Err(differs("the logits of a random batch".to_owned()));
    }
    let num_parameters = ours.values().map(|(_, numbers)| numbers.len()).sum();
    Ok(Comparison { num_tensors: ours.len(), num_parameters, num_logits: found.len() })
}

fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// Logits of random tokens.
fn logits(network: &Network) -> anyhow::Result<Vec<f32>> {
    let architecture = network.architecture();
    let len = architecture.max_seq_len().clamp(1, MAX_TOKENS);
    let mut stream = Stream::new(1, "export", 0, 0);
    let ids = (0..ROWS * len).map(|_| stream.below(architecture.vocab_size() as u64) as i32).collect();
    let input = Input::from_rows(ROWS, len, ids, &[]).context("a batch without padding has no holes")?;
    let wanted = if matches!(architecture.head(), Head::Classes(_)) { Wanted::Rows } else { Wanted::All };
    Ok(values(network.forward(&input, &wanted)?.logits()))
}

fn move_in_place(aside: &Path, output: &Path) -> anyhow::Result<()> {
    if output.is_dir() {
        fs::remove_dir(output).with_context(|| format!("cannot replace the empty folder `{}`", output.display()))?;
    }
    fs::rename(aside, output).with_context(|| format!("cannot create `{}`", output.display()))
}
