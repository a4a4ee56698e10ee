//! The flags that say how text is found, with those that only transcribing has.

use arcuate_decode::ctc::{CtcDecoderConfig, greedy, prefix_beam};

use crate::{decoder, exit};

/// How text is found.
#[derive(clap::Args, Debug, Clone, Default)]
#[command(next_help_heading = "Decoding")]
pub(super) struct Flags {
    #[command(flatten)]
    search: decoder::SearchFlags,
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
        self.search.check()?;
        if self.nbest == 0 {
            return Err(exit::usage("`--nbest` is 0; it must be at least 1"));
        }
        if self.hot_word.iter().any(|word| word.trim().is_empty()) {
            return Err(exit::usage("a `--hot-word` is empty; give the word"));
        }
        match self.search.search() {
            Some(CtcDecoderConfig::LexiconBeam(_)) if !self.hot_word.is_empty() => {
                Err(exit::usage("`--lexicon` does not take `--hot-word`; leave one of them out"))
            }
            Some(CtcDecoderConfig::LexiconBeam(mut config)) => {
                config.num_hypotheses = self.nbest;
                Ok(CtcDecoderConfig::LexiconBeam(config))
            }
            None if self.hot_word.is_empty() && self.nbest == 1 => Ok(CtcDecoderConfig::Greedy(greedy::Config {})),
            _ => Ok(CtcDecoderConfig::PrefixBeam(self.prefix_beam())),
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

    fn prefix_beam(&self) -> prefix_beam::Config {
        let mut config = self.search.prefix_beam();
        config.num_hypotheses = self.nbest;
        config.hot_words.clone_from(&self.hot_word);
        config
    }
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
        let beam = decoder::SearchFlags { beam: Some(8), ..decoder::SearchFlags::default() };
        let searching = [
            Flags { search: beam, ..flags() },
            Flags { hot_word: vec!["Nora".to_owned()], ..flags() },
            Flags { nbest: 3, ..flags() },
        ];
        for flags in searching {
            assert!(matches!(flags.config(), Ok(CtcDecoderConfig::PrefixBeam(_))), "{flags:?}");
        }
        assert!(matches!(flags().live_config(), Ok(CtcDecoderConfig::PrefixBeam(_))));
    }

    #[test]
    fn a_lexicon_goes_with_readings_but_not_with_hot_words_or_streams() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let lexicon = dir.path().join("words.txt");
        std::fs::write(&lexicon, "").expect("writable");
        let search = decoder::SearchFlags { lexicon: Some(lexicon), ..decoder::SearchFlags::default() };
        let own = Flags { search, nbest: 3, ..flags() };
        let Ok(CtcDecoderConfig::LexiconBeam(config)) = own.config() else { panic!("no lexicon") };
        assert_eq!(config.num_hypotheses, 3);
        assert!(own.live_config().expect_err("no stream").to_string().contains("--stream"));
        let hot = Flags { hot_word: vec!["Nora".to_owned()], ..own };
        assert!(hot.config().expect_err("no hot words").to_string().contains("--hot-word"));
    }

    #[test]
    fn what_cannot_work_is_said_with_its_flag() {
        let message = |flags: Flags| flags.config().expect_err("wrong").to_string();
        assert!(message(Flags { nbest: 0, ..flags() }).contains("--nbest"));
        assert!(message(Flags { hot_word: vec![" ".to_owned()], ..flags() }).contains("--hot-word"));
        let search = decoder::SearchFlags { beam: Some(0), ..decoder::SearchFlags::default() };
        assert!(message(Flags { search, ..flags() }).contains("--beam"));
    }
}
