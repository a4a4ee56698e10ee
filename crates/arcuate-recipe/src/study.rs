//! A study: a claim as an experiment. Arms that differ in one thing, the same seeds for all, a rule fixed before the runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use arcuate_record::statistics::IntervalKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

mod budget;
mod check;
mod runs;

pub use check::{CheckedStudy, check_study, check_whole_study};
pub use runs::{CheckedRecipe, StudyRun, Work};

/// A study file: a claim, the arms that test it, and the rule that decides. A file is a study if it has `[[arm]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Study {
    /// Name of the study and of its folder under `runs/`; every run of the study lies in it.
    pub name: String,
    /// The claim in words.
    pub claim: String,
    /// Where the claim was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<String>,
    /// What would refute the claim, in words. The rule that the program follows is `[decision]` with `[[contrast]]`.
    pub refuted_if: String,
    /// Every arm runs once with each of these seeds; equal seeds of two arms are a pair. At least 2.
    pub seeds: Vec<u64>,
    /// What is measured.
    pub metric: MetricConfig,
    /// What is the same for all arms.
    pub budget: BudgetConfig,
    /// How the measured numbers decide.
    pub decision: DecisionConfig,
    /// Steps that several arms take something from: a tokenizer, a base model, a teacher, labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<StepConfig>,
    /// What is compared.
    pub arm: Vec<ArmConfig>,
    /// The comparisons that make up the claim.
    #[serde(default)]
    pub contrast: Vec<ContrastConfig>,
    /// What the publication reports; shown beside our numbers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paper: Vec<PaperConfig>,
}

/// `[metric]`: the number that is measured in the last step of every arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MetricConfig {
    /// Its name in `metrics.jsonl` as `kind/name`: `eval/accuracy`, `eval/loss`, `eval/bits_per_byte`, `train/loss`.
    pub name: String,
    /// Which way it is better.
    pub better: Better,
    /// Which value of a run counts. `last` is the one after the last step; `best` chooses on the data it reports on.
    pub take: Take,
    /// The metric is multiplied by this before anything else: 100 turns a share into points. Effects, bounds and the figures of
    /// the paper are in this unit.
    #[serde(default = "one")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub scale: f64,
    /// The unit in tables, such as `points`.
    #[serde(default)]
    pub unit: String,
}

fn one() -> f64 {
    1.0
}

/// Which way a metric is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Accuracies, scores.
    Higher,
    /// Losses, error rates.
    Lower,
}

impl Better {
    /// `higher` or `lower`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
        }
    }
}

/// Which value of a run counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    /// The last one.
    Last,
    /// The best one.
    Best,
}

/// `[budget]`: what the arms must have the same of, so that the comparison is fair; exactly one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetConfig {
    /// Steps of the optimizer.
    Steps(SameBudget),
    /// Training tokens, padding included.
    Tokens(SameBudget),
    /// Seconds of training as measured; compared after the runs.
    Seconds(SecondsBudget),
    /// Nothing: the claim is about the budget itself.
    Free(FreeBudget),
}

/// The same number for all arms; refused by the check if it is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SameBudget {
    /// Which trainings of an arm count.
    pub of: BudgetScope,
}

/// `[budget.seconds]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecondsBudget {
    /// Which trainings of an arm count.
    pub of: BudgetScope,
    /// Largest share by which the arms may differ; beyond it nothing is held.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub tolerance: f64,
}

/// `[budget.free]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FreeBudget {
    /// Why the arms may differ; it stands in the report.
    pub why: String,
}

/// Which trainings of an arm a budget counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// The last training before the measurement.
    LastTraining,
    /// All trainings of the arm, without shared steps.
    Arm,
    /// All trainings that the measurement rests on, with shared steps.
    All,
}

/// `[decision]`: the rule that turns numbers into a verdict.
///
/// A contrast is held if the test rejects, the mean effect has the expected sign and at least the smallest size that matters;
/// it is not held if the interval leaves no room for an effect of that size; otherwise it is inconclusive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecisionConfig {
    /// The two-sided test of the effect, paired by seed.
    pub test: TestKind,
    /// How intervals are made.
    pub interval: IntervalKind,
    /// Confidence of the intervals; 1 minus it is the level of the test.
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub confidence: f64,
    /// What makes up for testing several contrasts.
    pub correction: Correction,
    /// Also ask for at least so many seeds with the expected sign. Left out: not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub held_signs: Option<u64>,
    /// Not held if at least so many seeds do not have the expected sign. Left out: not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub refuted_signs: Option<u64>,
    /// Standard deviation of the paired differences that is expected; `check` then says how many seeds are needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("exclusiveMinimum" = 0.0))]
    pub assumed_std: Option<f64>,
    /// The chance with which the smallest effect that matters should be seen, for the number of seeds needed.
    #[serde(default = "usual_power")]
    #[schemars(extend("exclusiveMinimum" = 0.0, "exclusiveMaximum" = 1.0))]
    pub power: f64,
}

fn usual_power() -> f64 {
    0.8
}

/// The test of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TestKind {
    /// Student's t-test on the differences by seed.
    PairedT,
    /// The exact sign test.
    Sign,
    /// No test: `held_signs` alone decides whether an effect is there.
    None,
}

impl TestKind {
    /// In words, for tables.
    pub fn words(self) -> &'static str {
        match self {
            Self::PairedT => "paired t-test",
            Self::Sign => "exact sign test",
            Self::None => "number of signs",
        }
    }
}

/// What makes up for testing several contrasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Correction {
    /// Holm: no false claim among all, with the stated confidence.
    Holm,
    /// Benjamini and Hochberg: few false claims among those held.
    BenjaminiHochberg,
    /// None.
    None,
}

impl Correction {
    /// In words, for tables.
    pub fn words(self) -> &'static str {
        match self {
            Self::Holm => "Holm",
            Self::BenjaminiHochberg => "Benjamini-Hochberg",
            Self::None => "not corrected",
        }
    }
}

/// A step that runs once, or once per seed, and hands something over. It is a training, an evaluation or a command.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepConfig {
    /// Name of the step.
    pub name: String,
    /// The recipe file of a training, relative to the current folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<PathBuf>,
    /// An evaluation over checkpoints of other steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalStepConfig>,
    /// Another command of this program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandStepConfig>,
    /// Values that are changed in the recipe, by key path, as with `--set`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, serde_json::Value>,
    /// Key paths of the recipe, arguments of the command, or the file of the evaluation, that take the best checkpoint of another step: `"pretrain"`; or a
    /// file from its folder: `"label/labels.jsonl"`. A step of the same arm, a shared step, an arm, or `ARM.STEP`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub from: BTreeMap<String, String>,
    /// Shared steps only: run once with each seed. Otherwise once, with the seed of the recipe.
    #[serde(default)]
    pub per_seed: bool,
    /// Train so many models for each seed, which differ in their seed: the members of a committee. A training that takes from
    /// such a step has as many members; an evaluation takes them all.
    #[serde(default = "single")]
    #[schemars(range(min = 1, max = 999))]
    pub members: u64,
    /// Other key paths of the recipe that take the seed too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seed_keys: Vec<String>,
}

fn single() -> u64 {
    1
}

/// `[[arm]]`: one way of doing it. Either a single step, or a chain of them in `[[arm.step]]`; the last one is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArmConfig {
    /// Name of the arm.
    pub name: String,
    /// What it is, in words.
    #[serde(default)]
    pub words: String,
    /// The recipe file of a training, relative to the current folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<PathBuf>,
    /// An evaluation over checkpoints of other steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval: Option<EvalStepConfig>,
    /// Values that are changed in the recipe, by key path, as with `--set`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, serde_json::Value>,
    /// What is taken from other steps; as in a step.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub from: BTreeMap<String, String>,
    /// Other key paths of the recipe that take the seed too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seed_keys: Vec<String>,
    /// The steps of a chain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step: Vec<StepConfig>,
}

/// An evaluation step: one task over the checkpoints of other steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvalStepConfig {
    /// The task as in `arcuate eval`: `held-out`, `classify:FILE.jsonl`, `tag:FILE.jsonl`, `choice:FILE.jsonl`, `text:FILE`, `recipe:FILE.toml`.
    /// A file that is a key of `from` is replaced by the path: `task = "classify:TEST"` with `from = { TEST = "draw/test.jsonl" }`.
    pub task: String,
    /// Steps whose best checkpoints are evaluated; all members of a step that has several.
    pub models: Vec<String>,
    /// Only the first so many of them. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub num_models: Option<u64>,
    /// How several models answer together. Must be given if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combine: Option<Combine>,
    /// Take only the first so many questions or documents. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub limit: Option<u64>,
}

/// How several classifiers answer together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// The mean of their probabilities.
    MeanProbability,
    /// The mean of their logits.
    MeanLogit,
}

/// A command step: another command of this program, such as one that labels texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandStepConfig {
    /// The command and its arguments. An argument that is a key of `from` or `output` is replaced by the path, the argument `SEED`
    /// by the seed of the run.
    pub args: Vec<String>,
    /// Arguments that stand for files in the folder of the step: `{ LABELS = "labels.jsonl" }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub output: BTreeMap<String, String>,
}

/// `[[contrast]]`: a comparison between arms, paired by seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContrastConfig {
    /// Name of the contrast.
    pub name: String,
    /// What it claims, in words.
    #[serde(default)]
    pub words: String,
    /// The arm that is claimed something of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arm: Option<String>,
    /// The arm that it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<String>,
    /// Instead of `arm` and `against`: a sum over arms with these weights, which add up to 0, such as a difference of
    /// differences: `{ a200 = 1, b200 = -1, a20 = -1, b20 = 1 }`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, f64>,
    /// What is claimed of the effect.
    pub expected: Expected,
    /// The smallest effect that matters, in the unit of the metric; the margin of `not_worse` and `equal`.
    #[schemars(range(min = 0.0))]
    pub smallest_effect: f64,
}

/// What is claimed of an effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// The arm is better, by at least the smallest effect.
    Better,
    /// The arm is worse, by at least the smallest effect.
    Worse,
    /// The arm is worse by less than the smallest effect, if at all.
    NotWorse,
    /// Neither is better by the smallest effect.
    Equal,
}

impl Expected {
    /// In words, for tables.
    pub fn words(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NotWorse => "not worse",
            Self::Equal => "equal",
        }
    }
}

/// `[[paper]]`: a figure of the publication.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaperConfig {
    /// What the figure is.
    pub what: String,
    /// The figure, as printed there.
    pub figure: String,
    /// Where it stands: `Table 4, column 100K`.
    pub place: String,
    /// The arm or contrast of ours that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
}

impl ArmConfig {
    /// The steps of the arm; a single step has no name of its own.
    pub fn steps(&self) -> Vec<StepConfig> {
        if !self.step.is_empty() {
            return self.step.clone();
        }
        vec![StepConfig {
            recipe: self.recipe.clone(),
            eval: self.eval.clone(),
            set: self.set.clone(),
            from: self.from.clone(),
            members: 1,
            seed_keys: self.seed_keys.clone(),
            ..StepConfig::default()
        }]
    }
}

impl ContrastConfig {
    /// Weight of each arm.
    pub fn arms(&self) -> BTreeMap<String, f64> {
        match (&self.arm, &self.against) {
            (Some(arm), Some(against)) => BTreeMap::from([(arm.clone(), 1.0), (against.clone(), -1.0)]),
            _ => self.weights.clone(),
        }
    }
}
