//! `arcuate runs`: the local record of runs in the terminal.

pub(super) mod output;

use std::path::{Path, PathBuf};

use anyhow::Context;
use arcuate_record::{
    Chart, Direction, RunSummary, Series, State, compare, format_count, format_number, list, read_metrics, summarise,
    text_table, write_atomic,
};
use serde_json::json;

use crate::{exit, terminal};

/// Folder that `arcuate run` writes to.
const DEFAULT_ROOT: &str = "runs";
/// Metrics that say most: columns of the list.
const COLUMNS: [&str; 4] = ["eval/bits_per_byte", "eval/loss", "eval/accuracy", "train/loss"];
/// What is plotted of one run: of each line, the first metric that the run has.
const PLOTS: [&[&str]; 3] =
    [&["eval/bits_per_byte", "eval/accuracy", "eval/loss"], &["train/loss"], &["train/learning_rate"]];

/// List, show and compare runs.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List all runs, the latest first.
    #[command(after_help = "Examples:
  arcuate runs list
  arcuate runs list --json | jq '.[].name'")]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show state, metrics and curves of one run.
    #[command(after_help = "Examples:
  arcuate runs show quickstart
  arcuate runs show /elsewhere/runs/quickstart --metric train/grad_norm")]
    Show {
        /// Name of the run, or its folder.
        name: String,
        /// Plot this metric, such as `train/loss`; may be repeated.
        #[arg(long, value_name = "METRIC")]
        metric: Vec<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Compare runs: metrics, recipe keys that differ, curves over each other.
    #[command(after_help = "Examples:
  arcuate runs compare quickstart larger
  arcuate runs compare quickstart larger --metric train/loss --html compare.html
  arcuate runs compare tiny_language_models
  arcuate runs compare tiny_language_models/none.tune-seed1 tiny_language_models/n12000.tune-seed1")]
    Compare {
        /// Names of the runs, or their folders; a study stands for all of its runs.
        #[arg(required = true)]
        names: Vec<String>,
        /// Plot this metric, such as `train/loss`; may be repeated.
        #[arg(long, value_name = "METRIC")]
        metric: Vec<String>,
        /// Also write the comparison with all curves as a page.
        #[arg(long, value_name = "FILE")]
        html: Option<PathBuf>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(clap::Args)]
struct Common {
    /// Folder that holds the runs.
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_ROOT)]
    runs_dir: PathBuf,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::List { common } => list_runs(&common),
        Command::Show { name, metric, common } => show(&name, &metric, &common),
        Command::Compare { names, metric, html, common } => compare_runs(&names, &metric, html.as_deref(), &common),
    }
}

fn list_runs(common: &Common) -> anyhow::Result<()> {
    let root = &common.runs_dir;
    if !root.is_dir() && root != Path::new(DEFAULT_ROOT) {
        return Err(exit::usage(format!(
            "there is no folder `{}`; name the folder that holds the runs",
            root.display()
        )));
    }
    let runs = list(root)?;
    if common.json {
        return output::json(&runs);
    }
    if runs.is_empty() {
        let next = "`arcuate run recipes/quickstart.toml` makes the first";
        terminal::say("runs", &format!("there are none in `{}`; {next}", root.display()));
        return Ok(());
    }
    let columns: Vec<&str> =
        COLUMNS.into_iter().filter(|metric| runs.iter().any(|run| value(run, metric).is_some())).collect();
    let headers: Vec<&str> = ["run", "state", "step", "started"].into_iter().chain(columns.iter().copied()).collect();
    let rows: Vec<Vec<String>> = runs
        .iter()
        .map(|run| {
            let fixed = [run.name.clone(), run.state.name().to_owned(), format_count(run.step), run.started.clone()];
            let cell = |metric: &&str| value(run, metric).map_or_else(|| "-".to_owned(), format_number);
            fixed.into_iter().chain(columns.iter().map(cell)).collect()
        })
        .collect();
    output::text(&text_table(&headers, &rows))
}

/// The best value of a metric, or the last one where neither way is better.
fn value(run: &RunSummary, metric: &str) -> Option<f64> {
    run.best.get(metric).or_else(|| run.last.get(metric)).copied()
}

/// The folder of a run that the user names by name or by path.
fn find(name: &str, root: &Path) -> anyhow::Result<RunSummary> {
    let by_path = Path::new(name);
    let is_run = |path: &Path| path.join("status.json").is_file();
    // `.` and paths that end in a slash have no name of their own.
    let folder = if !name.is_empty() && is_run(&root.join(name)) {
        root.join(name)
    } else if is_run(by_path) {
        by_path.to_path_buf()
    } else {
        let known: Vec<String> = list(root)?.iter().take(10).map(|run| format!("`{}`", run.name)).collect();
        let known = if known.is_empty() {
            format!("`{}` holds no runs; `--runs-dir` names another folder", root.display())
        } else {
            format!("the latest in `{}` are {}", root.display(), known.join(", "))
        };
        return Err(exit::usage(format!("there is no run `{name}`; {known}")));
    };
    let mut run = summarise(&folder).map_err(coded)?;
    if run.name.is_empty()
        && let Ok(path) = folder.canonicalize()
    {
        run.name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    }
    Ok(run)
}

/// The runs of a study by path; any other name stays as it is.
fn runs_of_study(name: &str, root: &Path) -> Vec<String> {
    let is_study = |folder: &PathBuf| folder.join("rule.json").is_file() && !folder.join("status.json").is_file();
    let folder = [root.join(name), PathBuf::from(name)].into_iter().find(|folder| !name.is_empty() && is_study(folder));
    let Some(folder) = folder else { return vec![name.to_owned()] };
    let mut runs: Vec<String> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.join("status.json").is_file() && !path.to_string_lossy().contains(".old-"))
        .map(|path| path.display().to_string())
        .collect();
    runs.sort();
    runs
}

/// A damaged record is bad data.
fn coded(error: arcuate_record::Error) -> anyhow::Error {
    match error {
        arcuate_record::Error::Damaged { .. } => exit::Coded { code: 4, message: error.to_string() }.into(),
        other => other.into(),
    }
}

fn show(name: &str, wanted: &[String], common: &Common) -> anyhow::Result<()> {
    let run = find(name, &common.runs_dir)?;
    let metrics = read_metrics(&run.path.join("metrics.jsonl")).map_err(coded)?;
    let series = |metric: &str| -> Vec<(f64, f64)> {
        metric.split_once('/').map(|(kind, name)| metrics.series(kind, name)).unwrap_or_default()
    };
    if let Some(unknown) = wanted.iter().find(|metric| series(metric).is_empty()) {
        return Err(exit::usage(format!("the run has no metric `{unknown}`; it has {}", names(&run))));
    }
    let checkpoints: Vec<String> =
        arcuate_record::checkpoints(&run.path).iter().map(arcuate_record::CheckpointName::words).collect();
    let report = Some(run.path.join("report.html")).filter(|path| path.is_file());
    if common.json {
        let curves: serde_json::Map<String, serde_json::Value> =
            wanted.iter().map(|metric| (metric.clone(), json!(series(metric)))).collect();
        return output::json(&json!({
            "run": run, "checkpoints": checkpoints, "report": report,
            "skipped_metric_lines": metrics.num_skipped, "curves": curves,
        }));
    }
    let mut facts: Vec<(&str, String)> = vec![
        ("run", run.name.clone()),
        ("state", format!("{} after step {}", run.state.name(), format_count(run.step))),
        ("time", format!("started {}, last change {}", run.started, run.updated)),
        ("folder", run.path.display().to_string()),
    ];
    if let Some(error) = &run.last_error {
        facts.push(("error", output::one_line(error, 2000)));
    }
    if !checkpoints.is_empty() {
        facts.push(("saved", checkpoints.join(", ")));
    }
    if let Some(report) = &report {
        facts.push(("report", report.display().to_string()));
    }
    if matches!(run.state, State::Stopped | State::Preempted | State::Failed) {
        facts.push(("next", "run the same command again to go on from the last checkpoint".to_owned()));
    }
    let mut text: String =
        facts.iter().map(|(label, fact)| format!("{label:<9}{}\n", output::one_line(fact, 4000))).collect();
    let rows = metric_rows(&run);
    if !rows.is_empty() {
        text.push('\n');
        text.push_str(&text_table(&["metric", "last", "best"], &rows));
    }
    let plotted: Vec<&str> = if wanted.is_empty() {
        let drawn = |metric: &&&str| series(metric).len() > 1;
        PLOTS.iter().filter_map(|metrics| metrics.iter().find(drawn).copied()).collect()
    } else {
        wanted.iter().map(String::as_str).collect()
    };
    for metric in plotted {
        let points = series(metric);
        if points.len() > 1 {
            let chart = Chart::new(metric, vec![Series::new(metric, points)]).smoothed();
            text.push('\n');
            text.push_str(&chart.to_terminal(output::chart_size()));
        }
    }
    output::text(&text)
}

/// All metrics of a run by name; those of evaluation come first.
fn metric_rows(run: &RunSummary) -> Vec<Vec<String>> {
    let mut names: Vec<&String> = run.last.keys().chain(run.best.keys()).collect();
    names.sort_by_key(|name| (!name.starts_with("eval/"), *name));
    names.dedup();
    let cell = |value: Option<&f64>| value.map_or_else(|| "-".to_owned(), |value| format_number(*value));
    let best = |name: &str| if Direction::of(name) == Direction::Neutral { None } else { run.best.get(name) };
    names.into_iter().map(|name| vec![name.clone(), cell(run.last.get(name)), cell(best(name))]).collect()
}

fn names(run: &RunSummary) -> String {
    let mut names: Vec<String> = run.last.keys().map(|name| format!("`{name}`")).collect();
    names.truncate(30);
    if names.is_empty() { "none yet".to_owned() } else { names.join(", ") }
}

fn compare_runs(names: &[String], wanted: &[String], html: Option<&Path>, common: &Common) -> anyhow::Result<()> {
    let names: Vec<String> = names.iter().flat_map(|name| runs_of_study(name, &common.runs_dir)).collect();
    if names.len() < 2 {
        return Err(exit::usage("a comparison needs at least two runs; name another, or a study"));
    }
    let runs: Vec<RunSummary> = names.iter().map(|name| find(name, &common.runs_dir)).collect::<anyhow::Result<_>>()?;
    let comparison = compare(&runs).map_err(coded)?;
    if let Some(unknown) = wanted.iter().find(|metric| comparison.overlay(metric).is_none()) {
        let known: Vec<String> = comparison.curve_names().iter().take(30).map(|name| format!("`{name}`")).collect();
        return Err(exit::usage(format!("no run has the metric `{unknown}`; there are {}", known.join(", "))));
    }
    if let Some(path) = html {
        write_atomic(path, comparison.to_report().to_html().as_bytes()).context("cannot write the page")?;
        terminal::say("page", &path.display().to_string());
    }
    if common.json {
        return output::json(&comparison);
    }
    let mut text = comparison.to_terminal(output::chart_size());
    for chart in wanted.iter().filter_map(|metric| comparison.overlay(metric)) {
        text.push('\n');
        text.push_str(&chart.to_terminal(output::chart_size()));
    }
    output::text(&text)
}
