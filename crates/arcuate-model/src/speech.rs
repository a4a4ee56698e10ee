//! Speech networks of the wav2vec 2.0 family: sound to frames, an encoder over all frames of a row, and what stands on it.
//!
//! wav2vec 2.0, HuBERT, Wav2Vec2-Conformer and Wav2Vec2-BERT differ in their parts, not in how these follow one another:
//! features, their projection, hiding, padding set to zero, positions, layers, perhaps an adapter; then a map over a
//! vocabulary (CTC) or a quantizer with projections (pretraining). Frames of padding are no keys of attention.
//!
//! # Reference
//! Baevski et al. 2020; Hsu et al. 2021; Wang et al. 2020; Barrault et al. 2023
// B rows, S steps of sound, T frames, C channels, F features, N wanted frames

mod architecture;
mod init;
pub(crate) mod public;

use std::sync::Arc;

use arcuate_data::{Gumbel, Sound};
use arcuate_ops::activation::Form;
use arcuate_ops::attention;
use arcuate_ops::gradient_scale::scale_gradient;
use arcuate_ops::recompute::recompute;
use arcuate_ops::rng::Stream;
use arcuate_ops::rope::Rotation;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};

pub(crate) use architecture::ADAPTER_KERNEL;
pub use architecture::{
    Activation, AdapterForm, AdapterSizes, Architecture, Blocks, ConvLayer, FeatureNorm, Front, Kind, PositionSizes,
    Positions, QuantizerConfig, Rates,
};
pub(crate) use init::fresh;

use crate::input::{Input, Wanted};
use crate::layer::{
    Adapter, ConformerLayer, ConvEncoder, FeedForward, LayerNorm, Linear, Pass, PositionConv, Quantized, Quantizer,
    Seen, TransformerLayer, gumbel,
};
use crate::network::{Head, chosen, no_head};
use crate::{Codes, Error, Output, Result};

/// Dropout sites outside of layers.
pub(crate) const PROJECTION: u64 = 0;
pub(crate) const ENCODER: u64 = 1;
const FEATURES: u64 = 2;
const LAST: u64 = 3;

/// Features to the width of the encoder.
#[derive(Module, Debug)]
pub(crate) struct Projection {
    pub(crate) layer_norm: Option<LayerNorm>,
    pub(crate) projection: Linear,
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // layers are few, and tensors are handles
enum Layer {
    Transformer(TransformerLayer),
    Conformer(ConformerLayer),
}

#[derive(Module, Debug)]
struct Encoder {
    pos_conv_embed: Option<PositionConv>,
    layer_norm: Option<LayerNorm>,
    layers: Vec<Layer>,
}

#[derive(Module, Debug)]
struct Body {
    feature_extractor: Option<ConvEncoder>,
    feature_projection: Projection,
    masked_spec_embed: Option<Param<Tensor<1>>>,
    encoder: Encoder,
    intermediate_ffn: Option<FeedForward>,
    adapter: Option<Adapter>,
}

/// The network; its fields spell the public tensor names (`body` stands for the name of the architecture).
#[derive(Module, Debug)]
pub struct Speech {
    body: Body,
    lm_head: Option<Linear>,
    quantizer: Option<Quantizer>,
    project_q: Option<Linear>,
    project_hid: Option<Linear>,
    #[module(skip)]
    architecture: Architecture,
}

/// Features before their norm, and after it.
pub(crate) struct Features {
    pub(crate) raw: Tensor<3>,
    pub(crate) normalised: Tensor<3>,
}

impl Speech {
    /// A network whose weights are all zero.
    pub(crate) fn new(a: Architecture, device: &Device) -> Self {
        let (width, features) = (a.hidden_size, a.front.channels());
        let linear = |inputs, outputs| Linear::new(inputs, outputs, true, device);
        let norm = |channels| LayerNorm::new(channels, a.layer_norm_eps, device);
        let layer = |_| match &a.blocks {
            Blocks::Transformer { pre_norm, attention_adapter } => Layer::Transformer(TransformerLayer::new(
                [width, a.intermediate_size],
                a.layer_norm_eps,
                *pre_norm,
                *attention_adapter,
                device,
            )),
            Blocks::Conformer { positions, kernel, .. } => Layer::Conformer(ConformerLayer::new(
                [width, a.intermediate_size, a.num_heads, *kernel],
                a.layer_norm_eps,
                *positions,
                a.kind == Kind::Wav2Vec2Bert,
                device,
            )),
        };
        let quantizer = a.quantizer.filter(|_| a.head == Head::Codes);
        Self {
            body: Body {
                feature_extractor: match &a.front {
                    Front::Waves { layers, norm, bias } => Some(ConvEncoder::new(layers, *norm, *bias, device)),
                    Front::Frames(_) => None,
                },
                feature_projection: Projection {
                    layer_norm: a.projection_norm.then(|| norm(features)),
                    projection: linear(features, width),
                },
                masked_spec_embed: a.mask_vector.then(|| Param::from_tensor(Tensor::zeros([width], device))),
                encoder: Encoder {
                    pos_conv_embed: a.positions.map(|p| PositionConv::new(width, p.kernel, p.groups, device)),
                    layer_norm: (a.kind != Kind::Wav2Vec2Bert).then(|| norm(width)),
                    layers: (0..a.num_layers).map(layer).collect(),
                },
                intermediate_ffn: a.intermediate_ffn.then(|| FeedForward::new(width, a.intermediate_size, device)),
                adapter: a.adapter.as_ref().map(|sizes| {
                    Adapter::new(sizes, [width, a.intermediate_size, a.num_heads], a.layer_norm_eps, device)
                }),
            },
            lm_head: (a.head == Head::Tokens).then(|| linear(a.output_size(), a.vocab_size)),
            quantizer: quantizer
                .map(|q| Quantizer::new(features, q.num_codebooks, q.codebook_size, q.code_size, device)),
            project_q: quantizer.map(|q| linear(q.code_size, q.projection_size)),
            project_hid: quantizer.map(|q| linear(width, q.projection_size)),
            architecture: a,
        }
    }

    pub(crate) fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The output for the wanted frames: over the vocabulary, or queries with what the quantizer makes of the frames.
    pub(crate) fn forward(&self, input: &Input, wanted: &Wanted) -> Result<Output> {
        let sound = self.architecture.fits(input)?;
        if let Wanted::Codes(places) = wanted {
            return self.codes(input, sound, places);
        }
        let head = self.lm_head.as_ref().ok_or_else(|| no_head("token"))?;
        let hidden = match wanted {
            Wanted::All => self.hidden(input, sound),
            Wanted::Tokens(places) => chosen(self.hidden(input, sound), places),
            _ => return Err(no_head("class")),
        };
        let rates = &self.architecture.rates;
        Ok(head.output(crate::layer::dropout(hidden, rates.last, LAST, input.dropout.as_ref())))
    }

    /// What comes out of the given number of layers (0: what goes into the first) `[B*T, C]`, before any adapter.
    pub(crate) fn layer_output(&self, input: &Input, num_layers: usize) -> Result<Tensor<2>> {
        let sound = self.architecture.fits(input)?;
        if num_layers > self.architecture.num_layers {
            let all = self.architecture.num_layers;
            return Err(Error::Unsupported(format!("there is no layer {num_layers}; the network has {all}")));
        }
        let (x, _) = self.features(sound);
        let pass = self.architecture.pass(input, sound, x.raw.dims()[1]);
        Ok(flat(self.encoded(&x, input, sound, &pass, num_layers)))
    }

    /// What comes out last `[B*T, C]`.
    fn hidden(&self, input: &Input, sound: &Sound) -> Tensor<2> {
        let (x, frames) = self.features(sound);
        let pass = self.architecture.pass(input, sound, x.raw.dims()[1]);
        let x = self.encoded(&x, input, sound, &pass, self.architecture.num_layers);
        flat(self.adapted(x, frames, &pass))
    }

    fn codes(&self, input: &Input, sound: &Sound, places: &Arc<[i32]>) -> Result<Output> {
        let parts = (&self.quantizer, &self.project_q, &self.project_hid);
        let (Some(quantizer), Some(project_q), Some(project_hid)) = parts else { return Err(no_head("quantizer")) };
        let (features, frames) = self.features(sound);
        let pass = self.architecture.pass(input, sound, features.raw.dims()[1]);
        let x = chosen(flat(features.normalised.clone()), places);
        let x = pass.drop_outside(x, self.architecture.rates.features, FEATURES);
        let noise =
            sound.gumbel.map(|how| (how.temperature, noise(how, places, sound, input, quantizer.num_entries())));
        let Quantized { vectors, usage, ids } = quantizer.forward(x, noise);
        let feature_penalty = penalty(features.raw.clone(), &pass, &frames);
        let hidden = flat(self.encoded(&features, input, sound, &pass, self.architecture.num_layers));
        let codes = Codes { targets: project_q.forward(vectors), usage, ids, feature_penalty };
        Ok(project_hid.output(chosen(hidden, places)).with_codes(codes))
    }

    /// Features of the sound, and how many frames of each row are no padding.
    fn features(&self, sound: &Sound) -> (Features, Vec<usize>) {
        let body = &self.body;
        self.architecture.features(sound, body.feature_extractor.as_ref(), &body.feature_projection)
    }

    /// What comes out of so many layers `[B, T, C]`.
    fn encoded(&self, x: &Features, input: &Input, sound: &Sound, pass: &Pass, num_layers: usize) -> Tensor<3> {
        let (a, encoder) = (&self.architecture, &self.body.encoder);
        let x = self.body.feature_projection.projection.forward(x.normalised.clone());
        let x = pass.drop_outside(x, a.rates.projection, PROJECTION);
        let mut x = self.hiding(x, sound, pass);
        let is_pre_norm = !matches!(a.blocks, Blocks::Transformer { pre_norm: false, .. });
        if let (Blocks::Transformer { .. }, Some(conv), Some(sizes)) = (&a.blocks, &encoder.pos_conv_embed, a.positions)
        {
            let positions = conv.forward(x.clone(), sizes.groups, a.feature_activation.into());
            x = match &encoder.layer_norm {
                Some(norm) if !is_pre_norm => norm.forward_sum(positions, x),
                _ => x + positions,
            };
        }
        x = pass.drop_outside(x, a.rates.hidden, ENCODER);
        for (i, layer) in encoder.layers.iter().enumerate().take(num_layers) {
            if pass.skips(i) {
                continue;
            }
            let sight = match layer {
                Layer::Conformer(layer) => layer.sight(i, input.seen.as_ref()),
                Layer::Transformer(_) => None,
            };
            let run = move |layer: &Layer, x: Tensor<3>, pass: &Pass| match layer {
                Layer::Transformer(layer) => layer.forward(x, i, None, pass),
                Layer::Conformer(layer) => layer.forward(x, i, sight.as_ref(), pass),
            };
            x = if input.recompute {
                let pass = pass.clone();
                recompute(layer, x, move |layer, x| run(layer, x, &pass))
            } else {
                run(layer, x, pass)
            };
        }
        match &encoder.layer_norm {
            Some(norm) if is_pre_norm && num_layers == encoder.layers.len() => norm.forward(x),
            _ => x,
        }
    }

    /// `x` `[B, T, C]` with the learned vector in hidden frames, and zeros in hidden channels and padding.
    fn hiding(&self, x: Tensor<3>, sound: &Sound, pass: &Pass) -> Tensor<3> {
        pass.without_padding(self.architecture.hiding(x, self.body.masked_spec_embed.as_ref(), sound))
    }

    /// `x` `[B, T, C]` behind what follows the encoder.
    fn adapted(&self, x: Tensor<3>, frames: Vec<usize>, pass: &Pass) -> Tensor<3> {
        let a = &self.architecture;
        let mut x = x;
        if let Some(ffn) = &self.body.intermediate_ffn {
            use crate::layer::Place::{Activation, FeedForward};
            let h = ffn.forward(x.clone(), None, Form::Relu, pass, a.num_layers, [Activation, FeedForward]);
            x = h * 0.5 + x;
        }
        match (&self.body.adapter, &a.adapter) {
            (Some(adapter), Some(sizes)) => adapter.forward(x, sizes, a.num_layers + 1, frames, pass),
            _ => x,
        }
    }

    /// The same with what batch norms saw in their running statistics.
    pub(crate) fn fold(mut self, seen: &Seen) -> Self {
        for (norm, statistics) in seen.take() {
            let fold = |(i, layer)| match layer {
                Layer::Conformer(layer) if i == norm => Layer::Conformer(layer.fold(&statistics)),
                layer => layer,
            };
            let layers = std::mem::take(&mut self.body.encoder.layers);
            self.body.encoder.layers = layers.into_iter().enumerate().map(fold).collect();
        }
        self
    }
}

impl Architecture {
    /// The sound, if it is one that this network can hear.
    pub(crate) fn fits<'a>(&self, input: &'a Input) -> Result<&'a Sound> {
        let unsupported = |text: String| Err(Error::Unsupported(text));
        let Some(sound) = input.sound.as_deref() else {
            return unsupported(format!("`{}` hears sound and reads no text; give it recordings", self.kind.name()));
        };
        let (rows, features) = (sound.num_rows(), self.num_features());
        if sound.num_features != features {
            let found = sound.num_features;
            return unsupported(format!("the network hears {features} numbers a step, but the sound has {found}"));
        }
        let frames = self.downsampling().num_frames(sound.num_steps);
        if frames == 0 {
            let least = self.downsampling().num_steps(1);
            return unsupported(format!("a sound of {} steps is shorter than the {least} of a frame", sound.num_steps));
        }
        let lengths_fit = sound.frames.len() == rows && sound.lengths.iter().all(|len| *len <= sound.num_steps);
        if sound.values.len() != rows * sound.num_steps * features || sound.num_frames != frames || !lengths_fit {
            return unsupported(format!(
                "{} numbers, {} steps and {} frames of {rows} rows do not belong together",
                sound.values.len(),
                sound.num_steps,
                sound.num_frames
            ));
        }
        let hides = |mask: &[bool], width: usize| mask.is_empty() || mask.len() == rows * width;
        if !hides(&sound.is_hidden, frames) || !hides(&sound.is_hidden_channel, self.hidden_size) {
            return unsupported("what is hidden has another shape than the frames".to_string());
        }
        Ok(sound)
    }

    /// Features of the sound, and how many frames of each row are no padding.
    pub(crate) fn features(
        &self,
        sound: &Sound,
        convolutions: Option<&ConvEncoder>,
        projection: &Projection,
    ) -> (Features, Vec<usize>) {
        let shape = [sound.num_rows(), sound.num_steps, sound.num_features];
        let device = projection.projection.parts().weight.device();
        let x = Tensor::<3>::from_data(TensorData::new(sound.values.clone(), shape), &device);
        let raw = match (&self.front, convolutions) {
            (Front::Waves { layers, norm, .. }, Some(convolutions)) => {
                let form = Form::from(self.feature_activation);
                if self.feature_gradient_scale == 0.0 {
                    convolutions.clone().no_grad().forward(x, layers, *norm, form)
                } else {
                    scale_gradient(convolutions.forward(x, layers, *norm, form), self.feature_gradient_scale)
                }
            }
            _ => x,
        };
        let front = self.front.downsampling();
        let frames = sound.lengths.iter().map(|len| front.num_frames(*len)).collect();
        let normalised = match &projection.layer_norm {
            Some(norm) => norm.forward(raw.clone()),
            None => raw.clone(),
        };
        (Features { raw, normalised }, frames)
    }

    /// What all layers share, for rows of `t` frames.
    pub(crate) fn pass(&self, input: &Input, sound: &Sound, t: usize) -> Pass {
        let (b, front) = (sound.num_rows(), self.front.downsampling());
        let frames: Vec<usize> = sound.lengths.iter().map(|len| front.num_frames(*len)).collect();
        let is_padded = frames.iter().any(|frames| *frames < t);
        let is_frame: Vec<bool> = frames.iter().flat_map(|frames| (0..t).map(move |at| at < *frames)).collect();
        let positions = match &self.blocks {
            Blocks::Transformer { .. } => Positions::None,
            Blocks::Conformer { positions, .. } => *positions,
        };
        Pass {
            attention: attention::Attention {
                num_heads: self.num_heads,
                num_kv_heads: self.num_heads,
                scale: ((self.hidden_size / self.num_heads) as f32).sqrt().recip(),
                may_attend: frames.iter().flat_map(|n| std::iter::repeat_n([0, *n as u32], t)).collect(),
                dropout: None,
            },
            form: self.activation.into(),
            rates: self.rates,
            dropout: input.dropout.clone(),
            is_frame: if is_padded { is_frame.into() } else { [].into() },
            distances: if positions == Positions::Relative { distances(t, self.hidden_size) } else { [].into() },
            rotation: match positions {
                Positions::Rotary { base } => {
                    let half = self.hidden_size / self.num_heads / 2;
                    let frequencies: Vec<f64> = (0..half).map(|i| base.powf(-(i as f64) / half as f64)).collect();
                    let places: Arc<[i32]> = (0..b * t).map(|i| (i % t) as i32).collect();
                    Some(Rotation::new(&places, &frequencies))
                }
                _ => None,
            },
        }
    }

    /// `x` `[B, T, C]` with the learned vector in hidden frames, and zeros in hidden channels.
    pub(crate) fn hiding(&self, x: Tensor<3>, vector: Option<&Param<Tensor<1>>>, sound: &Sound) -> Tensor<3> {
        let [b, t, width] = x.dims();
        let device = x.device();
        let mut x = x;
        let vector = vector.filter(|_| self.hides && sound.is_hidden.iter().any(|is| *is));
        if let Some(vector) = vector {
            let num = sound.num_frames;
            // Behind an adapter a frame stands for several.
            let ratio = t.div_ceil(num.max(1)).max(1);
            let place = |i: usize| i / t * num + (i % t / ratio).min(num - 1);
            let is_hidden: Vec<f32> = (0..b * t).map(|i| f32::from(u8::from(sound.is_hidden[place(i)]))).collect();
            let is_hidden = Tensor::<3>::from_data(TensorData::new(is_hidden, [b, t, 1]), &device);
            let seen = is_hidden.clone() * -1.0 + 1.0;
            x = x * seen + vector.val().reshape([1, 1, width]) * is_hidden;
        }
        if self.hides && sound.is_hidden_channel.iter().any(|is| *is) {
            let seen: Vec<f32> = sound.is_hidden_channel.iter().map(|is| f32::from(u8::from(!*is))).collect();
            x = x * Tensor::<3>::from_data(TensorData::new(seen, [b, 1, width]), &device);
        }
        x
    }
}

/// Sines and cosines of all distances of `t` frames, from the farthest later one to the farthest earlier one: `[2T-1, C]`.
fn distances(t: usize, width: usize) -> Arc<[f32]> {
    let rates: Vec<f64> = (0..width / 2).map(|pair| 10_000f64.powf(-((2 * pair) as f64) / width as f64)).collect();
    let all = (0..2 * t - 1).map(|i| i as f64 - (t as f64 - 1.0));
    all.flat_map(|distance| rates.iter().flat_map(move |rate| [(distance * rate).sin(), (distance * rate).cos()]))
        .map(|x| x as f32)
        .collect()
}

/// Rows of frames as one list: `[B*T, C]`.
pub(crate) fn flat(x: Tensor<3>) -> Tensor<2> {
    let [b, t, c] = x.dims();
    x.reshape([b * t, c])
}

/// Mean of the squares of features `[B, T, F]` that are no padding.
fn penalty(raw: Tensor<3>, pass: &Pass, frames: &[usize]) -> Tensor<1> {
    let features = raw.dims()[2];
    let count = (frames.iter().sum::<usize>() * features).max(1);
    let raw = pass.without_padding(raw);
    (raw.clone() * raw).sum() / count as f64
}

/// Gumbel noise for the scores of wanted frames `[N * entries]`: each row has its own stream, whatever else is in the batch.
fn noise(how: Gumbel, places: &[i32], sound: &Sound, input: &Input, entries: usize) -> Vec<f32> {
    let mut streams: Vec<Option<Stream>> = vec![None; sound.num_rows()];
    let mut noise = Vec::with_capacity(places.len() * entries);
    for place in places {
        let row = *place as usize / sound.num_frames;
        let key = input.row_keys.get(row).copied().unwrap_or(row as u64);
        let stream = streams[row].get_or_insert_with(|| Stream::new(how.seed, "gumbel", how.step, key));
        noise.extend((0..entries).map(|_| gumbel(stream.uniform())));
    }
    noise
}

#[cfg(test)]
pub(crate) mod tests;
