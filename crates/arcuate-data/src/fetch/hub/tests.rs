//! Sets of the hub, from a small server on this machine: whole, refused, cut off, and wrong.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::*;
use crate::speech::tests::fixtures::{RATE, sine, table, tar, tar_member, wav};
use crate::speech::{Limits, SpeechFormat, SpeechSourceConfig, Utterances, common_voice, nemo, parquet};
use crate::testing::Folder;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

#[derive(Default)]
struct State {
    repository: String,
    files: BTreeMap<String, Vec<u8>>,
    /// Sums that the list says in place of the right ones.
    sums: BTreeMap<String, String>,
    /// Who may ask; anybody when absent.
    token: Option<String>,
    /// Answers that end too early.
    num_cut: usize,
    /// Paths with the range that was asked for.
    requests: Vec<String>,
    is_closed: bool,
}

/// A hub with one repository.
struct Server {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    fn new(set: &str, files: Vec<(&str, Vec<u8>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let files = files.into_iter().map(|(path, bytes)| (path.to_owned(), bytes)).collect();
        let repository = hub_set(set).expect("a set").family.repository.to_owned();
        let state = Arc::new(Mutex::new(State { repository, files, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if state.is_closed {
                    return;
                }
                let _ = state.answer(stream);
            }
        });
        Self { address, state }
    }

    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn options(&self, folder: &Folder) -> HubOptions {
        let endpoint = format!("http://{}", self.address);
        HubOptions { endpoint, token: None, cache: folder.path().join("cache"), revision: None }
    }

    /// Ranges of the requests for a file but for those that only look at its headers.
    fn ranges(&self, path: &str) -> Vec<String> {
        let requests = self.state(|state| state.requests.clone());
        let of_file = |request: &String| Some(request.strip_prefix(path)?.trim().to_owned());
        requests.iter().filter_map(of_file).filter(|range| range != "bytes=0-0").collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state(|state| state.is_closed = true);
        let _ = TcpStream::connect(&self.address);
    }
}

fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl State {
    fn answer(&mut self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let first = lines.next().unwrap_or(Ok(String::new()))?;
        let headers: Vec<String> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
        let header = |name: &str| {
            let found = headers.iter().filter_map(|line| line.split_once(':'));
            found.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
        };
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let is_welcome = self.token.as_ref().is_none_or(|t| header("authorization") == Some(format!("Bearer {t}")));
        let status = |code: u16| format!("HTTP/1.1 {code} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        if !is_welcome {
            return stream.write_all(status(if header("authorization").is_some() { 403 } else { 401 }).as_bytes());
        }
        if path == format!("/api/datasets/{}/revision/main?blobs=true", self.repository) {
            let body = json!({"sha": COMMIT, "siblings": self.siblings()}).to_string();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            return stream.write_all((head + &body).as_bytes());
        }
        let file = path.strip_prefix(&format!("/datasets/{}/resolve/{COMMIT}/", self.repository));
        let Some((name, bytes)) = file.and_then(|name| Some((name, self.files.get(name)?))) else {
            return stream.write_all(status(404).as_bytes());
        };
        let range = header("range").unwrap_or_default();
        let (start, end) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
        let start: usize = start.parse().unwrap_or(0);
        let end = end.parse().map_or(bytes.len(), |last: usize| (last + 1).min(bytes.len()));
        self.requests.push(format!("{name} {range}"));
        if start >= bytes.len() {
            return stream.write_all(status(416).as_bytes());
        }
        let part = &bytes[start..end];
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {start}-{}/{}\r\nETag: \"{}\"\r\nX-Repo-Commit: {COMMIT}\r\nConnection: close\r\n\r\n",
            part.len(),
            end - 1,
            bytes.len(),
            &sum(name.as_bytes())[..40]
        );
        stream.write_all(head.as_bytes())?;
        let is_cut = self.num_cut > 0 && part.len() > 1;
        self.num_cut -= usize::from(is_cut);
        stream.write_all(if is_cut { &part[..part.len() / 2] } else { part })
    }

    fn siblings(&self) -> Vec<Value> {
        let one = |(path, bytes): (&String, &Vec<u8>)| {
            let sum = self.sums.get(path).cloned().unwrap_or_else(|| sum(bytes));
            match path.ends_with(".tsv") {
                true => json!({"rfilename": path, "size": bytes.len(), "blobId": "0"}),
                false => json!({"rfilename": path, "size": bytes.len(), "lfs": {"sha256": sum, "size": bytes.len()}}),
            }
        };
        self.files.iter().map(one).collect()
    }
}

const PARQUET: &str = "clean/test/0000.parquet";

fn librispeech() -> (Server, Folder, HubSet) {
    let sound = |seconds| Some(wav(&sine(seconds)));
    let rows = table(&[&[(sound(0.5), "a.wav", Some("HELLO"), 0.5), (sound(0.2), "b.wav", Some("WORLD"), 0.2)]]);
    let files = vec![(PARQUET, rows), ("clean/train.100/0000.parquet", vec![0]), ("README.md", b"# x".to_vec())];
    (Server::new("librispeech-test-clean", files), Folder::new(), set("librispeech-test-clean"))
}

fn set(name: &str) -> HubSet {
    hub_set(name).expect("a set")
}

fn fetch(set: &HubSet, folder: &Folder, options: &HubOptions) -> Result<Fetched> {
    fetch_hub(set, &folder.path().join("data"), options, &Progress::none())
}

fn open(format: SpeechFormat) -> Utterances {
    Utterances::open("a", &SpeechSourceConfig::new(format), 0, &Progress::none()).expect("a sound corpus")
}

/// Files below the cache but for links.
fn blobs(folder: &Folder) -> Vec<PathBuf> {
    let blobs =
        fs::read_dir(folder.path().join("cache")).expect("a cache").flatten().map(|entry| entry.path().join("blobs"));
    let entries = blobs.filter_map(|path| fs::read_dir(path).ok()).flat_map(|entries| entries.flatten());
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_none_or(|ending| ending != "lock")).collect()
}

#[test]
fn names_have_a_part_or_a_language() {
    for name in ["librispeech-clean-100", "librispeech-test-other", "fleurs-cs_cz", "common-voice-zh-CN"] {
        assert_eq!(hub_set(name).map(|set| set.name).as_deref(), Some(name));
    }
    for name in ["librispeech-clean", "librispeech-", "fleurs-", "fleurs-../x", "fleurs-c s", "common-voice-a/b", "x"] {
        assert!(hub_set(name).is_none(), "{name}");
    }
}

#[test]
fn tables_are_linked_and_open_as_a_corpus() {
    let (server, folder, set) = librispeech();
    let options = server.options(&folder);
    let fetched = fetch(&set, &folder, &options).expect("sound");
    assert_eq!((fetched.files.len(), fetched.files[0].documents, fetched.sounds.as_ref()), (1, 2, None));
    assert!(fetched.origin.contains(COMMIT) && fetched.origin.contains("openslr/librispeech_asr"), "{fetched:?}");
    let data = folder.path().join("data");
    assert_eq!(fetched_hub(&set, &data), Some(fetched.clone()));
    let path = data.join("librispeech-test-clean").display().to_string();
    let utterances = open(SpeechFormat::Parquet(parquet::Config {
        path: path.clone(),
        audio_column: "audio".to_owned(),
        text_column: Some("text".to_owned()),
        id_column: None,
        speaker_column: None,
        language_column: None,
        seconds_column: None,
    }));
    assert_eq!((utterances.len(), utterances.get(1).transcript.as_deref()), (2, Some("WORLD")));
    assert_eq!(utterances.load(0, RATE, &Limits::default()).expect("sound").len(), 8000);
    assert_eq!(server.ranges(PARQUET), ["bytes=0-"], "only what the set is");
    // What is in the cache is not downloaded again.
    assert_eq!(fetch(&set, &folder, &options).expect("again"), fetched);
    assert_eq!(server.ranges(PARQUET).len(), 1);
    fs::write(format!("{path}/0000.parquet"), "x").expect("writable");
    assert_eq!(fetched_hub(&set, &data), None, "a changed file is seen");
}

#[test]
fn a_cut_off_answer_goes_on_where_it_ended() {
    let (server, folder, set) = librispeech();
    server.state(|state| state.num_cut = 2);
    fetch(&set, &folder, &server.options(&folder)).expect("whole in the end");
    let ranges = server.ranges(PARQUET);
    assert!(ranges.len() >= 2 && ranges[0] == "bytes=0-" && ranges[1] != "bytes=0-", "{ranges:?}");
}

#[test]
fn answers_that_never_end_well_are_an_error_and_nothing_is_taken_for_whole() {
    let (server, folder, set) = librispeech();
    server.state(|state| state.num_cut = 1000);
    // Long enough that halves of what is missing remain.
    server.state(|state| state.files.insert(PARQUET.to_owned(), vec![7; 100_000]));
    let options = server.options(&folder);
    let wrong = fetch(&set, &folder, &options).expect_err("cut off").to_string();
    assert!(wrong.contains("cannot fetch `librispeech-test-clean`") && wrong.contains("again"), "{wrong}");
    assert_eq!(fetched_hub(&set, &folder.path().join("data")), None);
    let is_part = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "part");
    assert!(blobs(&folder).iter().all(is_part), "{:?}", blobs(&folder));
}

#[test]
fn a_wrong_sum_is_refused_and_forgotten() {
    let (server, folder, set) = librispeech();
    server.state(|state| state.sums.insert(PARQUET.to_owned(), sum(b"other")));
    let options = server.options(&folder);
    let wrong = fetch(&set, &folder, &options).expect_err("other sum").to_string();
    assert!(wrong.contains(&sum(b"other")) && wrong.contains(PARQUET) && wrong.contains("SHA-256"), "{wrong}");
    assert_eq!((blobs(&folder), server.ranges(PARQUET).len()), (Vec::new(), 2));
    assert!(!folder.path().join("data/librispeech-test-clean").exists());
    server.state(|state| state.sums.clear());
    fetch(&set, &folder, &options).expect("the right sum");
}

#[test]
fn leftovers_of_other_downloads_do_no_harm() {
    for leftover in [b"no part of it".to_vec(), vec![0; 1 << 16]] {
        let (server, folder, set) = librispeech();
        let repository = format!("datasets--{}", set.family.repository.replace('/', "--"));
        let part = format!("cache/{repository}/blobs/{}.part", &sum(PARQUET.as_bytes())[..40]);
        folder.write(&part, leftover);
        fetch(&set, &folder, &server.options(&folder)).expect("downloaded anew");
    }
}

#[test]
fn a_damaged_file_of_the_cache_is_downloaded_again() {
    let (server, folder, set) = librispeech();
    let options = server.options(&folder);
    fetch(&set, &folder, &options).expect("sound");
    let blob = blobs(&folder).pop().expect("a file");
    let len = fs::metadata(&blob).expect("there").len() as usize;
    fs::remove_file(&blob).expect("there");
    fs::write(&blob, vec![1; len]).expect("writable");
    fetch(&set, &folder, &options).expect("mended");
    assert_eq!(server.ranges(PARQUET).len(), 2);
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn fleurs(archive: Vec<u8>) -> Server {
    let lines = "7\t1.wav\tDobrý den.\tdobrý den\td o b\t8000\tMALE\n7\tlost.wav\tNic.\tnic\tn i c\t1\tMALE\n8\t2.wav\tAno!\tano\ta n o\t3200\tFEMALE\n";
    let files = vec![
        ("data/cs_cz/train.tsv", lines.as_bytes().to_vec()),
        ("data/cs_cz/audio/train.tar.gz", archive),
        ("data/nl_nl/train.tsv", b"x".to_vec()),
    ];
    Server::new("fleurs-cs_cz", files)
}

#[test]
fn archives_become_folders_with_lists() {
    let members = [
        tar_member("train/2.wav", &wav(&sine(0.2))),
        tar_member("train/1.wav", &wav(&sine(0.5))),
        tar_member("train/notes.txt", b"x"),
    ];
    let (server, folder) = (fleurs(packed(&tar(&members))), Folder::new());
    let fetched = fetch(&set("fleurs-cs_cz"), &folder, &server.options(&folder)).expect("sound");
    assert_eq!((fetched.files.len(), fetched.files[0].documents), (1, 2));
    assert_eq!(fetched.sounds.as_ref().map(|sounds| sounds.files), Some(2));
    assert_eq!(fetched_hub(&set("fleurs-cs_cz"), &folder.path().join("data")), Some(fetched));
    let path = folder.path().join("data/fleurs-cs_cz/train.jsonl").display().to_string();
    let utterances = open(SpeechFormat::Nemo(nemo::Config { path }));
    let first = utterances.get(0);
    assert_eq!((first.transcript.as_deref(), first.language.as_deref()), (Some("Dobrý den."), Some("cs")));
    assert_eq!((first.seconds, utterances.len()), (0.5, 2));
    assert_eq!(utterances.load(1, RATE, &Limits::default()).expect("sound").len(), 3200);
}

#[test]
fn archives_that_are_none_or_lead_out_are_refused() {
    let outside = tar(&[tar_member("../1.wav", &wav(&sine(0.5)))]);
    let whole = packed(&tar(&[tar_member("train/1.wav", &wav(&sine(0.5)))]));
    for (archive, words) in [
        (packed(&outside), "leads out"),
        (whole[..whole.len() / 2].to_vec(), "train.tar.gz"),
        (b"no archive".to_vec(), "train.tar.gz"),
        (packed(&tar(&[])), "no list with sounds"),
    ] {
        let (server, folder) = (fleurs(archive), Folder::new());
        let wrong = fetch(&set("fleurs-cs_cz"), &folder, &server.options(&folder)).expect_err("wrong").to_string();
        assert!(wrong.contains(words), "{wrong}");
        let left: Vec<_> = fs::read_dir(folder.path().join("data")).expect("a folder").flatten().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn gated_sets_need_a_token_and_say_how_to_get_one() {
    let mp3 =
        fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../arcuate-audio/tests/data/speech.mp3")).expect("there");
    let table = "client_id\tpath\tsentence\tlocale\nx\t1.mp3\tDobrý den.\tcs\n";
    let files = vec![
        ("transcript/cs/train.tsv", table.as_bytes().to_vec()),
        ("transcript/cs/validated.tsv", b"not wanted".to_vec()),
        ("audio/cs/train/cs_train_0.tar", tar(&[tar_member("cs_train_0/1.mp3", &mp3)])),
    ];
    let (server, folder) = (Server::new("common-voice-cs", files), Folder::new());
    server.state(|state| state.token = Some("hf_right".to_owned()));
    let mut options = server.options(&folder);
    let wrong = fetch(&set("common-voice-cs"), &folder, &options).expect_err("gated").to_string();
    let words = ["status 401", "HF_TOKEN", "https://huggingface.co/datasets/mozilla-foundation/common_voice_17_0"];
    assert!(words.iter().all(|word| wrong.contains(word)), "{wrong}");
    options.token = Some("hf_wrong".to_owned());
    let wrong = fetch(&set("common-voice-cs"), &folder, &options).expect_err("gated").to_string();
    assert!(wrong.contains("refuses the token (status 403)") && !wrong.contains("hf_wrong"), "{wrong}");
    options.token = Some("hf_right".to_owned());
    let fetched = fetch(&set("common-voice-cs"), &folder, &options).expect("welcome");
    let files: Vec<(&str, u64)> = fetched.files.iter().map(|file| (file.name.as_str(), file.documents)).collect();
    assert_eq!(files, [("train.tsv", 1), ("clip_durations.tsv", 0)]);
    assert_eq!(fetched_hub(&set("common-voice-cs"), &folder.path().join("data")), Some(fetched));
    let path = folder.path().join("data/common-voice-cs/train.tsv").display().to_string();
    let utterances = open(SpeechFormat::CommonVoice(common_voice::Config { path, clips: "clips".to_owned() }));
    assert_eq!(utterances.get(0).transcript.as_deref(), Some("Dobrý den."));
    assert!(utterances.load(0, RATE, &Limits::default()).expect("its length is right").len() > 5000);
}

#[test]
fn what_the_hub_does_not_have_is_named_with_what_it_has() {
    let (server, folder) = (fleurs(Vec::new()), Folder::new());
    let mut options = server.options(&folder);
    let wrong = fetch(&set("fleurs-xx_xx"), &folder, &options).expect_err("no such language").to_string();
    assert!(wrong.contains("no file of `xx_xx`") && wrong.contains("cs_cz, nl_nl"), "{wrong}");
    options.revision = Some("nowhere".to_owned());
    let wrong = fetch(&set("fleurs-cs_cz"), &folder, &options).expect_err("no such revision").to_string();
    assert!(wrong.contains("status 404") && wrong.contains("--revision"), "{wrong}");
    options.endpoint = "http://127.0.0.1:9".to_owned();
    let wrong = fetch(&set("fleurs-cs_cz"), &folder, &options).expect_err("nobody there").to_string();
    assert!(wrong.contains("look at the network"), "{wrong}");
}

#[test]
fn lists_that_lead_out_of_the_cache_are_refused() {
    let (server, folder) = (fleurs(Vec::new()), Folder::new());
    server.state(|state| state.files.insert("data/../../../x.tsv".to_owned(), b"x".to_vec()));
    let wrong = fetch(&set("fleurs-cs_cz"), &folder, &server.options(&folder)).expect_err("wrong").to_string();
    assert!(wrong.contains("lead elsewhere"), "{wrong}");
}
