//! What a CTC network writes down of recordings, row by row, with one or several decoders at once.
//!
//! Rows are heard together in batches of similar length and decoded on all cores; only a small window of rows is in memory at a time.
// B rows, T frames, V tokens

use std::ops::ControlFlow;

use arcuate_data::{Batch, MicrobatchLimits, Row, collate};
use arcuate_decode::ctc::{CtcDecoder, Emissions};
use arcuate_model::speech::{FeatureNorm, Front};
use arcuate_model::{Architecture, Input, Network, Wanted};
use arcuate_ops::gradcheck::values;
use rayon::prelude::*;

use crate::{Done, Error, Result};

/// Batches among which rows are sorted by length.
const WINDOW_BATCHES: usize = 4;

/// How rows are heard and decoded.
#[derive(Debug, Clone, Copy)]
pub struct Transcription<'a> {
    /// What reads the words, each on its own.
    pub decoders: &'a [CtcDecoder],
    /// Rows and frames of one forward pass: speed and memory, not results.
    pub limits: MicrobatchLimits,
    /// Hear only rows of equal length together; see [`hears_padding`].
    pub equal_lengths: bool,
    /// The token that fills rows; never heard, so any will do.
    pub pad_id: u32,
}

/// What was read in one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeardRow {
    /// Key of the row.
    pub key: u64,
    /// Index of its source.
    pub source: u32,
    /// The best text of each decoder.
    pub texts: Vec<String>,
}

/// Whether what a network hears in a row depends on how far the row is padded.
pub fn hears_padding(architecture: &Architecture) -> bool {
    match architecture {
        Architecture::Speech(own) => matches!(own.front, Front::Waves { norm: FeatureNorm::Group, .. }),
        // Its convolution of positions reads padding whatever the norm is.
        Architecture::SpeechT5(_) => true,
        _ => false,
    }
}

/// Logits of all frames `[B*T, V]`, padding included; `network` should have no tape ([`Network::valid`]).
pub fn frame_logits(network: &Network, batch: &Batch) -> arcuate_model::Result<Vec<f32>> {
    Ok(values(network.forward(&Input::from_batch(batch), &Wanted::All)?.logits()))
}

impl Transcription<'_> {
    /// Transcribes rows in their order. `listen` gives the logits of a batch `[B*T, V]`; `each` sees the emissions of every row, in
    /// order. `progress` may break off.
    ///
    /// # Errors
    /// A row without sound, logits that are no numbers or of another vocabulary than that of the decoders.
    pub fn run(
        &self,
        rows: impl Iterator<Item = arcuate_data::Result<Row>>,
        listen: &mut dyn FnMut(&Batch) -> arcuate_model::Result<Vec<f32>>,
        each: &mut dyn FnMut(&Row, &Emissions<'_>) -> Result<()>,
        progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
    ) -> Result<Vec<HeardRow>> {
        let mut rows = rows;
        let mut heard = Vec::new();
        let mut done = Done::default();
        loop {
            let num = WINDOW_BATCHES * self.limits.rows.max(1);
            let window: Vec<Row> = rows.by_ref().take(num).collect::<arcuate_data::Result<_>>()?;
            if window.is_empty() {
                return Ok(heard);
            }
            let mut emissions: Vec<Option<Emissions<'static>>> = vec![None; window.len()];
            for places in self.batches(&window) {
                let batch: Vec<Row> = places.iter().map(|place| window[*place].clone()).collect();
                for (place, found) in places.iter().zip(self.listen(&batch, listen)?) {
                    emissions[*place] = Some(found);
                }
                done.rows += places.len() as u64;
                done.tokens += batch.iter().map(|row| row.num_positions() as u64).sum::<u64>();
                if progress(done).is_break() {
                    return Err(Error::Interrupted);
                }
            }
            let emissions: Vec<Emissions<'static>> = emissions.into_iter().flatten().collect();
            for (row, emissions) in window.iter().zip(&emissions) {
                each(row, emissions)?;
            }
            let texts: Vec<Vec<String>> =
                emissions.par_iter().map(|emissions| self.decode(emissions)).collect::<Result<_>>()?;
            let read = window.iter().zip(texts);
            heard.extend(read.map(|(row, texts)| HeardRow { key: row.key, source: row.source, texts }));
        }
    }

    fn decode(&self, emissions: &Emissions<'_>) -> Result<Vec<String>> {
        let best = |decoder: &CtcDecoder| -> Result<String> {
            Ok(decoder.decode(emissions)?.into_iter().next().map(|best| best.text).unwrap_or_default())
        };
        self.decoders.iter().map(best).collect()
    }

    /// Places of rows to be heard together, the longest first.
    fn batches(&self, rows: &[Row]) -> Vec<Vec<usize>> {
        let num_values = |place: usize| rows[place].sound.as_ref().map_or(0, |sound| sound.values.len());
        let mut order: Vec<usize> = (0..rows.len()).collect();
        order.sort_by_key(|place| std::cmp::Reverse(num_values(*place)));
        let mut batches: Vec<Vec<usize>> = Vec::new();
        for place in order {
            let fits = |batch: &&mut Vec<usize>| {
                let frames = rows[batch[0]].num_positions() as u64 * (batch.len() as u64 + 1);
                batch.len() < self.limits.rows
                    && self.limits.tokens.is_none_or(|most| frames <= most)
                    && (!self.equal_lengths || num_values(batch[0]) == num_values(place))
            };
            match batches.last_mut().filter(fits) {
                Some(batch) => batch.push(place),
                None => batches.push(vec![place]),
            }
        }
        batches
    }

    /// What the network says of the frames of each row, padding left out.
    fn listen(
        &self,
        rows: &[Row],
        listen: &mut dyn FnMut(&Batch) -> arcuate_model::Result<Vec<f32>>,
    ) -> Result<Vec<Emissions<'static>>> {
        let batch = collate(rows, self.pad_id, None);
        let Some(sound) = &batch.sound else {
            return Err(Error::Unsupported(
                "a row has no sound, so nothing can be transcribed; name recordings".to_owned(),
            ));
        };
        let logits = listen(&batch)?;
        let num_frames = sound.num_rows() * sound.num_frames;
        let width = logits.len() / num_frames.max(1);
        let row = |(row, frames): (usize, &usize)| {
            let start = row * sound.num_frames * width;
            Ok(Emissions::from_logits(&logits[start..start + frames * width], width)?)
        };
        sound.frames.iter().enumerate().map(row).collect()
    }
}

#[cfg(test)]
mod tests;
