//! A method is a folder: card, tiny recipe, golden numbers, study, paper recipe.

use std::fs;

use arcuate_recipe::{RecipeFile, build, load_file, plan};
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

/// Method, vocabulary, classes of a classifier, parameters as published; the data of a `paper.toml` are not in the tree.
const PUBLISHED: &[(&str, usize, usize, u64)] = &[
    ("continued_pretraining_asr", 0, 0, 317_390_592),
    ("prediction_pretraining", 21_128, 311, 38_715_959),
    ("prompt_continued_pretraining", 50_265, 0, 355_412_057),
    ("tiny_language_models", 30_522, 0, 66_692_154),
];

#[test]
fn published_configurations_have_the_published_parameters() {
    for (method, vocab_size, num_classes, wanted) in PUBLISHED {
        let path = root().join("methods").join(method).join("paper.toml");
        let recipe = match load_file(&path, &[]) {
            Ok(RecipeFile::Recipe(recipe)) => recipe.value,
            Ok(_) => panic!("{method}: paper.toml is no recipe"),
            Err(found) => panic!("{method}\n{}", found.render(false)),
        };
        let classes: Vec<String> = (0..*num_classes).map(|class| class.to_string()).collect();
        let architecture = build::architecture(&recipe, *vocab_size, &classes).expect("possible sizes");
        let plan = plan::plan(&recipe, &architecture, 0, |_| Vec::new());
        assert_eq!(plan.num_parameters, *wanted, "{method}");
    }
}
