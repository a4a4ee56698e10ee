//! Lists and archives of utterances.

use std::fs;
use std::io;
use std::path::Path;

use arcuate_data::Progress;
use arcuate_data::speech::{
    Limits, SpeechFormat, SpeechSourceConfig, Utterances, common_voice, fairseq, kaldi, nemo, webdataset,
};
use tempfile::TempDir;

const RATE: u32 = 16_000;
/// A sound for the lists to name.
const SOUND: &str = "a.wav";
/// Between the files of a folder that is made of one input.
const BETWEEN: u8 = 0x1e;

thread_local! {
    /// One folder for all inputs of a thread.
    static FOLDER: TempDir = TempDir::new().expect("a temporary folder");
}

/// A twentieth of a second of a tone.
fn wav() -> Vec<u8> {
    let samples: Vec<u8> = (0..800i32).flat_map(|at| ((at * 700 % 16_000 - 8000) as i16).to_le_bytes()).collect();
    let len = samples.len() as u32;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + len).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend(RATE.to_le_bytes());
    bytes.extend((RATE * 2).to_le_bytes());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend(len.to_le_bytes());
    bytes.extend(samples);
    bytes
}

/// Writes the files, opens them as a list, and loads what it lists.
fn open(files: &[(&str, &[u8])], format: impl Fn(String) -> SpeechFormat) {
    FOLDER.with(|folder| {
        let at = |name: &str| folder.path().join(name);
        let write = |name: &str, bytes: &[u8]| fs::write(at(name), bytes).expect("a temporary folder can be written");
        write(SOUND, &wav());
        files.iter().for_each(|(name, bytes)| write(name, bytes));
        let source = SpeechSourceConfig::new(format(at(files[0].0).display().to_string()));
        let opened = Utterances::open("a", &source, u64::MAX, &Progress::none());
        if let Ok(utterances) = opened {
            let limits = Limits { max_seconds: 10.0, max_decoded_bytes: 1 << 22, ..Limits::default() };
            for (index, utterance) in utterances.iter().enumerate().take(16) {
                assert!(utterance.seconds > 0.0, "{utterance:?}");
                let _ = utterances.load(index, RATE, &limits);
            }
        }
        files.iter().for_each(|(name, _)| fs::remove_file(at(name)).expect("it was written"));
    });
}

pub(crate) fn nemo(bytes: &[u8]) {
    open(&[("m.jsonl", bytes)], |path| SpeechFormat::Nemo(nemo::Config { path }));
}

pub(crate) fn nemo_seeds(_: &Path) -> io::Result<Vec<Vec<u8>>> {
    let line = "{\"audio_filepath\": \"a.wav\", \"duration\": 0.05, \"offset\": 0, \"text\": \"dobrý den\", \"speaker\": 1, \"lang\": \"cs\", \"id\": \"x\"}\n";
    let short = "{\"audio_filepath\": \"a.wav\"}\n";
    Ok(vec![line.repeat(2).into_bytes(), short.into(), format!("\u{feff}{short}\r\n{line}").into_bytes()])
}

/// A table, and the lengths of clips behind it.
pub(crate) fn common_voice(bytes: &[u8]) {
    let (table, lengths) =
        bytes.iter().position(|byte| *byte == BETWEEN).map_or((bytes, &b""[..]), |at| (&bytes[..at], &bytes[at + 1..]));
    open(&[("t.tsv", table), ("clip_durations.tsv", lengths)], |path| {
        SpeechFormat::CommonVoice(common_voice::Config { path, clips: ".".to_owned() })
    });
}

pub(crate) fn common_voice_seeds(_: &Path) -> io::Result<Vec<Vec<u8>>> {
    let table = "client_id\tpath\tsentence\tlocale\nx\ta.wav\tdobrý den\tcs\ny\ta\tano\tcs\n";
    let lengths = "clip\tduration[ms]\na.wav\t50\n";
    Ok(vec![table.into(), format!("{table}\u{1e}{lengths}").into_bytes()])
}

/// A table, and the transcripts behind it.
pub(crate) fn fairseq(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == BETWEEN);
    let (table, labels) = at.map_or((bytes, None), |at| (&bytes[..at], Some(&bytes[at + 1..])));
    let files: Vec<(&str, &[u8])> =
        [("t.tsv", table)].into_iter().chain(labels.map(|labels| ("t.ltr", labels))).collect();
    open(&files, |path| {
        let labels = labels.map(|_| fairseq::Labels::Ltr);
        SpeechFormat::Fairseq(fairseq::Config { path, labels, sample_rate_hz: RATE })
    });
}

pub(crate) fn fairseq_seeds(_: &Path) -> io::Result<Vec<Vec<u8>>> {
    Ok(vec![b".\na.wav\t800\na.wav\t800\n".to_vec(), b".\na.wav\t800\n\x1eA N O |\n".to_vec()])
}

/// The files of a folder one behind the other.
pub(crate) fn kaldi(bytes: &[u8]) {
    const NAMES: [&str; 6] = ["wav.scp", "text", "utt2spk", "segments", "utt2dur", "utt2lang"];
    let files: Vec<(&str, &[u8])> = NAMES.into_iter().zip(bytes.split(|byte| *byte == BETWEEN)).collect();
    open(&files, |path| SpeechFormat::Kaldi(kaldi::Config { path, audio_folder: None }));
}

pub(crate) fn kaldi_seeds(_: &Path) -> io::Result<Vec<Vec<u8>>> {
    Ok(vec![
        b"r1 a.wav\nr2 a.wav\n".to_vec(),
        b"r1 a.wav\n\x1eu1 ano\nu2 ne\n\x1eu1 s\nu2 s\n\x1eu1 r1 0 0.02\nu2 r1 0.02 -1\n\x1eu1 0.02\n\x1eu1 cs\n"
            .to_vec(),
        b"r1 sox a.wav -t wav - |\nr2 a.wav\n".to_vec(),
    ])
}

/// An archive of sounds and texts.
pub(crate) fn tar(bytes: &[u8]) {
    open(&[("1.tar", bytes)], |path| {
        SpeechFormat::Webdataset(webdataset::Config { path, text_key: "text".to_owned() })
    });
}

pub(crate) fn tar_seeds(_: &Path) -> io::Result<Vec<Vec<u8>>> {
    let sound = wav();
    let pax = b"17 path=x/b.json\n";
    let members = [
        member("a.wav", b'0', &sound),
        member("a.txt", b'0', b"ano"),
        member("", b'x', pax),
        member("b.json", b'0', b"{\"text\": \"ne\", \"duration\": 0.05}"),
        member("x/b.wav", b'0', &sound),
        member("././@LongLink", b'L', b"a/long/name.wav\0"),
        member("short.wav", b'0', &sound),
    ];
    Ok(vec![[members.concat(), vec![0; 1024]].concat(), members[0].clone()])
}

/// A header of ustar with its content.
fn member(name: &str, kind: u8, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}
