//! GELU in its erf and tanh forms, and the gated SiLU of SwiGLU.
//!
//! # What it computes
//! `gelu(x) = x Phi(x)` with the normal distribution, or with
//! `Phi(x) ~ (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2` (Hendrycks and Gimpel 2016).
//! `swiglu(g, u) = g sigmoid(g) u` (Shazeer 2020).

use burn::tensor::{Tensor, activation};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::cpu::gemm::buffer;
use crate::cpu::math;
use crate::cpu::simd::simd;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

const BLOCK: usize = 1 << 13;
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// Which normal distribution function GELU uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// The exact one.
    Erf,
    /// The tanh approximation of GPT-2 (`gelu_new`).
    Tanh,
}

simd! {
    fn gelu_erf(x: &[f32], out: &mut [f32]) {
        for (x, out) in x.iter().zip(out) {
            *out = x * math::normal_cdf_pdf(*x).0;
        }
    }
}

simd! {
    fn gelu_erf_backward(x: &[f32], grad: &[f32], out: &mut [f32]) {
        for ((x, grad), out) in x.iter().zip(grad).zip(out) {
            let (cdf, pdf) = math::normal_cdf_pdf(*x);
            *out = grad * (cdf + x * pdf);
        }
    }
}

simd! {
    fn gelu_tanh(x: &[f32], out: &mut [f32]) {
        for (x, out) in x.iter().zip(out) {
            let t = math::tanh(SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x));
            *out = 0.5 * x * (1.0 + t);
        }
    }
}

simd! {
    fn gelu_tanh_backward(x: &[f32], grad: &[f32], out: &mut [f32]) {
        for ((x, grad), out) in x.iter().zip(grad).zip(out) {
            let t = math::tanh(SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x));
            let slope = SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044_715 * x * x);
            *out = grad * 0.5 * (1.0 + t + x * (1.0 - t * t) * slope);
        }
    }
}

simd! {
    fn swiglu_block(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((g, u), out) in gate.iter().zip(up).zip(out) {
            *out = g * math::sigmoid(*g) * u;
        }
    }
}

simd! {
    fn swiglu_block_backward(gate: &[f32], up: &[f32], grad: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        for ((((g, u), grad), dg), du) in gate.iter().zip(up).zip(grad).zip(dgate).zip(dup) {
            let s = math::sigmoid(*g);
            *dg = grad * u * s * (1.0 + g * (1.0 - s));
            *du = grad * g * s;
        }
    }
}

impl Kernel<1> for Gelu {
    type Saved = FlexTensor;

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        let mut out = buffer(numbers(&x).len());
        let block = if *self == Self::Erf { gelu_erf } else { gelu_tanh };
        out.par_chunks_mut(BLOCK).zip(numbers(&x).par_chunks(BLOCK)).for_each(|(out, x)| block(x, out));
        (tensor(&dims(&x), out), x)
    }

    fn backward(&self, x: FlexTensor, grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let mut out = buffer(numbers(&x).len());
        let block = if *self == Self::Erf { gelu_erf_backward } else { gelu_tanh_backward };
        out.par_chunks_mut(BLOCK)
            .zip(numbers(&x).par_chunks(BLOCK))
            .zip(numbers(&grad).par_chunks(BLOCK))
            .for_each(|((out, x), grad)| block(x, grad, out));
        [Some(tensor(&dims(&x), out))]
    }
}

#[derive(Debug, Clone)]
struct SwiGlu;

impl Kernel<2> for SwiGlu {
    type Saved = (FlexTensor, FlexTensor);

    fn forward(&self, [gate, up]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let mut out = buffer(numbers(&gate).len());
        out.par_chunks_mut(BLOCK)
            .zip(numbers(&gate).par_chunks(BLOCK))
            .zip(numbers(&up).par_chunks(BLOCK))
            .for_each(|((out, gate), up)| swiglu_block(gate, up, out));
        (tensor(&dims(&gate), out), (gate, up))
    }

    fn backward(&self, (gate, up): Self::Saved, grad: FlexTensor, _: [bool; 2]) -> [Option<FlexTensor>; 2] {
        let n = numbers(&gate).len();
        let (mut dgate, mut dup) = (buffer(n), buffer(n));
        dgate
            .par_chunks_mut(BLOCK)
            .zip(dup.par_chunks_mut(BLOCK))
            .zip(numbers(&gate).par_chunks(BLOCK))
            .zip(numbers(&up).par_chunks(BLOCK))
            .zip(numbers(&grad).par_chunks(BLOCK))
            .for_each(|((((dgate, dup), gate), up), grad)| swiglu_block_backward(gate, up, grad, dgate, dup));
        [Some(tensor(&dims(&gate), dgate)), Some(tensor(&dims(&up), dup))]
    }
}

/// GELU of every element.
pub fn gelu<const D: usize>(x: Tensor<D>, form: Gelu) -> Tensor<D> {
    apply(form, [cpu_tensor(x.clone())]).unwrap_or_else(|| gelu_plain(x, form))
}

/// The plain composition of `gelu`.
pub fn gelu_plain<const D: usize>(x: Tensor<D>, form: Gelu) -> Tensor<D> {
    let cdf = match form {
        Gelu::Erf => x.clone().mul_scalar(std::f64::consts::FRAC_1_SQRT_2).erf(),
        Gelu::Tanh => (x.clone() + x.clone().powi_scalar(3) * 0.044_715).mul_scalar(SQRT_2_OVER_PI).tanh(),
    };
    x * (cdf + 1.0) * 0.5
}

/// SiLU of the gate times the other branch; both have the same shape.
pub fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "swiglu: shapes differ");
    apply(SwiGlu, [cpu_tensor(gate.clone()), cpu_tensor(up.clone())]).unwrap_or_else(|| swiglu_plain(gate, up))
}

/// The plain composition of `swiglu`.
pub fn swiglu_plain<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    activation::silu(gate) * up
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, random};

    #[test]
    fn gelu_agrees_with_plain_composition() {
        for form in [Gelu::Erf, Gelu::Tanh] {
            for n in [1, 17, 10_000] {
                agrees(
                    (random([n, 2], 1) * 3.0, random([1], 2), random([1], 3)),
                    |(x, _, _)| gelu(x, form),
                    |(x, _, _)| gelu_plain(x, form),
                );
            }
        }
    }

    #[test]
    fn swiglu_agrees_with_plain_composition() {
        for n in [1, 17, 10_000] {
            agrees(
                (random([n, 2], 1) * 3.0, random([n, 2], 2), random([1], 3)),
                |(g, u, _)| swiglu(g, u),
                |(g, u, _)| swiglu_plain(g, u),
            );
        }
    }

    #[test]
    fn extreme_values_stay_finite() {
        let x = Tensor::<1>::from_data([-1e30f32, -100.0, 0.0, 100.0, 1e30], &crate::device::cpu());
        for form in [Gelu::Erf, Gelu::Tanh] {
            let y: Vec<f32> = crate::gradcheck::values(gelu(x.clone(), form));
            assert_eq!((y[1], y[2], y[3]), (0.0, 0.0, 100.0), "{form:?}");
            assert!(y[4] > 1e29);
        }
    }
}
