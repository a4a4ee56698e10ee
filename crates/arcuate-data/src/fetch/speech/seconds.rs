//! How long a sound file is, by the plainest reading of its headers: what is written into a manifest must not change with a decoder.

/// Seconds of a WAV, Ogg Vorbis or MP3 file; 0 for one without sound.
pub(super) fn of(bytes: &[u8]) -> Option<f64> {
    match bytes.get(..4)? {
        b"RIFF" => wav(bytes),
        b"OggS" => vorbis(bytes),
        _ => mp3(bytes),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Bytes of the data by bytes a second, as its chunks say.
fn wav(bytes: &[u8]) -> Option<f64> {
    let (mut at, mut bytes_a_second) = (12, None);
    loop {
        let (name, len) = (bytes.get(at..at + 4)?, u32_at(bytes, at + 4)? as usize);
        match name {
            b"fmt " => bytes_a_second = Some(u32_at(bytes, at + 16)?),
            b"data" => return Some(len.min(bytes.len() - at - 8) as f64 / f64::from(bytes_a_second?)),
            _ => {}
        }
        // Chunks begin at even places.
        at = at.checked_add(8)?.checked_add(len)?.checked_add(len % 2)?;
    }
}

/// The position of the last page by the rate in the first packet.
fn vorbis(bytes: &[u8]) -> Option<f64> {
    let header = bytes.windows(7).take(1024).position(|window| window == b"\x01vorbis")?;
    let rate = u32_at(bytes, header + 12)?;
    let last = bytes.windows(4).rposition(|window| window == b"OggS")?;
    let position = u64::from(u32_at(bytes, last + 6)?) | u64::from(u32_at(bytes, last + 10)?) << 32;
    (rate > 0 && position < 1 << 40).then(|| position as f64 / f64::from(rate))
}

/// The samples of all frames of layer III by their rate.
fn mp3(bytes: &[u8]) -> Option<f64> {
    const KBITS: [u32; 16] = [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0];
    const LOW_KBITS: [u32; 16] = [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0];
    let (mut at, mut seconds) = (0, 0.0);
    while let Some(header) = bytes.get(at..at + 4) {
        let version = header[1] >> 3 & 3;
        let rate = [44_100, 48_000, 32_000, 0][usize::from(header[2] >> 2 & 3)];
        let kbits = if version == 3 { KBITS } else { LOW_KBITS }[usize::from(header[2] >> 4)];
        let is_frame = header[0] == 0xff && header[1] & 0xe6 == 0xe2 && version != 1 && rate > 0 && kbits > 0;
        if !is_frame {
            at += 1;
            continue;
        }
        // MPEG 2 halves the rate and MPEG 2.5 quarters it; both have half of the samples.
        let (rate, samples) = match version {
            3 => (rate, 1152),
            2 => (rate / 2, 576),
            _ => (rate / 4, 576),
        };
        seconds += f64::from(samples) / f64::from(rate);
        at += (samples / 8 * kbits * 1000 / rate + u32::from(header[2] >> 1 & 1)) as usize;
    }
    (seconds > 0.0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wav_is_as_long_as_its_data() {
        let mut bytes =
            b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0LIST\x03\0\0\0abc\0"
                .to_vec();
        bytes.extend_from_slice(b"data\x80\x3e\0\0");
        bytes.resize(bytes.len() + 16000, 0);
        assert_eq!(of(&bytes), Some(1.0));
        assert_eq!(of(&bytes[..bytes.len() - 8000]), Some(0.5));
        assert_eq!(of(&bytes[..30]), None);
    }

    #[test]
    fn an_ogg_ends_at_the_position_of_its_last_page() {
        let page = |position: u64, packet: &[u8]| {
            let mut page = b"OggS\0\0".to_vec();
            page.extend_from_slice(&position.to_le_bytes());
            page.resize(27, 0);
            page.extend_from_slice(packet);
            page
        };
        let mut bytes = page(0, b"\x01vorbis\0\0\0\0\x01\x44\xac\0\0");
        bytes.extend(page(66_150, b"sound"));
        assert_eq!(of(&bytes), Some(1.5));
    }

    #[test]
    fn an_mp3_is_as_long_as_its_frames() {
        // MPEG 2.5, layer III, 16 kbit a second, 11 025 Hz: 72 * 16000 / 11025 bytes a frame.
        let mut frame = vec![0xff, 0xe3, 0x20, 0xc0];
        frame.resize(104, 0);
        let bytes = [&b"ID3 junk"[..], &frame.repeat(10)].concat();
        assert_eq!(of(&bytes), Some(5760.0 / 11025.0));
        assert_eq!(of(b"no sound at all"), None);
    }
}
