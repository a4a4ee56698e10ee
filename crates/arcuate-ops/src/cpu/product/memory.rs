//! Memory for packed factors: aligned to cache lines, kept by each thread for its next product.

use std::cell::RefCell;

/// A cache line.
#[repr(C, align(64))]
struct Line([u8; LINE]);

pub(super) const LINE: usize = 64;

thread_local! {
    static SPARE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with at least `bytes` bytes of uninitialised memory. A thread that takes up other work in between and
/// comes back here gets other memory.
pub(super) fn with_memory<T>(bytes: usize, f: impl FnOnce(*mut u8) -> T) -> T {
    let lines = bytes.div_ceil(LINE);
    let mut memory = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    if memory.capacity() < lines {
        memory = Vec::with_capacity(lines);
    }
    let result = f(memory.as_mut_ptr().cast());
    SPARE.with_borrow_mut(|spare| spare.push(memory));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_memory_is_distinct_aligned_and_reused() {
        let first = with_memory(100, |outer| {
            with_memory(100, |inner| assert_ne!(outer, inner));
            assert_eq!(outer as usize % LINE, 0);
            outer as usize
        });
        with_memory(100, |again| assert_eq!(again as usize, first));
    }
}
