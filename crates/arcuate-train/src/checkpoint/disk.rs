//! Files, folders and free space, with flushing to the disk.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Bytes that this user may still write where `path` lies; none if the system does not say. A path that does not exist
/// yet counts as its nearest existing parent.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let path = path.ancestors().find(|parent| parent.exists()).unwrap_or(Path::new("."));
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut stats = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` ends with a zero byte and `stats` has room for what statvfs writes.
    #[allow(unsafe_code)]
    let stats = unsafe {
        if libc::statvfs(path.as_ptr(), stats.as_mut_ptr()) != 0 {
            return None;
        }
        stats.assume_init()
    };
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)] // the types differ between systems
    Some((stats.f_bavail as u64).saturating_mul(stats.f_frsize as u64))
}

/// Bytes of all files in a folder and the folders in it.
pub fn folder_bytes(dir: &Path) -> Result<u64> {
    let mut bytes: u64 = 0;
    for path in files_below(dir)? {
        bytes = bytes.saturating_add(path.metadata().map_err(|source| Error::io("read", &path, source))?.len());
    }
    Ok(bytes)
}

/// All files in a folder and the folders in it, sorted. Links are not followed and not listed.
pub(super) fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(walk(dir)?.0)
}

/// All folders in a folder, the deepest last, sorted.
pub(super) fn folders_below(dir: &Path) -> Result<Vec<PathBuf>> {
    Ok(walk(dir)?.1)
}

fn walk(dir: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut folders, mut open) = (Vec::new(), Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = open.pop() {
        let read = |source| Error::io("read the folder", &folder, source);
        for entry in fs::read_dir(&folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            let kind = entry.file_type().map_err(read)?;
            if kind.is_dir() {
                folders.push(entry.path());
                open.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    folders.sort();
    Ok((files, folders))
}

/// Waits until the file is on the disk.
pub(super) fn sync_file(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|source| Error::io("flush", path, source))
}

/// Waits until the names in the folder are on the disk. File systems that cannot do that for folders are left alone.
pub(super) fn sync_dir(path: &Path) -> Result<()> {
    match File::open(path).and_then(|dir| dir.sync_all()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
        other => other.map_err(|source| Error::io("flush", path, source)),
    }
}

/// Removes a file, a link or a folder with all it holds; what is not there is removed already.
pub(super) fn remove_path(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| Error::io("remove", path, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_known_also_for_folders_to_come() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let here = free_bytes(dir.path()).expect("the system knows");
        assert!(here > 0);
        assert!(free_bytes(&dir.path().join("a/b/c")).is_some());
        assert!(free_bytes(Path::new("")).is_some());
    }

    #[test]
    fn a_path_with_a_zero_byte_has_no_free_space() {
        assert!(free_bytes(Path::new("a\0b")).is_some(), "its nearest existing parent is the current folder");
    }

    #[test]
    fn folders_are_measured_with_all_below() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(dir.path().join("inner")).expect("a folder");
        fs::write(dir.path().join("a"), [0; 10]).expect("a file");
        fs::write(dir.path().join("inner/b"), [0; 5]).expect("a file");
        assert_eq!(folder_bytes(dir.path()).expect("readable"), 15);
        assert!(folder_bytes(&dir.path().join("missing")).is_err());
    }

    #[test]
    fn removing_a_link_leaves_what_it_points_to() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::create_dir(&target).expect("a folder");
        std::os::unix::fs::symlink("target", &link).expect("a link");
        remove_path(&link).expect("links can be removed");
        assert!(target.is_dir() && link.symlink_metadata().is_err());
        remove_path(&link).expect("what is gone is removed already");
    }
}
