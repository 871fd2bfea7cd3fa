//! Lifecycle (C36, C37, C40): how a node ends, and what a submit that comes twice is.

use std::time::Duration;

use jitney::driver::Ended;
use jitney::driver::differs::Differs;
use jitney::driver::port::{Answer, Command, Said, Submit};
use jitney::driver::refusal::Refusal;
use jitney::job::{Group, JobId, Priority, Processor, State, Status, Token};
use jitney::policy::PolicyPatch;

use crate::harness::{Faulty, Harness, Restarts, Step, limits};
use crate::node::Node;
use crate::words::{
    Job, client_id, echo, ids, job, millis, ok, ok_with_children, policy, release, retryable, seconds,
    settle, settle_some, worker,
};

/// How long callers of leased jobs still wait.
const GRACE: Duration = Duration::from_secs(10);

/// C36: asked to stop, the node refuses new work, sends waiting workers away, answers the callers of what nobody
/// has begun, lets the rest settle, and ends as soon as it has.
pub(crate) fn c36_a_stopping_node_takes_nothing_new_and_lets_leased_jobs_settle<H: Harness>() {
    let mut node = Node::<H>::start();
    let running = node.submit_and_wait(job("1").wait(seconds(60)));
    let batch = node.lease_one(worker("w"));
    let waiting_poll = node.poll(worker("idle").wait(seconds(60)));
    let queued = node.submit_and_wait(job("2").wait(seconds(60)));
    node.stop(GRACE);
    let sent_away = node.leased(waiting_poll).expect("a pending poll is answered");
    assert!(sent_away.draining && sent_away.batches.is_empty());
    let queued = node
        .submitted(queued)
        .expect("nobody will run it here")
        .unwrap()
        .job;
    assert_eq!((queued.status, queued.state), (Status::Submitted, State::Queued));
    assert_eq!(
        node.try_submit(job("3")).expect_err("nothing new"),
        Refusal::Draining
    );
    assert!(
        node.submitted(running).is_none(),
        "the caller of a leased job still waits"
    );
    node.advance(GRACE / 2);
    assert_eq!(node.extend(batch.token).expect("heartbeats go on").1, []);
    assert_eq!(node.ended(), None);
    let settle = node.call(Command::Settle(echo(&batch)));
    assert_eq!(node.settled(settle), Some(Ok(vec!["applied"])));
    assert_eq!(
        node.submitted(running).expect("answered").unwrap().job.status,
        Status::ProcessedOk
    );
    assert_eq!(node.ended(), Some(&Ended::Stopped), "nothing is left to wait for");
}

/// C36: the next start runs what was queued, and nothing that had finished.
pub(crate) fn c36_after_a_graceful_stop_nothing_that_finished_runs_again<H: Restarts>() {
    let mut node = Node::<H>::start();
    let jobs: Vec<JobId> = (0..5).map(|n| node.submit(job(n.to_string()))).collect();
    let batch = node.lease_one(worker("w").max_jobs(3));
    node.stop(GRACE);
    assert_eq!(
        node.settle(settle(
            batch.token,
            vec![ok(jobs[0], "1"), ok(jobs[1], "1"), release(jobs[2])]
        )),
        ["applied", "applied", "released"]
    );
    node.restart_after_stop();
    let batch = node.lease_one(worker("w"));
    assert_eq!(ids(&batch), jobs[2..]);
    let counted = batch.jobs.iter().map(|job| (job.attempt, job.delivery));
    assert_eq!(
        counted.collect::<Vec<_>>(),
        [(1, 2), (1, 1), (1, 1)],
        "a release counts nothing"
    );
}

/// C37: a worker that stops gives back what it has not done, and another starts it at once; nothing is counted.
pub(crate) fn c37_a_stopping_worker_releases_and_others_start_at_once<H: Harness>() {
    let mut node = Node::<H>::start();
    let jobs: Vec<JobId> = (0..3).map(|n| node.submit(job(n.to_string()))).collect();
    let batch = node.lease_one(worker("stopping"));
    let waiting = node.poll(worker("other").wait(seconds(60)));
    let settled = settle(
        batch.token,
        vec![ok(jobs[0], "1"), release(jobs[1]), release(jobs[2])],
    );
    assert_eq!(node.settle(settled), ["applied", "released", "released"]);
    let taken = node.leased(waiting).expect("at once").batches.remove(0);
    assert_eq!(ids(&taken), jobs[1..]);
    let job = node.get(jobs[1]).unwrap();
    assert_eq!((job.attempts, job.crashes), (0, 0));
}

/// C37: the grace ends before the job does. Its caller gets the job as it is, and the node ends.
pub(crate) fn c37_when_the_grace_ends_callers_get_their_job_as_it_is<H: Harness>() {
    let mut node = Node::<H>::start();
    let caller = node.submit_and_wait(job("1").wait(seconds(60)));
    node.lease_one(worker("w"));
    node.stop(GRACE);
    node.advance(GRACE - millis(1));
    assert!(node.submitted(caller).is_none());
    assert_eq!(node.ended(), None);
    node.advance(millis(1));
    let answered = node.submitted(caller).expect("the grace is over").unwrap().job;
    assert_eq!(
        (answered.status, answered.state),
        (Status::Submitted, State::Running)
    );
    assert_eq!(node.ended(), Some(&Ended::Stopped));
}

/// C37: a second signal ends the process in the middle of the drain. Nothing is lost: the worker's result still
/// counts, and what was queued is queued.
pub(crate) fn c37_a_second_signal_ends_at_once_and_loses_nothing<H: Restarts>() {
    let mut node = Node::<H>::start();
    let jobs: Vec<JobId> = (0..3).map(|n| node.submit(job(n.to_string()))).collect();
    let batch = node.lease_one(worker("w").max_jobs(2));
    node.stop(GRACE);
    assert_eq!(
        node.settle(settle_some(batch.token, vec![ok(jobs[0], "1")])),
        ["applied"]
    );
    node.advance(seconds(1));
    assert_eq!(node.ended(), None);
    node.kill_and_restart();
    assert_eq!(
        node.settle(settle(batch.token, vec![ok(jobs[1], "\"after\"")])),
        ["applied"]
    );
    assert_eq!(node.result(jobs[1]), b"\"after\"");
    assert_eq!(ids(&node.lease_one(worker("other"))), jobs[2..]);
}

/// C37: a worker that lived in the process ended with it: nobody waits for its lease's term.
pub(crate) fn c37_a_worker_inside_the_process_ends_with_it_and_its_jobs_start_at_once<H: Restarts>() {
    let mut node = Node::<H>::start();
    let id = node.submit(job("1"));
    node.lease_one(worker("inside").in_process());
    node.advance(millis(10));
    node.kill_and_restart();
    let again = node.lease_one(worker("other"));
    assert_eq!(ids(&again), [id]);
    assert_eq!(again.jobs[0].delivery, 2);
    assert_eq!(node.get(id).unwrap().crashes, 1);
}

/// How many dead jobs each lane of the processor `p` shows.
fn dead<H: Harness>(node: &mut Node<H>) -> Vec<u64> {
    let call = node.call(Command::Lanes);
    let Some(Answer::Lanes(lanes)) = node.answer(call) else {
        panic!("the lanes are told at once")
    };
    lanes.iter().map(|lane| lane.dead).collect()
}

fn give_up_one<H: Harness>() -> Node<H> {
    let mut node = Node::<H>::start_with(policy(PolicyPatch {
        max_attempts: Some(1),
        ..PolicyPatch::default()
    }));
    let (given_up, done) = (node.submit(job("1")), node.submit(job("2")));
    let batch = node.lease_one(worker("w"));
    let outcomes = vec![retryable(given_up, "busy"), ok(done, "1")];
    assert_eq!(node.settle(settle(batch.token, outcomes)), ["applied", "applied"]);
    assert_eq!(node.get(given_up).unwrap().state, State::Dead);
    assert_eq!(dead(&mut node), [0, 1, 0]);
    node
}

/// A lane shows the jobs that were given up, as long as they can be read.
pub(crate) fn the_dead_are_counted_until_they_are_forgotten<H: Harness>() {
    let mut node = give_up_one::<H>();
    node.advance(limits().result_ttl + seconds(1));
    assert_eq!(dead(&mut node), [0, 0, 0]);
}

/// The same over a restart, where nothing else is known of the lane.
pub(crate) fn the_dead_are_counted_after_a_restart<H: Restarts>() {
    let mut node = give_up_one::<H>();
    node.kill_and_restart();
    assert_eq!(dead(&mut node), [0, 1, 0]);
    node.advance(limits().result_ttl + seconds(1));
    assert!(dead(&mut node).is_empty());
}

/// A clock that was an hour ahead and is set right: a retry waits no longer than its pause was, over a restart too.
pub(crate) fn a_pause_stays_a_pause_when_the_clock_is_set_back<H: Restarts>() {
    let mut node = Node::<H>::start();
    let id = node.submit(job("1"));
    let batch = node.lease_one(worker("w"));
    let failed = settle(batch.token, vec![retryable(id, "busy")]);
    assert_eq!(node.settle(failed), ["applied"]);
    assert_eq!(node.get(id).unwrap().state, State::Retrying);
    node.stop(GRACE);
    node.set_clock_back(seconds(3600));
    node.restart_after_stop();
    // The default: 200 ms, and jitter.
    node.advance(millis(400));
    assert_eq!(ids(&node.lease_one(worker("w"))), [id]);
}

/// C40: a client that does not know whether its submit came through sends it again, under the same id or key: it
/// is one job, running, and ended. With other content it is refused.
pub(crate) fn c40_the_same_submit_twice_is_one_job<H: Harness>() {
    for (named, conflict) in [
        (
            with_id as fn(Job) -> Job,
            Refusal::IdReused(Differs::of(&["data"])),
        ),
        (with_key, Refusal::IdempotencyKeyReused(Differs::of(&["data"]))),
    ] {
        let mut node = Node::<H>::start();
        let id = node.submit(named(job("1")));
        assert_replayed(&mut node, named(job("1")), id, Status::Submitted);
        assert_eq!(
            node.try_submit(named(job("2"))).expect_err("other content"),
            conflict
        );
        let batch = node.lease_one(worker("w"));
        assert_eq!(ids(&batch), [id], "one job");
        let waiting = node.submit_and_wait(named(job("1")).wait(seconds(60)));
        assert_eq!(
            node.settle(settle(batch.token, vec![ok(id, "\"once\"")])),
            ["applied"]
        );
        let answered = node.submitted(waiting).expect("a repeat may wait, too").unwrap();
        assert!(answered.replayed);
        assert_eq!(answered.job.result.expect("it ended well").bytes, "\"once\"");
        assert_replayed(&mut node, named(job("1")), id, Status::ProcessedOk);
        assert!(node.lease(worker("w")).is_empty());
        assert_eq!(
            node.try_submit(named(job("2"))).expect_err("other content"),
            conflict
        );
    }
}

/// C40: whoever clashes hears in what, as long as the first is known; and no more than is known.
pub(crate) fn c40_a_clash_names_what_differs<H: Harness>() {
    let mut node = Node::<H>::start();
    let first = || {
        let mut submit = with_id(job("1")).0;
        submit.labels = vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())];
        submit
    };
    let clash = |node: &mut Node<H>, change: &dyn Fn(&mut Submit)| {
        let mut submit = first();
        change(&mut submit);
        submit.fingerprint = 7;
        node.try_submit(Job(submit)).expect_err("other content")
    };
    let all = |submit: &mut Submit| {
        submit.processor = Processor::parse("other").unwrap();
        submit.group = Group::parse("other").unwrap();
        submit.priority = Priority::Slow;
        submit.key = Some("k".to_owned());
        submit.labels.pop();
        submit.payload.content_type = Some("text/plain".into());
    };
    let id = node.submit(Job(first()));
    let differs = |names: &[&str]| Refusal::IdReused(Differs::of(names));
    let most = ["processor", "group", "priority", "key", "labels", "content type"];
    assert_eq!(clash(&mut node, &all), differs(&most));
    // The order of labels is none.
    assert_eq!(clash(&mut node, &|submit| submit.labels.reverse()), differs(&[]));
    let batch = node.lease_one(worker("w"));
    assert_eq!(node.settle(echo(&batch)), ["applied"]);
    assert_eq!(
        clash(&mut node, &|submit| submit.key = Some("k".to_owned())),
        differs(&["key"])
    );
    // Its record gives way in the end, or stays as long as the name: nothing false is said.
    assert_eq!(node.get(id).unwrap().id, id);
}

/// C40: a repeat that comes while the first is not durable yet waits for that commit.
pub(crate) fn c40_a_repeat_that_meets_its_first_in_flight_shares_its_fate<H: Harness>() {
    for named in [with_id as fn(Job) -> Job, with_key] {
        let mut node = Node::<H>::start();
        let first = node.post(Command::Submit(Box::new(named(job("1")).0)));
        let repeat = node.post(Command::Submit(Box::new(named(job("1")).0)));
        let other = node.post(Command::Submit(Box::new(named(job("2")).0)));
        node.run();
        let first = node.submitted(first).expect("answered").unwrap();
        let repeat = node.submitted(repeat).expect("answered").unwrap();
        assert_eq!((first.replayed, repeat.replayed), (false, true));
        assert_eq!(first.job.id, repeat.job.id);
        assert!(node.submitted(other).expect("answered").is_err());
        assert_eq!(node.lease_one(worker("w")).jobs.len(), 1);
    }
}

/// C40: a first that was refused binds nothing.
pub(crate) fn c40_a_repeat_of_a_submit_that_found_no_room_is_a_new_submit<H: Faulty>() {
    let mut node = Node::<H>::start();
    node.harness.hold(Step::Write);
    node.harness.fail_next_write_for_want_of_room();
    let first = node.call(Command::Submit(Box::new(with_key(job("1")).0)));
    let repeat = node.call(Command::Submit(Box::new(with_key(job("1")).0)));
    // Other content is no clash yet: the first may bind nothing.
    let other = node.call(Command::Submit(Box::new(with_key(job("2")).0)));
    assert!(node.harness.is_held());
    node.harness.release();
    node.run();
    for call in [first, repeat, other] {
        let answer = node.submitted(call).expect("answered");
        assert_eq!(answer.expect_err("they share its fate"), Refusal::DiskFull);
    }
    // The space is back after a while; the same key with other content is a first submit.
    node.advance(seconds(60));
    let id = node.submit(with_key(job("2")));
    assert_eq!(ids(&node.lease_one(worker("w"))), [id]);
}

/// C40: the window is documented: a key is remembered until `key_ttl` after its job ended, and not longer.
pub(crate) fn c40_a_key_is_forgotten_when_its_time_is_over<H: Harness>() {
    for named in [with_id as fn(Job) -> Job, with_key] {
        let mut node = Node::<H>::start();
        let id = node.submit(named(job("1")));
        // Unsettled, it is remembered for ever.
        node.advance(limits().key_ttl * 2);
        assert_replayed(&mut node, named(job("1")), id, Status::Submitted);
        let batch = node.lease_one(worker("w"));
        assert_eq!(node.settle(echo(&batch)), ["applied"]);
        node.advance(limits().key_ttl - seconds(1));
        assert_replayed(&mut node, named(job("1")), id, Status::ProcessedOk);
        node.advance(seconds(2));
        let again = node.try_submit(named(job("2"))).expect("a new life for the name");
        assert!(!again.replayed);
        assert_eq!(node.info().usage.keys, 1);
    }
}

/// C40: the repeat finds its first over a restart, unsettled and ended.
pub(crate) fn c40_the_same_submit_after_a_restart_is_the_same_job<H: Restarts>() {
    for (named, conflict) in [
        (
            with_id as fn(Job) -> Job,
            Refusal::IdReused(Differs::of(&["data"])),
        ),
        (with_key, Refusal::IdempotencyKeyReused(Differs::of(&["data"]))),
    ] {
        let mut node = Node::<H>::start();
        let id = node.submit(named(job("1")));
        node.kill_and_restart();
        assert_replayed(&mut node, named(job("1")), id, Status::Submitted);
        let batch = node.lease_one(worker("w"));
        assert_eq!(node.settle(echo(&batch)), ["applied"]);
        node.kill_and_restart();
        assert_replayed(&mut node, named(job("1")), id, Status::ProcessedOk);
        assert_eq!(
            node.try_submit(named(job("2"))).expect_err("other content"),
            conflict
        );
        node.advance(limits().key_ttl + seconds(1));
        assert!(
            !node
                .try_submit(named(job("2")))
                .expect("the window is over")
                .replayed
        );
    }
}

/// An outcome and its child jobs are one: the settle that is told `applied` has made them, and its repeat makes no
/// more.
pub(crate) fn children_come_with_their_parents_outcome<H: Harness>() {
    let mut node = Node::<H>::start();
    let parent = node.submit(job("1"));
    let batch = node.lease_one(worker("w"));
    let outcome = ok_with_children(parent, "1", &["\"mail\"", "\"sms\""]);
    assert_eq!(
        node.settle(settle(batch.token, vec![outcome.clone()])),
        ["applied"]
    );
    assert_eq!(node.settle(settle(batch.token, vec![outcome])), ["duplicate"]);
    let children = node.lease_one(worker("w"));
    let data: Vec<_> = children
        .jobs
        .iter()
        .map(|job| job.payload.bytes.clone())
        .collect();
    assert_eq!(data, ["\"mail\"", "\"sms\""]);
    for child in ids(&children) {
        assert_eq!(node.get(child).unwrap().parent, Some(parent));
    }
    assert_eq!(node.get(parent).unwrap().children, 2);
}

/// A child belongs to the trace of its parent, unless it brought a trace of its own.
pub(crate) fn children_inherit_the_trace_of_their_parent<H: Harness>() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const OWN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut node = Node::<H>::start();
    let mut traced = job("1");
    traced.0.traceparent = Some(PARENT.to_owned());
    let parent = node.submit(traced);
    let batch = node.lease_one(worker("w"));
    let mut outcome = ok_with_children(parent, "1", &["2", "3"]);
    if let Ok(Said::Ok { children, .. }) = &mut outcome.said {
        children[1].traceparent = Some(OWN.to_owned());
    }
    assert_eq!(node.settle(settle(batch.token, vec![outcome])), ["applied"]);
    let children = node.lease_one(worker("w"));
    let traces: Vec<_> = children
        .jobs
        .iter()
        .map(|job| job.traceparent.as_deref())
        .collect();
    assert_eq!(traces, [Some(PARENT), Some(OWN)]);
}

fn assert_replayed<H: Harness>(node: &mut Node<H>, submit: Job, id: JobId, status: Status) {
    let answer = node.try_submit(submit).expect("the same submit is welcome");
    assert_eq!(
        (answer.replayed, answer.job.id, answer.job.status),
        (true, id, status)
    );
}

fn with_id(job: Job) -> Job {
    job.with_id(client_id(9))
}

fn with_key(job: Job) -> Job {
    job.with_idempotency_key(9)
}

/// Children that would take the queue far over its limit are refused with their outcome: the job stays leased, and
/// the lease with it, whatever the settle says of its end.
pub(crate) fn a_job_whose_children_find_no_room_stays_leased<H: Harness>() {
    let mut node = Node::<H>::start_limited(|limits| limits.jobs_max = 1);
    let id = node.submit(job("1"));
    let batch = node.lease_one(worker("w"));
    let two = || settle(batch.token, vec![ok_with_children(id, "1", &["2", "3"])]);
    assert_eq!(node.settle(two()), ["queue_full"]);
    let (_, lost) = node.extend(batch.token).expect("the lease goes on");
    assert_eq!(lost, []);
    // Nothing was counted: the try is still the first.
    assert_eq!(node.get(id).unwrap().attempts, 0);
    assert_eq!(node.settle(settle(batch.token, vec![ok(id, "1")])), ["applied"]);
}

/// A parent that brings one child leaves the queue as long as it was: that always fits.
pub(crate) fn a_child_takes_its_parents_place_in_a_full_queue<H: Harness>() {
    let mut node = Node::<H>::start_limited(|limits| limits.jobs_max = 1);
    let id = node.submit(job("1"));
    let batch = node.lease_one(worker("w"));
    let one = || settle(batch.token, vec![ok_with_children(id, "1", &["2"])]);
    assert_eq!(node.settle(one()), ["applied"]);
    // Settled again the queue is still full, and what was applied stays applied.
    assert_eq!(node.settle(one()), ["duplicate"]);
    assert_eq!(node.lease_one(worker("w")).jobs.len(), 1);
}

/// Callers whose submits are in flight together have their places before their jobs are stored: one that finds
/// none has submitted nothing.
pub(crate) fn of_many_callers_at_once_only_those_with_a_place_submit<H: Harness>() {
    let mut node = Node::<H>::start_limited(|limits| limits.waiters_max = 2);
    let submit = |n: u8| job(n.to_string()).with_id(client_id(n % 3)).wait(seconds(60));
    let calls: Vec<_> = (0..4)
        .map(|n| node.post(Command::Submit(Box::new(submit(n).0))))
        .collect();
    node.run();
    let full = Refusal::TooManyWaiters { limit: 2 };
    let answers: Vec<_> = calls
        .iter()
        .map(|&call| node.submitted(call).map(|answer| answer.expect_err("no place")))
        .collect();
    // The third is a new job. The fourth has the first's id and other content: that is said first.
    let reused = Refusal::IdReused(Differs::of(&["data"]));
    assert_eq!(answers, [None, None, Some(full.clone()), Some(reused)]);
    assert_eq!(node.info().usage.unsettled, 2, "the refused are not stored");
    // A repeat of a first that is in flight needs a place as well.
    node.hang_up(calls[1]);
    let pair: Vec<_> = (0..2)
        .map(|_| node.post(Command::Submit(Box::new(submit(2).0))))
        .collect();
    node.run();
    assert!(node.submitted(pair[0]).is_none());
    assert_eq!(
        node.submitted(pair[1])
            .map(|answer| answer.expect_err("no place")),
        Some(full)
    );
    // The places of the refused are free again, and each accepted job is there once.
    let batch = node.lease_one(worker("w").max_jobs(64));
    assert_eq!(ids(&batch), [client_id(0), client_id(1), client_id(2)]);
    node.settle(echo(&batch));
    assert!(node.submitted(calls[0]).is_some() && node.submitted(pair[0]).is_some());
    let next = node.submit_and_wait(job("next").wait(seconds(60)));
    assert!(node.submitted(next).is_none(), "it waits");
}

/// `processors_max` holds for first jobs that are in flight together, and for the children of one settle.
pub(crate) fn processors_that_come_at_once_stay_within_their_limit<H: Harness>() {
    let mut node = Node::<H>::start_limited(|limits| limits.processors_max = 2);
    let of = |name: &str| Processor::parse(name).unwrap();
    let calls: Vec<_> = ["orders", "a", "b", "a"]
        .into_iter()
        .map(|name| {
            let mut submit = job("1").0;
            submit.processor = of(name);
            node.post(Command::Submit(Box::new(submit)))
        })
        .collect();
    node.run();
    let full = Refusal::TooManyProcessors { limit: 2 };
    let refused: Vec<_> = calls
        .iter()
        .map(|&call| node.submitted(call).expect("answered").err())
        .collect();
    assert_eq!(refused, [None, None, Some(full), None]);

    let mut node = Node::<H>::start_limited(|limits| limits.processors_max = 2);
    let id = node.submit(job("1"));
    let batch = node.lease_one(worker("w"));
    let children_of = |names: [&str; 2]| {
        let mut outcome = ok_with_children(id, "1", &["2", "3"]);
        if let Ok(Said::Ok { children, .. }) = &mut outcome.said {
            for (child, name) in children.iter_mut().zip(names) {
                child.processor = of(name);
            }
        }
        settle_some(batch.token, vec![outcome])
    };
    assert_eq!(node.settle(children_of(["a", "b"])), ["too_many_processors"]);
    assert_eq!(node.settle(children_of(["a", "a"])), ["applied"]);
}

/// A poll whose settles are all answered at once asks once: it takes one batch, not two.
pub(crate) fn a_poll_that_settles_what_is_unknown_takes_one_batch<H: Harness>() {
    let mut node = Node::<H>::start();
    let token = Token {
        node: 1,
        epoch: 1,
        sequence: 1,
    };
    let poll = node.poll(
        worker("w")
            .max_jobs(1)
            .wait(seconds(10))
            .settling(vec![settle(token, Vec::new())]),
    );
    node.submit(job("1"));
    node.submit(job("2"));
    assert_eq!(node.leased(poll).expect("the first job came").batches.len(), 1);
    let other = node.lease_one(worker("other").max_jobs(1));
    assert_eq!(
        other.jobs[0].delivery, 1,
        "nobody was given the second job before"
    );
}
