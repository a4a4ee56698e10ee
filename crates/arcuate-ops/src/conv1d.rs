//! One-dimensional convolution of channels-last rows.
//!
//! # What it computes
//! `y[b, o, n] = bias[n] + sum over tap t and channel c of weight[n, c, t] x[b, o stride + t - left, c]`, where `c` runs
//! over the channels of the group of `n` and `x` is 0 outside of its positions. Weights are stored as PyTorch stores them.
//!
//! # Reference
//! Waibel et al. 1989 (time-delay networks); grouped as in Krizhevsky et al. 2012; on the CPU as matrix products over
//! overlapping views of the input, without a copy of it.
// B batch, L positions, O output positions, C inputs, N outputs, K taps

use burn::tensor::ops::ConvOptions;
use burn::tensor::{Tensor, module};
use burn_flex::FlexTensor;

use crate::Precision;
use crate::cpu::conv::{self, Sizes};
use crate::cpu::depthwise;
use crate::cpu::sums::column_sums;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

/// How a convolution moves over its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv1d {
    /// Input positions from one output position to the next.
    pub stride: usize,
    /// Zero positions before and after the input.
    pub padding: [usize; 2],
    /// Groups of channels that are convolved separately; every group's outputs see only its inputs.
    pub groups: usize,
}

impl Conv1d {
    /// Positions of the output for an input of `length` positions; 0 when the input is shorter than the kernel.
    pub fn out_length(&self, length: usize, kernel: usize) -> usize {
        let padded = length + self.padding[0] + self.padding[1];
        if padded < kernel { 0 } else { (padded - kernel) / self.stride + 1 }
    }
}

#[derive(Debug, Clone)]
struct Convolution {
    how: Conv1d,
    precision: Precision,
}

impl Convolution {
    fn sizes(&self, x: &FlexTensor, weight: &FlexTensor) -> Sizes {
        let (x, w) = (dims(x), dims(weight));
        let Conv1d { stride, padding, groups } = self.how;
        Sizes { batch: x[0], length: x[1], inputs: x[2], outputs: w[0], kernel: w[2], stride, padding, groups }
    }

    fn run(&self, x: &FlexTensor, weight: &FlexTensor, bias: Option<&FlexTensor>) -> FlexTensor {
        let s = self.sizes(x, weight);
        let (x, weight, bias) = (numbers(x), numbers(weight), bias.map(numbers));
        let out = if s.depthwise() {
            depthwise::forward(&s, x, weight, bias)
        } else {
            conv::forward(&s, x, weight, bias, self.precision)
        };
        tensor(&[s.batch, s.out_length(), s.outputs], out)
    }

    fn gradients(
        &self,
        x: &FlexTensor,
        weight: &FlexTensor,
        grad: &FlexTensor,
        needs: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let s = self.sizes(x, weight);
        let grad = numbers(grad);
        let dx = needs[0].then(|| {
            let dx = if s.depthwise() {
                depthwise::input_gradient(&s, numbers(weight), grad)
            } else {
                conv::input_gradient(&s, numbers(weight), grad, self.precision)
            };
            tensor(&dims(x), dx)
        });
        let dw = needs[1].then(|| {
            let dw = if s.depthwise() {
                depthwise::weight_gradient(&s, numbers(x), grad)
            } else {
                conv::weight_gradient(&s, numbers(x), grad, self.precision)
            };
            tensor(&dims(weight), dw)
        });
        [dx, dw, needs[2].then(|| tensor(&[s.outputs], column_sums(grad, s.outputs)))]
    }
}

impl Kernel<2> for Convolution {
    type Saved = (FlexTensor, FlexTensor);

    fn forward(&self, [x, weight]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        (self.run(&x, &weight, None), (x, weight))
    }

    fn backward(&self, (x, weight): Self::Saved, grad: FlexTensor, needs: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let [dx, dw, _] = self.gradients(&x, &weight, &grad, [needs[0], needs[1], false]);
        [dx, dw]
    }
}

impl Kernel<3> for Convolution {
    type Saved = (FlexTensor, FlexTensor);

    fn forward(&self, [x, weight, bias]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        (self.run(&x, &weight, Some(&bias)), (x, weight))
    }

    fn backward(&self, (x, weight): Self::Saved, grad: FlexTensor, needs: [bool; 3]) -> [Option<FlexTensor>; 3] {
        self.gradients(&x, &weight, &grad, needs)
    }
}

/// `x` `[B, L, C]` convolved with `weight` `[N, C / groups, K]`, plus an optional bias `[N]`: `[B, O, N]`.
///
/// # Panics
/// When the sizes do not fit or the padded input is shorter than the kernel; callers ask `Conv1d::out_length` first.
pub fn conv1d(x: Tensor<3>, weight: Tensor<3>, bias: Option<Tensor<1>>, how: Conv1d) -> Tensor<3> {
    let ([_, l, c], [n, group, k]) = (x.dims(), weight.dims());
    assert!(how.stride > 0 && how.groups > 0 && k > 0, "conv1d: {how:?} with {k} taps");
    assert!(
        group > 0 && group * how.groups == c && n % how.groups == 0,
        "conv1d: {:?} does not fit weight {:?} in {} groups",
        x.dims(),
        weight.dims(),
        how.groups
    );
    assert!(l > 0 && how.out_length(l, k) > 0, "conv1d: {l} positions are shorter than {k} taps");
    assert!(bias.as_ref().is_none_or(|b| b.dims() == [n]), "conv1d: the bias does not have {n} numbers");
    let kernel = Convolution { how, precision: Precision::current() };
    let (input, taps) = (cpu_tensor(x.clone()), cpu_tensor(weight.clone()));
    let fused = match &bias {
        None => apply::<_, 2, 3>(kernel, [input, taps]),
        Some(bias) => apply::<_, 3, 3>(kernel, [input, taps, cpu_tensor(bias.clone())]),
    };
    fused.unwrap_or_else(|| conv1d_plain(x, weight, bias, how))
}

/// The plain composition of `conv1d`.
pub fn conv1d_plain(x: Tensor<3>, weight: Tensor<3>, bias: Option<Tensor<1>>, how: Conv1d) -> Tensor<3> {
    let [b, _, c] = x.dims();
    let device = x.device();
    let mut parts = Vec::new();
    let [left, right] = how.padding.map(|rows| (rows > 0).then(|| Tensor::zeros([b, rows, c], &device)));
    parts.extend(left);
    parts.push(x);
    parts.extend(right);
    let x = if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(parts, 1) };
    // The library's weight gradient of grouped convolutions is wrong where the last positions are not read (burn 0.22.1).
    let (l, k) = (x.dims()[1], weight.dims()[2]);
    let x = x.narrow(1, 0, (l - k) / how.stride * how.stride + k);
    let options = ConvOptions::new([how.stride], [0], [1], how.groups);
    module::conv1d(x.swap_dims(1, 2), weight, bias, options).swap_dims(1, 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, distance, on_threads, random, values};

    /// B, L, C, N, K, stride, left, right, groups
    const CASES: [[usize; 9]; 21] = [
        [1, 1, 1, 1, 1, 1, 0, 0, 1],
        [2, 103, 1, 7, 10, 5, 0, 0, 1],
        [2, 33, 5, 6, 3, 2, 0, 0, 1],
        [3, 12, 4, 3, 2, 2, 0, 0, 1],
        [1, 13, 3, 5, 2, 3, 0, 0, 1],
        [2, 17, 3, 4, 5, 1, 4, 0, 1],
        [2, 19, 3, 4, 5, 3, 2, 7, 1],
        [1, 2, 3, 4, 7, 2, 3, 3, 1],
        [2, 21, 6, 9, 3, 1, 1, 1, 3],
        [2, 23, 8, 4, 8, 2, 4, 4, 2],
        [1, 9, 12, 12, 16, 1, 8, 8, 4],
        [2, 70, 3, 6, 5, 1, 2, 2, 3],
        [2, 150, 19, 19, 31, 1, 15, 15, 19],
        [1, 5, 33, 33, 3, 1, 2, 0, 33],
        [2, 41, 16, 16, 5, 2, 2, 1, 16],
        [2, 11, 17, 17, 4, 3, 0, 0, 17],
        [2, 3, 64, 64, 3, 2, 0, 0, 1],
        [1, 4, 70, 64, 3, 2, 0, 0, 1],
        [2, 5, 64, 65, 3, 2, 0, 0, 1],
        [1, 8, 64, 64, 3, 2, 0, 0, 1],
        [2, 43, 66, 79, 3, 2, 0, 0, 1],
    ];

    fn how([_, _, _, _, _, stride, left, right, groups]: [usize; 9]) -> Conv1d {
        Conv1d { stride, padding: [left, right], groups }
    }

    #[test]
    fn agrees_with_plain_composition() {
        for case in CASES {
            let [b, l, c, n, k, .., groups] = case;
            let inputs = (random([b, l, c], 1), random([n, c / groups, k], 2), random([n], 3));
            agrees(
                inputs.clone(),
                |(x, w, b)| conv1d(x, w, Some(b), how(case)),
                |(x, w, b)| conv1d_plain(x, w, Some(b), how(case)),
            );
            agrees(
                inputs,
                |(x, w, b)| conv1d(x, w, None, how(case)) + b.reshape([1, 1, n]) * 0.0,
                |(x, w, b)| conv1d_plain(x, w, None, how(case)) + b.reshape([1, 1, n]) * 0.0,
            );
        }
    }

    #[test]
    fn values_and_weight_gradients_are_those_of_the_definition() {
        for case in CASES {
            let [b, l, c, n, k, stride, left, _, groups] = case;
            let (x, w, bias) = (random([b, l, c], 1), random([n, c / groups, k], 2), random([n], 3));
            let w = Tensor::from_data(w.into_data(), &burn::tensor::Device::flex().autodiff()).require_grad();
            let y = conv1d(x.clone(), w.clone(), Some(bias.clone()), how(case));
            // The gradient of half of the sum of squares is the output itself.
            let grads = (y.clone() * y.clone() * 0.5).sum().backward();
            let dw = values(w.grad(&grads).expect("on the tape"));
            let ([_, o, _], y, x, w, bias) = (y.dims(), values(y), values(x), values(w), values(bias));
            let group = c / groups;
            let mut by_hand = vec![0f64; w.len()];
            for (i, y) in y.iter().enumerate() {
                let (batch, at, out) = (i / n / o, i / n % o, i % n);
                let mut sum = f64::from(bias[out]);
                for tap in 0..k {
                    let Some(row) = (at * stride + tap).checked_sub(left).filter(|row| *row < l) else { continue };
                    for channel in 0..group {
                        let x = x[(batch * l + row) * c + out / (n / groups) * group + channel];
                        sum += f64::from(x) * f64::from(w[(out * group + channel) * k + tap]);
                        by_hand[(out * group + channel) * k + tap] += f64::from(x) * f64::from(*y);
                    }
                }
                assert!((f64::from(*y) - sum).abs() < 1e-4, "{case:?} at {i}: {y} is not {sum}");
            }
            let by_hand: Vec<f32> = by_hand.into_iter().map(|x| x as f32).collect();
            assert!(distance(&dw, &by_hand) < 1e-5, "{case:?}");
        }
    }

    #[test]
    fn non_contiguous_input_is_read_correctly() {
        agrees(
            (random([2, 4, 15], 1), random([6, 4, 3], 2), random([6], 3)),
            |(x, w, b)| conv1d(x.swap_dims(1, 2), w, Some(b), Conv1d { stride: 2, padding: [1, 1], groups: 1 }),
            |(x, w, b)| conv1d_plain(x.swap_dims(1, 2), w, Some(b), Conv1d { stride: 2, padding: [1, 1], groups: 1 }),
        );
    }

    #[test]
    fn an_empty_batch_gives_empty_rows_and_zero_gradients() {
        for groups in [1, 2, 4] {
            let device = burn::tensor::Device::flex().autodiff();
            let x = Tensor::<3>::from_data(random([0, 9, 4], 1).into_data(), &device).require_grad();
            let w = Tensor::<3>::from_data(random([4, 4 / groups, 3], 2).into_data(), &device).require_grad();
            let y = conv1d(x, w.clone(), None, Conv1d { stride: 1, padding: [1, 1], groups });
            assert_eq!(y.dims(), [0, 9, 4]);
            let grads = y.sum().backward();
            assert!(values(w.grad(&grads).expect("on the tape")).iter().all(|x| *x == 0.0));
        }
    }

    #[test]
    fn infinities_stay_where_they_are_seen() {
        let mut x = vec![1.0f32; 40];
        x[20] = f32::INFINITY;
        let x = Tensor::<1>::from_data(x.as_slice(), &crate::device::cpu()).reshape([1, 10, 4]);
        let w = Tensor::<3>::ones([4, 1, 3], &crate::device::cpu());
        let y = values(conv1d(x, w, None, Conv1d { stride: 1, padding: [0, 0], groups: 4 }));
        assert_eq!(y.iter().filter(|y| !y.is_finite()).count(), 3);
    }

    #[test]
    fn threads_change_no_bit() {
        let run = |threads: usize| {
            on_threads(threads, || {
                let cases = CASES.iter().chain(&[[2, 400, 64, 96, 3, 2, 0, 0, 1], [2, 200, 64, 64, 32, 1, 16, 16, 4]]);
                cases
                    .map(|case| {
                        let [b, l, c, n, k, .., groups] = *case;
                        let device = burn::tensor::Device::flex().autodiff();
                        let x = Tensor::<3>::from_data(random([b, l, c], 1).into_data(), &device).require_grad();
                        let w =
                            Tensor::<3>::from_data(random([n, c / groups, k], 2).into_data(), &device).require_grad();
                        let y = conv1d(x.clone(), w.clone(), None, how(*case));
                        let grads = (y.clone() * y.clone()).sum().backward();
                        [
                            values(y),
                            values(x.grad(&grads).expect("a gradient")),
                            values(w.grad(&grads).expect("a gradient")),
                        ]
                    })
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(run(1), run(2));
    }
}
