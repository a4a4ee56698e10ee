//! The report of a study: the same sections as a page, as Markdown with figures beside it, and a table for the terminal.

use std::fmt::Write as _;
use std::path::Path;

use arcuate_recipe::Study;
use arcuate_recipe::study::BudgetConfig;
use arcuate_record::{
    Chart, Cost, Effect, EffectPlot, OVER_SEEDS, Report, Series, Table, Tone, format_count, format_duration,
    format_number, recipe_differences, text_table, utc_now, write_atomic,
};
use serde_json::Value;

use crate::{Result, StudyOutcome, Verdict};

/// Examples that are shown of each arm.
const MAX_EXAMPLES: usize = 5;
/// Longest value of a recipe key in the table of differences.
const MAX_VALUE_CHARS: usize = 80;

/// A section of the report.
enum Part {
    Text(String),
    Table(Table),
    Charts(Vec<Chart>),
    Effects(EffectPlot),
    Samples(Vec<(String, String)>),
}

/// Writes `report.html`, `report.md` with its figures, and `results.json` into the folder of the study.
pub fn write_report(study: &Study, outcome: &StudyOutcome, folder: &Path) -> Result<()> {
    let sections = sections(study, outcome, folder);
    let json = serde_json::to_string_pretty(outcome).unwrap_or_default() + "\n";
    write_atomic(&folder.join("results.json"), json.as_bytes())?;
    write_atomic(&folder.join("report.html"), page(outcome, &sections).to_html().as_bytes())?;
    let mut figures = Vec::new();
    let text = markdown(outcome, &sections, &mut figures);
    for (name, svg) in figures {
        write_atomic(&folder.join(name), svg.as_bytes())?;
    }
    write_atomic(&folder.join("report.md"), text.as_bytes())?;
    Ok(())
}

/// The answer for the terminal.
pub fn table(outcome: &StudyOutcome) -> String {
    let mut text = format!("claim   {}   {}\n", outcome.claim, metric_words(outcome));
    let rows: Vec<Vec<String>> = outcome
        .arms
        .iter()
        .map(|arm| {
            vec![
                arm.name.clone(),
                arm.values.len().to_string(),
                with_interval(arm.mean, arm.interval.map(|i| (i.low, i.high)), false),
                format_count(arm.with_shared.tokens),
                format_duration(arm.with_shared.seconds),
            ]
        })
        .collect();
    text += &text_table(&["arm", "seeds", &metric_name(outcome), "tokens", "time"], &rows);
    let rows: Vec<Vec<String>> = outcome
        .contrasts
        .iter()
        .map(|contrast| {
            vec![
                contrast.name.clone(),
                contrast.formula.clone(),
                with_interval(contrast.mean, contrast.interval.map(|i| (i.low, i.high)), true),
                format!("{} of {}", contrast.num_signs, contrast.seeds.len()),
                probability(contrast.p_corrected),
                contrast.verdict.words().to_owned(),
            ]
        })
        .collect();
    text += "\n";
    text += &text_table(&["contrast", "is", "effect", "seeds that agree", "p", "verdict"], &rows);
    let _ = write!(text, "\nverdict {}: {}\n", outcome.verdict.words().to_uppercase(), outcome.reason);
    for paper in &outcome.paper {
        let _ = writeln!(text, "paper   {}: {} ({})", paper.what, paper.figure, paper.place);
    }
    if let Some(warning) = rule_warning(outcome) {
        let _ = writeln!(text, "warning {warning}");
    }
    text
}

fn rule_warning(outcome: &StudyOutcome) -> Option<String> {
    let changed = &outcome.changed_rules;
    (!changed.is_empty()).then(|| format!("the rule was changed after the first run: {}", changed.join(", ")))
}

fn metric_name(outcome: &StudyOutcome) -> String {
    let name = outcome.metric.name.rsplit('/').next().unwrap_or_default().replace('_', " ");
    if outcome.metric.unit.is_empty() { name } else { format!("{name} ({})", outcome.metric.unit) }
}

fn metric_words(outcome: &StudyOutcome) -> String {
    format!("metric {}, {} is better", metric_name(outcome), outcome.metric.better.name())
}

fn signed(value: f64) -> String {
    let text = format_number(value);
    if value > 0.0 { format!("+{text}") } else { text }
}

fn with_interval(mean: Option<f64>, interval: Option<(f64, f64)>, is_signed: bool) -> String {
    let number = |value: f64| if is_signed { signed(value) } else { format_number(value) };
    match (mean, interval) {
        (None, _) => "-".to_owned(),
        (Some(mean), None) => number(mean),
        (Some(mean), Some((low, high))) => format!("{} ({} to {})", number(mean), number(low), number(high)),
    }
}

fn probability(p: Option<f64>) -> String {
    p.map_or_else(|| "-".to_owned(), |p| if p < 0.0001 { "<0.0001".to_owned() } else { format!("{p:.4}") })
}

fn page(outcome: &StudyOutcome, sections: &[(&str, Part)]) -> Report {
    let tone = match outcome.verdict {
        Verdict::Held => Tone::Good,
        Verdict::NotHeld => Tone::Bad,
        Verdict::Inconclusive => Tone::Neutral,
    };
    let mut subtitle = format!("study · {} of {} runs done · {}", outcome.num_done, outcome.num_runs, utc_now());
    if let Some(published) = &outcome.published {
        subtitle += &format!(" · {published}");
    }
    let mut report = Report::new(&format!("{}: {}", outcome.name, outcome.claim))
        .subtitle(&subtitle)
        .verdict(tone, &verdict(outcome));
    for contrast in outcome.contrasts.iter().take(4) {
        let note =
            format!("{}, {} of {} seeds agree", contrast.verdict.words(), contrast.num_signs, contrast.seeds.len());
        report = report.tile(&contrast.name, &contrast.mean.map_or_else(|| "-".to_owned(), signed), &note);
    }
    report = report
        .tile(
            "runs",
            &format!("{} of {}", outcome.num_done, outcome.num_runs),
            &format!("{} seeds", outcome.seeds.len()),
        )
        .tile("tokens", &format_count(outcome.total.tokens), "of all runs")
        .tile("time", &format_duration(outcome.total.seconds), "of all runs, one after the other");
    for (heading, part) in sections {
        report = match part {
            Part::Text(text) => report.text(heading, text),
            Part::Table(table) => report.table(heading, table),
            Part::Charts(charts) => report.charts(heading, charts),
            Part::Effects(plot) => report.effects(heading, plot),
            Part::Samples(samples) => report.samples(heading, samples),
        };
    }
    report.footer("Written by arcuate; this page needs no other file. The same in Markdown is report.md, in numbers results.json.")
}

fn verdict(outcome: &StudyOutcome) -> String {
    let mut words = outcome.verdict.words().to_owned();
    words[..1].make_ascii_uppercase();
    let mut text = format!("{words}: {}.", outcome.reason);
    if let Some(warning) = rule_warning(outcome) {
        text += &format!(" Warning: {warning}.");
    }
    text
}

fn markdown(outcome: &StudyOutcome, sections: &[(&str, Part)], figures: &mut Vec<(String, String)>) -> String {
    let mut text = format!("# {}: {}\n\n**{}**\n", outcome.name, outcome.claim, verdict(outcome));
    let mut figure = |title: &str, svg: String| {
        let name = format!("figure-{}.svg", figures.len() + 1);
        figures.push((name.clone(), svg));
        format!("![{}]({name})\n", title.replace(['[', ']', '\n'], " "))
    };
    for (heading, part) in sections {
        let _ = write!(text, "\n## {heading}\n\n");
        match part {
            Part::Text(words) => text += &format!("{words}\n"),
            Part::Table(table) => text += &table.to_markdown(),
            Part::Charts(charts) => charts.iter().for_each(|chart| text += &figure(&chart.title, chart.to_svg())),
            Part::Effects(plot) => text += &figure(&plot.title, plot.to_svg()),
            Part::Samples(samples) => {
                for (prompt, answer) in samples {
                    let line = |words: &str| words.replace(['\n', '\r'], " ");
                    let _ = writeln!(text, "> **{}**{}\n", line(prompt), line(answer));
                }
            }
        }
    }
    text
}

fn sections(study: &Study, outcome: &StudyOutcome, folder: &Path) -> Vec<(&'static str, Part)> {
    let mut sections = vec![
        ("Arms", Part::Table(arms(study, outcome))),
        ("Contrasts", Part::Table(contrasts(study, outcome))),
        ("Effects", Part::Effects(effects(study, outcome))),
        ("The rule", Part::Text(rule(study))),
    ];
    let curves = curves(outcome);
    if !curves.is_empty() {
        sections.push(("Curves", Part::Charts(curves)));
    }
    if !outcome.paper.is_empty() {
        sections.push(("The publication beside ours", Part::Table(paper(outcome))));
    }
    sections.push(("What it took", Part::Table(ledger(outcome))));
    let examples = examples(study, outcome, folder);
    if !examples.is_empty() {
        sections.push(("Examples", Part::Samples(examples)));
    }
    sections.push(("Recipe keys in which the arms differ", Part::Table(differences(study, outcome, folder))));
    sections.push(("Runs", Part::Table(runs(outcome))));
    let table = Table::new(&["what", "is"]);
    let facts = outcome.facts.iter().fold(table, |table, (name, value)| table.row(vec![name.clone(), value.clone()]));
    sections.push(("Versions", Part::Table(facts)));
    sections
}

fn percent(confidence: f64) -> String {
    format!("{}%", format_number(100.0 * confidence))
}

fn arms(study: &Study, outcome: &StudyOutcome) -> Table {
    let metric = metric_name(outcome);
    let interval = format!("{} interval", percent(study.decision.confidence));
    let headers = ["arm", "what it is", "seeds", metric.as_str(), interval.as_str(), "values by seed"];
    let table = Table::new(&headers).note(&format!(
        "{}; mean over seeds, interval by {}.",
        metric_words(outcome),
        study.decision.interval.words()
    ));
    outcome.arms.iter().fold(table, |table, arm| {
        let values =
            outcome.seeds.iter().map(|seed| arm.values.get(seed).map_or_else(|| "-".to_owned(), |v| format_number(*v)));
        table.row(vec![
            arm.name.clone(),
            arm.words.clone(),
            arm.values.len().to_string(),
            arm.mean.map_or_else(|| "-".to_owned(), format_number),
            arm.interval
                .map_or_else(|| "-".to_owned(), |i| format!("{} to {}", format_number(i.low), format_number(i.high))),
            values.collect::<Vec<_>>().join(", "),
        ])
    })
}

fn contrasts(study: &Study, outcome: &StudyOutcome) -> Table {
    let interval = format!("effect ({} interval)", percent(study.decision.confidence));
    let table = Table::new(&[
        "contrast", "claims", "expected", &interval, "seeds that agree", "p", "corrected p", "d_z", "g", "seeds needed", "verdict", "because",
    ])
    .note(&format!(
        "Differences by seed; {}, two-sided; p corrected by: {}; interval by {}, not corrected. d_z is the mean in standard \
         deviations, g the same without its bias in small samples. Seeds needed: to see the smallest effect that matters with \
         power {}, if differences scatter as they did here.",
        study.decision.test.words(),
        study.decision.correction.words(),
        study.decision.interval.words(),
        format_number(study.decision.power)
    ));
    outcome.contrasts.iter().fold(table, |table, contrast| {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
        table.row(vec![
            format!("{}: {}", contrast.name, contrast.formula),
            contrast.words.clone(),
            format!("{} by {}", contrast.expected.words(), format_number(contrast.smallest_effect)),
            with_interval(contrast.mean, contrast.interval.map(|i| (i.low, i.high)), true),
            format!("{} of {}", contrast.num_signs, contrast.seeds.len()),
            probability(contrast.p_value),
            probability(contrast.p_corrected),
            number(contrast.cohens_dz),
            number(contrast.hedges_g),
            contrast.seeds_needed.map_or_else(|| "-".to_owned(), format_count),
            contrast.verdict.words().to_owned(),
            contrast.reason.clone(),
        ])
    })
}

fn effects(study: &Study, outcome: &StudyOutcome) -> EffectPlot {
    use arcuate_recipe::study::{Better, Expected};
    let unit = if outcome.metric.unit.is_empty() { metric_name(outcome) } else { outcome.metric.unit.clone() };
    let effect = |contrast: &crate::ContrastOutcome| {
        let is_up = (outcome.metric.better == Better::Higher) == (contrast.expected != Expected::Worse);
        let is_margin = matches!(contrast.expected, Expected::NotWorse | Expected::Equal);
        let sign = if is_up == is_margin { -1.0 } else { 1.0 };
        Effect {
            name: contrast.name.clone(),
            mean: contrast.mean.unwrap_or(f64::NAN),
            interval: contrast.interval.map(|interval| (interval.low, interval.high)),
            values: contrast.effects.clone(),
            threshold: (contrast.smallest_effect > 0.0).then_some(sign * contrast.smallest_effect),
        }
    };
    let confidence = percent(study.decision.confidence);
    EffectPlot {
        title: format!("Mean effect with {confidence} interval; small dots are seeds, dashed what matters"),
        x_label: format!("effect in {unit}; {} is better", outcome.metric.better.name()),
        effects: outcome.contrasts.iter().map(effect).collect(),
    }
}

fn rule(study: &Study) -> String {
    let decision = &study.decision;
    let mut text = format!(
        "A contrast is held if the {} rejects at {} after correction ({}), the mean effect has the expected sign and at \
         least the smallest size that matters. It is not held if the {} interval ends below that size. Otherwise it is \
         inconclusive.",
        decision.test.words(),
        format_number(((1.0 - decision.confidence) * 1e6).round() / 1e6),
        decision.correction.words(),
        percent(decision.confidence)
    );
    if let Some(signs) = decision.held_signs {
        text += &format!(" To be held, at least {signs} seeds must agree.");
    }
    if let Some(signs) = decision.refuted_signs {
        text += &format!(" It is not held if at least {signs} seeds disagree.");
    }
    text += &format!("\n\nRefuted if: {}\n\nBudget: ", study.refuted_if);
    text += &match &study.budget {
        BudgetConfig::Steps(_) => "the same steps for all arms.".to_owned(),
        BudgetConfig::Tokens(_) => "the same tokens for all arms.".to_owned(),
        BudgetConfig::Seconds(budget) => {
            format!("the same time for all arms, within {}.", percent(budget.tolerance))
        }
        BudgetConfig::Free(free) => format!("not the same for all arms: {}", free.why),
    };
    text
}

fn curves(outcome: &StudyOutcome) -> Vec<Chart> {
    let of = |pick: &dyn Fn(&crate::Measured) -> Vec<(f64, f64)>| -> Vec<Series> {
        let arm = |arm: &crate::ArmOutcome| {
            let runs = outcome.runs.iter().filter(|run| run.arm.as_deref() == Some(arm.name.as_str()));
            let curves: Vec<Vec<(f64, f64)>> = runs.map(pick).collect();
            Series::over_runs(&arm.name, &curves)
        };
        outcome.arms.iter().filter_map(arm).collect()
    };
    let charts = [
        (format!("{} ({OVER_SEEDS})", metric_name(outcome)), of(&|run| run.curve.clone())),
        (format!("training loss ({OVER_SEEDS})"), of(&|run| run.loss.clone())),
    ];
    let filled = charts.into_iter().filter(|(_, series)| !series.is_empty());
    filled.map(|(title, series)| Chart::new(&title, series)).collect()
}

fn paper(outcome: &StudyOutcome) -> Table {
    let table = Table::new(&["what", "there", "where", "ours"]);
    outcome.paper.iter().fold(table, |table, paper| {
        let beside = paper.beside.as_deref();
        let arm = outcome.arms.iter().find(|arm| beside == Some(arm.name.as_str()));
        let contrast = outcome.contrasts.iter().find(|contrast| beside == Some(contrast.name.as_str()));
        let ours = match (arm, contrast) {
            (Some(arm), _) => with_interval(arm.mean, arm.interval.map(|i| (i.low, i.high)), false),
            (_, Some(contrast)) => with_interval(contrast.mean, contrast.interval.map(|i| (i.low, i.high)), true),
            _ => "-".to_owned(),
        };
        table.row(vec![paper.what.clone(), paper.figure.clone(), paper.place.clone(), ours])
    })
}

fn ledger(outcome: &StudyOutcome) -> Table {
    let cells = |name: String, num: usize, own: &Cost, all: Option<&Cost>| {
        let part =
            |cost: &Cost| [format_count(cost.tokens), format!("{:.2e}", cost.flops), format_duration(cost.seconds)];
        let all = all.map_or_else(|| ["-", "-", "-"].map(str::to_owned), part);
        [vec![name, num.to_string()], part(own).to_vec(), all.to_vec()].concat()
    };
    let num = |wanted: &dyn Fn(&crate::Measured) -> bool| outcome.runs.iter().filter(|run| wanted(run)).count();
    let mut table = Table::new(&[
        "arm or step", "runs", "tokens", "FLOPs", "time", "tokens with shared", "FLOPs with shared", "time with shared",
    ])
    .note(
        "All seeds together. With shared: what the arm would take alone, with the teacher, the labelling and every other step \
         that it rests on. The total counts every run once. FLOPs by the formula of `arcuate check`.",
    );
    for (name, cost) in &outcome.shared {
        let runs = num(&|run| run.arm.is_none() && run.step == *name);
        table = table.row(cells(format!("{name} (shared)"), runs, cost, None));
    }
    for arm in &outcome.arms {
        let runs = num(&|run| run.arm.as_deref() == Some(arm.name.as_str()));
        table = table.row(cells(arm.name.clone(), runs, &arm.own, Some(&arm.with_shared)));
    }
    table.row(cells("total".to_owned(), outcome.runs.len(), &outcome.total, None))
}

/// The measured run of each arm with the first seed.
fn first_runs<'a>(study: &Study, outcome: &'a StudyOutcome) -> Vec<(&'a str, String)> {
    let runs = study.runs();
    let first = |name: &'a str| {
        let run = runs.iter().find(|run| run.is_measured && run.arm.as_deref() == Some(name))?;
        Some((name, run.name.clone()))
    };
    outcome.arms.iter().filter_map(|arm| first(&arm.name)).collect()
}

fn examples(study: &Study, outcome: &StudyOutcome, folder: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (arm, run) in first_runs(study, outcome) {
        let text = std::fs::read_to_string(folder.join(run).join("samples.jsonl")).unwrap_or_default();
        let read = |line: &str| {
            let value: Value = serde_json::from_str(line).ok()?;
            Some((format!("{arm}: {}", value["prompt"].as_str()?), value["text"].as_str()?.to_owned()))
        };
        all.extend(text.lines().filter_map(read).take(MAX_EXAMPLES));
    }
    all
}

fn differences(study: &Study, outcome: &StudyOutcome, folder: &Path) -> Table {
    let runs = first_runs(study, outcome);
    let text = |run: &str| {
        let file = |name: &str| std::fs::read_to_string(folder.join(run).join(name));
        file("resolved.toml").or_else(|_| file("recipe.toml")).unwrap_or_default()
    };
    let texts: Vec<String> = runs.iter().map(|(_, run)| text(run)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let headers: Vec<&str> = std::iter::once("key").chain(runs.iter().map(|(arm, _)| *arm)).collect();
    let table = Table::new(&headers).note("Of the last step of each arm, first seed; every other key is the same.");
    let wanted = recipe_differences(&texts).into_iter().filter(|difference| difference.key != "name");
    wanted.fold(table, |table, difference| {
        let values = difference
            .values
            .into_iter()
            .map(|value| value.map_or_else(|| "-".to_owned(), |value| value.chars().take(MAX_VALUE_CHARS).collect()));
        table.row(std::iter::once(difference.key).chain(values).collect())
    })
}

fn runs(outcome: &StudyOutcome) -> Table {
    let metric = metric_name(outcome);
    let table = Table::new(&["run", "state", metric.as_str(), "steps", "tokens", "time", "error"]);
    outcome.runs.iter().fold(table, |table, run| {
        table.row(vec![
            run.run.clone(),
            run.state.map_or("not begun", arcuate_record::State::name).to_owned(),
            run.value.map_or_else(|| "-".to_owned(), format_number),
            format_count(run.cost.steps),
            format_count(run.cost.tokens),
            format_duration(run.cost.seconds),
            run.error.clone().unwrap_or_default(),
        ])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::tests::{folder_with, study};
    use crate::outcome::tests::done;
    use crate::{Facts, outcome};

    #[test]
    fn the_terminal_shows_arms_effect_and_verdict() {
        let text = table(&done().1);
        for words in ["claim   tuning helps", "scratch", "61", "+8", "3 of 3", "verdict HELD", "paper   gain: +3.6"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }

    #[test]
    fn all_files_are_written_and_say_the_same() {
        let (folder, outcome) = done();
        let sample = "{\"prompt\": \"Fellow\", \"text\": \" citizens\"}\nno json\n";
        std::fs::write(folder.path().join("tuned-seed1/samples.jsonl"), sample).expect("writable");
        write_report(&study().value, &outcome, folder.path()).expect("writable");
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("written");
        let (page, text, json) = (read("report.html"), read("report.md"), read("results.json"));
        for heading in ["Arms", "Contrasts", "Effects", "The rule", "Curves", "What it took", "Examples", "Versions"] {
            assert!(page.contains(&format!("<h2>{heading}</h2>")), "{heading}");
            assert!(text.contains(&format!("\n## {heading}\n")), "{heading}");
        }
        assert!(page.contains("verdict good") && text.contains("**Held:") && json.contains("\"verdict\": \"held\""));
        assert!(text.contains("> **tuned: Fellow** citizens") && text.contains("| Table 4 | +8"), "{text}");
        for number in 1..=2 {
            let figure = format!("figure-{number}.svg");
            assert!(text.contains(&format!("({figure})")) && read(&figure).starts_with("<svg"));
        }
        assert!(page.contains("<polygon class=\"band s0\""));
    }

    #[test]
    fn nothing_done_is_a_report_too() {
        let folder = folder_with(&[]);
        let study = study().value;
        let outcome = outcome(&study, folder.path(), Facts::new()).expect("reads");
        write_report(&study, &outcome, folder.path()).expect("writable");
        assert!(table(&outcome).contains("INCONCLUSIVE: only 0 of 3 seeds"));
        let page = std::fs::read_to_string(folder.path().join("report.html")).expect("written");
        assert!(page.contains("verdict neutral") && !page.contains("NaN"));
    }
}
