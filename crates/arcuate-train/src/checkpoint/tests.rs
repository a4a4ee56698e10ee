//! What a store keeps, finds, refuses and survives.

use super::*;

/// A store in a temporary folder.
fn store(keep_last: usize, keep_every_steps: Option<u64>) -> (tempfile::TempDir, CheckpointStore) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = open(dir.path(), keep_last, keep_every_steps);
    (dir, store)
}

fn open(dir: &Path, keep_last: usize, keep_every_steps: Option<u64>) -> CheckpointStore {
    let config = CheckpointConfig { every_steps: 10, keep_last, keep_every_steps };
    CheckpointStore::open(dir.join("checkpoints"), config).expect("the folder can be made")
}

/// Writes two files that tell the step.
fn write(step: u64) -> impl FnOnce(&Path) -> io::Result<()> {
    move |dir| {
        fs::create_dir(dir.join("tokenizer"))?;
        fs::write(dir.join("tokenizer/tokenizer.json"), "{}")?;
        fs::write(dir.join("model.safetensors"), format!("weights {step}"))
    }
}

fn save(store: &CheckpointStore, steps: impl IntoIterator<Item = u64>) {
    for step in steps {
        store.save(step, write(step)).expect("there is space");
    }
}

fn steps(store: &CheckpointStore) -> Vec<u64> {
    store.list().expect("readable").iter().map(|checkpoint| checkpoint.step).collect()
}

fn latest(store: &CheckpointStore) -> Option<u64> {
    store.latest_valid().expect("readable").checkpoint.map(|checkpoint| checkpoint.step)
}

#[test]
fn an_empty_store_has_nothing() {
    let (_dir, store) = store(1, None);
    assert_eq!(store.latest_valid().expect("readable"), Found::default());
    assert_eq!((store.last(), store.best()), (None, None));
}

#[test]
fn a_save_is_found_whole_through_every_name() {
    let (_dir, store) = store(1, None);
    let checkpoint = store.save_best(400, write(400)).expect("there is space");
    assert_eq!(checkpoint.path, store.dir().join("step-00000400"));
    for path in [checkpoint.path.clone(), store.dir().join("last"), store.dir().join("best")] {
        assert_eq!(verify(&path).expect("whole").step, 400);
        assert_eq!(fs::read_to_string(path.join("model.safetensors")).expect("readable"), "weights 400");
    }
    assert_eq!(fs::read_link(store.dir().join("best")).expect("a link"), Path::new("step-00000400"));
    assert_eq!((store.last(), store.best()), (Some(checkpoint.clone()), Some(checkpoint)));
}

#[test]
fn pointers_survive_a_move_of_the_run_folder() {
    let (dir, store) = store(1, None);
    store.save_best(10, write(10)).expect("there is space");
    fs::rename(dir.path().join("checkpoints"), dir.path().join("moved")).expect("movable");
    assert!(verify(&dir.path().join("moved/best")).is_ok());
}

#[test]
fn the_last_and_the_best_are_kept() {
    let (_dir, store) = store(1, None);
    save(&store, [10]);
    store.save_best(20, write(20)).expect("there is space");
    save(&store, [30, 40]);
    assert_eq!(steps(&store), [20, 40]);
    store.mark_best(40).expect("it exists");
    assert_eq!(steps(&store), [40]);
}

#[test]
fn the_newest_and_the_multiples_are_kept() {
    let (_dir, store) = store(2, Some(30));
    save(&store, (1..=8).map(|i| i * 10));
    assert_eq!(steps(&store), [30, 60, 70, 80]);
}

#[test]
fn a_best_that_does_not_exist_is_refused() {
    let (_dir, store) = store(1, None);
    save(&store, [10]);
    let error = store.mark_best(20).expect_err("it does not exist").to_string();
    assert!(error.starts_with("cannot point to `") && error.contains("step-00000020"), "{error}");
    assert_eq!(store.best(), None);
}

#[test]
fn steps_beyond_eight_digits_sort_as_numbers() {
    let (_dir, store) = store(3, None);
    save(&store, [99_999_999, 100_000_000, 100_000_001]);
    assert_eq!(latest(&store), Some(100_000_001));
}

#[test]
fn damaged_checkpoints_are_passed_over_with_a_warning() {
    let (_dir, store) = store(9, None);
    save(&store, [10, 20, 30, 40]);
    fs::remove_file(store.path(40).join("manifest.json")).expect("removable");
    fs::write(store.path(30).join("model.safetensors"), "weights 3x").expect("writable");
    let found = store.latest_valid().expect("readable");
    assert_eq!(found.checkpoint.map(|checkpoint| checkpoint.step), Some(20));
    assert_eq!(found.warnings.len(), 2);
    assert!(
        found.warnings[1].contains("the content of `model.safetensors` is not what was written"),
        "{found:?}",
        found = found.warnings
    );
}

#[test]
fn only_damaged_checkpoints_means_none() {
    let (_dir, store) = store(9, None);
    save(&store, [10]);
    fs::write(store.path(10).join("manifest.json"), "").expect("writable");
    let found = store.latest_valid().expect("readable");
    assert_eq!((found.checkpoint, found.warnings.len()), (None, 1));
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint_whole() {
    let (_dir, store) = store(1, None);
    save(&store, [10]);
    let error = store
        .save(20, |dir| -> io::Result<()> {
            fs::write(dir.join("model.safetensors"), "wei")?;
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        })
        .expect_err("the disk is full");
    let Error::DiskFull { path, needed_bytes: Some(needed), free_bytes: Some(_) } = &error else { panic!("{error:?}") };
    assert_eq!((path.as_path(), *needed), (store.dir(), 12));
    assert!(error.to_string().contains("a checkpoint needs more than the "), "{error}");
    assert_eq!((steps(&store), latest(&store)), (vec![10], Some(10)));
    assert!(
        !fs::read_dir(store.dir()).expect("readable").flatten().any(|entry| file_name(&entry.path()).starts_with('.'))
    );
}

#[test]
fn a_full_disk_is_seen_inside_errors_of_other_crates() {
    #[derive(Debug, thiserror::Error)]
    #[error("cannot save the model")]
    struct ModelError(#[source] io::Error);

    let (_dir, store) = store(1, None);
    let full = store.save(10, |_| Err(ModelError(io::ErrorKind::StorageFull.into()))).expect_err("full");
    assert!(matches!(full, Error::DiskFull { .. }), "{full:?}");
    let other = store.save(10, |_| Err(ModelError(io::ErrorKind::InvalidData.into()))).expect_err("failed");
    assert!(matches!(other, Error::Write { .. }), "{other:?}");
    assert!(other.to_string().ends_with("cannot save the model"), "{other}");
}

#[test]
fn a_checkpoint_that_cannot_fit_is_refused_before_it_is_written() {
    let (_dir, mut store) = store(1, None);
    store.expect_bytes(u64::MAX);
    let error = store.save(10, |_| -> io::Result<()> { panic!("nothing should be written") }).expect_err("too large");
    assert!(matches!(error, Error::DiskFull { needed_bytes: Some(u64::MAX), .. }), "{error:?}");
    assert_eq!(fs::read_dir(store.dir()).expect("readable").count(), 0);
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let (_dir, store) = store(1, None);
    save(&store, [10]);
    let denied = |_: &Path| -> io::Result<()> { Err(io::Error::from_raw_os_error(libc::EROFS)) };
    let error = store.save(20, denied).expect_err("read-only").to_string();
    assert!(error.starts_with("cannot write `") && error.contains("make the folder writable"), "{error}");
    assert_eq!(latest(&store), Some(10));
}

#[test]
fn a_file_where_the_folder_should_be_is_named() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::write(dir.path().join("checkpoints"), "a file").expect("writable");
    let config = CheckpointConfig { every_steps: 10, keep_last: 1, keep_every_steps: None };
    let error = CheckpointStore::open(dir.path().join("checkpoints"), config).expect_err("not a folder").to_string();
    assert!(error.starts_with("cannot make the folder `"), "{error}");
}

#[test]
fn saving_a_step_again_replaces_it() {
    let (_dir, store) = store(1, None);
    save(&store, [10]);
    store.save(10, |dir| fs::write(dir.join("model.safetensors"), "others")).expect("there is space");
    assert_eq!(steps(&store), [10]);
    assert_eq!(fs::read_to_string(store.path(10).join("model.safetensors")).expect("readable"), "others");
    assert!(verify(&store.dir().join("last")).is_ok());
}

#[test]
fn going_back_forgets_later_checkpoints() {
    let (_dir, store) = store(9, None);
    save(&store, [10, 20, 30]);
    store.discard_after(10).expect("it exists");
    assert_eq!((steps(&store), store.last().map(|last| last.step)), (vec![10], Some(10)));
}

#[test]
fn going_back_before_the_best_takes_its_pointer_away() {
    let (_dir, store) = store(9, None);
    save(&store, [10]);
    store.save_best(20, write(20)).expect("there is space");
    store.discard_after(10).expect("it exists");
    assert_eq!((steps(&store), store.best()), (vec![10], None));
    assert!(store.dir().join("best").symlink_metadata().is_err());
    store.discard_after(20).expect_err("there is nothing to go back to");
    assert_eq!(steps(&store), [10]);
}

#[test]
fn settling_moves_the_pointers_that_a_kill_left_behind() {
    let (_dir, store) = store(1, None);
    save(&store, [10, 20]);
    fs::remove_file(store.dir().join("last")).expect("removable");
    let newest = store.latest_valid().expect("readable").checkpoint.expect("it was saved");
    store.settle(&newest, Some(20)).expect("it exists");
    assert_eq!((store.last(), store.best()), (Some(newest.clone()), Some(newest.clone())));
    store.settle(&newest, Some(10)).expect("a best that is gone is no error");
    assert_eq!(store.best(), Some(newest));
}

#[test]
fn files_of_others_are_left_alone() {
    let (dir, store) = store(1, None);
    for name in ["notes.txt", "step-1", "step-00000010.bak", "step-x", ".hidden"] {
        fs::write(store.dir().join(name), "mine").expect("writable");
    }
    save(&store, [20, 30]);
    let store = open(dir.path(), 1, None);
    assert_eq!(steps(&store), [30]);
    assert_eq!(fs::read_dir(store.dir()).expect("readable").count(), 7);
}

#[test]
fn an_empty_save_is_refused() {
    let (_dir, store) = store(1, None);
    save(&store, [10]);
    store.save(20, |_| -> io::Result<()> { Ok(()) }).expect_err("a checkpoint of nothing cannot be resumed from");
    assert_eq!(latest(&store), Some(10));
}

#[test]
fn names_read_back_as_steps() {
    assert_eq!(step_of(&step_name(400)), Some(400));
    assert_eq!(step_of(&step_name(u64::MAX)), Some(u64::MAX));
    for wrong in ["step-400", "step-+0000400", "step-", "last", "step-000000400", ".tmp-step-00000400-7"] {
        assert_eq!(step_of(wrong), None, "{wrong}");
    }
}
