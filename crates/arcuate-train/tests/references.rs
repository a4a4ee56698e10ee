//! Every recorded reference holds: outputs, loss, gradients, global norm and optimiser steps.

use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../arcuate-model/tests/references")
}

fn check(dir: &Path) -> Vec<String> {
    let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    match arcuate_train::verify::verify(dir, &dir.join("reference.safetensors"), &arcuate_ops::device::cpu()) {
        Err(error) => vec![format!("{name}: {error}")],
        Ok(lines) => {
            let options = std::fs::read_to_string(dir.join("reference.json")).expect("there");
            let least = if options.contains("\"trajectory\"") { 8 } else { 1 };
            assert!(lines.len() >= least, "{name}: only {} comparisons", lines.len());
            lines.iter().filter(|l| !l.holds()).map(|l| format!("{name}: {l:?}")).collect()
        }
    }
}

#[test]
fn every_reference_holds() {
    let dirs: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the references")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("reference.json").exists())
        .collect();
    assert!(dirs.len() >= 48, "{} references", dirs.len());
    let wrong: Vec<String> = dirs.iter().flat_map(|dir| check(dir)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // The same without kernels of ours: what a GPU is given to compute.
    let wrong: Vec<String> = dirs.iter().flat_map(|dir| arcuate_ops::plain_only(|| check(dir))).collect();
    assert!(wrong.is_empty(), "plain compositions: {}", wrong.join("\n"));
}

#[test]
fn a_changed_weight_is_noticed() {
    let from = folder().join("llama");
    let dir = tempfile::tempdir().expect("a temporary folder");
    for name in ["config.json", "reference.json", "reference.safetensors"] {
        std::fs::copy(from.join(name), dir.path().join(name)).expect("copied");
    }
    let mut bytes = std::fs::read(from.join("model.safetensors")).expect("there");
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&9.0f32.to_le_bytes());
    std::fs::write(dir.path().join("model.safetensors"), bytes).expect("written");
    assert!(!check(dir.path()).is_empty());
}
