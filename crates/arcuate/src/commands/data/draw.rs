//! `arcuate data draw`: training, test and few-shot sets out of a corpus.

use std::path::PathBuf;

use arcuate_data::draw::{DrawOptions, Drawn, PartSpec, draw};
use arcuate_data::{DataConfig, PackingConfig, SourceConfig, pack};
use arcuate_record::{format_count, text_table};

use crate::commands::runs::output;
use crate::terminal;

#[derive(clap::Args)]
pub(super) struct DrawArgs {
    /// Files, folders or patterns (JSON lines, Parquet, text; also .gz and .zst).
    #[arg(required = true, value_name = "FILE")]
    inputs: Vec<String>,
    /// A part and how much it takes: NAME=100/class, NAME=3000, NAME=rest, NAME=others. Parts take in this order.
    #[arg(long = "part", required = true, value_name = "NAME=AMOUNT")]
    parts: Vec<PartSpec>,
    /// Folder that gets NAME.jsonl for each part.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Only documents of these classes; the documents of all other classes are `others`.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    classes: Vec<String>,
    /// Decides which documents are drawn.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Draw no text that stands in this file: a test set that is there already. May be given several times.
    #[arg(long, value_name = "FILE")]
    without: Vec<PathBuf>,
    /// JSON key or Parquet column that holds the text.
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// JSON key or Parquet column that holds the class; without it documents have none.
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,
    /// Cut longer documents into documents of their own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(64..))]
    split_at_bytes: Option<u64>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &DrawArgs) -> anyhow::Result<()> {
    let mut config = DataConfig::single("", "", PackingConfig::Document(pack::document::Config::default()));
    let source = |path: &String| SourceConfig {
        text_column: args.text_column.clone(),
        label_column: args.label_column.clone(),
        split_at_bytes: args.split_at_bytes,
        ..SourceConfig::new(path.as_str())
    };
    config.source = args.inputs.iter().map(|path| (path.clone(), source(path))).collect();
    let options = DrawOptions {
        seed: args.seed,
        parts: args.parts.clone(),
        classes: args.classes.clone(),
        without: args.without.clone(),
    };
    let drawn = draw(&config, &args.to, &options).map_err(super::coded)?;
    if args.json {
        return output::json(&serde_json::to_value(&drawn)?);
    }
    terminal::say("draw", &summary(&drawn));
    let row = |part: &arcuate_data::draw::DrawnPart| {
        let classes = part.classes.iter().take(30).map(|(class, count)| format!("{class} {count}"));
        vec![
            part.name.clone(),
            format_count(part.documents),
            classes.collect::<Vec<_>>().join(", "),
            part.path.display().to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = drawn.parts.iter().map(row).collect();
    output::text(&text_table(&["part", "documents", "by class", "file"], &rows))
}

fn summary(drawn: &Drawn) -> String {
    let documents: u64 = drawn.parts.iter().map(|part| part.documents).sum();
    let left_out = format!(
        "{} twins and {} texts of other files left out",
        format_count(drawn.duplicates),
        format_count(drawn.excluded)
    );
    format!("{} documents in {} parts; {left_out}", format_count(documents), drawn.parts.len())
}
