//! Where things lie in this workspace, and how its programs are called.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The folder with the root manifest.
pub fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// The cargo that runs us, or the first one on the path.
pub fn cargo() -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// A command as a user would type it.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let variables = command.get_envs().filter_map(|(name, value)| {
        value.map(|value| format!("{}='{}'", name.to_string_lossy(), value.to_string_lossy()))
    });
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    variables.chain([program]).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Runs a command with our own output; an error names the command to repeat.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", shown(command)))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Builds the release binary of the command line and returns its path.
pub fn build_arcuate() -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "--package", "arcuate"]))?;
    let path = target_dir()?.join("release").join("arcuate");
    if !path.is_file() {
        bail!("`{}` was not built", path.display());
    }
    Ok(path)
}

/// The folder into which cargo builds.
pub fn target_dir() -> Result<PathBuf> {
    let output = cargo().args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).output()?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("`cargo metadata` gave no JSON")?;
    let path = metadata["target_directory"].as_str().context("`cargo metadata` names no target directory")?;
    Ok(PathBuf::from(path))
}

/// All files under a folder whose names end so, sorted; none if the folder does not exist.
pub fn files_under(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every recipe, pipeline and study file of the tree: `recipes/` and `methods/`, without golden numbers.
pub fn recipe_files() -> Vec<PathBuf> {
    let is_recipe = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        !name.ends_with("golden.toml")
    };
    let folders = ["recipes", "methods"].map(|name| files_under(&root().join(name), ".toml"));
    folders.into_iter().flatten().filter(is_recipe).collect()
}

/// A path as it is shown: relative to the root.
pub fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace_manifest() {
        let text = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is there");
        assert!(text.starts_with("[workspace]"));
    }

    #[test]
    fn commands_are_shown_as_typed() {
        let mut command = Command::new("/usr/bin/cargo");
        command.env("RUSTDOCFLAGS", "-D warnings").args(["doc", "--no-deps"]);
        assert_eq!(shown(&command), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps");
    }

    #[test]
    fn golden_numbers_are_not_recipes() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for name in ["b.toml", "a.toml", "a.txt"] {
            fs::write(dir.path().join(name), "").expect("written");
        }
        let names: Vec<_> = files_under(dir.path(), ".toml")
            .into_iter()
            .filter_map(|path| path.file_name().map(OsString::from))
            .collect();
        assert_eq!(names, ["a.toml", "b.toml"]);
        assert!(recipe_files().iter().all(|path| !path.to_string_lossy().ends_with("golden.toml")));
    }
}
