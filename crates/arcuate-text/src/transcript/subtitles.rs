//! Subtitles, SubRip (`srt`) and WebVTT (`vtt`): at most two lines of 42 characters at a time.
//!
//! A longer segment is split between words, at their times; without word times, time is shared out by the number of characters. A
//! word that is longer than a line, as in scripts without spaces, is split too.

use std::fmt::Write as _;

use super::{Segment, Transcript, milliseconds};

const MAX_LINE_CHARS: usize = 42;
const MAX_LINES: usize = 2;

/// What is on the screen at one time.
#[derive(Debug, PartialEq)]
struct Cue {
    start: f64,
    end: f64,
    lines: Vec<String>,
}

/// A word, or a part of one, that a line can hold.
struct Piece {
    start: f64,
    end: f64,
    text: String,
    /// Whether it goes on with what was before it, without a space.
    is_joined: bool,
}

pub(super) fn write_srt(transcript: &Transcript) -> String {
    let mut text = String::new();
    let mut number = 0;
    for segment in &transcript.segments {
        let label = segment.speaker.as_ref().map(|speaker| format!("{speaker}:"));
        for cue in cues(segment, label.as_deref()) {
            number += 1;
            let times = format!("{} --> {}", time(cue.start, ','), time(cue.end, ','));
            let _ = write!(text, "{number}\n{times}\n{}\n\n", cue.lines.join("\n"));
        }
    }
    text
}

pub(super) fn write_vtt(transcript: &Transcript) -> String {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut text = "WEBVTT\n\n".to_owned();
    for segment in &transcript.segments {
        let voice = segment.speaker.as_ref().map_or_else(String::new, |speaker| format!("<v {}>", escape(speaker)));
        for cue in cues(segment, None) {
            let lines = escape(&cue.lines.join("\n"));
            let _ = write!(text, "{} --> {}\n{voice}{lines}\n\n", time(cue.start, '.'), time(cue.end, '.'));
        }
    }
    text
}

/// `HH:MM:SS,mmm`.
fn time(seconds: f64, point: char) -> String {
    let all = milliseconds(seconds);
    let (hours, minutes, seconds) = (all / 3_600_000, all / 60_000 % 60, all / 1000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}{point}{:03}", all % 1000)
}

fn cues(segment: &Segment, label: Option<&str>) -> Vec<Cue> {
    let start = segment.start_seconds;
    let label = label.into_iter().flat_map(|label| split(label, start, start));
    let mut cues: Vec<Cue> = Vec::new();
    for piece in label.chain(pieces(segment)) {
        let fits = |line: &String| {
            line.chars().count() + usize::from(!piece.is_joined) + piece.text.chars().count() <= MAX_LINE_CHARS
        };
        match cues.last_mut() {
            Some(cue) if cue.lines.last().is_some_and(fits) || cue.lines.len() < MAX_LINES => {
                cue.end = piece.end;
                match cue.lines.last_mut().filter(|line| fits(line)) {
                    Some(line) => {
                        line.push_str(if piece.is_joined { "" } else { " " });
                        line.push_str(&piece.text);
                    }
                    None => cue.lines.push(piece.text),
                }
            }
            _ => cues.push(Cue { start: piece.start, end: piece.end, lines: vec![piece.text] }),
        }
    }
    if let Some(first) = cues.first_mut() {
        first.start = segment.start_seconds;
    }
    if let Some(last) = cues.last_mut() {
        last.end = segment.end_seconds;
    }
    for cue in &mut cues {
        // Players pass over what is shown for no time at all.
        cue.end = cue.end.max(cue.start + 0.001);
    }
    cues
}

fn pieces(segment: &Segment) -> Vec<Piece> {
    if !segment.words.is_empty() {
        return segment.words.iter().flat_map(|word| split(&word.text, word.start_seconds, word.end_seconds)).collect();
    }
    let num_chars = segment.text.chars().count().max(1) as f64;
    let length = segment.end_seconds - segment.start_seconds;
    let at = |chars: usize| segment.start_seconds + length * chars as f64 / num_chars;
    let mut place = 0;
    let mut all = Vec::new();
    for word in segment.text.split(' ') {
        let end = place + word.chars().count();
        all.extend(split(word, at(place), at(end)));
        place = end + 1;
    }
    all
}

/// Parts of a text that fit into a line.
fn split(text: &str, start: f64, end: f64) -> Vec<Piece> {
    let letters: Vec<char> = text.chars().collect();
    let at = |chars: usize| start + (end - start) * chars as f64 / letters.len().max(1) as f64;
    let part = |(index, part): (usize, &[char])| {
        let first = index * MAX_LINE_CHARS;
        Piece { start: at(first), end: at(first + part.len()), text: part.iter().collect(), is_joined: index > 0 }
    };
    letters.chunks(MAX_LINE_CHARS).enumerate().map(part).collect()
}
