//! Signs that a run has stopped learning although its numbers are finite: codebooks, contrast, blanks, gradients.
//!
//! Each sign is a condition on the numbers beside the loss. It is told once it has held for so many steps in a row, not before
//! the run is so old that its warm-up is over, and again only after it has gone.

use std::collections::BTreeMap;

use crate::config::GuardConfig;

/// What the numbers of a step may be asked for.
struct Numbers<'a> {
    terms: &'a [(&'static str, f64)],
    grad_norm: f64,
}

impl Numbers<'_> {
    fn term(&self, name: &str) -> Option<f64> {
        self.terms.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }
}

/// A condition that no healthy run fulfils for long.
struct Sign {
    name: &'static str,
    /// What is seen, where it is seen.
    seen: fn(&Numbers<'_>) -> Option<String>,
    causes: &'static [&'static str],
    next: &'static str,
}

/// Perplexity of a codebook below which it says next to nothing.
const MIN_PERPLEXITY: f64 = 2.0;
/// Accuracy and loss of a contrast in which nothing competes any more.
const WON: (f64, f64) = (0.999, 0.01);
/// How near to chance a loss is, relative to it.
const NEAR_CHANCE: f64 = 0.005;
/// Shares of blanks and of dead entries that leave nothing over.
const ALL_BLANK: f64 = 0.999;
const MANY_DEAD: f64 = 0.95;
/// A gradient norm that moves nothing.
const NO_GRADIENT: f64 = 1e-7;

const SIGNS: &[Sign] = &[
    Sign {
        name: "codebook",
        seen: |numbers| {
            let perplexity = numbers.term("codebook_perplexity").filter(|perplexity| *perplexity < MIN_PERPLEXITY)?;
            Some(format!(
                "the codebooks have collapsed: their perplexity is {perplexity:.2}, so nearly all frames take one entry"
            ))
        },
        causes: &[
            "the learning rate or its warm-up is too steep",
            "too little audio in a step",
            "too small a weight of the diversity loss",
            "in continued pretraining, noise that starts hotter than it ended",
        ],
        next: "halve `peak_learning_rate` and double the warm-up, raise `accumulate_steps` in `[batch]`, or raise \
               `diversity_weight`; in continued pretraining set `gumbel.start` to where the earlier run ended",
    },
    Sign {
        name: "contrast",
        seen: |numbers| {
            let (accuracy, loss) = (numbers.term("contrastive_accuracy")?, numbers.term("contrastive_loss")?);
            (accuracy >= WON.0 && loss <= WON.1).then(|| {
                format!("nothing competes with the targets: accuracy {accuracy:.3} at a contrastive loss of {loss:.1e}")
            })
        },
        causes: &[
            "all frames of a row take the same codes, and others with the same codes do not compete",
            "rows of silence or of one tone",
        ],
        next: "look at `code_perplexity` in `metrics.jsonl`: if it is near the number of codebooks, halve \
               `peak_learning_rate` and raise `diversity_weight` and `accumulate_steps`; else look at the audio",
    },
    Sign {
        name: "chance",
        seen: |numbers| {
            let (loss, chance) = (numbers.term("contrastive_loss")?, numbers.term("contrastive_chance")?);
            ((loss / chance - 1.0).abs() < NEAR_CHANCE)
                .then(|| format!("the contrastive loss of {loss:.4} is that of chance, {chance:.4}"))
        },
        causes: &[
            "the learning rate is too low or too high",
            "targets or queries are all alike",
            "the warm-up is not over",
        ],
        next: "try three times and a third of `peak_learning_rate`; if the warm-up is long, raise `collapse_after_steps` in \
               `[guard]`",
    },
    Sign {
        name: "gradient",
        seen: |numbers| {
            // The sum over no gradient at all is -0.
            let norm = numbers.grad_norm.abs();
            (norm < NO_GRADIENT).then(|| format!("the gradient has vanished: its norm is {norm:.1e}"))
        },
        causes: &["nearly all parameters are frozen or cut off from the loss", "saturated or dead units"],
        next: "look at `freeze` and `freeze_until`, and at `arcuate check` of the recipe, which lists what is trained",
    },
    Sign {
        name: "blank",
        seen: |numbers| {
            let share = numbers.term("blank_share").filter(|share| *share >= ALL_BLANK)?;
            Some(format!("the network says only blanks: {:.1} % of the frames", 100.0 * share))
        },
        causes: &[
            "the warm-up of CTC takes longer than this",
            "the learning rate is too high, or the encoder is frozen and not pretrained",
            "transcripts that do not belong to their audio, or rows that are mostly silence",
        ],
        next: "go on if `loss` still falls, with a larger `collapse_after_steps` in `[guard]`; else lower \
               `peak_learning_rate`, lower the shares of `time_mask` and `channel_mask`, and read a few transcripts against \
               their audio",
    },
    Sign {
        name: "dead_entries",
        seen: |numbers| {
            let share = numbers.term("dead_entries").filter(|share| *share >= MANY_DEAD)?;
            Some(format!("{:.0} % of the codebook entries are dead: hardly any frame takes them", 100.0 * share))
        },
        causes: &["codebooks larger than the data can fill", "too small a weight of the diversity loss"],
        next: "raise `diversity_weight`, or use fewer entries in a codebook",
    },
];

/// A sign that has held for too long.
#[derive(Debug, Clone, PartialEq)]
pub struct Collapse {
    /// What was seen, and for how long.
    pub what: String,
    /// Likely causes, the likeliest first.
    pub causes: Vec<String>,
    /// The next command or edit.
    pub next: String,
}

impl std::fmt::Display for Collapse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; likely causes: {}; next: {}", self.what, self.causes.join("; "), self.next)
    }
}

/// Looks at the numbers of `step` (from 0). `held` is how many steps in a row each sign has been seen, this one included.
///
/// Of several signs that are told at once the first is the cause of the others.
pub(super) fn watch(
    config: &GuardConfig,
    held: &mut BTreeMap<String, u64>,
    step: u64,
    terms: &[(&'static str, f64)],
    grad_norm: f64,
) -> Option<Collapse> {
    if step < config.collapse_after_steps {
        return None;
    }
    let numbers = Numbers { terms, grad_norm };
    let mut told = None;
    for sign in SIGNS {
        let Some(what) = (sign.seen)(&numbers) else {
            held.remove(sign.name);
            continue;
        };
        let steps = held.entry(sign.name.to_owned()).or_insert(0);
        *steps += 1;
        if *steps == config.collapse_steps && told.is_none() {
            told = Some(Collapse {
                what: format!("{what}, for {steps} steps now"),
                causes: sign.causes.iter().map(|cause| (*cause).to_owned()).collect(),
                next: sign.next.to_owned(),
            });
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GuardConfig {
        GuardConfig { collapse_steps: 20, collapse_after_steps: 50, ..GuardConfig::default() }
    }

    const HEALTHY: [(&str, f64); 7] = [
        ("codebook_perplexity", 40.0),
        ("contrastive_accuracy", 0.4),
        ("contrastive_loss", 2.5),
        ("contrastive_chance", 4.615_121),
        ("dead_entries", 0.1),
        ("blank_share", 0.8),
        ("unknown", 0.0),
    ];

    /// Healthy numbers but for these.
    fn but(failing: &[(&'static str, f64)]) -> Vec<(&'static str, f64)> {
        let value = |name| failing.iter().find(|(other, _)| *other == name).map(|(_, value)| *value);
        HEALTHY.iter().map(|(name, healthy)| (*name, value(*name).unwrap_or(*healthy))).collect()
    }

    /// What is told at which step.
    fn told(terms: &[(&'static str, f64)], grad_norm: f64) -> Vec<(u64, String)> {
        let mut held = BTreeMap::new();
        let mut watch = |step| watch(&config(), &mut held, step, terms, grad_norm).map(|sign| (step, sign.to_string()));
        (0..200).filter_map(&mut watch).collect()
    }

    #[test]
    fn a_healthy_run_shows_no_sign() {
        assert_eq!(told(&but(&[]), 1.0), []);
        assert_eq!(told(&[], 1.0), [], "objectives without such numbers are not judged by them");
    }

    #[test]
    fn each_failure_is_told_once_with_its_remedy() {
        type Case = (&'static [(&'static str, f64)], f64, &'static str, &'static str);
        let cases: [Case; 6] = [
            (&[("codebook_perplexity", 1.02)], 1.0, "their perplexity is 1.02", "raise `diversity_weight`"),
            (
                &[("contrastive_accuracy", 1.0), ("contrastive_loss", 0.0)],
                1.0,
                "accuracy 1.000 at a contrastive loss of 0.0e0",
                "look at `code_perplexity`",
            ),
            (&[("contrastive_loss", 4.61)], 1.0, "that of chance, 4.6151", "a third of `peak_learning_rate`"),
            (&[], 1e-9, "its norm is 1.0e-9", "look at `freeze`"),
            (&[("blank_share", 1.0)], 1.0, "only blanks: 100.0 % of the frames", "lower `peak_learning_rate`"),
            (&[("dead_entries", 0.97)], 1.0, "97 % of the codebook entries", "fewer entries"),
        ];
        for (failing, grad_norm, what, next) in cases {
            let told = told(&but(failing), grad_norm);
            assert_eq!(told.len(), 1, "{told:?}");
            // The first 50 steps are not looked at, then it has to hold for 20.
            assert_eq!(told[0].0, 69);
            for part in [what, ", for 20 steps now; likely causes: ", next] {
                assert!(told[0].1.contains(part), "{}", told[0].1);
            }
        }
    }

    #[test]
    fn what_comes_and_goes_is_never_told_and_what_comes_back_is_told_again() {
        let mut held = BTreeMap::new();
        let mut at = |step: u64, fails: bool| {
            let terms = but(if fails { &[("blank_share", 1.0)] } else { &[] });
            watch(&config(), &mut held, step, &terms, 1.0).is_some()
        };
        assert!((50..500).all(|step| !at(step, step % 20 != 0)));
        assert_eq!((500..600).filter(|step| at(*step, *step != 550)).count(), 2);
    }

    #[test]
    fn the_cause_is_told_before_what_follows_from_it() {
        let all = but(&[
            ("codebook_perplexity", 1.0),
            ("contrastive_accuracy", 1.0),
            ("contrastive_loss", 0.0),
            ("dead_entries", 1.0),
        ]);
        let told = told(&all, 1.0);
        assert!(told.len() == 1 && told[0].1.starts_with("the codebooks have collapsed"), "{told:?}");
    }
}
