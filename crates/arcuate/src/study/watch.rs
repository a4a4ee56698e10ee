//! The progress of a whole study: a bar on a terminal, a line for each event elsewhere, JSON lines on request.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arcuate_recipe::{Loaded, Study, StudyRun, Work};
use arcuate_record::Status;
use arcuate_train::HorizonConfig;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::terminal::{self, duration, say};

/// Seconds between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// What an evaluation or a command counts, in tokens: it is short beside a training.
const SHORT: u64 = 10_000;

pub(super) struct Live {
    folder: PathBuf,
    bar: ProgressBar,
    /// Steps and tokens of each run as planned.
    plans: BTreeMap<String, (u64, u64)>,
    num_ended: usize,
    num_runs: usize,
    ended: u64,
    /// What was done when this process began: it says nothing about speed.
    before: u64,
    total: u64,
    begun: Instant,
    last_line: Option<Instant>,
    is_silent: bool,
}

impl Live {
    pub(super) fn new(study: &Loaded<Study>, folder: &Path, wanted: &[&StudyRun], json: bool) -> Self {
        let mut by_step: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for run in wanted {
            by_step.entry(&run.step).or_insert_with(|| plan(run, folder, study));
        }
        let plans: BTreeMap<String, (u64, u64)> =
            wanted.iter().map(|run| (run.name.clone(), by_step[run.step.as_str()])).collect();
        let total = plans.values().map(|plan| plan.1).sum();
        let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(total) };
        let style = ProgressStyle::with_template("study   [{bar:24}] {percent:>3}%  {msg}");
        bar.set_style(style.expect("a sound template").progress_chars("=> "));
        Self {
            folder: folder.to_path_buf(),
            bar,
            plans,
            num_ended: 0,
            num_runs: wanted.len(),
            ended: 0,
            before: 0,
            total,
            begun: Instant::now(),
            last_line: None,
            is_silent: json,
        }
    }

    pub(super) fn begin(&self, num: usize, jobs: usize) {
        if !self.is_silent {
            say("study", &format!("{num} runs, {jobs} at a time, in {}", self.folder.display()));
        }
    }

    /// Something happened to a run.
    pub(super) fn event(&mut self, run: &StudyRun, what: &str, text: &str, json: bool) {
        if matches!(what, "done" | "done already" | "failed" | "blocked") {
            self.num_ended += 1;
            let tokens = self.plans.get(&run.name).map_or(0, |plan| plan.1);
            self.ended += tokens;
            if what != "done" {
                self.before += tokens;
            }
        }
        if json {
            let event = json!({"kind": "study-run", "run": run.name, "event": what, "text": text,
                "ended": self.num_ended, "runs": self.num_runs});
            terminal::result(&event.to_string());
            return;
        }
        let text = if text.is_empty() { String::new() } else { format!(": {text}") };
        let line = format!("{}/{} {} {what}{text}", self.num_ended, self.num_runs, run.name);
        self.bar.suspend(|| say(super::kind(run), &line));
    }

    /// Shows where the runs stand.
    pub(super) fn show(&mut self, running: &[&StudyRun]) {
        if self.is_silent {
            return;
        }
        let mut place = self.ended;
        let mut parts = Vec::new();
        for run in running {
            let (steps, tokens) = self.plans.get(&run.name).copied().unwrap_or((1, SHORT));
            let step = Status::load(&self.folder.join(&run.name)).map_or(0, |status| status.step).min(steps);
            place += tokens * step / steps.max(1);
            parts.push(if steps > 1 { format!("{} {step}/{steps}", run.name) } else { run.name.clone() });
        }
        let (done, left) = ((place - self.before.min(place)) as f64, self.total.saturating_sub(place) as f64);
        let left = if done > 0.0 { self.begun.elapsed().as_secs_f64() * left / done } else { f64::NAN };
        let left = if left.is_finite() { format!("  about {} left", duration(left)) } else { String::new() };
        let text = format!("{}/{} runs  {}{left}", self.num_ended, self.num_runs, parts.join(", "));
        self.bar.set_position(place);
        if self.bar.is_hidden() && !parts.is_empty() {
            if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
                if self.last_line.is_some() {
                    say("study", &text);
                }
                self.last_line = Some(Instant::now());
            }
            return;
        }
        self.bar.set_message(text);
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// Steps and tokens of a run, padding included.
fn plan(run: &StudyRun, folder: &Path, study: &Loaded<Study>) -> (u64, u64) {
    if !matches!(run.work, Work::Train(_)) {
        return (1, SHORT);
    }
    let Some(Ok((loaded, _))) = run.load(folder, &study.source) else { return (1, SHORT) };
    let per_step = (loaded.value.batch.tokens_per_step() as u64).max(1);
    match loaded.value.horizon {
        HorizonConfig::Steps(steps) => (steps.max(1), steps.saturating_mul(per_step)),
        HorizonConfig::Tokens(tokens) => (tokens.div_ceil(per_step).max(1), tokens),
    }
}
