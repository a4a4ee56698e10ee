//! Resampling to another rate, of a whole signal or in blocks, with exact length and without delay.
//!
//! # What it computes
//! Blocks are transformed, cut off below the lower of the two Nyquist frequencies by a windowed sinc, and transformed
//! back at the other length. `n` samples become `round(n * to / from)`; sample 0 stays at time 0.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

use crate::{Error, Result};

/// Length of the filter at the lower rate: the pass band ends at about 0.973 of its Nyquist frequency.
const MIN_FILTER_SAMPLES: usize = 512;
/// Rates with a block larger than this have no small ratio; nothing that records sound has one.
const MAX_BLOCK_SAMPLES: usize = 1 << 20;

/// Resamples a signal that comes in blocks of any length.
pub struct Resampler {
    /// `None` where the rates are equal.
    inner: Option<Fft<f32>>,
    from_hz: u32,
    to_hz: u32,
    /// Input that does not fill a block yet.
    pending: Vec<f32>,
    block: Vec<f32>,
    /// Output samples of the filter's delay that are still to be dropped.
    left_to_drop: usize,
    num_in: u64,
    num_out: u64,
}

impl Resampler {
    /// A resampler from one rate to the other, both in Hz.
    pub fn new(from_hz: u32, to_hz: u32) -> Result<Self> {
        let impossible = |message: String| Error::Config { key: "sample_rate_hz", message };
        if from_hz == 0 || to_hz == 0 {
            return Err(impossible(format!("cannot resample from {from_hz} to {to_hz} Hz; both must be at least 1")));
        }
        let mut own = Self {
            inner: None,
            from_hz,
            to_hz,
            pending: Vec::new(),
            block: Vec::new(),
            left_to_drop: 0,
            num_in: 0,
            num_out: 0,
        };
        if from_hz == to_hz {
            return Ok(own);
        }
        let divisor = gcd(from_hz, to_hz);
        let (unit_in, unit_out) = ((from_hz / divisor) as usize, (to_hz / divisor) as usize);
        // An even number of units keeps the filter's centre on a sample on both sides.
        let units = MIN_FILTER_SAMPLES.div_ceil(unit_in.min(unit_out)).next_multiple_of(2);
        if units * unit_in.max(unit_out) > MAX_BLOCK_SAMPLES {
            return Err(impossible(format!(
                "{from_hz} to {to_hz} Hz has no ratio of small numbers; take a rate that divides better"
            )));
        }
        let window = WindowFunction::BlackmanHarris2;
        let inner = Fft::new_custom(from_hz as usize, to_hz as usize, units * unit_in, 1, 1, window, FixedSync::Both)
            .map_err(|error| impossible(error.to_string()))?;
        own.left_to_drop = inner.output_delay();
        own.block = vec![0.0; inner.output_frames_max()];
        own.inner = Some(inner);
        Ok(own)
    }

    /// Takes more of the signal and appends what can be said of the result.
    pub fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) {
        self.num_in += samples.len() as u64;
        let Some(inner) = &mut self.inner else {
            self.num_out += samples.len() as u64;
            out.extend_from_slice(samples);
            return;
        };
        self.pending.extend_from_slice(samples);
        let mut done = 0;
        let first_len = out.len();
        while self.pending.len() - done >= inner.input_frames_next() {
            let len = inner.input_frames_next();
            let input = InterleavedSlice::new(&self.pending[done..done + len], 1, len).expect("one channel");
            let room = self.block.len();
            let mut output = InterleavedSlice::new_mut(&mut self.block, 1, room).expect("one channel");
            let (_, num_written) =
                inner.process_into_buffer(&input, &mut output, None).expect("the buffers have the asked sizes");
            let num_dropped = self.left_to_drop.min(num_written);
            self.left_to_drop -= num_dropped;
            out.extend_from_slice(&self.block[num_dropped..num_written]);
            done += len;
        }
        self.pending.drain(..done);
        self.num_out += (out.len() - first_len) as u64;
    }

    /// Appends the rest, so that the whole result has the exact length.
    pub fn finish(mut self, out: &mut Vec<f32>) {
        let wanted = resampled_len(self.num_in, self.from_hz, self.to_hz);
        let first_len = out.len() as u64;
        let before = self.num_out;
        if let Some(inner) = &self.inner {
            let silence = vec![0.0; inner.input_frames_next()];
            while self.num_out < wanted {
                self.push(&silence, out);
            }
        }
        out.truncate((first_len + wanted.saturating_sub(before)) as usize);
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// How many samples `num_samples` become: rounded, halves up.
pub fn resampled_len(num_samples: u64, from_hz: u32, to_hz: u32) -> u64 {
    let (from, to) = (u128::from(from_hz.max(1)), u128::from(to_hz));
    ((u128::from(num_samples) * to * 2 + from) / (2 * from)) as u64
}

/// The whole signal at another rate.
pub fn resample(samples: &[f32], from_hz: u32, to_hz: u32) -> Result<Vec<f32>> {
    let mut resampler = Resampler::new(from_hz, to_hz)?;
    let mut out = Vec::with_capacity(resampled_len(samples.len() as u64, from_hz, to_hz) as usize + MIN_FILTER_SAMPLES);
    resampler.push(samples, &mut out);
    resampler.finish(&mut out);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(hz: f64, rate: u32, num_samples: usize) -> Vec<f32> {
        let step = std::f64::consts::TAU * hz / f64::from(rate);
        (0..num_samples).map(|i| (step * i as f64).sin() as f32).collect()
    }

    /// Power of the error in dB below the power of the wanted sine, away from the ends.
    fn error_db(found: &[f32], wanted: &[f32]) -> f64 {
        let inside = 2000..found.len() - 2000;
        let power = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
        let error = power(&mut inside.clone().map(|i| f64::from(found[i] - wanted[i])));
        10.0 * (error / power(&mut inside.map(|i| f64::from(wanted[i])))).log10()
    }

    const RATES: &[(u32, u32)] = &[
        (44_100, 16_000),
        (48_000, 16_000),
        (8000, 16_000),
        (22_050, 16_000),
        (11_025, 16_000),
        (16_000, 44_100),
        (96_000, 8000),
    ];

    #[test]
    fn sines_come_out_as_sines_in_time() {
        for (from, to) in RATES {
            for share in [0.05, 0.4, 0.9] {
                let hz = share * 0.5 * f64::from(*from.min(to));
                let found = resample(&sine(hz, *from, *from as usize), *from, *to).expect("usual rates");
                let error = error_db(&found, &sine(hz, *to, *to as usize));
                assert!(error < -80.0, "{from} to {to} Hz, {hz} Hz: {error} dB");
            }
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_gone() {
        for (from, to) in [(44_100, 16_000), (48_000, 16_000), (96_000, 8000)] {
            for share in [1.02, 1.5, 1.9] {
                let hz = share * 0.5 * f64::from(to);
                let found = resample(&sine(hz, from, from as usize), from, to).expect("usual rates");
                let inside = &found[2000..found.len() - 2000];
                let power = inside.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / inside.len() as f64;
                assert!(10.0 * (power / 0.5).log10() < -80.0, "{from} to {to} Hz, {hz} Hz: {power}");
            }
        }
    }

    #[test]
    fn length_is_exact_for_any_length_and_any_blocks() {
        for (from, to) in RATES.iter().copied().chain([(16_000, 16_000), (16_001, 16_000), (1000, 16_000)]) {
            for num_samples in [0, 1, 2, 441, 1023, 20_011] {
                let samples = sine(100.0, from, num_samples);
                let whole = resample(&samples, from, to).expect("usual rates");
                let wanted = (num_samples as f64 * f64::from(to) / f64::from(from)).round() as usize;
                assert_eq!(whole.len(), wanted, "{num_samples} samples, {from} to {to} Hz");
                let mut resampler = Resampler::new(from, to).expect("usual rates");
                let mut blocks = Vec::new();
                samples.chunks(333).for_each(|block| resampler.push(block, &mut blocks));
                resampler.finish(&mut blocks);
                assert_eq!(blocks, whole, "{num_samples} samples, {from} to {to} Hz");
            }
        }
    }

    #[test]
    fn impossible_rates_are_an_error() {
        assert!(Resampler::new(0, 16_000).is_err() && Resampler::new(16_000, 0).is_err());
        assert!(Resampler::new(u32::MAX, 16_000).is_err());
    }
}
