//! Held-out rows: the same every time, each held-out token predicted once, sources interleaved so that a beginning is a fair sample.

use std::sync::Arc;

use arcuate_ops::rng::Permutation;

use crate::corpus::Inner;
use crate::error::Result;
use crate::pack::{Emit, Geometry, Packer, Piece};
use crate::plan::Plan;
use crate::row::Row;
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

/// Rows of the held-out documents of all sources.
pub struct HeldOut {
    inner: Arc<Inner>,
    plans: Vec<Arc<Plan>>,
    orders: Vec<Permutation>,
    next: Vec<u64>,
    stride: Option<u32>,
}

impl HeldOut {
    pub(crate) fn new(inner: Arc<Inner>, plans: Vec<Arc<Plan>>, stride: Option<u32>) -> Self {
        let orders = plans
            .iter()
            .zip(&inner.sources)
            .map(|(plan, source)| {
                // Not the seed of the run: every run is measured on the same rows in the same order.
                Permutation::new(0, &format!("held-out/{}", source.name), 0, plan.details.num_rows)
            })
            .collect();
        Self { next: vec![0; plans.len()], inner, plans, orders, stride }
    }

    /// Number of rows in all.
    pub fn num_rows(&self) -> u64 {
        self.plans.iter().map(|plan| plan.details.num_rows).sum()
    }
}

impl Iterator for HeldOut {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        // The source that is least far through its rows; ties go to the first.
        let least = (0..self.plans.len())
            .filter(|source| self.next[*source] < self.plans[*source].details.num_rows)
            .min_by(|a, b| {
                let passed =
                    |source: usize| (self.next[source] as f64 + 0.5) / self.plans[source].details.num_rows as f64;
                passed(*a).total_cmp(&passed(*b))
            })?;
        let index = self.orders[least].at(self.next[least]);
        self.next[least] += 1;
        let plan = &self.plans[least];
        Some(match self.stride {
            None => self.inner.row(least, Split::HeldOut, plan, index),
            Some(stride) => self.inner.strided_row(least, plan, index, stride),
        })
    }
}
