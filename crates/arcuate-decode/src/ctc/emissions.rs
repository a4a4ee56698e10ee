//! What a CTC network says about each frame.
// T frames, V tokens

use std::borrow::Cow;

use crate::{Error, Result};

/// How far the probabilities of a frame may sum from one.
const TOLERANCE: f64 = 1e-3;

/// Log-probabilities, `[T, V]` row by row; no NaN, no plus infinity, every row sums to one.
#[derive(Debug, Clone)]
pub struct Emissions<'a> {
    log_probs_tv: Cow<'a, [f32]>,
    width: usize,
}

impl<'a> Emissions<'a> {
    /// Takes natural log-probabilities as they are.
    ///
    /// # Errors
    /// A length that is no multiple of the width, a value that is NaN or above zero by more than rounding, a frame
    /// whose probabilities differ from one by more than 0.001 in sum.
    pub fn from_log_probs(log_probs_tv: &'a [f32], width: usize) -> Result<Self> {
        check_length(log_probs_tv, width)?;
        for (frame, row) in log_probs_tv.chunks_exact(width).enumerate() {
            check_row(frame, row)?;
            let sum: f64 = row.iter().map(|value| f64::from(value.exp())).sum();
            if (sum - 1.0).abs() > TOLERANCE {
                return Err(Error::NotNormalised { frame, sum });
            }
        }
        Ok(Self { log_probs_tv: Cow::Borrowed(log_probs_tv), width })
    }

    /// Normalises logits by a log-softmax over every frame.
    ///
    /// # Errors
    /// As [`Emissions::from_log_probs`]; also a frame without a finite logit.
    pub fn from_logits(logits_tv: &[f32], width: usize) -> Result<Emissions<'static>> {
        check_length(logits_tv, width)?;
        let mut log_probs_tv = logits_tv.to_vec();
        for (frame, row) in log_probs_tv.chunks_exact_mut(width).enumerate() {
            check_row(frame, row)?;
            let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            if max == f32::NEG_INFINITY {
                return Err(Error::NotNormalised { frame, sum: 0.0 });
            }
            let sum: f32 = row.iter().map(|value| (value - max).exp()).sum();
            let log_sum = max + sum.ln();
            row.iter_mut().for_each(|value| *value -= log_sum);
        }
        Ok(Emissions { log_probs_tv: Cow::Owned(log_probs_tv), width })
    }

    /// How many frames.
    pub fn num_frames(&self) -> usize {
        self.log_probs_tv.len() / self.width
    }

    /// How many tokens a frame tells of.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The frames in order.
    pub fn frames(&self) -> impl Iterator<Item = &[f32]> {
        self.log_probs_tv.chunks_exact(self.width)
    }

    /// Refuses another number of tokens.
    pub(super) fn check_width(&self, num_tokens: usize) -> Result<()> {
        if self.width == num_tokens { Ok(()) } else { Err(Error::Width { width: self.width, num_tokens }) }
    }
}

fn check_length(values: &[f32], width: usize) -> Result<()> {
    if width > 0 && values.len().is_multiple_of(width) {
        return Ok(());
    }
    Err(Error::Frames { num_values: values.len(), width })
}

fn check_row(frame: usize, row: &[f32]) -> Result<()> {
    match row.iter().position(|value| value.is_nan() || *value == f32::INFINITY) {
        Some(token) => Err(Error::Emission { frame, token, value: row[token] }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_become_log_probabilities() {
        let emissions = Emissions::from_logits(&[1.0, 1.0, 3.0, f32::NEG_INFINITY], 2).expect("fine");
        let rows: Vec<&[f32]> = emissions.frames().collect();
        assert_eq!(rows.len(), 2);
        assert!((rows[0][0] - 0.5_f32.ln()).abs() < 1e-6 && (rows[0][1] - 0.5_f32.ln()).abs() < 1e-6);
        assert_eq!(rows[1], [0.0, f32::NEG_INFINITY]);
    }

    #[test]
    fn log_probabilities_must_sum_to_one_in_every_frame() {
        let half = 0.5_f32.ln();
        assert_eq!(Emissions::from_log_probs(&[half, half], 2).expect("fine").num_frames(), 1);
        let error = Emissions::from_log_probs(&[half, half, half, -3.0], 2).expect_err("does not sum to one");
        assert_eq!(error.to_string(), "the probabilities of frame 1 sum to 0.549787, not to 1; are these logits?");
    }

    #[test]
    fn values_that_are_no_numbers_are_refused_with_their_place() {
        for bad in [f32::NAN, f32::INFINITY] {
            let values = [0.0, 0.0, 0.0, bad];
            for error in [Emissions::from_logits(&values, 2), Emissions::from_log_probs(&values[2..], 2)] {
                let error = error.expect_err("bad").to_string();
                assert!(error.contains("token 1") && error.contains(&bad.to_string()), "{error}");
            }
        }
        let none = Emissions::from_logits(&[f32::NEG_INFINITY; 2], 2).expect_err("no logit");
        assert!(none.to_string().contains("frame 0"), "{none}");
    }

    #[test]
    fn a_length_that_fits_no_width_is_refused_and_no_frames_are_fine() {
        let error = Emissions::from_logits(&[0.0; 5], 2).expect_err("half a frame").to_string();
        assert!(error.contains('5') && error.contains('2'), "{error}");
        assert!(Emissions::from_logits(&[], 0).is_err());
        assert_eq!(Emissions::from_logits(&[], 3).expect("empty").num_frames(), 0);
    }

    #[test]
    fn another_width_is_an_error_with_both_numbers() {
        let emissions = Emissions::from_logits(&[0.0; 6], 3).expect("fine");
        assert!(emissions.check_width(3).is_ok());
        let error = emissions.check_width(4).expect_err("differs").to_string();
        assert!(error.contains('3') && error.contains('4'), "{error}");
    }
}
