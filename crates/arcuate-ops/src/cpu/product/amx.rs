//! AMX: products of bf16 tiles. Tiles are reached by inline assembly, since Rust's own functions for them are unstable.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::LazyLock;

use super::tile::{Strip, store};

/// A strip has 2 tiles of 16 rows, a right panel 2 tiles of 16 columns.
pub(super) const ROWS: usize = 32;
pub(super) const COLS: usize = 32;
/// Pairs along k that a tile holds.
pub(super) const PAIRS: usize = 16;

/// Whether the processor has tiles of bf16 and the system lets this process use them.
pub(crate) fn usable() -> bool {
    static USABLE: LazyLock<bool> = LazyLock::new(|| has_instructions() && permitted());
    *USABLE
}

fn has_instructions() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    let highest = __cpuid_count(0, 0).eax;
    highest >= 7 && __cpuid_count(7, 0).edx & (BF16 | TILE) == BF16 | TILE
}

/// Asks Linux for the tile registers, which hold 8 KiB of state; asked once, granted to all threads.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: this request reads and writes no memory of the process.
    #[allow(unsafe_code)]
    unsafe {
        libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0
    }
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Palette 1 with all 8 tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Shape {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static SHAPE: Shape = Shape {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// # Safety
/// `usable()` said yes. The left panel has 32 rows and its k is a multiple of 16 pairs, zero where the factor has
/// nothing, as has that of the right panels; nobody else uses the output.
#[allow(unsafe_code)]
pub(super) unsafe fn strip(s: &Strip) {
    // SAFETY: the tiles may be used; the shape is 64 readable bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const SHAPE, options(nostack, readonly, preserves_flags)) };
    for j in (0..s.cols).step_by(COLS) {
        let n = COLS.min(s.cols - j);
        // SAFETY: the panels are as the caller promises; a whole tile lies inside the output, a part goes by memory of
        // its own, of which only what the output has is copied.
        unsafe {
            let b = s.b.add(j * s.k);
            let out = s.out.add(j);
            if s.rows == ROWS && n == COLS {
                square(s.a, s.a_row, b, s.k, out, s.out_row, s.add);
            } else {
                let mut part = [0f32; ROWS * COLS];
                square(s.a, s.a_row, b, s.k, part.as_mut_ptr(), COLS, false);
                for (i, line) in part.chunks_exact(COLS).take(s.rows).enumerate() {
                    store(&line[..n], out.add(i * s.out_row), s.add);
                }
            }
        }
    }
    // SAFETY: the tiles may be used; nothing is left in them.
    unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
}

/// 32 rows times 32 columns: tiles 0 to 3 are sums, 4 and 5 upper and lower rows, 6 and 7 left and right columns.
///
/// The compiler never uses tiles itself, so they keep their contents from one `asm!` to the next.
#[allow(unsafe_code)]
#[inline(always)]
unsafe fn square(a: *const f32, a_row: usize, b: *const f32, k: usize, out: *mut f32, out_row: usize, add: bool) {
    let (a_bytes, out_bytes) = (a_row * 4, out_row * 4);
    // A line of a right panel holds the pairs of 32 columns.
    let b_bytes = COLS * 4;
    // SAFETY: the caller's promises; all places lie inside the panels and the output.
    unsafe {
        let lower = out.add(16 * out_row);
        if add {
            asm!(
                "tileloadd tmm0, [{upper} + {row}*1]",
                "tileloadd tmm1, [{upper} + {row}*1 + 64]",
                "tileloadd tmm2, [{lower} + {row}*1]",
                "tileloadd tmm3, [{lower} + {row}*1 + 64]",
                upper = in(reg) out, lower = in(reg) lower, row = in(reg) out_bytes,
                options(nostack, readonly, preserves_flags)
            );
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack, nomem, preserves_flags)
            );
        }
        for l in (0..k).step_by(PAIRS) {
            let upper = a.add(l);
            let columns = b.add(l * COLS);
            asm!(
                "tileloadd tmm4, [{upper} + {a_row}*1]",
                "tileloadd tmm6, [{columns} + {b_row}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{columns} + {b_row}*1 + 64]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{lower} + {a_row}*1]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                upper = in(reg) upper, lower = in(reg) upper.add(16 * a_row), columns = in(reg) columns,
                a_row = in(reg) a_bytes, b_row = in(reg) b_bytes,
                options(nostack, readonly, preserves_flags)
            );
        }
        asm!(
            "tilestored [{upper} + {row}*1], tmm0",
            "tilestored [{upper} + {row}*1 + 64], tmm1",
            "tilestored [{lower} + {row}*1], tmm2",
            "tilestored [{lower} + {row}*1 + 64], tmm3",
            upper = in(reg) out, lower = in(reg) lower, row = in(reg) out_bytes,
            options(nostack, preserves_flags)
        );
    }
}
