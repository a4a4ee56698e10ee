//! Lexicon: the words that a decoder may find, each with its spelling in tokens.
//!
//! # What it holds
//! All words of the transcripts and the most frequent words of a corpus; the spelling of a word is its letters and the
//! token of the word boundary. Files have one spelling a line: the word, a tab, the tokens with spaces between. A word
//! may have several spellings, on lines of their own.
//! # Reference
//! The lexicon files of the flashlight and fairseq decoders

use crate::count::count_words;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// The usual token between words.
pub const BOUNDARY: &str = "|";
/// A line of a lexicon is never as long as this.
const MAX_LINE_BYTES: u64 = 1 << 16;

/// Words with their spellings, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lexicon {
    /// Each word and one spelling.
    entries: BTreeSet<(String, Vec<String>)>,
}

impl Lexicon {
    /// All words of the transcripts and the `num_corpus_words` most frequent words of the corpus, in letters and the
    /// `boundary`. Corpus words with other letters than `is_letter` tells are left out; in a transcript they are an
    /// error.
    pub fn from_texts<T: AsRef<str>>(
        transcripts: impl IntoIterator<Item = T>,
        corpus: &mut (dyn Iterator<Item = String> + Send),
        num_corpus_words: usize,
        is_letter: impl Fn(char) -> bool,
        boundary: &str,
    ) -> Result<Self> {
        let mut lexicon = Self::default();
        for line in transcripts {
            for word in line.as_ref().split_whitespace() {
                if let Some(letter) = word.chars().find(|letter| !is_letter(*letter)) {
                    return Err(Error::UnknownLetter { word: word.to_owned(), letter });
                }
                lexicon.add(word, boundary);
            }
        }
        if num_corpus_words == 0 {
            return Ok(lexicon);
        }
        let mut words = count_words(corpus, |text, found| {
            text.split_whitespace().for_each(found);
            Ok(())
        })?;
        words.retain(|(word, _)| word.chars().all(&is_letter));
        words.sort_by(|(a, num_a), (b, num_b)| num_b.cmp(num_a).then_with(|| a.cmp(b)));
        for (word, _) in words.iter().take(num_corpus_words) {
            lexicon.add(word, boundary);
        }
        Ok(lexicon)
    }

    fn add(&mut self, word: &str, boundary: &str) {
        let spelling = word.chars().map(String::from).chain(std::iter::once(boundary.to_owned())).collect();
        self.entries.insert((word.to_owned(), spelling));
    }

    /// Reads a lexicon file. Each token must be one that `is_token` knows, and each spelling must end with the
    /// `boundary` if there is one.
    pub fn load(path: &Path, is_token: impl Fn(&str) -> bool, boundary: Option<&str>) -> Result<Self> {
        let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
        let mut reader = BufReader::new(file);
        let mut first_lines: BTreeMap<(String, Vec<String>), u64> = BTreeMap::new();
        let mut bytes = Vec::new();
        let mut line = 0;
        loop {
            bytes.clear();
            let mut limited = (&mut reader).take(MAX_LINE_BYTES);
            let num_read = limited.read_until(b'\n', &mut bytes).map_err(Error::io("read", path))?;
            if num_read == 0 {
                break;
            }
            line += 1;
            let wrong = |message: String| Error::Lexicon { path: path.to_owned(), line, message };
            if num_read as u64 == MAX_LINE_BYTES {
                return Err(wrong(format!("longer than {MAX_LINE_BYTES} bytes; this is no lexicon")));
            }
            let text = std::str::from_utf8(&bytes)
                .map_err(|error| wrong(format!("not UTF-8 at byte {} of the line", error.valid_up_to())))?;
            let mut fields = text.split_whitespace();
            let Some(word) = fields.next() else { continue };
            let spelling: Vec<String> = fields.map(str::to_owned).collect();
            if spelling.is_empty() {
                return Err(wrong(format!(
                    "`{word}` has no spelling; write the word, a tab, and its tokens with spaces between"
                )));
            }
            if let Some(unknown) = spelling.iter().find(|token| !is_token(token)) {
                return Err(wrong(format!("`{unknown}` in the spelling of `{word}` is not among the tokens")));
            }
            if let Some(boundary) = boundary.filter(|boundary| spelling.last().is_none_or(|last| last != boundary)) {
                let wanted = spelling.join(" ");
                return Err(wrong(format!(
                    "the spelling of `{word}` lacks the word boundary at its end; it must be `{wanted} {boundary}`"
                )));
            }
            let entry = (word.to_owned(), spelling);
            if let Some(first) = first_lines.get(&entry) {
                return Err(wrong(format!("`{word}` is spelt this way on line {first} already")));
            }
            first_lines.insert(entry, line);
        }
        Ok(Self { entries: first_lines.into_keys().collect() })
    }

    /// Writes the lexicon as a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = String::new();
        for (word, spelling) in &self.entries {
            writeln!(text, "{word}\t{}", spelling.join(" ")).expect("a string takes all that is written");
        }
        std::fs::write(path, text).map_err(Error::io("write", path))
    }

    /// Words with their spellings in tokens, sorted; a word with two spellings comes twice.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.entries.iter().map(|(word, spelling)| (word.as_str(), spelling.as_slice()))
    }

    /// The number of spellings.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no word.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: impl AsRef<[u8]>) -> Result<Lexicon> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lexicon.txt");
        std::fs::write(&path, text).expect("writes");
        Lexicon::load(&path, |token| ["a", "b", "c", "|"].contains(&token), Some("|"))
    }

    fn check_error(text: impl AsRef<[u8]>, wanted_line: u64, part: &str) {
        match read(text).expect_err("wrong") {
            Error::Lexicon { line, message, .. } => {
                assert!(message.contains(part), "{message}");
                assert_eq!(line, wanted_line, "{message}");
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn transcripts_give_all_words_and_the_corpus_its_most_frequent() {
        let mut corpus = ["ca ca ba ba ba", "xa xa xa xa ab", "ac"].map(str::to_owned).into_iter();
        let lexicon = Lexicon::from_texts(["ab a", "ab"], &mut corpus, 2, |letter| "abc".contains(letter), "|");
        let lexicon = lexicon.expect("letters are known");
        let words: Vec<&str> = lexicon.entries().map(|(word, _)| word).collect();
        assert_eq!(words, ["a", "ab", "ba", "ca"]);
        let (_, spelling) = lexicon.entries().nth(1).expect("four words");
        assert_eq!(spelling, ["a", "b", "|"]);
    }

    #[test]
    fn a_strange_letter_in_a_transcript_is_an_error() {
        let mut corpus = std::iter::empty();
        let error = Lexicon::from_texts(["ab axb"], &mut corpus, 0, |letter| "ab".contains(letter), "|");
        assert!(matches!(error, Err(Error::UnknownLetter { letter: 'x', .. })));
    }

    #[test]
    fn a_saved_lexicon_is_read_as_it_was() {
        let mut corpus = std::iter::empty();
        let lexicon = Lexicon::from_texts(["ab cab a"], &mut corpus, 0, |_| true, "|").expect("letters are known");
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lexicon.txt");
        lexicon.save(&path).expect("writes");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), "a\ta |\nab\ta b |\ncab\tc a b |\n");
        assert_eq!(Lexicon::load(&path, |_| true, Some(BOUNDARY)).expect("reads"), lexicon);
    }

    #[test]
    fn a_word_may_have_two_spellings_but_not_one_twice() {
        let lexicon = read("ab a b |\n\nab\tb a |\r\n").expect("two spellings");
        assert_eq!((lexicon.len(), lexicon.is_empty()), (2, false));
        check_error("ab a b |\na a |\nab\ta b |\n", 3, "on line 1 already");
    }

    #[test]
    fn wrong_lines_are_named() {
        check_error("a a |\nab a x |\n", 2, "`x` in the spelling of `ab` is not among the tokens");
        check_error("a a |\nab a b\n", 2, "it must be `a b |`");
        check_error("a\n", 1, "`a` has no spelling");
        check_error(b"a a |\nb\xff b |\n", 2, "not UTF-8 at byte 1");
        check_error("a".repeat(70_000), 1, "longer than");
    }
}
