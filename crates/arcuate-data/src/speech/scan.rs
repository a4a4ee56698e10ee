//! The scan of a speech source: hears every utterance once, or some of them, before a run, and reports everything that is wrong with
//! the first places of each kind.
//!
//! Sound is decoded block by block, so that memory does not grow with the length of recordings.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;

use arcuate_ops::ctc::frames_needed;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::audio::{self, Samples};
use super::{Limits, SkippedItems, Utterance, Utterances};
use crate::error::{BadItem, BadReason, Error, Result};
use crate::progress::{Progress, Stage};
use crate::split::{first_bytes, id_hash};

/// Places listed for each kind of finding.
const MAX_PLACES: usize = 5;
/// Utterances that are heard between two reports of progress.
const BATCH: usize = 64;
/// The same for those of which only the list is looked at.
const UNHEARD_BATCH: usize = 4096;
/// Full scale, less what 16-bit samples and codecs lose of it.
const FULL_SCALE: f32 = 0.999;

/// Frames that the network makes of so many seconds.
pub type Frames<'a> = dyn Fn(f64) -> usize + Sync + 'a;

/// What is reported; the defaults suit read speech.
#[derive(Clone)]
pub struct SpeechScanOptions<'a> {
    /// What a sound may take at most.
    pub limits: Limits,
    /// Shorter utterances are reported.
    pub min_seconds: f64,
    /// Longer utterances are reported.
    pub max_seconds: f64,
    /// Utterances whose mean power is below this are reported as silent; decibels below full scale.
    pub min_dbfs: f64,
    /// Utterances with a larger share of samples at full scale are reported as clipped.
    pub max_clipped_share: f64,
    /// Transcripts with fewer characters a second are reported: text may be missing.
    pub min_characters_per_second: f64,
    /// Transcripts with more characters a second are reported: sound may be missing.
    pub max_characters_per_second: f64,
    /// Characters of transcripts that are not reported; all but control characters when absent.
    pub allowed_characters: Option<BTreeSet<char>>,
    /// Reports utterances with fewer frames than CTC needs for their transcript: one for each character, and one more between two
    /// that are equal.
    pub frames: Option<&'a Frames<'a>>,
    /// Utterances that are heard, chosen evenly; of the others only what their list says is looked at. All when absent.
    pub max_heard: Option<usize>,
    /// Whether transcripts are looked at.
    pub transcripts: bool,
}

impl fmt::Debug for SpeechScanOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpeechScanOptions").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Default for SpeechScanOptions<'_> {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            min_seconds: 0.1,
            max_seconds: 30.0,
            min_dbfs: -60.0,
            max_clipped_share: 0.001,
            min_characters_per_second: 2.0,
            max_characters_per_second: 35.0,
            allowed_characters: None,
            frames: None,
            max_heard: None,
            transcripts: true,
        }
    }
}

/// A kind of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeechFindingKind {
    /// Items that cannot be used.
    BadItem(BadReason),
    /// Nothing can be heard.
    Silent,
    /// Samples stand at full scale.
    Clipped,
    /// Shorter than the shortest that is wanted.
    TooShort,
    /// Longer than the longest that is wanted.
    TooLong,
    /// A transcript without a visible character.
    EmptyTranscript,
    /// Fewer frames than CTC needs for the transcript.
    TooShortForTranscript,
    /// Fewer characters a second than anybody speaks.
    FewCharacters,
    /// More characters a second than anybody speaks.
    ManyCharacters,
    /// Characters that are not allowed, or control characters.
    OddCharacters,
    /// The same samples as an earlier utterance.
    DuplicateSound,
}

impl fmt::Display for SpeechFindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadItem(reason) => return reason.fmt(f),
            Self::Silent => "silent",
            Self::Clipped => "clipped",
            Self::TooShort => "too short",
            Self::TooLong => "too long",
            Self::EmptyTranscript => "empty transcript",
            Self::TooShortForTranscript => "too short for the transcript",
            Self::FewCharacters => "few characters a second",
            Self::ManyCharacters => "many characters a second",
            Self::OddCharacters => "odd characters",
            Self::DuplicateSound => "duplicate sound",
        })
    }
}

/// Everything of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpeechFinding {
    /// What.
    pub kind: SpeechFindingKind,
    /// How many.
    pub count: u64,
    /// Where the first few are: `file:line`, or the sound itself where there is no list.
    pub places: Vec<String>,
    /// The first one as a sentence with its remedy.
    pub message: String,
}

/// A share of the utterances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// How many.
    pub utterances: u64,
    /// Their seconds together.
    pub seconds: f64,
}

impl Share {
    fn add(&mut self, seconds: f64) {
        self.utterances += 1;
        self.seconds += seconds;
    }
}

/// What a scan found.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SpeechScanReport {
    /// Utterances that can be decoded, with the seconds that were heard.
    pub usable: Share,
    /// Utterances that were heard and cannot be used.
    pub num_heard_bad: u64,
    /// Utterances that were not heard, with the seconds that their list says.
    pub unheard: Share,
    /// Usable and unheard ones with a transcript.
    pub transcribed: Share,
    /// Usable ones by language; those of unknown language under the empty name.
    pub by_language: BTreeMap<String, Share>,
    /// Usable ones by speaker; those of unknown speaker under the empty name.
    pub by_speaker: BTreeMap<String, Share>,
    /// Usable ones by sample rate of their files.
    pub by_sample_rate_hz: BTreeMap<u32, u64>,
    /// Usable ones by channels of their files.
    pub by_channels: BTreeMap<u16, u64>,
    /// Usable ones by codec of their files.
    pub by_codec: BTreeMap<String, u64>,
    /// How often each character occurs in the transcripts.
    pub characters: BTreeMap<char, u64>,
    /// Usable and unheard ones whose transcript an earlier one has too; no fault, but no new text either.
    pub duplicate_transcripts: u64,
    /// All findings by kind.
    pub findings: Vec<SpeechFinding>,
    /// Bad items: those that were skipped when the list was opened, and those that were heard to be bad.
    pub num_bad_items: u64,
}

/// What was heard of one utterance.
struct Heard {
    sample_rate_hz: u32,
    num_channels: u16,
    codec: String,
    seconds: f64,
    dbfs: f64,
    clipped_share: f64,
    hash: u64,
}

/// Hears all utterances, or as many as the options say. Errors in the data are findings, not errors; progress counts utterances.
///
/// # Errors
/// When the caller asks to stop.
pub fn scan(
    utterances: &Utterances,
    options: &SpeechScanOptions<'_>,
    progress: &Progress<'_>,
) -> Result<SpeechScanReport> {
    let all: Vec<u32> = (0..utterances.len() as u32).collect();
    scan_places(utterances, &all, utterances.skipped(), options, progress)
}

/// The same for some places of the list; `skipped` are bad items among the others.
pub(crate) fn scan_places(
    utterances: &Utterances,
    places: &[u32],
    skipped: &BTreeMap<BadReason, SkippedItems>,
    options: &SpeechScanOptions<'_>,
    progress: &Progress<'_>,
) -> Result<SpeechScanReport> {
    let mut scanner = Scanner::new(options);
    scanner.skipped(skipped);
    let len = places.len();
    let most = options.max_heard.unwrap_or(len).min(len);
    // Where the running share of the heard ones passes a whole number.
    let (heard, unheard): (Vec<usize>, Vec<usize>) = (0..len).partition(|at| (at * most) % len.max(1) < most);
    let mut done = 0;
    for batch in heard.chunks(BATCH) {
        let results: Vec<(Utterance, Result<Heard>)> = batch
            .par_iter()
            .map(|at| {
                let utterance = utterances.get(places[*at] as usize);
                let heard = hear(&utterance, &options.limits);
                (utterance, heard)
            })
            .collect();
        for (utterance, heard) in &results {
            scanner.utterance(utterance, heard.as_ref());
        }
        done += batch.len();
        progress.report(Stage::Scan, done as u64, len as u64)?;
    }
    for batch in unheard.chunks(UNHEARD_BATCH) {
        batch.iter().for_each(|at| scanner.unheard(&utterances.get(places[*at] as usize)));
        done += batch.len();
        progress.report(Stage::Scan, done as u64, len as u64)?;
    }
    Ok(scanner.finish())
}

fn hear(utterance: &Utterance, limits: &Limits) -> Result<Heard> {
    let samples = Samples::open(utterance, None, limits)?;
    let info = samples.stream.info().clone();
    let (mut num, mut num_clipped, mut power) = (0_u64, 0_u64, 0.0_f64);
    let mut hasher = blake3::Hasher::new();
    for block in samples {
        let block = block?;
        if let Some(sample) = block.iter().find(|sample| !sample.is_finite()) {
            let detail = format!("has a sample that is {sample}; write the file again from its source");
            let place = utterance.place.clone();
            return Err(Error::BadItem(BadItem { reason: BadReason::NotFinite, place, detail }));
        }
        num += block.len() as u64;
        num_clipped += block.iter().filter(|sample| sample.abs() >= FULL_SCALE).count() as u64;
        power += block.iter().map(|sample| f64::from(*sample).powi(2)).sum::<f64>();
        let rounded: Vec<u8> =
            block.iter().flat_map(|sample| ((sample * 32768.0).round() as i16).to_le_bytes()).collect();
        hasher.update(&rounded);
    }
    let seconds = num as f64 / f64::from(info.sample_rate_hz.max(1));
    audio::check_seconds(utterance, seconds)?;
    Ok(Heard {
        sample_rate_hz: info.sample_rate_hz,
        num_channels: info.num_channels,
        codec: info.codec,
        seconds,
        dbfs: 10.0 * (power / num.max(1) as f64).log10(),
        clipped_share: num_clipped as f64 / num.max(1) as f64,
        hash: first_bytes(&hasher.finalize()),
    })
}

struct Scanner<'a> {
    options: &'a SpeechScanOptions<'a>,
    report: SpeechScanReport,
    findings: BTreeMap<SpeechFindingKind, SpeechFinding>,
    /// The first place of each sound.
    sounds: HashMap<u64, String>,
    transcripts: HashSet<u64>,
}

impl<'a> Scanner<'a> {
    fn new(options: &'a SpeechScanOptions<'a>) -> Self {
        Self {
            options,
            report: SpeechScanReport::default(),
            findings: BTreeMap::new(),
            sounds: HashMap::new(),
            transcripts: HashSet::new(),
        }
    }

    /// Items that opening the list has counted.
    fn skipped(&mut self, by_reason: &BTreeMap<BadReason, SkippedItems>) {
        for (reason, skipped) in by_reason {
            let finding = SpeechFinding {
                kind: SpeechFindingKind::BadItem(*reason),
                count: skipped.count,
                places: skipped.first.iter().map(|item| item.place.clone()).collect(),
                message: skipped.first.first().map_or_else(String::new, sentence),
            };
            self.findings.insert(finding.kind, finding);
        }
    }

    fn utterance(&mut self, utterance: &Utterance, heard: std::result::Result<&Heard, &Error>) {
        match heard {
            Ok(heard) => self.heard(utterance, heard),
            Err(Error::BadItem(item)) => {
                self.report.num_heard_bad += 1;
                self.found(SpeechFindingKind::BadItem(item.reason), utterance, || sentence(item));
            }
            // An archive or table that vanished or was cut meanwhile.
            Err(error) => {
                self.report.num_heard_bad += 1;
                let kind = SpeechFindingKind::BadItem(BadReason::BrokenSound);
                self.found(kind, utterance, || error.to_string());
            }
        }
    }

    fn heard(&mut self, utterance: &Utterance, heard: &Heard) {
        let report = &mut self.report;
        report.usable.add(heard.seconds);
        report.by_language.entry(utterance.language.clone().unwrap_or_default()).or_default().add(heard.seconds);
        report.by_speaker.entry(utterance.speaker.clone().unwrap_or_default()).or_default().add(heard.seconds);
        *report.by_sample_rate_hz.entry(heard.sample_rate_hz).or_default() += 1;
        *report.by_channels.entry(heard.num_channels).or_default() += 1;
        *report.by_codec.entry(heard.codec.clone()).or_default() += 1;
        let (at, seconds, options) = (&utterance.place, heard.seconds, self.options);
        if heard.dbfs < options.min_dbfs {
            self.found(SpeechFindingKind::Silent, utterance, || {
                format!(
                    "`{at}` is silent ({:.0} dB, less than {:.0}); remove it, or record it again",
                    heard.dbfs, options.min_dbfs
                )
            });
        }
        if heard.clipped_share > options.max_clipped_share {
            self.found(SpeechFindingKind::Clipped, utterance, || {
                let percent = 100.0 * heard.clipped_share;
                format!("`{at}` is clipped: {percent:.2}% of its samples are at full scale; record it at a lower level")
            });
        }
        match self.sounds.get(&heard.hash) {
            Some(first) => {
                let first = first.clone();
                self.found(SpeechFindingKind::DuplicateSound, utterance, || {
                    format!("`{at}` sounds exactly like `{first}`; remove one of them")
                });
            }
            None => {
                self.sounds.insert(heard.hash, at.clone());
            }
        }
        self.listed(utterance, seconds);
    }

    /// An utterance of which only the list is known.
    fn unheard(&mut self, utterance: &Utterance) {
        self.report.unheard.add(utterance.seconds);
        self.listed(utterance, utterance.seconds);
    }

    /// What its length and its transcript say.
    fn listed(&mut self, utterance: &Utterance, seconds: f64) {
        let (at, options) = (&utterance.place, self.options);
        if seconds < options.min_seconds {
            self.found(SpeechFindingKind::TooShort, utterance, || {
                format!("`{at}` is {seconds:.2} seconds long, less than {}; remove it", options.min_seconds)
            });
        }
        if seconds > options.max_seconds {
            self.found(SpeechFindingKind::TooLong, utterance, || {
                format!("`{at}` is {seconds:.1} seconds long, more than {}; cut it into sentences", options.max_seconds)
            });
        }
        if let Some(transcript) = utterance.transcript.as_ref().filter(|_| options.transcripts) {
            self.transcript(utterance, transcript.trim(), seconds);
        }
    }

    fn transcript(&mut self, utterance: &Utterance, transcript: &str, seconds: f64) {
        let (at, options) = (&utterance.place, self.options);
        let num = transcript.chars().count();
        if num == 0 {
            return self.found(SpeechFindingKind::EmptyTranscript, utterance, || {
                format!("`{at}` has an empty transcript; write down what is said, or leave the transcript out")
            });
        }
        self.report.transcribed.add(seconds);
        if !self.transcripts.insert(id_hash(transcript)) {
            self.report.duplicate_transcripts += 1;
        }
        for character in transcript.chars() {
            *self.report.characters.entry(character).or_default() += 1;
        }
        if let Some(frames) = options.frames {
            let characters: Vec<char> = transcript.chars().collect();
            let (has, needs) = (frames(seconds), frames_needed(&characters));
            if has < needs {
                self.found(SpeechFindingKind::TooShortForTranscript, utterance, || {
                    format!(
                        "`{at}` has {has} frames, but CTC needs {needs} for its transcript; correct the transcript or remove it"
                    )
                });
            }
        }
        let rate = num as f64 / seconds.max(1e-9);
        let check = "is the transcript of this sound?";
        if rate < options.min_characters_per_second {
            self.found(SpeechFindingKind::FewCharacters, utterance, || {
                format!("`{at}` has only {rate:.1} characters a second; {check}")
            });
        }
        if rate > options.max_characters_per_second {
            self.found(SpeechFindingKind::ManyCharacters, utterance, || {
                format!("`{at}` has {rate:.1} characters a second; {check}")
            });
        }
        let is_odd = |character: &char| match &options.allowed_characters {
            Some(allowed) => !allowed.contains(character),
            None => character.is_control() || *character == char::REPLACEMENT_CHARACTER,
        };
        if let Some(odd) = transcript.chars().find(is_odd) {
            self.found(SpeechFindingKind::OddCharacters, utterance, || {
                format!(
                    "`{at}` has the character `{}` in its transcript; correct the transcript, or normalise such characters away",
                    odd.escape_default()
                )
            });
        }
    }

    fn found(&mut self, kind: SpeechFindingKind, utterance: &Utterance, message: impl FnOnce() -> String) {
        let finding = self.findings.entry(kind).or_insert_with(|| SpeechFinding {
            kind,
            count: 0,
            places: Vec::new(),
            message: message(),
        });
        finding.count += 1;
        if finding.places.len() < MAX_PLACES {
            finding.places.push(utterance.place.clone());
        }
    }

    fn finish(mut self) -> SpeechScanReport {
        self.report.findings = self.findings.into_values().collect();
        let is_bad = |finding: &&SpeechFinding| matches!(finding.kind, SpeechFindingKind::BadItem(_));
        self.report.num_bad_items = self.report.findings.iter().filter(is_bad).map(|finding| finding.count).sum();
        self.report
    }
}

/// A bad item as the error that it would be.
fn sentence(item: &BadItem) -> String {
    Error::BadItem(item.clone()).to_string()
}
