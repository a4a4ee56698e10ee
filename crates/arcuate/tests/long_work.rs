//! Work that takes long, on the built program: killed at any moment it is as good as undisturbed, and its memory does not grow with it.

mod recogniser;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use recogniser::{RATE, folder, voice, wav, write};
use tempfile::TempDir;

/// Shares of the time of undisturbed work after which it is killed, each time by SIGKILL.
const MOMENTS: [f64; 5] = [0.15, 0.35, 0.5, 0.7, 0.9];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcuate"));
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Lets the command end well; the seconds it took.
fn finishes(mut command: Command) -> f64 {
    let begun = Instant::now();
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    begun.elapsed().as_secs_f64()
}

/// Kills the same command again and again, `look`s at what is there each time, and lets it end.
fn killed(seconds: f64, make: impl Fn() -> Command, look: impl Fn()) {
    let mut num_killed = 0;
    for moment in MOMENTS {
        let mut child = make().stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(Duration::from_secs_f64(seconds * moment));
        if child.try_wait().expect("a child").is_none() {
            num_killed += 1;
        }
        // Of a child that has ended this is no error.
        child.kill().expect("a child can be killed");
        child.wait().expect("it was killed");
        look();
    }
    assert!(num_killed > 0, "it ended before it could be killed");
    finishes(make());
}

/// Files that are seen, by their path below a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(at) = folders.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
            let path = entry.path();
            // An orphaned program may still write into a draft.
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below the folder").to_string_lossy().into_owned();
                found.insert(name, fs::read(&path).expect("readable"));
            }
        }
    }
    found
}

#[test]
fn a_killed_conversion_of_public_data_is_repeated_whole() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for number in 0..4000 {
        let text = format!("{{\"id\":\"{number}\",\"text\":\"Subject: {number}\\n\\n{}\"}}", "Buy now. ".repeat(40));
        write(&dir, &format!("package/data/spam-1/{number:05}.json"), text);
    }
    let packed = Command::new("tar").args(["-czf", "mail.tgz", "package"]).current_dir(dir.path()).status();
    assert!(packed.expect("tar is there").success());
    let fetch = |to: &str| {
        command(dir.path(), &["data", "fetch", "spam", "--package", "mail.tgz", "--any-version", "--to", to])
    };
    let seconds = finishes(fetch("calm"));
    let wanted = files(&dir.path().join("calm"));
    assert_eq!(wanted.keys().collect::<Vec<_>>(), ["spam/ORIGIN.json", "spam/mail.jsonl"]);
    let look = || {
        // There is the whole set under its name, or none.
        let found = files(&dir.path().join("killed/spam"));
        assert!(found.is_empty() || found["mail.jsonl"] == wanted["spam/mail.jsonl"], "half a set");
    };
    killed(seconds, || fetch("killed"), look);
    assert!(files(&dir.path().join("killed")) == wanted);
    // What an orphaned program still wrote after the kill goes at the next time.
    finishes(fetch("killed"));
    let left = fs::read_dir(dir.path().join("killed")).expect("a folder").count();
    assert_eq!(left, 1, "drafts are removed");
}

/// A run of a recipe of the tree, killed before and after its first step, from the same cache.
fn check_killed_run(recipe: &str, name: &str) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = |path: &str| dir.path().join(path).display().to_string();
    let run = |runs: &str| {
        let cache = format!("data.cache_dir={:?}", at(&format!("cache-{runs}")));
        command(&root(), &["run", recipe, "--runs-dir", &at(runs), "--set", &cache])
    };
    let seconds = finishes(run("calm"));
    killed(seconds, || run("killed"), || {});
    let weights = |runs: &str| {
        let path = dir.path().join(runs).join(name).join("checkpoints/last/model.safetensors");
        fs::read(path).expect("a checkpoint")
    };
    assert!(weights("calm") == weights("killed"), "the weights differ");
    assert!(files(&dir.path().join("cache-calm")) == files(&dir.path().join("cache-killed")), "the caches differ");
}

#[test]
fn a_run_killed_while_recordings_are_opened_ends_like_an_undisturbed_one() {
    check_killed_run("recipes/tiny_ctc.toml", "tiny-ctc");
}

#[test]
fn a_run_killed_while_texts_are_cached_ends_like_an_undisturbed_one() {
    check_killed_run("recipes/tiny.toml", "tiny");
}

/// A folder with so many recordings: clips of the tree again and again.
fn clips(dir: &TempDir, num: usize) {
    let folder = root().join("data/speech/russian");
    let entries = fs::read_dir(folder).expect("the clips").flatten().map(|entry| entry.path());
    let mut clips: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "opus")).collect();
    clips.sort();
    fs::create_dir(dir.path().join("in")).expect("writable");
    for number in 0..num {
        let to = dir.path().join(format!("in/{number:03}.opus"));
        fs::copy(&clips[number % clips.len()], to).expect("copied");
    }
}

#[test]
fn a_killed_transcription_of_a_folder_goes_on_to_the_same_files() {
    let dir = folder("wav2vec2_large_ctc");
    clips(&dir, 40);
    let transcribe = |out: &str| {
        command(
            dir.path(),
            &["transcribe", "model", "in", "--output", out, "--format", "txt,json", "--batch-seconds", "8"],
        )
    };
    let seconds = finishes(transcribe("calm"));
    let wanted = files(&dir.path().join("calm"));
    assert_eq!(wanted.len(), 80);
    let look = || {
        let found = files(&dir.path().join("killed"));
        assert!(found.iter().all(|(name, bytes)| wanted[name] == *bytes), "half a transcript");
    };
    killed(seconds, || transcribe("killed"), look);
    assert!(files(&dir.path().join("killed")) == wanted);
}

/// The most memory that a process has had so far, in bytes; none once it has ended.
fn peak(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?)
}

/// The peaks of a command: when `is_half` was first true, and at its end.
fn peaks(mut command: Command, is_half: impl Fn() -> bool) -> (u64, u64) {
    let mut child = command.stderr(Stdio::null()).spawn().expect("it starts");
    let (mut half, mut last) = (None, 0);
    while child.try_wait().expect("a child").is_none() {
        if let Some(peak) = peak(&child) {
            last = peak;
        }
        if half.is_none() && is_half() {
            half = Some(last);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(child.wait().expect("a child").success());
    (half.expect("it passed the half"), last)
}

/// Allocators keep some of what they had; a leak of one recording's sound in a folder would be ten times as much.
fn is_flat(before: u64, after: u64) -> bool {
    after <= before + before / 5 + (32 << 20)
}

#[test]
fn three_hundred_recordings_take_the_memory_of_fifty() {
    let dir = folder("wav2vec2_large_ctc");
    clips(&dir, 300);
    let out = dir.path().join("out");
    let num_done = || fs::read_dir(&out).map_or(0, Iterator::count);
    let transcribe = command(dir.path(), &["transcribe", "model", "in", "--output", "out"]);
    let (fifty, all) = peaks(transcribe, || num_done() >= 50);
    assert_eq!(num_done(), 300);
    assert!(is_flat(fifty, all), "{fifty} bytes after 50 recordings, {all} after 300");
}

/// A recording of so many minutes: three seconds of voice at the begin of each, then silence.
fn long_wav(path: &Path, minutes: usize) {
    let one = wav(&voice(3.0, 120.0));
    let minute = 60 * RATE * 2;
    let len = (minutes * minute) as u32;
    let mut file = BufWriter::new(fs::File::create(path).expect("writable"));
    let mut put = |bytes: &[u8]| file.write_all(bytes).expect("writable");
    put(b"RIFF");
    put(&(36 + len).to_le_bytes());
    put(&one[8..40]);
    put(&len.to_le_bytes());
    let silence = vec![0; minute - (one.len() - 44)];
    for _ in 0..minutes {
        put(&one[44..]);
        put(&silence);
    }
}

#[test]
fn an_hour_takes_the_memory_of_some_minutes() {
    let dir = folder("wav2vec2_large_ctc");
    let heard = |name: &str, minutes| {
        long_wav(&dir.path().join(name), minutes);
        let begun = Instant::now();
        let out = format!("out-{minutes}");
        let peak = peaks(command(dir.path(), &["transcribe", "model", name, "--output", &out]), || true).1;
        assert!(files(&dir.path().join(out)).into_values().all(|text| text.len() > 3));
        (peak, begun.elapsed())
    };
    // Some minutes are looked at together to find the pauses.
    let (some, _) = heard("some.wav", 20);
    let (hour, time) = heard("hour.wav", 60);
    assert!(is_flat(some, hour), "{some} bytes for 20 minutes, {hour} for 60 in {time:?}");
}
