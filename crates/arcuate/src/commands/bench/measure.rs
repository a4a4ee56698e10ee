//! Clock, sizes and the report of one row.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use arcuate_ops::rate::{Pass, product};
use arcuate_ops::{DeviceKind, Precision};
use serde::{Serialize, Serializer};

use crate::exit::usage;
use crate::memory;

/// Steps before the clock counts: buffers, page tables and frequencies settle.
const WARM_UP: usize = 2;

/// How a row is measured.
pub(super) struct How {
    /// Timed steps.
    pub(super) steps: usize,
    /// Numbers of the products.
    pub(super) precision: Precision,
    /// What computes, in rows that ask.
    pub(super) device: DeviceKind,
}

/// Sizes by name, in the order of the row.
#[derive(Debug, Clone, Default)]
pub(super) struct Sizes(Vec<(&'static str, usize)>);

impl Sizes {
    /// Those of the row, with changes where it has the key.
    pub(super) fn new(own: &[(&'static str, usize)], changes: &BTreeMap<String, usize>) -> Self {
        Self(own.iter().map(|(key, value)| (*key, changes.get(*key).copied().unwrap_or(*value))).collect())
    }

    /// One size; every row asks only for what it lists.
    pub(super) fn get(&self, key: &str) -> usize {
        let found = self.0.iter().find(|(known, _)| *known == key);
        found.unwrap_or_else(|| panic!("the row lists no size `{key}`")).1
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&parts.join(" "))
    }
}

impl Serialize for Sizes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// What one row found. The field names are those of the JSON; `docs/guide/speed.md` explains them.
#[derive(Serialize, Default)]
pub(super) struct Report {
    pub(super) row: &'static str,
    pub(super) precision: Precision,
    pub(super) threads: usize,
    pub(super) sizes: Sizes,
    pub(super) steps: usize,
    pub(super) median_ms: f64,
    pub(super) min_ms: f64,
    /// What `per_second` counts.
    pub(super) unit: &'static str,
    pub(super) per_second: f64,
    /// Peak of the whole process.
    pub(super) peak_bytes: u64,
    /// Peak before the row began: the program itself.
    pub(super) start_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parameters: Option<usize>,
    /// Losses of the first and the last step: that something was learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) losses: Option<[f64; 2]>,
    /// Operations of one step by the formula of the documentation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flops: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) flops_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) product_flops_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) share_of_product: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fma_peak: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) products: Vec<super::products::Line>,
}

/// Runs steps and reports their times; `amount` is what one step gets done, in `unit`.
pub(super) fn time(
    how: &How,
    unit: &'static str,
    amount: f64,
    mut step: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Report> {
    let mut seconds = Vec::with_capacity(how.steps);
    for number in 0..WARM_UP + how.steps {
        let start = Instant::now();
        how.precision.scope(&mut step)?;
        if number >= WARM_UP {
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    Ok(report(how, unit, amount, &mut seconds))
}

/// The report of timed steps.
pub(super) fn report(how: &How, unit: &'static str, amount: f64, seconds: &mut [f64]) -> Report {
    let median = median(seconds);
    Report {
        precision: how.precision,
        threads: rayon::current_num_threads(),
        steps: seconds.len(),
        median_ms: median * 1e3,
        min_ms: seconds.first().copied().unwrap_or(0.0) * 1e3,
        unit,
        per_second: amount / median,
        peak_bytes: memory::peak(),
        ..Report::default()
    }
}

impl Report {
    /// Adds the operations of a step and what share of the rate of these layers `[N, C, D]` they reach.
    ///
    /// Call it when the peak of memory is taken: the products need memory of their own.
    pub(super) fn with_flops(mut self, flops: f64, layers: &[[usize; 3]]) -> Self {
        let (mut operations, mut seconds) = (0.0, 0.0);
        for layer in layers {
            for pass in Pass::ALL {
                operations += 2.0 * volume(layer);
                seconds += median(&mut product(pass, *layer, self.precision, 5));
            }
        }
        self.product_flops_per_second = Some(operations / seconds);
        self.share_of_product = Some(flops / (self.median_ms * 1e-3) * seconds / operations);
        self.with_rate(flops)
    }

    /// Adds the operations of a step.
    pub(super) fn with_rate(mut self, flops: f64) -> Self {
        self.flops = Some(flops);
        self.flops_per_second = Some(flops / (self.median_ms * 1e-3));
        self
    }
}

/// The median; sorts.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[middle],
        _ => 0.5 * (values[middle - 1] + values[middle]),
    }
}

/// The product of sizes, which may be larger than any memory.
pub(super) fn volume(sizes: &[usize]) -> f64 {
    sizes.iter().map(|n| *n as f64).product()
}

/// Refuses sizes for which a step would not fit into memory by far: numbers that are held at once.
pub(super) fn refuse_giants(device: DeviceKind, numbers: f64) -> anyhow::Result<()> {
    let bytes = 4.0 * numbers;
    match crate::device::available_memory(device) {
        Some(available) if bytes > available as f64 => Err(usage(format!(
            "these sizes need about {:.0} GB, more than the {:.0} GB that are free; make them smaller",
            bytes / 1e9,
            available as f64 / 1e9
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&mut []).is_nan());
    }

    #[test]
    fn changes_reach_only_the_sizes_that_a_row_has() {
        let changes = [("batch".to_owned(), 3), ("other".to_owned(), 9)].into();
        let sizes = Sizes::new(&[("batch", 8), ("vocab", 11)], &changes);
        assert_eq!((sizes.get("batch"), sizes.get("vocab")), (3, 11));
        assert_eq!(sizes.to_string(), "batch=3 vocab=11");
    }
}
