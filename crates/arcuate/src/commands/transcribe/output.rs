//! Where transcripts go: a file for each recording and format, or standard output.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use arcuate_decode::ctc::Hypothesis;
use arcuate_record::write_atomic;
use arcuate_text::transcript::{Format, Transcript};
use serde_json::{Value, json};

use super::inputs::{self, Input};

/// A recording and the files of its transcript.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Job {
    pub input: Input,
    /// Empty: standard output.
    pub files: Vec<(Format, PathBuf)>,
}

impl Job {
    /// Where the results of each recording go; below `dir` under names of their own.
    pub(super) fn plan(inputs: Vec<Input>, dir: Option<&Path>, formats: &[Format]) -> anyhow::Result<Vec<Self>> {
        let Some(dir) = dir else {
            return Ok(inputs.into_iter().map(|input| Self { input, files: Vec::new() }).collect());
        };
        let stems = inputs::stems(&inputs)?;
        let files = |stem: PathBuf| {
            let file = |format: &Format| (*format, inputs::with_ending(&dir.join(&stem), format.extension()));
            formats.iter().map(file).collect()
        };
        Ok(inputs.into_iter().zip(stems).map(|(input, stem)| Self { input, files: files(stem) }).collect())
    }

    /// Whether all files are there, each of which was written as a whole.
    pub(super) fn is_done(&self) -> bool {
        !self.files.is_empty() && self.files.iter().all(|(_, file)| file.is_file())
    }

    /// The recording as its transcript names it: by the file name if they lie side by side.
    pub(super) fn audio(&self) -> String {
        let Some(path) = &self.input.path else { return self.input.name.display().to_string() };
        let Some((_, file)) = self.files.first() else { return path.display().to_string() };
        let folder = |path: &Path| match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => fs::canonicalize(parent).ok(),
            _ => fs::canonicalize(".").ok(),
        };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        match (folder(path), folder(file), name) {
            (Some(own), Some(other), Some(name)) if own == other => name,
            (Some(own), _, Some(name)) => own.join(name).display().to_string(),
            _ => path.display().to_string(),
        }
    }

    /// Writes all files.
    pub(super) fn write(&self, transcript: &Transcript, readings: &[Reading]) -> anyhow::Result<()> {
        for (format, file) in &self.files {
            write_atomic(file, text(transcript, readings, *format).as_bytes())?;
        }
        Ok(())
    }

    /// Makes the folders of the files.
    pub(super) fn make_folders(&self) -> anyhow::Result<()> {
        for folder in self.files.iter().filter_map(|(_, file)| file.parent()) {
            fs::create_dir_all(folder).with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        }
        Ok(())
    }
}

/// The readings of a stretch of speech, the best first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    pub start_seconds: f64,
    pub end_seconds: f64,
    pub hypotheses: Vec<Hypothesis>,
}

/// A transcript as the content of a file; other readings stand in JSON only.
pub(super) fn text(transcript: &Transcript, readings: &[Reading], format: Format) -> String {
    let text = transcript.to_text(format);
    if format != Format::Json || readings.is_empty() {
        return text;
    }
    let mut value: Value = serde_json::from_str(&text).expect("it was written as JSON");
    let millis = |seconds: f64| (seconds * 1000.0).round() / 1000.0;
    let reading = |reading: &Reading| {
        let hypotheses: Vec<Value> = reading.hypotheses.iter().map(|one| {
            json!({"text": one.text, "score": one.score, "acoustic_score": one.acoustic_score, "lm_score": one.lm_score})
        }).collect();
        json!({"start": millis(reading.start_seconds), "end": millis(reading.end_seconds), "hypotheses": hypotheses})
    };
    value["readings"] = readings.iter().map(reading).collect();
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(path: &Path, name: &str) -> Input {
        Input { path: Some(path.to_owned()), name: name.into() }
    }

    #[test]
    fn a_recording_is_done_when_all_its_files_are_there() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let out = dir.path().join("out");
        let formats = [Format::Srt, Format::TextGrid];
        let jobs = Job::plan(vec![input(Path::new("talks/a.mp3"), "x/a.mp3")], Some(&out), &formats).expect("planned");
        let files: Vec<&PathBuf> = jobs[0].files.iter().map(|(_, file)| file).collect();
        assert_eq!(files, [&out.join("x/a.srt"), &out.join("x/a.TextGrid")]);
        jobs[0].make_folders().expect("writable");
        fs::write(files[0], "").expect("writable");
        assert!(!jobs[0].is_done());
        jobs[0].write(&Transcript::default(), &[]).expect("writable");
        assert!(jobs[0].is_done());
        let on_standard_output = Job::plan(vec![input(Path::new("a.mp3"), "a.mp3")], None, &formats).expect("planned");
        assert!(!on_standard_output[0].is_done());
    }

    #[test]
    fn a_transcript_names_its_recording_so_that_it_is_found() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let root = fs::canonicalize(dir.path()).expect("exists");
        let audio = |out: &Path| {
            let jobs = Job::plan(vec![input(&root.join("a.mp3"), "a.mp3")], Some(out), &[Format::Eaf]);
            let job = jobs.expect("planned").remove(0);
            job.make_folders().expect("writable");
            job.audio()
        };
        assert_eq!(audio(&root), "a.mp3");
        assert_eq!(audio(&root.join("out")), root.join("a.mp3").display().to_string());
    }

    #[test]
    fn readings_stand_in_json_alone() {
        let one = Hypothesis {
            text: "a b".to_owned(),
            tokens: Vec::new(),
            words: Vec::new(),
            score: -1.5,
            acoustic_score: -2.0,
            lm_score: 0.5,
            is_complete: true,
        };
        let readings = [Reading { start_seconds: 0.5, end_seconds: 1.25, hypotheses: vec![one] }];
        let json = text(&Transcript::default(), &readings, Format::Json);
        let value: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(value["readings"][0]["hypotheses"][0]["text"], "a b");
        assert_eq!(value["readings"][0]["end"], 1.25);
        assert_eq!(text(&Transcript::default(), &readings, Format::Txt), Transcript::default().to_text(Format::Txt));
    }
}
