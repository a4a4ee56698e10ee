//! All commands: one file each, one list.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use serde_json::json;

use crate::{exit, processor, terminal};

mod bench;
mod check;
mod data;
mod doctor;
mod eval;
mod export;
mod generate;
mod lm;
mod recipe;
mod run;
mod runs;
mod tokenizer;
mod transcribe;
mod ui;
mod verify;
mod wer;

pub(crate) use eval::one_task;
pub(crate) use run::{read, refuse};

/// Pretrains speech and text language models from recipes, and does what pretraining needs around it.
#[derive(Parser)]
#[command(name = "arcuate", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Examples:
  arcuate run recipes/quickstart.toml
  arcuate check recipes/quickstart.toml --set model.llama.num_layers=8
  arcuate generate runs/quickstart/checkpoints/best --prompt \"Fellow citizens\"

Exit codes: 0 done; 1 failed; 2 bad recipe or arguments; 3 stopped by the health referee; 4 bad data; 75 preempted, run again to resume.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Args),
    Check(check::Args),
    Data(data::Args),
    Doctor(doctor::Args),
    Eval(eval::Args),
    Export(export::Args),
    Generate(generate::Args),
    Lm(lm::Args),
    Recipe(recipe::Args),
    Run(run::Args),
    Runs(runs::Args),
    Tokenizer(tokenizer::Args),
    Transcribe(transcribe::Args),
    Ui(ui::Args),
    Verify(verify::Args),
    Wer(wer::Args),
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let command = Cli::parse().command;
    let result = processor::check_variable().and_then(|()| start(command));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(exit::code(&error))
        }
    }
}

fn start(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Bench(args) => bench::run(args),
        Command::Check(args) => check::run(args),
        Command::Data(args) => data::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Export(args) => export::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Lm(args) => lm::run(args),
        Command::Recipe(args) => recipe::run(args),
        Command::Run(args) => run::run(args),
        Command::Runs(args) => runs::run(args),
        Command::Tokenizer(args) => tokenizer::run(args),
        Command::Transcribe(args) => transcribe::run(args),
        Command::Ui(args) => ui::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Wer(args) => wer::run(args),
    }
}

/// Prints an error with its causes, or the diagnostics of a recipe as they are.
fn report(error: &anyhow::Error) {
    if let Some(diagnostics) = error.downcast_ref::<arcuate_recipe::Diagnostics>() {
        if wants_json() {
            terminal::result(
                &json!({"error": diagnostics.summary(), "exit_code": 2, "diagnostics": diagnostics.to_json()})
                    .to_string(),
            );
        }
        terminal::note(&diagnostics.render(terminal::color()));
        return;
    }
    let text = exit::text(error);
    // A comparison that found a difference has said so already.
    let is_answer =
        error.is::<exit::Told>() || error.downcast_ref::<exit::Coded>().is_some_and(|coded| coded.code == 1);
    if wants_json() && !is_answer {
        terminal::result(&json!({"error": text, "exit_code": exit::code(error)}).to_string());
    }
    terminal::note(&format!("error: {text}"));
}

/// Whether machine-readable output was asked for, whatever the command.
fn wants_json() -> bool {
    std::env::args().any(|arg| arg == "--json")
}
