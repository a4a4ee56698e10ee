//! What can be wrong with a study: in the file itself, then in the recipes of its runs; everything at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arcuate_objective::ObjectiveConfig;
use arcuate_record::statistics::even_binomial_cdf;

use super::budget::check_budget;
use super::runs::{Placed, StudyRun, Work};
use super::{EvalStepConfig, Expected, Study, TestKind};
use crate::check::name_problem;
use crate::diagnostic::Diagnostics;
use crate::load::{Loaded, diagnose, missing_file};
use crate::overrides::{path_of, split_path};
use crate::recipe::Recipe;
use crate::source::Finding;
use crate::text::{any_of, nearest, shown};

/// Larger seeds would not fit beside the number of a member.
const MAX_SEED: u64 = 1 << 50;
/// Forms of tasks; those with a colon name a file.
const TASKS: [&str; 6] = ["held-out", "text:", "choice:", "classify:", "tag:", "recipe:"];

/// A study with the recipes of its steps.
pub struct CheckedStudy {
    /// Everything that is wrong or doubtful, in the study and in its recipes.
    pub found: Diagnostics,
    /// One run of every step: of the first seed and member. Trainings have their recipe.
    pub runs: Vec<(StudyRun, Option<Loaded<Recipe>>)>,
}

/// Checks the study file, then the recipes of all its steps with their changes, then whether the arms fit together.
pub fn check_whole_study(study: &Loaded<Study>, folder: &Path) -> CheckedStudy {
    let mut findings = check_study(&study.value);
    let mut found = Diagnostics::new();
    let mut seen = BTreeSet::new();
    let mut runs: Vec<(StudyRun, Option<Loaded<Recipe>>)> = Vec::new();
    let mut is_whole = true;
    for run in study.value.runs() {
        if !seen.insert(run.step.clone()) {
            continue;
        }
        let missing = matches!(&run.work, Work::Train(recipe) if !recipe.is_file());
        match run.load(folder, &study.source).filter(|_| !missing) {
            Some(Ok((loaded, findings))) => {
                found.extend(diagnose(&findings, &loaded.source));
                runs.push((run, Some(loaded)));
            }
            Some(Err(wrong)) => {
                is_whole = false;
                found.extend(wrong);
            }
            None => {
                is_whole &= !missing;
                runs.push((run, None));
            }
        }
    }
    if is_whole && !findings.iter().any(|finding| finding.code == "study::cycle") {
        findings.extend(check_metric(&study.value, &runs));
        findings.extend(check_budget(&study.value, &runs));
    }
    let mut all = diagnose(&findings, &study.source);
    all.extend(unique(found));
    CheckedStudy { found: all, runs }
}

/// The same mistake in a recipe of several steps is one mistake.
fn unique(found: Diagnostics) -> Diagnostics {
    let mut seen = BTreeSet::new();
    found.into_iter().filter(|diagnostic| seen.insert(diagnostic.render(false))).collect()
}

/// Everything that is wrong with the study file itself; the recipes are not read.
pub fn check_study(study: &Study) -> Vec<Finding> {
    let mut found: Vec<Finding> = name_problem("name", &study.name).into_iter().collect();
    seeds(study, &mut found);
    metric(study, &mut found);
    if study.arm.len() < 2 {
        let message = "a study compares arms, and this one has fewer than 2";
        found.push(Finding::error("study::few-arms", "arm", message).help("add an `[[arm]]` to compare with"));
    }
    let all = study.placed();
    names(study, &all, &mut found);
    arms(study, &mut found);
    for placed in &all {
        step(study, &all, placed, &mut found);
    }
    let order = study.order(&all);
    for (_, placed) in all.iter().enumerate().filter(|(index, _)| !order.contains(index)) {
        let known = placed.references().iter().all(|(_, name)| study.find(&all, placed, name).is_some());
        if known {
            let message = format!("`{}` waits for a step that waits for it", shown(&placed.name));
            let help = "a step can only take from steps that do not take from it";
            found.push(Finding::error("study::cycle", placed.key_path.clone(), message).help(help));
        }
    }
    contrasts(study, &mut found);
    decision(study, &mut found);
    paper(study, &mut found);
    found
}

fn seeds(study: &Study, found: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    if let Some(seed) = study.seeds.iter().find(|seed| !seen.insert(**seed)) {
        let message = format!("seed {seed} is listed twice");
        found.push(Finding::error("study::duplicate", "seeds", message).help("each seed gives one run of every arm"));
    } else if study.seeds.len() < 2 {
        let message = format!("{} seed{} cannot show how much results scatter", study.seeds.len(), plural(study));
        found.push(Finding::error("study::few-seeds", "seeds", message).help("give at least 2, better 5"));
    }
    if let Some(seed) = study.seeds.iter().find(|seed| **seed > MAX_SEED) {
        let message = format!("seed {seed} is larger than {MAX_SEED}");
        found.push(Finding::error("study::large-seed", "seeds", message).help("small numbers do as well"));
    }
}

fn plural(study: &Study) -> &'static str {
    if study.seeds.len() == 1 { "" } else { "s" }
}

fn metric(study: &Study, found: &mut Vec<Finding>) {
    if !study.metric.name.contains('/') {
        let message = format!("`{}` is not a metric of a run", shown(&study.metric.name));
        let help = "write it as `kind/name`, such as `eval/accuracy`";
        found.push(Finding::error("study::unknown-metric", "metric.name", message).help(help));
    }
}

/// A name of an arm or step: it becomes a part of folder names, in which a dot parts arm and step.
fn plain_name(key_path: &str, name: &str) -> Option<Finding> {
    if name == "logs" {
        let message = "the name `logs` is used for another purpose";
        return Some(Finding::error("recipe::bad-name", key_path, message).help("choose another"));
    }
    if name.contains('.') {
        let message = format!("the name `{}` contains `.`", shown(name));
        return Some(Finding::error("recipe::bad-name", key_path, message).help("use letters, digits, `-` and `_`"));
    }
    name_problem(key_path, name)
}

fn names(study: &Study, all: &[Placed], found: &mut Vec<Finding>) {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    let shared = study.shared.iter().enumerate().map(|(index, step)| (format!("shared[{index}].name"), &step.name));
    let arms = study.arm.iter().enumerate().map(|(index, arm)| (format!("arm[{index}].name"), &arm.name));
    for (at, name) in shared.chain(arms) {
        found.extend(plain_name(&at, name));
        if seen.insert(name.clone(), at.clone()).is_some() {
            let message = format!("two arms or shared steps are called `{}`", shown(name));
            found.push(Finding::error("study::duplicate", at, message).help("give each its own name"));
        }
    }
    for (index, arm) in study.arm.iter().enumerate() {
        let mut own = BTreeSet::new();
        for (number, step) in arm.step.iter().enumerate() {
            let at = format!("arm[{index}].step[{number}].name");
            found.extend(plain_name(&at, &step.name));
            if !own.insert(&step.name) {
                let message = format!("two steps of arm `{}` are called `{}`", shown(&arm.name), shown(&step.name));
                found.push(Finding::error("study::duplicate", at, message).help("give each its own name"));
            }
        }
    }
    // Names that differ may still make the same folder: `a-seed1` without seed and `a` with seed 1.
    if !found.iter().any(|finding| finding.code == "study::duplicate") {
        let mut folders: BTreeMap<String, String> = BTreeMap::new();
        for run in study.runs() {
            if let Some(other) = folders.insert(run.name.clone(), run.step.clone()) {
                let message = format!("`{}` and `{}` would both write `{}`", shown(&other), shown(&run.step), run.name);
                let at = all.iter().find(|step| step.name == run.step).map_or("arm", |step| step.key_path.as_str());
                found.push(Finding::error("study::duplicate", at, message).help("rename one of them"));
                break;
            }
        }
    }
}

fn arms(study: &Study, found: &mut Vec<Finding>) {
    for (index, arm) in study.arm.iter().enumerate().filter(|(_, arm)| !arm.step.is_empty()) {
        let is_single = arm.recipe.is_some() || arm.eval.is_some() || !arm.set.is_empty() || !arm.from.is_empty();
        if is_single || !arm.seed_keys.is_empty() {
            let message = format!("arm `{}` is both a single step and a chain", shown(&arm.name));
            let help = "move `recipe`, `eval`, `set`, `from` and `seed_keys` into its `[[arm.step]]`";
            found.push(Finding::error("study::two-kinds", format!("arm[{index}]"), message).help(help));
        }
    }
}

fn step(study: &Study, all: &[Placed], placed: &Placed, found: &mut Vec<Finding>) {
    let at = |key: &str| format!("{}.{key}", placed.key_path);
    let step = &placed.step;
    let name = shown(&placed.name);
    let mut error = |code, at: String, message: String, help: &str| {
        found.push(Finding::error(code, at, message).help(help));
    };
    let kinds = [step.recipe.is_some(), step.eval.is_some(), step.command.is_some()];
    match kinds.iter().filter(|given| **given).count() {
        0 => {
            let help = "give it a `recipe`, an `eval` or a `command`";
            error("study::no-work", placed.key_path.clone(), format!("`{name}` does nothing"), help);
        }
        1 => {}
        _ => {
            let message = format!("`{name}` is more than one of `recipe`, `eval` and `command`");
            error("study::two-kinds", placed.key_path.clone(), message, "make a step of each");
        }
    }
    if let Some(recipe) = step.recipe.as_ref().filter(|recipe| !recipe.is_file()) {
        let message = format!("`{}` does not exist", recipe.display());
        error("recipe::unreadable", at("recipe"), message, &missing_file(recipe));
    }
    if step.recipe.is_none() && (!step.set.is_empty() || !step.seed_keys.is_empty()) {
        let key = if step.set.is_empty() { "seed_keys" } else { "set" };
        error("study::no-recipe", at(key), format!("`{name}` has no recipe that could be changed"), "remove it");
    }
    if step.recipe.is_none() && step.members != 1 {
        let message = format!("`{name}` is no training, so it has no members");
        error("study::no-recipe", at("members"), message, "give the members to the training before it");
    }
    if placed.is_measured && step.command.is_some() {
        let message = format!("the last step of `{name}` is a command, which measures nothing");
        error("study::unmeasured", at("command"), message, "end the arm with a training or an `eval`");
    }
    if placed.is_measured && step.members != 1 {
        let message = format!("the last step of `{name}` has {} members, so it has no single result", step.members);
        error("study::unmeasured", at("members"), message, "end the arm with an `eval` over them");
    }
    if placed.arm.is_some() && step.per_seed {
        let message = "a step of an arm runs with each seed anyway".to_owned();
        error("study::no-use", at("per_seed"), message, "remove `per_seed`");
    }
    for (key, why) in [("name", "it follows from arm, step and seed"), ("seed", "list it in `seeds`")] {
        let is_seed = key == "seed" && !placed.is_seeded();
        if step.set.keys().any(|path| normal(path) == key) && !is_seed {
            error("study::fixed-key", at("set"), format!("`{key}` cannot be set here"), why);
        }
    }
    for path in step.from.keys().filter(|path| step.set.keys().any(|other| normal(other) == normal(path))) {
        let message = format!("`{}` is in both `set` and `from`", shown(path));
        error("study::duplicate", at("from"), message, "remove it from one of them");
    }
    if let Some(eval) = &step.eval {
        evaluation(study, all, placed, eval, found);
    }
    command(placed, found);
    references(study, all, placed, found);
}

fn normal(path: &str) -> String {
    path_of(&split_path(path))
}

fn evaluation(study: &Study, all: &[Placed], placed: &Placed, eval: &EvalStepConfig, found: &mut Vec<Finding>) {
    let at = |key: &str| format!("{}.eval.{key}", placed.key_path);
    let is_known = TASKS.iter().any(|form| match form.strip_suffix(':') {
        Some(_) => eval.task.len() > form.len() && eval.task.starts_with(form),
        None => eval.task == *form,
    });
    if !is_known {
        let message = format!("there is no task `{}`", shown(&eval.task));
        let forms = any_of([
            "held-out",
            "text:FILE",
            "choice:FILE.jsonl",
            "classify:FILE.jsonl",
            "tag:FILE.jsonl",
            "recipe:FILE.toml",
        ]);
        found.push(Finding::error("study::unknown-task", at("task"), message).help(format!("it is one of {forms}")));
    } else if let Some((_, file)) = eval.task.split_once(':')
        && !placed.step.from.contains_key(file)
        && !Path::new(file).is_file()
    {
        let message = format!("`{}` does not exist", shown(file));
        found.push(Finding::error("recipe::unreadable", at("task"), message).help(missing_file(Path::new(file))));
    }
    let members = eval.models.iter().filter_map(|name| study.find(all, placed, name));
    let num: u64 = members.map(|step| step.step.members.max(1)).sum();
    if eval.models.is_empty() {
        let message = "an evaluation needs a model";
        found.push(Finding::error("study::no-work", at("models"), message).help("name a step: `models = [\"tune\"]`"));
    } else if let Some(wanted) = eval.num_models.filter(|wanted| *wanted > num && num > 0) {
        let message = format!("{wanted} models are wanted, but there are {num}");
        let help = "raise `members` of the step, or lower `num_models`";
        found.push(Finding::error("study::few-models", at("num_models"), message).help(help));
    } else if eval.combine.is_none() && eval.num_models.unwrap_or(num) > 1 {
        let message = format!("it is not said how {} models answer together", eval.num_models.unwrap_or(num));
        let help = "add `combine = \"mean_probability\"` or `\"mean_logit\"`";
        found.push(Finding::error("study::no-combination", at("models"), message).help(help));
    }
}

fn command(placed: &Placed, found: &mut Vec<Finding>) {
    let Some(command) = &placed.step.command else { return };
    let at = |key: &str| format!("{}.{key}", placed.key_path);
    if command.args.is_empty() || command.args[0].starts_with('-') || command.args[0] == "run" {
        let message = "the step names no command that it could run";
        let help = "begin `args` with a command of `arcuate --help` other than `run`";
        found.push(Finding::error("study::no-work", at("command.args"), message).help(help));
    }
    let is_argument = |key: &String| command.args.contains(key);
    let from = placed.step.from.keys().map(|key| (key, "from"));
    let output = command.output.keys().map(|key| (key, "command.output"));
    for (key, table) in from.chain(output).filter(|(key, _)| !is_argument(key)) {
        let message = format!("no argument of the command is `{}`", shown(key));
        found
            .push(Finding::error("study::no-use", at(table), message).help("write it into `args` where the path goes"));
    }
    for file in command.output.values() {
        let is_plain =
            !file.is_empty() && !file.starts_with('/') && file.split('/').all(|part| part != ".." && !part.is_empty());
        if !is_plain || ["recipe.toml", "status.json", "lock"].contains(&file.as_str()) {
            let message = format!("`{}` is not a file name for the folder of the step", shown(file));
            found.push(Finding::error("study::bad-file", at("command.output"), message).help("use a plain file name"));
        }
    }
}

fn references(study: &Study, all: &[Placed], placed: &Placed, found: &mut Vec<Finding>) {
    for (at, name) in placed.references() {
        let Some(other) = study.find(all, placed, &name) else {
            let names = all.iter().map(|step| step.name.as_str()).filter(|name| *name != placed.name);
            let own = placed.arm.map(|arm| format!("{}.", study.arm[arm].name)).unwrap_or_default();
            let names: Vec<&str> = names.map(|name| name.strip_prefix(own.as_str()).unwrap_or(name)).collect();
            let help = match nearest(&name, names.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("there are {}", crate::text::all_of(names.iter().take(8).copied())),
            };
            let message = format!("there is no step `{}`", shown(&name));
            found.push(Finding::error("study::unknown-step", at, message).help(help));
            continue;
        };
        if other.is_seeded() && !placed.is_seeded() {
            let message =
                format!("`{}` has a result per seed, so it is not clear which one to take", shown(&other.name));
            let help = format!("add `per_seed = true` to `{}`", shown(&placed.name));
            found.push(Finding::error("study::which-seed", at, message).help(help));
        } else if placed.step.eval.is_none() && other.step.members > 1 && other.step.members != placed.step.members {
            let message = format!(
                "`{}` has {} members and `{}` has {}",
                other.name, other.step.members, placed.name, placed.step.members
            );
            let help = "give both as many members, or take from an `eval`";
            found.push(Finding::error("study::which-member", at, message).help(help));
        } else if !at.contains(".from.") && other.step.recipe.is_none() {
            let message = format!("`{}` is no training, so it has no model", shown(&other.name));
            found.push(Finding::error("study::no-model", at, message).help("name a training"));
        }
    }
    for (key, from) in &placed.step.from {
        let (name, file) = from.split_once('/').map_or((from.as_str(), None), |(name, file)| (name, Some(file)));
        let Some(other) = study.find(all, placed, name) else { continue };
        let at = format!("{}.from.{}", placed.key_path, crate::text::key(key));
        let is_made = |file: &str| match &other.step.command {
            // What a command makes may be a folder with the file in it.
            Some(command) => command.output.values().any(|made| Path::new(file).starts_with(made)),
            None => !file.is_empty(),
        };
        match file {
            None if other.step.recipe.is_none() => {
                let message = format!("`{}` is no training, so it has no checkpoint", shown(name));
                let help = "take a file: `STEP/FILE`";
                found.push(Finding::error("study::no-model", at, message).help(help));
            }
            Some(file) if !is_made(file) => {
                let message = format!("`{}` does not make a file `{}`", shown(name), shown(file));
                found.push(Finding::error("study::bad-file", at, message).help("it makes what its `output` lists"));
            }
            _ => {}
        }
    }
}

fn contrasts(study: &Study, found: &mut Vec<Finding>) {
    if study.contrast.is_empty() {
        let message = "no `[[contrast]]` says what is compared";
        found.push(Finding::error("study::no-contrast", "contrast", message).help("add one with `arm` and `against`"));
    }
    let names: Vec<&str> = study.arm.iter().map(|arm| arm.name.as_str()).collect();
    let mut seen = BTreeSet::new();
    for (index, contrast) in study.contrast.iter().enumerate() {
        let at = |key: &str| format!("contrast[{index}].{key}");
        found.extend(plain_name(&at("name"), &contrast.name));
        if !seen.insert(&contrast.name) {
            let message = format!("two contrasts are called `{}`", shown(&contrast.name));
            found.push(Finding::error("study::duplicate", at("name"), message).help("give each its own name"));
        }
        let unknown = |key: String, name: &str| {
            let help = match nearest(name, names.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("the arms are {}", crate::text::all_of(names.iter().copied())),
            };
            Finding::error("study::unknown-arm", key, format!("there is no arm `{}`", shown(name))).help(help)
        };
        for (key, name) in [("arm", &contrast.arm), ("against", &contrast.against)] {
            found.extend(name.iter().filter(|name| !names.contains(&name.as_str())).map(|name| unknown(at(key), name)));
        }
        for name in contrast.weights.keys().filter(|name| !names.contains(&name.as_str())) {
            found.push(unknown(at(&format!("weights.{}", crate::text::key(name))), name));
        }
        match (&contrast.arm, &contrast.against, contrast.weights.is_empty()) {
            (Some(arm), Some(against), true) if arm == against => {
                let message = format!("`{}` is compared with itself", shown(arm));
                found.push(Finding::error("study::same-arm", at("against"), message).help("name the other arm"));
            }
            (Some(_), Some(_), true) => {}
            (None, None, false) => {
                let sum: f64 = contrast.weights.values().sum();
                if sum.abs() > 1e-9 || contrast.weights.values().all(|weight| *weight == 0.0) {
                    let message = format!("the weights add up to {sum}, so the effect is not a difference");
                    found.push(
                        Finding::error("study::bad-weights", at("weights"), message).help("make them add up to 0"),
                    );
                }
            }
            _ => {
                let message = format!("contrast `{}` does not say what is compared", shown(&contrast.name));
                let help = "give `arm` and `against`, or `weights`, not both";
                found.push(Finding::error("study::two-kinds", format!("contrast[{index}]"), message).help(help));
            }
        }
        if matches!(contrast.expected, Expected::NotWorse | Expected::Equal) && contrast.smallest_effect == 0.0 {
            let message = "without a margin nothing can be shown to be equal";
            let help = "set it to the largest difference that does not matter";
            found.push(Finding::error("study::no-margin", at("smallest_effect"), message).help(help));
        }
    }
}

fn decision(study: &Study, found: &mut Vec<Finding>) {
    let (decision, num) = (&study.decision, study.seeds.len() as u64);
    let alpha = 1.0 - decision.confidence;
    let least = 2.0 * even_binomial_cdf(0, num);
    if decision.test == TestKind::Sign && num > 1 && least >= alpha {
        let needed = (1..200).find(|seeds| 2.0 * even_binomial_cdf(0, *seeds) < alpha);
        let needed = needed.map_or_else(String::new, |seeds| format!("give at least {seeds} seeds, or "));
        let message = format!("with {num} seeds the sign test never goes below p = {least:.3}, so nothing can be held");
        let help = format!("{needed}use `test = \"paired_t\"`");
        found.push(Finding::error("study::blind-test", "decision.test", message).help(help));
    }
    if decision.test == TestKind::None && decision.held_signs.is_none() {
        let message = "without a test nothing says when an effect is there";
        found.push(Finding::error("study::no-rule", "decision.test", message).help("set `held_signs`, or a test"));
    }
    for (key, signs) in [("held_signs", decision.held_signs), ("refuted_signs", decision.refuted_signs)] {
        if let Some(signs) = signs.filter(|signs| *signs > num) {
            let message = format!("{signs} signs are asked for, but there are {num} seeds");
            let at = format!("decision.{key}");
            found.push(Finding::error("study::no-rule", at, message).help("ask for at most as many as seeds"));
        }
    }
    if let (Some(held), Some(refuted)) = (decision.held_signs, decision.refuted_signs)
        && held + refuted <= num
    {
        let message = format!("{held} seeds for and {refuted} against can both be reached by {num} seeds");
        let help = "raise one of them until they exclude each other";
        found.push(Finding::error("study::no-rule", "decision.refuted_signs", message).help(help));
    }
}

fn paper(study: &Study, found: &mut Vec<Finding>) {
    let arms = study.arm.iter().map(|arm| arm.name.as_str());
    let names: Vec<&str> = arms.chain(study.contrast.iter().map(|contrast| contrast.name.as_str())).collect();
    for (index, paper) in study.paper.iter().enumerate() {
        if let Some(name) = paper.beside.as_ref().filter(|name| !names.contains(&name.as_str())) {
            let message = format!("there is no arm or contrast `{}`", shown(name));
            let help = match nearest(name, names.iter().copied()) {
                Some(name) => format!("did you mean `{name}`?"),
                None => "name one of this file".to_owned(),
            };
            found.push(Finding::error("study::unknown-arm", format!("paper[{index}].beside"), message).help(help));
        }
    }
}

/// Metrics that a training writes.
fn reported(recipe: &Recipe) -> Vec<String> {
    let mut names: Vec<String> = ["loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "memory_bytes"]
        .map(|name| format!("train/{name}"))
        .into();
    let has_bits = matches!(recipe.objective, ObjectiveConfig::NextToken(_));
    if has_bits {
        names.push("train/bits_per_byte".to_owned());
    }
    if recipe.evaluation.is_some() {
        names.extend(["loss", "perplexity", "accuracy", "tokens", "seconds"].map(|name| format!("eval/{name}")));
        names.extend(recipe.data.weights().keys().map(|source| format!("eval/{source}/loss")));
        if has_bits {
            names.push("eval/bits_per_byte".to_owned());
            names.extend(recipe.data.weights().keys().map(|source| format!("eval/{source}/bits_per_byte")));
        }
    }
    if matches!(recipe.objective, ObjectiveConfig::Ctc(_)) {
        names.push("eval/token_error_rate".to_owned());
        let sources = recipe.data.speech.iter().flat_map(|speech| speech.source.keys().cloned());
        let tests = recipe.transcripts.iter().flat_map(|own| own.test.keys()).map(|name| format!("test/{name}"));
        let lists: Vec<String> = sources.chain(tests).map(|name| format!("{name}/")).chain([String::new()]).collect();
        for rate in ["wer", "cer", "sentence_error_rate"] {
            names.extend(lists.iter().map(|list| format!("transcripts/{list}{rate}")));
        }
    }
    names
}

/// Metrics that an evaluation writes.
fn reported_by_task(task: &str) -> Vec<String> {
    let kind = task.split(':').next().unwrap_or_default();
    let classification = ["accuracy", "acc", "macro_f1", "matthews", "loss"].as_slice();
    let tagging = ["accuracy", "acc", "precision", "recall", "f1"].as_slice();
    let rolling = ["loss", "perplexity", "token_accuracy", "bits_per_byte", "byte_perplexity"].as_slice();
    let transcripts = ["wer", "cer", "sentence_error_rate"].as_slice();
    let names: Vec<&str> = match kind {
        "transcripts" => transcripts.to_vec(),
        "classify" => classification.to_vec(),
        "choice" => vec!["accuracy", "acc", "acc_norm", "acc_bytes", "acc_tokens"],
        "text" => rolling.to_vec(),
        "tag" => tagging.to_vec(),
        _ => [classification, rolling, tagging, transcripts].concat(),
    };
    names.into_iter().map(|name| format!("eval/{name}")).collect()
}

fn check_metric(study: &Study, runs: &[(StudyRun, Option<Loaded<Recipe>>)]) -> Vec<Finding> {
    let wanted = &study.metric.name;
    let mut found = Vec::new();
    for (run, recipe) in runs.iter().filter(|(run, _)| run.is_measured) {
        let names = match (&run.work, recipe) {
            (Work::Train(_), Some(recipe)) => reported(&recipe.value),
            (Work::Eval(eval, _), _) => reported_by_task(&eval.task),
            _ => continue,
        };
        if names.iter().any(|name| name == wanted) {
            continue;
        }
        let no_evaluation =
            wanted.starts_with("eval/") && recipe.as_ref().is_some_and(|recipe| recipe.value.evaluation.is_none());
        let help = if no_evaluation {
            "its recipe has no `[evaluation]`".to_owned()
        } else {
            match nearest(wanted, names.iter().map(String::as_str)) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("it reports {}", crate::text::all_of(names.iter().map(String::as_str))),
            }
        };
        let message = format!("`{}` does not report `{}`", shown(&run.step), shown(wanted));
        found.push(Finding::error("study::unknown-metric", "metric.name", message).help(help));
    }
    found
}

#[cfg(test)]
mod tests;
