//! The record of runs as pages: list, run, comparison, study, report. Made anew for each request from what the folders say.

mod catalogue;
mod compare;
mod follow;
mod list;
mod plan;
mod run;
mod shell;
mod study;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arcuate_record::html;

use crate::{Request, Response};
use catalogue::{Catalogue, Snapshot};
use follow::Follower;
use shell::Page;

const STYLE: &str = include_str!("ui/style.css");
const SCRIPT: &str = include_str!("ui/live.js");
const ICON: &str = include_str!("ui/icon.svg");
/// Larger reports are not shown.
const MAX_REPORT_BYTES: u64 = 64 << 20;

/// Answers requests from the run folders under a root.
#[derive(Debug)]
pub struct Ui {
    catalogue: Catalogue,
    follower: Follower,
    now: fn() -> u64,
}

/// What a page is made of.
struct View<'a> {
    snapshot: Arc<Snapshot>,
    follower: &'a Follower,
    root: &'a Path,
    /// Seconds since 1970.
    now: u64,
}

impl Ui {
    /// The pages of a folder of runs, which need not exist yet.
    pub fn new(root: &Path) -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self { catalogue: Catalogue::new(root), follower: Follower::default(), now }
    }

    /// The answer to a request.
    pub fn answer(&self, request: &Request) -> Response {
        match request.path.as_str() {
            "/style.css" => return Response::asset("text/css; charset=utf-8", &(html::style() + STYLE)),
            "/live.js" => return Response::asset("text/javascript; charset=utf-8", SCRIPT),
            "/icon.svg" | "/favicon.ico" => return Response::asset("image/svg+xml", ICON),
            _ => {}
        }
        let answer = self.page(request, self.catalogue.snapshot());
        // It may have begun since we looked.
        if answer.status() == 404 { self.page(request, self.catalogue.fresh()) } else { answer }
    }

    fn page(&self, request: &Request, snapshot: Arc<Snapshot>) -> Response {
        let view = View { snapshot, follower: &self.follower, root: self.catalogue.root(), now: (self.now)() };
        let query = &request.query;
        let name = query.get("name");
        let page = match request.path.as_str() {
            "/" => Some(list::page(&view, query)),
            "/run" => view.snapshot.run(name).map(|run| run::page(&view, run)),
            "/compare" => match compare::page(&view, query) {
                Ok(page) => Some(page),
                Err(unknown) => return missing(&format!("There is no run `{unknown}`.")),
            },
            "/study" => view.snapshot.study(name).map(|study| study::page(&view, study)),
            "/report" => match report(&view.snapshot, name) {
                Some(bytes) => return Response::closed_html(bytes),
                None => None,
            },
            _ => return missing("There is no such page."),
        };
        match page {
            Some(page) if query.get("part") == "live" => Response::html(200, page.fragment()),
            Some(page) => Response::html(200, page.to_html()),
            None => missing(&format!("There is no `{name}` here. It may have been moved away.")),
        }
    }
}

fn missing(text: &str) -> Response {
    let body = format!("<p>{}</p><p><a href=\"/\">All runs and studies</a></p>", html::escape(text));
    Response::html(404, Page::new("Not found", "").before(&body).to_html())
}

/// The report page of a run or study, or a page beside them. Names are looked up, never made into paths.
fn report(snapshot: &Snapshot, name: &str) -> Option<Vec<u8>> {
    let run = || snapshot.run(name).map(|run| run.summary.path.join("report.html"));
    let study = || snapshot.study(name).map(|study| study.path.join("report.html"));
    let page = || snapshot.pages.iter().find(|(own, _)| own == name).map(|(_, path)| path.clone());
    plan::read_bytes(&run().or_else(study).or_else(page)?, MAX_REPORT_BYTES)
}

impl View<'_> {
    /// How long ago a time of the record was, roughly: `3 min`.
    fn age(&self, utc: &str) -> String {
        let Some(then) = arcuate_record::parse_utc(utc) else { return "-".to_owned() };
        match self.now.saturating_sub(then) {
            0..60 => "under 1 min".to_owned(),
            seconds @ 60..3600 => format!("{} min", seconds / 60),
            seconds @ 3600..172_800 => format!("{} h", seconds / 3600),
            seconds => format!("{} d", seconds / 86_400),
        }
    }
}
