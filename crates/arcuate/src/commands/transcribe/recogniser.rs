//! A checkpoint that hears: network, alphabet, and how sound is prepared as the network was trained.
// B rows, S steps of sound, F features of a step, T frames, V tokens

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arcuate_data::{Downsampling, Hearing, Sound};
use arcuate_decode::ctc::{Alphabet, Emissions};
use arcuate_model::{Head, Input, Network, Wanted};
use arcuate_ops::device::Device;
use arcuate_text::Tokenizer;
use rayon::prelude::*;

use super::super::generate::folder;
use crate::{exit, preprocessor};

/// A network with everything that it takes to hear.
pub(super) struct Recogniser {
    network: Network,
    alphabet: Arc<Alphabet>,
    hearing: Hearing,
    downsampling: Downsampling,
    /// Whether rows of a batch must be equally long, since padding changes what the network hears.
    needs_equal_lengths: bool,
}

impl Recogniser {
    /// Loads a checkpoint folder to a device; refuses what is no recogniser.
    pub(super) fn open(dir: &Path, device: &Device) -> anyhow::Result<Self> {
        folder::check(dir)?;
        if !["tokenizer.json", "vocab.json"].iter().any(|name| dir.join(name).is_file()) {
            return Err(exit::usage(format!(
                "`{}` holds a model but no `tokenizer.json` or `vocab.json`; copy the tokenizer that the model was trained with into the folder",
                dir.display()
            )));
        }
        let tokenizer = Tokenizer::load(dir)?;
        let network = arcuate_model::load(dir, device)
            .with_context(|| format!("cannot load the checkpoint `{}`", dir.display()))?;
        let architecture = network.architecture();
        let shown = dir.display();
        let Some(downsampling) = architecture.downsampling() else {
            return Err(exit::usage(format!(
                "`{shown}` is a text model (`{}`) and hears nothing; name the checkpoint of a speech recogniser",
                architecture.name()
            )));
        };
        if *architecture.head() == Head::Decoder {
            return Err(exit::usage(format!(
                "`{shown}` writes with a decoder (`{}`), which cannot be run word by word yet; name a checkpoint that was trained with `[objective.ctc]`",
                architecture.name()
            )));
        }
        if *architecture.head() != Head::Tokens {
            return Err(exit::usage(format!(
                "`{shown}` is a speech model that was not fine-tuned to write text; fine-tune it with `[objective.ctc]` first"
            )));
        }
        let (num_tokens, num_outputs) = (tokenizer.vocab_size(), architecture.vocab_size());
        let unfit = |why: String| exit::usage(format!("the tokenizer in `{shown}` does not fit the model: {why}"));
        if num_tokens < num_outputs {
            return Err(unfit(format!(
                "it has {num_tokens} tokens, but the model writes {num_outputs}; copy the right one"
            )));
        }
        let alphabet = Alphabet::of_tokenizer(&tokenizer, num_outputs).map_err(|error| unfit(error.to_string()))?;
        Ok(Self {
            alphabet: Arc::new(alphabet),
            hearing: preprocessor::hearing(dir, &architecture)?,
            downsampling,
            needs_equal_lengths: arcuate_eval::hears_padding(&architecture),
            network,
        })
    }

    pub(super) fn alphabet(&self) -> &Arc<Alphabet> {
        &self.alphabet
    }

    /// The rate of the samples that it hears.
    pub(super) fn sample_rate_hz(&self) -> u32 {
        self.hearing.sample_rate_hz
    }

    /// Samples from one frame to the next.
    pub(super) fn hop_samples(&self) -> usize {
        self.hearing.hop_samples() * self.downsampling.hop()
    }

    /// Samples of one frame.
    pub(super) fn frame_samples(&self) -> usize {
        self.hearing.num_samples(self.downsampling.num_steps(1))
    }

    /// Log-probabilities `[T, V]` of each chunk; what is said of one does not depend on the others. Chunks are heard
    /// together up to so many samples.
    pub(super) fn log_probs(&self, chunks: &[&[f32]], batch_samples: usize) -> anyhow::Result<Vec<Vec<f32>>> {
        let least = self.frame_samples();
        let prepared: Vec<Vec<f32>> =
            chunks.par_iter().map(|samples| self.hearing.prepare(samples, least)).collect::<Result<_, _>>()?;
        let num_features = self.hearing.num_features();
        let lengths: Vec<usize> = prepared.iter().map(|values| values.len() / num_features).collect();
        let batch_steps = batch_samples / self.hearing.hop_samples();
        let mut found = vec![Vec::new(); chunks.len()];
        for batch in batches(&lengths, batch_steps, self.needs_equal_lengths) {
            let rows: Vec<&[f32]> = batch.iter().map(|at| prepared[*at].as_slice()).collect();
            for (at, log_probs) in batch.iter().zip(self.forward(&rows)?) {
                found[*at] = log_probs;
            }
        }
        Ok(found)
    }

    fn forward(&self, rows: &[&[f32]]) -> anyhow::Result<Vec<Vec<f32>>> {
        let sound = Sound::of_steps(rows, self.hearing.num_features(), &self.downsampling);
        let (frames, num_frames) = (sound.frames.clone(), sound.num_frames);
        let input = Input::of_sound(sound);
        let output = arcuate_ops::pool::within(|| self.network.forward(&input, &Wanted::All))?;
        let logits: Vec<f32> = output
            .logits()
            .into_data()
            .try_to_vec()
            .map_err(|error| anyhow::anyhow!("cannot read the logits back: {error:?}"))?;
        let width = self.alphabet.num_tokens();
        let rows = logits.chunks_exact(num_frames * width).zip(&frames);
        rows.map(|(row, frames)| {
            Ok(Emissions::from_logits(&row[..frames * width], width)?.frames().flatten().copied().collect())
        })
        .collect()
    }
}

/// Places of chunks to be heard together: of similar length, at most so many samples with padding, but at least one.
pub(crate) fn batches(lengths: &[usize], batch_samples: usize, must_be_equal: bool) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(lengths[*at]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    for at in order {
        match batches.last_mut() {
            // The first one is the longest.
            Some(batch)
                if (batch.len() + 1) * lengths[batch[0]] <= batch_samples
                    && (!must_be_equal || lengths[batch[0]] == lengths[at]) =>
            {
                batch.push(at);
            }
            _ => batches.push(vec![at]),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_similar_lengths_within_their_limit() {
        assert_eq!(batches(&[3, 10, 4, 10, 3], 20, false), [vec![1, 3], vec![2, 0, 4]]);
        assert_eq!(batches(&[3, 10, 4, 10, 3], 20, true), [vec![1, 3], vec![2], vec![0, 4]]);
        assert_eq!(batches(&[50, 60], 20, false), [vec![1], vec![0]]);
        assert!(batches(&[], 20, false).is_empty());
    }
}
