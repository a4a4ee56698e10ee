//! `arcuate data overlap`: how much of a task's vocabulary a corpus has.

use std::path::PathBuf;

use arcuate_data::{SourceConfig, reader};
use arcuate_eval::overlap::overlap;
use arcuate_record::{format_count, text_table};
use arcuate_text::Tokenizer;
use serde_json::json;

use crate::commands::runs::output;
use crate::exit;

#[derive(clap::Args)]
pub(super) struct OverlapArgs {
    /// Texts of the task.
    #[arg(value_name = "TASK")]
    task: String,
    /// A corpus; may be given several times to compare them.
    #[arg(long = "with", required = true, value_name = "CORPUS")]
    corpora: Vec<String>,
    /// Count tokens of this tokenizer: a folder or `tokenizer.json`. Left out: lower-cased words.
    #[arg(long, value_name = "PATH")]
    tokenizer: Option<PathBuf>,
    /// JSON key or Parquet column that holds the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &OverlapArgs) -> anyhow::Result<()> {
    let tokenizer = args.tokenizer.as_deref().map(Tokenizer::load).transpose()?;
    let task = tokens(&args.task, args, tokenizer.as_ref())?;
    let mut rows = Vec::new();
    let mut found = Vec::new();
    for corpus in &args.corpora {
        let shares = overlap(tokens(corpus, args, tokenizer.as_ref())?, task.iter().cloned());
        let Some(shares) = shares else {
            return Err(exit::usage(format!("`{}` holds no tokens; name the texts of the task", args.task)));
        };
        let percent = |share: f64| format!("{:.1}%", 100.0 * share);
        rows.push(vec![corpus.clone(), percent(shares.types), percent(shares.tokens), format_count(shares.num_types)]);
        found.push(json!({"corpus": corpus, "overlap": shares}));
    }
    if args.json {
        return output::json(&json!({"task": args.task, "corpora": found}));
    }
    output::text(&text_table(&["corpus", "types of the task", "tokens of the task", "types"], &rows))
}

/// All tokens of a corpus.
fn tokens(path: &str, args: &OverlapArgs, tokenizer: Option<&Tokenizer>) -> anyhow::Result<Vec<String>> {
    let source = SourceConfig { text_column: args.text_column.clone(), ..SourceConfig::new(path) };
    let mut tokens = Vec::new();
    for document in reader::open_source("texts", &source).map_err(super::coded)? {
        let text = document.map_err(super::coded)?.text;
        match tokenizer {
            Some(tokenizer) => {
                let ids = tokenizer.encode(&text)?;
                tokens.extend(ids.into_iter().filter_map(|id| tokenizer.id_to_token(id)));
            }
            None => {
                let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
                tokens.extend(words.map(str::to_lowercase));
            }
        }
    }
    Ok(tokens)
}
