//! `arcuate check` of a speech recipe: what it hears, what it lists, and what it refuses.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Some recordings of the tree and some that cannot be used, in a list of its own.
fn list(dir: &TempDir) -> String {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/speech/russian").canonicalize().expect("the clips");
    let list = std::fs::read_to_string(root.join("ru.jsonl")).expect("a list");
    let mut lines = list.replace("\"audio_filepath\": \"", &format!("\"audio_filepath\": \"{}/", root.display()));
    let whole = std::fs::read(root.join("ru_0054.opus")).expect("a recording");
    std::fs::write(dir.path().join("half.opus"), &whole[..whole.len() / 2]).expect("written");
    lines += "{\"audio_filepath\": \"missing.opus\", \"duration\": 4.3, \"text\": \"нет\"}\n";
    lines += "{\"audio_filepath\": \"half.opus\", \"duration\": 4.3, \"text\": \"половина\"}\n";
    let path = dir.path().join("list.jsonl");
    std::fs::write(&path, lines).expect("written");
    path.display().to_string()
}

fn check(dir: &TempDir, path: &str, set: &[&str], flags: &[&str]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcuate"));
    command.current_dir(root).args(["check", "recipes/tiny_ctc.toml", "--no-rehearsal"]).args(flags);
    let path = format!("data.speech.source.studio.format.nemo.path={path:?}");
    let cache = format!("data.cache_dir={:?}", dir.path().join("cache").display().to_string());
    for change in [path.as_str(), cache.as_str()].iter().chain(set) {
        command.args(["--set", change]);
    }
    command.env("NO_COLOR", "1").stdin(Stdio::null()).output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn recordings_are_heard_and_findings_listed_by_reason() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = list(&dir);
    let output = check(&dir, &path, &["data.max_bad_items=6"], &[]);
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    for wanted in ["studio: heard all", "1 missing file: ", "1 broken sound: ", "half.opus", "missing.opus"] {
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
    let output = check(&dir, &path, &["data.max_bad_items=6"], &["--json", "--full-scan"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let studio = &report["scan"]["sources"]["studio"];
    let num = |key: &str| studio[key].as_u64().expect("a number");
    assert!(num("num_bad_items") >= 2 && num("num_heard_bad") == 1, "{studio}");
    assert!(studio["usable"]["utterances"].as_u64().expect("a number") > 20, "{studio}");
    assert_eq!(studio["unheard"]["utterances"], 0);
}

#[test]
fn bad_recordings_above_the_limit_are_refused_with_all_reasons() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = check(&dir, &list(&dir), &["data.max_bad_items=0"], &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    let refusal = said.lines().find(|line| line.contains("more than `data.max_bad_items`, 0")).expect("a refusal");
    assert!(refusal.contains("1 missing file") && refusal.contains("1 broken sound"), "{refusal}");
}

#[test]
fn a_source_without_anything_to_hear_is_refused_as_a_run_would() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("none.jsonl");
    std::fs::write(&path, "{\"audio_filepath\": \"missing.opus\", \"text\": \"нет\"}\n").expect("written");
    let output = check(&dir, &path.display().to_string(), &["data.max_bad_items=0"], &[]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("none.jsonl:1") && said.contains("does not exist"), "{said}");
}
