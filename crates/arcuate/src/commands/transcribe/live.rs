//! Transcribing while sound comes through a pipe: text that may still change at once, final text soon after.
//!
//! Steps of sound are heard one after the other, each with some seconds before it and a moment after it. A line is final
//! when a pause follows it.

use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;

use anyhow::Context;
use arcuate_decode::ctc::{CtcDecoder, CtcStream, Emissions, Partial, Word};
use serde_json::json;

use super::super::runs::output;
use super::recogniser::Recogniser;
use super::source::Source;
use crate::{exit, terminal};

/// What is heard before a step.
const PAST_SECONDS: f64 = 6.0;
/// What is heard after a step, which is then as late.
const FUTURE_SECONDS: f64 = 0.4;
/// A word is final at the latest so long after its end.
const MAX_PENDING_SECONDS: f64 = 3.0;
/// A line is final when nothing was said for so long.
const PAUSE_SECONDS: f64 = 0.8;
/// Longest line: then it is final at its last final word.
const MAX_LINE_SECONDS: f64 = 15.0;

/// A line of text with its times.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub text: String,
    pub start_seconds: f64,
    pub end_seconds: f64,
    pub is_final: bool,
}

/// Cuts sound into steps with what is heard around them; all lengths in samples.
#[derive(Debug)]
struct Steps {
    step: usize,
    past: usize,
    future: usize,
    hop: usize,
    frame: usize,
    buffer: Vec<f32>,
    /// Samples at the begin of the buffer that were heard before.
    num_past: usize,
}

/// A step with what is around it, and which of its frames are new.
#[derive(Debug, PartialEq)]
struct Step {
    samples: Vec<f32>,
    first_frame: usize,
    num_frames: usize,
}

impl Steps {
    fn new(step_seconds: f64, hop: usize, frame: usize, sample_rate_hz: u32) -> Self {
        let hop = hop.max(1);
        let samples = |seconds: f64| ((seconds * f64::from(sample_rate_hz)) as usize).next_multiple_of(hop);
        let future = samples(FUTURE_SECONDS).max(frame.saturating_sub(hop).next_multiple_of(hop));
        let step = samples(step_seconds).max(hop);
        Self { step, past: samples(PAST_SECONDS), future, hop, frame, buffer: Vec::new(), num_past: 0 }
    }

    /// The next step, once enough was heard behind it.
    fn take(&mut self) -> Option<Step> {
        let end = self.num_past + self.step;
        let samples = self.buffer.get(..end + self.future)?.to_vec();
        let step = Step { samples, first_frame: self.num_past / self.hop, num_frames: self.step / self.hop };
        self.num_past = end;
        let num_gone = end.saturating_sub(self.past);
        self.buffer.drain(..num_gone);
        self.num_past -= num_gone;
        Some(step)
    }

    /// What is left at the end.
    fn take_rest(&mut self) -> Option<Step> {
        let first_frame = self.num_past / self.hop;
        let all = if self.buffer.len() < self.frame { 0 } else { (self.buffer.len() - self.frame) / self.hop + 1 };
        let num_frames = all.checked_sub(first_frame).filter(|num| *num > 0)?;
        Some(Step { samples: std::mem::take(&mut self.buffer), first_frame, num_frames })
    }
}

/// Makes lines of what the search says.
struct Lines<'a> {
    decoder: &'a CtcDecoder,
    seconds_per_frame: f64,
    stream: CtcStream,
    /// Frames before the stream began, and in it.
    num_before: u64,
    num_frames: u64,
    /// Words of the stream that are final, those of earlier lines included.
    num_settled: usize,
    /// Those of the line at hand.
    words: Vec<Word>,
    /// What was said of it last.
    said: Option<Line>,
}

impl<'a> Lines<'a> {
    fn new(decoder: &'a CtcDecoder, seconds_per_frame: f64) -> anyhow::Result<Self> {
        Ok(Self {
            decoder,
            seconds_per_frame,
            stream: stream(decoder, seconds_per_frame)?,
            num_before: 0,
            num_frames: 0,
            num_settled: 0,
            words: Vec::new(),
            said: None,
        })
    }

    /// Goes on by these frames; the lines that are final now, and the one at hand if it has changed.
    fn push(&mut self, emissions: &Emissions) -> anyhow::Result<Vec<Line>> {
        let Partial { settled, pending } = self.stream.push(emissions)?;
        self.num_frames += emissions.num_frames() as u64;
        self.num_settled += settled.len();
        self.words.extend(settled);
        let end_frame = pending.last().or(self.words.last()).map_or(0, |word| u64::from(word.end_frame));
        if self.num_frames.saturating_sub(end_frame) as f64 * self.seconds_per_frame >= PAUSE_SECONDS {
            return self.finish();
        }
        let mut lines = Vec::new();
        if let [first, .., last] = self.words.as_slice()
            && f64::from(last.end_frame - first.start_frame) * self.seconds_per_frame > MAX_LINE_SECONDS
        {
            let words = std::mem::take(&mut self.words);
            lines.extend(self.line(&words, true));
        }
        let line = self.line(&[self.words.as_slice(), pending.as_slice()].concat(), false);
        if line != self.said {
            lines.extend(line.clone());
            self.said = line;
        }
        Ok(lines)
    }

    /// Ends the line, and begins anew: so memory stays as it is however long one listens.
    fn finish(&mut self) -> anyhow::Result<Vec<Line>> {
        let next =
            Self { num_before: self.num_before + self.num_frames, ..Self::new(self.decoder, self.seconds_per_frame)? };
        let old = std::mem::replace(self, next);
        let (num_before, mut words) = (old.num_before, old.words);
        let best = old.stream.finish().into_iter().next();
        words.extend(best.into_iter().flat_map(|best| best.words.into_iter().skip(old.num_settled)));
        Ok(line(&words, num_before, self.seconds_per_frame, true).into_iter().collect())
    }

    fn line(&self, words: &[Word], is_final: bool) -> Option<Line> {
        line(words, self.num_before, self.seconds_per_frame, is_final)
    }
}

fn stream(decoder: &CtcDecoder, seconds_per_frame: f64) -> anyhow::Result<CtcStream> {
    Ok(decoder.stream(Some((MAX_PENDING_SECONDS / seconds_per_frame).max(1.0) as usize))?)
}

/// Words of a stream that began after so many frames as a line; none without words.
fn line(words: &[Word], num_before: u64, seconds_per_frame: f64, is_final: bool) -> Option<Line> {
    let (first, last) = (words.first()?, words.last()?);
    let start = num_before as f64 * seconds_per_frame;
    let text = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
    let (start_seconds, end_seconds) =
        (start + first.seconds(seconds_per_frame).0, start + last.seconds(seconds_per_frame).1);
    Some(Line { text, start_seconds, end_seconds, is_final })
}

/// Listens until the pipe ends, and shows lines.
pub(super) fn run(
    recogniser: &Recogniser,
    decoder: &CtcDecoder,
    source: Source,
    step_seconds: f64,
    is_json: bool,
) -> anyhow::Result<()> {
    let (hop, rate) = (recogniser.hop_samples(), recogniser.sample_rate_hz());
    let mut steps = Steps::new(step_seconds, hop, recogniser.frame_samples(), rate);
    let mut lines = Lines::new(decoder, hop as f64 / f64::from(rate))?;
    let width = recogniser.alphabet().num_tokens();
    let hear = |step: &Step, lines: &mut Lines| -> anyhow::Result<ControlFlow<()>> {
        let log_probs = recogniser.log_probs(&[&step.samples], step.samples.len())?.pop().unwrap_or_default();
        let new = &log_probs[step.first_frame * width..(step.first_frame + step.num_frames) * width];
        show_all(&lines.push(&Emissions::from_log_probs(new, width)?)?, is_json)
    };
    for block in source {
        steps.buffer.extend_from_slice(&block?);
        while let Some(step) = steps.take() {
            if hear(&step, &mut lines)?.is_break() {
                return Ok(());
            }
        }
    }
    if let Some(step) = steps.take_rest()
        && hear(&step, &mut lines)?.is_break()
    {
        return Ok(());
    }
    show_all(&lines.finish()?, is_json).map(|_| ())
}

/// Final lines go to standard output, others to the terminal alone, each over the one before it; with JSON both go to
/// standard output.
fn show_all(lines: &[Line], is_json: bool) -> anyhow::Result<ControlFlow<()>> {
    let is_terminal = std::io::stderr().is_terminal();
    for line in lines {
        let text = output::one_line(&line.text, usize::MAX);
        let flow = if is_json {
            let millis = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
            let (start, end) = (millis(line.start_seconds), millis(line.end_seconds));
            write(&format!("{}\n", json!({"final": line.is_final, "start": start, "end": end, "text": line.text})))?
        } else if line.is_final {
            if is_terminal {
                terminal::draft("");
            }
            write(&format!("{text}\n"))?
        } else {
            if is_terminal {
                terminal::draft(&text);
            }
            ControlFlow::Continue(())
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Writes at once; breaks off when nobody reads any more.
fn write(text: &str) -> anyhow::Result<ControlFlow<()>> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// Refuses a step that is too short to hear anything in, or so long that nothing is live.
pub(super) fn check(step_seconds: f64) -> anyhow::Result<()> {
    if (0.05..=10.0).contains(&step_seconds) {
        return Ok(());
    }
    Err(exit::usage(format!("`--step-seconds` is {step_seconds}; it must be from 0.05 to 10")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_decode::ctc::{Alphabet, CtcDecoderConfig, WordMarks, prefix_beam};
    use std::sync::Arc;

    fn decoder() -> CtcDecoder {
        let tokens = ["-", "|", "a", "b"].map(str::to_owned);
        let alphabet = Alphabet::new(&tokens, "-", &WordMarks::Boundary("|".to_owned()), &[]).expect("an alphabet");
        let config = CtcDecoderConfig::PrefixBeam(prefix_beam::Config::default());
        CtcDecoder::load(&config, Arc::new(alphabet)).expect("no files")
    }

    /// Frames that are nearly certain of one token each.
    fn frames(ids: &[usize]) -> Vec<f32> {
        ids.iter().flat_map(|id| (0..4).map(move |at| if at == *id { 0.97_f32.ln() } else { 0.01_f32.ln() })).collect()
    }

    /// The lines that are said of frames of a tenth of a second, five of them at a time.
    fn said(ids: &[usize]) -> Vec<Line> {
        let decoder = decoder();
        let mut lines = Lines::new(&decoder, 0.1).expect("a search");
        let mut all = Vec::new();
        for ids in ids.chunks(5) {
            let frames = frames(ids);
            all.extend(lines.push(&Emissions::from_log_probs(&frames, 4).expect("sums to one")).expect("goes on"));
        }
        all.extend(lines.finish().expect("ends"));
        all
    }

    fn of(lines: &[Line], is_final: bool) -> Vec<&str> {
        lines.iter().filter(|line| line.is_final == is_final).map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn a_pause_makes_a_line_final_and_the_next_one_has_its_own_times() {
        let mut ids = vec![2, 0, 2, 1, 3, 0, 0, 0, 0, 0];
        ids.extend([0; 10]);
        ids.extend([3, 3, 1, 2, 0]);
        let lines = said(&ids);
        assert_eq!(of(&lines, true), ["aa b", "b a"]);
        assert_eq!(of(&lines, false), ["aa b", "b a"]);
        let finals: Vec<&Line> = lines.iter().filter(|line| line.is_final).collect();
        assert!((finals[0].start_seconds - 0.0).abs() < 1e-9 && (finals[0].end_seconds - 0.5).abs() < 1e-9);
        assert!((finals[1].start_seconds - 2.0).abs() < 1e-9 && (finals[1].end_seconds - 2.4).abs() < 1e-9);
    }

    #[test]
    fn speech_without_pauses_comes_in_lines_of_bounded_length_and_no_word_is_lost() {
        let ids: Vec<usize> = (0..200).flat_map(|_| [2, 3, 1]).collect();
        let lines = said(&ids);
        let finals = of(&lines, true);
        assert!(finals.len() >= 3, "{} lines", finals.len());
        assert_eq!(finals.join(" "), vec!["ab"; 200].join(" "));
        assert!(lines.iter().all(|line| line.end_seconds - line.start_seconds < 25.0));
    }

    #[test]
    fn silence_says_nothing() {
        assert_eq!(said(&[0; 300]), []);
    }

    #[test]
    fn steps_hear_what_is_around_them_and_every_frame_is_new_once() {
        for block in [1, 7, 5000] {
            // Frames of 5 samples, every 2; at 100 samples a second.
            let mut steps = Steps::new(0.5, 2, 5, 100);
            let samples: Vec<f32> = (0..2345).map(|i| i as f32).collect();
            let (mut new, mut last) = (Vec::new(), None);
            let mut take = |step: Step| {
                assert!(step.samples.len() <= 600 + 50 + 40 + 4, "{}", step.samples.len());
                new.extend((0..step.num_frames).map(|at| step.samples[2 * (step.first_frame + at)]));
                last = step.samples.last().copied();
            };
            for block in samples.chunks(block) {
                steps.buffer.extend_from_slice(block);
                while let Some(step) = steps.take() {
                    take(step);
                }
            }
            steps.take_rest().into_iter().for_each(&mut take);
            let wanted: Vec<f32> = (0..(2345 - 5) / 2 + 1).map(|frame| (2 * frame) as f32).collect();
            assert_eq!(new, wanted);
            assert_eq!(last, Some(2344.0));
        }
        assert_eq!(Steps::new(0.5, 2, 5, 100).take_rest(), None);
    }
}
