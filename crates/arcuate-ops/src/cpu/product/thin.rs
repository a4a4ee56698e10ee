//! Products with few rows, as in decoding token by token: the right factor is read once, as it lies in memory.

use super::memory::with_memory;
use super::{Output, SMALL, each, pack};
use crate::Precision;
use crate::cpu::gemm::{How, View};
use crate::cpu::simd::{Level, level, simd};

/// The most rows.
pub(super) const ROWS: usize = 4;
/// The smallest right factor for which packing it would cost more than the product. Sums along k are in another order
/// here than in blocks, so a row of a large product may differ in its last bits from the same row among more rows.
pub(super) const LEAST: usize = 1 << 14;
/// Columns of one task.
const COLS: usize = 512;
/// Sums that run side by side along k.
const LANES: usize = 64;

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
            pack::left(pack::Block::new(a.into(), 0, m, 0, k), left, k, round);
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

/// Calls a function for the number of rows, whether to round, and whether multiply-adds are fused, as constants.
macro_rules! by_case {
    ($function:ident, $left:ident, $k:ident, $round:ident, $args:tt) => {
        by_case!($function, $left.len() / $k, $round, level() >= Level::Avx2, $args, 1 2 3 4)
    };
    ($function:ident, $rows:expr, $round:expr, $fused:expr, $args:tt, $($m:literal)*) => {
        match ($rows, $round, $fused) {
            $(
                ($m, false, false) => $function::<$m, false, false> $args,
                ($m, false, true) => $function::<$m, false, true> $args,
                ($m, true, false) => $function::<$m, true, false> $args,
                ($m, true, true) => $function::<$m, true, true> $args,
            )*
            _ => unreachable!("a thin product of so many rows"),
        }
    };
}

/// `sum + x y` where `y` may need rounding.
#[inline(always)]
fn step<const ROUND: bool, const FUSED: bool>(x: f32, y: f32, sum: f32) -> f32 {
    let y = if ROUND { pack::round(y) } else { y };
    if FUSED { x.mul_add(y, sum) } else { sum + x * y }
}

simd! {
    /// `sums[m, n] = left[m, k] right[n, k]^T`, `row` numbers from one row of `right` to the next.
    fn dots(left: &[f32], k: usize, right: &[f32], row: usize, sums: &mut [f32], round: bool) {
        by_case!(dots_of, left, k, round, (left, k, right, row, sums))
    }
}

#[inline(always)]
fn dots_of<const M: usize, const ROUND: bool, const FUSED: bool>(
    left: &[f32],
    k: usize,
    right: &[f32],
    row: usize,
    sums: &mut [f32],
) {
    let n = sums.len() / M;
    let left: [&[f32]; M] = std::array::from_fn(|i| &left[i * k..][..k]);
    for j in 0..n {
        let right = &right[j * row..][..k];
        let mut lanes = [[0f32; LANES]; M];
        let (whole, rest) = right.as_chunks::<LANES>();
        let left = left.map(|left| left.as_chunks::<LANES>());
        for (l, right) in whole.iter().enumerate() {
            for i in 0..M {
                let left = &left[i].0[l];
                for x in 0..LANES {
                    lanes[i][x] = step::<ROUND, FUSED>(left[x], right[x], lanes[i][x]);
                }
            }
        }
        for i in 0..M {
            let mut lanes = lanes[i];
            for (sum, (&x, &y)) in lanes.iter_mut().zip(left[i].1.iter().zip(rest)) {
                *sum = step::<ROUND, FUSED>(x, y, *sum);
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
        by_case!(sweeps_of, left, k, round, (left, k, right, row, sums))
    }
}

#[inline(always)]
fn sweeps_of<const M: usize, const ROUND: bool, const FUSED: bool>(
    left: &[f32],
    k: usize,
    right: &[f32],
    row: usize,
    sums: &mut [f32],
) {
    const DEEP: usize = 4;
    let n = sums.len() / M;
    let whole = k / DEEP * DEEP;
    let mut sums = sums.chunks_exact_mut(n);
    let mut sums: [&mut [f32]; M] = std::array::from_fn(|_| sums.next().unwrap_or_default());
    for l in (0..whole).step_by(DEEP) {
        let [r0, r1, r2, r3] = [0, 1, 2, 3].map(|d| &right[(l + d) * row..][..n]);
        for (i, sums) in sums.iter_mut().enumerate() {
            let left = &left[i * k + l..][..DEEP];
            let [x0, x1, x2, x3] = [left[0], left[1], left[2], left[3]];
            for ((((sum, &y0), &y1), &y2), &y3) in sums.iter_mut().zip(r0).zip(r1).zip(r2).zip(r3) {
                let first = step::<ROUND, FUSED>(x1, y1, step::<ROUND, FUSED>(x0, y0, *sum));
                *sum = step::<ROUND, FUSED>(x3, y3, step::<ROUND, FUSED>(x2, y2, first));
            }
        }
    }
    for l in whole..k {
        let right = &right[l * row..][..n];
        for (i, sums) in sums.iter_mut().enumerate() {
            for (sum, &y) in sums.iter_mut().zip(right) {
                *sum = step::<ROUND, FUSED>(left[i * k + l], y, *sum);
            }
        }
    }
}
