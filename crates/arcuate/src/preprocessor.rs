//! `preprocessor_config.json` beside a speech network: how sound is prepared for it, as the public library writes it.

use std::path::Path;

use arcuate_data::{FilterBanks, Hearing};
use arcuate_model::Architecture;
use serde::Deserialize;
use serde_json::json;

use crate::{exit, terminal};

const FILE: &str = "preprocessor_config.json";

/// What is read of the file; absent keys have the defaults of the public library. Other keys are about other things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Preprocessor {
    #[serde(default = "default_sampling_rate")]
    sampling_rate: u32,
    #[serde(default = "default_do_normalize")]
    do_normalize: bool,
    /// Mel bins of a frame, and frames of a step, where the network hears such.
    #[serde(default = "default_num_mel_bins")]
    num_mel_bins: usize,
    #[serde(default = "default_stride")]
    stride: usize,
}

fn default_sampling_rate() -> u32 {
    16_000
}

fn default_do_normalize() -> bool {
    true
}

fn default_num_mel_bins() -> usize {
    80
}

fn default_stride() -> usize {
    2
}

/// What a network in a checkpoint folder was trained to hear; refuses a file that does not fit it. Without the file the published
/// defaults are taken, and the user is told.
pub(crate) fn hearing(dir: &Path, architecture: &Architecture) -> anyhow::Result<Hearing> {
    let Preprocessor { sampling_rate, do_normalize, num_mel_bins, stride } = read(dir)?;
    let num_features = architecture.num_features().unwrap_or(1);
    let filter_banks = (num_features > 1).then_some(FilterBanks { num_mel_bins, stride });
    let normalise = do_normalize || filter_banks.is_some();
    let hearing = Hearing { sample_rate_hz: sampling_rate, normalise, filter_banks };
    let shown = dir.display();
    if let Some(problem) = hearing.problem() {
        let message =
            format!("the filter banks of `{FILE}` in `{shown}`: {problem}; copy the file that belongs to the model");
        return Err(exit::usage(message));
    }
    if hearing.num_features() != num_features {
        return Err(exit::usage(format!(
            "`{shown}` hears {num_features} features a step, but `{FILE}` makes {num_mel_bins} bins of {stride} frames; copy the file that belongs to the model"
        )));
    }
    Ok(hearing)
}

fn read(dir: &Path) -> anyhow::Result<Preprocessor> {
    let path = dir.join(FILE);
    let shown = path.display();
    let wrong = |problem: String| exit::Coded {
        code: 4,
        message: format!("`{shown}` {problem}; copy the file that belongs to the model"),
    };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => "{}".to_owned(),
        Err(error) => return Err(wrong(format!("cannot be read: {error}")).into()),
    };
    let own: Preprocessor = serde_json::from_str(&text).map_err(|error| wrong(format!("cannot be used: {error}")))?;
    if !path.exists() {
        let message = format!(
            "`{shown}` is missing, so the published defaults are taken: {} Hz, mean 0 and variance 1",
            own.sampling_rate
        );
        terminal::say("note", &message);
    }
    if !(1000..=192_000).contains(&own.sampling_rate) {
        return Err(wrong(format!("has a `sampling_rate` of {}, not from 1000 to 192000", own.sampling_rate)).into());
    }
    Ok(own)
}

/// Writes what a network hears into its checkpoint folder.
pub(crate) fn save(hearing: Hearing, hears_padding: bool, dir: &Path) -> std::io::Result<()> {
    let value = match hearing.filter_banks {
        // Filter banks are always normalised, so no key says it.
        Some(FilterBanks { num_mel_bins, stride }) => json!({
            "feature_extractor_type": "SeamlessM4TFeatureExtractor",
            "feature_size": num_mel_bins,
            "num_mel_bins": num_mel_bins,
            "stride": stride,
            "sampling_rate": hearing.sample_rate_hz,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": true,
        }),
        None => json!({
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": hearing.sample_rate_hz,
            "do_normalize": hearing.normalise,
            "padding_side": "right",
            "padding_value": 0.0,
            // Published networks that hear padding were trained without a mask of it.
            "return_attention_mask": !hears_padding,
        }),
    };
    std::fs::write(dir.join(FILE), format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sampling_rate: u32, do_normalize: bool) -> Preprocessor {
        Preprocessor { sampling_rate, do_normalize, num_mel_bins: 80, stride: 2 }
    }

    #[test]
    fn what_was_written_is_read_and_what_is_missing_has_defaults() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(read(dir.path()).expect("defaults"), of(16_000, true));
        let mut hearing = Hearing { sample_rate_hz: 8000, normalise: false, filter_banks: None };
        save(hearing, false, dir.path()).expect("written");
        assert_eq!(read(dir.path()).expect("own"), of(8000, false));
        hearing.filter_banks = Some(FilterBanks { num_mel_bins: 40, stride: 3 });
        save(hearing, false, dir.path()).expect("written");
        let wanted = Preprocessor { num_mel_bins: 40, stride: 3, ..of(8000, true) };
        assert_eq!(read(dir.path()).expect("own"), wanted);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let message = |text: &str| {
            std::fs::write(dir.path().join(FILE), text).expect("written");
            read(dir.path()).expect_err("wrong").to_string()
        };
        assert!(message("{").contains("cannot be used"));
        assert!(message("{\"sampling_rate\": 1}").contains("`sampling_rate` of 1"));
    }
}
