//! The engine against plain loops, for every instruction set, layout and number of threads.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::cpu::gemm::{View, matmul, matmul_new, matmul_then};
use crate::cpu::simd::testing::pool;

/// Calls `f` once for each level of this processor, on threads that use it.
fn each_level(mut f: impl FnMut(Level) + Send) {
    static POOLS: OnceLock<Vec<(Level, rayon::ThreadPool)>> = OnceLock::new();
    for (level, pool) in POOLS.get_or_init(|| Level::available().map(|level| (level, pool(level, 2))).collect()) {
        pool.install(|| f(*level));
    }
}

fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 24) as f32 - 0.5) * 4.0
        })
        .collect()
}

#[derive(Debug, Clone, Copy)]
enum Layout {
    Rows,
    Columns,
    /// Rows that overlap.
    Overlapping,
    /// Neither direction is contiguous.
    Strided,
}

const LAYOUTS: [Layout; 4] = [Layout::Rows, Layout::Columns, Layout::Overlapping, Layout::Strided];

/// A matrix of the given layout, and the row and column distances.
fn matrix(rows: usize, cols: usize, layout: Layout, seed: u64) -> (Vec<f32>, usize, usize) {
    let (row, col) = match layout {
        Layout::Rows => (cols, 1),
        Layout::Columns => (1, rows),
        Layout::Overlapping => (2, 1),
        Layout::Strided => (2 * cols + 1, 2),
    };
    let len = if rows * cols == 0 { 0 } else { (rows - 1) * row + (cols - 1) * col + 1 };
    (numbers(len, seed), row, col)
}

fn near(value: f32) -> f64 {
    f64::from(pack::round(value))
}

/// The product at (i, j) in f64 and the sum of the magnitudes.
fn plain(a: View, b: View, i: usize, j: usize, k: usize, precision: Precision) -> (f64, f64) {
    let number = |x: f32| if precision == Precision::Bf16 { near(x) } else { f64::from(x) };
    (0..k).fold((0.0, 0.0), |(sum, size), l| {
        let x = number(a.data[i * a.row + l * a.col]) * number(b.data[l * b.row + j * b.col]);
        (sum + x, size + x.abs())
    })
}

fn close(got: f32, (value, size): (f64, f64), k: usize) -> bool {
    (f64::from(got) - value).abs() <= (k as f64 + 4.0) * 6e-8 * (size + 1.0)
}

#[test]
fn agrees_with_plain_loops_for_all_layouts_and_odd_sizes() {
    const SIZES: [usize; 14] = [0, 1, 2, 3, 5, 15, 16, 17, 31, 33, 64, 65, 100, 257];
    let mut case = 0;
    for m in SIZES {
        for n in SIZES {
            for k in SIZES {
                case += 1;
                let (a, row, col) = matrix(m, k, LAYOUTS[case % 4], case as u64);
                let a = View { data: &a, row, col };
                let (b, row, col) = matrix(k, n, LAYOUTS[case / 4 % 4], case as u64 + 1);
                let b = View { data: &b, row, col };
                for precision in [Precision::F32, Precision::Bf16] {
                    let expected: Vec<_> = (0..m * n).map(|x| plain(a, b, x / n, x % n, k, precision)).collect();
                    each_level(|level| {
                        let (gap, how) = (case % 3, How::one(precision));
                        let mut out = vec![7.0; m * (n + gap)];
                        matmul([m, n, k], a, b, &mut out, n + gap, how);
                        let mut twice = out.clone();
                        matmul([m, n, k], a, b, &mut twice, n + gap, how.add());
                        for (i, row) in out.chunks_exact((n + gap).max(1)).enumerate() {
                            let (row, rest) = row.split_at(n);
                            assert!(rest.iter().all(|x| *x == 7.0));
                            for (j, x) in row.iter().enumerate() {
                                let (value, size) = expected[i * n + j];
                                let y = twice[i * (n + gap) + j];
                                assert!(
                                    close(*x, (value, size), k) && close(y, (2.0 * value, 2.0 * size), k),
                                    "{level:?} {precision:?} [{m}, {n}, {k}] at {i}, {j}: {x} {y} {value}"
                                );
                            }
                        }
                    });
                }
            }
        }
    }
}

/// Sizes of several blocks along k, of columns near and far, and of several tasks.
const LARGE: [[usize; 3]; 5] = [[37, 2900, 390], [230, 350, 801], [3, 1100, 500], [300, 3, 1600], [1, 2000, 70]];

#[test]
fn agrees_with_plain_loops_for_several_blocks() {
    for (case, [m, n, k]) in LARGE.into_iter().enumerate() {
        for layout in LAYOUTS {
            let (a, row, col) = matrix(m, k, layout, case as u64);
            let a = View { data: &a, row, col };
            let (b, row, col) = matrix(k, n, LAYOUTS[(case + m) % 4], 9);
            let b = View { data: &b, row, col };
            for precision in [Precision::F32, Precision::Bf16] {
                each_level(|level| {
                    let out = matmul_new([m, n, k], a, b, How::all(precision), |_, _, _| {});
                    assert_eq!(out.len(), m * n);
                    for x in (0..m * n).step_by(1 + m * n / 997).chain([m * n - 1]) {
                        let expected = plain(a, b, x / n, x % n, k, precision);
                        assert!(close(out[x], expected, k), "{level:?} {precision:?} [{m}, {n}, {k}] {layout:?} {x}");
                    }
                });
            }
        }
    }
}

#[test]
fn finishes_each_element_once_and_last() {
    for [m, n, k] in LARGE.into_iter().chain([[5, 7, 0], [64, 33, 20]]) {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        let (a, b) = (View::rows(&a, k), View::rows(&b, n));
        each_level(|_| {
            let mut plain = vec![1.0; m * n];
            matmul([m, n, k], a, b, &mut plain, n, How::all(Precision::Bf16).add());
            let count: Vec<AtomicU32> = (0..m * n).map(|_| AtomicU32::new(0)).collect();
            let mut out = vec![1.0; m * n];
            matmul_then([m, n, k], a, b, &mut out, n, How::all(Precision::Bf16).add(), |i, first, row| {
                for (j, x) in row.iter_mut().enumerate() {
                    count[i * n + first + j].fetch_add(1, Ordering::Relaxed);
                    *x = 2.0 * *x + (i + first + j) as f32;
                }
            });
            assert!(count.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            for (x, (got, plain)) in out.iter().zip(&plain).enumerate() {
                assert_eq!(*got, 2.0 * plain + (x / n + x % n) as f32);
            }
        });
    }
}

#[test]
fn number_of_threads_changes_no_bit() {
    for [m, n, k] in LARGE.into_iter().chain([[130, 70, 2100], [64, 256, 64]]) {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        for (a, b) in [
            (View::rows(&a, k), View::rows(&b, n)),
            (View::rows(&a, k), View::rows(&b, k).t()),
            (View::rows(&a, m).t(), View::rows(&b, n)),
        ] {
            for precision in [Precision::F32, Precision::Bf16] {
                each_level(|level| {
                    let alone = matmul_new([m, n, k], a, b, How::one(precision), |_, _, _| {});
                    for threads in [1, 2, 3] {
                        let out = pool(level, threads)
                            .install(|| matmul_new([m, n, k], a, b, How::all(precision), |_, _, _| {}));
                        let same = out.iter().zip(&alone).all(|(x, y)| x.to_bits() == y.to_bits());
                        assert!(same, "{level:?} {precision:?} [{m}, {n}, {k}] {threads} threads");
                    }
                });
            }
        }
    }
}

#[test]
fn one_thread_is_the_calling_thread() {
    let (a, b) = (numbers(300 * 300, 1), numbers(300 * 300, 2));
    let here = std::thread::current().id();
    for m in [2, 300] {
        let mut out = vec![0.0; m * 300];
        let (a, b) = (View::rows(&a, 300), View::rows(&b, 300));
        matmul_then([m, 300, 300], a, b, &mut out, 300, How::one(Precision::F32), |_, _, _| {
            assert_eq!(std::thread::current().id(), here);
        });
    }
}

#[test]
fn extreme_numbers_stay_in_their_row_and_column() {
    for [m, n, k] in [[40, 45, 37], [3, 45, 37]] {
        let (mut a, mut b) = (numbers(m * k, 1), numbers(k * n, 2));
        a[2 * k + 5] = f32::INFINITY;
        a[k + 36] = f32::NAN;
        b[6 * n + 44] = f32::from_bits(0xffff_ffff);
        b[7 * n + 33] = f32::NEG_INFINITY;
        for precision in [Precision::F32, Precision::Bf16] {
            each_level(|level| {
                for b in [View::rows(&b, n), View::rows(&transposed(&b, n), k).t()] {
                    let out = matmul_new([m, n, k], View::rows(&a, k), b, How::one(precision), |_, _, _| {});
                    for (x, got) in out.iter().enumerate() {
                        let value = plain(View::rows(&a, k), b, x / n, x % n, k, precision).0;
                        let same = if value.is_finite() {
                            (f64::from(*got) - value).abs() < 1e-4
                        } else {
                            value.is_nan() == got.is_nan() && (value.is_nan() || f64::from(*got) == value)
                        };
                        assert!(same, "{level:?} {precision:?} {x}: {got} {value}");
                    }
                }
            });
        }
    }
}

fn transposed(x: &[f32], cols: usize) -> Vec<f32> {
    (0..x.len()).map(|i| x[i % (x.len() / cols) * cols + i / (x.len() / cols)]).collect()
}

#[test]
fn numbers_below_the_normal_range_are_kept_in_f32() {
    let (m, n, k) = (20, 40, 3);
    let a = vec![f32::from_bits(3); m * k];
    let b = vec![2.0; k * n];
    each_level(|_| {
        let out = matmul_new([m, n, k], View::rows(&a, k), View::rows(&b, n), How::one(Precision::F32), |_, _, _| {});
        assert!(out.iter().all(|x| x.to_bits() == 18));
    });
}

#[test]
fn rounds_to_nearest_even() {
    for (x, y) in [
        (1.0, 1.0),
        (f32::from_bits(0x3f80_8000), 1.0),
        (f32::from_bits(0x3f80_8001), f32::from_bits(0x3f81_0000)),
        (f32::from_bits(0x3f81_8000), f32::from_bits(0x3f82_0000)),
        (f32::MAX, f32::INFINITY),
        (f32::NEG_INFINITY, f32::NEG_INFINITY),
        (-0.0, -0.0),
    ] {
        assert_eq!(pack::round(x).to_bits(), y.to_bits());
    }
    assert!(pack::round(f32::from_bits(0x7f80_0001)).is_nan() && pack::round(f32::from_bits(0xffff_ffff)).is_nan());
}

/// `amx::strip` with tiles as arrays: the same loads, products and stores as its assembly, in plain Rust.
#[cfg(target_arch = "x86_64")]
mod emulated {
    use super::*;

    type Tile = [[u32; 16]; 16];

    /// `tileloadd`: 16 rows of 64 bytes, `row` words apart.
    #[allow(unsafe_code)]
    unsafe fn load(from: *const f32, row: usize) -> Tile {
        // SAFETY: the caller's promise that the tile can be read.
        std::array::from_fn(|i| unsafe { from.add(i * row).cast::<[u32; 16]>().read() })
    }

    /// `tdpbf16ps`: `sum[m][n] += a[m][2 l] b[l][2 n] + a[m][2 l + 1] b[l][2 n + 1]`.
    fn dot(sum: &mut [[f32; 16]; 16], a: &Tile, b: &Tile) {
        let halves = |pair: u32| [f32::from_bits(pair << 16), f32::from_bits(pair & 0xffff_0000)];
        for m in 0..16 {
            for n in 0..16 {
                for l in 0..16 {
                    let ([a0, a1], [b0, b1]) = (halves(a[m][l]), halves(b[l][n]));
                    sum[m][n] += a0 * b0 + a1 * b1;
                }
            }
        }
    }

    #[allow(unsafe_code)]
    unsafe fn strip(s: &Strip) {
        assert!(s.rows <= amx::ROWS && s.k.is_multiple_of(amx::PAIRS));
        for j in (0..s.cols).step_by(amx::COLS) {
            let mut sums = [[[[0f32; 16]; 16]; 2]; 2];
            for l in (0..s.k).step_by(amx::PAIRS) {
                for (half, sums) in sums.iter_mut().enumerate() {
                    for (side, sum) in sums.iter_mut().enumerate() {
                        // SAFETY: both lie inside the packed panels.
                        unsafe {
                            let a = load(s.a.add(l + half * 16 * s.a_row), s.a_row);
                            let b = load(s.b.add(j * s.k + l * amx::COLS + 16 * side), amx::COLS);
                            dot(sum, &a, &b);
                        }
                    }
                }
            }
            for i in 0..s.rows {
                for x in 0..amx::COLS.min(s.cols - j) {
                    let sum = sums[i / 16][x / 16][i % 16][x % 16];
                    // SAFETY: inside the output.
                    unsafe { tile::store(&[sum], s.out.add(i * s.out_row + j + x), s.add) };
                }
            }
        }
    }

    #[test]
    fn panels_are_as_amx_reads_them() {
        let engine = Engine { strip, ..Engine::new(Precision::Bf16, Level::Amx) };
        assert_eq!(engine.format, Format::Pairs(amx::PAIRS));
        let sizes =
            [[1, 1, 1], [5, 40, 33], [32, 32, 32], [33, 31, 65], [64, 64, 64], [100, 257, 100], [70, 400, 1601]];
        for (case, [m, n, k]) in sizes.into_iter().enumerate() {
            for layout in LAYOUTS {
                let (a, row, col) = matrix(m, k, layout, case as u64);
                let a = View { data: &a, row, col };
                let (b, row, col) = matrix(k, n, LAYOUTS[(case + m) % 4], 9);
                let b = View { data: &b, row, col };
                each_level(|level| {
                    let mut out = vec![1.0; m * n];
                    let to = Output { data: out.as_mut_ptr(), row: n };
                    let how = How::all(Precision::Bf16).add();
                    // SAFETY: the factors and the output have the sizes.
                    #[allow(unsafe_code)]
                    unsafe {
                        blocks(engine, [m, n, k], a.into(), b.into(), to, how, &|_, _, _: &mut [f32]| {});
                    }
                    for x in (0..m * n).step_by(1 + m * n / 199) {
                        let (value, size) = plain(a, b, x / n, x % n, k, Precision::Bf16);
                        assert!(
                            close(out[x], (value + 1.0, size + 1.0), k),
                            "{level:?} [{m}, {n}, {k}] {layout:?} {x}"
                        );
                    }
                });
            }
        }
    }

    #[test]
    fn amx_agrees_with_its_emulation() {
        if !amx::usable() {
            eprintln!("skipped: this processor or system has no AMX");
            return;
        }
        for [m, n, k] in [[5, 40, 33], [64, 64, 64], [100, 257, 100], [70, 400, 1601]] {
            let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
            let (a, b) = (View::rows(&a, k), View::rows(&b, n));
            let real = Engine::new(Precision::Bf16, Level::Amx);
            let [real, emulated] = [real, Engine { strip, ..real }].map(|engine| {
                let mut out = vec![1.0; m * n];
                let to = Output { data: out.as_mut_ptr(), row: n };
                // SAFETY: the factors and the output have the sizes; AMX is usable.
                #[allow(unsafe_code)]
                unsafe {
                    blocks(
                        engine,
                        [m, n, k],
                        a.into(),
                        b.into(),
                        to,
                        How::all(Precision::Bf16).add(),
                        &|_, _, _: &mut [f32]| {},
                    );
                }
                out
            });
            for (x, y) in real.iter().zip(&emulated) {
                assert!((x - y).abs() < 1e-5 * k as f32);
            }
        }
    }
}
