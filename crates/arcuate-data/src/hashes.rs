//! Content hashes of input files, remembered by path, size and times in a small file of the cache.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::InputFile;
use crate::progress::{Progress, Stage};

const MEMO: &str = "hashes.json";

/// A file as it was when its hash was taken: any write changes one of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Memo {
    num_bytes: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    hash: String,
}

/// One BLAKE3 hash per file, in order.
pub(crate) fn content_hashes(files: &[InputFile], cache_dir: &Path, progress: &Progress<'_>) -> Result<Vec<String>> {
    let memo_path = cache_dir.join(MEMO);
    let mut memo: BTreeMap<String, Memo> =
        fs::read(&memo_path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let total: u64 = files.iter().map(|file| file.num_bytes).sum();
    let done = AtomicU64::new(0);
    let found: Vec<(String, Memo)> = files
        .par_iter()
        .map(|file| {
            let key = fs::canonicalize(&file.path).unwrap_or_else(|_| file.path.clone());
            let key = key.to_string_lossy().into_owned();
            let mut now = look(&file.path)?;
            match memo.get(&key) {
                Some(known) if (Memo { hash: String::new(), ..known.clone() }) == now => {
                    now.hash.clone_from(&known.hash);
                    done.fetch_add(file.num_bytes, Ordering::Relaxed);
                }
                _ => now.hash = hash(&file.path, &done, total, progress)?,
            }
            Ok((key, now))
        })
        .collect::<Result<_>>()?;
    let hashes = found.iter().map(|(_, memo)| memo.hash.clone()).collect();
    let mut is_new = false;
    for (key, now) in found {
        is_new |= memo.get(&key) != Some(&now);
        memo.insert(key, now);
    }
    if is_new {
        // Only a shortcut for the next time: a cache that cannot be written is reported by whoever needs it.
        let _ = remember(cache_dir, &memo_path, &memo);
    }
    Ok(hashes)
}

fn look(path: &Path) -> Result<Memo> {
    let found = fs::metadata(path).map_err(|source| Error::read(path, source))?;
    Ok(Memo {
        num_bytes: found.len(),
        inode: found.ino(),
        modified: (found.mtime(), found.mtime_nsec()),
        changed: (found.ctime(), found.ctime_nsec()),
        hash: String::new(),
    })
}

fn hash(path: &Path, done: &AtomicU64, total: u64, progress: &Progress<'_>) -> Result<String> {
    let mut file = File::open(path).map_err(|source| Error::read(path, source))?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).map_err(|source| Error::read(path, source))?;
        if read == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&buffer[..read]);
        let done = done.fetch_add(read as u64, Ordering::Relaxed) + read as u64;
        progress.report(Stage::Hash, done, total)?;
    }
}

fn remember(cache_dir: &Path, path: &Path, memo: &BTreeMap<String, Memo>) -> std::io::Result<()> {
    fs::create_dir_all(cache_dir)?;
    let aside = cache_dir.join(format!(".{MEMO}.{}-{:?}", std::process::id(), std::thread::current().id()));
    fs::write(&aside, serde_json::to_vec_pretty(memo)?)?;
    fs::rename(&aside, path).inspect_err(|_| {
        let _ = fs::remove_file(&aside);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SourceConfig;
    use crate::files::resolve;
    use std::ops::ControlFlow;

    #[test]
    fn hashes_follow_the_content_and_are_remembered() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.txt");
        fs::write(&path, "one").expect("writable");
        let files = resolve("a", &SourceConfig::new(path.display().to_string())).expect("a file");
        let cache = dir.path().join("cache");
        let reads = AtomicU64::new(0);
        let take = || {
            let progress = Progress::new(|_, _, _| {
                reads.fetch_add(1, Ordering::SeqCst);
                ControlFlow::Continue(())
            });
            content_hashes(&files, &cache, &progress).expect("readable")
        };
        let first = take();
        assert_eq!(take(), first);
        assert_eq!(reads.load(Ordering::SeqCst), 1, "the second time nothing is read");
        fs::write(&path, "two").expect("writable");
        assert_ne!(take(), first);
        fs::write(cache.join(MEMO), "not json").expect("writable");
        fs::write(&path, "one").expect("writable");
        assert_eq!(take(), first);
    }
}
