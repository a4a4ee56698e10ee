//! Several runs beside each other: metrics, curves over each other, and the recipe keys in which they differ.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::run_dir::read_text;
use crate::{
    Chart, Direction, KeyDifference, MetricsTail, Report, Result, RunSummary, Series, Table, TerminalSize,
    format_number, recipe_differences, text_table,
};

/// Lines in a chart hold at most about this many points; the rest would not be seen.
const MAX_POINTS: usize = 5000;

/// One metric of all runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetricRow {
    /// `kind/name`.
    pub name: String,
    /// Which way it is better.
    pub direction: Direction,
    /// The best value of each run, or the last one where neither way is better.
    pub values: Vec<Option<f64>>,
    /// The run that alone has the best value.
    pub best_run: Option<usize>,
}

/// Runs beside each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Names of the runs.
    pub runs: Vec<String>,
    /// Metrics by name; those of evaluation come first.
    pub metrics: Vec<MetricRow>,
    /// Keys of the resolved recipes that are not the same everywhere.
    pub recipe: Vec<KeyDifference>,
    /// Points of each run by metric.
    #[serde(skip)]
    curves: BTreeMap<String, Vec<Series>>,
}

/// Points of one run by metric `kind/name`.
pub type Curves = BTreeMap<String, Vec<(f64, f64)>>;

/// Reads what is needed to compare the runs. A run without `resolved.toml` is compared by its `recipe.toml`.
pub fn compare(runs: &[RunSummary]) -> Result<Comparison> {
    compare_with(runs, |run| {
        let mut curves = Curves::new();
        MetricsTail::new(&run.path.join("metrics.jsonl")).poll_each(|record| {
            for (name, value) in &record.values {
                curves.entry(format!("{}/{name}", record.kind)).or_default().push((record.step as f64, *value));
            }
        })?;
        Ok(curves)
    })
}

/// Like [`compare`], for whoever has read the metrics already: `curves_of` gives those of a run.
pub fn compare_with(
    runs: &[RunSummary],
    mut curves_of: impl FnMut(&RunSummary) -> Result<Curves>,
) -> Result<Comparison> {
    let mut names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    if names.iter().collect::<BTreeSet<_>>().len() < names.len() {
        // Runs of the same name from different roots.
        names = runs.iter().map(|run| run.path.display().to_string()).collect();
    }
    let mut curves: BTreeMap<String, Vec<Series>> = BTreeMap::new();
    let mut recipes = Vec::new();
    for (number, run) in runs.iter().enumerate() {
        for (metric, points) in curves_of(run)? {
            let of_metric = curves
                .entry(metric)
                .or_insert_with(|| names.iter().map(|name| Series::new(name, Vec::new())).collect());
            of_metric[number].points = crate::plot::thinned(&points, MAX_POINTS);
        }
        let recipe = match read_text(&run.path.join("resolved.toml"))? {
            Some(text) => text,
            None => read_text(&run.path.join("recipe.toml"))?.unwrap_or_default(),
        };
        recipes.push(recipe);
    }
    let recipes: Vec<&str> = recipes.iter().map(String::as_str).collect();
    Ok(Comparison { runs: names, metrics: metric_rows(runs), recipe: recipe_differences(&recipes), curves })
}

fn metric_rows(runs: &[RunSummary]) -> Vec<MetricRow> {
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.best.keys().chain(run.last.keys())).collect();
    let mut rows: Vec<MetricRow> = names
        .into_iter()
        .map(|name| {
            let direction = Direction::of(name);
            let value = |run: &RunSummary| run.best.get(name).or_else(|| run.last.get(name)).copied();
            let values: Vec<Option<f64>> = runs.iter().map(value).collect();
            let mut best: Option<(usize, f64)> = None;
            for (number, value) in values.iter().enumerate() {
                if let Some(value) = *value
                    && best.is_none_or(|(_, held)| direction.is_better(value, held))
                {
                    best = Some((number, value));
                }
            }
            let is_alone = |held: f64| values.iter().flatten().filter(|value| **value == held).count() == 1;
            let best_run = best
                .filter(|best| direction != Direction::Neutral && runs.len() > 1 && is_alone(best.1))
                .map(|best| best.0);
            MetricRow { name: name.clone(), direction, values, best_run }
        })
        .collect();
    rows.sort_by_key(|row| (!row.name.starts_with("eval/"), row.name.clone()));
    rows
}

impl Comparison {
    /// The curves of one metric over each other; `None` if no run has it.
    pub fn overlay(&self, metric: &str) -> Option<Chart> {
        let series = self.curves.get(metric)?;
        let filled = series.iter().filter(|series| !series.points.is_empty());
        Some(Chart::new(metric, filled.cloned().collect()))
    }

    /// Metrics that have a curve, those of evaluation first.
    pub fn curve_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.curves.keys().map(String::as_str).collect();
        names.sort_by_key(|name| (!name.starts_with("eval/"), *name));
        names
    }

    /// The metric that says most: the first of those people look at that at least one run has.
    pub fn main_metric(&self) -> Option<&str> {
        const WANTED: [&str; 6] =
            ["eval/bits_per_byte", "eval/accuracy", "eval/loss", "train/bits_per_byte", "train/loss", "train/accuracy"];
        let names = self.curve_names();
        WANTED.into_iter().find(|name| names.contains(name)).or_else(|| names.first().copied())
    }

    /// Metric table, recipe differences and one plot for the terminal. The best value of a row has a star.
    pub fn to_terminal(&self, size: TerminalSize) -> String {
        let headers: Vec<&str> = std::iter::once("metric").chain(self.runs.iter().map(String::as_str)).collect();
        let mut text = text_table(&headers, &self.metric_cells());
        if !self.recipe.is_empty() {
            let headers: Vec<&str> = std::iter::once("recipe").chain(self.runs.iter().map(String::as_str)).collect();
            text = text + "\n" + &text_table(&headers, &self.recipe_cells());
        }
        if let Some(chart) = self.main_metric().and_then(|metric| self.overlay(metric)) {
            text = text + "\n" + &chart.to_terminal(size);
        }
        text
    }

    /// The same as a page, with all curves.
    pub fn to_report(&self) -> Report {
        let table = |first: &str, rows: Vec<Vec<String>>, note: &str| {
            let headers: Vec<&str> = std::iter::once(first).chain(self.runs.iter().map(String::as_str)).collect();
            rows.into_iter().fold(Table::new(&headers), Table::row).note(note)
        };
        let charts: Vec<Chart> =
            self.curve_names().into_iter().filter_map(|name| self.overlay(name)).map(Chart::smoothed).collect();
        let mut report =
            Report::new(&self.runs.join(" · ")).subtitle(&format!("{} runs compared", self.runs.len())).table(
                "Metrics",
                &table("metric", self.metric_cells(), "Best value of each run; a star marks the best run."),
            );
        if !self.recipe.is_empty() {
            report = report.table("Recipe keys that differ", &table("key", self.recipe_cells(), ""));
        }
        report.charts("Curves", &charts)
    }

    fn metric_cells(&self) -> Vec<Vec<String>> {
        let cells = |row: &MetricRow| {
            let cell = |(number, value): (usize, &Option<f64>)| {
                let star = if row.best_run == Some(number) { " *" } else { "" };
                value.map_or_else(|| "-".into(), |value| format_number(value) + star)
            };
            std::iter::once(row.name.clone()).chain(row.values.iter().enumerate().map(cell)).collect()
        };
        self.metrics.iter().map(cells).collect()
    }

    fn recipe_cells(&self) -> Vec<Vec<String>> {
        let cells = |difference: &KeyDifference| {
            let values = difference.values.iter().map(|value| value.clone().unwrap_or_else(|| "-".into()));
            std::iter::once(difference.key.clone()).chain(values).collect()
        };
        self.recipe.iter().map(cells).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MetricsWriter, Record, RunDir, summarise};

    fn comparison() -> (tempfile::TempDir, Comparison) {
        let root = tempfile::tempdir().expect("a temporary folder");
        let mut summaries = Vec::new();
        for (name, rate, losses) in [("small", 0.1, [3.0, 2.0]), ("large", 0.2, [2.5, 1.5])] {
            let run =
                RunDir::create_or_open(root.path(), name, &format!("rate = {rate} # tuned\nseed = 1")).expect("opens");
            let mut metrics = MetricsWriter::open(&run.metrics_path(), None).expect("opens");
            for (step, loss) in (1..).zip(losses) {
                let record = Record::new(step, "eval").value("loss", loss).value("num_items", 9.0);
                metrics.write(&record).expect("writes");
            }
            summaries.push(summarise(run.path()).expect("reads"));
        }
        let comparison = compare(&summaries).expect("reads");
        (root, comparison)
    }

    #[test]
    fn the_best_run_of_each_metric_is_marked() {
        let (_root, comparison) = comparison();
        let loss = &comparison.metrics[0];
        assert_eq!((loss.name.as_str(), loss.best_run), ("eval/loss", Some(1)));
        assert_eq!(loss.values, [Some(2.0), Some(1.5)]);
        assert_eq!(comparison.metrics[1].best_run, None);
    }

    #[test]
    fn only_keys_that_differ_are_shown() {
        let (_root, comparison) = comparison();
        let keys: Vec<&str> = comparison.recipe.iter().map(|difference| difference.key.as_str()).collect();
        assert_eq!(keys, ["rate"]);
        assert_eq!(comparison.recipe[0].values, [Some("0.1".into()), Some("0.2".into())]);
    }

    #[test]
    fn the_terminal_shows_table_differences_and_curves() {
        let (_root, comparison) = comparison();
        let text = comparison.to_terminal(TerminalSize::default());
        assert!(text.contains("eval/loss") && text.contains("1.500 *") && text.contains("rate"), "{text}");
        assert!(text.contains("o small   x large"), "{text}");
    }

    #[test]
    fn the_page_holds_every_curve() {
        let (_root, comparison) = comparison();
        let page = comparison.to_report().to_html();
        assert_eq!(page.matches("<figure>").count(), 2);
        assert!(page.contains("Recipe keys that differ"));
    }

    #[test]
    fn comparing_nothing_is_empty() {
        let comparison = compare(&[]).expect("reads nothing");
        assert!(comparison.metrics.is_empty() && comparison.main_metric().is_none());
        assert!(!comparison.to_terminal(TerminalSize::default()).is_empty());
    }
}
