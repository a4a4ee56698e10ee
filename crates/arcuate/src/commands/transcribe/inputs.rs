//! What is to be transcribed: files, folders, patterns, standard input; and under which names results are written.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;

use crate::exit;

/// Endings of the files that folders are searched for; the content decides what a file is.
const ENDINGS: [&str; 18] = [
    "aac", "aif", "aiff", "au", "caf", "flac", "m4a", "m4b", "mka", "mkv", "mov", "mp3", "mp4", "oga", "ogg", "opus",
    "wav", "webm",
];
const MAX_FOLDER_DEPTH: usize = 64;

/// A recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Input {
    /// None: standard input.
    pub path: Option<PathBuf>,
    /// Its path below the folder or the pattern that the user named, else its file name.
    pub name: PathBuf,
}

impl Input {
    /// As messages name it.
    pub(super) fn shown(&self) -> String {
        self.path.as_ref().map_or_else(|| "standard input".to_owned(), |path| path.display().to_string())
    }
}

/// All recordings in the order of the arguments, those of a folder or pattern sorted; each of them once.
pub(super) fn collect(arguments: &[PathBuf]) -> anyhow::Result<Vec<Input>> {
    let mut found = Vec::new();
    for argument in arguments {
        if argument == Path::new("-") {
            found.push(Input { path: None, name: "stdin".into() });
        } else if argument.is_dir() {
            let before = found.len();
            walk(argument, Path::new(""), 0, &mut found)?;
            if found.len() == before {
                let endings = ENDINGS.map(|ending| format!(".{ending}")).join(" ");
                let message =
                    format!("`{}` holds no recording; files are taken that end in {endings}", argument.display());
                return Err(exit::usage(message));
            }
        } else if argument.exists() {
            found.push(file(argument));
        } else {
            pattern(argument, &mut found)?;
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|input| {
        seen.insert(input.path.as_ref().map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.clone())))
    });
    Ok(found)
}

fn file(path: &Path) -> Input {
    Input { path: Some(path.to_owned()), name: path.file_name().map_or_else(|| path.to_owned(), PathBuf::from) }
}

fn is_sound(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// The recordings below a folder, sorted by their names; hidden ones and links to folders are left out.
fn walk(root: &Path, below: &Path, depth: usize, found: &mut Vec<Input>) -> anyhow::Result<()> {
    if depth > MAX_FOLDER_DEPTH {
        return Ok(());
    }
    let folder = root.join(below);
    let cannot = || format!("cannot read the folder `{}`", folder.display());
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(&folder).and_then(Iterator::collect).with_context(cannot)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        let name = below.join(name);
        if entry.file_type().with_context(cannot)?.is_dir() {
            walk(root, &name, depth + 1, found)?;
        } else if is_sound(&name) && entry.path().is_file() {
            found.push(Input { path: Some(entry.path()), name });
        }
    }
    Ok(())
}

/// What a pattern matches: any files, and the recordings of folders.
fn pattern(argument: &Path, found: &mut Vec<Input>) -> anyhow::Result<()> {
    let shown = argument.display();
    let wild = |part: &str| part.contains(['*', '?', '[']);
    let Some(text) = argument.to_str().filter(|text| wild(text)) else {
        return Err(exit::usage(format!(
            "`{shown}` does not exist; name a file, a folder, a pattern such as `talks/*.mp3`, or `-`"
        )));
    };
    let fixed: PathBuf = argument.components().take_while(|part| !wild(&part.as_os_str().to_string_lossy())).collect();
    let paths = glob::glob(text).map_err(|error| exit::usage(format!("`{shown}` is no pattern: {error}")))?;
    let before = found.len();
    for path in paths {
        let path = path.with_context(|| format!("cannot search `{shown}`"))?;
        let name = path.strip_prefix(&fixed).unwrap_or(&path).to_owned();
        if path.is_dir() {
            let mut inner = Vec::new();
            walk(&path, Path::new(""), 0, &mut inner)?;
            found.extend(inner.into_iter().map(|input| Input { name: name.join(input.name), ..input }));
        } else {
            found.push(Input { path: Some(path), name });
        }
    }
    if found.len() == before {
        return Err(exit::usage(format!("`{shown}` matches no recording; look at the path, and quote the pattern")));
    }
    Ok(())
}

/// For each recording the path of its results below a folder, without ending; never twice the same.
///
/// A recording is named as it lies below what the user named. Of those that would share a name, folders are added to
/// all, then their own endings: so names depend only on which recordings there are.
pub(super) fn stems(inputs: &[Input]) -> anyhow::Result<Vec<PathBuf>> {
    let ways: [fn(&Input) -> PathBuf; 3] =
        [|input| input.name.with_extension(""), |input| full(input).with_extension(""), |input| full(input)];
    let mut stems: Vec<PathBuf> = inputs.iter().map(ways[0]).collect();
    for way in &ways[1..] {
        let shared = shared(&stems);
        for group in shared.values() {
            group.iter().for_each(|at| stems[*at] = way(&inputs[*at]));
        }
    }
    if let Some((stem, group)) = shared(&stems).into_iter().next() {
        let names: Vec<String> = group.iter().map(|at| format!("`{}`", inputs[*at].shown())).collect();
        return Err(exit::usage(format!(
            "the results of {} would all be written to `{}`; transcribe them into different folders",
            names.join(" and "),
            stem.display()
        )));
    }
    Ok(stems)
}

/// The names that several have, and who has them.
fn shared(stems: &[PathBuf]) -> BTreeMap<PathBuf, Vec<usize>> {
    let mut users: BTreeMap<PathBuf, Vec<usize>> = BTreeMap::new();
    for (at, stem) in stems.iter().enumerate() {
        users.entry(stem.clone()).or_default().push(at);
    }
    users.retain(|_, users| users.len() > 1);
    users
}

/// The whole path that leads to a recording, without what leads upwards.
fn full(input: &Input) -> PathBuf {
    let path = input.path.as_ref().unwrap_or(&input.name);
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

/// A path with an ending behind the name as it is.
pub(super) fn with_ending(stem: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(stem);
    name.push(".");
    name.push(ending);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("below the folder")).expect("writable");
            fs::write(path, "").expect("writable");
        }
        dir
    }

    fn names(inputs: &[Input]) -> Vec<String> {
        inputs.iter().map(|input| input.name.display().to_string()).collect()
    }

    #[test]
    fn a_folder_is_searched_and_sorted() {
        let dir = folder(&["b/2.WAV", "b/10.mp3", "a.flac", "notes.txt", ".hidden.wav", "c.opus"]);
        let found = collect(&[dir.path().to_owned()]).expect("finds");
        assert_eq!(names(&found), ["a.flac", "b/10.mp3", "b/2.WAV", "c.opus"]);
        assert!(found.iter().all(|input| input.path.as_ref().is_some_and(|path| path.is_file())));
    }

    #[test]
    fn a_recording_that_is_named_twice_is_taken_once() {
        let dir = folder(&["a.wav", "b.wav"]);
        let (a, pattern) = (dir.path().join("a.wav"), dir.path().join("*.wav"));
        let found = collect(&[a.clone(), pattern, dir.path().to_owned(), a, "-".into(), "-".into()]).expect("finds");
        assert_eq!(names(&found), ["a.wav", "b.wav", "stdin"]);
    }

    #[test]
    fn patterns_match_files_and_folders() {
        let dir = folder(&["x/a.wav", "y/b.wav", "y/deep/c.wav", "y/list.txt", "strange[1].wav"]);
        let found = |pattern: &str| names(&collect(&[dir.path().join(pattern)]).expect("finds"));
        assert_eq!(found("*/*.wav"), ["x/a.wav", "y/b.wav"]);
        assert_eq!(found("[xy]"), ["x/a.wav", "y/b.wav", "y/deep/c.wav"]);
        assert_eq!(found("strange[1].wav"), ["strange[1].wav"]);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let dir = folder(&["notes.txt"]);
        let message = |name: &str| collect(&[dir.path().join(name)]).expect_err("nothing").to_string();
        assert!(message("absent.wav").contains("does not exist"));
        assert!(message("*.wav").contains("matches no recording"));
        assert!(message("").contains("holds no recording") && message("").contains(".opus"));
    }

    fn stems_of(paths: &[(&str, &str)]) -> Vec<String> {
        let inputs: Vec<Input> =
            paths.iter().map(|(path, name)| Input { path: Some(path.into()), name: name.into() }).collect();
        stems(&inputs).expect("different").iter().map(|stem| stem.display().to_string()).collect()
    }

    #[test]
    fn results_never_share_a_name() {
        assert_eq!(stems_of(&[("t/a.wav", "a.wav"), ("t/x/a.wav", "x/a.wav")]), ["a", "x/a"]);
        assert_eq!(stems_of(&[("x/a.wav", "a.wav"), ("y/a.wav", "a.wav"), ("b.wav", "b.wav")]), ["x/a", "y/a", "b"]);
        assert_eq!(stems_of(&[("/t/a.wav", "a.wav"), ("/t/a.mp3", "a.mp3")]), ["t/a.wav", "t/a.mp3"]);
        let twice = ["../a.wav", "a.wav"].map(|path| Input { path: Some(path.into()), name: "a.wav".into() });
        assert!(stems(&twice).expect_err("the same").to_string().contains("`../a.wav` and `a.wav`"));
        assert_eq!(with_ending(Path::new("t/a.b"), "srt"), Path::new("t/a.b.srt"));
    }
}
