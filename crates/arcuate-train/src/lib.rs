//! Training loop, optimisers, schedules, checkpoints and the health referee.

mod checkpoint;
mod config;
mod error;
mod exact;
mod feed;
mod guard;
mod optimizer;
mod run;
mod schedule;
mod stop;
pub mod verify;

pub use checkpoint::{
    Best, Checkpoint, CheckpointStore, Found, LoopState, Manifest, ManifestFile, folder_bytes, free_bytes,
    verify as verify_checkpoint,
};
pub use config::{BatchConfig, CheckpointConfig, FreezeUntil, GuardConfig, HorizonConfig, Length, Position, RateRule};
pub use error::{Error, Health, Result};
pub use guard::{Action, BatchId, Collapse, Guard, GuardState, Heartbeat, Spike, Stall, Watchdog};
pub use optimizer::{Gradients, Optimizer, OptimizerConfig, adamw, learning_rates, lion, muon};
pub use run::{
    Compute, Evaluation, HookError, Hooks, Outcome, Pass, Passed, Settings, StepReport, Work, forward_backward,
    global_norm, matches, train,
};
pub use schedule::{ScheduleConfig, constant, cosine, inverse_sqrt, linear, noam, polynomial, rewarm, tri_stage, wsd};
pub use stop::{StopFlag, StopRequest};
