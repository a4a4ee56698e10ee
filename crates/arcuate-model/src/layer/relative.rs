//! Attention in which every distance between frames has a learned vector that joins the keys.
//!
//! # What it computes
//! `softmax(q (k + p[i - j])^T * scale) v` per head, with the vectors `p` shared by all heads; what is farther away than the
//! first or last vector takes that one.
//!
//! # Reference
//! Shaw et al. 2018; w2v-BERT 2.0 and SpeechT5 have it
// B rows, Q queries, K keys, N heads, H head channels, R distances

use arcuate_ops::attention::{Attention, attention_relative};
use arcuate_ops::linear::{Layout, linear};
use burn::tensor::Tensor;

/// Attention of `q` `[B, Q, N*H]` over `k` and `v` `[B, K, N*H]`, where query i and key j take row `i + zero - j` of the table
/// `[R, H]`, the first or last where that lies outside.
pub(crate) fn attention_by_distance(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    table: Tensor<2>,
    zero: usize,
    how: &Attention,
) -> Tensor<3> {
    let ([b, t, _], [rows, head], heads) = (q.dims(), table.dims(), how.num_heads);
    // As many products as there are distances, not one for each pair of frames.
    let table = table * f64::from(how.scale);
    let scores = linear(q.clone().reshape([b * t * heads, head]), table, None, Layout::OutIn);
    attention_relative(q, k, v, scores.reshape([b * t, heads, rows]), zero, how)
}

#[cfg(test)]
mod tests {
    use arcuate_ops::gradcheck::{distance, random, values};
    use burn::tensor::Device;

    use super::*;

    const HEADS: usize = 2;
    const HEAD: usize = 3;
    const WIDTH: usize = HEADS * HEAD;

    fn how(b: usize, t: usize, keys: &[u32]) -> Attention {
        let may_attend = (0..b * t).map(|i| [0, keys[i / t]]).collect();
        Attention { num_heads: HEADS, num_kv_heads: HEADS, scale: 0.6, may_attend, dropout: None }
    }

    /// Loops over the definition.
    fn wanted([q, k, v]: [&[f32]; 3], table: &[f32], zero: usize, t: usize, keys: &[u32]) -> Vec<f32> {
        let rows = table.len() / HEAD;
        let mut out = vec![0.0; q.len()];
        for (row, num) in keys.iter().enumerate() {
            for (i, head) in (0..t).flat_map(|i| (0..HEADS).map(move |head| (i, head))) {
                let at = |i: usize| (row * t + i) * WIDTH + head * HEAD;
                let weight = |j: usize| {
                    let place = (i + zero).saturating_sub(j).min(rows - 1);
                    let products = (0..HEAD).map(|h| q[at(i) + h] * (k[at(j) + h] + table[place * HEAD + h]));
                    (products.sum::<f32>() * 0.6).exp()
                };
                let sum: f32 = (0..*num as usize).map(weight).sum();
                for (j, h) in (0..*num as usize).flat_map(|j| (0..HEAD).map(move |h| (j, h))) {
                    out[at(i) + h] += weight(j) / sum * v[at(j) + h];
                }
            }
        }
        out
    }

    #[test]
    fn it_is_what_the_definition_says_also_beyond_the_last_distance() {
        for (t, rows, keys) in [(1, 4, [1, 1]), (5, 4, [5, 3]), (9, 6, [9, 9]), (4, 40, [4, 2])] {
            let x = |seed| random([2, t, WIDTH], seed);
            let table = random([rows, HEAD], 4);
            let found = attention_by_distance(x(1), x(2), x(3), table.clone(), rows / 2, &how(2, t, &keys));
            let (q, k, v) = (values(x(1)), values(x(2)), values(x(3)));
            let wanted = wanted([&q, &k, &v], &values(table), rows / 2, t, &keys);
            assert!(distance(&values(found), &wanted) < 1e-5, "{t} {rows}");
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        let (t, rows, keys) = (7, 4, [7, 5]);
        let device = Device::flex().autodiff();
        let on = |x: Tensor<2>| Tensor::<2>::from_data(x.into_data(), &device).require_grad();
        let inputs: Vec<Tensor<2>> =
            (0..3).map(|i| random([2 * t, WIDTH], 1 + i)).chain([random([rows, HEAD], 4)]).collect();
        let loss = |x: &[Tensor<2>]| {
            let part = |i: usize| x[i].clone().reshape([2, t, WIDTH]);
            let out = attention_by_distance(part(0), part(1), part(2), x[3].clone(), rows / 2, &how(2, t, &keys));
            let toward = Tensor::<3>::from_data(random([2, t, WIDTH], 9).into_data(), &out.device());
            (out * toward).sum()
        };
        let tracked: Vec<Tensor<2>> = inputs.iter().cloned().map(on).collect();
        let grads = loss(&tracked).backward();
        for (i, x) in inputs.iter().enumerate() {
            let grad = values(tracked[i].grad(&grads).expect("on the tape"));
            for at in 0..grad.len() {
                let moved = |by: f32| {
                    let mut all = inputs.clone();
                    let mut data = values(x.clone());
                    data[at] += by;
                    all[i] = Tensor::<1>::from_data(data.as_slice(), &x.device()).reshape(x.dims());
                    f64::from(loss(&all).into_scalar::<f32>())
                };
                let numeric = (moved(1e-2) - moved(-1e-2)) / 2e-2;
                assert!((numeric - f64::from(grad[at])).abs() < 2e-3, "{i} {at}: {numeric} {}", grad[at]);
            }
        }
    }

    #[test]
    fn only_the_distance_counts_and_far_ones_are_alike() {
        // One query of many alike sees keys that are alike: what it reads says which row of the table each key took.
        let (t, rows) = (420, 320);
        let same = |seed| random([1, 1, WIDTH], seed).repeat_dim(1, t);
        let table = random([rows, HEAD], 4);
        let v = Tensor::<1>::from_data(
            (0..t * WIDTH).map(|i| (i / WIDTH) as f32 / t as f32).collect::<Vec<_>>().as_slice(),
            &Device::flex(),
        );
        let v = v.reshape([1, t, WIDTH]);
        let read = |i: usize, keys: [u32; 2]| {
            let mut how = how(1, t, &[t as u32]);
            how.may_attend = vec![keys; t].into();
            let out = attention_by_distance(same(1), same(2), v.clone(), table.clone(), rows / 2, &how);
            values(out.narrow(1, i, 1))
        };
        // Both places shifted by the same amount; values grow evenly, so that the result moves by the shift.
        let (a, b) = (read(100, [95, 103]), read(131, [126, 134]));
        for (a, b) in a.iter().zip(&b) {
            assert!((b - a - 31.0 / t as f32).abs() < 1e-5, "{a} {b}");
        }
        // Keys 200 and 159 earlier take the same vector: among these the weights are equal and the mean is the middle one.
        let found = read(400, [200, 242]);
        assert!(found.iter().all(|x| (x - 220.5 / t as f32).abs() < 1e-5), "{found:?}");
        let nearer = read(400, [200, 243]);
        assert!(nearer.iter().any(|x| (x - 221.0 / t as f32).abs() > 1e-5), "{nearer:?}");
    }
}
