//! A full disk is no catastrophe: new work is refused first, settles much later, a start never; what failed is
//! nowhere; and when there is room again, it goes on by itself. A failed sync is one.

use std::io;

use joblog::Options;
use joblog::log::{AppendError, Durability, Failure, Progress, Space, Ticket};
use joblog::storage::Storage as _;

use crate::support::{SECOND, TestLog, id, small};

/// A log with all its spares on a disk that is then full, and some jobs to settle.
fn full_disk() -> TestLog {
    let mut log = TestLog::new();
    for number in 1..=20 {
        log.submit(number, b"x").unwrap();
    }
    log.settle_down();
    log.disk.set_capacity(Some(log.disk.used()));
    log
}

fn settle_durably(log: &mut TestLog, number: u64, bytes: usize) -> Result<bool, AppendError> {
    let ticket = log.settle(number, &vec![1; bytes])?;
    Ok(log.settle_down().contains(&Progress::Durable(ticket)))
}

#[test]
fn a_full_disk_refuses_submits_then_settles_and_lets_both_in_again_by_itself() {
    let mut log = full_disk();
    let mut next = 100;
    // Submits go on until the hot segment and the next one are full.
    let refused = loop {
        next += 1;
        match log.submit(next, &[0; 5000]) {
            Ok(_) => {
                let progress = log.settle_down();
                if progress
                    .iter()
                    .any(|p| matches!(p, Progress::Failed(_, Failure::DiskFull)))
                {
                    break next;
                }
            }
            Err(error) => {
                assert_eq!(error, AppendError::DiskFull);
                break next;
            }
        }
    };
    assert!((108..130).contains(&refused), "refused at {refused}");
    assert_eq!(log.log.find(id(refused)), None, "a refused submit binds nothing");
    assert!(log.log.usage().submits_full && !log.log.usage().settles_full);
    // Settles take what is left, and then the spare that is theirs.
    let mut settled = 0;
    while settled < 20 && settle_durably(&mut log, settled + 1, 5000) == Ok(true) {
        settled += 1;
    }
    assert!((5..20).contains(&settled), "{settled} settled");
    assert!(log.log.usage().settles_full);
    assert_eq!(log.submit(999, b"x"), Err(AppendError::DiskFull));
    assert_eq!(
        log.log.next_timer().map(|at| at.0 > log.now.mono.0),
        Some(true),
        "no busy waiting"
    );
    log.advance(2 * SECOND);
    assert!(!log.settle_down().contains(&Progress::SpaceReturned));
    // A start needs none of it.
    let disk = log.disk.crash(5);
    disk.set_capacity(Some(disk.used()));
    let mut log = log.reopen(disk).unwrap();
    assert_eq!(log.recovered_jobs().len() as u64, 20 - settled + refused - 101);
    assert_eq!(log.log.find(id(refused)), None);
    log.settle_down();
    assert_eq!(log.submit(998, &[0; 9000]).is_ok(), !log.log.usage().submits_full);
    // Somebody makes room.
    log.disk.set_capacity(None);
    log.advance(2 * SECOND);
    log.settle_down();
    assert!(!log.log.usage().submits_full && !log.log.usage().settles_full);
    log.submit(1000, b"x").unwrap();
    assert_eq!(settle_durably(&mut log, settled + 1, 5000), Ok(true));
}

#[test]
fn space_that_returns_is_announced_once() {
    let mut log = full_disk();
    for number in 100.. {
        if log.submit(number, &[0; 5000]).is_err() {
            break;
        }
        log.settle_down();
    }
    log.disk.set_capacity(None);
    assert_eq!(log.settle_down(), [], "not before the next try");
    log.advance(2 * SECOND);
    assert_eq!(log.settle_down(), [Progress::SpaceReturned]);
    log.submit(999, b"x").unwrap();
    assert_eq!(log.settle_down().len(), 2);
}

#[test]
fn a_group_that_met_a_full_disk_fails_alone_and_never_comes_back() {
    // At every length at which the write may stop, and whatever a crash keeps.
    for after in (0..1400).step_by(37).chain([1, 7, 8, 39, 40, 41]) {
        let mut log = TestLog::new();
        log.submit(1, b"before").unwrap();
        log.settle_down();
        log.disk.fail_next_write_full(after);
        log.submit(2, &[7; 1000]).unwrap();
        log.submit(3, &[8; 100]).unwrap();
        let expected = [2, 3].map(|ticket| Progress::Failed(Ticket(ticket), Failure::DiskFull));
        assert_eq!(log.settle_down(), expected);
        assert!(log.log.poisoned().is_none());
        assert_eq!(log.log.find(id(2)), None);
        let disk = if after % 2 == 0 {
            log.disk.crash(after as u64)
        } else {
            log.disk.kill()
        };
        let mut log = log.reopen(disk).unwrap();
        assert_eq!(log.recovered_jobs(), [1], "written up to {after}");
        log.submit(2, b"again").unwrap();
        log.settle_down();
        let mut log = log.reopen(log.disk.crash(9)).unwrap();
        assert_eq!(log.recovered_jobs(), [1, 2]);
    }
}

#[test]
fn a_log_goes_on_in_the_next_segment_after_a_full_write() {
    let mut log = TestLog::new();
    log.settle_down();
    log.disk.fail_next_write_full(100);
    log.submit(1, b"x").unwrap();
    assert_eq!(
        log.settle_down(),
        [Progress::Failed(Ticket(1), Failure::DiskFull)]
    );
    log.submit(1, b"x").unwrap();
    assert!(log.settle_down().contains(&Progress::Durable(Ticket(2))));
}

#[test]
fn a_full_disk_in_the_middle_of_a_switch_loses_nothing() {
    // The first write of a switch is the end frame, the second the header, the third the group's frame.
    for (write, seed) in (0..3).flat_map(|write| (0..8).map(move |seed| (write, seed))) {
        let mut log = TestLog::new();
        log.settle_down();
        let mut number = 0;
        let commit = loop {
            number += 1;
            log.submit(number, &[0; 5000]).unwrap();
            let segments = log.disk.counts().dir_syncs;
            let commit = log.log.next_commit(log.now).unwrap();
            if number == 6 {
                break commit;
            }
            commit.write().unwrap();
            log.log.written(Ok(()), log.now);
            commit.sync().unwrap();
            log.log.synced(Ok(()), log.now);
            assert_eq!(log.disk.counts().dir_syncs, segments, "no switch yet");
        };
        log.disk.fail_nth_write_full(write, 20);
        let written = commit.write();
        assert_eq!(written.as_ref().unwrap_err().kind(), io::ErrorKind::StorageFull);
        log.log.written(written, log.now);
        assert!(
            log.progress()
                .contains(&Progress::Failed(Ticket(6), Failure::DiskFull))
        );
        if seed == 0 {
            log.advance(2 * SECOND);
            log.settle_down();
            log.submit(7, b"goes on").unwrap();
            assert!(
                log.settle_down().contains(&Progress::Durable(Ticket(7))),
                "write {write}"
            );
        }
        let mut log = log.reopen(log.disk.crash(seed)).unwrap();
        let expected = if seed == 0 {
            vec![1, 2, 3, 4, 5, 7]
        } else {
            vec![1, 2, 3, 4, 5]
        };
        assert_eq!(log.recovered_jobs(), expected, "write {write}");
    }
}

/// A start failed with half a header in a file that was called a segment already; the next start took that for
/// damage, and refused for good.
#[test]
fn a_start_that_cannot_write_its_header_harms_nothing() {
    for full in [false, true] {
        let mut log = full_disk();
        let disk = log.disk.crash(1);
        if full {
            disk.fail_next_write_full(20);
        } else {
            disk.fail_next_write();
        }
        assert!(log.reopen(disk.clone()).is_err());
        log = log.reopen(disk.kill()).unwrap();
        assert_eq!(log.recovered_jobs().len(), 20);
    }
}

#[test]
fn a_failed_sync_is_final_for_its_group_and_all_that_waits() {
    let mut log = TestLog::new();
    log.settle_down();
    let unsynced = log.log.append(&[], Space::Settle, Durability::Write).unwrap();
    log.commit();
    log.disk.fail_next_sync();
    log.submit(1, b"x").unwrap();
    let commit = log.log.next_commit(log.now).unwrap();
    log.submit(2, b"queued meanwhile").unwrap();
    commit.write().unwrap();
    log.log.written(Ok(()), log.now);
    let synced = commit.sync();
    log.log.synced(synced, log.now);
    let mut failed: Vec<_> = log
        .settle_down()
        .into_iter()
        .filter_map(|progress| match progress {
            Progress::Failed(ticket, Failure::Unknown) => Some(ticket),
            Progress::Written(_) => None,
            other => panic!("{other:?} after a failed sync"),
        })
        .collect();
    failed.sort_unstable();
    assert_eq!(failed, [unsynced, Ticket(2), Ticket(3)]);
    assert!(log.log.poisoned().unwrap().contains("sync failed"));
    assert_eq!(log.submit(3, b"x"), Err(AppendError::Closed));
    log.advance(100 * SECOND);
    assert_eq!(log.settle_down(), []);
    // The page cache shows the new data until the machine stops; then the old is back. Both starts work.
    let mut log = log.reopen(log.disk.kill()).unwrap();
    assert_eq!(log.recovered_jobs(), [1]);
    let mut log = log.reopen(log.disk.crash(1)).unwrap();
    assert_eq!(log.recovered_jobs(), [1], "the start made durable what it showed");
}

#[test]
fn a_failed_write_is_final() {
    let mut log = TestLog::new();
    log.settle_down();
    log.disk.fail_next_write();
    log.submit(1, b"x").unwrap();
    assert_eq!(log.settle_down(), [Progress::Failed(Ticket(1), Failure::Unknown)]);
    assert!(log.log.poisoned().is_some());
}

#[test]
fn settles_pass_while_submits_of_the_same_group_fail() {
    let mut log = full_disk();
    // Without chores nobody knows yet that the disk is full: a group that needs a third segment waits.
    let mut number = 100;
    loop {
        number += 1;
        log.submit(number, &[0; 5000]).unwrap();
        if !log.commit() {
            break;
        }
    }
    let settle = log.settle(1, b"done").unwrap();
    assert!(!log.commit(), "a spare may still be made");
    log.progress();
    assert!(log.chore(), "it is tried, and fails");
    let progress = log.settle_down();
    assert!(
        matches!(progress[0], Progress::Failed(_, Failure::DiskFull)),
        "{progress:?}"
    );
    assert_eq!(
        progress[1..],
        [Progress::Written(settle), Progress::Durable(settle)]
    );
    assert_eq!(log.log.find(id(number)), None);
    assert_eq!(log.result(1).as_deref(), Some(&b"done"[..]));
}

#[test]
fn a_disk_of_three_segments_takes_a_job_whenever_all_before_it_is_gone() {
    let options = Options {
        result_ttl_ms: 1_000,
        key_ttl_ms: 1_000,
        ..small()
    };
    let segment_bytes = options.segment_bytes;
    let mut log = TestLog::with(options);
    // Room for the hot segment and two spares, both held back.
    log.disk.set_capacity(Some(segment_bytes * 7 / 2));
    log.settle_down();
    for number in 1..=100 {
        let ticket = log
            .submit(number, &[1; 3_000])
            .unwrap_or_else(|error| panic!("job {number}: {error}"));
        assert!(
            log.settle_down().contains(&Progress::Durable(ticket)),
            "job {number}"
        );
        assert_eq!(settle_durably(&mut log, number, 100), Ok(true), "job {number}");
        if number % 30 == 0 {
            log = log.reopen(log.disk.crash(number)).unwrap();
            log.disk.set_capacity(Some(segment_bytes * 7 / 2));
        }
        for _ in 0..4 {
            log.advance(SECOND);
            log.settle_down();
        }
        assert_eq!(log.log.usage().live_bytes, 0, "job {number}");
    }
}

#[test]
fn a_stop_on_a_full_disk_waits_for_nothing() {
    let mut log = full_disk();
    for number in 100.. {
        if log.submit(number, &[0; 5000]).is_err() {
            break;
        }
        log.settle_down();
    }
    // The next try to make a spare is a second away.
    log.log.close();
    assert_eq!(log.settle_down(), [Progress::Closed]);
    let mut log = log.reopen(log.disk.crash(1)).unwrap();
    assert!(log.report.clean && log.recovered_jobs().len() > 20);
}

#[test]
fn a_stop_that_finds_no_room_for_its_end_frame_ends_too_and_loses_nothing() {
    let mut log = full_disk();
    log.submit(21, b"x").unwrap();
    log.settle_down();
    log.disk.fail_next_write_full(10);
    log.log.close();
    assert_eq!(log.settle_down(), [Progress::Closed]);
    assert!(log.log.poisoned().is_none());
    let mut log = log.reopen(log.disk.crash(2)).unwrap();
    assert_eq!(
        (log.report.clean, log.recovered_jobs()),
        (false, (1..=21).collect::<Vec<_>>())
    );
}

#[test]
fn a_spare_that_is_being_made_holds_up_no_stop() {
    let mut log = TestLog::new();
    let files = log.disk.list().unwrap();
    let chore = log.log.next_chore().expect("spares are wanted");
    log.log.close();
    while log.commit() {}
    assert_eq!(log.progress(), [Progress::Closed]);
    assert!(log.log.next_chore().is_none());
    assert_eq!(chore.run().unwrap_err().kind(), io::ErrorKind::Interrupted);
    assert_eq!(log.disk.list().unwrap(), files, "nothing of it is left");
    log.log
        .chore_done(Err(io::ErrorKind::Interrupted.into()), log.now);
    assert!(log.log.poisoned().is_none());
}

/// The disk was full before the first spare was made, and then the power went: no start found room any more.
#[test]
fn a_disk_that_is_full_from_the_first_moment_on_prevents_no_start() {
    let mut log = TestLog::new();
    log.disk.set_capacity(Some(log.disk.used()));
    for number in 1..=3 {
        log.submit(number, b"x").unwrap();
        log.commit();
    }
    log.settle_down();
    for seed in 0..3 {
        log = log.reopen(log.disk.crash(seed)).unwrap();
        log.settle_down();
    }
    log.disk.set_capacity(None);
    assert_eq!(log.recovered_jobs(), [1, 2, 3]);
}
