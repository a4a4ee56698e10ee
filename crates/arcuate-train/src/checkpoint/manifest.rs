//! `manifest.json`: the size and the hash of every file of a checkpoint.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::disk::files_below;
use crate::error::{Error, Result};

const NAME: &str = "manifest.json";
const FORMAT: u32 = 1;
/// Manifests are small; anything larger was not written by us.
const MAX_BYTES: u64 = 16 << 20;

/// What a checkpoint folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this layout.
    pub format: u32,
    /// Steps made when the checkpoint was saved.
    pub step: u64,
    /// Files by their path in the folder, with `/` between names.
    pub files: BTreeMap<String, ManifestFile>,
}

/// One file of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its size.
    pub num_bytes: u64,
    /// BLAKE3 of its content, in hexadecimal.
    pub blake3: String,
}

impl Manifest {
    /// Measures and hashes every file of a folder.
    pub fn of_folder(dir: &Path, step: u64) -> Result<Self> {
        let mut files = BTreeMap::new();
        for path in files_below(dir)? {
            let inner = path.strip_prefix(dir).unwrap_or(&path);
            let names: Option<Vec<_>> = inner.components().map(|part| part.as_os_str().to_str()).collect();
            let Some(names) = names else {
                return Err(Error::damaged(dir, format!("the file name `{}` is not UTF-8", inner.display())));
            };
            let name = names.join("/");
            if name != NAME {
                files.insert(name, measure(&path)?);
            }
        }
        Ok(Self { format: FORMAT, step, files })
    }

    /// Writes `manifest.json` into a folder.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let path = dir.join(NAME);
        let mut text = serde_json::to_string_pretty(self).map_err(|error| Error::io("write", &path, error.into()))?;
        text.push('\n');
        std::fs::write(&path, text).map_err(|source| Error::io("write", &path, source))
    }

    /// Reads `manifest.json` of a folder, without looking at the other files.
    pub fn load(dir: &Path) -> Result<Self> {
        let manifest: Self = read_json(dir, NAME, MAX_BYTES)?;
        if manifest.format > FORMAT {
            return Err(Error::NewerFormat { path: dir.join(NAME), found: manifest.format, supported: FORMAT });
        }
        Ok(manifest)
    }

    /// Bytes of all files together.
    pub fn num_bytes(&self) -> u64 {
        self.files.values().fold(0, |sum, file| sum.saturating_add(file.num_bytes))
    }
}

/// Holds a checkpoint folder against its manifest: every file must be there with its size and hash. Other files may be
/// there too.
pub fn verify(dir: &Path) -> Result<Manifest> {
    let manifest = Manifest::load(dir)?;
    if manifest.files.is_empty() {
        return Err(Error::damaged(dir, "its manifest lists no files"));
    }
    // Sizes first: they cost nothing and find most damage.
    for (name, expected) in &manifest.files {
        if Path::new(name).components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(Error::damaged(dir, format!("its manifest lists `{name}`, which lies outside")));
        }
        let found = dir.join(name).metadata().map_err(|error| Error::damaged(dir, format!("`{name}`: {error}")))?;
        if !found.is_file() || found.len() != expected.num_bytes {
            let what = format!("`{name}` has {} bytes instead of {}", found.len(), expected.num_bytes);
            return Err(Error::damaged(dir, what));
        }
    }
    for (name, expected) in &manifest.files {
        let found = measure(&dir.join(name)).map_err(|error| Error::damaged(dir, error.to_string()))?;
        if found.blake3 != expected.blake3 {
            return Err(Error::damaged(dir, format!("the content of `{name}` is not what was written")));
        }
    }
    Ok(manifest)
}

/// Reads a JSON file of a checkpoint, up to a size; a file that is not as it was written is damage.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(dir: &Path, name: &str, max_bytes: u64) -> Result<T> {
    let path = dir.join(name);
    let damaged = |what: String| Error::damaged(dir, format!("`{name}`: {what}"));
    let file = File::open(&path).map_err(|error| damaged(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|source| Error::io("read", &path, source))?;
    if bytes.len() as u64 > max_bytes {
        return Err(damaged(format!("it is larger than {max_bytes} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))
}

fn measure(path: &Path) -> Result<ManifestFile> {
    let read = |source| Error::io("read", path, source);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).map_err(read)?).map_err(read)?;
    Ok(ManifestFile { num_bytes: hasher.count(), blake3: hasher.finalize().to_hex().to_string() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A folder with two files and a manifest.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::write(dir.path().join("model.safetensors"), b"weights").expect("a file");
        fs::create_dir(dir.path().join("tokenizer")).expect("a folder");
        fs::write(dir.path().join("tokenizer/vocab.txt"), b"").expect("a file");
        Manifest::of_folder(dir.path(), 400).and_then(|manifest| manifest.save(dir.path())).expect("a manifest");
        dir
    }

    fn damage(dir: &tempfile::TempDir) -> String {
        match verify(dir.path()) {
            Err(Error::Damaged { what, .. }) => what,
            other => panic!("not damaged: {other:?}"),
        }
    }

    #[test]
    fn a_whole_folder_verifies() {
        let manifest = verify(folder().path()).expect("nothing changed");
        assert_eq!((manifest.step, manifest.num_bytes()), (400, 7));
        assert_eq!(manifest.files.keys().collect::<Vec<_>>(), ["model.safetensors", "tokenizer/vocab.txt"]);
        let weights = &manifest.files["model.safetensors"];
        assert_eq!(weights.blake3, blake3::hash(b"weights").to_hex().to_string());
    }

    #[test]
    fn a_shorter_file_is_damage() {
        let dir = folder();
        fs::write(dir.path().join("model.safetensors"), b"weight").expect("writable");
        assert_eq!(damage(&dir), "`model.safetensors` has 6 bytes instead of 7");
    }

    #[test]
    fn one_flipped_bit_is_damage() {
        let dir = folder();
        fs::write(dir.path().join("model.safetensors"), b"weightr").expect("writable");
        assert_eq!(damage(&dir), "the content of `model.safetensors` is not what was written");
    }

    #[test]
    fn a_missing_file_is_damage() {
        let dir = folder();
        fs::remove_file(dir.path().join("tokenizer/vocab.txt")).expect("removable");
        assert!(damage(&dir).starts_with("`tokenizer/vocab.txt`: "));
    }

    #[test]
    fn a_missing_cut_off_or_empty_manifest_is_damage() {
        let dir = folder();
        let path = dir.path().join(NAME);
        let text = fs::read_to_string(&path).expect("readable");
        fs::write(&path, &text[..text.len() / 2]).expect("writable");
        assert!(damage(&dir).starts_with("`manifest.json`: EOF while parsing"));
        fs::write(&path, r#"{"format": 1, "step": 1, "files": {}}"#).expect("writable");
        assert_eq!(damage(&dir), "its manifest lists no files");
        fs::remove_file(&path).expect("removable");
        assert!(damage(&dir).starts_with("`manifest.json`: "));
    }

    #[test]
    fn further_files_do_no_harm() {
        let dir = folder();
        fs::write(dir.path().join("notes.txt"), b"mine").expect("writable");
        assert!(verify(dir.path()).is_ok());
    }

    #[test]
    fn a_manifest_may_not_point_outside() {
        for name in ["../secret", "/etc/passwd", "a/../../secret"] {
            let dir = folder();
            let file = ManifestFile { num_bytes: 0, blake3: String::new() };
            let files = BTreeMap::from([(name.to_owned(), file)]);
            Manifest { format: 1, step: 1, files }.save(dir.path()).expect("writable");
            assert_eq!(damage(&dir), format!("its manifest lists `{name}`, which lies outside"));
        }
    }

    #[test]
    fn a_newer_format_is_not_called_damage() {
        let dir = folder();
        Manifest { format: 2, step: 1, files: BTreeMap::new() }.save(dir.path()).expect("writable");
        let message = verify(dir.path()).expect_err("the format is unknown").to_string();
        assert!(message.ends_with("has format 2 but this version reads up to format 1; use the version that wrote it"));
    }

    #[test]
    fn an_endless_file_is_not_read_whole() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::os::unix::fs::symlink("/dev/zero", dir.path().join(NAME)).expect("a link");
        let error = read_json::<Manifest>(dir.path(), NAME, 1000).expect_err("it never ends");
        assert!(error.to_string().contains("larger than 1000 bytes"), "{error}");
    }
}
