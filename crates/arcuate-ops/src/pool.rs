//! The threads that compute.

/// Runs a function on a thread of the pool.
///
/// A loop that starts outside of the pool wakes it and sleeps until it is done; work with many short loops, as one token
/// of generation, saves most of its waiting by entering once.
pub fn within<R: Send>(run: impl FnOnce() -> R + Send) -> R {
    if rayon::current_thread_index().is_some() { run() } else { rayon::scope(|_| run()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_enters_the_pool_once() {
        let inside = || rayon::current_thread_index().is_some();
        assert!(!inside());
        assert!(within(|| inside() && within(inside)));
    }
}
