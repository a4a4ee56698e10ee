//! Everything that fixes a speech network, whichever of the published ones it is.

use arcuate_data::Downsampling;
use arcuate_ops::activation::Form;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::network::Head;

/// Taps of the convolutions of an adapter, in all published networks.
pub(crate) const ADAPTER_KERNEL: usize = 3;

/// Which published network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// wav2vec 2.0
    Wav2Vec2,
    /// HuBERT
    Hubert,
    /// wav2vec 2.0 with conformer layers
    Wav2Vec2Conformer,
    /// w2v-BERT 2.0
    Wav2Vec2Bert,
    /// The encoder of SpeechT5
    SpeechT5,
}

impl Kind {
    /// Those that are networks of their own.
    pub(crate) const ALL: [Self; 4] = [Self::Wav2Vec2, Self::Hubert, Self::Wav2Vec2Conformer, Self::Wav2Vec2Bert];

    /// Our name: the table of a recipe, and the beginning of the names of tensors.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wav2Vec2 => "wav2vec2",
            Self::Hubert => "hubert",
            Self::Wav2Vec2Conformer => "wav2vec2_conformer",
            Self::Wav2Vec2Bert => "wav2vec2_bert",
            Self::SpeechT5 => "speecht5",
        }
    }

    /// `model_type` of `config.json`.
    pub(crate) fn model_type(self) -> &'static str {
        match self {
            Self::Wav2Vec2Conformer => "wav2vec2-conformer",
            Self::Wav2Vec2Bert => "wav2vec2-bert",
            other => other.name(),
        }
    }

    /// The beginning of the names of classes in `config.json`.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Wav2Vec2 => "Wav2Vec2",
            Self::Hubert => "Hubert",
            Self::Wav2Vec2Conformer => "Wav2Vec2Conformer",
            Self::Wav2Vec2Bert => "Wav2Vec2Bert",
            Self::SpeechT5 => "SpeechT5",
        }
    }

    /// Whether there is a published network of this kind with a quantizer.
    pub(crate) fn has_quantizer(self) -> bool {
        matches!(self, Self::Wav2Vec2 | Self::Wav2Vec2Conformer)
    }
}

/// How features are normalised between convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FeatureNorm {
    /// Each channel over time, after the first convolution only. Results depend on how far a row is padded.
    Group,
    /// All channels of a frame, after every convolution.
    Layer,
}

/// One convolution over samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvLayer {
    /// Outputs.
    pub channels: usize,
    /// Taps.
    pub kernel: usize,
    /// Positions from one output to the next.
    pub stride: usize,
}

/// What turns sound into frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Front {
    /// Convolutions over samples.
    Waves {
        /// The first one first.
        layers: Vec<ConvLayer>,
        /// The norm between them.
        norm: FeatureNorm,
        /// Whether they have a bias.
        bias: bool,
    },
    /// Nothing: frames of so many numbers come in.
    Frames(usize),
}

impl Front {
    /// Numbers of a frame that leaves it.
    pub(crate) fn channels(&self) -> usize {
        match self {
            Self::Waves { layers, .. } => layers.last().map_or(1, |layer| layer.channels),
            Self::Frames(features) => *features,
        }
    }

    /// Kernel and stride of each layer.
    pub(crate) fn downsampling(&self) -> Downsampling {
        match self {
            Self::Waves { layers, .. } => {
                Downsampling { layers: layers.iter().map(|layer| (layer.kernel, layer.stride)).collect() }
            }
            Self::Frames(_) => Downsampling::default(),
        }
    }
}

/// How attention knows how far apart frames are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Positions {
    /// It does not.
    None,
    /// Sines of the distance (Transformer-XL).
    Relative,
    /// Turned queries and keys.
    Rotary {
        /// Base of the frequencies.
        base: f64,
    },
    /// A learned vector for each distance, those beyond the last like the last.
    Key {
        /// Farthest earlier frame.
        left: usize,
        /// Farthest later frame.
        right: usize,
    },
}

/// The layers of the encoder.
#[derive(Debug, Clone, PartialEq)]
pub enum Blocks {
    /// Transformer layers behind a convolution that carries positions.
    Transformer {
        /// Norms before attention and feed-forward instead of after.
        pre_norm: bool,
        /// Width of a small adapter in each layer.
        attention_adapter: Option<usize>,
    },
    /// Conformer layers.
    Conformer {
        /// Positions of attention.
        positions: Positions,
        /// Longest distance that was trained; only a note for other programs.
        max_positions: usize,
        /// Taps of the convolution.
        kernel: usize,
    },
}

/// The convolution that carries positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PositionSizes {
    /// Taps.
    pub kernel: usize,
    /// Groups of channels.
    pub groups: usize,
}

/// Which adapter stands behind the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterForm {
    /// Convolutions with gates.
    Conv,
    /// Layers with convolutions, attention and a feed-forward part.
    Attending {
        /// The function inside the feed-forward part.
        form: Activation,
    },
}

/// Sizes of an adapter behind the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdapterSizes {
    /// Which one.
    pub form: AdapterForm,
    /// Layers.
    pub num_layers: usize,
    /// Frames from one output to the next, in each layer.
    pub stride: usize,
    /// Width of the result.
    pub output_size: usize,
}

impl AdapterSizes {
    /// Frames that one layer makes of so many.
    pub(crate) fn num_frames(&self, frames: usize) -> usize {
        if frames == 0 { 0 } else { (frames - 1) / self.stride + 1 }
    }
}

/// A quantizer and the space in which its entries are compared with what the encoder says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuantizerConfig {
    /// Codebooks, each of which gives an entry.
    #[schemars(range(min = 1))]
    pub num_codebooks: usize,
    /// Entries of each codebook.
    #[schemars(range(min = 2))]
    pub codebook_size: usize,
    /// Numbers of the entries of all codebooks side by side; `num_codebooks` divides it.
    #[schemars(range(min = 1))]
    pub code_size: usize,
    /// Numbers of the projected entries and queries that are compared.
    #[schemars(range(min = 1))]
    pub projection_size: usize,
}

/// A function inside layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// GELU.
    Gelu,
    /// GELU in its tanh form.
    GeluTanh,
    /// SiLU.
    Silu,
    /// ReLU.
    Relu,
}

impl Activation {
    /// From its name in `config.json`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "gelu" => Some(Self::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Some(Self::GeluTanh),
            "silu" | "swish" => Some(Self::Silu),
            "relu" => Some(Self::Relu),
            _ => None,
        }
    }

    /// Its name in `config.json`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu_new",
            Self::Silu => "swish",
            Self::Relu => "relu",
        }
    }
}

impl From<Activation> for Form {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Gelu => Self::GeluErf,
            Activation::GeluTanh => Self::GeluTanh,
            Activation::Silu => Self::Silu,
            Activation::Relu => Self::Relu,
        }
    }
}

/// Probabilities of dropping something in training.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rates {
    /// What goes into the first layer, and what attention and feed-forward add.
    pub hidden: f64,
    /// Attention probabilities.
    pub attention: f64,
    /// Inside feed-forward layers.
    pub activation: f64,
    /// Projected features.
    pub projection: f64,
    /// Features before the quantizer.
    pub features: f64,
    /// What goes into the last map over a vocabulary.
    pub last: f64,
    /// What the convolution of a conformer layer adds.
    pub conv: f64,
    /// Whole layers.
    pub layer: f64,
}

/// Everything that fixes a speech network and its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// Which published network.
    pub kind: Kind,
    /// Sound to frames.
    pub front: Front,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Encoder layers.
    pub num_layers: usize,
    /// Heads of attention.
    pub num_heads: usize,
    /// Inner width of feed-forward layers.
    pub intermediate_size: usize,
    /// The layers.
    pub blocks: Blocks,
    /// The convolution that carries positions; conformers own one without using it.
    pub positions: Option<PositionSizes>,
    /// The function inside feed-forward layers.
    pub activation: Activation,
    /// The function behind convolutions.
    pub feature_activation: Activation,
    /// Whether features are normalised before they are projected.
    pub projection_norm: bool,
    /// Epsilon of the norms of the encoder.
    pub layer_norm_eps: f64,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// What is dropped in training.
    pub rates: Rates,
    /// Whether there is a learned vector for hidden frames.
    pub mask_vector: bool,
    /// Whether hidden frames and channels are hidden at all.
    pub hides: bool,
    /// A feed-forward layer behind the encoder.
    pub intermediate_ffn: bool,
    /// What makes fewer frames behind the encoder.
    pub adapter: Option<AdapterSizes>,
    /// The quantizer, which only a network in pretraining holds.
    pub quantizer: Option<QuantizerConfig>,
    /// Factor of the gradients of the convolutions over samples; 0: these are frozen.
    pub feature_gradient_scale: f64,
    /// Rows of the last map.
    pub vocab_size: usize,
    /// What stands on the encoder.
    pub head: Head,
}

impl Architecture {
    /// What makes these sizes impossible.
    pub(crate) fn problem(&self) -> Option<String> {
        let zero = |name: &str, value: usize| (value == 0).then(|| format!("`{name}` is 0"));
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("num_layers", self.num_layers),
            ("num_heads", self.num_heads),
            ("intermediate_size", self.intermediate_size),
        ];
        if let Some(problem) = sizes.into_iter().find_map(|(name, value)| zero(name, value)) {
            return Some(problem);
        }
        let width = self.hidden_size;
        if !width.is_multiple_of(self.num_heads) {
            return Some(format!("{} heads do not divide hidden_size {width}", self.num_heads));
        }
        if let Front::Waves { layers, .. } = &self.front
            && (layers.is_empty() || layers.iter().any(|l| l.channels == 0 || l.kernel == 0 || l.stride == 0))
        {
            return Some("a convolution needs channels, taps and a stride of at least 1".to_string());
        }
        if let Some(PositionSizes { kernel, groups }) = self.positions
            && (kernel == 0 || groups == 0 || !width.is_multiple_of(groups))
        {
            return Some(format!("{groups} groups of the convolution of positions do not divide hidden_size {width}"));
        }
        if let Blocks::Conformer { positions, kernel, .. } = &self.blocks {
            if kernel.is_multiple_of(2) {
                return Some(format!("the convolution of a conformer layer has {kernel} taps, which is not odd"));
            }
            let is_odd = !(width / self.num_heads).is_multiple_of(2) || !width.is_multiple_of(2);
            if is_odd && matches!(positions, Positions::Relative | Positions::Rotary { .. }) {
                return Some(format!("{} heads of hidden_size {width} have no pairs of channels", self.num_heads));
            }
        }
        if let Some(adapter) = &self.adapter {
            if adapter.num_layers == 0 || adapter.stride == 0 || adapter.output_size == 0 {
                return Some("an adapter needs layers, a stride and a width of at least 1".to_string());
            }
            if matches!(adapter.form, AdapterForm::Attending { .. })
                && (adapter.stride != 2 || !adapter.output_size.is_multiple_of(self.num_heads))
            {
                return Some(
                    "an adapter that attends needs the stride 2 and a width that the heads divide".to_string(),
                );
            }
        }
        self.quantizer_problem()
    }

    fn quantizer_problem(&self) -> Option<String> {
        let Head::Codes = self.head else { return None };
        if !self.kind.has_quantizer() {
            return Some(format!("`{}` has no quantizer; use `[model.wav2vec2]`", self.kind.name()));
        }
        if self.adapter.is_some() {
            return Some("frames behind an adapter cannot be compared with codes; leave out the adapter".to_string());
        }
        let Some(q) = &self.quantizer else {
            let table = self.kind.name();
            return Some(format!(
                "there is no quantizer; give `[model.{table}.quantizer]` or choose another objective"
            ));
        };
        if q.num_codebooks == 0 || q.codebook_size < 2 || q.projection_size == 0 {
            return Some("a quantizer needs a codebook, two entries of each and a width of comparison".to_string());
        }
        (q.code_size == 0 || !q.code_size.is_multiple_of(q.num_codebooks))
            .then(|| format!("{} codebooks do not divide code_size {}", q.num_codebooks, q.code_size))
    }

    /// Width of what the head reads.
    pub(crate) fn output_size(&self) -> usize {
        self.adapter.as_ref().map_or(self.hidden_size, |adapter| adapter.output_size)
    }

    /// How many frames are made of so many steps of sound.
    pub fn downsampling(&self) -> Downsampling {
        let mut downsampling = self.front.downsampling();
        if let Some(adapter) = &self.adapter {
            downsampling.layers.extend(std::iter::repeat_n((1, adapter.stride), adapter.num_layers));
        }
        downsampling
    }

    /// Numbers of a step of sound.
    pub(crate) fn num_features(&self) -> usize {
        match self.front {
            Front::Waves { .. } => 1,
            Front::Frames(features) => features,
        }
    }

    /// About how many parameters there are, by arithmetic alone.
    pub(crate) fn estimate(&self) -> f64 {
        let f = |n: usize| n as f64;
        let width = f(self.hidden_size);
        let front: f64 = match &self.front {
            Front::Frames(_) => 0.0,
            Front::Waves { layers, .. } => {
                let inputs = std::iter::once(1).chain(layers.iter().map(|layer| layer.channels));
                inputs.zip(layers).map(|(inputs, layer)| f(inputs) * f(layer.channels) * f(layer.kernel)).sum()
            }
        };
        let projection = f(self.front.channels()) * width;
        let positions = self.positions.map_or(0.0, |p| width * width / f(p.groups) * f(p.kernel));
        let feed_forward = |width: f64| 2.0 * width * f(self.intermediate_size);
        let layer = match &self.blocks {
            Blocks::Transformer { attention_adapter, .. } => {
                let adapter = 2.0 * f(attention_adapter.unwrap_or(0)) * width;
                4.0 * width * width + feed_forward(width) + adapter
            }
            Blocks::Conformer { positions, kernel, .. } => {
                let maps = if *positions == Positions::Relative { 8.0 } else { 7.0 };
                maps * width * width + 2.0 * feed_forward(width) + f(*kernel) * width
            }
        };
        let out = f(self.output_size());
        let adapter = self.adapter.map_or(0.0, |adapter| {
            let conv = 2.0 * out * out * f(ADAPTER_KERNEL);
            let layer = match adapter.form {
                AdapterForm::Conv => conv,
                AdapterForm::Attending { .. } => 2.0 * conv + 4.0 * out * out + feed_forward(out),
            };
            f(adapter.num_layers) * layer + if out == width { 0.0 } else { out * width }
        });
        let head = match (&self.head, &self.quantizer) {
            (Head::Tokens, _) => out * f(self.vocab_size),
            (Head::Codes, Some(q)) => {
                let entries = f(q.num_codebooks) * f(q.codebook_size);
                entries * (f(self.front.channels()) + f(q.code_size) / f(q.num_codebooks))
                    + f(q.projection_size) * (width + f(q.code_size))
            }
            _ => 0.0,
        };
        let ffn = if self.intermediate_ffn { feed_forward(width) } else { 0.0 };
        front + projection + positions + f(self.num_layers) * layer + ffn + adapter + head
    }

    /// Floating-point operations of one frame on the way forward, in rows of `row_len` frames: two for each weight each
    /// time it multiplies, `4 T C` for attention in each layer.
    pub(crate) fn forward_flops(&self, row_len: usize) -> f64 {
        let f = |n: usize| n as f64;
        // Encoder frames for each frame that leaves the network, and how often a convolution runs for each encoder frame.
        let shrinks = self.adapter.map_or(1.0, |a| f(a.stride).powi(a.num_layers as i32));
        let convolutions: f64 = match &self.front {
            Front::Frames(_) => 0.0,
            Front::Waves { layers, .. } => {
                let inputs: Vec<usize> = std::iter::once(1).chain(layers.iter().map(|layer| layer.channels)).collect();
                let mut later = 1.0;
                let mut sum = 0.0;
                for (layer, inputs) in layers.iter().zip(inputs).rev() {
                    sum += later * f(inputs) * f(layer.channels) * f(layer.kernel);
                    later *= f(layer.stride);
                }
                sum
            }
        };
        let once = match &self.front {
            Front::Frames(_) => 0.0,
            Front::Waves { layers, .. } => {
                let inputs = std::iter::once(1).chain(layers.iter().map(|layer| layer.channels));
                inputs.zip(layers).map(|(inputs, layer)| f(inputs) * f(layer.channels) * f(layer.kernel)).sum()
            }
        };
        let attention = f(self.num_layers) * f(row_len) * shrinks * f(self.hidden_size);
        shrinks * (2.0 * (self.estimate() - once + convolutions) + 4.0 * attention)
    }
}
