//! `arcuate transcribe`: recordings of any length to text, subtitles and aligned tiers.

mod chunks;
mod decoder;
mod inputs;
mod live;
mod output;
mod recogniser;
mod source;
mod stretch;
mod work;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use arcuate_audio::{DecodeOptions, Limits};
use arcuate_text::transcript::Format;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::generate::folder;
use super::runs::output as results;
use crate::decoder::load;
use crate::{device, exit, terminal};
use chunks::Cutting;
use output::Job;
use recogniser::Recogniser;
pub(super) use recogniser::batches;
use source::Source;
use work::{Heard, News, Text, Work};

/// Write down what is said in recordings, with the times of words.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  arcuate transcribe runs/asr/checkpoints/best talk.mp3
  arcuate transcribe runs/asr/checkpoints/best talk.mp3 --format srt --output .
  arcuate transcribe runs/asr/checkpoints/best recordings/ --format txt,textgrid --output transcripts
  arcuate transcribe models/xlsr-cs talk.flac --lm cs.arpa --hot-word Dvořák --format json
  arecord -q -f S16_LE -r 16000 -c 1 -t raw | arcuate transcribe models/xlsr-cs - --stream --raw-rate 16000

WAV, FLAC, MP3, Ogg Vorbis and Opus, AAC and M4A of any rate and length. The same command again goes on where it stopped:
transcripts that are there are passed over. A recording that cannot be used is reported, and the others are transcribed;
the exit code is 4 then.")]
pub(crate) struct Args {
    /// Checkpoint folder of a CTC speech recogniser with its tokenizer.
    model: PathBuf,
    /// Files, folders (searched for recordings), patterns, or `-` for standard input.
    #[arg(required = true, value_name = "AUDIO")]
    inputs: Vec<PathBuf>,
    /// Kinds of files to write.
    #[arg(long, value_name = "FORMAT", value_delimiter = ',', default_value = "txt", ignore_case = true, value_parser = formats())]
    format: Vec<Format>,
    /// Write a file for each recording and format into this folder; left out: the text of one recording is printed.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Write transcripts again that are there.
    #[arg(long)]
    overwrite: bool,
    /// Stop at the first recording that cannot be used.
    #[arg(long)]
    strict: bool,
    /// Take what is readable of damaged recordings.
    #[arg(long)]
    accept_damaged: bool,
    /// Longest recording.
    #[arg(long, value_name = "HOURS", default_value_t = 48.0)]
    max_hours: f64,
    /// Longest stretch that is heard at once; a recording that is not longer is heard as a whole.
    #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
    chunk_seconds: f64,
    /// What both sides hear where speech must be cut.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    overlap_seconds: f64,
    /// Sound that is heard in one pass: speed and memory, not results.
    #[arg(long, value_name = "SECONDS", default_value_t = 40.0)]
    batch_seconds: f64,
    /// Standard input is raw sound at this rate: 16 bits, little-endian, one channel.
    #[arg(long, value_name = "HZ")]
    raw_rate: Option<u32>,
    /// Transcribe standard input while it comes: lines as they become final, with `--json` drafts too.
    #[arg(long, conflicts_with_all = ["output", "format", "overwrite", "strict", "nbest"])]
    stream: bool,
    /// With `--stream`, how much is heard at a time.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, requires = "stream")]
    step_seconds: f64,
    #[command(flatten)]
    on: device::Flag,
    /// Print what was done as JSON; with one recording and no `--output`, its transcript too.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    decoding: decoder::Flags,
}

/// Reads the name of a format.
fn formats() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["txt", "json", "srt", "vtt", "textgrid", "eaf"])
        .map(|name| Format::named(&name).expect("one of the possible values"))
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    folder::check(&args.model)?;
    check(&args)?;
    if args.stream {
        return listen(&args);
    }
    let config = args.decoding.config()?;
    let jobs = jobs(&args)?;
    let wanted: Vec<usize> = (0..jobs.len()).filter(|at| args.overwrite || !jobs[*at].is_done()).collect();
    let mut done = Done {
        args: &args,
        jobs: &jobs,
        num_wanted: wanted.len(),
        start: Instant::now(),
        ended: Vec::new(),
        transcript: None,
    };
    if wanted.is_empty() {
        return done.finish();
    }
    for job in &wanted {
        jobs[*job].make_folders()?;
    }
    let recogniser = open(&args)?;
    let decoder = load(&config, recogniser.alphabet())?;
    let rate = recogniser.sample_rate_hz();
    let work = Work {
        cutting: Cutting::new(
            args.chunk_seconds,
            args.overlap_seconds,
            recogniser.hop_samples(),
            recogniser.frame_samples(),
            rate,
        )?,
        recogniser: &recogniser,
        decoder: &decoder,
        batch_samples: (args.batch_seconds * f64::from(rate)) as usize,
        nbest: args.decoding.nbest,
        options: options(&args, rate),
        raw_rate_hz: args.raw_rate,
    };
    done.start = Instant::now();
    let bar = bar(&jobs, &wanted, &work.options);
    work.run(&jobs, &wanted, |news| match news {
        News::Position(seconds) => Ok(done.progress(seconds, &bar)),
        News::Heard(heard) => done.take(heard, &bar),
    })?;
    bar.finish_and_clear();
    done.finish()
}

/// Refuses flags that cannot work, before anything is loaded.
fn check(args: &Args) -> anyhow::Result<()> {
    let is_stdin = args.inputs.iter().any(|input| input.as_os_str() == "-");
    if args.raw_rate.is_some() && !is_stdin {
        return Err(exit::usage("`--raw-rate` is about standard input; name `-` as what to transcribe"));
    }
    if let Some(rate) = args.raw_rate.filter(|rate| !(1000..=384_000).contains(rate)) {
        return Err(exit::usage(format!("`--raw-rate` is {rate}; it must be from 1000 to 384000")));
    }
    if args.stream && (!is_stdin || args.inputs.len() > 1) {
        return Err(exit::usage("`--stream` is about standard input alone; name `-` as what to transcribe"));
    }
    for (flag, value) in [("--max-hours", args.max_hours), ("--batch-seconds", args.batch_seconds)] {
        if !(value > 0.0 && value <= 1e6) {
            return Err(exit::usage(format!("`{flag}` is {value}; it must be above 0")));
        }
    }
    if args.decoding.nbest > 1 && !args.stream && !args.format.contains(&Format::Json) {
        return Err(exit::usage("`--nbest` needs `--format json`, which alone has room for several readings"));
    }
    live::check(args.step_seconds)
}

/// The recordings and where their transcripts go.
fn jobs(args: &Args) -> anyhow::Result<Vec<Job>> {
    let inputs = inputs::collect(&args.inputs)?;
    let mut formats = Vec::new();
    for format in &args.format {
        if !formats.contains(format) {
            formats.push(*format);
        }
    }
    if args.output.is_none() && inputs.len() > 1 {
        return Err(exit::usage(format!(
            "there are {} recordings; name the folder for their transcripts with `--output DIR`",
            inputs.len()
        )));
    }
    if args.output.is_none() && formats.len() > 1 {
        return Err(exit::usage("only one `--format` can be printed; name a folder for the files with `--output DIR`"));
    }
    Job::plan(inputs, args.output.as_deref(), &formats)
}

fn open(args: &Args) -> anyhow::Result<Recogniser> {
    let start = Instant::now();
    let recogniser = Recogniser::open(&args.model, &device::open(args.on.device)?)?;
    let seconds = terminal::duration(start.elapsed().as_secs_f64());
    terminal::say("load", &format!("{} in {seconds}", args.model.display()));
    Ok(recogniser)
}

fn options(args: &Args, sample_rate_hz: u32) -> DecodeOptions {
    // Nothing is kept of what was heard, so only time limits how much there may be.
    let limits = Limits { max_seconds: args.max_hours * 3600.0, max_decoded_bytes: u64::MAX, ..Limits::default() };
    let sample_rate_hz = Some(sample_rate_hz);
    DecodeOptions { limits, sample_rate_hz, accept_damaged: args.accept_damaged, ..DecodeOptions::default() }
}

fn listen(args: &Args) -> anyhow::Result<()> {
    let config = args.decoding.live_config()?;
    let recogniser = open(args)?;
    let decoder = load(&config, recogniser.alphabet())?;
    let source = Source::open(None, args.raw_rate, &options(args, recogniser.sample_rate_hz()))?;
    live::run(&recogniser, &decoder, source, args.step_seconds, args.json)
}

/// A bar over the seconds of a single recording or over many recordings.
fn bar(jobs: &[Job], wanted: &[usize], options: &DecodeOptions) -> ProgressBar {
    let path = wanted.first().and_then(|job| jobs[*job].input.path.as_deref());
    match (wanted, path) {
        ([_], Some(path)) => {
            let seconds = Source::open(Some(path), None, options).ok().and_then(|source| source.seconds());
            terminal::bar("heard", seconds.unwrap_or(0.0) as u64, false)
        }
        _ => terminal::bar("heard", wanted.len() as u64, false),
    }
}

/// What was done so far.
struct Done<'a> {
    args: &'a Args,
    jobs: &'a [Job],
    /// Recordings that are not transcribed already.
    num_wanted: usize,
    start: Instant,
    ended: Vec<Ended>,
    /// For standard output, where it is printed as JSON.
    transcript: Option<Value>,
}

/// What became of a recording.
struct Ended {
    job: usize,
    seconds: f64,
    problem: Option<String>,
}

impl Done<'_> {
    fn progress(&self, seconds: f64, bar: &ProgressBar) -> ControlFlow<()> {
        if self.num_wanted == 1 {
            bar.set_position(seconds as u64);
        }
        bar.set_message(format!("real-time factor {:.3}", self.factor(seconds)));
        ControlFlow::Continue(())
    }

    /// Seconds of work for a second of sound.
    fn factor(&self, more_seconds: f64) -> f64 {
        let heard = self.ended.iter().map(|one| one.seconds).sum::<f64>() + more_seconds;
        self.start.elapsed().as_secs_f64() / heard.max(1e-9)
    }

    /// Writes a transcript, or says what is wrong with the recording.
    fn take(&mut self, heard: Heard, bar: &ProgressBar) -> anyhow::Result<ControlFlow<()>> {
        let Heard { job, seconds, result } = heard;
        let problem = match result {
            Ok(text) => {
                self.write(job, &text)?;
                None
            }
            Err(error) => Some(exit::text(&error)),
        };
        if let Some(problem) = &problem {
            bar.suspend(|| terminal::say("failed", problem));
        }
        let stops = problem.is_some() && self.args.strict;
        self.ended.push(Ended { job, seconds, problem });
        if self.num_wanted > 1 {
            bar.inc(1);
        }
        Ok(if stops { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn write(&mut self, job: usize, text: &Text) -> anyhow::Result<()> {
        let Text { transcript, readings } = text;
        if self.args.output.is_some() {
            return self.jobs[job].write(transcript, readings);
        }
        let format = self.args.format.first().copied().unwrap_or(Format::Txt);
        if self.args.json {
            let text = output::text(transcript, readings, Format::Json);
            self.transcript = Some(serde_json::from_str(&text)?);
            return Ok(());
        }
        results::text(&output::text(transcript, readings, format))
    }

    /// Says what was done; an error if a recording failed.
    fn finish(self) -> anyhow::Result<()> {
        let num_failed = self.ended.iter().filter(|one| one.problem.is_some()).count();
        let num_done = self.ended.len() - num_failed;
        let num_there = self.jobs.len() - self.num_wanted;
        let audio_seconds: f64 = self.ended.iter().filter(|one| one.problem.is_none()).map(|one| one.seconds).sum();
        let seconds = self.start.elapsed().as_secs_f64();
        let factor = (audio_seconds > 0.0).then_some(seconds / audio_seconds);
        if self.args.output.is_some() || self.ended.is_empty() {
            let mut text = format!("{num_done} {}, {}", recordings(num_done), terminal::duration(audio_seconds));
            if let Some(factor) = factor {
                text += &format!(" in {}, real-time factor {factor:.3}", terminal::duration(seconds));
            }
            let skipped = [(num_there, "transcribed before (`--overwrite` does them again)"), (num_failed, "failed")];
            for (num, reason) in skipped.into_iter().filter(|(num, _)| *num > 0) {
                text += &format!("; {num} {reason}");
            }
            terminal::say("done", &text);
        }
        if self.args.json {
            let mut answer = json!({
                "model": self.args.model.display().to_string(),
                "recordings": self.files(),
                "done": num_done,
                "existing": num_there,
                "failed": num_failed,
                "audio_seconds": audio_seconds,
                "seconds": seconds,
                "real_time_factor": factor,
            });
            if let Some(transcript) = &self.transcript {
                answer["transcript"] = transcript.clone();
            }
            results::json(&answer)?;
        }
        if num_failed == 0 {
            return Ok(());
        }
        let message = match self.args.strict {
            true => "stopped at a recording that cannot be used".to_owned(),
            false => format!(
                "{num_failed} of {} {} could not be transcribed",
                self.ended.len(),
                recordings(self.ended.len())
            ),
        };
        Err(exit::Told { code: 4, message }.into())
    }

    /// What became of each recording, in the order of the arguments.
    fn files(&self) -> Vec<Value> {
        let ended: HashMap<usize, &Ended> = self.ended.iter().map(|one| (one.job, one)).collect();
        let file = |(at, job): (usize, &Job)| {
            let files: Vec<String> = job.files.iter().map(|(_, file)| file.display().to_string()).collect();
            let mut value = json!({"audio": job.input.shown(), "files": files});
            match ended.get(&at) {
                Some(Ended { problem: Some(problem), .. }) => {
                    value["state"] = "failed".into();
                    value["error"] = problem.as_str().into();
                }
                Some(one) => {
                    value["state"] = "done".into();
                    value["seconds"] = one.seconds.into();
                }
                None if job.is_done() => value["state"] = "existing".into(),
                None => value["state"] = "not reached".into(),
            }
            value
        };
        self.jobs.iter().enumerate().map(file).collect()
    }
}

fn recordings(num: usize) -> &'static str {
    if num == 1 { "recording" } else { "recordings" }
}
