//! `index.sqlite`: a cache over the run folders of a root, so that listing a thousand runs is fast.
//!
//! The folders are the truth. An index that is damaged, of another version or behind its folders repairs itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use crate::{Error, Result, RunSummary, State, Status, summarise};

const FILE_NAME: &str = "index.sqlite";
const VERSION: i64 = 1;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const SCHEMA: &str = "CREATE TABLE runs (
    name TEXT PRIMARY KEY, path TEXT NOT NULL, state TEXT NOT NULL, step INTEGER NOT NULL,
    started TEXT NOT NULL, updated TEXT NOT NULL, last_error TEXT, recipe_hash TEXT NOT NULL,
    best TEXT NOT NULL, last TEXT NOT NULL)";

/// The index of one root. Several processes may write to it at once.
#[derive(Debug)]
pub struct Index {
    root: PathBuf,
    connection: Connection,
}

impl Index {
    /// Opens or makes the index of `root`; a damaged one is made anew, empty. Use [`rebuild`] or [`list`] to fill it.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join(FILE_NAME);
        let fail = |cause| Error::Index { path: path.clone(), cause };
        fs::create_dir_all(root).map_err(|cause| Error::io("create", root, cause))?;
        let connection = match connect(&path) {
            Err(cause) if is_damage(&cause) => {
                remove_files(&path)?;
                connect(&path).map_err(fail)?
            }
            other => other.map_err(fail)?,
        };
        Ok(Self { root: root.to_path_buf(), connection })
    }

    /// Adds or replaces a run.
    pub fn upsert(&self, run: &RunSummary) -> Result<()> {
        let json = |values| serde_json::to_string(values).unwrap_or_default();
        self.connection
            .prepare_cached("INSERT OR REPLACE INTO runs VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)")
            .and_then(|mut insert| {
                insert.execute(params![
                    run.name,
                    run.path.to_string_lossy(),
                    run.state.name(),
                    i64::try_from(run.step).unwrap_or(i64::MAX),
                    run.started,
                    run.updated,
                    run.last_error,
                    run.recipe_hash,
                    json(&run.best),
                    json(&run.last),
                ])
            })
            .map(drop)
            .map_err(|cause| self.fail(cause))
    }

    /// Forgets a run; its folder stays.
    pub fn remove(&self, name: &str) -> Result<()> {
        let removed = self.connection.execute("DELETE FROM runs WHERE name = ?1", [name]);
        removed.map(drop).map_err(|cause| self.fail(cause))
    }

    /// One run as the index knows it.
    pub fn get(&self, name: &str) -> Result<Option<RunSummary>> {
        let row = self.connection.query_row("SELECT * FROM runs WHERE name = ?1", [name], read_row).optional();
        row.map(Option::flatten).map_err(|cause| self.fail(cause))
    }

    /// All runs as the index knows them, by name.
    pub fn all(&self) -> Result<Vec<RunSummary>> {
        let rows = self.connection.prepare("SELECT * FROM runs ORDER BY name").and_then(|mut select| {
            let rows = select.query_map([], read_row)?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        });
        Ok(rows.map_err(|cause| self.fail(cause))?.into_iter().flatten().collect())
    }

    fn fail(&self, cause: rusqlite::Error) -> Error {
        Error::Index { path: self.root.join(FILE_NAME), cause }
    }
}

/// All runs under `root`, the latest first. Rows that are behind their folders are read again; where no index can be
/// written (a read-only root), everything is read from the folders.
pub fn list(root: &Path) -> Result<Vec<RunSummary>> {
    let mut runs = match list_with_index(root) {
        Err(Error::Index { cause, .. }) if is_damage(&cause) => rebuild(root)?,
        Err(_) => from_folders(root)?,
        Ok(runs) => runs,
    };
    runs.sort_by(|a, b| b.started.cmp(&a.started).then_with(|| a.name.cmp(&b.name)));
    Ok(runs)
}

fn list_with_index(root: &Path) -> Result<Vec<RunSummary>> {
    let folders = run_folders(root)?;
    if folders.is_empty() && !root.join(FILE_NAME).exists() {
        return Ok(Vec::new());
    }
    let index = Index::open(root)?;
    let mut known: BTreeMap<String, RunSummary> = index.all()?.into_iter().map(|run| (run.name.clone(), run)).collect();
    let mut runs = Vec::new();
    for (name, path) in folders {
        let Ok(status) = Status::load_live(&path) else { continue };
        let current = known.remove(&name).filter(|run| {
            run.path == path && run.updated == status.updated && run.state == status.state && run.step == status.step
        });
        match current {
            Some(run) => runs.push(run),
            None => {
                let run = summarise(&path)?;
                index.upsert(&run)?;
                runs.push(run);
            }
        }
    }
    let found: BTreeSet<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    for name in known.keys().filter(|name| !found.contains(name.as_str())) {
        index.remove(name)?;
    }
    Ok(runs)
}

/// Makes the index of `root` anew from the run folders. Returns the runs by name.
pub fn rebuild(root: &Path) -> Result<Vec<RunSummary>> {
    let runs = from_folders(root)?;
    remove_files(&root.join(FILE_NAME))?;
    let index = Index::open(root)?;
    for run in &runs {
        index.upsert(run)?;
    }
    Ok(runs)
}

fn from_folders(root: &Path) -> Result<Vec<RunSummary>> {
    let folders = run_folders(root)?;
    Ok(folders.into_values().filter_map(|path| summarise(&path).ok()).collect())
}

/// Folders directly under `root` that hold a recipe. A root that does not exist has none.
fn run_folders(root: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let cannot = |cause| Error::io("read", root, cause);
    let entries = match fs::read_dir(root) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        other => other.map_err(cannot)?,
    };
    let mut folders = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(cannot)?.path();
        if path.join("recipe.toml").is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            folders.insert(name, path);
        }
    }
    Ok(folders)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    set_write_ahead(&connection)?;
    // The index is a cache: losing the last write on a power cut costs nothing.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    if version(&connection)? != VERSION {
        // Asked again under the lock: another process may have made the table in the meantime.
        connection.execute_batch("BEGIN IMMEDIATE")?;
        if version(&connection)? != VERSION {
            connection.execute_batch("DROP TABLE IF EXISTS runs")?;
            connection.execute_batch(&format!("{SCHEMA}; PRAGMA user_version = {VERSION}"))?;
        }
        connection.execute_batch("COMMIT")?;
    }
    // A damaged page in the middle shows only when it is read.
    connection.query_row("SELECT count(*), total(length(best)) FROM runs", [], |_| Ok(()))?;
    Ok(connection)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Changing the journal takes a lock for which SQLite does not always wait; network disks cannot do it at all.
fn set_write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let mut attempts_left = 200;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())) {
            Err(cause) if cause.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && attempts_left > 0 => {
                attempts_left -= 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

fn is_damage(cause: &rusqlite::Error) -> bool {
    matches!(cause.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
        || matches!(cause, rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::InvalidColumnIndex(_))
        || matches!(cause, rusqlite::Error::SqlInputError { .. })
}

fn remove_files(path: &Path) -> Result<()> {
    for ending in ["", "-wal", "-shm", "-journal"] {
        let path = path.with_file_name(format!("{FILE_NAME}{ending}"));
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("replace", &path, cause));
            }
            _ => {}
        }
    }
    Ok(())
}

/// `None` for a row that a newer version may have written.
fn read_row(row: &Row<'_>) -> rusqlite::Result<Option<RunSummary>> {
    let state: String = row.get(2)?;
    let (best, last): (String, String) = (row.get(8)?, row.get(9)?);
    let metrics = |text: &str| serde_json::from_str(text).ok();
    let (Some(state), Some(best), Some(last)) = (State::from_name(&state), metrics(&best), metrics(&last)) else {
        return Ok(None);
    };
    Ok(Some(RunSummary {
        name: row.get(0)?,
        path: PathBuf::from(row.get::<_, String>(1)?),
        state,
        step: row.get::<_, i64>(3)?.try_into().unwrap_or(0),
        started: row.get(4)?,
        updated: row.get(5)?,
        last_error: row.get(6)?,
        recipe_hash: row.get(7)?,
        best,
        last,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MetricsWriter, Record, RunDir};

    fn root_with_runs(names: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        for name in names {
            let mut run = RunDir::create_or_open(root.path(), name, &format!("name = \"{name}\"")).expect("opens");
            let mut metrics = MetricsWriter::open(&run.metrics_path(), None).expect("opens");
            metrics.write(&Record::new(5, "eval").value("loss", 1.25)).expect("writes");
            run.finish(State::Done, 5, None).expect("writes");
        }
        root
    }

    fn names(runs: &[RunSummary]) -> Vec<&str> {
        let mut names: Vec<_> = runs.iter().map(|run| run.name.as_str()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn listing_finds_all_runs_and_remembers_them() {
        let root = root_with_runs(&["a", "b"]);
        let runs = list(root.path()).expect("lists");
        assert_eq!(names(&runs), ["a", "b"]);
        assert_eq!(runs[0].best["eval/loss"], 1.25);
        assert_eq!(Index::open(root.path()).expect("opens").all().expect("reads").len(), 2);
    }

    #[test]
    fn what_is_stored_is_read_back() {
        let root = root_with_runs(&["a"]);
        let run = summarise(&root.path().join("a")).expect("reads");
        let index = Index::open(root.path()).expect("opens");
        index.upsert(&run).expect("writes");
        index.upsert(&run).expect("replaces");
        assert_eq!(index.get("a").expect("reads"), Some(run));
        assert_eq!(index.get("b").expect("reads"), None);
    }

    #[test]
    fn a_damaged_index_is_rebuilt() {
        let root = root_with_runs(&["a", "b"]);
        fs::write(root.path().join(FILE_NAME), b"this is not a database, not even nearly, but long enough")
            .expect("writes");
        assert_eq!(names(&list(root.path()).expect("lists")), ["a", "b"]);
    }

    #[test]
    fn an_index_cut_short_is_rebuilt() {
        let root = root_with_runs(&["a", "b"]);
        list(root.path()).expect("lists");
        let path = root.path().join(FILE_NAME);
        let bytes = fs::read(&path).expect("reads");
        fs::write(&path, &bytes[..bytes.len() * 2 / 3]).expect("writes");
        assert_eq!(names(&list(root.path()).expect("lists")), ["a", "b"]);
    }

    #[test]
    fn a_table_of_another_shape_is_replaced() {
        let root = root_with_runs(&["a"]);
        let other = Connection::open(root.path().join(FILE_NAME)).expect("opens");
        other.execute_batch("CREATE TABLE runs (id INTEGER); PRAGMA user_version = 77;").expect("writes");
        drop(other);
        assert_eq!(names(&list(root.path()).expect("lists")), ["a"]);
    }

    #[test]
    fn removed_folders_and_changed_runs_are_noticed() {
        let root = root_with_runs(&["a", "b"]);
        list(root.path()).expect("lists");
        fs::remove_dir_all(root.path().join("b")).expect("removes");
        let mut run = RunDir::create_or_open(root.path(), "a", "name = \"a\"").expect("opens");
        run.finish(State::Failed, 9, Some("x")).expect("writes");
        drop(run);
        let runs = list(root.path()).expect("lists");
        assert_eq!((names(&runs), runs[0].step, runs[0].state), (vec!["a"], 9, State::Failed));
        assert_eq!(Index::open(root.path()).expect("opens").all().expect("reads").len(), 1);
    }

    #[test]
    fn several_writers_at_once_lose_nothing() {
        let root = root_with_runs(&["a"]);
        let run = summarise(&root.path().join("a")).expect("reads");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let (root, run) = (root.path(), &run);
                scope.spawn(move || {
                    let index = Index::open(root).expect("opens");
                    for number in 0..10 {
                        index
                            .upsert(&RunSummary { name: format!("{writer}-{number}"), ..run.clone() })
                            .expect("writes");
                    }
                });
            }
        });
        assert_eq!(Index::open(root.path()).expect("opens").all().expect("reads").len(), 40);
    }

    #[test]
    fn a_root_that_does_not_exist_has_no_runs_and_is_not_made() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let missing = root.path().join("runs");
        assert_eq!(list(&missing).expect("lists"), []);
        assert!(!missing.exists());
    }
}
