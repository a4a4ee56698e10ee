//! The `arcuate` command: pretraining of speech and text language models from recipes.

mod closing;
mod commands;
mod decoder;
mod device;
mod exit;
mod live;
mod memory;
mod pipeline;
mod preprocessor;
mod processor;
mod session;
mod signals;
mod study;
mod terminal;
mod threads;
mod transcripts;

fn main() -> std::process::ExitCode {
    memory::keep_freed_pages();
    commands::main()
}
