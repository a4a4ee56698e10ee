//! `cargo xtask crash-test`: kills a run at random moments, resumes it, and compares it with an undisturbed one.
//!
//! The moments are drawn from the seed: most are a delay after the start, every fourth waits for a checkpoint to be
//! in the making. If the run is done before all kills are, it is compared and started afresh.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use arcuate_ops::rng::Stream;

use crate::program::Program;
use crate::run_folder::{differences, last_checkpoint, phase};
use crate::workspace::build_arcuate;

/// Exit code of a run that saved and left on a signal.
const PREEMPTED: i32 = 75;
/// Longest time that a run may take to save and leave after a signal.
const GRACE: Duration = Duration::from_secs(120);
/// Time between two looks at the process and its folder.
const TICK: Duration = Duration::from_millis(1);
/// So many kills in a row may find no new checkpoint before the delays grow.
const PATIENCE: u32 = 3;

/// Flags of `cargo xtask crash-test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Number of kills
    #[arg(long, default_value_t = 50)]
    pub kills: u64,
    /// Seed of the moments
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The recipe to run
    #[arg(long, default_value = "recipes/tiny.toml", value_name = "PATH")]
    pub recipe: PathBuf,
    /// The binary to run [default: build target/release/arcuate]
    #[arg(long, value_name = "PATH")]
    pub bin: Option<PathBuf>,
    /// Change a key of the recipe; may be given again
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// What is sent: `kill` cannot be caught, `term` must end in exit code 75
    #[arg(long, value_enum, default_value_t = Signal::Kill)]
    pub signal: Signal,
    /// Give up after so many minutes
    #[arg(long, default_value_t = 30, value_name = "MINUTES")]
    pub max_minutes: u64,
}

/// The signal that interrupts a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Signal {
    /// SIGKILL
    Kill,
    /// SIGTERM
    Term,
}

/// Runs the recipe once undisturbed and again with kills, and compares.
pub(super) fn run(args: &Args) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(args.max_minutes * 60);
    let binary = args.bin.clone().map_or_else(build_arcuate, |path| Ok(std::path::absolute(path)?))?;
    let folder = tempfile::Builder::new().prefix("arcuate-crash-").tempdir()?;
    let mut test =
        Test { args, binary, folder: folder.path().to_path_buf(), deadline, done: BTreeMap::new(), compared: 0 };
    let outcome = test.run();
    if outcome.is_err() {
        println!("the runs are kept in `{}`", folder.keep().display());
    }
    outcome
}

struct Test<'a> {
    args: &'a Args,
    binary: PathBuf,
    folder: PathBuf,
    deadline: Instant,
    /// Kills by phase.
    done: BTreeMap<&'static str, u64>,
    /// Resumed runs that were finished and found equal.
    compared: u64,
}

/// How one start of the program ended.
enum End {
    Finished,
    Interrupted,
}

impl Test<'_> {
    fn program(&self, name: &str) -> Result<Program> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        let Args { recipe, set, .. } = self.args;
        Ok(Program { binary: self.binary.clone(), recipe: recipe.clone(), overrides: set.clone(), folder })
    }

    fn kills(&self) -> u64 {
        self.done.values().sum()
    }

    fn run(&mut self) -> Result<()> {
        let calm = self.program("undisturbed")?;
        let started = Instant::now();
        let status = self.wait(&mut calm.start()?, self.deadline)?.context("the undisturbed run took too long")?;
        if !status.success() {
            bail!("the undisturbed run failed ({status}):\n{}", calm.last_words());
        }
        let length = started.elapsed();
        let wanted = calm.run_folder().context("the undisturbed run left no folder")?;
        println!("undisturbed run: {:.1} s", length.as_secs_f64());

        let mut attempt = 0;
        while self.kills() < self.args.kills {
            attempt += 1;
            let program = self.program(&format!("killed-{attempt}"))?;
            self.disturb(&program, length)?;
            let got = program.run_folder().context("the killed run left no folder")?;
            let found = differences(&wanted, &got)?;
            if !found.is_empty() {
                bail!("after {} kills the run is another one:\n  {}", self.kills(), found.join("\n  "));
            }
            self.compared += 1;
            fs::remove_dir_all(&program.folder)?;
        }
        print!("{}", self.report());
        Ok(())
    }

    /// Interrupts and resumes one run until it is finished.
    fn disturb(&mut self, program: &Program, length: Duration) -> Result<()> {
        // As many kills as possible in one run, as long as it gets anywhere between them.
        let wanted = u32::try_from(self.args.kills).unwrap_or(u32::MAX).clamp(2, 20);
        let least = length * 2 / wanted;
        let mut span = least;
        let mut idle = 0;
        loop {
            if Instant::now() > self.deadline {
                bail!(
                    "{} of {} kills in {} minutes; raise `--max-minutes`",
                    self.kills(),
                    self.args.kills,
                    self.args.max_minutes
                );
            }
            let before = last_checkpoint(program.run_folder().as_deref());
            match self.start_and_interrupt(program, span)? {
                End::Finished => return Ok(()),
                End::Interrupted => {
                    let after = last_checkpoint(program.run_folder().as_deref());
                    idle = if after > before { 0 } else { idle + 1 };
                    if idle == 0 {
                        span = least;
                    } else if idle % PATIENCE == 0 {
                        span = (span * 3 / 2).min(length * 2);
                    }
                }
            }
        }
    }

    fn start_and_interrupt(&mut self, program: &Program, span: Duration) -> Result<End> {
        let number = self.kills();
        let mut child = program.start()?;
        if number >= self.args.kills {
            let status = self.wait(&mut child, self.deadline)?.context("the resumed run took too long")?;
            return finished(status, program);
        }
        let mut stream = Stream::new(self.args.seed, "crash_test", number, self.compared);
        let moment = Instant::now() + span.mul_f64(stream.uniform());
        let pause = Duration::from_secs_f64(0.02 * stream.uniform());
        let status = if number % 4 == 3 {
            self.wait_for_save(&mut child, program, Instant::now() + span * 2, pause)?
        } else {
            self.wait(&mut child, moment)?
        };
        if let Some(status) = status {
            return finished(status, program);
        }
        let phase_before = phase(program.run_folder().as_deref());
        let phase = match self.args.signal {
            Signal::Kill => {
                child.kill()?;
                if child.wait()?.signal().is_none() {
                    return finished(child.wait()?, program);
                }
                phase(program.run_folder().as_deref())
            }
            Signal::Term => match terminate(&mut child, program)? {
                End::Finished => return Ok(End::Finished),
                End::Interrupted => phase_before,
            },
        };
        *self.done.entry(phase).or_default() += 1;
        println!(
            "{} {:>3}  {phase}, newest checkpoint {}",
            self.verb(),
            number + 1,
            last_checkpoint(program.run_folder().as_deref())
        );
        Ok(End::Interrupted)
    }

    /// Waits until the process ends or the moment comes.
    fn wait(&self, child: &mut Child, until: Instant) -> Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until.min(self.deadline) {
                if until >= self.deadline {
                    child.kill()?;
                    child.wait()?;
                }
                return Ok(None);
            }
            sleep(TICK);
        }
    }

    /// Waits until a checkpoint is in the making and a little longer.
    fn wait_for_save(
        &self,
        child: &mut Child,
        program: &Program,
        until: Instant,
        pause: Duration,
    ) -> Result<Option<ExitStatus>> {
        while Instant::now() < until {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if phase_is_saving(program) {
                return self.wait(child, Instant::now() + pause);
            }
            sleep(TICK);
        }
        Ok(None)
    }

    fn verb(&self) -> &'static str {
        match self.args.signal {
            Signal::Kill => "SIGKILL",
            Signal::Term => "SIGTERM",
        }
    }

    fn report(&self) -> String {
        let phases: Vec<String> = self.done.iter().map(|(phase, count)| format!("{count} {phase}")).collect();
        format!(
            "crash-test  {} x {} ({})  {} resumed runs finished, all equal to the undisturbed one: weights and optimizer byte for byte, losses step by step\n",
            self.kills(),
            self.verb(),
            phases.join(", "),
            self.compared
        )
    }
}

fn phase_is_saving(program: &Program) -> bool {
    let Some(run) = program.run_folder() else { return false };
    let entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with(".tmp-"))
}

fn finished(status: ExitStatus, program: &Program) -> Result<End> {
    if status.success() {
        return Ok(End::Finished);
    }
    bail!("the resumed run failed ({status}):\n{}", program.last_words())
}

/// Sends SIGTERM; the program must save and leave with 75, or be done already.
fn terminate(child: &mut Child, program: &Program) -> Result<End> {
    // A shell's own `kill` is everywhere; the program of that name is not.
    let sent = Command::new("sh").arg("-c").arg(format!("kill -TERM {}", child.id())).status();
    sent.context("cannot send SIGTERM")?;
    let until = Instant::now() + GRACE;
    loop {
        match child.try_wait()? {
            Some(status) if status.code() == Some(PREEMPTED) => return Ok(End::Interrupted),
            // Before the handlers are in place there is nothing to save.
            Some(status) if status.signal().is_some() && !has_lock(program.run_folder().as_deref()) => {
                return Ok(End::Interrupted);
            }
            Some(status) if status.success() => return Ok(End::Finished),
            Some(status) => bail!(
                "after SIGTERM the run ended with {status}, not with exit code {PREEMPTED}:\n{}",
                program.last_words()
            ),
            None if Instant::now() > until => {
                child.kill()?;
                child.wait()?;
                bail!("{} seconds after SIGTERM the run has not ended:\n{}", GRACE.as_secs(), program.last_words());
            }
            None => sleep(TICK),
        }
    }
}

/// Whether the dead process had opened the run folder: it writes its number into `lock`.
fn has_lock(run: Option<&Path>) -> bool {
    run.is_some_and(|run| fs::read_to_string(run.join("lock")).is_ok_and(|text| !text.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that behaves like a resumable run: a script that counts to ten, saving each number.
    fn script(folder: &Path, loss: &str) -> PathBuf {
        let path = folder.join("fake");
        let text = format!(
            r#"#!/bin/sh
run="$4/fake"; mkdir -p "$run/checkpoints/last"; echo > "$run/recipe.toml"
trap 'exit 75' TERM
n=$(cat "$run/count" 2>/dev/null || echo 0)
while [ "$n" -lt 10 ]; do
  n=$((n + 1)); sleep 0.02; mkdir -p "$run/checkpoints/step-$n"
  echo $n > "$run/count.next"; mv "$run/count.next" "$run/count"
done
echo "{{\"step\": 10, \"kind\": \"train\", \"loss\": {loss}}}" > "$run/metrics.jsonl"
echo w > "$run/checkpoints/last/model.safetensors"; echo o > "$run/checkpoints/last/optimizer.safetensors"
"#
        );
        fs::write(&path, text).expect("written");
        let mut permissions = fs::metadata(&path).expect("there").permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
        fs::set_permissions(&path, permissions).expect("set");
        path
    }

    fn args(bin: PathBuf, signal: Signal) -> Args {
        Args {
            kills: 2,
            seed: 1,
            recipe: PathBuf::from("x.toml"),
            bin: Some(bin),
            set: Vec::new(),
            signal,
            max_minutes: 1,
        }
    }

    #[test]
    fn a_resumable_program_passes_sigterm() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        run(&args(script(dir.path(), "5.0"), Signal::Term)).expect("resumable");
    }

    #[test]
    fn a_program_whose_loss_changes_fails() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let outcome = run(&args(script(dir.path(), "$$"), Signal::Term));
        let error = outcome.expect_err("the number of the process is the loss").to_string();
        assert!(error.contains("is another one:\n  the loss differs"), "{error}");
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = script(dir.path(), "5.0");
        let text = fs::read_to_string(&path).expect("there").replace("trap", "echo no data; exit 4; trap");
        fs::write(&path, text).expect("written");
        let error = run(&args(path, Signal::Kill)).expect_err("exit code 4").to_string();
        assert!(error.starts_with("the undisturbed run failed") && error.ends_with("no data"), "{error}");
    }
}
