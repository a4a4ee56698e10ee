//! `metrics.jsonl`: one flat JSON object a line, each step once, also after kills and resumes.
//!
//! A line is `{"step": 40, "kind": "train", "loss": 3.91, …}`. Values that JSON has no number for are the strings
//! `"NaN"`, `"Infinity"` and `"-Infinity"`. Anything that is not a number is kept as extra.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::lines::next_line;
use crate::{AtomicFile, Error, Result};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// Finished steps.
    pub step: u64,
    /// What measured it: `train`, `eval`, `ledger`, …
    pub kind: String,
    /// Numbers by name; may be NaN or infinite.
    pub values: BTreeMap<String, f64>,
    /// Everything else by name: text, lists, objects. May not repeat a name of `values`.
    pub extra: Map<String, Value>,
}

impl Record {
    /// A record without values.
    pub fn new(step: u64, kind: &str) -> Self {
        Self { step, kind: kind.to_owned(), ..Self::default() }
    }

    /// Adds a number.
    #[must_use]
    pub fn value(mut self, name: &str, value: f64) -> Self {
        self.values.insert(name.to_owned(), value);
        self
    }

    /// Adds something that is not a number.
    #[must_use]
    pub fn extra(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    /// The line as a JSON object.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("step".into(), self.step.into());
        object.insert("kind".into(), self.kind.as_str().into());
        for (name, &value) in &self.values {
            object.insert(name.clone(), json_number(value));
        }
        for (name, value) in &self.extra {
            object.entry(name.clone()).or_insert_with(|| value.clone());
        }
        Value::Object(object)
    }

    /// Reads a line; `None` if it is not an object with a step.
    pub fn from_json(value: Value) -> Option<Self> {
        let Value::Object(object) = value else { return None };
        let mut record = Self::new(object.get("step")?.as_u64()?, "");
        for (name, value) in object {
            match (name.as_str(), &value) {
                ("step", _) => {}
                ("kind", Value::String(kind)) => record.kind.clone_from(kind),
                _ => match number(&value) {
                    Some(number) => drop(record.values.insert(name, number)),
                    None => drop(record.extra.insert(name, value)),
                },
            }
        }
        Some(record)
    }
}

fn json_number(value: f64) -> Value {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        value.into()
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

/// Appends to `metrics.jsonl`. Each line is one write to the system: a killed process loses nothing it has written.
#[derive(Debug)]
pub struct MetricsWriter {
    path: PathBuf,
    file: File,
    end: u64,
}

impl MetricsWriter {
    /// Opens or makes the file. `resume_step` is the step of the checkpoint that the run goes on from: later lines,
    /// torn ones and damaged ones are removed, because those steps are done again. `None` starts with an empty file.
    pub fn open(path: &Path, resume_step: Option<u64>) -> Result<Self> {
        let cannot = |cause| Error::io("write", path, cause);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(cannot)?;
        match resume_step {
            None => file.set_len(0).map_err(cannot)?,
            Some(step) => {
                let kept = kept_lines(&file, step).map_err(cannot)?;
                if kept.is_prefix {
                    file.set_len(kept.num_bytes).map_err(cannot)?;
                } else {
                    rewrite(path, &file, step)?;
                    file = OpenOptions::new().read(true).write(true).open(path).map_err(cannot)?;
                }
            }
        }
        let end = file.seek(SeekFrom::End(0)).map_err(cannot)?;
        Ok(Self { path: path.to_path_buf(), file, end })
    }

    /// Appends one line.
    pub fn write(&mut self, record: &Record) -> Result<()> {
        let mut line = record.to_json().to_string();
        line.push('\n');
        if let Err(cause) = self.file.write_all(line.as_bytes()) {
            // Half a line would spoil the next one, so the file goes back to where it was.
            drop(self.file.set_len(self.end).and_then(|()| self.file.seek(SeekFrom::Start(self.end))));
            return Err(Error::io("write", &self.path, cause));
        }
        self.end += line.len() as u64;
        Ok(())
    }

    /// Makes the lines survive a loss of power; call it with each checkpoint.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|cause| Error::io("write", &self.path, cause))
    }
}

struct Kept {
    /// Whether the lines to keep are the beginning of the file.
    is_prefix: bool,
    num_bytes: u64,
}

fn keep(bytes: &[u8], step: u64) -> bool {
    serde_json::from_slice(bytes).ok().and_then(Record::from_json).is_some_and(|record| record.step <= step)
}

fn kept_lines(file: &File, step: u64) -> io::Result<Kept> {
    let (mut reader, mut buffer) = (BufReader::new(file), Vec::new());
    let mut kept = Kept { is_prefix: true, num_bytes: 0 };
    let mut has_gap = false;
    while let Some(line) = next_line(&mut reader, &mut buffer)? {
        if line.is_complete && !line.is_too_long && keep(&buffer, step) {
            kept.is_prefix &= !has_gap;
            kept.num_bytes += line.num_bytes;
        } else {
            has_gap = true;
        }
    }
    Ok(kept)
}

fn rewrite(path: &Path, mut file: &File, step: u64) -> Result<()> {
    let cannot = |cause| Error::io("write", path, cause);
    file.rewind().map_err(cannot)?;
    let (mut reader, mut buffer) = (BufReader::new(file), Vec::new());
    let mut draft = io::BufWriter::new(AtomicFile::create(path)?);
    while let Some(line) = next_line(&mut reader, &mut buffer).map_err(cannot)? {
        if line.is_complete && !line.is_too_long && keep(&buffer, step) {
            buffer.push(b'\n');
            draft.write_all(&buffer).map_err(cannot)?;
        }
    }
    draft.into_inner().map_err(|cause| cannot(cause.into_error()))?.commit()
}

/// What a metrics file holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    /// The lines in order.
    pub records: Vec<Record>,
    /// Lines that could not be read; a torn last line is not counted.
    pub num_skipped: usize,
}

impl Metrics {
    /// The points `(step, value)` of one value, in order.
    pub fn series(&self, kind: &str, name: &str) -> Vec<(f64, f64)> {
        series(&self.records, kind, name)
    }
}

/// The points `(step, value)` of one value among the records, in order.
pub fn series(records: &[Record], kind: &str, name: &str) -> Vec<(f64, f64)> {
    let of_kind = records.iter().filter(|record| record.kind == kind);
    of_kind.filter_map(|record| Some((record.step as f64, *record.values.get(name)?))).collect()
}

/// Reads a metrics file, also while it is being written. A file that does not exist has no records.
pub fn read_metrics(path: &Path) -> Result<Metrics> {
    let mut tail = MetricsTail::new(path);
    let records = tail.poll()?;
    Ok(Metrics { records, num_skipped: tail.num_skipped })
}

/// As many bytes before the place of a follower are compared, to notice that the file was written anew.
const NUM_COMPARED_BYTES: u64 = 256;

/// Follows a metrics file that is being written.
#[derive(Debug)]
pub struct MetricsTail {
    path: PathBuf,
    offset: u64,
    num_skipped: usize,
    num_restarts: u64,
    /// What stood right before the offset.
    before: Vec<u8>,
}

impl MetricsTail {
    /// Starts at the beginning of the file, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf(), offset: 0, num_skipped: 0, num_restarts: 0, before: Vec::new() }
    }

    /// How often the file was begun from its start again: whoever adds records up forgets what he has when this changes.
    pub fn num_restarts(&self) -> u64 {
        self.num_restarts
    }

    /// The records since the last call. Starts over when what was read is no longer there, as when a run resumes.
    pub fn poll(&mut self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        self.poll_each(|record| records.push(record))?;
        Ok(records)
    }

    /// Like [`MetricsTail::poll`], one record at a time: memory does not grow with the file.
    pub fn poll_each(&mut self, mut visit: impl FnMut(Record)) -> Result<()> {
        let path = self.path.clone();
        let cannot = |cause| Error::io("read", &path, cause);
        let mut file = match File::open(&self.path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                self.start_over();
                return Ok(());
            }
            other => other.map_err(cannot)?,
        };
        let length = file.metadata().map_err(cannot)?.len();
        if length < self.offset || bytes_before(&mut file, self.offset).map_err(cannot)? != self.before {
            self.start_over();
        }
        file.seek(SeekFrom::Start(self.offset)).map_err(cannot)?;
        let (mut reader, mut buffer) = (BufReader::new(file.take(length - self.offset)), Vec::new());
        while let Some(line) = next_line(&mut reader, &mut buffer).map_err(cannot)? {
            if !line.is_complete {
                break;
            }
            self.offset += line.num_bytes;
            match serde_json::from_slice(&buffer).ok().and_then(Record::from_json) {
                Some(record) if !line.is_too_long => visit(record),
                _ => self.num_skipped += 1,
            }
        }
        let mut file = reader.into_inner().into_inner();
        self.before = bytes_before(&mut file, self.offset).map_err(cannot)?;
        Ok(())
    }

    fn start_over(&mut self) {
        if self.offset > 0 {
            (self.offset, self.num_skipped) = (0, 0);
            self.num_restarts += 1;
            self.before.clear();
        }
    }
}

/// The last bytes before a place of the file; fewer if the file ends earlier.
fn bytes_before(file: &mut File, offset: u64) -> io::Result<Vec<u8>> {
    let num = offset.min(NUM_COMPARED_BYTES);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(offset - num))?;
    file.take(num).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, text).expect("writes");
        (folder, path)
    }

    fn steps(path: &Path) -> Vec<u64> {
        read_metrics(path).expect("reads").records.iter().map(|record| record.step).collect()
    }

    fn line(step: u64) -> String {
        format!("{{\"step\":{step},\"kind\":\"train\",\"loss\":1.5}}\n")
    }

    #[test]
    fn what_is_written_is_read_back() {
        let (_folder, path) = file_with("");
        let mut writer = MetricsWriter::open(&path, None).expect("opens");
        let record = Record::new(3, "eval").value("loss", 2.5).value("step_seconds", 1e-9).extra("best", true);
        writer.write(&record).expect("writes");
        assert_eq!(read_metrics(&path).expect("reads").records, [record]);
    }

    #[test]
    fn values_without_a_json_number_stay_valid_json() {
        let record = Record::new(1, "train").value("a", f64::NAN).value("b", f64::INFINITY).value("c", -f64::INFINITY);
        let text = record.to_json().to_string();
        assert_eq!(text, r#"{"step":1,"kind":"train","a":"NaN","b":"Infinity","c":"-Infinity"}"#);
        let back = Record::from_json(serde_json::from_str(&text).expect("is JSON")).expect("has a step");
        assert!(back.values["a"].is_nan() && back.values["b"] > 0.0 && back.values["c"] < 0.0);
    }

    #[test]
    fn resuming_removes_later_steps_and_a_torn_line() {
        let (_folder, path) = file_with(&format!("{}{}{}{{\"step\":4,\"ki", line(1), line(2), line(3)));
        let mut writer = MetricsWriter::open(&path, Some(2)).expect("opens");
        writer.write(&Record::new(3, "train")).expect("writes");
        assert_eq!(steps(&path), [1, 2, 3]);
    }

    #[test]
    fn later_steps_in_the_middle_are_removed_too() {
        let (_folder, path) = file_with(&format!("{}{}garbage\n{}", line(1), line(9), line(2)));
        MetricsWriter::open(&path, Some(2)).expect("opens");
        assert_eq!(std::fs::read_to_string(&path).expect("reads"), line(1) + &line(2));
    }

    #[test]
    fn a_run_without_a_checkpoint_starts_an_empty_file() {
        let (_folder, path) = file_with(&line(1));
        MetricsWriter::open(&path, None).expect("opens");
        assert_eq!(steps(&path), [0; 0]);
    }

    #[test]
    fn a_complete_line_without_its_line_feed_is_torn() {
        let (_folder, path) = file_with(&format!("{}{}", line(1), line(2).trim_end()));
        assert_eq!(steps(&path), [1]);
        MetricsWriter::open(&path, Some(9)).expect("opens").write(&Record::new(2, "train")).expect("writes");
        assert_eq!(steps(&path), [1, 2]);
    }

    #[test]
    fn damaged_lines_are_counted_and_passed_over() {
        let (_folder, path) = file_with(&format!("{}\u{0}\u{0}\n[1]\n{{\"step\":-1}}\n{}", line(1), line(2)));
        let metrics = read_metrics(&path).expect("reads");
        assert_eq!((metrics.records.len(), metrics.num_skipped), (2, 3));
    }

    #[test]
    fn a_missing_file_has_no_records() {
        assert_eq!(read_metrics(Path::new("/nonexistent/metrics.jsonl")).expect("is fine"), Metrics::default());
    }

    #[test]
    fn a_follower_sees_each_line_once_and_starts_over_after_a_resume() {
        let (_folder, path) = file_with(&format!("{}{}{{\"st", line(1), line(2)));
        let mut tail = MetricsTail::new(&path);
        assert_eq!(tail.poll().expect("reads").len(), 2);
        assert_eq!(tail.poll().expect("reads").len(), 0);
        drop(MetricsWriter::open(&path, Some(1)).expect("opens"));
        assert_eq!(tail.poll().expect("reads").len(), 1);
    }

    #[test]
    fn a_follower_notices_a_resume_after_which_the_file_is_longer() {
        let (_folder, path) = file_with(&format!("{}{}", line(1), line(2)));
        let mut tail = MetricsTail::new(&path);
        assert_eq!(tail.poll().expect("reads").len(), 2);
        std::fs::write(&path, format!("{}{}{}", line(1), line(7), line(8))).expect("writes");
        assert_eq!((tail.poll().expect("reads").len(), tail.num_restarts()), (3, 1));
        assert_eq!((tail.poll().expect("reads").len(), tail.num_restarts()), (0, 1));
        std::fs::remove_file(&path).expect("removes");
        assert_eq!((tail.poll().expect("is fine").len(), tail.num_restarts()), (0, 2));
    }

    #[test]
    fn a_series_is_one_value_of_one_kind() {
        let records = [
            Record::new(1, "train").value("loss", 3.0),
            Record::new(1, "eval").value("loss", 9.0),
            Record::new(2, "train").value("loss", 2.0).value("lr", 0.1),
        ];
        assert_eq!(series(&records, "train", "loss"), [(1.0, 3.0), (2.0, 2.0)]);
    }

    #[test]
    fn deeply_nested_lines_do_not_overflow_the_stack() {
        let (_folder, path) = file_with(&format!("{{\"step\":1,\"x\":{}\n", "[".repeat(200_000)));
        assert_eq!(read_metrics(&path).expect("reads").num_skipped, 1);
    }
}
