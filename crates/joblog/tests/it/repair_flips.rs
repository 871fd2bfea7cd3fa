//! One bit is flipped, anywhere in a small log: what a repair says of the jobs is what the next start finds.

use std::collections::BTreeSet;

use joblog::Options;
use joblog::ids::{JobId, Token};
use joblog::log::{Durability, Known, Space};
use joblog::record::{Cause, Dispatch, Outcome, Record, Return, Submit};
use joblog::repair::{Jobs, Plan, plan};
use joblog::storage::Storage as _;
use joblog::testing::{Random, SimDisk};
use joblog::verify::verify;

use crate::support::{SECOND, TestLog, dispatch, outcome, small, submit};

/// Jobs of the log.
const JOBS: u64 = 80;

/// Bits that are flipped, one at a time.
const FLIPS: u64 = 1_400;

/// As callers make them: no two are a few bits apart.
fn id(number: u64) -> JobId {
    let mut random = Random(number + 1_000);
    let halves = [random.next(), random.next()];
    JobId((u128::from(halves[0]) << 64 | u128::from(halves[1])).to_be_bytes())
}

/// What is there of the jobs.
#[derive(Debug, Default, PartialEq, Eq)]
struct There {
    unsettled: BTreeSet<JobId>,
    ended: BTreeSet<JobId>,
}

impl There {
    fn of(log: &TestLog) -> Self {
        let mut there = Self::default();
        for job in (1..=JOBS).map(id) {
            match log.log.find(job) {
                Some(Known::Unsettled { .. }) => there.unsettled.insert(job),
                Some(Known::Finished { .. }) => there.ended.insert(job),
                _ => continue,
            };
        }
        there
    }
}

/// Every kind of record, alone and many to a frame, over several segments; in some logs copied ones, too.
fn some_log(random: &mut Random) -> TestLog {
    let mut below = |limit: u64| random.next() % limit;
    let forgets = below(2) == 0;
    let mut log = TestLog::with(Options {
        segment_bytes: 16 << 10,
        frame_bytes_max: 6 << 10,
        group_bytes_max: 4 << 10,
        result_ttl_ms: if forgets { 5_000 } else { 3_600_000 },
        ..small()
    });
    let token = Token {
        node: log.log.node(),
        epoch: 1,
        sequence: 1,
    };
    let (mut open, mut next) = (Vec::new(), 1);
    while next <= JOBS {
        let now = log.now.wall;
        let data = vec![7; usize::try_from(below(700)).unwrap()];
        let pick = open
            .get(usize::try_from(below(open.len().max(1) as u64)).unwrap())
            .copied();
        let record = match (below(10), pick) {
            (0..4, _) | (_, None) => {
                open.push(next);
                next += 1;
                Record::Submit(Submit {
                    id: id(next - 1),
                    ..submit(next - 1, &data)
                })
            }
            (4..7, Some(number)) => {
                open.retain(|other| *other != number);
                Record::Outcome(Outcome {
                    id: id(number),
                    ..outcome(number, b"\"done\"", now)
                })
            }
            (7, Some(number)) => Record::Dispatch(Dispatch {
                jobs: vec![id(number)],
                ..dispatch(token, &[], now)
            }),
            (8, Some(number)) => Record::Return(Return {
                id: id(number),
                cause: Cause::Error,
                token,
                due: Some(now),
                written: Some(now),
                alone: false,
                attempts: 1,
                crashes: 0,
                error: None,
            }),
            _ => Record::Delivered(token),
        };
        log.log
            .append(&[record], Space::Settle, Durability::Sync)
            .unwrap();
        if below(3) > 0 {
            log.settle_down();
        }
        if forgets {
            log.advance(SECOND / 4);
        }
    }
    log.settle_down();
    log.advance(SECOND);
    log.settle_down();
    log
}

/// The segments, with one bit of one of them flipped, outside of what is free.
fn flipped(log: &TestLog, random: &mut Random) -> (SimDisk, String) {
    let disk = SimDisk::new();
    let mut names = log.disk.list().unwrap();
    names.retain(|name| name.starts_with("segment"));
    let chosen = names[usize::try_from(random.next()).unwrap() % names.len()].clone();
    for name in &names {
        let mut content = log.disk.content(name);
        if *name == chosen {
            let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            let at = usize::try_from(random.next()).unwrap() % used;
            content[at] ^= 1 << (random.next() % 8);
        }
        disk.plant(name, &content);
    }
    (disk, chosen)
}

fn count(set: &BTreeSet<JobId>, without: &BTreeSet<JobId>) -> u64 {
    set.difference(without).count() as u64
}

/// What was said is so.
fn check(said: &Jobs, before: &There, after: &There, what: &str) {
    assert_eq!(said.unsettled, after.unsettled.len() as u64, "{what}");
    let again: BTreeSet<JobId> = after.unsettled.difference(&before.unsettled).copied().collect();
    let sure: BTreeSet<JobId> = said.again.difference(&said.again_unsure).copied().collect();
    assert!(sure.is_subset(&again), "{again:?} come again: {what}");
    // As many as were said to, and no more than can be.
    let (least, most) = (
        said.again.len() as u64,
        said.again.len() as u64 + said.more_again_max,
    );
    let real = again.len() as u64;
    assert!((least..=most).contains(&real), "{again:?} come again: {what}");
    // One whose id is wrong is another one.
    let wrong = count(&said.again_unsure, &again);
    assert!(
        count(&again, &said.again) <= said.more_again_max + wrong,
        "{again:?}: {what}"
    );

    let known: BTreeSet<JobId> = after.unsettled.union(&after.ended).copied().collect();
    let gone: BTreeSet<JobId> = before
        .unsettled
        .union(&before.ended)
        .filter(|job| !known.contains(*job))
        .copied()
        .collect();
    let Some(more) = said.more_gone_max else { return };
    let wrong = count(&said.unsure, &gone);
    assert!(
        count(&gone, &said.gone) <= more + wrong,
        "{gone:?} are gone: {what}"
    );
}

fn repaired(disk: &SimDisk) -> Option<Plan> {
    let mut source = Random(5);
    let plan = plan(disk, &mut || source.next()).unwrap();
    if plan.is_empty() {
        return None;
    }
    plan.carry_out(disk).unwrap();
    assert_eq!(verify(disk).unwrap().damages, [], "{plan:?}");
    Some(plan)
}

#[test]
fn what_a_repair_says_of_jobs_after_a_flipped_bit_is_so() {
    let (mut repairs, mut again, mut more) = (0, 0, 0);
    for seed in 0..20 {
        let mut random = Random(seed);
        let log = some_log(&mut random);
        let before = There::of(&log.reopen(copy(&log)).unwrap());
        for flip in 0..FLIPS / 20 {
            let (disk, name) = flipped(&log, &mut random);
            let Some(plan) = repaired(&disk) else { continue };
            let after = There::of(&log.reopen(disk).unwrap());
            check(
                &plan.jobs,
                &before,
                &after,
                &format!("seed {seed}, flip {flip}, {name}: {plan:?}"),
            );
            repairs += 1;
            again += plan.jobs.again.len();
            more += usize::from(plan.jobs.more_again_max > 0);
        }
    }
    assert!(
        repairs > 500 && again > 50 && more > 20,
        "{repairs} repairs, {again} again, {more}"
    );
}

fn copy(log: &TestLog) -> SimDisk {
    let disk = SimDisk::new();
    for name in log.disk.list().unwrap() {
        disk.plant(&name, &log.disk.content(&name));
    }
    disk
}
