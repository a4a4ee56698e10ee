//! Writing rows into a tensor that has room for them: the keys and values of generation.
//!
//! # What it computes
//! `into[b, starts[b] + t] = rows[b, t]`. The memory of `into` is written in place when no other handle holds it, so
//! a cache grows by one token without copying the past. There is no gradient: only generation uses it.
// B rows, K places, T new places, C channels

use burn::backend::Flex;
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::tape::{contiguous, dims, numbers, untracked};

/// Writes `rows` `[B, T, C]` into `into` `[B, K, C]` from place `starts[b]` of each row on: `[B, K, C]`.
///
/// # Panics
/// When the sizes do not fit; the cache of a network makes room first.
pub fn place(into: Tensor<3>, rows: Tensor<3>, starts: &[usize]) -> Tensor<3> {
    let ([b, k, c], [rows_b, t, rows_c]) = (into.dims(), rows.dims());
    assert!(
        b == rows_b && c == rows_c && b == starts.len() && starts.iter().all(|start| start + t <= k),
        "place: {:?} does not fit {:?} from {starts:?} on",
        rows.dims(),
        into.dims(),
    );
    // A second handle on `into` would prevent writing in place, so where it lives shows in `rows`.
    match untracked(rows.clone()) {
        Some(rows) => {
            let into = into.try_into_primitive::<Flex>().expect("both lie on the CPU, outside of the tape");
            Tensor::from_primitive::<Flex>(in_place(contiguous(into), &contiguous(rows), starts))
        }
        None => place_plain(into, rows, starts),
    }
}

fn in_place(mut into: FlexTensor, rows: &FlexTensor, starts: &[usize]) -> FlexTensor {
    let (k, rows_dims) = (dims(&into)[1], dims(rows));
    let (t, c) = (rows_dims[1], rows_dims[2]);
    // Copies only when another handle holds the memory.
    let out = into.storage_mut::<f32>();
    for (b, start) in starts.iter().enumerate() {
        let at = (b * k + start) * c;
        out[at..at + t * c].copy_from_slice(&numbers(rows)[b * t * c..(b + 1) * t * c]);
    }
    into
}

/// The plain composition of `place`.
pub fn place_plain(into: Tensor<3>, rows: Tensor<3>, starts: &[usize]) -> Tensor<3> {
    let [_, t, c] = rows.dims();
    starts.iter().enumerate().fold(into, |into, (b, start)| {
        into.slice_assign([b..b + 1, *start..start + t, 0..c], rows.clone().narrow(0, b, 1))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{random, values};

    #[test]
    fn agrees_with_plain_composition() {
        for (b, k, t, c) in [(1, 1, 1, 1), (3, 9, 2, 5), (2, 4, 4, 3), (2, 4, 0, 3), (0, 4, 1, 3)] {
            let starts: Vec<usize> = (0..b).map(|row| (row * 3) % (k - t + 1)).collect();
            let (into, rows) = (random([b, k, c], 1), random([b, t, c], 2));
            let plain = values(place_plain(into.clone(), rows.clone(), &starts));
            assert_eq!(values(place(into, rows, &starts)), plain);
        }
    }

    #[test]
    fn other_handles_keep_their_numbers() {
        let into = random([2, 4, 3], 1);
        let before = values(into.clone());
        let kept = into.clone();
        place(into, random([2, 1, 3], 2), &[0, 3]);
        assert_eq!(values(kept), before);
    }

    #[test]
    fn memory_that_nobody_else_holds_is_written_in_place() {
        let into = place(random([2, 4, 3], 1), random([2, 1, 3], 2), &[0, 1]);
        let address = |x: &Tensor<3>| {
            let flex = x.clone().try_into_primitive::<Flex>().expect("on the CPU");
            numbers(&flex).as_ptr() as usize
        };
        let before = address(&into);
        let after = place(into, random([2, 1, 3], 3), &[2, 2]);
        assert_eq!(before, address(&after));
    }

    #[test]
    fn views_are_read_correctly() {
        let (into, rows) = (random([4, 2, 3], 1).swap_dims(0, 1), random([2, 3, 2], 2).swap_dims(1, 2));
        let plain = values(place_plain(into.clone(), rows.clone(), &[1, 2]));
        assert_eq!(values(place(into, rows, &[1, 2])), plain);
    }
}
