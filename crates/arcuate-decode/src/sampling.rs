//! Choosing a token from one row of logits.
//!
//! # What it computes
//! In this order, as Hugging Face transformers does: repetition penalty (tokens seen: positive logits divided, negative
//! multiplied), temperature, top-k (ties with the k-th stay), top-p (the smallest set whose probabilities reach p), min-p
//! (at least `min_p` times the best probability); then one draw. Temperature 0 takes the highest logit, the lowest id of equals.
//! NaN counts as minus infinity.
//!
//! # Recipe
//! `[samples.sampling]`
//!
//! # Reference
//! Keskar et al. 2019 (repetition penalty); Fan et al. 2018 (top-k); Holtzman et al. 2020 (top-p); Nguyen et al. 2024 (min-p)

use arcuate_ops::rng::Stream;

use crate::{Error, Result, SamplingConfig};

/// A token that may be chosen, and its logit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its logit after penalty and temperature.
    pub logit: f64,
}

/// The tokens that are left to draw from, by id; `seen` may hold repetitions.
///
/// Greedy (temperature 0) leaves one.
pub fn candidates(logits: &[f32], seen: &[u32], config: &SamplingConfig) -> Result<Vec<Candidate>> {
    if config.temperature <= 0.0 && config.repetition_penalty == 1.0 {
        // The highest logit in one pass, without a list of the vocabulary.
        let above = |best: (u32, f32), next: (u32, f32)| if next.1 > best.1 { next } else { best };
        let (id, logit) = (0u32..).zip(logits.iter().copied()).fold((0, f32::NEG_INFINITY), above);
        let is_one = logit > f32::NEG_INFINITY;
        return if is_one { Ok(vec![Candidate { id, logit: f64::from(logit) }]) } else { Err(Error::NoFiniteLogit) };
    }
    let mut left: Vec<Candidate> = (0u32..)
        .zip(logits)
        .map(|(id, logit)| {
            let logit = if logit.is_nan() { f64::NEG_INFINITY } else { f64::from(*logit) };
            Candidate { id, logit }
        })
        .collect();
    penalise(&mut left, seen, config.repetition_penalty);
    left.retain(|candidate| candidate.logit > f64::NEG_INFINITY);
    let best = best(&left).ok_or(Error::NoFiniteLogit)?;
    if config.temperature <= 0.0 {
        return Ok(vec![best]);
    }
    if best.logit == f64::INFINITY {
        left.retain(|candidate| candidate.logit == f64::INFINITY);
        left.iter_mut().for_each(|candidate| candidate.logit = 0.0);
        return Ok(left);
    }
    // Relative to the best, so that a tiny temperature cannot overflow.
    left.iter_mut().for_each(|candidate| candidate.logit = (candidate.logit - best.logit) / config.temperature);
    if let Some(k) = config.top_k {
        keep_top_k(&mut left, k);
    }
    if let Some(p) = config.top_p {
        keep_top_p(&mut left, p);
    }
    if let Some(p) = config.min_p {
        left.retain(|candidate| candidate.id == best.id || candidate.logit.exp() >= p);
    }
    Ok(left)
}

/// One token, drawn from the candidates in proportion to their probabilities with one number of `stream`.
pub fn choose(logits: &[f32], seen: &[u32], config: &SamplingConfig, stream: &mut Stream) -> Result<u32> {
    let left = candidates(logits, seen, config)?;
    let total: f64 = left.iter().map(|candidate| candidate.logit.exp()).sum();
    let mut rest = stream.uniform() * total;
    if left.len() == 1 {
        return Ok(left[0].id);
    }
    for candidate in &left {
        rest -= candidate.logit.exp();
        if rest < 0.0 {
            return Ok(candidate.id);
        }
    }
    // Rounding may leave a crumb behind the last.
    left.iter().rev().find(|candidate| candidate.logit.exp() > 0.0).map(|c| c.id).ok_or(Error::NoFiniteLogit)
}

fn best(left: &[Candidate]) -> Option<Candidate> {
    left.iter().copied().reduce(|best, next| if next.logit > best.logit { next } else { best })
}

fn penalise(left: &mut [Candidate], seen: &[u32], penalty: f64) {
    if penalty == 1.0 {
        return;
    }
    let mut is_seen = vec![false; left.len()];
    for id in seen {
        if let Some(slot) = is_seen.get_mut(*id as usize) {
            *slot = true;
        }
    }
    for (candidate, _) in left.iter_mut().zip(is_seen).filter(|(_, is_seen)| *is_seen) {
        candidate.logit = if candidate.logit < 0.0 { candidate.logit * penalty } else { candidate.logit / penalty };
    }
}

fn keep_top_k(left: &mut Vec<Candidate>, k: usize) {
    let k = k.max(1);
    if k >= left.len() {
        return;
    }
    let mut logits: Vec<f64> = left.iter().map(|candidate| candidate.logit).collect();
    let (_, kth, _) = logits.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    let kth = *kth;
    left.retain(|candidate| candidate.logit >= kth);
}

fn keep_top_p(left: &mut Vec<Candidate>, p: f64) {
    if p >= 1.0 {
        return;
    }
    left.sort_unstable_by(|a, b| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id)));
    let total: f64 = left.iter().map(|candidate| candidate.logit.exp()).sum();
    let mut before = 0.0;
    let num = left
        .iter()
        .take_while(|candidate| {
            let is_kept = before < p;
            before += candidate.logit.exp() / total;
            is_kept
        })
        .count();
    left.truncate(num.max(1));
    left.sort_unstable_by_key(|candidate| candidate.id);
}

impl SamplingConfig {
    /// Everything that is wrong with the values, as (key inside the table, message).
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut hold = |is_fine: bool, key, rule: &str, value: String| {
            if !is_fine {
                found.push((key, format!("is {value} but must be {rule}")));
            }
        };
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let temperature = self.temperature;
        hold(temperature.is_finite() && temperature >= 0.0, "temperature", "0 or more", temperature.to_string());
        if let Some(k) = self.top_k {
            hold(k > 0, "top_k", "1 or more; leave it out to keep all tokens", k.to_string());
        }
        if let Some(p) = self.top_p {
            hold(share(p) && p > 0.0, "top_p", "above 0 and at most 1", p.to_string());
        }
        if let Some(p) = self.min_p {
            hold(share(p), "min_p", "between 0 and 1", p.to_string());
        }
        let penalty = self.repetition_penalty;
        hold(penalty.is_finite() && penalty > 0.0, "repetition_penalty", "above 0; 1 is off", penalty.to_string());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(temperature: f64) -> SamplingConfig {
        SamplingConfig { temperature, ..SamplingConfig::default() }
    }

    fn ids(logits: &[f32], config: &SamplingConfig) -> Vec<u32> {
        candidates(logits, &[], config).expect("finite").iter().map(|c| c.id).collect()
    }

    /// Logits whose softmax is 0.5, 0.25, 0.125, 0.0625, 0.0625.
    fn halves() -> Vec<f32> {
        [0.5f32, 0.25, 0.125, 0.0625, 0.0625].map(f32::ln).to_vec()
    }

    fn counts(logits: &[f32], config: &SamplingConfig, draws: u64) -> Vec<u64> {
        let mut counts = vec![0; logits.len()];
        for step in 0..draws {
            counts[choose(logits, &[], config, &mut Stream::new(3, "sample", step, 0)).expect("finite") as usize] += 1;
        }
        counts
    }

    #[test]
    fn temperature_zero_takes_the_highest_and_the_first_of_equals() {
        assert_eq!(ids(&[1.0, 3.0, 3.0, -1.0], &config(0.0)), [1]);
    }

    #[test]
    fn top_k_keeps_k_and_ties_with_the_last() {
        let top_k = |k| SamplingConfig { top_k: Some(k), ..config(1.0) };
        assert_eq!(ids(&halves(), &top_k(2)), [0, 1]);
        assert_eq!(ids(&halves(), &top_k(4)), [0, 1, 2, 3, 4]);
        assert_eq!(ids(&halves(), &top_k(99)), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn top_p_keeps_the_smallest_set_that_reaches_p() {
        let top_p = |p| SamplingConfig { top_p: Some(p), ..config(1.0) };
        assert_eq!(ids(&halves(), &top_p(0.49)), [0]);
        assert_eq!(ids(&halves(), &top_p(0.51)), [0, 1]);
        assert_eq!(ids(&halves(), &top_p(0.76)), [0, 1, 2]);
        assert_eq!(ids(&halves(), &top_p(0.9)), [0, 1, 2, 3]);
        assert_eq!(ids(&halves(), &top_p(1.0)), [0, 1, 2, 3, 4]);
        assert_eq!(ids(&halves(), &top_p(1e-9)), [0]);
    }

    #[test]
    fn min_p_is_relative_to_the_best() {
        let min_p = |p| SamplingConfig { min_p: Some(p), ..config(1.0) };
        assert_eq!(ids(&halves(), &min_p(0.24)), [0, 1, 2]);
        assert_eq!(ids(&halves(), &min_p(0.6)), [0]);
        assert_eq!(ids(&halves(), &min_p(1.0)), [0]);
        assert_eq!(ids(&halves(), &min_p(0.0)), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn temperature_comes_before_top_p() {
        // Temperature 0.5 squares the probabilities: 64 : 16 : 4 : 1 : 1 of 86, so the first has 0.744 and two have 0.930.
        let both = SamplingConfig { top_p: Some(0.74), ..config(0.5) };
        assert_eq!(ids(&halves(), &both), [0]);
        let both = SamplingConfig { top_p: Some(0.75), ..config(0.5) };
        assert_eq!(ids(&halves(), &both), [0, 1]);
    }

    #[test]
    fn top_p_is_of_what_top_k_left() {
        // Of the first two, the first has 2/3.
        let both = |p| SamplingConfig { top_k: Some(2), top_p: Some(p), ..config(1.0) };
        assert_eq!(ids(&halves(), &both(0.66)), [0]);
        assert_eq!(ids(&halves(), &both(0.67)), [0, 1]);
    }

    #[test]
    fn the_penalty_divides_positive_and_multiplies_negative_logits_once() {
        let penalty = SamplingConfig { repetition_penalty: 2.0, ..config(1.0) };
        let left = candidates(&[4.0, -1.0, 0.0, 3.0], &[0, 0, 1, 77], &penalty).expect("finite");
        let logits: Vec<f64> = left.iter().map(|c| c.logit + 3.0).collect();
        assert_eq!(logits, [2.0, -2.0, 0.0, 3.0]);
        assert_eq!(
            candidates(&[4.0, 3.0], &[0], &SamplingConfig { temperature: 0.0, ..penalty }).expect("ok")[0].id,
            1
        );
    }

    #[test]
    fn nan_is_never_chosen_and_only_nan_is_an_error() {
        assert_eq!(ids(&[f32::NAN, 1.0, f32::NEG_INFINITY], &config(0.0)), [1]);
        assert_eq!(ids(&[f32::NAN, 1.0, f32::NEG_INFINITY], &config(1.0)), [1]);
        for logits in [&[f32::NAN, f32::NEG_INFINITY][..], &[]] {
            assert!(matches!(candidates(logits, &[], &config(1.0)), Err(Error::NoFiniteLogit)));
        }
    }

    #[test]
    fn plus_infinity_wins_and_a_tiny_temperature_does_not_overflow() {
        assert_eq!(ids(&[f32::INFINITY, 1.0, f32::INFINITY], &config(1.0)), [0, 2]);
        let logits = [1e30, 2e30, -1e30];
        assert_eq!(counts(&logits, &config(1e-300), 20), [0, 20, 0]);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let counts = counts(&halves(), &config(1.0), 4000);
        for (count, share) in counts.iter().zip([0.5f64, 0.25, 0.125, 0.0625, 0.0625]) {
            let sigma = (4000.0 * share * (1.0 - share)).sqrt();
            assert!((*count as f64 - 4000.0 * share).abs() < 4.5 * sigma, "{counts:?}");
        }
    }

    #[test]
    fn a_high_temperature_makes_all_tokens_alike() {
        let counts = counts(&[0.0, 5.0], &config(1e6), 2000);
        assert!(counts[0] > 880 && counts[1] > 880, "{counts:?}");
    }

    /// What `TemperatureLogitsWarper(0.7)`, `TopKLogitsWarper(5)`, `TopPLogitsWarper(0.9)`, `MinPLogitsWarper(0.1)` of
    /// transformers 5.23 give after `RepetitionPenaltyLogitsProcessor(1.3)` with the tokens 2 and 6 seen.
    #[test]
    fn probabilities_are_those_of_transformers() {
        let logits = [0.3, -1.2, 2.4, 1.1, 0.9, -0.4, 1.9, 0.0, 1.5, -2.0];
        let all = SamplingConfig {
            temperature: 0.7,
            top_k: Some(5),
            top_p: Some(0.9),
            min_p: Some(0.1),
            repetition_penalty: 1.3,
        };
        let left = candidates(&logits, &[2, 6, 2], &all).expect("finite");
        let total: f64 = left.iter().map(|c| c.logit.exp()).sum();
        let got: Vec<(u32, f64)> = left.iter().map(|c| (c.id, c.logit.exp() / total)).collect();
        let want = [(2, 0.395_015_64), (3, 0.136_045_76), (6, 0.228_029_46), (8, 0.240_909_14)];
        assert_eq!(got.len(), want.len(), "{got:?}");
        for (got, want) in got.iter().zip(want) {
            assert!(got.0 == want.0 && (got.1 - want.1).abs() < 1e-6, "{got:?} {want:?}");
        }
    }

    #[test]
    fn impossible_values_are_all_reported() {
        let bad = SamplingConfig {
            temperature: f64::NAN,
            top_k: Some(0),
            top_p: Some(0.0),
            min_p: Some(1.5),
            repetition_penalty: 0.0,
        };
        let keys: Vec<_> = bad.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["temperature", "top_k", "top_p", "min_p", "repetition_penalty"]);
        assert!(SamplingConfig::default().check().is_empty());
    }
}
