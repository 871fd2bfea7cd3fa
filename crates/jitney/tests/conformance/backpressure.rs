//! Backpressure (C31): a medium that is slow, or full, is felt by those who submit, and by nobody's memory; what
//! lets the queue empty again goes on.

use jitney::driver::port::{Command, Readiness};
use jitney::driver::refusal::Refusal;
use jitney::job::{JobId, Status};

use crate::harness::{Faulty, Step};
use crate::node::{Call, Node};
use crate::words::{client_id, echo, ids, job, seconds, worker};

/// Far more submits than any limit here lets through.
const SUBMITS_MAX: usize = 1_000;

/// Bytes of data in each of them.
const DATA_BYTES: usize = 8 << 10;

/// What a record adds to the data of a job, at most, bytes.
const BESIDE_BYTES: u64 = 512;

/// C31: the medium does not answer. Submits are taken up to `queued_bytes_max`, and beyond it refused with that
/// limit; outcomes and reads go on. When it answers again everything that was taken is durable, and nothing else.
pub(crate) fn c31_a_slow_medium_refuses_new_work_and_holds_a_bounded_amount<H: Faulty>() {
    const LIMIT: u64 = 64 << 10;
    let mut node = Node::<H>::start_limited(|limits| limits.queued_bytes_max = LIMIT);
    let early = node.submit(job("1"));
    let batch = node.lease_one(worker("w"));
    node.harness.hold(Step::Sync);
    let (taken, refusal) = submit_until_refused(&mut node);
    let expected = Refusal::QueueFull {
        what: "queued_bytes_max",
        limit: LIMIT,
        retry_after: seconds(1),
    };
    assert_eq!(refusal, expected);
    assert!(taken.len() >= 7, "{} were taken", taken.len());
    let one = u64::try_from(DATA_BYTES).unwrap() + BESIDE_BYTES;
    for _ in 0..20 {
        assert_eq!(node.try_submit(large()).expect_err("as before"), expected);
        let queued = node.info().usage.queued_bytes;
        assert!((LIMIT..LIMIT + one).contains(&queued), "{queued} bytes");
    }
    // The limit is on new work: an outcome is taken, and a job can be read, though neither is durable yet.
    let settle = node.call(Command::Settle(echo(&batch)));
    assert_eq!(node.settled(settle), None, "it is not durable");
    assert_eq!(node.get(early).unwrap().status, Status::Submitted);
    assert!(taken.iter().all(|call| node.submitted(*call).is_none()));

    node.harness.release();
    node.run();
    assert_eq!(node.settled(settle), Some(Ok(vec!["applied"])));
    let accepted = accepted(&mut node, taken);
    assert_eq!(node.info().usage.queued_bytes, 0);
    let last = node.submit(large());
    node.kill_and_restart();
    let all: Vec<JobId> = accepted.into_iter().chain([last]).collect();
    assert_eq!(leased(&mut node), all);
}

/// C31: the medium is full. New work is refused and nothing of it stays; outcomes are taken and their callers answered,
/// the node says what is wrong, and starts. When there is room again, it goes on by itself. (Older results may have
/// given way meanwhile.)
pub(crate) fn c31_a_full_medium_refuses_new_work_and_takes_outcomes<H: Faulty>() {
    let mut node = Node::<H>::start();
    let wait = |n: u32| job(n.to_string()).wait(seconds(60));
    let early: Vec<Call> = (0..8).map(|n| node.submit_and_wait(wait(n))).collect();
    let batch = node.lease_one(worker("w"));
    assert_eq!(batch.jobs.len(), early.len());
    node.harness.fill();
    let (taken, refusal) = submit_until_refused(&mut node);
    assert_eq!(refusal, Refusal::DiskFull);
    let accepted = accepted(&mut node, taken);
    for n in 0..20 {
        let named = large().with_id(client_id(n));
        assert_eq!(node.try_submit(named).expect_err("it is full"), Refusal::DiskFull);
    }
    assert_eq!(node.info().usage.queued_bytes, 0, "what is refused waits nowhere");
    assert_eq!(node.info().readiness, Readiness::DiskFull);
    assert_eq!(node.settle(echo(&batch)), ["applied"; 8]);
    for (n, call) in early.into_iter().enumerate() {
        let answered = node.submitted(call).expect("its outcome is durable").unwrap();
        let result = answered.job.result.expect("it ended well");
        assert_eq!(result.bytes, n.to_string());
    }

    node.kill_and_restart();
    assert_eq!(
        node.get(client_id(3)).expect_err("it was refused"),
        Refusal::UnknownJob
    );
    node.harness.make_room();
    node.advance(seconds(5));
    assert_eq!(node.info().readiness, Readiness::Ready);
    let last = node.submit(large());
    let all: Vec<JobId> = accepted.into_iter().chain([last]).collect();
    assert_eq!(leased(&mut node), all);
}

fn large() -> crate::words::Job {
    job(format!("\"{}\"", "x".repeat(DATA_BYTES - 2)))
}

/// Submits one after the other until one is refused: the calls before it, and why it was.
fn submit_until_refused<H: Faulty>(node: &mut Node<H>) -> (Vec<Call>, Refusal) {
    let mut taken = Vec::new();
    for _ in 0..SUBMITS_MAX {
        let call = node.call(Command::Submit(Box::new(large().0)));
        match node.peek_refusal(call) {
            Some(refusal) => return (taken, refusal),
            None => taken.push(call),
        }
    }
    panic!("{SUBMITS_MAX} submits were taken, without end");
}

fn accepted<H: Faulty>(node: &mut Node<H>, taken: Vec<Call>) -> Vec<JobId> {
    let answers = taken.into_iter().map(|call| node.submitted(call));
    let accepted = answers.map(|answer| answer.expect("answered").expect("accepted").job.id);
    accepted.collect()
}

/// Every job that is there to be leased, in order.
fn leased<H: Faulty>(node: &mut Node<H>) -> Vec<JobId> {
    let mut all = Vec::new();
    loop {
        let batches = node.lease(worker("other").slots(16));
        if batches.is_empty() {
            return all;
        }
        all.extend(batches.iter().flat_map(ids));
    }
}
