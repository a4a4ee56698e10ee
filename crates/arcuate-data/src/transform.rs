//! What is made of sounds without a network: what is hidden of them, and units that stand for kinds of frames.

pub mod kmeans;
pub mod span_mask;
