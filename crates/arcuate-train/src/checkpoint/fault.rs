//! The places where a save can be cut off. Tests end the save there as a kill would; otherwise nothing happens.

/// A place in a save.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The folder under construction exists.
    Created,
    /// The writer is done.
    Written,
    /// The manifest is written.
    ManifestWritten,
    /// Everything is on the disk.
    Synced,
    /// The checkpoint of the same step is out of the way.
    SteppedAside,
    /// The rename is done.
    Published,
    /// A new pointer lies beside the old one.
    LinkedAside,
    /// `last` has moved.
    PointedLast,
    /// `best` has moved.
    PointedBest,
    /// An old checkpoint is out of sight but not deleted.
    Deleting,
}

/// Called at each place.
#[cfg(not(test))]
pub(super) fn reached(_stage: Stage) {}

#[cfg(test)]
pub(super) use hook::{crash_at, reached};

#[cfg(test)]
mod hook {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    use super::Stage;

    thread_local! {
        static CRASH: Cell<Option<Stage>> = const { Cell::new(None) };
    }

    /// The payload of a simulated kill.
    struct Killed;

    /// Called at each place; ends the save if a test asked for it. Unwinding runs none of the clean-up of a failed save.
    pub(in super::super) fn reached(stage: Stage) {
        if CRASH.get() == Some(stage) {
            resume_unwind(Box::new(Killed));
        }
    }

    /// Runs `save` and cuts it off at a place. Returns whether it came by there.
    pub(in super::super) fn crash_at(stage: Stage, save: impl FnOnce()) -> bool {
        CRASH.set(Some(stage));
        let end = catch_unwind(AssertUnwindSafe(save));
        CRASH.set(None);
        match end {
            Ok(()) => false,
            Err(payload) if payload.is::<Killed>() => true,
            Err(payload) => resume_unwind(payload),
        }
    }
}
