//! A soft committee: several classifiers answer together by the mean of their probabilities or of their logits.
//!
//! # What it computes
//! The class with the largest mean over members of softmax(logits), or of the logits as they are. The loss is that of the mean
//! probability, or of the softmax of the mean logits. The two means may choose different classes.
//! # Reference
//! Gross et al. 2025 (tiny language models).

use arcuate_objective::largest;

use crate::{ClassLogits, Classified, Error, Result};

/// What is averaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitteeMean {
    /// Probabilities.
    Probability,
    /// Logits.
    Logit,
}

/// The answers of a committee: `members[m][i]` are the logits of member m for document i.
///
/// Members must have seen the same documents, and no two may give the same logits for all of them: they would be one member.
pub fn committee(members: &[Vec<ClassLogits>], mean: CommitteeMean) -> Result<Vec<Classified>> {
    let Some(first) = members.first() else {
        return Err(Error::Unsupported("a committee needs at least one member".to_owned()));
    };
    for (number, member) in members.iter().enumerate() {
        let is_same = |(own, other): (&ClassLogits, &ClassLogits)| {
            own.label == other.label && own.logits.len() == other.logits.len()
        };
        if member.len() != first.len() || !member.iter().zip(first).all(is_same) {
            let message = format!(
                "member {} of the committee has seen other documents or has other classes than member 1",
                number + 1
            );
            return Err(Error::Unsupported(message));
        }
        if let Some(twin) = members[..number].iter().position(|other| other == member).filter(|_| !first.is_empty()) {
            let message = format!(
                "members {} and {} of the committee are the same model; train them with different seeds",
                twin + 1,
                number + 1
            );
            return Err(Error::Unsupported(message));
        }
    }
    let answer = |document: usize| {
        let num_classes = first[document].logits.len();
        let mut sum = vec![0.0; num_classes];
        for member in members {
            let logits: Vec<f64> = member[document].logits.iter().map(|x| f64::from(*x)).collect();
            let terms = match mean {
                CommitteeMean::Probability => softmax(&logits),
                CommitteeMean::Logit => logits,
            };
            sum.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term);
        }
        let mean_of: Vec<f64> = sum.iter().map(|sum| sum / members.len() as f64).collect();
        let predicted = largest(&mean_of);
        let probabilities = match mean {
            CommitteeMean::Probability => mean_of,
            CommitteeMean::Logit => softmax(&mean_of),
        };
        let label = first[document].label;
        Classified { label, predicted, loss: -probabilities[label].max(f64::MIN_POSITIVE).ln() }
    };
    Ok((0..first.len()).map(answer).collect())
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|x| (x - top).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::close;

    fn member(logits: [f32; 2]) -> Vec<ClassLogits> {
        vec![ClassLogits { label: 0, logits: logits.to_vec() }]
    }

    fn three() -> Vec<Vec<ClassLogits>> {
        vec![member([2.0, 0.0]), member([-1.0, 1.5]), member([0.2, 0.0])]
    }

    #[test]
    fn the_two_means_may_disagree() {
        let by = |mean| committee(&three(), mean).expect("sound")[0];
        let (probability, logit) = (by(CommitteeMean::Probability), by(CommitteeMean::Logit));
        assert_eq!((probability.predicted, logit.predicted), (0, 1));
        assert!((probability.loss + 0.502_163_f64.ln()).abs() < 1e-6);
        assert!((logit.loss - (1.0 + 0.1_f64.exp()).ln()).abs() < 1e-6);
    }

    #[test]
    fn one_member_is_itself_and_order_does_not_matter() {
        let alone = committee(&[member([2.0, 0.0])], CommitteeMean::Probability).expect("sound")[0];
        close(alone.loss, (1.0 + (-2.0_f64).exp()).ln());
        let mut turned = three();
        turned.reverse();
        let (a, b) = (committee(&three(), CommitteeMean::Probability), committee(&turned, CommitteeMean::Probability));
        close(a.expect("sound")[0].loss, b.expect("sound")[0].loss);
    }

    #[test]
    fn members_must_be_different_models_of_the_same_documents() {
        let error = |members: &[Vec<ClassLogits>]| {
            committee(members, CommitteeMean::Logit).expect_err("wrong on purpose").to_string()
        };
        assert!(error(&[three(), vec![member([2.0, 0.0])]].concat()).contains("members 1 and 4"));
        assert!(error(&[member([2.0, 0.0]), Vec::new()]).contains("member 2"));
        assert!(error(&[]).contains("at least one member"));
    }
}
