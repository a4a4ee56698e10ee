//! Row `decode`: greedy continuation with a key-value cache.

use arcuate_model::{KvCache, Network};
use arcuate_ops::gradcheck::values;
use arcuate_ops::rng::Stream;

use super::measure::{How, Report, Sizes, refuse_giants, time};
use super::training::llama_architecture;

pub(super) fn run(sizes: &Sizes, how: &How) -> anyhow::Result<Report> {
    let [batch, prompt, new_tokens, vocab] = ["batch", "prompt", "new_tokens", "vocab"].map(|key| sizes.get(key));
    let architecture = llama_architecture(sizes, prompt + new_tokens)?;
    let cached = 2.0 * (batch * (prompt + new_tokens)) as f64 * (sizes.get("layers") * sizes.get("hidden")) as f64;
    refuse_giants(how.device, architecture.estimate() + cached)?;
    let network = Network::init(architecture, 1, &crate::device::open(how.device)?);
    let mut stream = Stream::new(1, "bench", 0, 0);
    let prompts: Vec<u32> = (0..batch * prompt).map(|_| stream.below(vocab as u64) as u32).collect();
    let mut report = time(how, "tokens", (batch * new_tokens) as f64, || {
        let mut cache = KvCache::new(batch);
        let mut fed = prompts.clone();
        for _ in 0..new_tokens {
            let rows: Vec<&[u32]> = fed.chunks(fed.len() / batch).collect();
            let logits = values(network.step(&rows, &mut cache)?);
            fed = logits.chunks(vocab).map(greedy).collect();
        }
        Ok(())
    })?;
    report.parameters = Some(network.num_parameters());
    Ok(report)
}

/// The most probable token.
fn greedy(logits: &[f32]) -> u32 {
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best }) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use arcuate_ops::DeviceKind;

    #[test]
    fn rows_are_continued_side_by_side() {
        let sizes = [
            ("batch", 2),
            ("prompt", 3),
            ("new_tokens", 2),
            ("vocab", 20),
            ("layers", 1),
            ("hidden", 8),
            ("heads", 2),
            ("kv_heads", 1),
            ("inner", 12),
            ("tied", 1),
        ];
        let how = How { steps: 1, precision: arcuate_ops::Precision::F32, device: DeviceKind::Cpu };
        let report = run(&Sizes::new(&sizes, &[].into()), &how).expect("possible sizes");
        assert!(report.per_second > 0.0);
        assert_eq!(greedy(&[0.0, 2.0, 2.0, 1.0]), 1);
    }
}
