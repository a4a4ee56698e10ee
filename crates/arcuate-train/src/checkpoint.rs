//! The checkpoints of a run: folders that appear whole or not at all.
//!
//! A checkpoint is written into a folder of another name, its files are hashed and flushed to the disk, and one rename
//! makes it visible. Only then do the pointers `last` and `best` move, and only then are old checkpoints deleted. A kill
//! at any instant leaves every earlier checkpoint findable; [`CheckpointStore::open`] clears what such a kill left over.

use std::error::Error as StdError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

mod disk;
mod fault;
mod manifest;
mod state;

pub use disk::{folder_bytes, free_bytes};
pub use manifest::{Manifest, ManifestFile, verify};
pub use state::{Best, LoopState};

use crate::config::CheckpointConfig;
use crate::error::{Error, Result, chain_has_disk_full};
use disk::{remove_path, sync_dir, sync_file};
use fault::{Stage, reached};

/// Folder under construction.
const TEMPORARY: &str = ".tmp-";
/// A checkpoint that makes way for a new one of the same step; put back if that one never came.
const REPLACED: &str = ".replaced-";
/// A checkpoint being deleted.
const DELETED: &str = ".deleted-";

/// A checkpoint on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Steps made when it was saved.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
}

/// The answer of [`CheckpointStore::latest_valid`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The newest checkpoint that is whole.
    pub checkpoint: Option<Checkpoint>,
    /// One sentence for each newer one that is not.
    pub warnings: Vec<String>,
}

/// The folder `runs/NAME/checkpoints`. One process at a time may hold it; the lock of the run folder sees to that.
#[derive(Debug)]
pub struct CheckpointStore {
    dir: PathBuf,
    config: CheckpointConfig,
    expected_bytes: Option<u64>,
}

impl CheckpointStore {
    /// Makes the folder if need be, puts back checkpoints that were being replaced, and removes what interrupted saves
    /// left over.
    pub fn open(dir: impl Into<PathBuf>, config: CheckpointConfig) -> Result<Self> {
        let store = Self { dir: dir.into(), config, expected_bytes: None };
        fs::create_dir_all(&store.dir).map_err(|source| Error::io("make the folder", &store.dir, source))?;
        for name in store.entries()? {
            let path = store.dir.join(&name);
            if let Some(rest) = name.strip_prefix(REPLACED) {
                let original = store.dir.join(rest.rsplit_once('-').map_or(rest, |(step, _pid)| step));
                if !exists(&original) && step_of(&file_name(&original)).is_some() {
                    fs::rename(&path, &original).map_err(|source| Error::io("rename", &path, source))?;
                    continue;
                }
            }
            if [TEMPORARY, REPLACED, DELETED].iter().any(|prefix| name.starts_with(prefix)) {
                remove_path(&path)?;
            }
        }
        Ok(store)
    }

    /// The folder of all checkpoints.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of the checkpoint of a step, whether it exists or not.
    pub fn path(&self, step: u64) -> PathBuf {
        self.dir.join(step_name(step))
    }

    /// Says how large the next checkpoint will be, for the look at the free space before each save. Without it the size
    /// of the newest checkpoint is taken.
    pub fn expect_bytes(&mut self, bytes: u64) {
        self.expected_bytes = Some(bytes);
    }

    /// Saves a checkpoint: `write` fills the folder it is given. Then `last` points to it, and checkpoints that no rule
    /// keeps are deleted.
    pub fn save<E>(&self, step: u64, write: impl FnOnce(&Path) -> std::result::Result<(), E>) -> Result<Checkpoint>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.save_and_point(step, false, write)
    }

    /// Like [`Self::save`]; `best` points to it as well.
    pub fn save_best<E>(&self, step: u64, write: impl FnOnce(&Path) -> std::result::Result<(), E>) -> Result<Checkpoint>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.save_and_point(step, true, write)
    }

    /// Lets `best` point to the checkpoint of a step, and deletes the earlier best one unless another rule keeps it.
    /// Repeating it does no harm, so a resumed run can bring `best` up to date.
    pub fn mark_best(&self, step: u64) -> Result<()> {
        self.point("best", step)?;
        self.retain()
    }

    /// The checkpoint that `last` points to, by name only.
    pub fn last(&self) -> Option<Checkpoint> {
        self.pointed("last")
    }

    /// The checkpoint that `best` points to, by name only.
    pub fn best(&self) -> Option<Checkpoint> {
        self.pointed("best")
    }

    /// All checkpoints, oldest first, whole or not.
    pub fn list(&self) -> Result<Vec<Checkpoint>> {
        let steps = self.entries()?.into_iter().filter_map(|name| step_of(&name));
        let mut found: Vec<_> = steps.map(|step| Checkpoint { step, path: self.path(step) }).collect();
        found.retain(|checkpoint| checkpoint.path.is_dir());
        found.sort_by_key(|checkpoint| checkpoint.step);
        Ok(found)
    }

    /// The newest checkpoint whose files all have the sizes and hashes of its manifest.
    pub fn latest_valid(&self) -> Result<Found> {
        let mut found = Found::default();
        for checkpoint in self.list()?.into_iter().rev() {
            match verify(&checkpoint.path) {
                Ok(_) => {
                    found.checkpoint = Some(checkpoint);
                    break;
                }
                Err(error @ Error::Damaged { .. }) => found.warnings.push(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Brings the pointers up to date with the checkpoint that a run resumes from: a kill may have come between a save
    /// and them. `best_step` is what the state in the checkpoint calls the best; if that is gone, `best` stays as it is.
    pub fn settle(&self, checkpoint: &Checkpoint, best_step: Option<u64>) -> Result<()> {
        self.point("last", checkpoint.step)?;
        if let Some(step) = best_step.filter(|step| self.path(*step).is_dir()) {
            self.point("best", step)?;
        }
        self.retain()
    }

    /// Deletes the checkpoints after `step`: a run that went back there takes another way from it. If `best` was one of
    /// them, it is gone until the next best.
    pub fn discard_after(&self, step: u64) -> Result<()> {
        self.point("last", step)?;
        if self.best().is_some_and(|best| best.step > step) {
            remove_path(&self.dir.join("best"))?;
        }
        for checkpoint in self.list()?.into_iter().rev().filter(|checkpoint| checkpoint.step > step) {
            self.delete(&checkpoint)?;
        }
        Ok(())
    }

    fn save_and_point<E>(
        &self,
        step: u64,
        is_best: bool,
        write: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> Result<Checkpoint>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.look_for_space()?;
        let temporary = self.dir.join(format!("{TEMPORARY}{}-{}", step_name(step), std::process::id()));
        if let Err(error) = self.fill(&temporary, step, write) {
            let error = self.with_space(error, &temporary);
            // Frees the disk for whatever comes next; if even that fails, the next start clears it.
            let _ = remove_path(&temporary);
            return Err(error);
        }
        let checkpoint = Checkpoint { step, path: self.path(step) };
        self.publish(&temporary, &checkpoint)?;
        reached(Stage::Published);
        self.point("last", step)?;
        reached(Stage::PointedLast);
        if is_best {
            self.point("best", step)?;
        }
        reached(Stage::PointedBest);
        self.retain()?;
        Ok(checkpoint)
    }

    fn fill<E>(
        &self,
        temporary: &Path,
        step: u64,
        write: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> Result<()>
    where
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        remove_path(temporary)?;
        fs::create_dir(temporary).map_err(|source| Error::io("make the folder", temporary, source))?;
        reached(Stage::Created);
        write(temporary).map_err(|error| from_writer(temporary, error.into()))?;
        reached(Stage::Written);
        let manifest = Manifest::of_folder(temporary, step)?;
        if manifest.files.is_empty() {
            return Err(Error::Write { path: temporary.to_owned(), source: "nothing was written into it".into() });
        }
        manifest.save(temporary)?;
        reached(Stage::ManifestWritten);
        for path in disk::files_below(temporary)? {
            sync_file(&path)?;
        }
        for path in disk::folders_below(temporary)? {
            sync_dir(&path)?;
        }
        sync_dir(temporary)?;
        reached(Stage::Synced);
        Ok(())
    }

    /// The rename that makes a checkpoint visible. One of the same step steps aside first.
    fn publish(&self, temporary: &Path, checkpoint: &Checkpoint) -> Result<()> {
        let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(|source| Error::io("rename", from, source));
        let mut replaced = None;
        if exists(&checkpoint.path) {
            let aside = self.dir.join(format!("{REPLACED}{}-{}", step_name(checkpoint.step), std::process::id()));
            remove_path(&aside)?;
            rename(&checkpoint.path, &aside)?;
            reached(Stage::SteppedAside);
            replaced = Some(aside);
        }
        rename(temporary, &checkpoint.path)?;
        sync_dir(&self.dir)?;
        match replaced {
            Some(aside) => remove_path(&aside),
            None => Ok(()),
        }
    }

    /// A relative symbolic link, made aside and renamed over the old one.
    fn point(&self, name: &str, step: u64) -> Result<()> {
        let target = step_name(step);
        if !self.dir.join(&target).is_dir() {
            let path = self.dir.join(&target);
            return Err(Error::io("point to", path, io::ErrorKind::NotFound.into()));
        }
        let link = self.dir.join(name);
        let aside = self.dir.join(format!("{TEMPORARY}{name}-{}", std::process::id()));
        remove_path(&aside)?;
        std::os::unix::fs::symlink(&target, &aside).map_err(|source| Error::io("link", &aside, source))?;
        reached(Stage::LinkedAside);
        fs::rename(&aside, &link).map_err(|source| Error::io("link", &link, source))?;
        sync_dir(&self.dir)
    }

    fn pointed(&self, name: &str) -> Option<Checkpoint> {
        let target = fs::read_link(self.dir.join(name)).ok()?;
        let step = step_of(target.to_str()?)?;
        let path = self.path(step);
        path.is_dir().then_some(Checkpoint { step, path })
    }

    /// Deletes, oldest first, what neither a count, a multiple, nor a pointer keeps.
    fn retain(&self) -> Result<()> {
        let all = self.list()?;
        let newest = all.len().saturating_sub(self.config.keep_last.max(1));
        let pointed: Vec<u64> = [self.last(), self.best()].into_iter().flatten().map(|found| found.step).collect();
        for checkpoint in &all[..newest] {
            let step = checkpoint.step;
            let is_kept = self.config.keep_every_steps.is_some_and(|every| every > 0 && step.is_multiple_of(every));
            if !is_kept && !pointed.contains(&step) {
                self.delete(checkpoint)?;
            }
        }
        Ok(())
    }

    /// Out of sight with one rename, so that no half-deleted checkpoint is ever found.
    fn delete(&self, checkpoint: &Checkpoint) -> Result<()> {
        let aside = self.dir.join(format!("{DELETED}{}-{}", step_name(checkpoint.step), std::process::id()));
        remove_path(&aside)?;
        fs::rename(&checkpoint.path, &aside).map_err(|source| Error::io("delete", &checkpoint.path, source))?;
        reached(Stage::Deleting);
        remove_path(&aside)
    }

    /// Refuses a save that cannot fit, before anything is written.
    fn look_for_space(&self) -> Result<()> {
        let (Some(needed), Some(free)) = (self.needed_bytes(), free_bytes(&self.dir)) else { return Ok(()) };
        if free < needed {
            let path = self.dir.clone();
            return Err(Error::DiskFull { path, needed_bytes: Some(needed), free_bytes: Some(free) });
        }
        Ok(())
    }

    fn needed_bytes(&self) -> Option<u64> {
        self.expected_bytes.or_else(|| {
            let newest = self.list().ok()?.pop()?;
            Some(Manifest::load(&newest.path).ok()?.num_bytes())
        })
    }

    /// Adds to a full disk what is known about sizes, counting what the unfinished checkpoint takes as free.
    fn with_space(&self, error: Error, unfinished: &Path) -> Error {
        if !error.is_disk_full() {
            return error;
        }
        let written = folder_bytes(unfinished).unwrap_or(0);
        let needed = self.needed_bytes().unwrap_or(0).max(written);
        Error::DiskFull {
            path: self.dir.clone(),
            needed_bytes: (needed > 0).then_some(needed),
            free_bytes: free_bytes(&self.dir).map(|free| free.saturating_add(written)),
        }
    }

    fn entries(&self) -> Result<Vec<String>> {
        let read = |source| Error::io("read the folder", &self.dir, source);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(read)? {
            // Names that are not UTF-8 are not ours.
            names.extend(entry.map_err(read)?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }
}

/// What the part of other crates ran into, as an error of this one.
fn from_writer(path: &Path, error: Box<dyn StdError + Send + Sync>) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => *own,
        Err(error) => match error.downcast::<io::Error>() {
            Ok(io) => Error::io("write", path, *io),
            Err(source) if chain_has_disk_full(source.as_ref()) => {
                Error::DiskFull { path: path.to_owned(), needed_bytes: None, free_bytes: None }
            }
            Err(source) => Error::Write { path: path.to_owned(), source },
        },
    }
}

/// The folder name of a step: `step-00000400`.
fn step_name(step: u64) -> String {
    format!("step-{step:08}")
}

/// The step of a folder name, if it is one that [`step_name`] writes.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step-")?.parse().ok()?;
    (step_name(step) == name).then_some(step)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether anything has this name, a dangling link included.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
