//! What every Rust file must have and what none may have.

use crate::tree::{Source, assert_none, sources};

const MAX_LINES: usize = 800;
/// Files that may be longer, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Words that may not stand in code outside of tests.
const BANNED: &[(&str, &str)] = &[
    ("dbg!(", "remove it"),
    ("todo!(", "write it"),
    ("unimplemented!(", "write it"),
    (".unwrap()", "return an error, or `expect` why it cannot fail"),
    ("#[ignore", "a test runs or is not there"),
];

/// What only the command line may do.
const COMMAND_LINE_ONLY: &[&str] = &["println!(", "eprintln!(", "print!(", "eprint!(", "env::var", "process::exit"];
/// Library files that do one of these with a reason.
const ALLOWED: &[(&str, &str, &str)] =
    &[("crates/arcuate-ops/src/cpu/simd.rs", "env::var", "tests of every crate can be run with each instruction set")];

fn places(source: &Source, word: &str) -> Vec<String> {
    source
        .code()
        .into_iter()
        .filter(|(_, line)| contains(line, word))
        .map(|(line, _)| format!("{}:{line}", source.path))
        .collect()
}

/// Whether the word stands in the line and not inside of a longer name.
fn contains(line: &str, word: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts_a_name = word.bytes().next().is_some_and(is_name);
    line.match_indices(word).any(|(at, _)| at == 0 || !starts_a_name || !is_name(line.as_bytes()[at - 1]))
}

fn is_library(source: &Source) -> bool {
    !source.path.starts_with("crates/arcuate/") && !source.path.starts_with("xtask/")
}

#[test]
fn every_file_begins_with_a_module_comment() {
    let found: Vec<String> =
        sources().into_iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.path).collect();
    assert_none("line one must be a module comment `//! `", &found);
}

#[test]
fn no_file_is_longer_than_a_reader_can_bear() {
    let mut found = Vec::new();
    for file in sources() {
        let lines = file.text.lines().count();
        if lines > MAX_LINES && LONG_FILES.iter().all(|(path, _)| *path != file.path) {
            found.push(format!("{} has {lines} lines", file.path));
        }
    }
    assert_none("split files of more than 800 lines", &found);
}

#[test]
fn banned_words_do_not_occur() {
    let mut found = Vec::new();
    for file in sources() {
        for (word, remedy) in BANNED {
            found.extend(places(&file, word).into_iter().map(|place| format!("{place}: `{word}`; {remedy}")));
        }
    }
    assert_none("banned words", &found);
}

#[test]
fn serde_attributes_keep_places_and_unknown_keys() {
    let mut found = Vec::new();
    for file in sources() {
        for (line, text) in file.code() {
            let is_attribute =
                text.trim_start().starts_with("#[serde(") || text.trim_start().starts_with("#[schemars(");
            if is_attribute && ["flatten", "untagged"].iter().any(|word| text.contains(word)) {
                found.push(format!("{}:{line}", file.path));
            }
        }
    }
    assert_none("`flatten` and `untagged` lose line numbers and the check for unknown keys", &found);
}

#[test]
fn only_the_command_line_prints_reads_the_environment_and_exits() {
    let mut found = Vec::new();
    for file in sources().iter().filter(|file| is_library(file)) {
        for word in COMMAND_LINE_ONLY {
            if ALLOWED.iter().all(|(path, allowed, _)| *path != file.path || allowed != word) {
                found.extend(places(file, word).into_iter().map(|place| format!("{place}: `{word}`")));
            }
        }
    }
    assert_none("return it to the `arcuate` crate", &found);
}

#[test]
fn names_of_tests_are_statements() {
    let mut found = Vec::new();
    for file in sources() {
        let lines = file.text.lines().zip(file.text.lines().skip(1));
        let tests = lines.filter(|(attribute, _)| attribute.trim() == "#[test]").map(|(_, function)| function.trim());
        let wrong = tests.filter(|function| function.starts_with("fn test_"));
        found.extend(wrong.map(|function| format!("{}: {function}", file.path)));
    }
    assert_none("name a test by what holds, without `test_`", &found);
}

#[test]
fn a_word_inside_a_longer_name_is_another_word() {
    assert!(contains("x.unwrap()", ".unwrap()"));
    assert!(contains("    print!(\"\")", "print!("));
    assert!(!contains("    eprint!(\"\")", "print!("));
}
