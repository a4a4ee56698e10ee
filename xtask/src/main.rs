//! `cargo xtask COMMAND`: automation of this workspace.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match xtask::commands::Command::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
