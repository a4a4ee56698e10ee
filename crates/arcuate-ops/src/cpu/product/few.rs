//! Products with so few rows that laying the right factor into panels would cost more than the product, as in decoding a
//! batch token by token: rows of the right factor are read as they lie, contiguous along k, and sums run along k.

use super::memory::with_memory;
use super::{LINE, Output, SMALL, each, pack};
use crate::Precision;
use crate::cpu::gemm::{Factor, How, View};
use crate::cpu::simd::{Level, level, simd};

/// The most rows.
const ROWS: usize = 64;
/// The shortest sums: those of shorter ones cost too much to close.
const LEAST: usize = 192;
/// Sums that run side by side along k, on every processor, so that results do not depend on the instruction set.
const LANES: usize = 16;
/// Rows and columns of a tile.
const TILE: usize = 4;

/// Whether a product is one for this file; in bf16, panels are multiplied twice as fast.
pub(super) fn fits([m, n, k]: [usize; 3], b: Factor, precision: Precision) -> bool {
    precision == Precision::F32 && m <= ROWS && k >= LEAST && b.strides()[0] == 1 && n >= TILE
}

/// As `super::multiply` for at most `ROWS` rows and a right factor that is contiguous along k.
///
/// # Safety
/// As `super::multiply`.
#[allow(unsafe_code)]
pub(super) unsafe fn multiply<F>([m, n, k]: [usize; 3], a: View, b: View, out: Output, how: How, finish: &F)
where
    F: Fn(usize, usize, &mut [f32]) + Sync,
{
    // An odd number of cache lines apart, so that rows do not fall into the same places of the first cache.
    let row = (k.div_ceil(LINE / 4) | 1) * (LINE / 4);
    // Tiles of nearly equal height.
    let tall = m.div_ceil(m.div_ceil(TILE));
    with_memory(m * row * 4, |memory| {
        let left: *mut f32 = memory.cast();
        // SAFETY: the memory has room for m rows, whose first k numbers are all written.
        unsafe { pack::left(pack::Block::new(a.into(), 0, m, 0, k), left, row, false) };
        let left = Rows { data: left, row, k };
        let cols = (SMALL / 4 / (m * k)).next_multiple_of(TILE).max(TILE);
        each(how.threads, n.div_ceil(cols), |task| {
            let columns = task * cols..n.min((task + 1) * cols);
            for j in columns.clone().step_by(TILE) {
                let wide = TILE.min(columns.end - j);
                // SAFETY: these rows lie inside the right factor; tiles lie inside the output, in columns where this task
                // alone works.
                unsafe {
                    let right = Rows { data: b.data.as_ptr().add(j * b.col), row: b.col, k };
                    for i in (0..m).step_by(tall) {
                        tile(left.from(i), tall.min(m - i), right, wide, out.part(i, j), how.accumulate);
                    }
                }
            }
            let wide = columns.len();
            for i in 0..m {
                // SAFETY: this task alone works on these columns, which now hold numbers.
                finish(i, columns.start, unsafe { std::slice::from_raw_parts_mut(out.at(i, columns.start), wide) });
            }
        });
    });
}

/// Rows of k numbers.
#[derive(Clone, Copy)]
struct Rows {
    data: *const f32,
    row: usize,
    k: usize,
}

// SAFETY: only read while tasks share them.
#[allow(unsafe_code)]
unsafe impl Send for Rows {}
#[allow(unsafe_code)]
unsafe impl Sync for Rows {}

impl Rows {
    /// The rows from row `i`.
    fn from(self, i: usize) -> Self {
        Self { data: self.data.wrapping_add(i * self.row), ..self }
    }
}

/// The products of `tall` rows with `wide` rows, at most TILE of each.
///
/// # Safety
/// The rows exist, so does the part of the output, where nobody else works; it holds numbers if they are added to.
#[allow(unsafe_code)]
unsafe fn tile(left: Rows, tall: usize, right: Rows, wide: usize, out: Output, add: bool) {
    let mut sums = [0f32; TILE * TILE];
    // Rows that do not exist repeat the last one.
    let starts = std::array::from_fn(|j| right.from(j.min(wide - 1)).data);
    // SAFETY: the caller's promise; the level was found.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if level() >= Level::Avx512 {
            match tall {
                1 => native::dots::<1>(left, starts, TILE * right.row, &mut sums),
                2 => native::dots::<2>(left, starts, TILE * right.row, &mut sums),
                3 => native::dots::<3>(left, starts, TILE * right.row, &mut sums),
                _ => native::dots::<TILE>(left, starts, TILE * right.row, &mut sums),
            }
        } else {
            dots(left, tall, starts, &mut sums, level() >= Level::Avx2);
        }
        #[cfg(not(target_arch = "x86_64"))]
        dots(left, tall, starts, &mut sums, false);
        for i in 0..tall {
            super::tile::store(&sums[i * TILE..][..wide], out.at(i, 0), add);
        }
    }
}

simd! {
    /// Sums `[tall][TILE]` of products along k, as `native::dots`.
    fn dots(left: Rows, tall: usize, right: [*const f32; TILE], sums: &mut [f32; TILE * TILE], fused: bool) {
        for i in 0..tall {
            for j in (0..TILE).step_by(2) {
                // SAFETY: the rows exist and have k numbers.
                #[allow(unsafe_code)]
                let [x, y, z] = unsafe { [left.from(i).data, right[j], right[j + 1]].map(|x| std::slice::from_raw_parts(x, left.k)) };
                [sums[i * TILE + j], sums[i * TILE + j + 1]] =
                    if fused { pair::<true>(x, y, z) } else { pair::<false>(x, y, z) };
            }
        }
    }
}

/// The products of `x` with `y` and with `z`.
#[inline(always)]
fn pair<const FUSED: bool>(x: &[f32], y: &[f32], z: &[f32]) -> [f32; 2] {
    let step = |x: f32, y: f32, sum: f32| if FUSED { x.mul_add(y, sum) } else { sum + x * y };
    let mut lanes = [[0f32; LANES]; 2];
    let (x, y, z) = (x.as_chunks::<LANES>(), y.as_chunks::<LANES>(), z.as_chunks::<LANES>());
    for ((x, y), z) in x.0.iter().zip(y.0).zip(z.0) {
        for i in 0..LANES {
            lanes[0][i] = step(x[i], y[i], lanes[0][i]);
            lanes[1][i] = step(x[i], z[i], lanes[1][i]);
        }
    }
    for (i, ((x, y), z)) in x.1.iter().zip(y.1).zip(z.1).enumerate() {
        lanes[0][i] = step(*x, *y, lanes[0][i]);
        lanes[1][i] = step(*x, *z, lanes[1][i]);
    }
    lanes.map(|mut lanes| {
        for width in [8, 4, 2, 1] {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
        }
        lanes[0]
    })
}

#[cfg(target_arch = "x86_64")]
mod native {
    use std::arch::x86_64::*;

    use super::{LANES, Rows, TILE};

    /// Sums `[R][TILE]` of products along k: LANES sums side by side, then halves added to halves. Asks for what lies
    /// `ahead` numbers behind the right rows: these are too short for the processor to foresee the next ones.
    ///
    /// # Safety
    /// The processor has the features; the rows exist and have k numbers.
    #[target_feature(enable = "avx512f")]
    #[allow(unsafe_code)]
    pub(super) unsafe fn dots<const R: usize>(
        left: Rows,
        right: [*const f32; TILE],
        ahead: usize,
        sums: &mut [f32; TILE * TILE],
    ) {
        const { assert!(LANES == 16 && TILE == 4) }
        let k = left.k;
        // SAFETY: the caller's promise; a mask leaves out what lies behind the end.
        unsafe {
            let x: [*const f32; R] = std::array::from_fn(|i| left.data.add(i * left.row));
            let mut lanes = [[_mm512_setzero_ps(); TILE]; R];
            let mut l = 0;
            while l + LANES <= k {
                for y in right {
                    _mm_prefetch::<_MM_HINT_T0>(y.wrapping_add(l + ahead).cast());
                }
                let y = [
                    _mm512_loadu_ps(right[0].add(l)),
                    _mm512_loadu_ps(right[1].add(l)),
                    _mm512_loadu_ps(right[2].add(l)),
                    _mm512_loadu_ps(right[3].add(l)),
                ];
                for i in 0..R {
                    let x = _mm512_loadu_ps(x[i].add(l));
                    for j in 0..TILE {
                        lanes[i][j] = _mm512_fmadd_ps(x, y[j], lanes[i][j]);
                    }
                }
                l += LANES;
            }
            if l < k {
                let mask = __mmask16::MAX >> (LANES - (k - l));
                for i in 0..R {
                    let x = _mm512_maskz_loadu_ps(mask, x[i].add(l));
                    for j in 0..TILE {
                        let y = _mm512_maskz_loadu_ps(mask, right[j].add(l));
                        lanes[i][j] = _mm512_mask3_fmadd_ps(x, y, lanes[i][j], mask);
                    }
                }
            }
            // Halves of one are added beside those of another: 16 lanes of a row's four sums become 4 of each.
            for (i, [a, b, c, d]) in lanes.into_iter().enumerate() {
                let ab = add(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
                let cd = add(_mm512_shuffle_f32x4::<0x44>(c, d), _mm512_shuffle_f32x4::<0xee>(c, d));
                let four = add(_mm512_shuffle_f32x4::<0x88>(ab, cd), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
                // Lanes 0 to 3 are now those of the first, and so on.
                let two = add(four, _mm512_permute_ps::<0x4e>(four));
                let one = add(two, _mm512_permute_ps::<0xb1>(two));
                let every_fourth = _mm512_maskz_compress_ps(0x1111, one);
                _mm_storeu_ps(sums.as_mut_ptr().add(i * TILE), _mm512_castps512_ps128(every_fourth));
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn add(x: __m512, y: __m512) -> __m512 {
        _mm512_add_ps(x, y)
    }
}
