//! Writes a made-up run under the folder given: metrics, event files, index, report; prints what a terminal shows.
//!
//! `cargo run -p arcuate-record --example record_demo -- /tmp/demo`

use std::io::Write;
use std::path::PathBuf;

use arcuate_record::{
    Chart, EventWriter, LedgerRow, MetricsWriter, Record, Report, RunDir, Series, State, Table, TerminalSize, Tone,
    compare, format_bytes, format_count, list, read_metrics,
};

const RESOLVED: &str = "name = \"quickstart\"              # recipe.toml:2
seed = 17                          # recipe.toml:3

[model.llama]
hidden_size = 256                  # recipe.toml:19
num_layers = 4                     # recipe.toml:20
tie_embeddings = true              # default

[optimizer.adamw]
peak_learning_rate = 2e-3          # override 1
weight_decay = 0.1                 # default
";

fn main() -> Outcome {
    let root = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "record-demo".into()));
    for (name, speed) in [("quickstart", 90.0), ("slower", 160.0)] {
        write_run(&root, name, speed)?;
    }
    let runs = list(&root)?;
    let comparison = compare(&runs)?;
    std::fs::write(root.join("compare.html"), comparison.to_report().to_html())?;
    if let Some(chart) = comparison.overlay("eval/bits_per_byte") {
        std::fs::write(root.join("chart.svg"), chart.to_svg())?;
    }
    let mut out = std::io::stdout();
    for is_coloured in [false, true] {
        write!(out, "{}", comparison.to_terminal(TerminalSize { width: 90, height: 12, is_coloured }))?;
    }
    let metrics = read_metrics(&root.join("quickstart/metrics.jsonl"))?;
    let loss = Chart::new("train loss", vec![Series::new("loss", metrics.series("train", "loss"))]);
    write!(out, "{}", loss.to_terminal(TerminalSize::default()))?;
    Ok(())
}

type Outcome = std::result::Result<(), Box<dyn std::error::Error>>;

fn write_run(root: &std::path::Path, name: &str, speed: f64) -> Outcome {
    let mut run = RunDir::create_or_open_resolved(
        root,
        name,
        RESOLVED,
        &RESOLVED.replace("2e-3 ", if speed < 100.0 { "2e-3 " } else { "5e-4 " }),
    )?;
    let mut metrics = MetricsWriter::open(&run.metrics_path(), None)?;
    let mut events = EventWriter::create(run.path(), None)?;
    let mut noise = 1_u64;
    for step in 1..=800_u64 {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let wobble = (noise >> 40) as f64 / (1 << 24) as f64 - 0.5;
        let smooth = 3.4 + 5.0 * (-(step as f64) / speed).exp() - 0.0002 * step as f64;
        let rate = 2e-3 * if step < 40 { step as f64 / 40.0 } else { 0.5 + 0.5 * (step as f64 / 255.0).cos() };
        let record = Record::new(step, "train")
            .value("loss", smooth + 0.3 * wobble)
            .value("learning_rate", rate.max(0.0))
            .value("grad_norm", 0.4 + 3.0 * (-(step as f64) / 60.0).exp() + 0.2 * wobble.abs())
            .value("tokens_per_second", 11_900.0 + 900.0 * wobble);
        metrics.write(&record)?;
        events.scalars(step, "train", &record.values)?;
        if step % 100 == 0 {
            let record = Record::new(step, "eval").value("bits_per_byte", smooth / 2.35).value("loss", smooth + 0.05);
            metrics.write(&record)?;
            events.scalars(step, "eval", &record.values)?;
            events.text(step, "sample", "Fellow citizens of the *Senate*")?;
        }
        run.progress(step)?;
    }
    let samples = [
        (
            "Fellow citizens",
            " of the Senate and of the House of Representatives: I have the honor to lay before you <the> report.",
        ),
        (
            "The state of the Union",
            " is strong, and the people of the several States are at peace with all the nations of the world; the revenue has been sufficient.",
        ),
    ];
    let series = read_metrics(&run.metrics_path())?;
    let train = |value: &str| Series::new("train", series.series("train", value));
    let report = Report::new(name)
        .subtitle("llama, 3.4 M parameters · 2026-11-23 10:32 UTC · cpu, 2 threads · 2 min 38 s")
        .verdict(Tone::Good, "1.44 bits per byte on held-out text; LZMA that has read the training text needs 1.82.")
        .tile("Held-out", "1.44 bits/byte", "LZMA 1.82")
        .tile("Perplexity", "68.2", "per token")
        .tile("Speed", "11.9k tok/s", "2 min 38 s in all")
        .tile("Memory", &format_bytes(612_000_000), "planned 0.6 GB")
        .tile("Tokens", &format_count(1_638_400), "0.8 passes")
        .charts(
            "Curves",
            &[
                Chart::new("Training loss", vec![train("loss")]).smoothed().y_label("nats per token"),
                Chart::new(
                    "Held-out bits per byte",
                    vec![
                        Series::new("this run", series.series("eval", "bits_per_byte")),
                        Series::new("LZMA", vec![(100.0, 1.82), (800.0, 1.82)]),
                    ],
                ),
                Chart::new("Learning rate", vec![train("learning_rate")]),
                Chart::new("Gradient norm", vec![train("grad_norm")]).smoothed().log(false, true),
            ],
        )
        .table(
            "Held-out by source",
            &Table::new(&["source", "documents", "bits per byte", "95% interval"])
                .row(["addresses", "13", "1.44", "1.41 to 1.47"].map(String::from).to_vec())
                .note("Interval by bootstrap over documents."),
        )
        .ledger(&[
            LedgerRow {
                source: "addresses".into(),
                weight: 3.0,
                num_rows: 4800,
                num_tokens: 1_228_800,
                num_bytes: 5_160_960,
                repeats: 0.61,
            },
            LedgerRow {
                source: "letters".into(),
                weight: 1.0,
                num_rows: 1600,
                num_tokens: 409_600,
                num_bytes: 1_720_320,
                repeats: 2.4,
            },
        ])
        .samples("Samples", &samples.map(|(prompt, text)| (prompt.to_owned(), text.to_owned())))
        .code("Recipe, resolved", RESOLVED, false)
        .facts(
            "Environment",
            &[("version", "arcuate 0.1.0"), ("device", "cpu, 2 threads, AVX-512"), ("data", "blake3 8f3a…")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        )
        .footer("Written by arcuate; the numbers behind the curves are in metrics.jsonl beside this page.");
    run.write("report.html", report.to_html().as_bytes())?;
    run.finish(State::Done, 800, None)?;
    Ok(())
}
