//! `arcuate check` of a study: every mistake of the file and of all recipes at once, then what the whole study will take.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use arcuate_recipe::plan::Plan;
use arcuate_recipe::{Loaded, Recipe, Study, StudyRun, build, check_whole_study};
use arcuate_record::statistics::pairs_needed;
use arcuate_record::text_table;
use arcuate_text::TokenizerConfig;
use serde_json::json;

use super::{How, estimated_seconds, rehearse, scan};
use crate::memory;
use crate::session::{self, Parts};
use crate::terminal::{self, amount, duration, say};

mod stand_in;

/// What one run of a step will take; nothing is known of what is not there yet.
struct Costed {
    run: StudyRun,
    num_runs: usize,
    num_left: usize,
    plan: Option<Plan>,
    seconds: Option<f64>,
    why_unknown: String,
}

pub(super) fn check(study: &Loaded<Study>, runs_dir: &Path, how: How) -> Result<()> {
    let begun = Instant::now();
    let folder = crate::study::folder(runs_dir, &study.value);
    let checked = check_whole_study(study, &folder);
    super::super::refuse(checked.found)?;
    let all = study.value.runs();
    // Tokenizers that earlier steps would make, so that later ones can be planned.
    let made = Made { dir: std::env::temp_dir().join(format!("arcuate-study-check-{}", std::process::id())) };
    let mut measured: BTreeMap<String, Option<f64>> = BTreeMap::new();
    let mut costed = Vec::new();
    for (run, loaded) in checked.runs {
        let same = all.iter().filter(|other| other.step == run.step);
        let num_left = same.clone().filter(|other| !arcuate_study::is_done(other, &folder, &study.source)).count();
        let num_runs = same.count();
        let mut costs = Costed { num_runs, num_left, plan: None, seconds: None, why_unknown: String::new(), run };
        match loaded {
            Some(loaded) => {
                let (loaded, missing) = settled(&costs.run, &loaded, &folder, &made.dir, &all)?;
                if !missing.is_empty() {
                    costs.why_unknown = format!("at most: {} not there yet", missing.join(", "));
                }
                let how = How { scan: how.scan && missing.is_empty(), ..how };
                cost(&mut costs, &loaded, &made.dir, how, &mut measured)?;
            }
            None => costs.why_unknown = format!("{}: not planned", crate::study::kind(&costs.run)),
        }
        costed.push(costs);
    }
    report(study, &folder, &costed, how)?;
    if !how.json {
        say("ok", &format!("checked in {}", duration(begun.elapsed().as_secs_f64())));
    }
    Ok(())
}

/// A folder that goes away with its owner.
struct Made {
    dir: std::path::PathBuf,
}

impl Drop for Made {
    fn drop(&mut self) {
        // It may never have been made.
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

/// The recipe with what is handed over replaced by what is there: a tokenizer of this check, random weights, made-up texts; and
/// what the made-up things stand for.
fn settled(
    run: &StudyRun,
    loaded: &Loaded<Recipe>,
    folder: &Path,
    made: &Path,
    all: &[StudyRun],
) -> Result<(Loaded<Recipe>, Vec<String>)> {
    let mut loaded = loaded.clone();
    let mut missing = Vec::new();
    let recipe = &mut loaded.value;
    recipe.init_from = recipe.init_from.take().filter(|dir| dir.exists());
    for (key, path) in run.handed(folder).into_iter().filter(|(_, path)| !path.exists()) {
        let giver = run.giver(&key).unwrap_or_default();
        let tokenizer = made.join(giver).join(build::TOKENIZER_FOLDER);
        let source = key.strip_prefix("data.source.").and_then(|key| key.strip_suffix(".path"));
        let is_list = stand_in::list_of(recipe, &key).is_some();
        match (&mut recipe.tokenizer, key.as_str(), source) {
            (_, "init_from", _) => {}
            (TokenizerConfig::File(file), "tokenizer.file.path", _) if tokenizer.exists() => file.path = tokenizer,
            (TokenizerConfig::File(_), "tokenizer.file.path", _) => {
                missing.push(format!("tokenizer of `{giver}`"));
                let run = all.iter().find(|run| run.name == giver);
                let path = stand_in::tokenizer(recipe, run, made)?;
                recipe.tokenizer = TokenizerConfig::File(arcuate_text::file::Config { path });
            }
            (_, _, Some(source)) if recipe.data.source.contains_key(source) => {
                missing.push(format!("texts of `{giver}`"));
                let config = recipe.data.source[source].clone();
                let name = format!("{}-{source}", run.name);
                let path = stand_in::texts(recipe, &config, made, &name)?.display().to_string();
                if let Some(config) = recipe.data.source.get_mut(source) {
                    config.path = path;
                }
            }
            _ if is_list => {
                missing.push(format!("recordings of `{giver}`"));
                let path = stand_in::recordings(recipe, made, &format!("{}-{key}", run.name))?;
                let config = arcuate_data::speech::nemo::Config { path: path.display().to_string() };
                if let Some(list) = stand_in::list_of(recipe, &key) {
                    list.format = arcuate_data::speech::SpeechFormat::Nemo(config);
                }
            }
            _ => anyhow::bail!("`{}` of `{giver}` is not there yet", path.display()),
        }
    }
    missing.dedup();
    if !missing.is_empty() {
        // Made-up texts do not belong into the cache of real ones.
        recipe.data.cache_dir = made.join("cache");
    }
    Ok((loaded, missing))
}

fn cost(
    costs: &mut Costed,
    loaded: &Loaded<Recipe>,
    made: &Path,
    how: How,
    measured: &mut BTreeMap<String, Option<f64>>,
) -> Result<()> {
    let recipe = &loaded.value;
    let own = made.join(&costs.run.name);
    let Parts { tokenizer, corpus, objective } = session::prepare(recipe, Some(&own), how.json)?;
    super::super::refuse(arcuate_recipe::diagnose(&build::check_corpus(recipe, &corpus), &loaded.source))?;
    let found = build::check_network(recipe, &tokenizer, corpus.label_names(), memory::available())?;
    super::super::refuse(arcuate_recipe::diagnose(&found, &loaded.source))?;
    let architecture = build::architecture(recipe, tokenizer.vocab_size(), corpus.label_names())?;
    let bytes = corpus.summary().iter().map(|source| source.bytes).sum();
    let plan = arcuate_recipe::plan::plan(recipe, &architecture, bytes, |tokens| corpus.expected_ledger(tokens));
    // Arms often differ only in what they start from: the same work is scanned and measured once.
    let mut alike = recipe.clone();
    (alike.name, alike.seed, alike.init_from) = (String::new(), 0, None);
    if let TokenizerConfig::File(file) = &mut alike.tokenizer {
        file.path = tokenizer.hash().into();
    }
    let key = build::recipe_hash(&alike);
    if !measured.contains_key(&key) {
        if how.scan {
            scan(loaded, how)?;
        }
        let rehearsal =
            if how.rehearse { Some(rehearse(recipe, &tokenizer, &corpus, objective.as_ref())?) } else { None };
        measured.insert(key.clone(), rehearsal.map(|rehearsal| estimated_seconds(recipe, &plan, &rehearsal)));
    }
    costs.seconds = measured.get(&key).copied().flatten();
    costs.plan = Some(plan);
    Ok(())
}

/// Seeds that each contrast needs with the scatter that the file assumes.
fn seeds_needed(study: &Study) -> Vec<(String, Option<u64>)> {
    let decision = &study.decision;
    let Some(std) = decision.assumed_std else { return Vec::new() };
    let needed = |effect: f64| pairs_needed(effect / std, decision.power, 1.0 - decision.confidence);
    let contrasts = study.contrast.iter().filter(|contrast| contrast.smallest_effect > 0.0);
    contrasts.map(|c| (c.name.clone(), needed(c.smallest_effect).map(|pairs| pairs.ceil() as u64))).collect()
}

fn report(study: &Loaded<Study>, folder: &Path, costed: &[Costed], how: How) -> Result<()> {
    let disk = |plan: &Plan| plan.checkpoint_bytes * plan.num_checkpoints;
    let sum = |each: &dyn Fn(&Costed) -> f64| costed.iter().map(each).sum::<f64>();
    let of_plan = |c: &Costed, value: &dyn Fn(&Plan) -> f64| c.plan.as_ref().map_or(0.0, value);
    let tokens = sum(&|c| c.num_runs as f64 * of_plan(c, &|p| p.tokens as f64));
    let flops = sum(&|c| c.num_runs as f64 * of_plan(c, &|p| p.flops_per_token * p.tokens as f64));
    let bytes = sum(&|c| c.num_runs as f64 * of_plan(c, &|p| disk(p) as f64));
    let bytes_left = sum(&|c| c.num_left as f64 * of_plan(c, &|p| disk(p) as f64));
    let seconds = sum(&|c| c.num_runs as f64 * c.seconds.unwrap_or_default());
    let seconds_left = sum(&|c| c.num_left as f64 * c.seconds.unwrap_or_default());
    let memory =
        costed.iter().filter_map(|c| c.plan.as_ref()).map(|plan| plan.memory.expected).max().unwrap_or_default();
    let num_runs: usize = costed.iter().map(|c| c.num_runs).sum();
    let num_left: usize = costed.iter().map(|c| c.num_left).sum();
    let needed = seeds_needed(&study.value);
    let num_seeds = study.value.seeds.len() as u64;
    let mut warnings = Vec::new();
    let place = folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("."));
    if let Some(free) = arcuate_train::free_bytes(place).filter(|free| bytes_left > *free as f64) {
        let (wanted, free) = (amount(bytes_left), amount(free as f64));
        warnings.push(format!("the checkpoints need {wanted}B, but only {free}B are free here"));
    }
    for (name, needed) in needed.iter().filter(|(_, needed)| needed.is_none_or(|needed| needed > num_seeds)) {
        let needed = needed.map_or_else(|| "very many".to_owned(), |needed| needed.to_string());
        warnings
            .push(format!("contrast `{name}` needs {needed} seeds for its smallest effect, and there are {num_seeds}"));
    }
    if how.json {
        let step = |c: &Costed| {
            json!({"step": c.run.step, "kind": crate::study::kind(&c.run), "runs": c.num_runs, "left": c.num_left,
                "plan": c.plan, "seconds_each": c.seconds, "unknown": c.why_unknown})
        };
        terminal::result(
            &json!({"study": study.value.name, "steps": costed.iter().map(step).collect::<Vec<_>>(),
                "runs": num_runs, "left": num_left, "tokens": tokens, "flops": flops, "disk_bytes": bytes,
                "seconds": how.rehearse.then_some(seconds), "seconds_left": how.rehearse.then_some(seconds_left),
                "seeds_needed": needed, "warnings": warnings})
            .to_string(),
        );
        return Ok(());
    }
    let row = |c: &Costed| {
        let dash = || "-".to_owned();
        let number = |value: &dyn Fn(&Plan) -> f64| c.plan.as_ref().map_or_else(dash, |plan| amount(value(plan)));
        vec![
            c.run.step.clone(),
            crate::study::kind(&c.run).to_owned(),
            c.num_runs.to_string(),
            number(&|p| p.num_parameters as f64),
            number(&|p| p.tokens as f64),
            number(&|p| p.flops_per_token * p.tokens as f64),
            number(&|p| p.memory.expected as f64),
            number(&|p| disk(p) as f64),
            c.seconds.map_or_else(dash, duration),
            c.why_unknown.clone(),
        ]
    };
    let headers = ["step", "kind", "runs", "parameters", "tokens", "FLOPs", "memory", "disk", "time each", ""];
    say("study", &format!("{}: {}", study.value.name, study.value.claim));
    say("", &text_table(&headers, &costed.iter().map(row).collect::<Vec<_>>()));
    let left = if num_left == num_runs { String::new() } else { format!(", {num_left} not done yet") };
    say("runs", &format!("{num_runs}{left}, {num_seeds} seeds, {} arms", study.value.arm.len()));
    say("work", &format!("{} tokens, {}FLOP in all", amount(tokens), amount(flops)));
    say("memory", &format!("{}B for each run at once", amount(memory as f64)));
    say("disk", &format!("{}B of checkpoints in all", amount(bytes)));
    if how.rehearse {
        let left = if num_left == num_runs { String::new() } else { format!(", {} left", duration(seconds_left)) };
        say("time", &format!("about {} one after the other{left}", duration(seconds)));
    }
    for (name, needed) in &needed {
        let needed = needed.map_or_else(|| "very many".to_owned(), |needed| needed.to_string());
        say(
            "power",
            &format!("{name}: {needed} seeds show the smallest effect with power {}", study.value.decision.power),
        );
    }
    for warning in &warnings {
        say("warning", warning);
    }
    Ok(())
}
