//! Sound in rows and batches: what a speech network reads, what is hidden from it, and what it is asked to tell apart.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::row::Row;

/// How many frames a network makes of samples or feature frames: convolutions without padding, one behind the other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downsampling {
    /// Kernel and stride of each layer; none: a frame for each step.
    pub layers: Vec<(usize, usize)>,
}

impl Downsampling {
    /// Frames of so many steps: `floor((L - kernel) / stride) + 1` layer by layer, 0 where a kernel does not fit.
    pub fn num_frames(&self, num_steps: usize) -> usize {
        self.layers.iter().fold(
            num_steps,
            |len, (kernel, stride)| {
                if len < *kernel { 0 } else { (len - kernel) / stride.max(&1) + 1 }
            },
        )
    }

    /// The fewest steps that make so many frames.
    pub fn num_steps(&self, num_frames: usize) -> usize {
        self.layers.iter().rev().fold(num_frames, |frames, (kernel, stride)| match frames {
            0 => 0,
            frames => (frames - 1) * stride + kernel,
        })
    }

    /// Steps from one frame to the next.
    pub fn hop(&self) -> usize {
        self.layers.iter().map(|(_, stride)| stride).product()
    }
}

/// The sound of one row.
// S steps: samples or feature frames, F features: 1 for samples
#[derive(Debug, Clone, PartialEq)]
pub struct RowSound {
    /// Values `[S, F]`.
    pub values: Arc<[f32]>,
    /// F.
    pub num_features: usize,
    /// Frames that the network makes of them.
    pub num_frames: usize,
    /// What kind of sound each frame is, by clustering; negative: not known; empty: nowhere known.
    pub units: Vec<i32>,
}

impl RowSound {
    /// S.
    pub fn num_steps(&self) -> usize {
        self.values.len() / self.num_features.max(1)
    }

    /// A stretch of it: so many steps from `start` on, which is moved back to the start of a frame where frames have units.
    pub(crate) fn stretch(&self, start: usize, num_steps: usize, downsampling: &Downsampling) -> Self {
        let num_frames = downsampling.num_frames(num_steps);
        let (mut start, mut units) = (start, Vec::new());
        if !self.units.is_empty() {
            let first = start / downsampling.hop().max(1);
            start = first * downsampling.hop();
            units = self.units[first..first + num_frames].to_vec();
        }
        let values = self.values[start * self.num_features..(start + num_steps) * self.num_features].into();
        Self { values, num_features: self.num_features, num_frames, units }
    }
}

/// The Gumbel noise of a quantizer in training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gumbel {
    /// Temperature of the softmax.
    pub temperature: f64,
    /// Seed of the run.
    pub seed: u64,
    /// Step of the run; the stream of a row is named by its key too.
    pub step: u64,
}

/// Sounds side by side, and what an objective hides of them.
// B rows, S steps, F features, T frames of the network, C channels of the network, N hidden frames, K negatives
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// Values, B times S times F, row-major; 0 where padding.
    pub values: Vec<f32>,
    /// S.
    pub num_steps: usize,
    /// F: 1 for samples.
    pub num_features: usize,
    /// Steps of each row that are no padding.
    pub lengths: Vec<usize>,
    /// T: frames of the longest row.
    pub num_frames: usize,
    /// Frames of each row that are no padding.
    pub frames: Vec<usize>,
    /// True where the network sees a learned vector instead of the frame, B times T; empty: nowhere.
    pub is_hidden: Vec<bool>,
    /// True where a channel is 0 in all frames of a row, B times C; empty: nowhere.
    pub is_hidden_channel: Vec<bool>,
    /// For each hidden frame, in order, K others of the same row: places in the list of hidden frames, N times K.
    pub negatives: Vec<i32>,
    /// Noise of the quantizer; none: the most probable entry is taken.
    pub gumbel: Option<Gumbel>,
    /// What kind of sound each frame is, by clustering, B times T; negative: not known; empty: nowhere known.
    pub units: Vec<i32>,
}

impl Sound {
    /// The sounds of rows, padded with zeros; none unless every row has one.
    pub(crate) fn of_rows(rows: &[Row]) -> Option<Self> {
        let sounds: Vec<&RowSound> = rows.iter().map(|row| row.sound.as_ref()).collect::<Option<_>>()?;
        let num_features = sounds.first()?.num_features;
        let lengths: Vec<usize> = sounds.iter().map(|sound| sound.num_steps()).collect();
        let num_steps = lengths.iter().copied().max().unwrap_or(0);
        let mut values = vec![0.0; rows.len() * num_steps * num_features];
        for (row, sound) in sounds.iter().enumerate() {
            let start = row * num_steps * num_features;
            values[start..start + sound.values.len()].copy_from_slice(&sound.values);
        }
        let frames: Vec<usize> = sounds.iter().map(|sound| sound.num_frames).collect();
        let num_frames = frames.iter().copied().max().unwrap_or(0);
        let mut units = Vec::new();
        if sounds.iter().any(|sound| !sound.units.is_empty()) {
            units.resize(rows.len() * num_frames, -1);
            for (row, sound) in sounds.iter().enumerate() {
                units[row * num_frames..][..sound.units.len()].copy_from_slice(&sound.units);
            }
        }
        Some(Self { units, ..Self::new(values, num_steps, num_features, lengths, num_frames, frames) })
    }

    /// Steps of rows `[S, F]`, padded with zeros, of which nothing is hidden.
    pub fn of_steps(rows: &[&[f32]], num_features: usize, downsampling: &Downsampling) -> Self {
        let lengths: Vec<usize> = rows.iter().map(|row| row.len() / num_features.max(1)).collect();
        let num_steps = lengths.iter().copied().max().unwrap_or(0);
        let mut values = vec![0.0; rows.len() * num_steps * num_features];
        for (at, row) in rows.iter().enumerate() {
            values[at * num_steps * num_features..][..row.len()].copy_from_slice(row);
        }
        let frames = lengths.iter().map(|len| downsampling.num_frames(*len)).collect();
        Self::new(values, num_steps, num_features, lengths, downsampling.num_frames(num_steps), frames)
    }

    /// Sounds of which nothing is hidden.
    pub fn new(
        values: Vec<f32>,
        num_steps: usize,
        num_features: usize,
        lengths: Vec<usize>,
        num_frames: usize,
        frames: Vec<usize>,
    ) -> Self {
        Self {
            values,
            num_steps,
            num_features,
            lengths,
            num_frames,
            frames,
            is_hidden: Vec::new(),
            is_hidden_channel: Vec::new(),
            negatives: Vec::new(),
            gumbel: None,
            units: Vec::new(),
        }
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.lengths.len()
    }

    /// Hidden frames in the flattened batch of B times T.
    pub fn hidden_places(&self) -> impl Iterator<Item = i32> {
        self.is_hidden.iter().enumerate().filter(|(_, is_hidden)| **is_hidden).map(|(place, _)| place as i32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav2vec2() -> Downsampling {
        let kernels = [10, 3, 3, 3, 3, 2, 2];
        let strides = [5, 2, 2, 2, 2, 2, 2];
        Downsampling { layers: kernels.into_iter().zip(strides).collect() }
    }

    #[test]
    fn frames_are_those_of_the_published_front_end() {
        let known = [(399, 0), (400, 1), (719, 1), (720, 2), (16000, 49), (32000, 99), (80000, 249), (320_000, 999)];
        for (steps, frames) in known {
            assert_eq!(wav2vec2().num_frames(steps), frames, "{steps}");
        }
        assert_eq!((wav2vec2().num_steps(1), wav2vec2().num_steps(2), wav2vec2().hop()), (400, 720, 320));
        assert_eq!(Downsampling::default().num_frames(7), 7);
    }

    #[test]
    fn rows_are_padded_with_silence() {
        let row = |values: &[f32], num_frames| {
            let sound = Some(RowSound { values: values.into(), num_features: 1, num_frames, units: Vec::new() });
            Row { sound, ..Row::empty(0, 1) }
        };
        let sound = Sound::of_rows(&[row(&[1.0, 2.0, 3.0], 2), row(&[4.0], 1)]).expect("all rows have one");
        assert_eq!((sound.num_rows(), sound.num_steps, sound.num_frames), (2, 3, 2));
        assert_eq!(sound.values, [1.0, 2.0, 3.0, 4.0, 0.0, 0.0]);
        assert_eq!((&sound.lengths, &sound.frames), (&vec![3, 1], &vec![2, 1]));
        assert!(sound.units.is_empty());
        assert!(Sound::of_rows(&[row(&[1.0], 1), Row::empty(0, 2)]).is_none());
    }

    #[test]
    fn steps_are_padded_and_their_frames_counted() {
        let layers = Downsampling { layers: vec![(2, 2)] };
        let sound = Sound::of_steps(&[&[1.0, 2.0], &[3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1.0]], 2, &layers);
        assert_eq!((sound.num_rows(), sound.num_steps, sound.num_features, sound.num_frames), (2, 4, 2, 2));
        assert_eq!((&sound.lengths, &sound.frames), (&vec![1, 4], &vec![0, 2]));
        assert_eq!(sound.values[..9], [1.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0]);
    }

    #[test]
    fn a_stretch_keeps_frames_and_units_together() {
        let layers = Downsampling { layers: vec![(3, 2)] };
        let values: Vec<f32> = (0..9).map(|step| step as f32).collect();
        let sound = RowSound { values: values.into(), num_features: 1, num_frames: 4, units: vec![10, 11, 12, 13] };
        let found = sound.stretch(5, 4, &layers);
        assert_eq!((&*found.values, found.num_frames, &found.units), ([4.0, 5.0, 6.0, 7.0].as_slice(), 1, &vec![12]));
        let free = RowSound { units: Vec::new(), ..sound }.stretch(5, 4, &layers);
        assert_eq!((&*free.values, free.units.len()), ([5.0, 6.0, 7.0, 8.0].as_slice(), 0));
    }

    #[test]
    fn frames_of_padding_have_no_unit() {
        let row = |num_frames: usize, units: &[i32]| {
            let values = vec![0.5; num_frames].into();
            let sound = Some(RowSound { values, num_features: 1, num_frames, units: units.to_vec() });
            Row { sound, ..Row::empty(0, 1) }
        };
        let sound = Sound::of_rows(&[row(2, &[4, -1]), row(3, &[5, 6, 7]), row(1, &[])]).expect("all rows have one");
        assert_eq!(sound.units, [4, -1, -1, 5, 6, 7, -1, -1, -1]);
    }
}
