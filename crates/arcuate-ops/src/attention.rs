//! Scaled dot-product attention with grouped queries, where each query sees one range of keys.
//!
//! # What it computes
//! `softmax(q k^T * scale) v` per head; query i of a row sees the keys of `may_attend[i] = [start, end)`. Causal masks,
//! packed documents, padding on either side and sliding windows are all ranges. A query without keys gets zeros.
//! The backward pass recomputes the probabilities from the saved normaliser; T x T is never stored beyond a tile.
//!
//! # Reference
//! Vaswani et al. 2017; Ainslie et al. 2023 (grouped queries); Dao et al. 2022 (tiles and recomputation).
// B rows, Q queries, K keys, N heads, G key-value heads, H head channels

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, activation};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::Precision;
use crate::cpu::gemm::{How, Shared, View, buffer, matmul};
use crate::cpu::math::{self, dot};
use crate::cpu::simd::simd;
use crate::matmul::matmul_plain;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

/// Queries that are handled together.
const TILE: usize = 64;

/// Heads and mask of an attention.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Number of query heads.
    pub num_heads: usize,
    /// Number of key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Factor of the products, usually `1 / sqrt(H)`.
    pub scale: f32,
    /// The keys [start, end) that each query may attend to: `[B*Q]`.
    pub may_attend: Arc<[[u32; 2]]>,
}

/// Sizes of one call.
#[derive(Clone, Copy)]
struct Sizes {
    b: usize,
    q: usize,
    k: usize,
    n: usize,
    g: usize,
    h: usize,
}

simd! {
    /// Probabilities of one tile in place, and the normaliser of each query.
    fn softmax_tile(scores: &mut [f32], keys: usize, first: usize, ranges: &[[u32; 2]], scale: f32, normaliser: &mut [f32]) {
        for ((row, range), normaliser) in scores.chunks_exact_mut(keys).zip(ranges).zip(normaliser) {
            let (start, end) = local(range, first, keys);
            row[..start].fill(0.0);
            row[end..].fill(0.0);
            let seen = &mut row[start..end];
            let top = math::max(seen);
            if seen.is_empty() {
                *normaliser = 0.0;
                continue;
            }
            for x in seen.iter_mut() {
                *x = math::exp((*x - top) * scale);
            }
            let total = math::sum(seen);
            let share = 1.0 / total;
            for x in seen.iter_mut() {
                *x *= share;
            }
            *normaliser = top * scale + total.ln();
        }
    }
}

simd! {
    /// Probabilities of one tile in place from the saved normaliser.
    fn recompute_tile(scores: &mut [f32], keys: usize, first: usize, ranges: &[[u32; 2]], scale: f32, normaliser: &[f32]) {
        for ((row, range), normaliser) in scores.chunks_exact_mut(keys).zip(ranges).zip(normaliser) {
            let (start, end) = local(range, first, keys);
            row[..start].fill(0.0);
            row[end..].fill(0.0);
            for x in &mut row[start..end] {
                *x = math::exp(*x * scale - normaliser);
            }
        }
    }
}

simd! {
    /// Turns gradients of probabilities into gradients of products, in place.
    fn softmax_tile_backward(probabilities: &[f32], grads: &mut [f32], keys: usize, scale: f32) {
        for (p, d) in probabilities.chunks_exact(keys).zip(grads.chunks_exact_mut(keys)) {
            let mean = dot(p, d);
            for (d, p) in d.iter_mut().zip(p) {
                *d = p * (*d - mean) * scale;
            }
        }
    }
}

/// The range of one query inside the tile's keys.
#[inline(always)]
fn local(range: &[u32; 2], first: usize, keys: usize) -> (usize, usize) {
    let end = (range[1] as usize).saturating_sub(first).min(keys);
    ((range[0] as usize).saturating_sub(first).min(end), end)
}

/// An attention and the precision of its products.
#[derive(Debug, Clone)]
struct Fused(Attention, Precision);

impl Attention {
    fn sizes(&self, q: &FlexTensor, k: &FlexTensor) -> Sizes {
        let (qd, kd) = (dims(q), dims(k));
        Sizes { b: qd[0], q: qd[1], k: kd[1], n: self.num_heads, g: self.num_kv_heads, h: qd[2] / self.num_heads }
    }

    /// The keys that a tile of queries needs: first and count.
    fn keys(&self, ranges: &[[u32; 2]], k: usize) -> (usize, usize) {
        let seen = ranges.iter().filter(|r| r[0] < r[1]);
        let first = seen.clone().map(|r| r[0] as usize).min().unwrap_or(0).min(k);
        let last = seen.map(|r| r[1] as usize).max().unwrap_or(0).min(k);
        (first, last.saturating_sub(first))
    }
}

impl Kernel<3> for Fused {
    type Saved = (FlexTensor, FlexTensor, FlexTensor, Arc<Vec<f32>>);

    fn forward(&self, [q, k, v]: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let (how, once) = (&self.0, How::one(self.1));
        let s = how.sizes(&q, &k);
        let (qs, ks, vs) = (numbers(&q), numbers(&k), numbers(&v));
        let mut out = buffer(qs.len());
        let mut normaliser = buffer(s.b * s.n * s.q);
        let (shared_out, shared_norm) = (Shared::new(&mut out), Shared::new(&mut normaliser));
        (0..s.b * s.n).into_par_iter().for_each(|task| {
            let (b, n) = (task / s.n, task % s.n);
            let g = n / (s.n / s.g);
            let mut scores = Vec::new();
            let mut result = buffer(TILE * s.h);
            for from in (0..s.q).step_by(TILE) {
                let rows = TILE.min(s.q - from);
                let ranges = &how.may_attend[b * s.q + from..b * s.q + from + rows];
                let (first, keys) = how.keys(ranges, s.k);
                if keys == 0 {
                    continue;
                }
                scores.resize(rows * keys, 0.0);
                let query = View::rows(&qs[(b * s.q + from) * s.n * s.h + n * s.h..], s.n * s.h);
                let at = (b * s.k + first) * s.g * s.h + g * s.h;
                let key = View::rows(&ks[at..], s.g * s.h);
                let value = View::rows(&vs[at..], s.g * s.h);
                matmul([rows, keys, s.h], query, key.t(), &mut scores, keys, once);
                // SAFETY: each task writes the normalisers of its own (row, head) and each tile its own queries.
                #[allow(unsafe_code)]
                let norm = unsafe { shared_norm.slice(task * s.q + from, rows) };
                softmax_tile(&mut scores, keys, first, ranges, how.scale, norm);
                let weights = View::rows(&scores, keys);
                matmul([rows, s.h, keys], weights, value, &mut result, s.h, once);
                for i in 0..rows {
                    // SAFETY: each task writes the channels of its own (row, head).
                    #[allow(unsafe_code)]
                    let row = unsafe { shared_out.slice((b * s.q + from + i) * s.n * s.h + n * s.h, s.h) };
                    row.copy_from_slice(&result[i * s.h..(i + 1) * s.h]);
                }
            }
        });
        (tensor(&dims(&q), out), (q, k, v, Arc::new(normaliser)))
    }

    fn backward(&self, (q, k, v, normaliser): Self::Saved, grad: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let (how, once) = (&self.0, How::one(self.1));
        let s = how.sizes(&q, &k);
        let (qs, ks, vs, gs) = (numbers(&q), numbers(&k), numbers(&v), numbers(&grad));
        let (mut dq, mut dk, mut dv) = (buffer(qs.len()), buffer(ks.len()), buffer(vs.len()));
        let (shared_q, shared_k, shared_v) = (Shared::new(&mut dq), Shared::new(&mut dk), Shared::new(&mut dv));
        let group = s.n / s.g;
        (0..s.b * s.g).into_par_iter().for_each(|task| {
            let (b, g) = (task / s.g, task % s.g);
            let (mut scores, mut dscores) = (Vec::new(), Vec::new());
            let mut result = buffer(TILE * s.h);
            let (mut dkey, mut dvalue) = (buffer(s.k * s.h), buffer(s.k * s.h));
            for n in g * group..(g + 1) * group {
                for from in (0..s.q).step_by(TILE) {
                    let rows = TILE.min(s.q - from);
                    let ranges = &how.may_attend[b * s.q + from..b * s.q + from + rows];
                    let (first, keys) = how.keys(ranges, s.k);
                    if keys == 0 {
                        continue;
                    }
                    scores.resize(rows * keys, 0.0);
                    dscores.resize(rows * keys, 0.0);
                    let at = (b * s.q + from) * s.n * s.h + n * s.h;
                    let query = View::rows(&qs[at..], s.n * s.h);
                    let dout = View::rows(&gs[at..], s.n * s.h);
                    let at = (b * s.k + first) * s.g * s.h + g * s.h;
                    let key = View::rows(&ks[at..], s.g * s.h);
                    let value = View::rows(&vs[at..], s.g * s.h);
                    matmul([rows, keys, s.h], query, key.t(), &mut scores, keys, once);
                    let norm = &normaliser[(b * s.n + n) * s.q + from..][..rows];
                    recompute_tile(&mut scores, keys, first, ranges, how.scale, norm);
                    matmul([rows, keys, s.h], dout, value.t(), &mut dscores, keys, once);
                    let (here, weights) = (first * s.h, View::rows(&scores, keys));
                    matmul([keys, s.h, rows], weights.t(), dout, &mut dvalue[here..], s.h, once.add());
                    softmax_tile_backward(&scores, &mut dscores, keys, how.scale);
                    let pull = View::rows(&dscores, keys);
                    matmul([keys, s.h, rows], pull.t(), query, &mut dkey[here..], s.h, once.add());
                    matmul([rows, s.h, keys], pull, key, &mut result, s.h, once);
                    for i in 0..rows {
                        // SAFETY: each task writes the channels of its own (row, head).
                        #[allow(unsafe_code)]
                        let row = unsafe { shared_q.slice((b * s.q + from + i) * s.n * s.h + n * s.h, s.h) };
                        row.copy_from_slice(&result[i * s.h..(i + 1) * s.h]);
                    }
                }
            }
            for (shared, local) in [(shared_k, &dkey), (shared_v, &dvalue)] {
                for (i, from) in local.chunks_exact(s.h).enumerate() {
                    // SAFETY: each task writes the channels of its own (row, key-value head).
                    #[allow(unsafe_code)]
                    let row = unsafe { shared.slice((b * s.k + i) * s.g * s.h + g * s.h, s.h) };
                    row.copy_from_slice(from);
                }
            }
        });
        [Some(tensor(&dims(&q), dq)), Some(tensor(&dims(&k), dk)), Some(tensor(&dims(&v), dv))]
    }
}

/// Attention of `q` `[B, Q, N*H]` over `k` and `v` `[B, K, G*H]`: `[B, Q, N*H]`.
///
/// # Panics
/// When the sizes do not fit; models check their shapes when they are built or loaded.
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, how: &Attention) -> Tensor<3> {
    let ([b, t, width], [kb, keys, kv_width]) = (q.dims(), k.dims());
    assert!(
        b == kb
            && k.dims() == v.dims()
            && width * how.num_kv_heads == kv_width * how.num_heads
            && how.may_attend.len() == b * t
            && how.may_attend.iter().all(|r| r[1] as usize <= keys),
        "attention: {:?}, {:?} and {} ranges do not fit",
        q.dims(),
        k.dims(),
        how.may_attend.len()
    );
    apply(
        Fused(how.clone(), Precision::current()),
        [cpu_tensor(q.clone()), cpu_tensor(k.clone()), cpu_tensor(v.clone())],
    )
    .unwrap_or_else(|| attention_plain(q, k, v, how))
}

/// The plain composition of `attention`.
pub fn attention_plain(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, how: &Attention) -> Tensor<3> {
    let ([b, t, width], [_, keys, _]) = (q.dims(), k.dims());
    let (n, g) = (how.num_heads, how.num_kv_heads);
    let h = width / n;
    let heads = |x: Tensor<3>, count: usize, len: usize| x.reshape([b, len, count, h]).swap_dims(1, 2);
    let repeat = |x: Tensor<3>| -> Tensor<4> {
        heads(x, g, keys).reshape([b, g, 1, keys * h]).repeat_dim(2, n / g).reshape([b, n, keys, h])
    };
    let empty: Vec<f32> = how.may_attend.iter().map(|r| if r[0] < r[1] { 1.0 } else { 0.0 }).collect();
    let device = q.device();
    // The mask is made on the device: two numbers a query travel there, not one for each key.
    let bound = |side: usize| -> Tensor<4, Int> {
        let bounds: Vec<i32> = how.may_attend.iter().map(|r| r[side] as i32).collect();
        Tensor::<4, Int>::from_data(TensorData::new(bounds, [b, 1, t, 1]), &device).expand([b, 1, t, keys])
    };
    let key = Tensor::<1, Int>::arange(0..keys as i64, &device).reshape([1, 1, 1, keys]).expand([b, 1, t, keys]);
    let hidden = key.clone().lower(bound(0)).bool_or(key.greater_equal(bound(1))).expand([b, n, t, keys]);
    let empty = Tensor::<4>::from_data(TensorData::new(empty, [b, 1, t, 1]), &device);
    let scores = matmul_plain(heads(q, n, t), repeat(k).swap_dims(2, 3)).mul_scalar(how.scale).mask_fill(hidden, -1e30);
    let out = matmul_plain(activation::softmax(scores, 3), repeat(v)) * empty;
    out.swap_dims(1, 2).reshape([b, t, width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, random, values};

    fn check(b: usize, q: usize, k: usize, heads: [usize; 2], h: usize, range: impl Fn(usize) -> [u32; 2]) {
        let how = Attention {
            num_heads: heads[0],
            num_kv_heads: heads[1],
            scale: 0.3,
            may_attend: (0..b).flat_map(|_| (0..q).map(&range)).collect(),
        };
        agrees(
            (random([b, q, heads[0] * h], 1), random([b, k, heads[1] * h], 2), random([b, k, heads[1] * h], 3)),
            |(q, k, v)| attention(q, k, v, &how),
            |(q, k, v)| attention_plain(q, k, v, &how),
        );
    }

    #[test]
    fn causal_attention_agrees_with_plain_composition() {
        for (t, h) in [(1, 2), (5, 3), (64, 8), (65, 16), (130, 4)] {
            check(2, t, t, [4, 2], h, |i| [0, i as u32 + 1]);
        }
    }

    #[test]
    fn packed_documents_agree_with_plain_composition() {
        check(2, 100, 100, [2, 1], 8, |i| if i < 37 { [0, i as u32 + 1] } else { [37, i as u32 + 1] });
    }

    #[test]
    fn padding_windows_and_empty_ranges_agree_with_plain_composition() {
        check(1, 20, 20, [3, 3], 4, |_| [0, 13]);
        check(1, 20, 20, [3, 3], 4, |_| [6, 20]);
        check(1, 90, 90, [2, 2], 4, |i| [(i as u32).saturating_sub(9), i as u32 + 1]);
        check(1, 20, 20, [2, 2], 4, |i| if i < 4 { [0, 0] } else { [4, i as u32 + 1] });
    }

    #[test]
    fn fewer_queries_than_keys_agree_with_plain_composition() {
        check(2, 1, 33, [4, 2], 8, |_| [0, 33]);
        check(1, 3, 33, [4, 4], 8, |i| [0, 31 + i as u32]);
    }

    #[test]
    fn documents_never_see_each_other() {
        let how =
            |ranges: Vec<[u32; 2]>| Attention { num_heads: 1, num_kv_heads: 1, scale: 1.0, may_attend: ranges.into() };
        let x = random([1, 6, 4], 1);
        let both = attention(x.clone(), x.clone(), x.clone(), &how((0..6).map(|i| [i / 3 * 3, i + 1]).collect()));
        let second = x.narrow(1, 3, 3);
        let alone = attention(second.clone(), second.clone(), second, &how((0..3).map(|i| [0, i + 1]).collect()));
        assert_eq!(values(both.narrow(1, 3, 3)), values(alone));
    }
}
