//! A real directory: its lock, and a log in it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::{fs, io};

use joblog::dir::{DirError, DirStorage};
use joblog::log::{Durability, Progress, Space};
use joblog::record::{Record, Submit};
use joblog::storage::{File, Storage as _};
use joblog::testing::Random;
use joblog::verify::verify;
use joblog::{Log, Options, replay::Recovered};

use crate::support::{TestLog, id, small, submit};

#[test]
fn a_directory_is_one_processs_and_says_whose() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/data");
    let held = DirStorage::open(&path).unwrap();
    let pid = std::process::id();
    for refused in [DirStorage::open(&path), DirStorage::inspect(&path)] {
        let error = refused.unwrap_err();
        assert!(
            matches!(error, DirError::Locked { pid: Some(by), .. } if by == pid),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains(&format!("in use by the process with pid {pid}")),
            "{error}"
        );
    }
    drop(held);
    DirStorage::inspect(&path).unwrap();
    DirStorage::open(&path).unwrap();
}

#[test]
fn a_lock_that_was_removed_by_hand_lets_nobody_in() {
    let dir = tempfile::tempdir().unwrap();
    let held = DirStorage::open(dir.path()).unwrap();
    fs::remove_file(dir.path().join("lock")).unwrap();
    for refused in [DirStorage::open(dir.path()), DirStorage::inspect(dir.path())] {
        let error = refused.unwrap_err();
        assert!(matches!(error, DirError::Locked { pid: None, .. }), "{error}");
    }
    assert_eq!(DirStorage::look(dir.path()).unwrap().user(), Some(0));
    drop(held);
    DirStorage::open(dir.path()).unwrap();
}

#[test]
fn an_older_version_that_locks_the_file_alone_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("lock"), "77\n").unwrap();
    let older = fs::File::open(dir.path().join("lock")).unwrap();
    older.lock().unwrap();
    for refused in [DirStorage::open(dir.path()), DirStorage::inspect(dir.path())] {
        let error = refused.unwrap_err();
        assert!(matches!(error, DirError::Locked { pid: Some(77), .. }), "{error}");
    }
    assert_eq!(DirStorage::look(dir.path()).unwrap().user(), Some(77));
    drop(older);
    assert_eq!(DirStorage::look(dir.path()).unwrap().user(), None);
    DirStorage::open(dir.path()).unwrap();
}

/// A file that is always full stands for the last block of a disk.
#[test]
fn a_disk_without_room_for_the_pid_prevents_no_start() {
    let dir = tempfile::tempdir().unwrap();
    symlink("/dev/full", dir.path().join("lock")).unwrap();
    let storage = DirStorage::open(dir.path()).unwrap();
    let untold = storage.pid_untold().unwrap();
    assert_eq!(untold.kind(), io::ErrorKind::StorageFull, "{untold}");
    let refused = DirStorage::open(dir.path()).unwrap_err();
    assert!(matches!(refused, DirError::Locked { pid: None, .. }), "{refused}");
}

#[test]
fn a_pid_takes_the_place_of_a_longer_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("lock"), "12345678901234567890\n").unwrap();
    let storage = DirStorage::open(dir.path()).unwrap();
    assert!(storage.pid_untold().is_none());
    let text = fs::read_to_string(dir.path().join("lock")).unwrap();
    assert_eq!(text, format!("{}\n", std::process::id()));
}

#[test]
fn inspecting_what_is_not_there_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("typo");
    assert!(matches!(DirStorage::inspect(&path), Err(DirError::Io { .. })));
    assert!(!path.exists());
}

/// How many files of a directory this process has open.
fn files_open(dir: &Path) -> usize {
    let dir = dir.canonicalize().unwrap();
    let all = fs::read_dir("/proc/self/fd").unwrap();
    let targets = all.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.parent() == Some(&*dir)).count()
}

fn read(file: &impl File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn few_files_are_open_at_once_and_each_can_be_used_under_whatever_name_it_has() {
    const LIMIT: usize = 8;
    let dir = tempfile::tempdir().unwrap();
    let storage = DirStorage::open_with(dir.path(), LIMIT).unwrap();
    // Beside them the lock is open.
    let open = || files_open(dir.path()) - 1;
    let files: Vec<_> = (0..40_u8)
        .map(|number| {
            let file = storage.create(&format!("file-{number}")).unwrap();
            file.write_at(&[number], 0).unwrap();
            file.sync_data().unwrap();
            file
        })
        .collect();
    assert_eq!(open(), LIMIT);
    storage.rename("file-1", "renamed-1").unwrap();
    storage.rename("file-39", "renamed-39").unwrap();
    storage.remove("file-2").unwrap();
    // Its name goes to another: what was held stays what it was.
    storage.rename("file-3", "file-4").unwrap();
    for (number, file) in (0..).zip(&files) {
        assert_eq!(read(file), [number]);
        file.write_at(&[number, 7], 0).unwrap();
        file.sync_data().unwrap();
    }
    for (name, number) in [
        ("renamed-1", 1),
        ("renamed-39", 39),
        ("file-4", 3),
        ("file-20", 20),
    ] {
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), [number, 7], "{name}");
    }
    // Those without a name can be opened no more, so they stay open.
    assert!(open() <= LIMIT + 2, "{} open", open());
    // What is not synced stays open, too: a failed sync is told to who has it open.
    for file in &files[10..30] {
        file.write_at(b"x", 0).unwrap();
    }
    assert!(open() >= 20, "{} open", open());
    files[10..30].iter().for_each(|file| file.sync_data().unwrap());
    drop(storage.open("file-20").unwrap());
    assert!(open() <= LIMIT + 2, "{} open", open());
    drop(files);
    assert_eq!(open(), 0);
}

#[test]
fn a_file_that_somebody_exchanged_is_not_taken_for_the_one_that_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let storage = DirStorage::open_with(dir.path(), 8).unwrap();
    let first = storage.create("first").unwrap();
    let others: Vec<_> = (0..20)
        .map(|number| storage.create(&format!("{number}")).unwrap())
        .collect();
    fs::rename(dir.path().join("0"), dir.path().join("first")).unwrap();
    assert!(
        first
            .read_at(&mut [], 0)
            .unwrap_err()
            .to_string()
            .contains("another file")
    );
    drop(others);
}

#[test]
fn a_log_of_more_segments_than_files_may_be_open_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let now = TestLog::new().now;
    let open = || {
        let mut random = Random(7);
        let storage = DirStorage::open_with(dir.path(), 8).unwrap();
        Log::open(storage, small(), Box::new(move || random.next()), now).unwrap()
    };
    let mut log = open().log;
    let data = |number: u64| vec![u8::try_from(number).unwrap(); 10_000];
    for number in 1..=200 {
        let bytes = data(number);
        let record = Record::Submit(submit(number, &bytes));
        log.append(&[record], Space::Submit, Durability::Sync).unwrap();
        while let Some(chore) = log.next_chore() {
            log.chore_done(chore.run(), now);
        }
        let commit = log.next_commit(now).unwrap();
        log.written(commit.write(), now);
        log.synced(commit.sync(), now);
        while log.progress().is_some() {}
    }
    let segments = fs::read_dir(dir.path()).unwrap().count();
    assert!(segments > 60, "{segments}");
    for boot in 0..2 {
        for number in 1..=200 {
            let stored = log.read(id(number)).unwrap().unwrap();
            assert_eq!(Submit::decode(stored.submit.as_ref()).unwrap().data, data(number));
        }
        assert!(
            files_open(dir.path()) <= 8 + 2,
            "{} open in boot {boot}",
            files_open(dir.path())
        );
        drop(log);
        log = open().log;
    }
}

#[test]
fn a_log_in_a_real_directory_survives_its_process() {
    let dir = tempfile::tempdir().unwrap();
    let now = TestLog::new().now;
    let open = |options: Options| {
        let mut random = Random(7);
        Log::open(
            DirStorage::open(dir.path()).unwrap(),
            options,
            Box::new(move || random.next()),
            now,
        )
        .unwrap()
    };
    let mut log = open(small()).log;
    for number in 1..=50 {
        let data = vec![1; 1000];
        log.append(
            &[Record::Submit(submit(number, &data))],
            Space::Submit,
            Durability::Sync,
        )
        .unwrap();
        while let Some(chore) = log.next_chore() {
            log.chore_done(chore.run(), now);
        }
        let commit = log.next_commit(now).unwrap();
        log.written(commit.write(), now);
        log.synced(commit.sync(), now);
        assert!(std::iter::from_fn(|| log.progress()).any(|p| matches!(p, Progress::Durable(_))));
    }
    drop(log);
    let verdict = verify(&DirStorage::inspect(dir.path()).unwrap()).unwrap();
    assert_eq!(
        (verdict.damages.len(), verdict.jobs, verdict.clean),
        (0, 50, false)
    );
    let mut log = open(small()).log;
    let jobs = std::iter::from_fn(|| log.next_recovered()).filter(|item| matches!(item, Recovered::Job(_)));
    assert_eq!(jobs.count(), 50);
}
