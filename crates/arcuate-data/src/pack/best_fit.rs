//! Best fit: documents are cut only where they are longer than a row, and the pieces are laid where they fill a row best.
//!
//! # What it computes
//! A document longer than `max_seq_len` becomes full rows and one remainder. Pieces are sorted by falling length; each goes
//! into the row with the least room that still holds it (best-fit decreasing), among a million pieces at a time. Rows waste a
//! fraction of a percent on ordinary corpora, and no document that fits into a row is ever cut.
//! # Recipe
//! `[data.packing.best_fit]`, no keys
//! # Reference
//! Ding et al. 2024, "Fewer Truncations Improve Language Modeling"

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Emit, Geometry, Packer, Piece};
use crate::error::Result;

/// Pieces laid out together: bounds the memory at some tens of megabytes.
const WINDOW: usize = 1 << 20;
const NONE: u32 = u32::MAX;

/// The `[data.packing.best_fit]` table.
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
        pack_in_windows(documents, geometry, WINDOW, emit)
    }
}

fn pack_in_windows(
    documents: &mut dyn Iterator<Item = (u32, u32)>,
    geometry: Geometry,
    window: usize,
    emit: &mut Emit<'_>,
) -> Result<()> {
    let full = geometry.max_piece();
    let mut pieces = Vec::new();
    for (document, len) in documents {
        let mut start = 0;
        while len - start >= full {
            emit(&[Piece { document, start, len: full }])?;
            start += full;
        }
        if len > start {
            pieces.push(Piece { document, start, len: len - start });
            if pieces.len() == window {
                lay_out(&mut pieces, geometry, emit)?;
            }
        }
    }
    lay_out(&mut pieces, geometry, emit)
}

/// Best-fit decreasing over `pieces`, which is emptied.
fn lay_out(pieces: &mut Vec<Piece>, geometry: Geometry, emit: &mut Emit<'_>) -> Result<()> {
    // Ties by document order keep the result a pure function of the lengths.
    pieces.sort_by_key(|piece| (std::cmp::Reverse(piece.len), piece.document, piece.start));
    let mut rooms = Rooms::new(geometry.max_seq_len);
    let mut last_in_row: Vec<u32> = Vec::new();
    let mut previous: Vec<u32> = Vec::with_capacity(pieces.len());
    for (index, piece) in (0u32..).zip(pieces.iter()) {
        let size = piece.len + geometry.overhead;
        let (row, room) = match rooms.take_least(size) {
            Some(found) => found,
            None => {
                last_in_row.push(NONE);
                (last_in_row.len() as u32 - 1, geometry.max_seq_len)
            }
        };
        previous.push(std::mem::replace(&mut last_in_row[row as usize], index));
        // A row with no room for the smallest piece needs no further search.
        if room - size > geometry.overhead {
            rooms.put(row, room - size);
        }
    }
    let mut row = Vec::new();
    for last in last_in_row {
        row.clear();
        let mut at = last;
        while at != NONE {
            row.push(pieces[at as usize]);
            at = previous[at as usize];
        }
        row.reverse();
        emit(&row)?;
    }
    pieces.clear();
    Ok(())
}

/// Open rows by room left: a stack per room and a tree of maxima to find the least room that is large enough.
struct Rooms {
    stacks: Vec<Vec<u32>>,
    /// Binary tree over rooms: true where a stack below has a row.
    filled: Vec<bool>,
    leaves: usize,
}

impl Rooms {
    fn new(max_room: u32) -> Self {
        let leaves = (max_room as usize + 1).next_power_of_two();
        Self { stacks: vec![Vec::new(); max_room as usize + 1], filled: vec![false; 2 * leaves], leaves }
    }

    fn put(&mut self, row: u32, room: u32) {
        self.stacks[room as usize].push(row);
        let mut node = self.leaves + room as usize;
        while node > 0 && !self.filled[node] {
            self.filled[node] = true;
            node /= 2;
        }
    }

    /// Takes out a row with the least room of at least `size`.
    fn take_least(&mut self, size: u32) -> Option<(u32, u32)> {
        let mut node = self.leaves + size as usize;
        if node >= 2 * self.leaves {
            return None;
        }
        if !self.filled[node] {
            // Up until a right neighbour has something, then down to its leftmost leaf.
            loop {
                if node == 1 {
                    return None;
                }
                if node.is_multiple_of(2) && self.filled[node + 1] {
                    node += 1;
                    break;
                }
                node /= 2;
            }
            while node < self.leaves {
                node *= 2;
                if !self.filled[node] {
                    node += 1;
                }
            }
        }
        let room = node - self.leaves;
        let row = self.stacks[room].pop()?;
        if self.stacks[room].is_empty() {
            self.filled[node] = false;
            while node > 1 {
                node /= 2;
                let still = self.filled[2 * node] || self.filled[2 * node + 1];
                if still {
                    break;
                }
                self.filled[node] = false;
            }
        }
        Some((row, room as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{all_positions, packed, positions};
    use super::*;
    use arcuate_ops::rng::Stream;

    fn random_lengths(num: usize, most: u64) -> Vec<u32> {
        let mut stream = Stream::new(7, "lengths", 0, 0);
        (0..num).map(|_| stream.below(most) as u32).collect()
    }

    /// The specification: look at every open row.
    fn slow_number_of_rows(lengths: &[u32], max: u32) -> usize {
        let mut sorted = lengths.to_vec();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        let mut rooms: Vec<u32> = Vec::new();
        for len in sorted.into_iter().filter(|len| *len > 0) {
            match rooms.iter_mut().filter(|room| **room >= len).min() {
                Some(room) => *room -= len,
                None => rooms.push(max - len),
            }
        }
        rooms.len()
    }

    #[test]
    fn every_position_occurs_exactly_once() {
        let lengths = random_lengths(300, 100);
        for overhead in [0, 2] {
            let rows = packed(&Config {}, &lengths, Geometry { max_seq_len: 32, overhead });
            assert_eq!(positions(&rows), all_positions(&lengths));
        }
    }

    #[test]
    fn a_document_that_fits_is_never_cut() {
        let lengths = random_lengths(500, 33);
        let rows = packed(&Config {}, &lengths, Geometry { max_seq_len: 32, overhead: 0 });
        for piece in rows.iter().flatten() {
            assert_eq!((piece.start, piece.len), (0, lengths[piece.document as usize]));
        }
    }

    #[test]
    fn agrees_with_the_slow_search() {
        for most in [9, 33, 20] {
            let lengths = random_lengths(400, most);
            let rows = packed(&Config {}, &lengths, Geometry { max_seq_len: 32, overhead: 0 });
            assert_eq!(rows.len(), slow_number_of_rows(&lengths, 32));
        }
    }

    #[test]
    fn rows_are_nearly_full() {
        let lengths = random_lengths(5000, 200);
        let rows = packed(&Config {}, &lengths, Geometry { max_seq_len: 256, overhead: 0 });
        let total: u32 = lengths.iter().sum();
        assert!(f64::from(total) / (rows.len() as f64 * 256.0) > 0.99);
    }

    #[test]
    fn windows_bound_the_work_and_lose_nothing() {
        let lengths = random_lengths(300, 100);
        let mut rows = Vec::new();
        let mut documents = (0..).zip(lengths.iter().copied());
        let geometry = Geometry { max_seq_len: 32, overhead: 0 };
        pack_in_windows(&mut documents, geometry, 16, &mut |row| {
            rows.push(row.to_vec());
            Ok(())
        })
        .expect("collecting cannot fail");
        assert_eq!(positions(&rows), all_positions(&lengths));
    }
}
