//! The order of training rows: a pure function of (seed, source, k), with a state of a few integers.

use std::collections::BTreeMap;
use std::sync::Arc;

use arcuate_ops::rng::Permutation;
use serde::{Deserialize, Serialize};

use crate::corpus::Inner;
use crate::error::{Error, Result};
use crate::mixture::{LedgerEntry, Member, choose};
use crate::row::Row;
use crate::split::Split;

/// How far one source was drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceProgress {
    /// Rows drawn.
    pub rows: u64,
    /// Tokens in these rows.
    pub tokens: u64,
    /// Bytes of text that these rows predict.
    pub bytes: u64,
}

/// All that a sampler needs to go on where it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerState {
    /// Seed of the order.
    pub seed: u64,
    /// Progress by name of the source.
    pub sources: BTreeMap<String, SourceProgress>,
}

/// Draws training rows for ever, or until every source has reached its `max_repeats`.
#[derive(Clone)]
pub struct Sampler {
    inner: Arc<Inner>,
    seed: u64,
    progress: Vec<SourceProgress>,
    /// Order of the epoch that each source was last drawn from.
    orders: Vec<Option<(u64, Permutation)>>,
}

impl Sampler {
    pub(crate) fn new(inner: Arc<Inner>, seed: u64) -> Self {
        let num = inner.sources.len();
        Self { inner, seed, progress: vec![SourceProgress::default(); num], orders: vec![None; num] }
    }

    /// The next `num` rows. After an error the sampler stands where it stood before.
    pub fn next_rows(&mut self, num: usize) -> Result<Vec<Row>> {
        let before = self.progress.clone();
        let mut rows = Vec::with_capacity(num.min(1 << 16));
        for _ in 0..num {
            match self.next_row() {
                Ok(row) => rows.push(row),
                Err(error) => {
                    self.progress = before;
                    return Err(error);
                }
            }
        }
        Ok(rows)
    }

    fn next_row(&mut self) -> Result<Row> {
        let members: Vec<Member> = self
            .inner
            .sources
            .iter()
            .zip(&self.progress)
            .map(|(source, progress)| Member {
                weight: source.config.weight,
                drawn: progress.tokens,
                is_active: source.max_rows().is_none_or(|most| progress.rows < most),
            })
            .collect();
        let chosen = choose(&members, self.inner.max_seq_len).ok_or_else(|| Error::Exhausted {
            rows: self.progress.iter().map(|progress| progress.rows).sum(),
            tokens: self.progress.iter().map(|progress| progress.tokens).sum(),
        })?;
        let row = self.row_at(chosen, self.progress[chosen].rows)?;
        let progress = &mut self.progress[chosen];
        progress.rows += 1;
        progress.tokens += row.num_positions() as u64;
        progress.bytes += row.num_bytes;
        Ok(row)
    }

    /// Row `k` of a source in the order of this seed.
    fn row_at(&mut self, source: usize, k: u64) -> Result<Row> {
        let data = &self.inner.sources[source];
        let num_rows = data.train.details.num_rows;
        let epoch = k / num_rows;
        let order = match &mut self.orders[source] {
            Some((known, order)) if *known == epoch => order,
            other => {
                let purpose = format!("order/{}", data.name);
                &mut other.insert((epoch, Permutation::new(self.seed, &purpose, epoch, num_rows))).1
            }
        };
        self.inner.row(source, Split::Train, &data.train, order.at(k % num_rows))
    }

    /// Where this sampler stands.
    pub fn state(&self) -> SamplerState {
        let names = self.inner.sources.iter().map(|source| source.name.clone());
        SamplerState { seed: self.seed, sources: names.zip(self.progress.iter().copied()).collect() }
    }

    /// Goes to where another sampler over the same data stood, in constant time.
    pub fn restore(&mut self, state: &SamplerState) -> Result<()> {
        if state.seed != self.seed {
            let detail = format!("its seed is {}, that of the recipe {}", state.seed, self.seed);
            return Err(Error::ForeignState { detail });
        }
        let own: Vec<&String> = self.inner.sources.iter().map(|source| &source.name).collect();
        if !own.iter().copied().eq(state.sources.keys()) {
            let saved: Vec<&String> = state.sources.keys().collect();
            let detail = format!("its sources are {saved:?}, those of the recipe {own:?}");
            return Err(Error::ForeignState { detail });
        }
        self.progress = state.sources.values().copied().collect();
        Ok(())
    }

    /// What each source has given so far.
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        let total: u64 = self.progress.iter().map(|progress| progress.tokens).sum();
        let weight = self.inner.total_weight();
        self.inner
            .sources
            .iter()
            .zip(&self.progress)
            .map(|(source, progress)| LedgerEntry {
                source: source.name.clone(),
                rows: progress.rows,
                tokens: progress.tokens,
                bytes: progress.bytes,
                repeats: progress.rows as f64 / source.train.details.num_rows as f64,
                target_share: source.config.weight / weight,
                share: progress.tokens as f64 / total.max(1) as f64,
            })
            .collect()
    }
}
