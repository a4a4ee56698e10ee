//! Sizes as published, gradients, what depends on what, checkpoints, and what is refused.

use std::sync::Arc;

use arcuate_data::Sound;
use arcuate_ops::gradcheck::{distance, random, values};
use burn::tensor::{Device, Tensor};

use crate::speech::tests::{All, COMMON, WAVES, config, network, saved, slopes, sound};
use crate::{Architecture, Dropout, Error, Head, Input, ModelConfig, Network, TokenIds, Wanted};

const DECODER: &str = r#""decoder": {"num_layers": 2, "num_heads": 4, "intermediate_size": 20"#;
const REST: &str =
    r#""conv_bias": true, "feature_norm": "layer", "position_kernel": 3, "position_groups": 2, "max_distance": 3"#;

/// A small network; `of_decoder` and `more` are further keys, each behind a comma.
fn small(of_decoder: &str, more: &str) -> ModelConfig {
    config(&format!(r#""speecht5": {{{COMMON}, {WAVES}, {DECODER}{of_decoder}}}, {REST}{more}}}"#))
}

fn variants() -> Vec<ModelConfig> {
    let other = REST.replace("layer", "group");
    let grouped = format!(r#""speecht5": {{{COMMON}, {WAVES}, {DECODER}}}, {other}, "max_distance": 40}}"#);
    vec![
        small("", ""),
        small("", r#", "scale_embedding": true, "tie_word_embeddings": false"#),
        config(&grouped.replacen(r#", "max_distance": 3"#, "", 1)),
    ]
}

fn built(config: &ModelConfig, device: &Device) -> Network {
    network(config, Head::Decoder, device)
}

/// Sound of these lengths with rows of tokens.
fn input(network: &Network, lengths: &[usize], ids: Vec<i32>) -> Input {
    let rows = lengths.len();
    let heard = sound(&network.architecture(), lengths);
    let tokens = Input::from_rows(rows, ids.len() / rows, ids, &[]).expect("no holes");
    Input { sound: Some(Arc::new(heard)), row_keys: (0..rows as u64).collect(), ..tokens }
}

fn logits(network: &Network, input: &Input) -> Vec<f32> {
    values(network.forward(input, &Wanted::All).expect("fits").logits())
}

const IDS: [i32; 8] = [2, 4, 3, 3, 2, 0, 4, 1];

#[test]
fn parameters_are_as_many_as_published() {
    let published = config(
        r#""speecht5": {"hidden_size": 768, "num_layers": 12, "num_heads": 12, "intermediate_size": 3072,
            "conv_channels": 512, "feature_norm": "group",
            "decoder": {"num_layers": 6, "num_heads": 12, "intermediate_size": 3072}}"#,
    );
    let architecture = Architecture::new(&published, 81, Head::Decoder).expect("possible");
    let count: usize = architecture.parameters().iter().map(|info| info.len()).sum();
    assert_eq!(count, 151_165_056);
    assert!((architecture.estimate() / count as f64 - 1.0).abs() < 0.01);
    let downsampling = architecture.downsampling().expect("hears");
    for (samples, frames) in [(400, 1), (719, 1), (720, 2), (16_000, 49), (32_000, 99), (250_000, 781)] {
        assert_eq!(downsampling.num_frames(samples), frames);
    }
    let is_conv = |name: &str| name.contains("feature_encoder");
    let convs = architecture.parameters().into_iter().filter(|info| is_conv(&info.name)).map(|info| info.len());
    assert_eq!(convs.sum::<usize>(), 4_200_448);
}

#[test]
fn gradients_match_finite_differences() {
    let device = Device::flex().autodiff();
    for config in variants() {
        let network = built(&config, &device);
        let input = input(&network, &[60, 44], IDS.to_vec());
        let (numeric, along) = slopes(&network, |network| {
            let logits = network.forward(&input, &Wanted::Tokens([0, 2, 5, 6].into())).expect("fits").logits();
            let direction = Tensor::<2>::from_data(random(logits.dims(), 3).into_data(), &device);
            (logits * direction).sum()
        });
        let apart = (numeric - along).abs() / along.abs().max(1.0);
        assert!(apart < 2e-2, "{numeric} {along}");
    }
}

#[test]
fn layers_computed_again_give_the_same_gradients_and_dropped_ones_none() {
    let rates = r#", "dropout": 0.1, "attention_dropout": 0.1, "activation_dropout": 0.1, "layer_drop": 0.5"#;
    let network = built(&small(r#", "positional_dropout": 0.1, "layer_drop": 0.5"#, rates), &Device::flex().autodiff());
    let plain = input(&network, &[60, 44], IDS.to_vec());
    let gradients = |recompute: bool, step: u64| {
        let input = Input { recompute, dropout: Some(Dropout { seed: 1, step }), ..plain.clone() };
        let logits = network.forward(&input, &Wanted::All).expect("fits").logits();
        let direction = Tensor::<2>::from_data(random(logits.dims(), 3).into_data(), &logits.device());
        let grads = (logits * direction).sum().backward();
        let mut all = All(&grads, Vec::new());
        network.visit(&mut all);
        all.1
    };
    let mut counts = std::collections::BTreeSet::new();
    for step in 0..12 {
        let (kept, again) = (gradients(false, step), gradients(true, step));
        assert_eq!(kept.len(), again.len());
        // Sums over frames are taken in another order; biases of keys are all rounding, so that the whole is the measure.
        let size = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let whole = kept.iter().map(|(_, grad)| size(grad).powi(2)).sum::<f64>().sqrt();
        for ((name, kept), (other, again)) in kept.iter().zip(&again) {
            let apart: Vec<f32> = kept.iter().zip(again).map(|(a, b)| a - b).collect();
            assert!(name == other && size(&apart) < 1e-6 * whole, "{name}: {} of {whole}", size(&apart));
        }
        let has = |part: &str| kept.iter().any(|(name, _)| name.contains(part));
        for (part, other) in [("encoder.layers.0", "encoder.layers.1"), ("decoder.layers.0", "decoder.layers.1")] {
            counts.insert((part, usize::from(has(part)) + usize::from(has(other))));
        }
    }
    assert_eq!(counts.len(), 6, "{counts:?}");
}

#[test]
fn a_token_is_predicted_from_those_before_it_and_from_all_that_is_heard() {
    let network = built(&small("", ""), &Device::flex());
    let first = logits(&network, &input(&network, &[60, 44], IDS.to_vec()));
    let mut ids = IDS.to_vec();
    (ids[3], ids[6]) = (0, 3);
    let changed = logits(&network, &input(&network, &[60, 44], ids));
    for (i, (a, b)) in first.chunks(5).zip(changed.chunks(5)).enumerate() {
        let sees_it = i == 3 || i >= 6;
        assert_eq!(a != b, sees_it, "{i}");
    }
    // Tokens behind the end change nothing, either.
    let longer = [2, 4, 3, 3, 1, 1, 2, 0, 4, 1, 1, 1].to_vec();
    let longer = logits(&network, &input(&network, &[60, 44], longer));
    assert!(distance(&first[..20], &longer[..20]) < 1e-6 && distance(&first[20..], &longer[30..50]) < 1e-6);
    let mut heard = input(&network, &[60, 44], IDS.to_vec());
    let mut other = heard.sound.as_deref().expect("sound").clone();
    other.values[50] += 1.0;
    heard.sound = Some(Arc::new(other));
    let (a, b) = (&logits(&network, &heard)[..5], &first[..5]);
    assert_ne!(a, b);
}

#[test]
fn frames_of_padding_are_not_read() {
    let network = built(&small("", ""), &Device::flex());
    let input = input(&network, &[60, 44], IDS.to_vec());
    let Network::SpeechT5(speecht5) = &network else { panic!("{network:?}") };
    let heard = input.sound.as_deref().expect("sound");
    let memory = speecht5.encoded(&input, heard, 2);
    let [b, t, width] = memory.dims();
    let mut other = values(memory.clone());
    for (i, x) in other.iter_mut().enumerate() {
        let (row, frame) = (i / (t * width), i / width % t);
        if frame >= heard.frames[row] {
            *x = 1e6;
        }
    }
    let other = Tensor::<1>::from_data(other.as_slice(), &memory.device()).reshape([b, t, width]);
    let decoded = |memory: Tensor<3>| values(speecht5.decoded(&input, heard, memory));
    assert!(heard.frames[1] < t);
    assert_eq!(decoded(memory), decoded(other));
}

#[test]
fn a_decoder_reads_labels_one_place_later() {
    let network = built(&small("", ""), &Device::flex());
    let architecture = network.architecture();
    let read = |labels: &[i32], len| architecture.decoder_inputs(labels, len).expect("a decoder");
    assert_eq!(read(&[4, 3, 2, 3, 2, -100], 3), [2, 4, 3, 2, 3, 2]);
    assert_eq!(read(&[4, -100, -100, -100], 4), [2, 4, 1, 1]);
    assert!(read(&[], 0).is_empty());
    let with = architecture.clone().with_ids(TokenIds { bos: Some(3), eos: Some(4), pad: Some(0) });
    assert_eq!(with.decoder_inputs(&[3, -100, -100], 3).expect("a decoder"), [4, 3, 0]);
    let text = config(r#""gpt2": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "max_seq_len": 12}"#);
    assert!(Architecture::new(&text, 5, Head::Tokens).expect("possible").decoder_inputs(&[1], 1).is_none());
}

#[test]
fn the_padding_token_has_no_position_and_learns_only_as_an_answer() {
    let network = built(&small("", r#", "tie_word_embeddings": false"#), &Device::flex().autodiff());
    let input = input(&network, &[60], vec![2, 1, 4]);
    let logits = network.forward(&input, &Wanted::All).expect("fits").logits();
    let grads = (logits.clone() * logits).sum().backward();
    let mut all = All(&grads, Vec::new());
    network.visit(&mut all);
    let grad = &all.1.iter().find(|(name, _)| name.ends_with("embed_tokens.weight")).expect("read").1;
    let of = |id: usize| grad[id * 16..][..16].iter().any(|x| *x != 0.0);
    assert_eq!([0, 1, 2, 3, 4].map(of), [false, false, true, false, true]);
}

#[test]
fn every_network_comes_back_as_it_was() {
    for config in variants() {
        let network = built(&config, &Device::flex());
        let dir = saved(&network);
        let again = crate::load(dir.path(), &Device::flex()).expect("sound");
        let wanted = network.architecture().with_ids(TokenIds { bos: None, eos: None, pad: None });
        assert_eq!(again.architecture(), wanted);
        assert_eq!(again.values(), network.values());
        let (guess, exact) = (wanted.estimate(), network.num_parameters() as f64);
        assert!((guess / exact - 1.0).abs() < 0.25, "{guess} {exact}");
        let generation = std::fs::read_to_string(dir.path().join("generation_config.json")).expect("written");
        assert!(generation.contains(r#""decoder_start_token_id": 2"#), "{generation}");
    }
}

#[test]
fn older_names_sines_and_a_tied_head_are_understood() {
    let network = built(&small("", ""), &Device::flex());
    let dir = saved(&network);
    let mut older: std::collections::BTreeMap<_, _> = network
        .values()
        .into_iter()
        .map(|(name, value)| {
            let name = name.replace("parametrizations.weight.original0", "weight_g");
            (name.replace("parametrizations.weight.original1", "weight_v"), value)
        })
        .collect();
    let table = older["speecht5.decoder.prenet.embed_tokens.weight"].clone();
    older.insert("text_decoder_postnet.lm_head.weight".to_string(), table);
    older.insert("speecht5.encoder.prenet.pos_sinusoidal_embed.weights".to_string(), (vec![2, 16], vec![0.0; 32]));
    older.insert("speecht5.decoder.prenet.embed_positions.weights".to_string(), (vec![2, 16], vec![0.0; 32]));
    crate::tensors::write(&dir.path().join("model.safetensors"), &older).expect("written");
    assert_eq!(crate::load(dir.path(), &Device::flex()).expect("sound").values(), network.values());
}

#[test]
fn tensors_that_are_missing_unknown_or_of_another_shape_are_named() {
    let network = built(&small("", ""), &Device::flex());
    let dir = saved(&network);
    let mut broken = network.values();
    broken.remove("speecht5.encoder.wrapped_encoder.embed_positions.pe_k.weight");
    broken.insert("speecht5.decoder.wrapped_decoder.extra".to_string(), (vec![1], vec![0.0]));
    let name = "speecht5.decoder.wrapped_decoder.layers.1.encoder_attn.k_proj.weight";
    broken.insert(name.to_string(), (vec![8, 16], vec![0.0; 128]));
    crate::tensors::write(&dir.path().join("model.safetensors"), &broken).expect("written");
    match crate::load(dir.path(), &Device::flex()) {
        Err(Error::Tensors { missing, unexpected, mismatched, .. }) => {
            assert_eq!(missing, ["speecht5.encoder.wrapped_encoder.embed_positions.pe_k.weight"]);
            assert_eq!(unexpected, ["speecht5.decoder.wrapped_decoder.extra"]);
            assert_eq!(mismatched, [format!("{name} [8, 16] instead of [16, 16]")]);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn fresh_weights_are_those_of_the_publication() {
    let config = small("", r#", "initializer_range": 0.05"#);
    let fresh = || Network::init(Architecture::new(&config, 5, Head::Decoder).expect("possible"), 7, &Device::flex());
    let values = fresh().values();
    let deviation = |name: &str| {
        let data = &values[name].1;
        (data.iter().map(|x| x * x).sum::<f32>() / data.len() as f32).sqrt()
    };
    let table = "speecht5.encoder.wrapped_encoder.embed_positions.pe_k.weight";
    for name in [table, "speecht5.decoder.wrapped_decoder.layers.1.encoder_attn.k_proj.weight"] {
        assert!((deviation(name) / 0.05 - 1.0).abs() < 0.3, "{name}: {}", deviation(name));
    }
    let table = &values["speecht5.decoder.prenet.embed_tokens.weight"].1;
    assert!(table[16..32].iter().all(|x| *x == 0.0) && table[..16].iter().all(|x| *x != 0.0));
    assert!(values["speecht5.decoder.wrapped_decoder.layers.0.final_layer_norm.weight"].1.iter().all(|x| *x == 1.0));
    assert_eq!(fresh().values(), values);
}

#[test]
fn what_a_network_cannot_do_is_named() {
    let refused = |config: &ModelConfig, vocab: usize, head: Head| {
        Architecture::new(config, vocab, head).expect_err("impossible").to_string()
    };
    assert!(refused(&small("", ""), 5, Head::Tokens).contains("writes with a decoder"));
    let wav2vec2 = config(&format!(
        r#""wav2vec2": {{{COMMON}, {WAVES}, "conv_bias": true, "feature_norm": "layer", "pre_norm": true}}"#
    ));
    assert!(refused(&wav2vec2, 5, Head::Decoder).contains("[model.speecht5]"));
    assert!(refused(&small("", ""), 2, Head::Decoder).contains("start token 2 is outside"));
    let uneven = small("", "");
    let uneven = serde_json::to_string(&uneven).expect("JSON").replace(r#""num_heads":4"#, r#""num_heads":3"#);
    let uneven: ModelConfig = serde_json::from_str(&uneven).expect("a model");
    assert!(refused(&uneven, 5, Head::Decoder).contains("3 heads of the decoder do not divide"));

    let network = built(&small("", ""), &Device::flex());
    let fits = input(&network, &[60, 44], IDS.to_vec());
    let failed = |input: Input, wanted: Wanted| network.forward(&input, &wanted).expect_err("impossible").to_string();
    assert!(failed(Input { sound: None, ..fits.clone() }, Wanted::All).contains("give it recordings"));
    let silent: Arc<[i32]> = [].into();
    assert!(failed(Input { ids: silent, ..fits.clone() }, Wanted::All).contains("give it tokens"));
    let unknown: Arc<[i32]> = [2, 4, 3, 3, 2, 0, 5, 1].into();
    assert!(failed(Input { ids: unknown, ..fits.clone() }, Wanted::All).contains("token 5 is outside"));
    let one_row: Sound = sound(&network.architecture(), &[60]);
    let other = Input { sound: Some(Arc::new(one_row)), ..fits.clone() };
    assert!(failed(other, Wanted::All).contains("do not belong to 1 rows of sound"));
    assert!(failed(fits.clone(), Wanted::Rows).contains("no class head"));
    assert!(network.layer_output(&fits, 3).expect_err("too many").to_string().contains("no layer 3"));
    for layer in 0..=2 {
        assert_eq!(network.layer_output(&fits, layer).expect("a layer").dims()[1], 16);
    }
}
