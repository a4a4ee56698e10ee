//! Linear map with an optional bias and an optional tensor to add to.
//!
//! # What it computes
//! `y = x W^T + b` for weights stored [out, in] (PyTorch's layout), or `y = x W + b` for weights stored [in, out] (GPT-2's).
//! `linear_add` adds a residual stream to it while the product is in the cache.
// R rows (all leading dimensions), K inputs, N outputs

use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::Precision;
use crate::cpu::bf16::Kept;
use crate::cpu::gemm::{How, View, matmul_new};
use crate::cpu::sums::{add, column_sums};
use crate::matmul::matmul_plain;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, optional, tensor};

/// How a weight matrix is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// [out, in]
    OutIn,
    /// [in, out]
    InOut,
}

impl Layout {
    /// Inputs and outputs of a weight.
    pub(crate) fn sizes(self, weight: &FlexTensor) -> (usize, usize) {
        let d = dims(weight);
        match self {
            Self::OutIn => (d[1], d[0]),
            Self::InOut => (d[0], d[1]),
        }
    }

    /// A weight as [in, out].
    pub(crate) fn view(self, weight: &FlexTensor) -> View<'_> {
        let (k, n) = self.sizes(weight);
        match self {
            Self::OutIn => View::rows(numbers(weight), k).t(),
            Self::InOut => View::rows(numbers(weight), n),
        }
    }
}

#[derive(Debug, Clone)]
struct Linear {
    layout: Layout,
    precision: Precision,
}

impl Linear {
    /// A bias or residual without numbers is none.
    fn product(&self, x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor, residual: &FlexTensor) -> FlexTensor {
        let (k, n) = self.layout.sizes(weight);
        let mut shape = dims(x);
        let rows: usize = shape[..shape.len() - 1].iter().product();
        let x = View::rows(numbers(x), k);
        let (bias, residual) = (numbers(bias), numbers(residual));
        let out = matmul_new([rows, n, k], x, self.layout.view(weight), How::all(self.precision), |i, first, row| {
            if !bias.is_empty() {
                add(row, &bias[first..]);
            }
            if !residual.is_empty() {
                add(row, &residual[i * n + first..]);
            }
        });
        if let Some(last) = shape.last_mut() {
            *last = n;
        }
        tensor(&shape, out)
    }

    fn gradients(&self, (shape, x, weight): Saved, grad: &FlexTensor, needs: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let (k, n) = self.layout.sizes(&weight);
        let rows: usize = shape[..shape.len() - 1].iter().product();
        let db = needs[2].then(|| tensor(&[n], column_sums(numbers(grad), n)));
        let how = How::all(self.precision);
        let (x, grad) = (x.rows(0, k), Kept::new(grad.clone(), self.precision));
        let grad = grad.rows(0, n);
        let dx = needs[0].then(|| {
            let out = matmul_new([rows, k, n], grad, self.layout.view(&weight).t(), how, |_, _, _| {});
            tensor(&shape, out)
        });
        let dw = needs[1].then(|| {
            let out = match self.layout {
                Layout::OutIn => matmul_new([n, k, rows], grad.t(), x, how, |_, _, _| {}),
                Layout::InOut => matmul_new([k, n, rows], x.t(), grad, how, |_, _, _| {}),
            };
            tensor(&dims(&weight), out)
        });
        [dx, dw, db]
    }
}

/// The shape of the input, the input, the weight.
type Saved = (Vec<usize>, Kept, FlexTensor);

impl Kernel<4> for Linear {
    type Saved = Saved;

    fn forward(&self, [x, weight, bias, residual]: [FlexTensor; 4]) -> (FlexTensor, Saved) {
        let out = self.product(&x, &weight, &bias, &residual);
        (out, (dims(&x), Kept::new(x, self.precision), weight))
    }

    fn value(&self, [x, weight, bias, residual]: [FlexTensor; 4]) -> FlexTensor {
        self.product(&x, &weight, &bias, &residual)
    }

    fn backward(&self, saved: Saved, grad: FlexTensor, needs: [bool; 4]) -> [Option<FlexTensor>; 4] {
        let [dx, dw, db] = self.gradients(saved, &grad, [needs[0], needs[1], needs[2]]);
        [dx, dw, db, needs[3].then_some(grad)]
    }
}

fn check<const D: usize>(x: &Tensor<D>, weight: &Tensor<2>, layout: Layout) -> usize {
    let [inputs, outputs] = match layout {
        Layout::OutIn => [weight.dims()[1], weight.dims()[0]],
        Layout::InOut => weight.dims(),
    };
    assert_eq!(x.dims()[D - 1], inputs, "linear: {:?} does not fit weight {:?}", x.dims(), weight.dims());
    outputs
}

/// The kernel; nothing where a tensor does not live on the CPU.
fn fused<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Option<Tensor<D>>,
    layout: Layout,
) -> Option<Tensor<D>> {
    let kernel = Linear { layout, precision: Precision::current() };
    apply(kernel, [cpu_tensor(x.clone()), cpu_tensor(weight.clone()), optional(bias), optional(residual)])
}

/// `linear` plus `residual` `[.., N]`.
///
/// # Panics
/// When the sizes do not fit; models check their shapes when they are built or loaded.
pub fn linear_add<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    residual: Tensor<D>,
    layout: Layout,
) -> Tensor<D> {
    let outputs = check(&x, &weight, layout);
    assert!(
        residual.dims()[D - 1] == outputs && residual.dims()[..D - 1] == x.dims()[..D - 1],
        "linear: the residual {:?} does not fit",
        residual.dims()
    );
    let fused = fused(&x, &weight, bias.clone(), Some(residual.clone()), layout);
    fused.unwrap_or_else(|| linear_plain(x, weight, bias, layout) + residual)
}

/// `x` `[.., K]` times a weight of the given layout, plus an optional bias `[N]`: `[.., N]`.
///
/// # Panics
/// When the sizes do not fit; models check their shapes when they are built or loaded.
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>, layout: Layout) -> Tensor<D> {
    check(&x, &weight, layout);
    let fused = fused(&x, &weight, bias.clone(), None, layout);
    fused.unwrap_or_else(|| linear_plain(x, weight, bias, layout))
}

/// The plain composition of `linear`.
pub fn linear_plain<const D: usize>(
    x: Tensor<D>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
    layout: Layout,
) -> Tensor<D> {
    let weight = match layout {
        Layout::OutIn => weight.transpose(),
        Layout::InOut => weight,
    };
    let [k, n] = weight.dims();
    let mut shape = x.dims();
    let rows = shape[..D - 1].iter().product::<usize>();
    let mut y = matmul_plain(x.reshape([rows, k]), weight);
    if let Some(bias) = bias {
        y = y + bias.reshape([1, n]);
    }
    shape[D - 1] = n;
    y.reshape(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, random};

    #[test]
    fn agrees_with_plain_composition_for_odd_sizes() {
        for (rows, k, n) in [(1, 1, 1), (3, 5, 7), (130, 17, 33), (2, 64, 31)] {
            for layout in [Layout::OutIn, Layout::InOut] {
                let shape = if layout == Layout::OutIn { [n, k] } else { [k, n] };
                let inputs = (random([2, rows, k], 1), random(shape, 2), random([n], 3));
                agrees(
                    inputs.clone(),
                    |(x, w, b)| linear(x, w, Some(b), layout),
                    |(x, w, b)| linear_plain(x, w, Some(b), layout),
                );
                agrees(
                    inputs,
                    |(x, w, b)| linear(x, w, None, layout) + b.reshape([1, 1, n]) * 0.0,
                    |(x, w, b)| linear_plain(x, w, None, layout) + b.reshape([1, 1, n]) * 0.0,
                );
            }
        }
    }

    #[test]
    fn the_residual_is_added_and_gets_the_gradient() {
        for (rows, k, n) in [(1, 1, 1), (130, 17, 33), (2, 200, 96)] {
            let (w, b) = (random([n, k], 2), random([n], 3));
            for bias in [None, Some(b)] {
                agrees(
                    (random([1, rows, k], 1), w.clone(), random([1, rows, n], 4)),
                    |(x, w, r)| linear_add(x, w, bias.clone(), r, Layout::OutIn),
                    |(x, w, r)| linear_plain(x, w, bias.clone(), Layout::OutIn) + r,
                );
            }
        }
    }

    #[test]
    fn non_contiguous_input_is_read_correctly() {
        let inputs = (random([3, 4, 5], 1), random([6, 4], 2), random([6], 3));
        agrees(
            inputs,
            |(x, w, b)| linear(x.swap_dims(1, 2), w, Some(b), Layout::OutIn),
            |(x, w, b)| linear_plain(x.swap_dims(1, 2), w, Some(b), Layout::OutIn),
        );
    }
}
