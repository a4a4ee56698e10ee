//! `config.json` of speech networks. A key that is not there has the default of its published class.

use serde_json::{Value, json};

use super::{
    ADAPTER_KERNEL, Activation, AdapterForm, AdapterSizes, Architecture, Blocks, ConvLayer, FeatureNorm, Front, Kind,
    PositionSizes, Positions, QuantizerConfig, Rates,
};
use crate::Result;
use crate::network::Head;
use crate::public_config::Reader;

/// Our own key: the factor of gradients of the convolutions over samples.
pub(crate) const GRADIENT_SCALE: &str = "feature_gradient_scale";
/// The probability of hiding frames that is written where there is a vector for them; recipes have their own.
pub(crate) const MASK_TIME_PROB: f64 = 0.05;

/// Reads the keys of a network of this kind.
pub(crate) fn read(r: &Reader, kind: Kind) -> Result<Architecture> {
    r.must_be("conv_pos_batch_norm", &json!(false))?;
    let is_bert = kind == Kind::Wav2Vec2Bert;
    let hidden_size = r.size_or("hidden_size", if is_bert { 1024 } else { 768 })?;
    let num_heads = r.size_or("num_attention_heads", if is_bert { 16 } else { 12 })?;
    let is_conformer = matches!(kind, Kind::Wav2Vec2Conformer | Kind::Wav2Vec2Bert);
    let dropout = if is_bert { 0.0 } else { 0.1 };
    let adapter = if r.flag_or("add_adapter", false)? { Some(adapter(r, kind, hidden_size)?) } else { None };
    let blocks = if is_conformer {
        Blocks::Conformer {
            positions: positions(r, kind)?,
            max_positions: r.size_or("max_source_positions", 5000)?,
            kernel: r.size_or("conv_depthwise_kernel_size", 31)?,
        }
    } else {
        let pre_norm = r.flag_or("do_stable_layer_norm", false)?;
        let attention_adapter = r.is_set("adapter_attn_dim").then(|| r.size("adapter_attn_dim")).transpose()?;
        // As published: only layers with the norm before have the adapter.
        Blocks::Transformer { pre_norm, attention_adapter: attention_adapter.filter(|_| pre_norm) }
    };
    let positions = PositionSizes {
        kernel: r.size_or("num_conv_pos_embeddings", 128)?,
        groups: r.size_or("num_conv_pos_embedding_groups", 16)?,
    };
    let head = head(r, kind)?;
    let quantizer = if kind.has_quantizer() && (head == Head::Codes || r.is_set("num_codevector_groups")) {
        Some(QuantizerConfig {
            num_codebooks: r.size_or("num_codevector_groups", 2)?,
            codebook_size: r.size_or("num_codevectors_per_group", 320)?,
            code_size: r.size_or("codevector_dim", 256)?,
            projection_size: r.size_or("proj_codevector_dim", 256)?,
        })
    } else {
        None
    };
    Ok(Architecture {
        kind,
        front: front(r, kind)?,
        hidden_size,
        num_layers: r.size_or("num_hidden_layers", if is_bert { 24 } else { 12 })?,
        num_heads,
        intermediate_size: r.size_or("intermediate_size", if is_bert { 4096 } else { 3072 })?,
        blocks,
        positions: (!is_bert).then_some(positions),
        activation: activation(r, "hidden_act", if is_bert { "swish" } else { "gelu" })?,
        feature_activation: activation(r, "feat_extract_activation", "gelu")?,
        projection_norm: r.flag_or("feat_proj_layer_norm", true)?,
        layer_norm_eps: r.number_or("layer_norm_eps", 1e-5)?,
        initializer_range: r.number_or("initializer_range", 0.02)?,
        rates: Rates {
            hidden: r.number_or("hidden_dropout", dropout)?,
            attention: r.number_or("attention_dropout", dropout)?,
            activation: r.number_or("activation_dropout", dropout)?,
            projection: r.number_or("feat_proj_dropout", 0.0)?,
            features: r.number_or("feat_quantizer_dropout", 0.0)?,
            last: r.number_or("final_dropout", 0.1)?,
            conv: if is_conformer { r.number_or("conformer_conv_dropout", 0.1)? } else { 0.0 },
            layer: r.number_or("layerdrop", 0.1)?,
        },
        mask_vector: r.number_or("mask_time_prob", MASK_TIME_PROB)? > 0.0
            || r.number_or("mask_feature_prob", 0.0)? > 0.0,
        hides: r.flag_or("apply_spec_augment", true)?,
        intermediate_ffn: is_bert && r.flag_or("use_intermediate_ffn_before_adapter", false)?,
        adapter,
        quantizer,
        feature_gradient_scale: r.number_or(GRADIENT_SCALE, 1.0)?,
        vocab_size: r.size_or("vocab_size", 32)?,
        head,
    })
}

pub(crate) fn front(r: &Reader, kind: Kind) -> Result<Front> {
    if kind == Kind::Wav2Vec2Bert {
        return Ok(Front::Frames(r.size_or("feature_projection_input_dim", 160)?));
    }
    let norm = match r.text_or("feat_extract_norm", "group") {
        "group" => FeatureNorm::Group,
        "layer" => FeatureNorm::Layer,
        other => return Err(r.unsupported("feat_extract_norm", other, "group, layer")),
    };
    let channels = r.sizes_or("conv_dim", &[512; 7])?;
    let kernels = r.sizes_or("conv_kernel", &[10, 3, 3, 3, 3, 2, 2])?;
    let strides = r.sizes_or("conv_stride", &[5, 2, 2, 2, 2, 2, 2])?;
    if channels.len() != kernels.len() || channels.len() != strides.len() {
        let (c, k, s) = (channels.len(), kernels.len(), strides.len());
        let problem = format!("has {c} numbers in `conv_dim`, {k} in `conv_kernel` and {s} in `conv_stride`");
        return Err(r.error(problem, "give as many of each"));
    }
    let layers = channels.into_iter().zip(kernels).zip(strides);
    let layers = layers.map(|((channels, kernel), stride)| ConvLayer { channels, kernel, stride }).collect();
    Ok(Front::Waves { layers, norm, bias: r.flag_or("conv_bias", false)? })
}

fn positions(r: &Reader, kind: Kind) -> Result<Positions> {
    const KEY: &str = "position_embeddings_type";
    let is_bert = kind == Kind::Wav2Vec2Bert;
    if r.is_null(KEY) {
        return Ok(Positions::None);
    }
    match r.text_or(KEY, if is_bert { "relative_key" } else { "relative" }) {
        "relative" => Ok(Positions::Relative),
        "rotary" => Ok(Positions::Rotary { base: r.number_or("rotary_embedding_base", 10_000.0)? }),
        "relative_key" if is_bert => Ok(Positions::Key {
            left: r.count_or("left_max_position_embeddings", 64)?,
            right: r.count_or("right_max_position_embeddings", 8)?,
        }),
        other => Err(r.unsupported(KEY, other, "relative, rotary, and relative_key of wav2vec2-bert")),
    }
}

fn adapter(r: &Reader, kind: Kind, hidden_size: usize) -> Result<AdapterSizes> {
    r.must_be("adapter_kernel_size", &json!(ADAPTER_KERNEL))?;
    let (form, num_layers) = if kind == Kind::Wav2Vec2Bert {
        (AdapterForm::Attending { form: activation(r, "adapter_act", "relu")? }, 1)
    } else {
        (AdapterForm::Conv, 3)
    };
    Ok(AdapterSizes {
        form,
        num_layers: r.size_or("num_adapter_layers", num_layers)?,
        stride: r.size_or("adapter_stride", 2)?,
        output_size: r.size_or("output_hidden_size", hidden_size)?,
    })
}

pub(crate) fn activation(r: &Reader, key: &str, default: &str) -> Result<Activation> {
    let name = r.text_or(key, default);
    Activation::from_name(name)
        .ok_or_else(|| r.unsupported(key, name, "gelu, gelu_new, gelu_pytorch_tanh, silu, swish, relu"))
}

/// What the class in `architectures` has on its encoder.
fn head(r: &Reader, kind: Kind) -> Result<Head> {
    let Some(class) = r.class() else { return Ok(Head::Hidden) };
    match class.strip_prefix(kind.class()) {
        Some("ForCTC") => Ok(Head::Tokens),
        Some("ForPreTraining") if kind.has_quantizer() => Ok(Head::Codes),
        Some("Model") => Ok(Head::Hidden),
        _ => {
            let name = kind.class();
            let mut supported = format!("{name}ForCTC, {name}Model");
            if kind.has_quantizer() {
                supported += &format!(", {name}ForPreTraining");
            }
            Err(r.unsupported("architectures", class, &supported))
        }
    }
}

/// Convolutions over samples, and the one that carries positions.
pub(crate) fn write_front(a: &Architecture, set: &mut impl FnMut(&str, Value)) {
    match &a.front {
        Front::Frames(features) => set("feature_projection_input_dim", json!(features)),
        Front::Waves { layers, norm, bias } => {
            let each = |of: fn(&ConvLayer) -> usize| json!(layers.iter().map(of).collect::<Vec<_>>());
            set("conv_dim", each(|layer| layer.channels));
            set("conv_kernel", each(|layer| layer.kernel));
            set("conv_stride", each(|layer| layer.stride));
            set("num_feat_extract_layers", json!(layers.len()));
            set("feat_extract_norm", json!(if *norm == FeatureNorm::Group { "group" } else { "layer" }));
            set("feat_extract_activation", json!(a.feature_activation.name()));
            set("conv_bias", json!(bias));
            set(GRADIENT_SCALE, json!(a.feature_gradient_scale));
        }
    }
    if let Some(positions) = a.positions {
        set("num_conv_pos_embeddings", json!(positions.kernel));
        set("num_conv_pos_embedding_groups", json!(positions.groups));
    }
}

/// The content of `config.json`, but for what all networks have.
pub(crate) fn write(a: &Architecture) -> Value {
    let class = match a.head {
        Head::Codes => "ForPreTraining",
        Head::Hidden => "Model",
        _ => "ForCTC",
    };
    let is_bert = a.kind == Kind::Wav2Vec2Bert;
    let adapter = a.adapter.unwrap_or(AdapterSizes {
        form: AdapterForm::Conv,
        num_layers: if is_bert { 1 } else { 3 },
        stride: 2,
        output_size: a.hidden_size,
    });
    let mut json = json!({
        "architectures": [format!("{}{class}", a.kind.class())], "model_type": a.kind.model_type(),
        "hidden_size": a.hidden_size, "num_hidden_layers": a.num_layers, "num_attention_heads": a.num_heads,
        "intermediate_size": a.intermediate_size, "hidden_act": a.activation.name(),
        "layer_norm_eps": a.layer_norm_eps, "initializer_range": a.initializer_range,
        "hidden_dropout": a.rates.hidden, "attention_dropout": a.rates.attention,
        "activation_dropout": a.rates.activation, "feat_proj_dropout": a.rates.projection,
        "final_dropout": a.rates.last, "layerdrop": a.rates.layer,
        "apply_spec_augment": a.hides, "mask_time_prob": if a.mask_vector { MASK_TIME_PROB } else { 0.0 },
        "mask_time_length": 10, "mask_time_min_masks": 2, "mask_feature_prob": 0.0, "mask_feature_length": 10,
        "mask_feature_min_masks": 0, "ctc_loss_reduction": "sum", "ctc_zero_infinity": true,
        "use_weighted_layer_sum": false,
    });
    let mut set = |key: &str, value: Value| json[key] = value;
    write_front(a, &mut set);
    match &a.blocks {
        Blocks::Transformer { pre_norm, attention_adapter } => {
            set("do_stable_layer_norm", json!(pre_norm));
            if a.kind == Kind::Wav2Vec2 || attention_adapter.is_some() {
                set("adapter_attn_dim", json!(attention_adapter));
            }
        }
        Blocks::Conformer { positions, max_positions, kernel } => {
            set("conv_depthwise_kernel_size", json!(kernel));
            set("conformer_conv_dropout", json!(a.rates.conv));
            set("max_source_positions", json!(max_positions));
            let name = match positions {
                Positions::None => Value::Null,
                Positions::Relative => json!("relative"),
                Positions::Rotary { base } => {
                    set("rotary_embedding_base", json!(base));
                    json!("rotary")
                }
                Positions::Key { left, right } => {
                    set("left_max_position_embeddings", json!(left));
                    set("right_max_position_embeddings", json!(right));
                    json!("relative_key")
                }
            };
            set("position_embeddings_type", name);
        }
    }
    if a.kind == Kind::Hubert {
        set("feat_proj_layer_norm", json!(a.projection_norm));
        set("conv_pos_batch_norm", json!(false));
    } else {
        set("add_adapter", json!(a.adapter.is_some()));
        set("adapter_kernel_size", json!(ADAPTER_KERNEL));
        set("adapter_stride", json!(adapter.stride));
        set("num_adapter_layers", json!(adapter.num_layers));
        set("output_hidden_size", json!(adapter.output_size));
    }
    if is_bert {
        let act = if let AdapterForm::Attending { form } = adapter.form { form.name() } else { "relu" };
        set("adapter_act", json!(act));
        set("use_intermediate_ffn_before_adapter", json!(a.intermediate_ffn));
    }
    if a.kind.has_quantizer() {
        set("feat_quantizer_dropout", json!(a.rates.features));
    }
    if let Some(q) = &a.quantizer {
        set("num_codevector_groups", json!(q.num_codebooks));
        set("num_codevectors_per_group", json!(q.codebook_size));
        set("codevector_dim", json!(q.code_size));
        set("proj_codevector_dim", json!(q.projection_size));
    }
    json
}
