//! Every operation on a device against the same operation on the CPU: values and gradients.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};

use crate::activation::{Gelu, geglu, gelu, silu, swiglu};
use crate::adamw::{AdamwStep, adamw};
use crate::attention::{Attention, Dropout as AttentionDropout, attention, attention_packed, attention_relative};
use crate::batch_norm::batch_norm;
use crate::conv1d::{Conv1d, conv1d};
use crate::crf::{Crf, crf};
use crate::ctc::{Ctc, ctc, ctc_rows};
use crate::device::{caught, cpu};
use crate::dropout::{Dropout, dropout};
use crate::embedding::embedding;
use crate::feed_forward::{Map, feed_forward, feed_forward_gated};
use crate::global_norm::global_norm;
use crate::gradcheck::{Three, distance, pass, random, values};
use crate::group_norm::{group_norm, group_norm_gelu};
use crate::linear::{Layout, linear, linear_add};
use crate::linear_cross_entropy::{CrossEntropy, linear_cross_entropy, linear_cross_entropy_rows};
use crate::matmul::matmul;
use crate::newton_schulz::{MuonStep, muon};
use crate::norm::{layer_norm, layer_norm_residual, rms_norm};
use crate::place::place;
use crate::rope::{Rotation, rope};
use crate::weight_norm::{Keep, weight_norm};
use crate::{Precision, plain_only};

/// Relative L2 distance at which f32 results are no longer the same.
const EXACT: f64 = 1e-4;
/// The same where a device multiplies f32 with fewer bits (TF32 has 11).
const PRODUCT: f64 = 5e-3;
/// The same for products in bf16 (8 bits) and what follows from them.
const BF16: f64 = 3e-2;

/// One operation on the device.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// Operation and variant.
    pub what: &'static str,
    /// The largest relative L2 distance over value and gradients, or what the device said when it failed.
    pub difference: Result<f64, String>,
    /// How far apart the two may be.
    pub tolerance: f64,
}

impl Check {
    /// Whether the operation computes what the CPU computes.
    pub fn holds(&self) -> bool {
        self.difference.as_ref().is_ok_and(|difference| *difference <= self.tolerance)
    }
}

/// The keys that a query may attend to.
type Keys<'a> = &'a dyn Fn(u32) -> [u32; 2];

struct Checks<'a> {
    device: &'a Device,
    /// Whether the CPU stands in for a device without kernels of ours.
    plain: bool,
    done: Vec<Check>,
}

impl Checks<'_> {
    /// Compares what a function gives on two devices.
    fn compare(&mut self, what: &'static str, tolerance: f64, f: impl Fn(&Device) -> Vec<Vec<f32>>) {
        let here = f(&cpu());
        let there = caught(|| if self.plain { plain_only(|| f(self.device)) } else { f(self.device) });
        let difference = there.map(|there| {
            let apart = here
                .iter()
                .zip(&there)
                .map(|(here, there)| if here.len() == there.len() { distance(there, here) } else { f64::INFINITY });
            apart.fold(0.0, |a: f64, b| if b.is_nan() { b } else { a.max(b) })
        });
        self.done.push(Check { what, difference, tolerance });
    }

    /// Compares value and gradients of a function.
    fn gradients<const A: usize, const B: usize, const C: usize, const D: usize>(
        &mut self,
        what: &'static str,
        tolerance: f64,
        inputs: Three<A, B, C>,
        f: impl Fn(Three<A, B, C>) -> Tensor<D>,
    ) {
        self.compare(what, tolerance, |device| pass(&inputs, &f, &device.clone().autodiff()).to_vec());
    }
}

/// Runs every operation on a device and on the CPU.
pub fn check(device: &Device) -> Vec<Check> {
    check_as(device, false)
}

fn check_as(device: &Device, plain: bool) -> Vec<Check> {
    let mut checks = Checks { device, plain, done: Vec::new() };
    pointwise(&mut checks);
    norms(&mut checks);
    products(&mut checks);
    losses(&mut checks);
    updates(&mut checks);
    checks.done
}

fn pointwise(checks: &mut Checks) {
    let unused = || random([1], 3);
    let x = || random([3, 37, 66], 1);
    checks.gradients("gelu, erf", EXACT, (x(), unused(), unused()), |(x, _, _)| gelu(x, Gelu::Erf));
    checks.gradients("gelu, tanh", EXACT, (x(), unused(), unused()), |(x, _, _)| gelu(x, Gelu::Tanh));
    checks.gradients("silu", EXACT, (x(), unused(), unused()), |(x, _, _)| silu(x));
    checks.gradients("geglu", EXACT, (x(), random([3, 37, 66], 2), unused()), |(g, u, _)| geglu(g, u, Gelu::Tanh));
    checks.gradients("swiglu", EXACT, (x(), random([3, 37, 66], 2), unused()), |(g, u, _)| swiglu(g, u));
    let how = Dropout { seed: 1, step: 2, site: 3, probability: 0.3 };
    checks.gradients("dropout", EXACT, (x(), unused(), unused()), |(x, _, _)| dropout(x, &how));
    let positions: Arc<[i32]> = (0..3 * 37).map(|i| i % 37).collect();
    let rotation = Rotation::new(&positions, &[1.0, 0.1, 0.01]);
    checks.gradients("rope", EXACT, (x(), unused(), unused()), |(x, _, _)| rope(x, &rotation));
    let ids: Arc<[i32]> = vec![0, 3, 3, 1, 6].into();
    for (what, constant) in [("embedding", None), ("embedding with a constant row", Some(3))] {
        let inputs = (random([7, 65], 1), unused(), unused());
        checks.gradients(what, EXACT, inputs, |(table, _, _)| embedding(table, &ids, constant));
    }
}

fn norms(checks: &mut Checks) {
    let inputs = || (random([3, 37, 66], 1), random([66], 2), random([66], 3));
    checks.gradients("rms_norm", EXACT, inputs(), |(x, w, _)| rms_norm(x, w, 1e-5));
    checks.gradients("layer_norm", EXACT, inputs(), |(x, w, b)| layer_norm(x, w, b, 1e-5));
    let residual = (random([3, 37, 66], 1), random([3, 37, 66], 2), random([66], 3));
    checks.gradients("layer_norm_residual", EXACT, residual, |(x, y, w)| layer_norm_residual(x, y, w.clone(), w, 1e-5));
    checks.gradients("group_norm", EXACT, inputs(), |(x, w, b)| group_norm(x, w, b, 3, 1e-5));
    checks.gradients("group_norm_gelu", EXACT, inputs(), |(x, w, b)| group_norm_gelu(x, w, b, 3, 1e-5));
    let valid: Vec<bool> = (0..3 * 37).map(|i| i % 5 != 2).collect();
    checks.gradients("batch_norm", EXACT, inputs(), |(x, w, b)| batch_norm(x, w, b, &valid, 1e-5).0);
    let inputs = (random([6, 5, 33], 1), random([33], 2), random([1], 3));
    checks.gradients("weight_norm", EXACT, inputs, |(v, g, _)| weight_norm(v, g, Keep::Last));
}

fn products(checks: &mut Checks) {
    let inputs = (random([2, 37, 66], 1), random([2, 66, 30], 2), random([1], 3));
    checks.gradients("matmul", PRODUCT, inputs, |(a, b, _)| matmul(a, b));
    let how = Conv1d { stride: 2, padding: [3, 2], groups: 2 };
    let inputs = (random([2, 40, 8], 1), random([6, 4, 5], 2), random([6], 3));
    checks.gradients("conv1d", PRODUCT, inputs, |(x, w, b)| conv1d(x, w, Some(b), how));
    for (what, layout, shape) in
        [("linear, [out, in]", Layout::OutIn, [130, 66]), ("linear, [in, out]", Layout::InOut, [66, 130])]
    {
        let inputs = (random([3, 37, 66], 1), random(shape, 2), random([130], 3));
        checks.gradients(what, PRODUCT, inputs, |(x, w, b)| linear(x, w, Some(b), layout));
    }
    let inputs = (random([3, 37, 66], 1), random([130, 66], 2), random([3, 37, 130], 3));
    checks.gradients("linear_add", PRODUCT, inputs, |(x, w, r)| linear_add(x, w, None, r, Layout::OutIn));
    let map = |weight: Tensor<2>, bias| Map { weight, bias };
    let inputs = (random([3, 37, 66], 1), random([130, 66], 2), random([130], 3));
    checks.gradients("feed_forward", PRODUCT, inputs, |(x, w, b)| {
        let down = map(w.clone().transpose(), None);
        feed_forward(x.clone(), map(w, Some(b)), down, Some(x), Gelu::Erf, Layout::OutIn)
    });
    let inputs = (random([3, 37, 66], 1), random([130, 66], 2), random([130, 66], 3));
    checks.gradients("feed_forward_gated", PRODUCT, inputs, |(x, g, u)| {
        let down = map(u.clone().transpose(), None);
        feed_forward_gated(x, map(g, None), map(u, None), down, None, Layout::OutIn)
    });
    let inputs = (random([3, 64, 128], 1), random([256, 128], 2), random([256], 3));
    checks.gradients("linear, bf16", BF16, inputs, |(x, w, b)| {
        Precision::Bf16.scope(|| linear(x, w, Some(b), Layout::OutIn))
    });
    let causal = |i: u32| [0, i + 1];
    let packed = |i: u32| if i < 30 { [0, i + 1] } else { [30, i + 1] };
    let padded = |i: u32| if i < 4 { [0, 0] } else { [4, 70] };
    let kinds: [(&str, Keys<'_>, Precision, f64); 4] = [
        ("attention, causal", &causal, Precision::F32, PRODUCT),
        ("attention, packed documents", &packed, Precision::F32, PRODUCT),
        ("attention, padded", &padded, Precision::F32, PRODUCT),
        ("attention, bf16", &causal, Precision::Bf16, BF16),
    ];
    for (what, range, precision, tolerance) in kinds {
        let how = Attention {
            num_heads: 4,
            num_kv_heads: 2,
            scale: 0.25,
            may_attend: (0..2).flat_map(|_| (0..70).map(range)).collect(),
            dropout: None,
        };
        let inputs = (random([2, 70, 64], 1), random([2, 70, 32], 2), random([2, 70, 32], 3));
        checks.gradients(what, tolerance, inputs, |(q, k, v)| precision.scope(|| attention(q, k, v, &how)));
    }
    let how = Attention {
        num_heads: 4,
        num_kv_heads: 2,
        scale: 0.25,
        may_attend: (0..2 * 70).map(|i| causal(i % 70)).collect(),
        dropout: None,
    };
    let inputs = (random([2, 70, 128], 1), random([1], 2), random([1], 3));
    checks.gradients("attention_packed", PRODUCT, inputs, |(qkv, _, _)| attention_packed(qkv, &how));
    let how = Attention {
        num_heads: 2,
        num_kv_heads: 2,
        scale: 0.5,
        may_attend: (0..2 * 9).map(|i| [0, i % 9 + 1]).collect(),
        dropout: Some(AttentionDropout { probability: 0.2, key: 7 }),
    };
    let inputs = (random([2, 9, 8], 1), random([2, 9, 8], 2), random([1, 2, 5], 3));
    checks.gradients("attention, relative, dropout", PRODUCT, inputs, |(q, k, relative)| {
        attention_relative(q, k.clone(), k, relative, 2, &how)
    });
}

fn losses(checks: &mut Checks) {
    let targets: Arc<[i32]> = vec![0, 1, -100, 299].into();
    let weights: Arc<[f32]> = vec![1.0, 0.5, 1.0, 2.0].into();
    let how = CrossEntropy {
        weights: Some(weights),
        z_loss: 1e-2,
        label_smoothing: 0.1,
        temperature: 2.0,
        ..CrossEntropy::new(targets.clone())
    };
    let inputs = || (random([4, 66], 1), random([300, 66], 2), random([300], 3));
    checks.gradients("linear_cross_entropy", PRODUCT, inputs(), |(x, w, b)| linear_cross_entropy(x, w, Some(b), &how));
    checks.compare("linear_cross_entropy_rows", PRODUCT, |device| {
        let (x, w, b) = inputs();
        let (x, w) = (Tensor::from_data(x.into_data(), device), Tensor::from_data(w.into_data(), device));
        let rows = linear_cross_entropy_rows(x, w, Some(Tensor::from_data(b.into_data(), device)), &targets);
        vec![rows.iter().map(|row| row.loss).collect()]
    });
    let how = Ctc {
        targets: [vec![1, 2, 2], vec![3]].into(),
        input_lengths: [9, 5].into(),
        blank: 0,
        zero_infinity: false,
        weights: None,
    };
    let logits = || random([2, 9, 7], 1);
    let inputs = (logits(), random([1], 2), random([1], 3));
    checks.gradients("ctc", EXACT, inputs, |(x, _, _)| ctc(x, &how));
    checks.compare("ctc_rows", EXACT, |device| vec![ctc_rows(Tensor::from_data(logits().into_data(), device), &how)]);
    let how = Crf { tags: [0, 3, 1, 1, 2].into(), lengths: [3, 0, 1, 1].into() };
    let inputs = (random([5, 4], 1), random([4, 4], 2), random([1], 3));
    checks.gradients("crf", EXACT, inputs, |(e, a, _)| crf(e, a, &how));
}

fn updates(checks: &mut Checks) {
    let how = AdamwStep {
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        step: 3,
        grad_scale: 0.5,
    };
    checks.compare("adamw", EXACT, |device| {
        let on = |seed| Tensor::<1>::from_data(random([10_000], seed).into_data(), device);
        let (weight, [first, second]) = adamw(on(1), on(2), [on(3), on(4).abs()], &how);
        vec![values(weight), values(first), values(second)]
    });
    let how = MuonStep { learning_rate: 0.02, momentum: 0.95, weight_decay: 0.1, grad_scale: 0.5 };
    checks.compare("muon", PRODUCT, |device| {
        let on = |seed| Tensor::<1>::from_data(random([40 * 66], seed).into_data(), device);
        let (weight, mean) = muon([40, 66], on(1), on(2), on(3), &how);
        vec![values(weight), values(mean)]
    });
    checks.compare("place", EXACT, |device| {
        let on = |shape, seed| Tensor::<3>::from_data(random(shape, seed).into_data(), device);
        vec![values(place(on([2, 9, 5], 1), on([2, 3, 5], 2), &[6, 1]))]
    });
    checks.compare("global_norm", EXACT, |device| {
        let on = |seed| Tensor::<1>::from_data(random([10_000], seed).into_data(), device);
        vec![vec![global_norm([on(1), on(2)]) as f32]]
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_agrees_with_itself() {
        for check in check(&cpu()) {
            assert_eq!(check.difference, Ok(0.0), "{}", check.what);
        }
    }

    #[test]
    fn plain_compositions_pass() {
        let checks = check_as(&cpu(), true);
        assert!(checks.iter().all(Check::holds), "{checks:?}");
        // Something was compared: the two forms round differently.
        assert!(checks.iter().any(|check| check.difference != Ok(0.0)));
    }

    #[test]
    fn a_difference_that_is_no_number_and_a_failure_do_not_hold() {
        let check = |difference| Check { what: "x", difference, tolerance: 1.0 };
        assert!(check(Ok(0.5)).holds());
        assert!(!check(Ok(f64::NAN)).holds() && !check(Ok(2.0)).holds() && !check(Err(String::new())).holds());
    }
}
