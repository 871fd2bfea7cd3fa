//! What is kept, how long, and when segments go.

use joblog::log::{AppendError, Durability, KeyEntry, Known, Space};
use joblog::record::{End, IdempotencyKey, Outcome, Reason, Record, Submit};
use joblog::storage::Storage as _;
use joblog::testing::Random;
use joblog::{Options, ids::WallMs};

use crate::support::{SECOND, TestLog, id, outcome, small, submit};

const HOUR: u64 = 3600 * SECOND;

const KEY: IdempotencyKey = IdempotencyKey {
    scope: 3,
    hash: 0x1234_5678_9abc_def0_1111,
};

fn keyed(number: u64) -> Submit<'static> {
    Submit {
        idempotency: Some(KEY),
        fingerprint: 42,
        ..submit(number, b"data")
    }
}

fn append(log: &mut TestLog, record: Record<'_>) -> Result<(), AppendError> {
    log.log
        .append(&[record], Space::Submit, Durability::Sync)
        .map(|_| ())
}

fn expire(log: &mut TestLog, micros: u64) {
    log.advance(micros);
    log.settle_down();
}

#[test]
fn a_result_is_kept_for_its_time_also_over_a_restart() {
    let mut log = TestLog::new();
    log.submit(1, b"x").unwrap();
    log.settle_down();
    log.settle(1, b"done").unwrap();
    log.settle_down();
    expire(&mut log, HOUR / 2);
    let mut log = log.reopen(log.disk.kill()).unwrap();
    assert_eq!(log.result(1).as_deref(), Some(&b"done"[..]));
    assert_eq!(log.log.next_timer().unwrap().0, log.now.mono.0 + HOUR / 2);
    expire(&mut log, HOUR / 2 - 1000);
    assert!(log.result(1).is_some());
    expire(&mut log, 1000);
    assert_eq!(
        (log.result(1), log.log.find(id(1)), log.log.usage().results),
        (None, None, 0)
    );
    let log = log.reopen(log.disk.kill()).unwrap();
    assert_eq!(log.log.find(id(1)), None, "a start does not bring it back");
}

#[test]
fn a_wall_clock_that_went_back_keeps_results_longer_never_shorter() {
    let mut log = TestLog::new();
    log.submit(1, b"x").unwrap();
    log.settle_down();
    log.settle(1, b"done").unwrap();
    log.settle_down();
    log.now.wall = WallMs(5);
    let mut log = log.reopen(log.disk.kill()).unwrap();
    expire(&mut log, HOUR - 1000);
    assert!(log.result(1).is_some());
    // A jump forward while the server runs changes nothing either.
    log.now.wall.0 += 1_000_000_000;
    expire(&mut log, 0);
    assert!(log.result(1).is_some());
}

#[test]
fn a_key_and_its_result_live_for_the_keys_time_and_survive_restarts() {
    let mut log = TestLog::new();
    append(&mut log, Record::Submit(keyed(1))).unwrap();
    assert_eq!(
        log.log.find_key(KEY),
        Some(KeyEntry {
            id: id(1),
            fingerprint: 42
        }),
        "queued already counts"
    );
    log.settle_down();
    log.settle(1, b"done").unwrap();
    log.settle_down();
    expire(&mut log, 23 * HOUR);
    let mut log = log.reopen(log.disk.crash(1)).unwrap();
    assert_eq!(
        log.log.find_key(KEY),
        Some(KeyEntry {
            id: id(1),
            fingerprint: 42
        })
    );
    assert!(log.result(1).is_some());
    expire(&mut log, HOUR);
    assert_eq!(
        (log.log.find_key(KEY), log.log.find(id(1)), log.log.usage().keys),
        (None, None, 0)
    );
    append(&mut log, Record::Submit(keyed(2))).unwrap();
    log.settle_down();
    let mut log = log.reopen(log.disk.kill()).unwrap();
    assert_eq!(
        log.log.find_key(KEY).map(|entry| entry.id),
        Some(id(2)),
        "the key is free again, also on disk"
    );
    assert_eq!(log.recovered_jobs(), [2]);
}

#[test]
fn results_give_way_oldest_first_and_a_keyed_job_stays_known() {
    let mut log = TestLog::with(Options {
        results_max: 2,
        ..small()
    });
    append(&mut log, Record::Submit(keyed(1))).unwrap();
    for number in 2..=4 {
        log.submit(number, b"x").unwrap();
    }
    log.settle_down();
    for number in 1..=4 {
        log.settle(number, b"done").unwrap();
        expire(&mut log, SECOND);
        assert!(
            log.result(number).is_some(),
            "whoever waits for it reads it first"
        );
    }
    expire(&mut log, SECOND);
    let gave_way = Known::Finished {
        fingerprint: 42,
        end: End::Ok,
        reason: None,
        readable: false,
    };
    for restart in 0..2 {
        assert_eq!(log.log.find(id(1)), Some(gave_way), "{restart}");
        assert!(log.log.read(id(1)).unwrap().is_none());
        assert_eq!(log.log.find(id(2)), None);
        assert!(log.result(3).is_some() && log.result(4).is_some());
        let usage = log.log.usage();
        assert_eq!((usage.results, usage.results_evicted, usage.keys), (2, 2, 1));
        log = log.reopen(log.disk.kill()).unwrap();
    }
    expire(&mut log, 24 * HOUR);
    assert_eq!((log.log.find(id(1)), log.log.usage().keys), (None, 0));
}

#[test]
fn result_bytes_are_bounded_too() {
    let mut log = TestLog::with(Options {
        result_bytes_max: 5000,
        ..small()
    });
    for number in 1..=10 {
        log.submit(number, &[0; 300]).unwrap();
        log.settle_down();
        log.settle(number, &[0; 1000]).unwrap();
        log.settle_down();
        expire(&mut log, 0);
        assert!(log.log.usage().result_bytes <= 5000);
    }
    assert_eq!(log.log.usage().results, 3);
    expire(&mut log, HOUR);
    assert_eq!(log.log.usage().result_bytes, 0);
}

#[test]
fn keys_are_refused_when_they_are_too_many_and_none_is_forgotten() {
    let mut log = TestLog::with(Options {
        keys_max: 2,
        ..small()
    });
    append(&mut log, Record::Submit(keyed(1))).unwrap();
    assert!(!log.log.keys_full());
    append(
        &mut log,
        Record::Submit(Submit {
            client_id: true,
            ..submit(2, b"x")
        }),
    )
    .unwrap();
    assert!(log.log.keys_full());
    let third = Submit {
        client_id: true,
        ..submit(3, b"x")
    };
    assert_eq!(
        append(&mut log, Record::Submit(third.clone())),
        Err(AppendError::KeysFull)
    );
    assert_eq!(log.log.find(id(3)), None);
    log.submit(4, b"no key").unwrap();
    log.settle_down();
    log.settle(2, b"done").unwrap();
    log.settle_down();
    expire(&mut log, 24 * HOUR);
    assert!(!log.log.keys_full());
    append(&mut log, Record::Submit(third)).unwrap();
}

#[test]
fn segments_go_when_nothing_in_them_is_live_and_one_old_job_holds_none() {
    let mut log = TestLog::new();
    log.settle_down();
    let segments = |log: &TestLog| {
        let names = log.disk.list().unwrap();
        names.iter().filter(|name| name.starts_with("segment")).count()
    };
    log.submit(1, b"the old one").unwrap();
    for number in 2..=60 {
        log.submit(number, &[0; 4000]).unwrap();
        log.settle_down();
        log.settle(number, b"done").unwrap();
        log.settle_down();
    }
    let all = segments(&log);
    assert!(all > 7, "{all}");
    expire(&mut log, HOUR);
    assert_eq!(
        segments(&log),
        2,
        "the old job is copied: beside its segment there is the hot one"
    );
    log.settle(1, b"at last").unwrap();
    log.settle_down();
    assert_eq!(
        log.data(1).as_deref(),
        Some(&b"the old one"[..]),
        "read from the copy"
    );
    expire(&mut log, HOUR);
    assert!(
        log.disk.used() <= 5 * log.options.segment_bytes,
        "{} bytes stay",
        log.disk.used()
    );
    let mut log = log.reopen(log.disk.crash(4)).unwrap();
    assert_eq!(
        (log.recovered_jobs(), log.report.last_sequence),
        (vec![], 60),
        "no sequence is used twice"
    );
}

#[test]
fn recycled_segments_are_full_of_old_frames_and_none_comes_back() {
    let mut log = TestLog::new();
    log.settle_down();
    for number in 1..=400 {
        log.submit(number, &[0; 2000]).unwrap();
        log.settle_down();
        let mut record = outcome(number, b"done", log.now.wall);
        record.keep_ms = Some(10);
        log.log
            .append(&[Record::Outcome(record)], Space::Settle, Durability::Sync)
            .unwrap();
        log.settle_down();
        expire(&mut log, SECOND);
        if number % 9 == 0 {
            let disk = if number % 2 == 0 {
                log.disk.kill()
            } else {
                log.disk.crash(number)
            };
            log = log.reopen(disk).unwrap();
            assert_eq!(log.recovered_jobs(), []);
            assert_eq!(log.report.cut, None);
        }
    }
    assert!(log.disk.used() <= 6 * log.options.segment_bytes);
}

/// Works off jobs of many lives, with restarts and, if `resized`, with other lengths of segments after them.
fn work_off(seed: u64, resized: bool) -> TestLog {
    let mut random = Random(seed);
    let mut below = |limit: u64| random.next() % limit;
    let mut log = TestLog::with(Options {
        result_ttl_ms: 1_000,
        key_ttl_ms: 1_000,
        ..small()
    });
    let (mut open, mut next) = (Vec::new(), 1);
    for _ in 0..300 {
        match below(20) {
            0..12 => {
                let data = vec![7; usize::try_from(below(3_000)).unwrap()];
                log.submit(next, &data).unwrap();
                open.push(next);
                next += 1;
            }
            12..19 => {
                // Some jobs are left for long: what is around them is copied away.
                let at = if below(8) == 0 {
                    0
                } else {
                    open.len().saturating_sub(1)
                };
                if !open.is_empty() {
                    log.settle(open.remove(at), b"done").unwrap();
                }
            }
            _ if below(3) == 0 => {
                if resized {
                    log.options.segment_bytes =
                        [32 << 10, 128 << 10, 64 << 10][usize::try_from(below(3)).unwrap()];
                }
                let disk = if below(2) == 0 {
                    log.disk.kill()
                } else {
                    log.disk.crash(below(1_000))
                };
                log = log.reopen(disk).unwrap();
            }
            _ => {}
        }
        log.settle_down();
        expire(&mut log, below(SECOND / 4));
    }
    for number in open {
        log.settle(number, b"done").unwrap();
        log.settle_down();
    }
    log
}

#[test]
fn what_is_not_live_is_given_back_though_nothing_new_comes() {
    for seed in 0..60 {
        for resized in [false, true] {
            let mut log = work_off(seed, resized);
            for _ in 0..40 {
                expire(&mut log, SECOND / 2);
            }
            let usage = log.log.usage();
            let names = log.disk.list().unwrap();
            let files = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
            let what = format!("seed {seed}, resized {resized}: {names:?}, {usage:?}");
            assert_eq!(usage.live_bytes, 0, "{what}");
            assert_eq!((files("segment-"), files("spare-")), (1, 3), "{what}");
            let spares = 3 * log.options.segment_bytes;
            assert_eq!(usage.spare_bytes, spares, "{what}");
            let ours = names
                .iter()
                .filter(|name| name.starts_with("se") || name.starts_with("sp"));
            let bytes: usize = ours.map(|name| log.disk.content(name).len()).sum();
            assert_eq!(usage.disk_bytes, bytes as u64, "{what}");
            let longest = log.options.segment_bytes + log.options.segment_bytes / 16;
            assert!(usage.disk_bytes - spares <= longest, "{what}");
            let mut log = log.reopen(log.disk.crash(seed)).unwrap();
            assert_eq!(log.recovered_jobs(), [0; 0], "{what}");
        }
    }
}

/// How many were given up and can be read, as the log counts them.
fn dead(log: &TestLog) -> Vec<(String, u64)> {
    let lanes = log.log.dead();
    lanes
        .map(|(processor, _, jobs)| (processor.to_string(), jobs))
        .collect()
}

#[test]
fn the_dead_are_counted_wherever_they_are_copied_and_until_they_give_way() {
    let mut log = TestLog::with(Options {
        results_max: 40,
        ..small()
    });
    for number in 1..=90 {
        log.submit(number, &[7; 2_000]).unwrap();
        let reason = match number % 3 {
            0 => Some(Reason::Exhausted),
            1 => None,
            _ => Some(Reason::Dead),
        };
        let end = if reason.is_none() { End::Ok } else { End::Failed };
        let record = Outcome {
            end,
            reason,
            ..outcome(number, b"", log.now.wall)
        };
        append(&mut log, Record::Outcome(record)).unwrap();
        expire(&mut log, SECOND);
        // What just ended is read before others give way for it.
        expire(&mut log, SECOND);
        // The last 40 can be read, and two of three of them were given up.
        let readable = number.saturating_sub(39).max(1)..=number;
        let given_up = readable.filter(|number| number % 3 != 1).count() as u64;
        let some = vec![("orders".to_owned(), given_up)];
        assert_eq!(
            dead(&log),
            if given_up == 0 { Vec::new() } else { some },
            "{number}"
        );
        if number % 25 == 0 {
            let counted = dead(&log);
            log = log.reopen(log.disk.crash(number)).unwrap();
            assert_eq!(dead(&log), counted, "{number}");
        }
    }
    expire(&mut log, HOUR);
    assert!(dead(&log).is_empty());
}
