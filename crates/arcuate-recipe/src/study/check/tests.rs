//! Sound studies are silent; each mistake is found at its key.

use super::*;
use crate::load::parse_study;
use crate::testing::llama_text;

const GOOD: &str = r#"
name = "help"
claim = "pretraining helps"
refuted_if = "it does not"
seeds = [1, 2, 3]
metric = { name = "eval/loss", better = "lower", take = "last" }
budget = { steps = { of = "last_training" } }
decision = { test = "paired_t", interval = "t", confidence = 0.95, correction = "holm" }
[[shared]]
name = "pretrain"
recipe = "RECIPE"
[[arm]]
name = "scratch"
recipe = "RECIPE"
from = { "tokenizer.file.path" = "pretrain" }
[[arm]]
name = "pretrained"
[[arm.step]]
name = "tune"
recipe = "RECIPE"
from = { "tokenizer.file.path" = "pretrain", init_from = "pretrain" }
set = { "batch.microbatch" = 4, "batch.accumulate_steps" = 1 }
seed_keys = ["data.held_out_fraction"]
[[arm.step]]
name = "measure"
recipe = "RECIPE"
from = { init_from = "tune" }
[[contrast]]
name = "gain"
arm = "pretrained"
against = "scratch"
expected = "better"
smallest_effect = 0.1
"#;

/// A committee of members that are trained for each seed.
const COMMITTEE: &str = r#"
name = "soft"
claim = "many shallow are one deep"
refuted_if = "they are not"
seeds = [1, 2]
metric = { name = "eval/accuracy", better = "higher", take = "last", scale = 100.0, unit = "points" }
budget = { free = { why = "the committee trains more models" } }
decision = { test = "paired_t", interval = "t", confidence = 0.95, correction = "none" }
[[shared]]
name = "base"
recipe = "RECIPE"
per_seed = true
members = 3
[[shared]]
name = "tuned"
recipe = "RECIPE"
per_seed = true
members = 3
from = { init_from = "base" }
[[shared]]
name = "label"
command = { args = ["eval", "MODEL", "held-out", "--output", "OUT"], output = { OUT = "labels.json" } }
from = { MODEL = "teacher" }
[[shared]]
name = "teacher"
recipe = "RECIPE"
[[arm]]
name = "one"
eval = { task = "held-out", models = ["tuned"], num_models = 1 }
[[arm]]
name = "three"
eval = { task = "held-out", models = ["tuned"], combine = "mean_probability" }
[[arm]]
name = "taught"
recipe = "RECIPE"
from = { "data.source.texts.path" = "label/labels.json" }
[[contrast]]
name = "gain"
weights = { three = 1.0, one = -0.5, taught = -0.5 }
expected = "not_worse"
smallest_effect = 1.0
"#;

struct Folder {
    dir: tempfile::TempDir,
    recipe: String,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.toml");
        std::fs::write(&path, llama_text()).expect("written");
        Self { recipe: path.display().to_string(), dir }
    }

    fn study(&self, text: &str) -> Loaded<Study> {
        let text = text.replace("RECIPE", &self.recipe);
        parse_study("s.toml", &text, &[]).unwrap_or_else(|found| panic!("{}", found.render(false)))
    }

    fn codes(&self, text: &str) -> Vec<String> {
        let study = self.study(text);
        let found = check_study(&study.value);
        found.iter().map(|finding| format!("{} {}", finding.key_path, finding.code)).collect()
    }

    fn whole(&self, text: &str) -> String {
        check_whole_study(&self.study(text), &self.dir.path().join("runs/help")).found.render(false)
    }
}

/// The findings after one change to the sound study.
fn check_change(old: &str, new: &str, expected: &[&str]) {
    assert!(GOOD.contains(old), "{old}");
    assert_eq!(Folder::new().codes(&GOOD.replacen(old, new, 1)), expected, "{old} -> {new}");
}

#[test]
fn sound_studies_have_no_findings() {
    let folder = Folder::new();
    for text in [GOOD, COMMITTEE] {
        assert_eq!(folder.codes(text), Vec::<String>::new());
    }
}

#[test]
fn runs_are_shared_steps_once_and_arms_seed_by_seed() {
    let names: Vec<String> = Folder::new().study(GOOD).value.runs().into_iter().map(|run| run.name).collect();
    let expected = |seed: u32| {
        [format!("scratch-seed{seed}"), format!("pretrained.tune-seed{seed}"), format!("pretrained.measure-seed{seed}")]
    };
    let all = std::iter::once("pretrain".to_owned()).chain((1..=3).flat_map(expected));
    assert_eq!(names, all.collect::<Vec<_>>());
}

#[test]
fn a_run_takes_from_the_run_of_its_seed() {
    let study = Folder::new().study(GOOD);
    let runs = study.value.runs();
    let run = runs.iter().find(|run| run.name == "pretrained.measure-seed2").expect("a run");
    assert!(run.is_measured && run.arm.as_deref() == Some("pretrained"));
    assert_eq!(run.needs, ["pretrained.tune-seed2"]);
    let tune = runs.iter().find(|run| run.name == "pretrained.tune-seed2").expect("a run");
    let texts: Vec<String> =
        tune.overrides(Path::new("runs/help"), &study.source).into_iter().map(|change| change.text).collect();
    assert_eq!(
        texts,
        [
            "name=\"pretrained.tune-seed2\"",
            "seed=2",
            "data.held_out_fraction=2",
            "batch.accumulate_steps=1",
            "batch.microbatch=4",
            "init_from=\"runs/help/pretrain/checkpoints/best\"",
            "tokenizer={ file = { path = \"runs/help/pretrain/checkpoints/best\" } }",
        ]
    );
    let origin = &tune.overrides(Path::new("r"), &study.source)[3].origin;
    assert!(origin.starts_with("s.toml:") && origin.ends_with("(pretrained.tune)"), "{origin}");
}

#[test]
fn members_differ_in_their_seed_and_meet_in_an_evaluation() {
    let study = Folder::new().study(COMMITTEE);
    let runs = study.value.runs();
    let run = |name: &str| runs.iter().find(|run| run.name == name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(run("tuned-seed2-member3").needs, ["base-seed2-member3"]);
    let seed = |name: &str| run(name).overrides(Path::new("r"), &study.source)[1].text.clone();
    assert_eq!((seed("base-seed2-member1"), seed("base-seed2-member3")), ("seed=2".into(), "seed=2003".into()));
    let models = |name: &str| match &run(name).work {
        Work::Eval(_, models) => models.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(models("one-seed1"), ["tuned-seed1-member1"]);
    assert_eq!(models("three-seed1").len(), 3);
    assert_eq!(run("label").arguments(Path::new("r"))[1], "r/teacher/checkpoints/best");
    assert_eq!(run("label").arguments(Path::new("r"))[4], "r/label/labels.json");
    assert_eq!(run("taught-seed1").handed(Path::new("r"))[0].1, Path::new("r/label/labels.json"));
}

#[test]
fn budgets_count_what_they_say() {
    let study = Folder::new().study(COMMITTEE).value;
    let steps = |arm: &str, scope| study.budget_steps(arm, scope);
    let named = |name: &str, times| (name.to_owned(), times);
    assert_eq!(steps("three", super::super::BudgetScope::LastTraining), [named("tuned", 3)]);
    assert_eq!(steps("three", super::super::BudgetScope::Arm), []);
    assert_eq!(steps("three", super::super::BudgetScope::All), [named("tuned", 3), named("base", 3)]);
    assert_eq!(steps("taught", super::super::BudgetScope::All), [named("taught", 1), named("teacher", 1)]);
}

#[test]
fn arms_with_different_budgets_are_found() {
    let folder = Folder::new();
    let text = GOOD.replace("seed_keys = [\"data.held_out_fraction\"]", "");
    assert_eq!(folder.whole(&text), "no errors");
    let scope = text.replace("last_training", "arm");
    let found = folder.whole(&scope);
    assert!(found.contains("do not have the same steps: 50 for `scratch`, 100 for `pretrained`"), "{found}");
    let longer = text.replacen("from = { init_from = \"tune\" }", "set = { \"horizon.steps\" = 60 }", 1);
    assert!(folder.whole(&longer).contains("50 for `scratch`, 60 for `pretrained`"));
    let free = longer.replace("steps = { of = \"last_training\" }", "free = { why = \"it is about steps\" }");
    assert_eq!(folder.whole(&free), "no errors");
}

#[test]
fn mistakes_in_recipes_and_in_the_study_come_together() {
    let folder = Folder::new();
    let text = GOOD
        .replace("batch.microbatch", "batch.microbach")
        .replace("[1, 2, 3]", "[1]")
        .replace("against = \"scratch\"", "against = \"scrach\"");
    let found = folder.whole(&text);
    assert!(found.contains("unknown key `microbach`") && found.contains("s.toml:"), "{found}");
    assert!(found.contains("study::few-seeds") && found.contains("did you mean `scratch`?"), "{found}");
}

#[test]
fn a_metric_that_nobody_reports_is_found() {
    let folder = Folder::new();
    let text = GOOD.replace("seed_keys = [\"data.held_out_fraction\"]", "");
    let found = folder.whole(&text.replace("eval/loss", "eval/los"));
    assert!(found.contains("`scratch` does not report `eval/los`") && found.contains("`eval/loss`?"), "{found}");
    check_change("eval/loss", "loss", &["metric.name study::unknown-metric"]);
}

#[test]
fn seeds_must_be_several_and_different() {
    check_change("[1, 2, 3]", "[1]", &["seeds study::few-seeds"]);
    check_change("[1, 2, 3]", "[1, 1]", &["seeds study::duplicate"]);
    check_change("[1, 2, 3]", "[1, 9999999999999999]", &["seeds study::large-seed"]);
}

#[test]
fn names_are_unique_and_become_folders() {
    check_change(
        "name = \"pretrain\"",
        "name = \"scratch\"",
        &[
            "arm[0].name study::duplicate",
            "arm[0].from.\"tokenizer.file.path\" study::unknown-step",
            "arm[1].step[0].from.init_from study::unknown-step",
            "arm[1].step[0].from.\"tokenizer.file.path\" study::unknown-step",
        ],
    );
    check_change("name = \"measure\"", "name = \"tu.ne\"", &["arm[1].step[1].name recipe::bad-name"]);
    check_change(
        "name = \"scratch\"",
        "name = \"a/b\"",
        &["arm[0].name recipe::bad-name", "contrast[0].against study::unknown-arm"],
    );
    let twin = GOOD
        .replace("name = \"pretrain\"\n", "name = \"scratch-seed1\"\n")
        .replace("\"pretrain\"", "\"scratch-seed1\"");
    assert_eq!(Folder::new().codes(&twin), ["arm[0] study::duplicate"]);
}

#[test]
fn steps_take_only_from_what_is_there() {
    check_change(
        "init_from = \"tune\"",
        "init_from = \"tume\"",
        &["arm[1].step[1].from.init_from study::unknown-step"],
    );
    check_change("init_from = \"tune\"", "init_from = \"measure\"", &["arm[1].step[1] study::cycle"]);
    check_change("init_from = \"tune\"", "init_from = \"scratch\"", &[]);
    let shared = "recipe = \"RECIPE\"\n[[arm]]\nname = \"scratch\"";
    check_change(
        shared,
        &shared.replace("\n[[arm]]", "\nfrom = { init_from = \"scratch\" }\n[[arm]]"),
        &[
            "shared[0].from.init_from study::which-seed",
            "shared[0] study::cycle",
            "arm[0] study::cycle",
            "arm[1].step[0] study::cycle",
            "arm[1].step[1] study::cycle",
        ],
    );
}

#[test]
fn steps_have_exactly_one_kind_of_work() {
    check_change("recipe = \"RECIPE\"\nfrom = { init_from = \"tune\" }", "", &["arm[1].step[1] study::no-work"]);
    check_change("RECIPE", "nowhere.toml", &["shared[0].recipe recipe::unreadable"]);
    check_change("name = \"pretrained\"", "name = \"pretrained\"\nrecipe = \"RECIPE\"", &["arm[1] study::two-kinds"]);
    check_change(
        "init_from = \"tune\" }",
        "init_from = \"tune\" }\nset = { seed = 3, name = \"x\" }\nper_seed = true",
        &[
            "arm[1].step[1].per_seed study::no-use",
            "arm[1].step[1].set study::fixed-key",
            "arm[1].step[1].set study::fixed-key",
        ],
    );
}

#[test]
fn contrasts_name_arms_and_make_sense() {
    check_change("against = \"scratch\"", "against = \"pretrained\"", &["contrast[0].against study::same-arm"]);
    check_change("against = \"scratch\"", "", &["contrast[0] study::two-kinds"]);
    check_change(
        "arm = \"pretrained\"\nagainst = \"scratch\"",
        "weights = { scratch = 1.0, pretrained = 1.0 }",
        &["contrast[0].weights study::bad-weights"],
    );
    check_change(
        "\"better\"\nsmallest_effect = 0.1",
        "\"equal\"\nsmallest_effect = 0.0",
        &["contrast[0].smallest_effect study::no-margin"],
    );
    let none = GOOD.split("[[contrast]]").next().unwrap_or_default();
    assert_eq!(Folder::new().codes(none), ["contrast study::no-contrast"]);
}

#[test]
fn rules_that_can_never_hold_are_found() {
    check_change("\"paired_t\"", "\"sign\"", &["decision.test study::blind-test"]);
    check_change("\"paired_t\"", "\"none\"", &["decision.test study::no-rule"]);
    check_change("\"holm\" }", "\"holm\", held_signs = 4 }", &["decision.held_signs study::no-rule"]);
    check_change(
        "\"holm\" }",
        "\"holm\", held_signs = 2, refuted_signs = 1 }",
        &["decision.refuted_signs study::no-rule"],
    );
}

#[test]
fn committees_and_commands_are_checked() {
    let folder = Folder::new();
    let change = |old: &str, new: &str| {
        assert!(COMMITTEE.contains(old), "{old}");
        folder.codes(&COMMITTEE.replacen(old, new, 1))
    };
    assert_eq!(change(", combine = \"mean_probability\"", ""), ["arm[1].eval.models study::no-combination"]);
    assert_eq!(change("num_models = 1", "num_models = 4"), ["arm[0].eval.num_models study::few-models"]);
    assert_eq!(change("members = 3\nfrom", "members = 2\nfrom"), ["shared[1].from.init_from study::which-member"]);
    assert_eq!(change("task = \"held-out\"", "task = \"heldout\""), ["arm[0].eval.task study::unknown-task"]);
    assert_eq!(change("task = \"held-out\"", "task = \"text:no.txt\""), ["arm[0].eval.task recipe::unreadable"]);
    assert_eq!(change("\"MODEL\"", "\"MODL\""), ["shared[2].from study::no-use"]);
    assert_eq!(
        change("OUT = \"labels.json\"", "OUT = \"../labels.json\""),
        ["shared[2].command.output study::bad-file", "arm[2].from.\"data.source.texts.path\" study::bad-file",]
    );
    assert_eq!(
        change("\"label/labels.json\"", "\"label\""),
        ["arm[2].from.\"data.source.texts.path\" study::no-model"]
    );
    assert_eq!(change("\"eval\", \"MODEL\"", "\"run\", \"MODEL\""), ["shared[2].command.args study::no-work"]);
}
