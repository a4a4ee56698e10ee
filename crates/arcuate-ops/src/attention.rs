//! Scaled dot-product attention with grouped queries, where each query sees one range of keys.
//!
//! # What it computes
//! `softmax(q k^T * scale + relative) v` per head; query i of a row sees the keys of `may_attend[i] = [start, end)`. Causal
//! masks, packed documents, padding on either side and sliding windows are all ranges. A query without keys gets zeros.
//! The backward pass recomputes the probabilities from the saved normaliser; T x T is never stored beyond a tile.
//!
//! Relative positions add `relative[query, head, clip(i + zero - j)]` to the score of query i and key j. Transformer-XL
//! (w2v-BERT, Whistle) and SpeechT5 compute these numbers as a product of queries and a table of positions; T5's buckets
//! and other fixed biases are one row for all queries.
//!
//! # Reference
//! Vaswani et al. 2017; Ainslie et al. 2023 (grouped queries); Dao et al. 2022 (tiles and recomputation);
//! Dai et al. 2019 (relative positions).
// B rows, Q queries, K keys, N heads, G key-value heads, H head channels, R relative positions

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData, activation};
use burn_flex::FlexTensor;

use crate::Precision;
use crate::cpu::attend::{self, Call, Drop, Sizes};
use crate::matmul::matmul_plain;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

/// Heads and mask of an attention.
#[derive(Debug, Clone)]
pub struct Attention {
    /// Number of query heads.
    pub num_heads: usize,
    /// Number of key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Factor of the products, usually `1 / sqrt(H)`.
    pub scale: f32,
    /// The keys [start, end) that each query may attend to: `[B*Q]`. Keys outside of all ranges are never read.
    pub may_attend: Arc<[[u32; 2]]>,
    /// Dropout of probabilities; none in evaluation.
    pub dropout: Option<Dropout>,
}

/// Dropout of probabilities: whether one is dropped follows from `key` and its row, head, query and key position.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    /// Probability of dropping, below 1; the rest is scaled up.
    pub probability: f64,
    /// A number of a named stream, another one for each layer and step.
    pub key: u64,
}

impl Dropout {
    fn rule(self) -> Drop {
        let limit = (self.probability * f64::from(u32::MAX)) as u32;
        Drop { key: self.key, limit, keep: (1.0 / (1.0 - self.probability)) as f32 }
    }
}

/// An attention, the precision of its products, and which relative position means distance 0.
#[derive(Debug, Clone)]
struct Fused {
    how: Attention,
    precision: Precision,
    zero: usize,
}

/// Queries, keys, values, result and normalisers.
type Saved = ([FlexTensor; 4], Arc<Vec<f32>>);

impl Fused {
    fn new(how: &Attention, zero: usize) -> Self {
        Self { how: how.clone(), precision: Precision::current(), zero }
    }

    fn call<'a>(
        &'a self,
        q: &'a FlexTensor,
        k: &'a FlexTensor,
        v: &'a FlexTensor,
        relative: Option<&'a FlexTensor>,
    ) -> Call<'a> {
        let (how, [qd, kd]) = (&self.how, [dims(q), dims(k)]);
        let (n, g) = (how.num_heads, how.num_kv_heads);
        Call {
            sizes: Sizes { b: qd[0], q: qd[1], k: kd[1], n, g, h: qd[2] / n },
            scale: how.scale,
            ranges: &how.may_attend,
            precision: self.precision,
            relative: relative.map(|x| {
                let d = dims(x);
                attend::Relative { values: numbers(x), zero: self.zero, r: d[2], is_shared: d[0] == 1 }
            }),
            drop: how.dropout.map(Dropout::rule),
            q: numbers(q),
            k: numbers(k),
            v: numbers(v),
            is_packed: false,
        }
    }

    fn packed<'a>(&'a self, qkv: &'a FlexTensor) -> Call<'a> {
        let (how, d, x) = (&self.how, dims(qkv), numbers(qkv));
        let (n, g) = (how.num_heads, how.num_kv_heads);
        let h = d[2] / (n + 2 * g);
        Call {
            sizes: Sizes { b: d[0], q: d[1], k: d[1], n, g, h },
            scale: how.scale,
            ranges: &how.may_attend,
            precision: self.precision,
            relative: None,
            drop: how.dropout.map(Dropout::rule),
            q: x,
            k: x.get(n * h..).unwrap_or_default(),
            v: x.get((n + g) * h..).unwrap_or_default(),
            is_packed: true,
        }
    }

    fn run(&self, [q, k, v]: [FlexTensor; 3], relative: Option<&FlexTensor>) -> (FlexTensor, Saved) {
        let (out, normaliser) = attend::forward(&self.call(&q, &k, &v, relative));
        let out = tensor(&dims(&q), out);
        (out.clone(), ([q, k, v, out], Arc::new(normaliser)))
    }

    fn gradients(
        &self,
        ([q, k, v, out], normaliser): Saved,
        grad: &FlexTensor,
        relative: Option<&FlexTensor>,
    ) -> [Option<FlexTensor>; 4] {
        let call = self.call(&q, &k, &v, relative);
        let gradients = attend::backward(&call, numbers(&out), numbers(grad), &normaliser);
        [
            Some(tensor(&dims(&q), gradients.q)),
            Some(tensor(&dims(&k), gradients.k)),
            Some(tensor(&dims(&v), gradients.v)),
            relative.map(|x| tensor(&dims(x), gradients.relative)),
        ]
    }
}

impl Kernel<1> for Fused {
    type Saved = ([FlexTensor; 2], Arc<Vec<f32>>);

    fn forward(&self, [qkv]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        let call = self.packed(&qkv);
        let Sizes { b, q, n, h, .. } = call.sizes;
        let (out, normaliser) = attend::forward(&call);
        let out = tensor(&[b, q, n * h], out);
        (out.clone(), ([qkv, out], Arc::new(normaliser)))
    }

    fn backward(&self, ([qkv, out], norms): Self::Saved, grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let gradients = attend::backward(&self.packed(&qkv), numbers(&out), numbers(&grad), &norms);
        [Some(tensor(&dims(&qkv), gradients.q))]
    }
}

impl Kernel<3> for Fused {
    type Saved = Saved;

    fn forward(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        self.run(inputs, None)
    }

    fn backward(&self, saved: Self::Saved, grad: FlexTensor, _: [bool; 3]) -> [Option<FlexTensor>; 3] {
        let [q, k, v, _] = self.gradients(saved, &grad, None);
        [q, k, v]
    }
}

impl Kernel<4> for Fused {
    type Saved = (Saved, FlexTensor);

    fn forward(&self, [q, k, v, relative]: [FlexTensor; 4]) -> (FlexTensor, Self::Saved) {
        let (out, saved) = self.run([q, k, v], Some(&relative));
        (out, (saved, relative))
    }

    fn backward(&self, (saved, relative): Self::Saved, grad: FlexTensor, _: [bool; 4]) -> [Option<FlexTensor>; 4] {
        self.gradients(saved, &grad, Some(&relative))
    }
}

fn check(q: &Tensor<3>, k: &Tensor<3>, v: &Tensor<3>, how: &Attention) {
    let ([b, t, width], [kb, keys, kv_width]) = (q.dims(), k.dims());
    assert!(
        b == kb
            && k.dims() == v.dims()
            && width.is_multiple_of(how.num_heads)
            && how.num_heads.is_multiple_of(how.num_kv_heads)
            && width * how.num_kv_heads == kv_width * how.num_heads
            && how.may_attend.len() == b * t
            && how.may_attend.iter().all(|r| r[1] as usize <= keys),
        "attention: {:?}, {:?} and {} ranges do not fit",
        q.dims(),
        k.dims(),
        how.may_attend.len()
    );
}

/// Attention of `q` `[B, Q, N*H]` over `k` and `v` `[B, K, G*H]`: `[B, Q, N*H]`.
///
/// # Panics
/// When the sizes do not fit; models check their shapes when they are built or loaded.
pub fn attention(q: Tensor<3>, k: Tensor<3>, v: Tensor<3>, how: &Attention) -> Tensor<3> {
    check(&q, &k, &v, how);
    let inputs = [cpu_tensor(q.clone()), cpu_tensor(k.clone()), cpu_tensor(v.clone())];
    apply::<_, 3, 3>(Fused::new(how, 0), inputs).unwrap_or_else(|| attention_plain(q, k, v, None, how))
}

/// `attention` of queries, keys and values that lie side by side: `qkv` `[B, T, (N+2G)*H]` to `[B, T, N*H]`.
///
/// # Panics
/// When the sizes do not fit; models check their shapes when they are built or loaded.
pub fn attention_packed(qkv: Tensor<3>, how: &Attention) -> Tensor<3> {
    let [b, t, width] = qkv.dims();
    assert!(
        how.num_heads.is_multiple_of(how.num_kv_heads)
            && width.is_multiple_of(how.num_heads + 2 * how.num_kv_heads)
            && how.may_attend.len() == b * t
            && how.may_attend.iter().all(|r| r[1] as usize <= t),
        "attention: {:?} and {} ranges do not fit",
        qkv.dims(),
        how.may_attend.len()
    );
    apply::<_, 1, 3>(Fused::new(how, 0), [cpu_tensor(qkv.clone())]).unwrap_or_else(|| attention_packed_plain(qkv, how))
}

/// The plain composition of `attention_packed`.
pub fn attention_packed_plain(qkv: Tensor<3>, how: &Attention) -> Tensor<3> {
    let (n, g) = (how.num_heads, how.num_kv_heads);
    let h = qkv.dims()[2] / (n + 2 * g);
    let part = |first: usize, heads: usize| qkv.clone().narrow(2, first * h, heads * h);
    attention_plain(part(0, n), part(n, g), part(n + g, g), None, how)
}

/// `attention` whose scores get relative numbers `[B*Q, N, R]`, or `[1, N, R]` for all queries.
///
/// Query i and key j of a row take number `i + zero - j` of R, the first or last where that lies outside.
///
/// # Panics
/// When the sizes do not fit; models check their shapes when they are built or loaded.
pub fn attention_relative(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    relative: Tensor<3>,
    zero: usize,
    how: &Attention,
) -> Tensor<3> {
    check(&q, &k, &v, how);
    let ([b, t, _], [rows, n, r]) = (q.dims(), relative.dims());
    assert!(
        (rows == 1 || rows == b * t) && n == how.num_heads && r > 0,
        "attention: relative numbers {:?} do not fit queries {:?}",
        relative.dims(),
        q.dims()
    );
    let inputs = [cpu_tensor(q.clone()), cpu_tensor(k.clone()), cpu_tensor(v.clone()), cpu_tensor(relative.clone())];
    apply::<_, 4, 3>(Fused::new(how, zero), inputs)
        .unwrap_or_else(|| attention_plain(q, k, v, Some((relative, zero)), how))
}

/// The plain composition of `attention` and, with relative numbers and the place of distance 0, of `attention_relative`.
pub fn attention_plain(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    relative: Option<(Tensor<3>, usize)>,
    how: &Attention,
) -> Tensor<3> {
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
    let mut scores = matmul_plain(heads(q, n, t), repeat(k).swap_dims(2, 3)).mul_scalar(how.scale);
    if let Some((relative, zero)) = relative {
        let [rows, _, r] = relative.dims();
        let [rb, rt] = if rows == 1 { [1, 1] } else { [b, t] };
        let places = (0..t).flat_map(|i| (0..keys).map(move |j| (i + zero).saturating_sub(j).min(r - 1) as i32));
        let places = TensorData::new(places.collect::<Vec<_>>(), [1, 1, t, keys]);
        let places = Tensor::<4, Int>::from_data(places, &device).expand([b, n, t, keys]);
        let relative: Tensor<4> = relative.reshape([rb, rt, n, r]).swap_dims(1, 2).expand([b, n, t, r]);
        scores = scores + relative.gather(3, places);
    }
    let mut weights = activation::softmax(scores.mask_fill(hidden, -1e30), 3);
    if let Some(drop) = how.dropout.map(Dropout::rule) {
        let mut mask = Vec::with_capacity(b * n * t * keys);
        for (row, head, query) in (0..b).flat_map(|b| (0..n).flat_map(move |n| (0..t).map(move |i| (b, n, i)))) {
            let hash = drop.row(row, head, query);
            let stays = |j| attend::mix(hash, j) >= drop.limit;
            mask.extend((0..keys as u32).map(|j| if stays(j) { drop.keep } else { 0.0 }));
        }
        weights = weights * Tensor::from_data(TensorData::new(mask, [b, n, t, keys]), &device);
    }
    let out = matmul_plain(weights, repeat(v)) * empty;
    out.swap_dims(1, 2).reshape([b, t, width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, on_threads, random, values};

    fn same(b: usize, q: usize, k: usize, heads: [usize; 2], h: usize, range: impl Fn(usize) -> [u32; 2]) {
        let how = Attention {
            num_heads: heads[0],
            num_kv_heads: heads[1],
            scale: 0.3,
            may_attend: (0..b).flat_map(|_| (0..q).map(&range)).collect(),
            dropout: None,
        };
        agrees(
            (random([b, q, heads[0] * h], 1), random([b, k, heads[1] * h], 2), random([b, k, heads[1] * h], 3)),
            |(q, k, v)| attention(q, k, v, &how),
            |(q, k, v)| attention_plain(q, k, v, None, &how),
        );
    }

    fn causal(n: usize, g: usize, may_attend: Arc<[[u32; 2]]>) -> Attention {
        Attention { num_heads: n, num_kv_heads: g, scale: 0.3, may_attend, dropout: None }
    }

    fn ranges(b: usize, t: usize) -> Arc<[[u32; 2]]> {
        (0..b).flat_map(|_| (0..t as u32).map(|i| [0, i + 1])).collect()
    }

    #[test]
    fn causal_attention_agrees_with_plain_composition() {
        for (t, h) in [(1, 2), (5, 3), (64, 8), (65, 16), (130, 4)] {
            same(2, t, t, [4, 2], h, |i| [0, i as u32 + 1]);
        }
    }

    #[test]
    fn queries_keys_and_values_side_by_side_agree_with_plain_composition() {
        for (b, t, [n, g], h) in [(2, 1, [2, 1], 4), (1, 65, [3, 3], 5), (3, 130, [4, 2], 8)] {
            let how = causal(n, g, ranges(b, t));
            agrees(
                (random([b, t, (n + 2 * g) * h], 1), random([1], 2), random([1], 3)),
                |(x, _, _)| attention_packed(x, &how),
                |(x, _, _)| attention_packed_plain(x, &how),
            );
        }
        assert_eq!(attention_packed(random([0, 3, 24], 1), &causal(2, 2, ranges(0, 3))).dims(), [0, 3, 8]);
    }

    #[test]
    fn packed_documents_agree_with_plain_composition() {
        same(2, 100, 100, [2, 1], 8, |i| if i < 37 { [0, i as u32 + 1] } else { [37, i as u32 + 1] });
    }

    #[test]
    fn padding_windows_and_empty_ranges_agree_with_plain_composition() {
        same(1, 20, 20, [3, 3], 4, |_| [0, 13]);
        same(1, 20, 20, [3, 3], 4, |_| [6, 20]);
        same(1, 90, 90, [2, 2], 4, |i| [(i as u32).saturating_sub(9), i as u32 + 1]);
        same(1, 20, 20, [2, 2], 4, |i| if i < 4 { [0, 0] } else { [4, i as u32 + 1] });
    }

    #[test]
    fn fewer_queries_than_keys_agree_with_plain_composition() {
        same(2, 1, 33, [4, 2], 8, |_| [0, 33]);
        same(1, 3, 33, [4, 4], 8, |i| [0, 31 + i as u32]);
    }

    #[test]
    fn documents_never_see_each_other() {
        let how = |ranges: Vec<[u32; 2]>| causal(1, 1, ranges.into());
        let x = random([1, 6, 4], 1);
        let both = attention(x.clone(), x.clone(), x.clone(), &how((0..6).map(|i| [i / 3 * 3, i + 1]).collect()));
        let second = x.narrow(1, 3, 3);
        let alone = attention(second.clone(), second.clone(), second, &how((0..3).map(|i| [0, i + 1]).collect()));
        assert_eq!(values(both.narrow(1, 3, 3)), values(alone));
    }

    #[test]
    fn keys_beyond_one_block_agree_with_plain_composition() {
        same(1, 70, 1200, [2, 1], 4, |i| [i as u32 * 3, 1100 + i as u32]);
        same(1, 3, 1200, [1, 1], 4, |i| [600 * (i as u32 % 2), 600 + i as u32]);
        same(2, 1, 700, [4, 2], 8, |_| [3, 690]);
    }

    #[test]
    fn large_scores_stay_finite() {
        let how = causal(2, 2, ranges(1, 20));
        let x = |seed| random([1, 20, 8], seed) * 1e4;
        assert!(values(attention(x(1), x(2), x(3), &how)).iter().all(|x| x.is_finite()));
    }

    #[test]
    fn an_empty_batch_has_an_empty_result() {
        let x = || Tensor::<3>::zeros([0, 3, 8], &crate::device::cpu());
        assert_eq!(attention(x(), x(), x(), &causal(2, 2, ranges(0, 3))).dims(), [0, 3, 8]);
    }

    #[test]
    fn non_contiguous_input_is_read_correctly() {
        let how = causal(2, 1, ranges(2, 5));
        agrees(
            (random([5, 2, 8], 1), random([2, 4, 5], 2), random([2, 5, 4], 3)),
            |(q, k, v)| attention(q.swap_dims(0, 1), k.swap_dims(1, 2), v, &how),
            |(q, k, v)| attention_plain(q.swap_dims(0, 1), k.swap_dims(1, 2), v, None, &how),
        );
    }

    #[test]
    fn relative_positions_agree_with_plain_composition() {
        for (b, t, rows, r) in [(2, 7, 14, 13), (1, 70, 1, 9), (2, 65, 1, 200), (1, 600, 600, 5), (2, 1, 2, 3)] {
            let how = causal(4, 2, (0..b * t).map(|i| [0, t as u32 - i as u32 % 2]).collect());
            let v = random([b, t, 6], 3);
            agrees(
                (random([b, t, 12], 1), random([b, t, 6], 2), random([rows, 4, r], 4)),
                |(q, k, x)| attention_relative(q, k.clone(), k * 0.5 + v.clone(), x, r / 2, &how),
                |(q, k, x)| attention_plain(q, k.clone(), k * 0.5 + v.clone(), Some((x, r / 2)), &how),
            );
        }
    }

    #[test]
    fn dropout_agrees_with_plain_composition_and_keeps_the_mean() {
        for (b, t) in [(1, 1), (2, 5), (1, 130), (1, 600)] {
            let mut how = causal(2, 1, ranges(b, t));
            how.dropout = Some(Dropout { probability: 0.3, key: 7 });
            agrees(
                (random([b, t, 8], 1), random([b, t, 4], 2), random([b, t, 4], 3)),
                |(q, k, v)| attention(q, k, v, &how),
                |(q, k, v)| attention_plain(q, k, v, None, &how),
            );
        }
        let mut how = causal(1, 1, (0..400).map(|_| [0, 400]).collect());
        how.dropout = Some(Dropout { probability: 0.25, key: 9 });
        let ones = || random([1, 400, 2], 1) * 0.0 + 1.0;
        let out = values(attention(ones(), ones(), ones(), &how));
        let mean = out.iter().sum::<f32>() / out.len() as f32;
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
    }

    #[test]
    fn threads_change_no_bit() {
        let run = |threads: usize| {
            on_threads(threads, || {
                let device = burn::tensor::Device::flex().autodiff();
                let on = |x: Tensor<3>| Tensor::<3>::from_data(x.into_data(), &device).require_grad();
                let (q, k) = (on(random([1, 300, 24], 1)), on(random([1, 300, 12], 2)));
                let (v, r) = (on(random([1, 300, 12], 3)), on(random([1, 6, 20], 4)));
                let mut how = causal(6, 3, ranges(1, 300));
                how.dropout = Some(Dropout { probability: 0.1, key: 1 });
                let out = attention_relative(q.clone(), k.clone(), v.clone(), r.clone(), 10, &how);
                let grads = (out.clone() * random([1, 300, 24], 5).to_device(&device)).sum().backward();
                let grad = |x: Tensor<3>| values(x.grad(&grads).expect("tracked"));
                [values(out), grad(q), grad(k), grad(v), grad(r)]
            })
        };
        assert_eq!(run(1), run(2));
    }
}
