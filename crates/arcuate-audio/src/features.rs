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

    /// The values, their slopes and the slopes of these, side by side: three times as many bins.
    ///
    /// The slope of a bin is the least-squares line through five frames, `sum(n (x[t+n] - x[t-n])) / 10` for `n` of 1 and 2; the
    /// first and last frames are repeated at the ends.
    pub fn with_deltas(&self) -> Self {
        let (slopes, num_bins) = (self.deltas(), self.num_bins);
        let second = slopes.deltas();
        let frames = self.frames().zip(slopes.frames()).zip(second.frames());
        let values = frames.flat_map(|((own, slope), second)| own.iter().chain(slope).chain(second)).copied().collect();
        Self { values, num_bins: 3 * num_bins }
    }

    fn deltas(&self) -> Self {
        let (num_bins, num_frames) = (self.num_bins, self.num_frames());
        let at = |frame: isize, bin: usize| {
            let frame = frame.clamp(0, num_frames as isize - 1) as usize;
            self.values[frame * num_bins + bin]
        };
        let slope = |frame: usize, bin: usize| {
            let frame = frame as isize;
            let of = |n: isize| n as f32 * (at(frame + n, bin) - at(frame - n, bin));
            (of(1) + of(2)) / 10.0
        };
        let values = (0..num_frames).flat_map(|frame| (0..num_bins).map(move |bin| (frame, bin)));
        Self { values: values.map(|(frame, bin)| slope(frame, bin)).collect(), num_bins }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_stand_beside_the_values() {
        // One bin rises by 2 a frame, the other one jumps once.
        let values = (0..9).flat_map(|t| [2.0 * t as f32, if t < 4 { 0.0 } else { 10.0 }]).collect();
        let found = Features { values, num_bins: 2 }.with_deltas();
        assert_eq!((found.num_bins, found.num_frames()), (6, 9));
        let column = |bin: usize| -> Vec<f32> { found.frames().map(|frame| frame[bin]).collect() };
        // At the ends frames are repeated: (1 * 2 + 2 * 4) / 10 in the first one.
        assert_eq!(column(2), [1.0, 1.6, 2.0, 2.0, 2.0, 2.0, 2.0, 1.6, 1.0]);
        assert_eq!(column(3), [0.0, 0.0, 2.0, 3.0, 3.0, 2.0, 0.0, 0.0, 0.0]);
        assert_eq!(column(4)[4], 0.0, "a steady slope has none of its own");
        assert!((column(5)[3] - (1.0 * (3.0 - 2.0) + 2.0 * (2.0 - 0.0)) / 10.0).abs() < 1e-6);
        assert_eq!(Features { values: vec![3.0], num_bins: 1 }.with_deltas().values, [3.0, 0.0, 0.0]);
        assert_eq!(Features { values: Vec::new(), num_bins: 2 }.with_deltas().num_frames(), 0);
    }
}
