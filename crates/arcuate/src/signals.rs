//! SIGINT, SIGTERM and SIGUSR1 ask a run to stop: once after the step, twice now.

use anyhow::Result;
use arcuate_train::{StopFlag, StopRequest};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

/// Listens on a thread of its own.
pub(crate) fn install() -> Result<StopFlag> {
    let stop = StopFlag::new();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])?;
    let flag = stop.clone();
    std::thread::Builder::new().name("signals".to_string()).spawn(move || {
        for _ in signals.forever() {
            match flag.request() {
                StopRequest::AfterStep => {
                    crate::terminal::note("\nstopping: the step is finished and saved first; once more to stop now");
                }
                // Nothing is lost: every earlier checkpoint is whole, and the kernel frees the lock.
                _ => {
                    crate::terminal::note("\nstopped now; the same command goes on from the last checkpoint");
                    std::process::exit(75);
                }
            }
        }
    })?;
    Ok(stop)
}
