//! A pipeline: several trainings in order, which hand checkpoints over by step name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::check::{check, name_problem};
use crate::diagnostic::Diagnostics;
use crate::load::{Loaded, load_recipe, missing_file};
use crate::overrides::{Override, path_of, split_path, string_override, written};
use crate::recipe::Recipe;
use crate::resolved::toml_value;
use crate::source::Finding;
use crate::text::{nearest, shown};

/// A pipeline file: several trainings in order. A file is a pipeline if it has `[[step]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// Name of the pipeline; the runs are called `NAME-STEP`, or `NAME-STEP-seedN` if the step has seeds.
    pub name: String,
    /// Public data sets that are fetched into `data/fetched` before the first step; `arcuate data fetch` lists them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetch: Vec<String>,
    /// The steps, `[[step]]` each. They run in the order of the file, a step after those it takes something from.
    pub step: Vec<Step>,
}

/// One training, or several that differ in their seed only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Name of the step.
    pub name: String,
    /// The recipe file, relative to the current folder.
    pub recipe: PathBuf,
    /// Values that are changed in the recipe, by key path, as with `--set`: `set = { "batch.microbatch" = 4 }`.
    #[serde(default)]
    pub set: BTreeMap<String, serde_json::Value>,
    /// Key paths that take the best checkpoint folder of an earlier step: `from = { init_from = "pretrain" }`.
    #[serde(default)]
    pub from: BTreeMap<String, String>,
    /// Run the step once with each of these seeds. Left out: once, with the seed of the recipe.
    #[serde(default)]
    pub seeds: Vec<u64>,
}

/// One training of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedRun {
    /// Name of the run and of its folder.
    pub name: String,
    /// Name of the step.
    pub step: String,
    /// The seed, if the step lists seeds.
    pub seed: Option<u64>,
    /// The recipe file.
    pub recipe: PathBuf,
    /// Key path and name of the run whose best checkpoint it takes.
    pub hand_over: Vec<(String, String)>,
    overrides: Vec<Override>,
}

impl Pipeline {
    /// All runs in an order in which each comes after those it takes something from. Steps of a cycle are left out;
    /// [`check_pipeline`] reports them.
    pub fn runs(&self) -> Vec<PlannedRun> {
        let order = self.order();
        order.iter().flat_map(|index| self.runs_of(&self.step[*index])).collect()
    }

    fn order(&self) -> Vec<usize> {
        let mut done: BTreeSet<&str> = BTreeSet::new();
        let mut order = Vec::new();
        while order.len() < self.step.len() {
            let known: BTreeSet<&str> = self.step.iter().map(|step| step.name.as_str()).collect();
            let ready = (0..self.step.len()).find(|index| {
                let step = &self.step[*index];
                let waits =
                    step.from.values().any(|from| known.contains(from.as_str()) && !done.contains(from.as_str()));
                !order.contains(index) && !waits
            });
            let Some(index) = ready else { break };
            done.insert(&self.step[index].name);
            order.push(index);
        }
        order
    }

    fn runs_of(&self, step: &Step) -> Vec<PlannedRun> {
        let seeds: Vec<Option<u64>> =
            if step.seeds.is_empty() { vec![None] } else { step.seeds.iter().copied().map(Some).collect() };
        seeds.into_iter().map(|seed| self.run_of(step, seed)).collect()
    }

    fn run_of(&self, step: &Step, seed: Option<u64>) -> PlannedRun {
        let name = self.run_name(&step.name, seed);
        let change = |text: String| Override { origin: format!("step {}", step.name), text };
        let mut overrides = vec![change(string_override("name", &name))];
        overrides.extend(seed.map(|seed| change(written("seed", &seed.to_string()))));
        overrides.extend(step.set.iter().map(|(path, value)| change(written(&normal(path), &toml_value(value)))));
        let hand_over = step
            .from
            .iter()
            .map(|(path, from)| {
                let seeded = self.step.iter().any(|other| other.name == *from && !other.seeds.is_empty());
                (normal(path), self.run_name(from, seed.filter(|_| seeded)))
            })
            .collect();
        PlannedRun { name, step: step.name.clone(), seed, recipe: step.recipe.clone(), hand_over, overrides }
    }

    fn run_name(&self, step: &str, seed: Option<u64>) -> String {
        match seed {
            Some(seed) => format!("{}-{step}-seed{seed}", self.name),
            None => format!("{}-{step}", self.name),
        }
    }
}

impl PlannedRun {
    /// All changes to the recipe; checkpoints are taken from the run folders under `runs_dir`.
    pub fn overrides(&self, runs_dir: &Path) -> Vec<Override> {
        let mut all = self.overrides.clone();
        all.extend(self.hand_over.iter().map(|(path, run)| {
            let folder = runs_dir.join(run).join("checkpoints").join("best");
            let text = string_override(path, &folder.display().to_string());
            Override { origin: format!("step {}", self.step), text }
        }));
        all
    }

    /// The recipe of the run with the findings about it. What is handed over need not exist yet.
    pub fn load(&self, runs_dir: &Path) -> Result<(Loaded<Recipe>, Vec<Finding>), Diagnostics> {
        let loaded = load_recipe(&self.recipe, &self.overrides(runs_dir))?;
        let handed = |finding: &Finding| self.hand_over.iter().any(|(path, _)| *path == finding.key_path);
        let findings = check(&loaded.value).into_iter().filter(|finding| !handed(finding)).collect();
        Ok((loaded, findings))
    }
}

fn normal(path: &str) -> String {
    path_of(&split_path(path))
}

/// Everything that is wrong with the steps themselves; their recipes are not read.
pub fn check_pipeline(pipeline: &Pipeline) -> Vec<Finding> {
    let mut found: Vec<Finding> = name_problem("name", &pipeline.name).into_iter().collect();
    if pipeline.step.is_empty() {
        found.push(Finding::error("pipeline::no-steps", "step", "the pipeline has no steps").help("add a `[[step]]`"));
    }
    for (index, name) in pipeline.fetch.iter().enumerate() {
        if !arcuate_data::fetch::is_known(name) {
            let of_the_hub = arcuate_data::fetch::hub::FAMILIES.iter().map(|family| family.names);
            let names = arcuate_data::fetch::SETS.iter().map(|set| set.name).chain(of_the_hub);
            let message = format!("there is no data set `{}`", shown(name));
            let help = match nearest(name, names.clone()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the sets are {}", names.collect::<Vec<_>>().join(", ")),
            };
            found.push(Finding::error("pipeline::bad-set", format!("fetch[{index}]"), message).help(help));
        } else if !arcuate_data::fetch::HAS_HUB && arcuate_data::fetch::fetch_set(name).is_none() {
            let message =
                format!("`{name}` is fetched from the Hugging Face hub, and this program was built without it");
            let help = "build it with `cargo build --release --features hub`, unless the set is there already";
            found.push(Finding::warning("pipeline::no-hub", format!("fetch[{index}]"), message).help(help));
        }
    }
    for (index, step) in pipeline.step.iter().enumerate() {
        check_step(pipeline, index, step, &mut found);
    }
    let order = pipeline.order();
    for (index, step) in pipeline.step.iter().enumerate().filter(|(index, _)| !order.contains(index)) {
        let own = step.from.values().any(|from| *from == step.name);
        let message = if own {
            format!("step `{}` takes a checkpoint from itself", shown(&step.name))
        } else {
            format!("step `{}` waits for a step that waits for it", shown(&step.name))
        };
        let finding = Finding::error("pipeline::cycle", format!("step[{index}].from"), message);
        found.push(finding.help("a step can only take from steps that do not take from it"));
    }
    found
}

fn check_step(pipeline: &Pipeline, index: usize, step: &Step, found: &mut Vec<Finding>) {
    let at = |key: &str| format!("step[{index}].{key}");
    found.extend(name_problem(&at("name"), &step.name));
    if pipeline.step[..index].iter().any(|other| other.name == step.name) {
        let message = format!("two steps are called `{}`", shown(&step.name));
        found.push(Finding::error("pipeline::duplicate", at("name"), message).help("give each step its own name"));
    }
    if !step.recipe.is_file() {
        let message = format!("`{}` does not exist", step.recipe.display());
        found.push(Finding::error("recipe::unreadable", at("recipe"), message).help(missing_file(&step.recipe)));
    }
    let mut seeds = BTreeSet::new();
    if let Some(seed) = step.seeds.iter().find(|seed| !seeds.insert(**seed)) {
        let message = format!("seed {seed} is listed twice");
        found.push(Finding::error("pipeline::duplicate", at("seeds"), message).help("each seed gives one run"));
    }
    let given: BTreeSet<String> = step.set.keys().map(|path| normal(path)).collect();
    for path in step.from.keys().filter(|path| given.contains(&normal(path))) {
        let message = format!("`{}` is in both `set` and `from`", shown(path));
        found.push(Finding::error("pipeline::duplicate", at("from"), message).help("remove it from one of them"));
    }
    for (key, why) in [("name", "the name follows from pipeline and step"), ("seed", "list it in `seeds`")] {
        if given.contains(key) && (key == "name" || !step.seeds.is_empty()) {
            let message = format!("`{key}` cannot be set here");
            found.push(Finding::error("pipeline::fixed-key", at("set"), message).help(why));
        }
    }
    for path in step.set.keys().chain(step.from.keys()).filter(|path| split_path(path).is_empty()) {
        let message = format!("`{}` is not a key path", shown(path));
        found.push(Finding::error("pipeline::bad-key", at("set"), message).help("write it as `table.key`"));
    }
    for (path, from) in &step.from {
        check_hand_over(pipeline, step, &format!("step[{index}].from.{}", crate::text::key(path)), from, found);
    }
}

fn check_hand_over(pipeline: &Pipeline, step: &Step, at: &str, from: &str, found: &mut Vec<Finding>) {
    let Some(other) = pipeline.step.iter().find(|other| other.name == *from) else {
        let names = pipeline.step.iter().map(|step| step.name.as_str()).filter(|name| *name != step.name);
        let help = match nearest(from, names) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "name a step of this file".to_owned(),
        };
        let message = format!("there is no step `{}`", shown(from));
        found.push(Finding::error("pipeline::unknown-step", at, message).help(help));
        return;
    };
    if !other.seeds.is_empty() && !step.seeds.iter().all(|seed| other.seeds.contains(seed)) | step.seeds.is_empty() {
        let message = format!("step `{}` has a checkpoint per seed, so it is not clear which one to take", shown(from));
        let help =
            format!("give step `{}` seeds from {:?}; run by run, equal seeds belong together", step.name, other.seeds);
        found.push(Finding::error("pipeline::which-seed", at, message).help(help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::parse_pipeline;

    const GOOD: &str = r#"
name = "party"
[[step]]
name = "tune"
recipe = "Cargo.toml"
from = { init_from = "pretrain" }
set = { "batch.microbatch" = 4, "samples.prompts" = ["a"] }
seeds = [1, 2]
[[step]]
name = "pretrain"
recipe = "Cargo.toml"
"#;

    fn read(text: &str) -> Pipeline {
        parse_pipeline("p.toml", text, &[]).expect("the text of the test is a pipeline").value
    }

    fn codes(text: &str) -> Vec<&'static str> {
        check_pipeline(&read(text)).iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn a_sound_pipeline_has_no_findings() {
        assert_eq!(codes(GOOD), Vec::<&str>::new());
    }

    #[test]
    fn runs_come_after_what_they_take_from_and_once_per_seed() {
        let names: Vec<String> = read(GOOD).runs().into_iter().map(|run| run.name).collect();
        assert_eq!(names, ["party-pretrain", "party-tune-seed1", "party-tune-seed2"]);
    }

    #[test]
    fn a_run_carries_its_changes_and_its_checkpoint() {
        let run = &read(GOOD).runs()[1];
        let texts: Vec<String> = run.overrides(Path::new("runs")).into_iter().map(|change| change.text).collect();
        assert_eq!(
            texts,
            [
                "name=\"party-tune-seed1\"",
                "seed=1",
                "batch.microbatch=4",
                "samples.prompts=[\"a\"]",
                "init_from=\"runs/party-pretrain/checkpoints/best\""
            ]
        );
    }

    #[test]
    fn equal_seeds_belong_together() {
        let text = GOOD.replace("[[step]]\nname = \"pretrain\"", "[[step]]\nname = \"pretrain\"\nseeds = [1, 2, 3]");
        assert_eq!(codes(&text), Vec::<&str>::new());
        let runs = read(&text).runs();
        assert_eq!(runs[3].hand_over, [("init_from".to_owned(), "party-pretrain-seed1".to_owned())]);
        assert_eq!(codes(&text.replace("seeds = [1, 2]\n", "")), ["pipeline::which-seed"]);
    }

    #[test]
    fn an_unknown_step_is_found_with_a_suggestion() {
        let found = check_pipeline(&read(&GOOD.replace("\"pretrain\" }", "\"pretrian\" }")));
        assert_eq!(found[0].help.as_deref(), Some("did you mean `pretrain`?"));
        assert_eq!(found[0].key_path, "step[0].from.init_from");
    }

    #[test]
    fn cycles_are_found_and_leave_the_order_finite() {
        let text = format!("{GOOD}from = {{ init_from = \"tune\" }}\nseeds = [1, 2]\n");
        assert_eq!(codes(&text), ["pipeline::cycle", "pipeline::cycle"]);
        assert!(read(&text).runs().is_empty());
    }

    #[test]
    fn duplicates_and_fixed_keys_are_found() {
        let text =
            GOOD.replace("\"pretrain\"\nrecipe", "\"tune\"\nrecipe").replace("from = { init_from = \"pretrain\" }", "");
        assert_eq!(codes(&text), ["pipeline::duplicate"]);
        let text = GOOD.replace("\"batch.microbatch\" = 4", "name = \"x\", seed = 3, init_from = \"y\"");
        assert_eq!(codes(&text), ["pipeline::duplicate", "pipeline::fixed-key", "pipeline::fixed-key"]);
        assert_eq!(codes(&GOOD.replace("[1, 2]", "[1, 1]")), ["pipeline::duplicate"]);
    }

    #[test]
    fn a_missing_recipe_is_found() {
        assert_eq!(codes(&GOOD.replacen("Cargo.toml", "Kargo.toml", 1)), ["recipe::unreadable"]);
    }
}
