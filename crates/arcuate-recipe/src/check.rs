//! What can be wrong with a well-typed recipe, found without reading data: all findings at once, by key path.

use crate::recipe::Recipe;
use crate::source::Finding;
use crate::text::shown;

mod files;
mod model;
mod objective;
mod run;
mod transcripts;
mod values;

/// Longest name of a run or step, in bytes; it becomes a folder.
const MAX_NAME_BYTES: usize = 100;

type Check = fn(&Recipe) -> Vec<Finding>;

/// All checks; each looks at one thing.
const CHECKS: &[Check] = &[
    run::name,
    values::tokenizer,
    values::data,
    values::batch,
    values::optimizer,
    values::schedule,
    values::checkpoint,
    values::guard,
    model::heads,
    model::kv_heads,
    model::head_width,
    model::positions,
    model::rope_scaling,
    model::conv_front,
    objective::network,
    objective::speech,
    objective::hearing,
    objective::units,
    objective::probabilities,
    objective::special_tokens,
    objective::labels,
    objective::packing,
    objective::prompt,
    run::source_names,
    run::same_texts_twice,
    run::horizon,
    run::held_out,
    run::evaluation,
    run::samples,
    transcripts::values,
    transcripts::use_of,
    transcripts::files,
    run::freeze,
    run::by_parameter,
    files::init_from,
    files::sources,
    files::augmentation,
];

/// All semantic findings of a recipe.
pub fn check(recipe: &Recipe) -> Vec<Finding> {
    CHECKS.iter().flat_map(|check| check(recipe)).collect()
}

/// What is wrong with a name that becomes a folder.
pub(crate) fn name_problem(key_path: &str, name: &str) -> Option<Finding> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    let message = if name.is_empty() {
        "the name is empty".to_owned()
    } else if name.len() > MAX_NAME_BYTES {
        format!("the name is {} bytes long, more than {MAX_NAME_BYTES}", name.len())
    } else if name.starts_with(['.', '-']) {
        format!("the name `{}` begins with `{}`", shown(name), &name[..1])
    } else if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        format!("the name `{}` contains `{}`", shown(name), shown(&c.to_string()))
    } else {
        return None;
    };
    let help = "it becomes a folder: use letters, digits, `-`, `_` and `.`";
    Some(Finding::error("recipe::bad-name", key_path, message).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bert_text, classifier_text, llama_text, read};

    #[test]
    fn sound_recipes_have_no_findings() {
        for text in [llama_text(), bert_text(), classifier_text()] {
            assert_eq!(check(&read(&text)), [], "{text}");
        }
    }

    #[test]
    fn all_findings_come_at_once() {
        let text = llama_text().replace("num_heads = 4", "num_heads = 5").replace("{ steps = 5 }", "{ steps = 500 }");
        let found = check(&read(&text.replace("\"small\"", "\"a/b\"")));
        let paths: Vec<&str> = found.iter().map(|finding| finding.key_path.as_str()).collect();
        assert_eq!(paths, ["name", "schedule.cosine.warmup", "model.llama.num_heads"]);
    }

    #[test]
    fn names_must_be_sound_folder_names() {
        for name in ["a", "bert-tiny_1.0", "étude"] {
            assert_eq!(name_problem("name", name), None, "{name}");
        }
        for name in ["", ".", "..", "a/b", "-x", "a b", "a\u{0}", &"x".repeat(101)] {
            assert!(name_problem("name", name).is_some(), "{name}");
        }
    }
}
