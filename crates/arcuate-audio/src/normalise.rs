//! Zero mean and unit variance: of a waveform, of features over an utterance, of features over a corpus.
//!
//! # What it computes
//! Waveform: `(x - mean) / sqrt(var + 1e-5)` with the variance divided by the number of samples, as models of the
//! wav2vec 2.0 family that ask for it were trained. Features: the same for every bin, with means and variances of the
//! utterance (its variance divided by `n - 1`, as Wav2Vec2-BERT asks) or of a corpus.

use serde::{Deserialize, Serialize};

use crate::features::Features;
use crate::{Error, Result};

/// Added to the variance of a waveform.
const WAVEFORM_EPSILON: f64 = 1e-5;
/// Added to the variance of a bin.
const BIN_EPSILON: f64 = 1e-7;
/// A corpus bin that varies less than this is constant.
const MIN_DEVIATION: f64 = 1e-10;

/// Shifts and scales a waveform to mean 0 and variance `var / (var + 1e-5)`.
pub fn waveform(samples: &mut [f32]) {
    let count = samples.len().max(1) as f64;
    let mean = samples.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let variance = samples.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
    let scale = 1.0 / (variance + WAVEFORM_EPSILON).sqrt();
    samples.iter_mut().for_each(|x| *x = ((f64::from(*x) - mean) * scale) as f32);
}

/// Shifts and scales every bin to mean 0 and variance 1 over the frames of the utterance.
pub fn utterance(features: &mut Features) {
    let mut statistics = BinStatistics::new(features.num_bins);
    statistics.add_all(features);
    let unbias = statistics.num_frames as f64 / (statistics.num_frames.max(2) - 1) as f64;
    let scales: Vec<f64> =
        statistics.variances().map(|variance| 1.0 / (variance * unbias + BIN_EPSILON).sqrt()).collect();
    apply(features, &statistics.means, &scales);
}

fn apply(features: &mut Features, means: &[f64], scales: &[f64]) {
    for frame in features.values.chunks_exact_mut(features.num_bins.max(1)) {
        for ((x, mean), scale) in frame.iter_mut().zip(means).zip(scales) {
            *x = ((f64::from(*x) - mean) * scale) as f32;
        }
    }
}

/// Mean and variance of every bin over all frames of a corpus, gathered one utterance after the other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BinStatistics {
    num_frames: u64,
    means: Vec<f64>,
    /// Sums of squared distances to the mean.
    squares: Vec<f64>,
}

impl BinStatistics {
    /// Nothing seen yet.
    pub fn new(num_bins: usize) -> Self {
        Self { num_frames: 0, means: vec![0.0; num_bins], squares: vec![0.0; num_bins] }
    }

    /// Frames seen.
    pub fn num_frames(&self) -> u64 {
        self.num_frames
    }

    /// Takes the frames of an utterance in. Fails on another number of bins.
    pub fn add(&mut self, features: &Features) -> Result<()> {
        self.check(features)?;
        self.add_all(features);
        Ok(())
    }

    fn add_all(&mut self, features: &Features) {
        for frame in features.frames() {
            self.num_frames += 1;
            for ((x, mean), squares) in frame.iter().zip(&mut self.means).zip(&mut self.squares) {
                let before = f64::from(*x) - *mean;
                *mean += before / self.num_frames as f64;
                *squares += before * (f64::from(*x) - *mean);
            }
        }
    }

    /// What several workers gathered, together. Fails on another number of bins.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        same_bins(self.means.len(), other.means.len())?;
        let num_frames = self.num_frames + other.num_frames;
        if other.num_frames == 0 {
            return Ok(());
        }
        let share = other.num_frames as f64 / num_frames as f64;
        for bin in 0..self.means.len() {
            let distance = other.means[bin] - self.means[bin];
            self.means[bin] += distance * share;
            self.squares[bin] += other.squares[bin] + distance * distance * self.num_frames as f64 * share;
        }
        self.num_frames = num_frames;
        Ok(())
    }

    /// Shifts and scales features to mean 0 and variance 1 over the corpus. Fails on another number of bins.
    pub fn normalise(&self, features: &mut Features) -> Result<()> {
        self.check(features)?;
        let scales: Vec<f64> = self.variances().map(|variance| 1.0 / variance.sqrt().max(MIN_DEVIATION)).collect();
        apply(features, &self.means, &scales);
        Ok(())
    }

    fn variances(&self) -> impl Iterator<Item = f64> + '_ {
        self.squares.iter().map(|squares| squares / self.num_frames.max(1) as f64)
    }

    fn check(&self, features: &Features) -> Result<()> {
        same_bins(self.means.len(), features.num_bins)
    }
}

fn same_bins(own: usize, other: usize) -> Result<()> {
    if own == other {
        return Ok(());
    }
    let message = format!("the statistics have {own} bins, the features {other}; gather them from the same features");
    Err(Error::Config { key: "num_bins", message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave() -> Vec<f32> {
        (0..1000).map(|i| ((i * 37) % 101) as f32 / 101.0 - 0.3).collect()
    }

    fn mean_and_variance(values: &[f32]) -> (f64, f64) {
        let count = values.len() as f64;
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        (mean, values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count)
    }

    #[test]
    fn waveform_gets_mean_zero_and_the_variance_of_the_formula() {
        let (_, variance) = mean_and_variance(&wave());
        let mut own = wave();
        waveform(&mut own);
        let (mean, found) = mean_and_variance(&own);
        assert!(mean.abs() < 1e-7);
        assert!((found - variance / (variance + 1e-5)).abs() < 1e-6);
    }

    #[test]
    fn scale_and_offset_of_a_waveform_do_not_matter() {
        let mut own = wave();
        waveform(&mut own);
        for change in [|x: f32| 3.0 * x, |x: f32| x + 0.2] {
            let mut other: Vec<f32> = wave().into_iter().map(change).collect();
            waveform(&mut other);
            assert!(own.iter().zip(&other).all(|(a, b)| (a - b).abs() < 1e-4));
        }
    }

    #[test]
    fn silence_and_nothing_stay_finite() {
        let mut silence = vec![0.25; 10];
        waveform(&mut silence);
        assert_eq!(silence, [0.0; 10]);
        waveform(&mut []);
        let mut one = Features { values: vec![3.0, 4.0], num_bins: 2 };
        utterance(&mut one);
        assert_eq!(one.values, [0.0, 0.0]);
    }

    fn features(from: usize, num_frames: usize) -> Features {
        let values =
            (from * 3..(from + num_frames) * 3).map(|i| ((i * i) % 17) as f32 + (i % 3) as f32 * 5.0).collect();
        Features { values, num_bins: 3 }
    }

    #[test]
    fn every_bin_of_an_utterance_gets_mean_zero_and_unbiased_variance_one() {
        let mut own = features(0, 20);
        utterance(&mut own);
        for bin in 0..3 {
            let column: Vec<f32> = own.frames().map(|frame| frame[bin]).collect();
            let (mean, variance) = mean_and_variance(&column);
            assert!(mean.abs() < 1e-6 && (variance * 20.0 / 19.0 - 1.0).abs() < 1e-5, "{mean} {variance}");
        }
    }

    #[test]
    fn statistics_of_parts_are_those_of_the_whole() {
        let mut whole = BinStatistics::new(3);
        whole.add(&features(0, 30)).expect("three bins");
        let mut parts = BinStatistics::new(3);
        parts.add(&features(0, 7)).expect("three bins");
        let mut rest = BinStatistics::new(3);
        rest.add(&features(7, 23)).expect("three bins");
        parts.merge(&rest).expect("three bins");
        assert_eq!(parts.num_frames(), 30);
        for (a, b) in parts.means.iter().chain(&parts.squares).zip(whole.means.iter().chain(&whole.squares)) {
            assert!((a - b).abs() < 1e-9);
        }
        let mut own = features(0, 30);
        whole.normalise(&mut own).expect("three bins");
        let column: Vec<f32> = own.frames().map(|frame| frame[1]).collect();
        let (mean, variance) = mean_and_variance(&column);
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5);
    }

    #[test]
    fn statistics_are_saved_and_read_back() {
        let mut own = BinStatistics::new(3);
        own.add(&features(0, 5)).expect("three bins");
        let text = serde_json::to_string(&own).expect("plain numbers");
        assert_eq!(serde_json::from_str::<BinStatistics>(&text).expect("as written"), own);
        assert!(own.add(&Features { values: vec![0.0; 4], num_bins: 2 }).is_err());
    }
}
