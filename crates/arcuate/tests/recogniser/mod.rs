//! A tiny recogniser of random weights, and sounds for it.

use std::f64::consts::TAU;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tempfile::TempDir;

pub(crate) const RATE: usize = 16_000;

pub(crate) fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../arcuate-model/tests/references").join(name)
}

/// A folder with the recogniser `model`, of which the reference has 32 tokens.
pub(crate) fn folder(name: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let model = dir.path().join("model");
    fs::create_dir(&model).expect("writable");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(reference(name).join(file), model.join(file)).expect("copied");
    }
    let mut tokens: Vec<String> = ["<pad>", "<s>", "</s>", "<unk>", "|"].map(str::to_owned).to_vec();
    tokens.extend(('a'..='z').map(String::from));
    tokens.push("'".to_owned());
    let vocabulary: Map<String, Value> = tokens.into_iter().zip((0..).map(Value::from)).collect();
    fs::write(model.join("vocab.json"), Value::from(vocabulary).to_string()).expect("writable");
    let preprocessor = r#"{"do_normalize": true, "feature_size": 1, "sampling_rate": 16000}"#;
    fs::write(model.join("preprocessor_config.json"), preprocessor).expect("writable");
    dir
}

/// Something like a voice: syllables of a buzz for three seconds, then a pause as long; in a little noise.
pub(crate) fn voice(seconds: f64, pitch: f64) -> Vec<i16> {
    let mut state = 12345u32;
    (0..(seconds * RATE as f64) as usize)
        .map(|at| {
            let t = at as f64 / RATE as f64;
            let is_loud = t % 6.0 < 3.0;
            let syllable = (TAU * 2.3 * t).sin().max(0.0);
            let hz = pitch * (1.0 + 0.3 * (TAU * 0.4 * t).sin());
            let buzz: f64 = (1..12).map(|k| (TAU * hz * f64::from(k) * t).sin() / f64::from(k)).sum();
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f64::from(state >> 16) / 65536.0 - 0.5;
            let sound = if is_loud { 0.2 * syllable * buzz } else { 0.0 } + 0.002 * noise;
            (sound * 32767.0) as i16
        })
        .collect()
}

pub(crate) fn bytes(samples: &[i16]) -> Vec<u8> {
    samples.iter().flat_map(|x| x.to_le_bytes()).collect()
}

pub(crate) fn wav(samples: &[i16]) -> Vec<u8> {
    let data = bytes(samples);
    let (len, rate) = (data.len() as u32, RATE as u32);
    let mut file = b"RIFF".to_vec();
    file.extend((36 + len).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    file.extend(rate.to_le_bytes());
    file.extend((2 * rate).to_le_bytes());
    file.extend(b"\x02\0\x10\0data");
    file.extend(len.to_le_bytes());
    file.extend(data);
    file
}

pub(crate) fn write(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) {
    let path = dir.path().join(name);
    fs::create_dir_all(path.parent().expect("below the folder")).expect("writable");
    fs::write(path, content).expect("writable");
}
