//! Loss, perplexity and bits per byte of a plain text file.

use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;

use arcuate_data::Row;
use arcuate_decode::empty_context;
use arcuate_text::Tokenizer;

use crate::lines::open;
use crate::{Done, Error, EvalModel, HeldOutOptions, HeldOutResult, Result, causal_rows, evaluate, windows};

/// Largest text that is measured at once.
const MAX_TEXT_BYTES: u64 = 2 << 30;

/// The rows of a text: the begin token (else the end token, as lm-eval does) before it, nothing after it.
///
/// A tokenizer without either leaves the first token and its bytes unpredicted. `stride` left out: windows do not overlap.
pub fn text_rows(text: &str, tokenizer: &Tokenizer, max_seq_len: usize, stride: Option<usize>) -> Result<Vec<Row>> {
    let mut tokens = empty_context(tokenizer);
    tokens.drain(..tokens.len().saturating_sub(1));
    let has_begin = !tokens.is_empty();
    tokens.extend(tokenizer.encode(text)?);
    let unpredicted = if has_begin { 0 } else { tokenizer.decode(&tokens[..tokens.len().min(1)])?.len() };
    let num_bytes = text.len().saturating_sub(unpredicted) as u64;
    Ok(windows(&tokens, max_seq_len, stride.unwrap_or(max_seq_len), num_bytes).collect())
}

/// Measures a text file (plain, `.gz` or `.zst`) with a causal model.
pub fn evaluate_text(
    model: &EvalModel<'_>,
    path: &Path,
    progress: &mut dyn FnMut(Done) -> ControlFlow<()>,
) -> Result<HeldOutResult> {
    let text = read_text(path)?;
    let rows = text_rows(&text, model.tokenizer, model.max_seq_len(), model.stride_tokens)?;
    if rows.is_empty() {
        return Err(Error::Empty { what: format!("`{}`", path.display()), remedy: "name a file with text" });
    }
    let network = model.network.valid();
    let options = HeldOutOptions {
        microbatch: model.microbatch,
        pad_id: model.pad_id(),
        max_tokens: model.max_tokens,
        covers_text: true,
    };
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    evaluate(rows.into_iter().map(Ok), &[name], &options, progress, |batch| causal_rows(&network, batch))
}

fn read_text(path: &Path) -> Result<String> {
    let io = |source| Error::Io { path: path.to_path_buf(), source };
    let mut bytes = Vec::new();
    open(path)?.take(MAX_TEXT_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
    let refuse = |problem: String| Error::Unsupported(format!("`{}` {problem}", path.display()));
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(refuse(format!("has more than {MAX_TEXT_BYTES} bytes; split it")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        refuse(format!("is not UTF-8 at byte {at}; convert it, for instance with iconv"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TEXT, bytes, llama, words};
    use arcuate_text::SpecialToken;

    fn quiet(_: Done) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    #[test]
    fn a_text_begins_with_the_begin_token_and_all_its_tokens_are_predicted() {
        let tokenizer = bytes();
        let rows = text_rows(TEXT, &tokenizer, 7, None).expect("encodes");
        assert_eq!(Some(rows[0].input_ids[0]), tokenizer.special(SpecialToken::Bos));
        let targets: Vec<u32> = rows.iter().flat_map(|row| &row.targets).map(|t| *t as u32).collect();
        assert_eq!(targets, tokenizer.encode(TEXT).expect("encodes"));
        assert_eq!(rows.iter().map(|row| row.num_bytes).sum::<u64>(), TEXT.len() as u64);
    }

    #[test]
    fn perplexity_of_a_file_does_not_depend_on_the_batch_size_but_on_the_context() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("a.txt");
        std::fs::write(&path, TEXT.repeat(3)).expect("writes");
        let tokenizer = bytes();
        let network = llama(16, tokenizer.vocab_size());
        let run = |microbatch, stride_tokens| {
            let model = EvalModel { microbatch, stride_tokens, ..EvalModel::new(&network, &tokenizer) };
            evaluate_text(&model, &path, &mut quiet).expect("runs")
        };
        let one = run(1, None);
        assert_eq!(one.total.bytes, 3 * TEXT.len() as u64);
        assert!((run(4, None).total.loss / one.total.loss - 1.0).abs() < 1e-6);
        let strided = run(4, Some(5));
        assert_eq!(strided.total.tokens, one.total.tokens);
        assert_ne!(strided.total.loss, one.total.loss);
        assert!(one.sources.contains_key("a.txt"));
    }

    #[test]
    fn files_without_text_or_with_other_bytes_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let tokenizer = bytes();
        let network = llama(16, tokenizer.vocab_size());
        let run = |bytes: &[u8]| {
            let path = dir.path().join("a.txt");
            std::fs::write(&path, bytes).expect("writes");
            evaluate_text(&EvalModel::new(&network, &tokenizer), &path, &mut quiet).expect_err("refused").to_string()
        };
        assert!(run(b"").contains("holds nothing to evaluate"));
        assert!(run(b"ab\xff").contains("not UTF-8 at byte 2"));
        let missing = evaluate_text(&EvalModel::new(&network, &tokenizer), Path::new("/nowhere"), &mut quiet);
        assert!(missing.expect_err("missing").to_string().contains("cannot read `/nowhere`"));
    }

    #[test]
    fn a_tokenizer_with_its_own_begin_gives_exactly_one() {
        let rows = text_rows("the people", &words(), 99, None).expect("encodes");
        assert_eq!(Some(rows[0].input_ids[0]), words().special(SpecialToken::Cls));
    }
}
