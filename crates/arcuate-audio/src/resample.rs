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
