//! Copies blocks of a factor into the order in which the kernels read them.
//!
//! Both factors are seen as `outer` rows of `k` numbers: the left one as it is, the right one transposed. A packed left
//! panel is `[outer][k]`, or `[k][outer]` if it lies so already; a packed right panel `[k][outer]`. In bf16 the unit is a pair of neighbours along k, the even
//! one in the low half: `[outer][k / 2]` and `[k / 2][outer]`; an odd last k has zero as its neighbour.

use crate::cpu::gemm::View;
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::{Level, level};

/// The k that one step of packing to bf16 takes.
const STEP: usize = 32;
/// Words of a line of a left panel that lies across.
pub(super) const ACROSS: usize = 16;
/// The most outer rows of a panel.
pub(super) const MOST: usize = 32;

/// A block of a factor.
#[derive(Clone, Copy)]
pub(super) struct Block {
    data: *const f32,
    /// Distance between outer neighbours.
    outer: usize,
    /// Distance between neighbours along k.
    inner: usize,
    /// Outer rows.
    pub(super) rows: usize,
    /// Length along k.
    pub(super) k: usize,
}

impl Block {
    /// `rows` outer rows from `row` and `k` numbers from `first` of a factor that is seen as outer rows of k numbers.
    ///
    /// # Safety
    /// The block lies inside the view.
    #[allow(unsafe_code)]
    pub(super) unsafe fn new(view: View, row: usize, rows: usize, first: usize, k: usize) -> Self {
        // SAFETY: by the caller's promise.
        let data = unsafe { view.data.as_ptr().add(row * view.row + first * view.col) };
        Self { data, outer: view.row, inner: view.col, rows, k }
    }

    /// Its first number.
    pub(super) fn data(&self) -> *const f32 {
        self.data
    }

    /// The part of length `k` along k from `first`.
    #[allow(unsafe_code)]
    unsafe fn part(self, first: usize, k: usize) -> Self {
        // SAFETY: by the caller's promise that the part lies inside the block.
        Self { data: unsafe { self.data.add(first * self.inner) }, k, ..self }
    }
}

/// Writes a left panel of f32 with `row` numbers from one outer row to the next.
///
/// # Safety
/// `to` has room for the panel.
#[allow(unsafe_code)]
pub(super) unsafe fn left(from: Block, to: *mut f32, row: usize, round: bool) {
    // SAFETY: passes the caller's promise on.
    unsafe {
        copy(from.data, [from.outer, from.inner], [from.rows, from.k], to, row);
        if round {
            for i in 0..from.rows {
                round_all(std::slice::from_raw_parts_mut(to.add(i * row), from.k));
            }
        }
    }
}

/// Writes a left panel of f32 or of pairs that is contiguous along its outer rows as it lies, `[k][ACROSS]`.
///
/// # Safety
/// `to` has room for the panel, which has no more than ACROSS rows.
#[allow(unsafe_code)]
pub(super) unsafe fn left_across(from: Block, to: *mut f32, round: bool) {
    // SAFETY: passes the caller's promise on.
    unsafe {
        lines(from, to, ACROSS);
        if round {
            for l in 0..from.k {
                round_all(std::slice::from_raw_parts_mut(to.add(l * ACROSS), from.rows));
            }
        }
    }
}

/// As `left_across`, in pairs.
///
/// # Safety
/// As `left_across`.
#[allow(unsafe_code)]
pub(super) unsafe fn left_pairs_across(from: Block, to: *mut u32) {
    // SAFETY: passes the caller's promise on.
    unsafe { zip(from, to, ACROSS) }
}

/// Writes a right panel of f32 that is `width` wide; what the block lacks is zero.
///
/// # Safety
/// `to` has room for the panel.
#[allow(unsafe_code)]
pub(super) unsafe fn right(from: Block, to: *mut f32, width: usize, round: bool) {
    // SAFETY: passes the caller's promise on.
    unsafe {
        if from.rows < width {
            std::ptr::write_bytes(to, 0, width * from.k);
        }
        if from.outer == 1 {
            lines(from, to, width);
        } else {
            copy(from.data, [from.inner, from.outer], [from.k, from.rows], to, width);
        }
        if round {
            round_all(std::slice::from_raw_parts_mut(to, width * from.k));
        }
    }
}

/// Copies a block that is contiguous along its outer rows: `[k][width]`.
#[allow(unsafe_code)]
unsafe fn lines(from: Block, to: *mut f32, width: usize) {
    // SAFETY: by the caller's promise that `to` has room for the block; the level was found.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if level() >= Level::Avx512 {
            return native::lines(from, to, width);
        }
        copy(from.data, [from.inner, 1], [from.k, from.rows], to, width);
    }
}

/// Writes a left panel of bf16 with `row` pairs from one outer row to the next; `pairs` of them are written, and
/// `rows` outer rows, with zeros for what the block lacks.
///
/// # Safety
/// `to` has room for the panel.
#[allow(unsafe_code)]
pub(super) unsafe fn left_pairs(from: Block, to: *mut u32, row: usize, pairs: usize, rows: usize) {
    let mut chunk = [0u32; MOST * STEP / 2];
    // SAFETY: passes the caller's promise on; a chunk holds MOST outer rows of STEP / 2 pairs.
    unsafe {
        for first in (0..from.k).step_by(STEP) {
            let part = from.part(first, STEP.min(from.k - first));
            let (n, to) = (part.k.div_ceil(2), to.add(first / 2));
            if part.inner != 1 && part.outer == 1 {
                zip(part, chunk.as_mut_ptr(), MOST);
                copy(chunk.as_ptr().cast(), [1, MOST], [part.rows, n], to.cast(), row);
            } else {
                narrow(part, to, row);
            }
        }
        let n = from.k.div_ceil(2);
        for i in 0..from.rows {
            std::ptr::write_bytes(to.add(i * row + n), 0, pairs - n);
        }
        for i in from.rows..rows {
            std::ptr::write_bytes(to.add(i * row), 0, pairs);
        }
    }
}

/// Writes a right panel of bf16 that is `width` wide and `pairs` long, with zeros for what the block lacks.
///
/// # Safety
/// `to` has room for the panel.
#[allow(unsafe_code)]
pub(super) unsafe fn right_pairs(from: Block, to: *mut u32, width: usize, pairs: usize) {
    let mut chunk = [0u32; MOST * STEP / 2];
    // SAFETY: passes the caller's promise on; a chunk holds MOST outer rows of STEP / 2 pairs.
    unsafe {
        if from.rows < width {
            std::ptr::write_bytes(to, 0, width * pairs);
        }
        for first in (0..from.k).step_by(STEP) {
            let part = from.part(first, STEP.min(from.k - first));
            let (n, to) = (part.k.div_ceil(2), to.add(first / 2 * width));
            if part.inner != 1 && part.outer == 1 {
                zip(part, to, width);
            } else {
                narrow(part, chunk.as_mut_ptr(), STEP / 2);
                copy(chunk.as_ptr().cast(), [1, STEP / 2], [n, part.rows], to.cast(), width);
            }
        }
        let n = from.k.div_ceil(2);
        std::ptr::write_bytes(to.add(n * width), 0, (pairs - n) * width);
    }
}

/// The bits of the nearest bf16, ties to even, as an f32. Not-a-number stays one.
#[inline(always)]
fn round_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    if x.is_nan() { (bits | 0x0040_0000) & 0xffff_0000 } else { rounded }
}

/// The nearest bf16, ties to even.
#[inline(always)]
pub(super) fn round(x: f32) -> f32 {
    f32::from_bits(round_bits(x))
}

crate::cpu::simd::simd! {
    fn round_all(x: &mut [f32]) {
        for x in x {
            *x = round(*x);
        }
    }
}

/// Pairs of a block of at most STEP numbers along k, contiguous or not: `[rows][pairs]` with `row` pairs a row.
#[allow(unsafe_code)]
unsafe fn narrow(from: Block, to: *mut u32, row: usize) {
    let mut line = [0f32; STEP];
    // SAFETY: by the caller's promises; a line holds STEP numbers.
    unsafe {
        for i in 0..from.rows {
            let (at, to) = (from.data.add(i * from.outer), to.add(i * row));
            if from.inner == 1 && from.k == STEP {
                narrow_line(at, to);
                continue;
            }
            for (l, x) in line.iter_mut().enumerate().take(from.k) {
                *x = *at.add(l * from.inner);
            }
            for p in 0..from.k.div_ceil(2) {
                // What lies behind an odd end was never written: zero.
                *to.add(p) = pair(line[2 * p], line[2 * p + 1]);
            }
        }
    }
}

#[inline(always)]
fn pair(even: f32, odd: f32) -> u32 {
    (round_bits(even) >> 16) | round_bits(odd)
}

/// STEP contiguous numbers to pairs.
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn narrow_line(from: *const f32, to: *mut u32) {
    // SAFETY: by the caller's promise that STEP numbers can be read and STEP / 2 pairs written; the level was found.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if level() >= Level::Avx512Bf16 {
            return native::narrow_line(from, to);
        }
        for p in 0..STEP / 2 {
            *to.add(p) = pair(*from.add(2 * p), *from.add(2 * p + 1));
        }
    }
}

/// Pairs of a block that is contiguous along its outer rows: `[pairs][rows]` with `row` pairs a line.
#[allow(unsafe_code)]
unsafe fn zip(from: Block, to: *mut u32, row: usize) {
    // SAFETY: by the caller's promises; the level was found.
    unsafe {
        for p in 0..from.k.div_ceil(2) {
            let (even, to) = (from.data.add(2 * p * from.inner), to.add(p * row));
            if 2 * p + 1 == from.k {
                for i in 0..from.rows {
                    *to.add(i) = pair(*even.add(i), 0.0);
                }
                continue;
            }
            let odd = even.add(from.inner);
            #[cfg(target_arch = "x86_64")]
            if level() >= Level::Avx512Bf16 {
                for i in (0..from.rows).step_by(16) {
                    native::zip_line(even.add(i), odd.add(i), to.add(i), 16.min(from.rows - i));
                }
                continue;
            }
            for i in 0..from.rows {
                *to.add(i) = pair(*even.add(i), *odd.add(i));
            }
        }
    }
}

/// `to[i * row + j] = from[i * strides[0] + j * strides[1]]` for words of 32 bits.
#[allow(unsafe_code)]
unsafe fn copy(from: *const f32, strides: [usize; 2], size: [usize; 2], to: *mut f32, row: usize) {
    let ([down, right], [rows, cols]) = (strides, size);
    // SAFETY: by the caller's promise that both places have room; the level was found.
    unsafe {
        if right == 1 {
            for i in 0..rows {
                std::ptr::copy_nonoverlapping(from.add(i * down), to.add(i * row), cols);
            }
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if down == 1 && level() >= Level::Avx2 {
            return native::transpose(from, right, size, to, row);
        }
        for i in 0..rows {
            for j in 0..cols {
                *to.add(i * row + j) = *from.add(i * down + j * right);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod native {
    use std::arch::x86_64::*;

    use super::{Block, MOST, STEP};

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[allow(unsafe_code)]
    pub(super) unsafe fn narrow_line(from: *const f32, to: *mut u32) {
        const { assert!(STEP == 32) }
        // SAFETY: by the caller's promise that 32 numbers can be read and 16 pairs written.
        unsafe {
            let both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(from.add(16)), _mm512_loadu_ps(from));
            _mm512_storeu_si512(to.cast(), std::mem::transmute::<__m512bh, __m512i>(both));
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    #[allow(unsafe_code)]
    pub(super) unsafe fn zip_line(even: *const f32, odd: *const f32, to: *mut u32, n: usize) {
        let mask = u16::MAX >> (16 - n);
        // SAFETY: by the caller's promise that n numbers can be read twice and n pairs written.
        unsafe {
            let (even, odd) = (_mm512_maskz_loadu_ps(mask, even), _mm512_maskz_loadu_ps(mask, odd));
            let low = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(even));
            let high = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(odd));
            let high = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(high));
            _mm512_mask_storeu_epi32(to.cast(), mask, _mm512_or_si512(_mm512_cvtepu16_epi32(low), high));
        }
    }

    #[target_feature(enable = "avx512f")]
    #[allow(unsafe_code)]
    pub(super) unsafe fn lines(from: Block, to: *mut f32, width: usize) {
        const { assert!(MOST == 32) }
        let first = u16::MAX >> 16_usize.saturating_sub(from.rows);
        let second = (u32::MAX >> (MOST - from.rows) >> 16) as u16;
        // SAFETY: by the caller's promise that the block can be read and `to` has room for it.
        unsafe {
            for l in 0..from.k {
                let (from, to) = (from.data.add(l * from.inner), to.add(l * width));
                _mm512_mask_storeu_ps(to, first, _mm512_maskz_loadu_ps(first, from));
                if second != 0 {
                    _mm512_mask_storeu_ps(to.add(16), second, _mm512_maskz_loadu_ps(second, from.add(16)));
                }
            }
        }
    }

    /// `to[i * row + j] = from[i + j * right]`, in squares of 8 by 8.
    #[target_feature(enable = "avx2")]
    #[allow(unsafe_code)]
    pub(super) unsafe fn transpose(from: *const f32, right: usize, size: [usize; 2], to: *mut f32, row: usize) {
        let [rows, cols] = size;
        let (whole_rows, whole_cols) = (rows / 8 * 8, cols / 8 * 8);
        // SAFETY: by the caller's promise that both places have room for `size`.
        unsafe {
            for j in (0..whole_cols).step_by(8) {
                for i in (0..whole_rows).step_by(8) {
                    square(from.add(i + j * right), right, to.add(i * row + j), row);
                }
                for i in whole_rows..rows {
                    for j in j..j + 8 {
                        *to.add(i * row + j) = *from.add(i + j * right);
                    }
                }
            }
            for i in 0..rows {
                for j in whole_cols..cols {
                    *to.add(i * row + j) = *from.add(i + j * right);
                }
            }
        }
    }

    #[target_feature(enable = "avx2")]
    #[allow(unsafe_code)]
    #[inline]
    unsafe fn square(from: *const f32, right: usize, to: *mut f32, row: usize) {
        // SAFETY: by the caller's promise that both places have room for 8 rows of 8.
        unsafe {
            let mut x = [_mm256_setzero_ps(); 8];
            // The halves that end up side by side are loaded side by side, which saves a third of the shuffles.
            for i in 0..4 {
                let (low, high) = (from.add(i * right), from.add((i + 4) * right));
                let (a, b) = (_mm_loadu_ps(low), _mm_loadu_ps(high));
                x[i] = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(a), b);
                let (a, b) = (_mm_loadu_ps(low.add(4)), _mm_loadu_ps(high.add(4)));
                x[i + 4] = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(a), b);
            }
            for half in 0..2 {
                let [a, b, c, d] = [x[4 * half], x[4 * half + 1], x[4 * half + 2], x[4 * half + 3]];
                let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                let (ba, dc) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                let to = to.add(4 * half * row);
                _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(ab, cd));
                _mm256_storeu_ps(to.add(row), _mm256_shuffle_ps::<0xee>(ab, cd));
                _mm256_storeu_ps(to.add(2 * row), _mm256_shuffle_ps::<0x44>(ba, dc));
                _mm256_storeu_ps(to.add(3 * row), _mm256_shuffle_ps::<0xee>(ba, dc));
            }
        }
    }
}
