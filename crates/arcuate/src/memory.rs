//! The allocator, and how much memory is used and left.
//!
//! Every step allocates the same large buffers. Pages that were freed are therefore kept for the next step, which saves the
//! system clearing them again and makes the peak repeatable; `give_back` returns them between phases.

use std::ffi::c_long;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc's `mi_option_e`, which the bindings do not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Milliseconds after which freed pages go back to the system by themselves: an hour. Never (-1) would also stop `give_back`.
const KEEP_MS: c_long = 3_600_000;

/// Keeps freed pages for later allocations. Called once, before threads start; `MIMALLOC_PURGE_DELAY` goes before.
pub(crate) fn keep_freed_pages() {
    // SAFETY: sets a number; mimalloc accepts options at any time.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEEP_MS);
    }
}

/// Returns what is freed to the system: after training, before something else needs much memory.
pub(crate) fn give_back() {
    // SAFETY: collects this thread's freed pages and the shared ones.
    #[allow(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

/// Peak memory of this process in bytes.
pub(crate) fn peak() -> u64 {
    // SAFETY: getrusage fills the struct that it is given.
    #[allow(unsafe_code)]
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    u64::try_from(usage.ru_maxrss).unwrap_or(0) * unit
}

/// Memory that the system can give, in bytes, where it says so.
pub(crate) fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    kibibytes(&text, "MemAvailable:")
}

/// A number of `/proc/meminfo`, in bytes.
pub(crate) fn kibibytes(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with(name))?;
    let number: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(number * 1024)
}
