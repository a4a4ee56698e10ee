//! CPU kernels: vector code by instruction set, matrix products, threads.

pub(crate) mod attend;
pub(crate) mod bf16;
pub(crate) mod channels;
pub(crate) mod conv;
pub(crate) mod conv2d;
mod conv_pairs;
pub(crate) mod ctc;
pub(crate) mod depthwise;
pub(crate) mod gemm;
pub(crate) mod math;
mod product;
pub(crate) mod simd;
pub(crate) mod sums;
