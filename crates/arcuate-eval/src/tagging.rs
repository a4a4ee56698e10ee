//! Tagging: accuracy over words and F1 over entities, with bootstrap intervals.
//!
//! # What it computes
//! `accuracy` is the share of words with the right tag. Where all tags are `O` or begin with `B-`, `I-`, `E-` or `S-`, entities are
//! what seqeval finds in its default mode: stretches of one type, whether they begin with `B-` or not. One is right if type,
//! first and last word are. `precision`, `recall` and `f1` are over the entities of all documents together. Intervals are
//! percentiles over resampled documents. Words past the longest row are not read and do not count.
//!
//! # Reference
//! Tjong Kim Sang and De Meulder 2003; Nakayama 2018 (seqeval)

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use arcuate_data::{Document, IGNORED_TARGET, Row, SourceConfig, Words, collate, reader};
use arcuate_model::{Head, Input, Wanted};
use arcuate_record::statistics::{Bootstrap, Interval};
use serde::{Deserialize, Serialize};

use crate::classification::ends;
use crate::rows::document_row;
use crate::{ClassScores, Done, Error, EvalModel, Result};

/// The words of one document that were tagged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tagged {
    /// Index of the right tag of each word.
    pub tags: Vec<usize>,
    /// Index of the predicted tag of each word.
    pub predicted: Vec<usize>,
    /// Words that did not fit into a row.
    pub num_cut: u64,
}

/// Scores over entities.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EntityScores {
    /// Right ones among those predicted.
    pub precision: f64,
    /// Right ones among those there are.
    pub recall: f64,
    /// Harmonic mean of both; 0 where both are.
    pub f1: f64,
    /// Its bootstrap interval.
    pub f1_interval: Interval,
    /// Per type of entity.
    pub types: Vec<ClassScores>,
}

/// Scores of a tagger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaggingResult {
    /// Documents.
    pub num_documents: u64,
    /// Words that were tagged.
    pub num_words: u64,
    /// Words that did not fit into a row.
    pub num_cut_words: u64,
    /// Share of right tags.
    pub accuracy: f64,
    /// Its bootstrap interval.
    pub accuracy_interval: Interval,
    /// Accuracy of always giving the most frequent tag: what a tagger must beat.
    pub majority_accuracy: f64,
    /// Over entities; none if the tags do not mark any.
    pub entities: Option<EntityScores>,
}

/// A stretch of words: type, first and last word.
type Entity<'a> = (&'a str, usize, usize);

/// Whether tags mark where entities begin and go on.
fn marks_entities(names: &[String]) -> bool {
    let is_mark = |name: &String| name == "O" || ["B-", "I-", "E-", "S-"].iter().any(|start| name.starts_with(start));
    names.iter().all(is_mark)
}

/// The entities of a text, all of whose tags are marks.
fn entities<'a>(tags: impl Iterator<Item = &'a str>) -> BTreeSet<Entity<'a>> {
    let mut found = BTreeSet::new();
    let (mut start, mut before, mut before_kind) = (0, "O", "");
    for (at, name) in tags.chain(["O"]).enumerate() {
        let (mark, kind) = name.split_once('-').unwrap_or((name, ""));
        let is_other = kind != before_kind;
        let ends = match before {
            "O" => false,
            "E" | "S" => true,
            _ => is_other || matches!(mark, "B" | "S" | "O"),
        };
        if ends {
            found.insert((before_kind, start, at - 1));
        }
        let starts = match mark {
            "O" => false,
            "B" | "S" => true,
            _ => is_other || matches!(before, "E" | "S" | "O"),
        };
        if starts {
            start = at;
        }
        (before, before_kind) = (mark, kind);
    }
    found
}

/// How many entities are right, predicted and there.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    right: u64,
    predicted: u64,
    there: u64,
}

impl Counts {
    fn add(self, other: Self) -> Self {
        Self {
            right: self.right + other.right,
            predicted: self.predicted + other.predicted,
            there: self.there + other.there,
        }
    }

    fn precision(self) -> f64 {
        share(self.right, self.predicted)
    }

    fn recall(self) -> f64 {
        share(self.right, self.there)
    }

    fn f1(self) -> f64 {
        share(2 * self.right, self.predicted + self.there)
    }
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { part as f64 / of as f64 }
}

fn entity_scores(names: &[String], items: &[Tagged], bootstrap: &Bootstrap) -> Option<EntityScores> {
    let mut types: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut documents = Vec::with_capacity(items.len());
    for item in items {
        let of = |tags: &[usize]| entities(tags.iter().map(|tag| names[*tag].as_str()));
        let (there, predicted) = (of(&item.tags), of(&item.predicted));
        let mut all = Counts::default();
        for entity in there.union(&predicted) {
            let is = |set: &BTreeSet<Entity<'_>>| u64::from(set.contains(entity));
            let counts = Counts { right: is(&there) * is(&predicted), predicted: is(&predicted), there: is(&there) };
            all = all.add(counts);
            let own = types.entry(entity.0).or_default();
            *own = own.add(counts);
        }
        documents.push(all);
    }
    let sum = |indices: &[usize]| indices.iter().fold(Counts::default(), |sum, i| sum.add(documents[*i]));
    let all = documents.iter().fold(Counts::default(), |sum, counts| sum.add(*counts));
    let scores = |(kind, counts): (&str, Counts)| ClassScores {
        label: kind.to_owned(),
        precision: counts.precision(),
        recall: counts.recall(),
        f1: counts.f1(),
        support: counts.there,
    };
    Some(EntityScores {
        precision: all.precision(),
        recall: all.recall(),
        f1: all.f1(),
        f1_interval: bootstrap.interval(documents.len(), |indices: &[usize]| sum(indices).f1())?,
        types: types.into_iter().map(scores).collect(),
    })
}

impl TaggingResult {
    /// Scores of predictions; an error without any or with a tag that has no name.
    pub fn new(names: &[String], items: &[Tagged], bootstrap: &Bootstrap) -> Result<Self> {
        let is_sound = |item: &Tagged| {
            item.tags.len() == item.predicted.len()
                && item.tags.iter().chain(&item.predicted).all(|tag| *tag < names.len())
        };
        if !items.iter().all(is_sound) {
            return Err(Error::Unsupported(format!("a prediction is outside of the {} tags", names.len())));
        }
        let empty = || Error::Empty { what: "the data".to_owned(), remedy: "give documents with tags" };
        let right = |item: &Tagged| item.tags.iter().zip(&item.predicted).filter(|(a, b)| a == b).count() as u64;
        let counts: Vec<(u64, u64)> = items.iter().map(|item| (right(item), item.tags.len() as u64)).collect();
        let accuracy = |indices: &[usize]| {
            let (right, words) = indices.iter().fold((0, 0), |sum, i| (sum.0 + counts[*i].0, sum.1 + counts[*i].1));
            share(right, words)
        };
        let num_words: u64 = counts.iter().map(|count| count.1).sum();
        if num_words == 0 {
            return Err(empty());
        }
        let mut by_tag = vec![0u64; names.len()];
        items.iter().flat_map(|item| &item.tags).for_each(|tag| by_tag[*tag] += 1);
        let all: Vec<usize> = (0..items.len()).collect();
        Ok(Self {
            num_documents: items.len() as u64,
            num_words,
            num_cut_words: items.iter().map(|item| item.num_cut).sum(),
            accuracy: accuracy(&all),
            accuracy_interval: bootstrap.interval(items.len(), accuracy).ok_or_else(empty)?,
            majority_accuracy: share(by_tag.iter().copied().max().unwrap_or(0), num_words),
            entities: if marks_entities(names) { entity_scores(names, items, bootstrap) } else { None },
        })
    }
}

/// Tags the words of documents in microbatches; a tag of a document must be one of the network's.
pub fn tag(
    model: &EvalModel<'_>,
    documents: impl Iterator<Item = arcuate_data::Result<Document>>,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> Result<Vec<Tagged>> {
    let architecture = model.network.architecture();
    let Head::Tags { names, .. } = architecture.head() else {
        return Err(Error::Unsupported(format!(
            "this `{}` tags no words; use a checkpoint that was trained with `[objective.tagging]`",
            architecture.name()
        )));
    };
    let (cls, sep) = ends(model)?;
    let network = model.network.valid();
    let room = model.max_seq_len().saturating_sub(2);
    let most = model.max_items.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
    let mut documents = documents.take(most);
    let mut done = Done { rows: 0, tokens: 0 };
    let mut items = Vec::new();
    loop {
        let (mut rows, mut read): (Vec<Row>, Vec<Tagged>) = Default::default();
        while rows.len() < model.microbatch.max(1) {
            let Some(document) = documents.next().transpose()? else { break };
            let mut words = Words::encode(model.tokenizer, &document)?;
            let mut tags = numbers(names, &document)?;
            let num_read = words.starts.iter().filter(|start| **start < room).count().min(tags.len());
            words.ids.truncate(room);
            let num_cut = (tags.len() - num_read) as u64;
            tags.truncate(num_read);
            let ids: Vec<u32> = [cls].into_iter().chain(words.ids).chain([sep]).collect();
            let mut targets = vec![IGNORED_TARGET; ids.len()];
            words.starts.iter().zip(&tags).for_each(|(start, tag)| targets[start + 1] = *tag as i32);
            rows.push(document_row(0, rows.len() as u64, &ids, &targets, 0));
            read.push(Tagged { tags, predicted: Vec::new(), num_cut });
        }
        if rows.is_empty() {
            return Ok(items);
        }
        let batch = collate(&rows, model.pad_id(), None);
        let places: Arc<[i32]> =
            (0..batch.targets.len()).filter(|at| batch.targets[*at] >= 0).map(|at| at as i32).collect();
        let lengths: Vec<usize> = read.iter().map(|item| item.tags.len()).collect();
        let output = network.forward(&Input::from_batch(&batch), &Wanted::Tokens(places))?;
        let mut best = output.best(&lengths).into_iter().map(|tag| tag as usize);
        for mut item in read {
            item.predicted.extend(best.by_ref().take(item.tags.len()));
            items.push(item);
        }
        done.rows += batch.num_rows as u64;
        done.tokens += batch.num_tokens() as u64;
        if progress(done).is_break() {
            return Err(Error::Interrupted);
        }
    }
}

/// The tags of a document by number.
fn numbers(names: &[String], document: &Document) -> Result<Vec<usize>> {
    let number = |tag: &String| {
        let (place, label) = (document.place.clone(), tag.clone());
        let unknown = || Error::UnknownLabel { place, label, known: names.to_vec() };
        names.iter().position(|name| name == tag).ok_or_else(unknown)
    };
    document.tags.iter().flatten().map(number).collect()
}

/// Tags the documents of a file with the columns `text` and `tags`.
pub fn tag_file(
    model: &EvalModel<'_>,
    path: &Path,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> Result<TaggingResult> {
    let tags_column = Some("tags".to_owned());
    let source = SourceConfig { tags_column, ..SourceConfig::new(path.to_string_lossy()) };
    let items = tag(model, reader::open_source("task", &source)?, progress)?;
    TaggingResult::new(&model.classes(), &items, &Bootstrap { seed: model.seed, ..Bootstrap::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{classifier, close, tagger, words};

    fn found(tags: &str) -> Vec<Entity<'_>> {
        entities(tags.split_whitespace()).into_iter().collect()
    }

    #[test]
    fn entities_are_those_of_seqeval() {
        assert_eq!(found("B-PER I-PER O B-LOC"), [("LOC", 3, 3), ("PER", 0, 1)]);
        // Without a beginning, too.
        assert_eq!(found("O I-PER I-PER O"), [("PER", 1, 2)]);
        assert_eq!(found("B-PER I-LOC I-LOC"), [("LOC", 1, 2), ("PER", 0, 0)]);
        assert_eq!(found("I-PER B-PER I-PER"), [("PER", 0, 0), ("PER", 1, 2)]);
        assert_eq!(found("B-PER B-PER"), [("PER", 0, 0), ("PER", 1, 1)]);
        assert_eq!(found("S-X I-X E-X E-X O"), [("X", 0, 0), ("X", 1, 2), ("X", 3, 3)]);
        assert_eq!(found("B-a-b I-a-b"), [("a-b", 0, 1)]);
        assert_eq!(found("O O"), []);
        assert_eq!(found(""), []);
    }

    fn names() -> Vec<String> {
        ["B-LOC", "B-PER", "I-LOC", "I-PER", "O"].map(str::to_owned).into()
    }

    fn item(tags: &str, predicted: &str) -> Tagged {
        let of = |text: &str| -> Vec<usize> {
            let number = |tag| names().iter().position(|name| name == tag).expect("a name");
            text.split_whitespace().map(number).collect()
        };
        Tagged { tags: of(tags), predicted: of(predicted), num_cut: 0 }
    }

    #[test]
    fn scores_are_those_counted_by_hand() {
        let items = [
            // Right: PER 0-1. Wrong: LOC is one word short.
            item("B-PER I-PER O B-LOC I-LOC", "B-PER I-PER O B-LOC O"),
            // Nothing there, one predicted.
            item("O O", "O B-LOC"),
            // The right words with another type.
            item("B-LOC", "B-PER"),
        ];
        let result = TaggingResult::new(&names(), &items, &Bootstrap::default()).expect("scored");
        assert_eq!((result.num_documents, result.num_words), (3, 8));
        close(result.accuracy, 5.0 / 8.0);
        close(result.majority_accuracy, 3.0 / 8.0);
        let entities = result.entities.expect("marked");
        // 4 predicted, 3 there, 1 right.
        close(entities.precision, 0.25);
        close(entities.recall, 1.0 / 3.0);
        close(entities.f1, 2.0 / 7.0);
        let by_type: Vec<_> = entities.types.iter().map(|t| (t.label.as_str(), t.f1, t.support)).collect();
        assert_eq!(by_type, [("LOC", 0.0, 2), ("PER", 2.0 / 3.0, 1)]);
        assert!(entities.f1_interval.low <= entities.f1 && entities.f1 <= entities.f1_interval.high);
    }

    #[test]
    fn tags_that_mark_nothing_give_accuracy_alone() {
        let nouns = ["NOUN".to_owned(), "VERB".to_owned()];
        let item = Tagged { tags: vec![0, 1], predicted: vec![0, 0], num_cut: 3 };
        let result = TaggingResult::new(&nouns, std::slice::from_ref(&item), &Bootstrap::default()).expect("scored");
        assert_eq!((result.accuracy, result.entities, result.num_cut_words), (0.5, None, 3));
        assert!(TaggingResult::new(&nouns[..1], &[item], &Bootstrap::default()).is_err());
        let nothing = TaggingResult::new(&nouns, &[Tagged::default()], &Bootstrap::default());
        assert!(matches!(nothing, Err(Error::Empty { .. })));
        let perfect = TaggingResult::new(&names(), &[super::tests::item("O O", "O O")], &Bootstrap::default());
        assert_eq!(perfect.expect("scored").entities.expect("marked").f1, 0.0);
    }

    fn documents(lines: &[(&str, &[&str])]) -> Vec<arcuate_data::Result<Document>> {
        let document = |(text, tags): &(&str, &[&str])| {
            let tags = Some(tags.iter().map(|tag| (*tag).to_owned()).collect());
            Ok(Document { text: (*text).to_owned(), tags, place: "x:1".to_owned(), ..Document::default() })
        };
        lines.iter().map(document).collect()
    }

    #[test]
    fn documents_are_tagged_alike_in_batches_of_any_size() {
        let tokenizer = words();
        for crf in [false, true] {
            let network = tagger(tokenizer.vocab_size(), &["B-X", "I-X", "O"], crf);
            let lines: [(&str, &[&str]); 3] = [
                ("the people of", &["O", "B-X", "O"]),
                ("union", &["B-X"]),
                ("the state of the union and the people of the state of the union and the people", &["O"; 16]),
            ];
            let run = |microbatch| {
                let model = EvalModel { microbatch, ..EvalModel::new(&network, &tokenizer) };
                let mut quiet = |_: Done| ControlFlow::Continue(());
                tag(&model, documents(&lines).into_iter(), &mut quiet).expect("tagged")
            };
            let one = run(1);
            assert_eq!(one[0].tags, [2, 0, 2]);
            assert!(one.iter().all(|item| item.predicted.len() == item.tags.len()));
            // A row of 16 tokens holds fewer than 16 words and their ends.
            assert_eq!(one[2].tags.len() as u64 + one[2].num_cut, 16);
            assert!(one[2].num_cut >= 2);
            assert_eq!(run(3), one);
            let model = EvalModel::new(&network, &tokenizer);
            let mut quiet = |_: Done| ControlFlow::Continue(());
            let unknown = tag(&model, documents(&[("the", &["Z"])]).into_iter(), &mut quiet).expect_err("no such tag");
            assert!(matches!(unknown, Error::UnknownLabel { .. }), "{unknown}");
        }
        let network = classifier(tokenizer.vocab_size(), &["A", "B"]);
        let mut quiet = |_: Done| ControlFlow::Continue(());
        let error = tag(&EvalModel::new(&network, &tokenizer), std::iter::empty(), &mut quiet).expect_err("no tagger");
        assert!(error.to_string().contains("[objective.tagging]"), "{error}");
    }
}
