//! The `[model.<architecture>]` table of a recipe: exactly one architecture.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{bert, gpt2, hubert, llama, qwen2, speecht5, wav2vec2, wav2vec2_bert, wav2vec2_conformer};

macro_rules! models {
    ($($variant:ident => $module:ident),* $(,)?) => {
        /// The `[model.<name>]` table; exactly one name per recipe.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ModelConfig {
            $(
                #[doc = concat!("`[model.", stringify!($module), "]`")]
                $variant($module::Config)
            ),*
        }

        impl ModelConfig {
            /// The names that may follow `model.` in a recipe.
            pub const NAMES: &[&str] = &[$(stringify!($module)),*];

            /// The name of this choice.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($module)),* }
            }
        }
    };
}

models! {
    Bert => bert,
    Gpt2 => gpt2,
    Hubert => hubert,
    Llama => llama,
    Qwen2 => qwen2,
    Speecht5 => speecht5,
    Wav2vec2 => wav2vec2,
    Wav2vec2Bert => wav2vec2_bert,
    Wav2vec2Conformer => wav2vec2_conformer,
}

impl ModelConfig {
    /// Whether the network hears sound instead of reading text.
    pub fn is_speech(&self) -> bool {
        match self {
            Self::Bert(_) | Self::Gpt2(_) | Self::Llama(_) | Self::Qwen2(_) => false,
            Self::Hubert(_)
            | Self::Speecht5(_)
            | Self::Wav2vec2(_)
            | Self::Wav2vec2Bert(_)
            | Self::Wav2vec2Conformer(_) => true,
        }
    }
}
