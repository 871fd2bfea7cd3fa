//! Leases: fencing, terms, expiry, return, repetition, restart.

use super::*;
use crate::bus::{Past, RecoveredLease};
use crate::dispatcher::event::Requeue;
use crate::job::{Cause, End, Reason};

use Priority::{Normal, Realtime, Slow};

const TERM: Duration = Duration::from_secs(30);

fn requeue(change: Option<Change>) -> Requeue {
    match change {
        Some(Change::Requeue(requeue)) => requeue,
        other => panic!("{other:?}"),
    }
}

/// Lets the one lease end, durably.
fn expire(desk: &mut Desk) -> Decisions {
    desk.pass(TERM);
    let decided = desk.decisions().pop().expect("the term ended");
    desk.commit(&decided);
    decided
}

#[test]
fn tokens_count_from_one_and_others_are_unknown() {
    let mut desk = Desk::new();
    desk.arrive(Realtime, 2);
    assert_eq!(desk.lease().token, token(1));
    assert_eq!(desk.lease().token, token(2));
    let node = |node, epoch, sequence| Token {
        node,
        epoch,
        sequence,
    };
    for made in [node(NODE, 2, 999), node(NODE, 3, 2)] {
        desk.extend(made);
    }
    for never in [
        node(NODE, 3, 3),
        node(NODE, 3, 0),
        node(NODE, 4, 1),
        node(1, 3, 1),
    ] {
        desk.step(Event::Extend {
            request: RequestId(9),
            token: never,
        });
        assert_eq!(desk.actions.pop(), Some(Action::UnknownLease(RequestId(9))));
    }
}

#[test]
fn a_batch_that_was_not_handed_out_is_back_at_its_place_and_nothing_is_counted() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 2);
    let grant = desk.poll(|_| {}).remove(0);
    desk.arrive(Normal, 1);
    desk.step(Event::GrantFailed(grant.token));
    let again = desk.lease();
    assert_eq!(numbers(&again), [1, 2, 3]);
    assert_eq!((again.jobs[0].attempt, again.jobs[0].delivery), (1, 1));
}

#[test]
fn an_undelivered_batch_returns_once_and_its_token_stays_good_until_fenced() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 2);
    let grant = desk.poll(|_| {}).remove(0);
    desk.step(Event::GrantWritten(grant.token));
    desk.step(Event::Undelivered(grant.token));
    assert_eq!(desk.state(1), Some(State::Queued));
    let decided = desk.settle(grant.token, &[(1, OK)], false);
    assert_eq!(verdicts(&decided), [Some(Verdict::Applied)]);
    desk.commit(&decided);
    let other = desk.lease();
    assert_eq!(numbers(&other), [2]);
    let late = desk.settle(grant.token, &[(2, OK), (1, OK), (7, OK)], false);
    assert_eq!(
        verdicts(&late),
        [Some(Verdict::Late), Some(Verdict::Ended), Some(Verdict::Ended)]
    );
    desk.step(Event::Undelivered(other.token));
    assert_eq!(desk.state(2), Some(State::Running), "it was delivered");
}

#[test]
fn heartbeats_keep_a_lease_but_not_beyond_the_batch_timeout() {
    let mut desk = Desk::with(PolicyPatch {
        batch_timeout: Some(Duration::from_secs(70)),
        ..PolicyPatch::default()
    });
    desk.arrive(Normal, 1);
    let grant = desk.lease();
    for left in [30, 30, 10] {
        desk.pass(Duration::from_secs(20));
        let extended = desk.extend(grant.token);
        assert_eq!(extended.term, Some(Duration::from_secs(left)));
    }
    desk.pass(Duration::from_secs(10));
    assert_eq!(desk.decisions().len(), 1);
}

#[test]
fn an_expired_batch_travels_once_more_as_it_was_then_one_by_one_then_ends() {
    let mut desk = Desk::new();
    desk.arrive(Slow, 64);
    let grant = desk.lease();
    let decided = expire(&mut desk);
    assert_eq!(decided.jobs.len(), 64);
    assert!(decided.jobs.iter().all(|job| {
        let requeue = requeue(job.change);
        (requeue.cause, requeue.crashes, requeue.alone, requeue.due) == (Cause::Expired, 1, false, None)
    }));
    desk.arrive(Slow, 64);
    let again = desk.lease();
    assert_eq!(
        (numbers(&again), again.closed_by),
        (numbers(&grant), ClosedBy::Alone)
    );
    assert_eq!(again.jobs[0].delivery, 2);
    let split = expire(&mut desk);
    assert!(split.jobs.iter().all(|job| requeue(job.change).alone));
    let alone = desk.lease();
    assert_eq!(numbers(&alone), [1]);
    let end = expire(&mut desk);
    let Some(Change::Finish(finish)) = end.jobs[0].change else {
        panic!("{end:?}")
    };
    assert_eq!(
        (finish.end, finish.reason, finish.crashes),
        (End::Failed, Some(Reason::Dead), 3)
    );
    assert_eq!((finish.cause, finish.attempts), (Some(Cause::Expired), 0));
    assert_eq!(numbers(&desk.lease()), [2]);
}

#[test]
fn an_outcome_after_the_term_counts_until_another_lease_is_granted() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 2);
    let grant = desk.lease();
    expire(&mut desk);
    let decided = desk.settle(grant.token, &[(1, OK)], false);
    assert_eq!(verdicts(&decided), [Some(Verdict::Applied)]);
    desk.commit(&decided);
    let other = desk.lease();
    assert_eq!(numbers(&other), [2]);
    let late = desk.settle(grant.token, &[(2, OK)], false);
    assert_eq!(
        (verdicts(&late), changed(&late)),
        (vec![Some(Verdict::Late)], vec![])
    );
}

#[test]
fn an_outcome_that_comes_while_the_expiry_is_being_written_overtakes_it() {
    for expiry_written in [true, false] {
        let mut desk = Desk::new();
        desk.arrive(Normal, 1);
        let grant = desk.lease();
        desk.pass(TERM);
        let expiry = desk.decisions().remove(0);
        let decided = desk.settle(grant.token, &[(1, OK)], true);
        assert_eq!(verdicts(&decided), [Some(Verdict::Applied)]);
        let again = desk.settle(grant.token, &[(1, OK)], true);
        assert_eq!(verdicts(&again), [Some(Verdict::Duplicate)]);
        if expiry_written {
            desk.commit(&expiry);
        } else {
            desk.step(Event::CommitFailed(changed(&expiry)));
        }
        assert!(desk.poll(|_| {}).is_empty());
        desk.commit(&decided);
        assert_eq!(
            (desk.dispatcher.unsettled(), desk.dispatcher.leased_jobs()),
            (0, 0)
        );
    }
}

#[test]
fn a_heartbeat_takes_back_what_nobody_else_holds() {
    let mut desk = Desk::new();
    desk.arrive(Slow, 64);
    let grant = desk.lease();
    expire(&mut desk);
    let other = desk.poll(|poll| poll.max_jobs = Some(60)).remove(0);
    assert_eq!(other.jobs.len(), 60);
    let extended = desk.extend(grant.token);
    assert_eq!((extended.lost.len(), extended.term), (60, Some(TERM)));
    assert_eq!(extended.retaken, [61, 62, 63, 64].map(id));
    assert_eq!(desk.state(61), Some(State::Running));
    let decided = desk.settle(
        grant.token,
        &[(61, OK), (62, OK), (63, OK), (64, OK), (1, OK)],
        true,
    );
    assert_eq!(
        verdicts(&decided)[3..],
        [Some(Verdict::Applied), Some(Verdict::Late)]
    );
    desk.commit(&decided);
    assert_eq!(desk.extend(grant.token).term, None);
}

#[test]
fn nothing_ends_while_nothing_can_be_written() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 1);
    desk.lease();
    desk.step(Event::Stalled(true));
    assert_eq!(desk.dispatcher.next_timer(), None);
    desk.arrive(Realtime, 1);
    assert!(desk.poll(|_| {}).is_empty());
    desk.pass(Duration::from_hours(1));
    assert!(desk.actions.is_empty());
    desk.step(Event::Stalled(false));
    assert_eq!(desk.grants().len(), 1);
    desk.pass(TERM - ms(1));
    assert!(desk.decisions().is_empty());
    desk.pass(ms(1));
    assert_eq!(desk.decisions().len(), 1);
}

#[test]
fn an_expiry_that_could_not_be_written_leaves_the_lease_alive_with_a_full_term() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 1);
    let grant = desk.lease();
    desk.pass(TERM);
    let decided = desk.decisions().remove(0);
    assert_eq!(desk.extend(grant.token).lost, [id(1)], "it is on its way back");
    desk.step(Event::CommitFailed(changed(&decided)));
    assert_eq!(desk.state(1), Some(State::Running));
    assert_eq!(desk.dispatcher.next_timer(), Some(after(desk.now.mono, TERM)));
    assert_eq!(desk.extend(grant.token).term, Some(TERM));
}

#[test]
fn a_repeated_poll_gets_its_leases_again_under_their_tokens() {
    let mut desk = Desk::new();
    let named = |poll: &mut Poll| {
        poll.request_id = Some(Arc::from("r"));
        poll.slots = 2;
    };
    desk.arrive(Realtime, 2);
    let first = desk.poll(named);
    assert!(desk.poll(named).is_empty(), "the record is still being written");
    desk.step(Event::GrantWritten(first[0].token));
    assert!(desk.grants().is_empty());
    desk.step(Event::GrantWritten(first[1].token));
    let again = desk.grants();
    assert_eq!(again.len(), 2);
    assert!(again.iter().zip(&first).all(|(again, first)| {
        !again.fresh && (again.token, &again.jobs, again.term) == (first.token, &first.jobs, TERM)
    }));
    desk.step(Event::Undelivered(first[0].token));
    assert_eq!(
        desk.dispatcher.leased_jobs(),
        2,
        "the second answer still carries it"
    );
    let decided = desk.settle(first[0].token, &[(1, OK)], true);
    desk.commit(&decided);
    let rest = desk.poll(named);
    assert_eq!(
        rest.iter().map(|grant| grant.token).collect::<Vec<_>>(),
        [first[1].token]
    );
    let decided = desk.settle(first[1].token, &[(2, OK)], true);
    desk.commit(&decided);
    assert!(desk.poll(named).is_empty(), "a fresh poll, pending");
    desk.poll(named);
    assert!(
        matches!(desk.actions[..], []),
        "the replaced one was answered empty"
    );
    assert_eq!(desk.dispatcher.workers(&orders()), 1);
}

/// A program that did not start was given batch after batch, and each counted a crash.
#[test]
fn a_worker_that_cannot_start_takes_no_batch_and_is_counted_apart() {
    let mut desk = Desk::new();
    let not_ready = |poll: &mut Poll| {
        poll.worker = Arc::from("broken");
        poll.not_ready = Some(Arc::from("exited with code 1"));
        poll.until = Mono(5_000_000);
    };
    desk.arrive(Normal, 1);
    assert!(desk.poll(not_ready).is_empty());
    desk.arrive(Realtime, 1);
    assert_eq!(desk.grants().len(), 0);
    let lane = desk.dispatcher.lanes(desk.now.mono).remove(0);
    assert_eq!((lane.workers, lane.workers_not_ready), (0, 1));
    let (worker, why) = lane.not_ready.unwrap();
    assert_eq!((&*worker, &*why), ("broken", "exited with code 1"));
    assert!(
        desk.dispatcher.ever_had_worker(&orders()),
        "its name is no mistake"
    );
    assert_eq!(desk.poll(|_| {}).len(), 1, "a worker beside it gets the jobs");

    desk.pass(Duration::from_secs(5));
    let answered = |action: &Action| matches!(action, Action::Answer { grants, .. } if grants.is_empty());
    assert!(
        desk.actions.iter().any(answered),
        "its wait is over: {:?}",
        desk.actions
    );
    let lane = desk.dispatcher.lanes(desk.now.mono).remove(0);
    assert_eq!((lane.workers_not_ready, lane.not_ready), (0, None));
}

#[test]
fn a_repeated_poll_takes_an_expired_batch_again_and_has_it_written_again() {
    let mut desk = Desk::new();
    let named = |poll: &mut Poll| poll.request_id = Some(Arc::from("r"));
    desk.arrive(Normal, 1);
    let first = desk.poll(named).remove(0);
    desk.step(Event::GrantWritten(first.token));
    expire(&mut desk);
    let again = desk.poll(named).remove(0);
    assert_eq!((again.token, again.fresh), (first.token, true));
    desk.step(Event::GrantFailed(again.token));
    assert_eq!(desk.state(1), Some(State::Queued));
}

/// A repeated poll was told a full term when its answer left, and the term ran from the poll: a slow write of
/// another batch in the same answer made the lease end before its worker knew.
#[test]
fn a_lease_that_goes_out_again_has_the_term_that_its_worker_is_told() {
    let mut desk = Desk::new();
    let named = |poll: &mut Poll| poll.request_id = Some(Arc::from("r"));
    desk.arrive(Realtime, 1);
    let first = desk.poll(named).remove(0);
    desk.step(Event::GrantWritten(first.token));
    assert!(!desk.poll(named).remove(0).fresh);
    desk.pass(TERM / 2);
    desk.step(Event::GrantWritten(first.token));
    desk.pass(TERM / 2);
    assert!(desk.decisions().is_empty(), "the term runs from the answer");
    desk.pass(TERM / 2);
    assert_eq!(desk.decisions().len(), 1);
}

fn recovered(delivered: bool, in_process: bool) -> (Desk, Token) {
    let mut desk = Desk::new();
    let before = Token { epoch: 2, ..token(5) };
    for n in 1..=2 {
        let past = Past {
            deliveries: 1,
            started: Some(WallMs(9)),
            last_token: Some(before),
            ..Past::default()
        };
        let job = Arrival {
            recovered: Some(past),
            ..arrival(n, Normal)
        };
        desk.step(Event::Arrived(vec![job]));
    }
    desk.step(Event::Recovered(RecoveredLease {
        token: before,
        processor: orders(),
        worker: "w".to_owned(),
        in_process,
        request_id: Some("r".to_owned()),
        term_ms: 30_000,
        granted: WallMs(9),
        delivered,
        jobs: vec![id(1), id(2)],
    }));
    (desk, before)
}

#[test]
fn a_delivered_lease_survives_the_restart_with_a_full_term() {
    let (mut desk, before) = recovered(true, false);
    assert_eq!(
        (desk.state(1), desk.dispatcher.leased_jobs()),
        (Some(State::Running), 2)
    );
    assert!(desk.poll(|_| {}).is_empty());
    let again = desk.poll(|poll| poll.request_id = Some(Arc::from("r")));
    assert_eq!(
        (again[0].token, again[0].fresh, numbers(&again[0])),
        (before, false, vec![1, 2])
    );
    desk.pass(TERM - ms(1));
    let decided = desk.settle(before, &[(1, OK), (2, RETRY)], true);
    assert_eq!(verdicts(&decided), [Some(Verdict::Applied); 2]);
}

/// A job that its lease had sent back before the restart was taken for the lease's first member, so that its
/// next grant made the restored lease forget a job that it held.
#[test]
fn a_job_that_went_back_before_the_restart_has_no_seat_in_the_restored_lease() {
    let before = Token { epoch: 2, ..token(5) };
    let mut desk = Desk::new();
    for (n, spent) in [(1, true), (2, false)] {
        let past = Past {
            deliveries: 1,
            last_token: Some(before),
            spent,
            ..Past::default()
        };
        let job = Arrival {
            recovered: Some(past),
            ..arrival(n, Realtime)
        };
        desk.step(Event::Arrived(vec![job]));
    }
    desk.step(Event::Recovered(RecoveredLease {
        token: before,
        processor: orders(),
        worker: "w".to_owned(),
        in_process: false,
        request_id: None,
        term_ms: 30_000,
        granted: WallMs(9),
        delivered: true,
        jobs: vec![id(2)],
    }));
    assert_eq!(numbers(&desk.lease()), [1]);
    assert_eq!(desk.extend(before).term, Some(TERM));
    assert_eq!(desk.state(2), Some(State::Running));
}

#[test]
fn an_undelivered_lease_returns_at_the_restart_and_its_token_stays_good() {
    let (mut desk, before) = recovered(false, false);
    assert_eq!(desk.state(1), Some(State::Queued));
    let decided = desk.settle(before, &[(1, OK)], false);
    assert_eq!(verdicts(&decided), [Some(Verdict::Applied)]);
    desk.commit(&decided);
    assert_eq!(desk.extend(before).retaken, [id(2)]);
}

#[test]
fn an_in_process_lease_is_a_crash_at_the_restart() {
    let (mut desk, before) = recovered(true, true);
    let decided = desk.decisions().remove(0);
    assert_eq!((decided.request, decided.token), (None, before));
    assert_eq!(requeue(decided.jobs[0].change).cause, Cause::Crashed);
    desk.commit(&decided);
    let again = desk.lease();
    assert_eq!((numbers(&again), again.closed_by), (vec![1, 2], ClosedBy::Alone));
}

#[test]
fn a_wall_clock_that_jumps_changes_no_lease() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 1);
    desk.lease();
    for wall in [0, u64::MAX] {
        desk.now.wall = WallMs(wall);
        desk.step(Event::Tick);
        assert_eq!((desk.actions.len(), desk.state(1)), (0, Some(State::Running)));
    }
}
