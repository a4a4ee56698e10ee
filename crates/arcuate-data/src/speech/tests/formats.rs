//! What each reader makes of a small sound data set.

use super::*;

fn listed(utterances: &Utterances) -> Vec<(String, f64, Option<String>)> {
    utterances.iter().map(|one| (one.id, (one.seconds * 1000.0).round() / 1000.0, one.transcript)).collect()
}

fn said(id: &str, seconds: f64, text: &str) -> (String, f64, Option<String>) {
    (id.to_owned(), seconds, Some(text.to_owned()))
}

fn unsaid(id: &str, seconds: f64) -> (String, f64, Option<String>) {
    (id.to_owned(), seconds, None)
}

#[test]
fn nemo_manifests_give_files_and_stretches() {
    let folder = Folder::new();
    folder.write("wav/a.wav", wav(&sine(1.0)));
    let lines = [
        r#"{"audio_filepath": "wav/a.wav", "duration": 1.0, "text": "dobrý den", "speaker": "eva", "lang": "cs", "id": 12}"#,
        r#"{"audio_filepath": "wav/a.wav", "offset": 0.25, "duration": 0.5}"#,
        "",
        r#"{"audio_filepath": "wav/a.wav", "offset": 0.5}"#,
        r#"{"audio_filepath": "wav/a.wav"}"#,
    ];
    folder.write("m.jsonl", "\u{feff}".to_owned() + &lines.join("\n"));
    let utterances = open(nemo(folder.at("m.jsonl")));
    let expected = [
        said("12", 1.0, "dobrý den"),
        unsaid("wav/a.wav#0.25", 0.5),
        unsaid("wav/a.wav#0.5", 0.5),
        unsaid("wav/a.wav", 1.0),
    ];
    assert_eq!(listed(&utterances), expected);
    let first = utterances.get(0);
    assert_eq!((first.speaker.as_deref(), first.language.as_deref()), (Some("eva"), Some("cs")));
    let path = folder.path().join("wav/a.wav");
    let stretch = |start_seconds, seconds| SoundRef::File { path: path.clone(), start_seconds, seconds };
    assert_eq!(first.sound, stretch(0.0, None));
    assert_eq!(utterances.get(1).sound, stretch(0.25, Some(0.5)));
    assert_eq!(utterances.get(2).sound, stretch(0.5, None));
    assert!(utterances.get(2).place.ends_with("m.jsonl:4"));
}

#[test]
fn the_language_of_the_source_fills_gaps() {
    let folder = Folder::new();
    folder.write("a.wav", wav(&sine(0.2)));
    folder.write("m.jsonl", "{\"audio_filepath\": \"a.wav\"}\n{\"audio_filepath\": \"./a.wav\", \"lang\": \"sk\"}\n");
    let source =
        SpeechSourceConfig { language: Some("cs".to_owned()), ..SpeechSourceConfig::new(nemo(folder.at("m.jsonl"))) };
    let utterances = Utterances::open("a", &source, 0, &Progress::none()).expect("good data");
    let languages: Vec<Option<String>> = utterances.iter().map(|one| one.language).collect();
    assert_eq!(languages, [Some("cs".to_owned()), Some("sk".to_owned())]);
}

fn common_voice(path: String) -> SpeechFormat {
    SpeechFormat::CommonVoice(common_voice::Config { path, clips: "clips".to_owned() })
}

#[test]
fn common_voice_tables_are_read_by_their_header() {
    let folder = Folder::new();
    for clip in ["a.wav", "b.wav"] {
        folder.write(&format!("clips/{clip}"), wav(&sine(0.5)));
    }
    let table = "up_votes\tsentence\tpath\tlocale\tclient_id\n2\tŘekl: \"Ne.\ta.wav\tcs\te7\n0\tAno\tb.wav\t\t\n";
    folder.write("validated.tsv", table);
    folder.write("clip_durations.tsv", "clip\tduration[ms]\nb.wav\t480\n");
    let utterances = open(common_voice(folder.at("validated.tsv")));
    assert_eq!(listed(&utterances), [said("a.wav", 0.5, "Řekl: \"Ne."), said("b.wav", 0.48, "Ano")]);
    let (first, second) = (utterances.get(0), utterances.get(1));
    assert_eq!((first.speaker.as_deref(), first.language.as_deref()), (Some("e7"), Some("cs")));
    assert_eq!((second.speaker, second.language), (None, None));
}

fn kaldi(path: String) -> SpeechFormat {
    SpeechFormat::Kaldi(kaldi::Config { path, audio_folder: None })
}

#[test]
fn kaldi_folders_join_their_tables() {
    let folder = Folder::new();
    folder.write("wav/a.wav", wav(&sine(2.0)));
    folder.write("wav.scp", "rec1 wav/a.wav\n");
    folder.write("text", "u1 dobrý den\nrec1 všechno\n");
    folder.write("utt2spk", "u1 eva\nu2 jan\n");
    folder.write("utt2lang", "u1 cs\n");
    let whole = open(kaldi(folder.at("")));
    assert_eq!(listed(&whole), [said("rec1", 2.0, "všechno")]);
    folder.write("segments", "u1 rec1 0.5 1.25\nu2 rec1 1.25 -1\n");
    let utterances = open(kaldi(folder.at("wav.scp")));
    assert_eq!(listed(&utterances), [said("u1", 0.75, "dobrý den"), unsaid("u2", 0.75)]);
    let (first, second) = (utterances.get(0), utterances.get(1));
    assert_eq!((first.speaker.as_deref(), first.language.as_deref()), (Some("eva"), Some("cs")));
    assert_eq!((first.group.as_str(), second.group.as_str()), ("wav/a.wav", "wav/a.wav"));
    assert!(matches!(second.sound, SoundRef::File { start_seconds: 1.25, seconds: None, .. }));
    assert!(second.place.ends_with("segments:2"));
}

#[test]
fn fairseq_manifests_take_the_labels_beside_them() {
    let folder = Folder::new();
    folder.write("sound/a.wav", wav(&sine(0.5)));
    folder.write("sound/b.wav", wav(&sine(0.25)));
    folder.write("train.tsv", "sound\na.wav\t8000\nb.wav\t4000\n");
    folder.write("train.ltr", "D O B R Ý | D E N |\nA N O |\n");
    folder.write("train.phn", "d o\na n o\n");
    let config =
        |labels| SpeechFormat::Fairseq(fairseq::Config { path: folder.at("train.tsv"), labels, sample_rate_hz: RATE });
    let letters = open(config(Some(fairseq::Labels::Ltr)));
    assert_eq!(listed(&letters), [said("a.wav", 0.5, "DOBRÝ DEN"), said("b.wav", 0.25, "ANO")]);
    assert_eq!(open(config(Some(fairseq::Labels::Phn))).get(1).transcript.as_deref(), Some("a n o"));
    assert_eq!(listed(&open(config(None))), [unsaid("a.wav", 0.5), unsaid("b.wav", 0.25)]);
}

fn in_folder(path: String) -> SpeechFormat {
    SpeechFormat::Folder(folder::Config { path })
}

#[test]
fn a_folder_pairs_sounds_and_texts() {
    let folder = Folder::new();
    folder.write("x/b.WAV", wav(&sine(0.25)));
    folder.write("x/b.txt", "\u{feff}dobrý\r\nden\r\n");
    folder.write("a.wav", wav(&sine(0.5)));
    folder.write("notes.txt", "nothing");
    let utterances = open(in_folder(folder.at("")));
    assert_eq!(listed(&utterances), [unsaid("a.wav", 0.5), said("x/b.WAV", 0.25, "dobrý den")]);
    assert_eq!(utterances.get(0).place, folder.at("a.wav"));
    assert_eq!(open(in_folder(folder.at("*/*.WAV"))).len(), 1);
    assert_eq!(open(in_folder(folder.at("a.wav"))).get(0).id, "a.wav");
}

fn webdataset(path: String) -> SpeechFormat {
    SpeechFormat::Webdataset(webdataset::Config { path, text_key: "text".to_owned() })
}

#[test]
fn shards_are_read_where_they_are() {
    let folder = Folder::new();
    let long = format!("{}/c.wav", "long".repeat(30));
    let pax = format!("path={long}\n");
    // The length of a record counts its own digits.
    let pax = format!("{} {pax}", pax.len() + 4);
    let members = [
        tar_header("./d/", b'5', 0),
        tar_member("./d/a.b.wav", &wav(&sine(0.5))),
        tar_member("d/a.b.txt", "dobrý den\n".as_bytes()),
        tar_member("d/b.json", br#"{"text": "ano", "duration": 0.26, "speaker": "eva", "lang": "cs"}"#),
        tar_member("d/b.wav", &wav(&sine(0.25))),
        tar_member("d/README", b"nothing"),
        [tar_header("", b'x', pax.len() as u64), [pax.as_bytes(), &vec![0; 512 - pax.len()]].concat()].concat(),
        tar_member("short.wav", &wav(&sine(0.1))),
    ];
    folder.write("s/1.tar", tar(&members));
    let utterances = open(webdataset(folder.at("s")));
    let third = format!("1.tar/{}", long.strip_suffix(".wav").expect("it ends so"));
    let expected = [said("1.tar/d/a.b", 0.5, "dobrý den"), said("1.tar/d/b", 0.26, "ano"), unsaid(&third, 0.1)];
    assert_eq!(listed(&utterances), expected);
    assert_eq!(utterances.get(1).speaker.as_deref(), Some("eva"));
    let SoundRef::Member { archive, name, offset, len } = utterances.get(0).sound else { panic!("a member") };
    assert_eq!((archive, name.as_str(), offset, len), (folder.path().join("s/1.tar"), "d/a.b.wav", 1024, 16_044));
}

#[test]
fn names_of_gnu_tar_may_be_long() {
    let folder = Folder::new();
    let long = format!("{}.wav", "x".repeat(150));
    let name = [long.as_bytes(), &[0]].concat();
    let members = [
        [tar_header("././@LongLink", b'L', name.len() as u64), name.clone(), vec![0; 512 - name.len()]].concat(),
        tar_member(&long[..99], &wav(&sine(0.1))),
    ];
    folder.write("1.tar", tar(&members));
    assert!(open(webdataset(folder.at("1.tar"))).get(0).place.ends_with(&format!("1.tar:{long}")));
}

fn parquet(path: String, seconds_column: Option<&str>) -> SpeechFormat {
    SpeechFormat::Parquet(parquet::Config {
        path,
        audio_column: "audio".to_owned(),
        text_column: Some("text".to_owned()),
        id_column: None,
        speaker_column: None,
        language_column: None,
        seconds_column: seconds_column.map(str::to_owned),
    })
}

#[test]
fn tables_hold_sound_in_rows() {
    let folder = Folder::new();
    let sound = |seconds| Some(wav(&sine(seconds)));
    let first: &[TableRow<'_>] = &[(sound(0.5), "a.wav", Some("dobrý den"), 0.5), (sound(0.25), "", None, 0.26)];
    let second: &[TableRow<'_>] = &[(sound(0.125), "c.wav", Some("ano"), 0.125)];
    folder.write("t.parquet", table(&[first, second]));
    let utterances = open(parquet(folder.at("t.parquet"), None));
    let expected = [said("a.wav", 0.5, "dobrý den"), unsaid("t.parquet:2", 0.25), said("c.wav", 0.125, "ano")];
    assert_eq!(listed(&utterances), expected);
    assert_eq!(open(parquet(folder.at("*.parquet"), Some("seconds"))).get(1).seconds, 0.26);
    let SoundRef::Row { row_group, row, .. } = utterances.get(2).sound else { panic!("a row") };
    assert_eq!((row_group, row), (1, 0));
    assert!(utterances.get(2).place.ends_with("t.parquet:3"));
}

#[test]
fn every_place_gives_the_same_samples() {
    let folder = Folder::new();
    let sound = wav(&sine(0.5));
    folder.write("f/a.wav", &sound);
    folder.write("m.jsonl", "{\"audio_filepath\": \"f/a.wav\", \"offset\": 0.125, \"duration\": 0.25}\n");
    folder.write("1.tar", tar(&[tar_member("a.txt", b"x"), tar_member("a.wav", &sound)]));
    let row: TableRow<'_> = (Some(sound), "a.wav", None, 0.5);
    folder.write("t.parquet", table(&[&[(None, "no.wav", None, 0.1), row.clone()], &[row]]));
    let load = |utterances: &Utterances, index| utterances.load(index, RATE, &Limits::default()).expect("sound data");
    let whole = load(&open(in_folder(folder.at("f"))), 0);
    let expected: Vec<f32> = sine(0.5).into_iter().map(|sample| f32::from(sample) / 32768.0).collect();
    assert_eq!(whole.len(), expected.len());
    assert!(whole.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
    assert_eq!(load(&open(webdataset(folder.at("1.tar"))), 0), whole);
    let mut config = parquet(folder.at("t.parquet"), Some("seconds"));
    let SpeechFormat::Parquet(inner) = &mut config else { unreachable!("it was just made") };
    inner.id_column = Some("seconds".to_owned());
    // Ids are seconds here, so that the last row is a duplicate.
    let rows = open_with(config, 1).expect("one duplicate");
    assert_eq!(rows.skipped()[&BadReason::DuplicateId].count, 1);
    assert_eq!(load(&rows, 1), whole);
    let null = rows.load(0, RATE, &Limits::default()).expect_err("no bytes").to_string();
    assert!(null.contains("t.parquet:1` has no bytes in `audio`"), "{null}");
    assert_eq!(load(&open(nemo(folder.at("m.jsonl"))), 0), whole[2000..6000]);
    let half = open(in_folder(folder.at("f"))).load(0, RATE / 2, &Limits::default()).expect("sound data");
    assert_eq!(half.len(), whole.len() / 2);
}
