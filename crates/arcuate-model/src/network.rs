//! A network of any architecture: building, running, and its parameters.

use std::collections::BTreeMap;
use std::sync::Arc;

use arcuate_data::Downsampling;
use arcuate_ops::embedding::embedding;
use arcuate_ops::is_trained_by_kernels;
use arcuate_ops::pool;
use arcuate_ops::rng::Stream;
use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::bert::{self, Bert};
use crate::gpt2::{self, GeluForm, Gpt2};
use crate::input::{Input, Wanted};
use crate::layer::{ConvFrontConfig, Embedding, KvCache, Seen};
use crate::llama::{self, Llama};
use crate::output::Output;

use crate::params::{self, Fill, Infos, ParameterInfo, Replace, Values, Visit};
use crate::speech::{self, Speech};
use crate::speecht5::{self, SpeechT5};
use crate::{Error, ModelConfig, Result, TokenIds, hubert, wav2vec2, wav2vec2_bert, wav2vec2_conformer};

/// Which head stands on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// Logits over the vocabulary; for every frame of a speech network.
    Tokens,
    /// Logits over these classes, one row of them for a whole text (BERT only).
    Classes(Vec<String>),
    /// Both (BERT only).
    ClassesAndTokens(Vec<String>),
    /// What a quantizer makes of frames, and queries for it (wav2vec 2.0 only).
    Codes,
    /// Logits over the vocabulary for every token that a decoder reads beside what the encoder gives (SpeechT5 only).
    Decoder,
    /// Nothing: hidden states alone (speech networks only).
    Hidden,
    /// Logits over these tags for every token, with or without transitions between them (BERT only).
    Tags {
        /// The names.
        names: Vec<String>,
        /// Whether there are transitions.
        crf: bool,
    },
}

impl Head {
    /// Names of classes or tags.
    pub fn labels(&self) -> Option<&[String]> {
        match self {
            Self::Tokens | Self::Codes | Self::Decoder | Self::Hidden => None,
            Self::Classes(names) | Self::ClassesAndTokens(names) | Self::Tags { names, .. } => Some(names),
        }
    }

    /// Whether there are logits over the vocabulary.
    pub fn has_tokens(&self) -> bool {
        matches!(self, Self::Tokens | Self::ClassesAndTokens(_))
    }
}

/// Everything that fixes a network and its `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub enum Architecture {
    /// BERT
    Bert(bert::Architecture),
    /// GPT-2
    Gpt2(gpt2::Architecture),
    /// Llama
    Llama(llama::Architecture),
    /// Qwen2: the Llama network
    Qwen2(llama::Architecture),
    /// wav2vec 2.0 and its relatives
    Speech(speech::Architecture),
    /// SpeechT5
    SpeechT5(speecht5::Architecture),
}

impl Architecture {
    /// From the keys of a recipe and what follows from tokenizer and data.
    pub fn new(config: &ModelConfig, vocab_size: usize, head: Head) -> Result<Self> {
        let name = config.name();
        let is_speech = config.is_speech();
        if head.labels().is_some() && !matches!(config, ModelConfig::Bert(_)) {
            return Err(Error::Unsupported(format!("`{name}` has no classifier; use `[model.bert]`")));
        }
        if matches!(head, Head::Codes | Head::Hidden) && !is_speech {
            return Err(Error::Unsupported(format!("`{name}` hears no sound; use `[model.wav2vec2]`")));
        }
        let has_decoder = matches!(config, ModelConfig::Speecht5(_));
        if has_decoder != (head == Head::Decoder) {
            return Err(Error::Unsupported(if has_decoder {
                format!("`{name}` writes with a decoder alone; use `[model.wav2vec2]`")
            } else {
                format!("`{name}` has no decoder beside an encoder; use `[model.speecht5]`")
            }));
        }
        let architecture = match config.clone() {
            ModelConfig::Bert(config) => {
                Self::Bert(bert::Architecture { config, vocab_size, gelu: GeluForm::Erf, head, filler: None })
            }
            ModelConfig::Gpt2(config) => Self::Gpt2(gpt2::Architecture { config, vocab_size, gelu: GeluForm::Tanh }),
            ModelConfig::Llama(config) => {
                let bias = config.attention_bias;
                Self::Llama(llama::Architecture { config, vocab_size, qkv_bias: bias, output_bias: bias, filler: None })
            }
            ModelConfig::Qwen2(config) => Self::Qwen2(config.architecture(vocab_size)),
            ModelConfig::Speecht5(config) => Self::SpeechT5(speecht5::architecture(&config, vocab_size)),
            ModelConfig::Hubert(config) => Self::Speech(hubert::architecture(&config, vocab_size, head)),
            ModelConfig::Wav2vec2(config) => Self::Speech(wav2vec2::architecture(&config, vocab_size, head)),
            ModelConfig::Wav2vec2Bert(config) => Self::Speech(wav2vec2_bert::architecture(&config, vocab_size, head)),
            ModelConfig::Wav2vec2Conformer(config) => {
                Self::Speech(wav2vec2_conformer::architecture(&config, vocab_size, head))
            }
        };
        match architecture.problem() {
            Some(problem) => Err(Error::Unsupported(problem)),
            None => Ok(architecture),
        }
    }

    pub(crate) fn problem(&self) -> Option<String> {
        match self {
            Self::Bert(a) => a.problem(),
            Self::Gpt2(a) => a.problem(),
            Self::Llama(a) | Self::Qwen2(a) => a.problem(),
            Self::Speech(a) => a.problem(),
            Self::SpeechT5(a) => a.problem(),
        }
    }

    /// The same for a tokenizer with these special tokens: the one that fills rows gets no gradient, unless it also begins or
    /// ends texts and so has something to learn. A decoder beside an encoder begins with the one that ends texts.
    #[must_use]
    pub fn with_ids(mut self, ids: TokenIds) -> Self {
        let filler = ids.pad.filter(|pad| ![ids.bos, ids.eos].contains(&Some(*pad)));
        match &mut self {
            Self::Bert(a) => a.filler = filler,
            Self::Gpt2(_) | Self::Speech(_) => {}
            Self::Llama(a) | Self::Qwen2(a) => a.filler = filler,
            Self::SpeechT5(a) => a.set_ids(ids),
        }
        self
    }

    /// The tokens that a decoder beside an encoder reads to predict labels in rows of `len`, where negative ones are not
    /// predicted; none for a network without one.
    pub fn decoder_inputs(&self, labels: &[i32], len: usize) -> Option<Vec<i32>> {
        match self {
            Self::SpeechT5(a) => Some(a.decoder_inputs(labels, len)),
            _ => None,
        }
    }

    /// The key of what the public layout of this architecture does not have, so that other programs would compute something
    /// else from the same files.
    pub fn extension(&self) -> Option<&'static str> {
        match self {
            Self::Bert(a) if a.config.conv_front.is_some() => Some("conv_front"),
            Self::Bert(bert::Architecture { head: Head::Tags { crf: true, .. }, .. }) => Some("crf"),
            _ => None,
        }
    }

    /// The name of the architecture: that of its table in a recipe.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bert(_) => "bert",
            Self::Gpt2(_) => "gpt2",
            Self::Llama(_) => "llama",
            Self::Qwen2(_) => "qwen2",
            Self::Speech(a) => a.kind.name(),
            Self::SpeechT5(_) => "speecht5",
        }
    }

    /// Rows of the table of tokens, or of the last map of a speech network.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Bert(a) => a.vocab_size,
            Self::Gpt2(a) => a.vocab_size,
            Self::Llama(a) | Self::Qwen2(a) => a.vocab_size,
            Self::Speech(a) => a.vocab_size,
            Self::SpeechT5(a) => a.encoder.vocab_size,
        }
    }

    /// Longest sequence in tokens or frames; nothing but memory limits a speech network.
    pub fn max_seq_len(&self) -> usize {
        match self {
            Self::Bert(a) => a.config.max_seq_len,
            Self::Gpt2(a) => a.config.max_seq_len,
            Self::Llama(a) | Self::Qwen2(a) => a.config.max_seq_len,
            Self::Speech(_) | Self::SpeechT5(_) => usize::MAX,
        }
    }

    /// How a speech network makes frames of steps of sound; none for a text network.
    pub fn downsampling(&self) -> Option<Downsampling> {
        match self {
            Self::Speech(a) => Some(a.downsampling()),
            Self::SpeechT5(a) => Some(a.downsampling()),
            _ => None,
        }
    }

    /// Numbers of a step of the sound that it hears: 1 for samples; none for a text network.
    pub fn num_features(&self) -> Option<usize> {
        match self {
            Self::Speech(a) => Some(a.num_features()),
            Self::SpeechT5(a) => Some(a.encoder.num_features()),
            _ => None,
        }
    }

    /// Whether a token sees only earlier ones and nothing else, so that the network can generate.
    pub fn is_causal(&self) -> bool {
        !matches!(self, Self::Bert(_) | Self::Speech(_) | Self::SpeechT5(_))
    }

    /// What stands on the network.
    pub fn head(&self) -> &Head {
        match self {
            Self::Bert(a) => &a.head,
            Self::Speech(a) => &a.head,
            Self::SpeechT5(a) => &a.encoder.head,
            _ => &Head::Tokens,
        }
    }

    /// Names of the classes of a classifier or of the tags of a tagger.
    pub fn labels(&self) -> Option<&[String]> {
        self.head().labels()
    }

    fn initializer_range(&self) -> f64 {
        match self {
            Self::Bert(a) => a.config.initializer_range,
            Self::Gpt2(a) => a.config.initializer_range,
            Self::Llama(a) | Self::Qwen2(a) => a.config.initializer_range,
            Self::Speech(a) => a.initializer_range,
            Self::SpeechT5(a) => a.encoder.initializer_range,
        }
    }

    /// Layers whose output can be read out: those of the encoder where there is a decoder beside it.
    pub fn num_layers(&self) -> usize {
        match self {
            Self::Bert(a) => a.config.num_layers,
            Self::Gpt2(a) => a.config.num_layers,
            Self::Llama(a) | Self::Qwen2(a) => a.config.num_layers,
            Self::Speech(a) => a.num_layers,
            Self::SpeechT5(a) => a.encoder.num_layers,
        }
    }

    /// Width of the residual stream.
    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Bert(a) => a.config.hidden_size,
            Self::Gpt2(a) => a.config.hidden_size,
            Self::Llama(a) | Self::Qwen2(a) => a.config.hidden_size,
            Self::Speech(a) => a.hidden_size,
            Self::SpeechT5(a) => a.encoder.hidden_size,
        }
    }

    /// Floating-point operations of one token on the way forward, in rows of `row_len` tokens: two for each weight that multiplies it,
    /// `4 T C` for attention in each layer. The way back takes twice as many (Kaplan et al. 2020).
    pub fn forward_flops(&self, row_len: usize) -> f64 {
        match self {
            Self::Speech(a) => return a.forward_flops(row_len),
            Self::SpeechT5(a) => return a.forward_flops(row_len),
            _ => {}
        }
        let infos: Vec<ParameterInfo> = self.parameters().into_iter().filter(|info| !info.is_buffer()).collect();
        let is_tied = infos.iter().all(|info| info.name != "lm_head.weight") && self.labels().is_none();
        let is_table = |info: &&ParameterInfo| {
            let is_layer = info.name.split('.').any(|part| part.parse::<usize>().is_ok());
            !is_layer && ["embed", "wte", "wpe"].iter().any(|name| info.name.contains(name))
        };
        let all: usize = infos.iter().map(ParameterInfo::len).sum();
        // A table that only looks up multiplies nothing.
        let tables: usize = if is_tied { 0 } else { infos.iter().filter(is_table).map(ParameterInfo::len).sum() };
        // Convolutions read rows that are padded to what the model holds.
        let convolved = match self {
            Self::Bert(a) => {
                let weights: usize = infos.iter().filter(|info| info.shape.len() == 4).map(ParameterInfo::len).sum();
                weights as f64 * (a.config.hidden_size * a.config.max_seq_len) as f64 / row_len.max(1) as f64
            }
            _ => 0.0,
        };
        let attention = self.num_layers() * row_len * self.hidden_size();
        2.0 * ((all - tables) as f64 + convolved) + 4.0 * attention as f64
    }

    /// About how many parameters there are, by arithmetic alone: safe for any sizes, right to within a few percent.
    pub fn estimate(&self) -> f64 {
        let f = |n: usize| n as f64;
        let tables = |width: usize, copies: f64| f(self.vocab_size()) * f(width) * copies;
        match self {
            Self::Speech(a) => a.estimate(),
            Self::SpeechT5(a) => a.estimate(),
            Self::Llama(a) | Self::Qwen2(a) => {
                let c = &a.config;
                let (heads, kv) = (f(c.num_heads), f(c.num_kv_heads.unwrap_or(c.num_heads)));
                let attention = f(c.hidden_size) * f(a.head_dim()) * 2.0 * (heads + kv);
                let layer = attention + 3.0 * f(c.hidden_size) * f(c.intermediate_size) + 2.0 * f(c.hidden_size);
                tables(c.hidden_size, if c.tie_word_embeddings { 1.0 } else { 2.0 }) + f(c.num_layers) * layer
            }
            Self::Gpt2(a) => {
                let c = &a.config;
                let inner = f(c.intermediate_size.unwrap_or(c.hidden_size.saturating_mul(4)));
                let layer = 4.0 * f(c.hidden_size) * f(c.hidden_size) + 2.0 * f(c.hidden_size) * inner;
                let tables = tables(c.hidden_size, if c.tie_word_embeddings { 1.0 } else { 2.0 });
                tables + f(c.max_seq_len) * f(c.hidden_size) + f(c.num_layers) * layer
            }
            Self::Bert(a) => {
                let c = &a.config;
                let layer = 4.0 * f(c.hidden_size) * f(c.hidden_size) + 2.0 * f(c.hidden_size) * f(c.intermediate_size);
                let positions = (f(c.max_seq_len) + f(c.type_vocab_size)) * f(c.hidden_size);
                let front = c.conv_front.as_ref().map_or(0.0, ConvFrontConfig::estimate);
                let head = match &a.head {
                    Head::Tags { names, crf } => {
                        f(names.len()) * (f(c.hidden_size) + if *crf { f(names.len()) } else { 0.0 })
                    }
                    _ => 0.0,
                };
                tables(c.hidden_size, 1.0) + positions + f(c.num_layers) * layer + front + head
            }
        }
    }

    /// Names and shapes of all parameters and buffers; the network is built, so ask `estimate` first where sizes come from strangers.
    pub fn parameters(&self) -> Vec<ParameterInfo> {
        // Tensors of zeros are lazily cleared pages; nothing is written.
        Network::zeros(self.clone(), &Device::flex()).parameters()
    }
}

/// A network of any architecture.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // a handful exist at a time, and tensors are handles
pub enum Network {
    /// BERT
    Bert(Bert),
    /// GPT-2
    Gpt2(Gpt2),
    /// Llama
    Llama(Llama),
    /// Qwen2: the Llama network
    Qwen2(Llama),
    /// wav2vec 2.0 and its relatives
    Speech(Speech),
    /// SpeechT5
    SpeechT5(SpeechT5),
}

macro_rules! each {
    ($self:expr, $network:ident => $body:expr) => {
        match $self {
            Network::Bert($network) => $body,
            Network::Gpt2($network) => $body,
            Network::Llama($network) | Network::Qwen2($network) => $body,
            Network::Speech($network) => $body,
            Network::SpeechT5($network) => $body,
        }
    };
}

macro_rules! map {
    ($self:expr, $network:ident => $body:expr) => {
        match $self {
            Network::Bert($network) => Network::Bert($body),
            Network::Gpt2($network) => Network::Gpt2($body),
            Network::Llama($network) => Network::Llama($body),
            Network::Qwen2($network) => Network::Qwen2($body),
            Network::Speech($network) => Network::Speech($body),
            Network::SpeechT5($network) => Network::SpeechT5($body),
        }
    };
}

impl Network {
    /// A network whose weights are all zero.
    pub(crate) fn zeros(architecture: Architecture, device: &Device) -> Self {
        match architecture {
            Architecture::Bert(a) => Self::Bert(Bert::new(a, device)),
            Architecture::Gpt2(a) => Self::Gpt2(Gpt2::new(a, device)),
            Architecture::Llama(a) => Self::Llama(Llama::new(a, device)),
            Architecture::Qwen2(a) => Self::Qwen2(Llama::new(a, device)),
            Architecture::Speech(a) => Self::Speech(Speech::new(a, device)),
            Architecture::SpeechT5(a) => Self::SpeechT5(SpeechT5::new(a, device)),
        }
    }

    /// A fresh network: normal weights from the stream (seed, "init", name), norms 1, biases 0; the projections that
    /// write to the residual stream start smaller by `1 / sqrt(2 layers)` (Radford et al. 2019) in causal networks, and
    /// convolutions are uniform within `1 / sqrt(inputs of an output)`. Speech networks begin as they were published.
    pub fn init(architecture: Architecture, seed: u64, device: &Device) -> Self {
        let architecture = match architecture {
            Architecture::Speech(architecture) => return Speech::new(architecture, device).init(seed),
            Architecture::SpeechT5(architecture) => return SpeechT5::new(architecture, device).init(seed),
            other => other,
        };
        let scale = architecture.initializer_range();
        let residual = if architecture.is_causal() { (2.0 * architecture.num_layers() as f64).powf(-0.5) } else { 1.0 };
        Self::zeros(architecture, device).fill(|name, shape| {
            let len: usize = shape.iter().product();
            if shape.len() == 1 {
                let one = name.ends_with("weight") || name.ends_with("running_var");
                return Some(vec![if one { 1.0 } else { 0.0 }; len]);
            }
            if let [_, inputs, height, width] = shape {
                let bound = ((inputs * height * width) as f64).powf(-0.5);
                let mut stream = Stream::new(seed, &format!("init {name}"), 0, 0);
                return Some((0..len).map(|_| ((2.0 * stream.uniform() - 1.0) * bound) as f32).collect());
            }
            let writes = ["o_proj.weight", "down_proj.weight", "c_proj.weight"].iter().any(|end| name.ends_with(end));
            let scale = if writes { scale * residual } else { scale };
            let mut stream = Stream::new(seed, &format!("init {name}"), 0, 0);
            Some((0..len).map(|_| (stream.normal() * scale) as f32).collect())
        })
    }

    /// What fixes this network.
    pub fn architecture(&self) -> Architecture {
        match self {
            Self::Bert(n) => Architecture::Bert(n.architecture().clone()),
            Self::Gpt2(n) => Architecture::Gpt2(n.architecture().clone()),
            Self::Llama(n) => Architecture::Llama(n.architecture().clone()),
            Self::Qwen2(n) => Architecture::Qwen2(n.architecture().clone()),
            Self::Speech(n) => Architecture::Speech(n.architecture().clone()),
            Self::SpeechT5(n) => Architecture::SpeechT5(n.architecture().clone()),
        }
    }

    /// The output for the wanted places: over the vocabulary, the classes or the tags, or queries for codes.
    pub fn forward(&self, input: &Input, wanted: &Wanted) -> Result<Output> {
        match self {
            Self::Speech(n) => return n.forward(input, wanted),
            Self::SpeechT5(n) => return n.forward(input, wanted),
            _ => {}
        }
        if input.sound.is_some() {
            let name = self.architecture().name();
            return Err(Error::Unsupported(format!("`{name}` reads text and hears no sound; use a speech network")));
        }
        self.fits(input)?;
        let places: Arc<[i32]> = match wanted {
            Wanted::All => return self.head(self.hidden(input)?, input),
            Wanted::Tokens(places) => places.clone(),
            Wanted::Rows => first_tokens(input).collect(),
            Wanted::Codes(_) => return Err(no_head("quantizer")),
            Wanted::RowsAndTokens(places) => first_tokens(input).chain(places.iter().copied()).collect(),
        };
        // In training only: results of an evaluation are the same to the bit whatever else is in the batch.
        let is_trained = self.table().is_some_and(|table| is_trained_by_kernels(&table.weight()));
        let packs = is_trained && !self.needs_padding();
        let packed = if packs { input.packed(&places) } else { None };
        let hidden = match packed {
            Some((input, places)) => chosen(self.hidden(&input)?, &places.into()),
            None => chosen(self.hidden(input)?, &places),
        };
        match (wanted, self) {
            (Wanted::Rows, Self::Bert(n)) => n.classify(hidden, input).ok_or_else(|| no_head("class")),
            (Wanted::RowsAndTokens(places), Self::Bert(n)) => {
                let first = hidden.clone().narrow(0, 0, input.num_rows);
                let classes = n.classify(first, input).ok_or_else(|| no_head("class"))?;
                if places.is_empty() {
                    return Ok(classes);
                }
                let tokens = self.head(hidden.narrow(0, input.num_rows, places.len()), input)?;
                Ok(classes.with_tokens(tokens))
            }
            (Wanted::Rows | Wanted::RowsAndTokens(_), _) => Err(no_head("class")),
            _ => self.head(hidden, input),
        }
    }

    /// Whether tokens see padding, so that it must stay.
    fn needs_padding(&self) -> bool {
        matches!(self, Self::Bert(n) if n.needs_padding())
    }

    /// The same network with what batch norms saw in training passes in their running statistics; `seen` is empty after.
    #[must_use]
    pub fn fold(self, seen: &Seen) -> Self {
        match self {
            Self::Bert(n) => Self::Bert(n.fold(seen)),
            Self::Speech(n) => Self::Speech(n.fold(seen)),
            other => other,
        }
    }

    /// Hidden states of the last layer `[B*T, C]`.
    fn hidden(&self, input: &Input) -> Result<Tensor<2>> {
        match self {
            Self::Bert(n) => Ok(n.hidden(input)),
            Self::Gpt2(n) => Ok(n.hidden(input, None)),
            Self::Llama(n) | Self::Qwen2(n) => Ok(n.hidden(input, None)),
            Self::Speech(_) | Self::SpeechT5(_) => self.layer_output(input, self.architecture().num_layers()),
        }
    }

    /// What comes out of the given number of layers of the encoder of a speech network (0: what goes into the first): `[B*T, C]`.
    pub fn layer_output(&self, input: &Input, num_layers: usize) -> Result<Tensor<2>> {
        match self {
            Self::Speech(n) => n.layer_output(input, num_layers),
            Self::SpeechT5(n) => n.layer_output(input, num_layers),
            _ => Err(Error::Unsupported("only layers of speech networks can be read out".to_string())),
        }
    }

    /// The table of tokens; none where there are no tokens.
    fn table(&self) -> Option<&Embedding> {
        match self {
            Self::Bert(n) => Some(n.table()),
            Self::Gpt2(n) => Some(n.table()),
            Self::Llama(n) | Self::Qwen2(n) => Some(n.table()),
            Self::Speech(_) => None,
            Self::SpeechT5(n) => Some(n.table()),
        }
    }

    /// Rows of the table of tokens, and rows of the table of positions where they are learned.
    fn tables(&self) -> (usize, Option<usize>) {
        match self {
            Self::Bert(n) => (n.architecture().vocab_size, Some(n.architecture().config.max_seq_len)),
            Self::Gpt2(n) => (n.architecture().vocab_size, Some(n.architecture().config.max_seq_len)),
            Self::Llama(n) | Self::Qwen2(n) => (n.architecture().vocab_size, None),
            Self::Speech(_) => (0, None),
            Self::SpeechT5(n) => (n.architecture().encoder.vocab_size, None),
        }
    }

    /// Whether all tokens and positions are ones that the tables of the network have.
    fn fits(&self, input: &Input) -> Result<()> {
        let outside = |values: &[i32], limit: usize| values.iter().copied().find(|v| *v < 0 || *v as usize >= limit);
        let (vocab_size, max_positions) = self.tables();
        if let Some(id) = outside(&input.ids, vocab_size) {
            return Err(Error::Unsupported(format!(
                "token {id} is outside of the model's vocabulary of {vocab_size}; use the tokenizer that lies beside the model"
            )));
        }
        let Some(limit) = max_positions else { return Ok(()) };
        match outside(&input.positions, limit) {
            Some(position) => Err(Error::Unsupported(format!(
                "position {position} is past the {limit} that the model has; use shorter texts"
            ))),
            None => Ok(()),
        }
    }

    fn head(&self, hidden: Tensor<2>, input: &Input) -> Result<Output> {
        match self {
            Self::Bert(n) => n.head(hidden, input).ok_or_else(|| no_head("token")),
            Self::Gpt2(n) => Ok(n.head(hidden)),
            Self::Llama(n) | Self::Qwen2(n) => Ok(n.head(hidden)),
            Self::Speech(_) | Self::SpeechT5(_) => Err(no_head("token")),
        }
    }

    /// Feeds each row of the cache its new tokens and gives the logits after the last token of each: `[B, V]`.
    ///
    /// Rows may get different numbers of tokens, so prompts of different length can share a cache.
    ///
    /// # Panics
    /// When the cache has another number of rows, or a row gets no token.
    pub fn step(&self, new: &[&[u32]], cache: &mut KvCache) -> Result<Tensor<2>> {
        assert_eq!(new.len(), cache.lengths().len(), "rows and rows of the cache");
        assert!(new.iter().all(|tokens| !tokens.is_empty()), "every row needs a new token");
        if !self.architecture().is_causal() {
            let name = self.architecture().name();
            return Err(Error::Unsupported(format!("`{name}` is not causal and cannot generate text")));
        }
        let input = Input::behind(cache.lengths(), new);
        self.fits(&input)?;
        let counts: Vec<usize> = new.iter().map(|tokens| tokens.len()).collect();
        pool::within(|| {
            let hidden = match self {
                Self::Bert(_) | Self::Speech(_) | Self::SpeechT5(_) => self.hidden(&input)?,
                Self::Gpt2(n) => n.hidden(&input, Some(cache)),
                Self::Llama(n) | Self::Qwen2(n) => n.hidden(&input, Some(cache)),
            };
            cache.advance(&counts);
            if input.seq_len == 1 {
                return Ok(self.head(hidden, &input)?.logits());
            }
            let last = counts.iter().enumerate().map(|(row, count)| (row * input.seq_len + count - 1) as i32).collect();
            Ok(self.head(embedding(hidden, &last, None), &input)?.logits())
        })
    }

    /// What the names of the tensors of a speech network's body begin with.
    fn body(&self) -> &'static str {
        match self {
            Self::Speech(n) => n.architecture().kind.name(),
            _ => "",
        }
    }

    /// Names and shapes of all parameters and buffers.
    pub fn parameters(&self) -> Vec<ParameterInfo> {
        let mut infos = Infos::default();
        self.visit(&mut infos);
        infos.0
    }

    /// Numbers in all parameters that can be trained.
    pub fn num_parameters(&self) -> usize {
        self.parameters().iter().filter(|info| !info.is_buffer()).map(ParameterInfo::len).sum()
    }

    /// Shape and values of every parameter, by public name.
    pub fn values(&self) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
        let mut values = Values::default();
        self.visit(&mut values);
        values.0
    }

    /// Calls the visitor with every parameter, in a fixed order.
    pub fn visit(&self, visitor: &mut impl Visit) {
        let body = self.body();
        each!(self, n => params::visit(n, body, visitor));
    }

    /// Replaces parameters one by one, in a fixed order.
    pub fn replace(self, mapper: &mut impl Replace) -> Self {
        let body = self.body();
        map!(self, n => params::replace(n, body, mapper))
    }

    /// Sets the values of every parameter for which the function gives some.
    pub fn fill(self, values: impl FnMut(&str, &[usize]) -> Option<Vec<f32>>) -> Self {
        self.replace(&mut Fill(values))
    }

    /// The same network without a tape, sharing the weights.
    pub fn valid(&self) -> Self {
        map!(self, n => n.valid())
    }
}

/// The first token of each row in the flattened batch.
fn first_tokens(input: &Input) -> impl Iterator<Item = i32> {
    let seq_len = input.seq_len;
    (0..input.num_rows).map(move |row| (row * seq_len) as i32)
}

/// These rows of `hidden` `[N, C]`.
pub(crate) fn chosen(hidden: Tensor<2>, places: &Arc<[i32]>) -> Tensor<2> {
    let is_all = places.len() == hidden.dims()[0] && places.iter().enumerate().all(|(i, place)| i as i32 == *place);
    if is_all { hidden } else { embedding(hidden, places, None) }
}

pub(crate) fn no_head(which: &str) -> Error {
    Error::Unsupported(format!("this network has no {which} head; choose another objective or another checkpoint"))
}

#[cfg(test)]
mod tests {
    use arcuate_ops::gradcheck::{distance, values};
    use arcuate_ops::linear_cross_entropy::CrossEntropy;
    use arcuate_ops::plain_only;

    use super::*;

    const MODELS: [&str; 3] = [
        r#"{"bert": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 24, "max_seq_len": 12}}"#,
        r#"{"gpt2": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_seq_len": 12}}"#,
        r#"{"llama": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 24,
            "max_seq_len": 12, "tie_word_embeddings": false}}"#,
    ];

    /// Loss and gradient of the table of tokens, with three rows of 12, 3 and 7 tokens.
    fn loss_and_gradient(model: &str) -> (Vec<f32>, Vec<f32>) {
        let config: ModelConfig = serde_json::from_str(model).expect("a model");
        let architecture = Architecture::new(&config, 20, Head::Tokens).expect("possible");
        let network = Network::init(architecture, 7, &Device::flex().autodiff());
        let mask: Vec<bool> = (0..36).map(|i| i % 12 < [12, 3, 7][i / 12]).collect();
        let ids = (0..36).map(|i| if mask[i] { (i * i + 3) as i32 % 20 } else { 0 }).collect();
        let input = Input::from_rows(3, 12, ids, &mask).expect("padding on the right");
        let places: Arc<[i32]> = (0..36).filter(|i| mask[*i as usize] && i % 3 != 1).collect();
        let targets: Arc<[i32]> = places.iter().map(|place| (place * 7) % 20).collect();
        assert!(input.packed(&places).is_some());
        let output = network.forward(&input, &Wanted::Tokens(places)).expect("fits");
        let loss = output.cross_entropy(&CrossEntropy::new(targets));
        let grads = loss.clone().sum().backward();
        (values(loss), values(network.table().expect("of tokens").weight().grad(&grads).expect("trained")))
    }

    #[test]
    fn classes_and_tokens_are_those_of_each_head_alone() {
        let config: ModelConfig = serde_json::from_str(MODELS[0]).expect("a model");
        let head = Head::ClassesAndTokens(vec!["a".to_string(), "b".to_string()]);
        let network = Network::init(Architecture::new(&config, 20, head).expect("possible"), 7, &Device::flex());
        let input = Input::from_rows(2, 3, vec![1, 2, 3, 4, 5, 6], &[]).expect("no mask");
        let places: Arc<[i32]> = [1, 5].into();
        let forward = |wanted: Wanted| network.forward(&input, &wanted).expect("fits");
        let mut both = forward(Wanted::RowsAndTokens(places.clone()));
        let tokens = both.take_tokens().expect("wanted");
        assert_eq!(values(tokens.logits()), values(forward(Wanted::Tokens(places)).logits()));
        assert_eq!(values(both.logits()), values(forward(Wanted::Rows).logits()));
        assert!(forward(Wanted::RowsAndTokens([].into())).take_tokens().is_none());
    }

    #[test]
    fn loss_and_gradients_are_those_with_padding() {
        for model in MODELS {
            let (loss, gradient) = loss_and_gradient(model);
            // Plain compositions take the batch as it is.
            let (plain_loss, plain_gradient) = plain_only(|| loss_and_gradient(model));
            assert!(distance(&loss, &plain_loss) < 1e-5, "{model}: {loss:?} {plain_loss:?}");
            assert!(distance(&gradient, &plain_gradient) < 2e-5, "{model}");
        }
    }
}
