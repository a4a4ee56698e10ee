//! Words and how they are spelled in tokens.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::Alphabet;
use super::alphabet::Role;
use crate::{Error, Result};

/// More bytes than any line of a lexicon has.
const MAX_LINE_BYTES: u64 = 1 << 16;

/// Words by number with their spellings; a word may have several, and several words one.
#[derive(Debug, Clone, Default)]
pub struct Lexicon {
    pub(super) words: Vec<String>,
    /// Tokens and the number of the word.
    pub(super) spellings: Vec<(Vec<u32>, u32)>,
}

impl Lexicon {
    /// Reads lines of a word and its tokens, with white space between; a word alone is spelled by its characters.
    ///
    /// If the alphabet has a boundary token every spelling must end with it; `|` stands for it whatever it is, and it is
    /// added to words that stand alone.
    pub fn load(path: &Path, alphabet: &Alphabet) -> Result<Self> {
        let failed = |error: std::io::Error| Error::File { path: path.to_owned(), problem: error.to_string() };
        Self::read(BufReader::new(std::fs::File::open(path).map_err(failed)?), alphabet, failed)
    }

    /// Takes the lines of a lexicon from memory; see [`Lexicon::load`].
    pub fn parse(text: &str, alphabet: &Alphabet) -> Result<Self> {
        Self::read(text.as_bytes(), alphabet, |error| Error::Lexicon { line: 0, problem: error.to_string() })
    }

    fn read(mut lines: impl BufRead, alphabet: &Alphabet, failed: impl Fn(std::io::Error) -> Error) -> Result<Self> {
        let mut lexicon = Self::default();
        let mut numbers: HashMap<String, u32> = HashMap::new();
        let mut seen: HashMap<(u32, Vec<u32>), usize> = HashMap::new();
        let mut bytes = Vec::new();
        for line in 1.. {
            bytes.clear();
            std::io::Read::take(&mut lines, MAX_LINE_BYTES).read_until(b'\n', &mut bytes).map_err(&failed)?;
            let wrong = |problem: String| Error::Lexicon { line, problem };
            if bytes.len() as u64 == MAX_LINE_BYTES {
                return Err(wrong(format!("it has more than {MAX_LINE_BYTES} bytes; is this a lexicon?")));
            }
            if bytes.is_empty() {
                break;
            }
            let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not UTF-8".to_owned()))?;
            let mut fields = text.split_whitespace();
            let Some(word) = fields.next() else { continue };
            let spelling = spell(word, fields, alphabet).map_err(wrong)?;
            let new = lexicon.words.len() as u32;
            let number = *numbers.entry(word.to_owned()).or_insert(new);
            if number == new {
                lexicon.words.push(word.to_owned());
            }
            if let Some(first) = seen.insert((number, spelling.clone()), line) {
                return Err(wrong(format!("`{word}` has the same spelling as on line {first}; remove one")));
            }
            lexicon.spellings.push((spelling, number));
        }
        if lexicon.words.is_empty() {
            return Err(Error::config("lexicon", "has no words"));
        }
        Ok(lexicon)
    }

    /// How many different words.
    pub fn num_words(&self) -> usize {
        self.words.len()
    }
}

fn spell<'a>(word: &str, tokens: impl Iterator<Item = &'a str>, alphabet: &Alphabet) -> Result<Vec<u32>, String> {
    let find = |token: &str| {
        let id = if token == "|" { alphabet.boundary().or(alphabet.id(token)) } else { alphabet.id(token) };
        id.filter(|id| alphabet.role(*id) != Role::Silent)
            .ok_or_else(|| format!("`{word}` is spelled with `{token}`, which is no token that can be written"))
    };
    let mut spelling: Vec<u32> = tokens.map(find).collect::<Result<_, _>>()?;
    if spelling.is_empty() {
        let mut buffer = [0; 4];
        spelling = word.chars().map(|char| find(char.encode_utf8(&mut buffer))).collect::<Result<_, _>>()?;
        spelling.extend(alphabet.boundary());
    }
    match alphabet.boundary() {
        Some(boundary) if spelling.last() != Some(&boundary) => {
            Err(format!("the spelling of `{word}` must end in the word boundary: `{word} t o k e n s |`"))
        }
        _ => Ok(spelling),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctc::WordMarks;

    fn alphabet(tokens: &str, marks: WordMarks) -> Alphabet {
        let tokens: Vec<String> = tokens.split(',').map(str::to_owned).collect();
        Alphabet::new(&tokens, "-", &marks, &[]).expect("fine")
    }

    fn letters() -> Alphabet {
        alphabet("-, ,a,b", WordMarks::Boundary(" ".to_owned()))
    }

    fn message(text: &str) -> String {
        Lexicon::parse(text, &letters()).expect_err("bad").to_string()
    }

    #[test]
    fn words_have_spellings_of_their_own_or_of_their_characters() {
        let lexicon = Lexicon::parse("ab\ta b |\n\nA a |\nA  b |\nba\n", &letters()).expect("fine");
        assert_eq!(lexicon.words, ["ab", "A", "ba"]);
        let want = [(vec![2, 3, 1], 0), (vec![2, 1], 1), (vec![3, 1], 1), (vec![3, 2, 1], 2)];
        assert_eq!(lexicon.spellings, want);
    }

    #[test]
    fn without_a_boundary_spellings_end_as_they_are() {
        let phones = alphabet("-,ax,b", WordMarks::EveryToken);
        assert_eq!(Lexicon::parse("of ax b", &phones).expect("fine").spellings, [(vec![1, 2], 0)]);
    }

    #[test]
    fn lines_that_cannot_be_used_are_named() {
        assert_eq!(
            message("a\nac a c |"),
            "line 2 of the lexicon: `ac` is spelled with `c`, which is no token that can be written"
        );
        assert!(message("a - |").contains("`-`"));
        assert!(message("a a |\nb b\n").contains("line 2") && message("b b").contains("must end in the word boundary"));
        assert!(message("a a |\nb\na").contains("line 3") && message("a a |\nb\na").contains("line 1"));
        assert!(message("\n\n").contains("no words"));
        assert!(message(&"a".repeat(70_000)).contains("bytes"));
    }
}
