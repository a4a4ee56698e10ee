//! `arcuate data annotate`: labels texts with a trained classifier.

use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::Context;
use arcuate_data::{SourceConfig, reader};
use arcuate_eval::annotate::{Annotation, Labels, most_probable};
use arcuate_eval::{Done, EvalModel, each_document};
use arcuate_record::{Cost, format_count, write_atomic};
use serde_json::{Value, json};

use crate::commands::eval::{add_cost, coded, counter};
use crate::commands::generate::folder;
use crate::commands::runs::output;
use crate::{exit, terminal};

#[derive(clap::Args)]
pub(super) struct AnnotateArgs {
    /// Checkpoint of a classifier: trained with `[objective.classification]`, `distillation` or `prompt`.
    model: PathBuf,
    /// Texts: a file, folder or pattern (JSON lines, Parquet, text; also .gz and .zst).
    #[arg(value_name = "TEXTS")]
    input: String,
    /// JSON lines that are written; what is known of the model goes to a file beside it.
    #[arg(long, value_name = "FILE.jsonl")]
    output: PathBuf,
    /// Which class each text is given; `random` and `own` are controls.
    #[arg(long, value_name = "WHICH", default_value = "predicted", value_parser = ["predicted", "random", "own"])]
    labels: String,
    /// Write each text into the model's own sentence, with the word of its class: lines for masked-LM training.
    #[arg(long)]
    fill: bool,
    /// Keep only so many of each class, the most probable ones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    top_per_class: Option<u64>,
    /// With `--top-per-class`: take all of a class that has fewer.
    #[arg(long, requires = "top_per_class")]
    allow_fewer: bool,
    /// JSON key or Parquet column that holds the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// Longest row in tokens; left out: what the model takes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(4..))]
    max_seq_len: Option<u64>,
    /// Seed of random labels.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Rows in one forward pass.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..))]
    microbatch: u64,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &AnnotateArgs) -> anyhow::Result<()> {
    let opened = folder::open(&args.model)?;
    let eval = EvalModel {
        microbatch: args.microbatch as usize,
        max_seq_len: args.max_seq_len.map(|len| len as usize),
        ..opened.eval()
    };
    if args.fill && opened.prompt.is_none() {
        return Err(exit::usage(format!(
            "`{}` has no sentence to fill; `--fill` needs a model that was trained with `[objective.prompt]`",
            args.model.display()
        )));
    }
    let parent = args.output.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make `{}`", parent.display()))?;
    }
    let classes = eval.classes();
    let scorer = scorer(&args.model)?;
    let labels = match args.labels.as_str() {
        "random" => Labels::Random,
        "own" => Labels::Own,
        _ => Labels::Predicted,
    };
    let annotation = Annotation {
        classes: &classes,
        scorer: &scorer[..16],
        labels,
        fill: opened.prompt.as_ref().filter(|_| args.fill),
        seed: args.seed,
    };
    let source = SourceConfig {
        text_column: args.text_column.clone(),
        // Without a column of its own a document keeps its class as any other attribute.
        label_column: (labels == Labels::Own).then(|| "label".to_owned()),
        ..SourceConfig::new(args.input.as_str())
    };
    let documents = reader::open_source("texts", &source).map_err(super::coded)?;
    let draft = args.output.with_extension("draft");
    let file = std::fs::File::create(&draft).with_context(|| format!("cannot write `{}`", draft.display()))?;
    let mut file = BufWriter::new(file);
    let mut found: Vec<(usize, f64)> = Vec::new();
    let bar = counter();
    let mut total = Done::default();
    let mut progress = |done: Done| {
        total = done;
        bar.set_position(done.rows);
        ControlFlow::Continue(())
    };
    let written = each_document(&eval, documents, &mut progress, &mut |document, logits| {
        let annotated = annotation.annotate(document, logits)?;
        found.push((annotated.class, annotated.probability));
        writeln!(file, "{}", Value::Object(annotated.line)).map_err(|source| {
            arcuate_eval::Error::Data(arcuate_data::Error::Io { action: "write", path: draft.clone(), source })
        })
    });
    bar.finish_and_clear();
    let result = written.map_err(coded).and_then(|()| Ok(file.flush()?));
    let result = result.and_then(|()| match args.top_per_class {
        None => Ok(found.len()),
        Some(num) => {
            let chosen = most_probable(&found, &classes, num as usize, args.allow_fewer).map_err(coded)?;
            keep(&draft, &chosen)?;
            Ok(chosen.len())
        }
    });
    if result.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    let num_written = result?;
    std::fs::rename(&draft, &args.output).with_context(|| format!("cannot write `{}`", args.output.display()))?;
    let mut by_class = vec![0u64; classes.len()];
    found.iter().for_each(|(class, _)| by_class[*class] += 1);
    let mut cost = Cost::default();
    add_cost(&mut cost, &eval, total);
    let about = json!({
        "model": args.model,
        "scorer": scorer,
        "classes": classes,
        "prompt": opened.prompt,
        "texts": args.input,
        "labels": args.labels,
        "is_filled": args.fill,
        "top_per_class": args.top_per_class,
        "documents": found.len(),
        "cost": {"tokens": cost.tokens, "flops": cost.flops},
        "written": num_written,
        "by_class": classes.iter().cloned().zip(by_class.iter().copied()).collect::<std::collections::BTreeMap<_, _>>(),
        "mean_probability": found.iter().map(|(_, p)| p).sum::<f64>() / found.len().max(1) as f64,
    });
    let beside = args.output.with_extension("annotation.json");
    write_atomic(&beside, format!("{about:#}\n").as_bytes())?;
    if args.json {
        return output::json(&about);
    }
    let counts = classes.iter().zip(&by_class).map(|(class, num)| format!("{class} {}", format_count(*num)));
    terminal::say(
        "label",
        &format!(
            "{} of {} documents   {}",
            format_count(num_written as u64),
            format_count(found.len() as u64),
            counts.collect::<Vec<_>>().join(", ")
        ),
    );
    terminal::result(&args.output.display().to_string());
    Ok(())
}

/// Keeps these lines of a file.
fn keep(path: &Path, chosen: &[usize]) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path)?;
    let mut chosen = chosen.iter().copied().peekable();
    let kept = text.lines().enumerate().filter(|(number, _)| chosen.next_if_eq(number).is_some());
    let kept: String = kept.map(|(_, line)| format!("{line}\n")).collect();
    Ok(std::fs::write(path, kept)?)
}

/// The BLAKE3 hash of the files that hold the weights.
pub(super) fn scorer(model: &Path) -> anyhow::Result<String> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(model)?.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| {
        path.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("model") && n.to_string_lossy().ends_with(".safetensors"))
    });
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for file in files {
        hasher
            .update_reader(std::fs::File::open(&file).with_context(|| format!("cannot read `{}`", file.display()))?)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}
