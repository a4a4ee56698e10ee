//! Lines of bounded length: a line that is too long costs time to skip, not memory.

use std::io::BufRead;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads the next line without its end into `line`, or skips it if it is longer than `limit`.
pub(crate) fn next_line(reader: &mut impl BufRead, limit: u64, line: &mut Vec<u8>) -> std::io::Result<Line> {
    line.clear();
    let mut is_too_long = false;
    let mut has_any = false;
    loop {
        let available = match reader.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            break;
        }
        has_any = true;
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = &available[..end.unwrap_or(available.len())];
        if (line.len() + taken.len()) as u64 > limit {
            is_too_long = true;
            line.clear();
            line.shrink_to(1 << 16);
        }
        if !is_too_long {
            line.extend_from_slice(taken);
        }
        let used = taken.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            break;
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(match (has_any, is_too_long) {
        (false, _) => Line::End,
        (true, true) => Line::TooLong,
        (true, false) => Line::Whole,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    #[test]
    fn long_lines_are_skipped_and_the_rest_is_read() {
        let text = b"short\r\na line that is too long\n\nlast" as &[u8];
        let mut reader = BufReader::with_capacity(4, text);
        let mut line = Vec::new();
        let mut found = Vec::new();
        loop {
            let kind = next_line(&mut reader, 8, &mut line).expect("memory is readable");
            if kind == Line::End {
                break;
            }
            found.push((kind, String::from_utf8(line.clone()).expect("ASCII")));
        }
        let expected = [(Line::Whole, "short"), (Line::TooLong, ""), (Line::Whole, ""), (Line::Whole, "last")];
        assert_eq!(found, expected.map(|(kind, text)| (kind, text.to_owned())));
    }
}
