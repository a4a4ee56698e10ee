//! A recording of any length as chunks that a network can hear, in bounded memory.
//!
//! What is short is one chunk. Of what is long, stretches of speech are looked for in a window that moves along; silence
//! is left out. Speech longer than a chunk is cut where it is quietest, and both sides hear a little of each other: of
//! the frames that both have, each keeps its half. Cuts lie on the grid of frames, so that no frame is lost or doubled.

use std::ops::Range;

use crate::exit;

/// The window holds so many chunks.
const WINDOW_CHUNKS: usize = 3;
/// What is so near to the end of the window may go on behind it.
const MARGIN_SECONDS: f64 = 1.0;
/// An unbroken stretch of speech is decoded in parts of about this length.
const MAX_STRETCH_SECONDS: f64 = 300.0;

/// How a recording is cut; all lengths in samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cutting {
    /// Longest chunk.
    chunk: usize,
    /// What a chunk hears on the other side of a cut.
    context: usize,
    /// From one frame to the next.
    hop: usize,
    sample_rate_hz: u32,
}

impl Cutting {
    /// Takes lengths in seconds; a frame is made of `frame` samples, the next one begins `hop` samples later.
    pub(super) fn new(
        chunk_seconds: f64,
        overlap_seconds: f64,
        hop: usize,
        frame: usize,
        sample_rate_hz: u32,
    ) -> anyhow::Result<Self> {
        if !(1.0..=600.0).contains(&chunk_seconds) {
            return Err(exit::usage(format!("`--chunk-seconds` is {chunk_seconds}; it must be from 1 to 600")));
        }
        if !(0.0..=chunk_seconds / 3.0).contains(&overlap_seconds) {
            return Err(exit::usage(format!(
                "`--overlap-seconds` is {overlap_seconds}; it must be from 0 to a third of `--chunk-seconds`, {:.2}",
                chunk_seconds / 3.0
            )));
        }
        let hop = hop.max(1);
        let samples = |seconds: f64| (seconds * f64::from(sample_rate_hz)) as usize;
        // At least what the last frame before a cut needs of the other side.
        let context = (samples(overlap_seconds) / 2).max(frame.saturating_sub(hop)).next_multiple_of(hop);
        Ok(Self { chunk: samples(chunk_seconds).max(4 * (context + hop)), context, hop, sample_rate_hz })
    }

    /// Longest stretch between two cuts.
    fn piece(&self) -> usize {
        // Cuts move to the grid.
        self.chunk - 2 * self.context - self.hop
    }

    fn window(&self) -> usize {
        WINDOW_CHUNKS * self.chunk + self.margin()
    }

    fn margin(&self) -> usize {
        (MARGIN_SECONDS * f64::from(self.sample_rate_hz)) as usize
    }

    /// Frames after which a stretch is decoded in parts.
    pub(super) fn max_stretch_frames(&self) -> usize {
        (MAX_STRETCH_SECONDS * f64::from(self.sample_rate_hz)) as usize / self.hop
    }

    /// The hop in seconds.
    pub(super) fn seconds_per_frame(&self) -> f64 {
        self.hop as f64 / f64::from(self.sample_rate_hz)
    }
}

/// A part of a stretch of speech, with what it hears of its neighbours.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chunk {
    /// What is heard.
    pub samples: Vec<f32>,
    /// Where the stretch begins in the recording, in samples.
    pub stretch_start: u64,
    /// The first frame of the chunk, counted from the begin of the stretch.
    pub first_frame: usize,
    /// Frames of the stretch that are known with this chunk; none: all that it has.
    pub end_frame: Option<usize>,
    /// Whether a stretch begins here.
    pub is_first: bool,
}

/// Finds speech: ranges of samples in order, none longer than the given number; longer ones are cut, and touch.
pub(super) trait FindSpeech: FnMut(&[f32], usize) -> anyhow::Result<Vec<Range<usize>>> {}
impl<F: FnMut(&[f32], usize) -> anyhow::Result<Vec<Range<usize>>>> FindSpeech for F {}

/// Takes a recording block by block and gives chunks.
pub(super) struct Chunker<F> {
    cutting: Cutting,
    find_speech: F,
    buffer: Vec<f32>,
    /// Where the buffer begins in the recording.
    base: u64,
    /// Up to where everything is decided.
    decided: u64,
    /// Where the stretch begins that goes on at `decided`.
    open: Option<u64>,
}

impl<F: FindSpeech> Chunker<F> {
    pub(super) fn new(cutting: Cutting, find_speech: F) -> Self {
        Self { cutting, find_speech, buffer: Vec::new(), base: 0, decided: 0, open: None }
    }

    /// Samples heard so far.
    pub(super) fn num_samples(&self) -> u64 {
        self.base + self.buffer.len() as u64
    }

    /// Hears more; the chunks that are certain now.
    pub(super) fn push(&mut self, mut block: &[f32]) -> anyhow::Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        while !block.is_empty() {
            // Windows end at the same places however blocks come.
            let room = self.cutting.window().saturating_sub((self.num_samples() - self.decided) as usize).max(1);
            let (part, rest) = block.split_at(room.min(block.len()));
            self.buffer.extend_from_slice(part);
            block = rest;
            if part.len() == room {
                self.decide(false, &mut chunks)?;
            }
        }
        Ok(chunks)
    }

    /// The recording has ended; the last chunks.
    pub(super) fn finish(&mut self) -> anyhow::Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        if self.decided == 0 && self.open.is_none() && self.buffer.len() <= self.cutting.chunk {
            if !self.buffer.is_empty() {
                let samples = self.buffer.clone();
                chunks.push(Chunk { samples, stretch_start: 0, first_frame: 0, end_frame: None, is_first: true });
            }
            return Ok(chunks);
        }
        self.decide(true, &mut chunks)?;
        Ok(chunks)
    }

    /// Makes chunks of the speech that is certain.
    fn decide(&mut self, is_end: bool, chunks: &mut Vec<Chunk>) -> anyhow::Result<()> {
        let from = self.decided;
        let view = &self.buffer[(from - self.base) as usize..];
        let view_end = from + view.len() as u64;
        let found = (self.find_speech)(view, self.cutting.piece())?;
        let pieces: Vec<Range<u64>> = found.iter().map(|r| from + r.start as u64..from + r.end as u64).collect();
        let certain = if is_end { view_end } else { view_end.saturating_sub(self.cutting.margin() as u64).max(from) };
        let num_certain = pieces.len() - usize::from(pieces.last().is_some_and(|last| last.end > certain));
        // Whether a piece is the other side of a cut.
        let continues = |at: usize, is_open: bool| match at.checked_sub(1) {
            Some(before) => pieces[before].end == pieces[at].start,
            None => is_open && pieces[at].start == from,
        };
        for (at, piece) in pieces[..num_certain].iter().enumerate() {
            if !continues(at, self.open.is_some()) {
                self.open = None;
                self.decided = piece.start;
            }
            let goes_on = at + 1 < pieces.len() && continues(at + 1, true);
            self.add(piece.end, goes_on, chunks);
        }
        match pieces.get(num_certain) {
            Some(_) if continues(num_certain, self.open.is_some()) => {}
            rest => {
                self.open = None;
                self.decided = rest.map_or(self.decided.max(certain), |rest| rest.start);
            }
        }
        let base = self.decided.saturating_sub(self.cutting.context as u64).max(self.base);
        self.buffer.drain(..(base - self.base) as usize);
        self.base = base;
        Ok(())
    }

    /// Adds the chunk from `decided` to `end`, or to the frame before it if the stretch goes on there.
    fn add(&mut self, mut end: u64, goes_on: bool, chunks: &mut Vec<Chunk>) {
        let (hop, context) = (self.cutting.hop as u64, self.cutting.context as u64);
        let (start, stretch_start) = (self.decided, self.open.unwrap_or(self.decided));
        if goes_on {
            end = stretch_start + (end.max(start + hop) - stretch_start) / hop * hop;
        }
        let heard_from = start.saturating_sub(context).max(stretch_start);
        let heard_to = if goes_on { end + context } else { end }.min(self.num_samples());
        chunks.push(Chunk {
            samples: self.buffer[(heard_from - self.base) as usize..(heard_to - self.base) as usize].to_vec(),
            stretch_start,
            first_frame: ((heard_from - stretch_start) / hop) as usize,
            end_frame: goes_on.then_some(((end - stretch_start) / hop) as usize),
            is_first: self.open.is_none(),
        });
        self.open = goes_on.then_some(stretch_start);
        self.decided = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 100;

    fn cutting(chunk: f64, overlap: f64) -> Cutting {
        // Frames of 5 samples, every 2.
        Cutting::new(chunk, overlap, 2, 5, RATE).expect("possible lengths")
    }

    /// Samples above zero are speech; cut after `max` samples.
    fn find(samples: &[f32], max: usize) -> anyhow::Result<Vec<Range<usize>>> {
        let mut found: Vec<Range<usize>> = Vec::new();
        for (at, _) in samples.iter().enumerate().filter(|(_, x)| **x > 0.0) {
            match found.last_mut() {
                Some(last) if last.end == at && last.len() < max => last.end += 1,
                _ => found.push(at..at + 1),
            }
        }
        Ok(found)
    }

    /// A recording of which sample `i` is `i + 1` where there is speech, else 0.
    fn recording(len: usize, speech: &[Range<usize>]) -> Vec<f32> {
        (0..len).map(|i| if speech.iter().any(|r| r.contains(&i)) { (i + 1) as f32 } else { 0.0 }).collect()
    }

    fn chunks(samples: &[f32], cutting: Cutting, block: usize) -> Vec<Chunk> {
        let mut chunker = Chunker::new(cutting, find);
        let mut all = Vec::new();
        for block in samples.chunks(block) {
            all.extend(chunker.push(block).expect("finds"));
            let most = cutting.window() + 2 * cutting.chunk;
            assert!(chunker.buffer.len() <= most, "{} samples are held", chunker.buffer.len());
        }
        all.extend(chunker.finish().expect("finds"));
        assert_eq!(chunker.num_samples(), samples.len() as u64);
        all
    }

    /// The frames of a chunk that are kept behind `known` ones of its stretch, as the places of their first samples.
    fn kept(chunk: &Chunk, known: usize) -> Vec<u64> {
        let num = if chunk.samples.len() < 5 { 0 } else { (chunk.samples.len() - 5) / 2 + 1 };
        let end = chunk.end_frame.unwrap_or(usize::MAX).min(chunk.first_frame + num);
        (known.max(chunk.first_frame)..end).map(|frame| chunk.stretch_start + 2 * frame as u64).collect()
    }

    /// The frames of all stretches.
    fn frames(chunks: &[Chunk]) -> Vec<Vec<u64>> {
        let mut stretches: Vec<Vec<u64>> = Vec::new();
        for chunk in chunks {
            if chunk.is_first {
                stretches.push(Vec::new());
            }
            let stretch = stretches.last_mut().expect("a chunk begins a stretch");
            let more = kept(chunk, stretch.len());
            stretch.extend(more);
        }
        stretches
    }

    #[test]
    fn a_short_recording_is_one_chunk_whatever_it_holds() {
        let samples = recording(150, &[10..20]);
        let all = chunks(&samples, cutting(2.0, 0.1), 40);
        let [one] = all.as_slice() else { panic!("{} chunks", all.len()) };
        assert_eq!(
            (one.samples.as_slice(), one.is_first, one.first_frame, one.end_frame),
            (&samples[..], true, 0, None)
        );
        assert_eq!(chunks(&[], cutting(2.0, 0.1), 40), []);
    }

    #[test]
    fn silence_of_a_long_recording_is_left_out() {
        let samples = recording(5000, &[300..400, 2000..2100, 4900..5000]);
        for block in [7, 1000, 5000] {
            let all = chunks(&samples, cutting(2.0, 0.1), block);
            let places: Vec<(u64, usize, bool)> =
                all.iter().map(|c| (c.stretch_start, c.samples.len(), c.is_first)).collect();
            assert_eq!(places, [(300, 100, true), (2000, 100, true), (4900, 100, true)], "blocks of {block}");
            assert!(all.iter().all(|chunk| chunk.samples[0] == (chunk.stretch_start + 1) as f32));
        }
    }

    #[test]
    fn speech_without_end_loses_and_doubles_no_frame() {
        for (overlap, block) in [(0.0, 33), (0.2, 33), (0.5, 4000)] {
            let samples = recording(4000, &[101..3903]);
            let all = chunks(&samples, cutting(2.0, overlap), block);
            assert!(all.len() > 19 && all.iter().all(|chunk| chunk.samples.len() <= 200), "{} chunks", all.len());
            let wanted: Vec<u64> = (0..(3903 - 101 - 5) / 2 + 1).map(|frame| 101 + 2 * frame).collect();
            let [found] = &frames(&all)[..] else { panic!("{} stretches", frames(&all).len()) };
            // A last piece that is shorter than a frame lends the one before it the silence behind.
            assert_eq!(found[..wanted.len()], wanted, "overlap {overlap}");
            assert!(found.len() <= wanted.len() + 1, "{} frames", found.len());
            for chunk in &all {
                let first = chunk.stretch_start + 2 * chunk.first_frame as u64;
                assert_eq!(chunk.samples[0], (first + 1) as f32);
            }
        }
    }

    #[test]
    fn both_sides_of_a_cut_hear_each_other() {
        let samples = recording(600, &[0..600]);
        let all = chunks(&samples, cutting(2.0, 0.2), 600);
        for (chunk, next) in all.iter().zip(&all[1..]) {
            let cut = 2 * chunk.end_frame.expect("cut") as u64;
            let heard_to = 2 * chunk.first_frame as u64 + chunk.samples.len() as u64;
            assert!(heard_to >= (cut + 10).min(600) && 2 * next.first_frame as u64 <= cut - 10, "cut at {cut}");
        }
    }

    #[test]
    fn how_blocks_come_changes_nothing() {
        let samples = recording(9000, &[5..1700, 1710..1800, 3000..3001, 3050..6123, 8000..9000]);
        let whole = chunks(&samples, cutting(2.0, 0.1), 9000);
        for block in [1, 13, 200, 2048] {
            assert_eq!(chunks(&samples, cutting(2.0, 0.1), block), whole, "blocks of {block}");
        }
    }

    #[test]
    fn impossible_lengths_are_refused() {
        let message = |chunk, overlap| Cutting::new(chunk, overlap, 2, 5, RATE).expect_err("impossible").to_string();
        assert!(message(0.5, 0.0).contains("--chunk-seconds"));
        assert!(message(f64::NAN, 0.0).contains("--chunk-seconds"));
        assert!(message(3.0, 1.5).contains("a third"));
        assert!(message(3.0, -1.0).contains("--overlap-seconds"));
    }
}
