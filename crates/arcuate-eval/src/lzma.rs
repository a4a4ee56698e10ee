//! What a general compressor needs for the held-out text after it has read the training text.
//!
//! # What it computes
//! `bits_per_byte = 8 (size(training + held-out) - size(training)) / bytes(held-out)` with LZMA2 at preset 9 extreme and a
//! dictionary that covers both. One pass gives both sizes: the encoder is asked for all its output where the training text ends
//! (a test holds that against two passes). Of a training text over 64 MiB the last 64 MiB are read, of a held-out text over
//! 16 MiB the first 16 MiB, and the result says so.
//!
//! # Reference
//! Pavlov 1998 (LZMA); the difference of sizes as in Cilibrasi and Vitanyi 2005

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use liblzma::stream::{Action, Filters, LzmaOptions, PRESET_EXTREME, Status, Stream};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Bytes between two looks at the watch.
const PORTION: usize = 64 << 10;
const MIB: u64 = 1 << 20;
/// The largest dictionary of the format.
const MAX_DICT_BYTES: u64 = 1536 * MIB;

/// How much text is compressed at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LzmaLimits {
    /// Of a longer training text its end is taken.
    pub train_bytes: usize,
    /// Of a longer held-out text its beginning is taken.
    pub held_out_bytes: usize,
}

impl Default for LzmaLimits {
    fn default() -> Self {
        Self { train_bytes: 64 << 20, held_out_bytes: 16 << 20 }
    }
}

/// Lets another thread follow and stop the compression.
#[derive(Debug, Default)]
pub struct LzmaWatch {
    /// Set to stop; the compression then ends with [`Error::Interrupted`].
    pub cancel: AtomicBool,
    /// Bytes compressed.
    pub done_bytes: AtomicU64,
    /// Bytes to compress; 0 while the texts are read.
    pub total_bytes: AtomicU64,
}

impl LzmaWatch {
    fn go_on(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Interrupted) } else { Ok(()) }
    }
}

/// What the compressor needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LzmaResult {
    /// Bits for a byte of the held-out text.
    pub bits_per_byte: f64,
    /// Compressed size of the held-out text.
    pub held_out_compressed_bytes: u64,
    /// Bytes of training text that were read.
    pub train_bytes: u64,
    /// Bytes of training text that there are.
    pub train_bytes_total: u64,
    /// Bytes of held-out text that were compressed.
    pub held_out_bytes: u64,
    /// Bytes of held-out text that there are.
    pub held_out_bytes_total: u64,
    /// Size of the dictionary.
    pub dict_bytes: u64,
    /// About what the compression took in memory, the texts included.
    pub memory_bytes: u64,
}

impl LzmaResult {
    /// What was left out, as a sentence for a report; nothing if everything was compressed.
    pub fn left_out(&self) -> Option<String> {
        let mib = |bytes: u64| bytes as f64 / MIB as f64;
        let mut parts = Vec::new();
        if self.train_bytes < self.train_bytes_total {
            let (read, all) = (mib(self.train_bytes), mib(self.train_bytes_total));
            parts.push(format!("LZMA read the last {read:.0} of {all:.0} MiB of training text"));
        }
        if self.held_out_bytes < self.held_out_bytes_total {
            let (read, all) = (mib(self.held_out_bytes), mib(self.held_out_bytes_total));
            parts.push(format!("compressed the first {read:.0} of {all:.0} MiB of held-out text"));
        }
        (!parts.is_empty()).then(|| parts.join("; "))
    }
}

/// Compresses `held_out` with the knowledge of `train`.
pub fn lzma(
    train: impl Iterator<Item = String>,
    held_out: impl Iterator<Item = String>,
    limits: &LzmaLimits,
    watch: &LzmaWatch,
) -> Result<LzmaResult> {
    let (mut bytes, train_bytes_total) = last_bytes(train, limits.train_bytes, watch)?;
    let num_train = bytes.len();
    let mut held_out_bytes_total = 0;
    for text in held_out {
        watch.go_on()?;
        let room = limits.held_out_bytes - (bytes.len() - num_train);
        bytes.extend_from_slice(&text.as_bytes()[..text.len().min(room)]);
        held_out_bytes_total += text.len() as u64;
    }
    let held_out_bytes = (bytes.len() - num_train) as u64;
    if held_out_bytes == 0 {
        let what = "the held-out text".to_owned();
        return Err(Error::Empty { what, remedy: "raise `held_out_fraction` or give more documents" });
    }
    let dict_bytes = (bytes.len() as u64).next_power_of_two().clamp(MIB, MAX_DICT_BYTES);
    watch.total_bytes.store(bytes.len() as u64, Ordering::Relaxed);
    let mut encoder = Encoder::new(dict_bytes, watch)?;
    encoder.write(&bytes[..num_train])?;
    let alone = encoder.size_so_far()?;
    encoder.write(&bytes[num_train..])?;
    let held_out_compressed_bytes = encoder.finish()?.saturating_sub(alone);
    Ok(LzmaResult {
        bits_per_byte: 8.0 * held_out_compressed_bytes as f64 / held_out_bytes as f64,
        held_out_compressed_bytes,
        train_bytes: num_train as u64,
        train_bytes_total,
        held_out_bytes,
        held_out_bytes_total,
        dict_bytes,
        memory_bytes: encoder_bytes(dict_bytes) + bytes.capacity() as u64,
    })
}

/// What a comparison takes in bytes for so many bytes of text, training and held-out together.
pub fn lzma_memory(text_bytes: u64) -> u64 {
    let limits = LzmaLimits::default();
    let read = text_bytes.min((limits.train_bytes + limits.held_out_bytes) as u64);
    encoder_bytes(read.next_power_of_two().clamp(MIB, MAX_DICT_BYTES)) + read
}

/// What one compression takes: 10.5 times the dictionary (binary trees), as the `xz` manual has it.
fn encoder_bytes(dict_bytes: u64) -> u64 {
    dict_bytes * 21 / 2 + 4 * MIB
}

/// The last `most` bytes of the texts, and how many there were.
fn last_bytes(texts: impl Iterator<Item = String>, most: usize, watch: &LzmaWatch) -> Result<(Vec<u8>, u64)> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut total = 0;
    for text in texts {
        watch.go_on()?;
        total += text.len() as u64;
        bytes.extend_from_slice(text.as_bytes());
        if bytes.len() >= 2 * most.max(PORTION) {
            bytes.drain(..bytes.len() - most);
        }
    }
    bytes.drain(..bytes.len().saturating_sub(most));
    Ok((bytes, total))
}

/// Counts the bytes of compressed text; a raw stream, so that no header or index is counted.
struct Encoder<'a> {
    stream: Stream,
    out: Vec<u8>,
    dict_bytes: u64,
    watch: &'a LzmaWatch,
}

impl<'a> Encoder<'a> {
    fn new(dict_bytes: u64, watch: &'a LzmaWatch) -> Result<Self> {
        let failed = |error| failed(error, dict_bytes);
        let mut options = LzmaOptions::new_preset(9 | PRESET_EXTREME).map_err(failed)?;
        options.dict_size(u32::try_from(dict_bytes).unwrap_or(u32::MAX));
        let mut filters = Filters::new();
        filters.lzma2(&options);
        let stream = Stream::new_raw_encoder(&filters).map_err(failed)?;
        Ok(Self { stream, out: vec![0; PORTION], dict_bytes, watch })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            self.watch.go_on()?;
            let portion = &bytes[at..bytes.len().min(at + PORTION)];
            let before = self.stream.total_in();
            self.process(portion, Action::Run)?;
            let read = self.stream.total_in() - before;
            at += read as usize;
            self.watch.done_bytes.fetch_add(read, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Writes out all that was read; the knowledge of it stays.
    fn size_so_far(&mut self) -> Result<u64> {
        if self.stream.total_in() > 0 {
            self.end(Action::SyncFlush)?;
        }
        Ok(self.stream.total_out())
    }

    fn finish(mut self) -> Result<u64> {
        self.end(Action::Finish)?;
        Ok(self.stream.total_out())
    }

    fn end(&mut self, action: Action) -> Result<()> {
        while self.process(&[], action)? != Status::StreamEnd {
            self.watch.go_on()?;
        }
        Ok(())
    }

    fn process(&mut self, bytes: &[u8], action: Action) -> Result<Status> {
        self.stream.process(bytes, &mut self.out, action).map_err(|error| failed(error, self.dict_bytes))
    }
}

fn failed(error: liblzma::stream::Error, dict_bytes: u64) -> Error {
    let need = encoder_bytes(dict_bytes) / MIB;
    Error::Lzma(format!("{error}; it needs about {need} MiB of memory, use less text or switch the comparison off"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_ops::rng::Stream as Random;

    fn words(seed: u64, num: usize) -> String {
        let mut random = Random::new(seed, "words", 0, 0);
        let list = ["the ", "people ", "of ", "union", ", ", "state ", "and ", "liberty ", "peace ", "war "];
        (0..num).map(|_| list[random.below(list.len() as u64) as usize]).collect()
    }

    fn run(train: &[String], held_out: &[String], limits: &LzmaLimits) -> Result<LzmaResult> {
        lzma(train.iter().cloned(), held_out.iter().cloned(), limits, &LzmaWatch::default())
    }

    fn compressed_bytes(bytes: &[u8], watch: &LzmaWatch) -> Result<u64> {
        let mut encoder = Encoder::new(MIB, watch)?;
        encoder.write(bytes)?;
        encoder.finish()
    }

    #[test]
    fn one_pass_gives_the_difference_of_two() {
        let (train, held_out) = (words(1, 60_000), words(2, 4000));
        let size = |text: &str| compressed_bytes(text.as_bytes(), &LzmaWatch::default()).expect("compresses") as f64;
        let want = 8.0 * (size(&format!("{train}{held_out}")) - size(&train)) / held_out.len() as f64;
        let got = bits(&[train], &[held_out]);
        assert!((got / want - 1.0).abs() < 0.005, "{got} {want}");
    }

    fn bits(train: &[String], held_out: &[String]) -> f64 {
        run(train, held_out, &LzmaLimits::default()).expect("compresses").bits_per_byte
    }

    #[test]
    fn text_that_was_read_before_costs_almost_nothing() {
        let text = words(1, 4000);
        assert!(bits(std::slice::from_ref(&text), std::slice::from_ref(&text)) < 0.05);
    }

    #[test]
    fn random_letters_cost_their_entropy() {
        // 64 letters of one byte: 6 bits each, and LZMA is not far above.
        let mut random = Random::new(2, "letters", 0, 0);
        let letters: String = (0..20_000).map(|_| char::from(48 + random.below(64) as u8)).collect();
        let bits = bits(&[words(1, 4000)], &[letters]);
        assert!((6.0..6.4).contains(&bits), "{bits}");
    }

    #[test]
    fn random_bytes_cost_eight_bits() {
        let mut random = Random::new(2, "bytes", 0, 0);
        let bytes: Vec<u8> = (0..20_000).map(|_| random.next_u64() as u8).collect();
        let watch = LzmaWatch::default();
        let size = compressed_bytes(&bytes, &watch).expect("compresses");
        let bits = 8.0 * size as f64 / bytes.len() as f64;
        assert!((7.99..8.1).contains(&bits), "{bits}");
        assert_eq!(watch.done_bytes.load(Ordering::Relaxed), 20_000);
    }

    #[test]
    fn training_text_of_the_same_kind_helps() {
        let held_out = [words(2, 2000)];
        assert!(bits(&[words(1, 20_000)], &held_out) < bits(&[], &held_out));
    }

    #[test]
    fn limits_take_the_end_of_one_and_the_beginning_of_the_other() {
        let limits = LzmaLimits { train_bytes: 4, held_out_bytes: 5 };
        let train: Vec<String> = (0..40_000).map(|i| format!("{i:05}")).collect();
        let (kept, total) = last_bytes(train.iter().cloned(), 4, &LzmaWatch::default()).expect("reads");
        assert_eq!((kept.as_slice(), total), (&b"9999"[..], 200_000));
        let result = run(&train, &["abc".to_owned(), "def".to_owned()], &limits).expect("compresses");
        assert_eq!((result.train_bytes, result.train_bytes_total), (4, 200_000));
        assert_eq!((result.held_out_bytes, result.held_out_bytes_total), (5, 6));
        assert!(result.left_out().expect("something").contains("training text"));
    }

    #[test]
    fn whole_texts_leave_nothing_to_say_and_the_dictionary_covers_them() {
        let result = run(&[words(1, 300_000)], &[words(2, 10)], &LzmaLimits::default()).expect("compresses");
        assert_eq!(result.left_out(), None);
        assert!(result.dict_bytes >= result.train_bytes + result.held_out_bytes);
        assert!(result.memory_bytes > 10 * result.dict_bytes);
    }

    #[test]
    fn nothing_held_out_is_an_error() {
        let error = run(&[words(1, 10)], &[], &LzmaLimits::default()).expect_err("empty");
        assert!(error.to_string().contains("held_out_fraction"), "{error}");
    }

    #[test]
    fn it_stops_when_asked() {
        let watch = LzmaWatch::default();
        watch.cancel.store(true, Ordering::Relaxed);
        let text = || std::iter::once(words(1, 10));
        assert!(matches!(lzma(text(), text(), &LzmaLimits::default(), &watch), Err(Error::Interrupted)));
        assert!(matches!(compressed_bytes(b"abc", &watch), Err(Error::Interrupted)));
    }
}
