//! The run folder: one recipe, one process at a time, a status that says where it stands.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::atomic::{is_draft, remove_drafts};
use crate::status::{LOCK_FILE, STATUS_FILE};
use crate::{Error, Result, State, Status, recipe_difference, utc_now, write_atomic};

/// Larger recipe files are refused.
pub(crate) const MAX_RECIPE_BYTES: u64 = 16 << 20;
/// How often [`RunDir::progress`] writes at most.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// A reader may hold the lock for an instant, see `is_locked`; a running process holds it for good.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// The folder of one run, owned by this process until it is dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    name: String,
    status: Status,
    is_new: bool,
    last_written: Instant,
    /// The kernel frees the lock however the process ends.
    lock: File,
}

impl RunDir {
    /// Opens `root/name` for the recipe, making it if need be, and marks it as running.
    ///
    /// Refused are: names that are no folder names, folders that hold something else or another recipe (compared by
    /// value: comments may change), and folders in which another process works.
    pub fn create_or_open(root: &Path, name: &str, recipe_text: &str) -> Result<Self> {
        Self::open_with(root, name, recipe_text, None)
    }

    /// Like [`RunDir::create_or_open`], and also writes `resolved.toml`; where the folder has one, the resolved values
    /// decide whether it is the same recipe, so that overrides on the command line count.
    pub fn create_or_open_resolved(root: &Path, name: &str, recipe_text: &str, resolved_text: &str) -> Result<Self> {
        Self::open_with(root, name, recipe_text, Some(resolved_text))
    }

    fn open_with(root: &Path, name: &str, recipe_text: &str, resolved_text: Option<&str>) -> Result<Self> {
        check_run_name(name)?;
        let path = root.join(name);
        fs::create_dir_all(&path).map_err(|cause| Error::io("create", &path, cause))?;
        refuse_foreign_folder(&path)?;
        let lock = lock(&path)?;
        remove_drafts(&path).map_err(|cause| Error::io("clean up", &path, cause))?;

        let is_new = prepare_recipe(&path, recipe_text, resolved_text)?;
        let now = utc_now();
        let earlier = Status::load(&path).ok();
        let status = Status {
            state: State::Running,
            step: earlier.as_ref().map_or(0, |status| status.step),
            last_error: None,
            pid: std::process::id(),
            started: earlier.map_or_else(|| now.clone(), |status| status.started),
            updated: now,
        };
        let run = Self { path, name: name.to_owned(), status, is_new, last_written: Instant::now(), lock };
        run.write_status()?;
        Ok(run)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the run.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the folder was made by this process, so that there is nothing to resume.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The status as it was last written or noted.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// `metrics.jsonl`.
    pub fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `checkpoints`; the folder is made by whoever saves the first one.
    pub fn checkpoints_path(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// `report.html`.
    pub fn report_path(&self) -> PathBuf {
        self.path.join("report.html")
    }

    /// Replaces a file of the folder in one step.
    pub fn write(&self, file_name: &str, bytes: &[u8]) -> Result<()> {
        write_atomic(&self.path.join(file_name), bytes)
    }

    /// Notes the step; writes `status.json` at most once a second. Cheap enough for every step.
    pub fn progress(&mut self, step: u64) -> Result<()> {
        self.status.step = step;
        if self.last_written.elapsed() < PROGRESS_INTERVAL {
            return Ok(());
        }
        self.save_status()
    }

    /// Writes how the run ended. The folder stays locked until `self` is dropped.
    pub fn finish(&mut self, state: State, step: u64, last_error: Option<&str>) -> Result<()> {
        self.status.state = state;
        self.status.step = step;
        self.status.last_error = last_error.map(str::to_owned);
        self.save_status()
    }

    fn save_status(&mut self) -> Result<()> {
        self.status.updated = utc_now();
        self.last_written = Instant::now();
        self.write_status()
    }

    fn write_status(&self) -> Result<()> {
        let path = self.path.join(STATUS_FILE);
        let text = serde_json::to_string_pretty(&self.status)
            .map_err(|cause| Error::io("write", &path, io::Error::other(cause)))?;
        write_atomic(&path, text.as_bytes())
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // An empty file says that nobody holds it; failing to say so does no harm.
        drop(self.lock.set_len(0));
    }
}

/// Whether `name` can be the name of a run: one plain folder name that no other file of the root uses.
pub fn check_run_name(name: &str) -> Result<()> {
    let problem = if name.is_empty() {
        "is empty"
    } else if name.len() > 200 {
        "is longer than 200 bytes"
    } else if name.chars().any(char::is_control) {
        "holds a control character"
    } else if name.contains(['/', '\\']) {
        "holds a path separator"
    } else if name.starts_with(['.', '-']) {
        "starts with `.` or `-`"
    } else if name.trim() != name {
        "starts or ends with a space"
    } else if name == "cache" || name.starts_with("index.sqlite") {
        "is used for another purpose"
    } else {
        return Ok(());
    };
    Err(Error::BadName { name: name.chars().take(200).collect(), problem })
}

/// A folder without `recipe.toml` may hold only what a process leaves that was killed right at its start.
fn refuse_foreign_folder(path: &Path) -> Result<()> {
    let cannot = |cause| Error::io("read", path, cause);
    if path.join("recipe.toml").try_exists().map_err(cannot)? {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(cannot)? {
        let name = entry.map_err(cannot)?.file_name().to_string_lossy().into_owned();
        if name != LOCK_FILE && !is_draft(&name) {
            return Err(Error::NotARunFolder { path: path.to_path_buf(), found: name });
        }
    }
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let lock_path = path.join(LOCK_FILE);
    let cannot = |cause| Error::io("lock", &lock_path, cause);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path).map_err(cannot)?;
    for attempt in 1.. {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(cause)) => return Err(cannot(cause)),
            Err(TryLockError::WouldBlock) if attempt < LOCK_ATTEMPTS => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                drop((&file).take(20).read_to_string(&mut text));
                return Err(Error::Busy { path: path.to_path_buf(), pid: text.trim().parse().ok() });
            }
        }
    }
    file.set_len(0).map_err(cannot)?;
    file.rewind().map_err(cannot)?;
    writeln!(file, "{}", std::process::id()).map_err(cannot)?;
    Ok(file)
}

/// Compares the recipe with the folder's, or puts it there. True if the folder had none.
fn prepare_recipe(path: &Path, recipe_text: &str, resolved_text: Option<&str>) -> Result<bool> {
    let recipe_path = path.join("recipe.toml");
    let resolved_path = path.join("resolved.toml");
    let is_new = match read_text(&recipe_path)? {
        None => true,
        Some(old_recipe) => {
            let old_resolved = if resolved_text.is_some() { read_text(&resolved_path)? } else { None };
            let difference = match (&old_resolved, resolved_text) {
                (Some(old), Some(new)) => recipe_difference(old, new),
                _ => recipe_difference(&old_recipe, recipe_text),
            };
            match difference {
                // Nothing was learnt there: a start that failed does not keep the name from the corrected recipe.
                Some(_) if !has_checkpoint(path) => {
                    clear(path)?;
                    true
                }
                Some(difference) => return Err(Error::OtherRecipe { path: path.to_path_buf(), difference }),
                None if old_resolved.is_some() => return Ok(false),
                None => false,
            }
        }
    };
    // `recipe.toml` comes last: a folder that has it is complete.
    if let Some(resolved_text) = resolved_text {
        write_atomic(&resolved_path, resolved_text.as_bytes())?;
    }
    if is_new {
        write_atomic(&recipe_path, recipe_text.as_bytes())?;
    }
    Ok(is_new)
}

/// Whether anything was saved there.
fn has_checkpoint(path: &Path) -> bool {
    let is_step = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("step-");
    fs::read_dir(path.join("checkpoints")).is_ok_and(|entries| entries.flatten().any(is_step))
}

/// Removes what an earlier recipe left in a folder without checkpoints.
fn clear(path: &Path) -> Result<()> {
    let remove = |result: io::Result<()>, at: &Path| match result {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", at, cause)),
        _ => Ok(()),
    };
    let tokenizer = path.join("tokenizer");
    remove(fs::remove_dir_all(&tokenizer), &tokenizer)?;
    for entry in fs::read_dir(path).map_err(|cause| Error::io("read", path, cause))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_left = [
            "metrics.jsonl",
            "report.html",
            "health.json",
            "inputs.hash",
            "cost.json",
            "samples.jsonl",
            "confusion.json",
        ]
        .contains(&name.as_str());
        if is_left || name.starts_with("events.out.tfevents.") {
            remove(fs::remove_file(entry.path()), &entry.path())?;
        }
    }
    Ok(())
}

/// The text of a file, `None` if it does not exist.
pub(crate) fn read_text(path: &Path) -> Result<Option<String>> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_RECIPE_BYTES).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(Some(text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::io("read", path, cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "name = \"a\"\nseed = 17\n";

    fn root() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    #[test]
    fn a_new_run_holds_recipe_status_and_lock() {
        let root = root();
        let run = RunDir::create_or_open(root.path(), "a", RECIPE).expect("opens");
        assert!(run.is_new());
        assert_eq!(fs::read_to_string(run.path().join("recipe.toml")).expect("reads"), RECIPE);
        let status = Status::load(run.path()).expect("loads");
        assert_eq!((status.state, status.step, status.pid), (State::Running, 0, std::process::id()));
    }

    #[test]
    fn an_earlier_run_is_opened_again_with_its_start() {
        let root = root();
        let mut run = RunDir::create_or_open(root.path(), "a", RECIPE).expect("opens");
        run.finish(State::Preempted, 40, None).expect("writes");
        let started = run.status().started.clone();
        drop(run);
        let commented = format!("# a note\n{RECIPE}");
        let run = RunDir::create_or_open(root.path(), "a", &commented).expect("opens again");
        assert!(!run.is_new());
        assert_eq!((run.status().state, run.status().step), (State::Running, 40));
        assert_eq!(run.status().started, started);
    }

    #[test]
    fn another_recipe_is_refused_with_the_key() {
        let root = root();
        drop(RunDir::create_or_open(root.path(), "a", RECIPE).expect("opens"));
        fs::create_dir_all(root.path().join("a/checkpoints/step-00000001")).expect("writable");
        let error = RunDir::create_or_open(root.path(), "a", "name = \"a\"\nseed = 18").expect_err("differs");
        let text = error.to_string();
        assert!(text.contains("`seed` is `17` there and `18` here; give this run another name"), "{text}");
        assert_eq!(fs::read_to_string(root.path().join("a/recipe.toml")).expect("reads"), RECIPE);
    }

    #[test]
    fn a_folder_in_which_nothing_was_saved_is_taken_over() {
        let root = root();
        drop(RunDir::create_or_open(root.path(), "a", RECIPE).expect("opens"));
        let folder = root.path().join("a");
        fs::create_dir_all(folder.join("tokenizer")).expect("writable");
        for name in ["metrics.jsonl", "events.out.tfevents.1.host.2"] {
            fs::write(folder.join(name), "old").expect("writable");
        }
        let corrected = "name = \"a\"\nseed = 18\n";
        let run = RunDir::create_or_open(root.path(), "a", corrected).expect("opens");
        assert!(run.is_new());
        assert_eq!(fs::read_to_string(folder.join("recipe.toml")).expect("reads"), corrected);
        for name in ["tokenizer", "metrics.jsonl", "events.out.tfevents.1.host.2"] {
            assert!(!folder.join(name).exists(), "{name}");
        }
    }

    #[test]
    fn resolved_values_decide_when_they_are_known() {
        let root = root();
        let open = |seed: u32| {
            let resolved = format!("seed = {seed} # from override 1\nname = \"a\"");
            RunDir::create_or_open_resolved(root.path(), "a", RECIPE, &resolved)
        };
        drop(open(18).expect("opens"));
        drop(open(18).expect("opens again"));
        fs::create_dir_all(root.path().join("a/checkpoints/step-00000001")).expect("writable");
        let error = open(19).expect_err("differs").to_string();
        assert!(error.contains("`seed` is `18` there and `19` here"), "{error}");
    }

    #[test]
    fn a_second_owner_is_refused_with_the_pid() {
        let root = root();
        let first = RunDir::create_or_open(root.path(), "a", RECIPE).expect("opens");
        let error = RunDir::create_or_open(root.path(), "a", RECIPE).expect_err("is busy");
        assert!(matches!(error, Error::Busy { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
        drop(first);
        RunDir::create_or_open(root.path(), "a", RECIPE).expect("is free again");
    }

    #[test]
    fn names_that_leave_the_root_are_refused() {
        for name in ["", ".", "..", "a/b", "../a", "a\\b", "a\nb", ".hidden", "-x", " a", "cache", "index.sqlite"] {
            assert!(matches!(check_run_name(name), Err(Error::BadName { .. })), "{name:?}");
        }
        assert!(check_run_name(&"x".repeat(201)).is_err());
        for name in ["a", "quickstart", "llama-3.4M_seed17", "versuch ä"] {
            check_run_name(name).expect("is fine");
        }
    }

    #[test]
    fn a_folder_with_other_files_is_left_alone() {
        let root = root();
        fs::create_dir(root.path().join("src")).expect("makes");
        fs::write(root.path().join("src/main.rs"), "fn main() {}").expect("writes");
        let error = RunDir::create_or_open(root.path(), "src", RECIPE).expect_err("is foreign");
        assert!(error.to_string().contains("holds `main.rs` but no `recipe.toml`"), "{error}");
        assert_eq!(fs::read_dir(root.path().join("src")).expect("lists").count(), 1);
    }

    #[test]
    fn a_process_killed_at_its_start_leaves_a_usable_folder() {
        let root = root();
        fs::create_dir(root.path().join("a")).expect("makes");
        fs::write(root.path().join("a/lock"), "1\n").expect("writes");
        fs::write(root.path().join("a/.resolved.toml.tmp-1-0"), "se").expect("writes");
        let run = RunDir::create_or_open(root.path(), "a", RECIPE).expect("opens");
        assert!(run.is_new() && !root.path().join("a/.resolved.toml.tmp-1-0").exists());
    }

    #[test]
    fn a_file_in_the_way_is_a_clear_error() {
        let root = root();
        fs::write(root.path().join("a"), "text").expect("writes");
        let error = RunDir::create_or_open(root.path(), "a", RECIPE).expect_err("is a file").to_string();
        assert!(error.starts_with("cannot create `"), "{error}");
    }

    #[test]
    fn the_last_error_is_kept_and_cleared_on_resume() {
        let root = root();
        let mut run = RunDir::create_or_open(root.path(), "a", RECIPE).expect("opens");
        run.finish(State::Failed, 3, Some("the loss is not finite")).expect("writes");
        let status = Status::load(run.path()).expect("loads");
        assert_eq!(status.last_error.as_deref(), Some("the loss is not finite"));
        drop(run);
        let run = RunDir::create_or_open(root.path(), "a", RECIPE).expect("opens");
        assert_eq!(run.status().last_error, None);
    }
}
