//! Pipelines: steps in order, checkpoints handed over, finished steps whose inputs have not changed skipped.

use anyhow::{Context, Result};
use arcuate_recipe::Pipeline;
use arcuate_record::{State, Status};
use arcuate_text::TokenizerConfig;

use crate::session::{self, Options};
use crate::terminal::say;

/// Runs every step; a step that is done already is passed over.
pub(crate) fn run(pipeline: &Pipeline, options: &Options) -> Result<()> {
    let runs = pipeline.runs();
    for (i, planned) in runs.iter().enumerate() {
        let (loaded, findings) = planned.load(&options.runs_dir)?;
        crate::commands::refuse(arcuate_recipe::diagnose(&findings, &loaded.source))?;
        let name = &loaded.value.name;
        let folder = options.runs_dir.join(name);
        let key = inputs(&loaded.value)?;
        let kept = folder.join("inputs.hash");
        let is_done = Status::load(&folder).is_ok_and(|s| s.state == State::Done)
            && std::fs::read_to_string(&kept).is_ok_and(|old| old == key);
        let place = format!("{}/{} {name}", i + 1, runs.len());
        if is_done {
            say("step", &format!("{place}: done already, its inputs have not changed"));
            continue;
        }
        if folder.exists() && std::fs::read_to_string(&kept).is_ok_and(|old| old != key) {
            let aside = aside(&folder);
            say("step", &format!("{place}: its inputs changed; the earlier run is kept as {}", aside.display()));
            std::fs::rename(&folder, &aside).with_context(|| format!("cannot rename `{}`", folder.display()))?;
        }
        say("step", &place);
        let text = crate::commands::read(&planned.recipe)?;
        let finished = session::run_with(&loaded, &text, options, Some(&key))?;
        debug_assert_eq!(finished.path, folder);
    }
    crate::closing::close_pipeline(pipeline, &runs, options)
}

fn aside(folder: &std::path::Path) -> std::path::PathBuf {
    (1..).map(|i| folder.with_extension(format!("old-{i}"))).find(|p| !p.exists()).expect("numbers do not end")
}

/// A hash of everything that a step depends on: its recipe, the weights it starts from, the tokenizer it is handed.
fn inputs(recipe: &arcuate_recipe::Recipe) -> Result<String> {
    let mut text = arcuate_recipe::build::recipe_hash(recipe);
    if let Some(dir) = &recipe.init_from {
        let path = dir.join("manifest.json");
        let manifest = std::fs::read_to_string(&path).unwrap_or_default();
        text += &manifest;
    }
    if let TokenizerConfig::File(file) = &recipe.tokenizer {
        text += arcuate_text::Tokenizer::load(&file.path)?.hash();
    }
    Ok(arcuate_recipe::build::hash(&text))
}
