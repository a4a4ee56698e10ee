//! Scores against scikit-learn's, and a tiny classifier.

use super::*;
use crate::testing::{bytes, classifier, close, llama, words};

fn result(labels: &[usize], predicted: &[usize], num_classes: usize) -> ClassificationResult {
    let names: Vec<String> = (0..num_classes).map(|class| format!("class {class}")).collect();
    let items: Vec<Classified> =
        labels.iter().zip(predicted).map(|(l, p)| Classified { label: *l, predicted: *p, loss: 0.5 }).collect();
    ClassificationResult::new(&names, &items, &Bootstrap::default()).expect("scores")
}

const LABELS: [usize; 12] = [0, 0, 0, 1, 1, 1, 1, 2, 2, 0, 1, 2];
const PREDICTED: [usize; 12] = [0, 1, 0, 1, 1, 0, 1, 2, 0, 0, 2, 2];

fn quiet(_: Done) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn scores_are_those_of_scikit_learn() {
    let result = result(&LABELS, &PREDICTED, 3);
    close(result.accuracy, 2.0 / 3.0);
    close(result.macro_f1, 2.0 / 3.0);
    assert_eq!(result.confusion, [[3, 1, 0], [1, 3, 1], [1, 0, 2]]);
    let precision: Vec<f64> = result.classes.iter().map(|class| class.precision).collect();
    let recall: Vec<f64> = result.classes.iter().map(|class| class.recall).collect();
    [0.6, 0.75, 2.0 / 3.0].iter().zip(precision).for_each(|(want, got)| close(got, *want));
    [0.75, 0.6, 2.0 / 3.0].iter().zip(recall).for_each(|(want, got)| close(got, *want));
    assert_eq!(result.classes.iter().map(|class| class.support).collect::<Vec<_>>(), [4, 5, 3]);
    close(result.majority_accuracy, 5.0 / 12.0);
    close(result.loss, 0.5);
}

#[test]
fn classes_count_for_macro_f1_if_they_are_labels_or_predictions() {
    // scikit-learn: accuracy 0.6, macro-F1 0.375 over four classes; a fifth that never occurs changes nothing.
    for num_classes in [4, 5] {
        let result = result(&[0, 0, 1, 1, 3], &[0, 2, 1, 1, 0], num_classes);
        close(result.accuracy, 0.6);
        close(result.macro_f1, 0.375);
    }
}

#[test]
fn intervals_hold_the_score_and_are_the_same_every_time() {
    let one = result(&LABELS, &PREDICTED, 3);
    assert_eq!(one, result(&LABELS, &PREDICTED, 3));
    for (value, interval) in [(one.accuracy, one.accuracy_interval), (one.macro_f1, one.macro_f1_interval)] {
        assert!(interval.low < value && value < interval.high, "{interval:?}");
    }
    let sure = result(&[0, 1, 0, 1], &[0, 1, 0, 1], 2);
    assert_eq!(sure.accuracy_interval, Interval { low: 1.0, high: 1.0 });
}

#[test]
fn nothing_and_unknown_classes_are_errors() {
    let names = ["a".to_owned()];
    assert!(ClassificationResult::new(&names, &[], &Bootstrap::default()).is_err());
    let outside = Classified { label: 0, predicted: 1, loss: 0.0 };
    assert!(ClassificationResult::new(&names, &[outside], &Bootstrap::default()).is_err());
}

#[test]
fn the_loss_is_minus_the_log_probability() {
    let item = classified(&[1.0, 3.0, 2.0], 2);
    assert_eq!(item.predicted, 1);
    let sum: f64 = [1.0f64, 3.0, 2.0].iter().map(|x| x.exp()).sum();
    close(item.loss, sum.ln() - 2.0);
}

fn write(lines: &[(&str, &str)]) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("task.jsonl");
    let lines: String =
        lines.iter().map(|(t, l)| serde_json::json!({"text": t, "label": l}).to_string() + "\n").collect();
    std::fs::write(&path, lines).expect("writes");
    (dir, path)
}

#[test]
fn the_batch_size_changes_no_prediction() {
    let tokenizer = words();
    let network = classifier(tokenizer.vocab_size(), &["A", "B", "C"]);
    let long = "the people of the union and the state ".repeat(5);
    let lines =
        [("the people", "A"), (long.as_str(), "B"), ("of the union", "C"), ("state", "A"), ("and the state of", "B")];
    let (_dir, path) = write(&lines);
    let run = |microbatch| {
        let model = EvalModel { microbatch, ..EvalModel::new(&network, &tokenizer) };
        classify_file(&model, &path, &mut quiet).expect("runs")
    };
    let one = run(1);
    assert_eq!(one.num_documents, 5);
    for microbatch in [2, 5, 9] {
        let many = run(microbatch);
        assert_eq!(many.confusion, one.confusion);
        assert!((many.loss - one.loss).abs() < 1e-6);
    }
}

#[test]
fn labels_that_the_model_does_not_know_are_named_with_their_place() {
    let tokenizer = words();
    let network = classifier(tokenizer.vocab_size(), &["A", "B"]);
    let (_dir, path) = write(&[("the people", "A"), ("the state", "Whig")]);
    let error = classify_file(&EvalModel::new(&network, &tokenizer), &path, &mut quiet).expect_err("unknown");
    let text = error.to_string();
    assert!(text.contains("task.jsonl:2") && text.contains("`Whig`") && text.contains("A, B"), "{text}");
}

#[test]
fn only_a_classifier_classifies() {
    let tokenizer = bytes();
    let network = llama(16, tokenizer.vocab_size());
    let (_dir, path) = write(&[("the people", "A")]);
    let error = classify_file(&EvalModel::new(&network, &tokenizer), &path, &mut quiet).expect_err("no classes");
    assert!(error.to_string().contains("has no classifier"), "{error}");
}
