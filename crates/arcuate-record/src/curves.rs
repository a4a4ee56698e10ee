//! The curves that people look at first, for the report of a run and for its live page.

use crate::{Chart, Series};

/// Title, vertical axis, and of each line its name and its metric `kind/name`.
type Curve = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const CURVES: [Curve; 6] = [
    ("Loss", "nats a token", &[("train", "train/loss"), ("held out", "eval/loss")]),
    ("Bits per byte", "bits", &[("train", "train/bits_per_byte"), ("held out", "eval/bits_per_byte")]),
    ("Held-out accuracy", "share", &[("accuracy", "eval/accuracy")]),
    ("Learning rate", "rate", &[("rate", "train/learning_rate")]),
    ("Gradient norm", "norm before clipping", &[("norm", "train/grad_norm")]),
    ("Speed", "tokens a second", &[("speed", "train/tokens_per_second")]),
];

/// Charts of what a run has of loss, bits per byte, accuracy, learning rate, gradient norm and speed. `series` gives the
/// points of a metric `kind/name`, none if the run lacks it.
pub fn run_charts(series: impl Fn(&str) -> Vec<(f64, f64)>) -> Vec<Chart> {
    let chart = |(title, label, lines): &Curve| {
        let lines = lines.iter().map(|(name, metric)| Series::new(name, series(metric)));
        let filled: Vec<Series> = lines.filter(|line| !line.points.is_empty()).collect();
        (!filled.is_empty()).then(|| Chart::new(title, filled).y_label(label))
    };
    CURVES.iter().filter_map(chart).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_curves_with_points_are_drawn() {
        let charts = run_charts(|metric| if metric == "eval/loss" { vec![(1.0, 2.0)] } else { Vec::new() });
        assert_eq!(charts.len(), 1);
        assert_eq!((charts[0].title.as_str(), charts[0].series[0].name.as_str()), ("Loss", "held out"));
    }
}
