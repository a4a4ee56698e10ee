//! Rows of speech with a unit for each frame, and recordings one after the other.

use super::*;
use crate::config::DataConfig;
use crate::row::Row;
use crate::rows::Draw;
use crate::sound::Downsampling;
use crate::speech_corpus::{SpeechCorpus, SpeechOptions};
use crate::split::Split;
use crate::testing::{Bytes, document};
use crate::units::{About, UnitsWriter};

/// Samples from one frame of the network to the next.
const HOP: usize = 320;

/// Three recordings whose samples say in which frame they are, with numbers of frames as units: one every 10 ms.
fn recordings(folder: &Folder) -> DataConfig {
    let mut lines = String::new();
    let mut writer =
        UnitsWriter::open(&folder.path().join("units"), &About::new(1000, 0.01, 0.025, ().into())).expect("writable");
    for (name, num_samples) in [("a.wav", 16_000), ("b.wav", 24_000), ("c.wav", 4_000)] {
        let samples: Vec<i16> = (0..num_samples).map(|at| (at / HOP) as i16).collect();
        folder.write(name, wav(&samples));
        let seconds = num_samples as f64 / f64::from(RATE);
        lines += &format!("{{\"audio_filepath\": \"{name}\", \"duration\": {seconds}}}\n");
        let units: Vec<u32> = (0..(num_samples as u32 - 400) / 160 + 1).collect();
        writer.write("s", name, &units).expect("written");
    }
    writer.finish().expect("renamed");
    folder.write("list.jsonl", lines);
    let speech = SpeechConfig {
        source: [("s".to_owned(), SpeechSourceConfig::new(nemo(folder.at("list.jsonl"))))].into(),
        sample_rate_hz: RATE,
        normalise: false,
        hours_exponent: None,
        filter_banks: None,
        min_seconds: 0.0,
        max_seconds: None,
        decoded_cache_bytes: 0,
        augment: None,
        units: Some(folder.path().join("units")),
    };
    let single = DataConfig::single("", "", document());
    DataConfig { source: Default::default(), speech: Some(speech), held_out_fraction: 0.0, ..single }
}

fn options(max_frames: usize) -> SpeechOptions {
    let downsampling = Downsampling { layers: vec![(400, HOP)] };
    SpeechOptions { max_frames, downsampling, transcripts: false, equal_lengths: false, units: true }
}

fn opened(config: &DataConfig, max_frames: usize) -> Result<SpeechCorpus> {
    SpeechCorpus::open(config, Box::new(Bytes::default()), &options(max_frames), &Progress::none())
}

fn row(corpus: &SpeechCorpus, index: u64, k: u64) -> Row {
    let draw = Draw { source: 0, split: Split::Train, index, seed: 3, k, is_varied: true };
    corpus.rows().row(draw).expect("sound").expect("a row")
}

#[test]
fn each_frame_has_its_unit_also_where_a_row_is_cut() {
    let folder = Folder::new();
    let config = recordings(&folder);
    let corpus = opened(&config, 20).expect("sound");
    let mut starts = std::collections::BTreeSet::new();
    for k in 0..20 {
        let sound = row(&corpus, 1, k).sound.expect("a sound");
        assert_eq!((sound.num_frames, sound.units.len()), (20, 20));
        let start = (sound.values[0] * 32768.0) as i32;
        assert_eq!(sound.values[HOP - 1] * 32768.0, start as f32, "a row begins where a frame begins");
        let expected: Vec<i32> = (0..20).map(|frame| 2 * (start + frame)).collect();
        assert_eq!(sound.units, expected);
        starts.insert(start);
    }
    assert!(starts.len() > 5, "{starts:?}");
    let whole = row(&corpus, 2, 0).sound.expect("a sound");
    let expected: Vec<i32> = (0..12).map(|frame| 2 * frame).collect();
    assert_eq!((whole.num_frames, whole.units), (12, expected));
}

#[test]
fn units_are_part_of_the_fingerprint_and_are_compared_with_the_recordings() {
    let folder = Folder::new();
    let mut config = recordings(&folder);
    let path = folder.path().join("units").join(crate::units::LINES_FILE);
    let good = std::fs::read_to_string(&path).expect("readable");
    let before = opened(&config, 20).expect("sound").fingerprint().to_owned();
    std::fs::write(&path, good.replacen("[0,", "[7,", 1)).expect("writable");
    assert_ne!(opened(&config, 20).expect("sound").fingerprint(), before);
    let refused = |config: &DataConfig| opened(config, 20).err().expect("refused").to_string();
    std::fs::write(&path, good.lines().skip(1).collect::<Vec<_>>().join("\n")).expect("writable");
    let message = refused(&config);
    assert!(message.contains("list.jsonl:1` has no units:") && message.contains("make the units again"), "{message}");
    config.max_bad_items = 1;
    let left = opened(&config, 20).expect("one may be bad");
    assert_eq!(left.summary()[0].bad_items, [(BadReason::MissingUnits, 1)].into());
    assert_eq!(left.summary()[0].train_documents, 2);
    config.max_bad_items = 0;
    // Half a second is missing, more than lists may be wrong.
    let shorter = (50..98).fold(good.clone(), |text, unit| text.replacen(&format!(",{unit}"), "", 1));
    std::fs::write(&path, shorter).expect("writable");
    let message = refused(&config);
    assert!(message.contains("is 1.00 seconds long, which is about 98 units, but"), "{message}");
    assert!(message.contains("units.jsonl:1` has 50"), "{message}");
    std::fs::write(&path, &good).expect("writable");
    config.speech.as_mut().expect("speech").units = None;
    assert!(refused(&config).contains("data.speech.units"));
    let fast = SpeechOptions { downsampling: Downsampling { layers: vec![(80, 80)] }, ..options(20) };
    let misfit = SpeechCorpus::open(&recordings(&Folder::new()), Box::new(Bytes::default()), &fast, &Progress::none());
    assert!(misfit.err().expect("too fast").to_string().contains("every 5.0 ms"));
}

#[test]
fn recordings_come_in_the_order_of_their_lists_and_bad_ones_are_counted() {
    let folder = Folder::new();
    let mut config = recordings(&folder);
    config.speech.as_mut().expect("speech").min_seconds = 0.5;
    let mut all = Recordings::open(&config, &Progress::none()).expect("sound");
    let ids: Vec<(String, String)> = (0..all.len()).map(|at| (all.get(at).0.to_owned(), all.get(at).1.id)).collect();
    assert_eq!(ids, [("s", "a.wav"), ("s", "b.wav")].map(|(source, id)| (source.to_owned(), id.to_owned())));
    assert_eq!((all.seconds(1), all.split(1), all.is_empty()), (1.5, Split::Train, false));
    assert_eq!(all.samples(0).expect("sound")[640], 2.0 / 32768.0);
    let hash = all.content_hash();
    folder.write("a.wav", "no sound at all");
    let error = all.samples(0).expect_err("broken");
    assert!(all.skip(error).expect_err("none may be bad").to_string().contains("a.wav"));
    config.max_bad_items = 1;
    let mut all = Recordings::open(&config, &Progress::none()).expect("sound");
    let error = all.samples(0).expect_err("broken");
    all.skip(error).expect("one may be bad");
    assert_eq!(all.num_bad(), 1);
    assert_ne!(all.content_hash(), hash, "the size of a file has changed");
}
