//! `arcuate transcribe` with a tiny recogniser of random weights: what it says means nothing, but always the same.

mod recogniser;

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use recogniser::{bytes, folder, reference, voice, wav, write};
use serde_json::Value;
use tempfile::TempDir;

fn read(dir: &TempDir, name: &str) -> String {
    fs::read_to_string(dir.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn run(dir: &TempDir, args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcuate"));
    command.args(["transcribe", "model"]).args(args).current_dir(dir.path()).env("NO_COLOR", "1");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("it wrote");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output and standard error of a call that must end with this code.
fn ends(dir: &TempDir, args: &[&str], input: &[u8], code: i32) -> (String, String) {
    let output = run(dir, args, input);
    let (out, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    (out, errors)
}

/// Standard output of a call that must succeed.
fn says(dir: &TempDir, args: &[&str]) -> String {
    ends(dir, args, &[], 0).0
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Words with their times.
fn words(transcript: &Value) -> Vec<(String, f64, f64)> {
    let segments = transcript["segments"].as_array().expect("segments");
    let words = segments.iter().flat_map(|segment| segment["words"].as_array().expect("words"));
    let number = |value: &Value| value.as_f64().expect("a number");
    words.map(|w| (w["word"].as_str().expect("a word").to_owned(), number(&w["start"]), number(&w["end"]))).collect()
}

#[test]
fn one_recording_is_printed_in_any_format() {
    let dir = folder("wav2vec2_large_ctc");
    write(&dir, "a.wav", wav(&voice(3.0, 120.0)));
    let plain = says(&dir, &["a.wav"]);
    assert!(plain.trim().len() > 3, "random weights say something: {plain:?}");
    let value = json(&says(&dir, &["a.wav", "--format", "json"]));
    assert_eq!(value["text"].as_str().expect("text"), plain.split_whitespace().collect::<Vec<_>>().join(" "));
    assert_eq!((value["audio"].as_str(), value["duration"].as_f64()), (Some("a.wav"), Some(3.0)));
    let times = words(&value);
    assert!(times.windows(2).all(|pair| pair[0].2 <= pair[1].1 + 1e-9), "{times:?}");
    assert!(times.iter().all(|(_, start, end)| *start >= 0.0 && start < end && *end <= 3.0), "{times:?}");
    let begins =
        [("srt", "1\n00:00:0"), ("vtt", "WEBVTT"), ("TextGrid", "File type = \"ooTextFile\""), ("eaf", "<?xml")];
    for (format, begin) in begins {
        let text = says(&dir, &["a.wav", "--format", format]);
        assert!(text.starts_with(begin), "{format}: {text}");
    }
    let answer = json(&says(&dir, &["a.wav", "--json"]));
    assert_eq!((&answer["transcript"]["text"], &answer["done"]), (&value["text"], &Value::from(1)));
}

#[test]
fn a_folder_becomes_a_folder_and_the_same_command_goes_on() {
    let dir = folder("wav2vec2_large_ctc");
    for (name, pitch) in [("in/a.wav", 100.0), ("in/x/a.wav", 150.0), ("in/x/b.wav", 200.0)] {
        write(&dir, name, wav(&voice(1.5, pitch)));
    }
    let command = ["in", "--output", "out", "--format", "txt,srt", "--json"];
    let first = json(&says(&dir, &command));
    assert_eq!((first["done"].as_u64(), first["existing"].as_u64()), (Some(3), Some(0)));
    let files = ["out/a.txt", "out/a.srt", "out/x/a.txt", "out/x/a.srt", "out/x/b.txt", "out/x/b.srt"];
    let before: Vec<String> = files.iter().map(|file| read(&dir, file)).collect();
    assert_ne!(before[0], before[2], "different voices");
    fs::remove_file(dir.path().join("out/x/a.srt")).expect("it was there");
    write(&dir, "out/a.txt", "corrected by hand");
    let second = json(&says(&dir, &command));
    assert_eq!((second["done"].as_u64(), second["existing"].as_u64()), (Some(1), Some(2)));
    assert_eq!(second["recordings"][0]["state"], "existing");
    assert_eq!(
        (read(&dir, "out/a.txt"), read(&dir, "out/x/a.srt")),
        ("corrected by hand".to_owned(), before[3].clone())
    );
    let (_, errors) = ends(&dir, &command[..5], &[], 0);
    assert!(errors.contains("3 transcribed before"), "{errors}");
    says(&dir, &[&command[..], &["--overwrite"]].concat());
    assert_eq!(files.map(|file| read(&dir, file)).to_vec(), before);
    let left: Vec<_> = fs::read_dir(dir.path().join("out")).expect("lists").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 3, "nothing half is left: {left:?}");
}

#[test]
fn recordings_of_one_name_do_not_overwrite_each_other() {
    let dir = folder("wav2vec2_large_ctc");
    write(&dir, "x/a.wav", wav(&voice(1.0, 100.0)));
    write(&dir, "y/a.wav", wav(&voice(1.0, 170.0)));
    says(&dir, &["x/a.wav", "y/a.wav", "--output", "out"]);
    assert_ne!(read(&dir, "out/x/a.txt"), read(&dir, "out/y/a.txt"));
}

#[test]
fn bad_recordings_are_reported_and_the_others_transcribed() {
    let dir = folder("wav2vec2_large_ctc");
    let good = wav(&voice(1.0, 120.0));
    write(&dir, "in/a.wav", &good);
    write(&dir, "in/b.wav", "not a sound at all");
    write(&dir, "in/c.mp3", "");
    write(&dir, "in/d.wav", wav(&[]));
    write(&dir, "in/e.wav", &good[..good.len() / 2]);
    write(&dir, "in/f.wav", wav(&voice(1.0, 180.0)));
    let (out, errors) = ends(&dir, &["in", "--output", "out", "--json"], &[], 4);
    let value = json(&out);
    assert_eq!((value["done"].as_u64(), value["failed"].as_u64()), (Some(2), Some(4)), "{out}");
    for name in ["b.wav", "c.mp3", "d.wav", "e.wav"] {
        assert!(errors.lines().any(|line| line.starts_with("failed") && line.contains(name)), "{name}: {errors}");
    }
    assert!(value["recordings"][4]["error"].as_str().expect("an error").contains("cut off"), "{out}");
    assert!(read(&dir, "out/a.txt").len() > 3 && read(&dir, "out/f.txt").len() > 3);
    assert!(!dir.path().join("out/e.txt").exists());
    let (_, errors) = ends(&dir, &["in", "--output", "out", "--strict"], &[], 4);
    assert!(errors.contains("0 recordings") && errors.contains("stopped at"), "{errors}");
    let (out, _) = ends(&dir, &["in/e.wav", "--accept-damaged"], &[], 0);
    assert!(out.trim().len() > 1, "{out}");
}

#[test]
fn standard_input_is_a_file_or_raw_samples() {
    let dir = folder("wav2vec2_large_ctc");
    let samples = voice(2.0, 130.0);
    write(&dir, "a.wav", wav(&samples));
    let from_file = says(&dir, &["a.wav"]);
    assert_eq!(ends(&dir, &["-"], &wav(&samples), 0).0, from_file);
    assert_eq!(ends(&dir, &["-", "--raw-rate", "16000"], &bytes(&samples), 0).0, from_file);
    ends(&dir, &["-"], b"", 4);
}

#[test]
fn what_is_heard_of_a_recording_does_not_depend_on_its_neighbours() {
    for model in ["wav2vec2_large_ctc", "wav2vec2_base_ctc"] {
        let dir = folder(model);
        let lengths = [0.7, 2.0, 1.3, 2.0, 0.02];
        for (at, seconds) in lengths.into_iter().enumerate() {
            write(&dir, &format!("in/{at}.wav"), wav(&voice(seconds, 110.0 + 13.0 * at as f64)));
        }
        says(&dir, &["in", "--output", "together", "--format", "json"]);
        says(&dir, &["in", "--output", "alone", "--format", "json", "--batch-seconds", "0.1"]);
        for at in 0..lengths.len() {
            let file = |folder: &str| read(&dir, &format!("{folder}/{at}.json"));
            assert_eq!(file("together"), file("alone"), "{model}, recording {at}");
        }
    }
}

#[test]
fn a_long_recording_is_heard_in_chunks_with_few_words_lost() {
    let dir = folder("wav2vec2_large_ctc");
    write(&dir, "long.wav", wav(&voice(24.0, 120.0)));
    let heard = |more: &[&str]| json(&says(&dir, &[&["long.wav", "--format", "json"], more].concat()));
    let chunked = heard(&["--chunk-seconds", "2.5", "--overlap-seconds", "0.8"]);
    let times = words(&chunked);
    assert!(times.len() > 5, "{times:?}");
    assert!(times.windows(2).all(|pair| pair[0].1 <= pair[1].1 && pair[0].2 <= pair[1].1 + 1e-9), "{times:?}");
    assert!(times.iter().all(|(_, _, end)| *end <= 24.0), "{times:?}");
    // The pauses hold nothing, but for what the padding lets in.
    let is_near_speech = |seconds: f64| seconds % 6.0 < 4.0 || seconds % 6.0 > 5.5;
    assert!(times.iter().all(|(_, start, end)| is_near_speech((start + end) / 2.0)), "{times:?}");
    assert_eq!(heard(&["--chunk-seconds", "2.5", "--overlap-seconds", "0.8", "--batch-seconds", "1"]), chunked);
}

#[test]
fn readings_come_with_scores() {
    let dir = folder("wav2vec2_large_ctc");
    write(&dir, "a.wav", wav(&voice(1.0, 120.0)));
    let value = json(&says(&dir, &["a.wav", "--format", "json", "--nbest", "3"]));
    let readings = value["readings"][0]["hypotheses"].as_array().expect("readings");
    let scores: Vec<f64> = readings.iter().map(|one| one["score"].as_f64().expect("a score")).collect();
    assert!(scores.len() > 1 && scores.windows(2).all(|pair| pair[0] >= pair[1]), "{scores:?}");
    write(&dir, "words.txt", "a\nab\nzoo\n");
    let listed = says(&dir, &["a.wav", "--lexicon", "words.txt"]);
    assert!(listed.split_whitespace().all(|word| ["a", "ab", "zoo"].contains(&word)), "{listed}");
}

#[test]
fn a_stream_says_drafts_and_final_lines() {
    let dir = folder("wav2vec2_large_ctc");
    let sound = bytes(&voice(9.0, 120.0));
    let args = ["-", "--stream", "--raw-rate", "16000"];
    let (out, _) = ends(&dir, &[&args[..], &["--json"]].concat(), &sound, 0);
    let lines: Vec<Value> = out.lines().map(json).collect();
    let finals: Vec<&Value> = lines.iter().filter(|line| line["final"] == true).collect();
    assert!(!finals.is_empty() && finals.len() < lines.len(), "{out}");
    let times: Vec<(f64, f64)> =
        finals.iter().map(|l| (l["start"].as_f64().expect("a time"), l["end"].as_f64().expect("a time"))).collect();
    assert!(times.iter().all(|(start, end)| start < end && *end <= 9.0), "{times:?}");
    assert!(times.windows(2).all(|pair| pair[0].1 <= pair[1].0 + 1e-9), "{times:?}");
    let (plain, _) = ends(&dir, &args, &sound, 0);
    let texts: Vec<&str> = finals.iter().map(|line| line["text"].as_str().expect("text")).collect();
    assert_eq!(plain.lines().collect::<Vec<_>>(), texts);
}

#[test]
fn what_is_no_recogniser_is_refused() {
    let dir = folder("wav2vec2_large_ctc");
    write(&dir, "a.wav", wav(&voice(0.5, 120.0)));
    let model = |name: &str| {
        for file in ["config.json", "model.safetensors"] {
            fs::copy(reference(name).join(file), dir.path().join("model").join(file)).expect("copied");
        }
        ends(&dir, &["a.wav"], &[], 2).1
    };
    assert!(model("llama").contains("is a text model"));
    assert!(model("wav2vec2_large_pretraining").contains("fine-tune it"));
    write(&dir, "model/preprocessor_config.json", r#"{"num_mel_bins": 40}"#);
    assert!(model("wav2vec2_bert_ctc").contains("makes 40 bins of 2 frames"));
    let own = folder("wav2vec2_large_ctc");
    write(&own, "a.wav", wav(&voice(0.5, 120.0)));
    write(&own, "model/vocab.json", r#"{"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}"#);
    assert!(ends(&own, &["a.wav"], &[], 2).1.contains("does not fit the model"));
    fs::remove_file(own.path().join("model/vocab.json")).expect("it was there");
    assert!(ends(&own, &["a.wav"], &[], 2).1.contains("no `tokenizer.json`"));
}

#[test]
fn wrong_arguments_are_refused_with_a_remedy() {
    let dir = folder("wav2vec2_large_ctc");
    write(&dir, "a.wav", wav(&voice(0.5, 120.0)));
    write(&dir, "b.wav", wav(&voice(0.5, 120.0)));
    let cases: [(&[&str], &str); 10] = [
        (&["absent.wav"], "does not exist"),
        (&["*.mp3"], "matches no recording"),
        (&["a.wav", "b.wav"], "--output DIR"),
        (&["a.wav", "--format", "txt,srt"], "--output DIR"),
        (&["a.wav", "--raw-rate", "8000"], "standard input"),
        (&["a.wav", "--stream"], "standard input"),
        (&["a.wav", "--nbest", "2"], "--format json"),
        (&["a.wav", "--lm", "absent.arpa"], "there is no such file"),
        (&["a.wav", "--chunk-seconds", "0"], "--chunk-seconds"),
        (&["a.wav", "--batch-seconds=-1"], "--batch-seconds"),
    ];
    for (args, message) in cases {
        let (_, errors) = ends(&dir, args, &[], 2);
        assert!(errors.contains(message), "{args:?}: {errors}");
    }
}
