//! A recipe: everything that defines one training, in one complete file.

use std::path::PathBuf;

use arcuate_data::DataConfig;
use arcuate_decode::SamplesConfig;
use arcuate_eval::{EvaluationConfig, TranscriptsConfig};
use arcuate_model::ModelConfig;
use arcuate_objective::ObjectiveConfig;
use arcuate_ops::{DeviceKind, Precision};
use arcuate_text::TokenizerConfig;
use arcuate_train::{
    BatchConfig, CheckpointConfig, FreezeUntil, GuardConfig, HorizonConfig, OptimizerConfig, RateRule, ScheduleConfig,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A recipe file: one training. Every table is typed; an unknown key is an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the run and of its folder under `runs/`.
    pub name: String,
    /// Seed of all random streams; the same seed gives the same run.
    pub seed: u64,
    /// Number format of the matrix products in training; `bf16` is faster where the processor has it.
    #[serde(default)]
    pub precision: Precision,
    /// What computes: the processor, or an NVIDIA GPU in a build with the feature `cuda`.
    #[serde(default)]
    pub device: DeviceKind,
    /// Keep only the input of each layer for the backward pass and compute the rest again: less memory, a third more work.
    #[serde(default)]
    pub activation_checkpointing: bool,
    /// Checkpoint folder whose weights the run starts from. Left out: random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
    /// Parameters that are not trained, by name; `*` stands for any characters: `"model.embed_tokens.*"`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze: Vec<String>,
    /// Parameters that are not trained at first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freeze_until: Vec<FreezeUntil>,
    /// Parameters that learn at another rate; of several tables that cover a name the first counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learning_rate: Vec<RateRule>,
    /// How text becomes tokens: `[tokenizer.byte_bpe]` and others.
    pub tokenizer: TokenizerConfig,
    /// Which texts are read, how they are split and packed.
    pub data: DataConfig,
    /// The network: `[model.llama]` and others.
    pub model: ModelConfig,
    /// What is minimised: `[objective.next_token]` and others.
    pub objective: ObjectiveConfig,
    /// What one step of the optimizer sees.
    pub batch: BatchConfig,
    /// How weights are updated: `[optimizer.adamw]` and others.
    pub optimizer: OptimizerConfig,
    /// How the learning rate changes: `[schedule.cosine]` and others.
    pub schedule: ScheduleConfig,
    /// How long the run trains: `steps = 800` or `tokens = 1_000_000`.
    pub horizon: HorizonConfig,
    /// How often the run is saved and which saves are kept.
    pub checkpoint: CheckpointConfig,
    /// How often the held-out part is evaluated. Left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationConfig>,
    /// How a speech recogniser is scored after training. Left out: by the best token of each frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transcripts: Option<TranscriptsConfig>,
    /// Texts that are generated after training. Left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub samples: Option<SamplesConfig>,
    /// When the run skips an update, goes back or stops.
    #[serde(default)]
    pub guard: GuardConfig,
}
