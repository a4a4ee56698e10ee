//! What a network gives.
// N wanted places, C channels, V outputs: vocabulary, classes or tags

use std::sync::Arc;

use arcuate_ops::crf::{Crf, crf, crf_rows, viterbi};
use arcuate_ops::embedding::embedding;
use arcuate_ops::linear::{Layout, linear};
use arcuate_ops::linear_cross_entropy::{CrossEntropy, Score, linear_cross_entropy, linear_cross_entropy_rows};
use burn::tensor::Tensor;

/// The hidden states of the wanted places and the last projection, not yet applied: most users never need all logits.
#[derive(Debug, Clone)]
pub struct Output {
    hidden: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    tokens: Option<Box<Output>>,
    transitions: Option<Tensor<2>>,
    codes: Option<Box<Codes>>,
}

/// What a quantizer makes of frames, for contrastive objectives.
// N frames, D dimensions of the comparison, G codebooks, V entries of each
#[derive(Debug, Clone)]
pub struct Codes {
    /// The quantized frames, projected to where queries are compared with them `[N, D]`.
    pub targets: Tensor<2>,
    /// How often each entry is used, on average over the frames: of the probabilities without noise and temperature where a
    /// noise was asked for (training), else of the entries taken `[G, V]`.
    pub usage: Tensor<2>,
    /// The entry that each frame takes in each codebook `[N * G]`.
    pub ids: Arc<[u32]>,
    /// Mean of the squared features before their norm `[1]`.
    pub feature_penalty: Tensor<1>,
}

impl Output {
    /// Hidden states `[N, C]` before a projection with the weight `[V, C]` and an optional bias `[V]`.
    pub fn new(hidden: Tensor<2>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self { hidden, weight, bias, tokens: None, transitions: None, codes: None }
    }

    /// The same with an output over the vocabulary beside it.
    #[must_use]
    pub fn with_tokens(mut self, tokens: Self) -> Self {
        self.tokens = Some(Box::new(tokens));
        self
    }

    /// What stands beside it for tokens, taken out.
    pub fn take_tokens(&mut self) -> Option<Self> {
        self.tokens.take().map(|tokens| *tokens)
    }

    /// The same with what a quantizer makes of the places; the logits are the queries then.
    #[must_use]
    pub fn with_codes(mut self, codes: Codes) -> Self {
        self.codes = Some(Box::new(codes));
        self
    }

    /// What a quantizer makes of the places, taken out.
    pub fn take_codes(&mut self) -> Option<Codes> {
        self.codes.take().map(|codes| *codes)
    }

    /// The same with a score for each output after each other one `[V, V]`.
    pub(crate) fn with_transitions(self, transitions: Option<Tensor<2>>) -> Self {
        Self { transitions, ..self }
    }

    /// Logits of all places and transitions; those of a network without are 0.
    fn chain(self) -> (Tensor<2>, Tensor<2>) {
        let num = self.weight.dims()[0];
        let free = || Tensor::zeros([num, num], &self.weight.device());
        let transitions = self.transitions.clone().unwrap_or_else(free);
        (self.logits(), transitions)
    }

    /// Sum of the losses of sequences of outputs as a linear-chain CRF: `[1]`.
    pub fn crf(self, how: &Crf) -> Tensor<1> {
        let (logits, transitions) = self.chain();
        crf(logits, transitions, how)
    }

    /// The loss of each row as [`Self::crf`] has it `[B]`, and the best output at every place `[N]`; no gradient.
    pub fn crf_rows(self, how: &Crf) -> (Vec<f32>, Vec<u32>) {
        let (logits, transitions) = self.chain();
        let best = viterbi(logits.clone(), transitions.clone(), &how.lengths);
        (crf_rows(logits, transitions, how), best)
    }

    /// The best output at every place: jointly along rows of these lengths if there are transitions. `[N]`
    pub fn best(self, lengths: &[usize]) -> Vec<u32> {
        let (logits, transitions) = self.chain();
        viterbi(logits, transitions, lengths)
    }

    /// Sum of the losses of all places: `[1]`.
    pub fn cross_entropy(self, how: &CrossEntropy) -> Tensor<1> {
        linear_cross_entropy(self.hidden, self.weight, self.bias, how)
    }

    /// Negative log-likelihood of the target (negative: none) and best output at every place; no gradient. `[N]`
    pub fn scores(self, targets: &[i32]) -> Vec<Score> {
        linear_cross_entropy_rows(self.hidden, self.weight, self.bias, targets)
    }

    /// Only these outputs, in this order: their logits compete with each other alone.
    pub fn only(self, outputs: &[u32]) -> Self {
        let places: Arc<[i32]> = outputs.iter().map(|output| *output as i32).collect();
        let bias = self.bias.map(|bias| {
            let num = bias.dims()[0];
            embedding(bias.reshape([num, 1]), &places, None).reshape([outputs.len()])
        });
        Self { weight: embedding(self.weight, &places, None), bias, transitions: None, ..self }
    }

    /// All logits: `[N, V]`.
    pub fn logits(self) -> Tensor<2> {
        linear(self.hidden, self.weight, self.bias, Layout::OutIn)
    }
}
