//! The verdict: from differences by seed to held, not held or inconclusive, by the rule of the file.
//!
//! # What it computes
//! With x the effect of each seed, turned so that the claim is x > 0: held if the corrected test rejects, the mean of x is at
//! least the smallest effect that matters, and enough seeds agree where the rule asks for it. Not held if the interval ends
//! below the smallest effect, or enough seeds disagree. `not_worse` and `equal` move zero by the margin: held if the whole
//! interval is above minus the margin, or within both margins (two one-sided tests). Anything else is inconclusive.
//! # Reference
//! Schuirmann 1987 for the tests of equality.

use std::collections::BTreeMap;

use arcuate_recipe::study::{Better, ContrastConfig, Correction, DecisionConfig, Expected, MetricConfig, TestKind};
use arcuate_record::statistics::{
    Interval, benjamini_hochberg, cohens_dz, hedges_g, holm, mean, pairs_needed, sample_std, sign_test, t_test,
};
use serde::{Deserialize, Serialize};

/// Whether a claim held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It held.
    Held,
    /// It did not.
    NotHeld,
    /// The runs do not decide it.
    Inconclusive,
}

impl Verdict {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::NotHeld => "not held",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// A contrast with its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContrastOutcome {
    /// Its name.
    pub name: String,
    /// What it claims, in words.
    pub words: String,
    /// What it compares, as a sum over arms.
    pub formula: String,
    /// What is claimed.
    pub expected: Expected,
    /// The smallest effect that matters.
    pub smallest_effect: f64,
    /// Seeds of which all arms have a value.
    pub seeds: Vec<u64>,
    /// The effect of each of them, in the unit of the metric.
    pub effects: Vec<f64>,
    /// Their mean.
    pub mean: Option<f64>,
    /// Their standard deviation.
    pub std: Option<f64>,
    /// The interval of the mean.
    pub interval: Option<Interval>,
    /// Seeds whose effect has the sign that is claimed (lies on the claimed side of the margin).
    pub num_signs: u64,
    /// Probability under the rule's test, two-sided.
    pub p_value: Option<f64>,
    /// The same, corrected for all contrasts.
    pub p_corrected: Option<f64>,
    /// The mean in standard deviations (Cohen's d_z).
    pub cohens_dz: Option<f64>,
    /// The same without its bias in small samples (Hedges' g).
    pub hedges_g: Option<f64>,
    /// Seeds needed to see the smallest effect with the wanted power, as far as the scatter is known.
    pub seeds_needed: Option<u64>,
    /// Whether it held.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
}

/// Decides all contrasts from the values of each arm by seed. `blocked` says why nothing can be held, if that is so.
pub fn decide(
    contrasts: &[ContrastConfig],
    metric: &MetricConfig,
    decision: &DecisionConfig,
    seeds: &[u64],
    values: &BTreeMap<String, BTreeMap<u64, f64>>,
    blocked: Option<&str>,
) -> Vec<ContrastOutcome> {
    let mut all: Vec<ContrastOutcome> =
        contrasts.iter().map(|contrast| numbers(contrast, metric, decision, seeds, values)).collect();
    let p_values: Vec<f64> = all.iter().map(|outcome| outcome.p_value.unwrap_or(1.0)).collect();
    let corrected = match decision.correction {
        Correction::Holm => holm(&p_values),
        Correction::BenjaminiHochberg => benjamini_hochberg(&p_values),
        Correction::None => p_values,
    };
    for (outcome, corrected) in all.iter_mut().zip(corrected) {
        outcome.p_corrected = outcome.p_value.map(|_| corrected);
        (outcome.verdict, outcome.reason) = rule(outcome, metric, decision, seeds.len(), blocked);
    }
    all
}

/// 1 where more is better, -1 where less is.
fn orientation(metric: &MetricConfig, expected: Expected) -> f64 {
    let better = match metric.better {
        Better::Higher => 1.0,
        Better::Lower => -1.0,
    };
    if expected == Expected::Worse { -better } else { better }
}

fn numbers(
    contrast: &ContrastConfig,
    metric: &MetricConfig,
    decision: &DecisionConfig,
    seeds: &[u64],
    values: &BTreeMap<String, BTreeMap<u64, f64>>,
) -> ContrastOutcome {
    let weights = contrast.arms();
    let effect = |seed: &u64| -> Option<f64> {
        let terms = weights.iter().map(|(arm, weight)| Some(weight * values.get(arm)?.get(seed)?));
        terms.sum::<Option<f64>>()
    };
    let pairs: Vec<(u64, f64)> = seeds.iter().filter_map(|seed| Some((*seed, effect(seed)?))).collect();
    let effects: Vec<f64> = pairs.iter().map(|pair| pair.1).collect();
    let sign = orientation(metric, contrast.expected);
    let turned: Vec<f64> = effects.iter().map(|effect| sign * effect).collect();
    let margin = contrast.smallest_effect;
    let test = |null: f64| match decision.test {
        TestKind::PairedT => t_test(&turned, null),
        TestKind::Sign => sign_test(&turned, null),
        TestKind::None => None,
    };
    let p_value = match contrast.expected {
        Expected::Better | Expected::Worse => test(0.0).map(|test| test.p_value),
        Expected::NotWorse => test(-margin).map(|test| test.p_value),
        Expected::Equal => test(-margin).zip(test(margin)).map(|(above, below)| above.p_value.max(below.p_value)),
    };
    let agrees = |x: &&f64| match contrast.expected {
        Expected::Better | Expected::Worse => **x > 0.0,
        Expected::NotWorse => **x > -margin,
        Expected::Equal => x.abs() < margin,
    };
    let std = sample_std(&effects);
    let needed = std.filter(|std| *std > 0.0 && margin > 0.0);
    let needed = needed.and_then(|std| pairs_needed(margin / std, decision.power, 1.0 - decision.confidence));
    ContrastOutcome {
        name: contrast.name.clone(),
        words: contrast.words.clone(),
        formula: formula(contrast),
        expected: contrast.expected,
        smallest_effect: margin,
        seeds: pairs.iter().map(|pair| pair.0).collect(),
        mean: mean(&effects),
        std,
        interval: decision.interval.of_mean(&effects, decision.confidence),
        num_signs: turned.iter().filter(agrees).count() as u64,
        p_value,
        p_corrected: None,
        cohens_dz: cohens_dz(&effects),
        hedges_g: hedges_g(&effects),
        seeds_needed: needed.map(|pairs| pairs.ceil() as u64),
        effects,
        verdict: Verdict::Inconclusive,
        reason: String::new(),
    }
}

/// `tuned - scratch`, or the weighted sum.
fn formula(contrast: &ContrastConfig) -> String {
    if let (Some(arm), Some(against)) = (&contrast.arm, &contrast.against) {
        return format!("{arm} - {against}");
    }
    let mut text = String::new();
    for (arm, weight) in &contrast.weights {
        let sign = match (text.is_empty(), *weight < 0.0) {
            (true, false) => "",
            (true, true) => "-",
            (false, false) => " + ",
            (false, true) => " - ",
        };
        let size = weight.abs();
        let factor = if size == 1.0 { String::new() } else { format!("{size} ") };
        text += &format!("{sign}{factor}{arm}");
    }
    text
}

fn rule(
    outcome: &ContrastOutcome,
    metric: &MetricConfig,
    decision: &DecisionConfig,
    num_seeds: usize,
    blocked: Option<&str>,
) -> (Verdict, String) {
    let inconclusive = |reason: String| (Verdict::Inconclusive, reason);
    if let Some(why) = blocked {
        return inconclusive(why.to_owned());
    }
    let num = outcome.seeds.len();
    let (Some(mean), Some(interval), true) = (outcome.mean, outcome.interval, num == num_seeds) else {
        return inconclusive(format!("only {num} of {num_seeds} seeds have a value in every arm"));
    };
    let sign = orientation(metric, outcome.expected);
    let (mean, low, high) =
        if sign > 0.0 { (mean, interval.low, interval.high) } else { (-mean, -interval.high, -interval.low) };
    let margin = outcome.smallest_effect;
    let against = num as u64 - outcome.num_signs;
    if let Some(most) = decision.refuted_signs.filter(|most| against >= *most) {
        let reason = format!("{against} of {num} seeds do not show what is claimed; {most} are enough to refute it");
        return (Verdict::NotHeld, reason);
    }
    let alpha = 1.0 - decision.confidence;
    let p = outcome.p_corrected;
    let rejects = decision.test == TestKind::None || p.is_some_and(|p| p < alpha);
    let p_words = p.map_or_else(String::new, |p| format!(" (p = {p:.3})"));
    let enough_signs = decision.held_signs.is_none_or(|least| outcome.num_signs >= least);
    let (on_side, is_large, is_refuted) = match outcome.expected {
        Expected::Better | Expected::Worse => (mean > 0.0, mean >= margin, high < margin || high < 0.0),
        Expected::NotWorse => (mean > -margin, true, high < -margin),
        Expected::Equal => (mean.abs() < margin, true, low > margin || high < -margin),
    };
    if rejects && on_side && is_large && enough_signs {
        let reason = match outcome.expected {
            Expected::Better | Expected::Worse => {
                format!("the effect has the expected sign{p_words} and at least the smallest size that matters")
            }
            Expected::NotWorse => format!("a loss of the margin or more is ruled out{p_words}"),
            Expected::Equal => format!("a difference of the margin or more is ruled out{p_words}"),
        };
        return (Verdict::Held, reason);
    }
    if is_refuted {
        let reason = match outcome.expected {
            Expected::Better | Expected::Worse if high <= 0.0 => "the interval lies on the other side of zero",
            Expected::Better | Expected::Worse => "the interval ends below the smallest effect that matters",
            Expected::NotWorse => "the loss is larger than the margin",
            Expected::Equal => "the difference is larger than the margin",
        };
        return (Verdict::NotHeld, reason.to_owned());
    }
    let mut why = Vec::new();
    if !rejects {
        why.push(format!("the test does not reject{p_words}"));
    }
    if !on_side {
        why.push("the mean lies on the other side".to_owned());
    } else if !is_large {
        why.push("the mean is smaller than the smallest effect that matters".to_owned());
    }
    if !enough_signs {
        why.push(format!("only {} of {num} seeds agree", outcome.num_signs));
    }
    let mut reason = why.join(", ");
    if let Some(needed) = outcome.seeds_needed.filter(|needed| *needed > num as u64) {
        reason += &format!("; with this scatter about {needed} seeds would show the smallest effect");
    }
    inconclusive(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::study;

    fn values(scratch: &[f64], tuned: &[f64]) -> BTreeMap<String, BTreeMap<u64, f64>> {
        let by_seed = |values: &[f64]| (1..).zip(values.iter().copied()).collect();
        BTreeMap::from([("scratch".to_owned(), by_seed(scratch)), ("tuned".to_owned(), by_seed(tuned))])
    }

    fn check(change: impl Fn(&mut arcuate_recipe::Study), tuned: &[f64], verdict: Verdict) -> ContrastOutcome {
        let mut study = study().value;
        study.seeds = (1..=5).collect();
        change(&mut study);
        let scratch = [60.0, 61.0, 62.0, 60.5, 61.5];
        let values = values(&scratch, tuned);
        let mut all = decide(&study.contrast, &study.metric, &study.decision, &study.seeds, &values, None);
        let outcome = all.remove(0);
        assert_eq!(outcome.verdict, verdict, "{outcome:#?}");
        outcome
    }

    #[test]
    fn a_clear_gain_is_held() {
        let outcome = check(|_| {}, &[68.0, 69.5, 69.0, 68.0, 70.0], Verdict::Held);
        assert_eq!((outcome.num_signs, outcome.formula.as_str()), (5, "tuned - scratch"));
        assert!(outcome.interval.is_some_and(|interval| interval.low > 1.0 && interval.high < 12.0));
    }

    #[test]
    fn a_gain_below_what_matters_is_not_held() {
        let outcome = check(|_| {}, &[60.2, 61.3, 62.2, 60.6, 61.8], Verdict::NotHeld);
        assert!(outcome.p_value.is_some_and(|p| p < 0.05), "it is significant all the same");
        assert!(outcome.reason.contains("ends below"), "{}", outcome.reason);
    }

    #[test]
    fn a_loss_is_not_held() {
        let outcome = check(|_| {}, &[55.0, 56.5, 57.0, 56.0, 56.0], Verdict::NotHeld);
        assert!(outcome.reason.contains("other side of zero"), "{}", outcome.reason);
    }

    #[test]
    fn scatter_is_inconclusive_and_says_how_many_seeds_it_takes() {
        let outcome = check(|_| {}, &[70.0, 55.0, 68.0, 59.0, 72.0], Verdict::Inconclusive);
        assert!(outcome.reason.contains("seeds would show"), "{}", outcome.reason);
        assert!(outcome.seeds_needed.is_some_and(|needed| needed > 100));
    }

    #[test]
    fn a_missing_seed_decides_nothing() {
        let outcome = check(|_| {}, &[68.0, 69.5, 69.0, 68.0], Verdict::Inconclusive);
        assert!(outcome.reason.contains("4 of 5 seeds") && outcome.seeds == [1, 2, 3, 4], "{}", outcome.reason);
    }

    #[test]
    fn lower_is_better_turns_the_sign() {
        let lower = |study: &mut arcuate_recipe::Study| study.metric.better = Better::Lower;
        check(lower, &[50.0, 52.0, 51.0, 51.0, 51.0], Verdict::Held);
        check(lower, &[68.0, 69.5, 69.0, 68.0, 70.0], Verdict::NotHeld);
        let worse = |study: &mut arcuate_recipe::Study| {
            study.metric.better = Better::Lower;
            study.contrast[0].expected = Expected::Worse;
        };
        check(worse, &[68.0, 69.5, 69.0, 68.0, 70.0], Verdict::Held);
    }

    #[test]
    fn a_margin_makes_room_for_a_small_loss() {
        let not_worse = |study: &mut arcuate_recipe::Study| study.contrast[0].expected = Expected::NotWorse;
        let near = [59.9, 60.8, 62.1, 60.4, 61.4];
        check(not_worse, &near, Verdict::Held);
        check(|study| study.contrast[0].expected = Expected::Equal, &near, Verdict::Held);
        let far = [50.0, 51.5, 52.0, 50.0, 51.0];
        check(not_worse, &far, Verdict::NotHeld);
        check(|study| study.contrast[0].expected = Expected::Equal, &far, Verdict::NotHeld);
        let better = [68.0, 69.5, 69.0, 68.0, 70.0];
        check(not_worse, &better, Verdict::Held);
        check(|study| study.contrast[0].expected = Expected::Equal, &better, Verdict::NotHeld);
    }

    #[test]
    fn signs_can_hold_and_refute() {
        let signs = |study: &mut arcuate_recipe::Study| {
            study.decision.test = TestKind::None;
            study.decision.held_signs = Some(4);
            study.decision.refuted_signs = Some(2);
        };
        check(signs, &[70.0, 55.0, 68.0, 64.0, 72.0], Verdict::Held);
        let outcome = check(signs, &[70.0, 55.0, 68.0, 59.0, 72.0], Verdict::NotHeld);
        assert!(outcome.reason.contains("2 of 5 seeds"), "{}", outcome.reason);
    }

    #[test]
    fn several_contrasts_are_corrected() {
        let mut study = study().value;
        let second = ContrastConfig { name: "again".into(), ..study.contrast[0].clone() };
        study.contrast.push(second);
        let values = values(&[60.0, 61.0, 62.0], &[63.0, 65.5, 64.9]);
        let run = |study: &arcuate_recipe::Study| {
            decide(&study.contrast, &study.metric, &study.decision, &study.seeds, &values, None)
        };
        let both = run(&study);
        assert_eq!(both[0].p_corrected, both[0].p_value.map(|p| 2.0 * p));
        study.decision.correction = Correction::None;
        assert_eq!(run(&study)[0].p_corrected, both[0].p_value);
    }

    #[test]
    fn a_block_holds_nothing() {
        let study = study().value;
        let values = values(&[60.0, 61.0, 62.0], &[68.0, 69.5, 69.0]);
        let all = decide(&study.contrast, &study.metric, &study.decision, &study.seeds, &values, Some("unfair"));
        assert_eq!((all[0].verdict, all[0].reason.as_str()), (Verdict::Inconclusive, "unfair"));
    }

    #[test]
    fn weighted_contrasts_read_as_sums() {
        let mut contrast = study().value.contrast[0].clone();
        (contrast.arm, contrast.against) = (None, None);
        contrast.weights = BTreeMap::from([("a".into(), 1.0), ("b".into(), -0.5), ("c".into(), -0.5)]);
        assert_eq!(formula(&contrast), "a - 0.5 b - 0.5 c");
    }
}
