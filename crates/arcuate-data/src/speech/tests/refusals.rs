//! Lists that are refused, and what is said of them.

use super::*;

fn manifest(folder: &Folder, lines: &str) -> SpeechFormat {
    folder.write("a.wav", wav(&sine(0.5)));
    folder.write("m.jsonl", lines);
    nemo(folder.at("m.jsonl"))
}

#[test]
fn every_bad_line_of_a_manifest_is_named_with_its_remedy() {
    let folder = Folder::new();
    for (line, what) in [
        ("{\"audio_filepath\": ", "m.jsonl:1` is not valid JSON"),
        ("[1]", "m.jsonl:1` is not valid JSON"),
        ("{\"duration\": 1}", "m.jsonl:1` has no `audio_filepath`"),
        ("{\"audio_filepath\": 3}", "m.jsonl:1` has a `audio_filepath` that is no text"),
        ("{\"audio_filepath\": \"a.wav\", \"text\": 3}", "m.jsonl:1` has a `text` that is no text"),
        ("{\"audio_filepath\": \"a.wav\", \"duration\": \"x\"}", "m.jsonl:1` has a `duration` that is no number"),
        ("{\"audio_filepath\": \"a.wav\", \"duration\": -1}", "m.jsonl:1` says that it is -1 seconds long"),
        ("{\"audio_filepath\": \"a.wav\", \"duration\": 1e99}", "m.jsonl:1` says that it is 1"),
        ("{\"audio_filepath\": \"a.wav\", \"offset\": -1}", "m.jsonl:1` says that it begins at -1 seconds"),
        ("{\"audio_filepath\": \"a.wav\", \"offset\": 7}", "m.jsonl:1` has a sound that cannot be used"),
        ("{\"audio_filepath\": \"b.wav\"}", "b.wav`, which does not exist; correct or remove it"),
        ("{\"audio_filepath\": \"\"}", "m.jsonl:1` has no `audio_filepath`"),
        ("{\"audio_filepath\": \".\"}", "which is no file"),
    ] {
        let said = refused(manifest(&folder, line));
        assert!(said.contains(what), "{line}: {said}");
        assert!(said.contains("data.max_bad_items"), "{said}");
    }
}

#[test]
fn bad_lines_up_to_the_limit_are_counted_by_reason() {
    let folder = Folder::new();
    let good = "{\"audio_filepath\": \"a.wav\"}\n";
    let mut bytes = (good.to_owned() + good + "{}\nno json\n{\"audio_filepath\": \"b.wav\"}\n").into_bytes();
    bytes.extend_from_slice(b"\xff\xfe\n");
    folder.write("a.wav", wav(&sine(0.5)));
    folder.write("m.jsonl", bytes);
    let utterances = open_with(nemo(folder.at("m.jsonl")), 5).expect("five bad items");
    assert_eq!(utterances.len(), 1);
    let counts: Vec<(BadReason, u64)> = utterances.skipped().iter().map(|(reason, bad)| (*reason, bad.count)).collect();
    use BadReason::*;
    let expected = [(BrokenJson, 1), (NonUtf8, 1), (DuplicateId, 1), (MissingField, 1), (MissingFile, 1)];
    assert_eq!(counts, expected);
    let said = open_with(nemo(folder.at("m.jsonl")), 4).expect_err("five bad items").to_string();
    assert!(said.contains("more than 4 bad items") && said.contains("1 missing file"), "{said}");
}

#[test]
fn a_source_without_an_utterance_is_refused() {
    let folder = Folder::new();
    assert!(refused(manifest(&folder, "\n")).contains("has no utterance; add sound"));
    assert!(refused(nemo(folder.at("no.jsonl"))).contains("does not exist"));
    assert!(refused(nemo(folder.at("*.json"))).contains("`.jsonl`, `.json` or `.ndjson`"));
}

#[test]
fn a_table_without_its_columns_is_refused() {
    let folder = Folder::new();
    folder.write("clips/a.wav", wav(&sine(0.5)));
    let format = || {
        let path = folder.at("v.tsv");
        SpeechFormat::CommonVoice(common_voice::Config { path, clips: "clips".to_owned() })
    };
    for (table, what) in [
        ("path\ttext\na.wav\tx\n", "v.tsv:1` has no column `sentence`; its columns are `path`, `text`"),
        ("path\tsentence\na.wav\n", "v.tsv:2` has 1 columns where the first line names 2"),
        ("path\tsentence\n\tx\n", "v.tsv:2` has an empty `path`"),
        ("path\tsentence\nb\tx\n", "b.mp3`, which does not exist"),
    ] {
        folder.write("v.tsv", table);
        let said = refused(format());
        assert!(said.contains(what), "{table}: {said}");
    }
    folder.write("clip_durations.tsv", "clip\tduration\na.wav\tlong\n");
    assert!(refused(format()).contains("clip_durations.tsv:2` is not a clip and its milliseconds"));
}

#[test]
fn kaldi_commands_are_never_run() {
    let folder = Folder::new();
    folder.write("a.wav", wav(&sine(0.5)));
    let format = || SpeechFormat::Kaldi(kaldi::Config { path: folder.at("wav.scp"), audio_folder: None });
    for (line, what) in [
        ("r1 touch made |", "wav.scp:2` is a command, and lists run none: run it yourself"),
        ("r1 | touch made", "wav.scp:2` is a command"),
        ("r1 raw.ark:1234", "wav.scp:2` is a place in an archive of Kaldi"),
        ("r1", "wav.scp:2` is not a recording and its file"),
    ] {
        folder.write("wav.scp", format!("r0 a.wav\n{line}\n"));
        let said = refused(format());
        assert!(said.contains(what), "{line}: {said}");
    }
    assert!(!folder.path().join("made").exists());
    folder.write("wav.scp", "r0 a.wav\n");
    for (line, what) in [
        ("u r0 0.1", "segments:1` is not `utterance recording start end`"),
        ("u r0 0.1 x", "segments:1` has `0.1` and `x`, not two numbers"),
        ("u r1 0.1 0.2", "names the recording `r1`, which `wav.scp` does not have"),
        ("u r0 0.2 0.1", "segments:1` says that it is -0.1 seconds long"),
    ] {
        folder.write("segments", line);
        let said = refused(format());
        assert!(said.contains(what), "{line}: {said}");
    }
}

#[test]
fn fairseq_lists_must_have_the_same_length() {
    let folder = Folder::new();
    folder.write("a.wav", wav(&sine(0.5)));
    folder.write("t.tsv", ".\na.wav\t8000\n");
    folder.write("t.wrd", "one\ntwo\n");
    let format = || {
        let labels = Some(fairseq::Labels::Wrd);
        SpeechFormat::Fairseq(fairseq::Config { path: folder.at("t.tsv"), labels, sample_rate_hz: RATE })
    };
    assert!(refused(format()).contains("t.wrd` has 2 texts where"));
    folder.write("t.wrd", b"\xff\n");
    assert!(refused(format()).contains("it is not UTF-8"));
    folder.write("t.tsv", ".\na.wav 8000\n");
    folder.write("t.wrd", "one\n");
    assert!(refused(format()).contains("t.tsv:2` is not a file and its samples"));
}

fn archive(folder: &Folder, bytes: Vec<u8>) -> SpeechFormat {
    folder.write("1.tar", bytes);
    SpeechFormat::Webdataset(webdataset::Config { path: folder.at("1.tar"), text_key: "text".to_owned() })
}

#[test]
fn members_that_lead_out_of_an_archive_are_refused() {
    let folder = Folder::new();
    let sound = wav(&sine(0.1));
    let evil = |name: &str| tar(&[tar_member("a.wav", &sound), tar_member(name, &sound)]);
    assert!(refused(archive(&folder, evil("../b.wav"))).contains("1.tar:../b.wav` has `..` in its name"));
    assert!(refused(archive(&folder, evil("x/../../b.wav"))).contains("has `..` in its name"));
    assert!(refused(archive(&folder, evil("/b.wav"))).contains("1.tar:/b.wav` has an absolute name"));
    for (kind, what) in [(b'1', "is a link"), (b'2', "is a link"), (b'3', "is a device"), (b'S', "of a kind")] {
        let bytes = tar(&[tar_member("a.wav", &sound), tar_header("b.wav", kind, 0)]);
        let said = refused(archive(&folder, bytes.clone()));
        assert!(said.contains(what), "{said}");
        let utterances = open_with(archive(&folder, bytes), 1).expect("one bad member");
        assert_eq!(utterances.skipped()[&BadReason::UnsafeMember].count, 1);
    }
}

#[test]
fn sizes_of_an_archive_must_agree_with_its_length() {
    let folder = Folder::new();
    let sound = wav(&sine(0.1));
    for size in [1_000_000, 0o77777777777] {
        let said = refused(archive(&folder, tar(&[tar_header("a.wav", b'0', size)])));
        assert!(said.contains(&format!("a member claims {size} bytes, but the archive ends 1024 later")), "{said}");
    }
    let mut huge = tar_header("a.wav", b'0', 0);
    huge[124..136].copy_from_slice(&[0xff; 12]);
    assert!(refused(archive(&folder, tar(&[huge]))).contains("there is no header of a tar archive"));
    let whole = tar(&[tar_member("a.wav", &sound)]);
    for len in [100, 600, 2000] {
        assert!(refused(archive(&folder, whole[..len].to_vec())).contains("is damaged"), "{len}");
    }
    assert!(refused(archive(&folder, b"\x1f\x8b".repeat(600))).contains("undo its compression with `gzip -d`"));
    let long = tar_header("././@LongLink", b'L', 100_000);
    let said = refused(archive(&folder, tar(&[long, vec![0; 102_400]])));
    assert!(said.contains("a name has more than"), "{said}");
}

#[test]
fn an_archive_with_odd_members_is_refused() {
    let folder = Folder::new();
    let sound = wav(&sine(0.1));
    let with = |name: &str, content: &[u8]| tar(&[tar_member("a.wav", &sound), tar_member(name, content)]);
    for (bytes, what) in [
        (with("a.flac", &sound), "a.flac` is a second sound beside `a.wav`"),
        (with("b.wav", b""), "b.wav` has 0 bytes"),
        (with("a.txt", b"\xff"), "a.txt` is not UTF-8"),
        (with("a.json", b"[]"), "a.json` is not a JSON object"),
        (with("a.txt", &vec![b'x'; 2 << 20]), "a.txt` is a text of 2097152 bytes"),
    ] {
        let said = refused(archive(&folder, bytes));
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn tables_without_sound_are_refused() {
    let folder = Folder::new();
    let config = |audio_column: &str| {
        SpeechFormat::Parquet(parquet::Config {
            path: folder.at("t.parquet"),
            audio_column: audio_column.to_owned(),
            text_column: None,
            id_column: None,
            speaker_column: None,
            language_column: None,
            seconds_column: None,
        })
    };
    folder.write("t.parquet", table(&[&[(None, "a.wav", None, 0.1)]]));
    assert!(refused(config("audio")).contains("t.parquet:1` has no bytes of sound"));
    assert!(refused(config("sound")).contains("has no column `sound`; its columns are `audio`, `text`, `seconds`"));
    assert!(refused(config("text")).contains("its column `text` is no struct of `bytes` and `path`"));
    folder.write("t.parquet", table(&[&[(Some(b"no sound".to_vec()), "a.wav", None, 0.1)]]));
    assert!(refused(config("audio")).contains("t.parquet:1` has a sound that cannot be used"));
}

#[test]
fn a_text_beside_a_sound_must_be_text() {
    let folder = Folder::new();
    folder.write("a.wav", wav(&sine(0.1)));
    let format = || SpeechFormat::Folder(folder::Config { path: folder.at("") });
    folder.write("a.txt", b"\xff");
    assert!(refused(format()).contains("a.txt` is not UTF-8"));
    folder.write("a.txt", vec![b'x'; 2 << 20]);
    assert!(refused(format()).contains("a.txt` is longer than"));
    folder.write("a.txt", "x");
    folder.write("b.wav", "no sound");
    assert!(refused(format()).contains("b.wav` has a sound that cannot be used"));
}
