//! What can go wrong while training, with what to do about it and the exit code.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::guard::{BatchId, Collapse};

/// The result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the training crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} `{}`: {source}; {}", path.display(), remedy(source))]
    Io {
        /// What was tried, such as `read`.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The disk cannot hold a checkpoint.
    #[error("the disk of `{}` is full: {}; delete files there or move the run to another disk, then run the same command again; the checkpoints saved before are whole", path.display(), space(*needed_bytes, *free_bytes))]
    DiskFull {
        /// Folder that could not be written.
        path: PathBuf,
        /// Bytes that a checkpoint takes, where known.
        needed_bytes: Option<u64>,
        /// Bytes that were free, where known.
        free_bytes: Option<u64>,
    },
    /// A checkpoint folder is not what was written.
    #[error("the checkpoint `{}` is damaged: {what}; use another checkpoint, or delete this folder and run the same command again", path.display())]
    Damaged {
        /// The checkpoint folder.
        path: PathBuf,
        /// What does not agree.
        what: String,
    },
    /// A checkpoint was written by a newer version of this program.
    #[error("`{}` has format {found} but this version reads up to format {supported}; use the version that wrote it", path.display())]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest known format.
        supported: u32,
    },
    /// The part of a checkpoint that other crates write could not be written.
    #[error("cannot write the checkpoint `{}`: {source}", path.display())]
    Write {
        /// The checkpoint folder.
        path: PathBuf,
        /// What the writer says.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A reference file is not what `verify` needs.
    #[error("`{}` {what}; record it again", path.display())]
    Reference {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Something that the loop called failed: data, model, evaluation, record.
    #[error(transparent)]
    Hook(Box<dyn StdError + Send + Sync>),
    /// The health referee stopped the run.
    #[error("{0}")]
    Health(Box<Health>),
    /// The data is not what the checkpoint was trained on.
    #[error(
        "the data changed since the checkpoint was saved (fingerprint `{found}`, checkpoint `{expected}`): {what}; put the old data back, or give the run another name, or go on with the new data by `{override_hint}`"
    )]
    DataChanged {
        /// Fingerprint in the checkpoint.
        expected: String,
        /// Fingerprint of the data now.
        found: String,
        /// What differs, as far as is known.
        what: String,
        /// The option that goes on all the same.
        override_hint: String,
    },
    /// The run folder belongs to another recipe.
    #[error("the checkpoint `{}` was made by another recipe (`{expected}`, now `{found}`); give the run another name, or go back to the recipe in the run folder", path.display())]
    RecipeChanged {
        /// The checkpoint folder.
        path: PathBuf,
        /// Hash in the checkpoint.
        expected: String,
        /// Hash of the recipe now.
        found: String,
    },
    /// A signal asked the run to stop; a checkpoint was saved.
    #[error("stopped by a signal after step {step}, with a checkpoint saved; run the same command again to resume")]
    Preempted {
        /// Steps made.
        step: u64,
    },
}

/// What the health referee saw when it stopped the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Step (from 0) whose update was not made.
    pub step: u64,
    /// What was seen.
    pub what: String,
    /// Likely causes, the likeliest first.
    pub causes: Vec<String>,
    /// The next command or edit.
    pub next: String,
    /// The rows of the batch.
    pub batch: Vec<BatchId>,
}

impl std::fmt::Display for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stopped at step {} before its update: {}", self.step, self.what)?;
        if !self.causes.is_empty() {
            write!(f, "; likely causes: {}", self.causes.join("; "))?;
        }
        if !self.batch.is_empty() {
            const SHOWN: usize = 4;
            let shown: Vec<_> = self.batch.iter().take(SHOWN).map(|id| format!("`{id}`")).collect();
            write!(f, "; batch: {}", shown.join(", "))?;
            if self.batch.len() > SHOWN {
                write!(f, " and {} more", self.batch.len() - SHOWN)?;
            }
        }
        write!(f, "; next: {}", self.next)
    }
}

impl Health {
    /// A sign of collapse that stops the run before the update of `step`. No batch is to blame.
    pub(crate) fn of_collapse(step: u64, Collapse { what, causes, next }: Collapse) -> Self {
        Self { step, what, causes, next, batch: Vec::new() }
    }

    /// Name of the file in the run folder that [`Self::save`] writes.
    pub const FILE_NAME: &str = "health.json";

    /// Writes `health.json` into the run folder, with the ids of the whole batch.
    pub fn save(&self, run_dir: &Path) -> Result<PathBuf> {
        let path = run_dir.join(Self::FILE_NAME);
        let failed = |source| Error::io("write", &path, source);
        let mut text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))?;
        text.push('\n');
        let aside = run_dir.join(format!(".{}.{}", Self::FILE_NAME, std::process::id()));
        std::fs::write(&aside, text).and_then(|()| std::fs::rename(&aside, &path)).map_err(failed)?;
        Ok(path)
    }
}

impl Error {
    /// The exit code of the program: 3 stopped by the health referee, 4 other data than before, 75 preempted (run again
    /// to resume), 2 another recipe in the same run folder, 1 everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Health(_) => 3,
            Self::DataChanged { .. } => 4,
            Self::Preempted { .. } => 75,
            Self::RecipeChanged { .. } => 2,
            _ => 1,
        }
    }

    /// Wraps a system error; a full disk becomes [`Error::DiskFull`].
    pub fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if is_disk_full(&source) {
            return Self::DiskFull { path, needed_bytes: None, free_bytes: None };
        }
        Self::Io { action, path, source }
    }

    /// A damaged checkpoint.
    pub(crate) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }

    /// Whether the disk, the quota or the largest file size is used up, anywhere in the chain of causes.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::DiskFull { .. }) || chain_has_disk_full(self)
    }
}

fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

/// Looks for a full disk among an error and its causes, also inside system errors that wrap others.
pub(crate) fn chain_has_disk_full(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let full = match (error.downcast_ref::<io::Error>(), error.downcast_ref::<Error>()) {
            (Some(io), _) => is_disk_full(io) || io.get_ref().is_some_and(|inner| chain_has_disk_full(inner)),
            (_, Some(Error::DiskFull { .. })) => true,
            _ => false,
        };
        if full {
            return true;
        }
        next = error.source();
    }
    false
}

fn remedy(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "make the folder writable, or run where you may write"
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "check the path",
        _ => "check the disk and the path",
    }
}

fn space(needed: Option<u64>, free: Option<u64>) -> String {
    match (needed, free) {
        (Some(needed), Some(free)) if needed > free => format!("a checkpoint needs {needed} bytes, {free} are free"),
        (Some(_), Some(free)) => {
            format!("a checkpoint needs more than the {free} bytes that were free, or a quota is used up")
        }
        (Some(needed), None) => format!("a checkpoint needs {needed} bytes"),
        (None, Some(free)) => format!("{free} bytes are free"),
        (None, None) => "no space is left".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(rows: u64) -> Health {
        Health {
            step: 7,
            what: "the loss is NaN".to_owned(),
            causes: vec!["the learning rate is too high".to_owned()],
            next: "lower the rate".to_owned(),
            batch: (0..rows).map(|key| BatchId { source: "a".to_owned(), key, documents: Vec::new() }).collect(),
        }
    }

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let changed = Error::DataChanged {
            expected: "a".to_owned(),
            found: "b".to_owned(),
            what: "source `x` has other documents".to_owned(),
            override_hint: "--accept-changed-data".to_owned(),
        };
        assert_eq!(changed.exit_code(), 4);
        assert_eq!(Error::Health(Box::new(health(0))).exit_code(), 3);
        assert_eq!(Error::Preempted { step: 3 }.exit_code(), 75);
        assert_eq!(Error::damaged(Path::new("x"), "gone").exit_code(), 1);
    }

    #[test]
    fn a_health_message_names_a_few_rows_and_counts_the_rest() {
        let message = health(6).to_string();
        assert_eq!(
            message,
            "stopped at step 7 before its update: the loss is NaN; likely causes: the learning rate is too high; \
             batch: `a#0`, `a#1`, `a#2`, `a#3` and 2 more; next: lower the rate"
        );
        assert!(!health(0).to_string().contains("batch"));
    }

    #[test]
    fn the_batch_of_a_stop_is_saved_whole() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = health(100).save(dir.path()).expect("writable");
        assert_eq!(path, dir.path().join("health.json"));
        let text = std::fs::read_to_string(path).expect("readable");
        assert_eq!(serde_json::from_str::<Health>(&text).expect("what was written reads back"), health(100));
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1);
    }

    #[test]
    fn a_full_disk_is_recognised_however_deep_it_lies() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        assert!(Error::io("write", "x", full()).is_disk_full());
        let wrapped = io::Error::other(Error::Io { action: "write", path: "x".into(), source: full() });
        let outer = Error::Write { path: "y".into(), source: Box::new(wrapped) };
        assert!(outer.is_disk_full());
        assert!(!Error::io("write", "x", io::ErrorKind::NotFound.into()).is_disk_full());
    }

    #[test]
    fn the_system_error_28_means_a_full_disk() {
        let error = Error::io("write", "runs/x", io::Error::from_raw_os_error(libc::ENOSPC));
        let message = error.to_string();
        assert!(message.starts_with("the disk of `runs/x` is full: no space is left; "), "{message}");
    }

    #[test]
    fn a_full_disk_says_what_is_needed_and_free() {
        assert_eq!(space(Some(41), Some(7)), "a checkpoint needs 41 bytes, 7 are free");
        let quota = "a checkpoint needs more than the 41 bytes that were free, or a quota is used up";
        assert_eq!(space(Some(7), Some(41)), quota);
        assert_eq!(space(None, Some(7)), "7 bytes are free");
    }

    #[test]
    fn a_read_only_folder_names_the_remedy() {
        let error = Error::io("write", "runs/x", io::Error::from_raw_os_error(libc::EROFS));
        let message = error.to_string();
        assert!(message.starts_with("cannot write `runs/x`: "), "{message}");
        assert!(message.ends_with("; make the folder writable, or run where you may write"), "{message}");
    }
}
