//! Tokenizers (training, loading, saving, looking at how text is cut), normalisers of transcripts, transcripts as files, n-gram language
//! models. Knows no tensors.
//!
//! A tokenizer is chosen in a recipe by the name of its table, `[tokenizer.byte_bpe]` and so on; each name
//! is one file here. Whatever its origin, it becomes a [`Tokenizer`]: the public `tokenizer.json` layout,
//! a content hash, special tokens by role.

mod byte_level;
mod count;
mod error;
mod inspect;
mod layout;
mod merge;
mod normalise;
mod special;
mod stream;
mod tokenizer;

pub mod byte_bpe;
pub mod chars;
pub mod file;
pub mod lexicon;
pub mod ngram;
pub mod none;
pub mod transcript;
pub mod unigram;
pub mod wordpiece;

pub use byte_level::PreTokenizer;
pub use chars::unknown_characters;
pub use error::{Error, Result};
pub use inspect::{InspectedToken, Inspection};
pub use lexicon::Lexicon;
pub use ngram::Ngram;
pub use normalise::{Case, Keep, Normaliser, UnicodeForm};
pub use special::SpecialToken;
pub use stream::DecodeStream;
pub use tokenizer::Tokenizer;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! tokenizers {
    ($($variant:ident => $module:ident),* $(,)?) => {
        /// The `[tokenizer.<name>]` table; exactly one name per recipe.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum TokenizerConfig {
            $(
                #[doc = concat!("`[tokenizer.", stringify!($module), "]`")]
                $variant($module::Config),
            )*
        }

        impl TokenizerConfig {
            /// The names of all tokenizers, as they stand in a recipe.
            pub const NAMES: &[&str] = &[$(stringify!($module)),*];

            /// The name of the chosen tokenizer, as it stands in a recipe.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($module)),* }
            }

            /// The size of the vocabulary that was asked for; `None` where only loading tells.
            pub fn vocab_size(&self) -> Option<usize> {
                match self { $(Self::$variant(config) => config.vocab_size()),* }
            }

            /// Everything that is wrong with the values, as (key inside the table, message), without reading any text.
            pub fn check(&self) -> Vec<(&'static str, String)> {
                match self { $(Self::$variant(config) => config.check()),* }
            }

            pub(crate) fn train(&self, texts: &mut (dyn Iterator<Item = String> + Send)) -> Result<Tokenizer> {
                if let Some((key, message)) = self.check().into_iter().next() {
                    return Err(Error::Config { table: self.name(), key, message });
                }
                match self { $(Self::$variant(config) => $module::train(config, texts)),* }
            }
        }
    };
}

tokenizers! { ByteBpe => byte_bpe, Chars => chars, File => file, None => none, Unigram => unigram, Wordpiece => wordpiece }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_match_the_tables() {
        let mut sorted = TokenizerConfig::NAMES.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, TokenizerConfig::NAMES);
        let config = TokenizerConfig::Wordpiece(wordpiece::Config::new(100));
        let value = serde_json::to_value(&config).expect("a config is plain data");
        assert!(value.get(config.name()).is_some(), "{value}");
    }

    #[test]
    fn a_vocabulary_size_is_enough_of_a_recipe() {
        for name in ["byte_bpe", "unigram", "wordpiece"] {
            let config: TokenizerConfig =
                serde_json::from_str(&format!("{{\"{name}\": {{\"vocab_size\": 700}}}}")).expect(name);
            assert_eq!(config.name(), name);
            assert_eq!(config.vocab_size(), Some(700));
            assert_eq!(config.check(), vec![]);
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let wrong = serde_json::from_str::<TokenizerConfig>(r#"{"byte_bpe": {"vocab_sise": 700}}"#);
        assert!(wrong.expect_err("misspelt").to_string().contains("vocab_sise"));
    }
}
