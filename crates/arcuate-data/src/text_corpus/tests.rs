//! A corpus from files to rows: order, resume, coverage, boundaries, split, mixture, cache, labels.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::*;
use crate::corpus::Corpus;
use crate::error::BadReason;
use crate::progress::Stage;
use crate::row::IGNORED_TARGET;
use crate::testing::{BOS, Bytes, CLS, EOS, Folder, MASK, SEP, best_fit, causal, concatenate, document, lines, open};

fn one_epoch(corpus: &Corpus, seed: u64) -> Vec<Row> {
    let num = corpus.epoch_rows(0) as usize;
    corpus.sampler(seed).next_rows(num).expect("drawn")
}

/// (input, target) of every prediction, by document, in any order.
fn predictions(rows: &[Row]) -> BTreeMap<(u32, i32), u32> {
    let mut found = BTreeMap::new();
    for row in rows {
        for (input, target) in row.input_ids.iter().zip(&row.targets).filter(|(_, t)| **t != IGNORED_TARGET) {
            *found.entry((*input, *target)).or_default() += 1;
        }
    }
    found
}

fn expected_predictions(texts: &[String]) -> BTreeMap<(u32, i32), u32> {
    let mut found = BTreeMap::new();
    for text in texts {
        let mut tokens = vec![BOS];
        tokens.extend(text.bytes().map(u32::from));
        tokens.push(EOS);
        for pair in tokens.windows(2) {
            *found.entry((pair[0], pair[1] as i32)).or_default() += 1;
        }
    }
    found
}

fn texts(json_lines: &str) -> Vec<String> {
    let value = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("written by the test");
    json_lines.lines().map(|line| value(line)["text"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn an_epoch_predicts_every_training_token_exactly_once() {
    let folder = Folder::new();
    let content = lines("doc", 50);
    folder.write("x.jsonl", &content);
    let expected = expected_predictions(&texts(&content));
    for packing in [best_fit(), concatenate()] {
        let corpus = open(&folder.config("x.jsonl", packing), &causal(64)).expect("opens");
        let rows = one_epoch(&corpus, 3);
        assert_eq!(predictions(&rows), expected);
        let tokens: usize = rows.iter().map(Row::len).sum();
        assert_eq!(tokens as u64, corpus.train_tokens(0));
        let bytes: u64 = rows.iter().map(|row| row.num_bytes).sum();
        assert_eq!(bytes, corpus.summary()[0].train_bytes);
    }
}

#[test]
fn no_target_and_no_span_crosses_documents() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 50));
    for packing in [best_fit(), concatenate()] {
        let corpus = open(&folder.config("x.jsonl", packing), &causal(64)).expect("opens");
        for row in one_epoch(&corpus, 3) {
            let mut start = 0;
            for document in &row.documents {
                let (from, to) = row.spans[start];
                assert_eq!(from as usize, start);
                for at in start..to as usize {
                    assert_eq!(row.spans[at], (from, to));
                    assert_eq!(row.positions[at] as usize, at - start);
                    let is_end = row.targets[at] == EOS as i32;
                    assert!(!is_end || at + 1 == to as usize, "a document ends inside a span: {document}");
                    if at + 1 < to as usize {
                        assert_eq!(row.targets[at], row.input_ids[at + 1] as i32);
                    }
                }
                start = to as usize;
            }
            assert_eq!(start, row.len());
        }
    }
}

#[test]
fn the_order_depends_on_the_seed_alone() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 80));
    let corpus = open(&folder.config("x.jsonl", document()), &causal(64)).expect("opens");
    let keys = |seed, num| -> Vec<u64> {
        corpus.sampler(seed).next_rows(num).expect("drawn").iter().map(|row| row.key).collect()
    };
    assert_eq!(keys(1, 100), keys(1, 100));
    assert_ne!(keys(1, 80), keys(2, 80));
    let (first, second) = (keys(1, 160)[..80].to_vec(), keys(1, 160)[80..].to_vec());
    assert_ne!(first, second, "each epoch has its own order");
    let set = |keys: &[u64]| keys.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!((set(&first).len(), set(&first)), (80, set(&second)));
}

#[test]
fn a_restored_sampler_goes_on_like_an_uninterrupted_one() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 40));
    folder.write("y.jsonl", lines("other", 15));
    let mut config = folder.config("x.jsonl", best_fit());
    let other = folder.path().join("y.jsonl").display().to_string();
    config.source.insert("b".to_owned(), SourceConfig { weight: 0.4, ..SourceConfig::new(other) });
    let corpus = open(&config, &causal(64)).expect("opens");
    let all = corpus.sampler(5).next_rows(120).expect("drawn");
    for cut in [0, 1, 37, 119] {
        let mut first = corpus.sampler(5);
        let mut rows = first.next_rows(cut).expect("drawn");
        let text = serde_json::to_string(&first.state()).expect("plain data");
        let mut second = corpus.sampler(5);
        second.restore(&serde_json::from_str(&text).expect("plain data")).expect("the same data");
        assert_eq!(second.ledger(), first.ledger());
        rows.extend(second.next_rows(120 - cut).expect("drawn"));
        assert!(rows == all, "cut at {cut}");
    }
}

#[test]
fn a_state_of_other_data_is_refused() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 10));
    let corpus = open(&folder.config("x.jsonl", best_fit()), &causal(64)).expect("opens");
    let mut state = corpus.sampler(1).state();
    assert!(matches!(corpus.sampler(2).restore(&state), Err(Error::ForeignState { .. })));
    state.sources.insert("zzz".to_owned(), Default::default());
    assert!(matches!(corpus.sampler(1).restore(&state), Err(Error::ForeignState { .. })));
}

#[test]
fn weights_decide_the_shares_and_the_ledger_adds_up() {
    let folder = Folder::new();
    let mut config = folder.config("a.jsonl", concatenate());
    for (name, weight) in [("a", 5.0), ("b", 3.0), ("c", 2.0)] {
        let path = folder.write(&format!("{name}.jsonl"), lines(name, 60));
        let source = SourceConfig { weight, ..SourceConfig::new(path.display().to_string()) };
        config.source.insert(name.to_owned(), source);
    }
    let corpus = open(&config, &causal(32)).expect("opens");
    let mut sampler = corpus.sampler(1);
    let (mut tokens, mut bytes) = (0, 0);
    for _ in 0..50 {
        for row in sampler.next_rows(10).expect("drawn") {
            tokens += row.len() as u64;
            bytes += row.num_bytes;
        }
        let ledger = sampler.ledger();
        assert_eq!(ledger.iter().map(|entry| entry.tokens).sum::<u64>(), tokens);
        assert_eq!(ledger.iter().map(|entry| entry.bytes).sum::<u64>(), bytes);
        for entry in ledger {
            let off = entry.tokens as f64 - entry.target_share * tokens as f64;
            assert!(off.abs() <= 32.0, "{} is {off} tokens off its share", entry.source);
        }
    }
    let expected = corpus.expected_ledger(tokens);
    for (entry, expected) in sampler.ledger().iter().zip(&expected) {
        assert!((entry.repeats - expected.repeats).abs() < 0.1, "{entry:?} {expected:?}");
    }
}

#[test]
fn an_exhausted_source_leaves_its_share_until_all_are_exhausted() {
    let folder = Folder::new();
    let mut config = folder.config("a.jsonl", document());
    for (name, repeats) in [("a", 1.0), ("b", 2.5)] {
        let path = folder.write(&format!("{name}.jsonl"), lines(name, 20));
        let source = SourceConfig { max_repeats: Some(repeats), ..SourceConfig::new(path.display().to_string()) };
        config.source.insert(name.to_owned(), source);
    }
    let corpus = open(&config, &causal(256)).expect("opens");
    let mut sampler = corpus.sampler(1);
    let rows = sampler.next_rows(70).expect("20 and 50 rows are allowed");
    assert_eq!(rows.iter().filter(|row| row.source == 0).count(), 20);
    let before = sampler.state();
    assert!(matches!(sampler.next_rows(1), Err(Error::Exhausted { rows: 70, .. })));
    assert_eq!(sampler.state(), before);
    let mut sampler = corpus.sampler(1);
    assert!(sampler.next_rows(71).is_err());
    assert_eq!(sampler.state(), corpus.sampler(1).state(), "a failed draw changes nothing");
}

fn ids(corpus: &Corpus, rows: &[Row]) -> BTreeSet<String> {
    let of = |row: &Row, document: &u32| corpus.document_id(row.source, *document).expect("there");
    rows.iter().flat_map(|row| row.documents.iter().map(|document| of(row, document)).collect::<Vec<_>>()).collect()
}

#[test]
fn held_out_documents_are_never_trained_on_and_stay_held_out() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 100));
    let mut config = folder.config("x.jsonl", best_fit());
    config.held_out_fraction = 0.3;
    let corpus = open(&config, &causal(64)).expect("opens");
    let held_out: Vec<Row> = corpus.held_out(None).expect("no stride").map(|row| row.expect("whole")).collect();
    let (train, held) = (ids(&corpus, &one_epoch(&corpus, 1)), ids(&corpus, &held_out));
    assert!(train.is_disjoint(&held));
    assert_eq!(train.len() + held.len(), 100);
    assert!((15..45).contains(&held.len()), "{}", held.len());
    folder.write("x.jsonl", lines("new", 30) + &lines("doc", 100));
    let corpus = open(&config, &causal(64)).expect("opens");
    let rows: Vec<Row> = corpus.held_out(None).expect("no stride").map(|row| row.expect("whole")).collect();
    let still: BTreeSet<String> = ids(&corpus, &rows).into_iter().filter(|id| id.starts_with("doc")).collect();
    assert_eq!(still, held);
}

#[test]
fn held_out_tokens_are_predicted_once_with_any_stride() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 60));
    let mut config = folder.config("x.jsonl", concatenate());
    config.held_out_fraction = 0.5;
    let corpus = open(&config, &causal(32)).expect("opens");
    let read = |stride| -> Vec<Row> {
        corpus.held_out(stride).expect("a valid stride").map(|row| row.expect("whole")).collect()
    };
    let plain = read(None);
    let bytes = corpus.summary()[0].held_out_bytes;
    for stride in [1, 7, 32] {
        let rows = read(Some(stride));
        assert_eq!(predictions(&rows), predictions(&plain), "stride {stride}");
        assert_eq!(rows.iter().map(|row| row.num_bytes).sum::<u64>(), bytes);
        assert!(rows.iter().all(|row| row.len() <= 32 && row.documents.len() == 1));
    }
    assert_eq!(corpus.held_out(None).expect("no stride").num_rows(), plain.len() as u64);
    for wrong in [0, 33] {
        assert!(matches!(corpus.held_out(Some(wrong)), Err(Error::BadStride { .. })));
    }
}

#[test]
fn document_packing_is_one_document_a_row_but_evaluates_all_of_it() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 60));
    let mut config = folder.config("x.jsonl", document());
    config.held_out_fraction = 0.3;
    let corpus = open(&config, &causal(32)).expect("opens");
    let rows = one_epoch(&corpus, 1);
    assert!(rows.iter().all(|row| row.documents.len() == 1 && row.len() <= 32 && row.input_ids[0] == BOS));
    let held_out = corpus.held_out(None).expect("no stride");
    let targets: usize = held_out.map(|row| row.expect("whole").num_targets()).sum();
    let summary = &corpus.summary()[0];
    assert_eq!(targets as u64, summary.held_out_tokens - summary.held_out_documents);
}

#[test]
fn bidirectional_rows_frame_each_piece_and_carry_labels() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 30));
    let mut config = folder.config("x.jsonl", best_fit());
    let options = CorpusOptions {
        max_seq_len: 48,
        framing: Framing::Bert,
        labels: false,
        logits: false,
        tags: false,
        prompt: None,
    };
    let corpus = open(&config, &options).expect("opens");
    let mut num_text_tokens = 0;
    for row in one_epoch(&corpus, 1) {
        assert!(row.len() <= 48 && row.targets.iter().all(|target| *target == IGNORED_TARGET));
        for (at, (start, end)) in row.spans.iter().enumerate() {
            assert_eq!(row.input_ids[*start as usize], CLS);
            assert_eq!(row.input_ids[*end as usize - 1], SEP);
            num_text_tokens += usize::from(![CLS, SEP].contains(&row.input_ids[at]));
        }
    }
    assert_eq!(num_text_tokens as u64, corpus.summary()[0].train_tokens);
    let labelled = CorpusOptions { labels: true, ..options };
    assert!(matches!(open(&config, &labelled), Err(Error::Config { .. })), "labels need whole documents");
    config.packing = document();
    assert!(matches!(open(&config, &labelled), Err(Error::MissingLabel { .. })));
    config.source.get_mut("a").expect("the only source").label_column = Some("kind".to_owned());
    let corpus = open(&config, &labelled).expect("opens");
    assert_eq!(corpus.label_names(), ["k0", "k1", "k2"]);
    for row in one_epoch(&corpus, 1) {
        let id = corpus.document_id(0, row.documents[0]).expect("there");
        let number: u32 = id.strip_prefix("doc-").and_then(|n| n.parse().ok()).expect("written by the test");
        assert_eq!(row.label, Some(number % 3));
    }
}

#[test]
fn documents_without_a_label_are_refused_or_left_out() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 10) + "{\"text\": \"no label\", \"kind\": null}\n");
    let mut config = folder.config("x.jsonl", document());
    config.source.get_mut("a").expect("the only source").label_column = Some("kind".to_owned());
    let options = CorpusOptions {
        max_seq_len: 64,
        framing: Framing::Bert,
        labels: true,
        logits: false,
        tags: false,
        prompt: None,
    };
    let error = open(&config, &options).err().expect("one has none").to_string();
    assert!(error.contains("1 of 11 documents have no label") && error.contains("x.jsonl:11"), "{error}");
    config.max_bad_items = 1;
    assert_eq!(open(&config, &options).expect("one may be left out").epoch_rows(0), 10);
}

#[test]
fn without_marks_the_first_token_is_not_predicted_and_its_bytes_do_not_count() {
    let folder = Folder::new();
    folder.write("x.txt", "abcdefgh");
    let encoder = Bytes { has_marks: false, ..Bytes::default() };
    let config = folder.config("x.txt", best_fit());
    let corpus = Corpus::open_with(&config, &encoder, &causal(64), &Progress::none()).expect("opens");
    let row = one_epoch(&corpus, 1).remove(0);
    assert_eq!((row.len(), row.num_bytes), (7, 7));
    let options = CorpusOptions { framing: Framing::Bert, ..causal(64) };
    let error = Corpus::open_with(&config, &encoder, &options, &Progress::none()).err().expect("no [CLS]");
    assert!(error.to_string().contains("[CLS]"), "{error}");
}

#[test]
fn a_large_vocabulary_is_stored_in_32_bits() {
    let folder = Folder::new();
    let content = lines("doc", 20);
    folder.write("x.jsonl", &content);
    let encoder = Bytes { vocab_size: 100_000, ..Bytes::default() };
    let config = folder.config("x.jsonl", best_fit());
    let corpus = Corpus::open_with(&config, &encoder, &causal(64), &Progress::none()).expect("opens");
    assert_eq!(predictions(&one_epoch(&corpus, 1)), expected_predictions(&texts(&content)));
}

#[test]
fn the_cache_is_used_again_until_data_or_tokenizer_change() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 20));
    let config = folder.config("x.jsonl", best_fit());
    let tokenised = |encoder: &Bytes| {
        let stages = std::sync::Mutex::new(Vec::new());
        let progress = Progress::new(|stage, _, _| {
            stages.lock().expect("no panic").push(stage);
            ControlFlow::Continue(())
        });
        let corpus = Corpus::open_with(&config, encoder, &causal(64), &progress).expect("opens");
        drop(progress);
        (stages.into_inner().expect("no panic").contains(&Stage::Tokenise), corpus.fingerprint().to_owned())
    };
    let bytes = Bytes::default();
    let (is_new, first) = tokenised(&bytes);
    assert!(is_new);
    assert_eq!(tokenised(&bytes), (false, first.clone()));
    let (is_new, other) = tokenised(&Bytes { vocab_size: 300, ..Bytes::default() });
    assert!(is_new && other != first);
    folder.write("x.jsonl", lines("doc", 21));
    let (is_new, other) = tokenised(&bytes);
    assert!(is_new && other != first);
}

#[test]
fn two_threads_open_the_same_corpus_at_once() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 300));
    let config = folder.config("x.jsonl", best_fit());
    let keys = |corpus: Corpus| -> Vec<u64> { one_epoch(&corpus, 1).iter().map(|row| row.key).collect() };
    let (first, second) = std::thread::scope(|scope| {
        let one = scope.spawn(|| open(&config, &causal(64)).map(keys).expect("opens"));
        let two = scope.spawn(|| open(&config, &causal(64)).map(keys).expect("opens"));
        (one.join().expect("no panic"), two.join().expect("no panic"))
    });
    assert_eq!(first, second);
}

#[test]
fn an_interrupted_build_leaves_nothing_and_the_next_one_succeeds() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 100));
    let config = folder.config("x.jsonl", best_fit());
    let stop = Progress::new(|stage, _, _| match stage {
        Stage::Tokenise => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let result = Corpus::open_with(&config, &Bytes::default(), &causal(64), &stop);
    assert!(matches!(result.err(), Some(Error::Interrupted)));
    let left: Vec<String> = std::fs::read_dir(&config.cache_dir)
        .expect("there")
        .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("tokens-") && !name.ends_with(".lock"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    open(&config, &causal(64)).expect("opens");
}

#[test]
fn a_cache_with_a_shortened_file_is_built_again() {
    let folder = Folder::new();
    let content = lines("doc", 50);
    folder.write("x.jsonl", &content);
    let config = folder.config("x.jsonl", best_fit());
    let expected = expected_predictions(&texts(&content));
    for name in ["tokens.bin", "documents.bin", "rows.bin", "pieces.bin", "meta.json"] {
        drop(open(&config, &causal(64)).expect("opens"));
        for entry in std::fs::read_dir(&config.cache_dir).expect("there") {
            let path = entry.expect("readable").path().join(name);
            if let Ok(bytes) = std::fs::read(&path) {
                std::fs::write(&path, &bytes[..bytes.len().saturating_sub(2)]).expect("writable");
            }
        }
        let corpus = open(&config, &causal(64)).expect("opens");
        assert_eq!(predictions(&one_epoch(&corpus, 1)), expected, "{name}");
    }
}

#[test]
fn a_token_outside_the_vocabulary_is_a_damaged_cache() {
    let folder = Folder::new();
    folder.write("x.txt", "some text of some length");
    let config = folder.config("x.txt", best_fit());
    drop(open(&config, &causal(64)).expect("opens"));
    for entry in std::fs::read_dir(&config.cache_dir).expect("there") {
        let path = entry.expect("readable").path().join("tokens.bin");
        if let Ok(bytes) = std::fs::read(&path) {
            std::fs::write(&path, vec![0xff; bytes.len()]).expect("writable");
        }
    }
    let corpus = open(&config, &causal(64)).expect("sizes are right");
    let error = corpus.sampler(1).next_rows(1).expect_err("tokens are wrong");
    assert!(error.to_string().contains("outside the vocabulary"), "{error}");
}

#[test]
fn bad_items_are_errors_until_allowed_and_then_counted() {
    let folder = Folder::new();
    let bad = "{\"text\": \"\"}\nnot json\n{\"id\": \"doc-3\", \"text\": \"again\"}\n{\"text\": \"\\u0001\"}\n";
    folder.write("x.jsonl", lines("doc", 20) + bad);
    let mut config = folder.config("x.jsonl", best_fit());
    let error = open(&config, &causal(64)).err().expect("bad items").to_string();
    assert!(error.contains("x.jsonl:21` has an empty text"), "{error}");
    config.max_bad_items = 3;
    let error = open(&config, &causal(64)).err().expect("one too many").to_string();
    assert!(
        error.starts_with("more than 3 bad items (1 broken JSON, 1 empty text, 1 duplicate id, 1 no tokens)"),
        "{error}"
    );
    config.max_bad_items = 4;
    let corpus = open(&config, &causal(64)).expect("four are allowed");
    let summary = &corpus.summary()[0];
    assert_eq!((summary.documents, corpus.num_bad_items()), (20, 4));
    assert_eq!(summary.bad_items[&BadReason::DuplicateId], 1);
    config.max_bad_items = 0;
    assert!(open(&config, &causal(64)).is_err(), "a cache made with a higher limit is no way around it");
}

#[test]
fn nothing_to_train_on_is_said_with_a_remedy() {
    let folder = Folder::new();
    folder.write("empty.jsonl", "\n\n");
    let error = open(&folder.config("empty.jsonl", best_fit()), &causal(64)).err().expect("no document");
    assert!(matches!(error, Error::EmptySource { .. }), "{error}");
    let id = (0..).map(|i| format!("{i}.txt")).find(|id| Split::of(id, 0.5) == Split::HeldOut).expect("half");
    folder.write(&id, "all of it is held out");
    let mut config = folder.config(&id, best_fit());
    config.held_out_fraction = 0.5;
    let error = open(&config, &causal(64)).err().expect("all held out").to_string();
    assert!(error.contains("`split_at_bytes`"), "{error}");
}

#[test]
fn one_giant_document_is_cut_into_rows() {
    let folder = Folder::new();
    let text: String = (0..150_000).map(|i| format!("word{} ", i % 977)).collect();
    folder.write("x.txt", &text);
    let corpus = open(&folder.config("x.txt", best_fit()), &causal(1024)).expect("opens");
    let summary = &corpus.summary()[0];
    assert_eq!((summary.documents, summary.tokens), (1, text.len() as u64 + 2));
    let rows = one_epoch(&corpus, 1);
    assert_eq!(rows.iter().map(|row| row.num_bytes).sum::<u64>(), text.len() as u64);
    assert_eq!(corpus.max_row_tokens(), 1024);
}

#[test]
fn rows_can_be_traced_to_their_documents() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 30));
    let mut config = folder.config("x.jsonl", best_fit());
    config.held_out_fraction = 0.3;
    let corpus = open(&config, &causal(64)).expect("opens");
    let held_out = corpus.held_out(None).expect("no stride").map(|row| row.expect("whole"));
    for row in one_epoch(&corpus, 1).into_iter().chain(held_out) {
        let (source, found) = corpus.describe_row(row.key).expect("a row of this corpus");
        assert_eq!(source, "a");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), ids(&corpus, &[row]));
    }
    assert_eq!(corpus.describe_row(u64::MAX), None);
}

#[test]
fn texts_are_those_of_one_side_of_the_split() {
    let folder = Folder::new();
    let content = lines("doc", 60);
    folder.write("x.jsonl", &content);
    let mut config = folder.config("x.jsonl", best_fit());
    config.held_out_fraction = 0.3;
    let read = |split| crate::Texts::open(&config, split, None).expect("opens").collect::<Vec<String>>();
    let (train, held_out) = (read(Split::Train), read(Split::HeldOut));
    let mut all = [train.clone(), held_out].concat();
    let mut expected = texts(&content);
    all.sort();
    expected.sort();
    assert_eq!(all, expected);
    let bytes: usize = train.iter().map(String::len).sum();
    assert_eq!(bytes as u64, open(&config, &causal(64)).expect("opens").summary()[0].train_bytes);
    let some = crate::Texts::open(&config, Split::Train, Some(100)).expect("opens");
    assert!(some.map(|text| text.len()).sum::<usize>() < 400);
}

#[test]
fn texts_end_at_an_error_that_is_kept() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 5) + "broken\n" + &lines("more", 5));
    let config = folder.config("x.jsonl", best_fit());
    let mut texts = crate::Texts::open(&config, Split::Train, None).expect("opens");
    let failure = texts.failure();
    assert_eq!(texts.by_ref().count(), 5);
    assert!(failure.take().expect_err("line 6").to_string().contains("x.jsonl:6"));
    assert!(failure.take().is_ok(), "told once");
}

#[test]
fn sections_of_a_record_stay_on_one_side_of_the_split() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("a.jsonl");
    let lines: Vec<String> = (0..40)
        .map(|i| format!("{}\n", serde_json::json!({"id": format!("doc-{i}"), "text": "some words here. ".repeat(60)})))
        .collect();
    std::fs::write(&path, lines.concat()).expect("writable");
    let packing = PackingConfig::BestFit(crate::pack::best_fit::Config {});
    let mut config = DataConfig::single("a", path.display().to_string(), packing);
    config.held_out_fraction = 0.3;
    config.cache_dir = dir.path().join("cache");
    let source = config.source.get_mut("a").expect("the only source");
    source.split_at_bytes = Some(100);
    source.id_column = Some("id".to_owned());
    for document in crate::reader::open(&config, "a").expect("readable") {
        let document = document.expect("sound");
        let record = document.id.split('#').next().expect("an id").to_owned();
        assert_eq!(document.parent.as_deref(), Some(record.as_str()));
        assert_eq!(Split::of_hash(document.side_hash(), 0.3), Split::of(&record, 0.3));
    }
}

/// Documents with logits for the classes a and b; the second line turned around.
fn with_logits() -> String {
    let line = |id: &str, a: f32, b: f32| {
        format!("{{\"id\": \"{id}\", \"text\": \"text {id}\", \"said\": {{\"b\": {b}, \"a\": {a}}}}}\n")
    };
    (0..6).map(|i| line(&i.to_string(), i as f32, -1.0)).collect()
}

#[test]
fn logits_stay_with_their_documents_in_whatever_order() {
    let folder = Folder::new();
    let turned: String = with_logits().lines().rev().map(|line| format!("{line}\n")).collect();
    let options = CorpusOptions {
        max_seq_len: 32,
        framing: Framing::Bert,
        labels: false,
        logits: true,
        tags: false,
        prompt: None,
    };
    for (name, text) in [("x.jsonl", with_logits()), ("y.jsonl", turned)] {
        folder.write(name, text);
        let mut config = folder.config(name, document());
        assert!(matches!(open(&config, &options), Err(Error::MissingLabel { .. })), "no column is named");
        config.source.get_mut("a").expect("the only source").logits_column = Some("said".to_owned());
        let corpus = open(&config, &options).expect("opens");
        assert_eq!(corpus.label_names(), ["a", "b"]);
        for row in one_epoch(&corpus, 1) {
            let id = corpus.document_id(0, row.documents[0]).expect("there");
            let number: f32 = id.parse().expect("written by the test");
            assert_eq!(row.logits, Some(vec![number, -1.0]));
        }
    }
}

#[test]
fn logits_that_are_missing_wrong_or_of_other_classes_are_refused_with_their_place() {
    let options = CorpusOptions {
        max_seq_len: 32,
        framing: Framing::Bert,
        labels: false,
        logits: true,
        tags: false,
        prompt: None,
    };
    let wrong = [
        ("{\"id\": \"9\", \"text\": \"t\"}", "`said`"),
        ("{\"id\": \"9\", \"text\": \"t\", \"said\": [1, 2]}", "not an object"),
        ("{\"id\": \"9\", \"text\": \"t\", \"said\": {\"a\": 1e99, \"b\": 0}}", "(id `9`), not a finite number"),
        ("{\"id\": \"9\", \"text\": \"t\", \"said\": {\"a\": 1, \"c\": 0}}", "the 2 classes [\"a\", \"c\"]"),
        ("{\"id\": \"9\", \"text\": \"t\", \"said\": {\"a\": 1}}", "the 1 classes"),
    ];
    for (line, part) in wrong {
        let folder = Folder::new();
        folder.write("x.jsonl", with_logits() + line + "\n");
        let mut config = folder.config("x.jsonl", document());
        config.source.get_mut("a").expect("the only source").logits_column = Some("said".to_owned());
        let error = open(&config, &options).err().expect("wrong on purpose").to_string();
        assert!(error.contains(part) && error.contains("x.jsonl:7"), "{line}: {error}");
    }
}

#[test]
fn a_prompt_gives_its_classes_and_keeps_its_open_place() {
    let folder = Folder::new();
    folder.write("x.jsonl", lines("doc", 30));
    let mut config = folder.config("x.jsonl", document());
    config.source.get_mut("a").expect("the only source").label_column = Some("kind".to_owned());
    let words = ["k0", "k1", "k2", "k3"].map(|class| (class.to_owned(), format!("word{class}")));
    let prompt =
        crate::Prompt { template: "{text} is {mask} !".to_owned(), words: words.into(), soft: false, regression: None };
    let options = CorpusOptions {
        max_seq_len: 24,
        framing: Framing::Bert,
        labels: true,
        logits: false,
        tags: false,
        prompt: Some(prompt.clone()),
    };
    let corpus = open(&config, &options).expect("opens");
    // A class without a document keeps its place.
    assert_eq!(corpus.label_names(), ["k0", "k1", "k2", "k3"]);
    for row in one_epoch(&corpus, 1) {
        assert!(row.len() <= 24);
        assert_eq!(row.input_ids.iter().filter(|id| **id == MASK).count(), 1);
        assert_eq!(row.input_ids[row.len() - 4..], [MASK, u32::from(b' '), u32::from(b'!'), SEP]);
    }
    let few = crate::Prompt {
        words: prompt.words.into_iter().take(2).collect(),
        template: prompt.template,
        soft: false,
        regression: None,
    };
    let error = open(&config, &CorpusOptions { prompt: Some(few), ..options }).err().expect("no word").to_string();
    assert!(error.contains("the label `k2` has no word"), "{error}");
}

#[test]
fn labels_between_the_ends_of_a_prompt_are_shared_out() {
    let folder = Folder::new();
    let line = |id: usize, label: &str| format!("{{\"id\": \"{id}\", \"text\": \"text {id}\", \"like\": {label}}}\n");
    let labels = ["0", "1.25", "\"4\"", "5.0"];
    folder.write("x.jsonl", (0..40).map(|id| line(id, labels[id % 4])).collect::<String>());
    let mut config = folder.config("x.jsonl", document());
    config.source.get_mut("a").expect("the only source").label_column = Some("like".to_owned());
    let words = [("0", "No"), ("5", "Yes")].map(|(class, word)| (class.to_owned(), word.to_owned()));
    let prompt = crate::Prompt {
        template: "{text} {mask}".to_owned(),
        words: words.into(),
        soft: false,
        regression: Some(crate::Regression::Kl),
    };
    let options = CorpusOptions {
        max_seq_len: 24,
        framing: Framing::Bert,
        labels: true,
        logits: false,
        tags: false,
        prompt: Some(prompt),
    };
    let corpus = open(&config, &options).expect("opens");
    assert_eq!(corpus.label_names(), ["0", "5"]);
    let mut seen = [0; 4];
    for row in one_epoch(&corpus, 1) {
        let shares: Vec<f32> = row.logits.expect("a number").iter().map(|logit| logit.exp()).collect();
        let found = [0.0, 0.25, 0.8, 1.0].iter().position(|share| (share - shares[1]).abs() < 1e-6);
        seen[found.expect("one of the labels")] += 1;
        assert!((shares[0] + shares[1] - 1.0).abs() < 1e-6);
        assert_eq!(row.label, Some(u32::from(shares[1] > 0.5)));
    }
    assert!(seen.iter().all(|num| *num > 0), "{seen:?}");
    for wrong in ["5.5", "-0.1", "\"much\"", "\"NaN\""] {
        folder.write("x.jsonl", (0..40).map(|id| line(id, labels[id % 4])).collect::<String>() + &line(77, wrong));
        let error = open(&config, &options).err().expect("wrong on purpose").to_string();
        assert!(error.contains("`77`") && error.contains("no number from 0 to 5"), "{error}");
    }
}

fn tagged() -> CorpusOptions {
    CorpusOptions { max_seq_len: 12, framing: Framing::Bert, labels: false, logits: false, tags: true, prompt: None }
}

fn with_tags(folder: &Folder, text: &str) -> DataConfig {
    folder.write("x.jsonl", text);
    let mut config = folder.config("x.jsonl", document());
    config.source.get_mut("a").expect("the only source").tags_column = Some("tags".to_owned());
    config
}

#[test]
fn the_first_token_of_a_word_has_its_tag_and_what_is_cut_off_none() {
    let folder = Folder::new();
    let lines = "{\"id\": \"1\", \"text\": \"ab  c de\", \"tags\": [\"N\", \"O\", \"B\"]}\n\
        {\"id\": \"2\", \"text\": \"abc defghi jk\", \"tags\": [\"B\", \"N\", \"O\"]}\n";
    let config = with_tags(&folder, lines);
    let corpus = open(&config, &tagged()).expect("opens");
    assert_eq!(corpus.label_names(), ["B", "N", "O"]);
    let mut rows = one_epoch(&corpus, 1);
    rows.sort_by_key(|row| row.documents[0]);
    let none = IGNORED_TARGET;
    // Words come with the space before them: `ab`, ` c`, ` de`.
    assert_eq!(rows[0].targets, [none, 1, none, 2, none, 0, none, none, none]);
    // Of ten tokens that fit the last is the end of the second word.
    assert_eq!(rows[1].len(), 12);
    assert_eq!(rows[1].targets, [none, 0, none, none, 1, none, none, none, none, none, none, none]);
    // Whoever does not ask for tags predicts nothing.
    let plain = CorpusOptions { tags: false, ..tagged() };
    assert!(one_epoch(&open(&config, &plain).expect("opens"), 1).iter().all(|row| row.num_targets() == 0));
}

#[test]
fn tags_of_several_sources_are_numbered_together() {
    let folder = Folder::new();
    folder.write("y.jsonl", "{\"text\": \"a b\", \"tags\": [\"Z\", \"A\"]}\n");
    let mut config = with_tags(&folder, "{\"text\": \"a b\", \"tags\": [\"M\", \"Z\"]}\n");
    let mut other = config.source["a"].clone();
    other.path = folder.path().join("y.jsonl").display().to_string();
    config.source.insert("b".to_owned(), other);
    let corpus = open(&config, &tagged()).expect("opens");
    assert_eq!(corpus.label_names(), ["A", "M", "Z"]);
    let mut rows = corpus.sampler(1).next_rows(2).expect("drawn");
    rows.sort_by_key(|row| row.source);
    assert_eq!((&rows[0].targets[1..3], &rows[1].targets[1..3]), (&[1, 2][..], &[2, 0][..]));
}

#[test]
fn tags_that_do_not_fit_are_refused_with_id_and_both_lengths() {
    let good = "{\"id\": \"1\", \"text\": \"a b\", \"tags\": [\"O\", \"N\"]}\n";
    let wrong = [
        ("{\"id\": \"9\", \"text\": \"a b c\", \"tags\": [\"O\"]}", "1 tags as `tags` for a text of 3 words (id `9`)"),
        (
            "{\"id\": \"9\", \"text\": \"a\", \"tags\": [\"O\", \"N\"]}",
            "2 tags as `tags` for a text of 1 words (id `9`)",
        ),
        ("{\"id\": \"9\", \"text\": \"a\", \"tags\": [3]}", "a number among its `tags` (id `9`), not a string"),
        ("{\"id\": \"9\", \"text\": \"a\", \"tags\": \"O\"}", "a string as `tags`, not a list"),
        ("{\"id\": \"9\", \"text\": \"a\"}", "`tags`"),
        ("{\"id\": \"9\", \"text\": \"\\u0001 a\", \"tags\": [\"O\", \"N\"]}", "keeps nothing"),
    ];
    for (line, part) in wrong {
        let folder = Folder::new();
        let config = with_tags(&folder, &format!("{good}{line}\n"));
        let error = open(&config, &tagged()).err().expect("wrong on purpose").to_string();
        assert!(error.contains(part) && error.contains("x.jsonl:2"), "{line}: {error}");
    }
    let folder = Folder::new();
    let mut config = with_tags(&folder, good);
    config.packing = best_fit();
    assert!(matches!(open(&config, &tagged()), Err(Error::Config { .. })), "tags need whole documents");
    let text = "{\"text\": \"a b\", \"tags\": [\"O\", \"O\"]}\n";
    let error = open(&with_tags(&folder, text), &tagged()).err().expect("one tag").to_string();
    assert!(error.contains("the tags have only one value"), "{error}");
    let long = format!("{{\"text\": \"{}\", \"tags\": [{}\"N\"]}}\n", "a ".repeat(200_000), "\"O\", ".repeat(199_999));
    let error = open(&with_tags(&folder, &long), &tagged()).err().expect("too long").to_string();
    assert!(error.contains("that a text with tags takes"), "{error}");
}
