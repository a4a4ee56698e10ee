//! Which checkpoints a run folder holds.

use std::path::Path;

/// One checkpoint of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointName {
    /// Name of its folder, as in `step-00000400`.
    pub name: String,
    /// `best` stands for it.
    pub is_best: bool,
    /// `last` stands for it.
    pub is_last: bool,
}

impl CheckpointName {
    /// The name with what stands for it: `step-00000400 (best, last)`.
    pub fn words(&self) -> String {
        match (self.is_best, self.is_last) {
            (true, true) => format!("{} (best, last)", self.name),
            (true, false) => format!("{} (best)", self.name),
            (false, true) => format!("{} (last)", self.name),
            (false, false) => self.name.clone(),
        }
    }
}

/// The checkpoints of a run folder, in order of their steps.
pub fn checkpoints(run_path: &Path) -> Vec<CheckpointName> {
    let folder = run_path.join("checkpoints");
    let pointed = |name: &str| std::fs::read_link(folder.join(name)).ok();
    let (best, last) = (pointed("best"), pointed("last"));
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("step-"))
        .collect();
    names.sort();
    let is = |pointer: &Option<std::path::PathBuf>, name: &str| pointer.as_ref().is_some_and(|p| p.ends_with(name));
    let named = |name: String| CheckpointName { is_best: is(&best, &name), is_last: is(&last, &name), name };
    names.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_told_and_drafts_left_out() {
        let run = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(checkpoints(run.path()), []);
        let folder = run.path().join("checkpoints");
        for name in ["step-00000020", "step-00000010", ".tmp-step-00000030-1"] {
            std::fs::create_dir_all(folder.join(name)).expect("writable");
        }
        for name in ["best", "last"] {
            std::os::unix::fs::symlink("step-00000020", folder.join(name)).expect("writable");
        }
        let words: Vec<String> = checkpoints(run.path()).iter().map(CheckpointName::words).collect();
        assert_eq!(words, ["step-00000010", "step-00000020 (best, last)"]);
    }
}
