//! `cargo xtask peers`: the rows of `arcuate bench` beside PyTorch on this machine, in alternation.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::workspace::{build_arcuate, root, run as run_command, shown, target_dir};

mod cases;
mod table;

use cases::{Case, chosen};
use table::{markdown, outcome};

/// Flags of `cargo xtask peers`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these, separated by commas: a name of the table, or a row of `arcuate bench` [default: all]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub rows: Vec<String>,
    /// How often each side is measured, ours and the peer in turn
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub pairs: usize,
    /// Timed steps of each measurement
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub steps: usize,
    /// Threads of either side
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub threads: usize,
    /// A Python environment that has PyTorch and Transformers [default: make target/peers/venv]
    #[arg(long, value_name = "DIR")]
    pub venv: Option<PathBuf>,
    /// The binary to measure [default: build target/release/arcuate]
    #[arg(long, value_name = "PATH")]
    pub bin: Option<PathBuf>,
    /// Folder for ratios.json and ratios.md [default: target/peers]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// Measures the chosen cases one after the other; the files are written after each, so that a break loses one only.
pub(super) fn run(args: &Args) -> Result<()> {
    let cases = chosen(&args.rows).map_err(|message| anyhow!(message))?;
    if args.pairs == 0 || args.steps == 0 || args.threads == 0 {
        bail!("`--pairs`, `--steps` and `--threads` must be 1 or more");
    }
    let out = args.out.clone().map_or_else(|| Ok::<_, anyhow::Error>(target_dir()?.join("peers")), Ok)?;
    fs::create_dir_all(&out).with_context(|| format!("cannot make `{}`", out.display()))?;
    let python = match &args.venv {
        Some(folder) => python_of(&std::path::absolute(folder)?)?,
        None => environment(&target_dir()?.join("peers").join("venv"))?,
    };
    let binary = args.bin.clone().map_or_else(build_arcuate, |path| Ok(std::path::absolute(path)?))?;
    let mut machine = Value::Null;
    let mut outcomes = Vec::new();
    for case in cases {
        let (mut ours, mut peer) = (Vec::new(), Vec::new());
        for pair in 1..=args.pairs {
            let mut answer = our_side(&binary, case, args)?;
            let mine = answer["rows"][0].take();
            let theirs = peer_side(&python, case, &mine["sizes"], args)?;
            println!("{}  pair {pair} of {}: {} against {} ms", case.name, args.pairs, ms(&mine), ms(&theirs));
            machine = json!({"version": answer["version"], "cpu": answer["cpu"], "kernels": answer["kernels"]});
            ours.push(mine);
            peer.push(theirs);
        }
        outcomes.push(outcome(case, ours, peer));
        let report = json!({"arcuate": machine, "threads": args.threads, "rows": outcomes});
        write(&out.join("ratios.json"), &(serde_json::to_string_pretty(&report)? + "\n"))?;
        write(&out.join("ratios.md"), &markdown(&outcomes))?;
    }
    print!("\n{}", markdown(&outcomes));
    println!("\nwritten to {}", out.display());
    Ok(())
}

fn ms(report: &Value) -> String {
    format!("{:.1}", report["median_ms"].as_f64().unwrap_or(f64::NAN))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))
}

/// The interpreter of an environment that exists.
fn python_of(folder: &Path) -> Result<PathBuf> {
    let python = folder.join("bin").join("python");
    if !python.is_file() {
        bail!("`{}` is no Python environment: it has no bin/python", folder.display());
    }
    Ok(python)
}

/// Makes the environment with the pinned versions, once.
fn environment(folder: &Path) -> Result<PathBuf> {
    let wanted = root().join("benches/peers/requirements.txt");
    let text = fs::read_to_string(&wanted).with_context(|| format!("cannot read `{}`", wanted.display()))?;
    let stamp = folder.join("installed.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == text) {
        return python_of(folder);
    }
    println!("peers  installing PyTorch and Transformers into {}", folder.display());
    run_command(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
    let python = python_of(folder)?;
    run_command(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&wanted))?;
    write(&stamp, &text)?;
    Ok(python)
}

fn our_side(binary: &Path, case: &Case, args: &Args) -> Result<Value> {
    let mut command = Command::new(binary);
    command.args(["bench", case.row, "--json", "--precision", case.precision]);
    command.arg("--steps").arg(args.steps.to_string()).arg("--threads").arg(args.threads.to_string());
    for change in case.set {
        command.args(["--set", change]);
    }
    answer(&mut command)
}

fn peer_side(python: &Path, case: &Case, sizes: &Value, args: &Args) -> Result<Value> {
    let mut command = Command::new(python);
    command.arg(root().join("benches/peers/peer.py")).arg(case.row);
    command.args(["--precision", case.precision, "--variant", case.variant]).arg("--sizes").arg(sizes.to_string());
    command.arg("--steps").arg(args.steps.to_string()).arg("--threads").arg(args.threads.to_string());
    command.env("OMP_NUM_THREADS", args.threads.to_string());
    answer(&mut command)
}

/// The JSON that a program prints; what it says besides is shown when it fails.
fn answer(command: &mut Command) -> Result<Value> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let tail: Vec<&str> = said.lines().rev().take(20).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!("`{}` failed ({}):\n{}", shown(command), output.status, tail.join("\n"));
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("`{}` gave no JSON", shown(command)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_python_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let error = python_of(dir.path()).expect_err("empty").to_string();
        assert!(error.contains("is no Python environment"), "{error}");
    }

    #[test]
    fn a_program_that_fails_is_shown_with_its_last_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo because >&2; exit 3"]);
        let error = answer(&mut command).expect_err("it fails").to_string();
        assert!(error.contains("because") && error.contains("exit status: 3"), "{error}");
    }
}
