//! CPU kernels: vector code by instruction set, matrix products, threads.

pub(crate) mod attend;
pub(crate) mod gemm;
pub(crate) mod math;
pub(crate) mod simd;
