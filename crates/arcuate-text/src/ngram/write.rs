//! Writing a trained model as an ARPA file.

use super::train::Trained;
use crate::{Error, Result};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

impl Trained {
    /// Writes the model as ARPA text.
    pub fn write_arpa(&self, mut out: impl Write) -> std::io::Result<()> {
        writeln!(out, "\\data\\")?;
        for (order, rows) in (1..).zip(&self.levels) {
            writeln!(out, "ngram {order}={}", rows.probs.len())?;
        }
        for (order, rows) in (1..).zip(&self.levels) {
            writeln!(out, "\n\\{order}-grams:")?;
            for (at, ngram) in rows.words.chunks_exact(order).enumerate() {
                write!(out, "{}", rows.probs[at])?;
                let mut separator = '\t';
                for word in ngram.iter().rev() {
                    write!(out, "{separator}{}", self.words[*word as usize])?;
                    separator = ' ';
                }
                if order < self.levels.len() {
                    write!(out, "\t{}", rows.backoffs[at])?;
                }
                writeln!(out)?;
            }
        }
        writeln!(out, "\n\\end\\")?;
        out.flush()
    }

    /// Writes the model to a file, compressed if its name ends in `.gz` or `.zst`. An interrupted run leaves no half
    /// of it under that name.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".partial");
        let aside = Path::new(&aside);
        let write = || -> std::io::Result<()> {
            let mut out = BufWriter::new(File::create(aside)?);
            match path.extension().and_then(|ending| ending.to_str()) {
                Some("gz") => {
                    let mut packed = flate2::write::GzEncoder::new(&mut out, flate2::Compression::default());
                    self.write_arpa(BufWriter::new(&mut packed))?;
                    packed.finish()?;
                }
                Some("zst") => {
                    let mut packed = zstd::Encoder::new(&mut out, 0)?;
                    self.write_arpa(&mut packed)?;
                    packed.finish()?;
                }
                _ => self.write_arpa(&mut out)?,
            }
            out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
            std::fs::rename(aside, path)
        };
        write().map_err(|error| {
            // What cannot be removed either is left; the first error says why.
            let _ = std::fs::remove_file(aside);
            Error::io("write", path)(error)
        })
    }
}
