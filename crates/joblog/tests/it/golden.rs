//! Golden files: the bytes of format 1, as they were when it was fixed. A change that fails here needs a new
//! version and new files beside these, never instead of them.
//!
//! `JOBLOG_BLESS=1` writes them, for a format that was never released.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use joblog::ids::{Priority, Token, WallMs};
use joblog::inspect::{self, Seen};
use joblog::log::{Durability, Known, Space};
use joblog::record::{Cause, End, ErrorFields, IdempotencyKey, Outcome, Reason, Record, Return, Submit};
use joblog::replay::Recovered;
use joblog::storage::Storage as _;
use joblog::testing::SimDisk;
use joblog::{Options, verify::verify};

use crate::support::{SECOND, TestLog, dispatch, id, outcome, small, submit};

pub(crate) fn fixtures(set: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(set)
}

fn options() -> Options {
    Options {
        segment_bytes: 8 << 10,
        frame_bytes_max: 3 << 10,
        ..small()
    }
}

/// The hot one that is written to, and the cold one with everything else.
const COLD_SEGMENTS: usize = 2;

const ERROR: ErrorFields<'static> = ErrorFields {
    code: "card_declined",
    message: "no",
    data: Some(br#"{"left":3}"#),
};

pub(crate) fn full_submit() -> Submit<'static> {
    Submit {
        id: id(2),
        processor: "payments",
        group: "payment-submit",
        priority: Priority::Realtime,
        data: b"\x00\xff not JSON",
        content_type: Some("application/octet-stream"),
        key: Some("tenant-7"),
        labels: vec![("order", "A-17"), ("empty", "")],
        idempotency: Some(IdempotencyKey { scope: 1, hash: 2 }),
        fingerprint: 3,
        client_id: true,
        parent: Some((id(1), 4)),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ttl_ms: Some(5),
        deadline: Some(WallMs(6)),
        run_at: Some(WallMs(7)),
        sequence: 2,
        accepted: WallMs(8),
    }
}

fn full_outcome(token: Token) -> Outcome<'static> {
    Outcome {
        end: End::Error,
        reason: Some(Reason::Exhausted),
        token: Some(token),
        crashes: 2,
        content_type: Some("text/plain"),
        error: Some(ERROR),
        children: 3,
        keep_ms: Some(9),
        ..outcome(4, b"", WallMs(1_000_000))
    }
}

/// Every record kind, every field, every frame kind, two segments, a restart.
fn write() -> SimDisk {
    let mut log = TestLog::with(options());
    log.settle_down();
    let token = Token {
        node: log.log.node(),
        epoch: 1,
        sequence: 1,
    };
    let append = |log: &mut TestLog, records: &[Record<'_>], durability| {
        log.log.append(records, Space::Settle, durability).unwrap();
        commits(log);
    };
    append(
        &mut log,
        &[Record::Submit(submit(1, b"{}")), Record::Submit(full_submit())],
        Durability::Sync,
    );
    append(
        &mut log,
        &[Record::Submit(submit(3, b"1")), Record::Submit(submit(4, b"2"))],
        Durability::Sync,
    );
    append(
        &mut log,
        &[Record::Dispatch(dispatch(token, &[2, 3, 4], WallMs(9)))],
        Durability::Write,
    );
    append(&mut log, &[Record::Delivered(token)], Durability::Write);
    let back = Return {
        id: id(3),
        cause: Cause::Error,
        token,
        due: Some(WallMs(10)),
        written: Some(WallMs(9)),
        alone: true,
        attempts: 1,
        crashes: 2,
        error: Some(ERROR),
    };
    append(
        &mut log,
        &[Record::Return(back), Record::Outcome(full_outcome(token))],
        Durability::Sync,
    );
    append(
        &mut log,
        &[Record::Outcome(outcome(1, b"[1,2]", WallMs(1_000_000)))],
        Durability::Sync,
    );
    log.advance(SECOND);
    commits(&mut log);
    let mut log = log.reopen(log.disk.kill()).unwrap();
    for number in 5..=6 {
        let data = vec![b'7'; 2000];
        append(
            &mut log,
            &[Record::Submit(submit(number, &data))],
            Durability::Sync,
        );
    }
    log.log.close();
    commits(&mut log);
    log.disk.clone()
}

/// Without chores: nothing is copied.
fn commits(log: &mut TestLog) {
    while log.commit() {}
}

/// The records of kind 6, which came later: a value, a newer one, a removal.
fn write_settings() -> SimDisk {
    let mut log = TestLog::with(options());
    log.settle_down();
    for (name, value) in [
        ("lane/orders", Some(&b"paused"[..])),
        ("policy", Some(b"{}")),
        ("lane/orders", Some(b"")),
        ("policy", None),
    ] {
        log.set(name, value).unwrap();
        log.settle_down();
    }
    log.log.close();
    log.settle_down();
    log.disk.clone()
}

/// What only cold segments have: copies of copies, an outcome without its result, what became of a job in a segment,
/// and each kind of frame.
fn write_cold() -> SimDisk {
    let mut log = TestLog::with(cold_options());
    log.settle_down();
    let token = |log: &TestLog, sequence| Token {
        node: log.log.node(),
        epoch: log.log.epoch(),
        sequence,
    };
    let append = |log: &mut TestLog, records: &[Record<'_>]| {
        log.log.append(records, Space::Settle, Durability::Sync).unwrap();
        log.settle_down();
    };
    log.set("lane/orders", Some(b"paused")).unwrap();
    // The first stays as it is; the second has a key and ends; the third goes out, comes back and goes out again; the
    // fourth ends in the segment after its own.
    append(
        &mut log,
        &[
            Record::Submit(submit(1, b"{}")),
            Record::Submit(full_submit()),
            Record::Submit(submit(3, b"1")),
            Record::Submit(submit(4, b"2")),
        ],
    );
    let first = token(&log, 1);
    append(&mut log, &[Record::Dispatch(dispatch(first, &[2, 3], WallMs(9)))]);
    append(&mut log, &[Record::Delivered(first)]);
    let ended = Outcome {
        id: id(2),
        error: None,
        reason: None,
        keep_ms: None,
        ..full_outcome(first)
    };
    let back = Return {
        id: id(3),
        cause: Cause::Error,
        token: first,
        due: Some(WallMs(10)),
        written: Some(WallMs(9)),
        alone: true,
        attempts: 1,
        crashes: 2,
        error: None,
    };
    append(&mut log, &[Record::Outcome(ended), Record::Return(back)]);
    let second = token(&log, 2);
    append(&mut log, &[Record::Dispatch(dispatch(second, &[3], WallMs(11)))]);
    // So much comes and goes that every segment but the last is copied, the cold ones too.
    for number in 10..40 {
        append(&mut log, &[Record::Submit(submit(number, &[7; 1800]))]);
        let now = log.now.wall;
        append(&mut log, &[Record::Outcome(outcome(number, b"1", now))]);
        if number == 13 {
            append(&mut log, &[Record::Outcome(outcome(4, b"4", now))]);
        }
        log.advance(2 * SECOND);
        log.settle_down();
    }
    log.log.close();
    log.settle_down();
    log.disk.clone()
}

pub(crate) fn cold_options() -> Options {
    Options {
        result_ttl_ms: 5_000,
        key_ttl_ms: 3_600_000,
        results_max: 2,
        ..options()
    }
}

fn segments(disk: &SimDisk) -> Vec<String> {
    disk.list()
        .unwrap()
        .into_iter()
        .filter(|name| name.starts_with("segment"))
        .collect()
}

#[test]
fn todays_code_writes_the_golden_files_byte_for_byte() {
    assert_eq!(compare(&write(), "v1_written"), 2);
    assert_eq!(compare(&write_settings(), "v1_length_settings"), 1);
    assert_eq!(compare(&write_cold(), "v1_written_cold"), COLD_SEGMENTS);
}

/// Compares the segments with the fixtures of this set, and counts them.
fn compare(disk: &SimDisk, set: &str) -> usize {
    let names = segments(disk);
    for name in &names {
        let path = fixtures(set).join(name);
        if std::env::var_os("JOBLOG_BLESS").is_some() {
            std::fs::create_dir_all(fixtures(set)).unwrap();
            std::fs::write(&path, disk.content(name)).unwrap();
        }
        let golden = std::fs::read(&path).unwrap();
        let written = disk.content(name);
        let differs = golden.iter().zip(&written).position(|(a, b)| a != b);
        assert_eq!(
            (differs, golden.len()),
            (None, written.len()),
            "`{name}` is not as it was"
        );
    }
    names.len()
}

#[test]
fn todays_code_reads_the_golden_files() {
    read("v1");
    read("v1_length");
    read("v1_written");
}

/// Reads one set of what [`write`] wrote.
fn read(set: &str) {
    let disk = SimDisk::new();
    for name in ["segment-0000000000000002", "segment-0000000000000003"] {
        disk.plant(name, &std::fs::read(fixtures(set).join(name)).unwrap());
    }
    let verdict = verify(&disk).unwrap();
    assert_eq!(
        (
            verdict.damages.len(),
            verdict.jobs,
            verdict.outcomes,
            verdict.clean
        ),
        (0, 6, 2, true)
    );
    let now = TestLog::new().now;
    let mut log = TestLog::open(disk, options(), now, 9).unwrap();
    let recovered = log.recovered();
    let jobs: Vec<_> = recovered
        .iter()
        .filter_map(|item| match item {
            Recovered::Job(job) => Some((job.sequence, job.past.attempts, job.past.deliveries)),
            Recovered::Lease(_) => None,
        })
        .collect();
    assert_eq!(jobs, [(2, 0, 1), (3, 1, 1), (5, 0, 0), (6, 0, 0)]);
    let Some(Recovered::Lease(lease)) = recovered.last() else {
        panic!("the lease is gone")
    };
    assert!(lease.delivered && lease.jobs == [id(2)]);
    let stored = log.log.read(id(2)).unwrap().unwrap();
    assert_eq!(Submit::decode(stored.submit.as_ref()), Ok(full_submit()));
    let stored = log.log.read(id(4)).unwrap().unwrap().outcome.unwrap();
    assert_eq!(Outcome::decode(stored.as_ref()), Ok(full_outcome(lease.token)));
    assert_eq!(log.result(1).as_deref(), Some(&b"[1,2]"[..]));
    assert_eq!((log.report.boot, log.report.last_sequence), (3, 6));
}

#[test]
fn todays_code_reads_the_golden_settings() {
    for set in ["v1_settings", "v1_length_settings"] {
        let disk = SimDisk::new();
        let name = "segment-0000000000000001";
        disk.plant(name, &std::fs::read(fixtures(set).join(name)).unwrap());
        let log = TestLog::open(disk, options(), TestLog::new().now, 9).unwrap();
        assert_eq!(log.settings(), [("lane/orders".to_owned(), Vec::new())]);
    }
}

#[test]
fn todays_code_reads_the_golden_copies() {
    read_copies("v1_cold");
    read_copies("v1_length_cold");
    read_copies("v1_written_cold");
}

/// Reads one set of what [`write_cold`] wrote.
fn read_copies(set: &str) {
    let disk = SimDisk::new();
    let directory = std::fs::read_dir(fixtures(set)).unwrap();
    for name in directory.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        disk.plant(&name, &std::fs::read(fixtures(set).join(&name)).unwrap());
    }
    let cold = BTreeSet::from([
        "copied", "copy", "dispatch", "ended", "group", "mark", "outcome", "setting", "submit", "tries",
    ]);
    assert_eq!(kinds_in_cold_segments(&disk), cold);
    let verdict = verify(&disk).unwrap();
    assert_eq!((verdict.damages.len(), verdict.jobs, verdict.clean), (0, 4, true));
    let mut log = TestLog::open(disk, cold_options(), TestLog::new().now, 9).unwrap();
    let recovered = log.recovered();
    let [
        Recovered::Job(first),
        Recovered::Job(third),
        Recovered::Lease(lease),
    ] = &recovered[..]
    else {
        panic!("{recovered:?}")
    };
    assert_eq!((first.id, first.past.deliveries), (id(1), 0));
    let past = third.past;
    assert_eq!(
        (third.id, past.attempts, past.crashes, past.deliveries),
        (id(3), 1, 2, 2)
    );
    assert!(past.alone);
    assert_eq!((lease.token.sequence, &lease.jobs[..]), (2, &[id(3)][..]));
    assert_eq!(log.data(1).as_deref(), Some(&b"{}"[..]));
    // Its result gave way, its key did not.
    let key = full_submit().idempotency.unwrap();
    assert_eq!(
        log.log.find_key(key).map(|entry| (entry.id, entry.fingerprint)),
        Some((id(2), 3))
    );
    assert!(matches!(
        log.log.find(id(2)),
        Some(Known::Finished { readable: false, .. })
    ));
    assert_eq!(log.log.find(id(4)), None, "forgotten, and it never comes back");
    assert_eq!(log.settings(), [("lane/orders".to_owned(), b"paused".to_vec())]);
}

/// The kinds of frames and records there.
fn kinds_in_cold_segments(disk: &SimDisk) -> BTreeSet<&'static str> {
    let mut kinds = BTreeSet::new();
    let mut found = inspect::segments(disk).unwrap();
    found.retain(|segment| segment.header.is_some_and(|header| header.stream == "cold"));
    inspect::read(disk, &mut found, false, |_, what| {
        kinds.insert(match what {
            Seen::Frame { kind, .. } => kind,
            Seen::Record { record, .. } => match record {
                Record::Submit(_) => "submit",
                Record::Outcome(_) => "outcome",
                Record::Ended(_) => "ended",
                Record::Tries(_) => "tries",
                Record::Dispatch(_) => "dispatch",
                Record::Delivered(_) => "delivered",
                Record::Setting(_) => "setting",
                Record::Copied(_) => "copied",
                Record::Return(_) => "return",
            },
            other => panic!("{other:?}"),
        });
    })
    .unwrap();
    kinds
}
