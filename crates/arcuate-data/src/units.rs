//! Units of speech in a folder: which kind of sound each frame of every utterance is, for masked prediction.
//!
//! # Layout
//! `units.json` says how many units there are and when they come ([`About`]). `units.jsonl` has a line
//! `{"source": "studio", "id": "ru_0018.opus", "units": [3, 3, 17]}` for each utterance of a source. Unit `i` stands for the
//! `window_seconds` of sound that begin at `i * hop_seconds`. Other programs may write both files.
// T frames of a network, U units

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::mapped::Mapped;
use crate::progress::{Progress, Stage};
use crate::split::id_hash;

/// What is known of the units.
pub const ABOUT_FILE: &str = "units.json";
/// The units of all utterances.
pub const LINES_FILE: &str = "units.jsonl";
const FORMAT: u32 = 1;
/// Larger files are no `units.json`.
const MAX_ABOUT_BYTES: u64 = 1 << 20;
/// Lines that are looked at between two reports of progress.
const CHUNK: usize = 4096;
const REMEDY: &str = "make the units with `arcuate data units`";

/// How many units there are, and when they come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// The version of the layout: 1.
    pub format: u32,
    /// Units are numbers below this.
    pub num_units: usize,
    /// From one unit to the next.
    pub hop_seconds: f64,
    /// How much sound a unit stands for.
    pub window_seconds: f64,
    /// How they were made; not needed for training.
    #[serde(default)]
    pub made: serde_json::Value,
}

fn wrong(path: &Path, detail: impl std::fmt::Display) -> Error {
    Error::UnitsFile { place: path.display().to_string(), detail: detail.to_string() }
}

impl About {
    /// Of units that come so often.
    pub fn new(num_units: usize, hop_seconds: f64, window_seconds: f64, made: serde_json::Value) -> Self {
        Self { format: FORMAT, num_units, hop_seconds, window_seconds, made }
    }

    /// Reads `units.json` of a folder.
    ///
    /// # Errors
    /// When there is none, or its values make no sense.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(ABOUT_FILE);
        let bytes = match fs::metadata(&path) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(wrong(&path, format!("does not exist; {REMEDY}")));
            }
            Err(error) => return Err(Error::read(&path, error)),
        };
        if bytes > MAX_ABOUT_BYTES {
            return Err(wrong(&path, format!("has {bytes} bytes, more than it can need; {REMEDY}")));
        }
        let text = fs::read_to_string(&path).map_err(|source| Error::read(&path, source))?;
        let about: Self = serde_json::from_str(&text)
            .map_err(|error| wrong(&path, format!("does not say what units there are ({error}); {REMEDY}")))?;
        if about.format != FORMAT {
            return Err(wrong(
                &path,
                format!("has format {}, and this version reads {FORMAT}; {REMEDY}", about.format),
            ));
        }
        let is_length = |seconds: f64| seconds.is_finite() && seconds > 0.0;
        if about.num_units == 0 || about.num_units > i32::MAX as usize {
            return Err(wrong(&path, format!("has `num_units` {}; {REMEDY}", about.num_units)));
        }
        if !is_length(about.hop_seconds) || !is_length(about.window_seconds) {
            return Err(wrong(&path, format!("has a `hop_seconds` or `window_seconds` that is no length; {REMEDY}")));
        }
        Ok(about)
    }

    /// Why a network that makes a frame every `hop_seconds` cannot be asked for these units, if it cannot.
    pub fn misfit(&self, hop_seconds: f64) -> Option<String> {
        (self.hop_seconds > 1.01 * hop_seconds).then(|| {
            format!(
                "the units come every {:.1} ms, but the network makes a frame every {:.1} ms; make units of MFCC, or of a network \
                 with as many frames",
                1000.0 * self.hop_seconds,
                1000.0 * hop_seconds
            )
        })
    }

    /// How many units sound of this length has.
    pub fn num_frames(&self, seconds: f64) -> usize {
        let steps = (seconds - self.window_seconds) / self.hop_seconds;
        // What rounding takes away from a whole number is given back.
        if steps < -1e-6 { 0 } else { (steps + 1e-6).max(0.0) as usize + 1 }
    }

    /// Whether so many units are those of sound of this length, but for `tolerance` seconds.
    pub fn fits(&self, num_units: usize, seconds: f64, tolerance: f64) -> bool {
        let apart = num_units.abs_diff(self.num_frames(seconds)) as f64 * self.hop_seconds;
        apart <= tolerance
    }

    /// The unit closest in time to each of T frames, of which the first has its middle at `first_seconds`; -1 past the last.
    pub fn at(&self, units: &[u32], first_seconds: f64, hop_seconds: f64, num_frames: usize) -> Vec<i32> {
        let unit = |frame: usize| {
            let middle = first_seconds + frame as f64 * hop_seconds;
            // Rounding must not decide between two units that are equally close.
            let place = ((middle - 0.5 * self.window_seconds) / self.hop_seconds - 1e-6).round().max(0.0);
            units.get(place as usize).map_or(-1, |unit| *unit as i32)
        };
        (0..num_frames).map(unit).collect()
    }
}

/// A line of `units.jsonl`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    units: Cow<'a, [u32]>,
}

/// Where the units of an utterance are.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u64,
    len: u32,
    num_units: u32,
    line: u32,
}

/// The units of all utterances of a folder; a line is parsed again when its units are asked for.
pub struct Units {
    about: About,
    path: PathBuf,
    lines: Mapped<u8>,
    places: HashMap<String, HashMap<u64, Place>>,
    content_hash: String,
}

impl Units {
    /// Opens a folder and looks at every line.
    ///
    /// # Errors
    /// When a file is missing, or a line is none, has a unit that does not exist, or is of an utterance that had one.
    pub fn open(dir: &Path, progress: &Progress<'_>) -> Result<Self> {
        let about = About::read(dir)?;
        let path = dir.join(LINES_FILE);
        if !path.is_file() {
            return Err(wrong(&path, format!("does not exist; {REMEDY}")));
        }
        let lines: Mapped<u8> = Mapped::open(&path)?;
        let bytes = lines.as_slice();
        let mut stretches: Vec<(u64, u32)> = Vec::new();
        let mut start = 0;
        for line in bytes.split(|byte| *byte == b'\n') {
            let len = u32::try_from(line.len())
                .map_err(|_| wrong(&path, format!("has a line of {} bytes; {REMEDY}", line.len())))?;
            stretches.push((start, len));
            start += line.len() as u64 + 1;
        }
        // Behind the last line end is no line.
        if stretches.last().is_some_and(|(_, len)| *len == 0) {
            stretches.pop();
        }
        let mut places: HashMap<String, HashMap<u64, Place>> = HashMap::new();
        for (chunk, stretches) in stretches.chunks(CHUNK).enumerate() {
            progress.report(Stage::Scan, stretches[0].0, bytes.len() as u64)?;
            let first = chunk * CHUNK + 1;
            let parsed: Vec<Result<(String, u64, Place)>> = stretches
                .par_iter()
                .enumerate()
                .map(|(at, (start, len))| {
                    let number = (first + at) as u32;
                    let line = parse(&path, number, stretch(bytes, *start, *len), about.num_units)?;
                    let place = Place { start: *start, len: *len, num_units: line.units.len() as u32, line: number };
                    Ok((line.source.into_owned(), id_hash(&line.id), place))
                })
                .collect();
            for found in parsed {
                let (source, id, place) = found?;
                if let Some(earlier) = places.entry(source).or_default().insert(id, place) {
                    let detail = format!("is of the same utterance as line {}; keep one of them", earlier.line);
                    return Err(at_line(&path, place.line, detail));
                }
            }
        }
        let About { num_units, hop_seconds, window_seconds, .. } = &about;
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{num_units} {hop_seconds} {window_seconds}\n").as_bytes()).update(bytes);
        let content_hash = hasher.finalize().to_hex().to_string();
        lines.release();
        Ok(Self { about, path, lines, places, content_hash })
    }

    /// What is known of the units.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// The file with the lines.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes with every unit and its time.
    pub fn content_hash(&self) -> &str {
        &self.content_hash
    }

    fn place(&self, source: &str, id: &str) -> Option<Place> {
        self.places.get(source)?.get(&id_hash(id)).copied()
    }

    /// How many units an utterance has, and in which line; none if it has no line.
    pub fn find(&self, source: &str, id: &str) -> Option<(usize, u32)> {
        self.place(source, id).map(|place| (place.num_units as usize, place.line))
    }

    /// The units of an utterance; none if it has no line.
    ///
    /// # Errors
    /// When the file was changed meanwhile.
    pub fn read(&self, source: &str, id: &str) -> Result<Option<Vec<u32>>> {
        let Some(place) = self.place(source, id) else { return Ok(None) };
        let line = stretch(self.lines.as_slice(), place.start, place.len);
        Ok(Some(parse(&self.path, place.line, line, self.about.num_units)?.units.into_owned()))
    }
}

fn stretch(bytes: &[u8], start: u64, len: u32) -> &[u8] {
    bytes.get(start as usize..start as usize + len as usize).unwrap_or_default()
}

fn at_line(path: &Path, number: u32, detail: String) -> Error {
    Error::UnitsFile { place: format!("{}:{number}", path.display()), detail }
}

fn parse<'a>(path: &Path, number: u32, line: &'a [u8], num_units: usize) -> Result<Line<'a>> {
    let line: Line<'_> = serde_json::from_slice(line)
        .map_err(|error| at_line(path, number, format!("has no `source`, `id` and `units` ({error}); {REMEDY}")))?;
    if let Some(unit) = line.units.iter().find(|unit| **unit as usize >= num_units) {
        let detail = format!("has the unit {unit}, but `{ABOUT_FILE}` says that there are {num_units}; {REMEDY}");
        return Err(at_line(path, number, detail));
    }
    Ok(line)
}

/// Writes a folder of units that appears whole or not at all. What an interrupted process with the same intent wrote is kept.
pub struct UnitsWriter {
    target: PathBuf,
    draft: PathBuf,
    lines: BufWriter<File>,
    done: HashSet<(String, u64)>,
}

impl UnitsWriter {
    /// Begins the folder `dir`, or goes on with it.
    ///
    /// # Errors
    /// When there is something at `dir` already, or the draft beside it cannot be written.
    pub fn open(dir: &Path, about: &About) -> Result<Self> {
        let is_empty = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
        if dir.exists() && !is_empty {
            return Err(wrong(dir, "is there already; name another folder, or remove this one"));
        }
        let name = dir.file_name().map_or_else(|| "units".into(), |name| name.to_string_lossy().into_owned());
        let draft = dir.with_file_name(format!("{name}.part"));
        let path = draft.join(LINES_FILE);
        let text = serde_json::to_string_pretty(about).map_err(|error| wrong(dir, error))? + "\n";
        let mut done = HashSet::new();
        let about_path = draft.join(ABOUT_FILE);
        if fs::read_to_string(&about_path).is_ok_and(|found| found == text) {
            let kept = fs::read(&path).unwrap_or_default();
            let mut len = 0;
            for line in kept.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
                let Ok(parsed) = parse(&path, 0, line, about.num_units) else { break };
                done.insert((parsed.source.into_owned(), id_hash(&parsed.id)));
                len += line.len() as u64;
            }
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
            file.and_then(|file| file.set_len(len)).map_err(|source| Error::write(&path, source))?;
        } else {
            if draft.exists() {
                if !about_path.is_file() {
                    return Err(wrong(&draft, "is no draft of units; move it away"));
                }
                fs::remove_dir_all(&draft).map_err(|source| Error::write(&draft, source))?;
            }
            fs::create_dir_all(&draft).map_err(|source| Error::write(&draft, source))?;
            fs::write(&path, "").map_err(|source| Error::write(&path, source))?;
            fs::write(&about_path, text).map_err(|source| Error::write(&about_path, source))?;
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(|source| Error::write(&path, source))?;
        Ok(Self { target: dir.to_owned(), draft, lines: BufWriter::new(file), done })
    }

    /// The folder as long as it is not finished, for other files that belong into it.
    pub fn draft(&self) -> &Path {
        &self.draft
    }

    /// Utterances that were written before.
    pub fn num_done(&self) -> usize {
        self.done.len()
    }

    /// Whether an utterance was written before.
    pub fn is_done(&self, source: &str, id: &str) -> bool {
        self.done.contains(&(source.to_owned(), id_hash(id)))
    }

    /// Writes the units of an utterance.
    pub fn write(&mut self, source: &str, id: &str, units: &[u32]) -> Result<()> {
        let line = Line { source: source.into(), id: id.into(), units: units.into() };
        let failed = |source| Error::write(&self.draft.join(LINES_FILE), source);
        serde_json::to_writer(&mut self.lines, &line).map_err(|error| failed(error.into()))?;
        self.lines.write_all(b"\n").map_err(failed)
    }

    /// Hands what was written to the system, so that it outlives this process.
    pub fn flush(&mut self) -> Result<()> {
        self.lines.flush().map_err(|source| Error::write(&self.draft.join(LINES_FILE), source))
    }

    /// Gives the folder its name.
    pub fn finish(mut self) -> Result<()> {
        self.flush()?;
        let failed = |source| Error::write(&self.target, source);
        self.lines.get_ref().sync_all().map_err(failed)?;
        fs::rename(&self.draft, &self.target).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Folder;

    fn about() -> About {
        About::new(20, 0.01, 0.025, serde_json::json!({"seed": 3}))
    }

    fn written(folder: &Folder) -> PathBuf {
        let dir = folder.path().join("units");
        let mut writer = UnitsWriter::open(&dir, &about()).expect("writable");
        writer.write("a", "one", &[1, 2, 19]).expect("written");
        writer.write("a", "zwö\t\"2\"", &[]).expect("written");
        writer.write("b", "one", &[7]).expect("written");
        writer.finish().expect("renamed");
        dir
    }

    #[test]
    fn what_is_written_is_read_by_source_and_id() {
        let folder = Folder::new();
        let dir = written(&folder);
        let units = Units::open(&dir, &Progress::none()).expect("sound");
        assert_eq!(*units.about(), about());
        assert_eq!(units.find("a", "one"), Some((3, 1)));
        let read = |source, id| units.read(source, id).expect("sound");
        assert_eq!(read("a", "one"), Some(vec![1, 2, 19]));
        assert_eq!(read("a", "zwö\t\"2\""), Some(vec![]));
        assert_eq!(read("b", "one"), Some(vec![7]));
        assert_eq!((read("c", "one"), read("b", "two"), units.find("b", "two")), (None, None, None));
        let refused = UnitsWriter::open(&dir, &about()).err().expect("it is there").to_string();
        assert!(refused.contains("is there already"), "{refused}");
    }

    #[test]
    fn an_interrupted_writer_goes_on_behind_the_last_whole_line() {
        let folder = Folder::new();
        let whole = fs::read(written(&folder).join(LINES_FILE)).expect("readable");
        let dir = folder.path().join("again");
        let mut writer = UnitsWriter::open(&dir, &about()).expect("writable");
        writer.write("a", "one", &[1, 2, 19]).expect("written");
        writer.flush().expect("written");
        fs::write(writer.draft().join("other"), "kept").expect("writable");
        drop(writer);
        let lines = folder.path().join("again.part").join(LINES_FILE);
        let mut half = fs::read(&lines).expect("readable");
        half.extend(b"{\"source\": \"a\", \"id\"");
        fs::write(&lines, half).expect("writable");
        let mut writer = UnitsWriter::open(&dir, &about()).expect("writable");
        assert_eq!((writer.num_done(), writer.is_done("a", "one"), writer.is_done("b", "one")), (1, true, false));
        writer.write("a", "zwö\t\"2\"", &[]).expect("written");
        writer.write("b", "one", &[7]).expect("written");
        writer.finish().expect("renamed");
        assert_eq!(fs::read(dir.join(LINES_FILE)).expect("readable"), whole);
        assert_eq!(fs::read_to_string(dir.join("other")).expect("readable"), "kept");
        // Another intent begins anew.
        let other = folder.path().join("other");
        let mut writer = UnitsWriter::open(&other, &about()).expect("writable");
        writer.write("a", "one", &[1]).expect("written");
        writer.flush().expect("written");
        drop(writer);
        let writer = UnitsWriter::open(&other, &About { num_units: 30, ..about() }).expect("writable");
        assert_eq!(writer.num_done(), 0);
    }

    #[test]
    fn broken_folders_are_named_with_their_line() {
        let folder = Folder::new();
        let dir = written(&folder);
        let good = fs::read_to_string(dir.join(LINES_FILE)).expect("readable");
        let message = || Units::open(&dir, &Progress::none()).err().expect("broken").to_string();
        for (line, problem) in [
            ("{}", "units.jsonl:4` has no `source`"),
            ("nonsense", "units.jsonl:4` has no"),
            ("\u{0}", "units.jsonl:4` has no"),
            (r#"{"source": "a", "id": "x", "units": [20]}"#, "units.jsonl:4` has the unit 20, but"),
            (r#"{"source": "a", "id": "x", "units": [-1]}"#, "units.jsonl:4` has no"),
            (r#"{"source": "a", "id": "one", "units": []}"#, "is of the same utterance as line 1"),
        ] {
            fs::write(dir.join(LINES_FILE), format!("{good}{line}\n")).expect("writable");
            assert!(message().contains(problem), "{line}: {}", message());
        }
        fs::remove_file(dir.join(LINES_FILE)).expect("it was there");
        assert!(message().contains("units.jsonl` does not exist; make the units"), "{}", message());
        let sound = serde_json::to_string(&about()).expect("plain");
        for (text, problem) in [
            ("{".to_owned(), "does not say what units there are"),
            (sound.replace("\"format\":1", "\"format\":2"), "has format 2"),
            (sound.replace("\"num_units\":20", "\"num_units\":0"), "`num_units` 0"),
            (sound.replace("0.01", "0.0"), "no length"),
        ] {
            fs::write(dir.join(ABOUT_FILE), text).expect("writable");
            assert!(message().contains(problem), "{}", message());
        }
        fs::remove_file(dir.join(ABOUT_FILE)).expect("it was there");
        assert!(message().contains("units.json` does not exist"), "{}", message());
    }

    #[test]
    fn frames_take_the_unit_closest_in_time() {
        let about = about();
        let units: Vec<u32> = (0..10).collect();
        // Frames of 25 ms every 20 ms: every other unit of 25 ms every 10 ms.
        assert_eq!(about.at(&units, 0.0125, 0.02, 6), [0, 2, 4, 6, 8, -1]);
        // The same behind a crop of three frames.
        assert_eq!(about.at(&units, 0.0125 + 0.06, 0.02, 3), [6, 8, -1]);
        // A frame of another length has another middle.
        assert_eq!(about.at(&units, 0.02, 0.02, 3), [1, 3, 5]);
        assert_eq!(about.at(&units, 0.001, 0.02, 1), [0]);
        assert_eq!(about.at(&[], 0.0125, 0.02, 2), [-1, -1]);
    }

    #[test]
    fn lengths_and_rates_are_compared() {
        let about = about();
        assert_eq!([0.02, 0.025, 0.034, 0.035, 1.0].map(|seconds| about.num_frames(seconds)), [0, 1, 1, 2, 98]);
        assert!(about.fits(98, 1.0, 0.0) && about.fits(96, 1.0, 0.021) && !about.fits(95, 1.0, 0.021));
        assert!(about.fits(0, 0.001, 0.0));
        assert_eq!(about.misfit(0.01), None);
        assert_eq!(about.misfit(0.02), None);
        let slow = about.misfit(0.005).expect("too few units");
        assert!(slow.contains("every 10.0 ms") && slow.contains("every 5.0 ms"), "{slow}");
    }
}
