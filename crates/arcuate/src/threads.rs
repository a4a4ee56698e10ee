//! The thread pool of the computation.

use anyhow::Result;

use crate::exit::usage;

/// Uses so many threads; must come before anything is computed.
pub(crate) fn set(threads: usize) -> Result<()> {
    // More threads than this only wait for each other.
    let most = 8 * std::thread::available_parallelism().map_or(1, usize::from);
    if threads == 0 || threads > most {
        return Err(usage(format!("`--threads {threads}` is not between 1 and {most}; leave it out for one a core")));
    }
    Ok(rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?)
}
