//! Keys and values of the tokens seen so far, for generation.

use burn::tensor::Tensor;

/// Keys and values per layer: `[B, K, G*H]` each.
#[derive(Debug, Clone, Default)]
pub struct KvCache {
    layers: Vec<(Tensor<3>, Tensor<3>)>,
}

impl KvCache {
    /// An empty cache.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.layers.first().map_or(0, |(k, _)| k.dims()[1])
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Appends the keys and values of new tokens to a layer and gives all of them back.
    pub(crate) fn append(&mut self, layer: usize, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let grown = match self.layers.get(layer) {
            Some((old_k, old_v)) => (Tensor::cat(vec![old_k.clone(), k], 1), Tensor::cat(vec![old_v.clone(), v], 1)),
            None => (k, v),
        };
        if layer < self.layers.len() {
            self.layers[layer] = grown.clone();
        } else {
            self.layers.push(grown.clone());
        }
        grown
    }
}
