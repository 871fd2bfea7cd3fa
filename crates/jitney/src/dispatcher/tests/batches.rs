//! How batches form: late, in order, by lane and share, within limits.

use super::*;
use crate::policy::{GroupBy, LaneShare};

use Priority::{Normal, Realtime, Slow};

#[test]
fn an_idle_normal_queue_goes_at_once_and_a_busy_one_lingers() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 1);
    let first = desk.lease();
    assert_eq!((numbers(&first), first.closed_by), (vec![1], ClosedBy::Idle));
    desk.arrive(Normal, 2);
    assert!(desk.poll(|_| {}).is_empty());
    assert_eq!(desk.dispatcher.next_timer(), Some(after(desk.now.mono, ms(5))));
    desk.pass(ms(5));
    let late = desk.grants();
    assert_eq!(
        (numbers(&late[0]), late[0].closed_by),
        (vec![2, 3], ClosedBy::Delay)
    );
}

#[test]
fn the_end_of_what_is_in_flight_closes_a_lingering_batch() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 1);
    let first = desk.lease();
    desk.arrive(Normal, 1);
    desk.poll(|_| {});
    let decided = desk.settle(first.token, &[(1, OK)], true);
    assert!(desk.grants().is_empty(), "not before it is durable");
    desk.commit(&decided);
    assert_eq!(desk.grants()[0].closed_by, ClosedBy::Idle);
}

#[test]
fn exactly_n_orders_but_not_longer_than_the_delay() {
    let mut desk = Desk::with(PolicyPatch {
        max_jobs: Some(4),
        min_jobs: Some(4),
        idle_flush: Some(false),
        max_delay: Some(ms(100)),
        ..PolicyPatch::default()
    });
    desk.poll(|_| {});
    desk.arrive(Normal, 3);
    assert!(desk.grants().is_empty());
    desk.arrive(Normal, 1);
    let grants = desk.grants();
    assert_eq!(
        (numbers(&grants[0]), grants[0].closed_by),
        (vec![1, 2, 3, 4], ClosedBy::Full)
    );
    desk.poll(|_| {});
    desk.arrive(Normal, 1);
    desk.pass(ms(99));
    assert!(desk.grants().is_empty());
    desk.pass(ms(1));
    assert_eq!(numbers(&desk.grants()[0]), [5]);
}

#[test]
fn realtime_goes_first_in_batches_of_one_and_a_poll_fills_its_slots() {
    let mut desk = Desk::new();
    desk.arrive(Slow, 64);
    desk.arrive(Normal, 2);
    desk.arrive(Realtime, 2);
    let grants = desk.poll(|poll| poll.slots = 9);
    let lanes: Vec<_> = grants
        .iter()
        .map(|grant| (grant.priority, grant.jobs.len()))
        .collect();
    assert_eq!(lanes, [(Realtime, 1), (Realtime, 1), (Normal, 2), (Slow, 64)]);
}

#[test]
fn bytes_are_checked_before_a_job_is_added_and_a_larger_one_goes_alone() {
    let mut desk = Desk::with(PolicyPatch {
        max_bytes: Some(250),
        ..PolicyPatch::default()
    });
    for (n, bytes) in [(1, 100), (2, 150), (3, 1), (4, 900), (5, 9)] {
        let job = Arrival {
            wire_bytes: bytes,
            ..arrival(n, Slow)
        };
        desk.step(Event::Arrived(vec![job]));
    }
    let grants = desk.poll(|poll| poll.slots = 9);
    let batches: Vec<_> = grants
        .iter()
        .map(|grant| (numbers(grant), grant.closed_by))
        .collect();
    let bytes = ClosedBy::Bytes;
    assert_eq!(batches, [(vec![1, 2], bytes), (vec![3], bytes), (vec![4], bytes)]);
}

#[test]
fn a_group_with_its_own_policy_is_never_mixed() {
    let mut desk = Desk::new();
    let refund = Group::parse("refund").unwrap();
    let mut book = PolicyBook::default();
    let written = book.processors.entry(orders()).or_default();
    written.groups.insert(refund.clone(), PolicyPatch::default());
    let send = |desk: &mut Desk, n, group: &Group| {
        let job = Arrival {
            group: group.clone(),
            ..arrival(n, Normal)
        };
        desk.step(Event::Arrived(vec![job]));
    };
    for n in 1..=3 {
        send(&mut desk, n, &Group::default());
    }
    send(&mut desk, 4, &refund);
    desk.step(Event::Policies(book));
    send(&mut desk, 5, &refund);
    let grants = desk.poll(|poll| poll.slots = 9);
    assert_eq!(
        grants.iter().map(numbers).collect::<Vec<_>>(),
        [vec![1, 2, 3], vec![4, 5]]
    );
    desk.step(Event::GrantFailed(grants[0].token));
    desk.step(Event::GrantFailed(grants[1].token));
    desk.step(Event::Policies(PolicyBook::default()));
    assert_eq!(numbers(&desk.lease()), [1, 2, 3, 4, 5]);
}

fn keyed(desk: &mut Desk, priority: Priority, key: Option<&str>) {
    desk.jobs += 1;
    let job = Arrival {
        key: key.map(Arc::from),
        ..arrival(desk.jobs, priority)
    };
    desk.step(Event::Arrived(vec![job]));
}

#[test]
fn batches_by_key_hold_one_key_each_and_each_gathers_by_itself() {
    let mut desk = Desk::with(PolicyPatch {
        group_by: Some(GroupBy::Key),
        max_jobs: Some(3),
        ..PolicyPatch::default()
    });
    for key in [
        Some("a"),
        Some("b"),
        None,
        Some("a"),
        Some("b"),
        None,
        Some("a"),
        Some("a"),
    ] {
        keyed(&mut desk, Slow, key);
    }
    assert_eq!(numbers(&desk.lease()), [1, 4, 7], "full");
    assert!(desk.poll(|_| {}).is_empty(), "the others linger");
    desk.pass(ms(250));
    assert_eq!(numbers(&desk.grants()[0]), [2, 5]);
    assert_eq!(numbers(&desk.lease()), [3, 6]);
    assert_eq!(numbers(&desk.lease()), [8]);
}

#[test]
fn a_key_is_flushed_while_another_is_busy() {
    let mut desk = Desk::with(PolicyPatch {
        group_by: Some(GroupBy::Key),
        ..PolicyPatch::default()
    });
    keyed(&mut desk, Normal, Some("a"));
    let first = desk.lease();
    keyed(&mut desk, Normal, Some("a"));
    assert!(desk.poll(|_| {}).is_empty(), "its key is in flight");
    keyed(&mut desk, Normal, Some("b"));
    assert_eq!(numbers(&desk.grants()[0]), [3]);
    assert!(desk.poll(|_| {}).is_empty());
    let decided = desk.settle(first.token, &[(1, OK)], true);
    desk.commit(&decided);
    assert_eq!(numbers(&desk.grants()[0]), [2]);
}

#[test]
fn a_hundred_thousand_keys_leave_nothing_behind() {
    let mut desk = Desk::with(PolicyPatch {
        group_by: Some(GroupBy::Key),
        ..PolicyPatch::default()
    });
    for key in 0..100_000 {
        keyed(&mut desk, Slow, Some(&key.to_string()));
    }
    desk.pass(ms(250));
    for _ in 0..100_000 {
        let grant = desk.lease();
        let job = number(grant.jobs[0].id);
        let decided = desk.settle(grant.token, &[(job, OK)], true);
        desk.commit(&decided);
    }
    assert_eq!(desk.dispatcher.unsettled(), 0);
    assert_eq!(desk.dispatcher.queues.len(), 3, "one for each lane");
}

#[test]
fn reserved_slots_take_nothing_but_realtime() {
    let mut desk = Desk::with(PolicyPatch {
        realtime_reserve: Some(1),
        max_jobs: Some(1),
        idle_flush: Some(false),
        ..PolicyPatch::default()
    });
    desk.arrive(Normal, 9);
    let busy = desk.poll(|poll| poll.slots = 4);
    assert_eq!(busy.len(), 3, "one of four slots is kept");
    assert!(desk.poll(|_| {}).is_empty(), "the last free slot");
    desk.arrive(Realtime, 1);
    assert_eq!(numbers(&desk.grants()[0]), [10]);
    // While it runs, the reserve is used: the next slot is free for all.
    assert_eq!(desk.lease().priority, Normal);
    // A worker that takes no REALTIME keeps nothing for it.
    let lower = |poll: &mut Poll| poll.priorities = [false, true, true];
    assert_eq!(desk.poll(lower).len(), 1);
}

fn pause(desk: &mut Desk, priority: Priority, paused: bool) {
    desk.step(Event::Pause {
        processor: orders(),
        priority,
        paused,
    });
}

/// They were as of the last event, which on a server where nothing happens is long ago.
#[test]
fn ages_are_as_of_when_they_are_asked_for() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 1);
    let later = after(desk.now.mono, ms(5_000));
    assert_eq!(desk.dispatcher.lanes(later)[1].oldest_age, Some(ms(5_000)));
}

#[test]
fn a_paused_lane_takes_jobs_and_hands_none_out_until_it_is_resumed() {
    let mut desk = Desk::new();
    for lane in Priority::ALL {
        pause(&mut desk, lane, true);
        desk.arrive(lane, 70);
    }
    assert!(desk.poll(|poll| poll.slots = 9).is_empty());
    desk.pass(ms(1000));
    assert_eq!(
        desk.dispatcher.next_timer(),
        Some(Mono(u64::MAX)),
        "nothing lingers"
    );
    let lanes = desk.dispatcher.lanes(desk.now.mono);
    assert!(lanes.iter().all(|lane| lane.paused && lane.queued == 70));
    assert!(lanes.iter().all(|lane| lane.predicted_wait.is_none()));
    // The poll that waited gets what a resume lets go.
    pause(&mut desk, Slow, false);
    let grants = desk.grants();
    assert_eq!((grants.len(), grants[0].priority), (2, Slow));
    pause(&mut desk, Realtime, false);
    assert_eq!(desk.lease().priority, Realtime);
}

#[test]
fn a_pause_lets_leases_go_on_and_holds_their_retries() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 2);
    let grant = desk.lease();
    pause(&mut desk, Normal, true);
    assert_eq!(desk.extend(grant.token).lost, []);
    let decided = desk.settle(grant.token, &[(1, OK), (2, RETRY)], true);
    assert_eq!(
        verdicts(&decided),
        [Some(Verdict::Applied), Some(Verdict::Applied)]
    );
    desk.commit(&decided);
    desk.pass(ms(60_000));
    assert_eq!(desk.state(2), Some(State::Queued));
    assert!(desk.poll(|_| {}).is_empty());
    pause(&mut desk, Normal, false);
    assert_eq!(numbers(&desk.grants()[0]), [2]);
}

#[test]
fn a_repeated_poll_gets_what_it_holds_and_nothing_from_a_paused_lane() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 1);
    let again = |poll: &mut Poll| poll.request_id = Some(Arc::from("r"));
    let first = desk.poll(again).pop().unwrap();
    desk.step(Event::GrantWritten(first.token));
    pause(&mut desk, Normal, true);
    assert_eq!(desk.poll(again).pop().unwrap().token, first.token);
    desk.step(Event::Undelivered(first.token));
    desk.step(Event::Undelivered(first.token));
    assert_eq!(desk.state(1), Some(State::Queued));
    assert!(desk.poll(again).is_empty());
}

/// A paused lane above must not hold a lower one to its share, and one below is owed nothing for its pause.
#[test]
fn a_paused_lane_counts_for_no_share() {
    let mut desk = Desk::new();
    desk.arrive(Realtime, 40);
    desk.arrive(Slow, 128);
    pause(&mut desk, Slow, true);
    for _ in 0..16 {
        assert_eq!(desk.lease().priority, Realtime);
    }
    pause(&mut desk, Slow, false);
    assert_eq!(desk.lease().priority, Realtime, "it counts from fifteen again");
    pause(&mut desk, Realtime, true);
    let grant = desk.lease();
    assert_eq!((grant.priority, grant.jobs.len()), (Slow, 64));
}

#[test]
fn a_lane_may_be_paused_before_its_first_job() {
    let mut desk = Desk::new();
    pause(&mut desk, Normal, false);
    assert!(!desk.dispatcher.knows(&orders()));
    pause(&mut desk, Normal, true);
    assert!(desk.dispatcher.is_paused(&orders(), Normal));
    desk.arrive(Normal, 8);
    assert!(desk.poll(|_| {}).is_empty());
}

#[test]
fn saturated_lanes_are_served_by_exact_counts() {
    let mut desk = Desk::new();
    for lane in Priority::ALL {
        desk.arrive(lane, 2000);
    }
    let mut served: Vec<(Priority, usize)> = Vec::new();
    for _ in 0..800 {
        let grant = desk.lease();
        match served.last_mut() {
            Some((lane, jobs)) if *lane == grant.priority => *jobs += grant.jobs.len(),
            _ => served.push((grant.priority, grant.jobs.len())),
        }
    }
    // Both lower lanes are owed after 15; a quarter of 64 is 16; each then costs 240. NORMAL counts REALTIME,
    // SLOW counts both.
    let expected = [
        (Realtime, 15),
        (Normal, 16),
        (Slow, 16),
        (Realtime, 240),
        (Normal, 16),
        (Slow, 16),
        (Realtime, 240),
        (Normal, 16),
        (Slow, 16),
    ];
    assert_eq!(served[..expected.len()], expected);
}

#[test]
fn a_share_of_one_in_four_and_strict_order() {
    let share = |above| PolicyPatch {
        lower_lane_share: Some(LaneShare { above }),
        ..PolicyPatch::default()
    };
    let mut desk = Desk::with(share(Some(3)));
    desk.arrive(Realtime, 200);
    desk.arrive(Slow, 40);
    let mut order = Vec::new();
    for _ in 0..53 {
        order.push(desk.lease().jobs.len());
    }
    let slow: Vec<_> = (0..53).filter(|&at| order[at] == 16).collect();
    assert_eq!(slow, [3, 52], "3 jobs from above, then 3 * 16");

    let mut desk = Desk::with(share(None));
    desk.arrive(Realtime, 200);
    desk.arrive(Slow, 40);
    for _ in 0..200 {
        assert_eq!(desk.lease().priority, Realtime);
    }
}

#[test]
fn an_emptied_lane_counts_from_fifteen_again() {
    let mut desk = Desk::new();
    desk.arrive(Realtime, 100);
    desk.arrive(Slow, 1);
    for _ in 0..14 {
        assert_eq!(desk.lease().priority, Realtime);
    }
    desk.step(Event::Gone(id(101)));
    desk.arrive(Slow, 1);
    for _ in 0..15 {
        assert_eq!(desk.lease().priority, Realtime);
    }
    assert_eq!(desk.lease().priority, Slow);
}

#[test]
fn a_recovered_job_does_not_linger() {
    let mut desk = Desk::new();
    let job = Arrival {
        recovered: Some(crate::bus::Past::default()),
        ..arrival(1, Slow)
    };
    desk.step(Event::Arrived(vec![job]));
    assert_eq!(desk.lease().closed_by, ClosedBy::Delay);
}

#[test]
fn the_longest_waiting_poll_that_can_be_served_goes_first_and_a_gone_one_never() {
    let mut desk = Desk::new();
    desk.poll(|poll| poll.priorities = [true, false, false]);
    desk.poll(|_| {});
    desk.poll(|_| {});
    desk.step(Event::PollGone(PollId(2)));
    desk.arrive(Normal, 1);
    assert!(matches!(
        desk.actions[..],
        [Action::Answer { poll: PollId(3), .. }]
    ));
}

#[test]
fn a_poll_is_answered_empty_when_its_time_is_over_and_nothing_wakes_an_idle_dispatcher() {
    let mut desk = Desk::new();
    let until = after(desk.now.mono, ms(50));
    desk.poll(|poll| poll.until = until);
    assert_eq!(desk.dispatcher.next_timer(), Some(until));
    desk.pass(ms(50));
    assert!(matches!(&desk.actions[..], [Action::Answer { grants, .. }] if grants.is_empty()));
    desk.arrive(Slow, 3);
    assert_eq!(desk.dispatcher.next_timer(), None);
}

#[test]
fn draining_answers_polls_empty_and_lets_leases_settle() {
    let mut desk = Desk::new();
    desk.arrive(Normal, 2);
    let grant = desk.lease();
    desk.poll(|_| {});
    desk.step(Event::Drain);
    assert_eq!(desk.actions.len(), 1);
    desk.arrive(Normal, 1);
    assert!(desk.poll(|_| {}).is_empty());
    let decided = desk.settle(grant.token, &[(1, OK), (2, OK)], true);
    desk.commit(&decided);
    assert_eq!(desk.dispatcher.unsettled(), 1);
}

#[test]
fn the_longest_waiting_job_sets_the_clock_also_behind_a_retry_that_goes_first() {
    let mut desk = Desk::with(PolicyPatch {
        max_delay: Some(ms(10)),
        ..PolicyPatch::default()
    });
    desk.arrive(Normal, 1);
    let first = desk.lease();
    let decided = desk.settle(first.token, &[(1, RETRY)], true);
    desk.commit(&decided);
    let due = desk.dispatcher.next_timer().unwrap();
    desk.arrive(Normal, 1);
    desk.lease();
    desk.now.mono = Mono(due.0 - 4_000);
    desk.arrive(Normal, 1);
    desk.poll(|_| {});
    desk.pass(ms(4));
    assert_eq!(desk.state(1), Some(State::Queued));
    desk.pass(ms(5));
    assert!(desk.grants().is_empty());
    desk.pass(ms(1));
    assert_eq!(numbers(&desk.grants()[0]), [1, 3]);
}
