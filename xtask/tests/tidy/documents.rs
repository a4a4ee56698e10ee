//! Generated files are current, links lead somewhere, and nothing names the machine it was written on.

use std::fs;
use std::path::Path;

use xtask::commands::generate::{files_from_types, is_current};
use xtask::workspace::{relative, root};

use crate::tree::{assert_none, text_of, tracked};

/// Folders that exist on one machine only.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/sha", "red/")];
const MAX_BYTES: u64 = 4 << 20;

#[test]
fn generated_files_are_current() {
    let stale = files_from_types().into_iter().filter(|(path, text)| !is_current(path, text));
    let found: Vec<String> = stale.map(|(path, _)| path.display().to_string()).collect();
    assert_none("run `cargo xtask generate`", &found);
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    let mut found = Vec::new();
    for path in tracked() {
        if fs::metadata(&path).map_or(0, |data| data.len()) > MAX_BYTES {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            let starts =
                |word: &&&str| line.match_indices(**word).any(|(at, _)| at == 0 || !is_name(line.as_bytes()[at - 1]));
            if let Some(word) = MACHINE_PATHS.iter().find(starts) {
                found.push(format!("{}:{number}: `{word}`", relative(&path)));
            }
        }
    }
    assert_none("paths of one machine", &found);
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'}')
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut found = Vec::new();
    for page in tracked().into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "md")) {
        let text = fs::read_to_string(&page).expect("a page is UTF-8");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            let is_local = !file.is_empty() && !target.contains("://") && !target.contains(' ');
            if is_local && !page.parent().unwrap_or(Path::new("")).join(file).exists() {
                found.push(format!("{}: {target}", relative(&page)));
            }
        }
    }
    assert_none("broken links", &found);
}

#[test]
fn the_front_pages_name_every_crate() {
    let crates = fs::read_dir(root().join("crates")).expect("the crates are there").flatten();
    for name in crates.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        for page in ["README.md", "ARCHITECTURE.md"] {
            assert!(text_of(page).contains(&name), "{page} does not name `{name}`");
        }
    }
}

#[test]
fn the_architecture_page_can_be_read_in_one_sitting() {
    let lines = text_of("ARCHITECTURE.md").lines().count();
    assert!((50..250).contains(&lines), "ARCHITECTURE.md has {lines} lines");
}

#[test]
fn every_page_of_the_documentation_is_linked() {
    let readme = text_of("README.md");
    let pages = tracked()
        .into_iter()
        .map(|path| relative(&path))
        .filter(|path| path.starts_with("docs/") && path.ends_with(".md"));
    let found: Vec<String> = pages.filter(|path| !readme.contains(&format!("]({path})"))).collect();
    assert_none("link these pages from README.md", &found);
}
