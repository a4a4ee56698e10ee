//! Numbers that other programs computed from one fixture, for tests; `tools/record_audio_reference.py` records them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::features::Features;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The sound of all fixtures: 0.4 s at 16 kHz.
pub(crate) fn speech() -> Vec<f32> {
    let options = crate::DecodeOptions::default();
    crate::decode_file(&data("speech_s16.wav"), &options).expect("the fixture can be read").samples
}

pub(crate) fn json() -> Value {
    let text = std::fs::read_to_string(data("reference.json")).expect("the fixture is there");
    serde_json::from_str(&text).expect("the fixture is JSON")
}

/// Some frames of a matrix of features, and its shape.
pub(crate) struct Recorded(Value);

impl Recorded {
    pub(crate) fn load(kind: &str, case: &str) -> Self {
        let all = &json()[kind];
        Self(if case.is_empty() { all.clone() } else { all[case].clone() })
    }

    pub(crate) fn assert_equal(&self, own: &Features, tolerance: f64) {
        let shape = [own.num_frames(), own.num_bins];
        assert_eq!(
            shape.map(|n| n as u64).map(Value::from),
            [self.0["num_frames"].clone(), self.0["num_bins"].clone()]
        );
        for (frame, wanted) in self.0["frames"].as_object().expect("frames by their index") {
            let found = own.frames().nth(frame.parse().expect("an index")).expect("the frame is there");
            for (bin, (found, wanted)) in found.iter().zip(wanted.as_array().expect("a row")).enumerate() {
                let wanted = wanted.as_f64().expect("a number");
                let error = (f64::from(*found) - wanted).abs();
                assert!(error <= tolerance * wanted.abs().max(1.0), "frame {frame} bin {bin}: {found}, not {wanted}");
            }
        }
    }
}
