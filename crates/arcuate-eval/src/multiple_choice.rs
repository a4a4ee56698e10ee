//! Multiple choice by the log-likelihood of each choice after its context.
//!
//! # What it computes
//! As lm-eval: context and choice are joined by the delimiter and encoded together, spaces at the end of the context go to the
//! choice; the log-likelihood is summed over the tokens of the choice. `acc` takes the highest sum, `acc_norm` the highest
//! sum per character of the choice, `acc_bytes` per byte, `acc_tokens` per token; of equals the first.
//!
//! # Reference
//! Gao et al., Language Model Evaluation Harness (`loglikelihood`, `multiple_choice`)

use std::ops::ControlFlow;
use std::path::Path;

use arcuate_data::{IGNORED_TARGET, Row};
use arcuate_decode::{begin_tokens, empty_context};
use arcuate_text::Tokenizer;
use serde::{Deserialize, Serialize};

use crate::held_out::measure_rows;
use crate::lines::json_lines;
use crate::rows::document_row;
use crate::{Done, Error, EvalModel, Result, causal_rows};

/// Most questions that one file may hold.
const MAX_QUESTIONS: usize = 10_000_000;

/// One line of a task file; other keys are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// What the model reads.
    pub context: String,
    /// What it chooses from.
    pub choices: Vec<String>,
    /// Index of the right choice, from 0.
    pub answer: usize,
}

/// What a continuation costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Likelihood {
    /// Natural logarithm of the probability of the continuation.
    pub log_likelihood: f64,
    /// Its tokens.
    pub num_tokens: u64,
    /// Whether each of its tokens is the most probable one.
    pub is_greedy: bool,
}

/// The choice by each rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// One per choice.
    pub likelihoods: Vec<Likelihood>,
    /// Index by the sum.
    pub plain: usize,
    /// Index by the sum per character.
    pub per_character: usize,
    /// Index by the sum per byte.
    pub per_byte: usize,
    /// Index by the sum per token.
    pub per_token: usize,
    /// The right index.
    pub answer: usize,
}

impl Answered {
    /// The choices of a question, given what each costs.
    pub fn new(question: &Question, likelihoods: Vec<Likelihood>) -> Self {
        let highest = |length: &dyn Fn(usize) -> usize| {
            let score = |i: usize| likelihoods[i].log_likelihood / length(i).max(1) as f64;
            (1..likelihoods.len()).fold(0, |best, i| if score(i) > score(best) { i } else { best })
        };
        Self {
            plain: highest(&|_| 1),
            per_character: highest(&|i| question.choices[i].chars().count()),
            per_byte: highest(&|i| question.choices[i].len()),
            per_token: highest(&|i| likelihoods[i].num_tokens as usize),
            answer: question.answer,
            likelihoods,
        }
    }
}

/// Reads the questions of a JSONL file (plain, `.gz` or `.zst`).
pub fn read_questions(path: &Path, max_items: Option<u64>) -> Result<Vec<Question>> {
    let most = max_items.map_or(MAX_QUESTIONS, |most| most.min(MAX_QUESTIONS as u64) as usize);
    let mut questions = Vec::new();
    for item in json_lines::<Question>(path)?.take(most) {
        let (line, question) = item?;
        let refuse = |problem: String| Err(Error::Line { path: path.to_path_buf(), line, problem });
        if question.choices.len() < 2 {
            return refuse("`choices` must hold two or more texts".to_owned());
        }
        if let Some(index) = question.choices.iter().position(String::is_empty) {
            return refuse(format!("choice {index} is empty; every choice needs text"));
        }
        if question.answer >= question.choices.len() {
            let (answer, num) = (question.answer, question.choices.len());
            return refuse(format!("`answer` is {answer} but there are {num} choices, counted from 0"));
        }
        questions.push(question);
    }
    if questions.is_empty() {
        let what = format!("`{}`", path.display());
        return Err(Error::Empty { what, remedy: "write one {\"context\", \"choices\", \"answer\"} object a line" });
    }
    Ok(questions)
}

/// The text that is appended to the context: a delimiter is put between unless one of the two brings white space.
pub fn continuation(context: &str, choice: &str, delimiter: &str) -> String {
    let has_space = context.ends_with(char::is_whitespace) || choice.starts_with(char::is_whitespace);
    if has_space { choice.to_owned() } else { format!("{delimiter}{choice}") }
}

/// Tokens of a context and of its continuation, encoded together; white space at the end of the context goes to the continuation.
pub fn encode_pair(tokenizer: &Tokenizer, context: &str, continuation: &str) -> Result<(Vec<u32>, Vec<u32>)> {
    if context.is_empty() {
        let begin = empty_context(tokenizer);
        if begin.is_empty() {
            let problem =
                "an empty context needs a `bos_token` or `eos_token`, and the tokenizer has neither; give a context";
            return Err(Error::Unsupported(problem.to_owned()));
        }
        return Ok((begin, tokenizer.encode(continuation)?));
    }
    let bare = context.trim_end();
    let begin = begin_tokens(tokenizer);
    let whole = tokenizer.encode(&format!("{context}{continuation}"))?;
    let num_context = tokenizer.encode(bare)?.len().min(whole.len());
    let (before, after) = whole.split_at(num_context);
    let before = [begin.as_slice(), before].concat();
    if before.is_empty() {
        // Nothing but white space, and no token to begin with.
        return Ok((empty_context(tokenizer), after.to_vec()));
    }
    Ok((before, after.to_vec()))
}

/// The row that predicts `continuation` after `context`; a context that is too long loses its beginning.
fn row(context: &[u32], continuation: &[u32], key: u64, max_seq_len: usize) -> Result<Row> {
    if continuation.is_empty() || context.is_empty() || continuation.len() > max_seq_len {
        let num = continuation.len();
        return Err(Error::Unsupported(format!(
            "a choice has {num} tokens, the model takes 1 to {max_seq_len}; shorten it"
        )));
    }
    let tokens = [context, continuation].concat();
    let tokens = &tokens[tokens.len().saturating_sub(max_seq_len + 1)..];
    let len = tokens.len() - 1;
    let num_context = len - continuation.len();
    let targets: Vec<i32> =
        (0..len).map(|at| if at < num_context { IGNORED_TARGET } else { tokens[at + 1] as i32 }).collect();
    Ok(document_row(0, key, &tokens[..len], &targets, 0))
}

/// Log-likelihoods of (context, continuation) pairs, in their order.
pub fn log_likelihoods(
    model: &EvalModel<'_>,
    pairs: &[(String, String)],
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> Result<Vec<Likelihood>> {
    let architecture = model.network.architecture();
    if !architecture.is_causal() {
        let name = architecture.name();
        return Err(Error::Unsupported(format!("`{name}` is not causal and gives no likelihoods; use a causal model")));
    }
    let network = model.network.valid();
    // Pairs of like length share a batch, the longest first, so that too little memory shows at once.
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(pairs[*index].0.len() + pairs[*index].1.len()));
    let mut results = vec![Likelihood::default(); pairs.len()];
    let mut done = Done { rows: 0, tokens: 0 };
    for indices in order.chunks(model.microbatch.max(1)) {
        let rows = indices
            .iter()
            .map(|index| {
                let (context, continuation) = &pairs[*index];
                let (context, continuation) = encode_pair(model.tokenizer, context, continuation)?;
                row(&context, &continuation, *index as u64, model.max_seq_len())
            })
            .collect::<Result<Vec<Row>>>()?;
        let measured = measure_rows(&rows, model.pad_id(), &mut |batch| causal_rows(&network, batch))?;
        for (index, row) in indices.iter().zip(measured) {
            let is_greedy = row.correct == row.count;
            results[*index] = Likelihood { log_likelihood: -row.loss_sum, num_tokens: row.count, is_greedy };
        }
        done.rows += rows.len() as u64;
        done.tokens += rows.iter().map(|row| row.len() as u64).sum::<u64>();
        if progress(done).is_break() {
            return Err(Error::Interrupted);
        }
    }
    Ok(results)
}

/// Answers the questions; `delimiter` stands between context and choice (lm-eval: one space).
pub fn answer(
    model: &EvalModel<'_>,
    questions: &[Question],
    delimiter: &str,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> Result<Vec<Answered>> {
    let pair = |question: &Question, choice: &String| {
        (question.context.clone(), continuation(&question.context, choice, delimiter))
    };
    let pairs: Vec<(String, String)> =
        questions.iter().flat_map(|question| question.choices.iter().map(|choice| pair(question, choice))).collect();
    let mut likelihoods = log_likelihoods(model, &pairs, progress)?.into_iter();
    let mut next = |question: &Question| likelihoods.by_ref().take(question.choices.len()).collect();
    Ok(questions.iter().map(|question| Answered::new(question, next(question))).collect())
}

#[cfg(test)]
mod tests;
