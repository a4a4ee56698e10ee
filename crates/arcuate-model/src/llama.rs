//! Llama: a causal decoder with RMSNorm, rotary positions, grouped queries and SwiGLU.
//!
//! # Recipe
//! `[model.llama]`
//! # Reference
//! Touvron et al. 2023; Grattafiori et al. 2024 (scaled rotary frequencies)
// B rows, T positions, C channels, V vocabulary

use arcuate_ops::attention;
use arcuate_ops::feed_forward::feed_forward_gated;
use arcuate_ops::recompute::recompute;
use arcuate_ops::rope::{Rotation, rope};
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Output;
use crate::input::Input;
use crate::layer::{Embedding, KvCache, Linear, RmsNorm};

/// `[model.llama]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the residual stream.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Number of decoder layers.
    #[schemars(range(min = 1))]
    pub num_layers: usize,
    /// Number of query heads; divides `hidden_size` unless `head_dim` is given.
    #[schemars(range(min = 1))]
    pub num_heads: usize,
    /// Number of key and value heads; divides `num_heads`. Left out: as many as `num_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub num_kv_heads: Option<usize>,
    /// Width of one head. Left out: `hidden_size / num_heads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2))]
    pub head_dim: Option<usize>,
    /// Width of the gated feed-forward layer.
    #[schemars(range(min = 1))]
    pub intermediate_size: usize,
    /// Longest sequence in tokens that the model is made for.
    #[schemars(range(min = 1))]
    pub max_seq_len: usize,
    /// Share the input embedding with the output projection.
    pub tie_word_embeddings: bool,
    /// Base of the rotary frequencies.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f64,
    /// Stretches the rotary positions for sequences longer than those of pretraining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Biases in the four attention projections.
    #[serde(default)]
    pub attention_bias: bool,
    /// Biases in the three feed-forward projections.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Epsilon of RMSNorm.
    #[serde(default = "default_rms_norm_eps")]
    pub rms_norm_eps: f64,
    /// Standard deviation of the initial weights.
    #[serde(default = "default_initializer_range")]
    pub initializer_range: f64,
}

/// How rotary frequencies are scaled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RopeScaling {
    /// Every position is divided by `factor`.
    Linear {
        /// How many times longer sequences become.
        factor: f64,
    },
    /// Llama 3.1: low frequencies are divided, high ones kept, those between interpolated.
    Llama3 {
        /// How many times longer sequences become.
        factor: f64,
        /// Wavelengths above `original_max_seq_len / low_freq_factor` are divided by `factor`.
        low_freq_factor: f64,
        /// Wavelengths below `original_max_seq_len / high_freq_factor` are kept.
        high_freq_factor: f64,
        /// Longest sequence of the first pretraining.
        original_max_seq_len: usize,
    },
}

pub(crate) fn default_rope_theta() -> f64 {
    10_000.0
}
pub(crate) fn default_rms_norm_eps() -> f64 {
    1e-5
}
pub(crate) fn default_initializer_range() -> f64 {
    0.02
}

/// Everything that fixes the network and its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// The keys of a recipe.
    pub config: Config,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Biases on queries, keys and values.
    pub qkv_bias: bool,
    /// Bias on the attention output.
    pub output_bias: bool,
    /// The token that fills padded batches; its embedding gets no gradient.
    pub filler: Option<u32>,
}

impl Architecture {
    pub(crate) fn head_dim(&self) -> usize {
        self.config.head_dim.unwrap_or(self.config.hidden_size / self.config.num_heads.max(1))
    }

    fn num_kv_heads(&self) -> usize {
        self.config.num_kv_heads.unwrap_or(self.config.num_heads)
    }

    /// What makes these sizes impossible.
    pub(crate) fn problem(&self) -> Option<String> {
        let c = &self.config;
        if c.head_dim.is_none() && !c.hidden_size.is_multiple_of(c.num_heads) {
            return Some(format!("{} heads do not divide hidden_size {}", c.num_heads, c.hidden_size));
        }
        if !c.num_heads.is_multiple_of(self.num_kv_heads()) {
            return Some(format!("{} key-value heads do not divide {} heads", self.num_kv_heads(), c.num_heads));
        }
        (!self.head_dim().is_multiple_of(2))
            .then(|| format!("rotary positions need an even head width, not {}", self.head_dim()))
    }

    /// Radians a position for every channel pair.
    pub(crate) fn frequencies(&self) -> Vec<f64> {
        let h = self.head_dim();
        let base = (0..h / 2).map(|i| self.config.rope_theta.powf(-2.0 * i as f64 / h as f64));
        match &self.config.rope_scaling {
            None => base.collect(),
            Some(RopeScaling::Linear { factor }) => base.map(|f| f / factor).collect(),
            Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_seq_len }) => base
                .map(|f| {
                    let wavelength = std::f64::consts::TAU / f;
                    let original = *original_max_seq_len as f64;
                    if wavelength < original / high_freq_factor {
                        f
                    } else if wavelength > original / low_freq_factor {
                        f / factor
                    } else {
                        let smooth = (original / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        (1.0 - smooth) * f / factor + smooth * f
                    }
                })
                .collect(),
        }
    }
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
}

#[derive(Module, Debug)]
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

#[derive(Module, Debug)]
struct Layer {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
}

impl Layer {
    /// `x` `[B, T, C]` after attention and feed-forward; with a cache, as this layer of it.
    fn forward(
        &self,
        x: Tensor<3>,
        rotation: &Rotation,
        how: &attention::Attention,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<3> {
        let h = self.input_layernorm.forward(x.clone());
        let q = rope(self.self_attn.q_proj.forward(h.clone()), rotation);
        let k = rope(self.self_attn.k_proj.forward(h.clone()), rotation);
        let v = self.self_attn.v_proj.forward(h);
        let (k, v) = match cache {
            Some((cache, layer)) => cache.append(layer, k, v),
            None => (k, v),
        };
        let x = self.self_attn.o_proj.forward_add(attention::attention(q, k, v, how), x);
        let h = self.post_attention_layernorm.forward(x.clone());
        let Mlp { gate_proj, up_proj, down_proj } = &self.mlp;
        feed_forward_gated(h, gate_proj.parts(), up_proj.parts(), down_proj.parts(), Some(x), gate_proj.layout())
    }
}

#[derive(Module, Debug)]
struct Body {
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    norm: RmsNorm,
}

/// The network; its fields spell the public tensor names.
#[derive(Module, Debug)]
pub struct Llama {
    model: Body,
    lm_head: Option<Linear>,
    #[module(skip)]
    architecture: Architecture,
}

impl Llama {
    /// A network whose weights are all zero.
    pub(crate) fn new(architecture: Architecture, device: &Device) -> Self {
        let a = &architecture;
        let c = &a.config;
        let (width, heads, kv) = (c.hidden_size, c.num_heads * a.head_dim(), a.num_kv_heads() * a.head_dim());
        let layer = |_| Layer {
            self_attn: Attention {
                q_proj: Linear::new(width, heads, a.qkv_bias, device),
                k_proj: Linear::new(width, kv, a.qkv_bias, device),
                v_proj: Linear::new(width, kv, a.qkv_bias, device),
                o_proj: Linear::new(heads, width, a.output_bias, device),
            },
            mlp: Mlp {
                gate_proj: Linear::new(width, c.intermediate_size, c.mlp_bias, device),
                up_proj: Linear::new(width, c.intermediate_size, c.mlp_bias, device),
                down_proj: Linear::new(c.intermediate_size, width, c.mlp_bias, device),
            },
            input_layernorm: RmsNorm::new(width, c.rms_norm_eps, device),
            post_attention_layernorm: RmsNorm::new(width, c.rms_norm_eps, device),
        };
        Self {
            model: Body {
                embed_tokens: Embedding::new(a.vocab_size, width, device),
                layers: (0..c.num_layers).map(layer).collect(),
                norm: RmsNorm::new(width, c.rms_norm_eps, device),
            },
            lm_head: (!c.tie_word_embeddings).then(|| Linear::new(width, a.vocab_size, false, device)),
            architecture,
        }
    }

    pub(crate) fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The table of tokens.
    pub(crate) fn table(&self) -> &Embedding {
        &self.model.embed_tokens
    }

    /// Hidden states after the last norm `[B*T, C]`; with a cache, of the new tokens only, see [`Input::behind`].
    pub(crate) fn hidden(&self, input: &Input, mut cache: Option<&mut KvCache>) -> Tensor<2> {
        let a = &self.architecture;
        let (b, t, width) = (input.num_rows, input.seq_len, a.config.hidden_size);
        let rotation = Rotation::new(&input.positions, &a.frequencies());
        let how = attention::Attention {
            num_heads: a.config.num_heads,
            num_kv_heads: a.num_kv_heads(),
            scale: 1.0 / (a.head_dim() as f32).sqrt(),
            may_attend: if cache.is_some() { input.may_attend.clone() } else { input.causal() },
            dropout: None,
        };
        let mut x = self.model.embed_tokens.forward_padded(&input.ids, a.filler).reshape([b, t, width]);
        for (i, layer) in self.model.layers.iter().enumerate() {
            x = if input.recompute {
                let (rotation, how) = (rotation.clone(), how.clone());
                recompute(layer, x, move |layer, x| layer.forward(x, &rotation, &how, None))
            } else {
                layer.forward(x, &rotation, &how, cache.as_mut().map(|cache| (&mut **cache, i)))
            };
        }
        self.model.norm.forward(x.reshape([b * t, width]))
    }

    /// The output over the vocabulary for hidden states `[N, C]`.
    pub(crate) fn head(&self, hidden: Tensor<2>) -> Output {
        match &self.lm_head {
            Some(head) => head.output(hidden),
            None => self.model.embed_tokens.output(hidden, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn architecture(rope_scaling: Option<RopeScaling>) -> Architecture {
        Architecture {
            config: Config {
                hidden_size: 16,
                num_layers: 1,
                num_heads: 2,
                num_kv_heads: None,
                head_dim: None,
                intermediate_size: 8,
                max_seq_len: 32,
                tie_word_embeddings: true,
                rope_theta: 10_000.0,
                rope_scaling,
                attention_bias: false,
                mlp_bias: false,
                rms_norm_eps: 1e-5,
                initializer_range: 0.02,
            },
            vocab_size: 11,
            qkv_bias: false,
            output_bias: false,
            filler: None,
        }
    }

    #[test]
    fn frequencies_fall_from_one_by_powers_of_the_base() {
        let f = architecture(None).frequencies();
        assert_eq!(f.len(), 4);
        assert!((f[0] - 1.0).abs() < 1e-12 && (f[1] - 0.1).abs() < 1e-12 && (f[3] - 0.001).abs() < 1e-12);
    }

    #[test]
    fn linear_scaling_divides_every_frequency() {
        let f = architecture(Some(RopeScaling::Linear { factor: 4.0 })).frequencies();
        assert!((f[0] - 0.25).abs() < 1e-12 && (f[3] - 0.00025).abs() < 1e-12);
    }

    #[test]
    fn llama3_scaling_keeps_high_and_divides_low_frequencies() {
        let scaling =
            RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max_seq_len: 128 };
        let f = architecture(Some(scaling)).frequencies();
        assert!((f[0] - 1.0).abs() < 1e-12, "wavelength 6.3 < 32 is kept");
        assert!((f[3] - 0.001 / 8.0).abs() < 1e-12, "wavelength 6283 > 128 is divided");
        let smooth: f64 = (128.0 / (std::f64::consts::TAU / 0.1) - 1.0) / 3.0;
        assert!((f[1] - ((1.0 - smooth) * 0.1 / 8.0 + smooth * 0.1)).abs() < 1e-12, "62.8 lies between");
    }

    #[test]
    fn impossible_heads_are_named() {
        let mut a = architecture(None);
        a.config.num_heads = 3;
        assert!(a.problem().is_some_and(|p| p.contains("3 heads do not divide hidden_size 16")));
    }
}
