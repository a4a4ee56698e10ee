//! AdamW: Adam with weight decay apart from the gradient.
//!
//! # What it computes
//! `m = beta1 m + (1 - beta1) g`, `v = beta2 v + (1 - beta2) g^2`, both divided by `1 - beta^t`, then
//! `w = w - rate (m / (sqrt(v) + epsilon) + weight_decay w)`. Decay reaches tensors of two or more dimensions only.
//! # Recipe
//! `[optimizer.adamw]` with `peak_learning_rate`, `weight_decay`, optional `beta1`, `beta2`, `epsilon`, `max_grad_norm`
//! # Reference
//! Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization

use arcuate_ops::adamw::{AdamwStep, adamw};
use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NumberChecks, Update, start};

/// `[optimizer.adamw]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Largest learning rate; the schedule multiplies it.
    #[schemars(range(min = 0.0))]
    pub peak_learning_rate: f64,
    /// Decay rate of the running mean of gradients.
    #[serde(default = "beta1")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub beta1: f64,
    /// Decay rate of the running mean of squared gradients.
    #[serde(default = "beta2")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub beta2: f64,
    /// Added to the root of the squares, against division by nothing.
    #[serde(default = "epsilon")]
    #[schemars(range(min = 0.0))]
    pub epsilon: f64,
    /// Part of each weight, times the learning rate, that a step takes away. Matrices only; 0 takes nothing.
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
            .beta("beta1", self.beta1)
            .beta("beta2", self.beta2)
            .positive("epsilon", self.epsilon)
            .not_negative("weight_decay", self.weight_decay)
            .limit("max_grad_norm", self.max_grad_norm)
            .done()
    }
}

pub(crate) fn update(
    config: &Config,
    update: &Update,
    weight: Tensor<1>,
    grad: Tensor<1>,
    moments: Vec<Tensor<1>>,
) -> (Tensor<1>, Vec<Tensor<1>>) {
    let how = AdamwStep {
        learning_rate: config.peak_learning_rate * update.rate_factor,
        beta1: config.beta1,
        beta2: config.beta2,
        epsilon: config.epsilon,
        weight_decay: update.decay(config.weight_decay),
        step: update.step,
        grad_scale: update.grad_scale,
    };
    let moments = start(moments, &weight);
    let (weight, moments) = adamw(weight, grad, moments, &how);
    (weight, moments.into())
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
