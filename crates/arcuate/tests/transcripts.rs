//! A speech recogniser from its recipe to its error rates, on the built program: tones for letters, a network of a few thousand weights.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const RATE: u32 = 1000;

/// A WAV file in which every letter is a tone and a space is silence.
fn tones(text: &str) -> Vec<u8> {
    let letter = |letter: char| {
        let hz = match letter {
            'a' => 100.0,
            'b' => 250.0,
            _ => 0.0,
        };
        (0..RATE / 10).map(move |at| {
            let x = (f64::from(at) / f64::from(RATE) * hz * std::f64::consts::TAU).sin();
            (x * 20_000.0) as i16
        })
    };
    let samples: Vec<i16> = text.chars().flat_map(letter).collect();
    let num_bytes = 2 * samples.len() as u32;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + num_bytes).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend(RATE.to_le_bytes());
    bytes.extend((2 * RATE).to_le_bytes());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend(num_bytes.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes
}

/// Recordings with a manifest of each part.
fn write_corpus(dir: &Path) {
    for (part, num) in [("train", 40u32), ("test", 6)] {
        let mut lines = String::new();
        for at in 0..num {
            let word = |seed: u32| ["a", "b", "ab", "ba"][(seed % 4) as usize];
            let text = format!("{} {}", word(at), word(at / 4 + at));
            let name = format!("{part}-{at}.wav");
            std::fs::write(dir.join(&name), tones(&text)).expect("written");
            let seconds = text.len() as f64 / 10.0;
            // A letter that training has never met must be scored too.
            let text = if part == "test" && at == 0 { format!("{text}z") } else { text };
            lines += &format!(
                "{{\"id\": \"{part}{at}\", \"audio_filepath\": \"{name}\", \"duration\": {seconds}, \"text\": \"{text}\"}}\n"
            );
        }
        std::fs::write(dir.join(format!("{part}.jsonl")), lines).expect("written");
    }
}

fn recipe(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        r#"name = "tones"
seed = 1
[tokenizer.chars]
normalise = {{ case = "lower", punctuation = "remove", digits = "keep" }}
[data]
held_out_fraction = 0.2
cache_dir = "{dir}/cache"
[data.speech]
sample_rate_hz = {RATE}
normalise = true
[data.speech.source.tones.format.nemo]
path = "{dir}/train.jsonl"
[data.packing.document]
[model.wav2vec2]
hidden_size = 16
num_layers = 1
num_heads = 2
intermediate_size = 32
conv_channels = 16
conv_kernels = [10, 3]
conv_strides = [5, 2]
conv_bias = true
feature_norm = "layer"
pre_norm = true
position_kernel = 4
position_groups = 2
[objective.ctc]
zero_infinity = true
[transcripts]
num_examples = 2
decoder.prefix_beam = {{ beam_width = 8 }}
language_model = {{ order = 2, weight = 0.3, word_score = 0.5, texts = ["{dir}/more.txt"] }}
[transcripts.test.tests.format.nemo]
path = "{dir}/test.jsonl"
[batch]
max_seq_len = 200
microbatch = 8
[optimizer.adamw]
peak_learning_rate = 1e-2
weight_decay = 0.0
[schedule.constant]
[horizon]
steps = 6
[checkpoint]
every_steps = 3
[evaluation]
every_steps = 3
"#
    )
}

fn arcuate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_arcuate")).args(args).output().expect("it starts")
}

fn succeeded(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

fn json(output: &Output) -> Value {
    succeeded(output);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

struct Run {
    dir: tempfile::TempDir,
    said: String,
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write_corpus(dir.path());
        std::fs::write(dir.path().join("more.txt"), "a b\nab ba\n").expect("written");
        let file = dir.path().join("tones.toml");
        std::fs::write(&file, recipe(dir.path())).expect("written");
        let runs = dir.path().join("runs");
        let output = arcuate(&["run", &file.display().to_string(), "--runs-dir", &runs.display().to_string()]);
        Self { said: succeeded(&output), dir }
    }

    fn path(&self, inner: &str) -> PathBuf {
        self.dir.path().join("runs/tones").join(inner)
    }

    fn shown(&self, inner: &str) -> String {
        self.path(inner).display().to_string()
    }

    fn record(&self) -> Value {
        let metrics = std::fs::read_to_string(self.path("metrics.jsonl")).expect("metrics");
        let last = metrics.lines().rfind(|line| line.contains("\"transcripts\"")).expect("a record of transcripts");
        serde_json::from_str(last).expect("JSON")
    }
}

#[test]
fn a_recogniser_is_scored_by_its_transcripts() {
    let run = Run::new();
    assert!(run.said.contains("CER ") && run.said.contains(" on held-out recordings"), "{}", run.said);
    assert!(run.said.contains("arcuate transcribe ") && run.said.contains("--lm "), "{}", run.said);
    let record = run.record();
    for name in ["wer", "cer", "sentence_error_rate", "greedy_wer", "tones/cer", "test/tests/wer"] {
        assert!(record[name].as_f64().is_some_and(|value| value >= 0.0), "{name} {record}");
    }
    let lines = std::fs::read_to_string(run.path("transcripts.jsonl")).expect("transcripts");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let tests: Vec<&Value> = lines.iter().filter(|line| line["list"] == "tests").collect();
    assert_eq!(tests.len(), 6);
    assert!(
        tests.iter().any(|line| line["id"] == "test0" && line["reference"].as_str().is_some_and(|t| t.ends_with('z')))
    );
    let report = std::fs::read_to_string(run.path("report.html")).expect("a report");
    assert!(report.contains("character error rate") && report.contains("data:audio/wav;base64,"));
    assert!(std::fs::read_to_string(run.path("lm.arpa")).expect("a model").starts_with("\\data\\"));

    // The same numbers by the other commands, whatever the batch.
    let model = run.shown("checkpoints/best");
    let wer = |microbatch: &str, more: &[&str]| {
        let task = format!("transcripts:{}", run.dir.path().join("test.jsonl").display());
        let base = ["eval", &model, &task, "--json", "--microbatch", microbatch];
        let result = json(&arcuate(&[&base, more].concat()));
        result["results"][&task]["wer,none"].as_f64().expect("a rate")
    };
    let lm = run.shown("lm.arpa");
    let decoder = ["--lm", &lm, "--lm-weight", "0.3", "--word-score", "0.5", "--beam", "8"];
    assert_eq!(wer("1", &[]), record["test/tests/greedy_wer"].as_f64().expect("a rate"));
    assert_eq!(wer("5", &decoder), record["test/tests/wer"].as_f64().expect("a rate"));
    let emissions = run.shown("emissions");
    let saved = run.shown("saved.jsonl");
    wer("4", &["--save-emissions", &emissions, "--save-transcripts", &saved]);
    let header: Value =
        serde_json::from_slice(&std::fs::read(run.path("emissions/emissions.json")).expect("a header")).expect("JSON");
    let first = &header["utterances"][0];
    let num_values =
        first["frames"].as_u64().expect("frames") * header["tokens"].as_array().expect("tokens").len() as u64;
    let file = run.path("emissions").join(first["file"].as_str().expect("a file"));
    assert_eq!(std::fs::metadata(file).expect("values").len(), 4 * num_values);
    let scores = json(&arcuate(&["wer", &saved, &saved, "--normalise", "ctc", "--json"]));
    let rate = &scores["systems"][0]["scores"]["words"]["rate"];
    assert_eq!(rate.as_f64(), record["test/tests/greedy_wer"].as_f64());
    wer("4", &["--lm", &lm, "--tune-lm"]);
    let own = json(&arcuate(&["eval", &model, "held-out", "--json"]));
    assert_eq!(own["results"]["held-out"]["wer,none"].as_f64(), record["wer"].as_f64());
}
