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
/// points of a metric `kind/name`, none if the run lacks it. What scatters is smoothed.
pub fn run_charts(series: impl Fn(&str) -> Vec<(f64, f64)>) -> Vec<Chart> {
    let chart = |(title, label, lines): &Curve| {
        let lines = lines.iter().map(|(name, metric)| Series::new(name, series(metric)));
        let filled: Vec<Series> = lines.filter(|line| !line.points.is_empty()).collect();
        let chart = Chart::new(title, filled).y_label(label);
        // A schedule has no noise, but corners.
        let chart = if *title == "Learning rate" { chart } else { chart.smoothed() };
        (!chart.series.is_empty()).then_some(chart)
    };
    CURVES.iter().filter_map(chart).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scatters_is_smoothed_and_a_schedule_is_not() {
        let charts = run_charts(|_| (0..200).map(|x| (f64::from(x), f64::from(x % 5))).collect());
        let num_faint = |title: &str| {
            let chart = charts.iter().find(|chart| chart.title == title).expect("is drawn");
            chart.series.iter().filter(|line| line.is_faint).count()
        };
        assert_eq!((num_faint("Learning rate"), num_faint("Gradient norm"), num_faint("Loss")), (0, 1, 2));
    }

    #[test]
    fn only_curves_with_points_are_drawn() {
        let charts = run_charts(|metric| if metric == "eval/loss" { vec![(1.0, 2.0)] } else { Vec::new() });
        assert_eq!(charts.len(), 1);
        assert_eq!((charts[0].title.as_str(), charts[0].series[0].name.as_str()), ("Loss", "held out"));
    }
}
