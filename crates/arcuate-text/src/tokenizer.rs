//! The tokenizer that everything else uses, whatever it was made of.

use crate::byte_level::{self, PreTokenizer};
use crate::special::SpecialNames;
use crate::{DecodeStream, Error, InspectedToken, Inspection, Normaliser, Result, SpecialToken, TokenizerConfig};
use crate::{byte_bpe, chars, count, unigram};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, RwLock};
use tokenizers::Model;
use tokenizers::utils::SysRegex;

/// No tokenizer file is larger.
const MAX_FILE_BYTES: u64 = 512 << 20;
/// Words whose tokens are remembered.
const MAX_REMEMBERED: usize = 1 << 18;
/// A longer run of letters or signs is no word: it is encoded in pieces, so that time and memory stay in proportion.
const MAX_WORD_BYTES: usize = 1 << 16;
/// What the public library writes where no limit is known.
const NO_MAX_LENGTH: f64 = 1e30;

/// Turns text into token ids and back.
///
/// Text never becomes a special token by itself: `"<|endoftext|>"` in a document is spelled out. Use
/// [`Tokenizer::encode_with_special`] where a prompt may name special tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The content of `tokenizer.json`.
    json: String,
    hash: String,
    names: SpecialNames,
    special_ids: HashMap<SpecialToken, u32>,
    /// The content of `tokenizer_config.json`.
    config: Map<String, Value>,
    /// Applied to every text before it is encoded.
    normaliser: Option<Normaliser>,
    vocab_size: usize,
    cut: Cut,
    word_starts: OnceLock<Vec<bool>>,
}

/// How text may be cut before encoding without changing the tokens.
#[derive(Debug, Clone)]
enum Cut {
    /// Not known: encode in one piece.
    Whole,
    /// Before a space, which stays.
    BeforeSpace,
    /// At a space, which the tokenizer puts back.
    AtSpace,
    /// Into words by a published rule; their tokens are remembered.
    Words(Arc<Words>),
}

/// A published rule and the tokens of words already met.
#[derive(Debug)]
struct Words {
    rule: PreTokenizer,
    regex: SysRegex,
    remembered: RwLock<HashMap<Box<str>, Box<[u32]>>>,
}

/// The small parts of a `tokenizer.json`; the vocabulary is read by the `tokenizers` crate only.
#[derive(Debug, Deserialize)]
struct Head {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
}

#[derive(Debug, Deserialize)]
struct Added {
    content: String,
    #[serde(default)]
    special: bool,
}

impl Tokenizer {
    /// Trains on `texts`, which is read once, as a stream. For `[tokenizer.file]` the file is loaded and no text is read.
    pub fn train(config: &TokenizerConfig, texts: impl Iterator<Item = String> + Send) -> Result<Self> {
        let mut texts = texts;
        config.train(&mut texts)
    }

    /// Loads a `tokenizer.json`, or the one in a folder, with the names of special tokens in the files beside it. A folder of a
    /// published CTC model may have a `vocab.json` of single characters instead.
    pub fn load(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        if path.is_dir() && !file.exists() {
            return Self::load_characters(path)?.ok_or_else(|| Error::Missing { path: path.to_path_buf() });
        }
        let json = read_text(&file)?;
        let broken = |message: String| Error::Broken { path: file.clone(), message };
        let head: Head = serde_json::from_str(&json).map_err(|e| broken(e.to_string()))?;
        let inner: tokenizers::Tokenizer = json.parse().map_err(|e: tokenizers::Error| broken(e.to_string()))?;
        let folder = file.parent().map(Path::to_path_buf).unwrap_or_default();
        let config = read_object(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let map = read_object(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
        let added: Vec<String> = head.added_tokens.iter().map(|a| a.content.clone()).collect();
        let names = SpecialNames::resolve(&[&config, &map], &added, |name| inner.token_to_id(name).is_some());
        Self::assemble(inner, json, &head, names, config).map_err(broken)
    }

    /// A `vocab.json` of single characters; `None` where there is none, or merges beside it that make it one of BPE.
    fn load_characters(folder: &Path) -> Result<Option<Self>> {
        let file = folder.join("vocab.json");
        let Some(vocabulary) = read_object(&file)?.filter(|_| !folder.join("merges.txt").exists()) else {
            return Ok(None);
        };
        let beside = |name: &str| Ok::<_, Error>(read_object(&folder.join(name))?.unwrap_or_default());
        let (added, config) = (beside("added_tokens.json")?, beside("tokenizer_config.json")?);
        chars::from_vocabulary(&vocabulary, &added, config, &beside("special_tokens_map.json")?)
            .map(Some)
            .map_err(|message| Error::Broken { path: file, message })
    }

    /// Makes a tokenizer of its document.
    pub(crate) fn from_parts(document: &Value, names: SpecialNames, config: Map<String, Value>) -> Result<Self> {
        let broken = |message: String| Error::Broken { path: PathBuf::from("tokenizer.json"), message };
        let json = serde_json::to_string_pretty(document).map_err(|e| broken(e.to_string()))?;
        let head: Head = serde_json::from_str(&json).map_err(|e| broken(e.to_string()))?;
        let inner: tokenizers::Tokenizer = json.parse().map_err(|e: tokenizers::Error| broken(e.to_string()))?;
        Self::assemble(inner, json, &head, names, config).map_err(broken)
    }

    fn assemble(
        mut inner: tokenizers::Tokenizer,
        json: String,
        head: &Head,
        names: SpecialNames,
        config: Map<String, Value>,
    ) -> Result<Self, String> {
        // Files of published models often cut or fill rows; that is the work of packing, not of the tokenizer.
        inner.with_truncation(None).map_err(|error| error.to_string())?;
        inner.with_padding(None);
        inner.set_encode_special_tokens(true);
        let vocab_size = inner.get_vocab(true).values().max().map_or(0, |highest| *highest as usize + 1);
        if vocab_size == 0 {
            return Err("the vocabulary is empty".to_owned());
        }
        let special_ids = names.iter().filter_map(|(token, name)| Some((token, inner.token_to_id(name)?))).collect();
        let cut = Cut::recognise(head, &inner)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(json.as_bytes());
        for (token, name) in names.iter() {
            hasher.update(format!("\0{}\0{name}", token.key()).as_bytes());
        }
        let normaliser = chars::normaliser(&config)?;
        if let Some(normaliser) = &normaliser {
            hasher.update(format!("\0{}", json!(normaliser)).as_bytes());
        }
        let hash = hasher.finalize().to_hex().to_string();
        let word_starts = OnceLock::new();
        Ok(Self { inner, json, hash, names, special_ids, config, normaliser, vocab_size, cut, word_starts })
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json` into a folder, which is made if needed; of
    /// single characters also `vocab.json`.
    pub fn save(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let mut config = self.config.clone();
        config.entry("tokenizer_class").or_insert_with(|| "PreTrainedTokenizerFast".into());
        config.entry("model_max_length").or_insert_with(|| NO_MAX_LENGTH.into());
        let mut map = Map::new();
        for (token, name) in self.names.iter() {
            config.entry(token.key()).or_insert_with(|| name.into());
            map.insert(token.key().to_owned(), name.into());
        }
        let mut files = vec![
            ("tokenizer.json", self.json.clone()),
            ("tokenizer_config.json", pretty(config)),
            ("special_tokens_map.json", pretty(map)),
        ];
        if self.config.contains_key(chars::DELIMITER_KEY) {
            let mut tokens: Vec<(String, u32)> = self.inner.get_vocab(true).into_iter().collect();
            tokens.sort_unstable_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
            files.push(("vocab.json", pretty(tokens.into_iter().map(|(token, id)| (token, id.into())).collect())));
        }
        for (name, content) in files {
            let path = dir.join(name);
            std::fs::write(&path, content).map_err(Error::io("write", &path))?;
        }
        Ok(())
    }

    /// The same with more special tokens at the end of the vocabulary; those that it has are not added again.
    pub fn with_tokens(self, names: impl IntoIterator<Item = String>) -> Result<Self> {
        let fresh: Vec<String> = names.into_iter().filter(|name| self.token_to_id(name).is_none()).collect();
        if fresh.is_empty() {
            return Ok(self);
        }
        let broken = |message: String| Error::Broken { path: PathBuf::from("tokenizer.json"), message };
        let mut document: Value = serde_json::from_str(&self.json).map_err(|e| broken(e.to_string()))?;
        let added = (self.vocab_size..).zip(fresh).map(|(id, name)| {
            json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        });
        match document.get_mut("added_tokens").and_then(Value::as_array_mut) {
            Some(tokens) => tokens.extend(added),
            None => document["added_tokens"] = added.collect(),
        }
        Self::from_parts(&document, self.names, self.config)
    }

    /// States the longest sequence of the model, which other programs read from the saved files.
    pub fn with_model_max_length(mut self, num_tokens: usize) -> Self {
        self.config.insert("model_max_length".to_owned(), num_tokens.into());
        self
    }

    /// The text as it is cut into tokens: normalised, if the tokenizer has a normaliser.
    pub fn normalise<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match &self.normaliser {
            Some(normaliser) => Cow::Owned(normaliser.apply(text)),
            None => Cow::Borrowed(text),
        }
    }

    /// The normaliser that is applied to every text, where the tokenizer has one.
    pub fn normaliser(&self) -> Option<&Normaliser> {
        self.normaliser.as_ref()
    }

    /// The token that stands between words, where single characters are the tokens.
    pub fn word_delimiter(&self) -> Option<u32> {
        self.token_to_id(self.config.get(chars::DELIMITER_KEY)?.as_str()?)
    }

    /// The tokens of a text, without special tokens.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if matches!(self.cut, Cut::Whole) || text.len() <= 2 * count::PART_BYTES {
            return self.encode_part(text);
        }
        let at_space = matches!(self.cut, Cut::AtSpace);
        let parts: Vec<&str> = count::parts(text, count::PART_BYTES).collect();
        let encoded: Vec<Vec<u32>> = parts
            .par_iter()
            .enumerate()
            .map(|(index, part)| {
                let joined = at_space && index > 0;
                self.encode_part(if joined { part.strip_prefix(' ').unwrap_or(part) } else { part })
            })
            .collect::<Result<_>>()?;
        Ok(encoded.concat())
    }

    /// The tokens of several texts, on all cores.
    pub fn encode_batch<S: AsRef<str> + Sync>(&self, texts: &[S]) -> Result<Vec<Vec<u32>>> {
        texts.par_iter().map(|text| self.encode(text.as_ref())).collect()
    }

    /// As [`Tokenizer::encode`], but special tokens that the text names become themselves.
    pub fn encode_with_special(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        let mut rest = text;
        while let Some((at, name, id)) = self.first_special(rest) {
            ids.extend(self.encode(&rest[..at])?);
            ids.push(id);
            rest = &rest[at + name.len()..];
        }
        ids.extend(self.encode(rest)?);
        Ok(ids)
    }

    /// The first named special token, the longest of those at the same place.
    fn first_special<'a>(&'a self, text: &str) -> Option<(usize, &'a str, u32)> {
        self.names
            .iter()
            .filter_map(|(token, name)| Some((text.find(name)?, name, self.special(token)?)))
            .min_by_key(|(at, name, _)| (*at, std::cmp::Reverse(name.len())))
    }

    fn encode_part(&self, text: &str) -> Result<Vec<u32>> {
        let failed = |error: tokenizers::Error| Error::Encode { num_bytes: text.len(), message: error.to_string() };
        match &self.cut {
            Cut::Words(words) => self.encode_words(text, words).map_err(failed),
            _ => Ok(self.inner.encode_fast(&*self.normalise(text), false).map_err(failed)?.get_ids().to_vec()),
        }
    }

    /// Byte-level encoding without the bookkeeping of offsets: several times faster.
    fn encode_words(&self, text: &str, words: &Words) -> tokenizers::Result<Vec<u32>> {
        let alphabet = byte_level::alphabet();
        let model = self.inner.get_model();
        let mut ids = Vec::with_capacity(text.len() / 3);
        let mut fresh: HashMap<&str, Box<[u32]>> = HashMap::new();
        let mut failure = None;
        {
            let known = words.remembered.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            let mut add = |word| {
                if let Some(tokens) = known.get(word).or_else(|| fresh.get(word)) {
                    ids.extend_from_slice(tokens);
                    return;
                }
                match model.tokenize(&byte_level::spell(word, &alphabet)) {
                    Ok(tokens) => {
                        let tokens: Box<[u32]> = tokens.iter().map(|token| token.id).collect();
                        ids.extend_from_slice(&tokens);
                        fresh.insert(word, tokens);
                    }
                    Err(error) => failure = Some(error),
                }
            };
            byte_bpe::cut(&words.regex, text, |mut word| {
                while word.len() > MAX_WORD_BYTES {
                    let (head, tail) = word.split_at(word.floor_char_boundary(MAX_WORD_BYTES));
                    add(head);
                    word = tail;
                }
                add(word);
            });
        }
        if let Some(error) = failure {
            return Err(error);
        }
        if !fresh.is_empty() {
            let mut known = words.remembered.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            let room = MAX_REMEMBERED.saturating_sub(known.len());
            let short = fresh.into_iter().filter(|(word, _)| word.len() <= 64);
            known.extend(short.take(room).map(|(word, tokens)| (word.into(), tokens)));
        }
        Ok(ids)
    }

    /// The text of the tokens, special tokens left out. Ids outside the vocabulary are passed over.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.decode_as(ids, true)
    }

    /// The text of the tokens, special tokens written by their names.
    pub fn decode_with_special(&self, ids: &[u32]) -> Result<String> {
        self.decode_as(ids, false)
    }

    fn decode_as(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|error| Error::Decode { num_tokens: ids.len(), message: error.to_string() })
    }

    /// Decodes tokens as they are generated.
    pub fn decode_stream(&self) -> DecodeStream<'_> {
        DecodeStream::new(self)
    }

    /// Rows that an embedding needs: one more than the highest id.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of a special token, where the tokenizer has it.
    pub fn special(&self, token: SpecialToken) -> Option<u32> {
        self.special_ids.get(&token).copied()
    }

    /// The spelling of a special token, where the tokenizer has it.
    pub fn special_name(&self, token: SpecialToken) -> Option<&str> {
        self.names.iter().find(|(known, _)| *known == token).map(|(_, name)| name)
    }

    /// Whether an id is a special token of any kind.
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.inner.get_added_vocabulary();
        self.id_to_token(id).is_some_and(|token| added.is_special_token(&token))
    }

    /// Stands for everything that decides about tokens: the content of `tokenizer.json` and the special tokens. Hexadecimal.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The content of `tokenizer.json`.
    pub fn to_json(&self) -> &str {
        &self.json
    }

    /// The spelling of a token in the vocabulary, such as `Ġthe` or `##ing`.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The id of a token by its spelling in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The published rule that cuts text before byte-level merges, where it is one of those known here.
    pub fn pre_tokenizer(&self) -> Option<PreTokenizer> {
        match &self.cut {
            Cut::Words(words) => Some(words.rule),
            _ => None,
        }
    }

    /// Whether a token begins a new word: it has a space before it, or is punctuation, or has no `##`.
    pub fn starts_word(&self, id: u32) -> bool {
        let starts = self.word_starts.get_or_init(|| self.find_word_starts());
        starts.get(id as usize).copied().unwrap_or(true)
    }

    fn find_word_starts(&self) -> Vec<bool> {
        use tokenizers::ModelWrapper::{WordLevel, WordPiece};
        let model = self.inner.get_model();
        let starts = |token: &str| match model {
            WordPiece(model) => !token.starts_with(&model.continuing_subword_prefix),
            WordLevel(_) => true,
            _ => {
                let mut letters = token.chars();
                let first = letters.next();
                let contraction = first == Some('\'') && letters.next().is_some_and(char::is_alphabetic);
                let space = |letter: char| matches!(letter, 'Ġ' | 'Ċ' | 'č' | 'ĉ' | unigram::SPACE);
                first.is_none_or(|letter| space(letter) || letter.is_whitespace() || letter.is_ascii_punctuation())
                    && !contraction
            }
        };
        let ids = 0..u32::try_from(self.vocab_size).unwrap_or(u32::MAX);
        ids.map(|id| self.id_to_token(id).is_none_or(|token| self.is_special(id) || starts(&token))).collect()
    }

    /// How a text is cut; it is normalised first if the tokenizer has a normaliser, and ranges are places in the normalised text.
    pub fn inspect(&self, text: &str) -> Result<Inspection> {
        let text = &*self.normalise(text);
        let encoding = self
            .inner
            .encode(text, false)
            .map_err(|error| Error::Encode { num_bytes: text.len(), message: error.to_string() })?;
        let tokens = encoding
            .get_ids()
            .iter()
            .zip(encoding.get_tokens())
            .zip(encoding.get_offsets())
            .map(|((id, piece), (start, end))| {
                // The space that is put before a text covers none of it.
                let put_before =
                    *start == 0 && piece.chars().eq([unigram::SPACE]) && !text.starts_with([' ', unigram::SPACE]);
                let range = *start..if put_before { *start } else { *end };
                InspectedToken { id: *id, piece: piece.clone(), range }
            })
            .collect();
        Ok(Inspection::new(text, tokens))
    }
}

impl Cut {
    fn recognise(head: &Head, inner: &tokenizers::Tokenizer) -> Result<Self, String> {
        use tokenizers::ModelWrapper::{BPE, Unigram, WordPiece};
        // Tokens that are searched in the text before anything else could lie across a cut.
        if head.added_tokens.iter().any(|added| !added.special) {
            return Ok(Self::Whole);
        }
        let (normalizer, pre_tokenizer) = (&head.normalizer, &head.pre_tokenizer);
        Ok(match inner.get_model() {
            BPE(_) if normalizer.is_null() => match PreTokenizer::recognise(pre_tokenizer) {
                Some(rule) => {
                    let regex = SysRegex::new(rule.pattern()).map_err(|error| error.to_string())?;
                    Self::Words(Arc::new(Words { rule, regex, remembered: RwLock::default() }))
                }
                None => Self::Whole,
            },
            WordPiece(_) if pre_tokenizer["type"] == "BertPreTokenizer" => {
                let known = normalizer.is_null() || normalizer["type"] == "BertNormalizer";
                if known { Self::BeforeSpace } else { Self::Whole }
            }
            Unigram(_) if unigram::is_own_layout(normalizer, pre_tokenizer) => Self::AtSpace,
            _ => Self::Whole,
        })
    }
}

fn pretty(object: Map<String, Value>) -> String {
    format!("{:#}\n", Value::Object(object))
}

fn read_text(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    let num_bytes = file.metadata().map_err(Error::io("read", path))?.len();
    let too_large = |num_bytes| Error::TooLarge { path: path.into(), num_bytes, limit_bytes: MAX_FILE_BYTES };
    if num_bytes > MAX_FILE_BYTES {
        return Err(too_large(num_bytes));
    }
    // A pipe or a growing file may hold more than it said.
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(too_large(bytes.len() as u64));
    }
    String::from_utf8(bytes).map_err(|error| Error::Broken {
        path: path.into(),
        message: format!("not UTF-8 at byte {}", error.utf8_error().valid_up_to()),
    })
}

fn read_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.exists() {
        return Ok(None);
    }
    let text = read_text(path)?;
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::Broken { path: path.into(), message: error.to_string() })
}
