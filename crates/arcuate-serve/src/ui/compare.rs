//! Chosen runs beside each other: curves over each other, numbers, recipe keys that differ.

use std::sync::Arc;

use arcuate_record::html::{escape, figure};
use arcuate_record::{Comparison, MetricRow, RunSummary, State, compare_with, format_number};

use super::View;
use super::shell::{Cell, Page, named, section, state, table};
use crate::Query;
use crate::query::link;

/// More lines in a chart cannot be told apart.
const MAX_RUNS: usize = 16;
const MAX_VALUE_CHARS: usize = 120;
/// Charts of these say nothing that the table does not.
const WITHOUT_CHART: [&str; 4] = ["/tokens", "/seconds", "/memory_bytes", "/skipped"];

/// The comparison; `Err` is a run that there is none of.
pub(super) fn page(view: &View<'_>, query: &Query) -> Result<Page, String> {
    let mut names: Vec<&str> = Vec::new();
    for name in query.all("run") {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let num_chosen = names.len();
    names.truncate(MAX_RUNS);
    let find = |name: &&str| match view.snapshot.run(name) {
        Some(run) => Ok(run.summary.clone()),
        None => Err((*name).to_owned()),
    };
    let runs: Vec<RunSummary> = names.iter().map(find).collect::<Result<_, _>>()?;
    let pairs: Vec<(&str, &str)> = names.iter().map(|name| ("run", *name)).collect();
    let choose = format!("<p class=\"links\"><a href=\"{}\">Choose other runs</a></p>\n", escape(&link("/", &pairs)));
    let page = Page::new("Comparison", &link("/compare", &pairs)).before(&choose);
    if runs.len() < 2 {
        let text = "<p>Tick at least two runs in the list, then press \u{201c}Compare chosen runs\u{201d}.</p>\n";
        return Ok(page.before(text));
    }
    let curves = |run: &RunSummary| Ok(Arc::unwrap_or_clone(view.follower.curves(&run.path)));
    let is_live = runs.iter().any(|run| run.state == State::Running);
    let mut live = String::new();
    if num_chosen > MAX_RUNS {
        live += &format!("<p>The first {MAX_RUNS} of {num_chosen} runs are shown.</p>\n");
    }
    match compare_with(&runs, curves) {
        Ok(comparison) => live += &body(view, &runs, &comparison),
        Err(error) => live += &format!("<p class=\"verdict bad\">{}</p>\n", escape(&error.to_string())),
    }
    Ok(page.live(is_live, &live))
}

fn body(view: &View<'_>, runs: &[RunSummary], comparison: &Comparison) -> String {
    let mut html = String::new();
    let has_chart =
        |name: &&str| !name.starts_with("ledger/") && WITHOUT_CHART.iter().all(|ending| !name.ends_with(ending));
    let mut names: Vec<&str> = comparison.curve_names().into_iter().filter(has_chart).collect();
    // What is looked at first comes first, what is told of single sources last.
    let main = comparison.main_metric().unwrap_or_default();
    names.sort_by_key(|name| (*name != main, *name != "train/loss", name.matches('/').count() > 1));
    let charts = names.into_iter().filter_map(|name| {
        let chart = comparison.overlay(name)?;
        // A schedule has no noise, but corners.
        Some(if name.ends_with("/learning_rate") { chart } else { chart.smoothed() })
    });
    let charts: String = charts.map(|chart| figure(&chart)).collect();
    let headers: Vec<Cell> = ["run", "state", "step", "begun"].into_iter().map(Cell::text).collect();
    let row = |run: &RunSummary| {
        vec![
            Cell::html(named("/run", &run.name, &run.name)).class("name"),
            Cell::html(state(run.state)),
            Cell::text(&super::run::steps(run)),
            Cell::text(&view.age(&run.started)),
        ]
    };
    let rows: Vec<Vec<Cell>> = runs.iter().map(row).collect();
    html += &table("The runs; ages are since the first start", &headers, 0, &rows);
    html += &section("Curves", &format!("<div class=\"figures\">{charts}</div>\n"));
    let columns = |first: &str| -> Vec<Cell> {
        std::iter::once(Cell::text(first)).chain(comparison.runs.iter().map(|name| Cell::number(name))).collect()
    };
    let row = |row: &MetricRow| number_row(runs, row);
    let rows: Vec<Vec<Cell>> = comparison.metrics.iter().map(row).collect();
    let caption =
        "Last value of each run, the best of them bold; below it the best value on the way, where it is another";
    html += &section("Numbers", &table(caption, &columns("metric"), 0, &rows));
    let row = |difference: &arcuate_record::KeyDifference| {
        let value = |value: &Option<String>| {
            let text = value.as_deref().unwrap_or("-");
            Cell::text(&text.chars().take(MAX_VALUE_CHARS).collect::<String>()).class("value")
        };
        std::iter::once(Cell::metric(&difference.key)).chain(difference.values.iter().map(value)).collect()
    };
    let rows: Vec<Vec<Cell>> = comparison.recipe.iter().map(row).collect();
    let differences = if rows.is_empty() {
        "<p>None: the recipes are the same.</p>\n".to_owned()
    } else {
        let headers: Vec<Cell> =
            std::iter::once("key").chain(comparison.runs.iter().map(String::as_str)).map(Cell::text).collect();
        table("Every other key is the same", &headers, 0, &rows)
    };
    html + &section("Recipe keys that differ", &differences)
}

/// The final values of one metric.
fn number_row(runs: &[RunSummary], row: &MetricRow) -> Vec<Cell> {
    let last: Vec<Option<f64>> = runs.iter().map(|run| run.last.get(&row.name).copied()).collect();
    let is_best = |own: f64| {
        let is_ahead = |other: &f64| own == *other || row.direction.is_better(own, *other);
        last.iter().flatten().all(is_ahead) && last.iter().flatten().filter(|other| **other == own).count() == 1
    };
    let cell = |(run, value): (&RunSummary, &Option<f64>)| {
        let Some(value) = *value else { return Cell::number("-") };
        let text = format_number(value);
        let best = run.best.get(&row.name).map(|best| format_number(*best)).filter(|best| *best != text);
        let best = best.map_or_else(String::new, |best| format!("<small>best {}</small>", escape(&best)));
        if runs.len() > 1 && is_best(value) {
            Cell::html(format!("<b>{text}<span class=\"hidden\"> best of all</span></b>{best}")).class("number best")
        } else {
            Cell::html(format!("{text}{best}")).class("number")
        }
    };
    std::iter::once(Cell::metric(&row.name)).chain(runs.iter().zip(&last).map(cell)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_record::Direction;

    #[test]
    fn the_best_final_value_is_marked_unless_it_is_shared() {
        let run = |last: f64, best: f64| RunSummary {
            name: String::new(),
            path: "a".into(),
            state: State::Done,
            step: 1,
            started: String::new(),
            updated: String::new(),
            last_error: None,
            recipe_hash: String::new(),
            best: [("eval/loss".to_owned(), best)].into(),
            last: [("eval/loss".to_owned(), last)].into(),
        };
        let row = MetricRow {
            name: "eval/loss".to_owned(),
            direction: Direction::LowerIsBetter,
            values: vec![],
            best_run: None,
        };
        let html = |runs: &[RunSummary]| table("", &[], 0, &[number_row(runs, &row)]);
        let text = html(&[run(2.0, 1.0), run(1.5, 1.5)]);
        assert!(text.contains("<td class=\"number\">2<small>best 1</small></td>"), "{text}");
        assert!(text.contains("<b>1.500<span class=\"hidden\"> best of all</span></b></td>"), "{text}");
        assert!(!html(&[run(2.0, 2.0), run(2.0, 2.0)]).contains("best of all"));
    }
}
