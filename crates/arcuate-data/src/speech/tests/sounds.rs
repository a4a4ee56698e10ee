//! Sounds that are heard: refusals of loading, and the findings of a scan.

use std::collections::BTreeSet;

use super::scan::{SpeechFindingKind as Kind, SpeechScanOptions, SpeechScanReport, scan};
use super::*;

fn in_folder(folder: &Folder) -> SpeechFormat {
    SpeechFormat::Folder(folder::Config { path: folder.at("") })
}

fn load_refused(utterances: &Utterances, limits: &Limits) -> String {
    utterances.load(0, RATE, limits).expect_err("bad sound").to_string()
}

#[test]
fn a_sound_must_be_as_long_as_its_list_says() {
    let folder = Folder::new();
    folder.write("a.wav", wav(&sine(2.0)));
    folder.write("m.jsonl", "{\"audio_filepath\": \"a.wav\", \"duration\": 5}\n");
    let said = load_refused(&open(nemo(folder.at("m.jsonl"))), &Limits::default());
    assert!(said.contains("m.jsonl:1` is 2.00 seconds long, not 5.00 as its list says; correct the list"), "{said}");
    folder.write("m.jsonl", "{\"audio_filepath\": \"a.wav\", \"duration\": 2.2}\n");
    assert!(open(nemo(folder.at("m.jsonl"))).load(0, RATE, &Limits::default()).is_ok(), "rounded");
}

#[test]
fn sounds_above_the_limits_and_damaged_ones_are_bad_items() {
    let folder = Folder::new();
    folder.write("a.wav", wav(&sine(2.0)));
    let utterances = open(in_folder(&folder));
    let said = load_refused(&utterances, &Limits { max_seconds: 1.0, ..Limits::default() });
    assert!(said.contains("a.wav` has a sound that cannot be used") && said.contains("limit"), "{said}");
    folder.write("a.wav", float_wav(&[0.0, f32::NAN, 0.0]));
    assert!(load_refused(&utterances, &Limits::default()).contains("NaN"));
    std::fs::remove_file(folder.path().join("a.wav")).expect("it is there");
    let error = utterances.load(0, RATE, &Limits::default()).expect_err("gone");
    assert!(matches!(error, Error::BadItem(BadItem { reason: BadReason::MissingFile, .. })), "{error}");
}

#[test]
fn a_shard_that_was_cut_meanwhile_is_refused() {
    let folder = Folder::new();
    let bytes = tar(&[tar_member("a.wav", &wav(&sine(0.5)))]);
    folder.write("1.tar", &bytes);
    let config = webdataset::Config { path: folder.at("1.tar"), text_key: "text".to_owned() };
    let utterances = open(SpeechFormat::Webdataset(config));
    folder.write("1.tar", &bytes[..5000]);
    assert!(load_refused(&utterances, &Limits::default()).contains("1.tar` is truncated"));
}

/// Kinds with their counts.
fn kinds(report: &SpeechScanReport) -> Vec<(Kind, u64)> {
    report.findings.iter().map(|finding| (finding.kind, finding.count)).collect()
}

fn noise(seed: u64, seconds: f64) -> Vec<i16> {
    let mut state = seed;
    let num = (seconds * f64::from(RATE)) as usize;
    let next = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 52) as i16 - 2048
    };
    (0..num).map(|_| next(&mut state)).collect()
}

#[test]
fn good_sound_has_no_findings() {
    let folder = Folder::new();
    let mut lines = String::new();
    for (number, text) in [(1, "dobrý den"), (2, "ano"), (3, "ano")] {
        folder.write(&format!("{number}.wav"), wav(&noise(number, 1.0)));
        lines += &format!("{{\"audio_filepath\": \"{number}.wav\", \"text\": \"{text}\", \"lang\": \"cs\"}}\n");
    }
    folder.write("m.jsonl", lines);
    let options = SpeechScanOptions { min_characters_per_second: 1.0, ..SpeechScanOptions::default() };
    let report = scan(&open(nemo(folder.at("m.jsonl"))), &options, &Progress::none()).expect("not interrupted");
    assert_eq!(kinds(&report), []);
    assert_eq!((report.usable.utterances, report.usable.seconds, report.transcribed.utterances), (3, 3.0, 3));
    assert_eq!((report.duplicate_transcripts, report.num_bad_items), (1, 0));
    assert_eq!(report.by_language["cs"].seconds, 3.0);
    assert_eq!(report.by_speaker[""].utterances, 3);
    assert_eq!((report.by_sample_rate_hz[&RATE], report.by_channels[&1]), (3, 3));
    assert_eq!((report.characters[&'n'], report.characters[&'ý'], report.characters.len()), (3, 1, 9));
}

#[test]
fn every_kind_of_finding_is_counted_with_places() {
    let folder = Folder::new();
    let mut clipped = noise(8, 1.0);
    clipped[..200].fill(i16::MAX);
    for (name, sound) in [
        ("silent", wav(&[1; 16_000])),
        ("clipped", wav(&clipped)),
        ("short", wav(&noise(3, 0.05))),
        ("long", wav(&noise(4, 4.0))),
        ("empty", wav(&noise(5, 1.0))),
        ("few", wav(&noise(6, 1.0))),
        ("many", wav(&noise(7, 0.5))),
        ("odd", wav(&noise(9, 1.0))),
        ("twice", wav(&noise(9, 1.0))),
        ("nan", float_wav(&[f32::NAN; 1600])),
        ("cut", wav(&noise(10, 1.0))[..20_000].to_vec()),
    ] {
        folder.write(&format!("{name}.wav"), sound);
        let text = match name {
            "empty" => " ".to_owned(),
            "few" => "a".to_owned(),
            "many" => "aab".repeat(15),
            "odd" => "dobrý den α".to_owned(),
            "short" => "ab".to_owned(),
            _ => "dobrý den".to_owned(),
        };
        folder.write(&format!("{name}.txt"), text);
    }
    let utterances = open_with(in_folder(&folder), 0).expect("what is bad is only heard");
    let frames = |seconds: f64| (seconds * 50.0) as usize;
    let options = SpeechScanOptions {
        max_seconds: 3.0,
        allowed_characters: Some("abcdefghijklmnopqrstuvwxyzý ".chars().collect::<BTreeSet<char>>()),
        frames: Some(&frames),
        ..SpeechScanOptions::default()
    };
    let report = scan(&utterances, &options, &Progress::none()).expect("not interrupted");
    let expected = [
        (Kind::BadItem(BadReason::BrokenSound), 1),
        (Kind::BadItem(BadReason::NotFinite), 1),
        (Kind::Silent, 1),
        (Kind::Clipped, 1),
        (Kind::TooShort, 1),
        (Kind::TooLong, 1),
        (Kind::EmptyTranscript, 1),
        (Kind::TooShortForTranscript, 1),
        (Kind::FewCharacters, 1),
        (Kind::ManyCharacters, 2),
        (Kind::OddCharacters, 1),
        (Kind::DuplicateSound, 1),
    ];
    assert_eq!(kinds(&report), expected);
    let message = |kind: Kind| {
        let finding = report.findings.iter().find(|finding| finding.kind == kind).expect("found");
        (finding.message.as_str(), finding.places[0].as_str())
    };
    let (said, place) = message(Kind::TooShortForTranscript);
    assert!(
        said.contains("has 25 frames, but CTC needs 60 for its transcript") && place.ends_with("many.wav"),
        "{said}"
    );
    let (said, place) = message(Kind::DuplicateSound);
    assert!(said.contains("odd.wav`; remove one of them") && place.ends_with("twice.wav"), "{said}");
    assert!(message(Kind::OddCharacters).0.contains("\\u{3b1}"));
    assert!(message(Kind::Clipped).0.contains("1.25% of its samples"));
    assert_eq!((report.num_bad_items, report.usable.utterances), (2, 9));
}

#[test]
fn what_opening_skipped_is_in_the_report() {
    let folder = Folder::new();
    folder.write("a.wav", wav(&noise(1, 1.0)));
    folder.write("m.jsonl", "{\"audio_filepath\": \"a.wav\"}\n{\"audio_filepath\": \"b.wav\"}\nno json\n");
    let utterances = open_with(nemo(folder.at("m.jsonl")), u64::MAX).expect("anything goes");
    let report = scan(&utterances, &SpeechScanOptions::default(), &Progress::none()).expect("not interrupted");
    let expected = [(Kind::BadItem(BadReason::BrokenJson), 1), (Kind::BadItem(BadReason::MissingFile), 1)];
    assert_eq!((kinds(&report), report.num_bad_items), (expected.to_vec(), 2));
    assert!(report.findings[0].places[0].ends_with("m.jsonl:3"));
    let stop = Progress::new(|_, _, _| std::ops::ControlFlow::Break(()));
    assert!(matches!(scan(&utterances, &SpeechScanOptions::default(), &stop), Err(Error::Interrupted)));
}

#[test]
fn some_are_heard_evenly_and_of_the_others_the_list_is_looked_at() {
    let folder = Folder::new();
    let mut lines = String::new();
    for number in 0..10 {
        // The second half of the files is broken, and one in the middle has no transcript that is any.
        let sound = wav(&noise(number + 1, 1.0));
        let sound = if number < 5 { sound } else { sound[..20_000].to_vec() };
        folder.write(&format!("{number}.wav"), sound);
        let text = if number == 7 { " " } else { "dobrý den" };
        lines += &format!("{{\"audio_filepath\": \"{number}.wav\", \"duration\": 1, \"text\": \"{text}\"}}\n");
    }
    folder.write("m.jsonl", lines);
    let utterances = open(nemo(folder.at("m.jsonl")));
    let scanned = |max_heard, transcripts| {
        let options = SpeechScanOptions { max_heard, transcripts, ..SpeechScanOptions::default() };
        scan(&utterances, &options, &Progress::none()).expect("not interrupted")
    };
    let some = scanned(Some(4), true);
    assert_eq!((some.usable.utterances, some.num_heard_bad, some.unheard.utterances), (2, 2, 6));
    assert_eq!(kinds(&some), [(Kind::BadItem(BadReason::BrokenSound), 2), (Kind::EmptyTranscript, 1)]);
    assert_eq!((some.unheard.seconds, some.num_bad_items), (6.0, 2));
    assert_eq!(scanned(Some(99), true), scanned(None, true));
    let all = scanned(None, true);
    assert_eq!((all.usable.utterances, all.num_heard_bad, all.unheard.utterances), (5, 5, 0));
    assert_eq!(kinds(&scanned(Some(0), false)), []);
}
