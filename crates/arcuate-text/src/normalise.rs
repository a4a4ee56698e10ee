//! Normalisers: which differences between two spellings of one transcript count, and which do not.
//!
//! # What it computes
//! In this order: Unicode form, notes such as `[noise]`, invisible characters, letter case, punctuation and digits, the Unicode form
//! again, and white space collapsed to single spaces with none at the ends. Combining marks are never removed: the vowel signs of
//! Brahmic scripts are marks, and words without them are other words. What is taken away inside a text leaves a space, apart from
//! invisible characters. Applying one twice is the same as applying it once.
//! # Reference
//! Unicode Standard Annexes 15 (forms) and 44 (general categories); Radford et al. 2023 for `whisper_basic`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// How a transcript is brought into one spelling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Normaliser {
    /// Unicode form. NFC makes one of the two spellings of `é` and of letters with a nukta.
    #[serde(default = "nfc")]
    pub unicode: UnicodeForm,
    /// Letter case. No default: whether case counts is part of the task.
    pub case: Case,
    /// Punctuation and symbols. No default: whether they count is part of the task.
    pub punctuation: Keep,
    /// Characters that stay between two letters or digits where `punctuation` is removed. `'` stands for `’` too, `-` for the other
    /// hyphens; they become one.
    #[serde(default = "apostrophe")]
    pub inside_words: String,
    /// Digits and other numbers. No default: a speaker says them, so removing them changes what was said.
    pub digits: Keep,
    /// Notes in brackets: `[noise]`, `<unk>`, `(laughs)`.
    #[serde(default = "remove")]
    pub notes: Keep,
    /// Zero-width and control characters, among them joiners, direction marks, soft hyphens and variation selectors.
    #[serde(default = "remove")]
    pub invisible: Keep,
}

/// Unicode forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnicodeForm {
    /// Composed.
    Nfc,
    /// Composed, and compatible characters such as `ﬁ`, `①` or full-width letters replaced by their plain ones.
    Nfkc,
    /// As written.
    None,
}

/// Letter cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Case {
    /// Lower case.
    Lower,
    /// Lower case as in Turkish and Azerbaijani: `I` becomes `ı`, `İ` becomes `i`.
    LowerTurkic,
    /// Upper case.
    Upper,
    /// As written.
    Keep,
}

/// Whether something stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// It stays.
    Keep,
    /// It is removed.
    Remove,
}

fn nfc() -> UnicodeForm {
    UnicodeForm::Nfc
}
fn apostrophe() -> String {
    "'".to_owned()
}
fn remove() -> Keep {
    Keep::Remove
}

impl Normaliser {
    /// The names of the presets.
    pub const NAMES: [&str; 3] = ["none", "ctc", "whisper_basic"];

    /// A preset by its name: `none` only collapses white space; `ctc` is lower case without punctuation, digits kept;
    /// `whisper_basic` is the basic normaliser of Whisper, except that marks stay.
    pub fn named(name: &str) -> Option<Self> {
        let none = Self {
            unicode: UnicodeForm::None,
            case: Case::Keep,
            punctuation: Keep::Keep,
            inside_words: apostrophe(),
            digits: Keep::Keep,
            notes: Keep::Keep,
            invisible: Keep::Keep,
        };
        let ctc = Self {
            unicode: UnicodeForm::Nfc,
            case: Case::Lower,
            punctuation: Keep::Remove,
            notes: Keep::Remove,
            invisible: Keep::Remove,
            ..none.clone()
        };
        match name {
            "none" => Some(none),
            "ctc" => Some(ctc),
            "whisper_basic" => Some(Self { unicode: UnicodeForm::Nfkc, inside_words: String::new(), ..ctc }),
            _ => None,
        }
    }

    /// The name of the preset that it is, else `custom`.
    pub fn name(&self) -> &'static str {
        Self::NAMES.into_iter().find(|name| Self::named(name).as_ref() == Some(self)).unwrap_or("custom")
    }

    /// Everything that is wrong with the values, as (key inside the table, message).
    pub fn check(&self) -> Vec<(&'static str, String)> {
        match self.inside_words.chars().find(|c| !is_punctuation(*c)) {
            Some(c) => {
                vec![(
                    "inside_words",
                    format!("`{c}` is no punctuation and stays anyway; name only characters such as `'` and `-`"),
                )]
            }
            None => Vec::new(),
        }
    }

    /// The text in its one spelling.
    pub fn apply(&self, text: &str) -> String {
        let mut text = self.formed(text);
        if self.notes == Keep::Remove {
            text = without_notes(&text);
        }
        if self.invisible == Keep::Remove {
            text.retain(|c| !is_invisible(c));
        }
        text = match self.case {
            Case::Keep => text,
            Case::Upper => text.to_uppercase(),
            Case::Lower => text.to_lowercase(),
            Case::LowerTurkic => text.replace('I', "ı").replace('İ', "i").to_lowercase(),
        };
        if self.punctuation == Keep::Remove || self.digits == Keep::Remove {
            text = self.without_signs(&text);
        }
        collapse(&self.formed(&text))
    }

    fn formed(&self, text: &str) -> String {
        match self.unicode {
            UnicodeForm::None => text.to_owned(),
            _ if text.is_ascii() => text.to_owned(),
            UnicodeForm::Nfc => text.nfc().collect(),
            UnicodeForm::Nfkc => text.nfkc().collect(),
        }
    }

    /// Punctuation and digits as the keys want them; what goes leaves a space.
    fn without_signs(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        let mut letters = text.chars().peekable();
        let mut is_after_word = false;
        while let Some(c) = letters.next() {
            let kept = if is_number(c) && self.digits == Keep::Remove {
                None
            } else if self.punctuation == Keep::Keep || !is_punctuation(c) {
                Some(c)
            } else {
                let is_inside = is_after_word && letters.peek().is_some_and(|next| self.is_word(*next));
                Some(plain_sign(c)).filter(|sign| is_inside && self.inside_words.contains(*sign))
            };
            is_after_word = kept.is_some_and(|c| self.is_word(c));
            clean.push(kept.unwrap_or(' '));
        }
        clean
    }

    fn is_word(&self, c: char) -> bool {
        use GeneralCategoryGroup::{Letter, Mark};
        matches!(c.general_category_group(), Letter | Mark) || is_number(c) && self.digits == Keep::Keep
    }
}

/// The apostrophe and the hyphen of a keyboard for those of typography.
fn plain_sign(c: char) -> char {
    match c {
        '\u{2019}' => '\'',
        '\u{2010}' | '\u{2011}' => '-',
        c => c,
    }
}

fn is_punctuation(c: char) -> bool {
    matches!(c.general_category_group(), GeneralCategoryGroup::Punctuation | GeneralCategoryGroup::Symbol)
}

fn is_number(c: char) -> bool {
    c.general_category_group() == GeneralCategoryGroup::Number
}

/// Formats, controls that are no white space, variation selectors.
fn is_invisible(c: char) -> bool {
    match c.general_category() {
        GeneralCategory::Format => true,
        GeneralCategory::Control => !c.is_whitespace(),
        _ => matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{34f}' | '\u{180b}'..='\u{180f}' | '\u{e0100}'..='\u{e01ef}'),
    }
}

/// Replaces notes by a space: what stands between two brackets of a kind, other brackets inside included. `<` opens a note only
/// before a character that is no space, so that `a < b` stays.
fn without_notes(text: &str) -> String {
    const KINDS: [(char, char); 3] = [('[', ']'), ('<', '>'), ('(', ')')];
    let mut clean = String::with_capacity(text.len());
    // Kind and place of the brackets that are open, and how many of each kind.
    let (mut open, mut num_open) = (Vec::new(), [0; KINDS.len()]);
    let mut letters = text.chars().peekable();
    while let Some(c) = letters.next() {
        if let Some(kind) = KINDS.iter().position(|(opening, _)| *opening == c) {
            if c != '<' || letters.peek().is_some_and(|next| !next.is_whitespace()) {
                open.push((kind, clean.len()));
                num_open[kind] += 1;
            }
        } else if let Some(kind) =
            KINDS.iter().position(|(_, closing)| *closing == c).filter(|kind| num_open[*kind] > 0)
        {
            while let Some((opened, start)) = open.pop() {
                num_open[opened] -= 1;
                if opened == kind {
                    clean.truncate(start);
                    break;
                }
            }
            clean.push(' ');
            continue;
        }
        clean.push(c);
    }
    clean
}

/// Single spaces, none at the ends.
fn collapse(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preset(name: &str) -> Normaliser {
        Normaliser::named(name).expect(name)
    }

    fn check(name: &str, text: &str, wanted: &str) {
        assert_eq!(preset(name).apply(text), wanted, "{name}: {text}");
    }

    #[test]
    fn every_preset_knows_its_name() {
        for name in Normaliser::NAMES {
            assert_eq!(preset(name).name(), name);
            assert_eq!(preset(name).check(), vec![]);
        }
        assert_eq!(Normaliser { case: Case::Upper, ..preset("ctc") }.name(), "custom");
        assert_eq!(Normaliser::named("auto"), None);
    }

    #[test]
    fn none_changes_nothing_but_white_space() {
        check("none", "  Don't\u{200b} [noise]\n 3,5%\u{a0}e\u{301}! ", "Don't\u{200b} [noise] 3,5% e\u{301}!");
    }

    #[test]
    fn czech_letters_are_composed_and_lowered() {
        check("ctc", "Pr\u{30c}i\u{301}lis\u{30c} Žluťoučký kůň, 3x.", "příliš žluťoučký kůň 3x");
        check("ctc", "ŘEKL: „AHOJ“ – A ŠEL…", "řekl ahoj a šel");
    }

    #[test]
    fn devanagari_keeps_its_marks_and_both_nuktas_are_one() {
        // U+0958 and U+0915 U+093C are the same letter; NFC writes the second.
        check("ctc", "\u{958}लम। कहाँ, हैं?", "\u{915}\u{93c}लम कहाँ हैं");
        check("ctc", "\u{915}\u{93c}लम", "\u{915}\u{93c}लम");
        check("whisper_basic", "हिन्दी।", "हिन्दी");
    }

    #[test]
    fn bengali_vowels_and_letters_with_a_dot_are_one() {
        check("ctc", "\u{9a6}\u{9c7}\u{9be}\u{9df}া", "\u{9a6}\u{9cb}\u{9af}\u{9bc}া");
        check("ctc", "ক\u{9cd}\u{200d}ষ", "ক\u{9cd}ষ");
    }

    #[test]
    fn turkish_needs_its_own_lower_case() {
        let turkic = Normaliser { case: Case::LowerTurkic, ..preset("ctc") };
        assert_eq!(turkic.apply("ISPARTA'DA İYİ I\u{307}Yİ"), "ısparta'da iyi iyi");
        check("ctc", "IŞIK İ", "işik i\u{307}");
    }

    #[test]
    fn arabic_loses_its_punctuation_and_keeps_its_vowels() {
        check("ctc", "مَرْحَبًا، كيف الحال؟", "مَرْحَبًا كيف الحال");
        check("ctc", "\u{202b}می\u{200c}خواهم\u{202c}", "میخواهم");
    }

    #[test]
    fn han_is_cut_at_its_punctuation() {
        check("ctc", "你好，世界。", "你好 世界");
        check("whisper_basic", "ＡＢＣ　１２３", "abc 123");
    }

    #[test]
    fn the_last_sigma_of_a_greek_word_is_its_own_letter() {
        check("ctc", "ΟΔΟΣ", "οδος");
    }

    #[test]
    fn apostrophes_stay_inside_words_only() {
        check("ctc", "'Don\u{2019}t' say dogs' o'clock", "don't say dogs o'clock");
        check("whisper_basic", "Don't", "don t");
        let hyphen = Normaliser { inside_words: "'-".to_owned(), ..preset("ctc") };
        assert_eq!(hyphen.apply("well\u{2011}known - re-re-do -- x-"), "well-known re-re-do x");
    }

    #[test]
    fn digits_go_when_asked() {
        let without = Normaliser { digits: Keep::Remove, ..preset("ctc") };
        assert_eq!(without.apply("a'5 b6c ½ ٣ x"), "a b c x");
        check("ctc", "1,5 kg", "1 5 kg");
        let signs_stay = Normaliser { punctuation: Keep::Keep, ..without };
        assert_eq!(signs_stay.apply("5%, o'k!"), "%, o'k!");
    }

    #[test]
    fn notes_go_and_lone_brackets_are_punctuation() {
        check("ctc", "[noise] yes <unk>(laughs) no", "yes no");
        check("ctc", "a < b and c > d", "a b and c d");
        check("ctc", "open [ here ( and <there", "open here and there");
        let kept = Normaliser { punctuation: Keep::Keep, ..preset("ctc") };
        assert_eq!(kept.apply("a < b > c [x [y] z (a (b) c)"), "a < b > c [x z");
    }

    #[test]
    fn upper_case_is_for_published_vocabularies() {
        let upper = Normaliser { case: Case::Upper, ..preset("ctc") };
        assert_eq!(upper.apply("straße it's"), "STRASSE IT'S");
    }

    #[test]
    fn twice_is_the_same_as_once() {
        let texts = [
            "'Don\u{2019}t' [no[ise] a] 5'5 İ \u{958}",
            "ﬁ ①(a(b)c) \u{200d}\u{ad}-x-",
            "«ABC»' d'\u{301}e",
            "\u{1e9e}\u{345}\u{3d2}\u{308} <a<b>c>",
        ];
        for name in Normaliser::NAMES {
            for case in [Case::Lower, Case::LowerTurkic, Case::Upper, Case::Keep] {
                let normaliser = Normaliser { case, ..preset(name) };
                for text in texts {
                    let once = normaliser.apply(text);
                    assert_eq!(normaliser.apply(&once), once, "{name} {case:?} {text}");
                }
            }
        }
    }

    #[test]
    fn odd_input_gives_little_or_nothing() {
        check("ctc", "", "");
        check("ctc", " \u{0}\u{feff}...[ ]", "");
        for text in ["[", "(]", "[)", "<a>"] {
            assert_eq!(preset("ctc").apply(&text.repeat(100_000)), "");
        }
    }

    #[test]
    fn a_letter_to_be_kept_inside_words_is_a_mistake() {
        let wrong = Normaliser { inside_words: "'x".to_owned(), ..preset("ctc") };
        let found = wrong.check();
        assert!(found[0].0 == "inside_words" && found[0].1.contains("`x`"), "{found:?}");
    }

    #[test]
    fn keys_are_checked_and_choices_have_no_default() {
        let read = |text: &str| serde_json::from_str::<Normaliser>(text).map_err(|error| error.to_string());
        let short = read(r#"{"case": "lower", "punctuation": "remove", "digits": "keep"}"#);
        assert_eq!(short, Ok(preset("ctc")));
        assert!(read(r#"{"punctuation": "remove", "digits": "keep"}"#).expect_err("no case").contains("case"));
        assert!(read(r#"{"cases": "lower"}"#).expect_err("misspelt").contains("cases"));
    }
}
