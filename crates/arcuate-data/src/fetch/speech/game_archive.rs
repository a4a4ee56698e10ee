//! The archive of Flight of the Amazon Queen, an adventure game of 1995 with recorded dialogues.
//!
//! # Reference
//! The layout is that which the engine of ScummVM reads: a table of names and places, then files. Texts are in dialogue files
//! (`.DOG`), cut scenes (`.CUT`) and a list of lines; the clip of a text is named after its place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{Manifest, Spoken, seconds};
use crate::fetch::convert::damaged;
use crate::{Error, Result};

const FILE: &str = "usr/share/scummvm/flight-of-the-amazon-queen/queen.1c";
/// Characters a second of speech: where a pair has fewer or more, its clip says something else.
const CHARACTERS_PER_SECOND: std::ops::RangeInclusive<f64> = 4.0..=22.0;
/// The hero's remarks begin at this line of the list.
const FIRST_REMARK: usize = 41;
/// Characters 128 to 255 of code page 437.
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// Writes the clips whose text is known.
pub(in crate::fetch) fn amazon_queen(package: &Path, data: &Path) -> Result<()> {
    let path = package.join(FILE);
    let bytes = fs::read(&path).map_err(|e| Error::read(&path, e))?;
    let archive = Archive::read(&bytes).ok_or_else(|| damaged(&path, 0, "its table of files makes no sense"))?;
    let mut manifest = Manifest::create(data, "en.jsonl")?;
    let mut seen = BTreeSet::new();
    for pair in archive.pairs() {
        let Some(clip) = archive.file(&pair.clip) else { continue };
        let Some(seconds) = seconds::of(clip) else { continue };
        let rate = pair.text.chars().count() as f64 / seconds;
        if !CHARACTERS_PER_SECOND.contains(&rate) || !seen.insert(pair.clip.clone()) {
            continue;
        }
        let stem = pair.clip.strip_suffix(".SB").unwrap_or(&pair.clip);
        let file = format!("mp3/{stem}.mp3");
        let spoken = Spoken { file: &file, text: &pair.text, speaker: pair.speaker.as_deref(), language: "en" };
        manifest.written(clip, seconds, &spoken)?;
    }
    manifest.finish()
}

/// A clip and what it says.
struct Pair {
    clip: String,
    text: String,
    speaker: Option<String>,
}

struct Archive<'a> {
    bytes: &'a [u8],
    files: BTreeMap<String, (usize, usize)>,
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn signed(bytes: &[u8], at: usize) -> Option<i16> {
    Some(be16(bytes, at)? as i16)
}

fn decoded(bytes: &[u8]) -> String {
    let high: Vec<char> = CP437.chars().collect();
    let character = |byte: &u8| match byte.checked_sub(128) {
        None => char::from(*byte),
        Some(at) => high.get(usize::from(at)).copied().unwrap_or(char::REPLACEMENT_CHARACTER),
    };
    bytes.iter().map(character).collect()
}

/// A text behind its length, and where what follows it begins.
fn text(bytes: &[u8], at: usize, align: usize) -> Option<(String, usize)> {
    let len = usize::from(*bytes.get(at)?);
    let end = at + 1 + len;
    let text = decoded(bytes.get(at + 1..end)?);
    let is_padded = len > 0 || align == 4;
    Some((text, if is_padded { end.next_multiple_of(align) } else { end }))
}

/// The stretches of a text that are said: it is cut at stage codes, which are a star with two digits, or with two capital letters
/// and numbers.
fn parts(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let code = rest.strip_prefix('*').and_then(|code| {
            let bytes = code.as_bytes();
            let head = bytes.get(..2)?;
            if head.iter().all(u8::is_ascii_digit) {
                return Some(2);
            }
            let is_tail = |byte: &&u8| byte.is_ascii_digit() || **byte == b',';
            head.iter().all(u8::is_ascii_uppercase).then(|| 2 + bytes[2..].iter().take_while(is_tail).count())
        });
        match code {
            Some(len) => {
                found.push(String::new());
                rest = &rest[1 + len..];
            }
            None => {
                if let Some(part) = found.last_mut() {
                    part.push(character);
                }
                rest = &rest[character.len_utf8()..];
            }
        }
    }
    if found.last().is_some_and(|last| last.trim().is_empty()) {
        found.pop();
    }
    found.into_iter().map(|part| part.trim().to_owned()).collect()
}

impl<'a> Archive<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        if bytes.get(..4)? != b"QTBL" {
            return None;
        }
        let mut files = BTreeMap::new();
        let num = be16(bytes, 13)?;
        for at in (15..).step_by(21).take(usize::from(num)) {
            let entry = bytes.get(at..at + 21)?;
            let name = entry[..12].split(|byte| *byte == 0).next().unwrap_or_default();
            let number = |at: usize| Some(u32::from_be_bytes(entry.get(at..at + 4)?.try_into().ok()?) as usize);
            let name: String = name.iter().map(|byte| char::from(*byte)).collect();
            // Names become names of files.
            if name.contains(['/', '\\']) {
                return None;
            }
            files.insert(name, (number(13)?, number(17)?));
        }
        Some(Self { bytes, files })
    }

    fn file(&self, name: &str) -> Option<&'a [u8]> {
        let (start, len) = self.files.get(name)?;
        self.bytes.get(*start..start.checked_add(*len)?)
    }

    /// All clips with their texts; a damaged file gives those before the damage.
    fn pairs(&self) -> Vec<Pair> {
        let mut found = Vec::new();
        for name in self.files.keys() {
            let Some(content) = self.file(name).and_then(|file| file.get(20..)) else { continue };
            if let Some(person) = name.strip_suffix(".DOG") {
                self.dialogue(person, content, &mut found);
            } else if let Some(scene) = name.strip_suffix(".CUT") {
                self.cut_scene(scene, content, &mut found);
            }
        }
        self.remarks(&mut found);
        found
    }

    fn add(&self, clip: String, text: String, speaker: Option<&str>, found: &mut Vec<Pair>) {
        if !text.is_empty() && self.files.contains_key(&clip) {
            found.push(Pair { clip, text, speaker: speaker.map(str::to_owned) });
        }
    }

    /// What the hero (`J`) and a person (`P`) say to each other.
    fn dialogue(&self, person: &str, content: &[u8], found: &mut Vec<Pair>) -> Option<()> {
        let key = signed(content, 4)?;
        let hero_at = 32 + usize::from(signed(content, 0)?.unsigned_abs()) * 96;
        let sides = [
            ('J', "JOE", hero_at, signed(content, 6)?),
            ('P', person, usize::from(be16(content, 22)?), signed(content, 8)?),
        ];
        for (side, speaker, mut at, num) in sides {
            for _ in 0..num.max(0) {
                if at + 5 > content.len() {
                    break;
                }
                let line = signed(content, at + 2)?;
                let (said, after) = text(content, at + 4, 4)?;
                at = after;
                for (number, part) in (1..).zip(parts(&said)) {
                    let clip = format!("{key:>2}{:>4X}{side}{number:X}.SB", line as u16).replace(' ', "0");
                    if line > 0 {
                        self.add(clip, part, Some(speaker), found);
                    }
                }
            }
        }
        Some(())
    }

    fn cut_scene(&self, scene: &str, content: &[u8], found: &mut Vec<Pair>) -> Option<()> {
        let mut at = usize::from(be16(content, 8)?);
        for place in 0..signed(content, 2)?.unsigned_abs() {
            if at >= content.len() {
                break;
            }
            let (said, after) = text(content, at, 2)?;
            at = after;
            for (number, part) in (1..).zip(parts(&said)) {
                for joint in ["", "_"] {
                    self.add(format!("{scene}{joint}{place:02}{number:X}.SB"), part.clone(), None, found);
                }
            }
        }
        Some(())
    }

    /// What the hero says of the things that he looks at: `JOE` with a line of four digits and a part.
    fn remarks(&self, found: &mut Vec<Pair>) -> Option<()> {
        let list = decoded(self.file("QUEEN2.JAS")?);
        let lines: Vec<&str> = list.split("\r\n").collect();
        for clip in self.files.keys() {
            let Some(place) = clip.strip_prefix("JOE").and_then(|rest| rest.strip_suffix(".SB")) else { continue };
            let Some((line, part)) = place.split_at_checked(4).filter(|(_, part)| part.len() == 1) else { continue };
            let (Ok(line), Ok(part)) = (line.parse::<usize>(), usize::from_str_radix(part, 16)) else { continue };
            let Some(line) = line.checked_sub(FIRST_REMARK).and_then(|line| lines.get(line)) else { continue };
            let said: Vec<String> = parts(line).into_iter().filter(|part| !part.is_empty()).collect();
            if let Some(part) = part.checked_sub(1).and_then(|part| said.get(part)) {
                self.add(clip.clone(), part.clone(), Some("JOE"), found);
            }
        }
        Some(())
    }
}
