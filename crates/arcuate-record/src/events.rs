//! Event files for TensorBoard: TFRecord frames around hand-written protocol buffers.
//!
//! Only what this program logs is written: scalars, texts, and the session marks that make a reader forget the steps
//! that a resumed run does again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::clock::{unix_seconds, unix_time};
use crate::{Error, Result};

/// Writes one `events.out.tfevents.*` file.
#[derive(Debug)]
pub struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a new event file in the run folder. Where earlier ones lie, readers are told to forget all steps after
    /// `resume_step` (all steps for `None`): they are done again.
    pub fn create(run_path: &Path, resume_step: Option<u64>) -> Result<Self> {
        let cannot = |cause| Error::io("write", run_path, cause);
        let newest = newest_event_file(run_path).map_err(cannot)?;
        // Readers take the files in the order of their names, so a new one must come after all earlier ones.
        let mut second = newest.map_or_else(unix_seconds, |newest| unix_seconds().max(newest.saturating_add(1)));
        let (path, file) = loop {
            let name = format!("events.out.tfevents.{second:010}.{}.{}", host_name(), std::process::id());
            let path = run_path.join(name);
            match OpenOptions::new().append(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => second += 1,
                Err(cause) => return Err(Error::io("write", &path, cause)),
            }
        };
        let mut writer = Self { path, file };
        writer.write(&file_version_event(unix_time()))?;
        if newest.is_some() {
            writer.write(&session_start_event(unix_time(), resume_step.map_or(0, |step| step + 1)))?;
        }
        Ok(writer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the values of one step, each under `prefix/name`.
    pub fn scalars(&mut self, step: u64, prefix: &str, values: &BTreeMap<String, f64>) -> Result<()> {
        if values.is_empty() {
            return Ok(());
        }
        self.write(&scalars_event(unix_time(), step, prefix, values))
    }

    /// Writes a text, shown under the tab of that name; Markdown.
    pub fn text(&mut self, step: u64, tag: &str, text: &str) -> Result<()> {
        self.write(&text_event(unix_time(), step, tag, text))
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        self.file.write_all(&frame(event)).map_err(|cause| Error::io("write", &self.path, cause))
    }
}

/// The time in the name of the newest event file.
fn newest_event_file(run_path: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in fs::read_dir(run_path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix("events.out.tfevents.") else { continue };
        newest = newest.max(Some(rest.split('.').next().and_then(|second| second.parse().ok()).unwrap_or(0)));
    }
    Ok(newest)
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname");
    let name: String =
        name.unwrap_or_default().trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    if name.is_empty() { "localhost".into() } else { name }
}

// The messages: field numbers are those of `event.proto`, `summary.proto` and `tensor.proto`.

fn file_version_event(wall_time: f64) -> Vec<u8> {
    let mut event = event_head(wall_time, 0);
    put_bytes(&mut event, 3, b"brain.Event:2");
    event
}

fn session_start_event(wall_time: f64, step: u64) -> Vec<u8> {
    const START: u64 = 1;
    let mut session_log = Vec::new();
    put_integer(&mut session_log, 1, START);
    let mut event = event_head(wall_time, step);
    put_bytes(&mut event, 7, &session_log);
    event
}

fn scalars_event(wall_time: f64, step: u64, prefix: &str, values: &BTreeMap<String, f64>) -> Vec<u8> {
    let mut summary = Vec::new();
    for (name, &number) in values {
        let mut value = Vec::new();
        put_bytes(&mut value, 1, format!("{prefix}/{name}").as_bytes());
        put_float(&mut value, 2, number as f32);
        put_bytes(&mut summary, 1, &value);
    }
    let mut event = event_head(wall_time, step);
    put_bytes(&mut event, 5, &summary);
    event
}

fn text_event(wall_time: f64, step: u64, tag: &str, text: &str) -> Vec<u8> {
    const STRING: u64 = 7;
    const DATA_CLASS_TENSOR: u64 = 2;
    let mut plugin = Vec::new();
    put_bytes(&mut plugin, 1, b"text");
    let mut metadata = Vec::new();
    put_bytes(&mut metadata, 1, &plugin);
    put_integer(&mut metadata, 4, DATA_CLASS_TENSOR);
    let mut tensor = Vec::new();
    put_integer(&mut tensor, 1, STRING);
    put_bytes(&mut tensor, 2, b""); // the shape of a single value
    put_bytes(&mut tensor, 8, text.as_bytes());
    let mut value = Vec::new();
    put_bytes(&mut value, 1, tag.as_bytes());
    put_bytes(&mut value, 8, &tensor);
    put_bytes(&mut value, 9, &metadata);
    let mut summary = Vec::new();
    put_bytes(&mut summary, 1, &value);
    let mut event = event_head(wall_time, step);
    put_bytes(&mut event, 5, &summary);
    event
}

fn event_head(wall_time: f64, step: u64) -> Vec<u8> {
    let mut event = Vec::new();
    event.push((1 << 3) | 1); // field 1, eight bytes
    event.extend_from_slice(&wall_time.to_le_bytes());
    if step > 0 {
        put_integer(&mut event, 2, step);
    }
    event
}

fn put_integer(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, (field << 3) | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_float(out: &mut Vec<u8>, field: u64, value: f32) {
    put_varint(out, (field << 3) | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

// The TFRecord frame: length, its checksum, content, its checksum.

fn frame(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut bytes = Vec::with_capacity(content.len() + 16);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&masked(crc32c(&length)).to_le_bytes());
    bytes.extend_from_slice(content);
    bytes.extend_from_slice(&masked(crc32c(content)).to_le_bytes());
    bytes
}

/// Checksums are stored rotated, so that data which holds checksums can be checked itself.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 of Castagnoli, bit-reversed polynomial.
fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = crc_table();
    !bytes.iter().fold(!0, |crc, &byte| TABLE[(crc as u8 ^ byte) as usize] ^ (crc >> 8))
}

const fn crc_table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_agree_with_the_published_vectors() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    /// What `RecordWriter` of the Python package tensorboard 2.21 writes for the same events.
    #[test]
    fn bytes_agree_with_the_python_writer() {
        let hex = |event: &[u8]| frame(event).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let values = BTreeMap::from([("loss".to_owned(), 2.5)]);
        let cases = [
            (
                scalars_event(1.5, 300, "train", &values),
                "2100000000000000017becf609000000000000f83f10ac022a130a110a0a747261696e2f6c6f73731500002040b4ca3a3b",
            ),
            (
                file_version_event(1.5),
                "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c",
            ),
            (session_start_event(1.5, 401), "100000000000000095fbfe1809000000000000f83f1091033a020801a5bbac9f"),
            (
                text_event(1.5, 1, "s", "hi"),
                "2800000000000000ff70164a09000000000000f83f10012a1b0a190a0173420808071200420268694a0a0a060a0474657874\
                 20021bdf3557",
            ),
        ];
        for (event, expected) in cases {
            assert_eq!(hex(&event), expected);
        }
    }

    #[test]
    fn files_of_one_second_keep_their_order() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let paths: Vec<_> =
            (0..3).map(|_| EventWriter::create(folder.path(), None).expect("creates").path().to_path_buf()).collect();
        assert!(paths.is_sorted() && paths[0] != paths[1] && paths[1] != paths[2], "{paths:?}");
    }

    #[test]
    fn only_a_resumed_run_starts_a_session() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = EventWriter::create(folder.path(), None).expect("creates");
        assert_eq!(fs::metadata(first.path()).expect("exists").len(), 16 + 9 + 15);
        let second = EventWriter::create(folder.path(), Some(400)).expect("creates");
        let bytes = fs::read(second.path()).expect("reads");
        // Step 401 as a varint, then field 7 with the status START.
        assert!(bytes.windows(7).any(|window| window == [0x10, 0x91, 0x03, 0x3a, 0x02, 0x08, 0x01]), "{bytes:x?}");
    }

    #[test]
    fn long_texts_get_longer_lengths() {
        let event = text_event(0.0, 1, "sample", &"x".repeat(300));
        let tensor_head = [0x42, 0xac, 0x02, b'x'];
        assert!(event.windows(4).any(|window| window == tensor_head));
    }
}
