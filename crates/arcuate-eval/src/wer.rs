//! Error rates of transcripts: words (WER), characters (CER), any tokens (PER), whole sentences; with intervals and comparisons.
//!
//! # What it computes
//! Rate = (substitutions + insertions + deletions) / words of the references, over all utterances together, not a mean of rates;
//! without a word in any reference, the number of insertions. Both sides go through the same named normaliser first. Characters are code
//! points, the space between words among them. Intervals are percentiles over resampled utterances. Equal to jiwer, without a
//! normaliser.
//! # Reference
//! Morris et al. 2004; Bisani and Ney 2004 (intervals and comparison of two systems by the bootstrap over utterances)

mod align;

use std::collections::BTreeMap;

use arcuate_record::statistics::{Bootstrap, Interval, quantile};
use arcuate_text::Normaliser;
use serde::{Deserialize, Serialize};

pub use align::{Edit, align};

use crate::{Error, Result};

/// Substitutions that are listed.
const MAX_CONFUSIONS: usize = 50;

/// An utterance with what was said and what was recognised.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Transcribed {
    /// Its name.
    pub id: String,
    /// What was said.
    pub reference: String,
    /// What was recognised.
    pub hypothesis: String,
}

/// How often each kind of edit occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EditCounts {
    /// Right.
    pub hits: u64,
    /// Taken for something else.
    pub substitutions: u64,
    /// Too much.
    pub insertions: u64,
    /// Missing.
    pub deletions: u64,
}

impl EditCounts {
    /// The counts of an alignment.
    pub fn of(edits: &[Edit]) -> Self {
        let num = |kind| edits.iter().filter(|edit| **edit == kind).count() as u64;
        Self {
            hits: num(Edit::Hit),
            substitutions: num(Edit::Substitution),
            insertions: num(Edit::Insertion),
            deletions: num(Edit::Deletion),
        }
    }

    /// Words of the reference.
    pub fn num_reference(&self) -> u64 {
        self.hits + self.substitutions + self.deletions
    }

    /// All that is wrong.
    pub fn num_errors(&self) -> u64 {
        self.substitutions + self.insertions + self.deletions
    }

    /// Errors for each word of the reference; for an empty reference, the number of errors.
    pub fn rate(&self) -> f64 {
        self.num_errors() as f64 / self.num_reference().max(1) as f64
    }
}

impl std::iter::Sum for EditCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |a, b| Self {
            hits: a.hits + b.hits,
            substitutions: a.substitutions + b.substitutions,
            insertions: a.insertions + b.insertions,
            deletions: a.deletions + b.deletions,
        })
    }
}

/// A rate over all utterances.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ErrorRate {
    /// Errors for each word of the references.
    pub rate: f64,
    /// Its bootstrap interval.
    pub interval: Interval,
    /// What the errors are.
    pub counts: EditCounts,
}

impl ErrorRate {
    /// The rate of all utterances together; `None` without any.
    pub fn new(utterances: &[EditCounts], bootstrap: &Bootstrap) -> Option<Self> {
        let counts: EditCounts = utterances.iter().copied().sum();
        let interval = bootstrap.interval(utterances.len(), |indices| drawn_rate(utterances, indices))?;
        Some(Self { rate: counts.rate(), interval, counts })
    }
}

fn drawn_rate(utterances: &[EditCounts], indices: &[usize]) -> f64 {
    indices.iter().map(|&index| utterances[index]).sum::<EditCounts>().rate()
}

/// One utterance's part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UtteranceScore {
    /// Its name.
    pub id: String,
    /// What was said, normalised.
    pub reference: String,
    /// What was recognised, normalised.
    pub hypothesis: String,
    /// Edits by words.
    pub words: EditCounts,
    /// Edits by characters.
    pub characters: EditCounts,
}

/// A word that was taken for another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusedWord {
    /// What was said.
    pub reference: String,
    /// What was recognised.
    pub hypothesis: String,
    /// How often.
    pub count: u64,
}

/// Scores of a list of transcripts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TranscriptScores {
    /// The name of the normaliser that both sides went through.
    pub normaliser: String,
    /// Utterances.
    pub num_utterances: u64,
    /// Utterances in which nothing was said; what is recognised there is an insertion.
    pub num_empty_references: u64,
    /// WER.
    pub words: ErrorRate,
    /// CER.
    pub characters: ErrorRate,
    /// Share of utterances with any wrong word.
    pub sentence_error_rate: f64,
    /// Its bootstrap interval.
    pub sentence_error_interval: Interval,
    /// The most frequent substitutions.
    pub confusions: Vec<ConfusedWord>,
    /// Every utterance, in the order given.
    pub utterances: Vec<UtteranceScore>,
}

impl TranscriptScores {
    /// Normalises, aligns and counts.
    ///
    /// # Errors
    /// No utterance; an utterance too long to be aligned.
    pub fn new(transcripts: &[Transcribed], normaliser: &Normaliser, bootstrap: &Bootstrap) -> Result<Self> {
        let mut utterances = Vec::with_capacity(transcripts.len());
        let mut confused: BTreeMap<(String, String), u64> = BTreeMap::new();
        for transcribed in transcripts {
            let (score, substitutions) = score(transcribed, normaliser).map_err(|error| match error {
                Error::Unsupported(reason) => Error::Unsupported(format!("utterance `{}`: {reason}", transcribed.id)),
                other => other,
            })?;
            utterances.push(score);
            substitutions.into_iter().for_each(|pair| *confused.entry(pair).or_default() += 1);
        }
        let mut confusions: Vec<ConfusedWord> = confused
            .into_iter()
            .map(|((reference, hypothesis), count)| ConfusedWord { reference, hypothesis, count })
            .collect();
        confusions.sort_by_key(|word| std::cmp::Reverse(word.count));
        confusions.truncate(MAX_CONFUSIONS);
        let empty =
            || Error::Empty { what: "the list of transcripts".to_owned(), remedy: "name recordings with transcripts" };
        let words: Vec<EditCounts> = utterances.iter().map(|utterance| utterance.words).collect();
        let characters: Vec<EditCounts> = utterances.iter().map(|utterance| utterance.characters).collect();
        let wrong: Vec<f64> = words.iter().map(|counts| f64::from(counts.num_errors() > 0)).collect();
        Ok(Self {
            normaliser: normaliser.name().to_owned(),
            num_utterances: utterances.len() as u64,
            num_empty_references: words.iter().filter(|counts| counts.num_reference() == 0).count() as u64,
            words: ErrorRate::new(&words, bootstrap).ok_or_else(empty)?,
            characters: ErrorRate::new(&characters, bootstrap).ok_or_else(empty)?,
            sentence_error_rate: wrong.iter().sum::<f64>() / wrong.len() as f64,
            sentence_error_interval: bootstrap.mean_interval(&wrong).ok_or_else(empty)?,
            confusions,
            utterances,
        })
    }

    /// The utterances by their WER, the worst first; equal rates by the number of errors, then in the order given.
    pub fn worst_first(&self) -> Vec<&UtteranceScore> {
        let mut all: Vec<&UtteranceScore> = self.utterances.iter().collect();
        all.sort_by(|a, b| {
            b.words.rate().total_cmp(&a.words.rate()).then(b.words.num_errors().cmp(&a.words.num_errors()))
        });
        all
    }
}

/// The score of one utterance and its substitutions.
fn score(transcribed: &Transcribed, normaliser: &Normaliser) -> Result<(UtteranceScore, Vec<(String, String)>)> {
    let (reference, hypothesis) = (normaliser.apply(&transcribed.reference), normaliser.apply(&transcribed.hypothesis));
    let diff = diff_words(&reference, &hypothesis)?;
    let edits: Vec<Edit> = diff.iter().map(|word| word.edit).collect();
    let substitutions = diff
        .into_iter()
        .filter(|word| word.edit == Edit::Substitution)
        .filter_map(|word| Some((word.reference?, word.hypothesis?)))
        .collect();
    let letters = |text: &str| text.chars().collect::<Vec<char>>();
    let score = UtteranceScore {
        id: transcribed.id.clone(),
        words: EditCounts::of(&edits),
        characters: EditCounts::of(&align(&letters(&reference), &letters(&hypothesis))?),
        reference,
        hypothesis,
    };
    Ok((score, substitutions))
}

/// One place of an aligned pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlignedWord {
    /// What became of the word.
    pub edit: Edit,
    /// The word of the reference; none where one was inserted.
    pub reference: Option<String>,
    /// The word of the hypothesis; none where one was deleted.
    pub hypothesis: Option<String>,
}

/// Two texts side by side, word by word.
///
/// # Errors
/// Texts too long to be aligned.
pub fn diff_words(reference: &str, hypothesis: &str) -> Result<Vec<AlignedWord>> {
    let (said, heard): (Vec<&str>, Vec<&str>) =
        (reference.split_whitespace().collect(), hypothesis.split_whitespace().collect());
    let edits = align(&said, &heard)?;
    let (mut said, mut heard) = (said.into_iter().map(str::to_owned), heard.into_iter().map(str::to_owned));
    let place = |edit| AlignedWord {
        edit,
        reference: if edit == Edit::Insertion { None } else { said.next() },
        hypothesis: if edit == Edit::Deletion { None } else { heard.next() },
    };
    Ok(edits.into_iter().map(place).collect())
}

/// How much one system's rate lies above another's, on the same utterances.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RateDifference {
    /// Rate of the second less that of the first: negative where the second is better.
    pub difference: f64,
    /// Its bootstrap interval, both systems drawn together.
    pub interval: Interval,
    /// Share of the resamples in which the second is better.
    pub share_better: f64,
    /// Share of the resamples in which the second is worse.
    pub share_worse: f64,
}

/// Compares the rates of two systems, utterance by utterance. `None` without utterances or with unequal numbers.
pub fn compare_rates(first: &[EditCounts], second: &[EditCounts], bootstrap: &Bootstrap) -> Option<RateDifference> {
    if first.len() != second.len() {
        return None;
    }
    let drawn = bootstrap.draws(first.len(), |indices| drawn_rate(second, indices) - drawn_rate(first, indices));
    let tail = (1.0 - bootstrap.level.clamp(0.0, 1.0)) / 2.0;
    let share = |is: fn(f64) -> bool| drawn.iter().filter(|value| is(**value)).count() as f64 / drawn.len() as f64;
    let rate = |all: &[EditCounts]| all.iter().copied().sum::<EditCounts>().rate();
    Some(RateDifference {
        difference: rate(second) - rate(first),
        interval: Interval { low: quantile(&drawn, tail)?, high: quantile(&drawn, 1.0 - tail)? },
        share_better: share(|value| value < 0.0),
        share_worse: share(|value| value > 0.0),
    })
}

/// Two systems on the same utterances.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ComparedScores {
    /// By WER.
    pub words: RateDifference,
    /// By CER.
    pub characters: RateDifference,
}

/// Compares two systems.
///
/// # Errors
/// Lists that are not of the same utterances with the same references, by the first that differs.
pub fn compare_scores(
    first: &TranscriptScores,
    second: &TranscriptScores,
    bootstrap: &Bootstrap,
) -> Result<ComparedScores> {
    let (a, b) = (&first.utterances, &second.utterances);
    let differs = a.iter().zip(b).find(|(a, b)| a.id != b.id || a.reference != b.reference);
    let refused =
        |why: String| Error::Unsupported(format!("{why}; compare systems on the same utterances with one normaliser"));
    if let Some((a, b)) = differs {
        let why = if a.id == b.id {
            format!("the references of `{}` differ", a.id)
        } else {
            format!("`{}` stands against `{}`", a.id, b.id)
        };
        return Err(refused(why));
    }
    let counts = |all: &[UtteranceScore], of: fn(&UtteranceScore) -> EditCounts| all.iter().map(of).collect::<Vec<_>>();
    let compared = |of: fn(&UtteranceScore) -> EditCounts| {
        compare_rates(&counts(a, of), &counts(b, of), bootstrap)
            .ok_or_else(|| refused(format!("{} utterances stand against {}", a.len(), b.len())))
    };
    Ok(ComparedScores { words: compared(|score| score.words)?, characters: compared(|score| score.characters)? })
}

#[cfg(test)]
mod tests;
