//! The order of training rows: a pure function of (seed, source, k), with a state of a few integers.

use std::collections::BTreeMap;
use std::sync::Arc;

use arcuate_ops::rng::Permutation;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::mixture::{LedgerEntry, Member, choose};
use crate::row::Row;
use crate::rows::{Draw, Rows};
use crate::split::Split;

/// Rows of one source among which those of similar length are put together.
const WINDOW: u64 = 512;

/// How far one source was drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceProgress {
    /// Rows drawn.
    pub rows: u64,
    /// Tokens in these rows; frames of speech.
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

/// How much one forward pass takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MicrobatchLimits {
    /// Most rows.
    pub rows: usize,
    /// Most positions, padding included; one row is always taken.
    pub tokens: Option<u64>,
}

/// Rows of similar length, put together out of a stretch of one epoch.
#[derive(Debug, Clone)]
struct Groups {
    epoch: u64,
    window: u64,
    limits: MicrobatchLimits,
    /// Rows of each group, in the order in which they are drawn.
    groups: Vec<Vec<u64>>,
}

/// Draws training rows for ever, or until every source has reached its `max_repeats`.
#[derive(Clone)]
pub struct Sampler {
    rows: Arc<dyn Rows>,
    seed: u64,
    progress: Vec<SourceProgress>,
    /// Order of the epoch that each source was last drawn from.
    orders: Vec<Option<(u64, Permutation)>>,
    groups: Vec<Option<Groups>>,
}

impl Sampler {
    pub(crate) fn new(rows: Arc<dyn Rows>, seed: u64) -> Self {
        let num = rows.sources().len();
        Self {
            rows,
            seed,
            progress: vec![SourceProgress::default(); num],
            orders: vec![None; num],
            groups: vec![None; num],
        }
    }

    /// The rows of the next forward pass: of one source and similar length where rows are speech, else as many as allowed.
    /// After an error the sampler stands where it stood before.
    ///
    /// Rows that cannot be read are left out; where all of a group cannot, the next one is taken.
    pub fn next_microbatch(&mut self, limits: MicrobatchLimits) -> Result<Vec<Row>> {
        let before = self.progress.clone();
        let mut result = Ok(Vec::new());
        while matches!(&result, Ok(rows) if rows.is_empty()) {
            result = self.try_microbatch(limits);
        }
        if result.is_err() {
            self.progress = before;
        }
        result
    }

    fn try_microbatch(&mut self, limits: MicrobatchLimits) -> Result<Vec<Row>> {
        let source = self.choose()?;
        if self.rows.positions(source, 0).is_none() {
            return self.next_rows(limits.rows);
        }
        let first = self.progress[source].rows;
        let group = self.group_at(source, first, limits);
        let (rows, seed) = (&self.rows, self.seed);
        let read = |(at, index): (usize, &u64)| {
            let k = first + at as u64;
            rows.row(Draw { source, split: Split::Train, index: *index, seed, k, is_varied: true }).transpose()
        };
        let kept: Vec<Row> = group.par_iter().enumerate().filter_map(read).collect::<Result<_>>()?;
        let kept = self.rows.together(kept, seed, first);
        let progress = &mut self.progress[source];
        progress.rows += group.len() as u64;
        progress.tokens += kept.iter().map(|row| row.num_positions() as u64).sum::<u64>();
        progress.bytes += kept.iter().map(|row| row.num_bytes).sum::<u64>();
        Ok(kept)
    }

    /// The next `num` rows. After an error the sampler stands where it stood before.
    pub fn next_rows(&mut self, num: usize) -> Result<Vec<Row>> {
        let before = self.progress.clone();
        let mut rows = Vec::with_capacity(num.min(1 << 16));
        while rows.len() < num {
            match self.next_row() {
                Ok(row) => rows.extend(row),
                Err(error) => {
                    self.progress = before;
                    return Err(error);
                }
            }
        }
        Ok(rows)
    }

    /// The source that gives the next row.
    fn choose(&self) -> Result<usize> {
        let members: Vec<Member> = self
            .rows
            .sources()
            .iter()
            .zip(&self.progress)
            .map(|(source, progress)| Member {
                weight: source.weight,
                drawn: progress.tokens,
                is_active: source.max_rows.is_none_or(|most| progress.rows < most),
            })
            .collect();
        choose(&members, self.rows.max_row_positions()).ok_or_else(|| Error::Exhausted {
            rows: self.progress.iter().map(|progress| progress.rows).sum(),
            tokens: self.progress.iter().map(|progress| progress.tokens).sum(),
        })
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        let source = self.choose()?;
        let k = self.progress[source].rows;
        let num_rows = self.rows.sources()[source].num_rows;
        let index = self.order(source, k / num_rows).at(k % num_rows);
        let draw = Draw { source, split: Split::Train, index, seed: self.seed, k, is_varied: true };
        let row = self.rows.row(draw)?;
        let progress = &mut self.progress[source];
        progress.rows += 1;
        progress.tokens += row.as_ref().map_or(0, |row| row.num_positions() as u64);
        progress.bytes += row.as_ref().map_or(0, |row| row.num_bytes);
        Ok(row)
    }

    /// The order of the rows of a source in an epoch of this seed.
    fn order(&mut self, source: usize, epoch: u64) -> &Permutation {
        if self.orders[source].as_ref().is_none_or(|(known, _)| *known != epoch) {
            let data = &self.rows.sources()[source];
            let order = Permutation::new(self.seed, &format!("order/{}", data.name), epoch, data.num_rows);
            self.orders[source] = Some((epoch, order));
        }
        &self.orders[source].as_ref().expect("it was just put there").1
    }

    /// The rest of the group to which row `k` of a source belongs.
    fn group_at(&mut self, source: usize, k: u64, limits: MicrobatchLimits) -> Vec<u64> {
        let num_rows = self.rows.sources()[source].num_rows;
        let (epoch, window, mut before) = (k / num_rows, k % num_rows / WINDOW, k % num_rows % WINDOW);
        let is_known = |g: &Groups| (g.epoch, g.window, g.limits) == (epoch, window, limits);
        if !self.groups[source].as_ref().is_some_and(is_known) {
            let groups = self.make_groups(source, epoch, window, limits);
            self.groups[source] = Some(Groups { epoch, window, limits, groups });
        }
        for group in self.groups[source].iter().flat_map(|g| &g.groups) {
            if before < group.len() as u64 {
                return group[before as usize..].to_vec();
            }
            before -= group.len() as u64;
        }
        Vec::new()
    }

    /// Cuts a window of an epoch, sorted by length, into groups, and puts these into an order of their own.
    fn make_groups(&mut self, source: usize, epoch: u64, window: u64, limits: MicrobatchLimits) -> Vec<Vec<u64>> {
        let (name, num_rows) = {
            let data = &self.rows.sources()[source];
            (data.name.clone(), data.num_rows)
        };
        let order = self.order(source, epoch).clone();
        let places = window * WINDOW..num_rows.min((window + 1) * WINDOW);
        let mut members: Vec<(u64, u64)> = places
            .map(|place| order.at(place))
            .map(|index| (self.rows.positions(source, index).unwrap_or(0), index))
            .collect();
        members.sort_unstable();
        let mut groups: Vec<Vec<u64>> = Vec::new();
        for (positions, index) in members {
            // Sorted by length, so the newest row is the longest of its group.
            let fits = |group: &Vec<u64>| {
                let num = group.len() as u64 + 1;
                num <= limits.rows as u64 && limits.tokens.is_none_or(|most| num * positions <= most)
            };
            match groups.last_mut().filter(|group| fits(group)) {
                Some(group) => group.push(index),
                None => groups.push(vec![index]),
            }
        }
        let windows = num_rows.div_ceil(WINDOW);
        let order =
            Permutation::new(self.seed, &format!("groups/{name}"), epoch * windows + window, groups.len() as u64);
        (0..groups.len() as u64).map(|place| std::mem::take(&mut groups[order.at(place) as usize])).collect()
    }

    /// Where this sampler stands.
    pub fn state(&self) -> SamplerState {
        let names = self.rows.sources().iter().map(|source| source.name.clone());
        SamplerState { seed: self.seed, sources: names.zip(self.progress.iter().copied()).collect() }
    }

    /// Goes to where another sampler over the same data stood, in constant time.
    pub fn restore(&mut self, state: &SamplerState) -> Result<()> {
        if state.seed != self.seed {
            let detail = format!("its seed is {}, that of the recipe {}", state.seed, self.seed);
            return Err(Error::ForeignState { detail });
        }
        let own: Vec<&String> = self.rows.sources().iter().map(|source| &source.name).collect();
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
        let sources = self.rows.sources();
        let weight: f64 = sources.iter().map(|source| source.weight).sum();
        sources
            .iter()
            .zip(&self.progress)
            .map(|(source, progress)| LedgerEntry {
                source: source.name.clone(),
                rows: progress.rows,
                tokens: progress.tokens,
                bytes: progress.bytes,
                repeats: progress.rows as f64 / source.num_rows as f64,
                target_share: source.weight / weight,
                share: progress.tokens as f64 / total.max(1) as f64,
            })
            .collect()
    }
}
