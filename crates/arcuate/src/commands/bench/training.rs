//! Rows that train: network, objective and optimizer as in a run, on random tokens.

use arcuate_data::{Batch, IGNORED_TARGET};
use arcuate_model::{Architecture, Head, ModelConfig, Network, Wanted, gpt2};
use arcuate_objective::{Objective, ObjectiveConfig, Vocabulary};
use arcuate_ops::DeviceKind;
use arcuate_ops::rng::Stream;
use arcuate_train::{Compute, Gradients, Optimizer, OptimizerConfig, Pass, Passed, forward_backward, global_norm};
use serde_json::json;

use super::measure::{How, Report, Sizes, refuse_giants, time};
use crate::exit::usage;

/// Special tokens of the masked language model: padding, begin, end, mask.
const SPECIAL: [u32; 4] = [0, 1, 2, 3];

/// An architecture from the keys of a recipe.
pub(super) fn architecture(config: serde_json::Value, vocab: usize) -> anyhow::Result<Architecture> {
    let config: ModelConfig = serde_json::from_value(config)?;
    Architecture::new(&config, vocab, Head::Tokens).map_err(|error| usage(error.to_string()))
}

/// The Llama of the rows `llama` and `decode`.
pub(super) fn llama_architecture(sizes: &Sizes, max_seq_len: usize) -> anyhow::Result<Architecture> {
    let config = json!({"llama": {
        "hidden_size": sizes.get("hidden"), "num_layers": sizes.get("layers"), "num_heads": sizes.get("heads"),
        "num_kv_heads": sizes.get("kv_heads"), "intermediate_size": sizes.get("inner"),
        "max_seq_len": max_seq_len, "tie_word_embeddings": sizes.get("tied") != 0,
    }});
    architecture(config, sizes.get("vocab"))
}

pub(super) fn llama(sizes: &Sizes, how: &How) -> anyhow::Result<Report> {
    train(
        llama_architecture(sizes, sizes.get("seq_len"))?,
        next_token()?.as_ref(),
        random(sizes, 0, |_| 1.0)?,
        sizes,
        how,
    )
}

pub(super) fn gpt(sizes: &Sizes, how: &How) -> anyhow::Result<Report> {
    let config = json!({"gpt2": {
        "hidden_size": sizes.get("hidden"), "num_layers": sizes.get("layers"), "num_heads": sizes.get("heads"),
        "intermediate_size": sizes.get("inner"), "max_seq_len": sizes.get("seq_len"),
        "tie_word_embeddings": sizes.get("tied") != 0,
    }});
    let mut architecture = architecture(config, sizes.get("vocab"))?;
    if let Architecture::Gpt2(a) = &mut architecture {
        a.gelu = gpt2::GeluForm::Erf;
    }
    train(architecture, next_token()?.as_ref(), random(sizes, 0, |_| 1.0)?, sizes, how)
}

pub(super) fn bert(sizes: &Sizes, how: &How) -> anyhow::Result<Report> {
    let config = json!({"bert": {
        "hidden_size": sizes.get("hidden"), "num_layers": sizes.get("layers"), "num_heads": sizes.get("heads"),
        "intermediate_size": sizes.get("inner"), "max_seq_len": sizes.get("seq_len"),
    }});
    let architecture = architecture(config, sizes.get("vocab"))?;
    let vocabulary = Vocabulary {
        size: sizes.get("vocab"),
        mask: Some(3),
        special: SPECIAL.to_vec(),
        starts_word: [].into(),
        ..Vocabulary::default()
    };
    let keys = json!({"masked_lm": {"mask_fraction": 0.15, "replace_with_mask": 0.8, "replace_with_random": 0.1}});
    let objective = serde_json::from_value::<ObjectiveConfig>(keys)?.build(&vocabulary)?;
    // Lengths fall evenly from whole rows to rows that are half padding.
    let mut batch = random(sizes, SPECIAL.len(), |row| 1.0 - 0.5 * row)?;
    batch.targets.fill(IGNORED_TARGET);
    objective.prepare(&mut batch, 1, 0);
    train(architecture, objective.as_ref(), batch, sizes, how)
}

fn next_token() -> anyhow::Result<Box<dyn Objective>> {
    let config: ObjectiveConfig = serde_json::from_value(json!({"next_token": {}}))?;
    Ok(config.build(&Vocabulary::default())?)
}

/// Random tokens from `first` on; `share` says how much of a row, of those in [0, 1), is not padding.
fn random(sizes: &Sizes, first: usize, share: impl Fn(f64) -> f64) -> anyhow::Result<Batch> {
    let [num_rows, seq_len, vocab] = ["batch", "seq_len", "vocab"].map(|key| sizes.get(key));
    refuse_giants(DeviceKind::Cpu, 16.0 * num_rows as f64 * seq_len as f64)?;
    let first = first.min(vocab - 1);
    let mut stream = Stream::new(1, "bench", 0, 0);
    let mut token = || (first as u64 + stream.below((vocab - first) as u64)) as i32;
    let mut batch = Batch {
        num_rows,
        seq_len,
        input_ids: Vec::new(),
        targets: Vec::new(),
        weights: None,
        positions: Vec::new(),
        may_attend: Vec::new(),
        token_types: vec![0; num_rows * seq_len],
        labels: vec![IGNORED_TARGET; num_rows],
        is_padding: Vec::new(),
        row_keys: (0..num_rows as u64).collect(),
        logits: None,
        sound: None,
        sources: vec![0; num_rows],
        num_bytes: 0,
    };
    for row in 0..num_rows {
        let len = ((share(row as f64 / num_rows as f64) * seq_len as f64) as usize).clamp(1, seq_len);
        for at in 0..seq_len {
            let is_padding = at >= len;
            batch.input_ids.push(if is_padding { 0 } else { token() });
            batch.targets.push(if is_padding { IGNORED_TARGET } else { token() });
            batch.positions.push(if is_padding { 0 } else { at as i32 });
            batch.may_attend.push(if is_padding { [at as u32, at as u32 + 1] } else { [0, len as u32] });
            batch.is_padding.push(is_padding);
        }
    }
    Ok(batch)
}

/// Times whole steps: forward, backward, norm of the gradients, AdamW.
fn train(
    architecture: Architecture,
    objective: &dyn Objective,
    batch: Batch,
    sizes: &Sizes,
    how: &How,
) -> anyhow::Result<Report> {
    let places = batch.num_rows as f64 * batch.seq_len as f64;
    refuse_giants(
        how.device,
        4.0 * architecture.estimate() + places * (sizes.get("layers") * sizes.get("hidden")) as f64,
    )?;
    let flops = flops(&architecture, objective, &batch, sizes);
    let device = crate::device::open(how.device)?.autodiff();
    let mut network = Some(Network::init(architecture, 1, &device));
    let parameters = network.as_ref().map(Network::num_parameters);
    let config = json!({"adamw": {"peak_learning_rate": 3e-4, "weight_decay": 0.1}});
    let mut optimizer = Optimizer::new(serde_json::from_value::<OptimizerConfig>(config)?);
    let compute = Compute { precision: how.precision, activation_checkpointing: false };
    let mut losses = Vec::new();
    let mut report = time(how, "tokens", batch.num_tokens() as f64, || {
        let old = network.take().expect("a network between steps");
        let mut grads = Gradients::new();
        let Passed { sum, count, .. } =
            forward_backward(&old, objective, &batch, compute, Pass::default(), &mut grads)?;
        let norm = global_norm(&grads, count);
        network = Some(optimizer.update(old, grads, count, norm, 1.0));
        losses.push(sum / count);
        Ok(())
    })?;
    report.parameters = parameters;
    report.losses = losses.first().zip(losses.last()).map(|(first, last)| [*first, *last]);
    let (tokens, hidden, inner) = (batch.num_rows * batch.seq_len, sizes.get("hidden"), sizes.get("inner"));
    let head = num_predicted(objective, &batch);
    if how.device != DeviceKind::Cpu {
        return Ok(report.with_rate(flops));
    }
    Ok(report
        .with_flops(flops, &[[tokens, hidden, inner], [tokens, inner, hidden], [head, hidden, sizes.get("vocab")]]))
}

fn num_predicted(objective: &dyn Objective, batch: &Batch) -> usize {
    match objective.wanted(batch) {
        Wanted::Tokens(places) => places.len(),
        Wanted::All => batch.input_ids.len(),
        Wanted::Rows => batch.num_rows,
        Wanted::RowsAndTokens(places) => batch.num_rows + places.len(),
        Wanted::Codes(places) => places.len(),
    }
}

/// Operations that a step needs: 6 for every weight of a product and every token that meets it, and in attention 12 for
/// every channel and every key that a token may attend to. Padding, masked keys and recomputation do not count.
fn flops(architecture: &Architecture, objective: &dyn Objective, batch: &Batch, sizes: &Sizes) -> f64 {
    let head = num_predicted(objective, batch) as f64;
    let tokens = batch.num_tokens() as f64;
    let is_table = |name: &str| ["embed", "wte", "wpe"].iter().any(|part| name.contains(part));
    let is_head = |name: &str| name.starts_with("lm_head") || name.starts_with("cls.");
    let mut products = head * (sizes.get("vocab") * sizes.get("hidden")) as f64;
    for info in architecture.parameters() {
        if info.shape.len() == 2 && !is_table(&info.name) && info.name != "lm_head.weight" {
            products += info.len() as f64 * if is_head(&info.name) { head } else { tokens };
        }
    }
    let keys: f64 = (0..batch.input_ids.len())
        .filter(|i| !batch.is_padding[*i])
        .map(|i| {
            let [start, end] = batch.may_attend[i];
            let end = if architecture.is_causal() { end.min((i % batch.seq_len) as u32 + 1) } else { end };
            f64::from(end - start)
        })
        .sum();
    6.0 * products + 12.0 * keys * (sizes.get("layers") * sizes.get("hidden")) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(text: &[(&'static str, usize)]) -> Sizes {
        Sizes::new(text, &[].into())
    }

    const TINY: &[(&str, usize)] = &[
        ("batch", 2),
        ("seq_len", 8),
        ("vocab", 20),
        ("layers", 1),
        ("hidden", 8),
        ("heads", 2),
        ("kv_heads", 1),
        ("inner", 12),
        ("tied", 0),
    ];

    #[test]
    fn a_tiny_step_of_every_network_learns_its_batch() {
        for run in [gpt, llama, bert] {
            let how = How { steps: 3, precision: arcuate_ops::Precision::F32, device: DeviceKind::Cpu };
            let report = run(&sizes(TINY), &how).expect("possible sizes");
            let [first, last] = report.losses.expect("it trains");
            assert!(last < first, "{first} {last}");
            assert!(report.per_second > 0.0 && report.flops_per_second.is_some_and(|rate| rate > 0.0));
        }
    }

    #[test]
    fn operations_follow_the_formula() {
        let sizes = sizes(TINY);
        let architecture = llama_architecture(&sizes, 8).expect("possible sizes");
        let objective = next_token().expect("no vocabulary is needed");
        let batch = random(&sizes, 0, |_| 1.0).expect("a small batch");
        let weights = 8 * (8 + 4 + 4 + 8) + 3 * 8 * 12 + 8 * 20;
        let keys = 2 * (1..=8).sum::<usize>();
        let wanted = (6 * weights * 16 + 12 * keys * 8) as f64;
        assert_eq!(flops(&architecture, objective.as_ref(), &batch, &sizes), wanted);
    }

    #[test]
    fn padding_is_not_counted() {
        let batch = random(&sizes(TINY), 4, |row| 1.0 - 0.5 * row).expect("a small batch");
        assert_eq!(batch.num_tokens(), 8 + 6);
        assert_eq!((batch.input_ids[15], batch.may_attend[15], batch.may_attend[8]), (0, [7, 8], [0, 6]));
    }

    #[test]
    fn impossible_heads_are_an_error_of_the_arguments() {
        let error = gpt(
            &Sizes::new(TINY, &[("heads".to_owned(), 3)].into()),
            &How { steps: 1, precision: arcuate_ops::Precision::F32, device: DeviceKind::Cpu },
        );
        assert!(error.is_err_and(|e| e.to_string().contains("3 heads do not divide")));
    }
}
