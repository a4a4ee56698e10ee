//! The runs of a study: shared steps, then every step of every arm with every seed, in an order in which each comes after
//! those it takes something from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::check::check;
use crate::diagnostic::Diagnostics;
use crate::load::{Loaded, load_recipe};
use crate::overrides::{Override, path_of, split_path, string_override, written};
use crate::recipe::Recipe;
use crate::resolved::toml_value;
use crate::source::{Finding, Source};
use crate::study::{CommandStepConfig, EvalStepConfig, StepConfig, Study};

/// A recipe with the findings about it, or what keeps it from being read.
pub type CheckedRecipe = Result<(Loaded<Recipe>, Vec<Finding>), Diagnostics>;

/// One run of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyRun {
    /// Name of the run and of its folder in that of the study.
    pub name: String,
    /// The step without seed and member: `ARM`, `ARM.STEP`, or the name of a shared step.
    pub step: String,
    /// The arm, unless the step is shared.
    pub arm: Option<String>,
    /// Whether the arm is measured here.
    pub is_measured: bool,
    /// The seed, unless it runs once for all seeds.
    pub seed: Option<u64>,
    /// Number of the member from 1, if the step has several.
    pub member: Option<u64>,
    /// Names of the runs that it takes something from.
    pub needs: Vec<String>,
    /// What it does.
    pub work: Work,
    /// Where its step stands in the study file.
    pub(crate) key_path: String,
    changes: Vec<Change>,
    hand_over: Vec<(String, Reference)>,
}

/// What a run does.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// A training by this recipe.
    Train(PathBuf),
    /// An evaluation of the best checkpoints of these runs.
    Eval(EvalStepConfig, Vec<String>),
    /// A command of this program.
    Command(CommandStepConfig),
}

/// A change to the recipe, and where it stands in the study file.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    key_path: String,
    text: String,
}

/// A run, or a file of it.
#[derive(Debug, Clone, PartialEq)]
struct Reference {
    run: String,
    file: Option<String>,
    key_path: String,
}

/// A step with the place where it stands.
pub(crate) struct Placed {
    pub(crate) arm: Option<usize>,
    /// `ARM`, `ARM.STEP`, or the name of a shared step.
    pub(crate) name: String,
    pub(crate) is_measured: bool,
    pub(crate) key_path: String,
    pub(crate) step: StepConfig,
}

impl Placed {
    /// Whether it runs once with each seed.
    pub(crate) fn is_seeded(&self) -> bool {
        self.arm.is_some() || self.step.per_seed
    }

    /// Everything that it takes from, with the place of each.
    pub(crate) fn references(&self) -> Vec<(String, String)> {
        let hand_over = self.step.from.iter().map(|(key, from)| {
            let name = from.split_once('/').map_or(from.as_str(), |(step, _)| step);
            (format!("{}.from.{}", self.key_path, crate::text::key(key)), name.to_owned())
        });
        let models = self.step.eval.iter().flat_map(|eval| eval.models.iter().enumerate());
        let models = models.map(|(index, name)| (format!("{}.eval.models[{index}]", self.key_path), name.clone()));
        hand_over.chain(models).collect()
    }
}

impl Study {
    /// All steps, the shared ones first.
    pub(crate) fn placed(&self) -> Vec<Placed> {
        let shared = self.shared.iter().enumerate().map(|(index, step)| Placed {
            arm: None,
            name: step.name.clone(),
            is_measured: false,
            key_path: format!("shared[{index}]"),
            step: step.clone(),
        });
        let arms = self.arm.iter().enumerate().flat_map(|(index, arm)| {
            let steps = arm.steps();
            let last = steps.len() - 1;
            let is_chain = !arm.step.is_empty();
            steps.into_iter().enumerate().map(move |(number, step)| Placed {
                arm: Some(index),
                name: if is_chain { format!("{}.{}", arm.name, step.name) } else { arm.name.clone() },
                is_measured: number == last,
                key_path: if is_chain { format!("arm[{index}].step[{number}]") } else { format!("arm[{index}]") },
                step,
            })
        });
        shared.chain(arms).collect()
    }

    /// The step that a name means where it stands: one of the same arm, a shared one, an arm (its last step), or `ARM.STEP`.
    pub(crate) fn find<'a>(&self, all: &'a [Placed], at: &Placed, name: &str) -> Option<&'a Placed> {
        let own = at.arm.map(|arm| format!("{}.{name}", self.arm[arm].name));
        all.iter()
            .find(|step| step.arm == at.arm && own.as_deref() == Some(step.name.as_str()))
            .or_else(|| all.iter().find(|step| step.arm.is_none() && step.name == name))
            .or_else(|| all.iter().find(|step| step.arm.is_some() && step.name == name))
            .or_else(|| all.iter().find(|s| s.is_measured && s.arm.is_some_and(|arm| self.arm[arm].name == name)))
    }

    /// Indices of the steps in an order in which each comes after those it takes from; steps of a cycle are left out.
    pub(crate) fn order(&self, all: &[Placed]) -> Vec<usize> {
        let index_of = |step: &Placed| all.iter().position(|other| other.key_path == step.key_path);
        let mut order: Vec<usize> = Vec::new();
        loop {
            let ready = (0..all.len()).find(|index| {
                let step = &all[*index];
                let names = step.references();
                let mut known = names.iter().filter_map(|(_, name)| index_of(self.find(all, step, name)?));
                !order.contains(index) && known.all(|other| order.contains(&other))
            });
            let Some(index) = ready else { return order };
            order.push(index);
        }
    }

    /// All runs, each after those it takes something from. [`super::check_study`] reports what cannot be one.
    pub fn runs(&self) -> Vec<StudyRun> {
        let all = self.placed();
        let order = self.order(&all);
        let mut runs: Vec<StudyRun> = Vec::new();
        let unseeded = order.iter().filter(|index| !all[**index].is_seeded());
        runs.extend(unseeded.flat_map(|index| self.runs_of(&all, &all[*index], None)));
        // Seed by seed, so that a study that was stopped halfway has whole pairs.
        for seed in &self.seeds {
            let seeded = order.iter().filter(|index| all[**index].is_seeded());
            runs.extend(seeded.flat_map(|index| self.runs_of(&all, &all[*index], Some(*seed))));
        }
        runs
    }

    fn runs_of(&self, all: &[Placed], placed: &Placed, seed: Option<u64>) -> Vec<StudyRun> {
        let members = placed.step.members.max(1);
        let numbers: Vec<Option<u64>> = if members == 1 { vec![None] } else { (1..=members).map(Some).collect() };
        numbers.into_iter().filter_map(|member| self.run_of(all, placed, seed, member)).collect()
    }

    fn run_of(&self, all: &[Placed], placed: &Placed, seed: Option<u64>, member: Option<u64>) -> Option<StudyRun> {
        let step = &placed.step;
        let name = run_name(&placed.name, seed, member);
        // The run of another step that belongs to this seed and member.
        let run_of = |from: &Placed, member: Option<u64>| {
            let member = member.filter(|_| from.step.members > 1);
            run_name(&from.name, seed.filter(|_| from.is_seeded()), member)
        };
        let mut hand_over = Vec::new();
        for (key, from) in &step.from {
            let (name, file) = from.split_once('/').map_or((from.as_str(), None), |(name, file)| (name, Some(file)));
            let found = self.find(all, placed, name)?;
            let key_path = format!("{}.from.{}", placed.key_path, crate::text::key(key));
            let reference = Reference { run: run_of(found, member), file: file.map(str::to_owned), key_path };
            hand_over.push((normal(key), reference));
        }
        let mut needs: Vec<String> = hand_over.iter().map(|(_, reference)| reference.run.clone()).collect();
        let work = if let Some(recipe) = &step.recipe {
            Work::Train(recipe.clone())
        } else if let Some(eval) = &step.eval {
            let mut models = Vec::new();
            for name in &eval.models {
                let found = self.find(all, placed, name)?;
                models.extend((1..=found.step.members.max(1)).map(|member| run_of(found, Some(member))));
            }
            models.truncate(eval.num_models.map_or(usize::MAX, |num| num as usize));
            needs.extend(models.iter().cloned());
            Work::Eval(eval.clone(), models)
        } else {
            Work::Command(step.command.clone()?)
        };
        let mut seen = BTreeSet::new();
        needs.retain(|name| seen.insert(name.clone()));
        Some(StudyRun {
            changes: changes(placed, &name, seed, member),
            name,
            step: placed.name.clone(),
            arm: placed.arm.map(|arm| self.arm[arm].name.clone()),
            is_measured: placed.is_measured,
            seed,
            member,
            needs,
            work,
            key_path: placed.key_path.clone(),
            hand_over,
        })
    }
}

/// The seed of a member: that of the study for the first, thousands of it plus the number for the others.
fn member_seed(seed: u64, member: Option<u64>) -> u64 {
    match member {
        None | Some(1) => seed,
        Some(member) => seed.saturating_mul(1000).saturating_add(member),
    }
}

fn changes(placed: &Placed, name: &str, seed: Option<u64>, member: Option<u64>) -> Vec<Change> {
    let step = &placed.step;
    let change = |key: &str, text: String| Change { key_path: format!("{}.{key}", placed.key_path), text };
    let mut changes = vec![change("name", string_override("name", name))];
    let seed = seed.or(member).map(|seed| member_seed(seed, member));
    if let Some(seed) = seed {
        let keys = std::iter::once("seed").chain(step.seed_keys.iter().map(String::as_str));
        let texts = keys.map(|key| written(&normal(key), &seed.to_string()));
        changes.extend(texts.map(|text| Change { key_path: "seeds".to_owned(), text }));
    }
    for (path, value) in &step.set {
        let key = format!("set.{}", crate::text::key(path));
        changes.push(change(&key, written(&normal(path), &toml_value(value))));
    }
    changes
}

fn run_name(step: &str, seed: Option<u64>, member: Option<u64>) -> String {
    let seed = seed.map_or_else(String::new, |seed| format!("-seed{seed}"));
    let member = member.map_or_else(String::new, |member| format!("-member{member}"));
    format!("{step}{seed}{member}")
}

/// A tokenizer that is handed over takes the place of whatever tokenizer the recipe would train.
fn handed_override(key: &str, path: &str) -> String {
    match key {
        "tokenizer.file.path" => {
            written("tokenizer", &format!("{{ file = {{ path = {} }} }}", crate::text::string(path)))
        }
        _ => string_override(key, path),
    }
}

/// A key path with the least quoting; names of arguments stay as they are.
fn normal(path: &str) -> String {
    if path.starts_with('-') { path.to_owned() } else { path_of(&split_path(path)) }
}

impl StudyRun {
    /// What is handed over: key path or argument, and the folder or file below the study's folder.
    pub fn handed(&self, folder: &Path) -> Vec<(String, PathBuf)> {
        let path = |reference: &Reference| {
            let run = folder.join(&reference.run);
            match &reference.file {
                Some(file) => run.join(file),
                None => best_checkpoint(&run),
            }
        };
        self.hand_over.iter().map(|(key, reference)| (key.clone(), path(reference))).collect()
    }

    /// The run that hands a key over.
    pub fn giver(&self, key: &str) -> Option<&str> {
        self.hand_over.iter().find(|(own, _)| own == key).map(|(_, reference)| reference.run.as_str())
    }

    /// All changes to the recipe; what is handed over lies in the study's folder.
    pub fn overrides(&self, folder: &Path, source: &Source) -> Vec<Override> {
        let origin = |key_path: &str| format!("{} ({})", source.origin(key_path), self.step);
        let changes =
            self.changes.iter().map(|change| Override { origin: origin(&change.key_path), text: change.text.clone() });
        let handed = self.handed(folder).into_iter().zip(&self.hand_over).map(|((key, path), (_, reference))| {
            Override { origin: origin(&reference.key_path), text: handed_override(&key, &path.display().to_string()) }
        });
        changes.chain(handed).collect()
    }

    /// The recipe of a training with the findings about it; what is handed over need not exist yet. `None` for other work.
    pub fn load(&self, folder: &Path, source: &Source) -> Option<CheckedRecipe> {
        let Work::Train(recipe) = &self.work else { return None };
        Some(load_recipe(recipe, &self.overrides(folder, source)).map(|loaded| {
            let is_handed = |finding: &Finding| self.hand_over.iter().any(|(path, _)| *path == finding.key_path);
            let findings = check(&loaded.value).into_iter().filter(|finding| !is_handed(finding)).collect();
            (loaded, findings)
        }))
    }

    /// What an evaluation or a command does, as TOML: the recipe of its run folder.
    pub fn definition(&self, folder: &Path) -> String {
        let json = match &self.work {
            Work::Train(recipe) => serde_json::json!({"recipe": recipe}),
            Work::Eval(eval, models) => {
                serde_json::json!({"eval": {"task": self.task(folder, eval), "models": models, "combine": eval.combine, "limit": eval.limit}})
            }
            Work::Command(_) => serde_json::json!({"command": self.arguments(folder)}),
        };
        let lines = json.as_object().into_iter().flatten();
        let lines: String = lines.map(|(key, value)| format!("{key} = {}\n", toml_value(value))).collect();
        format!("name = {}\n{lines}", crate::text::string(&self.name))
    }

    /// The best checkpoint of a run of the study.
    pub fn checkpoint(&self, folder: &Path, run: &str) -> PathBuf {
        best_checkpoint(&folder.join(run))
    }

    /// The task of an evaluation, with a path in place of a name.
    pub fn task(&self, folder: &Path, eval: &EvalStepConfig) -> String {
        let Some((kind, file)) = eval.task.split_once(':') else { return eval.task.clone() };
        let handed = self.handed(folder).into_iter().find(|(key, _)| key == file);
        handed.map_or_else(|| eval.task.clone(), |(_, path)| format!("{kind}:{}", path.display()))
    }

    /// The arguments of a command, with paths in place of names.
    pub fn arguments(&self, folder: &Path) -> Vec<String> {
        let Work::Command(command) = &self.work else { return Vec::new() };
        let handed = self.handed(folder);
        let own = folder.join(&self.name);
        let replaced = |arg: &String| {
            let given = handed.iter().find(|(key, _)| key == arg).map(|(_, path)| path.clone());
            let made = command.output.get(arg).map(|file| own.join(file));
            let seed = self.seed.filter(|_| arg == "SEED").map(|seed| seed.to_string());
            given.or(made).map(|path| path.display().to_string()).or(seed).unwrap_or_else(|| arg.clone())
        };
        command.args.iter().map(replaced).collect()
    }
}

/// Where a run keeps its best checkpoint; a run that never evaluated has only a last one.
fn best_checkpoint(run: &Path) -> PathBuf {
    let store = run.join("checkpoints");
    let (best, last) = (store.join("best"), store.join("last"));
    if !best.exists() && last.exists() { last } else { best }
}
