//! Speech as a corpus: utterances of all sources, split and in the order of a run; their sound is decoded when a row is drawn.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use arcuate_audio::augment::speed_len;
use arcuate_ops::ctc::frames_needed;
use arcuate_ops::rng::Stream;
use arcuate_text::SpecialToken;
use rayon::prelude::*;

use crate::config::DataConfig;
use crate::encoder::Encoder;
use crate::error::{BadItem, BadItems, BadReason, EncodeError, Error, Result};
use crate::hearing::Hearing;
use crate::held_out::HeldOut;
use crate::mixture::{LedgerEntry, expected};
use crate::progress::{Progress, Stage};
use crate::row::Row;
use crate::rows::{Draw, Rows, SourceRows};
use crate::sampler::MicrobatchLimits;
use crate::sound::{Downsampling, RowSound};
use crate::speech::augment::{self, Augmenter};
use crate::speech::scan::{self, SpeechScanOptions, SpeechScanReport};
use crate::speech::{
    Limits, SkippedItems, SpeechConfig, SpeechSourceConfig, Utterance, Utterances, counts, to_16_bits, tolerance,
};
use crate::split::{Split, id_hash};
use crate::summary::SourceSummary;
use crate::units::Units;

const SOURCE_SHIFT: u32 = 44;

/// What the rest of a recipe asks of speech.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpeechOptions {
    /// Most frames in a row.
    pub max_frames: usize,
    /// How many frames the network makes of samples.
    pub downsampling: Downsampling,
    /// True when every row needs its transcript; otherwise what is too long is cut.
    pub transcripts: bool,
    /// True where padding changes what the network hears: training rows that are heard together are cut to the shortest of them.
    pub equal_lengths: bool,
    /// True when every frame needs its unit.
    pub units: bool,
}

impl SpeechOptions {
    /// From one frame of the network to the next.
    fn hop_seconds(&self, sample_rate_hz: u32) -> f64 {
        self.downsampling.hop() as f64 / f64::from(sample_rate_hz)
    }
}

/// The utterances of all sources as rows. Cheap to clone.
#[derive(Clone)]
pub(crate) struct SpeechCorpus {
    inner: Arc<Inner>,
}

/// Utterances of one side of the split: places in the list of the source.
#[derive(Default)]
struct Side {
    utterances: Vec<u32>,
    seconds: f64,
    frames: u64,
    bytes: u64,
}

struct Source {
    config: SpeechSourceConfig,
    list: Utterances,
    train: Side,
    held_out: Side,
    /// Frames of each utterance of the list.
    frames: Vec<u32>,
    /// The same at the lowest speed.
    most_frames: Vec<u32>,
    /// Utterances that the recipe leaves out, by `min_seconds` and `max_seconds`.
    num_left_out: u64,
    /// Items that opening refused.
    bad_items: BTreeMap<BadReason, SkippedItems>,
}

struct Inner {
    sources: Vec<Source>,
    rows: Vec<SourceRows>,
    config: SpeechConfig,
    hearing: Hearing,
    augmenter: Option<Augmenter>,
    options: SpeechOptions,
    encoder: Box<dyn Encoder + Send>,
    fingerprint: String,
    limits: Limits,
    units: Option<Units>,
    decoded: Mutex<Decoded>,
    bad: Mutex<Skipped>,
}

/// Samples that were decoded before, as long as they have room.
#[derive(Default)]
struct Decoded {
    samples: HashMap<(usize, u32), Arc<[f32]>>,
    bytes: u64,
}

/// Items that could not be used, each counted once.
struct Skipped {
    items: BadItems,
    seen: std::collections::HashSet<(usize, u32)>,
    /// Training utterances of each source that are not among them.
    num_train_left: Vec<usize>,
}

/// What opening found out about one utterance.
struct Looked {
    frames: u32,
    most_frames: u32,
    bytes: u64,
    is_left_out: bool,
    bad: Option<BadItem>,
    side: Split,
}

/// What a source counts in the mixture by how long it is: n^exponent, as XLSR draws its languages (Conneau et al. 2020).
fn by_hours(seconds: f64, exponent: f64) -> f64 {
    (seconds / 3600.0).powf(exponent)
}

impl SpeechCorpus {
    pub(crate) fn open(
        config: &DataConfig,
        encoder: Box<dyn Encoder + Send>,
        options: &SpeechOptions,
        progress: &Progress<'_>,
    ) -> Result<Self> {
        config.refuse_impossible()?;
        let speech = config.recordings()?;
        let units = if options.units { Some(open_units(speech, options, progress)?) } else { None };
        let limits = Limits::default();
        let augmenter = &speech.augment;
        let augmenter =
            augmenter.as_ref().map(|own| Augmenter::open(own, speech.sample_rate_hz, progress)).transpose()?;
        let mut items = BadItems::new(config.max_bad_items);
        let mut sources = Vec::new();
        let mut hasher = blake3::Hasher::new();
        for (name, source) in &speech.source {
            let list = Utterances::open(name, source, config.max_bad_items, progress)?;
            hasher.update(format!("{name:?} {}\n", list.content_hash()).as_bytes());
            let looked: Vec<Looked> = {
                let num = list.len();
                let units = units.as_ref().map(|units| (units, name.as_str()));
                let look = |index: usize| look(&list.get(index), config, options, encoder.as_ref(), units);
                let chunk = |start: usize| -> Result<Vec<Looked>> {
                    progress.report(Stage::Scan, start as u64, num as u64)?;
                    (start..num.min(start + CHUNK)).into_par_iter().map(look).collect()
                };
                let chunks: Vec<Vec<Looked>> = (0..num).step_by(CHUNK).map(chunk).collect::<Result<_>>()?;
                chunks.into_iter().flatten().collect()
            };
            let mut bad_items = list.skipped().clone();
            items.merge(&list.num_skipped(), list.first_skipped())?;
            let (mut train, mut held_out) = (Side::default(), Side::default());
            let mut num_left_out = 0;
            for (index, looked) in looked.iter().enumerate() {
                if let Some(bad) = &looked.bad {
                    bad_items.entry(bad.reason).or_default().add(bad);
                    items.add(bad.clone())?;
                } else if looked.is_left_out {
                    num_left_out += 1;
                } else {
                    let side = if looked.side == Split::HeldOut { &mut held_out } else { &mut train };
                    side.utterances.push(index as u32);
                    side.seconds += list.seconds(index);
                    side.frames += u64::from(looked.frames);
                    side.bytes += looked.bytes;
                }
            }
            if train.utterances.is_empty() {
                return Err(Error::NothingToTrainOn { name: name.clone(), documents: list.len() as u64 });
            }
            let frames = looked.iter().map(|looked| looked.frames).collect();
            let most_frames = looked.iter().map(|looked| looked.most_frames).collect();
            let config = source.clone();
            sources.push(Source { config, list, train, held_out, frames, most_frames, num_left_out, bad_items });
        }
        let rest = format!(
            "{:x} {:?} {} {} {}",
            config.held_out_fraction.to_bits(),
            options,
            if options.transcripts { encoder.hash() } else { String::new() },
            speech.key(),
            units.as_ref().map_or("", Units::content_hash)
        );
        hasher.update(rest.as_bytes());
        hasher.update(augmenter.as_ref().map_or("", |own| own.hash.as_str()).as_bytes());
        let by_hours = |source: &Source| speech.hours_exponent.map_or(1.0, |e| by_hours(source.train.seconds, e));
        let rows = speech
            .source
            .iter()
            .zip(&sources)
            .map(|((name, config), source)| {
                let num_rows = source.train.utterances.len() as u64;
                let max_rows = SourceRows::limit(config.max_repeats, num_rows);
                SourceRows { name: name.clone(), weight: config.weight * by_hours(source), num_rows, max_rows }
            })
            .collect();
        let num_train_left = sources.iter().map(|source| source.train.utterances.len()).collect();
        let inner = Inner {
            sources,
            rows,
            config: speech.clone(),
            hearing: speech.hearing(),
            augmenter,
            options: options.clone(),
            encoder,
            fingerprint: hasher.finalize().to_hex()[..32].to_owned(),
            limits,
            units,
            decoded: Mutex::default(),
            bad: Mutex::new(Skipped { items, seen: Default::default(), num_train_left }),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn rows(&self) -> Arc<dyn Rows> {
        Arc::clone(&self.inner) as Arc<dyn Rows>
    }

    pub(crate) fn summary(&self) -> Vec<SourceSummary> {
        let weight: f64 = self.inner.rows.iter().map(|source| source.weight).sum();
        self.inner.sources.iter().zip(&self.inner.rows).map(|(source, rows)| source.summary(rows, weight)).collect()
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.inner.fingerprint
    }

    pub(crate) fn source_fingerprints(&self) -> BTreeMap<String, String> {
        let sources = self.inner.rows.iter().zip(&self.inner.sources);
        sources.map(|(rows, source)| (rows.name.clone(), source.list.content_hash().to_owned())).collect()
    }

    pub(crate) fn label_names(&self) -> &[String] {
        &[]
    }

    pub(crate) fn train_tokens(&self, source: usize) -> u64 {
        self.inner.sources.get(source).map_or(0, |source| source.train.frames)
    }

    pub(crate) fn max_row_tokens(&self) -> usize {
        self.inner.sources.iter().map(Source::max_row_frames).max().unwrap_or(0) as usize
    }

    pub(crate) fn num_bad_items(&self) -> u64 {
        self.inner.bad.lock().unwrap_or_else(PoisonError::into_inner).items.total()
    }

    pub(crate) fn held_out(&self, stride: Option<usize>) -> Result<HeldOut> {
        if let Some(stride) = stride {
            let detail = "only texts can be evaluated with one; leave it out".to_owned();
            return Err(Error::BadStride { stride, detail });
        }
        let sources = self.inner.rows.iter().zip(&self.inner.sources);
        let counts = sources.map(|(rows, source)| (rows.name.as_str(), source.held_out.utterances.len() as u64));
        Ok(HeldOut::of_rows(self.rows(), counts))
    }

    pub(crate) fn expected_ledger(&self, frames: u64) -> Vec<LedgerEntry> {
        let (rows, sources) = (&self.inner.rows, &self.inner.sources);
        let weight: f64 = rows.iter().map(|source| source.weight).sum();
        let members: Vec<(f64, Option<u64>)> = rows
            .iter()
            .zip(sources)
            .map(|(rows, source)| {
                let row_frames = source.train.frames as f64 / rows.num_rows as f64;
                (rows.weight, rows.max_rows.map(|most| (most as f64 * row_frames) as u64))
            })
            .collect();
        let given = expected(&members, frames);
        let total: f64 = given.iter().sum();
        rows.iter()
            .zip(sources)
            .zip(given)
            .map(|((rows, source), given)| {
                let repeats = given / source.train.frames.max(1) as f64;
                LedgerEntry {
                    source: rows.name.clone(),
                    rows: (repeats * rows.num_rows as f64).round() as u64,
                    tokens: given.round() as u64,
                    bytes: (repeats * source.train.bytes as f64).round() as u64,
                    repeats,
                    target_share: rows.weight / weight,
                    share: if total > 0.0 { given / total } else { 0.0 },
                }
            })
            .collect()
    }

    pub(crate) fn document_id(&self, source: u32, document: u32) -> Option<String> {
        let list = &self.inner.sources.get(source as usize)?.list;
        ((document as usize) < list.len()).then(|| list.get(document as usize).id)
    }

    pub(crate) fn describe_row(&self, key: u64) -> Option<(String, Vec<String>)> {
        let source = key >> SOURCE_SHIFT;
        let id = self.document_id(u32::try_from(source).ok()?, u32::try_from(key & ((1 << SOURCE_SHIFT) - 1)).ok()?)?;
        Some((self.inner.rows.get(source as usize)?.name.clone(), vec![id]))
    }

    /// The utterance of a row, by its key.
    pub(crate) fn utterance(&self, key: u64) -> Option<Utterance> {
        let list = &self.inner.sources.get((key >> SOURCE_SHIFT) as usize)?.list;
        let index = (key & ((1 << SOURCE_SHIFT) - 1)) as usize;
        (index < list.len()).then(|| list.get(index))
    }

    /// The samples of a row by its key, as they were recorded.
    pub(crate) fn samples(&self, key: u64) -> Result<Option<Arc<[f32]>>> {
        if self.utterance(key).is_none() {
            return Ok(None);
        }
        self.inner.samples((key >> SOURCE_SHIFT) as usize, (key & ((1 << SOURCE_SHIFT) - 1)) as u32).map(Some)
    }

    /// Hears up to `max_heard` of the used utterances of each source and looks at what the lists say of all.
    pub(crate) fn scan(
        &self,
        max_heard: Option<usize>,
        progress: &Progress<'_>,
    ) -> Result<BTreeMap<String, SpeechScanReport>> {
        let inner = &self.inner;
        let options = SpeechScanOptions {
            limits: inner.limits.clone(),
            // Of other lengths the recipe takes care.
            min_seconds: inner.config.min_seconds,
            max_seconds: inner.config.max_seconds.unwrap_or(f64::INFINITY),
            max_heard,
            transcripts: inner.options.transcripts,
            ..SpeechScanOptions::default()
        };
        let one = |(rows, source): (&SourceRows, &Source)| {
            let mut used = [&source.train.utterances[..], &source.held_out.utterances[..]].concat();
            used.sort_unstable();
            let report = scan::scan_places(&source.list, &used, &source.bad_items, &options, progress)?;
            Ok((rows.name.clone(), report))
        };
        inner.rows.iter().zip(&inner.sources).map(one).collect()
    }

    /// The longest training rows of a microbatch, for a rehearsal.
    pub(crate) fn largest_rows(&self, limits: MicrobatchLimits) -> Result<Vec<Row>> {
        let mut all: Vec<(u64, usize, u64)> = Vec::new();
        for (source, rows) in self.inner.rows.iter().enumerate() {
            let frames = |index: u64| self.inner.positions(source, index).unwrap_or(0);
            all.extend((0..rows.num_rows).map(|index| (frames(index), source, index)));
        }
        all.sort_unstable_by(|a, b| b.cmp(a));
        let longest = all.first().map_or(1, |(frames, ..)| (*frames).max(1));
        let num = limits.tokens.map_or(limits.rows, |most| limits.rows.min((most / longest).max(1) as usize));
        all.truncate(num);
        let row = |(_, source, index)| {
            let draw = Draw { source, split: Split::Train, index, seed: 0, k: 0, is_varied: true };
            self.inner.row_of(draw, Speed::Lowest)
        };
        let rows = all.into_iter().filter_map(|at| row(at).transpose()).collect::<Result<_>>()?;
        Ok(self.inner.together(rows, 0, 0))
    }
}

/// How fast a row is heard.
#[derive(Clone, Copy)]
enum Speed {
    /// As it is drawn.
    Drawn,
    /// As slowly as ever.
    Lowest,
}

/// Utterances that are looked at together when a source is opened.
const CHUNK: usize = 4096;

/// The units of a recipe, which must come often enough for the network.
fn open_units(speech: &SpeechConfig, options: &SpeechOptions, progress: &Progress<'_>) -> Result<Units> {
    let Some(dir) = &speech.units else {
        let (key, message) = ("data.speech.units".to_owned(), "is missing".to_owned());
        return Err(Error::Config { key, message, help: "name the folder that `arcuate data units` made".to_owned() });
    };
    let units = Units::open(dir, progress)?;
    match units.about().misfit(options.hop_seconds(speech.sample_rate_hz)) {
        None => Ok(units),
        Some(detail) => {
            let place = dir.display().to_string();
            Err(Error::UnitsFile { place, detail: format!("does not fit the network: {detail}") })
        }
    }
}

/// What is wrong with the units of an utterance of this length, which may be off by `tolerance`.
fn units_problem(
    utterance: &Utterance,
    (units, source): (&Units, &str),
    seconds: f64,
    tolerance: f64,
) -> Option<BadItem> {
    let item = |reason, detail| Some(BadItem { reason, place: utterance.place.clone(), detail });
    let file = units.path().display();
    let Some((num_units, line)) = units.find(source, &utterance.id) else {
        let id = &utterance.id;
        let detail = format!(
            "has no units: `{file}` has no line of the source `{source}` with the id `{id}`; make the units again"
        );
        return item(BadReason::MissingUnits, detail);
    };
    if units.about().fits(num_units, seconds, tolerance) {
        return None;
    }
    let expected = units.about().num_frames(seconds);
    let detail = format!(
        "is {seconds:.2} seconds long, which is about {expected} units, but `{file}:{line}` has {num_units}; make the units \
         again from these recordings"
    );
    item(BadReason::WrongUnits, detail)
}

/// Whether an utterance can be used, and what it takes. With units comes the name of the source.
fn look(
    utterance: &Utterance,
    config: &DataConfig,
    options: &SpeechOptions,
    encoder: &dyn Encoder,
    units: Option<(&Units, &str)>,
) -> Result<Looked> {
    let speech = config.recordings()?;
    let num_samples = (utterance.seconds * f64::from(speech.sample_rate_hz)).round() as usize;
    let hearing = speech.hearing();
    let frames_of = |num_samples| options.downsampling.num_frames(hearing.num_steps(num_samples));
    let mut frames = frames_of(num_samples);
    let at_speed = |speed| frames_of(speed_len(num_samples, speed));
    // A speed at which it does not fit is not taken, and without transcripts it is cut.
    let at_speeds = speech.augment.iter().flat_map(augment::Config::speeds).map(at_speed);
    let fitting = at_speeds.filter(|frames| !options.transcripts || *frames <= options.max_frames);
    let most_frames = fitting.max().unwrap_or(frames).min(options.max_frames);
    let side = Split::of_hash(id_hash(&utterance.group), config.held_out_fraction);
    let is_left_out = speech.leaves_out(utterance.seconds);
    let bytes = utterance.transcript.as_ref().map_or(0, String::len) as u64;
    let mut bad = None;
    if !is_left_out {
        let item = |reason, detail: String| Some(BadItem { reason, place: utterance.place.clone(), detail });
        if frames == 0 {
            let detail =
                format!("is {:.3} seconds long, too short for one frame; set `min_seconds`", utterance.seconds);
            bad = item(BadReason::TooShort, detail);
        } else if options.transcripts {
            bad = match labels(utterance, encoder)? {
                Err(bad) => Some(bad),
                Ok(labels) if frames_needed(&labels) > frames => {
                    let needed = frames_needed(&labels);
                    let detail = format!(
                        "has {frames} frames for a transcript that needs {needed}; correct its times or its text"
                    );
                    item(BadReason::TooShort, detail)
                }
                Ok(_) if frames > options.max_frames => {
                    let detail = format!(
                        "has {frames} frames, more than `batch.max_seq_len`, {}; raise it, or set `max_seconds`",
                        options.max_frames
                    );
                    item(BadReason::TooLong, detail)
                }
                Ok(_) => None,
            };
        } else {
            frames = frames.min(options.max_frames);
        }
        if bad.is_none()
            && let Some(units) = units
        {
            let room = tolerance(utterance.seconds) + 2.0 * options.hop_seconds(speech.sample_rate_hz);
            bad = units_problem(utterance, units, utterance.seconds, room);
        }
    }
    Ok(Looked { frames: frames as u32, most_frames: most_frames as u32, bytes, is_left_out, bad, side })
}

/// The labels of a transcript.
fn labels(utterance: &Utterance, encoder: &dyn Encoder) -> Result<std::result::Result<Vec<u32>, BadItem>> {
    let item =
        |reason, detail: &str| Ok(Err(BadItem { reason, place: utterance.place.clone(), detail: detail.to_owned() }));
    let Some(transcript) = &utterance.transcript else {
        return item(BadReason::MissingField, "has no transcript; add it, or leave the utterance out");
    };
    let cannot = |source: EncodeError| Error::Encode { place: utterance.place.clone(), source };
    let labels = encoder.encode(transcript).map_err(cannot)?;
    if labels.is_empty() {
        return item(BadReason::EmptyText, "has an empty transcript; correct it, or leave the utterance out");
    }
    if encoder.special(SpecialToken::Unk).is_some_and(|unknown| labels.contains(&unknown)) {
        let detail = format!("has characters outside of the vocabulary in its transcript {transcript:?}");
        return item(BadReason::UnknownCharacters, &detail);
    }
    Ok(Ok(labels))
}

impl Source {
    fn side(&self, split: Split) -> &Side {
        if split == Split::HeldOut { &self.held_out } else { &self.train }
    }

    fn max_row_frames(&self) -> u64 {
        let train = self.train.utterances.iter().map(|index| self.most_frames[*index as usize]);
        let held_out = self.held_out.utterances.iter().map(|index| self.frames[*index as usize]);
        train.chain(held_out).max().map_or(0, u64::from)
    }

    fn summary(&self, rows: &SourceRows, weight: f64) -> SourceSummary {
        let (train, held_out) = (&self.train, &self.held_out);
        let num = |side: &Side| side.utterances.len() as u64;
        SourceSummary {
            name: rows.name.clone(),
            files: 1,
            documents: num(train) + num(held_out),
            tokens: train.frames + held_out.frames,
            bytes: train.bytes + held_out.bytes,
            train_documents: num(train),
            train_tokens: train.frames,
            train_bytes: train.bytes,
            held_out_documents: num(held_out),
            held_out_tokens: held_out.frames,
            held_out_bytes: held_out.bytes,
            epoch_rows: rows.num_rows,
            epoch_tokens: train.frames,
            max_row_tokens: self.max_row_frames(),
            target_share: rows.weight / weight,
            max_repeats: self.config.max_repeats,
            unlabelled_documents: 0,
            bad_items: counts(&self.bad_items),
            train_seconds: train.seconds,
            held_out_seconds: held_out.seconds,
            left_out: self.num_left_out,
        }
    }
}

impl Rows for Inner {
    fn sources(&self) -> &[SourceRows] {
        &self.rows
    }

    fn max_row_positions(&self) -> u64 {
        self.options.max_frames as u64
    }

    fn row(&self, draw: Draw) -> Result<Option<Row>> {
        self.row_of(draw, Speed::Drawn)
    }

    fn together(&self, mut rows: Vec<Row>, seed: u64, k: u64) -> Vec<Row> {
        let num_steps = rows.iter().flat_map(|row| &row.sound).map(RowSound::num_steps).min();
        let Some(num_steps) = num_steps.filter(|_| self.options.equal_lengths) else { return rows };
        for row in &mut rows {
            let Some(sound) = &mut row.sound else { continue };
            let room = (sound.num_steps() - num_steps + 1) as u64;
            let start = Stream::new(seed, "crop to the shortest", k, row.key).below(room) as usize;
            *sound = sound.stretch(start, num_steps, &self.options.downsampling);
        }
        rows
    }

    fn positions(&self, source: usize, index: u64) -> Option<u64> {
        let source = &self.sources[source];
        Some(source.train.utterances.get(index as usize).map_or(0, |at| u64::from(source.most_frames[*at as usize])))
    }
}

impl Inner {
    /// A row; none where its item cannot be used and is skipped.
    fn row_of(&self, draw: Draw, speed: Speed) -> Result<Option<Row>> {
        let index = self.sources[draw.source].side(draw.split).utterances[draw.index as usize];
        match self.try_row(draw, index, speed) {
            Ok(row) => Ok(Some(row)),
            Err(Error::BadItem(item)) => self.skip(draw, index, item).map(|()| None),
            Err(error) => Err(error),
        }
    }

    fn try_row(&self, draw: Draw, index: u32, speed: Speed) -> Result<Row> {
        let utterance = self.sources[draw.source].list.get(index as usize);
        let item = |reason, detail| Error::BadItem(BadItem { reason, place: utterance.place.clone(), detail });
        let name = &self.rows[draw.source].name;
        let stream = |what: &str| Stream::new(draw.seed, &format!("{what}/{name}"), draw.k, u64::from(index));
        let samples = self.samples(draw.source, index)?;
        if self.frames_of(samples.len()) == 0 {
            return Err(item(BadReason::TooShort, format!("has {} samples, too few for one frame", samples.len())));
        }
        let mut row = Row::empty(draw.source as u32, (draw.source as u64) << SOURCE_SHIFT | u64::from(index));
        let mut needed = 1;
        if self.options.transcripts {
            let labels = labels(&utterance, self.encoder.as_ref())?.map_err(Error::BadItem)?;
            needed = frames_needed(&labels);
            let frames = self.frames_of(samples.len());
            if frames < needed {
                let detail = format!("has {frames} frames for a transcript that needs {needed}");
                return Err(item(BadReason::TooShort, detail));
            }
            // Its list may say a little less.
            if frames > self.options.max_frames {
                let detail = format!("has {frames} frames, more than `batch.max_seq_len`, {}", self.options.max_frames);
                return Err(item(BadReason::TooLong, detail));
            }
            row.num_bytes = utterance.transcript.as_ref().map_or(0, String::len) as u64;
            row.targets = labels.iter().map(|label| *label as i32).collect();
            row.positions = (0..labels.len() as u32).collect();
            row.spans = vec![(0, labels.len() as u32); labels.len()];
            row.input_ids = labels;
        }
        let values = match self.augmenter.as_ref().filter(|_| draw.is_varied) {
            None => self.prepare(&samples)?,
            Some(augmenter) => {
                let fits = |speed| {
                    let frames = self.frames_of(speed_len(samples.len(), speed));
                    frames >= needed && (!self.options.transcripts || frames <= self.options.max_frames)
                };
                let speed = match speed {
                    Speed::Drawn => augmenter.speed(&mut stream("speed"), fits),
                    Speed::Lowest => augmenter.longest(fits),
                };
                let values = self.prepare(&augmenter.samples(&samples, speed, &stream)?)?;
                match self.config.filter_banks {
                    Some(banks) => augmenter.mask(values, banks.num_mel_bins, &stream),
                    None => values,
                }
            }
        };
        let downsampling = &self.options.downsampling;
        let num_features = self.hearing.num_features();
        let num_frames = downsampling.num_frames(values.len() / num_features.max(1));
        let units = match &self.units {
            Some(units) => self.units(units, draw.source, &utterance, samples.len(), num_frames)?,
            None => Vec::new(),
        };
        let mut sound = RowSound { values: values.into(), num_features, num_frames, units };
        let most = downsampling.num_steps(self.options.max_frames);
        if !self.options.transcripts && sound.num_steps() > most {
            // Another stretch in each epoch, the first one where nothing is varied.
            let room = (sound.num_steps() - most + 1) as u64;
            let start = if draw.is_varied { stream("crop").below(room) as usize } else { 0 };
            sound = sound.stretch(start, most, downsampling);
        }
        row.sound = Some(sound);
        row.documents = vec![index];
        Ok(row)
    }

    /// Frames that the network makes of so many samples.
    fn frames_of(&self, num_samples: usize) -> usize {
        self.options.downsampling.num_frames(self.hearing.num_steps(num_samples))
    }

    /// Samples as the network hears them.
    fn prepare(&self, samples: &[f32]) -> Result<Vec<f32>> {
        self.hearing.prepare(samples, 0).map_err(|error| Error::Config {
            key: "data.speech.filter_banks".to_owned(),
            message: format!("cannot be made: {error}"),
            help: "correct it".to_owned(),
        })
    }

    /// The units of all frames of an utterance.
    fn units(
        &self,
        units: &Units,
        source: usize,
        utterance: &Utterance,
        num_samples: usize,
        num_frames: usize,
    ) -> Result<Vec<i32>> {
        let name = self.rows[source].name.as_str();
        let (downsampling, rate) = (&self.options.downsampling, f64::from(self.config.sample_rate_hz));
        let hop = self.options.hop_seconds(self.config.sample_rate_hz);
        if let Some(item) = units_problem(utterance, (units, name), num_samples as f64 / rate, 2.0 * hop) {
            return Err(Error::BadItem(item));
        }
        let first = 0.5 * downsampling.num_steps(1) as f64 / rate;
        let whole = units.read(name, &utterance.id)?.unwrap_or_default();
        Ok(units.about().at(&whole, first, hop, num_frames))
    }

    /// The samples of an utterance, rounded to 16 bits: decoded, or as decoded before.
    fn samples(&self, source: usize, index: u32) -> Result<Arc<[f32]>> {
        let lock = || self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(samples) = lock().samples.get(&(source, index)) {
            return Ok(Arc::clone(samples));
        }
        let list = &self.sources[source].list;
        let samples = list.load(index as usize, self.config.sample_rate_hz, &self.limits)?;
        let samples: Arc<[f32]> = samples.into_iter().map(to_16_bits).collect();
        let bytes = (samples.len() * size_of::<f32>()) as u64;
        let mut decoded = lock();
        if decoded.bytes + bytes <= self.config.decoded_cache_bytes
            && decoded.samples.insert((source, index), Arc::clone(&samples)).is_none()
        {
            decoded.bytes += bytes;
        }
        Ok(samples)
    }

    /// Counts an item that cannot be used; an error above the limit of the recipe, or where nothing of its source is left to train on:
    /// the mixture would ask for it for ever.
    fn skip(&self, draw: Draw, index: u32, item: BadItem) -> Result<()> {
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        if !bad.seen.insert((draw.source, index)) {
            return Ok(());
        }
        bad.items.add(item)?;
        if draw.split == Split::Train {
            bad.num_train_left[draw.source] -= 1;
            if bad.num_train_left[draw.source] == 0 {
                let documents = self.sources[draw.source].list.len() as u64;
                return Err(Error::NothingToTrainOn { name: self.rows[draw.source].name.clone(), documents });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
