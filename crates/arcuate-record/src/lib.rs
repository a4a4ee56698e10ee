//! The local record of runs: run folder, metrics, event files, index, statistics, plots, report; knows no tensors.
//!
//! A run is a folder `ROOT/NAME` that stays readable without this program: TOML, JSON lines, TensorBoard events,
//! HTML. [`RunDir`] owns the folder while the run goes on; everything else only reads it. `ROOT/index.sqlite` is a
//! cache over the folders and may be deleted at any time.

mod atomic;
mod checkpoints;
mod clock;
mod compare;
mod confusion;
mod cost;
mod curves;
mod error;
mod events;
pub mod html;
mod index;
mod lines;
mod metrics;
mod numbers;
mod plot;
mod recipe_diff;
mod report;
mod run_dir;
pub mod statistics;
mod status;
mod summary;
mod text_table;

pub use atomic::{AtomicFile, write_atomic};
pub use checkpoints::{CheckpointName, checkpoints};
pub use clock::{format_duration, format_utc, parse_utc, utc_now};
pub use compare::{Comparison, Curves, MetricRow, compare, compare_with};
pub use confusion::Confusion;
pub use cost::Cost;
pub use curves::run_charts;
pub use error::{Error, Result};
pub use events::EventWriter;
pub use index::{Index, list, rebuild};
pub use metrics::{Metrics, MetricsTail, MetricsWriter, Record, read_metrics, series};
pub use numbers::{format_bytes, format_count, format_number};
pub use plot::{Chart, Effect, EffectPlot, OVER_SEEDS, Series, TerminalSize, thinned};
pub use recipe_diff::{KeyDifference, flatten_toml, recipe_difference, recipe_differences};
pub use report::{HeardWord, LedgerRow, Report, Table, Tone, Utterance};
pub use run_dir::{RunDir, check_run_name};
pub use status::{State, Status, is_done_with};
pub use summary::{Direction, RunSummary, summarise};
pub use text_table::text_table;
