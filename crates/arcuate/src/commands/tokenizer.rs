//! `arcuate tokenizer`: trains tokenizers and shows how they cut text.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use arcuate_data::{DataConfig, Error, Split, Texts, reader};
use arcuate_record::{format_bytes, format_count, text_table};
use arcuate_text::{Inspection, SpecialToken, Tokenizer, TokenizerConfig, byte_bpe, unigram, wordpiece};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;

use super::data::{coded, corpora};
use super::runs::output;
use crate::{exit, terminal};

/// After training, bytes per token are measured on this much of the text.
const MEASURED_BYTES: u64 = 4 << 20;
/// Longest text that is shown token by token.
const MAX_SHOWN_BYTES: u64 = 1 << 20;
/// Most tokens in the table below a text.
const MAX_SHOWN_TOKENS: usize = 64;
/// Documents that are tokenised together.
const BATCH_DOCUMENTS: usize = 64;
/// Most rows of a table by attribute.
const MAX_GROUPS: usize = 1000;

/// Train tokenizers and show how they cut text.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Train a tokenizer on texts and save it in the public layout.
    #[command(after_help = "Examples:
  arcuate tokenizer train --algorithm byte_bpe --vocab-size 4096 data/sotu/sotu.jsonl.zst --output tokenizers/sotu
  arcuate tokenizer train --algorithm unigram --vocab-size 8000 'corpus/**/*.txt' --output tokenizers/corpus

All other keys of a tokenizer (special tokens, pre-tokeniser, coverage) are for recipes: `arcuate recipe schema tokenizer`.")]
    Train(TrainArgs),
    /// Show how a text is cut, or the bytes per token of files and sources.
    #[command(after_help = "Examples:
  arcuate tokenizer inspect runs/quickstart/checkpoints/best \"Fellow citizens of the Senate\"
  arcuate tokenizer inspect tokenizers/sotu --file data/sotu/sotu.jsonl.zst --by party
  arcuate tokenizer inspect tokenizers/sotu --recipe recipes/quickstart.toml --json")]
    Inspect(InspectArgs),
}

#[derive(clap::Args)]
struct TrainArgs {
    /// How the vocabulary is made.
    #[arg(long, value_enum)]
    algorithm: Algorithm,
    /// Number of tokens, special tokens included.
    #[arg(long, value_name = "N")]
    vocab_size: usize,
    /// Files, folders or patterns (JSON lines, Parquet, text; also .gz and .zst), or recipes, whose training part is taken.
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<String>,
    /// Folder to write `tokenizer.json` and its companions to.
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
    /// JSON key or Parquet column that holds the text (not for recipes).
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// Train on about this many bytes of text, shared among the inputs.
    #[arg(long, value_name = "N")]
    max_bytes: Option<u64>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum Algorithm {
    /// Byte-level BPE, as in GPT-2 and Llama 3
    ByteBpe,
    /// Unigram, as in SentencePiece
    Unigram,
    /// WordPiece, as in BERT
    Wordpiece,
}

#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["text", "file", "recipe"])))]
struct InspectArgs {
    /// Folder with a `tokenizer.json`, such as a checkpoint, or the file itself.
    dir: PathBuf,
    /// Text to cut; `-` reads it from standard input.
    #[arg(allow_hyphen_values = true)]
    text: Option<String>,
    /// Measure the documents of this file, folder or pattern; may be repeated.
    #[arg(long, value_name = "FILE")]
    file: Vec<String>,
    /// Measure the sources of this recipe; may be repeated.
    #[arg(long, value_name = "RECIPE", conflicts_with = "file")]
    recipe: Vec<String>,
    /// Split the table by this attribute of JSON lines, such as `language`.
    #[arg(long, value_name = "KEY", conflicts_with = "text")]
    by: Option<String>,
    /// JSON key or Parquet column that holds the text (not for recipes).
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// Measure about this many bytes of text of each source.
    #[arg(long, value_name = "N")]
    max_bytes: Option<u64>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Train(args) => train(&args),
        Command::Inspect(args) => inspect(&args),
    }
}

/// Loads a tokenizer that the user names.
pub(super) fn load(path: &Path) -> anyhow::Result<Tokenizer> {
    if !path.exists() {
        return Err(exit::usage(format!(
            "`{}` does not exist; name a folder that holds a `tokenizer.json`, or the file itself",
            path.display()
        )));
    }
    Tokenizer::load(path).map_err(|error| match error {
        arcuate_text::Error::Missing { .. } => exit::usage(error.to_string()),
        other => other.into(),
    })
}

/// The style of a bar whose end is not known.
pub(super) fn reading() -> ProgressStyle {
    ProgressStyle::with_template("{prefix:<8}{bytes} of text  {bytes_per_sec}  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn train(args: &TrainArgs) -> anyhow::Result<()> {
    let occupied = args.output.join("tokenizer.json");
    if occupied.exists() {
        return Err(exit::usage(format!(
            "`{}` exists and is not overwritten; name another folder",
            occupied.display()
        )));
    }
    if args.output.is_file() {
        return Err(exit::usage(format!("`{}` is a file; name a folder", args.output.display())));
    }
    let config = match args.algorithm {
        Algorithm::ByteBpe => TokenizerConfig::ByteBpe(byte_bpe::Config::new(args.vocab_size)),
        Algorithm::Unigram => TokenizerConfig::Unigram(unigram::Config::new(args.vocab_size)),
        Algorithm::Wordpiece => TokenizerConfig::Wordpiece(wordpiece::Config::new(args.vocab_size)),
    };
    if let Some((key, message)) = config.check().into_iter().next() {
        return Err(exit::usage(format!("`--{}`: {message}", key.replace('_', "-"))));
    }
    let configs = corpora(&args.inputs, &args.text_column)?;
    let start = Instant::now();
    let bar = terminal::bar("read", 0, true);
    bar.set_style(reading());
    bar.enable_steady_tick(Duration::from_millis(200));
    let open = |max_bytes: Option<u64>| -> anyhow::Result<Vec<Texts>> {
        configs.iter().map(|config| Texts::open(config, Split::Train, max_bytes).map_err(coded)).collect()
    };
    let parts = open(args.max_bytes)?;
    let failures: Vec<_> = parts.iter().map(Texts::failure).collect();
    let tokenizer = Tokenizer::train(&config, watched(parts.into_iter().flatten(), bar.clone()));
    let num_bytes = bar.position();
    bar.finish_and_clear();
    for failure in failures {
        failure.take().map_err(coded)?;
    }
    let tokenizer = tokenizer?;
    tokenizer.save(&args.output)?;
    let mut measured = Tally::default();
    for text in open(Some(MEASURED_BYTES))?.into_iter().flatten() {
        measured.add(&text, tokenizer.encode(&text)?.len());
    }
    terminal::say("time", &terminal::duration(start.elapsed().as_secs_f64()));
    let wanted = args.vocab_size;
    if args.json {
        return output::json(&json!({
            "algorithm": config.name(), "vocab_size": tokenizer.vocab_size(), "wanted_vocab_size": wanted,
            "text_bytes": num_bytes, "bytes_per_token": measured.ratio(), "hash": tokenizer.hash(), "output": args.output,
        }));
    }
    let mut text = format!(
        "wrote {}: {}, {} tokens, trained on {} of text, {:.2} bytes a token\n",
        args.output.display(),
        config.name(),
        format_count(tokenizer.vocab_size() as u64),
        format_bytes(num_bytes),
        measured.ratio()
    );
    if tokenizer.vocab_size() < wanted {
        text.push_str(&format!(
            "the text has no more than these tokens in it; {} were asked for\n",
            format_count(wanted as u64)
        ));
    }
    let special: Vec<String> = SpecialToken::ALL
        .into_iter()
        .filter_map(|token| {
            Some(format!("{} {} ({})", token.key(), tokenizer.special_name(token)?, tokenizer.special(token)?))
        })
        .collect();
    text.push_str(&format!("special tokens: {}\n", special.join(", ")));
    output::text(&text)
}

/// Counts the bytes that go by, and says when the last has.
fn watched(texts: impl Iterator<Item = String> + Send, bar: ProgressBar) -> impl Iterator<Item = String> + Send {
    let end = bar.clone();
    let counted = texts.inspect(move |text| bar.inc(text.len() as u64));
    counted.chain(std::iter::from_fn(move || {
        end.set_message("all read, building the vocabulary");
        None
    }))
}

/// Documents, bytes and tokens of something.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct Tally {
    documents: u64,
    bytes: u64,
    chars: u64,
    words: u64,
    tokens: u64,
    unknown: u64,
}

impl Tally {
    fn add(&mut self, text: &str, num_tokens: usize) {
        self.documents += 1;
        self.bytes += text.len() as u64;
        self.chars += text.chars().count() as u64;
        self.words += text.split_whitespace().count() as u64;
        self.tokens += num_tokens as u64;
    }

    fn merge(&mut self, other: &Self) {
        self.documents += other.documents;
        self.bytes += other.bytes;
        self.chars += other.chars;
        self.words += other.words;
        self.tokens += other.tokens;
        self.unknown += other.unknown;
    }

    fn ratio(&self) -> f64 {
        self.bytes as f64 / self.tokens.max(1) as f64
    }
}

fn inspect(args: &InspectArgs) -> anyhow::Result<()> {
    let tokenizer = load(&args.dir)?;
    if let Some(text) = &args.text {
        let text = if text == "-" { read_text()? } else { text.clone() };
        if text.is_empty() {
            return Err(exit::usage("the text is empty; give a text to cut"));
        }
        let inspection = tokenizer.inspect(&text)?;
        if args.json {
            return output::json(&inspection);
        }
        return output::text(&shown(&text, &inspection));
    }
    let inputs = if args.file.is_empty() { &args.recipe } else { &args.file };
    let mut groups: BTreeMap<(String, String), Tally> = BTreeMap::new();
    for config in corpora(inputs, &args.text_column)? {
        measure(&config, &tokenizer, args, &mut groups)?;
    }
    if args.json {
        let rows: Vec<_> = groups
            .iter()
            .map(|((source, group), tally)| {
                let mut row = json!(tally);
                row["source"] = json!(source);
                row["bytes_per_token"] = json!(tally.ratio());
                if let Some(by) = &args.by {
                    row[by] = json!(group);
                }
                row
            })
            .collect();
        return output::json(&rows);
    }
    output::text(&table(&groups, args.by.as_deref()))
}

fn read_text() -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MAX_SHOWN_BYTES + 1).read_to_end(&mut bytes);
    read.context("cannot read standard input")?;
    if bytes.len() as u64 > MAX_SHOWN_BYTES {
        return Err(exit::usage("the text on standard input is too long to show; measure it with `--file`"));
    }
    String::from_utf8(bytes)
        .map_err(|error| exit::usage(format!("standard input is not UTF-8: {}", error.utf8_error())))
}

fn measure(
    config: &DataConfig,
    tokenizer: &Tokenizer,
    args: &InspectArgs,
    groups: &mut BTreeMap<(String, String), Tally>,
) -> anyhow::Result<()> {
    let unk = tokenizer.special(SpecialToken::Unk);
    let bar = terminal::bar("measure", 0, true);
    bar.set_style(reading());
    let mut num_bad = 0;
    for name in config.source.keys() {
        let mut documents = reader::open(config, name).map_err(coded)?;
        let mut num_bytes = 0;
        loop {
            let mut batch = Vec::with_capacity(BATCH_DOCUMENTS);
            while batch.len() < BATCH_DOCUMENTS && args.max_bytes.is_none_or(|most| num_bytes < most) {
                match documents.next() {
                    None => break,
                    Some(Ok(document)) => {
                        num_bytes += document.text.len() as u64;
                        let group = args.by.as_ref().map(|key| group(document.attributes.get(key)));
                        batch.push((group.unwrap_or_default(), document.text));
                    }
                    Some(Err(Error::BadItem(item))) => {
                        num_bad += 1;
                        if num_bad > config.max_bad_items {
                            return Err(Error::BadItem(item).into());
                        }
                    }
                    Some(Err(error)) => return Err(coded(error)),
                }
            }
            if batch.is_empty() {
                break;
            }
            let texts: Vec<&str> = batch.iter().map(|(_, text)| text.as_str()).collect();
            for ((group, text), ids) in batch.iter().zip(tokenizer.encode_batch(&texts)?) {
                if groups.len() >= MAX_GROUPS && !groups.contains_key(&(name.clone(), group.clone())) {
                    return Err(exit::usage(format!(
                        "`--by` gives more than {MAX_GROUPS} groups; name an attribute with fewer values"
                    )));
                }
                let tally = groups.entry((name.clone(), group.clone())).or_default();
                tally.add(text, ids.len());
                tally.unknown += ids.iter().filter(|id| Some(**id) == unk).count() as u64;
                bar.inc(text.len() as u64);
            }
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// The value of an attribute as the name of a group.
fn group(value: Option<&serde_json::Value>) -> String {
    match value {
        None | Some(serde_json::Value::Null) => "-".to_owned(),
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn table(groups: &BTreeMap<(String, String), Tally>, by: Option<&str>) -> String {
    let row = |source: &str, group: &str, tally: &Tally| {
        let mut row = vec![source.to_owned()];
        if by.is_some() {
            row.push(output::one_line(group, 60));
        }
        let per_word = tally.tokens as f64 / tally.words.max(1) as f64;
        row.extend([
            format_count(tally.documents),
            format_bytes(tally.bytes),
            format_count(tally.tokens),
            format!("{:.2}", tally.ratio()),
            format!("{:.2}", tally.chars as f64 / tally.tokens.max(1) as f64),
            format!("{per_word:.2}"),
            format_count(tally.unknown),
        ]);
        row
    };
    let mut rows: Vec<Vec<String>> = groups.iter().map(|((source, group), tally)| row(source, group, tally)).collect();
    if groups.len() > 1 {
        let mut all = Tally::default();
        groups.values().for_each(|tally| all.merge(tally));
        rows.push(row("all", "", &all));
    }
    let mut headers = vec!["source"];
    headers.extend(by);
    headers.extend(["documents", "bytes", "tokens", "bytes/token", "chars/token", "tokens/word", "unknown"]);
    text_table(&headers, &rows)
}

/// The pieces of a text with bars between, and a table of the first tokens.
fn shown(text: &str, inspection: &Inspection) -> String {
    let tokens = &inspection.tokens;
    let mut line = String::new();
    let mut end = 0;
    for token in tokens {
        let is_inside = token.range.start < end;
        end = token.range.end.max(end);
        line.push('│');
        // The second and later tokens of one character have no text of their own.
        line.push_str(&match text.get(token.range.clone()) {
            Some(_) if is_inside => "‥".to_owned(),
            Some(covered) if !covered.is_empty() => visible(covered),
            _ => visible(&token.piece),
        });
    }
    line.push_str("│\n");
    let rows: Vec<Vec<String>> = tokens
        .iter()
        .take(MAX_SHOWN_TOKENS)
        .map(|token| {
            let range = format!("{}-{}", token.range.start, token.range.end);
            vec![token.id.to_string(), visible(&token.piece), range]
        })
        .collect();
    line.push('\n');
    line.push_str(&text_table(&["id", "token", "bytes"], &rows));
    if tokens.len() > MAX_SHOWN_TOKENS {
        line.push_str(&format!("and {} more\n", format_count((tokens.len() - MAX_SHOWN_TOKENS) as u64)));
    }
    line.push_str(&format!(
        "\n{} tokens, {} bytes, {} characters, {:.2} bytes a token\n",
        format_count(tokens.len() as u64),
        format_count(inspection.num_bytes as u64),
        format_count(inspection.num_chars as u64),
        inspection.bytes_per_token
    ));
    line
}

/// White space as signs, and nothing that could steer a terminal.
fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            ' ' => '·',
            '\n' => '↵',
            '\t' => '→',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_text::InspectedToken;

    #[test]
    fn pieces_are_separated_and_spaces_seen() {
        let token = |id, piece: &str, range| InspectedToken { id, piece: piece.to_owned(), range };
        let tokens = vec![token(5, "a", 0..1), token(6, "Ġb", 1..3), token(7, "Ċ", 3..4)];
        let inspection = Inspection { tokens, num_bytes: 4, num_chars: 4, bytes_per_token: 4.0 / 3.0 };
        let text = shown("a b\n", &inspection);
        assert!(text.starts_with("│a│·b│↵│\n"), "{text}");
        assert!(text.ends_with("3 tokens, 4 bytes, 4 characters, 1.33 bytes a token\n"), "{text}");
    }

    #[test]
    fn a_character_of_several_tokens_is_shown_once() {
        let token = |id, piece: &str| InspectedToken { id, piece: piece.to_owned(), range: 0..2 };
        let inspection =
            Inspection {
                tokens: vec![token(1, "Ã"), token(2, "©")], num_bytes: 2, num_chars: 1, bytes_per_token: 1.0
            };
        assert!(shown("é", &inspection).starts_with("│é│‥│\n"));
    }

    #[test]
    fn missing_attributes_are_a_group_of_their_own() {
        assert_eq!(group(None), "-");
        assert_eq!(group(Some(&json!("de"))), "de");
        assert_eq!(group(Some(&json!(3))), "3");
    }
}
