//! Rows of a table by index.
// N indices, V rows, C channels

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::cpu::gemm::{Shared, buffer};
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

/// Rows that one task copies or adds.
const ROWS: usize = 32;

#[derive(Debug, Clone)]
struct Embedding {
    ids_n: Arc<[i32]>,
    constant: Option<i32>,
}

impl Kernel<1> for Embedding {
    type Saved = (usize, usize);

    fn forward(&self, [table]: [FlexTensor; 1]) -> (FlexTensor, Self::Saved) {
        let [v, c] = [dims(&table)[0], dims(&table)[1]];
        let mut out = buffer(self.ids_n.len() * c);
        let rows = numbers(&table);
        out.par_chunks_mut((ROWS * c).max(1)).zip(self.ids_n.par_chunks(ROWS)).for_each(|(out, ids)| {
            for (out, id) in out.chunks_exact_mut(c).zip(ids) {
                out.copy_from_slice(&rows[*id as usize * c..][..c]);
            }
        });
        (tensor(&[self.ids_n.len(), c], out), (v, c))
    }

    fn backward(&self, (v, c): Self::Saved, grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        // Pages of rows without an index are never touched here: fresh zeros cost nothing until they are read.
        let mut out = buffer(v * c);
        let shared = Shared::new(&mut out);
        let mut order: Vec<(i32, u32)> = (self.ids_n.iter().copied().zip(0..)).collect();
        order.retain(|(id, _)| Some(*id) != self.constant);
        order.sort_unstable();
        let rows: Vec<&[(i32, u32)]> = order.chunk_by(|a, b| a.0 == b.0).collect();
        rows.par_chunks(ROWS).for_each(|rows| {
            for places in rows {
                // SAFETY: all places of one index lie in one chunk, so one task writes this row.
                #[allow(unsafe_code)]
                let out = unsafe { shared.slice(places[0].0 as usize * c, c) };
                for (_, place) in *places {
                    for (out, x) in out.iter_mut().zip(&numbers(&grad)[*place as usize * c..]) {
                        *out += x;
                    }
                }
            }
        });
        [Some(tensor(&[v, c], out))]
    }
}

/// Rows `ids` of `table` `[V, C]`: `[N, C]`. The row `constant` gets no gradient: the filler of padded batches in published models.
///
/// # Panics
/// When an index is negative or not below V; batches are checked against the model before training.
pub fn embedding(table: Tensor<2>, ids: &Arc<[i32]>, constant: Option<i32>) -> Tensor<2> {
    let v = table.dims()[0];
    assert!(ids.iter().all(|id| usize::try_from(*id).is_ok_and(|id| id < v)), "an index is outside of a table of {v}");
    apply(Embedding { ids_n: ids.clone(), constant }, [cpu_tensor(table.clone())])
        .unwrap_or_else(|| embedding_plain(table, ids, constant))
}

/// The plain composition of `embedding`.
pub fn embedding_plain(table: Tensor<2>, ids: &Arc<[i32]>, constant: Option<i32>) -> Tensor<2> {
    let device = table.device();
    let rows = |ids: &[i32]| Tensor::<1, Int>::from_data(TensorData::new(ids.to_vec(), [ids.len()]), &device);
    let rows = table.select(0, rows(ids));
    if constant.is_none() {
        return rows;
    }
    let moves: Vec<f32> = ids.iter().map(|id| if Some(*id) == constant { 0.0 } else { 1.0 }).collect();
    let moves = Tensor::<2>::from_data(TensorData::new(moves, [ids.len(), 1]), &device);
    rows.clone() * moves.clone() + rows.detach() * (moves * -1.0 + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{agrees, random};

    #[test]
    fn agrees_with_plain_composition() {
        let ids: Arc<[i32]> = vec![0, 3, 3, 1, 6].into();
        for constant in [None, Some(3)] {
            agrees(
                (random([7, 5], 1), random([1], 2), random([1], 3)),
                |(t, _, _)| embedding(t, &ids, constant),
                |(t, _, _)| embedding_plain(t, &ids, constant),
            );
        }
    }
}
