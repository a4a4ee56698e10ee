//! `arcuate bench`: what this machine reaches: products, training steps, operations of speech models, decoding, features.
//!
//! Every row is measured in a process of its own, so that the peak of memory is that of the row.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use anyhow::Context;
use arcuate_ops::{DeviceKind, Precision};
use arcuate_record::{format_bytes, text_table};
use serde_json::{Value, json};

use super::runs::output;
use crate::exit::{self, usage};
use crate::{memory, terminal, threads};

mod audio;
mod decode;
mod features;
mod measure;
mod products;
mod training;

use measure::{How, Report, Sizes};

/// A thing that is measured.
struct Row {
    name: &'static str,
    about: &'static str,
    /// What `--set` changes, with the values that are used without it.
    sizes: &'static [(&'static str, usize)],
    run: fn(&Sizes, &How) -> anyhow::Result<Report>,
}

/// All rows, in the order in which they run.
const ROWS: &[Row] = &[
    Row {
        name: "products",
        about: "multiply-adds between registers, and the products of linear layers",
        sizes: &[("tokens", 2048), ("hidden", 384), ("inner", 1536), ("vocab", 8192)],
        run: products::run,
    },
    Row {
        name: "gpt",
        about: "training step of a GPT-2 with erf-GELU",
        sizes: &[
            ("batch", 8),
            ("seq_len", 256),
            ("vocab", 8192),
            ("layers", 6),
            ("hidden", 384),
            ("heads", 6),
            ("inner", 1536),
            ("tied", 0),
        ],
        run: training::gpt,
    },
    Row {
        name: "llama",
        about: "training step of a Llama: RMSNorm, SwiGLU, rotary positions, grouped queries",
        sizes: &[
            ("batch", 8),
            ("seq_len", 256),
            ("vocab", 8192),
            ("layers", 6),
            ("hidden", 384),
            ("heads", 6),
            ("kv_heads", 2),
            ("inner", 1024),
            ("tied", 0),
        ],
        run: training::llama,
    },
    Row {
        name: "bert",
        about: "masked-LM training step of a BERT on padded rows, 15% of the tokens predicted",
        sizes: &[
            ("batch", 8),
            ("seq_len", 256),
            ("vocab", 8192),
            ("layers", 6),
            ("hidden", 384),
            ("heads", 6),
            ("inner", 1536),
        ],
        run: training::bert,
    },
    Row {
        name: "frontend",
        about: "the feature encoder of wav2vec 2.0: seven convolutions, group norm, GELU; forward and backward",
        sizes: &[("batch", 2), ("samples", 80_000), ("channels", 512)],
        run: audio::frontend,
    },
    Row {
        name: "positional_conv",
        about: "the positional convolution of wav2vec 2.0 with weight norm; forward and backward",
        sizes: &[("batch", 2), ("frames", 249), ("channels", 768), ("kernel", 128), ("groups", 16)],
        run: audio::positional_conv,
    },
    Row {
        name: "ctc",
        about: "the CTC loss of logits; forward and backward",
        sizes: &[("batch", 16), ("frames", 500), ("vocab", 32), ("labels", 100)],
        run: audio::ctc_loss,
    },
    Row {
        name: "decode",
        about: "greedy continuation by a Llama with a key-value cache",
        sizes: &[
            ("batch", 1),
            ("prompt", 32),
            ("new_tokens", 128),
            ("vocab", 8192),
            ("layers", 6),
            ("hidden", 384),
            ("heads", 6),
            ("kv_heads", 2),
            ("inner", 1024),
            ("tied", 0),
        ],
        run: decode::run,
    },
    Row {
        name: "fbank",
        about: "filter banks as Kaldi makes them, of sound at 16 kHz; one thread",
        sizes: &[("seconds", 60), ("bins", 80)],
        run: features::fbank,
    },
    Row {
        name: "mfcc",
        about: "cepstra as Kaldi makes them; one thread",
        sizes: &[("seconds", 60), ("bins", 23)],
        run: features::mfcc,
    },
    Row {
        name: "log_mel",
        about: "log-mel energies as Whisper hears them; one thread",
        sizes: &[("seconds", 60), ("bins", 80)],
        run: features::log_mel,
    },
    Row {
        name: "resample",
        about: "another sample rate; one thread",
        sizes: &[("seconds", 60), ("from_hz", 44_100), ("to_hz", 16_000)],
        run: features::resampling,
    },
    Row {
        name: "beam",
        about: "CTC prefix beam search without a language model; one thread",
        sizes: &[("frames", 1000), ("vocab", 32), ("beam", 100)],
        run: features::beam,
    },
];

/// Rows that `--device` moves.
const ON_ANY_DEVICE: [&str; 4] = ["gpt", "llama", "bert", "decode"];

/// Measure this machine: product rate, training steps, operations of speech models, decoding.
#[derive(clap::Args)]
#[command(after_help = after_help())]
pub(crate) struct Args {
    /// What is measured. Left out: everything.
    #[arg(value_name = "ROW", value_parser = clap::builder::PossibleValuesParser::new(ROWS.iter().map(|row| row.name)))]
    rows: Vec<String>,
    /// Numbers in which products are computed.
    #[arg(long, value_enum, default_value_t = PrecisionArg::F32)]
    precision: PrecisionArg,
    #[command(flatten)]
    on: crate::device::Flag,
    /// Another size, such as `seq_len=1024`; may be given again.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Steps that are timed, after two that are not.
    #[arg(long, value_name = "N", default_value_t = 10)]
    steps: usize,
    /// Threads that compute. Left out: one a core, or `RAYON_NUM_THREADS`.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum)]
enum PrecisionArg {
    F32,
    Bf16,
}

impl PrecisionArg {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

fn after_help() -> String {
    let mut text = String::from(
        "Examples:\n  arcuate bench\n  arcuate bench gpt --precision bf16\n  \
         arcuate bench llama --set vocab=32000 --set seq_len=1024 --set batch=2 --json\n\nRows and their sizes:\n",
    );
    for row in ROWS {
        let sizes: Vec<String> = row.sizes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        text.push_str(&format!("  {:<17}{}\n                   {}\n", row.name, row.about, sizes.join(" ")));
    }
    text + "\n`tied=1` shares the embedding with the output projection. docs/guide/speed.md says what the numbers mean."
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if args.steps == 0 {
        return Err(usage("`--steps 0` measures nothing; use 1 or more"));
    }
    let rows: Vec<&Row> =
        ROWS.iter().filter(|row| args.rows.is_empty() || args.rows.iter().any(|name| name == row.name)).collect();
    let other = rows.iter().find(|row| args.on.device != DeviceKind::Cpu && !ON_ANY_DEVICE.contains(&row.name));
    if let Some(row) = other {
        let message = format!("the row `{}` measures the processor; others are {}", row.name, ON_ANY_DEVICE.join(", "));
        return Err(usage(message));
    }
    let changes = changes(&args.set, &rows)?;
    if let Some(number) = args.threads {
        threads::set(number)?;
    }
    let reports = match rows.as_slice() {
        [row] => vec![serde_json::to_value(one(row, &args, &changes)?)?],
        rows => rows.iter().map(|row| elsewhere(row, &args, &changes)).collect::<anyhow::Result<_>>()?,
    };
    if args.json {
        output::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "cpu": super::doctor::cpu(),
            "kernels": args.on.device.describe(),
            "rows": reports,
        }))
    } else {
        output::text(&table(&reports))
    }
}

/// `KEY=VALUE` pairs that some row has.
fn changes(set: &[String], rows: &[&Row]) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut changes = BTreeMap::new();
    for text in set {
        let wrong = |why: &str| usage(format!("`--set {text}`: {why}"));
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("write KEY=VALUE"))?;
        let value: usize = value.parse().map_err(|_| wrong("the value must be a whole number"))?;
        if value > 1 << 24 || (value == 0 && key != "tied") {
            return Err(wrong("the value must be between 1 and 16777216"));
        }
        if rows.iter().all(|row| row.sizes.iter().all(|(known, _)| *known != key)) {
            let mut known: Vec<&str> = rows.iter().flat_map(|row| row.sizes.iter().map(|(key, _)| *key)).collect();
            known.sort_unstable();
            known.dedup();
            return Err(wrong(&format!("there is no such size; there are {}", known.join(", "))));
        }
        changes.insert(key.to_owned(), value);
    }
    Ok(changes)
}

fn one(row: &Row, args: &Args, changes: &BTreeMap<String, usize>) -> anyhow::Result<Report> {
    let sizes = Sizes::new(row.sizes, changes);
    let precision = match args.precision {
        PrecisionArg::F32 => Precision::F32,
        PrecisionArg::Bf16 => Precision::Bf16,
    };
    terminal::say("bench", &format!("{}, {}: {sizes}", row.name, args.precision.name()));
    let start_bytes = memory::peak();
    let mut report = (row.run)(&sizes, &How { steps: args.steps, precision, device: args.on.device })?;
    report.row = row.name;
    report.start_bytes = start_bytes;
    report.sizes = sizes;
    Ok(report)
}

/// Measures a row in a process of its own.
fn elsewhere(row: &Row, args: &Args, changes: &BTreeMap<String, usize>) -> anyhow::Result<Value> {
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.args(["bench", row.name, "--json", "--precision", args.precision.name()]);
    command.args(["--device", args.on.device.name()]);
    command.arg("--steps").arg(args.steps.to_string());
    if let Some(threads) = args.threads {
        command.arg("--threads").arg(threads.to_string());
    }
    for (key, value) in changes.iter().filter(|(key, _)| row.sizes.iter().any(|(known, _)| known == key)) {
        command.arg("--set").arg(format!("{key}={value}"));
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start this program")?;
    if !output.status.success() {
        let code = output.status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        return Err(exit::Coded { code, message: format!("the row `{}` failed ({})", row.name, output.status) }.into());
    }
    let answer: Value = serde_json::from_slice(&output.stdout).context("a row gave no JSON")?;
    Ok(answer["rows"][0].clone())
}

fn table(reports: &[Value]) -> String {
    let rate = |report: &Value| {
        let (rate, unit) = (report["per_second"].as_f64().unwrap_or(0.0), report["unit"].as_str().unwrap_or_default());
        if rate < 100.0 {
            format!("{rate:.1} {unit}/s")
        } else {
            format!("{} {unit}/s", terminal::amount(rate)).replace(" G FLOP", " GFLOP")
        }
    };
    let rows: Vec<Vec<String>> = reports
        .iter()
        .map(|r| {
            vec![
                r["row"].as_str().unwrap_or_default().to_owned(),
                r["precision"].as_str().unwrap_or_default().to_owned(),
                format!("{:.1}", r["median_ms"].as_f64().unwrap_or(0.0)),
                format!("{:.1}", r["min_ms"].as_f64().unwrap_or(0.0)),
                rate(r),
                giga(&r["flops_per_second"]),
                r["share_of_product"].as_f64().map_or_else(String::new, |x| format!("{:.0}%", 100.0 * x)),
                format_bytes(r["peak_bytes"].as_u64().unwrap_or(0)),
            ]
        })
        .collect();
    let mut text =
        text_table(&["row", "numbers", "median ms", "min ms", "rate", "GFLOP/s", "of products", "peak memory"], &rows);
    for report in reports.iter().filter(|report| report["products"].is_array()) {
        let rows: Vec<Vec<String>> = report["products"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|p| {
                let shape = ["tokens", "inputs", "outputs"].map(|key| p[key].to_string()).join(" x ");
                let share = p["share_of_peak"].as_f64().map_or_else(String::new, |x| format!("{:.0}%", 100.0 * x));
                vec![p["pass"].as_str().unwrap_or_default().to_owned(), shape, giga(&p["flops_per_second"]), share]
            })
            .collect();
        text.push('\n');
        text.push_str(&text_table(&["product", "tokens x inputs x outputs", "GFLOP/s", "of f32 peak"], &rows));
        text.push_str(&format!("f32 multiply-adds between registers: {} GFLOP/s\n", giga(&report["fma_peak"])));
    }
    text
}

fn giga(value: &Value) -> String {
    value.as_f64().map_or_else(String::new, |x| format!("{:.0}", x / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[&str], rows: &[&Row]) -> anyhow::Result<BTreeMap<String, usize>> {
        changes(&set.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), rows)
    }

    #[test]
    fn sizes_that_no_row_has_and_impossible_values_are_refused() {
        let llama = ROWS.iter().find(|row| row.name == "llama").expect("a row");
        assert_eq!(read(&["vocab=32000", "tied=0"], &[llama]).expect("sound")["vocab"], 32000);
        for (text, part) in [
            ("vocab", "KEY=VALUE"),
            ("vocab=x", "whole number"),
            ("vocab=0", "between 1"),
            ("vocab=99999999999", "between 1"),
            ("vocabulary=1", "no such size; there are batch, heads, hidden"),
        ] {
            let message = read(&[text], &[llama]).expect_err("wrong").to_string();
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn the_help_names_every_row_and_size() {
        let help = after_help();
        for row in ROWS {
            assert!(help.contains(row.name) && row.sizes.iter().all(|(key, _)| help.contains(key)));
        }
    }
}
