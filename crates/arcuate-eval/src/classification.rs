//! Classification: accuracy, macro-F1, Matthews correlation and confusion matrix, with bootstrap intervals.
//!
//! # What it computes
//! `macro_f1` is the mean F1 of the classes that occur as label or as prediction (0 where precision and recall are 0), as
//! scikit-learn's `f1_score(average="macro")`; `matthews` is its `matthews_corrcoef`. Intervals are percentiles over resampled documents.

use std::ops::ControlFlow;
use std::path::Path;

use arcuate_data::{Batch, Document, IGNORED_TARGET, Prompt, Row, SourceConfig, collate, reader};
use arcuate_model::{Head, Input, Network, Wanted};
use arcuate_objective::largest;
use arcuate_objective::prompt::open_places;
use arcuate_ops::gradcheck::values;
use arcuate_record::statistics::{Bootstrap, Interval};
use arcuate_text::SpecialToken;
use serde::{Deserialize, Serialize};

use crate::rows::document_row;
use crate::{Done, Error, EvalModel, Result};

/// One document that was classified.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Classified {
    /// Index of the right class.
    pub label: usize,
    /// Index of the predicted class.
    pub predicted: usize,
    /// Loss in nats.
    pub loss: f64,
}

/// Numbers of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// Its name.
    pub label: String,
    /// Right ones among those predicted.
    pub precision: f64,
    /// Right ones among those of the class.
    pub recall: f64,
    /// Harmonic mean of both.
    pub f1: f64,
    /// Documents of the class.
    pub support: u64,
}

/// What a classifier said about one document.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassLogits {
    /// Index of the right class.
    pub label: usize,
    /// A logit for each class.
    pub logits: Vec<f32>,
}

/// Scores of a classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassificationResult {
    /// Documents.
    pub num_documents: u64,
    /// Share of right predictions.
    pub accuracy: f64,
    /// Its bootstrap interval.
    pub accuracy_interval: Interval,
    /// Mean F1 over classes.
    pub macro_f1: f64,
    /// Its bootstrap interval.
    pub macro_f1_interval: Interval,
    /// Correlation of labels and predictions, from -1 to 1; 0 for a prediction that says nothing.
    pub matthews: f64,
    /// Its bootstrap interval.
    pub matthews_interval: Interval,
    /// Accuracy of always saying the most frequent class: what a classifier must beat.
    pub majority_accuracy: f64,
    /// Mean loss in nats.
    pub loss: f64,
    /// Per class.
    pub classes: Vec<ClassScores>,
    /// `confusion[label][predicted]`: documents.
    pub confusion: Vec<Vec<u64>>,
}

/// Counts `[label][predicted]`.
fn confusion(num_classes: usize, pairs: impl Iterator<Item = (usize, usize)>) -> Vec<Vec<u64>> {
    let mut counts = vec![vec![0; num_classes]; num_classes];
    pairs.for_each(|(label, predicted)| counts[label][predicted] += 1);
    counts
}

/// Precision, recall, F1, support, and number of predictions of a class.
fn scores(counts: &[Vec<u64>], class: usize) -> (f64, f64, f64, u64, u64) {
    let right = counts[class][class];
    let support: u64 = counts[class].iter().sum();
    let predicted: u64 = counts.iter().map(|row| row[class]).sum();
    let share = |of: u64| if of == 0 { 0.0 } else { right as f64 / of as f64 };
    let f1 = if support + predicted == 0 { 0.0 } else { 2.0 * right as f64 / (support + predicted) as f64 };
    (share(predicted), share(support), f1, support, predicted)
}

fn macro_f1(counts: &[Vec<u64>]) -> f64 {
    let scores = (0..counts.len()).map(|class| scores(counts, class));
    let (num, sum) = scores
        .filter(|(_, _, _, support, predicted)| support + predicted > 0)
        .fold((0u64, 0.0), |(num, sum), (_, _, f1, _, _)| (num + 1, sum + f1));
    sum / num.max(1) as f64
}

/// Matthews correlation of any number of classes (Gorodkin 2004); 0 where labels or predictions are all the same.
fn matthews(counts: &[Vec<u64>]) -> f64 {
    let classes = || 0..counts.len();
    let (mut right, mut total, mut both, mut labels, mut predictions) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for class in classes() {
        let support = counts[class].iter().sum::<u64>() as f64;
        let predicted = classes().map(|label| counts[label][class]).sum::<u64>() as f64;
        right += counts[class][class] as f64;
        total += support;
        both += support * predicted;
        labels += support * support;
        predictions += predicted * predicted;
    }
    let scale = ((total * total - labels) * (total * total - predictions)).sqrt();
    if scale == 0.0 { 0.0 } else { (right * total - both) / scale }
}

impl ClassificationResult {
    /// Scores of predictions; an error without any or with a class that has no name.
    pub fn new(labels: &[String], items: &[Classified], bootstrap: &Bootstrap) -> Result<Self> {
        let num_classes = labels.len();
        if items.iter().any(|item| item.label >= num_classes || item.predicted >= num_classes) {
            return Err(Error::Unsupported(format!("a prediction is outside of the {num_classes} classes")));
        }
        let empty = || Error::Empty { what: "the data".to_owned(), remedy: "give documents with labels" };
        let pair = |i: usize| (items[i].label, items[i].predicted);
        let is_right = |i: usize| items[i].label == items[i].predicted;
        let accuracy =
            |indices: &[usize]| indices.iter().filter(|i| is_right(**i)).count() as f64 / indices.len() as f64;
        let counted = |indices: &[usize]| confusion(num_classes, indices.iter().map(|i| pair(*i)));
        let f1 = |indices: &[usize]| macro_f1(&counted(indices));
        let correlation = |indices: &[usize]| matthews(&counted(indices));
        let all: Vec<usize> = (0..items.len()).collect();
        let counts = counted(&all);
        let class = |(class, label): (usize, &String)| {
            let (precision, recall, f1, support, _) = scores(&counts, class);
            ClassScores { label: label.clone(), precision, recall, f1, support }
        };
        let most = counts.iter().map(|row| row.iter().sum::<u64>()).max().unwrap_or(0);
        let num = items.len();
        Ok(Self {
            num_documents: num as u64,
            accuracy_interval: bootstrap.interval(num, accuracy).ok_or_else(empty)?,
            accuracy: accuracy(&all),
            macro_f1_interval: bootstrap.interval(num, f1).ok_or_else(empty)?,
            macro_f1: f1(&all),
            matthews_interval: bootstrap.interval(num, correlation).ok_or_else(empty)?,
            matthews: matthews(&counts),
            majority_accuracy: most as f64 / num as f64,
            loss: items.iter().map(|item| item.loss).sum::<f64>() / num as f64,
            classes: labels.iter().enumerate().map(class).collect(),
            confusion: counts,
        })
    }
}

/// Classifies documents in microbatches; a document's label must be a class of the network.
///
/// A text that is too long loses its end, as in training.
pub fn classify(
    model: &EvalModel<'_>,
    documents: impl Iterator<Item = arcuate_data::Result<Document>>,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> Result<Vec<Classified>> {
    let all = class_logits(model, documents, progress)?;
    Ok(all.iter().map(|item| classified(&item.logits, item.label)).collect())
}

/// The logits of documents, in microbatches; as [`classify`].
pub fn class_logits(
    model: &EvalModel<'_>,
    documents: impl Iterator<Item = arcuate_data::Result<Document>>,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> Result<Vec<ClassLogits>> {
    let classes = model.classes();
    let mut items = Vec::new();
    each_document(model, documents, progress, &mut |document, logits| {
        let label = document.label.unwrap_or_default();
        let Some(index) = classes.iter().position(|known| *known == label) else {
            return Err(Error::UnknownLabel { place: document.place, label, known: classes.clone() });
        };
        items.push(ClassLogits { label: index, logits: logits.to_vec() });
        Ok(())
    })?;
    Ok(items)
}

fn special(model: &EvalModel<'_>, token: SpecialToken, name: &str) -> Result<u32> {
    let missing = || Error::Unsupported(format!("the tokenizer has no `{name}`; use the one beside the model"));
    model.tokenizer.special(token).ok_or_else(missing)
}

/// What stands before and after a text.
pub(crate) fn ends(model: &EvalModel<'_>) -> Result<(u32, u32)> {
    Ok((special(model, SpecialToken::Cls, "cls_token")?, special(model, SpecialToken::Sep, "sep_token")?))
}

/// How the documents of a model become rows.
enum Rows<'a> {
    /// `[CLS]` text `[SEP]`, read by a classifier.
    Classifier { cls: u32, sep: u32 },
    /// Written into the sentence of a prompt, whose open place is read.
    Masked { cls: u32, sep: u32, mask: u32, prompt: &'a Prompt, words: Vec<u32> },
    /// The same for a causal model: what follows the sentence is read.
    Causal { bos: Option<u32>, prompt: &'a Prompt, words: Vec<u32> },
}

impl<'a> Rows<'a> {
    fn of(model: &EvalModel<'a>) -> Result<Self> {
        let architecture = model.network.architecture();
        let Some(prompt) = model.prompt else {
            if !matches!(architecture.head(), Head::Classes(_)) {
                let name = architecture.name();
                return Err(Error::Unsupported(format!(
                    "this `{name}` has no classifier; use a checkpoint that was trained with `[objective.classification]` or `[objective.prompt]`"
                )));
            }
            let (cls, sep) = ends(model)?;
            return Ok(Self::Classifier { cls, sep });
        };
        let words = prompt.word_ids(model.tokenizer).map_err(Error::Unsupported)?;
        if architecture.is_causal() {
            return Ok(Self::Causal { bos: model.tokenizer.special(SpecialToken::Bos), prompt, words });
        }
        let (cls, sep) = ends(model)?;
        Ok(Self::Masked { cls, sep, mask: special(model, SpecialToken::Mask, "mask_token")?, prompt, words })
    }

    /// The tokens of a document.
    fn encode(&self, model: &EvalModel<'_>, document: &Document) -> Result<Vec<u32>> {
        let most = model.max_seq_len();
        match self {
            Self::Classifier { cls, sep } => {
                let mut ids = vec![*cls];
                ids.extend(model.tokenizer.encode(&document.text)?);
                ids.truncate(most.saturating_sub(1).max(1));
                ids.push(*sep);
                Ok(ids)
            }
            Self::Masked { cls, sep, mask, prompt, .. } => {
                let text = prompt.encode(model.tokenizer, document, Some(*mask), most.saturating_sub(2))?;
                Ok(std::iter::once(*cls).chain(text).chain([*sep]).collect())
            }
            Self::Causal { bos, prompt, .. } => {
                let text = prompt.encode(model.tokenizer, document, None, most.saturating_sub(2))?;
                Ok(bos.iter().copied().chain(text).collect())
            }
        }
    }

    /// A logit for each class and row.
    fn logits(&self, network: &Network, batch: &Batch) -> Result<Vec<f32>> {
        let (mask, words) = match self {
            Self::Classifier { .. } => {
                return Ok(values(network.forward(&Input::from_batch(batch), &Wanted::Rows)?.logits()));
            }
            Self::Masked { mask, words, .. } => (Some(*mask), words),
            Self::Causal { words, .. } => (None, words),
        };
        let places = Wanted::Tokens(open_places(batch, mask));
        Ok(values(network.forward(&Input::from_batch(batch), &places)?.only(words).logits()))
    }
}

/// Calls `each` with every document and its logits, one for each of [`EvalModel::classes`].
pub fn each_document(
    model: &EvalModel<'_>,
    documents: impl Iterator<Item = arcuate_data::Result<Document>>,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
    each: &mut dyn FnMut(Document, &[f32]) -> Result<()>,
) -> Result<()> {
    let how = Rows::of(model)?;
    let num_classes = model.classes().len();
    let network = model.network.valid();
    let most = model.max_items.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let mut documents = documents.take(most);
    let mut done = Done { rows: 0, tokens: 0 };
    loop {
        let (mut rows, mut read): (Vec<Row>, Vec<Document>) = Default::default();
        while rows.len() < model.microbatch.max(1) {
            let Some(document) = documents.next().transpose()? else { break };
            let ids = how.encode(model, &document)?;
            rows.push(document_row(0, rows.len() as u64, &ids, &vec![IGNORED_TARGET; ids.len()], 0));
            read.push(document);
        }
        if rows.is_empty() {
            return Ok(());
        }
        let batch = collate(&rows, model.pad_id(), None);
        let logits = how.logits(&network, &batch)?;
        for (document, logits) in read.into_iter().zip(logits.chunks(num_classes)) {
            each(document, logits)?;
        }
        done.rows += batch.num_rows as u64;
        done.tokens += batch.num_tokens() as u64;
        if progress(done).is_break() {
            return Err(Error::Interrupted);
        }
    }
}

fn classified(logits: &[f32], label: usize) -> Classified {
    let predicted = largest(logits);
    let top = f64::from(logits[predicted]);
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - top).exp()).sum();
    Classified { label, predicted, loss: top + sum.ln() - f64::from(logits[label]) }
}

/// The documents of a file with the columns `text` and `label`.
pub fn labelled_documents(path: &Path) -> Result<impl Iterator<Item = arcuate_data::Result<Document>>> {
    let label_column = Some("label".to_owned());
    let source = SourceConfig { label_column, ..SourceConfig::new(path.to_string_lossy()) };
    Ok(reader::open_source("task", &source)?)
}

/// Classifies the documents of a file with the columns `text` and `label`.
pub fn classify_file(
    model: &EvalModel<'_>,
    path: &Path,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> Result<ClassificationResult> {
    let items = classify(model, labelled_documents(path)?, progress)?;
    ClassificationResult::new(&model.classes(), &items, &Bootstrap { seed: model.seed, ..Bootstrap::default() })
}

#[cfg(test)]
mod tests;
