//! Convolutions of three taps at stride 2, with five products of channels for every six of the definition.
//!
//! Input positions at even places meet two taps, as in a convolution of stride 1. Of two neighbours `y0 = a w0 + b w2` and
//! `y1 = b w0 + c w2` with `m = b (w0 + w2)`: `y0 = m + (a - b) w0` and `y1 = m + (c - b) w2` (Winograd 1980). Both gradients
//! are such pairs too. Differences are formed for so many pairs at a time that they stay in the cache that cores share.
//! In bf16, where forming them takes as long as the product that they save, only the gradient of the input is done so: its
//! differences are half as many.
// L positions, O output positions, C inputs, N outputs

use rayon::prelude::*;

use super::conv::{Sizes, turned};
use super::gemm::{How, View, buffer, matmul, matmul_then};
use super::simd::simd;
use crate::Precision;

/// Pairs of outputs that are computed together; also the unit of the sums of the weight gradient.
const PAIRS: usize = 768;
/// The fewest channels for which products outweigh the differences.
const CHANNELS: usize = 64;
/// Numbers between rows, so that they do not fall into the same few places of a cache.
const PAD: usize = 16;
/// Pairs, or rows of a weight, of one task.
const ROWS: usize = 16;

/// Whether a convolution is one for this file.
pub(crate) fn fits(s: &Sizes) -> bool {
    [s.kernel, s.stride, s.groups] == [3, 2, 1] && s.padding == [0, 0] && s.inputs.min(s.outputs) >= CHANNELS
}

simd! {
    /// `out = x + sign y`.
    fn combine(x: &[f32], y: &[f32], sign: f32, out: &mut [f32]) {
        for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
            *out = x + sign * y;
        }
    }
}

/// For every pair the row before its middle and the row behind, both less the middle: `[pairs, 2 width]`. `row` gives
/// these three, the outer ones as `None` where there is none: they are zero.
fn differences<'a>(width: usize, out: &mut [f32], row: impl Fn(usize) -> [Option<&'a [f32]>; 3] + Sync) {
    out.par_chunks_mut(2 * width).with_min_len(ROWS).enumerate().for_each(|(pair, out)| {
        let [before, middle, after] = row(pair);
        let Some(middle) = middle else { return };
        for (outer, out) in [before, after].into_iter().zip(out.chunks_exact_mut(width)) {
            match outer {
                Some(outer) => combine(outer, middle, -1.0, out),
                None => combine(middle, middle, -2.0, out),
            }
        }
    });
}

/// `[N, C, 3]` to `[3 C, N]`.
fn taps(s: &Sizes, weight: &[f32]) -> Vec<f32> {
    let (c, n) = (s.inputs, s.outputs);
    let mut out = buffer(3 * c * n);
    out.par_chunks_mut(ROWS * n).enumerate().for_each(|(task, out)| {
        // A few outputs at a time, whose weights stay in the nearest cache.
        for from in (0..n).step_by(8) {
            for (row, out) in out.chunks_exact_mut(n).enumerate() {
                let at = (task * ROWS + row) % c * 3 + (task * ROWS + row) / c;
                for (i, out) in out.iter_mut().enumerate().skip(from).take(8) {
                    *out = weight[i * 3 * c + at];
                }
            }
        }
    });
    out
}

/// The first pair and the number of pairs of every block of pairs.
fn blocks(pairs: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..pairs).step_by(PAIRS).map(move |first| (first, PAIRS.min(pairs - first)))
}

/// Every `step`-th row of `width` numbers, from row `first` on.
fn every(step: usize, x: &[f32], first: usize, width: usize) -> View<'_> {
    View { data: &x[first * width..], row: step * width, col: 1 }
}

fn add(row: &mut [f32], other: &[f32]) {
    for (x, y) in row.iter_mut().zip(other) {
        *x += y;
    }
}

/// Output `[B, O, N]` for `x` `[B, L, C]` and `weight` `[N, C, 3]`.
pub(crate) fn forward(s: &Sizes, x: &[f32], weight: &[f32], bias: Option<&[f32]>, precision: Precision) -> Vec<f32> {
    let (c, n, length, how) = (s.inputs, s.outputs, s.out_length(), How::all(precision));
    let taps = taps(s, weight);
    let mut outer = buffer(c * n);
    combine(&taps[..c * n], &taps[2 * c * n..], 1.0, &mut outer);
    let block = PAIRS.min(length / 2);
    let (mut apart, mut middle) = (buffer(block * 2 * c), buffer(block * n));
    let mut out = buffer(s.batch * length * n);
    for (x, out) in x.chunks_exact(s.length * c).zip(out.chunks_exact_mut(length * n)) {
        for (first, pairs) in blocks(length / 2) {
            let row = |i: usize| x.get(i * c..(i + 1) * c);
            differences(c, &mut apart[..pairs * 2 * c], |i| [0, 2, 4].map(|at| row(4 * (first + i) + at)));
            let out = &mut out[2 * first * n..];
            matmul([pairs, n, c], every(4, x, 4 * first + 2, c), View::rows(&outer, n), &mut middle, n, how);
            let odd = every(2, x, 4 * first + 1, c);
            matmul([2 * pairs, n, c], odd, View::rows(&taps[c * n..], n), out, n, how);
            for side in 0..2 {
                let (a, out) = (every(2, &apart, side, c), &mut out[side * n..]);
                let tap = View::rows(&taps[2 * side * c * n..], n);
                matmul_then([pairs, n, c], a, tap, out, 2 * n, how.add(), |i, from, row| {
                    add(row, &middle[i * n + from..]);
                    if let Some(bias) = bias {
                        add(row, &bias[from..]);
                    }
                });
            }
        }
        if length % 2 == 1 {
            let a = every(1, x, 2 * (length - 1), c);
            let out = &mut out[(length - 1) * n..];
            matmul_then([1, n, 3 * c], a, View::rows(&taps, n), out, n, how, |_, from, row| {
                if let Some(bias) = bias {
                    add(row, &bias[from..]);
                }
            });
        }
    }
    out
}

/// Gradient of the input, `[B, L, C]`.
pub(crate) fn input_gradient(s: &Sizes, weight: &[f32], grad: &[f32], precision: Precision) -> Vec<f32> {
    let (c, n, length, how) = (s.inputs, s.outputs, s.out_length(), How::all(precision));
    let weight = turned(weight, c, 3);
    let weight_of = |tap: usize| every(3, &weight, tap, c);
    let mut outer = buffer(n * c);
    for (outer, weight) in outer.chunks_exact_mut(c).zip(weight.chunks_exact(3 * c)) {
        combine(&weight[..c], &weight[2 * c..], 1.0, outer);
    }
    // Even positions of the input that some output reads.
    let even = length + 1;
    let block = PAIRS.min(even / 2);
    let (mut apart, mut middle) = (buffer(block * 2 * n), buffer(block * c));
    let mut dx = buffer(s.batch * s.length * c);
    for (grad, dx) in grad.chunks_exact(length * n).zip(dx.chunks_exact_mut(s.length * c)) {
        for (first, pairs) in blocks(even / 2) {
            let row = |o: usize| grad.get(o * n..(o + 1) * n);
            differences(n, &mut apart[..pairs * 2 * n], |i| {
                let at = 2 * (first + i);
                [at.checked_sub(1).and_then(row), row(at), row(at + 1)]
            });
            matmul([pairs, c, n], every(2, grad, 2 * first, n), View::rows(&outer, c), &mut middle, c, how);
            for (side, tap) in [weight_of(2), weight_of(0)].into_iter().enumerate() {
                let out = &mut dx[(4 * first + 2 * side) * c..];
                matmul_then([pairs, c, n], every(2, &apart, side, n), tap, out, 4 * c, how, |i, from, row| {
                    add(row, &middle[i * c + from..]);
                });
            }
            let rows = (2 * pairs).min(length - 2 * first);
            let (a, out) = (every(1, grad, 2 * first, n), &mut dx[(4 * first + 1) * c..]);
            matmul([rows, c, n], a, weight_of(1), out, 2 * c, how);
        }
        if even % 2 == 1 {
            let (a, out) = (every(1, grad, length - 1, n), &mut dx[2 * length * c..]);
            matmul([1, c, n], a, weight_of(2), out, c, how);
        }
    }
    dx
}

/// Gradient of the weight, `[N, C, 3]`.
pub(crate) fn weight_gradient(s: &Sizes, x: &[f32], grad: &[f32], precision: Precision) -> Vec<f32> {
    let (c, n, length, how) = (s.inputs, s.outputs, s.out_length(), How::all(precision).add());
    let block = PAIRS.min(length / 2);
    let wide = 3 * n + PAD;
    let (mut apart, mut grads) = (buffer(block * 2 * c), buffer(block * wide));
    let (mut dw, mut outer) = (buffer(n * 3 * c), buffer(n * c));
    for (x, grad) in x.chunks_exact(s.length * c).zip(grad.chunks_exact(length * n)) {
        for (first, pairs) in blocks(length / 2) {
            let row = |i: usize| x.get(i * c..(i + 1) * c);
            differences(c, &mut apart[..pairs * 2 * c], |i| [0, 2, 4].map(|at| row(4 * (first + i) + at)));
            grads[..pairs * wide].par_chunks_mut(wide).with_min_len(ROWS).enumerate().for_each(|(i, grads)| {
                let (even, odd) = grad[2 * (first + i) * n..][..2 * n].split_at(n);
                grads[..n].copy_from_slice(even);
                grads[n..2 * n].copy_from_slice(odd);
                combine(even, odd, 1.0, &mut grads[2 * n..3 * n]);
            });
            let grads = |part: usize| View { data: &grads[part * n..], row: 1, col: wide };
            matmul([n, c, pairs], grads(2), every(4, x, 4 * first + 2, c), &mut outer, c, how);
            for side in 0..2 {
                matmul([n, c, pairs], grads(side), every(2, &apart, side, c), &mut dw[2 * side * c..], 3 * c, how);
            }
            let (grad, odd) = (every(1, grad, 2 * first, n).t(), every(2, x, 4 * first + 1, c));
            matmul([n, c, 2 * pairs], grad, odd, &mut dw[c..], 3 * c, how);
        }
        if length % 2 == 1 {
            let (grad, x) = (every(1, grad, length - 1, n), every(1, x, 2 * (length - 1), c));
            matmul([n, 3 * c, 1], grad.t(), View::rows(x.data, 3 * c), &mut dw, 3 * c, how);
        }
    }
    for (dw, outer) in dw.chunks_exact_mut(3 * c).zip(outer.chunks_exact(c)) {
        add(&mut dw[..c], outer);
        add(&mut dw[2 * c..], outer);
    }
    turned(&dw, 3, c).into_owned()
}
