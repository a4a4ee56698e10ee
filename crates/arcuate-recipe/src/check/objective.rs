//! What the objective needs from the model, the tokenizer and the data.

use arcuate_data::PackingConfig;
use arcuate_data::units::ABOUT_FILE;
use arcuate_model::ModelConfig;
use arcuate_objective::{ObjectiveConfig, masked_lm};
use arcuate_text::TokenizerConfig;

use crate::recipe::Recipe;
use crate::source::Finding;
use crate::text::{key, shown};

fn is_causal(recipe: &Recipe) -> bool {
    !(matches!(recipe.model, ModelConfig::Bert(_)) || recipe.model.is_speech())
}

/// Network, objective and data that are for speech go together, and none of them with those for text.
pub(super) fn speech(recipe: &Recipe) -> Vec<Finding> {
    let (model, objective) = (recipe.model.name(), recipe.objective.name());
    let of_speech = matches!(
        recipe.objective,
        ObjectiveConfig::Contrastive(_) | ObjectiveConfig::Ctc(_) | ObjectiveConfig::MaskedPrediction(_)
    );
    let finding = |path: String, message: String, help: &str| {
        vec![Finding::error("recipe::missing-output", path, message).help(help)]
    };
    match (recipe.model.is_speech(), of_speech, recipe.data.speech.is_some()) {
        (true, false, _) => finding(
            format!("objective.{objective}"),
            format!("`{objective}` is for texts, but `{model}` hears speech"),
            "use `[objective.contrastive]`, `[objective.masked_prediction]` or `[objective.ctc]`, or a model of texts",
        ),
        (false, true, _) => finding(
            format!("objective.{objective}"),
            format!("`{objective}` is for speech, but `{model}` reads texts"),
            "use a model that hears, such as `[model.wav2vec2]`",
        ),
        (true, true, false) => finding(
            "data".to_owned(),
            format!("`{model}` hears speech, but the sources are texts"),
            "give recordings with `[data.speech.source.NAME.format.nemo]` or another format",
        ),
        (false, false, true) => finding(
            "data.speech".to_owned(),
            format!("the sources are recordings, but `{model}` reads texts"),
            "use a model that hears, such as `[model.wav2vec2]`",
        ),
        _ if matches!(recipe.model, ModelConfig::Speecht5(_)) => finding(
            format!("model.{model}"),
            format!("`{model}` writes with a decoder, and no objective trains one yet; it can be verified"),
            "train `[model.wav2vec2]` or another model that hears samples",
        ),
        (false, false, false) if recipe.batch.max_frames.is_some() => finding(
            "batch.max_frames".to_owned(),
            "`max_frames` is for speech, and rows of text have no frames".to_owned(),
            "remove it; `max_seq_len` and `microbatch` bound what one forward pass takes",
        ),
        _ => Vec::new(),
    }
}

/// Recordings are prepared as the network hears them: as samples, or as filter banks of its width.
pub(super) fn hearing(recipe: &Recipe) -> Vec<Finding> {
    let Some(speech) = recipe.data.speech.as_ref().filter(|_| recipe.model.is_speech()) else { return Vec::new() };
    let model = recipe.model.name();
    let finding = |path: &str, message: String, help: String| {
        vec![Finding::error("recipe::missing-output", path, message).help(help)]
    };
    let banks = "data.speech.filter_banks";
    match (&recipe.model, speech.filter_banks) {
        (ModelConfig::Wav2vec2Bert(_), None) => finding(
            "data.speech",
            format!("`{model}` hears filter banks, but the recordings are read as samples"),
            "add `filter_banks = { num_mel_bins = 80, stride = 2 }`".to_owned(),
        ),
        (ModelConfig::Wav2vec2Bert(own), Some(given)) if speech.hearing().num_features() != own.num_features => {
            let (found, wanted) = (speech.hearing().num_features(), own.num_features);
            let (bins, stride) = (given.num_mel_bins, given.stride);
            finding(
                banks,
                format!("{bins} bins of {stride} frames are {found} numbers a step, but `{model}` hears {wanted}"),
                format!("correct them, or set `model.{model}.num_features` to {found}"),
            )
        }
        (ModelConfig::Wav2vec2Bert(_), Some(_)) | (_, None) => Vec::new(),
        (_, Some(_)) => {
            finding(banks, format!("`{model}` hears samples, no filter banks"), "remove `filter_banks`".to_owned())
        }
    }
}

/// Masked prediction needs the units of the recordings, and nothing else reads them.
pub(super) fn units(recipe: &Recipe) -> Vec<Finding> {
    let Some(speech) = &recipe.data.speech else { return Vec::new() };
    let path = "data.speech.units";
    let make = "make them with `arcuate data units THIS-RECIPE --num-units 100`";
    match (&recipe.objective, &speech.units) {
        (ObjectiveConfig::MaskedPrediction(_), None) => {
            let message = "`masked_prediction` predicts units, but `[data.speech]` names none";
            let finding = Finding::error("recipe::missing-units", "data.speech", message);
            vec![finding.help(format!("add `units = \"FOLDER\"`, and {make}"))]
        }
        (ObjectiveConfig::MaskedPrediction(_), Some(dir)) if !dir.join(ABOUT_FILE).is_file() => {
            let dir = shown(&dir.display().to_string());
            let message = format!("there are no units in `{dir}`: it has no `{ABOUT_FILE}`");
            vec![Finding::error("recipe::missing-units", path, message).help(make)]
        }
        (ObjectiveConfig::MaskedPrediction(_), Some(_)) | (_, None) => Vec::new(),
        (other, Some(_)) => {
            let message = format!("`{}` predicts no units, so these are not read", other.name());
            let finding = Finding::warning("recipe::unused", path, message);
            vec![finding.help("remove the key, or use `[objective.masked_prediction]`")]
        }
    }
}

pub(super) fn network(recipe: &Recipe) -> Vec<Finding> {
    let objective = recipe.objective.name();
    let model = recipe.model.name();
    let finding = |message: String, help: &str| {
        vec![Finding::error("recipe::missing-output", format!("objective.{objective}"), message).help(help)]
    };
    match (&recipe.objective, is_causal(recipe)) {
        (ObjectiveConfig::NextToken(_), false) => finding(
            format!("`next_token` needs a causal model, but `{model}` sees the tokens that follow"),
            "use `[objective.masked_lm]`, or a causal model such as `[model.llama]`",
        ),
        (ObjectiveConfig::MaskedLm(_), true) => finding(
            format!("`masked_lm` needs a model that sees both sides, but `{model}` is causal"),
            "use `[model.bert]`, or `[objective.next_token]`",
        ),
        (ObjectiveConfig::Classification(_) | ObjectiveConfig::Distillation(_) | ObjectiveConfig::Tagging(_), true) => {
            finding(
                format!("`{objective}` needs a model with a classifier, which `{model}` has not"),
                "use `[model.bert]`",
            )
        }
        _ => Vec::new(),
    }
}

/// What hides and predicts tokens, with its place in the recipe.
fn masked_lm(recipe: &Recipe) -> Option<(&'static str, &masked_lm::Config)> {
    match &recipe.objective {
        ObjectiveConfig::MaskedLm(config) => Some(("objective.masked_lm", config)),
        ObjectiveConfig::Distillation(config) => Some(("objective.distillation.masked_lm", config.masked_lm.as_ref()?)),
        _ => None,
    }
}

pub(super) fn probabilities(recipe: &Recipe) -> Vec<Finding> {
    let Some((path, config)) = masked_lm(recipe) else { return Vec::new() };
    let mut found = Vec::new();
    let sum = config.replace_with_mask + config.replace_with_random;
    if sum > 1.0 + 1e-9 {
        let message = format!("replace_with_mask and replace_with_random are {sum} together, more than 1");
        let finding = Finding::error("recipe::impossible", format!("{path}.replace_with_random"), message);
        found.push(finding.help("BERT has 0.8 and 0.1; the rest of the chosen tokens stays as it is"));
    }
    if config.mask_fraction == 0.0 {
        let message = "mask_fraction 0 leaves nothing to predict";
        let finding = Finding::error("recipe::impossible", format!("{path}.mask_fraction"), message);
        found.push(finding.help("BERT has 0.15"));
    }
    found
}

pub(super) fn prompt(recipe: &Recipe) -> Vec<Finding> {
    let ObjectiveConfig::Prompt(prompt) = &recipe.objective else { return Vec::new() };
    let finding = |(message, help): (String, String)| {
        let key = if message.contains("word") { "words" } else { "template" };
        Finding::error("recipe::impossible", format!("objective.prompt.{key}"), message).help(help)
    };
    let mut found: Vec<Finding> = prompt.problems().into_iter().map(finding).collect();
    if found.is_empty() && is_causal(recipe) && !prompt.ends_open() {
        let model = recipe.model.name();
        let message = format!("`{model}` is causal and cannot see what follows `{{mask}}`");
        let finding = Finding::error("recipe::impossible", "objective.prompt.template", message);
        found.push(finding.help("put `{mask}` last"));
    }
    found
}

pub(super) fn special_tokens(recipe: &Recipe) -> Vec<Finding> {
    let has_them = matches!(recipe.tokenizer, TokenizerConfig::Wordpiece(_) | TokenizerConfig::File(_));
    if is_causal(recipe) || recipe.model.is_speech() || has_them {
        return Vec::new();
    }
    let tokens = match recipe.objective {
        ObjectiveConfig::Prompt(_) => "`[CLS]`, `[SEP]` and `[MASK]`",
        _ if masked_lm(recipe).is_some() => "`[CLS]`, `[SEP]` and `[MASK]`",
        _ => "`[CLS]` and `[SEP]`",
    };
    let name = recipe.tokenizer.name();
    let message = format!("`{}` needs the tokens {tokens}, which `{name}` does not have", recipe.model.name());
    let help = "use `[tokenizer.wordpiece]`, or `[tokenizer.file]` with a tokenizer that has them";
    vec![Finding::error("recipe::missing-token", format!("tokenizer.{name}"), message).help(help)]
}

pub(super) fn labels(recipe: &Recipe) -> Vec<Finding> {
    let (what, column, help) = match recipe.objective {
        ObjectiveConfig::Classification(_) | ObjectiveConfig::Prompt(_) => {
            ("labels", "label_column", "the name of the column that holds the class")
        }
        ObjectiveConfig::Distillation(_) => {
            ("logits", "logits_column", "the name of the column that `arcuate data annotate` wrote, `logits`")
        }
        ObjectiveConfig::Tagging(_) => {
            ("tags", "tags_column", "the name of the column that holds a list with a tag for each word")
        }
        ObjectiveConfig::Contrastive(_)
        | ObjectiveConfig::Ctc(_)
        | ObjectiveConfig::MaskedLm(_)
        | ObjectiveConfig::MaskedPrediction(_)
        | ObjectiveConfig::NextToken(_) => return Vec::new(),
    };
    let objective = recipe.objective.name();
    let without = recipe.data.source.iter().filter(|(_, source)| match recipe.objective {
        ObjectiveConfig::Distillation(_) => source.logits_column.is_none(),
        ObjectiveConfig::Tagging(_) => source.tags_column.is_none(),
        _ => source.label_column.is_none(),
    });
    without
        .map(|(name, _)| {
            let message = format!("`{objective}` needs {what}, but this source has no `{column}`");
            Finding::error("recipe::missing-column", format!("data.source.{}", key(name)), message)
                .help(format!("add `{column} = \"...\"` with {help}"))
        })
        .collect()
}

pub(super) fn packing(recipe: &Recipe) -> Vec<Finding> {
    if !recipe.objective.is_classification() || matches!(recipe.data.packing, PackingConfig::Document(_)) {
        return Vec::new();
    }
    let name = recipe.data.packing.name();
    let objective = recipe.objective.name();
    let message = format!("`{objective}` needs one document a row, but `{name}` puts several in one");
    let finding = Finding::error("recipe::impossible", format!("data.packing.{name}"), message);
    vec![finding.help("use `[data.packing.document]`")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{bert_text, classifier_text, llama_text, read};

    fn paths(check: fn(&Recipe) -> Vec<Finding>, text: &str) -> Vec<String> {
        check(&read(text)).into_iter().map(|finding| finding.key_path).collect()
    }

    #[test]
    fn speech_and_texts_do_not_mix() {
        let heard = include_str!("../../../../recipes/tiny_ctc.toml");
        assert_eq!(paths(speech, heard), Vec::<String>::new());
        assert_eq!(paths(speech, &llama_text()), Vec::<String>::new());
        assert_eq!(paths(speech, &with_objective(heard, "[objective.next_token]\n")), ["objective.next_token"]);
        let ctc = "[objective.ctc]\nzero_infinity = true\n";
        assert_eq!(paths(speech, &with_objective(&llama_text(), ctc)), ["objective.ctc"]);
        let bounded = llama_text().replace("[batch]", "[batch]\nmax_frames = 100");
        assert_eq!(paths(speech, &bounded), ["batch.max_frames"]);
        let (start, rest) = heard.split_once("[data.speech]").unwrap_or_default();
        let (_, end) = rest.split_once("[data.packing").unwrap_or_default();
        let read = format!("{start}[data.source.a]\npath = \"a.jsonl\"\n[data.packing{end}");
        assert_eq!(paths(speech, &read), ["data"]);
        let (start, rest) = heard.split_once("[model.wav2vec2]").unwrap_or_default();
        let (keys, end) = rest.split_once("[objective").unwrap_or_default();
        let keys = keys.replace("pre_norm = true", "");
        let decoder = "[model.speecht5.decoder]\nnum_layers = 1\nnum_heads = 4\nintermediate_size = 64\n";
        let written = format!("{start}[model.speecht5]{keys}{decoder}[objective{end}");
        assert_eq!(paths(speech, &written), ["model.speecht5"]);
    }

    #[test]
    fn filter_banks_belong_to_networks_that_hear_them() {
        let banks = include_str!("../../../../recipes/tiny_bert_ctc.toml");
        let samples = include_str!("../../../../recipes/tiny_ctc.toml");
        let given = "filter_banks = { num_mel_bins = 40, stride = 2 }\n";
        assert!(banks.contains(given));
        assert_eq!(paths(speech, banks), Vec::<String>::new());
        for text in [banks, samples] {
            assert_eq!(paths(hearing, text), Vec::<String>::new());
        }
        assert_eq!(paths(hearing, &banks.replace(given, "")), ["data.speech"]);
        assert_eq!(paths(hearing, &banks.replace("stride = 2", "stride = 3")), ["data.speech.filter_banks"]);
        let wrong = samples.replace("[data.speech]\n", &format!("[data.speech]\n{given}"));
        assert_eq!(paths(hearing, &wrong), ["data.speech.filter_banks"]);
    }

    #[test]
    fn masked_prediction_needs_units_and_nothing_else_does() {
        let heard = include_str!("../../../../recipes/tiny_hubert.toml");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let in_dir = format!("{:?}", dir.path().display().to_string());
        let named = heard.replace("\"runs/tiny-units\"", &in_dir);
        assert_ne!(named, heard);
        assert_eq!(paths(units, &named), ["data.speech.units"]);
        std::fs::write(dir.path().join(ABOUT_FILE), "{}").expect("written");
        assert_eq!(paths(units, &named), Vec::<String>::new());
        assert_eq!(paths(speech, &named), Vec::<String>::new());
        assert_eq!(paths(units, &named.replace(&format!("units = {in_dir}\n"), "")), ["data.speech"]);
        let other = with_objective(&named, "[objective.ctc]\nzero_infinity = true\n");
        assert_eq!(units(&read(&other))[0].message, "`ctc` predicts no units, so these are not read");
        assert_eq!(paths(units, include_str!("../../../../recipes/tiny_ctc.toml")), Vec::<String>::new());
        assert_eq!(paths(units, &llama_text()), Vec::<String>::new());
    }

    fn with_objective(text: &str, objective: &str) -> String {
        let (start, rest) = text.split_once("[objective.").unwrap_or_default();
        let (_, end) = rest.split_once("[batch]").unwrap_or_default();
        format!("{start}{objective}\n[batch]{end}")
    }

    #[test]
    fn each_objective_needs_its_kind_of_model() {
        let masked = "[objective.masked_lm]\nmask_fraction = 0.15\nreplace_with_mask = 0.8\nreplace_with_random = 0.1";
        assert_eq!(paths(network, &with_objective(&llama_text(), masked)), ["objective.masked_lm"]);
        assert_eq!(paths(network, &with_objective(&bert_text(), "[objective.next_token]")), ["objective.next_token"]);
        let text = with_objective(&llama_text(), "[objective.classification]");
        assert_eq!(paths(network, &text), ["objective.classification"]);
    }

    #[test]
    fn probabilities_above_one_are_found() {
        let text = bert_text().replace("replace_with_random = 0.1", "replace_with_random = 0.3");
        assert_eq!(paths(probabilities, &text), ["objective.masked_lm.replace_with_random"]);
        let text = bert_text().replace("replace_with_random = 0.1", "replace_with_random = 0.2");
        assert_eq!(paths(probabilities, &text), Vec::<String>::new());
        let text = bert_text().replace("mask_fraction = 0.15", "mask_fraction = 0");
        assert_eq!(paths(probabilities, &text), ["objective.masked_lm.mask_fraction"]);
    }

    #[test]
    fn a_masked_model_needs_a_mask_token() {
        assert_eq!(paths(special_tokens, &bert_text().replace("wordpiece", "unigram")), ["tokenizer.unigram"]);
        let masked = "[objective.distillation]\ntarget = \"logits\"\n[objective.distillation.masked_lm]\nmask_fraction = 0.0\nreplace_with_mask = 0.8\nreplace_with_random = 0.1";
        let text = with_objective(&bert_text(), masked);
        assert_eq!(paths(probabilities, &text), ["objective.distillation.masked_lm.mask_fraction"]);
        let found = special_tokens(&read(&text.replace("wordpiece", "unigram")));
        assert!(found[0].message.contains("[MASK]"), "{}", found[0].message);
    }

    #[test]
    fn a_classifier_needs_labels() {
        let text = classifier_text().replace("label_column = \"party\"", "");
        assert_eq!(paths(labels, &text), ["data.source.texts"]);
    }

    #[test]
    fn a_tagger_needs_tags_whole_documents_and_both_sides() {
        let text = with_objective(&classifier_text(), "[objective.tagging]\ncrf = true");
        assert_eq!(paths(labels, &text), ["data.source.texts"]);
        let tagged = text.replace("label_column = \"party\"", "tags_column = \"tags\"");
        for check in [labels, packing, network, special_tokens] {
            assert_eq!(paths(check, &tagged), Vec::<String>::new());
        }
        assert_eq!(paths(packing, &tagged.replace("packing.document", "packing.best_fit")), ["data.packing.best_fit"]);
        assert_eq!(paths(special_tokens, &tagged.replace("wordpiece", "unigram")), ["tokenizer.unigram"]);
        let text = with_objective(&llama_text(), "[objective.tagging]");
        assert_eq!(paths(network, &text), ["objective.tagging"]);
    }

    #[test]
    fn a_classifier_needs_one_document_a_row() {
        let text = classifier_text().replace("packing.document", "packing.concatenate");
        assert_eq!(paths(packing, &text), ["data.packing.concatenate"]);
    }
}
