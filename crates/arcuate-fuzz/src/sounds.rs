//! Sound files of all formats.

use std::io::{self, Cursor};
use std::path::Path;

use arcuate_audio::{DecodeOptions, Limits, Stream};

/// Sound that is decoded of one input at most: what is claimed must not cost more than what is there.
const MAX_SECONDS: f64 = 20.0;

fn options(bytes: &[u8]) -> DecodeOptions {
    let limits = Limits { max_seconds: MAX_SECONDS, max_decoded_bytes: 1 << 24, ..Limits::default() };
    // The length chooses, so that all ways are tried and each input always takes the same one.
    let way = bytes.len() % 4;
    DecodeOptions {
        limits,
        sample_rate_hz: (way == 1).then_some(16_000),
        start_seconds: if way == 2 { 0.1 } else { 0.0 },
        seconds: (way == 2).then_some(0.2),
        accept_damaged: way == 3,
    }
}

fn hear(stream: arcuate_audio::Result<Stream>) {
    let Ok(stream) = stream else { return };
    let rate = f64::from(stream.sample_rate_hz());
    let mut num_samples = 0;
    for block in stream {
        let Ok(block) = block else { return };
        assert!(block.iter().all(|sample| sample.is_finite()), "a sample that is no number");
        num_samples += block.len();
    }
    assert!(num_samples as f64 <= (MAX_SECONDS + 1.0) * rate, "{num_samples} samples at {rate} Hz");
}

/// From memory, where a reader may go back.
pub(crate) fn whole(bytes: &[u8]) {
    hear(Stream::open_bytes(bytes.to_vec(), None, &options(bytes)));
}

/// From a pipe.
pub(crate) fn piped(bytes: &[u8]) {
    hear(Stream::open_read(Cursor::new(bytes.to_vec()), "pipe", &options(bytes)));
}

pub(crate) fn seeds(root: &Path) -> io::Result<Vec<Vec<u8>>> {
    let mut paths: Vec<_> = std::fs::read_dir(root.join("crates/arcuate-audio/tests/data"))?.flatten().collect();
    paths.sort_by_key(std::fs::DirEntry::file_name);
    let is_sound =
        |path: &Path| path.extension().is_none_or(|ending| ending != "md" && ending != "rs" && ending != "json");
    paths.iter().map(std::fs::DirEntry::path).filter(|path| is_sound(path)).map(std::fs::read).collect()
}
