//! Document: one document per row, cut off at `max_seq_len`; for classification and other tasks over whole documents.
//!
//! # What it computes
//! Row k is the beginning of document k, at most `max_seq_len` tokens; the rest of a longer document is never seen.
//! # Recipe
//! `[data.packing.document]`, no keys
//! # Reference
//! Devlin et al. 2019, fine-tuning

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Emit, Geometry, Packer, Piece};
use crate::error::Result;

/// The `[data.packing.document]` table.
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
        for (document, len) in documents {
            if len > 0 {
                emit(&[Piece { document, start: 0, len: len.min(geometry.max_piece()) }])?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::packed;
    use super::*;

    #[test]
    fn a_row_is_the_beginning_of_one_document() {
        let rows = packed(&Config {}, &[3, 9, 0, 1], Geometry { max_seq_len: 8, overhead: 2 });
        let flat: Vec<(u32, u32, u32)> = rows.iter().flatten().map(|p| (p.document, p.start, p.len)).collect();
        assert_eq!(flat, [(0, 0, 3), (1, 0, 6), (3, 0, 1)]);
    }
}
