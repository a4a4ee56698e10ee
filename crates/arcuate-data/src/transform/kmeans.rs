//! K-means: numbers the kinds of frames of untranscribed speech, so that a network can be asked to predict them.
//!
//! # What it computes
//! Centroids are seeded by k-means++ (each next one a row drawn in proportion to its squared distance from those before), then
//! rounds of Lloyd move each to the mean of the rows closest to it until no row changes its unit. With `batch_rows` a round
//! sees so many rows drawn at random, and a centroid is the mean of all rows that it was ever closest to. A centroid that is
//! closest to no row is put on the row farthest from its own. Results do not depend on the number of threads.
//! # Reference
//! Lloyd 1982; Arthur and Vassilvitskii 2007; Sculley 2010 (batches); Hsu et al. 2021 (HuBERT: units of speech)
// N rows, D features, K units

use arcuate_ops::rng::Stream;
use rayon::prelude::*;

use crate::{Error, Result};

/// How units are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KMeansOptions {
    /// K.
    pub num_units: usize,
    /// Rounds at most.
    pub max_rounds: usize,
    /// Rows that a round sees; none: all.
    pub batch_rows: Option<usize>,
    /// Seed of all draws.
    pub seed: u64,
}

/// Centroids: the unit of a row is the one closest to it.
#[derive(Debug, Clone, PartialEq)]
pub struct KMeans {
    num_features: usize,
    /// `[K, D]`
    centroids: Vec<f32>,
}

fn squared_distance(a: &[f32], b: &[f32]) -> f32 {
    // Eight sums side by side, which compilers make vector code of.
    let mut sums = [0.0f32; 8];
    let (mut a, mut b) = (a.chunks_exact(8), b.chunks_exact(8));
    for (a, b) in a.by_ref().zip(b.by_ref()) {
        for i in 0..8 {
            sums[i] += (a[i] - b[i]) * (a[i] - b[i]);
        }
    }
    let rest = a.remainder().iter().zip(b.remainder()).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
    sums.iter().sum::<f32>() + rest
}

impl KMeans {
    /// Finds units in rows `[N, D]`.
    ///
    /// # Errors
    /// When there are fewer rows than units, a number is not finite, or a size is 0.
    pub fn fit(rows: &[f32], num_features: usize, options: &KMeansOptions) -> Result<Self> {
        let problem = |what: String| Err(Error::Units(what));
        let KMeansOptions { num_units, batch_rows, seed, .. } = *options;
        if num_features == 0 || !rows.len().is_multiple_of(num_features) {
            return problem(format!("{} numbers are no rows of {num_features} features", rows.len()));
        }
        let num_rows = rows.len() / num_features;
        if num_units == 0 || num_units > num_rows {
            return problem(format!("{num_rows} rows cannot be told apart by {num_units} units; use 1 to {num_rows}"));
        }
        if let Some(place) = rows.iter().position(|x| !x.is_finite()) {
            return problem(format!("row {} has the number {}", place / num_features, rows[place]));
        }
        let row = |i: usize| &rows[i * num_features..(i + 1) * num_features];
        let mut stream = Stream::new(seed, "k-means", 0, num_units as u64);
        // Each draw of rows has a stream of its own, so that rounds do not depend on how many draws came before.
        let batch = |round: u64, size: usize| -> Vec<f32> {
            let mut stream = Stream::new(seed, "k-means batch", round, num_units as u64);
            (0..size).flat_map(|_| row(stream.below(num_rows as u64) as usize)).copied().collect()
        };
        let Some(size) = batch_rows.map(|size| size.max(num_units)).filter(|size| *size < num_rows) else {
            let mut units = Self { num_features, centroids: seeds(rows, num_features, num_units, &mut stream) };
            units.lloyd(rows, options.max_rounds);
            return Ok(units);
        };
        let first = batch(0, size);
        let mut units = Self { num_features, centroids: seeds(&first, num_features, num_units, &mut stream) };
        let mut counts = vec![0u64; num_units];
        for round in 1..=options.max_rounds as u64 {
            units.batch_round(&batch(round, size), &mut counts);
        }
        Ok(units)
    }

    /// Units with the centroids `[K, D]`.
    ///
    /// # Errors
    /// When these are no rows of finite numbers.
    pub fn of_centroids(centroids: Vec<f32>, num_features: usize) -> Result<Self> {
        if num_features == 0 || centroids.is_empty() || !centroids.len().is_multiple_of(num_features) {
            return Err(Error::Units(format!("{} numbers are no rows of {num_features} features", centroids.len())));
        }
        if let Some(place) = centroids.iter().position(|x| !x.is_finite()) {
            return Err(Error::Units(format!("unit {} has the number {}", place / num_features, centroids[place])));
        }
        Ok(Self { num_features, centroids })
    }

    /// Centroids `[K, D]`.
    pub fn centroids(&self) -> &[f32] {
        &self.centroids
    }

    /// K.
    pub fn num_units(&self) -> usize {
        self.centroids.len() / self.num_features
    }

    /// D.
    pub fn num_features(&self) -> usize {
        self.num_features
    }

    /// The unit of each of the rows `[N, D]`, and how far off it is, squared. Of equally close ones the first.
    pub fn assign(&self, rows: &[f32]) -> Vec<(u32, f32)> {
        let closest = |row: &[f32]| {
            let mut best = (0, f32::INFINITY);
            for (unit, centroid) in self.centroids.chunks_exact(self.num_features).enumerate() {
                let distance = squared_distance(row, centroid);
                if distance < best.1 {
                    best = (unit as u32, distance);
                }
            }
            best
        };
        rows.par_chunks_exact(self.num_features).map(closest).collect()
    }

    fn lloyd(&mut self, rows: &[f32], max_rounds: usize) {
        let mut before: Vec<u32> = Vec::new();
        for _ in 0..max_rounds {
            let assigned = self.assign(rows);
            let units: Vec<u32> = assigned.iter().map(|(unit, _)| *unit).collect();
            if units == before {
                return;
            }
            let sums = self.sums(rows, &units);
            for (centroid, (sum, count)) in self.centroids.chunks_exact_mut(self.num_features).zip(&sums) {
                if *count > 0 {
                    centroid.iter_mut().zip(sum).for_each(|(x, sum)| *x = (sum / *count as f64) as f32);
                }
            }
            let empty: Vec<usize> = (0..sums.len()).filter(|unit| sums[*unit].1 == 0).collect();
            self.reseed(&empty, rows, &assigned);
            before = units;
        }
    }

    fn batch_round(&mut self, rows: &[f32], counts: &mut [u64]) {
        let assigned = self.assign(rows);
        let units: Vec<u32> = assigned.iter().map(|(unit, _)| *unit).collect();
        let sums = self.sums(rows, &units);
        let centroids = self.centroids.chunks_exact_mut(self.num_features);
        for ((centroid, (sum, count)), total) in centroids.zip(&sums).zip(counts.iter_mut()) {
            *total += count;
            if *count > 0 {
                let (count, total) = (*count as f64, *total as f64);
                let moved = |x: f32, sum: f64| f64::from(x) + (sum - count * f64::from(x)) / total;
                centroid.iter_mut().zip(sum).for_each(|(x, sum)| *x = moved(*x, *sum) as f32);
            }
        }
        let empty: Vec<usize> = (0..counts.len()).filter(|unit| counts[*unit] == 0).collect();
        self.reseed(&empty, rows, &assigned);
    }

    /// Sum and number of the rows of each unit, added up in the order of the rows whatever thread does it.
    fn sums(&self, rows: &[f32], units: &[u32]) -> Vec<(Vec<f64>, u64)> {
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); self.num_units()];
        units.iter().enumerate().for_each(|(row, unit)| members[*unit as usize].push(row));
        let d = self.num_features;
        let sum = |members: &Vec<usize>| {
            let mut sum = vec![0.0; d];
            for row in members {
                sum.iter_mut().zip(&rows[row * d..(row + 1) * d]).for_each(|(sum, x)| *sum += f64::from(*x));
            }
            (sum, members.len() as u64)
        };
        members.par_iter().map(sum).collect()
    }

    /// Puts centroids on the rows farthest from their own, each on another one.
    fn reseed(&mut self, empty: &[usize], rows: &[f32], assigned: &[(u32, f32)]) {
        if empty.is_empty() {
            return;
        }
        let mut order: Vec<usize> = (0..assigned.len()).collect();
        order.sort_by(|a, b| assigned[*b].1.total_cmp(&assigned[*a].1));
        let d = self.num_features;
        for (unit, row) in empty.iter().zip(order) {
            self.centroids[unit * d..(unit + 1) * d].copy_from_slice(&rows[row * d..(row + 1) * d]);
        }
    }
}

/// K rows of which each next one is drawn in proportion to its squared distance from the closest before.
fn seeds(rows: &[f32], d: usize, num_units: usize, stream: &mut Stream) -> Vec<f32> {
    let num_rows = rows.len() / d;
    let row = |i: usize| &rows[i * d..(i + 1) * d];
    let mut centroids = row(stream.below(num_rows as u64) as usize).to_vec();
    let mut distances = vec![f32::INFINITY; num_rows];
    for unit in 1..num_units {
        let newest = &centroids[(unit - 1) * d..];
        distances
            .par_iter_mut()
            .zip(rows.par_chunks_exact(d))
            .for_each(|(distance, row)| *distance = distance.min(squared_distance(row, newest)));
        let total: f64 = distances.iter().map(|distance| f64::from(*distance)).sum();
        let mut left = stream.uniform() * total;
        let reaches = |distance: &f32| {
            left -= f64::from(*distance);
            left < 0.0
        };
        // Where all rows are already centroids, or rounding leaves a little over, any row will do.
        let chosen = distances.iter().position(reaches).unwrap_or_else(|| stream.below(num_rows as u64) as usize);
        centroids.extend_from_slice(row(chosen));
    }
    centroids
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: KMeansOptions = KMeansOptions { num_units: 4, max_rounds: 50, batch_rows: None, seed: 3 };

    /// So many rows around each corner of a square with sides of 10.
    fn corners(each: usize) -> Vec<f32> {
        let mut stream = Stream::new(1, "test", 0, 0);
        let mut rows = Vec::new();
        for _ in 0..each {
            for corner in [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]] {
                rows.extend(corner.map(|x| x + stream.normal() as f32 * 0.5));
            }
        }
        rows
    }

    fn are_corners(units: &KMeans, within: f32) {
        let assigned = units.assign(&[0.0, 0.0, 10.0, 0.0, 0.0, 10.0, 10.0, 10.0]);
        let mut found: Vec<u32> = assigned.iter().map(|(unit, _)| *unit).collect();
        found.sort_unstable();
        assert_eq!(found, [0, 1, 2, 3]);
        assert!(assigned.iter().all(|(_, distance)| *distance < within), "{assigned:?}");
    }

    #[test]
    fn clusters_that_stand_apart_are_found_whole_and_in_batches() {
        let rows = corners(200);
        are_corners(&KMeans::fit(&rows, 2, &OPTIONS).expect("sound"), 0.02);
        let in_batches = KMeansOptions { batch_rows: Some(64), ..OPTIONS };
        are_corners(&KMeans::fit(&rows, 2, &in_batches).expect("sound"), 0.05);
    }

    #[test]
    fn the_end_of_all_rounds_is_where_means_and_closest_rows_agree() {
        let rows = corners(30);
        let units = KMeans::fit(&rows, 2, &KMeansOptions { num_units: 7, ..OPTIONS }).expect("sound");
        let assigned = units.assign(&rows);
        for unit in 0..7 {
            let members: Vec<&[f32]> =
                rows.chunks(2).zip(&assigned).filter(|(_, (of, _))| *of == unit).map(|(row, _)| row).collect();
            assert!(!members.is_empty());
            for feature in 0..2 {
                let mean = members.iter().map(|row| row[feature]).sum::<f32>() / members.len() as f32;
                assert!((mean - units.centroids[unit as usize * 2 + feature]).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let rows = corners(500);
        for batch_rows in [None, Some(100)] {
            let options = KMeansOptions { num_units: 9, batch_rows, ..OPTIONS };
            let fit = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
                pool.install(|| KMeans::fit(&rows, 2, &options).expect("sound"))
            };
            assert_eq!(fit(1), fit(4));
            assert_ne!(fit(1), KMeans::fit(&rows, 2, &KMeansOptions { seed: 4, ..options }).expect("sound"));
        }
    }

    #[test]
    fn a_unit_without_rows_is_put_on_the_farthest_one() {
        let rows = [0.0, 1.0, 2.0, 30.0];
        let mut units = KMeans { num_features: 1, centroids: vec![1.0, 500.0] };
        units.lloyd(&rows, 50);
        assert_eq!(units.centroids, [1.0, 30.0]);
        let mut units = KMeans { num_features: 1, centroids: vec![1.0, 500.0] };
        units.batch_round(&rows, &mut [0, 0]);
        assert_eq!(units.centroids, [8.25, 30.0]);
    }

    #[test]
    fn rows_that_are_all_alike_are_no_trouble() {
        let units = KMeans::fit(&[1.5; 12], 2, &OPTIONS).expect("sound");
        assert_eq!(units.assign(&[1.5, 1.5]), [(0, 0.0)]);
    }

    #[test]
    fn what_cannot_be_clustered_is_refused() {
        let refused = |rows: &[f32], d, num_units| match KMeans::fit(rows, d, &KMeansOptions { num_units, ..OPTIONS }) {
            Err(error) => error.to_string(),
            Ok(_) => "nothing".to_owned(),
        };
        assert!(refused(&[1.0; 6], 2, 4).contains("3 rows cannot be told apart by 4 units"));
        assert!(refused(&[1.0; 6], 2, 0).contains("by 0 units"));
        assert!(refused(&[1.0; 5], 2, 1).contains("5 numbers are no rows of 2 features"));
        assert!(refused(&[1.0; 5], 0, 1).contains("no rows of 0 features"));
        assert!(refused(&[1.0, 2.0, 3.0, f32::NAN], 2, 1).contains("row 1 has the number NaN"));
    }

    #[test]
    fn centroids_make_the_same_units_again() {
        let units = KMeans::fit(&corners(50), 2, &KMeansOptions { num_units: 40, ..OPTIONS }).expect("sound");
        assert_eq!(KMeans::of_centroids(units.centroids().to_vec(), 2).expect("sound"), units);
        assert_eq!((units.num_units(), units.num_features()), (40, 2));
        for (centroids, num_features) in [(vec![], 2), (vec![1.0; 5], 2), (vec![1.0; 4], 0), (vec![1.0, f32::NAN], 1)] {
            assert!(KMeans::of_centroids(centroids, num_features).is_err());
        }
    }
}
