//! Numbers of 16 bits: what operations keep for the backward pass where products round their factors anyway.

use std::sync::Arc;

use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::gemm::{Factor, Shared, View, buffer};
use super::simd::simd;
use crate::Precision;
use crate::tape::{numbers, tensor};

/// The upper half of an f32.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(transparent)]
pub(crate) struct Bf16(u16);

/// The bits of the nearest bf16, ties to even, as an f32. Not-a-number stays one.
#[inline(always)]
pub(super) fn round_bits(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) & 0xffff_0000;
    if x.is_nan() { (bits | 0x0040_0000) & 0xffff_0000 } else { rounded }
}

simd! {
    /// Rounds numbers.
    fn narrow_to(x: &[f32], out: &mut [Bf16]) {
        for (x, out) in x.iter().zip(out) {
            *out = Bf16((round_bits(*x) >> 16) as u16);
        }
    }
}

simd! {
    /// The same numbers in f32.
    fn widen_to(x: &[Bf16], out: &mut [f32]) {
        for (x, out) in x.iter().zip(out) {
            *out = f32::from_bits(u32::from(x.0) << 16);
        }
    }
}

/// Numbers of one task.
const BLOCK: usize = 1 << 14;

/// The nearest numbers.
fn narrow(x: &[f32]) -> Vec<Bf16> {
    let mut out = vec![Bf16::default(); x.len()];
    out.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(out, x)| narrow_to(x, out));
    out
}

/// The same numbers in f32.
pub(super) fn widen(x: &[Bf16]) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    out.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(|(out, x)| widen_to(x, out));
    out
}

/// Numbers that wait for the backward pass, as a product of their precision takes them.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    F32(FlexTensor),
    Bf16(Arc<Vec<Bf16>>),
}

impl Kept {
    /// Keeps the numbers of a tensor.
    pub(crate) fn new(x: FlexTensor, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(x),
            Precision::Bf16 => Self::Bf16(Arc::new(narrow(numbers(&x)))),
        }
    }

    /// Room for so many numbers.
    pub(crate) fn room(len: usize, precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32(tensor(&[len], buffer(len))),
            Precision::Bf16 => Self::Bf16(Arc::new(vec![Bf16::default(); len])),
        }
    }

    /// Rows of `k` numbers as a factor of a product, from the given row on.
    pub(crate) fn rows(&self, from: usize, k: usize) -> Factor<'_> {
        match self {
            Self::F32(x) => View::rows(&numbers(x)[from * k..], k).into(),
            Self::Bf16(x) => View::rows(&x[from * k..], k).into(),
        }
    }

    /// Reads numbers from the given place on.
    pub(crate) fn read(&self, from: usize, out: &mut [f32]) {
        match self {
            Self::F32(x) => out.copy_from_slice(&numbers(x)[from..][..out.len()]),
            Self::Bf16(x) => widen_to(&x[from..][..out.len()], out),
        }
    }

    /// What parallel tasks write through.
    pub(crate) fn writer(&mut self) -> Writer {
        match self {
            Self::F32(x) => Writer::F32(Shared::new(x.storage_mut())),
            Self::Bf16(x) => Writer::Bf16(Shared::new(&mut Arc::make_mut(x)[..])),
        }
    }
}

/// Writes disjoint places of kept numbers.
#[derive(Clone, Copy)]
pub(crate) enum Writer {
    F32(Shared),
    Bf16(Shared<Bf16>),
}

impl Writer {
    /// Writes numbers from the given place on.
    ///
    /// # Safety
    /// No other task uses these places, and nobody reads or drops the numbers meanwhile.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn write(&self, from: usize, x: &[f32]) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(out) => out.slice(from, x.len()).copy_from_slice(x),
                Self::Bf16(out) => narrow_to(x, out.slice(from, x.len())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_eight_bits_survive() {
        let x: Vec<f32> = (0..40_000).map(|i| (i % 256) as f32 - 128.0).collect();
        assert_eq!(widen(&narrow(&x)), x);
        assert!(widen(&narrow(&[f32::NAN]))[0].is_nan());
    }
}
