//! The built `arcuate` binary, started on a recipe with everything it writes in a folder of our own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use crate::workspace;

/// How one recipe is run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The binary.
    pub binary: PathBuf,
    /// The recipe, relative to the root of the workspace.
    pub recipe: PathBuf,
    /// Values that are changed in the recipe, as with `--set`.
    pub overrides: Vec<String>,
    /// Folder that takes the run folders, the token cache and the output.
    pub folder: PathBuf,
}

impl Program {
    /// The folder with the run folders.
    pub fn runs_dir(&self) -> PathBuf {
        self.folder.join("runs")
    }

    /// The file with all that the program printed.
    pub fn log_path(&self) -> PathBuf {
        self.folder.join("output.txt")
    }

    /// The command, ready to start.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        let cache = toml::Value::String(self.folder.join("cache").display().to_string());
        command.current_dir(workspace::root()).arg("run").arg(&self.recipe).arg("--runs-dir").arg(self.runs_dir());
        command.arg("--set").arg(format!("data.cache_dir={cache}"));
        for change in &self.overrides {
            command.arg("--set").arg(change);
        }
        command.env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// Starts it; what it prints is appended to the log.
    pub fn start(&self) -> Result<Child> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = self.command();
        command.stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("cannot start `{}`", self.binary.display()))
    }

    /// The last lines that it printed, for a message.
    pub fn last_words(&self) -> String {
        last_lines(&std::fs::read(self.log_path()).unwrap_or_default(), 20)
    }

    /// The only run folder; none before there is one.
    pub fn run_folder(&self) -> Option<PathBuf> {
        find_run_folder(&self.runs_dir())
    }
}

fn find_run_folder(runs: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(runs).ok()?.flatten().map(|entry| entry.path());
    entries.filter(|path| path.join("recipe.toml").is_file()).min()
}

fn last_lines(bytes: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(|line| line.rsplit('\r').next().unwrap_or(line)).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path) -> Program {
        Program {
            binary: PathBuf::from("arcuate"),
            recipe: PathBuf::from("recipes/tiny.toml"),
            overrides: vec!["seed=3".to_owned()],
            folder: folder.to_path_buf(),
        }
    }

    #[test]
    fn everything_is_written_into_the_folder() {
        let shown = workspace::shown(&program(Path::new("/x")).command());
        let wanted = "arcuate run recipes/tiny.toml --runs-dir /x/runs --set data.cache_dir=\"/x/cache\" --set seed=3";
        assert!(shown.ends_with(wanted), "{shown}");
    }

    #[test]
    fn a_run_folder_is_one_with_a_recipe() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let program = program(dir.path());
        assert_eq!(program.run_folder(), None);
        for name in ["cache", "tiny"] {
            std::fs::create_dir_all(program.runs_dir().join(name)).expect("made");
        }
        std::fs::write(program.runs_dir().join("tiny/recipe.toml"), "").expect("written");
        assert_eq!(program.run_folder(), Some(program.runs_dir().join("tiny")));
    }

    #[test]
    fn last_words_are_the_end_of_the_output() {
        assert_eq!(last_lines(b"a\nb\nstep 1\rstep 2\n", 2), "b\nstep 2");
        assert_eq!(last_lines(b"", 3), "");
    }
}
