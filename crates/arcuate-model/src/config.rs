//! The `[model.<architecture>]` table of a recipe: exactly one architecture.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{bert, gpt2, llama, qwen2};

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

models! { Bert => bert, Gpt2 => gpt2, Llama => llama, Qwen2 => qwen2 }
