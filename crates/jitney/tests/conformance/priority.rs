//! Priority (C14 to C17): REALTIME first, SLOW never forgotten, and nobody waits for a lane that is empty.

use std::time::Duration;

use jitney::clock::between;
use jitney::driver::port::{Batch, Command, Inbound};
use jitney::job::Priority::{self, Normal, Realtime, Slow};
use jitney::policy::{LaneShare, PolicyPatch};

use crate::harness::Harness;
use crate::node::Node;
use crate::words::{echo, ids, job, millis, policy, seconds, worker};

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

/// C15: every slot is busy with SLOW, and batches are on their way to workers. REALTIME has whatever gets free first,
/// and a batch that did not reach its worker holds it up no longer than that is known.
pub(crate) fn c15_with_every_slot_busy_realtime_has_the_next_one<H: Harness>() {
    let mut node = Node::<H>::start_with(policy(strict()));
    post_all(&mut node, Slow, 10_000);
    let running = node.lease(worker("busy").slots(4));
    assert_eq!(running.len(), 4);
    // What a worker takes ahead: a batch that has not reached it yet.
    let ahead = node.poll(worker("ahead"));
    let ahead_batch = node.leased_in_transit(ahead).unwrap().batches.remove(0);
    let realtime: Vec<_> = (0..6)
        .map(|n| node.submit(job(n.to_string()).priority(Realtime)))
        .collect();
    let mut served = Vec::new();
    for batch in &running {
        let next = node.lease_one(worker("busy").settling(vec![echo(batch)]));
        assert_eq!(next.priority, Realtime);
        served.extend(ids(&next));
    }
    // Its connection is gone: its jobs are behind REALTIME again.
    node.notify(Inbound::Undelivered(vec![ahead_batch.token]));
    let more = node.lease(worker("other").slots(3));
    let lanes: Vec<_> = more.iter().map(|batch| batch.priority).collect();
    assert_eq!(lanes, [Realtime, Realtime, Slow]);
    served.extend(more[..2].iter().flat_map(ids));
    assert_eq!(served, realtime, "in their order");
    assert_eq!(ids(&more[2]), ids(&ahead_batch), "first among SLOW");
}

/// C15: a reserved slot takes no SLOW, whatever waits and however long, owed or not; so REALTIME starts at the very
/// instant at which it comes. A second one, while the reserve is in use, has the next slot that gets free.
pub(crate) fn c15_a_reserved_slot_waits_for_realtime_and_serves_it_at_once<H: Harness>() {
    let mut node = Node::<H>::start_with(policy(PolicyPatch {
        realtime_reserve: Some(1),
        ..PolicyPatch::default()
    }));
    post_all(&mut node, Slow, 10_000);
    let running = node.lease(worker("busy").slots(4));
    assert_eq!(running.len(), 3, "one of four slots is kept");
    let free = node.poll(worker("busy").wait(seconds(60)));
    node.submit(job("1").priority(Realtime));
    let in_reserve = node.leased(free).expect("at once").batches.remove(0);
    let second = node.submit(job("2").priority(Realtime));
    let poll = worker("busy").wait(seconds(60)).settling(vec![echo(&running[0])]);
    let next = node.poll(poll);
    let next = node.leased(next).expect("a slot is free").batches.remove(0);
    assert_eq!(ids(&next), [second]);
    // The reserve is in use: what gets free now is for SLOW.
    let poll = worker("busy").settling(vec![echo(&running[1])]);
    assert_eq!(node.lease_one(poll).priority, Slow);
    let poll = worker("busy").settling(vec![echo(&next)]);
    assert_eq!(node.lease_one(poll).priority, Slow);
    assert_eq!(node.settle(echo(&in_reserve)), ["applied"]);
    // Sixteen times, so that SLOW is owed in between: each fifteenth job is its share.
    for n in 0..16 {
        let free = node.poll(worker("busy").wait(seconds(60)));
        node.advance(seconds(1));
        assert!(node.leased(free).is_none(), "the reserve takes no SLOW");
        let first = node.submit(job(n.to_string()).priority(Realtime));
        let batch = node.leased(free).expect("at once").batches.remove(0);
        assert_eq!((batch.priority, ids(&batch)), (Realtime, vec![first]));
        assert_eq!(node.settle(echo(&batch)), ["applied"]);
    }
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
