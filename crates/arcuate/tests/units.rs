//! Masked prediction of units, on the built program: units of MFCC, pretraining on them, units of a layer, and what is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

const RECIPE: &str = "recipes/tiny_hubert.toml";

/// A temporary folder with units and runs.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arcuate"));
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).env("NO_COLOR", "1").args(args);
        command
    }

    /// `arcuate data units` into the folder `name`.
    fn units(&self, name: &str, more: &[&str]) -> Output {
        let dir = self.at(name).display().to_string();
        let args = ["data", "units", RECIPE, "--num-units", "16", "--json", "--output", &dir];
        self.command(&[&args, more].concat()).output().expect("it starts")
    }

    /// `arcuate run` on the units of the folder `name`.
    fn run(&self, runs: &str, name: &str, set: &[&str]) -> Command {
        let units = format!("data.speech.units={:?}", self.at(name).display().to_string());
        let mut command = self.command(&["run", RECIPE, "--runs-dir"]);
        command.arg(self.at(runs)).args(["--set", &units]);
        for change in set {
            command.args(["--set", change]);
        }
        command
    }

    fn metrics(&self, runs: &str, kind: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.at(runs).join("tiny-hubert/metrics.jsonl")).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.filter(|value| value["kind"] == kind).collect()
    }

    fn losses(&self, runs: &str) -> Vec<f64> {
        self.metrics(runs, "train").iter().map(|value| value["loss"].as_f64().expect("a number")).collect()
    }

    fn weights(&self, runs: &str) -> Vec<u8> {
        fs::read(self.at(runs).join("tiny-hubert/checkpoints/last/model.safetensors")).expect("a checkpoint")
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn succeeds(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn refused(output: &Output, code: i32, message: &str) {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    let said = text(output);
    // Messages may be broken into lines.
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains(message) && !said.contains("panicked"), "{said}");
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn units_of_mfcc_are_learnt_and_a_layer_gives_the_next_ones() {
    let folder = Folder::new();
    let told = succeeds(&folder.units("mfcc", &[]));
    assert_eq!((told["utterances"].as_u64(), told["unused"].as_u64()), (Some(36), Some(0)), "{told}");
    assert!(told["perplexity"].as_f64().expect("a number") > 8.0, "{told}");
    let output = folder.run("first", "mfcc", &[]).output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output));
    let losses = folder.losses("first");
    assert_eq!(losses.len(), 60);
    let (first, last) = (mean(&losses[..5]), mean(&losses[55..]));
    assert!(last < first - 0.2, "{losses:?}");
    let held_out = folder.metrics("first", "eval");
    let last = |key: &str| held_out.last().expect("an evaluation")[key].as_f64().expect("a number");
    assert!(last("accuracy") > 2.0 / 16.0, "{held_out:?}");
    // More is known than how frequent each unit is.
    let entropy = told["perplexity"].as_f64().expect("a number").ln();
    assert!(last("loss") < entropy - 0.15, "{entropy} {held_out:?}");

    let model = folder.at("first/tiny-hubert/checkpoints/last").display().to_string();
    let told = succeeds(&folder.units("layer", &["--model", &model, "--layer", "1"]));
    // A unit every 20 ms in place of one every 10 ms.
    let lines = |name: &str| fs::read_to_string(folder.at(name).join("units.jsonl")).expect("lines").lines().count();
    assert_eq!((lines("layer"), told["utterances"].as_u64()), (36, Some(36)));
    let about: Value =
        serde_json::from_str(&fs::read_to_string(folder.at("layer/units.json")).expect("a file")).expect("JSON");
    assert_eq!(
        (about["hop_seconds"].as_f64(), about["made"]["features"]["layer"]["layer"].as_u64()),
        (Some(0.02), Some(1))
    );
    let output = folder.run("second", "layer", &["horizon.steps=4"]).output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(folder.losses("second").len(), 4);
}

#[test]
fn the_same_seed_gives_the_same_units_also_after_an_interruption() {
    let folder = Folder::new();
    succeeds(&folder.units("a", &[]));
    succeeds(&folder.units("b", &["--seed", "17"]));
    succeeds(&folder.units("c", &["--seed", "18"]));
    let bytes = |name: &str, file: &str| fs::read(folder.at(name).join(file)).expect("a file");
    for file in ["units.jsonl", "centroids.safetensors"] {
        assert!(bytes("a", file) == bytes("b", file), "{file}");
        assert!(bytes("a", file) != bytes("c", file), "{file}");
    }
    refused(&folder.units("a", &[]), 4, "is there already; name another folder");
    // As a killed process leaves it.
    fs::rename(folder.at("a"), folder.at("d.part")).expect("renamed");
    let lines = bytes("b", "units.jsonl");
    fs::write(folder.at("d.part/units.jsonl"), &lines[..lines.len() / 2]).expect("written");
    let told = succeeds(&folder.units("d", &[]));
    assert!((1..36).contains(&told["utterances"].as_u64().expect("a number")), "{told}");
    assert!(bytes("d", "units.jsonl") == lines && !folder.at("d.part").exists());
}

#[test]
fn a_stopped_run_on_units_goes_on_as_if_nothing_had_happened() {
    let folder = Folder::new();
    succeeds(&folder.units("units", &[]));
    // Rows of 50 frames are cut out of longer recordings, each time at another place.
    let set = ["horizon.steps=12", "checkpoint.every_steps=4", "evaluation.every_steps=12", "batch.max_seq_len=50"];
    let output = folder.run("whole", "units", &set).output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output));
    let mut child = folder.run("parts", "units", &set).stderr(Stdio::null()).spawn().expect("it starts");
    for _ in 0..600 {
        if folder.metrics("parts", "train").len() >= 5 {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("it runs");
    child.wait().expect("a child");
    assert!(folder.losses("parts").len() >= 5);
    let output = folder.run("parts", "units", &set).output().expect("it starts");
    assert!(output.status.success() && text(&output).contains("resume"), "{}", text(&output));
    assert_eq!(folder.losses("parts"), folder.losses("whole"));
    assert!(folder.weights("parts") == folder.weights("whole"), "the weights differ");
}

#[test]
fn units_that_do_not_fit_are_refused_before_the_first_step() {
    let folder = Folder::new();
    succeeds(&folder.units("units", &[]));
    let good = fs::read_to_string(folder.at("units/units.jsonl")).expect("lines");
    let about = fs::read_to_string(folder.at("units/units.json")).expect("a file");
    let run = |set: &[&str]| {
        let output = folder.run("runs", "units", set).output().expect("it starts");
        assert!(folder.losses("runs").is_empty());
        fs::remove_dir_all(folder.at("runs")).ok();
        output
    };
    let write = |file: &str, text: &str| fs::write(folder.at("units").join(file), text).expect("written");
    let second = good.lines().nth(1).expect("a line");
    write("units.jsonl", &good.replace(&format!("{second}\n"), ""));
    refused(&run(&[]), 4, "units.jsonl` has no line of the source `studio` with the id");
    let longer = second.replacen('[', &format!("[{}", "0,".repeat(100)), 1);
    write("units.jsonl", &good.replace(second, &longer));
    refused(&run(&[]), 4, "units.jsonl:2` has");
    write("units.jsonl", &good.replace(second, &second.replacen('[', "[16,", 1)));
    refused(&run(&[]), 4, "units.jsonl:2` has the unit 16");
    write("units.jsonl", &good);
    write("units.json", &about.replace("\"hop_seconds\": 0.01", "\"hop_seconds\": 0.04"));
    refused(&run(&[]), 4, "the units come every 40.0 ms, but the network makes a frame every 20.0 ms");
    fs::remove_file(folder.at("units/units.json")).expect("it was there");
    refused(&run(&[]), 2, "there are no units in");
}

#[test]
fn wrong_arguments_are_refused_with_a_remedy() {
    let folder = Folder::new();
    refused(&folder.units("a", &["--model", "nowhere"]), 2, "--layer");
    refused(&folder.units("a", &["--model", "nowhere", "--layer", "1"]), 2, "`nowhere` does not exist");
    let output =
        folder.command(&["data", "units", "recipes/tiny.toml", "--num-units", "4"]).output().expect("it starts");
    refused(&output, 2, "has no recordings; add `[data.speech]`");
    let output =
        folder.command(&["data", "units", "recipes/tiny_ctc.toml", "--num-units", "4"]).output().expect("it starts");
    refused(&output, 2, "names no folder; add `units` to `[data.speech]`, or use `--output`");
    refused(&folder.units("a", &["--fit-frames", "5"]), 4, "5 rows cannot be told apart by 16 units");
    assert!(!folder.at("a").exists());
}
