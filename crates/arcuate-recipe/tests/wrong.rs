//! Wrong recipes and the messages they must give: `tests/wrong/NAME.toml` beside `NAME.txt`.
//!
//! A first line `# --set a.b=c` in a recipe is applied as an override. `UPDATE_FIXTURES=1` rewrites the messages.

use std::path::{Path, PathBuf};

use arcuate_recipe::{Override, RecipeFile, check_recipe, check_steps, check_whole_study, load_file};

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    let entries = std::fs::read_dir(folder).expect("the folder of fixtures exists");
    let names = entries.map(|entry| entry.expect("a readable entry").file_name());
    let mut paths: Vec<PathBuf> = names.map(|name| Path::new("tests/wrong").join(name)).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "toml"));
    paths.sort();
    paths
}

fn flags(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).expect("a readable fixture");
    let text = String::from_utf8_lossy(&bytes);
    text.lines().map_while(|line| line.strip_prefix("# --set ")).map(str::to_owned).collect()
}

fn message(path: &Path) -> String {
    let found = match load_file(path, &Override::from_flags(&flags(path))) {
        Err(found) => found,
        Ok(RecipeFile::Recipe(recipe)) => check_recipe(&recipe),
        Ok(RecipeFile::Pipeline(pipeline)) => check_steps(&pipeline),
        Ok(RecipeFile::Study(study)) => check_whole_study(&study, Path::new("runs/study")).found,
    };
    found.render(false) + "\n"
}

#[test]
fn wrong_recipes_give_their_stored_messages() {
    let update = std::env::var_os("UPDATE_FIXTURES").is_some();
    let mut differing = Vec::new();
    for path in fixtures() {
        let stored = path.with_extension("txt");
        let now = message(&path);
        if update {
            std::fs::write(&stored, &now).expect("a writable fixture");
        }
        let before = std::fs::read_to_string(&stored).unwrap_or_default();
        if before != now {
            differing.push(format!("{}\n--- stored\n{before}--- now\n{now}", path.display()));
        }
    }
    let help = "UPDATE_FIXTURES=1 rewrites the stored messages; read the difference before you keep it";
    assert!(differing.is_empty(), "{}\n{help}", differing.join("\n"));
}

#[test]
fn every_wrong_recipe_is_refused_or_warned_about() {
    assert!(fixtures().len() >= 15);
    for path in fixtures() {
        assert!(!message(&path).contains("no errors"), "{}", path.display());
    }
}

#[test]
fn every_stored_message_belongs_to_a_recipe() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wrong");
    for entry in std::fs::read_dir(folder).expect("the folder of fixtures exists") {
        let path = entry.expect("a readable entry").path();
        assert!(path.with_extension("toml").is_file(), "{}", path.display());
    }
}
