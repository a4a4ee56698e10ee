//! SpeechT5 that writes what it hears: the encoder of wav2vec 2.0 with two more kinds of positions, and a decoder of tokens.
//!
//! Frames are those of wav2vec 2.0. They get positions by a convolution, sines of their number, and in attention a learned
//! vector for each distance, which all layers share. As published, padding is not set to zero before the convolution, so
//! that a row depends on how far it is padded; it is no key of attention. The decoder reads the tokens before each one with
//! sines of their number, reads all frames that are no padding, and predicts the next token with the table of tokens.
//!
//! # Recipe
//! `[model.speecht5]`
//! # Reference
//! Ao et al. 2022
// B rows, T frames, U tokens, C channels, V vocabulary, R distances

mod public;
mod sines;

use arcuate_data::{Downsampling, Sound};
use arcuate_ops::attention::Attention;
use arcuate_ops::recompute::recompute;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::input::{Input, Wanted};
use crate::layer::{ConvEncoder, DecoderLayer, Embedding, LayerNorm, Linear, Pass, PositionConv, TransformerLayer};
use crate::network::{Head, Network, chosen, no_head};
use crate::speech::{
    self, Activation, Blocks, ENCODER, FeatureNorm, Kind, PROJECTION, PositionSizes, Projection, Rates, flat,
};
use crate::wav2vec2::{
    default_conv_kernels, default_conv_strides, default_layer_norm_eps, default_one, default_position_groups,
    default_position_kernel, waves,
};
use crate::{Error, Output, Result, TokenIds};

pub(crate) use public::{read, write};
use sines::{positions, sines};

/// Dropout site of the embedded tokens, beside those of the encoder.
const EMBEDDED: u64 = 4;

/// `[model.speecht5]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Width of the residual stream of encoder and decoder.
    #[schemars(range(min = 4))]
    pub hidden_size: usize,
    /// Number of encoder layers.
    #[schemars(range(min = 1))]
    pub num_layers: usize,
    /// Number of heads of the encoder; divides `hidden_size`.
    #[schemars(range(min = 1))]
    pub num_heads: usize,
    /// Width of the feed-forward layers of the encoder.
    #[schemars(range(min = 1))]
    pub intermediate_size: usize,
    /// Sizes of the decoder.
    pub decoder: DecoderConfig,
    /// Channels of every convolution over samples.
    #[schemars(range(min = 1))]
    pub conv_channels: usize,
    /// Taps of each convolution; left out: the published 10, 3, 3, 3, 3, 2, 2, a frame of 25 ms at 16 kHz.
    #[serde(default = "default_conv_kernels")]
    pub conv_kernels: Vec<usize>,
    /// Stride of each convolution; left out: the published 5, 2, 2, 2, 2, 2, 2, a frame every 20 ms at 16 kHz.
    #[serde(default = "default_conv_strides")]
    pub conv_strides: Vec<usize>,
    /// Whether the convolutions have a bias (published: no).
    #[serde(default)]
    pub conv_bias: bool,
    /// The norm between convolutions (published: `group`).
    pub feature_norm: FeatureNorm,
    /// Taps of the convolution that carries positions.
    #[serde(default = "default_position_kernel")]
    #[schemars(range(min = 1))]
    pub position_kernel: usize,
    /// Groups of that convolution; divides `hidden_size`.
    #[serde(default = "default_position_groups")]
    #[schemars(range(min = 1))]
    pub position_groups: usize,
    /// Frames up to which distances in attention have vectors of their own (published: 160).
    #[serde(default = "default_max_distance")]
    #[schemars(range(min = 1))]
    pub max_distance: usize,
    /// Probability of dropping what attention and feed-forward layers add, and what goes into the first layer in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub dropout: f64,
    /// Probability of dropping an attention probability in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub attention_dropout: f64,
    /// Probability of dropping an inner activation of feed-forward layers in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub activation_dropout: f64,
    /// Probability of dropping a projected feature in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub projection_dropout: f64,
    /// Probability of dropping a whole encoder layer in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub layer_drop: f64,
    /// Epsilon of LayerNorm.
    #[serde(default = "default_layer_norm_eps")]
    pub layer_norm_eps: f64,
    /// Standard deviation of initial weights.
    #[serde(default = "crate::llama::default_initializer_range")]
    pub initializer_range: f64,
    /// Factor of the gradients of the convolutions over samples; 0: frozen.
    #[serde(default = "default_one")]
    #[schemars(range(min = 0.0))]
    pub feature_gradient_scale: f64,
    /// Whether embeddings of tokens are multiplied by the square root of `hidden_size` (published: no).
    #[serde(default)]
    pub scale_embedding: bool,
    /// Whether the table of tokens is the last map, too (published: yes).
    #[serde(default = "default_true")]
    pub tie_word_embeddings: bool,
}

/// `[model.speecht5.decoder]`
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecoderConfig {
    /// Number of layers.
    #[schemars(range(min = 1))]
    pub num_layers: usize,
    /// Number of heads; divides `hidden_size`.
    #[schemars(range(min = 1))]
    pub num_heads: usize,
    /// Width of the feed-forward layers.
    #[schemars(range(min = 1))]
    pub intermediate_size: usize,
    /// Probability of dropping what goes into the first layer in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub positional_dropout: f64,
    /// Probability of dropping a whole layer in training.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub layer_drop: f64,
}

fn default_max_distance() -> usize {
    160
}
fn default_true() -> bool {
    true
}

/// Everything that fixes the network and its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// The encoder, with the rates and the vocabulary that both parts have.
    pub encoder: speech::Architecture,
    /// The decoder.
    pub decoder: DecoderConfig,
    /// Frames up to which distances have vectors of their own.
    pub max_distance: usize,
    /// Whether embeddings of tokens are multiplied by the square root of the width.
    pub scale_embedding: bool,
    /// Whether the table of tokens is the last map, too.
    pub tie_word_embeddings: bool,
    /// The token that fills rows: it has no position, and as a token that is read it gets no gradient.
    pub pad: u32,
    /// The token before the first one.
    pub start: u32,
    /// Longest sound in frames; only a note for other programs.
    pub max_speech_positions: usize,
    /// Longest text in tokens; only a note for other programs.
    pub max_text_positions: usize,
}

/// The network of a recipe.
pub(crate) fn architecture(config: &Config, vocab_size: usize) -> Architecture {
    Architecture {
        encoder: speech::Architecture {
            kind: Kind::SpeechT5,
            front: waves(
                (config.conv_channels, &config.conv_kernels, &config.conv_strides),
                config.feature_norm,
                config.conv_bias,
            ),
            hidden_size: config.hidden_size,
            num_layers: config.num_layers,
            num_heads: config.num_heads,
            intermediate_size: config.intermediate_size,
            blocks: Blocks::Transformer { pre_norm: false, attention_adapter: None },
            positions: Some(PositionSizes { kernel: config.position_kernel, groups: config.position_groups }),
            activation: Activation::Gelu,
            feature_activation: Activation::Gelu,
            projection_norm: true,
            layer_norm_eps: config.layer_norm_eps,
            initializer_range: config.initializer_range,
            rates: Rates {
                hidden: config.dropout,
                attention: config.attention_dropout,
                activation: config.activation_dropout,
                projection: config.projection_dropout,
                layer: config.layer_drop,
                ..Rates::default()
            },
            mask_vector: true,
            hides: true,
            intermediate_ffn: false,
            adapter: None,
            quantizer: None,
            feature_gradient_scale: config.feature_gradient_scale,
            vocab_size,
            head: Head::Decoder,
        },
        decoder: config.decoder,
        max_distance: config.max_distance,
        scale_embedding: config.scale_embedding,
        tie_word_embeddings: config.tie_word_embeddings,
        pad: 1,
        start: 2,
        max_speech_positions: public::MAX_SPEECH_POSITIONS,
        max_text_positions: public::MAX_TEXT_POSITIONS,
    }
}

impl Architecture {
    /// What makes these sizes impossible.
    pub(crate) fn problem(&self) -> Option<String> {
        let (decoder, width, vocab) = (&self.decoder, self.encoder.hidden_size, self.encoder.vocab_size);
        if let Some(problem) = self.encoder.problem() {
            return Some(problem);
        }
        if self.encoder.head != Head::Decoder {
            return Some("SpeechT5 writes with a decoder and has no other head".to_string());
        }
        if decoder.num_layers == 0 || decoder.num_heads == 0 || decoder.intermediate_size == 0 {
            return Some("a decoder needs layers, heads and an inner width of at least 1".to_string());
        }
        if !width.is_multiple_of(decoder.num_heads) {
            return Some(format!("{} heads of the decoder do not divide hidden_size {width}", decoder.num_heads));
        }
        if width < 4 {
            return Some(format!("hidden_size {width} is too small for sines of positions, which need 4"));
        }
        if self.max_distance == 0 {
            return Some("distances in attention need at least one vector on either side".to_string());
        }
        let outside = [("padding", self.pad), ("start", self.start)].into_iter().find(|(_, id)| *id as usize >= vocab);
        outside.map(|(what, id)| format!("the {what} token {id} is outside of the vocabulary of {vocab}"))
    }

    /// The same for a tokenizer with these special tokens; as published, what ends a text begins the next one.
    pub(crate) fn set_ids(&mut self, ids: TokenIds) {
        self.pad = ids.pad.unwrap_or(self.pad);
        self.start = ids.eos.unwrap_or(self.start);
    }

    /// How many frames are made of so many samples.
    pub fn downsampling(&self) -> Downsampling {
        self.encoder.downsampling()
    }

    /// The tokens that the decoder reads to predict these labels, rows of `len`: each row one place later, behind the start
    /// token; negative labels, which are not predicted, become padding.
    pub(crate) fn decoder_inputs(&self, labels: &[i32], len: usize) -> Vec<i32> {
        let (pad, start) = (self.pad as i32, self.start as i32);
        let row = |row: &[i32]| {
            let before = row.iter().take(len.saturating_sub(1)).map(|label| if *label < 0 { pad } else { *label });
            std::iter::once(start).chain(before).collect::<Vec<_>>()
        };
        labels.chunks(len.max(1)).flat_map(row).collect()
    }

    /// About how many parameters there are, by arithmetic alone.
    pub(crate) fn estimate(&self) -> f64 {
        let f = |n: usize| n as f64;
        let (encoder, width) = (&self.encoder, f(self.encoder.hidden_size));
        let distances = 2.0 * f(self.max_distance) * width / f(encoder.num_heads);
        let tables = if self.tie_word_embeddings { 1.0 } else { 2.0 };
        encoder.estimate() + distances + self.decoder_weights() + tables * f(encoder.vocab_size) * width
    }

    fn decoder_weights(&self) -> f64 {
        let f = |n: usize| n as f64;
        let width = f(self.encoder.hidden_size);
        f(self.decoder.num_layers) * (8.0 * width * width + 2.0 * width * f(self.decoder.intermediate_size))
    }

    /// Floating-point operations of one frame on the way forward, in rows of `row_len` frames, if there are as many tokens:
    /// more than there ever are.
    pub(crate) fn forward_flops(&self, row_len: usize) -> f64 {
        let f = |n: usize| n as f64;
        let width = f(self.encoder.hidden_size);
        // Every head of every layer multiplies its query with all vectors of distances.
        let distances = 2.0 * f(self.max_distance) * width * f(self.encoder.num_layers);
        let attention = 2.0 * f(self.decoder.num_layers) * f(row_len) * width;
        let written = self.decoder_weights() + f(self.encoder.vocab_size) * width;
        self.encoder.forward_flops(row_len) + 2.0 * (written + distances) + 4.0 * attention
    }
}

/// Sound to frames with positions.
#[derive(Module, Debug)]
struct SpeechPrenet {
    feature_encoder: ConvEncoder,
    feature_projection: Projection,
    masked_spec_embed: Option<Param<Tensor<1>>>,
    pos_conv_embed: PositionConv,
}

/// A vector for each distance.
#[derive(Module, Debug)]
struct Distances {
    pe_k: Embedding,
}

#[derive(Module, Debug)]
struct WrappedEncoder {
    layer_norm: LayerNorm,
    layers: Vec<TransformerLayer>,
    embed_positions: Distances,
}

#[derive(Module, Debug)]
struct Encoder {
    prenet: SpeechPrenet,
    wrapped_encoder: WrappedEncoder,
}

#[derive(Module, Debug)]
struct TextPrenet {
    embed_tokens: Embedding,
}

#[derive(Module, Debug)]
struct WrappedDecoder {
    layers: Vec<DecoderLayer>,
}

#[derive(Module, Debug)]
struct Decoder {
    prenet: TextPrenet,
    wrapped_decoder: WrappedDecoder,
}

#[derive(Module, Debug)]
struct Body {
    encoder: Encoder,
    decoder: Decoder,
}

/// The last map, where it is not the table of tokens.
#[derive(Module, Debug)]
struct Postnet {
    lm_head: Linear,
}

/// The network; its fields spell the public tensor names.
#[derive(Module, Debug)]
pub struct SpeechT5 {
    speecht5: Body,
    text_decoder_postnet: Option<Postnet>,
    #[module(skip)]
    architecture: Architecture,
}

impl SpeechT5 {
    /// A network whose weights are all zero.
    pub(crate) fn new(architecture: Architecture, device: &Device) -> Self {
        let a = &architecture.encoder;
        let (width, features) = (a.hidden_size, a.front.channels());
        let norm = |channels| LayerNorm::new(channels, a.layer_norm_eps, device);
        let encoder_layer =
            |_| TransformerLayer::new([width, a.intermediate_size], a.layer_norm_eps, false, None, device);
        let decoder_layer =
            |_| DecoderLayer::new([width, architecture.decoder.intermediate_size], a.layer_norm_eps, device);
        // An encoder over feature frames is refused when a configuration is read.
        let (layers, feature_norm, bias) = match &a.front {
            speech::Front::Waves { layers, norm, bias } => (layers.as_slice(), *norm, *bias),
            speech::Front::Frames(_) => (&[][..], FeatureNorm::Group, false),
        };
        let positions = a.positions.unwrap_or(PositionSizes { kernel: 1, groups: 1 });
        Self {
            speecht5: Body {
                encoder: Encoder {
                    prenet: SpeechPrenet {
                        feature_encoder: ConvEncoder::new(layers, feature_norm, bias, device),
                        feature_projection: Projection {
                            layer_norm: Some(norm(features)),
                            projection: Linear::new(features, width, true, device),
                        },
                        masked_spec_embed: a.mask_vector.then(|| Param::from_tensor(Tensor::zeros([width], device))),
                        pos_conv_embed: PositionConv::new(width, positions.kernel, positions.groups, device),
                    },
                    wrapped_encoder: WrappedEncoder {
                        layer_norm: norm(width),
                        layers: (0..a.num_layers).map(encoder_layer).collect(),
                        embed_positions: Distances {
                            pe_k: Embedding::new(2 * architecture.max_distance, width / a.num_heads, device),
                        },
                    },
                },
                decoder: Decoder {
                    prenet: TextPrenet { embed_tokens: Embedding::new(a.vocab_size, width, device) },
                    wrapped_decoder: WrappedDecoder {
                        layers: (0..architecture.decoder.num_layers).map(decoder_layer).collect(),
                    },
                },
            },
            text_decoder_postnet: (!architecture.tie_word_embeddings)
                .then(|| Postnet { lm_head: Linear::new(width, a.vocab_size, false, device) }),
            architecture,
        }
    }

    /// The network with fresh weights as published: those of speech networks, and zeros for the token that fills rows.
    pub(crate) fn init(self, seed: u64) -> Network {
        let (scale, pad) = (self.architecture.encoder.initializer_range, self.architecture.pad as usize);
        let width = self.architecture.encoder.hidden_size;
        let network = speech::fresh(Network::SpeechT5(self), scale, seed);
        let values = network.values();
        network.fill(|name, _| {
            let mut table = values.get(name).filter(|_| name.ends_with("embed_tokens.weight"))?.1.clone();
            table.iter_mut().skip(pad * width).take(width).for_each(|x| *x = 0.0);
            Some(table)
        })
    }

    pub(crate) fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The table of tokens.
    pub(crate) fn table(&self) -> &Embedding {
        &self.speecht5.decoder.prenet.embed_tokens
    }

    /// The output over the vocabulary for the wanted tokens: what the decoder says behind each, having read all before.
    pub(crate) fn forward(&self, input: &Input, wanted: &Wanted) -> Result<Output> {
        let sound = self.architecture.encoder.fits(input)?;
        self.reads(input, sound)?;
        let hidden = || flat(self.decoded(input, sound, self.encoded(input, sound, usize::MAX)));
        let hidden = match wanted {
            Wanted::All => hidden(),
            Wanted::Tokens(places) => chosen(hidden(), places),
            Wanted::Codes(_) => return Err(no_head("quantizer")),
            Wanted::Rows | Wanted::RowsAndTokens(_) => return Err(no_head("class")),
        };
        Ok(match &self.text_decoder_postnet {
            Some(postnet) => postnet.lm_head.output(hidden),
            None => self.table().output(hidden, None),
        })
    }

    /// What comes out of the given number of encoder layers (0: what goes into the first) `[B*T, C]`.
    pub(crate) fn layer_output(&self, input: &Input, num_layers: usize) -> Result<Tensor<2>> {
        let sound = self.architecture.encoder.fits(input)?;
        let all = self.architecture.encoder.num_layers;
        if num_layers > all {
            return Err(Error::Unsupported(format!("there is no layer {num_layers}; the encoder has {all}")));
        }
        Ok(flat(self.encoded(input, sound, num_layers)))
    }

    /// Whether the tokens are ones that the decoder can read beside the sound.
    fn reads(&self, input: &Input, sound: &Sound) -> Result<()> {
        let unsupported = |text: String| Err(Error::Unsupported(text));
        let (rows, len, vocab) = (input.num_rows, input.seq_len, self.architecture.encoder.vocab_size);
        if input.ids.is_empty() {
            return unsupported(
                "`speecht5` predicts each token from those before it, and there are none; give it tokens with the sound"
                    .to_string(),
            );
        }
        if rows != sound.num_rows() || input.ids.len() != rows * len || input.may_attend.len() != rows * len {
            let (tokens, heard) = (input.ids.len(), sound.num_rows());
            return unsupported(format!(
                "{tokens} tokens in {rows} rows of {len} do not belong to {heard} rows of sound"
            ));
        }
        match input.ids.iter().find(|id| **id < 0 || **id as usize >= vocab) {
            Some(id) => unsupported(format!(
                "token {id} is outside of the model's vocabulary of {vocab}; use the tokenizer that lies beside the model"
            )),
            None => Ok(()),
        }
    }

    /// What comes out of so many encoder layers, or of all where there are fewer `[B, T, C]`.
    fn encoded(&self, input: &Input, sound: &Sound, num_layers: usize) -> Tensor<3> {
        let a = &self.architecture.encoder;
        let Encoder { prenet, wrapped_encoder } = &self.speecht5.encoder;
        let (features, _) = a.features(sound, Some(&prenet.feature_encoder), &prenet.feature_projection);
        let [b, t, _] = features.raw.dims();
        let pass = a.pass(input, sound, t);
        let x = prenet.feature_projection.projection.forward(features.normalised);
        let x = pass.drop_outside(x, a.rates.projection, PROJECTION);
        // As published, padding is not set to zero here.
        let x = a.hiding(x, prenet.masked_spec_embed.as_ref(), sound);
        let groups = a.positions.map_or(1, |positions| positions.groups);
        let near = prenet.pos_conv_embed.forward(x.clone(), groups, a.feature_activation.into());
        // As published, frames are numbered like tokens: padding stands for token 1, all others for token 0.
        let stand_ins: Vec<i32> =
            (0..b * t).map(|i| i32::from(pass.is_frame.get(i).is_some_and(|is_frame| !is_frame))).collect();
        let x = wrapped_encoder.layer_norm.forward_sum(near + self.sines(&stand_ins, [b, t], &x.device()), x);
        let mut x = pass.drop_outside(x, a.rates.hidden, ENCODER);
        let table = &wrapped_encoder.embed_positions.pe_k;
        for (i, layer) in wrapped_encoder.layers.iter().enumerate().take(num_layers) {
            if pass.skips(i) {
                continue;
            }
            x = if input.recompute {
                let pass = pass.clone();
                recompute(&(layer.clone(), table.clone()), x, move |(layer, table), x| {
                    layer.forward(x, i, Some(table.weight()), &pass)
                })
            } else {
                layer.forward(x, i, Some(table.weight()), &pass)
            };
        }
        x
    }

    /// What comes out of the decoder for frames `memory` `[B, T, C]`: `[B, U, C]`.
    fn decoded(&self, input: &Input, sound: &Sound, memory: Tensor<3>) -> Tensor<3> {
        let a = &self.architecture;
        let (b, u) = (input.num_rows, input.seq_len);
        let [_, t, width] = memory.dims();
        let rates = Rates { layer: a.decoder.layer_drop, ..a.encoder.rates };
        let all = a.encoder.pass(input, sound, t);
        let reading = |may_attend| Attention {
            num_heads: a.decoder.num_heads,
            num_kv_heads: a.decoder.num_heads,
            scale: ((width / a.decoder.num_heads) as f32).sqrt().recip(),
            may_attend,
            dropout: None,
        };
        let frames = all.attention.may_attend.iter().step_by(t).flat_map(|frames| std::iter::repeat_n(*frames, u));
        let cross = Pass { attention: reading(frames.collect()), rates, is_frame: [].into(), ..all };
        let passes = [Pass { attention: reading(input.causal()), ..cross.clone() }, cross];
        let table = self.table();
        let scale = if a.scale_embedding { (width as f64).sqrt() } else { 1.0 };
        let x = table.forward_padded(&input.ids, Some(a.pad)).reshape([b, u, width]) * scale;
        let x = x + self.sines(&input.ids, [b, u], &memory.device());
        let mut x = passes[0].drop_outside(x, a.decoder.positional_dropout, EMBEDDED);
        for (i, layer) in self.speecht5.decoder.wrapped_decoder.layers.iter().enumerate() {
            // Each layer counts as two, behind those of the encoder.
            let i = a.encoder.num_layers + 2 * i;
            if passes[0].skips(i) {
                continue;
            }
            x = if input.recompute {
                // A block has one input, so that tokens and frames go into it side by side.
                let passes = passes.clone();
                recompute(layer, Tensor::cat(vec![x, memory.clone()], 1), move |layer, both| {
                    let (x, memory) = (both.clone().narrow(1, 0, u), both.narrow(1, u, t));
                    layer.forward(x, memory, i, &passes)
                })
            } else {
                layer.forward(x, memory.clone(), i, &passes)
            };
        }
        x
    }

    /// Sines of the positions of tokens `[B*U]` or of what stands for frames: `[B, U, C]`.
    fn sines(&self, ids: &[i32], [b, u]: [usize; 2], device: &Device) -> Tensor<3> {
        let (width, pad) = (self.architecture.encoder.hidden_size, self.architecture.pad);
        let values = sines(&positions(ids, u, pad), width, pad);
        Tensor::from_data(TensorData::new(values, [b, u, width]), device)
    }
}

#[cfg(test)]
mod tests;
