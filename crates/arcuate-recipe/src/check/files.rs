//! Files and folders that the recipe names and that are not there.

use std::path::Path;

use crate::load::missing_file;
use crate::recipe::Recipe;
use crate::source::Finding;
use crate::text::{key, shown};

pub(super) fn init_from(recipe: &Recipe) -> Vec<Finding> {
    let Some(path) = &recipe.init_from else { return Vec::new() };
    let name = shown(&path.display().to_string());
    let finding =
        |message: String, help: String| vec![Finding::error("recipe::missing-file", "init_from", message).help(help)];
    if !path.exists() {
        return finding(format!("`{name}` does not exist"), missing_file(path));
    }
    if !path.is_dir() {
        return finding(format!("`{name}` is a file"), "give the checkpoint folder that holds it".to_owned());
    }
    if path.join("config.json").is_file() {
        return Vec::new();
    }
    let help = match ["checkpoints/best", "checkpoints/last"].iter().find(|inner| path.join(inner).is_dir()) {
        Some(inner) => format!("did you mean `{}`?", shown(&path.join(inner).display().to_string())),
        None => "a checkpoint folder holds `config.json` and `model.safetensors`".to_owned(),
    };
    finding(format!("`{name}` is no checkpoint: it has no `config.json`"), help)
}

pub(super) fn sources(recipe: &Recipe) -> Vec<Finding> {
    let sources = recipe.data.source.iter();
    sources.filter_map(|(name, source)| missing(format!("data.source.{}.path", key(name)), &source.path)).collect()
}

/// Noise and rooms of `[data.speech.augment]`.
pub(super) fn augmentation(recipe: &Recipe) -> Vec<Finding> {
    let augment = recipe.data.speech.as_ref().and_then(|speech| speech.augment.as_ref());
    augment.into_iter().flat_map(|augment| augment.paths()).filter_map(|(at, path)| missing(at, path)).collect()
}

/// A path that is no pattern and that is not there; an empty one is found elsewhere.
fn missing(key_path: String, path: &str) -> Option<Finding> {
    if path.is_empty() || path.contains(['*', '?', '[']) || Path::new(path).exists() {
        return None;
    }
    let message = format!("`{}` does not exist", shown(path));
    Some(Finding::error("recipe::missing-file", key_path, message).help(missing_file(Path::new(path))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{llama_text, read};

    fn with_init(path: &Path) -> Vec<Finding> {
        let mut recipe = read(&llama_text());
        recipe.init_from = Some(path.to_owned());
        init_from(&recipe)
    }

    #[test]
    fn a_start_that_is_no_checkpoint_is_found() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        assert!(with_init(&dir.path().join("none"))[0].message.contains("does not exist"));
        assert!(with_init(dir.path())[0].message.contains("no `config.json`"));
        std::fs::write(dir.path().join("config.json"), "{}").expect("written");
        assert_eq!(with_init(dir.path()), []);
        assert!(with_init(&dir.path().join("config.json"))[0].message.contains("is a file"));
    }

    #[test]
    fn a_run_folder_points_to_its_best_checkpoint() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir_all(dir.path().join("checkpoints/best")).expect("created");
        assert!(with_init(dir.path())[0].help.as_deref().is_some_and(|help| help.contains("checkpoints/best")));
    }

    #[test]
    fn a_missing_text_file_names_a_near_one() {
        let mut recipe = read(&llama_text());
        let source = recipe.data.source.get_mut("texts").expect("the recipe of the test has it");
        source.path = "tests/text.jsonl".to_owned();
        let found = sources(&recipe);
        assert_eq!(found[0].help.as_deref(), Some("did you mean `tests/texts.jsonl`?"));
        assert_eq!(found[0].key_path, "data.source.texts.path");
    }

    #[test]
    fn missing_noise_is_found() {
        let text = include_str!("../../../../recipes/tiny_bert_ctc.toml");
        let mut recipe = read(text);
        assert_eq!(augmentation(&recipe), []);
        let speech = recipe.data.speech.as_mut().expect("the recipe of the test has it");
        let noise = speech.augment.as_mut().and_then(|augment| augment.noise.as_mut()).expect("and noise");
        noise.path = "nowhere".to_owned();
        let found = augmentation(&recipe);
        assert_eq!(found[0].key_path, "data.speech.augment.noise.path");
        assert!(found[0].message.contains("`nowhere` does not exist"));
    }

    #[test]
    fn patterns_are_left_to_the_reader() {
        let mut recipe = read(&llama_text());
        let source = recipe.data.source.get_mut("texts").expect("the recipe of the test has it");
        source.path = "nowhere/**/*.jsonl".to_owned();
        assert_eq!(sources(&recipe), []);
    }
}
