//! ARPA files: the text form of n-gram models. Reading reports the section and the line of what is wrong.
//!
//! An n-gram whose history or whose shorter end has no row of its own is taken all the same: the missing one is put in
//! with the probability that backing off gives it, so that the longer one is found.

use super::table::NotSpread;
use super::vocabulary::is_unknown;
use super::{Entry, MAX_ORDER, Ngram, WordId};
use crate::{Error, Result};
use std::io::BufRead;
use std::path::Path;

/// No row of a model is as long as this.
const MAX_LINE_BYTES: u64 = 1 << 20;
/// Lines of other text that may stand before `\data\`.
const MAX_PREAMBLE_LINES: u64 = 1000;
/// Room that is made because of a number in the header alone.
const MAX_RESERVED: u64 = 1 << 20;

struct Lines<'p, R> {
    reader: R,
    path: &'p Path,
    /// Of the current line, from one.
    number: u64,
    section: String,
    bytes: Vec<u8>,
}

impl<R: BufRead> Lines<'_, R> {
    fn error(&self, message: impl Into<String>) -> Error {
        Error::Arpa {
            path: self.path.to_owned(),
            line: self.number,
            section: self.section.clone(),
            message: message.into(),
        }
    }

    /// Reads the next line without its end; `false` at the end of the file.
    fn advance(&mut self) -> Result<bool> {
        self.bytes.clear();
        let mut limited = std::io::Read::take(&mut self.reader, MAX_LINE_BYTES);
        let num_read = limited.read_until(b'\n', &mut self.bytes).map_err(Error::io("read", self.path))?;
        self.number += u64::from(num_read > 0);
        if num_read as u64 == MAX_LINE_BYTES {
            return Err(self.error(format!("the line is longer than {MAX_LINE_BYTES} bytes; this is no ARPA file")));
        }
        while matches!(self.bytes.last(), Some(b'\n' | b'\r' | b' ' | b'\t')) {
            self.bytes.pop();
        }
        Ok(num_read > 0)
    }

    fn line(&self) -> Result<&str> {
        std::str::from_utf8(&self.bytes)
            .map_err(|error| self.error(format!("not UTF-8 at byte {} of the line", error.valid_up_to())))
    }
}

/// Reads a model; `path` is for messages.
pub(super) fn read(reader: impl BufRead, path: &Path) -> Result<Ngram> {
    let section = "before `\\data\\`".to_owned();
    let mut lines = Lines { reader, path, number: 0, section, bytes: Vec::new() };
    let counts = read_header(&mut lines)?;
    let reserved = |order: usize| counts[order].min(MAX_RESERVED) as usize;
    let mut model = Ngram::new(counts.len(), reserved);
    let mut seen_unknown = false;
    for order in 1..=counts.len() {
        let title = format!("\\{order}-grams:");
        if lines.bytes != title.as_bytes() {
            let found = String::from_utf8_lossy(&lines.bytes).into_owned();
            return Err(lines.error(format!("`{title}` must follow here, but this line is `{found}`")));
        }
        lines.section = format!("`{title}`");
        let num_rows = read_section(&mut lines, &mut model, order, &mut seen_unknown)?;
        let wanted = counts[order - 1];
        if num_rows != wanted {
            return Err(lines.error(format!("the section has {num_rows} rows, but the header promises {wanted}")));
        }
        if order == 1 {
            for (is_missing, word) in [
                (!seen_unknown, "<unk>"),
                (model.vocabulary.id("<s>").is_none(), "<s>"),
                (model.vocabulary.id("</s>").is_none(), "</s>"),
            ] {
                if is_missing {
                    return Err(lines.error(format!(
                        "`{word}` is missing; train with it, or add a row such as `-100\t{word}` and raise `ngram 1=` by one"
                    )));
                }
            }
        }
    }
    if lines.bytes != b"\\end\\" {
        return Err(lines.error("`\\end\\` must follow here; the file is cut off or has more sections than its header"));
    }
    model.finish();
    Ok(model)
}

/// Reads `\data\` and the counts; stops at the first section.
fn read_header<R: BufRead>(lines: &mut Lines<'_, R>) -> Result<Vec<u64>> {
    while lines.bytes != b"\\data\\" {
        if lines.number == MAX_PREAMBLE_LINES || !lines.advance()? {
            return Err(lines.error("there is no line `\\data\\`; this is neither an ARPA nor a KenLM binary file"));
        }
    }
    lines.section = "`\\data\\`".to_owned();
    let mut counts = Vec::new();
    loop {
        if !lines.advance()? {
            return Err(lines.error("the file ends in its header"));
        }
        if lines.bytes.is_empty() {
            continue;
        }
        if lines.bytes.starts_with(b"\\") {
            break;
        }
        let order = counts.len() + 1;
        let count = lines.line()?.strip_prefix("ngram ").and_then(|rest| {
            let (number, count) = rest.split_once('=')?;
            (number.trim().parse() == Ok(order)).then_some(())?;
            count.trim().parse().ok()
        });
        match count {
            Some(_) if order > MAX_ORDER => {
                return Err(lines.error(format!("n-grams of order {order}; {MAX_ORDER} is the most")));
            }
            Some(count) => counts.push(count),
            None => return Err(lines.error(format!("`ngram {order}=` and a count must stand here"))),
        }
    }
    if counts.is_empty() {
        return Err(lines.error("no line `ngram 1=` before the first section"));
    }
    Ok(counts)
}

/// Reads the rows of one order; stops at the line after them that begins with a backslash.
fn read_section<R: BufRead>(
    lines: &mut Lines<'_, R>,
    model: &mut Ngram,
    order: usize,
    seen_unknown: &mut bool,
) -> Result<u64> {
    let mut num_rows = 0;
    loop {
        if !lines.advance()? {
            return Err(lines.error(format!("the file ends after {num_rows} rows of this section")));
        }
        if lines.bytes.is_empty() {
            continue;
        }
        if lines.bytes.starts_with(b"\\") {
            return Ok(num_rows);
        }
        num_rows += 1;
        let row = Row::parse(lines, order, model.order())?;
        let words = &row.words[..order];
        let not_spread = |_: NotSpread| lines.error("the words collide as if made to; this file is refused");
        if order == 1 {
            let word = words[0];
            if is_unknown(word) {
                if std::mem::replace(seen_unknown, true) {
                    return Err(lines.error(format!("a second row for `{word}`")));
                }
                model.unigrams[0] = row.entry;
                continue;
            }
            match model.vocabulary.add(word).map_err(not_spread)? {
                Some(_) => model.unigrams.push(row.entry),
                None => return Err(lines.error(format!("a second row for `{word}`"))),
            }
            continue;
        }
        let mut reversed: [WordId; MAX_ORDER] = [0; MAX_ORDER];
        for (place, word) in reversed[..order].iter_mut().rev().zip(words) {
            *place = model
                .vocabulary
                .id(word)
                .ok_or_else(|| lines.error(format!("`{word}` has no row in section `\\1-grams:`")))?;
        }
        if !model.add(&reversed[..order], row.entry).map_err(not_spread)? {
            return Err(lines.error(format!("a second row for `{}`", words.join(" "))));
        }
    }
}

/// One line of a section.
struct Row<'l> {
    entry: Entry,
    words: [&'l str; MAX_ORDER],
}

impl<'l> Row<'l> {
    fn parse<R: BufRead>(lines: &'l Lines<'_, R>, order: usize, max_order: usize) -> Result<Self> {
        let line = lines.line()?;
        let mut fields = line.split([' ', '\t']).filter(|field| !field.is_empty());
        let prob = parse_number(fields.next().unwrap_or_default())
            .map_err(|message| lines.error(format!("the probability {message}")))?;
        if prob > 0.0 {
            return Err(lines.error(format!("the log10 probability {prob} is above zero")));
        }
        let mut words = [""; MAX_ORDER];
        for (at, word) in words[..order].iter_mut().enumerate() {
            *word = fields
                .next()
                .ok_or_else(|| lines.error(format!("{at} words where an n-gram has {order}: `{line}`")))?;
        }
        let backoff = match fields.next() {
            Some(text) => {
                parse_number(text).map_err(|message| lines.error(format!("the back-off weight {message}")))?
            }
            None => 0.0,
        };
        if fields.next().is_some() {
            return Err(lines.error(format!("more than a probability, {order} words and a weight: `{line}`")));
        }
        if order == max_order && backoff != 0.0 {
            return Err(lines.error("a back-off weight on an n-gram of the highest order"));
        }
        Ok(Self { entry: Entry::new(prob, backoff), words })
    }
}

fn parse_number(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(_) => Err(format!("`{text}` is not a finite number")),
        Err(_) => Err(format!("`{text}` is not a number")),
    }
}
