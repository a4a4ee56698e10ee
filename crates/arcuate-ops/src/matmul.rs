//! Batched matrix product.
//!
//! # What it computes
//! `c = a b` for every pair of matrices in the leading dimensions, with `da = dc b^T` and `db = a^T dc` on the way back.
// N pairs (all leading dimensions), R rows, K inner, C columns

use burn::tensor::{DType, Tensor};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::Precision;
use crate::cpu::gemm::{How, View, buffer, matmul as product};
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

#[derive(Debug, Clone)]
struct MatMul {
    precision: Precision,
}

/// One pair at a time with all threads when there are few, else one thread a pair.
const FEW: usize = 4;

impl MatMul {
    /// Products of `count` pairs of views into one buffer.
    fn products<'a>(
        &self,
        count: usize,
        sizes: [usize; 3],
        a: impl Fn(usize) -> View<'a> + Sync,
        b: impl Fn(usize) -> View<'a> + Sync,
    ) -> Vec<f32> {
        let [m, n, _] = sizes;
        let mut out = buffer(count * m * n);
        if m * n == 0 {
            return out;
        }
        let pair = |(i, out): (usize, &mut [f32]), how| product(sizes, a(i), b(i), out, n, how);
        if count < FEW {
            out.chunks_mut(m * n).enumerate().for_each(|at| pair(at, How::all(self.precision)));
        } else {
            out.par_chunks_mut(m * n).enumerate().for_each(|at| pair(at, How::one(self.precision)));
        }
        out
    }
}

/// N, R, K, C of a pair of tensors.
fn sizes(a: &FlexTensor, b: &FlexTensor) -> [usize; 4] {
    let (a, b) = (dims(a), dims(b));
    let d = a.len();
    [a[..d - 2].iter().product(), a[d - 2], a[d - 1], b[d - 1]]
}

impl Kernel<2> for MatMul {
    type Saved = (FlexTensor, FlexTensor);

    fn forward(&self, [a, b]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let [count, r, k, c] = sizes(&a, &b);
        let (x, y) = (numbers(&a), numbers(&b));
        let out =
            self.products(count, [r, c, k], |i| View::rows(&x[i * r * k..], k), |i| View::rows(&y[i * k * c..], c));
        let mut shape = dims(&a);
        *shape.last_mut().expect("a matrix has two dimensions") = c;
        (tensor(&shape, out), (a, b))
    }

    fn backward(&self, (a, b): Self::Saved, grad: FlexTensor, needs: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let [count, r, k, c] = sizes(&a, &b);
        let (x, y, g) = (numbers(&a), numbers(&b), numbers(&grad));
        let da = needs[0].then(|| {
            let (g, y) = (|i| View::rows(&g[i * r * c..], c), |i| View::rows(&y[i * k * c..], c).t());
            tensor(&dims(&a), self.products(count, [r, k, c], g, y))
        });
        let db = needs[1].then(|| {
            let (x, g) = (|i| View::rows(&x[i * r * k..], k).t(), |i| View::rows(&g[i * r * c..], c));
            tensor(&dims(&b), self.products(count, [k, c, r], x, g))
        });
        [da, db]
    }
}

/// `a` `[.., R, K]` times `b` `[.., K, C]`: `[.., R, C]`; the leading dimensions are the same.
///
/// # Panics
/// When the sizes do not fit.
pub fn matmul<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    let (x, y) = (a.dims(), b.dims());
    assert!(D >= 2 && x[..D - 2] == y[..D - 2] && x[D - 1] == y[D - 2], "matmul: {x:?} and {y:?} do not fit");
    let kernel = MatMul { precision: Precision::current() };
    apply(kernel, [cpu_tensor(a.clone()), cpu_tensor(b.clone())]).unwrap_or_else(|| matmul_plain(a, b))
}

/// The plain composition of `matmul`; in bf16 the factors are cast, and the result back.
pub fn matmul_plain<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
    match Precision::current() {
        Precision::F32 => a.matmul(b),
        Precision::Bf16 => a.cast(DType::BF16).matmul(b.cast(DType::BF16)).cast(DType::F32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, random, values};

    #[test]
    fn agrees_with_plain_composition_for_odd_sizes() {
        for (n, r, k, c) in [(1, 1, 1, 1), (2, 3, 5, 7), (9, 17, 33, 2), (3, 64, 1, 65)] {
            agrees(
                (random([n, 1, r, k], 1), random([n, 1, k, c], 2), random([1], 3)),
                |(a, b, _)| matmul(a, b),
                |(a, b, _)| matmul_plain(a, b),
            );
        }
    }

    #[test]
    fn non_contiguous_input_is_read_correctly() {
        agrees(
            (random([2, 5, 3], 1), random([2, 5, 4], 2), random([1], 3)),
            |(a, b, _)| matmul(a.swap_dims(1, 2), b),
            |(a, b, _)| matmul_plain(a.swap_dims(1, 2), b),
        );
    }

    #[test]
    fn nothing_times_something_is_nothing() {
        assert_eq!(matmul(random([0, 2, 3], 1), random([0, 3, 4], 2)).dims(), [0, 2, 4]);
        assert_eq!(values(matmul(random([2, 0], 1), random([0, 2], 2))), [0.0; 4]);
    }
}
