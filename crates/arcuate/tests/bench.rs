//! `arcuate bench` as a user calls it, on sizes that take no time. What the clock said is not looked at.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcuate"));
    command.arg("bench").args(args).env("NO_COLOR", "1").output().expect("the program starts")
}

const TINY: &[&str] = &[
    "--steps",
    "1",
    "--threads",
    "1",
    "--set",
    "batch=2",
    "--set",
    "seq_len=8",
    "--set",
    "vocab=20",
    "--set",
    "hidden=8",
    "--set",
    "heads=2",
    "--set",
    "layers=1",
    "--set",
    "inner=12",
    "--set",
    "labels=2",
    "--set",
    "frames=9",
];

#[test]
fn rows_of_several_processes_come_in_one_answer() {
    let output = bench(&[&["gpt", "ctc", "--json", "--precision", "bf16"], TINY].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let rows = answer["rows"].as_array().expect("rows");
    assert_eq!(rows.iter().map(|row| row["row"].as_str()).collect::<Vec<_>>(), [Some("gpt"), Some("ctc")]);
    assert_eq!(rows[0]["sizes"]["vocab"], 20);
    assert!(rows[0]["sizes"].get("frames").is_none(), "only the sizes that a row has");
    for row in rows {
        assert_eq!((row["precision"].as_str(), row["threads"].as_u64()), (Some("bf16"), Some(1)));
        assert!(row["median_ms"].is_number() && row["peak_bytes"].as_u64() > row["start_bytes"].as_u64());
    }
}

#[test]
fn a_table_is_printed_for_people() {
    let output = bench(&[&["decode"], &TINY[..6], &["--set", "new_tokens=2", "--set", "layers=1"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("row") && text.contains("tokens/s"), "{text}");
}

#[test]
fn wrong_arguments_exit_with_two_and_say_what_there_is() {
    for (args, part) in [
        (&["gtp"][..], "possible values"),
        (&["gpt", "--set", "frames=3"], "there is no such size"),
        (&["gpt", "--set", "heads=5"], "5 heads do not divide hidden_size 384"),
        (&["gpt", "--steps", "0"], "--steps 0"),
        (&["gpt", "--set", "vocab=16000000", "--set", "hidden=16000000", "--set", "heads=1"], "are free"),
    ] {
        let output = bench(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(part), "{args:?}: {said}");
    }
}
