//! `cargo xtask ui-test`: uses the pages of `arcuate ui` in a headless Chromium.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::{browser, ui_test};

/// Flags of `cargo xtask ui-test`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The browser [default: `ARCUATE_CHROMIUM`, or the first Chromium on the path]
    #[arg(long, value_name = "PATH")]
    pub browser: Option<PathBuf>,
    /// Write pictures of the pages into this folder
    #[arg(long, value_name = "FOLDER")]
    pub pictures: Option<PathBuf>,
}

/// Goes through the pages.
pub(super) fn run(args: &Args) -> Result<()> {
    let Some(program) = args.browser.clone().or_else(browser::find) else {
        bail!("no Chromium was found; install one, or name it with `--browser`");
    };
    if let Some(folder) = &args.pictures {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    }
    ui_test::run(&program, args.pictures.as_deref())?;
    println!("ui-test  opened, filtered, compared, watched: as it should be ({})", program.display());
    Ok(())
}
