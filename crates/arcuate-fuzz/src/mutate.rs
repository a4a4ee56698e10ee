//! Damage that looks random and is the same for a seed.

/// Longest input that is made.
const MAX_BYTES: usize = 1 << 20;
/// Numbers at which readers err.
const NUMBERS: [u64; 10] =
    [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, 0x7fff_ffff_ffff_ffff, 0xffff_ffff_ffff_ffff];
/// Bytes that mean something to readers of text.
const MARKS: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"\t",
    b"\0",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"<",
    b"&",
    b"..",
    b"/",
    b"|",
    b"-",
    b"1e999",
    b"nan",
    b"-1",
    b"\xff",
    b"\xe2\x80\xa8",
    b"99999999999999999999",
];

/// Makes inputs from seeds, one after the other.
#[derive(Debug)]
pub struct Mutator {
    state: u64,
    seeds: Vec<Vec<u8>>,
}

impl Mutator {
    /// Equal seeds and inputs give equal sequences.
    pub fn new(seed: u64, seeds: Vec<Vec<u8>>) -> Self {
        Self { state: seed, seeds }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// A seed with up to eight places damaged; half of the damage is near its begin, where headers are.
    pub fn next_input(&mut self) -> Vec<u8> {
        let seed = self.below(self.seeds.len());
        let mut bytes = self.seeds.get(seed).cloned().unwrap_or_default();
        for _ in 0..1 + self.below(8) {
            let near = if self.below(2) == 0 { bytes.len().min(256) } else { bytes.len() };
            let at = self.below(near);
            self.damage(&mut bytes, at);
        }
        bytes.truncate(MAX_BYTES);
        bytes
    }

    fn damage(&mut self, bytes: &mut Vec<u8>, at: usize) {
        let end = (at + 1 + self.below(64)).min(bytes.len());
        match self.below(8) {
            0 => {
                let value = self.below(256) as u8;
                bytes[at..].iter_mut().take(1).for_each(|byte| *byte = value);
            }
            1 => {
                let bit = 1 << self.below(8);
                bytes[at..].iter_mut().take(1).for_each(|byte| *byte ^= bit);
            }
            2 if self.below(4) == 0 => bytes.truncate(at),
            3 => {
                bytes.drain(at..end);
            }
            4 => {
                let copy = bytes[at..end].to_vec();
                let times = 1 + self.below(4);
                (0..times).for_each(|_| drop(bytes.splice(at..at, copy.iter().copied())));
            }
            5 => {
                let mark = MARKS[self.below(MARKS.len())];
                bytes.splice(at..at, mark.iter().copied());
            }
            6 => {
                // A number in place of another, of any width and order.
                let (number, width) = (NUMBERS[self.below(NUMBERS.len())], 1 << self.below(4));
                let little = number.to_le_bytes();
                let mut number = little[..width].to_vec();
                if self.below(2) == 0 {
                    number.reverse();
                }
                bytes[at..].iter_mut().zip(number).for_each(|(byte, new)| *byte = new);
            }
            _ => {
                // A stretch of another seed.
                let other = self.below(self.seeds.len());
                let Some(other) = self.seeds.get(other).cloned() else { return };
                let from = self.below(other.len());
                let until = (from + self.below(512)).min(other.len());
                bytes.splice(at..end, other[from..until].iter().copied());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_inputs() {
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, vec![b"one seed".to_vec(), vec![0; 1000], Vec::new()]);
            (0..200).map(|_| mutator.next_input()).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let lengths: std::collections::BTreeSet<usize> = inputs(3).iter().map(Vec::len).collect();
        assert!(lengths.len() > 20, "{lengths:?}");
    }
}
