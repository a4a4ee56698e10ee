//! Optimisers: one file each, chosen by the `[optimizer.<name>]` table of a recipe.

use std::collections::BTreeMap;
use std::path::Path;

use arcuate_model::tensors::{self, TensorFile};
use arcuate_model::{Network, Replace};
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::RateRule;
use crate::run::matches;

pub mod adamw;
pub mod lion;
pub mod muon;

macro_rules! optimizers {
    ($($variant:ident => $module:ident),* $(,)?) => {
        /// The `[optimizer.<name>]` table; exactly one name per recipe.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum OptimizerConfig {
            $(
                #[doc = concat!("`[optimizer.", stringify!($module), "]`")]
                $variant($module::Config)
            ),*
        }

        impl OptimizerConfig {
            /// The names that may follow `optimizer.` in a recipe.
            pub const NAMES: &[&str] = &[$(stringify!($module)),*];

            /// The name of this choice.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($module)),* }
            }

            /// The learning rate that the schedule multiplies.
            pub fn peak_learning_rate(&self) -> f64 {
                match self { $(Self::$variant(config) => config.peak_learning_rate),* }
            }

            /// The norm above which gradients are scaled down; none: never.
            pub fn max_grad_norm(&self) -> Option<f64> {
                match self { $(Self::$variant(config) => config.max_grad_norm),* }
            }

            /// Values that no run can use, each with its key.
            pub fn check(&self) -> Vec<(&'static str, String)> {
                match self { $(Self::$variant(config) => config.check()),* }
            }
        }
    };
}

optimizers! { Adamw => adamw, Lion => lion, Muon => muon }

impl OptimizerConfig {
    /// Numbers that are remembered for each number of a tensor.
    pub fn num_moments(&self, name: &str, shape: &[usize]) -> u64 {
        match self {
            Self::Adamw(_) => 2,
            Self::Lion(_) => 1,
            Self::Muon(_) if muon::is_hidden_matrix(name, shape) => 1,
            Self::Muon(_) => 2,
        }
    }
}

/// Gradients by parameter name, each flattened, without a tape.
pub type Gradients = BTreeMap<String, Tensor<1>>;

/// One update of one tensor.
pub(crate) struct Update<'a> {
    /// Public name of the tensor.
    pub name: &'a str,
    /// Its shape.
    pub shape: &'a [usize],
    /// What the schedule and the referee make of the peak learning rate.
    pub rate_factor: f64,
    /// Factor of the gradient: one over the count, and clipping.
    pub grad_scale: f64,
    /// Updates of this tensor, this one included.
    pub step: u64,
}

impl Update<'_> {
    /// Decay reaches tensors of two or more dimensions only.
    pub(crate) fn decay(&self, weight_decay: f64) -> f64 {
        if self.shape.len() >= 2 { weight_decay } else { 0.0 }
    }
}

/// An optimiser and what it remembers of every tensor, on the device of the network.
pub struct Optimizer {
    config: OptimizerConfig,
    /// Flattened moments by parameter name.
    moments: BTreeMap<String, Vec<Tensor<1>>>,
    step: u64,
    /// Updates of the run before the first one of a parameter, by name; of those not here 0.
    begun: BTreeMap<String, u64>,
    /// Factors of the learning rate by parameter name; of those not here 1.
    rates: BTreeMap<String, f64>,
}

impl Optimizer {
    /// An optimiser that has seen nothing.
    pub fn new(config: OptimizerConfig) -> Self {
        Self { config, moments: BTreeMap::new(), step: 0, begun: BTreeMap::new(), rates: BTreeMap::new() }
    }

    /// The same with factors of the learning rate by parameter name.
    #[must_use]
    pub fn with_rates(self, rates: BTreeMap<String, f64>) -> Self {
        Self { rates, ..self }
    }

    /// Updates made.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Moves every parameter that has a gradient. `count` divides the summed gradients; the norm is that of the mean.
    pub fn update(&mut self, network: Network, grads: Gradients, count: f64, norm: f64, rate_factor: f64) -> Network {
        let clip = self.config.max_grad_norm().map_or(1.0, |limit| (limit / (norm + 1e-6)).min(1.0));
        self.step += 1;
        let mut mapper = Mapper { grad_scale: clip / count, optimizer: self, grads, rate_factor };
        network.replace(&mut mapper)
    }

    /// Writes `optimizer.safetensors`: tensors `NAME/0`, `NAME/1`, `NAME/begun` and the step.
    pub fn save(&self, dir: &Path) -> Result<(), arcuate_model::Error> {
        let mut all = BTreeMap::new();
        for (name, moments) in &self.moments {
            for (i, moment) in moments.iter().enumerate() {
                let values = arcuate_ops::gradcheck::values(moment.clone());
                all.insert(format!("{name}/{i}"), (vec![values.len()], values));
            }
        }
        all.insert("step".to_string(), count(self.step));
        all.extend(self.begun.iter().map(|(name, begun)| (format!("{name}/begun"), count(*begun))));
        tensors::write(&dir.join("optimizer.safetensors"), &all)
    }

    /// Reads what `save` wrote.
    pub fn load(config: OptimizerConfig, dir: &Path, device: &Device) -> Result<Self, arcuate_model::Error> {
        let file = TensorFile::open(&dir.join("optimizer.safetensors"))?;
        let mut optimizer = Self::new(config);
        for full in file.names() {
            let Some(values) = file.f32(&full)? else { continue };
            let count = || ((values.data[0] as u64) << 16) | values.data[1] as u64;
            match full.rsplit_once('/') {
                None => optimizer.step = count(),
                Some((name, "begun")) => {
                    optimizer.begun.insert(name.to_string(), count());
                }
                // Names are sorted, so the moments of a tensor come in order.
                Some((name, _)) => {
                    let moment = Tensor::from_data(TensorData::new(values.data, values.shape), device);
                    optimizer.moments.entry(name.to_string()).or_default().push(moment);
                }
            }
        }
        Ok(optimizer)
    }
}

/// A count as a tensor: numbers of 16 bits are exact.
fn count(n: u64) -> (Vec<usize>, Vec<f32>) {
    (vec![2], vec![(n >> 16) as f32, (n & 0xffff) as f32])
}

/// The factor of the learning rate of each parameter, where it is not 1.
pub fn learning_rates(rules: &[RateRule], names: &[String]) -> BTreeMap<String, f64> {
    let layer = |name: &str| name.split('.').find_map(|part| part.parse::<u32>().ok());
    let rule = |name: &str| rules.iter().find(|rule| matches(&rule.pattern, name));
    let mut rates = BTreeMap::new();
    for name in names {
        let Some(rule) = rule(name) else { continue };
        let depth = |decay: f64| {
            let covered = names.iter().filter(|name| matches(&rule.pattern, name));
            let top = covered.filter_map(|name| layer(name)).max();
            let above = top.zip(layer(name)).map_or(0, |(top, layer)| top - layer);
            decay.powi(above as i32)
        };
        rates.insert(name.clone(), rule.factor * rule.layer_decay.map_or(1.0, depth));
    }
    rates.retain(|_, rate| *rate != 1.0);
    rates
}

struct Mapper<'a> {
    optimizer: &'a mut Optimizer,
    grads: Gradients,
    grad_scale: f64,
    rate_factor: f64,
}

impl Replace for Mapper<'_> {
    fn replace<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(grad) = self.grads.remove(name) else { return param };
        let optimizer = &mut *self.optimizer;
        if !optimizer.moments.contains_key(name) && optimizer.step > 1 {
            optimizer.begun.insert(name.to_string(), optimizer.step - 1);
        }
        param.map(|old| {
            let shape = old.dims();
            let update = Update {
                name,
                shape: &shape,
                rate_factor: self.rate_factor * optimizer.rates.get(name).copied().unwrap_or(1.0),
                grad_scale: self.grad_scale,
                step: optimizer.step - optimizer.begun.get(name).copied().unwrap_or(0),
            };
            let len: usize = shape.iter().product();
            let flat = old.inner().reshape([len]);
            let moments = optimizer.moments.remove(name).unwrap_or_default();
            let (new, moments) = match &optimizer.config {
                OptimizerConfig::Adamw(config) => adamw::update(config, &update, flat, grad, moments),
                OptimizerConfig::Lion(config) => lion::update(config, &update, flat, grad, moments),
                OptimizerConfig::Muon(config) => muon::update(config, &update, flat, grad, moments),
            };
            optimizer.moments.insert(name.to_string(), moments);
            Tensor::from_inner(new.reshape(shape)).require_grad()
        })
    }
}

/// Moments that start at zero.
pub(crate) fn start<const N: usize>(moments: Vec<Tensor<1>>, like: &Tensor<1>) -> [Tensor<1>; N] {
    moments.try_into().unwrap_or_else(|_| std::array::from_fn(|_| Tensor::zeros(like.dims(), &like.device())))
}

/// Collects what is wrong with the numbers of one optimizer table.
#[derive(Default)]
pub(crate) struct NumberChecks {
    found: Vec<(&'static str, String)>,
}

impl NumberChecks {
    /// A number above zero.
    pub(crate) fn positive(mut self, key: &'static str, value: f64) -> Self {
        if !(value.is_finite() && value > 0.0) {
            self.found.push((key, format!("`{key}` is {value}; use a number above 0")));
        }
        self
    }

    /// Zero or more.
    pub(crate) fn not_negative(mut self, key: &'static str, value: f64) -> Self {
        if !(value.is_finite() && value >= 0.0) {
            self.found.push((key, format!("`{key}` is {value}; use 0 or a number above 0")));
        }
        self
    }

    /// A decay rate of a running mean: from 0 to below 1.
    pub(crate) fn beta(mut self, key: &'static str, value: f64) -> Self {
        if !(0.0..1.0).contains(&value) {
            self.found.push((key, format!("`{key}` is {value}; use a number from 0 to below 1")));
        }
        self
    }

    /// A limit that may be left out.
    pub(crate) fn limit(self, key: &'static str, value: Option<f64>) -> Self {
        match value {
            Some(value) => self.positive(key, value),
            None => self,
        }
    }

    /// All findings.
    pub(crate) fn done(self) -> Vec<(&'static str, String)> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> OptimizerConfig {
        serde_json::from_str(text).expect("a valid optimizer table")
    }

    #[test]
    fn adamw_needs_only_the_scientific_choices() {
        let config = read(r#"{"adamw": {"peak_learning_rate": 0.002, "weight_decay": 0.1}}"#);
        let OptimizerConfig::Adamw(adamw) = &config else { panic!("another optimizer was read") };
        assert_eq!((adamw.beta1, adamw.beta2, adamw.epsilon, adamw.max_grad_norm), (0.9, 0.95, 1e-8, None));
        assert_eq!((config.name(), config.peak_learning_rate(), config.check()), ("adamw", 0.002, vec![]));
    }

    #[test]
    fn names_are_sorted_and_read_back() {
        assert!(OptimizerConfig::NAMES.is_sorted());
        let lion = read(r#"{"lion": {"peak_learning_rate": 1e-4, "weight_decay": 1.0, "max_grad_norm": 1.0}}"#);
        let muon = read(r#"{"muon": {"peak_learning_rate": 0.02, "weight_decay": 0.1, "adamw_learning_rate": 0.002}}"#);
        assert_eq!((lion.name(), lion.max_grad_norm()), ("lion", Some(1.0)));
        assert_eq!((muon.name(), muon.max_grad_norm()), ("muon", None));
    }

    #[test]
    fn unknown_keys_and_two_optimizers_are_refused() {
        for wrong in [
            r#"{"adamw": {"peak_learning_rate": 0.002, "weight_decay": 0.1, "lr": 1}}"#,
            r#"{"adamw": {"peak_learning_rate": 0.002}}"#,
            r#"{"sgd": {}}"#,
        ] {
            assert!(serde_json::from_str::<OptimizerConfig>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_first_rule_that_covers_a_name_counts_and_lower_layers_learn_slower() {
        let names = ["embed.weight", "layers.0.w", "layers.1.w", "layers.11.w", "layers.11.v", "head.weight"];
        let names: Vec<String> = names.map(str::to_owned).to_vec();
        let rule = |pattern: &str, factor, layer_decay| RateRule { pattern: pattern.to_owned(), factor, layer_decay };
        let rules =
            [rule("*.v", 1.0, None), rule("layers.*", 0.5, Some(0.9)), rule("*", 3.0, None), rule("head.*", 9.0, None)];
        let rates = learning_rates(&rules, &names);
        let rate = |name: &str| rates.get(name).copied().unwrap_or(1.0);
        assert_eq!(
            [rate("embed.weight"), rate("head.weight"), rate("layers.11.v"), rate("layers.11.w")],
            [3.0, 3.0, 1.0, 0.5]
        );
        assert!((rate("layers.1.w") - 0.5 * 0.9f64.powi(10)).abs() < 1e-12);
        assert!((rate("layers.0.w") - 0.5 * 0.9f64.powi(11)).abs() < 1e-12);
        assert!(learning_rates(&[], &names).is_empty());
    }

    #[test]
    fn impossible_numbers_are_found_together() {
        let config = read(
            r#"{"adamw": {"peak_learning_rate": 0, "weight_decay": -1, "beta1": 1.0, "epsilon": 0, "max_grad_norm": 0}}"#,
        );
        let keys: Vec<_> = config.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["peak_learning_rate", "beta1", "epsilon", "weight_decay", "max_grad_norm"]);
    }
}
