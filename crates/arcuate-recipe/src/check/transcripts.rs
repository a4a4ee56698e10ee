//! The `[transcripts]` table: its values, whether anything is transcribed, its files.

use arcuate_data::speech::SpeechFormat;
use arcuate_objective::ObjectiveConfig;

use crate::load::missing_file;
use crate::recipe::Recipe;
use crate::source::Finding;
use crate::text::{key, shown};

pub(super) fn values(recipe: &Recipe) -> Vec<Finding> {
    let Some(transcripts) = &recipe.transcripts else { return Vec::new() };
    let quoted = |path: &str| {
        let inside = |name: &&String| path.strip_prefix("test.").is_some_and(|rest| rest.starts_with(name.as_str()));
        match transcripts.test.keys().filter(inside).max_by_key(|name| name.len()) {
            Some(name) => format!("test.{}{}", key(name), &path["test.".len() + name.len()..]),
            None => path.to_owned(),
        }
    };
    let problems = transcripts.check().into_iter();
    problems
        .map(|(path, message, help)| {
            Finding::error("recipe::bad-value", format!("transcripts.{}", quoted(&path)), message).help(help)
        })
        .collect()
}

pub(super) fn use_of(recipe: &Recipe) -> Vec<Finding> {
    let Some(transcripts) = &recipe.transcripts else { return Vec::new() };
    if !matches!(recipe.objective, ObjectiveConfig::Ctc(_)) {
        let message = format!("`{}` teaches no network to write, so there are no transcripts", recipe.objective.name());
        let finding = Finding::error("recipe::impossible", "transcripts", message);
        return vec![finding.help("remove the table, or use `[objective.ctc]`")];
    }
    if recipe.data.held_out_fraction == 0.0 && transcripts.test.is_empty() {
        let message = "nothing is held out and no test is named, so nothing is transcribed";
        let finding = Finding::warning("recipe::unused", "transcripts", message);
        return vec![finding.help("set `data.held_out_fraction`, or add `[transcripts.test.NAME]`")];
    }
    Vec::new()
}

pub(super) fn files(recipe: &Recipe) -> Vec<Finding> {
    let Some(transcripts) = &recipe.transcripts else { return Vec::new() };
    let model = transcripts.language_model.iter().flat_map(|model| model.texts.iter().enumerate());
    let texts = model.map(|(at, path)| (format!("transcripts.language_model.texts[{at}]"), path.clone()));
    let is_pattern = |path: &str| path.contains(['*', '?', '[']);
    let tests = transcripts.test.iter().filter_map(|(name, source)| {
        let path = source.format.path();
        let format: &SpeechFormat = &source.format;
        let place = format!("transcripts.test.{}.format.{}.path", key(name), format.name());
        (!path.is_empty() && !is_pattern(path)).then(|| (place, path.into()))
    });
    texts
        .chain(tests)
        .filter(|(_, path)| !path.exists())
        .map(|(place, path)| {
            let message = format!("`{}` does not exist", shown(&path.display().to_string()));
            Finding::error("recipe::missing-file", place, message).help(missing_file(&path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::check;
    use crate::testing::{llama_text, read};

    const CTC: &str = "[objective.ctc]\nzero_infinity = true\n";

    /// Key paths of what is said about transcripts.
    fn found(objective: &str, table: &str) -> Vec<String> {
        let text = llama_text().replace("[objective.next_token]\n", objective);
        let found = check(&read(&format!("{text}\n{table}")));
        found.into_iter().map(|finding| finding.key_path).filter(|path| path.starts_with("transcripts")).collect()
    }

    #[test]
    fn only_ctc_writes_transcripts() {
        assert_eq!(found("[objective.next_token]\n", "[transcripts]\n"), ["transcripts"]);
        assert_eq!(found(CTC, "[transcripts]\n"), Vec::<String>::new());
    }

    #[test]
    fn values_and_files_are_found_by_their_place() {
        let table = "[transcripts.decoder.prefix_beam]\nbeam_width = 0\n[transcripts.language_model]\norder = 9\nweight = 1.0\n\
                     word_score = 0.0\ntexts = [\"tests/none.txt\"]\n[transcripts.test.\"a b\"]\nweight = 0.0\n\
                     format.nemo.path = \"tests/none.jsonl\"\n";
        let expected = [
            "transcripts.decoder.prefix_beam",
            "transcripts.language_model.order",
            "transcripts.test.\"a b\".weight",
            "transcripts.language_model.texts[0]",
            "transcripts.test.\"a b\".format.nemo.path",
        ];
        assert_eq!(found(CTC, table), expected);
    }

    #[test]
    fn transcripts_of_nothing_are_warned_about() {
        let text = llama_text()
            .replace("[objective.next_token]\n", CTC)
            .replace("held_out_fraction = 0.1", "held_out_fraction = 0.0");
        let found = use_of(&read(&format!("{text}\n[transcripts]\n")));
        assert!(found[0].message.contains("nothing is transcribed"), "{found:?}");
    }
}
