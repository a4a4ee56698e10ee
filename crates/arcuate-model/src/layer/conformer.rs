//! The conformer layer: half a feed-forward layer, attention with relative positions, a convolution, the other half.
//!
//! Positions are those of Transformer-XL, rotary ones, or a learned vector for each distance. Wav2Vec2-Conformer convolves
//! over both sides and has batch norm; Wav2Vec2-BERT convolves over the past and has layer norm.
//!
//! # Reference
//! Gulati et al. 2020; Dai et al. 2019 (relative positions); Shaw et al. 2018 (a vector for each distance)
// B rows, T frames, C channels, N heads, H head channels, R distances

use std::sync::Arc;

use arcuate_ops::activation::{activate, glu};
use arcuate_ops::attention::{attention, attention_relative};
use arcuate_ops::conv1d;
use arcuate_ops::linear::{Layout, linear};
use arcuate_ops::matmul::matmul;
use arcuate_ops::rope::rope;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

use super::basic::zeros;
use super::batch_norm::BatchNorm;
use super::conv_encoder::Conv1d;
use super::pass::{Pass, Place, Sight};
use super::relative::attention_by_distance;
use super::{Embedding, FeedForward, LayerNorm, Linear, Seen};
use crate::speech::Positions;

/// Epsilon of the norms of Wav2Vec2-Conformer's convolution; PyTorch's default, whatever the rest of the network has.
const EPS: f64 = 1e-5;

/// Attention of a conformer.
#[derive(Module, Debug)]
pub(crate) struct SelfAttention {
    linear_q: Linear,
    linear_k: Linear,
    linear_v: Linear,
    linear_out: Linear,
    linear_pos: Option<Linear>,
    pos_bias_u: Option<Param<Tensor<2>>>,
    pos_bias_v: Option<Param<Tensor<2>>>,
    distance_embedding: Option<Embedding>,
    #[module(skip)]
    positions: Positions,
}

impl SelfAttention {
    pub(crate) fn new(width: usize, num_heads: usize, positions: Positions, device: &Device) -> Self {
        let square = |bias| Linear::new(width, width, bias, device);
        let is_relative = positions == Positions::Relative;
        let head = width / num_heads;
        let bias = || is_relative.then(|| zeros([num_heads, head], device));
        Self {
            linear_q: square(true),
            linear_k: square(true),
            linear_v: square(true),
            linear_out: square(true),
            linear_pos: is_relative.then(|| square(false)),
            pos_bias_u: bias(),
            pos_bias_v: bias(),
            distance_embedding: match positions {
                Positions::Key { left, right } => Some(Embedding::new(left + right + 1, head, device)),
                _ => None,
            },
            positions,
        }
    }

    /// `x` `[B, T, C]` mixed over frames.
    pub(crate) fn forward(&self, x: Tensor<3>, layer: usize, pass: &Pass) -> Tensor<3> {
        let how = pass.attention(layer);
        let value = self.linear_v.forward(x.clone());
        let turned = match &pass.rotation {
            Some(rotation) if matches!(self.positions, Positions::Rotary { .. }) => rope(x, rotation),
            _ => x,
        };
        let (query, key) = (self.linear_q.forward(turned.clone()), self.linear_k.forward(turned));
        let [b, t, width] = query.dims();
        let (heads, head) = (how.num_heads, width / how.num_heads);
        let scale = f64::from(how.scale);
        let mixed = match (&self.distance_embedding, &self.positions) {
            (Some(table), Positions::Key { left, right }) => {
                // Numbers of distances grow with how much earlier the key is; the table begins with the earliest.
                let reversed: Arc<[i32]> = (0..(left + right + 1) as i32).rev().collect();
                attention_by_distance(query, key, value, table.forward(&reversed), *right, &how)
            }
            _ => match self.relative_parts(pass, t, &query.device()) {
                None => attention(query, key, value, &how),
                Some((u, v, distances)) => {
                    let num = distances.dims()[0];
                    let shift = |bias: Tensor<2>| query.clone() + bias.reshape([1, 1, width]);
                    let by_head = shift(v).reshape([b * t, heads, head]).swap_dims(0, 1);
                    let table = (distances * scale).reshape([num, heads, head]).swap_dims(0, 1).swap_dims(1, 2);
                    let scores = matmul(by_head, table).swap_dims(0, 1);
                    attention_relative(shift(u), key, value, scores, t - 1, &how)
                }
            },
        };
        self.linear_out.forward(mixed)
    }

    /// Biases of content and position `[N, H]`, and projected distances `[R, C]`.
    fn relative_parts(&self, pass: &Pass, t: usize, device: &Device) -> Option<(Tensor<2>, Tensor<2>, Tensor<2>)> {
        let num = 2 * t - 1;
        let table = TensorData::new(pass.distances.to_vec(), [num, pass.distances.len() / num]);
        let distances = self.linear_pos.as_ref()?.forward(Tensor::<2>::from_data(table, device));
        Some((self.pos_bias_u.as_ref()?.val(), self.pos_bias_v.as_ref()?.val(), distances))
    }
}

/// The convolution of a conformer.
#[derive(Module, Debug)]
struct ConvModule {
    layer_norm: LayerNorm,
    pointwise_conv1: Conv1d,
    depthwise_conv: Conv1d,
    batch_norm: Option<BatchNorm>,
    depthwise_layer_norm: Option<LayerNorm>,
    pointwise_conv2: Conv1d,
}

impl ConvModule {
    fn forward(&self, x: Tensor<3>, sight: Option<&Sight>, pass: &Pass) -> Tensor<3> {
        let mut h = self.layer_norm.forward(x);
        let width = h.dims()[2];
        let is_causal = self.depthwise_layer_norm.is_some();
        // As published: only the causal form keeps padding out of its convolution.
        if is_causal {
            h = pass.without_padding(h);
        }
        let weight = self.pointwise_conv1.weight().reshape([2 * width, width]);
        let half = |x: Tensor<3>, first: usize| linear(x, weight.clone().narrow(0, first, width), None, Layout::OutIn);
        let h = glu(half(h.clone(), width), half(h, 0));
        let around = self.depthwise_conv.weight().dims()[2] - 1;
        let padding = if is_causal { [around, 0] } else { [around / 2, around / 2] };
        let h = self.depthwise_conv.forward(h, conv1d::Conv1d { stride: 1, padding, groups: width });
        let h = match (&self.batch_norm, &self.depthwise_layer_norm) {
            (Some(norm), _) => norm.rows(h, sight, &pass.is_frame),
            (None, Some(norm)) => norm.forward(h),
            (None, None) => h,
        };
        let weight = self.pointwise_conv2.weight().reshape([width, width]);
        linear(activate(h, pass.form), weight, None, Layout::OutIn)
    }
}

/// One layer.
#[derive(Module, Debug)]
pub(crate) struct ConformerLayer {
    ffn1_layer_norm: LayerNorm,
    ffn1: FeedForward,
    self_attn_layer_norm: LayerNorm,
    self_attn: SelfAttention,
    conv_module: ConvModule,
    ffn2_layer_norm: LayerNorm,
    ffn2: FeedForward,
    final_layer_norm: LayerNorm,
}

impl ConformerLayer {
    /// `sizes`: width, inner width, heads, taps of the convolution.
    pub(crate) fn new(
        [width, inner, num_heads, kernel]: [usize; 4],
        eps: f64,
        positions: Positions,
        is_causal: bool,
        device: &Device,
    ) -> Self {
        let norm = || LayerNorm::new(width, eps, device);
        let conv = |shape| Conv1d::new(shape, false, device);
        Self {
            ffn1_layer_norm: norm(),
            ffn1: FeedForward::new(width, inner, device),
            self_attn_layer_norm: norm(),
            self_attn: SelfAttention::new(width, num_heads, positions, device),
            conv_module: ConvModule {
                layer_norm: LayerNorm::new(width, if is_causal { eps } else { EPS }, device),
                pointwise_conv1: conv([2 * width, width, 1]),
                depthwise_conv: conv([width, 1, kernel]),
                batch_norm: (!is_causal).then(|| BatchNorm::new(width, device)),
                depthwise_layer_norm: is_causal.then(&norm),
                pointwise_conv2: conv([width, width, 1]),
            },
            ffn2_layer_norm: norm(),
            ffn2: FeedForward::new(width, inner, device),
            final_layer_norm: norm(),
        }
    }

    /// Where the batch norm of layer number `i` leaves its statistics; none where it keeps to the running ones.
    pub(crate) fn sight(&self, i: usize, seen: Option<&Seen>) -> Option<Sight> {
        let norm = self.conv_module.batch_norm.as_ref()?;
        seen.filter(|_| norm.is_trained()).map(|seen| Sight::new(seen, i))
    }

    /// The same with statistics of one more batch in the running ones.
    pub(crate) fn fold(mut self, statistics: &arcuate_ops::batch_norm::Statistics) -> Self {
        self.conv_module.batch_norm = self.conv_module.batch_norm.map(|norm| norm.fold(statistics));
        self
    }

    /// `x` `[B, T, C]` after this layer, number `i`.
    pub(crate) fn forward(&self, x: Tensor<3>, i: usize, sight: Option<&Sight>, pass: &Pass) -> Tensor<3> {
        let rates = &pass.rates;
        let places = [Place::Activation, Place::FeedForward];
        let h = self.ffn1.forward(self.ffn1_layer_norm.forward(x.clone()), None, pass.form, pass, i, places);
        let x = h * 0.5 + x;
        let h = self.self_attn.forward(self.self_attn_layer_norm.forward(x.clone()), i, pass);
        let x = pass.drop(h, rates.attention, i, Place::Attention) + x;
        let h = self.conv_module.forward(x.clone(), sight, pass);
        let x = pass.drop(h, rates.conv, i, Place::Conv) + x;
        let places = [Place::SecondActivation, Place::SecondFeedForward];
        let h = self.ffn2.forward(self.ffn2_layer_norm.forward(x.clone()), None, pass.form, pass, i, places);
        self.final_layer_norm.forward(h * 0.5 + x)
    }
}

#[cfg(test)]
mod tests {
    use arcuate_ops::activation::Form;
    use arcuate_ops::attention::Attention;
    use arcuate_ops::gradcheck::{distance, random, values};

    use super::*;
    use crate::params::{self, Fill, Values};
    use crate::speech::Rates;

    const WIDTH: usize = 8;
    const HEADS: usize = 2;
    const HEAD: usize = WIDTH / HEADS;

    fn pass(t: usize, positions: Positions) -> Pass {
        Pass {
            attention: Attention {
                num_heads: HEADS,
                num_kv_heads: HEADS,
                scale: (HEAD as f32).sqrt().recip(),
                may_attend: (0..t).map(|_| [0, t as u32]).collect(),
                dropout: None,
            },
            form: Form::Silu,
            rates: Rates::default(),
            dropout: None,
            is_frame: [].into(),
            distances: match positions {
                Positions::Relative => values(random([(2 * t - 1) * WIDTH], 77)).into(),
                _ => [].into(),
            },
            rotation: None,
        }
    }

    /// Attention with random parameters; those whose names contain one of `zero` are 0.
    fn attention_with(positions: Positions, zero: &[&str]) -> SelfAttention {
        let fill = |name: &str, shape: &[usize]| {
            let len = shape.iter().product::<usize>();
            let is_zero = zero.iter().any(|part| name.contains(part));
            let seed = name.bytes().map(u64::from).sum();
            Some(if is_zero { vec![0.0; len] } else { values(random([len], seed) * 0.7) })
        };
        params::replace(SelfAttention::new(WIDTH, HEADS, positions, &Device::flex()), "", &mut Fill(fill))
    }

    /// The score that query i and key j get for their distance, of one head, by loops over the definition.
    fn extra(all: &Values, positions: Positions, q: &[f32], distances: &[f32], i: usize, j: usize, t: usize) -> f32 {
        let (head, q) = (i % HEADS, q);
        let (i, dot) = (i / HEADS, |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>());
        match positions {
            Positions::Key { left, right } => {
                let distance = (j as i64 - i as i64).clamp(-(left as i64), right as i64) + left as i64;
                dot(q, &all.0["distance_embedding.weight"].1[distance as usize * HEAD..][..HEAD])
            }
            Positions::Relative => {
                let row = &distances[(i + t - 1 - j) * WIDTH..][..WIDTH];
                let weight = &all.0["linear_pos.weight"].1;
                let r: Vec<f32> = (0..HEAD).map(|h| dot(&weight[(head * HEAD + h) * WIDTH..][..WIDTH], row)).collect();
                let bias = &all.0["pos_bias_v"].1[head * HEAD..][..HEAD];
                let shifted: Vec<f32> = q.iter().zip(bias).map(|(q, b)| q + b).collect();
                dot(&shifted, &r)
            }
            _ => 0.0,
        }
    }

    #[test]
    fn scores_of_distances_are_those_of_the_definition() {
        for positions in [Positions::Relative, Positions::Key { left: 2, right: 1 }, Positions::None] {
            for t in 1..=5 {
                let layer = attention_with(positions, &[]);
                let mut all = Values::default();
                params::visit(&layer, "", &mut all);
                let map = |name: &str, x: &[f32]| -> Vec<f32> {
                    let weight = &all.0[&format!("{name}.weight")].1;
                    let bias = &all.0[&format!("{name}.bias")].1;
                    x.chunks(WIDTH)
                        .flat_map(|x| {
                            (0..WIDTH).map(move |out| {
                                let row = &weight[out * WIDTH..][..WIDTH];
                                row.iter().zip(x).map(|(w, x)| w * x).sum::<f32>() + bias[out]
                            })
                        })
                        .collect()
                };
                let x = random([1, t, WIDTH], 5);
                let pass = pass(t, positions);
                let found = values(layer.forward(x.clone(), 0, &pass));
                let x = values(x);
                let (q, k, v) = (map("linear_q", &x), map("linear_k", &x), map("linear_v", &x));
                let mut mixed = vec![0.0; t * WIDTH];
                for i in 0..t {
                    for head in 0..HEADS {
                        let q = &q[i * WIDTH + head * HEAD..][..HEAD];
                        let u =
                            all.0.get("pos_bias_u").map_or(vec![0.0; HEAD], |u| u.1[head * HEAD..][..HEAD].to_vec());
                        let scores: Vec<f32> = (0..t)
                            .map(|j| {
                                let k = &k[j * WIDTH + head * HEAD..][..HEAD];
                                let content: f32 = (0..HEAD).map(|h| (q[h] + u[h]) * k[h]).sum();
                                let more = extra(&all, positions, q, &pass.distances, i * HEADS + head, j, t);
                                ((content + more) / (HEAD as f32).sqrt()).exp()
                            })
                            .collect();
                        let sum: f32 = scores.iter().sum();
                        for (j, score) in scores.iter().enumerate() {
                            for h in 0..HEAD {
                                mixed[i * WIDTH + head * HEAD + h] += score / sum * v[j * WIDTH + head * HEAD + h];
                            }
                        }
                    }
                }
                let wanted = map("linear_out", &mixed);
                assert!(distance(&found, &wanted) < 1e-5, "{positions:?} {t}");
            }
        }
    }

    #[test]
    fn without_weights_of_positions_it_is_plain_attention() {
        let x = || random([1, 5, WIDTH], 5);
        let relative = attention_with(Positions::Relative, &["linear_pos", "pos_bias"]);
        let plain = attention_with(Positions::None, &[]);
        let found = values(relative.forward(x(), 0, &pass(5, Positions::Relative)));
        assert!(distance(&found, &values(plain.forward(x(), 0, &pass(5, Positions::None)))) < 1e-6);
    }
}
