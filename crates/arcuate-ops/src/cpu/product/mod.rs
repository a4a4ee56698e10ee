//! The matrix product: blocks along k, packed panels, one kernel per instruction set.
//!
//! For each block along k the right factor is packed once, by all threads, and then rows of panels of the output are
//! computed, each by one task that packs its own part of the left factor. Blocks along k follow one another in order
//! and their length depends on nothing but the sizes, so no number of threads changes a bit of the result.

#[cfg(target_arch = "x86_64")]
pub(super) mod amx;
mod few;
mod memory;
mod pack;
#[cfg(test)]
mod tests;
mod thin;
mod tile;

use rayon::prelude::*;

use self::memory::{LINE, with_memory};
use self::pack::{Block, Panels};
use self::tile::Strip;
use super::gemm::{Factor, How, Threads};
use super::simd::{Level, level};
use crate::Precision;

/// What a packed panel holds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Format {
    F32,
    /// f32 that are also bf16.
    Rounded,
    /// Pairs of bf16, padded to a multiple of so many.
    Pairs(usize),
}

impl Format {
    /// Words that hold `k` numbers along k.
    fn words(self, k: usize) -> usize {
        match self {
            Format::F32 | Format::Rounded => k,
            Format::Pairs(multiple) => k.div_ceil(2).next_multiple_of(multiple),
        }
    }
}

/// A kernel and the panels that it reads.
#[derive(Clone, Copy)]
struct Engine {
    format: Format,
    /// Most rows of a left panel.
    rows: usize,
    /// Columns of a right panel.
    cols: usize,
    /// Whether left panels have no fewer than `rows` rows.
    whole: bool,
    /// Most numbers along k of a block.
    depth: usize,
    #[allow(unsafe_code)]
    strip: unsafe fn(&Strip),
}

/// Bytes of right panels that stay in a core's second cache while left panels pass by.
const NEAR: usize = 512 << 10;
/// Bytes of right panels that are packed at a time, which stay in the cache that cores share.
const FAR: usize = 4 << 20;
/// The most right panels that are packed together: as many as make neighbours in memory long enough to be read ahead.
const GROUP: usize = 8;
/// Numbers of a left factor that is read as it lies.
const DIRECT: usize = 1 << 15;
/// Rows whose packed left panels stay in a core's second cache.
const TASK_ROWS: usize = 224;
/// Tasks for each thread, so that a slow one does not hold up the others.
const TASKS: usize = 4;
/// Multiplications below which waking other threads takes longer than the product.
const SMALL: usize = 1 << 20;

impl Engine {
    fn new(precision: Precision, level: Level) -> Self {
        let format = if precision == Precision::Bf16 { Format::Rounded } else { Format::F32 };
        #[cfg(target_arch = "x86_64")]
        {
            use self::tile::{avx2, avx512};
            if precision == Precision::Bf16 && level >= Level::Amx {
                let format = Format::Pairs(amx::PAIRS);
                return Self { format, rows: amx::ROWS, cols: amx::COLS, whole: true, depth: 768, strip: amx::strip };
            }
            let (rows, cols) = (avx512::ROWS, avx512::COLS);
            if precision == Precision::Bf16 && level >= Level::Avx512Bf16 {
                let format = Format::Pairs(1);
                return Self { format, rows, cols, whole: false, depth: 768, strip: avx512::strip_pairs };
            }
            if level >= Level::Avx512 {
                return Self { format, rows, cols, whole: false, depth: 384, strip: avx512::strip };
            }
            if level >= Level::Avx2 {
                let (rows, cols) = (avx2::ROWS, avx2::COLS);
                return Self { format, rows, cols, whole: false, depth: 384, strip: avx2::strip };
            }
        }
        let (rows, cols) = (tile::portable::ROWS, tile::portable::COLS);
        Self { format, rows, cols, whole: false, depth: 384, strip: tile::portable::strip }
    }

    /// Words from one row of a left panel to the next: an odd number of cache lines.
    fn left_row(&self, words: usize) -> usize {
        (words.div_ceil(LINE / 4) | 1) * (LINE / 4)
    }

    /// How left panels of `words` lie: words from one row to the next, and from one place along k to the next.
    fn left_layout(&self, a: Factor, words: usize) -> [usize; 2] {
        let [row, col] = a.strides();
        let across = row == 1 && col != 1 && !self.whole;
        if across { [1, pack::ACROSS] } else { [self.left_row(words), 1] }
    }

    /// Packs left panels of `tall` rows, `panel` words apart.
    ///
    /// # Safety
    /// `to` has room for the panels, the block lies inside its factor.
    #[allow(unsafe_code)]
    unsafe fn pack_left(&self, from: Block, tall: usize, to: *mut f32, [row, step]: [usize; 2], panel: usize) {
        let round = self.format == Format::Rounded;
        // SAFETY: the caller's promise.
        unsafe {
            match self.format {
                Format::F32 | Format::Rounded if step > 1 => pack::left_across(from, to, Panels { tall, panel }, round),
                Format::Pairs(_) if step > 1 => pack::left_pairs_across(from, to.cast(), Panels { tall, panel }),
                _ => {
                    for (p, from) in from.panels(tall).enumerate() {
                        let to = to.add(p * panel);
                        match self.format {
                            Format::F32 | Format::Rounded => pack::left(from, to, row, round),
                            Format::Pairs(_) => {
                                let rows = if self.whole { self.rows } else { from.rows };
                                pack::left_pairs(from, to.cast(), row, self.format.words(from.k), rows);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Packs right panels, one after the other.
    ///
    /// # Safety
    /// `to` has room for the panels, the block lies inside its factor.
    #[allow(unsafe_code)]
    unsafe fn pack_right(&self, from: Block, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.format {
                Format::F32 | Format::Rounded => pack::right(from, to, self.cols, self.format == Format::Rounded),
                Format::Pairs(_) => pack::right_pairs(from, to.cast(), self.cols, self.format.words(from.k)),
            }
        }
    }
}

/// Where a product goes: row-major, `row` numbers from one row to the next.
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub(super) data: *mut f32,
    pub(super) row: usize,
}

// SAFETY: tasks write disjoint parts.
#[allow(unsafe_code)]
unsafe impl Send for Output {}
#[allow(unsafe_code)]
unsafe impl Sync for Output {}

impl Output {
    /// The address of row `i`, column `j`.
    fn at(self, i: usize, j: usize) -> *mut f32 {
        self.data.wrapping_add(i * self.row + j)
    }

    /// The part from row `i`, column `j`.
    fn part(self, i: usize, j: usize) -> Self {
        Self { data: self.at(i, j), ..self }
    }
}

/// Memory that tasks read.
#[derive(Clone, Copy)]
struct Packed(*mut f32);

// SAFETY: written by tasks in disjoint parts, then only read.
#[allow(unsafe_code)]
unsafe impl Send for Packed {}
#[allow(unsafe_code)]
unsafe impl Sync for Packed {}

impl Packed {
    fn at(self, word: usize) -> *mut f32 {
        self.0.wrapping_add(word)
    }
}

/// Calls `f` for 0 to `count`.
fn each(threads: Threads, count: usize, f: impl Fn(usize) + Sync + Send) {
    match threads {
        Threads::All if count > 1 => (0..count).into_par_iter().with_max_len(1).for_each(f),
        _ => (0..count).for_each(f),
    }
}

/// The i-th of `parts` nearly equal parts of `0..count`.
fn part(i: usize, parts: usize, count: usize) -> std::ops::Range<usize> {
    i * count / parts..(i + 1) * count / parts
}

/// `out[m, n] = a[m, k] b[k, n]`, plus the old `out` when accumulating; then `finish(row, first column, numbers)` once
/// for each finished piece of a row.
///
/// # Safety
/// The factors have the sizes, so has the output, which nobody else uses and which holds numbers if it is added to.
#[allow(unsafe_code)]
pub(super) unsafe fn multiply<F>(sizes: [usize; 3], a: Factor, b: Factor, out: Output, how: How, finish: &F)
where
    F: Fn(usize, usize, &mut [f32]) + Sync,
{
    let [m, n, k] = sizes;
    let work = m.saturating_mul(n).saturating_mul(k);
    let threads = if work < SMALL { Threads::One } else { how.threads };
    let how = How { threads, ..how };
    let run = || {
        let engine = Engine::new(how.precision, level());
        let (mut x, mut y) = (Vec::new(), Vec::new());
        // SAFETY: the caller's promise.
        unsafe {
            if k == 0 {
                nothing(sizes, out, how, finish);
            } else if m <= thin::ROWS && k * n >= thin::LEAST && b.strides().contains(&1) {
                thin::multiply(sizes, a.widen(&mut x), b.widen(&mut y), out, how, finish);
            } else if few::fits(sizes, b, how.precision) {
                few::multiply(sizes, a.widen(&mut x), b.widen(&mut y), out, how, finish);
            } else if let Format::Pairs(_) = engine.format {
                blocks(engine, sizes, a, b, out, how, finish);
            } else {
                blocks(engine, sizes, a.widen(&mut x).into(), b.widen(&mut y).into(), out, how, finish);
            }
        }
    };
    if threads == Threads::All && rayon::current_thread_index().is_none() {
        // One entry into the pool instead of one for each loop.
        rayon::scope(|_| run());
    } else {
        run();
    }
}

/// A product along no k.
///
/// # Safety
/// As `multiply`.
#[allow(unsafe_code)]
unsafe fn nothing<F: Fn(usize, usize, &mut [f32])>([m, n, _]: [usize; 3], out: Output, how: How, finish: &F) {
    for i in 0..m {
        // SAFETY: the row lies inside the output, and holds numbers once it was written.
        unsafe {
            if !how.accumulate {
                std::ptr::write_bytes(out.at(i, 0), 0, n);
            }
            finish(i, 0, std::slice::from_raw_parts_mut(out.at(i, 0), n));
        }
    }
}

/// # Safety
/// As `multiply`.
#[allow(unsafe_code)]
unsafe fn blocks<F>(engine: Engine, [m, n, k]: [usize; 3], a: Factor, b: Factor, out: Output, how: How, finish: &F)
where
    F: Fn(usize, usize, &mut [f32]) + Sync,
{
    let depth = k.div_ceil(k.div_ceil(engine.depth)).next_multiple_of(2);
    let words = engine.format.words(depth.min(k));
    let fit = |bytes: usize| (bytes / (4 * words * engine.cols)).max(1);
    let right_panels = n.div_ceil(engine.cols);
    let far = right_panels.div_ceil(right_panels.div_ceil(fit(FAR)));
    let threads = if how.threads == Threads::One { 1 } else { rayon::current_num_threads() };
    with_memory(far * engine.cols * words * 4, |memory| {
        let packed = Packed(memory.cast());
        for first in (0..right_panels).step_by(far) {
            let panels = far.min(right_panels - first);
            for from in (0..k).step_by(depth) {
                let long = depth.min(k - from);
                let words = engine.format.words(long);
                let group = panels.div_ceil(threads).min(GROUP);
                each(how.threads, panels.div_ceil(group), |p| {
                    let (j, end) =
                        ((first + p * group) * engine.cols, (first + panels.min((p + 1) * group)) * engine.cols);
                    // SAFETY: the block lies inside the right factor, and the memory has room for all panels.
                    unsafe {
                        let block = Block::new(b.t(), j, end.min(n) - j, from, long);
                        engine.pack_right(block, packed.at(p * group * engine.cols * words));
                    }
                });
                let j = first * engine.cols;
                let pass = Pass {
                    engine,
                    a,
                    packed,
                    rows: m,
                    cols: (panels * engine.cols).min(n - j),
                    first_col: j,
                    from,
                    long,
                    near: fit(NEAR),
                    out,
                    add: how.accumulate || from > 0,
                    last: from + long == k,
                };
                // SAFETY: all right panels are packed; the rest is the caller's promise.
                unsafe { pass.run(how.threads, finish) };
            }
        }
    });
}

/// One block along k times one block of columns, for all rows.
struct Pass<'a> {
    engine: Engine,
    a: Factor<'a>,
    packed: Packed,
    rows: usize,
    cols: usize,
    first_col: usize,
    /// The block along k.
    from: usize,
    long: usize,
    /// Right panels that stay near.
    near: usize,
    out: Output,
    add: bool,
    /// Whether this is the last block along k.
    last: bool,
}

impl Pass<'_> {
    #[allow(unsafe_code)]
    unsafe fn run<F: Fn(usize, usize, &mut [f32]) + Sync>(&self, threads: Threads, finish: &F) {
        let engine = &self.engine;
        let panels = self.rows.div_ceil(engine.rows);
        // Panels of nearly equal height waste less than a low last one.
        let tall = if engine.whole { engine.rows } else { self.rows.div_ceil(panels) };
        let panels = self.rows.div_ceil(tall);
        let right_panels = self.cols.div_ceil(engine.cols);
        let wanted = if threads == Threads::One { 1 } else { TASKS * rayon::current_num_threads() };
        let groups = panels.div_ceil((TASK_ROWS / tall).max(1)).max(wanted.min(panels));
        let chunks = wanted.div_ceil(groups).min(right_panels);
        each(threads, groups * chunks, |task| {
            let (rows, cols) = (part(task / chunks, groups, panels), part(task % chunks, chunks, right_panels));
            // SAFETY: tasks have disjoint panels of the output; the rest is the caller's promise.
            unsafe { self.task(rows, cols, tall, finish) };
        });
    }

    /// Left panels `rows` of height `tall` times right panels `cols`.
    #[allow(unsafe_code)]
    unsafe fn task<F: Fn(usize, usize, &mut [f32])>(
        &self,
        rows: std::ops::Range<usize>,
        cols: std::ops::Range<usize>,
        tall: usize,
        finish: &F,
    ) {
        let engine = &self.engine;
        let words = engine.format.words(self.long);
        // A small left factor is read as it lies, unless its rows fall into the same few places of the first cache.
        let [row, col] = self.a.strides();
        let direct = engine.format == Format::F32
            && self.rows * self.long <= DIRECT
            && row.min(col) == 1
            && !row.max(col).is_multiple_of(512);
        let layout = if direct { [row, col] } else { engine.left_layout(self.a, words) };
        let panel = (tall * layout[0]).max(words * layout[1]);
        let bytes = if direct { 0 } else { rows.len() * panel * 4 };
        with_memory(bytes, |memory| {
            let left: *mut f32 = memory.cast();
            if !direct {
                let i = rows.start * tall;
                let height = self.rows.min(rows.end * tall) - i;
                // SAFETY: the block lies inside the left factor and the memory has room for all its panels.
                unsafe {
                    engine.pack_left(Block::new(self.a, i, height, self.from, self.long), tall, left, layout, panel);
                }
            }
            for near in cols.clone().step_by(self.near) {
                let (j, end) = (near * engine.cols, (near + self.near).min(cols.end) * engine.cols);
                let n = end.min(self.cols) - j;
                for p in rows.clone() {
                    let i = p * tall;
                    let height = tall.min(self.rows - i);
                    let packed = left.wrapping_add((p - rows.start) * panel);
                    // SAFETY: the rows lie inside the left factor, or are packed; the strip lies inside the output, where
                    // this task alone works; it holds numbers when it is finished.
                    unsafe {
                        let block = Block::new(self.a, i, height, self.from, self.long);
                        (engine.strip)(&Strip {
                            a: if direct { block.numbers() } else { packed },
                            a_row: layout[0],
                            a_step: layout[1],
                            b: self.packed.at(j * words),
                            k: words,
                            out: self.out.at(i, self.first_col + j),
                            out_row: self.out.row,
                            rows: height,
                            cols: n,
                            add: self.add,
                        });
                        if self.last {
                            let j = self.first_col + j;
                            for i in i..i + height {
                                finish(i, j, std::slice::from_raw_parts_mut(self.out.at(i, j), n));
                            }
                        }
                    }
                }
            }
        });
    }
}
