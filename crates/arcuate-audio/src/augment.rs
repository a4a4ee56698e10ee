//! Changes of audio that keep its words: masks on features, speed, loudness, noise, room.
//!
//! Random numbers come from the caller, as a function that gives numbers in [0, 1).
//!
//! # Reference
//! Park et al. 2019 (SpecAugment); Ko et al. 2015 (speed), 2017 (reverberation)

use realfft::RealFftPlanner;
use serde::{Deserialize, Serialize};

use crate::features::Features;
use crate::resample::{resample, resampled_len};
use crate::{Error, Result};

/// Masks over time and frequency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpecAugment {
    /// Masks over all bins of some frames.
    pub num_time_masks: usize,
    /// The longest of them.
    pub max_time_frames: usize,
    /// And the most of the utterance that one of them may take.
    pub max_time_share: f64,
    /// Masks over some bins of all frames.
    pub num_frequency_masks: usize,
    /// The widest of them.
    pub max_frequency_bins: usize,
}

impl SpecAugment {
    /// Puts `fill` (the mean: 0 for normalised features) into the masks. Widths and places are uniform.
    pub fn apply(&self, features: &mut Features, fill: f32, uniform: &mut impl FnMut() -> f64) {
        let (num_frames, num_bins) = (features.num_frames(), features.num_bins);
        let max_frames = self.max_time_frames.min((num_frames as f64 * self.max_time_share) as usize);
        for _ in 0..self.num_time_masks {
            let (first, end) = span(num_frames, max_frames, uniform);
            features.values[first * num_bins..end * num_bins].fill(fill);
        }
        for _ in 0..self.num_frequency_masks {
            let (first, end) = span(num_bins, self.max_frequency_bins, uniform);
            for frame in features.values.chunks_exact_mut(num_bins.max(1)) {
                frame[first..end].fill(fill);
            }
        }
    }
}

/// First and end of a span of 0 to `max` places among `len`.
fn span(len: usize, max: usize, uniform: &mut impl FnMut() -> f64) -> (usize, usize) {
    let width = below(max.min(len) + 1, uniform());
    let first = below(len - width + 1, uniform());
    (first, first + width)
}

fn below(n: usize, uniform: f64) -> usize {
    ((uniform * n as f64) as usize).min(n.saturating_sub(1))
}

/// Rates whose ratio is that of a speed: hundredths are finer than anybody hears, and keep the ratio small.
fn rates(factor: f64) -> (u32, u32) {
    ((factor * 100.0).round() as u32, 100)
}

/// How many samples [`speed`] makes of so many.
pub fn speed_len(num_samples: usize, factor: f64) -> usize {
    let (from, to) = rates(factor);
    resampled_len(num_samples as u64, from, to) as usize
}

/// The signal played `factor` times as fast, pitch included; `1.1` makes it shorter. From 0.25 to 4.
pub fn speed(samples: &[f32], factor: f64) -> Result<Vec<f32>> {
    if !(0.25..=4.0).contains(&factor) {
        let message = format!("is {factor}; must be from 0.25 to 4");
        return Err(Error::Config { key: "speed", message });
    }
    let (from, to) = rates(factor);
    resample(samples, from, to)
}

/// Louder by so many dB (quieter when negative).
pub fn gain(samples: &mut [f32], db: f32) {
    let factor = 10f32.powf(db / 20.0);
    samples.iter_mut().for_each(|x| *x *= factor);
}

/// Adds noise so that the ratio of the signals' powers is `snr_db`. The noise begins at a random place and repeats.
///
/// Silence on one of the sides changes nothing, since it has no ratio.
pub fn mix_noise(samples: &mut [f32], noise: &[f32], snr_db: f64, uniform: &mut impl FnMut() -> f64) {
    let start = below(noise.len(), uniform());
    let added = || noise.iter().cycle().skip(start).take(samples.len());
    let noise_power = added().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    let factor = (power(samples) / (noise_power * 10f64.powf(snr_db / 10.0))).sqrt();
    if factor.is_finite() {
        let num_samples = samples.len();
        let added = noise.iter().cycle().skip(start).take(num_samples);
        samples.iter_mut().zip(added).for_each(|(x, noise)| *x += (f64::from(*noise) * factor) as f32);
    }
}

fn power(samples: &[f32]) -> f64 {
    samples.iter().map(|x| f64::from(*x).powi(2)).sum()
}

/// The signal in a room with that impulse response: as long, as loud, and in time with the direct sound.
pub fn reverberate(samples: &[f32], impulse_response: &[f32]) -> Result<Vec<f32>> {
    if power(impulse_response) == 0.0 || impulse_response.iter().any(|x| !x.is_finite()) {
        let message = format!("of {} samples is silent or not finite; take another recording", impulse_response.len());
        return Err(Error::Config { key: "impulse_response", message });
    }
    let loudest =
        |best: usize, i: usize| if impulse_response[i].abs() > impulse_response[best].abs() { i } else { best };
    let direct = (0..impulse_response.len()).fold(0, loudest);
    let mut out = convolve(samples, impulse_response);
    out.drain(..direct);
    out.truncate(samples.len());
    let factor = (power(samples) / power(&out)).sqrt();
    if factor.is_finite() {
        out.iter_mut().for_each(|x| *x = (f64::from(*x) * factor) as f32);
    }
    Ok(out)
}

/// The whole convolution, by blocks whose transforms are multiplied.
fn convolve(samples: &[f32], kernel: &[f32]) -> Vec<f32> {
    let fft_len = (2 * kernel.len()).next_power_of_two().max(1024);
    let block_len = fft_len - kernel.len() + 1;
    let mut planner = RealFftPlanner::<f32>::new();
    let (forward, back) = (planner.plan_fft_forward(fft_len), planner.plan_fft_inverse(fft_len));
    let mut frame = forward.make_input_vec();
    frame[..kernel.len()].copy_from_slice(kernel);
    let mut kernel_spectrum = forward.make_output_vec();
    forward.process(&mut frame, &mut kernel_spectrum).expect("the buffers come from the plan");
    let mut spectrum = forward.make_output_vec();
    let mut out = vec![0.0; samples.len() + kernel.len() - 1];
    for (index, block) in samples.chunks(block_len).enumerate() {
        frame.fill(0.0);
        frame[..block.len()].copy_from_slice(block);
        forward.process(&mut frame, &mut spectrum).expect("the buffers come from the plan");
        for (x, k) in spectrum.iter_mut().zip(&kernel_spectrum) {
            *x = *x * k / fft_len as f32;
        }
        back.process(&mut spectrum, &mut frame).expect("a product of transforms of real signals");
        let out = &mut out[index * block_len..];
        out.iter_mut().zip(&frame).for_each(|(out, x)| *out += x);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_noise::Noise;

    fn hiss(num_samples: usize, seed: u64) -> Vec<f32> {
        let mut noise = Noise::new(seed);
        (0..num_samples).map(|_| 0.1 * noise.normal() as f32).collect()
    }

    #[test]
    fn masks_are_as_wide_as_allowed_and_the_rest_stays() {
        let masks = SpecAugment {
            num_time_masks: 2,
            max_time_frames: 10,
            max_time_share: 0.2,
            num_frequency_masks: 1,
            max_frequency_bins: 3,
        };
        let mut noise = Noise::new(5);
        let mut num_masked = 0;
        for _ in 0..200 {
            let mut features = Features { values: vec![1.0; 40 * 8], num_bins: 8 };
            masks.apply(&mut features, 0.0, &mut || noise.uniform());
            let masked_frames = features.frames().filter(|frame| frame.iter().all(|x| *x == 0.0)).count();
            let masked_bins = (0..8).filter(|bin| features.frames().all(|frame| frame[*bin] == 0.0)).count();
            assert!(masked_frames <= 16 && masked_bins <= 3, "{masked_frames} frames, {masked_bins} bins");
            let kept = features.values.iter().filter(|x| **x == 1.0).count();
            assert_eq!(kept, (40 - masked_frames) * (8 - masked_bins));
            num_masked += masked_frames;
        }
        // Two masks of 0 to 8 frames (a fifth of 40), 4 on average, some of them on each other.
        assert!((1200..1600).contains(&num_masked), "{num_masked}");
        masks.apply(&mut Features { values: Vec::new(), num_bins: 8 }, 0.0, &mut || 0.999);
    }

    #[test]
    fn speed_changes_the_length_and_the_pitch() {
        let tone: Vec<f32> = (0..16_000).map(|i| (i as f32 * 0.1).sin()).collect();
        let fast = speed(&tone, 1.1).expect("a possible factor");
        assert_eq!((fast.len(), speed_len(16_000, 1.1)), (14_545, 14_545));
        for (i, x) in fast.iter().enumerate().take(13_000).skip(1000) {
            assert!((x - (i as f32 * 0.11).sin()).abs() < 2e-3, "sample {i}");
        }
        assert_eq!(speed(&tone, 1.0).expect("a possible factor"), tone);
        assert!(speed(&tone, 0.0).is_err() && speed(&tone, f64::NAN).is_err());
    }

    #[test]
    fn noise_is_mixed_at_the_ratio_asked_for() {
        let clean = hiss(8000, 6);
        for snr_db in [-5.0, 0.0, 15.0] {
            let mut mixed = clean.clone();
            mix_noise(&mut mixed, &hiss(3000, 7), snr_db, &mut || 0.3);
            let added: Vec<f32> = mixed.iter().zip(&clean).map(|(a, b)| a - b).collect();
            let found = 10.0 * (power(&clean) / power(&added)).log10();
            assert!((found - snr_db).abs() < 1e-3, "{found}");
        }
        let mut silent = vec![0.0; 10];
        mix_noise(&mut silent, &[], 5.0, &mut || 0.0);
        mix_noise(&mut silent, &[0.0], 5.0, &mut || 0.0);
        assert_eq!(silent, [0.0; 10]);
    }

    #[test]
    fn six_decibels_double_the_samples() {
        let mut samples = vec![0.25, -0.5];
        gain(&mut samples, 6.020_6);
        assert!((samples[0] - 0.5).abs() < 1e-6 && (samples[1] + 1.0).abs() < 1e-6);
    }

    #[test]
    fn convolution_agrees_with_plain_sums() {
        let (samples, kernel) = (hiss(2500, 8), hiss(700, 9));
        let found = convolve(&samples, &kernel);
        assert_eq!(found.len(), 3199);
        for n in [0, 1, 699, 1024, 1850, 2499, 3198] {
            let terms = (0..kernel.len()).filter(|k| *k <= n && n - k < samples.len());
            let wanted: f64 = terms.map(|k| f64::from(kernel[k]) * f64::from(samples[n - k])).sum();
            assert!((f64::from(found[n]) - wanted).abs() < 1e-5, "sample {n}");
        }
    }

    #[test]
    fn a_room_keeps_length_loudness_and_the_direct_sound_in_place() {
        let samples = hiss(3000, 10);
        let mut room = vec![0.0; 400];
        room[50] = 0.5;
        assert!(
            reverberate(&samples, &room)
                .expect("a room")
                .iter()
                .zip(&samples)
                .skip(60)
                .all(|(a, b)| (a - b).abs() < 1e-2)
        );
        room[300] = 0.3;
        let found = reverberate(&samples, &room).expect("a room");
        assert_eq!(found.len(), samples.len());
        assert!((power(&found) / power(&samples) - 1.0).abs() < 1e-4);
        assert!(reverberate(&samples, &[]).is_err() && reverberate(&samples, &[0.0; 3]).is_err());
        assert_eq!(reverberate(&[], &room).expect("a room"), Vec::<f32>::new());
    }
}
