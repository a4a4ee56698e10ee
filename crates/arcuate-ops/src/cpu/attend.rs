//! Attention over slices: tiles of queries against blocks of the keys that they see.
//!
//! Scores never leave a block, so memory does not grow with T: the forward pass keeps a running maximum and total per
//! query, the backward pass recomputes probabilities from the saved normaliser. Ranges bound what is read of keys and values.
// B rows, Q queries, K keys, N heads, G key-value heads, H head channels, R relative positions

use std::cell::Cell;

use rayon::prelude::*;

use super::gemm::{How, Shared, View, buffer, matmul};
use super::math::{self, dot};
use super::simd::simd;
use crate::Precision;

/// Queries that are handled together.
const TILE: usize = 64;
/// Keys whose scores are held at a time; a multiple of `LANES`.
const BLOCK: usize = 512;
/// Keys of one task when each row has one query.
const SPAN: usize = 256;
/// Backward tasks wanted when rows and heads are few; a constant, so that sums do not depend on the number of threads.
const TASKS: usize = 16;
const LANES: usize = math::LANES;

/// Sizes of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub b: usize,
    pub q: usize,
    pub k: usize,
    pub n: usize,
    pub g: usize,
    pub h: usize,
}

/// Numbers added to scaled scores: query i and key j take `values[row, head, clip(i + zero - j)]`.
#[derive(Clone, Copy)]
pub(crate) struct Relative<'a> {
    /// `[B*Q, N, R]`, or `[1, N, R]` for all queries.
    pub values: &'a [f32],
    /// The relative position of distance 0.
    pub zero: usize,
    pub r: usize,
    /// Whether there is one row for all queries.
    pub is_shared: bool,
}

/// Which probabilities are dropped: a hash of (key, row, head, query, key position) below `limit`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drop {
    pub key: u64,
    pub limit: u32,
    /// Factor of the probabilities that stay.
    pub keep: f32,
}

impl Drop {
    /// The hash that starts the row of one query.
    pub(crate) fn row(&self, row: usize, head: usize, query: usize) -> u32 {
        let mut x = self.key;
        for part in [row, head, query] {
            x = (x ^ part as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            x ^= x >> 32;
        }
        x as u32
    }
}

/// The hash of one key position (the finaliser of MurmurHash3).
#[inline(always)]
pub(crate) fn mix(row: u32, key: u32) -> u32 {
    let mut x = row ^ key.wrapping_mul(0x9E37_79B9);
    x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
    x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
    x ^ (x >> 16)
}

/// One call without its results.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub sizes: Sizes,
    pub scale: f32,
    /// `[B*Q]`
    pub ranges: &'a [[u32; 2]],
    pub precision: Precision,
    pub relative: Option<Relative<'a>>,
    pub drop: Option<Drop>,
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    /// Whether queries, keys and values are parts of one tensor `[B, T, (N+2G)*H]`, at which `q`, `k` and `v` point.
    pub is_packed: bool,
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Runs a function on memory that the thread keeps; its content is arbitrary.
fn scratch<T>(len: usize, f: impl FnOnce(&mut [f32]) -> T) -> T {
    let mut memory = SCRATCH.take();
    if memory.len() < len {
        memory = buffer(len);
    }
    let result = f(&mut memory[..len]);
    SCRATCH.set(memory);
    result
}

/// The range of one query inside a block of keys.
#[inline(always)]
fn local(range: &[u32; 2], first: usize, keys: usize) -> (usize, usize) {
    let end = (range[1] as usize).saturating_sub(first).min(keys);
    ((range[0] as usize).saturating_sub(first).min(end), end)
}

/// Zeroes a row outside of the vectors that hold its range, and gives those with minus infinity outside of the range.
#[inline(always)]
fn fringe<'a>(row: &'a mut [f32], range: &[u32; 2], first: usize, keys: usize) -> &'a mut [f32] {
    let (start, end) = local(range, first, keys);
    if start == end {
        row.fill(0.0);
        return &mut [];
    }
    let (from, to) = (start / LANES * LANES, end.next_multiple_of(LANES));
    row[..from].fill(0.0);
    row[to..].fill(0.0);
    row[from..start].fill(f32::NEG_INFINITY);
    row[end..to].fill(f32::NEG_INFINITY);
    &mut row[from..to]
}

/// Running maximum, total and latest factor of each query of a tile.
struct Running {
    top: [f32; TILE],
    total: [f32; TILE],
    factor: [f32; TILE],
}

simd! {
    /// Scores of one block to unnormalised weights in place, and what becomes of the running sums.
    fn soften(scores: &mut [f32], row: usize, keys: usize, first: usize, ranges: &[[u32; 2]], scale: f32, running: &mut Running) {
        for (i, (scores, range)) in scores.chunks_exact_mut(row).zip(ranges).enumerate() {
            let seen = fringe(scores, range, first, keys);
            running.factor[i] = 1.0;
            if seen.is_empty() {
                continue;
            }
            let old = running.top[i];
            let top = math::max(seen);
            let top = if top > old { top } else { old };
            for x in seen.iter_mut() {
                *x = math::exp((*x - top) * scale);
            }
            let factor = math::exp((old - top) * scale);
            running.top[i] = top;
            running.factor[i] = factor;
            running.total[i] = running.total[i] * factor + math::sum(seen);
        }
    }
}

simd! {
    /// Probabilities of one block in place from the saved normaliser.
    fn recompute(scores: &mut [f32], row: usize, keys: usize, first: usize, ranges: &[[u32; 2]], scale: f32, normaliser: &[f32]) {
        for ((scores, range), normaliser) in scores.chunks_exact_mut(row).zip(ranges).zip(normaliser) {
            for x in fringe(scores, range, first, keys) {
                *x = math::exp(*x * scale - normaliser);
            }
        }
    }
}

simd! {
    /// Turns gradients of probabilities into gradients of scores, in place.
    fn soften_backward(weights: &[f32], grads: &mut [f32], row: usize, means: &[f32], scale: f32) {
        for ((p, d), mean) in weights.chunks_exact(row).zip(grads.chunks_exact_mut(row)).zip(means) {
            for (d, p) in d.iter_mut().zip(p) {
                *d = p * (*d - mean) * scale;
            }
        }
    }
}

simd! {
    /// Zeroes what is dropped and scales the rest by `keep`.
    fn drop_row(x: &mut [f32], hash: u32, first: u32, limit: u32, keep: f32) {
        for (j, x) in x.iter_mut().enumerate() {
            let stays = mix(hash, first + j as u32) >= limit;
            *x = if stays { *x * keep } else { 0.0 };
        }
    }
}

simd! {
    /// `scores * scale + relative` for one query; `at` is the place of key 0 of the block among the relative positions.
    fn add_relative(scores: &mut [f32], scale: f32, values: &[f32], at: isize) {
        let last = values.len() as isize - 1;
        for (j, x) in scores.iter_mut().enumerate() {
            *x = *x * scale + values[(at - j as isize).clamp(0, last) as usize];
        }
    }
}

/// One tile of queries of one head.
#[derive(Clone, Copy)]
struct Tile<'a> {
    call: &'a Call<'a>,
    b: usize,
    n: usize,
    from: usize,
    rows: usize,
    ranges: &'a [[u32; 2]],
}

impl<'a> Call<'a> {
    fn tiles(&self) -> usize {
        self.sizes.q.div_ceil(TILE)
    }

    fn tile(&'a self, b: usize, n: usize, tile: usize) -> Tile<'a> {
        let from = tile * TILE;
        let rows = TILE.min(self.sizes.q - from);
        Tile { call: self, b, n, from, rows, ranges: &self.ranges[b * self.sizes.q + from..][..rows] }
    }

    /// Numbers from one row of queries, and from one row of keys or values, to the next.
    fn strides(&self) -> [usize; 2] {
        let Sizes { n, g, h, .. } = self.sizes;
        if self.is_packed { [(n + 2 * g) * h; 2] } else { [n * h, g * h] }
    }

    /// The most keys a block of this call holds, in whole vectors.
    fn block(&self) -> usize {
        BLOCK.min(self.sizes.k.next_multiple_of(LANES))
    }
}

impl<'a> Tile<'a> {
    /// The blocks of keys that some query sees: first and count.
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        let seen = self.ranges.iter().filter(|r| r[0] < r[1]);
        let first = seen.clone().map(|r| r[0] as usize).min().unwrap_or(0);
        let last = seen.map(|r| r[1] as usize).max().unwrap_or(0).min(self.call.sizes.k);
        (first..last).step_by(BLOCK).map(move |at| (at, BLOCK.min(last - at)))
    }

    /// This head's part of rows of queries with the given stride, from the tile's first query.
    fn queries<'x>(&self, x: &'x [f32], stride: usize) -> View<'x> {
        let s = self.call.sizes;
        View::rows(&x[(self.b * s.q + self.from) * stride + self.n * s.h..], stride)
    }

    /// This head's part of the keys or values, from the given key.
    fn keys<'x>(&self, x: &'x [f32], first: usize) -> View<'x> {
        let s = self.call.sizes;
        let (g, [_, stride]) = (self.n / (s.n / s.g), self.call.strides());
        View::rows(&x[(self.b * s.k + first) * stride + g * s.h..], stride)
    }

    /// Scores of one block, and the factor that is still to be applied to them.
    fn scores(&self, first: usize, keys: usize, scores: &mut [f32], row: usize) -> f32 {
        let call = self.call;
        let once = How::one(call.precision);
        let query = self.queries(call.q, call.strides()[0]);
        matmul([self.rows, keys, call.sizes.h], query, self.keys(call.k, first).t(), scores, row, once);
        let Some(relative) = call.relative else { return call.scale };
        for (i, scores) in scores.chunks_exact_mut(row).enumerate() {
            let values = &relative.values[self.relative_row(relative, i)..][..relative.r];
            let at = (self.from + i + relative.zero) as isize - first as isize;
            add_relative(&mut scores[..keys], call.scale, values, at);
        }
        1.0
    }

    /// Where the relative numbers of query i of the tile start.
    fn relative_row(&self, relative: Relative, i: usize) -> usize {
        let s = self.call.sizes;
        let query = if relative.is_shared { 0 } else { self.b * s.q + self.from + i };
        (query * s.n + self.n) * relative.r
    }

    fn drop(&self, x: &mut [f32], row: usize, first: usize) {
        if let Some(drop) = &self.call.drop {
            for (i, x) in x.chunks_exact_mut(row).enumerate() {
                drop_row(x, drop.row(self.b, self.n, self.from + i), first as u32, drop.limit, drop.keep);
            }
        }
    }

    fn forward(&self, out: Shared, normaliser: &mut [f32], scores: &mut [f32], result: &mut [f32]) {
        let (call, s) = (self.call, self.call.sizes);
        let mut running = Running { top: [f32::NEG_INFINITY; TILE], total: [0.0; TILE], factor: [0.0; TILE] };
        let mut scale = call.scale;
        for (block, (first, keys)) in self.blocks().enumerate() {
            let row = keys.next_multiple_of(LANES);
            let scores = &mut scores[..self.rows * row];
            scale = self.scores(first, keys, scores, row);
            soften(scores, row, keys, first, self.ranges, scale, &mut running);
            self.drop(scores, row, first);
            let mut how = How::one(call.precision);
            if block > 0 {
                for (result, factor) in result.chunks_exact_mut(s.h).zip(&running.factor).take(self.rows) {
                    result.iter_mut().for_each(|x| *x *= factor);
                }
                how = how.add();
            }
            matmul([self.rows, s.h, keys], View::rows(scores, row), self.keys(call.v, first), result, s.h, how);
        }
        for i in 0..self.rows {
            let total = running.total[i];
            if total == 0.0 {
                continue;
            }
            normaliser[i] = running.top[i] * scale + total.ln();
            // SAFETY: each tile writes the channels of its own queries and head.
            #[allow(unsafe_code)]
            let row = unsafe { out.slice(((self.b * s.q + self.from + i) * s.n + self.n) * s.h, s.h) };
            for (row, x) in row.iter_mut().zip(&result[i * s.h..]) {
                *row = x / total;
            }
        }
    }
}

/// The result `[B, Q, N*H]` and the normaliser of each query `[B, N, Q]`.
pub(crate) fn forward(call: &Call) -> (Vec<f32>, Vec<f32>) {
    let s = call.sizes;
    let mut out = buffer(s.b * s.q * s.n * s.h);
    let mut normaliser = buffer(s.b * s.n * s.q);
    if s.q == 1 && !call.is_packed && call.relative.is_none() && call.drop.is_none() && call.precision == Precision::F32
    {
        single(call, &mut out, &mut normaliser);
        return (out, normaliser);
    }
    let (shared, norms) = (Shared::new(&mut out), Shared::new(&mut normaliser));
    (0..s.b * s.n * call.tiles()).into_par_iter().for_each(|task| {
        let (head, tile) = (task / call.tiles(), task % call.tiles());
        let tile = call.tile(head / s.n, head % s.n, tile);
        // SAFETY: each task writes the normalisers of its own queries and head.
        #[allow(unsafe_code)]
        let norms = unsafe { norms.slice(head * s.q + tile.from, tile.rows) };
        scratch(TILE * (call.block() + s.h), |memory| {
            let (scores, result) = memory.split_at_mut(TILE * call.block());
            tile.forward(shared, norms, scores, result);
        });
    });
    (out, normaliser)
}

simd! {
    /// One query of every head against some keys, read once from front to back: for each head its weighted values,
    /// the largest score and the total of the weights, `[N, H+2]`.
    fn single_span(q: &[f32], k: &[f32], v: &[f32], h: usize, scale: f32, weights: &mut [f32], sums: &mut [f32], width: usize) {
        let (keys, group) = (k.len() / width, q.len() / width);
        for (j, key) in k.chunks_exact(width).enumerate() {
            for (n, q) in q.chunks_exact(h).enumerate() {
                weights[n * keys + j] = dot(q, &key[n / group * h..][..h]) * scale;
            }
        }
        for (weights, sums) in weights.chunks_exact_mut(keys).zip(sums.chunks_exact_mut(h + 2)) {
            let top = math::max(weights);
            for x in weights.iter_mut() {
                *x = math::exp(*x - top);
            }
            sums[h] = top;
            sums[h + 1] = math::sum(weights);
        }
        // Four keys at a time, so that the sums are read and written less often.
        for (j, values) in v.chunks(4 * width).enumerate() {
            for (weights, (n, sums)) in weights.chunks_exact(keys).zip(sums.chunks_exact_mut(h + 2).enumerate()) {
                let (sums, at) = (&mut sums[..h], n / group * h);
                let weights = &weights[4 * j..];
                if values.len() == 4 * width {
                    let part = |i: usize| &values[i * width + at..][..h];
                    let (a, b, c, d) = (part(0), part(1), part(2), part(3));
                    for i in 0..h {
                        sums[i] += (weights[0] * a[i] + weights[1] * b[i]) + (weights[2] * c[i] + weights[3] * d[i]);
                    }
                } else {
                    for (value, weight) in values.chunks_exact(width).zip(weights) {
                        for (sum, x) in sums.iter_mut().zip(&value[at..]) {
                            *sum += weight * x;
                        }
                    }
                }
            }
        }
    }
}

/// `forward` for one query per row: spans of keys in parallel, joined in order.
fn single(call: &Call, out: &mut [f32], normaliser: &mut [f32]) {
    let s = call.sizes;
    let seen = |b: usize| (call.ranges[b][0] as usize, (call.ranges[b][1] as usize).min(s.k));
    let spans = (0..s.b).map(|b| seen(b).1.saturating_sub(seen(b).0).div_ceil(SPAN)).max().unwrap_or(0);
    let (part, width) = (s.n * (s.h + 2), s.g * s.h);
    let mut sums = buffer(s.b * spans * part);
    sums.par_chunks_mut(part).enumerate().for_each(|(task, sums)| {
        let (b, span) = (task / spans, task % spans);
        let (start, end) = seen(b);
        let first = start + span * SPAN;
        if first < end {
            let keys = (b * s.k + first) * width..(b * s.k + end.min(first + SPAN)) * width;
            let q = &call.q[b * s.n * s.h..][..s.n * s.h];
            scratch(s.n * keys.len() / width, |weights| {
                single_span(q, &call.k[keys.clone()], &call.v[keys], s.h, call.scale, weights, sums, width);
            });
        }
    });
    for head in 0..s.b * s.n {
        let (b, n) = (head / s.n, head % s.n);
        let parts = (0..spans)
            .map(|span| &sums[(b * spans + span) * part + n * (s.h + 2)..][..s.h + 2])
            .filter(|part| part[s.h + 1] > 0.0);
        let top = parts.clone().map(|part| part[s.h]).fold(f32::NEG_INFINITY, f32::max);
        let total: f32 = parts.clone().map(|part| part[s.h + 1] * math::exp(part[s.h] - top)).sum();
        for part in parts {
            let share = math::exp(part[s.h] - top) / total;
            for (out, x) in out[head * s.h..(head + 1) * s.h].iter_mut().zip(part) {
                *out += share * x;
            }
            normaliser[head] = top + total.ln();
        }
    }
}

/// Gradients of queries, keys, values and relative numbers (empty without these); when packed, `q` holds all three.
pub(crate) struct Gradients {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub relative: Vec<f32>,
}

/// Where gradients of queries, keys or values are written: rows of `stride` numbers, theirs from number `first` of a row.
#[derive(Clone, Copy)]
struct Target {
    memory: Shared,
    stride: usize,
    first: usize,
}

impl Target {
    /// `len` channels of a row.
    ///
    /// # Safety
    /// No other task may use them while the slice lives.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    unsafe fn slice(&self, row: usize, channel: usize, len: usize) -> &mut [f32] {
        // SAFETY: exclusive use is the caller's promise.
        unsafe { self.memory.slice(row * self.stride + self.first + channel, len) }
    }
}

/// Sums of one backward task over its tiles.
struct Sums<'a> {
    key: &'a mut [f32],
    value: &'a mut [f32],
    /// `[N/G, R]` when all queries share the relative numbers, else empty.
    relative: &'a mut [f32],
    /// All gradients of relative numbers when no two queries share one.
    own: Option<Shared>,
}

impl Tile<'_> {
    /// `means` is the product of result and its gradient for each query.
    fn backward(&self, grad: &[f32], means: &[f32], norms: &[f32], memory: &mut [f32], sums: &mut Sums) {
        let (call, s) = (self.call, self.call.sizes);
        let once = How::one(call.precision);
        let (query, grad) = (self.queries(call.q, call.strides()[0]), self.queries(grad, s.n * s.h));
        let (scores, rest) = memory.split_at_mut(TILE * call.block());
        let (pulls, rest) = rest.split_at_mut(TILE * call.block());
        let (kept, result) = rest.split_at_mut(if call.drop.is_some() { TILE * call.block() } else { 0 });
        for (block, (first, keys)) in self.blocks().enumerate() {
            let row = keys.next_multiple_of(LANES);
            let len = self.rows * row;
            let (scores, pulls) = (&mut scores[..len], &mut pulls[..len]);
            let scale = self.scores(first, keys, scores, row);
            recompute(scores, row, keys, first, self.ranges, scale, norms);
            matmul([self.rows, keys, s.h], grad, self.keys(call.v, first).t(), pulls, row, once);
            let here = first * s.h;
            let mut weights = &*scores;
            if call.drop.is_some() {
                self.drop(pulls, row, first);
                kept[..len].copy_from_slice(scores);
                self.drop(&mut kept[..len], row, first);
                weights = &kept[..len];
            }
            matmul(
                [keys, s.h, self.rows],
                View::rows(weights, row).t(),
                grad,
                &mut sums.value[here..],
                s.h,
                once.add(),
            );
            soften_backward(scores, pulls, row, means, scale);
            if let Some(relative) = call.relative {
                self.relative_backward(relative, pulls, row, first, keys, sums);
            }
            let pull = View::rows(pulls, row);
            matmul([keys, s.h, self.rows], pull.t(), query, &mut sums.key[here..], s.h, once.add());
            let how = if block > 0 { once.add() } else { once };
            matmul([self.rows, s.h, keys], pull, self.keys(call.k, first), result, s.h, how);
        }
    }

    /// Adds the gradients of one block to those of the relative numbers, then applies the scale of the products.
    fn relative_backward(
        &self,
        relative: Relative,
        pulls: &mut [f32],
        row: usize,
        first: usize,
        keys: usize,
        sums: &mut Sums,
    ) {
        let s = self.call.sizes;
        let last = relative.r as isize - 1;
        for (i, pulls) in pulls.chunks_exact_mut(row).enumerate() {
            let into = match &sums.own {
                // SAFETY: without sharing, each query and head has relative numbers of its own, and one tile.
                #[allow(unsafe_code)]
                Some(own) => unsafe { own.slice(self.relative_row(relative, i), relative.r) },
                None => &mut sums.relative[self.n % (s.n / s.g) * relative.r..][..relative.r],
            };
            let at = (self.from + i + relative.zero) as isize - first as isize;
            let (start, end) = local(&self.ranges[i], first, keys);
            for (j, pull) in pulls.iter().enumerate().take(end).skip(start) {
                into[(at - j as isize).clamp(0, last) as usize] += pull;
            }
            pulls.iter_mut().for_each(|x| *x *= self.call.scale);
        }
    }
}

/// Gradients from the result, its gradient and the normalisers of `forward`.
///
/// A task takes every `segments`-th tile of a row and key-value head; sums of the segments are added in order.
pub(crate) fn backward(call: &Call, out: &[f32], grad: &[f32], normaliser: &[f32]) -> Gradients {
    let s = call.sizes;
    let group = s.n / s.g;
    let units = group * call.tiles();
    let segments = TASKS.div_ceil((s.b * s.g).max(1)).min(units).max(1);
    let strides = call.strides();
    let mut gradients = Gradients {
        q: buffer(s.b * s.q * strides[0]),
        k: buffer(if call.is_packed { 0 } else { s.b * s.k * strides[1] }),
        v: buffer(if call.is_packed { 0 } else { s.b * s.k * strides[1] }),
        relative: buffer(call.relative.map_or(0, |r| r.values.len())),
    };
    let is_shared = call.relative.is_some_and(|r| r.is_shared);
    let relative = call.relative.filter(|_| is_shared).map_or(0, |r| group * r.r);
    let tasks = s.b * s.g * segments;
    let side = s.k * s.h;
    // What a task hands over: sums that others continue.
    let joined = if segments > 1 { 2 * side } else { 0 };
    let size = joined + relative;
    let mut partial = buffer(tasks * size);
    let parts = Shared::new(&mut partial);
    let dq = Target { memory: Shared::new(&mut gradients.q), stride: strides[0], first: 0 };
    let [dk, dv] = if call.is_packed {
        [Target { first: s.n * s.h, ..dq }, Target { first: (s.n + s.g) * s.h, ..dq }]
    } else {
        [&mut gradients.k, &mut gradients.v].map(|x| Target { memory: Shared::new(x), stride: strides[1], first: 0 })
    };
    let own = (!is_shared && call.relative.is_some()).then(|| Shared::new(&mut gradients.relative));
    let blocks = if call.drop.is_some() { 3 } else { 2 } * TILE * call.block();
    (0..tasks).into_par_iter().for_each(|task| {
        let (kv, segment) = (task / segments, task % segments);
        let (b, g) = (kv / s.g, kv % s.g);
        scratch(blocks + TILE * s.h + 2 * side - joined, |memory| {
            let (memory, sums) = memory.split_at_mut(blocks + TILE * s.h);
            // SAFETY: each task uses its own part.
            #[allow(unsafe_code)]
            let part = unsafe { parts.slice(task * size, size) };
            let (part, relative) = part.split_at_mut(joined);
            let sums = if segments > 1 { part } else { sums };
            sums.fill(0.0);
            let (key, value) = sums.split_at_mut(side);
            let mut sums = Sums { key, value, relative, own };
            for unit in (segment..units).step_by(segments) {
                let n = g * group + unit / call.tiles();
                let tile = call.tile(b, n, unit % call.tiles());
                let row = |x: &'_ [f32], i: usize| ((b * s.q + tile.from + i) * s.n + n) * s.h..x.len();
                let mut means = [0.0; TILE];
                for (i, mean) in means.iter_mut().enumerate().take(tile.rows) {
                    *mean = dot(&out[row(out, i)][..s.h], &grad[row(grad, i)][..s.h]);
                }
                let norms = &normaliser[(b * s.n + n) * s.q + tile.from..][..tile.rows];
                let (_, result) = memory.split_at_mut(blocks);
                result.fill(0.0);
                tile.backward(grad, &means, norms, memory, &mut sums);
                for (i, from) in memory[blocks..].chunks_exact(s.h).enumerate().take(tile.rows) {
                    // SAFETY: each tile writes the channels of its own queries and head.
                    #[allow(unsafe_code)]
                    let to = unsafe { dq.slice(b * s.q + tile.from + i, n * s.h, s.h) };
                    to.copy_from_slice(from);
                }
            }
            if segments == 1 {
                for (target, sums) in [(dk, sums.key), (dv, sums.value)] {
                    for (i, from) in sums.chunks_exact(s.h).enumerate() {
                        // SAFETY: each task writes the channels of its own row and key-value head.
                        #[allow(unsafe_code)]
                        let to = unsafe { target.slice(b * s.k + i, g * s.h, s.h) };
                        to.copy_from_slice(from);
                    }
                }
            }
        });
    });
    if segments > 1 {
        (0..s.b * s.k).into_par_iter().for_each(|row| {
            let (b, i) = (row / s.k, row % s.k);
            for g in 0..s.g {
                for (target, offset) in [(dk, 0), (dv, side)] {
                    // SAFETY: each task writes one row of keys or values.
                    #[allow(unsafe_code)]
                    let to = unsafe { target.slice(row, g * s.h, s.h) };
                    for segment in 0..segments {
                        let from = &partial[((b * s.g + g) * segments + segment) * size + offset + i * s.h..];
                        to.iter_mut().zip(from).for_each(|(to, x)| *to += x);
                    }
                }
            }
        });
    }
    if is_shared {
        for task in 0..tasks {
            let g = task / segments % s.g;
            let from = &partial[(task + 1) * size - relative..(task + 1) * size];
            gradients.relative[g * relative..].iter_mut().zip(from).for_each(|(to, x)| *to += x);
        }
    }
    gradients
}
