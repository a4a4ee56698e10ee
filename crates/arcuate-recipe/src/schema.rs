//! The JSON schemas of recipe, pipeline and study files, and the list of keys that `arcuate recipe schema` prints.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value as Json;

use crate::overrides::{path_of, split_path};
use crate::pipeline::Pipeline;
use crate::recipe::Recipe;
use crate::resolved::toml_value;
use crate::shape::{Key, Shape};
use crate::study::Study;

/// JSON schema of a recipe file.
pub fn recipe_schema() -> Json {
    schemars::schema_for!(Recipe).to_value()
}

/// JSON schema of a pipeline file.
pub fn pipeline_schema() -> Json {
    schemars::schema_for!(Pipeline).to_value()
}

/// JSON schema of a study file.
pub fn study_schema() -> Json {
    schemars::schema_for!(Study).to_value()
}

/// The shape of a recipe, read once.
pub(crate) fn recipe_shape() -> &'static Shape {
    static SHAPE: OnceLock<Shape> = OnceLock::new();
    SHAPE.get_or_init(|| Shape::of(&recipe_schema()))
}

/// The shape of a pipeline, read once.
fn pipeline_shape() -> &'static Shape {
    static SHAPE: OnceLock<Shape> = OnceLock::new();
    SHAPE.get_or_init(|| Shape::of(&pipeline_schema()))
}

/// The shape of a study, read once.
fn study_shape() -> &'static Shape {
    static SHAPE: OnceLock<Shape> = OnceLock::new();
    SHAPE.get_or_init(|| Shape::of(&study_schema()))
}

/// Names and contents of the schema files.
pub fn schema_files() -> [(&'static str, String); 3] {
    let text = |schema: Json| format!("{schema:#}\n");
    [
        ("recipe.schema.json", text(recipe_schema())),
        ("pipeline.schema.json", text(pipeline_schema())),
        ("study.schema.json", text(study_schema())),
    ]
}

/// Writes the schema files into a folder; returns those that changed.
pub fn write_schemas(folder: &Path) -> io::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder)?;
    let mut changed = Vec::new();
    for (name, text) in schema_files() {
        let path = folder.join(name);
        if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            std::fs::write(&path, text)?;
            changed.push(path);
        }
    }
    Ok(changed)
}

/// The keys of a recipe table for people: type, default, doc. `None` if no recipe has such a path; the empty path is the
/// top level. `step` and what is below it are those of a pipeline; `arm`, `contrast` and others those of a study.
pub fn describe(path: &str) -> Option<String> {
    let keys = split_path(path);
    let shapes = [recipe_shape(), pipeline_shape(), study_shape()];
    let root = shapes.into_iter().find(|shape| shape.at(&keys).is_some()).unwrap_or(recipe_shape());
    let shape = root.at(&keys)?;
    let path = path_of(&keys);
    let mut text = String::new();
    let mut own = key_at(root, &keys).map(|key| key.doc.clone()).unwrap_or_default();
    if own.starts_with('`') && !own.contains(' ') {
        own.clear();
    }
    match shape {
        Shape::Table(keys) => {
            text.push_str(&header(&path, &own));
            for key in keys {
                text.push_str(&entry(key));
            }
            if keys.is_empty() {
                text.push_str("no keys: the empty table is the choice\n");
            }
        }
        Shape::List { item, .. } if matches!(item.as_ref(), Shape::Table(_)) => {
            text.push_str(&header(&format!("[{path}]"), &own));
            if let Shape::Table(keys) = item.as_ref() {
                keys.iter().for_each(|key| text.push_str(&entry(key)));
            }
        }
        Shape::Map(value) => {
            text.push_str(&header(&path, &own));
            text.push_str(&format!("any names; each is {}\n", value.describe()));
            if let Shape::Table(keys) = value.as_ref() {
                text.push_str(&format!("\n[{path}.NAME]\n\n"));
                keys.iter().for_each(|key| text.push_str(&entry(key)));
            }
        }
        Shape::Choice(variants) => {
            text.push_str(&header(&path, &own));
            text.push_str("exactly one of:\n");
            for variant in variants {
                let title = match &variant.shape {
                    None => format!("{path} = \"{}\"", variant.name),
                    Some(Shape::Table(_)) => format!("[{path}.{}]", variant.name),
                    Some(shape) => format!("{path}.{} = {}", variant.name, shape.describe()),
                };
                let repeats = variant.doc.trim_matches('`') == title;
                text.push_str(&format!("  {title}{}\n", if repeats { String::new() } else { after(&variant.doc) }));
            }
        }
        leaf => match key_at(root, &keys) {
            Some(key) => text.push_str(&entry(key)),
            None => text.push_str(&format!("{path}: {}\n", leaf.describe())),
        },
    }
    Some(text)
}

fn key_at<'a>(shape: &'a Shape, path: &[String]) -> Option<&'a Key> {
    let (last, way) = path.split_last()?;
    match shape.at(way)? {
        Shape::Table(keys) => keys.iter().find(|key| key.name == *last),
        Shape::List { item, .. } => match item.as_ref() {
            Shape::Table(keys) => keys.iter().find(|key| key.name == *last),
            _ => None,
        },
        _ => None,
    }
}

fn header(path: &str, doc: &str) -> String {
    let title = if path.is_empty() { "top level".to_owned() } else { format!("[{path}]") };
    let doc = if doc.is_empty() { String::new() } else { format!("{}\n", doc.replace('\n', " ")) };
    format!("{title}\n{doc}\n")
}

fn entry(key: &Key) -> String {
    let default = match (&key.default, key.required) {
        (Some(Json::Object(_)), _) => ", optional".to_owned(),
        (Some(default), _) => format!(", default {}", toml_value(default)),
        (None, true) => ", required".to_owned(),
        (None, false) => ", optional".to_owned(),
    };
    let doc = key.doc.replace('\n', " ");
    let doc = if doc.is_empty() { String::new() } else { format!("    {doc}\n") };
    format!("{}: {}{default}\n{doc}", key.name, key.shape.describe())
}

fn after(doc: &str) -> String {
    if doc.is_empty() { String::new() } else { format!("  {}", doc.replace('\n', " ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema")
    }

    #[test]
    fn committed_schemas_are_current() {
        if std::env::var_os("UPDATE_FIXTURES").is_some() {
            write_schemas(&folder()).expect("a writable folder");
        }
        for (name, text) in schema_files() {
            let committed = std::fs::read_to_string(folder().join(name)).unwrap_or_default();
            assert!(committed == text, "schema/{name} is not current; run `cargo xtask generate`");
        }
    }

    #[test]
    fn writing_twice_changes_nothing_the_second_time() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(write_schemas(dir.path()).map(|changed| changed.len()).ok(), Some(3));
        assert_eq!(write_schemas(dir.path()).map(|changed| changed.len()).ok(), Some(0));
    }

    #[test]
    fn nothing_in_the_schema_is_beyond_the_walk() {
        fn places_of_any(shape: &Shape, path: &str, found: &mut Vec<String>) {
            match shape {
                Shape::Any => found.push(path.to_owned()),
                Shape::List { item, .. } | Shape::Map(item) => places_of_any(item, path, found),
                Shape::Table(keys) => {
                    keys.iter().for_each(|key| places_of_any(&key.shape, &format!("{path}.{}", key.name), found));
                }
                Shape::Choice(variants) => {
                    variants
                        .iter()
                        .filter_map(|v| v.shape.as_ref())
                        .for_each(|shape| places_of_any(shape, path, found));
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        places_of_any(recipe_shape(), "", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn every_key_has_a_doc_sentence() {
        fn bare(shape: &Shape, path: &str, found: &mut Vec<String>) {
            match shape {
                Shape::List { item, .. } | Shape::Map(item) => bare(item, path, found),
                Shape::Table(keys) => {
                    for key in keys {
                        let path = format!("{path}.{}", key.name);
                        bare(&key.shape, &path, found);
                        found.extend(Some(path).filter(|_| key.doc.is_empty()));
                    }
                }
                Shape::Choice(variants) => {
                    variants.iter().filter_map(|v| v.shape.as_ref()).for_each(|s| bare(s, path, found))
                }
                _ => {}
            }
        }
        let mut found = Vec::new();
        bare(recipe_shape(), "", &mut found);
        bare(study_shape(), "", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn tables_choices_maps_and_keys_are_described() {
        let text = describe("objective.next_token").expect("a table");
        assert!(text.contains("z_loss: a number at least 0, default 0.0\n    Weight of"), "{text}");
        let text = describe("objective").expect("a choice");
        assert!(text.contains("[objective.masked_lm]"), "{text}");
        let text = describe("data.source").expect("a map");
        assert!(text.contains("[data.source.NAME]") && text.contains("path: a string, required"), "{text}");
        let text = describe("horizon").expect("a choice of numbers");
        assert!(text.contains("horizon.steps = an integer"), "{text}");
        assert!(describe("").is_some_and(|text| text.contains("seed: an integer")));
        assert!(describe("batch.microbatch").is_some_and(|text| text.starts_with("microbatch: ")));
        assert!(describe("step").is_some_and(|text| text.starts_with("[[step]]") && text.contains("recipe: a string")));
        assert!(describe("step.seeds").is_some_and(|text| text.starts_with("seeds: a list of integers")));
        assert!(describe("arm").is_some_and(|text| text.starts_with("[[arm]]") && text.contains("recipe: a string")));
        assert!(describe("decision").is_some_and(|text| text.contains("confidence: a number above 0")));
        assert_eq!(describe("objective.next_tokens"), None);
    }
}
