//! A request to stop, set by signal handlers and read by the training loop. The handlers live in the command line.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How urgently the run was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopRequest {
    /// Not at all.
    None,
    /// Once: finish the step, save, exit 75.
    AfterStep,
    /// Twice or more: now, without saving.
    Now,
}

/// Counts the requests to stop. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct StopFlag {
    requests: Arc<AtomicUsize>,
}

impl StopFlag {
    /// A flag that nobody has raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks once more. One atomic addition and nothing else, so a signal handler may call it.
    pub fn request(&self) -> StopRequest {
        let before = self.requests.fetch_add(1, Ordering::SeqCst);
        urgency(before.saturating_add(1))
    }

    /// What was asked so far.
    pub fn get(&self) -> StopRequest {
        urgency(self.requests.load(Ordering::SeqCst))
    }

    /// Whether anything was asked.
    pub fn is_requested(&self) -> bool {
        self.get() != StopRequest::None
    }
}

fn urgency(requests: usize) -> StopRequest {
    match requests {
        0 => StopRequest::None,
        1 => StopRequest::AfterStep,
        _ => StopRequest::Now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_waits_for_the_step_and_twice_does_not() {
        let flag = StopFlag::new();
        assert_eq!(flag.get(), StopRequest::None);
        assert_eq!(flag.request(), StopRequest::AfterStep);
        assert_eq!(flag.request(), StopRequest::Now);
        assert_eq!(flag.request(), StopRequest::Now);
    }

    #[test]
    fn clones_share_one_request() {
        let flag = StopFlag::new();
        let handler = flag.clone();
        std::thread::spawn(move || handler.request()).join().expect("the thread does not panic");
        assert!(flag.is_requested());
        assert_eq!(flag.get(), StopRequest::AfterStep);
    }
}
