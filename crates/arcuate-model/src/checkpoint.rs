//! Reading and writing a network in the public layout: `config.json`, `model.safetensors`, `generation_config.json`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::tensor::Device;
use serde_json::json;

use crate::network::{Architecture, Head, Network};
use crate::public_config::{self, TokenIds};
use crate::tensors::{self, TensorFile};
use crate::{Error, Result};

/// Parts of the names of tables over the vocabulary.
const TOKEN_TABLES: [&str; 5] = ["embed_tokens", "word_embeddings", "wte", "lm_head", "predictions.bias"];

/// The name of a tensor of a file in our spelling; `None` for what carries no weights of its own.
fn our_name(architecture: &Architecture, name: &str) -> Option<String> {
    let ends =
        ["rotary_emb.inv_freq", "embed_positions.inv_freq", "position_ids", "attn.masked_bias", "num_batches_tracked"];
    let is_buffer = ends.iter().any(|end| name.ends_with(end));
    if is_buffer {
        return None;
    }
    match architecture {
        Architecture::Bert(_) => {
            if matches!(name, "cls.predictions.decoder.weight" | "cls.predictions.decoder.bias") {
                return None; // tied to the embeddings and to cls.predictions.bias
            }
            Some(name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"))
        }
        Architecture::Gpt2(a) => {
            if name.ends_with(".attn.bias") {
                return None; // a mask
            }
            if name == "lm_head.weight" {
                return (!a.config.tie_word_embeddings).then(|| name.to_string());
            }
            Some(if name.starts_with("transformer.") { name.to_string() } else { format!("transformer.{name}") })
        }
        Architecture::Llama(a) | Architecture::Qwen2(a) => {
            (!(a.config.tie_word_embeddings && name == "lm_head.weight")).then(|| name.to_string())
        }
        Architecture::SpeechT5(a) => {
            // Older files hold the sines of positions.
            let is_sines =
                ["pos_sinusoidal_embed.weights", "embed_positions.weights"].iter().any(|s| name.ends_with(s));
            let is_tied = a.tie_word_embeddings && name == "text_decoder_postnet.lm_head.weight";
            (!is_sines && !is_tied).then(|| newer_weight_norm(name))
        }
        Architecture::Speech(a) => {
            let body = a.kind.name();
            let heads = [body, "lm_head", "quantizer", "project_q", "project_hid"];
            let is_whole = heads.iter().any(|head| name.split('.').next() == Some(head));
            Some(newer_weight_norm(&if is_whole { name.to_string() } else { format!("{body}.{name}") }))
        }
    }
}

/// Older files spell lengths and directions of a normalised weight in another way.
fn newer_weight_norm(name: &str) -> String {
    let parts = [("weight_g", "original0"), ("weight_v", "original1")];
    let renamed = parts.iter().find_map(|(older, newer)| {
        Some(format!("{}.parametrizations.weight.{newer}", name.strip_suffix(older)?.strip_suffix('.')?))
    });
    renamed.unwrap_or_else(|| name.to_string())
}

/// Our names of the tensors in a file, with the names they have there.
fn names_in(file: &TensorFile, architecture: &Architecture) -> BTreeMap<String, String> {
    file.names().into_iter().filter_map(|name| Some((our_name(architecture, &name)?, name))).collect()
}

/// Reads a network from a checkpoint folder; every missing, unexpected or misshapen tensor is an error.
pub fn load(dir: &Path, device: &Device) -> Result<Network> {
    let mut architecture = public_config::read(dir)?;
    let file = TensorFile::open_folder(dir)?;
    let encoder = match &mut architecture {
        Architecture::Speech(a) => Some(a),
        Architecture::SpeechT5(a) => Some(&mut a.encoder),
        _ => None,
    };
    if let Some(encoder) = encoder {
        // Published files leave the vector of hidden frames out where it was never trained, whatever the configuration says.
        encoder.mask_vector = file.names().iter().any(|name| name.ends_with("masked_spec_embed"));
    }
    // A configuration from a stranger may ask for more memory than there is.
    let (described, held) = (architecture.estimate(), file.num_elements());
    if described > held * 1.5 + 1e6 {
        return Err(Error::Config {
            path: dir.join("config.json"),
            problem: format!("describes about {described:.3e} parameters, but the weights beside it hold {held:.3e}"),
            remedy: "use the configuration that belongs to the weights".to_string(),
        });
    }
    let names = names_in(&file, &architecture);
    let parameters = architecture.parameters();
    let known: std::collections::BTreeSet<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
    let missing: Vec<String> =
        parameters.iter().filter(|p| !names.contains_key(&p.name)).map(|p| p.name.clone()).collect();
    let unexpected: Vec<String> =
        names.iter().filter(|(ours, _)| !known.contains(ours.as_str())).map(|(_, theirs)| theirs.clone()).collect();
    let mismatched: Vec<String> = parameters
        .iter()
        .filter_map(|p| {
            let found = file.shape(names.get(&p.name)?)?;
            (found != p.shape).then(|| format!("{} {found:?} instead of {:?}", p.name, p.shape))
        })
        .collect();
    if !(missing.is_empty() && unexpected.is_empty() && mismatched.is_empty()) {
        return Err(Error::Tensors { path: dir.join("model.safetensors"), missing, unexpected, mismatched });
    }
    let mut problem = None;
    let network = Network::zeros(architecture, device).fill(|name, _| match file.f32(&names[name]) {
        Ok(values) => values.map(|v| v.data),
        Err(error) => {
            problem = Some(error);
            None
        }
    });
    problem.map_or(Ok(network), Err)
}

/// Writes `config.json`, `generation_config.json` and `model.safetensors` into a folder that exists.
pub fn save(network: &Network, ids: TokenIds, dir: &Path) -> Result<()> {
    let text =
        |value: &serde_json::Value| serde_json::to_string_pretty(value).expect("JSON values always print") + "\n";
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        std::fs::write(&path, text).map_err(Error::io(&path))
    };
    let architecture = network.architecture();
    write("config.json", text(&public_config::write(&architecture, ids)))?;
    let mut json = json!({"bos_token_id": ids.bos, "eos_token_id": ids.eos, "pad_token_id": ids.pad});
    if let Architecture::SpeechT5(a) = &architecture {
        json["pad_token_id"] = json!(a.pad);
        json["decoder_start_token_id"] = json!(a.start);
    }
    if architecture.is_causal() || *architecture.head() == Head::Decoder {
        write("generation_config.json", text(&json))?;
    }
    tensors::write(&dir.join("model.safetensors"), &network.values())
}

/// What became of every tensor when a network started from another checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Adoption {
    /// Taken as they are.
    pub taken: Vec<String>,
    /// Rows added or cut off: name, rows there, rows here.
    pub resized: Vec<(String, usize, usize)>,
    /// Not in the checkpoint, or of another shape: freshly initialised.
    pub new: Vec<String>,
    /// In the checkpoint, but not in this network.
    pub unused: Vec<String>,
}

/// Which tokens the rows of tables over the vocabulary stand for, here and in a checkpoint.
#[derive(Debug, Clone, Copy)]
pub enum Vocabulary<'a> {
    /// The same tokens, or more of them: rows keep their numbers. Then the first token of each pair becomes what the second
    /// one is.
    Same(&'a [(u32, u32)]),
    /// Other tokens: the first of each pair has the number here of what the second one is there; all else is fresh.
    Other(&'a [(u32, u32)]),
}

/// The tokens that two vocabularies share: number among the new ones, number among the old ones.
pub fn common_tokens<T: AsRef<str>, U: AsRef<str>>(new: &[T], old: &[U]) -> Vec<(u32, u32)> {
    let places: HashMap<&str, u32> = old.iter().map(AsRef::as_ref).zip(0..).collect();
    new.iter().zip(0..).filter_map(|(token, i)| Some((i, *places.get(token.as_ref())?))).collect()
}

/// Replaces the weights of a fresh network by those of a checkpoint folder where names fit.
///
/// Tables over the vocabulary follow `vocabulary`; those of positions that differ in their number of rows keep the rows that
/// both have. A network for pretraining gives its encoder to one with a map over a vocabulary and the other way round.
///
/// Another architecture, or tensors of another shape, are errors.
pub fn start_from(network: Network, dir: &Path, vocabulary: Vocabulary) -> Result<(Network, Adoption)> {
    let (there, here) = (public_config::read(dir)?.name(), network.architecture().name());
    if there != here {
        return Err(Error::Config {
            path: dir.join("config.json"),
            problem: format!("is of a `{there}` model, but the recipe has `[model.{here}]`"),
            remedy: format!("use `[model.{there}]`, or start from another checkpoint"),
        });
    }
    let file = TensorFile::open_folder(dir)?;
    let names = names_in(&file, &network.architecture());
    let mut adoption = Adoption::default();
    let mut problem = None;
    let mut mismatched = Vec::new();
    let fresh = network.values();
    let network = network.fill(|name, shape| {
        let values = match names.get(name).map(|theirs| file.f32(theirs)) {
            Some(Ok(Some(values))) => values,
            Some(Err(error)) => {
                problem = Some(error);
                return None;
            }
            _ => {
                adoption.new.push(name.to_string());
                return None;
            }
        };
        let is_of_tokens = TOKEN_TABLES.iter().any(|part| name.contains(part));
        if let Vocabulary::Other(pairs) = vocabulary
            && is_of_tokens
            && shape[1..] == values.shape[1..]
        {
            adoption.resized.push((name.to_string(), values.shape[0], shape[0]));
            return Some(moved(fresh[name].1.clone(), &values.data, shape[0], pairs));
        }
        let copied = |mut data: Vec<f32>| {
            let width = data.len() / shape[0].max(1);
            let Vocabulary::Same(copies) = vocabulary else { return data };
            for (to, from) in copies.iter().filter(|_| is_of_tokens) {
                let (to, from) = (*to as usize * width, *from as usize * width);
                data.copy_within(from..from + width, to);
            }
            data
        };
        if values.shape == shape {
            adoption.taken.push(name.to_string());
            return Some(copied(values.data));
        }
        let others = ["position_embeddings", "token_type_embeddings", "wpe"];
        let is_table = TOKEN_TABLES.iter().chain(&others).any(|part| name.contains(part));
        let is_label = name.contains("classifier") || name.starts_with("crf.");
        if is_label {
            adoption.new.push(name.to_string());
            return None;
        }
        if !is_table || shape.len() != values.shape.len() || shape[1..] != values.shape[1..] {
            mismatched.push(format!("{name} {:?} instead of {shape:?}", values.shape));
            return None;
        }
        adoption.resized.push((name.to_string(), values.shape[0], shape[0]));
        let mut data = fresh[name].1.clone();
        let both = data.len().min(values.data.len());
        data[..both].copy_from_slice(&values.data[..both]);
        Some(copied(data))
    });
    if !mismatched.is_empty() {
        let (missing, unexpected) = (Vec::new(), Vec::new());
        return Err(Error::Tensors { path: dir.join("model.safetensors"), missing, unexpected, mismatched });
    }
    adoption.unused = names.into_iter().filter(|(ours, _)| !fresh.contains_key(ours)).map(|(_, name)| name).collect();
    problem.map_or(Ok((network, adoption)), Err)
}

/// A table of `rows` rows in which the first row of each pair is the second one of `from`; pairs outside of either are left out.
fn moved(mut table: Vec<f32>, from: &[f32], rows: usize, pairs: &[(u32, u32)]) -> Vec<f32> {
    let width = table.len() / rows.max(1);
    for (to, source) in pairs {
        let (to, source) = (*to as usize * width, *source as usize * width);
        if let (Some(to), Some(source)) = (table.get_mut(to..to + width), from.get(source..source + width)) {
            to.copy_from_slice(source);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use arcuate_ops::gradcheck::values;

    use super::*;
    use crate::{Input, ModelConfig, Wanted};

    fn config(toml_like: serde_json::Value) -> ModelConfig {
        serde_json::from_value(toml_like).expect("a sound configuration")
    }

    fn llama(tie: bool) -> ModelConfig {
        config(json!({"llama": {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1,
            "intermediate_size": 12, "max_seq_len": 16, "tie_word_embeddings": tie,
            "rope_scaling": {"linear": {"factor": 2.0}}}}))
    }

    fn network(config: &ModelConfig, vocab: usize, head: Head) -> Network {
        let architecture = Architecture::new(config, vocab, head).expect("possible sizes");
        Network::init(architecture, 1, &Device::flex())
    }

    fn all() -> Vec<Network> {
        let gpt2 = config(json!({"gpt2": {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "max_seq_len": 16}}));
        let untied = config(json!({"gpt2": {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "max_seq_len": 16,
            "tie_word_embeddings": false}}));
        let bert = config(
            json!({"bert": {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "intermediate_size": 12, "max_seq_len": 16}}),
        );
        let qwen2 = config(json!({"qwen2": {"hidden_size": 8, "num_layers": 1, "num_heads": 2,
            "intermediate_size": 12, "max_seq_len": 16, "tie_word_embeddings": false}}));
        let conv = config(json!({"bert": {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "intermediate_size": 12,
            "max_seq_len": 16, "conv_front": {"num_layers": 1, "kernel": [4, 3], "channels": 2}}}));
        let classes = Head::Classes(vec!["yes".to_string(), "no".to_string(), "perhaps".to_string()]);
        vec![
            network(&llama(true), 11, Head::Tokens),
            network(&llama(false), 11, Head::Tokens),
            network(&qwen2, 11, Head::Tokens),
            network(&gpt2, 11, Head::Tokens),
            network(&bert, 11, Head::Tokens),
            network(&bert, 11, classes),
            network(&untied, 11, Head::Tokens),
            network(&conv, 11, Head::Tokens),
            network(&bert, 11, Head::ClassesAndTokens(vec!["yes".to_string(), "no".to_string()])),
            network(&bert, 11, Head::Tags { names: tags(), crf: false }),
            network(&bert, 11, Head::Tags { names: tags(), crf: true }),
        ]
    }

    fn tags() -> Vec<String> {
        ["B-PER", "I-PER", "O"].map(str::to_owned).into()
    }

    fn saved(network: &Network) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        save(network, TokenIds { bos: Some(1), eos: Some(2), pad: None }, dir.path()).expect("written");
        dir
    }

    #[test]
    fn every_architecture_comes_back_as_it_was() {
        for network in all() {
            let dir = saved(&network);
            let again = load(dir.path(), &Device::flex()).expect("sound");
            assert_eq!(again.architecture(), {
                let mut a = network.architecture();
                if let Architecture::Llama(a) | Architecture::Qwen2(a) = &mut a {
                    a.config.num_kv_heads = Some(a.config.num_kv_heads.unwrap_or(a.config.num_heads));
                    a.config.head_dim = again_head_dim(&again);
                }
                a
            });
            assert_eq!(again.values(), network.values());
        }
    }

    #[test]
    fn new_tokens_begin_as_what_they_are_to_mean() {
        for old in [0, 3, 4] {
            let old = &all()[old];
            let dir = saved(old);
            let mut architecture = old.architecture();
            match &mut architecture {
                Architecture::Bert(a) => a.vocab_size = 13,
                Architecture::Gpt2(a) => a.vocab_size = 13,
                Architecture::Llama(a) | Architecture::Qwen2(a) => a.vocab_size = 13,
                Architecture::Speech(a) => a.vocab_size = 13,
                Architecture::SpeechT5(a) => a.encoder.vocab_size = 13,
            }
            let fresh = Network::init(architecture, 2, &Device::flex());
            let (grown, _) = start_from(fresh, dir.path(), Vocabulary::Same(&[(11, 4), (12, 7)])).expect("sound");
            let input = Input::from_rows(1, 3, vec![4, 7, 1], &[]).expect("no mask");
            let logits =
                |network: &Network, input: &Input| values(network.forward(input, &Wanted::All).expect("fits").logits());
            let rows = logits(&grown, &input);
            for row in rows.chunks(13) {
                assert_eq!((row[11], row[12]), (row[4], row[7]));
            }
            let with_new = Input::from_rows(1, 3, vec![11, 12, 1], &[]).expect("no mask");
            assert_eq!(logits(&grown, &with_new), rows);
        }
    }

    fn again_head_dim(network: &Network) -> Option<usize> {
        match network.architecture() {
            Architecture::Llama(a) | Architecture::Qwen2(a) => a.config.head_dim,
            _ => None,
        }
    }

    #[test]
    fn missing_and_unexpected_tensors_are_all_listed() {
        let network = &all()[0];
        let dir = saved(network);
        let mut values = network.values();
        values.remove("model.norm.weight");
        values.remove("model.layers.1.mlp.up_proj.weight");
        values.insert("model.extra".to_string(), (vec![1], vec![0.0]));
        values.insert("model.embed_tokens.weight".to_string(), (vec![2, 8], vec![0.0; 16]));
        tensors::write(&dir.path().join("model.safetensors"), &values).expect("written");
        let message = load(dir.path(), &Device::flex()).expect_err("tensors differ").to_string();
        for part in
            ["2 missing", "model.norm.weight", "mlp.up_proj", "1 unexpected: model.extra", "[2, 8] instead of [11, 8]"]
        {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn older_names_of_bert_and_gpt2_are_understood() {
        for (index, rename) in [(3usize, "gpt2"), (4, "bert")] {
            let network = &all()[index];
            let dir = saved(network);
            let values = network.values().into_iter().map(|(name, value)| {
                let older = match rename {
                    "gpt2" => name.trim_start_matches("transformer.").to_string(),
                    _ => {
                        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
                    }
                };
                (older, value)
            });
            tensors::write(&dir.path().join("model.safetensors"), &values.collect()).expect("written");
            assert_eq!(load(dir.path(), &Device::flex()).expect("sound").values(), network.values());
        }
    }

    #[test]
    fn an_untied_head_is_a_tensor_of_its_own() {
        let networks = all();
        let (tied, untied) = (&networks[3], &networks[6]);
        assert_eq!(untied.num_parameters(), tied.num_parameters() + 11 * 8);
        let dir = saved(untied);
        let mut values = untied.values();
        values.remove("lm_head.weight").expect("its name is public");
        tensors::write(&dir.path().join("model.safetensors"), &values).expect("written");
        let message = load(dir.path(), &Device::flex()).expect_err("no head").to_string();
        assert!(message.contains("1 missing: lm_head.weight"), "{message}");
    }

    #[test]
    fn running_statistics_are_tensors_of_the_checkpoint() {
        let network = &all()[7];
        let dir = saved(network);
        let mut values = network.values();
        let name = "bert.conv_front.layer.0.norm.running_var";
        assert_eq!(values[name], (vec![2], vec![1.0; 2]));
        values.insert(name.to_string(), (vec![2], vec![0.25, 3.5]));
        tensors::write(&dir.path().join("model.safetensors"), &values).expect("written");
        assert_eq!(load(dir.path(), &Device::flex().autodiff()).expect("sound").values(), values);
        values.remove(name).expect("it was there");
        tensors::write(&dir.path().join("model.safetensors"), &values).expect("written");
        let message = load(dir.path(), &Device::flex()).expect_err("incomplete").to_string();
        assert!(message.contains(name), "{message}");
    }

    #[test]
    fn starting_from_a_smaller_vocabulary_keeps_the_common_rows() {
        let small = network(&llama(true), 9, Head::Tokens);
        let dir = saved(&small);
        let (big, adoption) =
            start_from(network(&llama(true), 12, Head::Tokens), dir.path(), Vocabulary::Same(&[])).expect("sound");
        assert_eq!(adoption.resized, [("model.embed_tokens.weight".to_string(), 9, 12)]);
        assert!(adoption.new.is_empty() && adoption.unused.is_empty());
        let name = "model.embed_tokens.weight";
        assert_eq!(big.values()[name].1[..72], small.values()[name].1[..]);
        assert_ne!(big.values()[name].1[72..80], [0.0; 8]);
    }

    #[test]
    fn a_classifier_starts_from_a_masked_language_model() {
        let networks = all();
        let dir = saved(&networks[4]);
        let (_, adoption) = start_from(networks[5].clone(), dir.path(), Vocabulary::Same(&[])).expect("sound");
        assert!(adoption.new.iter().all(|n| n.contains("pooler") || n.contains("classifier")), "{adoption:?}");
        assert_eq!(adoption.new.len(), 4);
        assert!(adoption.unused.iter().all(|n| n.starts_with("cls.")));
    }

    #[test]
    fn a_tagger_has_the_public_layout_but_for_its_transitions() {
        let networks = all();
        let json = |network: &Network| -> serde_json::Value {
            let text = std::fs::read_to_string(saved(network).path().join("config.json")).expect("there");
            serde_json::from_str(&text).expect("JSON")
        };
        let (plain, crf) = (json(&networks[9]), json(&networks[10]));
        assert_eq!(plain["architectures"], json!(["BertForTokenClassification"]));
        assert_eq!(plain["id2label"], json!({"0": "B-PER", "1": "I-PER", "2": "O"}));
        assert!(plain.get("crf").is_none() && networks[9].architecture().extension().is_none());
        assert_eq!((&crf["crf"], networks[10].architecture().extension()), (&json!(true), Some("crf")));
        let names = |network: &Network| network.values().into_keys().collect::<std::collections::BTreeSet<_>>();
        let (plain, crf) = (names(&networks[9]), names(&networks[10]));
        assert_eq!(crf.difference(&plain).collect::<Vec<_>>(), ["crf.transitions"]);
        assert!(plain.contains("classifier.weight") && !plain.iter().any(|name| name.contains("pooler")));
        let values = networks[10].values();
        assert_eq!(values["crf.transitions"].0, [3, 3]);
        // Other tags than before begin anew.
        let more = Head::Tags { names: (0..4).map(|i| i.to_string()).collect(), crf: true };
        let config = ModelConfig::Bert(match networks[10].architecture() {
            Architecture::Bert(a) => a.config,
            other => panic!("{other:?}"),
        });
        let (_, adoption) =
            start_from(network(&config, 11, more), saved(&networks[10]).path(), Vocabulary::Same(&[])).expect("sound");
        assert_eq!(adoption.new, ["classifier.weight", "classifier.bias", "crf.transitions"]);
    }

    #[test]
    fn broken_configurations_are_named() {
        let dir = saved(&all()[0]);
        let path = dir.path().join("config.json");
        let good: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).expect("there")).expect("JSON");
        let message = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut json = good.clone();
            change(&mut json);
            std::fs::write(&path, json.to_string()).expect("writable");
            load(dir.path(), &Device::flex()).expect_err("broken").to_string()
        };
        assert!(message(&|j| j["model_type"] = json!("t5")).contains("none of bert, gpt2"));
        assert!(message(&|j| j["num_key_value_heads"] = json!(3)).contains("impossible model"));
        assert!(message(&|j| j["hidden_size"] = json!("x")).contains("`hidden_size`"));
        assert!(message(&|j| j["hidden_act"] = json!("relu")).contains("not supported"));
        std::fs::write(&path, "{").expect("writable");
        assert!(load(dir.path(), &Device::flex()).expect_err("broken").to_string().contains("not JSON"));
        std::fs::remove_file(&path).expect("there");
        assert!(load(dir.path(), &Device::flex()).is_err());
    }
}
