//! Matrix products over strided f32 memory.

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
pub(crate) fn matmul([m, n, k]: [usize; 3], a: View, b: View, out: &mut [f32], out_row: usize, how: How) {
    let How { accumulate, threads, .. } = how;
    assert!(a.covers(m, k) && b.covers(k, n), "matrix product reads past its inputs");
    assert!(m == 0 || n == 0 || (m - 1) * out_row + n <= out.len(), "matrix product writes past its output");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            for row in out.chunks_mut(out_row).take(m) {
                row[..n].fill(0.0);
            }
        }
        return;
    }
    let parallelism = match threads {
        Threads::One => gemm::Parallelism::None,
        Threads::All => gemm::Parallelism::Rayon(0),
    };
    // SAFETY: the three asserts above show that every element that the strides reach lies inside its slice.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            out_row as isize,
            accumulate,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            if accumulate { 1.0 } else { 0.0 },
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn plain([m, n, k]: [usize; 3], a: View, b: View) -> Vec<f32> {
        let mut out = vec![0.0; m * n];
        for i in 0..m {
            for j in 0..n {
                out[i * n + j] = (0..k).map(|l| a.data[i * a.row + l * a.col] * b.data[l * b.row + j * b.col]).sum();
            }
        }
        out
    }

    #[test]
    fn agrees_with_plain_loop_for_all_layouts_and_odd_sizes() {
        for [m, n, k] in [[1, 1, 1], [3, 5, 7], [17, 33, 65], [64, 1, 3], [1, 64, 9], [0, 3, 2], [2, 2, 0]] {
            let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.7).sin()).collect();
            let b: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.3).cos()).collect();
            for (a, b) in [
                (View::rows(&a, k), View::rows(&b, n)),
                (View::rows(&a, k), View::rows(&b, k).t()),
                (View::rows(&a, m).t(), View::rows(&b, n)),
            ] {
                for threads in [Threads::One, Threads::All] {
                    let mut out = vec![1.0; m * n];
                    let how = How { accumulate: false, precision: Precision::F32, threads };
                    matmul([m, n, k], a, b, &mut out, n, how);
                    let mut twice = out.clone();
                    matmul([m, n, k], a, b, &mut twice, n, how.add());
                    for ((x, y), z) in out.iter().zip(plain([m, n, k], a, b)).zip(&twice) {
                        assert!((x - y).abs() < 1e-4 && (z - 2.0 * y).abs() < 2e-4);
                    }
                }
            }
        }
    }
}
