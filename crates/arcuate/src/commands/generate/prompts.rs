//! The prompts that a user gives: as options, in a file, or on standard input.

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use super::Args;
use crate::exit;

/// Longest prompt that is read from standard input.
const MAX_PROMPT_BYTES: u64 = 16 << 20;
/// Largest file of prompts.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// A line of a `.jsonl` file; its other keys are the user's own.
#[derive(Deserialize)]
struct Line {
    prompt: String,
}

/// All prompts: those of the options, then those of the file.
pub(super) fn read(args: &Args) -> anyhow::Result<Vec<String>> {
    let mut prompts = Vec::new();
    let from_options = args.stdin.iter().chain(&args.prompt);
    if from_options.clone().filter(|prompt| *prompt == "-").count() > 1 {
        return Err(exit::usage("standard input is named twice but holds one prompt; name it once"));
    }
    for prompt in from_options {
        prompts.push(if prompt == "-" { read_stdin()? } else { prompt.clone() });
    }
    if let Some(path) = &args.prompts {
        prompts.extend(read_file(path)?);
    }
    Ok(prompts)
}

/// Standard input to its end; one line break at the end belongs to the shell, not to the prompt.
fn read_stdin() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MAX_PROMPT_BYTES + 1).read_to_end(&mut bytes);
    read.context("cannot read the prompt from standard input")?;
    if bytes.len() as u64 > MAX_PROMPT_BYTES {
        return Err(exit::usage(format!(
            "the prompt on standard input has more than {MAX_PROMPT_BYTES} bytes; shorten it"
        )));
    }
    let mut prompt = String::from_utf8(bytes)
        .map_err(|error| exit::usage(format!("the prompt on standard input is not UTF-8: {}", error.utf8_error())))?;
    if prompt.ends_with('\n') {
        prompt.pop();
    }
    Ok(prompt)
}

fn read_file(path: &Path) -> anyhow::Result<Vec<String>> {
    let shown = path.display();
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| exit::usage(format!("cannot read `{shown}`: {error}")))?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| exit::usage(format!("cannot read `{shown}`: {error}")))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(exit::usage(format!("`{shown}` has more than {MAX_FILE_BYTES} bytes; split it")));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| exit::usage(format!("`{shown}` is not UTF-8: {error}")))?;
    let is_json = path.extension().is_some_and(|ending| ending == "jsonl");
    let mut prompts = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        prompts.push(if is_json { from_json(line, path, number)? } else { line.to_owned() });
    }
    if prompts.is_empty() {
        return Err(exit::usage(format!("`{shown}` holds no prompts; write one a line")));
    }
    Ok(prompts)
}

fn from_json(line: &str, path: &Path, number: usize) -> anyhow::Result<String> {
    let line: Line = serde_json::from_str(line).map_err(|error| {
        // The line number inside the message would always be 1.
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or_default();
        let wanted = "each line must be an object with a text `prompt`";
        exit::usage(format!("`{}:{number}` is no prompt: {said}; {wanted}", path.display()))
    })?;
    Ok(line.prompt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("writable");
        read_file(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_text_file_has_a_prompt_a_line() {
        assert_eq!(file("a.txt", "\u{feff}one\r\n\n two {\n").expect("reads"), ["one", " two {"]);
    }

    #[test]
    fn a_jsonl_file_has_a_prompt_an_object() {
        let text = "{\"prompt\": \"a\\nb\"}\n\n{\"id\": 7, \"prompt\": \"\"}\n";
        assert_eq!(file("a.jsonl", text).expect("reads"), ["a\nb", ""]);
    }

    #[test]
    fn wrong_files_are_refused_with_the_line() {
        let message = file("a.jsonl", "{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n").expect_err("no prompt");
        assert!(message.contains("a.jsonl:2` is no prompt: missing field `prompt`"), "{message}");
        assert!(file("a.txt", " \n").expect_err("empty").contains("holds no prompts"));
        assert!(read_file(Path::new("nowhere.txt")).expect_err("no file").to_string().contains("`nowhere.txt`"));
    }
}
