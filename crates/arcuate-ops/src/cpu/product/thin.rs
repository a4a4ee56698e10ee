//! Products with few rows, as in decoding token by token: the right factor is read once, as it lies in memory.

use super::memory::with_memory;
use super::{Output, SMALL, each, pack};
use crate::Precision;
use crate::cpu::gemm::{How, View};
use crate::cpu::simd::simd;

/// The most rows.
pub(super) const ROWS: usize = 4;
/// Columns of one task.
const COLS: usize = 512;
/// Sums that run side by side along k.
const LANES: usize = 32;

/// As `super::multiply` for at most `ROWS` rows and a right factor that is contiguous along k or along n.
///
/// # Safety
/// As `super::multiply`.
#[allow(unsafe_code)]
pub(super) unsafe fn multiply<F>([m, n, k]: [usize; 3], a: View, b: View, out: Output, how: How, finish: &F)
where
    F: Fn(usize, usize, &mut [f32]) + Sync,
{
    let round = how.precision == Precision::Bf16;
    with_memory(m * k * 4, |memory| {
        let left: *mut f32 = memory.cast();
        // SAFETY: the memory has room for m rows of k, all of which are written.
        let left: &[f32] = unsafe {
            pack::left(pack::Block::new(a, 0, m, 0, k), left, k, round);
            std::slice::from_raw_parts(left, m * k)
        };
        // Narrower tasks when the columns are few and long.
        let cols = COLS.min((SMALL / (m * k)).next_multiple_of(16).max(16));
        each(how.threads, n.div_ceil(cols), |task| {
            let j = task * cols;
            let mut sums = [0f32; ROWS * COLS];
            let n = cols.min(n - j);
            let sums = &mut sums[..m * n];
            if b.row == 1 {
                dots(left, k, &b.data[j * b.col..], b.col, sums, round);
            } else {
                sweeps(left, k, &b.data[j..], b.row, sums, round);
            }
            for (i, sums) in sums.chunks_exact(n).enumerate() {
                // SAFETY: this task alone works on these columns; the output holds numbers if it is added to, and after
                // the copy in any case.
                unsafe {
                    let to = out.at(i, j);
                    for (x, &sum) in sums.iter().enumerate() {
                        *to.add(x) = if how.accumulate { *to.add(x) + sum } else { sum };
                    }
                    finish(i, j, std::slice::from_raw_parts_mut(to, n));
                }
            }
        });
    });
}

simd! {
    /// `sums[m, n] = left[m, k] right[n, k]^T`, `row` numbers from one row of `right` to the next.
    fn dots(left: &[f32], k: usize, right: &[f32], row: usize, sums: &mut [f32], round: bool) {
        match (left.len() / k, round) {
            (1, false) => dots_of::<1, false>(left, k, right, row, sums),
            (2, false) => dots_of::<2, false>(left, k, right, row, sums),
            (3, false) => dots_of::<3, false>(left, k, right, row, sums),
            (_, false) => dots_of::<4, false>(left, k, right, row, sums),
            (1, true) => dots_of::<1, true>(left, k, right, row, sums),
            (2, true) => dots_of::<2, true>(left, k, right, row, sums),
            (3, true) => dots_of::<3, true>(left, k, right, row, sums),
            (_, true) => dots_of::<4, true>(left, k, right, row, sums),
        }
    }
}

#[inline(always)]
fn factor<const ROUND: bool>(x: f32) -> f32 {
    if ROUND { pack::round(x) } else { x }
}

#[inline(always)]
fn dots_of<const M: usize, const ROUND: bool>(left: &[f32], k: usize, right: &[f32], row: usize, sums: &mut [f32]) {
    let n = sums.len() / M;
    let whole = k / LANES * LANES;
    for j in 0..n {
        let right = &right[j * row..][..k];
        let mut lanes = [[0f32; LANES]; M];
        for l in (0..whole).step_by(LANES) {
            let right = &right[l..l + LANES];
            for (i, lanes) in lanes.iter_mut().enumerate() {
                let left = &left[i * k + l..][..LANES];
                for ((sum, &x), &y) in lanes.iter_mut().zip(left).zip(right) {
                    *sum += x * factor::<ROUND>(y);
                }
            }
        }
        for (i, lanes) in lanes.iter_mut().enumerate() {
            for (sum, (&x, &y)) in lanes.iter_mut().zip(left[i * k + whole..(i + 1) * k].iter().zip(&right[whole..])) {
                *sum += x * factor::<ROUND>(y);
            }
            let mut width = LANES / 2;
            while width > 0 {
                for x in 0..width {
                    lanes[x] += lanes[x + width];
                }
                width /= 2;
            }
            sums[i * n + j] = lanes[0];
        }
    }
}

simd! {
    /// `sums[m, n] += left[m, k] right[k, n]`, `row` numbers from one row of `right` to the next.
    fn sweeps(left: &[f32], k: usize, right: &[f32], row: usize, sums: &mut [f32], round: bool) {
        if round {
            sweeps_of::<true>(left, k, right, row, sums);
        } else {
            sweeps_of::<false>(left, k, right, row, sums);
        }
    }
}

#[inline(always)]
fn sweeps_of<const ROUND: bool>(left: &[f32], k: usize, right: &[f32], row: usize, sums: &mut [f32]) {
    let n = sums.len() / (left.len() / k);
    let whole = k / 4 * 4;
    for l in (0..whole).step_by(4) {
        let [r0, r1, r2, r3] = [0, 1, 2, 3].map(|i| &right[(l + i) * row..][..n]);
        for (sums, left) in sums.chunks_exact_mut(n).zip(left.chunks_exact(k)) {
            let [x0, x1, x2, x3] = [left[l], left[l + 1], left[l + 2], left[l + 3]];
            for ((((sum, &y0), &y1), &y2), &y3) in sums.iter_mut().zip(r0).zip(r1).zip(r2).zip(r3) {
                *sum += x0 * factor::<ROUND>(y0);
                *sum += x1 * factor::<ROUND>(y1);
                *sum += x2 * factor::<ROUND>(y2);
                *sum += x3 * factor::<ROUND>(y3);
            }
        }
    }
    for l in whole..k {
        let right = &right[l * row..][..n];
        for (sums, left) in sums.chunks_exact_mut(n).zip(left.chunks_exact(k)) {
            for (sum, &y) in sums.iter_mut().zip(right) {
                *sum += left[l] * factor::<ROUND>(y);
            }
        }
    }
}
