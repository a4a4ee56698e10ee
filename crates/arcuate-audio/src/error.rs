//! What can go wrong with audio, each case with the file, what was found, and the remedy.

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with audio. `name` is the file, or what stands for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read `{name}`: {source}")]
    Io {
        /// The file.
        name: String,
        /// The reason given by the system.
        source: std::io::Error,
    },
    /// The content is something else than audio that can be read here, whatever the name says.
    #[error("`{name}` is {found}; {remedy}")]
    NotAudio {
        /// The file.
        name: String,
        /// What the content is.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A video, or another container without any audio.
    #[error("`{name}` holds no audio track ({found}); remove it from the list, or name the file with the sound")]
    NoAudioTrack {
        /// The file.
        name: String,
        /// The tracks that it has.
        found: String,
    },
    /// The audio is in a form that has no decoder here.
    #[error("`{name}` holds {codec}, which cannot be decoded here; convert it: `ffmpeg -i FILE -ac 1 FILE.flac`")]
    UnknownCodec {
        /// The file.
        name: String,
        /// The form.
        codec: String,
    },
    /// Header or data contradict the format.
    #[error("`{name}` is damaged after {read_seconds:.3} s: {message}; get it again, or accept damaged audio")]
    Broken {
        /// The file.
        name: String,
        /// What was readable before.
        read_seconds: f64,
        /// What is wrong.
        message: String,
    },
    /// The file ends before its audio does.
    #[error("`{name}` is cut off: {read_seconds:.3} s can be read{}; get it again, or accept damaged audio",
        announced(.announced_seconds))]
    Truncated {
        /// The file.
        name: String,
        /// What was readable.
        read_seconds: f64,
        /// What the header says, where it does.
        announced_seconds: Option<f64>,
    },
    /// There is not one sample.
    #[error("`{name}` holds 0 samples; remove it from the list, or record it again")]
    Empty {
        /// The file.
        name: String,
    },
    /// A segment lies behind the end.
    #[error("`{name}` has {seconds:.3} s, so no segment can start at {start_seconds:.3} s; correct the offset")]
    Segment {
        /// The file.
        name: String,
        /// The offset that was asked for.
        start_seconds: f64,
        /// How long the audio is.
        seconds: f64,
    },
    /// More channels than the limit.
    #[error("`{name}` has {num_channels} channels, more than the limit of {limit}; raise it or mix the channels down")]
    TooManyChannels {
        /// The file.
        name: String,
        /// The channels.
        num_channels: usize,
        /// The limit.
        limit: u16,
    },
    /// A sample rate above the limit, or of 0.
    #[error(
        "`{name}` has a sample rate of {sample_rate_hz} Hz, outside of 1 to {limit_hz}; raise the limit or resample it"
    )]
    SampleRate {
        /// The file.
        name: String,
        /// The rate.
        sample_rate_hz: u32,
        /// The limit.
        limit_hz: u32,
    },
    /// Longer than the limit.
    #[error("`{name}` has {}{seconds:.1} s of audio, more than the limit of {limit_seconds:.1} s; raise it, or read segments",
        exactness(.is_exact))]
    TooLong {
        /// The file.
        name: String,
        /// The length in the header, or what was decoded until the limit.
        seconds: f64,
        /// Whether it is the length in the header.
        is_exact: bool,
        /// The limit.
        limit_seconds: f64,
    },
    /// More samples come out than the limit allows, as from a file that was made to fill memory.
    #[error(
        "`{name}` decodes to more than {limit_bytes} bytes; raise the limit if this is meant, else remove the file"
    )]
    TooLarge {
        /// The file.
        name: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// A sample is not a number.
    #[error("`{name}` holds a sample that is {value} at {seconds:.3} s; write the file again from its source")]
    NotFinite {
        /// The file.
        name: String,
        /// NaN or an infinity.
        value: f32,
        /// Where.
        seconds: f64,
    },
    /// A value that was asked for is impossible.
    #[error("`{key}`: {message}")]
    Config {
        /// The value's name.
        key: &'static str,
        /// What is wrong and what would do.
        message: String,
    },
}

fn announced(seconds: &Option<f64>) -> String {
    seconds.map(|seconds| format!(" of {seconds:.3} s")).unwrap_or_default()
}

fn exactness(is_exact: &bool) -> &'static str {
    if *is_exact { "" } else { "at least " }
}
