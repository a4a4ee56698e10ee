//! Muon: matrices move along an orthogonalised running mean; everything else is left to AdamW.
//!
//! # What it computes
//! For the matrices inside the blocks: a Nesterov running mean of the gradient, made nearly orthogonal by Newton-Schulz
//! iterations, times the rate. Embeddings, the output head and vectors take AdamW steps with their own rate.
//! # Recipe
//! `[optimizer.muon]` with `peak_learning_rate` (matrices), `adamw_learning_rate` (the rest), `weight_decay`, optional
//! `momentum`, `beta1`, `beta2`, `epsilon`, `max_grad_norm`
//! # Reference
//! Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks

use arcuate_ops::newton_schulz::{MuonStep, muon};
use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NumberChecks, Update, adamw, start};

/// `[optimizer.muon]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Largest learning rate of the matrices; the schedule multiplies it.
    #[schemars(range(min = 0.0))]
    pub peak_learning_rate: f64,
    /// Decay rate of the running mean of the matrices' gradients.
    #[serde(default = "momentum")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub momentum: f64,
    /// Largest learning rate of embeddings, output head and vectors; the schedule multiplies it too.
    #[schemars(range(min = 0.0))]
    pub adamw_learning_rate: f64,
    /// Decay rate of AdamW's running mean of gradients.
    #[serde(default = "beta1")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub beta1: f64,
    /// Decay rate of AdamW's running mean of squared gradients.
    #[serde(default = "beta2")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub beta2: f64,
    /// Added to the root of AdamW's squares, against division by nothing.
    #[serde(default = "epsilon")]
    #[schemars(range(min = 0.0))]
    pub epsilon: f64,
    /// Part of each weight, times its learning rate, that a step takes away. Matrices only; 0 takes nothing.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// Gradients whose norm over all parameters is larger are scaled down to it. Left out: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: Option<f64>,
}

impl Config {
    /// Values that no run can use, each with its key.
    pub(crate) fn check(&self) -> Vec<(&'static str, String)> {
        NumberChecks::default()
            .positive("peak_learning_rate", self.peak_learning_rate)
            .beta("momentum", self.momentum)
            .positive("adamw_learning_rate", self.adamw_learning_rate)
            .beta("beta1", self.beta1)
            .beta("beta2", self.beta2)
            .positive("epsilon", self.epsilon)
            .not_negative("weight_decay", self.weight_decay)
            .limit("max_grad_norm", self.max_grad_norm)
            .done()
    }
}

/// Whether a tensor is a matrix inside the blocks; tables, heads and vectors are not.
pub(crate) fn is_hidden_matrix(name: &str, shape: &[usize]) -> bool {
    let outer = ["embed", "wte", "wpe", "lm_head", "classifier", "pooler", "cls.", "crf."];
    shape.len() == 2 && !outer.iter().any(|part| name.contains(part))
}

pub(crate) fn update(
    config: &Config,
    update: &Update,
    weight: Tensor<1>,
    grad: Tensor<1>,
    moments: Vec<Tensor<1>>,
) -> (Tensor<1>, Vec<Tensor<1>>) {
    if !is_hidden_matrix(update.name, update.shape) {
        let config = adamw::Config {
            peak_learning_rate: config.adamw_learning_rate,
            beta1: config.beta1,
            beta2: config.beta2,
            epsilon: config.epsilon,
            weight_decay: config.weight_decay,
            max_grad_norm: None,
        };
        return adamw::update(&config, update, weight, grad, moments);
    }
    let how = MuonStep {
        learning_rate: config.peak_learning_rate * update.rate_factor,
        momentum: config.momentum,
        weight_decay: config.weight_decay,
        grad_scale: update.grad_scale,
    };
    let [mean] = start(moments, &weight);
    let (weight, mean) = muon([update.shape[0], update.shape[1]], weight, grad, mean, &how);
    (weight, vec![mean])
}

fn momentum() -> f64 {
    0.95
}

fn beta1() -> f64 {
    0.9
}

fn beta2() -> f64 {
    0.95
}

fn epsilon() -> f64 {
    1e-8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_heads_are_left_to_adamw() {
        assert!(is_hidden_matrix("model.layers.0.mlp.up_proj.weight", &[4, 4]));
        for name in ["model.embed_tokens.weight", "lm_head.weight", "transformer.wpe.weight"] {
            assert!(!is_hidden_matrix(name, &[4, 4]));
        }
        assert!(!is_hidden_matrix("model.norm.weight", &[4]));
    }
}
