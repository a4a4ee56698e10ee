//! `arcuate wer`: error rates of transcripts that lie in files, whoever made them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use arcuate_eval::{ComparedScores, RateDifference, Transcribed, TranscriptScores, compare_scores};
use arcuate_record::statistics::{Bootstrap, Interval};
use arcuate_record::{Report, Table, text_table, utc_now, write_atomic};
use arcuate_text::Normaliser;
use serde::Deserialize;
use serde_json::json;

use super::eval::coded;
use super::runs::output;
use crate::transcripts::shown;
use crate::{exit, terminal};

/// A longer file is no list of transcripts.
const MAX_FILE_BYTES: u64 = 1 << 30;
/// Utterances and substitutions that a page shows.
const NUM_SHOWN: usize = 25;

/// Word and character error rates of transcripts in files, and a comparison of two systems.
#[derive(clap::Args)]
#[command(
    after_help = "A file ends in .jsonl and has lines {\"id\", \"text\"}, or it is plain text with an utterance a line. In JSON lines
`reference` (of the first file) and `hypothesis` (of the others) may stand for `text`, so that the transcripts.jsonl of a run
is both. Phones with spaces between them are compared like words: their word error rate is the phone error rate.

Examples:
  arcuate wer said.txt heard.txt --normalise ctc
  arcuate wer said.jsonl heard.jsonl --against other.jsonl --html compared.html
  arcuate wer runs/a/transcripts.jsonl runs/a/transcripts.jsonl --against runs/b/transcripts.jsonl"
)]
pub(crate) struct Args {
    /// What was said.
    reference: PathBuf,
    /// What was recognised.
    hypothesis: PathBuf,
    /// What another system recognised in the same recordings.
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Spelling in which both sides are compared.
    #[arg(long, value_name = "NAME", default_value = "none", value_parser = Normaliser::NAMES)]
    normalise: String,
    /// Seed of the bootstrap draws.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write a page with the worst utterances, word by word.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

/// A system with its scores.
struct System {
    name: String,
    scores: TranscriptScores,
}

pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let reference = read(&args.reference, Side::Reference)?;
    let normaliser = Normaliser::named(&args.normalise).expect("one of the possible values");
    let bootstrap = Bootstrap { seed: args.seed, ..Bootstrap::default() };
    let mut systems = Vec::new();
    for path in std::iter::once(&args.hypothesis).chain(&args.against) {
        let transcripts = pair(&args.reference, &reference, path, read(path, Side::Hypothesis)?)?;
        let scores = TranscriptScores::new(&transcripts, &normaliser, &bootstrap).map_err(coded)?;
        systems.push(System { name: path.display().to_string(), scores });
    }
    let compared = match systems.as_slice() {
        [first, second] => Some(compare_scores(&first.scores, &second.scores, &bootstrap).map_err(coded)?),
        _ => None,
    };
    if let Some(file) = &args.html {
        let page = page(&args, &systems, compared.as_ref())?;
        write_atomic(file, page.to_html().as_bytes()).context("cannot write the page")?;
        terminal::say("wrote", &file.display().to_string());
    }
    if args.json {
        let all: Vec<_> = systems.iter().map(|system| json!({"file": system.name, "scores": system.scores})).collect();
        return output::json(&json!({"reference": args.reference, "systems": all, "compared": compared}));
    }
    output::text(&table(&systems, compared.as_ref()))
}

/// What a file holds.
#[derive(Clone, Copy)]
enum Side {
    Reference,
    Hypothesis,
}

#[derive(Deserialize)]
struct Said {
    id: String,
    #[serde(alias = "reference")]
    text: String,
}

#[derive(Deserialize)]
struct Recognised {
    id: String,
    #[serde(alias = "hypothesis")]
    text: String,
}

/// Ids and texts in their order; of plain text, the number of the line is the id.
fn read(path: &Path, side: Side) -> anyhow::Result<Vec<(String, String)>> {
    let shown = path.display();
    let bad = |message: String| anyhow::Error::from(exit::Coded { code: 4, message });
    let about = std::fs::metadata(path).map_err(|error| exit::usage(format!("cannot read `{shown}`: {error}")))?;
    if about.len() > MAX_FILE_BYTES {
        return Err(bad(format!("`{shown}` is larger than {MAX_FILE_BYTES} bytes; is it a list of transcripts?")));
    }
    let bytes = std::fs::read(path).map_err(|error| exit::usage(format!("cannot read `{shown}`: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| bad(format!("`{shown}` is not UTF-8; convert it")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    if path.extension().is_none_or(|ending| ending != "jsonl") {
        return Ok(text.lines().enumerate().map(|(at, line)| ((at + 1).to_string(), line.to_owned())).collect());
    }
    let mut first: HashMap<String, usize> = HashMap::new();
    let mut all = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = |problem: String| bad(format!("`{shown}`:{}: {problem}", at + 1));
        let parsed = match side {
            Side::Reference => serde_json::from_str::<Said>(line).map(|said| (said.id, said.text)),
            Side::Hypothesis => serde_json::from_str::<Recognised>(line).map(|heard| (heard.id, heard.text)),
        };
        let (id, text) = parsed.map_err(|error| wrong(format!("{error}; a line is {{\"id\": ..., \"text\": ...}}")))?;
        if let Some(first) = first.insert(id.clone(), at + 1) {
            return Err(wrong(format!("the id `{id}` stands on line {first} already; ids must differ")));
        }
        all.push((id, text));
    }
    Ok(all)
}

/// Both sides of every reference.
fn pair(
    reference_path: &Path,
    reference: &[(String, String)],
    path: &Path,
    hypothesis: Vec<(String, String)>,
) -> anyhow::Result<Vec<Transcribed>> {
    let (num_said, num_heard) = (reference.len(), hypothesis.len());
    let mut by_id: HashMap<String, String> = hypothesis.into_iter().collect();
    let refused = |id: &str, has: &Path, lacks: &Path| {
        let message = format!(
            "`{id}` is in `{}` and not in `{}`; they have {num_said} and {num_heard} utterances and must have the same",
            has.display(),
            lacks.display()
        );
        anyhow::Error::from(exit::Coded { code: 4, message })
    };
    let mut transcripts = Vec::with_capacity(num_said);
    for (id, said) in reference {
        let hypothesis = by_id.remove(id).ok_or_else(|| refused(id, reference_path, path))?;
        transcripts.push(Transcribed { id: id.clone(), reference: said.clone(), hypothesis });
    }
    match by_id.keys().min() {
        Some(id) => Err(refused(id, path, reference_path)),
        None => Ok(transcripts),
    }
}

fn percent(rate: f64, interval: Interval) -> String {
    format!("{:.2}% ({:.2} to {:.2})", 100.0 * rate, 100.0 * interval.low, 100.0 * interval.high)
}

const HEADERS: [&str; 8] = ["file", "utterances", "words", "WER", "CER", "sentences", "sub / ins / del", "spelling"];

fn row(system: &System) -> Vec<String> {
    let scores = &system.scores;
    let counts = scores.words.counts;
    vec![
        system.name.clone(),
        scores.num_utterances.to_string(),
        counts.num_reference().to_string(),
        percent(scores.words.rate, scores.words.interval),
        percent(scores.characters.rate, scores.characters.interval),
        percent(scores.sentence_error_rate, scores.sentence_error_interval),
        format!("{} / {} / {}", counts.substitutions, counts.insertions, counts.deletions),
        scores.normaliser.clone(),
    ]
}

const COMPARED: [&str; 4] = ["second less first", "points", "second better in", "second worse in"];

fn compared_rows(compared: &ComparedScores) -> Vec<Vec<String>> {
    let row = |name: &str, found: &RateDifference| {
        let share = |share: f64| format!("{:.1}% of resamples", 100.0 * share);
        let (better, worse) = (share(found.share_better), share(found.share_worse));
        vec![name.to_owned(), percent(found.difference, found.interval).replace('%', ""), better, worse]
    };
    vec![row("WER", &compared.words), row("CER", &compared.characters)]
}

fn table(systems: &[System], compared: Option<&ComparedScores>) -> String {
    let mut text = text_table(&HEADERS, &systems.iter().map(row).collect::<Vec<_>>());
    if let Some(compared) = compared {
        text.push('\n');
        text.push_str(&text_table(&COMPARED, &compared_rows(compared)));
    }
    text
}

fn page(args: &Args, systems: &[System], compared: Option<&ComparedScores>) -> anyhow::Result<Report> {
    let mut report =
        Report::new("Transcripts").subtitle(&format!("against {} · {}", args.reference.display(), utc_now()));
    let mut table = Table::new(&HEADERS);
    for system in systems {
        table = table.row(row(system));
    }
    report = report.table("Error rates", &table.note("In brackets 95% bootstrap intervals over utterances."));
    if let Some(compared) = compared {
        let rows = compared_rows(compared).into_iter();
        report = report.table("Comparison", &rows.fold(Table::new(&COMPARED), Table::row));
    }
    for system in systems {
        let worst = system.scores.worst_first().into_iter().filter(|score| score.words.num_errors() > 0);
        let worst: Vec<_> =
            worst.take(NUM_SHOWN).map(|score| shown(score, None)).collect::<Result<_, _>>().map_err(coded)?;
        if !worst.is_empty() {
            report = report.utterances(&format!("Worst utterances of {}", system.name), &worst);
        }
        let confusions = system.scores.confusions.iter().take(NUM_SHOWN);
        let table = confusions.fold(Table::new(&["said", "recognised", "times"]), |table, word| {
            table.row(vec![word.reference.clone(), word.hypothesis.clone(), word.count.to_string()])
        });
        report = report.table(&format!("Most frequent substitutions of {}", system.name), &table);
    }
    Ok(report.footer("Written by arcuate; this page needs no other file."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn pairs(said: (&str, &str), heard: (&str, &str)) -> anyhow::Result<Vec<Transcribed>> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (a, b) = (file(&dir, said.0, said.1), file(&dir, heard.0, heard.1));
        pair(&a, &read(&a, Side::Reference)?, &b, read(&b, Side::Hypothesis)?)
    }

    #[test]
    fn lines_and_ids_bring_both_sides_together() {
        let found = pairs(("a.txt", "\u{feff}x y\nz\n"), ("b.txt", "x\r\nz")).expect("paired");
        assert_eq!(
            (found[0].reference.as_str(), found[0].hypothesis.as_str(), found[1].id.as_str()),
            ("x y", "x", "2")
        );
        let said = "{\"id\": \"b\", \"text\": \"x\"}\n\n{\"id\": \"a\", \"reference\": \"y\", \"hypothesis\": \"q\"}\n";
        let heard = "{\"id\": \"a\", \"reference\": \"y\", \"hypothesis\": \"q\"}\n{\"id\": \"b\", \"text\": \"z\"}\n";
        let found = pairs(("a.jsonl", said), ("b.jsonl", heard)).expect("paired");
        let texts: Vec<_> =
            found.iter().map(|t| (t.id.as_str(), t.reference.as_str(), t.hypothesis.as_str())).collect();
        assert_eq!(texts, [("b", "x", "z"), ("a", "y", "q")]);
    }

    #[test]
    fn what_does_not_match_is_named() {
        let message = |said: (&str, &str), heard: (&str, &str)| pairs(said, heard).expect_err("wrong").to_string();
        assert!(message(("a.txt", "x\ny\n"), ("b.txt", "x\n")).starts_with("`2` is in `"));
        assert!(message(("a.txt", "x\n"), ("b.txt", "x\ny\n")).contains("1 and 2 utterances"));
        let line = "{\"id\": \"a\", \"text\": \"x\"}\n";
        assert!(message(("a.jsonl", &line.repeat(2)), ("b.jsonl", line)).contains("stands on line 1 already"));
        assert!(message(("a.jsonl", "{\"id\": 1}"), ("b.jsonl", line)).contains("a.jsonl`:1: "));
    }

    #[test]
    fn two_systems_are_compared_in_the_table() {
        let normaliser = Normaliser::named("none").expect("a preset");
        let bootstrap = Bootstrap { num_resamples: 50, ..Bootstrap::default() };
        let system = |name: &str, heard: &str| {
            let transcripts = pairs(("a.txt", "x y\nz\n"), ("b.txt", heard)).expect("paired");
            let scores = TranscriptScores::new(&transcripts, &normaliser, &bootstrap).expect("scored");
            System { name: name.to_owned(), scores }
        };
        let systems = [system("one", "x y\nq\n"), system("two", "x y\nz\n")];
        let compared = compare_scores(&systems[0].scores, &systems[1].scores, &bootstrap).expect("the same utterances");
        let text = table(&systems, Some(&compared));
        assert!(
            text.contains("33.33% (") && text.contains("-33.33 (") && text.contains("0.00% (0.00 to 0.00)"),
            "{text}"
        );
    }
}
