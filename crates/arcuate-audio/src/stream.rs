//! Audio as blocks of mono samples in bounded memory: of hours-long files, of segments, of a pipe.
//!
//! # What it computes
//! The content decides what a file is. Its packets are decoded one by one, the channels averaged, the wanted part cut
//! out to the sample, and resampled. Limits are held against the headers first, and then against what comes out.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_AC3, CODEC_ID_ALAC, CODEC_ID_DCA, CODEC_ID_EAC3, CODEC_ID_OPUS, CODEC_ID_SPEEX, CODEC_ID_TRUEHD,
    CODEC_ID_WMA,
};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as DecoderError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::well_known::{
    FORMAT_ID_ADTS, FORMAT_ID_ISOMP4, FORMAT_ID_MP1, FORMAT_ID_MP2, FORMAT_ID_MP3, FORMAT_ID_OGG,
};
use symphonia::core::formats::{FormatOptions, FormatReader, SeekMode, SeekTo, Track, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::meta::MetadataOptions;
use symphonia::core::packet::Packet;
use symphonia::core::units::{TimeBase, Timestamp};

use crate::mp4;
use crate::opus::{self, Opus, Refusal};
use crate::resample::Resampler;
use crate::sniff;
use crate::source::{Pipe, TAIL_BYTES, Tail};
use crate::{DecodeOptions, Error, Info, Result};

/// Samples of a block, at least, the last one apart.
const BLOCK_SAMPLES: usize = 1 << 14;
/// A packet with more frames than this is a lie of the header.
const MAX_PACKET_FRAMES: u64 = 1 << 20;
/// Lossy formats may say a frame more than there is.
const LOSSY_TOLERANCE_FRAMES: u64 = 1152;
/// Decoded before a segment, so that a codec with memory has settled when it begins.
const SETTLE_SECONDS: f64 = 0.5;
/// Containers that need to go back are read into memory when they come through a pipe, up to this size.
const MAX_PIPED_CONTAINER_BYTES: u64 = 1 << 30;

/// An iterator over blocks of mono samples; ends after the first error.
pub struct Stream {
    name: String,
    info: Info,
    options: DecodeOptions,
    format: Box<dyn FormatReader>,
    track_id: u32,
    codec: Codec,
    end: End,
    /// Frames before the sound.
    priming_frames: u64,
    /// The wanted frames, counted at the rate of the file, priming included.
    start_frame: u64,
    end_frame: Option<u64>,
    /// Index of the next frame to come; `None` after a jump, until a packet says it.
    position: Option<u64>,
    has_jumped: bool,
    num_kept_frames: u64,
    num_decoded_bytes: u64,
    interleaved: Vec<f32>,
    mono: Vec<f32>,
    /// `None` when all is said.
    resampler: Option<Resampler>,
}

/// What decodes the packets.
enum Codec {
    General(Box<dyn AudioDecoder>),
    Opus(Box<Opus>),
}

/// How to know whether a stream is complete.
enum End {
    /// The headers give the number of frames, which may be off by so many.
    Frames { wanted: u64, tolerance: u64 },
    /// It ends with its last page.
    Page { ends_early: bool },
    /// Likewise, but the end is still to come.
    PipedPage(Tail),
    /// The format does not say.
    Unknown,
}

/// A source of bytes with what must be known of it beforehand.
struct Source {
    media: Box<dyn MediaSource>,
    head: Vec<u8>,
    tail: SourceTail,
    /// Frames before the sound, where the container is MP4.
    priming_frames: u64,
}

enum SourceTail {
    Bytes(Vec<u8>),
    Piped(Tail),
}

impl Stream {
    /// A file, or the segment of it that the options ask for.
    pub fn open_file(path: &Path, options: &DecodeOptions) -> Result<Self> {
        let name = path.display().to_string();
        let io = |source| Error::Io { name: name.clone(), source };
        let mut file = File::open(path).map_err(io)?;
        let data = file.metadata().map_err(io)?;
        if data.is_dir() {
            return Err(io(std::io::Error::from(std::io::ErrorKind::IsADirectory)));
        }
        if !data.is_file() {
            return Self::open_read(file, &name, options);
        }
        let mut head = Vec::new();
        file.by_ref().take(sniff::HEAD_BYTES as u64).read_to_end(&mut head).map_err(io)?;
        let mut tail = Vec::new();
        if head.starts_with(b"OggS") {
            file.seek(SeekFrom::Start(data.len().saturating_sub(TAIL_BYTES as u64))).map_err(io)?;
            file.by_ref().take(TAIL_BYTES as u64).read_to_end(&mut tail).map_err(io)?;
        }
        let priming_frames = if is_mp4(&head) { mp4::priming_frames(&mut file, data.len()) } else { 0 };
        file.rewind().map_err(io)?;
        let tail = SourceTail::Bytes(tail);
        Self::open(Source { media: Box::new(file), head, tail, priming_frames }, name, options)
    }

    /// Bytes in memory. The extension stands in messages only: the content decides.
    pub fn open_bytes(
        bytes: impl Into<Arc<[u8]>>,
        extension_hint: Option<&str>,
        options: &DecodeOptions,
    ) -> Result<Self> {
        let name = extension_hint.map_or("bytes".to_owned(), |hint| format!("bytes.{}", hint.trim_start_matches('.')));
        Self::open_memory(bytes.into(), name, options)
    }

    /// What comes through a pipe, such as standard input; `name` stands for it in messages.
    pub fn open_read(mut reader: impl Read + Send + 'static, name: &str, options: &DecodeOptions) -> Result<Self> {
        let io = |source| Error::Io { name: name.to_owned(), source };
        let mut head = Vec::new();
        reader.by_ref().take(sniff::HEAD_BYTES as u64).read_to_end(&mut head).map_err(io)?;
        if is_mp4(&head) || head.starts_with(b"\x1a\x45\xdf\xa3") {
            // The index of MP4 is often at its end, and Matroska tells its end only to those who know its length.
            reader.take(MAX_PIPED_CONTAINER_BYTES).read_to_end(&mut head).map_err(io)?;
            return Self::open_memory(head.into(), name.to_owned(), options);
        }
        let tail = Tail::default();
        let pipe = Pipe::new(Cursor::new(head.clone()).chain(reader), tail.clone());
        let source = Source { media: Box::new(pipe), head, tail: SourceTail::Piped(tail), priming_frames: 0 };
        Self::open(source, name.to_owned(), options)
    }

    fn open_memory(bytes: Arc<[u8]>, name: String, options: &DecodeOptions) -> Result<Self> {
        let head = bytes[..bytes.len().min(sniff::HEAD_BYTES)].to_vec();
        let tail = SourceTail::Bytes(bytes[bytes.len().saturating_sub(TAIL_BYTES)..].to_vec());
        let mut media = Cursor::new(bytes);
        let num_bytes = media.get_ref().len() as u64;
        let priming_frames = if is_mp4(&head) { mp4::priming_frames(&mut media, num_bytes) } else { 0 };
        media.set_position(0);
        Self::open(Source { media: Box::new(media), head, tail, priming_frames }, name, options)
    }

    fn open(source: Source, name: String, options: &DecodeOptions) -> Result<Self> {
        options.check()?;
        let Source { media, head, tail, priming_frames } = source;
        if head.is_empty() {
            return Err(Error::NotAudio { name, found: "an empty file".to_owned(), remedy: "get it again" });
        }
        if let Some(sniff::Foreign { found, remedy }) = sniff::foreign(&head) {
            return Err(Error::NotAudio { name, found, remedy });
        }
        let is_seekable = media.is_seekable();
        let num_bytes = media.byte_len();
        let stream = MediaSourceStream::new(media, Default::default());
        let probe = || {
            let probe = symphonia::default::get_probe();
            probe.probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        };
        let format = guarded(probe).map_err(|error| opening(error, &name, &head))?;
        let track = audio_track(format.as_ref(), &name)?;
        let params = audio_params(track).expect("an audio track was chosen");
        let is_mpeg = [FORMAT_ID_MP1, FORMAT_ID_MP2, FORMAT_ID_MP3].contains(&format.format_info().format);
        // Without the encoder's tag, the length of MPEG audio is a guess that must not cut anything.
        let is_guess = is_mpeg && track.delay.is_none() || format.format_info().format == FORMAT_ID_ADTS;
        check_params(params, options, &name)?;
        let codec = make_codec(params, !is_guess, &name)?;
        let (sample_rate_hz, num_channels) = codec.shape(params);
        let num_channels = check_shape(sample_rate_hz, num_channels, options, &name)?;
        let has_frame_times = track.time_base == TimeBase::try_from_recip(sample_rate_hz);
        let announced = track.num_frames.filter(|_| !is_guess && has_frame_times);
        let num_frames = announced.filter(|frames| !is_open_end(*frames, num_channels, num_bytes));
        let is_mp4 = format.format_info().format == FORMAT_ID_ISOMP4;
        let is_ogg = format.format_info().format == FORMAT_ID_OGG;
        let end = match (tail, num_frames) {
            (SourceTail::Bytes(tail), _) if is_ogg => End::Page { ends_early: sniff::ogg_ends_early(&tail) },
            (SourceTail::Piped(tail), _) if is_ogg => End::PipedPage(tail),
            (_, Some(wanted)) => End::Frames {
                wanted,
                tolerance: if codec.is_lossless() || is_mpeg || is_mp4 { 0 } else { LOSSY_TOLERANCE_FRAMES },
            },
            (_, None) => End::Unknown,
        };
        let priming = match &codec {
            Codec::Opus(opus) => opus.pre_skip_frames(),
            Codec::General(_) if is_mp4 && has_frame_times => priming_frames,
            Codec::General(_) => 0,
        };
        let num_frames = num_frames.map(|frames| frames.saturating_sub(priming));
        let info = Info { sample_rate_hz, num_channels, num_frames, codec: codec.name().to_owned() };
        let rate = f64::from(sample_rate_hz);
        let start_frame = (options.start_seconds * rate).round() as u64;
        let end_frame = options.seconds.map(|seconds| ((options.start_seconds + seconds) * rate).round() as u64);
        if let Some(frames) = num_frames {
            if start_frame > 0 && start_frame >= frames {
                let (start_seconds, seconds) = (options.start_seconds, frames as f64 / rate);
                return Err(Error::Segment { name, start_seconds, seconds });
            }
            let wanted = end_frame.map_or(frames, |end| end.min(frames)) - start_frame;
            let (seconds, limit_seconds) = (wanted as f64 / rate, options.limits.max_seconds);
            if seconds > limit_seconds {
                return Err(Error::TooLong { name, seconds, is_exact: true, limit_seconds });
            }
        }
        let resampler = Some(Resampler::new(sample_rate_hz, options.sample_rate_hz.unwrap_or(sample_rate_hz))?);
        let track_id = track.id;
        let mut stream = Self {
            name,
            info,
            options: options.clone(),
            format,
            track_id,
            codec,
            end,
            priming_frames: priming,
            start_frame: start_frame.saturating_add(priming),
            // MP4 fills its last packet up.
            end_frame: [end_frame, num_frames.filter(|_| is_mp4)]
                .into_iter()
                .flatten()
                .map(|frame| frame.saturating_add(priming))
                .min(),
            position: Some(0),
            has_jumped: false,
            num_kept_frames: 0,
            num_decoded_bytes: 0,
            interleaved: Vec::new(),
            mono: Vec::new(),
            resampler,
        };
        if is_seekable && has_frame_times && !is_guess {
            stream.jump()?;
        }
        Ok(stream)
    }

    /// What the headers say.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The rate of the samples that come out.
    pub fn sample_rate_hz(&self) -> u32 {
        self.options.sample_rate_hz.unwrap_or(self.info.sample_rate_hz)
    }

    /// Goes near the start of the segment.
    fn jump(&mut self) -> Result<()> {
        let settle = (SETTLE_SECONDS * f64::from(self.info.sample_rate_hz)) as u64;
        let target = self.start_frame.saturating_sub(settle);
        if target == 0 {
            return Ok(());
        }
        let ts = Timestamp::new(target as i64);
        let to = SeekTo::Timestamp { ts, track_id: self.track_id };
        match self.format.seek(SeekMode::Accurate, to) {
            Ok(_) => {
                self.codec.reset();
                self.position = None;
                self.has_jumped = true;
                Ok(())
            }
            Err(error) => Err(self.reading(error)),
        }
    }

    /// Decodes until wanted samples stand in `mono`; false at the end.
    fn advance(&mut self) -> Result<bool> {
        self.mono.clear();
        while self.mono.is_empty() {
            if let (Some(end), Some(position)) = (self.end_frame, self.position)
                && position >= end
            {
                return Ok(false);
            }
            let packet = match guarded(|| self.format.next_packet()) {
                Ok(Some(packet)) => packet,
                Ok(None) => return self.ended().map(|()| false),
                Err(DecoderError::ResetRequired) => {
                    self.chain()?;
                    continue;
                }
                Err(DecoderError::IoError(error)) if self.is_open_end(&error) => return self.ended().map(|()| false),
                Err(_) if self.options.accept_damaged && self.num_kept_frames > 0 => return Ok(false),
                Err(error) => return Err(self.reading(error)),
            };
            if packet.track_id == self.track_id {
                self.decode(&packet)?;
                self.keep()?;
            }
        }
        Ok(true)
    }

    /// One packet to `interleaved`.
    fn decode(&mut self, packet: &Packet) -> Result<()> {
        let begins_at = packet.pts.get().saturating_add_unsigned(packet.trim_start.get());
        let is_settling = self.has_jumped && self.position.is_none_or(|position| position < self.start_frame);
        self.position.get_or_insert(begins_at.max(0) as u64);
        let decoded = match &mut self.codec {
            Codec::General(decoder) => guarded(|| {
                let buffer = decoder.decode(packet)?;
                buffer.copy_to_vec_interleaved(&mut self.interleaved);
                Ok((buffer.spec().rate(), buffer.spec().channels().count()))
            })
            .map_err(|error| error.to_string()),
            Codec::Opus(opus) => {
                let trim_end = packet.trim_end.get().min(MAX_PACKET_FRAMES) as usize;
                let num_channels = opus.num_channels();
                opus.decode(&packet.data, trim_end).map(|samples| {
                    self.interleaved.clear();
                    self.interleaved.extend_from_slice(samples);
                    (opus::SAMPLE_RATE_HZ, num_channels)
                })
            }
        };
        let num_channels = match decoded {
            Ok((rate, num_channels)) => {
                if rate != self.info.sample_rate_hz && !self.interleaved.is_empty() {
                    let message = format!("the sample rate changes from {} to {rate} Hz", self.info.sample_rate_hz);
                    return Err(self.broken(message));
                }
                check_shape(self.info.sample_rate_hz, num_channels, &self.options, &self.name)?;
                num_channels
            }
            Err(_) if self.options.accept_damaged || is_settling => {
                self.interleaved.clear();
                self.interleaved.resize(packet.dur.get().min(MAX_PACKET_FRAMES) as usize, 0.0);
                1
            }
            Err(message) => return Err(self.broken(message)),
        };
        self.num_decoded_bytes += (self.interleaved.len() * size_of::<f32>()) as u64;
        if self.num_decoded_bytes > self.options.limits.max_decoded_bytes {
            let limit_bytes = self.options.limits.max_decoded_bytes;
            return Err(Error::TooLarge { name: self.name.clone(), limit_bytes });
        }
        mix_down(&mut self.interleaved, num_channels);
        Ok(())
    }

    /// The wanted part of `interleaved`, by now mono, to `mono`.
    fn keep(&mut self) -> Result<()> {
        let position = self.position.unwrap_or(0);
        let num_frames = self.interleaved.len() as u64;
        self.position = Some(position + num_frames);
        let first = self.start_frame.saturating_sub(position).min(num_frames);
        let last = self.end_frame.map_or(num_frames, |end| end.saturating_sub(position).min(num_frames));
        if first >= last {
            return Ok(());
        }
        let wanted = &self.interleaved[first as usize..last as usize];
        let rate = f64::from(self.info.sample_rate_hz);
        if let Some(at) = wanted.iter().position(|x| !x.is_finite()) {
            let seconds = (position + first + at as u64) as f64 / rate;
            return Err(Error::NotFinite { name: self.name.clone(), value: wanted[at], seconds });
        }
        self.num_kept_frames += wanted.len() as u64;
        let (seconds, limit_seconds) = (self.num_kept_frames as f64 / rate, self.options.limits.max_seconds);
        if seconds > limit_seconds {
            return Err(Error::TooLong { name: self.name.clone(), seconds, is_exact: false, limit_seconds });
        }
        self.mono.extend_from_slice(wanted);
        Ok(())
    }

    /// Goes on with the next of several streams that stand one behind the other in one file.
    fn chain(&mut self) -> Result<()> {
        let track = audio_track(self.format.as_ref(), &self.name)?;
        let params = audio_params(track).expect("an audio track was chosen");
        check_params(params, &self.options, &self.name)?;
        let codec = make_codec(params, true, &self.name)?;
        self.track_id = track.id;
        self.codec = codec;
        Ok(())
    }

    /// The end of the packets: is it the end of the audio?
    fn ended(&mut self) -> Result<()> {
        let position = self.position.unwrap_or(0);
        let is_short = match &self.end {
            End::Frames { wanted, tolerance } => position + tolerance < *wanted,
            End::Page { ends_early } => *ends_early,
            End::PipedPage(tail) => sniff::ogg_ends_early(&tail.bytes()),
            End::Unknown => false,
        };
        if is_short && !self.options.accept_damaged {
            return Err(self.truncated());
        }
        if self.num_kept_frames == 0 {
            let (name, seconds) = (self.name.clone(), self.read_seconds());
            return Err(if position == 0 {
                Error::Empty { name }
            } else {
                Error::Segment { name, start_seconds: self.options.start_seconds, seconds }
            });
        }
        Ok(())
    }

    /// Whether plain samples of unknown number have come to their end.
    fn is_open_end(&self, error: &std::io::Error) -> bool {
        error.kind() == std::io::ErrorKind::UnexpectedEof
            && matches!(self.end, End::Unknown)
            && self.codec.name().starts_with("pcm")
    }

    fn read_seconds(&self) -> f64 {
        let frames = self.position.unwrap_or(0).saturating_sub(self.priming_frames);
        frames as f64 / f64::from(self.info.sample_rate_hz)
    }

    fn truncated(&self) -> Error {
        let announced_seconds = self.info.seconds().filter(|_| matches!(self.end, End::Frames { .. }));
        Error::Truncated { name: self.name.clone(), read_seconds: self.read_seconds(), announced_seconds }
    }

    fn broken(&self, message: String) -> Error {
        Error::Broken { name: self.name.clone(), read_seconds: self.read_seconds(), message }
    }

    /// An error of the container, in the middle of the audio.
    fn reading(&self, error: DecoderError) -> Error {
        match error {
            DecoderError::IoError(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => self.truncated(),
            DecoderError::IoError(source) if source.raw_os_error().is_some() => {
                Error::Io { name: self.name.clone(), source }
            }
            other => self.broken(other.to_string()),
        }
    }
}

impl Iterator for Stream {
    type Item = Result<Vec<f32>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut resampler = self.resampler.take()?;
        let mut out = Vec::new();
        while out.len() < BLOCK_SAMPLES {
            match self.advance() {
                Ok(true) => resampler.push(&self.mono, &mut out),
                Ok(false) => {
                    resampler.finish(&mut out);
                    return (!out.is_empty()).then_some(Ok(out));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.resampler = Some(resampler);
        Some(Ok(out))
    }
}

impl Codec {
    fn name(&self) -> &'static str {
        match self {
            Self::General(decoder) => decoder.codec_info().short_name,
            Self::Opus(_) => "opus",
        }
    }

    fn is_lossless(&self) -> bool {
        self.name().starts_with("pcm") || self.name() == "flac"
    }

    fn reset(&mut self) {
        match self {
            Self::General(decoder) => decoder.reset(),
            Self::Opus(opus) => opus.reset(),
        }
    }

    /// Sample rate and channels, 0 where even the decoder does not know yet.
    fn shape(&self, params: &AudioCodecParameters) -> (u32, usize) {
        match self {
            Self::Opus(opus) => (opus::SAMPLE_RATE_HZ, opus.num_channels()),
            Self::General(decoder) => {
                let own = decoder.codec_params();
                let channels = own.channels.as_ref().or(params.channels.as_ref());
                let rate = own.sample_rate.or(params.sample_rate);
                (rate.unwrap_or(0), channels.map_or(0, |channels| channels.count()))
            }
        }
    }
}

/// Averages the channels, in place.
fn mix_down(interleaved: &mut Vec<f32>, num_channels: usize) {
    if num_channels <= 1 {
        return;
    }
    let scale = 1.0 / num_channels as f32;
    let num_frames = interleaved.len() / num_channels;
    for frame in 0..num_frames {
        let sum: f32 = interleaved[frame * num_channels..][..num_channels].iter().sum();
        interleaved[frame] = sum * scale;
    }
    interleaved.truncate(num_frames);
}

fn is_mp4(head: &[u8]) -> bool {
    head.get(4..8) == Some(b"ftyp")
}

/// Whether a length stands for "unknown": programs that write to a pipe fill in nearly the largest number of bytes.
fn is_open_end(num_frames: u64, num_channels: u16, num_bytes: Option<u64>) -> bool {
    let is_largest =
        |bytes: u64| (0x7fff_0000..=0x7fff_ffff).contains(&bytes) || (0xffff_0000..=0xffff_ffff).contains(&bytes);
    [1, 2, 3, 4, 8].iter().any(|width| {
        let announced = num_frames.saturating_mul(u64::from(num_channels) * width);
        is_largest(announced) && num_bytes.is_none_or(|bytes| bytes < announced)
    })
}

fn audio_params(track: &Track) -> Option<&AudioCodecParameters> {
    track.codec_params.as_ref()?.audio()
}

/// The first audio track that has a decoder, else the first one.
fn audio_track<'f>(format: &'f dyn FormatReader, name: &str) -> Result<&'f Track> {
    let known = |track: &&Track| {
        audio_params(track).is_some_and(|params| {
            params.codec == CODEC_ID_OPUS || symphonia::default::get_codecs().get_audio_decoder(params.codec).is_some()
        })
    };
    let audio = || format.tracks().iter().filter(|track| audio_params(track).is_some());
    audio().find(known).or_else(|| audio().next()).ok_or_else(|| {
        let num_videos = format.tracks().iter().filter(|track| track.track_type() == Some(TrackType::Video)).count();
        let found = match (num_videos, format.tracks().len()) {
            (0, 0) => "no tracks".to_owned(),
            (0, others) => format!("{others} tracks of other kinds"),
            (videos, _) => format!("{videos} video tracks"),
        };
        Error::NoAudioTrack { name: name.to_owned(), found }
    })
}

/// Holds the header against the limits before a decoder takes memory for it.
fn check_params(params: &AudioCodecParameters, options: &DecodeOptions, name: &str) -> Result<()> {
    if let Some(channels) = &params.channels {
        check_shape(params.sample_rate.unwrap_or(1), channels.count(), options, name)?;
    }
    let frames = params.max_frames_per_packet.unwrap_or(0).max(params.frames_per_block.unwrap_or(0));
    if frames > MAX_PACKET_FRAMES {
        let message = format!("the header announces packets of {frames} frames");
        return Err(Error::Broken { name: name.to_owned(), read_seconds: 0.0, message });
    }
    Ok(())
}

fn check_shape(sample_rate_hz: u32, num_channels: usize, options: &DecodeOptions, name: &str) -> Result<u16> {
    let (limit, limit_hz) = (options.limits.max_channels, options.limits.max_sample_rate_hz);
    if num_channels > usize::from(limit) {
        return Err(Error::TooManyChannels { name: name.to_owned(), num_channels, limit });
    }
    if sample_rate_hz == 0 || sample_rate_hz > limit_hz {
        return Err(Error::SampleRate { name: name.to_owned(), sample_rate_hz, limit_hz });
    }
    Ok(num_channels as u16)
}

fn make_codec(params: &AudioCodecParameters, trims: bool, name: &str) -> Result<Codec> {
    let broken = |message| Error::Broken { name: name.to_owned(), read_seconds: 0.0, message };
    if params.codec == CODEC_ID_OPUS {
        let head = params.extra_data.as_deref().unwrap_or_default();
        return match Opus::new(head) {
            Ok(opus) => Ok(Codec::Opus(Box::new(opus))),
            Err(Refusal::Broken(message)) => Err(broken(message)),
            Err(Refusal::Unsupported(codec)) => Err(Error::UnknownCodec { name: name.to_owned(), codec }),
        };
    }
    let options = AudioDecoderOptions::default().gapless(trims);
    match symphonia::default::get_codecs().make_audio_decoder(params, &options) {
        Ok(decoder) => Ok(Codec::General(decoder)),
        Err(DecoderError::Unsupported(message)) => {
            Err(Error::UnknownCodec { name: name.to_owned(), codec: codec_name(params, message) })
        }
        Err(error) => Err(broken(error.to_string())),
    }
}

fn codec_name(params: &AudioCodecParameters, message: &str) -> String {
    let names = [
        (CODEC_ID_AC3, "AC-3"),
        (CODEC_ID_ALAC, "Apple Lossless"),
        (CODEC_ID_DCA, "DTS"),
        (CODEC_ID_EAC3, "Enhanced AC-3"),
        (CODEC_ID_SPEEX, "Speex"),
        (CODEC_ID_TRUEHD, "TrueHD"),
        (CODEC_ID_WMA, "Windows Media"),
    ];
    let known = names.iter().find(|(id, _)| *id == params.codec);
    known.map_or_else(|| format!("audio of an unsupported form ({message})"), |(_, name)| (*name).to_owned())
}

/// An error before the first packet.
/// What the decoding library gives; it has assertions that broken files can fail, behind everything that is checked here.
fn guarded<T>(work: impl FnOnce() -> symphonia::core::errors::Result<T>) -> symphonia::core::errors::Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(DecoderError::DecodeError("it contradicts itself")))
}

fn opening(error: DecoderError, name: &str, head: &[u8]) -> Error {
    let name = name.to_owned();
    match error {
        DecoderError::IoError(source) if source.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::Truncated { name, read_seconds: 0.0, announced_seconds: None }
        }
        DecoderError::IoError(source) if source.raw_os_error().is_some() => Error::Io { name, source },
        // The index may stand at the end of the file.
        DecoderError::Unsupported(message) if message.contains("missing moov") => {
            Error::Truncated { name, read_seconds: 0.0, announced_seconds: None }
        }
        DecoderError::Unsupported(message) if message.contains("no suitable format reader") => Error::NotAudio {
            name,
            found: format!("of no known format (it begins with {})", sniff::show(head)),
            remedy: "convert it: `ffmpeg -i FILE -ac 1 FILE.flac`, or remove it from the list",
        },
        DecoderError::Unsupported(message) => {
            Error::UnknownCodec { name, codec: format!("audio of an unsupported form ({message})") }
        }
        other => Error::Broken { name, read_seconds: 0.0, message: other.to_string() },
    }
}
