//! Packages: downloaded and unpacked by the programs that belong to their registry, without being installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::FetchSet;
use crate::{Error, Result};

/// Lines of a failed program that are repeated in the error.
const SAID_LINES: usize = 3;

/// Where packages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registry {
    /// Debian and what descends from it: `apt-get` and `dpkg-deb`.
    Debian,
    /// The Python package index: `python3` with pip.
    PyPi,
    /// The registry of Node.js: `npm` and `tar`.
    Npm,
}

impl Registry {
    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian => "Debian",
            Self::PyPi => "PyPI",
            Self::Npm => "npm",
        }
    }

    /// How a package file ends.
    fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Debian => &[".deb"],
            Self::PyPi => &[".whl"],
            Self::Npm => &[".tgz", ".tar.gz"],
        }
    }

    /// The command that puts the package file into the current folder.
    fn download(self, package: &str) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Debian => &["apt-get", "download", package],
            Self::PyPi => &[
                "python3",
                "-m",
                "pip",
                "download",
                "--disable-pip-version-check",
                "--no-deps",
                "--only-binary=:all:",
                package,
            ],
            Self::Npm => &["npm", "pack", "--ignore-scripts", package],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// The command that unpacks a file into a folder.
    fn unpack(self, file: &str, folder: &str) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Debian => &["dpkg-deb", "-x", file, folder],
            Self::PyPi => &["python3", "-m", "zipfile", "-e", file, folder],
            Self::Npm => &["tar", "-xzf", file, "-C", folder],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}

/// Puts the contents of a set's packages into `unpacked`; says where they came from.
pub(super) fn obtain(set: &FetchSet, files: &[PathBuf], draft: &Path, unpacked: &Path) -> Result<String> {
    fs::create_dir_all(unpacked).map_err(|e| Error::io("make", unpacked, e))?;
    let name_of = |file: &Path| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for file in files {
        let file = std::path::absolute(file).map_err(|e| Error::io("find", file, e))?;
        fs::metadata(&file).map_err(|e| Error::read(&file, e))?;
        found.push(file);
    }
    let mut origin = Vec::new();
    if files.is_empty() {
        for package in set.packages() {
            run(set, &set.registry.download(&package), draft)?;
        }
        found = package_files(set, draft)?;
        origin.push(format!("{} package", set.registry.name()));
    }
    let folder = std::path::absolute(unpacked).map_err(|e| Error::io("find", unpacked, e))?.display().to_string();
    for file in &found {
        run(set, &set.registry.unpack(&file.display().to_string(), &folder), draft)?;
        origin.push(name_of(file));
    }
    Ok(origin.join(" "))
}

/// The package files in a folder, one for each package of the set.
fn package_files(set: &FetchSet, folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|e| Error::read(folder, e))?;
    let is_package = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        set.registry.endings().iter().any(|ending| name.ends_with(ending))
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_package).collect();
    found.sort();
    let packages = set.packages();
    if found.len() < packages.len() {
        return Err(Error::Package {
            set: set.name,
            command: shown(&set.registry.download(&packages[0])),
            said: format!("it left {} package files, not {}", found.len(), packages.len()),
            remedy: remedy(set),
        });
    }
    Ok(found)
}

/// Runs a command in a folder to its end.
fn run(set: &FetchSet, command: &[String], folder: &Path) -> Result<()> {
    let failed = |said: String| Error::Package { set: set.name, command: shown(command), said, remedy: remedy(set) };
    let output = Command::new(&command[0]).args(&command[1..]).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.map_err(|cause| failed(format!("`{}` cannot be started: {cause}", command[0])))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(SAID_LINES)..].join("; ");
    Err(failed(if last.is_empty() { output.status.to_string() } else { last }))
}

fn shown(command: &[String]) -> String {
    command.join(" ")
}

fn remedy(set: &FetchSet) -> String {
    let first = match set.registry {
        Registry::Debian => "run `apt-get update` first if the package is not found",
        Registry::PyPi | Registry::Npm => "look at the network and the registry's settings",
    };
    let (registry, packages) = (set.registry.name(), set.packages());
    let packages: Vec<String> = packages.iter().map(|package| format!("`{package}`")).collect();
    let (noun, each) = if packages.len() == 1 { ("package", "it") } else { ("packages", "each") };
    format!(
        "{first}, or download the {registry} {noun} {} elsewhere and name {each} with `--package FILE`",
        packages.join(", ")
    )
}
