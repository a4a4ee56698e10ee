//! Kernels that multiply packed panels. Each element is one chain of multiply-adds in the order of k, whatever the
//! place of the element in its tile, so f32 results of AVX2 and AVX-512 are equal bit by bit.

/// A left panel, a row of right panels, and where their product goes. A word is an f32 or a pair of bf16.
pub(super) struct Strip {
    /// `rows` rows of `k` words.
    pub a: *const f32,
    /// Words from one row of `a` to the next.
    pub a_row: usize,
    /// Words from one place along k to the next, in `a`.
    pub a_step: usize,
    /// Panels of `k` lines of the kernel's width in words, one after the other.
    pub b: *const f32,
    /// Words along k.
    pub k: usize,
    pub out: *mut f32,
    pub out_row: usize,
    pub rows: usize,
    pub cols: usize,
    /// Whether the product is added to `out`.
    pub add: bool,
}

/// Lines that are asked for ahead of their use.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 12;

/// Evaluates a call with the number of rows as a constant.
macro_rules! by_rows {
    ($rows:expr, $name:ident => $call:expr, $($r:literal)*) => {
        match $rows {
            $($r => {
                const $name: usize = $r;
                $call
            })*
            _ => unreachable!("a strip of so many rows"),
        }
    };
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    use std::arch::x86_64::*;

    use super::{AHEAD, Strip};

    pub(in super::super) const ROWS: usize = 14;
    pub(in super::super) const COLS: usize = 32;

    /// Repeats a body for rows 0 to R: loops of this length are not unrolled by themselves, and sums would not stay in
    /// registers.
    macro_rules! unroll {
        ($rows:ident, $r:ident => $body:block) => { unroll!($rows, $r, $body, 0 1 2 3 4 5 6 7 8 9 10 11 12 13) };
        ($rows:ident, $r:ident, $body:block, $($i:literal)*) => {
            $(if $i < $rows {
                let $r: usize = $i;
                $body
            })*
        };
    }

    macro_rules! kernels {
        ($strip:ident, $tile:ident, $features:literal, $words:ident, $one:ident, $step:ident) => {
            /// # Safety
            /// The processor has the features; the panels are as `Strip` says; nobody else uses the output.
            #[target_feature(enable = $features)]
            #[allow(unsafe_code)]
            pub(in super::super) unsafe fn $strip(s: &Strip) {
                for j in (0..s.cols).step_by(COLS) {
                    let n = COLS.min(s.cols - j);
                    // SAFETY: the tile lies inside the strip.
                    unsafe {
                        if n > 16 {
                            by_rows!(s.rows, R => $tile::<R, 2>(s, j, n), 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
                        } else {
                            by_rows!(s.rows, R => $tile::<R, 1>(s, j, n), 1 2 3 4 5 6 7 8 9 10 11 12 13 14);
                        }
                    }
                }
            }

            /// R rows and C times 16 columns, of which the first `n` exist.
            #[target_feature(enable = $features)]
            #[allow(unsafe_code)]
            #[inline(never)]
            unsafe fn $tile<const R: usize, const C: usize>(s: &Strip, j: usize, n: usize) {
                // SAFETY: the caller's promise.
                unsafe {
                    let out = s.out.add(j);
                    for r in 0..R {
                        for c in 0..C {
                            _mm_prefetch::<_MM_HINT_T0>(out.wrapping_add(r * s.out_row + 16 * c).cast());
                        }
                    }
                    let mut sum = [[_mm512_setzero_ps(); 2]; ROWS];
                    let mut b = s.b.add(j * s.k);
                    for l in 0..s.k {
                        let right = [$words(b), $words(b.add(16 * (C - 1)))];
                        _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * COLS).cast());
                        if C == 2 {
                            _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * COLS + 16).cast());
                        }
                        unroll!(R, r => {
                            let left = $one(s.a.add(r * s.a_row + l * s.a_step));
                            sum[r][0] = $step(left, right[0], sum[r][0]);
                            if C == 2 {
                                sum[r][1] = $step(left, right[1], sum[r][1]);
                            }
                        });
                        b = b.add(COLS);
                    }
                    // Of the last 16 columns.
                    let mask = __mmask16::MAX >> (16 * C - n);
                    unroll!(R, r => {
                        let to = out.wrapping_add(r * s.out_row);
                        if C == 2 {
                            write(to, sum[r][0], __mmask16::MAX, s.add);
                        }
                        write(to.wrapping_add(16 * (C - 1)), sum[r][C - 1], mask, s.add);
                    });
                }
            }
        };
    }

    /// Writes what the mask names, or adds it.
    #[target_feature(enable = "avx512f")]
    #[inline]
    #[allow(unsafe_code)]
    unsafe fn write(to: *mut f32, sum: __m512, mask: __mmask16, add: bool) {
        // SAFETY: the caller's promise that the numbers that the mask names lie inside the output.
        unsafe {
            let sum = if add { _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to), sum) } else { sum };
            _mm512_mask_storeu_ps(to, mask, sum);
        }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    #[allow(unsafe_code)]
    unsafe fn numbers(p: *const f32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    #[allow(unsafe_code)]
    unsafe fn number(p: *const f32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_ps(*p) }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    #[allow(unsafe_code)]
    unsafe fn pairs(p: *const f32) -> __m512bh {
        // SAFETY: the caller's promise; both types are 64 bytes for which all bits are valid.
        unsafe { std::mem::transmute(_mm512_loadu_si512(p.cast())) }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    #[allow(unsafe_code)]
    unsafe fn one_pair(p: *const f32) -> __m512bh {
        // SAFETY: the caller's promise; both types are 64 bytes for which all bits are valid.
        unsafe { std::mem::transmute(_mm512_set1_epi32(*p.cast())) }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    #[inline]
    fn pairs_step(left: __m512bh, right: __m512bh, sum: __m512) -> __m512 {
        _mm512_dpbf16_ps(sum, left, right)
    }

    kernels!(strip, tile, "avx512f,avx512bw,avx512dq,avx512vl", numbers, number, _mm512_fmadd_ps);
    kernels!(strip_pairs, tile_pairs, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16", pairs, one_pair, pairs_step);
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    use std::arch::x86_64::*;

    use super::{AHEAD, Strip};

    pub(in super::super) const ROWS: usize = 6;
    pub(in super::super) const COLS: usize = 16;

    /// # Safety
    /// The processor has the features; the panels are as `Strip` says; nobody else uses the output.
    #[target_feature(enable = "avx2,fma")]
    #[allow(unsafe_code)]
    pub(in super::super) unsafe fn strip(s: &Strip) {
        for j in (0..s.cols).step_by(COLS) {
            // SAFETY: the tile lies inside the strip.
            unsafe { by_rows!(s.rows, R => tile::<R>(s, j, COLS.min(s.cols - j)), 1 2 3 4 5 6) }
        }
    }

    #[target_feature(enable = "avx2,fma")]
    #[allow(unsafe_code)]
    unsafe fn tile<const R: usize>(s: &Strip, j: usize, n: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sum = [[_mm256_setzero_ps(); 2]; R];
            let mut b = s.b.add(j * s.k);
            for l in 0..s.k {
                let right = [_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8))];
                _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(AHEAD * COLS).cast());
                for (r, sum) in sum.iter_mut().enumerate() {
                    let left = _mm256_set1_ps(*s.a.add(r * s.a_row + l * s.a_step));
                    sum[0] = _mm256_fmadd_ps(left, right[0], sum[0]);
                    sum[1] = _mm256_fmadd_ps(left, right[1], sum[1]);
                }
                b = b.add(COLS);
            }
            for (r, &[first, second]) in sum.iter().enumerate() {
                let to = s.out.add(r * s.out_row + j);
                let mut line = [0f32; COLS];
                _mm256_storeu_ps(line.as_mut_ptr(), first);
                _mm256_storeu_ps(line.as_mut_ptr().add(8), second);
                super::store(&line[..n], to, s.add);
            }
        }
    }
}

pub(super) mod portable {
    use super::Strip;

    pub(in super::super) const ROWS: usize = 4;
    pub(in super::super) const COLS: usize = 8;

    /// # Safety
    /// The panels are as `Strip` says; nobody else uses the output.
    #[allow(unsafe_code)]
    pub(in super::super) unsafe fn strip(s: &Strip) {
        for j in (0..s.cols).step_by(COLS) {
            // SAFETY: the tile lies inside the strip.
            unsafe { by_rows!(s.rows, R => tile::<R>(s, j, COLS.min(s.cols - j)), 1 2 3 4) }
        }
    }

    #[allow(unsafe_code)]
    unsafe fn tile<const R: usize>(s: &Strip, j: usize, n: usize) {
        let mut sum = [[0f32; COLS]; R];
        // SAFETY: the caller's promise.
        unsafe {
            let b = s.b.add(j * s.k);
            for l in 0..s.k {
                let right: [f32; COLS] = b.add(l * COLS).cast::<[f32; COLS]>().read();
                for (r, sum) in sum.iter_mut().enumerate() {
                    let left = *s.a.add(r * s.a_row + l * s.a_step);
                    for (sum, right) in sum.iter_mut().zip(right) {
                        *sum += left * right;
                    }
                }
            }
            for (r, sum) in sum.iter().enumerate() {
                super::store(&sum[..n], s.out.add(r * s.out_row + j), s.add);
            }
        }
    }
}

/// Writes a line of a tile, or adds it.
///
/// # Safety
/// `to` has room for the line.
#[allow(unsafe_code)]
#[inline(always)]
pub(super) unsafe fn store(line: &[f32], to: *mut f32, add: bool) {
    for (i, &x) in line.iter().enumerate() {
        // SAFETY: the caller's promise. What is not added to may hold no number yet, and is not read.
        unsafe {
            let to = to.add(i);
            *to = if add { *to + x } else { x };
        }
    }
}
