//! What the arms of a study may use: the same steps or tokens for all, unless the study says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use arcuate_train::HorizonConfig;

use super::runs::{StudyRun, Work};
use super::{BudgetConfig, BudgetScope, Study};
use crate::load::Loaded;
use crate::recipe::Recipe;
use crate::source::Finding;

type Runs = [(StudyRun, Option<Loaded<Recipe>>)];

impl Study {
    /// The steps whose trainings the budget of an arm counts, with how often each runs for a seed.
    pub fn budget_steps(&self, arm: &str, scope: BudgetScope) -> Vec<(String, u64)> {
        let all = self.placed();
        let Some(measured) = all.iter().position(|s| s.is_measured && s.arm.is_some_and(|a| self.arm[a].name == arm))
        else {
            return Vec::new();
        };
        let (mut seen, mut waiting, mut steps) = (BTreeSet::new(), vec![measured], Vec::new());
        while !waiting.is_empty() {
            let mut next = Vec::new();
            for index in std::mem::take(&mut waiting) {
                let step = &all[index];
                let is_counted = scope == BudgetScope::All
                    || scope == BudgetScope::LastTraining
                    || step.arm.is_some_and(|arm| arm == all[measured].arm.unwrap_or(usize::MAX));
                if !seen.insert(index) || !is_counted {
                    continue;
                }
                if step.step.recipe.is_some() {
                    steps.push((step.name.clone(), step.step.members.max(1)));
                    if scope == BudgetScope::LastTraining {
                        continue;
                    }
                }
                let names = step.references();
                let found = names.iter().filter_map(|(_, name)| self.find(&all, step, name));
                next.extend(found.filter_map(|other| all.iter().position(|step| step.key_path == other.key_path)));
            }
            waiting = next;
        }
        steps
    }
}

/// Steps and tokens of a training as planned.
fn amount(recipe: &Recipe, in_tokens: bool) -> u64 {
    let per_step = (recipe.batch.tokens_per_step() as u64).max(1);
    match (recipe.horizon, in_tokens) {
        (HorizonConfig::Steps(steps), false) => steps,
        (HorizonConfig::Steps(steps), true) => steps.saturating_mul(per_step),
        (HorizonConfig::Tokens(tokens), true) => tokens,
        (HorizonConfig::Tokens(tokens), false) => tokens.div_ceil(per_step),
    }
}

/// Findings about arms with different budgets.
pub(super) fn check_budget(study: &Study, runs: &Runs) -> Vec<Finding> {
    let (same, in_tokens, key) = match &study.budget {
        BudgetConfig::Steps(same) => (same, false, "steps"),
        BudgetConfig::Tokens(same) => (same, true, "tokens"),
        BudgetConfig::Seconds(_) | BudgetConfig::Free(_) => return Vec::new(),
    };
    let recipe_of = |step: &str| {
        let run = runs.iter().find(|(run, _)| run.step == step && matches!(run.work, Work::Train(_)))?;
        run.1.as_ref().map(|loaded| &loaded.value)
    };
    let mut amounts: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for arm in &study.arm {
        let steps = study.budget_steps(&arm.name, same.of);
        let sum = steps.iter().filter_map(|(step, times)| Some(times * amount(recipe_of(step)?, in_tokens))).sum();
        amounts.entry(sum).or_default().push(&arm.name);
    }
    if amounts.len() < 2 {
        return Vec::new();
    }
    let parts: Vec<String> = amounts
        .iter()
        .map(|(amount, arms)| format!("{amount} for {}", crate::text::all_of(arms.iter().copied())))
        .collect();
    let message = format!("the arms do not have the same {key}: {}", parts.join(", "));
    let help = "make them equal, count other trainings with `of`, or say why in `[budget.free]`";
    vec![Finding::error("study::unequal-budgets", format!("budget.{key}"), message).help(help)]
}
