//! Files that are either the old or the new version, never half of one: written aside, synced, renamed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Error, Result};

/// Every unfinished file has this in its name, so that the next process can remove what a killed one left.
const MARK: &str = ".tmp-";

/// A file that appears under its name only when [`AtomicFile::commit`] has returned; dropping it removes the draft.
#[derive(Debug)]
pub struct AtomicFile {
    target: PathBuf,
    draft: PathBuf,
    file: Option<File>,
}

impl AtomicFile {
    /// Starts a draft beside `target`.
    pub fn create(target: &Path) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = target.file_name().map_or_else(|| "file".into(), |name| name.to_string_lossy().into_owned());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let draft = target.with_file_name(format!(".{name}{MARK}{}-{number}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&draft)
            .map_err(|cause| Error::io("write", target, cause))?;
        Ok(Self { target: target.to_path_buf(), draft, file: Some(file) })
    }

    /// Syncs the draft, renames it to its target and syncs the folder.
    pub fn commit(mut self) -> Result<()> {
        let done = self.sync_and_rename();
        if done.is_ok() {
            self.draft.clear();
        }
        done.map_err(|cause| Error::io("write", &self.target, cause))
    }

    fn sync_and_rename(&mut self) -> io::Result<()> {
        if let Some(file) = self.file.take() {
            file.sync_all()?;
        }
        fs::rename(&self.draft, &self.target)?;
        sync_folder(self.target.parent().unwrap_or(Path::new("")))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().ok_or_else(|| io::Error::other("already committed"))?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if !self.draft.as_os_str().is_empty() {
            drop(fs::remove_file(&self.draft));
        }
    }
}

/// Replaces the content of `path` in one step that survives a crash at any instant.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(|cause| Error::io("write", path, cause))?;
    file.commit()
}

/// Makes renames inside the folder durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some network file systems cannot sync a folder; the rename itself has happened.
        Err(cause) if matches!(cause.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        // A folder that may be written but not listed cannot be opened.
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Removes drafts that a killed process left in `folder`. Only the owner of the folder may call this.
pub(crate) fn remove_drafts(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_draft(&entry.file_name().to_string_lossy()) && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

pub(crate) fn is_draft(name: &str) -> bool {
    name.starts_with('.') && name.contains(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("status.json");
        write_atomic(&path, b"first version").expect("writes");
        write_atomic(&path, b"second").expect("writes");
        assert_eq!(fs::read(&path).expect("reads"), b"second");
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);
    }

    #[test]
    fn a_dropped_draft_leaves_the_old_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("report.html");
        write_atomic(&path, b"old").expect("writes");
        let mut draft = AtomicFile::create(&path).expect("starts");
        draft.write_all(b"ne").expect("writes");
        drop(draft);
        assert_eq!(fs::read(&path).expect("reads"), b"old");
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);
    }

    #[test]
    fn drafts_of_a_killed_process_are_removed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join(".status.json.tmp-12-0"), b"half").expect("writes");
        fs::write(folder.path().join("metrics.jsonl"), b"").expect("writes");
        remove_drafts(folder.path()).expect("cleans");
        let left: Vec<_> = fs::read_dir(folder.path()).expect("lists").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["metrics.jsonl"]);
    }

    #[test]
    fn a_missing_folder_is_an_error_with_the_path() {
        let error = write_atomic(Path::new("/nonexistent-folder/a.json"), b"").expect_err("cannot be written");
        assert_eq!(error.to_string(), "cannot write `/nonexistent-folder/a.json`: it does not exist; check the path");
    }
}
