//! Masked language model: predict tokens that were hidden.
//!
//! # What it computes
//! `round(mask_fraction n)` of a row's `n` ordinary tokens, at least one, are chosen from the stream (seed, "mask", step,
//! row), or each with probability `mask_fraction` (`independent`); each is replaced by the mask token, by a random token, or
//! kept. `sum = sum(-ln p(y))` over them, `count` = how many; both are 0 where none is chosen.
//! # Recipe
//! `[objective.masked_lm]` with `mask_fraction`, `replace_with_mask`, `replace_with_random`, optional `whole_word`,
//! `independent`, `random_may_be_special`
//! # Reference
//! Devlin et al. 2019; tokens chosen one by one and replaced by any token as in Gross et al. 2025

use arcuate_data::Batch;
use arcuate_model::{Output, Wanted};
use arcuate_ops::rng::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Loss, Objective, Result, RowScore, Vocabulary, predicted, token_loss, token_scores};

/// `[objective.masked_lm]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Share of the tokens (or words) that are predicted; BERT: 0.15.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub mask_fraction: f64,
    /// Of these, the share that is replaced by the mask token; BERT: 0.8.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub replace_with_mask: f64,
    /// Of these, the share that is replaced by a random token; BERT: 0.1. The rest stays as it is.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub replace_with_random: f64,
    /// Choose whole words instead of single tokens.
    #[serde(default)]
    pub whole_word: bool,
    /// Choose every token (or word) by a draw of its own with probability `mask_fraction`, so that rows differ in how many
    /// are predicted and a short one may have none; left out: a fixed share of every row, at least one.
    #[serde(default)]
    pub independent: bool,
    /// Random replacements may be special tokens too (padding, begin, end, mask), as in some published code.
    #[serde(default)]
    pub random_may_be_special: bool,
}

pub(crate) struct MaskedLm {
    config: Config,
    mask: u32,
    vocabulary: Vocabulary,
}

pub(crate) fn build(config: &Config, vocabulary: &Vocabulary) -> Result<MaskedLm> {
    let mask = vocabulary.mask.ok_or_else(|| {
        Error("the tokenizer has no mask token, which `[objective.masked_lm]` needs; use `[tokenizer.wordpiece]`, or a tokenizer whose tokenizer_config.json names a `mask_token`".to_string())
    })?;
    if config.replace_with_mask + config.replace_with_random > 1.0 {
        return Err(Error(
            "`replace_with_mask` and `replace_with_random` add up to more than 1; lower one".to_string(),
        ));
    }
    if vocabulary.size <= vocabulary.special.len() {
        return Err(Error("the tokenizer has special tokens only; train it on text".to_string()));
    }
    Ok(MaskedLm { config: config.clone(), mask, vocabulary: vocabulary.clone() })
}

impl MaskedLm {
    fn is_special(&self, id: i32) -> bool {
        self.vocabulary.special.contains(&(id as u32))
    }

    fn random_token(&self, stream: &mut Stream) -> i32 {
        loop {
            let id = stream.below(self.vocabulary.size as u64) as i32;
            if self.config.random_may_be_special || !self.is_special(id) {
                return id;
            }
        }
    }

    /// Groups of places that are hidden together: tokens, or words.
    fn groups(&self, batch: &Batch, row: usize) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut open = false;
        for place in row * batch.seq_len..(row + 1) * batch.seq_len {
            let id = batch.input_ids[place];
            if batch.is_padding[place] || self.is_special(id) {
                open = false;
                continue;
            }
            let begins = self.vocabulary.starts_word.get(id as usize).copied().unwrap_or(true);
            match groups.last_mut() {
                Some(word) if self.config.whole_word && open && !begins => word.push(place),
                _ => groups.push(vec![place]),
            }
            open = true;
        }
        groups
    }
}

impl Objective for MaskedLm {
    fn prepare(&self, batch: &mut Batch, seed: u64, step: u64) {
        for row in 0..batch.num_rows {
            let mut stream = Stream::new(seed, "mask", step, batch.row_keys[row]);
            let mut groups = self.groups(batch, row);
            if self.config.independent {
                groups.retain(|_| stream.uniform() < self.config.mask_fraction);
            } else {
                let total: usize = groups.iter().map(Vec::len).sum();
                let wanted = ((total as f64 * self.config.mask_fraction).round() as usize).max(1).min(total);
                stream.shuffle(&mut groups);
                let mut hidden = 0;
                groups.retain(|group| {
                    let take = hidden < wanted;
                    hidden += if take { group.len() } else { 0 };
                    take
                });
            }
            for place in groups.into_iter().flatten() {
                batch.targets[place] = batch.input_ids[place];
                let draw = stream.uniform();
                if draw < self.config.replace_with_mask {
                    batch.input_ids[place] = self.mask as i32;
                } else if draw < self.config.replace_with_mask + self.config.replace_with_random {
                    batch.input_ids[place] = self.random_token(&mut stream);
                }
            }
        }
    }

    fn wanted(&self, batch: &Batch) -> Wanted {
        Wanted::Tokens(predicted(batch).0)
    }

    fn loss(&self, batch: &Batch, output: Output) -> Loss {
        token_loss(batch, output, 0.0, 0.0)
    }

    fn scores(&self, batch: &Batch, output: Output) -> Vec<RowScore> {
        token_scores(batch, output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::batch;

    fn objective(config: Config) -> MaskedLm {
        let starts_word = (0..100).map(|id| id % 3 == 0).collect();
        let vocabulary =
            Vocabulary { size: 100, mask: Some(4), special: vec![0, 1, 2, 3, 4], starts_word, ..Vocabulary::default() };
        build(&config, &vocabulary).expect("a sound configuration")
    }

    fn config(mask: f64, random: f64) -> Config {
        Config {
            mask_fraction: 0.15,
            replace_with_mask: mask,
            replace_with_random: random,
            whole_word: false,
            independent: false,
            random_may_be_special: false,
        }
    }

    fn long() -> Batch {
        let row: Vec<i32> = std::iter::once(2).chain((0..1000).map(|i| 5 + i % 95)).chain([3]).collect();
        batch(&[&row, &[2, 9, 3]])
    }

    #[test]
    fn the_right_share_is_hidden_and_special_tokens_never_are() {
        let (before, mut b) = (long(), long());
        objective(config(0.8, 0.1)).prepare(&mut b, 1, 2);
        let chosen = b.targets[..1002].iter().filter(|t| **t >= 0).count();
        assert_eq!(chosen, 150);
        let (mut masked, mut kept) = (0, 0);
        for i in 0..b.targets.len() {
            if b.targets[i] < 0 {
                assert_eq!(b.input_ids[i], before.input_ids[i]);
                continue;
            }
            assert_eq!(b.targets[i], before.input_ids[i]);
            assert!(before.input_ids[i] > 4);
            masked += usize::from(b.input_ids[i] == 4);
            kept += usize::from(b.input_ids[i] == before.input_ids[i]);
        }
        assert!((105..=135).contains(&masked), "{masked} of 151 masked; about 121 expected");
        assert!((4..=30).contains(&kept), "{kept} of 151 kept; about 15 expected");
        assert_eq!(b.targets[1002..1005], [-100, 9, -100], "a short row still predicts one token");
    }

    #[test]
    fn the_choice_depends_on_row_and_step_not_on_neighbours() {
        let o = objective(config(1.0, 0.0));
        let hide = |rows: &[&[i32]], step| {
            let mut b = batch(rows);
            o.prepare(&mut b, 1, step);
            b
        };
        let row: Vec<i32> = (5..60).collect();
        let alone = hide(&[&row], 0);
        let together = hide(&[&row, &row], 0);
        assert_eq!(alone.targets, together.targets[..55]);
        assert_ne!(together.targets[..55], together.targets[55..]);
        assert_ne!(alone.targets, hide(&[&row], 1).targets);
    }

    #[test]
    fn whole_words_are_hidden_together() {
        let o = objective(Config { whole_word: true, ..config(1.0, 0.0) });
        let mut b = batch(&[&(6..66).collect::<Vec<i32>>()]);
        o.prepare(&mut b, 1, 0);
        for word in b.targets.chunks(3) {
            assert!(word.iter().all(|t| *t >= 0) || word.iter().all(|t| *t < 0), "{word:?}");
        }
    }

    #[test]
    fn a_tokenizer_without_a_mask_token_is_refused() {
        let error = build(&config(0.8, 0.1), &Vocabulary { size: 10, ..Vocabulary::default() }).err();
        assert!(error.is_some_and(|e| e.to_string().contains("no mask token")));
    }

    #[test]
    fn tokens_chosen_one_by_one_have_the_published_shares() {
        // Id 50 is the only ordinary token of the text, so a token that is another one was drawn; 126 can be chosen.
        let row: Vec<i32> = std::iter::once(2).chain([50; 126]).chain([3]).collect();
        let published = Config { independent: true, random_may_be_special: true, ..config(0.8, 0.1) };
        let o = objective(published);
        const DRAWS: usize = 20_000;
        let (mut chosen, mut masked, mut random, mut kept) = (0.0, 0.0, 0.0, 0.0);
        let mut drawn = [0usize; 100];
        let mut counts = std::collections::BTreeSet::new();
        for step in 0..DRAWS as u64 {
            let mut b = batch(&[&row]);
            o.prepare(&mut b, 1, step);
            assert_eq!((b.targets[0], b.targets[127], b.input_ids[0], b.input_ids[127]), (-100, -100, 2, 3));
            counts.insert(b.num_targets());
            for (id, target) in b.input_ids.iter().zip(&b.targets).filter(|(_, target)| **target >= 0) {
                assert_eq!(*target, 50);
                chosen += 1.0;
                drawn[*id as usize] += 1;
                match id {
                    4 => masked += 1.0,
                    50 => kept += 1.0,
                    _ => random += 1.0,
                }
            }
        }
        // One draw in a hundred is the mask token or the old token itself. Four standard errors of the means.
        let close =
            |sum: f64, expected: f64| (sum / DRAWS as f64 - expected).abs() < 4.0 * (expected / DRAWS as f64).sqrt();
        assert!(close(chosen, 18.9), "{chosen}");
        assert!(close(masked, 15.12 + 0.0189), "{masked}");
        assert!(close(random, 1.89 * 0.98), "{random}");
        assert!(close(kept, 1.89 + 0.0189), "{kept}");
        assert!([0, 1, 2, 3].iter().all(|special| (200..600).contains(&drawn[*special])), "{drawn:?}");
        assert!(counts.len() > 20, "{counts:?}");
    }

    #[test]
    fn random_tokens_are_ordinary_unless_the_recipe_says_otherwise() {
        for (may_be_special, independent) in [(false, false), (false, true), (true, false)] {
            let o = objective(Config { random_may_be_special: may_be_special, independent, ..config(0.0, 1.0) });
            let mut b = long();
            for step in 0..20 {
                o.prepare(&mut b, 1, step);
            }
            let found = b.targets.iter().zip(&b.input_ids).any(|(target, id)| *target >= 0 && *id < 5);
            assert_eq!(found, may_be_special);
        }
    }

    #[test]
    fn nothing_to_predict_is_a_loss_of_nothing() {
        let o = objective(Config { independent: true, ..config(0.8, 0.1) });
        // Special tokens only.
        let mut b = batch(&[&[2, 3], &[2, 3]]);
        o.prepare(&mut b, 1, 0);
        let Wanted::Tokens(places) = o.wanted(&b) else { panic!("masked tokens are wanted by place") };
        assert!(places.is_empty());
        let logits = burn::tensor::Tensor::<2>::zeros([0, 100], &burn::tensor::Device::flex());
        let loss = o.loss(&b, crate::testing::output(logits.clone()));
        assert_eq!((loss.sum.into_scalar::<f32>(), loss.count), (0.0, 0.0));
        assert_eq!(o.scores(&b, crate::testing::output(logits)), vec![RowScore::default(); 2]);
    }

    #[test]
    fn a_uniform_model_has_the_logarithm_of_the_vocabulary_as_loss() {
        const VOCAB: usize = 30_522;
        let vocabulary =
            Vocabulary { size: VOCAB, mask: Some(103), special: vec![0, 100, 101, 102, 103], ..Vocabulary::default() };
        let o = build(&config(0.8, 0.1), &vocabulary).expect("a sound configuration");
        let mut b = batch(&[&(1000..1128).collect::<Vec<i32>>()]);
        o.prepare(&mut b, 1, 0);
        let device = burn::tensor::Device::flex();
        let (hidden, table) =
            (burn::tensor::Tensor::zeros([19, 4], &device), burn::tensor::Tensor::zeros([VOCAB, 4], &device));
        let loss = o.loss(&b, Output::new(hidden, table, None));
        assert_eq!(loss.count, 19.0);
        assert!((f64::from(loss.sum.into_scalar::<f32>()) / 19.0 - 10.3262).abs() < 5e-5);
    }
}
