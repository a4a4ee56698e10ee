//! From a few labels to many: draw, train, annotate, learn from the annotations, and prompts, on the built program.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a temporary folder"));
        // Animals are furry and plants are green, in different words.
        let (mut text, words) = (String::new(), ["old", "big", "small", "wild", "rare", "young", "grey"]);
        for i in 0..280 {
            let (class, noun) = if i % 2 == 0 { ("animal", "furry animal") } else { ("plant", "green plant") };
            let (one, two) = (words[i % 7], words[(i / 7) % 7]);
            text += &format!(
                "{{\"id\": \"{i}\", \"text\": \"a {one} {two} {noun} number {i}\", \"label\": \"{class}\"}}\n"
            );
        }
        std::fs::write(folder.path("all.jsonl"), text).expect("writable");
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arcuate"));
        command.current_dir(self.0.path()).args(words).output().expect("it starts")
    }

    fn done(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}\n{}", text(&output));
        text(&output)
    }

    fn recipe(&self, name: &str, source: &str, objective: &str, more: &str) -> String {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../methods/prompt_continued_pretraining/tiny.toml");
        let tiny = std::fs::read_to_string(tiny).expect("it is in the tree");
        let (start, rest) = tiny.split_once("[data.source.addresses]").expect("a source");
        let (_, rest) = rest.split_once("[data.packing").expect("packing");
        let (middle, rest) = rest.split_once("[objective").expect("an objective");
        let (_, end) = rest.split_once("[batch]").expect("a batch");
        let start = start.replace("name = \"prompt_continued_pretraining\"", &format!("name = \"{name}\"\n{more}"));
        let text = format!("{start}[data.source.texts]\n{source}\n[data.packing{middle}{objective}\n[batch]{end}");
        let path = self.path(&format!("{name}.toml"));
        std::fs::write(&path, text).expect("writable");
        path.display().to_string()
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(name)).expect("readable");
        text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const LABELLED: &str = "path = \"few.jsonl\"\nlabel_column = \"label\"\n";

#[test]
fn predictions_of_a_few_labels_teach_another_model() {
    let folder = Folder::new();
    let draw = ["data", "draw", "all.jsonl", "--label-column", "label", "--part", "test=20/class"];
    folder.done(&[&draw[..], &["--part", "few=30/class", "--part", "pool=rest", "--to", "."]].concat());
    assert_eq!((folder.lines("test.jsonl").len(), folder.lines("pool.jsonl").len()), (40, 180));
    let teacher = folder.recipe("teacher", LABELLED, "[objective.classification]\n", "");
    folder.done(&["run", &teacher]);
    folder.done(&["data", "annotate", "runs/teacher/checkpoints/best", "pool.jsonl", "--output", "said.jsonl"]);
    let said = folder.lines("said.jsonl");
    assert_eq!(said.len(), 180);
    let classes: Vec<&String> = said[0]["logits"].as_object().expect("by class").keys().collect();
    assert_eq!(classes, ["animal", "plant"]);
    let about = folder.lines_of("said.annotation.json");
    assert!(about["scorer"].as_str().is_some_and(|hash| hash.starts_with(said[0]["scorer"].as_str().expect("a hash"))));
    folder.done(&[
        "data",
        "annotate",
        "runs/teacher/checkpoints/best",
        "pool.jsonl",
        "--output",
        "top.jsonl",
        "--top-per-class",
        "1",
    ]);
    assert_eq!(folder.lines("top.jsonl").len(), 2);
    let source = "path = \"said.jsonl\"\nlogits_column = \"logits\"\n";
    let tokenizer = "[tokenizer.wordpiece]\nvocab_size = 1024\n";
    let student = folder.recipe("student", source, "[objective.distillation]\ntarget = \"logits\"\n", "");
    let text = std::fs::read_to_string(&student).expect("readable");
    let handed = "[tokenizer.file]\npath = \"runs/teacher/checkpoints/best\"\n";
    std::fs::write(&student, text.replace(tokenizer, handed)).expect("writable");
    folder.done(&["run", &student]);
    let result = folder.done(&["eval", "runs/student/checkpoints/best", "classify:test.jsonl"]);
    assert!(result.contains("acc"), "{result}");
    // Of a model that is no classifier nothing can be said.
    let output = folder.run(&["data", "annotate", "runs/nothing", "pool.jsonl", "--output", "x.jsonl"]);
    assert_eq!(output.status.code(), Some(2), "{}", self::text(&output));
}

impl Folder {
    fn lines_of(&self, name: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.path(name)).expect("readable")).expect("JSON")
    }
}

#[test]
fn a_prompt_is_trained_evaluated_and_filled() {
    let folder = Folder::new();
    folder.done(&[
        "data",
        "draw",
        "all.jsonl",
        "--label-column",
        "label",
        "--part",
        "few=60/class",
        "--part",
        "test=10/class",
        "--part",
        "pool=rest",
        "--to",
        ".",
    ]);
    let objective = "[objective.prompt]\ntemplate = \"{text} It was {mask} .\"\nwords = { animal = \"animal\", plant = \"plant\" }\n";
    let recipe = folder.recipe("prompted", LABELLED, objective, "");
    folder.done(&["run", &recipe]);
    let best = "runs/prompted/checkpoints/best";
    let result = folder.done(&["eval", best, "classify:test.jsonl", "held-out"]);
    assert!(result.contains("macro_f1"), "{result}");
    folder.done(&["data", "annotate", best, "pool.jsonl", "--fill", "--output", "lines.jsonl"]);
    for line in folder.lines("lines.jsonl") {
        let (text, label) = (line["text"].as_str().expect("a text"), line["label"].as_str().expect("a label"));
        assert!(text.ends_with(&format!(" It was {label} .")), "{text}");
    }
    let wrong = [
        ("animal = \"animal\"", "animal = \"xylophone\"", "not one token"),
        ("animal = \"animal\"", "animal = \"plant\"", "the same word"),
        (" {mask} .", " .", "0 open places"),
        ("plant = \"plant\" }", "fungus = \"green\" }", "has no word"),
    ];
    for (from, to, part) in wrong {
        let recipe = folder.recipe("wrong", LABELLED, &objective.replace(from, to), "");
        let output = folder.run(&["run", &recipe]);
        assert!(!output.status.success() && self::text(&output).contains(part), "{to}: {}", self::text(&output));
    }
}

#[test]
fn a_prompt_gives_numbers() {
    let folder = Folder::new();
    let number = |i: usize| if i.is_multiple_of(2) { 0.5 + 0.01 * (i % 7) as f64 } else { 4.5 - 0.01 * (i % 5) as f64 };
    let line = |(i, line): (usize, &Value)| format!("{{\"text\": {}, \"label\": {}}}\n", line["text"], number(i));
    let lines: Vec<String> = folder.lines("all.jsonl").iter().enumerate().map(line).collect();
    std::fs::write(folder.path("few.jsonl"), lines[..240].concat()).expect("writable");
    std::fs::write(folder.path("test.jsonl"), lines[240..].concat()).expect("writable");
    let objective = |words: &str| {
        format!("[objective.prompt]\ntemplate = \"{{text}} It was {{mask}} .\"\nwords = {words}\nregression = \"kl\"\n")
    };
    let recipe = folder.recipe("number", LABELLED, &objective("{ 0 = \"animal\", 5 = \"plant\" }"), "");
    folder.done(&["run", &recipe]);
    let best = "runs/number/checkpoints/best";
    let output = folder.run(&["eval", best, "number:test.jsonl", "held-out", "--json"]);
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let pearson = result["results"]["number:test.jsonl"]["pearson,none"].as_f64().expect("a number");
    assert!((-1.0..=1.0).contains(&pearson), "{pearson}");
    assert!(result["results"]["held-out"]["rmse,none"].as_f64().is_some_and(|rmse| rmse < 5.0));
    std::fs::write(folder.path("wrong.jsonl"), "{\"text\": \"a\", \"label\": 5.1}\n").expect("writable");
    let output = folder.run(&["eval", best, "number:wrong.jsonl"]);
    assert!(!output.status.success() && text(&output).contains("5.1"), "{}", text(&output));
    let three = folder.recipe("three", LABELLED, &objective("{ 0 = \"animal\", x = \"plant\" }"), "");
    let output = folder.run(&["check", &three]);
    assert!(text(&output).contains("not the two ends of a range"), "{}", text(&output));
}

#[test]
fn words_are_tagged_together() {
    let folder = Folder::new();
    let tagged = |lines: Vec<Value>| {
        let line = |line: Value| {
            let text = line["text"].as_str().expect("a text");
            let tag = |word| match word {
                "furry" | "green" => "B-KIND",
                "animal" | "plant" => "I-KIND",
                _ => "O",
            };
            let tags: Vec<&str> = text.split(' ').map(tag).collect();
            format!("{}\n", serde_json::json!({"id": line["id"], "text": text, "tags": tags}))
        };
        lines.into_iter().map(line).collect::<String>()
    };
    std::fs::write(folder.path("tagged.jsonl"), tagged(folder.lines("all.jsonl"))).expect("writable");
    let source = "path = \"tagged.jsonl\"\ntags_column = \"tags\"\n";
    let recipe = folder.recipe("tagger", source, "[objective.tagging]\ncrf = true\n", "");
    folder.done(&["run", &recipe, "--set", "horizon.steps=60", "--set", "data.held_out_fraction=0.1"]);
    let best = "runs/tagger/checkpoints/best";
    folder.done(&["eval", best, "tag:tagged.jsonl", "--output", "result.json"]);
    let result = folder.lines_of("result.json");
    let metrics = result["results"].as_object().expect("by task").values().next().expect("one task");
    assert!(metrics["f1,none"].as_f64().expect("a number") > 0.9, "{result:#}");
    // In a run of its own the same file has the held-out part alone.
    assert!(folder.done(&["eval", best, "held-out"]).contains("the most frequent tag gives"));
    // A text whose tags are too few is named with both numbers.
    let text = std::fs::read_to_string(folder.path("tagged.jsonl")).expect("readable");
    std::fs::write(folder.path("tagged.jsonl"), text.replacen("[\"O\",", "[", 1)).expect("writable");
    let output = folder.run(&["eval", best, "tag:tagged.jsonl"]);
    assert!(
        !output.status.success() && self::text(&output).contains("6 tags as `tags` for a text of 7 words (id `0`)")
    );
}

#[test]
fn overlap_and_draws_explain_what_is_wrong() {
    let folder = Folder::new();
    let found = folder.done(&["data", "overlap", "all.jsonl", "--with", "all.jsonl"]);
    assert!(found.contains("100.0%"), "{found}");
    let wrong: [(&[&str], &str); 4] = [
        (
            &["--label-column", "label", "--part", "x=500/class"],
            "wants 500 documents of class `animal`, but 140 are left",
        ),
        (&["--part", "x=5/class"], "--label-column"),
        (&["--part", "x"], "is no part"),
        (&["--part", "x=others"], "--classes"),
    ];
    for (words, part) in wrong {
        let output = folder.run(&[&["data", "draw", "all.jsonl", "--to", "out"], words].concat());
        assert!(!output.status.success() && text(&output).contains(part), "{words:?}: {}", text(&output));
    }
}
