//! Priority (C14, C16, C17): REALTIME first, SLOW never forgotten, and nobody waits for a lane that is empty.

use std::time::Duration;

use jitney::clock::between;
use jitney::driver::port::{Batch, Command};
use jitney::job::Priority::{self, Normal, Realtime, Slow};
use jitney::policy::{LaneShare, PolicyPatch};

use crate::harness::Harness;
use crate::node::Node;
use crate::words::{echo, job, millis, policy, seconds, worker};

/// Strict order: no share for the lower lanes.
fn strict() -> PolicyPatch {
    PolicyPatch {
        lower_lane_share: Some(LaneShare { above: None }),
        ..PolicyPatch::default()
    }
}

/// C14: a hundred REALTIME jobs come upon a backlog of a hundred thousand SLOW ones. From then on whoever gets
/// free takes REALTIME, so that none waits longer than the batches that are running: nothing SLOW starts while
/// REALTIME waits. (With a share for the lower lanes, C16 says what may.)
pub(crate) fn c14_nothing_slow_starts_while_realtime_waits<H: Harness>() {
    const WORKERS: usize = 4;
    const REALTIME: usize = 100;
    let mut node = Node::<H>::start_with(policy(strict()));
    post_all(&mut node, Slow, 100_000);
    let mut running: Vec<Batch> = (0..WORKERS).map(|_| node.lease_one(worker("w"))).collect();
    assert!(running.iter().all(|batch| batch.priority == Slow));
    post_all(&mut node, Realtime, REALTIME);
    let mut started = 0;
    // The workers finish in turn; each asks for its next batch as it settles the last.
    while started < REALTIME {
        let finished = running.remove(0);
        let next = node.lease_one(worker("w").settling(vec![echo(&finished)]));
        assert_eq!(next.priority, Realtime, "after {started} of them");
        assert_eq!(next.jobs.len(), 1, "REALTIME travels alone");
        started += 1;
        running.push(next);
    }
    let next = node.lease_one(worker("w").settling(vec![echo(&running.remove(0))]));
    assert_eq!(next.priority, Slow, "then the backlog goes on");
}

/// C16: with the default share SLOW is owed one job for fifteen REALTIME ones, and n jobs cost fifteen n; with no
/// share it waits until nothing above does.
pub(crate) fn c16_slow_gets_its_share_and_with_none_it_waits<H: Harness>() {
    let order = lanes_in_order_of_service::<H>(PolicyPatch::default());
    assert!(order[..15].iter().all(|(lane, _)| *lane == Realtime));
    assert_eq!(order[15], (Slow, 16), "owed: a quarter of a batch");
    assert!(
        order[16..16 + 240].iter().all(|(lane, _)| *lane == Realtime),
        "and paid for"
    );
    assert_eq!(order[16 + 240], (Slow, 16));

    let order = lanes_in_order_of_service::<H>(strict());
    assert!(order[..300].iter().all(|(lane, _)| *lane == Realtime));
    assert_eq!(order[300].0, Slow);
}

/// C17: a lane that is empty adds nothing to the wait of the others: a pending poll is answered at the very
/// instant at which its batch may close.
pub(crate) fn c17_empty_lanes_add_no_delay_to_the_others<H: Harness>() {
    let linger = |delay: Duration| PolicyPatch {
        max_delay: Some(delay),
        ..PolicyPatch::default()
    };
    for (priority, patch, expected) in [
        (Realtime, PolicyPatch::default(), Duration::ZERO),
        (Normal, PolicyPatch::default(), Duration::ZERO),
        (Slow, linger(Duration::ZERO), Duration::ZERO),
        (Slow, PolicyPatch::default(), millis(250)),
        (Slow, linger(millis(40)), millis(40)),
    ] {
        let mut node = Node::<H>::start_with(policy(patch));
        node.advance(seconds(1));
        let poll = node.poll(worker("w").wait(seconds(60)));
        node.advance(seconds(1));
        let submitted = node.now();
        node.submit(job("1").priority(priority));
        if !expected.is_zero() {
            node.advance(expected - millis(1));
            assert!(node.leased(poll).is_none(), "{priority} lingers for others");
            node.advance(millis(1));
        }
        assert_eq!(between(submitted.mono, node.now().mono), expected);
        let batches = node.leased(poll).expect("answered at that instant").batches;
        assert_eq!(batches[0].priority, priority);
    }
}

/// Leases one batch at a time, settled before the next, of 300 REALTIME and 300 SLOW jobs.
fn lanes_in_order_of_service<H: Harness>(patch: PolicyPatch) -> Vec<(Priority, usize)> {
    let mut node = Node::<H>::start_with(policy(patch));
    post_all(&mut node, Slow, 300);
    post_all(&mut node, Realtime, 300);
    let mut order = Vec::new();
    let mut settles = Vec::new();
    loop {
        let batches = node.lease(worker("w").settling(settles));
        let Some(batch) = batches.first() else {
            return order;
        };
        order.push((batch.priority, batch.jobs.len()));
        settles = vec![echo(batch)];
        if batch.priority == Slow {
            // What is left of the lane lingers no longer.
            node.advance(millis(250));
        }
    }
}

fn post_all<H: Harness>(node: &mut Node<H>, priority: Priority, count: usize) {
    for n in 0..count {
        let submit = job(n.to_string()).priority(priority);
        node.post(Command::Submit(Box::new(submit.0)));
    }
    node.run();
}
