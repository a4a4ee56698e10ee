//! The memory that `check` expects is what a run takes: within a fifth, on the quickstart and on two other sizes.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

fn arcuate(args: &[&str]) -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO_BIN_EXE_arcuate")).current_dir(root).args(args).output().expect("it starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Expected and measured peak in bytes of a few steps of the quickstart with some keys changed.
fn check(changes: &[&str]) {
    check_recipe("recipes/quickstart.toml", changes);
}

/// The same of any recipe.
fn check_recipe(recipe: &str, changes: &[&str]) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let cache = format!("data.cache_dir={:?}", dir.path().join("cache").display().to_string());
    let mut set = vec!["--set", &cache, "--set", "horizon.steps=8", "--set", "schedule={constant={}}"];
    for change in changes {
        set.extend(["--set", change]);
    }
    let plan = arcuate(&[&["check", recipe, "--no-rehearsal", "--json"], &set[..]].concat());
    let expected = plan[0]["plan"]["memory"]["expected"].as_f64().expect("a number");
    let runs = dir.path().join("runs").display().to_string();
    let lines = arcuate(&[&["run", recipe, "--json", "--runs-dir", &runs], &set[..]].concat());
    let measured = lines
        .iter()
        .filter_map(|line| line["peak_memory_bytes"].as_f64().or(line["memory_bytes"].as_f64()))
        .fold(0.0, f64::max);
    let ratio = expected / measured;
    assert!(
        (0.8..=1.2).contains(&ratio),
        "{changes:?}: expected {expected:.3e}, measured {measured:.3e}, ratio {ratio:.2}"
    );
}

#[test]
fn the_quickstart_takes_what_is_expected() {
    check(&[]);
}

#[test]
fn a_wider_model_takes_what_is_expected() {
    check(&[
        "model.llama.hidden_size=384",
        "model.llama.num_layers=6",
        "model.llama.intermediate_size=1024",
        "batch.microbatch=4",
        "evaluation.compare_with_lzma=false",
    ]);
}

#[test]
fn a_larger_batch_takes_what_is_expected() {
    check(&["batch.microbatch=32", "evaluation.compare_with_lzma=false"]);
}

#[test]
fn activation_checkpointing_takes_what_is_expected() {
    check(&["batch.microbatch=32", "activation_checkpointing=true", "evaluation.compare_with_lzma=false"]);
}

#[test]
fn convolutions_take_what_is_expected() {
    // Large enough to need more than the preparation of the texts.
    let front = "model.bert.conv_front={num_layers=2,kernel=[3,3],channels=64}";
    let sizes = ["batch.microbatch=32", "tokenizer.wordpiece.vocab_size=400", "data.held_out_fraction=0.02"];
    check_recipe("recipes/century.pretrain.toml", &[&[front, "horizon.steps=3"], &sizes[..]].concat());
}
