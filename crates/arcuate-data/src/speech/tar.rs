//! Members of a tar archive by their headers alone: nothing is unpacked, and no name is used as a path.
//!
//! # Reference
//! POSIX.1-2017, pax: the ustar and pax interchange formats; GNU tar for long names and sizes in binary.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::lines::bad;
use crate::error::{BadItem, BadReason, Error, Result};

const BLOCK: u64 = 512;
/// Most members of one archive.
const MAX_MEMBERS: u64 = 1 << 22;
/// Longest name, and longest header with a name in it.
const MAX_NAME_BYTES: u64 = 1 << 16;

/// A regular file in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// First byte of its content.
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

/// Calls `each` with every regular file in order, and with a bad item for each that cannot be used: links, devices, names that
/// lead out of the archive.
///
/// # Errors
/// When the archive is no tar, when its sizes and its length disagree, and when it has too many members.
pub(crate) fn each_member(path: &Path, mut each: impl FnMut(&File, Result<Member>) -> Result<()>) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::read(path, error))?;
    let end = file.metadata().map_err(|error| Error::read(path, error))?.len();
    let damaged = |at: u64, detail: &str| {
        let detail = format!("at byte {at} {detail}");
        Error::DamagedFile { path: path.to_owned(), line: 0, detail }
    };
    let (mut at, mut num_members) = (0, 0);
    let mut next = Told::default();
    while at < end {
        let mut block = [0; BLOCK as usize];
        if end - at < BLOCK {
            return Err(damaged(at, "it ends within a header"));
        }
        file.read_exact_at(&mut block, at).map_err(|error| Error::read(path, error))?;
        if block.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let header = Header::read(&block).ok_or_else(|| {
            let hint =
                if at == 0 && block.starts_with(&[0x1f, 0x8b]) { ": undo its compression with `gzip -d`" } else { "" };
            damaged(at, &format!("there is no header of a tar archive{hint}"))
        })?;
        num_members += 1;
        if num_members > MAX_MEMBERS {
            return Err(damaged(at, &format!("it has more than {MAX_MEMBERS} members; make several archives of it")));
        }
        let content = at + BLOCK;
        let len = if header.has_content() { next.len.filter(|_| header.is_member()).unwrap_or(header.len) } else { 0 };
        let padded = len.checked_next_multiple_of(BLOCK).and_then(|padded| content.checked_add(padded));
        // The blanks that fill the last block may be missing at the end of an archive.
        let Some(after) = padded.filter(|_| len <= end - content) else {
            let detail = format!("a member claims {len} bytes, but the archive ends {} later", end - content);
            return Err(damaged(at, &detail));
        };
        at = after;
        if header.is_member() {
            let told = std::mem::take(&mut next);
            let name = told.name.unwrap_or(header.name);
            match usable(path, &name, header.kind) {
                Ok(Some(name)) => each(&file, Ok(Member { name, offset: content, len }))?,
                Ok(None) => {}
                Err(error) => each(&file, Err(error))?,
            }
            continue;
        }
        if len > MAX_NAME_BYTES {
            return Err(damaged(content, &format!("a name has more than {MAX_NAME_BYTES} bytes")));
        }
        let mut told = vec![0; len as usize];
        file.read_exact_at(&mut told, content).map_err(|error| Error::read(path, error))?;
        match header.kind {
            b'L' => next.name = Some(until_zero(&told).to_vec()),
            b'x' => next.pax(&told).ok_or_else(|| damaged(content, "an extended header makes no sense"))?,
            // The target of a link, and what holds for all members: nothing of it is needed.
            _ => {}
        }
    }
    Ok(())
}

/// What a header before that of a member says about it.
#[derive(Debug, Default)]
struct Told {
    name: Option<Vec<u8>>,
    len: Option<u64>,
}

impl Told {
    /// Records of `LEN KEY=VALUE\n`, where LEN counts the whole record.
    fn pax(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let blank = bytes.iter().take(20).position(|byte| *byte == b' ')?;
            let len: usize = std::str::from_utf8(&bytes[..blank]).ok()?.parse().ok()?;
            let record = bytes.get(blank + 1..len)?.strip_suffix(b"\n")?;
            bytes = &bytes[len..];
            let equals = record.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => self.name = Some(value.to_vec()),
                b"size" => self.len = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                _ => {}
            }
        }
        Some(())
    }
}

struct Header {
    name: Vec<u8>,
    len: u64,
    kind: u8,
}

impl Header {
    /// None where the checksum is wrong or a number is none.
    fn read(block: &[u8; BLOCK as usize]) -> Option<Self> {
        // The checksum counts its own eight bytes as blanks.
        let sum: u64 =
            (0..).zip(block).map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) }).sum();
        if octal(&block[148..156])? != sum {
            return None;
        }
        let size = &block[124..136];
        let len = if size[0] & 0x80 == 0 {
            octal(size)?
        } else {
            let mut number = u64::from(size[0] & 0x7f);
            for byte in &size[1..] {
                number = number.checked_mul(256)?.checked_add(u64::from(*byte))?;
            }
            number
        };
        let mut name = until_zero(&block[..100]).to_vec();
        let prefix = until_zero(&block[345..500]);
        // GNU tar keeps times where ustar keeps the folder.
        if block[257..263] == *b"ustar\0" && !prefix.is_empty() {
            name = [prefix, b"/", &name].concat();
        }
        Some(Self { name, len, kind: block[156] })
    }

    /// False for a header that tells of the next one.
    fn is_member(&self) -> bool {
        !matches!(self.kind, b'L' | b'K' | b'x' | b'g')
    }

    /// Links, devices and folders have no content, whatever their size says.
    fn has_content(&self) -> bool {
        !matches!(self.kind, b'1'..=b'6')
    }
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len())]
}

fn octal(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(until_zero(bytes)).ok()?.trim();
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

/// The name of a member that is a regular file; none for a folder.
fn usable(path: &Path, name: &[u8], kind: u8) -> Result<Option<String>> {
    let shown = String::from_utf8_lossy(name).into_owned();
    let refuse = |reason, detail: &str| {
        let place = format!("{}:{shown}", path.display());
        Err(Error::BadItem(BadItem { reason, place, detail: detail.to_owned() }))
    };
    let what = match kind {
        b'0' | 0 | b'7' => None,
        b'5' => return Ok(None),
        b'1' | b'2' => Some("is a link; put the file itself into the archive"),
        b'3' | b'4' | b'6' => Some("is a device; an archive of sounds holds files"),
        _ => Some("is of a kind that is not read; make the archive with `tar --format=ustar`"),
    };
    if let Some(detail) = what {
        return refuse(BadReason::UnsafeMember, detail);
    }
    if name.starts_with(b"/") {
        return refuse(BadReason::UnsafeMember, "has an absolute name; make the archive with relative names");
    }
    if name.split(|byte| *byte == b'/').any(|part| part == b"..") {
        return refuse(BadReason::UnsafeMember, "has `..` in its name, which leads out of the archive; rename it");
    }
    if std::str::from_utf8(name).is_err() {
        return Err(bad(BadReason::NonUtf8, path, 0, format!("has a member whose name `{shown}` is not UTF-8")));
    }
    Ok(Some(shown.strip_prefix("./").map(str::to_owned).unwrap_or(shown)))
}
