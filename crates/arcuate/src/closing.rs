//! What comes after the last step: comparison with a compressor, samples, the report.

mod transcripts;

use anyhow::Result;
use arcuate_data::{Corpus, LedgerEntry, Split, Texts};
use arcuate_decode::{GenerateConfig, Generator};
use arcuate_eval::{LzmaLimits, LzmaResult, LzmaWatch};
use arcuate_objective::ObjectiveConfig;
use arcuate_ops::device::Device;
use arcuate_recipe::{Pipeline, PlannedRun, Recipe};
use arcuate_record::{Confusion, LedgerRow, Metrics, Record, Report, RunDir, Table, Tone, read_metrics, statistics};
use arcuate_text::Tokenizer;
use arcuate_train::{LoopState, StopFlag};

use crate::memory;
use crate::session::Options;
use crate::terminal::{self, amount, duration, say};
use transcripts::Transcripts;

/// Samples that are drawn together.
const SAMPLES_TOGETHER: usize = 16;

/// What is known when the loop has ended.
pub(crate) struct Closing<'a> {
    pub recipe: &'a Recipe,
    pub device: &'a Device,
    pub resolved: &'a str,
    pub tokenizer: &'a Tokenizer,
    pub corpus: &'a Corpus,
    pub state: &'a LoopState,
    pub ledger: Vec<LedgerEntry>,
    pub seconds: f64,
    pub data_wait_seconds: f64,
    pub num_parameters: usize,
    pub json: bool,
}

/// The result of the evaluation that counts.
struct Final {
    metric: &'static str,
    value: f64,
    values: std::collections::BTreeMap<String, f64>,
}

fn final_evaluation(recipe: &Recipe, metrics: &Metrics) -> Option<Final> {
    let find = |kind: &str| metrics.records.iter().rev().find(|r| r.kind == kind);
    let last = find("eval");
    if let Some(value) = find("transcripts").and_then(|transcripts| transcripts.values.get("cer")) {
        let values = last.map(|last| last.values.clone()).unwrap_or_default();
        return Some(Final { metric: "cer", value: *value, values });
    }
    let last = last?;
    let metric = match &recipe.objective {
        ObjectiveConfig::NextToken(_) => "bits_per_byte",
        objective if objective.is_classification() => "accuracy",
        _ => "loss",
    };
    Some(Final { metric, value: *last.values.get(metric)?, values: last.values.clone() })
}

/// Measures the compressor, draws samples and writes the report.
pub(crate) fn close(closing: &Closing, folder: &mut RunDir, stop: &StopFlag) -> Result<()> {
    let recipe = closing.recipe;
    let transcripts = transcripts::transcribe(closing, folder, stop)?;
    let metrics = read_metrics(&folder.metrics_path())?;
    let result = final_evaluation(recipe, &metrics);
    let wants_lzma = recipe.evaluation.as_ref().is_some_and(|e| e.compare_with_lzma);
    let lzma = if wants_lzma {
        memory::give_back();
        Some(compress(recipe, stop, closing.json)?)
    } else {
        None
    };
    let samples = draw(closing, folder)?;
    if !closing.json {
        for (prompt, text) in &samples {
            say("sample", &format!("{prompt}{text}"));
        }
    }
    let lines =
        samples.iter().map(|(prompt, text)| serde_json::json!({"prompt": prompt, "text": text}).to_string() + "\n");
    folder.write("samples.jsonl", lines.collect::<String>().as_bytes())?;
    let confusion = Confusion::load(folder.path());
    let found = Found {
        result: result.as_ref(),
        lzma: lzma.as_ref(),
        confusion: confusion.as_ref(),
        samples: &samples,
        transcripts: transcripts.as_ref(),
    };
    let report = report(closing, &metrics, &found);
    folder.write("report.html", report.to_html().as_bytes())?;
    let summary = match &transcripts {
        Some(transcripts) => transcripts.summary(),
        None => summary(result.as_ref(), lzma.as_ref(), closing),
    };
    if closing.json {
        let mut record = Record::new(closing.state.step, "done")
            .value("seconds", closing.seconds)
            .value("peak_memory_bytes", memory::peak() as f64);
        if let Some(result) = &result {
            record = record.value(result.metric, result.value);
        }
        if let Some(first) = transcripts.as_ref().and_then(Transcripts::first) {
            record = record.value("wer", first.scores.words.rate);
        }
        if let Some(lzma) = &lzma {
            record = record.value("lzma_bits_per_byte", lzma.bits_per_byte);
        }
        terminal::result(&record.to_json().to_string());
        return Ok(());
    }
    say("done", &format!("{summary}   report {}", folder.report_path().display()));
    if let Some(transcripts) = &transcripts {
        let best = folder.checkpoints_path().join("best");
        let checkpoint = if best.exists() { best } else { folder.checkpoints_path().join("last") };
        let flags = transcripts.flags();
        say("next", &format!("arcuate transcribe {} some.mp3 --format srt{flags}", checkpoint.display()));
    }
    if matches!(recipe.objective, ObjectiveConfig::NextToken(_)) {
        let best = folder.checkpoints_path().join("best");
        let kind = if best.exists() { "best" } else { "last" };
        let prompt = recipe.samples.as_ref().and_then(|s| s.prompts.first()).map_or("The", String::as_str);
        let checkpoint = folder.checkpoints_path().join(kind);
        say("next", &format!("arcuate generate {} --prompt {prompt:?}", checkpoint.display()));
    }
    Ok(())
}

fn summary(result: Option<&Final>, lzma: Option<&LzmaResult>, closing: &Closing) -> String {
    let mut text = match result {
        Some(r) if r.metric == "bits_per_byte" => format!("{:.3} bits/byte on held-out text", r.value),
        Some(r) if r.metric == "accuracy" => format!("accuracy {:.1}% on held-out documents", 100.0 * r.value),
        Some(r) => format!("held-out {} {:.4}", r.metric, r.value),
        None => format!("{} steps", closing.state.step),
    };
    if let Some(lzma) = lzma {
        text += &format!(" (LZMA that has read the training text: {:.3})", lzma.bits_per_byte);
    }
    text
}

fn compress(recipe: &Recipe, stop: &StopFlag, quiet: bool) -> Result<LzmaResult> {
    let bar = terminal::bar("lzma", 0, true);
    if quiet {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    bar.set_message("compressing the same texts");
    let watch = LzmaWatch::default();
    let (train, held_out) =
        (Texts::open(&recipe.data, Split::Train, None)?, Texts::open(&recipe.data, Split::HeldOut, None)?);
    let failures = [train.failure(), held_out.failure()];
    let result = std::thread::scope(|scope| {
        let worker = scope.spawn(|| arcuate_eval::lzma(train, held_out, &LzmaLimits::default(), &watch));
        while !worker.is_finished() {
            use std::sync::atomic::Ordering::Relaxed;
            bar.set_length(watch.total_bytes.load(Relaxed));
            bar.set_position(watch.done_bytes.load(Relaxed));
            if stop.is_requested() {
                watch.cancel.store(true, Relaxed);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        worker.join()
    });
    bar.finish_and_clear();
    for failure in failures {
        failure.take()?;
    }
    match result {
        Ok(result) => Ok(result?),
        Err(_) => anyhow::bail!("the comparison with LZMA ended unexpectedly; run again"),
    }
}

fn draw(closing: &Closing, folder: &RunDir) -> Result<Vec<(String, String)>> {
    let Some(samples) = &closing.recipe.samples else { return Ok(Vec::new()) };
    let store = folder.checkpoints_path();
    let dir = ["best", "last"].map(|name| store.join(name)).into_iter().find(|d| d.exists());
    let Some(dir) = dir else { return Ok(Vec::new()) };
    let network = arcuate_model::load(&dir, closing.device)?;
    let config = GenerateConfig::from_samples(samples, closing.recipe.seed);
    let generator = Generator::new(&network, closing.tokenizer, config)?;
    let texts = generator.generate_all(&samples.prompts, SAMPLES_TOGETHER)?;
    Ok(samples.prompts.iter().cloned().zip(texts.into_iter().map(|g| g.text)).collect())
}

/// What the end of a run found out.
struct Found<'a> {
    result: Option<&'a Final>,
    lzma: Option<&'a LzmaResult>,
    confusion: Option<&'a Confusion>,
    samples: &'a [(String, String)],
    transcripts: Option<&'a Transcripts>,
}

fn report(closing: &Closing, metrics: &Metrics, found: &Found<'_>) -> Report {
    let Found { result, lzma, confusion, samples, transcripts } = *found;
    let (recipe, state) = (closing.recipe, closing.state);
    let rate = state.tokens as f64 / state.train_seconds.max(1e-9);
    let mut report = Report::new(&recipe.name).subtitle(&format!(
        "{} · {} · {}",
        recipe.model.name(),
        arcuate_record::utc_now(),
        recipe.device.describe()
    ));
    if let (Some(r), Some(l)) = (result.filter(|r| r.metric == "bits_per_byte"), lzma) {
        let tone = if r.value < l.bits_per_byte { Tone::Good } else { Tone::Bad };
        let text = format!(
            "{:.3} bits per byte on held-out text. LZMA, having read the training text, needs {:.3}.",
            r.value, l.bits_per_byte
        );
        report = report.verdict(tone, &text);
    }
    if let Some(transcripts) = transcripts {
        report = transcripts.tiles(report);
    } else if let Some(r) = result {
        let name = r.metric.replace('_', " ");
        report = report.tile(&name, &format!("{:.4}", r.value), "held-out, after the last step");
    }
    if let Some(l) = lzma {
        let note = l.left_out().unwrap_or_else(|| "both texts minus the training text".to_string());
        report = report.tile("LZMA bits per byte", &format!("{:.4}", l.bits_per_byte), &note);
    }
    let wait = 100.0 * closing.data_wait_seconds / closing.seconds.max(1e-9);
    report = report
        .tile(
            "parameters",
            &amount(closing.num_parameters as f64),
            &format!("vocabulary {}", closing.tokenizer.vocab_size()),
        )
        .tile("tokens", &amount(state.tokens as f64), &format!("{} steps", state.step))
        .tile("tokens a second", &amount(rate), &format!("{wait:.1}% of the time waiting for data"))
        .tile("training time", &duration(state.train_seconds), "all sessions")
        .tile("peak memory", &format!("{}B", amount(memory::peak() as f64)), "of this process");
    let series =
        |metric: &str| metric.split_once('/').map(|(kind, name)| metrics.series(kind, name)).unwrap_or_default();
    report = report.charts("Curves", &arcuate_record::run_charts(series));
    if let Some(transcripts) = transcripts {
        report = transcripts.sections(report);
    }
    if let Some(r) = result.filter(|r| !r.values.is_empty()) {
        let mut table = Table::new(&["measure", "value"]).note("Mean over all held-out documents.");
        for (name, value) in &r.values {
            table = table.row(vec![name.replace('_', " "), arcuate_record::format_number(*value)]);
        }
        report = report.table(if transcripts.is_some() { "Held-out recordings" } else { "Held-out text" }, &table);
    }
    if let Some(confusion) = confusion {
        report = report.confusion("Confusion matrix", confusion);
    }
    let rows: Vec<LedgerRow> = closing
        .ledger
        .iter()
        .map(|l| LedgerRow {
            source: l.source.clone(),
            weight: recipe.data.weights().get(l.source.as_str()).copied().unwrap_or(1.0),
            num_rows: l.rows,
            num_tokens: l.tokens,
            num_bytes: l.bytes,
            repeats: l.repeats,
        })
        .collect();
    report = report.ledger(&rows);
    if !samples.is_empty() {
        report = report.samples("Samples", samples);
    }
    let summary = closing.corpus.summary();
    let mut table = Table::new(&["source", "documents", "train", "held out", "bytes", "bytes a token"]);
    for s in &summary {
        table = table.row(vec![
            s.name.clone(),
            s.documents.to_string(),
            s.train_documents.to_string(),
            s.held_out_documents.to_string(),
            arcuate_record::format_bytes(s.bytes),
            format!("{:.2}", s.bytes_per_token()),
        ]);
    }
    report
        .table("Corpus", &table)
        .code("Recipe, every value with its origin", closing.resolved, true)
        .facts(
            "Environment",
            &[
                ("arcuate".to_string(), env!("CARGO_PKG_VERSION").to_string()),
                ("device".to_string(), recipe.device.describe()),
                ("system".to_string(), format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
                ("data fingerprint".to_string(), closing.corpus.fingerprint().to_string()),
                ("tokenizer hash".to_string(), closing.tokenizer.hash().to_string()),
                ("seed".to_string(), recipe.seed.to_string()),
            ],
        )
        .footer("Written by arcuate; this page needs no other file.")
}

/// After all steps: one table over the runs, means over seeds with intervals.
pub(crate) fn close_pipeline(pipeline: &Pipeline, runs: &[PlannedRun], options: &Options) -> Result<()> {
    let mut table = Table::new(&["step", "runs", "metric", "mean", "95% interval", "values"]);
    let mut lines = Vec::new();
    for step in &pipeline.step {
        let mut metric = "";
        let mut values = Vec::new();
        for planned in runs.iter().filter(|r| r.step == step.name) {
            let (loaded, _) = planned.load(&options.runs_dir)?;
            let metrics = read_metrics(&options.runs_dir.join(&loaded.value.name).join("metrics.jsonl"))?;
            if let Some(result) = final_evaluation(&loaded.value, &metrics) {
                metric = result.metric;
                values.push(result.value);
            }
        }
        let Some(mean) = statistics::mean(&values) else { continue };
        let interval = statistics::Bootstrap::default().mean_interval(&values).filter(|_| values.len() > 1);
        let interval = interval.map_or_else(|| "-".to_string(), |i| format!("{:.4} to {:.4}", i.low, i.high));
        let all = values.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(", ");
        let row =
            vec![step.name.clone(), values.len().to_string(), metric.to_string(), format!("{mean:.4}"), interval, all];
        table = table.row(row.clone());
        lines.push(row);
    }
    let text = arcuate_record::text_table(&["step", "runs", "metric", "mean", "95% interval", "values"], &lines);
    if options.json {
        terminal::result(&serde_json::json!({"pipeline": pipeline.name, "steps": lines}).to_string());
    } else {
        say("result", &text);
    }
    let report = Report::new(&pipeline.name)
        .subtitle(&format!("pipeline of {} runs · {}", runs.len(), arcuate_record::utc_now()))
        .table("Steps", &table.note("Held-out result after the last step; the interval is a bootstrap over seeds."));
    let path = options.runs_dir.join(format!("{}.html", pipeline.name));
    arcuate_record::write_atomic(&path, report.to_html().as_bytes())?;
    if !options.json {
        say("done", &format!("report {}", path.display()));
    }
    Ok(())
}
