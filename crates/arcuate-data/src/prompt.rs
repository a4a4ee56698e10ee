//! Prompts: a document written into a sentence with an open place, and a word for each class that may stand there.
//!
//! A template names columns of a document and the open place: `{text} It was {mask} .` or `{text} ? {mask} , {second}`.
//! Its parts are joined by one space; a column that is empty or missing leaves no gap. A document that is too long loses the end
//! of its last column first; words of the template are never cut.
//!
//! # Reference
//! Schick and Schuetze 2021; Gao et al. 2021; Shi and Lipani 2023

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use arcuate_text::{SpecialToken, Tokenizer};

use crate::encoder::Encoder;
use crate::error::{BadItem, BadReason, Error, Result};
use crate::reader::Document;

/// `[objective.prompt]`; the labels come from `label_column` of the sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// The sentence: words, columns of the documents in braces, and one `{mask}`: `"{text} It was {mask} ."`. Words of the template
    /// are never cut; a text that is too long loses its end. For causal models `{mask}` must be the end.
    pub template: String,
    /// The word of each class: `{ bad = "terrible", good = "great" }`. Each must be one token of the tokenizer.
    pub words: BTreeMap<String, String>,
    /// Give the words of the sentence and of the classes rows of their own in the vocabulary, which begin as copies and are trained
    /// for this sentence alone (soft prompt).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub soft: bool,
    /// Predict a number instead of a class. The two classes are then the least and the greatest number, `{ 0 = "No", 5 = "Yes" }`, and
    /// the labels any numbers between: the more probable a word, the nearer its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regression: Option<Regression>,
}

/// What a prompt that predicts a number minimises: `u` is the share of each word in the label, `p` its probability.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Regression {
    /// Divergence: `sum(u (ln u - ln p))`.
    Kl,
    /// What the published code computes: `mean(e^u (u - ln p))`, which draws every prediction towards the middle.
    Published,
}

/// A token of a soft prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoftToken {
    /// What the tokenizer calls it.
    pub name: String,
    /// The ordinary token that it begins as.
    pub like: u32,
}

/// A stretch of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Words(String),
    Column(String),
    Open,
}

impl Prompt {
    /// Its file in a checkpoint.
    pub const FILE: &str = "prompt.json";

    /// The prompt of a checkpoint that was trained to classify by words; none if it has none.
    pub fn load(checkpoint: &Path) -> Result<Option<Self>> {
        let path = checkpoint.join(Self::FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read(&path).map_err(|e| Error::read(&path, e))?;
        let damaged = |e: serde_json::Error| Error::DamagedFile { path: path.clone(), line: 0, detail: e.to_string() };
        serde_json::from_slice(&text).map(Some).map_err(damaged)
    }

    /// Writes it into a checkpoint.
    pub fn save(&self, checkpoint: &Path) -> Result<()> {
        let path = checkpoint.join(Self::FILE);
        let text = serde_json::to_string_pretty(self).expect("strings") + "\n";
        std::fs::write(&path, text).map_err(|e| Error::write(&path, e))
    }

    /// What makes this prompt impossible, with the remedy.
    pub fn problems(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let parts = match parts(&self.template) {
            Ok(parts) => parts,
            Err(problem) => return vec![(problem, "write for instance `{text} It was {mask} .`".to_owned())],
        };
        let open = parts.iter().filter(|part| **part == Part::Open).count();
        if open != 1 {
            let message = format!("`{}` has {open} open places", self.template);
            found.push((message, "write `{mask}` exactly once".to_owned()));
        }
        if !parts.iter().any(|part| matches!(part, Part::Column(_))) {
            let message = format!("`{}` names no column of the documents", self.template);
            found.push((message, "write `{text}` where the text belongs".to_owned()));
        }
        if self.words.len() < 2 {
            let message = format!("{} classes have a word", self.words.len());
            found.push((
                message,
                "give a word for each of at least 2 classes: `words = { bad = \"terrible\", good = \"great\" }`"
                    .to_owned(),
            ));
        }
        if self.regression.is_some() && self.ends().is_none() {
            let message = format!("the classes {:?} are not the two ends of a range", self.classes());
            found.push((
                message,
                "name the least and the greatest number: `words = { 0 = \"No\", 5 = \"Yes\" }`".to_owned(),
            ));
        }
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (class, word) in &self.words {
            if word.trim().is_empty() || word.contains(char::is_whitespace) {
                found.push((
                    format!("the word `{word}` of class `{class}` is not one word"),
                    "give one word".to_owned(),
                ));
            }
            if let Some(other) = seen.insert(word, class) {
                let message = format!("the classes `{other}` and `{class}` have the same word `{word}`");
                found.push((message, "give each class its own word".to_owned()));
            }
        }
        found
    }

    /// Whether the open place is the end, as a causal model needs it.
    pub fn ends_open(&self) -> bool {
        parts(&self.template).is_ok_and(|parts| parts.last() == Some(&Part::Open))
    }

    /// The classes, in their order.
    pub fn classes(&self) -> Vec<String> {
        self.words.keys().cloned().collect()
    }

    /// The number of each class; none unless numbers are predicted.
    pub fn ends(&self) -> Option<[f64; 2]> {
        self.regression?;
        let number = |class: &String| class.parse::<f64>().ok().filter(|number| number.is_finite());
        let numbers: Vec<f64> = self.words.keys().filter_map(number).collect();
        match numbers.as_slice() {
            [first, second] if self.words.len() == 2 && first != second => Some([*first, *second]),
            _ => None,
        }
    }

    /// The share of each class in a label; none unless it is a number between the ends.
    pub fn shares(&self, label: &str) -> Option<[f64; 2]> {
        let [first, second] = self.ends()?;
        let share = (label.trim().parse::<f64>().ok()? - first) / (second - first);
        (0.0..=1.0).contains(&share).then_some([1.0 - share, share])
    }

    /// The columns that the template names.
    pub fn columns(&self) -> Vec<String> {
        let column = |part: Part| match part {
            Part::Column(name) => Some(name),
            _ => None,
        };
        parts(&self.template).unwrap_or_default().into_iter().filter_map(column).collect()
    }

    /// The document written into the template with `word` in the open place, on one line.
    pub fn fill(&self, document: &Document, word: &str) -> String {
        let text = |part: Part| match part {
            Part::Words(words) => words,
            Part::Column(name) => column(document, &name),
            Part::Open => word.to_owned(),
        };
        let texts = parts(&self.template).unwrap_or_default().into_iter().map(text);
        texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ")
    }

    /// The tokens of a document in the template, at most `max_tokens`. `mask` stands in the open place; without one the open place must
    /// be the end, where nothing is written.
    pub(crate) fn encode_with(
        &self,
        encoder: &dyn Encoder,
        document: &Document,
        mask: Option<u32>,
        max_tokens: usize,
    ) -> Result<Vec<u32>> {
        // Each stretch with whether it may be cut.
        let mut stretches: Vec<(Vec<u32>, bool)> = Vec::new();
        let mut num_soft = 0;
        for part in parts(&self.template).unwrap_or_default() {
            let (text, may_be_cut) = match part {
                Part::Words(words) => (words, false),
                Part::Column(name) => (column(document, &name), true),
                Part::Open => {
                    stretches.push((mask.into_iter().collect(), false));
                    continue;
                }
            };
            if text.is_empty() {
                continue;
            }
            let text = if stretches.is_empty() { text } else { format!(" {text}") };
            let mut tokens =
                encoder.encode(&text).map_err(|source| Error::Encode { place: document.place.clone(), source })?;
            if self.soft && !may_be_cut {
                for token in &mut tokens {
                    let name = sentence_token(num_soft);
                    let missing = || Error::Encode { place: document.place.clone(), source: missing(&name).into() };
                    *token = encoder.token_to_id(&name).ok_or_else(missing)?;
                    num_soft += 1;
                }
            }
            stretches.push((tokens, may_be_cut));
        }
        let total: usize = stretches.iter().map(|(tokens, _)| tokens.len()).sum();
        let fixed: usize = stretches.iter().filter(|(_, cut)| !cut).map(|(tokens, _)| tokens.len()).sum();
        if fixed >= max_tokens {
            let detail = format!(
                "(id `{}`) has no place for its text: the template takes {fixed} of {max_tokens} tokens; raise `max_seq_len` or shorten the template",
                document.id
            );
            return Err(Error::BadItem(BadItem { reason: BadReason::TooLong, place: document.place.clone(), detail }));
        }
        let mut over = total.saturating_sub(max_tokens);
        for (tokens, _) in stretches.iter_mut().rev().filter(|(_, cut)| *cut) {
            let less = over.min(tokens.len());
            tokens.truncate(tokens.len() - less);
            over -= less;
        }
        Ok(stretches.into_iter().flat_map(|(tokens, _)| tokens).collect())
    }

    /// The tokens that a soft prompt adds to the vocabulary: those of the sentence, then one for each class; none if it is not soft.
    ///
    /// # Errors
    /// As [`Prompt::word_ids`].
    pub fn soft_tokens(&self, tokenizer: &Tokenizer) -> Result<Vec<SoftToken>, String> {
        let mut tokens = Vec::new();
        if !self.soft {
            return Ok(tokens);
        }
        for (at, part) in parts(&self.template).unwrap_or_default().iter().enumerate() {
            if let Part::Words(words) = part {
                let text = if at == 0 { words.clone() } else { format!(" {words}") };
                for like in tokenizer.encode(&text).map_err(|error| error.to_string())? {
                    tokens.push(SoftToken { name: sentence_token(tokens.len()), like });
                }
            }
        }
        let classes = self.words.keys().zip(self.hard_word_ids(tokenizer)?);
        tokens.extend(classes.map(|(class, like)| SoftToken { name: class_token(class), like }));
        Ok(tokens)
    }

    /// As a corpus does it, for a tokenizer.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        document: &Document,
        mask: Option<u32>,
        max_tokens: usize,
    ) -> Result<Vec<u32>> {
        self.encode_with(tokenizer, document, mask, max_tokens)
    }

    /// The token of each class's word, in the order of the classes.
    ///
    /// # Errors
    /// Names the word that is not one ordinary token of this tokenizer, with its pieces.
    pub fn word_ids(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>, String> {
        if !self.soft {
            return self.hard_word_ids(tokenizer);
        }
        let id = |class: &String| {
            let name = class_token(class);
            tokenizer.token_to_id(&name).ok_or_else(|| missing(&name))
        };
        self.words.keys().map(id).collect()
    }

    fn hard_word_ids(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>, String> {
        let starts = parts(&self.template).unwrap_or_default().first() == Some(&Part::Open);
        let id = |(class, word): (&String, &String)| {
            let text = if starts { word.clone() } else { format!(" {word}") };
            let ids = tokenizer.encode(&text).map_err(|error| error.to_string())?;
            let unknown = tokenizer.special(SpecialToken::Unk);
            match ids.as_slice() {
                [id] if Some(*id) != unknown && !tokenizer.is_special(*id) => Ok(*id),
                ids => {
                    let pieces: Vec<String> = ids.iter().filter_map(|id| tokenizer.id_to_token(*id)).collect();
                    Err(format!(
                        "the word `{word}` of class `{class}` is not one token but {pieces:?}; choose another word, or a tokenizer that has it"
                    ))
                }
            }
        };
        let ids: Vec<u32> = self.words.iter().map(id).collect::<Result<_, String>>()?;
        let classes: Vec<&String> = self.words.keys().collect();
        for (i, own) in ids.iter().enumerate() {
            if let Some(j) = ids[..i].iter().position(|other| other == own) {
                return Err(format!(
                    "the words of `{}` and `{}` are the same token; choose another word",
                    classes[j], classes[i]
                ));
            }
        }
        Ok(ids)
    }

    /// A hash of template and words, for the names of caches.
    pub(crate) fn key(&self, max_tokens: usize) -> String {
        format!("{:?} {max_tokens}{}", self.template, if self.soft { " soft" } else { "" })
    }
}

/// The name of a soft prompt's token at a place of the sentence.
fn sentence_token(place: usize) -> String {
    format!("[prompt {place}]")
}

fn missing(token: &str) -> String {
    format!("the tokenizer has no token `{token}` of the soft prompt; use the one beside the model")
}

/// The name of the token that stands for a class in a soft prompt.
fn class_token(class: &str) -> String {
    format!("[class {class}]")
}

/// The text of a column on one line; empty if the document has none.
fn column(document: &Document, name: &str) -> String {
    let text = if name == "text" {
        document.text.clone()
    } else {
        match document.attributes.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The parts of a template; an error in words where braces do not match.
fn parts(template: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = template;
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        let end = from.find('}').ok_or_else(|| format!("`{template}` has a `{{` without `}}`"))?;
        parts.push(Part::Words(words(before)));
        let name = from[1..end].trim();
        parts.push(match name {
            "mask" => Part::Open,
            "" => return Err(format!("`{template}` has empty braces")),
            name => Part::Column(name.to_owned()),
        });
        rest = &from[end + 1..];
    }
    if rest.contains('}') {
        return Err(format!("`{template}` has a `}}` without `{{`"));
    }
    parts.push(Part::Words(words(rest)));
    parts.retain(|part| *part != Part::Words(String::new()));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Bytes;

    fn prompt(template: &str) -> Prompt {
        let words = [("bad", "terrible"), ("good", "great")];
        Prompt {
            template: template.to_owned(),
            words: words.iter().map(|(class, word)| ((*class).to_owned(), (*word).to_owned())).collect(),
            soft: false,
            regression: None,
        }
    }

    fn document(text: &str, second: &str) -> Document {
        let mut document = Document { text: text.to_owned(), id: "d7".to_owned(), ..Document::default() };
        document.attributes.insert("second".to_owned(), second.into());
        document
    }

    fn encoded(template: &str, text: &str, second: &str, max: usize) -> Result<String> {
        let ids =
            prompt(template).encode_with(&Bytes::default(), &document(text, second), Some(u32::from(b'#')), max)?;
        Ok(ids.into_iter().map(|id| char::from(id as u8)).collect())
    }

    #[test]
    fn sentences_are_those_of_the_paper_card() {
        let fill = |template: &str, a: &str, b: &str, word: &str| prompt(template).fill(&document(a, b), word);
        let pair = "{text} . {mask} , in this case {second}";
        assert_eq!(fill(pair, "A man", "he runs", "Maybe"), "A man . Maybe , in this case he runs");
        assert_eq!(fill("{mask} : {text}", "Who ?", "", "Human"), "Human : Who ?");
        assert_eq!(fill("{text} This is {mask}", "a", "", "correct"), "a This is correct");
        assert_eq!(fill("{text} {mask} , {second}", "a", "", "No"), "a No ,");
        assert_eq!(fill("{text} It was {mask} .", "two\nlines\there", "", "great"), "two lines here It was great .");
    }

    #[test]
    fn the_last_text_is_cut_first_and_the_template_never() {
        assert_eq!(encoded("{text} is {mask}", "abcdefgh", "", 20).expect("fits"), "abcdefgh is#");
        assert_eq!(encoded("{text} is {mask}", "abcdefgh", "", 7).expect("fits"), "abc is#");
        let pair = "{text} {mask} {second}";
        assert_eq!(encoded(pair, "abcd", "efgh", 8).expect("fits"), "abcd# ef");
        assert_eq!(encoded(pair, "abcd", "efgh", 4).expect("fits"), "abc#");
        let error = encoded("{text} is {mask}", "abc", "", 4).expect_err("no room").to_string();
        assert!(error.contains("d7") && error.contains("takes 4 of 4"), "{error}");
    }

    #[test]
    fn a_soft_prompt_has_tokens_of_its_own_for_its_words() {
        let encode = |template: &str, text: &str, max: usize| {
            let soft = Prompt { soft: true, ..prompt(template) };
            soft.encode_with(&Bytes::default(), &document(text, ""), Some(1), max)
        };
        assert_eq!(encode("{text} is {mask} .", "ab", 20).expect("fits"), [97, 98, 300, 301, 302, 1, 303, 304]);
        assert_eq!(encode("{text} is {mask} .", "ab", 7).expect("fits"), [97, 300, 301, 302, 1, 303, 304]);
        let error = encode("{text} is not all {mask}", "ab", 20).expect_err("12 tokens").to_string();
        assert!(error.contains("[prompt 10]") && error.contains("beside the model"), "{error}");
        assert_ne!(prompt("{text} {mask}").key(8), Prompt { soft: true, ..prompt("{text} {mask}") }.key(8));
    }

    #[test]
    fn wrong_prompts_are_explained() {
        let problems = |template: &str| prompt(template).problems().len();
        assert_eq!(problems("{text} It was {mask} ."), 0);
        for wrong in
            ["{text} it was", "{text} {mask} {mask}", "it was {mask}", "{text} {mask", "{text} {} {mask}", "{text} }"]
        {
            assert_eq!(problems(wrong), 1, "{wrong}");
        }
        let mut twice = prompt("{text} {mask}");
        twice.words.insert("fine".to_owned(), "great".to_owned());
        let found = twice.problems();
        assert!(found[0].0.contains("`fine` and `good`"), "{found:?}");
    }

    #[test]
    fn columns_and_the_end_are_known() {
        let pair = prompt("{text} . I think that {second} ? {mask}");
        assert_eq!(pair.columns(), ["text", "second"]);
        assert!(pair.ends_open() && !prompt("{text} It was {mask} .").ends_open());
        assert_eq!(pair.classes(), ["bad", "good"]);
    }
}
