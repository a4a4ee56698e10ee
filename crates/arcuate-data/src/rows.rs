//! What a sampler and an evaluation draw from: the rows of a corpus of texts or of speech, by source.

use crate::error::Result;
use crate::row::Row;
use crate::split::Split;

/// A source as seen by whoever draws from it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SourceRows {
    /// Name in the recipe.
    pub(crate) name: String,
    /// Weight in the mixture.
    pub(crate) weight: f64,
    /// Rows in one pass over the training part.
    pub(crate) num_rows: u64,
    /// Most training rows that `max_repeats` allows.
    pub(crate) max_rows: Option<u64>,
}

impl SourceRows {
    /// The most rows that so many passes allow; at least one.
    pub(crate) fn limit(max_repeats: Option<f64>, num_rows: u64) -> Option<u64> {
        max_repeats.map(|repeats| ((repeats * num_rows as f64) as u64).max(1))
    }
}

/// Which row is wanted, and for which draw of which run: what is cut or varied at random follows from these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw {
    pub(crate) source: usize,
    pub(crate) split: Split,
    /// The row within its source.
    pub(crate) index: u64,
    /// Seed of the run, 0 for held-out rows.
    pub(crate) seed: u64,
    /// How many rows of this source were drawn before.
    pub(crate) k: u64,
    /// Whether it is to train on, so that what can be cut or varied at random is.
    pub(crate) is_varied: bool,
}

/// The rows of a corpus.
pub(crate) trait Rows: Send + Sync {
    /// The sources, by index.
    fn sources(&self) -> &[SourceRows];

    /// Positions by which the mixture looks ahead: those of the longest row.
    fn max_row_positions(&self) -> u64;

    /// A row; none where its item cannot be used and is skipped.
    fn row(&self, draw: Draw) -> Result<Option<Row>>;

    /// Rows as they go through the network together; `k` is that of the first one.
    fn together(&self, rows: Vec<Row>, _seed: u64, _k: u64) -> Vec<Row> {
        rows
    }

    /// The most positions of a training row, where rows of one microbatch are to be of similar length; none: they are taken as they come.
    fn positions(&self, source: usize, index: u64) -> Option<u64>;
}
