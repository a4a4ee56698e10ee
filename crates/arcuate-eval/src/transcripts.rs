//! The `[transcripts]` table of a recipe, and the language model that is made of training transcripts.

use std::collections::BTreeMap;
use std::f64::consts::LN_10;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use arcuate_data::speech::SpeechSourceConfig;
use arcuate_decode::ctc::{CtcDecoderConfig, greedy, prefix_beam};
use arcuate_text::ngram::{FALLBACK_DISCOUNTS, TrainConfig, Trained, Unit};
use arcuate_text::{Normaliser, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, lines};

/// Most examples that a report has room for.
const MAX_EXAMPLES: usize = 50;
/// Longest line of a text for a language model.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// `[transcripts]`: how the held-out recordings are transcribed and scored after training. Without the table: the best token of each
/// frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TranscriptsConfig {
    /// How words are found: `[transcripts.decoder.greedy]`, `[transcripts.decoder.prefix_beam]` or
    /// `[transcripts.decoder.lexicon_beam]`. Beside a beam the best token of each frame is always scored too.
    #[serde(default = "default_decoder")]
    pub decoder: CtcDecoderConfig,
    /// Train a language model on the training transcripts and give it to the beam. Left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language_model: Option<NgramConfig>,
    /// The spelling into which both sides are brought before they are compared. Left out: that of the tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalise: Option<Normaliser>,
    /// How many of the best and of the worst utterances the report shows.
    #[serde(default = "default_num_examples")]
    #[schemars(range(max = 50))]
    pub num_examples: usize,
    /// Recordings that are only transcribed after training, all of them: `[transcripts.test.NAME]`, as `[data.speech.source.NAME]`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub test: BTreeMap<String, SpeechSourceConfig>,
}

fn default_decoder() -> CtcDecoderConfig {
    CtcDecoderConfig::Greedy(greedy::Config {})
}

fn default_num_examples() -> usize {
    10
}

impl Default for TranscriptsConfig {
    fn default() -> Self {
        Self {
            decoder: default_decoder(),
            language_model: None,
            normalise: None,
            num_examples: default_num_examples(),
            test: BTreeMap::new(),
        }
    }
}

/// `[transcripts.language_model]`: a modified Kneser-Ney model of the training transcripts; in the run folder it is `lm.arpa`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NgramConfig {
    /// Length of the longest n-grams in words.
    #[schemars(range(min = 1, max = 8))]
    pub order: usize,
    /// By order: n-grams that were seen this often or less are dropped, such as `[0, 0, 1]`. Left out: none is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prune: Vec<u64>,
    /// More texts, plain, `.gz` or `.zst`, a sentence a line. None of them should contain what was said in held-out recordings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<PathBuf>,
    /// Multiplies the natural log-probability of the model.
    pub weight: f64,
    /// Added for every word; above zero it favours more words.
    pub word_score: f64,
    /// Added by the prefix beam for every word that the model does not know.
    #[serde(default = "default_unknown_word_score")]
    pub unknown_word_score: f64,
}

fn default_unknown_word_score() -> f64 {
    -10.0
}

/// A value that cannot work: key inside `[transcripts]`, message, help.
pub type TranscriptsProblem = (String, String, String);

impl TranscriptsConfig {
    /// Everything that is wrong with the values, without reading a file.
    pub fn check(&self) -> Vec<TranscriptsProblem> {
        let mut found: Vec<TranscriptsProblem> = Vec::new();
        let mut report =
            |key: &str, message: String, help: &str| found.push((key.to_owned(), message, help.to_owned()));
        let (name, own_model) = match &self.decoder {
            CtcDecoderConfig::Greedy(_) => ("greedy", false),
            CtcDecoderConfig::LexiconBeam(config) => ("lexicon_beam", config.language_model.is_some()),
            CtcDecoderConfig::PrefixBeam(config) => ("prefix_beam", config.language_model.is_some()),
        };
        if let Err(error) = self.decoder.check() {
            report(&format!("decoder.{name}"), error.to_string(), "`arcuate recipe schema transcripts` lists all keys");
        }
        if let Some(model) = &self.language_model {
            if name == "greedy" {
                let help = "use `[transcripts.decoder.prefix_beam]`, or remove the language model";
                report("language_model", "the greedy decoder uses no language model".to_owned(), help);
            }
            if own_model {
                let message = format!("`[transcripts.decoder.{name}]` has a language model already");
                report("language_model", message, "remove one of them");
            }
            for (key, message) in model.training().check() {
                report(
                    &format!("language_model.{key}"),
                    format!("`{key}` {message}"),
                    "3 and no pruning is a good start",
                );
            }
            let numbers = [
                ("weight", model.weight),
                ("word_score", model.word_score),
                ("unknown_word_score", model.unknown_word_score),
            ];
            for (key, value) in numbers.into_iter().filter(|(_, value)| !value.is_finite()) {
                report(&format!("language_model.{key}"), format!("`{key}` is {value}"), "it must be a finite number");
            }
        }
        if let Some((key, message)) =
            self.normalise.as_ref().and_then(|normaliser| normaliser.check().into_iter().next())
        {
            report(&format!("normalise.{key}"), message, "`'` and `-` are usual");
        }
        if self.num_examples > MAX_EXAMPLES {
            let message = format!("`num_examples` is {}, more than the report has room for", self.num_examples);
            report("num_examples", message, "use at most 50; `transcripts.jsonl` has all");
        }
        for (name, source) in &self.test {
            let own = format!("data.speech.source.{name}.");
            for problem in source.check(name) {
                let key = problem.key.strip_prefix(&own).unwrap_or(&problem.key);
                report(&format!("test.{name}.{key}"), format!("`{key}` {}", problem.message), &problem.help);
            }
        }
        found
    }

    /// The normaliser of both sides: that of the table, of the tokenizer, or none.
    pub fn normaliser(&self, tokenizer: &Tokenizer) -> Normaliser {
        let none = || Normaliser::named("none").expect("a preset");
        self.normalise.clone().or_else(|| tokenizer.normaliser().cloned()).unwrap_or_else(none)
    }

    /// The decoder with the language model that was trained, in the file `arpa`.
    pub fn decoder_with(&self, arpa: Option<&Path>) -> CtcDecoderConfig {
        let mut decoder = self.decoder.clone();
        let (Some(path), Some(model)) = (arpa, &self.language_model) else { return decoder };
        match &mut decoder {
            CtcDecoderConfig::Greedy(_) => {}
            CtcDecoderConfig::LexiconBeam(config) => {
                config.language_model = Some(path.to_owned());
                config.language_model_weight = model.weight * LN_10;
                config.word_score = model.word_score;
            }
            CtcDecoderConfig::PrefixBeam(config) => {
                config.language_model = Some(prefix_beam::LanguageModelConfig {
                    path: path.to_owned(),
                    weight: model.weight,
                    word_score: model.word_score,
                    unknown_word_score: model.unknown_word_score,
                });
            }
        }
        decoder
    }
}

impl NgramConfig {
    fn training(&self) -> TrainConfig {
        TrainConfig {
            order: self.order,
            prune: self.prune.clone(),
            discount_fallback: Some(FALLBACK_DISCOUNTS),
            vocabulary: None,
            unit: Unit::Word,
        }
    }

    /// Trains on transcripts and on the further texts, all as the tokenizer spells them.
    pub fn train(&self, transcripts: impl Iterator<Item = String>, tokenizer: &Tokenizer) -> Result<Trained> {
        let mut failure = None;
        let spelled = |text: &str| tokenizer.normalise(text).replace('|', " ");
        let texts = self.texts.iter().flat_map(|path| -> Box<dyn Iterator<Item = Result<String>>> {
            match text_lines(path) {
                Ok(lines) => Box::new(lines),
                Err(error) => Box::new(std::iter::once(Err(error))),
            }
        });
        let all = transcripts.map(Ok).chain(texts).map_while(|text| match text {
            Ok(text) => Some(spelled(&text)),
            Err(error) => {
                failure = Some(error);
                None
            }
        });
        let trained = Trained::train(&self.training(), all);
        match failure {
            Some(error) => Err(error),
            None => Ok(trained?),
        }
    }
}

/// The lines of a text, each of bounded length.
fn text_lines(path: &Path) -> Result<impl Iterator<Item = Result<String>> + use<>> {
    let mut reader = lines::open(path)?;
    let path = path.to_path_buf();
    let mut line = 0u64;
    Ok(std::iter::from_fn(move || {
        line += 1;
        let mut bytes = Vec::new();
        let problem = |problem: String| Some(Err(Error::Line { path: path.clone(), line, problem }));
        match (&mut reader).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes) {
            Ok(0) => None,
            Ok(_) if bytes.len() as u64 > MAX_LINE_BYTES => {
                problem(format!("the line is longer than {MAX_LINE_BYTES} bytes; write a sentence a line"))
            }
            Ok(_) => match String::from_utf8(bytes) {
                Ok(text) => Some(Ok(text)),
                Err(_) => problem("is not UTF-8; convert the file".to_owned()),
            },
            Err(error) => problem(format!("cannot be read: {error}")),
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn config(value: Value) -> TranscriptsConfig {
        serde_json::from_value(value).expect("typed")
    }

    fn keys(value: Value) -> Vec<String> {
        config(value).check().into_iter().map(|(key, ..)| key).collect()
    }

    fn tokenizer() -> Tokenizer {
        let config = json!({"chars": {"normalise": {"case": "lower", "punctuation": "remove", "digits": "keep"}}});
        let config = serde_json::from_value(config).expect("a tokenizer");
        Tokenizer::train(&config, ["the cat sat on a mat".to_owned()].into_iter()).expect("trains")
    }

    #[test]
    fn an_empty_table_is_the_default_and_sound() {
        assert_eq!(config(json!({})), TranscriptsConfig::default());
        assert_eq!(TranscriptsConfig::default().check(), []);
        assert!(serde_json::from_value::<TranscriptsConfig>(json!({"decode": 1})).is_err());
    }

    #[test]
    fn what_cannot_work_is_found_by_key() {
        let model = json!({"order": 2, "weight": 0.5, "word_score": 1.0});
        assert_eq!(keys(json!({"language_model": model})), ["language_model"]);
        let own = json!({"path": "a.arpa", "weight": 1.0, "word_score": 0.0});
        let twice = json!({"decoder": {"prefix_beam": {"language_model": own}}, "language_model": model});
        assert_eq!(keys(twice), ["language_model"]);
        let wrong = json!({"order": 9, "prune": [1, 0], "weight": 0.5, "word_score": 1.0});
        let wrong = json!({"decoder": {"prefix_beam": {}}, "language_model": wrong});
        assert_eq!(keys(wrong), ["language_model.order", "language_model.prune"]);
        assert_eq!(keys(json!({"decoder": {"prefix_beam": {"beam_width": 0}}})), ["decoder.prefix_beam"]);
        assert_eq!(keys(json!({"num_examples": 51})), ["num_examples"]);
        let test = json!({"test": {"dev": {"weight": -1.0, "format": {"nemo": {"path": ""}}}}});
        assert_eq!(keys(test), ["test.dev.weight", "test.dev.format.nemo.path"]);
    }

    #[test]
    fn the_language_model_reads_transcripts_and_texts_as_the_tokenizer_spells_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let text = dir.path().join("more.txt");
        std::fs::write(&text, "A mat|sat.\n\nThe mat\n").expect("written");
        let model = NgramConfig {
            order: 2,
            prune: Vec::new(),
            texts: vec![text],
            weight: 0.5,
            word_score: 1.0,
            unknown_word_score: -10.0,
        };
        let trained = model.train(["The CAT sat!".to_owned()].into_iter(), &tokenizer()).expect("trains");
        let ngram = trained.to_ngram().expect("can be asked");
        for word in ["the", "cat", "sat", "a", "mat"] {
            assert!(ngram.word(word).is_some(), "{word}");
        }
        assert!(ngram.word("The").is_none() && ngram.word("sat.").is_none());
        let missing = NgramConfig { texts: vec![dir.path().join("none.txt")], ..model };
        assert!(missing.train(std::iter::empty(), &tokenizer()).expect_err("missing").to_string().contains("none.txt"));
    }

    #[test]
    fn a_trained_model_is_given_to_either_beam() {
        let model = json!({"order": 2, "weight": 0.5, "word_score": 1.0});
        let prefix = config(json!({"decoder": {"prefix_beam": {}}, "language_model": model}));
        let CtcDecoderConfig::PrefixBeam(beam) = prefix.decoder_with(Some(Path::new("lm.arpa"))) else { panic!() };
        let own = beam.language_model.expect("a model");
        assert_eq!((own.path.as_path(), own.weight, own.word_score), (Path::new("lm.arpa"), 0.5, 1.0));
        let lexicon = config(json!({"decoder": {"lexicon_beam": {"lexicon": "words"}}, "language_model": model}));
        let CtcDecoderConfig::LexiconBeam(beam) = lexicon.decoder_with(Some(Path::new("lm.arpa"))) else { panic!() };
        assert!((beam.language_model_weight - 0.5 * LN_10).abs() < 1e-12);
    }

    #[test]
    fn scoring_takes_the_spelling_of_the_tokenizer_unless_told_otherwise() {
        assert_eq!(TranscriptsConfig::default().normaliser(&tokenizer()).apply("A, B"), "a b");
        let own = config(json!({"normalise": {"case": "keep", "punctuation": "keep", "digits": "keep"}}));
        assert_eq!(own.normaliser(&tokenizer()).apply("A, B"), "A, B");
    }
}
