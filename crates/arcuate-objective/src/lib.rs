//! Objectives: (batch, output) to a sum and a count. They own no weights and never divide.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod classification;
pub mod masked_lm;
pub mod next_token;

macro_rules! objectives {
    ($($variant:ident => $module:ident),* $(,)?) => {
        /// The `[objective.<name>]` table; exactly one name per recipe.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ObjectiveConfig {
            $(
                #[doc = concat!("`[objective.", stringify!($module), "]`")]
                $variant($module::Config)
            ),*
        }

        impl ObjectiveConfig {
            /// The names that may follow `objective.` in a recipe.
            pub const NAMES: &[&str] = &[$(stringify!($module)),*];

            /// The name of this choice.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($module)),* }
            }
        }
    };
}

objectives! { Classification => classification, MaskedLm => masked_lm, NextToken => next_token }
