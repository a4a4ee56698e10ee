//! What goes to the terminal: colours, lines of the form `label   text`, progress bars.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Whether standard error takes colours: a terminal, and `NO_COLOR` is not set.
pub(crate) fn color() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()) && std::io::stderr().is_terminal()
}

/// Width of the terminal in columns.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size().map_or(100, |(w, _)| usize::from(w.0))
}

/// Prints `label   text` to standard error, where all progress goes; results go to standard output.
pub(crate) fn say(label: &str, text: &str) {
    let bold = if color() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    for (i, line) in text.lines().enumerate() {
        let label = if i == 0 { label } else { "" };
        note(&format!("{}{label:<8}{}{line}", bold.0, bold.1));
    }
}

/// A line to standard error; a reader that went away does not end a run.
pub(crate) fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A line that the next one replaces, to a terminal on standard error.
pub(crate) fn draft(line: &str) {
    let tail: String =
        line.chars().rev().take(width().saturating_sub(1)).collect::<Vec<_>>().into_iter().rev().collect();
    let mut out = std::io::stderr();
    let _ = write!(out, "\r\x1b[K{tail}").and_then(|()| out.flush());
}

/// A line to standard output; a reader that went away does not end a run.
pub(crate) fn result(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A progress bar over bytes or items with time left; it shows nothing when standard error is no terminal.
pub(crate) fn bar(label: &'static str, total: u64, bytes: bool) -> ProgressBar {
    let bar = ProgressBar::new(total);
    let amounts = if bytes { "{bytes}/{total_bytes}" } else { "{human_pos}/{human_len}" };
    let style = format!("{{prefix:<8}}[{{bar:24}}] {{percent:>3}}%  {amounts}  {{msg}}  {{eta}} left");
    bar.set_style(ProgressStyle::with_template(&style).expect("a sound template").progress_chars("=> "));
    bar.set_prefix(label);
    bar
}

/// Seconds as a reader says them.
pub(crate) fn duration(seconds: f64) -> String {
    let s = Duration::from_secs_f64(seconds.clamp(0.0, 1e9)).as_secs();
    match s {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// A number with its thousands shortened.
pub(crate) fn amount(n: f64) -> String {
    match n {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e4 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}
