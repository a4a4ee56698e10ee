//! `cargo xtask golden`: runs the shortened recipes and compares their losses with the stored ones.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::golden::{Golden, Pair, pairs};
use crate::program::Program;
use crate::run_folder::train_losses;
use crate::workspace::{build_arcuate, relative};

/// Flags of `cargo xtask golden`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Write the numbers instead of comparing them
    #[arg(long)]
    pub update: bool,
    /// Only recipes whose path contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// The binary to run [default: build target/release/arcuate]
    #[arg(long, value_name = "PATH")]
    pub bin: Option<PathBuf>,
}

/// Runs every shortened recipe; reports all that differ.
pub(super) fn run(args: &Args) -> Result<()> {
    let is_wanted = |pair: &Pair| args.only.as_ref().is_none_or(|text| relative(&pair.recipe).contains(text.as_str()));
    let pairs: Vec<Pair> = pairs().into_iter().filter(is_wanted).collect();
    if pairs.is_empty() {
        bail!("no recipe has golden numbers");
    }
    let binary = args.bin.clone().map_or_else(build_arcuate, |path| Ok(std::path::absolute(path)?))?;
    let mut failed = Vec::new();
    for pair in &pairs {
        let started = Instant::now();
        let outcome = one(pair, &binary, args.update);
        let seconds = started.elapsed().as_secs_f64();
        let name = relative(&pair.recipe);
        match outcome {
            Ok(said) => println!("golden  {name}  {said}  {seconds:.1} s"),
            Err(error) => {
                println!("golden  {name}  FAILED\n{error:#}");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        bail!("{} of {} recipes failed: {}", failed.len(), pairs.len(), failed.join(", "))
    }
}

fn one(pair: &Pair, binary: &Path, update: bool) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let program = Program {
        binary: binary.to_path_buf(),
        recipe: PathBuf::from(relative(&pair.recipe)),
        overrides: Vec::new(),
        folder: folder.path().to_path_buf(),
    };
    let status = program.start()?.wait()?;
    if !status.success() {
        bail!("the run failed ({status}):\n{}", program.last_words());
    }
    let losses = train_losses(&program.run_folder().context("the run left no folder")?)?;
    if update {
        let golden = Golden::of(&losses, Golden::load(&pair.golden).ok().as_ref());
        std::fs::write(&pair.golden, golden.text())?;
        return Ok(format!("wrote {} losses", golden.steps.len()));
    }
    let golden = Golden::load(&pair.golden)?;
    let largest = golden.compare(&losses)?;
    Ok(format!("{} losses within {largest:.1e} (allowed {:.1e})", golden.steps.len(), golden.tolerance))
}
