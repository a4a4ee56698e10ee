//! Tests of reading and asking n-gram models.

use super::*;
use std::path::PathBuf;

/// The bigram model of `a b` and `a c` with fallback discounts, computed by hand.
const HAND: &str = "\\data\\
ngram 1=6
ngram 2=5

\\1-grams:
-1\t<unk>\t0
0\t<s>\t-0.30103
-0.5228787\t</s>\t0
-0.69897\ta\t-0.30103
-0.69897\tb\t-0.30103
-0.69897\tc\t-0.30103

\\2-grams:
-0.2218487\t<s> a
-0.4559320\ta b
-0.4559320\ta c
-0.1870866\tb </s>
-0.1870866\tc </s>

\\end\\
";

fn read(text: &str) -> Result<Ngram> {
    arpa::read(text.as_bytes(), Path::new("test.arpa"))
}

fn check_error(text: &str, line: u64, section: &str, part: &str) {
    match read(text).expect_err("wrong") {
        Error::Arpa { line: found_line, section: found_section, message, path } => {
            assert_eq!(path, PathBuf::from("test.arpa"));
            assert!(message.contains(part), "{message}");
            assert_eq!((found_line, found_section.as_str()), (line, section), "{message}");
        }
        other => panic!("{other}"),
    }
}

#[track_caller]
fn near(found: f32, wanted: f32) {
    assert!((found - wanted).abs() < 1e-5, "{found} is not {wanted}");
}

#[test]
fn the_hand_model_scores_its_sentences() {
    let model = read(HAND).expect("reads");
    assert_eq!((model.order(), model.num_words(), model.num_ngrams(2)), (2, 6, 5));
    near(model.sentence(&["a", "b"]), -0.864_867);
    let after_a = model.score(&model.begin(), model.word("a").expect("known")).1;
    for (word, wanted) in [("a", 0.1_f32), ("b", 0.35), ("</s>", 0.15), ("<unk>", 0.05)] {
        near(model.score(&after_a, model.word(word).expect("known")).0, wanted.log10());
    }
    near(model.end(&after_a), 0.15_f32.log10());
    near(model.score(&model.empty(), model.word("a").expect("known")).0, 0.2_f32.log10());
    assert_eq!(model.word("d"), None);
    assert_eq!(model.score(&after_a, 1_000_000).0, model.score(&after_a, model.unknown()).0);
}

#[test]
fn states_hold_only_what_can_matter() {
    let model = read(HAND).expect("reads");
    let after = |word: &str| model.score(&model.begin(), model.word(word).expect("known")).1;
    assert_eq!(after("a").words(), [model.word("a").expect("known")]);
    assert_eq!(after("<unk>"), model.empty(), "nothing begins with it");
    assert_eq!(after("</s>"), model.empty());
}

#[test]
fn words_are_listed_by_number() {
    let model = read(HAND).expect("reads");
    let words: Vec<&str> = model.words().expect("an ARPA file has them").collect();
    assert_eq!(words, ["<unk>", "<s>", "</s>", "a", "b", "c"]);
}

#[test]
fn rows_without_a_row_for_their_end_or_history_are_used() {
    let text = "\\data\\\nngram 1=6\nngram 2=1\nngram 3=1\nngram 4=1\n\n\\1-grams:\n-1 <unk>\n-9 <s> -0.5\n-1 </s>\n\
        -1 a -0.25\n-2 b -0.125\n-1 c\n\n\\2-grams:\n-0.5 a b -0.0625\n\n\\3-grams:\n-0.3 a b c\n\n\\4-grams:\n\
        -0.1 a c b a\n\\end\\\n";
    let model = read(text).expect("reads");
    let id = |word: &str| model.word(word).expect("known");
    let walk =
        |words: &[&str]| words.iter().fold((0.0, model.empty()), |(_, state), word| model.score(&state, id(word)));
    near(walk(&["a", "b", "c"]).0, -0.3);
    near(walk(&["a", "c", "b", "a"]).0, -0.1);
    near(walk(&["b", "c"]).0, -1.125);
    near(walk(&["a", "c"]).0, -1.25);
    near(walk(&["a", "c", "b"]).0, -2.0);
    near(walk(&["b", "a"]).0, -1.125);
    near(walk(&["a", "b", "a"]).0, -1.0 - 0.125 - 0.0625);
}

#[test]
fn a_unigram_model_has_no_states() {
    let model = read("\\data\\\nngram 1=3\n\\1-grams:\n-1 <unk>\n-9 <s>\n-0.5 </s>\n\\end\\\n").expect("reads");
    assert_eq!(model.begin(), model.empty());
    near(model.sentence(&["x", "y"]), -2.5);
}

#[test]
fn compressed_files_are_read_by_their_content() {
    use std::io::Write;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(HAND.as_bytes()).expect("writes");
    let zstd = zstd::encode_all(HAND.as_bytes(), 1).expect("packs");
    for bytes in [HAND.as_bytes().to_vec(), gzip.finish().expect("packs"), zstd] {
        std::fs::write(&path, &bytes).expect("writes");
        near(Ngram::load(&path).expect("reads").sentence(&["a", "c"]), -0.864_867);
        std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("writes");
        Ngram::load(&path).expect_err("cut off");
    }
}

#[test]
fn wrong_files_are_reported_by_section_and_line() {
    let with = |old: &str, new: &str| {
        assert!(HAND.contains(old), "{old}");
        HAND.replacen(old, new, 1)
    };
    let unigrams = "`\\1-grams:`";
    let bigrams = "`\\2-grams:`";
    check_error(&with("ngram 2=5", "ngram 2=6"), 20, bigrams, "5 rows, but the header promises 6");
    check_error(&with("-1\t<unk>\t0\n", ""), 12, unigrams, "5 rows");
    check_error(&with("-1\t<unk>\t0", "-1\tx\t0"), 13, unigrams, "`<unk>` is missing");
    check_error(&with("\t</s>\t0", "\tx\t0"), 13, unigrams, "`</s>` is missing");
    check_error(&with("-0.4559320\ta b", "0.1\ta b"), 15, bigrams, "above zero");
    check_error(&with("-0.4559320\ta b", "nan\ta b"), 15, bigrams, "`nan` is not a finite number");
    check_error(&with("a\t-0.30103", "a\tinf"), 9, unigrams, "`inf` is not a finite number");
    check_error(&with("-0.4559320\ta b", "x\ta b"), 15, bigrams, "`x` is not a number");
    check_error(&with("a c", "a b"), 16, bigrams, "a second row for `a b`");
    check_error(&with("\tc\t", "\tb\t"), 11, unigrams, "a second row for `b`");
    check_error(&with("a c", "a d"), 16, bigrams, "`d` has no row");
    check_error(&with("a c", "a"), 16, bigrams, "1 words where an n-gram has 2");
    check_error(&with("a c", "a c -0.5 7"), 16, bigrams, "more than");
    check_error(&with("a c", "a c -0.5"), 16, bigrams, "highest order");
    check_error(&with("\\2-grams:", "\\3-grams:"), 13, unigrams, "`\\2-grams:` must follow");
    check_error(&with("\\end\\\n", ""), 19, bigrams, "ends after 5 rows");
    check_error(&with("ngram 2=5", "ngram 3=5"), 3, "`\\data\\`", "`ngram 2=`");
    check_error("some text\n", 1, "before `\\data\\`", "no line `\\data\\`");
    check_error("", 0, "before `\\data\\`", "no line `\\data\\`");
    check_error("\\data\\\n", 1, "`\\data\\`", "ends in its header");
    let orders: String = (1..10).map(|order| format!("ngram {order}=1\n")).collect();
    check_error(&format!("\\data\\\n{orders}"), 10, "`\\data\\`", "8 is the most");
    let mut bytes = HAND.as_bytes().to_vec();
    let at = bytes.iter().position(|byte| *byte == b'c').expect("a c");
    bytes[at] = 0xff;
    let error = arpa::read(&bytes[..], Path::new("x")).expect_err("no text").to_string();
    assert!(error.contains("line 11") && error.contains("not UTF-8"), "{error}");
}
