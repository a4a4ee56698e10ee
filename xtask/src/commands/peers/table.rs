//! Ratios of alternating measurements.

use serde::Serialize;
use serde_json::Value;

use super::cases::{Case, MEMORY_GOAL};

/// What one case found.
#[derive(Debug, Serialize)]
pub(super) struct Outcome {
    name: &'static str,
    row: &'static str,
    precision: &'static str,
    variant: &'static str,
    sizes: Value,
    pairs: usize,
    /// Our rate over the peer's: medians over the pairs.
    ratio: f64,
    /// The smallest and the largest ratio of one pair.
    ratio_min: f64,
    ratio_max: f64,
    goal: Option<f64>,
    /// Our peak of memory over the peer's, whole processes.
    memory_ratio: f64,
    /// The same without what each process holds before the row begins: the program, or Python with its libraries.
    memory_ratio_beyond_start: f64,
    memory_goal: f64,
    ours: Vec<Value>,
    peer: Vec<Value>,
}

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or(f64::NAN)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => 0.5 * (values[n / 2 - 1] + values[n / 2]),
    }
}

/// The outcome of pairs: what we reported, and what the peer beside it reported.
pub(super) fn outcome(case: &Case, ours: Vec<Value>, peer: Vec<Value>) -> Outcome {
    let middle = |values: &[Value], key: &str| median(values.iter().map(|value| number(value, key)));
    let beyond = |values: &[Value]| {
        median(values.iter().map(|value| number(value, "peak_bytes") - number(value, "start_bytes")))
    };
    let ratios = || ours.iter().zip(&peer).map(|(a, b)| number(a, "per_second") / number(b, "per_second"));
    Outcome {
        name: case.name,
        row: case.row,
        precision: case.precision,
        variant: case.variant,
        sizes: ours.first().map_or(Value::Null, |first| first["sizes"].clone()),
        pairs: ours.len(),
        ratio: middle(&ours, "per_second") / middle(&peer, "per_second"),
        ratio_min: ratios().fold(f64::INFINITY, f64::min),
        ratio_max: ratios().fold(f64::NEG_INFINITY, f64::max),
        goal: case.goal,
        memory_ratio: middle(&ours, "peak_bytes") / middle(&peer, "peak_bytes"),
        memory_ratio_beyond_start: beyond(&ours) / beyond(&peer),
        memory_goal: MEMORY_GOAL,
        ours,
        peer,
    }
}

/// The table in Markdown.
pub(super) fn markdown(outcomes: &[Outcome]) -> String {
    let mut text = String::from(
        "| row | peer | ours, ms | peer, ms | ratio | smallest to largest | goal | memory | beyond start |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for o in outcomes {
        let ms = |values: &[Value]| median(values.iter().map(|value| number(value, "median_ms")));
        let goal = match o.goal {
            Some(goal) if o.ratio >= goal => format!("{goal} met"),
            Some(goal) => format!("{goal} missed"),
            None => "-".to_owned(),
        };
        let memory = if o.memory_ratio <= o.memory_goal { "met" } else { "missed" };
        text.push_str(&format!(
            "| {} | {} {} | {:.1} | {:.1} | {:.2} | {:.2} to {:.2} | {goal} | {:.2} ({} {memory}) | {:.2} |\n",
            o.name,
            o.precision,
            o.variant,
            ms(&o.ours),
            ms(&o.peer),
            o.ratio,
            o.ratio_min,
            o.ratio_max,
            o.memory_ratio,
            o.memory_goal,
            o.memory_ratio_beyond_start
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::cases::CASES;
    use super::*;
    use serde_json::json;

    fn side(rates: &[f64], peak: u64) -> Vec<Value> {
        let one =
            |rate: &f64| json!({"per_second": rate, "median_ms": 1e3 / rate, "peak_bytes": peak, "start_bytes": 10});
        rates.iter().map(one).collect()
    }

    #[test]
    fn ratios_are_of_medians_with_the_extremes_of_the_pairs() {
        let case = &CASES[2];
        let found = outcome(case, side(&[10.0, 12.0, 30.0], 50), side(&[10.0, 8.0, 10.0], 90));
        assert_eq!((found.ratio, found.ratio_min, found.ratio_max), (1.2, 1.0, 3.0));
        assert_eq!(found.memory_ratio_beyond_start, 0.5);
        let text = markdown(&[found]);
        assert!(
            text.contains(
                "| gpt-f32 | f32 eager | 83.3 | 100.0 | 1.20 | 1.00 to 3.00 | 1.25 missed | 0.56 (0.6 met) | 0.50 |"
            ),
            "{text}"
        );
    }
}
