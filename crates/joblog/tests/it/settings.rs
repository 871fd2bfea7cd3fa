//! Settings: the newest of each name outlives restarts and the segments of the older ones.

use joblog::log::AppendError;
use joblog::settings::{NAME_BYTES_MAX, VALUE_BYTES_MAX};
use joblog::storage::Storage as _;

use crate::support::{SECOND, TestLog};

fn value(log: &TestLog, name: &str) -> Option<Vec<u8>> {
    log.log.setting(name).map(|value| value.to_vec())
}

/// Fills segments with work that is over at once.
fn pass_segments(log: &mut TestLog, numbers: std::ops::Range<u64>) {
    for number in numbers {
        log.submit(number, &[0; 4000]).unwrap();
        log.settle_down();
        log.settle(number, b"done").unwrap();
        log.settle_down();
    }
    log.advance(3600 * SECOND);
    log.settle_down();
}

fn segments(log: &TestLog) -> usize {
    let names = log.disk.list().unwrap();
    names.iter().filter(|name| name.starts_with("segment")).count()
}

#[test]
fn a_setting_counts_once_it_is_durable_and_survives_a_power_cut() {
    let mut log = TestLog::new();
    log.set("mode", Some(b"fast")).unwrap();
    assert_eq!(value(&log, "mode"), None, "queued");
    log.settle_down();
    log.set("mode", Some(b"slow")).unwrap();
    log.set("other", Some(b"")).unwrap();
    log.settle_down();
    for seed in 0..3 {
        log = log.reopen(log.disk.crash(seed)).unwrap();
        assert_eq!(
            (value(&log, "mode"), value(&log, "other")),
            (Some(b"slow".to_vec()), Some(Vec::new()))
        );
    }
}

#[test]
fn a_setting_outlives_what_was_written_around_it_and_a_removed_one_never_comes_back() {
    let mut log = TestLog::new();
    log.settle_down();
    log.set("kept", Some(b"1")).unwrap();
    log.set("removed", Some(b"1")).unwrap();
    pass_segments(&mut log, 1..30);
    log.set("removed", None).unwrap();
    pass_segments(&mut log, 30..60);
    let mut log = log.reopen(log.disk.crash(1)).unwrap();
    assert_eq!(log.settings(), [("kept".to_owned(), b"1".to_vec())]);
    log.set("kept", Some(b"2")).unwrap();
    pass_segments(&mut log, 60..90);
    assert!(
        segments(&log) <= 3,
        "no setting holds a segment: hot, cold, and one more"
    );
    let log = log.reopen(log.disk.crash(2)).unwrap();
    assert_eq!(log.settings(), [("kept".to_owned(), b"2".to_vec())]);
}

#[test]
fn what_is_too_long_is_refused_with_the_limit_and_leaves_nothing() {
    let mut log = TestLog::new();
    let long = vec![0; VALUE_BYTES_MAX + 1];
    let name = "n".repeat(NAME_BYTES_MAX + 1);
    for (name, value) in [("n", &long[..]), (&name, &b""[..])] {
        assert!(matches!(
            log.set(name, Some(value)),
            Err(AppendError::TooLarge { .. })
        ));
    }
    log.settle_down();
    assert_eq!(log.settings(), []);
}

#[test]
fn a_setting_that_found_no_room_is_not_there() {
    let mut log = TestLog::new();
    log.settle_down();
    log.set("mode", Some(b"1")).unwrap();
    log.settle_down();
    log.disk.fail_next_write_full(10);
    log.set("mode", Some(b"2")).unwrap();
    log.settle_down();
    assert_eq!(value(&log, "mode").as_deref(), Some(&b"1"[..]));
    log.advance(2 * SECOND);
    log.set("mode", Some(b"3")).unwrap();
    log.settle_down();
    let log = log.reopen(log.disk.kill()).unwrap();
    assert_eq!(value(&log, "mode").as_deref(), Some(&b"3"[..]));
}
