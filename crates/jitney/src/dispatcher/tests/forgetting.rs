//! Processors that nobody uses are forgotten after a day.

use super::*;

const DAY: Duration = Duration::from_hours(24);

fn desk() -> Desk {
    let mut desk = Desk::new();
    desk.step(Event::Policies(PolicyBook::default()));
    desk
}

#[test]
fn a_processor_that_nobody_uses_is_forgotten_and_wakes_nobody() {
    let mut desk = desk();
    desk.poll(|poll| poll.until = Mono(0));
    assert!(desk.dispatcher.knows(&orders()));
    assert_eq!(desk.dispatcher.next_timer(), None);
    desk.pass(DAY - ms(1));
    assert!(desk.dispatcher.knows(&orders()));
    desk.pass(ms(1));
    assert!(!desk.dispatcher.knows(&orders()));
    assert!(desk.dispatcher.lanes(desk.now.mono).is_empty());
}

#[test]
fn its_place_is_the_next_ones_and_nothing_of_it_is_left() {
    let mut desk = desk();
    desk.arrive(Priority::Normal, 2);
    let grant = desk.lease();
    let done = desk.settle(grant.token, &[(1, OK), (2, OK)], true);
    desk.commit(&done);
    desk.pass(DAY * 2);
    let mail = Processor::parse("mail").unwrap();
    let job = Arrival {
        processor: mail.clone(),
        ..arrival(9, Priority::Normal)
    };
    desk.step(Event::Arrived(vec![job]));
    let lanes = desk.dispatcher.lanes(desk.now.mono);
    assert!(lanes.iter().all(|lane| lane.processor == mail), "{lanes:?}");
    assert_eq!(lanes.iter().map(|lane| lane.arrived).max(), Some(1));
    let grants = desk.poll(|poll| poll.processor = mail);
    assert_eq!(numbers(&grants[0]), [9]);
    assert!(!desk.dispatcher.knows(&orders()));
}

/// A job, a worker, a pause, a policy, a lease that is still remembered: each keeps it, and its day begins anew.
#[test]
fn what_is_used_stays() {
    let mut desk = desk();
    let unused = |desk: &mut Desk| {
        desk.pass(DAY);
        !desk.dispatcher.knows(&orders())
    };
    desk.step(Event::Pause {
        processor: orders(),
        priority: Priority::Slow,
        paused: true,
    });
    assert!(!unused(&mut desk), "paused");
    desk.step(Event::Pause {
        processor: orders(),
        priority: Priority::Slow,
        paused: false,
    });
    desk.step(Event::Policies(book(PolicyPatch::default())));
    assert!(!unused(&mut desk), "it has a policy");
    desk.step(Event::Policies(PolicyBook::default()));
    assert!(desk.poll(|_| {}).is_empty());
    assert!(!unused(&mut desk), "a worker waits");
    desk.step(Event::PollGone(PollId(desk.polls)));
    desk.arrive(Priority::Normal, 1);
    assert!(!unused(&mut desk), "a job waits");
    let grant = desk.lease();
    let done = desk.settle(grant.token, &[(1, OK)], true);
    desk.commit(&done);
    assert!(unused(&mut desk));
}
