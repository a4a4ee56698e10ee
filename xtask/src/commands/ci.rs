//! `cargo xtask ci`: everything that must pass before a change is merged, in order of price.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{fuzz, generate, golden};
use crate::workspace::{build_arcuate, cargo, run as run_command, shown};

/// Flags of `cargo xtask ci`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only what needs no release build: format, clippy, tests
    #[arg(long)]
    pub fast: bool,
    /// Leave out a step, by its name in the summary; may be given again
    #[arg(long, value_name = "STEP")]
    pub skip: Vec<String>,
}

enum Action {
    Run(Command),
    Build,
    Fuzz,
    Generate,
    Golden,
}

struct Step {
    name: &'static str,
    is_fast: bool,
    action: Action,
}

fn step(name: &'static str, arguments: &[&str]) -> Step {
    let mut command = cargo();
    command.args(arguments);
    Step { name, is_fast: true, action: Action::Run(command) }
}

fn steps() -> Vec<Step> {
    let mut steps = vec![
        step("format", &["fmt", "--all", "--check"]),
        step("clippy", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
    ];
    if has_nextest() {
        steps.push(step("tests", &["nextest", "run", "--workspace"]));
        steps.push(step("doc-tests", &["test", "--workspace", "--doc", "--quiet"]));
    } else {
        steps.push(step("tests", &["test", "--workspace"]));
    }
    let mut docs = cargo();
    docs.args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
    steps.push(Step { name: "docs", is_fast: false, action: Action::Run(docs) });
    steps.push(Step { name: "fuzz", is_fast: false, action: Action::Fuzz });
    steps.push(Step { name: "build", is_fast: false, action: Action::Build });
    steps.push(Step { name: "generate", is_fast: false, action: Action::Generate });
    steps.push(Step { name: "golden", is_fast: false, action: Action::Golden });
    steps
}

fn has_nextest() -> bool {
    cargo().args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success())
}

impl Step {
    fn command(&self) -> String {
        match &self.action {
            Action::Run(command) => shown(command),
            Action::Build => "cargo build --release --package arcuate".to_owned(),
            Action::Fuzz => "cargo xtask fuzz".to_owned(),
            Action::Generate => "cargo xtask generate --check".to_owned(),
            Action::Golden => "cargo xtask golden".to_owned(),
        }
    }

    fn run(&mut self) -> Result<()> {
        match &mut self.action {
            Action::Run(command) => run_command(command),
            Action::Build => build_arcuate().map(drop),
            Action::Fuzz => fuzz::run(&fuzz::Args::default()),
            Action::Generate => generate::run(&generate::Args { check: true, ..Default::default() }),
            Action::Golden => golden::run(&golden::Args::default()),
        }
    }
}

/// Runs the steps and stops at the first that fails.
pub(super) fn run(args: &Args) -> Result<()> {
    let mut steps = steps();
    if let Some(unknown) = args
        .skip
        .iter()
        .find(|name| name.as_str() != "doc-tests" && steps.iter().all(|step| step.name != name.as_str()))
    {
        let names: Vec<&str> = steps.iter().map(|step| step.name).collect();
        bail!("`{unknown}` is no step; there are {}", names.join(", "));
    }
    let mut rows = Vec::new();
    let mut failure = None;
    for step in &mut steps {
        if failure.is_some() || (args.fast && !step.is_fast) || args.skip.iter().any(|name| name == step.name) {
            rows.push((step.name, "skipped", Duration::ZERO));
            continue;
        }
        println!("--- {}: {}", step.name, step.command());
        let started = Instant::now();
        match step.run() {
            Ok(()) => rows.push((step.name, "passed", started.elapsed())),
            Err(error) => {
                rows.push((step.name, "FAILED", started.elapsed()));
                failure =
                    Some(error.context(format!("step `{}` failed; repeat it with `{}`", step.name, step.command())));
            }
        }
    }
    print!("{}", summary(&rows));
    failure.map_or(Ok(()), Err)
}

fn summary(rows: &[(&str, &str, Duration)]) -> String {
    let mut text = format!("\n{:<12}{:<10}{:>9}\n", "step", "result", "seconds");
    for (name, result, time) in rows {
        let seconds = if *result == "skipped" { "-".to_owned() } else { format!("{:.1}", time.as_secs_f64()) };
        text.push_str(&format!("{name:<12}{result:<10}{seconds:>9}\n"));
    }
    let total: Duration = rows.iter().map(|row| row.2).sum();
    text.push_str(&format!("{:<22}{:>9.1}\n", "total", total.as_secs_f64()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_has_a_row_for_each_step() {
        let rows = [("format", "passed", Duration::from_millis(1500)), ("golden", "skipped", Duration::ZERO)];
        let text = summary(&rows);
        assert!(text.contains("format      passed          1.5\ngolden      skipped           -\n"), "{text}");
        assert!(text.ends_with("total                       1.5\n"), "{text}");
    }

    #[test]
    fn an_unknown_step_is_refused_before_anything_runs() {
        let args = Args { fast: true, skip: vec!["tets".to_owned()] };
        let error = run(&args).expect_err("misspelt").to_string();
        assert!(error.starts_with("`tets` is no step; there are format, clippy, tests"), "{error}");
    }

    #[test]
    fn warnings_are_denied_everywhere() {
        let commands: Vec<String> = steps().iter().map(Step::command).collect();
        let denied = commands.iter().filter(|command| command.contains("-D warnings")).count();
        assert_eq!(denied, 2, "{commands:?}");
    }
}
