//! Promises of a run, on the built program: exact resume, accumulation, the referee, wrong folders.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

struct Folder {
    dir: tempfile::TempDir,
    recipe: &'static str,
    name: &'static str,
}

impl Folder {
    fn new() -> Self {
        Self::of("recipes/tiny.toml", "tiny")
    }

    fn of(recipe: &'static str, name: &'static str) -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder"), recipe, name }
    }

    fn command(&self, runs: &str, set: &[&str]) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut command = Command::new(env!("CARGO_BIN_EXE_arcuate"));
        let cache = format!("data.cache_dir={:?}", self.dir.path().join("cache").display().to_string());
        command.current_dir(root).args(["run", self.recipe, "--runs-dir"]).arg(self.dir.path().join(runs));
        for change in set.iter().copied().chain([cache.as_str()]) {
            command.args(["--set", change]);
        }
        command
    }

    fn run(&self, runs: &str, set: &[&str]) -> Output {
        self.command(runs, set).output().expect("it starts")
    }

    fn path(&self, runs: &str) -> PathBuf {
        self.dir.path().join(runs).join(self.name)
    }

    fn weights(&self, runs: &str) -> Vec<u8> {
        std::fs::read(self.path(runs).join("checkpoints/last/model.safetensors")).expect("a checkpoint")
    }

    fn metrics(&self, runs: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(runs).join("metrics.jsonl")).expect("metrics");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn losses(&self, runs: &str) -> Vec<f64> {
        let train = |v: &Value| (v["kind"] == "train").then(|| v["loss"].as_f64().expect("a number"));
        self.metrics(runs).iter().filter_map(train).collect()
    }

    /// Waits until the run has made so many steps.
    fn wait(&self, runs: &str, step: u64, child: &mut Child) {
        for _ in 0..600 {
            let text = std::fs::read_to_string(self.path(runs).join("metrics.jsonl")).unwrap_or_default();
            if text.matches("\"kind\":\"train\"").count() as u64 >= step {
                return;
            }
            assert!(child.try_wait().expect("a child").is_none(), "the run ended before step {step}");
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no step {step} within 30 s");
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill");
    assert!(status.success());
}

#[test]
fn a_stopped_run_goes_on_as_if_nothing_had_happened() {
    let folder = Folder::new();
    // Larger, so that the signal comes before the end.
    let set = ["model.llama.hidden_size=128", "horizon.steps=24", "checkpoint.every_steps=7"];
    assert!(folder.run("whole", &set).status.success());
    let mut child = folder.command("parts", &set).stderr(Stdio::null()).spawn().expect("it starts");
    folder.wait("parts", 5, &mut child);
    signal(&child, "-TERM");
    assert_eq!(child.wait().expect("a child").code(), Some(75));
    let mut child = folder.command("parts", &set).stderr(Stdio::null()).spawn().expect("it starts");
    folder.wait("parts", 12, &mut child);
    signal(&child, "-KILL");
    child.wait().expect("a child");
    let last = folder.run("parts", &set);
    assert!(last.status.success(), "{}", text(&last));
    assert!(text(&last).contains("resume"));
    assert_eq!(folder.losses("parts"), folder.losses("whole"));
    assert!(folder.weights("parts") == folder.weights("whole"), "the weights differ");
}

/// One run without a break in `whole`, and one that is stopped and then killed in `parts`, which must end equal.
fn check_stopped_run(folder: &Folder) {
    let set = ["horizon.steps=14", "checkpoint.every_steps=4", "evaluation.every_steps=14"];
    let whole = folder.run("whole", &set);
    assert!(whole.status.success(), "{}", text(&whole));
    let mut child = folder.command("parts", &set).stderr(Stdio::null()).spawn().expect("it starts");
    folder.wait("parts", 2, &mut child);
    signal(&child, "-TERM");
    assert_eq!(child.wait().expect("a child").code(), Some(75));
    let mut child = folder.command("parts", &set).stderr(Stdio::null()).spawn().expect("it starts");
    folder.wait("parts", 6, &mut child);
    signal(&child, "-KILL");
    child.wait().expect("a child");
    let last = folder.run("parts", &set);
    assert!(last.status.success() && text(&last).contains("resume"), "{}", text(&last));
    assert_eq!(folder.losses("parts"), folder.losses("whole"));
    assert!(folder.weights("parts") == folder.weights("whole"), "the weights differ");
}

#[test]
fn a_stopped_run_on_recordings_goes_on_as_if_nothing_had_happened() {
    check_stopped_run(&Folder::of("recipes/tiny_speech.toml", "tiny-speech"));
}

#[test]
fn a_recogniser_of_augmented_filter_banks_goes_on_is_measured_and_transcribes() {
    let folder = Folder::of("recipes/tiny_bert_ctc.toml", "tiny-bert-ctc");
    check_stopped_run(&folder);
    let model = folder.path("whole").join("checkpoints/best");
    let said = std::fs::read(model.join("preprocessor_config.json")).expect("how sound is prepared");
    let said: Value = serde_json::from_slice(&said).expect("JSON");
    let of = |key: &str| said[key].as_u64();
    assert_eq!(said["feature_extractor_type"], "SeamlessM4TFeatureExtractor");
    assert_eq!(["num_mel_bins", "stride", "sampling_rate"].map(of), [Some(40), Some(2), Some(16_000)]);
    // What the run wrote of its held-out recordings, evaluation and transcription write too.
    let lines = std::fs::read_to_string(folder.path("whole").join("transcripts.jsonl")).expect("transcripts");
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let arcuate = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arcuate"));
        let output = command.current_dir(&root).arg(args[0]).arg(&model).args(&args[1..]).output().expect("it starts");
        assert!(output.status.success(), "{}", text(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let measured: Value = serde_json::from_str(&arcuate(&["eval", "held-out", "--json"])).expect("JSON");
    let metrics = folder.metrics("whole");
    let record = metrics.iter().rfind(|record| record["kind"] == "transcripts").expect("a record");
    assert!(record["cer"].as_f64().is_some());
    assert_eq!(measured["results"]["held-out"]["cer,none"], record["cer"]);
    let list = std::fs::read_to_string(root.join("data/speech/russian/ru.jsonl")).expect("a list");
    let list: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for line in lines.iter().take(2) {
        let of_it = |other: &&Value| other["text"] == line["reference"];
        let file = list.iter().find(of_it).expect("it is in the list")["audio_filepath"].as_str().expect("a name");
        let heard = arcuate(&["transcribe", &format!("data/speech/russian/{file}")]);
        let hypothesis = line["hypothesis"].as_str().expect("a text");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&heard), words(hypothesis));
    }
    // Augmented or not, the first losses differ, so the recordings were changed.
    let plain = folder.run("plain", &["horizon.steps=6", "data.speech.augment={}"]);
    assert!(plain.status.success(), "{}", text(&plain));
    assert_ne!(folder.losses("plain")[0], folder.losses("whole")[0]);
}

#[test]
fn recordings_that_cannot_be_used_are_refused_or_counted() {
    let folder = Folder::of("recipes/tiny_ctc.toml", "tiny-ctc");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/speech/russian");
    let root = root.canonicalize().expect("the recordings");
    let list = std::fs::read_to_string(root.join("ru.jsonl")).expect("a list");
    let mut lines = list.replace("\"audio_filepath\": \"", &format!("\"audio_filepath\": \"{}/", root.display()));
    let half = folder.dir.path().join("half.opus");
    let whole = std::fs::read(root.join("ru_0054.opus")).expect("a recording");
    std::fs::write(&half, &whole[..whole.len() / 2]).expect("written");
    for (path, said) in [
        ("missing.opus".to_owned(), "нет"),
        (half.display().to_string(), "половина"),
        (root.join("ru_0063.opus").display().to_string(), "слишком длинный текст для такой записи ".repeat(40).trim()),
    ] {
        lines += &format!("{{\"audio_filepath\": \"{path}\", \"duration\": 4.3, \"text\": \"{said}\"}}\n");
    }
    let path = folder.dir.path().join("list.jsonl");
    std::fs::write(&path, lines).expect("written");
    let path = format!("data.speech.source.studio.format.nemo.path={:?}", path.display().to_string());
    let refused = folder.run("a", &[&path, "data.max_bad_items=0"]);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
    assert!(text(&refused).contains("list.jsonl:3"), "{}", text(&refused));
    let counted = folder.run("b", &[&path, "data.max_bad_items=6"]);
    assert!(counted.status.success(), "{}", text(&counted));
    assert!(text(&counted).contains("skipped"), "{}", text(&counted));
}

/// A small masked model with convolutions, whose random replacements may be padding.
const CONVOLUTIONS: [&str; 10] = [
    "model.bert.conv_front={num_layers=2,kernel=[3,3],channels=6}",
    "model.bert.hidden_size=32",
    "model.bert.num_layers=1",
    "tokenizer.wordpiece.vocab_size=400",
    "data.held_out_fraction=0.02",
    "objective.masked_lm.independent=true",
    "objective.masked_lm.random_may_be_special=true",
    "batch.accumulate_steps=2",
    "batch.microbatch=4",
    "schedule.linear={warmup={steps=0},hold_steps=4}",
];

#[test]
fn a_stopped_run_with_running_statistics_goes_on_as_if_nothing_had_happened() {
    let folder = Folder::of("recipes/century.pretrain.toml", "century-pretrain");
    let set = [&CONVOLUTIONS[..], &["horizon.steps=24", "checkpoint.every_steps=7"]].concat();
    let whole = folder.run("whole", &set);
    assert!(whole.status.success(), "{}", text(&whole));
    let mut child = folder.command("parts", &set).stderr(Stdio::null()).spawn().expect("it starts");
    folder.wait("parts", 5, &mut child);
    signal(&child, "-TERM");
    assert_eq!(child.wait().expect("a child").code(), Some(75));
    let last = folder.run("parts", &set);
    assert!(last.status.success() && text(&last).contains("resume"), "{}", text(&last));
    assert_eq!(folder.losses("parts"), folder.losses("whole"));
    assert!(folder.weights("parts") == folder.weights("whole"), "the weights differ");
    let refused = Command::new(env!("CARGO_BIN_EXE_arcuate"))
        .args(["export", "--to", "hf", "--output"])
        .arg(folder.dir.path().join("export"))
        .arg(folder.path("whole").join("checkpoints/last"))
        .output()
        .expect("it starts");
    assert_eq!(refused.status.code(), Some(4));
    assert!(text(&refused).contains("`conv_front`, which the public layout does not have"), "{}", text(&refused));
}

#[test]
fn steps_without_anything_to_predict_change_nothing() {
    let folder = Folder::of("recipes/century.pretrain.toml", "century-pretrain");
    let set = ["horizon.steps=10", "objective.masked_lm.mask_fraction=0.001"];
    let output = folder.run("a", &[&CONVOLUTIONS[..], &set].concat());
    assert!(output.status.success(), "{}", text(&output));
    let losses = folder.losses("a");
    assert_eq!(losses.len(), 10);
    assert!(losses.contains(&0.0) && losses.iter().any(|loss| *loss > 0.0), "{losses:?}");
    assert!(losses.iter().all(|loss| loss.is_finite()));
}

#[test]
fn one_large_batch_equals_accumulated_small_ones() {
    let folder = Folder::new();
    let run = |name: &str, micro: usize| {
        let set = [format!("batch.microbatch={micro}"), format!("batch.accumulate_steps={}", 8 / micro)];
        let output = folder.run(name, &[&set[0], &set[1], "horizon.steps=10"]);
        assert!(output.status.success(), "{}", text(&output));
        folder.losses(name)
    };
    let (whole, parts) = (run("whole", 8), run("parts", 1));
    assert_eq!(whole.len(), 10);
    for (a, b) in whole.iter().zip(&parts) {
        assert!((a - b).abs() < 1e-4 * a, "{a} {b}");
    }
}

#[test]
fn one_thread_and_two_give_the_same_bits() {
    let folder = Folder::new();
    for threads in ["1", "2"] {
        let mut command = folder.command(threads, &["horizon.steps=10"]);
        assert!(command.args(["--threads", threads]).output().expect("it starts").status.success());
    }
    assert!(folder.weights("1") == folder.weights("2"));
}

#[test]
fn the_held_out_result_does_not_depend_on_the_batch_size() {
    let folder = Folder::new();
    assert!(folder.run("a", &["horizon.steps=10"]).status.success());
    let model = folder.path("a").join("checkpoints/last");
    let result = |microbatch: &str| -> f64 {
        let output = Command::new(env!("CARGO_BIN_EXE_arcuate"))
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
            .args(["eval", &model.display().to_string(), "text:README.md", "--json", "--microbatch", microbatch])
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{}", text(&output));
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        json["results"].as_object().expect("results").values().next().expect("one")["bits_per_byte,none"]
            .as_f64()
            .expect("a number")
    };
    let (one, many) = (result("1"), result("7"));
    assert!((one - many).abs() < 1e-6 * one, "{one} {many}");
}

#[test]
fn an_absurd_learning_rate_is_stopped_by_the_referee() {
    let folder = Folder::new();
    let output = folder.run("a", &["optimizer.adamw.peak_learning_rate=1e30", "schedule={constant={}}"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("likely causes"), "{}", text(&output));
    let health = std::fs::read_to_string(folder.path("a").join("health.json")).expect("a report");
    assert!(health.contains("addresses"), "{health}");
    let status = std::fs::read_to_string(folder.path("a").join("status.json")).expect("a status");
    assert!(status.contains("stopped"), "{status}");
}

#[test]
fn the_folder_of_another_recipe_is_refused_and_stays_as_it_is() {
    let folder = Folder::new();
    assert!(folder.run("a", &["horizon.steps=10"]).status.success());
    let before = folder.weights("a");
    let output = folder.run("a", &["horizon.steps=10", "seed=18"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("seed"), "{}", text(&output));
    assert!(folder.weights("a") == before);
}

#[test]
fn a_batch_larger_than_the_corpus_is_refused_with_its_place() {
    let folder = Folder::new();
    let output = folder.run("a", &["batch.microbatch=1000000"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("the whole corpus has"), "{}", text(&output));
}

#[test]
fn frozen_parameters_stay_as_they_are() {
    let folder = Folder::new();
    for (name, steps) in [("a", "10"), ("b", "12")] {
        let set = [format!("horizon.steps={steps}"), "freeze=[\"model.embed_tokens.*\"]".to_string()];
        assert!(folder.run(name, &[&set[0], &set[1]]).status.success());
    }
    let part = |runs: &str, name: &str| {
        let path = folder.path(runs).join("checkpoints/last/model.safetensors");
        arcuate_model::tensors::TensorFile::open(&path).expect("sound").f32(name).expect("float").expect("there").data
    };
    let same = |name: &str| part("a", name) == part("b", name);
    assert!(same("model.embed_tokens.weight"));
    assert!(!same("model.layers.0.mlp.up_proj.weight"));
}

#[test]
fn a_run_that_starts_from_a_checkpoint_says_what_it_took() {
    let folder = Folder::new();
    assert!(folder.run("a", &["horizon.steps=10"]).status.success());
    let from = format!("init_from={:?}", folder.path("a").join("checkpoints/last").display().to_string());
    let output = folder.run("b", &["horizon.steps=10", "model.llama.num_layers=3", &from]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("20 tensors taken, 0 resized, 9 new, 0 unused"), "{}", text(&output));
}

/// The network that a run left, by the name of a tensor.
fn tensor(folder: &Folder, runs: &str, checkpoint: &str, name: &str) -> Vec<f32> {
    let path = folder.path(runs).join("checkpoints").join(checkpoint).join("model.safetensors");
    arcuate_model::tensors::TensorFile::open(&path).expect("sound").f32(name).expect("float").expect("there").data
}

/// Card of continued pretraining, check 3.
#[test]
fn pretraining_that_goes_on_without_a_rate_changes_nothing_and_finds_the_stored_loss() {
    let folder = Folder::of("recipes/tiny_speech.toml", "tiny-speech");
    let output = folder.run("a", &[]);
    assert!(output.status.success(), "{}", text(&output));
    let from = format!("init_from={:?}", folder.path("a").join("checkpoints/last").display().to_string());
    let rate = "optimizer.adamw.peak_learning_rate=1e-40";
    let output = folder.run("b", &[&from, rate, "horizon.steps=10", "evaluation.every_steps=1"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("0 new, 0 unused"), "{}", text(&output));
    assert!(folder.weights("a") == folder.weights("b"), "a weight moved");
    let held_out = |runs: &str| -> Vec<f64> {
        let evals = folder.metrics(runs).into_iter().filter(|line| line["kind"] == "eval");
        evals.map(|line| line["loss"].as_f64().expect("a number")).collect()
    };
    let stored = *held_out("a").last().expect("evaluated");
    for loss in held_out("b") {
        assert!((loss - stored).abs() <= 1e-6 * stored, "{loss} {stored}");
    }
}

/// Card of continued pretraining, check 4.
#[test]
fn fine_tuning_moves_the_transformer_after_its_first_steps_and_the_convolutions_never() {
    let folder = Folder::of("recipes/tiny_ctc.toml", "tiny-ctc");
    assert!(folder.run("a", &[]).status.success());
    let from = format!("init_from={:?}", folder.path("a").join("checkpoints/last").display().to_string());
    let set = [
        from.as_str(),
        "freeze=[\"wav2vec2.feature_extractor.*\"]",
        "freeze_until=[{pattern=\"wav2vec2.*\",steps=4}]",
        "checkpoint.every_steps=1",
        "checkpoint.keep_last=10",
    ];
    let output = folder.run("b", &set);
    assert!(output.status.success(), "{}", text(&output));
    let conv = "wav2vec2.feature_extractor.conv_layers.0.conv.weight";
    let transformer = "wav2vec2.encoder.layers.0.attention.q_proj.weight";
    let start = |name: &str| tensor(&folder, "a", "last", name);
    for (step, moves) in [("step-00000004", false), ("step-00000005", true), ("last", true)] {
        let now = |name: &str| tensor(&folder, "b", step, name);
        assert_eq!(now(conv), start(conv), "{step}");
        assert_eq!(now(transformer) != start(transformer), moves, "{step}");
        assert_ne!(now("lm_head.weight"), start("lm_head.weight"), "{step}");
    }
}
