//! Values as they are, gradients times a factor.
//!
//! # What it computes
//! `y = x`; on the way back the gradient of `x` is `factor` times that of `y`. What lies below learns more slowly.
//!
//! # Reference
//! wav2vec 2.0 (Baevski et al. 2020) slows its convolutions down in this way.

use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

#[derive(Debug, Clone)]
struct Scale(f32);

impl Kernel<1> for Scale {
    type Saved = ();

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, ()) {
        (x, ())
    }

    fn backward(&self, (): (), grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let scaled = numbers(&grad).iter().map(|grad| grad * self.0).collect();
        [Some(tensor(&dims(&grad), scaled))]
    }
}

/// `x`, whose gradient is taken `factor` times.
pub fn scale_gradient<const D: usize>(x: Tensor<D>, factor: f64) -> Tensor<D> {
    if factor == 1.0 {
        return x;
    }
    apply(Scale(factor as f32), [cpu_tensor(x.clone())]).unwrap_or_else(|| scale_gradient_plain(x, factor))
}

/// The plain composition of `scale_gradient`.
pub fn scale_gradient_plain<const D: usize>(x: Tensor<D>, factor: f64) -> Tensor<D> {
    let moving = x.clone() - x.clone().detach();
    x.detach() + moving * factor
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, random, values};
    use burn::tensor::Device;

    #[test]
    fn agrees_with_plain_composition() {
        for factor in [0.0, 0.1, 1.0, 2.5] {
            agrees(
                (random([3, 5], 1), random([1], 2), random([1], 3)),
                |(x, _, _)| scale_gradient(x, factor),
                |(x, _, _)| scale_gradient_plain(x, factor),
            );
        }
    }

    #[test]
    fn values_stay_and_gradients_shrink() {
        let x = Tensor::<1>::from_data([1.0f32, -2.0], &Device::flex().autodiff()).require_grad();
        let y = scale_gradient(x.clone(), 0.1);
        assert_eq!(values(y.clone()), [1.0, -2.0]);
        assert_eq!(values(x.grad(&(y * 3.0).sum().backward()).expect("a gradient")), [0.1 * 3.0, 0.1 * 3.0]);
    }
}
