//! Pipelines: steps in order, checkpoints handed over, finished steps whose inputs have not changed skipped.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use arcuate_recipe::Pipeline;

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
        let key = arcuate_recipe::build::inputs(&loaded.value)?;
        let is_done = arcuate_record::is_done_with(&folder, &key);
        let place = format!("{}/{} {name}", i + 1, runs.len());
        if is_done {
            say("step", &format!("{place}: done already, its inputs have not changed"));
            continue;
        }
        if let Some(aside) = move_aside(&folder, &key)? {
            say("step", &format!("{place}: its inputs changed; the earlier run is kept as {}", aside.display()));
        }
        say("step", &place);
        let text = crate::commands::read(&planned.recipe)?;
        let finished = session::run_with(&loaded, &text, options, Some(&key))?;
        debug_assert_eq!(finished.path, folder);
    }
    crate::closing::close_pipeline(pipeline, &runs, options)
}

/// Renames a run folder that was made with other inputs, so that nothing is lost; returns its new name.
pub(crate) fn move_aside(folder: &Path, inputs: &str) -> Result<Option<PathBuf>> {
    if !std::fs::read_to_string(folder.join("inputs.hash")).is_ok_and(|old| old != inputs) {
        return Ok(None);
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let free = |i: u32| Some(folder.with_file_name(format!("{name}.old-{i}"))).filter(|path| !path.exists());
    let aside = (1..).find_map(free).expect("numbers do not end");
    std::fs::rename(folder, &aside).with_context(|| format!("cannot rename `{}`", folder.display()))?;
    Ok(Some(aside))
}
