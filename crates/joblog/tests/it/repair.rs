//! A repair leaves a log that opens, with everything in it that was not damaged; what is lost is said before, and
//! every damaged byte is kept.

use joblog::ids::{JobId, Token};
use joblog::log::{Durability, Space};
use joblog::record::Record;
use joblog::recovery::OpenError;
use joblog::repair::{LostKind, Plan, RepairError, plan};
use joblog::storage::{File as _, Storage as _};
use joblog::testing::{Random, SimDisk};
use joblog::verify::verify;

use crate::support::{SECOND, TestLog, dispatch, id, small};

const SEGMENT: &str = "segment-0000000000000001";

/// Ten jobs in one segment, each in a frame of its own, with a mark behind them.
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

/// Twelve jobs over three sealed segments and a fourth, two frames each, four dispatched, two settled.
fn four_segments() -> TestLog {
    let mut log = TestLog::new();
    log.settle_down();
    let big = vec![7; 6000];
    for number in 1..=12 {
        log.submit(number, &big).unwrap();
        log.settle_down();
    }
    let token = Token {
        node: log.log.node(),
        epoch: 1,
        sequence: 1,
    };
    let dispatch = Record::Dispatch(dispatch(token, &[1, 2, 6, 12], log.now.wall));
    log.log
        .append(&[dispatch], Space::Settle, Durability::Sync)
        .unwrap();
    log.settle_down();
    for number in [2, 12] {
        log.settle(number, b"\"done\"").unwrap();
        log.settle_down();
    }
    log.submit(13, &big).unwrap();
    log.settle_down();
    log.advance(SECOND);
    log.settle_down();
    log
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let mut names = disk.list().unwrap();
    names.retain(|name| name.starts_with("segment"));
    names
}

/// The same files on a disk of their own, as `change` leaves each; `None` leaves one out.
fn copy(disk: &SimDisk, change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) -> SimDisk {
    let copy = SimDisk::new();
    for name in segments(disk) {
        if let Some(content) = change(&name, disk.content(&name)) {
            copy.plant(&name, &content);
        }
    }
    copy
}

fn plan_of(disk: &SimDisk) -> Plan {
    let mut random = Random(77);
    plan(disk, &mut || random.next()).unwrap()
}

/// Plans, checks that planning changed nothing, and carries out.
fn repair(disk: &SimDisk) -> Plan {
    let before = disk.list().unwrap();
    let writes = disk.counts().writes;
    let plan = plan_of(disk);
    assert_eq!((disk.list().unwrap(), disk.counts().writes), (before, writes));
    plan.carry_out(disk).unwrap();
    let verdict = verify(disk).unwrap();
    assert_eq!(verdict.damages, [], "{plan:?}");
    assert!(plan_of(disk).is_empty(), "a second repair finds nothing");
    plan
}

/// The jobs that a start on the disk finds unsettled. The start itself must work, twice.
fn jobs(log: &TestLog, disk: &SimDisk) -> Vec<u64> {
    let mut opened = log.reopen(disk.clone()).unwrap();
    let jobs = opened.recovered_jobs();
    opened.submit(99, b"after").unwrap();
    opened.settle_down();
    let mut again = log.reopen(opened.disk.crash(3)).unwrap();
    let mut expected = jobs.clone();
    expected.push(99);
    assert_eq!(again.recovered_jobs(), expected);
    jobs
}

fn ids(numbers: impl IntoIterator<Item = u64>) -> Vec<JobId> {
    numbers.into_iter().map(id).collect()
}

#[test]
fn there_is_nothing_to_repair_in_a_good_log() {
    let log = four_segments();
    let before = log.disk.list().unwrap();
    let plan = plan_of(&log.disk);
    assert!(plan.is_empty() && plan.findings.is_empty());
    let writes = log.disk.counts();
    plan.carry_out(&log.disk).unwrap();
    assert_eq!(log.disk.list().unwrap(), before);
    assert_eq!(log.disk.counts().writes, writes.writes);
}

#[test]
fn any_flipped_byte_of_a_frame_costs_at_most_the_record_that_it_is_in() {
    let log = ten_jobs();
    let content = log.disk.content(SEGMENT);
    let frames: Vec<usize> = (512..content.len() - 8)
        .step_by(8)
        .filter(|at| &content[*at..at + 4] == b"JOBF")
        .collect();
    assert_eq!(frames.len(), 11);
    let (mut saved, mut gone) = (0, 0);
    for offset in 512..frames[10] {
        let disk = copy(&log.disk, |_, content| Some(content));
        disk.flip(SEGMENT, offset);
        let damaged = disk.content(SEGMENT);
        let (frame, start) = frames.iter().enumerate().rfind(|(_, at)| **at <= offset).unwrap();
        let plan = repair(&disk);
        let [finding] = plan.findings.as_slice() else {
            panic!("byte {offset}: {plan:?}")
        };
        assert_eq!((finding.file.as_str(), finding.offset), (SEGMENT, *start as u64));
        let kept = disk.content(finding.kept.as_deref().unwrap());
        assert_eq!(
            kept,
            damaged[*start..start + kept.len()],
            "the damaged bytes are kept"
        );
        assert_eq!(kept.len() as u64, finding.bytes);
        let number = frame as u64 + 1;
        let mut expected: Vec<u64> = (1..=10).collect();
        if finding.saved == 0 {
            expected.retain(|job| *job != number);
            gone += 1;
        } else {
            saved += 1;
        }
        assert_eq!(jobs(&log, &disk), expected, "byte {offset}: {finding:?}");
        // Where the id itself is not what is damaged, it is named; where nothing can be named, that is said.
        let in_id = (start + 52..start + 68).contains(&offset);
        if finding.saved == 0 && !in_id && finding.frames_unknown == 0 {
            let kind = finding.lost[0].kind;
            let in_kind = offset == start + 48;
            assert!(kind == LostKind::Submit || in_kind, "byte {offset}: {finding:?}");
            assert!(
                plan.jobs.gone.contains(&id(number)) || in_kind,
                "byte {offset}: {plan:?}"
            );
        }
        assert!(finding.saved == 1 || !finding.lost.is_empty() || finding.frames_unknown == 1);
    }
    // A frame's 40 bytes of head and its padding: nothing is lost with them.
    assert!(saved >= 400 && gone > saved, "{saved} saved, {gone} gone");
}

#[test]
fn a_damaged_record_takes_no_other_of_its_frame_with_it() {
    let mut log = TestLog::new();
    for number in 1..=10 {
        log.submit(number, b"together").unwrap();
    }
    log.settle_down();
    log.advance(SECOND);
    log.settle_down();
    let content = log.disk.content(SEGMENT);
    let fifth = (512..content.len())
        .find(|at| content[*at..].starts_with(&id(5).0))
        .unwrap();
    let disk = copy(&log.disk, |_, content| Some(content));
    disk.flip(SEGMENT, fifth + 40);
    let plan = repair(&disk);
    assert_eq!(plan.findings[0].saved, 9);
    assert_eq!(plan.jobs.gone.iter().copied().collect::<Vec<_>>(), ids([5]));
    assert_eq!(plan.jobs.unsettled, 9);
    assert_eq!(jobs(&log, &disk), [1, 2, 3, 4, 6, 7, 8, 9, 10]);
    // With the length of a record gone, those before it are saved; the rest is said to be unknown.
    let disk = copy(&log.disk, |_, content| Some(content));
    disk.flip(SEGMENT, fifth - 12);
    let plan = repair(&disk);
    assert_eq!((plan.findings[0].saved, plan.jobs.frames_unknown), (4, 1));
    assert_eq!(jobs(&log, &disk), [1, 2, 3, 4]);
}

#[test]
fn a_malformed_record_in_a_valid_frame_is_taken_out() {
    let log = ten_jobs();
    let disk = copy(&log.disk, |_, mut content| {
        // The third frame: a record that ends too soon, under checksums that fit.
        let at = (512..content.len())
            .step_by(8)
            .filter(|at| content[*at..].starts_with(b"JOBF"))
            .nth(2)
            .unwrap();
        content[at + 40 + 8] = 1;
        content[at + 40 + 10..at + 40 + 12].copy_from_slice(&3_u16.to_le_bytes());
        let length = u32::from_le_bytes(content[at + 40..at + 44].try_into().unwrap()) as usize;
        let record = &content[at + 40..at + 40 + length];
        let crc = crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[8..]);
        content[at + 44..at + 48].copy_from_slice(&crc.to_le_bytes());
        let end = at + (40 + length).next_multiple_of(8);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&content[at..at + 36]), &content[at + 40..end]);
        content[at + 36..at + 40].copy_from_slice(&crc.to_le_bytes());
        Some(content)
    });
    assert!(matches!(log.reopen(disk.clone()), Err(OpenError::Damaged(_))));
    let plan = repair(&disk);
    assert!(plan.findings[0].what.contains("malformed"), "{plan:?}");
    assert_eq!(plan.jobs.gone.iter().copied().collect::<Vec<_>>(), ids([3]));
    assert_eq!(jobs(&log, &disk), [1, 2, 4, 5, 6, 7, 8, 9, 10]);
}

#[test]
fn any_damaged_header_is_made_anew_and_nothing_is_lost() {
    let log = four_segments();
    let names = segments(&log.disk);
    assert!(names.len() >= 4, "{names:?}");
    let all: Vec<u64> = (1..=13).filter(|number| ![2, 12].contains(number)).collect();
    for name in &names {
        for offset in [0, 3, 9, 13, 17, 25, 33, 41, 49, 57, 100, 509, 512] {
            let disk = copy(&log.disk, |_, content| Some(content));
            if offset == 512 {
                disk.open(name).unwrap().write_at(&[0; 512], 0).unwrap();
            } else {
                disk.flip(name, offset);
            }
            let plan = repair(&disk);
            assert_eq!(plan.findings.len(), 1, "{name} {offset}: {plan:?}");
            assert!(
                plan.jobs.gone.is_empty() && plan.jobs.frames_unknown == 0,
                "{plan:?}"
            );
            let keeper = plan.findings[0].kept.as_deref().unwrap();
            assert_eq!(disk.content(keeper).len(), 512);
            let opened = log.reopen(disk.clone()).unwrap();
            assert!(
                opened.log.epoch() > log.log.epoch(),
                "a boot epoch never comes twice"
            );
            assert_eq!(opened.log.node(), log.log.node(), "{name} {offset}");
            drop(opened);
            assert_eq!(jobs(&log, &disk.kill()), all, "{name} {offset}");
        }
    }
}

#[test]
fn a_boot_epoch_that_only_a_damaged_header_knew_never_comes_twice() {
    let mut log = ten_jobs();
    for _ in 0..5 {
        log = log.reopen(log.disk.kill()).unwrap();
        log.settle_down();
    }
    let name = segments(&log.disk).pop().unwrap();
    let disk = copy(&log.disk, |_, content| Some(content));
    disk.flip(&name, 20);
    repair(&disk);
    let mut opened = log.reopen(disk).unwrap();
    assert!(opened.log.epoch() > log.log.epoch());
    assert_eq!(opened.recovered_jobs(), (1..=10).collect::<Vec<_>>());
}

#[test]
fn a_missing_segment_costs_its_jobs_and_no_others() {
    let log = four_segments();
    let names = segments(&log.disk);
    let disk = copy(&log.disk, |name, content| (name != names[1]).then_some(content));
    let plan = repair(&disk);
    let finding = &plan.findings[0];
    assert_eq!(
        (finding.file.as_str(), finding.kept.as_deref()),
        (names[1].as_str(), None)
    );
    assert!(
        finding.what.contains("missing") && finding.frames_unknown > 0,
        "{finding:?}"
    );
    let left = jobs(&log, &disk);
    let held: Vec<u64> = (1..=13)
        .filter(|number| {
            let content = log.disk.content(&names[1]);
            content.windows(16).any(|bytes| bytes == id(*number).0)
        })
        .collect();
    assert!(
        held.contains(&6),
        "the test wants job 6 in the second segment: {held:?}"
    );
    let expected: Vec<u64> = (1..=13)
        .filter(|number| ![2, 12].contains(number) && !held.contains(number))
        .collect();
    assert_eq!(left, expected);
    // A dispatch tells of one of them, so that it can be named.
    assert_eq!(plan.jobs.gone.iter().copied().collect::<Vec<_>>(), ids([6]));
}

#[test]
fn a_segment_that_is_cut_short_keeps_what_is_left_of_it() {
    let log = four_segments();
    let names = segments(&log.disk);
    for length in (0..32 << 10).step_by(997) {
        let disk = copy(&log.disk, |name, mut content| {
            content.truncate(if name == names[0] { length } else { content.len() });
            Some(content)
        });
        if verify(&disk).unwrap().damages.is_empty() {
            continue;
        }
        let plan = repair(&disk);
        let left = jobs(&log, &disk);
        let expected: Vec<u64> = (1..=13).filter(|number| ![2, 12].contains(number)).collect();
        assert!(left.iter().all(|job| expected.contains(job)), "{left:?}");
        assert!(
            left.ends_with(&[6, 7, 8, 9, 10, 11, 13]),
            "{length}: {left:?} {plan:?}"
        );
        let missing = expected.len() - left.len();
        assert!(missing == 0 || plan.jobs.frames_unknown > 0 || plan.jobs.gone.len() == missing);
    }
}

/// The last frame, with another LSN under checksums that fit: as if so many frames before it were missing.
fn last_frame_is(lsn: u64) -> SimDisk {
    copy(&ten_jobs().disk, |_, mut content| {
        let mut frames = (512..content.len() - 8).step_by(8);
        let at = frames.rfind(|at| &content[*at..at + 4] == b"JOBF").unwrap();
        content[at + 16..at + 24].copy_from_slice(&lsn.to_le_bytes());
        content[at + 24..at + 32].copy_from_slice(&(lsn - 1).to_le_bytes());
        let crc = crc32c::crc32c(&content[at..at + 36]);
        content[at + 36..at + 40].copy_from_slice(&crc.to_le_bytes());
        Some(content)
    })
}

#[test]
fn frames_that_are_missing_by_the_thousand_are_stood_for() {
    let disk = last_frame_is(60_000);
    let plan = repair(&disk);
    assert_eq!(plan.jobs.frames_unknown, 60_000 - 11);
    assert_eq!(plan.jobs.unsettled, 10);
    assert_eq!(verify(&disk).unwrap().frames, 60_000);
    assert_eq!(jobs(&ten_jobs(), &disk), (1..=10).collect::<Vec<_>>());
}

/// A fuzzer found that a repair wrote empty frames for as many LSNs as one damaged number said were missing, until
/// memory and disk were full.
#[test]
fn more_missing_frames_than_any_log_has_are_not_stood_for() {
    let disk = last_frame_is(1 << 60);
    let mut random = Random(1);
    let plan = plan(&disk, &mut || random.next());
    assert!(matches!(plan, Err(RepairError::Stuck { .. })), "{plan:?}");
}

/// A segment of copies says that hot segments may be gone; when nothing is left of the only one, an empty one says it.
#[test]
fn so_many_missing_segments_that_none_can_stand_for_them_are_left_out() {
    let mut log = ten_jobs();
    log.log.close();
    log.settle_down();
    let mut header = log.disk.content(SEGMENT);
    header.truncate(512);
    header[16] = 5;
    header[32..40].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let crc = crc32c::crc32c(&header[..508]);
    header[508..].copy_from_slice(&crc.to_le_bytes());
    let disk = copy(&log.disk, |_, content| Some(content));
    disk.plant("segment-0000000000000005", &header);
    let plan = repair(&disk);
    assert!(plan.jobs.frames_unknown > 1 << 39, "{plan:?}");
    assert_eq!(jobs(&log, &disk), (1..=10).collect::<Vec<_>>());
}

#[test]
fn several_damages_are_mended_at_once() {
    let log = four_segments();
    let names = segments(&log.disk);
    let disk = copy(&log.disk, |name, content| (name != names[2]).then_some(content));
    disk.flip(&names[0], 2000);
    disk.flip(&names[0], 20);
    disk.flip(&names[1], 3);
    let plan = repair(&disk);
    assert_eq!(plan.findings.len(), 4, "{plan:?}");
    let left = jobs(&log, &disk);
    assert!(left.contains(&6) && left.ends_with(&[13]), "{left:?}");
}

#[test]
fn the_segment_of_another_directory_is_put_aside() {
    let log = four_segments();
    let other = TestLog::open(SimDisk::new(), small(), log.now, 500).unwrap();
    let disk = copy(&log.disk, |_, content| Some(content));
    // Under a number that is free: a file restored to the wrong place.
    let mut strange = other.disk.content(SEGMENT);
    strange[16..24].copy_from_slice(&900_u64.to_le_bytes());
    let crc = crc32c::crc32c(&strange[..508]);
    strange[508..512].copy_from_slice(&crc.to_le_bytes());
    disk.plant("segment-0000000000000900", &strange);
    assert!(log.reopen(disk.clone()).is_err());
    let plan = repair(&disk);
    assert_eq!(
        plan.findings[0].kept.as_deref(),
        Some("damaged-0000000000000900-0")
    );
    assert_eq!(disk.content("damaged-0000000000000900-0"), strange);
    let all: Vec<u64> = (1..=13).filter(|number| ![2, 12].contains(number)).collect();
    assert_eq!(jobs(&log, &disk), all);
}

#[test]
fn a_repair_that_is_cut_off_anywhere_can_be_begun_again() {
    let log = four_segments();
    let names = segments(&log.disk);
    let damaged = || {
        let disk = copy(&log.disk, |name, content| (name != names[2]).then_some(content));
        disk.flip(&names[0], 3000);
        disk.flip(&names[1], 5);
        disk
    };
    let whole = damaged();
    repair(&whole);
    let expected = jobs(&log, &whole);
    for changes in 0.. {
        let disk = damaged();
        disk.power_off_after(changes);
        let done = plan_of(&disk).carry_out(&disk).is_ok();
        for seed in 0..4 {
            let disk = damaged();
            disk.power_off_after(changes);
            drop(plan_of(&disk).carry_out(&disk));
            let disk = disk.crash(seed);
            repair_if_needed(&disk);
            assert_eq!(
                jobs(&log, &disk),
                expected,
                "cut off after {changes} changes, seed {seed}"
            );
        }
        if done {
            assert!(changes > 10, "{changes}");
            break;
        }
    }
}

fn repair_if_needed(disk: &SimDisk) {
    if !verify(disk).unwrap().damages.is_empty() {
        repair(disk);
    }
}

#[test]
fn a_full_disk_leaves_the_directory_as_it_was() {
    let log = four_segments();
    let names = segments(&log.disk);
    let disk = copy(&log.disk, |_, content| Some(content));
    disk.flip(&names[0], 3000);
    let before: Vec<_> = segments(&disk).iter().map(|name| disk.content(name)).collect();
    let plan = plan_of(&disk);
    disk.set_capacity(Some(disk.used() + 1000));
    let Err(RepairError::Write { .. }) = plan.carry_out(&disk) else {
        panic!("there is no room")
    };
    let after: Vec<_> = segments(&disk).iter().map(|name| disk.content(name)).collect();
    assert_eq!(before, after);
    assert!(
        !disk
            .list()
            .unwrap()
            .iter()
            .any(|name| name.starts_with("mending"))
    );
    disk.set_capacity(None);
    repair(&disk);
}

#[test]
fn a_directory_of_a_newer_format_is_left_alone() {
    let log = ten_jobs();
    let disk = copy(&log.disk, |_, mut content| {
        content[8] = 2;
        let crc = crc32c::crc32c(&content[..508]);
        content[508..512].copy_from_slice(&crc.to_le_bytes());
        Some(content)
    });
    let refused = plan(&disk, &mut || 1);
    assert!(matches!(refused, Err(RepairError::Read(OpenError::Newer { .. }))));
}

#[test]
fn a_last_segment_that_is_cut_short_is_mended_to_where_it_can_be_read() {
    let mut log = ten_jobs();
    log = log.reopen(log.disk.kill()).unwrap();
    for number in 11..=20 {
        log.submit(number, b"do not lose me").unwrap();
        log.submit(number + 10, b"nor me").unwrap();
        log.settle_down();
    }
    let name = segments(&log.disk).pop().unwrap();
    let whole = log.disk.content(&name);
    for length in (0..8000).step_by(13).chain([whole.len() - 1]) {
        let disk = copy(&log.disk, |_, content| Some(content[..length].to_vec()));
        let plan = repair(&disk);
        let [finding] = plan.findings.as_slice() else {
            panic!("{length}: {plan:?}")
        };
        assert_eq!((&finding.file, finding.frames_unknown), (&name, 1), "{plan:?}");
        if let Some(kept) = &finding.kept {
            let start = usize::try_from(finding.offset).unwrap();
            assert_eq!(disk.content(kept), whole[start..length], "{length}: {finding:?}");
        }
        // Every record stays that lies before the end of what is left.
        let ends = |number: u64| {
            let at = whole.windows(16).position(|bytes| bytes == id(number).0).unwrap();
            let start = at - 12;
            start + u32::from_le_bytes(whole[start..start + 4].try_into().unwrap()) as usize
        };
        let order = (1..=10).chain((11..=20).flat_map(|number| [number, number + 10]));
        let mut expected: Vec<u64> = order.filter(|number| ends(*number) <= length).collect();
        expected.sort_unstable();
        assert_eq!(plan.jobs.unsettled, expected.len() as u64);
        let mut left = jobs(&log, &disk);
        left.sort_unstable();
        assert_eq!(left, expected, "{length}");
    }
}

/// Sixty jobs in one frame between others; `behind`: so many in a frame behind it.
fn sixty_in_a_frame(behind: u64) -> TestLog {
    let mut log = TestLog::new();
    let mut submit = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            log.submit(number, b"together").unwrap();
        }
        log.settle_down();
        log.advance(SECOND);
        log.settle_down();
    };
    submit(1..3);
    submit(3..63);
    submit(63..63 + behind);
    log
}

/// Where the record of a job begins.
fn record_of(content: &[u8], number: u64) -> usize {
    let found = content.windows(16).position(|bytes| bytes == id(number).0);
    found.unwrap() - 12
}

/// A repair said that two jobs were gone where 664 were: those behind the damaged length of a record were not counted.
#[test]
fn what_is_said_to_be_gone_is_never_less_than_what_is_gone() {
    for behind in [0, 3] {
        let log = sixty_in_a_frame(behind);
        let content = log.disk.content(SEGMENT);
        for number in 3..63 {
            let disk = copy(&log.disk, |_, content| Some(content));
            disk.flip(SEGMENT, record_of(&content, number) + 1);
            let plan = repair(&disk);
            let left = jobs(&log, &disk);
            let expected: Vec<u64> = (1..number).chain(63..63 + behind).collect();
            assert_eq!(left, expected);
            let gone: Vec<_> = plan.jobs.gone.iter().copied().collect();
            assert_eq!(gone, ids([number]));
            assert_eq!(plan.jobs.unsure, plan.jobs.gone);
            // Without submits behind only the bytes say how many there can have been.
            let more = plan.jobs.more_gone_max.unwrap();
            let real = 62 - number;
            assert!(
                more >= real && (behind == 0 || more == real),
                "{number}: {plan:?}"
            );
            assert!(plan.jobs.unknown_bytes >= real * 58 && plan.jobs.unknown_bytes < 8 << 10);
        }
    }
    // What is missing has no bytes, and nobody knows how many jobs.
    let log = four_segments();
    let names = segments(&log.disk);
    let disk = copy(&log.disk, |name, content| (name != names[1]).then_some(content));
    assert_eq!(repair(&disk).jobs.more_gone_max, None);
}

#[test]
fn an_id_that_only_damaged_bytes_say_is_marked() {
    let log = sixty_in_a_frame(3);
    let content = log.disk.content(SEGMENT);
    let disk = copy(&log.disk, |_, content| Some(content));
    // The last byte of the id itself: it names a job that never was.
    disk.flip(SEGMENT, record_of(&content, 20) + 12 + 8);
    let plan = repair(&disk);
    assert_eq!((plan.jobs.gone.len(), plan.jobs.more_gone_max), (1, Some(0)));
    assert!(!plan.jobs.gone.contains(&id(20)));
    assert_eq!(plan.jobs.unsure, plan.jobs.gone);
    // A dispatch tells of job 6, too: there its id is sure.
    let log = four_segments();
    let name = segments(&log.disk)
        .into_iter()
        .find(|name| log.disk.content(name).windows(16).any(|bytes| bytes == id(6).0))
        .unwrap();
    let at = record_of(&log.disk.content(&name), 6);
    let disk = copy(&log.disk, |_, content| Some(content));
    disk.flip(&name, at + 100);
    let plan = repair(&disk);
    assert_eq!(plan.jobs.gone.iter().copied().collect::<Vec<_>>(), ids([6]));
    assert!(plan.jobs.unsure.is_empty(), "{plan:?}");
}
