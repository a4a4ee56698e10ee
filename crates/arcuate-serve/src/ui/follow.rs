//! Metrics of the runs that somebody looks at, kept between requests: of a file that grows, only what is new is read.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arcuate_record::{Curves, MetricsTail, thinned};

/// So many runs are kept; then the one that was looked at least recently is forgotten.
const MAX_RUNS: usize = 32;
/// Longer lines lose every other point; a chart has a few hundred.
const MAX_POINTS: usize = 100_000;

#[derive(Debug)]
struct Followed {
    tail: MetricsTail,
    num_restarts: u64,
    curves: Arc<Curves>,
    last_used: Instant,
}

/// Reads metrics files, each from where it stopped.
#[derive(Debug, Default)]
pub(super) struct Follower(Mutex<HashMap<PathBuf, Followed>>);

impl Follower {
    /// The curves of the run in a folder, as far as they have been written.
    pub(super) fn curves(&self, run_path: &Path) -> Arc<Curves> {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let path = run_path.join("metrics.jsonl");
        if runs.len() >= MAX_RUNS
            && !runs.contains_key(&path)
            && let Some(oldest) = runs.iter().min_by_key(|(_, run)| run.last_used).map(|(path, _)| path.clone())
        {
            runs.remove(&oldest);
        }
        let tail = || MetricsTail::new(&path);
        let run = runs.entry(path.clone()).or_insert_with(|| Followed {
            tail: tail(),
            num_restarts: 0,
            curves: Arc::default(),
            last_used: Instant::now(),
        });
        run.last_used = Instant::now();
        let mut records = Vec::new();
        // What cannot be read now can be read at the next request.
        drop(run.tail.poll_each(|record| records.push(record)));
        if run.tail.num_restarts() != run.num_restarts {
            run.num_restarts = run.tail.num_restarts();
            run.curves = Arc::default();
        }
        if !records.is_empty() {
            let curves = Arc::make_mut(&mut run.curves);
            for record in records {
                for (name, value) in record.values {
                    let points = curves.entry(format!("{}/{name}", record.kind)).or_default();
                    points.push((record.step as f64, value));
                    if points.len() > 2 * MAX_POINTS {
                        *points = thinned(points, MAX_POINTS);
                    }
                }
            }
        }
        Arc::clone(&run.curves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_record::{MetricsWriter, Record};

    #[test]
    fn a_growing_and_a_resumed_file_are_followed() {
        let run = tempfile::tempdir().expect("a temporary folder");
        let path = run.path().join("metrics.jsonl");
        let follower = Follower::default();
        assert!(follower.curves(run.path()).is_empty());
        let mut writer = MetricsWriter::open(&path, None).expect("opens");
        for step in 1..=3 {
            writer.write(&Record::new(step, "train").value("loss", 1.0 / step as f64)).expect("writes");
            assert_eq!(follower.curves(run.path())["train/loss"].len() as u64, step);
        }
        let mut writer = MetricsWriter::open(&path, Some(1)).expect("opens");
        for step in 2..=5 {
            writer.write(&Record::new(step, "train").value("loss", 7.0)).expect("writes");
        }
        let curves = follower.curves(run.path());
        assert_eq!(curves["train/loss"], [(1.0, 1.0), (2.0, 7.0), (3.0, 7.0), (4.0, 7.0), (5.0, 7.0)]);
    }

    #[test]
    fn runs_that_nobody_looks_at_are_forgotten() {
        let follower = Follower::default();
        for number in 0..2 * MAX_RUNS {
            follower.curves(Path::new(&format!("/nonexistent/{number}")));
        }
        assert_eq!(follower.0.lock().expect("not poisoned").len(), MAX_RUNS);
    }
}
