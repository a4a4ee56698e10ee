//! `cost.json`: what a run took, so that experiments can be compared by what they cost.

use std::ops::AddAssign;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::run_dir::read_text;
use crate::{Result, write_atomic};

const FILE_NAME: &str = "cost.json";

/// What a run, or several together, took.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Cost {
    /// Steps of the optimizer.
    pub steps: u64,
    /// Tokens that were trained on or evaluated.
    pub tokens: u64,
    /// Floating-point operations, by the formula of the plan.
    pub flops: f64,
    /// Seconds of work in all sessions, without waiting between them.
    pub seconds: f64,
    /// Largest memory of the process, in bytes.
    pub peak_memory_bytes: u64,
}

impl Cost {
    /// Writes `cost.json` into a run folder.
    pub fn save(&self, run_path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        write_atomic(&run_path.join(FILE_NAME), text.as_bytes())
    }

    /// Reads `cost.json` of a run folder; `None` if it has none that can be read.
    pub fn load(run_path: &Path) -> Option<Self> {
        serde_json::from_str(&read_text(&run_path.join(FILE_NAME)).ok()??).ok()
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.steps += other.steps;
        self.tokens += other.tokens;
        self.flops += other.flops;
        self.seconds += other.seconds;
        self.peak_memory_bytes = self.peak_memory_bytes.max(other.peak_memory_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_add_up_and_survive_a_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut cost = Cost { steps: 2, tokens: 100, flops: 1e12, seconds: 0.5, peak_memory_bytes: 7 };
        cost += Cost { tokens: 1, peak_memory_bytes: 5, ..Cost::default() };
        assert_eq!((cost.tokens, cost.peak_memory_bytes), (101, 7));
        cost.save(folder.path()).expect("writes");
        assert_eq!(Cost::load(folder.path()), Some(cost));
    }

    #[test]
    fn a_missing_or_damaged_file_is_none() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(Cost::load(folder.path()), None);
        std::fs::write(folder.path().join(FILE_NAME), "{").expect("writes");
        assert_eq!(Cost::load(folder.path()), None);
    }
}
