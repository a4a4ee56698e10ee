//! BERT: a bidirectional encoder with a masked-LM head, a classifier on the first token or a tagger on every one; convolutions
//! before it if wanted.
//!
//! # Recipe
//! `[model.bert]`; the objective decides which head it gets; optional `[model.bert.conv_front]`
//! # Reference
//! Devlin et al. 2019; the convolutions in Gross et al. 2025
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
use crate::layer::{
    ConvFront, ConvFrontConfig, Dropout, Embedding, LayerNorm, Linear, Seen, attention_dropout, dropout,
};
use crate::network::Head;

/// `[model.bert]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the residual stream.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Number of encoder layers, without the convolutions of `conv_front`.
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
    /// Convolutions between the embeddings and the encoder layers; left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conv_front: Option<ConvFrontConfig>,
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
    /// What stands on the encoder.
    pub head: Head,
    /// The token that fills padded batches; its embedding gets no gradient.
    pub filler: Option<u32>,
}

#[derive(Module, Debug)]
struct Embeddings {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    token_type_embeddings: Embedding,
    layer_norm_: LayerNorm,
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
    layer_norm_: LayerNorm,
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
        let x = o.layer_norm_.forward_sum(drop(o.dense.forward(attention::attention(q, k, v, how)), 2 * i + 1), x);
        let (up, o) = (&self.intermediate.dense, &self.output);
        let h = feed_forward(x.clone(), up.parts(), o.dense.parts(), None, form, up.layout());
        o.layer_norm_.forward_sum(drop(h, 2 * i + 2), x)
    }
}

#[derive(Module, Debug)]
struct Encoder {
    layer: Vec<Layer>,
}

#[derive(Module, Debug)]
struct Body {
    embeddings: Embeddings,
    conv_front: Option<ConvFront>,
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

/// Scores of one tag after another.
#[derive(Module, Debug)]
struct Crf {
    transitions: Param<Tensor<2>>,
}

/// The network; its fields spell the public tensor names (`self_` stands for `self`, `layer_norm_` for `LayerNorm`).
#[derive(Module, Debug)]
pub struct Bert {
    bert: Body,
    cls: Option<Heads>,
    classifier: Option<Linear>,
    crf: Option<Crf>,
    #[module(skip)]
    architecture: Architecture,
}

impl Architecture {
    /// What makes these sizes impossible.
    pub(crate) fn problem(&self) -> Option<String> {
        let c = &self.config;
        if !c.hidden_size.is_multiple_of(c.num_heads) {
            return Some(format!("{} heads do not divide hidden_size {}", c.num_heads, c.hidden_size));
        }
        c.conv_front.as_ref()?.problem(c.max_seq_len, c.hidden_size)
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
                output: Output { dense: linear(width, width), layer_norm_: norm() },
            },
            intermediate: Dense { dense: linear(width, c.intermediate_size) },
            output: Output { dense: linear(c.intermediate_size, width), layer_norm_: norm() },
        };
        let num_labels = architecture.head.labels().map(<[String]>::len);
        let (has_pooler, has_crf) = match architecture.head {
            Head::Tokens | Head::Codes | Head::Decoder | Head::Hidden => (false, false),
            Head::Classes(_) | Head::ClassesAndTokens(_) => (true, false),
            Head::Tags { crf, .. } => (false, crf),
        };
        Self {
            bert: Body {
                embeddings: Embeddings {
                    word_embeddings: Embedding::new(architecture.vocab_size, width, device),
                    position_embeddings: Embedding::new(c.max_seq_len, width, device),
                    token_type_embeddings: Embedding::new(c.type_vocab_size, width, device),
                    layer_norm_: norm(),
                },
                conv_front: c.conv_front.as_ref().map(|front| ConvFront::new(front, device)),
                encoder: Encoder { layer: (0..c.num_layers).map(layer).collect() },
                pooler: has_pooler.then(|| Dense { dense: linear(width, width) }),
            },
            cls: architecture.head.has_tokens().then(|| Heads {
                predictions: Predictions {
                    transform: Output { dense: linear(width, width), layer_norm_: norm() },
                    bias: Param::from_tensor(Tensor::zeros([architecture.vocab_size], device)),
                },
            }),
            classifier: num_labels.map(|n| linear(width, n)),
            crf: num_labels
                .filter(|_| has_crf)
                .map(|n| Crf { transitions: Param::from_tensor(Tensor::zeros([n, n], device)) }),
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
        let mut x = match &self.bert.conv_front {
            None => self.embedded(input),
            // Convolutions see padding, so it must not depend on the other rows.
            Some(front) => {
                let filler = self.architecture.filler.unwrap_or(0) as i32;
                let x = self.embedded(&input.filled(c.max_seq_len.max(t), filler));
                front.forward(x, input.seen.as_ref()).narrow(1, 0, t)
            }
        };
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

    /// Embeddings of all tokens `[B, T, C]`, normalised.
    fn embedded(&self, input: &Input) -> Tensor<3> {
        let c = &self.architecture.config;
        let e = &self.bert.embeddings;
        let x = e.word_embeddings.forward_padded(&input.ids, self.architecture.filler)
            + e.position_embeddings.forward(&input.positions)
            + e.token_type_embeddings.forward(&input.token_types);
        let x = e.layer_norm_.forward(x).reshape([input.num_rows, input.seq_len, c.hidden_size]);
        dropout(x, c.dropout, 0, input.dropout.as_ref())
    }

    /// Whether tokens see padding, so that it must stay.
    pub(crate) fn needs_padding(&self) -> bool {
        self.bert.conv_front.is_some()
    }

    /// The same with what batch norms saw in their running statistics.
    pub(crate) fn fold(mut self, seen: &Seen) -> Self {
        self.bert.conv_front = self.bert.conv_front.map(|front| front.fold(seen));
        self
    }

    /// The output over the vocabulary or the tags for hidden states `[N, C]`; none for a classifier.
    pub(crate) fn head(&self, hidden: Tensor<2>, input: &Input) -> Option<crate::Output> {
        if let Head::Tags { .. } = self.architecture.head {
            let transitions = self.crf.as_ref().map(|crf| crf.transitions.val());
            let hidden = self.dropped(hidden, input);
            return Some(self.classifier.as_ref()?.output(hidden).with_transitions(transitions));
        }
        let p = &self.cls.as_ref()?.predictions;
        let h = gelu(p.transform.dense.forward(hidden), self.architecture.gelu.op());
        let h = p.transform.layer_norm_.forward(h);
        Some(self.bert.embeddings.word_embeddings.output(h, Some(p.bias.val())))
    }

    /// The output over the classes for the hidden states `[B, C]` of the rows' first tokens; only for a classifier.
    pub(crate) fn classify(&self, first: Tensor<2>, input: &Input) -> Option<crate::Output> {
        let pooled = self.bert.pooler.as_ref()?.dense.forward(first).tanh();
        Some(self.classifier.as_ref()?.output(self.dropped(pooled, input)))
    }

    /// Dropout before a classifier.
    fn dropped(&self, x: Tensor<2>, input: &Input) -> Tensor<2> {
        let site = 2 * self.architecture.config.num_layers as u64 + 1;
        dropout(x, self.architecture.config.dropout, site, input.dropout.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arcuate_ops::crf::Crf;
    use arcuate_ops::gradcheck::values;
    use arcuate_ops::linear_cross_entropy::CrossEntropy;
    use burn::tensor::Device;

    use crate::{Architecture, Dropout, Head, Input, ModelConfig, Network, Seen, Wanted};

    fn config(layers: usize, heads: usize, front: &str) -> ModelConfig {
        let (width, inner) = (64 * heads, 256 * heads);
        let text = format!(
            r#"{{"bert": {{"hidden_size": {width}, "num_layers": {layers}, "num_heads": {heads},
                "intermediate_size": {inner}, "max_seq_len": 128{front}}}}}"#
        );
        serde_json::from_str(&text).expect("a model")
    }

    const CONV_64: &str = r#", "conv_front": {"num_layers": 2, "kernel": [3, 3], "channels": 64}"#;
    const CONV_32: &str = r#", "conv_front": {"num_layers": 3, "kernel": [3, 3], "channels": 32}"#;

    fn architecture(layers: usize, heads: usize, front: &str, head: Head) -> Architecture {
        Architecture::new(&config(layers, heads, front), 30_522, head).expect("possible")
    }

    /// Parameters whose names begin with a text.
    fn count(architecture: &Architecture, start: &str) -> usize {
        let infos = architecture.parameters();
        infos.iter().filter(|info| !info.is_buffer() && info.name.starts_with(start)).map(|info| info.len()).sum()
    }

    #[test]
    fn parameters_are_as_many_as_published() {
        let deep = architecture(6, 12, "", Head::Tokens);
        assert_eq!(count(&deep, "bert.embeddings"), 23_542_272);
        assert_eq!(count(&deep, "bert.encoder.layer.0."), 7_087_872);
        assert_eq!(count(&deep, "cls."), 622_650);
        let labels = Head::Classes((0..64).map(|i| i.to_string()).collect());
        for (architecture, wanted) in [
            (deep, 66_692_154),
            (architecture(1, 12, "", Head::Tokens), 31_252_794),
            (architecture(1, 24, "", Head::Tokens), 77_810_490),
            (architecture(6, 12, "", labels), 66_709_312),
            (architecture(1, 12, CONV_64, Head::Tokens), 31_290_685),
            (architecture(1, 12, CONV_32, Head::Tokens), 31_271_837),
        ] {
            assert_eq!(count(&architecture, ""), wanted);
            assert!((architecture.estimate() / wanted as f64 - 1.0).abs() < 0.04);
        }
    }

    fn small(device: &Device) -> Network {
        let text = r#"{"bert": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24,
            "max_seq_len": 12, "dropout": 0.1, "conv_front": {"num_layers": 2, "kernel": [3, 3], "channels": 4}}}"#;
        let config: ModelConfig = serde_json::from_str(text).expect("a model");
        Network::init(Architecture::new(&config, 20, Head::Tokens).expect("possible"), 7, device)
    }

    /// Rows of these lengths, padded on the right to the longest.
    fn input(lengths: &[usize]) -> Input {
        let t = *lengths.iter().max().expect("a row");
        let mask: Vec<bool> = lengths.iter().flat_map(|len| (0..t).map(move |at| at < *len)).collect();
        let ids = (0..mask.len()).map(|i| if mask[i] { ((i % t) * 7 + 3) as i32 % 20 } else { 0 }).collect();
        Input::from_rows(lengths.len(), t, ids, &mask).expect("padding on the right")
    }

    fn hidden(network: &Network, lengths: &[usize], wanted: usize) -> Vec<f32> {
        let places: Arc<[i32]> = (0..wanted as i32).collect();
        values(network.forward(&input(lengths), &Wanted::Tokens(places)).expect("fits").logits())
    }

    #[test]
    fn with_convolutions_too_an_evaluation_does_not_depend_on_the_other_rows() {
        let network = small(&Device::flex());
        let alone = hidden(&network, &[5], 5);
        for others in [&[5, 3][..], &[5, 9, 2], &[5, 12, 1, 7]] {
            assert_eq!(hidden(&network, others, 5), alone, "{others:?}");
        }
    }

    fn pass(network: &Network, recompute: bool) -> (Vec<f32>, Vec<Vec<f32>>, Seen) {
        let seen = Seen::default();
        let dropout = Some(Dropout { seed: 1, step: 2 });
        let input = Input { recompute, dropout, seen: Some(seen.clone()), ..input(&[12, 3, 7]) };
        let places: Arc<[i32]> = [0, 5, 13, 25].into();
        let output = network.forward(&input, &Wanted::Tokens(places)).expect("fits");
        let loss = output.cross_entropy(&CrossEntropy::new([1, 2, 3, 4].into()));
        let grads = loss.clone().sum().backward();
        struct All<'a>(&'a burn::tensor::Gradients, Vec<Vec<f32>>);
        impl crate::Visit for All<'_> {
            fn visit<const D: usize>(&mut self, name: &str, value: &burn::module::Param<burn::tensor::Tensor<D>>) {
                let grad = value.val().grad(self.0);
                assert_eq!(grad.is_some(), !crate::is_buffer(name), "{name}");
                self.1.extend(grad.map(values));
            }
        }
        let mut all = All(&grads, Vec::new());
        network.visit(&mut all);
        (values(loss), all.1, seen)
    }

    #[test]
    fn a_training_pass_counts_once_even_where_layers_are_computed_again() {
        let network = small(&Device::flex().autodiff());
        let (kept, again) = (pass(&network, false), pass(&network, true));
        assert_eq!((&kept.0, &kept.1), (&again.0, &again.1));
        let folded = |seen: &Seen| network.clone().fold(seen).values();
        let (kept, again) = (folded(&kept.2), folded(&again.2));
        assert_eq!(kept, again);
        let changed = |name: &&String| kept[*name] != network.values()[*name];
        let changed: Vec<&String> = kept.keys().filter(changed).collect();
        assert_eq!(changed.len(), 6, "{changed:?}");
        assert!(changed.iter().all(|name| crate::is_buffer(name)));
    }

    #[test]
    fn padding_counts_in_the_statistics_of_a_batch() {
        let network = small(&Device::flex().autodiff());
        let seen = Seen::default();
        let input = Input { seen: Some(seen.clone()), ..input(&[5, 3]) };
        network.forward(&input, &Wanted::Tokens([0].into())).expect("fits");
        let rows: Vec<usize> = seen.take().iter().map(|(_, statistics)| statistics.rows).collect();
        assert_eq!(rows, [2 * 12 * 16; 3]);
    }

    fn tagger(crf: bool, device: &Device) -> Network {
        let text = r#"{"bert": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24,
            "max_seq_len": 12, "initializer_range": 0.3}}"#;
        let config: ModelConfig = serde_json::from_str(text).expect("a model");
        let head = Head::Tags { names: ["A", "B", "C"].map(str::to_owned).into(), crf };
        Network::init(Architecture::new(&config, 20, head).expect("possible"), 7, device)
    }

    #[test]
    fn a_tagger_projects_the_last_hidden_states_of_single_tokens() {
        let network = tagger(false, &Device::flex());
        let Network::Bert(bert) = &network else { panic!("{network:?}") };
        let input = input(&[4, 2]);
        let (weights, hidden) = (network.values(), values(bert.hidden(&input)));
        let logits = network.forward(&input, &Wanted::Tokens([2, 5].into())).expect("fits").logits();
        assert_eq!(logits.dims(), [2, 3]);
        let logits = values(logits);
        for (row, place) in [2, 5].into_iter().enumerate() {
            for tag in 0..3 {
                let weight = &weights["classifier.weight"].1[tag * 16..(tag + 1) * 16];
                let sum: f32 = weight.iter().zip(&hidden[place * 16..]).map(|(w, h)| w * h).sum();
                assert!((logits[row * 3 + tag] - sum - weights["classifier.bias"].1[tag]).abs() < 1e-5);
            }
        }
        let error = network.forward(&input, &Wanted::Rows).expect_err("rows have no output").to_string();
        assert!(error.contains("no class head"), "{error}");
    }

    #[test]
    fn transitions_are_learned_and_decide_with_the_logits() {
        let network = tagger(true, &Device::flex().autodiff());
        let places = || Wanted::Tokens([1, 2, 3, 13].into());
        let how = Crf { tags: [0, 2, 1, 1].into(), lengths: [3, 1].into() };
        let input = Input { dropout: Some(Dropout { seed: 1, step: 2 }), ..input(&[12, 3]) };
        let loss = network.forward(&input, &places()).expect("fits").crf(&how);
        let rows = network.forward(&input, &places()).expect("fits").crf_rows(&how);
        assert!((values(loss.clone())[0] - rows.0.iter().sum::<f32>()).abs() < 1e-5);
        let grads = loss.backward();
        let Network::Bert(bert) = &network else { panic!("{network:?}") };
        let crf = bert.crf.as_ref().expect("transitions");
        let grad = values(crf.transitions.val().grad(&grads).expect("trained"));
        assert!(grad.iter().sum::<f32>().abs() < 1e-5 && grad.iter().any(|g| g.abs() > 1e-3), "{grad:?}");
        // With a wall between all tags but one and itself the whole row is that one.
        let walls = network.valid().fill(|name, _| {
            let wall = |i: usize| if i == 4 { 0.0 } else { -1e4 };
            (name == "crf.transitions").then(|| (0..9).map(wall).collect())
        });
        let best = |lengths: &[usize]| walls.forward(&input, &places()).expect("fits").best(lengths);
        assert_eq!(best(&[4]), [1; 4]);
        let none = network.valid().forward(&input, &Wanted::Tokens([].into())).expect("fits");
        assert_eq!(none.best(&[0, 0]), [0; 0]);
    }

    #[test]
    fn nothing_tagged_is_a_loss_of_nothing() {
        let how = Crf { tags: [].into(), lengths: [0, 0].into() };
        for network in [tagger(true, &Device::flex().autodiff()), tagger(true, &Device::flex())] {
            let output = network.forward(&input(&[4, 2]), &Wanted::Tokens([].into())).expect("fits");
            assert_eq!(output.crf(&how).into_scalar::<f32>(), 0.0);
        }
    }

    #[test]
    fn nothing_wanted_is_a_loss_of_nothing() {
        for network in [small(&Device::flex().autodiff()), small(&Device::flex())] {
            let output = network.forward(&input(&[4, 2]), &Wanted::Tokens([].into())).expect("fits");
            let loss = output.cross_entropy(&CrossEntropy::new([].into()));
            assert_eq!(loss.into_scalar::<f32>(), 0.0);
        }
    }
}
