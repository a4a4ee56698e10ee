//! A method is a folder: card, tiny recipe, golden numbers, study, paper recipe.

use std::fs;

use xtask::golden::{Golden, pairs};
use xtask::workspace::{relative, root};

use crate::tree::assert_none;

const FILES: &[&str] = &["README.md", "golden.toml", "paper.toml", "study.toml", "tiny.toml"];

#[test]
fn method_folders_are_complete() {
    let mut found = Vec::new();
    for folder in fs::read_dir(root().join("methods")).into_iter().flatten().flatten() {
        let missing = FILES.iter().filter(|name| folder.path().is_dir() && !folder.path().join(name).is_file());
        found.extend(missing.map(|name| relative(&folder.path().join(name))));
    }
    assert_none("missing files", &found);
}

#[test]
fn every_shortened_recipe_has_golden_numbers() {
    let mut found = Vec::new();
    for pair in pairs() {
        if !pair.recipe.is_file() {
            found.push(format!("{} has no recipe beside it", relative(&pair.golden)));
        } else if let Err(error) = Golden::load(&pair.golden) {
            found.push(format!("{error:#}"));
        }
    }
    assert_none("golden numbers", &found);
}
