//! Multiple choice with a tiny network and with given likelihoods.

use super::*;
use crate::testing::{bytes, classifier, llama, words};

fn question(context: &str, choices: &[&str], answer: usize) -> Question {
    Question { context: context.to_owned(), choices: choices.iter().map(|c| (*c).to_owned()).collect(), answer }
}

fn quiet(_: Done) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn read(text: &str) -> Result<Vec<Question>> {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("task.jsonl");
    std::fs::write(&path, text).expect("writes");
    read_questions(&path, None)
}

#[test]
fn each_rule_divides_by_its_own_length() {
    let question = question("", &["ab", "éé", "abcdef", "abc"], 2);
    let given = [(-4.0, 1), (-3.9, 9), (-9.0, 6), (-5.5, 5)];
    let likelihoods = given
        .iter()
        .map(|(log_likelihood, num_tokens)| Likelihood {
            log_likelihood: *log_likelihood,
            num_tokens: *num_tokens,
            is_greedy: false,
        })
        .collect();
    let answered = Answered::new(&question, likelihoods);
    // Sums: second. Per character -2, -1.95, -1.5, -1.83; per byte -2, -0.975, -1.5, -1.83; per token -4, -0.43, -1.5, -1.1.
    assert_eq!((answered.plain, answered.per_character, answered.per_byte, answered.per_token), (1, 2, 1, 1));
}

#[test]
fn of_equal_choices_the_first_is_taken() {
    let likelihood = Likelihood { log_likelihood: -1.0, num_tokens: 1, is_greedy: false };
    let answered = Answered::new(&question("", &["a", "b"], 1), vec![likelihood; 2]);
    assert_eq!((answered.plain, answered.per_byte), (0, 0));
}

#[test]
fn a_delimiter_stands_between_unless_there_is_white_space() {
    assert_eq!(continuation("Q:", "yes", " "), " yes");
    assert_eq!(continuation("Q: ", "yes", " "), "yes");
    assert_eq!(continuation("Q:", "\nyes", " "), "\nyes");
}

#[test]
fn white_space_at_the_end_of_the_context_goes_to_the_continuation() {
    let tokenizer = bytes();
    let moved = encode_pair(&tokenizer, "the people ", "of").expect("encodes");
    let clean = encode_pair(&tokenizer, "the people", " of").expect("encodes");
    assert_eq!(moved, clean);
    assert_eq!(tokenizer.decode(&clean.1).expect("decodes"), " of");
}

#[test]
fn an_empty_context_is_the_begin_token() {
    let tokenizer = bytes();
    let (context, continuation) = encode_pair(&tokenizer, "", "the").expect("encodes");
    assert_eq!(context, empty_context(&tokenizer));
    assert_eq!(continuation, tokenizer.encode("the").expect("encodes"));
    assert_eq!(encode_pair(&tokenizer, "  ", "the").expect("encodes").0, empty_context(&tokenizer));
}

#[test]
fn a_long_context_loses_its_beginning() {
    let row = row(&[1, 2, 3, 4, 5], &[6, 7], 0, 4).expect("fits");
    assert_eq!(row.input_ids, [3, 4, 5, 6]);
    assert_eq!(row.targets, [IGNORED_TARGET, IGNORED_TARGET, 6, 7]);
    let error = super::row(&[1], &[1, 2, 3], 0, 2).expect_err("too long");
    assert!(error.to_string().contains("takes 1 to 2"), "{error}");
}

#[test]
fn a_likelihood_is_the_probability_of_the_token_after_its_context() {
    let tokenizer = bytes();
    let network = llama(32, tokenizer.vocab_size());
    let (context, continuation) = encode_pair(&tokenizer, "the people", ",").expect("encodes");
    let ids = context.iter().map(|id| *id as i32).collect();
    let input = arcuate_model::Input::from_rows(1, context.len(), ids, &[]).expect("no holes");
    let logits = network.forward(&input, &arcuate_model::Wanted::All).expect("runs").logits();
    let logits = arcuate_ops::gradcheck::values(logits);
    let last: Vec<f64> = logits[logits.len() - tokenizer.vocab_size()..].iter().map(|x| f64::from(*x)).collect();
    let sum: f64 = last.iter().map(|x| x.exp()).sum();
    let want = last[continuation[0] as usize] - sum.ln();
    let pairs = [("the people".to_owned(), ",".to_owned())];
    let got = log_likelihoods(&EvalModel::new(&network, &tokenizer), &pairs, &mut quiet).expect("runs")[0];
    assert_eq!((continuation.len(), got.num_tokens), (1, 1));
    assert!((got.log_likelihood - want).abs() < 1e-5, "{got:?} {want}");
    assert_eq!(got.is_greedy, last.iter().all(|x| *x <= last[continuation[0] as usize]));
}

#[test]
fn a_continuation_costs_the_sum_of_its_parts() {
    let tokenizer = bytes();
    let network = llama(32, tokenizer.vocab_size());
    let model = EvalModel::new(&network, &tokenizer);
    let pair = |context: &str, continuation: &str| (context.to_owned(), continuation.to_owned());
    let pairs = [pair("the", " people of"), pair("the", " people"), pair("the people", " of")];
    let got = log_likelihoods(&model, &pairs, &mut quiet).expect("runs");
    let sum = got[1].log_likelihood + got[2].log_likelihood;
    assert!((got[0].log_likelihood - sum).abs() < 1e-5, "{got:?}");
    assert_eq!(got[0].num_tokens, got[1].num_tokens + got[2].num_tokens);
}

#[test]
fn the_batch_size_changes_no_answer() {
    let tokenizer = bytes();
    let network = llama(32, tokenizer.vocab_size());
    let questions = [
        question("the people of", &["the union", "state", "and the state of the people"], 0),
        question("", &["the", "of the union"], 1),
        question("a much longer context, which is the state of the union", &["x", "the people"], 1),
    ];
    let run = |microbatch| {
        let model = EvalModel { microbatch, ..EvalModel::new(&network, &tokenizer) };
        answer(&model, &questions, " ", &mut quiet).expect("runs")
    };
    let one = run(1);
    for microbatch in [2, 3, 50] {
        for (a, b) in one.iter().zip(run(microbatch)) {
            assert_eq!((a.plain, a.per_character, a.per_token), (b.plain, b.per_character, b.per_token));
            for (a, b) in a.likelihoods.iter().zip(&b.likelihoods) {
                assert!((a.log_likelihood - b.log_likelihood).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn wrong_lines_are_named_with_what_would_be_right() {
    let fine = "{\"context\": \"a\", \"choices\": [\"b\", \"c\"], \"answer\": 1, \"id\": 7}\n";
    assert_eq!(read(fine).expect("reads"), [question("a", &["b", "c"], 1)]);
    for (line, problem) in [
        (r#"{"context": "a", "choices": ["b", "c"], "answer": 2}"#, ":2: `answer` is 2 but there are 2 choices"),
        (r#"{"context": "a", "choices": ["b"], "answer": 0}"#, ":2: `choices` must hold two"),
        (r#"{"context": "a", "choices": ["b", ""], "answer": 0}"#, ":2: choice 1 is empty"),
        (r#"{"choices": ["b", "c"], "answer": 0}"#, ":2: missing field `context`"),
    ] {
        let error = read(&format!("{fine}{line}\n")).expect_err("wrong").to_string();
        assert!(error.contains(problem), "{error}");
    }
    assert!(read("\n").expect_err("empty").to_string().contains("holds nothing to evaluate"));
}

#[test]
fn a_bidirectional_model_is_refused() {
    let tokenizer = words();
    let network = classifier(tokenizer.vocab_size(), &["a", "b"]);
    let model = EvalModel::new(&network, &tokenizer);
    let error = answer(&model, &[question("a", &["b", "c"], 0)], " ", &mut quiet).expect_err("BERT");
    assert!(error.to_string().contains("is not causal"), "{error}");
}
