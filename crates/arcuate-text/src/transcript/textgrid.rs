//! Praat TextGrid: written in the long form; read in the long and the short form.
//!
//! The intervals of a tier tile the recording; silence is an interval without text. As Praat itself does, reading looks only at
//! free-standing numbers, quoted texts and flags, and at nothing that stands around them. Praat writes UTF-16 where it wants to.

use std::fmt::Write as _;

use super::{Segment, Span, Tier, Transcript, check_size, milliseconds, one_line};
use crate::{Error, Result};

pub(super) fn write(transcript: &Transcript) -> String {
    let end = milliseconds(transcript.duration_seconds).max(1);
    let tiers: Vec<(String, Vec<Interval>)> =
        transcript.tiers().into_iter().map(|(name, spans)| (name, tiles(&spans, end))).collect();
    let mut text = format!(
        "File type = \"ooTextFile\"\nObject class = \"TextGrid\"\n\nxmin = 0 \nxmax = {} \ntiers? <exists> \nsize = {} \nitem []: \n",
        seconds(end),
        tiers.len()
    );
    for (number, (name, intervals)) in tiers.iter().enumerate() {
        let _ = write!(
            text,
            "    item [{}]:\n        class = \"IntervalTier\" \n        name = {} \n        xmin = 0 \n        xmax = {} \n        \
             intervals: size = {} \n",
            number + 1,
            quoted(name),
            seconds(end),
            intervals.len()
        );
        for (number, interval) in intervals.iter().enumerate() {
            let _ = write!(
                text,
                "        intervals [{}]:\n            xmin = {} \n            xmax = {} \n            text = {} \n",
                number + 1,
                seconds(interval.start),
                seconds(interval.end),
                quoted(&interval.text)
            );
        }
    }
    text
}

/// Start and end in milliseconds.
#[derive(Debug, PartialEq)]
struct Interval {
    start: u64,
    end: u64,
    text: String,
}

/// Intervals without gaps from 0 to the end. What lasts no time joins the text before it, or after it if there is none.
fn tiles(spans: &[Span<'_>], total: u64) -> Vec<Interval> {
    let mut tiles: Vec<Interval> = Vec::new();
    let mut place = 0;
    let mut waiting = String::new();
    for span in spans {
        let (start, end) = (milliseconds(span.start).clamp(place, total), milliseconds(span.end).min(total));
        if end <= start {
            let joined =
                tiles.iter_mut().rev().find(|tile| !tile.text.is_empty()).map_or(&mut waiting, |tile| &mut tile.text);
            *joined = one_line(&format!("{joined} {}", span.text));
            continue;
        }
        if start > place {
            tiles.push(Interval { start: place, end: start, text: String::new() });
        }
        let text = one_line(&format!("{} {}", std::mem::take(&mut waiting), span.text));
        tiles.push(Interval { start, end, text });
        place = end;
    }
    if place < total || tiles.is_empty() {
        tiles.push(Interval { start: place, end: total, text: waiting });
    }
    tiles
}

fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// The tiers of a TextGrid: intervals with text, and points as segments without length.
///
/// # Errors
/// Anything that is no TextGrid, with its line.
pub fn read_textgrid(bytes: &[u8]) -> Result<Vec<Tier>> {
    check_size("TextGrid", bytes)?;
    let text = decode(bytes)?;
    let mut reader = Reader { rest: &text, line: 1 };
    let wanted = |reader: &Reader<'_>, what: &str, found: &str| {
        Err(reader.error(format!("`{what}` was expected, not `{}`", found.chars().take(40).collect::<String>())))
    };
    for what in ["ooTextFile", "TextGrid"] {
        let found = reader.text()?;
        if found != what {
            return wanted(&reader, what, &found);
        }
    }
    let (_start, _end) = (reader.number()?, reader.number()?);
    if reader.flag()? != "exists" {
        return Ok(Vec::new());
    }
    let num_tiers = reader.count()?;
    let mut tiers = Vec::new();
    for _ in 0..num_tiers {
        let class = reader.text()?;
        let is_points = match class.as_str() {
            "IntervalTier" => false,
            "TextTier" => true,
            _ => return wanted(&reader, "IntervalTier", &class),
        };
        let name = reader.text()?;
        let (_start, _end) = (reader.number()?, reader.number()?);
        let num_items = reader.count()?;
        let mut segments = Vec::new();
        for _ in 0..num_items {
            let start_seconds = reader.number()?;
            let end_seconds = if is_points { start_seconds } else { reader.number()? };
            if end_seconds < start_seconds {
                return Err(
                    reader.error(format!("an interval ends at {end_seconds}, before its start at {start_seconds}"))
                );
            }
            let text = one_line(&reader.text()?);
            if !text.is_empty() {
                segments.push(Segment { start_seconds, end_seconds, text, ..Segment::default() });
            }
        }
        segments.sort_by(|a, b| a.start_seconds.total_cmp(&b.start_seconds));
        tiers.push(Tier { name, segments });
    }
    Ok(tiers)
}

/// UTF-8, or UTF-16 where its mark stands in front.
fn decode(bytes: &[u8]) -> Result<String> {
    let broken = |line, message: &str| Error::Transcript { format: "TextGrid", line, message: message.to_owned() };
    let wide = |pair: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes[2..].chunks_exact(2).map(|unit| pair([unit[0], unit[1]])).collect();
        String::from_utf16(&units).map_err(|_| broken(1, "it is not UTF-16, as its first bytes say; save it as UTF-8"))
    };
    match bytes {
        [0xfe, 0xff, ..] => wide(u16::from_be_bytes),
        [0xff, 0xfe, ..] => wide(u16::from_le_bytes),
        _ => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            let text = std::str::from_utf8(bytes).map_err(|error| {
                let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
                broken(line, "it is not UTF-8; save it as UTF-8")
            })?;
            Ok(text.to_owned())
        }
    }
}

/// Takes one value after the other.
struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

/// A value of the file.
enum Value {
    Number(f64),
    Text(String),
    Flag(String),
}

impl Reader<'_> {
    fn error(&self, message: String) -> Error {
        Error::Transcript { format: "TextGrid", line: self.line, message }
    }

    fn advance(&mut self, num_bytes: usize) {
        let (passed, rest) = self.rest.split_at(num_bytes);
        self.line += passed.matches('\n').count();
        self.rest = rest;
    }

    /// The next number, text or flag; words and comments are passed over.
    fn next(&mut self) -> Result<Value> {
        loop {
            let space = self.rest.len() - self.rest.trim_start().len();
            self.advance(space);
            let Some(first) = self.rest.chars().next() else {
                return Err(self.error("the file ends too early; it is not complete".to_owned()));
            };
            if first == '"' {
                return Ok(Value::Text(self.quoted()?));
            }
            let end = if first == '!' { self.rest.find('\n') } else { self.rest.find(char::is_whitespace) };
            let word = &self.rest[..end.unwrap_or(self.rest.len())];
            let flag = word.strip_prefix('<').and_then(|word| word.strip_suffix('>'));
            let number = word.trim_end_matches('%').parse::<f64>().ok();
            let found =
                match (flag, number.filter(|_| word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)))) {
                    (Some(flag), _) => Some(Value::Flag(flag.to_owned())),
                    (_, Some(number)) => Some(Value::Number(number)),
                    _ => None,
                };
            self.advance(word.len());
            if let Some(value) = found {
                return Ok(value);
            }
        }
    }

    /// A text in quotes; doubled ones stand for one.
    fn quoted(&mut self) -> Result<String> {
        let mut text = String::new();
        let start = self.line;
        self.advance(1);
        loop {
            let Some(end) = self.rest.find('"') else {
                let message = "a text has no closing quote".to_owned();
                return Err(Error::Transcript { format: "TextGrid", line: start, message });
            };
            text.push_str(&self.rest[..end]);
            self.advance(end + 1);
            if !self.rest.starts_with('"') {
                return Ok(text);
            }
            text.push('"');
            self.advance(1);
        }
    }

    fn text(&mut self) -> Result<String> {
        match self.next()? {
            Value::Text(text) => Ok(text),
            Value::Number(number) => Err(self.error(format!("a text in quotes was expected, not {number}"))),
            Value::Flag(flag) => Err(self.error(format!("a text in quotes was expected, not `<{flag}>`"))),
        }
    }

    fn number(&mut self) -> Result<f64> {
        match self.next()? {
            Value::Number(number) => Ok(number),
            Value::Text(_) => Err(self.error("a number was expected, not a text".to_owned())),
            Value::Flag(flag) => Err(self.error(format!("a number was expected, not `<{flag}>`"))),
        }
    }

    fn flag(&mut self) -> Result<String> {
        match self.next()? {
            Value::Flag(flag) => Ok(flag),
            _ => Err(self.error("`<exists>` was expected".to_owned())),
        }
    }

    fn count(&mut self) -> Result<u64> {
        let number = self.number()?;
        if !(0.0..=1e9).contains(&number) || number.fract() != 0.0 {
            return Err(self.error(format!("{number} is no number of tiers or intervals")));
        }
        Ok(number as u64)
    }
}
