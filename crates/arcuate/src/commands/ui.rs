//! `arcuate ui`: the local record of runs as live pages on loopback.

use std::path::{Path, PathBuf};

use anyhow::Context;
use arcuate_serve::{Server, Ui};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::{exit, terminal};

/// Folder that `arcuate run` writes to.
const DEFAULT_ROOT: &str = "runs";

/// Show runs and studies as live pages in a browser on this machine.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  arcuate ui
  arcuate ui --runs-dir /elsewhere/runs --port 0
  ssh -L 8471:localhost:8471 MACHINE    # from elsewhere, while it runs there

Only this machine can open the pages. Ctrl-C ends the server; runs go on.")]
pub(crate) struct Args {
    /// Folder that holds the runs.
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_ROOT)]
    runs_dir: PathBuf,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, value_name = "PORT", default_value_t = 8471)]
    port: u16,
    /// Address of this machine to listen on: `127.0.0.1`, `::1` or `localhost`.
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// Print the address as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let root = &args.runs_dir;
    // The folder of the first run may come later.
    if !root.is_dir() && (root.exists() || root != Path::new(DEFAULT_ROOT)) {
        let place = root.display();
        return Err(exit::usage(format!("there is no folder `{place}`; name the folder that holds the runs")));
    }
    let server = Server::bind(&args.host, args.port).map_err(|error| exit::usage(error.to_string()))?;
    let address = format!("http://{}/", server.address());
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let ui = Ui::new(root);
    let serve = move || -> () { server.serve(move |request| ui.answer(request)) };
    std::thread::Builder::new().name("accept".to_owned()).spawn(serve).context("cannot start the server")?;
    if args.json {
        terminal::result(&json!({"url": address, "runs_dir": root}).to_string());
    } else {
        terminal::say("ui", &format!("{address}   runs in `{}`", root.display()));
        terminal::say("", "Ctrl-C ends it; runs go on");
    }
    signals.forever().next();
    Ok(())
}
