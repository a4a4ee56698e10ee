//! Sines of positions as SpeechT5 has them: half of the channels sines, half cosines, and none for padding.

/// Positions of tokens in rows of `len`: one more than that of the token before, beginning behind `pad`; padding has the
/// position `pad` and is not counted.
pub(super) fn positions(ids: &[i32], len: usize, pad: u32) -> Vec<u32> {
    let mut positions = Vec::with_capacity(ids.len());
    for row in ids.chunks(len.max(1)) {
        let mut last = pad;
        for id in row {
            let counts = *id != pad as i32;
            last += u32::from(counts);
            positions.push(if counts { last } else { pad });
        }
    }
    positions
}

/// Sines and cosines of positions `[N, C]`; zeros where the position is `pad`, and in the last of an odd number of channels.
pub(super) fn sines(positions: &[u32], width: usize, pad: u32) -> Vec<f32> {
    let half = width / 2;
    // As published, angles are computed in f32; the difference shows where positions are large.
    let slope = -(10_000f64.ln() / (half as f64 - 1.0)) as f32;
    let rates: Vec<f32> = (0..half).map(|i| (i as f32 * slope).exp()).collect();
    let mut all = vec![0.0; positions.len() * width];
    for (row, position) in all.chunks_mut(width.max(1)).zip(positions).filter(|(_, position)| **position != pad) {
        for (i, rate) in rates.iter().enumerate() {
            (row[half + i], row[i]) = ((*position as f32 * rate).cos(), (*position as f32 * rate).sin());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_counted_behind_the_padding_token_and_padding_is_not() {
        assert_eq!(positions(&[2, 7, 1, 8, 1, 1, 2, 9], 4, 1), [2, 3, 1, 4, 1, 1, 2, 3]);
        // Where the padding token is 0, what stands for frames is all padding; as published.
        assert_eq!(positions(&[0, 0, 1], 3, 0), [0, 0, 1]);
        assert!(positions(&[], 3, 1).is_empty());
    }

    #[test]
    fn sines_come_before_cosines_and_an_odd_channel_is_zero() {
        let found = sines(&[1, 3], 5, 1);
        let wanted = [0.0, 0.0, 0.0, 0.0, 0.0, 3f32.sin(), 0.0003f32.sin(), 3f32.cos(), 0.0003f32.cos(), 0.0];
        assert!(found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
    }
}
