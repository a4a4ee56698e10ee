//! Scores against scikit-learn's, and a tiny classifier.

use super::*;
use crate::testing::{bytes, classifier, close, llama, network, words};

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
    close(result.matthews, 0.5);
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
        close(result.matthews, 0.4375);
    }
}

#[test]
fn the_matthews_correlation_is_that_of_the_paper_card() {
    // Two right and one wrong of each class: (4 - 1) / 9.
    close(result(&[1, 1, 0, 0, 1, 0], &[1, 1, 0, 0, 0, 1], 2).matthews, 1.0 / 3.0);
    close(result(&[0, 1, 1, 0], &[1, 1, 1, 1], 2).matthews, 0.0);
    close(result(&[0, 1, 2, 0], &[0, 1, 2, 0], 3).matthews, 1.0);
    close(result(&[0, 1, 1, 0], &[1, 0, 0, 1], 2).matthews, -1.0);
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

fn documents(texts: &[&str]) -> Vec<arcuate_data::Result<Document>> {
    let document =
        |text: &&str| Document { text: (*text).to_owned(), label: Some("b".to_owned()), ..Document::default() };
    texts.iter().map(|text| Ok(document(text))).collect()
}

fn prompt(template: &str) -> Prompt {
    let words = [("a", "union"), ("b", "state")].map(|(class, word)| (class.to_owned(), word.to_owned()));
    Prompt { template: template.to_owned(), words: words.into(), soft: false, regression: None }
}

#[test]
fn words_of_a_prompt_are_read_at_the_open_place_whatever_the_batch() {
    let tokenizer = words();
    let keys = serde_json::json!({"bert": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 24,
        "max_seq_len": 16, "initializer_range": 0.4}});
    let network = network(keys, tokenizer.vocab_size(), arcuate_model::Head::Tokens);
    let prompt = prompt("{text} of {mask}");
    let model = EvalModel { prompt: Some(&prompt), ..EvalModel::new(&network, &tokenizer) };
    assert_eq!(model.classes(), ["a", "b"]);
    let texts = ["the people", "the union and the state of the people", "union"];
    let all = class_logits(&model, documents(&texts).into_iter(), &mut quiet).expect("classified");
    for (text, item) in texts.iter().zip(&all) {
        let one = EvalModel { microbatch: 1, ..model };
        assert_eq!(class_logits(&one, documents(&[text]).into_iter(), &mut quiet).expect("classified")[0], *item);
        // By hand: the logits of all tokens at the mask.
        let id = |token: SpecialToken| tokenizer.special(token).expect("WordPiece has it");
        let words = tokenizer.encode(&format!("{text} of")).expect("encodes");
        let ids: Vec<u32> = std::iter::once(id(SpecialToken::Cls))
            .chain(words.iter().copied())
            .chain([id(SpecialToken::Mask), id(SpecialToken::Sep)])
            .collect();
        let row = document_row(0, 0, &ids, &vec![IGNORED_TARGET; ids.len()], 0);
        let input = Input::from_batch(&collate(&[row], 0, None));
        let logits = values(network.valid().forward(&input, &Wanted::All).expect("fits").logits());
        let at = (ids.len() - 2) * tokenizer.vocab_size();
        for (word, logit) in ["union", "state"].iter().zip(&item.logits) {
            let token = tokenizer.encode(word).expect("encodes")[0] as usize;
            close(f64::from(*logit), f64::from(logits[at + token]));
        }
    }
}

#[test]
fn a_causal_model_says_the_word_that_follows() {
    let tokenizer = bytes();
    let network = llama(32, tokenizer.vocab_size());
    let prompt = prompt("{text} of the {mask}");
    let model = EvalModel { prompt: Some(&prompt), ..EvalModel::new(&network, &tokenizer) };
    match class_logits(&model, documents(&["the people", "union"]).into_iter(), &mut quiet) {
        Ok(items) => assert!(items.iter().all(|item| item.logits.len() == 2)),
        Err(error) => assert!(error.to_string().contains("is not one token"), "{error}"),
    }
    let long = Prompt {
        words: [("a", "xylophone"), ("b", "state")].map(|(c, w)| (c.to_owned(), w.to_owned())).into(),
        ..prompt.clone()
    };
    let model = EvalModel { prompt: Some(&long), ..model };
    let error = class_logits(&model, documents(&["the"]).into_iter(), &mut quiet).expect_err("many tokens").to_string();
    assert!(error.contains("`xylophone` of class `a` is not one token but ["), "{error}");
}
