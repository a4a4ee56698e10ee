//! Results in the JSON shape of lm-eval, so that tools which read those read ours.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// A number with its uncertainty.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The number.
    pub value: f64,
    /// Its standard error, where one is known.
    pub stderr: Option<f64>,
    /// Its 95% bootstrap interval, where one was drawn: low and high.
    pub interval: Option<[f64; 2]>,
    /// Whether more is better.
    pub higher_is_better: bool,
}

impl Metric {
    /// A number without uncertainty.
    pub fn plain(value: f64, higher_is_better: bool) -> Self {
        Self { value, stderr: None, interval: None, higher_is_better }
    }
}

/// The result of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    /// Name of the task.
    pub task: String,
    /// Metrics by name, such as `acc` or `bits_per_byte`.
    pub metrics: BTreeMap<String, Metric>,
    /// Items that there are.
    pub num_original: u64,
    /// Items that were evaluated.
    pub num_effective: u64,
    /// What the task was: file, delimiter, stride.
    pub config: Value,
    /// Everything that has no place in lm-eval's shape: losses per source, confusion matrix.
    pub details: Value,
}

/// Results of several tasks for one model as lm-eval writes them, with `intervals` and `details` beside.
pub fn lm_eval_json(model: &str, microbatch: usize, tasks: &[TaskResult]) -> Value {
    let by_task = |value: &dyn Fn(&TaskResult) -> Value| -> Map<String, Value> {
        tasks.iter().map(|task| (task.task.clone(), value(task))).collect()
    };
    let results = by_task(&|task| {
        let mut object = Map::new();
        object.insert("alias".to_owned(), json!(task.task));
        for (name, metric) in &task.metrics {
            object.insert(format!("{name},none"), json!(metric.value));
            let stderr = metric.stderr.map_or_else(|| json!("N/A"), |stderr| json!(stderr));
            object.insert(format!("{name}_stderr,none"), stderr);
        }
        Value::Object(object)
    });
    let intervals = by_task(&|task| {
        let known = task.metrics.iter().filter_map(|(name, metric)| Some((name.clone(), json!(metric.interval?))));
        Value::Object(known.collect())
    });
    let higher = |task: &TaskResult| {
        Value::Object(
            task.metrics.iter().map(|(name, metric)| (name.clone(), json!(metric.higher_is_better))).collect(),
        )
    };
    json!({
        "results": results,
        "group_subtasks": by_task(&|_| json!([])),
        "configs": by_task(&|task| {
            let mut config = task.config.as_object().cloned().unwrap_or_default();
            config.insert("task".to_owned(), json!(task.task));
            Value::Object(config)
        }),
        "versions": by_task(&|_| json!(1.0)),
        "n-shot": by_task(&|_| json!(0)),
        "higher_is_better": by_task(&higher),
        "n-samples": by_task(&|task| json!({"original": task.num_original, "effective": task.num_effective})),
        "config": {
            "model": "arcuate",
            "model_args": format!("pretrained={model}"),
            "batch_size": microbatch,
        },
        "intervals": intervals,
        "details": by_task(&|task| task.details.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> TaskResult {
        let acc = Metric { value: 0.75, stderr: Some(0.1), interval: Some([0.5, 0.9]), higher_is_better: true };
        TaskResult {
            task: "choice:a.jsonl".to_owned(),
            metrics: BTreeMap::from([("acc".to_owned(), acc), ("bits_per_byte".to_owned(), Metric::plain(1.5, false))]),
            num_original: 10,
            num_effective: 4,
            config: json!({"file": "a.jsonl"}),
            details: Value::Null,
        }
    }

    #[test]
    fn the_shape_is_that_of_lm_eval() {
        let json = lm_eval_json("runs/x", 8, &[task()]);
        let results = &json["results"]["choice:a.jsonl"];
        assert_eq!(results["acc,none"], 0.75);
        assert_eq!(results["acc_stderr,none"], 0.1);
        assert_eq!(results["bits_per_byte,none"], 1.5);
        assert_eq!(results["bits_per_byte_stderr,none"], "N/A");
        assert_eq!(json["n-samples"]["choice:a.jsonl"], json!({"original": 10, "effective": 4}));
        assert_eq!(json["configs"]["choice:a.jsonl"], json!({"file": "a.jsonl", "task": "choice:a.jsonl"}));
        for key in ["versions", "n-shot", "higher_is_better", "group_subtasks"] {
            assert!(json[key].get("choice:a.jsonl").is_some(), "{key}");
        }
        assert_eq!(json["intervals"]["choice:a.jsonl"], json!({"acc": [0.5, 0.9]}));
    }

    #[test]
    fn no_tasks_make_empty_tables() {
        assert_eq!(lm_eval_json("m", 1, &[])["results"], json!({}));
    }
}
