//! Time of every operation, forward and backward, at the sizes of a small language model: `cargo bench -p arcuate-ops`.
//!
//! `cargo bench -p arcuate-ops -- attention` measures those whose name contains a word; criterion compares with the last
//! time. Nothing here is a test: a time says nothing on a busy machine.
// B rows, T tokens, C channels, I inner channels, V vocabulary

use std::hint::black_box;
use std::sync::Arc;

use arcuate_ops::activation::{Gelu, gelu, swiglu};
use arcuate_ops::adamw::{AdamwStep, adamw};
use arcuate_ops::attention::{Attention, attention};
use arcuate_ops::conv1d::{Conv1d, conv1d};
use arcuate_ops::ctc::{Ctc, ctc};
use arcuate_ops::embedding::embedding;
use arcuate_ops::global_norm::global_norm;
use arcuate_ops::gradcheck::random;
use arcuate_ops::group_norm::group_norm_gelu;
use arcuate_ops::linear::{Layout, linear};
use arcuate_ops::linear_cross_entropy::{CrossEntropy, Targets, linear_cross_entropy};
use arcuate_ops::norm::{layer_norm, rms_norm};
use arcuate_ops::rate::{Pass, product};
use arcuate_ops::rope::{Rotation, rope};
use arcuate_ops::weight_norm::{Keep, weight_norm};
use arcuate_ops::{Precision, device};
use burn::tensor::Tensor;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const B: usize = 8;
const T: usize = 256;
const C: usize = 384;
const I: usize = 1536;
const V: usize = 8192;
const HEADS: usize = 6;
const PRECISIONS: [(&str, Precision); 2] = [("f32", Precision::F32), ("bf16", Precision::Bf16)];

/// A random tensor with a tape.
fn leaf<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    Tensor::from_data(random(shape, seed).into_data(), &device::cpu().autodiff()).require_grad()
}

/// Times an operation and the gradients of the sum of its output.
fn both_ways<const D: usize>(c: &mut Criterion, name: &str, operation: impl Fn() -> Tensor<D>) {
    c.bench_function(name, |bencher| bencher.iter(|| black_box(operation().sum().backward())));
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("product");
    let flops = 2 * B * T * C * I;
    group.throughput(Throughput::Elements(flops as u64));
    for (numbers, precision) in PRECISIONS {
        for pass in Pass::ALL {
            group.bench_function(format!("{} {numbers}", pass.name()), |bencher| {
                bencher.iter_custom(|times| {
                    let seconds = product(pass, [B * T, C, I], precision, times as usize);
                    std::time::Duration::from_secs_f64(seconds.iter().sum())
                });
            });
        }
    }
}

fn linears(c: &mut Criterion) {
    for (numbers, precision) in PRECISIONS {
        for (inputs, outputs) in [(C, I), (I, C)] {
            let (x, w, b) = (leaf([B, T, inputs], 1), leaf([outputs, inputs], 2), leaf([outputs], 3));
            both_ways(c, &format!("linear {inputs} to {outputs} {numbers}"), || {
                precision.scope(|| linear(x.clone(), w.clone(), Some(b.clone()), Layout::OutIn))
            });
        }
    }
}

fn pointwise(c: &mut Criterion) {
    let (x, w, b) = (leaf([B, T, C], 1), leaf([C], 2), leaf([C], 3));
    both_ways(c, "layer_norm", || layer_norm(x.clone(), w.clone(), b.clone(), 1e-5));
    both_ways(c, "rms_norm", || rms_norm(x.clone(), w.clone(), 1e-5));
    let (x, y) = (leaf([B, T, I], 1), leaf([B, T, I], 2));
    both_ways(c, "gelu erf", || gelu(x.clone(), Gelu::Erf));
    both_ways(c, "gelu tanh", || gelu(x.clone(), Gelu::Tanh));
    both_ways(c, "swiglu", || swiglu(x.clone(), y.clone()));
    let positions: Arc<[i32]> = (0..B * T).map(|i| (i % T) as i32).collect();
    let frequencies: Vec<f64> = (0..C / HEADS / 2).map(|i| 1e4f64.powf(-2.0 * i as f64 / (C / HEADS) as f64)).collect();
    let (x, rotation) = (leaf([B, T, C], 1), Rotation::new(&positions, &frequencies));
    both_ways(c, "rope", || rope(x.clone(), &rotation));
}

fn attentions(c: &mut Criterion) {
    for (numbers, precision) in PRECISIONS {
        for (what, rows, tokens, kv_heads) in
            [("causal", B, T, HEADS), ("grouped", B, T, 2), ("long", B * T / 1024, 1024, HEADS)]
        {
            let kv = kv_heads * C / HEADS;
            let (q, k, v) = (leaf([rows, tokens, C], 1), leaf([rows, tokens, kv], 2), leaf([rows, tokens, kv], 3));
            let how = Attention {
                num_heads: HEADS,
                num_kv_heads: kv_heads,
                scale: 0.125,
                may_attend: (0..rows * tokens).map(|i| [0, (i % tokens + 1) as u32]).collect(),
                dropout: None,
            };
            both_ways(c, &format!("attention {what} {numbers}"), || {
                precision.scope(|| attention(q.clone(), k.clone(), v.clone(), &how))
            });
        }
    }
}

fn tables(c: &mut Criterion) {
    let ids: Arc<[i32]> = (0..B * T).map(|i| (i * 37 % V) as i32).collect();
    let table = leaf([V, C], 1);
    both_ways(c, "embedding", || embedding(table.clone(), &ids, None));
    let hidden = leaf([B * T, C], 2);
    let how = CrossEntropy {
        targets: Targets::Classes(ids),
        weights: None,
        z_loss: 0.0,
        label_smoothing: 0.0,
        temperature: 1.0,
    };
    for (numbers, precision) in PRECISIONS {
        both_ways(c, &format!("linear_cross_entropy {numbers}"), || {
            precision.scope(|| linear_cross_entropy(hidden.clone(), table.clone(), None, &how))
        });
    }
}

fn speech(c: &mut Criterion) {
    let conv = |stride, padding, groups| Conv1d { stride, padding, groups };
    for (numbers, precision) in PRECISIONS {
        let (x, w) = (leaf([2, 4000, 512], 1), leaf([512, 512, 3], 2));
        both_ways(c, &format!("conv1d strided {numbers}"), || {
            precision.scope(|| conv1d(x.clone(), w.clone(), None, conv(2, [0, 0], 1)))
        });
        let (x, w) = (leaf([2, 249, 768], 1), leaf([768, 48, 128], 2));
        both_ways(c, &format!("conv1d grouped {numbers}"), || {
            precision.scope(|| conv1d(x.clone(), w.clone(), None, conv(1, [64, 63], 16)))
        });
    }
    let (x, w, b) = (leaf([2, 16_000, 512], 1), leaf([512], 2), leaf([512], 3));
    both_ways(c, "group_norm_gelu", || group_norm_gelu(x.clone(), w.clone(), b.clone(), 512, 1e-5));
    let (v, g) = (leaf([768, 48, 128], 1), leaf([128], 2));
    both_ways(c, "weight_norm", || weight_norm(v.clone(), g.clone(), Keep::Last));
    for vocab in [32, 500] {
        let logits = leaf([16, 500, vocab], 1);
        let how = Ctc {
            targets: (0..16).map(|_| (0..100).map(|i| 1 + i * 7 % (vocab as i32 - 1)).collect()).collect(),
            input_lengths: vec![500; 16].into(),
            blank: 0,
            zero_infinity: false,
            weights: None,
        };
        both_ways(c, &format!("ctc {vocab}"), || ctc(logits.clone(), &how));
    }
}

fn updates(c: &mut Criterion) {
    let how = AdamwStep {
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        step: 1,
        grad_scale: 1.0,
    };
    let grad = random([V * C], 2);
    c.bench_function("adamw", |bencher| {
        // The tensors are handed over, so that they are changed in place as in a run.
        let fresh = || (random([V * C], 1), [random([V * C], 3), random([V * C], 4) * 0.0]);
        bencher.iter_batched(fresh, |(p, m)| adamw(p, grad.clone(), m, &how), BatchSize::LargeInput);
    });
    c.bench_function("global_norm", |bencher| bencher.iter(|| global_norm([black_box(grad.clone())])));
}

criterion_group!(operations, products, linears, pointwise, attentions, tables, speech, updates);
criterion_main!(operations);
