//! Transcribing lists of recordings with a CTC network and scoring them: after a training, and for `arcuate eval`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arcuate_data::pack::document;
use arcuate_data::speech::SpeechSourceConfig;
use arcuate_data::{
    Corpus, DataConfig, Hearing, HeldOut, MicrobatchLimits, PackingConfig, Progress, Row, SpeechConfig, SpeechOptions,
    Utterance,
};
use arcuate_decode::ctc::{Alphabet, CtcDecoder, CtcDecoderConfig, Emissions, greedy};
use arcuate_eval::{
    Done, Edit, Transcribed, TranscriptScores, Transcription, UtteranceScore, diff_words, frame_logits, hears_padding,
};
use arcuate_model::Network;
use arcuate_record::statistics::{Bootstrap, Interval};
use arcuate_record::{HeardWord, Utterance as Shown};
use arcuate_text::{Normaliser, SpecialToken, Tokenizer};
use serde_json::{Value, json};

/// The language model that was made of the training transcripts, in the run folder.
pub(crate) const LANGUAGE_MODEL: &str = "lm.arpa";
/// More frames than any recording has that can be heard in one piece.
const MAX_FRAMES: usize = 1 << 24;

/// The alphabet of a network with the tokenizer that lies beside it.
pub(crate) fn alphabet(network: &Network, tokenizer: &Tokenizer) -> arcuate_decode::Result<Arc<Alphabet>> {
    Ok(Arc::new(Alphabet::of_tokenizer(tokenizer, network.architecture().vocab_size())?))
}

/// The decoder that reads the best token of each frame.
pub(crate) fn greedy(alphabet: Arc<Alphabet>) -> arcuate_decode::Result<CtcDecoder> {
    CtcDecoder::load(&CtcDecoderConfig::Greedy(greedy::Config {}), alphabet)
}

/// Recordings that are only transcribed: all of them are rows, whatever characters their transcripts have.
pub(crate) fn open_lists(
    sources: &BTreeMap<String, SpeechSourceConfig>,
    hearing: Hearing,
    max_bad_items: u64,
    network: &Network,
    tokenizer: &Tokenizer,
    progress: &Progress<'_>,
) -> arcuate_data::Result<Corpus> {
    let Hearing { sample_rate_hz, normalise, filter_banks } = hearing;
    let speech = SpeechConfig {
        source: sources.clone(),
        sample_rate_hz,
        normalise,
        hours_exponent: None,
        filter_banks,
        min_seconds: 0.0,
        max_seconds: None,
        // Each is heard once.
        decoded_cache_bytes: 0,
        augment: None,
        units: None,
    };
    let packing = PackingConfig::Document(document::Config::default());
    let data = DataConfig {
        source: BTreeMap::new(),
        speech: Some(speech),
        max_bad_items,
        ..DataConfig::single("", "", packing)
    };
    let options = SpeechOptions {
        max_frames: MAX_FRAMES,
        downsampling: network.architecture().downsampling().unwrap_or_default(),
        transcripts: false,
        equal_lengths: false,
        units: false,
    };
    Corpus::open_speech(&data, tokenizer.clone(), &options, progress)
}

/// A network with what reads words out of it.
pub(crate) struct Recogniser<'a> {
    /// Without a tape.
    pub network: &'a Network,
    pub tokenizer: &'a Tokenizer,
    pub decoders: &'a [CtcDecoder],
    pub limits: MicrobatchLimits,
}

/// What was said and read in a list of recordings, in order.
#[derive(Default)]
pub(crate) struct Readings {
    /// Keys of the rows.
    pub keys: Vec<u64>,
    /// Names of their sources.
    pub sources: Vec<String>,
    /// By decoder, then by recording.
    pub by_decoder: Vec<Vec<Transcribed>>,
    /// Recordings without a transcript to compare with.
    pub num_untold: u64,
}

impl Recogniser<'_> {
    /// Transcribes the rows whose transcript is known; `each` sees their emissions.
    pub(crate) fn read(
        &self,
        corpus: &Corpus,
        rows: HeldOut,
        each: &mut dyn FnMut(&Utterance, &Emissions<'_>) -> arcuate_eval::Result<()>,
        progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
    ) -> arcuate_eval::Result<Readings> {
        let told = |row: &Row| corpus.utterance(row.key).filter(|utterance| utterance.transcript.is_some());
        let mut num_untold = 0;
        let rows = rows.filter(|row| {
            let is_told = row.as_ref().map_or(true, |row| told(row).is_some());
            num_untold += u64::from(!is_told);
            is_told
        });
        let transcription = Transcription {
            decoders: self.decoders,
            limits: self.limits,
            equal_lengths: hears_padding(&self.network.architecture()),
            pad_id: self.tokenizer.special(SpecialToken::Pad).unwrap_or(0),
        };
        let mut listen = |batch: &arcuate_data::Batch| frame_logits(self.network, batch);
        let mut each = |row: &Row, emissions: &Emissions<'_>| told(row).map_or(Ok(()), |u| each(&u, emissions));
        let mut heard = transcription.run(rows, &mut listen, &mut each, progress)?;
        // As in the lists.
        heard.sort_by_key(|row| row.key);
        let names = corpus.source_names();
        let mut readings =
            Readings { by_decoder: vec![Vec::new(); self.decoders.len()], num_untold, ..Readings::default() };
        for row in heard {
            let Some(utterance) = corpus.utterance(row.key) else { continue };
            readings.keys.push(row.key);
            readings.sources.push(names.get(row.source as usize).cloned().unwrap_or_default());
            for (all, hypothesis) in readings.by_decoder.iter_mut().zip(row.texts) {
                let reference = utterance.transcript.clone().unwrap_or_default();
                all.push(Transcribed { id: utterance.id.clone(), reference, hypothesis });
            }
        }
        Ok(readings)
    }
}

/// The scores of one list.
pub(crate) struct Scored {
    /// `held-out`, or the name of a test.
    pub name: String,
    pub readings: Readings,
    /// By the decoder that was asked for, the first one.
    pub scores: TranscriptScores,
    /// By the best token of each frame, where another decoder was asked for.
    pub greedy: Option<TranscriptScores>,
    /// By source, where there are several.
    pub sources: Vec<(String, TranscriptScores)>,
}

impl Scored {
    /// Scores the readings of the decoder that was asked for and, if there is another, of the greedy one.
    pub(crate) fn new(
        name: &str,
        readings: Readings,
        normaliser: &Normaliser,
        bootstrap: &Bootstrap,
    ) -> arcuate_eval::Result<Self> {
        let score = |all: &[Transcribed]| TranscriptScores::new(all, normaliser, bootstrap);
        let first = readings.by_decoder.first().map(Vec::as_slice).unwrap_or_default();
        let scores = score(first)?;
        let greedy = readings.by_decoder.get(1).map(|all| score(all)).transpose()?;
        let mut by_source: BTreeMap<&str, Vec<Transcribed>> = BTreeMap::new();
        for (source, transcribed) in readings.sources.iter().zip(first) {
            by_source.entry(source).or_default().push(transcribed.clone());
        }
        let mut sources = Vec::new();
        if by_source.len() > 1 {
            for (source, all) in by_source {
                sources.push((source.to_owned(), score(&all)?));
            }
        }
        Ok(Self { name: name.to_owned(), readings, scores, greedy, sources })
    }

    /// `CER 12.3% (11.0 to 13.7), WER 40.0% (37.1 to 43.2)`
    pub(crate) fn rates(&self) -> String {
        rates(&self.scores)
    }

    /// A line of JSON for each utterance.
    pub(crate) fn lines(&self) -> String {
        let line = |at: usize| {
            let score = &self.scores.utterances[at];
            let transcribed = &self.readings.by_decoder[0][at];
            let mut value = json!({
                "list": self.name,
                "source": self.readings.sources[at],
                "id": transcribed.id,
                "reference": transcribed.reference,
                "hypothesis": transcribed.hypothesis,
                "words": score.words.num_reference(),
                "errors": score.words.num_errors(),
                "character_errors": score.characters.num_errors(),
            });
            if let Some(greedy) = self.readings.by_decoder.get(1) {
                value["greedy"] = Value::from(greedy[at].hypothesis.clone());
            }
            value.to_string() + "\n"
        };
        (0..self.scores.utterances.len()).map(line).collect()
    }

    /// Places of the worst utterances that have errors, the worst first, and of the best others, long ones first.
    pub(crate) fn extremes(&self, num: usize) -> (Vec<usize>, Vec<usize>) {
        let all = &self.scores.utterances;
        let mut order: Vec<usize> = (0..all.len()).collect();
        let key = |at: usize| (all[at].words.rate(), all[at].words.num_reference());
        // The sort is stable, so that equal ones stay in their order.
        order.sort_by(|a, b| {
            let ((rate_a, words_a), (rate_b, words_b)) = (key(*a), key(*b));
            rate_b.total_cmp(&rate_a).then(words_a.cmp(&words_b))
        });
        let worst: Vec<usize> = order.iter().copied().filter(|at| all[*at].words.num_errors() > 0).take(num).collect();
        let best = order.iter().rev().copied().filter(|at| all[*at].words.num_reference() > 0 && !worst.contains(at));
        let best = best.take(num).collect();
        (worst, best)
    }

    /// Utterances for a page, with their sound.
    pub(crate) fn shown(&self, places: &[usize], sounds: &HashMap<u64, Vec<u8>>) -> arcuate_eval::Result<Vec<Shown>> {
        let shown = |at: &usize| shown(&self.scores.utterances[*at], sounds.get(&self.readings.keys[*at]).cloned());
        places.iter().map(shown).collect()
    }
}

/// `CER 12.3% (11.0 to 13.7), WER 40.0% (37.1 to 43.2)`
pub(crate) fn rates(scores: &TranscriptScores) -> String {
    let rate = |name: &str, value: f64, interval: Interval| {
        format!("{name} {:.1}% ({:.1} to {:.1})", 100.0 * value, 100.0 * interval.low, 100.0 * interval.high)
    };
    format!(
        "{}, {}",
        rate("CER", scores.characters.rate, scores.characters.interval),
        rate("WER", scores.words.rate, scores.words.interval)
    )
}

/// An utterance for a page.
pub(crate) fn shown(score: &UtteranceScore, wav: Option<Vec<u8>>) -> arcuate_eval::Result<Shown> {
    let word = |word: arcuate_eval::AlignedWord| {
        let (said, heard) = (word.reference.unwrap_or_default(), word.hypothesis.unwrap_or_default());
        match word.edit {
            Edit::Hit => HeardWord::Right(said),
            Edit::Substitution => HeardWord::Wrong { said, heard },
            Edit::Insertion => HeardWord::Extra(heard),
            Edit::Deletion => HeardWord::Missing(said),
        }
    };
    Ok(Shown {
        id: score.id.clone(),
        word_error_rate: score.words.rate(),
        character_error_rate: score.characters.rate(),
        words: diff_words(&score.reference, &score.hypothesis)?.into_iter().map(word).collect(),
        wav,
    })
}

/// The sound of some rows as WAV files.
pub(crate) fn sounds(
    corpus: &Corpus,
    keys: &HashSet<u64>,
    sample_rate_hz: u32,
) -> arcuate_data::Result<HashMap<u64, Vec<u8>>> {
    let mut found = HashMap::new();
    for key in keys {
        if let Some(samples) = corpus.samples(*key)? {
            found.insert(*key, wav(&samples, sample_rate_hz));
        }
    }
    Ok(found)
}

/// A WAV file of one channel and 16 bits, as loud as possible.
fn wav(samples: &[f32], sample_rate_hz: u32) -> Vec<u8> {
    let peak = samples.iter().fold(0.0f32, |peak, x| peak.max(x.abs())).max(1e-9);
    let num_bytes = (2 * samples.len()) as u32;
    let mut bytes = Vec::with_capacity(44 + 2 * samples.len());
    bytes.extend(b"RIFF");
    bytes.extend((36 + num_bytes).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16u32.to_le_bytes());
    bytes.extend(1u16.to_le_bytes());
    bytes.extend(1u16.to_le_bytes());
    bytes.extend(sample_rate_hz.to_le_bytes());
    bytes.extend((2 * sample_rate_hz).to_le_bytes());
    bytes.extend(2u16.to_le_bytes());
    bytes.extend(16u16.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend(num_bytes.to_le_bytes());
    for sample in samples {
        bytes.extend(((sample / peak * 32_000.0) as i16).to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(pairs: &[(&str, &str, &str)]) -> Scored {
        let transcribed = |(at, (_, reference, hypothesis)): (usize, &(&str, &str, &str))| Transcribed {
            id: format!("u{at}"),
            reference: (*reference).to_owned(),
            hypothesis: (*hypothesis).to_owned(),
        };
        let readings = Readings {
            keys: (0..pairs.len() as u64).collect(),
            sources: pairs.iter().map(|(source, ..)| (*source).to_owned()).collect(),
            by_decoder: vec![pairs.iter().enumerate().map(transcribed).collect()],
            num_untold: 0,
        };
        let normaliser = Normaliser::named("none").expect("a preset");
        let bootstrap = Bootstrap { num_resamples: 100, ..Bootstrap::default() };
        Scored::new("held-out", readings, &normaliser, &bootstrap).expect("scored")
    }

    fn some() -> Scored {
        scored(&[("a", "x y", "x"), ("b", "x", "x"), ("a", "x y z", "x y z"), ("b", "z", "q w")])
    }

    #[test]
    fn sources_are_scored_on_their_own_where_there_are_several() {
        let found: Vec<(String, f64)> =
            some().sources.into_iter().map(|(name, scores)| (name, scores.words.rate)).collect();
        assert_eq!(found, [("a".to_owned(), 1.0 / 5.0), ("b".to_owned(), 1.0)]);
        assert!(scored(&[("a", "x", "x")]).sources.is_empty());
    }

    #[test]
    fn extremes_are_the_worst_and_the_longest_best() {
        assert_eq!(some().extremes(2), (vec![3, 0], vec![2, 1]));
        assert_eq!(some().extremes(9), (vec![3, 0], vec![2, 1]));
        assert_eq!(some().extremes(0), (vec![], vec![]));
    }

    #[test]
    fn a_line_has_both_sides_and_the_errors() {
        let lines = some().lines();
        let first: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
        assert_eq!((&first["id"], &first["hypothesis"], &first["errors"]), (&json!("u0"), &json!("x"), &json!(1)));
        assert_eq!(lines.lines().count(), 4);
    }

    #[test]
    fn rates_are_percent_with_intervals() {
        let text = rates(&scored(&[("a", "ab", "ab")]).scores);
        assert_eq!(text, "CER 0.0% (0.0 to 0.0), WER 0.0% (0.0 to 0.0)");
    }

    #[test]
    fn a_wav_file_is_as_loud_as_it_can_be() {
        let bytes = wav(&[0.0, 0.5, -0.25], 8000);
        assert_eq!((bytes.len(), &bytes[..4], &bytes[8..12]), (50, &b"RIFF"[..], &b"WAVE"[..]));
        let sample = |at: usize| i16::from_le_bytes([bytes[44 + 2 * at], bytes[45 + 2 * at]]);
        assert_eq!([sample(0), sample(1), sample(2)], [0, 32_000, -16_000]);
        assert_eq!(wav(&[], 8000).len(), 44);
    }
}
