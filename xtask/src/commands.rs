//! The commands: one file each, listed here.

mod ci;
mod crash_test;
mod fuzz;
pub mod generate;
mod golden;
mod peers;
mod ui_test;

use anyhow::Result;
use clap::Parser;

macro_rules! commands {
    ($($(#[$doc:meta])* $variant:ident => $module:ident),* $(,)?) => {
        /// Automation of this workspace.
        #[derive(Debug, Parser)]
        #[command(name = "cargo xtask", bin_name = "cargo xtask")]
        pub enum Command {
            $($(#[$doc])* $variant($module::Args)),*
        }

        impl Command {
            /// Runs the command.
            pub fn run(self) -> Result<()> {
                match self { $(Self::$variant(args) => $module::run(&args)),* }
            }
        }
    };
}

commands! {
    /// Everything that must pass before a change is merged
    Ci => ci,
    /// Kill a run at random moments, resume it, and compare it with an undisturbed one
    CrashTest => crash_test,
    /// Try damaged input on every reader of files that come from elsewhere
    Fuzz => fuzz,
    /// Write the schemas and reference pages that follow from the code
    Generate => generate,
    /// Run the shortened recipes and compare their losses with the stored ones
    Golden => golden,
    /// Measure the rows of `arcuate bench` beside PyTorch, in alternation
    Peers => peers,
    /// Use the pages of `arcuate ui` in a headless Chromium
    UiTest => ui_test,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Command::command().debug_assert();
    }

    #[test]
    fn flags_have_the_documented_defaults() {
        let Ok(Command::CrashTest(args)) = Command::try_parse_from(["xtask", "crash-test"]) else {
            panic!("no flag is needed")
        };
        assert_eq!((args.kills, args.seed), (50, 1));
    }
}
