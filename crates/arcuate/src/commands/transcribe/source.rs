//! Samples from where they come: a file, standard input with the bytes of a file, or raw samples through a pipe.

use std::io::Read;
use std::path::Path;

use arcuate_audio::resample::Resampler;
use arcuate_audio::{DecodeOptions, Error, Result, Stream};

/// Standard input in messages.
const STDIN: &str = "standard input";

/// Blocks of mono samples at the wanted rate; ends after the first error.
pub(super) enum Source {
    File(Box<Stream>),
    Raw(Box<Raw<std::io::Stdin>>),
}

impl Source {
    /// A file; none: standard input, with raw samples of that rate if there is one.
    pub(super) fn open(path: Option<&Path>, raw_rate_hz: Option<u32>, options: &DecodeOptions) -> Result<Self> {
        match (path, raw_rate_hz) {
            (Some(path), _) => Stream::open_file(path, options).map(|stream| Self::File(Box::new(stream))),
            (None, None) => {
                Stream::open_read(std::io::stdin(), STDIN, options).map(|stream| Self::File(Box::new(stream)))
            }
            (None, Some(rate)) => Raw::new(std::io::stdin(), rate, options).map(|raw| Self::Raw(Box::new(raw))),
        }
    }

    /// The length, where it is known before the end.
    pub(super) fn seconds(&self) -> Option<f64> {
        match self {
            Self::File(stream) => stream.info().seconds(),
            Self::Raw(_) => None,
        }
    }
}

impl Iterator for Source {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::File(stream) => stream.next(),
            Self::Raw(raw) => raw.next(),
        }
    }
}

/// Raw samples: 16 bits, signed, little-endian, one channel. A block is given as soon as there is one.
pub(super) struct Raw<R> {
    reader: R,
    /// None after the end.
    resampler: Option<Resampler>,
    /// The first byte of a sample whose second one is still to come.
    half: Option<u8>,
    max_samples: u64,
    sample_rate_hz: u32,
    num_samples: u64,
}

impl<R: Read> Raw<R> {
    fn new(reader: R, sample_rate_hz: u32, options: &DecodeOptions) -> Result<Self> {
        let to_hz = options.sample_rate_hz.unwrap_or(sample_rate_hz);
        let max_samples = (options.limits.max_seconds * f64::from(sample_rate_hz)) as u64;
        let resampler = Some(Resampler::new(sample_rate_hz, to_hz)?);
        Ok(Self { reader, resampler, half: None, max_samples, sample_rate_hz, num_samples: 0 })
    }

    /// Reads what there is; no bytes at the end.
    fn read(&mut self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; 1 << 14];
        loop {
            match self.reader.read(&mut bytes) {
                Ok(len) => {
                    bytes.truncate(len);
                    return Ok(bytes);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Io { name: STDIN.to_owned(), source }),
            }
        }
    }
}

impl<R: Read> Iterator for Raw<R> {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut resampler = self.resampler.take()?;
        let mut out = Vec::new();
        while out.is_empty() {
            let mut bytes = match self.read() {
                Ok(bytes) => bytes,
                Err(error) => return Some(Err(error)),
            };
            if bytes.is_empty() {
                resampler.finish(&mut out);
                return (!out.is_empty()).then_some(Ok(out));
            }
            if let Some(half) = self.half.take() {
                bytes.insert(0, half);
            }
            if bytes.len() % 2 == 1 {
                self.half = bytes.pop();
            }
            let samples: Vec<f32> =
                bytes.chunks_exact(2).map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32768.0).collect();
            self.num_samples += samples.len() as u64;
            if self.num_samples > self.max_samples {
                let rate = f64::from(self.sample_rate_hz);
                let (seconds, limit_seconds) = (self.num_samples as f64 / rate, self.max_samples as f64 / rate);
                return Some(Err(Error::TooLong { name: STDIN.to_owned(), seconds, is_exact: false, limit_seconds }));
            }
            resampler.push(&samples, &mut out);
        }
        self.resampler = Some(resampler);
        Some(Ok(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives bytes in pieces of a few.
    struct Pieces(Vec<u8>, usize);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let len = self.1.min(self.0.len()).min(buffer.len());
            buffer[..len].copy_from_slice(&self.0[..len]);
            self.0.drain(..len);
            Ok(len)
        }
    }

    fn heard(bytes: &[u8], piece: usize, options: &DecodeOptions) -> Result<Vec<f32>> {
        let blocks: Result<Vec<Vec<f32>>> = Raw::new(Pieces(bytes.to_vec(), piece), 8000, options)?.collect();
        Ok(blocks?.concat())
    }

    #[test]
    fn raw_samples_are_heard_however_they_come() {
        let samples = [0i16, 16384, -32768, 32767, 1];
        let bytes: Vec<u8> = samples.iter().flat_map(|x| x.to_le_bytes()).collect();
        let wanted = samples.map(|x| f32::from(x) / 32768.0);
        for piece in [1, 2, 3, 100] {
            assert_eq!(heard(&bytes, piece, &DecodeOptions::default()).expect("reads"), wanted);
        }
        assert_eq!(heard(&bytes[..9], 4, &DecodeOptions::default()).expect("reads"), wanted[..4]);
        assert!(heard(&[], 4, &DecodeOptions::default()).expect("reads").is_empty());
    }

    #[test]
    fn raw_samples_are_resampled_and_limited() {
        let bytes = vec![0; 2 * 8000];
        let options = DecodeOptions { sample_rate_hz: Some(16_000), ..DecodeOptions::default() };
        assert_eq!(heard(&bytes, 1000, &options).expect("reads").len(), 16_000);
        let mut short = options;
        short.limits.max_seconds = 0.5;
        assert!(heard(&bytes, 1000, &short).expect_err("too long").to_string().contains("limit of 0.5 s"));
    }
}
