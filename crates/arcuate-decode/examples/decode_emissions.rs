//! Decodes stored emissions, so that decoders can be compared: `decode_emissions FOLDER CONFIG`.
//!
//! The folder has `alphabet.json` (`tokens`, `blank`, `boundary`), `lengths.json` (frames of each recording) and
//! `emissions.f32` (log-probabilities of all recordings one after another, little-endian); the configuration is a
//! `CtcDecoderConfig` as JSON. Prints one hypothesis per line and at last the seconds that decoding took.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use arcuate_decode::ctc::{Alphabet, CtcDecoder, CtcDecoderConfig, Emissions, WordMarks};
use serde::Deserialize;

#[derive(Deserialize)]
struct Stored {
    tokens: Vec<String>,
    blank: String,
    boundary: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, config] = &arguments[..] else { return Err("usage: decode_emissions FOLDER CONFIG".into()) };
    let folder = Path::new(folder);
    let stored: Stored = serde_json::from_slice(&std::fs::read(folder.join("alphabet.json"))?)?;
    let lengths: Vec<usize> = serde_json::from_slice(&std::fs::read(folder.join("lengths.json"))?)?;
    let bytes = std::fs::read(folder.join("emissions.f32"))?;
    let values: Vec<f32> =
        bytes.chunks_exact(4).map(|value| f32::from_le_bytes([value[0], value[1], value[2], value[3]])).collect();
    let config: CtcDecoderConfig = serde_json::from_slice(&std::fs::read(config)?)?;
    let alphabet = Alphabet::new(&stored.tokens, &stored.blank, &WordMarks::Boundary(stored.boundary), &[])?;
    let width = alphabet.num_tokens();
    let decoder = CtcDecoder::load(&config, Arc::new(alphabet))?;
    let mut rest = &values[..];
    let mut texts = Vec::with_capacity(lengths.len());
    let start = Instant::now();
    for num_frames in lengths {
        let (own, after) = rest.split_at_checked(num_frames * width).ok_or("`emissions.f32` is too short")?;
        rest = after;
        let hypotheses = decoder.decode(&Emissions::from_log_probs(own, width)?)?;
        texts.extend(hypotheses.into_iter().next().map(|best| best.text));
    }
    let seconds = start.elapsed().as_secs_f64();
    let mut output = std::io::stdout().lock();
    for text in texts {
        writeln!(output, "{text}")?;
    }
    writeln!(output, "{seconds:.6}")?;
    Ok(())
}
