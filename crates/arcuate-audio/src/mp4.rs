//! Where the sound of an MP4 file begins: encoders put samples before it that only settle the decoder.
//!
//! # Reference
//! ISO/IEC 14496-12, edit lists

use std::io::{Read, Seek, SeekFrom};

/// Boxes that are looked at before giving up.
const MAX_BOXES: usize = 10_000;

/// Samples before the start of the first audio track, from its edit list; 0 where there is none or it cannot be read.
pub(crate) fn priming_frames(reader: &mut (impl Read + Seek), num_bytes: u64) -> u64 {
    let mut budget = MAX_BOXES;
    find(reader, 0, num_bytes, b"moov", &mut budget, &mut |reader, start, end, budget| {
        find(reader, start, end, b"trak", budget, &mut |reader, start, end, budget| {
            let is_audio = find(reader, start, end, b"mdia", budget, &mut |reader, start, end, budget| {
                find(reader, start, end, b"hdlr", budget, &mut |reader, start, _, _| {
                    (bytes::<4>(reader, start + 8)? == *b"soun").then_some(0)
                })
            });
            is_audio?;
            let edit = find(reader, start, end, b"edts", budget, &mut |reader, start, end, budget| {
                find(reader, start, end, b"elst", budget, &mut |reader, start, _, _| first_edit(reader, start))
            });
            Some(edit.unwrap_or(0))
        })
    })
    .unwrap_or(0)
}

/// What is done with a box that was found: its content's start and end, and how many boxes may still be read.
type Inside<'a, R> = dyn FnMut(&mut R, u64, u64, &mut usize) -> Option<u64> + 'a;

/// The first answer that boxes of a kind give, among those from `at` to `end`.
fn find<R: Read + Seek>(
    reader: &mut R,
    mut at: u64,
    end: u64,
    kind: &[u8; 4],
    budget: &mut usize,
    inside: &mut Inside<'_, R>,
) -> Option<u64> {
    while at + 8 <= end {
        *budget = budget.checked_sub(1)?;
        let [a, b, c, d, own @ ..] = bytes::<8>(reader, at)?;
        let (head, size) = match u64::from(u32::from_be_bytes([a, b, c, d])) {
            0 => (8, end - at),
            1 => (16, u64::from_be_bytes(bytes::<8>(reader, at + 8)?)),
            size => (8, size),
        };
        let next = at.checked_add(size).filter(|next| size >= head && *next <= end)?;
        if own == *kind
            && let Some(found) = inside(reader, at + head, next, budget)
        {
            return Some(found);
        }
        at = next;
    }
    None
}

/// The media time of the first edit that is not empty.
fn first_edit<R: Read + Seek>(reader: &mut R, start: u64) -> Option<u64> {
    let [version, ..] = bytes::<4>(reader, start)?;
    let num_edits = u32::from_be_bytes(bytes::<4>(reader, start + 4)?);
    for edit in 0..u64::from(num_edits.min(8)) {
        let time = if version == 1 {
            i64::from_be_bytes(bytes::<8>(reader, start + 8 + edit * 20 + 8)?)
        } else {
            i64::from(i32::from_be_bytes(bytes::<4>(reader, start + 8 + edit * 12 + 4)?))
        };
        if time >= 0 {
            return Some(time as u64);
        }
    }
    None
}

fn bytes<const N: usize>(reader: &mut (impl Read + Seek), at: u64) -> Option<[u8; N]> {
    let mut out = [0; N];
    reader.seek(SeekFrom::Start(at)).ok()?;
    reader.read_exact(&mut out).ok()?;
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn check(bytes: &[u8], wanted: u64) {
        assert_eq!(priming_frames(&mut Cursor::new(bytes), bytes.len() as u64), wanted);
    }

    #[test]
    fn the_edit_list_of_the_audio_track_tells_the_priming() {
        check(include_bytes!("../tests/data/speech.m4a"), 1024);
        check(include_bytes!("../tests/data/video_with_speech.mp4"), 1024);
        check(include_bytes!("../tests/data/video_only.mp4"), 0);
    }

    #[test]
    fn torn_and_lying_boxes_end_the_search() {
        let whole = include_bytes!("../tests/data/speech.m4a");
        for len in 0..whole.len() {
            check(&whole[..len], 0);
        }
        check(&[0, 0, 0, 1, b'm', b'o', b'o', b'v', 255, 255, 255, 255, 255, 255, 255, 255], 0);
    }
}
