//! The flags that say how text is found in what a CTC network hears, for every command that does so.

use std::path::PathBuf;
use std::sync::Arc;

use arcuate_decode::ctc::{Alphabet, CtcDecoder, CtcDecoderConfig, lexicon_beam, prefix_beam};

use crate::exit;

/// Weight and word score of a language model that the user gave none for, as pyctcdecode has them.
const LM_WEIGHT: f64 = 0.5;
const WORD_SCORE: f64 = 1.5;
const UNKNOWN_WORD_SCORE: f64 = -10.0;

/// How text is found.
// Groups of flags in one command need types of different names.
#[derive(clap::Args, Debug, Clone, Default)]
#[command(next_help_heading = "Decoding")]
pub(crate) struct SearchFlags {
    /// N-gram language model over words: ARPA, plain or compressed, or a KenLM binary.
    #[arg(long, value_name = "FILE")]
    pub lm: Option<PathBuf>,
    /// Weight of the language model [default: 0.5; with `--lexicon`, on log10 probabilities, 2].
    #[arg(long, value_name = "X", requires = "lm", allow_negative_numbers = true)]
    pub lm_weight: Option<f64>,
    /// Added for every word; above 0 it favours more words [default: 1.5 with `--lm`, 0 with `--lexicon`].
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub word_score: Option<f64>,
    /// Texts that are followed at once in a beam search [default: 100; with `--lexicon` 50; without an LM: no search].
    #[arg(long, value_name = "N")]
    pub beam: Option<usize>,
    /// Write only words of this list, one a line, each perhaps with its tokens behind it.
    #[arg(long, value_name = "FILE")]
    pub lexicon: Option<PathBuf>,
}

impl SearchFlags {
    /// Refuses what cannot work, before anything is loaded.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for (flag, file) in [("--lm", &self.lm), ("--lexicon", &self.lexicon)] {
            if let Some(file) = file.as_deref().filter(|file| !file.is_file()) {
                return Err(exit::usage(format!("`{flag} {}`: there is no such file", file.display())));
            }
        }
        if self.beam == Some(0) {
            return Err(exit::usage("`--beam` is 0; it must be at least 1"));
        }
        if self.lm.is_none() && self.lexicon.is_none() && self.word_score.is_some() {
            return Err(exit::usage("`--word-score` needs `--lm` or `--lexicon`"));
        }
        Ok(())
    }

    /// The search that the flags ask for; none if none of them asks for one.
    pub(crate) fn search(&self) -> Option<CtcDecoderConfig> {
        if let Some(lexicon) = &self.lexicon {
            let mut config = lexicon_beam::Config::new(lexicon.clone());
            config.language_model.clone_from(&self.lm);
            config.language_model_weight = self.lm_weight.unwrap_or(config.language_model_weight);
            config.word_score = self.word_score.unwrap_or(config.word_score);
            config.beam_width = self.beam.unwrap_or(config.beam_width);
            return Some(CtcDecoderConfig::LexiconBeam(config));
        }
        (self.lm.is_some() || self.beam.is_some()).then(|| CtcDecoderConfig::PrefixBeam(self.prefix_beam()))
    }

    /// The search without a lexicon.
    pub(crate) fn prefix_beam(&self) -> prefix_beam::Config {
        let mut config = prefix_beam::Config::default();
        config.language_model = self.lm.as_ref().map(|path| prefix_beam::LanguageModelConfig {
            path: path.clone(),
            weight: self.lm_weight.unwrap_or(LM_WEIGHT),
            word_score: self.word_score.unwrap_or(WORD_SCORE),
            unknown_word_score: UNKNOWN_WORD_SCORE,
        });
        config.beam_width = self.beam.unwrap_or(config.beam_width);
        config
    }
}

/// Reads the files; an error of theirs says which it is.
pub(crate) fn load(config: &CtcDecoderConfig, alphabet: &Arc<Alphabet>) -> anyhow::Result<CtcDecoder> {
    CtcDecoder::load(config, Arc::clone(alphabet)).map_err(usage)
}

/// A wrong value is a mistake of the user.
pub(crate) fn usage(error: arcuate_decode::Error) -> anyhow::Error {
    match error {
        arcuate_decode::Error::Config { key, problem } => exit::usage(format!("decoding: `{key}` {problem}")),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_made_only_where_a_flag_asks_for_one() {
        assert_eq!(SearchFlags::default().search(), None);
        let beam = SearchFlags { beam: Some(7), ..SearchFlags::default() };
        let Some(CtcDecoderConfig::PrefixBeam(config)) = beam.search() else { panic!("no beam") };
        assert_eq!((config.beam_width, config.language_model), (7, None));
    }

    #[test]
    fn a_language_model_brings_published_weights() {
        let lm = SearchFlags { lm: Some("a.arpa".into()), lm_weight: Some(0.9), ..SearchFlags::default() };
        let Some(CtcDecoderConfig::PrefixBeam(config)) = lm.search() else { panic!("no beam") };
        assert_eq!(config.language_model.map(|model| (model.weight, model.word_score)), Some((0.9, 1.5)));
        let lexicon = SearchFlags { lexicon: Some("words".into()), lm_weight: None, ..lm };
        let Some(CtcDecoderConfig::LexiconBeam(config)) = lexicon.search() else { panic!("no lexicon") };
        assert_eq!((config.language_model_weight, config.word_score), (2.0, 0.0));
    }

    #[test]
    fn flags_that_cannot_work_are_refused() {
        let message = |flags: SearchFlags| flags.check().expect_err("wrong").to_string();
        assert!(
            message(SearchFlags { lm: Some("none.arpa".into()), ..SearchFlags::default() }).contains("--lm none.arpa")
        );
        assert!(message(SearchFlags { beam: Some(0), ..SearchFlags::default() }).contains("`--beam`"));
        assert!(message(SearchFlags { word_score: Some(1.0), ..SearchFlags::default() }).contains("`--word-score`"));
    }
}
