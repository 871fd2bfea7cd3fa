//! What a restart finds: everything that was durable, in order, and the way on.

use joblog::Options;
use joblog::ids::{Token, WallMs};
use joblog::log::{Durability, Known, Progress, Space, Ticket};
use joblog::record::{Cause, Record, Return};
use joblog::replay::{Past, Recovered};
use joblog::storage::Storage as _;

use crate::support::{SECOND, TestLog, dispatch, id, small};

fn write(log: &mut TestLog, record: Record<'_>) {
    log.log
        .append(&[record], Space::Settle, Durability::Write)
        .unwrap();
}

fn returned(number: u64, token: Token, cause: Cause) -> Return<'static> {
    Return {
        id: id(number),
        cause,
        token,
        due: None,
        written: None,
        alone: false,
        attempts: 0,
        crashes: 0,
        error: None,
    }
}

#[test]
fn a_clean_stop_and_a_start_keep_jobs_results_and_numbers() {
    let mut log = TestLog::new();
    assert_eq!((log.log.epoch(), log.report.clean), (1, true));
    let node = log.log.node();
    log.submit(1, b"one").unwrap();
    log.submit(2, b"two").unwrap();
    assert_eq!(
        log.settle_down(),
        [1, 2]
            .map(|t| Progress::Written(Ticket(t)))
            .into_iter()
            .chain([1, 2].map(|t| Progress::Durable(Ticket(t))))
            .collect::<Vec<_>>(),
    );
    log.settle(1, b"done").unwrap();
    log.log.close();
    let progress = log.settle_down();
    assert_eq!(progress.last(), Some(&Progress::Closed));
    let mut log = log.reopen(log.disk.kill()).unwrap();
    assert!(log.report.clean);
    assert_eq!(
        (log.log.node(), log.log.epoch(), log.report.last_sequence),
        (node, 2, 2)
    );
    assert_eq!(log.recovered_jobs(), [2]);
    assert_eq!(log.result(1).as_deref(), Some(&b"done"[..]));
    assert_eq!(log.data(2).as_deref(), Some(&b"two"[..]));
    assert_eq!(log.log.find(id(2)), Some(Known::Unsettled { fingerprint: 0 }));
    assert_eq!(log.log.find(id(3)), None);
}

#[test]
fn many_restarts_neither_grow_the_disk_nor_lose_a_job() {
    let mut log = TestLog::new();
    log.submit(1, b"patient").unwrap();
    log.settle_down();
    let used = log.disk.used();
    for restart in 0..200_u64 {
        let disk = if restart % 2 == 0 {
            log.disk.kill()
        } else {
            log.disk.crash(restart)
        };
        log = log.reopen(disk).unwrap();
        assert_eq!(log.recovered_jobs(), [1]);
        log.settle_down();
    }
    assert!(
        log.disk.used() <= used + 16_384,
        "{} grew from {used}",
        log.disk.used()
    );
}

/// Three leases over five jobs, as they were when the process died: 2 is settled; 3 failed under the first and
/// is in the third; 1 moved to the second, which never arrived; 4 came back undelivered; 5 was never handed out.
fn three_leases() -> ([Token; 3], Vec<Recovered>) {
    let mut log = TestLog::new();
    for number in 1..=5 {
        log.submit(number, b"x").unwrap();
    }
    log.settle_down();
    let tokens = [1, 2, 3].map(|sequence| Token {
        node: log.log.node(),
        epoch: 1,
        sequence,
    });
    let [first, second, third] = tokens;
    write(
        &mut log,
        Record::Dispatch(dispatch(first, &[1, 2, 3], WallMs(10))),
    );
    write(&mut log, Record::Delivered(first));
    log.settle(2, b"ok").unwrap();
    let mut back = returned(3, first, Cause::Error);
    (back.attempts, back.alone, back.due) = (1, true, Some(WallMs(99)));
    write(&mut log, Record::Return(back));
    write(&mut log, Record::Dispatch(dispatch(second, &[1, 4], WallMs(20))));
    write(&mut log, Record::Return(returned(4, second, Cause::Undelivered)));
    write(&mut log, Record::Dispatch(dispatch(third, &[3], WallMs(30))));
    log.settle_down();
    let recovered = log.reopen(log.disk.kill()).unwrap().recovered();
    (tokens, recovered)
}

#[test]
fn a_pause_is_no_longer_after_a_restart_than_it_was_when_it_was_written() {
    const HOUR_MS: u64 = 3_600_000;
    // Where the clock stands at the restart, what the record says of its own time, and when the job is due.
    for (clock_ms, written, due_ms) in [
        // It was an hour ahead, and was set right.
        (1_000_000, true, 1_000_200),
        // It went on.
        (1_000_000 + HOUR_MS + 50, true, 1_000_200 + HOUR_MS),
        (1_000_000 + HOUR_MS + 900, true, 1_000_200 + HOUR_MS),
        // A record of an older version says nothing.
        (1_000_000, false, 1_000_200 + HOUR_MS),
    ] {
        for copied in [false, true] {
            let mut log = TestLog::with(Options {
                result_ttl_ms: 1_000,
                ..small()
            });
            log.now.wall = WallMs(1_000_000 + HOUR_MS);
            log.submit(1, b"x").unwrap();
            log.settle_down();
            let token = Token {
                node: log.log.node(),
                epoch: 1,
                sequence: 1,
            };
            let back = Return {
                due: Some(WallMs(log.now.wall.0 + 200)),
                written: written.then_some(log.now.wall),
                ..returned(1, token, Cause::Error)
            };
            let granted = log.now.wall;
            write(&mut log, Record::Dispatch(dispatch(token, &[1], granted)));
            write(&mut log, Record::Return(back));
            log.settle_down();
            for number in 2..if copied { 60 } else { 2 } {
                log.submit(number, &[7; 3_000]).unwrap();
                log.settle(number, b"done").unwrap();
                log.settle_down();
                log.advance(SECOND);
                log.settle_down();
            }
            let first = "segment-0000000000000001".to_owned();
            assert_eq!(log.disk.list().unwrap().contains(&first), !copied);
            log.now.wall = WallMs(clock_ms);
            let recovered = log.reopen(log.disk.kill()).unwrap().recovered();
            let [Recovered::Job(job)] = &recovered[..] else {
                panic!("one job: {recovered:?}")
            };
            assert_eq!(job.due, Some(WallMs(due_ms)), "{clock_ms}, {written}, {copied}");
        }
    }
}

#[test]
fn a_token_is_spent_by_a_settle_and_not_by_the_end_of_its_lease() {
    for (cause, spent) in [
        (Cause::Error, true),
        (Cause::Released, true),
        (Cause::Expired, false),
    ] {
        let mut log = TestLog::new();
        log.submit(1, b"x").unwrap();
        log.settle_down();
        let token = Token {
            node: log.log.node(),
            epoch: 1,
            sequence: 1,
        };
        write(&mut log, Record::Dispatch(dispatch(token, &[1], WallMs(10))));
        write(&mut log, Record::Return(returned(1, token, cause)));
        log.settle_down();
        let recovered = log.reopen(log.disk.kill()).unwrap().recovered();
        let [Recovered::Job(job)] = &recovered[..] else {
            panic!("one job, no lease: {recovered:?}")
        };
        assert_eq!(
            (job.past.last_token, job.past.spent),
            (Some(token), spent),
            "{cause:?}"
        );
    }
}

#[test]
fn jobs_come_back_with_their_tries() {
    let ([_, second, third], recovered) = three_leases();
    let past = |number: u64| {
        recovered.iter().find_map(|item| match item {
            Recovered::Job(job) if job.sequence == number => Some((job.past, job.due)),
            _ => None,
        })
    };
    let tried = |token| Past {
        deliveries: 2,
        started: Some(WallMs(10)),
        last_token: Some(token),
        ..Past::default()
    };
    assert_eq!(past(1), Some((tried(second), None)));
    assert_eq!(past(2), None);
    let failed = Past {
        attempts: 1,
        alone: true,
        ..tried(third)
    };
    // It was due later, and went out since: what delayed it is over. A due time that stays would keep the job
    // from its restored lease, and hand it to another worker once it passes.
    assert_eq!(past(3), Some((failed, None)));
    let undelivered = Past {
        last_token: Some(second),
        ..Past::default()
    };
    assert_eq!(past(4), Some((undelivered, None)));
    assert_eq!(past(5), Some((Past::default(), None)));
}

#[test]
fn leases_come_back_with_the_jobs_that_they_still_hold() {
    let ([_, second, third], recovered) = three_leases();
    let first_lease = recovered
        .iter()
        .position(|item| matches!(item, Recovered::Lease(_)));
    assert_eq!(first_lease, Some(4), "jobs come first");
    let leases: Vec<_> = recovered
        .iter()
        .filter_map(|item| match item {
            Recovered::Lease(lease) => Some((lease.token, lease.delivered, lease.jobs.clone())),
            Recovered::Job(_) => None,
        })
        .collect();
    assert_eq!(
        leases,
        [(second, false, vec![id(1)]), (third, false, vec![id(3)])]
    );
}

#[test]
fn idle_log_writes_one_mark_and_then_nothing() {
    let mut log = TestLog::new();
    log.settle_down();
    assert_eq!(log.log.commit_due(), None, "nothing to witness");
    log.submit(1, b"x").unwrap();
    log.settle_down();
    let writes = log.disk.counts().writes;
    assert_eq!(log.log.commit_due().unwrap().0, log.now.mono.0 + SECOND);
    log.advance(SECOND - 1);
    assert!(!log.commit(), "not yet");
    log.advance(1);
    assert!(log.commit());
    assert_eq!(log.disk.counts().writes, writes + 1);
    assert_eq!(log.log.commit_due(), None);
    log.advance(100 * SECOND);
    assert!(!log.commit(), "no mark for a mark");
}

#[test]
fn records_that_nobody_waits_for_are_synced_within_a_second() {
    let mut log = TestLog::new();
    log.settle_down();
    let syncs = log.disk.counts().syncs;
    let token = Token {
        node: 1,
        epoch: 1,
        sequence: 1,
    };
    write(&mut log, Record::Delivered(token));
    assert_eq!(log.settle_down(), [Progress::Written(Ticket(1))]);
    assert_eq!(log.disk.counts().syncs, syncs, "no sync for its sake");
    log.advance(SECOND);
    assert_eq!(log.settle_down(), [Progress::Durable(Ticket(1))]);
}

#[test]
fn the_first_outcome_wins_and_a_strangers_outcome_is_counted() {
    let mut log = TestLog::new();
    log.submit(1, b"x").unwrap();
    log.settle_down();
    log.settle(1, b"first").unwrap();
    log.settle(1, b"second").unwrap();
    log.settle(77, b"stranger").unwrap();
    log.settle_down();
    assert_eq!(log.result(1).as_deref(), Some(&b"first"[..]));
    let log = log.reopen(log.disk.kill()).unwrap();
    assert_eq!(log.result(1).as_deref(), Some(&b"first"[..]));
    assert_eq!((log.report.outcomes_ignored, log.report.results), (2, 1));
}

#[test]
fn an_append_is_one_frame_and_appends_that_queue_share_one() {
    let mut log = TestLog::new();
    log.settle_down();
    let before = log.disk.counts();
    for number in 1..=20 {
        log.submit(number, b"together").unwrap();
    }
    assert_eq!(log.settle_down().len(), 40);
    let after = log.disk.counts();
    assert_eq!((after.writes - before.writes, after.syncs - before.syncs), (1, 1));
    assert_eq!(log.log.usage().groups, 1);
}

/// The length that a file seems to have after a sync that failed may be gone after the next power cut: a segment that
/// is begun in such a file does not count on it.
#[test]
fn a_file_that_a_failed_sync_left_too_short_is_no_shortened_segment() {
    let sized = |segment_bytes| Options {
        segment_bytes,
        ..small()
    };
    for seed in 0..20 {
        // The only file is short, and grows while its segment is written; of the last growth the sync fails.
        let mut log = TestLog::with(sized(24 << 10));
        log.settle_down();
        log.options = sized(128 << 10);
        log = log.reopen(log.disk.kill()).unwrap();
        let mut number = 0;
        let mut submit = |log: &mut TestLog| {
            number += 1;
            log.submit(number, &[7; 6000]).unwrap();
            log.commit();
        };
        (0..9).for_each(|_| submit(&mut log));
        log.disk.fail_next_sync();
        submit(&mut log);
        assert!(log.log.poisoned().is_some());
        // Now it is long enough to be a spare, and the only one that the start after the next finds.
        let names = log.disk.list().unwrap();
        let segment = names.iter().rfind(|name| name.starts_with("segment")).unwrap();
        log.options = sized(log.disk.content(segment).len() as u64);
        log = log.reopen(log.disk.kill()).unwrap();
        for number in 11..14 {
            log.submit(number, &[7; 6000]).unwrap();
            log.settle_down();
        }
        let mut spares = log.disk.list().unwrap();
        spares.retain(|name| name.starts_with("spare"));
        assert!(log.disk.content(&spares[0]).len() > 60_000);
        let disk = log.disk.kill();
        for name in &spares[1..] {
            disk.remove(name).unwrap();
        }
        log = log.reopen(disk).unwrap();
        log.submit(14, b"do not lose me").unwrap();
        log.commit();
        let mut log = log.reopen(log.disk.crash(seed)).unwrap();
        assert!(log.recovered_jobs().ends_with(&[11, 12, 13, 14]), "seed {seed}");
    }
}
