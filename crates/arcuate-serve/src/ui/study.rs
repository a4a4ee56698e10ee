//! The page of one study: claim, verdict, how far its arms and seeds are, what they measured.

use arcuate_record::html::{escape, figure};
use arcuate_record::{Chart, OVER_SEEDS, Series, State, format_number};
use serde_json::Value;

use super::View;
use super::catalogue::{Run, Study};
use super::plan::Step;
use super::shell::{Cell, Page, named, progress, section, state, table};
use crate::query::link;

impl Study {
    /// Runs that there will be. How many a shared step has is not in its own lines, so what has begun counts too.
    pub(super) fn num_planned(&self) -> usize {
        let known = self.results["num_runs"].as_u64().and_then(|num| usize::try_from(num).ok()).unwrap_or(0);
        let least: usize = self.plan.shared.iter().map(|step| step.num_members).sum();
        known.max(self.plan.num_arm_runs() + least).max(self.states.len())
    }
}

pub(super) fn page(view: &View<'_>, study: &Study) -> Page {
    let runs: Vec<&Run> = view.snapshot.runs_of(&study.name).collect();
    let plan = &study.plan;
    let results = &study.results;
    let is_live = study.count(State::Running) > 0;
    let (done, planned) = (study.count(State::Done), study.num_planned());
    let mut live = format!(
        "<p class=\"line\" role=\"status\" aria-live=\"polite\">{done} of {planned} runs done, {} running, {} failed.</p>\n",
        study.count(State::Running),
        study.count(State::Failed),
    );
    if done < planned {
        live += &format!("<p class=\"line\">{}</p>\n", progress("runs done", done as f64 / planned.max(1) as f64));
    }
    if let Some(verdict) = study.verdict() {
        let tone = if verdict == "held" {
            "good"
        } else if verdict == "not held" {
            "bad"
        } else {
            "neutral"
        };
        let reason = results["reason"].as_str().unwrap_or_default();
        live += &format!("<p class=\"verdict {tone}\"><b>{}</b>: {}</p>\n", escape(&verdict), escape(reason));
    }
    if !plan.arms.is_empty() {
        live += &section("Arms and seeds", &grid(study, &runs));
    }
    let short = |run: &Run| run.summary.name.strip_prefix(&format!("{}/", study.name)).unwrap_or_default().to_owned();
    let of_step = |step: &Step| runs.iter().filter(|run| step.owns(&short(run), None)).copied().collect::<Vec<_>>();
    let shared: Vec<&Run> = plan.shared.iter().flat_map(of_step).collect();
    let listed = if plan.arms.is_empty() { &runs } else { &shared };
    if !listed.is_empty() {
        let item = |run: &&Run| {
            format!("<li>{} {}</li>", named("/run", &run.summary.name, &short(run)), state(run.summary.state))
        };
        let heading = if plan.arms.is_empty() { "Runs" } else { "Shared steps" };
        live += &section(heading, &format!("<ul>{}</ul>\n", listed.iter().map(item).collect::<String>()));
    }
    live += &curves(view, study, &runs);
    live += &arms(results);
    live += &contrasts(results);
    let failed: String = runs
        .iter()
        .filter_map(|run| {
            let error = run.summary.last_error.as_deref().filter(|_| run.summary.state != State::Done)?;
            Some(format!("<li>{}: {}</li>", named("/run", &run.summary.name, &short(run)), escape(error)))
        })
        .collect();
    if !failed.is_empty() {
        live += &section("What went wrong", &format!("<ul>{failed}</ul>\n"));
    }
    let address = link("/study", &[("name", &study.name)]);
    Page::new(&study.name, &address).before(&head(study, &runs)).live(is_live, &live)
}

fn head(study: &Study, runs: &[&Run]) -> String {
    let plan = &study.plan;
    let mut html = String::new();
    for (label, text) in [("Claim", &plan.claim), ("Refuted if", &plan.refuted_if)] {
        if !text.is_empty() {
            html += &format!("<p><b>{label}:</b> {}</p>\n", escape(text));
        }
    }
    let mut links = Vec::new();
    if study.path.join("report.html").is_file() {
        links.push(named("/report", &study.name, "Report"));
    }
    let is_measured = |run: &&&Run| run.summary.last.keys().any(|metric| *metric == plan.metric);
    let pairs: Vec<(&str, &str)> =
        runs.iter().filter(is_measured).map(|run| ("run", run.summary.name.as_str())).take(16).collect();
    if pairs.len() > 1 {
        links.push(format!("<a href=\"{}\">Compare measured runs</a>", escape(&link("/compare", &pairs))));
    }
    if !links.is_empty() {
        html += &format!("<p class=\"links\">{}</p>\n", links.join(" "));
    }
    html
}

/// Arms below each other, seeds beside each other; every run a link with its state and value.
fn grid(study: &Study, runs: &[&Run]) -> String {
    let plan = &study.plan;
    let mut headers = vec![Cell::text("arm")];
    headers.extend(plan.seeds.iter().map(|seed| Cell::text(&format!("seed {seed}"))));
    let value = |run: &Run| {
        let from = if plan.takes_best { &run.summary.best } else { &run.summary.last };
        let value = from.get(&plan.metric).map(|value| format_number(value * plan.scale));
        value.filter(|_| run.summary.state == State::Done)
    };
    let prefix = format!("{}/", study.name);
    let cell = |steps: &[Step], seed: i64| {
        let mut parts = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            let is_own =
                |run: &&&Run| run.summary.name.strip_prefix(&prefix).is_some_and(|name| step.owns(name, Some(seed)));
            for run in runs.iter().filter(is_own) {
                let value = value(run).filter(|_| number + 1 == steps.len());
                let text = value.unwrap_or_else(|| step.name.rsplit('.').next().unwrap_or_default().to_owned());
                parts.push(format!("{} {}", named("/run", &run.summary.name, &text), state(run.summary.state)));
            }
        }
        if parts.is_empty() { Cell::text("not begun").class("soft") } else { Cell::html(parts.join("<br>")) }
    };
    let row = |arm: &super::plan::Arm| {
        let name = format!("{}<small>{}</small>", escape(&arm.name), escape(&arm.words));
        let mut row = vec![Cell::html(name).class("arm")];
        row.extend(plan.seeds.iter().map(|seed| cell(&arm.steps, *seed)));
        row
    };
    let rows: Vec<Vec<Cell>> = plan.arms.iter().map(row).collect();
    let unit = if plan.unit.is_empty() { String::new() } else { format!(" in {}", plan.unit) };
    table(&format!("{}{unit}, of runs that are done", plan.metric), &headers, 0, &rows)
}

/// The metric and the training loss of each arm over its seeds, from the last of its steps that has any.
fn curves(view: &View<'_>, study: &Study, runs: &[&Run]) -> String {
    let prefix = format!("{}/", study.name);
    let own = |run: &Run| run.summary.name.strip_prefix(&prefix).unwrap_or_default().to_owned();
    let arm = |arm: &super::plan::Arm, metric: &str, scale: f64| {
        arm.steps.iter().rev().find_map(|step| {
            let of_step = runs.iter().filter(|run| step.owns(&own(run), None));
            let lines: Vec<Vec<(f64, f64)>> = of_step
                .filter_map(|run| {
                    let curves = view.follower.curves(&run.summary.path);
                    Some(curves.get(metric)?.iter().map(|(x, y)| (*x, y * scale)).collect())
                })
                .collect();
            Series::over_runs(&arm.name, &lines)
        })
    };
    let plan = &study.plan;
    let charts = [(plan.metric.as_str(), plan.scale), ("train/loss", 1.0)].map(|(metric, scale)| {
        let series: Vec<Series> = plan.arms.iter().filter_map(|one| arm(one, metric, scale)).collect();
        let chart = || figure(&Chart::new(&format!("{metric} ({OVER_SEEDS})"), series.clone()));
        if series.is_empty() { String::new() } else { chart() }
    });
    let charts = charts.concat();
    if charts.is_empty() { charts } else { section("Curves", &format!("<div class=\"figures\">{charts}</div>\n")) }
}

fn number(value: &Value) -> String {
    value.as_f64().map_or_else(|| "-".to_owned(), format_number)
}

fn interval(value: &Value) -> String {
    match (value["low"].as_f64(), value["high"].as_f64()) {
        (Some(low), Some(high)) => format!("{} to {}", format_number(low), format_number(high)),
        _ => "-".to_owned(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn arms(results: &Value) -> String {
    let row = |arm: &Value| {
        let num = arm["values"].as_object().map_or(0, serde_json::Map::len);
        vec![
            Cell::text(arm["name"].as_str().unwrap_or_default()),
            Cell::number(&num.to_string()),
            Cell::number(&number(&arm["mean"])),
            Cell::number(&interval(&arm["interval"])),
        ]
    };
    let rows: Vec<Vec<Cell>> = list(&results["arms"]).iter().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let headers = [Cell::text("arm"), Cell::number("seeds"), Cell::number("mean"), Cell::number("interval")];
    section("Arms", &table("Means over seeds, as of the last report", &headers, 0, &rows))
}

fn contrasts(results: &Value) -> String {
    let row = |contrast: &Value| {
        vec![
            Cell::text(contrast["name"].as_str().unwrap_or_default()),
            Cell::number(&number(&contrast["mean"])),
            Cell::number(&interval(&contrast["interval"])),
            Cell::number(&number(&contrast["p_corrected"])),
            Cell::text(&contrast["verdict"].as_str().unwrap_or("-").replace('_', " ")),
        ]
    };
    let rows: Vec<Vec<Cell>> = list(&results["contrasts"]).iter().map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let headers = [
        Cell::text("contrast"),
        Cell::number("effect"),
        Cell::number("interval"),
        Cell::number("corrected p"),
        Cell::text("verdict"),
    ];
    section("Contrasts", &table("Effects by seed, as of the last report", &headers, 0, &rows))
}
