//! Opus packets to samples: stream header, output gain, trimming.
//!
//! # Reference
//! RFC 6716 (codec), RFC 7845 (header and its place in Ogg)

use std::panic::{AssertUnwindSafe, catch_unwind};

use opus_decoder::OpusDecoder;

/// Opus always decodes at this rate here.
pub(crate) const SAMPLE_RATE_HZ: u32 = 48_000;
/// The longest packet: 120 ms.
const MAX_PACKET_FRAMES: usize = 5760;

/// Decoder of one Opus track.
pub(crate) struct Opus {
    decoder: OpusDecoder,
    num_channels: usize,
    /// Factor on samples that the header asks for.
    gain: f32,
    /// Frames at the start of the track that only settle the decoder.
    pre_skip_frames: u64,
    buffer: Vec<f32>,
}

/// Why there is no decoder for a header.
pub(crate) enum Refusal {
    Broken(String),
    Unsupported(String),
}

impl Opus {
    /// A decoder for the track that `head` describes: an `OpusHead` as in Ogg, or the same fields big-endian as in MP4.
    pub(crate) fn new(head: &[u8]) -> Result<Self, Refusal> {
        let broken = |message: String| Err(Refusal::Broken(message));
        let Some(&[version, num_channels, skip_a, skip_b, _, _, _, _, gain_a, gain_b, family, ref mapping @ ..]) =
            head.strip_prefix(b"OpusHead")
        else {
            return broken(format!("the Opus header has {} bytes, or does not begin with `OpusHead`", head.len()));
        };
        // MP4 writes version 0 and big-endian numbers, Ogg and WebM version 1 and little-endian ones.
        let number = |a, b| if version == 0 { u16::from_be_bytes([a, b]) } else { u16::from_le_bytes([a, b]) };
        let num_channels = usize::from(num_channels);
        let num_streams = if family == 0 { 1 } else { mapping.first().copied().unwrap_or(0) };
        if num_channels > 2 || num_streams > 1 {
            let message = format!("Opus of {num_channels} channels in {num_streams} streams");
            return Err(Refusal::Unsupported(message));
        }
        let Ok(decoder) = OpusDecoder::new(SAMPLE_RATE_HZ, num_channels) else {
            return broken(format!("the Opus header has {num_channels} channels"));
        };
        // The gain is in 1/256 dB.
        let gain = 10f32.powf(f32::from(number(gain_a, gain_b) as i16) / (20.0 * 256.0));
        let pre_skip_frames = u64::from(number(skip_a, skip_b));
        Ok(Self { decoder, num_channels, gain, pre_skip_frames, buffer: Vec::new() })
    }

    pub(crate) fn num_channels(&self) -> usize {
        self.num_channels
    }

    pub(crate) fn pre_skip_frames(&self) -> u64 {
        self.pre_skip_frames
    }

    /// Forgets the past, to go on somewhere behind the start.
    pub(crate) fn reset(&mut self) {
        self.decoder.reset();
    }

    /// The packet's samples, interleaved, without `trim_end` frames at its end.
    pub(crate) fn decode(&mut self, packet: &[u8], trim_end: usize) -> Result<&[f32], String> {
        if packet.is_empty() {
            return Err("an Opus packet is empty".to_owned());
        }
        self.buffer.resize(MAX_PACKET_FRAMES * self.num_channels, 0.0);
        // The decoder has sums and indices that broken packets can make overflow, behind everything that is checked here.
        let decoded = catch_unwind(AssertUnwindSafe(|| self.decoder.decode_float(packet, &mut self.buffer, false)));
        let num_frames = match decoded {
            Ok(Ok(num_frames)) => num_frames,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => {
                self.decoder.reset();
                return Err("an Opus packet contradicts itself".to_owned());
            }
        };
        let samples = &mut self.buffer[..num_frames.saturating_sub(trim_end) * self.num_channels];
        if self.gain != 1.0 {
            samples.iter_mut().for_each(|x| *x *= self.gain);
        }
        Ok(samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: u8, num_channels: u8, pre_skip: [u8; 2], gain: [u8; 2], family: &[u8]) -> Vec<u8> {
        [b"OpusHead", &[version, num_channels][..], &pre_skip, &[0x80, 0xbb, 0, 0], &gain, family].concat()
    }

    #[test]
    fn both_byte_orders_are_read() {
        for own in [head(1, 2, [0x38, 1], [0, 0xfa], &[0]), head(0, 2, [1, 0x38], [0xfa, 0], &[0])] {
            let opus = Opus::new(&own).ok().expect("a plain header");
            assert_eq!((opus.pre_skip_frames(), opus.num_channels()), (312, 2));
            // -6 dB
            assert!((opus.gain - 0.501).abs() < 1e-3, "{}", opus.gain);
        }
    }

    #[test]
    fn impossible_headers_are_refused() {
        let zero = head(1, 0, [0; 2], [0; 2], &[0]);
        let whole = head(1, 1, [0; 2], [0; 2], &[0]);
        for own in [&zero[..], &whole[..18], b"", b"OpusTags"] {
            assert!(matches!(Opus::new(own), Err(Refusal::Broken(_))));
        }
        let surround = head(1, 6, [0; 2], [0; 2], &[1, 4, 2, 0, 4, 1, 2, 3, 5]);
        assert!(matches!(Opus::new(&surround), Err(Refusal::Unsupported(_))));
    }
}
