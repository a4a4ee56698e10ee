//! Language models, and tiers of transcripts.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use arcuate_text::ngram::Ngram;
use arcuate_text::transcript::{Format, Segment, Tier, Transcript, Word, read_eaf, read_textgrid};
use flate2::read::GzDecoder;
use tempfile::TempDir;

thread_local! {
    /// One folder for all inputs of a thread.
    static FOLDER: TempDir = TempDir::new().expect("a temporary folder");
}

/// A model that can be read must score.
pub(crate) fn ngram(bytes: &[u8]) {
    FOLDER.with(|folder| {
        let path = folder.path().join("model");
        fs::write(&path, bytes).expect("a temporary folder can be written");
        let Ok(model) = Ngram::load(&path) else { return };
        let (_, state) = model.score(&model.begin(), model.unknown());
        assert!(!model.end(&state).is_nan());
        assert!(!model.sentence(&["the", "of", "\u{10ffff}", "", "the"]).is_nan());
    });
}

fn unpacked(root: &Path, names: &[&str]) -> io::Result<Vec<Vec<u8>>> {
    let one = |name: &&str| {
        let mut bytes = Vec::new();
        GzDecoder::new(File::open(root.join("crates/arcuate-text/tests/ngram").join(name))?).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    names.iter().map(one).collect()
}

pub(crate) fn arpa_seeds(root: &Path) -> io::Result<Vec<Vec<u8>>> {
    let small = "\\data\\\nngram 1=4\nngram 2=3\n\n\\1-grams:\n-1\t<unk>\t0\n-99\t<s>\t-0.3\n-1\t</s>\t0\n-0.5\tthe\t-0.2\n\n\\2-grams:\n-0.4\t<s> the\n-0.3\tthe the\n-0.6\tthe </s>\n\n\\end\\\n";
    let mut seeds = unpacked(root, &["unigram.arpa.gz"])?;
    seeds.push(small.into());
    Ok(seeds)
}

pub(crate) fn kenlm_seeds(root: &Path) -> io::Result<Vec<Vec<u8>>> {
    let names = ["probing.bin.gz", "probing_no_words.bin.gz", "rest_probing.bin.gz", "trie.bin.gz"];
    let more = ["trie_array.bin.gz", "trie_quantized.bin.gz", "trie_quantized_array.bin.gz"];
    unpacked(root, &[&names[..], &more[..]].concat())
}

pub(crate) fn textgrid(bytes: &[u8]) {
    let Ok(tiers) = read_textgrid(bytes) else { return };
    written_can_be_read(tiers, Format::TextGrid, |text| read_textgrid(text).is_ok());
}

pub(crate) fn textgrid_seeds(_: &Path) -> io::Result<Vec<Vec<u8>>> {
    let long = transcript().to_text(Format::TextGrid);
    let short = "File type = \"ooTextFile\"\nObject class = \"TextGrid\"\n\n0\n2\n<exists>\n1\n\"TextTier\"\n\"points\"\n0\n2\n1\n1.5\n\"a \"\"b\"\"\"\n";
    let wide = long.encode_utf16().flat_map(u16::to_be_bytes);
    Ok(vec![long.clone().into(), short.into(), [0xfe, 0xff].into_iter().chain(wide).collect()])
}

pub(crate) fn eaf(bytes: &[u8]) {
    let Ok(tiers) = read_eaf(bytes) else { return };
    written_can_be_read(tiers, Format::Eaf, |text| read_eaf(text).is_ok());
}

pub(crate) fn eaf_seeds(_: &Path) -> io::Result<Vec<Vec<u8>>> {
    Ok(vec![transcript().to_text(Format::Eaf).into()])
}

/// What was read can be written in every form, and read again.
fn written_can_be_read(tiers: Vec<Tier>, format: Format, reads: impl Fn(&[u8]) -> bool) {
    for tier in tiers.into_iter().take(4) {
        let transcript = Transcript { audio: "a.wav".to_owned(), segments: tier.segments, ..Transcript::default() };
        for other in Format::ALL {
            let text = transcript.to_text(other);
            assert!(other != format || reads(text.as_bytes()), "{text}");
        }
    }
}

fn transcript() -> Transcript {
    let word = |start_seconds, text: &str| {
        let (end_seconds, text) = (start_seconds + 0.4, text.to_owned());
        Word { start_seconds, end_seconds, text, confidence: Some(0.5) }
    };
    let segment = |start_seconds, speaker: Option<&str>| Segment {
        start_seconds,
        end_seconds: start_seconds + 1.0,
        text: "dobrý <den> & \"ano\"".to_owned(),
        speaker: speaker.map(str::to_owned),
        confidence: Some(0.5),
        words: vec![word(start_seconds, "dobrý"), word(start_seconds + 0.5, "<den>")],
    };
    let segments = vec![segment(0.25, Some("A")), segment(1.5, None), segment(2.0, Some("B"))];
    Transcript { audio: "a.wav".to_owned(), duration_seconds: 4.0, language: Some("cs".to_owned()), segments }
}
