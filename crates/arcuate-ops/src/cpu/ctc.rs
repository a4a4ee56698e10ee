//! Forward and backward sums over all alignments of one row, for the CTC loss.
//!
//! Probabilities are kept as `m 2^e` with both in f32: sums and products then need neither exponential nor logarithm,
//! nothing underflows, and the relative error of a sum stays that of f32 however long the row is.
//! The states blank, y_1, blank, .. y_U, blank are two arrays, blanks 0..=U and labels 0..U, each padded with states
//! that cannot be reached, so that every loop is whole vectors.
// T frames, V vocabulary, U labels, W padded states per array

use rayon::prelude::*;

use crate::cpu::math;
use crate::cpu::simd::simd;

/// Exponent of zero: far below every exponent that a product of probabilities reaches.
const NONE: f32 = -1e30;
/// 1.5 * 2^23: adding it rounds to an integer and leaves that integer in the low bits.
const ROUND: f32 = 12_582_912.0;
/// Log probabilities below this count as this; its exponent of 2 is still an exact integer.
const LOWEST: f32 = -2.7e6;
/// Frames of one parallel task.
const FRAMES: usize = 32;

/// One row: its logits and what they are aligned with.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    /// `[T, V]`
    pub logits: &'a [f32],
    pub vocabulary: usize,
    /// Labels, none of them the blank. `[U]`
    pub targets: &'a [i32],
    pub blank: usize,
}

/// Memory that rows use one after the other.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Largest logit and sum of exponentials per frame.
    frames: Vec<[f32; 2]>,
    /// Probability of the blank per frame.
    blanks: Vec<[f32; 2]>,
    /// Probabilities of the labels per frame: `m [W]`, `e [W]`.
    labels: Vec<f32>,
    alpha: Vec<f32>,
    beta: Vec<f32>,
}

/// Labels as the recursions need them.
struct Labels {
    /// W, a multiple of the vector width and more than U.
    width: usize,
    /// 1 where a label may follow the one before it without a blank between. `[W]`
    skip: Vec<f32>,
    /// 0 there and `NONE` elsewhere. `[W]`
    bar: Vec<f32>,
}

impl Labels {
    fn new(targets: &[i32]) -> Self {
        let width = (targets.len() + 1).next_multiple_of(math::LANES);
        let may = |i: usize| i > 0 && i < targets.len() && targets[i] != targets[i - 1];
        let skip: Vec<f32> = (0..width).map(|i| f32::from(u8::from(may(i)))).collect();
        let bar = skip.iter().map(|s| if *s > 0.0 { 0.0 } else { NONE }).collect();
        Self { width, skip, bar }
    }

    /// Numbers of one frame: `m` and `e` of blanks and labels, each with one unreachable state before and after.
    fn stride(&self) -> usize {
        4 * (self.width + 2)
    }
}

/// Frames that a row needs at least: one for each label, and one for a blank between equal neighbours.
pub fn frames_needed<T: PartialEq>(labels: &[T]) -> usize {
    labels.len() + labels.windows(2).filter(|pair| pair[0] == pair[1]).count()
}

/// 2^d for an integer d; below -126 it is 2^-126, which vanishes beside the 1 or more that it is added to.
#[inline(always)]
fn pow2(d: f32) -> f32 {
    let d = if d > -126.0 { d } else { -126.0 };
    f32::from_bits((d + (ROUND + 127.0)).to_bits() << 23)
}

/// The same number with m in [1, 2), or zero.
#[inline(always)]
fn normal(m: f32, e: f32) -> (f32, f32) {
    let bits = m.to_bits();
    let shift = (bits >> 23) as i32 as f32 - 127.0;
    let whole = f32::from_bits((bits & 0x007f_ffff) | 0x3f80_0000);
    if m > 0.0 { (whole, e + shift) } else { (0.0, NONE) }
}

#[inline(always)]
fn add((m, e): (f32, f32), (n, f): (f32, f32)) -> (f32, f32) {
    let top = if e > f { e } else { f };
    (m * pow2(e - top) + n * pow2(f - top), top)
}

#[inline(always)]
fn add3((m, e): (f32, f32), (n, f): (f32, f32), (o, g): (f32, f32)) -> (f32, f32) {
    let top = if e > f { e } else { f };
    let top = if g > top { g } else { top };
    (m * pow2(e - top) + n * pow2(f - top) + o * pow2(g - top), top)
}

/// `e^x` for a log probability.
#[inline(always)]
fn split(x: f32) -> (f32, f32) {
    let clamped = if x > LOWEST { x } else { LOWEST };
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    // The parts of ln 2 are short, so that their products with n are exact.
    let r = clamped - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let m = math::exp(r);
    if x > f32::NEG_INFINITY { (m, n) } else { (0.0, NONE) }
}

simd! {
    /// Maximum and sum of exponentials of each frame; the exponentials themselves go to `exps` unless it is empty.
    fn normalise(logits: &[f32], vocabulary: usize, frames: &mut [[f32; 2]], exps: &mut [f32]) {
        for (t, frame) in frames.iter_mut().enumerate() {
            let x = &logits[t * vocabulary..(t + 1) * vocabulary];
            let top = math::max(x);
            let mut lanes = [0f32; math::LANES];
            let mut rest = 0.0;
            let whole = vocabulary / math::LANES * math::LANES;
            if exps.is_empty() {
                for x in x[..whole].chunks_exact(math::LANES) {
                    for i in 0..math::LANES {
                        lanes[i] += math::exp(x[i] - top);
                    }
                }
                for x in &x[whole..] {
                    rest += math::exp(x - top);
                }
            } else {
                let out = &mut exps[t * vocabulary..(t + 1) * vocabulary];
                let (out, out_rest) = out.split_at_mut(whole);
                for (x, out) in x[..whole].chunks_exact(math::LANES).zip(out.chunks_exact_mut(math::LANES)) {
                    for i in 0..math::LANES {
                        out[i] = math::exp(x[i] - top);
                        lanes[i] += out[i];
                    }
                }
                for (x, out) in x[whole..].iter().zip(out_rest) {
                    *out = math::exp(x - top);
                    rest += *out;
                }
            }
            *frame = [top, math::sum(&lanes) + rest];
        }
    }
}

simd! {
    /// Probabilities of the blank and of the labels in each frame.
    fn emit(row: &Row, first: usize, width: usize, frames: &[[f32; 2]], blanks: &mut [[f32; 2]], labels: &mut [f32]) {
        for (t, ((frame, blank), out)) in frames.iter().zip(blanks).zip(labels.chunks_exact_mut(2 * width)).enumerate() {
            let x = &row.logits[(first + t) * row.vocabulary..(first + t + 1) * row.vocabulary];
            let [top, sum] = *frame;
            let ln = sum.ln();
            let (m, e) = split(x[row.blank] - top - ln);
            *blank = [m, e];
            let (ms, es) = out.split_at_mut(width);
            for (m, y) in ms.iter_mut().zip(row.targets) {
                *m = x[*y as usize];
            }
            ms[row.targets.len()..].fill(f32::NEG_INFINITY);
            for (m, e) in ms.iter_mut().zip(es) {
                (*m, *e) = split(*m - top - ln);
            }
        }
    }
}

/// The four arrays of one frame, each of W + 2 states.
#[inline(always)]
fn parts(frame: &[f32], width: usize) -> [&[f32]; 4] {
    let (a, b) = frame.split_at(2 * (width + 2));
    let ((bm, be), (lm, le)) = (a.split_at(width + 2), b.split_at(width + 2));
    [bm, be, lm, &le[..width + 2]]
}

#[inline(always)]
fn parts_mut(frame: &mut [f32], width: usize) -> [&mut [f32]; 4] {
    let (a, b) = frame.split_at_mut(2 * (width + 2));
    let ((bm, be), (lm, le)) = (a.split_at_mut(width + 2), b.split_at_mut(width + 2));
    [bm, be, lm, &mut le[..width + 2]]
}

/// A frame in which nothing can be reached.
#[inline(always)]
fn nothing(frame: &mut [f32], width: usize) {
    let [bm, be, lm, le] = parts_mut(frame, width);
    bm.fill(0.0);
    lm.fill(0.0);
    be.fill(NONE);
    le.fill(NONE);
}

simd! {
    /// Sums over all beginnings of alignments, the emission of the frame included.
    fn forward(labels: &Labels, count: usize, blanks: &[[f32; 2]], emitted: &[f32], alpha: &mut [f32]) {
        let (w, stride) = (labels.width, labels.stride());
        let (skip, bar) = (&labels.skip[..w], &labels.bar[..w]);
        for (t, blank) in blanks.iter().enumerate() {
            let (before, here) = alpha.split_at_mut(t * stride);
            let here = &mut here[..stride];
            let (pm, pe) = emitted[t * 2 * w..(t + 1) * 2 * w].split_at(w);
            let pe = &pe[..w];
            nothing(here, w);
            let [bm, be, lm, le] = parts_mut(here, w);
            if t == 0 {
                (bm[1], be[1]) = normal(blank[0], blank[1]);
                if count > 0 {
                    (lm[1], le[1]) = normal(pm[0], pe[0]);
                }
                continue;
            }
            let [om, oe, nm, ne] = parts(&before[(t - 1) * stride..], w);
            let (bm, be, lm, le) = (&mut bm[1..w + 1], &mut be[1..w + 1], &mut lm[1..w + 1], &mut le[1..w + 1]);
            let (om, oe) = (&om[1..w + 1], &oe[1..w + 1]);
            let (last_m, last_e) = (&nm[..w], &ne[..w]);
            let (nm, ne) = (&nm[1..w + 1], &ne[1..w + 1]);
            for i in 0..w {
                let old = (om[i], oe[i]);
                let last = (last_m[i], last_e[i]);
                let (m, e) = add(old, last);
                (bm[i], be[i]) = normal(m * blank[0], e + blank[1]);
                let (m, e) = add3((nm[i], ne[i]), old, (last.0 * skip[i], last.1 + bar[i]));
                (lm[i], le[i]) = normal(m * pm[i], e + pe[i]);
            }
        }
    }
}

simd! {
    /// Sums over all ends of alignments, the emission of the frame left out.
    fn backward(labels: &Labels, count: usize, blanks: &[[f32; 2]], emitted: &[f32], beta: &mut [f32]) {
        let (w, stride) = (labels.width, labels.stride());
        // What comes next, with its emission; one more state than W on the far side.
        let mut next = vec![0f32; stride];
        nothing(&mut next, w);
        let mut skip = vec![0f32; w];
        let mut bar = vec![NONE; w];
        skip[..w - 1].copy_from_slice(&labels.skip[1..w]);
        bar[..w - 1].copy_from_slice(&labels.bar[1..w]);
        let (skip, bar) = (&skip[..w], &bar[..w]);
        for t in (0..blanks.len()).rev() {
            let here = &mut beta[t * stride..(t + 1) * stride];
            nothing(here, w);
            let [bm, be, lm, le] = parts_mut(here, w);
            let (bm, be, lm, le) = (&mut bm[1..w + 1], &mut be[1..w + 1], &mut lm[1..w + 1], &mut le[1..w + 1]);
            if t + 1 == blanks.len() {
                (bm[count], be[count]) = (1.0, 0.0);
                if count > 0 {
                    (lm[count - 1], le[count - 1]) = (1.0, 0.0);
                }
            } else {
                let [om, oe, nm, ne] = parts(&next, w);
                let (after_m, after_e) = (&om[2..w + 2], &oe[2..w + 2]);
                let (later_m, later_e) = (&nm[2..w + 2], &ne[2..w + 2]);
                let (om, oe, nm, ne) = (&om[1..w + 1], &oe[1..w + 1], &nm[1..w + 1], &ne[1..w + 1]);
                for i in 0..w {
                    let label = (nm[i], ne[i]);
                    let (m, e) = add((om[i], oe[i]), label);
                    (bm[i], be[i]) = normal(m, e);
                    let later = (later_m[i] * skip[i], later_e[i] + bar[i]);
                    let (m, e) = add3(label, (after_m[i], after_e[i]), later);
                    (lm[i], le[i]) = normal(m, e);
                }
            }
            let blank = blanks[t];
            let (pm, pe) = emitted[t * 2 * w..(t + 1) * 2 * w].split_at(w);
            let pe = &pe[..w];
            let [om, oe, nm, ne] = parts_mut(&mut next, w);
            let (om, oe, nm, ne) = (&mut om[1..w + 1], &mut oe[1..w + 1], &mut nm[1..w + 1], &mut ne[1..w + 1]);
            for i in 0..w {
                (om[i], oe[i]) = (bm[i] * blank[0], be[i] + blank[1]);
                (nm[i], ne[i]) = (lm[i] * pm[i], le[i] + pe[i]);
            }
        }
    }
}

simd! {
    /// Softmax minus occupancy, times the weight, from the exponentials that `grad` holds.
    fn finish(row: &Row, w: usize, total: (f32, f32), weight: f32, frames: &[[f32; 2]], alpha: &[f32], beta: &[f32], grad: &mut [f32]) {
        let stride = 4 * (w + 2);
        let mut share = vec![0f32; w];
        for (t, frame) in frames.iter().enumerate() {
            let grad = &mut grad[t * row.vocabulary..(t + 1) * row.vocabulary];
            let scale = weight / frame[1];
            for g in grad.iter_mut() {
                *g *= scale;
            }
            let [abm, abe, alm, ale] = parts(&alpha[t * stride..(t + 1) * stride], w).map(|x| &x[1..w + 1]);
            let [bbm, bbe, blm, ble] = parts(&beta[t * stride..(t + 1) * stride], w).map(|x| &x[1..w + 1]);
            let each = weight / total.0;
            let mut lanes = [0f32; math::LANES];
            for at in (0..w).step_by(math::LANES) {
                for i in 0..math::LANES {
                    let i = at + i;
                    lanes[i - at] += abm[i] * bbm[i] * pow2(abe[i] + bbe[i] - total.1);
                    share[i] = alm[i] * blm[i] * pow2(ale[i] + ble[i] - total.1) * each;
                }
            }
            grad[row.blank] -= math::sum(&lanes) * each;
            for (y, share) in row.targets.iter().zip(&share) {
                grad[*y as usize] -= share;
            }
        }
    }
}

impl Scratch {
    /// Lets every buffer hold T frames.
    fn fit(&mut self, frames: usize, labels: &Labels) {
        let grow = |x: &mut Vec<f32>, len: usize| {
            if x.len() < len {
                x.resize(len, 0.0);
            }
        };
        self.frames.resize(frames, [0.0; 2]);
        self.blanks.resize(frames, [0.0; 2]);
        grow(&mut self.labels, frames * 2 * labels.width);
        grow(&mut self.alpha, frames * labels.stride());
    }
}

/// Negative log likelihood of one row, infinite when no alignment fits; with `gradient`, that of the logits is written
/// to all of it, times the weight: 0 for frames past the row and for rows without an alignment.
pub(crate) fn row(row: &Row, weight: f32, gradient: Option<&mut [f32]>, scratch: &mut Scratch) -> f64 {
    let (v, count) = (row.vocabulary, row.targets.len());
    let t = row.logits.len() / v;
    let mut none = [];
    let grad = match gradient {
        Some(grad) => {
            grad[t * v..].fill(0.0);
            &mut grad[..t * v]
        }
        None => &mut none[..],
    };
    if t < frames_needed(row.targets) {
        grad.fill(0.0);
        return f64::INFINITY;
    }
    if t == 0 {
        return 0.0;
    }
    let labels = Labels::new(row.targets);
    let (w, stride) = (labels.width, labels.stride());
    scratch.fit(t, &labels);
    let Scratch { frames, blanks, labels: emitted, alpha, beta } = scratch;
    let emitted = &mut emitted[..t * 2 * w];
    let tasks = frames.par_chunks_mut(FRAMES).zip(blanks.par_chunks_mut(FRAMES));
    let tasks = tasks.zip(emitted.par_chunks_mut(FRAMES * 2 * w)).enumerate();
    let one = |i: usize, frames: &mut [[f32; 2]], blanks: &mut [[f32; 2]], emitted: &mut [f32], exps: &mut [f32]| {
        normalise(&row.logits[i * FRAMES * v..], v, frames, exps);
        emit(row, i * FRAMES, w, frames, blanks, emitted);
    };
    if grad.is_empty() {
        tasks.for_each(|(i, ((frames, blanks), emitted))| one(i, frames, blanks, emitted, &mut []));
        forward(&labels, count, blanks, emitted, alpha);
    } else {
        if beta.len() < t * stride {
            beta.resize(t * stride, 0.0);
        }
        let tasks = tasks.zip(grad.par_chunks_mut(FRAMES * v));
        tasks.for_each(|((i, ((frames, blanks), emitted)), exps)| one(i, frames, blanks, emitted, exps));
        rayon::join(
            || forward(&labels, count, blanks, emitted, alpha),
            || backward(&labels, count, blanks, emitted, beta),
        );
    }
    let [bm, be, lm, le] = parts(&alpha[(t - 1) * stride..t * stride], w);
    let total = add((bm[count + 1], be[count + 1]), (lm[count], le[count]));
    if !frames.iter().all(|[top, sum]| top.is_finite() && sum.is_finite()) {
        grad.fill(f32::NAN);
        return f64::NAN;
    }
    if total.0 == 0.0 {
        grad.fill(0.0);
        return f64::INFINITY;
    }
    if !grad.is_empty() {
        let tasks = grad.par_chunks_mut(FRAMES * v).zip(frames.par_chunks(FRAMES));
        let tasks = tasks.zip(alpha.par_chunks(FRAMES * stride)).zip(beta.par_chunks(FRAMES * stride));
        tasks.for_each(|(((grad, frames), alpha), beta)| finish(row, w, total, weight, frames, alpha, beta, grad));
    }
    -(f64::from(total.0).ln() + f64::from(total.1) * std::f64::consts::LN_2)
}
