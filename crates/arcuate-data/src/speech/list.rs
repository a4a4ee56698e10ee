//! Utterances in memory: one stretch of bytes for all of them, with what they share kept once.
//!
//! An utterance costs 16 bytes, its id unless that is the name of its file, its transcript, the name of its file without the folder,
//! and about ten bytes of numbers: some 100 to 200 bytes in all.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{SoundRef, SplitBy, Utterance};

const HAS_ID: u8 = 1;
const HAS_TRANSCRIPT: u8 = 2;
const HAS_SPEAKER: u8 = 4;
const HAS_LANGUAGE: u8 = 8;
const IS_STRETCH: u8 = 16;
const IS_MEMBER: u8 = 32;
const IS_ROW: u8 = 64;
const IS_TO_THE_END: u8 = 128;

/// Where a reader found the sound of an utterance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Sound<'a> {
    /// A file.
    File(Written<'a>),
    /// A stretch of a file; without seconds to its end.
    Stretch { file: Written<'a>, start_seconds: f64, is_to_the_end: bool },
    /// A member of a tar archive.
    Member { archive: &'a Path, name: &'a str, offset: u64, len: u64 },
    /// A value of a Parquet file.
    Row { path: &'a Path, row_group: u32, row: u32, column: &'a str },
}

/// The path of a sound file as a list has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Written<'a> {
    /// The folder to which it is relative.
    pub(super) base: &'a Path,
    /// What tells the files of this list from those of other lists of the source: the folder of the list, with `/` at its end.
    pub(super) prefix: &'a str,
    /// The path.
    pub(super) path: &'a str,
}

/// An utterance as a reader found it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found<'a> {
    /// Without one, the name of the file as the list has it, and the start of a stretch.
    pub(super) id: Option<&'a str>,
    pub(super) sound: Sound<'a>,
    /// Without, the sound says so itself.
    pub(super) seconds: Option<f64>,
    pub(super) transcript: Option<&'a str>,
    pub(super) speaker: Option<&'a str>,
    pub(super) language: Option<&'a str>,
    /// Line of the list; 0 where there is none.
    pub(super) line: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u64,
    seconds: f64,
}

/// All utterances of a source.
#[derive(Debug, Default)]
pub(super) struct List {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    shared: Vec<Box<str>>,
    /// Places in `shared`, while the list grows.
    places: HashMap<Box<str>, u64>,
    is_by_speaker: bool,
}

impl List {
    pub(super) fn new(split_by: SplitBy) -> Self {
        Self { is_by_speaker: split_by == SplitBy::Speaker, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn seconds(&self, index: usize) -> f64 {
        self.entries[index].seconds
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let shared: usize = self.shared.iter().map(|text| text.len() + size_of::<Box<str>>()).sum();
        self.bytes.capacity() + self.entries.capacity() * size_of::<Entry>() + shared
    }

    /// The place of a text that many utterances share.
    fn share(&mut self, text: &str) -> u64 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.shared.len() as u64;
        self.shared.push(text.into());
        self.places.insert(text.into(), place);
        place
    }

    /// Appends an utterance of the list file `file`; unknown seconds are NaN until they are set.
    pub(super) fn push(&mut self, found: &Found<'_>, file: &str) {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let sound = match found.sound {
            Sound::File(_) => 0,
            Sound::Stretch { is_to_the_end, .. } => IS_STRETCH | flag(is_to_the_end, IS_TO_THE_END),
            Sound::Member { .. } => IS_MEMBER,
            Sound::Row { .. } => IS_ROW,
        };
        let flags = flag(found.id.is_some(), HAS_ID)
            | flag(found.transcript.is_some(), HAS_TRANSCRIPT)
            | flag(found.speaker.is_some(), HAS_SPEAKER)
            | flag(found.language.is_some(), HAS_LANGUAGE)
            | sound;
        self.entries.push(Entry { start: self.bytes.len() as u64, seconds: found.seconds.unwrap_or(f64::NAN) });
        self.bytes.push(flags);
        let file = self.share(file);
        self.number(file);
        self.number(found.line);
        for text in [found.speaker, found.language].into_iter().flatten() {
            let place = self.share(text);
            self.number(place);
        }
        for text in [found.id, found.transcript].into_iter().flatten() {
            self.text(text);
        }
        match found.sound {
            Sound::File(file) => self.file(file),
            Sound::Stretch { file, start_seconds, .. } => {
                self.file(file);
                self.bytes.extend_from_slice(&start_seconds.to_le_bytes());
            }
            Sound::Member { archive, name, offset, len } => {
                let archive = self.share(&archive.to_string_lossy());
                self.number(archive);
                self.number(offset);
                self.number(len);
                self.text(name);
            }
            Sound::Row { path, row_group, row, column } => {
                let (path, column) = (self.share(&path.to_string_lossy()), self.share(column));
                for number in [path, u64::from(row_group), u64::from(row), column] {
                    self.number(number);
                }
            }
        }
    }

    fn file(&mut self, file: Written<'_>) {
        let at = file.path.rfind('/').map_or(0, |at| at + 1);
        for text in [&*file.base.to_string_lossy(), file.prefix, &file.path[..at]] {
            let place = self.share(text);
            self.number(place);
        }
        self.text(&file.path[at..]);
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// Seven bits a byte, the lowest first; the highest bit says that more follow.
    fn number(&mut self, mut number: u64) {
        while number >= 128 {
            self.bytes.push((number & 127) as u8 | 128);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    pub(super) fn set_seconds(&mut self, index: usize, seconds: f64) {
        self.entries[index].seconds = seconds;
    }

    /// Takes the last utterance away.
    pub(super) fn pop(&mut self) {
        if let Some(entry) = self.entries.pop() {
            self.bytes.truncate(entry.start as usize);
        }
    }

    /// Keeps the utterances for which `is_kept` says so.
    pub(super) fn retain(&mut self, is_kept: impl Fn(usize) -> bool) {
        let mut index = 0;
        self.entries.retain(|_| {
            index += 1;
            is_kept(index - 1)
        });
    }

    /// Gives back memory that only growing needs.
    pub(super) fn settle(&mut self) {
        self.places = HashMap::new();
        self.bytes.shrink_to_fit();
        self.entries.shrink_to_fit();
        self.shared.shrink_to_fit();
    }

    pub(super) fn get(&self, index: usize) -> Utterance {
        let entry = self.entries[index];
        let mut bytes = Bytes { list: self, rest: &self.bytes[entry.start as usize..] };
        let flags = bytes.byte();
        let has = |flag: u8| flags & flag != 0;
        let (file, line) = (bytes.shared(), bytes.number());
        let speaker = has(HAS_SPEAKER).then(|| bytes.shared().to_owned());
        let language = has(HAS_LANGUAGE).then(|| bytes.shared().to_owned());
        let id = has(HAS_ID).then(|| bytes.text().to_owned());
        let transcript = has(HAS_TRANSCRIPT).then(|| bytes.text().to_owned());
        // The name is the id where there is none; without a line the sound itself is the place.
        let (sound, name, shown, recording) = if has(IS_MEMBER) {
            let (archive, offset, len) = (bytes.shared(), bytes.number(), bytes.number());
            let name = bytes.text().to_owned();
            let shown = format!("{archive}:{name}");
            (SoundRef::Member { archive: PathBuf::from(archive), name: name.clone(), offset, len }, name, shown, None)
        } else if has(IS_ROW) {
            let path = bytes.shared();
            let (row_group, row) = (bytes.number() as u32, bytes.number() as u32);
            let column = bytes.shared().to_owned();
            let name = format!("{path}:{line}");
            (SoundRef::Row { path: PathBuf::from(path), row_group, row, column }, name.clone(), name, None)
        } else {
            let (base, prefix) = (Path::new(bytes.shared()), bytes.shared());
            let written = bytes.shared().to_owned() + bytes.text();
            let path = base.join(&written);
            let written = prefix.to_owned() + &written;
            let shown = path.display().to_string();
            let start_seconds = if has(IS_STRETCH) { bytes.float() } else { 0.0 };
            let seconds = (has(IS_STRETCH) && !has(IS_TO_THE_END)).then_some(entry.seconds);
            let name = if has(IS_STRETCH) { format!("{written}#{start_seconds}") } else { written.clone() };
            (SoundRef::File { path, start_seconds, seconds }, name, shown, Some(written))
        };
        let place = if line == 0 { shown } else { format!("{file}:{line}") };
        let id = id.unwrap_or(name);
        let recording = || recording.unwrap_or_else(|| id.clone());
        let group = speaker.clone().filter(|_| self.is_by_speaker).unwrap_or_else(recording);
        Utterance { id, place, sound, seconds: entry.seconds, transcript, speaker, language, group }
    }
}

/// Reads what [`List::push`] wrote.
struct Bytes<'a> {
    list: &'a List,
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn number(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte();
            number |= u64::from(byte & 127) << shift;
            if byte < 128 {
                break;
            }
        }
        number
    }

    fn float(&mut self) -> f64 {
        f64::from_le_bytes(self.take(8).try_into().expect("eight bytes were taken"))
    }

    fn text(&mut self) -> &'a str {
        let len = self.number() as usize;
        std::str::from_utf8(self.take(len)).expect("a text was written")
    }

    fn shared(&mut self) -> &'a str {
        &self.list.shared[self.number() as usize]
    }
}
