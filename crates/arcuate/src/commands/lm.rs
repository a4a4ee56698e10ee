//! `arcuate lm`: trains n-gram language models and measures texts with them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use arcuate_data::{Split, Texts};
use arcuate_record::{format_bytes, format_count, text_table};
use arcuate_text::ngram::{FALLBACK_DISCOUNTS, Ngram, TrainConfig, Trained, Unit};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;

use super::data::{coded, corpora};
use super::runs::output;
use super::tokenizer::reading;
use crate::{exit, terminal};

/// Train n-gram language models for decoding, and measure texts with them.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Train a model with modified Kneser-Ney smoothing and write it as an ARPA file.
    #[command(after_help = "Examples:
  arcuate lm train corpus.txt --order 4 --prune 0,0,1 --output lm.arpa.gz
  arcuate lm train transcripts.jsonl 'corpus/**/*.txt' --order 6 --prune 0,0,0,0,1,2 --vocabulary lexicon.txt --output lm.arpa
  arcuate lm train corpus.txt --unit character --order 8 --discount-fallback --output letters.arpa

Each line of a text is a sentence, and spaces separate its words: normalise the text as the transcripts are. The counts stay in
memory, about 8 bytes for each order and 60 more for each distinct n-gram.")]
    Train(TrainArgs),
    /// Measure texts: perplexity and words outside the vocabulary.
    #[command(after_help = "Examples:
  arcuate lm score lm.arpa.gz held_out.txt
  arcuate lm score lm.bin held_out.txt --json")]
    Score(ScoreArgs),
}

#[derive(clap::Args)]
struct TrainArgs {
    /// Files, folders or patterns (JSON lines, Parquet, text; also .gz and .zst), or recipes, whose training part is taken.
    #[arg(required = true, value_name = "TEXT")]
    texts: Vec<String>,
    /// Length of the longest n-grams.
    #[arg(long, value_name = "N")]
    order: usize,
    /// Drop n-grams seen this often or less, by order; the last one counts for the orders above.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',')]
    prune: Vec<u64>,
    /// Keep only n-grams of the words that begin the lines of this file, such as a lexicon.
    #[arg(long, value_name = "FILE")]
    vocabulary: Option<PathBuf>,
    /// What an n-gram consists of.
    #[arg(long, value_enum, default_value = "word")]
    unit: UnitArg,
    /// Use the discounts 0.5, 1, 1.5 where the text gives none, as a small one does.
    #[arg(long)]
    discount_fallback: bool,
    /// File to write the model to; `.gz` and `.zst` compress it.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// JSON key or Parquet column that holds the text (not for recipes).
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct ScoreArgs {
    /// An ARPA file, plain or compressed, or a KenLM binary file.
    #[arg(value_name = "LM")]
    model: PathBuf,
    /// Files, folders or patterns (JSON lines, Parquet, text; also .gz and .zst).
    #[arg(required = true, value_name = "TEXT")]
    texts: Vec<String>,
    /// What an n-gram of the model consists of.
    #[arg(long, value_enum, default_value = "word")]
    unit: UnitArg,
    /// JSON key or Parquet column that holds the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum UnitArg {
    /// Words between spaces
    Word,
    /// Characters, with `|` after each word
    Character,
}

impl From<UnitArg> for Unit {
    fn from(unit: UnitArg) -> Self {
        match unit {
            UnitArg::Word => Self::Word,
            UnitArg::Character => Self::Character,
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Train(args) => train(&args),
        Command::Score(args) => score(&args),
    }
}

/// Hands all texts to `work`, with a bar that counts their bytes.
fn with_texts<R>(
    inputs: &[String],
    text_column: &str,
    label: &'static str,
    work: impl FnOnce(&mut dyn Iterator<Item = String>, &ProgressBar) -> R,
) -> anyhow::Result<(R, u64)> {
    let opened = corpora(inputs, text_column)?
        .iter()
        .map(|config| Texts::open(config, Split::Train, None).map_err(coded))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let failures: Vec<_> = opened.iter().map(Texts::failure).collect();
    let bar = terminal::bar(label, 0, true);
    bar.set_style(reading());
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut texts = opened.into_iter().flatten().inspect(|text| bar.inc(text.len() as u64));
    let result = work(&mut texts, &bar);
    let num_bytes = bar.position();
    bar.finish_and_clear();
    for failure in failures {
        failure.take().map_err(coded)?;
    }
    Ok((result, num_bytes))
}

/// The words that begin the lines of a file.
fn vocabulary(path: &Path) -> anyhow::Result<HashSet<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let words: HashSet<String> =
        text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    if words.is_empty() {
        return Err(exit::usage(format!("`{}` has no words", path.display())));
    }
    Ok(words)
}

fn train(args: &TrainArgs) -> anyhow::Result<()> {
    if args.output.exists() {
        let path = args.output.display();
        return Err(exit::usage(format!("`{path}` exists and is not overwritten; name another file")));
    }
    if args.output.parent().is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        return Err(exit::usage(format!("the folder of `{}` does not exist", args.output.display())));
    }
    let config = TrainConfig {
        order: args.order,
        prune: args.prune.clone(),
        discount_fallback: args.discount_fallback.then_some(FALLBACK_DISCOUNTS),
        vocabulary: args.vocabulary.as_deref().map(vocabulary).transpose()?,
        unit: args.unit.into(),
    };
    if let Some((key, message)) = config.check().into_iter().next() {
        return Err(exit::usage(format!("`--{}`: {message}", key.replace('_', "-"))));
    }
    let start = Instant::now();
    let (trained, num_bytes) = with_texts(&args.texts, &args.text_column, "read", |texts, bar| {
        let end = bar.clone();
        let told = std::iter::from_fn(move || {
            end.set_message("all read, estimating the model");
            None
        });
        Trained::train(&config, texts.chain(told))
    })?;
    let trained = trained.map_err(|error| match error {
        arcuate_text::Error::Discounts { .. } => {
            anyhow::Error::from(exit::Coded { code: 4, message: format!("{error}, here `--discount-fallback`") })
        }
        other => anyhow::Error::from(other),
    })?;
    trained.save(&args.output)?;
    terminal::say("time", &terminal::duration(start.elapsed().as_secs_f64()));
    let counts = trained.num_ngrams();
    if args.json {
        return output::json(&json!({
            "order": args.order, "ngrams": counts, "text_bytes": num_bytes, "output": args.output,
        }));
    }
    let counts: Vec<String> = counts.iter().map(|count| format_count(*count as u64)).collect();
    output::text(&format!(
        "wrote {}: order {}, trained on {} of text, n-grams by order: {}\n",
        args.output.display(),
        args.order,
        format_bytes(num_bytes),
        counts.join(", ")
    ))
}

/// What a model says of a text.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Measured {
    sentences: u64,
    /// Without the ends of sentences.
    units: u64,
    /// Units outside the vocabulary.
    unknown: u64,
    /// Of everything, the ends of sentences included.
    log10_prob: f64,
    /// Of the unknown units alone.
    log10_prob_unknown: f64,
}

impl Measured {
    fn add(&mut self, model: &Ngram, line: &str, unit: Unit) {
        let mut state = model.begin();
        for word in unit.cut(line) {
            let id = model.word(word).unwrap_or(model.unknown());
            let (log10_prob, next) = model.score(&state, id);
            self.units += 1;
            self.log10_prob += f64::from(log10_prob);
            if id == model.unknown() {
                self.unknown += 1;
                self.log10_prob_unknown += f64::from(log10_prob);
            }
            state = next;
        }
        self.sentences += 1;
        self.log10_prob += f64::from(model.end(&state));
    }

    fn perplexity(&self) -> f64 {
        10_f64.powf(-self.log10_prob / (self.units + self.sentences) as f64)
    }

    /// Without the unknown units.
    fn perplexity_known(&self) -> f64 {
        let num_known = self.units + self.sentences - self.unknown;
        10_f64.powf(-(self.log10_prob - self.log10_prob_unknown) / num_known as f64)
    }

    fn unknown_rate(&self) -> f64 {
        self.unknown as f64 / self.units.max(1) as f64
    }
}

fn score(args: &ScoreArgs) -> anyhow::Result<()> {
    if !args.model.is_file() {
        let path = args.model.display();
        return Err(exit::usage(format!("`{path}` is no file; name an ARPA or KenLM binary file")));
    }
    let model = Ngram::load(&args.model)?;
    let unit: Unit = args.unit.into();
    let (measured, _) = with_texts(&args.texts, &args.text_column, "measure", |texts, _| {
        let mut measured = Measured::default();
        for text in texts {
            for line in text.lines() {
                measured.add(&model, line, unit);
            }
        }
        measured
    })?;
    if measured.sentences == 0 {
        return Err(exit::usage("the texts have no lines, so there is nothing to measure"));
    }
    if args.json {
        let mut row = json!(measured);
        row["perplexity"] = json!(measured.perplexity());
        row["perplexity_known"] = json!(measured.perplexity_known());
        row["unknown_rate"] = json!(measured.unknown_rate());
        row["order"] = json!(model.order());
        return output::json(&row);
    }
    let headers = ["sentences", "units", "unknown", "unknown rate", "perplexity", "without unknown"];
    let row = vec![
        format_count(measured.sentences),
        format_count(measured.units),
        format_count(measured.unknown),
        format!("{:.2}%", 100.0 * measured.unknown_rate()),
        format!("{:.2}", measured.perplexity()),
        format!("{:.2}", measured.perplexity_known()),
    ];
    output::text(&text_table(&headers, &[row]))
}
