//! Evaluation: held-out loss, multiple choice, classification, regression, tagging, error rates of transcripts, comparison with a
//! compressor.
//!
//! No result depends on the batch size: each row is summed on its own, then rows are added in their order.

pub mod annotate;
mod causal;
mod classification;
mod committee;
pub mod config;
mod error;
mod held_out;
mod lines;
mod lzma;
mod model;
mod multiple_choice;
pub mod overlap;
mod regression;
mod results;
mod rows;
mod tagging;
mod task;
mod text;
mod transcription;
mod transcripts;
mod wer;

#[cfg(test)]
mod testing;

pub use causal::causal_rows;
pub use classification::{
    ClassLogits, ClassScores, ClassificationResult, Classified, class_logits, classify, classify_file, each_document,
    labelled_documents,
};
pub use committee::{CommitteeMean, committee};
pub use config::EvaluationConfig;
pub use error::{Error, Result};
pub use held_out::{Done, HeldOutOptions, HeldOutResult, Measured, RowResult, evaluate};
pub use lzma::{LzmaLimits, LzmaResult, LzmaWatch, lzma, lzma_memory};
pub use model::EvalModel;
pub use multiple_choice::{
    Answered, Likelihood, Question, answer, continuation, encode_pair, log_likelihoods, read_questions,
};
pub use regression::{Predicted, RegressionResult, predict_numbers, predict_numbers_of_file};
pub use results::{Metric, TaskResult, lm_eval_json};
pub use rows::windows;
pub use tagging::{EntityScores, Tagged, TaggingResult, tag, tag_file};
pub use task::{
    CHOICE_DELIMITER, Task, choice_task, classification_task, held_out_task, regression_task, run_task, tagging_task,
    transcripts_task,
};
pub use text::{evaluate_text, text_rows};
pub use transcription::{HeardRow, Transcription, frame_logits, hears_padding};
pub use transcripts::{NgramConfig, TranscriptsConfig, TranscriptsProblem};
pub use wer::{
    AlignedWord, ComparedScores, ConfusedWord, Edit, EditCounts, ErrorRate, RateDifference, Transcribed,
    TranscriptScores, UtteranceScore, align, compare_rates, compare_scores, diff_words,
};
