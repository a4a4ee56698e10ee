//! `config.json` of SpeechT5. A key that is not there has the default of the published class.

use serde_json::{Value, json};

use super::{Architecture, DecoderConfig};
use crate::Result;
use crate::network::Head;
use crate::public_config::Reader;
use crate::speech::public::{GRADIENT_SCALE, MASK_TIME_PROB, activation, front, write_front};
use crate::speech::{self, Blocks, Kind, PositionSizes, Rates};

/// The class with an encoder of speech and a decoder of text.
const CLASS: &str = "SpeechT5ForSpeechToText";
pub(super) const MAX_SPEECH_POSITIONS: usize = 4000;
pub(super) const MAX_TEXT_POSITIONS: usize = 450;

/// Reads all keys.
pub(crate) fn read(r: &Reader) -> Result<Architecture> {
    // A file without a class says nothing about parts; the tensors beside it will.
    if let Some(class) = r.class().filter(|class| *class != CLASS) {
        return Err(r.unsupported("architectures", class, CLASS));
    }
    let rate = |key: &str| r.number_or(key, 0.1);
    Ok(Architecture {
        encoder: speech::Architecture {
            kind: Kind::SpeechT5,
            front: front(r, Kind::SpeechT5)?,
            hidden_size: r.size_or("hidden_size", 768)?,
            num_layers: r.size_or("encoder_layers", 12)?,
            num_heads: r.size_or("encoder_attention_heads", 12)?,
            intermediate_size: r.size_or("encoder_ffn_dim", 3072)?,
            blocks: Blocks::Transformer { pre_norm: false, attention_adapter: None },
            positions: Some(PositionSizes {
                kernel: r.size_or("num_conv_pos_embeddings", 128)?,
                groups: r.size_or("num_conv_pos_embedding_groups", 16)?,
            }),
            activation: activation(r, "hidden_act", "gelu")?,
            feature_activation: activation(r, "feat_extract_activation", "gelu")?,
            projection_norm: true,
            layer_norm_eps: r.number_or("layer_norm_eps", 1e-5)?,
            initializer_range: r.number_or("initializer_range", 0.02)?,
            rates: Rates {
                hidden: rate("hidden_dropout")?,
                attention: rate("attention_dropout")?,
                activation: rate("activation_dropout")?,
                projection: r.number_or("feat_proj_dropout", 0.0)?,
                layer: rate("encoder_layerdrop")?,
                ..Rates::default()
            },
            mask_vector: r.number_or("mask_time_prob", MASK_TIME_PROB)? > 0.0
                || r.number_or("mask_feature_prob", 0.0)? > 0.0,
            hides: r.flag_or("apply_spec_augment", true)?,
            intermediate_ffn: false,
            adapter: None,
            quantizer: None,
            feature_gradient_scale: r.number_or(GRADIENT_SCALE, 1.0)?,
            vocab_size: r.size_or("vocab_size", 81)?,
            head: Head::Decoder,
        },
        decoder: DecoderConfig {
            num_layers: r.size_or("decoder_layers", 6)?,
            num_heads: r.size_or("decoder_attention_heads", 12)?,
            intermediate_size: r.size_or("decoder_ffn_dim", 3072)?,
            positional_dropout: rate("positional_dropout")?,
            layer_drop: rate("decoder_layerdrop")?,
        },
        max_distance: r.size_or("encoder_max_relative_position", 160)?,
        scale_embedding: r.flag_or("scale_embedding", false)?,
        tie_word_embeddings: r.flag_or("tie_word_embeddings", true)?,
        pad: r.count_or("pad_token_id", 1)? as u32,
        start: r.count_or("decoder_start_token_id", 2)? as u32,
        max_speech_positions: r.size_or("max_speech_positions", MAX_SPEECH_POSITIONS)?,
        max_text_positions: r.size_or("max_text_positions", MAX_TEXT_POSITIONS)?,
    })
}

/// The content of `config.json`, but for what all networks have.
pub(crate) fn write(a: &Architecture) -> Value {
    let (encoder, decoder) = (&a.encoder, &a.decoder);
    let mut json = json!({
        "architectures": [CLASS], "model_type": "speecht5", "is_encoder_decoder": true, "use_cache": true,
        "hidden_size": encoder.hidden_size, "encoder_layers": encoder.num_layers,
        "encoder_attention_heads": encoder.num_heads, "encoder_ffn_dim": encoder.intermediate_size,
        "encoder_max_relative_position": a.max_distance, "encoder_layerdrop": encoder.rates.layer,
        "decoder_layers": decoder.num_layers, "decoder_attention_heads": decoder.num_heads,
        "decoder_ffn_dim": decoder.intermediate_size, "decoder_layerdrop": decoder.layer_drop,
        "hidden_act": encoder.activation.name(), "layer_norm_eps": encoder.layer_norm_eps,
        "initializer_range": encoder.initializer_range, "hidden_dropout": encoder.rates.hidden,
        "attention_dropout": encoder.rates.attention, "activation_dropout": encoder.rates.activation,
        "positional_dropout": decoder.positional_dropout, "feat_proj_dropout": encoder.rates.projection,
        "apply_spec_augment": encoder.hides,
        "mask_time_prob": if encoder.mask_vector { MASK_TIME_PROB } else { 0.0 }, "mask_time_length": 10,
        "mask_time_min_masks": 2, "mask_feature_prob": 0.0, "mask_feature_length": 10, "mask_feature_min_masks": 0,
        "scale_embedding": a.scale_embedding, "tie_word_embeddings": a.tie_word_embeddings,
        "decoder_start_token_id": a.start, "max_speech_positions": a.max_speech_positions,
        "max_text_positions": a.max_text_positions,
    });
    write_front(encoder, &mut |key, value| json[key] = value);
    json
}
