//! KenLM's binary files, format version 5: the header, the vocabularies, and models in hash tables.
//!
//! The file is read once from the beginning to the end; a part is only made room for if the file is long enough to hold
//! it. Whatever the form in the file, the model becomes the one of [`Ngram`], which has the same keys.
//!
//! # Reference
//! Heafield 2011; the layout was taken from files that `build_binary` made and from its documentation of the data
//! structures

use super::table::{NotSpread, Table};
use super::vocabulary::Vocabulary;
use super::{Entry, MAX_ORDER, Ngram, State, UNKNOWN, WordId, trie};
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

/// What all versions begin with.
pub(super) const MAGIC: &[u8] = b"mmap lm http://kheafield.com/code";
const VERSION: &[u8] = b"mmap lm http://kheafield.com/code format version 5\n\0";
/// The magic line with its padding.
const MAGIC_BYTES: usize = 56;
/// Numbers by which a file shows the byte order and the sizes of the machine that wrote it.
const NUM_SANITY_BYTES: usize = 32;
/// Longest word that a file may hold.
const MAX_WORD_BYTES: usize = 1 << 20;

/// A file that is read from the beginning to the end.
pub(super) struct Source<'p> {
    reader: BufReader<File>,
    path: &'p Path,
    /// Bytes not yet read.
    left: u64,
    /// Bytes read.
    pub(super) position: u64,
}

impl Source<'_> {
    pub(super) fn error(&self, message: impl Into<String>) -> Error {
        Error::KenlmBinary { path: self.path.to_owned(), message: message.into() }
    }

    pub(super) fn not_spread(&self) -> impl Fn(NotSpread) -> Error {
        move |_| self.error("its keys are not spread as hashes are")
    }

    /// Fails unless the file is long enough for the next part of it.
    pub(super) fn require(&self, num_bytes: Option<u64>, part: &str) -> Result<u64> {
        match num_bytes {
            Some(num_bytes) if num_bytes <= self.left => Ok(num_bytes),
            _ => Err(self.error(format!("{} bytes are left for {part}, too few; the file is cut off", self.left))),
        }
    }

    pub(super) fn fill(&mut self, buffer: &mut [u8], part: &str) -> Result<()> {
        let num_bytes = self.require(Some(buffer.len() as u64), part)?;
        self.reader.read_exact(buffer).map_err(Error::io("read", self.path))?;
        self.left -= num_bytes;
        self.position += num_bytes;
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self, part: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, part)?;
        Ok(bytes)
    }

    pub(super) fn bytes(&mut self, num_bytes: Option<u64>, part: &str) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.require(num_bytes, part)? as usize];
        self.fill(&mut bytes, part)?;
        Ok(bytes)
    }

    /// A probability (either sign) and a back-off weight.
    pub(super) fn entry(&self, prob: f32, backoff: f32) -> Result<Entry> {
        if prob.is_finite() && backoff.is_finite() {
            return Ok(Entry { prob, backoff });
        }
        Err(self.error(format!("a probability or weight is not finite: {prob}, {backoff}")))
    }
}

/// What the header says.
pub(super) struct Header {
    /// How many n-grams there are by order.
    pub(super) counts: Vec<u64>,
    multiplier: f32,
    has_words: bool,
}

impl Header {
    /// Slots of a hash table with this many keys; [`None`] if that is no number.
    fn num_slots(&self, num_keys: u64) -> Option<u64> {
        let wanted = self.multiplier * num_keys as f32;
        Some((wanted as u64).max(num_keys.checked_add(1)?))
    }
}

/// The forms of a model in a file, by their number there.
const KINDS: [&str; 6] = [
    "hash tables",
    "hash tables with rest costs",
    "trie",
    "quantised trie",
    "trie with compressed pointers",
    "quantised trie with compressed pointers",
];

/// Reads a model.
pub(super) fn read(reader: BufReader<File>, path: &Path) -> Result<Ngram> {
    let left = reader.get_ref().metadata().map_err(Error::io("read", path))?.len();
    let mut source = Source { reader, path, left, position: 0 };
    let (kind, header) = read_header(&mut source)?;
    let (ids, num_words, unigrams, tables) = match kind {
        0 | 1 => read_tables(&mut source, &header, kind == 1)?,
        _ => trie::read(&mut source, &header, matches!(kind, 3 | 5), matches!(kind, 4 | 5))?,
    };
    let words = if header.has_words { Some(read_words(&mut source, num_words)?) } else { None };
    let vocabulary = Vocabulary::from_hashes(ids, num_words, words);
    for word in ["<s>", "</s>"] {
        if vocabulary.id(word).is_none() {
            return Err(source.error(format!("`{word}` is missing from its vocabulary")));
        }
    }
    let mut model = Ngram { vocabulary, unigrams, tables, begin: State::EMPTY, end: UNKNOWN };
    model.finish();
    Ok(model)
}

/// Hashes of words with their numbers, how many numbers there are, unigrams, and the longer n-grams.
pub(super) type Parts = (Table<WordId>, usize, Vec<Entry>, Vec<Table<Entry>>);

fn read_header(source: &mut Source<'_>) -> Result<(u32, Header)> {
    let magic: [u8; MAGIC_BYTES] = source.array("the header")?;
    if !magic.starts_with(VERSION) {
        let line = magic.split(|byte| *byte == b'\n' || *byte == 0).next().unwrap_or_default();
        let found = String::from_utf8_lossy(line).into_owned();
        return Err(
            source.error(format!("it begins with `{found}`, but only format version 5 is read; build it again"))
        );
    }
    let sanity: [u8; NUM_SANITY_BYTES] = source.array("the header")?;
    let mut wanted = [0; NUM_SANITY_BYTES];
    for (at, number) in
        [0.0_f32.to_bits(), 1.0_f32.to_bits(), (-0.5_f32).to_bits(), 1, u32::MAX, 0, 1].iter().enumerate()
    {
        wanted[4 * at..4 * at + 4].copy_from_slice(&number.to_le_bytes());
    }
    if sanity != wanted {
        return Err(
            source.error("it was built on a machine with another byte order; build it again from the ARPA file")
        );
    }
    let fixed: [u8; 20] = source.array("the header")?;
    let order = usize::from(fixed[0]);
    let multiplier = f32::from_bits(u32_at(&fixed, 4));
    let kind = u32_at(&fixed, 8);
    let search_version = u32_at(&fixed, 16);
    if !(2..=MAX_ORDER).contains(&order) {
        return Err(source.error(format!("n-grams of order {order}; 2 to {MAX_ORDER} are read")));
    }
    let Some(name) = KINDS.get(kind as usize) else {
        return Err(source.error(format!("a model of kind {kind}, which is unknown")));
    };
    let known_version = u32::from(kind > 1);
    if search_version != known_version {
        return Err(source.error(format!("a {name} of version {search_version}; only {known_version} is read")));
    }
    if kind < 2 && !(1.0..=100.0).contains(&multiplier) {
        return Err(source.error(format!("{multiplier} slots for each key of its hash tables")));
    }
    let mut counts = Vec::with_capacity(order);
    for _ in 0..order {
        counts.push(u64::from_le_bytes(source.array("the header")?));
    }
    if counts[0] == 0 || counts[0] >= u64::from(u32::MAX) {
        return Err(source.error(format!("{} words", counts[0])));
    }
    let num_padding = (8 - source.position % 8) % 8;
    source.bytes(Some(num_padding), "the header")?;
    Ok((kind, Header { counts, multiplier, has_words: fixed[12] != 0 }))
}

fn read_tables(source: &mut Source<'_>, header: &Header, has_rest: bool) -> Result<Parts> {
    let vocabulary_header: [u8; 8] = source.array("its vocabulary")?;
    let (version, num_words) = (u32_at(&vocabulary_header, 0), u32_at(&vocabulary_header, 4));
    let counts = &header.counts;
    if version != 0 || num_words == 0 || u64::from(num_words) > counts[0] + 1 {
        return Err(source.error(format!("a vocabulary of version {version} with {num_words} words")));
    }
    let num_slots = header.num_slots(counts[0]);
    source.require(num_slots.and_then(|num| num.checked_mul(12)), "its vocabulary")?;
    let mut ids = Table::with_capacity(num_words as usize);
    for _ in 0..num_slots.unwrap_or(0) {
        let slot: [u8; 12] = source.array("its vocabulary")?;
        let (key, id) = (u64_at(&slot, 0), u32_at(&slot, 8));
        if key == 0 {
            continue;
        }
        if id == UNKNOWN || id >= num_words {
            return Err(source.error(format!("a word with number {id} where there are {num_words}")));
        }
        ids.insert(key, id).map_err(source.not_spread())?;
    }
    let rest_bytes = if has_rest { 4 } else { 0 };
    let read_entry = |source: &mut Source<'_>, part: &str| -> Result<Entry> {
        let bytes: [u8; 8] = source.array(part)?;
        if has_rest {
            source.array::<4>(part)?;
        }
        source.entry(f32::from_bits(u32_at(&bytes, 0)), f32::from_bits(u32_at(&bytes, 4)))
    };
    source.require((counts[0] + 1).checked_mul(8 + rest_bytes), "its unigrams")?;
    let mut unigrams = Vec::with_capacity(num_words as usize);
    for at in 0..counts[0] + 1 {
        if at < u64::from(num_words) {
            unigrams.push(read_entry(source, "its unigrams")?);
        } else {
            source.bytes(Some(8 + rest_bytes), "its unigrams")?;
        }
    }
    let mut tables = Vec::with_capacity(counts.len() - 1);
    for order in 2..=counts.len() {
        let part = format!("its {order}-grams");
        let is_highest = order == counts.len();
        let num_slots = header.num_slots(counts[order - 1]);
        let slot_bytes = if is_highest { 12 } else { 16 + rest_bytes };
        source.require(num_slots.and_then(|num| num.checked_mul(slot_bytes)), &part)?;
        let mut table = Table::with_capacity(counts[order - 1] as usize);
        for _ in 0..num_slots.unwrap_or(0) {
            let key = u64::from_le_bytes(source.array(&part)?);
            let entry = match (key, is_highest) {
                // What stands in a free slot is no number.
                (0, _) => {
                    source.bytes(Some(slot_bytes - 8), &part)?;
                    continue;
                }
                (_, true) => {
                    let prob = f32::from_bits(u32::from_le_bytes(source.array(&part)?));
                    source.entry(-prob.abs(), -0.0)?
                }
                (_, false) => read_entry(source, &part)?,
            };
            table.insert(key, entry).map_err(source.not_spread())?;
        }
        tables.push(table);
    }
    Ok((ids, num_words as usize, unigrams, tables))
}

/// The words by number, each ended by a zero byte: one text and where each ends in it.
fn read_words(source: &mut Source<'_>, num_words: usize) -> Result<(String, Vec<usize>)> {
    let bytes = source.bytes(Some(source.left), "its words")?;
    if !bytes.starts_with(b"<unk>\0") || bytes.last() != Some(&0) {
        return Err(
            source.error("its words do not begin with `<unk>` or do not end; it is cut off or was built wrongly")
        );
    }
    let mut text = String::with_capacity(bytes.len());
    let mut ends = Vec::new();
    for word in bytes[..bytes.len() - 1].split(|byte| *byte == 0) {
        let word = match std::str::from_utf8(word) {
            Ok(word) if word.len() <= MAX_WORD_BYTES => word,
            _ => return Err(source.error(format!("its word {} is not UTF-8 or too long", ends.len()))),
        };
        text.push_str(word);
        ends.push(text.len());
    }
    if ends.len() != num_words {
        return Err(source.error(format!("it has {} words at its end, but {num_words} numbers", ends.len())));
    }
    Ok((text, ends))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
