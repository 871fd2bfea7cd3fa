//! Content (C24): any bytes, any size up to the limit, and batches that keep to theirs.

use std::sync::Arc;

use jitney::driver::refusal::Refusal;
use jitney::job::Status;
use jitney::policy::PolicyPatch;

use crate::harness::{Faulty, Harness, Restarts};
use crate::node::Node;
use crate::words::{Job, echo, ids, job, millis, ok, policy, settle, worker};

/// What a job weighs in a batch beside its data: docs/http_api.md.
const WEIGHT_BESIDE: u64 = 256;

/// C24: more jobs than fit in a batch are split; a batch that meets its limit exactly is whole.
pub(crate) fn c24_batches_stay_within_their_limits_and_may_meet_them_exactly<H: Harness>() {
    let sizes = |node: &mut Node<H>, count: usize| -> Vec<usize> {
        for _ in 0..count {
            node.submit(job([b'x'; 100]));
        }
        let mut sizes = Vec::new();
        loop {
            let batches = node.lease(worker("w"));
            let Some(batch) = batches.first() else {
                return sizes;
            };
            sizes.push(batch.jobs.len());
            node.settle(echo(batch));
        }
    };
    let weight = WEIGHT_BESIDE + 100;
    for (limit, expected) in [
        (
            PolicyPatch {
                max_jobs: Some(4),
                ..PolicyPatch::default()
            },
            [4, 4, 1],
        ),
        (
            PolicyPatch {
                max_bytes: Some(4 * weight),
                ..PolicyPatch::default()
            },
            [4, 4, 1],
        ),
        (
            PolicyPatch {
                max_bytes: Some(4 * weight - 1),
                ..PolicyPatch::default()
            },
            [3, 3, 3],
        ),
    ] {
        let mut node = Node::<H>::start_with(policy(limit.clone()));
        assert_eq!(sizes(&mut node, 9), expected, "{limit:?}");
    }
    // What the poll asks for counts where it is less.
    let mut node = Node::<H>::start();
    for _ in 0..3 {
        node.submit(job([b'x'; 100]));
    }
    assert_eq!(node.lease_one(worker("w").max_bytes(2 * weight)).jobs.len(), 2);
}

/// C24: a job that alone weighs more than a batch may goes alone.
pub(crate) fn c24_a_job_larger_than_a_batch_travels_alone<H: Harness>() {
    let mut node = Node::<H>::start();
    let large = node.submit(job([b'x'; 5_000]));
    let small = node.submit(job("1"));
    let poll = worker("w").max_bytes(1_000);
    let first = node.lease_one(poll.clone());
    assert_eq!(ids(&first), [large]);
    assert_eq!(node.settle(echo(&first)), ["applied"]);
    assert_eq!(ids(&node.lease_one(poll)), [small]);
}

/// C24: no byte is special: nothing at all, zeros, what is not text, with any content type, there and back.
pub(crate) fn c24_any_bytes_come_back_as_they_went<H: Harness>() {
    let mut node = Node::<H>::start();
    for bytes in contents() {
        let id = node.submit(binary(&bytes));
        let batch = node.lease_one(worker("w"));
        assert_eq!(batch.jobs[0].payload.bytes, bytes);
        assert_eq!(
            batch.jobs[0].payload.content_type.as_deref(),
            Some("application/x-any")
        );
        assert_eq!(
            node.settle(settle(batch.token, vec![ok(id, &bytes)])),
            ["applied"]
        );
        assert_eq!(node.result(id), bytes);
        node.advance(millis(10));
    }
}

/// C24: and so they do after a restart.
pub(crate) fn c24_any_bytes_come_back_after_a_restart<H: Restarts>() {
    let mut node = Node::<H>::start();
    let settled: Vec<_> = contents()
        .into_iter()
        .map(|bytes| {
            let id = node.submit(binary(&bytes));
            let batch = node.lease_one(worker("w"));
            assert_eq!(
                node.settle(settle(batch.token, vec![ok(id, &bytes)])),
                ["applied"]
            );
            (id, bytes)
        })
        .collect();
    let queued: Vec<_> = contents()
        .into_iter()
        .map(|bytes| (node.submit(binary(&bytes)), bytes))
        .collect();
    node.kill_and_restart();
    for (id, bytes) in settled {
        assert_eq!(node.result(id), bytes);
    }
    let batch = node.lease_one(worker("w"));
    for (job, (id, bytes)) in batch.jobs.iter().zip(queued) {
        assert_eq!((job.id, &job.payload.bytes[..]), (id, &bytes[..]));
        assert_eq!(node.get(id).unwrap().status, Status::Submitted);
    }
}

/// C24: what no append can hold is refused at once, with the limit, and leaves nothing behind.
pub(crate) fn c24_what_no_append_can_hold_is_refused_with_the_limit<H: Faulty>() {
    let mut node = Node::<H>::start();
    let limit = node.harness.append_bytes_max();
    let too_large = vec![b'x'; usize::try_from(limit).unwrap()];
    match node.try_submit(job(&too_large)).map(|submitted| submitted.job.id) {
        Err(Refusal::BodyTooLarge { bytes, limit: said }) => {
            assert_eq!(said, limit);
            assert!(bytes > limit);
        }
        other => panic!("refused for its size: {other:?}"),
    }
    assert_eq!(node.info().usage.unsettled, 0);
    assert!(node.lease(worker("w")).is_empty());
    node.submit(job("1"));
    assert_eq!(node.lease_one(worker("w")).jobs.len(), 1);
}

fn contents() -> Vec<Vec<u8>> {
    let all: Vec<u8> = (0..=u8::MAX).collect();
    vec![
        Vec::new(),
        vec![0],
        vec![0, 1, 0, 1],
        all.clone(),
        all.repeat(60),
        b"\xff\xfe not utf-8 \xc3\x28".to_vec(),
        b"{\"a\":1}\r\n".to_vec(),
    ]
}

fn binary(bytes: &[u8]) -> Job {
    let mut job = job(bytes);
    job.0.payload.content_type = Some(Arc::from("application/x-any"));
    job
}
