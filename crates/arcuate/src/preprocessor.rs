//! `preprocessor_config.json` beside a speech network: how sound is prepared for it, as the public library writes it.

use std::path::Path;

use anyhow::Context;
use arcuate_data::SpeechConfig;
use serde::Deserialize;
use serde_json::json;

use crate::exit;

const FILE: &str = "preprocessor_config.json";

/// What decides about the sound; absent keys have the defaults of the public library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) struct Preprocessor {
    /// Samples a second.
    #[serde(default = "default_sampling_rate")]
    pub sampling_rate: u32,
    /// Whether each utterance is brought to mean 0 and variance 1.
    #[serde(default = "default_do_normalize")]
    pub do_normalize: bool,
}

fn default_sampling_rate() -> u32 {
    16_000
}

fn default_do_normalize() -> bool {
    true
}

impl Preprocessor {
    /// That of a checkpoint folder; the defaults where there is none.
    pub(crate) fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => "{}".to_owned(),
            Err(error) => return Err(error).with_context(|| format!("cannot read `{}`", path.display())),
        };
        let wrong = |problem: String| exit::Coded {
            code: 4,
            message: format!("`{}` {problem}; copy the file that belongs to the model", path.display()),
        };
        let own: Self = serde_json::from_str(&text).map_err(|error| wrong(format!("cannot be used: {error}")))?;
        if !(1000..=192_000).contains(&own.sampling_rate) {
            return Err(wrong(format!("has a `sampling_rate` of {}", own.sampling_rate)).into());
        }
        Ok(own)
    }

    /// Writes what a recipe says into a checkpoint folder.
    pub(crate) fn save(speech: &SpeechConfig, hears_padding: bool, dir: &Path) -> std::io::Result<()> {
        let value = json!({
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": speech.sample_rate_hz,
            "do_normalize": speech.normalise,
            "padding_side": "right",
            "padding_value": 0.0,
            // Published networks that hear padding were trained without a mask of it.
            "return_attention_mask": !hears_padding,
        });
        std::fs::write(dir.join(FILE), format!("{value:#}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_missing_has_defaults() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let read = || Preprocessor::read(dir.path());
        assert_eq!(read().expect("defaults"), Preprocessor { sampling_rate: 16_000, do_normalize: true });
        let speech = json!({"source": {}, "sample_rate_hz": 8000, "normalise": false});
        let speech: SpeechConfig = serde_json::from_value(speech).expect("a table");
        Preprocessor::save(&speech, false, dir.path()).expect("written");
        assert_eq!(read().expect("own"), Preprocessor { sampling_rate: 8000, do_normalize: false });
        std::fs::write(dir.path().join(FILE), "{\"sampling_rate\": 1}").expect("written");
        assert!(read().expect_err("no rate").to_string().contains("`sampling_rate` of 1"));
    }
}
