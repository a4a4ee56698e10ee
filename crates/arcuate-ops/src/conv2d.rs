//! Two-dimensional convolution of channels-last images that keeps their size.
//!
//! # What it computes
//! `y[b, t, h, n] = bias[n] + sum over taps i, j and channel c of weight[n, c, i, j] x[b, t + i - above, h + j - left, c]`,
//! where `x` is 0 outside of the image. Of an even kernel `k`, `(k - 1) / 2` taps lie before and the rest behind. Weights are
//! stored as PyTorch stores them.
//!
//! # Reference
//! LeCun et al. 1989; `padding = "same"` as in PyTorch.
// B images, T rows, H columns, C inputs, N outputs

use burn::tensor::ops::{ConvOptions, PadMode};
use burn::tensor::{Tensor, module};
use burn_flex::FlexTensor;

use crate::Precision;
use crate::cpu::conv2d::{self, Sizes};
use crate::cpu::sums::column_sums;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

#[derive(Debug, Clone)]
struct Convolution {
    precision: Precision,
}

/// Taps before the middle of a kernel.
fn before(kernel: [usize; 2]) -> [usize; 2] {
    kernel.map(|taps| (taps - 1) / 2)
}

fn sizes(x: &FlexTensor, weight: &FlexTensor) -> Sizes {
    let (x, w) = (dims(x), dims(weight));
    let kernel = [w[2], w[3]];
    Sizes { image: [x[0], x[1], x[2]], inputs: x[3], outputs: w[0], kernel, before: before(kernel) }
}

impl Kernel<3> for Convolution {
    type Saved = (FlexTensor, FlexTensor);

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let s = sizes(&x, &weight);
        let [b, t, h] = s.image;
        let out = conv2d::forward(&s, numbers(&x), numbers(&weight), Some(numbers(&bias)), self.precision);
        (tensor(&[b, t, h, s.outputs], out), (x, weight))
    }

    fn backward(&self, (x, weight): Self::Saved, grad: FlexTensor, needs: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let s = sizes(&x, &weight);
        let (data, grad) = (numbers(&x), numbers(&grad));
        [
            needs[0].then(|| tensor(&dims(&x), conv2d::input_gradient(&s, numbers(&weight), grad, self.precision))),
            needs[1].then(|| tensor(&dims(&weight), conv2d::weight_gradient(&s, data, grad, self.precision))),
            needs[2].then(|| tensor(&[s.outputs], column_sums(grad, s.outputs))),
        ]
    }
}

/// `x` `[B, T, H, C]` convolved with `weight` `[N, C, taps over rows, taps over columns]` plus a bias `[N]`: `[B, T, H, N]`.
///
/// # Panics
/// When the sizes do not fit.
pub fn conv2d(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let ([_, t, h, c], [n, inputs, rows, columns]) = (x.dims(), weight.dims());
    assert!(
        inputs == c && bias.dims() == [n] && [t, h, c, n, rows, columns].iter().all(|size| *size > 0),
        "conv2d: {:?} does not fit weight {:?} and bias {:?}",
        x.dims(),
        weight.dims(),
        bias.dims()
    );
    let kernel = Convolution { precision: Precision::current() };
    let inputs = [cpu_tensor(x.clone()), cpu_tensor(weight.clone()), cpu_tensor(bias.clone())];
    match apply(kernel, inputs) {
        Some(y) => y,
        None => conv2d_plain(x, weight, bias),
    }
}

/// The plain composition of `conv2d`.
pub fn conv2d_plain(x: Tensor<4>, weight: Tensor<4>, bias: Tensor<1>) -> Tensor<4> {
    let [_, _, rows, columns] = weight.dims();
    let [above, left] = before([rows, columns]);
    let (below, right) = (rows - 1 - above, columns - 1 - left);
    let x = x.permute([0, 3, 1, 2]).pad((left, right, above, below), PadMode::Constant(0.0));
    module::conv2d(x, weight, Some(bias), ConvOptions::new([1, 1], [0, 0], [1, 1], 1)).permute([0, 2, 3, 1])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, on_threads, pass, random, values};
    use burn::tensor::{Device, TensorData};

    /// Images, inputs, outputs, kernel: few and many channels, even kernels, kernels as large as the image.
    const SHAPES: [([usize; 3], usize, usize, [usize; 2]); 7] = [
        ([1, 1, 1], 1, 1, [1, 1]),
        ([2, 5, 7], 1, 6, [3, 3]),
        ([2, 5, 7], 6, 1, [3, 3]),
        ([1, 20, 9], 16, 5, [3, 3]),
        ([2, 17, 6], 1, 4, [16, 3]),
        ([1, 18, 6], 33, 34, [16, 4]),
        ([1, 3, 4], 2, 3, [3, 4]),
    ];

    fn inputs([b, t, h]: [usize; 3], c: usize, n: usize, [i, j]: [usize; 2]) -> (Tensor<4>, Tensor<4>, Tensor<1>) {
        (random([b, t, h, c], 1), random([n, c, i, j], 2), random([n], 3))
    }

    #[test]
    fn agrees_with_plain_composition() {
        for (image, c, n, kernel) in SHAPES {
            agrees(inputs(image, c, n, kernel), |(x, w, b)| conv2d(x, w, b), |(x, w, b)| conv2d_plain(x, w, b));
        }
    }

    #[test]
    fn is_the_sum_that_its_definition_says() {
        for (image, c, n, [rows, columns]) in SHAPES {
            let (x, w, b) = inputs(image, c, n, [rows, columns]);
            let ([_, t, h], found) = (image, values(conv2d(x.clone(), w.clone(), b.clone())));
            let (x, w, b) = (values(x), values(w), values(b));
            let (above, left) = ((rows - 1) / 2, (columns - 1) / 2);
            for (place, found) in found.iter().enumerate() {
                let (pixel, output) = (place / n, place % n);
                let (at, row, column) = (pixel / (t * h), pixel / h % t, pixel % h);
                let mut sum = f64::from(b[output]);
                for (i, j, channel) in
                    (0..rows).flat_map(|i| (0..columns).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
                {
                    let (y, z) = ((row + i).wrapping_sub(above), (column + j).wrapping_sub(left));
                    if y < t && z < h {
                        let x = x[((at * t + y) * h + z) * c + channel];
                        sum += f64::from(x) * f64::from(w[((output * c + channel) * rows + i) * columns + j]);
                    }
                }
                assert!((f64::from(*found) - sum).abs() < 1e-4, "{image:?} {rows}x{columns}: {found} {sum}");
            }
        }
    }

    #[test]
    fn non_contiguous_input_is_read_correctly() {
        let x = random([2, 3, 5, 4], 1);
        let (w, b) = (random([3, 4, 3, 3], 2), random([3], 3));
        agrees(
            (x, w, b),
            |(x, w, b)| conv2d(x.swap_dims(1, 2), w, b),
            |(x, w, b)| conv2d_plain(x.swap_dims(1, 2), w, b),
        );
    }

    #[test]
    fn threads_change_no_bit() {
        let run = |threads| {
            on_threads(threads, || {
                let inputs = inputs([2, 37, 11], 12, 9, [3, 3]);
                pass(&inputs, &|(x, w, b)| conv2d(x, w, b), &Device::flex().autodiff())
            })
        };
        assert_eq!(run(1), run(2));
    }

    #[test]
    fn an_image_does_not_see_its_neighbours() {
        let (x, w, b) = inputs([3, 6, 5], 4, 4, [3, 3]);
        let alone = values(conv2d(x.clone().narrow(0, 1, 1), w.clone(), b.clone()));
        assert_eq!(values(conv2d(x, w, b).narrow(0, 1, 1)), alone);
        let none = Tensor::<4>::from_data(TensorData::new(Vec::<f32>::new(), [0, 6, 5, 4]), &Device::flex());
        assert_eq!(conv2d(none, random([4, 4, 3, 3], 2), random([4], 3)).dims(), [0, 6, 5, 4]);
    }
}
