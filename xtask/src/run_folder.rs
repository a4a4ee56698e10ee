//! What a finished or interrupted run left behind, read without the program that wrote it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The training loss of every step. A step that stands twice is an error: a resumed run must remove what it repeats.
pub fn train_losses(run: &Path) -> Result<BTreeMap<u64, f64>> {
    let path = run.join("metrics.jsonl");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    losses_of(&text).with_context(|| format!("in `{}`", path.display()))
}

fn losses_of(text: &str) -> Result<BTreeMap<u64, f64>> {
    let mut losses = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let record: Value = serde_json::from_str(line).with_context(|| format!("line {number} is no JSON"))?;
        if record["kind"] != "train" {
            continue;
        }
        let step = record["step"].as_u64().with_context(|| format!("line {number} has no `step`"))?;
        let loss = match &record["loss"] {
            Value::String(text) => text.parse::<f64>().ok(),
            value => value.as_f64(),
        };
        let loss = loss.with_context(|| format!("line {number} has no `loss`"))?;
        if losses.insert(step, loss).is_some() {
            bail!("step {step} stands twice");
        }
    }
    Ok(losses)
}

/// What an interrupted run was doing, as far as its folder tells.
pub fn phase(run: Option<&Path>) -> &'static str {
    let Some(run) = run else { return "start" };
    let saving = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    if saving.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with(".tmp-")) {
        return "saving";
    }
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let kind = |line: &str| serde_json::from_str::<Value>(line).ok()?.get("kind")?.as_str().map(str::to_owned);
    match metrics.lines().rev().find_map(kind).as_deref() {
        None => "preparing",
        Some("train") => "training",
        Some("eval") => "after an evaluation",
        Some(_) => "other",
    }
}

/// The step of the newest checkpoint, 0 if there is none.
pub fn last_checkpoint(run: Option<&Path>) -> u64 {
    let entries = run.map(|run| fs::read_dir(run.join("checkpoints"))).into_iter().flatten().flatten().flatten();
    let step = |name: &str| name.strip_prefix("step-")?.parse().ok();
    entries.filter_map(|entry| step(&entry.file_name().to_string_lossy())).max().unwrap_or(0)
}

/// Everything in which two finished runs differ: weights and optimizer state byte for byte, training losses step by step.
pub fn differences(wanted: &Path, got: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in ["model.safetensors", "optimizer.safetensors"] {
        let file = Path::new("checkpoints").join("last").join(name);
        let read = |run: &Path| {
            fs::read(run.join(&file)).with_context(|| format!("cannot read `{}`", run.join(&file).display()))
        };
        let (wanted, got) = (read(wanted)?, read(got)?);
        if wanted.len() != got.len() {
            found.push(format!("`{name}` has {} bytes, not {}", got.len(), wanted.len()));
        } else if let Some(at) = wanted.iter().zip(&got).position(|(a, b)| a != b) {
            found.push(format!("`{name}` differs from byte {at} on"));
        }
    }
    found.extend(loss_differences(&train_losses(wanted)?, &train_losses(got)?));
    Ok(found)
}

fn loss_differences(wanted: &BTreeMap<u64, f64>, got: &BTreeMap<u64, f64>) -> Option<String> {
    if wanted.is_empty() {
        return Some("the undisturbed run recorded no training loss".to_owned());
    }
    let steps: std::collections::BTreeSet<u64> = wanted.keys().chain(got.keys()).copied().collect();
    let bits = |losses: &BTreeMap<u64, f64>, step| losses.get(&step).map(|loss: &f64| loss.to_bits());
    let wrong: Vec<u64> = steps.into_iter().filter(|&step| bits(wanted, step) != bits(got, step)).collect();
    let first = *wrong.first()?;
    let show = |losses: &BTreeMap<u64, f64>| losses.get(&first).map_or("missing".to_owned(), |loss| loss.to_string());
    Some(format!(
        "the loss differs at {} steps, first at step {first}: {} instead of {}",
        wrong.len(),
        show(got),
        show(wanted)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_read_by_step() {
        let text = "{\"step\":1,\"kind\":\"train\",\"loss\":5.5}\n{\"step\":1,\"kind\":\"eval\",\"loss\":5.0}\n{\"step\":2,\"kind\":\"train\",\"loss\":\"NaN\"}\n";
        let losses = losses_of(text).expect("sound");
        assert_eq!(losses.get(&1), Some(&5.5));
        assert!(losses.get(&2).is_some_and(|loss| loss.is_nan()));
    }

    #[test]
    fn a_repeated_step_is_an_error() {
        let line = "{\"step\":1,\"kind\":\"train\",\"loss\":5.5}\n";
        let error = losses_of(&line.repeat(2)).expect_err("twice").to_string();
        assert_eq!(error, "step 1 stands twice");
    }

    #[test]
    fn a_torn_line_is_an_error_with_its_number() {
        let error = losses_of("{\"step\":1,\"kind\":\"train\",\"loss\":5.5}\n{\"st").expect_err("torn");
        assert!(format!("{error:#}").starts_with("line 2 is no JSON"), "{error:#}");
    }

    #[test]
    fn one_bit_of_a_loss_is_a_difference() {
        let wanted = BTreeMap::from([(1, 5.0), (2, 4.0)]);
        assert_eq!(loss_differences(&wanted, &wanted), None);
        let got = BTreeMap::from([(1, 5.0), (2, f64::from_bits(4.0_f64.to_bits() + 1))]);
        let found = loss_differences(&wanted, &got).expect("differs");
        assert!(found.starts_with("the loss differs at 1 steps, first at step 2"), "{found}");
        let found = loss_differences(&wanted, &BTreeMap::from([(1, 5.0)])).expect("differs");
        assert!(found.ends_with("missing instead of 4"), "{found}");
    }

    #[test]
    fn the_phase_follows_from_the_folder() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let run = dir.path();
        assert_eq!(phase(None), "start");
        assert_eq!(phase(Some(run)), "preparing");
        fs::write(run.join("metrics.jsonl"), "{\"step\":1,\"kind\":\"train\"}\n{\"step").expect("written");
        assert_eq!(phase(Some(run)), "training");
        fs::create_dir_all(run.join("checkpoints/.tmp-step-00000002-7")).expect("made");
        assert_eq!(phase(Some(run)), "saving");
    }

    #[test]
    fn the_newest_checkpoint_counts() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(last_checkpoint(Some(dir.path())), 0);
        for name in ["step-00000010", "step-00000002", ".tmp-step-00000012-1"] {
            fs::create_dir_all(dir.path().join("checkpoints").join(name)).expect("made");
        }
        assert_eq!(last_checkpoint(Some(dir.path())), 10);
    }

    #[test]
    fn equal_runs_have_no_differences_and_other_weights_do() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        for run in [&a, &b] {
            fs::create_dir_all(run.join("checkpoints/last")).expect("made");
            fs::write(run.join("metrics.jsonl"), "{\"step\":1,\"kind\":\"train\",\"loss\":5.5}\n").expect("written");
            for name in ["model", "optimizer"] {
                fs::write(run.join(format!("checkpoints/last/{name}.safetensors")), "weights").expect("written");
            }
        }
        assert_eq!(differences(&a, &b).expect("readable"), Vec::<String>::new());
        fs::write(b.join("checkpoints/last/model.safetensors"), "weighty").expect("written");
        assert_eq!(differences(&a, &b).expect("readable"), ["`model.safetensors` differs from byte 6 on"]);
    }
}
