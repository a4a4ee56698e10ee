//! The spectrum of one windowed frame; and frames centred on a grid, as librosa and PyTorch cut them.

use std::sync::Arc;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

/// The transform of frames of one length, without allocating for each frame.
pub(crate) struct Spectrum {
    fft: Arc<dyn RealToComplex<f32>>,
    frame: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    absolute: Vec<f32>,
}

impl Spectrum {
    /// For frames of `len` samples.
    pub(crate) fn new(len: usize) -> Self {
        let fft = RealFftPlanner::new().plan_fft_forward(len);
        let (frame, spectrum, scratch) = (fft.make_input_vec(), fft.make_output_vec(), fft.make_scratch_vec());
        let absolute = vec![0.0; spectrum.len()];
        Self { fft, frame, spectrum, scratch, absolute }
    }

    /// The `len / 2 + 1` powers (or magnitudes) of the frame that `fill` writes into zeros.
    pub(crate) fn of(&mut self, is_power: bool, fill: impl FnOnce(&mut [f32])) -> &[f32] {
        self.frame.fill(0.0);
        fill(&mut self.frame);
        self.fft
            .process_with_scratch(&mut self.frame, &mut self.spectrum, &mut self.scratch)
            .expect("the buffers come from the plan");
        for (absolute, value) in self.absolute.iter_mut().zip(&self.spectrum) {
            *absolute = if is_power { value.norm_sqr() } else { value.norm() };
        }
        &self.absolute
    }
}

/// A Hann window over `len` samples of a period of the same length.
pub(crate) fn periodic_hann(len: usize) -> Vec<f32> {
    let step = std::f64::consts::TAU / len as f64;
    (0..len).map(|i| (0.5 - 0.5 * (step * i as f64).cos()) as f32).collect()
}

/// The sample at an index that may lie outside, where the signal is mirrored at its first and last sample.
pub(crate) fn mirrored(samples: &[f32], index: isize) -> f32 {
    let last = samples.len() as isize - 1;
    if last == 0 {
        return samples[0];
    }
    let folded = index.rem_euclid(2 * last);
    samples[folded.min(2 * last - folded) as usize]
}

/// Powers or magnitudes of frames centred on every `hop`-th sample, `samples.len() / hop + 1` of them.
pub(crate) fn centred(
    samples: &[f32],
    window: &[f32],
    hop: usize,
    is_power: bool,
    mut take: impl FnMut(usize, &[f32]),
) {
    if samples.is_empty() {
        return;
    }
    let mut spectrum = Spectrum::new(window.len());
    let half = window.len() / 2;
    for frame in 0..=samples.len() / hop {
        let start = (frame * hop) as isize - half as isize;
        let inside = usize::try_from(start).ok().and_then(|start| samples.get(start..start + window.len()));
        let values = spectrum.of(is_power, |out| match inside {
            Some(samples) => out.iter_mut().zip(samples).zip(window).for_each(|((out, x), w)| *out = x * w),
            None => out
                .iter_mut()
                .zip(window)
                .enumerate()
                .for_each(|(i, (out, w))| *out = mirrored(samples, start + i as isize) * w),
        });
        take(frame, values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spectrum_agrees_with_plain_sums() {
        let frame: Vec<f32> = (0..12).map(|i| ((i * i) % 7) as f32 - 2.5).collect();
        let mut spectrum = Spectrum::new(12);
        let found = spectrum.of(true, |out| out.copy_from_slice(&frame)).to_vec();
        for (k, found) in found.iter().enumerate() {
            let (mut re, mut im) = (0.0, 0.0);
            for (n, x) in frame.iter().enumerate() {
                let angle = std::f64::consts::TAU * (k * n) as f64 / 12.0;
                re += f64::from(*x) * angle.cos();
                im -= f64::from(*x) * angle.sin();
            }
            assert!((f64::from(*found) - (re * re + im * im)).abs() < 1e-3, "bin {k}");
        }
    }

    #[test]
    fn mirror_does_not_repeat_the_edge() {
        let samples = [1.0, 2.0, 3.0];
        let found: Vec<f32> = (-3..7).map(|i| mirrored(&samples, i)).collect();
        assert_eq!(found, [2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0]);
        assert_eq!(mirrored(&[5.0], -9), 5.0);
    }
}
