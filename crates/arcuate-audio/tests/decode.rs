//! Every file type comes out as the sound that went in: whole, as a segment, through a pipe.

mod data;

use std::io::Cursor;

use arcuate_audio::{DecodeOptions, Limits, Stream, Waveform, decode_bytes, decode_file, probe_bytes, probe_file};

use data::{bytes, path};

fn decode(name: &str, options: &DecodeOptions) -> Waveform {
    decode_file(&path(name), options).unwrap_or_else(|error| panic!("{error}"))
}

/// The sound of all fixtures, at 16 kHz.
fn original() -> Vec<f32> {
    let samples = bytes("speech_s16.wav")[44..].to_vec();
    samples.chunks_exact(2).map(|two| f32::from(i16::from_le_bytes([two[0], two[1]])) / 32768.0).collect()
}

fn correlation(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn at_16_khz() -> DecodeOptions {
    DecodeOptions { sample_rate_hz: Some(16_000), ..DecodeOptions::default() }
}

/// File, codec, rate, channels, samples at that rate, correlation with the original at least.
const EXACT: &[(&str, &str, u32, u16, usize, f64)] = &[
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
    ("speech.mp3", "mp3", 44_100, 1, 17_640, 0.98),
    ("speech_vorbis.ogg", "vorbis", 16_000, 1, 6400, 0.95),
    ("speech_opus.opus", "opus", 48_000, 1, 19_200, 0.88),
    ("speech_opus_stereo.opus", "opus", 48_000, 2, 19_200, 0.95),
    ("speech_opus_60ms.opus", "opus", 48_000, 1, 19_200, 0.88),
    ("speech.m4a", "aac", 16_000, 1, 6400, 0.98),
    ("video_with_speech.mp4", "aac", 16_000, 1, 6400, 0.98),
];

/// Files whose format does not tell where the sound begins or ends: file, codec, rate, samples before the sound at 16 kHz.
const LOOSE: &[(&str, &str, u32, usize)] = &[
    ("speech_adts.aac", "aac", 16_000, 1024),
    ("speech.webm", "opus", 48_000, 0),
    ("speech_stereo_no_tag.mp3", "mp3", 24_000, 737),
];

#[test]
fn every_file_type_gives_the_sound_that_went_in() {
    let original = original();
    for (name, codec, rate, channels, num_samples, least) in EXACT {
        let info = probe_file(&path(name), &Limits::default()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((info.codec.as_str(), info.sample_rate_hz, info.num_channels), (*codec, *rate, *channels), "{name}");
        let own = decode(name, &DecodeOptions::default());
        assert_eq!((own.samples.len(), own.sample_rate_hz), (*num_samples, *rate), "{name}");
        let resampled = decode(name, &at_16_khz());
        assert_eq!(resampled.samples.len(), 6400, "{name}");
        let found = correlation(&resampled.samples, &original);
        assert!(found > *least, "{name}: correlation {found}");
    }
}

#[test]
fn formats_without_a_length_give_the_sound_among_filling() {
    for (name, codec, rate, lead) in LOOSE {
        let info = probe_file(&path(name), &Limits::default()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((info.codec.as_str(), info.sample_rate_hz, info.num_frames), (*codec, *rate, None), "{name}");
        let found = decode(name, &at_16_khz()).samples;
        let correlation = correlation(&found[*lead..], &original());
        assert!(correlation > 0.9 && found.len() < 9000, "{name}: {} samples, {correlation}", found.len());
    }
}

#[test]
fn headers_tell_the_length_that_comes_out() {
    for (name, _, _, _, num_samples, _) in EXACT {
        let info = probe_bytes(bytes(name), None, &Limits::default()).unwrap_or_else(|error| panic!("{error}"));
        if let Some(frames) = info.num_frames {
            assert_eq!(frames, *num_samples as u64, "{name}");
        }
        assert!(info.num_frames.is_some() || name.contains("opus"), "{name} has no length");
    }
}

#[test]
fn samples_of_lossless_files_are_exact() {
    let original = original();
    for name in ["speech_s16.wav", "speech.flac", "speech_s16.aiff"] {
        assert_eq!(decode(name, &DecodeOptions::default()).samples, original, "{name}");
    }
}

#[test]
fn bytes_files_and_pipes_give_the_same() {
    for name in EXACT.iter().map(|file| file.0).chain(LOOSE.iter().map(|file| file.0)) {
        let own = decode(name, &at_16_khz());
        let memory = decode_bytes(bytes(name), Some("bin"), &at_16_khz()).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(own, memory, "{name}");
        let pipe =
            Stream::open_read(Cursor::new(bytes(name)), name, &at_16_khz()).unwrap_or_else(|error| panic!("{error}"));
        let blocks: Vec<f32> = pipe.flat_map(|block| block.unwrap_or_else(|error| panic!("{name}: {error}"))).collect();
        assert_eq!(own.samples, blocks, "{name}");
    }
}

#[test]
fn a_segment_is_that_part_of_the_whole() {
    for (name, _, rate, ..) in EXACT {
        let whole = decode(name, &DecodeOptions::default()).samples;
        let options = DecodeOptions { start_seconds: 0.1, seconds: Some(0.15), ..DecodeOptions::default() };
        let part = decode(name, &options).samples;
        let start = (f64::from(*rate) * 0.1).round() as usize;
        let end = (f64::from(*rate) * 0.25).round() as usize;
        assert_eq!(part, whole[start..end], "{name}");
    }
}

/// A WAV file of a sweep, long enough that segments are jumped to.
fn long_wav(seconds: usize) -> Vec<u8> {
    let samples: Vec<i16> = (0..seconds * 16_000).map(|i| ((i as f64 * i as f64 * 1e-6).sin() * 1e4) as i16).collect();
    data::wav(1, 1, 16_000, 16, &samples.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
}

#[test]
fn a_far_segment_is_jumped_to_and_exact() {
    let file = long_wav(10);
    let whole = decode_bytes(file.clone(), None, &DecodeOptions::default()).expect("a plain file").samples;
    let options = DecodeOptions { start_seconds: 7.25, seconds: Some(1.0), ..DecodeOptions::default() };
    assert_eq!(decode_bytes(file.clone(), None, &options).expect("inside").samples, whole[116_000..132_000]);
    let rest = DecodeOptions { start_seconds: 9.5, ..DecodeOptions::default() };
    assert_eq!(decode_bytes(file, None, &rest).expect("inside").samples, whole[152_000..]);
}

#[test]
fn blocks_of_a_stream_are_bounded_and_add_up() {
    let stream = Stream::open_bytes(long_wav(20), None, &DecodeOptions::default()).expect("a plain file");
    assert_eq!((stream.info().num_frames, stream.sample_rate_hz()), (Some(320_000), 16_000));
    let lengths: Vec<usize> = stream.map(|block| block.expect("a plain file").len()).collect();
    assert_eq!(lengths.iter().sum::<usize>(), 320_000);
    assert!(lengths.len() > 10 && lengths.iter().all(|len| *len < 40_000), "{lengths:?}");
}

#[test]
fn seconds_are_samples_over_the_rate() {
    let wave = decode("speech_s16.wav", &DecodeOptions::default());
    assert_eq!(wave.seconds(), 0.4);
    assert_eq!(probe_file(&path("speech_s16.wav"), &Limits::default()).expect("a plain file").seconds(), Some(0.4));
}
