//! Sums of vectors in a fixed order.

use rayon::prelude::*;

use super::simd::simd;

simd! {
    /// `x += y`
    pub(crate) fn add(x: &mut [f32], y: &[f32]) {
        for (x, y) in x.iter_mut().zip(y) {
            *x += y;
        }
    }
}

/// Sums over rows of a row-major matrix, in an order that no number of threads changes.
pub(crate) fn column_sums(x: &[f32], columns: usize) -> Vec<f32> {
    const ROWS: usize = 128;
    let partial: Vec<Vec<f32>> = x
        .par_chunks((columns * ROWS).max(1))
        .map(|rows| {
            let mut sum = vec![0f32; columns];
            for row in rows.chunks_exact(columns) {
                add(&mut sum, row);
            }
            sum
        })
        .collect();
    add_in_order(partial, columns)
}

/// Adds vectors one after the other.
pub(crate) fn add_in_order(parts: Vec<Vec<f32>>, len: usize) -> Vec<f32> {
    let mut parts = parts.into_iter();
    let mut total = parts.next().unwrap_or_else(|| vec![0.0; len]);
    for part in parts {
        add(&mut total, &part);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn column_sums_do_not_depend_on_blocks() {
        let x: Vec<f32> = (0..1000 * 3).map(|i| i as f32).collect();
        let plain: Vec<f32> = (0..3).map(|j| (0..1000).map(|i| x[i * 3 + j]).sum()).collect();
        for (a, b) in column_sums(&x, 3).iter().zip(plain) {
            assert!((a - b).abs() <= b * 1e-6);
        }
    }
}
