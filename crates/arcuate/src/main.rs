//! The `arcuate` command: pretraining of speech and text language models from recipes.

mod closing;
mod commands;
mod exit;
mod live;
mod pipeline;
mod processor;
mod session;
mod signals;
mod terminal;
mod threads;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    commands::main()
}
