//! Lines of list files: bounded in length, with the place of everything that is wrong.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::builder::Builder;
use crate::error::{BadItem, BadReason, Error, Result};
use crate::files::InputFile;
use crate::reader::{Line, next_line};

/// Longest line of a list.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Calls `each` with every line that is not empty and its number from 1. Bad items that it returns are counted; other errors end the
/// reading, as does a line of more than [`MAX_LINE_BYTES`] in a list whose lines depend on one another.
pub(super) fn each_line(
    builder: &mut Builder<'_>,
    path: &Path,
    mut each: impl FnMut(&mut Builder<'_>, &str, u64) -> Result<()>,
) -> Result<()> {
    let file = InputFile::list(path)?;
    let mut reader = file.open(&Arc::new(AtomicU64::new(0)))?;
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        let kind = next_line(&mut reader, MAX_LINE_BYTES, &mut line).map_err(|error| file.read_error(error, number))?;
        number += 1;
        let done = match kind {
            Line::End => return Ok(()),
            Line::TooLong => {
                let detail = format!("is longer than {MAX_LINE_BYTES} bytes; this is no list of utterances");
                Err(bad(BadReason::TooLong, path, number, detail))
            }
            Line::Whole => {
                let bytes = if number == 1 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line) } else { &line };
                match std::str::from_utf8(bytes) {
                    Ok(text) if text.trim().is_empty() => Ok(()),
                    Ok(text) => each(builder, text, number),
                    Err(error) => {
                        let detail = format!("is not UTF-8 (byte {} of the line)", error.valid_up_to() + 1);
                        Err(bad(BadReason::NonUtf8, path, number, detail))
                    }
                }
            }
        };
        builder.count(done)?;
    }
}

/// A bad item at a line of a list.
pub(super) fn bad(reason: BadReason, path: &Path, line: u64, detail: impl Into<String>) -> Error {
    let place = if line == 0 { path.display().to_string() } else { format!("{}:{line}", path.display()) };
    Error::BadItem(BadItem { reason, place, detail: detail.into() })
}
