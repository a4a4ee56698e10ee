//! Tasks of `arcuate eval MODEL TASK...`: what a name on the command line means, and its result.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use arcuate_record::statistics::{Bootstrap, Interval, mean, standard_error};
use serde_json::json;

use crate::multiple_choice::{Answered, answer, read_questions};
use crate::{
    ClassificationResult, Done, Error, EvalModel, HeldOutResult, Metric, RegressionResult, Result, TaggingResult,
    TaskResult, TranscriptScores, classify_file, evaluate_text, predict_numbers_of_file, tag_file,
};

/// What stands between a context and a choice, as in lm-eval.
pub const CHOICE_DELIMITER: &str = " ";

/// What can be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// `held-out`: the held-out part of the model's own recipe.
    HeldOut,
    /// `text:FILE`: perplexity of a text.
    Text(PathBuf),
    /// `choice:FILE.jsonl`: multiple choice.
    Choice(PathBuf),
    /// `classify:FILE.jsonl`: documents with `text` and `label`.
    Classify(PathBuf),
    /// `number:FILE.jsonl`: documents with `text` and a number as `label`.
    Number(PathBuf),
    /// `tag:FILE.jsonl`: documents with `text` and `tags`.
    Tag(PathBuf),
}

impl Task {
    /// The forms a task may have, for help and errors.
    pub const FORMS: [&str; 6] =
        ["held-out", "text:FILE", "choice:FILE.jsonl", "classify:FILE.jsonl", "number:FILE.jsonl", "tag:FILE.jsonl"];

    /// The file that the task reads.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::HeldOut => None,
            Self::Text(file) | Self::Choice(file) | Self::Classify(file) | Self::Number(file) | Self::Tag(file) => {
                Some(file)
            }
        }
    }
}

impl FromStr for Task {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let file = |rest: &str| PathBuf::from(rest);
        match text.split_once(':') {
            None if text == "held-out" => Ok(Self::HeldOut),
            Some(("text", rest)) if !rest.is_empty() => Ok(Self::Text(file(rest))),
            Some(("choice", rest)) if !rest.is_empty() => Ok(Self::Choice(file(rest))),
            Some(("classify", rest)) if !rest.is_empty() => Ok(Self::Classify(file(rest))),
            Some(("number", rest)) if !rest.is_empty() => Ok(Self::Number(file(rest))),
            Some(("tag", rest)) if !rest.is_empty() => Ok(Self::Tag(file(rest))),
            _ => {
                let forms = Self::FORMS.map(|form| format!("`{form}`")).join(", ");
                Err(Error::Unsupported(format!("unknown task `{text}`; a task is one of {forms}")))
            }
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeldOut => f.write_str("held-out"),
            Self::Text(file) => write!(f, "text:{}", file.display()),
            Self::Choice(file) => write!(f, "choice:{}", file.display()),
            Self::Classify(file) => write!(f, "classify:{}", file.display()),
            Self::Number(file) => write!(f, "number:{}", file.display()),
            Self::Tag(file) => write!(f, "tag:{}", file.display()),
        }
    }
}

/// Runs a task that reads a file; `held-out` needs the recipe's data, see [`crate::evaluate`] and [`held_out_task`].
pub fn run_task(
    task: &Task,
    model: &EvalModel<'_>,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> Result<TaskResult> {
    match task {
        Task::HeldOut => {
            Err(Error::Unsupported("`held-out` needs the data of a recipe; name the run it belongs to".to_owned()))
        }
        Task::Text(file) => Ok(held_out_task(task, &evaluate_text(model, file, progress)?, model)),
        Task::Choice(file) => {
            let questions = read_questions(file, model.max_items)?;
            let answers = answer(model, &questions, CHOICE_DELIMITER, progress)?;
            Ok(choice_task(task, &answers, model.seed))
        }
        Task::Classify(file) => Ok(classification_task(task, &classify_file(model, file, progress)?)),
        Task::Number(file) => Ok(regression_task(task, &predict_numbers_of_file(model, file, progress)?)),
        Task::Tag(file) => Ok(tagging_task(task, &tag_file(model, file, progress)?)),
    }
}

/// The result of an evaluation over rows as that of a task.
pub fn held_out_task(task: &Task, result: &HeldOutResult, model: &EvalModel<'_>) -> TaskResult {
    let total = &result.total;
    let mut metrics = BTreeMap::from([
        ("loss".to_owned(), Metric::plain(total.loss, false)),
        ("perplexity".to_owned(), Metric::plain(total.perplexity, false)),
        ("token_accuracy".to_owned(), Metric::plain(total.accuracy, true)),
    ]);
    if let Some(bits) = total.bits_per_byte {
        metrics.insert("bits_per_byte".to_owned(), Metric::plain(bits, false));
        metrics.insert("byte_perplexity".to_owned(), Metric::plain(bits.exp2(), false));
    }
    TaskResult {
        task: task.to_string(),
        metrics,
        num_original: result.num_rows,
        num_effective: result.num_rows,
        config: json!({
            "output_type": "loglikelihood_rolling",
            "file": task.file(),
            "max_seq_len": model.max_seq_len(),
            "stride_tokens": model.stride_tokens,
            "max_tokens": model.max_tokens,
        }),
        details: json!({
            "tokens": total.tokens,
            "bytes": total.bytes,
            "is_partial": result.is_partial,
            "sources": result.sources,
        }),
    }
}

/// The answers to multiple-choice questions as the result of a task.
pub fn choice_task(task: &Task, answers: &[Answered], seed: u64) -> TaskResult {
    let bootstrap = Bootstrap { seed, ..Bootstrap::default() };
    let metric = |chosen: &dyn Fn(&Answered) -> usize| {
        let right: Vec<f64> = answers.iter().map(|a| f64::from(u8::from(chosen(a) == a.answer))).collect();
        Metric {
            value: mean(&right).unwrap_or(f64::NAN),
            stderr: standard_error(&right),
            interval: bootstrap.mean_interval(&right).map(|interval| [interval.low, interval.high]),
            higher_is_better: true,
        }
    };
    TaskResult {
        task: task.to_string(),
        metrics: BTreeMap::from([
            ("acc".to_owned(), metric(&|a| a.plain)),
            ("acc_norm".to_owned(), metric(&|a| a.per_character)),
            ("acc_bytes".to_owned(), metric(&|a| a.per_byte)),
            ("acc_tokens".to_owned(), metric(&|a| a.per_token)),
        ]),
        num_original: answers.len() as u64,
        num_effective: answers.len() as u64,
        config: json!({
            "output_type": "multiple_choice",
            "file": task.file(),
            "target_delimiter": CHOICE_DELIMITER,
        }),
        details: json!({"chance": chance(answers)}),
    }
}

/// Accuracy of guessing.
fn chance(answers: &[Answered]) -> Option<f64> {
    mean(&answers.iter().map(|a| 1.0 / a.likelihoods.len().max(1) as f64).collect::<Vec<_>>())
}

/// Scores of a classifier as the result of a task.
pub fn classification_task(task: &Task, result: &ClassificationResult) -> TaskResult {
    let n = result.num_documents as f64;
    // Of a share the standard error follows from the share; that of the sample divides by n - 1.
    let stderr = (n > 1.0).then(|| (result.accuracy * (1.0 - result.accuracy) / (n - 1.0)).sqrt());
    let metric = |value: f64, stderr: Option<f64>, interval: Interval| {
        let interval = Some([interval.low, interval.high]);
        Metric { value, stderr, interval, higher_is_better: true }
    };
    TaskResult {
        task: task.to_string(),
        metrics: BTreeMap::from([
            ("acc".to_owned(), metric(result.accuracy, stderr, result.accuracy_interval)),
            ("macro_f1".to_owned(), metric(result.macro_f1, None, result.macro_f1_interval)),
            ("matthews".to_owned(), metric(result.matthews, None, result.matthews_interval)),
            ("loss".to_owned(), Metric::plain(result.loss, false)),
        ]),
        num_original: result.num_documents,
        num_effective: result.num_documents,
        config: json!({"output_type": "classification", "file": task.file()}),
        details: json!({
            "majority_accuracy": result.majority_accuracy,
            "classes": result.classes,
            "confusion": result.confusion,
        }),
    }
}

/// Scores of predicted numbers as the result of a task.
pub fn regression_task(task: &Task, result: &RegressionResult) -> TaskResult {
    let drawn = |value, interval: arcuate_record::statistics::Interval| Metric {
        interval: Some([interval.low, interval.high]),
        ..Metric::plain(value, true)
    };
    TaskResult {
        task: task.to_string(),
        metrics: BTreeMap::from([
            ("pearson".to_owned(), drawn(result.pearson, result.pearson_interval)),
            ("spearman".to_owned(), drawn(result.spearman, result.spearman_interval)),
            ("rmse".to_owned(), Metric::plain(result.rmse, false)),
        ]),
        num_original: result.num_documents,
        num_effective: result.num_documents,
        config: json!({"output_type": "regression", "file": task.file()}),
        details: json!({}),
    }
}

/// Scores of transcripts as the result of a task; `config` says how they were made.
pub fn transcripts_task(name: &str, scores: &TranscriptScores, config: serde_json::Value) -> TaskResult {
    let n = scores.num_utterances as f64;
    let share = scores.sentence_error_rate;
    let metric = |value: f64, stderr: Option<f64>, interval: Interval| {
        let interval = Some([interval.low, interval.high]);
        Metric { value, stderr, interval, higher_is_better: false }
    };
    let stderr = (n > 1.0).then(|| (share * (1.0 - share) / (n - 1.0)).sqrt());
    let mut config = config;
    config["output_type"] = json!("transcription");
    config["normaliser"] = json!(scores.normaliser);
    TaskResult {
        task: name.to_owned(),
        metrics: BTreeMap::from([
            ("wer".to_owned(), metric(scores.words.rate, None, scores.words.interval)),
            ("cer".to_owned(), metric(scores.characters.rate, None, scores.characters.interval)),
            ("sentence_error_rate".to_owned(), metric(share, stderr, scores.sentence_error_interval)),
        ]),
        num_original: scores.num_utterances,
        num_effective: scores.num_utterances,
        config,
        details: json!({
            "words": scores.words.counts,
            "characters": scores.characters.counts,
            "empty_references": scores.num_empty_references,
            "confusions": scores.confusions,
        }),
    }
}

/// Scores of a tagger as the result of a task.
pub fn tagging_task(task: &Task, result: &TaggingResult) -> TaskResult {
    let drawn = |value, interval: arcuate_record::statistics::Interval| Metric {
        interval: Some([interval.low, interval.high]),
        ..Metric::plain(value, true)
    };
    let mut metrics = BTreeMap::from([("acc".to_owned(), drawn(result.accuracy, result.accuracy_interval))]);
    if let Some(entities) = &result.entities {
        metrics.insert("precision".to_owned(), Metric::plain(entities.precision, true));
        metrics.insert("recall".to_owned(), Metric::plain(entities.recall, true));
        metrics.insert("f1".to_owned(), drawn(entities.f1, entities.f1_interval));
    }
    TaskResult {
        task: task.to_string(),
        metrics,
        num_original: result.num_documents,
        num_effective: result.num_documents,
        config: json!({"output_type": "tagging", "file": task.file()}),
        details: json!({
            "majority_accuracy": result.majority_accuracy,
            "words": result.num_words,
            "cut_words": result.num_cut_words,
            "types": result.entities.as_ref().map(|entities| &entities.types),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Likelihood;
    use crate::testing::{TEXT, bytes, classifier, close, llama, tagger, words};

    fn quiet(_: Done) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn tasks_are_read_and_written_alike() {
        for text in
            ["held-out", "text:a/b.txt", "choice:C:/x.jsonl", "classify:y.jsonl.zst", "number:n.jsonl", "tag:z.jsonl"]
        {
            assert_eq!(text.parse::<Task>().expect("a task").to_string(), text);
        }
        for text in ["", "heldout", "text:", "chose:x", "held-out:x"] {
            let error = text.parse::<Task>().expect_err("no task").to_string();
            assert!(error.contains("`classify:FILE.jsonl`"), "{error}");
        }
    }

    #[test]
    fn accuracies_have_standard_errors_and_intervals() {
        let answered = |plain, answer| Answered {
            likelihoods: vec![Likelihood::default(); 4],
            plain,
            per_character: answer,
            per_byte: 0,
            per_token: 0,
            answer,
        };
        let answers = [answered(1, 1), answered(2, 1), answered(3, 3), answered(0, 0)];
        let result = choice_task(&Task::Choice("a.jsonl".into()), &answers, 0);
        close(result.metrics["acc"].value, 0.75);
        close(result.metrics["acc"].stderr.expect("four"), 0.25);
        close(result.metrics["acc_norm"].value, 1.0);
        close(result.details["chance"].as_f64().expect("a number"), 0.25);
        assert!(result.metrics["acc"].interval.expect("drawn")[0] < 0.75);
    }

    #[test]
    fn every_task_with_a_file_runs() {
        let dir = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("writes");
            path
        };
        let tokenizer = bytes();
        let network = llama(32, tokenizer.vocab_size());
        let model = EvalModel::new(&network, &tokenizer);
        let text = Task::Text(write("a.txt", TEXT));
        let result = run_task(&text, &model, &mut quiet).expect("runs");
        let bits = result.metrics["bits_per_byte"].value;
        close(result.metrics["byte_perplexity"].value, bits.exp2());
        let line = r#"{"context": "the", "choices": ["people", "state"], "answer": 1}"#;
        let choice = Task::Choice(write("c.jsonl", &format!("{line}\n{line}\n{line}\n")));
        let few = EvalModel { max_items: Some(2), ..model };
        let result = run_task(&choice, &few, &mut quiet).expect("runs");
        assert_eq!(result.num_effective, 2);
        assert!([0.0, 1.0].contains(&result.metrics["acc"].value));
        let tokenizer = words();
        let network = classifier(tokenizer.vocab_size(), &["A", "B"]);
        let classify = Task::Classify(write("d.jsonl", "{\"text\": \"the people\", \"label\": \"B\"}\n"));
        let result = run_task(&classify, &EvalModel::new(&network, &tokenizer), &mut quiet).expect("runs");
        assert_eq!(result.details["confusion"][0], json!([0, 0]));
        let network = tagger(tokenizer.vocab_size(), &["B-X", "O"], true);
        let tags = Task::Tag(write("e.jsonl", "{\"text\": \"the people\", \"tags\": [\"O\", \"B-X\"]}\n"));
        let result = run_task(&tags, &EvalModel::new(&network, &tokenizer), &mut quiet).expect("runs");
        assert_eq!(result.metrics.keys().collect::<Vec<_>>(), ["acc", "f1", "precision", "recall"]);
        assert_eq!(result.details["words"], 2);
        assert!(run_task(&Task::HeldOut, &model, &mut quiet).is_err());
    }
}
