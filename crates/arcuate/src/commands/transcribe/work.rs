//! Recordings one after the other: decoded and cut on a thread of their own, heard in batches, written when complete.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arcuate_audio::DecodeOptions;
use arcuate_audio::vad::{self, SegmentOptions};
use arcuate_decode::ctc::CtcDecoder;
use arcuate_text::transcript::{Segment, Transcript};
use rayon::prelude::*;

use super::chunks::{Chunk, Chunker, Cutting};
use super::output::{Job, Reading};
use super::recogniser::Recogniser;
use super::source::Source;
use super::stretch::{self, Stretch};

/// Chunks that wait to be heard; more only take memory.
const WAITING: usize = 8;
/// What a batch gathers at most beside chunks.
const MAX_GATHERED: usize = 256;
/// Heard before and after what is loud enough to be speech.
const PADDING_SECONDS: f64 = 0.3;
/// Shorter sounds are no speech.
const MIN_SPEECH_SECONDS: f64 = 0.1;

/// How recordings are heard.
pub(super) struct Work<'a> {
    pub recogniser: &'a Recogniser,
    pub decoder: &'a CtcDecoder,
    pub cutting: Cutting,
    /// Samples that are heard together.
    pub batch_samples: usize,
    /// How many readings of a stretch are wanted; above one they are kept.
    pub nbest: usize,
    pub options: DecodeOptions,
    pub raw_rate_hz: Option<u32>,
}

/// How it goes.
pub(super) enum News {
    /// So many seconds of the recording at hand were heard.
    Position(f64),
    /// A recording has come to its end.
    Heard(Heard),
}

/// What became of a recording.
pub(super) struct Heard {
    pub job: usize,
    pub seconds: f64,
    pub result: anyhow::Result<Text>,
}

/// What was said in a recording.
pub(super) struct Text {
    pub transcript: Transcript,
    /// Empty unless several were asked for.
    pub readings: Vec<Reading>,
}

/// What the thread that decodes recordings says; all about one recording comes before anything of the next.
enum Event {
    Chunk(Chunk),
    End(End),
}

/// A recording has ended, or cannot be heard further.
struct End {
    job: usize,
    num_samples: u64,
    result: anyhow::Result<()>,
}

/// What there is to do once a batch was heard, in order.
enum Step {
    Read(Stretch),
    End(End),
}

/// A step that was done.
enum Known {
    Words(Vec<Segment>, Reading),
    Problem(anyhow::Error),
    End(End),
}

/// What is known of the recording at hand.
#[derive(Default)]
struct Current {
    stretch: Stretch,
    segments: Vec<Segment>,
    readings: Vec<Reading>,
    problem: Option<anyhow::Error>,
}

impl Event {
    fn samples(&self) -> Option<&[f32]> {
        match self {
            Self::Chunk(chunk) => Some(&chunk.samples),
            Self::End(_) => None,
        }
    }
}

impl Work<'_> {
    /// Hears the wanted recordings in order, and tells how it goes; who is told may break off.
    pub(super) fn run(
        &self,
        jobs: &[Job],
        wanted: &[usize],
        mut tell: impl FnMut(News) -> anyhow::Result<ControlFlow<()>>,
    ) -> anyhow::Result<()> {
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(WAITING);
            scope.spawn(move || self.decode(jobs, wanted, &sender));
            let mut current = Current::default();
            loop {
                let events = self.gather(&receiver);
                if events.is_empty() {
                    return Ok(());
                }
                let steps = self.hear(events, &mut current)?;
                let known: Vec<Known> = steps.into_par_iter().map(|step| self.read(step)).collect();
                for known in known {
                    let news = match known {
                        Known::Words(segments, reading) => {
                            let news = News::Position(reading.end_seconds);
                            current.segments.extend(segments);
                            current.readings.extend((self.nbest > 1).then_some(reading));
                            news
                        }
                        Known::Problem(error) => {
                            current.problem = current.problem.take().or(Some(error));
                            continue;
                        }
                        Known::End(end) => {
                            let job = &jobs[end.job];
                            // What is open belongs to the next recording already.
                            let open = Current { stretch: std::mem::take(&mut current.stretch), ..Current::default() };
                            News::Heard(self.heard(end, job, std::mem::replace(&mut current, open)))
                        }
                    };
                    if tell(news)?.is_break() {
                        return Ok(());
                    }
                }
            }
        })
    }

    /// A recording with all that is known of it.
    fn heard(&self, end: End, job: &Job, current: Current) -> Heard {
        let seconds = end.num_samples as f64 / f64::from(self.recogniser.sample_rate_hz());
        let Current { segments, readings, problem, .. } = current;
        let result = end.result.and(problem.map_or(Ok(()), Err)).map(|()| {
            let transcript = Transcript { audio: job.audio(), duration_seconds: seconds, language: None, segments };
            Text { transcript, readings }
        });
        Heard { job: end.job, seconds, result }
    }

    /// Decodes and cuts recordings until nobody listens any more.
    fn decode(&self, jobs: &[Job], wanted: &[usize], sender: &SyncSender<Event>) {
        for job in wanted {
            let rate = self.recogniser.sample_rate_hz();
            let mut chunker = Chunker::new(self.cutting, |samples: &[f32], max: usize| {
                let max_seconds = max as f64 / f64::from(rate);
                let options =
                    SegmentOptions { padding_seconds: PADDING_SECONDS, min_seconds: MIN_SPEECH_SECONDS, max_seconds };
                Ok(vad::segments(samples, rate, &options)?)
            });
            let mut listens = true;
            let mut send = |chunks: Vec<Chunk>| {
                listens = listens && chunks.into_iter().all(|chunk| sender.send(Event::Chunk(chunk)).is_ok());
                listens
            };
            let mut hear = || -> anyhow::Result<()> {
                let path = jobs[*job].input.path.as_deref();
                for block in Source::open(path, self.raw_rate_hz, &self.options)? {
                    if !send(chunker.push(&block?)?) {
                        return Ok(());
                    }
                }
                send(chunker.finish()?);
                Ok(())
            };
            let result = hear();
            let end = End { job: *job, num_samples: chunker.num_samples(), result };
            if sender.send(Event::End(end)).is_err() {
                return;
            }
        }
    }

    /// Events until there is enough for a batch; none at the end.
    fn gather(&self, receiver: &Receiver<Event>) -> Vec<Event> {
        let (mut events, mut num_samples) = (Vec::new(), 0);
        while num_samples < self.batch_samples && events.len() < MAX_GATHERED {
            let Ok(event) = receiver.recv() else { break };
            num_samples += event.samples().map_or(0, <[f32]>::len);
            events.push(event);
        }
        events
    }

    /// Hears the chunks, and puts what is heard of them together.
    fn hear(&self, events: Vec<Event>, current: &mut Current) -> anyhow::Result<Vec<Step>> {
        let samples: Vec<&[f32]> = events.iter().filter_map(Event::samples).collect();
        let mut log_probs = self.recogniser.log_probs(&samples, self.batch_samples)?.into_iter();
        let width = self.recogniser.alphabet().num_tokens();
        let (max_frames, hop_seconds) = (self.cutting.max_stretch_frames(), self.cutting.seconds_per_frame());
        let stretch = &mut current.stretch;
        let mut steps = Vec::new();
        for event in events {
            match event {
                Event::Chunk(chunk) => {
                    if chunk.is_first {
                        let start_seconds = chunk.stretch_start as f64 / f64::from(self.recogniser.sample_rate_hz());
                        steps.push(Step::Read(std::mem::replace(stretch, Stretch::new(start_seconds))));
                    }
                    let log_probs_tv = log_probs.next().expect("one for each chunk");
                    stretch.add(chunk.first_frame, chunk.end_frame, &log_probs_tv, width);
                    let part = stretch.take_part(max_frames, self.recogniser.alphabet(), hop_seconds);
                    steps.extend(part.map(Step::Read));
                }
                Event::End(end) => {
                    steps.push(Step::Read(std::mem::take(stretch)));
                    steps.push(Step::End(end));
                }
            }
        }
        steps.retain(|step| !matches!(step, Step::Read(stretch) if stretch.is_empty()));
        Ok(steps)
    }

    /// Finds the words of a stretch.
    fn read(&self, step: Step) -> Known {
        let stretch = match step {
            Step::Read(stretch) => stretch,
            Step::End(end) => return Known::End(end),
        };
        let read = || -> anyhow::Result<Known> {
            let emissions = stretch.emissions(self.recogniser.alphabet().num_tokens())?;
            let hypotheses = self.decoder.decode(&emissions)?;
            let (start_seconds, hop_seconds) = (stretch.start_seconds, self.cutting.seconds_per_frame());
            let best = hypotheses.first().map(|best| stretch::segments(best, start_seconds, hop_seconds));
            let end_seconds = start_seconds + emissions.num_frames() as f64 * hop_seconds;
            Ok(Known::Words(best.unwrap_or_default(), Reading { start_seconds, end_seconds, hypotheses }))
        };
        read().unwrap_or_else(Known::Problem)
    }
}
