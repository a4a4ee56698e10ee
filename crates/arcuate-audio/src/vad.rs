//! Where somebody speaks: a decision for every frame of 30 ms, and the collector that makes segments of them.
//!
//! # What it computes
//! A frame is voiced when it is loud for this recording and a tone (a spectrum far from flat) is near it. Segments open
//! when ten frames in a row are voiced, with those ten, and close when ten in a row are not, with those ten; they are
//! padded, short ones dropped, long ones cut where they are quietest.
//!
//! # Reference
//! Collector: the two-state one of WebRTC's example, as Javed et al. 2022 (IndicWav2Vec) curate with

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::stft::{Spectrum, periodic_hann};
use crate::{Error, Result};

/// Length of a frame.
pub const FRAME_SECONDS: f64 = 0.03;
/// Frames that must agree to open or close a segment.
const WINDOW_FRAMES: usize = 10;
/// Frames quieter than this are silence, whatever the rest is; 0 dB is a full-scale square wave.
const SILENCE_DB: f64 = -60.0;
/// A frame is loud when it is so far above the quiet frames of the recording,
const ABOVE_FLOOR_DB: f64 = 9.0;
/// or so little below the loud ones.
const BELOW_PEAK_DB: f64 = 15.0;
/// Frames further below the loud ones are never loud.
const MAX_BELOW_PEAK_DB: f64 = 35.0;
/// Geometric over arithmetic mean of the powers: noise has about 0.56, voiced speech far less.
const MAX_FLATNESS: f64 = 0.25;
/// Where flatness is measured.
const VOICE_HZ: Range<f64> = 80.0..4000.0;
/// Stops and fricatives belong to the voice beside them, so many frames away.
const STOP_FRAMES: usize = 2;
const FRICATIVE_FRAMES: usize = 5;

/// How segments are cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentOptions {
    /// Added before and after; segments that then touch become one.
    pub padding_seconds: f64,
    /// Shorter ones are dropped.
    pub min_seconds: f64,
    /// Longer ones are cut.
    pub max_seconds: f64,
}

/// Samples of a frame.
fn frame_len(sample_rate_hz: u32) -> usize {
    ((f64::from(sample_rate_hz) * FRAME_SECONDS) as usize).max(1)
}

/// Whether each complete frame is voiced.
pub fn voiced_frames(samples: &[f32], sample_rate_hz: u32) -> Vec<bool> {
    let levels = levels_db(samples, sample_rate_hz);
    if levels.is_empty() {
        return Vec::new();
    }
    let mut sorted = levels.clone();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    let (floor, peak) = (at(0.1), at(0.95));
    let threshold = (floor + ABOVE_FLOOR_DB).min(peak - BELOW_PEAK_DB).max(peak - MAX_BELOW_PEAK_DB).max(SILENCE_DB);
    let is_loud: Vec<bool> = levels.iter().map(|level| *level > threshold).collect();
    let flatness = flatness(samples, sample_rate_hz, &is_loud);
    let is_tonal: Vec<bool> = flatness.iter().map(|value| *value < MAX_FLATNESS).collect();
    let is_near = |of: &[bool], frame: usize, reach: usize| {
        of[frame.saturating_sub(reach)..(frame + reach + 1).min(of.len())].contains(&true)
    };
    (0..levels.len())
        .map(|frame| is_near(&is_loud, frame, STOP_FRAMES) && is_near(&is_tonal, frame, FRICATIVE_FRAMES))
        .collect()
}

/// Level of every complete frame, around its mean.
fn levels_db(samples: &[f32], sample_rate_hz: u32) -> Vec<f64> {
    let level = |frame: &[f32]| {
        let count = frame.len() as f64;
        let mean = frame.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let power = frame.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / count;
        10.0 * power.max(1e-12).log10()
    };
    samples.chunks_exact(frame_len(sample_rate_hz)).map(level).collect()
}

/// Flatness of the frames that are wanted, 1 for the others.
fn flatness(samples: &[f32], sample_rate_hz: u32, is_wanted: &[bool]) -> Vec<f64> {
    let len = frame_len(sample_rate_hz);
    let window = periodic_hann(len);
    let bin = |hz: f64| (hz * len as f64 / f64::from(sample_rate_hz)) as usize;
    let bins = bin(VOICE_HZ.start).max(1)..bin(VOICE_HZ.end).min(len / 2);
    if bins.len() < 8 {
        // A rate so low that the spectrum says nothing.
        return is_wanted.iter().map(|wanted| if *wanted { 0.0 } else { 1.0 }).collect();
    }
    let mut spectrum = Spectrum::new(len);
    let mut of = |frame: &[f32]| {
        let powers = spectrum.of(true, |out| out.iter_mut().zip(frame).zip(&window).for_each(|((o, x), w)| *o = x * w));
        let powers = &powers[bins.clone()];
        let count = powers.len() as f64;
        let mean = powers.iter().map(|p| f64::from(*p)).sum::<f64>() / count;
        let mean_log = powers.iter().map(|p| f64::from(*p).max(1e-20).ln()).sum::<f64>() / count;
        mean_log.exp() / mean.max(1e-20)
    };
    samples.chunks_exact(len).zip(is_wanted).map(|(frame, wanted)| if *wanted { of(frame) } else { 1.0 }).collect()
}

/// Ranges of frames that the two-state collector takes for speech.
pub fn collect(voiced: &[bool]) -> Vec<Range<usize>> {
    let mut segments = Vec::new();
    let mut opened_at = None;
    // Frames since the state changed last, as many as the window holds.
    let mut window_start = 0;
    for (frame, _) in voiced.iter().enumerate() {
        let window = &voiced[window_start.max((frame + 1).saturating_sub(WINDOW_FRAMES))..=frame];
        let num_voiced = window.iter().filter(|voiced| **voiced).count();
        match opened_at {
            None if num_voiced * 10 > WINDOW_FRAMES * 9 => {
                opened_at = Some(frame + 1 - window.len());
                window_start = frame + 1;
            }
            Some(start) if (window.len() - num_voiced) * 10 > WINDOW_FRAMES * 9 => {
                segments.push(start..frame + 1);
                opened_at = None;
                window_start = frame + 1;
            }
            _ => {}
        }
    }
    segments.extend(opened_at.map(|start| start..voiced.len()));
    segments
}

/// Ranges of samples with speech, in order and apart.
pub fn segments(samples: &[f32], sample_rate_hz: u32, options: &SegmentOptions) -> Result<Vec<Range<usize>>> {
    let SegmentOptions { padding_seconds, min_seconds, max_seconds } = *options;
    let wrong = |key, message: String| Err(Error::Config { key, message });
    if !(0.0..=60.0).contains(&padding_seconds) {
        return wrong("padding_seconds", format!("is {padding_seconds}; must be from 0 to 60"));
    }
    if !(min_seconds >= 0.0 && max_seconds >= min_seconds.max(2.0 * FRAME_SECONDS)) {
        return wrong(
            "max_seconds",
            format!("is {max_seconds}; must be at least `min_seconds`, {min_seconds}, and 0.06"),
        );
    }
    if sample_rate_hz == 0 {
        return wrong("sample_rate_hz", "is 0; must be at least 1".to_owned());
    }
    let len = frame_len(sample_rate_hz);
    let rate = f64::from(sample_rate_hz);
    let padding = (padding_seconds * rate) as usize;
    let mut joined: Vec<Range<usize>> = Vec::new();
    for frames in collect(&voiced_frames(samples, sample_rate_hz)) {
        let own = (frames.start * len).saturating_sub(padding)..(frames.end * len + padding).min(samples.len());
        match joined.last_mut() {
            Some(last) if last.end >= own.start => last.end = own.end,
            _ => joined.push(own),
        }
    }
    let levels = levels_db(samples, sample_rate_hz);
    let max_len = ((max_seconds * rate) as usize).max(2 * len);
    let min_len = (min_seconds * rate) as usize;
    let pieces = joined.into_iter().flat_map(|segment| cut(segment, len, max_len, &levels));
    Ok(pieces.filter(|piece| piece.len() >= min_len).collect())
}

/// Pieces of at most `max_len` samples, cut at the quietest frame of the second half of each.
fn cut(mut segment: Range<usize>, len: usize, max_len: usize, levels: &[f64]) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    while segment.len() > max_len {
        let first = (segment.start + max_len / 2).div_ceil(len);
        let last = ((segment.start + max_len) / len).min(levels.len());
        let quietest = (first..last).min_by(|a, b| levels[*a].total_cmp(&levels[*b]));
        // The middle of that frame, where it exists.
        let at = quietest.map_or(segment.start + max_len, |frame| frame * len + len / 2);
        pieces.push(segment.start..at);
        segment.start = at;
    }
    pieces.push(segment);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_noise::Noise;

    fn runs(lengths: &[(bool, usize)]) -> Vec<bool> {
        lengths.iter().flat_map(|(voiced, count)| std::iter::repeat_n(*voiced, *count)).collect()
    }

    #[test]
    fn collector_opens_with_its_window_and_closes_with_it() {
        assert_eq!(collect(&runs(&[(false, 10), (true, 20), (false, 15)])), [10..40]);
        assert_eq!(collect(&runs(&[(true, 9)])), []);
        assert_eq!(collect(&runs(&[(false, 3), (true, 12)])), [3..15]);
        assert_eq!(collect(&runs(&[(true, 10), (false, 9), (true, 1), (false, 10), (true, 10)])), [0..30, 30..40]);
        assert_eq!(collect(&[]), []);
    }

    const RATE: u32 = 16_000;

    /// A buzz of 120 Hz with the loudness of speech, in noise.
    fn voice(seconds: f64, noise: &mut Noise) -> Vec<f32> {
        let tone = |t: f64| {
            (1..20).map(|k| (std::f64::consts::TAU * 120.0 * f64::from(k) * t).sin() / f64::from(k)).sum::<f64>()
        };
        (0..(seconds * f64::from(RATE)) as usize)
            .map(|i| (0.1 * tone(i as f64 / 16_000.0) + 0.001 * noise.normal()) as f32)
            .collect()
    }

    fn hiss(seconds: f64, level: f64, noise: &mut Noise) -> Vec<f32> {
        (0..(seconds * f64::from(RATE)) as usize).map(|_| (level * noise.normal()) as f32).collect()
    }

    fn options() -> SegmentOptions {
        SegmentOptions { padding_seconds: 0.0, min_seconds: 0.1, max_seconds: 20.0 }
    }

    #[test]
    fn a_voice_between_pauses_is_found() {
        let mut noise = Noise::new(1);
        let mut samples = hiss(2.0, 0.001, &mut noise);
        samples.extend(voice(1.0, &mut noise));
        samples.extend(hiss(2.0, 0.001, &mut noise));
        let found = segments(&samples, RATE, &options()).expect("possible options");
        let [segment] = found.as_slice() else { panic!("{found:?}") };
        let (start, end) = (segment.start as f64 / 16_000.0, segment.end as f64 / 16_000.0);
        assert!((1.8..=2.05).contains(&start) && (2.95..=3.5).contains(&end), "{start} to {end}");
    }

    #[test]
    fn noise_and_silence_are_no_speech() {
        let mut noise = Noise::new(2);
        for samples in [hiss(3.0, 0.1, &mut noise), vec![0.0; 48_000], Vec::new(), vec![0.1; 100]] {
            assert_eq!(segments(&samples, RATE, &options()).expect("possible options"), []);
        }
    }

    #[test]
    fn long_speech_is_cut_where_it_is_quiet_and_nothing_is_lost() {
        let mut noise = Noise::new(3);
        let mut samples = Vec::new();
        for _ in 0..10 {
            samples.extend(voice(0.7, &mut noise));
            samples.extend(hiss(0.1, 0.0005, &mut noise));
        }
        let short = SegmentOptions { max_seconds: 2.0, min_seconds: 0.0, ..options() };
        let found = segments(&samples, RATE, &short).expect("possible options");
        assert!(found.len() >= 4 && found.iter().all(|piece| piece.len() <= 32_000), "{found:?}");
        assert!(found.windows(2).all(|pair| pair[0].end == pair[1].start), "{found:?}");
        for piece in &found[..found.len() - 1] {
            let in_period = piece.end % (12_800);
            assert!(in_period > 10_700, "cut inside the voice: {in_period}");
        }
    }

    #[test]
    fn padding_joins_neighbours_and_stays_inside() {
        let mut noise = Noise::new(4);
        let mut samples = voice(1.0, &mut noise);
        samples.extend(hiss(1.0, 0.0005, &mut noise));
        samples.extend(voice(1.0, &mut noise));
        let apart = segments(&samples, RATE, &options()).expect("possible options");
        assert_eq!(apart.len(), 2);
        let padded = SegmentOptions { padding_seconds: 0.6, ..options() };
        assert_eq!(segments(&samples, RATE, &padded).expect("possible options"), [0..48_000]);
        let wrong = SegmentOptions { max_seconds: 0.01, ..options() };
        assert!(segments(&samples, RATE, &wrong).is_err());
    }
}
