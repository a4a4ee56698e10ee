//! Linear map, embedding table and norms as modules.

use std::sync::Arc;

use arcuate_ops::feed_forward::Map;
use arcuate_ops::linear::{Layout, linear, linear_add};
use arcuate_ops::{embedding, norm};
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use crate::Output;

pub(crate) fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::zeros(shape, device))
}

/// A linear map; the weight is [out, in], or [in, out] in GPT-2.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
    #[module(skip)]
    transposed: bool,
}

impl Linear {
    pub(crate) fn new(inputs: usize, outputs: usize, bias: bool, device: &Device) -> Self {
        let bias = bias.then(|| zeros([outputs], device));
        Self { weight: zeros([outputs, inputs], device), bias, transposed: false }
    }

    pub(crate) fn in_out(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self { weight: zeros([inputs, outputs], device), bias: Some(zeros([outputs], device)), transposed: true }
    }

    pub(crate) fn layout(&self) -> Layout {
        if self.transposed { Layout::InOut } else { Layout::OutIn }
    }

    /// Weight and bias.
    pub(crate) fn parts(&self) -> Map {
        Map { weight: self.weight.val(), bias: self.bias.as_ref().map(|b| b.val()) }
    }

    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let Map { weight, bias } = self.parts();
        linear(x, weight, bias, self.layout())
    }

    /// The map of `x` plus `residual`.
    pub(crate) fn forward_add<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
        let Map { weight, bias } = self.parts();
        linear_add(x, weight, bias, residual, self.layout())
    }

    /// The map as the last of a network; its weight is [out, in].
    pub(crate) fn output(&self, hidden: Tensor<2>) -> Output {
        debug_assert!(!self.transposed, "no architecture ends with a weight [in, out]");
        let Map { weight, bias } = self.parts();
        Output::new(hidden, weight, bias)
    }
}

/// A table of vectors.
#[derive(Module, Debug)]
pub(crate) struct Embedding {
    weight: Param<Tensor<2>>,
}

impl Embedding {
    pub(crate) fn new(rows: usize, channels: usize, device: &Device) -> Self {
        Self { weight: zeros([rows, channels], device) }
    }

    /// The table `[V, C]`.
    pub(crate) fn weight(&self) -> Tensor<2> {
        self.weight.val()
    }

    /// Rows by index: `[N, C]`.
    pub(crate) fn forward(&self, ids: &Arc<[i32]>) -> Tensor<2> {
        embedding::embedding(self.weight.val(), ids, None)
    }

    /// Rows by index, where the row of the filler gets no gradient: `[N, C]`.
    pub(crate) fn forward_padded(&self, ids: &Arc<[i32]>, filler: Option<u32>) -> Tensor<2> {
        embedding::embedding(self.weight.val(), ids, filler.map(|id| id as i32))
    }

    /// The table used the other way round as the last map of a network: products of hidden states with every row.
    pub(crate) fn output(&self, hidden: Tensor<2>, bias: Option<Tensor<1>>) -> Output {
        Output::new(hidden, self.weight.val(), bias)
    }
}

/// RMSNorm.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    weight: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn new(channels: usize, eps: f64, device: &Device) -> Self {
        Self { weight: zeros([channels], device), eps }
    }

    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        norm::rms_norm(x, self.weight.val(), self.eps)
    }
}

/// LayerNorm.
#[derive(Module, Debug)]
pub(crate) struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn new(channels: usize, eps: f64, device: &Device) -> Self {
        Self { weight: zeros([channels], device), bias: zeros([channels], device), eps }
    }

    /// Weight and bias.
    pub(crate) fn parts(&self) -> (Tensor<1>, Tensor<1>) {
        (self.weight.val(), self.bias.val())
    }

    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        norm::layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }

    /// The norm of `x + residual`.
    pub(crate) fn forward_sum<const D: usize>(&self, x: Tensor<D>, residual: Tensor<D>) -> Tensor<D> {
        norm::layer_norm_residual(x, residual, self.weight.val(), self.bias.val(), self.eps)
    }
}
