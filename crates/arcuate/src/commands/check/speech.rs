//! The scan of a speech recipe: what the lists say of all utterances, and what is heard of some or all of them.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use anyhow::Result;
use arcuate_data::Progress;
use arcuate_data::speech::scan::{SpeechFinding, SpeechFindingKind, SpeechScanReport};
use arcuate_recipe::Recipe;
use serde_json::{Value, json};

use super::How;
use crate::session::{self, Parts};
use crate::terminal::{self, say};

/// Utterances of each source that are heard unless all are asked for.
const MAX_HEARD: usize = 256;
/// Places that are shown of each finding.
const SHOWN_PLACES: usize = 3;

type Reports = BTreeMap<String, SpeechScanReport>;

/// Opens the corpus, lists everything that is wrong with it, and refuses it as a run would.
pub(super) fn scan(recipe: &Recipe, how: How) -> Result<(Parts, Value)> {
    // All bad items are listed before their number is judged.
    let mut lenient = recipe.clone();
    lenient.data.max_bad_items = u64::MAX;
    let parts = match session::prepare(&lenient, None, how.json) {
        Ok(parts) => parts,
        // Where nothing is left, the limit of the recipe has the better message.
        Err(_) => session::prepare(recipe, None, how.json)?,
    };
    let bar = terminal::bar("scan", 0, false);
    if how.json {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    let progress = Progress::new(|_, done, total| {
        bar.set_length(total);
        bar.set_position(done);
        ControlFlow::Continue(())
    });
    let reports = parts.corpus.scan_speech((!how.full_scan).then_some(MAX_HEARD), &progress);
    drop(progress);
    bar.finish_and_clear();
    let reports = reports?;
    if !how.json {
        for (name, report) in &reports {
            say("scan", &heard(name, report));
            report.findings.iter().for_each(|finding| say("scan", &line(name, finding)));
        }
    }
    let num_bad_items: u64 = reports.values().map(|report| report.num_bad_items).sum();
    if num_bad_items > recipe.data.max_bad_items {
        let message = refusal(&reports, num_bad_items, recipe.data.max_bad_items);
        return Err(crate::exit::Coded { code: 4, message }.into());
    }
    let scan = json!({"sources": reports, "num_bad_items": num_bad_items, "is_refused": false});
    Ok((parts, scan))
}

/// How many utterances were heard, and what follows for the others.
fn heard(name: &str, report: &SpeechScanReport) -> String {
    let (bad, unheard) = (report.num_heard_bad, report.unheard.utterances);
    let heard = report.usable.utterances + bad;
    if unheard == 0 {
        return format!("{name}: heard all {heard} utterances");
    }
    let all = heard + unheard;
    let likely = if bad > 0 {
        let likely = (bad as f64 / heard as f64 * all as f64).round();
        format!("; {bad} of them cannot be used, so about {likely} of all")
    } else {
        String::new()
    };
    format!("{name}: heard {heard} of {all} utterances, evenly chosen (`--full-scan` hears all){likely}")
}

fn line(name: &str, finding: &SpeechFinding) -> String {
    let SpeechFinding { kind, count, places, message } = finding;
    let shown = places.iter().take(SHOWN_PLACES).cloned().collect::<Vec<_>>().join(", ");
    let more = if *count > SHOWN_PLACES as u64 { ", …" } else { "" };
    format!("{name}: {count} {kind}: {message} ({shown}{more})")
}

/// Bad items by reason, and the first one.
fn refusal(reports: &Reports, num_bad_items: u64, limit: u64) -> String {
    let bad = || {
        let findings = reports.values().flat_map(|report| &report.findings);
        findings.filter(|finding| matches!(finding.kind, SpeechFindingKind::BadItem(_)))
    };
    let mut counts: BTreeMap<SpeechFindingKind, u64> = BTreeMap::new();
    bad().for_each(|finding| *counts.entry(finding.kind).or_default() += finding.count);
    let counts = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ");
    let first = bad().next().map_or("", |finding| finding.message.as_str());
    format!(
        "the data has {num_bad_items} bad items ({counts}), more than `data.max_bad_items`, {limit}, allows; the first: {first}"
    )
}
