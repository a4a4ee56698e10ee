//! The recordings of a recipe one after the other, for work on all of them.

use super::{Limits, Utterance, Utterances, to_16_bits};
use crate::config::DataConfig;
use crate::error::{BadItems, Error, Result};
use crate::progress::Progress;
use crate::split::{Split, id_hash};

/// Every utterance of every source that training would hear, in the order of the sources and their lists.
pub struct Recordings {
    sources: Vec<(String, Utterances)>,
    /// Source and place in its list.
    all: Vec<(usize, usize)>,
    sample_rate_hz: u32,
    held_out_fraction: f64,
    limits: Limits,
    bad: BadItems,
}

impl Recordings {
    /// Reads the lists of all sources.
    ///
    /// # Errors
    /// When there is no `[data.speech]`, a list cannot be read, or too many items are bad.
    pub fn open(config: &DataConfig, progress: &Progress<'_>) -> Result<Self> {
        config.refuse_impossible()?;
        let speech = config.recordings()?;
        let mut bad = BadItems::new(config.max_bad_items);
        let (mut sources, mut all) = (Vec::new(), Vec::new());
        for (number, (name, source)) in speech.source.iter().enumerate() {
            let list = Utterances::open(name, source, config.max_bad_items, progress)?;
            bad.merge(&list.num_skipped(), list.first_skipped())?;
            let heard = (0..list.len()).filter(|index| !speech.leaves_out(list.seconds(*index)));
            all.extend(heard.map(|index| (number, index)));
            sources.push((name.clone(), list));
        }
        Ok(Self {
            sources,
            all,
            sample_rate_hz: speech.sample_rate_hz,
            held_out_fraction: config.held_out_fraction,
            limits: Limits::default(),
            bad,
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// True without a single one.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Name of the source of an utterance, and the utterance.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn get(&self, at: usize) -> (&str, Utterance) {
        let (source, index) = self.all[at];
        let (name, list) = &self.sources[source];
        (name, list.get(index))
    }

    /// How long an utterance is.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn seconds(&self, at: usize) -> f64 {
        let (source, index) = self.all[at];
        self.sources[source].1.seconds(index)
    }

    /// The side of the split of an utterance.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn split(&self, at: usize) -> Split {
        Split::of_hash(id_hash(&self.get(at).1.group), self.held_out_fraction)
    }

    /// The samples of an utterance as training hears them, before they are normalised.
    ///
    /// # Errors
    /// A bad item when the sound cannot be used.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn samples(&self, at: usize) -> Result<Vec<f32>> {
        let (source, index) = self.all[at];
        let samples = self.sources[source].1.load(index, self.sample_rate_hz, &self.limits)?;
        Ok(samples.into_iter().map(to_16_bits).collect())
    }

    /// Counts a bad item.
    ///
    /// # Errors
    /// Every other error, and one bad item too many.
    pub fn skip(&mut self, error: Error) -> Result<()> {
        match error {
            Error::BadItem(item) => self.bad.add(item),
            other => Err(other),
        }
    }

    /// Bad items so far, those of the lists included.
    pub fn num_bad(&self) -> u64 {
        self.bad.total()
    }

    /// Changes with the lists; see [`Utterances::content_hash`].
    pub fn content_hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (name, list) in &self.sources {
            hasher.update(format!("{name:?} {}\n", list.content_hash()).as_bytes());
        }
        hasher.update(format!("{} {}", self.sample_rate_hz, self.all.len()).as_bytes());
        hasher.finalize().to_hex()[..32].to_owned()
    }
}
