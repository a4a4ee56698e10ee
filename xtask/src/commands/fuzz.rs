//! `cargo xtask fuzz`: tries damaged seeds on every reader of files that come from elsewhere.
//!
//! Needs nothing that is not there: the seeds are files of the tests, the damage follows from a seed. What a reader does not survive is
//! kept. For a search that learns from the code, hand the same targets to libFuzzer: `--write-seeds` fills its corpora.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arcuate_fuzz::{Mutator, TARGETS, Target};

use crate::workspace::root;

/// One input may take so long; a reader that hangs takes longer.
const MAX_TIME: Duration = Duration::from_secs(10);

/// Flags of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Readers to try [default: all]
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// Time for all of them together
    #[arg(long, default_value_t = 40.0, value_name = "SECONDS")]
    pub seconds: f64,
    /// Seed of the damage
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Try only this file, on one target
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Write the seeds into `DIR/TARGET` for cargo-fuzz, and try nothing
    #[arg(long, value_name = "DIR")]
    pub write_seeds: Option<PathBuf>,
}

impl Default for Args {
    fn default() -> Self {
        Self { targets: Vec::new(), seconds: 40.0, seed: 1, input: None, write_seeds: None }
    }
}

/// Runs the targets.
pub(super) fn run(args: &Args) -> Result<()> {
    let targets = chosen(&args.targets)?;
    if let Some(input) = &args.input {
        let [target] = targets[..] else { bail!("name the one target that reads `{}`", input.display()) };
        let bytes = fs::read(input).with_context(|| format!("cannot read `{}`", input.display()))?;
        (target.run)(&bytes);
        println!("{} survives `{}`", target.name, input.display());
        return Ok(());
    }
    let root = root();
    if let Some(folder) = &args.write_seeds {
        return targets.iter().try_for_each(|target| write_seeds(target, root, &folder.join(target.name)));
    }
    let kept = root.join("fuzz/artifacts");
    let share = Duration::from_secs_f64(args.seconds.clamp(0.0, 1e6) / targets.len() as f64);
    let mut failed = Vec::new();
    for target in targets {
        match try_target(target, root, args.seed, share, &kept.join(target.name))? {
            Outcome::Sound(num) => println!("{:<14}{num:>9} inputs", target.name),
            Outcome::Failed(path) => {
                println!("{:<14}   FAILED on `{}`", target.name, path.display());
                failed.push(format!("cargo xtask fuzz {} --input {}", target.name, path.display()));
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("see what happens with\n  {}", failed.join("\n  ")) }
}

fn chosen(names: &[String]) -> Result<Vec<&'static Target>> {
    if names.is_empty() {
        return Ok(TARGETS.iter().collect());
    }
    let find = |name: &String| {
        let known = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
        TARGETS
            .iter()
            .find(|target| target.name == name)
            .with_context(|| format!("`{name}` is no target; there are {}", known()))
    };
    names.iter().map(find).collect()
}

fn write_seeds(target: &Target, root: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    for (number, seed) in (target.seeds)(root)?.iter().enumerate() {
        fs::write(folder.join(format!("seed-{number}")), seed)?;
    }
    println!("{}", folder.display());
    Ok(())
}

enum Outcome {
    Sound(u64),
    Failed(PathBuf),
}

/// Tries damaged seeds for so long. The input at hand always lies in the folder, for a failure that ends this program too.
fn try_target(target: &Target, root: &Path, seed: u64, time: Duration, folder: &Path) -> Result<Outcome> {
    fs::create_dir_all(folder)?;
    let at_hand = folder.join(format!("at-hand-{seed}"));
    let mut mutator = Mutator::new(seed, (target.seeds)(root)?);
    let begun = Instant::now();
    let mut num = 0;
    while begun.elapsed() < time {
        let bytes = mutator.next_input();
        fs::write(&at_hand, &bytes)?;
        let started = Instant::now();
        let survived = catch_unwind(AssertUnwindSafe(|| (target.run)(&bytes))).is_ok();
        if !survived || started.elapsed() > MAX_TIME {
            let failed = folder.join(format!("seed-{seed}-input-{num}"));
            fs::rename(&at_hand, &failed)?;
            return Ok(Outcome::Failed(failed));
        }
        num += 1;
    }
    fs::remove_file(&at_hand)?;
    Ok(Outcome::Sound(num))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRONG: Target =
        Target { run: |bytes| assert!(bytes.len() % 3 != 0, "a reader that does not like some lengths"), ..TARGETS[0] };

    #[test]
    fn what_a_reader_does_not_survive_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let outcome = try_target(&WRONG, root(), 1, Duration::from_secs(60), dir.path()).expect("it ran");
        let Outcome::Failed(path) = outcome else { panic!("a third of all lengths fails") };
        assert_eq!(fs::read(path).expect("kept").len() % 3, 0);
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_sound_reader_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let target = chosen(&["textgrid".to_owned()]).expect("a target")[0];
        let outcome = try_target(target, root(), 1, Duration::from_millis(200), dir.path()).expect("it ran");
        assert!(matches!(outcome, Outcome::Sound(1..)));
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 0);
        let error = chosen(&["textgird".to_owned()]).expect_err("misspelt").to_string();
        assert!(error.starts_with("`textgird` is no target; there are arpa, audio"), "{error}");
    }
}
