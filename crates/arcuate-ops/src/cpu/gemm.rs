//! Matrix products over strided f32 memory.

use super::product::{Output, multiply};
use crate::Precision;

/// A strided matrix to read: element (i, j) is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub col: usize,
}

impl<'a> View<'a> {
    /// Row-major with the given row length.
    pub(crate) fn rows(data: &'a [f32], row: usize) -> Self {
        Self { data, row, col: 1 }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self { data: self.data, row: self.col, col: self.row }
    }

    fn covers(&self, rows: usize, cols: usize) -> bool {
        rows == 0 || cols == 0 || (rows - 1) * self.row + (cols - 1) * self.col < self.data.len()
    }
}

/// Who computes a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Threads {
    /// The calling thread: inside a parallel loop.
    One,
    /// All threads of the pool.
    All,
}

/// How a product is computed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Whether the product is added to what `out` holds.
    pub accumulate: bool,
    /// Numbers that are multiplied; sums are f32.
    pub precision: Precision,
    /// Who computes.
    pub threads: Threads,
}

impl How {
    /// All threads; the result replaces `out`.
    pub(crate) fn all(precision: Precision) -> Self {
        Self { accumulate: false, precision, threads: Threads::All }
    }

    /// The calling thread; the result replaces `out`.
    pub(crate) fn one(precision: Precision) -> Self {
        Self { accumulate: false, precision, threads: Threads::One }
    }

    /// The result is added to `out`.
    pub(crate) fn add(self) -> Self {
        Self { accumulate: true, ..self }
    }
}

/// `out[m, n] = a[m, k] b[k, n]`, plus the old `out` when accumulating; `out` is row-major with `out_row` numbers a row.
pub(crate) fn matmul(sizes: [usize; 3], a: View, b: View, out: &mut [f32], out_row: usize, how: How) {
    matmul_then(sizes, a, b, out, out_row, how, |_, _, _| {});
}

/// `matmul`, then `finish(row, first column, numbers)` for each finished piece of a row of `out`, while it is in the
/// cache: once for each element, in no particular order, by several threads.
pub(crate) fn matmul_then(
    [m, n, k]: [usize; 3],
    a: View,
    b: View,
    out: &mut [f32],
    out_row: usize,
    how: How,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    assert!(a.covers(m, k) && b.covers(k, n), "matrix product reads past its inputs");
    assert!(m <= 1 || n <= out_row, "rows of the matrix product overlap");
    assert!(m == 0 || n == 0 || (m - 1) * out_row + n <= out.len(), "matrix product writes past its output");
    if m == 0 || n == 0 {
        return;
    }
    let out = Output { data: out.as_mut_ptr(), row: out_row };
    // SAFETY: the asserts above show that every element that the strides reach lies inside its slice, and that rows of
    // the output are apart.
    #[allow(unsafe_code)]
    unsafe {
        multiply([m, n, k], a, b, out, how, &finish);
    }
}

/// `matmul_then` into a new vector of m times n numbers, which is written only once.
///
/// # Panics
/// When asked to accumulate: there is nothing yet to add to.
pub(crate) fn matmul_new(
    [m, n, k]: [usize; 3],
    a: View,
    b: View,
    how: How,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    assert!(a.covers(m, k) && b.covers(k, n), "matrix product reads past its inputs");
    assert!(!how.accumulate, "a new matrix has nothing to add to");
    let len = m.checked_mul(n).expect("a matrix product fits into memory");
    let mut result = Vec::with_capacity(len);
    if len > 0 {
        let out = Output { data: result.as_mut_ptr(), row: n };
        // SAFETY: the assert above shows that the factors have the sizes, the capacity that the output has; a product
        // that does not accumulate writes each element and reads none before.
        #[allow(unsafe_code)]
        unsafe {
            multiply([m, n, k], a, b, out, how, &finish);
            result.set_len(len);
        }
    }
    result
}

/// A vector for results that are all overwritten.
pub(crate) fn buffer(len: usize) -> Vec<f32> {
    vec![0.0; len]
}

/// A pointer that parallel tasks use to write disjoint places of one buffer.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*mut f32, usize);

// SAFETY: only handed to tasks that write disjoint places.
#[allow(unsafe_code)]
unsafe impl Send for Shared {}
#[allow(unsafe_code)]
unsafe impl Sync for Shared {}

impl Shared {
    pub(crate) fn new(data: &mut [f32]) -> Self {
        Self(data.as_mut_ptr(), data.len())
    }

    /// `len` numbers from `start`.
    ///
    /// # Safety
    /// No other task may use any of these numbers while the slice lives.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(start <= self.1 && len <= self.1 - start, "a task writes outside of its buffer");
        // SAFETY: in bounds by the assert; exclusive use is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}
