//! `config.json` as published checkpoints have it, read into an `Architecture` and written from one.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::gpt2::GeluForm;
use crate::llama::RopeScaling;
use crate::network::{Architecture, Head};
use crate::speech::Kind;
use crate::{ConvFrontConfig, Error, Result, bert, gpt2, llama, speech, speecht5};

/// The key of `[model.bert.conv_front]`, which the public layout does not know.
const CONV_FRONT: &str = "conv_front";
const MASKED_LM_HEAD: &str = "masked_lm_head";
/// Whether a tagger has transitions, which the public layout does not know either.
const CRF: &str = "crf";
const CLASSIFIER: &str = "BertForSequenceClassification";
const TAGGER: &str = "BertForTokenClassification";

/// Reads typed keys of one file; errors name it.
pub(crate) struct Reader<'a> {
    path: &'a Path,
    keys: Map<String, Value>,
}

impl Reader<'_> {
    pub(crate) fn error(&self, problem: String, remedy: &str) -> Error {
        Error::Config { path: self.path.to_path_buf(), problem, remedy: remedy.to_string() }
    }

    fn wrong(&self, key: &str, wanted: &str) -> Error {
        match self.keys.get(key) {
            Some(value) => self.error(format!("has `{key}` = {value}, but {wanted} is needed"), "correct the key"),
            None => self.error(format!("has no `{key}`"), "copy the file again from where the model came"),
        }
    }

    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        let size = self.keys.get(key).and_then(Value::as_u64).filter(|n| (1..=1 << 31).contains(n));
        size.map(|n| n as usize).ok_or_else(|| self.wrong(key, "a positive number"))
    }

    pub(crate) fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.is_set(key) { self.size(key) } else { Ok(default) }
    }

    pub(crate) fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        if !self.is_set(key) {
            return Ok(default);
        }
        self.keys[key].as_f64().ok_or_else(|| self.wrong(key, "a number"))
    }

    pub(crate) fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        if !self.is_set(key) {
            return Ok(default);
        }
        self.keys[key].as_bool().ok_or_else(|| self.wrong(key, "true or false"))
    }

    pub(crate) fn is_set(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(|v| !v.is_null())
    }

    pub(crate) fn text_or<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.keys.get(key).and_then(Value::as_str).unwrap_or(default)
    }

    pub(crate) fn must_be(&self, key: &str, value: &Value) -> Result<()> {
        match self.keys.get(key) {
            None | Some(Value::Null) => Ok(()),
            Some(found) if found == value => Ok(()),
            Some(found) => Err(self.error(
                format!("has `{key}` = {found}, which is not supported here (only {value})"),
                "choose another checkpoint",
            )),
        }
    }

    /// An error about a value that no network here can have.
    pub(crate) fn unsupported(&self, key: &str, value: &str, supported: &str) -> Error {
        self.error(
            format!("has `{key}` = \"{value}\", which is not supported here ({supported})"),
            "choose another checkpoint",
        )
    }

    /// Whether a key is there without a value.
    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(Value::is_null)
    }

    /// A number that may be 0.
    pub(crate) fn count_or(&self, key: &str, default: usize) -> Result<usize> {
        if !self.is_set(key) {
            return Ok(default);
        }
        let count = self.keys[key].as_u64().filter(|n| *n <= 1 << 31);
        count.map(|n| n as usize).ok_or_else(|| self.wrong(key, "a whole number"))
    }

    /// Positive numbers, at most a hundred of them.
    pub(crate) fn sizes_or(&self, key: &str, default: &[usize]) -> Result<Vec<usize>> {
        if !self.is_set(key) {
            return Ok(default.to_vec());
        }
        let size = |value: &Value| value.as_u64().filter(|n| (1..=1 << 31).contains(n)).map(|n| n as usize);
        let sizes = self.keys[key].as_array().filter(|list| list.len() <= 100);
        let sizes = sizes.and_then(|list| list.iter().map(size).collect());
        sizes.ok_or_else(|| self.wrong(key, "a list of positive numbers"))
    }

    /// The class that the file names.
    pub(crate) fn class(&self) -> Option<&str> {
        self.keys.get("architectures").and_then(|classes| classes[0].as_str())
    }

    fn gelu(&self, key: &str, default: &str) -> Result<GeluForm> {
        match self.text_or(key, default) {
            "gelu" => Ok(GeluForm::Erf),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(GeluForm::Tanh),
            other => Err(self.error(
                format!("has `{key}` = \"{other}\", which is not supported here (gelu, gelu_new, gelu_pytorch_tanh)"),
                "choose another checkpoint",
            )),
        }
    }

    /// Our own key for convolutions before the encoder.
    fn conv_front(&self) -> Result<Option<ConvFrontConfig>> {
        let Some(value) = self.keys.get(CONV_FRONT).filter(|value| !value.is_null()) else { return Ok(None) };
        serde_json::from_value(value.clone()).map(Some).map_err(|e| {
            self.error(
                format!("has a `{CONV_FRONT}` that cannot be read: {e}"),
                "copy the file again from where the model came",
            )
        })
    }

    /// The padding token, unless it also begins or ends texts and so has something to learn.
    fn filler(&self) -> Option<u32> {
        let id = |key: &str| self.keys.get(key).and_then(Value::as_u64);
        id("pad_token_id")
            .filter(|pad| ![id("bos_token_id"), id("eos_token_id")].contains(&Some(*pad)))
            .map(|id| id as u32)
    }

    /// Base and scaling of rotary positions, in the newer (`rope_parameters`) or the older form.
    fn rope(&self) -> Result<(f64, Option<RopeScaling>)> {
        let empty = Map::new();
        let newer = self.keys.get("rope_parameters").and_then(Value::as_object);
        let scaling = newer.or_else(|| self.keys.get("rope_scaling").and_then(Value::as_object)).unwrap_or(&empty);
        let theta = match scaling.get("rope_theta").and_then(Value::as_f64) {
            Some(theta) => theta,
            None => self.number_or("rope_theta", 10_000.0)?,
        };
        let kind =
            scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str).unwrap_or("default");
        let number = |key: &str| {
            scaling
                .get(key)
                .and_then(Value::as_f64)
                .ok_or_else(|| self.error(format!("has rope type \"{kind}\" without `{key}`"), "copy the file again"))
        };
        let scaling = match kind {
            "default" => None,
            "linear" => Some(RopeScaling::Linear { factor: number("factor")? }),
            "llama3" => Some(RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_seq_len: number("original_max_position_embeddings")? as usize,
            }),
            other => {
                let problem =
                    format!("has rope type \"{other}\", which is not supported here (default, linear, llama3)");
                return Err(self.error(problem, "choose another checkpoint"));
            }
        };
        Ok((theta, scaling))
    }
}

/// Reads `config.json` of a folder.
pub(crate) fn read(dir: &Path) -> Result<Architecture> {
    let path = dir.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
    let keys = match serde_json::from_str(&text) {
        Ok(Value::Object(keys)) => keys,
        Ok(_) => Map::new(),
        Err(e) => {
            return Err(Error::Config {
                path,
                problem: format!("is not JSON: {e}"),
                remedy: "copy the file again from where the model came".to_string(),
            });
        }
    };
    let r = Reader { path: &path, keys };
    let architecture = match r.text_or("model_type", "") {
        "llama" => Architecture::Llama(read_llama(&r)?),
        "qwen2" => Architecture::Qwen2(read_qwen2(&r)?),
        "gpt2" => Architecture::Gpt2(read_gpt2(&r)?),
        "bert" => Architecture::Bert(read_bert(&r)?),
        "speecht5" => Architecture::SpeechT5(speecht5::read(&r)?),
        other => match Kind::ALL.into_iter().find(|kind| kind.model_type() == other) {
            Some(kind) => Architecture::Speech(speech::public::read(&r, kind)?),
            None => {
                let speech: Vec<&str> = Kind::ALL.into_iter().map(Kind::model_type).collect();
                let known = format!("bert, gpt2, llama, qwen2, speecht5, {}", speech.join(", "));
                let problem = format!("has `model_type` \"{other}\", which is none of {known}");
                return Err(r.error(problem, "choose a checkpoint of one of these"));
            }
        },
    };
    match architecture.problem() {
        Some(problem) => Err(r.error(format!("describes an impossible model: {problem}"), "correct it")),
        None => Ok(architecture),
    }
}

fn read_llama(r: &Reader) -> Result<llama::Architecture> {
    r.must_be("hidden_act", &json!("silu"))?;
    let (rope_theta, rope_scaling) = r.rope()?;
    let bias = r.flag_or("attention_bias", false)?;
    Ok(llama::Architecture {
        config: llama::Config {
            hidden_size: r.size("hidden_size")?,
            num_layers: r.size("num_hidden_layers")?,
            num_heads: r.size("num_attention_heads")?,
            num_kv_heads: Some(r.size_or("num_key_value_heads", r.size("num_attention_heads")?)?),
            head_dim: r.is_set("head_dim").then(|| r.size("head_dim")).transpose()?,
            intermediate_size: r.size("intermediate_size")?,
            max_seq_len: r.size_or("max_position_embeddings", 2048)?,
            tie_word_embeddings: r.flag_or("tie_word_embeddings", false)?,
            rope_theta,
            rope_scaling,
            attention_bias: bias,
            mlp_bias: r.flag_or("mlp_bias", false)?,
            rms_norm_eps: r.number_or("rms_norm_eps", 1e-6)?,
            initializer_range: r.number_or("initializer_range", 0.02)?,
        },
        vocab_size: r.size("vocab_size")?,
        qkv_bias: bias,
        output_bias: bias,
        filler: r.filler(),
    })
}

fn read_qwen2(r: &Reader) -> Result<llama::Architecture> {
    r.must_be("use_sliding_window", &json!(false))?;
    let mut architecture = read_llama(r)?;
    architecture.qkv_bias = true;
    architecture.output_bias = false;
    architecture.config.mlp_bias = false;
    architecture.config.attention_bias = false;
    Ok(architecture)
}

fn read_gpt2(r: &Reader) -> Result<gpt2::Architecture> {
    r.must_be("scale_attn_by_inverse_layer_idx", &json!(false))?;
    r.must_be("scale_attn_weights", &json!(true))?;
    r.must_be("add_cross_attention", &json!(false))?;
    Ok(gpt2::Architecture {
        config: gpt2::Config {
            hidden_size: r.size("n_embd")?,
            num_layers: r.size("n_layer")?,
            num_heads: r.size("n_head")?,
            intermediate_size: r.is_set("n_inner").then(|| r.size("n_inner")).transpose()?,
            max_seq_len: r.size("n_positions")?,
            tie_word_embeddings: r.flag_or("tie_word_embeddings", true)?,
            dropout: r.number_or("resid_pdrop", 0.1)?,
            attention_dropout: r.number_or("attn_pdrop", 0.1)?,
            layer_norm_eps: r.number_or("layer_norm_epsilon", 1e-5)?,
            initializer_range: r.number_or("initializer_range", 0.02)?,
        },
        vocab_size: r.size("vocab_size")?,
        gelu: r.gelu("activation_function", "gelu_new")?,
    })
}

fn read_bert(r: &Reader) -> Result<bert::Architecture> {
    r.must_be("tie_word_embeddings", &json!(true))?;
    r.must_be("is_decoder", &json!(false))?;
    r.must_be("position_embedding_type", &json!("absolute"))?;
    let labels = || match r.keys.get("id2label").and_then(Value::as_object) {
        Some(map) => (0..map.len())
            .map(|i| map.get(&i.to_string()).and_then(Value::as_str).map_or_else(|| format!("LABEL_{i}"), String::from))
            .collect(),
        None => (0..r.keys.get("num_labels").and_then(Value::as_u64).unwrap_or(2).min(1 << 20))
            .map(|i| format!("LABEL_{i}"))
            .collect::<Vec<_>>(),
    };
    let head = match r.class() {
        Some(CLASSIFIER) if r.flag_or(MASKED_LM_HEAD, false)? => Head::ClassesAndTokens(labels()),
        Some(CLASSIFIER) => Head::Classes(labels()),
        Some(TAGGER) => Head::Tags { names: labels(), crf: r.flag_or(CRF, false)? },
        _ => Head::Tokens,
    };
    Ok(bert::Architecture {
        config: bert::Config {
            hidden_size: r.size("hidden_size")?,
            num_layers: r.size("num_hidden_layers")?,
            num_heads: r.size("num_attention_heads")?,
            intermediate_size: r.size("intermediate_size")?,
            max_seq_len: r.size_or("max_position_embeddings", 512)?,
            type_vocab_size: r.size_or("type_vocab_size", 2)?,
            dropout: r.number_or("hidden_dropout_prob", 0.1)?,
            attention_dropout: r.number_or("attention_probs_dropout_prob", 0.1)?,
            layer_norm_eps: r.number_or("layer_norm_eps", 1e-12)?,
            initializer_range: r.number_or("initializer_range", 0.02)?,
            conv_front: r.conv_front()?,
        },
        vocab_size: r.size("vocab_size")?,
        gelu: r.gelu("hidden_act", "gelu")?,
        head,
        filler: r.filler(),
    })
}

/// Ids of special tokens that go into the configuration files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TokenIds {
    /// Begins a document.
    pub bos: Option<u32>,
    /// Ends a document.
    pub eos: Option<u32>,
    /// Fills rows.
    pub pad: Option<u32>,
}

/// The content of `config.json`.
pub(crate) fn write(architecture: &Architecture, ids: TokenIds) -> Value {
    let mut json = match architecture {
        Architecture::Llama(a) => write_llama(a, "LlamaForCausalLM", "llama"),
        Architecture::Qwen2(a) => write_llama(a, "Qwen2ForCausalLM", "qwen2"),
        Architecture::Gpt2(a) => write_gpt2(a),
        Architecture::Bert(a) => write_bert(a),
        Architecture::Speech(a) => speech::public::write(a),
        Architecture::SpeechT5(a) => speecht5::write(a),
    };
    // Positions are counted from the padding token, so that there is one even without a tokenizer.
    let ids = match architecture {
        Architecture::SpeechT5(a) => TokenIds { pad: Some(a.pad), ..ids },
        _ => ids,
    };
    for (key, id) in [("bos_token_id", ids.bos), ("eos_token_id", ids.eos), ("pad_token_id", ids.pad)] {
        json[key] = json!(id);
    }
    json["dtype"] = json!("float32");
    json["vocab_size"] = json!(architecture.vocab_size());
    json
}

fn write_llama(a: &llama::Architecture, class: &str, name: &str) -> Value {
    let c = &a.config;
    let mut rope = match &c.rope_scaling {
        None => json!({"rope_type": "default"}),
        Some(RopeScaling::Linear { factor }) => json!({"rope_type": "linear", "factor": factor}),
        Some(RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_seq_len }) => json!({
            "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor, "original_max_position_embeddings": original_max_seq_len,
        }),
    };
    let older = c.rope_scaling.as_ref().map(|_| rope.clone());
    rope["rope_theta"] = json!(c.rope_theta);
    let mut json = json!({
        "architectures": [class], "model_type": name, "hidden_act": "silu",
        "hidden_size": c.hidden_size, "num_hidden_layers": c.num_layers, "num_attention_heads": c.num_heads,
        "num_key_value_heads": c.num_kv_heads.unwrap_or(c.num_heads), "intermediate_size": c.intermediate_size,
        "max_position_embeddings": c.max_seq_len, "tie_word_embeddings": c.tie_word_embeddings,
        "rms_norm_eps": c.rms_norm_eps, "initializer_range": c.initializer_range, "attention_dropout": 0.0,
        "rope_theta": c.rope_theta, "rope_scaling": older, "rope_parameters": rope, "use_cache": true,
    });
    if name == "llama" {
        json["head_dim"] = json!(a.head_dim());
        json["attention_bias"] = json!(c.attention_bias);
        json["mlp_bias"] = json!(c.mlp_bias);
    } else {
        json["use_sliding_window"] = json!(false);
    }
    json
}

fn activation(form: GeluForm) -> &'static str {
    match form {
        GeluForm::Erf => "gelu",
        GeluForm::Tanh => "gelu_new",
    }
}

fn write_gpt2(a: &gpt2::Architecture) -> Value {
    let c = &a.config;
    json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": activation(a.gelu),
        "n_embd": c.hidden_size, "n_layer": c.num_layers, "n_head": c.num_heads, "n_inner": c.intermediate_size,
        "n_positions": c.max_seq_len, "n_ctx": c.max_seq_len, "resid_pdrop": c.dropout, "embd_pdrop": c.dropout,
        "attn_pdrop": c.attention_dropout, "layer_norm_epsilon": c.layer_norm_eps,
        "initializer_range": c.initializer_range, "tie_word_embeddings": c.tie_word_embeddings,
    })
}

fn write_bert(a: &bert::Architecture) -> Value {
    let c = &a.config;
    let class = match a.head {
        Head::Classes(_) | Head::ClassesAndTokens(_) => CLASSIFIER,
        Head::Tags { .. } => TAGGER,
        Head::Tokens | Head::Codes | Head::Decoder | Head::Hidden => "BertForMaskedLM",
    };
    let mut json = json!({
        "architectures": [class], "model_type": "bert", "hidden_act": activation(a.gelu),
        "hidden_size": c.hidden_size, "num_hidden_layers": c.num_layers, "num_attention_heads": c.num_heads,
        "intermediate_size": c.intermediate_size, "max_position_embeddings": c.max_seq_len, "type_vocab_size": c.type_vocab_size,
        "hidden_dropout_prob": c.dropout, "attention_probs_dropout_prob": c.attention_dropout,
        "layer_norm_eps": c.layer_norm_eps,
        "initializer_range": c.initializer_range, "position_embedding_type": "absolute", "tie_word_embeddings": true,
    });
    if let Some(front) = &c.conv_front {
        json[CONV_FRONT] = json!(front);
    }
    match a.head {
        Head::Tags { crf: true, .. } => json[CRF] = json!(true),
        Head::ClassesAndTokens(_) => json[MASKED_LM_HEAD] = json!(true),
        _ => {}
    }
    if let Some(labels) = a.head.labels() {
        let by_id: Map<String, Value> = labels.iter().enumerate().map(|(i, l)| (i.to_string(), json!(l))).collect();
        let by_name: Map<String, Value> = labels.iter().enumerate().map(|(i, l)| (l.clone(), json!(i))).collect();
        json["id2label"] = by_id.into();
        json["label2id"] = by_name.into();
    }
    json
}
