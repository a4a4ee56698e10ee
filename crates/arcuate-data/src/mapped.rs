//! Arrays of plain numbers in files, mapped into memory: a gigabyte corpus costs address space, not memory.

use std::fs::File;
use std::marker::PhantomData;
use std::path::Path;

use bytemuck::Pod;
use memmap2::Mmap;

use crate::error::{Error, Result};

/// A read-only array of `T` in a file of the cache.
pub(crate) struct Mapped<T> {
    map: Option<Mmap>,
    element: PhantomData<T>,
}

impl<T: Pod> Mapped<T> {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::read(path, source))?;
        let len = file.metadata().map_err(|source| Error::read(path, source))?.len();
        if len % size_of::<T>() as u64 != 0 {
            return Err(Error::DamagedCache {
                path: path.parent().unwrap_or(path).to_owned(),
                detail: format!("{len} bytes are not a whole number of entries"),
            });
        }
        if len == 0 {
            return Ok(Self { map: None, element: PhantomData });
        }
        #[expect(unsafe_code, reason = "mapping a file is unsafe because others could change it")]
        // SAFETY: cache files are written aside, renamed once and never changed afterwards, only unlinked; any bit pattern is
        // a valid `T: Pod`, and readers check every index they find.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| Error::read(path, source))?;
        Ok(Self { map: Some(map), element: PhantomData })
    }

    /// Gives the pages that were touched back to the system, which keeps them as cache as long as it likes. Otherwise a long run
    /// over a large corpus would seem to need as much memory as the corpus is large.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            #[expect(unsafe_code, reason = "this advice is unsafe because private changes would be lost")]
            // SAFETY: the mapping is of a file and read-only, so there are no changes to lose: the next access reads the file.
            let advised = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            // Only an advice: where it is refused, nothing is lost but the saving.
            drop(advised);
        }
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        match &self.map {
            Some(map) => bytemuck::cast_slice(map),
            None => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_as_written() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("numbers.bin");
        std::fs::write(&path, bytemuck::cast_slice(&[1u32, 2, u32::MAX])).expect("writable");
        let mapped = Mapped::<u32>::open(&path).expect("whole");
        assert_eq!(mapped.as_slice(), [1, 2, u32::MAX]);
        mapped.release();
        assert_eq!(mapped.as_slice(), [1, 2, u32::MAX]);
        let error = Mapped::<u64>::open(&path).err().expect("12 bytes are not whole");
        assert!(matches!(error, Error::DamagedCache { .. }), "{error}");
    }

    #[test]
    fn an_empty_file_is_an_empty_array() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("empty.bin");
        std::fs::write(&path, []).expect("writable");
        assert!(Mapped::<u64>::open(&path).expect("empty").as_slice().is_empty());
    }
}
