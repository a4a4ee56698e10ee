//! Draws of documents: disjoint parts of a corpus for training, testing and labelling, by class or over all.
//!
//! Documents are ranked by a hash of seed and id, and parts are taken from the top in the order in which they are given. A part
//! of 20 a class therefore begins with the documents of a part of 5 with the same seed, and a document keeps its rank when
//! others come or go. Parts over all classes have a ranking of their own: in the other one, what stands next after parts by
//! class is of the frequent classes, because of rare ones more of the top is gone. Texts that differ only in case, punctuation or white space are one text: the first in rank stays, so
//! that no test document has a twin in another part.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::split::first_bytes;
use crate::{DataConfig, Document, Error, Result, SourceConfig, reader};

/// Key of the file in a line of a list of recordings, as in [`crate::speech::nemo`].
const RECORDING: &str = "audio_filepath";

/// How many documents a part takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many of each class.
    PerClass(u64),
    /// So many of all that are left.
    Total(u64),
    /// All that are left.
    Rest,
    /// The documents of classes that are not asked for.
    Others,
}

/// A part by name: `test=100/class`, `pool=3000`, `left=rest`, `base=others`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartSpec {
    /// Name of the part, and of its file.
    pub name: String,
    /// How much it takes.
    pub amount: Amount,
}

impl FromStr for PartSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is no part; write `NAME=100/class`, `NAME=3000`, `NAME=rest` or `NAME=others`");
        let (name, amount) = text.split_once('=').ok_or_else(wrong)?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(format!("`{name}` is no name of a part; use letters, digits, `-` and `_`"));
        }
        let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number > 0).ok_or_else(wrong);
        let amount = match amount {
            "rest" => Amount::Rest,
            "others" => Amount::Others,
            _ => match amount.strip_suffix("/class") {
                Some(count) => Amount::PerClass(number(count)?),
                None => Amount::Total(number(amount)?),
            },
        };
        Ok(Self { name: name.to_owned(), amount })
    }
}

/// What to draw.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DrawOptions {
    /// Decides the ranks.
    pub seed: u64,
    /// The parts, in the order in which they take.
    pub parts: Vec<PartSpec>,
    /// Only documents of these classes; empty is all. The rest can be had as `others`.
    pub classes: Vec<String>,
    /// Files whose texts are not drawn: test sets that are already there.
    pub without: Vec<PathBuf>,
}

/// A part that was drawn.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct DrawnPart {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Documents in it.
    pub documents: u64,
    /// Documents by class.
    pub classes: BTreeMap<String, u64>,
}

/// What was drawn.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Drawn {
    /// The parts.
    pub parts: Vec<DrawnPart>,
    /// Documents whose text another one has, left out.
    pub duplicates: u64,
    /// Documents whose text stands in a file of `without`, left out.
    pub excluded: u64,
}

/// One document while parts are chosen.
struct Candidate {
    rank: u64,
    /// Its rank for parts over all classes.
    rank_of_all: u64,
    place: u64,
    label: Option<String>,
}

/// Draws the parts of the documents of `config` and writes each to `folder/NAME.jsonl` with `id`, `text`, `label` and all else
/// that the documents have. Lines of a list of recordings stay such lines: `audio_filepath` becomes absolute, because it was
/// relative to the list that they are taken from.
///
/// # Errors
/// When a class has fewer documents than a part wants, a class is not there, two parts have one name, the data are wrong or a
/// file cannot be written. No file is written then.
pub fn draw(config: &DataConfig, folder: &Path, options: &DrawOptions) -> Result<Drawn> {
    refuse_impossible(options)?;
    let mut excluded_texts = HashSet::new();
    for path in &options.without {
        for document in reader::open_source("without", &SourceConfig::new(path.to_string_lossy()))? {
            excluded_texts.insert(text_hash(&document?.text));
        }
    }
    let (mut drawn, mut others, mut excluded) = (Vec::new(), Vec::new(), 0);
    let mut texts: BTreeMap<u64, u64> = BTreeMap::new();
    let mut hashes = Vec::new();
    for (place, document) in (0..).zip(documents(config)?) {
        let document = document?;
        let text = text_hash(&document.text);
        hashes.push(text);
        if excluded_texts.contains(&text) {
            excluded += 1;
            continue;
        }
        let rank_of_all = rank(options.seed, "all", &document.id);
        let rank = rank(options.seed, "", &document.id);
        let first = texts.entry(text).or_insert(rank);
        *first = (*first).min(rank);
        let is_wanted =
            options.classes.is_empty() || document.label.as_ref().is_some_and(|label| options.classes.contains(label));
        let candidates = if is_wanted { &mut drawn } else { &mut others };
        candidates.push(Candidate { rank, rank_of_all, place, label: document.label });
    }
    let before = drawn.len() + others.len();
    // Of equal texts the first in rank stays; equal ranks are equal ids, which readers refuse or number.
    let mut seen = HashSet::new();
    let mut is_first = |candidate: &Candidate| {
        let text = hashes[candidate.place as usize];
        texts.get(&text) == Some(&candidate.rank) && seen.insert(text)
    };
    drawn.retain(&mut is_first);
    others.retain(&mut is_first);
    let duplicates = (before - drawn.len() - others.len()) as u64;
    drawn.sort_by_key(|candidate| (candidate.rank, candidate.place));
    others.sort_by_key(|candidate| (candidate.rank, candidate.place));
    let part_of = assign(drawn, others, options)?;
    let parts = write(config, folder, options, &part_of)?;
    Ok(Drawn { parts, duplicates, excluded })
}

fn refuse_impossible(options: &DrawOptions) -> Result<()> {
    let refuse =
        |message: String, help: &str| Err(Error::Config { key: "--part".to_owned(), message, help: help.to_owned() });
    let mut names = BTreeSet::new();
    if let Some(twice) = options.parts.iter().find(|part| !names.insert(&part.name)) {
        return refuse(format!("names `{}` twice", twice.name), "give every part its own name");
    }
    if options.parts.is_empty() {
        return refuse("is missing".to_owned(), "write for instance `--part test=100/class --part train=rest`");
    }
    if options.classes.is_empty() && options.parts.iter().any(|part| part.amount == Amount::Others) {
        return refuse("asks for `others`".to_owned(), "name the classes of the parts with `--classes`");
    }
    Ok(())
}

/// The index of the part for each place that is drawn.
fn assign(drawn: Vec<Candidate>, others: Vec<Candidate>, options: &DrawOptions) -> Result<BTreeMap<u64, usize>> {
    let present: BTreeSet<&String> = drawn.iter().filter_map(|candidate| candidate.label.as_ref()).collect();
    if let Some(class) = options.classes.iter().find(|class| !present.contains(class)) {
        return Err(Error::TooFewToDraw {
            part: "any part".to_owned(),
            class: Some(class.clone()),
            wanted: 1,
            available: 0,
        });
    }
    let mut part_of = BTreeMap::new();
    let is_free = |part_of: &BTreeMap<u64, usize>, candidate: &&Candidate| !part_of.contains_key(&candidate.place);
    for (index, part) in options.parts.iter().enumerate() {
        let take = |part_of: &mut BTreeMap<u64, usize>, class: Option<&String>, wanted: u64| {
            let free = drawn.iter().filter(|candidate| is_free(part_of, candidate));
            let mut free: Vec<&Candidate> =
                free.filter(|candidate| class.is_none() || candidate.label.as_ref() == class).collect();
            if class.is_none() {
                free.sort_by_key(|candidate| (candidate.rank_of_all, candidate.place));
            }
            let places: Vec<u64> = free.into_iter().map(|candidate| candidate.place).collect();
            if wanted != u64::MAX && (places.len() as u64) < wanted {
                let (part, class) = (part.name.clone(), class.cloned());
                return Err(Error::TooFewToDraw { part, class, wanted, available: places.len() as u64 });
            }
            let most = usize::try_from(wanted).unwrap_or(usize::MAX);
            part_of.extend(places.into_iter().take(most).map(|place| (place, index)));
            Ok(())
        };
        match part.amount {
            Amount::PerClass(wanted) => {
                if let Some(unlabelled) = drawn.iter().find(|candidate| candidate.label.is_none()) {
                    let place = format!("document {}", unlabelled.place + 1);
                    return Err(Error::UnlabelledDraw { place, part: part.name.clone() });
                }
                present.iter().try_for_each(|class| take(&mut part_of, Some(class), wanted))?;
            }
            Amount::Total(wanted) => take(&mut part_of, None, wanted)?,
            Amount::Rest => take(&mut part_of, None, u64::MAX)?,
            Amount::Others => part_of.extend(others.iter().map(|candidate| (candidate.place, index))),
        }
    }
    Ok(part_of)
}

/// Reads all documents again and writes those that are drawn.
fn write(
    config: &DataConfig,
    folder: &Path,
    options: &DrawOptions,
    part_of: &BTreeMap<u64, usize>,
) -> Result<Vec<DrawnPart>> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io("make", folder, e))?;
    let mut files = Vec::new();
    let mut parts = Vec::new();
    for part in &options.parts {
        let path = folder.join(format!("{}.jsonl", part.name));
        let draft = folder.join(format!(".{}.jsonl.draft", part.name));
        let file = File::create(&draft).map_err(|e| Error::write(&draft, e))?;
        files.push((draft, BufWriter::new(file)));
        parts.push(DrawnPart { name: part.name.clone(), path, documents: 0, classes: BTreeMap::new() });
    }
    for (place, document) in (0..).zip(documents(config)?) {
        let document = document?;
        let Some(index) = part_of.get(&place) else { continue };
        let part = &mut parts[*index];
        part.documents += 1;
        if let Some(label) = &document.label {
            *part.classes.entry(label.clone()).or_default() += 1;
        }
        let recording = recording(&document);
        let mut line = line(document);
        line.extend(recording.map(|path| (RECORDING.to_owned(), path.into())));
        let (path, file) = &mut files[*index];
        writeln!(file, "{}", Value::Object(line)).map_err(|e| Error::write(path, e))?;
    }
    for ((draft, mut file), part) in files.into_iter().zip(&parts) {
        file.flush().map_err(|e| Error::write(&draft, e))?;
        drop(file);
        std::fs::rename(&draft, &part.path).map_err(|e| Error::write(&part.path, e))?;
    }
    Ok(parts)
}

/// The file of the recording whose transcript the document is, not relative to anything; none for a text.
fn recording(document: &Document) -> Option<String> {
    let written = document.attributes.get(RECORDING)?.as_str()?;
    let list = document.place.rsplit_once(':').map_or(document.place.as_str(), |(file, _)| file);
    let path = Path::new(list).parent()?.join(written);
    Some(std::path::absolute(path).ok()?.to_string_lossy().into_owned())
}

/// A document as a line of JSON.
pub fn line(document: Document) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("id".to_owned(), document.id.into());
    line.insert("text".to_owned(), document.text.into());
    if let Some(label) = document.label {
        line.insert("label".to_owned(), label.into());
    }
    for (key, value) in document.attributes {
        line.entry(key).or_insert(value);
    }
    line
}

fn documents(config: &DataConfig) -> Result<impl Iterator<Item = Result<Document>>> {
    let sources: Result<Vec<_>> = config.source.keys().map(|name| reader::open(config, name)).collect();
    Ok(sources?.into_iter().flatten())
}

fn rank(seed: u64, of: &str, id: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    first_bytes(&hasher.update(&seed.to_le_bytes()).update(of.as_bytes()).update(id.as_bytes()).finalize())
}

/// A hash that case, punctuation and white space do not change.
pub fn text_hash(text: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut has_words = false;
    for word in words {
        has_words = true;
        hasher.update(word.to_lowercase().as_bytes()).update(&[0]);
    }
    if !has_words {
        hasher.update(text.trim().as_bytes());
    }
    first_bytes(&hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PackingConfig, pack};

    /// A file with the classes a (12), b (7) and c (3).
    fn corpus(dir: &Path) -> DataConfig {
        let path = dir.join("all.jsonl");
        let mut text = String::new();
        for (class, count) in [("a", 12), ("b", 7), ("c", 3)] {
            for i in 0..count {
                text += &format!(
                    "{{\"id\": \"{class}{i}\", \"text\": \"word {class} {i}\", \"label\": \"{class}\", \"n\": {i}}}\n"
                );
            }
        }
        std::fs::write(&path, text).expect("writable");
        labelled(&path)
    }

    fn labelled(path: &Path) -> DataConfig {
        let packing = PackingConfig::Document(pack::document::Config::default());
        let mut config = DataConfig::single("all", path.to_string_lossy(), packing);
        config.source.values_mut().for_each(|source| source.label_column = Some("label".to_owned()));
        config
    }

    fn options(parts: &[&str], seed: u64) -> DrawOptions {
        let parts = parts.iter().map(|part| part.parse().expect("a part")).collect();
        DrawOptions { seed, parts, ..DrawOptions::default() }
    }

    fn ids(part: &DrawnPart) -> Vec<String> {
        let text = std::fs::read_to_string(&part.path).expect("readable");
        let id = |line: &str| serde_json::from_str::<Value>(line).expect("a line")["id"].as_str().map(str::to_owned);
        text.lines().filter_map(id).collect()
    }

    #[test]
    fn parts_are_disjoint_and_have_so_many_of_each_class() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = corpus(dir.path());
        let drawn = draw(&config, dir.path(), &options(&["test=2/class", "few=4", "left=rest"], 1)).expect("drawn");
        assert_eq!(drawn.parts[0].classes.values().copied().collect::<Vec<_>>(), [2, 2, 2]);
        assert_eq!(drawn.parts.iter().map(|part| part.documents).collect::<Vec<_>>(), [6, 4, 12]);
        let all: BTreeSet<String> = drawn.parts.iter().flat_map(ids).collect();
        assert_eq!(all.len(), 22);
        let text = std::fs::read_to_string(&drawn.parts[0].path).expect("readable");
        assert!(text.lines().all(|line| line.contains("\"n\":")), "{text}");
    }

    #[test]
    fn a_part_over_all_classes_has_its_share_of_rare_ones() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("all.jsonl");
        let line = |i: usize| {
            let class = if i.is_multiple_of(10) { "rare" } else { "frequent" };
            format!("{{\"id\": \"{i}\", \"text\": \"word {i}\", \"label\": \"{class}\"}}\n")
        };
        std::fs::write(&path, (0..2000).map(line).collect::<String>()).expect("writable");
        // Half of the 200 rare ones are taken by class; of the 1800 left 100 are rare, so of 360 about 20.
        let drawn = draw(&labelled(&path), dir.path(), &options(&["test=100/class", "pool=360", "left=rest"], 1));
        let drawn = drawn.expect("drawn");
        let rare = |part: &DrawnPart| part.classes.get("rare").copied().unwrap_or(0);
        assert!((10..=32).contains(&rare(&drawn.parts[1])), "{drawn:?}");
        // Nor does a second draw, from what is left, with the same seed.
        let again = draw(&labelled(&drawn.parts[2].path), &dir.path().join("again"), &options(&["pool=360"], 1));
        assert!((10..=32).contains(&rare(&again.expect("drawn").parts[0])));
    }

    #[test]
    fn a_smaller_part_is_the_beginning_of_a_larger_one_and_seeds_differ() {
        let dir = tempfile::tempdir().expect("a folder");
        let config = corpus(dir.path());
        let of = |amount: &str, seed| -> BTreeSet<String> {
            let drawn = draw(&config, &dir.path().join(amount.replace('/', "")), &options(&[amount], seed));
            ids(&drawn.expect("drawn").parts[0]).into_iter().collect()
        };
        let (two, three) = (of("x=2/class", 5), of("x=3/class", 5));
        assert!(two.is_subset(&three) && three.len() == 9);
        assert_ne!(of("x=3", 5), of("x=3", 6));
    }

    #[test]
    fn too_few_of_a_class_is_an_error_with_its_numbers() {
        let dir = tempfile::tempdir().expect("a folder");
        let error = draw(&corpus(dir.path()), dir.path(), &options(&["test=2/class", "train=2/class"], 1));
        let error = error.expect_err("c has 3").to_string();
        assert!(error.contains("`train` wants 2") && error.contains("`c`") && error.contains('1'), "{error}");
        assert!(!dir.path().join("test.jsonl").exists());
        let missing = DrawOptions { classes: vec!["d".to_owned()], ..options(&["x=1"], 1) };
        let error = draw(&corpus(dir.path()), dir.path(), &missing).expect_err("no d").to_string();
        assert!(error.contains("`d`"), "{error}");
    }

    #[test]
    fn classes_that_are_not_asked_for_are_the_others() {
        let dir = tempfile::tempdir().expect("a folder");
        let few = DrawOptions { classes: vec!["b".to_owned()], ..options(&["test=2/class", "base=others"], 1) };
        let drawn = draw(&corpus(dir.path()), dir.path(), &few).expect("drawn");
        assert_eq!(drawn.parts.iter().map(|part| part.documents).collect::<Vec<_>>(), [2, 15]);
        assert_eq!(drawn.parts[1].classes.keys().collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn twins_are_drawn_once_and_texts_of_other_files_not_at_all() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("twins.jsonl");
        let lines = ["The cat.", "the  cat", "A dog", "a bird!"];
        let text: String = lines
            .iter()
            .enumerate()
            .map(|(i, t)| format!("{{\"id\": {i}, \"text\": \"{t}\", \"label\": \"x\"}}\n"))
            .collect();
        std::fs::write(&path, text).expect("writable");
        let test = dir.path().join("test.jsonl");
        std::fs::write(&test, "{\"text\": \"A BIRD\"}\n").expect("writable");
        let wanted = DrawOptions { without: vec![test], ..options(&["all=rest"], 3) };
        let drawn = draw(&labelled(&path), &dir.path().join("out"), &wanted).expect("drawn");
        assert_eq!((drawn.parts[0].documents, drawn.duplicates, drawn.excluded), (2, 1, 1));
    }

    #[test]
    fn lines_of_recordings_find_their_files_from_anywhere() {
        let dir = tempfile::tempdir().expect("a folder");
        let list = dir.path().join("list.jsonl");
        std::fs::write(&list, "{\"audio_filepath\": \"wav/a.wav\", \"duration\": 1.5, \"text\": \"one\"}\n")
            .expect("written");
        let packing = PackingConfig::Document(pack::document::Config::default());
        let config = DataConfig::single("all", list.to_string_lossy(), packing);
        let drawn = draw(&config, &dir.path().join("parts"), &options(&["all=rest"], 1)).expect("drawn");
        let line = std::fs::read_to_string(&drawn.parts[0].path).expect("readable");
        let line: Value = serde_json::from_str(&line).expect("a line");
        assert_eq!(line["audio_filepath"], dir.path().join("wav/a.wav").to_string_lossy().as_ref());
        assert_eq!(line["duration"], 1.5);
    }

    #[test]
    fn parts_are_written_as_names_and_amounts() {
        let part = |text: &str| text.parse::<PartSpec>().map(|part| part.amount);
        assert_eq!(part("a=3/class"), Ok(Amount::PerClass(3)));
        assert_eq!(
            (part("a=3"), part("a=rest"), part("a=others")),
            (Ok(Amount::Total(3)), Ok(Amount::Rest), Ok(Amount::Others))
        );
        for text in ["", "a", "a=", "a=0", "a=x", "a/b=3", "=3", "../a=3", "a=3/klass"] {
            assert!(part(text).is_err(), "{text}");
        }
        let dir = tempfile::tempdir().expect("a folder");
        let config = corpus(dir.path());
        assert!(draw(&config, dir.path(), &options(&["a=1", "a=2"], 1)).is_err());
        assert!(draw(&config, dir.path(), &options(&[], 1)).is_err());
        assert!(draw(&config, dir.path(), &options(&["a=others"], 1)).is_err());
    }
}
