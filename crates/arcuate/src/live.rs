//! The live display of a training: a bar on a terminal, a line now and then elsewhere, JSON lines on request.

use std::time::{Duration, Instant};

use arcuate_record::Record;
use arcuate_train::{Evaluation, HorizonConfig, StepReport};
use indicatif::{ProgressBar, ProgressStyle};

use crate::memory;
use crate::terminal::{amount, duration, say};

/// Seconds between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

pub(crate) struct Live {
    json: bool,
    horizon: HorizonConfig,
    bar: ProgressBar,
    smooth_loss: Option<f64>,
    smooth_bits: Option<f64>,
    smooth_rate: Option<f64>,
    last_line: Option<Instant>,
}

impl Live {
    pub(crate) fn new(json: bool, horizon: HorizonConfig) -> Self {
        let bar = if json { ProgressBar::hidden() } else { ProgressBar::new(horizon.amount()) };
        let style = "train   [{bar:28}] {percent:>3}%  {msg}  {eta} left";
        bar.set_style(ProgressStyle::with_template(style).expect("a sound template").progress_chars("=> "));
        Self { json, horizon, bar, smooth_loss: None, smooth_bits: None, smooth_rate: None, last_line: None }
    }

    pub(crate) fn started(&mut self, step: u64, tokens: u64) {
        if step > 0 {
            self.say("resume", &format!("from the checkpoint of step {step}"));
        }
        self.bar.set_position(self.place(step, tokens));
        self.bar.reset_eta();
    }

    fn place(&self, step: u64, tokens: u64) -> u64 {
        match self.horizon {
            HorizonConfig::Steps(_) => step,
            HorizonConfig::Tokens(_) => tokens,
        }
    }

    pub(crate) fn record(&self, record: &Record) {
        if self.json {
            crate::terminal::result(&record.to_json().to_string());
        }
    }

    pub(crate) fn stepped(&mut self, report: &StepReport) {
        let smooth = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| 0.95 * old + 0.05 * new));
        self.smooth_loss = smooth(self.smooth_loss, report.loss);
        if let Some(bits) = report.bits_per_byte {
            self.smooth_bits = smooth(self.smooth_bits, bits);
        }
        self.smooth_rate = smooth(self.smooth_rate, report.step_tokens as f64 / report.seconds.max(1e-9));
        let bits = self.smooth_bits.map_or_else(String::new, |bits| format!("  {bits:.3} bits/byte"));
        let text = format!(
            "step {}  loss {:.3}{bits}  {} tok/s  {} MB",
            report.step,
            self.smooth_loss.unwrap_or_default(),
            amount(self.smooth_rate.unwrap_or_default()),
            memory::peak() / 1_000_000
        );
        self.bar.set_position(self.place(report.step, report.tokens));
        if self.bar.is_hidden() && !self.json {
            let due = self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY);
            if due {
                let share = 100.0 * self.horizon.progress(report.step, report.tokens);
                let left = self.bar.eta().as_secs_f64();
                say("train", &format!("{share:3.0}%  {text}  {} left", duration(left)));
                self.last_line = Some(Instant::now());
            }
        }
        self.bar.set_message(text);
    }

    /// What is being done now, shown until the next step.
    pub(crate) fn note(&self, text: &str) {
        self.bar.set_message(text.to_string());
    }

    pub(crate) fn evaluated(&self, step: u64, result: &Evaluation, seconds: f64) {
        let name = if result.metric == "bits_per_byte" { "bits/byte" } else { &result.metric };
        let text = format!("step {step:<7} held-out {:.4} {name} in {}", result.value, duration(seconds));
        self.say("eval", &text);
    }

    pub(crate) fn saved(&self, step: u64, is_best: bool, seconds: f64) {
        let best = if is_best { ", the best so far" } else { "" };
        self.say("save", &format!("step {step:<7} checkpoint saved in {}{best}", duration(seconds)));
    }

    pub(crate) fn warn(&self, message: &str) {
        self.say("warning", message);
    }

    fn say(&self, label: &str, text: &str) {
        if !self.json {
            self.bar.suspend(|| say(label, text));
        }
    }

    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
