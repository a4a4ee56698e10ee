//! Connectionist temporal classification: the likelihood of label sequences without alignments.
//!
//! # What it computes
//! Per row `-ln P(y | x)`, where P sums the products of softmax probabilities over all frame-by-frame paths that give the
//! labels once repeats and then blanks are removed. The gradient of a logit is softmax minus occupancy, 0 past the
//! length of a row. The result is the weighted sum over rows, never a mean.
//! Softmax and both recursions are one operation; the gradient is made in the forward pass.
//!
//! # Reference
//! Graves et al. 2006.
// B rows, T frames, V vocabulary

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, activation, module};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::cpu::ctc::{Row, Scratch, row};
use crate::tape::{CpuTensor, Kernel, apply, contiguous, cpu_tensor, dims, numbers, tensor};

pub use crate::cpu::ctc::frames_needed;

/// Labels and options of a CTC loss.
#[derive(Debug, Clone)]
pub struct Ctc {
    /// Labels per row, without blanks. `[B]`
    pub targets: Arc<[Vec<i32>]>,
    /// Frames per row that count. `[B]`
    pub input_lengths: Arc<[usize]>,
    /// Index of the blank.
    pub blank: usize,
    /// Whether rows without an alignment cost nothing; otherwise their loss is infinite. Their gradient is 0 either way.
    pub zero_infinity: bool,
    /// Weight per row; left out: 1. `[B]`
    pub weights: Option<Arc<[f32]>>,
}

impl Ctc {
    /// Whether a row has a frame for each label and one between equal neighbours.
    fn fits(&self, i: usize) -> bool {
        self.input_lengths[i] >= frames_needed(&self.targets[i])
    }

    /// Rows with too few frames for their labels.
    pub fn num_too_short(&self) -> usize {
        (0..self.targets.len()).filter(|i| !self.fits(*i)).count()
    }

    fn weight(&self, i: usize) -> f32 {
        self.weights.as_ref().map_or(1.0, |w| w[i])
    }

    fn check(&self, [b, t, v]: [usize; 3]) {
        assert!(
            self.targets.len() == b
                && self.input_lengths.len() == b
                && self.weights.as_ref().is_none_or(|w| w.len() == b),
            "ctc: targets, lengths and weights are not of {b} rows"
        );
        assert!(self.input_lengths.iter().all(|n| *n <= t), "ctc: a row is longer than {t} frames");
        let blank = self.blank as i32;
        let sound = |y: &i32| (0..v as i32).contains(y) && *y != blank;
        assert!(
            self.blank < v.max(1) && self.targets.iter().flatten().all(sound),
            "ctc: a label is the blank or not below {v}"
        );
    }

    /// Loss of every row; gradients times the weights go to `grad` `[B, T, V]` unless it is left out.
    fn rows(&self, logits: &FlexTensor, grad: Option<&mut [f32]>) -> Vec<f32> {
        let d = dims(logits);
        let (x, v) = (numbers(logits), d[2]);
        let size = d[1] * v;
        if size == 0 {
            return (0..d[0]).map(|i| self.finite(if self.fits(i) { 0.0 } else { f64::INFINITY })).collect();
        }
        let loss = |scratch: &mut Scratch, i: usize, grad: Option<&mut [f32]>| {
            let logits = &x[i * size..i * size + self.input_lengths[i] * v];
            let one = Row { logits, vocabulary: v, targets: &self.targets[i], blank: self.blank };
            self.finite(row(&one, self.weight(i), grad, scratch))
        };
        match grad {
            Some(grad) => grad
                .par_chunks_mut(size)
                .enumerate()
                .map_init(Scratch::default, |scratch, (i, grad)| loss(scratch, i, Some(grad)))
                .collect(),
            None => (0..d[0]).into_par_iter().map_init(Scratch::default, |scratch, i| loss(scratch, i, None)).collect(),
        }
    }

    fn finite(&self, loss: f64) -> f32 {
        if self.zero_infinity && loss == f64::INFINITY { 0.0 } else { loss as f32 }
    }

    /// Weighted sum in f64 and in order. A row of weight 0 does not count, whatever its loss.
    fn total(&self, losses: &[f32]) -> f32 {
        let weighted = |(i, x): (usize, &f32)| match self.weight(i) {
            0.0 => 0.0,
            w => f64::from(*x) * f64::from(w),
        };
        losses.iter().enumerate().map(weighted).sum::<f64>() as f32
    }
}

impl Kernel<1> for Ctc {
    type Saved = FlexTensor;

    fn forward(&self, [logits]: [FlexTensor; 1]) -> (FlexTensor, FlexTensor) {
        let mut grad = vec![0.0; numbers(&logits).len()];
        let losses = self.rows(&logits, Some(&mut grad));
        (tensor(&[1], vec![self.total(&losses)]), tensor(&dims(&logits), grad))
    }

    fn backward(&self, saved: FlexTensor, grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let upstream = numbers(&grad)[0];
        let mut out = crate::adamw::owned(saved);
        if upstream != 1.0 {
            out.storage_mut::<f32>().par_chunks_mut(1 << 14).for_each(|x| x.iter_mut().for_each(|x| *x *= upstream));
        }
        [Some(out)]
    }
}

/// Weighted sum of the losses of `logits` `[B, T, V]`: `[1]`.
///
/// # Panics
/// When counts differ, a row is longer than T or a label is the blank or not below V; batches are checked before.
pub fn ctc(logits: Tensor<3>, how: &Ctc) -> Tensor<1> {
    how.check(logits.dims());
    match cpu_tensor(logits.clone()) {
        Some(CpuTensor::Plain(x)) => {
            let losses = how.rows(&contiguous(x), None);
            Tensor::from_data([how.total(&losses)], &logits.device())
        }
        x => apply(how.clone(), [x]).unwrap_or_else(|| ctc_plain(logits, how)),
    }
}

/// The loss of every row of `logits` `[B, T, V]`, without weights. No gradient.
///
/// # Panics
/// As `ctc`.
pub fn ctc_rows(logits: Tensor<3>, how: &Ctc) -> Vec<f32> {
    how.check(logits.dims());
    match cpu_tensor(logits.clone()) {
        Some(CpuTensor::Plain(x)) => how.rows(&contiguous(x), None),
        _ => {
            let (losses, picked) = plain_rows(logits, how);
            let mut all = vec![how.finite(f64::INFINITY); how.targets.len()];
            (0..all.len()).filter(|i| how.fits(*i)).for_each(|i| all[i] = 0.0);
            let losses = losses.map(crate::gradcheck::values).unwrap_or_default();
            picked.iter().zip(losses).for_each(|(i, loss)| all[*i] = loss);
            all
        }
    }
}

/// Losses of the rows that have frames and an alignment, and which rows those are.
fn plain_rows(logits: Tensor<3>, how: &Ctc) -> (Option<Tensor<1>>, Vec<usize>) {
    let device = logits.device();
    let picked: Vec<usize> = (0..how.targets.len()).filter(|i| how.fits(*i) && how.input_lengths[*i] > 0).collect();
    if picked.is_empty() {
        return (None, picked);
    }
    let n = picked.len();
    let longest = picked.iter().map(|i| how.targets[*i].len()).max().unwrap_or(0).max(1);
    // Any label but the blank fills up; lengths say what counts.
    let other = i32::from(how.blank == 0);
    let targets = picked.iter().flat_map(|i| {
        let y = &how.targets[*i];
        y.iter().copied().chain(std::iter::repeat_n(other, longest - y.len()))
    });
    let ints = |x: Vec<i32>| Tensor::<1, Int>::from_data(TensorData::new(x, [n]), &device);
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets.collect::<Vec<i32>>(), [n, longest]), &device);
    let lengths = ints(picked.iter().map(|i| how.input_lengths[*i] as i32).collect());
    let labels = ints(picked.iter().map(|i| how.targets[*i].len() as i32).collect());
    let rows = ints(picked.iter().map(|i| *i as i32).collect());
    let log_p = activation::log_softmax(logits.select(0, rows), 2).swap_dims(0, 1);
    (Some(module::ctc_loss(log_p, targets, lengths, labels, how.blank)), picked)
}

/// The plain composition of `ctc`.
pub fn ctc_plain(logits: Tensor<3>, how: &Ctc) -> Tensor<1> {
    let device = logits.device();
    // Rows that have no alignment enter as a constant.
    let missing: f32 = (0..how.targets.len())
        .filter(|i| !how.fits(*i) && how.weight(*i) != 0.0)
        .map(|_| how.finite(f64::INFINITY))
        .sum();
    let (losses, picked) = plain_rows(logits.clone(), how);
    let sum = match losses {
        Some(losses) => {
            let weights: Vec<f32> = picked.iter().map(|i| how.weight(*i)).collect();
            (losses * Tensor::<1>::from_data(TensorData::new(weights, [picked.len()]), &device)).sum()
        }
        None => logits.sum() * 0.0,
    };
    sum + missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, distance, on_threads, random, values};

    fn how(targets: &[&[i32]], lengths: &[usize]) -> Ctc {
        Ctc {
            targets: targets.iter().map(|y| y.to_vec()).collect(),
            input_lengths: lengths.into(),
            blank: 0,
            zero_infinity: false,
            weights: None,
        }
    }

    #[test]
    fn equal_neighbours_need_a_frame_more() {
        let needed = |text: &str| frames_needed(&text.chars().collect::<Vec<_>>());
        assert_eq!(["", "abc", "aab", "aaaa"].map(needed), [0, 3, 4, 7]);
    }

    /// Logits of the given probabilities, one row.
    fn logits(p: &[f64], v: usize) -> Tensor<3> {
        let x: Vec<f32> = p.iter().map(|p| p.ln() as f32).collect();
        Tensor::from_data(TensorData::new(x, [1, p.len() / v, v]), &crate::device::cpu())
    }

    fn gradient(x: &Tensor<3>, f: impl Fn(Tensor<3>) -> Tensor<1>) -> Vec<f32> {
        let x = Tensor::<3>::from_data(x.to_data(), &crate::device::cpu().autodiff()).require_grad();
        values(x.grad(&f(x.clone()).backward()).expect("a gradient"))
    }

    fn close(x: &[f32], y: &[f64], within: f64) {
        assert_eq!(x.len(), y.len());
        for (x, y) in x.iter().zip(y) {
            assert!((f64::from(*x) - y).abs() < within, "{x} is not {y}");
        }
    }

    /// Losses by going through all paths, keyed by labels.
    fn enumerate(p: &[f64], v: usize) -> std::collections::BTreeMap<Vec<i32>, f64> {
        let t = p.len() / v;
        let mut all = std::collections::BTreeMap::new();
        for mut path in 0..v.pow(t as u32) {
            let (mut labels, mut last, mut chance) = (vec![], 0, 1.0);
            for frame in p.chunks(v) {
                let k = path % v;
                path /= v;
                chance *= frame[k];
                if k != 0 && k != last {
                    labels.push(k as i32);
                }
                last = k;
            }
            *all.entry(labels).or_insert(0.0) += chance;
        }
        all
    }

    /// Loss and gradient in f64 and in the log domain, as the definition says it.
    fn loop_f64(x: &[f32], v: usize, y: &[i32]) -> (f64, Vec<f64>) {
        let (t, s, none) = (x.len() / v, 2 * y.len() + 1, f64::NEG_INFINITY);
        let lse = |a: &[f64]| {
            let top = a.iter().copied().fold(none, f64::max);
            if top == none { none } else { top + a.iter().map(|x| (x - top).exp()).sum::<f64>().ln() }
        };
        let z = |i: usize| if i.is_multiple_of(2) { 0 } else { y[i / 2] as usize };
        let skips = |i: usize| i % 2 == 1 && i > 1 && z(i) != z(i - 2);
        let mut p: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        for frame in p.chunks_mut(v) {
            let total = lse(frame);
            frame.iter_mut().for_each(|x| *x -= total);
        }
        let (mut a, mut b) = (vec![none; t * s], vec![none; t * s]);
        for f in 0..t {
            for i in 0..s {
                let old = |j: usize| a[(f - 1) * s + j];
                a[f * s + i] = p[f * v + z(i)]
                    + match (f, i) {
                        (0, 0 | 1) => 0.0,
                        (0, _) => none,
                        (_, 0) => old(0),
                        _ => lse(&[old(i), old(i - 1), if skips(i) { old(i - 2) } else { none }]),
                    };
            }
        }
        for f in (0..t).rev() {
            for i in 0..s {
                let next = |j: usize| if j < s { b[(f + 1) * s + j] + p[(f + 1) * v + z(j)] } else { none };
                b[f * s + i] = if f + 1 < t {
                    lse(&[next(i), next(i + 1), if i + 2 < s && skips(i + 2) { next(i + 2) } else { none }])
                } else if i + 2 >= s {
                    0.0
                } else {
                    none
                };
            }
        }
        let total = lse(&a[t * s - s.min(2)..]);
        let mut g: Vec<f64> = p.iter().map(|x| x.exp()).collect();
        for f in 0..t {
            for i in 0..s {
                g[f * v + z(i)] -= (a[f * s + i] + b[f * s + i] - total).exp();
            }
        }
        (-total, g)
    }

    const P4: [f64; 12] = [0.5, 0.3, 0.2, 0.2, 0.5, 0.3, 0.4, 0.1, 0.5, 0.25, 0.25, 0.5];

    #[test]
    fn known_values() {
        let loss = |p: &[f64], v, y: &[i32]| values(ctc(logits(p, v), &how(&[y], &[p.len() / v])))[0];
        for (p, v, y, expected) in [
            (&[0.6, 0.4, 0.6, 0.4][..], 2, &[1][..], 0.446_287),
            (&[0.6, 0.4, 0.6, 0.4], 2, &[], 1.021_651),
            (&[0.6, 0.4, 0.6, 0.4, 0.6, 0.4], 2, &[1], 0.373_966),
            (&[0.6, 0.4, 0.6, 0.4, 0.6, 0.4], 2, &[1, 1], 2.343_407),
            (&P4, 3, &[], 4.605_170),
            (&P4, 3, &[1], 2.513_306),
            (&P4, 3, &[1, 2], 1.101_868),
            (&P4, 3, &[2, 2], 2.733_368),
            (&P4, 3, &[1, 1], 3.015_935),
            (&P4, 3, &[1, 2, 1], 2.497_991),
            (&P4, 3, &[2, 1, 2], 2.590_267),
            (&[0.2; 20], 5, &[1, 2], 3.729_701),
            (&[0.2; 25], 5, &[1, 1], 5.339_139),
            (&[0.2; 30], 5, &[1, 2, 3], 5.225_811),
        ] {
            close(&[loss(p, v, y)], &[expected], 1e-6);
        }
        let grad = gradient(&logits(&P4, 3), |x| ctc(x, &how(&[&[1, 2]], &[4])));
        let expected = [
            0.014_673, -0.214_673, 0.2, 0.081_114, -0.252_445, 0.171_332, //
            0.096_012, 0.024_755, -0.120_767, 0.015_989, 0.25, -0.265_989,
        ];
        close(&grad, &expected, 1e-6);
    }

    #[test]
    fn agrees_with_all_paths() {
        for (t, v) in [(1, 2), (2, 3), (3, 3), (4, 4), (6, 3)] {
            let x = values(random([1, t, v], t as u64));
            let mut p: Vec<f64> = x.iter().map(|x| f64::from(*x).exp()).collect();
            p.chunks_mut(v).for_each(|p| {
                let sum: f64 = p.iter().sum();
                p.iter_mut().for_each(|p| *p /= sum);
            });
            let all = enumerate(&p, v);
            assert!((all.values().sum::<f64>() - 1.0).abs() < 1e-12);
            for (y, chance) in all {
                close(&ctc_rows(logits(&p, v), &how(&[&y], &[t])), &[-chance.ln()], 2e-6);
            }
        }
    }

    #[test]
    fn agrees_with_plain_composition() {
        let targets: [&[i32]; 5] = [&[1, 2, 2, 3], &[], &[4], &[3, 3], &[2, 1, 2]];
        for (v, lengths) in [(5, [9, 9, 9, 9, 9]), (5, [6, 3, 1, 4, 8]), (37, [9, 0, 4, 3, 5])] {
            for blank in [0, v - 1] {
                let mut how = how(&targets, &lengths);
                how.blank = blank;
                if blank > 0 {
                    how.targets = targets.iter().map(|y| y.iter().map(|y| y - 1).collect()).collect();
                }
                for weights in [None, Some([1.0, 0.5, 0.0, 2.0, -1.0][..].into())] {
                    let how = Ctc { weights, ..how.clone() };
                    agrees(
                        (random([5, 9, v], 1) * 3.0, random([1], 2), random([1], 3)),
                        |(x, _, _)| ctc(x, &how) * 0.7,
                        |(x, _, _)| ctc_plain(x, &how) * 0.7,
                    );
                }
            }
        }
        let how = how(&[&[1, 2]], &[7]);
        // Not row-major, and one row.
        agrees(
            (random([6, 7, 1], 1), random([1], 2), random([1], 3)),
            |(x, _, _)| ctc(x.swap_dims(0, 2), &how),
            |(x, _, _)| ctc_plain(x.swap_dims(0, 2), &how),
        );
    }

    #[test]
    fn long_rows_agree_with_a_loop_in_f64() {
        for (t, v, u, spread) in [(2000, 32, 300, 1.0), (2000, 32, 200, 20.0), (1100, 20, 1000, 1.0)] {
            let y: Vec<i32> = (0..u).map(|i| 1 + ((i * 7 + i / 5) % (v - 1)) as i32).collect();
            let x = random([1, t, v], 5) * spread;
            let how = how(&[&y], &[t]);
            let (loss, grad) = loop_f64(&values(x.clone()), v, &y);
            let ours = f64::from(ctc_rows(x.clone(), &how)[0]);
            assert!((ours - loss).abs() < 1e-6 * loss, "{ours} is not {loss}");
            let grad: Vec<f32> = grad.iter().map(|x| *x as f32).collect();
            let apart = distance(&gradient(&x, |x| ctc(x, &how)), &grad);
            assert!(apart < 1e-5, "gradients differ by {apart:e}");
        }
    }

    #[test]
    fn agrees_with_finite_differences() {
        let how = how(&[&[2, 2, 1], &[1]], &[6, 4]);
        let x = random([2, 6, 4], 1);
        let grad = gradient(&x, |x| ctc(x, &how));
        let base = values(x);
        let loss = |i: usize, by: f32| {
            let mut x = base.clone();
            x[i] += by;
            let x = Tensor::<3>::from_data(TensorData::new(x, [2, 6, 4]), &crate::device::cpu());
            f64::from(values(ctc(x, &how))[0])
        };
        for (i, grad) in grad.iter().enumerate() {
            let slope = (loss(i, 1e-2) - loss(i, -1e-2)) / 2e-2;
            assert!((slope - f64::from(*grad)).abs() < 5e-4, "element {i}: {slope} is not {grad}");
        }
    }

    #[test]
    fn too_short_rows_are_infinite_or_nothing_and_counted() {
        let mut how = how(&[&[1, 2], &[1, 1], &[1], &[1]], &[1, 2, 2, 0]);
        assert_eq!(how.num_too_short(), 3);
        let x = random([4, 3, 3], 1);
        let rows = ctc_rows(x.clone(), &how);
        assert_eq!([rows[0], rows[1], rows[3]], [f32::INFINITY; 3]);
        assert_eq!(values(ctc(x.clone(), &how))[0], f32::INFINITY);
        assert_eq!(values(ctc_plain(x.clone(), &how))[0], f32::INFINITY);
        how.zero_infinity = true;
        assert_eq!(values(ctc(x.clone(), &how))[0], rows[2]);
        let grad = gradient(&x, |x| ctc(x, &how));
        assert!(grad[..18].iter().chain(&grad[24..]).all(|g| *g == 0.0));
        assert!(grad[18..24].iter().all(|g| *g != 0.0));
        how.zero_infinity = false;
        how.weights = Some([0.0, 0.0, 1.0, 0.0][..].into());
        assert_eq!(values(ctc(x.clone(), &how))[0], rows[2]);
        assert!(distance(&values(ctc_plain(x, &how)), &rows[2..3]) < 1e-6);
    }

    #[test]
    fn empty_batches_and_rows_without_frames() {
        let none = how(&[], &[]);
        assert_eq!(values(ctc(Tensor::zeros([0, 3, 4], &crate::device::cpu()), &none)), [0.0]);
        let empty = how(&[&[], &[1]], &[0, 0]);
        assert_eq!(ctc_rows(Tensor::zeros([2, 0, 4], &crate::device::cpu()), &empty), [0.0, f32::INFINITY]);
    }

    #[test]
    fn extreme_logits() {
        let x = |x: [[f32; 3]; 2]| Tensor::<3>::from_data([x], &crate::device::cpu());
        let how = how(&[&[1]], &[2]);
        let big = x([[1e30, -1e30, 0.0], [0.0, 1e30, -1e30]]);
        let grad = gradient(&big, |x| ctc(x, &how));
        assert!(values(ctc(big, &how))[0].abs() < 1e-6 && grad.iter().all(|g| g.abs() < 1e-6));
        let never = x([[0.0, f32::NEG_INFINITY, 0.0], [0.0, f32::NEG_INFINITY, 0.0]]);
        assert_eq!(ctc_rows(never.clone(), &how), [f32::INFINITY]);
        assert!(gradient(&never, |x| ctc(x, &how)).iter().all(|g| *g == 0.0));
        let unlikely = x([[0.0, -1e30, 0.0], [0.0, -1e30, 0.0]]);
        assert!(ctc_rows(unlikely.clone(), &how)[0] > 1e6);
        assert!(gradient(&unlikely, |x| ctc(x, &how)).iter().all(|g| g.is_finite()));
        assert!(ctc_rows(x([[f32::NAN, 0.0, 0.0], [0.0; 3]]), &how)[0].is_nan());
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let y: Vec<i32> = (0..40).map(|i| 1 + i % 6).collect();
        let how = how(&[&y, &y[..7], &[]], &[150, 111, 90]);
        let x = random([3, 150, 7], 1);
        let run = |threads| on_threads(threads, || (ctc_rows(x.clone(), &how), gradient(&x, |x| ctc(x, &how))));
        assert_eq!(run(1), run(2));
    }
}
