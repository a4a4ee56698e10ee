//! Convolution of channels-last rows as matrix products over overlapping views.
//!
//! An output row reads `kernel * inputs` numbers that lie side by side, so a convolution is one product whose left side has
//! the row stride `stride * inputs`. The gradient of the input is split by `position mod stride`: within one phase it is a
//! convolution of stride 1 over the output's gradient, so every number is written once and nothing is added up afterwards.
// B batch, L positions, O output positions, C channels of a group

use std::borrow::Cow;

use rayon::prelude::*;

use super::conv_pairs;
use super::gemm::{How, View, buffer, matmul};
use crate::Precision;

/// Rows that one task copies when groups are put side by side.
const ROWS: usize = 64;

/// Sizes of one convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub batch: usize,
    pub length: usize,
    pub inputs: usize,
    pub outputs: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Zero rows before and after.
    pub padding: [usize; 2],
    pub groups: usize,
}

impl Sizes {
    /// Positions of the output.
    pub(crate) fn out_length(&self) -> usize {
        (self.length + self.padding[0] + self.padding[1] - self.kernel) / self.stride + 1
    }

    /// Whether every channel is convolved on its own.
    pub(crate) fn depthwise(&self) -> bool {
        self.groups == self.inputs && self.groups == self.outputs && self.groups > 1
    }

    fn group(&self) -> (usize, usize) {
        (self.inputs / self.groups, self.outputs / self.groups)
    }
}

/// The channels of one group of one batch row, with zero rows around; borrowed where that is the row as it stands.
fn rows_of<'a>(
    x: &'a [f32],
    channels: usize,
    group: usize,
    groups: usize,
    [left, right]: [usize; 2],
) -> Cow<'a, [f32]> {
    if groups == 1 && left == 0 && right == 0 {
        return Cow::Borrowed(x);
    }
    let width = channels / groups;
    let mut out = buffer((x.len() / channels + left + right) * width);
    for (out, x) in out[left * width..].chunks_exact_mut(width).zip(x.chunks_exact(channels)) {
        out.copy_from_slice(&x[group * width..][..width]);
    }
    Cow::Owned(out)
}

/// `[outputs, C, kernel]` to `[outputs, kernel, C]`, or back with the sizes exchanged.
pub(super) fn turned(weight: &[f32], rows: usize, columns: usize) -> Cow<'_, [f32]> {
    if rows == 1 || columns == 1 {
        return Cow::Borrowed(weight);
    }
    let mut out = buffer(weight.len());
    out.par_chunks_mut(rows * columns).zip(weight.par_chunks(rows * columns)).for_each(|(out, w)| {
        for (column, out) in out.chunks_exact_mut(rows).enumerate() {
            for (row, out) in out.iter_mut().enumerate() {
                *out = w[row * columns + column];
            }
        }
    });
    Cow::Owned(out)
}

/// `[B, groups, length, width]` to `[B, length, groups * width]`, plus what `out` holds.
fn side_by_side(blocks: &[f32], length: usize, width: usize, groups: usize, out: &mut [f32]) {
    out.par_chunks_mut(groups * width * ROWS).enumerate().for_each(|(task, rows)| {
        for (i, row) in rows.chunks_exact_mut(groups * width).enumerate() {
            let (b, l) = ((task * ROWS + i) / length, (task * ROWS + i) % length);
            for (g, out) in row.chunks_exact_mut(width).enumerate() {
                let block = &blocks[((b * groups + g) * length + l) * width..][..width];
                for (out, x) in out.iter_mut().zip(block) {
                    *out += x;
                }
            }
        }
    });
}

/// The bias in every row, or zeros.
pub(crate) fn biased(rows: usize, outputs: usize, bias: Option<&[f32]>) -> Vec<f32> {
    let mut out = buffer(rows * outputs);
    if let Some(bias) = bias {
        out.par_chunks_mut(outputs * ROWS).for_each(|rows| {
            for row in rows.chunks_exact_mut(outputs) {
                row.copy_from_slice(bias);
            }
        });
    }
    out
}

/// Output `[B, O, outputs]` for `x` `[B, L, inputs]` and `weight` `[outputs, C, kernel]`.
pub(crate) fn forward(s: &Sizes, x: &[f32], weight: &[f32], bias: Option<&[f32]>, precision: Precision) -> Vec<f32> {
    if conv_pairs::fits(s) && precision == Precision::F32 {
        return conv_pairs::forward(s, x, weight, bias, precision);
    }
    let ((c, n), length) = (s.group(), s.out_length());
    let (k, step, x_row) = (s.kernel * c, s.stride * c, s.length * s.inputs);
    let weight = turned(weight, c, s.kernel);
    let mut out = biased(s.batch * length, s.outputs, bias);
    let one = |b: usize, g: usize, out: &mut [f32], how: How| {
        let x = rows_of(&x[b * x_row..][..x_row], s.inputs, g, s.groups, s.padding);
        let a = View { data: &x, row: step, col: 1 };
        matmul([length, n, k], a, View::rows(&weight[g * n * k..], k).t(), out, n, how);
    };
    if s.groups == 1 {
        let how = How { accumulate: bias.is_some(), ..How::all(precision) };
        for (b, out) in out.chunks_exact_mut(length * n).enumerate() {
            one(b, 0, out, how);
        }
    } else {
        let mut blocks = buffer(out.len());
        let tasks = blocks.par_chunks_mut(length * n).enumerate();
        tasks.for_each(|(i, block)| one(i / s.groups, i % s.groups, block, How::one(precision)));
        side_by_side(&blocks, length, n, s.groups, &mut out);
    }
    out
}

/// Gradient of the input, `[B, L, inputs]`.
pub(crate) fn input_gradient(s: &Sizes, weight: &[f32], grad: &[f32], precision: Precision) -> Vec<f32> {
    if conv_pairs::fits(s) {
        return conv_pairs::input_gradient(s, weight, grad, precision);
    }
    let ((c, n), length) = (s.group(), s.out_length());
    let grad_row = length * s.outputs;
    let weight = turned(weight, c, s.kernel);
    // Zero rows around the gradient stand for output positions that do not exist.
    let reach = (s.kernel - 1) / s.stride;
    let one = |phases: &[Vec<f32>], b: usize, g: usize, dx: &mut [f32], how: How| {
        let grad = rows_of(&grad[b * grad_row..][..grad_row], s.outputs, g, s.groups, [reach, reach]);
        for (phase, weight) in phases.iter().enumerate() {
            let taps = weight.len() / (n * c);
            let first = s.padding[0].saturating_sub(phase).div_ceil(s.stride);
            let Some(last) = (s.padding[0] + s.length - 1).checked_sub(phase) else { continue };
            let end = (last / s.stride + 1).min(length + taps - 1);
            if end > first {
                let a = View::rows(&grad[(first + reach + 1 - taps) * n..], n);
                let out = &mut dx[(first * s.stride + phase - s.padding[0]) * c..];
                matmul([end - first, c, taps * n], a, View::rows(weight, c), out, s.stride * c, how);
            }
        }
    };
    let mut dx = buffer(s.batch * s.length * s.inputs);
    if dx.is_empty() {
        return dx;
    }
    if s.groups == 1 {
        let phases = phases(s, &weight);
        for (b, dx) in dx.chunks_exact_mut(s.length * c).enumerate() {
            one(&phases, b, 0, dx, How::all(precision));
        }
    } else {
        let mut blocks = buffer(dx.len());
        let phases: Vec<_> = weight.par_chunks(n * s.kernel * c).map(|weight| phases(s, weight)).collect();
        blocks.par_chunks_mut(s.length * c).enumerate().for_each(|(i, dx)| {
            let (b, g) = (i / s.groups, i % s.groups);
            one(&phases[g], b, g, dx, How::one(precision));
        });
        side_by_side(&blocks, s.length, c, s.groups, &mut dx);
    }
    dx
}

/// For each phase the weights of its taps, last tap first, as `[taps, outputs of the group, C]`; from `[outputs, kernel, C]`.
fn phases(s: &Sizes, weight: &[f32]) -> Vec<Vec<f32>> {
    let (c, n) = s.group();
    (0..s.stride.min(s.kernel))
        .into_par_iter()
        .map(|phase| {
            let mut out = Vec::with_capacity(((s.kernel - phase - 1) / s.stride + 1) * n * c);
            for tap in (phase..s.kernel).step_by(s.stride).rev() {
                for output in 0..n {
                    out.extend_from_slice(&weight[(output * s.kernel + tap) * c..][..c]);
                }
            }
            out
        })
        .collect()
}

/// Gradient of the weight, `[outputs, C, kernel]`.
pub(crate) fn weight_gradient(s: &Sizes, x: &[f32], grad: &[f32], precision: Precision) -> Vec<f32> {
    if conv_pairs::fits(s) && precision == Precision::F32 {
        return conv_pairs::weight_gradient(s, x, grad, precision);
    }
    let ((c, n), length) = (s.group(), s.out_length());
    let (k, x_row, grad_row) = (s.kernel * c, s.length * s.inputs, length * s.outputs);
    let mut dw = buffer(s.outputs * k);
    let one = |g: usize, dw: &mut [f32], how: How| {
        for b in 0..s.batch {
            let x = rows_of(&x[b * x_row..][..x_row], s.inputs, g, s.groups, s.padding);
            let grad = rows_of(&grad[b * grad_row..][..grad_row], s.outputs, g, s.groups, [0, 0]);
            let x = View { data: &x, row: s.stride * c, col: 1 };
            matmul([n, k, length], View::rows(&grad, n).t(), x, dw, k, How { accumulate: b > 0, ..how });
        }
    };
    if s.groups == 1 {
        one(0, &mut dw, How::all(precision));
    } else {
        dw.par_chunks_mut(n * k).enumerate().for_each(|(g, dw)| one(g, dw, How::one(precision)));
    }
    match turned(&dw, s.kernel, c) {
        Cow::Owned(dw) => dw,
        Cow::Borrowed(_) => dw,
    }
}
