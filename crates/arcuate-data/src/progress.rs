//! Progress of long preparations, told to a callback that may also ask to stop.

use std::fmt;
use std::ops::ControlFlow;

use crate::error::{Error, Result};

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Reading input files to find out whether they changed.
    Hash,
    /// Waiting for another process that builds the same cache.
    Wait,
    /// Reading and tokenising.
    Tokenise,
    /// Laying documents into rows.
    Pack,
    /// Looking through the data for bad items.
    Scan,
    /// Bringing files here.
    Download,
}

type Callback<'a> = Box<dyn Fn(Stage, u64, u64) -> ControlFlow<()> + Send + Sync + 'a>;

/// Receives (stage, done bytes, total bytes) now and then.
pub struct Progress<'a> {
    callback: Option<Callback<'a>>,
}

impl fmt::Debug for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("is_heard", &self.callback.is_some()).finish()
    }
}

impl<'a> Progress<'a> {
    /// Nobody listens.
    pub fn none() -> Self {
        Self { callback: None }
    }

    /// Calls `callback` now and then, from one thread at a time per stage; `Break` stops with [`Error::Interrupted`].
    pub fn new(callback: impl Fn(Stage, u64, u64) -> ControlFlow<()> + Send + Sync + 'a) -> Self {
        Self { callback: Some(Box::new(callback)) }
    }

    pub(crate) fn report(&self, stage: Stage, done: u64, total: u64) -> Result<()> {
        match &self.callback {
            Some(callback) if callback(stage, done, total).is_break() => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }
}
