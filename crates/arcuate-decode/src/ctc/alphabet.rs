//! What the columns of emissions stand for.

use arcuate_text::{SpecialToken, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

use crate::{Error, Result};

/// Begins a word in the pieces of SentencePiece, and in those of byte-level merges.
const SENTENCE_PIECE: char = '▁';
const BYTE_LEVEL: char = 'Ġ';
/// Goes on with a word in the pieces of WordPiece.
const WORD_PIECE: &str = "##";

/// How tokens make words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WordMarks {
    /// A token of its own stands between words, such as `|` or a space.
    Boundary(String),
    /// The first piece of a word begins with this, such as `▁`.
    Begin(String),
    /// Every token is a word: phones, or the characters of scripts without spaces.
    EveryToken,
}

/// What a token does to the word before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Ends the word and writes nothing.
    Boundary,
    /// Ends the word and begins another.
    Begins,
    /// Goes on with the word.
    Continues,
    /// Is never written: the blank, and tokens that were left out.
    Silent,
}

/// The tokens of a CTC network by column.
#[derive(Debug, Clone)]
pub struct Alphabet {
    /// What each token writes, without its mark.
    texts: Vec<String>,
    roles: Vec<Role>,
    ids: HashMap<String, u32>,
    blank: u32,
    boundary: Option<u32>,
}

impl Alphabet {
    /// `tokens` by column; `left_out` are tokens that are never written, such as `<s>` or `<unk>`.
    ///
    /// # Errors
    /// A token that occurs twice; a blank, a boundary or a token to leave out that is no token; no token with the mark.
    pub fn new(tokens: &[String], blank: &str, marks: &WordMarks, left_out: &[String]) -> Result<Self> {
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in (0u32..).zip(tokens) {
            if let Some(first) = ids.insert(token.clone(), id) {
                return Err(Error::config("tokens", format!("has `{token}` twice, in columns {first} and {id}")));
            }
        }
        let find = |key, token: &str| {
            let missing = || Error::config(key, format!("is `{token}`, which is none of the {} tokens", tokens.len()));
            ids.get(token).copied().ok_or_else(missing)
        };
        let blank = find("blank", blank)?;
        let mut texts = tokens.to_vec();
        let mut roles = vec![Role::Continues; tokens.len()];
        let mut boundary = None;
        match marks {
            WordMarks::Boundary(token) => {
                let id = find("boundary", token)?;
                roles[id as usize] = Role::Boundary;
                boundary = Some(id);
            }
            WordMarks::Begin(mark) => {
                for (text, role) in texts.iter_mut().zip(&mut roles) {
                    if let Some(rest) = text.strip_prefix(mark.as_str()).filter(|_| !mark.is_empty()) {
                        *text = rest.to_owned();
                        *role = Role::Begins;
                    }
                }
                if !roles.contains(&Role::Begins) {
                    let problem = format!("is `{mark}`, with which none of the {} tokens begins", tokens.len());
                    return Err(Error::config("begin", problem));
                }
            }
            WordMarks::EveryToken => roles.fill(Role::Begins),
        }
        roles[blank as usize] = Role::Silent;
        for token in left_out {
            roles[find("left_out", token)? as usize] = Role::Silent;
        }
        if let Some(id) = boundary.filter(|id| roles[*id as usize] == Role::Silent) {
            return Err(Error::config(
                "boundary",
                format!("is `{}`, which is the blank or left out", tokens[id as usize]),
            ));
        }
        for (text, role) in texts.iter_mut().zip(&roles) {
            if matches!(role, Role::Boundary | Role::Silent) {
                text.clear();
            }
        }
        Ok(Self { texts, roles, ids, blank, boundary })
    }

    /// The alphabet of a network with so many columns that was trained with a tokenizer: its padding token is the blank,
    /// other special tokens are never written. Words are parted by the token that the tokenizer has for it, or begin as
    /// those of SentencePiece (`▁`) and WordPiece (no `##`) do.
    ///
    /// # Errors
    /// Another number of tokens than columns, special ones behind the columns apart; no padding token; byte-level pieces.
    pub fn of_tokenizer(tokenizer: &Tokenizer, num_columns: usize) -> Result<Self> {
        let wrong = |problem: String| Err(Error::config("tokenizer", problem));
        let num_tokens = tokenizer.vocab_size();
        if num_tokens < num_columns || (num_columns..num_tokens).any(|id| !tokenizer.is_special(id as u32)) {
            return wrong(format!("has {num_tokens} tokens, but the network has {num_columns} columns"));
        }
        let mut tokens = Vec::with_capacity(num_columns);
        for id in 0..num_columns as u32 {
            let Some(token) = tokenizer.id_to_token(id) else { return wrong(format!("has no token {id}")) };
            tokens.push(token);
        }
        let Some(blank) = tokenizer.special_name(SpecialToken::Pad) else {
            return wrong("has no padding token, which is the blank of CTC".to_owned());
        };
        let is_special = |id: usize| tokenizer.is_special(id as u32);
        let left_out: Vec<String> =
            tokens.iter().enumerate().filter(|(id, _)| is_special(*id)).map(|(_, t)| t.clone()).collect();
        let boundary = tokenizer.word_delimiter().and_then(|id| tokenizer.id_to_token(id));
        let begins = |mark: char| tokens.iter().any(|token| token.starts_with(mark));
        let marks = match boundary {
            Some(token) => WordMarks::Boundary(token),
            None if begins(SENTENCE_PIECE) => WordMarks::Begin(SENTENCE_PIECE.to_string()),
            None if begins(BYTE_LEVEL) => {
                return wrong(
                    "cuts texts into bytes, which CTC cannot write; train with `[tokenizer.chars]`".to_owned(),
                );
            }
            None if tokens.iter().any(|token| token.starts_with(WORD_PIECE)) => {
                for (_, token) in tokens.iter_mut().enumerate().filter(|(id, _)| !is_special(*id)) {
                    *token = token.strip_prefix(WORD_PIECE).map_or(format!("{SENTENCE_PIECE}{token}"), str::to_owned);
                }
                WordMarks::Begin(SENTENCE_PIECE.to_string())
            }
            None => return wrong("does not say where words begin; train with `[tokenizer.chars]`".to_owned()),
        };
        Self::new(&tokens, blank, &marks, &left_out)
    }

    /// How many tokens, the blank included.
    pub fn num_tokens(&self) -> usize {
        self.texts.len()
    }

    /// The column of the blank.
    pub fn blank(&self) -> u32 {
        self.blank
    }

    /// The column of the token between words, if there is one.
    pub fn boundary(&self) -> Option<u32> {
        self.boundary
    }

    /// The column of a token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.ids.get(token).copied()
    }

    /// What a token writes: nothing for the blank, the boundary and tokens that were left out.
    pub fn text(&self, id: u32) -> &str {
        &self.texts[id as usize]
    }

    pub(super) fn role(&self, id: u32) -> Role {
        self.roles[id as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_text::{Normaliser, TokenizerConfig};

    fn alphabet(tokens: &str, marks: WordMarks, left_out: &[&str]) -> Result<Alphabet> {
        let tokens: Vec<String> = tokens.split(' ').map(str::to_owned).collect();
        let left_out: Vec<String> = left_out.iter().map(|token| (*token).to_owned()).collect();
        Alphabet::new(&tokens, "-", &marks, &left_out)
    }

    #[test]
    fn a_boundary_ends_words_and_writes_nothing() {
        let alphabet = alphabet("- <s> | a", WordMarks::Boundary("|".to_owned()), &["<s>"]).expect("fine");
        assert_eq!((alphabet.blank(), alphabet.boundary(), alphabet.num_tokens()), (0, Some(2), 4));
        let roles: Vec<Role> = (0..4).map(|id| alphabet.role(id)).collect();
        assert_eq!(roles, [Role::Silent, Role::Silent, Role::Boundary, Role::Continues]);
        let texts: Vec<&str> = (0..4).map(|id| alphabet.text(id)).collect();
        assert_eq!(texts, ["", "", "", "a"]);
    }

    #[test]
    fn a_mark_begins_words_and_is_not_written() {
        let alphabet = alphabet("- ▁a b ▁", WordMarks::Begin("▁".to_owned()), &[]).expect("fine");
        let seen: Vec<(Role, &str)> = (1..4).map(|id| (alphabet.role(id), alphabet.text(id))).collect();
        assert_eq!(seen, [(Role::Begins, "a"), (Role::Continues, "b"), (Role::Begins, "")]);
        assert_eq!(alphabet.id("▁a"), Some(1));
    }

    fn trained(config: &TokenizerConfig) -> Tokenizer {
        let texts = ["abc abd b", "abc abd ab"].map(str::to_owned);
        Tokenizer::train(config, texts.into_iter()).expect("trains")
    }

    fn chars() -> Tokenizer {
        let normaliser = Normaliser::named("ctc").expect("a preset");
        trained(&TokenizerConfig::Chars(arcuate_text::chars::Config::new(normaliser)))
    }

    #[test]
    fn the_padding_token_of_a_tokenizer_is_the_blank() {
        let tokenizer = chars();
        let alphabet = Alphabet::of_tokenizer(&tokenizer, tokenizer.vocab_size()).expect("fits");
        assert_eq!((alphabet.num_tokens(), alphabet.blank(), alphabet.boundary()), (7, 0, Some(2)));
        let texts: Vec<&str> = (0..7).map(|id| alphabet.text(id)).collect();
        assert_eq!(texts, ["", "", "", "a", "b", "c", "d"]);
    }

    #[test]
    fn pieces_say_where_words_begin() {
        let config = |text: &str| serde_json::from_str(text).expect("a tokenizer");
        let pieces = trained(&config(r#"{"wordpiece": {"vocab_size": 20}}"#));
        let alphabet = Alphabet::of_tokenizer(&pieces, pieces.vocab_size()).expect("fits");
        let find = |token: &str| alphabet.role(pieces.token_to_id(token).expect("a token"));
        assert_eq!((find("a"), find("##b")), (Role::Begins, Role::Continues));
        assert_eq!(alphabet.text(pieces.token_to_id("##b").expect("a token")), "b");
        let bytes = trained(&config(r#"{"byte_bpe": {"vocab_size": 300}}"#));
        assert!(Alphabet::of_tokenizer(&bytes, bytes.vocab_size()).is_err());
    }

    #[test]
    fn a_tokenizer_of_another_network_does_not_fit() {
        let tokenizer = chars();
        for num_columns in [5, 9] {
            let error = Alphabet::of_tokenizer(&tokenizer, num_columns).expect_err("does not fit").to_string();
            assert!(error.contains('7') && error.contains(&num_columns.to_string()), "{error}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_by_key_and_value() {
        let message = |result: Result<Alphabet>| result.expect_err("bad").to_string();
        assert!(message(alphabet("a b", WordMarks::EveryToken, &[])).contains("`blank` is `-`"));
        assert!(message(alphabet("- a", WordMarks::Boundary("|".to_owned()), &[])).contains("`boundary` is `|`"));
        assert!(message(alphabet("- a", WordMarks::Boundary("-".to_owned()), &[])).contains("is the blank"));
        assert!(message(alphabet("- a", WordMarks::Begin("▁".to_owned()), &[])).contains("`begin` is `▁`"));
        assert!(message(alphabet("- a", WordMarks::EveryToken, &["c"])).contains("`left_out` is `c`"));
        assert!(message(alphabet("- a b a", WordMarks::EveryToken, &[])).contains("`a` twice, in columns 1 and 3"));
    }
}
