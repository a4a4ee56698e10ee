//! Rows of a table by index.
// N indices, V rows, C channels

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use burn_flex::FlexTensor;

use crate::cpu::gemm::buffer;
use crate::tape::{Kernel, apply, cpu_tensor, dims, numbers, tensor};

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
        for (row, id) in out.chunks_exact_mut(c).zip(self.ids_n.iter()) {
            let start = *id as usize * c;
            row.copy_from_slice(&numbers(&table)[start..start + c]);
        }
        (tensor(&[self.ids_n.len(), c], out), (v, c))
    }

    fn backward(&self, (v, c): Self::Saved, grad: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        let mut out = buffer(v * c);
        for (row, id) in numbers(&grad).chunks_exact(c).zip(self.ids_n.iter()) {
            if Some(*id) == self.constant {
                continue;
            }
            let start = *id as usize * c;
            for (out, x) in out[start..start + c].iter_mut().zip(row) {
                *out += x;
            }
        }
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
