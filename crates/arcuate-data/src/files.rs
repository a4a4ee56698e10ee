//! From the `path` of a source to a sorted list of files with their formats.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::SourceConfig;
use crate::error::{Error, Result, SUPPORTED};

const BUFFER_BYTES: usize = 256 << 10;
const MAX_FOLDER_DEPTH: usize = 64;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    JsonLines,
    Parquet,
    Text,
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
}

/// One file of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputFile {
    pub(crate) path: PathBuf,
    /// Path below the source's folder, with `/`: the same on every machine.
    pub(crate) name: String,
    pub(crate) format: Format,
    pub(crate) compression: Compression,
    pub(crate) num_bytes: u64,
}

/// Format and compression by the ending, if it is a known one.
fn classify(path: &Path) -> Option<(Format, Compression)> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let (stem, compression) = if let Some(stem) = name.strip_suffix(".gz") {
        (stem, Compression::Gzip)
    } else if let Some(stem) = name.strip_suffix(".zst") {
        (stem, Compression::Zstd)
    } else {
        (name.as_str(), Compression::None)
    };
    let format = match stem.rsplit_once('.')?.1 {
        "jsonl" | "ndjson" | "json" => Format::JsonLines,
        "txt" => Format::Text,
        "parquet" if compression == Compression::None => Format::Parquet,
        _ => return None,
    };
    Some((format, compression))
}

/// A file below a folder or a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) path: PathBuf,
    /// Path below the folder, or below the part of the pattern without wildcards, with `/`: the same on every machine.
    pub(crate) name: String,
}

/// Whether a file holds JSON lines, by its ending.
pub(crate) fn is_json_lines(path: &Path) -> bool {
    matches!(classify(path), Some((Format::JsonLines, _)))
}

/// The files of a source, sorted by name.
pub(crate) fn resolve(name: &str, source: &SourceConfig) -> Result<Vec<InputFile>> {
    let path = Path::new(&source.path);
    if path.exists() && !path.is_dir() && classify(path).is_none() {
        return Err(Error::UnknownFormat { path: path.to_owned() });
    }
    let found = list(name, &source.path, SUPPORTED, &|path| classify(path).is_some())?;
    found.into_iter().filter_map(|file| input_file(file).transpose()).collect()
}

/// The files that a path names, sorted by name: the file itself, those of a folder (read recursively) or of a pattern that are
/// wanted. `name` is that of the source, `wanted` says in messages how the files end.
pub(crate) fn list(
    name: &str,
    path: &str,
    wanted: &'static str,
    is_wanted: &dyn Fn(&Path) -> bool,
) -> Result<Vec<Listed>> {
    let is_pattern = path.contains(['*', '?', '[']);
    let at = Path::new(path);
    let mut files = match fs::metadata(at) {
        Ok(metadata) if metadata.is_dir() => {
            let mut found = Vec::new();
            walk(at, at, &mut BTreeSet::new(), 0, is_wanted, &mut found)?;
            found
        }
        Ok(_) => vec![Listed::below(at.to_owned(), at.parent().unwrap_or(Path::new("")))],
        Err(_) if is_pattern => expand(name, path, is_wanted)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NotFound { name: name.to_owned(), path: path.to_owned() });
        }
        Err(error) => return Err(Error::read(at, error)),
    };
    files.sort_by(|a, b| a.name.cmp(&b.name));
    if files.is_empty() {
        return Err(Error::NoFiles { name: name.to_owned(), path: path.to_owned(), wanted });
    }
    Ok(files)
}

fn expand(name: &str, pattern: &str, is_wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<Listed>> {
    let paths = glob::glob(pattern).map_err(|error| Error::BadPattern {
        name: name.to_owned(),
        path: pattern.to_owned(),
        detail: error.to_string(),
    })?;
    // Names are taken below the part without wildcards.
    let fixed = &pattern[..pattern.find(['*', '?', '[']).unwrap_or(0)];
    let root = fixed.rsplit_once('/').map_or(Path::new(""), |(root, _)| Path::new(root)).to_owned();
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| {
            let path = error.path().to_owned();
            Error::read(&path, error.into())
        })?;
        if path.is_file() && is_wanted(&path) {
            files.push(Listed::below(path, &root));
        }
    }
    Ok(files)
}

fn walk(
    dir: &Path,
    root: &Path,
    above: &mut BTreeSet<PathBuf>,
    depth: usize,
    is_wanted: &dyn Fn(&Path) -> bool,
    files: &mut Vec<Listed>,
) -> Result<()> {
    let real = dir.canonicalize().map_err(|source| Error::read(dir, source))?;
    // A link back to a folder above would never end.
    if depth > MAX_FOLDER_DEPTH || !above.insert(real.clone()) {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(|source| Error::read(dir, source))? {
        let entry = entry.map_err(|source| Error::read(dir, source))?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        let metadata = fs::metadata(&path).map_err(|source| Error::read(&path, source))?;
        if metadata.is_dir() {
            walk(&path, root, above, depth + 1, is_wanted, files)?;
        } else if metadata.is_file() && is_wanted(&path) {
            files.push(Listed::below(path, root));
        }
    }
    above.remove(&real);
    Ok(())
}

impl Listed {
    /// The folder of the file.
    pub(crate) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// The part of the name before that of the file itself, with `/` at its end; empty right below the folder.
    pub(crate) fn prefix(&self) -> &str {
        &self.name[..self.name.rfind('/').map_or(0, |at| at + 1)]
    }

    fn below(path: PathBuf, root: &Path) -> Self {
        let below = path.strip_prefix(root).unwrap_or(&path);
        let parts: Vec<String> =
            below.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
        let name = parts.join("/");
        Self { path, name }
    }
}

/// `None` for a file with another ending.
fn input_file(file: Listed) -> Result<Option<InputFile>> {
    let Listed { path, name } = file;
    let Some((format, compression)) = classify(&path) else { return Ok(None) };
    let metadata = fs::metadata(&path).map_err(|source| Error::read(&path, source))?;
    Ok(Some(InputFile { path, name, format, compression, num_bytes: metadata.len() }))
}

impl InputFile {
    /// A list of any name, compressed if it ends in `.gz` or `.zst`.
    pub(crate) fn list(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|source| Error::read(path, source))?;
        let compression = match path.extension().and_then(|ending| ending.to_str()) {
            Some("gz") => Compression::Gzip,
            Some("zst") => Compression::Zstd,
            _ => Compression::None,
        };
        let name = path.to_string_lossy().into_owned();
        Ok(Self { path: path.to_owned(), name, format: Format::Text, compression, num_bytes: metadata.len() })
    }

    /// Opens the file and undoes its compression; bytes read from disk are added to `progress`.
    pub(crate) fn open(&self, progress: &Arc<AtomicU64>) -> Result<Box<dyn BufRead + Send>> {
        let file = File::open(&self.path).map_err(|source| Error::read(&self.path, source))?;
        let counted = Counted { inner: file, count: Arc::clone(progress) };
        let reader = BufReader::with_capacity(BUFFER_BYTES, counted);
        Ok(match self.compression {
            Compression::None => Box::new(reader),
            Compression::Gzip => {
                Box::new(BufReader::with_capacity(BUFFER_BYTES, flate2::bufread::MultiGzDecoder::new(reader)))
            }
            Compression::Zstd => {
                let decoder =
                    zstd::stream::read::Decoder::with_buffer(reader).map_err(|source| self.read_error(source, 0))?;
                Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
            }
        })
    }

    /// What an error of the reader from [`Self::open`] means.
    pub(crate) fn read_error(&self, error: std::io::Error, line: u64) -> Error {
        use std::io::ErrorKind;
        let path = self.path.clone();
        let is_packed = self.compression != Compression::None;
        match error.kind() {
            ErrorKind::UnexpectedEof if is_packed => Error::Truncated { path, line },
            ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::Other if is_packed => {
                Error::DamagedFile { path, line, detail: error.to_string() }
            }
            _ => Error::Io { action: "read", path, source: error },
        }
    }
}

/// Counts what passes through.
struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: String) -> Vec<String> {
        let files = resolve("a", &SourceConfig::new(path)).expect("there are files");
        files.into_iter().map(|file| file.name).collect()
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir_all(dir.path().join("b/c")).expect("writable");
        for name in ["z.jsonl", "b/c/x.txt.gz", "b/y.parquet", "README.md", ".hidden.txt", "b/a.JSON.zst"] {
            fs::write(dir.path().join(name), "x").expect("writable");
        }
        dir
    }

    #[test]
    fn a_folder_is_read_recursively_in_sorted_order() {
        let dir = tree();
        let expected = ["b/a.JSON.zst", "b/c/x.txt.gz", "b/y.parquet", "z.jsonl"];
        assert_eq!(names(dir.path().display().to_string()), expected);
    }

    #[test]
    fn a_pattern_finds_the_same_names() {
        let dir = tree();
        assert_eq!(names(format!("{}/b/**/*", dir.path().display())), ["a.JSON.zst", "c/x.txt.gz", "y.parquet"]);
        assert_eq!(names(format!("{}/*.jsonl", dir.path().display())), ["z.jsonl"]);
    }

    #[test]
    fn a_folder_linked_into_itself_ends() {
        let dir = tree();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("b/loop")).expect("links work");
        assert_eq!(names(dir.path().display().to_string()).len(), 4);
    }

    #[test]
    fn nothing_to_read_is_an_error_with_the_path() {
        let dir = tree();
        let fails = |path: String| resolve("a", &SourceConfig::new(path)).expect_err("nothing there");
        let at = |name: &str| format!("{}/{name}", dir.path().display());
        assert!(matches!(fails(at("missing.jsonl")), Error::NotFound { .. }));
        assert!(matches!(fails(at("*.csv")), Error::NoFiles { .. }));
        assert!(matches!(fails(at("README.md")), Error::UnknownFormat { .. }));
        assert!(matches!(fails(at("***")), Error::BadPattern { .. }));
    }
}
