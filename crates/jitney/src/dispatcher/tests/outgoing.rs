//! What is on its way to workers is bounded: a poll gets fewer batches, and in the end none until others have arrived.

use super::*;
use crate::dispatcher::Bounds;

/// A desk with batches of one job of 100 bytes.
fn desk(answer: u64, all: u64) -> Desk {
    let mut desk = Desk::with(PolicyPatch {
        max_jobs: Some(1),
        ..PolicyPatch::default()
    });
    desk.dispatcher = desk.dispatcher.bounded(Bounds { answer, all });
    desk
}

fn many(poll: &mut Poll) {
    poll.slots = 100;
}

fn repeat(poll: &mut Poll) {
    poll.request_id = Some(Arc::from("again"));
}

#[test]
fn an_answer_takes_no_more_than_its_bytes_but_one_batch_in_any_case() {
    let mut large = desk(250, 10_000);
    large.arrive(Priority::Normal, 10);
    assert_eq!(large.poll(many).len(), 3);
    assert_eq!(large.poll(many).len(), 3);
    let mut small = desk(1, 10_000);
    small.arrive(Priority::Normal, 10);
    assert_eq!(small.poll(many).len(), 1);
}

#[test]
fn with_much_on_its_way_answers_are_short_and_then_wait() {
    let mut desk = desk(u64::MAX, 600);
    desk.arrive(Priority::Normal, 20);
    // Half of it; then one by one.
    let first = desk.poll(many);
    assert_eq!(first.len(), 3);
    for _ in 0..3 {
        assert_eq!(desk.poll(many).len(), 1);
    }
    assert!(desk.poll(many).is_empty());
    assert!(desk.poll(|_| {}).is_empty());
    // Nothing lingers for what cannot go; the polls themselves end some day.
    assert_eq!(desk.dispatcher.next_timer(), Some(Mono(u64::MAX)));
    // Each end of a way makes room.
    desk.step(Event::GrantWritten(first[0].token));
    desk.step(Event::Delivered(first[0].token));
    assert_eq!(desk.grants().len(), 1);
    desk.step(Event::GrantFailed(first[1].token));
    assert_eq!(desk.grants().len(), 1);
    desk.step(Event::GrantWritten(first[2].token));
    desk.step(Event::Undelivered(first[2].token));
    assert!(desk.grants().is_empty());
    assert_eq!(desk.poll(many).len(), 1);
}

#[test]
fn a_repeated_poll_waits_for_room_for_what_it_gets_again() {
    let mut desk = desk(u64::MAX, 200);
    desk.arrive(Priority::Normal, 3);
    let first = desk.poll(repeat).remove(0);
    desk.step(Event::GrantWritten(first.token));
    let other = desk.poll(|_| {}).remove(0);
    assert!(desk.poll(repeat).is_empty());
    desk.step(Event::GrantWritten(other.token));
    desk.step(Event::Delivered(other.token));
    let again = desk.grants();
    assert_eq!((again.len(), again[0].token), (1, first.token));
    // On its way twice, it counts twice.
    assert!(desk.poll(|_| {}).is_empty());
    desk.step(Event::Delivered(first.token));
    assert_eq!(desk.grants().len(), 1);
}
