//! Statistics equal those of SciPy and statsmodels; `tools/record_statistics.py` writes the numbers.

use arcuate_record::statistics::{
    Bootstrap, IntervalKind, benjamini_hochberg, cohens_dz, hedges_g, holm, mean, noncentral_t_cdf, pairs_needed,
    sign_test, t_interval, t_quantile, t_test, t_test_power,
};
use serde_json::Value;

fn recorded() -> Value {
    serde_json::from_str(include_str!("statistics.json")).expect("the numbers are JSON")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(|item| item.as_f64().expect("a number")).collect()
}

fn list<'a>(all: &'a Value, name: &str) -> &'a Vec<Value> {
    all[name].as_array().expect("a list")
}

fn close(ours: f64, theirs: f64, relative: f64, what: &str) {
    assert!((ours - theirs).abs() <= relative * theirs.abs().max(1e-3), "{what}: ours {ours}, theirs {theirs}");
}

fn differences(sample: &Value) -> Vec<f64> {
    numbers(&sample["arm"]).iter().zip(numbers(&sample["baseline"])).map(|(arm, baseline)| arm - baseline).collect()
}

#[test]
fn tests_intervals_and_effect_sizes_are_those_of_scipy() {
    for sample in list(&recorded(), "samples") {
        let values = differences(sample);
        let number = |name: &str| sample[name].as_f64().expect("a number");
        close(mean(&values).expect("values"), number("mean"), 1e-9, "mean");
        let test = t_test(&values, 0.0).expect("two values");
        close(test.statistic, number("t"), 1e-9, "t");
        close(test.p_value, number("p"), 1e-8, "p");
        let interval = t_interval(&values, 0.95).expect("two values");
        let theirs = numbers(&sample["t_interval"]);
        close(interval.low, theirs[0], 1e-9, "low");
        close(interval.high, theirs[1], 1e-9, "high");
        let signs = sign_test(&values, 0.0).expect("signs");
        assert_eq!(signs.statistic, number("positive"));
        close(signs.p_value, number("sign_p"), 1e-9, "sign test");
        close(cohens_dz(&values).expect("spread"), number("dz"), 1e-9, "d_z");
        match sample["hedges_g"].as_f64() {
            Some(theirs) => close(hedges_g(&values).expect("three values"), theirs, 1e-9, "g"),
            None => assert_eq!(hedges_g(&values), None),
        }
    }
}

#[test]
fn bootstrap_intervals_near_those_of_scipy() {
    // Both draw at random; with so many draws an end moves by about a hundredth of the width. Two or three values have
    // few different means, so that an end may fall on the neighbour.
    for sample in list(&recorded(), "samples").iter().filter(|sample| differences(sample).len() > 3) {
        let values = differences(sample);
        let bootstrap = Bootstrap { num_resamples: 100_000, ..Bootstrap::default() };
        for (name, ours) in [
            ("percentile", bootstrap.mean_interval(&values).expect("values")),
            ("bca", bootstrap.mean_interval_bca(&values).expect("values")),
        ] {
            let theirs = numbers(&sample[name]);
            let width = theirs[1] - theirs[0];
            assert!((ours.low - theirs[0]).abs() < 0.03 * width, "{name} {ours:?} {theirs:?}");
            assert!((ours.high - theirs[1]).abs() < 0.03 * width, "{name} {ours:?} {theirs:?}");
        }
    }
}

#[test]
fn kinds_of_intervals_are_the_functions_of_their_names() {
    let values = [1.0, 2.0, 4.0, 8.0];
    assert_eq!(IntervalKind::T.of_mean(&values, 0.9), t_interval(&values, 0.9));
    let bootstrap = Bootstrap { level: 0.9, num_resamples: 10_000, seed: 0 };
    assert_eq!(IntervalKind::BootstrapPercentile.of_mean(&values, 0.9), bootstrap.mean_interval(&values));
    assert_eq!(IntervalKind::BootstrapBca.of_mean(&values, 0.9), bootstrap.mean_interval_bca(&values));
}

#[test]
fn corrections_are_those_of_statsmodels() {
    for case in list(&recorded(), "corrections") {
        let p_values = numbers(&case["p"]);
        for (ours, theirs) in [(holm(&p_values), &case["holm"]), (benjamini_hochberg(&p_values), &case["bh"])] {
            for (ours, theirs) in ours.iter().zip(numbers(theirs)) {
                close(*ours, theirs, 1e-9, "adjusted p");
            }
        }
    }
}

#[test]
fn power_and_the_pairs_it_needs_are_those_of_statsmodels() {
    let recorded = recorded();
    for case in list(&recorded, "power").iter().map(numbers) {
        close(t_test_power(case[0], case[1], case[2]), case[3], 1e-6, &format!("power of {case:?}"));
    }
    for case in list(&recorded, "needed").iter().map(numbers).filter(|case| case[3] >= 2.0) {
        close(pairs_needed(case[0], case[1], case[2]).expect("bearable"), case[3], 1e-5, &format!("pairs {case:?}"));
    }
}

#[test]
fn distributions_are_those_of_scipy() {
    let recorded = recorded();
    for case in list(&recorded, "noncentral_t").iter().map(numbers) {
        let ours = noncentral_t_cdf(case[0], case[1], case[2]);
        assert!((ours - case[3]).abs() < 1e-8, "{case:?} {ours}");
    }
    for case in list(&recorded, "t").iter().map(numbers) {
        close(t_quantile(case[0], case[1]), case[2], 1e-8, "quantile");
    }
}
