//! Linear-chain conditional random field: the likelihood of tag sequences, and the most probable one.
//!
//! # What it computes
//! A sequence of tags `y` for the places of a row has `score(y) = sum_t e[t, y_t] + sum_{t>0} A[y_{t-1}, y_t]` with emissions
//! `e` and transitions `A` (row: from, column: to). The loss of a row is `ln sum_y exp(score(y)) - score(gold)`; that of
//! several rows is their sum. The gradient is, for each emission and each transition, how often it is expected less how
//! often it is in the gold tags. A row without places costs nothing.
//! Both recursions are in the log domain and in f64; the gradient is made in the forward pass.
//!
//! # Reference
//! Lafferty et al. 2001; for tagging with a network Lample et al. 2016
// B rows, N places of all rows together, K tags

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Bool, Int, Tensor, TensorData};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::gradcheck::values;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

/// Gold tags of rows whose places stand behind one another.
#[derive(Debug, Clone)]
pub struct Crf {
    /// The tag of each place. `[N]`
    pub tags: Arc<[i32]>,
    /// Places of each row; their sum is N. `[B]`
    pub lengths: Arc<[usize]>,
}

/// Emissions of one row and the transitions.
#[derive(Clone, Copy)]
struct Chain<'a> {
    emissions: &'a [f32],
    transitions: &'a [f32],
    num_tags: usize,
}

/// What the recursions over a row find.
struct Pass {
    /// Log weight of all beginnings that end in a tag, and of all ends that follow it. `[n, K]`
    alpha: Vec<f64>,
    beta: Vec<f64>,
    /// Log weight of all sequences, added up at each place, so that probabilities are at most 1 however large scores are. `[n]`
    total: Vec<f64>,
}

/// `ln sum exp`; not a number if one of them is none.
fn log_sum_exp(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let top = x.clone().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY { x.sum() } else { top + x.map(|x| (x - top).exp()).sum::<f64>().ln() }
}

impl Chain<'_> {
    fn emission(&self, t: usize, tag: usize) -> f64 {
        f64::from(self.emissions[t * self.num_tags + tag])
    }

    fn transition(&self, from: usize, to: usize) -> f64 {
        f64::from(self.transitions[from * self.num_tags + to])
    }

    fn len(&self) -> usize {
        self.emissions.len() / self.num_tags.max(1)
    }

    fn alpha(&self) -> Vec<f64> {
        let k = self.num_tags;
        let mut alpha: Vec<f64> = Vec::with_capacity(self.emissions.len());
        for t in 0..self.len() {
            for to in 0..k {
                let before = match t.checked_sub(1) {
                    None => 0.0,
                    Some(before) => {
                        log_sum_exp((0..k).map(|from| alpha[before * k + from] + self.transition(from, to)))
                    }
                };
                alpha.push(before + self.emission(t, to));
            }
        }
        alpha
    }

    /// Loss of a row with at least one place.
    fn loss(&self, alpha: &[f64], tags: &[i32]) -> f64 {
        let tag = |t: usize| tags[t] as usize;
        let emitted: f64 = (0..tags.len()).map(|t| self.emission(t, tag(t))).sum();
        let moved: f64 = (1..tags.len()).map(|t| self.transition(tag(t - 1), tag(t))).sum();
        let last = &alpha[alpha.len() - self.num_tags..];
        log_sum_exp(last.iter().copied()) - (emitted + moved)
    }

    fn pass(&self) -> Pass {
        let (k, n) = (self.num_tags, self.len());
        let alpha = self.alpha();
        let mut beta = vec![0.0; alpha.len()];
        for t in (0..n.saturating_sub(1)).rev() {
            for from in 0..k {
                let next = |to: usize| self.transition(from, to) + self.emission(t + 1, to) + beta[(t + 1) * k + to];
                beta[t * k + from] = log_sum_exp((0..k).map(next));
            }
        }
        let at = |t: usize| log_sum_exp((0..k).map(|tag| alpha[t * k + tag] + beta[t * k + tag]));
        let total = (0..n).map(at).collect();
        Pass { alpha, beta, total }
    }

    /// The most probable tags; of equal ones those with lower numbers at the end.
    fn best(&self) -> Vec<u32> {
        let (k, n) = (self.num_tags, self.len());
        let mut from_tag = vec![0; n * k];
        let mut scores: Vec<f64> = (0..k).map(|tag| if n == 0 { 0.0 } else { self.emission(0, tag) }).collect();
        for t in 1..n {
            let step = |to: usize| {
                let score = |from: usize| scores[from] + self.transition(from, to);
                let from = (1..k).fold(0, |best, from| if score(from) > score(best) { from } else { best });
                (from, score(from) + self.emission(t, to))
            };
            let (from, next): (Vec<usize>, Vec<f64>) = (0..k).map(step).unzip();
            from_tag[t * k..(t + 1) * k].copy_from_slice(&from);
            scores = next;
        }
        let mut tag = (1..k).fold(0, |best, tag| if scores[tag] > scores[best] { tag } else { best });
        let mut tags = vec![0; n];
        for t in (0..n).rev() {
            tags[t] = tag as u32;
            tag = from_tag[t * k + tag];
        }
        tags
    }
}

/// The places of each row.
fn rows(lengths: &[usize]) -> Vec<Range<usize>> {
    let mut end = 0;
    let row = |len: &usize| {
        let start = end;
        end += len;
        start..end
    };
    lengths.iter().map(row).collect()
}

fn check_sizes([n, k]: [usize; 2], transitions: [usize; 2], lengths: &[usize]) {
    assert!(transitions == [k, k], "crf: transitions {transitions:?} of {k} tags");
    let sum: usize = lengths.iter().sum();
    assert!(sum == n && (k > 0 || n == 0), "crf: rows of {sum} places together, emissions [{n}, {k}]");
}

impl Crf {
    fn check(&self, emissions: [usize; 2], transitions: [usize; 2]) {
        check_sizes(emissions, transitions, &self.lengths);
        let [n, k] = emissions;
        let sound = |tag: &i32| usize::try_from(*tag).is_ok_and(|tag| tag < k);
        assert!(self.tags.len() == n && self.tags.iter().all(sound), "crf: {n} tags below {k} are needed");
    }

    /// Loss of every row.
    fn losses(&self, emissions: &[f32], transitions: &[f32], num_tags: usize) -> Vec<f64> {
        let loss = |row: Range<usize>| {
            if row.is_empty() {
                return 0.0;
            }
            let chain =
                Chain { emissions: &emissions[row.start * num_tags..row.end * num_tags], transitions, num_tags };
            chain.loss(&chain.alpha(), &self.tags[row])
        };
        rows(&self.lengths).into_par_iter().map(loss).collect()
    }
}

impl Kernel<2> for Crf {
    type Saved = [FlexTensor; 2];

    fn forward(&self, inputs: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let [emissions, transitions] = inputs.each_ref().map(numbers);
        let k = dims(&inputs[0])[1];
        let rows = rows(&self.lengths);
        let chain =
            |row: &Range<usize>| Chain { emissions: &emissions[row.start * k..row.end * k], transitions, num_tags: k };
        let passes: Vec<Pass> = rows.par_iter().map(|row| chain(row).pass()).collect();
        let loss = |(row, pass): (&Range<usize>, &Pass)| {
            if row.is_empty() { 0.0 } else { chain(row).loss(&pass.alpha, &self.tags[row.clone()]) }
        };
        let total: f64 = rows.iter().zip(&passes).map(loss).sum();
        let expected = |pass: &Pass| -> Vec<f32> {
            let chance = |i: usize| (pass.alpha[i] + pass.beta[i] - pass.total[i / k]).exp() as f32;
            (0..pass.alpha.len()).map(chance).collect()
        };
        let mut by_emission: Vec<f32> = passes.iter().flat_map(expected).collect();
        self.tags.iter().enumerate().for_each(|(at, tag)| by_emission[at * k + *tag as usize] -= 1.0);
        // One tag to come from after another, each over all places in their order: no sum depends on the threads.
        let mut by_transition = vec![0.0; k * k];
        by_transition.par_chunks_mut(k.max(1)).enumerate().for_each(|(from, out)| {
            let mut sums = vec![0.0; k];
            for (row, pass) in rows.iter().zip(&passes) {
                let (chain, tags) = (chain(row), &self.tags[row.clone()]);
                for t in 1..row.len() {
                    let before = pass.alpha[(t - 1) * k + from] - pass.total[t];
                    for (to, sum) in sums.iter_mut().enumerate() {
                        let after = chain.emission(t, to) + pass.beta[t * k + to];
                        *sum += (before + chain.transition(from, to) + after).min(0.0).exp();
                    }
                    if tags[t - 1] as usize == from {
                        sums[tags[t] as usize] -= 1.0;
                    }
                }
            }
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum as f32);
        });
        let gradients = [tensor(&dims(&inputs[0]), by_emission), tensor(&[k, k], by_transition)];
        (tensor(&[1], vec![total as f32]), gradients)
    }

    fn value(&self, inputs: [FlexTensor; 2]) -> FlexTensor {
        let [emissions, transitions] = inputs.each_ref().map(numbers);
        let losses = self.losses(emissions, transitions, dims(&inputs[0])[1]);
        tensor(&[1], vec![losses.iter().sum::<f64>() as f32])
    }

    fn backward(&self, saved: Self::Saved, grad: FlexTensor, needs: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let upstream = numbers(&grad)[0];
        let scaled = |x: &FlexTensor| tensor(&dims(x), numbers(x).iter().map(|x| x * upstream).collect());
        [0, 1].map(|i| needs[i].then(|| scaled(&saved[i])))
    }
}

/// Sum of the losses of all rows, with emissions `[N, K]` and transitions `[K, K]`: `[1]`.
///
/// # Panics
/// When sizes differ or a tag is not below K; batches are checked before.
pub fn crf(emissions: Tensor<2>, transitions: Tensor<2>, how: &Crf) -> Tensor<1> {
    how.check(emissions.dims(), transitions.dims());
    let inputs = [cpu_tensor(emissions.clone()), cpu_tensor(transitions.clone())];
    apply(how.clone(), inputs).unwrap_or_else(|| crf_plain(emissions, transitions, how))
}

/// The loss of every row. No gradient; computed on the CPU wherever the tensors are.
///
/// # Panics
/// As `crf`.
pub fn crf_rows(emissions: Tensor<2>, transitions: Tensor<2>, how: &Crf) -> Vec<f32> {
    how.check(emissions.dims(), transitions.dims());
    let k = emissions.dims()[1];
    how.losses(&values(emissions), &values(transitions), k).into_iter().map(|loss| loss as f32).collect()
}

/// The most probable tag of each place, jointly along each row (Viterbi). `[N]`
///
/// # Panics
/// When sizes differ.
pub fn viterbi(emissions: Tensor<2>, transitions: Tensor<2>, lengths: &[usize]) -> Vec<u32> {
    let num_tags = emissions.dims()[1];
    check_sizes(emissions.dims(), transitions.dims(), lengths);
    let (emissions, transitions) = (values(emissions), values(transitions));
    let best = |row: Range<usize>| {
        let emissions = &emissions[row.start * num_tags..row.end * num_tags];
        Chain { emissions, transitions: &transitions, num_tags }.best()
    };
    rows(lengths).into_par_iter().map(best).collect::<Vec<_>>().concat()
}

/// The plain composition of `crf`.
pub fn crf_plain(emissions: Tensor<2>, transitions: Tensor<2>, how: &Crf) -> Tensor<1> {
    let (device, [_, k]) = (emissions.device(), emissions.dims());
    let ints = |x: Vec<i32>| {
        let len = x.len();
        Tensor::<1, Int>::from_data(TensorData::new(x, [len]), &device)
    };
    let rows: Vec<Range<usize>> = rows(&how.lengths).into_iter().filter(|row| !row.is_empty()).collect();
    let Some(longest) = rows.iter().map(Range::len).max() else {
        return emissions.sum() * 0.0 + transitions.sum() * 0.0;
    };
    let b = rows.len();
    // A row that has ended stays at its last place and keeps what it has.
    let place = |row: &Range<usize>, t: usize| (row.start + t.min(row.len() - 1)) as i32;
    let mut alpha = emissions.clone().select(0, ints(rows.iter().map(|row| place(row, 0)).collect()));
    for t in 1..longest {
        let at = emissions.clone().select(0, ints(rows.iter().map(|row| place(row, t)).collect()));
        let moves = alpha.clone().reshape([b, k, 1]) + transitions.clone().reshape([1, k, k]);
        let next = log_sum_exp_over(moves).reshape([b, k]) + at;
        let goes_on = rows.iter().flat_map(|row| std::iter::repeat_n(t < row.len(), k)).collect::<Vec<bool>>();
        let goes_on = Tensor::<2, Bool>::from_data(TensorData::new(goes_on, [b, k]), &device);
        alpha = alpha.mask_where(goes_on, next);
    }
    let total = log_sum_exp_over(alpha.reshape([b, k, 1])).sum();
    let tag = |at: usize| how.tags[at] as usize;
    let emitted = (0..how.tags.len()).map(|at| (at * k + tag(at)) as i32).collect();
    let emitted = emissions.flatten::<1>(0, 1).select(0, ints(emitted)).sum();
    let moved: Vec<i32> =
        rows.iter().flat_map(|row| (row.start + 1..row.end).map(|at| (tag(at - 1) * k + tag(at)) as i32)).collect();
    let gold = if moved.is_empty() {
        emitted + transitions.sum() * 0.0
    } else {
        emitted + transitions.flatten::<1>(0, 1).select(0, ints(moved)).sum()
    };
    total - gold
}

/// `ln sum exp` over the middle of `[B, K, M]`: `[B, 1, M]`.
fn log_sum_exp_over(x: Tensor<3>) -> Tensor<3> {
    let top = x.clone().detach().max_dim(1);
    (x - top.clone()).exp().sum_dim(1).log() + top
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, distance, on_threads, random};

    fn how(tags: &[i32], lengths: &[usize]) -> Crf {
        Crf { tags: tags.into(), lengths: lengths.into() }
    }

    fn matrix<const N: usize, const K: usize>(x: [[f32; K]; N]) -> Tensor<2> {
        Tensor::from_data(x, &crate::device::cpu())
    }

    fn gradients(emissions: &Tensor<2>, transitions: &Tensor<2>, how: &Crf) -> [Vec<f32>; 2] {
        let device = crate::device::cpu().autodiff();
        let on = |x: &Tensor<2>| Tensor::<2>::from_data(x.to_data(), &device).require_grad();
        let (e, a) = (on(emissions), on(transitions));
        let grads = crf(e.clone(), a.clone(), how).backward();
        [values(e.grad(&grads).expect("tracked")), values(a.grad(&grads).expect("tracked"))]
    }

    /// All tag sequences of a row with their scores.
    fn sequences(e: &[f32], a: &[f32], k: usize) -> Vec<(Vec<i32>, f64)> {
        let n = e.len() / k;
        let sequence = |number: usize| {
            let tags: Vec<i32> = (0..n).map(|t| (number / k.pow(t as u32) % k) as i32).collect();
            let emitted: f64 = (0..n).map(|t| f64::from(e[t * k + tags[t] as usize])).sum();
            let moved = tags.windows(2).map(|pair| f64::from(a[pair[0] as usize * k + pair[1] as usize]));
            let score = emitted + moved.sum::<f64>();
            (tags, score)
        };
        (0..k.pow(n as u32)).map(sequence).collect()
    }

    #[test]
    fn known_values() {
        let (e, a) = (matrix([[1.0, 0.0], [0.0, 2.0]]), matrix([[0.5, -0.5], [0.0, 1.0]]));
        for (tags, score) in [([0, 0], 1.5), ([0, 1], 2.5), ([1, 0], 0.0), ([1, 1], 3.0)] {
            let loss = values(crf(e.clone(), a.clone(), &how(&tags, &[2])))[0];
            assert!((f64::from(loss) - (3.630_978 - score)).abs() < 1e-6, "{tags:?}: {loss}");
        }
        assert!((crf_rows(e.clone(), a.clone(), &how(&[0, 1], &[2]))[0] - 1.130_978).abs() < 1e-6);
        assert_eq!(viterbi(e, a, &[2]), [1, 1]);
    }

    #[test]
    fn agrees_with_all_sequences() {
        for (n, k, seed) in [(1, 1, 1), (1, 4, 2), (2, 3, 3), (4, 3, 4), (5, 2, 5), (3, 5, 6)] {
            let (e, a) = (random([n, k], seed) * 2.0, random([k, k], seed + 10) * 2.0);
            let (ev, av) = (values(e.clone()), values(a.clone()));
            let all = sequences(&ev, &av, k);
            let sum: f64 = all.iter().map(|(_, score)| score.exp()).sum();
            let (best, _) = all.iter().max_by(|x, y| x.1.total_cmp(&y.1)).expect("at least one");
            let found: Vec<i32> = viterbi(e.clone(), a.clone(), &[n]).iter().map(|tag| *tag as i32).collect();
            assert_eq!(found, *best);
            let (gold, score) = &all[all.len() / 2];
            let how = how(gold, &[n]);
            let loss = f64::from(crf_rows(e.clone(), a.clone(), &how)[0]);
            assert!((loss - (sum.ln() - score)).abs() < 1e-5, "{loss} is not {}", sum.ln() - score);
            // What the sequences have on average, less what the gold one has.
            let (mut by_emission, mut by_transition) = (vec![0.0; n * k], vec![0.0; k * k]);
            for (tags, weight) in all.iter().map(|(tags, score)| (tags, score.exp() / sum)).chain([(gold, -1.0)]) {
                tags.iter().enumerate().for_each(|(t, tag)| by_emission[t * k + *tag as usize] += weight);
                tags.windows(2).for_each(|pair| by_transition[pair[0] as usize * k + pair[1] as usize] += weight);
            }
            let [g, h] = gradients(&e, &a, &how);
            for (ours, theirs) in g.iter().chain(&h).zip(by_emission.iter().chain(&by_transition)) {
                assert!((f64::from(*ours) - theirs).abs() < 1e-6, "{ours} is not {theirs}");
            }
        }
    }

    #[test]
    fn agrees_with_plain_composition() {
        for (lengths, k) in [(&[4, 1, 0, 7, 2][..], 5), (&[0, 1, 1], 3), (&[9], 2), (&[0, 0], 2)] {
            let n = lengths.iter().sum::<usize>();
            let tags: Vec<i32> = (0..n).map(|t| (t * t % k) as i32).collect();
            let how = how(&tags, lengths);
            agrees(
                (random([n, k], 1) * 3.0, random([k, k], 2) * 2.0, random([1], 3)),
                |(e, a, _)| crf(e, a, &how) * 0.7,
                |(e, a, _)| crf_plain(e, a, &how) * 0.7,
            );
        }
        let how = how(&[0, 2, 1], &[3]);
        // Not row-major.
        agrees(
            (random([3, 3], 1), random([3, 3], 2), random([1], 3)),
            |(e, a, _)| crf(e.transpose(), a.transpose(), &how),
            |(e, a, _)| crf_plain(e.transpose(), a.transpose(), &how),
        );
    }

    #[test]
    fn a_single_tag_costs_nothing() {
        let (e, a) = (random([6, 1], 1) * 3.0, random([1, 1], 2));
        let how = how(&[0; 6], &[3, 3]);
        assert!(values(crf(e.clone(), a.clone(), &how))[0].abs() < 1e-5);
        assert!(values(crf_plain(e, a, &how))[0].abs() < 1e-4);
    }

    #[test]
    fn agrees_with_finite_differences() {
        let how = how(&[2, 0, 1, 1, 2, 0], &[4, 2]);
        let (e, a) = (random([6, 3], 1), random([3, 3], 2));
        let inputs = [values(e.clone()), values(a.clone())];
        let gradients = gradients(&e, &a, &how);
        for (which, gradient) in gradients.iter().enumerate() {
            for (i, gradient) in gradient.iter().enumerate() {
                let loss = |by: f32| {
                    let mut inputs = inputs.clone();
                    inputs[which][i] += by;
                    let losses = how.losses(&inputs[0], &inputs[1], 3);
                    losses.iter().sum::<f64>()
                };
                let slope = (loss(1e-2) - loss(-1e-2)) / 2e-2;
                assert!((slope - f64::from(*gradient)).abs() < 5e-5, "{which} {i}: {slope} is not {gradient}");
            }
        }
    }

    #[test]
    fn rows_add_up_and_without_transitions_places_do_too() {
        let (e, a) = (random([5, 4], 1), random([4, 4], 2));
        let both = how(&[0, 3, 1, 1, 2], &[2, 3]);
        let rows = crf_rows(e.clone(), a.clone(), &both);
        let second = crf_rows(e.clone().narrow(0, 2, 3), a.clone(), &how(&[1, 1, 2], &[3]));
        assert_eq!(rows[1..], second[..]);
        assert!((values(crf(e.clone(), a, &both))[0] - rows.iter().sum::<f32>()).abs() < 1e-5);
        let apart = how(&[0, 3, 1, 1, 2], &[1; 5]);
        let none = Tensor::zeros([4, 4], &e.device());
        let places: f32 = crf_rows(e.clone(), none.clone(), &apart).iter().sum();
        assert!((values(crf(e, none, &both))[0] - places).abs() < 1e-5);
    }

    #[test]
    fn empty_rows_cost_nothing() {
        let (e, a) = (Tensor::zeros([0, 3], &crate::device::cpu()), random([3, 3], 1));
        for lengths in [&[][..], &[0, 0]] {
            let how = how(&[], lengths);
            assert_eq!(values(crf(e.clone(), a.clone(), &how)), [0.0]);
            assert_eq!(crf_rows(e.clone(), a.clone(), &how), vec![0.0; lengths.len()]);
            assert_eq!(gradients(&e, &a, &how), [vec![], vec![0.0; 9]]);
            assert!(viterbi(e.clone(), a.clone(), lengths).is_empty());
        }
    }

    #[test]
    fn extreme_scores() {
        let free = matrix([[0.0, 0.0], [0.0, 0.0]]);
        let big = matrix([[1e30, -1e30], [-1e30, 1e30], [1e30, 7e29]]);
        let sure = how(&[0, 1, 0], &[3]);
        assert!(values(crf(big.clone(), free.clone(), &sure))[0].abs() < 1e-6);
        assert!(gradients(&big, &free, &sure).concat().iter().all(|g| g.abs() < 1e-6));
        let wrong = how(&[1, 1, 0], &[3]);
        assert!(values(crf(big.clone(), free.clone(), &wrong))[0] > 1e30);
        assert!(gradients(&big, &free, &wrong).concat().iter().all(|g| g.is_finite() && g.abs() <= 1.0 + 1e-6));
        assert_eq!(viterbi(big, free.clone(), &[3]), [0, 1, 0]);
        // What is forbidden by a transition is never chosen and gets no gradient.
        let forbidden = matrix([[0.0, f32::NEG_INFINITY], [0.0, 0.0]]);
        let e = matrix([[5.0, 0.0], [0.0, 3.0]]);
        let how = how(&[0, 0], &[2]);
        assert_eq!(viterbi(e.clone(), forbidden.clone(), &[2]), [0, 0]);
        assert_eq!(gradients(&e, &forbidden, &how)[1][1], 0.0);
        assert!(crf_rows(e, forbidden, &how)[0].is_finite());
        assert!(crf_rows(matrix([[f32::NAN, 0.0], [0.0, 0.0]]), free, &how)[0].is_nan());
    }

    #[test]
    fn long_rows_stay_exact() {
        // Without transitions every place counts for itself.
        let (n, k) = (5_000, 6);
        let tags: Vec<i32> = (0..n).map(|t| (t % k) as i32).collect();
        let (e, none) = (random([n, k], 3) * 10.0, Tensor::zeros([k, k], &crate::device::cpu()));
        let apart: f64 = how(&tags, &vec![1; n]).losses(&values(e.clone()), &[0.0; 36], k).iter().sum();
        let long = f64::from(crf_rows(e, none, &how(&tags, &[n]))[0]);
        assert!((long - apart).abs() < 1e-6 * apart, "{long} is not {apart}");
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let lengths = [40, 1, 0, 63, 17];
        let tags: Vec<i32> = (0..121).map(|t| t % 7).collect();
        let how = how(&tags, &lengths);
        let (e, a) = (random([121, 7], 1), random([7, 7], 2));
        let run = |threads| on_threads(threads, || (values(crf(e.clone(), a.clone(), &how)), gradients(&e, &a, &how)));
        assert_eq!(run(1), run(2));
        assert!(distance(&run(1).0, &[crf_rows(e.clone(), a.clone(), &how).iter().sum()]) < 1e-6);
    }
}
