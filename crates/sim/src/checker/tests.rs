//! What the checker once called a broken rule, and is none.

use bytes::Bytes;
use jitney::bus::AppendError;
use jitney::driver::port::Lease as Poll;
use jitney::job::{Group, Priority, Processor};

use super::jobs::{Fate, Place};
use super::*;
use crate::random::Rng;
use crate::tape::Restored;

const TOKEN: Token = Token {
    node: 7,
    epoch: 1,
    sequence: 3,
};

fn checker() -> Checker {
    let mut plan = Plan::draw(&mut Rng::new(1));
    plan.memory = false;
    let mut checker = Checker::new(&plan);
    checker
        .booted(1, BusIdentity { node: 7, epoch: 1 })
        .expect("a first start");
    checker.ready = Some(0);
    checker
}

fn dispatch() -> Written {
    Written::Dispatch {
        token: TOKEN,
        worker: "w-1".to_owned(),
        request_id: Some("r-1".to_owned()),
        in_process: false,
        jobs: Vec::new(),
    }
}

/// Appended by the driver, and written by the bus.
fn written(checker: &mut Checker, ticket: u64, record: Written) {
    let ticket = Ticket(ticket);
    let appended = checker.appended(0, &[record], &Ok(ticket));
    appended
        .and_then(|()| checker.written(ticket))
        .expect("no broken rule");
}

fn restored(checker: &mut Checker) -> Verdict {
    checker.crashed(1, false);
    checker.restored(
        2,
        &Restored {
            token: TOKEN,
            in_process: false,
            delivered: false,
            term: Duration::from_secs(1),
            jobs: Vec::new(),
        },
    )
}

#[test]
fn a_mark_that_was_written_is_there_after_a_kill() {
    let mut checker = checker();
    written(&mut checker, 1, dispatch());
    written(&mut checker, 2, Written::Delivered(TOKEN));
    assert_eq!(restored(&mut checker).unwrap_err().rule, "lease");
}

/// Its term had ended, its poll was repeated, and that answer did not reach the worker: the mark of the first time
/// said nothing of the second.
#[test]
fn a_lease_that_goes_out_again_has_a_mark_of_its_own() {
    let mut checker = checker();
    written(&mut checker, 1, dispatch());
    written(&mut checker, 2, Written::Delivered(TOKEN));
    written(&mut checker, 3, dispatch());
    assert_eq!(restored(&mut checker), Ok(()));
}

/// Jobs and a resume in one commit: the jobs were there first, and a lower lane went while the pause still held.
#[test]
fn a_lane_may_be_paused_until_the_turn_of_its_resume_is_over() {
    let mut checker = checker();
    let lane = (Processor::trusted("orders"), Priority::Realtime);
    let name = control::pause_name(&lane.0, lane.1);
    for (ticket, value) in [(1, Some(Bytes::from_static(b"true"))), (2, None)] {
        let ticket = Ticket(ticket);
        let record = Written::Setting(name.clone(), value.clone());
        checker
            .appended(0, &[record], &Ok(ticket))
            .expect("no broken rule");
        checker.control.durable(ticket);
        checker.setting_reported(&name, &value).expect("it is durable");
        assert!(checker.control.may_be_paused(&lane.0, lane.1));
    }
    checker.control.turned();
    assert!(!checker.control.may_be_paused(&lane.0, lane.1));
}

/// A job that waits in its lane.
fn waiting(checker: &mut Checker, n: u8, processor: &Processor, priority: Priority) -> JobId {
    let id = JobId([n; 16]);
    let job = Job {
        order: OrderId(u64::from(n)),
        processor: processor.clone(),
        group: Group::default(),
        priority,
        data: Bytes::new(),
        submit: Fate::Durable,
        appended_at: 0,
        acked: None,
        firsts: 0,
        end: None,
        ended_at: (0, 0),
        told_at: 0,
        held_before: None,
        counts: (0, 0),
        backs: Vec::new(),
        place: Place::Free,
        alone: false,
        grants: Vec::new(),
        arrived: 1,
    };
    checker.jobs.insert(id, job);
    checker.lanes.arrived(processor, priority, id, 0);
    id
}

/// Two batches for one poll, REALTIME first, and no room for their records: both jobs wait as before.
#[test]
fn of_batches_that_were_refused_together_the_first_alone_tells_the_order() {
    let mut checker = checker();
    let processor = Processor::trusted("orders");
    let realtime = waiting(&mut checker, 1, &processor, Priority::Realtime);
    let normal = waiting(&mut checker, 2, &processor, Priority::Normal);
    let poll = Poll {
        processor,
        worker: "w-1".into(),
        in_process: false,
        slots: 2,
        max_jobs: None,
        max_bytes: None,
        wait: Duration::ZERO,
        priorities: [true; 3],
        request_id: None,
        not_ready: None,
        settle: Vec::new(),
    };
    checker.sent(CallId(1), Asked::Lease(poll));
    checker.took(0, CallId(1)).expect("no broken rule");
    let dispatch = |sequence, id| Written::Dispatch {
        token: Token { sequence, ..TOKEN },
        worker: "w-1".to_owned(),
        request_id: None,
        in_process: false,
        jobs: vec![id],
    };
    let full = Err(AppendError::DiskFull);
    let in_order = [dispatch(10, realtime), dispatch(11, normal)];
    assert_eq!(checker.appended(0, &in_order, &full), Ok(()));
    let [first, second] = in_order;
    let broken = checker.appended(0, &[second, first], &full).unwrap_err();
    assert_eq!(broken.rule, "realtime");
}

/// The result of a child gave way on a full disk, and a client came with the id that it had had.
#[test]
fn an_id_without_a_name_is_free_again_once_its_result_may_have_given_way() {
    let mut checker = checker();
    checker.plan.limits.result_ttl = Duration::from_hours(24);
    let processor = Processor::trusted("orders");
    let id = waiting(&mut checker, 1, &processor, Priority::Normal);
    let job = checker.jobs.remove(&id).expect("it is there");
    assert!(checker.stays_known(&job));
    checker.disk_was_full();
    assert!(!checker.stays_known(&job));
}
