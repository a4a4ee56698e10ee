//! Sounds and archives for the tests, written byte by byte.

use std::sync::Arc;

use ::parquet::data_type::{ByteArray, ByteArrayType, DoubleType};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use crate::testing::Folder;

pub(crate) const RATE: u32 = 16_000;

impl Folder {
    pub(crate) fn at(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }
}

/// A tone of 440 Hz at a quarter of full scale.
pub(crate) fn sine(seconds: f64) -> Vec<i16> {
    let num = (seconds * f64::from(RATE)).round() as usize;
    (0..num).map(|at| (8192.0 * (at as f64 * 440.0 * std::f64::consts::TAU / f64::from(RATE)).sin()) as i16).collect()
}

/// A mono WAV file of 16 bits at 16 kHz.
pub(crate) fn wav(samples: &[i16]) -> Vec<u8> {
    let len = samples.len() as u32 * 2;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + len).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend(RATE.to_le_bytes());
    bytes.extend((RATE * 2).to_le_bytes());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend(len.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes
}

/// A WAV file of 32-bit floats.
pub(crate) fn float_wav(samples: &[f32]) -> Vec<u8> {
    let len = samples.len() as u32 * 4;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + len).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x03\0\x01\0");
    bytes.extend(RATE.to_le_bytes());
    bytes.extend((RATE * 4).to_le_bytes());
    bytes.extend(b"\x04\0\x20\0data");
    bytes.extend(len.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes
}

/// A header of ustar; `size` may lie.
pub(crate) fn tar_header(name: &str, kind: u8, size: u64) -> Vec<u8> {
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[148..156].fill(b' ');
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A member with its content.
pub(crate) fn tar_member(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = tar_header(name, b'0', content.len() as u64);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// An archive with its end.
pub(crate) fn tar(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// A row of a table: sound, its name, a text and seconds.
pub(crate) type TableRow<'a> = (Option<Vec<u8>>, &'a str, Option<&'a str>, f64);

/// A table as the hub stores it, one row group for each slice.
pub(crate) fn table(groups: &[&[TableRow<'_>]]) -> Vec<u8> {
    let schema = "message schema {
        optional group audio { optional binary bytes; optional binary path (UTF8); }
        optional binary text (UTF8);
        required double seconds;
    }";
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).expect("memory");
    for rows in groups {
        let mut group = file.next_row_group().expect("a group");
        let mut number = 0;
        while let Some(mut column) = group.next_column().expect("a column") {
            let texts: Vec<(i16, Option<ByteArray>)> = rows
                .iter()
                .map(|(bytes, path, text, _)| match number {
                    0 => (if bytes.is_some() { 2 } else { 1 }, bytes.clone().map(ByteArray::from)),
                    1 => (2, Some(ByteArray::from(path.as_bytes().to_vec()))),
                    _ => (i16::from(text.is_some()), text.map(ByteArray::from)),
                })
                .collect();
            let levels: Vec<i16> = texts.iter().map(|(level, _)| *level).collect();
            let values: Vec<ByteArray> = texts.into_iter().filter_map(|(_, value)| value).collect();
            let seconds: Vec<f64> = rows.iter().map(|(_, _, _, seconds)| *seconds).collect();
            match number {
                3 => column.typed::<DoubleType>().write_batch(&seconds, None, None),
                _ => column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None),
            }
            .expect("values");
            column.close().expect("written");
            number += 1;
        }
        group.close().expect("written");
    }
    file.into_inner().expect("written")
}
