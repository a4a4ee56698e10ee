//! Lines of a file that may be torn, huge or not text; memory stays bounded.

use std::io::{self, BufRead};

/// Longer lines are passed over instead of being held in memory.
pub(crate) const MAX_LINE_BYTES: usize = 16 << 20;

/// One step through a file of lines.
pub(crate) struct Line {
    /// Bytes taken from the file, with the line feed.
    pub(crate) num_bytes: u64,
    /// Whether a line feed was there: the last line of a killed process may be torn.
    pub(crate) is_complete: bool,
    /// Whether the line was longer than [`MAX_LINE_BYTES`] (its content is then cut off).
    pub(crate) is_too_long: bool,
}

/// Reads the next line into `buffer`, without its line feed. `None` at the end of the file.
pub(crate) fn next_line(reader: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<Option<Line>> {
    buffer.clear();
    let mut line = Line { num_bytes: 0, is_complete: false, is_too_long: false };
    loop {
        let available = match reader.fill_buf() {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if available.is_empty() {
            return Ok((line.num_bytes > 0).then_some(line));
        }
        let end = available.iter().position(|&byte| byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        if buffer.len() + part.len() > MAX_LINE_BYTES {
            line.is_too_long = true;
        } else if !line.is_too_long {
            buffer.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        line.num_bytes += used as u64;
        reader.consume(used);
        if end.is_some() {
            line.is_complete = true;
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_marked() {
        let mut reader: &[u8] = b"one\n\ntwo";
        let mut buffer = Vec::new();
        let mut seen = Vec::new();
        while let Some(line) = next_line(&mut reader, &mut buffer).expect("reads from memory") {
            seen.push((buffer.clone(), line.num_bytes, line.is_complete));
        }
        assert_eq!(seen, [(b"one".to_vec(), 4, true), (b"".to_vec(), 1, true), (b"two".to_vec(), 3, false)]);
    }

    #[test]
    fn an_endless_line_does_not_fill_memory() {
        let bytes = io::Read::take(io::repeat(b'x'), 3 * MAX_LINE_BYTES as u64);
        let mut buffer = Vec::new();
        let line = next_line(&mut io::BufReader::new(bytes), &mut buffer).expect("reads").expect("one line");
        assert!(line.is_too_long && buffer.len() <= MAX_LINE_BYTES);
    }
}
