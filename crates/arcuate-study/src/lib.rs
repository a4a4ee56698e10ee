//! Studies: the work list of arms and seeds, what was measured, the verdict by the rule of the file, the report.
//!
//! A study is a folder `runs/NAME` with one run folder for each of its runs. This crate reads and plans; the command line
//! trains. Nothing here depends on the order in which runs were made, or by how many processes.

mod decide;
mod error;
mod measure;
mod outcome;
mod report;
mod work;

pub use decide::{ContrastOutcome, Verdict, decide};
pub use error::{Error, Result};
pub use measure::{Measured, measure};
pub use outcome::{ArmOutcome, Facts, StudyOutcome, freeze, outcome};
pub use report::{table, write_report};
pub use work::{Selection, Shard, inputs, is_done, select};
