//! Pages as a browser gets them, from run folders made for the purpose.

use std::fs;
use std::path::Path;

use arcuate_record::{Confusion, MetricsWriter, Record, RunDir, State, parse_utc};

use super::*;

const RECIPE: &str = "name = \"x\"\nseed = 1\n\n[horizon]\nsteps = 8\n\n[data]\n";

/// A run of four steps; it is left running if it has no end.
fn make(root: &Path, name: &str, recipe: &str, end: Option<State>) -> RunDir {
    let mut run = RunDir::create_or_open(root, name, recipe).expect("opens");
    let mut metrics = MetricsWriter::open(&run.metrics_path(), None).expect("opens");
    for step in 1..=4 {
        let loss = 4.0 / step as f64;
        let record = Record::new(step, "train").value("loss", loss).value("tokens_per_second", 1200.4);
        metrics.write(&record).expect("writes");
    }
    metrics.write(&Record::new(4, "eval").value("bits_per_byte", 1.25)).expect("writes");
    let (state, error) = (end.unwrap_or(State::Running), (end == Some(State::Failed)).then_some("no <room> left"));
    run.finish(state, 4, error).expect("writes");
    run
}

fn ui(root: &Path) -> Ui {
    Ui { now: || 1_900_000_000, ..Ui::new(root) }
}

/// The page, which must be there.
fn page(ui: &Ui, target: &str) -> String {
    let response = ui.answer(&Request::get(target));
    assert_eq!(response.status(), 200, "{target}");
    String::from_utf8(response.body().to_vec()).expect("pages are UTF-8")
}

fn status(ui: &Ui, target: &str) -> u16 {
    ui.answer(&Request::get(target)).status()
}

fn root() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Three runs: `a` done, `b` failed, `c d` running while the folder is held.
fn three() -> (tempfile::TempDir, RunDir) {
    let root = root();
    drop(make(root.path(), "a", RECIPE, Some(State::Done)));
    drop(make(root.path(), "b", &RECIPE.replace("seed = 1", "seed = 2"), Some(State::Failed)));
    let held = make(root.path(), "c d", RECIPE, None);
    (root, held)
}

const STUDY: &str = r#"
claim = "b < a"
refuted_if = "it is not"
seeds = [1, 2]
[metric]
name = "eval/bits_per_byte"
scale = 100
unit = "points"
[[shared]]
name = "base"
[[arm]]
name = "warm"
words = "from base"
"#;

/// A study with a shared run, one seed of two, and a verdict.
fn study() -> tempfile::TempDir {
    let root = root();
    let folder = root.path().join("st");
    fs::create_dir_all(&folder).expect("writable");
    for (name, text) in [
        ("study.toml", STUDY),
        ("rule.json", "{}"),
        ("report.html", "<h1>study report</h1>"),
        (
            "results.json",
            r#"{"verdict": "not_held", "reason": "x < y", "num_runs": 3, "arms": [{"name": "warm", "values": {"1": 125.0}, "mean": 125.0, "interval": null}], "contrasts": []}"#,
        ),
    ] {
        fs::write(folder.join(name), text).expect("writable");
    }
    for name in ["base", "warm-seed1", "warm-seed1.old-3"] {
        drop(make(&folder, name, RECIPE, Some(State::Done)));
    }
    root
}

#[test]
fn the_list_shows_state_steps_loss_and_evaluation() {
    let (root, _held) = three();
    let text = page(&ui(root.path()), "/");
    for words in [
        "3 runs of 3, 1 running",
        "4 of 8",
        "1.250 <span>bits/byte</span>",
        "state failed",
        "state running",
        "name=c%20d",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.find("c d").expect("there") < text.find("/run?name=a\"").expect("there"), "running runs come first");
}

#[test]
fn a_folder_without_runs_says_how_to_make_one() {
    let root = root();
    for folder in [root.path().to_path_buf(), root.path().join("missing")] {
        assert!(page(&ui(&folder), "/").contains("arcuate run recipes/quickstart.toml"));
    }
}

#[test]
fn words_and_state_filter_the_list() {
    let (root, _held) = three();
    let ui = ui(root.path());
    for (target, shown, hidden) in [
        ("/?q=A", "?name=a\"", "?name=b\""),
        ("/?state=failed", "?name=b\"", "?name=a\""),
        ("/?q=d+c&state=running", "?name=c%20d\"", "?name=a\""),
    ] {
        let text = page(&ui, target);
        assert!(text.contains(shown) && !text.contains(hidden), "{target}: {text}");
    }
    assert!(page(&ui, "/?q=zzz").contains("No run fits"));
    assert!(page(&ui, "/?run=b").contains("value=\"b\" aria-label=\"compare b\" checked"));
    assert!(page(&ui, "/?q=%22%3E%3Cscript%3E").contains("value=\"&quot;&gt;&lt;script&gt;\""));
}

#[test]
fn a_run_page_shows_what_the_folder_holds() {
    let root = root();
    let run = make(root.path(), "a", RECIPE, Some(State::Done));
    Confusion::new(4, &["whig".to_owned(), "none".to_owned()]).save(run.path()).expect("writes");
    fs::write(run.path().join("samples.jsonl"), "{\"prompt\":\"Fellow\",\"text\":\" <b>citizens\"}\nno json\n")
        .expect("writes");
    fs::create_dir_all(run.path().join("checkpoints/step-00000004")).expect("writes");
    fs::write(run.path().join("report.html"), "report").expect("writes");
    let text = page(&ui(root.path()), "/run?name=a");
    for words in [
        "<polyline class=\"line s0\"",
        "Confusion matrix",
        "whig",
        "<b>Fellow</b> &lt;b&gt;citizens",
        "step-00000004",
        "eval/<wbr>bits_<wbr>per_<wbr>byte</th>",
        "steps = 8",
        "/report?name=a",
        "<figcaption>Speed",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains("http-equiv=\"refresh\"") && text.contains("data-every=\"10000\""));
}

#[test]
fn a_running_run_is_looked_at_often_also_without_scripts() {
    let (root, _held) = three();
    let ui = ui(root.path());
    let text = page(&ui, "/run?name=c%20d");
    assert!(text.contains("<noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>"), "{text}");
    assert!(text.contains("data-every=\"2000\"") && text.contains("data-address=\"/run?name=c%20d&amp;part=live\""));
    assert!(
        text.contains("more than 50% done")
            && text.contains("<progress aria-label=\"steps done\" max=\"100\" value=\"50\">")
    );
    let part = page(&ui, "/run?name=c+d&part=live");
    assert!(part.starts_with("<div class=\"parts\"") && !part.contains("<html") && text.contains(&part));
}

#[test]
fn the_live_part_changes_only_when_the_run_does() {
    let (root, mut held) = three();
    let part = || page(&ui(root.path()), "/run?name=c+d&part=live");
    let before = part();
    assert_eq!(part(), before);
    held.finish(State::Running, 5, None).expect("writes");
    assert_ne!(part(), before);
}

#[test]
fn chosen_runs_are_compared() {
    let (root, _held) = three();
    let ui = ui(root.path());
    let text = page(&ui, "/compare?run=a&run=b&run=a");
    for words in ["key s0\">a", "key s1\">b", "class=\"metric\">seed</th>", "eval/bits_per_byte", "/?run=a&amp;run=b"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(
        page(&ui, "/compare").contains("Tick at least two") && page(&ui, "/compare?run=a").contains("Tick at least")
    );
    assert_eq!(status(&ui, "/compare?run=a&run=zzz"), 404);
}

#[test]
fn a_study_shows_its_grid_and_its_verdict() {
    let root = study();
    let ui = ui(root.path());
    let text = page(&ui, "/study?name=st");
    for words in [
        "2 of 3 runs done",
        "b &lt; a",
        "verdict bad\"><b>not held</b>: x &lt; y",
        "name=st/warm-seed1\">125</a>",
        "not begun",
        ">base</a>",
        "from base",
        "/report?name=st",
        "train/loss (mean over seeds",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(!text.contains(".old-"), "what was moved aside is not shown: {text}");
    assert!(page(&ui, "/").contains("/run?name=st/warm-seed1") && page(&ui, "/").contains("2 of 3"));
    assert!(page(&ui, "/run?name=st/warm-seed1").contains("/study?name=st"));
}

#[test]
fn reports_are_served_but_run_nothing() {
    let root = study();
    fs::write(root.path().join("pipeline.html"), "<p>steps</p>").expect("writable");
    let ui = ui(root.path());
    assert_eq!(page(&ui, "/report?name=st"), "<h1>study report</h1>");
    assert_eq!(page(&ui, "/report?name=pipeline.html"), "<p>steps</p>");
    assert!(page(&ui, "/").contains("/report?name=pipeline.html"));
    assert_eq!(ui.answer(&Request::get("/report?name=st")), Response::closed_html(b"<h1>study report</h1>".to_vec()));
    assert_eq!(status(&ui, "/report?name=st/base"), 404, "it has none");
}

#[test]
fn names_are_never_paths() {
    let (root, _held) = three();
    fs::write(root.path().join("secret.html"), "not this").expect("writable");
    let inner = root.path().join("a");
    fs::write(inner.join("secret"), "not this").expect("writable");
    std::os::unix::fs::symlink("/etc/passwd", inner.join("report.html")).expect("writable");
    std::os::unix::fs::symlink("/etc/passwd", inner.join("samples.jsonl")).expect("writable");
    let ui = ui(&root.path().join("a"));
    for name in
        ["../b", "..", ".", "", "/etc/passwd", "a/../b", "secret", "%2e%2e/secret.html", "..%2f..%2fetc", "a%00"]
    {
        for path in ["/run", "/report", "/study"] {
            assert_eq!(status(&ui, &format!("{path}?name={name}")), 404, "{path} {name}");
        }
        assert_eq!(status(&ui, &format!("/compare?run={name}")), 404, "{name}");
    }
    for path in ["/..", "/../secret.html", "/a/report.html", "/%2e%2e/x", "//", "/run/", "/style.css/", "/index.sqlite"]
    {
        assert_eq!(status(&ui, path), 404, "{path}");
    }
    let outer = self::ui(root.path());
    assert_eq!(status(&outer, "/report?name=a"), 404, "a link out of the folder is not followed");
    assert!(!page(&outer, "/run?name=a").contains("root:"));
}

#[test]
fn nothing_of_a_run_becomes_markup() {
    let root = root();
    let name = "<img src=x onerror=alert(1)>\"'&";
    let run = make(root.path(), name, RECIPE, Some(State::Failed));
    fs::write(run.path().join("metrics.jsonl"), "{\"step\":1,\"kind\":\"<i>\",\"<b>\":1}\n").expect("writes");
    drop(run);
    drop(make(root.path(), "b", "seed = 3", Some(State::Done)));
    let ui = ui(root.path());
    let own = crate::query::link("", &[("name", name)]).replace("?name=", "");
    for target in
        ["/".to_owned(), format!("/run?name={own}"), format!("/compare?run=b&run={own}"), "/run?name=<b>".to_owned()]
    {
        let response = ui.answer(&Request::get(&target.replace(' ', "%20")));
        let text = String::from_utf8_lossy(response.body()).into_owned();
        for evil in ["<img", "<i>", "<room>", "<b>\"", "?name=<b>"] {
            assert!(!text.contains(evil), "{target} {evil}: {text}");
        }
        assert!(response.status() == 404 || text.contains("&lt;img src=x"), "{text}");
    }
}

#[test]
fn pages_can_be_used_without_eyes_or_mouse() {
    let (root, _held) = three();
    let ui = ui(root.path());
    for target in ["/", "/run?name=a", "/compare?run=a&run=b"] {
        let text = page(&ui, target);
        for words in ["<html lang=\"en\">", "class=\"skip\" href=\"#main\"", "<main id=\"main\"", "<caption>", "<h1>"] {
            assert!(text.contains(words), "{target} {words}");
        }
        assert_eq!(text.matches("<table").count(), text.matches("<caption>").count(), "{target}");
        for tag in ["table", "tr", "td", "th", "div", "section", "form", "p", "ul", "span"] {
            let opened = text.matches(&format!("<{tag}>")).count() + text.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, text.matches(&format!("</{tag}>")).count(), "{target} {tag}");
        }
    }
    assert!(page(&ui, "/").contains("aria-live=\"polite\""));
}

#[test]
fn pages_hold_neither_scripts_nor_styles_nor_outside_addresses() {
    let (root, _held) = three();
    let ui = ui(root.path());
    for target in ["/", "/run?name=a", "/compare?run=a&run=b"] {
        let text = page(&ui, target);
        for words in ["style=", "<style", "onclick", "http://", "https://", "<script>"] {
            assert!(!text.contains(words), "{target} {words}");
        }
    }
    for target in ["/style.css", "/live.js"] {
        assert!(!page(&ui, target).contains("http"), "{target}");
    }
    assert!(page(&ui, "/style.css").contains("prefers-color-scheme:dark"));
}

#[test]
fn a_run_that_has_just_begun_is_found() {
    let root = root();
    let ui = ui(root.path());
    assert_eq!(status(&ui, "/run?name=new"), 404);
    drop(make(root.path(), "new", RECIPE, Some(State::Done)));
    assert_eq!(status(&ui, "/run?name=new"), 200);
}

#[test]
fn ages_are_rough() {
    let root = root();
    let ui = ui(root.path());
    let view = View { snapshot: ui.catalogue.snapshot(), follower: &ui.follower, root: root.path(), now: 1_000_000 };
    let at = |seconds: u64| view.age(&arcuate_record::format_utc(1_000_000 - seconds));
    assert_eq!([at(0), at(59), at(60), at(7200), at(172_800)], ["under 1 min", "under 1 min", "1 min", "2 h", "2 d"]);
    assert_eq!((view.age("never"), parse_utc("never")), ("-".to_owned(), None));
}

#[test]
fn long_lists_are_cut_and_can_be_seen_whole() {
    let root = root();
    for number in 0..205 {
        let run = RunDir::create_or_open(root.path(), &format!("run{number:03}"), "seed = 1").expect("opens");
        drop(run);
    }
    let ui = ui(root.path());
    let text = page(&ui, "/?q=run");
    assert_eq!(text.matches("type=\"checkbox\"").count(), 200);
    assert!(text.contains("/?q=run&amp;all=1"), "{text}");
    assert_eq!(page(&ui, "/?q=run&all=1").matches("type=\"checkbox\"").count(), 205);
}
