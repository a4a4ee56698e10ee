//! The thread pool of the computation.

use anyhow::Result;

use crate::exit::usage;

/// Uses so many threads; must come before anything is computed.
pub(crate) fn set(threads: usize) -> Result<()> {
    if threads == 0 {
        return Err(usage("`--threads 0` computes nothing; give 1 or more"));
    }
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?)
}
