//! The commands beside `run` and `check`, as a user calls them: on tiny things, and with wrong input.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// Words of the tiny corpus; few enough letters for a vocabulary of 90 tokens.
const WORDS: [&str; 12] =
    ["the", "state", "of", "union", "is", "good", "and", "fellow", "citizens", "senate", "house", "peace"];

const RECIPE: &str = r#"
name = "tiny"
seed = 1
[tokenizer.wordpiece]
vocab_size = 90
[data]
held_out_fraction = 0.3
[data.source.speeches]
path = "corpus.jsonl"
label_column = "party"
[data.packing.best_fit]
[model.llama]
hidden_size = 64
num_layers = 2
num_heads = 4
num_kv_heads = 2
intermediate_size = 128
max_seq_len = 64
tie_word_embeddings = false
[objective.next_token]
[batch]
max_seq_len = 32
microbatch = 2
[optimizer.adamw]
peak_learning_rate = 1e-3
weight_decay = 0.0
[schedule.constant]
[horizon]
steps = 2
[checkpoint]
every_steps = 2
"#;

fn program(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arcuate"));
    command.args(args).current_dir(dir).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

fn arcuate(dir: &Path, args: &[&str]) -> Output {
    program(dir, args).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a call that must succeed.
fn succeeds(dir: &Path, args: &[&str]) -> String {
    let output = arcuate(dir, args);
    assert!(output.status.success(), "{args:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn json(dir: &Path, args: &[&str]) -> Value {
    let out = succeeds(dir, args);
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{args:?}: {error}\n{out}"))
}

/// A call that must end with this code and say this on standard error.
fn fails(dir: &Path, args: &[&str], code: i32, message: &str) {
    let output = arcuate(dir, args);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{errors}");
    assert!(errors.contains(message), "{args:?} says\n{errors}\nwithout `{message}`");
    assert!(!errors.contains("panicked"), "{errors}");
}

fn reference(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../arcuate-model/tests/references").join(name)
}

/// A folder with a corpus `corpus.jsonl` of 40 documents.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut corpus = String::new();
    for number in 0..40_usize {
        let words: Vec<&str> =
            (1..30).map(|at| WORDS[(number * at + number * number / at + at * at) % WORDS.len()]).collect();
        let (words, party) = (words.join(" "), if number % 2 == 0 { "whig" } else { "none" });
        let line = format!("{{\"id\": \"d{number}\", \"text\": \"{words}\", \"party\": \"{party}\"}}\n");
        corpus.push_str(&line);
    }
    write(&dir, "corpus.jsonl", corpus);
    dir
}

fn write(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) {
    fs::write(dir.path().join(name), content).expect("writable");
}

/// The same with a checkpoint `model` of the recorded tiny Llama and a tokenizer that fits it.
fn folder_with_model() -> TempDir {
    let dir = folder();
    copy_model("llama", &dir.path().join("model"));
    succeeds(dir.path(), &train("wordpiece", "90", "corpus.jsonl", "model"));
    dir
}

fn train<'a>(algorithm: &'a str, size: &'a str, input: &'a str, output: &'a str) -> [&'a str; 9] {
    ["tokenizer", "train", "--algorithm", algorithm, "--vocab-size", size, input, "--output", output]
}

fn copy_model(name: &str, to: &Path) {
    fs::create_dir_all(to).expect("writable");
    for file in ["config.json", "generation_config.json", "model.safetensors"] {
        let from = reference(name).join(file);
        if from.is_file() {
            fs::copy(from, to.join(file)).expect("copied");
        }
    }
}

/// A run folder as a training leaves it.
fn run_folder(dir: &Path, name: &str, rate: &str, loss: f64) {
    let run = dir.join("runs").join(name);
    fs::create_dir_all(&run).expect("writable");
    let recipe = format!("name = \"run\"\n\n[optimizer.adamw]\npeak_learning_rate = {rate}\n");
    fs::write(run.join("recipe.toml"), recipe).expect("writable");
    let times = "\"started\": \"2026-01-01T00:00:00Z\", \"updated\": \"2026-01-01T00:01:00Z\"";
    let status = format!("{{\"state\": \"done\", \"step\": 20, \"last_error\": null, \"pid\": 1, {times}}}");
    fs::write(run.join("status.json"), status).expect("writable");
    let line = |step: u32| {
        let loss = loss + 1.0 / f64::from(step);
        format!("{{\"step\": {step}, \"kind\": \"train\", \"loss\": {loss}}}\n")
    };
    fs::write(run.join("metrics.jsonl"), (1..=20).map(line).collect::<String>()).expect("writable");
}

#[test]
fn verify_holds_a_checkpoint_against_its_reference() {
    let dir = folder();
    let llama = reference("llama").display().to_string();
    let table = succeeds(dir.path(), &["verify", &llama, "--reference", &llama]);
    assert!(table.contains("output.logits") && table.contains("trajectory.loss"), "{table}");
    assert!(!table.contains("DIFFERS"), "{table}");
    let file = format!("{llama}/reference.safetensors");
    let result = json(dir.path(), &["verify", &llama, "--reference", &file, "--json"]);
    assert_eq!(result["holds"], true);
    assert!(result["comparisons"].as_array().expect("a list").len() > 5);
}

#[test]
fn verify_ends_with_one_where_something_differs() {
    let dir = folder();
    copy_model("llama", &dir.path().join("model"));
    let config = fs::read_to_string(reference("llama").join("config.json")).expect("readable");
    write(&dir, "model/config.json", config.replace("\"rope_theta\": 10000.0", "\"rope_theta\": 100.0"));
    let llama = reference("llama").display().to_string();
    fails(dir.path(), &["verify", "model", "--reference", &llama], 1, "comparisons differ");
    let output = arcuate(dir.path(), &["verify", "model", "--reference", &llama, "--json"]);
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(result["holds"], false);
}

#[test]
fn verify_refuses_what_is_not_there() {
    let dir = folder();
    let llama = reference("llama").display().to_string();
    fails(dir.path(), &["verify", "nowhere", "--reference", &llama], 2, "`nowhere` does not exist");
    fails(dir.path(), &["verify", &llama, "--reference", "nowhere"], 2, "there is no file `nowhere`");
    write(&dir, "r.safetensors", "no tensors");
    write(&dir, "r.json", "{}");
    fails(dir.path(), &["verify", &llama, "--reference", "r.safetensors"], 4, "r.json");
}

#[test]
fn generate_continues_a_prompt_and_repeats_itself() {
    let dir = folder_with_model();
    let args = ["generate", "model", "--prompt", "the state", "--max-new-tokens", "12"];
    let first = succeeds(dir.path(), &args);
    assert!(first.starts_with("the state") && first.len() > "the state\n".len(), "{first}");
    assert_eq!(first, succeeds(dir.path(), &args));
    let two = json(dir.path(), &[&args[..], &["--num", "2", "--json"]].concat());
    let texts: Vec<&Value> = two["generations"].as_array().expect("a list").iter().map(|one| &one["text"]).collect();
    assert_eq!(texts.len(), 2);
    assert_ne!(texts[0], texts[1]);
    assert_eq!(first, format!("the state{}\n", texts[0].as_str().expect("a text")));
}

#[test]
fn generate_reads_the_prompt_from_standard_input() {
    let dir = folder_with_model();
    let mut command = program(dir.path(), &["generate", "model", "-", "--max-new-tokens", "3", "--temperature", "0"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    child.stdin.take().expect("piped").write_all(b"fellow citizens\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert!(text(&output.stdout).starts_with("fellow citizens"), "{}", text(&output.stdout));
}

#[test]
fn generate_continues_many_prompts_alike_in_batches_of_any_size() {
    let dir = folder_with_model();
    write(&dir, "prompts.txt", "the state of the union\nfellow\n");
    write(&dir, "prompts.jsonl", "{\"prompt\": \"the state of the union\"}\n{\"prompt\": \"fellow\"}\n");
    let options = ["--num", "2", "--max-new-tokens", "9", "--json"];
    let texts = |source: &[&str], batch_size| {
        let batch = ["--batch-size", batch_size];
        let answer = json(dir.path(), &[&["generate", "model"][..], source, &options, &batch].concat());
        let list = answer["generations"].as_array().expect("a list").clone();
        assert!(answer["tokens_per_second"].as_f64().is_some_and(|rate| rate > 0.0));
        list.iter().map(|one| (one["prompt"].to_string(), one["ids"].to_string())).collect::<Vec<_>>()
    };
    let given = texts(&["--prompt", "the state of the union", "--prompt", "fellow"], "16");
    assert_eq!(given.len(), 4);
    assert_eq!((given[0].0.as_str(), given[3].0.as_str()), ("\"the state of the union\"", "\"fellow\""));
    assert_ne!(given[0].1, given[1].1);
    for (source, batch_size) in [("prompts.txt", "1"), ("prompts.jsonl", "3")] {
        assert_eq!(texts(&["--prompts", source], batch_size), given);
    }
    let shown = succeeds(dir.path(), &["generate", "model", "--prompts", "prompts.txt", "--max-new-tokens", "2"]);
    let second = shown.find("--- 2 of 2 ---\nfellow").expect("a heading and the prompt");
    assert!(shown.starts_with("--- 1 of 2 ---\nthe state of the union") && second > 0, "{shown}");
}

#[test]
fn generate_ends_quietly_when_nobody_reads() {
    let dir = folder_with_model();
    let mut command = program(dir.path(), &["generate", "model", "--prompt", "the", "--num", "50"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn generate_refuses_wrong_folders_and_values() {
    let dir = folder_with_model();
    let call = |args: &[&str], code, message: &str| {
        fails(dir.path(), &[&["generate"][..], args, &["--prompt", "the"]].concat(), code, message);
    };
    call(&["modle"], 2, "checkpoints beside it: `model`");
    call(&["corpus.jsonl"], 2, "is a file");
    call(&["."], 2, "is not a checkpoint folder");
    call(&["model", "--temperature=-1"], 2, "temperature");
    call(&["model", "--num", "0"], 2, "`--num` is 0");
    call(&["model", "--batch-size", "0"], 2, "`--batch-size` is 0");
    call(&["model", "--prompts", "nowhere.txt"], 2, "cannot read `nowhere.txt`");
    call(&["model", "-", "--prompt", "-"], 2, "named twice");
    fails(dir.path(), &["generate", "model"], 2, "--prompt");
    copy_model("bert_mlm", &dir.path().join("bert"));
    fs::copy(dir.path().join("model/tokenizer.json"), dir.path().join("bert/tokenizer.json")).expect("copied");
    call(&["bert"], 2, "not causal");
}

#[test]
fn generate_refuses_the_tokenizer_of_another_model() {
    let dir = folder();
    copy_model("llama", &dir.path().join("model"));
    let generate = ["generate", "model", "--prompt", "the"];
    fails(dir.path(), &generate, 2, "no `tokenizer.json`");
    succeeds(dir.path(), &train("byte_bpe", "300", "corpus.jsonl", "model"));
    fails(dir.path(), &generate, 4, "the tokenizer of another model");
    write(&dir, "model/model.safetensors", [0xff; 100]);
    fails(dir.path(), &generate, 4, "not a sound safetensors file");
}

#[test]
fn eval_measures_texts_and_questions() {
    let dir = folder_with_model();
    write(&dir, "story.txt", "fellow citizens of the senate and house ".repeat(20));
    let question = "{\"context\": \"the state of the\", \"choices\": [\"union\", \"house\"], \"answer\": 0}\n";
    write(&dir, "quiz.jsonl", question.repeat(5));
    let table = succeeds(dir.path(), &["eval", "model", "text:story.txt", "choice:quiz.jsonl", "--output", "r.json"]);
    assert!(table.contains("bits_per_byte") && table.contains("acc_norm"), "{table}");
    let written = fs::read_to_string(dir.path().join("r.json")).expect("written");
    let bits = |results: &Value| results["results"]["text:story.txt"]["bits_per_byte,none"].as_f64().expect("a number");
    let all = bits(&serde_json::from_str(&written).expect("JSON"));
    let one = bits(&json(dir.path(), &["eval", "model", "text:story.txt", "--microbatch", "1", "--json"]));
    assert!(all > 0.0 && (one - all).abs() < 1e-6, "{one} {all}");
}

#[test]
fn eval_measures_the_held_out_part_of_a_recipe() {
    let dir = folder_with_model();
    write(&dir, "r.toml", RECIPE);
    let result = json(dir.path(), &["eval", "model", "recipe:r.toml", "--json"]);
    let details = &result["details"]["recipe:r.toml"];
    assert!(details["bytes"].as_u64().expect("a count") > 500, "{details}");
    fails(dir.path(), &["eval", "model", "held-out"], 2, "lies in no run folder");
}

#[test]
fn eval_measures_a_classifier() {
    let dir = folder();
    copy_model("bert_classifier", &dir.path().join("model"));
    succeeds(dir.path(), &train("wordpiece", "60", "corpus.jsonl", "model"));
    let line = |label: usize| format!("{{\"text\": \"the state of peace\", \"label\": \"LABEL_{label}\"}}\n");
    write(&dir, "labelled.jsonl", (0..4).map(line).collect::<String>());
    let table = succeeds(dir.path(), &["eval", "model", "classify:labelled.jsonl"]);
    assert!(table.contains("macro_f1") && table.contains("4 documents"), "{table}");
    write(&dir, "labelled.jsonl", "{\"text\": \"the state\", \"label\": \"peace\"}\n");
    fails(dir.path(), &["eval", "model", "classify:labelled.jsonl"], 4, "`peace`");
}

#[test]
fn eval_refuses_unknown_tasks_and_broken_files() {
    let dir = folder_with_model();
    let call = |args: &[&str], code, message: &str| {
        fails(dir.path(), &[&["eval", "model"][..], args].concat(), code, message);
    };
    call(&["quiz"], 2, "there is no task `quiz`");
    call(&["text:nowhere.txt"], 2, "`nowhere.txt`");
    write(&dir, "quiz.jsonl", "{\"context\": \"a\"\n");
    call(&["choice:quiz.jsonl"], 4, "`quiz.jsonl`:1");
    call(&["classify:corpus.jsonl"], 2, "no classifier");
    call(&["text:corpus.jsonl", "text:corpus.jsonl"], 2, "named twice");
    call(&["text:corpus.jsonl", "--output", "no/folder.json"], 2, "cannot be written");
}

#[test]
fn tokenizers_are_trained_and_inspected() {
    let dir = folder();
    for algorithm in ["byte_bpe", "unigram", "wordpiece"] {
        let args = train(algorithm, "330", "corpus.jsonl", algorithm);
        let said = json(dir.path(), &[&args[..], &["--json"]].concat());
        assert!(said["bytes_per_token"].as_f64().expect("a number") > 0.5, "{said}");
        assert!(said["text_bytes"].as_u64().expect("a count") > 3000, "{said}");
        let cut = json(dir.path(), &["tokenizer", "inspect", algorithm, "the state", "--json"]);
        assert!(!cut["tokens"].as_array().expect("a list").is_empty());
    }
    let cut = succeeds(dir.path(), &["tokenizer", "inspect", "byte_bpe", "the citizens\n"]);
    assert!(cut.starts_with("│the│·citizens│↵│\n"), "{cut}");
}

#[test]
fn n_gram_models_are_trained_and_measure_texts() {
    let dir = folder();
    fs::write(dir.path().join("text.txt"), "a b\na c\n").expect("written");
    fs::write(dir.path().join("other.txt"), "a b\nd\n").expect("written");
    let train = ["lm", "train", "text.txt", "--order", "2", "--output", "lm.arpa.gz"];
    fails(dir.path(), &train, 4, "`--discount-fallback`");
    let train = [&train[..], &["--discount-fallback", "--json"]].concat();
    let said = json(dir.path(), &train);
    assert_eq!(said["ngrams"], serde_json::json!([6, 5]), "{said}");
    fails(dir.path(), &train, 2, "is not overwritten");
    let said = json(dir.path(), &["lm", "score", "lm.arpa.gz", "other.txt", "--json"]);
    // By hand: .6 .35 .65 for the first line; for the second `<s>` gives half of .1 to the unknown, and `</s>` has .3.
    let wanted = (0.6_f64 * 0.35 * 0.65 * 0.05 * 0.3).log10();
    assert!((said["log10_prob"].as_f64().expect("a number") - wanted).abs() < 1e-5, "{said}");
    assert_eq!((&said["units"], &said["unknown"], &said["sentences"]), (&3.into(), &1.into(), &2.into()));
    assert!((said["perplexity"].as_f64().expect("a number") - 10_f64.powf(-wanted / 5.0)).abs() < 1e-3, "{said}");
    assert!(succeeds(dir.path(), &["lm", "score", "lm.arpa.gz", "other.txt"]).contains("33.33%"));
    fails(dir.path(), &["lm", "score", "text.txt", "other.txt"], 4, "neither an ARPA nor a KenLM binary file");
    fails(dir.path(), &["lm", "train", "text.txt", "--order", "9", "--output", "x.arpa"], 2, "`--order`");
}

#[test]
fn tokenizers_are_measured_by_source_and_attribute() {
    let dir = folder();
    succeeds(dir.path(), &train("byte_bpe", "300", "corpus.jsonl", "t"));
    let by = succeeds(dir.path(), &["tokenizer", "inspect", "t", "--file", "corpus.jsonl", "--by", "party"]);
    assert!(by.contains("bytes/token") && by.contains("all"), "{by}");
    write(&dir, "r.toml", RECIPE);
    let rows = json(dir.path(), &["tokenizer", "inspect", "t", "--recipe", "r.toml", "--json"]);
    assert_eq!(rows[0]["source"], "speeches");
    assert_eq!(rows[0]["documents"], 40);
}

#[test]
fn tokenizer_refuses_wrong_input() {
    let dir = folder();
    fails(dir.path(), &train("byte_bpe", "100", "corpus.jsonl", "t"), 2, "--vocab-size");
    fails(dir.path(), &train("bpe", "300", "corpus.jsonl", "t"), 2, "byte_bpe");
    fails(dir.path(), &train("byte_bpe", "300", "nowhere.jsonl", "t"), 2, "`nowhere.jsonl` does not exist");
    assert!(!dir.path().join("t").exists());
    succeeds(dir.path(), &train("byte_bpe", "300", "corpus.jsonl", "t"));
    fails(dir.path(), &train("byte_bpe", "300", "corpus.jsonl", "t"), 2, "not overwritten");
    fails(dir.path(), &["tokenizer", "inspect", "nowhere", "text"], 2, "does not exist");
    fails(dir.path(), &["tokenizer", "inspect", "t", ""], 2, "empty");
    fails(dir.path(), &["tokenizer", "inspect", "t", "--file", "nowhere.txt"], 2, "does not exist");
    write(&dir, "empty.txt", "");
    fails(dir.path(), &train("byte_bpe", "300", "empty.txt", "u"), 4, "empty");
}

#[test]
fn data_stats_counts_documents_lengths_and_labels() {
    let dir = folder();
    let table = succeeds(dir.path(), &["data", "stats", "corpus.jsonl"]);
    assert!(table.contains("40") && table.contains("95%") && table.contains("nothing is wrong"), "{table}");
    write(&dir, "r.toml", RECIPE);
    succeeds(dir.path(), &train("byte_bpe", "300", "corpus.jsonl", "t"));
    let result = json(dir.path(), &["data", "stats", "r.toml", "--tokenizer", "t", "--json"]);
    let source = &result["sources"]["speeches"];
    assert_eq!(source["scan"]["documents"], 40);
    assert!(source["scan"]["held_out_documents"].as_u64().expect("a count") > 0);
    assert_eq!(source["labels"]["whig"], 20);
    assert_eq!(source["tokens_per_document"].as_array().expect("five numbers").len(), 5);
}

#[test]
fn data_stats_names_the_place_of_what_is_wrong() {
    let dir = folder();
    let lines = [
        "{\"text\": \"a\", \"id\": \"x\"}",
        "{\"text\": \"b\", \"id\": \"x\"}",
        "{\"text\": \"a\", \"id\": \"y\"}",
        "{bad",
    ];
    write(&dir, "bad.jsonl", lines.join("\n"));
    let output = arcuate(dir.path(), &["data", "stats", "bad.jsonl"]);
    assert_eq!(output.status.code(), Some(4));
    let said = text(&output.stdout);
    for wanted in ["bad.jsonl:4", "bad.jsonl:2", "duplicate text: 1 "] {
        assert!(said.contains(wanted), "{wanted} is not in\n{said}");
    }
    fails(dir.path(), &["data", "stats", "nowhere.jsonl"], 2, "`nowhere.jsonl` does not exist");
    fails(dir.path(), &["data", "stats", "nowhere.toml"], 2, "does not exist");
    fails(dir.path(), &["data", "stats"], 2, "required");
}

#[test]
fn data_fetch_lists_its_sets_and_refuses_what_is_none() {
    let dir = folder();
    let listed = succeeds(dir.path(), &["data", "fetch"]);
    for name in ["fish-fillets", "librispeech-PART", "fleurs-CODE", "common-voice-CODE"] {
        assert!(listed.contains(name), "{name}: {listed}");
    }
    let sets = json(dir.path(), &["data", "fetch", "--json"]);
    assert_eq!(sets["families"][1]["repository"], "google/fleurs");
    fails(dir.path(), &["data", "fetch", "librispeech-clean"], 2, "there is no data set `librispeech-clean`");
    fails(dir.path(), &["data", "fetch", "wordnet", "--revision", "main"], 2, "`--revision` is about");
    fails(
        dir.path(),
        &["data", "fetch", "fleurs-cs_cz", "--package", "x.deb"],
        2,
        "`--package` is a file of a package",
    );
}

#[test]
fn runs_are_listed_shown_and_compared() {
    let dir = folder();
    run_folder(dir.path(), "fast", "0.002", 3.0);
    run_folder(dir.path(), "slow", "0.0005", 4.0);
    let table = succeeds(dir.path(), &["runs", "list"]);
    assert!(table.contains("fast") && table.contains("slow") && table.contains("train/loss"), "{table}");
    assert_eq!(json(dir.path(), &["runs", "list", "--json"]).as_array().expect("a list").len(), 2);
    let shown = succeeds(dir.path(), &["runs", "show", "fast"]);
    assert!(shown.contains("done after step 20") && shown.contains("train/loss"), "{shown}");
    let compared = succeeds(dir.path(), &["runs", "compare", "fast", "slow", "--html", "c.html"]);
    assert!(compared.contains("peak_learning_rate") && compared.contains('*'), "{compared}");
    assert!(fs::read_to_string(dir.path().join("c.html")).expect("written").contains("<svg"));
    let result = json(dir.path(), &["runs", "compare", "fast", "slow", "--json"]);
    assert_eq!(result["recipe"][0]["key"], "optimizer.adamw.peak_learning_rate");
}

#[test]
fn runs_refuses_unknown_names() {
    let dir = folder();
    assert_eq!(succeeds(dir.path(), &["runs", "list"]), "");
    fails(dir.path(), &["runs", "list", "--runs-dir", "elsewhere"], 2, "there is no folder `elsewhere`");
    run_folder(dir.path(), "fast", "0.002", 3.0);
    fails(dir.path(), &["runs", "show", "fats"], 2, "the latest in `runs` are `fast`");
    fails(dir.path(), &["runs", "show", "fast", "--metric", "train/los"], 2, "no metric `train/los`");
    fails(dir.path(), &["runs", "compare", "fast"], 2, "a comparison needs at least two runs");
    write(&dir, "runs/fast/status.json", "{");
    fails(dir.path(), &["runs", "show", "fast"], 4, "is damaged");
}

#[test]
fn recipe_lists_keys_and_resolves_values() {
    let dir = folder();
    assert!(succeeds(dir.path(), &["recipe", "schema"]).contains("optimizer"));
    assert!(succeeds(dir.path(), &["recipe", "schema", "model.llama"]).contains("hidden_size: "));
    let schema = json(dir.path(), &["recipe", "schema", "model.llama", "--json"]);
    assert!(schema["properties"]["hidden_size"].is_object());
    write(&dir, "r.toml", RECIPE);
    let resolved = succeeds(dir.path(), &["recipe", "resolved", "r.toml", "--set", "batch.microbatch=3"]);
    let line = resolved.lines().find(|line| line.starts_with("microbatch = 3")).expect("the value that was set");
    assert!(line.ends_with("# --set 1"), "{line}");
    write(&dir, "again.toml", &resolved);
    let values = |file| json(dir.path(), &["recipe", "resolved", file, "--json", "--set", "batch.microbatch=3"]);
    assert_eq!(values("r.toml"), values("again.toml"));
}

#[test]
fn recipe_refuses_unknown_paths_and_keys() {
    let dir = folder();
    fails(dir.path(), &["recipe", "schema", "model.lama"], 2, "`arcuate recipe schema model`");
    fails(dir.path(), &["recipe", "resolved", "nowhere.toml"], 2, "does not exist");
    write(&dir, "r.toml", RECIPE.replace("hidden_size", "hiden_size"));
    fails(dir.path(), &["recipe", "resolved", "r.toml"], 2, "hidden_size");
}

#[test]
fn export_writes_the_public_layout_and_nothing_else() {
    let dir = folder_with_model();
    write(&dir, "model/state.json", "{}");
    let said = succeeds(dir.path(), &["export", "model", "--to", "hf", "--output", "out"]);
    assert!(said.contains("read back identical"), "{said}");
    assert!(!dir.path().join("out/state.json").exists());
    for name in
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    {
        let (ours, theirs) = (dir.path().join("model").join(name), dir.path().join("out").join(name));
        assert_eq!(fs::read(ours).expect("there"), fs::read(theirs).expect(name), "{name}");
    }
    let result = json(dir.path(), &["export", "out", "--to", "hf", "--output", "again", "--json"]);
    assert_eq!(result["identical"], true);
    assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 4, "nothing is left aside");
}

#[test]
fn export_refuses_occupied_folders_and_broken_checkpoints() {
    let dir = folder_with_model();
    let call = |from: &str, format: &str, to: &str, code, message: &str| {
        fails(dir.path(), &["export", from, "--to", format, "--output", to], code, message);
    };
    call("model", "hf", "model", 2, "is not empty");
    call("model", "hf", "corpus.jsonl", 2, "is a file");
    call("nowhere", "hf", "out", 2, "does not exist");
    call("model", "gguf", "out", 2, "possible values: hf");
    let weights = dir.path().join("model/model.safetensors");
    let bytes = fs::read(&weights).expect("readable");
    fs::write(&weights, &bytes[..bytes.len() / 2]).expect("writable");
    call("model", "hf", "out", 4, "not a sound safetensors file");
    assert!(!dir.path().join("out").exists());
}

#[test]
fn doctor_describes_the_machine() {
    let dir = folder();
    let said = succeeds(dir.path(), &["doctor"]);
    for wanted in ["arcuate", "cpu", "memory", "disk", "devices", "python3", "mpirun", "espeak-ng"] {
        assert!(said.contains(wanted), "{wanted} is not in\n{said}");
    }
    let findings = json(dir.path(), &["doctor", "--json"]);
    assert!(findings["threads"].as_u64().expect("a count") > 0);
    assert_eq!(findings["folder_is_writable"], true);
    fails(dir.path(), &["doctor", "--wrong"], 2, "--wrong");
    fails(dir.path(), &["doctor", "more"], 2, "more");
}
