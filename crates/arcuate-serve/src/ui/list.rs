//! The first page: all runs and studies, filtered by words and state, to be looked at and compared.

use arcuate_record::html::escape;
use arcuate_record::{RunSummary, State, format_number};

use super::View;
use super::catalogue::{Run, Study};
use super::run::steps;
use super::shell::{Cell, Page, named, progress, section, state, table};
use crate::Query;
use crate::query::link;

/// So many runs are shown unless all are asked for.
const MAX_ROWS: usize = 200;
const STATES: [State; 5] = [State::Running, State::Done, State::Failed, State::Preempted, State::Stopped];
/// What is shown of the last evaluation: the first of these that the run has.
const RESULTS: [(&str, &str); 3] =
    [("eval/bits_per_byte", "bits/byte"), ("eval/accuracy", "accuracy"), ("eval/loss", "loss")];

/// What the reader wants to see.
struct Filter<'a> {
    words: &'a str,
    state: Option<State>,
    shows_all: bool,
}

impl Filter<'_> {
    fn has_words(&self, text: &str) -> bool {
        let text = text.to_lowercase();
        self.words.split_whitespace().all(|word| text.contains(&word.to_lowercase()))
    }

    fn wants(&self, run: &Run) -> bool {
        self.state.is_none_or(|state| run.summary.state == state) && self.has_words(&run.summary.name)
    }
}

pub(super) fn page(view: &View<'_>, query: &Query) -> Page {
    let state_name = query.get("state");
    let filter =
        Filter { words: query.get("q"), state: State::from_name(state_name), shows_all: query.get("all") == "1" };
    let snapshot = &view.snapshot;
    let runs: Vec<&Run> = snapshot.runs.iter().filter(|run| filter.wants(run)).collect();
    let is_wanted = |study: &&Study| match filter.state {
        Some(state) => study.count(state) > 0 && filter.has_words(&study.name),
        None => filter.has_words(&study.name),
    };
    let studies: Vec<&Study> = snapshot.studies.iter().filter(is_wanted).collect();
    let num_running = snapshot.runs.iter().filter(|run| run.summary.state == State::Running).count();
    let mut pairs: Vec<(&str, &str)> = [("q", filter.words), ("state", state_name)].to_vec();
    pairs.extend(query.all("run").map(|run| ("run", run)));
    pairs.retain(|(_, value)| !value.is_empty());
    let mut live = format!(
        "<p class=\"line\" role=\"status\" aria-live=\"polite\">{} of {}, {num_running} running.</p>\n",
        count(runs.len(), "run"),
        snapshot.runs.len()
    );
    if snapshot.runs.is_empty() && snapshot.studies.is_empty() {
        live += &empty(view);
    }
    if !studies.is_empty() {
        live += &section("Studies", &studies_table(view, &studies));
    }
    if !runs.is_empty() {
        let shown = if filter.shows_all { runs.len() } else { runs.len().min(MAX_ROWS) };
        let chosen: Vec<&str> = query.all("run").collect();
        live += &section("Runs", &runs_form(view, &runs[..shown], &chosen));
        if shown < runs.len() {
            let all = [pairs.clone(), vec![("all", "1")]].concat();
            let address = escape(&link("/", &all));
            live +=
                &format!("<p>The latest {shown} are shown. <a href=\"{address}\">Show all {}</a></p>\n", runs.len());
        }
    } else if !snapshot.runs.is_empty() {
        live += "<p>No run fits. <a href=\"/\">Show all</a></p>\n";
    }
    if !snapshot.pages.is_empty() && filter.words.is_empty() && filter.state.is_none() {
        let item = |(name, _): &(String, _)| format!("<li>{}</li>", named("/report", name, name));
        live +=
            &section("Other reports", &format!("<ul>{}</ul>\n", snapshot.pages.iter().map(item).collect::<String>()));
    }
    if filter.shows_all {
        pairs.push(("all", "1"));
    }
    Page::new("Runs and studies", &link("/", &pairs)).before(&form(&filter)).live(snapshot.is_live(), &live)
}

/// `1 run`, `2 runs`.
fn count(num: usize, word: &str) -> String {
    if num == 1 { format!("1 {word}") } else { format!("{num} {word}s") }
}

fn empty(view: &View<'_>) -> String {
    format!(
        "<p>There are no runs in <code>{}</code> yet. <code>arcuate run recipes/quickstart.toml</code> makes the first; it \
         appears here by itself.</p>\n",
        escape(&view.root.display().to_string())
    )
}

fn form(filter: &Filter<'_>) -> String {
    let option = |own: &State| {
        let (name, chosen) = (own.name(), if filter.state == Some(*own) { " selected" } else { "" });
        format!("<option value=\"{name}\"{chosen}>{name}</option>")
    };
    format!(
        "<form class=\"filter\" method=\"get\" action=\"/\" role=\"search\">\
         <label>Name <input type=\"search\" name=\"q\" value=\"{}\" placeholder=\"part of the name\"></label>\
         <label>State <select name=\"state\"><option value=\"\">any</option>{}</select></label>\
         <button>Filter</button></form>\n",
        escape(filter.words),
        STATES.iter().map(option).collect::<String>()
    )
}

fn studies_table(view: &View<'_>, studies: &[&Study]) -> String {
    let headers = ["study", "runs done", "progress", "verdict", "begun"].map(Cell::text);
    let headers = headers.into_iter().enumerate().map(|(column, cell)| match column {
        1 => cell.class("number wide"),
        4 => cell.class("wide"),
        _ => cell,
    });
    let row = |study: &&Study| {
        let done = study.count(State::Done);
        let planned = study.num_planned();
        let doing = match study.count(State::Running) {
            0 if done >= planned => state(State::Done),
            0 => "not running".to_owned(),
            running => format!(
                "{} {}",
                state(State::Running),
                if running > 1 { format!("{running} at once") } else { String::new() }
            ),
        };
        let begun = view.snapshot.runs_of(&study.name).map(|run| run.summary.started.as_str()).min();
        vec![
            Cell::html(named("/study", &study.name, &study.name)).class("name"),
            Cell::number(&format!("{done} of {planned}")).class("number wide"),
            Cell::html(format!("{} {doing}", progress("runs done", done as f64 / planned.max(1) as f64))),
            Cell::text(study.verdict().as_deref().unwrap_or("-")),
            Cell::text(&begun.map_or_else(|| "-".to_owned(), |begun| view.age(begun))).class("wide"),
        ]
    };
    let rows: Vec<Vec<Cell>> = studies.iter().map(row).collect();
    table("Studies by name; ages are since the first start", &headers.collect::<Vec<_>>(), 0, &rows)
}

/// The result of the last evaluation and its measure.
pub(super) fn last_result(run: &RunSummary) -> Option<(String, &'static str)> {
    RESULTS.iter().find_map(|(metric, words)| Some((format_number(*run.last.get(*metric)?), *words)))
}

fn runs_form(view: &View<'_>, runs: &[&Run], chosen: &[&str]) -> String {
    let headers = [
        Cell::html("<span class=\"hidden\">compare</span>".to_owned()),
        Cell::text("run"),
        Cell::text("state"),
        Cell::number("step"),
        Cell::number("train loss").class("number wide"),
        Cell::number("last evaluation"),
        Cell::number("begun").class("number wide"),
    ];
    let row = |run: &&Run| {
        let own = &run.summary;
        let name = escape(&own.name);
        let is_chosen = if chosen.contains(&own.name.as_str()) { " checked" } else { "" };
        let loss = own.last.get("train/loss").map_or_else(|| "-".to_owned(), |loss| format_number(*loss));
        vec![
            Cell::html(format!(
                "<input type=\"checkbox\" name=\"run\" value=\"{name}\" aria-label=\"compare {name}\"{is_chosen}>"
            )),
            Cell::html(named("/run", &own.name, &own.name)).class("name"),
            Cell::html(state(own.state)),
            Cell::number(&steps(own)),
            Cell::number(&loss).class("number wide"),
            Cell::html(
                last_result(own)
                    .map_or_else(|| "-".to_owned(), |(value, words)| format!("{value} <span>{words}</span>")),
            )
            .class("number"),
            Cell::number(&view.age(&own.started)).class("number wide"),
        ]
    };
    let rows: Vec<Vec<Cell>> = runs.iter().map(row).collect();
    format!(
        "<form method=\"get\" action=\"/compare\" class=\"runs\">{}<p class=\"act\"><button>Compare chosen runs</button></p></form>\n",
        table("Runs, the latest first; ages are since the first start", &headers, 1, &rows)
    )
}
