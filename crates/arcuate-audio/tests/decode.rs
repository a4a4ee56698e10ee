//! Every file type comes out as the sound that went in, whole, as a segment, and through a pipe.

use std::fs;

use std::path::{Path, PathBuf};

use arcuate_audio::{DecodeOptions, Limits, Waveform, decode_file, probe_file};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn decode(name: &str, options: &DecodeOptions) -> Waveform {
    decode_file(&path(name), options).unwrap_or_else(|error| panic!("{error}"))
}

/// The sound of all fixtures, at 16 kHz.
fn original() -> Vec<f32> {
    let bytes = fs::read(path("speech_s16.wav")).expect("the fixture is there");
    bytes[44..].chunks_exact(2).map(|two| f32::from(i16::from_le_bytes([two[0], two[1]])) / 32768.0).collect()
}

fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn at_16_khz() -> DecodeOptions {
    DecodeOptions { sample_rate_hz: Some(16_000), ..DecodeOptions::default() }
}

/// File, codec, rate, channels, samples at that rate, correlation with the original at least.
const FILES: &[(&str, &str, u32, u16, usize, f64)] = &[
    ("speech_s16.wav", "pcm_s16le", 16_000, 1, 6400, 0.999_99),
    ("speech_u8.wav", "pcm_u8", 16_000, 1, 6400, 0.99),
    ("speech_s24.wav", "pcm_s24le", 16_000, 1, 6400, 0.999_99),
    ("speech_s32.wav", "pcm_s32le", 16_000, 1, 6400, 0.999_99),
    ("speech_f32.wav", "pcm_f32le", 16_000, 1, 6400, 0.999_99),
    ("speech_f64.wav", "pcm_f64le", 16_000, 1, 6400, 0.999_99),
    ("speech_mulaw.wav", "pcm_mulaw", 16_000, 1, 6400, 0.999),
    ("speech_alaw.wav", "pcm_alaw", 16_000, 1, 6400, 0.999),
    ("speech_s16.aiff", "pcm_s16be", 16_000, 1, 6400, 0.999_99),
    ("speech_extensible_stereo.wav", "pcm_s24le", 44_100, 2, 17_640, 0.99),
    ("speech.flac", "flac", 16_000, 1, 6400, 0.999_99),
    ("speech_stereo.flac", "flac", 44_100, 2, 17_640, 0.99),
    ("speech.mp3", "mp3", 16_000, 1, 6400, 0.98),
    ("speech_vorbis.ogg", "vorbis", 16_000, 1, 6400, 0.95),
    ("speech_opus.opus", "opus", 48_000, 1, 19_200, 0.9),
    ("speech_opus_stereo.opus", "opus", 48_000, 2, 19_200, 0.95),
    ("speech_opus_60ms.opus", "opus", 48_000, 1, 19_200, 0.9),
    ("surround.opus", "opus", 48_000, 6, 19_200, 0.9),
];

#[test]
fn every_file_type_gives_the_sound_that_went_in() {
    let original = original();
    for (name, codec, rate, channels, num_samples, least) in FILES {
        let info = probe_file(&path(name), &Limits::default()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((info.codec.as_str(), info.sample_rate_hz, info.num_channels), (*codec, *rate, *channels), "{name}");
        let own = decode(name, &DecodeOptions::default());
        assert_eq!((own.samples.len(), own.sample_rate_hz), (*num_samples, *rate), "{name}");
        let resampled = decode(name, &at_16_khz());
        assert_eq!(resampled.samples.len(), 6400, "{name}");
        let found = correlation(&resampled.samples, &original);
        println!("{name} {found}");
        assert!(found > *least, "{name}: correlation {found}");
    }
}

#[test]
fn zz_print() {
    for name in ["speech.m4a", "speech_adts.aac", "speech.webm", "video_with_speech.mp4", "speech_stereo_no_tag.mp3"] {
        let info = probe_file(&path(name), &Limits::default());
        println!("{name} {info:?}");
        let wave = decode(name, &at_16_khz());
        let original = original();
        let best = (0..3000)
            .map(|lag| (correlation(&wave.samples[lag.min(wave.samples.len())..], &original), lag))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        println!("{} {best:?}", wave.samples.len());
    }
    for name in ["video_only.mp4", "video_only.webm", "speech_s16.au"] {
        println!("{}", decode_file(&path(name), &DecodeOptions::default()).unwrap_err());
    }
}
