//! Convolution of every channel on its own, vectorised over channels.
//!
//! Tasks copy the few rows they read into a small window with the padding in place, so that inner loops know no borders.

use rayon::prelude::*;

use super::conv::{Sizes, biased};
use super::gemm::buffer;
use super::simd::simd;
use super::sums::add_in_order;

/// Output rows of one task; also the unit of the fixed-order sums of the weight gradient.
const ROWS: usize = 64;
/// Channels, and rows or taps, that are summed in registers at a time.
const LANES: usize = 16;
const TILE: usize = 4;

simd! {
    /// Adds the convolution of a window `[.., C]` with `weight` `[kernel, C]` to `out` `[rows, C]`.
    fn convolve(x: &[f32], weight: &[f32], c: usize, stride: usize, out: &mut [f32]) {
        let (rows, kernel) = (out.len() / c, weight.len() / c);
        for from in (0..c).step_by(LANES) {
            let width = LANES.min(c - from);
            for row in (0..rows).step_by(TILE) {
                if width == LANES && row + TILE <= rows {
                    let mut sums = [[0f32; LANES]; TILE];
                    for tap in 0..kernel {
                        let w = &weight[tap * c + from..][..LANES];
                        for (i, sums) in sums.iter_mut().enumerate() {
                            let x = &x[((row + i) * stride + tap) * c + from..][..LANES];
                            for j in 0..LANES {
                                sums[j] += w[j] * x[j];
                            }
                        }
                    }
                    for (i, sums) in sums.iter().enumerate() {
                        for (out, sum) in out[(row + i) * c + from..][..LANES].iter_mut().zip(sums) {
                            *out += sum;
                        }
                    }
                } else {
                    for row in row..rows.min(row + TILE) {
                        for channel in from..from + width {
                            let mut sum = 0.0;
                            for tap in 0..kernel {
                                sum += weight[tap * c + channel] * x[(row * stride + tap) * c + channel];
                            }
                            out[row * c + channel] += sum;
                        }
                    }
                }
            }
        }
    }
}

simd! {
    /// Gradient `[kernel, C]` of the weight from a window and the gradient of its output rows.
    fn correlate(x: &[f32], grad: &[f32], c: usize, stride: usize, dw: &mut [f32]) {
        let (rows, kernel) = (grad.len() / c, dw.len() / c);
        for from in (0..c).step_by(LANES) {
            let width = LANES.min(c - from);
            for tap in (0..kernel).step_by(TILE) {
                if width == LANES && tap + TILE <= kernel {
                    let mut sums = [[0f32; LANES]; TILE];
                    for row in 0..rows {
                        let grad = &grad[row * c + from..][..LANES];
                        for (i, sums) in sums.iter_mut().enumerate() {
                            let x = &x[(row * stride + tap + i) * c + from..][..LANES];
                            for j in 0..LANES {
                                sums[j] += grad[j] * x[j];
                            }
                        }
                    }
                    for (i, sums) in sums.iter().enumerate() {
                        dw[(tap + i) * c + from..][..LANES].copy_from_slice(sums);
                    }
                } else {
                    for tap in tap..kernel.min(tap + TILE) {
                        let sums = &mut dw[tap * c + from..][..width];
                        for row in 0..rows {
                            let grad = &grad[row * c + from..][..width];
                            let x = &x[(row * stride + tap) * c + from..][..width];
                            for j in 0..width {
                                sums[j] += grad[j] * x[j];
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Rows `from ..` of a sequence whose row i stands at `i * spread`; zeros elsewhere.
fn window(x: &[f32], c: usize, from: isize, rows: usize, spread: usize, out: &mut Vec<f32>) {
    out.clear();
    for at in from..from + rows as isize {
        let row =
            usize::try_from(at).ok().filter(|at| at % spread == 0).and_then(|at| x.chunks_exact(c).nth(at / spread));
        match row {
            Some(row) => out.extend_from_slice(row),
            None => out.resize(out.len() + c, 0.0),
        }
    }
}

/// `[C, kernel]` to `[kernel, C]`, or back with the sizes exchanged.
fn transposed(weight: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = buffer(weight.len());
    for (column, out) in out.chunks_exact_mut(rows).enumerate() {
        for (row, out) in out.iter_mut().enumerate() {
            *out = weight[row * columns + column];
        }
    }
    out
}

/// Output `[B, O, C]` for `x` `[B, L, C]` and `weight` `[C, 1, kernel]`.
pub(crate) fn forward(s: &Sizes, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let (c, length) = (s.inputs, s.out_length());
    let weight = transposed(weight, c, s.kernel);
    let mut out = biased(s.batch * length, c, bias);
    for (x, out) in x.chunks_exact(s.length * c).zip(out.chunks_exact_mut(length * c)) {
        out.par_chunks_mut(ROWS * c).enumerate().for_each_init(Vec::new, |space, (task, out)| {
            let from = (task * ROWS * s.stride) as isize - s.padding[0] as isize;
            window(x, c, from, (out.len() / c - 1) * s.stride + s.kernel, 1, space);
            convolve(space, &weight, c, s.stride, out);
        });
    }
    out
}

/// Gradient of the input, `[B, L, C]`: the gradient, spread by the stride, convolved with the reversed taps.
pub(crate) fn input_gradient(s: &Sizes, weight: &[f32], grad: &[f32]) -> Vec<f32> {
    let (c, length) = (s.inputs, s.out_length());
    let reversed: Vec<f32> = transposed(weight, c, s.kernel).chunks_exact(c).rev().flatten().copied().collect();
    let mut dx = buffer(s.batch * s.length * c);
    for (grad, dx) in grad.chunks_exact(length * c).zip(dx.chunks_exact_mut((s.length * c).max(1))) {
        dx.par_chunks_mut(ROWS * c).enumerate().for_each_init(Vec::new, |space, (task, dx)| {
            let from = (task * ROWS + s.padding[0] + 1) as isize - s.kernel as isize;
            window(grad, c, from, dx.len() / c - 1 + s.kernel, s.stride, space);
            convolve(space, &reversed, c, 1, dx);
        });
    }
    dx
}

/// Gradient of the weight, `[C, 1, kernel]`.
pub(crate) fn weight_gradient(s: &Sizes, x: &[f32], grad: &[f32]) -> Vec<f32> {
    let (c, length) = (s.inputs, s.out_length());
    let mut dw = buffer(s.kernel * c);
    for (x, grad) in x.chunks_exact((s.length * c).max(1)).zip(grad.chunks_exact(length * c)) {
        let mut parts = vec![dw];
        parts.par_extend(grad.par_chunks(ROWS * c).enumerate().map(|(task, grad)| {
            let (mut space, mut dw) = (Vec::new(), buffer(s.kernel * c));
            let from = (task * ROWS * s.stride) as isize - s.padding[0] as isize;
            window(x, c, from, (grad.len() / c - 1) * s.stride + s.kernel, 1, &mut space);
            correlate(&space, grad, c, s.stride, &mut dw);
            dw
        }));
        dw = add_in_order(parts, s.kernel * c);
    }
    transposed(&dw, s.kernel, c)
}
