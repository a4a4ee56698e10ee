//! One run of a study as a process of this program.
//!
//! The process reads its standard input: when that ends, whether because it is asked to stop or because the program that
//! started it is gone, it finishes the step, saves and exits. So nothing is left running when a study is killed.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use anyhow::{Context, Result};
use arcuate_recipe::StudyRun;

use super::How;

/// Longest last line of a log that is repeated.
const MAX_LINE_CHARS: usize = 300;

pub(super) struct Child {
    process: std::process::Child,
    /// Closed to ask for a stop.
    line: Option<ChildStdin>,
    log: PathBuf,
}

impl Child {
    pub(super) fn start(run: &StudyRun, how: &How, folder: &Path) -> Result<Self> {
        let log = folder.join("logs").join(format!("{}.log", run.name));
        let open = || -> std::io::Result<(File, File)> {
            let file = OpenOptions::new().create(true).append(true).open(&log)?;
            Ok((file.try_clone()?, file))
        };
        let (out, err) = open().with_context(|| format!("cannot write `{}`", log.display()))?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command.arg("run").arg(&how.file).arg("--runs-dir").arg(&how.runs_dir).args(["--study-run", &run.name]);
        for change in &how.set {
            command.args(["--set", change]);
        }
        if how.accept_changed_data {
            command.arg("--accept-changed-data");
        }
        if let Some(threads) = threads(how) {
            command.args(["--threads", &threads.to_string()]);
        }
        command.stdin(Stdio::piped()).stdout(out).stderr(err).env("NO_COLOR", "1");
        let mut process = command.spawn().context("cannot start another process of this program")?;
        let line = process.stdin.take();
        Ok(Self { process, line, log })
    }

    /// Asks the process to save and end; with `is_now` ends it.
    pub(super) fn stop(&mut self, is_now: bool) {
        self.line = None;
        if is_now {
            // It may have ended by itself.
            drop(self.process.kill());
        }
    }

    /// The exit code, once there is one.
    pub(super) fn ended(&mut self) -> Result<Option<u8>> {
        let status = self.process.try_wait().context("cannot ask for the state of a process")?;
        Ok(status.map(|status| status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
    }

    /// The last line that it wrote.
    pub(super) fn last_line(&self) -> Option<String> {
        let text = std::fs::read(&self.log).ok()?;
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        Some(line.trim_start_matches("error: ").chars().take(MAX_LINE_CHARS).collect())
    }
}

/// Processes that run at the same time share the cores.
fn threads(how: &How) -> Option<usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    how.threads.or_else(|| (how.jobs > 1).then(|| (cores / how.jobs).max(1)))
}
