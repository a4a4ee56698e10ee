//! The contrastive objective against values of the papers, a plain loop and finite differences.

use super::*;
use crate::testing::{heard, output};
use arcuate_data::transform::span_mask::{Bernoulli, Fairseq};
use arcuate_ops::gradcheck::{distance, random};
use burn::tensor::Device;

fn config(num_negatives: usize) -> Config {
    Config {
        mask: SpanMask::Fairseq(Fairseq { mask_share: 0.65, span_length: 2, min_spans: 2, equal_counts: false }),
        num_negatives,
        temperature: 0.1,
        diversity_weight: 0.1,
        feature_penalty_weight: 0.0,
        gumbel: Temperature { start: 2.0, end: 0.5, decay: 0.999_995 },
    }
}

fn objective(config: Config) -> Contrastive {
    build(&config, &Vocabulary::default()).expect("sound")
}

fn tensor(data: Vec<f32>, shape: [usize; 2], device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(data, shape), device)
}

/// Codes that are all different, evenly used.
fn codes(targets: Tensor<2>) -> Codes {
    let (n, device) = (targets.dims()[0], targets.device());
    Codes {
        targets,
        usage: Tensor::ones([1, 4], &device) / 4.0,
        ids: (0..n as u32).collect(),
        feature_penalty: Tensor::from_data([0.5], &device),
    }
}

/// A row of frames that are all hidden, each with the given others.
fn hidden(frames: usize, negatives: &[i32]) -> Batch {
    let mut batch = heard(&[frames]);
    if let Some(sound) = &mut batch.sound {
        sound.is_hidden = vec![true; frames];
        sound.negatives = negatives.to_vec();
    }
    batch
}

/// Targets in the plane at these cosines to the query `(1, 0)`.
fn at_cosines(cosines: &[f32]) -> Tensor<2> {
    let data = cosines.iter().flat_map(|c| [*c, (1.0 - c * c).sqrt()]).collect();
    tensor(data, [cosines.len(), 2], &Device::flex())
}

/// Loss of the first of three frames whose targets have these cosines to its query; the others compete with themselves only.
fn told(cosines: &[f32], ids: &[u32]) -> (f64, u64) {
    let k = cosines.len() - 1;
    let negatives: Vec<i32> = (0..cosines.len()).flat_map(|_| 1..=k as i32).collect();
    let queries = tensor([1.0, 0.0].repeat(cosines.len()), [cosines.len(), 2], &Device::flex());
    let codes = Codes { ids: ids.into(), ..codes(at_cosines(cosines)) };
    let batch = hidden(cosines.len(), &negatives);
    let logits = objective(config(k)).logits(sound(&batch), queries, &codes);
    let (loss, is_right) = judge(&values(logits)[..=k]);
    (loss, u64::from(is_right))
}

#[test]
fn a_frame_costs_what_the_card_says() {
    let (loss, right) = told(&[0.9, 0.1, -0.3], &[0, 1, 2]);
    assert!((loss - 3.415_485e-4).abs() < 2e-8, "{loss}");
    assert_eq!(right, 1);
    let (loss, right) = told(&[0.3; 101], &(0..101).collect::<Vec<_>>());
    assert!((loss - 4.615_121).abs() < 1e-6, "{loss}");
    assert_eq!(right, 0, "where all are equal nothing was told apart");
}

#[test]
fn others_with_the_same_codes_do_not_compete() {
    // The closest other took the codes of the frame itself.
    let (loss, _) = told(&[0.5, 0.9, -0.3], &[7, 7, 2]);
    assert!((loss - (1.0 + (-8.0f64).exp()).ln()).abs() < 1e-6, "{loss}");
    // All took the same: nothing is left to be told apart, which is the mark of a collapsed codebook.
    assert_eq!(told(&[0.5, 0.9, -0.3], &[7, 7, 7]), (0.0, 1));
}

/// Loss of the penalties alone: one query among equal targets of one code.
fn diversity(usage: Tensor<2>) -> (f64, Loss) {
    let device = Device::flex();
    let n = 2;
    let codes = Codes { usage, ids: vec![0; 2 * n].into(), ..codes(tensor(vec![1.0; 2 * n], [n, 2], &device)) };
    let out = output(tensor(vec![1.0; 2 * n], [n, 2], &device)).with_codes(codes);
    let config = Config { diversity_weight: 1.0, ..config(1) };
    let loss = objective(config).loss(&hidden(n, &[1, 0]), out);
    (f64::from(values(loss.sum.clone())[0]) / loss.count, loss)
}

fn term(loss: &Loss, name: &str) -> f64 {
    let term = loss.terms.iter().find(|term| term.name == name).expect("a term of that name");
    term.sum / term.count
}

#[test]
fn unused_entries_cost_what_the_card_says() {
    let device = Device::flex();
    let (even, loss) = diversity(Tensor::ones([2, 320], &device) / 320.0);
    // The small number inside the logarithm takes a little off.
    assert!(even.abs() < 1e-4 && (term(&loss, "probability_perplexity") - 640.0).abs() < 0.05, "{even}");
    assert_eq!(term(&loss, "dead_entries"), 0.0);
    let mut one = vec![0.0; 640];
    (one[0], one[320]) = (1.0, 1.0);
    let (collapsed, loss) = diversity(tensor(one, [2, 320], &device));
    assert!((collapsed - 0.996_875).abs() < 1e-6, "{collapsed}");
    assert!((term(&loss, "probability_perplexity") - 2.0).abs() < 1e-5);
    assert!((term(&loss, "code_perplexity") - 2.0).abs() < 1e-5);
    assert!((term(&loss, "dead_entries") - 638.0 / 640.0).abs() < 1e-9);
    let (some, loss) = diversity(tensor(vec![0.5, 0.25, 0.25], [1, 3], &device));
    assert!((some - 0.057_191).abs() < 1e-6, "{some}");
    assert!((term(&loss, "probability_perplexity") - 2.828_427).abs() < 2e-6);
}

#[test]
fn the_temperature_falls_to_its_floor() {
    let base = config(1).gumbel;
    assert_eq!(base.at(0), 2.0);
    assert!((base.at(1000) - 1.990_025).abs() < 1e-6);
    assert!(base.at(277_257) > 0.5);
    assert_eq!([base.at(277_259), base.at(10_000_000), base.at(EVALUATION)], [0.5; 3]);
    let large = Temperature { end: 0.1, ..base };
    assert!(large.at(599_144) > 0.1 && large.at(599_146) == 0.1);
}

/// Two rows with hidden frames, one too short to hide anything, and random output for them.
fn two_rows(k: usize) -> (Contrastive, Batch, Tensor<2>, Tensor<2>) {
    let objective = objective(Config { feature_penalty_weight: 10.0, ..config(k) });
    let mut batch = heard(&[12, 2, 9]);
    objective.prepare(&mut batch, 3, 5);
    let n = sound(&batch).hidden_places().count();
    (objective, batch, random([n, 6], 1), random([n, 6], 2))
}

#[test]
fn agrees_with_plain_loop() {
    let (objective, batch, queries, targets) = two_rows(5);
    let loss = objective.loss(&batch, output(queries.clone()).with_codes(codes(targets.clone())));
    let (q, t) = (values(queries), values(targets));
    let cosine = |i: usize, j: usize| {
        let (a, b) = (&q[i * 6..i * 6 + 6], &t[j * 6..j * 6 + 6]);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())
    };
    let n = q.len() / 6;
    let mut expected = 0.0;
    for frame in 0..n {
        let own = (cosine(frame, frame) / 0.1).exp();
        let others = &sound(&batch).negatives[frame * 5..frame * 5 + 5];
        let all: f64 = others.iter().map(|other| (cosine(frame, *other as usize) / 0.1).exp()).sum::<f64>() + own;
        expected -= (own / all).ln();
    }
    assert!((term(&loss, "contrastive_loss") * n as f64 - expected).abs() < 1e-4 * expected);
    // Even usage costs nothing; the penalty of 0.5 has the weight 10.
    let sum = f64::from(values(loss.sum)[0]);
    assert!((sum - expected - 5.0 * n as f64).abs() < 1e-4 * sum, "{sum} {expected}");
    assert_eq!(loss.count, n as f64);
}

#[test]
fn the_gradient_is_a_finite_difference() {
    let (objective, batch, queries, targets) = two_rows(4);
    let usage = vec![0.4f32, 0.3, 0.2, 0.1];
    let loss = |queries: Tensor<2>, targets: Tensor<2>, usage: Tensor<2>| {
        let codes = Codes { usage, ..codes(targets) };
        objective.loss(&batch, output(queries).with_codes(codes)).sum
    };
    let tape = Device::flex().autodiff();
    let on = |x: &Tensor<2>| Tensor::<2>::from_data(x.to_data(), &tape).require_grad();
    let (q, t, u) = (on(&queries), on(&targets), tensor(usage.clone(), [1, 4], &tape).require_grad());
    let gradients = loss(q.clone(), t.clone(), u.clone()).backward();
    let plain = |x: Vec<f32>, shape: [usize; 2]| tensor(x, shape, &Device::flex());
    let slope = |which: usize, i: usize| {
        let at = |by: f32| {
            let mut all = [values(queries.clone()), values(targets.clone()), usage.clone()];
            all[which][i] += by;
            let [q, t, u] = all;
            let shape = queries.dims();
            f64::from(values(loss(plain(q, shape), plain(t, shape), plain(u, [1, 4])))[0])
        };
        ((at(1e-2) - at(-1e-2)) / 2e-2) as f32
    };
    for (which, gradient) in [q.grad(&gradients), t.grad(&gradients), u.grad(&gradients)].into_iter().enumerate() {
        let gradient = values(gradient.expect("tracked"));
        let slopes: Vec<f32> = (0..gradient.len()).map(|i| slope(which, i)).collect();
        assert!(distance(&gradient, &slopes) < 1e-2, "{which}: {}", distance(&gradient, &slopes));
    }
}

#[test]
fn padding_changes_nothing_and_two_halves_add_up() {
    let (objective, batch, queries, targets) = two_rows(5);
    let sum = |batch: &Batch, queries: Tensor<2>, targets: Tensor<2>| {
        let loss = objective.loss(batch, output(queries).with_codes(codes(targets)));
        (f64::from(values(loss.sum)[0]), loss.count)
    };
    let whole = sum(&batch, queries.clone(), targets.clone());
    let mut first = 0;
    let mut halves = (0.0, 0.0);
    for (key, frames) in [(0, 12), (2, 9)] {
        let mut alone = heard(&[frames, 30]);
        alone.row_keys = vec![key, 9];
        objective.prepare(&mut alone, 3, 5);
        if let Some(sound) = &mut alone.sound {
            // Only the row itself is looked at; what stands beside it made it longer.
            sound.is_hidden[30..].fill(false);
            let n = sound.hidden_places().count();
            sound.negatives.truncate(5 * n);
            let part = |x: &Tensor<2>| x.clone().slice([first..first + n]);
            let half = sum(&alone, part(&queries), part(&targets));
            halves = (halves.0 + half.0, halves.1 + half.1);
            first += n;
        }
    }
    assert!((whole.0 - halves.0).abs() < 1e-4 * whole.0, "{whole:?} {halves:?}");
    assert_eq!(whole.1, halves.1);
}

#[test]
fn rows_add_up_in_an_evaluation_and_short_ones_are_counted() {
    let (objective, batch, queries, targets) = two_rows(5);
    let out = || output(queries.clone()).with_codes(codes(targets.clone()));
    let rows = objective.scores(&batch, out());
    let loss = objective.loss(&batch, out());
    assert_eq!((rows.len(), rows[1]), (3, RowScore::default()));
    let sum: f64 = rows.iter().map(|row| row.loss_sum).sum();
    assert!((sum / loss.count - term(&loss, "contrastive_loss")).abs() < 1e-9);
    assert_eq!(rows.iter().map(|row| row.count).sum::<f64>(), loss.count);
    let right = rows.iter().map(|row| row.correct).sum::<u64>() as f64;
    assert!((term(&loss, "contrastive_accuracy") - right / loss.count).abs() < 1e-12);
    assert!((term(&loss, "rows_left_out") - 1.0 / 3.0).abs() < 1e-12);
    assert!((term(&loss, "masked_share") - loss.count / 23.0).abs() < 1e-12);
}

#[test]
fn evaluations_have_no_noise_and_steps_differ() {
    let objective = objective(config(5));
    let at = |step| {
        let mut batch = heard(&[40]);
        objective.prepare(&mut batch, 3, step);
        batch.sound.expect("heard")
    };
    assert_eq!(at(EVALUATION).gumbel, None);
    assert_eq!(at(0).gumbel, Some(Gumbel { temperature: 2.0, seed: 3, step: 0 }));
    assert_eq!((at(4).is_hidden == at(4).is_hidden, at(4).is_hidden == at(5).is_hidden), (true, false));
    assert_ne!(at(4).negatives, at(5).negatives);
    let Wanted::Codes(places) = objective.wanted(&Batch { sound: Some(at(4)), ..heard(&[40]) }) else {
        panic!("codes")
    };
    assert_eq!(places.iter().copied().collect::<Vec<_>>(), at(4).hidden_places().collect::<Vec<_>>());
}

#[test]
fn a_batch_of_which_nothing_is_hidden_costs_nothing() {
    let never = SpanMask::Bernoulli(Bernoulli { mask_start_probability: 0.0, span_length: 10 });
    let objective = objective(Config { mask: never, ..config(5) });
    let mut batch = heard(&[3, 50]);
    objective.prepare(&mut batch, 3, 5);
    let none = || output(Tensor::zeros([0, 6], &Device::flex()));
    let loss = objective.loss(&batch, none());
    assert_eq!((values(loss.sum.clone())[0], loss.count, term(&loss, "rows_left_out")), (0.0, 0.0, 1.0));
    assert_eq!(objective.scores(&batch, none()), [RowScore::default(); 2]);
    let mut empty = heard(&[0]);
    objective.prepare(&mut empty, 3, 5);
    assert_eq!(objective.scores(&empty, none()), [RowScore::default()]);
}

#[test]
fn keys_out_of_range_are_refused_by_name() {
    let refused = |config: Config| match build(&config, &Vocabulary::default()) {
        Err(error) => error.to_string(),
        Ok(_) => "nothing".to_owned(),
    };
    let gumbel = |start, end, decay| Temperature { start, end, decay };
    for (wrong, key) in [
        (Config { num_negatives: 0, ..config(1) }, "`num_negatives` is 0"),
        (Config { temperature: 0.0, ..config(1) }, "`temperature` is 0"),
        (Config { gumbel: gumbel(0.5, 2.0, 0.9), ..config(1) }, "from 0.5 to 2"),
        (Config { gumbel: gumbel(2.0, 0.5, 1.5), ..config(1) }, "`decay` is 1.5"),
        (Config { diversity_weight: -1.0, ..config(1) }, "`diversity_weight` is -1"),
        (
            Config {
                mask: SpanMask::Bernoulli(Bernoulli { mask_start_probability: 2.0, span_length: 1 }),
                ..config(1)
            },
            "`mask_start_probability` is 2",
        ),
    ] {
        assert!(refused(wrong).contains(key), "{key}");
    }
}
