//! Stand-ins for what earlier steps of a study have not made yet, so that later ones can be planned and rehearsed.
//!
//! Texts of made-up words fill every row to its end, so that what is planned with them is an upper bound.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use arcuate_data::SourceConfig;
use arcuate_model::ModelConfig;
use arcuate_objective::ObjectiveConfig;
use arcuate_ops::rng::Stream;
use arcuate_recipe::{Recipe, StudyRun, Work};
use arcuate_text::{Tokenizer, TokenizerConfig};

/// Vocabulary where the step that makes the tokenizer does not say.
const USUAL_VOCABULARY: usize = 4096;
/// Classes where nothing says how many.
const USUAL_CLASSES: [&str; 4] = ["a", "b", "c", "d"];
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
    fn words_are_many_and_different() {
        let words: std::collections::BTreeSet<String> = (0..1 << 16).map(word).collect();
        assert_eq!(words.len(), 1 << 16);
    }
}
