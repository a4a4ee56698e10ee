//! Span masks: which frames (or channels) of each row are hidden, in spans, and which others a hidden frame is told apart from.
//!
//! # What it computes
//! Each sampler draws the starts of spans of M frames; hidden is the union of the spans.
//! `fairseq`: `n = max(min_spans, floor(share T / M + u))` starts with `u` uniform in [0, 1), without replacement from
//! `0..=T-M-1`, so that the last frame is never hidden; with `equal_counts` rows lose hidden frames at random until all have as
//! many as the row with the fewest. `bernoulli`: each frame is a start with a probability of its own, and spans end with the
//! row. `transformers`: as `fairseq` with one `u` for the batch, starts in `0..=T-M`, and no more spans than fit side by side.
//! Of a row with no more than M frames nothing is hidden.
//! # Recipe
//! The tables `mask`, `time_mask` and `channel_mask` of objectives for speech
//! # Reference
//! Baevski et al. 2020; the code of fairseq and Transformers
// B rows, T frames of a row, M frames of a span, N hidden frames of all rows, K negatives

use arcuate_ops::rng::Stream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How spans are drawn: exactly one table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpanMask {
    /// A share of the row divided by the span, rounded up or down at random; starts without replacement.
    Fairseq(Fairseq),
    /// Each frame begins a span with the same probability, as the papers describe it.
    Bernoulli(Bernoulli),
    /// As `fairseq`, with the differences of the Transformers library.
    Transformers(Transformers),
}

/// The table `fairseq` of a mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fairseq {
    /// Frames of all spans together, overlaps counted twice, as a share of the row. wav2vec 2.0: 0.65, which hides 0.49.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub mask_share: f64,
    /// M: frames (or channels) of a span.
    #[schemars(range(min = 1))]
    pub span_length: usize,
    /// Spans that every row has at least, as far as there are starts.
    #[serde(default)]
    pub min_spans: usize,
    /// Hide as many frames in every row as in the one with the fewest.
    #[serde(default)]
    pub equal_counts: bool,
}

/// The table `bernoulli` of a mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bernoulli {
    /// Probability that a frame begins a span. wav2vec 2.0 and w2v-BERT: 0.065, which hides 0.49 with spans of 10.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub mask_start_probability: f64,
    /// M: frames (or channels) of a span.
    #[schemars(range(min = 1))]
    pub span_length: usize,
}

/// The table `transformers` of a mask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transformers {
    /// Frames of all spans together, overlaps counted twice, as a share of the row.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub mask_share: f64,
    /// M: frames (or channels) of a span.
    #[schemars(range(min = 1))]
    pub span_length: usize,
    /// Spans that every row has at least, as far as they fit.
    #[serde(default)]
    pub min_spans: usize,
}

impl SpanMask {
    /// M: frames of a span.
    pub fn span_length(&self) -> usize {
        match self {
            Self::Fairseq(config) => config.span_length,
            Self::Bernoulli(config) => config.span_length,
            Self::Transformers(config) => config.span_length,
        }
    }

    /// Values that no sampler can use, each with its key.
    pub fn check(&self) -> Vec<(&'static str, String)> {
        let (key, share) = match self {
            Self::Fairseq(config) => ("mask_share", config.mask_share),
            Self::Bernoulli(config) => ("mask_start_probability", config.mask_start_probability),
            Self::Transformers(config) => ("mask_share", config.mask_share),
        };
        let mut found = Vec::new();
        if !(0.0..=1.0).contains(&share) {
            found.push((key, format!("`{key}` is {share}; use a number from 0 to 1")));
        }
        if self.span_length() == 0 {
            found.push(("span_length", "`span_length` is 0; use at least 1".to_owned()));
        }
        found
    }

    /// True where hidden, B times `width`, for rows of these lengths, each from the stream of its own.
    ///
    /// What the rows of a batch share is drawn first, from the stream of the first row.
    pub fn draw(&self, lengths: &[usize], width: usize, streams: &mut [Stream]) -> Vec<bool> {
        let mut is_hidden = vec![false; lengths.len() * width];
        let shared = match self {
            Self::Transformers(_) => streams.first_mut().map_or(0.0, Stream::uniform),
            _ => 0.0,
        };
        for (row, (len, stream)) in lengths.iter().zip(streams.iter_mut()).enumerate() {
            let hidden = &mut is_hidden[row * width..row * width + len.min(&width)];
            for start in self.starts(hidden.len(), shared, stream) {
                let end = (start + self.span_length()).min(hidden.len());
                hidden[start..end].fill(true);
            }
        }
        if matches!(self, Self::Fairseq(Fairseq { equal_counts: true, .. })) {
            thin(&mut is_hidden, width, streams);
        }
        is_hidden
    }

    fn starts(&self, len: usize, shared: f64, stream: &mut Stream) -> Vec<usize> {
        let span = self.span_length();
        if span == 0 || len <= span {
            return Vec::new();
        }
        let spans = |share: f64, u: f64| (share * len as f64 / span as f64 + u) as usize;
        match self {
            Self::Fairseq(config) => {
                let wanted = spans(config.mask_share, stream.uniform()).max(config.min_spans);
                choose(len - span, wanted, stream)
            }
            Self::Bernoulli(config) => (0..len).filter(|_| stream.uniform() < config.mask_start_probability).collect(),
            Self::Transformers(config) => {
                let wanted = spans(config.mask_share, shared).max(config.min_spans).min(len / span);
                choose(len - span + 1, wanted, stream)
            }
        }
    }
}

/// So many different numbers below `below`, or all of them.
fn choose(below: usize, wanted: usize, stream: &mut Stream) -> Vec<usize> {
    let mut all: Vec<usize> = (0..below).collect();
    let wanted = wanted.min(below);
    for i in 0..wanted {
        let other = i + stream.below((below - i) as u64) as usize;
        all.swap(i, other);
    }
    all.truncate(wanted);
    all
}

/// The hidden places of a row.
fn hidden(row: &[bool]) -> Vec<usize> {
    (0..row.len()).filter(|place| row[*place]).collect()
}

/// Shows hidden frames at random until every row with some has as few as the others.
fn thin(is_hidden: &mut [bool], width: usize, streams: &mut [Stream]) {
    let fewest = is_hidden.chunks(width.max(1)).map(|row| hidden(row).len()).filter(|count| *count > 0).min();
    let Some(fewest) = fewest else { return };
    for (row, stream) in is_hidden.chunks_mut(width.max(1)).zip(streams) {
        let places = hidden(row);
        for shown in choose(places.len(), places.len().saturating_sub(fewest), stream) {
            row[places[shown]] = false;
        }
    }
}

/// For each hidden frame, in order, K others of the same row, drawn with replacement: places in the list of hidden frames of
/// all rows, N times K.
///
/// Rows with a single hidden frame have no others: it is shown again.
pub fn draw_negatives(is_hidden: &mut [bool], width: usize, num_negatives: usize, streams: &mut [Stream]) -> Vec<i32> {
    let mut negatives = Vec::new();
    let mut first = 0;
    for (row, stream) in is_hidden.chunks_mut(width.max(1)).zip(streams) {
        let places = hidden(row);
        if let [alone] = places[..] {
            row[alone] = false;
            continue;
        }
        let others = places.len().saturating_sub(1) as u64;
        for own in 0..places.len() {
            let other = |stream: &mut Stream| {
                let drawn = stream.below(others) as usize;
                (first + drawn + usize::from(drawn >= own)) as i32
            };
            negatives.extend((0..num_negatives).map(|_| other(stream)));
        }
        first += places.len();
    }
    negatives
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fairseq(share: f64, span: usize) -> SpanMask {
        SpanMask::Fairseq(Fairseq { mask_share: share, span_length: span, min_spans: 0, equal_counts: false })
    }

    fn bernoulli(probability: f64, span: usize) -> SpanMask {
        SpanMask::Bernoulli(Bernoulli { mask_start_probability: probability, span_length: span })
    }

    fn transformers(share: f64, span: usize) -> SpanMask {
        SpanMask::Transformers(Transformers { mask_share: share, span_length: span, min_spans: 0 })
    }

    fn streams(num: usize, step: u64) -> Vec<Stream> {
        (0..num as u64).map(|row| Stream::new(7, "test", step, row)).collect()
    }

    /// One row of so many frames.
    fn one(mask: &SpanMask, len: usize, step: u64) -> Vec<bool> {
        mask.draw(&[len], len, &mut streams(1, step))
    }

    /// The mean share of hidden frames of so many masks, and how often each frame was hidden.
    fn hidden_share(mask: &SpanMask, len: usize, times: u64) -> (f64, Vec<u64>) {
        let mut counts = vec![0; len];
        for step in 0..times {
            one(mask, len, step).iter().zip(&mut counts).for_each(|(is_hidden, count)| *count += u64::from(*is_hidden));
        }
        (counts.iter().sum::<u64>() as f64 / (len as u64 * times) as f64, counts)
    }

    /// The share that `fairseq` hides on average: a frame stays when none of the starts that reach it is drawn.
    fn expected_share(share: f64, span: usize, len: usize) -> f64 {
        let starts = len - span;
        let (whole, part) = ((share * len as f64 / span as f64).floor(), (share * len as f64 / span as f64).fract());
        let stays = |reach: usize, n: usize| {
            (0..n).map(|i| (starts - reach).saturating_sub(i) as f64 / (starts - i) as f64).product::<f64>()
        };
        let hides = |frame: usize| {
            let reach = frame.min(starts - 1) + 1 - (frame + 1).saturating_sub(span).min(starts);
            let n = whole as usize;
            1.0 - (1.0 - part) * stays(reach, n) - part * stays(reach, n + 1)
        };
        (0..len).map(hides).sum::<f64>() / len as f64
    }

    #[test]
    fn the_share_hidden_is_that_of_the_card() {
        let known = [(49, 0.50797), (99, 0.49758), (199, 0.49352), (249, 0.49261), (499, 0.49095), (999, 0.49016)];
        for (len, share) in known {
            let exact = expected_share(0.65, 10, len);
            assert!((exact - share).abs() < 5.1e-6, "{len}: {exact}");
            let (drawn, counts) = hidden_share(&fairseq(0.65, 10), len, 2000);
            assert!((drawn - share).abs() < 0.005, "{len}: {drawn}");
            assert_eq!(counts[len - 1], 0, "the last frame is never hidden");
        }
    }

    #[test]
    fn the_number_of_spans_is_that_of_the_card() {
        let mask = fairseq(0.65, 10);
        let mut counts = std::collections::BTreeMap::new();
        for step in 0..4000 {
            let starts = mask.starts(499, 0.0, &mut Stream::new(7, "test", step, 0));
            *counts.entry(starts.len()).or_insert(0.0) += 1.0 / 4000.0;
        }
        assert_eq!(counts.keys().copied().collect::<Vec<_>>(), [32, 33]);
        assert!((counts[&32] - 0.565f64).abs() < 0.025, "{counts:?}");
    }

    #[test]
    fn each_frame_may_begin_a_span_in_the_form_of_the_papers() {
        let (drawn, counts) = hidden_share(&bernoulli(0.065, 10), 499, 2000);
        // Frames near the beginning are reached by fewer starts.
        let reached = |frame: usize| 1.0 - (1.0 - 0.065f64).powi(frame.min(9) as i32 + 1);
        let exact = (0..499).map(reached).sum::<f64>() / 499.0;
        assert!((exact - 0.489).abs() < 0.006 && (drawn - exact).abs() < 0.005, "{drawn} {exact}");
        assert!(counts[498] > 0);
    }

    #[test]
    fn the_form_of_the_transformers_library_reaches_the_last_frame_and_shares_one_number() {
        let (_, counts) = hidden_share(&transformers(0.65, 10), 49, 2000);
        assert!(counts[48] > 0);
        // 0.65 x 100 / 10 is 6.5: all rows of a batch have 6 spans, or all have 7; with a share of 1 no more than fit.
        for step in 0..50 {
            let mut all = streams(8, step);
            let shared = all[0].uniform();
            let counts: Vec<usize> =
                all.iter_mut().map(|stream| transformers(0.65, 10).starts(100, shared, stream).len()).collect();
            assert!(counts.iter().all(|count| *count == counts[0] && (6..=7).contains(count)), "{counts:?}");
        }
        assert_eq!(transformers(1.0, 10).starts(39, 0.99, &mut Stream::new(1, "test", 0, 0)).len(), 3);
    }

    #[test]
    fn rows_with_no_more_frames_than_a_span_stay_whole() {
        for mask in [fairseq(1.0, 10), bernoulli(1.0, 10), transformers(1.0, 10)] {
            let hidden = mask.draw(&[0, 1, 10, 11], 12, &mut streams(4, 1));
            assert!(hidden[..36].iter().all(|is_hidden| !is_hidden));
            assert!(hidden[36..47].iter().any(|is_hidden| *is_hidden));
            assert!(!hidden[47], "padding is never hidden");
            assert!(mask.draw(&[], 0, &mut []).is_empty());
        }
    }

    #[test]
    fn a_row_is_hidden_alike_whatever_stands_beside_it() {
        for mask in [fairseq(0.65, 10), bernoulli(0.065, 10)] {
            let both = mask.draw(&[60, 80], 80, &mut streams(2, 3));
            let alone = mask.draw(&[80], 90, &mut streams(2, 3)[1..]);
            assert_eq!(both[80..], alone[..80]);
        }
    }

    #[test]
    fn equal_counts_are_those_of_the_row_with_the_fewest() {
        let draw = |equal_counts| {
            let mask = SpanMask::Fairseq(Fairseq { mask_share: 0.65, span_length: 10, min_spans: 2, equal_counts });
            mask.draw(&[5, 60, 200, 90], 200, &mut streams(4, 9))
        };
        let (free, equal) = (draw(false), draw(true));
        let counts = |mask: &[bool]| mask.chunks(200).map(|row| row.iter().filter(|x| **x).count()).collect::<Vec<_>>();
        let fewest = counts(&free)[1..].iter().copied().min().unwrap_or(0);
        assert_eq!(counts(&equal), [0, fewest, fewest, fewest]);
        assert!(equal.iter().zip(&free).all(|(thinned, before)| *before || !thinned));
    }

    #[test]
    fn a_row_has_at_least_the_spans_asked_for() {
        let mask = SpanMask::Fairseq(Fairseq { mask_share: 0.0, span_length: 10, min_spans: 2, equal_counts: false });
        for step in 0..20 {
            assert_eq!(mask.starts(100, 0.0, &mut Stream::new(1, "test", step, 0)).len(), 2);
            assert_eq!(mask.starts(11, 0.0, &mut Stream::new(1, "test", step, 0)), [0], "there is one start only");
        }
    }

    #[test]
    fn negatives_are_other_hidden_frames_of_the_row_and_all_equally_likely() {
        let mut is_hidden = vec![false; 30];
        // 4 in the first row, one alone in the second, 3 in the third.
        [1, 4, 5, 9, 15, 21, 22, 29].iter().for_each(|place| is_hidden[*place] = true);
        let k = 3000;
        let negatives = draw_negatives(&mut is_hidden, 10, k, &mut streams(3, 2));
        assert!(!is_hidden[15], "a frame alone in its row is shown again");
        assert_eq!(negatives.len(), 7 * k);
        for own in 0..7usize {
            let row = if own < 4 { 0..4 } else { 4..7 };
            let mut counts = [0.0; 7];
            negatives[own * k..(own + 1) * k].iter().for_each(|other| counts[*other as usize] += 1.0);
            assert!(counts.iter().enumerate().all(|(other, count)| *count == 0.0 || row.contains(&other)));
            assert_eq!(counts[own], 0.0);
            let expected = k as f64 / (row.len() - 1) as f64;
            let others = row.clone().filter(|other| *other != own);
            let chi_square: f64 = others.map(|other| (counts[other] - expected).powi(2) / expected).sum();
            // One in a thousand for 2 degrees of freedom; the draws are always the same.
            assert!(chi_square < 13.8, "{own}: {chi_square}");
        }
    }

    #[test]
    fn tables_are_read_by_name_and_checked() {
        let mask: SpanMask =
            serde_json::from_str(r#"{"fairseq": {"mask_share": 0.65, "span_length": 10}}"#).expect("sound");
        assert_eq!((mask.clone(), mask.check()), (fairseq(0.65, 10), vec![]));
        for wrong in [
            r#"{"fairseq": {"mask_prob": 0.65, "span_length": 10}}"#,
            r#"{"bernoulli": {"mask_share": 0.65, "span_length": 10}}"#,
            r#"{"span": {}}"#,
        ] {
            assert!(serde_json::from_str::<SpanMask>(wrong).is_err(), "{wrong}");
        }
        let keys: Vec<_> = bernoulli(1.5, 0).check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["mask_start_probability", "span_length"]);
        assert!(bernoulli(0.5, 0).draw(&[9], 9, &mut streams(1, 1)).iter().all(|is_hidden| !is_hidden));
    }
}
