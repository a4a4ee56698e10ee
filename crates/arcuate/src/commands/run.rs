//! `arcuate run`: one training, a pipeline of them, or a study; resumes by itself if the run folder exists.

use std::path::{Path, PathBuf};

use anyhow::Result;
use arcuate_recipe::{Override, RecipeFile};

use crate::exit::usage;
use crate::session::{self, Options};

/// Run a recipe (one training), a pipeline (several, handing checkpoints over) or a study (arms by seeds, a verdict); run it
/// again to resume.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  arcuate run recipes/quickstart.toml
  arcuate run recipes/quickstart.toml --set seed=18 --set name='\"quickstart-18\"'
  arcuate run recipes/century.pipeline.toml
  arcuate run methods/tiny_language_models/study.toml --jobs 2
  arcuate run methods/tiny_language_models/study.toml --only none --shard 1/4

Ctrl-C, SIGTERM or SIGUSR1 once: finish the step, save, exit 75. Twice: stop now. Running the same command again resumes.")]
pub(crate) struct Args {
    /// Recipe, pipeline or study file.
    file: PathBuf,
    /// Change a value of the recipe, such as `batch.microbatch=4`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder of all runs. The token cache stays where `data.cache_dir` says.
    #[arg(long, value_name = "DIR", default_value = "runs")]
    runs_dir: PathBuf,
    /// Print the plan and stop before the run folder is made; only the token cache is written.
    #[arg(long)]
    dry_run: bool,
    /// Resume although the data is not what the checkpoint was trained on.
    #[arg(long)]
    accept_changed_data: bool,
    /// Threads for the computation; left out: one for each core.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Studies: so many runs at once, each a process of its own.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    jobs: u64,
    /// Studies: only the runs of this arm, and what they need; may be repeated.
    #[arg(long, value_name = "ARM")]
    only: Vec<String>,
    /// Studies: only part I of N of the runs, for arrays of jobs that share the runs folder.
    #[arg(long, value_name = "I/N")]
    shard: Option<String>,
    /// Studies: this run alone; ends when standard input ends.
    #[arg(long, value_name = "RUN", hide = true)]
    study_run: Option<String>,
    /// One JSON object a line on standard output instead of the progress display.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<()> {
    if let Some(threads) = args.threads {
        crate::threads::set(threads)?;
    }
    if args.dry_run {
        return super::check::plan_only(&args.file, &args.set, &args.runs_dir, args.json);
    }
    let shard = args.shard.as_deref().map(str::parse).transpose();
    let shard = shard.map_err(|error: arcuate_study::Error| usage(error.to_string()))?;
    let overrides = Override::from_flags(&args.set);
    let stop = crate::signals::install()?;
    let options = |accept| Options {
        runs_dir: args.runs_dir.clone(),
        json: args.json,
        accept_changed_data: accept,
        stop: stop.clone(),
    };
    let file = arcuate_recipe::load_file(&args.file, &overrides)?;
    if !matches!(file, RecipeFile::Study(_)) && (args.jobs > 1 || !args.only.is_empty() || shard.is_some()) {
        return Err(usage("`--jobs`, `--only` and `--shard` are for studies, and this file is none"));
    }
    match file {
        RecipeFile::Study(study) => {
            if let Some(name) = &args.study_run {
                return crate::study::run_one(&study, name, options(args.accept_changed_data));
            }
            let folder = crate::study::folder(&args.runs_dir, &study.value);
            refuse(arcuate_recipe::check_whole_study(&study, &folder).found)?;
            let how = crate::study::How {
                file: args.file,
                set: args.set,
                runs_dir: args.runs_dir,
                jobs: args.jobs as usize,
                threads: args.threads,
                selection: arcuate_study::Selection { only: args.only, shard },
                accept_changed_data: args.accept_changed_data,
                json: args.json,
                stop,
            };
            crate::study::run(&study, &how)
        }
        RecipeFile::Recipe(loaded) => {
            refuse(arcuate_recipe::check_recipe(&loaded))?;
            let text = read(&args.file)?;
            session::run(&loaded, &text, &options(args.accept_changed_data)).map(|_| ())
        }
        RecipeFile::Pipeline(pipeline) => {
            if !args.set.is_empty() && pipeline.value.step.is_empty() {
                return Err(usage("a pipeline without steps has nothing to set"));
            }
            // The steps are checked with the data that they read.
            super::data::fetch::bring_all(&pipeline.value.fetch, args.json)?;
            refuse(arcuate_recipe::check_steps(&pipeline))?;
            crate::pipeline::run(&pipeline.value, &options(args.accept_changed_data))
        }
    }
}

/// Reads a recipe as text, for the run folder.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| usage(format!("cannot read `{}`: {e}", path.display())))
}

/// Prints warnings; fails when there are errors.
pub(crate) fn refuse(found: arcuate_recipe::Diagnostics) -> Result<()> {
    if found.has_errors() {
        return Err(found.into());
    }
    if !found.is_empty() {
        crate::terminal::note(&found.render(crate::terminal::color()));
    }
    Ok(())
}
