//! `arcuate data units`: finds units in recordings by k-means, and writes down the unit of every frame.
// B rows, T frames, D features

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use arcuate_audio::fbank::{FbankOptions, Mfcc, MfccOptions};
use arcuate_data::speech::Recordings;
use arcuate_data::transform::kmeans::{KMeans, KMeansOptions};
use arcuate_data::units::{About, UnitsWriter};
use arcuate_data::{Downsampling, Hearing, Progress, Sound, Split};
use arcuate_model::tensors::TensorFile;
use arcuate_model::{Architecture, Input, Network, tensors};
use arcuate_ops::rng::Stream;
use arcuate_recipe::Override;
use arcuate_record::format_count;
use rayon::prelude::*;
use serde_json::{Value, json};

use super::annotate::scorer;
use crate::commands::generate::folder;
use crate::commands::runs::output;
use crate::commands::transcribe::batches;
use crate::preprocessor;
use crate::{device, exit, terminal};

/// The file with the centroids, and the name of the tensor in it.
const CENTROIDS_FILE: &str = "centroids.safetensors";
const CENTROIDS: &str = "centroids";
/// Frames that a round of k-means looks at, as published.
const BATCH_FRAMES: usize = 10_000;
/// Sound that is decoded at a time.
const CHUNK_SECONDS: f64 = 600.0;
/// Sound in one forward pass, padding included.
const PASS_SECONDS: f64 = 60.0;
/// The longest recording that a network hears at once: attention grows with the square of it.
const MAX_PASS_SECONDS: f64 = 300.0;

#[derive(clap::Args)]
pub(super) struct UnitsArgs {
    /// Recipe whose `[data.speech]` names the recordings.
    #[arg(value_name = "RECIPE")]
    recipe: PathBuf,
    /// How many units.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=65536))]
    num_units: u32,
    /// Folder that is written; left out: that of `data.speech.units` in the recipe.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Find units in what comes out of a layer of this checkpoint; left out: in MFCC with their slopes.
    #[arg(long, value_name = "CHECKPOINT", requires = "layer")]
    model: Option<PathBuf>,
    /// The layer, counted from 1; 0 is what goes into the first one.
    #[arg(long, value_name = "N", requires = "model")]
    layer: Option<usize>,
    /// Find the units in about so many frames of utterances drawn at random from the training part.
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(2..))]
    fit_frames: u64,
    /// Rounds of k-means.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seed of all draws; left out: that of the recipe.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Change a value of the recipe; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    on: device::Flag,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &UnitsArgs) -> anyhow::Result<()> {
    let recipe = arcuate_recipe::load_recipe(&args.recipe, &Override::from_flags(&args.set))?.value;
    let shown = args.recipe.display();
    let Some(speech) = &recipe.data.speech else {
        return Err(exit::usage(format!("`{shown}` has no recordings; add `[data.speech]`")));
    };
    let Some(target) = args.output.as_ref().or(speech.units.as_ref()) else {
        return Err(exit::usage(format!(
            "`{shown}` names no folder; add `units` to `[data.speech]`, or use `--output`"
        )));
    };
    let features = Features::open(args, speech.sample_rate_hz)?;
    let bar = terminal::bar("read", 0, false);
    let progress = Progress::new(|_, done, total| {
        bar.set_length(total);
        bar.set_position(done);
        std::ops::ControlFlow::Continue(())
    });
    let recordings = Recordings::open(&recipe.data, &progress);
    drop(progress);
    bar.finish_and_clear();
    let mut recordings = recordings?;
    let options = KMeansOptions {
        num_units: args.num_units as usize,
        max_rounds: args.rounds as usize,
        batch_rows: Some(BATCH_FRAMES),
        seed: args.seed.unwrap_or(recipe.seed),
    };
    let (hop_seconds, window_seconds) = features.times();
    let made = json!({
        "features": features.describe()?, "fit_frames": args.fit_frames, "rounds": options.max_rounds,
        "batch_frames": BATCH_FRAMES, "seed": options.seed, "recordings": recordings.content_hash(),
    });
    let about = About::new(options.num_units, hop_seconds, window_seconds, made);
    if let Some(parent) = target.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make `{}`", parent.display()))?;
    }
    let mut writer = UnitsWriter::open(target, &about)?;
    let kept = writer.draft().join(CENTROIDS_FILE);
    let units = if kept.is_file() {
        terminal::say("resume", &format!("{} utterances were written before", format_count(writer.num_done() as u64)));
        load(&kept)?
    } else {
        let units = fit(&recordings, &features, &options, args.fit_frames as usize)?;
        save(&units, &kept)?;
        units
    };
    let told = assign(&mut recordings, &features, &units, &mut writer)?;
    writer.finish()?;
    report(args, target, &told, &units, recordings.num_bad())
}

/// What an utterance is turned into before units are found in it.
enum Features {
    /// 13 cepstra, their slopes and the slopes of these.
    Mfcc(MfccOptions),
    Layer(Box<Layer>),
}

/// The output of a layer of a network.
struct Layer {
    network: Network,
    layer: usize,
    model: PathBuf,
    /// Samples, prepared as in training.
    hearing: Hearing,
    downsampling: Downsampling,
    /// Whether rows of a batch must be equally long, since padding changes what the network hears.
    needs_equal_lengths: bool,
}

impl Features {
    fn open(args: &UnitsArgs, sample_rate_hz: u32) -> anyhow::Result<Self> {
        let (Some(model), Some(layer)) = (&args.model, args.layer) else {
            let fbank = FbankOptions { sample_rate_hz, ..FbankOptions::default() };
            return Ok(Self::Mfcc(MfccOptions { fbank, ..MfccOptions::default() }));
        };
        folder::check(model)?;
        let shown = model.display();
        let network = arcuate_model::load(model, &device::open(args.on.device)?)
            .with_context(|| format!("cannot load the checkpoint `{shown}`"))?;
        let architecture = network.architecture();
        let Architecture::Speech(sizes) = &architecture else {
            let name = architecture.name();
            let why = match architecture.downsampling() {
                Some(_) => "has a decoder beside its encoder",
                None => "is a text model and hears nothing",
            };
            return Err(exit::usage(format!("`{shown}` (`{name}`) {why}; name a model such as wav2vec 2.0 or HuBERT")));
        };
        if layer > sizes.num_layers {
            let all = sizes.num_layers;
            return Err(exit::usage(format!("`{shown}` has {all} layers and no layer {layer}; use 0 to {all}")));
        }
        if architecture.num_features() != Some(1) {
            let message =
                format!("`{shown}` hears filter banks and not samples; name a model such as wav2vec 2.0 or HuBERT");
            return Err(exit::usage(message));
        }
        if sizes.adapter.is_some() {
            return Err(exit::usage(format!(
                "`{shown}` has an adapter, so its layers have other frames than its output; name a model without one"
            )));
        }
        let own = preprocessor::hearing(model, &architecture)?;
        if own.sample_rate_hz != sample_rate_hz {
            return Err(exit::usage(format!(
                "`{shown}` hears {} samples a second, but the recipe has `sample_rate_hz` {sample_rate_hz}; make them equal",
                own.sample_rate_hz
            )));
        }
        Ok(Self::Layer(Box::new(Layer {
            layer,
            model: model.clone(),
            hearing: own,
            downsampling: sizes.downsampling(),
            needs_equal_lengths: arcuate_eval::hears_padding(&architecture),
            network,
        })))
    }

    /// From one frame to the next, and how long one is, in seconds.
    fn times(&self) -> (f64, f64) {
        match self {
            Self::Mfcc(options) => (options.fbank.frame_shift_ms / 1000.0, options.fbank.frame_length_ms / 1000.0),
            Self::Layer(own) => {
                let seconds = |samples: usize| samples as f64 / f64::from(own.hearing.sample_rate_hz);
                (seconds(own.downsampling.hop()), seconds(own.downsampling.num_steps(1)))
            }
        }
    }

    fn describe(&self) -> anyhow::Result<Value> {
        Ok(match self {
            Self::Mfcc(_) => json!({"mfcc": {}}),
            Self::Layer(own) => json!({"layer": {
                "model": own.model, "weights": scorer(&own.model)?, "layer": own.layer,
            }}),
        })
    }

    fn describe_shortly(&self) -> String {
        match self {
            Self::Mfcc(_) => "MFCC".to_owned(),
            Self::Layer(own) => format!("layer {} of `{}`", own.layer, own.model.display()),
        }
    }

    /// Features `[T, D]` of each utterance, and D.
    fn compute(&self, utterances: Vec<Vec<f32>>) -> anyhow::Result<(Vec<Vec<f32>>, usize)> {
        match self {
            Self::Mfcc(options) => {
                let compute = |samples: &Vec<f32>| -> anyhow::Result<Vec<f32>> {
                    Ok(Mfcc::new(options)?.compute(samples).with_deltas().values)
                };
                Ok((utterances.par_iter().map(compute).collect::<anyhow::Result<_>>()?, 3 * options.num_ceps))
            }
            Self::Layer(own) => own.compute(&utterances),
        }
    }
}

impl Layer {
    fn compute(&self, utterances: &[Vec<f32>]) -> anyhow::Result<(Vec<Vec<f32>>, usize)> {
        let prepare = |samples: &Vec<f32>| self.hearing.prepare(samples, 0);
        let utterances: Vec<Vec<f32>> = utterances.par_iter().map(prepare).collect::<Result<_, _>>()?;
        let width = self.network.architecture().hidden_size();
        let frames = |samples: &[f32]| self.downsampling.num_frames(samples.len());
        // What is too short for a frame has no features.
        let heard: Vec<usize> = (0..utterances.len()).filter(|at| frames(&utterances[*at]) > 0).collect();
        let lengths: Vec<usize> = heard.iter().map(|at| utterances[*at].len()).collect();
        let seconds = lengths.iter().copied().max().unwrap_or(0) as f64 / f64::from(self.hearing.sample_rate_hz);
        if seconds > MAX_PASS_SECONDS {
            return Err(exit::usage(format!(
                "a recording is {seconds:.0} seconds long, and a network hears at most {MAX_PASS_SECONDS} at once; set \
                 `data.speech.max_seconds`, or cut the recordings by segments"
            )));
        }
        let most = (PASS_SECONDS * f64::from(self.hearing.sample_rate_hz)) as usize;
        let mut found = vec![Vec::new(); utterances.len()];
        for batch in batches(&lengths, most, self.needs_equal_lengths) {
            let rows: Vec<&[f32]> = batch.iter().map(|at| utterances[heard[*at]].as_slice()).collect();
            let sound = Sound::of_steps(&rows, 1, &self.downsampling);
            let (frames, num_frames) = (sound.frames.clone(), sound.num_frames);
            let input = Input::of_sound(sound);
            let values: Vec<f32> = arcuate_ops::pool::within(|| self.network.layer_output(&input, self.layer))?
                .into_data()
                .try_to_vec()
                .map_err(|error| anyhow::anyhow!("cannot read the features back: {error:?}"))?;
            for ((at, row), frames) in batch.iter().zip(values.chunks_exact(num_frames * width)).zip(frames) {
                found[heard[*at]] = row[..frames * width].to_vec();
            }
        }
        Ok((found, width))
    }
}

/// Units of utterances drawn at random from the training part.
fn fit(
    recordings: &Recordings,
    features: &Features,
    options: &KMeansOptions,
    fit_frames: usize,
) -> anyhow::Result<KMeans> {
    let mut order: Vec<usize> = (0..recordings.len()).filter(|at| recordings.split(*at) == Split::Train).collect();
    Stream::new(options.seed, "utterances for units", 0, 0).shuffle(&mut order);
    if order.is_empty() {
        return Err(exit::usage(
            "no recording of the training part is left; lower `min_seconds` or `held_out_fraction`",
        ));
    }
    let bar = terminal::bar("features", fit_frames as u64, false);
    let (mut rows, mut width) = (Vec::new(), 0);
    for chunk in chunks(recordings, &order) {
        // What is bad is counted when all utterances are gone through.
        let heard = |at: &usize| match recordings.samples(*at) {
            Err(arcuate_data::Error::BadItem(_)) => None,
            other => Some(other),
        };
        let samples: Vec<Vec<f32>> = chunk.par_iter().filter_map(heard).collect::<Result<_, _>>()?;
        let (found, num_features) = features.compute(samples)?;
        width = num_features;
        rows.extend(found.into_iter().flatten());
        bar.set_position((rows.len() / width) as u64);
        let most = fit_frames.saturating_mul(width);
        if rows.len() >= most {
            rows.truncate(most);
            break;
        }
    }
    bar.finish_and_clear();
    let num_frames = rows.len() / width.max(1);
    terminal::say(
        "fit",
        &format!(
            "{} units in {} frames of {} features: {}",
            options.num_units,
            format_count(num_frames as u64),
            width,
            features.describe_shortly()
        ),
    );
    Ok(KMeans::fit(&rows, width, options)?)
}

/// Places in pieces of about [`CHUNK_SECONDS`].
fn chunks(recordings: &Recordings, places: &[usize]) -> Vec<Vec<usize>> {
    let mut chunks: Vec<Vec<usize>> = Vec::new();
    let mut seconds = f64::INFINITY;
    for at in places {
        let own = recordings.seconds(*at);
        if seconds + own > CHUNK_SECONDS {
            chunks.push(Vec::new());
            seconds = 0.0;
        }
        seconds += own;
        chunks.last_mut().expect("one was pushed before the first").push(*at);
    }
    chunks
}

/// What was found in all utterances.
#[derive(Default)]
struct Told {
    utterances: u64,
    /// How often each unit was given, in this process.
    given: Vec<u64>,
    /// Squared distances to the centroids.
    distance: f64,
}

/// Writes the units of all utterances that are not written yet.
fn assign(
    recordings: &mut Recordings,
    features: &Features,
    units: &KMeans,
    writer: &mut UnitsWriter,
) -> anyhow::Result<Told> {
    let mut told = Told { given: vec![0; units.num_units()], ..Told::default() };
    let bar = terminal::bar("units", recordings.len() as u64, false);
    let all: Vec<usize> = (0..recordings.len()).collect();
    for chunk in chunks(recordings, &all) {
        let is_done = |at: &usize| {
            let (source, utterance) = recordings.get(*at);
            writer.is_done(source, &utterance.id)
        };
        let open: Vec<usize> = chunk.iter().copied().filter(|at| !is_done(at)).collect();
        let loaded: Vec<_> = open.par_iter().map(|at| recordings.samples(*at)).collect();
        let (mut places, mut samples) = (Vec::new(), Vec::new());
        for (at, loaded) in open.into_iter().zip(loaded) {
            match loaded {
                Ok(loaded) => {
                    places.push(at);
                    samples.push(loaded);
                }
                Err(error) => recordings.skip(error)?,
            }
        }
        let (found, width) = features.compute(samples)?;
        if width != units.num_features() {
            let message = format!("the centroids have {} features, not {width}", units.num_features());
            return Err(
                exit::Coded { code: 4, message: format!("{message}; remove `{}`", writer.draft().display()) }.into()
            );
        }
        for (at, features) in places.into_iter().zip(found) {
            let assigned = units.assign(&features);
            for (unit, distance) in &assigned {
                told.given[*unit as usize] += 1;
                told.distance += f64::from(*distance);
            }
            let assigned: Vec<u32> = assigned.into_iter().map(|(unit, _)| unit).collect();
            let (source, utterance) = recordings.get(at);
            writer.write(source, &utterance.id, &assigned)?;
            told.utterances += 1;
        }
        writer.flush()?;
        bar.inc(chunk.len() as u64);
    }
    bar.finish_and_clear();
    Ok(told)
}

fn report(args: &UnitsArgs, target: &Path, told: &Told, units: &KMeans, num_bad: u64) -> anyhow::Result<()> {
    let frames: u64 = told.given.iter().sum();
    let share = |count: u64| count as f64 / frames.max(1) as f64;
    let entropy: f64 = told.given.iter().filter(|n| **n > 0).map(|n| -share(*n) * share(*n).ln()).sum();
    let unused = told.given.iter().filter(|count| **count == 0).count();
    let mean_distance = told.distance / frames.max(1) as f64;
    if args.json {
        return output::json(&json!({
            "folder": target, "num_units": units.num_units(), "utterances": told.utterances, "frames": frames,
            "perplexity": entropy.exp(), "unused": unused, "mean_squared_distance": mean_distance, "bad_items": num_bad,
        }));
    }
    let skipped = if num_bad > 0 { format!(", {num_bad} utterances skipped") } else { String::new() };
    terminal::say(
        "units",
        &format!(
            "{} utterances, {} frames, perplexity {:.1} of {}, {unused} unused{skipped}",
            format_count(told.utterances),
            format_count(frames),
            entropy.exp(),
            units.num_units(),
        ),
    );
    terminal::result(&target.display().to_string());
    Ok(())
}

/// Writes centroids; the file appears whole or not at all.
fn save(units: &KMeans, path: &Path) -> anyhow::Result<()> {
    let shape = vec![units.num_units(), units.num_features()];
    let values = BTreeMap::from([(CENTROIDS.to_owned(), (shape, units.centroids().to_vec()))]);
    let draft = path.with_extension("tmp");
    tensors::write(&draft, &values)?;
    std::fs::rename(&draft, path).with_context(|| format!("cannot write `{}`", path.display()))
}

fn load(path: &Path) -> anyhow::Result<KMeans> {
    let found = TensorFile::open(path)?.f32(CENTROIDS)?;
    let found = found.filter(|values| values.shape.len() == 2).ok_or_else(|| exit::Coded {
        code: 4,
        message: format!(
            "`{}` has no rows `{CENTROIDS}`; remove its folder, and run the command again",
            path.display()
        ),
    })?;
    Ok(KMeans::of_centroids(found.data, found.shape[1])?)
}
