//! A save cut off at every place: the newest whole checkpoint is always found, and nothing is left over.

use super::fault::crash_at;
use super::*;

const STAGES: [Stage; 10] = [
    Stage::Created,
    Stage::Written,
    Stage::ManifestWritten,
    Stage::Synced,
    Stage::SteppedAside,
    Stage::Published,
    Stage::LinkedAside,
    Stage::PointedLast,
    Stage::PointedBest,
    Stage::Deleting,
];

fn open(dir: &Path) -> CheckpointStore {
    let config = CheckpointConfig { every_steps: 10, keep_last: 1, keep_every_steps: None };
    CheckpointStore::open(dir, config).expect("the folder can be opened")
}

fn save(store: &CheckpointStore, step: u64, text: &str) {
    store.save_best(step, |dir| fs::write(dir.join("model.safetensors"), text)).expect("there is space");
}

/// The text of the newest whole checkpoint after opening anew; everything but checkpoints and pointers must be gone.
fn text_after_restart(dir: &Path) -> String {
    let store = open(dir);
    let found = store.latest_valid().expect("readable");
    assert_eq!(found.warnings, Vec::<String>::new());
    for name in store.entries().expect("readable") {
        assert!(step_of(&name).is_some() || name == "last" || name == "best", "{name} is left over");
    }
    for pointer in ["last", "best"] {
        assert!(verify(&dir.join(pointer)).is_ok(), "`{pointer}` points nowhere");
    }
    let path = found.checkpoint.expect("a checkpoint was saved before").path;
    fs::read_to_string(path.join("model.safetensors")).expect("readable")
}

#[test]
fn a_kill_during_a_save_loses_no_saved_checkpoint() {
    for stage in STAGES {
        let dir = tempfile::tempdir().expect("a temporary folder");
        save(&open(dir.path()), 10, "first");
        let came_by = crash_at(stage, || save(&open(dir.path()), 20, "second"));
        assert_eq!(came_by, stage != Stage::SteppedAside, "{stage:?}");
        let is_published = !matches!(stage, Stage::Created | Stage::Written | Stage::ManifestWritten | Stage::Synced);
        let expected = if is_published { "second" } else { "first" };
        assert_eq!(text_after_restart(dir.path()), expected, "{stage:?}");
    }
}

#[test]
fn a_kill_while_a_step_is_saved_again_loses_nothing() {
    for stage in STAGES {
        let dir = tempfile::tempdir().expect("a temporary folder");
        save(&open(dir.path()), 10, "first");
        let came_by = crash_at(stage, || save(&open(dir.path()), 10, "second"));
        assert_eq!(came_by, stage != Stage::Deleting, "{stage:?}");
        let found = text_after_restart(dir.path());
        let is_published = matches!(
            stage,
            Stage::Published | Stage::LinkedAside | Stage::PointedLast | Stage::PointedBest | Stage::Deleting
        );
        assert_eq!(found, if is_published { "second" } else { "first" }, "{stage:?}");
    }
}

#[test]
fn a_run_killed_at_every_save_still_gets_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut step = 10;
    save(&open(dir.path()), step, "10");
    for stage in STAGES {
        step += 10;
        crash_at(stage, || save(&open(dir.path()), step, &step.to_string()));
        text_after_restart(dir.path());
        save(&open(dir.path()), step, &step.to_string());
        assert_eq!(text_after_restart(dir.path()), step.to_string(), "{stage:?}");
        assert_eq!(open(dir.path()).list().expect("readable").len(), 1, "{stage:?}");
    }
}

#[test]
fn pointers_catch_up_after_a_kill_just_behind_the_rename() {
    for stage in [Stage::Published, Stage::LinkedAside, Stage::PointedLast] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        save(&open(dir.path()), 10, "first");
        assert!(crash_at(stage, || save(&open(dir.path()), 20, "second")));
        let store = open(dir.path());
        let newest = store.latest_valid().expect("readable").checkpoint.expect("it was saved");
        store.settle(&newest, Some(20)).expect("it exists");
        assert_eq!((store.last(), store.best()), (Some(newest.clone()), Some(newest)), "{stage:?}");
        assert_eq!(store.list().expect("readable").len(), 1, "{stage:?}");
    }
}

#[test]
fn a_half_written_file_of_a_kill_is_removed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    save(&open(dir.path()), 10, "first");
    let cut_off = || {
        let _ = open(dir.path()).save(20, |dir| -> io::Result<()> {
            fs::write(dir.join("model.safetensors"), "sec")?;
            reached(Stage::Written);
            Ok(())
        });
    };
    assert!(crash_at(Stage::Written, cut_off));
    assert!(dir.path().join(format!(".tmp-step-00000020-{}", std::process::id())).is_dir());
    assert_eq!(text_after_restart(dir.path()), "first");
}
