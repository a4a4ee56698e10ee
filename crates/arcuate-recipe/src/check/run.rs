//! Names, lengths, evaluation, samples and frozen parameters.

use std::collections::BTreeMap;

use arcuate_model::ModelConfig;
use arcuate_objective::ObjectiveConfig;
use arcuate_train::Length;

use super::name_problem;
use crate::recipe::Recipe;
use crate::source::Finding;
use crate::text::{key, shown};

pub(super) fn name(recipe: &Recipe) -> Vec<Finding> {
    name_problem("name", &recipe.name).into_iter().collect()
}

pub(super) fn source_names(recipe: &Recipe) -> Vec<Finding> {
    let bad = |name: &&String| name.trim().is_empty() || name.len() > 100 || name.chars().any(char::is_control);
    let names = recipe.data.source.keys().filter(bad);
    names
        .map(|name| {
            let message = format!("`{}` is no name for a source", shown(name));
            Finding::error("recipe::bad-name", format!("data.source.{}", key(name)), message)
                .help("use a short name without control characters; it stands in the ledger")
        })
        .collect()
}

pub(super) fn same_texts_twice(recipe: &Recipe) -> Vec<Finding> {
    let mut first: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let mut found = Vec::new();
    for (name, source) in &recipe.data.source {
        match first.insert((&source.path, &source.text_column), name) {
            Some(other) => {
                let message = format!("the sources `{}` and `{}` read the same texts", shown(other), shown(name));
                let path = format!("data.source.{}.path", key(name));
                found.push(Finding::error("recipe::duplicate", path, message).help("raise the weight of one instead"));
            }
            None => continue,
        }
    }
    found
}

pub(super) fn horizon(recipe: &Recipe) -> Vec<Finding> {
    let (path, amount) = match recipe.horizon {
        Length::Steps(amount) => ("horizon.steps", amount),
        Length::Tokens(amount) => ("horizon.tokens", amount),
    };
    if amount > 0 {
        return Vec::new();
    }
    vec![Finding::error("recipe::impossible", path, "a run of length 0 trains nothing").help("use at least 1")]
}

pub(super) fn held_out(recipe: &Recipe) -> Vec<Finding> {
    let fraction = recipe.data.held_out_fraction;
    match &recipe.evaluation {
        Some(_) if fraction == 0.0 => {
            let message = "`[evaluation]` needs held-out documents, but held_out_fraction is 0";
            let finding = Finding::error("recipe::impossible", "data.held_out_fraction", message);
            vec![finding.help("hold out some, such as 0.05, or remove `[evaluation]`")]
        }
        None if fraction > 0.0 => {
            let message = "documents are held out, but without `[evaluation]` nobody looks at them";
            let finding = Finding::warning("recipe::unused", "data.held_out_fraction", message);
            vec![finding.help("add `[evaluation]`, or set it to 0 to train on everything")]
        }
        _ => Vec::new(),
    }
}

pub(super) fn evaluation(recipe: &Recipe) -> Vec<Finding> {
    let Some(evaluation) = &recipe.evaluation else { return Vec::new() };
    let mut found = Vec::new();
    if let Some(stride) = evaluation.stride_tokens.filter(|stride| *stride > recipe.batch.max_seq_len) {
        let message = format!("a stride of {stride} tokens skips text: rows have {} tokens", recipe.batch.max_seq_len);
        let finding = Finding::error("recipe::impossible", "evaluation.stride_tokens", message);
        found.push(finding.help(format!("use at most {}", recipe.batch.max_seq_len)));
    }
    if let Length::Steps(steps) = recipe.horizon
        && evaluation.every_steps > steps
        && steps > 0
    {
        let every = evaluation.every_steps;
        let message = format!("the run of {steps} steps ends before step {every}, so only its end is evaluated");
        let finding = Finding::warning("recipe::unused", "evaluation.every_steps", message);
        found.push(finding.help(format!("lower it to at most {steps} for a curve")));
    }
    let counts_bytes = matches!(recipe.objective, ObjectiveConfig::NextToken(_));
    if evaluation.compare_with_lzma && !counts_bytes {
        let message = format!("`{}` gives no bits per byte to compare with LZMA", recipe.objective.name());
        let finding = Finding::error("recipe::impossible", "evaluation.compare_with_lzma", message);
        found.push(finding.help("remove it, or use `[objective.next_token]`"));
    }
    found
}

pub(super) fn samples(recipe: &Recipe) -> Vec<Finding> {
    let Some(samples) = &recipe.samples else { return Vec::new() };
    let mut found = Vec::new();
    if matches!(recipe.model, ModelConfig::Bert(_)) || recipe.model.is_speech() {
        let message = format!("`{}` cannot continue texts", recipe.model.name());
        let finding = Finding::error("recipe::impossible", "samples", message);
        found.push(finding.help("remove `[samples]`, or use a causal model such as `[model.llama]`"));
    }
    if samples.prompts.is_empty() {
        let finding = Finding::warning("recipe::unused", "samples.prompts", "no prompts, so no samples");
        found.push(finding.help("add a prompt, or remove `[samples]`; the empty prompt is `\"\"`"));
    }
    if samples.sampling.repetition_penalty <= 0.0 {
        let path = "samples.sampling.repetition_penalty";
        let finding = Finding::error("recipe::impossible", path, "a repetition penalty of 0 divides by nothing");
        found.push(finding.help("1 is off, 1.2 is strong"));
    }
    found
}

/// What is wrong with a pattern of parameter names.
fn bad_pattern(path: &str, pattern: &str) -> Option<Finding> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '*' | '-');
    let is_sound = !pattern.is_empty() && pattern.chars().all(allowed);
    (!is_sound).then(|| {
        let message = format!("`{}` is no pattern of parameter names", shown(pattern));
        let finding = Finding::error("recipe::bad-pattern", path, message);
        finding.help("use names such as `model.layers.0.*`; only `*` is special")
    })
}

/// Parameters that wait, and parameters that learn at another rate.
pub(super) fn by_parameter(recipe: &Recipe) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, until) in recipe.freeze_until.iter().enumerate() {
        let path = format!("freeze_until[{index}]");
        found.extend(bad_pattern(&format!("{path}.pattern"), &until.pattern));
        if !until.pattern.is_empty() && until.pattern.chars().all(|c| c == '*') {
            let message = "all parameters are frozen, so nothing is trained at first";
            let finding = Finding::error("recipe::impossible", format!("{path}.pattern"), message);
            found.push(finding.help("name the parameters that are to wait"));
        }
        if recipe.horizon.is_reached(until.steps, 0) {
            let message = format!("the run ends before step {}, so these parameters never move", until.steps);
            let finding = Finding::error("recipe::impossible", format!("{path}.steps"), message);
            found.push(finding.help("use fewer steps, or `freeze` if they are to stay as they are"));
        }
    }
    for (index, rule) in recipe.learning_rate.iter().enumerate() {
        found.extend(bad_pattern(&format!("learning_rate[{index}].pattern"), &rule.pattern));
    }
    found
}

pub(super) fn freeze(recipe: &Recipe) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, pattern) in recipe.freeze.iter().enumerate() {
        let path = format!("freeze[{index}]");
        if let Some(finding) = bad_pattern(&path, pattern) {
            found.push(finding);
        } else if pattern.chars().all(|c| c == '*') {
            let finding =
                Finding::error("recipe::impossible", path, "all parameters are frozen, so nothing is trained");
            found.push(finding.help("name the parameters to keep as they are"));
        } else if recipe.freeze[..index].contains(pattern) {
            let finding = Finding::warning("recipe::duplicate", path, format!("`{pattern}` is listed twice"));
            found.push(finding.help("remove one"));
        }
    }
    if found.is_empty() && !recipe.freeze.is_empty() && recipe.init_from.is_none() {
        let finding = Finding::warning("recipe::unused", "freeze", "the frozen parameters keep random values");
        found.push(finding.help("give `init_from` to start from trained ones"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bert_text, llama_text, read};

    fn paths(check: fn(&Recipe) -> Vec<Finding>, text: &str) -> Vec<String> {
        check(&read(text)).into_iter().map(|finding| finding.key_path).collect()
    }

    #[test]
    fn a_name_must_be_a_folder_name() {
        assert_eq!(paths(name, &llama_text().replace("\"small\"", "\"../small\"")), ["name"]);
    }

    #[test]
    fn a_source_needs_a_name() {
        assert_eq!(paths(source_names, &llama_text().replace("source.texts", "source.\" \"")), ["data.source.\" \""]);
    }

    #[test]
    fn one_file_in_two_sources_is_found() {
        let text =
            llama_text().replace("[data.packing", "[data.source.more]\npath = \"tests/texts.jsonl\"\n[data.packing");
        assert_eq!(paths(same_texts_twice, &text), ["data.source.texts.path"]);
    }

    #[test]
    fn a_run_of_no_length_is_found() {
        assert_eq!(paths(horizon, &llama_text().replace("\nsteps = 50\n", "\ntokens = 0\n")), ["horizon.tokens"]);
    }

    #[test]
    fn evaluation_needs_held_out_documents() {
        let text = llama_text().replace("held_out_fraction = 0.1", "held_out_fraction = 0");
        assert_eq!(paths(held_out, &text), ["data.held_out_fraction"]);
        let text = llama_text().replace("[evaluation]\nevery_steps = 25\n", "");
        assert_eq!(held_out(&read(&text))[0].severity, crate::Severity::Warning);
    }

    #[test]
    fn evaluation_must_not_skip_text() {
        let text = llama_text().replace("[evaluation]", "[evaluation]\nstride_tokens = 65");
        assert_eq!(paths(evaluation, &text), ["evaluation.stride_tokens"]);
        let text = llama_text().replace("[evaluation]\nevery_steps = 25", "[evaluation]\nevery_steps = 51");
        assert_eq!(paths(evaluation, &text), ["evaluation.every_steps"]);
        let text = bert_text().replace("[evaluation]", "[evaluation]\ncompare_with_lzma = true");
        assert_eq!(paths(evaluation, &text), ["evaluation.compare_with_lzma"]);
    }

    #[test]
    fn only_causal_models_write_samples() {
        let text = format!("{}[samples]\nprompts = []\nmax_new_tokens = 4\n", bert_text());
        assert_eq!(paths(samples, &text), ["samples", "samples.prompts"]);
        let text = format!("{}[samples.sampling]\nrepetition_penalty = 0\n", llama_text());
        assert_eq!(paths(samples, &text), ["samples.sampling.repetition_penalty"]);
    }

    #[test]
    fn patterns_of_frozen_parameters_are_checked() {
        let with = |list: &str| format!("freeze = {list}\n{}", llama_text());
        assert_eq!(paths(freeze, &with("[\"a.*\", \"b[0]\", \"\", \"**\"]")), ["freeze[1]", "freeze[2]", "freeze[3]"]);
        assert_eq!(paths(freeze, &with("[\"a.*\", \"a.*\"]")), ["freeze[1]"]);
        assert_eq!(paths(freeze, &with("[\"a.*\"]")), ["freeze"]);
        assert_eq!(paths(freeze, &with("[]")), Vec::<String>::new());
    }

    #[test]
    fn parameters_that_never_move_and_bad_patterns_are_found() {
        let with = |table: &str| paths(by_parameter, &format!("{}\n{table}", llama_text()));
        let wait = |pattern: &str, steps: u64| format!("[[freeze_until]]\npattern = \"{pattern}\"\nsteps = {steps}");
        assert_eq!(with(&wait("model.*", 49)), Vec::<String>::new());
        assert_eq!(with(&wait("model.*", 50)), ["freeze_until[0].steps"]);
        assert_eq!(with(&wait("a b", 5)), ["freeze_until[0].pattern"]);
        assert_eq!(with(&wait("*", 5)), ["freeze_until[0].pattern"]);
        let rate =
            |pattern: &str| format!("[[learning_rate]]\npattern = \"{pattern}\"\nfactor = 0.5\nlayer_decay = 0.9");
        assert_eq!(with(&rate("*")), Vec::<String>::new());
        assert_eq!(with(&rate("model[0]")), ["learning_rate[0].pattern"]);
    }
}
