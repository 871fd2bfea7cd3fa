//! Replies (C20, C22): a wait has an end and the job has not; a result waits for its caller, but not for ever.

use jitney::driver::port::{Answer, Command, SubmitMany};
use jitney::driver::refusal::Refusal;
use jitney::job::{State, Status};

use crate::harness::{Harness, Restarts, limits};
use crate::node::Node;
use crate::words::{client_id, echo, job, millis, ok, seconds, settle, worker};

/// C20, which is a `202` here: the wait ends before the job does. The caller gets the job as it is, the job goes
/// on, its result can be read, and nobody is told twice.
pub(crate) fn c20_a_wait_that_ends_is_answered_with_the_job_as_it_is_and_the_job_goes_on<H: Harness>() {
    let mut node = Node::<H>::start();
    let caller = node.submit_and_wait(job("1").wait(seconds(10)));
    let batch = node.lease_one(worker("w"));
    node.advance(seconds(10) - millis(1));
    assert!(node.submitted(caller).is_none());
    node.advance(millis(1));
    let answered = node.submitted(caller).expect("the wait is over").unwrap().job;
    assert_eq!(
        (answered.status, answered.state),
        (Status::Submitted, State::Running)
    );
    assert_eq!(answered.finished_at, None);
    // The caller comes back, and waits again.
    let reader = node.call(Command::Get {
        id: answered.id,
        wait: Some(seconds(10)),
    });
    assert_eq!(
        node.settle(settle(batch.token, vec![ok(answered.id, "\"late\"")])),
        ["applied"]
    );
    let Some(Answer::Job(job)) = node.answer(reader) else {
        panic!("the reader is answered")
    };
    assert_eq!(job.result.expect("it ended well").bytes, "\"late\"");
    assert_eq!(node.result(answered.id), b"\"late\"");
    assert!(
        node.submitted(caller).is_none(),
        "the first answer was the only one"
    );
}

/// C20: the caller sends no more and may be gone. Its wait ends when the edge says, not before and not after its own
/// end, whether it had begun or its submit was in flight.
pub(crate) fn c20_a_caller_that_may_be_gone_is_answered_in_time<H: Harness>() {
    let mut node = Node::<H>::start();
    for (wait, hold_max, ends) in [(60, 5, 5), (3, 5, 3)] {
        let waits = node.submit_and_wait(job("1").wait(seconds(wait)));
        node.hurry(waits, seconds(hold_max));
        let in_flight = node.post(Command::Submit(Box::new(job("2").wait(seconds(wait)).0)));
        node.hurry(in_flight, seconds(hold_max));
        let jobs = vec![job("3").0, job("4").0];
        let wait = Some(seconds(wait));
        let many = SubmitMany {
            jobs,
            wait,
            patient: false,
        };
        let many = node.post(Command::SubmitMany(Box::new(many)));
        node.hurry(many, seconds(hold_max));
        let id = node.submit(job("5"));
        let reads = node.call(Command::Get { id, wait });
        node.hurry(reads, seconds(hold_max));
        node.advance(seconds(ends) - millis(1));
        for call in [waits, in_flight, many, reads] {
            assert!(node.answer(call).is_none());
        }
        node.advance(millis(1));
        for call in [waits, in_flight] {
            let submitted = node.submitted(call).expect("the wait is over").unwrap();
            assert_eq!(submitted.job.status, Status::Submitted);
        }
        assert!(matches!(node.answer(many), Some(Answer::SubmittedMany(taken)) if taken.len() == 2));
        assert!(matches!(node.answer(reads), Some(Answer::Job(_))));
        assert_eq!(node.info().waiters, 0);
    }
}

/// C22: the caller has gone away. Its result is kept for `result_ttl`, then it is gone, and the count of results
/// says so.
pub(crate) fn c22_a_result_whose_caller_left_is_kept_for_its_time_and_then_goes<H: Harness>() {
    let mut node = Node::<H>::start();
    let caller = node.submit_and_wait(job("\"kept\"").wait(seconds(60)));
    let batch = node.lease_one(worker("w"));
    let id = batch.jobs[0].id;
    node.hang_up(caller);
    assert_eq!(node.info().waiters, 0);
    assert_eq!(node.settle(echo(&batch)), ["applied"]);
    node.advance(limits().result_ttl - seconds(1));
    assert_eq!(node.result(id), b"\"kept\"");
    assert_eq!(node.info().usage.results, 1);
    node.advance(seconds(2));
    assert_eq!(node.get(id), Err(Refusal::UnknownJob));
    assert_eq!(node.info().usage.results, 0);
}

/// C22: a restart neither loses the result nor gives it a new life.
pub(crate) fn c22_a_result_is_kept_over_a_restart<H: Restarts>() {
    let mut node = Node::<H>::start();
    let id = node.submit(job("\"kept\""));
    let batch = node.lease_one(worker("w"));
    assert_eq!(node.settle(echo(&batch)), ["applied"]);
    node.advance(limits().result_ttl / 2);
    node.kill_and_restart();
    assert_eq!(node.result(id), b"\"kept\"");
    node.advance(limits().result_ttl / 2 - seconds(10));
    assert_eq!(node.result(id), b"\"kept\"");
    node.advance(seconds(20));
    assert_eq!(node.get(id), Err(Refusal::UnknownJob));
    // A result with a client's id lives as long as the id is recognised.
    node.submit(job("2").with_id(client_id(1)));
    let batch = node.lease_one(worker("w"));
    assert_eq!(node.settle(echo(&batch)), ["applied"]);
    node.advance(limits().result_ttl * 2);
    node.kill_and_restart();
    assert_eq!(node.result(client_id(1)), b"2");
}
