//! Folders of the cache: complete or not there at all, whoever builds them, however often it is interrupted.
//!
//! An entry is a folder `KIND-KEY` with a `meta.json` that lists the sizes of its files. It is written under another name,
//! synced and renamed once. A lock file keeps two processes from doing the same work; the rename alone keeps them from
//! harming each other where locks do not work.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::progress::{Progress, Stage};

/// Part of every key and of every entry: raised whenever the meaning of a file changes.
pub(crate) const VERSION: u32 = 1;

const META: &str = "meta.json";

#[derive(Serialize, Deserialize)]
struct Meta<D> {
    version: u32,
    files: BTreeMap<String, u64>,
    details: D,
}

/// Opens the entry, or builds it by calling `build` with an empty folder.
pub(crate) fn open_or_build<D: Serialize + DeserializeOwned>(
    cache_dir: &Path,
    name: &str,
    progress: &Progress<'_>,
    build: impl FnOnce(&Path) -> Result<D>,
) -> Result<(PathBuf, D)> {
    let dir = cache_dir.join(name);
    if let Some(details) = read_entry(&dir) {
        return Ok((dir, details));
    }
    fs::create_dir_all(cache_dir).map_err(|source| Error::write(cache_dir, source))?;
    let lock_path = cache_dir.join(format!(".{name}.lock"));
    let lock = File::create(&lock_path).map_err(|source| Error::write(&lock_path, source))?;
    let is_locked = match lock.try_lock() {
        Ok(()) => true,
        Err(fs::TryLockError::WouldBlock) => {
            progress.report(Stage::Wait, 0, 1)?;
            lock.lock().is_ok()
        }
        // A file system without locks: the rename below is enough for safety.
        Err(fs::TryLockError::Error(_)) => false,
    };
    if let Some(details) = read_entry(&dir) {
        return Ok((dir, details));
    }
    if is_locked {
        remove_leftovers(cache_dir, &format!(".{name}.building-"));
    }
    let building = Building::create(cache_dir, name)?;
    let details = build(&building.path)?;
    finish(&building.path, &details)?;
    if dir.exists() {
        // It was there and not readable as an entry: damaged, or another process was faster on a file system without locks.
        if let Some(theirs) = read_entry(&dir) {
            return Ok((dir, theirs));
        }
        fs::remove_dir_all(&dir).map_err(|source| Error::write(&dir, source))?;
    }
    match fs::rename(&building.path, &dir) {
        Ok(()) => sync(cache_dir)?,
        Err(source) => match read_entry(&dir) {
            Some(theirs) => return Ok((dir, theirs)),
            None => return Err(Error::write(&dir, source)),
        },
    }
    Ok((dir, details))
}

/// The details of a complete entry; `None` for anything else.
fn read_entry<D: DeserializeOwned>(dir: &Path) -> Option<D> {
    let text = fs::read_to_string(dir.join(META)).ok()?;
    let meta: Meta<D> = serde_json::from_str(&text).ok()?;
    let is_whole = meta.version == VERSION
        && meta.files.iter().all(|(name, size)| {
            fs::metadata(dir.join(name)).is_ok_and(|found| found.is_file() && found.len() == *size)
        });
    is_whole.then_some(meta.details)
}

fn finish<D: Serialize>(dir: &Path, details: &D) -> Result<()> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|source| Error::read(dir, source))? {
        let entry = entry.map_err(|source| Error::read(dir, source))?;
        let path = entry.path();
        let file = File::open(&path).map_err(|source| Error::read(&path, source))?;
        file.sync_all().map_err(|source| Error::write(&path, source))?;
        let len = file.metadata().map_err(|source| Error::read(&path, source))?.len();
        files.insert(entry.file_name().to_string_lossy().into_owned(), len);
    }
    let path = dir.join(META);
    let meta = Meta { version: VERSION, files, details };
    let text = serde_json::to_vec_pretty(&meta).map_err(|source| Error::write(&path, std::io::Error::other(source)))?;
    fs::write(&path, text).map_err(|source| Error::write(&path, source))?;
    sync(&path)?;
    sync(dir)
}

fn sync(path: &Path) -> Result<()> {
    let file = File::open(path).map_err(|source| Error::read(path, source))?;
    match file.sync_all() {
        // Some file systems cannot sync a folder; there is nothing more to do then.
        Err(error) if path.is_file() => Err(Error::write(path, error)),
        _ => Ok(()),
    }
}

fn remove_leftovers(cache_dir: &Path, prefix: &str) {
    for entry in fs::read_dir(cache_dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            // Failing to tidy up is no reason to fail.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A folder that vanishes unless it was renamed.
struct Building {
    path: PathBuf,
}

impl Building {
    fn create(cache_dir: &Path, name: &str) -> Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let (pid, number) = (std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let path = cache_dir.join(format!(".{name}.building-{pid}-{number}"));
        if path.exists() {
            fs::remove_dir_all(&path).map_err(|source| Error::write(&path, source))?;
        }
        fs::create_dir(&path).map_err(|source| Error::write(&path, source))?;
        Ok(Self { path })
    }
}

impl Drop for Building {
    fn drop(&mut self) {
        if self.path.exists() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn build(dir: &Path, calls: &AtomicUsize) -> Result<u32> {
        calls.fetch_add(1, Ordering::SeqCst);
        fs::write(dir.join("a.bin"), [1, 2, 3]).map_err(|source| Error::write(dir, source))?;
        Ok(42)
    }

    fn visible(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .expect("the folder is there")
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .filter(|name| !name.ends_with(".lock"))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_entry_is_built_once() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let calls = AtomicUsize::new(0);
        for _ in 0..2 {
            let (path, details) =
                open_or_build(dir.path(), "x", &Progress::none(), |d| build(d, &calls)).expect("built");
            assert_eq!((path, details), (dir.path().join("x"), 42));
        }
        assert_eq!(calls.into_inner(), 1);
        assert_eq!(visible(dir.path()), ["x"]);
    }

    #[test]
    fn two_threads_build_it_once_and_both_succeed() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let calls = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| open_or_build(dir.path(), "x", &Progress::none(), |d| build(d, &calls)).expect("built"));
            }
        });
        assert_eq!(calls.into_inner(), 1);
    }

    #[test]
    fn a_failed_build_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let result = open_or_build::<u32>(dir.path(), "x", &Progress::none(), |d| {
            fs::write(d.join("a.bin"), [1]).expect("writable");
            Err(Error::Interrupted)
        });
        assert!(matches!(result, Err(Error::Interrupted)));
        assert!(visible(dir.path()).is_empty());
    }

    #[test]
    fn what_a_killed_process_left_is_removed() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join(".x.building-1-0")).expect("writable");
        let calls = AtomicUsize::new(0);
        open_or_build(dir.path(), "x", &Progress::none(), |d| build(d, &calls)).expect("built");
        assert_eq!(visible(dir.path()), ["x"]);
    }

    #[test]
    fn a_damaged_entry_is_built_again() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let calls = AtomicUsize::new(0);
        for damage in ["a.bin", META] {
            open_or_build(dir.path(), "x", &Progress::none(), |d| build(d, &calls)).expect("built");
            fs::write(dir.path().join("x").join(damage), [9]).expect("writable");
        }
        open_or_build(dir.path(), "x", &Progress::none(), |d| build(d, &calls)).expect("built");
        assert_eq!(calls.into_inner(), 3);
    }

    #[test]
    fn a_cache_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let blocked = dir.path().join("file");
        fs::write(&blocked, "not a folder").expect("writable");
        let error = open_or_build::<u32>(&blocked.join("cache"), "x", &Progress::none(), |_| Ok(1))
            .expect_err("a file is in the way");
        assert!(error.to_string().contains("file/cache"), "{error}");
    }
}
