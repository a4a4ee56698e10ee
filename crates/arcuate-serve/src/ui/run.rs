//! The page of one run: where it stands, curves, confusion matrix, samples, metrics, checkpoints, recipe.

use std::path::Path;

use arcuate_record::html::{code_block, escape, figure, sample_block};
use arcuate_record::{
    CheckpointName, Confusion, Direction, RunSummary, State, checkpoints, format_count, format_duration, format_number,
    parse_utc, run_charts,
};

use super::View;
use super::catalogue::Run;
use super::list::last_result;
use super::plan::read;
use super::shell::{Cell, Page, named, progress, section, state, table, tiles};
use crate::query::link;

const MAX_SAMPLES: usize = 20;

/// When a run is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Horizon {
    Steps(u64),
    Tokens(u64),
}

/// The horizon of the recipe; `None` for work that is no training.
fn horizon(run_path: &Path) -> Option<Horizon> {
    let text = ["resolved.toml", "recipe.toml"].into_iter().find_map(|name| read(&run_path.join(name)))?;
    let (_, rest) = text.split_once("\n[horizon]")?;
    let part = rest.split("\n[").next().unwrap_or_default();
    let part = part.split_once('\n').map_or("", |(_, lines)| lines);
    let table: toml::Table = part.parse().ok()?;
    let number = |key: &str| table.get(key).and_then(toml::Value::as_integer).and_then(|n| u64::try_from(n).ok());
    number("steps").map(Horizon::Steps).or_else(|| number("tokens").map(Horizon::Tokens))
}

/// The step, and the last one where it is known: `488 of 800`.
pub(super) fn steps(run: &RunSummary) -> String {
    let step = format_count(run.step);
    match horizon(&run.path) {
        Some(Horizon::Steps(all)) => format!("{step} of {}", format_count(all)),
        Some(Horizon::Tokens(_)) => format!("{step} ({:.0}%)", 100.0 * share(run).unwrap_or_default()),
        None => step,
    }
}

/// How much of the horizon is done.
fn share(run: &RunSummary) -> Option<f64> {
    match horizon(&run.path)? {
        Horizon::Steps(all) => Some(run.step as f64 / all.max(1) as f64),
        Horizon::Tokens(all) => Some(run.last.get("train/tokens")? / all.max(1) as f64),
    }
}

pub(super) fn page(view: &View<'_>, run: &Run) -> Page {
    let own = &run.summary;
    let curves = view.follower.curves(&own.path);
    let is_live = own.state == State::Running;
    let mut live = status(view, own);
    live += &tiles(&figures(view, own));
    let series = |metric: &str| curves.get(metric).cloned().unwrap_or_default();
    let charts: String = run_charts(series).iter().map(figure).collect();
    if !charts.is_empty() {
        live += &section("Curves", &format!("<div class=\"figures\">{charts}</div>\n"));
    }
    if let Some(confusion) = Confusion::load(&own.path) {
        live += &section("Confusion matrix", &confusion.to_html());
    }
    let samples = samples(&own.path);
    if !samples.is_empty() {
        live += &section("Samples", &samples);
    }
    let rows = metric_rows(own);
    if !rows.is_empty() {
        let headers = [Cell::text("metric"), Cell::number("last"), Cell::number("best")];
        live += &section("Metrics", &table("Last and best value of each metric", &headers, 0, &rows));
    }
    let saved: String = checkpoints(&own.path).iter().map(CheckpointName::words).map(|words| item(&words)).collect();
    if !saved.is_empty() {
        live += &section("Checkpoints", &format!("<ul>{saved}</ul>\n"));
    }
    let resolved = ["resolved.toml", "recipe.toml"].into_iter().find_map(|name| read(&own.path.join(name)));
    let recipe = resolved.map_or_else(String::new, |text| {
        let summary = "Every value with its origin";
        section("Recipe", &format!("<details><summary>{summary}</summary>{}</details>\n", code_block(&text)))
    });
    let address = link("/run", &[("name", &own.name)]);
    Page::new(&own.name, &address).before(&links(run)).live(is_live, &live).after(&recipe)
}

fn item(text: &str) -> String {
    format!("<li>{}</li>", escape(text))
}

fn links(run: &Run) -> String {
    let mut links = Vec::new();
    if let Some(study) = &run.study {
        links.push(named("/study", study, &format!("Study {study}")));
    }
    links.push(format!("<a href=\"{}\">Compare with others</a>", escape(&link("/", &[("run", &run.summary.name)]))));
    if run.summary.path.join("report.html").is_file() {
        links.push(named("/report", &run.summary.name, "Report"));
    }
    format!("<p class=\"links\">{}</p>\n", links.join(" "))
}

/// Said aloud when it changes, so it is only as exact as is worth hearing.
fn status(view: &View<'_>, run: &RunSummary) -> String {
    let (share, all) = (share(run), steps(run));
    let words = match (run.state, share) {
        (State::Running, Some(share)) if share < 0.1 => "just begun".to_owned(),
        (State::Running, Some(share)) => format!("more than {:.0}% done", (share * 10.0).floor() * 10.0),
        (State::Running, None) => "at work".to_owned(),
        _ => format!("last change {} ago", view.age(&run.updated)),
    };
    let mut html = format!(
        "<p class=\"line\" role=\"status\" aria-live=\"polite\">{} <span>{}</span></p>\n",
        state(run.state),
        escape(&words)
    );
    if let (State::Running, Some(share)) = (run.state, share) {
        html += &format!("<p class=\"line\">{} step {}</p>\n", progress("steps done", share), escape(&all));
    }
    if let Some(error) = &run.last_error {
        html += &format!("<p class=\"verdict bad\">{}</p>\n", escape(error));
    }
    if matches!(run.state, State::Stopped | State::Preempted | State::Failed) {
        html += "<p>Run the same command again to go on from the last checkpoint.</p>\n";
    }
    html
}

fn figures(view: &View<'_>, run: &RunSummary) -> Vec<(String, String, String)> {
    let tile = |label: &str, value: String, note: &str| (label.to_owned(), value, note.to_owned());
    let mut tiles = vec![tile("step", steps(run), "finished")];
    if let Some(loss) = run.last.get("train/loss") {
        tiles.push(tile("train loss", format_number(*loss), "last step"));
    }
    if let Some((value, words)) = last_result(run) {
        tiles.push(tile("last evaluation", value, &format!("{words}, held out")));
    }
    if let Some(rate) = run.last.get("train/tokens_per_second") {
        tiles.push(tile("speed", format_number(rate.round()), "tokens a second"));
    }
    let end = if run.state == State::Running { Some(view.now) } else { parse_utc(&run.updated) };
    if let (Some(begun), Some(end)) = (parse_utc(&run.started), end) {
        // The page of a running run would change with every second.
        let seconds = end.saturating_sub(begun) as f64;
        let time = if run.state == State::Running { view.age(&run.started) } else { format_duration(seconds) };
        tiles.push(tile("time", time, "since the first start"));
    }
    tiles
}

fn samples(run_path: &Path) -> String {
    let text = read(&run_path.join("samples.jsonl")).unwrap_or_default();
    let block = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(sample_block(value["prompt"].as_str()?, value["text"].as_str()?))
    };
    text.lines().filter_map(block).take(MAX_SAMPLES).collect()
}

/// All metrics by name; those of evaluation come first.
fn metric_rows(run: &RunSummary) -> Vec<Vec<Cell>> {
    let mut names: Vec<&String> = run.last.keys().chain(run.best.keys()).collect();
    names.sort_by_key(|name| (!name.starts_with("eval/"), *name));
    names.dedup();
    let cell = |value: Option<&f64>| Cell::number(&value.map_or_else(|| "-".to_owned(), |value| format_number(*value)));
    let best = |name: &str| if Direction::of(name) == Direction::Neutral { None } else { run.best.get(name) };
    names.into_iter().map(|name| vec![Cell::metric(name), cell(run.last.get(name)), cell(best(name))]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_horizon_is_found_between_other_tables() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (text, wanted) in [
            ("a = 1\n\n[horizon]   # x:1\nsteps = 30  # x:2\n\n[checkpoint]\nsteps = 7\n", Some(Horizon::Steps(30))),
            ("[schedule.cosine]\n[horizon]\ntokens = 1_000\n", Some(Horizon::Tokens(1000))),
            ("[schedule.cosine]\nsteps = 3\n", None),
        ] {
            std::fs::write(folder.path().join("recipe.toml"), text).expect("writable");
            assert_eq!(horizon(folder.path()), wanted, "{text}");
        }
    }
}
