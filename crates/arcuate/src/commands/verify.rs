//! `arcuate verify`: holds a checkpoint folder against what another library recorded for it.

use std::path::{Path, PathBuf};

use arcuate_record::text_table;
use arcuate_train::verify::{Line, verify};
use serde_json::json;

use super::generate::folder;
use super::runs::output;
use crate::{exit, terminal};

/// Compare a checkpoint's outputs, loss, gradients and optimiser steps with a recorded reference.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  arcuate verify models/llama --reference models/llama/reference.safetensors
  arcuate verify models/llama --reference models/llama --json
  arcuate verify models/llama --reference models/llama --device cuda

The options of the recording lie beside the file, with the ending `.json`. `tools/record_reference.py` records a
reference from a Transformers model. Exit code 0 if every difference is within its tolerance, else 1.")]
pub(crate) struct Args {
    /// Checkpoint folder.
    dir: PathBuf,
    /// Recorded reference: a safetensors file, or a folder that holds `reference.safetensors`.
    #[arg(long, value_name = "FILE")]
    reference: PathBuf,
    #[command(flatten)]
    on: crate::device::Flag,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    folder::check(&args.dir)?;
    let reference = reference_file(&args.reference)?;
    let device = crate::device::open(args.on.device)?;
    terminal::say("verify", &format!("{} against {}", args.dir.display(), reference.display()));
    let start = std::time::Instant::now();
    let lines = verify(&args.dir, &reference, &device).map_err(coded)?;
    if lines.is_empty() {
        let message = format!("`{}` holds nothing to compare; record it again", reference.display());
        return Err(exit::Coded { code: 4, message }.into());
    }
    let num_wrong = lines.iter().filter(|line| !line.holds()).count();
    if args.json {
        let comparisons: Vec<_> = lines.iter().map(as_json).collect();
        output::json(&json!({
            "model": args.dir, "reference": reference, "holds": num_wrong == 0, "comparisons": comparisons,
        }))?;
    } else {
        output::text(&table(&lines))?;
    }
    terminal::say("time", &terminal::duration(start.elapsed().as_secs_f64()));
    if num_wrong > 0 {
        let message = format!("{num_wrong} of {} comparisons differ by more than their tolerance", lines.len());
        return Err(exit::Coded { code: 1, message }.into());
    }
    Ok(())
}

/// The reference file itself; it and its options must exist.
fn reference_file(path: &Path) -> anyhow::Result<PathBuf> {
    let file = if path.is_dir() { path.join("reference.safetensors") } else { path.to_path_buf() };
    for needed in [file.clone(), file.with_extension("json")] {
        if !needed.is_file() {
            return Err(exit::usage(format!(
                "there is no file `{}`; a reference is a `.safetensors` file with a `.json` file beside it, as `tools/record_reference.py` writes them",
                needed.display()
            )));
        }
    }
    Ok(file)
}

/// A reference that is broken is bad data.
fn coded(error: arcuate_train::Error) -> anyhow::Error {
    match error {
        arcuate_train::Error::Reference { .. } => exit::Coded { code: 4, message: error.to_string() }.into(),
        other => other.into(),
    }
}

fn as_json(line: &Line) -> serde_json::Value {
    json!({
        "what": line.what, "difference": line.difference, "tolerance": line.tolerance,
        "measure": line.measure, "holds": line.holds(),
    })
}

fn table(lines: &[Line]) -> String {
    let rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            vec![
                line.what.clone(),
                format!("{:.1e}", line.difference),
                format!("{:.0e}", line.tolerance),
                line.measure.to_owned(),
                if line.holds() { "ok" } else { "DIFFERS" }.to_owned(),
            ]
        })
        .collect();
    text_table(&["what", "difference", "tolerance", "measure", ""], &rows)
}
