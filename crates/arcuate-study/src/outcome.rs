//! A study summed up: values and cost of every arm, contrasts, verdict. It is what `results.json` holds.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arcuate_recipe::study::{BudgetConfig, MetricConfig, PaperConfig};
use arcuate_recipe::{Study, StudyRun};
use arcuate_record::statistics::{Interval, mean};
use arcuate_record::{Cost, State, write_atomic};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{ContrastOutcome, Measured, Result, Verdict, decide, measure};

/// The rule as it stood before the first run.
const RULE_FILE: &str = "rule.json";

/// One arm with what it measured and took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmOutcome {
    /// Its name.
    pub name: String,
    /// What it is, in words.
    pub words: String,
    /// The metric by seed, scaled; seeds without a value are left out.
    pub values: BTreeMap<u64, f64>,
    /// Their mean.
    pub mean: Option<f64>,
    /// The interval of the mean.
    pub interval: Option<Interval>,
    /// What its own runs took.
    pub own: Cost,
    /// What it took with all shared steps that it rests on: what it would cost alone.
    pub with_shared: Cost,
}

/// Facts about where and with what the runs were made.
pub type Facts = Vec<(String, String)>;

/// A study summed up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudyOutcome {
    /// Its name.
    pub name: String,
    /// The claim.
    pub claim: String,
    /// Where it was published.
    pub published: Option<String>,
    /// What would refute it, in words.
    pub refuted_if: String,
    /// What was measured.
    pub metric: MetricConfig,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// Held if all contrasts are, not held if one is not.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Runs that are done.
    pub num_done: usize,
    /// Runs that there are.
    pub num_runs: usize,
    /// The arms in the order of the file.
    pub arms: Vec<ArmOutcome>,
    /// The contrasts in the order of the file.
    pub contrasts: Vec<ContrastOutcome>,
    /// What the runs of each shared step took.
    pub shared: Vec<(String, Cost)>,
    /// What the study took; every run counted once.
    pub total: Cost,
    /// Parts of the rule that were changed after the first run.
    pub changed_rules: Vec<String>,
    /// All runs.
    pub runs: Vec<Measured>,
    /// Figures of the publication.
    pub paper: Vec<PaperConfig>,
    /// Versions and machine.
    pub facts: Facts,
}

/// The parts of a study that decide, by name.
fn rule(study: &Study) -> Value {
    json!({
        "claim": study.claim,
        "refuted_if": study.refuted_if,
        "seeds": study.seeds,
        "metric": study.metric,
        "budget": study.budget,
        "decision": study.decision,
        "contrast": study.contrast,
    })
}

/// Writes down the rule before the first run; a rule that stands there already stays.
pub fn freeze(study: &Study, folder: &Path) -> Result<()> {
    let path = folder.join(RULE_FILE);
    if !path.exists() {
        write_atomic(&path, format!("{:#}\n", rule(study)).as_bytes())?;
    }
    Ok(())
}

/// The parts of the rule that are not what they were before the first run.
fn changed_rules(study: &Study, folder: &Path) -> Vec<String> {
    let Ok(text) = std::fs::read_to_string(folder.join(RULE_FILE)) else { return Vec::new() };
    let Ok(Value::Object(before)) = serde_json::from_str(&text) else {
        return vec![format!("`{RULE_FILE}` cannot be read")];
    };
    let now = rule(study);
    before.iter().filter(|(key, value)| now.get(key.as_str()) != Some(value)).map(|(key, _)| key.clone()).collect()
}

/// Sums up what lies in the folder of the study, finished or not.
pub fn outcome(study: &Study, folder: &Path, facts: Facts) -> Result<StudyOutcome> {
    let runs = study.runs();
    let measured: Vec<Measured> = runs.iter().map(|run| measure(run, folder, &study.metric)).collect::<Result<_>>()?;
    let mut values: BTreeMap<String, BTreeMap<u64, f64>> = BTreeMap::new();
    for run in &measured {
        if let (Some(arm), Some(seed), Some(value)) = (&run.arm, run.seed, run.value) {
            values.entry(arm.clone()).or_default().insert(seed, value);
        }
    }
    let arms: Vec<ArmOutcome> = study
        .arm
        .iter()
        .map(|arm| {
            let values = values.get(&arm.name).cloned().unwrap_or_default();
            let list: Vec<f64> = values.values().copied().collect();
            let (own, with_shared) = costs(&runs, &measured, &arm.name);
            ArmOutcome {
                name: arm.name.clone(),
                words: arm.words.clone(),
                mean: mean(&list),
                interval: study.decision.interval.of_mean(&list, study.decision.confidence),
                values,
                own,
                with_shared,
            }
        })
        .collect();
    let blocked = unequal_seconds(study, &measured);
    let contrasts = decide(&study.contrast, &study.metric, &study.decision, &study.seeds, &values, blocked.as_deref());
    let (verdict, reason) = overall(&contrasts);
    let sum = |wanted: &dyn Fn(&Measured) -> bool| {
        let mut sum = Cost::default();
        measured.iter().filter(|run| wanted(run)).for_each(|run| sum += run.cost);
        sum
    };
    let shared =
        study.shared.iter().map(|step| (step.name.clone(), sum(&|run| run.arm.is_none() && run.step == step.name)));
    Ok(StudyOutcome {
        name: study.name.clone(),
        claim: study.claim.clone(),
        published: study.published.clone(),
        refuted_if: study.refuted_if.clone(),
        metric: study.metric.clone(),
        seeds: study.seeds.clone(),
        verdict,
        reason,
        num_done: measured.iter().filter(|run| run.state == Some(State::Done)).count(),
        num_runs: runs.len(),
        arms,
        contrasts,
        shared: shared.collect(),
        total: sum(&|_| true),
        changed_rules: changed_rules(study, folder),
        runs: measured,
        paper: study.paper.clone(),
        facts,
    })
}

/// What the runs of an arm took: alone, and with everything that they rest on.
fn costs(runs: &[StudyRun], measured: &[Measured], arm: &str) -> (Cost, Cost) {
    let mut names: BTreeSet<&str> =
        runs.iter().filter(|run| run.arm.as_deref() == Some(arm)).map(|run| run.name.as_str()).collect();
    let own_names = names.clone();
    for run in runs.iter().rev() {
        if names.contains(run.name.as_str()) {
            names.extend(run.needs.iter().map(String::as_str));
        }
    }
    let sum = |names: &BTreeSet<&str>| {
        let mut sum = Cost::default();
        measured.iter().filter(|run| names.contains(run.run.as_str())).for_each(|run| sum += run.cost);
        sum
    };
    (sum(&own_names), sum(&names))
}

/// Why the arms cannot be compared, if their time was to be the same and is not.
fn unequal_seconds(study: &Study, measured: &[Measured]) -> Option<String> {
    let BudgetConfig::Seconds(budget) = &study.budget else { return None };
    let seconds_of = |arm: &str| -> f64 {
        let steps = study.budget_steps(arm, budget.of);
        let runs = measured.iter().filter(|run| steps.iter().any(|(step, _)| *step == run.step));
        runs.map(|run| run.cost.seconds).sum()
    };
    let all: Vec<(&str, f64)> = study.arm.iter().map(|arm| (arm.name.as_str(), seconds_of(&arm.name))).collect();
    let least = all.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let most = all.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    (most.1 > least.1 * (1.0 + budget.tolerance)).then(|| {
        format!(
            "the arms did not take the same time: {:.0} s for `{}`, {:.0} s for `{}`",
            least.1, least.0, most.1, most.0
        )
    })
}

fn overall(contrasts: &[ContrastOutcome]) -> (Verdict, String) {
    let of = |verdict: Verdict| contrasts.iter().filter(move |contrast| contrast.verdict == verdict);
    let verdict = if of(Verdict::NotHeld).next().is_some() {
        Verdict::NotHeld
    } else if contrasts.is_empty() || of(Verdict::Inconclusive).next().is_some() {
        Verdict::Inconclusive
    } else {
        Verdict::Held
    };
    let told = of(verdict).map(|contrast| match contrasts.len() {
        1 => contrast.reason.clone(),
        _ => format!("{}: {}", contrast.name, contrast.reason),
    });
    (verdict, told.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::measure::tests::{folder_with, study};

    /// A study in which everything is done.
    pub(crate) fn done() -> (tempfile::TempDir, StudyOutcome) {
        let folder = folder_with(&[
            ("base", 0.1),
            ("scratch-seed1", 0.60),
            ("scratch-seed2", 0.61),
            ("scratch-seed3", 0.62),
            ("tuned-seed1", 0.68),
            ("tuned-seed2", 0.70),
            ("tuned-seed3", 0.69),
        ]);
        let study = study().value;
        freeze(&study, folder.path()).expect("writable");
        let facts = vec![("arcuate".to_owned(), "0.0.0".to_owned())];
        let outcome = outcome(&study, folder.path(), facts).expect("reads");
        (folder, outcome)
    }

    #[test]
    fn a_finished_study_has_its_verdict_and_its_cost() {
        let (_folder, outcome) = done();
        assert_eq!((outcome.verdict, outcome.num_done, outcome.num_runs), (Verdict::Held, 7, 7));
        let tuned = &outcome.arms[1];
        assert_eq!((tuned.own.tokens, tuned.with_shared.tokens, outcome.total.tokens), (3000, 4000, 7000));
        assert_eq!((tuned.values.len(), outcome.shared[0].1.steps), (3, 20));
        assert!((tuned.mean.expect("values") - 69.0).abs() < 1e-9);
        assert!(outcome.changed_rules.is_empty());
    }

    #[test]
    fn results_survive_their_file() {
        let (_folder, outcome) = done();
        let text = serde_json::to_string(&outcome).expect("plain data");
        let back: StudyOutcome = serde_json::from_str(&text).expect("the same");
        assert_eq!((back.verdict, &back.arms, &back.contrasts), (outcome.verdict, &outcome.arms, &outcome.contrasts));
    }

    #[test]
    fn an_unfinished_study_is_inconclusive() {
        let folder = folder_with(&[("scratch-seed1", 0.6), ("tuned-seed1", 0.7), ("scratch-seed2", 0.6)]);
        let outcome = outcome(&study().value, folder.path(), Facts::new()).expect("reads");
        assert_eq!((outcome.verdict, outcome.num_done), (Verdict::Inconclusive, 3));
        assert!(outcome.reason.contains("only 1 of 3 seeds"), "{}", outcome.reason);
    }

    #[test]
    fn a_rule_that_was_changed_after_the_runs_is_told() {
        let (folder, _) = done();
        let mut study = study().value;
        study.contrast[0].smallest_effect = 0.5;
        study.decision.confidence = 0.8;
        let outcome = outcome(&study, folder.path(), Facts::new()).expect("reads");
        assert_eq!(outcome.changed_rules, ["decision", "contrast"]);
        freeze(&study, folder.path()).expect("writable");
        assert_eq!(changed_rules(&study, folder.path()).len(), 2, "what was written first stays");
    }

    #[test]
    fn time_that_differs_too_much_decides_nothing() {
        let (folder, _) = done();
        let mut study = study().value;
        let budget =
            arcuate_recipe::study::SecondsBudget { of: arcuate_recipe::study::BudgetScope::All, tolerance: 0.1 };
        study.budget = BudgetConfig::Seconds(budget);
        // Both arms take six seconds: what is handed over as data was not trained on `base` by a training step.
        let equal = outcome(&study, folder.path(), Facts::new()).expect("reads");
        Cost { seconds: 9.0, ..Cost::default() }.save(&folder.path().join("scratch-seed1")).expect("writable");
        let unequal = outcome(&study, folder.path(), Facts::new()).expect("reads");
        assert_eq!(unequal.verdict, Verdict::Inconclusive);
        assert!(unequal.reason.contains("did not take the same time"), "{} {}", equal.reason, unequal.reason);
    }
}
