//! A crate imports only crates of lower rank, so that the graph has no cycle and no shortcut.

use std::collections::BTreeMap;
use std::fs;

use xtask::workspace::root;

use crate::tree::text_of;

/// The rank of every crate; `ARCHITECTURE.md` shows the same numbers.
const RANKS: &[(&str, u32)] = &[
    ("arcuate", 7),
    ("arcuate-audio", 0),
    ("arcuate-data", 1),
    ("arcuate-decode", 3),
    ("arcuate-eval", 4),
    ("arcuate-fuzz", 2),
    ("arcuate-model", 2),
    ("arcuate-objective", 3),
    ("arcuate-ops", 0),
    ("arcuate-recipe", 5),
    ("arcuate-record", 0),
    ("arcuate-serve", 5),
    ("arcuate-study", 6),
    ("arcuate-text", 0),
    ("arcuate-train", 4),
];

/// Crates that know no tensors.
const WITHOUT_TENSORS: &[&str] = &["arcuate-audio", "arcuate-data", "arcuate-record", "arcuate-text"];

fn rank(name: &str) -> u32 {
    RANKS
        .iter()
        .find(|(own, _)| *own == name)
        .unwrap_or_else(|| panic!("`{name}` has no rank in xtask/tests/tidy/ranks.rs"))
        .1
}

/// Manifest of every crate by name.
fn manifests() -> BTreeMap<String, toml::Table> {
    let folders = fs::read_dir(root().join("crates")).expect("the crates are there").flatten();
    let read = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path().join("Cargo.toml")).ok()?;
        Some((name, text.parse().expect("cargo reads it too")))
    };
    folders.filter_map(read).collect()
}

fn dependencies(manifest: &toml::Table) -> Vec<String> {
    let tables = ["dependencies", "build-dependencies", "dev-dependencies"].map(|name| manifest.get(name));
    tables.into_iter().flatten().filter_map(toml::Value::as_table).flat_map(|table| table.keys().cloned()).collect()
}

#[test]
fn crates_import_only_lower_ranks() {
    for (name, manifest) in manifests() {
        let own = rank(&name);
        for dependency in dependencies(&manifest).iter().filter(|name| name.starts_with("arcuate")) {
            assert!(
                rank(dependency) < own,
                "`{name}` (rank {own}) may not import `{dependency}` (rank {})",
                rank(dependency)
            );
        }
    }
}

#[test]
fn every_rank_has_its_crate_and_folders_are_named_like_crates() {
    let manifests = manifests();
    let names: Vec<&str> = manifests.keys().map(String::as_str).collect();
    let ranked: Vec<&str> = RANKS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ranked);
    for (folder, manifest) in &manifests {
        assert_eq!(manifest["package"]["name"].as_str(), Some(folder.as_str()));
    }
}

#[test]
fn the_architecture_page_shows_the_same_ranks() {
    let page = text_of("ARCHITECTURE.md");
    for (name, rank) in RANKS {
        assert!(
            page.contains(&format!("| `{name}` | {rank} |")),
            "ARCHITECTURE.md has no row `{name}` with rank {rank}"
        );
    }
}

#[test]
fn crates_without_tensors_do_not_import_the_tensor_library() {
    let manifests = manifests();
    for name in WITHOUT_TENSORS {
        let found = dependencies(&manifests[*name]);
        assert!(!found.iter().any(|dependency| dependency.starts_with("burn")), "`{name}` must know no tensors");
    }
}
