//! A real directory: its lock, and a log in it.

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
