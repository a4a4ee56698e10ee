//! GPT-2: a causal decoder with learned positions, LayerNorm and tanh-GELU; its weights are stored [in, out].
//!
//! # Recipe
//! `[model.gpt2]`
//! # Reference
//! Radford et al. 2019
// B rows, T positions, C channels, V vocabulary

use arcuate_ops::activation::Gelu;
use arcuate_ops::attention;
use arcuate_ops::feed_forward::feed_forward;
use arcuate_ops::recompute::recompute;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Output;
use crate::input::Input;
use crate::layer::{Dropout, Embedding, KvCache, LayerNorm, Linear, attention_dropout, dropout};

/// `[model.gpt2]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the residual stream.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Number of decoder layers.
    #[schemars(range(min = 1))]
    pub num_layers: usize,
    /// Number of heads; divides `hidden_size`.
    #[schemars(range(min = 1))]
    pub num_heads: usize,
    /// Width of the feed-forward layer. Left out: `4 * hidden_size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub intermediate_size: Option<usize>,
    /// Longest sequence in tokens: the number of learned positions.
    #[schemars(range(min = 1))]
    pub max_seq_len: usize,
    /// Share the input embedding with the output projection. Left out: shared, as in GPT-2.
    #[serde(default = "default_tie_word_embeddings")]
    pub tie_word_embeddings: bool,
    /// Probability of dropping an activation in training (embedding, attention output, feed-forward output).
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub dropout: f64,
    /// Probability of dropping an attention probability in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub attention_dropout: f64,
    /// Epsilon of LayerNorm.
    #[serde(default = "default_layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// Standard deviation of the initial weights.
    #[serde(default = "crate::llama::default_initializer_range")]
    pub initializer_range: f64,
}

fn default_tie_word_embeddings() -> bool {
    true
}
fn default_layer_norm_eps() -> f64 {
    1e-5
}

/// Everything that fixes the network and its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// The keys of a recipe.
    pub config: Config,
    /// Rows of the embedding table.
    pub vocab_size: usize,
    /// Which GELU.
    pub gelu: GeluForm,
}

/// The two GELUs that checkpoints name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GeluForm {
    /// `gelu`
    Erf,
    /// `gelu_new`, `gelu_pytorch_tanh`
    Tanh,
}

impl GeluForm {
    pub(crate) fn op(self) -> Gelu {
        match self {
            Self::Erf => Gelu::Erf,
            Self::Tanh => Gelu::Tanh,
        }
    }
}

#[derive(Module, Debug)]
struct Attention {
    c_attn: Linear,
    c_proj: Linear,
}

#[derive(Module, Debug)]
struct Mlp {
    c_fc: Linear,
    c_proj: Linear,
}

#[derive(Module, Debug)]
struct Layer {
    ln_1: LayerNorm,
    attn: Attention,
    ln_2: LayerNorm,
    mlp: Mlp,
}

impl Layer {
    /// `x` `[B, T, C]` after attention and feed-forward, as layer number `i`; `stream` is the dropout of the network.
    fn forward(
        &self,
        x: Tensor<3>,
        i: usize,
        how: &attention::Attention,
        form: Gelu,
        (probability, stream): &(f64, Option<Dropout>),
        cache: Option<&mut KvCache>,
    ) -> Tensor<3> {
        let drops = *probability > 0.0 && stream.is_some();
        let add = |h: Tensor<3>, x: Tensor<3>, site: usize| x + dropout(h, *probability, site as u64, stream.as_ref());
        let width = x.dims()[2];
        let qkv = self.attn.c_attn.forward(self.ln_1.forward(x.clone()));
        let seen = match cache {
            Some(cache) => {
                let part = |n: usize| qkv.clone().narrow(2, n * width, width);
                let (k, v) = cache.append(i, part(1), part(2));
                attention::attention(part(0), k, v, how)
            }
            None => attention::attention_packed(qkv, how),
        };
        let x = if drops {
            add(self.attn.c_proj.forward(seen), x, 2 * i + 1)
        } else {
            self.attn.c_proj.forward_add(seen, x)
        };
        let (h, mlp) = (self.ln_2.forward(x.clone()), &self.mlp);
        let feed = |residual| feed_forward(h, mlp.c_fc.parts(), mlp.c_proj.parts(), residual, form, mlp.c_fc.layout());
        if drops { add(feed(None), x, 2 * i + 2) } else { feed(Some(x)) }
    }
}

#[derive(Module, Debug)]
struct Body {
    wte: Embedding,
    wpe: Embedding,
    h: Vec<Layer>,
    ln_f: LayerNorm,
}

/// The network; its fields spell the public tensor names.
#[derive(Module, Debug)]
pub struct Gpt2 {
    transformer: Body,
    lm_head: Option<Linear>,
    #[module(skip)]
    architecture: Architecture,
}

impl Architecture {
    /// What makes these sizes impossible.
    pub(crate) fn problem(&self) -> Option<String> {
        let c = &self.config;
        (!c.hidden_size.is_multiple_of(c.num_heads))
            .then(|| format!("{} heads do not divide hidden_size {}", c.num_heads, c.hidden_size))
    }
}

impl Gpt2 {
    /// A network whose weights are all zero.
    pub(crate) fn new(architecture: Architecture, device: &Device) -> Self {
        let c = &architecture.config;
        let (width, inner) = (c.hidden_size, c.intermediate_size.unwrap_or(4 * c.hidden_size));
        let norm = || LayerNorm::new(width, c.layer_norm_eps, device);
        let layer = |_| Layer {
            ln_1: norm(),
            attn: Attention {
                c_attn: Linear::in_out(width, 3 * width, device),
                c_proj: Linear::in_out(width, width, device),
            },
            ln_2: norm(),
            mlp: Mlp { c_fc: Linear::in_out(width, inner, device), c_proj: Linear::in_out(inner, width, device) },
        };
        Self {
            transformer: Body {
                wte: Embedding::new(architecture.vocab_size, width, device),
                wpe: Embedding::new(c.max_seq_len, width, device),
                h: (0..c.num_layers).map(layer).collect(),
                ln_f: norm(),
            },
            lm_head: (!c.tie_word_embeddings).then(|| Linear::new(width, architecture.vocab_size, false, device)),
            architecture,
        }
    }

    pub(crate) fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The table of tokens.
    pub(crate) fn table(&self) -> &Embedding {
        &self.transformer.wte
    }

    /// Hidden states after the last norm `[B*T, C]`; with a cache, of the new tokens only, see [`Input::behind`].
    pub(crate) fn hidden(&self, input: &Input, mut cache: Option<&mut KvCache>) -> Tensor<2> {
        let c = &self.architecture.config;
        let (b, t, width) = (input.num_rows, input.seq_len, c.hidden_size);
        let mut how = attention::Attention {
            num_heads: c.num_heads,
            num_kv_heads: c.num_heads,
            scale: 1.0 / ((width / c.num_heads) as f32).sqrt(),
            may_attend: if cache.is_some() { input.may_attend.clone() } else { input.causal() },
            dropout: None,
        };
        let stream = (c.dropout, input.dropout.clone());
        let gelu = self.architecture.gelu.op();
        let x = self.transformer.wte.forward(&input.ids) + self.transformer.wpe.forward(&input.positions);
        let mut x = dropout(x.reshape([b, t, width]), c.dropout, 0, input.dropout.as_ref());
        for (i, layer) in self.transformer.h.iter().enumerate() {
            how.dropout = attention_dropout(c.attention_dropout, i as u64, input.dropout.as_ref());
            x = if input.recompute {
                let (how, stream) = (how.clone(), stream.clone());
                recompute(layer, x, move |layer, x| layer.forward(x, i, &how, gelu, &stream, None))
            } else {
                layer.forward(x, i, &how, gelu, &stream, cache.as_deref_mut())
            };
        }
        self.transformer.ln_f.forward(x.reshape([b * t, width]))
    }

    /// The output over the vocabulary for hidden states `[N, C]`.
    pub(crate) fn head(&self, hidden: Tensor<2>) -> Output {
        match &self.lm_head {
            Some(head) => head.output(hidden),
            None => self.transformer.wte.output(hidden, None),
        }
    }
}
