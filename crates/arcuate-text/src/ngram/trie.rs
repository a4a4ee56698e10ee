//! KenLM's binary files with a model as a trie: sorted arrays of packed bits, plain or quantised, with plain or
//! compressed pointers to the next order.
//!
//! An n-gram hangs below its end: the first level holds the last word, the next the word before it.

use super::binary::{Header, Parts, Source, u64_at};
use super::table::Table;
use super::{Entry, WordId, extend_key};
use crate::Result;

/// Most bits of a quantised number.
const MAX_QUANTUM_BITS: u8 = 25;
/// Bytes after packed bits, so that eight bytes can be read everywhere.
const NUM_SPARE_BYTES: u64 = 8;
/// Size of a unigram: probability, weight, pointer.
const UNIGRAM_BYTES: u64 = 16;

/// How the numbers of the longer n-grams are stored.
enum Numbers {
    /// 31 bits of the probability (its sign is known), 32 of the weight.
    Plain,
    /// Places in tables: of the weight first, then of the probability.
    Quantised { prob_bits: u8, backoff_bits: u8, tables: Vec<(Vec<f32>, Vec<f32>)> },
}

impl Numbers {
    fn num_bits(&self, is_highest: bool) -> u64 {
        match self {
            Self::Plain if is_highest => 31,
            Self::Plain => 63,
            Self::Quantised { prob_bits, backoff_bits, .. } => {
                u64::from(*prob_bits) + if is_highest { 0 } else { u64::from(*backoff_bits) }
            }
        }
    }

    /// The probability and the weight that stand at a bit; `level` is zero for bigrams.
    fn get(&self, bits: &Bits<'_>, at: u64, level: usize, is_highest: bool) -> (f32, f32) {
        match self {
            Self::Plain => {
                let prob = f32::from_bits(bits.get(at, 31) as u32);
                (prob, if is_highest { -0.0 } else { f32::from_bits(bits.get(at + 31, 32) as u32) })
            }
            Self::Quantised { prob_bits, backoff_bits, tables } => {
                let (probs, backoffs) = &tables[level];
                if is_highest {
                    return (probs[bits.get(at, *prob_bits) as usize], -0.0);
                }
                let backoff = backoffs[bits.get(at, *backoff_bits) as usize];
                (probs[bits.get(at + u64::from(*backoff_bits), *prob_bits) as usize], backoff)
            }
        }
    }
}

/// Numbers of few bits, one after another.
struct Bits<'b> {
    bytes: &'b [u8],
}

impl Bits<'_> {
    /// At most 57 bits; zero beyond the end.
    fn get(&self, at: u64, num_bits: u8) -> u64 {
        let byte = (at / 8) as usize;
        let eight = self.bytes.get(byte..byte + 8).map_or(0, |bytes| u64_at(bytes, 0));
        (eight >> (at % 8)) & ((1_u64 << num_bits) - 1)
    }
}

/// How many bits hold a number up to this one.
fn num_bits(max: u64) -> u8 {
    (u64::BITS - max.leading_zeros()) as u8
}

/// Reads the vocabulary and all n-grams.
pub(super) fn read(source: &mut Source<'_>, header: &Header, is_quantised: bool, is_compressed: bool) -> Result<Parts> {
    let counts = &header.counts;
    let (ids, num_words) = read_vocabulary(source, counts[0])?;
    let numbers = if is_quantised { read_quanta(source, counts.len())? } else { Numbers::Plain };
    let mut unigrams = Vec::new();
    // Of the level above: the key of each n-gram, and where its longer ones begin; one more beginning is an end.
    let mut begins = Vec::new();
    source.require(counts[0].checked_add(2).and_then(|num| num.checked_mul(UNIGRAM_BYTES)), "its unigrams")?;
    for at in 0..counts[0] + 2 {
        let bytes: [u8; UNIGRAM_BYTES as usize] = source.array("its unigrams")?;
        if at <= counts[0] {
            begins.push(u64_at(&bytes, 8));
        }
        if at < counts[0] {
            let both = u64_at(&bytes, 0);
            unigrams.push((f32::from_bits(both as u32), f32::from_bits((both >> 32) as u32)));
        }
    }
    check_begins(source, &begins, counts[1], 2)?;
    let unigrams = unigrams
        .into_iter()
        .zip(begins.windows(2))
        .map(|((prob, backoff), range)| source.entry(marked(prob, range[1] > range[0]), backoff))
        .collect::<Result<Vec<_>>>()?;
    let mut keys: Vec<u64> = (0..counts[0]).collect();
    let mut tables = Vec::with_capacity(counts.len() - 1);
    let mut compressed_bits = None;
    for order in 2..=counts.len() {
        let is_highest = order == counts.len();
        let (count, next) = (counts[order - 1], counts.get(order).copied().unwrap_or(0));
        let level = Level { order, count, next, word_bits: num_bits(counts[0]), is_highest };
        let pointers = match (is_highest, is_compressed) {
            (true, _) => Pointers::None,
            (false, false) => Pointers::Plain,
            (false, true) => read_compressed(source, &level, &mut compressed_bits)?,
        };
        (keys, begins) = level.read(source, &numbers, pointers, (&keys, &begins), &mut tables)?;
    }
    Ok((ids, num_words, unigrams, tables))
}

fn marked(prob: f32, extends_left: bool) -> f32 {
    if extends_left { prob.abs() } else { -prob.abs() }
}

fn check_begins(source: &Source<'_>, begins: &[u64], num_next: u64, order: usize) -> Result<()> {
    if begins.is_sorted() && begins.last().is_none_or(|last| *last <= num_next) {
        return Ok(());
    }
    Err(source.error(format!("the pointers to its {order}-grams do not rise, or lead beyond the {num_next} there are")))
}

fn read_vocabulary(source: &mut Source<'_>, count: u64) -> Result<(Table<WordId>, usize)> {
    source.require(count.checked_add(1).and_then(|num| num.checked_mul(8)), "its vocabulary")?;
    let num_hashes = u64::from_le_bytes(source.array("its vocabulary")?);
    if num_hashes >= count {
        return Err(source.error(format!("{num_hashes} words besides the unknown one, but {count} unigrams")));
    }
    let mut ids = Table::with_capacity(num_hashes as usize);
    for at in 0..count {
        let hash = u64::from_le_bytes(source.array("its vocabulary")?);
        if at < num_hashes && hash != 0 {
            ids.insert(hash, at as WordId + 1).map_err(source.not_spread())?;
        }
    }
    Ok((ids, num_hashes as usize + 1))
}

fn read_quanta(source: &mut Source<'_>, order: usize) -> Result<Numbers> {
    let [version, prob_bits, backoff_bits, ..]: [u8; 8] = source.array("its quantisation")?;
    let is_usable = |bits: u8| (1..=MAX_QUANTUM_BITS).contains(&bits);
    if version != 2 || !is_usable(prob_bits) || !is_usable(backoff_bits) {
        return Err(source.error(format!("quantisation of version {version} with {prob_bits} and {backoff_bits} bits")));
    }
    let mut tables = Vec::new();
    for level in 2..=order {
        let probs = read_floats(source, 1 << prob_bits)?;
        let backoffs = if level < order { read_floats(source, 1 << backoff_bits)? } else { Vec::new() };
        tables.push((probs, backoffs));
    }
    Ok(Numbers::Quantised { prob_bits, backoff_bits, tables })
}

fn read_floats(source: &mut Source<'_>, num: u64) -> Result<Vec<f32>> {
    let bytes = source.bytes(Some(4 * num), "its quantisation")?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

/// How an n-gram says where its longer ones begin.
enum Pointers {
    None,
    Plain,
    /// The lower bits stand at the n-gram; the upper ones rise by one at these n-grams.
    Compressed {
        inline_bits: u8,
        rises: Vec<u64>,
    },
}

/// Reads the places at which the upper bits of the pointers of a level rise.
fn read_compressed(source: &mut Source<'_>, level: &Level, configured: &mut Option<u8>) -> Result<Pointers> {
    let start = source.position;
    let part = format!("the pointers of its {}-grams", level.order);
    let [version, bits]: [u8; 2] = source.array(&part)?;
    // Only the first level says how it is compressed; the others are like it.
    let bits = *configured.get_or_insert(bits);
    if version != 0 {
        return Err(source.error(format!("pointers compressed by version {version}")));
    }
    let required = num_bits(level.next);
    let entries = level.count.checked_add(1).and_then(|num| i64::try_from(num).ok());
    let saved = |chop: u8| -> Option<i64> {
        let cost =
            i64::try_from(level.next.checked_shr(u32::from(required - chop)).unwrap_or(0)).ok()?.checked_mul(64)?;
        cost.checked_sub(entries?.checked_mul(i64::from(chop))?)
    };
    let costs: Option<Vec<i64>> = (0..=required.min(bits)).map(saved).collect();
    let Some(costs) = costs else { return Err(source.error(format!("{} n-grams of an order", level.count))) };
    let lowest = costs.iter().min().expect("no bit may be cut off, at least");
    let chop = costs.iter().position(|cost| cost == lowest).expect("it is one of them") as u8;
    let inline_bits = required - chop;
    let num_rises = level.next.checked_shr(u32::from(inline_bits)).unwrap_or(0) + 1;
    let size = num_rises.checked_add(1).and_then(|num| num.checked_mul(8)).and_then(|num| num.checked_add(7));
    // The list is aligned to eight bytes within the file, after eight bytes that hold what was read above.
    let mut bytes = source.bytes(size.map(|size| size - 2), &part)?;
    let first = (start.next_multiple_of(8) + 8 - start - 2) as usize;
    bytes.drain(..first);
    let rises =
        bytes.as_chunks::<8>().0.iter().take(num_rises as usize).map(|bytes| u64::from_le_bytes(*bytes)).collect();
    Ok(Pointers::Compressed { inline_bits, rises })
}

/// The n-grams of one order in the file.
struct Level {
    order: usize,
    count: u64,
    /// How many there are of the next order.
    next: u64,
    word_bits: u8,
    is_highest: bool,
}

impl Level {
    /// Reads the n-grams below those of the level above; gives their keys and where their own longer ones begin.
    fn read(
        &self,
        source: &mut Source<'_>,
        numbers: &Numbers,
        pointers: Pointers,
        (above, ranges): (&[u64], &[u64]),
        tables: &mut Vec<Table<Entry>>,
    ) -> Result<(Vec<u64>, Vec<u64>)> {
        let part = format!("its {}-grams", self.order);
        let pointer_bits = match &pointers {
            Pointers::None => 0,
            Pointers::Plain => num_bits(self.next),
            Pointers::Compressed { inline_bits, .. } => *inline_bits,
        };
        if pointer_bits > 57 {
            return Err(source.error(format!("{} n-grams of an order", self.next)));
        }
        let number_bits = numbers.num_bits(self.is_highest);
        let width = u64::from(self.word_bits) + number_bits + u64::from(pointer_bits);
        let num_bytes = self.count.checked_add(1).and_then(|num| num.checked_mul(width));
        let bytes = source.bytes(num_bytes.map(|num| num.div_ceil(8) + NUM_SPARE_BYTES), &part)?;
        let bits = Bits { bytes: &bytes };

        let mut begins = Vec::new();
        if !matches!(pointers, Pointers::None) {
            let mut upper = 0_u64;
            for at in 0..=self.count {
                let lower = bits.get(at * width + u64::from(self.word_bits) + number_bits, pointer_bits);
                if let Pointers::Compressed { rises, .. } = &pointers {
                    while rises.get(upper as usize + 1).is_some_and(|rise| *rise <= at) {
                        upper += 1;
                    }
                }
                begins.push((upper << pointer_bits) | lower);
            }
            check_begins(source, &begins, self.next, self.order + 1)?;
        }
        let mut keys = vec![0; if self.is_highest { 0 } else { self.count as usize }];
        let mut table = Table::with_capacity(self.count as usize);
        for (above, range) in above.iter().zip(ranges.windows(2)) {
            for at in range[0]..range[1] {
                let word = bits.get(at * width, self.word_bits) as WordId;
                let key = extend_key(*above, word);
                let place = at * width + u64::from(self.word_bits);
                let (prob, backoff) = numbers.get(&bits, place, self.order - 2, self.is_highest);
                let extends_left = begins.get(at as usize..at as usize + 2).is_some_and(|range| range[1] > range[0]);
                let entry = source.entry(marked(prob, extends_left), backoff)?;
                table.insert(key, entry).map_err(source.not_spread())?;
                if let Some(place) = keys.get_mut(at as usize) {
                    *place = key;
                }
            }
        }
        tables.push(table);
        Ok((keys, begins))
    }
}
