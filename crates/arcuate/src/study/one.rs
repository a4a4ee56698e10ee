//! One run of a study, in the process that was started for it.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use arcuate_eval::{CommitteeMean, TaskResult, lm_eval_json};
use arcuate_recipe::study::{Combine, EvalStepConfig};
use arcuate_recipe::{Loaded, Study, StudyRun, Work};
use arcuate_record::{Cost, Index, MetricsWriter, Record, RunDir, State};
use arcuate_train::StopFlag;

use crate::exit::{Coded, usage};
use crate::memory;
use crate::session::{self, Options};
use crate::terminal::say;

/// Makes the run of that name. Ends when standard input ends.
pub(crate) fn run_one(study: &Loaded<Study>, name: &str, options: Options) -> Result<()> {
    let folder = super::folder(&options.runs_dir, &study.value);
    let runs = study.value.runs();
    let Some(run) = runs.iter().find(|run| run.name == name) else {
        return Err(usage(format!("the study has no run `{name}`")));
    };
    stop_with_input(&options.stop)?;
    let inputs = arcuate_study::inputs(run, &folder, &study.source)?;
    let path = folder.join(&run.name);
    if let Some(aside) = crate::pipeline::move_aside(&path, &inputs)? {
        say("run", &format!("its inputs changed; the earlier run is kept as {}", aside.display()));
    }
    let options = Options { runs_dir: folder.clone(), ..options };
    match &run.work {
        Work::Train(recipe) => {
            let (loaded, findings) = run.load(&folder, &study.source).context("a training has a recipe")??;
            crate::commands::refuse(arcuate_recipe::diagnose(&findings, &loaded.source))?;
            let text = crate::commands::read(recipe)?;
            session::run_with(&loaded, &text, &options, Some(&inputs)).map(drop)
        }
        Work::Eval(eval, models) => in_folder(run, &folder, &inputs, |path| evaluate(run, &folder, path, eval, models)),
        Work::Command(_) => in_folder(run, &folder, &inputs, |path| {
            let begun = Instant::now();
            command(&run.arguments(&folder), path, &options.stop)?;
            let mut cost = labelling(path)?;
            cost.seconds = begun.elapsed().as_secs_f64();
            cost.save(path)?;
            Ok(())
        }),
    }
}

/// Standard input is a line to the program that started this one: its end asks for a stop.
fn stop_with_input(stop: &StopFlag) -> Result<()> {
    let stop = stop.clone();
    let watch = move || {
        let mut input = std::io::stdin().lock();
        let mut buffer = [0; 64];
        while input.read(&mut buffer).is_ok_and(|num| num > 0) {}
        stop.request();
    };
    std::thread::Builder::new().name("parent".to_owned()).spawn(watch)?;
    Ok(())
}

/// Does work that is no training in a run folder.
fn in_folder(run: &StudyRun, folder: &Path, inputs: &str, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let text = run.definition(folder);
    let mut dir = RunDir::create_or_open_resolved(folder, &run.name, &text, &text)?;
    dir.write("inputs.hash", inputs.as_bytes())?;
    let result = work(dir.path());
    let (state, message) = match &result {
        Ok(()) => (State::Done, None),
        Err(error) if crate::exit::code(error) == 75 => (State::Preempted, Some(error.to_string())),
        Err(error) => (State::Failed, Some(format!("{error:#}"))),
    };
    dir.finish(state, 0, message.as_deref())?;
    let summary = arcuate_record::summarise(dir.path())?;
    Index::open(folder).and_then(|index| index.upsert(&summary))?;
    result
}

fn evaluate(run: &StudyRun, folder: &Path, path: &Path, eval: &EvalStepConfig, models: &[String]) -> Result<()> {
    let begun = Instant::now();
    let checkpoints: Vec<_> = models.iter().map(|model| run.checkpoint(folder, model)).collect();
    let mean = eval.combine.map(|combine| match combine {
        Combine::MeanProbability => CommitteeMean::Probability,
        Combine::MeanLogit => CommitteeMean::Logit,
    });
    let mut cost = Cost::default();
    let result = crate::commands::one_task(&checkpoints, &run.task(folder, eval), mean, eval.limit, &mut cost)?;
    let names = models.join(",");
    let json = lm_eval_json(&names, 16, std::slice::from_ref(&result));
    arcuate_record::write_atomic(&path.join("results.json"), format!("{json:#}\n").as_bytes())?;
    record(&result, path)?;
    cost.seconds = begun.elapsed().as_secs_f64();
    cost.peak_memory_bytes = memory::peak();
    cost.save(path)?;
    Ok(())
}

/// What a model took to label texts into a folder, as it is written beside them.
fn labelling(path: &Path) -> Result<Cost> {
    let mut cost = Cost::default();
    for entry in std::fs::read_dir(path).with_context(|| format!("cannot read `{}`", path.display()))? {
        let file = entry?.path();
        if file.to_string_lossy().ends_with(".annotation.json") {
            let about: serde_json::Value = serde_json::from_str(&crate::commands::read(&file)?)?;
            cost += serde_json::from_value::<Cost>(about["cost"].clone()).unwrap_or_default();
        }
    }
    Ok(cost)
}

/// The metrics of a task as a line of `metrics.jsonl`, so that an evaluation can be read like a training.
fn record(result: &TaskResult, path: &Path) -> Result<()> {
    let mut record = Record::new(0, "eval");
    for (name, metric) in &result.metrics {
        record = record.value(name, metric.value);
    }
    // A training calls it so.
    if let Some(accuracy) = result.metrics.get("acc") {
        record = record.value("accuracy", accuracy.value);
    }
    let mut metrics = MetricsWriter::open(&path.join("metrics.jsonl"), None)?;
    metrics.write(&record)?;
    Ok(metrics.sync()?)
}

/// Another command of this program; what it prints goes into the folder.
fn command(arguments: &[String], path: &Path, stop: &StopFlag) -> Result<()> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let output = path.join("output.txt");
    let file = std::fs::File::create(&output).with_context(|| format!("cannot write `{}`", output.display()))?;
    let mut child = Command::new(program).args(arguments).stdin(Stdio::null()).stdout(file).spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            if status.success() {
                return Ok(());
            }
            let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
            let message = format!("`arcuate {}` ended with exit code {code}", arguments.join(" "));
            return Err(Coded { code, message }.into());
        }
        if stop.is_requested() {
            child.kill()?;
            child.wait()?;
            return Err(Coded { code: 75, message: "stopped; the command begins again".to_owned() }.into());
        }
        std::thread::sleep(super::PAUSE);
    }
}
