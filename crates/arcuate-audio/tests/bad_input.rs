//! Bad input gets an error that names the file, what it is, and a remedy; it never panics, hangs or fills memory.

mod data;

use std::time::{Duration, Instant};

use arcuate_audio::{DecodeOptions, Error, Limits, Stream, decode_bytes, decode_file, probe_bytes};

use data::{bytes, path, wav};

fn error(file: Vec<u8>, options: &DecodeOptions) -> Error {
    decode_bytes(file, Some("wav"), options).map(|wave| wave.samples.len()).expect_err("bad input")
}

/// The message begins with the name and holds all of the words.
fn check(file: Vec<u8>, options: &DecodeOptions, words: &[&str]) {
    let message = error(file, options).to_string();
    assert!(message.contains("`bytes.wav`"), "{message}");
    for word in words {
        assert!(message.contains(word), "no {word:?} in: {message}");
    }
}

fn plain() -> DecodeOptions {
    DecodeOptions::default()
}

fn limited(limits: Limits) -> DecodeOptions {
    DecodeOptions { limits, ..plain() }
}

#[test]
fn what_is_no_audio_is_named() {
    check(Vec::new(), &plain(), &["an empty file", "get it again"]);
    check(b"id\tpath\tseconds\n".to_vec(), &plain(), &["text that begins with"]);
    check(b"\x89PNG\r\n\x1a\n____".to_vec(), &plain(), &["a PNG image"]);
    check(vec![0; 10_000], &plain(), &["zero bytes"]);
    check((0..5000).map(|i| ((i * i * 31) >> 3) as u8 | 1).collect(), &plain(), &["no known format", "it begins with"]);
}

#[test]
fn a_video_without_sound_is_named() {
    for name in ["video_only.mp4", "video_only.webm"] {
        check(bytes(name), &plain(), &["no audio track", "1 video tracks"]);
    }
}

#[test]
fn audio_without_a_decoder_is_named() {
    check(bytes("surround.opus"), &plain(), &["Opus of 6 channels in 4 streams", "ffmpeg"]);
    check(bytes("speech_s16.au"), &plain(), &["a Sun AU file", "ffmpeg"]);
    check(wav(0x55, 1, 16_000, 16, &[0; 64]), &plain(), &["cannot be decoded here"]);
}

#[test]
fn a_missing_file_and_a_folder_are_read_errors() {
    for path in [path("not_there.wav"), path("")] {
        let message = decode_file(&path, &plain()).expect_err("no file").to_string();
        assert!(message.starts_with(&format!("cannot read `{}`", path.display())), "{message}");
    }
}

#[test]
fn a_wrong_ending_does_not_matter() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("really_flac.mp3");
    std::fs::copy(path("speech.flac"), &file).expect("a copy");
    assert_eq!(decode_file(&file, &plain()).expect("the content decides").samples.len(), 6400);
}

#[test]
fn no_samples_are_an_error() {
    check(wav(1, 1, 16_000, 16, &[]), &plain(), &["0 samples"]);
}

#[test]
fn more_channels_or_a_higher_rate_than_the_limit_are_named() {
    let nine = wav(1, 9, 16_000, 16, &[0; 18 * 10]);
    check(nine, &plain(), &["9 channels", "limit of 8"]);
    let two = wav(1, 2, 16_000, 16, &[0; 40]);
    check(two, &limited(Limits { max_channels: 1, ..Limits::default() }), &["2 channels", "limit of 1"]);
    let fast = wav(1, 1, 500_000, 16, &[0; 40]);
    check(fast, &plain(), &["500000 Hz", "384000"]);
    assert_eq!(
        decode_bytes(wav(1, 8, 384_000, 16, &[0; 160]), None, &plain()).expect("at the limits").samples.len(),
        10
    );
    check(wav(1, 1, 0, 16, &[0; 40]), &plain(), &[]);
    check(wav(1, 0, 16_000, 16, &[0; 40]), &plain(), &[]);
}

#[test]
fn samples_that_are_no_numbers_are_placed() {
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let mut samples = vec![0.25f32; 1600];
        samples[800] = value;
        let data: Vec<u8> = samples.iter().flat_map(|x| x.to_le_bytes()).collect();
        check(wav(3, 1, 16_000, 32, &data), &plain(), &[name, "0.050 s"]);
    }
}

#[test]
fn a_cut_file_tells_how_much_was_readable() {
    let wave = bytes("speech_s16.wav");
    check(wave[..44 + 6400].to_vec(), &plain(), &["cut off", "0.200 s", "of 0.400 s"]);
    for name in ["speech.flac", "speech.mp3", "speech.m4a", "speech_opus.opus", "speech_vorbis.ogg", "speech_s24.wav"] {
        let whole = bytes(name);
        for share in [0.5, 0.8, 0.95] {
            let cut = whole[..(whole.len() as f64 * share) as usize].to_vec();
            let found = error(cut, &plain());
            let is_named =
                matches!(&found, Error::Truncated { .. } | Error::Broken { .. } | Error::NoAudioTrack { .. });
            assert!(is_named, "{name} {share}: {found}");
        }
    }
}

#[test]
fn what_is_readable_of_a_damaged_file_can_be_accepted() {
    let options = DecodeOptions { accept_damaged: true, ..plain() };
    let wave = bytes("speech_s16.wav");
    assert_eq!(decode_bytes(wave[..44 + 6400].to_vec(), None, &options).expect("half").samples.len(), 3200);
    let flac = bytes("speech.flac");
    let half = decode_bytes(flac[..flac.len() / 2].to_vec(), None, &options);
    assert!(half.is_ok_and(|wave| wave.samples.len() < 6400) || flac.len() < 20_000);
}

#[test]
fn too_long_is_said_before_anything_is_decoded() {
    // 30 hours of 16 kHz by the header; the data are not even there.
    let mut file = wav(1, 1, 16_000, 16, &[0; 64]);
    let num_bytes = 30u32 * 3600 * 32_000;
    file[40..44].copy_from_slice(&num_bytes.to_le_bytes());
    file[4..8].copy_from_slice(&(num_bytes + 36).to_le_bytes());
    let started = Instant::now();
    check(file.clone(), &plain(), &["108000.0 s", "limit of 21600.0 s"]);
    let segment = DecodeOptions { seconds: Some(0.001), ..plain() };
    assert_eq!(decode_bytes(file, None, &segment).expect("a short part of a long file").samples.len(), 16);
    assert!(started.elapsed() < Duration::from_secs(2));
    let short = limited(Limits { max_seconds: 0.1, ..Limits::default() });
    assert!(probe_bytes(bytes("speech_s16.wav"), None, &short.limits).is_err());
    check(bytes("speech_opus.opus"), &short, &["0.4 s", "limit of 0.1 s"]);
}

#[test]
fn a_wav_that_was_written_to_a_pipe_ends_where_its_bytes_end() {
    for length in [0x7fff_f000u32, 0xffff_ffff, 0xffff_ff00] {
        let mut file = wav(1, 1, 16_000, 16, &[0; 64]);
        file[40..44].copy_from_slice(&length.to_le_bytes());
        file[4..8].copy_from_slice(&length.saturating_add(36).to_le_bytes());
        let wave = decode_bytes(file, None, &plain()).unwrap_or_else(|error| panic!("{length:x}: {error}"));
        assert_eq!(wave.samples.len(), 32, "{length:x}");
    }
}

#[test]
fn a_decompression_bomb_is_stopped_while_it_is_decoded() {
    let limits = Limits { max_decoded_bytes: 10_000, ..Limits::default() };
    for name in ["speech.flac", "speech_opus.opus", "speech.mp3"] {
        check(bytes(name), &limited(limits.clone()), &["more than 10000 bytes"]);
    }
}

#[test]
fn segments_behind_the_end_and_impossible_options_are_named() {
    let at = |start_seconds, seconds| DecodeOptions { start_seconds, seconds, ..plain() };
    for name in ["speech_s16.wav", "speech.mp3", "speech_opus.opus"] {
        check(bytes(name), &at(1.0, None), &["0.400 s", "1.000 s"]);
    }
    for (options, key) in [
        (at(-1.0, None), "start_seconds"),
        (at(f64::NAN, None), "start_seconds"),
        (at(0.0, Some(0.0)), "`seconds`"),
        (DecodeOptions { sample_rate_hz: Some(0), ..plain() }, "sample_rate_hz"),
    ] {
        let message = error(bytes("speech_s16.wav"), &options).to_string();
        assert!(message.contains(key), "{message}");
    }
}

#[test]
fn a_stream_ends_after_its_first_error() {
    let wave = bytes("speech_s16.wav");
    let mut stream = Stream::open_bytes(wave[..5000].to_vec(), None, &plain()).expect("the header is whole");
    assert!(stream.next().is_some_and(|block| block.is_err()));
    assert!(stream.next().is_none());
}

/// Damaged copies of each file.
const ROUNDS: usize = 150;

/// SplitMix64, so that every run tries the same files.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % n.max(1) as u64) as usize
    }
}

/// One of a few kinds of damage.
fn damage(file: &mut Vec<u8>, random: &mut Random) {
    // Headers are where numbers lie.
    let reach = if random.below(2) == 0 { file.len().min(200) } else { file.len() };
    match random.below(5) {
        0 => file.truncate(random.below(file.len())),
        1 => {
            for _ in 0..=random.below(8) {
                let at = random.below(reach);
                file[at] = random.below(256) as u8;
            }
        }
        2 => {
            let at = random.below(reach);
            let end = (at + 1 + random.below(8)).min(file.len());
            file[at..end].fill(if random.below(2) == 0 { 0xff } else { 0 });
        }
        3 => {
            let (from, to) = (random.below(file.len()), random.below(file.len()));
            let part = file[from.min(to)..from.max(to)].to_vec();
            file.splice(from.min(to)..from.min(to), part);
        }
        _ => {
            let (from, to) = (random.below(file.len()), random.below(file.len()));
            file.drain(from.min(to)..from.max(to));
        }
    }
}

/// Makes the checksums of Ogg pages right again, so that the damage reaches the decoder.
fn repair_ogg(file: &mut [u8]) {
    let mut at = 0;
    while file.len() > at + 27 && file[at..].starts_with(b"OggS") {
        let body = at + 27 + usize::from(file[at + 26]);
        if body > file.len() {
            return;
        }
        let end = body + file[at + 27..body].iter().map(|n| usize::from(*n)).sum::<usize>();
        if end > file.len() {
            return;
        }
        file[at + 22..at + 26].fill(0);
        let mut sum = 0u32;
        for byte in &file[at..end] {
            sum ^= u32::from(*byte) << 24;
            for _ in 0..8 {
                sum = (sum << 1) ^ if sum >> 31 == 1 { 0x04c1_1db7 } else { 0 };
            }
        }
        file[at + 22..at + 26].copy_from_slice(&sum.to_le_bytes());
        at = end;
    }
}

#[test]
fn damaged_files_of_all_formats_never_panic_and_take_bounded_time() {
    let names = [
        "speech.flac",
        "speech.m4a",
        "speech.mp3",
        "speech.webm",
        "speech_adts.aac",
        "speech_alaw.wav",
        "speech_f64.wav",
        "speech_opus.opus",
        "speech_opus_60ms.opus",
        "speech_opus_stereo.opus",
        "speech_s16.aiff",
        "speech_s16.wav",
        "speech_stereo_no_tag.mp3",
        "speech_vorbis.ogg",
        "surround.opus",
        "video_only.mp4",
        "video_with_speech.mp4",
    ];
    let limits = Limits { max_seconds: 60.0, max_decoded_bytes: 64 << 20, ..Limits::default() };
    let mut random = Random(7);
    for name in names {
        let whole = bytes(name);
        let mut slowest = Duration::ZERO;
        for round in 0..ROUNDS {
            let mut file = whole.clone();
            for _ in 0..=random.below(2) {
                if !file.is_empty() {
                    damage(&mut file, &mut random);
                }
            }
            repair_ogg(&mut file);
            let accept_damaged = round % 2 == 0;
            let options = DecodeOptions { limits: limits.clone(), accept_damaged, ..plain() };
            let started = Instant::now();
            if let Ok(wave) = decode_bytes(file, None, &options) {
                assert!(!wave.samples.is_empty() && wave.samples.iter().all(|x| x.is_finite()), "{name} {round}");
            }
            slowest = slowest.max(started.elapsed());
        }
        assert!(slowest < Duration::from_secs(10), "{name}: {slowest:?}");
    }
}
