//! Sound recipes that tests change in one place.

use crate::load::parse_recipe;
use crate::recipe::Recipe;

/// A causal model; its text file lies in this crate.
pub(crate) fn llama_text() -> String {
    r#"name = "small"
seed = 17
precision = "f32"

[tokenizer.byte_bpe]
vocab_size = 512

[data]
held_out_fraction = 0.1
[data.source.texts]
path = "tests/texts.jsonl"
[data.packing.best_fit]

[model.llama]
hidden_size = 64
num_layers = 2
num_heads = 4
intermediate_size = 128
max_seq_len = 128
tie_word_embeddings = true

[objective.next_token]

[batch]
max_seq_len = 64
microbatch = 2

[optimizer.adamw]
peak_learning_rate = 2e-3
weight_decay = 0.1
[schedule.cosine]
warmup = { steps = 5 }
[horizon]
steps = 50

[checkpoint]
every_steps = 25
[evaluation]
every_steps = 25
[samples]
prompts = ["Fellow"]
max_new_tokens = 16
"#
    .to_owned()
}

/// A masked model.
pub(crate) fn bert_text() -> String {
    let text = llama_text();
    let (start, rest) = text.split_once("[model.llama]").unwrap_or_default();
    let (_, end) = rest.split_once("[batch]").unwrap_or_default();
    let (end, _) = end.split_once("[samples]").unwrap_or_default();
    let start = start.replace("byte_bpe", "wordpiece");
    let model =
        "[model.bert]\nhidden_size = 64\nnum_layers = 2\nnum_heads = 4\nintermediate_size = 128\nmax_seq_len = 128\n";
    let objective = "[objective.masked_lm]\nmask_fraction = 0.15\nreplace_with_mask = 0.8\nreplace_with_random = 0.1\n";
    format!("{start}{model}{objective}[batch]{end}")
}

/// A classifier.
pub(crate) fn classifier_text() -> String {
    let text = bert_text().replace("best_fit", "document");
    let text = text.replace("texts.jsonl\"", "texts.jsonl\"\nlabel_column = \"party\"");
    let (start, rest) = text.split_once("[objective.masked_lm]").unwrap_or_default();
    let (_, end) = rest.split_once("[batch]").unwrap_or_default();
    format!("{start}[objective.classification]\n[batch]{end}")
}

/// Types a text that must be sound.
pub(crate) fn read(text: &str) -> Recipe {
    match parse_recipe("a.toml", text, &[]) {
        Ok(loaded) => loaded.value,
        Err(found) => panic!("{found}"),
    }
}
