//! What the columns of emissions stand for.

use arcuate_text::{SpecialToken, Tokenizer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

use crate::{Error, Result};

/// Begins the first piece of a word.
const PIECE: &str = "▁";
/// The same where tokens are spelled byte by byte.
const BYTE_LEVEL: &str = "Ġ";
/// Begins every piece but the first.
const CONTINUES: &str = "##";

/// Whether a piece is a single byte, as SentencePiece spells it: `<0x0A>`.
fn is_byte_piece(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

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

    /// The tokens of a network with `num_outputs` columns whose labels come from this tokenizer.
    ///
    /// The blank is the padding token. Words end at the delimiter of single characters, or begin where the tokenizer marks a piece
    /// that way (`▁`, `Ġ`, no `##`); a tokenizer without either makes every token a word. Special tokens, columns without a token and
    /// pieces that are no whole characters are never written.
    ///
    /// # Errors
    /// A blank that is no column of the network.
    pub fn of_tokenizer(tokenizer: &Tokenizer, num_outputs: usize) -> Result<Self> {
        let blank = tokenizer.special(SpecialToken::Pad).unwrap_or(0);
        if blank as usize >= num_outputs {
            let problem = format!("is token {blank} of the tokenizer, but the network has only {num_outputs} outputs");
            return Err(Error::config("blank", problem));
        }
        let spelled: Vec<Option<String>> = (0..num_outputs as u32).map(|id| tokenizer.id_to_token(id)).collect();
        let is_written = |id: u32| id != blank && !tokenizer.is_special(id);
        let is_marked = |mark: &str| {
            let mut tokens = (0..).zip(&spelled).filter_map(|(id, token)| Some((id, token.as_ref()?)));
            tokens.any(|(id, token)| is_written(id) && token.starts_with(mark))
        };
        let marks = match tokenizer.word_delimiter().filter(|id| (*id as usize) < num_outputs && is_written(*id)) {
            Some(id) => WordMarks::Boundary(tokenizer.id_to_token(id).unwrap_or_default()),
            None if [PIECE, BYTE_LEVEL, CONTINUES].into_iter().any(is_marked) => WordMarks::Begin(PIECE.to_owned()),
            None => WordMarks::EveryToken,
        };
        let (is_byte_level, has_continued) = (is_marked(BYTE_LEVEL), is_marked(CONTINUES));
        let in_words = |id: u32, token: &str| {
            if !is_written(id) || !matches!(marks, WordMarks::Begin(_)) {
                return Some(token.to_owned());
            }
            if is_byte_level {
                let text = tokenizer.decode(&[id]).ok()?;
                let (mark, text) = text.strip_prefix(' ').map_or(("", text.as_str()), |rest| (PIECE, rest));
                let is_whole =
                    !text.contains(|letter: char| letter == char::REPLACEMENT_CHARACTER || letter.is_whitespace());
                return is_whole.then(|| format!("{mark}{text}"));
            }
            if is_byte_piece(token) {
                return None;
            }
            if has_continued {
                return Some(token.strip_prefix(CONTINUES).map_or_else(|| format!("{PIECE}{token}"), str::to_owned));
            }
            Some(token.to_owned())
        };
        let mut left_out = Vec::new();
        let mut seen: HashMap<String, u32> = HashMap::new();
        let mut tokens = Vec::with_capacity(num_outputs);
        for (id, token) in (0u32..).zip(&spelled) {
            let text = token.as_deref().and_then(|token| in_words(id, token)).filter(|text| !seen.contains_key(text));
            let is_missing = text.is_none();
            let text = text.unwrap_or_else(|| format!("<column {id}>"));
            if id != blank && (is_missing || !is_written(id)) {
                left_out.push(text.clone());
            }
            seen.insert(text.clone(), id);
            tokens.push(text);
        }
        Self::new(&tokens, &tokens[blank as usize], &marks, &left_out)
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
    use crate::ctc::{Token, words};

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

    fn trained(config: serde_json::Value) -> Tokenizer {
        let config = serde_json::from_value(config).expect("a tokenizer");
        let texts = std::iter::repeat_n("der Bär und die Bären, der Bär".to_owned(), 5);
        Tokenizer::train(&config, texts).expect("trains")
    }

    /// What the tokens of a text write once a network has said them one after another.
    fn written(tokenizer: &Tokenizer, text: &str) -> String {
        let alphabet = Alphabet::of_tokenizer(tokenizer, tokenizer.vocab_size() + 2).expect("fine");
        let ids = tokenizer.encode(text).expect("encodes");
        let token = |id| Token { id, start_frame: 0, end_frame: 1, confidence: 1.0 };
        let tokens: Vec<Token> = ids.into_iter().map(token).collect();
        words(&alphabet, &tokens).iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_kind_of_tokenizer_makes_words() {
        let chars = trained(
            serde_json::json!({"chars": {"normalise": {"case": "lower", "punctuation": "remove", "digits": "keep"}}}),
        );
        let text = "der Bär und der Bär";
        assert_eq!(written(&chars, text), "der bär und der bär");
        for name in ["byte_bpe", "unigram"] {
            let tokenizer = trained(serde_json::json!({name: {"vocab_size": 330}}));
            assert_eq!(written(&tokenizer, text), text, "{name}");
        }
        let pieces = trained(serde_json::json!({"wordpiece": {"vocab_size": 60, "lowercase": false}}));
        assert_eq!(written(&pieces, text), text);
    }

    #[test]
    fn special_tokens_and_columns_without_a_token_are_never_written() {
        let chars = trained(
            serde_json::json!({"chars": {"normalise": {"case": "lower", "punctuation": "remove", "digits": "keep"}}}),
        );
        let alphabet = Alphabet::of_tokenizer(&chars, chars.vocab_size() + 1).expect("fine");
        assert_eq!((alphabet.blank(), alphabet.boundary()), (0, Some(2)));
        let last = alphabet.num_tokens() as u32 - 1;
        assert_eq!([0, 1, last].map(|id| alphabet.role(id)), [Role::Silent; 3]);
        assert_eq!(alphabet.text(3), "b");
        assert!(Alphabet::of_tokenizer(&chars, 0).expect_err("no column").to_string().contains("`blank` is token 0"));
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
