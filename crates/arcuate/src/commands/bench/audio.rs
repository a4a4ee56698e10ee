//! Rows of speech models: the feature encoder of wav2vec 2.0, its positional convolution, and the CTC loss; forward and
//! backward, without an update.
// B rows, L samples or frames, C channels, V vocabulary

use arcuate_ops::activation::{Gelu, gelu};
use arcuate_ops::conv1d::{Conv1d, conv1d};
use arcuate_ops::ctc::{Ctc, ctc};
use arcuate_ops::gradcheck::random;
use arcuate_ops::group_norm::group_norm_gelu;
use arcuate_ops::rng::Stream;
use arcuate_ops::weight_norm::{Keep, weight_norm};
use burn::tensor::Tensor;

use super::measure::{How, Report, Sizes, refuse_giants, time, volume};
use crate::exit::usage;

/// Kernel and stride of every layer of the encoder.
const ENCODER: [(usize, usize); 7] = [(10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)];
const SAMPLES_A_SECOND: f64 = 16_000.0;
const SECONDS_A_FRAME: f64 = 0.02;

/// A random tensor with a tape.
fn leaf<const D: usize>(shape: [usize; D], seed: u64, scale: f64) -> Tensor<D> {
    let values = (random(shape, seed) * scale).into_data();
    Tensor::from_data(values, &arcuate_ops::device::cpu().autodiff()).require_grad()
}

/// The mean square of an output, with its gradients.
fn learn(output: Tensor<3>, losses: &mut Vec<f64>) {
    let loss = (output.clone() * output).mean();
    losses.push(f64::from(loss.clone().into_scalar::<f32>()));
    let _ = loss.backward();
}

pub(super) fn frontend(sizes: &Sizes, how: &How) -> anyhow::Result<Report> {
    let [batch, samples, channels] = ["batch", "samples", "channels"].map(|key| sizes.get(key));
    let (mut length, mut inputs, mut flops) = (samples, 1, 0.0);
    let (mut shapes, mut lengths) = (Vec::new(), Vec::new());
    for (layer, (kernel, stride)) in ENCODER.into_iter().enumerate() {
        length = Conv1d { stride, padding: [0, 0], groups: 1 }.out_length(length, kernel);
        if length == 0 {
            return Err(usage(format!("{samples} samples are too few for seven convolutions; use 400 or more")));
        }
        // Nobody asks for the gradient of the samples.
        let operations = if layer == 0 { 4.0 } else { 6.0 };
        flops += operations * volume(&[batch, length, channels, kernel, inputs]);
        shapes.push([channels, inputs, kernel]);
        lengths.push(length);
        inputs = channels;
    }
    let outputs: f64 = lengths.iter().map(|length| volume(&[batch, *length, channels])).sum();
    refuse_giants(how.device, 3.0 * outputs + 20.0 * volume(&[channels, channels]))?;
    let weight = |shape: &[usize; 3]| leaf(*shape, shape[2] as u64, volume(&shape[1..]).sqrt().recip());
    let weights: Vec<Tensor<3>> = shapes.iter().map(weight).collect();
    let (scale, shift) = (leaf([channels], 8, 1.0), leaf([channels], 9, 1.0));
    let audio = Tensor::from_data(random([batch, samples, 1], 10).into_data(), &arcuate_ops::device::cpu().autodiff());
    let mut losses = Vec::new();
    let seconds = batch as f64 * samples as f64 / SAMPLES_A_SECOND;
    let mut report = time(how, "seconds of audio", seconds, || {
        let mut x: Tensor<3> = audio.clone();
        for (layer, ((_, stride), weight)) in ENCODER.into_iter().zip(&weights).enumerate() {
            x = conv1d(x, weight.clone(), None, Conv1d { stride, padding: [0, 0], groups: 1 });
            x = match layer {
                0 => group_norm_gelu(x, scale.clone(), shift.clone(), channels, 1e-5),
                _ => gelu(x, Gelu::Erf),
            };
        }
        learn(x, &mut losses);
        Ok(())
    })?;
    report.losses = losses.first().zip(losses.last()).map(|(first, last)| [*first, *last]);
    Ok(report.with_flops(flops, &[[batch * lengths[1], 3 * channels, channels]]))
}

pub(super) fn positional_conv(sizes: &Sizes, how: &How) -> anyhow::Result<Report> {
    let [batch, frames, channels, kernel, groups] =
        ["batch", "frames", "channels", "kernel", "groups"].map(|key| sizes.get(key));
    if !channels.is_multiple_of(groups) {
        return Err(usage(format!("{groups} groups do not divide {channels} channels")));
    }
    let group = channels / groups;
    refuse_giants(how.device, 8.0 * volume(&[batch, frames, channels]) + 8.0 * volume(&[channels, group, kernel]))?;
    let x = leaf([batch, frames, channels], 1, 1.0);
    let (direction, bias) = (leaf([channels, group, kernel], 2, 0.02), leaf([channels], 3, 0.1));
    let lengths = leaf([kernel], 4, 1.0);
    // Half a kernel on either side; an even kernel would give one frame too many, which is left away.
    let conv = Conv1d { stride: 1, padding: [kernel / 2, (kernel - 1) / 2], groups };
    let mut losses = Vec::new();
    let mut report = time(how, "seconds of audio", (batch * frames) as f64 * SECONDS_A_FRAME, || {
        let weight = weight_norm(direction.clone(), lengths.clone(), Keep::Last);
        learn(conv1d(x.clone(), weight, Some(bias.clone()), conv), &mut losses);
        Ok(())
    })?;
    report.losses = losses.first().zip(losses.last()).map(|(first, last)| [*first, *last]);
    let flops = 6.0 * volume(&[batch, frames, channels, group, kernel]);
    Ok(report.with_flops(flops, &[[batch * frames, channels, channels]]))
}

pub(super) fn ctc_loss(sizes: &Sizes, how: &How) -> anyhow::Result<Report> {
    let [batch, frames, vocab, labels] = ["batch", "frames", "vocab", "labels"].map(|key| sizes.get(key));
    if vocab < 2 {
        return Err(usage("`vocab` counts the blank; use 2 or more"));
    }
    refuse_giants(how.device, 3.0 * (batch * frames) as f64 * (vocab + 4 * labels) as f64)?;
    let mut stream = Stream::new(1, "bench", 0, 0);
    let mut label = |_| 1 + stream.below(vocab as u64 - 1) as i32;
    let target = Ctc {
        targets: (0..batch).map(|_| (0..labels).map(&mut label).collect()).collect(),
        input_lengths: vec![frames; batch].into(),
        blank: 0,
        zero_infinity: false,
        weights: None,
    };
    if target.num_too_short() > 0 {
        return Err(usage(format!("{frames} frames are too few for {labels} labels; use twice as many")));
    }
    let logits = leaf([batch, frames, vocab], 1, 1.0);
    let mut losses = Vec::new();
    let mut report = time(how, "frames", (batch * frames) as f64, || {
        let loss = ctc(logits.clone(), &target);
        losses.push(f64::from(loss.clone().into_scalar::<f32>()));
        let _ = loss.backward();
        Ok(())
    })?;
    report.losses = losses.first().zip(losses.last()).map(|(first, last)| [*first, *last]);
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_ops::DeviceKind;

    fn measured(
        run: fn(&Sizes, &How) -> anyhow::Result<Report>,
        sizes: &[(&'static str, usize)],
    ) -> anyhow::Result<Report> {
        run(
            &Sizes::new(sizes, &[].into()),
            &How { steps: 2, precision: arcuate_ops::Precision::F32, device: DeviceKind::Cpu },
        )
    }

    #[test]
    fn tiny_rows_give_finite_losses_that_repeat() {
        let rows = [
            measured(frontend, &[("batch", 2), ("samples", 900), ("channels", 6)]),
            measured(positional_conv, &[("batch", 2), ("frames", 9), ("channels", 6), ("kernel", 4), ("groups", 3)]),
            measured(ctc_loss, &[("batch", 2), ("frames", 9), ("vocab", 4), ("labels", 3)]),
        ];
        for report in rows {
            let [first, last] = report.expect("possible sizes").losses.expect("a loss");
            assert!(first.is_finite() && first == last, "{first} {last}");
        }
    }

    #[test]
    fn impossible_sizes_are_errors_of_the_arguments() {
        let message = |report: anyhow::Result<Report>| report.err().map(|error| error.to_string()).unwrap_or_default();
        let short = measured(frontend, &[("batch", 1), ("samples", 399), ("channels", 2)]);
        assert!(message(short).contains("400 or more"));
        let odd =
            measured(positional_conv, &[("batch", 1), ("frames", 9), ("channels", 6), ("kernel", 4), ("groups", 4)]);
        assert!(message(odd).contains("4 groups do not divide 6"));
        let long = measured(ctc_loss, &[("batch", 1), ("frames", 3), ("vocab", 4), ("labels", 4)]);
        assert!(message(long).contains("too few"));
    }
}
