//! Row `products`: the limit of the machine and how near to it the products of linear layers come.

use arcuate_ops::rate::{Pass, fma_peak, product};
use serde::Serialize;

use super::measure::{How, Report, Sizes, median, refuse_giants, report};

/// One product of one layer.
#[derive(Serialize)]
pub(super) struct Line {
    pass: &'static str,
    tokens: usize,
    inputs: usize,
    outputs: usize,
    flops_per_second: f64,
    /// Of f32 multiply-adds between registers; none in bf16, which has its own instructions.
    #[serde(skip_serializing_if = "Option::is_none")]
    share_of_peak: Option<f64>,
}

pub(super) fn run(sizes: &Sizes, how: &How) -> anyhow::Result<Report> {
    let [tokens, hidden, inner, vocab] = ["tokens", "hidden", "inner", "vocab"].map(|key| sizes.get(key));
    let widest = inner.max(vocab);
    refuse_giants(how.device, tokens as f64 * (hidden + widest) as f64 + hidden as f64 * widest as f64)?;
    let peak = fma_peak();
    let is_f32 = how.precision == arcuate_ops::Precision::F32;
    let mut lines = Vec::new();
    let mut steps = vec![0.0; how.steps];
    let mut operations = 0.0;
    for [inputs, outputs] in [[hidden, inner], [inner, hidden], [hidden, vocab]] {
        let flops = 2.0 * tokens as f64 * inputs as f64 * outputs as f64;
        for pass in Pass::ALL {
            let mut seconds = product(pass, [tokens, inputs, outputs], how.precision, how.steps);
            steps.iter_mut().zip(&seconds).for_each(|(sum, s)| *sum += s);
            operations += flops;
            let rate = flops / median(&mut seconds);
            let share_of_peak = is_f32.then_some(rate / peak);
            lines.push(Line { pass: pass.name(), tokens, inputs, outputs, flops_per_second: rate, share_of_peak });
        }
    }
    let mut report = report(how, "FLOP", operations, &mut steps);
    report.flops = Some(operations);
    report.flops_per_second = Some(report.per_second);
    report.fma_peak = Some(peak);
    report.products = lines;
    Ok(report)
}
