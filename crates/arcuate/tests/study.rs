//! Promises of a study, on the built program: a verdict, a kill at any time, failures that do not spread, shards, bad files.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;

struct Folder {
    dir: tempfile::TempDir,
}

/// Two arms of a run of seconds; the second begins with the weights of a shared step.
const STUDY: &str = r#"
name = "small"
claim = "twice as many steps help"
refuted_if = "they do not"
seeds = [1, 2]
metric = { name = "eval/bits_per_byte", better = "lower", take = "last" }
budget = { steps = { of = "last_training" } }
decision = { test = "paired_t", interval = "t", confidence = 0.95, correction = "holm" }
[[shared]]
name = "base"
recipe = "recipes/tiny.toml"
set = { "data.cache_dir" = "CACHE", "horizon.steps" = 12 }
[[arm]]
name = "scratch"
recipe = "recipes/tiny.toml"
from = { "tokenizer.file.path" = "base" }
set = { "data.cache_dir" = "CACHE", "horizon.steps" = 12 }
[[arm]]
name = "further"
[[arm.step]]
name = "train"
recipe = "recipes/tiny.toml"
from = { "tokenizer.file.path" = "base", init_from = "base" }
set = { "data.cache_dir" = "CACHE", "horizon.steps" = 12 }
[[arm.step]]
name = "measure"
eval = { task = "held-out", models = ["train"] }
[[contrast]]
name = "gain"
arm = "further"
against = "scratch"
expected = "better"
smallest_effect = 0.01
[[paper]]
what = "gain"
figure = "-0.1"
place = "Table 1"
beside = "gain"
"#;

const RUNS: [&str; 7] = [
    "base",
    "scratch-seed1",
    "further.train-seed1",
    "further.measure-seed1",
    "scratch-seed2",
    "further.train-seed2",
    "further.measure-seed2",
];

impl Folder {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder") }
    }

    fn file(&self, change: impl Fn(String) -> String) -> PathBuf {
        let path = self.dir.path().join("small.study.toml");
        let text = STUDY.replace("CACHE", &self.dir.path().join("cache").display().to_string());
        std::fs::write(&path, change(text)).expect("writable");
        path
    }

    fn command(&self, words: &[&str], file: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arcuate"));
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).arg(words[0]).arg(file);
        command.arg("--runs-dir").arg(self.dir.path().join("runs")).args(&words[1..]).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str], file: &Path) -> Output {
        self.command(words, file).output().expect("it starts")
    }

    fn study(&self) -> PathBuf {
        self.dir.path().join("runs/small")
    }

    fn results(&self) -> Value {
        let text = std::fs::read_to_string(self.study().join("results.json")).expect("results");
        serde_json::from_str(&text).expect("JSON")
    }

    fn state(&self, run: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.study().join(run).join("status.json")).ok()?;
        let status: Value = serde_json::from_str(&text).expect("JSON");
        Some(status["state"].as_str().expect("a state").to_owned())
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_study_runs_to_its_report_and_a_second_time_does_nothing() {
    let folder = Folder::new();
    let file = folder.file(|text| text);
    let output = folder.run(&["run"], &file);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("verdict ") && text(&output).contains("further - scratch"), "{}", text(&output));
    let results = folder.results();
    assert_eq!(results["num_done"], 7);
    assert_eq!(results["contrasts"][0]["effects"].as_array().map(Vec::len), Some(2));
    for file in ["report.html", "report.md", "figure-1.svg", "rule.json", "study.toml", "logs/base.log"] {
        assert!(folder.study().join(file).is_file(), "{file}");
    }
    let page = std::fs::read_to_string(folder.study().join("report.html")).expect("a page");
    assert!(page.contains("Table 1") && page.contains("Recipe keys in which the arms differ"));
    let weights = |run: &str| std::fs::read(folder.study().join(run).join("checkpoints/last/model.safetensors"));
    let before = weights("scratch-seed1").expect("weights");
    let again = folder.run(&["run", "--jobs", "2"], &file);
    assert!(again.status.success());
    assert_eq!(text(&again).matches("done already").count(), 7, "{}", text(&again));
    assert!(weights("scratch-seed1").expect("weights") == before);
    // A run of a study is a run as any other.
    let names = ["small/scratch-seed1", "small/further.train-seed1"];
    let compared = Command::new(env!("CARGO_BIN_EXE_arcuate"))
        .args(["runs", "compare", names[0], names[1], "--runs-dir"])
        .arg(folder.dir.path().join("runs"))
        .output()
        .expect("it starts");
    assert!(compared.status.success() && text(&compared).contains("eval/bits_per_byte"), "{}", text(&compared));
    let whole = Command::new(env!("CARGO_BIN_EXE_arcuate"))
        .args(["runs", "compare", "small", "--json", "--runs-dir"])
        .arg(folder.dir.path().join("runs"))
        .output()
        .expect("it starts");
    let whole: Value = serde_json::from_slice(&whole.stdout).expect("JSON");
    assert_eq!(whole["runs"].as_array().map(Vec::len), Some(7));
}

#[test]
fn a_killed_study_goes_on_and_repeats_nothing() {
    let folder = Folder::new();
    let file = folder.file(|text| text);
    let mut child =
        folder.command(&["run"], &file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    for _ in 0..1200 {
        if folder.state("scratch-seed1").is_some() {
            break;
        }
        assert!(child.try_wait().expect("a child").is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().expect("it runs");
    child.wait().expect("a child");
    assert_eq!(folder.state("base").as_deref(), Some("done"));
    let started = |run: &str| std::fs::read_to_string(folder.study().join(run).join("status.json")).expect("a status");
    let before = started("base");
    let output = folder.run(&["run"], &file);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(started("base"), before, "what was done is not touched");
    assert!(RUNS.iter().all(|run| folder.state(run).as_deref() == Some("done")));
    assert!(
        std::fs::read_dir(folder.study()).expect("a folder").flatten().all(|entry| !entry
            .path()
            .display()
            .to_string()
            .contains(".old-"))
    );
}

#[test]
fn a_failing_arm_does_not_lose_the_others() {
    let folder = Folder::new();
    // The health referee stops every run of this arm.
    let wild = "\"horizon.steps\" = 12, \"optimizer.adamw.peak_learning_rate\" = 1e30, schedule = { constant = {} } }";
    let arms = |text: String| {
        let (start, arms) = text.split_once("[[arm]]").expect("there are arms");
        format!("{start}[[arm]]{}", arms.replacen("\"horizon.steps\" = 12 }", wild, 1))
    };
    let file = folder.file(arms);
    let output = folder.run(&["run"], &file);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(
        text(&output).contains("2 of 7 runs failed") && text(&output).contains("logs/scratch-seed1.log"),
        "{}",
        text(&output)
    );
    assert_eq!(folder.state("further.measure-seed2").as_deref(), Some("done"));
    assert_eq!(folder.results()["verdict"], "inconclusive");
    assert!(folder.results()["reason"].as_str().is_some_and(|reason| reason.contains("only 0 of 2 seeds")));
}

#[test]
fn shards_and_arms_make_up_the_whole() {
    let folder = Folder::new();
    let file = folder.file(|text| text);
    let first = folder.run(&["run", "--shard", "1/2"], &file);
    assert!(first.status.success(), "{}", text(&first));
    assert!(folder.state("further.measure-seed1").is_none() && folder.state("scratch-seed2").is_some());
    let rest = folder.run(&["run", "--only", "further"], &file);
    assert!(rest.status.success(), "{}", text(&rest));
    assert_eq!(folder.results()["num_done"], 7);
    for (words, message) in
        [(["run", "--shard", "3/2"], "is not a shard"), (["run", "--only", "farther"], "there is no arm `farther`")]
    {
        let output = folder.run(&words, &file);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output).contains(message), "{}", text(&output));
    }
}

#[test]
fn a_check_costs_the_whole_and_names_every_mistake() {
    let folder = Folder::new();
    let output = folder.run(&["check", "--json"], &folder.file(|text| text));
    assert!(output.status.success(), "{}", text(&output));
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    let result: Value = serde_json::from_str(line.lines().last().expect("a line")).expect("JSON");
    assert_eq!((result["runs"].as_u64(), result["left"].as_u64()), (Some(7), Some(7)));
    assert!(result["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{result}");
    assert!(result["disk_bytes"].as_f64().is_some_and(|bytes| bytes > 1e5), "{result}");
    assert!(!folder.study().exists(), "a check makes no run");
    let wrong = folder.file(|text| {
        text.replace("against = \"scratch\"", "against = \"scrach\"")
            .replace("[1, 2]", "[1]")
            .replace("init_from = \"base\"", "init_from = \"bse\"")
    });
    for command in ["check", "run"] {
        let output = folder.run(&[command], &wrong);
        assert_eq!(output.status.code(), Some(2));
        for message in ["did you mean `scratch`?", "1 seed cannot show", "there is no step `bse`", "small.study.toml:"]
        {
            assert!(text(&output).contains(message), "{message}: {}", text(&output));
        }
    }
    assert!(!folder.study().exists());
}
