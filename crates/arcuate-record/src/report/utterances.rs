//! Recognised utterances beside what was said, with players: the page carries the sound itself.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::escape;

/// Utterances that a table shows.
const MAX_ROWS: usize = 50;
/// Words that are shown of one utterance.
const MAX_WORDS: usize = 500;
/// Longer sounds are not put into the page: half a minute of 16-bit samples at 16 kHz.
const MAX_WAV_BYTES: usize = 1 << 20;

/// What became of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeardWord {
    /// It was recognised.
    Right(String),
    /// It was taken for another.
    Wrong {
        /// What was said.
        said: String,
        /// What was recognised.
        heard: String,
    },
    /// It was recognised and not said.
    Extra(String),
    /// It was said and not recognised.
    Missing(String),
}

/// One recognised utterance.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Utterance {
    /// Its name.
    pub id: String,
    /// Errors for each word that was said.
    pub word_error_rate: f64,
    /// Errors for each character that was said.
    pub character_error_rate: f64,
    /// What was said and recognised, in order.
    pub words: Vec<HeardWord>,
    /// The sound as a WAV file, best of 16-bit samples and one channel; more than 1 MiB is not shown.
    pub wav: Option<Vec<u8>>,
}

/// The table of the utterances. Marked words read without colours too: `−` is missing or wrong, `+` extra or wrong.
pub(super) fn utterance_table(utterances: &[Utterance]) -> String {
    let has_sound = utterances.iter().any(|utterance| utterance.wav.is_some());
    let mut html = String::from(
        "<div class=\"scroll\"><table class=\"utterances\"><thead><tr><th>utterance</th><th class=\"number\">WER</th>\
         <th class=\"number\">CER</th><th>said, recognised</th>",
    );
    html.push_str(if has_sound { "<th>sound</th></tr></thead><tbody>" } else { "</tr></thead><tbody>" });
    for utterance in utterances.iter().take(MAX_ROWS) {
        let _ = write!(
            html,
            "<tr><td>{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}{}</td>",
            escape(&utterance.id),
            percent(utterance.word_error_rate),
            percent(utterance.character_error_rate),
            line(&utterance.words, said),
            line(&utterance.words, heard)
        );
        if has_sound {
            let _ = write!(html, "<td>{}</td>", player(utterance.wav.as_deref()));
        }
        html.push_str("</tr>");
    }
    html.push_str(
        "</tbody></table></div>\n<p class=\"note\">− was said and not recognised, + was recognised and not said.",
    );
    if utterances.len() > MAX_ROWS {
        let _ = write!(html, " {MAX_ROWS} of {} utterances are shown.", utterances.len());
    }
    html + "</p>\n"
}

fn percent(rate: f64) -> String {
    if rate.is_finite() { format!("{:.1}%", 100.0 * rate) } else { "-".to_owned() }
}

fn line(words: &[HeardWord], show: fn(&HeardWord) -> Option<String>) -> String {
    let mut shown: Vec<String> = words.iter().take(MAX_WORDS).filter_map(show).collect();
    if words.len() > MAX_WORDS {
        shown.push("…".to_owned());
    }
    format!("<p dir=\"auto\">{}</p>", shown.join(" "))
}

fn said(word: &HeardWord) -> Option<String> {
    match word {
        HeardWord::Right(word) => Some(escape(word)),
        HeardWord::Wrong { said: word, .. } | HeardWord::Missing(word) => Some(format!("<del>−{}</del>", escape(word))),
        HeardWord::Extra(_) => None,
    }
}

fn heard(word: &HeardWord) -> Option<String> {
    match word {
        HeardWord::Right(word) => Some(escape(word)),
        HeardWord::Wrong { heard: word, .. } | HeardWord::Extra(word) => Some(format!("<ins>+{}</ins>", escape(word))),
        HeardWord::Missing(_) => None,
    }
}

fn player(wav: Option<&[u8]>) -> String {
    match wav {
        None => String::new(),
        Some(wav) if !wav.starts_with(b"RIFF") || wav.get(8..12) != Some(b"WAVE") => "no WAV".to_owned(),
        Some(wav) if wav.len() > MAX_WAV_BYTES => "too long for this page".to_owned(),
        Some(wav) => {
            format!("<audio controls preload=\"none\" src=\"data:audio/wav;base64,{}\"></audio>", STANDARD.encode(wav))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(num_bytes: usize) -> Vec<u8> {
        let mut wav = b"RIFF....WAVE".to_vec();
        wav.resize(num_bytes, 0);
        wav
    }

    fn utterance(wav: Option<Vec<u8>>) -> Utterance {
        let words = vec![
            HeardWord::Right("a".into()),
            HeardWord::Wrong { said: "b".into(), heard: "<x>".into() },
            HeardWord::Missing("c".into()),
            HeardWord::Extra("d".into()),
        ];
        Utterance { id: "<u>".into(), word_error_rate: 1.0, character_error_rate: 0.25, words, wav }
    }

    #[test]
    fn both_sides_are_shown_with_marks_and_escaped() {
        let html = utterance_table(&[utterance(None)]);
        assert!(html.contains("<p dir=\"auto\">a <del>−b</del> <del>−c</del></p>"), "{html}");
        assert!(html.contains("<p dir=\"auto\">a <ins>+&lt;x&gt;</ins> <ins>+d</ins></p>"), "{html}");
        assert!(html.contains("<td>&lt;u&gt;</td><td class=\"number\">100.0%</td><td class=\"number\">25.0%</td>"));
        assert!(!html.contains("<audio") && !html.contains("<th>sound"));
    }

    #[test]
    fn the_sound_is_in_the_page() {
        let html = utterance_table(&[utterance(Some(wav(14)))]);
        assert!(html.contains("src=\"data:audio/wav;base64,UklGRi4uLi5XQVZFAAA=\""), "{html}");
    }

    #[test]
    fn what_is_no_short_sound_stays_out() {
        let html = utterance_table(&[utterance(Some(b"<script>".to_vec())), utterance(Some(wav(MAX_WAV_BYTES + 1)))]);
        assert!(html.contains("<td>no WAV</td>") && html.contains("<td>too long for this page</td>"));
        assert!(html.len() < 10_000);
    }

    #[test]
    fn rows_and_words_are_bounded() {
        let long = Utterance { words: vec![HeardWord::Right("w".into()); 100_000], ..Utterance::default() };
        let html = utterance_table(&vec![long; 60]);
        assert_eq!(html.matches("<tr><td>").count(), MAX_ROWS);
        assert!(html.contains("w …</p>") && html.contains("50 of 60 utterances") && html.len() < 200_000);
    }

    #[test]
    fn rates_that_are_no_numbers_are_dashes() {
        assert_eq!((percent(f64::NAN), percent(0.123)), ("-".to_owned(), "12.3%".to_owned()));
    }
}
