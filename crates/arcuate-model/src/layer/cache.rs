//! Keys and values of the tokens seen so far, for generation.

use arcuate_ops::place::place;
use burn::tensor::Tensor;

/// Places for which memory is taken at first; it doubles when they are used up.
const FIRST_PLACES: usize = 64;

/// Keys and values per layer: `[B, K, G*H]` each, with room for more tokens than are held.
///
/// The tokens of every row begin at place 0; rows may hold different numbers of them.
#[derive(Debug, Clone, Default)]
pub struct KvCache {
    layers: Vec<Layer>,
    lengths_b: Vec<usize>,
}

#[derive(Debug, Clone, Default)]
struct Layer {
    keys_bkc: Option<Tensor<3>>,
    values_bkc: Option<Tensor<3>>,
}

impl KvCache {
    /// An empty cache for so many rows.
    pub fn new(num_rows: usize) -> Self {
        Self { layers: Vec::new(), lengths_b: vec![0; num_rows] }
    }

    /// Tokens held by each row.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths_b
    }

    /// Keeps these rows, in this order, and forgets the others.
    pub fn keep(&mut self, rows: &[usize]) {
        let select = |x: Tensor<3>| Tensor::cat(rows.iter().map(|row| x.clone().narrow(0, *row, 1)).collect(), 0);
        if rows.is_empty() {
            self.layers.clear();
        }
        for held in self.layers.iter_mut().flat_map(|layer| [&mut layer.keys_bkc, &mut layer.values_bkc]) {
            *held = held.take().map(select);
        }
        self.lengths_b = rows.iter().map(|row| self.lengths_b[*row]).collect();
    }

    /// Writes the keys and values `[B, T, G*H]` of new tokens behind those of a layer and gives all places back.
    ///
    /// Places behind the last token of a row hold nothing of use; the ranges of the attention must leave them out.
    pub(crate) fn append(&mut self, layer: usize, keys: Tensor<3>, values: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        if self.layers.len() == layer {
            self.layers.push(Layer::default());
        }
        let needed = self.lengths_b.iter().max().copied().unwrap_or(0) + keys.dims()[1];
        let write = |held: &mut Option<Tensor<3>>, new: Tensor<3>| {
            // Taken out while it is written: a second handle would make it a copy.
            let own = with_room(held.take(), needed, &new);
            let written = place(own, new, &self.lengths_b);
            *held = Some(written.clone());
            written
        };
        let held = &mut self.layers[layer];
        (write(&mut held.keys_bkc, keys), write(&mut held.values_bkc, values))
    }

    /// Counts the tokens that were appended to every layer; what was appended behind them does not count.
    pub(crate) fn advance(&mut self, counts_b: &[usize]) {
        for (length, count) in self.lengths_b.iter_mut().zip(counts_b) {
            *length += count;
        }
    }
}

/// What is held, with room for at least `places` of the rows and channels of `new`.
fn with_room(held: Option<Tensor<3>>, places: usize, new: &Tensor<3>) -> Tensor<3> {
    let room = held.as_ref().map_or(0, |held| held.dims()[1]);
    match held {
        Some(held) if places <= room => held,
        held => {
            let [b, _, channels] = new.dims();
            let larger = Tensor::zeros([b, places.max(FIRST_PLACES).max(2 * room), channels], &new.device());
            match held {
                Some(held) => place(larger, held, &vec![0; b]),
                None => larger,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_ops::gradcheck::{random, values};

    #[test]
    fn rows_of_different_length_are_written_behind_their_own_past() {
        let mut cache = KvCache::new(2);
        let (first, second) = (random([2, 3, 2], 1), random([2, 1, 2], 2));
        cache.append(0, first.clone(), first.clone());
        cache.advance(&[3, 1]);
        let (keys, same) = cache.append(0, second.clone(), second.clone());
        cache.advance(&[1, 1]);
        assert_eq!(cache.lengths(), [4, 2]);
        assert_eq!(values(keys.clone()), values(same));
        let row = |x: &Tensor<3>, row, from, len| values(x.clone().narrow(0, row, 1).narrow(1, from, len));
        assert_eq!(row(&keys, 0, 0, 3), row(&first, 0, 0, 3));
        assert_eq!(row(&keys, 0, 3, 1), row(&second, 0, 0, 1));
        assert_eq!(row(&keys, 1, 0, 1), row(&first, 1, 0, 1));
        assert_eq!(row(&keys, 1, 1, 1), row(&second, 1, 0, 1));
    }

    #[test]
    fn growing_keeps_what_is_held() {
        let mut cache = KvCache::new(1);
        let all = random([1, 3 * FIRST_PLACES, 2], 1);
        for at in 0..3 * FIRST_PLACES {
            let one = all.clone().narrow(1, at, 1);
            cache.append(0, one.clone(), one);
            cache.advance(&[1]);
        }
        let (keys, _) = cache.append(0, random([1, 1, 2], 2), random([1, 1, 2], 2));
        assert_eq!(values(keys.narrow(1, 0, 3 * FIRST_PLACES)), values(all));
    }

    #[test]
    fn kept_rows_keep_their_tokens_and_lengths() {
        let mut cache = KvCache::new(3);
        let new = random([3, 2, 2], 1);
        cache.append(0, new.clone(), new.clone());
        cache.advance(&[1, 2, 2]);
        cache.keep(&[2, 0]);
        assert_eq!(cache.lengths(), [2, 1]);
        let one = random([2, 1, 2], 2);
        let (keys, _) = cache.append(0, one.clone(), one);
        assert_eq!(values(keys.narrow(0, 0, 1).narrow(1, 0, 2)), values(new.narrow(0, 2, 1)));
        cache.keep(&[]);
        assert!(cache.lengths().is_empty());
    }
}
