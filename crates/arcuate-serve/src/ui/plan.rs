//! What a study wants to do, from the copy of its file in its folder; its results, as the last report left them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// Larger files are not read.
const MAX_BYTES: u64 = 64 << 20;

/// One step: the name of its runs before seed and member, and how many members it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub name: String,
    pub num_members: usize,
}

/// One arm with its steps; the last one is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arm {
    pub name: String,
    pub words: String,
    pub steps: Vec<Step>,
}

/// What can be told from `study.toml` without understanding all of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct StudyPlan {
    pub claim: String,
    pub refuted_if: String,
    pub seeds: Vec<i64>,
    /// `kind/name`, and by how much it is multiplied for readers.
    pub metric: String,
    pub scale: f64,
    pub unit: String,
    pub takes_best: bool,
    pub shared: Vec<Step>,
    pub arms: Vec<Arm>,
}

fn text_of(table: &toml::Table, key: &str) -> String {
    table.get(key).and_then(toml::Value::as_str).unwrap_or_default().to_owned()
}

fn tables<'a>(table: &'a toml::Table, key: &str) -> Vec<&'a toml::Table> {
    let list = table.get(key).and_then(toml::Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().filter_map(toml::Value::as_table).collect()
}

fn step(table: &toml::Table, name: String) -> Step {
    let members = table.get("members").and_then(toml::Value::as_integer).unwrap_or(1);
    Step { name, num_members: usize::try_from(members).unwrap_or(1).max(1) }
}

impl StudyPlan {
    /// Reads `study.toml` of a study's folder; what it lacks is empty.
    pub(super) fn load(folder: &Path) -> Self {
        read(&folder.join("study.toml"))
            .and_then(|text| text.parse().ok())
            .map(|file| Self::of(&file))
            .unwrap_or_default()
    }

    fn of(file: &toml::Table) -> Self {
        let metric = file.get("metric").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        let number = |value: &toml::Value| value.as_float().or_else(|| value.as_integer().map(|number| number as f64));
        let arm = |arm: &toml::Table| {
            let name = text_of(arm, "name");
            let chain = tables(arm, "step");
            let steps = match chain[..] {
                [] => vec![step(arm, name.clone())],
                _ => chain.iter().map(|own| step(own, format!("{name}.{}", text_of(own, "name")))).collect(),
            };
            Arm { words: text_of(arm, "words"), steps, name }
        };
        Self {
            claim: text_of(file, "claim"),
            refuted_if: text_of(file, "refuted_if"),
            seeds: match file.get("seeds").and_then(toml::Value::as_array) {
                Some(seeds) => seeds.iter().filter_map(toml::Value::as_integer).collect(),
                None => Vec::new(),
            },
            metric: text_of(&metric, "name"),
            scale: metric.get("scale").and_then(number).unwrap_or(1.0),
            unit: text_of(&metric, "unit"),
            takes_best: text_of(&metric, "take") == "best",
            shared: tables(file, "shared").into_iter().map(|own| step(own, text_of(own, "name"))).collect(),
            arms: tables(file, "arm").into_iter().map(arm).collect(),
        }
    }

    /// Runs of the arms; those of shared steps come on top.
    pub(super) fn num_arm_runs(&self) -> usize {
        let per_seed: usize = self.arms.iter().flat_map(|arm| &arm.steps).map(|step| step.num_members).sum();
        per_seed * self.seeds.len()
    }
}

impl Step {
    /// Whether a run of this name belongs to the step, with this seed, or with any or none.
    pub(super) fn owns(&self, run: &str, seed: Option<i64>) -> bool {
        let Some(rest) = run.strip_prefix(&self.name) else { return false };
        match seed {
            Some(seed) => {
                let rest = rest.strip_prefix(&format!("-seed{seed}"));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("-member"))
            }
            None => rest.is_empty() || rest.starts_with("-seed") || rest.starts_with("-member"),
        }
    }
}

/// `results.json` of a study; null if there is none.
pub(super) fn results(folder: &Path) -> Value {
    read(&folder.join("results.json")).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// The text of a plain file that is not too large.
pub(super) fn read(path: &Path) -> Option<String> {
    String::from_utf8(read_bytes(path, MAX_BYTES)?).ok()
}

/// The bytes of a plain file that is not too large. A link in a run folder may lead anywhere, so it is not followed.
pub(super) fn read_bytes(path: &Path, most: u64) -> Option<Vec<u8>> {
    let is_plain = std::fs::symlink_metadata(path).is_ok_and(|data| data.is_file() && data.len() <= most);
    let mut bytes = Vec::new();
    (is_plain && File::open(path).ok()?.take(most).read_to_end(&mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
claim = "tuning helps"
seeds = [1, 2]
metric = { name = "eval/accuracy", better = "higher", take = "last", scale = 100 }
[[shared]]
name = "base"
[[arm]]
name = "cold"
words = "from nothing"
[[arm]]
name = "warm"
step = [{ name = "tune", members = 3 }, { name = "judge" }]
"#;

    #[test]
    fn a_study_file_gives_arms_with_their_steps() {
        let plan = StudyPlan::of(&FILE.parse().expect("is TOML"));
        assert_eq!((plan.claim.as_str(), plan.scale, plan.num_arm_runs()), ("tuning helps", 100.0, 10));
        let names: Vec<&str> = plan.arms[1].steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!((names, plan.arms[0].words.as_str()), (vec!["warm.tune", "warm.judge"], "from nothing"));
    }

    #[test]
    fn a_step_owns_its_runs_and_no_others() {
        let step = Step { name: "warm".to_owned(), num_members: 1 };
        assert!(step.owns("warm-seed1", Some(1)) && step.owns("warm-seed1-member2", Some(1)));
        assert!(!step.owns("warm-seed12", Some(1)) && !step.owns("warmer-seed1", Some(1)));
        assert!(step.owns("warm", None) && step.owns("warm-seed7", None) && !step.owns("warm.tune-seed7", None));
    }

    #[test]
    fn links_and_large_files_are_not_read() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, link) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&file, "text").expect("writable");
        std::os::unix::fs::symlink(&file, &link).expect("writable");
        assert_eq!(
            (read_bytes(&file, 4), read_bytes(&file, 3), read_bytes(&link, 4)),
            (Some(b"text".to_vec()), None, None)
        );
        assert_eq!(StudyPlan::load(folder.path()), StudyPlan::default());
    }
}
