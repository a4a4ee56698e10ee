//! Every recipe in the tree loads, and nothing in it is found wrong.

use std::path::Path;

use arcuate_recipe::{
    RecipeFile, Severity, Work, check_recipe, check_steps, check_whole_study, load_file, parse_pipeline, parse_recipe,
    parse_study,
};
use xtask::workspace::{recipe_files, relative, root};

use crate::tree::{assert_none, text_of, tracked};

#[test]
fn every_recipe_loads_and_passes_the_check() {
    // Paths in a recipe are relative to the current folder. Every other test uses whole paths.
    std::env::set_current_dir(root()).expect("the root is there");
    let mut found = Vec::new();
    // A step of a pipeline or study may need what an earlier step makes; the check of the whole covers it.
    let mut steps = Vec::new();
    for path in recipe_files() {
        match load_file(&path, &[]) {
            Ok(RecipeFile::Pipeline(pipeline)) => {
                steps.extend(pipeline.value.step.into_iter().map(|step| step.recipe.display().to_string()));
            }
            Ok(RecipeFile::Study(study)) => {
                steps.extend(study.value.runs().into_iter().filter_map(|run| match run.work {
                    Work::Train(recipe) => Some(recipe.display().to_string()),
                    Work::Eval(..) | Work::Command(_) => None,
                }))
            }
            Ok(RecipeFile::Recipe(_)) | Err(_) => {}
        }
    }
    for path in recipe_files() {
        let path = relative(&path);
        if steps.contains(&path) {
            continue;
        }
        let diagnostics = match load_file(path.as_ref(), &[]) {
            Ok(RecipeFile::Recipe(recipe)) => check_recipe(&recipe),
            Ok(RecipeFile::Pipeline(pipeline)) => check_steps(&pipeline),
            Ok(RecipeFile::Study(study)) => check_whole_study(&study, Path::new("runs/study")).found,
            Err(diagnostics) => diagnostics,
        };
        // Units are made from the recipe that names them.
        let is_made = |code: &str| code == "recipe::missing-units";
        if diagnostics.iter().any(|found| found.severity == Severity::Error && !is_made(found.code)) {
            found.push(format!("{path}\n{}", diagnostics.render(false)));
        }
    }
    assert_none("recipes of the tree", &found);
}

#[test]
fn every_recipe_names_its_schema() {
    let names =
        |path: &std::path::PathBuf| std::fs::read_to_string(path).is_ok_and(|text| text.starts_with("#:schema "));
    let found: Vec<String> = recipe_files().iter().filter(|path| !names(path)).map(|path| relative(path)).collect();
    assert_none("line one must be `#:schema PATH`, for editors", &found);
}

/// The `toml` blocks of a page.
fn blocks(text: &str) -> Vec<&str> {
    text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn recipes_and_pipelines_in_the_pages_are_well_typed() {
    let mut found = Vec::new();
    for page in tracked().into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "md")) {
        let text = std::fs::read_to_string(&page).expect("a page is UTF-8");
        for block in blocks(&text) {
            let name = relative(&page);
            let outcome = if block.contains("[[arm]]") {
                parse_study(&name, block, &[]).map(drop)
            } else if block.contains("[[step]]") {
                parse_pipeline(&name, block, &[]).map(drop)
            } else {
                parse_recipe(&name, &completed(block), &[]).map(drop)
            };
            found.extend(outcome.err().map(|diagnostics| format!("{name}\n{}", diagnostics.render(false))));
        }
    }
    assert_none("blocks of pages", &found);
}

/// A piece of a recipe with all the tables that it leaves out.
fn completed(block: &str) -> String {
    let whole = text_of("README.md");
    let whole = blocks(&whole).into_iter().next().unwrap_or_default();
    let family = |header: &str| header.trim_matches(['[', ']']).split('.').next().unwrap_or_default().to_owned();
    let headers = |text: &str| text.lines().filter(|line| line.starts_with('[')).map(family).collect::<Vec<_>>();
    let given = headers(block);
    let mut text = String::new();
    if !block.contains("name = ") {
        text.push_str("name = \"piece\"\nseed = 1\n");
    }
    text.push_str(block);
    let mut is_missing = false;
    for line in whole.lines() {
        if line.starts_with('[') {
            let header = line.split_whitespace().next().unwrap_or_default();
            is_missing = !given.contains(&family(header));
        }
        if is_missing {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}
