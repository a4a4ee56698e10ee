//! Held-out rows: the same every time, each held-out token predicted once, sources interleaved so that a beginning is a fair sample.

use std::sync::Arc;

use arcuate_ops::rng::Permutation;

use crate::error::Result;
use crate::pack::{Emit, Geometry, Packer, Piece};
use crate::row::Row;
use crate::rows::{Draw, Rows};
use crate::split::Split;

/// Windows over each document that begin `stride` positions apart; all but the last `stride` of a window are context.
pub(crate) struct Strided {
    pub(crate) stride: u32,
}

impl Packer for Strided {
    fn pack(
        &self,
        documents: &mut dyn Iterator<Item = (u32, u32)>,
        geometry: Geometry,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        for (document, num) in documents {
            let mut start = 0;
            while start < num {
                let len = geometry.max_seq_len.min(num - start);
                emit(&[Piece { document, start, len }])?;
                if start + len == num {
                    break;
                }
                start += self.stride;
            }
        }
        Ok(())
    }
}

/// Reads a held-out row, by source and index; none where its item cannot be used.
type Read = Box<dyn Fn(usize, u64) -> Result<Option<Row>> + Send + Sync>;

/// Rows of the held-out documents of all sources.
pub struct HeldOut {
    read: Read,
    counts: Vec<u64>,
    orders: Vec<Permutation>,
    next: Vec<u64>,
}

impl HeldOut {
    /// The held-out rows of a corpus, given the name and number of rows of each source.
    pub(crate) fn of_rows<'a>(rows: Arc<dyn Rows>, sources: impl Iterator<Item = (&'a str, u64)>) -> Self {
        Self::new(sources, move |source, index| {
            rows.row(Draw { source, split: Split::HeldOut, index, seed: 0, k: index, is_varied: false })
        })
    }

    pub(crate) fn new<'a>(
        sources: impl Iterator<Item = (&'a str, u64)>,
        read: impl Fn(usize, u64) -> Result<Option<Row>> + Send + Sync + 'static,
    ) -> Self {
        // Not the seed of the run: every run is measured on the same rows in the same order.
        let order = |(name, num)| (num, Permutation::new(0, &format!("held-out/{name}"), 0, num));
        let (counts, orders): (Vec<u64>, Vec<Permutation>) = sources.map(order).unzip();
        Self { read: Box::new(read), next: vec![0; counts.len()], counts, orders }
    }

    /// Number of rows in all.
    pub fn num_rows(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Iterator for HeldOut {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            // The source that is least far through its rows; ties go to the first.
            let passed = |source: usize| (self.next[source] as f64 + 0.5) / self.counts[source] as f64;
            let least = (0..self.counts.len())
                .filter(|source| self.next[*source] < self.counts[*source])
                .min_by(|a, b| passed(*a).total_cmp(&passed(*b)))?;
            let index = self.orders[least].at(self.next[least]);
            self.next[least] += 1;
            if let Some(row) = (self.read)(least, index).transpose() {
                return Some(row);
            }
        }
    }
}
