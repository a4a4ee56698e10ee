//! Matrix products over strided memory of f32 or bf16.

use super::bf16::{Bf16, widen};
use super::product::{Output, multiply};
use crate::Precision;

/// A strided matrix to read: element (i, j) is `data[i * row + j * col]`.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, T = f32> {
    pub data: &'a [T],
    pub row: usize,
    pub col: usize,
}

impl<'a, T> View<'a, T> {
    /// Row-major with the given row length.
    pub(crate) fn rows(data: &'a [T], row: usize) -> Self {
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

/// A matrix of a product, in either kind of numbers.
#[derive(Clone, Copy)]
pub(crate) enum Factor<'a> {
    F32(View<'a>),
    Bf16(View<'a, Bf16>),
}

impl<'a> From<View<'a>> for Factor<'a> {
    fn from(view: View<'a>) -> Self {
        Self::F32(view)
    }
}

impl<'a> From<View<'a, Bf16>> for Factor<'a> {
    fn from(view: View<'a, Bf16>) -> Self {
        Self::Bf16(view)
    }
}

impl<'a> Factor<'a> {
    /// The transpose.
    pub(crate) fn t(self) -> Self {
        match self {
            Self::F32(x) => Self::F32(x.t()),
            Self::Bf16(x) => Self::Bf16(x.t()),
        }
    }

    /// Distances between neighbours in a column and in a row.
    pub(super) fn strides(self) -> [usize; 2] {
        match self {
            Self::F32(x) => [x.row, x.col],
            Self::Bf16(x) => [x.row, x.col],
        }
    }

    /// The same in f32, in the given memory if it is not so already.
    pub(super) fn widen<'b>(self, memory: &'b mut Vec<f32>) -> View<'b>
    where
        'a: 'b,
    {
        match self {
            Self::F32(x) => x,
            Self::Bf16(x) => {
                *memory = widen(x.data);
                View { data: memory, row: x.row, col: x.col }
            }
        }
    }

    fn covers(self, rows: usize, cols: usize) -> bool {
        match self {
            Self::F32(x) => x.covers(rows, cols),
            Self::Bf16(x) => x.covers(rows, cols),
        }
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
pub(crate) fn matmul<'a>(
    sizes: [usize; 3],
    a: impl Into<Factor<'a>>,
    b: impl Into<Factor<'a>>,
    out: &mut [f32],
    out_row: usize,
    how: How,
) {
    matmul_then(sizes, a, b, out, out_row, how, |_, _, _| {});
}

/// `matmul`, then `finish(row, first column, numbers)` for each finished piece of a row of `out`, while it is in the
/// cache: once for each element, in no particular order, by several threads.
pub(crate) fn matmul_then<'a>(
    [m, n, k]: [usize; 3],
    a: impl Into<Factor<'a>>,
    b: impl Into<Factor<'a>>,
    out: &mut [f32],
    out_row: usize,
    how: How,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) {
    let (a, b) = (a.into(), b.into());
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
pub(crate) fn matmul_new<'a>(
    [m, n, k]: [usize; 3],
    a: impl Into<Factor<'a>>,
    b: impl Into<Factor<'a>>,
    how: How,
    finish: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let (a, b) = (a.into(), b.into());
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
pub(crate) struct Shared<T = f32>(*mut T, usize);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: only handed to tasks that write disjoint places.
#[allow(unsafe_code)]
unsafe impl<T: Send> Send for Shared<T> {}
#[allow(unsafe_code)]
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(data: &mut [T]) -> Self {
        Self(data.as_mut_ptr(), data.len())
    }

    /// `len` numbers from `start`.
    ///
    /// # Safety
    /// No other task may use any of these numbers while the slice lives.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.1 && len <= self.1 - start, "a task writes outside of its buffer");
        // SAFETY: in bounds by the assert; exclusive use is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}
