//! What a file is that is no audio, by its first bytes, so that the message can say it.

/// Something that is named like audio or lies among it: what it is and what to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Foreign {
    pub(crate) found: String,
    pub(crate) remedy: &'static str,
}

/// Bytes that [`foreign`] wants to see, where there are as many.
pub(crate) const HEAD_BYTES: usize = 512;

const REMOVE: &str = "remove it from the list, or put the recording in its place";
const UNPACK: &str = "unpack it first";
const CONVERT: &str = "convert it: `ffmpeg -i FILE -ac 1 FILE.flac`";

/// Offset, bytes at it, what it is, what to do.
const SIGNATURES: &[(usize, &[u8], &str, &str)] = &[
    (0, b"\x89PNG\r\n", "a PNG image", REMOVE),
    (0, b"\xff\xd8\xff", "a JPEG image", REMOVE),
    (0, b"GIF8", "a GIF image", REMOVE),
    (0, b"%PDF-", "a PDF document", REMOVE),
    (0, b"\x7fELF", "a program", REMOVE),
    (0, b"PAR1", "a Parquet file", "read it as a corpus of that kind"),
    (0, b"PK\x03\x04", "a ZIP archive", UNPACK),
    (0, b"\x1f\x8b", "a gzip archive", UNPACK),
    (0, b"BZh", "a bzip2 archive", UNPACK),
    (0, b"\xfd7zXZ\0", "an xz archive", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (257, b"ustar", "a tar archive", "read it as a corpus of that kind, or unpack it"),
    (8, b"AVI ", "an AVI video", CONVERT),
    (8, b"WEBP", "a WebP image", REMOVE),
    (0, b"\0\0\x01\xba", "an MPEG video", CONVERT),
    (0, b"\0\0\x01\xb3", "an MPEG video", CONVERT),
    (0, b"FLV\x01", "a Flash video", CONVERT),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media", CONVERT),
    (0, b"#!AMR", "AMR", CONVERT),
    (0, b".snd", "a Sun AU file", CONVERT),
    (0, b"NIST_1A", "NIST SPHERE", "convert it: `sph2pipe -f wav FILE FILE.wav`"),
    (0, b"wvpk", "WavPack", CONVERT),
    (0, b"MAC ", "Monkey's Audio", CONVERT),
    (0, b"TTA1", "True Audio", CONVERT),
    (0, b"caff", "a Core Audio file", CONVERT),
    (0, b"RF64", "RF64, the WAV of more than 4 GiB", CONVERT),
    (0, b"BW64", "BW64, the WAV of more than 4 GiB", CONVERT),
    (0, b"riff\x2e\x91\xcf\x11", "Wave64", CONVERT),
    (0, b"MThd", "MIDI, notes without sound", REMOVE),
    (0, b"version https://git-lfs", "a Git LFS pointer", "get its content: `git lfs pull`"),
];

/// What the content is when it is certainly no audio that can be read here; `None` where a decoder may try.
pub(crate) fn foreign(head: &[u8]) -> Option<Foreign> {
    let known = SIGNATURES.iter().find(|(at, bytes, ..)| head.get(*at..).is_some_and(|rest| rest.starts_with(bytes)));
    if let Some((_, _, found, remedy)) = known {
        return Some(Foreign { found: (*found).to_owned(), remedy });
    }
    let is_transport_stream = head.len() > 376 && [0, 188, 376].iter().all(|at| head[*at] == 0x47);
    if is_transport_stream {
        return Some(Foreign { found: "an MPEG transport stream".to_owned(), remedy: CONVERT });
    }
    if head.len() >= 64 && head.iter().all(|byte| *byte == 0) {
        return Some(Foreign { found: "a row of zero bytes".to_owned(), remedy: "get it again" });
    }
    is_text(head).then(|| {
        let start: String = String::from_utf8_lossy(head).chars().take(20).collect();
        Foreign { found: format!("text that begins with {start:?}"), remedy: REMOVE }
    })
}

/// Whether the bytes read as text: UTF-8 without control characters, a torn last character apart.
fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).expect("valid up to here")
        }
        Err(_) => return false,
    };
    // Headers of audio have zero bytes or bytes that are not UTF-8 in their first 32.
    text.len() >= 4 && text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\r' | '\t'))
}

/// The first bytes as a message shows them.
pub(crate) fn show(head: &[u8]) -> String {
    head.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// Whether an Ogg stream stops before its end: the last page is torn, or is not marked as the last one.
///
/// `tail` is the end of the file, at least as long as the largest page (65,307 bytes) where the file is.
pub(crate) fn ogg_ends_early(tail: &[u8]) -> bool {
    let last = (0..tail.len().saturating_sub(3)).rev().find(|at| tail[*at..].starts_with(b"OggS"));
    if let Some(at) = last {
        let Some(num_segments) = tail.get(at + 26).map(|n| usize::from(*n)) else { return true };
        let Some(lengths) = tail.get(at + 27..at + 27 + num_segments) else { return true };
        let end = at + 27 + num_segments + lengths.iter().map(|n| usize::from(*n)).sum::<usize>();
        return end > tail.len() || tail[at + 5] & 4 == 0;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(head: &[u8], wanted: Option<&str>) {
        let found = foreign(head).map(|foreign| foreign.found);
        assert_eq!(found.as_deref(), wanted);
    }

    #[test]
    fn pictures_archives_and_text_are_named() {
        check(b"\x89PNG\r\n\x1a\n\0\0", Some("a PNG image"));
        check(b"PK\x03\x04\x14\0", Some("a ZIP archive"));
        check(b"<!DOCTYPE html>\n<html>", Some("text that begins with \"<!DOCTYPE html>\\n<htm\""));
        check("nějaký dlouhý text".as_bytes(), Some("text that begins with \"nějaký dlouhý text\""));
        check(&[0; 512], Some("a row of zero bytes"));
        check(b"version https://git-lfs.github.com/spec/v1\n", Some("a Git LFS pointer"));
    }

    #[test]
    fn audio_is_left_to_the_decoders() {
        for head in [&b"RIFF\x24\0\0\0WAVEfmt "[..], b"fLaC\0\0\0\x22", b"OggS\0\x02\0\0", b"\xff\xfb\x90\x64", b""] {
            check(head, None);
        }
    }

    #[test]
    fn text_torn_inside_a_character_is_still_text() {
        let text = "ťťťťťťťť".as_bytes();
        assert!(is_text(&text[..text.len() - 1]));
        assert!(!is_text(b"RIFF\x24\0\0\0WAVE"));
    }

    #[test]
    fn an_ogg_stream_without_its_last_page_ends_early() {
        let mut page = b"OggS\0\x04".to_vec();
        page.extend([0; 20]);
        page.extend([1, 3, 7, 7, 7]);
        assert!(!ogg_ends_early(&page));
        assert!(ogg_ends_early(&page[..page.len() - 1]));
        page[5] = 0;
        assert!(ogg_ends_early(&page));
        assert!(!ogg_ends_early(b"RIFF"));
    }
}
