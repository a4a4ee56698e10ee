//! The task `transcripts:LIST`: error rates of a speech recogniser, with any decoder; emissions for other programs; tuning of a
//! language model's weights.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use arcuate_data::speech::{SpeechFormat, SpeechSourceConfig};
use arcuate_data::{Corpus, HeldOut, MicrobatchLimits, Progress, Utterance};
use arcuate_decode::ctc::{Alphabet, CtcDecoder, CtcDecoderConfig, Emissions, greedy};
use arcuate_eval::{Done, Error, EvalModel, TaskResult, TranscriptsConfig, transcripts_task};
use arcuate_model::Head;
use arcuate_recipe::{Recipe, build};
use arcuate_record::statistics::Bootstrap;
use arcuate_record::{format_number, text_table, write_atomic};
use arcuate_text::{Ngram, Normaliser};
use serde_json::{Value, json};

use super::coded;
use crate::decoder::usage;
use crate::transcripts::{LANGUAGE_MODEL, Readings, Recogniser, Scored, alphabet, open_lists};
use crate::{decoder, exit, preprocessor, terminal};

/// What `--tune-lm` tries.
const WEIGHTS: [f64; 4] = [0.25, 0.5, 0.75, 1.0];
const WORD_SCORES: [f64; 4] = [0.0, 1.0, 2.0, 3.0];

/// How recordings become words.
#[derive(clap::Args, Debug, Clone, Default)]
#[command(next_help_heading = "Transcripts")]
pub(super) struct Flags {
    #[command(flatten)]
    decoding: decoder::SearchFlags,
    /// Try weights and word scores of `--lm` on the list and take the best; measure another list with them afterwards.
    #[arg(long, requires = "lm", conflicts_with_all = ["lm_weight", "word_score", "lexicon"])]
    tune_lm: bool,
    /// Spelling in which both sides are compared [default: that of the tokenizer].
    #[arg(long, value_name = "NAME", value_parser = Normaliser::NAMES)]
    normalise: Option<String>,
    /// Write a line of JSON for each recording: what was said, what was recognised, the errors.
    #[arg(long, value_name = "FILE")]
    save_transcripts: Option<PathBuf>,
    /// Write the log-probabilities of each recording, frames times tokens, as raw little-endian f32 beside `emissions.json`.
    #[arg(long, value_name = "DIR")]
    save_emissions: Option<PathBuf>,
}

impl Flags {
    /// Refuses what cannot work, before anything is loaded.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        self.decoding.check()
    }
}

/// The list that a task names: `transcripts:FORMAT:PATH`, or `transcripts:PATH` whose ending tells the format.
pub(super) fn list(task: &str) -> anyhow::Result<SpeechSourceConfig> {
    let rest = task.strip_prefix("transcripts:").unwrap_or(task);
    let (format, path) = match rest.split_once(':') {
        Some((format, path)) if SpeechFormat::NAMES.contains(&format) => (format, path),
        _ => (format_of(rest), rest),
    };
    let is_pattern = path.contains(['*', '?', '[']);
    if path.is_empty() || !is_pattern && !Path::new(path).exists() {
        let names = SpeechFormat::NAMES.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return Err(exit::usage(format!(
            "`{path}` of the task `{task}` does not exist; name a list of recordings, such as `transcripts:test.jsonl`, or \
             `transcripts:FORMAT:PATH` with one of the formats {names}"
        )));
    }
    let format: SpeechFormat = serde_json::from_value(json!({format: {"path": path}}))
        .with_context(|| format!("`{task}` cannot be read as a list"))?;
    Ok(SpeechSourceConfig::new(format))
}

fn format_of(path: &str) -> &'static str {
    let name = path.trim_end_matches(".gz").trim_end_matches(".zst");
    match Path::new(name).extension().and_then(|ending| ending.to_str()) {
        _ if Path::new(path).is_dir() => "folder",
        Some("tsv") => "common_voice",
        Some("parquet") => "parquet",
        Some("tar") => "webdataset",
        _ => "nemo",
    }
}

/// Error rates on a list of recordings.
pub(super) fn list_task(
    name: &str,
    list: &SpeechSourceConfig,
    dir: &Path,
    model: &EvalModel<'_>,
    flags: &Flags,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> anyhow::Result<TaskResult> {
    let sources = BTreeMap::from([("list".to_owned(), list.clone())]);
    let network = model.network.valid();
    refuse_other(model)?;
    let hearing = preprocessor::hearing(dir, &network.architecture())?;
    let corpus = open_lists(&sources, hearing, 0, &network, model.tokenizer, &Progress::none())?;
    let work = Work {
        name,
        rows: corpus.in_order(),
        corpus: &corpus,
        config: json!({"list": list.format.path(), "format": list.format.name()}),
        decoder: flags.decoding.search(),
        normaliser: None,
    };
    work.measure(model, flags, progress)
}

/// Error rates on the held-out recordings of a recipe, by its decoder unless the flags name another. The language model of the run
/// lies in the folder of the checkpoint's run.
pub(super) fn recipe_task(
    name: &str,
    recipe: &Recipe,
    dir: &Path,
    model: &EvalModel<'_>,
    flags: &Flags,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> anyhow::Result<TaskResult> {
    refuse_other(model)?;
    // What is held out is never changed, so noise and rooms need not be there.
    let mut plain = recipe.clone();
    if let Some(speech) = &mut plain.data.speech {
        speech.augment = None;
    }
    let corpus = build::corpus(&plain, model.tokenizer, &Progress::none())?;
    let real = dir.canonicalize().with_context(|| format!("cannot read `{}`", dir.display()))?;
    let arpa = real.parent().and_then(Path::parent).map(|run| run.join(LANGUAGE_MODEL)).filter(|path| path.is_file());
    let own = recipe.transcripts.as_ref();
    let work = Work {
        name,
        rows: corpus.held_out(None)?,
        corpus: &corpus,
        config: json!({"recipe": recipe.name}),
        decoder: flags.decoding.search().or_else(|| own.map(|own| own.decoder_with(arpa.as_deref()))),
        normaliser: own.map(|own| own.normaliser(model.tokenizer)),
    };
    work.measure(model, flags, progress)
}

fn refuse_other(model: &EvalModel<'_>) -> anyhow::Result<()> {
    let architecture = model.network.architecture();
    if architecture.downsampling().is_some() && *architecture.head() == Head::Tokens {
        return Ok(());
    }
    let name = architecture.name();
    Err(exit::usage(format!(
        "`{name}` was not trained to write what it hears; name the checkpoint of a run with `[objective.ctc]`"
    )))
}

/// What is transcribed, and how unless flags say otherwise.
struct Work<'a> {
    name: &'a str,
    corpus: &'a Corpus,
    rows: HeldOut,
    /// What the result says about itself.
    config: Value,
    decoder: Option<CtcDecoderConfig>,
    normaliser: Option<Normaliser>,
}

impl Work<'_> {
    fn measure(
        self,
        model: &EvalModel<'_>,
        flags: &Flags,
        progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
    ) -> anyhow::Result<TaskResult> {
        let Self { name, corpus, rows, mut config, decoder, normaliser } = self;
        let network = model.network.valid();
        let alphabet = alphabet(&network, model.tokenizer).map_err(usage)?;
        let (decoders, tried) = decoders(decoder.as_ref(), flags, &alphabet)?;
        let recogniser = Recogniser {
            network: &network,
            tokenizer: model.tokenizer,
            decoders: &decoders,
            limits: MicrobatchLimits { rows: model.microbatch, tokens: None },
        };
        let mut saved = flags.save_emissions.as_deref().map(SavedEmissions::create).transpose()?;
        let mut each = |utterance: &Utterance, emissions: &Emissions<'_>| match &mut saved {
            Some(saved) => saved.add(utterance, emissions),
            None => Ok(()),
        };
        let readings = recogniser.read(corpus, rows, &mut each, progress).map_err(coded)?;
        if let Some(saved) = saved {
            let tokens: Vec<Option<String>> =
                (0..alphabet.num_tokens() as u32).map(|id| model.tokenizer.id_to_token(id)).collect();
            saved.finish(json!({"tokens": tokens, "blank": alphabet.blank()}))?;
        }
        let own = || normaliser.unwrap_or_else(|| TranscriptsConfig::default().normaliser(model.tokenizer));
        let normaliser = flags.normalise.as_deref().and_then(Normaliser::named).unwrap_or_else(own);
        let bootstrap = Bootstrap { seed: model.seed, ..Bootstrap::default() };
        let num_untold = readings.num_untold;
        let scored = if tried.is_empty() {
            Scored::new(name, readings, &normaliser, &bootstrap).map_err(coded)?
        } else {
            best_of(name, readings, &tried, &mut config, &normaliser, &bootstrap)?
        };
        if let Some(file) = &flags.save_transcripts {
            write_atomic(file, scored.lines().as_bytes()).context("cannot write the transcripts")?;
            terminal::say("wrote", &file.display().to_string());
        }
        config["decoder"] = json!(decoder);
        let mut result = transcripts_task(name, &scored.scores, config);
        result.num_original += num_untold;
        Ok(result)
    }
}

/// Weights and word scores that are tried.
type Tried = Vec<(f64, f64)>;

/// The decoders and, where weights are tried, the weight and word score of each.
fn decoders(
    config: Option<&CtcDecoderConfig>,
    flags: &Flags,
    alphabet: &Arc<Alphabet>,
) -> anyhow::Result<(Vec<CtcDecoder>, Tried)> {
    if let Some(lm) = flags.decoding.lm.as_ref().filter(|_| flags.tune_lm) {
        let ngram = Arc::new(Ngram::load(lm)?);
        let tried: Tried =
            WEIGHTS.into_iter().flat_map(|weight| WORD_SCORES.map(|word_score| (weight, word_score))).collect();
        let load = |(weight, word_score): &(f64, f64)| {
            let own = decoder::SearchFlags {
                lm_weight: Some(*weight),
                word_score: Some(*word_score),
                ..flags.decoding.clone()
            };
            CtcDecoder::with_language_model(&own.prefix_beam(), alphabet.clone(), ngram.clone()).map_err(usage)
        };
        return Ok((tried.iter().map(load).collect::<Result<_, _>>()?, tried));
    }
    let greedy = CtcDecoderConfig::Greedy(greedy::Config {});
    Ok((vec![decoder::load(config.unwrap_or(&greedy), alphabet)?], Vec::new()))
}

/// The scores of the weights that are best, by WER and then by CER; says what the others gave.
fn best_of(
    name: &str,
    mut readings: Readings,
    tried: &[(f64, f64)],
    config: &mut Value,
    normaliser: &Normaliser,
    bootstrap: &Bootstrap,
) -> anyhow::Result<Scored> {
    let all = std::mem::take(&mut readings.by_decoder);
    // Only the best one needs intervals.
    let few = Bootstrap { num_resamples: 1, ..*bootstrap };
    let mut lines = Vec::new();
    let mut tuning = Vec::new();
    let mut best: Option<(f64, f64, usize)> = None;
    for (at, (transcribed, (weight, word_score))) in all.iter().zip(tried).enumerate() {
        let scores = arcuate_eval::TranscriptScores::new(transcribed, normaliser, &few).map_err(coded)?;
        let (wer, cer) = (scores.words.rate, scores.characters.rate);
        lines.push([*weight, *word_score, wer, cer].map(format_number).to_vec());
        tuning.push(json!({"lm_weight": weight, "word_score": word_score, "wer": wer, "cer": cer}));
        if best.is_none_or(|(best_wer, best_cer, _)| (wer, cer) < (best_wer, best_cer)) {
            best = Some((wer, cer, at));
        }
    }
    let (_, _, at) = best.context("some weights were tried")?;
    terminal::say("tuned", &text_table(&["--lm-weight", "--word-score", "WER", "CER"], &lines));
    let (weight, word_score) = tried[at];
    terminal::say("best", &format!("--lm-weight {weight} --word-score {word_score}; measure another list with them"));
    config["tuning"] = json!(tuning);
    config["lm_weight"] = json!(weight);
    config["word_score"] = json!(word_score);
    readings.by_decoder = all.into_iter().skip(at).take(1).collect();
    Scored::new(name, readings, normaliser, bootstrap).map_err(coded)
}

/// A folder of emissions.
struct SavedEmissions {
    dir: PathBuf,
    utterances: Vec<Value>,
}

impl SavedEmissions {
    fn create(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), utterances: Vec::new() })
    }

    fn add(&mut self, utterance: &Utterance, emissions: &Emissions<'_>) -> arcuate_eval::Result<()> {
        let file = format!("{:06}.f32", self.utterances.len());
        let path = self.dir.join(&file);
        let write = || -> std::io::Result<()> {
            let mut out = BufWriter::new(File::create(&path)?);
            for value in emissions.frames().flatten() {
                out.write_all(&value.to_le_bytes())?;
            }
            out.flush()
        };
        write().map_err(|source| Error::Write { path: path.clone(), source })?;
        self.utterances.push(json!({
            "id": utterance.id,
            "file": file,
            "frames": emissions.num_frames(),
            "seconds": utterance.seconds,
            "reference": utterance.transcript,
        }));
        Ok(())
    }

    fn finish(self, mut header: Value) -> anyhow::Result<()> {
        header["dtype"] = json!("float32, little-endian, natural log-probabilities, frames times tokens");
        header["utterances"] = json!(self.utterances);
        let path = self.dir.join("emissions.json");
        write_atomic(&path, format!("{header:#}\n").as_bytes()).context("cannot write the header of the emissions")?;
        terminal::say("wrote", &path.display().to_string());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_of_a_list_is_named_or_follows_from_its_ending() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let name = |format: &str, file: &str| {
            let path = dir.path().join(file);
            if !path.exists() {
                std::fs::write(&path, "").expect("written");
            }
            list(&format!("transcripts:{format}{}", path.display())).expect("there").format.name()
        };
        let found = ["a.jsonl", "a.tsv", "a.parquet", "a.tar", "a.jsonl.gz", ""].map(|file| name("", file));
        assert_eq!(found, ["nemo", "common_voice", "parquet", "webdataset", "nemo", "folder"]);
        assert_eq!(name("kaldi:", ""), "kaldi");
        let message = list("transcripts:none.jsonl").expect_err("missing").to_string();
        assert!(message.contains("`none.jsonl`") && message.contains("`kaldi`"), "{message}");
    }
}
