//! Packing: how documents become rows of at most `max_seq_len` tokens. One file per packer.

pub mod best_fit;
pub mod concatenate;
pub mod document;

use bytemuck::{Pod, Zeroable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// A stretch of one document that lies in one row.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Piece {
    /// Index of the document in its source.
    pub document: u32,
    /// First position of the stretch.
    pub start: u32,
    /// Number of positions.
    pub len: u32,
}

/// What a packer needs to know about rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Most tokens in a row.
    pub max_seq_len: u32,
    /// Tokens that every piece costs beside its own (begin and end marks of a bidirectional row).
    pub overhead: u32,
}

impl Geometry {
    /// Most positions of a document that fit into one row.
    pub fn max_piece(&self) -> u32 {
        self.max_seq_len - self.overhead
    }
}

/// Takes one row after the other.
pub type Emit<'a> = dyn FnMut(&[Piece]) -> Result<()> + 'a;

/// Lays documents into rows. Memory does not grow with the number of documents.
pub trait Packer {
    /// Reads (document, number of positions) in order and emits every row once.
    fn pack(
        &self,
        documents: &mut dyn Iterator<Item = (u32, u32)>,
        geometry: Geometry,
        emit: &mut Emit<'_>,
    ) -> Result<()>;
}

macro_rules! packings {
    ($($variant:ident => $module:ident),* $(,)?) => {
        /// The `[data.packing.<name>]` table; exactly one name per recipe.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum PackingConfig {
            $(
                #[doc = concat!("`[data.packing.", stringify!($module), "]`")]
                $variant($module::Config),
            )*
        }

        impl PackingConfig {
            /// The names of all packers, as they stand in a recipe.
            pub const NAMES: &[&str] = &[$(stringify!($module)),*];

            /// The name of the chosen packer, as it stands in a recipe.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$variant(_) => stringify!($module)),* }
            }

            pub(crate) fn packer(&self) -> &dyn Packer {
                match self { $(Self::$variant(config) => config),* }
            }
        }
    };
}

packings! { BestFit => best_fit, Concatenate => concatenate, Document => document }

#[cfg(test)]
pub(crate) fn packed(packer: &dyn Packer, lengths: &[u32], geometry: Geometry) -> Vec<Vec<Piece>> {
    let mut rows = Vec::new();
    let mut documents = (0..).zip(lengths.iter().copied());
    packer
        .pack(&mut documents, geometry, &mut |row| {
            rows.push(row.to_vec());
            Ok(())
        })
        .expect("collecting cannot fail");
    for row in &rows {
        let used: u32 = row.iter().map(|piece| piece.len + geometry.overhead).sum();
        assert!(used <= geometry.max_seq_len && !row.is_empty(), "{row:?}");
        assert!(row.iter().all(|piece| piece.len > 0), "{row:?}");
    }
    rows
}

/// Every position of every document, sorted; panics on a position that occurs twice.
#[cfg(test)]
pub(crate) fn positions(rows: &[Vec<Piece>]) -> Vec<(u32, u32)> {
    let mut all: Vec<(u32, u32)> = rows
        .iter()
        .flatten()
        .flat_map(|piece| (piece.start..piece.start + piece.len).map(|at| (piece.document, at)))
        .collect();
    all.sort_unstable();
    let before = all.len();
    all.dedup();
    assert_eq!(all.len(), before, "a position occurs twice");
    all
}

#[cfg(test)]
pub(crate) fn all_positions(lengths: &[u32]) -> Vec<(u32, u32)> {
    (0..).zip(lengths).flat_map(|(document, len)| (0..*len).map(move |at| (document, at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_match_the_tables() {
        let mut sorted = PackingConfig::NAMES.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, PackingConfig::NAMES);
        let config = PackingConfig::BestFit(best_fit::Config {});
        let value = serde_json::to_value(&config).expect("a config is plain data");
        assert!(value.get(config.name()).is_some(), "{value}");
    }
}
