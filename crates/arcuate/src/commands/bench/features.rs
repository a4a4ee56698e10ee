//! Rows of what comes before and after a speech model: features of sound, resampling, beam search. `per_second` in seconds of
//! audio is how many times faster than real time one thread is.

use std::sync::Arc;

use arcuate_audio::fbank::{Fbank, FbankOptions, Mfcc, MfccOptions};
use arcuate_audio::log_mel::LogMel;
use arcuate_audio::resample::resample;
use arcuate_decode::ctc::prefix_beam::{Config, PrefixBeam};
use arcuate_decode::ctc::{Alphabet, Emissions, WordMarks};
use arcuate_ops::rng::Stream;

use super::measure::{How, Report, Sizes, refuse_giants, time};
use crate::exit::usage;

const RATE_HZ: u32 = 16_000;
/// Seconds of a frame of emissions.
const SECONDS_A_FRAME: f64 = 0.02;

/// Sizes that the library refuses.
fn wrong(error: arcuate_audio::Error) -> anyhow::Error {
    usage(error.to_string())
}

/// Noise of so many seconds.
fn noise(sizes: &Sizes, how: &How, rate_hz: u32) -> anyhow::Result<(f64, Vec<f32>)> {
    let seconds = sizes.get("seconds");
    let num = seconds as f64 * f64::from(rate_hz);
    refuse_giants(how.device, 4.0 * num)?;
    let mut stream = Stream::new(1, "bench", 0, 0);
    Ok((seconds as f64, (0..num as usize).map(|_| (0.1 * stream.normal()) as f32).collect()))
}

/// Times what makes features of noise.
fn features(sizes: &Sizes, how: &How, mut compute: impl FnMut(&[f32]) -> usize) -> anyhow::Result<Report> {
    let (seconds, samples) = noise(sizes, how, RATE_HZ)?;
    time(how, "seconds of audio", seconds, || {
        anyhow::ensure!(compute(&samples) > 0, "no frame was made");
        Ok(())
    })
}

/// Filter banks as Kaldi makes them.
fn kaldi(num_mel_bins: usize) -> FbankOptions {
    FbankOptions { num_mel_bins, ..FbankOptions::default() }
}

pub(super) fn fbank(sizes: &Sizes, how: &How) -> anyhow::Result<Report> {
    let mut fbank = Fbank::new(&kaldi(sizes.get("bins"))).map_err(wrong)?;
    features(sizes, how, |samples| fbank.compute(samples).values.len())
}

pub(super) fn mfcc(sizes: &Sizes, how: &How) -> anyhow::Result<Report> {
    let options = MfccOptions { fbank: kaldi(sizes.get("bins")), ..MfccOptions::default() };
    let mut mfcc = Mfcc::new(&options).map_err(wrong)?;
    features(sizes, how, |samples| mfcc.compute(samples).values.len())
}

pub(super) fn log_mel(sizes: &Sizes, how: &How) -> anyhow::Result<Report> {
    let log_mel = LogMel::whisper(sizes.get("bins")).map_err(wrong)?;
    features(sizes, how, |samples| log_mel.compute(samples).values.len())
}

pub(super) fn resampling(sizes: &Sizes, how: &How) -> anyhow::Result<Report> {
    let [from, to] = ["from_hz", "to_hz"].map(|key| u32::try_from(sizes.get(key)).unwrap_or(u32::MAX));
    let (seconds, samples) = noise(sizes, how, from)?;
    time(how, "seconds of audio", seconds, || {
        anyhow::ensure!(!resample(&samples, from, to).map_err(wrong)?.is_empty(), "no sample was made");
        Ok(())
    })
}

/// Emissions as an uncertain network makes them: a token is probable for a frame or two, and blanks lie between.
fn emissions(frames: usize, vocab: usize) -> Vec<f32> {
    let mut stream = Stream::new(2, "bench", 0, 0);
    let mut logits = Vec::with_capacity(frames * vocab);
    for frame in 0..frames {
        let spoken = if frame.is_multiple_of(3) { 1 + stream.below(vocab as u64 - 1) as usize } else { 0 };
        logits.extend((0..vocab).map(|token| (stream.normal() + if token == spoken { 4.0 } else { 0.0 }) as f32));
    }
    logits
}

pub(super) fn beam(sizes: &Sizes, how: &How) -> anyhow::Result<Report> {
    let [frames, vocab, width] = ["frames", "vocab", "beam"].map(|key| sizes.get(key));
    if !(3..=0x1000).contains(&vocab) || frames == 0 || width == 0 {
        return Err(usage(
            "`vocab` counts blank and boundary, so it is from 3 to 4096; `frames` and `beam` are 1 or more",
        ));
    }
    refuse_giants(how.device, 2.0 * (frames * vocab) as f64)?;
    let letter = |at: usize| char::from_u32(0x4E00 + at as u32).map_or_else(String::new, String::from);
    let marks = ["<pad>".to_owned(), "|".to_owned()];
    let tokens: Vec<String> = marks.into_iter().chain((2..vocab).map(letter)).collect();
    let alphabet = Arc::new(Alphabet::new(&tokens, "<pad>", &WordMarks::Boundary("|".to_owned()), &[])?);
    let config = Config { beam_width: width, ..Config::default() };
    let search = PrefixBeam::new(&config, alphabet, None)?;
    let logits = emissions(frames, vocab);
    let emissions = Emissions::from_logits(&logits, vocab)?;
    time(how, "seconds of audio", frames as f64 * SECONDS_A_FRAME, || {
        let found = search.decode(&emissions)?;
        anyhow::ensure!(!found.is_empty(), "no text was found");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_ops::{DeviceKind, Precision};

    fn measured(
        run: fn(&Sizes, &How) -> anyhow::Result<Report>,
        sizes: &[(&'static str, usize)],
    ) -> anyhow::Result<Report> {
        run(&Sizes::new(sizes, &[].into()), &How { steps: 1, precision: Precision::F32, device: DeviceKind::Cpu })
    }

    #[test]
    fn rows_are_measured_in_seconds_of_audio() {
        let rows = [
            measured(fbank, &[("seconds", 1), ("bins", 80)]),
            measured(mfcc, &[("seconds", 1), ("bins", 23)]),
            measured(log_mel, &[("seconds", 1), ("bins", 80)]),
            measured(resampling, &[("seconds", 1), ("from_hz", 8_000), ("to_hz", 16_000)]),
            measured(beam, &[("frames", 50), ("vocab", 5), ("beam", 3)]),
        ];
        for report in rows {
            let report = report.expect("possible sizes");
            assert!(report.unit == "seconds of audio" && report.per_second > 0.0);
        }
    }

    #[test]
    fn impossible_sizes_are_errors_of_the_arguments() {
        for (run, sizes) in [
            (fbank as fn(&Sizes, &How) -> anyhow::Result<Report>, [("seconds", 1), ("bins", 0), ("x", 0)]),
            (log_mel, [("seconds", 1), ("bins", 81), ("x", 0)]),
            (resampling, [("seconds", 1), ("from_hz", 8_000), ("to_hz", 0)]),
            (beam, [("frames", 1), ("vocab", 2), ("beam", 1)]),
        ] {
            let error = measured(run, &sizes).err().expect("impossible");
            assert_eq!(crate::exit::code(&error), 2, "{error:#}");
        }
    }
}
