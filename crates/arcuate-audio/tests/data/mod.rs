//! The fixtures, and WAV files made on the spot.

use std::path::{Path, PathBuf};

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

pub(crate) fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).expect("the fixture is there")
}

/// A WAV file of that format tag (1 whole numbers, 3 floats).
pub(crate) fn wav(tag: u16, num_channels: u16, sample_rate_hz: u32, bits: u16, data: &[u8]) -> Vec<u8> {
    let frame = num_channels * (bits / 8);
    let mut out = b"RIFF".to_vec();
    out.extend((36 + data.len() as u32).to_le_bytes());
    out.extend(b"WAVEfmt \x10\0\0\0");
    out.extend(tag.to_le_bytes());
    out.extend(num_channels.to_le_bytes());
    out.extend(sample_rate_hz.to_le_bytes());
    out.extend((sample_rate_hz.wrapping_mul(u32::from(frame))).to_le_bytes());
    out.extend(frame.to_le_bytes());
    out.extend(bits.to_le_bytes());
    out.extend(b"data");
    out.extend((data.len() as u32).to_le_bytes());
    out.extend(data);
    out
}
