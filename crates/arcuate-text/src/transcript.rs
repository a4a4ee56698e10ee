//! Transcripts with times, as the files that people use: txt, json, srt, vtt, Praat TextGrid, ELAN eaf.
//!
//! Times that cannot be are put right before anything is written ([`Transcript::tidied`]); text is never lost. The same transcript gives
//! the same bytes. Of TextGrid and eaf, which people align by hand, the tiers can be read too.

mod eaf;
mod json;
mod subtitles;
mod textgrid;
mod txt;

use std::collections::HashMap;

pub use eaf::read_eaf;
pub use textgrid::read_textgrid;

use crate::{Error, Result};

/// No file of transcripts is larger.
const MAX_FILE_BYTES: usize = 256 << 20;

/// What was said in one recording.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transcript {
    /// File name of the recording, where the transcript will stand beside it, or its path.
    pub audio: String,
    /// Length of the recording.
    pub duration_seconds: f64,
    /// Code of the language, such as `cs`.
    pub language: Option<String>,
    /// What was said, in order.
    pub segments: Vec<Segment>,
}

/// A stretch of speech.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Segment {
    /// Where it begins.
    pub start_seconds: f64,
    /// Where it ends.
    pub end_seconds: f64,
    /// What was said.
    pub text: String,
    /// Who said it.
    pub speaker: Option<String>,
    /// How sure the recogniser is, 0 to 1.
    pub confidence: Option<f64>,
    /// The words with their times; may be empty.
    pub words: Vec<Word>,
}

/// A word with its times.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Word {
    /// Where it begins.
    pub start_seconds: f64,
    /// Where it ends.
    pub end_seconds: f64,
    /// The word.
    pub text: String,
    /// How sure the recogniser is, 0 to 1.
    pub confidence: Option<f64>,
}

/// A tier of a file: segments under one name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tier {
    /// Its name.
    pub name: String,
    /// Its segments in order of time; those without text are left out.
    pub segments: Vec<Segment>,
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// ELAN 3.0.
    Eaf,
    /// As Whisper writes it.
    Json,
    /// SubRip subtitles.
    Srt,
    /// Praat, long form.
    TextGrid,
    /// One segment a line.
    Txt,
    /// Web subtitles.
    Vtt,
}

impl Format {
    /// All kinds.
    pub const ALL: [Self; 6] = [Self::Eaf, Self::Json, Self::Srt, Self::TextGrid, Self::Txt, Self::Vtt];

    /// The ending of its files, which is its name too.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Eaf => "eaf",
            Self::Json => "json",
            Self::Srt => "srt",
            Self::TextGrid => "TextGrid",
            Self::Txt => "txt",
            Self::Vtt => "vtt",
        }
    }

    /// The kind of that name, whatever the case of its letters.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.extension().eq_ignore_ascii_case(name))
    }
}

impl Transcript {
    /// The content of a file.
    pub fn to_text(&self, format: Format) -> String {
        let tidied = self.tidied();
        match format {
            Format::Eaf => eaf::write(&tidied),
            Format::Json => json::write(&tidied),
            Format::Srt => subtitles::write_srt(&tidied),
            Format::TextGrid => textgrid::write(&tidied),
            Format::Txt => txt::write(&tidied),
            Format::Vtt => subtitles::write_vtt(&tidied),
        }
    }

    /// The same with possible times: finite, not negative, not after the end of the recording; segments by their start, none
    /// before the end of the one before it of the same speaker; words in order inside of their segment. White space in texts becomes
    /// single spaces, and what has no text is left out. A recording of unknown length (not a positive number) ends with its last segment.
    pub fn tidied(&self) -> Self {
        let is_known = self.duration_seconds.is_finite() && self.duration_seconds > 0.0;
        let limit = if is_known { self.duration_seconds } else { f64::MAX };
        let mut segments: Vec<Segment> = self.segments.clone();
        for segment in &mut segments {
            segment.text = one_line(&segment.text);
            segment.speaker = segment.speaker.as_deref().map(one_line).filter(|name| !name.is_empty());
            segment.confidence = possible(segment.confidence);
            segment.words.retain_mut(|word| {
                word.text = one_line(&word.text);
                word.confidence = possible(word.confidence);
                !word.text.is_empty()
            });
        }
        segments.retain(|segment| !segment.text.is_empty());
        // A start that is no number belongs where the segment stands in the list.
        let mut before = 0.0;
        for segment in &mut segments {
            if !segment.start_seconds.is_finite() {
                segment.start_seconds = before;
            }
            before = segment.start_seconds;
        }
        segments.sort_by(|a, b| a.start_seconds.total_cmp(&b.start_seconds));
        let mut ends: HashMap<Option<String>, f64> = HashMap::new();
        let mut last_end: f64 = 0.0;
        for segment in &mut segments {
            let end = ends.entry(segment.speaker.clone()).or_default();
            segment.start_seconds = segment.start_seconds.clamp(*end, limit);
            segment.end_seconds = at_least(segment.end_seconds, segment.start_seconds).min(limit);
            *end = segment.end_seconds;
            last_end = last_end.max(*end);
            let mut place = segment.start_seconds;
            for word in &mut segment.words {
                word.start_seconds = at_least(word.start_seconds, place).min(segment.end_seconds);
                word.end_seconds = at_least(word.end_seconds, word.start_seconds).min(segment.end_seconds);
                place = word.end_seconds;
            }
        }
        let duration_seconds = if is_known { self.duration_seconds } else { last_end };
        Self { audio: self.audio.clone(), duration_seconds, language: self.language.clone(), segments }
    }

    /// The segments of each speaker, by first appearance; those without a speaker have an empty name.
    fn by_speaker(&self) -> Vec<(&str, Vec<&Segment>)> {
        let mut all: Vec<(&str, Vec<&Segment>)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for segment in &self.segments {
            let name = segment.speaker.as_deref().unwrap_or_default();
            let place = *places.entry(name).or_insert_with(|| {
                all.push((name, Vec::new()));
                all.len() - 1
            });
            all[place].1.push(segment);
        }
        all
    }

    /// Tiers as programs for aligned speech show them: for each speaker the segments, then the words if there are any. At least one,
    /// since a file without tiers cannot be worked on.
    fn tiers(&self) -> Vec<(String, Vec<Span<'_>>)> {
        let mut tiers = Vec::new();
        for (speaker, segments) in self.by_speaker() {
            let name = if speaker.is_empty() { "segments" } else { speaker };
            let spans = segments.iter().map(|s| Span { start: s.start_seconds, end: s.end_seconds, text: &s.text });
            tiers.push((name.to_owned(), spans.collect()));
            let words = segments.iter().flat_map(|segment| &segment.words);
            let words: Vec<Span<'_>> =
                words.map(|w| Span { start: w.start_seconds, end: w.end_seconds, text: &w.text }).collect();
            if !words.is_empty() {
                tiers.push((if speaker.is_empty() { "words".to_owned() } else { format!("{speaker} words") }, words));
            }
        }
        if tiers.is_empty() {
            tiers.push(("segments".to_owned(), Vec::new()));
        }
        tiers
    }
}

/// A text with its times.
#[derive(Debug, Clone, Copy)]
struct Span<'a> {
    start: f64,
    end: f64,
    text: &'a str,
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A time that is no number is the least.
fn at_least(seconds: f64, least: f64) -> f64 {
    if seconds.is_finite() { seconds.max(least) } else { least }
}

fn possible(confidence: Option<f64>) -> Option<f64> {
    confidence.filter(|value| value.is_finite()).map(|value| value.clamp(0.0, 1.0))
}

/// Whole milliseconds.
fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}

/// Refuses what is no file of transcripts by its size.
fn check_size(format: &'static str, bytes: &[u8]) -> Result<()> {
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!("it has {} bytes, more than the {MAX_FILE_BYTES} that are read; cut it", bytes.len());
        return Err(Error::Transcript { format, line: 1, message });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
