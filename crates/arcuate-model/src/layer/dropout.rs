//! Dropout with masks from named random numbers.

use arcuate_ops::rng::Stream;
use arcuate_ops::{attention, dropout as ops};
use burn::tensor::Tensor;

/// The name of the masks of one forward pass; every layer has a site of its own.
#[derive(Debug, Clone)]
pub struct Dropout {
    /// Seed of the run.
    pub seed: u64,
    /// Microbatch counter of the run.
    pub step: u64,
}

/// Zeroes elements with the given probability and scales the rest up; nothing happens without a name.
pub(crate) fn dropout<const D: usize>(x: Tensor<D>, probability: f64, site: u64, name: Option<&Dropout>) -> Tensor<D> {
    match name {
        Some(Dropout { seed, step }) => ops::dropout(x, &ops::Dropout { seed: *seed, step: *step, site, probability }),
        None => x,
    }
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
