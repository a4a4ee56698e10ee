//! What a decoder found: words with their times.

use super::Alphabet;
use super::alphabet::Role;

/// The frames of one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Token {
    /// Its column in the emissions.
    pub id: u32,
    /// Its first frame.
    pub start_frame: u32,
    /// The frame after its last.
    pub end_frame: u32,
    /// Its highest probability in these frames.
    pub confidence: f32,
}

/// A word and its frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// The word.
    pub text: String,
    /// The first frame of its first token.
    pub start_frame: u32,
    /// The frame after the last of its last token.
    pub end_frame: u32,
    /// Geometric mean of the confidence of its tokens.
    pub confidence: f32,
}

impl Word {
    /// Where it begins and ends in a recording, in seconds.
    pub fn seconds(&self, seconds_per_frame: f64) -> (f64, f64) {
        (f64::from(self.start_frame) * seconds_per_frame, f64::from(self.end_frame) * seconds_per_frame)
    }
}

/// One reading of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// The words with spaces between.
    pub text: String,
    /// The tokens, boundaries included.
    pub tokens: Vec<Token>,
    /// The words with their frames.
    pub words: Vec<Word>,
    /// What hypotheses are ranked by: `acoustic_score + lm_score`.
    pub score: f64,
    /// Natural log-probability of the emissions: of all paths for the prefix beam, else of the best one.
    pub acoustic_score: f64,
    /// What language model, word score and hot words add, each with its weight.
    pub lm_score: f64,
    /// Whether it ends at a word boundary; only a lexicon can leave a word unfinished.
    pub is_complete: bool,
}

impl Hypothesis {
    pub(super) fn new(words: Vec<Word>, tokens: Vec<Token>, acoustic_score: f64, lm_score: f64) -> Self {
        let text = words.iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ");
        let score = acoustic_score + lm_score;
        Self { text, tokens, words, score, acoustic_score, lm_score, is_complete: true }
    }
}

/// The words that tokens write.
pub fn words(alphabet: &Alphabet, tokens: &[Token]) -> Vec<Word> {
    let mut builder = WordBuilder::default();
    let mut words = Vec::new();
    for token in tokens {
        words.extend(builder.push(alphabet, token));
    }
    words.extend(builder.finish());
    words
}

/// Puts tokens together to words, one token at a time.
#[derive(Debug, Clone, Default)]
pub(super) struct WordBuilder {
    text: String,
    tokens: Vec<Token>,
}

impl WordBuilder {
    /// The word that this token ends, if it ends one.
    pub(super) fn push(&mut self, alphabet: &Alphabet, token: &Token) -> Option<Word> {
        let ended = match alphabet.role(token.id) {
            Role::Boundary | Role::Begins => self.finish(),
            Role::Continues | Role::Silent => None,
        };
        let text = alphabet.text(token.id);
        if !text.is_empty() {
            self.text.push_str(text);
            self.tokens.push(*token);
        }
        ended
    }

    /// The tokens of the word that has not ended.
    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The word so far.
    pub(super) fn finish(&mut self) -> Option<Word> {
        let text = std::mem::take(&mut self.text);
        let tokens = std::mem::take(&mut self.tokens);
        word(text, &tokens)
    }
}

/// A word from the tokens it is made of; `None` without any.
pub(super) fn word(text: String, tokens: &[Token]) -> Option<Word> {
    let (first, last) = (tokens.first()?, tokens.last()?);
    let log_sum: f64 = tokens.iter().map(|token| f64::from(token.confidence).ln()).sum();
    let confidence = (log_sum / tokens.len() as f64).exp() as f32;
    Some(Word { text, start_frame: first.start_frame, end_frame: last.end_frame, confidence })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctc::WordMarks;

    fn alphabet(tokens: &[&str], marks: WordMarks) -> Alphabet {
        let tokens: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
        Alphabet::new(&tokens, "-", &marks, &[]).expect("fine")
    }

    fn tokens(ids: &[u32]) -> Vec<Token> {
        let token =
            |(at, id): (u32, &u32)| Token { id: *id, start_frame: 2 * at, end_frame: 2 * at + 1, confidence: 0.5 };
        (0u32..).zip(ids).map(token).collect()
    }

    fn texts(words: &[Word]) -> Vec<(&str, u32, u32)> {
        words.iter().map(|word| (word.text.as_str(), word.start_frame, word.end_frame)).collect()
    }

    #[test]
    fn boundaries_part_words_wherever_they_stand() {
        let alphabet = alphabet(&["-", "|", "a", "b"], WordMarks::Boundary("|".to_owned()));
        let words = words(&alphabet, &tokens(&[1, 2, 3, 1, 1, 3, 1]));
        assert_eq!(texts(&words), [("ab", 2, 5), ("b", 10, 11)]);
        assert_eq!(words[0].seconds(0.02), (0.04, 0.1));
    }

    #[test]
    fn marked_pieces_begin_words_and_a_bare_mark_makes_none() {
        let alphabet = alphabet(&["-", "▁", "▁a", "b"], WordMarks::Begin("▁".to_owned()));
        assert_eq!(texts(&words(&alphabet, &tokens(&[1, 2, 3, 1, 3, 1]))), [("ab", 2, 5), ("b", 8, 9)]);
    }

    #[test]
    fn every_token_can_be_a_word() {
        let alphabet = alphabet(&["-", "a", "b"], WordMarks::EveryToken);
        assert_eq!(texts(&words(&alphabet, &tokens(&[1, 2, 2]))), [("a", 0, 1), ("b", 2, 3), ("b", 4, 5)]);
    }

    #[test]
    fn the_confidence_of_a_word_is_the_geometric_mean_of_its_tokens() {
        let alphabet = alphabet(&["-", "a", "b"], WordMarks::Begin("a".to_owned()));
        let mut tokens = tokens(&[1, 2, 2]);
        (tokens[1].confidence, tokens[2].confidence) = (0.8, 0.2);
        let confidence = words(&alphabet, &tokens)[0].confidence;
        assert!((confidence - 0.4).abs() < 1e-6, "{confidence}");
    }
}
