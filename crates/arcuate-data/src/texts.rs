//! The texts of one side of the split, in pieces: for training a tokenizer and for measuring a compressor.

use std::sync::{Arc, Mutex};

use crate::config::DataConfig;
use crate::error::{BadItems, Error, Result};
use crate::progress::Progress;
use crate::reader::Parts;
use crate::speech::Utterances;
use crate::split::Split;

/// Where an iterator of plain texts leaves its error.
#[derive(Debug, Clone, Default)]
pub struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    /// The error that ended the texts, if one did.
    pub fn take(&self) -> Result<()> {
        let mut slot = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slot.take().map_or(Ok(()), Err)
    }

    fn set(&self, error: Error) {
        let mut slot = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slot.get_or_insert(error);
    }
}

/// Texts of all sources, one after the other; long ones in several pieces. Ends early at an error, which [`Failure`] then holds.
pub struct Texts {
    /// What was said in recordings.
    transcripts: std::vec::IntoIter<String>,
    sources: std::vec::IntoIter<(Parts, u64)>,
    current: Option<(Parts, u64)>,
    split: Split,
    held_out_fraction: f64,
    bad: BadItems,
    failure: Failure,
}

impl Texts {
    /// The texts of `split`; with `max_bytes` only the beginning of each source, by weight.
    pub fn open(config: &DataConfig, split: Split, max_bytes: Option<u64>) -> Result<Self> {
        config.refuse_impossible()?;
        let weight: f64 = config.source.values().map(|source| source.weight).sum();
        let sources = config
            .source
            .iter()
            .map(|(name, source)| {
                let share = max_bytes.map_or(u64::MAX, |most| (source.weight / weight * most as f64) as u64);
                Ok((Parts::open(name, source, config.max_document_bytes)?, share))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            transcripts: transcripts(config, split)?.into_iter(),
            sources: sources.into_iter(),
            current: None,
            split,
            held_out_fraction: config.held_out_fraction,
            bad: BadItems::new(config.max_bad_items),
            failure: Failure::default(),
        })
    }

    /// Holds the error, if any, once the texts have ended; stays valid when `self` is given away.
    pub fn failure(&self) -> Failure {
        self.failure.clone()
    }

    fn stop(&mut self, error: Error) -> Option<String> {
        self.failure.set(error);
        self.current = None;
        self.sources = Vec::new().into_iter();
        None
    }
}

/// What was said in the recordings of one side of the split; nothing where the sources are texts.
fn transcripts(config: &DataConfig, split: Split) -> Result<Vec<String>> {
    let mut transcripts = Vec::new();
    let Some(speech) = &config.speech else { return Ok(transcripts) };
    for (name, source) in &speech.source {
        let list = Utterances::open(name, source, config.max_bad_items, &Progress::none())?;
        let kept = list.iter().filter(|u| Split::of(&u.group, config.held_out_fraction) == split);
        transcripts.extend(kept.filter_map(|utterance| utterance.transcript));
    }
    Ok(transcripts)
}

impl Iterator for Texts {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            if let Some(transcript) = self.transcripts.next() {
                return Some(transcript);
            }
            let Some((parts, left)) = &mut self.current else {
                self.current = Some(self.sources.next()?);
                continue;
            };
            match parts.next().filter(|_| *left > 0) {
                None => self.current = None,
                Some(Ok(part)) => {
                    let document = part.document;
                    if Split::of_hash(document.side_hash(), self.held_out_fraction) == self.split {
                        *left = left.saturating_sub(document.text.len() as u64);
                        return Some(document.text);
                    }
                }
                Some(Err(Error::BadItem(item))) => {
                    if let Err(error) = self.bad.add(item) {
                        return self.stop(error);
                    }
                }
                Some(Err(error)) => return self.stop(error),
            }
        }
    }
}
