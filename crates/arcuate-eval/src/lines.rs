//! Lines of a task file, plain, `.gz` or `.zst`, each of bounded length.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Longest line of a task file.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// Opens a file and unpacks it by its ending.
pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead>> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let file = BufReader::new(File::open(path).map_err(io)?);
    Ok(match path.extension().and_then(|ending| ending.to_str()) {
        Some("gz") => Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(file))),
        Some("zst") => Box::new(BufReader::new(zstd::Decoder::with_buffer(file).map_err(io)?)),
        _ => Box::new(file),
    })
}

/// The objects of a JSONL file, with their lines; empty lines are passed over. Ends after an error.
pub(crate) fn json_lines<T: DeserializeOwned>(path: &Path) -> Result<impl Iterator<Item = Result<(u64, T)>>> {
    let mut reader = open(path)?;
    let path: PathBuf = path.to_path_buf();
    let mut line = 0u64;
    let mut is_over = false;
    Ok(std::iter::from_fn(move || {
        while !is_over {
            line += 1;
            let mut bytes = Vec::new();
            let problem = |problem: String| Error::Line { path: path.clone(), line, problem };
            let result = match (&mut reader).take(MAX_LINE_BYTES + 1).read_until(b'\n', &mut bytes) {
                Ok(0) => return None,
                Ok(_) if bytes.len() as u64 > MAX_LINE_BYTES => {
                    Err(problem(format!("the line is longer than {MAX_LINE_BYTES} bytes; split it")))
                }
                Ok(_) if bytes.trim_ascii().is_empty() => continue,
                Ok(_) => serde_json::from_slice(&bytes).map_err(|error| problem(error.to_string())),
                Err(error) => Err(problem(format!("cannot be read: {error}"))),
            };
            is_over = result.is_err();
            return Some(result.map(|item| (line, item)));
        }
        None
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(name: &str, bytes: &[u8]) -> Vec<Result<(u64, Vec<u8>)>> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("writes");
        json_lines(&path).expect("opens").collect()
    }

    #[test]
    fn packed_files_read_as_plain_ones() {
        let text = b"[1]\n\n[2,3]";
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text).expect("packs");
        let gz = gz.finish().expect("packs");
        let zst = zstd::encode_all(&text[..], 1).expect("packs");
        for (name, bytes) in [("a.jsonl", &text[..]), ("a.jsonl.gz", &gz), ("a.jsonl.zst", &zst)] {
            let items: Vec<_> = read(name, bytes).into_iter().map(|item| item.expect("sound")).collect();
            assert_eq!(items, [(1, vec![1]), (3, vec![2, 3])], "{name}");
        }
    }

    #[test]
    fn a_broken_line_is_named_and_ends_the_reading() {
        let items = read("a.jsonl", b"[1]\n[2\n[3]\n");
        assert_eq!(items.len(), 2);
        let error = items[1].as_ref().expect_err("broken").to_string();
        assert!(error.contains("a.jsonl`:2: EOF while parsing"), "{error}");
    }

    #[test]
    fn a_truncated_archive_is_an_error() {
        let zst = zstd::encode_all(&b"[1]\n[2]\n".repeat(50)[..], 1).expect("packs");
        let items = read("a.jsonl.zst", &zst[..zst.len() - 5]);
        assert!(items.last().expect("something").is_err());
    }
}
