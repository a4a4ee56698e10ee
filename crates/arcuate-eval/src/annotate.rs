//! Annotation: what a classifier says of texts, written beside them so that another model can learn it.
//!
//! Every line holds its document, the class found most probable as `label`, its `probability`, and `logits` by the name of the class
//! (less the largest, so that 16 bits would do). Lines stand alone: they can be shuffled, joined and filtered without one being
//! given the logits of another. `scorer` is the beginning of the hash of the model's weights.
//!
//! # Reference
//! Guo 2020 (predictions for pretraining); Shi and Lipani 2023 (filled prompts).

use std::collections::BTreeMap;

use arcuate_data::draw::line;
use arcuate_data::{Document, Prompt};
use arcuate_objective::largest;
use arcuate_ops::rng::Stream;
use serde_json::{Map, Value, json};

use crate::{Error, Result};

/// Which class a document is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Labels {
    /// The one that the model finds most probable.
    Predicted,
    /// A random one, all equally probable: a control.
    Random,
    /// The one that the document has: a control.
    Own,
}

/// A document with what the model said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotated {
    /// Index of the class that it is given.
    pub class: usize,
    /// Probability of the most probable class.
    pub probability: f64,
    /// The line.
    pub line: Map<String, Value>,
}

/// How documents are annotated.
#[derive(Debug, Clone)]
pub struct Annotation<'a> {
    /// The classes, in the order of the logits.
    pub classes: &'a [String],
    /// Beginning of the hash of the weights.
    pub scorer: &'a str,
    /// Which class a document is given.
    pub labels: Labels,
    /// Write the document into this sentence, with the word of its class in the open place: lines for masked-LM training.
    pub fill: Option<&'a Prompt>,
    /// Seed of random labels.
    pub seed: u64,
}

impl Annotation<'_> {
    /// One line; an error if a logit is not finite, or if the document has no own class where one is wanted.
    pub fn annotate(&self, document: Document, logits: &[f32]) -> Result<Annotated> {
        if let Some(at) = logits.iter().position(|logit| !logit.is_finite()) {
            let (id, class) = (&document.id, &self.classes[at]);
            let message = format!("the model gives {} for class `{class}` of `{id}`; train it again", logits[at]);
            return Err(Error::Unsupported(message));
        }
        let top = largest(logits);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - logits[top]).exp()).sum();
        let class = match self.labels {
            Labels::Predicted => top,
            Labels::Random => {
                let key = arcuate_data::draw::text_hash(&document.id);
                Stream::new(self.seed, "random label", 0, key).below(self.classes.len() as u64) as usize
            }
            Labels::Own => {
                let label = document.label.clone().unwrap_or_default();
                let nearest = || Some(usize::from(self.fill?.shares(&label).is_some_and(|[low, high]| high > low)));
                let known = self.classes.iter().position(|class| *class == label).or_else(nearest);
                let place = document.place.clone();
                known.ok_or_else(|| Error::UnknownLabel { place, label, known: self.classes.to_vec() })?
            }
        };
        let text = match self.fill {
            Some(prompt) => {
                let word = prompt.words.get(&self.classes[class]).map_or("", String::as_str);
                Some(prompt.fill(&document, word))
            }
            None => None,
        };
        let by_class: BTreeMap<&String, f32> =
            self.classes.iter().zip(logits).map(|(class, logit)| (class, logit - logits[top])).collect();
        let mut line = line(document);
        if let Some(text) = text {
            line.insert("text".to_owned(), text.into());
        }
        line.insert("label".to_owned(), json!(self.classes[class]));
        line.insert("probability".to_owned(), json!(1.0 / sum));
        line.insert("logits".to_owned(), json!(by_class));
        line.insert("scorer".to_owned(), json!(self.scorer));
        Ok(Annotated { class, probability: 1.0 / sum, line })
    }
}

/// The places of the `per_class` most probable documents of each class, in the order of the documents.
///
/// # Errors
/// When a class has fewer, unless `allow_fewer`; then all of that class are taken and no other class makes up for it.
pub fn most_probable(
    found: &[(usize, f64)],
    classes: &[String],
    per_class: usize,
    allow_fewer: bool,
) -> Result<Vec<usize>> {
    let mut chosen = Vec::new();
    for (class, name) in classes.iter().enumerate() {
        let mut of_class: Vec<usize> = (0..found.len()).filter(|i| found[*i].0 == class).collect();
        if of_class.len() < per_class && !allow_fewer {
            let available = of_class.len();
            return Err(Error::Unsupported(format!(
                "{available} documents were found to be `{name}`, but {per_class} of each class are wanted; ask for fewer, or allow fewer of a class"
            )));
        }
        of_class.sort_by(|a, b| found[*b].1.total_cmp(&found[*a].1).then(a.cmp(b)));
        chosen.extend(of_class.into_iter().take(per_class));
    }
    chosen.sort_unstable();
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes() -> Vec<String> {
        vec!["a".to_owned(), "b".to_owned()]
    }

    fn document(id: &str, label: Option<&str>) -> Document {
        Document {
            id: id.to_owned(),
            text: format!("text of {id}"),
            label: label.map(str::to_owned),
            ..Document::default()
        }
    }

    fn annotate(labels: Labels, logits: &[f32]) -> Result<Annotated> {
        let classes = classes();
        let how = Annotation { classes: &classes, scorer: "abc", labels, fill: None, seed: 1 };
        how.annotate(document("d1", Some("a")), logits)
    }

    #[test]
    fn a_line_holds_the_class_its_probability_and_the_logits_by_name() {
        let found = annotate(Labels::Predicted, &[1.0, 3.0]).expect("finite");
        assert_eq!((found.class, &found.line["label"], &found.line["scorer"]), (1, &json!("b"), &json!("abc")));
        assert!((found.probability - 0.880_797).abs() < 1e-6);
        assert_eq!(found.line["logits"], json!({"a": -2.0, "b": 0.0}));
        assert_eq!((&found.line["id"], &found.line["text"]), (&json!("d1"), &json!("text of d1")));
    }

    #[test]
    fn controls_take_the_own_or_a_random_class() {
        assert_eq!(annotate(Labels::Own, &[1.0, 3.0]).expect("known").class, 0);
        let classes = classes();
        let how = Annotation { classes: &classes, scorer: "", labels: Labels::Random, fill: None, seed: 1 };
        let class = |id: usize| how.annotate(document(&id.to_string(), None), &[1.0, 0.0]).expect("finite").class;
        let ones = (0..400).filter(|id| class(*id) == 1).count();
        assert!((140..260).contains(&ones), "{ones}");
        assert_eq!(class(7), class(7));
    }

    #[test]
    fn a_number_that_is_none_is_refused_with_its_document() {
        let error = annotate(Labels::Predicted, &[f32::NAN, 3.0]).expect_err("not finite").to_string();
        assert!(error.contains("`d1`") && error.contains("NaN"), "{error}");
        let classes = classes();
        let how = Annotation { classes: &classes, scorer: "", labels: Labels::Own, fill: None, seed: 1 };
        assert!(how.annotate(document("d", Some("x")), &[0.0, 0.0]).is_err());
    }

    #[test]
    fn filled_lines_are_sentences_with_the_word_of_the_class() {
        let classes = classes();
        let words = [("a", "bad"), ("b", "good")].map(|(class, word)| (class.to_owned(), word.to_owned()));
        let prompt = Prompt {
            template: "{text} It was {mask} .".to_owned(),
            words: words.into(),
            soft: false,
            regression: None,
        };
        let how = Annotation { classes: &classes, scorer: "", labels: Labels::Predicted, fill: Some(&prompt), seed: 1 };
        let found = how.annotate(document("d1", None), &[0.0, 1.0]).expect("finite");
        assert_eq!(found.line["text"], json!("text of d1 It was good ."));
    }

    #[test]
    fn the_most_probable_of_each_class_are_taken_and_none_is_borrowed() {
        let found = [(0, 0.9), (1, 0.5), (0, 0.2), (1, 0.6), (0, 0.8)];
        let two = |allow| most_probable(&found, &classes(), 2, allow);
        assert_eq!(two(false).expect("enough"), [0, 1, 3, 4]);
        let error = most_probable(&found, &classes(), 3, false).expect_err("b has 2").to_string();
        assert!(error.contains("2 documents were found to be `b`"), "{error}");
        assert_eq!(most_probable(&found, &classes(), 3, true).expect("fewer").len(), 5);
    }
}
