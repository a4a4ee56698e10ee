//! From what readers find to the list: ids are compared, files are looked up, and bad items are counted.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use rayon::prelude::*;

use super::audio;
use super::list::{Found, List};
use super::{SkippedItems, SoundRef, SpeechSourceConfig, Utterance};
use crate::error::{BadItem, BadItems, BadReason, Error, Result};
use crate::progress::{Progress, Stage};
use crate::split::id_hash;

/// Utterances that are looked at between two reports of progress.
const BATCH: usize = 1024;
/// Longest id, name, transcript or label.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Longest utterance that a list may claim: a week.
const MAX_SECONDS: f64 = 7.0 * 24.0 * 3600.0;

/// Grows a list.
pub(super) struct Builder<'a> {
    /// Name of the source, for messages.
    pub(super) name: &'a str,
    source: &'a SpeechSourceConfig,
    progress: &'a Progress<'a>,
    list: List,
    ids: HashSet<u64>,
    bad: BadItems,
    skipped: BTreeMap<BadReason, SkippedItems>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(
        name: &'a str,
        source: &'a SpeechSourceConfig,
        max_bad_items: u64,
        progress: &'a Progress<'a>,
    ) -> Self {
        Self {
            name,
            source,
            progress,
            list: List::new(source.split_by),
            ids: HashSet::new(),
            bad: BadItems::new(max_bad_items),
            skipped: BTreeMap::new(),
        }
    }

    /// Adds an utterance of the list file `file`.
    ///
    /// # Errors
    /// A bad item when its numbers make no sense or its id is that of an earlier one.
    pub(super) fn add(&mut self, file: &Path, found: Found<'_>) -> Result<()> {
        let found = Found {
            language: found.language.or(self.source.language.as_deref()).filter(|text| !text.is_empty()),
            speaker: found.speaker.filter(|text| !text.is_empty()),
            ..found
        };
        self.list.push(&found, &file.to_string_lossy());
        let index = self.list.len() - 1;
        let added = self.list.get(index);
        let wrong = self.look(&added, found.seconds);
        if wrong.is_err() {
            self.list.pop();
        }
        wrong
    }

    fn look(&mut self, added: &Utterance, seconds: Option<f64>) -> Result<()> {
        let bad = |reason, detail: String| Err(Error::BadItem(BadItem { reason, place: added.place.clone(), detail }));
        if let Some(seconds) = seconds
            && !(seconds > 0.0 && seconds <= MAX_SECONDS)
        {
            return bad(BadReason::WrongSeconds, format!("says that it is {seconds} seconds long"));
        }
        if let SoundRef::File { start_seconds, .. } = added.sound
            && !(0.0..=MAX_SECONDS).contains(&start_seconds)
        {
            return bad(BadReason::WrongSeconds, format!("says that it begins at {start_seconds} seconds"));
        }
        let texts = [Some(&added.id), added.transcript.as_ref(), added.speaker.as_ref(), added.language.as_ref()];
        if texts.into_iter().flatten().any(|text| text.len() > MAX_TEXT_BYTES) {
            return bad(BadReason::TooLong, format!("has a text of more than {MAX_TEXT_BYTES} bytes"));
        }
        if !self.ids.insert(id_hash(&added.id)) {
            return bad(BadReason::DuplicateId, format!("has the id `{}` of an earlier utterance", added.id));
        }
        Ok(())
    }

    /// Counts a bad item; other errors, and one bad item too many, come back.
    pub(super) fn count(&mut self, done: Result<()>) -> Result<()> {
        match done {
            Err(Error::BadItem(item)) => {
                self.skipped.entry(item.reason).or_default().add(&item);
                self.bad.add(item)
            }
            other => other,
        }
    }

    /// Looks up every file, asks the sound itself for seconds that no list has, and takes the hash.
    pub(super) fn finish(mut self) -> Result<(List, BTreeMap<BadReason, SkippedItems>, String)> {
        self.ids = HashSet::new();
        let len = self.list.len();
        let mut hasher = blake3::Hasher::new();
        let mut is_bad = vec![false; len];
        for start in (0..len).step_by(BATCH) {
            let end = (start + BATCH).min(len);
            let list = &self.list;
            let looked: Vec<(Utterance, Result<(u64, f64)>)> = (start..end)
                .into_par_iter()
                .map(|index| {
                    let utterance = list.get(index);
                    let found = size_and_seconds(&utterance);
                    (utterance, found)
                })
                .collect();
            for (index, (utterance, found)) in (start..end).zip(looked) {
                match found {
                    Ok((size, seconds)) => {
                        self.list.set_seconds(index, seconds);
                        hash(&mut hasher, &utterance, size, seconds);
                    }
                    Err(error) => {
                        is_bad[index] = true;
                        self.count(Err(error))?;
                    }
                }
            }
            self.progress.report(Stage::Hash, end as u64, len as u64)?;
        }
        self.list.retain(|index| !is_bad[index]);
        self.list.settle();
        Ok((self.list, self.skipped, hasher.finalize().to_hex().to_string()))
    }
}

/// Bytes of the file or member, and seconds of the utterance.
fn size_and_seconds(utterance: &Utterance) -> Result<(u64, f64)> {
    let size = match &utterance.sound {
        SoundRef::File { path, .. } => match fs::metadata(path) {
            Ok(found) if found.is_file() => found.len(),
            Ok(_) => return Err(missing(utterance, path, "is no file")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(missing(utterance, path, "does not exist"));
            }
            Err(error) => return Err(missing(utterance, path, &format!("cannot be read: {error}"))),
        },
        SoundRef::Member { len, .. } => *len,
        // The rows before and after are part of the list too, so that the size of the file is in the hash more than often enough.
        SoundRef::Row { path, .. } => fs::metadata(path).map_err(|error| Error::read(path, error))?.len(),
    };
    let seconds = if utterance.seconds.is_nan() { audio::seconds(utterance)? } else { utterance.seconds };
    Ok((size, seconds))
}

fn missing(utterance: &Utterance, path: &Path, what: &str) -> Error {
    let detail = format!("names the sound `{}`, which {what}", path.display());
    Error::BadItem(BadItem { reason: BadReason::MissingFile, place: utterance.place.clone(), detail })
}

fn hash(hasher: &mut blake3::Hasher, utterance: &Utterance, size: u64, seconds: f64) {
    let texts =
        [Some(&utterance.id), utterance.transcript.as_ref(), utterance.speaker.as_ref(), utterance.language.as_ref()];
    for text in texts {
        // One more than the length, so that no text differs from an empty one.
        hasher.update(&text.map_or(0, |text| text.len() as u64 + 1).to_le_bytes());
        hasher.update(text.map_or("", |text| text.as_str()).as_bytes());
    }
    let start = match utterance.sound {
        SoundRef::File { start_seconds, .. } => start_seconds,
        _ => 0.0,
    };
    hasher.update(&size.to_le_bytes());
    hasher.update(&start.to_le_bytes());
    hasher.update(&seconds.to_le_bytes());
}
