//! Signal-to-noise ratio of speech from the distribution of its amplitudes (WADA), without knowing the clean signal.
//!
//! # What it computes
//! With `z` the samples divided by their largest magnitude: `v = ln(mean |z|) - mean(ln |z|)`. Speech whose magnitudes
//! follow a gamma distribution of shape 0.4, in Gaussian noise, has a known `v` for every ratio; a table from -20 dB to
//! 100 dB is read backwards. The mean is removed first: an offset would make clean speech look noisy.
//!
//! # Reference
//! Kim and Stern 2008

/// The least and the largest ratio that can come out.
pub const RANGE_DB: (f64, f64) = (-20.0, 100.0);
/// Magnitudes below this, of a signal scaled to 1, count as this.
const FLOOR: f64 = 1e-10;

/// `v` at -20 dB, -19 dB and so on up to 100 dB, as published. Not quite increasing near -17 dB.
const TABLE: [f64; 121] = [
    0.40974774, 0.40986926, 0.40998566, 0.40969089, 0.40986186, 0.40999006, 0.41027138, 0.41052627, 0.41101024,
    0.41143264, 0.41231718, 0.41337272, 0.41526426, 0.4178192, 0.42077252, 0.42452799, 0.42918886, 0.43510373,
    0.44234195, 0.45161485, 0.46221153, 0.47491647, 0.48883809, 0.50509236, 0.52353709, 0.54372088, 0.56532427,
    0.58847532, 0.61346212, 0.63954496, 0.66750818, 0.69583724, 0.72454762, 0.75414799, 0.78323148, 0.81240985,
    0.84219775, 0.87166406, 0.90030504, 0.92880418, 0.95655449, 0.9835349, 1.01047155, 1.0362095, 1.06136425,
    1.08579312, 1.1094819, 1.13277995, 1.15472826, 1.17627308, 1.19703503, 1.21671694, 1.23535898, 1.25364313,
    1.27103891, 1.28718029, 1.30302865, 1.31839527, 1.33294817, 1.34700935, 1.3605727, 1.37345513, 1.38577122,
    1.39733504, 1.40856397, 1.41959619, 1.42983624, 1.43958467, 1.44902176, 1.45804831, 1.46669568, 1.47486938,
    1.48269965, 1.49034339, 1.49748214, 1.50435106, 1.51076426, 1.51698915, 1.5229097, 1.528578, 1.53389835, 1.5391211,
    1.5439065, 1.54858517, 1.55310776, 1.55744391, 1.56164927, 1.56566348, 1.56938671, 1.57307767, 1.57654764,
    1.57980083, 1.58304129, 1.58602496, 1.58880681, 1.59162477, 1.5941969, 1.59693155, 1.599446, 1.60185011,
    1.60408668, 1.60627134, 1.60826199, 1.61004547, 1.61192472, 1.61369656, 1.61534074, 1.61688905, 1.61838916,
    1.61985374, 1.62135878, 1.62268119, 1.62390423, 1.62513143, 1.62632463, 1.6274027, 1.62842767, 1.62945532,
    1.6303307, 1.63128026, 1.63204102,
];

/// The estimate in dB; `None` where there is nothing but silence.
pub fn snr_db(samples: &[f32]) -> Option<f64> {
    statistic(samples).map(from_statistic)
}

/// `v` of the samples.
fn statistic(samples: &[f32]) -> Option<f64> {
    let count = samples.len() as f64;
    let mean = samples.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
    let peak = samples.iter().map(|x| (f64::from(*x) - mean).abs()).fold(0.0, f64::max);
    if !(peak > 0.0 && peak.is_finite()) {
        return None;
    }
    let (mut sum, mut sum_of_logs) = (0.0, 0.0);
    for x in samples {
        let z = ((f64::from(*x) - mean).abs() / peak).max(FLOOR);
        sum += z;
        sum_of_logs += z.ln();
    }
    Some((sum / count).ln() - sum_of_logs / count)
}

/// The ratio at which the table has `v`, between its entries on a straight line.
fn from_statistic(v: f64) -> f64 {
    match TABLE.iter().rposition(|entry| *entry < v) {
        None => RANGE_DB.0,
        Some(last) if last == TABLE.len() - 1 => RANGE_DB.1,
        Some(i) => RANGE_DB.0 + i as f64 + (v - TABLE[i]) / (TABLE[i + 1] - TABLE[i]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_noise::Noise;

    #[test]
    fn published_points_of_the_table_come_back() {
        for (v, db) in
            [(0.81240985, 15.0), (0.797820665, 14.5), (0.46221153, 0.0), (1.19703503, 30.0), (0.3, -20.0), (1.7, 100.0)]
        {
            assert!((from_statistic(v) - db).abs() < 1e-6, "{v}: {}", from_statistic(v));
        }
        assert!((from_statistic(0.797820650) - 14.5).abs() < 1e-5);
    }

    #[test]
    fn white_noise_is_all_noise() {
        let mut noise = Noise::new(1);
        let samples: Vec<f32> = (0..200_000).map(|_| noise.normal() as f32).collect();
        let v = statistic(&samples).expect("not silent");
        assert!((v - 0.409390).abs() < 0.005, "{v}");
        assert!(from_statistic(v) < -5.0);
    }

    #[test]
    fn speech_of_the_model_in_noise_gets_its_ratio() {
        let mut noise = Noise::new(2);
        // Gamma of shape 0.4 with a random sign: the square's mean is 0.4 * 1.4.
        let speech: Vec<f64> = (0..200_000).map(|_| noise.gamma(0.4) * noise.sign()).collect();
        for db in [0.0, 10.0, 20.0] {
            let scale = (0.4f64 * 1.4 / 10f64.powf(db / 10.0)).sqrt();
            let samples: Vec<f32> = speech.iter().map(|s| (s + noise.normal() * scale) as f32).collect();
            let found = snr_db(&samples).expect("not silent");
            assert!((found - db).abs() < 0.7, "{db} dB: {found}");
        }
    }

    #[test]
    fn an_offset_changes_nothing_and_silence_has_no_ratio() {
        let mut noise = Noise::new(3);
        let samples: Vec<f32> = (0..50_000).map(|_| (noise.gamma(0.4) * noise.sign()) as f32).collect();
        let moved: Vec<f32> = samples.iter().map(|x| x + 0.5).collect();
        assert!((snr_db(&samples).expect("loud") - snr_db(&moved).expect("loud")).abs() < 1.0);
        assert_eq!(snr_db(&[0.0; 100]), None);
        assert_eq!(snr_db(&[]), None);
        assert_eq!(snr_db(&[f32::NAN]), None);
    }
}
