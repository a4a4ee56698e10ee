//! Mixture: which source gives the next row, and what each source gave so far.

use serde::{Deserialize, Serialize};

/// What one source has given, or is expected to give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// Name of the source.
    pub source: String,
    /// Rows drawn.
    pub rows: u64,
    /// Tokens in these rows.
    pub tokens: u64,
    /// Bytes of text that these rows predict.
    pub bytes: u64,
    /// How often the source was gone through.
    pub repeats: f64,
    /// Share of the tokens that the weights ask for.
    pub target_share: f64,
    /// Share of the tokens achieved.
    pub share: f64,
}

/// A source as the mixture sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Member {
    pub(crate) weight: f64,
    /// Tokens drawn so far.
    pub(crate) drawn: u64,
    /// False once it has reached `max_repeats`.
    pub(crate) is_active: bool,
}

/// The active source that is furthest behind its share once `ahead` more tokens are drawn; ties go to the first.
pub(crate) fn choose(members: &[Member], ahead: u64) -> Option<usize> {
    let active = || members.iter().enumerate().filter(|(_, member)| member.is_active);
    let weight: f64 = active().map(|(_, member)| member.weight).sum();
    let total: u64 = active().map(|(_, member)| member.drawn).sum::<u64>() + ahead;
    let mut best: Option<(usize, f64)> = None;
    for (index, member) in active() {
        let deficit = member.weight / weight * total as f64 - member.drawn as f64;
        if best.is_none_or(|(_, most)| deficit > most) {
            best = Some((index, deficit));
        }
    }
    best.map(|(index, _)| index)
}

/// Tokens that each (weight, most tokens) gives out of `total`: by weight, and what a full one cannot give goes to the others.
pub(crate) fn expected(members: &[(f64, Option<u64>)], total: u64) -> Vec<f64> {
    let mut given = vec![0.0; members.len()];
    let mut is_full = vec![false; members.len()];
    let mut left = total as f64;
    loop {
        let weight: f64 = members.iter().zip(&is_full).filter(|(_, full)| !**full).map(|((weight, _), _)| weight).sum();
        let mut has_filled = false;
        for (index, (own, most)) in members.iter().enumerate() {
            if let Some(most) = most
                && !is_full[index]
                && own / weight * left > *most as f64
            {
                given[index] = *most as f64;
                is_full[index] = true;
                has_filled = true;
            }
        }
        if !has_filled {
            for (index, (own, _)) in members.iter().enumerate() {
                if !is_full[index] {
                    given[index] = own / weight * left;
                }
            }
            return given;
        }
        let full: f64 = given.iter().zip(&is_full).filter(|(_, full)| **full).map(|(given, _)| given).sum();
        left = (total as f64 - full).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(weight: f64) -> Member {
        Member { weight, drawn: 0, is_active: true }
    }

    #[test]
    fn shares_stay_within_one_row() {
        let mut members = [member(5.0), member(3.0), member(0.5)];
        for step in 1..=2000u64 {
            let chosen = choose(&members, 100).expect("all are active");
            members[chosen].drawn += 100;
            for member in &members {
                let wanted = member.weight / 8.5 * (step * 100) as f64;
                assert!((member.drawn as f64 - wanted).abs() <= 100.0, "step {step}: {members:?}");
            }
        }
    }

    #[test]
    fn a_full_source_leaves_its_share_to_the_others() {
        let mut members = [member(2.0), member(1.0), member(1.0)];
        members[0].is_active = false;
        for _ in 0..100 {
            let chosen = choose(&members, 10).expect("two are active");
            members[chosen].drawn += 10;
        }
        assert_eq!([members[0].drawn, members[1].drawn, members[2].drawn], [0, 500, 500]);
        members.iter_mut().for_each(|member| member.is_active = false);
        assert_eq!(choose(&members, 10), None);
    }

    #[test]
    fn the_expectation_respects_limits() {
        assert_eq!(expected(&[(1.0, None), (3.0, None)], 400), [100.0, 300.0]);
        assert_eq!(expected(&[(1.0, None), (3.0, Some(100))], 400), [300.0, 100.0]);
        assert_eq!(expected(&[(1.0, Some(10)), (3.0, Some(100))], 400), [10.0, 100.0]);
    }
}
