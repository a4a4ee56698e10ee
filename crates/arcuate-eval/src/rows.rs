//! Rows out of texts that belong to no corpus.

use arcuate_data::{IGNORED_TARGET, Row};

/// One document as a row; `key` identifies it, `targets` are -100 where nothing is predicted.
pub(crate) fn document_row(source: u32, key: u64, input_ids: &[u32], targets: &[i32], num_bytes: u64) -> Row {
    let len = input_ids.len() as u32;
    Row {
        source,
        key,
        input_ids: input_ids.to_vec(),
        targets: targets.to_vec(),
        positions: (0..len).collect(),
        spans: vec![(0, len); input_ids.len()],
        label: None,
        logits: None,
        sound: None,
        num_bytes,
        documents: vec![key as u32],
    }
}

/// Windows over `tokens`, of which the first is only seen and every other one is predicted exactly once.
///
/// A window holds at most `max_seq_len` inputs and begins `stride` tokens after the one before; what an earlier window has
/// predicted is context. `num_bytes` are shared among the windows by their predictions.
pub fn windows(tokens: &[u32], max_seq_len: usize, stride: usize, num_bytes: u64) -> impl Iterator<Item = Row> {
    let max_seq_len = max_seq_len.max(1);
    let stride = stride.clamp(1, max_seq_len);
    let num_predicted = tokens.len().saturating_sub(1);
    let bytes_before = move |at: usize| (u128::from(num_bytes) * at as u128 / num_predicted.max(1) as u128) as u64;
    let mut start = 0;
    let mut predicted = 0;
    std::iter::from_fn(move || {
        if predicted == num_predicted {
            return None;
        }
        let end = (start + max_seq_len).min(num_predicted);
        let target = |at: usize| if at < predicted { IGNORED_TARGET } else { tokens[at + 1] as i32 };
        let targets: Vec<i32> = (start..end).map(target).collect();
        let bytes = bytes_before(end) - bytes_before(predicted);
        let row = document_row(0, start as u64, &tokens[start..end], &targets, bytes);
        predicted = end;
        start += stride;
        Some(row)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(num_tokens: u32, max_seq_len: usize, stride: usize) -> Vec<Row> {
        let tokens: Vec<u32> = (0..num_tokens).collect();
        let rows: Vec<Row> = windows(&tokens, max_seq_len, stride, 1001).collect();
        let predicted: Vec<i32> = rows.iter().flat_map(|row| &row.targets).copied().filter(|t| *t >= 0).collect();
        assert_eq!(predicted, (1..num_tokens as i32).collect::<Vec<_>>());
        assert!(rows.iter().all(|row| row.len() <= max_seq_len && row.num_targets() > 0));
        let bytes: u64 = rows.iter().map(|row| row.num_bytes).sum();
        assert_eq!(bytes, if num_tokens > 1 { 1001 } else { 0 });
        rows
    }

    #[test]
    fn every_token_but_the_first_is_predicted_once() {
        for (num_tokens, max_seq_len, stride) in [(10, 4, 4), (10, 4, 1), (9, 4, 3), (2, 8, 8), (1, 4, 4), (0, 4, 2)] {
            check(num_tokens, max_seq_len, stride);
        }
    }

    #[test]
    fn a_stride_gives_context() {
        let rows = check(10, 4, 2);
        assert_eq!(rows[1].input_ids, [2, 3, 4, 5]);
        assert_eq!(rows[1].targets, [IGNORED_TARGET, IGNORED_TARGET, 5, 6]);
    }
}
