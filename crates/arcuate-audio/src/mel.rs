//! Filter banks on the two mel scales in use.
//!
//! # Reference
//! O'Shaughnessy 1987 as in HTK and Kaldi (1127 ln(1 + f/700)); Slaney 1998 (linear below 1 kHz), as in librosa

/// Triangular filters over the bins of a spectrum; only where they are not zero.
pub(crate) struct MelBank {
    /// First bin and weights of each filter.
    filters: Vec<(usize, Vec<f32>)>,
}

fn kaldi_mel(hz: f64) -> f64 {
    1127.0 * (1.0 + hz / 700.0).ln()
}

const SLANEY_LINEAR_HZ: f64 = 1000.0;
const SLANEY_HZ_PER_MEL: f64 = 200.0 / 3.0;

fn slaney_mel(hz: f64) -> f64 {
    let log_step = 6.4f64.ln() / 27.0;
    if hz < SLANEY_LINEAR_HZ {
        hz / SLANEY_HZ_PER_MEL
    } else {
        SLANEY_LINEAR_HZ / SLANEY_HZ_PER_MEL + (hz / SLANEY_LINEAR_HZ).ln() / log_step
    }
}

fn slaney_hz(mel: f64) -> f64 {
    let log_step = 6.4f64.ln() / 27.0;
    let first_log_mel = SLANEY_LINEAR_HZ / SLANEY_HZ_PER_MEL;
    if mel < first_log_mel {
        mel * SLANEY_HZ_PER_MEL
    } else {
        SLANEY_LINEAR_HZ * ((mel - first_log_mel) * log_step).exp()
    }
}

/// Points at equal distances on a scale, both ends included.
fn grid(low: f64, high: f64, num_points: usize) -> Vec<f64> {
    let step = (high - low) / (num_points - 1) as f64;
    (0..num_points).map(|i| low + step * i as f64).collect()
}

impl MelBank {
    /// Triangles on Kaldi's mel axis, of height 1, over a spectrum of `fft_len / 2 + 1` bins (the last one unused).
    pub(crate) fn kaldi(num_bins: usize, fft_len: usize, sample_rate_hz: u32, low_hz: f64, high_hz: f64) -> Self {
        let points = grid(kaldi_mel(low_hz), kaldi_mel(high_hz), num_bins + 2);
        let bin_hz = f64::from(sample_rate_hz) / fft_len as f64;
        let bins: Vec<f64> = (0..fft_len / 2).map(|bin| kaldi_mel(bin_hz * bin as f64)).collect();
        Self::triangles(&points, &bins, |_| 1.0)
    }

    /// Triangles on the frequency axis at points of Slaney's scale, each of area 1 per Hz of half its width.
    pub(crate) fn slaney(num_bins: usize, fft_len: usize, sample_rate_hz: u32, low_hz: f64, high_hz: f64) -> Self {
        let mels = grid(slaney_mel(low_hz), slaney_mel(high_hz), num_bins + 2);
        let points: Vec<f64> = mels.into_iter().map(slaney_hz).collect();
        let bin_hz = f64::from(sample_rate_hz) / fft_len as f64;
        let bins: Vec<f64> = (0..=fft_len / 2).map(|bin| bin_hz * bin as f64).collect();
        Self::triangles(&points, &bins, |filter| 2.0 / (points[filter + 2] - points[filter]))
    }

    fn triangles(points: &[f64], bins: &[f64], height: impl Fn(usize) -> f64) -> Self {
        let filter = |(i, points): (usize, &[f64])| {
            let weight = |at: &f64| {
                let up = (at - points[0]) / (points[1] - points[0]);
                let down = (points[2] - at) / (points[2] - points[1]);
                (up.min(down).max(0.0) * height(i)) as f32
            };
            let weights: Vec<f32> = bins.iter().map(weight).collect();
            let first = weights.iter().position(|w| *w > 0.0).unwrap_or(0);
            let end = weights.iter().rposition(|w| *w > 0.0).map_or(first, |last| last + 1);
            (first, weights[first..end].to_vec())
        };
        Self { filters: points.windows(3).enumerate().map(filter).collect() }
    }

    pub(crate) fn num_bins(&self) -> usize {
        self.filters.len()
    }

    /// The filters' outputs on one spectrum.
    pub(crate) fn apply<'a>(&'a self, spectrum: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        self.filters.iter().map(|(first, weights)| {
            let bins = &spectrum[*first..first + weights.len()];
            bins.iter().zip(weights).map(|(power, weight)| power * weight).sum()
        })
    }

    /// Bins and weights of a filter.
    #[cfg(test)]
    pub(crate) fn filter(&self, filter: usize) -> impl Iterator<Item = (usize, f32)> + '_ {
        let (first, weights) = &self.filters[filter];
        weights.iter().enumerate().map(move |(i, weight)| (first + i, *weight))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slaneys_scale_goes_there_and_back() {
        for hz in [0.0, 440.0, 999.0, 1000.0, 1001.0, 7600.0] {
            assert!((slaney_hz(slaney_mel(hz)) - hz).abs() < 1e-9, "{hz}");
        }
        assert!((slaney_mel(1000.0) - 15.0).abs() < 1e-12);
        assert!((slaney_mel(6400.0) - 42.0).abs() < 1e-12);
    }

    #[test]
    fn kaldis_filters_add_up_to_one_between_the_first_and_the_last_centre() {
        let bank = MelBank::kaldi(23, 512, 16_000, 20.0, 8000.0);
        let mut sums = [0f32; 257];
        for filter in 0..23 {
            bank.filter(filter).for_each(|(bin, weight)| sums[bin] += weight);
        }
        // The first centre lies near 100 Hz, the last one near 7,200 Hz; bins are 31.25 Hz wide.
        assert!(sums[4..225].iter().all(|sum| (sum - 1.0).abs() < 1e-5));
        assert_eq!(sums[256], 0.0);
    }
}
