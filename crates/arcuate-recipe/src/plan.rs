//! The plan of a run: parameters, work, memory, disk, data; computed from a recipe, never a key of it.
//!
//! # What it computes
//! Work: `6 N + 12 L T C` floating-point operations a token for N weights that multiply (Kaplan et al. 2020; Chowdhery et
//! al. 2022); a weight of a convolution multiplies C times a token, padding included. Memory: weights, gradients, optimiser state, the tensors that the tape keeps for the backward pass, the
//! logits of a chunk, and what the process needs besides; the parts are counted from what each operation saves.
// C channels, I inner channels, L layers, T tokens a row, V vocabulary

use arcuate_data::{Downsampling, LedgerEntry};
use arcuate_model::{Architecture, ModelConfig, bert};
use arcuate_objective::ObjectiveConfig;
use arcuate_ops::Precision;
use arcuate_ops::linear_cross_entropy::chunk_rows;
use arcuate_train::HorizonConfig;
use serde::Serialize;

use crate::Recipe;

/// Bytes of one number.
const F32: u64 = 4;
/// Program, thread stacks, tokenizer and token cache pages.
const BASE_BYTES: u64 = 70_000_000;
/// Pages that the allocator keeps between buffers of a step, and what preparation left behind.
const UNUSED_BYTES: u64 = 40_000_000;

/// Memory in bytes, as counted and with the room that allocation may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Weights.
    pub weights: u64,
    /// Gradients of one step.
    pub gradients: u64,
    /// What the optimiser remembers.
    pub optimizer: u64,
    /// What the tape keeps of one microbatch, and the largest gradients on the way back.
    pub activations: u64,
    /// The most logits that exist at once; their gradient takes the same place.
    pub logits: u64,
    /// Program, tokenizer, data.
    pub base: u64,
    /// After training: what the comparison with LZMA takes beside the weights.
    pub compressor: u64,
    /// The peak if the allocator gives back everything at once.
    pub low: u64,
    /// The peak to expect.
    pub expected: u64,
    /// The peak if the allocator holds on to what was freed.
    pub high: u64,
}

/// What a run will take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Parameters by part of the network.
    pub parameters: Vec<(String, u64)>,
    /// All parameters.
    pub num_parameters: u64,
    /// Parameters that are trained.
    pub num_trained: u64,
    /// Floating-point operations of a token, forward and backward.
    pub flops_per_token: f64,
    /// The most tokens in one step.
    pub tokens_per_step: u64,
    /// Steps, as far as known without packing.
    pub steps: u64,
    /// Tokens of the whole run.
    pub tokens: u64,
    /// Memory while training.
    pub memory: Memory,
    /// Bytes of one checkpoint.
    pub checkpoint_bytes: u64,
    /// Checkpoints on the disk at once, the one being written included.
    pub num_checkpoints: u64,
    /// Tokens and repeats per source.
    pub sources: Vec<LedgerEntry>,
}

/// The part of the network that a parameter belongs to.
fn part(name: &str) -> String {
    if name.contains("conv_front") {
        return "convolutions".to_string();
    }
    let parts: Vec<&str> = name.split('.').collect();
    let kind = match parts.iter().position(|p| p.parse::<usize>().is_ok()) {
        Some(layer) => parts.get(layer + 1).copied().unwrap_or("layer"),
        None if name.contains("embed") || name.contains("wte") || name.contains("wpe") => "embeddings",
        None if name.contains("head") || name.starts_with("cls") || name.contains("classifier") => "head",
        None if name.contains("pooler") => "head",
        None => "norm",
    };
    match kind {
        "self_attn" | "attn" | "attention" => "attention",
        "mlp" | "intermediate" | "output" => "feed-forward",
        k if k.contains("norm") || k.starts_with("ln_") => "norm",
        other => other,
    }
    .to_string()
}

/// Sizes that decide about activations.
struct Shape {
    c: u64,
    layers: u64,
    /// Numbers that the tape keeps of one token in one layer.
    kept: u64,
    /// Numbers of one token that are alive beside them at the widest point of the way back.
    passing: u64,
}

/// A number that only products read on the way back takes half the place where they compute in bf16.
fn shape(model: &ModelConfig, precision: Precision) -> Shape {
    let u = |n: usize| n as u64;
    let factors = |n: u64| if precision == Precision::Bf16 { n / 2 } else { n };
    let is_bf16 = precision == Precision::Bf16;
    // Maps of one input share it, but round it each for itself.
    let inputs = |maps: u64| if is_bf16 { maps } else { 1 };
    let decoder = |c: usize, layers, heads: usize, kv: Option<usize>, head_dim: Option<usize>, inner: usize| {
        let h = head_dim.unwrap_or(c / heads.max(1));
        let (c, q, kv) = (u(c), u(heads * h), u(kv.unwrap_or(heads) * h));
        // What attention returns is kept by itself, and rounded by the map after it.
        let seen = if is_bf16 { q } else { 0 };
        Shape {
            c,
            layers: u(layers),
            kept: 2 * c + 2 * q + 2 * kv + u(heads) + factors((inputs(3) + 1) * c + seen + 2 * u(inner)),
            passing: 4 * c + 2 * q + 2 * kv,
        }
    };
    let encoder = |c: usize, layers, heads: usize, inner: usize, dropout: f64, maps: u64| {
        let (c, inner) = (u(c), u(inner));
        let masks = if dropout > 0.0 { 2 * c } else { 0 };
        let seen = if is_bf16 { c } else { 0 };
        Shape {
            c,
            layers: u(layers),
            kept: 6 * c + u(heads) + masks + factors((inputs(maps) + 1) * c + seen + inner),
            passing: 6 * c,
        }
    };
    match model {
        ModelConfig::Llama(m) => {
            decoder(m.hidden_size, m.num_layers, m.num_heads, m.num_kv_heads, m.head_dim, m.intermediate_size)
        }
        ModelConfig::Qwen2(m) => {
            decoder(m.hidden_size, m.num_layers, m.num_heads, m.num_kv_heads, None, m.intermediate_size)
        }
        ModelConfig::Gpt2(m) => {
            let inner = m.intermediate_size.unwrap_or(4 * m.hidden_size);
            encoder(m.hidden_size, m.num_layers, m.num_heads, inner, m.dropout, 1)
        }
        ModelConfig::Bert(m) => encoder(m.hidden_size, m.num_layers, m.num_heads, m.intermediate_size, m.dropout, 3),
        ModelConfig::Hubert(m) => encoder(m.hidden_size, m.num_layers, m.num_heads, m.intermediate_size, m.dropout, 3),
        // As if there were a token for every frame; a layer of the decoder has four more maps.
        ModelConfig::Speecht5(m) => {
            let s = encoder(m.hidden_size, m.num_layers, m.num_heads, m.intermediate_size, m.dropout, 3);
            let (layers, heads, inner) = (m.decoder.num_layers, m.decoder.num_heads, m.decoder.intermediate_size);
            let d = encoder(m.hidden_size, layers, heads, inner, m.dropout, 7);
            let kept = (s.layers * s.kept + d.layers * (d.kept + 4 * d.c)) / (s.layers + d.layers).max(1);
            Shape { layers: s.layers + d.layers, kept, ..s }
        }
        ModelConfig::Wav2vec2(m) => {
            encoder(m.hidden_size, m.num_layers, m.num_heads, m.intermediate_size, m.dropout, 3)
        }
        // A second feed-forward layer, and what the convolution reads and gives at each of its steps.
        ModelConfig::Wav2vec2Bert(m) => {
            let s = encoder(m.hidden_size, m.num_layers, m.num_heads, 2 * m.intermediate_size, m.dropout, 3);
            Shape { kept: s.kept + 10 * s.c, ..s }
        }
        ModelConfig::Wav2vec2Conformer(m) => {
            let s = encoder(m.hidden_size, m.num_layers, m.num_heads, 2 * m.intermediate_size, m.dropout, 3);
            Shape { kept: s.kept + 10 * s.c, ..s }
        }
    }
}

/// Convolutions over samples: numbers that the tape keeps of one frame, and those alive beside them on the way back.
fn sound_front(model: &ModelConfig, downsampling: Option<&Downsampling>) -> (u64, u64) {
    let channels = match model {
        ModelConfig::Hubert(m) => m.conv_channels,
        ModelConfig::Speecht5(m) => m.conv_channels,
        ModelConfig::Wav2vec2(m) => m.conv_channels,
        ModelConfig::Wav2vec2Conformer(m) => m.conv_channels,
        _ => return (0, 0),
    } as u64;
    let Some(downsampling) = downsampling else { return (0, 0) };
    // Places of each layer that one frame comes from.
    let mut places = downsampling.hop() as u64;
    let mut all = 0;
    let mut widest = 0;
    for (_, stride) in &downsampling.layers {
        places /= (*stride as u64).max(1);
        all += places;
        widest = widest.max(places);
    }
    // What each convolution, norm and activation reads; the first layer is the widest.
    (3 * all * channels, 2 * widest * channels)
}

/// Convolutions before the encoder: numbers that the tape keeps of one row, and those alive beside them on the way back.
fn front(model: &ModelConfig) -> (u64, u64) {
    let ModelConfig::Bert(bert::Config { conv_front: Some(front), hidden_size, max_seq_len, .. }) = model else {
        return (0, 0);
    };
    let (pixels, channels) = (*hidden_size as u64 * *max_seq_len as u64, front.channels as u64);
    // What each convolution reads and gives; norm and GELU come from that again.
    (pixels * (2 * front.num_layers as u64 * channels + 3), 2 * pixels * channels)
}

/// Share of the tokens that are predicted.
fn predicted_share(objective: &ObjectiveConfig) -> f64 {
    match objective {
        ObjectiveConfig::NextToken(_) => 1.0,
        ObjectiveConfig::MaskedLm(m) => m.mask_fraction,
        ObjectiveConfig::Distillation(d) => d.masked_lm.as_ref().map_or(0.0, |m| m.mask_fraction),
        // Of each word its first token.
        ObjectiveConfig::Tagging(_) => 1.0,
        // Frames of hidden spans; all frames.
        ObjectiveConfig::Contrastive(_) | ObjectiveConfig::MaskedPrediction(_) => 0.5,
        ObjectiveConfig::Ctc(_) => 1.0,
        ObjectiveConfig::Classification(_) | ObjectiveConfig::Prompt(_) => 0.0,
    }
}

/// The plan of a recipe for a network; `ledger` says what each source would give for a number of tokens.
///
/// `text_bytes` is the size of all texts, which the comparison with LZMA reads.
pub fn plan(
    recipe: &Recipe,
    architecture: &Architecture,
    text_bytes: u64,
    ledger: impl Fn(u64) -> Vec<LedgerEntry>,
) -> Plan {
    let infos: Vec<_> = architecture.parameters().into_iter().filter(|info| !info.is_buffer()).collect();
    let mut parameters: Vec<(String, u64)> = Vec::new();
    let (mut num_parameters, mut num_trained, mut largest, mut moments) = (0, 0, 0, 0);
    for info in &infos {
        let (name, len) = (part(&info.name), info.len() as u64);
        num_parameters += len;
        largest = largest.max(len);
        if !recipe.freeze.iter().any(|pattern| arcuate_train::matches(pattern, &info.name)) {
            num_trained += len;
            moments += len * recipe.optimizer.num_moments(&info.name, &info.shape);
        }
        match parameters.iter_mut().find(|(other, _)| *other == name) {
            Some((_, sum)) => *sum += len,
            None => parameters.push((name, len)),
        }
    }
    let s = shape(&recipe.model, recipe.precision);
    let flops_per_token = 3.0 * architecture.forward_flops(recipe.batch.max_seq_len);
    let tokens_per_step = recipe.batch.tokens_per_step() as u64;
    let (steps, tokens) = match recipe.horizon {
        HorizonConfig::Steps(steps) => (steps, steps.saturating_mul(tokens_per_step)),
        HorizonConfig::Tokens(tokens) => (tokens.div_ceil(tokens_per_step.max(1)), tokens),
    };
    let rows = recipe.batch.microbatch as u64;
    let micro = recipe.batch.positions_per_pass() as u64;
    let weights = num_parameters * F32;
    let gradients = num_trained * F32 * if recipe.batch.accumulate_steps > 1 { 2 } else { 1 };
    let kept = if recipe.activation_checkpointing { s.layers * s.c + s.kept } else { s.layers * s.kept };
    let (front_kept, front_passing) = front(&recipe.model);
    let (sound_kept, sound_passing) = sound_front(&recipe.model, architecture.downsampling().as_ref());
    let activations = F32 * (micro * (kept + 3 * s.c + sound_kept) + rows * front_kept);
    let passing = F32 * (micro * s.passing).max(rows * front_passing).max(micro * sound_passing);
    let width = architecture.labels().map_or(architecture.vocab_size(), <[String]>::len) as u64;
    let predicted = (micro as f64 * predicted_share(&recipe.objective)) as usize;
    let logits = F32 * width * predicted.min(chunk_rows(predicted, width as usize)) as u64;
    // The gradient of the last projection is made together with the loss.
    let head = F32 * width * s.c;
    let optimizer = moments * F32;
    let held = weights + optimizer + BASE_BYTES;
    // The tape is fullest when the loss is made; gradients are complete when it is empty.
    let forward = activations + passing + head + logits;
    let backward = gradients + passing;
    let compressor = match &recipe.evaluation {
        Some(e) if e.compare_with_lzma => arcuate_eval::lzma_memory(text_bytes),
        _ => 0,
    };
    let low = held + (activations + head + logits).max(gradients).max(compressor);
    // Freed pages are kept from step to step, so buffers of one kind do not make room for all of another; before the
    // compressor begins they are given back.
    let expected = held + (forward.max(backward) + gradients + UNUSED_BYTES).max(compressor);
    let high = held + (forward + gradients + passing + 2 * largest * F32).max(compressor) + expected / 5;
    Plan {
        parameters,
        num_parameters,
        num_trained,
        flops_per_token,
        tokens_per_step,
        steps,
        tokens,
        memory: Memory {
            weights,
            gradients,
            optimizer,
            activations: activations + passing,
            logits,
            base: BASE_BYTES,
            compressor,
            low,
            expected,
            high,
        },
        checkpoint_bytes: weights + optimizer + 64 * architecture.vocab_size() as u64,
        num_checkpoints: num_checkpoints(recipe, steps),
        sources: ledger(tokens),
    }
}

fn num_checkpoints(recipe: &Recipe, steps: u64) -> u64 {
    let saves = steps.div_ceil(recipe.checkpoint.every_steps.max(1)).max(1);
    let kept = recipe.checkpoint.keep_every_steps.map_or(0, |every| steps / every.max(1));
    (recipe.checkpoint.keep_last as u64 + 1 + kept).min(saves) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bert_text, read};

    #[test]
    fn parameters_fall_into_parts() {
        for (name, wanted) in [
            ("model.embed_tokens.weight", "embeddings"),
            ("model.layers.0.self_attn.q_proj.weight", "attention"),
            ("model.layers.10.mlp.up_proj.weight", "feed-forward"),
            ("model.layers.1.input_layernorm.weight", "norm"),
            ("model.norm.weight", "norm"),
            ("lm_head.weight", "head"),
            ("transformer.wpe.weight", "embeddings"),
            ("transformer.h.0.attn.c_attn.weight", "attention"),
            ("transformer.h.0.ln_1.weight", "norm"),
            ("bert.encoder.layer.0.intermediate.dense.weight", "feed-forward"),
            ("bert.pooler.dense.weight", "head"),
            ("cls.predictions.bias", "head"),
            ("classifier.weight", "head"),
            ("bert.conv_front.layer.0.conv.weight", "convolutions"),
        ] {
            assert_eq!(part(name), wanted, "{name}");
        }
    }

    #[test]
    fn convolutions_are_few_parameters_and_much_work() {
        let front = "[model.bert.conv_front]\nnum_layers = 2\nkernel = [3, 3]\nchannels = 64\n[objective";
        let sizes = bert_text().replace("best_fit", "document").replace("hidden_size = 64", "hidden_size = 768");
        let of = |text: &str| {
            let recipe = read(text);
            let architecture = crate::build::architecture(&recipe, 30_522, &[]).expect("possible");
            plan(&recipe, &architecture, 0, |_| Vec::new())
        };
        let without = of(&sizes);
        let with = of(&sizes.replacen("[objective", front, 1));
        assert_eq!(with.num_parameters - without.num_parameters, 37_891);
        assert!(with.parameters.contains(&("convolutions".to_string(), 37_891)));
        assert_eq!(with.num_trained, with.num_parameters);
        // 28.8 million multiplications a token of the model, which holds 128 where the rows have 64.
        let more = (with.flops_per_token - without.flops_per_token) / 6.0 - 37_891.0;
        assert!((more / 2.0 / 28.8e6 - 1.0).abs() < 0.01, "{more}");
        // Two rows, two layers of an image of 128 x 768 with 64 channels: what goes in and what comes out.
        let images = (2 * 2 * 128 * 768 * 64 * 4 * 2) as f64;
        let memory = (with.memory.activations - without.memory.activations) as f64;
        assert!((1.0..1.6).contains(&(memory / images)), "{}", memory / images);
    }
}
