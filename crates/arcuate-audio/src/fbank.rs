//! Kaldi's filter-bank energies and cepstra (MFCC), without dither.
//!
//! # What it computes
//! Frames of `frame_length_ms` every `frame_shift_ms`: mean removed, pre-emphasis `x[i] - 0.97 x[i-1]`, window, power
//! spectrum, triangles on the mel axis, logarithm. MFCC: a cosine transform of the logarithms, liftered.
//! Numbers equal those of Kaldi for samples on its scale: multiply by 32768 where a model was trained so.
//!
//! # Reference
//! `compute-fbank-feats` and `compute-mfcc-feats` of Kaldi; `torchaudio.compliance.kaldi`
// Powers of float noise are cut here, as in the reference.

use serde::{Deserialize, Serialize};

use crate::features::Features;
use crate::mel::MelBank;
use crate::stft::Spectrum;
use crate::{Error, Result};

/// What weights the samples of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// `0.42 - 0.5 cos + 0.08 cos`.
    Blackman,
    /// `0.54 - 0.46 cos`.
    Hamming,
    /// `0.5 - 0.5 cos`.
    Hanning,
    /// Hanning to the power of 0.85.
    Povey,
    /// 1 everywhere.
    Rectangular,
}

impl Window {
    fn values(self, len: usize) -> Vec<f32> {
        let step = std::f64::consts::TAU / (len - 1) as f64;
        let value = |i: usize| {
            let cos = (step * i as f64).cos();
            match self {
                Self::Blackman => 0.42 - 0.5 * cos + 0.08 * (2.0 * step * i as f64).cos(),
                Self::Hamming => 0.54 - 0.46 * cos,
                Self::Hanning => 0.5 - 0.5 * cos,
                Self::Povey => (0.5 - 0.5 * cos).max(0.0).powf(0.85),
                Self::Rectangular => 1.0,
            }
        };
        (0..len).map(|i| value(i) as f32).collect()
    }
}

/// How filter-bank energies are made; the default is Kaldi's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FbankOptions {
    /// Rate of the samples.
    pub sample_rate_hz: u32,
    /// Length of a frame.
    pub frame_length_ms: f64,
    /// From the start of a frame to the start of the next one.
    pub frame_shift_ms: f64,
    /// Filters.
    pub num_mel_bins: usize,
    /// Where the first filter begins.
    pub low_freq_hz: f64,
    /// Where the last filter ends; 0 or less counts from half the sample rate.
    pub high_freq_hz: f64,
    /// Share of the sample before that is subtracted.
    pub preemphasis: f32,
    /// Subtracts the mean of the frame first.
    pub remove_dc_offset: bool,
    /// Window over the frame.
    pub window: Window,
    /// Pads frames with zeros to a power of two before the transform.
    pub round_to_power_of_two: bool,
    /// Only frames that lie inside; else one frame per shift, and the signal is mirrored at its ends.
    pub snip_edges: bool,
    /// Puts the logarithm of the frame's energy before the filters.
    pub use_energy: bool,
    /// Takes that energy before pre-emphasis and window.
    pub raw_energy: bool,
    /// The least energy; 0 for none.
    pub energy_floor: f64,
    /// Logarithms of the filters' outputs.
    pub use_log_fbank: bool,
    /// Powers, else magnitudes.
    pub use_power: bool,
    /// Subtracts the mean over the utterance.
    pub subtract_mean: bool,
}

impl Default for FbankOptions {
    fn default() -> Self {
        Self {
            sample_rate_hz: 16_000,
            frame_length_ms: 25.0,
            frame_shift_ms: 10.0,
            num_mel_bins: 23,
            low_freq_hz: 20.0,
            high_freq_hz: 0.0,
            preemphasis: 0.97,
            remove_dc_offset: true,
            window: Window::Povey,
            round_to_power_of_two: true,
            snip_edges: true,
            use_energy: false,
            raw_energy: true,
            energy_floor: 1.0,
            use_log_fbank: true,
            use_power: true,
            subtract_mean: false,
        }
    }
}

impl FbankOptions {
    /// Samples of a frame.
    pub fn frame_samples(&self) -> usize {
        self.samples(self.frame_length_ms)
    }

    /// Samples from the start of a frame to the start of the next one.
    pub fn shift_samples(&self) -> usize {
        self.samples(self.frame_shift_ms)
    }

    fn samples(&self, milliseconds: f64) -> usize {
        (f64::from(self.sample_rate_hz) * milliseconds * 0.001) as usize
    }

    /// Frames of a signal of that many samples.
    pub fn num_frames(&self, num_samples: usize) -> usize {
        let (frame_len, shift) = (self.frame_samples(), self.shift_samples().max(1));
        if self.snip_edges {
            if num_samples < frame_len { 0 } else { 1 + (num_samples - frame_len) / shift }
        } else {
            (num_samples + shift / 2) / shift
        }
    }
}

/// Filter-bank energies with fixed options; keeps filters, window and transform from one utterance to the next.
pub struct Fbank {
    options: FbankOptions,
    frame_len: usize,
    shift: usize,
    window: Vec<f32>,
    bank: MelBank,
    spectrum: Spectrum,
    frame: Vec<f32>,
}

/// Longest frame and largest bank that are taken for meant.
const MAX_FRAME_SAMPLES: usize = 1 << 20;
const MAX_MEL_BINS: usize = 1 << 12;

impl Fbank {
    /// Fails on options that give no frames or no filters.
    pub fn new(options: &FbankOptions) -> Result<Self> {
        let wrong = |key, message: String| Err(Error::Config { key, message });
        let rate = f64::from(options.sample_rate_hz);
        let (frame_len, shift) = (options.frame_samples(), options.shift_samples());
        if !(2..=MAX_FRAME_SAMPLES).contains(&frame_len) {
            return wrong(
                "frame_length_ms",
                format!("gives {frame_len} samples; must be from 2 to {MAX_FRAME_SAMPLES}"),
            );
        }
        if !(1..=MAX_FRAME_SAMPLES).contains(&shift) {
            return wrong("frame_shift_ms", format!("gives {shift} samples; must be from 1 to {MAX_FRAME_SAMPLES}"));
        }
        let fft_len = if options.round_to_power_of_two { frame_len.next_power_of_two() } else { frame_len };
        if fft_len % 2 == 1 {
            return wrong(
                "frame_length_ms",
                format!("gives {fft_len} samples; must be even, or rounded to a power of two"),
            );
        }
        if !(4..=MAX_MEL_BINS).contains(&options.num_mel_bins) {
            return wrong("num_mel_bins", format!("is {}; must be from 4 to {MAX_MEL_BINS}", options.num_mel_bins));
        }
        let nyquist = 0.5 * rate;
        let high = if options.high_freq_hz <= 0.0 { options.high_freq_hz + nyquist } else { options.high_freq_hz };
        let low = options.low_freq_hz;
        if !(low >= 0.0 && low < high && high <= nyquist) {
            return wrong(
                "high_freq_hz",
                format!("the filters reach from {low} to {high} Hz; must lie in 0 to {nyquist}"),
            );
        }
        if !(0.0..=1.0).contains(&options.preemphasis) {
            return wrong("preemphasis", format!("is {}; must be from 0 to 1", options.preemphasis));
        }
        Ok(Self {
            frame_len,
            shift,
            window: options.window.values(frame_len),
            bank: MelBank::kaldi(options.num_mel_bins, fft_len, options.sample_rate_hz, low, high),
            spectrum: Spectrum::new(fft_len),
            frame: vec![0.0; frame_len],
            options: options.clone(),
        })
    }

    /// Frames of a signal of that many samples.
    pub fn num_frames(&self, num_samples: usize) -> usize {
        self.options.num_frames(num_samples)
    }

    /// The features of an utterance; no rows where it is shorter than a frame.
    pub fn compute(&mut self, samples: &[f32]) -> Features {
        let options = &self.options;
        let num_bins = options.num_mel_bins + usize::from(options.use_energy);
        let num_frames = if samples.is_empty() { 0 } else { self.num_frames(samples.len()) };
        let mut values = Vec::with_capacity(num_frames * num_bins);
        for frame in 0..num_frames {
            cut(samples, frame, self.shift, options.snip_edges, &mut self.frame);
            if options.remove_dc_offset {
                let mean = self.frame.iter().map(|x| f64::from(*x)).sum::<f64>() / self.frame_len as f64;
                self.frame.iter_mut().for_each(|x| *x -= mean as f32);
            }
            let raw_energy = energy(&self.frame);
            for i in (1..self.frame_len).rev() {
                self.frame[i] -= options.preemphasis * self.frame[i - 1];
            }
            self.frame[0] -= options.preemphasis * self.frame[0];
            self.frame.iter_mut().zip(&self.window).for_each(|(x, w)| *x *= w);
            if options.use_energy {
                let energy = if options.raw_energy { raw_energy } else { energy(&self.frame) };
                values.push(energy.max(f64::from(f32::EPSILON)).ln().max(options.energy_floor.ln()) as f32);
            }
            let frame = &self.frame;
            let spectrum = self.spectrum.of(options.use_power, |out| out[..frame.len()].copy_from_slice(frame));
            if options.use_log_fbank {
                values.extend(self.bank.apply(spectrum).map(|power| power.max(f32::EPSILON).ln()));
            } else {
                values.extend(self.bank.apply(spectrum));
            }
        }
        let mut features = Features { values, num_bins };
        if options.subtract_mean {
            features.subtract_mean();
        }
        features
    }
}

fn energy(frame: &[f32]) -> f64 {
    frame.iter().map(|x| f64::from(*x) * f64::from(*x)).sum()
}

/// Copies a frame; where it may reach outside, the signal is mirrored so that the edge repeats.
fn cut(samples: &[f32], frame: usize, shift: usize, snip_edges: bool, out: &mut [f32]) {
    if snip_edges {
        out.copy_from_slice(&samples[frame * shift..][..out.len()]);
        return;
    }
    let start = (frame * shift) as isize - (out.len() / 2) as isize + (shift / 2) as isize;
    let len = samples.len() as isize;
    for (i, out) in out.iter_mut().enumerate() {
        let folded = (start + i as isize).rem_euclid(2 * len);
        *out = samples[folded.min(2 * len - 1 - folded) as usize];
    }
}

/// How cepstra are made from filter-bank energies; the default is Kaldi's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MfccOptions {
    /// The filters; their logarithms and powers are always taken. With `use_energy`, the energy replaces the first cepstrum.
    pub fbank: FbankOptions,
    /// Cepstra that are kept.
    pub num_ceps: usize,
    /// Lifter `1 + L/2 sin(pi i / L)`; 0 for none.
    pub cepstral_lifter: f64,
}

impl Default for MfccOptions {
    fn default() -> Self {
        Self { fbank: FbankOptions::default(), num_ceps: 13, cepstral_lifter: 22.0 }
    }
}

/// Cepstra with fixed options.
pub struct Mfcc {
    fbank: Fbank,
    options: MfccOptions,
    /// Row for each cepstrum over the filters.
    transform: Vec<f32>,
}

impl Mfcc {
    /// Fails on options that give no cepstra.
    pub fn new(options: &MfccOptions) -> Result<Self> {
        let num_bins = options.fbank.num_mel_bins;
        if options.num_ceps == 0 || options.num_ceps > num_bins {
            let message = format!("is {}; must be from 1 to `num_mel_bins`, {num_bins}", options.num_ceps);
            return Err(Error::Config { key: "num_ceps", message });
        }
        let inner =
            FbankOptions { use_log_fbank: true, use_power: true, subtract_mean: false, ..options.fbank.clone() };
        let fbank = Fbank::new(&inner)?;
        let scale = (2.0 / num_bins as f64).sqrt();
        let lifter = options.cepstral_lifter;
        let mut transform = Vec::with_capacity(options.num_ceps * num_bins);
        for k in 0..options.num_ceps {
            let lift =
                if lifter == 0.0 { 1.0 } else { 1.0 + 0.5 * lifter * (std::f64::consts::PI * k as f64 / lifter).sin() };
            let height = lift * if k == 0 { scale * 0.5f64.sqrt() } else { scale };
            transform.extend((0..num_bins).map(|n| {
                let angle = std::f64::consts::PI / num_bins as f64 * (n as f64 + 0.5) * k as f64;
                (height * angle.cos()) as f32
            }));
        }
        Ok(Self { fbank, options: options.clone(), transform })
    }

    /// The cepstra of an utterance; no rows where it is shorter than a frame.
    pub fn compute(&mut self, samples: &[f32]) -> Features {
        let logs = self.fbank.compute(samples);
        let num_bins = self.options.fbank.num_mel_bins;
        let has_energy = self.options.fbank.use_energy;
        let mut values = Vec::with_capacity(logs.num_frames() * self.options.num_ceps);
        for frame in logs.frames() {
            let filters = &frame[usize::from(has_energy)..];
            let first = values.len();
            values.extend(self.transform.chunks_exact(num_bins).map(|row| dot(row, filters)));
            if has_energy {
                values[first] = frame[0];
            }
        }
        let mut features = Features { values, num_bins: self.options.num_ceps };
        if self.options.fbank.subtract_mean {
            features.subtract_mean();
        }
        features
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{Recorded, speech};

    fn scaled(samples: &[f32], scale: f32) -> Vec<f32> {
        samples.iter().map(|x| x * scale).collect()
    }

    fn check_fbank(case: &str, scale: f32, options: FbankOptions) {
        let mut fbank = Fbank::new(&options).expect("the options are possible");
        Recorded::load("fbank", case).assert_equal(&fbank.compute(&scaled(&speech(), scale)), 1e-3);
    }

    fn check_mfcc(case: &str, options: MfccOptions) {
        let mut mfcc = Mfcc::new(&options).expect("the options are possible");
        Recorded::load("mfcc", case).assert_equal(&mfcc.compute(&speech()), 1e-3);
    }

    #[test]
    fn fbank_agrees_with_torchaudio() {
        let own = FbankOptions::default();
        check_fbank("default", 1.0, own.clone());
        check_fbank("w2v_bert", 32768.0, FbankOptions { num_mel_bins: 80, ..own.clone() });
        check_fbank("80_bins_no_log", 1.0, FbankOptions { num_mel_bins: 80, use_log_fbank: false, ..own.clone() });
        check_fbank("reflected_edges", 1.0, FbankOptions { snip_edges: false, num_mel_bins: 40, ..own });
    }

    #[test]
    fn windows_and_ranges_agree_with_torchaudio() {
        let own = FbankOptions::default();
        let hamming = FbankOptions { window: Window::Hamming, num_mel_bins: 40, low_freq_hz: 100.0, ..own.clone() };
        check_fbank("hamming", 1.0, FbankOptions { high_freq_hz: -400.0, ..hamming });
        let hanning =
            FbankOptions { window: Window::Hanning, preemphasis: 0.0, remove_dc_offset: false, ..own.clone() };
        check_fbank("hanning", 1.0, hanning);
        check_fbank("blackman", 1.0, FbankOptions { window: Window::Blackman, use_power: false, ..own.clone() });
        let plain = FbankOptions { window: Window::Rectangular, round_to_power_of_two: false, ..own };
        check_fbank("rectangular_400", 1.0, FbankOptions { frame_shift_ms: 12.5, ..plain });
    }

    #[test]
    fn energies_agree_with_torchaudio() {
        let own = FbankOptions { use_energy: true, ..FbankOptions::default() };
        check_fbank("energy", 32768.0, FbankOptions { energy_floor: 0.01, ..own.clone() });
        let windowed = FbankOptions { raw_energy: false, energy_floor: 0.0, subtract_mean: true, ..own };
        check_fbank("windowed_energy", 1.0, windowed);
    }

    #[test]
    fn mfcc_agrees_with_torchaudio() {
        let own = MfccOptions::default();
        check_mfcc("default", own.clone());
        let wide = FbankOptions { num_mel_bins: 40, ..FbankOptions::default() };
        check_mfcc("20_of_40", MfccOptions { fbank: wide, num_ceps: 20, cepstral_lifter: 0.0 });
        let energy = FbankOptions { use_energy: true, energy_floor: 0.0, snip_edges: false, ..FbankOptions::default() };
        check_mfcc("energy", MfccOptions { fbank: energy, ..own.clone() });
        let no_mean = FbankOptions { subtract_mean: true, high_freq_hz: 7600.0, ..FbankOptions::default() };
        check_mfcc("no_mean", MfccOptions { fbank: no_mean, ..own });
    }

    #[test]
    fn a_signal_shorter_than_a_frame_has_no_rows() {
        let mut fbank = Fbank::new(&FbankOptions::default()).expect("the options are possible");
        assert_eq!([0, 399, 400, 559, 560].map(|n| fbank.compute(&vec![0.1; n]).num_frames()), [0, 0, 1, 1, 2]);
        let padded = FbankOptions { snip_edges: false, ..FbankOptions::default() };
        let mut fbank = Fbank::new(&padded).expect("the options are possible");
        assert_eq!([0, 1, 79, 80, 240].map(|n| fbank.compute(&vec![0.1; n]).num_frames()), [0, 0, 0, 1, 2]);
    }

    #[test]
    fn impossible_options_are_named() {
        let own = FbankOptions::default();
        for (options, key) in [
            (FbankOptions { sample_rate_hz: 0, ..own.clone() }, "frame_length_ms"),
            (FbankOptions { frame_shift_ms: f64::NAN, ..own.clone() }, "frame_shift_ms"),
            (FbankOptions { num_mel_bins: 3, ..own.clone() }, "num_mel_bins"),
            (FbankOptions { high_freq_hz: 8001.0, ..own.clone() }, "high_freq_hz"),
            (FbankOptions { preemphasis: f32::NAN, ..own }, "preemphasis"),
        ] {
            let error = Fbank::new(&options).err().expect("impossible").to_string();
            assert!(error.starts_with(&format!("`{key}`")), "{error}");
        }
    }
}
