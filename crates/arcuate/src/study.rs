//! Studies: every run is a process of this program; runs that are done are passed over; failures do not stop the others.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arcuate_recipe::{Loaded, Study, StudyRun, Work};
use arcuate_record::{State, Status, format_number};
use arcuate_study::{Facts, Selection, is_done, select};
use arcuate_train::{StopFlag, StopRequest};
use serde_json::json;

use crate::exit::{Coded, usage};
use crate::terminal::{self, say};
use children::Child;

mod children;
mod one;
mod watch;

pub(crate) use one::run_one;

/// Between two looks at the processes.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at runs that another process works on.
const WAIT: Duration = Duration::from_secs(2);

/// What the command line adds to a study.
pub(crate) struct How {
    /// The study file.
    pub file: PathBuf,
    /// Changes to the study file.
    pub set: Vec<String>,
    /// Folder of all runs.
    pub runs_dir: PathBuf,
    /// Processes at once.
    pub jobs: usize,
    /// Threads of each process.
    pub threads: Option<usize>,
    /// Which runs are wanted.
    pub selection: Selection,
    /// Passed on to the runs.
    pub accept_changed_data: bool,
    /// One JSON object a line.
    pub json: bool,
    /// Raised by signals.
    pub stop: StopFlag,
}

/// The folder of a study.
pub(crate) fn folder(runs_dir: &Path, study: &Study) -> PathBuf {
    runs_dir.join(&study.name)
}

/// Makes every wanted run that is not done, then sums up what there is.
pub(crate) fn run(study: &Loaded<Study>, how: &How) -> Result<()> {
    let folder = folder(&how.runs_dir, &study.value);
    arcuate_record::check_run_name(&study.value.name)?;
    let runs = study.value.runs();
    let wanted = select(&study.value, &runs, &how.selection).map_err(|error| usage(error.to_string()))?;
    std::fs::create_dir_all(folder.join("logs")).with_context(|| format!("cannot make `{}`", folder.display()))?;
    arcuate_study::freeze(&study.value, &folder)?;
    let text = crate::commands::read(&how.file)?;
    arcuate_record::write_atomic(&folder.join("study.toml"), text.as_bytes())?;
    let (failed, is_over) = Running::new(study, how, &folder, &wanted).finish()?;
    let outcome = arcuate_study::outcome(&study.value, &folder, facts())?;
    arcuate_study::write_report(&study.value, &outcome, &folder)?;
    if how.json {
        terminal::result(&json!({"kind": "study", "results": outcome}).to_string());
    } else {
        terminal::result(&arcuate_study::table(&outcome));
        say("report", &folder.join("report.html").display().to_string());
    }
    if !is_over {
        let message = "the study was stopped; the same command goes on".to_owned();
        return Err(Coded { code: 75, message }.into());
    }
    if failed.is_empty() {
        return Ok(());
    }
    let (blocked, failed): (Vec<Failure>, Vec<Failure>) = failed.into_iter().partition(|failure| failure.is_blocked);
    let mut message = format!("{} of {} runs failed:", failed.len(), wanted.len());
    for failure in &failed {
        let log = folder.join("logs").join(format!("{}.log", failure.name));
        message += &format!("\n  {}: {} ({})", failure.name, failure.why, log.display());
    }
    if !blocked.is_empty() {
        message += &format!("\n{} more runs need what these make and were not begun", blocked.len());
    }
    message += "\nthe same command tries them again";
    let first = failed[0].code;
    let code = if first != 75 && failed.iter().all(|failure| failure.code == first) { first } else { 1 };
    Err(Coded { code, message }.into())
}

fn facts() -> Facts {
    let fact = |name: &str, value: String| (name.to_owned(), value);
    vec![
        fact("arcuate", env!("CARGO_PKG_VERSION").to_owned()),
        fact("device", arcuate_ops::device::DeviceKind::Cpu.describe()),
        fact("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
    ]
}

/// A run that failed.
struct Failure {
    name: String,
    why: String,
    code: u8,
    /// It was not begun, because a run that it needs failed.
    is_blocked: bool,
}

/// How a wanted run stands in this process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    Running,
    Done,
    Failed,
}

/// The work list while it is worked on.
struct Running<'a> {
    study: &'a Loaded<Study>,
    how: &'a How,
    folder: &'a Path,
    wanted: &'a [&'a StudyRun],
    places: BTreeMap<&'a str, Place>,
    /// Runs that another process works on, and when to look again.
    elsewhere: BTreeMap<&'a str, Instant>,
    children: Vec<(&'a StudyRun, Child)>,
    failed: Vec<Failure>,
    live: watch::Live,
}

impl<'a> Running<'a> {
    fn new(study: &'a Loaded<Study>, how: &'a How, folder: &'a Path, wanted: &'a [&'a StudyRun]) -> Self {
        let places = wanted.iter().map(|run| (run.name.as_str(), Place::Waiting)).collect();
        let live = watch::Live::new(study, folder, wanted, how.json);
        let (elsewhere, children, failed) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { study, how, folder, wanted, places, elsewhere, children, failed, live }
    }

    /// Works until nothing is left, or until it is asked to stop. Returns the failures, and whether nothing is left.
    fn finish(mut self) -> Result<(Vec<Failure>, bool)> {
        self.live.begin(self.wanted.len(), self.how.jobs);
        let is_over = loop {
            if self.how.stop.is_requested() {
                let is_now = self.how.stop.get() == StopRequest::Now;
                self.children.iter_mut().for_each(|(_, child)| child.stop(is_now));
            } else {
                self.start()?;
            }
            self.collect()?;
            self.live.show(&self.children.iter().map(|(run, _)| *run).collect::<Vec<_>>());
            let is_stopping = self.how.stop.is_requested();
            let is_over = self.places.values().all(|place| matches!(place, Place::Done | Place::Failed));
            if self.children.is_empty() && (is_over || is_stopping) {
                break is_over;
            }
            std::thread::sleep(PAUSE);
        };
        self.live.end();
        Ok((self.failed, is_over))
    }

    /// Starts what can be started, in the order of the list.
    fn start(&mut self) -> Result<()> {
        for run in self.wanted {
            let name = run.name.as_str();
            if self.children.len() >= self.how.jobs {
                return Ok(());
            }
            if self.places[name] != Place::Waiting || self.elsewhere.get(name).is_some_and(|at| *at > Instant::now()) {
                continue;
            }
            let needs = |wanted: Place| run.needs.iter().any(|need| self.places.get(need.as_str()) == Some(&wanted));
            if needs(Place::Failed) {
                self.places.insert(name, Place::Failed);
                let cause = self.failed.iter().find(|failure| run.needs.contains(&failure.name));
                let (code, why) =
                    cause.map_or((1, String::new()), |cause| (cause.code, format!("`{}` failed", cause.name)));
                self.live.event(run, "blocked", &why, self.how.json);
                self.failed.push(Failure { name: name.to_owned(), why, code, is_blocked: true });
                continue;
            }
            if needs(Place::Waiting) || needs(Place::Running) {
                continue;
            }
            if is_done(run, self.folder, &self.study.source) {
                self.done(run, "done already");
                continue;
            }
            if is_taken(self.folder, run) {
                if self.elsewhere.insert(name, Instant::now() + WAIT).is_none() {
                    self.live.event(run, "waiting", "another process works on it", self.how.json);
                }
                continue;
            }
            let child = Child::start(run, self.how, self.folder)?;
            self.places.insert(name, Place::Running);
            self.live.event(run, "started", "", self.how.json);
            self.children.push((run, child));
        }
        Ok(())
    }

    /// Takes note of the processes that have ended.
    fn collect(&mut self) -> Result<()> {
        let mut index = 0;
        while index < self.children.len() {
            let Some(code) = self.children[index].1.ended()? else {
                index += 1;
                continue;
            };
            let (run, child) = self.children.remove(index);
            let is_stopping = self.how.stop.is_requested();
            if code == 0 && is_done(run, self.folder, &self.study.source) {
                self.done(run, "done");
            } else if is_taken(self.folder, run) || (code == 75 && !is_stopping) {
                // Another process was faster, or the run was preempted on its own: it goes on later.
                self.places.insert(&run.name, Place::Waiting);
                self.elsewhere.insert(&run.name, Instant::now() + WAIT);
            } else if is_stopping {
                self.places.insert(&run.name, Place::Waiting);
            } else {
                self.places.insert(&run.name, Place::Failed);
                let status = Status::load(&self.folder.join(&run.name)).ok().filter(|s| s.state != State::Done);
                let why = status.and_then(|status| status.last_error).or_else(|| child.last_line());
                let why = why.unwrap_or_else(|| format!("it ended with exit code {code}"));
                self.live.event(run, "failed", &why, self.how.json);
                self.failed.push(Failure { name: run.name.clone(), why, code, is_blocked: false });
            }
        }
        Ok(())
    }

    fn done(&mut self, run: &'a StudyRun, word: &str) {
        self.places.insert(&run.name, Place::Done);
        let measured = arcuate_study::measure(run, self.folder, &self.study.value.metric).ok();
        let value = measured.as_ref().and_then(|measured| measured.value);
        let text = value
            .map_or_else(String::new, |value| format!("{} {}", self.study.value.metric.name, format_number(value)));
        self.live.event(run, word, &text, self.how.json);
    }
}

/// Whether some process works in the run's folder.
fn is_taken(folder: &Path, run: &StudyRun) -> bool {
    Status::load_live(&folder.join(&run.name)).is_ok_and(|status| status.state == State::Running)
}

/// What a run does, in a word.
pub(crate) fn kind(run: &StudyRun) -> &'static str {
    match run.work {
        Work::Train(_) => "train",
        Work::Eval(..) => "eval",
        Work::Command(_) => "command",
    }
}
