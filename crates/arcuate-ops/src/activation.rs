//! GELU in its erf and tanh forms, SiLU, ReLU, and gated products (GLU, GeGLU, SwiGLU).
//!
//! # What it computes
//! `gelu(x) = x Phi(x)` with the normal distribution, or with
//! `Phi(x) ~ (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2` (Hendrycks and Gimpel 2016); `silu(x) = x sigmoid(x)`.
//! `geglu(g, u) = gelu(g) u` and `swiglu(g, u) = silu(g) u` (Shazeer 2020); `glu(g, u) = sigmoid(g) u` (Dauphin et al. 2017).

use burn::tensor::{Tensor, activation};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::cpu::gemm::buffer;
use crate::cpu::math;
use crate::cpu::simd::simd;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

/// Numbers of one task.
const BLOCK: usize = 1 << 13;
/// Numbers that are copied and then changed in place: they stay in the nearest cache.
const PIECE: usize = 1 << 10;
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

/// Which normal distribution function GELU uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// The exact one.
    Erf,
    /// The tanh approximation of GPT-2 (`gelu_new`).
    Tanh,
}

/// Value and slope of the erf form.
#[inline(always)]
fn erf_form(x: f32) -> (f32, f32) {
    let (cdf, pdf) = math::normal_cdf_pdf(x);
    (x * cdf, cdf + x * pdf)
}

/// Value and slope of the tanh form; `(1 + tanh(z)) / 2` is `sigmoid(2 z)`.
#[inline(always)]
fn tanh_form(x: f32) -> (f32, f32) {
    let s = math::sigmoid(2.0 * SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x));
    let slope = 2.0 * SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044_715 * x * x);
    (x * s, s + x * s * (1.0 - s) * slope)
}

/// Value and slope of SiLU.
#[inline(always)]
fn silu_form(x: f32) -> (f32, f32) {
    let s = math::sigmoid(x);
    (x * s, s * (1.0 + x * (1.0 - s)))
}

/// Value and slope of ReLU.
#[inline(always)]
fn relu_form(x: f32) -> (f32, f32) {
    if x > 0.0 { (x, 1.0) } else { (0.0, 0.0) }
}

/// Value and slope of the logistic function.
#[inline(always)]
fn sigmoid_form(x: f32) -> (f32, f32) {
    let s = math::sigmoid(x);
    (s, s * (1.0 - s))
}

/// The loops of one form: in place, its backward pass, that one with the values, gated, and that one's backward pass.
macro_rules! loops {
    ($form:ident: $in_place:ident, $backward:ident, $again:ident, $gated:ident, $gated_backward:ident) => {
        simd! {
            fn $in_place(x: &mut [f32]) {
                for x in x {
                    *x = $form(*x).0;
                }
            }
        }

        simd! {
            fn $backward(x: &[f32], grad: &[f32], out: &mut [f32]) {
                for ((x, grad), out) in x.iter().zip(grad).zip(out) {
                    *out = grad * $form(*x).1;
                }
            }
        }

        simd! {
            fn $again(x: &mut [f32], grad: &mut [f32]) {
                for (x, grad) in x.iter_mut().zip(grad) {
                    let (value, slope) = $form(*x);
                    *grad *= slope;
                    *x = value;
                }
            }
        }

        simd! {
            fn $gated(gate: &[f32], up: &mut [f32]) {
                for (g, u) in gate.iter().zip(up) {
                    *u *= $form(*g).0;
                }
            }
        }

        simd! {
            fn $gated_backward(gate: &[f32], up: &[f32], grad: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
                for ((((g, u), grad), dg), du) in gate.iter().zip(up).zip(grad).zip(dgate).zip(dup) {
                    let (value, slope) = $form(*g);
                    *dg = grad * u * slope;
                    *du = grad * value;
                }
            }
        }
    };
}

loops!(erf_form: gelu_erf, gelu_erf_backward, gelu_erf_again, geglu_erf, geglu_erf_backward);
loops!(tanh_form: gelu_tanh, gelu_tanh_backward, gelu_tanh_again, geglu_tanh, geglu_tanh_backward);
loops!(silu_form: silu_in_place, silu_backward, silu_again, swiglu_block, swiglu_backward);
loops!(relu_form: relu_in_place, relu_backward, relu_again, reglu, reglu_backward);
loops!(sigmoid_form: sigmoid_in_place, sigmoid_backward, sigmoid_again, glu_block, glu_backward);

/// A function of single numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// GELU with the exact normal distribution.
    GeluErf,
    /// GELU in its tanh form.
    GeluTanh,
    /// SiLU, also called swish.
    Silu,
    /// ReLU.
    Relu,
    /// The logistic function.
    Sigmoid,
}

impl From<Gelu> for Form {
    fn from(form: Gelu) -> Self {
        match form {
            Gelu::Erf => Self::GeluErf,
            Gelu::Tanh => Self::GeluTanh,
        }
    }
}

impl Form {
    /// Replaces numbers by their values.
    pub(crate) fn in_place(self, x: &mut [f32]) {
        match self {
            Self::GeluErf => gelu_erf(x),
            Self::GeluTanh => gelu_tanh(x),
            Self::Silu => silu_in_place(x),
            Self::Relu => relu_in_place(x),
            Self::Sigmoid => sigmoid_in_place(x),
        }
    }

    /// Gradients of arguments from arguments and gradients of values.
    pub(crate) fn gradient(self, x: &[f32], grad: &[f32], out: &mut [f32]) {
        match self {
            Self::GeluErf => gelu_erf_backward(x, grad, out),
            Self::GeluTanh => gelu_tanh_backward(x, grad, out),
            Self::Silu => silu_backward(x, grad, out),
            Self::Relu => relu_backward(x, grad, out),
            Self::Sigmoid => sigmoid_backward(x, grad, out),
        }
    }

    /// Replaces arguments by values and gradients of values by gradients of arguments.
    pub(crate) fn again(self, x: &mut [f32], grad: &mut [f32]) {
        match self {
            Self::GeluErf => gelu_erf_again(x, grad),
            Self::GeluTanh => gelu_tanh_again(x, grad),
            Self::Silu => silu_again(x, grad),
            Self::Relu => relu_again(x, grad),
            Self::Sigmoid => sigmoid_again(x, grad),
        }
    }

    /// Multiplies the other branch by values of the gate.
    pub(crate) fn gate(self, gate: &[f32], up: &mut [f32]) {
        match self {
            Self::GeluErf => geglu_erf(gate, up),
            Self::GeluTanh => geglu_tanh(gate, up),
            Self::Silu => swiglu_block(gate, up),
            Self::Relu => reglu(gate, up),
            Self::Sigmoid => glu_block(gate, up),
        }
    }

    /// Gradients of gate and other branch from both and the gradients of their product.
    pub(crate) fn gated_backward(self, gate: &[f32], up: &[f32], grad: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
        match self {
            Self::GeluErf => geglu_erf_backward(gate, up, grad, dgate, dup),
            Self::GeluTanh => geglu_tanh_backward(gate, up, grad, dgate, dup),
            Self::Silu => swiglu_backward(gate, up, grad, dgate, dup),
            Self::Relu => reglu_backward(gate, up, grad, dgate, dup),
            Self::Sigmoid => glu_backward(gate, up, grad, dgate, dup),
        }
    }
}

impl Kernel<1> for Form {
    type Saved = FlexTensor;

    fn forward(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        let mut out = buffer(numbers(&x).len());
        out.par_chunks_mut(BLOCK).zip(numbers(&x).par_chunks(BLOCK)).for_each(|(out, x)| {
            for (out, x) in out.chunks_mut(PIECE).zip(x.chunks(PIECE)) {
                out.copy_from_slice(x);
                self.in_place(out);
            }
        });
        (tensor(&dims(&x), out), x)
    }

    fn backward(&self, x: FlexTensor, grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let mut out = buffer(numbers(&x).len());
        out.par_chunks_mut(BLOCK)
            .zip(numbers(&x).par_chunks(BLOCK))
            .zip(numbers(&grad).par_chunks(BLOCK))
            .for_each(|((out, x), grad)| self.gradient(x, grad, out));
        [Some(tensor(&dims(&x), out))]
    }
}

/// A form of the gate times the other branch.
#[derive(Debug, Clone)]
struct Gated(Form);

impl Kernel<2> for Gated {
    type Saved = (FlexTensor, FlexTensor);

    fn forward(&self, [gate, up]: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let mut out = buffer(numbers(&gate).len());
        out.par_chunks_mut(BLOCK).zip(numbers(&gate).par_chunks(BLOCK)).zip(numbers(&up).par_chunks(BLOCK)).for_each(
            |((out, gate), up)| {
                for ((out, gate), up) in out.chunks_mut(PIECE).zip(gate.chunks(PIECE)).zip(up.chunks(PIECE)) {
                    out.copy_from_slice(up);
                    self.0.gate(gate, out);
                }
            },
        );
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
            .for_each(|((((dgate, dup), gate), up), grad)| self.0.gated_backward(gate, up, grad, dgate, dup));
        [Some(tensor(&dims(&gate), dgate)), Some(tensor(&dims(&up), dup))]
    }
}

/// A function of every element.
pub fn activate<const D: usize>(x: Tensor<D>, form: Form) -> Tensor<D> {
    apply(form, [cpu_tensor(x.clone())]).unwrap_or_else(|| activate_plain(x, form))
}

/// The plain composition of `activate`.
pub fn activate_plain<const D: usize>(x: Tensor<D>, form: Form) -> Tensor<D> {
    match form {
        Form::GeluErf => gelu_plain(x, Gelu::Erf),
        Form::GeluTanh => gelu_plain(x, Gelu::Tanh),
        Form::Silu => silu_plain(x),
        Form::Relu => activation::relu(x),
        Form::Sigmoid => activation::sigmoid(x),
    }
}

/// GELU of every element.
pub fn gelu<const D: usize>(x: Tensor<D>, form: Gelu) -> Tensor<D> {
    apply(Form::from(form), [cpu_tensor(x.clone())]).unwrap_or_else(|| gelu_plain(x, form))
}

/// The plain composition of `gelu`.
pub fn gelu_plain<const D: usize>(x: Tensor<D>, form: Gelu) -> Tensor<D> {
    let cdf = match form {
        Gelu::Erf => x.clone().mul_scalar(std::f64::consts::FRAC_1_SQRT_2).erf(),
        Gelu::Tanh => (x.clone() + x.clone().powi_scalar(3) * 0.044_715).mul_scalar(SQRT_2_OVER_PI).tanh(),
    };
    x * (cdf + 1.0) * 0.5
}

/// SiLU (swish) of every element.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    apply(Form::Silu, [cpu_tensor(x.clone())]).unwrap_or_else(|| silu_plain(x))
}

/// The plain composition of `silu`.
pub fn silu_plain<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::silu(x)
}

/// SiLU of the gate times the other branch; both have the same shape.
pub fn swiglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "swiglu: shapes differ");
    apply(Gated(Form::Silu), [cpu_tensor(gate.clone()), cpu_tensor(up.clone())])
        .unwrap_or_else(|| swiglu_plain(gate, up))
}

/// The plain composition of `swiglu`.
pub fn swiglu_plain<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    silu_plain(gate) * up
}

/// The logistic function of the gate times the other branch (GLU); both have the same shape.
pub fn glu<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "glu: shapes differ");
    apply(Gated(Form::Sigmoid), [cpu_tensor(gate.clone()), cpu_tensor(up.clone())])
        .unwrap_or_else(|| glu_plain(gate, up))
}

/// The plain composition of `glu`.
pub fn glu_plain<const D: usize>(gate: Tensor<D>, up: Tensor<D>) -> Tensor<D> {
    activation::sigmoid(gate) * up
}

/// GELU of the gate times the other branch; both have the same shape.
pub fn geglu<const D: usize>(gate: Tensor<D>, up: Tensor<D>, form: Gelu) -> Tensor<D> {
    assert_eq!(gate.dims(), up.dims(), "geglu: shapes differ");
    apply(Gated(form.into()), [cpu_tensor(gate.clone()), cpu_tensor(up.clone())])
        .unwrap_or_else(|| geglu_plain(gate, up, form))
}

/// The plain composition of `geglu`.
pub fn geglu_plain<const D: usize>(gate: Tensor<D>, up: Tensor<D>, form: Gelu) -> Tensor<D> {
    gelu_plain(gate, form) * up
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, random};

    #[test]
    fn gelu_and_silu_agree_with_plain_composition() {
        for n in [0, 1, 17, 10_000] {
            let inputs = || (random([n, 2], 1) * 3.0, random([1], 2), random([1], 3));
            for form in [Gelu::Erf, Gelu::Tanh] {
                agrees(inputs(), |(x, _, _)| gelu(x, form), |(x, _, _)| gelu_plain(x, form));
            }
            agrees(inputs(), |(x, _, _)| silu(x), |(x, _, _)| silu_plain(x));
            for form in [Form::GeluErf, Form::GeluTanh, Form::Silu, Form::Relu, Form::Sigmoid] {
                agrees(inputs(), |(x, _, _)| activate(x, form), |(x, _, _)| activate_plain(x, form));
            }
        }
    }

    #[test]
    fn gated_products_agree_with_plain_composition() {
        for n in [1, 17, 10_000] {
            let inputs = || (random([n, 2], 1) * 3.0, random([n, 2], 2), random([1], 3));
            agrees(inputs(), |(g, u, _)| swiglu(g, u), |(g, u, _)| swiglu_plain(g, u));
            agrees(inputs(), |(g, u, _)| glu(g, u), |(g, u, _)| glu_plain(g, u));
            for form in [Gelu::Erf, Gelu::Tanh] {
                agrees(inputs(), |(g, u, _)| geglu(g, u, form), |(g, u, _)| geglu_plain(g, u, form));
            }
        }
    }

    #[test]
    fn non_contiguous_input_is_read_correctly() {
        agrees(
            (random([3, 5], 1), random([5, 3], 2), random([1], 3)),
            |(g, u, _)| swiglu(g.transpose(), u),
            |(g, u, _)| swiglu_plain(g.transpose(), u),
        );
    }

    #[test]
    fn extreme_values_stay_finite() {
        let x = Tensor::<1>::from_data([-1e30f32, -100.0, 0.0, 100.0, 1e30], &crate::device::cpu());
        for form in [Gelu::Erf, Gelu::Tanh] {
            let y: Vec<f32> = crate::gradcheck::values(gelu(x.clone(), form));
            // The exponential ends at e^-87, so the tanh form leaves less than 1e-30 where the true value is smaller still.
            assert!(y[1].abs() < 1e-30, "{form:?}");
            assert_eq!((y[2], y[3]), (0.0, 100.0), "{form:?}");
            assert!(y[4] > 1e29);
        }
        assert!(crate::gradcheck::values(silu(x)).iter().all(|x| x.is_finite()));
    }
}
