//! All kinds of speech networks: gradients, padding, hiding, codes, checkpoints.

use std::sync::Arc;

use arcuate_data::{Gumbel, Sound};
use arcuate_ops::gradcheck::{distance, random, values};
use burn::module::Param;
use burn::tensor::{Device, Gradients, Tensor};

use crate::{
    Architecture, Dropout, Head, Input, ModelConfig, Network, Seen, TokenIds, Visit, Vocabulary, Wanted, is_buffer,
};

pub(crate) const COMMON: &str = r#""hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24"#;
pub(crate) const WAVES: &str = r#""conv_channels": 6, "conv_kernels": [5, 3, 2], "conv_strides": [3, 2, 1]"#;
const BASE: &str =
    r#""conv_bias": false, "feature_norm": "group", "pre_norm": false, "position_kernel": 4, "position_groups": 2"#;
const LARGE: &str =
    r#""conv_bias": true, "feature_norm": "layer", "pre_norm": true, "position_kernel": 3, "position_groups": 2"#;
const QUANTIZER: &str =
    r#""quantizer": {"num_codebooks": 2, "codebook_size": 5, "code_size": 8, "projection_size": 7}"#;
const ADAPTER: &str = r#""adapter": {"num_layers": 2, "stride": 2, "output_size": 12}"#;

pub(crate) fn config(text: &str) -> ModelConfig {
    serde_json::from_str(&format!("{{{text}}}")).expect("a model")
}

fn base() -> ModelConfig {
    config(&format!(r#""wav2vec2": {{{COMMON}, {WAVES}, {BASE}, {QUANTIZER}}}"#))
}

fn large() -> ModelConfig {
    config(&format!(r#""wav2vec2": {{{COMMON}, {WAVES}, {LARGE}, {QUANTIZER}}}"#))
}

fn bert(adapter: &str) -> ModelConfig {
    let more = r#""num_features": 6, "conv_depthwise_kernel": 3, "max_left_distance": 3, "max_right_distance": 2"#;
    config(&format!(r#""wav2vec2_bert": {{{COMMON}, {more}{adapter}}}"#))
}

fn conformer(positions: &str) -> ModelConfig {
    let more = r#""conv_bias": true, "feature_norm": "layer", "conv_depthwise_kernel": 3"#;
    config(&format!(r#""wav2vec2_conformer": {{{COMMON}, {WAVES}, {more}, "positions": "{positions}", {QUANTIZER}}}"#))
}

/// One of every kind, and what stands on it.
fn all() -> Vec<(ModelConfig, Head)> {
    let adapters = format!(r#""wav2vec2": {{{COMMON}, {WAVES}, {LARGE}, "attention_adapter_size": 3, {ADAPTER}}}"#);
    vec![
        (base(), Head::Tokens),
        (base(), Head::Codes),
        (large(), Head::Tokens),
        (large(), Head::Codes),
        (config(&adapters), Head::Tokens),
        (config(&format!(r#""hubert": {{{COMMON}, {WAVES}, {BASE}}}"#)), Head::Tokens),
        (conformer("relative"), Head::Tokens),
        (conformer("relative"), Head::Codes),
        (conformer("rotary"), Head::Tokens),
        (bert(""), Head::Tokens),
        (bert(&format!(", {ADAPTER}")), Head::Tokens),
        (base(), Head::Hidden),
    ]
}

fn architecture(config: &ModelConfig, head: Head) -> Architecture {
    Architecture::new(config, 5, head).expect("possible")
}

/// A network whose parameters are all random: norms and biases too.
pub(crate) fn network(config: &ModelConfig, head: Head, device: &Device) -> Network {
    let network = Network::init(architecture(config, head), 7, device);
    let names: Vec<String> = network.parameters().into_iter().map(|info| info.name).collect();
    network.fill(|name, shape| {
        let len = shape.iter().product();
        let seed = names.iter().position(|n| n == name).unwrap_or_default() as u64;
        let scale = if name.contains("original0") || name.contains("norm") { 1.0 } else { 0.6 };
        let x = values(random([len], seed)).into_iter().map(|x| x * scale * 0.7);
        // Norms and variances stay well above 0.
        let is_scale = name.ends_with("norm.weight") || name.ends_with("running_var");
        Some(x.map(|x| if is_scale { 1.0 + x.max(-0.3) } else { x }).collect())
    })
}

/// Sound of these numbers of steps.
pub(crate) fn sound(architecture: &Architecture, lengths: &[usize]) -> Sound {
    let features = architecture.num_features().expect("hears");
    let downsampling = architecture.downsampling().expect("hears");
    let steps = *lengths.iter().max().expect("a row");
    let mut all = vec![0.0; lengths.len() * steps * features];
    for (row, len) in lengths.iter().enumerate() {
        let start = row * steps * features;
        let values = values(random([len * features], 100 + row as u64));
        all[start..start + values.len()].copy_from_slice(&values);
    }
    let frames = lengths.iter().map(|len| downsampling.num_frames(*len)).collect();
    Sound::new(all, steps, features, lengths.to_vec(), downsampling.num_frames(steps), frames)
}

pub(crate) fn input(sound: Sound) -> Input {
    let rows = sound.num_rows() as u64;
    let row_keys = (0..rows).map(|row| 1000 + row).collect();
    let mut input = Input::from_rows(0, 0, Vec::new(), &[]).expect("no tokens");
    input.sound = Some(Arc::new(sound));
    Input { row_keys, ..input }
}

/// Every frame of the batch, or those of the first rows.
fn places(sound: &Sound) -> Arc<[i32]> {
    (0..(sound.num_rows() * sound.num_frames) as i32).collect()
}

struct Along<'a> {
    grads: &'a Gradients,
    names: &'a [String],
    sum: f64,
}

fn seed(names: &[String], name: &str) -> u64 {
    500 + names.iter().position(|n| n == name).unwrap_or_default() as u64
}

impl Visit for Along<'_> {
    fn visit<const D: usize>(&mut self, name: &str, value: &Param<Tensor<D>>) {
        let Some(grad) = value.val().grad(self.grads) else { return };
        let grad = values(grad);
        let along = values(random([grad.len()], seed(self.names, name)));
        self.sum += grad.iter().zip(along).map(|(a, b)| f64::from(*a) * f64::from(b)).sum::<f64>();
    }
}

#[test]
fn gradients_match_finite_differences() {
    for (config, head) in all().into_iter().filter(|(_, head)| *head != Head::Hidden) {
        let device = Device::flex().autodiff();
        // One entry of each codebook of five is far ahead, since the loss jumps where a frame takes another one.
        let ahead = |name: &str, shape: &[usize]| {
            let entry = |i: usize| if i % 5 == 2 { 1e3 } else { 0.0 };
            (name == "quantizer.weight_proj.bias").then(|| (0..shape[0]).map(entry).collect())
        };
        let network = network(&config, head.clone(), &device).fill(ahead);
        let mut heard = sound(&network.architecture(), &[60, 44]);
        if head == Head::Codes {
            heard.is_hidden = (0..2 * heard.num_frames).map(|i| i % 3 == 1).collect();
        }
        let (input, all) = (input(heard.clone()), places(&heard));
        let wanted = if head == Head::Codes { Wanted::Codes(all) } else { Wanted::All };
        let loss = |network: &Network| {
            let mut output = network.forward(&input, &wanted).expect("fits");
            let codes = output.take_codes();
            let toward = |x: Tensor<2>, seed: u64| {
                let direction = Tensor::<2>::from_data(random(x.dims(), seed).into_data(), &device);
                (x * direction).sum()
            };
            let mut loss = toward(output.logits(), 3);
            if let Some(codes) = codes {
                loss = loss + toward(codes.targets, 4) + codes.feature_penalty * 0.5;
            }
            loss
        };
        let (numeric, sum) = slopes(&network, loss);
        let name = config.name();
        let apart = (numeric - sum).abs() / sum.abs().max(1.0);
        assert!(apart < 2e-2, "{name} {head:?}: {numeric} {sum}");
    }
}

/// How a loss changes along random directions of all parameters: by differences and by gradients.
pub(crate) fn slopes(network: &Network, loss: impl Fn(&Network) -> Tensor<1>) -> (f64, f64) {
    let names: Vec<String> = network.parameters().into_iter().map(|info| info.name).collect();
    let at = |by: f32| {
        let moved = network.clone().fill(|name, shape| {
            let len: usize = shape.iter().product();
            let start = &network.values()[name].1;
            let along = if is_buffer(name) { vec![0.0; len] } else { values(random([len], seed(&names, name))) };
            Some(start.iter().zip(along).map(|(x, d)| x + by * d).collect())
        });
        f64::from(loss(&moved).into_scalar::<f32>())
    };
    let grads = loss(network).backward();
    let mut along = Along { grads: &grads, names: &names, sum: 0.0 };
    network.visit(&mut along);
    let step = 2e-4;
    ((at(step) - at(-step)) / (2.0 * f64::from(step)), along.sum)
}

#[test]
fn a_row_does_not_depend_on_its_padding() {
    let keeps_out = |config: &ModelConfig, head: &Head| {
        let is_conformer = config.name() == "wav2vec2_conformer";
        *head == Head::Tokens && !is_conformer && !serde_json::to_string(config).expect("JSON").contains("group\"")
    };
    let mut checked = 0;
    for (config, head) in all().into_iter().filter(|(config, head)| keeps_out(config, head)) {
        let network = network(&config, head, &Device::flex());
        let a = network.architecture();
        // Behind an adapter of wav2vec 2.0 the last frames see padding; published, too.
        if config.name() == "wav2vec2" && serde_json::to_string(&config).expect("JSON").contains("\"adapter\"") {
            continue;
        }
        let logits = |lengths: &[usize]| {
            let heard = sound(&a, lengths);
            let first = 0..heard.frames[0] * 5;
            values(network.forward(&input(heard), &Wanted::All).expect("fits").logits())[first].to_vec()
        };
        let alone = logits(&[44]);
        for others in [&[44, 60][..], &[44, 30, 80]] {
            let apart = distance(&logits(others), &alone);
            assert!(apart < 1e-5, "{}: {apart:e}", config.name());
        }
        checked += 1;
    }
    assert!(checked >= 2, "{checked}");
}

#[test]
fn hidden_frames_are_the_learned_vector_and_hidden_channels_are_zero() {
    for (config, head) in [(base(), Head::Tokens), (bert(""), Head::Tokens)] {
        let network = network(&config, head, &Device::flex());
        let mut heard = sound(&network.architecture(), &[60, 44]);
        let (t, rows) = (heard.num_frames, 2);
        heard.is_hidden = (0..rows * t).map(|i| i % 4 == 0).collect();
        heard.is_hidden_channel = (0..rows * 16).map(|i| i == 3 || i == 16 + 5).collect();
        let Network::Speech(speech) = &network else { panic!("{network:?}") };
        let hears = input(heard.clone());
        let sound = hears.sound.as_deref().expect("sound");
        let pass = speech.architecture().pass(&hears, sound, t);
        let x = random([rows, t, 16], 1);
        let (found, x) = (values(speech.hiding(x.clone(), sound, &pass)), values(x));
        let name = format!("{}.masked_spec_embed", config.name());
        let vector = network.values()[&name].1.clone();
        for (i, found) in found.iter().enumerate() {
            let (row, at, channel) = (i / (t * 16), i / 16 % t, i % 16);
            let wanted = if at >= heard.frames[row] || heard.is_hidden_channel[row * 16 + channel] {
                0.0
            } else if heard.is_hidden[row * t + at] {
                vector[channel]
            } else {
                x[i]
            };
            assert_eq!(*found, wanted, "{i}");
        }
    }
}

fn gumbel() -> Option<Gumbel> {
    Some(Gumbel { temperature: 1.5, seed: 3, step: 4 })
}

#[test]
fn noise_of_a_row_does_not_depend_on_the_others() {
    let network = network(&large(), Head::Codes, &Device::flex());
    let codes = |lengths: &[usize], rows: &[u64], wanted: Arc<[i32]>| {
        let mut heard = sound(&network.architecture(), lengths);
        heard.gumbel = gumbel();
        let mut input = input(heard);
        input.row_keys = rows.into();
        let mut output = network.forward(&input, &Wanted::Codes(wanted)).expect("fits");
        let codes = output.take_codes().expect("wanted");
        (values(output.logits()), values(codes.targets), codes.ids)
    };
    let alone = codes(&[60], &[42], [1, 2, 4].into());
    let both = codes(&[60, 70], &[42, 43], [1, 2, 4, 12].into());
    assert_eq!(alone.2[..], both.2[..6]);
    assert!(distance(&alone.1, &both.1[..21]) < 1e-6);
    assert!(distance(&alone.0, &both.0[..21]) < 1e-5);
    let other = codes(&[60], &[44], [1, 2, 4].into());
    assert_ne!(alone.2, other.2);
}

#[test]
fn codes_are_asked_for_with_a_usage_that_is_a_distribution() {
    for gumbel in [None, gumbel()] {
        let network = network(&base(), Head::Codes, &Device::flex());
        let mut heard = sound(&network.architecture(), &[60, 44]);
        heard.gumbel = gumbel;
        let wanted: Arc<[i32]> = [0, 3, 10].into();
        let mut output = network.forward(&input(heard), &Wanted::Codes(wanted)).expect("fits");
        let codes = output.take_codes().expect("wanted");
        assert_eq!((codes.targets.dims(), codes.usage.dims(), codes.ids.len()), ([3, 7], [2, 5], 6));
        let sums = values(codes.usage.clone().sum_dim(1));
        assert!(sums.iter().all(|sum| (sum - 1.0).abs() < 1e-5), "{sums:?}");
        if gumbel.is_none() {
            let usage = values(codes.usage);
            for codebook in 0..2 {
                for entry in 0..5 {
                    let taken = codes.ids.chunks(2).filter(|ids| ids[codebook] == entry).count();
                    assert!((usage[codebook * 5 + entry as usize] - taken as f32 / 3.0).abs() < 1e-6);
                }
            }
        }
        assert_eq!(output.logits().dims(), [3, 7]);
    }
}

/// All gradients by name.
pub(crate) struct All<'a>(pub(crate) &'a Gradients, pub(crate) Vec<(String, Vec<f32>)>);

impl Visit for All<'_> {
    fn visit<const D: usize>(&mut self, name: &str, value: &Param<Tensor<D>>) {
        if let Some(grad) = value.val().grad(self.0) {
            self.1.push((name.to_string(), values(grad)));
        }
    }
}

/// Gradients of a training pass, and what batch norms saw.
fn pass(network: &Network, recompute: bool, step: u64) -> (Vec<(String, Vec<f32>)>, Seen) {
    let seen = Seen::default();
    let dropout = Some(Dropout { seed: 1, step });
    let input =
        Input { recompute, dropout, seen: Some(seen.clone()), ..input(sound(&network.architecture(), &[60, 44])) };
    let logits = network.forward(&input, &Wanted::All).expect("fits").logits();
    let direction = Tensor::<2>::from_data(random(logits.dims(), 3).into_data(), &logits.device());
    let grads = (logits * direction).sum().backward();
    let mut all = All(&grads, Vec::new());
    network.visit(&mut all);
    (all.1, seen)
}

#[test]
fn layers_computed_again_give_the_same_gradients_and_statistics_once() {
    for config in [large(), conformer("relative"), bert("")] {
        let network = network(&config, Head::Tokens, &Device::flex().autodiff());
        let (kept, again) = (pass(&network, false, 2), pass(&network, true, 2));
        assert_eq!(kept.0, again.0);
        let folded = |seen: &Seen| network.clone().fold(seen).values();
        let (kept, again) = (folded(&kept.1), folded(&again.1));
        assert_eq!(kept, again);
        let changed = kept.iter().filter(|(name, value)| network.values()[*name] != **value).count();
        assert_eq!(changed, if config.name() == "wav2vec2_conformer" { 4 } else { 0 });
    }
}

#[test]
fn dropped_layers_get_no_gradient() {
    let rates = r#""layer_drop": 0.5, "dropout": 0.1, "activation_dropout": 0.1, "attention_dropout": 0.1,
        "projection_dropout": 0.1, "head_dropout": 0.1"#;
    let config = config(&format!(r#""wav2vec2": {{{COMMON}, {WAVES}, {LARGE}, {rates}}}"#));
    let network = network(&config, Head::Tokens, &Device::flex().autodiff());
    let mut counts = std::collections::BTreeSet::new();
    for step in 0..12 {
        let (grads, _) = pass(&network, false, step);
        let layers =
            ["encoder.layers.0.", "encoder.layers.1."].map(|part| grads.iter().any(|(name, _)| name.contains(part)));
        counts.insert(layers.iter().filter(|has| **has).count());
        assert_eq!(grads, pass(&network, false, step).0, "a pass repeats");
    }
    assert_eq!(counts.into_iter().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn gradients_of_the_convolutions_can_be_scaled_or_left_out() {
    let grads = |scale: f64| {
        let config =
            config(&format!(r#""wav2vec2": {{{COMMON}, {WAVES}, {LARGE}, "feature_gradient_scale": {scale:.1}}}"#));
        pass(&network(&config, Head::Tokens, &Device::flex().autodiff()), false, 0).0
    };
    let (whole, tenth, none) = (grads(1.0), grads(0.1), grads(0.0));
    assert_eq!(whole.len(), tenth.len());
    for ((name, whole), (_, tenth)) in whole.iter().zip(&tenth) {
        let factor = if name.contains("feature_extractor") { 0.1 } else { 1.0 };
        let wanted: Vec<f32> = whole.iter().map(|x| x * factor).collect();
        assert!(distance(tenth, &wanted) < 1e-5, "{name}");
    }
    assert!(none.iter().all(|(name, _)| !name.contains("feature_extractor")));
    assert_eq!(none.len(), whole.iter().filter(|(name, _)| !name.contains("feature_extractor")).count());
}

pub(crate) fn saved(network: &Network) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    crate::save(network, TokenIds { bos: None, eos: None, pad: Some(0) }, dir.path()).expect("written");
    dir
}

#[test]
fn every_network_comes_back_as_it_was() {
    for (config, head) in all() {
        let network = network(&config, head, &Device::flex());
        let again = crate::load(saved(&network).path(), &Device::flex()).expect("sound");
        assert_eq!(again.architecture(), network.architecture());
        assert_eq!(again.values(), network.values());
        let (guess, exact) = (network.architecture().estimate(), network.num_parameters() as f64);
        assert!((guess / exact - 1.0).abs() < 0.25, "{}: {guess} {exact}", config.name());
    }
}

#[test]
fn older_and_bare_names_are_understood() {
    let network = network(&base(), Head::Tokens, &Device::flex());
    let dir = saved(&network);
    let older = network.values().into_iter().map(|(name, value)| {
        let name = name.replace("parametrizations.weight.original0", "weight_g");
        (name.replace("parametrizations.weight.original1", "weight_v"), value)
    });
    let path = dir.path().join("model.safetensors");
    crate::tensors::write(&path, &older.collect()).expect("written");
    assert_eq!(crate::load(dir.path(), &Device::flex()).expect("sound").values(), network.values());
    let bare = network.values().into_iter().filter_map(|(name, value)| {
        Some((name.strip_prefix("wav2vec2.").filter(|name| *name != "masked_spec_embed")?.to_string(), value))
    });
    crate::tensors::write(&path, &bare.collect()).expect("written");
    let fresh = Network::init(architecture(&base(), Head::Tokens), 9, &Device::flex());
    let (started, adoption) = crate::start_from(fresh, dir.path(), Vocabulary::Other(&[])).expect("sound");
    assert_eq!(adoption.new, ["wav2vec2.masked_spec_embed", "lm_head.weight", "lm_head.bias"]);
    let kept = |name: &&String| !adoption.new.contains(name);
    for name in network.values().keys().filter(kept) {
        assert_eq!(started.values()[name], network.values()[name], "{name}");
    }
}

#[test]
fn a_network_with_a_head_starts_from_pretraining_and_back() {
    let pretrained = network(&large(), Head::Codes, &Device::flex());
    let dir = saved(&pretrained);
    let fresh = Network::init(architecture(&large(), Head::Tokens), 9, &Device::flex());
    let (tuned, adoption) = crate::start_from(fresh, dir.path(), Vocabulary::Other(&[])).expect("sound");
    assert_eq!(adoption.new, ["lm_head.weight", "lm_head.bias"]);
    assert!(adoption.unused.iter().all(|name| name.starts_with("quantizer") || name.starts_with("project_")));
    assert_eq!(adoption.unused.len(), 7);
    let name = "wav2vec2.encoder.layers.1.attention.k_proj.weight";
    assert_eq!(tuned.values()[name], pretrained.values()[name]);
    let fresh = Network::init(architecture(&large(), Head::Codes), 9, &Device::flex());
    let (_, adoption) = crate::start_from(fresh, saved(&tuned).path(), Vocabulary::Other(&[])).expect("sound");
    assert_eq!(adoption.new.len(), 7);
}

#[test]
fn rows_of_common_tokens_are_copied_to_the_bit() {
    let (old, new) = (["<pad>", "|", "a", "b", "c"], ["<pad>", "c", "d", "a", "|", "e"]);
    let pairs = crate::common_tokens(&new, &old);
    assert_eq!(pairs, [(0, 0), (1, 4), (3, 2), (4, 1)]);
    let from = network(&base(), Head::Tokens, &Device::flex());
    let fresh = Network::init(Architecture::new(&base(), 6, Head::Tokens).expect("possible"), 9, &Device::flex());
    let (started, adoption) = crate::start_from(fresh, saved(&from).path(), Vocabulary::Other(&pairs)).expect("sound");
    assert_eq!(adoption.resized.len(), 2);
    for (name, width) in [("lm_head.weight", 16), ("lm_head.bias", 1)] {
        let (old, new) = (from.values()[name].1.clone(), started.values()[name].1.clone());
        let row = |table: &[f32], i: u32| table[i as usize * width..][..width].to_vec();
        for (to, source) in &pairs {
            assert_eq!(row(&new, *to), row(&old, *source));
        }
        for fresh in [2, 5] {
            assert!((0..5).all(|i| row(&old, i) != row(&new, fresh)), "{name} {fresh}");
        }
    }
    // The old symbols keep their logits.
    let heard = sound(&from.architecture(), &[60]);
    let logits = |network: &Network| {
        let logits = network.forward(&input(heard.clone()), &Wanted::All).expect("fits").logits();
        (logits.dims()[1], values(logits))
    };
    let ((old, a), (new, b)) = (logits(&from), logits(&started));
    for frame in 0..heard.num_frames {
        for (to, source) in &pairs {
            assert_eq!(b[frame * new + *to as usize], a[frame * old + *source as usize]);
        }
    }
}

#[test]
fn what_a_network_cannot_do_is_named() {
    let message =
        |config: &ModelConfig, head: Head| Architecture::new(config, 5, head).expect_err("impossible").to_string();
    let without = config(&format!(r#""wav2vec2": {{{COMMON}, {WAVES}, {BASE}}}"#));
    assert!(message(&without, Head::Codes).contains("[model.wav2vec2.quantizer]"));
    let hubert = config(&format!(r#""hubert": {{{COMMON}, {WAVES}, {BASE}}}"#));
    assert!(message(&hubert, Head::Codes).contains("`hubert` has no quantizer"));
    assert!(message(&base(), Head::Classes(Vec::new())).contains("no classifier"));
    let odd = config(&format!(r#""wav2vec2_bert": {{{COMMON}, "num_features": 6, "conv_depthwise_kernel": 4}}"#));
    assert!(message(&odd, Head::Tokens).contains("4 taps, which is not odd"));
    let uneven = config(&format!(
        r#""wav2vec2": {{{COMMON}, "conv_channels": 6, "conv_kernels": [5, 3], "conv_strides": [3], {BASE}}}"#
    ));
    assert!(message(&uneven, Head::Tokens).contains("stride of at least 1"));
    let text = config(r#""gpt2": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "max_seq_len": 12}"#);
    assert!(message(&text, Head::Codes).contains("hears no sound"));

    let network = network(&base(), Head::Tokens, &Device::flex());
    let heard = sound(&network.architecture(), &[60]);
    let failed = |sound: Option<Sound>, wanted: Wanted| {
        let input = Input { sound: sound.map(Arc::new), ..input(heard.clone()) };
        network.forward(&input, &wanted).expect_err("impossible").to_string()
    };
    assert!(failed(None, Wanted::All).contains("give it recordings"));
    assert!(failed(Some(heard.clone()), Wanted::Rows).contains("no class head"));
    assert!(failed(Some(heard.clone()), Wanted::Codes([0].into())).contains("no quantizer head"));
    let short = sound(&network.architecture(), &[9]);
    assert!(failed(Some(short), Wanted::All).contains("shorter than the"));
    let stereo = Sound { num_features: 2, ..heard.clone() };
    assert!(failed(Some(stereo), Wanted::All).contains("the sound has 2"));
    let cut = Sound { num_frames: 3, ..heard.clone() };
    assert!(failed(Some(cut), Wanted::All).contains("do not belong together"));
    let hidden = Sound { is_hidden: vec![true; 3], ..heard.clone() };
    assert!(failed(Some(hidden), Wanted::All).contains("another shape"));
}

#[test]
fn what_layers_give_can_be_read_out() {
    let network = network(&large(), Head::Tokens, &Device::flex());
    let hears = input(sound(&network.architecture(), &[60, 44]));
    let frames = 2 * sound(&network.architecture(), &[60]).num_frames;
    for layer in 0..=2 {
        assert_eq!(network.layer_output(&hears, layer).expect("a layer").dims(), [frames, 16]);
    }
    assert!(network.layer_output(&hears, 3).expect_err("too many").to_string().contains("no layer 3"));
}

#[test]
fn fresh_weights_are_those_of_the_publications() {
    let network = Network::init(architecture(&base(), Head::Codes), 7, &Device::flex());
    let values = network.values();
    let moments = |name: &str| {
        let data = &values[name].1;
        let mean = data.iter().sum::<f32>() / data.len() as f32;
        (mean, (data.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / data.len() as f32).sqrt())
    };
    let near = |found: f32, wanted: f32| (found / wanted - 1.0).abs() < 0.2;
    // Kaiming: two over the inputs of an output, here 6 channels and 3 taps.
    let name = "wav2vec2.feature_extractor.conv_layers.1.conv.weight";
    assert!(near(moments(name).1, (2.0f32 / 18.0).sqrt()), "{:?}", moments(name));
    assert!(near(moments("quantizer.weight_proj.weight").1, 1.0));
    for name in ["quantizer.codevectors", "wav2vec2.masked_spec_embed"] {
        assert!(values[name].1.iter().all(|x| (0.0..1.0).contains(x)) && moments(name).0 > 0.2, "{name}");
    }
    assert!(near(moments("wav2vec2.encoder.layers.0.attention.q_proj.weight").1, 0.02));
    assert!(values["quantizer.weight_proj.bias"].1.iter().all(|x| *x == 0.0));
    assert!(values["wav2vec2.encoder.layer_norm.weight"].1.iter().all(|x| *x == 1.0));
    let bound = 0.25; // 1 / sqrt(16)
    assert!(values["project_hid.weight"].1.iter().all(|x| x.abs() <= bound));
    let start = "wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original";
    let (g, v) = (&values[&format!("{start}0")].1, &values[&format!("{start}1")].1);
    assert_eq!(g.len(), 4);
    for (tap, g) in g.iter().enumerate() {
        let length = v.iter().skip(tap).step_by(4).map(|x| x * x).sum::<f32>().sqrt();
        assert!((g - length).abs() < 1e-5);
    }
    let again = Network::init(architecture(&base(), Head::Codes), 7, &Device::flex());
    assert_eq!(again.values(), values);
}
