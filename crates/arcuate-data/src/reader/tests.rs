//! Readers on good, broken, compressed and giant files.

use std::io::Write;
use std::sync::Arc;

use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::*;
use crate::testing::{Folder, best_fit};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("memory is writable");
    encoder.finish().expect("memory is writable")
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory is writable")
}

fn read_with(folder: &Folder, name: &str, change: impl FnOnce(&mut DataConfig)) -> Vec<Result<Document>> {
    let mut config = folder.config(name, best_fit());
    change(&mut config);
    match open(&config, "a") {
        Ok(documents) => documents.collect(),
        Err(error) => vec![Err(error)],
    }
}

fn read(folder: &Folder, name: &str) -> Vec<Result<Document>> {
    read_with(folder, name, |_| {})
}

fn ids_and_texts(documents: Vec<Result<Document>>) -> Vec<(String, String)> {
    documents.into_iter().map(|document| document.expect("usable")).map(|d| (d.id, d.text)).collect()
}

fn only_error(documents: Vec<Result<Document>>) -> Error {
    let errors: Vec<Error> = documents.into_iter().filter_map(Result::err).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.into_iter().next().expect("one")
}

#[test]
fn json_lines_give_id_text_label_and_attributes() {
    let folder = Folder::new();
    let line = r#"{"id": 7, "text": "one", "party": "Whig", "year": 1850}"#;
    folder.write("x.jsonl", format!("\u{feff}{line}\r\n\n{{\"text\": \"two\", \"party\": null}}"));
    let set = |config: &mut DataConfig| {
        let source = config.source.get_mut("a").expect("the only source");
        source.label_column = Some("party".to_owned());
    };
    let documents: Vec<Document> = read_with(&folder, "x.jsonl", set).into_iter().map(|d| d.expect("usable")).collect();
    assert_eq!((documents[0].id.as_str(), documents[0].text.as_str()), ("7", "one"));
    assert_eq!(documents[0].label.as_deref(), Some("Whig"));
    assert_eq!(documents[0].attributes["year"], 1850);
    assert_eq!((documents[1].id.as_str(), &documents[1].label), ("x.jsonl:3", &None));
    assert!(documents[1].place.ends_with("/x.jsonl:3"));
}

#[test]
fn compressed_files_read_like_plain_ones() {
    let folder = Folder::new();
    let lines = "{\"id\": \"a\", \"text\": \"one\"}\n{\"id\": \"b\", \"text\": \"two\"}\n";
    folder.write("1.jsonl", lines);
    folder.write("2.jsonl.gz", gzip(lines.as_bytes()));
    folder.write("3.jsonl.zst", zst(lines.as_bytes()));
    let plain = ids_and_texts(read(&folder, "1.jsonl"));
    assert_eq!(plain.len(), 2);
    assert_eq!(ids_and_texts(read(&folder, "2.jsonl.gz")), plain);
    assert_eq!(ids_and_texts(read(&folder, "3.jsonl.zst")), plain);
    assert_eq!(ids_and_texts(read(&folder, "*.jsonl*")).len(), 6);
}

#[test]
fn a_broken_line_far_down_is_named_and_the_rest_is_read() {
    let folder = Folder::new();
    let mut text = "{\"text\": \"a\"}\n".repeat(70_000);
    text.push_str("{\"text\": \"a\", oops}\n{\"text\": \"last\"}\n");
    folder.write("x.jsonl.zst", zst(text.as_bytes()));
    let documents = read(&folder, "x.jsonl.zst");
    assert_eq!(documents.len(), 70_002);
    let error = only_error(documents);
    assert!(error.is_bad_item());
    let text = error.to_string();
    assert!(text.contains("x.jsonl.zst:70001` is not valid JSON (key must be a string, column 15)"), "{text}");
    assert!(text.contains("data.max_bad_items"), "{text}");
}

#[test]
fn truncated_files_end_with_one_clear_error() {
    let folder = Folder::new();
    let lines: String = (0..2000).map(|i| format!("{{\"text\": \"number {i} {}\"}}\n", i * 7919 % 1000)).collect();
    for (name, packed) in [("x.jsonl.gz", gzip(lines.as_bytes())), ("x.jsonl.zst", zst(lines.as_bytes()))] {
        folder.write(name, &packed[..packed.len() - 5]);
        let error = only_error(read(&folder, name));
        assert!(matches!(error, Error::Truncated { .. }), "{error}");
        assert!(error.to_string().contains("is truncated"), "{error}");
        folder.write(name, "not compressed at all");
        let error = only_error(read(&folder, name));
        assert!(matches!(error, Error::DamagedFile { .. }), "{error:?}");
    }
}

#[test]
fn a_truncated_text_file_is_an_error_before_any_text() {
    let folder = Folder::new();
    let packed = zst("words and words\n".repeat(1000).as_bytes());
    folder.write("x.txt.zst", &packed[..packed.len() - 3]);
    let documents = read(&folder, "x.txt.zst");
    assert_eq!(documents.len(), 1);
    assert!(matches!(only_error(documents), Error::Truncated { .. }));
}

#[test]
fn a_column_that_is_not_there_lists_those_that_are() {
    let folder = Folder::new();
    folder.write("x.jsonl", "{\"body\": \"one\", \"name\": 1}\n{\"body\": \"two\"}\n");
    let text = only_error(read(&folder, "x.jsonl")).to_string();
    assert!(text.contains("no column `text`; its columns are `body`, `name`; set `text_column`"), "{text}");
}

#[test]
fn a_line_without_text_among_others_is_a_bad_item() {
    let folder = Folder::new();
    folder.write(
        "x.jsonl",
        "{\"text\": \"one\"}\n{\"body\": 2}\n{\"text\": 3}\n{\"text\": \" \\n\"}\n{\"text\": null}\n[1]\n",
    );
    let reasons: Vec<BadReason> = read(&folder, "x.jsonl")
        .into_iter()
        .filter_map(|document| match document {
            Err(Error::BadItem(item)) => Some(item.reason),
            Err(error) => panic!("{error}"),
            Ok(_) => None,
        })
        .collect();
    use BadReason::*;
    assert_eq!(reasons, [MissingField, WrongType, EmptyText, MissingField, BrokenJson]);
}

#[test]
fn bytes_that_are_not_utf8_are_placed() {
    let folder = Folder::new();
    folder.write("x.jsonl", b"{\"text\": \"one\"}\n{\"text\": \"\xff\"}\n");
    folder.write("x.txt", b"one\ntwo \xc3\x28\n");
    folder.write("y.txt", b"ends inside a character \xe2\x82");
    let jsonl = only_error(read(&folder, "x.jsonl")).to_string();
    assert!(jsonl.contains("x.jsonl:2` is not UTF-8 (byte 11"), "{jsonl}");
    assert!(only_error(read(&folder, "x.txt")).to_string().contains("x.txt:2` is not UTF-8"));
    assert!(only_error(read(&folder, "y.txt")).to_string().contains("y.txt:1` is not UTF-8"));
}

#[test]
fn a_line_above_the_limit_is_skipped() {
    let folder = Folder::new();
    folder.write("x.jsonl", format!("{{\"text\": \"{}\"}}\n{{\"text\": \"b\"}}\n", "a".repeat(500_000)));
    let documents = read_with(&folder, "x.jsonl", |config| config.max_document_bytes = 1000);
    assert_eq!(documents.len(), 2);
    assert!(only_error(documents).to_string().contains("longer than `data.max_document_bytes` (1000)"));
}

#[test]
fn a_folder_of_texts_is_one_document_a_file() {
    let folder = Folder::new();
    folder.write("d/b.txt", "second");
    folder.write("d/a.txt.gz", gzip(b"first"));
    folder.write("d/sub/c.txt.zst", zst(b"third"));
    let expected = [("a.txt.gz", "first"), ("b.txt", "second"), ("sub/c.txt.zst", "third")];
    let found = ids_and_texts(read(&folder, "d"));
    assert_eq!(found, expected.map(|(id, text)| (id.to_owned(), text.to_owned())));
}

#[test]
fn a_bad_text_file_does_not_hide_the_others() {
    let folder = Folder::new();
    folder.write("d/a.txt", b"\xff\xff");
    folder.write("d/b.txt", " \n\t ");
    folder.write("d/c.txt", "good");
    let documents = read(&folder, "d");
    assert_eq!(documents.iter().filter(|document| document.is_err()).count(), 2);
    assert!(documents.iter().flatten().any(|document| document.text == "good"));
}

#[test]
fn a_giant_text_comes_in_small_parts_that_lose_nothing() {
    let folder = Folder::new();
    let text: String = (0..200_000).map(|i| format!("wörd{} ", i * 7919 % 1013)).collect();
    let path = folder.write("x.txt.zst", zst(text.as_bytes()));
    let source = SourceConfig::new(path.display().to_string());
    let parts: Vec<Part> =
        Parts::open("a", &source, 1000).expect("there").map(|part| part.expect("readable")).collect();
    assert!(parts.len() > 5);
    assert!(parts.iter().all(|part| part.document.text.len() <= PART_BYTES));
    assert!(parts[1..].iter().all(|part| part.document.text.starts_with(' ')), "cut before a space");
    assert_eq!(parts.iter().filter(|part| part.is_first).count(), 1);
    assert_eq!(parts.iter().filter(|part| part.is_last).count(), 1);
    let joined: String = parts.iter().map(|part| part.document.text.as_str()).collect();
    assert!(joined == text);
}

#[test]
fn splitting_makes_documents_with_ids_of_their_own() {
    let folder = Folder::new();
    let text: String = (0..500).map(|i| format!("line {i}\n")).collect();
    folder.write("x.txt", &text);
    folder.write("x.jsonl", format!("{}\n", serde_json::json!({"id": "d", "text": text})));
    for (name, id) in [("x.txt", "x.txt#"), ("x.jsonl", "d#")] {
        let split = |config: &mut DataConfig| {
            config.source.get_mut("a").expect("the only source").split_at_bytes = Some(300);
        };
        let found = ids_and_texts(read_with(&folder, name, split));
        assert!(found.len() >= 15, "{}", found.len());
        for (number, (found_id, part)) in (1..).zip(&found) {
            assert_eq!(found_id, &format!("{id}{number}"));
            assert!(part.len() <= 300 && part.ends_with('\n') && part.starts_with("line"));
        }
        let joined: String = found.into_iter().map(|(_, text)| text).collect();
        assert!(joined == text);
    }
}

#[test]
fn plain_text_has_no_label_column() {
    let folder = Folder::new();
    folder.write("x.txt", "text");
    let documents = read_with(&folder, "x.txt", |config| {
        config.source.get_mut("a").expect("the only source").label_column = Some("party".to_owned());
    });
    assert!(matches!(only_error(documents), Error::NoColumns { key: "label_column", .. }));
}

fn parquet_file(folder: &Folder, name: &str, num_rows: usize) {
    let schema = "message schema {
        REQUIRED INT64 number; REQUIRED BYTE_ARRAY body (UTF8); OPTIONAL BYTE_ARRAY id (UTF8); REQUIRED BYTE_ARRAY unread (UTF8);
    }";
    let schema = Arc::new(parse_message_type(schema).expect("a valid schema"));
    let properties = Arc::new(WriterProperties::builder().build());
    let file = std::fs::File::create(folder.path().join(name)).expect("writable");
    let mut writer = SerializedFileWriter::new(file, schema, properties).expect("writable");
    for start in (0..num_rows).step_by(100) {
        let rows: Vec<usize> = (start..num_rows.min(start + 100)).collect();
        let text = |prefix: &str| -> Vec<ByteArray> {
            rows.iter().map(|i| ByteArray::from(format!("{prefix}{i}").as_str())).collect()
        };
        let mut group = writer.next_row_group().expect("writable");
        let mut column = group.next_column().expect("writable").expect("number");
        let numbers: Vec<i64> = rows.iter().map(|i| *i as i64).collect();
        column.typed::<Int64Type>().write_batch(&numbers, None, None).expect("writable");
        column.close().expect("writable");
        for prefix in ["text ", "id-", "never "] {
            let mut column = group.next_column().expect("writable").expect("a text column");
            let levels = vec![1i16; rows.len()];
            let levels = (prefix == "id-").then_some(levels.as_slice());
            column.typed::<ByteArrayType>().write_batch(&text(prefix), levels, None).expect("writable");
            column.close().expect("writable");
        }
        group.close().expect("writable");
    }
    writer.close().expect("writable");
}

fn body(config: &mut DataConfig) {
    let source = config.source.get_mut("a").expect("the only source");
    source.text_column = "body".to_owned();
    source.label_column = Some("number".to_owned());
}

#[test]
fn parquet_gives_the_named_columns_of_all_row_groups() {
    let folder = Folder::new();
    parquet_file(&folder, "x.parquet", 250);
    let documents: Vec<Document> =
        read_with(&folder, "x.parquet", body).into_iter().map(|d| d.expect("usable")).collect();
    assert_eq!(documents.len(), 250);
    let last = &documents[249];
    assert_eq!((last.id.as_str(), last.text.as_str()), ("id-249", "text 249"));
    assert_eq!(last.label.as_deref(), Some("249"));
    assert!(last.place.ends_with("x.parquet:250") && last.attributes.is_empty());
}

#[test]
fn parquet_without_the_column_lists_those_it_has() {
    let folder = Folder::new();
    parquet_file(&folder, "x.parquet", 3);
    let text = only_error(read(&folder, "x.parquet")).to_string();
    assert!(text.contains("no column `text`; its columns are `number`, `body`, `id`, `unread`"), "{text}");
}

#[test]
fn damaged_parquet_is_an_error_never_a_panic() {
    let folder = Folder::new();
    parquet_file(&folder, "x.parquet", 250);
    let whole = std::fs::read(folder.path().join("x.parquet")).expect("readable");
    folder.write("x.parquet", &whole[..whole.len() / 2]);
    assert!(matches!(only_error(read_with(&folder, "x.parquet", body)), Error::DamagedFile { .. }));
    for at in (0..whole.len()).step_by(whole.len() / 150) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x5a;
        folder.write("x.parquet", &damaged);
        // Whatever comes out, it ends and does not bring the program down.
        assert!(read_with(&folder, "x.parquet", body).len() <= 1000);
    }
}

#[test]
fn cuts_prefer_line_ends_then_spaces_then_characters() {
    assert_eq!(cut_point("aaaaaaaaa\nbb ccc", 12), 10);
    assert_eq!(cut_point("aaaaaaaa bbb", 10), 8);
    assert_eq!(cut_point("aaaaéé", 5), 4);
    assert_eq!(cut_point("é", 1), 2, "always makes progress");
}

#[test]
fn a_section_holds_no_more_memory_than_its_text() {
    let mut text = "word ".repeat(10_000);
    let front = take_front(&mut text, 200).expect("there is text");
    assert!(front.len() <= 200 && front.capacity() < 1000, "{}", front.capacity());
    assert_eq!(front.len() + text.len(), 50_000);
}

#[test]
fn parquet_gives_lists_of_tags() {
    let folder = Folder::new();
    let schema = "message schema {
        REQUIRED BYTE_ARRAY text (UTF8);
        REQUIRED group tags (LIST) { REPEATED group list { REQUIRED BYTE_ARRAY element (UTF8); } }
    }";
    let schema = Arc::new(parse_message_type(schema).expect("a valid schema"));
    let properties = Arc::new(WriterProperties::builder().build());
    let file = std::fs::File::create(folder.path().join("x.parquet")).expect("writable");
    let mut writer = SerializedFileWriter::new(file, schema, properties).expect("writable");
    let mut group = writer.next_row_group().expect("writable");
    let values = |texts: &[&str]| texts.iter().map(|text| ByteArray::from(*text)).collect::<Vec<_>>();
    let mut column = group.next_column().expect("writable").expect("text");
    column.typed::<ByteArrayType>().write_batch(&values(&["a b", "c"]), None, None).expect("writable");
    column.close().expect("writable");
    let mut column = group.next_column().expect("writable").expect("tags");
    let tags = values(&["N", "O", "N"]);
    column.typed::<ByteArrayType>().write_batch(&tags, Some(&[1, 1, 1]), Some(&[0, 1, 0])).expect("writable");
    column.close().expect("writable");
    group.close().expect("writable");
    writer.close().expect("writable");
    let set = |config: &mut DataConfig| {
        config.source.get_mut("a").expect("the only source").tags_column = Some("tags".to_owned());
    };
    let documents = read_with(&folder, "x.parquet", set);
    let tags: Vec<Option<Vec<String>>> = documents.into_iter().map(|d| d.expect("usable").tags).collect();
    assert_eq!(tags, [Some(vec!["N".to_owned(), "O".to_owned()]), Some(vec!["N".to_owned()])]);
}
