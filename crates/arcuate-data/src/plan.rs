//! Plans: which pieces of which documents make up row k of a source, stored and mapped like the tokens.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache;
use crate::error::{Error, Result};
use crate::mapped::Mapped;
use crate::pack::{Geometry, Packer, Piece};
use crate::progress::{Progress, Stage};
use crate::split::Split;
use crate::store::{DocumentRecord, NO_LABEL, Store};

const ROWS: &str = "rows.bin";
const PIECES: &str = "pieces.bin";

/// Which documents and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlanSpec<'a> {
    pub(crate) split: Split,
    pub(crate) held_out_fraction: f64,
    pub(crate) only_labelled: bool,
    pub(crate) geometry: Geometry,
    /// Name of the packer and its settings; part of the key.
    pub(crate) packing: &'a str,
}

/// Sums over a plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct PlanDetails {
    pub(crate) num_documents: u64,
    /// Tokens of these documents in the cache, with their marks.
    pub(crate) num_tokens: u64,
    pub(crate) num_bytes: u64,
    pub(crate) num_rows: u64,
    /// Tokens in all rows.
    pub(crate) row_tokens: u64,
    /// Tokens in the longest row.
    pub(crate) max_row_tokens: u64,
}

/// An open plan.
pub(crate) struct Plan {
    dir: PathBuf,
    pub(crate) details: PlanDetails,
    pub(crate) geometry: Geometry,
    /// Where each row ends in `pieces`.
    rows: Mapped<u64>,
    pieces: Mapped<Piece>,
}

impl Plan {
    pub(crate) fn open(
        store: &Store,
        cache_dir: &Path,
        spec: PlanSpec<'_>,
        packer: &dyn Packer,
        progress: &Progress<'_>,
    ) -> Result<Self> {
        let PlanSpec { split, held_out_fraction, only_labelled, geometry, packing } = spec;
        let what = format!(
            "{} {split:?} {:x} {only_labelled} {geometry:?} {packing} {}",
            store.key,
            held_out_fraction.to_bits(),
            cache::VERSION
        );
        let key = blake3::hash(what.as_bytes()).to_hex()[..32].to_owned();
        let (dir, details) = cache::open_or_build(cache_dir, &format!("rows-{key}"), progress, |dir| {
            build(dir, store, spec, packer, progress)
        })?;
        let plan = Self {
            rows: Mapped::open(&dir.join(ROWS))?,
            pieces: Mapped::open(&dir.join(PIECES))?,
            geometry,
            dir,
            details,
        };
        if plan.rows.as_slice().len() as u64 != plan.details.num_rows {
            return Err(plan.damaged());
        }
        Ok(plan)
    }

    /// The pieces of a row.
    pub(crate) fn row(&self, index: u64) -> Result<&[Piece]> {
        let rows = self.rows.as_slice();
        let index = usize::try_from(index).map_err(|_| self.damaged())?;
        let end = *rows.get(index).ok_or_else(|| self.damaged())?;
        let start = if index == 0 { 0 } else { rows[index - 1] };
        let range = start as usize..end as usize;
        self.pieces.as_slice().get(range).filter(|pieces| !pieces.is_empty()).ok_or_else(|| self.damaged())
    }

    fn damaged(&self) -> Error {
        Error::DamagedCache { path: self.dir.clone(), detail: "a row is not there".to_owned() }
    }
}

fn is_chosen(spec: &PlanSpec<'_>, document: &DocumentRecord) -> bool {
    Split::of_hash(document.side_hash, spec.held_out_fraction) == spec.split
        && (!spec.only_labelled || document.label != NO_LABEL)
}

fn build(
    dir: &Path,
    store: &Store,
    spec: PlanSpec<'_>,
    packer: &dyn Packer,
    progress: &Progress<'_>,
) -> Result<PlanDetails> {
    let create = |name: &str| {
        let path = dir.join(name);
        let file = File::create(&path).map_err(|source| Error::write(&path, source))?;
        Ok((path, BufWriter::with_capacity(1 << 20, file)))
    };
    let (rows_path, mut rows) = create(ROWS)?;
    let (pieces_path, mut pieces) = create(PIECES)?;
    let mut sums = PlanDetails::default();
    let total = store.documents().len() as u64;
    let mut stopped = Ok(());
    let mut documents = (0u32..)
        .zip(store.documents())
        .take_while(|(index, _)| {
            if index.is_multiple_of(1 << 16) {
                stopped = progress.report(Stage::Pack, u64::from(*index), total);
            }
            stopped.is_ok()
        })
        .filter(|(_, document)| is_chosen(&spec, document))
        .map(|(index, document)| {
            sums.num_documents += 1;
            sums.num_tokens += u64::from(document.num_tokens);
            sums.num_bytes += document.num_bytes;
            (index, store.num_positions(document))
        });
    let (mut num_rows, mut num_pieces, mut row_tokens, mut max_row_tokens) = (0u64, 0u64, 0u64, 0u64);
    packer.pack(&mut documents, spec.geometry, &mut |row| {
        num_rows += 1;
        num_pieces += row.len() as u64;
        let tokens: u64 = row.iter().map(|piece| u64::from(piece.len + spec.geometry.overhead)).sum();
        row_tokens += tokens;
        max_row_tokens = max_row_tokens.max(tokens);
        rows.write_all(&num_pieces.to_ne_bytes()).map_err(|source| Error::write(&rows_path, source))?;
        pieces.write_all(bytemuck::cast_slice(row)).map_err(|source| Error::write(&pieces_path, source))
    })?;
    drop(documents);
    store.release();
    stopped?;
    rows.flush().map_err(|source| Error::write(&rows_path, source))?;
    pieces.flush().map_err(|source| Error::write(&pieces_path, source))?;
    Ok(PlanDetails { num_rows, row_tokens, max_row_tokens, ..sums })
}
