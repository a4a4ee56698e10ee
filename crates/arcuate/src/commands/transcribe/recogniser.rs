//! A checkpoint that hears: network, alphabet, and how sound is prepared as the network was trained.
// B rows, S steps of sound, F features of a step, T frames, V tokens

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use arcuate_audio::fbank::{Fbank, FbankOptions};
use arcuate_audio::normalise;
use arcuate_data::{Downsampling, Sound};
use arcuate_decode::ctc::{Alphabet, Emissions};
use arcuate_model::{Head, Input, Network, Wanted};
use arcuate_ops::device::Device;
use arcuate_text::Tokenizer;
use rayon::prelude::*;
use serde::Deserialize;

use super::super::generate::folder;
use crate::{exit, terminal};

/// How sound is prepared, in the published file of that name. Other keys are about other things.
const PREPROCESSOR: &str = "preprocessor_config.json";

/// What is read of the file; absent keys have the defaults of the library that made it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Preprocessor {
    #[serde(default = "default_sampling_rate")]
    sampling_rate: u32,
    #[serde(default = "default_do_normalize")]
    do_normalize: bool,
    /// Mel bins of a frame, and frames of a step, where the network hears such.
    #[serde(default = "default_num_mel_bins")]
    num_mel_bins: usize,
    #[serde(default = "default_stride")]
    stride: usize,
}

fn default_sampling_rate() -> u32 {
    16_000
}

fn default_do_normalize() -> bool {
    true
}

fn default_num_mel_bins() -> usize {
    80
}

fn default_stride() -> usize {
    2
}

impl Preprocessor {
    fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(PREPROCESSOR);
        let shown = path.display();
        let wrong = |problem: String| exit::Coded {
            code: 4,
            message: format!("`{shown}` {problem}; copy the file that belongs to the model"),
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let own: Self = serde_json::from_str("{}").expect("all keys have defaults");
                let message = format!(
                    "`{shown}` is missing, so the published defaults are taken: {} Hz, mean 0 and variance 1",
                    own.sampling_rate
                );
                terminal::say("note", &message);
                return Ok(own);
            }
            Err(error) => return Err(wrong(format!("cannot be read: {error}")).into()),
        };
        let own: Self = serde_json::from_str(&text).map_err(|error| wrong(format!("cannot be used: {error}")))?;
        if !(1000..=192_000).contains(&own.sampling_rate) {
            return Err(
                wrong(format!("has a `sampling_rate` of {}, not from 1000 to 192000", own.sampling_rate)).into()
            );
        }
        Ok(own)
    }
}

/// What a network hears of samples.
#[derive(Debug, Clone, PartialEq)]
enum Hearing {
    /// The samples, perhaps brought to mean 0 and variance 1.
    Samples { normalise: bool },
    /// Filter-bank energies with mean 0 and variance 1 in every bin, several frames of them side by side.
    Frames { options: FbankOptions, stride: usize },
}

impl Hearing {
    /// What a network of so many features a step was trained to hear; none if it cannot be that.
    fn new(preprocessor: &Preprocessor, num_features: usize) -> Option<Self> {
        let Preprocessor { sampling_rate, do_normalize, num_mel_bins, stride } = *preprocessor;
        if num_features == 1 {
            return Some(Self::Samples { normalise: do_normalize });
        }
        let options = FbankOptions { sample_rate_hz: sampling_rate, num_mel_bins, ..FbankOptions::default() };
        let fits = stride > 0 && num_mel_bins.checked_mul(stride) == Some(num_features);
        fits.then_some(Self::Frames { options, stride })
    }

    /// Samples of so many steps, and from one step to the next.
    fn samples(&self, num_steps: usize) -> (usize, usize) {
        match self {
            Self::Samples { .. } => (num_steps, 1),
            Self::Frames { options, stride } => {
                let of = |milliseconds: f64| (f64::from(options.sample_rate_hz) * milliseconds / 1000.0) as usize;
                let (frame, shift) = (of(options.frame_length_ms), of(options.frame_shift_ms));
                (frame + (num_steps * stride).saturating_sub(1) * shift, stride * shift)
            }
        }
    }

    /// Steps of sound, one behind the other; at least so many samples are taken, silent ones where there are fewer.
    fn prepare(&self, samples: &[f32], least: usize) -> anyhow::Result<Vec<f32>> {
        let mut samples = samples.to_vec();
        let num_samples = samples.len().max(least);
        match self {
            Self::Samples { normalise } => {
                if *normalise {
                    normalise::waveform(&mut samples);
                }
                samples.resize(num_samples, 0.0);
                Ok(samples)
            }
            Self::Frames { options, stride } => {
                samples.resize(num_samples, 0.0);
                // Kaldi counts in 16 bits.
                samples.iter_mut().for_each(|x| *x *= 32768.0);
                let mut features = Fbank::new(options)?.compute(&samples);
                normalise::utterance(&mut features);
                let num_steps = features.num_frames() / stride;
                features.values.truncate(num_steps * stride * features.num_bins);
                Ok(features.values)
            }
        }
    }
}

/// A network with everything that it takes to hear.
pub(super) struct Recogniser {
    network: Network,
    alphabet: Arc<Alphabet>,
    sample_rate_hz: u32,
    hearing: Hearing,
    num_features: usize,
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
        let preprocessor = Preprocessor::read(dir)?;
        let num_features = architecture.num_features().unwrap_or(1);
        let Some(hearing) = Hearing::new(&preprocessor, num_features) else {
            return Err(exit::usage(format!(
                "`{shown}` hears {num_features} features a step, but `{PREPROCESSOR}` makes {} bins of {} frames; copy the file that belongs to the model",
                preprocessor.num_mel_bins, preprocessor.stride
            )));
        };
        Ok(Self {
            alphabet: Arc::new(alphabet),
            sample_rate_hz: preprocessor.sampling_rate,
            hearing,
            num_features,
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
        self.sample_rate_hz
    }

    /// Samples from one frame to the next.
    pub(super) fn hop_samples(&self) -> usize {
        self.hearing.samples(1).1 * self.downsampling.hop()
    }

    /// Samples of one frame.
    pub(super) fn frame_samples(&self) -> usize {
        self.hearing.samples(self.downsampling.num_steps(1)).0
    }

    /// Log-probabilities `[T, V]` of each chunk; what is said of one does not depend on the others. Chunks are heard
    /// together up to so many samples.
    pub(super) fn log_probs(&self, chunks: &[&[f32]], batch_samples: usize) -> anyhow::Result<Vec<Vec<f32>>> {
        let least = self.frame_samples();
        let prepared: Vec<Vec<f32>> =
            chunks.par_iter().map(|samples| self.hearing.prepare(samples, least)).collect::<anyhow::Result<_>>()?;
        let lengths: Vec<usize> = prepared.iter().map(|values| values.len() / self.num_features).collect();
        let batch_steps = batch_samples / self.hearing.samples(1).1;
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
        let lengths: Vec<usize> = rows.iter().map(|row| row.len() / self.num_features).collect();
        let num_steps = lengths.iter().copied().max().unwrap_or(0);
        let mut values = vec![0.0; rows.len() * num_steps * self.num_features];
        for (row, own) in values.chunks_exact_mut(num_steps * self.num_features).zip(rows) {
            row[..own.len()].copy_from_slice(own);
        }
        let frames: Vec<usize> = lengths.iter().map(|len| self.downsampling.num_frames(*len)).collect();
        let num_frames = self.downsampling.num_frames(num_steps);
        let sound = Sound::new(values, num_steps, self.num_features, lengths, num_frames, frames.clone());
        let input = Input::from_rows(rows.len(), 0, Vec::new(), &[]).expect("rows without tokens");
        let input = Input { sound: Some(Arc::new(sound)), ..input };
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
fn batches(lengths: &[usize], batch_samples: usize, must_be_equal: bool) -> Vec<Vec<usize>> {
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

    #[test]
    fn the_published_file_says_how_sound_is_prepared() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let read = |text: &str| {
            std::fs::write(dir.path().join(PREPROCESSOR), text).expect("writable");
            Preprocessor::read(dir.path()).map_err(|error| error.to_string())
        };
        let of =
            |sampling_rate, do_normalize| Preprocessor { sampling_rate, do_normalize, num_mel_bins: 80, stride: 2 };
        let published = r#"{"do_normalize": false, "feature_size": 1, "padding_value": 0.0, "sampling_rate": 8000}"#;
        assert_eq!(read(published), Ok(of(8000, false)));
        assert_eq!(read("{}"), Ok(of(16_000, true)));
        assert!(read("{").expect_err("broken").contains("cannot be used"));
        assert!(read(r#"{"sampling_rate": 0}"#).expect_err("no rate").contains("`sampling_rate` of 0"));
    }

    #[test]
    fn without_the_file_the_published_defaults_are_taken() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let own = Preprocessor::read(dir.path()).expect("defaults");
        assert_eq!((own.sampling_rate, own.do_normalize), (16_000, true));
    }

    fn default_preprocessor() -> Preprocessor {
        serde_json::from_str("{}").expect("all keys have defaults")
    }

    #[test]
    fn frames_of_energies_are_stacked_and_have_the_length_that_is_said() {
        let hearing = Hearing::new(&default_preprocessor(), 160).expect("80 bins of 2 frames");
        assert_eq!((hearing.samples(1), hearing.samples(3)), ((560, 320), (1200, 320)));
        let samples: Vec<f32> = (0..1519).map(|i| (i as f32 * 0.05).sin() * 0.1).collect();
        assert_eq!(hearing.prepare(&samples, 560).expect("possible").len(), 3 * 160);
        assert_eq!(hearing.prepare(&samples[..100], 560).expect("possible").len(), 160);
        let values = hearing.prepare(&samples, 560).expect("possible");
        let mean = (0..6).map(|frame| values[frame * 80 + 7]).sum::<f32>() / 6.0;
        // The seventh frame is left over; it is at most 6 / sqrt(7) deviations from the mean of all.
        assert!(mean.abs() < 0.4, "{mean}");
        assert_eq!(Hearing::new(&default_preprocessor(), 161), None);
    }

    #[test]
    fn short_sounds_are_filled_up_after_their_mean_is_taken_away() {
        let hearing = Hearing::new(&default_preprocessor(), 1).expect("samples");
        let values = hearing.prepare(&[0.1, 0.3], 4).expect("possible");
        assert!((values[0] + values[1]).abs() < 1e-6 && values[1] > 0.99 && values[2..] == [0.0, 0.0], "{values:?}");
    }
}
