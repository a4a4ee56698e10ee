//! Stand-ins for what earlier steps of a study have not made yet, so that later ones can be planned and rehearsed.
//!
//! Texts of made-up words, or recordings of noise, fill every row to its end, so that what is planned with them is an upper bound.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use arcuate_data::SourceConfig;
use arcuate_data::speech::SpeechSourceConfig;
use arcuate_model::ModelConfig;
use arcuate_objective::ObjectiveConfig;
use arcuate_ops::rng::Stream;
use arcuate_recipe::{Recipe, StudyRun, Work, build};
use arcuate_text::{Tokenizer, TokenizerConfig};

/// Vocabulary where the step that makes the tokenizer does not say.
const USUAL_VOCABULARY: usize = 4096;
/// Classes where nothing says how many.
const USUAL_CLASSES: [&str; 4] = ["a", "b", "c", "d"];
/// Enough for both sides of a split.
const NUM_RECORDINGS: u64 = 64;
/// Fewest texts.
const MIN_TEXTS: usize = 256;
/// Syllables of the words.
const SYLLABLES: [&str; 16] =
    ["ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu", "na", "pe", "ri", "so", "tu", "ve"];

/// A word out of four syllables.
fn word(number: u64) -> String {
    (0..4).map(|place| SYLLABLES[(number >> (4 * place)) as usize % SYLLABLES.len()]).collect()
}

/// Texts with whatever columns the source names; each fills a row.
pub(super) fn texts(recipe: &Recipe, source: &SourceConfig, dir: &Path, name: &str) -> Result<PathBuf> {
    let classes: Vec<String> = match &recipe.objective {
        ObjectiveConfig::Prompt(prompt) => prompt.classes(),
        _ => USUAL_CLASSES.map(str::to_owned).to_vec(),
    };
    let num_texts = MIN_TEXTS.max(2 * recipe.batch.global_batch());
    let mut text = String::new();
    for number in 0..num_texts {
        let mut stream = Stream::new(0, "stand-in", 0, number as u64);
        let words: Vec<String> = (0..recipe.batch.max_seq_len).map(|_| word(stream.below(1 << 16))).collect();
        let mut line = serde_json::Map::new();
        line.insert(source.id_column.clone().unwrap_or_else(|| "id".to_owned()), number.to_string().into());
        line.insert(source.text_column.clone(), words.join(" ").into());
        if let Some(column) = &source.label_column {
            line.insert(column.clone(), classes[number % classes.len()].clone().into());
        }
        if let Some(column) = &source.logits_column {
            let logits = classes.iter().map(|class| (class.clone(), 0.0.into()));
            line.insert(column.clone(), serde_json::Value::Object(logits.collect()));
        }
        if let Some(column) = &source.tags_column {
            let tags = (0..words.len()).map(|at| classes[at % classes.len()].clone().into());
            line.insert(column.clone(), serde_json::Value::Array(tags.collect()));
        }
        writeln!(text, "{}", serde_json::Value::Object(line))?;
    }
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("{name}.jsonl"));
    std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(path)
}

/// The list of recordings that a key of a recipe names: of a source, or of a test.
pub(super) fn list_of<'a>(recipe: &'a mut Recipe, key: &str) -> Option<&'a mut SpeechSourceConfig> {
    let of = |prefix: &str| key.strip_prefix(prefix)?.split_once(".format.").map(|(name, _)| name);
    if let Some(name) = of("data.speech.source.") {
        return recipe.data.speech.as_mut()?.source.get_mut(name);
    }
    recipe.transcripts.as_mut()?.test.get_mut(of("transcripts.test.")?)
}

/// A list of recordings of noise with transcripts; each fills a row.
pub(super) fn recordings(recipe: &Recipe, dir: &Path, name: &str) -> Result<PathBuf> {
    let speech = recipe.data.speech.as_ref().context("a recipe of recordings has `[data.speech]`")?;
    let max_frames = recipe.batch.max_seq_len;
    let architecture = build::architecture(recipe, USUAL_VOCABULARY, &[])?;
    let downsampling = architecture.downsampling().context("a speech network hears")?;
    let hearing = speech.hearing();
    let num_samples = hearing.num_samples(downsampling.num_steps(max_frames));
    let most = speech.max_seconds.map_or(f64::INFINITY, |seconds| seconds * f64::from(speech.sample_rate_hz));
    let num_samples = num_samples.min(most as usize);
    // A letter takes up to two frames.
    let num_words = (downsampling.num_frames(hearing.num_steps(num_samples)) / 32).max(1);
    std::fs::create_dir_all(dir)?;
    let mut list = String::new();
    for number in 0..NUM_RECORDINGS {
        let mut stream = Stream::new(0, "stand-in", 1, number);
        let file = dir.join(format!("{name}-{number}.wav"));
        let samples: Vec<i16> = (0..num_samples).map(|_| stream.below(1 << 14) as i16).collect();
        std::fs::write(&file, wav(&samples, speech.sample_rate_hz))
            .with_context(|| format!("cannot write `{}`", file.display()))?;
        let words: Vec<String> = (0..num_words).map(|_| word(stream.below(1 << 16))).collect();
        let seconds = num_samples as f64 / f64::from(speech.sample_rate_hz);
        let line = serde_json::json!({"audio_filepath": file, "duration": seconds, "text": words.join(" ")});
        writeln!(list, "{line}")?;
    }
    let path = dir.join(format!("{name}.jsonl"));
    std::fs::write(&path, list).with_context(|| format!("cannot write `{}`", path.display()))?;
    Ok(path)
}

/// A WAV file of one channel and 16 bits.
fn wav(samples: &[i16], rate_hz: u32) -> Vec<u8> {
    let num_bytes = 2 * samples.len() as u32;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + num_bytes).to_le_bytes());
    bytes.extend_from_slice(b"WAVEfmt ");
    bytes.extend(16_u32.to_le_bytes());
    // PCM, one channel, bytes a second, bytes a sample, bits a sample.
    bytes.extend([1_u16, 1].into_iter().flat_map(u16::to_le_bytes));
    bytes.extend([rate_hz, 2 * rate_hz].into_iter().flat_map(u32::to_le_bytes));
    bytes.extend([2_u16, 16].into_iter().flat_map(u16::to_le_bytes));
    bytes.extend_from_slice(b"data");
    bytes.extend(num_bytes.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes
}

/// A tokenizer of the size that `giver` asks for, with the words of a prompt in it.
pub(super) fn tokenizer(recipe: &Recipe, giver: Option<&StudyRun>, dir: &Path) -> Result<PathBuf> {
    let args = match giver.map(|run| &run.work) {
        Some(Work::Command(command)) => command.args.as_slice(),
        _ => &[],
    };
    let size = args.iter().position(|arg| arg == "--vocab-size").and_then(|at| args.get(at + 1)?.parse().ok());
    let size: usize = size.unwrap_or(USUAL_VOCABULARY).clamp(512, 1 << 18);
    let kind = if matches!(recipe.model, ModelConfig::Bert(_)) { "wordpiece" } else { "byte_bpe" };
    let words: Vec<String> = match &recipe.objective {
        ObjectiveConfig::Prompt(prompt) => prompt.words.values().cloned().collect(),
        _ => Vec::new(),
    };
    let path = dir.join(format!("tokenizer-{kind}-{size}-{}", words.join("-").len()));
    if path.exists() {
        return Ok(path);
    }
    let config: TokenizerConfig = serde_json::from_value(serde_json::json!({ kind: { "vocab_size": size } }))?;
    let made_up = (0..size as u64).map(|number| format!("{} {}", word(number * 7), word(number * 7 + 3)));
    // Often enough that each becomes one token.
    let known = std::iter::repeat_n(words.join(" "), 200).filter(|text| !text.is_empty());
    let texts: Vec<String> = known.chain(made_up).collect();
    std::fs::create_dir_all(&path)?;
    Tokenizer::train(&config, texts.into_iter())?.with_model_max_length(recipe.batch.max_seq_len).save(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_is_a_wav_file_of_its_samples() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("a.wav");
        let samples: Vec<i16> = (0..800).map(|at| at * 16).collect();
        std::fs::write(&file, wav(&samples, 8000)).expect("written");
        let list = format!("{}", serde_json::json!({"audio_filepath": file, "text": "a"}));
        std::fs::write(dir.path().join("a.jsonl"), list).expect("written");
        let path = dir.path().join("a.jsonl").display().to_string();
        let source =
            SpeechSourceConfig::new(arcuate_data::speech::SpeechFormat::Nemo(arcuate_data::speech::nemo::Config {
                path,
            }));
        let progress = arcuate_data::Progress::none();
        let list = arcuate_data::speech::Utterances::open("a", &source, 0, &progress).expect("opened");
        let heard = list.load(0, 8000, &arcuate_data::speech::Limits::default()).expect("decoded");
        let expected: Vec<f32> = samples.iter().map(|sample| f32::from(*sample) / 32768.0).collect();
        assert_eq!(heard, expected);
    }

    #[test]
    fn words_are_many_and_different() {
        let words: std::collections::BTreeSet<String> = (0..1 << 16).map(word).collect();
        assert_eq!(words.len(), 1 << 16);
    }
}
