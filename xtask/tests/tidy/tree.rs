//! The files that the rules look at.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use xtask::workspace::{files_under, relative, root};

/// A Rust file.
pub(crate) struct Source {
    /// Path below the root.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

impl Source {
    /// Whether the whole file is test code.
    pub(crate) fn is_test(&self) -> bool {
        let stem = Path::new(&self.path).file_stem().unwrap_or_default().to_string_lossy().into_owned();
        self.path.contains("/tests/") || self.path.contains("/benches/") || stem == "testing" || stem.ends_with("tests")
    }

    /// The lines of code that are neither tests nor comments, with their numbers from 1.
    pub(crate) fn code(&self) -> Vec<(usize, &str)> {
        if self.is_test() {
            return Vec::new();
        }
        let lines: Vec<&str> = self.text.lines().collect();
        let mut code = Vec::new();
        let mut at = 0;
        while at < lines.len() {
            if lines[at].trim_start().starts_with("#[cfg(test)]") {
                at = end_of_item(&lines, at + 1);
                continue;
            }
            if !lines[at].trim_start().starts_with("//") {
                code.push((at + 1, lines[at]));
            }
            at += 1;
        }
        code
    }
}

/// The line after the item that starts at `at`: the formatter closes it with a line of the same indentation.
fn end_of_item(lines: &[&str], at: usize) -> usize {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let own = lines.get(at).map_or(0, |line| indent(line));
    for (offset, line) in lines[at.min(lines.len())..].iter().enumerate() {
        let is_closed = line.ends_with(';') || line.trim_end_matches([',', ')', ';']).ends_with('}');
        if indent(line) == own && is_closed && !line.trim_start().starts_with("#[") {
            return at + offset + 1;
        }
    }
    lines.len()
}

/// Every Rust file of the crates and of xtask.
pub(crate) fn sources() -> Vec<Source> {
    let folders = ["crates", "xtask"].map(|name| files_under(&root().join(name), ".rs"));
    let read = |path: PathBuf| Source {
        path: relative(&path),
        text: fs::read_to_string(&path).expect("a source file is readable UTF-8"),
    };
    folders.into_iter().flatten().map(read).collect()
}

/// Every file that git tracks or would track; without git, every file outside build and run folders.
pub(crate) fn tracked() -> Vec<PathBuf> {
    let arguments = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(arguments).current_dir(root()).output();
    let names = match listed {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => String::new(),
    };
    let mut files: Vec<PathBuf> =
        names.split('\0').filter(|name| !name.is_empty()).map(|name| root().join(name)).collect();
    if files.is_empty() {
        let is_ours =
            |path: &PathBuf| !["target/", "runs/", ".git/"].iter().any(|folder| relative(path).starts_with(folder));
        files = files_under(root(), "").into_iter().filter(is_ours).collect();
    }
    files.retain(|path| path.is_file());
    files
}

/// The text of a file of the tree; empty if there is none.
pub(crate) fn text_of(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// Fails with all that was found.
pub(crate) fn assert_none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn tests_and_comments_are_not_looked_at() {
    let text = "//! A\nfn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\nfn c() {}\n#[cfg(test)]\nuse d;\n// e\nfn f() {}\n";
    let source = Source { path: "crates/x/src/a.rs".to_owned(), text: text.to_owned() };
    assert_eq!(source.code(), [(2, "fn a() {}"), (8, "fn c() {}"), (12, "fn f() {}")]);
    let source = Source { path: "crates/x/src/a/tests.rs".to_owned(), text: text.to_owned() };
    assert_eq!(source.code(), []);
}
