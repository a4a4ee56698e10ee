//! The split into training and held-out documents, by a hash of the id.

use serde::{Deserialize, Serialize};

/// A side of the split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Trained on.
    Train,
    /// Never trained on.
    HeldOut,
}

/// The first 64 bits of the BLAKE3 hash of the id.
pub(crate) fn id_hash(id: &str) -> u64 {
    first_bytes(&blake3::hash(id.as_bytes()))
}

/// The first 64 bits of a hash.
pub(crate) fn first_bytes(hash: &blake3::Hash) -> u64 {
    let mut first = [0u8; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

impl Split {
    /// The side on which a document with this id lies, whatever else is in the corpus.
    pub fn of(id: &str, held_out_fraction: f64) -> Self {
        Self::of_hash(id_hash(id), held_out_fraction)
    }

    pub(crate) fn of_hash(hash: u64, held_out_fraction: f64) -> Self {
        let position = (hash >> 11) as f64 / (1u64 << 53) as f64;
        if position < held_out_fraction { Self::HeldOut } else { Self::Train }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept() {
        let held_out = (0..20_000).filter(|i| Split::of(&format!("doc-{i}"), 0.1) == Split::HeldOut).count();
        assert!((1800..2200).contains(&held_out), "{held_out}");
    }

    #[test]
    fn a_larger_share_holds_out_the_same_and_more() {
        for i in 0..2000 {
            let id = format!("doc-{i}");
            if Split::of(&id, 0.05) == Split::HeldOut {
                assert_eq!(Split::of(&id, 0.1), Split::HeldOut);
            }
        }
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(
            id_hash("doc-0"),
            16_682_555_156_213_317_113,
            "a change would move documents from one side to the other"
        );
    }

    #[test]
    fn nothing_is_held_out_at_zero() {
        assert!((0..2000).all(|i| Split::of(&i.to_string(), 0.0) == Split::Train));
    }
}
