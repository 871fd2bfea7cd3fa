//! Damage is never silent: a flipped bit in what was synced is refused, with file and offset. A torn tail is no
//! damage: it is cut, kept, and said.

use joblog::ids::Token;
use joblog::log::{Durability, Space};
use joblog::record::Record;
use joblog::recovery::OpenError;
use joblog::storage::{File as _, Storage as _};
use joblog::testing::SimDisk;
use joblog::verify::verify;

use crate::support::{SECOND, TestLog};

const SEGMENT: &str = "segment-0000000000000001";

/// Ten jobs, each in a frame of its own, with a mark behind them.
fn ten_jobs() -> TestLog {
    let mut log = TestLog::new();
    for number in 1..=10 {
        log.submit(number, b"do not lose me").unwrap();
        log.commit();
    }
    log.advance(SECOND);
    log.settle_down();
    log
}

/// The offsets of all frames in a segment's content.
fn frames(content: &[u8]) -> Vec<usize> {
    (512..content.len() - 8)
        .step_by(8)
        .filter(|at| &content[*at..at + 4] == b"JOBF")
        .collect()
}

#[test]
fn every_flipped_byte_of_synced_records_is_refused_with_file_and_offset() {
    let log = ten_jobs();
    let content = log.disk.content(SEGMENT);
    let frames = frames(&content);
    assert_eq!(frames.len(), 11);
    let last_record_end = frames[10];
    // A step that is no multiple of 8 meets every field.
    for offset in (512..last_record_end).step_by(5) {
        let disk = SimDisk::new();
        disk.plant(SEGMENT, &content);
        disk.flip(SEGMENT, offset);
        let before = disk.content(SEGMENT);
        let Err(error) = log.reopen(disk.clone()) else {
            panic!("byte {offset} is damaged, and the log opens")
        };
        let OpenError::Damaged(damage) = &error else {
            panic!("byte {offset}: {error}")
        };
        let frame = *frames.iter().rfind(|at| **at <= offset).unwrap();
        assert_eq!(
            (damage.file.as_str(), damage.offset),
            (SEGMENT, u64::try_from(frame).unwrap())
        );
        assert!(
            error.to_string().contains("jitney log verify --data DIR"),
            "{error}"
        );
        let verdict = verify(&disk).unwrap();
        assert_eq!(verdict.damages, std::slice::from_ref(damage));
        assert_eq!((verdict.jobs, verdict.frames), (9, 10));
        assert_eq!(disk.content(SEGMENT), before, "who looks changes nothing");
        assert_eq!(disk.list().unwrap(), [SEGMENT]);
    }
}

#[test]
fn every_flipped_byte_of_a_header_is_refused() {
    let log = ten_jobs();
    let content = log.disk.content(SEGMENT);
    for offset in 0..512 {
        let disk = SimDisk::new();
        disk.plant(SEGMENT, &content);
        disk.flip(SEGMENT, offset);
        let Err(OpenError::Damaged(damage)) = log.reopen(disk) else {
            panic!("byte {offset} is damaged")
        };
        assert_eq!((damage.file.as_str(), damage.offset), (SEGMENT, 0));
    }
    let disk = SimDisk::new();
    disk.plant(SEGMENT, &content);
    disk.open(SEGMENT).unwrap().write_at(&[0; 512], 0).unwrap();
    assert!(
        matches!(log.reopen(disk), Err(OpenError::Damaged(_))),
        "a header that is gone altogether"
    );
}

#[test]
fn a_sealed_segment_that_is_cut_short_is_refused() {
    let mut log = TestLog::new();
    log.settle_down();
    let big = vec![7; 6000];
    for number in 1..=12 {
        log.submit(number, &big).unwrap();
        log.settle_down();
    }
    let names: Vec<_> = log
        .disk
        .list()
        .unwrap()
        .into_iter()
        .filter(|n| n.starts_with("segment"))
        .collect();
    assert_eq!(names.len(), 3);
    let copy = |cut: usize| {
        let disk = SimDisk::new();
        for (index, name) in names.iter().enumerate() {
            let mut content = log.disk.content(name);
            content.truncate(if index == cut { 12_800 } else { content.len() });
            disk.plant(name, &content);
        }
        disk
    };
    let Err(OpenError::Damaged(damage)) = log.reopen(copy(0)) else {
        panic!("it is cut short")
    };
    assert_eq!((damage.file, damage.offset % 8), (names[0].clone(), 0));
    assert!(log.reopen(copy(9)).is_ok());
}

#[test]
fn a_torn_tail_is_cut_and_kept_and_said_and_never_comes_back() {
    let mut log = ten_jobs();
    let before = frames(&log.disk.content(SEGMENT)).len();
    // Three frames without a sync, so that several can be torn at once.
    for sequence in 0..3 {
        let record = Record::Delivered(Token {
            node: 1,
            epoch: 1,
            sequence,
        });
        log.log
            .append(&[record], Space::Settle, Durability::Write)
            .unwrap();
        log.commit();
    }
    let content = log.disk.content(SEGMENT);
    let frames = frames(&content);
    let (first, third) = (frames[before], frames[before + 2]);
    let disk = SimDisk::new();
    disk.plant(SEGMENT, &content);
    disk.flip(SEGMENT, first + 50);
    let verdict = verify(&disk).unwrap();
    assert!(verdict.damages.is_empty() && verdict.torn.is_some());
    // A disk without room for the name of another file prevents no start.
    let full = SimDisk::new();
    full.plant(SEGMENT, &disk.content(SEGMENT));
    full.fail_next_create_full();
    let cut = log.reopen(full).unwrap().report.cut.unwrap();
    assert_eq!((cut.offset, cut.kept), (first as u64, None));
    let mut log = log.reopen(disk).unwrap();
    let cut = log.report.cut.clone().unwrap();
    let name = format!("cut-0000000000000001-{first}");
    assert_eq!(
        (cut.file.as_str(), cut.offset, cut.kept.as_deref()),
        (SEGMENT, first as u64, Some(name.as_str()))
    );
    let kept = log.disk.content(&name);
    assert_eq!(cut.bytes, kept.len() as u64);
    assert!(kept.len() > third - first && kept[0..4] == *b"JOBF");
    assert_eq!(log.recovered_jobs(), (1..=10).collect::<Vec<_>>());
    log.submit(11, b"after").unwrap();
    log.settle_down();
    let mut log = log.reopen(log.disk.crash(3)).unwrap();
    assert_eq!(
        (log.report.cut.clone(), log.recovered_jobs()),
        (None, (1..=11).collect::<Vec<_>>())
    );
}

#[test]
fn a_directory_of_a_newer_format_is_refused_as_such() {
    let log = ten_jobs();
    let mut content = log.disk.content(SEGMENT);
    content[8] = 2;
    let crc = crc32c::crc32c(&content[..508]);
    content[508..512].copy_from_slice(&crc.to_le_bytes());
    let disk = SimDisk::new();
    disk.plant(SEGMENT, &content);
    let Err(error) = log.reopen(disk) else {
        panic!("version 2 opens")
    };
    assert!(matches!(error, OpenError::Newer { .. }), "{error}");
    assert!(error.to_string().contains("newer format"), "{error}");
}

#[test]
fn data_that_looks_like_a_frame_is_data() {
    let log = ten_jobs();
    let content = log.disk.content(SEGMENT);
    let mut log = TestLog::new();
    // A job whose data is a whole log, at every alignment, and then a crash that tears the tail.
    for shift in 0..8 {
        let data = [&vec![0; shift], &content[512..2000]].concat();
        log.submit(1 + shift as u64, &data).unwrap();
    }
    log.settle_down();
    let mut log = log.reopen(log.disk.crash(1)).unwrap();
    assert_eq!(
        (log.report.cut.clone(), log.recovered_jobs()),
        (None, (1..=8).collect::<Vec<_>>())
    );
}

/// Jobs in a last segment that a start began, which is pre-written, and no mark behind the last of them.
fn in_a_prewritten_segment() -> (TestLog, String) {
    let mut log = ten_jobs();
    log.settle_down();
    log = log.reopen(log.disk.kill()).unwrap();
    for number in 11..=20 {
        log.submit(number, b"do not lose me").unwrap();
        log.commit();
    }
    let mut names = log.disk.list().unwrap();
    names.retain(|name| name.starts_with("segment"));
    let name = names.pop().unwrap();
    assert_eq!(names, [] as [String; 0]);
    (log, name)
}

/// A last segment of a directory that was copied in part ended inside a frame: it was taken for a torn tail, cut, and
/// acknowledged jobs were gone.
#[test]
fn a_last_segment_that_is_cut_short_anywhere_is_refused_and_named() {
    let (log, name) = in_a_prewritten_segment();
    let content = log.disk.content(&name);
    let starts = frames(&content);
    assert_eq!(content.len(), 32 << 10);
    let near = starts
        .iter()
        .flat_map(|at| [at - 8, at - 1, *at, at + 1, at + 7, at + 39, at + 40, at + 60]);
    let lengths = near
        .chain((0..content.len()).step_by(331))
        .chain([content.len() - 1]);
    for length in lengths {
        let disk = SimDisk::new();
        disk.plant(&name, &content[..length]);
        let Err(OpenError::Damaged(damage)) = log.reopen(disk.clone()) else {
            panic!("{length} bytes are left, and the log opens")
        };
        assert_eq!(damage.file, name);
        assert!(damage.offset <= length as u64, "{length}: {damage}");
        assert!(
            damage.what.contains("shorter than its header") || damage.what.contains("the file was shortened"),
            "{length}: {damage}"
        );
        let verdict = verify(&disk).unwrap();
        assert_eq!((verdict.damages, verdict.torn), (vec![damage], None), "{length}");
    }
    let disk = SimDisk::new();
    disk.plant(&name, &content);
    assert!(log.reopen(disk).is_ok(), "whole, it opens");
}
