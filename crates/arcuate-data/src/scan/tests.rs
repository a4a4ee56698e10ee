//! The scan on good and bad data.

use super::*;
use crate::testing::{Bytes, Folder, best_fit, lines};

fn scan_all(config: &DataConfig, options: ScanOptions) -> ScanReport {
    scan_with(config, Some(&Bytes::default()), &options, &Progress::none()).expect("not interrupted")
}

#[test]
fn good_data_has_no_findings() {
    let folder = Folder::new();
    let content = lines("doc", 100);
    folder.write("x.jsonl", &content);
    let mut config = folder.config("x.jsonl", best_fit());
    config.held_out_fraction = 0.2;
    let report = scan_all(&config, ScanOptions::default());
    assert_eq!((report.findings.len(), report.is_refused), (0, false));
    let sums = &report.sources["a"];
    assert_eq!(sums.documents, 100);
    assert_eq!(sums.tokens, sums.bytes);
    assert!(sums.is_complete && (5..40).contains(&sums.held_out_documents));
}

#[test]
fn every_kind_of_bad_item_is_counted_with_places() {
    let folder = Folder::new();
    let mut content = lines("doc", 10).into_bytes();
    for _ in 0..7 {
        content.extend_from_slice(b"{\"text\": \" \"}\n");
    }
    content.extend_from_slice(b"{\"text\": \"\xff\"}\n{\"id\": \"doc-1\", \"text\": \"x\"}\n{\"text\": \"##\"}\n");
    folder.write("x.jsonl", content);
    let config = folder.config("x.jsonl", best_fit());
    let report = scan_all(&config, ScanOptions { max_seq_len: Some(100), ..ScanOptions::default() });
    let counts: Vec<(FindingKind, u64)> = report.findings.iter().map(|finding| (finding.kind, finding.count)).collect();
    use FindingKind::*;
    let over_long = counts.iter().find(|(kind, _)| *kind == OverLong).expect("some have 22 words").1;
    assert_eq!(
        counts,
        [
            (BadItem(BadReason::NonUtf8), 1),
            (BadItem(BadReason::EmptyText), 7),
            (BadItem(BadReason::DuplicateId), 1),
            (OverLong, over_long),
            (UnknownToTokenizer, 1)
        ]
    );
    let empty = &report.findings[1];
    assert_eq!(empty.places.len(), MAX_PLACES);
    assert!(empty.places[0].ends_with("x.jsonl:11"));
    assert!(empty.message.contains("data.max_bad_items"));
    assert_eq!((report.num_bad_items, report.is_refused), (9, true));
}

#[test]
fn an_unreadable_source_does_not_hide_the_others() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 3));
    let mut config = folder.config("missing.jsonl", best_fit());
    let path = folder.path().join("x.jsonl").display().to_string();
    config.source.insert("b".to_owned(), SourceConfig::new(path));
    let report = scan_all(&config, ScanOptions::default());
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].kind, FindingKind::Unreadable);
    assert!(report.findings[0].message.contains("does not exist"));
    assert_eq!(report.sources["b"].documents, 3);
    assert!(report.is_refused);
}

#[test]
fn a_bounded_scan_says_that_it_stopped() {
    let folder = Folder::new();
    folder.write("x.txt", "words and words ".repeat(1 << 20));
    let config = folder.config("x.txt", best_fit());
    let options = ScanOptions {
        max_bytes_per_source: Some(8 << 20),
        max_tokenised_bytes_per_source: Some(1 << 20),
        ..ScanOptions::default()
    };
    let sums = &scan_all(&config, options).sources["a"];
    assert!(!sums.is_complete && sums.bytes < 14 << 20);
    assert!(sums.tokenised_bytes <= 6 << 20);
}
