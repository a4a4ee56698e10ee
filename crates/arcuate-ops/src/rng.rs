//! Named random streams and keyed permutations: the only source of randomness in the program.
//!
//! # What it computes
//! A stream is derived from (seed, purpose, step, item) by a BLAKE3 hash that seeds xoshiro256++; nothing is global,
//! so a run draws the same numbers on any number of threads or processes, and from any point of a resume.
//! Where an operation needs a number per element, `Blocks` gives the numbers of any block of elements on its own: many
//! generators side by side, whose states are SplitMix64 of the name's hash and the block's index.
//! A permutation is a balanced Feistel network with cycle walking: position `i` of epoch `e` without a shuffle buffer.
//!
//! # Reference
//! Blackman and Vigna 2018 (xoshiro256++); Steele et al. 2014 (SplitMix64); Black and Rogaway 2002 (cycle walking on a Feistel network).

fn derive(seed: u64, purpose: &str, step: u64, item: u64) -> [u64; 4] {
    let mut hasher = blake3::Hasher::new();
    for part in [seed, step, item] {
        hasher.update(&part.to_le_bytes());
    }
    hasher.update(purpose.as_bytes());
    let hash = hasher.finalize();
    let word = |i: usize| {
        let mut bytes = [0u8; 8];
        bytes.copy_from_slice(&hash.as_bytes()[i * 8..i * 8 + 8]);
        u64::from_le_bytes(bytes)
    };
    [word(0), word(1), word(2), word(3)]
}

/// A stream of random numbers with a name: (seed, purpose, step, item).
#[derive(Debug, Clone)]
pub struct Stream {
    state: [u64; 4],
}

impl Stream {
    /// The stream of `purpose` for one `item` of one `step` of the run with `seed`.
    pub fn new(seed: u64, purpose: &str, step: u64, item: u64) -> Self {
        let mut state = derive(seed, purpose, step, item);
        if state == [0; 4] {
            state[0] = 1;
        }
        Self { state }
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// A number in [0, 1) with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// An integer in [0, n) without bias; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let limit = u64::MAX - u64::MAX % n;
        loop {
            let draw = self.next_u64();
            if draw < limit {
                return draw % n;
            }
        }
    }

    /// A standard normal number (Box and Muller, one of the pair).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

/// Generators of a block: enough that compilers make vector code of the loop over them.
const LANES: usize = 32;

/// 32 random bits per element of a tensor, by blocks of `Blocks::LEN` elements that need nothing of each other.
#[derive(Debug, Clone)]
pub struct Blocks {
    key: [u64; 4],
}

impl Blocks {
    /// Elements of a block.
    pub const LEN: usize = 1 << 14;

    /// The numbers of `purpose` for one `item` of one `step` of the run with `seed`.
    pub fn new(seed: u64, purpose: &str, step: u64, item: u64) -> Self {
        Self { key: derive(seed, purpose, step, item) }
    }

    /// The generators of one block: word, then lane.
    pub(crate) fn lanes(&self, block: u64) -> Lanes {
        let word = |w: usize, lane: usize| {
            let count = block.wrapping_mul(LANES as u64).wrapping_add(lane as u64 + 1);
            let mut x = self.key[w].wrapping_add(count.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^ (x >> 31)
        };
        Lanes(std::array::from_fn(|w| std::array::from_fn(|lane| word(w, lane))))
    }
}

/// Generators side by side.
#[derive(Clone)]
pub(crate) struct Lanes([[u64; LANES]; 4]);

impl Lanes {
    /// Elements that one draw serves.
    pub(crate) const DRAW: usize = 2 * LANES;

    /// Bits for the next elements: low halves, then high halves.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> [u32; Self::DRAW] {
        let Self([a, b, c, d]) = self;
        let mut out = [0; Self::DRAW];
        for i in 0..LANES {
            let bits = a[i].wrapping_add(d[i]).rotate_left(23).wrapping_add(a[i]);
            let t = b[i] << 17;
            c[i] ^= a[i];
            d[i] ^= b[i];
            b[i] ^= c[i];
            a[i] ^= d[i];
            c[i] ^= t;
            d[i] = d[i].rotate_left(45);
            out[i] = bits as u32;
            out[i + LANES] = (bits >> 32) as u32;
        }
        out
    }
}

const ROUNDS: usize = 6;

/// A keyed permutation of `0..len`, evaluated at one position in constant expected time.
#[derive(Debug, Clone)]
pub struct Permutation {
    keys: [u64; ROUNDS],
    half_bits: u32,
    len: u64,
}

impl Permutation {
    /// The order of `purpose` in `epoch` of the run with `seed`, over `len` items.
    pub fn new(seed: u64, purpose: &str, epoch: u64, len: u64) -> Self {
        let mut stream = Stream::new(seed, purpose, epoch, len);
        let bits = 64 - len.saturating_sub(1).leading_zeros();
        Self { keys: std::array::from_fn(|_| stream.next_u64()), half_bits: bits.div_ceil(2).max(1), len }
    }

    /// Which item stands at position `i`. Positions at or past the length map to themselves.
    pub fn at(&self, i: u64) -> u64 {
        if i >= self.len {
            return i;
        }
        let mut x = i;
        loop {
            x = self.encrypt(x);
            if x < self.len {
                return x;
            }
        }
    }

    fn encrypt(&self, x: u64) -> u64 {
        let mask = if self.half_bits >= 32 { u64::from(u32::MAX) } else { (1 << self.half_bits) - 1 };
        let (mut left, mut right) = (x >> self.half_bits, x & mask);
        for key in self.keys {
            let mut mixed = (right ^ key).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
            mixed ^= mixed >> 32;
            (left, right) = (right, left ^ (mixed & mask));
        }
        (left << self.half_bits) | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_name_gives_same_numbers_and_other_names_do_not() {
        let draw = |seed, purpose, step, item| Stream::new(seed, purpose, step, item).next_u64();
        assert_eq!(draw(1, "mask", 2, 3), draw(1, "mask", 2, 3));
        for other in [draw(2, "mask", 2, 3), draw(1, "order", 2, 3), draw(1, "mask", 3, 3), draw(1, "mask", 2, 4)] {
            assert_ne!(draw(1, "mask", 2, 3), other);
        }
    }

    #[test]
    fn uniform_has_the_right_mean_and_variance() {
        let mut s = Stream::new(7, "test", 0, 0);
        let xs: Vec<f64> = (0..20_000).map(|_| s.uniform()).collect();
        let mean = xs.iter().sum::<f64>() / xs.len() as f64;
        let variance = xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / xs.len() as f64;
        assert!((mean - 0.5).abs() < 0.01 && (variance - 1.0 / 12.0).abs() < 0.005);
        assert!(xs.iter().all(|x| (0.0..1.0).contains(x)));
    }

    #[test]
    fn normal_has_unit_variance() {
        let mut s = Stream::new(7, "test", 0, 1);
        let xs: Vec<f64> = (0..20_000).map(|_| s.normal()).collect();
        let mean = xs.iter().sum::<f64>() / xs.len() as f64;
        let variance = xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / xs.len() as f64;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05);
    }

    #[test]
    fn below_stays_below_and_reaches_everything() {
        let mut s = Stream::new(1, "test", 0, 0);
        let mut seen = [false; 7];
        for _ in 0..500 {
            seen[s.below(7) as usize] = true;
        }
        assert!(seen.iter().all(|x| *x));
        assert_eq!(s.below(0), 0);
    }

    #[test]
    fn lanes_of_a_block_are_streams_of_their_own() {
        let blocks = Blocks::new(7, "test", 1, 2);
        let mut lanes = blocks.lanes(3);
        let mut streams: Vec<Stream> =
            (0..LANES).map(|lane| Stream { state: std::array::from_fn(|w| lanes.0[w][lane]) }).collect();
        for _ in 0..100 {
            let ours = lanes.next();
            for (lane, stream) in streams.iter_mut().enumerate() {
                let bits = stream.next_u64();
                assert_eq!((ours[lane], ours[lane + LANES]), (bits as u32, (bits >> 32) as u32));
            }
        }
    }

    #[test]
    fn blocks_and_names_differ_and_bits_are_even() {
        let first = |seed, step, item, block| Blocks::new(seed, "test", step, item).lanes(block).next();
        for other in [first(2, 2, 3, 4), first(1, 3, 3, 4), first(1, 2, 4, 4), first(1, 2, 3, 5)] {
            assert!(first(1, 2, 3, 4).iter().zip(other).all(|(x, y)| *x != y));
        }
        let mut counts = [0u32; 32];
        for block in 0..50 {
            let mut lanes = Blocks::new(1, "test", 0, 0).lanes(block);
            for bits in (0..5).flat_map(|_| lanes.next()) {
                (0..32).for_each(|i| counts[i] += (bits >> i) & 1);
            }
        }
        assert!(counts.iter().all(|n| n.abs_diff(8000) < 320), "{counts:?}");
    }

    #[test]
    fn every_length_is_permuted_without_repeats() {
        for len in [1u64, 2, 3, 4, 5, 16, 17, 1000, 4097] {
            let order = Permutation::new(3, "order", 0, len);
            let mut items: Vec<u64> = (0..len).map(|i| order.at(i)).collect();
            items.sort_unstable();
            assert_eq!(items, (0..len).collect::<Vec<_>>());
        }
    }

    #[test]
    fn huge_lengths_stay_in_range() {
        let len = u64::MAX / 3;
        let order = Permutation::new(3, "order", 0, len);
        for i in [0, 1, len / 2, len - 1] {
            assert!(order.at(i) < len);
        }
    }

    #[test]
    fn epochs_have_different_orders() {
        let order = |epoch| (0..50).map(|i| Permutation::new(3, "order", epoch, 50).at(i)).collect::<Vec<_>>();
        assert_ne!(order(0), order(1));
    }

    #[test]
    fn neighbours_are_spread() {
        let order = Permutation::new(3, "order", 0, 10_000);
        let close = (0..9_999).filter(|i| order.at(*i).abs_diff(order.at(i + 1)) < 100).count();
        assert!(close < 400, "{close} of 9999 neighbours lie close; about 200 expected");
    }

    #[test]
    fn shuffle_keeps_the_items() {
        let mut items: Vec<u32> = (0..100).collect();
        Stream::new(1, "shuffle", 0, 0).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
