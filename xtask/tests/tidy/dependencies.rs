//! A dependency that no file uses is removed.

use std::fs;

use xtask::workspace::{files_under, root};

use crate::tree::assert_none;

/// Dependencies that are used without their name in the source: crate, dependency, reason.
const WITHOUT_NAME: &[(&str, &str, &str)] = &[
    ("arcuate-ops", "cubecl", "its feature `cuda-cpp`"),
    ("xtask", "portable-atomic", "the same features in `cargo xtask` as in the whole workspace"),
];

#[test]
fn every_dependency_is_used() {
    let mut folders: Vec<_> =
        fs::read_dir(root().join("crates")).expect("the crates are there").flatten().map(|e| e.path()).collect();
    folders.push(root().join("xtask"));
    let mut found = Vec::new();
    for folder in folders {
        let own = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(text) = fs::read_to_string(folder.join("Cargo.toml")) else { continue };
        let manifest: toml::Table = text.parse().expect("cargo reads it too");
        let code: String =
            files_under(&folder, ".rs").iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            for name in manifest.get(table).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys) {
                let is_excused = WITHOUT_NAME.iter().any(|(of, dependency, _)| *of == own && dependency == name);
                if !is_excused && !is_named(&code, &name.replace('-', "_")) {
                    found.push(format!("{own}: {name}"));
                }
            }
        }
    }
    assert_none("unused dependencies", &found);
}

/// Whether the code names the crate in a path, an import or an attribute.
fn is_named(code: &str, name: &str) -> bool {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    code.match_indices(name).any(|(at, _)| {
        let before = at == 0 || !is_name(code.as_bytes()[at - 1]);
        let rest = &code[at + name.len()..];
        before && (rest.starts_with("::") || rest.starts_with(';') || rest.starts_with('(') || rest.starts_with(" as "))
    })
}

#[test]
fn a_longer_name_is_not_a_use() {
    assert!(is_named("use serde::Serialize;", "serde"));
    assert!(is_named("serde_json::Value", "serde_json"));
    assert!(!is_named("use serde_json::Value;", "serde"));
    assert!(!is_named("use my_serde::X;", "serde"));
}
