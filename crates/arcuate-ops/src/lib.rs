//! Device choice, named random streams, gradient checks and fused differentiable operations.
//!
//! Each operation stands in a file of its own and has two forms: the plain composition of tensor-library operations,
//! which is its specification and runs on every device, and a CPU kernel with a hand-written backward pass. Tests hold
//! the second against the first. Indices, positions and masks are host data: they come from batches and never need a gradient.

pub mod activation;
pub mod adamw;
pub mod attention;
pub mod batch_norm;
pub mod conv1d;
pub mod conv2d;
mod cpu;
pub mod crf;
pub mod ctc;
pub mod cuda;
pub mod device;
pub mod dropout;
pub mod embedding;
pub mod feed_forward;
pub mod global_norm;
pub mod gradcheck;
pub mod gradient_scale;
pub mod group_norm;
pub mod linear;
pub mod linear_cross_entropy;
pub mod matmul;
pub mod newton_schulz;
pub mod norm;
pub mod place;
pub mod pool;
mod precision;
pub mod rate;
pub mod recompute;
pub mod rng;
pub mod rope;
pub mod self_check;
mod tape;
pub mod weight_norm;

pub use cpu::simd::{LEVEL_VARIABLE, Level, level};
pub use device::DeviceKind;
pub use precision::Precision;
pub use tape::{is_trained_by_kernels, plain_only};
