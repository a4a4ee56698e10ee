//! From a path and overrides to a typed file, or to every mistake in it.
//!
//! Passes: read (size, UTF-8), parse (syntax, places), override, walk against the schema (all differences at once), typed
//! read by serde. What kind of file it is follows from the document: one with a top-level `arm` is a study, one with `step`
//! a pipeline, any other a recipe.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::check::check;
use crate::diagnostic::{Diagnostic, Diagnostics, Place};
use crate::document::{self, Node, Texts};
use crate::overrides::{self, Override};
use crate::pipeline::{Pipeline, check_pipeline};
use crate::recipe::Recipe;
use crate::shape::Shape;
use crate::source::{Finding, Source};
use crate::study::Study;
use crate::text::{all_of, nearest, shown};
use crate::walk::walk;

/// Largest file in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most names of a folder that are looked at for a suggestion.
const MAX_NAMES: usize = 10_000;

/// A typed file with the places of its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded<T> {
    /// The typed file.
    pub value: T,
    /// Where each value came from.
    pub source: Source,
}

/// What `arcuate run` and `arcuate check` are given.
#[derive(Debug, Clone, PartialEq)]
pub enum RecipeFile {
    /// One training.
    Recipe(Box<Loaded<Recipe>>),
    /// Several trainings with hand-over: a file with a top-level `step`.
    Pipeline(Box<Loaded<Pipeline>>),
    /// A claim tested by arms and seeds: a file with a top-level `arm`.
    Study(Box<Loaded<Study>>),
}

/// Loads a recipe, a pipeline or a study.
pub fn load_file(path: &Path, overrides: &[Override]) -> Result<RecipeFile, Diagnostics> {
    let document = open(path, overrides)?;
    if document.root.get("arm").is_some() {
        return Ok(RecipeFile::Study(Box::new(document.typed()?)));
    }
    if document.root.get("step").is_some() {
        return Ok(RecipeFile::Pipeline(Box::new(document.typed()?)));
    }
    Ok(RecipeFile::Recipe(Box::new(document.typed()?)))
}

/// Loads a recipe.
pub fn load_recipe(path: &Path, overrides: &[Override]) -> Result<Loaded<Recipe>, Diagnostics> {
    let document = open(path, overrides)?;
    for (key, kind) in [("arm", "study"), ("step", "pipeline")] {
        if document.root.get(key).is_some() {
            let message = format!("this is a {kind}, not a recipe");
            let found = Diagnostic::error("recipe::wrong-kind", message).at(Place::whole(&path.display().to_string()));
            let help = format!("a file with `[[{key}]]` is a {kind}; give the recipe of one of its steps");
            return Err(found.help(help).into());
        }
    }
    document.typed()
}

/// Loads a pipeline.
pub fn load_pipeline(path: &Path, overrides: &[Override]) -> Result<Loaded<Pipeline>, Diagnostics> {
    open(path, overrides)?.typed()
}

/// Loads a study.
pub fn load_study(path: &Path, overrides: &[Override]) -> Result<Loaded<Study>, Diagnostics> {
    open(path, overrides)?.typed()
}

/// Types a study that is already in memory; messages call it `name`.
pub fn parse_study(name: &str, text: &str, overrides: &[Override]) -> Result<Loaded<Study>, Diagnostics> {
    Untyped::parse(name, text, overrides)?.typed()
}

/// Types a recipe that is already in memory; messages call it `name`.
pub fn parse_recipe(name: &str, text: &str, overrides: &[Override]) -> Result<Loaded<Recipe>, Diagnostics> {
    Untyped::parse(name, text, overrides)?.typed()
}

/// Types a pipeline that is already in memory; messages call it `name`.
pub fn parse_pipeline(name: &str, text: &str, overrides: &[Override]) -> Result<Loaded<Pipeline>, Diagnostics> {
    Untyped::parse(name, text, overrides)?.typed()
}

/// All findings of [`check`] with their places.
pub fn check_recipe(recipe: &Loaded<Recipe>) -> Diagnostics {
    diagnose(&check(&recipe.value), &recipe.source)
}

/// All findings of [`check_pipeline`] with their places; the recipes of the steps are not read.
pub fn check_steps(pipeline: &Loaded<Pipeline>) -> Diagnostics {
    diagnose(&check_pipeline(&pipeline.value), &pipeline.source)
}

/// Findings with their places, in the order of the file.
pub fn diagnose(findings: &[Finding], source: &Source) -> Diagnostics {
    let mut found = Diagnostics::new();
    found.extend(findings.iter().map(|finding| source.diagnose(finding)));
    found.sort();
    found
}

/// Types any kind of document; used for the kinds above and in tests.
pub(crate) struct Untyped {
    texts: Texts,
    root: Node,
    found: Diagnostics,
}

impl Untyped {
    pub(crate) fn parse(name: &str, text: &str, overrides: &[Override]) -> Result<Self, Diagnostics> {
        let mut texts = Texts::default();
        let number = texts.add(name, text);
        let mut root = document::parse(text, number, &texts)?;
        let found = overrides::apply(overrides, &mut root, &mut texts);
        Ok(Self { texts, root, found })
    }

    pub(crate) fn typed<T: DeserializeOwned + JsonSchema>(self) -> Result<Loaded<T>, Diagnostics> {
        let Self { texts, root, mut found } = self;
        let shape = Shape::of(schemars::schema_for!(T).as_value());
        found.extend(walk(&shape, &root, &texts));
        if found.has_errors() {
            return Err(found);
        }
        match T::deserialize(&root) {
            Ok(value) => Ok(Loaded { value, source: Source::new(texts, root) }),
            Err(error) => {
                let place = error.mark.filter(|mark| mark.span.is_some()).map_or(texts.whole(), |m| texts.place(&m));
                found.push(Diagnostic::error("recipe::invalid", shown_message(&error.message)).at(place));
                Err(found)
            }
        }
    }
}

/// A message of serde in our form: one line, lower case, no full stop.
fn shown_message(message: &str) -> String {
    let line: String = message.lines().next().unwrap_or_default().chars().take(400).collect();
    line.trim_end_matches('.').to_owned()
}

fn open(path: &Path, overrides: &[Override]) -> Result<Untyped, Diagnostics> {
    let text = read(path)?;
    Untyped::parse(&path.display().to_string(), &text, overrides)
}

/// Reads a file whole; says what to do if that does not work.
fn read(path: &Path) -> Result<String, Diagnostics> {
    let name = path.display().to_string();
    let unreadable = |message: String, help: String| {
        let message = format!("`{}` {message}", shown(&name));
        Diagnostics::from(Diagnostic::error("recipe::unreadable", message).at(Place::whole(&name)).help(help))
    };
    if path.is_dir() {
        let help = match toml_names(path).as_slice() {
            [] => "give the path of a `.toml` file".to_owned(),
            names => format!("in it are {}", all_of(names.iter().take(5).map(String::as_str))),
        };
        return Err(unreadable("is a folder, not a recipe".to_owned(), help));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    if let Err(error) = file {
        return Err(match error.kind() {
            ErrorKind::NotFound => unreadable("does not exist".to_owned(), missing_file(path)),
            ErrorKind::PermissionDenied => {
                unreadable("may not be read".to_owned(), "give yourself the right to read it".to_owned())
            }
            _ => {
                let message = format!("cannot be read: {}", lower(&error.to_string()));
                unreadable(message, "check the path and the disk".to_owned())
            }
        });
    }
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let help = "give the recipe, not the data".to_owned();
        return Err(unreadable("is larger than 1 MiB, which no recipe is".to_owned(), help));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..valid].iter().filter(|byte| **byte == b'\n').count() + 1;
        let message = format!("is not UTF-8 text: line {line} has other bytes");
        unreadable(message, "save the file as UTF-8".to_owned())
    })
}

/// What to do about a path that does not exist: the near name in its folder, or the folder that is missing.
pub(crate) fn missing_file(path: &Path) -> String {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return format!("there is no folder `{}`; paths are relative to the current folder", parent.display());
    }
    let wanted = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let names = names(parent);
    match nearest(&wanted, names.iter().map(String::as_str)) {
        Some(name) => format!("did you mean `{}`?", shown(&path.with_file_name(name).display().to_string())),
        None => "check the path; paths are relative to the current folder".to_owned(),
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_NAMES);
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn toml_names(folder: &Path) -> Vec<String> {
    let join = |name: String| folder.join(name).display().to_string();
    names(folder).into_iter().filter(|name| name.ends_with(".toml")).map(join).collect()
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(path: &Path) -> String {
        load_file(path, &[]).expect_err("wrong on purpose").render(false)
    }

    #[test]
    fn a_missing_file_names_a_near_one() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("quickstart.toml"), "").expect("written");
        let shown = message(&dir.path().join("quikstart.toml"));
        assert!(shown.contains("does not exist") && shown.contains("quickstart.toml`?"), "{shown}");
        let shown = message(&dir.path().join("nowhere").join("a.toml"));
        assert!(shown.contains("there is no folder"), "{shown}");
    }

    #[test]
    fn a_folder_names_the_recipes_in_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(dir.path().join("a.toml"), "").expect("written");
        let shown = message(dir.path());
        assert!(shown.contains("is a folder") && shown.contains("a.toml"), "{shown}");
    }

    #[test]
    fn a_huge_file_and_a_binary_one_are_refused() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.toml");
        std::fs::write(&path, vec![b'#'; 2 << 20]).expect("written");
        assert!(message(&path).contains("larger than 1 MiB"));
        std::fs::write(&path, b"a = 1\nb = \xff\n").expect("written");
        assert!(message(&path).contains("line 2 has other bytes"));
    }

    #[test]
    fn a_file_with_steps_is_a_pipeline() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("p.toml");
        std::fs::write(&path, "name = \"p\"\n[[step]]\nname = \"a\"\nrecipe = \"a.toml\"\n").expect("written");
        assert!(matches!(load_file(&path, &[]), Ok(RecipeFile::Pipeline(_))));
        let refused = load_recipe(&path, &[]).expect_err("a pipeline is no recipe");
        assert!(refused.render(false).contains("recipe::wrong-kind"));
    }

    #[test]
    fn what_serde_alone_can_see_has_a_place_too() {
        #[derive(Debug, serde::Deserialize, JsonSchema)]
        struct Odd {
            #[schemars(with = "i64")]
            #[serde(rename = "small")]
            _small: u8,
        }
        let found = Untyped::parse("a.toml", "# a comment\nsmall = 300\n", &[]).and_then(Untyped::typed::<Odd>);
        let found = found.expect_err("300 is no u8").render(false);
        assert!(found.contains("a.toml:2:9"), "{found}");
    }
}
