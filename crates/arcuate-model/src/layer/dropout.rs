//! Dropout with masks from named random streams.

use arcuate_ops::attention;
use arcuate_ops::rng::Stream;
use burn::tensor::{Tensor, TensorData};

/// The named stream that masks of one forward pass come from; every layer takes its own item.
#[derive(Debug, Clone)]
pub struct Dropout {
    /// Seed of the run.
    pub seed: u64,
    /// Microbatch counter of the run.
    pub step: u64,
}

/// Zeroes elements with the given probability and scales the rest up; nothing happens without a stream.
pub(crate) fn dropout<const D: usize>(
    x: Tensor<D>,
    probability: f64,
    site: u64,
    stream: Option<&Dropout>,
) -> Tensor<D> {
    let Some(name) = stream.filter(|_| probability > 0.0) else { return x };
    let mut stream = Stream::new(name.seed, "dropout", name.step, site);
    let keep = 1.0 / (1.0 - probability) as f32;
    let threshold = (probability * f64::from(u32::MAX)) as u32;
    let shape = x.dims();
    let len: usize = shape.iter().product();
    let mut mask = Vec::with_capacity(len + 1);
    while mask.len() < len {
        let bits = stream.next_u64();
        mask.push(if (bits as u32) < threshold { 0.0 } else { keep });
        mask.push(if ((bits >> 32) as u32) < threshold { 0.0 } else { keep });
    }
    mask.truncate(len);
    let mask = Tensor::from_data(TensorData::new(mask, shape), &x.device());
    x * mask
}

/// Dropout of one layer's attention probabilities; none without a stream.
pub(crate) fn attention_dropout(probability: f64, layer: u64, stream: Option<&Dropout>) -> Option<attention::Dropout> {
    let name = stream.filter(|_| probability > 0.0)?;
    let key = Stream::new(name.seed, "attention dropout", name.step, layer).next_u64();
    Some(attention::Dropout { probability, key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_ops::gradcheck::{random, values};

    #[test]
    fn keeps_the_mean_and_repeats_for_the_same_name() {
        let ones = || random([100, 101], 1) * 0.0 + 1.0;
        let name = Dropout { seed: 1, step: 2 };
        let a = values(dropout(ones(), 0.25, 3, Some(&name)));
        let mean = a.iter().sum::<f32>() / a.len() as f32;
        assert!((mean - 1.0).abs() < 0.02);
        assert_eq!(a, values(dropout(ones(), 0.25, 3, Some(&name))));
        assert_ne!(a, values(dropout(ones(), 0.25, 4, Some(&name))));
    }

    #[test]
    fn layers_and_steps_drop_different_attention_probabilities() {
        let key = |step, layer| attention_dropout(0.1, layer, Some(&Dropout { seed: 1, step })).map(|d| d.key);
        assert_eq!(key(2, 3), key(2, 3));
        assert!(key(2, 3) != key(2, 4) && key(2, 3) != key(3, 3));
        assert!(attention_dropout(0.1, 0, None).is_none());
    }

    #[test]
    fn nothing_happens_in_evaluation() {
        assert_eq!(values(dropout(random([3], 1), 0.5, 0, None)), values(random([3], 1)));
    }
}
