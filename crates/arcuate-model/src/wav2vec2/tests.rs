//! The published sizes.

use crate::{Architecture, Head, ModelConfig};

const QUANTIZER: &str =
    r#""quantizer": {"num_codebooks": 2, "codebook_size": 320, "code_size": 256, "projection_size": 256}"#;

fn published(sizes: &str, rest: &str) -> ModelConfig {
    serde_json::from_str(&format!(r#"{{"wav2vec2": {{{sizes}, "conv_channels": 512, {rest}}}}}"#)).expect("a model")
}

fn base() -> ModelConfig {
    let sizes = r#""hidden_size": 768, "num_layers": 12, "num_heads": 12, "intermediate_size": 3072"#;
    published(sizes, &format!(r#""conv_bias": false, "feature_norm": "group", "pre_norm": false, {QUANTIZER}"#))
}

fn large() -> ModelConfig {
    let sizes = r#""hidden_size": 1024, "num_layers": 24, "num_heads": 16, "intermediate_size": 4096"#;
    let quantizer = QUANTIZER.replace("256", "768");
    published(sizes, &format!(r#""conv_bias": true, "feature_norm": "layer", "pre_norm": true, {quantizer}"#))
}

fn architecture(config: &ModelConfig, head: Head) -> Architecture {
    Architecture::new(config, 32, head).expect("possible")
}

#[test]
fn parameters_are_as_many_as_published() {
    for (config, wanted) in [(base(), 95_044_608), (large(), 317_390_592)] {
        let architecture = architecture(&config, Head::Codes);
        let count: usize = architecture.parameters().iter().map(|info| info.len()).sum();
        assert_eq!(count, wanted);
        assert!((architecture.estimate() / wanted as f64 - 1.0).abs() < 0.01);
    }
    // With a map over 32 characters instead of what pretraining needs.
    let count: usize = architecture(&large(), Head::Tokens).parameters().iter().map(|info| info.len()).sum();
    assert_eq!((count - 32 * 1025) / 100_000, 3154);
}

#[test]
fn a_frame_is_400_samples_and_the_next_one_320_later() {
    let downsampling = architecture(&base(), Head::Tokens).downsampling().expect("hears");
    let known = [(399, 0), (400, 1), (719, 1), (720, 2), (16000, 49), (32000, 99), (80000, 249), (320_000, 999)];
    for (samples, frames) in known {
        assert_eq!(downsampling.num_frames(samples), frames, "{samples}");
    }
    assert_eq!(architecture(&base(), Head::Tokens).num_features(), Some(1));
}

#[test]
fn the_work_of_a_frame_counts_convolutions_at_their_own_rate() {
    // 10 s in rows of 499 frames, BASE: the convolutions by hand, at 5 times the rate of the layer before.
    let flops = architecture(&base(), Head::Tokens).forward_flops(499);
    let mut convolutions = 512.0 * 512.0 * (2.0 + 2.0 * 2.0 + 3.0 * 4.0 + 3.0 * 8.0 + 3.0 * 16.0 + 3.0 * 32.0);
    convolutions += 64.0 * 512.0 * 10.0;
    let encoder = 12.0 * (4.0 * 768.0 * 768.0 + 2.0 * 768.0 * 3072.0) + 768.0 * 48.0 * 128.0 + 512.0 * 768.0;
    let attention = 4.0 * 12.0 * 499.0 * 768.0;
    let wanted = 2.0 * (convolutions + encoder + 32.0 * 768.0) + attention;
    assert!((flops / wanted - 1.0).abs() < 1e-9, "{flops} {wanted}");
}
