//! Checkpoint folders that a user names: what is wrong with them is said before anything is loaded.

use std::path::{Path, PathBuf};

use anyhow::Context;
use arcuate_data::Prompt;
use arcuate_eval::EvalModel;
use arcuate_model::Network;
use arcuate_text::Tokenizer;

use crate::exit;

/// A network with the tokenizer that lies beside it.
pub(crate) struct Opened {
    pub network: Network,
    pub tokenizer: Tokenizer,
    /// The sentence and words with which it was trained to classify.
    pub prompt: Option<Prompt>,
}

impl Opened {
    /// For evaluation, with every default.
    pub(crate) fn eval(&self) -> EvalModel<'_> {
        EvalModel { prompt: self.prompt.as_ref(), ..EvalModel::new(&self.network, &self.tokenizer) }
    }
}

/// Loads the network of a checkpoint folder to the CPU, for use without training.
pub(crate) fn network(dir: &Path) -> anyhow::Result<Network> {
    check(dir)?;
    arcuate_model::load(dir, &arcuate_ops::device::cpu())
        .with_context(|| format!("cannot load the checkpoint `{}`", dir.display()))
}

/// Loads network and tokenizer of a checkpoint folder, which must fit each other.
pub(crate) fn open(dir: &Path) -> anyhow::Result<Opened> {
    check(dir)?;
    // Published speech recognisers have only a vocabulary of characters.
    if !["tokenizer.json", "vocab.json"].iter().any(|name| dir.join(name).is_file()) {
        return Err(exit::usage(format!(
            "`{}` holds a model but no `tokenizer.json`; copy the tokenizer that the model was trained with into the folder",
            dir.display()
        )));
    }
    let tokenizer = Tokenizer::load(dir)?;
    let network = network(dir)?;
    let (tokens, rows) = (tokenizer.vocab_size(), network.architecture().vocab_size());
    if tokens > rows {
        let message = format!(
            "the tokenizer in `{}` has {tokens} tokens but the model only {rows}, so it is the tokenizer of another model; copy the files of the right one into the folder",
            dir.display()
        );
        return Err(exit::Coded { code: 4, message }.into());
    }
    Ok(Opened { network, tokenizer, prompt: Prompt::load(dir)? })
}

/// Refuses what is no checkpoint folder, and says what it is instead.
pub(crate) fn check(dir: &Path) -> anyhow::Result<()> {
    let shown = dir.display();
    if !dir.exists() {
        return Err(exit::usage(format!("`{shown}` does not exist; {}", instead(dir))));
    }
    if !dir.is_dir() {
        return Err(exit::usage(format!("`{shown}` is a file; name the checkpoint folder that holds it")));
    }
    let missing: Vec<&str> = [
        ("config.json", dir.join("config.json").is_file()),
        (
            "model.safetensors",
            ["model.safetensors", "model.safetensors.index.json"].iter().any(|n| dir.join(n).is_file()),
        ),
    ]
    .into_iter()
    .filter_map(|(name, is_there)| (!is_there).then_some(name))
    .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join("` and no `");
    Err(exit::usage(format!("`{shown}` is not a checkpoint folder: it has no `{missing}`; {}", instead(dir))))
}

/// What the user may have meant.
fn instead(dir: &Path) -> String {
    let candidates: [PathBuf; 4] =
        [dir.join("checkpoints/best"), dir.join("checkpoints/last"), dir.join("best"), dir.join("last")];
    if let Some(found) = candidates.iter().find(|path| path.join("config.json").is_file()) {
        return format!("did you mean `{}`?", found.display());
    }
    let parent = dir.parent().unwrap_or(Path::new(""));
    let mut beside: Vec<String> =
        std::fs::read_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path() != dir && entry.path().join("config.json").is_file())
            .map(|entry| format!("`{}`", parent.join(entry.file_name()).display()))
            .take(1000)
            .collect();
    beside.sort();
    beside.truncate(4);
    match beside.as_slice() {
        [] => {
            "name a folder with `config.json` and `model.safetensors`, such as `runs/NAME/checkpoints/best`".to_owned()
        }
        names => format!("checkpoints beside it: {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(dir: &Path) -> String {
        check(dir).expect_err("no checkpoint").to_string()
    }

    #[test]
    fn a_run_folder_names_its_best_checkpoint() {
        let run = tempfile::tempdir().expect("a temporary folder");
        let best = run.path().join("checkpoints/best");
        std::fs::create_dir_all(&best).expect("writable");
        std::fs::write(best.join("config.json"), "{}").expect("writable");
        assert!(message(run.path()).ends_with(&format!("did you mean `{}`?", best.display())));
        assert!(message(&best).contains("no `model.safetensors`"), "{}", message(&best));
        assert!(message(&run.path().join("checkpoints/bset")).contains("checkpoints beside it: `"));
    }

    #[test]
    fn a_file_is_no_folder() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("model.safetensors");
        std::fs::write(&file, "").expect("writable");
        assert!(message(&file).contains("is a file"));
        assert!(message(folder.path()).contains("no `config.json`"));
    }
}
