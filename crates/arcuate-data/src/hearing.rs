//! What a network hears of samples: the samples themselves, or filter banks. Training, evaluation and transcription prepare sound here.
//!
//! # What it computes
//! Samples as they are, or with mean 0 and variance 1. Filter banks: Kaldi's energies of samples counted in 16 bits, every band with mean
//! 0 and variance 1 over the utterance, and several frames of 10 ms side by side as one step; frames that fill no step are left out.
//! # Reference
//! `Wav2Vec2FeatureExtractor` and `SeamlessM4TFeatureExtractor` of transformers

use arcuate_audio::fbank::{Fbank, FbankOptions};
use arcuate_audio::normalise;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::speech::to_16_bits;

/// Samples of full scale as Kaldi counts them.
const FULL_SCALE: f32 = 32768.0;
/// More frames in a step than anybody means: a second.
const MAX_STRIDE: usize = 100;

/// The `[data.speech.filter_banks]` table: energies of frequency bands, for networks that do not hear samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilterBanks {
    /// Bands of a frame, on the mel scale. Wav2Vec2-BERT: 80.
    #[schemars(range(min = 4))]
    pub num_mel_bins: usize,
    /// Frames of 10 ms that are heard as one step. Wav2Vec2-BERT: 2.
    #[schemars(range(min = 1, max = 100))]
    pub stride: usize,
}

/// How sound is prepared for a network.
// S steps, F features of a step
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hearing {
    /// Samples a second.
    pub sample_rate_hz: u32,
    /// Whether each utterance is brought to mean 0 and variance 1; filter banks always are, band by band.
    pub normalise: bool,
    /// Filter banks in place of samples.
    pub filter_banks: Option<FilterBanks>,
}

impl Hearing {
    /// What of it is impossible, as the second half of a sentence.
    pub fn problem(&self) -> Option<String> {
        let banks = self.filter_banks?;
        if !(1..=MAX_STRIDE).contains(&banks.stride) {
            return Some(format!("has a `stride` of {}, not from 1 to {MAX_STRIDE}", banks.stride));
        }
        Fbank::new(&self.options(banks)).err().map(|error| format!("cannot be made: {error}"))
    }

    fn options(&self, banks: FilterBanks) -> FbankOptions {
        let FilterBanks { num_mel_bins, stride: _ } = banks;
        FbankOptions { sample_rate_hz: self.sample_rate_hz, num_mel_bins, ..FbankOptions::default() }
    }

    /// F: 1 for samples.
    pub fn num_features(&self) -> usize {
        self.filter_banks.map_or(1, |banks| banks.num_mel_bins.saturating_mul(banks.stride))
    }

    /// Steps of so many samples.
    pub fn num_steps(&self, num_samples: usize) -> usize {
        match self.filter_banks {
            None => num_samples,
            Some(banks) => self.options(banks).num_frames(num_samples) / banks.stride.max(1),
        }
    }

    /// The fewest samples of so many steps.
    pub fn num_samples(&self, num_steps: usize) -> usize {
        match self.filter_banks {
            Some(banks) if num_steps > 0 => {
                let options = self.options(banks);
                options.frame_samples() + (num_steps * banks.stride - 1) * options.shift_samples()
            }
            _ => num_steps,
        }
    }

    /// Samples from one step to the next.
    pub fn hop_samples(&self) -> usize {
        self.filter_banks.map_or(1, |banks| banks.stride * self.options(banks).shift_samples())
    }

    /// Steps `[S, F]` of samples, which are rounded to 16 bits; at least so many samples are taken, silent ones where there are fewer.
    ///
    /// # Errors
    /// Where there is a [`Self::problem`].
    pub fn prepare(&self, samples: &[f32], least: usize) -> arcuate_audio::Result<Vec<f32>> {
        let mut samples: Vec<f32> = samples.iter().map(|sample| to_16_bits(*sample)).collect();
        let num_samples = samples.len().max(least);
        let Some(banks) = self.filter_banks else {
            if self.normalise {
                normalise::waveform(&mut samples);
            }
            samples.resize(num_samples, 0.0);
            return Ok(samples);
        };
        samples.resize(num_samples, 0.0);
        samples.iter_mut().for_each(|x| *x *= FULL_SCALE);
        let mut features = Fbank::new(&self.options(banks))?.compute(&samples);
        normalise::utterance(&mut features);
        features.values.truncate(self.num_steps(num_samples) * self.num_features());
        Ok(features.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banks(num_mel_bins: usize, stride: usize) -> Hearing {
        let filter_banks = Some(FilterBanks { num_mel_bins, stride });
        Hearing { sample_rate_hz: 16_000, normalise: true, filter_banks }
    }

    fn waves(normalise: bool) -> Hearing {
        Hearing { sample_rate_hz: 16_000, normalise, filter_banks: None }
    }

    fn tone(num_samples: usize) -> Vec<f32> {
        (0..num_samples).map(|i| (i as f32 * 0.05).sin() * 0.1).collect()
    }

    #[test]
    fn frames_of_energies_are_stacked_and_have_the_length_that_is_said() {
        let hearing = banks(80, 2);
        assert_eq!((hearing.num_features(), hearing.hop_samples()), (160, 320));
        assert_eq!((hearing.num_samples(0), hearing.num_samples(1), hearing.num_samples(3)), (0, 560, 1200));
        for (num_samples, steps) in [(0, 0), (559, 0), (560, 1), (879, 1), (880, 2), (1199, 2), (1200, 3), (1519, 3)] {
            assert_eq!(hearing.num_steps(num_samples), steps, "{num_samples}");
            assert_eq!(hearing.prepare(&tone(num_samples), 0).expect("possible").len(), steps * 160, "{num_samples}");
        }
        assert_eq!(hearing.prepare(&tone(100), 560).expect("possible").len(), 160);
        let values = hearing.prepare(&tone(1519), 560).expect("possible");
        let mean = (0..6).map(|frame| values[frame * 80 + 7]).sum::<f32>() / 6.0;
        // The seventh frame is left over; it is at most 6 / sqrt(7) deviations from the mean of all.
        assert!(mean.abs() < 0.4, "{mean}");
    }

    #[test]
    fn loudness_does_not_change_filter_banks() {
        let hearing = banks(40, 1);
        // Noise, so that every band has energy that rounding to 16 bits does not change; powers of two are scaled exactly.
        let mut stream = arcuate_ops::rng::Stream::new(1, "noise", 0, 0);
        let quiet: Vec<f32> = (0..16_000).map(|_| (stream.below(8000) as f32 - 4000.0) / 32768.0).collect();
        let loud: Vec<f32> = quiet.iter().map(|x| x * 4.0).collect();
        let prepare = |samples: &[f32]| hearing.prepare(samples, 0).expect("possible");
        let (loud, quiet) = (prepare(&loud), prepare(&quiet));
        let largest = loud.iter().zip(&quiet).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(!loud.is_empty() && largest < 1e-3, "{largest}");
    }

    #[test]
    fn short_sounds_are_filled_up_after_their_mean_is_taken_away() {
        let values = waves(true).prepare(&[0.125, 0.375], 4).expect("possible");
        assert!((values[0] + values[1]).abs() < 1e-6 && values[1] > 0.99 && values[2..] == [0.0, 0.0], "{values:?}");
        assert_eq!(waves(false).prepare(&[0.125, 0.375], 0).expect("possible"), [0.125, 0.375]);
        assert_eq!((waves(true).num_steps(7), waves(true).num_samples(7), waves(true).hop_samples()), (7, 7, 1));
    }

    #[test]
    fn impossible_filter_banks_are_said() {
        assert_eq!((waves(true).problem(), banks(80, 2).problem()), (None, None));
        assert!(banks(80, 0).problem().is_some_and(|problem| problem.contains("a `stride` of 0")));
        assert!(banks(2, 2).problem().is_some_and(|problem| problem.contains("`num_mel_bins`: is 2")));
        assert!(banks(usize::MAX, 2).problem().is_some() && banks(80, usize::MAX).problem().is_some());
    }
}
