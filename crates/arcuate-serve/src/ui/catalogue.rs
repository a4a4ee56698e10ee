//! What there is under the folder of runs: runs, studies with their runs, and report pages. Names in requests are looked up
//! here and never made into paths.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arcuate_record::{RunSummary, State, list};
use serde_json::Value;

use super::plan::StudyPlan;

/// Requests within this time see the same.
const LEAST_AGE: Duration = Duration::from_millis(500);
/// Looking around takes at most this share of the time.
const MOST_SHARE: u32 = 10;

/// One run. The name of the summary is that of the page: `NAME`, or `STUDY/NAME`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Run {
    pub summary: RunSummary,
    pub study: Option<String>,
}

/// One study.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Study {
    pub name: String,
    pub path: PathBuf,
    pub plan: StudyPlan,
    /// States of its runs that have begun.
    pub states: Vec<State>,
    /// What the last report left; null if there was none.
    pub results: Value,
}

impl Study {
    /// What the last report decided: `held`, `not held` or `inconclusive`.
    pub(super) fn verdict(&self) -> Option<String> {
        Some(self.results["verdict"].as_str()?.replace('_', " "))
    }

    /// Runs in that state.
    pub(super) fn count(&self, state: State) -> usize {
        self.states.iter().filter(|own| **own == state).count()
    }
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Snapshot {
    pub runs: Vec<Run>,
    pub studies: Vec<Study>,
    /// Names and paths of pages beside the runs, such as those of pipelines.
    pub pages: Vec<(String, PathBuf)>,
}

impl Snapshot {
    /// The run of that name.
    pub(super) fn run(&self, name: &str) -> Option<&Run> {
        self.runs.iter().find(|run| run.summary.name == name)
    }

    /// The study of that name.
    pub(super) fn study(&self, name: &str) -> Option<&Study> {
        self.studies.iter().find(|study| study.name == name)
    }

    /// The runs of a study.
    pub(super) fn runs_of<'a>(&'a self, study: &'a str) -> impl Iterator<Item = &'a Run> {
        self.runs.iter().filter(move |run| run.study.as_deref() == Some(study))
    }

    /// Whether anything is being trained.
    pub(super) fn is_live(&self) -> bool {
        self.runs.iter().any(|run| run.summary.state == State::Running)
    }
}

/// Looks around, but not too often.
#[derive(Debug)]
pub(super) struct Catalogue {
    root: PathBuf,
    seen: Mutex<Option<(Instant, Arc<Snapshot>)>>,
}

impl Catalogue {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_path_buf(), seen: Mutex::new(None) }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// What there is now, or was a moment ago.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((until, snapshot)) = seen.as_ref()
            && Instant::now() < *until
        {
            return Arc::clone(snapshot);
        }
        self.look(&mut seen)
    }

    /// What there is now: for a name that was not there a moment ago.
    pub(super) fn fresh(&self) -> Arc<Snapshot> {
        self.look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn look(&self, seen: &mut Option<(Instant, Arc<Snapshot>)>) -> Arc<Snapshot> {
        let begun = Instant::now();
        let snapshot = Arc::new(look(&self.root));
        let rest = LEAST_AGE.max(begun.elapsed() * MOST_SHARE);
        *seen = Some((Instant::now() + rest, Arc::clone(&snapshot)));
        snapshot
    }
}

fn look(root: &Path) -> Snapshot {
    // A folder that cannot be read holds nothing; the page says where it looks.
    let runs = list(root).unwrap_or_default();
    let mut snapshot = Snapshot {
        runs: runs.into_iter().map(|summary| Run { summary, study: None }).collect(),
        ..Snapshot::default()
    };
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.join("rule.json").is_file() && !path.join("status.json").is_file() {
            let runs = list(&path).unwrap_or_default().into_iter().filter(|run| !run.name.contains(".old-"));
            let runs: Vec<Run> = runs
                .map(|mut summary| {
                    summary.name = format!("{name}/{}", summary.name);
                    Run { summary, study: Some(name.clone()) }
                })
                .collect();
            let plan = StudyPlan::load(&path);
            let states = runs.iter().map(|run| run.summary.state).collect();
            let results = super::plan::results(&path);
            snapshot.studies.push(Study { name, path, plan, states, results });
            snapshot.runs.extend(runs);
        } else if name.ends_with(".html") && path.is_file() {
            snapshot.pages.push((name, path));
        }
    }
    snapshot.runs.sort_by(|a, b| {
        let key = |run: &Run| (run.summary.state != State::Running, std::cmp::Reverse(run.summary.started.clone()));
        key(a).cmp(&key(b)).then_with(|| a.summary.name.cmp(&b.summary.name))
    });
    snapshot
}
