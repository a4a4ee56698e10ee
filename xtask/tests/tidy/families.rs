//! One explicit list per family: complete, sorted, and named like the files.

use std::collections::BTreeSet;

use xtask::workspace::{files_under, relative, root};

use crate::tree::{assert_none, text_of};

struct Family {
    /// The table of a recipe: `[objective.NAME]`.
    table: &'static str,
    /// The file with the list.
    list: &'static str,
    /// The macro that takes it.
    name: &'static str,
    /// The folder with one file for each member.
    folder: &'static str,
}

const FAMILIES: &[Family] = &[
    Family {
        table: "data.packing",
        list: "crates/arcuate-data/src/pack.rs",
        name: "packings",
        folder: "crates/arcuate-data/src/pack",
    },
    Family {
        table: "model",
        list: "crates/arcuate-model/src/config.rs",
        name: "models",
        folder: "crates/arcuate-model/src",
    },
    Family {
        table: "objective",
        list: "crates/arcuate-objective/src/lib.rs",
        name: "objectives",
        folder: "crates/arcuate-objective/src",
    },
    Family {
        table: "optimizer",
        list: "crates/arcuate-train/src/optimizer.rs",
        name: "optimizers",
        folder: "crates/arcuate-train/src/optimizer",
    },
    Family {
        table: "schedule",
        list: "crates/arcuate-train/src/schedule.rs",
        name: "schedules",
        folder: "crates/arcuate-train/src/schedule",
    },
    Family {
        table: "tokenizer",
        list: "crates/arcuate-text/src/lib.rs",
        name: "tokenizers",
        folder: "crates/arcuate-text/src",
    },
];

/// `Variant => module` pairs that a text gives to a macro.
fn entries(text: &str, name: &str) -> Vec<(String, String)> {
    let call = format!("\n{name}! {{");
    let Some((_, rest)) = text.split_once(&call) else { return Vec::new() };
    let list = rest.split('}').next().unwrap_or_default();
    let lines = list.lines().filter(|line| !line.trim_start().starts_with("//"));
    let pairs = lines.flat_map(|line| line.split(',')).filter_map(|entry| entry.split_once("=>"));
    pairs.map(|(variant, module)| (variant.trim().to_owned(), module.trim().to_owned())).collect()
}

fn camel(name: &str) -> String {
    let capital = |word: &str| word[..1].to_uppercase() + &word[1..];
    name.split('_').filter(|word| !word.is_empty()).map(capital).collect()
}

impl Family {
    fn entries(&self) -> Vec<(String, String)> {
        let entries = entries(&text_of(self.list), self.name);
        assert!(!entries.is_empty(), "`{}` has no list `{}!`", self.list, self.name);
        entries
    }

    /// Names of the files that hold a config of their own.
    fn files(&self) -> BTreeSet<String> {
        let folder = root().join(self.folder);
        let own = files_under(&folder, ".rs").into_iter().filter(|path| path.parent() == Some(folder.as_path()));
        let has_config = |text: &str| text.contains("\npub struct Config") || text.contains(" as Config;\n");
        let members = own.filter(|path| has_config(&text_of(&relative(path))));
        members.map(|path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned()).collect()
    }
}

#[test]
fn lists_are_sorted() {
    for family in FAMILIES {
        let names: Vec<String> = family.entries().into_iter().map(|(_, module)| module).collect();
        assert!(names.is_sorted(), "sort `{}!` in {}: {names:?}", family.name, family.list);
    }
}

#[test]
fn lists_are_complete() {
    for family in FAMILIES {
        let listed: BTreeSet<String> = family.entries().into_iter().map(|(_, module)| module).collect();
        assert_eq!(
            listed,
            family.files(),
            "`{}!` in {} against the files in {}",
            family.name,
            family.list,
            family.folder
        );
    }
}

#[test]
fn variants_are_named_like_their_files() {
    for family in FAMILIES {
        for (variant, module) in family.entries() {
            assert_eq!(variant, camel(&module), "in {}", family.list);
        }
    }
}

#[test]
fn members_say_what_they_compute_and_how_a_recipe_names_them() {
    let mut found = Vec::new();
    for family in FAMILIES {
        for (_, module) in family.entries() {
            let path = format!("{}/{module}.rs", family.folder);
            let text = text_of(&path);
            let comment: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
            let header = format!("`[{}.{module}]`", family.table);
            if !comment.contains(&"//! # Recipe") || !comment.iter().any(|line| line.contains(&header)) {
                found.push(format!("{path}: `# Recipe` with {header}"));
            }
            if !comment.contains(&"//! # What it computes") && !comment.contains(&"//! # Reference") {
                found.push(format!("{path}: `# What it computes` or `# Reference`"));
            }
        }
    }
    assert_none("missing in module comments", &found);
}

#[test]
fn tables_of_the_schema_are_the_files() {
    let schema = arcuate_recipe::recipe_schema().to_string();
    for family in FAMILIES {
        for (_, module) in family.entries() {
            assert!(
                schema.contains(&format!("[{}.{module}]", family.table)),
                "`[{}.{module}]` is no table of a recipe",
                family.table
            );
        }
    }
}

#[test]
fn lists_of_several_lines_are_read() {
    let text = "macro_rules! parts { () => {} }\n\nparts! {\n    A => a,\n    // why\n    BestFit => best_fit,\n}\n";
    let wanted = [("A".to_owned(), "a".to_owned()), ("BestFit".to_owned(), "best_fit".to_owned())];
    assert_eq!(entries(text, "parts"), wanted);
    assert_eq!(camel("best_fit"), "BestFit");
}

#[test]
fn commands_are_listed_sorted_and_named_like_their_files() {
    for (folder, list, opening) in [
        ("crates/arcuate/src/commands", "crates/arcuate/src/commands/mod.rs", "\nenum Command {\n"),
        ("xtask/src/commands", "xtask/src/commands.rs", "\ncommands! {\n"),
    ] {
        let text = text_of(list);
        let body = text.split_once(opening).and_then(|(_, rest)| rest.split_once("\n}")).unwrap_or_default().0;
        let lines = body.lines().map(str::trim).filter(|line| line.starts_with(|first: char| first.is_uppercase()));
        let variants: Vec<String> =
            lines.map(|line| line.split(['(', ' ', ',']).next().unwrap_or_default().to_owned()).collect();
        assert!(variants.is_sorted(), "sort the commands in {list}: {variants:?}");
        let files = files_under(&root().join(folder), ".rs");
        let own = files.iter().filter(|path| path.parent() == Some(root().join(folder).as_path()));
        let stems = own.map(|path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        let names: Vec<String> = stems.filter(|stem| stem != "mod").map(|stem| camel(&stem)).collect();
        assert_eq!(names, variants, "the files in {folder} against the list in {list}");
    }
}
