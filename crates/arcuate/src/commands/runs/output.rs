//! Results on standard output. A reader that closes the pipe early (`| head`) is no error.

use std::io::{IsTerminal, Write};

use anyhow::Context;
use arcuate_record::TerminalSize;
use serde::Serialize;

use crate::terminal;

/// Prints a text; a line break is added where it has none at its end.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    write(&[text, end])
}

/// Prints a value as JSON.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write the result as JSON")?;
    write(&[&text, "\n"])
}

fn write(parts: &[&str]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let result = parts.iter().try_for_each(|part| out.write_all(part.as_bytes())).and_then(|()| out.flush());
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to standard output"),
    }
}

/// Whether standard output takes colours: a terminal, and `NO_COLOR` is not set.
pub(crate) fn color() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::io::stdout().is_terminal()
}

/// How large a chart on standard output is.
pub(crate) fn chart_size() -> TerminalSize {
    TerminalSize { width: terminal::width().clamp(40, 160), height: 12, is_coloured: color() }
}

/// A text of strangers on one line, without what could steer a terminal, and not longer than `max_chars`.
pub(crate) fn one_line(text: &str, max_chars: usize) -> String {
    let line: String = text.chars().take(max_chars).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(max_chars).is_some() { line + "…" } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strange_text_cannot_steer_the_terminal() {
        assert_eq!(one_line("a\u{1b}[2J\nb", 20), "a [2J b");
        assert_eq!(one_line("abcdef", 3), "abc…");
        assert_eq!(one_line("abc", 3), "abc");
    }
}
