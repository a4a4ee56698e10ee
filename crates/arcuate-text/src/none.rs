//! No text at all: for networks that neither read nor write any, as in pretraining on recordings.
//!
//! # What it computes
//! The vocabulary is `<pad>` and `<unk>`; every text is unknown.
//! # Recipe
//! `[tokenizer.none]` without keys

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Result, Tokenizer, chars};

/// The `[tokenizer.none]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

impl Config {
    pub(crate) fn vocab_size(&self) -> Option<usize> {
        Some(2)
    }

    pub(crate) fn check(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

pub(crate) fn train(_: &Config, _: &mut (dyn Iterator<Item = String> + Send)) -> Result<Tokenizer> {
    chars::without_characters()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SpecialToken, TokenizerConfig};

    #[test]
    fn every_text_is_unknown() {
        let texts = ["never read".to_owned()];
        let tokenizer =
            Tokenizer::train(&TokenizerConfig::None(Config {}), texts.into_iter()).expect("nothing to fail");
        assert_eq!((tokenizer.vocab_size(), tokenizer.special(SpecialToken::Pad)), (2, Some(0)));
        assert_eq!(tokenizer.encode("a").expect("encoded"), [1]);
        let folder = tempfile::tempdir().expect("a folder");
        tokenizer.save(folder.path()).expect("saved");
        assert_eq!(Tokenizer::load(folder.path()).expect("loaded").hash(), tokenizer.hash());
    }
}
