//! Settles: verdicts, attempts, retries, and that nothing happens before it is durable.

use super::*;
use crate::dispatcher::event::Decision;
use crate::job::{Cause, End, Reason};

use Priority::Normal;

#[test]
fn each_job_gets_its_own_verdict_in_the_order_of_the_settle() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 6);
    let grant = desk.lease();
    desk.arrive(Normal, 1);
    let last = Report::Error {
        retryable: false,
        retry_after: None,
    };
    let outcomes = [
        (3, OK),
        (3, last),
        (1, last),
        (7, OK),
        (99, OK),
        (2, Report::Release),
        (4, Report::Refused),
    ];
    let decided = desk.settle(grant.token, &outcomes, true);
    use Verdict::{Applied, Duplicate, Ended, Refused, Released, Unknown};
    let expected = [Applied, Duplicate, Applied, Unknown, Ended, Released, Refused].map(Some);
    assert_eq!(verdicts(&decided)[..7], expected);
    assert_eq!(verdicts(&decided)[7..], [None, None], "5 and 6 were left unnamed");
    let cause = |job: &Decision| match job.change {
        Some(Change::Requeue(requeue)) => Some((requeue.cause, requeue.attempts)),
        _ => None,
    };
    let causes: Vec<_> = decided.jobs.iter().map(cause).collect();
    assert_eq!(
        causes[5..],
        [
            Some((Cause::Released, 0)),
            Some((Cause::MissingOutcome, 1)),
            Some((Cause::MissingOutcome, 1)),
            Some((Cause::MissingOutcome, 1)),
        ]
    );
    desk.commit(&decided);
    assert_eq!(
        (desk.state(1), desk.state(2), desk.state(4)),
        (None, Some(State::Queued), Some(State::Retrying))
    );
    let again = desk.settle(grant.token, &[(2, OK), (1, OK)], false);
    assert_eq!(verdicts(&again), [Some(Duplicate), Some(Ended)]);
}

/// Corrected after the last word, an outcome was called a duplicate: its worker took it for settled.
#[test]
fn an_outcome_that_is_corrected_after_the_last_word_is_late() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 2);
    let grant = desk.lease();
    let refused = [(1, Report::Refused)];
    let decided = desk.settle(grant.token, &refused, true);
    let corrected = [(1, OK), (2, OK)];
    for _ in 0..2 {
        // While the first is being written, and after.
        let late = desk.settle(grant.token, &corrected, false);
        assert_eq!(verdicts(&late), [Some(Verdict::Late), Some(Verdict::Late)]);
        let same = desk.settle(grant.token, &refused, true);
        assert_eq!(verdicts(&same), [Some(Verdict::Refused)]);
        desk.commit(&decided);
    }
}

#[test]
fn an_outcome_that_is_corrected_before_the_last_word_counts() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 2);
    let grant = desk.lease();
    let refused = desk.settle(grant.token, &[(1, Report::Refused), (2, OK)], false);
    assert_eq!(changed(&refused), [id(2)]);
    let corrected = desk.settle(grant.token, &[(1, OK)], true);
    assert_eq!(verdicts(&corrected), [Some(Verdict::Applied)]);
}

#[test]
fn without_last_the_unnamed_stay_leased_and_a_refused_one_too() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 3);
    let grant = desk.lease();
    let decided = desk.settle(grant.token, &[(1, OK), (2, Report::Refused)], false);
    assert_eq!(changed(&decided), [id(1)]);
    desk.commit(&decided);
    assert_eq!(desk.dispatcher.leased_jobs(), 2);
}

#[test]
fn a_change_is_carried_out_when_durable_and_undone_when_it_failed() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 2);
    let grant = desk.lease();
    let decided = desk.settle(grant.token, &[(1, OK)], true);
    assert_eq!(
        (desk.state(1), desk.dispatcher.unsettled()),
        (Some(State::Running), 2)
    );
    desk.pass(Duration::from_secs(29));
    desk.step(Event::CommitFailed(changed(&decided)));
    assert_eq!(desk.dispatcher.leased_jobs(), 2);
    assert_eq!(
        desk.dispatcher.next_timer(),
        Some(after(desk.now.mono, Duration::from_secs(30)))
    );
    let again = desk.settle(grant.token, &[(1, OK), (2, OK)], true);
    assert_eq!(verdicts(&again), [Some(Verdict::Applied); 2]);
    desk.commit(&again);
    assert_eq!(
        (desk.dispatcher.unsettled(), desk.dispatcher.leased_jobs()),
        (0, 0)
    );
    assert_eq!(desk.dispatcher.next_timer(), None);
    let lane = &desk.dispatcher.lanes(desk.now.mono)[1];
    assert_eq!(
        (lane.arrived, lane.dispatched, lane.ended.all(), lane.running),
        (2, 2, 2, 0)
    );
}

#[test]
fn a_retry_waits_for_its_backoff_and_ends_exhausted() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 1);
    for attempt in 1..=5 {
        let grant = desk.lease();
        assert_eq!(grant.jobs[0].attempt, attempt);
        let decided = desk.settle(grant.token, &[(1, RETRY)], true);
        desk.commit(&decided);
        match decided.jobs[0].change {
            Some(Change::Requeue(requeue)) => {
                let wait = requeue.due.unwrap().0 - desk.now.wall.0;
                assert_eq!(desk.state(1), Some(State::Retrying));
                desk.now.wall.0 += 1_000_000_000;
                desk.pass(ms(wait - 1));
                assert_eq!(
                    desk.state(1),
                    Some(State::Retrying),
                    "the wall clock does not wake it"
                );
                desk.pass(ms(1));
                assert_eq!(desk.state(1), Some(State::Queued));
            }
            Some(Change::Finish(finish)) => {
                assert_eq!((finish.end, finish.reason), (End::Error, Some(Reason::Exhausted)));
                assert_eq!((finish.attempts, attempt), (5, 5));
            }
            None => panic!("{decided:?}"),
        }
    }
    assert_eq!(desk.dispatcher.unsettled(), 0);
}

#[test]
fn a_failed_batch_goes_on_one_by_one_and_only_one_alone_counts_an_attempt() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 3);
    let grant = desk.lease();
    let decided = desk.fail(grant.token, false);
    for job in &decided.jobs {
        let Some(Change::Requeue(requeue)) = job.change else {
            panic!("{job:?}")
        };
        assert_eq!(
            (requeue.cause, requeue.attempts, requeue.due),
            (Cause::BatchFailed, 0, None)
        );
        assert!(requeue.alone);
    }
    desk.commit(&decided);
    let alone = desk.poll(|poll| poll.slots = 9);
    assert_eq!(
        alone.iter().map(numbers).collect::<Vec<_>>(),
        [vec![1], vec![2], vec![3]]
    );
    let failed = desk.fail(alone[1].token, false);
    let Some(Change::Requeue(requeue)) = failed.jobs[0].change else {
        panic!("{failed:?}")
    };
    assert_eq!(
        (requeue.cause, requeue.attempts, requeue.alone),
        (Cause::BatchFailed, 1, true)
    );
    assert!(requeue.due.is_some());
}

#[test]
fn a_program_that_died_counts_crashes_like_a_lost_lease() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 2);
    let grant = desk.lease();
    let decided = desk.fail(grant.token, true);
    desk.commit(&decided);
    let status = desk.dispatcher.job(id(1)).unwrap();
    assert_eq!(
        (status.attempts, status.crashes, status.state),
        (0, 1, State::Queued)
    );
    assert_eq!(numbers(&desk.lease()), [1, 2]);
}

#[test]
fn gone_jobs_leave_no_trace_wherever_they_were() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 4);
    let grant = desk.poll(|poll| poll.max_jobs = Some(3)).remove(0);
    desk.step(Event::GrantWritten(grant.token));
    let decided = desk.settle(grant.token, &[(1, OK), (2, RETRY)], false);
    desk.step(Event::Gone(id(1)));
    desk.commit(&decided);
    for n in 2..=4 {
        desk.step(Event::Gone(id(n)));
    }
    assert_eq!(
        (desk.dispatcher.unsettled(), desk.dispatcher.leased_jobs()),
        (0, 0)
    );
    assert_eq!(desk.dispatcher.next_timer().map(|_| ()), None);
}
