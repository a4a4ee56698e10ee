//! What each component says about its own values, put under its key path.

use crate::recipe::Recipe;
use crate::source::Finding;
use crate::text::key;

fn values(table: &str, problems: Vec<(&'static str, String)>) -> Vec<Finding> {
    problems.into_iter().map(|(key, message)| value(format!("{table}.{key}"), &message)).collect()
}

/// The components write "what is wrong; what to do".
fn value(key_path: String, message: &str) -> Finding {
    match message.rsplit_once("; ") {
        Some((what, remedy)) => Finding::error("recipe::bad-value", key_path, what).help(remedy),
        None => Finding::error("recipe::bad-value", key_path, message),
    }
}

pub(super) fn tokenizer(recipe: &Recipe) -> Vec<Finding> {
    values(&format!("tokenizer.{}", recipe.tokenizer.name()), recipe.tokenizer.check())
}

pub(super) fn data(recipe: &Recipe) -> Vec<Finding> {
    let problems = recipe.data.check().into_iter();
    problems
        .map(|problem| {
            let key_path = source_path(&problem.key, recipe);
            let name = problem.key.rsplit('.').next().unwrap_or_default();
            Finding::error("recipe::bad-value", key_path, format!("`{name}` {}", problem.message)).help(problem.help)
        })
        .collect()
}

/// The key path with the source's name quoted where TOML needs it.
fn source_path(path: &str, recipe: &Recipe) -> String {
    let inside = |name: &&String| path.strip_prefix("data.source.").is_some_and(|rest| rest.starts_with(name.as_str()));
    match recipe.data.source.keys().filter(inside).max_by_key(|name| name.len()) {
        Some(name) => format!("data.source.{}{}", key(name), &path["data.source.".len() + name.len()..]),
        None => path.to_owned(),
    }
}

pub(super) fn batch(recipe: &Recipe) -> Vec<Finding> {
    values("batch", recipe.batch.check())
}

pub(super) fn optimizer(recipe: &Recipe) -> Vec<Finding> {
    values(&format!("optimizer.{}", recipe.optimizer.name()), recipe.optimizer.check())
}

pub(super) fn schedule(recipe: &Recipe) -> Vec<Finding> {
    values(&format!("schedule.{}", recipe.schedule.name()), recipe.schedule.check(recipe.horizon))
}

pub(super) fn checkpoint(recipe: &Recipe) -> Vec<Finding> {
    values("checkpoint", recipe.checkpoint.check())
}

pub(super) fn guard(recipe: &Recipe) -> Vec<Finding> {
    values("guard", recipe.guard.check())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{llama_text, read};

    fn found(check: fn(&Recipe) -> Vec<Finding>, from: &str, to: &str) -> String {
        let text = llama_text();
        assert!(text.contains(from), "{from}");
        let found = check(&read(&text.replace(from, to)));
        found
            .iter()
            .map(|f| format!("{}: {} [{}]", f.key_path, f.message, f.help.clone().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn a_warmup_longer_than_the_run_names_its_key() {
        let message = found(schedule, "{ steps = 5 }", "{ steps = 51 }");
        assert!(message.starts_with("schedule.cosine.warmup: `warmup` of 51 steps is longer"), "{message}");
        assert!(message.contains("[shorten it or lengthen the horizon]"), "{message}");
    }

    #[test]
    fn a_tokenizer_without_room_for_special_tokens_is_found() {
        let message = found(tokenizer, "vocab_size = 512", "vocab_size = 512\npad_token = \"\"");
        assert!(message.starts_with("tokenizer.byte_bpe.pad_token: "), "{message}");
    }

    #[test]
    fn a_recipe_without_sources_is_found() {
        let text = llama_text().replace("[data.source.texts]\npath = \"tests/texts.jsonl\"", "[data.source]");
        assert_eq!(data(&read(&text))[0].key_path, "data.source");
    }

    #[test]
    fn a_source_with_an_odd_name_keeps_its_path() {
        let message = found(data, "texts]\n", "\"a.b c\"]\nweight = 0.0\n");
        assert!(message.starts_with("data.source.\"a.b c\".weight: `weight` is 0"), "{message}");
    }

    #[test]
    fn a_learning_rate_of_zero_is_found() {
        let message = found(optimizer, "peak_learning_rate = 2e-3", "peak_learning_rate = 0.0");
        assert!(message.starts_with("optimizer.adamw.peak_learning_rate: "), "{message}");
    }

    #[test]
    fn checkpoints_that_are_never_kept_are_found() {
        let message = found(checkpoint, "[checkpoint]", "[checkpoint]\nkeep_every_steps = 30");
        assert!(message.starts_with("checkpoint.keep_every_steps: "), "{message}");
    }

    #[test]
    fn a_batch_beyond_all_memory_is_found() {
        let message = found(batch, "microbatch = 2", "microbatch = 2000000000");
        assert!(message.starts_with("batch.max_seq_len: "), "{message}");
    }

    #[test]
    fn a_rollback_to_a_rate_of_zero_is_found() {
        let message = found(guard, "[checkpoint]", "[guard]\nrollback_learning_rate_factor = 0\n[checkpoint]");
        assert!(message.starts_with("guard.rollback_learning_rate_factor: "), "{message}");
    }
}
