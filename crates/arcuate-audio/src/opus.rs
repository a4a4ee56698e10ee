//! Opus packets to samples: stream header, pre-skip, output gain, trimming.
//!
//! # Reference
//! RFC 6716 (codec), RFC 7845 (header and its place in Ogg)

use opus_decoder::OpusMultistreamDecoder;

/// Opus always decodes at this rate here.
pub(crate) const SAMPLE_RATE_HZ: u32 = 48_000;
/// The longest packet: 120 ms.
const MAX_PACKET_FRAMES: usize = 5760;

/// Decoder of one Opus track, with one or several streams.
pub(crate) struct Opus {
    decoder: OpusMultistreamDecoder,
    num_channels: usize,
    /// Factor on samples that the header asks for.
    gain: f32,
    /// Frames at the start that only settle the decoder.
    left_to_skip_frames: usize,
    buffer: Vec<f32>,
}

impl Opus {
    /// A decoder for the stream that `head` describes: an `OpusHead` as in Ogg, or the same fields big-endian as in MP4.
    pub(crate) fn new(head: &[u8]) -> Result<Self, String> {
        let body = head.strip_prefix(b"OpusHead").ok_or("the Opus header has no `OpusHead`")?;
        let &[version, num_channels, skip_a, skip_b, _, _, _, _, gain_a, gain_b, family, ref rest @ ..] = body else {
            return Err(format!("the Opus header has {} bytes, 19 are the least", head.len()));
        };
        // MP4 writes version 0 and big-endian numbers, Ogg and WebM version 1 and little-endian ones.
        let number = |a, b| if version == 0 { u16::from_be_bytes([a, b]) } else { u16::from_le_bytes([a, b]) };
        let num_channels = usize::from(num_channels);
        let (num_streams, num_coupled, mapping) = match (family, num_channels) {
            (0, 1 | 2) => (1, num_channels - 1, (0..num_channels as u8).collect()),
            (0, _) | (_, 0) => return Err(format!("the Opus header has {num_channels} channels in family {family}")),
            _ => match rest {
                [streams, coupled, mapping @ ..] if mapping.len() >= num_channels => {
                    (usize::from(*streams), usize::from(*coupled), mapping[..num_channels].to_vec())
                }
                _ => return Err("the Opus header has no complete channel mapping".to_owned()),
            },
        };
        let decoder = OpusMultistreamDecoder::new(SAMPLE_RATE_HZ, num_channels, num_streams, num_coupled, &mapping)
            .map_err(|error| format!("the Opus header asks for an impossible decoder: {error}"))?;
        // The gain is in 1/256 dB.
        let gain = 10f32.powf(f32::from(number(gain_a, gain_b) as i16) / (20.0 * 256.0));
        let left_to_skip_frames = usize::from(number(skip_a, skip_b));
        Ok(Self { decoder, num_channels, gain, left_to_skip_frames, buffer: Vec::new() })
    }

    pub(crate) fn num_channels(&self) -> usize {
        self.num_channels
    }

    /// Forgets the past, to go on somewhere behind the start.
    pub(crate) fn reset(&mut self) {
        self.decoder.reset();
        self.left_to_skip_frames = 0;
    }

    /// The packet's samples, interleaved, without `trim_end` frames at its end.
    pub(crate) fn decode(&mut self, packet: &[u8], trim_end: usize) -> Result<&[f32], String> {
        if packet.is_empty() {
            return Err("an Opus packet is empty".to_owned());
        }
        self.buffer.resize(MAX_PACKET_FRAMES * self.num_channels, 0.0);
        let num_frames =
            self.decoder.decode_float(packet, &mut self.buffer, false).map_err(|error| error.to_string())?;
        let end = num_frames.saturating_sub(trim_end);
        let start = self.left_to_skip_frames.min(end);
        self.left_to_skip_frames -= self.left_to_skip_frames.min(num_frames);
        let samples = &mut self.buffer[start * self.num_channels..end * self.num_channels];
        if self.gain != 1.0 {
            samples.iter_mut().for_each(|x| *x *= self.gain);
        }
        Ok(samples)
    }
}
