//! Output projection and softmax cross-entropy in one, over chunks of rows, so that logits never exist whole.
//!
//! # What it computes
//! Per row with logits `x = (W h + b) / temperature`, probabilities p of the right classes and weight w:
//! `w ((1-s) sum p_j (lse - x_j) + s (lse - mean(x)) + z lse^2)` where `lse = log sum exp(x)`; a class index stands for
//! p = 1 there. Rows without a target count nothing. The result is the sum over rows, never a mean.
//!
//! The gradient of a chunk takes the place of its logits in the forward pass, and the products with it are made at once;
//! the backward pass only scales them. So there are three products in all and nothing of size `[N, V]`.
//!
//! # Reference
//! Szegedy et al. 2016 (label smoothing); Chowdhery et al. 2022 (z-loss); Hinton et al. 2015 (soft targets);
//! Hsu et al. 2024 (the chunks)
// N rows, C channels, V vocabulary, K classes named per row

use std::ops::Range;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, activation};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::Precision;
use crate::cpu::gemm::{How, View, buffer, matmul};
use crate::cpu::math;
use crate::cpu::simd::simd;
use crate::cpu::sums::{add_in_order, column_sums};
use crate::gradcheck::values;
use crate::linear::{Layout, linear, linear_plain};
use crate::tape::{CpuTensor, Kernel, apply, contiguous, cpu_tensor, dims, numbers, tensor};

/// What the rows should have been.
#[derive(Debug, Clone)]
pub enum Targets {
    /// Index of the right class per row; negative: not counted. `[N]`
    Classes(Arc<[i32]>),
    /// The classes that a teacher finds probable and how probable, equally many for every row; negative: unused, and a
    /// row that uses none is not counted. Mass that is left out counts nothing.
    Soft {
        /// Indices, in any order. `[N, K]`
        classes: Arc<[i32]>,
        /// Probabilities. `[N, K]`
        probabilities: Arc<[f32]>,
    },
}

/// Targets and options of a cross-entropy.
#[derive(Debug, Clone)]
pub struct CrossEntropy {
    /// The right classes.
    pub targets: Targets,
    /// Weight per row; left out: 1. `[N]`
    pub weights: Option<Arc<[f32]>>,
    /// Weight of `lse^2`.
    pub z_loss: f32,
    /// Probability mass that is spread evenly.
    pub label_smoothing: f32,
    /// Divides the logits.
    pub temperature: f32,
}

/// How well one row was predicted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Negative log-likelihood of the target in nats; 0 without a target.
    pub loss: f32,
    /// The first of the most probable classes; none when a logit is no number.
    pub best: Option<u32>,
}

/// About how many logits of a chunk exist at once: 8 MiB.
const CHUNK: usize = 1 << 21;
/// Fewest rows of a chunk. Whatever the rows, the products of a chunk read all weights and add to all their gradients; that
/// traffic is about a tenth of the time with 512 rows, and twice that with 256.
const MIN_ROWS: usize = 512;

/// Rows whose logits exist at once, of `n` rows over a vocabulary of `v`; chunks are about equally long.
pub fn chunk_rows(n: usize, v: usize) -> usize {
    let most = (CHUNK / v.max(1)).max(MIN_ROWS);
    n.div_ceil((n / most).max(1)).max(1)
}

simd! {
    fn add(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

simd! {
    fn scale(x: &mut [f32], factor: f32, minus: f32) {
        for x in x.iter_mut() {
            *x = *x * factor - minus;
        }
    }
}

simd! {
    fn max(x: &[f32]) -> f32 {
        math::max(x)
    }
}

simd! {
    fn sum(x: &[f32]) -> f32 {
        math::sum(x)
    }
}

simd! {
    /// `exp(x - top)` in place, and the sum of it.
    fn exponentials(x: &mut [f32], top: f32) -> f32 {
        let mut lanes = [0f32; math::LANES];
        let mut chunks = x.chunks_exact_mut(math::LANES);
        for chunk in &mut chunks {
            for i in 0..math::LANES {
                chunk[i] = math::exp(chunk[i] - top);
                lanes[i] += chunk[i];
            }
        }
        let mut rest = 0.0;
        for x in chunks.into_remainder() {
            *x = math::exp(*x - top);
            rest += *x;
        }
        math::sum(&lanes) + rest
    }
}

impl Targets {
    /// Classes and probabilities of a row; a class index has none and counts 1.
    fn row(&self, i: usize, n: usize) -> (&[i32], Option<&[f32]>) {
        match self {
            Self::Classes(classes) => (&classes[i..=i], None),
            Self::Soft { classes, probabilities } => {
                let k = classes.len() / n.max(1);
                (&classes[i * k..][..k], Some(&probabilities[i * k..][..k]))
            }
        }
    }

    fn all(&self) -> &[i32] {
        match self {
            Self::Classes(classes) | Self::Soft { classes, .. } => classes,
        }
    }

    fn fit(&self, n: usize, v: usize) -> bool {
        let shape = match self {
            Self::Classes(classes) => classes.len() == n,
            Self::Soft { classes, probabilities } => {
                classes.len() == probabilities.len() && classes.len().is_multiple_of(n.max(1))
            }
        };
        shape && self.all().iter().all(|class| i64::from(*class) < v as i64)
    }
}

/// Probability of the class at `j` of a row; 0 for one that is not used.
fn probability(classes: &[i32], probabilities: Option<&[f32]>, j: usize) -> f32 {
    if classes[j] < 0 { 0.0 } else { probabilities.map_or(1.0, |p| p[j]) }
}

impl CrossEntropy {
    /// Class indices, where negative ones are not counted, without any option. `[N]`
    pub fn new(classes: Arc<[i32]>) -> Self {
        Self { targets: Targets::Classes(classes), weights: None, z_loss: 0.0, label_smoothing: 0.0, temperature: 1.0 }
    }

    fn weight(&self, i: usize, n: usize) -> f32 {
        let counts = self.targets.row(i, n).0.iter().any(|class| *class >= 0);
        if counts { self.weights.as_ref().map_or(1.0, |w| w[i]) } else { 0.0 }
    }

    /// The loss of row `i` of `n` from its logits without bias; the gradient takes their place.
    fn row(&self, i: usize, n: usize, x: &mut [f32], bias: Option<&[f32]>) -> f32 {
        let w = self.weight(i, n);
        if w == 0.0 {
            x.fill(0.0);
            return 0.0;
        }
        if let Some(bias) = bias {
            add(x, bias);
        }
        let t = self.temperature;
        if t != 1.0 {
            scale(x, 1.0 / t, 0.0);
        }
        let (s, v) = (self.label_smoothing, x.len() as f32);
        let top = max(x);
        let (classes, probabilities) = self.targets.row(i, n);
        // Distances from the top keep the digits that large logits would swallow.
        let (mut mass, mut below) = (0.0, 0.0);
        for (j, class) in classes.iter().enumerate().filter(|(_, class)| **class >= 0) {
            let p = probability(classes, probabilities, j);
            mass += p;
            below += p * (top - x[*class as usize]);
        }
        let below_mean = if s > 0.0 { top - sum(x) / v } else { 0.0 };
        let total = exponentials(x, top);
        let log_total = total.ln();
        let lse = top + log_total;
        let loss = (1.0 - s) * (below + mass * log_total) + s * (below_mean + log_total) + self.z_loss * lse * lse;
        let pull = (1.0 - s) * mass + s + 2.0 * self.z_loss * lse;
        scale(x, w * pull / (total * t), w * s / (v * t));
        for (j, class) in classes.iter().enumerate().filter(|(_, class)| **class >= 0) {
            x[*class as usize] -= w * (1.0 - s) * probability(classes, probabilities, j) / t;
        }
        w * loss
    }
}

/// Negative log-likelihood of a class (none when negative) and best class of a row from its logits without bias.
fn score(x: &mut [f32], bias: Option<&[f32]>, class: i32) -> Score {
    if let Some(bias) = bias {
        add(x, bias);
    }
    let top = max(x);
    let best = x.iter().position(|x| *x == top).map(|best| best as u32);
    let below = if class < 0 { 0.0 } else { top - x[class as usize] };
    let log_total = exponentials(x, top).ln();
    let loss = if class < 0 { 0.0 } else { below + log_total };
    Score { loss, best: best.filter(|_| !log_total.is_nan()) }
}

/// Makes the logits `hidden weight^T` chunk after chunk and hands them out with the rows that they belong to.
fn chunks(
    hidden: &FlexTensor,
    weight: &FlexTensor,
    precision: Precision,
    mut each: impl FnMut(Range<usize>, &mut [f32]),
) {
    let [n, c, v] = [dims(hidden)[0], dims(hidden)[1], dims(weight)[0]];
    let rows = chunk_rows(n, v);
    let mut logits = buffer(rows * v);
    for start in (0..n).step_by(rows) {
        let len = rows.min(n - start);
        let logits = &mut logits[..len * v];
        let hidden = View::rows(&numbers(hidden)[start * c..], c);
        matmul([len, v, c], hidden, View::rows(numbers(weight), c).t(), logits, v, How::all(precision));
        each(start..start + len, logits);
    }
}

#[derive(Debug, Clone)]
struct LinearCrossEntropy {
    how: CrossEntropy,
    precision: Precision,
    /// Which of hidden states, weight and bias need a gradient.
    needs: [bool; 3],
}

/// Gradients of hidden states, weight and bias for an upstream gradient of 1.
type Gradients = [Option<FlexTensor>; 3];

impl LinearCrossEntropy {
    fn run(&self, hidden: &FlexTensor, weight: &FlexTensor, bias: Option<&FlexTensor>) -> (FlexTensor, Gradients) {
        let [n, c, v] = [dims(hidden)[0], dims(hidden)[1], dims(weight)[0]];
        let all = How::all(self.precision);
        let mut d_hidden = self.needs[0].then(|| buffer(n * c));
        let mut d_weight = self.needs[1].then(|| buffer(v * c));
        let mut d_bias = self.needs[2].then(Vec::new);
        let mut losses = Vec::with_capacity(n);
        chunks(hidden, weight, self.precision, |rows, logits| {
            let part: Vec<f32> = logits
                .par_chunks_mut(v.max(1))
                .enumerate()
                .map(|(i, x)| self.how.row(rows.start + i, n, x, bias.map(numbers)))
                .collect();
            losses.extend(part);
            let grad = View::rows(logits, v);
            if let Some(out) = &mut d_hidden {
                matmul([rows.len(), c, v], grad, View::rows(numbers(weight), c), &mut out[rows.start * c..], c, all);
            }
            if let Some(out) = &mut d_weight {
                let hidden = View::rows(&numbers(hidden)[rows.start * c..], c);
                let how = if rows.start == 0 { all } else { all.add() };
                matmul([v, c, rows.len()], grad.t(), hidden, out, c, how);
            }
            if let Some(parts) = &mut d_bias {
                parts.push(column_sums(logits, v));
            }
        });
        // In f64 and in order, so that no number of threads changes it.
        let total = losses.iter().map(|x| f64::from(*x)).sum::<f64>() as f32;
        let gradients = [
            d_hidden.map(|x| tensor(&[n, c], x)),
            d_weight.map(|x| tensor(&[v, c], x)),
            d_bias.map(|parts| tensor(&[v], add_in_order(parts, v))),
        ];
        (tensor(&[1], vec![total]), gradients)
    }
}

/// A gradient times the upstream gradient; in place, for nobody else holds it.
fn times(grad: Option<FlexTensor>, upstream: f32) -> Option<FlexTensor> {
    let mut grad = grad?;
    if upstream != 1.0 {
        grad.storage_mut::<f32>().par_chunks_mut(1 << 16).for_each(|x| scale(x, upstream, 0.0));
    }
    Some(grad)
}

impl Kernel<2> for LinearCrossEntropy {
    type Saved = Gradients;

    fn forward(&self, [hidden, weight]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        self.run(&hidden, &weight, None)
    }

    fn backward(&self, saved: Self::Saved, grad: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let [d_hidden, d_weight, _] = saved.map(|x| times(x, numbers(&grad)[0]));
        [d_hidden, d_weight]
    }
}

impl Kernel<3> for LinearCrossEntropy {
    type Saved = Gradients;

    fn forward(&self, [hidden, weight, bias]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        self.run(&hidden, &weight, Some(&bias))
    }

    fn backward(&self, saved: Self::Saved, grad: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        saved.map(|x| times(x, numbers(&grad)[0]))
    }
}

/// Sum of the losses of the logits `hidden` `[N, C]` times `weight` `[V, C]` plus an optional bias `[V]`: `[1]`.
///
/// # Panics
/// When the shapes do not fit or a target is not below V; batches are checked against the model before training.
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    how: &CrossEntropy,
) -> Tensor<1> {
    let ([n, c], [v, inputs]) = (hidden.dims(), weight.dims());
    assert_eq!(c, inputs, "linear_cross_entropy: {c} channels do not fit a weight of {inputs}");
    assert!(
        how.targets.fit(n, v) && how.weights.as_ref().is_none_or(|w| w.len() == n),
        "linear_cross_entropy: targets or weights do not fit {n} rows of {v}"
    );
    let inputs = [cpu_tensor(hidden.clone()), cpu_tensor(weight.clone()), bias.clone().and_then(cpu_tensor)];
    let needs = inputs.each_ref().map(|x| x.as_ref().is_some_and(CpuTensor::needs_gradient));
    let kernel = LinearCrossEntropy { how: how.clone(), precision: Precision::current(), needs };
    let [h, w, b] = inputs;
    let fused = if bias.is_some() { apply(kernel, [h, w, b]) } else { apply(kernel, [h, w]) };
    fused.unwrap_or_else(|| linear_cross_entropy_plain(hidden, weight, bias, how))
}

/// Negative log-likelihood and best class of every row, for targets as in [`Targets::Classes`]; no gradient.
///
/// # Panics
/// As [`linear_cross_entropy`].
pub fn linear_cross_entropy_rows(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    targets: &[i32],
) -> Vec<Score> {
    let ([n, _], [v, _]) = (hidden.dims(), weight.dims());
    assert!(
        targets.len() == n && targets.iter().all(|class| i64::from(*class) < v as i64),
        "linear_cross_entropy_rows: targets do not fit {n} rows of {v}"
    );
    let cpu = |x: CpuTensor| contiguous(x.into_plain());
    let scores = |rows: Range<usize>, logits: &mut [f32], bias: Option<&[f32]>| -> Vec<Score> {
        logits.par_chunks_mut(v.max(1)).zip(&targets[rows]).map(|(x, class)| score(x, bias, *class)).collect()
    };
    let mut all = Vec::with_capacity(n);
    match (cpu_tensor(hidden.clone()), cpu_tensor(weight.clone()), bias.clone().and_then(cpu_tensor)) {
        (Some(h), Some(w), b) if b.is_some() == bias.is_some() => {
            let b = b.map(cpu);
            let each = |rows, logits: &mut [f32]| all.extend(scores(rows, logits, b.as_ref().map(numbers)));
            chunks(&cpu(h), &cpu(w), Precision::current(), each);
        }
        _ => {
            let len = chunk_rows(n, v);
            for start in (0..n).step_by(len) {
                let rows = start..(start + len).min(n);
                let part = hidden.clone().narrow(0, start, rows.len());
                let mut logits = values(linear(part, weight.clone(), bias.clone(), Layout::OutIn));
                all.extend(scores(rows, &mut logits, None));
            }
        }
    }
    all
}

/// The plain composition of `linear_cross_entropy`.
pub fn linear_cross_entropy_plain(
    hidden: Tensor<2>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    how: &CrossEntropy,
) -> Tensor<1> {
    let n = hidden.dims()[0];
    let device = hidden.device();
    let logits = linear_plain(hidden, weight, bias, Layout::OutIn) / how.temperature;
    let log_p = activation::log_softmax(logits.clone(), 1);
    let lse = (logits - log_p.clone()).mean_dim(1);
    let k = how.targets.all().len() / n.max(1);
    let probabilities: Vec<f32> = (0..n)
        .flat_map(|i| {
            let (classes, p) = how.targets.row(i, n);
            (0..k).map(move |j| probability(classes, p, j))
        })
        .collect();
    let classes: Vec<i32> = how.targets.all().iter().map(|class| (*class).max(0)).collect();
    let weights: Vec<f32> = (0..n).map(|i| how.weight(i, n)).collect();
    let probabilities = Tensor::<2>::from_data(TensorData::new(probabilities, [n, k]), &device);
    let classes = Tensor::<2, Int>::from_data(TensorData::new(classes, [n, k]), &device);
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [n, 1]), &device);
    let s = how.label_smoothing;
    let right = (log_p.clone().gather(1, classes) * probabilities).sum_dim(1).neg() * (1.0 - s);
    let even = log_p.mean_dim(1).neg() * s;
    ((right + even + lse.powi_scalar(2) * how.z_loss) * weights).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, distance, on_threads, random};
    use burn::tensor::Device;

    fn classes(n: usize, v: usize) -> Arc<[i32]> {
        (0..n).map(|i| if i % 5 == 3 { -100 } else { ((i * 7 + 1) % v) as i32 }).collect()
    }

    fn soft(n: usize, k: usize, v: usize) -> Targets {
        // Distinct classes a row, one entry in five unused.
        let classes =
            (0..n * k).map(|i| if i % 5 == 4 { -1 } else { ((i / k * 3 + i % k * (v / k)) % v) as i32 }).collect();
        let probabilities = (0..n * k).map(|i| 0.9 / (k as f32) * (0.5 + (i % 3) as f32 * 0.5)).collect();
        Targets::Soft { classes, probabilities }
    }

    fn options(how: CrossEntropy) -> Vec<CrossEntropy> {
        let n = match &how.targets {
            Targets::Classes(c) => c.len(),
            Targets::Soft { classes, .. } => classes.len() / 3,
        };
        let weights: Arc<[f32]> = (0..n).map(|i| 0.25 + (i % 4) as f32 * 0.5).collect();
        vec![
            how.clone(),
            CrossEntropy { z_loss: 1e-2, ..how.clone() },
            CrossEntropy { label_smoothing: 0.1, temperature: 2.0, ..how.clone() },
            CrossEntropy { weights: Some(weights), z_loss: 1e-2, label_smoothing: 0.1, temperature: 0.5, ..how },
        ]
    }

    fn check(n: usize, c: usize, v: usize, how: &CrossEntropy) {
        agrees(
            (random([n, c], 1), random([v, c], 2), random([v], 3)),
            |(h, w, b)| linear_cross_entropy(h, w, Some(b), how) * 0.7,
            |(h, w, b)| linear_cross_entropy_plain(h, w, Some(b), how) * 0.7,
        );
        agrees(
            (random([n, c], 1), random([v, c], 2), random([1], 3)),
            |(h, w, b)| linear_cross_entropy(h, w, None, how) + b * 0.0,
            |(h, w, b)| linear_cross_entropy_plain(h, w, None, how) + b * 0.0,
        );
    }

    #[test]
    fn agrees_with_plain_composition_for_odd_sizes() {
        for (n, c, v) in [(1, 1, 2), (1, 5, 17), (4, 3, 300), (33, 9, 31)] {
            for how in options(CrossEntropy::new(classes(n, v))) {
                check(n, c, v, &how);
            }
        }
        for (n, c, v) in [(1, 4, 9), (7, 5, 33)] {
            for how in options(CrossEntropy { targets: soft(n, 3, v), ..CrossEntropy::new([].into()) }) {
                check(n, c, v, &how);
            }
        }
    }

    #[test]
    fn agrees_with_plain_composition_across_chunks() {
        let v = CHUNK / MIN_ROWS;
        for n in [MIN_ROWS - 1, MIN_ROWS, 2 * MIN_ROWS - 1, 2 * MIN_ROWS + 1] {
            let last = options(CrossEntropy::new(classes(n, v))).pop().expect("four");
            check(n, 2, v, &last);
        }
        assert_eq!(chunk_rows(2 * MIN_ROWS - 1, v), 2 * MIN_ROWS - 1, "no chunk has fewer rows than products need");
        assert_eq!(chunk_rows(2 * MIN_ROWS + 1, v), MIN_ROWS + 1);
        assert_eq!((chunk_rows(0, 0), chunk_rows(3, 1)), (1, 3));
    }

    #[test]
    fn no_rows_cost_nothing_and_one_class_is_certain() {
        let how = CrossEntropy::new([].into());
        let loss = linear_cross_entropy(random([0, 3], 1), random([5, 3], 2), None, &how);
        assert_eq!(values(loss), [0.0]);
        let device = Device::flex().autodiff();
        let w = Tensor::<2>::from_data(random([5, 3], 2).into_data(), &device).require_grad();
        let h = Tensor::<2>::from_data(random([0, 3], 1).into_data(), &device);
        let grads = linear_cross_entropy(h, w.clone(), None, &how).backward();
        assert_eq!(w.grad(&grads).map(values), Some(vec![0.0; 15]));
        assert!(linear_cross_entropy_rows(random([0, 3], 1), random([5, 3], 2), None, &[]).is_empty());
        let certain = CrossEntropy::new([0, 0].into());
        let loss = linear_cross_entropy(random([2, 3], 1), random([1, 3], 2), Some(random([1], 3)), &certain);
        assert_eq!(values(loss), [0.0]);
    }

    #[test]
    fn non_contiguous_input_is_read_correctly() {
        let how = CrossEntropy::new([3, 0, 1, 2].into());
        agrees(
            (random([3, 4], 1), random([3, 5], 2), random([5], 3)),
            |(h, w, b)| linear_cross_entropy(h.transpose(), w.transpose(), Some(b), &how),
            |(h, w, b)| linear_cross_entropy_plain(h.transpose(), w.transpose(), Some(b), &how),
        );
    }

    #[test]
    fn only_what_needs_a_gradient_gets_one() {
        let device = Device::flex().autodiff();
        let on = |x: Tensor<2>| Tensor::<2>::from_data(x.into_data(), &device);
        let how = CrossEntropy::new([1, 2].into());
        let (h, w) = (on(random([2, 3], 1)).require_grad(), on(random([5, 3], 2)));
        let grads = linear_cross_entropy(h.clone(), w.clone(), None, &how).backward();
        let alone = h.grad(&grads).map(values);
        assert!(alone.is_some() && w.grad(&grads).is_none());
        let w = w.require_grad();
        let grads = linear_cross_entropy(h.clone(), w.clone(), None, &how).backward();
        assert_eq!(h.grad(&grads).map(values), alone);
        assert!(w.grad(&grads).is_some());
    }

    /// The definition in f64.
    fn exact(h: &[f64], w: &[f64], c: usize, how: &CrossEntropy) -> f64 {
        let n = h.len() / c;
        let one = |i: usize| {
            let t = f64::from(how.temperature);
            let x: Vec<f64> =
                w.chunks(c).map(|w| w.iter().zip(&h[i * c..]).map(|(a, b)| a * b).sum::<f64>() / t).collect();
            let lse = x.iter().map(|x| x.exp()).sum::<f64>().ln();
            let (classes, p) = how.targets.row(i, n);
            let right: f64 = (0..classes.len())
                .map(|j| f64::from(probability(classes, p, j)) * (lse - x[classes[j].max(0) as usize]))
                .sum();
            let s = f64::from(how.label_smoothing);
            let even = lse - x.iter().sum::<f64>() / x.len() as f64;
            f64::from(how.weight(i, n)) * ((1.0 - s) * right + s * even + f64::from(how.z_loss) * lse * lse)
        };
        (0..n).map(one).sum()
    }

    #[test]
    fn gradients_agree_with_finite_differences_of_the_definition() {
        let (n, c, v) = (6, 4, 11);
        let device = Device::flex().autodiff();
        let wide = |x: Tensor<2>| -> Vec<f64> { values(x).into_iter().map(f64::from).collect() };
        let (h, w) = (wide(random([n, c], 1)), wide(random([v, c], 2)));
        let base = CrossEntropy::new(classes(n, v));
        for how in options(CrossEntropy { targets: soft(n, 3, v), ..base.clone() }).into_iter().chain(options(base)) {
            let slope = |x: &[f64], f: &dyn Fn(&[f64]) -> f64| -> Vec<f32> {
                (0..x.len())
                    .map(|i| {
                        let at = |by: f64| {
                            f(&x.iter().enumerate().map(|(j, x)| if i == j { x + by } else { *x }).collect::<Vec<_>>())
                        };
                        ((at(1e-5) - at(-1e-5)) / 2e-5) as f32
                    })
                    .collect()
            };
            let on = |shape, seed| Tensor::<2>::from_data(random(shape, seed).into_data(), &device).require_grad();
            let (th, tw) = (on([n, c], 1), on([v, c], 2));
            let loss = linear_cross_entropy(th.clone(), tw.clone(), None, &how);
            assert!((f64::from(values(loss.clone())[0]) - exact(&h, &w, c, &how)).abs() < 1e-4);
            let grads = loss.backward();
            let (dh, dw) = (th.grad(&grads).map(values), tw.grad(&grads).map(values));
            assert!(distance(&dh.unwrap_or_default(), &slope(&h, &|h| exact(h, &w, c, &how))) < 1e-5);
            assert!(distance(&dw.unwrap_or_default(), &slope(&w, &|w| exact(&h, w, c, &how))) < 1e-5);
        }
    }

    #[test]
    fn one_hot_soft_targets_are_classes() {
        let (h, w) = (random([3, 4], 1), random([9, 4], 2));
        let right: Arc<[i32]> = [2, -1, 7].into();
        let hard = CrossEntropy::new(right.clone());
        let probabilities = [1.0, 0.3, 1.0].into();
        let soft = CrossEntropy { targets: Targets::Soft { classes: right, probabilities }, ..hard.clone() };
        let loss = |how| values(linear_cross_entropy(h.clone(), w.clone(), None, how));
        assert_eq!(loss(&hard), loss(&soft));
    }

    #[test]
    fn rows_add_up_to_the_sum_and_name_the_best() {
        let (n, c, v) = (2 * MIN_ROWS + 1, 3, CHUNK / MIN_ROWS);
        let (h, w, b) = (random([n, c], 1), random([v, c], 2), random([v], 3));
        let how = CrossEntropy::new(classes(n, v));
        let targets = classes(n, v);
        let rows = linear_cross_entropy_rows(h.clone(), w.clone(), Some(b.clone()), &targets);
        let sum: f64 = rows.iter().map(|r| f64::from(r.loss)).sum();
        let whole = f64::from(values(linear_cross_entropy(h.clone(), w.clone(), Some(b.clone()), &how))[0]);
        assert!((sum / whole - 1.0).abs() < 1e-6);
        let logits = values(linear(h, w, Some(b), Layout::OutIn));
        for (i, row) in rows.iter().enumerate() {
            let x = &logits[i * v..][..v];
            let best = (0..v).fold(0, |best, j| if x[j] > x[best] { j } else { best });
            assert_eq!(row.best, Some(best as u32));
            assert_eq!(row.loss == 0.0, targets[i] < 0);
        }
    }

    #[test]
    fn the_best_is_the_first_of_the_highest_and_none_where_a_logit_is_no_number() {
        let best = |x: [f32; 3]| score(&mut x.clone(), None, 1).best;
        assert_eq!(best([1.0, 3.0, 3.0]), Some(1));
        assert_eq!(best([1.0, f32::NAN, 3.0]), None);
        assert_eq!(best([f32::NEG_INFINITY, -1.0, f32::NEG_INFINITY]), Some(1));
    }

    #[test]
    fn extreme_logits_keep_their_digits() {
        let device = Device::flex().autodiff();
        let on = |x: Vec<f32>, shape: [usize; 2]| Tensor::<2>::from_data(TensorData::new(x, shape), &device);
        // Logits 1e4, 1e4 + 1, -1e4.
        let h = on(vec![1.0], [1, 1]).require_grad();
        let w = on(vec![1e4, 1e4 + 1.0, -1e4], [3, 1]).require_grad();
        let loss = linear_cross_entropy(h.clone(), w.clone(), None, &CrossEntropy::new([0].into()));
        assert!((values(loss.clone())[0] - (1.0 + 1f32.exp()).ln()).abs() < 1e-6);
        let grads = loss.backward();
        let dw = w.grad(&grads).map(values).unwrap_or_default();
        let p = 1.0 / (1.0 + 1f32.exp());
        assert!((dw[0] - (p - 1.0)).abs() < 1e-6 && (dw[1] - (1.0 - p)).abs() < 1e-6 && dw[2] == 0.0);
        let far = on(vec![-1e30, 0.0, 1e30], [3, 1]);
        let loss = linear_cross_entropy(h, far, None, &CrossEntropy::new([0].into()));
        assert!(values(loss)[0].is_finite());
    }

    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let (n, c, v) = (600, 40, 9001);
        let how = options(CrossEntropy::new(classes(n, v))).pop().expect("four");
        let run = |threads: usize| {
            on_threads(threads, || {
                let device = Device::flex().autodiff();
                let on = |x: Tensor<2>| Tensor::<2>::from_data(x.into_data(), &device).require_grad();
                let b = Tensor::<1>::from_data(random([v], 3).into_data(), &device).require_grad();
                let (h, w) = (on(random([n, c], 1)), on(random([v, c], 2)));
                let loss = linear_cross_entropy(h.clone(), w.clone(), Some(b.clone()), &how);
                let grads = loss.clone().backward();
                [
                    values(loss),
                    h.grad(&grads).map(values).unwrap_or_default(),
                    w.grad(&grads).map(values).unwrap_or_default(),
                    b.grad(&grads).map(values).unwrap_or_default(),
                ]
            })
        };
        let bits = |x: [Vec<f32>; 4]| x.map(|x| x.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        let one = bits(run(1));
        assert!(one == bits(run(2)) && one == bits(run(3)));
    }
}
