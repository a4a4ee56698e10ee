//! Two-dimensional convolution of channels-last images that keeps their size, as matrix products over overlapping views.
//!
//! Within one row of an image, an output pixel reads numbers of each input row that lie side by side, so every row of the
//! output is one product for each vertical tap. Where there are few channels the vertical taps are laid beside them first,
//! so that it is one product in all.
// B images, T rows, H columns, C inputs, N outputs

use rayon::prelude::*;

use super::gemm::{How, View, buffer, matmul};
use crate::Precision;

/// Up to so many numbers of one pixel, vertical taps are laid beside the channels.
const FEW: usize = 32;
/// Rows of an image that one task adds up for the gradient of the weight.
const ROWS: usize = 16;

/// Sizes of one convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    /// `[B, T, H]`
    pub image: [usize; 3],
    pub inputs: usize,
    pub outputs: usize,
    /// Taps over rows and columns.
    pub kernel: [usize; 2],
    /// Zero rows above and zero columns on the left; the rest of `kernel - 1` lies below and on the right.
    pub before: [usize; 2],
}

impl Sizes {
    /// Products of one output row, and numbers of a pixel that each reads.
    fn taps(&self) -> (usize, usize) {
        let beside = self.kernel[0] * self.inputs;
        if beside <= FEW { (1, beside) } else { (self.kernel[0], self.inputs) }
    }

    /// The convolution that gives the gradient of the input.
    fn back(&self) -> Self {
        let before = [0, 1].map(|i| self.kernel[i] - 1 - self.before[i]);
        Self { inputs: self.outputs, outputs: self.inputs, before, ..*self }
    }

    /// Where a number of the weight `[N, C, taps over rows, taps over columns]` stands in `[products, N, taps over columns,
    /// numbers of a pixel]`.
    fn place(&self, n: usize, c: usize, [i, j]: [usize; 2]) -> usize {
        let (products, width) = self.taps();
        let (product, at) = if products == 1 { (0, i * self.inputs + c) } else { (i, c) };
        ((product * self.outputs + n) * self.kernel[1] + j) * width + at
    }

    /// Calls with the index of every number of the weight and its place.
    fn each(&self, mut f: impl FnMut(usize, usize)) {
        let [rows, columns] = self.kernel;
        let mut index = 0;
        for n in 0..self.outputs {
            for c in 0..self.inputs {
                for i in 0..rows {
                    for j in 0..columns {
                        f(index, self.place(n, c, [i, j]));
                        index += 1;
                    }
                }
            }
        }
    }
}

/// One image with zero columns around, its vertical taps beside the channels where they are few.
fn padded(s: &Sizes, x: &[f32]) -> Vec<f32> {
    let [_, t, h] = s.image;
    let (products, width) = s.taps();
    let row_len = (h + s.kernel[1] - 1) * width;
    let mut out = buffer(t * row_len);
    out.par_chunks_mut(row_len).enumerate().for_each(|(row, out)| {
        let out = &mut out[s.before[1] * width..][..h * width];
        let source = |row: usize| &x[row * h * s.inputs..][..h * s.inputs];
        if products > 1 {
            out.copy_from_slice(source(row));
            return;
        }
        for i in 0..s.kernel[0] {
            let Some(from) = (row + i).checked_sub(s.before[0]).filter(|from| *from < t) else { continue };
            let pixels = out.chunks_exact_mut(width).zip(source(from).chunks_exact(s.inputs));
            for (out, x) in pixels {
                out[i * s.inputs..][..s.inputs].copy_from_slice(x);
            }
        }
    });
    out
}

/// The input row that a product of output row `row` reads; none above and below the image.
fn source_row(s: &Sizes, row: usize, product: usize) -> Option<usize> {
    if s.taps().0 == 1 {
        return Some(row);
    }
    (row + product).checked_sub(s.before[0]).filter(|from| *from < s.image[1])
}

/// Output `[B, T, H, N]` of `x` `[B, T, H, C]`, with the weight in the order of `Sizes::place`.
fn run(s: &Sizes, x: &[f32], weight: &[f32], bias: Option<&[f32]>, precision: Precision) -> Vec<f32> {
    let [_, t, h] = s.image;
    let (products, width) = s.taps();
    let (n, k) = (s.outputs, s.kernel[1] * width);
    let row_len = (h + s.kernel[1] - 1) * width;
    let mut out = buffer(s.image.iter().product::<usize>() * n);
    for (x, out) in x.chunks_exact(t * h * s.inputs).zip(out.chunks_exact_mut(t * h * n)) {
        let x = padded(s, x);
        out.par_chunks_mut(h * n).enumerate().for_each(|(row, out)| {
            if let Some(bias) = bias {
                out.chunks_exact_mut(n).for_each(|pixel| pixel.copy_from_slice(bias));
            }
            for product in 0..products {
                let Some(from) = source_row(s, row, product) else { continue };
                let a = View { data: &x[from * row_len..][..row_len], row: width, col: 1 };
                let b = View::rows(&weight[product * n * k..][..n * k], k).t();
                // What has no bias begins with zeros.
                matmul([h, n, k], a, b, out, n, How::one(precision).add());
            }
        });
    }
    out
}

/// Output `[B, T, H, N]` for `x` `[B, T, H, C]` and `weight` `[N, C, taps over rows, taps over columns]`.
pub(crate) fn forward(s: &Sizes, x: &[f32], weight: &[f32], bias: Option<&[f32]>, precision: Precision) -> Vec<f32> {
    let mut ordered = buffer(weight.len());
    s.each(|index, place| ordered[place] = weight[index]);
    run(s, x, &ordered, bias, precision)
}

/// Gradient of the input, `[B, T, H, C]`: a convolution with the weight turned over.
pub(crate) fn input_gradient(s: &Sizes, weight: &[f32], grad: &[f32], precision: Precision) -> Vec<f32> {
    let back = s.back();
    let [rows, columns] = s.kernel;
    let mut ordered = buffer(weight.len());
    for (index, value) in weight.iter().enumerate() {
        let (rest, j) = (index / columns, index % columns);
        let (rest, i) = (rest / rows, rest % rows);
        ordered[back.place(rest % s.inputs, rest / s.inputs, [rows - 1 - i, columns - 1 - j])] = *value;
    }
    run(&back, grad, &ordered, None, precision)
}

/// Gradient of the weight, `[N, C, taps over rows, taps over columns]`.
pub(crate) fn weight_gradient(s: &Sizes, x: &[f32], grad: &[f32], precision: Precision) -> Vec<f32> {
    let [_, t, h] = s.image;
    let (products, width) = s.taps();
    let (n, k) = (s.outputs, s.kernel[1] * width);
    let row_len = (h + s.kernel[1] - 1) * width;
    let mut sum = buffer(products * n * k);
    for (x, grad) in x.chunks_exact(t * h * s.inputs).zip(grad.chunks_exact(t * h * n)) {
        let x = padded(s, x);
        let part = |task: usize| {
            let mut part = buffer(products * n * k);
            for row in task * ROWS..((task + 1) * ROWS).min(t) {
                for product in 0..products {
                    let Some(from) = source_row(s, row, product) else { continue };
                    let a = View::rows(&grad[row * h * n..][..h * n], n).t();
                    let b = View { data: &x[from * row_len..][..row_len], row: width, col: 1 };
                    matmul([n, k, h], a, b, &mut part[product * n * k..][..n * k], k, How::one(precision).add());
                }
            }
            part
        };
        // Added in order, whoever computed them.
        let parts: Vec<Vec<f32>> = (0..t.div_ceil(ROWS)).into_par_iter().map(part).collect();
        for part in parts {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    }
    let mut out = buffer(sum.len());
    s.each(|index, place| out[index] = sum[place]);
    out
}
