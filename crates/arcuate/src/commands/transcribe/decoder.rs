//! The flags that say how text is found in what the network hears.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arcuate_decode::ctc::{Alphabet, CtcDecoder, CtcDecoderConfig, greedy, lexicon_beam, prefix_beam};

use crate::exit;

/// Weight and word score of a language model that the user gave none for, as pyctcdecode has them.
const LM_WEIGHT: f64 = 0.5;
const WORD_SCORE: f64 = 1.5;

/// How text is found.
#[derive(clap::Args, Debug, Clone, Default)]
#[command(next_help_heading = "Decoding")]
pub(super) struct Flags {
    /// N-gram language model over words: ARPA, plain or compressed, or a KenLM binary.
    #[arg(long, value_name = "FILE")]
    lm: Option<PathBuf>,
    /// Weight of the language model [default: 0.5; with `--lexicon`, on log10 probabilities, 2].
    #[arg(long, value_name = "X", requires = "lm", allow_negative_numbers = true)]
    lm_weight: Option<f64>,
    /// Added for every word; above 0 it favours more words [default: 1.5 with `--lm`, 0 with `--lexicon`].
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    word_score: Option<f64>,
    /// Texts that are followed at once in a beam search [default: 100; with `--lexicon` 50; without an LM: no search].
    #[arg(long, value_name = "N")]
    beam: Option<usize>,
    /// Write only words of this list, one a line, each perhaps with its tokens behind it.
    #[arg(long, value_name = "FILE")]
    lexicon: Option<PathBuf>,
    /// A word to expect, such as a name; may be repeated.
    #[arg(long, value_name = "WORD")]
    hot_word: Vec<String>,
    /// Readings of each stretch of speech, with scores, in the JSON format.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub nbest: usize,
}

impl Flags {
    /// What the flags ask for: the best token of each frame unless one of them needs a search.
    pub(super) fn config(&self) -> anyhow::Result<CtcDecoderConfig> {
        for (flag, file) in [("--lm", &self.lm), ("--lexicon", &self.lexicon)] {
            if let Some(file) = file.as_deref().filter(|file| !file.is_file()) {
                return Err(exit::usage(format!("`{flag} {}`: there is no such file", file.display())));
            }
        }
        for (flag, number) in [("--beam", self.beam.unwrap_or(1)), ("--nbest", self.nbest)] {
            if number == 0 {
                return Err(exit::usage(format!("`{flag}` is 0; it must be at least 1")));
            }
        }
        if self.hot_word.iter().any(|word| word.trim().is_empty()) {
            return Err(exit::usage("a `--hot-word` is empty; give the word"));
        }
        if self.lm.is_none() && self.lexicon.is_none() && self.word_score.is_some() {
            return Err(exit::usage("`--word-score` needs `--lm` or `--lexicon`"));
        }
        match &self.lexicon {
            Some(lexicon) => self.lexicon_beam(lexicon),
            None if self.lm.is_none() && self.beam.is_none() && self.hot_word.is_empty() && self.nbest == 1 => {
                Ok(CtcDecoderConfig::Greedy(greedy::Config {}))
            }
            None => Ok(CtcDecoderConfig::PrefixBeam(self.prefix_beam())),
        }
    }

    /// The same for decoding while one listens, which is always a search.
    pub(super) fn live_config(&self) -> anyhow::Result<CtcDecoderConfig> {
        match self.config()? {
            CtcDecoderConfig::LexiconBeam(_) => {
                Err(exit::usage("`--stream` does not take `--lexicon`; leave one of them out"))
            }
            _ => Ok(CtcDecoderConfig::PrefixBeam(self.prefix_beam())),
        }
    }

    fn lexicon_beam(&self, lexicon: &Path) -> anyhow::Result<CtcDecoderConfig> {
        if !self.hot_word.is_empty() {
            return Err(exit::usage("`--lexicon` does not take `--hot-word`; leave one of them out"));
        }
        let mut config = lexicon_beam::Config::new(lexicon.to_owned());
        config.language_model = self.lm.clone();
        config.language_model_weight = self.lm_weight.unwrap_or(config.language_model_weight);
        config.word_score = self.word_score.unwrap_or(config.word_score);
        config.beam_width = self.beam.unwrap_or(config.beam_width);
        config.num_hypotheses = self.nbest;
        Ok(CtcDecoderConfig::LexiconBeam(config))
    }

    fn prefix_beam(&self) -> prefix_beam::Config {
        let mut config = prefix_beam::Config::default();
        config.language_model = self.lm.as_ref().map(|path| prefix_beam::LanguageModelConfig {
            path: path.clone(),
            weight: self.lm_weight.unwrap_or(LM_WEIGHT),
            word_score: self.word_score.unwrap_or(WORD_SCORE),
            unknown_word_score: -10.0,
        });
        config.beam_width = self.beam.unwrap_or(config.beam_width);
        config.num_hypotheses = self.nbest;
        config.hot_words.clone_from(&self.hot_word);
        config
    }
}

/// Reads the files; an error of theirs says which it is.
pub(super) fn load(config: &CtcDecoderConfig, alphabet: &Arc<Alphabet>) -> anyhow::Result<CtcDecoder> {
    CtcDecoder::load(config, Arc::clone(alphabet)).map_err(|error| match error {
        arcuate_decode::Error::Config { key, problem } => exit::usage(format!("decoding: `{key}` {problem}")),
        other => other.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags { nbest: 1, ..Flags::default() }
    }

    #[test]
    fn a_search_is_made_only_where_a_flag_needs_one() {
        assert!(matches!(flags().config(), Ok(CtcDecoderConfig::Greedy(_))));
        let searching = [
            Flags { beam: Some(8), ..flags() },
            Flags { hot_word: vec!["Nora".to_owned()], ..flags() },
            Flags { nbest: 3, ..flags() },
        ];
        for flags in searching {
            assert!(matches!(flags.config(), Ok(CtcDecoderConfig::PrefixBeam(_))), "{flags:?}");
        }
        assert!(matches!(flags().live_config(), Ok(CtcDecoderConfig::PrefixBeam(_))));
    }

    #[test]
    fn a_language_model_brings_published_weights() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let lm = dir.path().join("lm.arpa");
        std::fs::write(&lm, "").expect("writable");
        let own = Flags { lm: Some(lm.clone()), lm_weight: Some(0.9), ..flags() };
        let Ok(CtcDecoderConfig::PrefixBeam(config)) = own.config() else { panic!("no beam") };
        let model = config.language_model.expect("a model");
        assert_eq!((model.weight, model.word_score), (0.9, 1.5));
        let with_lexicon = Flags { lexicon: Some(lm), lm_weight: None, ..own };
        let Ok(CtcDecoderConfig::LexiconBeam(config)) = with_lexicon.config() else { panic!("no lexicon") };
        assert_eq!((config.language_model_weight, config.word_score), (2.0, 0.0));
        assert!(with_lexicon.live_config().expect_err("no stream").to_string().contains("--stream"));
    }

    #[test]
    fn what_cannot_work_is_said_with_its_flag() {
        let message = |flags: Flags| flags.config().expect_err("wrong").to_string();
        assert!(message(Flags { lm: Some("absent.arpa".into()), ..flags() }).contains("--lm absent.arpa"));
        assert!(message(Flags { beam: Some(0), ..flags() }).contains("--beam"));
        assert!(message(Flags { nbest: 0, ..flags() }).contains("--nbest"));
        assert!(message(Flags { word_score: Some(1.0), ..flags() }).contains("--word-score"));
        assert!(message(Flags { hot_word: vec![" ".to_owned()], ..flags() }).contains("--hot-word"));
    }
}
