//! `cargo xtask generate`: writes the schemas and reference pages that follow from the code.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::reference::{commands_page, recipe_page, study_page};
use crate::workspace::{build_arcuate, root};

/// Flags of `cargo xtask generate`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Change nothing; fail if a file is not current
    #[arg(long)]
    pub check: bool,
    /// The binary whose help is written [default: build target/release/arcuate]
    #[arg(long, value_name = "PATH")]
    pub bin: Option<PathBuf>,
    /// Leave out the page of commands, which needs a release build
    #[arg(long, conflicts_with = "bin")]
    pub skip_commands: bool,
}

/// Writes or checks all generated files.
pub fn run(args: &Args) -> Result<()> {
    let mut files = files_from_types();
    if !args.skip_commands {
        let binary = args.bin.clone().map_or_else(build_arcuate, |path| Ok(std::path::absolute(path)?))?;
        files.push((PathBuf::from("docs/reference/commands.md"), commands_page(&binary)?));
    }
    let stale: Vec<_> = files.iter().filter(|(path, text)| !is_current(path, text)).collect();
    if args.check {
        if stale.is_empty() {
            println!("generate  {} files are current", files.len());
            return Ok(());
        }
        let names: Vec<String> = stale.iter().map(|(path, _)| format!("`{}`", path.display())).collect();
        bail!("{} not current; run `cargo xtask generate`", names.join(", "));
    }
    for (path, text) in &stale {
        let path = root().join(path);
        std::fs::create_dir_all(path.parent().context("every generated file lies in a folder")?)?;
        std::fs::write(&path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    println!("generate  {} files written, {} were current", stale.len(), files.len() - stale.len());
    Ok(())
}

/// The generated files that need no binary: path below the root and text.
pub fn files_from_types() -> Vec<(PathBuf, String)> {
    let schemas = arcuate_recipe::schema_files();
    let mut files: Vec<_> = schemas.into_iter().map(|(name, text)| (Path::new("schema").join(name), text)).collect();
    files.push((
        PathBuf::from("docs/reference/recipe.md"),
        recipe_page(&arcuate_recipe::recipe_schema(), &arcuate_recipe::pipeline_schema()),
    ));
    files.push((PathBuf::from("docs/reference/study.md"), study_page(&arcuate_recipe::study_schema())));
    files
}

/// Whether the file in the tree has this text.
pub fn is_current(path: &Path, text: &str) -> bool {
    std::fs::read_to_string(root().join(path)).is_ok_and(|old| old == text)
}
