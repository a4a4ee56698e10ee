//! The stall detector: says so when training makes no progress for too long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// No progress for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stall {
    /// Seconds since the last sign of life.
    pub seconds: u64,
    /// What was under way then, such as `step 12: forward`.
    pub during: String,
}

impl std::fmt::Display for Stall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "no progress for {} s during {}; likely causes: the machine is short of memory and swaps, a slow or lost \
             disk, another process takes the cores; look with `top` and `df`, or stop with Ctrl-C and run the same \
             command again to resume",
            self.seconds, self.during
        )
    }
}

/// Signs of life from the training loop. Times are given by the caller, so that nothing here reads a clock.
#[derive(Debug)]
pub struct Heartbeat {
    start: Instant,
    limit: Duration,
    last_ms: AtomicU64,
    reported_ms: AtomicU64,
    during: Mutex<String>,
}

const NEVER: u64 = u64::MAX;

impl Heartbeat {
    /// A heartbeat that began at `now` and may be silent for `limit`.
    pub fn new(limit: Duration, now: Instant) -> Self {
        Self {
            start: now,
            limit,
            last_ms: AtomicU64::new(0),
            reported_ms: AtomicU64::new(NEVER),
            during: Mutex::new("the start".to_owned()),
        }
    }

    /// A sign of life: from `now` on, `during` is under way.
    pub fn beat(&self, now: Instant, during: impl Into<String>) {
        *self.during.lock().unwrap_or_else(PoisonError::into_inner) = during.into();
        self.last_ms.store(self.since_start(now), Ordering::SeqCst);
    }

    /// The stall, if there is one and it was not reported before. A later sign of life arms the detector again.
    pub fn check(&self, now: Instant) -> Option<Stall> {
        let last = self.last_ms.load(Ordering::SeqCst);
        let silent = Duration::from_millis(self.since_start(now).saturating_sub(last));
        if silent < self.limit || self.reported_ms.swap(last, Ordering::SeqCst) == last {
            return None;
        }
        let during = self.during.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Some(Stall { seconds: silent.as_secs(), during })
    }

    fn since_start(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_millis()).unwrap_or(NEVER - 1)
    }
}

/// A thread that checks a heartbeat and calls back once for each stall. Dropping it ends the thread.
#[derive(Debug)]
pub struct Watchdog {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Looks every `interval` and hands stalls to `on_stall`.
    pub fn spawn(
        heartbeat: Arc<Heartbeat>,
        interval: Duration,
        on_stall: impl Fn(Stall) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                if let Some(stall) = heartbeat.check(Instant::now()) {
                    on_stall(stall);
                }
            }
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn silence_beyond_the_limit_is_a_stall() {
        let start = Instant::now();
        let heartbeat = Heartbeat::new(10 * MINUTE, start);
        heartbeat.beat(start + MINUTE, "step 3: forward");
        assert_eq!(heartbeat.check(start + 10 * MINUTE), None);
        let stall = heartbeat.check(start + 11 * MINUTE);
        assert_eq!(stall, Some(Stall { seconds: 600, during: "step 3: forward".to_owned() }));
    }

    #[test]
    fn one_stall_is_reported_once() {
        let start = Instant::now();
        let heartbeat = Heartbeat::new(MINUTE, start);
        assert!(heartbeat.check(start + MINUTE).is_some());
        assert_eq!(heartbeat.check(start + 5 * MINUTE), None);
        heartbeat.beat(start + 6 * MINUTE, "step 4");
        assert_eq!(heartbeat.check(start + 6 * MINUTE), None);
        assert!(heartbeat.check(start + 7 * MINUTE).is_some());
    }

    #[test]
    fn a_clock_that_goes_back_is_no_stall() {
        let start = Instant::now();
        let heartbeat = Heartbeat::new(MINUTE, start + MINUTE);
        assert_eq!(heartbeat.check(start), None);
        heartbeat.beat(start, "step 1");
        assert_eq!(heartbeat.check(start + MINUTE), None);
    }

    #[test]
    fn the_watchdog_calls_back_and_ends() {
        let heartbeat = Arc::new(Heartbeat::new(Duration::ZERO, Instant::now()));
        let (sender, receiver) = mpsc::channel();
        let watchdog = Watchdog::spawn(heartbeat, Duration::from_millis(1), move |stall| {
            let _ = sender.send(stall);
        })
        .expect("a thread can be made");
        let stall = receiver.recv().expect("the first look finds a stall");
        assert_eq!(stall.during, "the start");
        drop(watchdog);
        assert!(receiver.recv().is_err(), "the thread has ended and reported nothing more");
    }

    #[test]
    fn dropping_the_watchdog_does_not_wait_for_its_interval() {
        let heartbeat = Arc::new(Heartbeat::new(MINUTE, Instant::now()));
        let watchdog = Watchdog::spawn(heartbeat, Duration::from_secs(86_400), |_| {}).expect("a thread can be made");
        drop(watchdog);
    }
}
