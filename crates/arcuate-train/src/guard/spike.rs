//! The window of recent losses, and what rises out of it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// With fewer losses than this nothing is a spike: their deviation says too little.
const MIN_LOSSES: usize = 16;
/// The deviation counts as at least this part of the mean, so that a run with steady losses tolerates a small rise.
const MIN_RELATIVE_DEVIATION: f64 = 0.005;
/// And at least this much, so that a run that has learnt its data by heart, with losses near 0, is left alone.
const MIN_DEVIATION: f64 = 0.02;

/// A loss that rises out of its window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spike {
    /// Step (from 0) at which it was seen.
    pub step: u64,
    /// The loss.
    pub loss: f64,
    /// Mean of the window.
    pub mean: f64,
    /// Largest loss that is not a spike.
    pub limit: f64,
    /// Distance from the mean in standard deviations.
    pub sigmas: f64,
}

impl std::fmt::Display for Spike {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { loss, mean, sigmas, .. } = self;
        write!(f, "the loss of {loss:.4} is {sigmas:.1} standard deviations above its recent mean of {mean:.4}")
    }
}

/// Losses of the last steps without spikes.
#[derive(Debug, Clone)]
pub(super) struct Window {
    capacity: usize,
    sigma: f64,
    losses: VecDeque<f64>,
}

impl Window {
    pub(super) fn restore(capacity: usize, sigma: f64, losses: Vec<f64>) -> Self {
        let mut losses: VecDeque<f64> = losses.into_iter().filter(|loss| loss.is_finite()).collect();
        losses.drain(..losses.len().saturating_sub(capacity));
        Self { capacity, sigma, losses }
    }

    /// Compares a loss with the window, and enters it unless it is a spike.
    pub(super) fn judge(&mut self, step: u64, loss: f64) -> Option<Spike> {
        if self.losses.len() >= MIN_LOSSES.min(self.capacity)
            && let Some((mean, deviation)) = self.mean_and_deviation()
        {
            let deviation = deviation.max(MIN_RELATIVE_DEVIATION * mean.abs()).max(MIN_DEVIATION);
            let limit = mean + self.sigma * deviation;
            if loss > limit {
                return Some(Spike { step, loss, mean, limit, sigmas: (loss - mean) / deviation });
            }
        }
        while self.losses.len() >= self.capacity.max(1) {
            self.losses.pop_front();
        }
        self.losses.push_back(loss);
        None
    }

    /// Summed anew each time, oldest first, so that a restored window gives the same bits.
    pub(super) fn mean_and_deviation(&self) -> Option<(f64, f64)> {
        let count = self.losses.len() as f64;
        if self.losses.is_empty() {
            return None;
        }
        let mean = self.losses.iter().sum::<f64>() / count;
        let variance = self.losses.iter().map(|loss| (loss - mean) * (loss - mean)).sum::<f64>() / count;
        Some((mean, variance.sqrt()))
    }

    /// Whether the newer half lies above the older half.
    pub(super) fn is_rising(&self) -> bool {
        let half = self.losses.len() / 2;
        let mean = |losses: &mut dyn Iterator<Item = &f64>| losses.sum::<f64>() / half as f64;
        half > 0 && mean(&mut self.losses.iter().rev().take(half)) > mean(&mut self.losses.iter().take(half))
    }

    pub(super) fn losses(&self) -> Vec<f64> {
        self.losses.iter().copied().collect()
    }

    pub(super) fn len(&self) -> usize {
        self.losses.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window of 32 losses that alternate around 4 by 0.1.
    fn window() -> Window {
        let losses = (0..32).map(|i| if i % 2 == 0 { 3.9 } else { 4.1 }).collect();
        Window::restore(32, 6.0, losses)
    }

    #[test]
    fn six_deviations_are_the_limit() {
        let (mean, deviation) = window().mean_and_deviation().expect("the window is full");
        assert!((mean - 4.0).abs() < 1e-12 && (deviation - 0.1).abs() < 1e-12);
        assert_eq!(window().judge(32, 4.59), None);
        let spike = window().judge(32, 4.61).expect("6.1 deviations");
        assert!((spike.limit - 4.6).abs() < 1e-9 && (spike.sigmas - 6.1).abs() < 1e-9, "{spike:?}");
    }

    #[test]
    fn a_spike_does_not_enter_the_window() {
        let mut window = window();
        let before = window.losses();
        assert!(window.judge(32, 9.0).is_some());
        assert_eq!(window.losses(), before);
        assert_eq!(window.judge(33, 4.0), None);
        assert_eq!((window.len(), window.losses().last()), (32, Some(&4.0)));
    }

    #[test]
    fn a_falling_loss_is_never_a_spike() {
        let mut window = window();
        for (step, loss) in [(32, 1.0), (33, 0.0), (34, -1e300)] {
            assert_eq!(window.judge(step, loss), None);
        }
    }

    #[test]
    fn a_short_window_judges_nothing() {
        let mut window = Window::restore(128, 6.0, vec![4.0; MIN_LOSSES - 1]);
        assert_eq!(window.judge(15, 1000.0), None);
        let mut window = Window::restore(128, 6.0, vec![4.0; MIN_LOSSES]);
        assert!(window.judge(16, 1000.0).is_some());
    }

    #[test]
    fn equal_losses_tolerate_a_rise_of_three_percent() {
        let window = || Window::restore(128, 6.0, vec![4.0; 64]);
        assert_eq!(window().judge(64, 4.11), None);
        assert!(window().judge(64, 4.13).is_some());
    }

    #[test]
    fn losses_near_zero_tolerate_a_small_rise() {
        let window = || Window::restore(128, 6.0, vec![1e-4; 64]);
        assert_eq!(window().judge(64, 0.1), None);
        assert!(window().judge(64, 0.2).is_some());
    }

    #[test]
    fn huge_losses_do_not_break_the_numbers() {
        let mut window = Window::restore(32, 6.0, vec![f64::MAX; 32]);
        assert_eq!(window.judge(0, f64::MAX), None);
    }

    #[test]
    fn a_shorter_window_keeps_the_newest_losses() {
        let window = Window::restore(3, 6.0, vec![1.0, 2.0, f64::NAN, 3.0, 4.0]);
        assert_eq!(window.losses(), [2.0, 3.0, 4.0]);
    }
}
