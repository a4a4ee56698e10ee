//! Logarithms of mel energies as Whisper and SpeechT5 take them, at 16 kHz.
//!
//! # What it computes
//! Hann-windowed frames centred on every hop, mirrored at the ends; Slaney's filters; `log10`.
//! Whisper: powers, 25 ms frames every 10 ms, 80 or 128 filters over 0 to 8 kHz, the last frame left out, values at most
//! 8 below the largest, then `(x + 4) / 4`. SpeechT5: magnitudes, 64 ms every 16 ms, 80 filters over 80 to 7600 Hz.
//!
//! # Reference
//! Radford et al. 2022 (Whisper); Ao et al. 2022 (SpeechT5)

use crate::features::Features;
use crate::mel::MelBank;
use crate::stft::{centred, periodic_hann};
use crate::{Error, Result};

/// Rate that both take.
pub const SAMPLE_RATE_HZ: u32 = 16_000;
/// Mel energies below this count as this.
const FLOOR: f32 = 1e-10;

/// Features with the filters and the window of one model.
pub struct LogMel {
    window: Vec<f32>,
    hop: usize,
    is_power: bool,
    is_whisper: bool,
    bank: MelBank,
}

impl LogMel {
    /// Whisper's, with 80 or 128 filters. Its models expect the signal padded with zeros to 30 s first.
    pub fn whisper(num_mel_bins: usize) -> Result<Self> {
        if !matches!(num_mel_bins, 80 | 128) {
            let message = format!("is {num_mel_bins}; the published filter banks have 80 or 128");
            return Err(Error::Config { key: "num_mel_bins", message });
        }
        let bank = MelBank::slaney(num_mel_bins, 400, SAMPLE_RATE_HZ, 0.0, 8000.0);
        Ok(Self { window: periodic_hann(400), hop: 160, is_power: true, is_whisper: true, bank })
    }

    /// SpeechT5's target features.
    pub fn speecht5() -> Self {
        let bank = MelBank::slaney(80, 1024, SAMPLE_RATE_HZ, 80.0, 7600.0);
        Self { window: periodic_hann(1024), hop: 256, is_power: false, is_whisper: false, bank }
    }

    /// The features of an utterance, a row for each frame; no rows for no samples.
    pub fn compute(&self, samples: &[f32]) -> Features {
        let num_bins = self.bank.num_bins();
        let mut values = Vec::with_capacity((samples.len() / self.hop + 1) * num_bins);
        centred(samples, &self.window, self.hop, self.is_power, |_, spectrum| {
            values.extend(self.bank.apply(spectrum).map(|energy| energy.max(FLOOR).log10()));
        });
        if self.is_whisper {
            values.truncate(samples.len() / self.hop * num_bins);
            let floor = values.iter().copied().fold(f32::NEG_INFINITY, f32::max) - 8.0;
            values.iter_mut().for_each(|x| *x = (x.max(floor) + 4.0) / 4.0);
        }
        Features { values, num_bins }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::{Recorded, json, speech};

    #[test]
    fn whispers_filters_are_the_published_ones() {
        for num_bins in [80, 128] {
            let own = LogMel::whisper(num_bins).expect("published").bank;
            let wanted = &json()["whisper_filters"][num_bins.to_string()];
            for filter in 0..num_bins {
                let sum: f64 = own.filter(filter).map(|(_, w)| f64::from(w)).sum();
                let centre = own.filter(filter).map(|(bin, w)| bin as f64 * f64::from(w)).sum::<f64>() / sum;
                let number = |key: &str| wanted[key][filter].as_f64().expect("a number");
                assert!((sum - number("sums")).abs() < 1e-7, "filter {filter}: {sum}");
                assert!((centre - number("centres")).abs() < 1e-4, "filter {filter}: {centre}");
            }
        }
    }

    #[test]
    fn whisper_agrees_with_transformers() {
        let mut samples = speech();
        samples.resize(SAMPLE_RATE_HZ as usize, 0.0);
        for num_bins in [80, 128] {
            let own = LogMel::whisper(num_bins).expect("published").compute(&samples);
            Recorded::load("whisper", &num_bins.to_string()).assert_equal(&own, 1e-4);
        }
    }

    #[test]
    fn speecht5_agrees_with_transformers() {
        Recorded::load("speecht5", "").assert_equal(&LogMel::speecht5().compute(&speech()), 1e-3);
    }

    #[test]
    fn silence_and_tiny_signals_give_finite_numbers() {
        for num_samples in [0, 1, 2, 159, 160, 401] {
            let whisper = LogMel::whisper(80).expect("published").compute(&vec![0.0; num_samples]);
            assert_eq!(whisper.num_frames(), num_samples / 160);
            let speecht5 = LogMel::speecht5().compute(&vec![0.0; num_samples]);
            assert!(whisper.values.iter().chain(&speecht5.values).all(|x| x.is_finite()));
        }
        assert!(LogMel::whisper(81).is_err());
    }
}
