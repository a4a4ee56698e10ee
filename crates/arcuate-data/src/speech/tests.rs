//! The readers of speech lists on good and bad data. Sounds are sine waves that each test writes.

mod damage;
pub(crate) mod fixtures;
mod formats;
mod refusals;
mod sounds;

use super::*;
use crate::testing::Folder;
use fixtures::*;

fn nemo(path: impl Into<String>) -> SpeechFormat {
    SpeechFormat::Nemo(nemo::Config { path: path.into() })
}

fn open_with(format: SpeechFormat, max_bad_items: u64) -> Result<Utterances> {
    Utterances::open("a", &SpeechSourceConfig::new(format), max_bad_items, &Progress::none())
}

fn open(format: SpeechFormat) -> Utterances {
    open_with(format, 0).expect("good data")
}

/// The message of the refusal.
fn refused(format: SpeechFormat) -> String {
    open_with(format, 0).expect_err("bad data").to_string()
}

#[test]
fn a_format_is_a_table_name() {
    let json = r#"{"format": {"nemo": {"path": "x.jsonl"}}, "language": "cs"}"#;
    let source: SpeechSourceConfig = serde_json::from_str(json).expect("complete");
    assert_eq!((source.format.name(), source.format.path(), source.weight), ("nemo", "x.jsonl", 1.0));
    assert_eq!(SpeechFormat::NAMES.len(), 7);
    let wrong = serde_json::from_str::<SpeechSourceConfig>(r#"{"format": {"nemo": {"path": "x", "ofset": 1}}}"#);
    assert!(wrong.expect_err("misspelt").to_string().contains("ofset"));
}

#[test]
fn impossible_values_are_reported_with_their_keys() {
    let mut source = SpeechSourceConfig::new(nemo(""));
    source.weight = f64::NAN;
    source.max_repeats = Some(0.0);
    let keys: Vec<String> = source.check("b").into_iter().map(|problem| problem.key).collect();
    assert_eq!(
        keys,
        ["data.speech.source.b.weight", "data.speech.source.b.max_repeats", "data.speech.source.b.format.nemo.path"]
    );
    let error = Utterances::open("b", &source, 0, &Progress::none()).expect_err("impossible");
    assert!(error.to_string().starts_with("`data.speech.source.b.weight` is NaN"), "{error}");
}

#[test]
fn the_hash_follows_what_is_said_and_not_where_it_lies() {
    let hash = |text: &str, seconds: f64| {
        let folder = Folder::new();
        folder.write("a.wav", wav(&sine(seconds)));
        folder.write("m.jsonl", format!("{{\"audio_filepath\": \"a.wav\", \"text\": \"{text}\"}}\n"));
        open(nemo(folder.at("m.jsonl"))).content_hash().to_owned()
    };
    assert_eq!(hash("ahoj", 0.5), hash("ahoj", 0.5));
    assert_ne!(hash("ahoj", 0.5), hash("ahoj", 0.6));
    assert_ne!(hash("ahoj", 0.5), hash("Ahoj", 0.5));
}

#[test]
fn an_utterance_takes_less_than_two_hundred_bytes() {
    let folder = Folder::new();
    folder.write("recordings/long_recording_with_a_name.wav", wav(&sine(0.1)));
    let text = "z tohoto místa je vidět celé město i s řekou a mosty";
    let lines: String = (0..20_000)
        .map(|i| {
            let speaker = i % 100;
            format!(
                "{{\"audio_filepath\": \"recordings/long_recording_with_a_name.wav\", \"offset\": {i}.25, \"duration\": 3.5, \"text\": \"{text} {i}\", \"speaker\": \"spk{speaker}\"}}\n"
            )
        })
        .collect();
    folder.write("m.jsonl", lines);
    let utterances = open(nemo(folder.at("m.jsonl")));
    let bytes = utterances.memory_bytes() as f64 / utterances.len() as f64;
    assert!((50.0..150.0).contains(&bytes), "{bytes} bytes");
    let last = utterances.get(19_999);
    assert_eq!(last.transcript, Some(format!("{text} 19999")));
    assert_eq!((last.speaker.as_deref(), last.place.ends_with("m.jsonl:20000")), (Some("spk99"), true));
    assert_eq!(last.id, "recordings/long_recording_with_a_name.wav#19999.25");
    assert_eq!(utterances.total_seconds(), 70_000.0);
}

#[test]
fn a_group_is_a_recording_or_a_speaker() {
    let folder = Folder::new();
    folder.write("a.wav", wav(&sine(1.0)));
    let line = |start: f64, more: &str| {
        format!("{{\"audio_filepath\": \"a.wav\", \"offset\": {start}, \"duration\": 0.5{more}}}\n")
    };
    folder.write("m.jsonl", line(0.0, ", \"speaker\": 7") + &line(0.5, ""));
    let mut source = SpeechSourceConfig::new(nemo(folder.at("m.jsonl")));
    let groups = |source: &SpeechSourceConfig| -> Vec<String> {
        let utterances = Utterances::open("a", source, 0, &Progress::none()).expect("good data");
        utterances.iter().map(|utterance| utterance.group).collect()
    };
    assert_eq!(groups(&source), ["a.wav", "a.wav"]);
    source.split_by = SplitBy::Speaker;
    assert_eq!(groups(&source), ["7", "a.wav"]);
}

#[test]
fn lists_of_different_folders_may_name_the_same_files() {
    let folder = Folder::new();
    for language in ["cs", "nl"] {
        folder.write(&format!("{language}/1.wav"), wav(&sine(0.2)));
        folder.write(&format!("{language}/m.jsonl"), "{\"audio_filepath\": \"1.wav\"}\n");
    }
    let utterances = open(nemo(folder.at("")));
    let ids: Vec<String> = utterances.iter().map(|utterance| utterance.id).collect();
    assert_eq!(ids, ["cs/1.wav", "nl/1.wav"]);
}
