//! A matrix of features: one row for each frame.

/// Features over time.
#[derive(Debug, Clone, PartialEq)]
pub struct Features {
    /// Row after row.
    pub values: Vec<f32>,
    /// Values of a row.
    pub num_bins: usize,
}

impl Features {
    /// Rows.
    pub fn num_frames(&self) -> usize {
        self.values.len() / self.num_bins.max(1)
    }

    /// The rows in order.
    pub fn frames(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.num_bins.max(1))
    }

    /// Subtracts from every bin its mean over the frames.
    pub(crate) fn subtract_mean(&mut self) {
        let (num_bins, num_frames) = (self.num_bins, self.num_frames());
        for bin in 0..num_bins {
            let column = || (0..num_frames).map(|frame| frame * num_bins + bin);
            let mean = column().map(|at| f64::from(self.values[at])).sum::<f64>() / num_frames.max(1) as f64;
            column().for_each(|at| self.values[at] -= mean as f32);
        }
    }
}
