//! From a checked recipe to objects: tokenizer, corpus, objective, network, settings of the loop.

use std::path::Path;

use arcuate_data::units::About;
use arcuate_data::{Corpus, CorpusOptions, Framing, Progress, SoftToken, SpeechOptions, Split, Texts};
use arcuate_model::{Adoption, Architecture, Head, ModelConfig, Network, TokenIds, common_tokens};
use arcuate_objective::{Objective, ObjectiveConfig, Vocabulary, distillation};
use arcuate_text::{SpecialToken, Tokenizer, TokenizerConfig};
use arcuate_train::{Compute, Settings};
use burn::tensor::Device;

use crate::{Finding, Recipe};

/// Where a run keeps its tokenizer, beside its checkpoints.
pub const TOKENIZER_FOLDER: &str = "tokenizer";

/// A part that could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data.
    #[error(transparent)]
    Data(#[from] arcuate_data::Error),
    /// The tokenizer.
    #[error(transparent)]
    Text(#[from] arcuate_text::Error),
    /// The network.
    #[error(transparent)]
    Model(#[from] arcuate_model::Error),
    /// The objective.
    #[error(transparent)]
    Objective(#[from] arcuate_objective::Error),
}

/// A result of building.
pub type Result<T> = std::result::Result<T, Error>;

/// The tokenizer of a recipe: that of the run folder if it has one, else loaded or trained on the training texts.
pub fn tokenizer(recipe: &Recipe, folder: Option<&Path>, seen: impl Fn(u64) + Send + Sync) -> Result<Tokenizer> {
    if let Some(folder) = folder.filter(|f| f.join("tokenizer.json").exists()) {
        return Ok(Tokenizer::load(folder)?);
    }
    let tokenizer = if let TokenizerConfig::File(file) = &recipe.tokenizer {
        Tokenizer::load(&file.path)?
    } else if let TokenizerConfig::None(_) = &recipe.tokenizer {
        // It needs no text, and lists of recordings may be long.
        Tokenizer::train(&recipe.tokenizer, std::iter::empty())?
    } else {
        let texts = Texts::open(&recipe.data, Split::Train, None)?;
        let failure = texts.failure();
        let mut bytes = 0;
        let texts = texts.inspect(|text| {
            bytes += text.len() as u64;
            seen(bytes);
        });
        let trained = Tokenizer::train(&recipe.tokenizer, texts);
        failure.take()?;
        trained?
    };
    let soft = soft_tokens(recipe, &tokenizer)?;
    Ok(tokenizer.with_tokens(soft.into_iter().map(|token| token.name))?.with_model_max_length(recipe.batch.max_seq_len))
}

/// The tokens that a soft prompt adds to the vocabulary.
fn soft_tokens(recipe: &Recipe, tokenizer: &Tokenizer) -> Result<Vec<SoftToken>> {
    match &recipe.objective {
        ObjectiveConfig::Prompt(prompt) => Ok(prompt.soft_tokens(tokenizer).map_err(arcuate_objective::Error)?),
        _ => Ok(Vec::new()),
    }
}

/// The corpus of a recipe, tokenised and laid into rows.
pub fn corpus(recipe: &Recipe, tokenizer: &Tokenizer, progress: &Progress<'_>) -> Result<Corpus> {
    if recipe.data.speech.is_some() {
        let network = architecture(recipe, tokenizer.vocab_size(), &[])?;
        let options = SpeechOptions {
            max_frames: recipe.batch.max_seq_len,
            downsampling: network.downsampling().unwrap_or_default(),
            transcripts: matches!(recipe.objective, ObjectiveConfig::Ctc(_)),
            equal_lengths: matches!(
                recipe.objective,
                ObjectiveConfig::Contrastive(_) | ObjectiveConfig::MaskedPrediction(_)
            ) && arcuate_eval::hears_padding(&network),
            units: matches!(recipe.objective, ObjectiveConfig::MaskedPrediction(_)),
        };
        return Ok(Corpus::open_speech(&recipe.data, tokenizer.clone(), &options, progress)?);
    }
    let options = CorpusOptions {
        max_seq_len: recipe.batch.max_seq_len,
        framing: match recipe.objective {
            ObjectiveConfig::NextToken(_) => Framing::CausalLm,
            ObjectiveConfig::Prompt(_) if !matches!(recipe.model, ModelConfig::Bert(_)) => Framing::CausalLm,
            ObjectiveConfig::MaskedLm(_)
            | ObjectiveConfig::Classification(_)
            | ObjectiveConfig::Contrastive(_)
            | ObjectiveConfig::Ctc(_)
            | ObjectiveConfig::Distillation(_)
            | ObjectiveConfig::MaskedPrediction(_)
            | ObjectiveConfig::Prompt(_)
            | ObjectiveConfig::Tagging(_) => Framing::Bert,
        },
        labels: matches!(recipe.objective, ObjectiveConfig::Classification(_) | ObjectiveConfig::Prompt(_)),
        logits: matches!(recipe.objective, ObjectiveConfig::Distillation(_)),
        tags: matches!(recipe.objective, ObjectiveConfig::Tagging(_)),
        prompt: match &recipe.objective {
            ObjectiveConfig::Prompt(prompt) => Some(prompt.clone()),
            _ => None,
        },
    };
    Ok(Corpus::open(&recipe.data, tokenizer, &options, progress)?)
}

/// Rows that an evaluation measures at once: one where padding would change what the network hears of the others.
pub fn evaluation_rows(recipe: &Recipe, network: &Architecture) -> usize {
    if arcuate_eval::hears_padding(network) { 1 } else { recipe.batch.microbatch }
}

/// The token that fills rows; any token will do where the tokenizer has none, because it is never read nor predicted.
pub fn pad_id(tokenizer: &Tokenizer) -> u32 {
    tokenizer.special(SpecialToken::Pad).unwrap_or(0)
}

/// Special tokens for the files of a checkpoint.
pub fn token_ids(tokenizer: &Tokenizer) -> TokenIds {
    TokenIds {
        bos: tokenizer.special(SpecialToken::Bos),
        eos: tokenizer.special(SpecialToken::Eos),
        pad: tokenizer.special(SpecialToken::Pad),
    }
}

/// The objective of a recipe.
pub fn objective(recipe: &Recipe, tokenizer: &Tokenizer) -> Result<Box<dyn Objective>> {
    let size = tokenizer.vocab_size();
    let ids = 0..size as u32;
    let vocabulary = Vocabulary {
        size,
        mask: tokenizer.special(SpecialToken::Mask),
        special: ids.clone().filter(|id| tokenizer.is_special(*id)).collect(),
        starts_word: ids.map(|id| tokenizer.starts_word(id)).collect(),
        words: match &recipe.objective {
            ObjectiveConfig::Prompt(prompt) => prompt.word_ids(tokenizer).map_err(arcuate_objective::Error)?,
            _ => Vec::new(),
        },
        is_causal: !(matches!(recipe.model, ModelConfig::Bert(_)) || recipe.model.is_speech()),
        pad: pad_id(tokenizer),
        num_channels: architecture(recipe, size, &[]).map_or(0, |network| network.hidden_size()),
    };
    Ok(recipe.objective.build(&vocabulary)?)
}

/// Rows of the last map: units of the recordings where these are predicted, otherwise tokens.
fn head_size(recipe: &Recipe, vocab_size: usize) -> Result<usize> {
    let units = recipe.data.speech.as_ref().and_then(|speech| speech.units.as_ref());
    match (&recipe.objective, units) {
        (ObjectiveConfig::MaskedPrediction(_), Some(dir)) => Ok(About::read(dir)?.num_units),
        _ => Ok(vocab_size),
    }
}

/// The architecture of a recipe: what its keys, the tokenizer, the units and the labels fix together.
pub fn architecture(recipe: &Recipe, vocab_size: usize, labels: &[String]) -> Result<Architecture> {
    let head = match &recipe.objective {
        ObjectiveConfig::Distillation(distillation::Config { masked_lm: Some(_), .. }) => {
            Head::ClassesAndTokens(labels.to_vec())
        }
        ObjectiveConfig::Classification(_) | ObjectiveConfig::Distillation(_) => Head::Classes(labels.to_vec()),
        ObjectiveConfig::Tagging(tagging) => Head::Tags { names: labels.to_vec(), crf: tagging.crf },
        ObjectiveConfig::Contrastive(_) => Head::Codes,
        ObjectiveConfig::Ctc(_)
        | ObjectiveConfig::MaskedLm(_)
        | ObjectiveConfig::MaskedPrediction(_)
        | ObjectiveConfig::NextToken(_)
        | ObjectiveConfig::Prompt(_) => Head::Tokens,
    };
    Ok(Architecture::new(&recipe.model, head_size(recipe, vocab_size)?, head)?)
}

/// A fresh network, or one that starts from the weights of another checkpoint.
pub fn network(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    labels: &[String],
    device: &Device,
) -> Result<(Network, Option<Adoption>)> {
    // As when the checkpoint is loaded: a resumed run is to go on in the same way.
    let architecture = architecture(recipe, tokenizer.vocab_size(), labels)?.with_ids(token_ids(tokenizer));
    let network = Network::init(architecture, recipe.seed, device);
    match &recipe.init_from {
        None => Ok((network, None)),
        Some(dir) => {
            let theirs = if dir.join("tokenizer.json").exists() { Some(Tokenizer::load(dir)?) } else { None };
            if recipe.model.is_speech() {
                // A head over characters keeps the rows of those that both have, wherever they stand.
                let tokens = |tokenizer: &Tokenizer| -> Vec<String> {
                    (0..tokenizer.vocab_size() as u32).map(|id| tokenizer.id_to_token(id).unwrap_or_default()).collect()
                };
                // A network that knows no text has a head over units, if any.
                let has_text =
                    |tokenizer: &Tokenizer| (0..tokenizer.vocab_size() as u32).any(|id| !tokenizer.is_special(id));
                let theirs = theirs.filter(|theirs| has_text(theirs) && has_text(tokenizer));
                let common = theirs.as_ref().map(|theirs| common_tokens(&tokens(tokenizer), &tokens(theirs)));
                let vocabulary = arcuate_model::Vocabulary::Other(common.as_deref().unwrap_or_default());
                let (network, adoption) = arcuate_model::start_from(network, dir, vocabulary)?;
                return Ok((network, Some(adoption)));
            }
            let is_theirs = |name: &str| theirs.as_ref().is_some_and(|theirs| theirs.token_to_id(name).is_some());
            let soft = soft_tokens(recipe, tokenizer)?;
            let copies: Vec<(u32, u32)> = soft
                .iter()
                .filter(|token| !is_theirs(&token.name))
                .filter_map(|token| Some((tokenizer.token_to_id(&token.name)?, token.like)))
                .collect();
            let (network, adoption) =
                arcuate_model::start_from(network, dir, arcuate_model::Vocabulary::Same(&copies))?;
            Ok((network, Some(adoption)))
        }
    }
}

/// Findings that need the tokenizer: a network that does not fit into memory, a tokenizer that is not that of `init_from`.
pub fn check_network(
    recipe: &Recipe,
    tokenizer: &Tokenizer,
    labels: &[String],
    memory: Option<u64>,
) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    let architecture = architecture(recipe, tokenizer.vocab_size(), labels)?;
    let parameters = architecture.estimate();
    // Weights, gradients and two moments.
    let needed = 16.0 * parameters;
    if let Some(memory) = memory.filter(|memory| needed > *memory as f64) {
        let message = format!(
            "{parameters:.2e} parameters need {needed:.2e} bytes to train, but {memory:.2e} are free",
            memory = memory as f64
        );
        let path = format!("model.{}", recipe.model.name());
        let help = "make the model smaller: hidden_size, num_layers, vocab_size";
        found.push(Finding::error("recipe::too-large", path, message).help(help));
        return Ok(found);
    }
    found.extend(patterns_of_nothing(recipe, &architecture));
    // A speech network takes the rows of common tokens over.
    let other =
        recipe.init_from.as_ref().filter(|dir| !recipe.model.is_speech() && dir.join("tokenizer.json").exists());
    if let Some(dir) = other {
        let theirs = Tokenizer::load(dir)?;
        let common = theirs.vocab_size().min(tokenizer.vocab_size()) as u32;
        let apart = (0..common).find(|id| theirs.id_to_token(*id) != tokenizer.id_to_token(*id));
        if let Some(id) = apart {
            let name = |t: &Tokenizer| t.id_to_token(id).unwrap_or_default();
            let message = format!(
                "the tokenizer is not that of `init_from`: token {id} is `{}` there and `{}` here",
                name(&theirs),
                name(tokenizer)
            );
            let help = format!("use `[tokenizer.file]` with path = \"{}\"", dir.display());
            found.push(Finding::error("recipe::other-tokenizer", "init_from", message).help(help));
        }
    }
    Ok(found)
}

/// Patterns of parameter names that cover none.
fn patterns_of_nothing(recipe: &Recipe, architecture: &Architecture) -> Vec<Finding> {
    let frozen = recipe.freeze.iter().enumerate().map(|(i, pattern)| (format!("freeze[{i}]"), pattern));
    let waiting =
        recipe.freeze_until.iter().enumerate().map(|(i, until)| (format!("freeze_until[{i}].pattern"), &until.pattern));
    let rules = recipe.learning_rate.iter().enumerate();
    let paced = rules.map(|(i, rule)| (format!("learning_rate[{i}].pattern"), &rule.pattern));
    let patterns: Vec<_> = frozen.chain(waiting).chain(paced).collect();
    if patterns.is_empty() {
        return Vec::new();
    }
    let names: Vec<String> = architecture.parameters().into_iter().map(|info| info.name).collect();
    let example = names.get(names.len() / 2).cloned().unwrap_or_default();
    let covers = |pattern: &str| names.iter().any(|name| arcuate_train::matches(pattern, name));
    let nothing = patterns.into_iter().filter(|(_, pattern)| !covers(pattern));
    nothing
        .map(|(path, pattern)| {
            let message = format!("`{pattern}` covers no parameter of `{}`", recipe.model.name());
            let help = format!("its parameters have names such as `{example}`; `arcuate check` lists their parts");
            Finding::error("recipe::bad-pattern", path, message).help(help)
        })
        .collect()
}

/// Findings that need the corpus.
pub fn check_corpus(recipe: &Recipe, corpus: &Corpus) -> Vec<Finding> {
    let mut found = Vec::new();
    let rows: u64 = (0..corpus.source_names().len()).map(|source| corpus.epoch_rows(source)).sum();
    let batch = recipe.batch.global_batch() as u64;
    if batch > rows {
        let message = format!("one step takes {batch} rows, but the whole corpus has {rows}");
        let help = "lower `microbatch`, `accumulate_steps` or `max_seq_len`, or give more data";
        found.push(Finding::error("recipe::batch-larger-than-corpus", "batch.microbatch", message).help(help));
    }
    if recipe.evaluation.is_some() && corpus.summary().iter().all(|s| s.held_out_documents == 0) {
        let documents: u64 = corpus.summary().iter().map(|s| s.documents).sum();
        let message = format!("none of the {documents} documents is held out, so there is nothing to evaluate");
        let help = if documents < 10 {
            "set `split_at_bytes` of the source to cut long documents, give more of them, or leave out `[evaluation]`"
        } else {
            "raise `held_out_fraction`, give more documents, or leave out `[evaluation]`"
        };
        found.push(Finding::error("recipe::nothing-held-out", "data.held_out_fraction", message).help(help));
    }
    found
}

/// What the loop needs to know.
pub fn settings(recipe: &Recipe, corpus: &Corpus, tokenizer: &Tokenizer, run_dir: &Path) -> Settings {
    Settings {
        seed: recipe.seed,
        compute: compute(recipe),
        batch: recipe.batch.clone(),
        optimizer: recipe.optimizer.clone(),
        schedule: recipe.schedule.clone(),
        horizon: recipe.horizon,
        checkpoint: recipe.checkpoint.clone(),
        guard: recipe.guard.clone(),
        freeze: recipe.freeze.clone(),
        freeze_until: recipe.freeze_until.clone(),
        learning_rate: recipe.learning_rate.clone(),
        evaluate_every_steps: recipe.evaluation.as_ref().map(|e| e.every_steps),
        checkpoints: run_dir.join("checkpoints"),
        run_dir: run_dir.to_path_buf(),
        recipe_hash: recipe_hash(recipe),
        data_fingerprint: corpus.fingerprint().to_string(),
        accept_changed_data: false,
        pad_id: pad_id(tokenizer),
    }
}

/// How microbatches are computed.
pub fn compute(recipe: &Recipe) -> Compute {
    Compute { precision: recipe.precision, activation_checkpointing: recipe.activation_checkpointing }
}

/// A hash of all values of a recipe, whatever its comments and order.
pub fn recipe_hash(recipe: &Recipe) -> String {
    hash(&serde_json::to_string(recipe).expect("a recipe is plain data"))
}

/// A hash of everything that a run depends on: its recipe, the weights it starts from, the tokenizer it is handed.
pub fn inputs(recipe: &Recipe) -> Result<String> {
    let mut text = recipe_hash(recipe);
    if let Some(dir) = &recipe.init_from {
        text += &std::fs::read_to_string(dir.join("manifest.json")).unwrap_or_default();
    }
    if let TokenizerConfig::File(file) = &recipe.tokenizer {
        text += Tokenizer::load(&file.path)?.hash();
    }
    Ok(hash(&text))
}

/// A short hash of a text.
pub fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..32].to_string()
}
