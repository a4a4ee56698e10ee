//! The end of a CTC run: what the best checkpoint writes of the recordings that it was not trained on.

use std::collections::{BTreeMap, HashSet};
use std::ops::ControlFlow;

use anyhow::Result;
use arcuate_data::{Corpus, HeldOut, Progress, Split, Texts};
use arcuate_decode::ctc::{CtcDecoder, CtcDecoderConfig};
use arcuate_eval::{TranscriptScores, TranscriptsConfig};
use arcuate_objective::ObjectiveConfig;
use arcuate_record::statistics::Bootstrap;
use arcuate_record::{MetricsWriter, Record, Report, RunDir, Table, Utterance};
use arcuate_train::StopFlag;

use super::Closing;
use crate::terminal::{self, say};
use crate::transcripts::{LANGUAGE_MODEL, Recogniser, Scored, alphabet, greedy, open_lists, rates, sounds};

/// The name of the list that the run itself held out.
const HELD_OUT: &str = "held-out";
/// Substitutions that the report lists.
const NUM_CONFUSIONS: usize = 12;

/// Everything that was transcribed.
pub(super) struct Transcripts {
    lists: Vec<Scored>,
    /// The decoder that was asked for.
    decoder: &'static str,
    worst: Vec<Utterance>,
    best: Vec<Utterance>,
    /// Flags that give another command the same decoder.
    flags: String,
}

/// Transcribes the held-out recordings and the tests of a CTC run; writes `transcripts.jsonl` and a record of metrics.
pub(super) fn transcribe(closing: &Closing, folder: &RunDir, stop: &StopFlag) -> Result<Option<Transcripts>> {
    let recipe = closing.recipe;
    let Some(speech) = recipe.data.speech.as_ref().filter(|_| matches!(recipe.objective, ObjectiveConfig::Ctc(_)))
    else {
        return Ok(None);
    };
    let config = recipe.transcripts.clone().unwrap_or_default();
    let store = folder.checkpoints_path();
    let dir = ["best", "last"].map(|name| store.join(name)).into_iter().find(|dir| dir.exists());
    let held_out = closing.corpus.held_out(None)?;
    let Some(dir) = dir.filter(|_| held_out.num_rows() > 0 || !config.test.is_empty()) else { return Ok(None) };
    let network = arcuate_model::load(&dir, closing.device)?;
    let flags = language_model(closing, folder, &config)?;
    let arpa = config.language_model.as_ref().map(|_| folder.path().join(LANGUAGE_MODEL));
    let alphabet = alphabet(&network, closing.tokenizer)?;
    let wanted = config.decoder_with(arpa.as_deref());
    let mut decoders = vec![CtcDecoder::load(&wanted, alphabet.clone())?];
    if !matches!(wanted, CtcDecoderConfig::Greedy(_)) {
        decoders.push(greedy(alphabet)?);
    }
    let recogniser = Recogniser {
        network: &network,
        tokenizer: closing.tokenizer,
        decoders: &decoders,
        limits: recipe.batch.limits(),
    };
    let normaliser = config.normaliser(closing.tokenizer);
    let mut lists = Vec::new();
    type Rows = fn(&Corpus) -> arcuate_data::Result<HeldOut>;
    let mut corpora: Vec<(Corpus, Rows)> = Vec::new();
    let mut named: Vec<String> = Vec::new();
    if held_out.num_rows() > 0 {
        corpora.push((closing.corpus.clone(), |corpus| corpus.held_out(None)));
        named.push(HELD_OUT.to_owned());
    }
    for (name, source) in &config.test {
        let source = BTreeMap::from([(name.clone(), source.clone())]);
        let limit = recipe.data.max_bad_items;
        let corpus = open_lists(&source, speech.hearing(), limit, &network, closing.tokenizer, &Progress::none())?;
        corpora.push((corpus, |corpus| Ok(corpus.in_order())));
        named.push(name.clone());
    }
    for ((corpus, rows), name) in corpora.iter().zip(&named) {
        let rows = rows(corpus)?;
        let bar = terminal::bar("hearing", rows.num_rows(), false);
        if closing.json {
            bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        }
        bar.set_message(name.clone());
        let readings = recogniser.read(corpus, rows, &mut |_, _| Ok(()), &mut |done| {
            bar.set_position(done.rows);
            if stop.is_requested() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.finish_and_clear();
        let scored = Scored::new(name, readings?, &normaliser, &Bootstrap::default())?;
        if !closing.json {
            say("heard", &line(&scored));
        }
        lists.push(scored);
    }
    let Some((first, (corpus, _))) = lists.first().zip(corpora.first()) else { return Ok(None) };
    let (worst, best) = first.extremes(config.num_examples);
    let keys: HashSet<u64> = worst.iter().chain(&best).map(|at| first.readings.keys[*at]).collect();
    let sounds = sounds(corpus, &keys, speech.sample_rate_hz)?;
    let (worst, best) = (first.shown(&worst, &sounds)?, first.shown(&best, &sounds)?);
    folder.write("transcripts.jsonl", lists.iter().map(Scored::lines).collect::<String>().as_bytes())?;
    let decoder = match wanted {
        CtcDecoderConfig::Greedy(_) => "greedy",
        CtcDecoderConfig::LexiconBeam(_) => "lexicon beam",
        CtcDecoderConfig::PrefixBeam(_) => "prefix beam",
    };
    let transcripts = Transcripts { lists, decoder, worst, best, flags };
    let mut writer = MetricsWriter::open(&folder.metrics_path(), Some(closing.state.step))?;
    writer.write(&transcripts.record(closing.state.step))?;
    writer.sync()?;
    Ok(Some(transcripts))
}

/// Trains the language model, if one is wanted, and writes it; gives the flags that name it.
fn language_model(closing: &Closing, folder: &RunDir, config: &TranscriptsConfig) -> Result<String> {
    let Some(model) = &config.language_model else { return Ok(String::new()) };
    let texts = Texts::open(&closing.recipe.data, Split::Train, None)?;
    let failure = texts.failure();
    let trained = model.train(texts, closing.tokenizer);
    failure.take()?;
    let trained = trained?;
    let path = folder.path().join(LANGUAGE_MODEL);
    trained.save(&path)?;
    if !closing.json {
        let counts: Vec<String> = trained.num_ngrams().iter().map(usize::to_string).collect();
        say("lm", &format!("{} n-grams by order, {}", counts.join(", "), path.display()));
    }
    Ok(format!(" --lm {} --lm-weight {} --word-score {}", path.display(), model.weight, model.word_score))
}

fn line(scored: &Scored) -> String {
    let mut text = format!("{}, {} utterances: {}", scored.name, scored.scores.num_utterances, scored.rates());
    if let Some(greedy) = &scored.greedy {
        text += &format!("; greedy: {}", rates(greedy));
    }
    if scored.readings.num_untold > 0 {
        text += &format!("; {} without a transcript left out", scored.readings.num_untold);
    }
    text
}

fn put(record: Record, prefix: &str, scores: &TranscriptScores) -> Record {
    record
        .value(&format!("{prefix}wer"), scores.words.rate)
        .value(&format!("{prefix}wer_low"), scores.words.interval.low)
        .value(&format!("{prefix}wer_high"), scores.words.interval.high)
        .value(&format!("{prefix}cer"), scores.characters.rate)
        .value(&format!("{prefix}cer_low"), scores.characters.interval.low)
        .value(&format!("{prefix}cer_high"), scores.characters.interval.high)
        .value(&format!("{prefix}sentence_error_rate"), scores.sentence_error_rate)
        .value(&format!("{prefix}utterances"), scores.num_utterances as f64)
}

/// A row of the table of lists.
fn row(list: &str, decoder: &str, scores: &TranscriptScores) -> Vec<String> {
    let rate = |rate: &arcuate_eval::ErrorRate| {
        let interval = rate.interval;
        format!("{:.1}% ({:.1} to {:.1})", 100.0 * rate.rate, 100.0 * interval.low, 100.0 * interval.high)
    };
    let counts = scores.words.counts;
    vec![
        list.to_owned(),
        decoder.to_owned(),
        scores.num_utterances.to_string(),
        counts.num_reference().to_string(),
        rate(&scores.words),
        rate(&scores.characters),
        format!("{:.1}%", 100.0 * scores.sentence_error_rate),
        format!("{} / {} / {}", counts.substitutions, counts.insertions, counts.deletions),
    ]
}

impl Transcripts {
    /// The list that counts: what was held out, else the first test.
    pub(super) fn first(&self) -> Option<&Scored> {
        self.lists.first()
    }

    /// `CER 12.3% (11.0 to 13.7), WER ... on held-out recordings`
    pub(super) fn summary(&self) -> String {
        let Some(first) = self.first() else { return String::new() };
        let what = if first.name == HELD_OUT { "held-out recordings" } else { first.name.as_str() };
        format!("{} on {what}", first.rates())
    }

    /// Flags that give `arcuate transcribe` the same decoder.
    pub(super) fn flags(&self) -> &str {
        &self.flags
    }

    fn record(&self, step: u64) -> Record {
        let mut record = Record::new(step, "transcripts");
        for (at, list) in self.lists.iter().enumerate() {
            let own = if list.name == HELD_OUT { String::new() } else { format!("test/{}/", list.name) };
            // The first list has the plain names too.
            let prefixes: &[&str] = if at == 0 && !own.is_empty() { &[&own, ""] } else { &[&own] };
            for prefix in prefixes {
                record = put(record, prefix, &list.scores);
                if let Some(greedy) = &list.greedy {
                    record = put(record, &format!("{prefix}greedy_"), greedy);
                }
            }
            // A single source has the rates of the list.
            let single = list.readings.sources.first().filter(|_| list.sources.is_empty() && own.is_empty());
            if let Some(source) = single {
                record = put(record, &format!("{source}/"), &list.scores);
            }
            for (source, scores) in &list.sources {
                record = put(record, &format!("{own}{source}/"), scores);
            }
        }
        record
    }

    pub(super) fn tiles(&self, report: Report) -> Report {
        let Some(first) = self.first() else { return report };
        let note = |interval: arcuate_record::statistics::Interval| {
            format!("{:.1} to {:.1}, {}, {}", 100.0 * interval.low, 100.0 * interval.high, first.name, self.decoder)
        };
        let (words, characters) = (&first.scores.words, &first.scores.characters);
        report
            .tile("character error rate", &format!("{:.1}%", 100.0 * characters.rate), &note(characters.interval))
            .tile("word error rate", &format!("{:.1}%", 100.0 * words.rate), &note(words.interval))
            .tile(
                "sentence error rate",
                &format!("{:.1}%", 100.0 * first.scores.sentence_error_rate),
                &format!("of {} utterances", first.scores.num_utterances),
            )
    }

    pub(super) fn sections(&self, mut report: Report) -> Report {
        let headers = ["list", "decoder", "utterances", "words", "WER", "CER", "sentences", "sub / ins / del"];
        let mut table = Table::new(&headers);
        for list in &self.lists {
            table = table.row(row(&list.name, self.decoder, &list.scores));
            if let Some(greedy) = &list.greedy {
                table = table.row(row(&list.name, "greedy", greedy));
            }
            for (source, scores) in &list.sources {
                table = table.row(row(&format!("{}: {source}", list.name), self.decoder, scores));
            }
        }
        let Some(first) = self.first() else { return report };
        let normaliser = &first.scores.normaliser;
        let note = format!(
            "Errors of all utterances together, with 95% bootstrap intervals over utterances; both sides in the spelling `{normaliser}`. \
             All transcripts are in transcripts.jsonl."
        );
        report = report.table("Transcripts", &table.note(&note));
        if !self.worst.is_empty() {
            report = report.utterances("Worst utterances", &self.worst);
        }
        if !self.best.is_empty() {
            report = report.utterances("Best utterances", &self.best);
        }
        if !first.scores.confusions.is_empty() {
            let mut table = Table::new(&["said", "recognised", "times"]);
            for word in first.scores.confusions.iter().take(NUM_CONFUSIONS) {
                table = table.row(vec![word.reference.clone(), word.hypothesis.clone(), word.count.to_string()]);
            }
            report = report.table("Most frequent substitutions", &table);
        }
        report
    }
}
