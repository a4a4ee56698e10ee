//! The alignment behind an error rate: the fewest edits that turn a reference into a hypothesis, with fixed rules for ties.
//!
//! # What it computes
//! Levenshtein distance with unit costs, after the common beginning and end are taken as hits. Of several shortest alignments, the one
//! found from the end backwards that takes a deletion where it can, then an insertion that the row above prefers, then a hit or
//! substitution: the rule of rapidfuzz, and so of jiwer. Tables of more than [`MAX_TABLE_CELLS`] cells are halved instead.
//! # Reference
//! Levenshtein 1966; Hirschberg 1975
// R words of the reference, H words of the hypothesis

use std::iter::repeat_n;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Larger tables are not kept: two bits a cell are 16 MiB.
const MAX_TABLE_CELLS: usize = 1 << 26;
/// Longer pairs would take minutes.
const MAX_CELLS: u64 = 1 << 34;

/// One step of an alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// Both have the same.
    Hit,
    /// The hypothesis has something else.
    Substitution,
    /// The hypothesis has something more.
    Insertion,
    /// The hypothesis lacks it.
    Deletion,
}

/// The fewest edits from the reference to the hypothesis, in order.
///
/// # Errors
/// A pair so long that aligning it would take minutes.
pub fn align<T: PartialEq>(reference: &[T], hypothesis: &[T]) -> Result<Vec<Edit>> {
    if (reference.len() as u64).saturating_mul(hypothesis.len() as u64) > MAX_CELLS {
        return Err(Error::Unsupported(format!(
            "a reference of {} and a hypothesis of {} words or characters are too long to be aligned; cut the recording into segments",
            reference.len(),
            hypothesis.len()
        )));
    }
    let mut edits = Vec::with_capacity(reference.len().max(hypothesis.len()));
    align_into(reference, hypothesis, MAX_TABLE_CELLS, &mut edits);
    Ok(edits)
}

fn align_into<T: PartialEq>(reference: &[T], hypothesis: &[T], max_cells: usize, edits: &mut Vec<Edit>) {
    let same = |(a, b): &(&T, &T)| a == b;
    let num_before = reference.iter().zip(hypothesis).take_while(same).count();
    let (reference, hypothesis) = (&reference[num_before..], &hypothesis[num_before..]);
    let num_after = reference.iter().rev().zip(hypothesis.iter().rev()).take_while(same).count();
    let reference = &reference[..reference.len() - num_after];
    let hypothesis = &hypothesis[..hypothesis.len() - num_after];
    edits.extend(repeat_n(Edit::Hit, num_before));
    if reference.is_empty() {
        edits.extend(repeat_n(Edit::Insertion, hypothesis.len()));
    } else if hypothesis.len() < 2 || reference.len().saturating_mul(hypothesis.len()) <= max_cells {
        align_by_table(reference, hypothesis, edits);
    } else {
        // The first place at which a shortest alignment crosses the middle of the hypothesis.
        let (first, second) = hypothesis.split_at(hypothesis.len() / 2);
        let before = costs(reference.iter(), first.iter());
        let after = costs(reference.iter().rev(), second.iter().rev());
        let crossing = before.iter().zip(after.iter().rev()).map(|(a, b)| a + b).enumerate();
        let place = crossing.min_by_key(|(_, cost)| *cost).map_or(0, |(place, _)| place);
        align_into(&reference[..place], first, max_cells, edits);
        align_into(&reference[place..], second, max_cells, edits);
    }
    edits.extend(repeat_n(Edit::Hit, num_after));
}

/// The distance of the hypothesis from each beginning of the reference: [R + 1].
fn costs<'a, T: PartialEq + 'a>(
    reference: impl Iterator<Item = &'a T> + Clone,
    hypothesis: impl Iterator<Item = &'a T>,
) -> Vec<u32> {
    let mut row: Vec<u32> = (0..=reference.clone().count() as u32).collect();
    for heard in hypothesis {
        next_row(&mut row, reference.clone(), heard);
    }
    row
}

/// The costs of one word more of the hypothesis.
fn next_row<'a, T: PartialEq + 'a>(row: &mut [u32], reference: impl Iterator<Item = &'a T>, heard: &T) {
    let mut diagonal = row[0];
    row[0] += 1;
    for (at, said) in reference.enumerate() {
        let above = row[at + 1];
        let straight = diagonal + u32::from(said != heard);
        row[at + 1] = straight.min(above + 1).min(row[at] + 1);
        diagonal = above;
    }
}

/// Keeps, for each cell, whether its cost is one more or one less than that of its left neighbour.
fn align_by_table<T: PartialEq>(reference: &[T], hypothesis: &[T], edits: &mut Vec<Edit>) {
    let width = reference.len();
    let mut steps = vec![0u8; (width * hypothesis.len()).div_ceil(4)];
    let mut row: Vec<u32> = (0..=width as u32).collect();
    for (line, heard) in hypothesis.iter().enumerate() {
        next_row(&mut row, reference.iter(), heard);
        for at in 0..width {
            let step = row[at + 1].wrapping_sub(row[at]).wrapping_add(1) as u8;
            let cell = line * width + at;
            steps[cell / 4] |= step << (2 * (cell % 4));
        }
    }
    // 0: one less than on the left, 2: one more.
    let step = |line: usize, at: usize| {
        let cell = line * width + at;
        steps[cell / 4] >> (2 * (cell % 4)) & 3
    };
    let start = edits.len();
    let (mut said, mut heard) = (width, hypothesis.len());
    while said > 0 && heard > 0 {
        if step(heard - 1, said - 1) == 2 {
            said -= 1;
            edits.push(Edit::Deletion);
            continue;
        }
        heard -= 1;
        if heard > 0 && step(heard - 1, said - 1) == 0 {
            edits.push(Edit::Insertion);
        } else {
            said -= 1;
            edits.push(if reference[said] == hypothesis[heard] { Edit::Hit } else { Edit::Substitution });
        }
    }
    edits.extend(repeat_n(Edit::Deletion, said));
    edits.extend(repeat_n(Edit::Insertion, heard));
    edits[start..].reverse();
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_ops::rng::Stream;

    fn edits(reference: &str, hypothesis: &str) -> String {
        let found = align(reference.as_bytes(), hypothesis.as_bytes()).expect("short");
        found.iter().map(letter).collect()
    }

    fn letter(edit: &Edit) -> char {
        match edit {
            Edit::Hit => '=',
            Edit::Substitution => 's',
            Edit::Insertion => 'i',
            Edit::Deletion => 'd',
        }
    }

    fn drawn(stream: &mut Stream, len: u64) -> Vec<u64> {
        (0..stream.below(len)).map(|_| stream.below(3)).collect()
    }

    fn num_errors(edits: &[Edit]) -> usize {
        edits.iter().filter(|edit| **edit != Edit::Hit).count()
    }

    /// The recursive definition.
    fn distance(a: &[u64], b: &[u64]) -> usize {
        match (a, b) {
            ([], rest) | (rest, []) => rest.len(),
            ([x, a_rest @ ..], [y, b_rest @ ..]) if x == y => distance(a_rest, b_rest),
            ([_, a_rest @ ..], [_, b_rest @ ..]) => {
                1 + distance(a_rest, b_rest).min(distance(a_rest, b)).min(distance(a, b_rest))
            }
        }
    }

    /// That the edits lead from the one to the other.
    fn check(a: &[u64], b: &[u64], edits: &[Edit]) {
        let (mut said, mut heard) = (0, 0);
        for edit in edits {
            match edit {
                Edit::Hit => assert_eq!(a[said], b[heard]),
                Edit::Substitution => assert_ne!(a[said], b[heard]),
                Edit::Insertion | Edit::Deletion => {}
            }
            said += usize::from(*edit != Edit::Insertion);
            heard += usize::from(*edit != Edit::Deletion);
        }
        assert_eq!((said, heard), (a.len(), b.len()));
    }

    #[test]
    fn ties_are_broken_by_one_rule() {
        assert_eq!(edits("ab", "ba"), "i=d");
        assert_eq!(edits("abc", "bca"), "d==i");
        assert_eq!(edits("", "xy"), "ii");
        assert_eq!(edits("xy", ""), "dd");
        assert_eq!(edits("", ""), "");
    }

    #[test]
    fn the_fewest_edits_are_found() {
        let mut stream = Stream::new(1, "test", 0, 0);
        for _ in 0..200 {
            let (a, b) = (drawn(&mut stream, 8), drawn(&mut stream, 8));
            let edits = align(&a, &b).expect("short");
            check(&a, &b, &edits);
            assert_eq!(num_errors(&edits), distance(&a, &b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn halving_finds_as_few_edits_as_one_table() {
        let mut stream = Stream::new(2, "test", 0, 0);
        for max_cells in [1, 4, 50, 400] {
            for _ in 0..50 {
                let (a, b) = (drawn(&mut stream, 60), drawn(&mut stream, 60));
                let mut halved = Vec::new();
                align_into(&a, &b, max_cells, &mut halved);
                check(&a, &b, &halved);
                assert_eq!(num_errors(&halved), num_errors(&align(&a, &b).expect("short")), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn endless_pairs_are_refused_before_any_work() {
        let long = vec![0u8; 200_000];
        let error = align(&long, &long).expect_err("4e10 cells").to_string();
        assert!(error.contains("200000") && error.contains("segments"), "{error}");
    }
}
