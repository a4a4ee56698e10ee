//! BERT: a bidirectional encoder with a masked-LM head or a classifier on the first token.
//!
//! # Recipe
//! `[model.bert]`; the objective decides which head it gets
//! # Reference
//! Devlin et al. 2019
// B rows, T positions, C channels, V vocabulary

use arcuate_ops::activation::{Gelu, gelu};
use arcuate_ops::attention;
use arcuate_ops::feed_forward::feed_forward;
use arcuate_ops::recompute::recompute;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gpt2::GeluForm;
use crate::input::Input;
use crate::layer::{Dropout, Embedding, LayerNorm, Linear, attention_dropout, dropout};

/// `[model.bert]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the residual stream.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Number of encoder layers.
    #[schemars(range(min = 1))]
    pub num_layers: usize,
    /// Number of heads; divides `hidden_size`.
    #[schemars(range(min = 1))]
    pub num_heads: usize,
    /// Width of the feed-forward layer.
    #[schemars(range(min = 1))]
    pub intermediate_size: usize,
    /// Longest sequence in tokens: the number of learned positions.
    #[schemars(range(min = 1))]
    pub max_seq_len: usize,
    /// Number of segment embeddings.
    #[serde(default = "default_type_vocab_size")]
    #[schemars(range(min = 1))]
    pub type_vocab_size: usize,
    /// Probability of dropping an activation in training (embedding, attention output, feed-forward output, pooled).
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

fn default_type_vocab_size() -> usize {
    2
}
fn default_layer_norm_eps() -> f64 {
    1e-12
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
    /// Class names: a classifier; none: a masked language model.
    pub labels: Option<Vec<String>>,
    /// The token that fills padded batches; its embedding gets no gradient.
    pub filler: Option<u32>,
}

#[derive(Module, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
struct SelfAttention {
    query: Linear,
    key: Linear,
    value: Linear,
}

/// A projection, then the norm over its sum with the residual.
#[derive(Module, Debug)]
struct Output {
    dense: Linear,
    layer_norm: LayerNorm,
}

#[derive(Module, Debug)]
struct Attention {
    self_: SelfAttention,
    output: Output,
}

#[derive(Module, Debug)]
struct Dense {
    dense: Linear,
}

#[derive(Module, Debug)]
struct Layer {
    attention: Attention,
    intermediate: Dense,
    output: Output,
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
    ) -> Tensor<3> {
        let drop = |x: Tensor<3>, site: usize| dropout(x, *probability, site as u64, stream.as_ref());
        let s = &self.attention.self_;
        let (q, k, v) = (s.query.forward(x.clone()), s.key.forward(x.clone()), s.value.forward(x.clone()));
        let o = &self.attention.output;
        let x = o.layer_norm.forward_sum(drop(o.dense.forward(attention::attention(q, k, v, how)), 2 * i + 1), x);
        let (up, o) = (&self.intermediate.dense, &self.output);
        let h = feed_forward(x.clone(), up.parts(), o.dense.parts(), None, form, up.layout());
        o.layer_norm.forward_sum(drop(h, 2 * i + 2), x)
    }
}

#[derive(Module, Debug)]
struct Encoder {
    layer: Vec<Layer>,
}

#[derive(Module, Debug)]
struct Body {
    embeddings: Embeddings,
    encoder: Encoder,
    pooler: Option<Dense>,
}

#[derive(Module, Debug)]
struct Predictions {
    transform: Output,
    bias: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct Heads {
    predictions: Predictions,
}

/// The network; its fields spell the public tensor names (`self_` stands for `self`, `layer_norm` for `LayerNorm`).
#[derive(Module, Debug)]
pub struct Bert {
    bert: Body,
    cls: Option<Heads>,
    classifier: Option<Linear>,
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

impl Bert {
    /// A network whose weights are all zero.
    pub(crate) fn new(architecture: Architecture, device: &Device) -> Self {
        let c = &architecture.config;
        let width = c.hidden_size;
        let linear = |inputs, outputs| Linear::new(inputs, outputs, true, device);
        let norm = || LayerNorm::new(width, c.layer_norm_eps, device);
        let layer = |_| Layer {
            attention: Attention {
                self_: SelfAttention {
                    query: linear(width, width),
                    key: linear(width, width),
                    value: linear(width, width),
                },
                output: Output { dense: linear(width, width), layer_norm: norm() },
            },
            intermediate: Dense { dense: linear(width, c.intermediate_size) },
            output: Output { dense: linear(c.intermediate_size, width), layer_norm: norm() },
        };
        let labels = architecture.labels.as_ref().map(Vec::len);
        Self {
            bert: Body {
                embeddings: Embeddings {
                    word_embeddings: Embedding::new(architecture.vocab_size, width, device),
                    position_embeddings: Embedding::new(c.max_seq_len, width, device),
                    token_type_embeddings: Embedding::new(c.type_vocab_size, width, device),
                    layer_norm: norm(),
                },
                encoder: Encoder { layer: (0..c.num_layers).map(layer).collect() },
                pooler: labels.map(|_| Dense { dense: linear(width, width) }),
            },
            cls: labels.is_none().then(|| Heads {
                predictions: Predictions {
                    transform: Output { dense: linear(width, width), layer_norm: norm() },
                    bias: Param::from_tensor(Tensor::zeros([architecture.vocab_size], device)),
                },
            }),
            classifier: labels.map(|n| linear(width, n)),
            architecture,
        }
    }

    pub(crate) fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The table of tokens.
    pub(crate) fn table(&self) -> &Embedding {
        &self.bert.embeddings.word_embeddings
    }

    /// Hidden states of the last layer `[B*T, C]`.
    pub(crate) fn hidden(&self, input: &Input) -> Tensor<2> {
        let c = &self.architecture.config;
        let (b, t, width) = (input.num_rows, input.seq_len, c.hidden_size);
        let mut how = attention::Attention {
            num_heads: c.num_heads,
            num_kv_heads: c.num_heads,
            scale: 1.0 / ((width / c.num_heads) as f32).sqrt(),
            may_attend: input.may_attend.clone(),
            dropout: None,
        };
        let stream = (c.dropout, input.dropout.clone());
        let gelu = self.architecture.gelu.op();
        let e = &self.bert.embeddings;
        let x = e.word_embeddings.forward_padded(&input.ids, self.architecture.filler)
            + e.position_embeddings.forward(&input.positions)
            + e.token_type_embeddings.forward(&input.token_types);
        let x = e.layer_norm.forward(x).reshape([b, t, width]);
        let mut x = dropout(x, c.dropout, 0, input.dropout.as_ref());
        for (i, layer) in self.bert.encoder.layer.iter().enumerate() {
            how.dropout = attention_dropout(c.attention_dropout, i as u64, input.dropout.as_ref());
            x = if input.recompute {
                let (how, stream) = (how.clone(), stream.clone());
                recompute(layer, x, move |layer, x| layer.forward(x, i, &how, gelu, &stream))
            } else {
                layer.forward(x, i, &how, gelu, &stream)
            };
        }
        x.reshape([b * t, width])
    }

    /// The output over the vocabulary for hidden states `[N, C]`; none for a classifier.
    pub(crate) fn head(&self, hidden: Tensor<2>) -> Option<crate::Output> {
        let p = &self.cls.as_ref()?.predictions;
        let h = gelu(p.transform.dense.forward(hidden), self.architecture.gelu.op());
        let h = p.transform.layer_norm.forward(h);
        Some(self.bert.embeddings.word_embeddings.output(h, Some(p.bias.val())))
    }

    /// The output over the classes for the hidden states `[B, C]` of the rows' first tokens; none for a masked LM.
    pub(crate) fn classify(&self, first: Tensor<2>, input: &Input) -> Option<crate::Output> {
        let pooled = self.bert.pooler.as_ref()?.dense.forward(first).tanh();
        let site = 2 * self.architecture.config.num_layers as u64 + 1;
        let pooled = dropout(pooled, self.architecture.config.dropout, site, input.dropout.as_ref());
        Some(self.classifier.as_ref()?.output(pooled))
    }
}
