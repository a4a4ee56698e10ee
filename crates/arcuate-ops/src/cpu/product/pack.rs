//! Copies blocks of a factor into the order in which the kernels read them.
//!
//! Both factors are seen as `outer` rows of `k` numbers: the left one as it is, the right one transposed. A packed left
//! panel is `[outer][k]`, or `[k][outer]` if it lies so already; a packed right panel `[k][outer]`. In bf16 the unit is a pair of neighbours along k, the even
//! one in the low half: `[outer][k / 2]` and `[k / 2][outer]`; an odd last k has zero as its neighbour.

use crate::cpu::bf16::round_bits;
use crate::cpu::gemm::Factor;
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
    data: *const u8,
    /// Whether the numbers are bf16.
    short: bool,
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
    /// The block lies inside the factor.
    #[allow(unsafe_code)]
    pub(super) unsafe fn new(factor: Factor, row: usize, rows: usize, first: usize, k: usize) -> Self {
        let [outer, inner] = factor.strides();
        let (data, short) = match factor {
            Factor::F32(x) => (x.data.as_ptr().cast(), false),
            Factor::Bf16(x) => (x.data.as_ptr().cast(), true),
        };
        let all = Self { data, short, outer, inner, rows, k };
        Self { data: all.at(row, first), ..all }
    }

    /// The address of number `l` of outer row `i`.
    fn at(self, i: usize, l: usize) -> *const u8 {
        let size = if self.short { 2 } else { 4 };
        self.data.wrapping_add((i * self.outer + l * self.inner) * size)
    }

    /// Its first number; factors in bf16 are widened before they get to where this is called.
    pub(super) fn numbers(&self) -> *const f32 {
        debug_assert!(!self.short, "a block of bf16 has no f32");
        self.data.cast()
    }

    /// The part of length `k` along k from `first`.
    fn part(self, first: usize, k: usize) -> Self {
        Self { data: self.at(0, first), k, ..self }
    }

    /// Parts of at most `tall` outer rows.
    pub(super) fn panels(self, tall: usize) -> impl Iterator<Item = Self> {
        (0..self.rows).step_by(tall).map(move |i| Self { data: self.at(i, 0), rows: tall.min(self.rows - i), ..self })
    }

    /// The bf16 of number `l` of outer row `i`; zero behind the end.
    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn bits(self, i: usize, l: usize) -> u32 {
        // SAFETY: by the caller's promise that there is such a row.
        unsafe {
            match self.short {
                _ if l >= self.k => 0,
                true => u32::from(*self.at(i, l).cast::<u16>()),
                false => round_bits(*self.at(i, l).cast()) >> 16,
            }
        }
    }

    /// Pair number `p` of outer row `i`.
    #[allow(unsafe_code)]
    #[inline(always)]
    unsafe fn pair(self, i: usize, p: usize) -> u32 {
        // SAFETY: by the caller's promise that there is such a row.
        unsafe { self.bits(i, 2 * p) | self.bits(i, 2 * p + 1) << 16 }
    }
}

/// Where panels go that are packed side by side.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    /// Outer rows of a panel; the last may have fewer.
    pub(super) tall: usize,
    /// Words from one panel to the next.
    pub(super) panel: usize,
}

/// Writes a left panel of f32 with `row` numbers from one outer row to the next.
///
/// # Safety
/// `to` has room for the panel.
#[allow(unsafe_code)]
pub(super) unsafe fn left(from: Block, to: *mut f32, row: usize, round: bool) {
    // SAFETY: passes the caller's promise on.
    unsafe {
        copy(from.numbers(), [from.outer, from.inner], [from.rows, from.k], to, row);
        if round {
            for i in 0..from.rows {
                round_all(std::slice::from_raw_parts_mut(to.add(i * row), from.k));
            }
        }
    }
}

/// Writes left panels of f32 that are contiguous along their outer rows as they lie, `[k][ACROSS]`.
///
/// # Safety
/// `to` has room for the panels, which have no more than ACROSS rows.
#[allow(unsafe_code)]
pub(super) unsafe fn left_across(from: Block, to: *mut f32, panels: Panels, round: bool) {
    // SAFETY: passes the caller's promise on.
    unsafe {
        lines(from, to, ACROSS, panels);
        if round {
            for (p, part) in from.panels(panels.tall).enumerate() {
                for l in 0..from.k {
                    round_all(std::slice::from_raw_parts_mut(to.add(p * panels.panel + l * ACROSS), part.rows));
                }
            }
        }
    }
}

/// As `left_across`, in pairs.
///
/// # Safety
/// As `left_across`.
#[allow(unsafe_code)]
pub(super) unsafe fn left_pairs_across(from: Block, to: *mut u32, panels: Panels) {
    // SAFETY: passes the caller's promise on.
    unsafe { zip(from, to, ACROSS, panels) }
}

/// Writes right panels of f32 that are `width` wide, one after the other; what the block lacks is zero.
///
/// # Safety
/// `to` has room for the panels.
#[allow(unsafe_code)]
pub(super) unsafe fn right(from: Block, to: *mut f32, width: usize, round: bool) {
    let panel = width * from.k;
    // SAFETY: passes the caller's promise on.
    unsafe {
        for (p, from) in from.panels(width).enumerate() {
            let to = to.add(p * panel);
            if from.rows < width {
                std::ptr::write_bytes(to, 0, panel);
            }
            if from.outer != 1 {
                copy(from.numbers(), [from.inner, from.outer], [from.k, from.rows], to, width);
            }
        }
        if from.outer == 1 {
            lines(from, to, width, Panels { tall: width, panel });
        }
        if round {
            round_all(std::slice::from_raw_parts_mut(to, panel * from.rows.div_ceil(width)));
        }
    }
}

/// Copies panels that are contiguous along their outer rows: `[k][line]`.
#[allow(unsafe_code)]
unsafe fn lines(from: Block, to: *mut f32, line: usize, panels: Panels) {
    // SAFETY: by the caller's promise that `to` has room for the panels; the level was found.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if level() >= Level::Avx512 {
            return native::lines(from, to, line, panels);
        }
        for (p, from) in from.panels(panels.tall).enumerate() {
            copy(from.numbers(), [from.inner, 1], [from.k, from.rows], to.add(p * panels.panel), line);
        }
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
        if from.inner != 1 && from.outer == 1 {
            for first in (0..from.k).step_by(STEP) {
                let part = from.part(first, STEP.min(from.k - first));
                zip(part, chunk.as_mut_ptr(), MOST, Panels { tall: MOST, panel: 0 });
                let size = [part.rows, part.k.div_ceil(2)];
                copy(chunk.as_ptr().cast(), [1, MOST], size, to.add(first / 2).cast(), row);
            }
        } else {
            narrow(from, to, row);
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

/// Writes right panels of bf16 that are `width` wide and `pairs` long, one after the other, with zeros for what the block
/// lacks.
///
/// # Safety
/// `to` has room for the panels.
#[allow(unsafe_code)]
pub(super) unsafe fn right_pairs(from: Block, to: *mut u32, width: usize, pairs: usize) {
    let mut chunk = [0u32; MOST * STEP / 2];
    let (panel, n) = (width * pairs, from.k.div_ceil(2));
    let across = from.inner != 1 && from.outer == 1;
    // SAFETY: passes the caller's promise on; a chunk holds MOST outer rows of STEP / 2 pairs.
    unsafe {
        for (p, from) in from.panels(width).enumerate() {
            let to = to.add(p * panel);
            if from.rows < width {
                std::ptr::write_bytes(to, 0, panel);
            }
            for first in (0..if across { 0 } else { from.k }).step_by(STEP) {
                let part = from.part(first, STEP.min(from.k - first));
                narrow(part, chunk.as_mut_ptr(), STEP / 2);
                let size = [part.k.div_ceil(2), part.rows];
                copy(chunk.as_ptr().cast(), [1, STEP / 2], size, to.add(first / 2 * width).cast(), width);
            }
            std::ptr::write_bytes(to.add(n * width), 0, (pairs - n) * width);
        }
        if across {
            zip(from, to, width, Panels { tall: width, panel });
        }
    }
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

/// Pairs of a block: `[rows][pairs]` with `row` pairs a row.
#[allow(unsafe_code)]
unsafe fn narrow(from: Block, to: *mut u32, row: usize) {
    // SAFETY: by the caller's promises; the level was found.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if from.inner == 1 && level() >= Level::Avx512Bf16 {
            return native::narrow(from, to, row);
        }
        for i in 0..from.rows {
            for p in 0..from.k.div_ceil(2) {
                *to.add(i * row + p) = from.pair(i, p);
            }
        }
    }
}

/// Pairs of panels that are contiguous along their outer rows: `[pairs][line]`.
#[allow(unsafe_code)]
unsafe fn zip(from: Block, to: *mut u32, line: usize, panels: Panels) {
    // SAFETY: by the caller's promises; the level was found.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if level() >= Level::Avx512Bf16 {
            return if from.short {
                native::zip::<true>(from, to, line, panels)
            } else {
                native::zip::<false>(from, to, line, panels)
            };
        }
        for p in 0..from.k.div_ceil(2) {
            for i in 0..from.rows {
                let place = i / panels.tall * panels.panel + p * line + i % panels.tall;
                *to.add(place) = from.pair(i, p);
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

    use super::{Block, Panels};

    /// A mask of the first `n` lanes, of at most 16.
    #[inline(always)]
    fn first(n: usize) -> __mmask16 {
        (u32::MAX >> (32 - n.min(16))) as u16
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    #[allow(unsafe_code)]
    pub(super) unsafe fn narrow(from: Block, to: *mut u32, row: usize) {
        // SAFETY: by the caller's promise that the block, contiguous along k, can be read and `to` has room for it.
        unsafe {
            for i in 0..from.rows {
                let to = to.add(i * row);
                if from.short {
                    std::ptr::copy_nonoverlapping(from.at(i, 0), to.cast(), 2 * from.k);
                    if from.k % 2 == 1 {
                        *to.cast::<u16>().add(from.k) = 0;
                    }
                    continue;
                }
                let x: *const f32 = from.at(i, 0).cast();
                let whole = from.k / 32 * 32;
                for l in (0..whole).step_by(32) {
                    let both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x.add(l + 16)), _mm512_loadu_ps(x.add(l)));
                    _mm512_storeu_si512(to.add(l / 2).cast(), std::mem::transmute::<__m512bh, __m512i>(both));
                }
                let rest = from.k - whole;
                if rest > 0 {
                    let x = x.add(whole);
                    let low = _mm512_maskz_loadu_ps(first(rest), x);
                    let high = if rest > 16 {
                        _mm512_maskz_loadu_ps(first(rest - 16), x.add(16))
                    } else {
                        _mm512_setzero_ps()
                    };
                    let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                    _mm512_mask_storeu_epi32(to.add(whole / 2).cast(), first(rest.div_ceil(2)), both);
                }
            }
        }
    }

    /// Where 16 even numbers and the 16 odd ones after them meet.
    const MEET: [u16; 32] = {
        let mut places = [0; 32];
        let mut i = 0;
        while i < 32 {
            places[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        places
    };

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    #[allow(unsafe_code)]
    pub(super) unsafe fn zip<const SHORT: bool>(from: Block, to: *mut u32, line: usize, panels: Panels) {
        // SAFETY: by the caller's promise that the block, contiguous along its rows, can be read and `to` has room for it.
        unsafe {
            let meet = _mm512_loadu_si512(MEET.as_ptr().cast());
            for p in 0..from.k.div_ceil(2) {
                let (even, odd) = (from.at(0, 2 * p), from.at(0, 2 * p + 1));
                let has_odd = if 2 * p + 1 < from.k { __mmask16::MAX } else { 0 };
                let mut to = to.add(p * line);
                for start in (0..from.rows).step_by(panels.tall) {
                    let rows = panels.tall.min(from.rows - start);
                    for i in (0..rows).step_by(16) {
                        let mask = first(rows - i);
                        let at = start + i;
                        let both = if SHORT {
                            let (even, odd) = (even.cast::<i16>().add(at), odd.cast::<i16>().wrapping_add(at));
                            let even = _mm256_maskz_loadu_epi16(mask, even);
                            let odd = _mm256_maskz_loadu_epi16(mask & has_odd, odd);
                            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(even), odd)
                        } else {
                            let (even, odd) = (even.cast::<f32>().add(at), odd.cast::<f32>().wrapping_add(at));
                            let even = _mm512_maskz_loadu_ps(mask, even);
                            let odd = _mm512_maskz_loadu_ps(mask & has_odd, odd);
                            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even))
                        };
                        _mm512_mask_storeu_epi32(to.add(i).cast(), mask, _mm512_permutexvar_epi16(meet, both));
                    }
                    to = to.wrapping_add(panels.panel);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f")]
    #[allow(unsafe_code)]
    pub(super) unsafe fn lines(from: Block, to: *mut f32, line: usize, panels: Panels) {
        // SAFETY: by the caller's promise that the block can be read and `to` has room for it.
        unsafe {
            for l in 0..from.k {
                let x: *const f32 = from.at(0, l).cast();
                let mut to = to.add(l * line);
                for start in (0..from.rows).step_by(panels.tall) {
                    let rows = panels.tall.min(from.rows - start);
                    for i in (0..rows).step_by(16) {
                        let mask = first(rows - i);
                        _mm512_mask_storeu_ps(to.add(i), mask, _mm512_maskz_loadu_ps(mask, x.add(start + i)));
                    }
                    to = to.wrapping_add(panels.panel);
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
