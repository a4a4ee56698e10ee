//! `status.json`: where a run stands, for people and for `runs list`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

pub(crate) const STATUS_FILE: &str = "status.json";
pub(crate) const LOCK_FILE: &str = "lock";
const MAX_STATUS_BYTES: u64 = 1 << 20;

/// What a run is doing or how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A process works on it.
    Running,
    /// It reached its horizon.
    Done,
    /// It ended with an error.
    Failed,
    /// It saved and left on a signal; the same command resumes it.
    Preempted,
    /// It was stopped by the health referee, or killed without a word.
    Stopped,
}

impl State {
    /// The word in `status.json` and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Preempted => "preempted",
            Self::Stopped => "stopped",
        }
    }

    /// The state of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Running, Self::Done, Self::Failed, Self::Preempted, Self::Stopped]
            .into_iter()
            .find(|state| state.name() == name)
    }
}

/// The content of `status.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What the run is doing or how it ended.
    pub state: State,
    /// Finished steps.
    pub step: u64,
    /// Why it failed or stopped.
    pub last_error: Option<String>,
    /// The process that wrote this.
    pub pid: u32,
    /// First start, UTC.
    pub started: String,
    /// Last change, UTC.
    pub updated: String,
}

impl Status {
    /// Reads `status.json` of a run folder as it stands. See [`Status::load_live`] for runs that were killed.
    pub fn load(run_path: &Path) -> Result<Self> {
        let path = run_path.join(STATUS_FILE);
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_STATUS_BYTES).read_to_end(&mut text))
            .map_err(|cause| Error::io("read", &path, cause))?;
        serde_json::from_slice(&text).map_err(|problem| Error::Damaged {
            path,
            problem: problem.to_string(),
            remedy: "delete it, the run writes it anew when it resumes",
        })
    }

    /// Like [`Status::load`], but a run that says `running` while no process holds its lock is `stopped`.
    pub fn load_live(run_path: &Path) -> Result<Self> {
        let mut status = Self::load(run_path)?;
        if status.state == State::Running && !is_locked(run_path) {
            status.state = State::Stopped;
            status.last_error.get_or_insert_with(|| "the process ended without a word; run it again to resume".into());
        }
        Ok(status)
    }
}

/// Whether the run in the folder has come to its end with these inputs, by the hash that it was started with.
pub fn is_done_with(run_path: &Path, inputs: &str) -> bool {
    Status::load(run_path).is_ok_and(|status| status.state == State::Done)
        && std::fs::read_to_string(run_path.join("inputs.hash")).is_ok_and(|old| old == inputs)
}

/// Whether a process works in the run folder.
pub(crate) fn is_locked(run_path: &Path) -> bool {
    let Ok(file) = File::open(run_path.join(LOCK_FILE)) else { return false };
    matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join(STATUS_FILE), text).expect("writes");
        folder
    }

    const RUNNING: &str = r#"{"state":"running","step":3,"last_error":null,"pid":1,"started":"a","updated":"b"}"#;

    #[test]
    fn a_killed_run_is_not_shown_as_running() {
        let folder = write(RUNNING);
        assert_eq!(Status::load(folder.path()).expect("loads").state, State::Running);
        let live = Status::load_live(folder.path()).expect("loads");
        assert_eq!((live.state, live.step), (State::Stopped, 3));
    }

    #[test]
    fn a_held_lock_keeps_it_running() {
        let folder = write(RUNNING);
        let lock = File::create(folder.path().join(LOCK_FILE)).expect("creates");
        lock.try_lock().expect("is free");
        assert_eq!(Status::load_live(folder.path()).expect("loads").state, State::Running);
    }

    #[test]
    fn damaged_json_is_an_error_with_a_remedy() {
        let error = Status::load(write("{\"state\": \"run").path()).expect_err("is torn").to_string();
        assert!(error.contains("is damaged") && error.contains("delete it"), "{error}");
    }

    #[test]
    fn names_and_states_agree() {
        for state in [State::Running, State::Done, State::Failed, State::Preempted, State::Stopped] {
            assert_eq!(State::from_name(state.name()), Some(state));
            assert_eq!(serde_json::to_string(&state).expect("serialises"), format!("\"{}\"", state.name()));
        }
        assert_eq!(State::from_name("sleeping"), None);
    }
}
