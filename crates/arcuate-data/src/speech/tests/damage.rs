//! Damaged lists never end the program: every byte may be wrong, and the answer is an utterance or a refusal.

use super::*;

/// Numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    /// Changes, removes, doubles or inserts some bytes.
    fn damaged(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 => bytes[at] = self.below(256) as u8,
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes.truncate(at.max(1)),
                3 => {
                    let end = (at + self.below(64)).min(bytes.len());
                    let copy = bytes[at..end].to_vec();
                    bytes.splice(at..at, copy);
                }
                _ => {
                    let insert = [0, b'\n', b'\t', b'"', 0xff, b'9'][self.below(6)];
                    bytes.insert(at, insert);
                }
            }
        }
        bytes
    }
}

/// Opens damaged copies of a file, and loads what they still list.
fn survives(seed: u64, rounds: usize, name: &str, bytes: &[u8], format: impl Fn(String) -> SpeechFormat) {
    let folder = Folder::new();
    folder.write("a.wav", wav(&sine(0.05)));
    let mut dice = Dice(seed);
    let mut opened = 0;
    for _ in 0..rounds {
        folder.write(name, dice.damaged(bytes));
        let Ok(utterances) = open_with(format(folder.at(name)), u64::MAX) else { continue };
        opened += 1;
        let limits = Limits { max_seconds: 10.0, max_decoded_bytes: 1 << 22, ..Limits::default() };
        for (index, utterance) in utterances.iter().enumerate() {
            assert!(utterance.seconds > 0.0, "{utterance:?}");
            let _ = utterances.load(index, RATE, &limits);
        }
    }
    assert!(opened > 0, "some damage is harmless");
}

#[test]
fn damaged_manifests_are_refused_or_read() {
    let line =
        "{\"audio_filepath\": \"a.wav\", \"duration\": 0.05, \"offset\": 0, \"text\": \"dobrý den\", \"speaker\": 1}\n";
    survives(1, 400, "m.jsonl", line.repeat(3).as_bytes(), nemo);
    let table = "client_id\tpath\tsentence\tlocale\nx\ta.wav\tdobrý den\tcs\ny\ta\tano\tcs\n";
    survives(2, 400, "t.tsv", table.as_bytes(), |path| {
        SpeechFormat::CommonVoice(common_voice::Config { path, clips: ".".to_owned() })
    });
    survives(3, 400, "t.tsv", b".\na.wav\t800\na.wav\t800\n", |path| {
        SpeechFormat::Fairseq(fairseq::Config { path, labels: None, sample_rate_hz: RATE })
    });
    survives(4, 400, "wav.scp", b"r1 a.wav\nr2 a.wav\n", |path| {
        SpeechFormat::Kaldi(kaldi::Config { path, audio_folder: None })
    });
}

#[test]
fn damaged_archives_are_refused_or_read() {
    let sound = wav(&sine(0.01));
    let pax = b"17 path=x/b.json\n";
    let bytes = tar(&[
        tar_member("a.wav", &sound),
        tar_member("a.txt", b"ano"),
        [tar_header("", b'x', pax.len() as u64), [&pax[..], &[0; 495]].concat()].concat(),
        tar_member("b.json", b"{\"text\": \"ne\", \"duration\": 0.01}"),
        tar_member("x/b.wav", &sound),
    ]);
    survives(5, 400, "1.tar", &bytes, |path| {
        SpeechFormat::Webdataset(webdataset::Config { path, text_key: "text".to_owned() })
    });
}

#[test]
fn damaged_tables_are_refused_or_read() {
    let sound = || Some(wav(&sine(0.01)));
    let bytes = table(&[&[(sound(), "a.wav", Some("ano"), 0.01), (sound(), "b.wav", None, 0.01)]]);
    for (seed, seconds_column) in [(6, None), (7, Some("seconds".to_owned()))] {
        survives(seed, 200, "t.parquet", &bytes, |path| {
            SpeechFormat::Parquet(parquet::Config {
                path,
                audio_column: "audio".to_owned(),
                text_column: Some("text".to_owned()),
                id_column: None,
                speaker_column: None,
                language_column: None,
                seconds_column: seconds_column.clone(),
            })
        });
    }
}
