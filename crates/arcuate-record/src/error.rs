//! What can go wrong with the record of a run, each with the next action.

use std::io;
use std::path::{Path, PathBuf};

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the record: one lower-case sentence with place and remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {action} `{}`: {}; {}", path.display(), reason(cause), remedy(cause))]
    Io {
        /// What was tried, as a verb: `write`, `read`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The answer of the operating system.
        cause: io::Error,
    },
    /// The name of a run cannot be the name of a folder.
    #[error("run name `{}` {problem}; use letters, digits, `-`, `_` and `.`", name.escape_debug())]
    BadName {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The folder holds files, but no run.
    #[error("`{}` is not a run folder (it holds `{}` but no `recipe.toml`); choose another name for the run", path.display(), found.escape_debug())]
    NotARunFolder {
        /// The folder.
        path: PathBuf,
        /// A file that was found there.
        found: String,
    },
    /// The folder holds the run of another recipe.
    #[error("`{}` holds the run of another recipe: {difference}; give this run another name, or move the folder away", path.display())]
    OtherRecipe {
        /// The folder.
        path: PathBuf,
        /// The first differences, in words.
        difference: String,
    },
    /// Another process works in the folder.
    #[error("`{}` is in use by {}; wait for it, stop it, or give this run another name", path.display(), holder(*pid))]
    Busy {
        /// The folder.
        path: PathBuf,
        /// The process that holds it, where known.
        pid: Option<u32>,
    },
    /// A file of the record cannot be understood.
    #[error("`{}` is damaged: {problem}; {remedy}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// The next action.
        remedy: &'static str,
    },
    /// The index over the runs failed.
    #[error("the index `{}` cannot be used: {cause}; delete it, it is rebuilt from the run folders", path.display())]
    Index {
        /// The SQLite file.
        path: PathBuf,
        /// SQLite's answer.
        cause: rusqlite::Error,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>, cause: io::Error) -> Self {
        Self::Io { action, path: path.as_ref().to_path_buf(), cause }
    }
}

fn reason(cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "no space is left".into(),
        io::ErrorKind::PermissionDenied => "permission is denied".into(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".into(),
        io::ErrorKind::NotFound => "it does not exist".into(),
        io::ErrorKind::NotADirectory => "a part of the path is a file".into(),
        io::ErrorKind::IsADirectory => "it is a folder".into(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".into(),
        _ => {
            let text = cause.to_string();
            let mut chars = text.chars();
            chars.next().map_or_else(|| text.clone(), |first| first.to_lowercase().chain(chars).collect())
        }
    }
}

fn remedy(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "free some space and run the same command again",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "choose a folder that you may write to, or change its permissions"
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => "check the path",
        _ => "check the disk and the path",
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".into(), |pid| format!("process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_named_with_its_remedy() {
        let error = Error::io("write", "runs/a/status.json", io::ErrorKind::StorageFull.into());
        let text =
            "cannot write `runs/a/status.json`: no space is left; free some space and run the same command again";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn other_io_errors_start_in_lower_case() {
        let error = Error::io("read", "x", io::Error::from_raw_os_error(5));
        assert!(error.to_string().starts_with("cannot read `x`: input/output error"), "{error}");
    }

    #[test]
    fn control_characters_of_names_are_escaped() {
        let error = Error::BadName { name: "a\u{1b}[2J".into(), problem: "holds a control character" };
        assert!(!error.to_string().contains('\u{1b}'));
    }
}
