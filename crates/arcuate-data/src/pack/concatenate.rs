//! Concatenate: documents one after the other, cut into full rows; attention and positions still stop at documents.
//!
//! # What it computes
//! Documents follow each other in the order of the files; a row takes the next `max_seq_len` positions, so that a document may
//! be cut anywhere and continues in a later row. Only the last row of a source is shorter. No position is lost or repeated.
//! # Recipe
//! `[data.packing.concatenate]`, no keys
//! # Reference
//! The "packing" of Raffel et al. 2020, with the document mask of Dubey et al. 2024

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Emit, Geometry, Packer, Piece};
use crate::error::Result;

/// The `[data.packing.concatenate]` table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {}

impl Packer for Config {
    fn pack(
        &self,
        documents: &mut dyn Iterator<Item = (u32, u32)>,
        geometry: Geometry,
        emit: &mut Emit<'_>,
    ) -> Result<()> {
        let mut row = Vec::new();
        let mut room = geometry.max_seq_len;
        for (document, len) in documents {
            let mut start = 0;
            while start < len {
                if room <= geometry.overhead {
                    emit(&row)?;
                    row.clear();
                    room = geometry.max_seq_len;
                }
                let taken = (room - geometry.overhead).min(len - start);
                row.push(Piece { document, start, len: taken });
                room -= taken + geometry.overhead;
                start += taken;
            }
        }
        if row.is_empty() { Ok(()) } else { emit(&row) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{all_positions, packed, positions};
    use super::*;

    #[test]
    fn every_position_occurs_exactly_once() {
        let lengths = [5, 1, 17, 3, 8, 0, 2];
        for overhead in [0, 2] {
            let rows = packed(&Config {}, &lengths, Geometry { max_seq_len: 8, overhead });
            assert_eq!(positions(&rows), all_positions(&lengths));
        }
    }

    #[test]
    fn all_rows_but_the_last_are_full() {
        let rows = packed(&Config {}, &[5, 1, 17, 3, 8], Geometry { max_seq_len: 8, overhead: 0 });
        let used: Vec<u32> = rows.iter().map(|row| row.iter().map(|p| p.len).sum()).collect();
        assert_eq!(used, [8, 8, 8, 8, 2]);
    }

    #[test]
    fn no_document_makes_no_row() {
        assert!(packed(&Config {}, &[], Geometry { max_seq_len: 8, overhead: 0 }).is_empty());
    }
}
