//! Changes of rows and batches that need no network: what is hidden of a sound.

pub mod span_mask;
