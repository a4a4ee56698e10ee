//! A stretch of speech: the emissions of its chunks put together, and the words of it as segments of a transcript.

use std::ops::Range;

use arcuate_decode::ctc::{Alphabet, Emissions, Hypothesis, Word};
use arcuate_text::transcript;

/// Words that are so far apart stand in two segments.
const PAUSE_SECONDS: f64 = 0.6;
/// Longest segment, as one reads it in a subtitle.
const MAX_SEGMENT_SECONDS: f64 = 7.0;
const MAX_SEGMENT_CHARACTERS: usize = 84;

/// Log-probabilities of a stretch or of a part of it, frame by frame.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Stretch {
    /// Where it begins in the recording.
    pub start_seconds: f64,
    /// Frames that were taken away from its begin.
    num_gone: usize,
    /// `[T, V]`.
    log_probs_tv: Vec<f32>,
}

impl Stretch {
    pub(super) fn new(start_seconds: f64) -> Self {
        Self { start_seconds, ..Self::default() }
    }

    /// Adds the frames of a chunk that are not known yet, of those before `end_frame`.
    pub(super) fn add(&mut self, first_frame: usize, end_frame: Option<usize>, log_probs_tv: &[f32], width: usize) {
        let known = self.num_gone + self.log_probs_tv.len() / width;
        let num_frames = log_probs_tv.len() / width;
        let to = end_frame.map_or(num_frames, |end| end.saturating_sub(first_frame).min(num_frames));
        let from = known.saturating_sub(first_frame).min(to);
        self.log_probs_tv.extend_from_slice(&log_probs_tv[from * width..to * width]);
    }

    /// Once there are more frames than `max_frames`: all up to the middle of the longest silence of the second half.
    pub(super) fn take_part(&mut self, max_frames: usize, alphabet: &Alphabet, seconds_per_frame: f64) -> Option<Self> {
        let width = alphabet.num_tokens();
        let num_frames = self.log_probs_tv.len() / width;
        if num_frames <= max_frames {
            return None;
        }
        let half = num_frames / 2;
        let silence = longest(self.log_probs_tv.chunks_exact(width).skip(half).map(|row| is_silent(row, alphabet)));
        let at = half + usize::midpoint(silence.start, silence.end).max(1);
        let rest = self.log_probs_tv.split_off(at * width);
        let next = Self {
            start_seconds: self.start_seconds + at as f64 * seconds_per_frame,
            num_gone: self.num_gone + at,
            log_probs_tv: rest,
        };
        Some(std::mem::replace(self, next))
    }

    pub(super) fn emissions(&self, width: usize) -> arcuate_decode::Result<Emissions<'_>> {
        Emissions::from_log_probs(&self.log_probs_tv, width)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.log_probs_tv.is_empty()
    }
}

/// Whether the best token of a frame writes nothing.
fn is_silent(row: &[f32], alphabet: &Alphabet) -> bool {
    let best =
        (0u32..).zip(row).fold((0, f32::NEG_INFINITY), |best, (id, x)| if *x > best.1 { (id, *x) } else { best });
    alphabet.text(best.0).is_empty()
}

/// The first of the longest runs of true.
fn longest(flags: impl Iterator<Item = bool>) -> Range<usize> {
    let (mut best, mut start) = (0..0, 0);
    for (at, flag) in flags.enumerate() {
        if !flag {
            start = at + 1;
        } else if at + 1 - start > best.len() {
            best = start..at + 1;
        }
    }
    best
}

/// The words of a hypothesis as segments: a new one begins after a pause, and where one becomes too long to read.
pub(super) fn segments(
    hypothesis: &Hypothesis,
    start_seconds: f64,
    seconds_per_frame: f64,
) -> Vec<transcript::Segment> {
    let mut segments: Vec<transcript::Segment> = Vec::new();
    let mut logs: Vec<f64> = Vec::new();
    for word in &hypothesis.words {
        let word = timed(word, start_seconds, seconds_per_frame);
        let goes_on = segments.last().is_some_and(|last| {
            word.start_seconds - last.end_seconds < PAUSE_SECONDS
                && word.end_seconds - last.start_seconds <= MAX_SEGMENT_SECONDS
                && last.text.chars().count() + 1 + word.text.chars().count() <= MAX_SEGMENT_CHARACTERS
        });
        if !goes_on {
            logs.clear();
            let start_seconds = word.start_seconds;
            segments.push(transcript::Segment { start_seconds, ..transcript::Segment::default() });
        }
        let last = segments.last_mut().expect("one was added if there was none");
        if goes_on {
            last.text.push(' ');
        }
        last.text.push_str(&word.text);
        last.end_seconds = word.end_seconds;
        logs.push(word.confidence.unwrap_or_default().max(1e-30).ln());
        last.confidence = Some(rounded((logs.iter().sum::<f64>() / logs.len() as f64).exp()));
        last.words.push(word);
    }
    segments
}

fn timed(word: &Word, start_seconds: f64, seconds_per_frame: f64) -> transcript::Word {
    let (start, end) = word.seconds(seconds_per_frame);
    transcript::Word {
        start_seconds: start_seconds + start,
        end_seconds: start_seconds + end,
        text: word.text.clone(),
        confidence: Some(rounded(f64::from(word.confidence))),
    }
}

/// As many places as a confidence is good for.
fn rounded(confidence: f64) -> f64 {
    (confidence * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_decode::ctc::WordMarks;

    fn alphabet() -> Alphabet {
        let tokens = ["-", "|", "a", "b"].map(str::to_owned);
        Alphabet::new(&tokens, "-", &WordMarks::Boundary("|".to_owned()), &[]).expect("an alphabet")
    }

    /// Frames that are certain of one token each.
    fn frames(ids: &[usize]) -> Vec<f32> {
        ids.iter().flat_map(|id| (0..4).map(move |at| if at == *id { 0.0 } else { f32::NEG_INFINITY })).collect()
    }

    #[test]
    fn frames_that_two_chunks_have_are_taken_once() {
        let mut stretch = Stretch::new(2.0);
        stretch.add(0, Some(3), &frames(&[0, 1, 2, 3, 3]), 4);
        stretch.add(1, Some(5), &frames(&[0, 0, 2, 1, 3, 3]), 4);
        // One that ended too early is completed by what the next one heard before the cut.
        stretch.add(4, Some(9), &frames(&[3, 2]), 4);
        stretch.add(5, None, &frames(&[3, 0, 1]), 4);
        assert_eq!(stretch.log_probs_tv, frames(&[0, 1, 2, 2, 1, 2, 0, 1]));
        assert_eq!(stretch.emissions(4).expect("log-probabilities").num_frames(), 8);
    }

    #[test]
    fn a_long_stretch_is_parted_in_its_longest_silence_and_goes_on() {
        let mut stretch = Stretch::new(10.0);
        let all = [2, 0, 0, 0, 0, 2, 2, 0, 3, 0, 1, 0, 3, 3];
        stretch.add(0, None, &frames(&all), 4);
        assert_eq!(stretch.take_part(14, &alphabet(), 0.5), None);
        let part = stretch.take_part(13, &alphabet(), 0.5).expect("too long");
        assert_eq!((part.log_probs_tv, part.start_seconds), (frames(&all[..10]), 10.0));
        assert_eq!((stretch.num_gone, stretch.start_seconds), (10, 15.0));
        stretch.add(12, None, &frames(&[1, 1, 2]), 4);
        assert_eq!(stretch.log_probs_tv, frames(&[1, 0, 3, 3, 2]));
        let mut loud = Stretch::new(0.0);
        loud.add(0, None, &frames(&[2; 6]), 4);
        assert_eq!(loud.take_part(5, &alphabet(), 0.5).expect("too long").log_probs_tv.len(), 16);
    }

    fn hypothesis(words: &[(&str, u32, u32)]) -> Hypothesis {
        let words = words.iter().map(|(text, start_frame, end_frame)| Word {
            text: (*text).to_owned(),
            start_frame: *start_frame,
            end_frame: *end_frame,
            confidence: 0.5,
        });
        Hypothesis {
            text: String::new(),
            tokens: Vec::new(),
            words: words.collect(),
            score: 0.0,
            acoustic_score: 0.0,
            lm_score: 0.0,
            is_complete: true,
        }
    }

    #[test]
    fn a_pause_ends_a_segment() {
        let found = segments(&hypothesis(&[("a", 0, 10), ("b", 15, 20), ("c", 60, 70)]), 100.0, 0.02);
        let seen: Vec<(&str, f64, f64, usize)> =
            found.iter().map(|s| (s.text.as_str(), s.start_seconds, s.end_seconds, s.words.len())).collect();
        assert_eq!(seen, [("a b", 100.0, 100.4, 2), ("c", 101.2, 101.4, 1)]);
        assert_eq!(found[0].confidence, Some(0.5));
        assert_eq!(segments(&hypothesis(&[]), 0.0, 0.02), []);
    }

    #[test]
    fn segments_stay_readable() {
        let words: Vec<(&str, u32, u32)> = (0..60).map(|i| ("word", 20 * i, 20 * i + 15)).collect();
        for segment in segments(&hypothesis(&words), 0.0, 0.02) {
            assert!(segment.end_seconds - segment.start_seconds <= 7.0 && segment.text.len() <= 84, "{segment:?}");
        }
        let long = "w".repeat(200);
        assert_eq!(segments(&hypothesis(&[(&long, 0, 900), ("b", 901, 910)]), 0.0, 0.02).len(), 2);
    }
}
