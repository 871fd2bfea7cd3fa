//! A repair where copies are damaged: what can be read of them counts as it did, what is lost is said before, and what
//! never counted stays so.

use std::collections::BTreeSet;

use joblog::inspect::{self, Seen};
use joblog::log::Known;
use joblog::record::Record;
use joblog::recovery::OpenError;
use joblog::repair::{LostKind, Plan, RepairError, plan};
use joblog::storage::{File as _, Storage as _};
use joblog::testing::{Random, SimDisk};
use joblog::verify::verify;

use crate::golden::{cold_options, fixtures, full_submit};
use crate::support::{TestLog, id};

/// The segment of copies among the golden files, and the one that is written to.
const COLD: &str = "segment-0000000000000059";
const HOT: &str = "segment-0000000000000058";

fn golden(change: impl Fn(&str, Vec<u8>) -> Vec<u8>) -> SimDisk {
    let disk = SimDisk::new();
    for name in [HOT, COLD] {
        let content = std::fs::read(fixtures("v1_length_cold").join(name)).unwrap();
        disk.plant(name, &change(name, content));
    }
    disk
}

fn flipped(offset: usize) -> SimDisk {
    let disk = golden(|_, content| content);
    disk.flip(COLD, offset);
    disk
}

fn zeroed(offset: usize, bytes: usize) -> SimDisk {
    let disk = golden(|_, content| content);
    let file = disk.open(COLD).unwrap();
    file.write_at(&vec![0; bytes], offset as u64).unwrap();
    file.sync_data().unwrap();
    disk
}

fn plan_of(disk: &SimDisk) -> Result<Plan, RepairError> {
    let mut random = Random(77);
    plan(disk, &mut || random.next())
}

/// Plans, and carries out. The log must open then, twice, with as many jobs as was said.
fn repair(disk: &SimDisk) -> (Plan, State) {
    let plan = plan_of(disk).unwrap();
    let damaged = disk.content(COLD);
    plan.carry_out(disk).unwrap();
    for finding in plan.findings.iter().filter(|finding| finding.bytes > 0) {
        let start = usize::try_from(finding.offset).unwrap();
        let kept = disk.content(finding.kept.as_deref().unwrap());
        assert_eq!(kept, damaged[start..start + kept.len()]);
    }
    assert_eq!(verify(disk).unwrap().damages, [], "{plan:?}");
    assert!(plan_of(disk).unwrap().is_empty(), "a second repair finds nothing");
    let state = state(disk);
    if !plan.is_empty() {
        assert_eq!(state.unsettled.len() as u64, plan.jobs.unsettled, "{plan:?}");
    }
    (plan, state)
}

/// All that a start makes of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// Jobs and leases, as they are handed over.
    recovered: Vec<String>,
    unsettled: BTreeSet<u64>,
    results: Vec<(u64, Vec<u8>)>,
    ended: BTreeSet<u64>,
    key: bool,
    settings: Vec<(String, Vec<u8>)>,
}

fn state(disk: &SimDisk) -> State {
    let open = |disk| TestLog::open(disk, cold_options(), TestLog::new().now, 9).unwrap();
    let look = |mut log: TestLog| {
        let ended = |number: &u64| matches!(log.log.find(id(*number)), Some(Known::Finished { .. }));
        let open = |number: &u64| matches!(log.log.find(id(*number)), Some(Known::Unsettled { .. }));
        let result = |number| log.result(number).map(|result| (number, result));
        State {
            unsettled: (1..=60).filter(open).collect(),
            results: (1..=60).filter_map(result).collect(),
            ended: (1..=60).filter(ended).collect(),
            key: log.log.find_key(full_submit().idempotency.unwrap()).is_some(),
            settings: log.settings(),
            recovered: log.recovered().iter().map(|item| format!("{item:?}")).collect(),
        }
    };
    let first = look(open(disk.clone()));
    let second = look(open(disk.crash(3)));
    assert_eq!(second, first, "the next start finds the same");
    first
}

/// A record of the cold segment, or the rest of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    start: usize,
    end: usize,
    frame: u64,
    /// What it is about; `None`: nothing is lost with it.
    about: Option<(LostKind, u64)>,
}

/// All records of the cold segment but those that say where copies come from, in order; and where its frames end.
fn records() -> (Vec<Stretch>, usize) {
    let disk = golden(|_, content| content);
    let mut found = inspect::segments(&disk).unwrap();
    found.retain(|segment| segment.name == COLD);
    let (mut records, mut frames_end) = (Vec::new(), 0);
    let number = |job: joblog::ids::JobId| u64::from_be_bytes(job.0[8..].try_into().unwrap());
    inspect::read(&disk, &mut found, false, |_, seen| match seen {
        Seen::Frame { offset, bytes, .. } => frames_end = usize::try_from(offset + bytes).unwrap(),
        Seen::Record {
            offset,
            bytes,
            lsn,
            record,
        } => {
            let about = match record {
                Record::Submit(submit) => Some((LostKind::Submit, number(submit.id))),
                Record::Outcome(outcome) => Some((LostKind::Outcome, number(outcome.id))),
                Record::Ended(ended) => Some((LostKind::End, number(ended.id))),
                Record::Tries(tries) => Some((LostKind::Return, number(tries.id))),
                Record::Dispatch(dispatch) => Some((LostKind::Dispatch, number(dispatch.jobs[0]))),
                Record::Setting(_) => Some((LostKind::Setting, 0)),
                Record::Copied(_) => return,
                other => panic!("{other:?}"),
            };
            let start = usize::try_from(*offset).unwrap();
            let end = start + usize::try_from(*bytes).unwrap();
            let frame = *lsn;
            records.push(Stretch {
                start,
                end,
                frame,
                about,
            });
        }
        other => panic!("{other:?}"),
    })
    .unwrap();
    (records, frames_end)
}

/// Everything that is about none of `lost` is as it was.
fn check(whole: &State, state: &State, lost: &[Stretch], plan: &Plan) {
    let hit = |kind: LostKind, number: u64| lost.iter().any(|record| record.about == Some((kind, number)));
    let touched = |number: u64| {
        lost.iter()
            .any(|record| record.about.is_some_and(|about| about.1 == number))
    };
    for number in &whole.unsettled {
        let gone = hit(LostKind::Submit, *number);
        assert_eq!(state.unsettled.contains(number), !gone, "job {number}: {plan:?}");
        let said = plan.jobs.gone.contains(&id(*number)) || plan.jobs.frames_unknown > 0;
        assert!(!gone || said || says_a_record(plan), "{plan:?}");
    }
    for number in &state.unsettled {
        let again = !whole.unsettled.contains(number);
        let said = plan.jobs.again.contains(&id(*number)) || plan.jobs.frames_unknown > 0;
        assert!(!again || said || says_a_record(plan), "{plan:?}");
        assert!(!again || hit(LostKind::Outcome, *number), "{plan:?}");
    }
    for result in whole.results.iter().filter(|result| !touched(result.0)) {
        assert!(state.results.contains(result), "result {}: {plan:?}", result.0);
    }
    let ended = whole.ended.iter().filter(|number| !touched(**number));
    assert!(
        ended.clone().all(|number| state.ended.contains(number)),
        "{plan:?}"
    );
    assert!(state.key || hit(LostKind::End, 2), "{plan:?}");
    assert!(
        state.settings == whole.settings || hit(LostKind::Setting, 0),
        "{plan:?}"
    );
    if lost.is_empty() {
        assert_eq!(state, whole, "nothing is lost: {plan:?}");
        assert!(
            plan.jobs.gone.is_empty() && plan.jobs.again.is_empty(),
            "{plan:?}"
        );
    }
}

/// Whether it says that a record is lost: of which job may be what is damaged.
fn says_a_record(plan: &Plan) -> bool {
    plan.findings.iter().any(|finding| !finding.lost.is_empty())
}

#[test]
fn any_flipped_byte_of_a_frame_of_copies_costs_at_most_the_record_that_it_is_in() {
    let whole = state(&golden(|_, content| content));
    let (records, frames_end) = records();
    let (mut free, mut costly) = (0, 0);
    for offset in 512..frames_end {
        let disk = flipped(offset);
        if verify(&disk).unwrap().damages.is_empty() {
            // The last mark is its own witness: without it the rest is as it was.
            assert!(offset >= frames_end - 40, "byte {offset}");
            assert_eq!(state(&disk), whole, "byte {offset}");
            continue;
        }
        let (plan, state) = repair(&disk);
        let hit = records
            .iter()
            .find(|record| (record.start..record.end).contains(&offset));
        let lost: Vec<Stretch> = match hit {
            // Without its length nobody knows where the next record of the frame begins.
            Some(hit) if offset < hit.start + 4 => {
                let behind = |record: &&Stretch| record.frame == hit.frame && record.start >= hit.start;
                records.iter().filter(behind).cloned().collect()
            }
            hit => hit.into_iter().cloned().collect(),
        };
        let lengths = hit.is_some_and(|hit| offset < hit.start + 4);
        assert!(
            plan.jobs.frames_unknown <= u64::from(lengths),
            "byte {offset}: {plan:?}"
        );
        check(&whole, &state, &lost, &plan);
        free += u64::from(lost.is_empty());
        costly += u64::from(!lost.is_empty());
    }
    assert!(
        free > 200 && costly > 2000,
        "{free} bytes cost nothing, {costly} do"
    );
}

#[test]
fn any_damage_of_a_header_of_copies_costs_nothing() {
    let whole = state(&golden(|_, content| content));
    for offset in 0..512 {
        let (plan, state) = repair(&flipped(offset));
        check(&whole, &state, &[], &plan);
        assert_eq!(plan.jobs.frames_unknown, 0, "{plan:?}");
    }
    let (plan, state) = repair(&zeroed(0, 512));
    check(&whole, &state, &[], &plan);
}

#[test]
fn any_damaged_sector_costs_at_most_the_frames_that_it_touches() {
    let whole = state(&golden(|_, content| content));
    let (_, frames_end) = records();
    let frames = frames();
    // Each of both copies: its jobs, and where its frames and those beside it stand.
    let copies = [
        (BTreeSet::from([38]), 0..frames[3]),
        (BTreeSet::from([1, 2, 3]), frames[2]..frames_end),
    ];
    for bytes in [64, 512, 1024] {
        for start in (0..frames_end).step_by(64) {
            let disk = zeroed(start, bytes);
            if verify(&disk).unwrap().damages.is_empty() {
                continue;
            }
            let (plan, state) = repair(&disk);
            for (jobs, place) in &copies {
                let here = |numbers: &BTreeSet<u64>| numbers.intersection(jobs).copied().collect::<Vec<_>>();
                if start + bytes <= place.start || start >= place.end {
                    assert_eq!(
                        here(&state.unsettled),
                        here(&whole.unsettled),
                        "{start}: {plan:?}"
                    );
                    assert_eq!(here(&state.ended), here(&whole.ended), "{start}: {plan:?}");
                }
            }
            for number in whole.unsettled.difference(&state.unsettled) {
                let said = plan.jobs.gone.contains(&id(*number)) || plan.jobs.frames_unknown > 0;
                assert!(said, "{start}, {bytes}: {plan:?}");
            }
            for number in state.unsettled.difference(&whole.unsettled) {
                assert!(
                    plan.jobs.again.contains(&id(*number)),
                    "{start}, {bytes}: {plan:?}"
                );
            }
        }
    }
}

/// The head of the frame and what says where its copies belong are gone: two places that no other record speaks of.
#[test]
fn copies_that_do_not_say_where_they_belong_stay() {
    let whole = state(&golden(|_, content| content));
    let frames = frames();
    assert_eq!(
        frames.len(),
        6,
        "two copies of one frame each, each with its closing frame and a mark"
    );
    for (frame, first_job) in [(frames[0], 38), (frames[3], 1)] {
        for (start, bytes) in [(frame, 68), (frame + 40, 28), (frame + 52, 16)] {
            let (plan, state) = repair(&zeroed(start, bytes));
            assert!(
                plan.findings.iter().all(|finding| finding.lost.is_empty()),
                "{plan:?}"
            );
            assert!(
                state.ended.contains(&first_job) || state.unsettled.contains(&first_job),
                "{plan:?}"
            );
            check(&whole, &state, &[], &plan);
        }
    }
}

/// Where the frames of the cold segment begin.
fn frames() -> Vec<usize> {
    let content = golden(|_, content| content).content(COLD);
    let starts = (512..content.len() - 8).step_by(8);
    starts.filter(|at| content[*at..].starts_with(b"JOBF")).collect()
}

#[test]
fn a_copy_without_its_closing_frame_is_closed_anew() {
    let whole = state(&golden(|_, content| content));
    let frames = frames();
    for closing in [frames[1], frames[4]] {
        for bytes in [1, 40, 68, 72] {
            let (plan, state) = repair(&zeroed(closing, bytes));
            check(&whole, &state, &[], &plan);
        }
    }
    // Its last frame and its closing frame: what is left of the other copy counts.
    let (plan, state) = repair(&zeroed(frames[0], frames[3] - frames[0]));
    assert!(plan.jobs.frames_unknown > 0, "{plan:?}");
    assert_eq!(state.unsettled, whole.unsettled);
}

#[test]
fn a_segment_of_copies_that_is_cut_short_keeps_what_is_left_of_it() {
    let (_, frames_end) = records();
    for length in (0..frames_end).step_by(37) {
        let disk = golden(|name, mut content| {
            content.truncate(if name == COLD { length } else { content.len() });
            content
        });
        // What is left may end with a whole copy and its witness: only its length says that there was more.
        let damages = verify(&disk).unwrap().damages;
        assert_eq!((damages.len(), damages[0].file.as_str()), (1, COLD), "{length}");
        let (plan, _) = repair(&disk);
        assert_eq!(plan.findings.len(), 1, "{length}: {plan:?}");
        assert!(plan.jobs.frames_unknown > 0, "{length}: {plan:?}");
    }
}

/// Somebody put a segment back that had been copied, and had gone.
#[test]
fn a_segment_that_is_there_beside_its_copy_is_put_aside() {
    let whole = state(&golden(|_, content| content));
    let disk = golden(|_, content| content);
    let mut back = disk.content(COLD);
    back.truncate(512);
    let number = 57_u64;
    back[16..24].copy_from_slice(&number.to_le_bytes());
    back[32..40].copy_from_slice(&1_u64.to_le_bytes());
    let crc = crc32c::crc32c(&back[..508]);
    back[508..].copy_from_slice(&crc.to_le_bytes());
    disk.plant("segment-0000000000000057", &back);
    let opened = TestLog::open(disk.clone(), cold_options(), TestLog::new().now, 9);
    assert!(matches!(opened, Err(OpenError::Damaged(_))));
    let (plan, state) = repair(&disk);
    assert_eq!(state, whole, "{plan:?}");
    assert_eq!(
        plan.findings[0].kept.as_deref(),
        Some("damaged-0000000000000057-0"),
        "{plan:?}"
    );
}

#[test]
fn a_repair_of_copies_that_is_cut_off_anywhere_can_be_begun_again() {
    let frame = frames()[3];
    let damaged = || zeroed(frame + 100, 60);
    let (_, expected) = repair(&damaged());
    for changes in 0.. {
        let disk = damaged();
        disk.power_off_after(changes);
        let done = plan_of(&disk).unwrap().carry_out(&disk).is_ok();
        for seed in 0..4 {
            let disk = damaged();
            disk.power_off_after(changes);
            drop(plan_of(&disk).unwrap().carry_out(&disk));
            let disk = disk.crash(seed);
            if !verify(&disk).unwrap().damages.is_empty() {
                plan_of(&disk).unwrap().carry_out(&disk).unwrap();
            }
            assert_eq!(
                state(&disk),
                expected,
                "cut off after {changes} changes, seed {seed}"
            );
        }
        if done {
            assert!(changes > 4, "{changes}");
            break;
        }
    }
}
