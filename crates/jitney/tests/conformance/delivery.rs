//! Delivery (C01 to C09): every job is run, every result reaches its caller, whoever dies in between.

use std::collections::HashMap;
use std::time::Duration;

use jitney::driver::Ended;
use jitney::driver::port::{Batch, Command, Inbound, SettleIs};
use jitney::driver::refusal::Refusal;
use jitney::job::{JobId, Priority, State, Status};
use jitney::policy::PolicyPatch;

use crate::harness::{Faulty, Harness, Restarts, Step};
use crate::node::{Call, Node};
use crate::words::{
    Job, client_id, echo, ids, job, millis, ok, policy, seconds, settle, settle_some, worker,
};

/// The term of a lease, by default.
const TERM: Duration = Duration::from_secs(30);

/// A delivered mark is on its way for so long, at most.
const MARK: Duration = Duration::from_millis(10);

/// C01: ten thousand jobs of each priority; every job is processed, and every caller gets exactly one answer, its
/// own.
pub(crate) fn c01_every_job_is_processed_once_and_every_caller_gets_its_own_result<H: Harness>() {
    const EACH: u32 = 10_000;
    let mut node = Node::<H>::start();
    let mut callers: Vec<(Call, String)> = Vec::new();
    for n in 0..EACH {
        for priority in Priority::ALL {
            let data = format!("\"{priority} {n}\"");
            let submit = job(&data).priority(priority).wait(seconds(300));
            callers.push((node.post(Command::Submit(Box::new(submit.0))), data));
        }
    }
    node.run();
    let mut runs: HashMap<JobId, u32> = HashMap::new();
    let mut settles = Vec::new();
    loop {
        let batches = node.lease(worker("w").slots(64).settling(std::mem::take(&mut settles)));
        if batches.is_empty() && node.info().usage.unsettled == 0 {
            break;
        }
        if batches.is_empty() {
            // The last of a lane linger for others.
            node.advance(millis(250));
        }
        batches
            .iter()
            .flat_map(ids)
            .for_each(|id| *runs.entry(id).or_default() += 1);
        settles = batches.iter().map(echo).collect();
    }
    assert_eq!(runs.len(), callers.len());
    assert!(runs.values().all(|runs| *runs == 1), "no job runs twice");
    for (call, data) in callers {
        let answer = node
            .submitted(call)
            .expect("every caller is answered")
            .expect("with its job")
            .job;
        assert_eq!(answer.status, Status::ProcessedOk);
        assert_eq!(
            answer.result.expect("it ended well").bytes,
            data,
            "the caller's own result"
        );
    }
}

/// C01: "accepted" is a promise: it is said only of what survives a power cut.
pub(crate) fn c01_no_caller_hears_accepted_before_its_job_is_durable<H: Faulty>() {
    for step in [Step::Write, Step::Sync, Step::Report] {
        let mut node = Node::<H>::start();
        node.harness.hold(step);
        let caller = node.call(Command::Submit(Box::new(job("1").0)));
        assert!(node.harness.is_held());
        assert!(node.submitted(caller).is_none(), "held before {step:?}");
        assert!(node.lease(worker("w")).is_empty(), "and no worker sees the job");
        node.harness.release();
        node.run();
        assert!(node.submitted(caller).expect("now it is said").is_ok());
    }
}

/// C02: a worker dies in the middle of its batch. What it finished is not run again; what it was at, what it had
/// not begun, and what was still queued goes to others.
pub(crate) fn c02_a_dead_worker_loses_nothing_and_what_it_finished_is_not_run_again<H: Harness>() {
    let mut node = Node::<H>::start();
    let jobs: Vec<JobId> = (0..6).map(|n| node.submit(job(n.to_string()))).collect();
    let batch = node.lease_one(worker("doomed").max_jobs(4));
    assert_eq!(ids(&batch), jobs[..4]);
    let done = jobs[..2].iter().map(|id| ok(*id, "1")).collect();
    assert_eq!(
        node.settle(settle_some(batch.token, done)),
        ["applied", "applied"]
    );
    node.advance(TERM);
    let again = run_all(&mut node);
    assert_eq!(
        sorted(again),
        sorted(jobs[2..].to_vec()),
        "each of the unfinished once"
    );
    for id in jobs {
        assert_eq!(node.get(id).unwrap().status, Status::ProcessedOk);
    }
}

/// C02, and the node dies with the worker: the same holds over the restart.
pub(crate) fn c02_a_dead_node_loses_nothing_and_what_was_finished_is_not_run_again<H: Restarts>() {
    let mut node = Node::<H>::start();
    let jobs: Vec<JobId> = (0..6).map(|n| node.submit(job(n.to_string()))).collect();
    let batch = node.lease_one(worker("doomed").max_jobs(4));
    let done = jobs[..2].iter().map(|id| ok(*id, "1")).collect();
    assert_eq!(
        node.settle(settle_some(batch.token, done)),
        ["applied", "applied"]
    );
    node.advance(MARK);
    node.kill_and_restart();
    assert_eq!(node.result(jobs[0]), b"1");
    assert_eq!(
        sorted(run_all(&mut node)),
        sorted(jobs[4..].to_vec()),
        "the lease still holds the others"
    );
    node.advance(TERM);
    assert_eq!(
        sorted(run_all(&mut node)),
        sorted(jobs[2..4].to_vec()),
        "until its term is over"
    );
    for id in jobs {
        assert_eq!(node.get(id).unwrap().status, Status::ProcessedOk);
    }
}

/// C02: the node dies while a batch is on its way, so that nobody knows whether it arrived. Its job is in its lane
/// again at once, nothing is counted, and should the worker have it after all, its result counts until another
/// worker has the job.
pub(crate) fn c02_a_batch_on_its_way_is_back_in_its_lane_at_once_when_the_node_dies<H: Restarts>() {
    for other_worker_comes_first in [false, true] {
        let mut node = Node::<H>::start();
        let id = node.submit(job("1"));
        let poll = node.poll(worker("w"));
        let batch = node.leased_in_transit(poll).unwrap().batches.remove(0);
        node.kill_and_restart();
        let known = node.get(id).unwrap();
        assert_eq!(
            (known.state, known.attempts, known.crashes),
            (State::Queued, 0, 0)
        );
        if other_worker_comes_first {
            let second = node.lease_one(worker("other"));
            assert_eq!((ids(&second), second.jobs[0].attempt), (vec![id], 1));
            assert_eq!(node.settle(settle(batch.token, vec![ok(id, "1")])), ["late"]);
            assert_eq!(node.settle(settle(second.token, vec![ok(id, "1")])), ["applied"]);
        } else {
            assert_eq!(node.settle(settle(batch.token, vec![ok(id, "1")])), ["applied"]);
            assert!(node.lease(worker("other")).is_empty());
        }
    }
}

/// C03: the node dies between "the result is published" and "its worker knows". The result is there once; the
/// job is not lost, and the worker that says it again hears that it is known.
pub(crate) fn c03_a_result_that_was_published_but_not_acknowledged_is_there_once<H: Faulty>() {
    for seed in 0..10 {
        let mut node = Node::<H>::start();
        let id = node.submit(job("1"));
        let batch = node.lease_one(worker("w"));
        node.harness.hold(Step::Report);
        let unheard = node.call(Command::Settle(settle(batch.token, vec![ok(id, "\"first\"")])));
        assert!(node.harness.is_held());
        assert!(node.settled(unheard).is_none());
        node.cut_power_and_restart(seed);
        assert_eq!(node.result(id), b"\"first\"");
        assert_eq!(
            node.settle(settle(batch.token, vec![ok(id, "\"second\"")])),
            ["duplicate"]
        );
        assert_eq!(node.result(id), b"\"first\"", "the first wins");
        node.advance(TERM);
        assert!(node.lease(worker("other")).is_empty(), "it is not run again");
    }
}

/// C04: "acknowledged" before "published" is impossible. Wherever the power goes, neither worker nor caller has
/// heard of a result that is not there afterwards, and without its result the job runs again.
pub(crate) fn c04_no_acknowledgement_without_a_durable_result<H: Faulty>() {
    for step in [Step::Write, Step::Sync, Step::Report] {
        for seed in 0..10 {
            let mut node = Node::<H>::start();
            let caller = node.submit_and_wait(job("1").with_id(client_id(1)).wait(seconds(60)));
            let id = client_id(1);
            let batch = lease_synced(&mut node);
            node.harness.hold(step);
            let worker_call = node.call(Command::Settle(settle(batch.token, vec![ok(id, "\"done\"")])));
            assert!(node.harness.is_held());
            assert!(
                node.settled(worker_call).is_none(),
                "the worker hears nothing before {step:?}"
            );
            assert!(node.submitted(caller).is_none(), "nor does the caller");
            assert_eq!(
                node.get(id).unwrap().status,
                Status::Submitted,
                "nor does a reader"
            );
            node.cut_power_and_restart(seed);
            let published = node.get(id).unwrap().status == Status::ProcessedOk;
            assert!(
                step != Step::Write || !published,
                "what was not written is not there"
            );
            assert!(step != Step::Report || published, "what was synced is there");
            let verdict = node.settle(settle(batch.token, vec![ok(id, "\"done\"")]));
            assert_eq!(
                verdict,
                [if published { "duplicate" } else { "applied" }],
                "{step:?}, {seed}"
            );
            assert_eq!(node.result(id), b"\"done\"");
        }
    }
}

/// C04: a sync that fails acknowledges nothing: all who wait hear that nobody knows, and the node ends, so that
/// the next start finds out.
pub(crate) fn c04_a_failed_sync_acknowledges_nothing_and_ends_the_node<H: Faulty>() {
    let mut node = Node::<H>::start();
    let settled = node.submit_and_wait(job("1").with_id(client_id(1)).wait(seconds(60)));
    let batch = lease_synced(&mut node);
    node.harness.fail_next_sync();
    let worker_call = node.post(Command::Settle(settle(batch.token, vec![ok(client_id(1), "1")])));
    let submitted = node.post(Command::Submit(Box::new(job("2").0)));
    node.run();
    assert_eq!(node.ended(), Some(&Ended::Poisoned));
    assert_eq!(node.settled(worker_call), Some(Err(Refusal::OutcomeUnknown)));
    for caller in [settled, submitted] {
        let answer = node.submitted(caller).expect("every caller is answered");
        assert_eq!(
            answer.expect_err("and nothing is promised"),
            Refusal::OutcomeUnknown
        );
    }
    node.cut_power_and_restart(1);
    assert_eq!(
        node.get(client_id(1)).unwrap().status,
        Status::Submitted,
        "what was accepted is there"
    );
    assert_eq!(
        node.settle(settle(batch.token, vec![ok(client_id(1), "1")])),
        ["applied"]
    );
}

/// C04: nobody waits for the sync of a lease, so a power cut may take it back. Then the worker hears that its
/// result is unknown, and the job runs again: a duplicate run, never a lost or a second result.
pub(crate) fn c04_a_lease_that_the_power_cut_took_back_is_given_again<H: Faulty>() {
    let mut taken_back = 0;
    for seed in 0..20 {
        let mut node = Node::<H>::start();
        let id = node.submit(job("1"));
        let batch = node.lease_one(worker("w"));
        node.cut_power_and_restart(seed);
        let verdict = node.settle(settle(batch.token, vec![ok(id, "\"first run\"")]));
        let expected: &[u8] = if verdict == ["applied"] {
            b"\"first run\""
        } else {
            assert_eq!(verdict, ["unknown"]);
            taken_back += 1;
            let again = node.lease_one(worker("other"));
            assert_ne!(again.token, batch.token, "no token ever repeats");
            assert_eq!(
                node.settle(settle(again.token, vec![ok(id, "\"second run\"")])),
                ["applied"]
            );
            b"\"second run\""
        };
        assert_eq!(node.result(id), expected);
        node.advance(TERM);
        assert!(node.lease(worker("other")).is_empty());
    }
    assert!((1..20).contains(&taken_back), "the seeds show both: {taken_back}");
}

/// C05: the answer to a settle is lost, so the worker settles again: it is recognised, whatever it says now.
pub(crate) fn c05_a_settle_whose_answer_was_lost_is_a_duplicate<H: Harness>() {
    let mut node = Node::<H>::start();
    let id = node.submit(job("1"));
    let batch = node.lease_one(worker("w"));
    assert_eq!(
        node.settle(settle(batch.token, vec![ok(id, "\"first\"")])),
        ["applied"]
    );
    assert_eq!(
        node.settle(settle(batch.token, vec![ok(id, "\"second\"")])),
        ["duplicate"]
    );
    assert_eq!(node.result(id), b"\"first\"");
    node.advance(TERM);
    assert!(node.lease(worker("other")).is_empty());
}

/// C05: a batch is lost on its way. It goes to the next worker, under the same job id, which is the handler's own
/// idempotency key; that it was out once shows in `delivery`, and nothing is counted against the job.
pub(crate) fn c05_a_batch_that_did_not_reach_its_worker_goes_to_the_next_with_the_same_job_id<H: Harness>() {
    let mut node = Node::<H>::start();
    let id = node.submit(job("1"));
    let poll = node.poll(worker("first"));
    let lost = node.leased_in_transit(poll).unwrap().batches.remove(0);
    node.notify(Inbound::Undelivered(vec![lost.token]));
    let batch = node.lease_one(worker("second"));
    assert_eq!(ids(&batch), [id]);
    assert_ne!(batch.token, lost.token);
    let given = &batch.jobs[0];
    assert_eq!((given.attempt, given.delivery), (1, 2));
    let job = node.get(id).unwrap();
    assert_eq!((job.attempts, job.crashes), (0, 0));
}

/// C05: a worker that sends no more cannot settle: its poll takes no job, and hears what it settled.
pub(crate) fn c05_a_poll_whose_worker_sends_no_more_takes_no_job<H: Harness>() {
    let mut node = Node::<H>::start();
    let waits = node.poll(worker("leaves").wait(seconds(60)));
    node.hurry(waits, Duration::ZERO);
    assert!(
        node.leased(waits)
            .expect("it is answered at once")
            .batches
            .is_empty()
    );
    let id = node.submit(job("1"));
    // A batch is formed for it, and its record is on its way.
    let asks = node.post(Command::Lease(Box::new(worker("leaves").wait(seconds(60)).0)));
    node.hurry(asks, Duration::ZERO);
    assert!(
        node.leased(asks)
            .expect("it is answered at once")
            .batches
            .is_empty()
    );
    let batch = node.lease_one(worker("stays"));
    assert_eq!((ids(&batch), batch.jobs[0].attempt), (vec![id], 1));
    node.submit(job("2"));
    let settles = Command::Lease(Box::new(worker("leaves").settling(vec![echo(&batch)]).0));
    let settles = node.post(settles);
    node.hurry(settles, Duration::ZERO);
    let leased = node.leased(settles).expect("its settle is durable");
    assert!(leased.batches.is_empty());
    let results = leased.settled[0].results.as_ref().unwrap();
    assert!(matches!(results[0].is, SettleIs::Applied { .. }));
    assert_eq!(node.lease_one(worker("stays")).jobs.len(), 1);
}

/// C05: the worker repeats the poll whose answer it did not get: the same lease, the same jobs, less the settled.
pub(crate) fn c05_a_poll_repeated_after_a_lost_answer_gets_the_same_batch<H: Harness>() {
    let mut node = Node::<H>::start();
    let jobs: Vec<JobId> = (0..3).map(|n| node.submit(job(n.to_string()))).collect();
    let poll = worker("w").request("poll-1");
    let first = node.lease_one(poll.clone());
    let again = node.lease_one(poll.clone());
    assert_eq!((again.token, ids(&again)), (first.token, jobs.clone()));
    assert_eq!(
        node.settle(settle_some(first.token, vec![ok(jobs[1], "1")])),
        ["applied"]
    );
    let rest = node.lease_one(poll);
    assert_eq!((rest.token, ids(&rest)), (first.token, vec![jobs[0], jobs[2]]));
}

/// C05: so it is when the node died in between.
pub(crate) fn c05_a_poll_repeated_after_a_restart_gets_the_same_batch<H: Restarts>() {
    let mut node = Node::<H>::start();
    let jobs: Vec<JobId> = (0..3).map(|n| node.submit(job(n.to_string()))).collect();
    let poll = worker("w").request("poll-1");
    let first = node.lease_one(poll.clone());
    assert_eq!(
        node.settle(settle_some(first.token, vec![ok(jobs[1], "1")])),
        ["applied"]
    );
    node.advance(MARK);
    node.kill_and_restart();
    let again = node.lease_one(poll);
    assert_eq!((again.token, ids(&again)), (first.token, vec![jobs[0], jobs[2]]));
}

/// C06: the lease ends while its worker still runs. Until another worker has the job, the late result counts:
/// the token fences, not the clock.
pub(crate) fn c06_a_late_result_counts_while_no_other_worker_has_the_job<H: Harness>() {
    let mut node = Node::<H>::start();
    let id = node.submit(job("1"));
    let batch = node.lease_one(worker("slow"));
    node.advance(TERM * 2);
    assert_eq!(node.settle(settle(batch.token, vec![ok(id, "1")])), ["applied"]);
    assert!(node.lease(worker("other")).is_empty(), "it is not run again");
    assert_eq!(node.get(id).unwrap().crashes, 1);
}

/// C06: once another worker has the job, the late result is recorded as late and changes nothing; the second
/// delivery says that it is the second.
pub(crate) fn c06_a_late_result_changes_nothing_once_another_worker_has_the_job<H: Harness>() {
    let mut node = Node::<H>::start();
    let id = node.submit(job("1"));
    let slow = node.lease_one(worker("slow"));
    node.advance(TERM);
    let second = node.lease_one(worker("second"));
    assert_eq!(ids(&second), [id]);
    assert_eq!(second.jobs[0].delivery, 2);
    assert_eq!(
        node.settle(settle(slow.token, vec![ok(id, "\"slow\"")])),
        ["late"]
    );
    assert_eq!(node.get(id).unwrap().status, Status::Submitted);
    assert_eq!(
        node.settle(settle(second.token, vec![ok(id, "\"second\"")])),
        ["applied"]
    );
    assert_eq!(
        node.settle(settle(slow.token, vec![ok(id, "\"slow\"")])),
        ["late"]
    );
    assert_eq!(node.result(id), b"\"second\"");
}

/// C07: a heartbeat keeps a job alive that runs for three leases; a worker that stands still loses it.
pub(crate) fn c07_a_heartbeat_keeps_a_long_job_alive_and_silence_loses_it<H: Harness>() {
    let mut node = Node::<H>::start();
    let id = node.submit(job("1"));
    let batch = node.lease_one(worker("w"));
    for _ in 0..9 {
        node.advance(TERM / 3);
        assert_eq!(node.extend(batch.token), Ok((TERM, Vec::new())));
        assert!(node.lease(worker("other")).is_empty());
    }
    node.advance(TERM - millis(1));
    assert!(
        node.lease(worker("other")).is_empty(),
        "the last heartbeat still holds"
    );
    node.advance(millis(1));
    assert_eq!(ids(&node.lease_one(worker("other"))), [id]);
    assert_eq!(node.extend(batch.token), Err(Refusal::LeaseLost));
}

/// C08: job 0 hangs, the others finish out of order. They are done; only job 0 runs again.
pub(crate) fn c08_a_job_that_hangs_holds_up_no_other_and_alone_runs_again<H: Harness>() {
    let mut node = Node::<H>::start();
    let (jobs, hanging) = finish_all_but_the_first(&mut node);
    node.advance(TERM);
    let again = node.lease_one(worker("other"));
    assert_eq!(ids(&again), [hanging]);
    assert_eq!(node.settle(echo(&again)), ["applied"]);
    for id in jobs {
        assert_eq!(node.get(id).unwrap().status, Status::ProcessedOk);
    }
}

/// C08: so it is over a restart.
pub(crate) fn c08_after_a_restart_only_the_job_that_hangs_runs_again<H: Restarts>() {
    let mut node = Node::<H>::start();
    let (_, hanging) = finish_all_but_the_first(&mut node);
    node.kill_and_restart();
    node.advance(TERM);
    assert_eq!(run_all(&mut node), [hanging]);
    node.kill_and_restart();
    assert_eq!(run_all(&mut node), []);
}

/// C09: a worker that lost its lease can neither settle, nor give back, nor extend what is now another's.
pub(crate) fn c09_a_worker_that_lost_its_lease_cannot_touch_the_next_one<H: Harness>() {
    let mut node = Node::<H>::start_with(policy(PolicyPatch {
        lease: Some(seconds(5)),
        ..PolicyPatch::default()
    }));
    let id = node.submit(job("1"));
    let old = node.lease_one(worker("old"));
    node.advance(seconds(5));
    let new = node.lease_one(worker("new"));
    assert_eq!(
        node.settle(settle(old.token, vec![crate::words::release(id)])),
        ["late"]
    );
    assert_eq!(
        node.settle(settle(old.token, vec![crate::words::retryable(id, "oops")])),
        ["late"]
    );
    assert_eq!(node.extend(old.token), Err(Refusal::LeaseLost));
    let stranger = node.submit(job("2"));
    assert_eq!(
        node.settle(settle(old.token, vec![ok(stranger, "1")])),
        ["unknown"]
    );
    assert_eq!(node.get(stranger).unwrap().status, Status::Submitted);
    // The new lease is as it was: its term, its job.
    node.advance(seconds(5) - millis(1));
    assert_eq!(node.extend(new.token), Ok((seconds(5), Vec::new())));
    assert_eq!(node.settle(settle(new.token, vec![ok(id, "1")])), ["applied"]);
    let job = node.get(id).unwrap();
    assert_eq!((job.attempts, job.crashes), (1, 1));
}

/// Eight jobs in one batch, of which the worker finishes all but the first, from the last on.
fn finish_all_but_the_first<H: Harness>(node: &mut Node<H>) -> (Vec<JobId>, JobId) {
    let submit = |n: u32| -> Job { job(n.to_string()) };
    let jobs: Vec<JobId> = (0..8).map(|n| node.submit(submit(n))).collect();
    let batch = node.lease_one(worker("w"));
    assert_eq!(ids(&batch), jobs);
    for id in jobs[1..].iter().rev() {
        assert_eq!(
            node.settle(settle_some(batch.token, vec![ok(*id, "1")])),
            ["applied"]
        );
    }
    node.advance(MARK);
    (jobs.clone(), jobs[0])
}

/// Leases the one batch that is there, and lets something else sync the log, and with it the lease.
fn lease_synced<H: Harness>(node: &mut Node<H>) -> Batch {
    let batch = node.lease_one(worker("w"));
    node.advance(MARK);
    node.submit(job("\"beside\"").priority(Priority::Slow));
    batch
}

/// A worker takes whatever is there, until nothing is; the jobs that it ran.
fn run_all<H: Harness>(node: &mut Node<H>) -> Vec<JobId> {
    let mut ran = Vec::new();
    loop {
        let batches = node.lease(worker("runner").slots(16));
        if batches.is_empty() {
            return ran;
        }
        for batch in batches {
            ran.extend(ids(&batch));
            let verdicts = node.settle(echo(&batch));
            assert!(
                verdicts.iter().all(|verdict| *verdict == "applied"),
                "{verdicts:?}"
            );
        }
    }
}

fn sorted(mut ids: Vec<JobId>) -> Vec<JobId> {
    ids.sort_unstable();
    ids
}
