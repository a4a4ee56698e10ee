//! Lion: steps of one size, in the direction of the sign of a running mean.
//!
//! # What it computes
//! `u = sign(beta1 m + (1 - beta1) g)`, `w = w - rate (u + weight_decay w)`, then `m = beta2 m + (1 - beta2) g`.
//! Decay reaches tensors of two or more dimensions only.
//! # Recipe
//! `[optimizer.lion]` with `peak_learning_rate` (a third to a tenth of AdamW's), `weight_decay` (three to ten times
//! AdamW's), optional `beta1`, `beta2`, `max_grad_norm`
//! # Reference
//! Chen et al. 2023, Symbolic Discovery of Optimization Algorithms

use burn::tensor::Tensor;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{NumberChecks, Update, start};

/// `[optimizer.lion]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Largest learning rate; the schedule multiplies it.
    #[schemars(range(min = 0.0))]
    pub peak_learning_rate: f64,
    /// Weight of the running mean in the direction of a step.
    #[serde(default = "beta1")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub beta1: f64,
    /// Decay rate of the running mean of gradients.
    #[serde(default = "beta2")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub beta2: f64,
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
    let rate = config.peak_learning_rate * update.rate_factor;
    let [mean] = start(moments, &weight);
    let grad = grad * update.grad_scale;
    let direction = (mean.clone() * config.beta1 + grad.clone() * (1.0 - config.beta1)).sign();
    let keep = 1.0 - rate * update.decay(config.weight_decay);
    (weight * keep - direction * rate, vec![mean * config.beta2 + grad * (1.0 - config.beta2)])
}

fn beta1() -> f64 {
    0.9
}

fn beta2() -> f64 {
    0.99
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_ops::gradcheck::values;

    #[test]
    fn two_steps_agree_with_a_hand_computation() {
        let config: Config =
            serde_json::from_str(r#"{"peak_learning_rate": 0.1, "weight_decay": 0.5, "beta1": 0.9, "beta2": 0.5}"#)
                .expect("a sound configuration");
        let at = |step| Update { name: "w", shape: &[1, 2], rate_factor: 1.0, grad_scale: 0.5, step };
        let tensor = |x: [f32; 2]| Tensor::<1>::from_data(x, &arcuate_ops::device::cpu());
        let (w, m) = update(&config, &at(1), tensor([1.0, -1.0]), tensor([4.0, -2.0]), vec![]);
        // keep = 1 - 0.1 * 0.5 = 0.95; mean = 0.5 * (2, -1)
        assert_eq!(values(m[0].clone()), [1.0, -0.5]);
        let (w1, _) = (values(w.clone()), ());
        assert!((w1[0] - 0.85).abs() < 1e-6 && (w1[1] + 0.85).abs() < 1e-6);
        // direction = sign(0.9 * (1, -0.5) + 0.1 * (-20, 2)) = (-1, -1)
        let (w, _) = update(&config, &at(2), w, tensor([-40.0, 4.0]), m);
        let w2 = values(w);
        assert!((w2[0] - (0.85 * 0.95 + 0.1)).abs() < 1e-6 && (w2[1] - (-0.85 * 0.95 + 0.1)).abs() < 1e-6);
    }
}
