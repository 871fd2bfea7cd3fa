//! A real directory: its lock, and a log in it.

use std::os::unix::fs::symlink;
use std::{fs, io};

use joblog::dir::{DirError, DirStorage};
use joblog::log::{Durability, Progress, Space};
use joblog::record::Record;
use joblog::testing::Random;
use joblog::verify::verify;
use joblog::{Log, Options, replay::Recovered};

use crate::support::{TestLog, small, submit};

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
