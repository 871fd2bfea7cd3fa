//! Many jobs in one call: each is accepted or refused on its own, whatever becomes of the others.

use jitney::driver::Ended;
use jitney::driver::differs::Differs;
use jitney::driver::port::{Answer, Command, SubmitMany, Taken};
use jitney::driver::refusal::Refusal;
use jitney::job::{JobId, Processor, State, Status};

use crate::harness::{Faulty, Harness, Restarts, Step};
use crate::node::{Call, Node};
use crate::words::{Job, client_id, echo, ids, job, ok, seconds, settle, settle_some, worker};

type Entries = Vec<Result<Taken, Refusal>>;

/// A new job is one, a repeat is its first, a clash is refused; in the same call, and in the next.
pub(crate) fn each_of_many_is_recognised_on_its_own<H: Harness>() {
    let mut node = Node::<H>::start();
    let jobs = || {
        vec![
            job("1"),
            job("2").with_id(client_id(1)),
            job("3").with_idempotency_key(1),
            job("2").with_id(client_id(1)),
            job("4").with_id(client_id(1)),
            job("3").with_idempotency_key(1),
            job("4").with_idempotency_key(1),
        ]
    };
    let first = submit_many(&mut node, jobs());
    let [
        Ok(plain),
        Ok(named),
        Ok(keyed),
        Ok(again),
        Err(Refusal::IdReused(_)),
        Ok(keyed_again),
        Err(clash),
    ] = &first[..]
    else {
        panic!("{first:?}");
    };
    assert!(matches!(clash, Refusal::IdempotencyKeyReused(_)), "{clash:?}");
    assert!(!plain.replayed && !named.replayed && !keyed.replayed);
    assert_eq!((again.replayed, again.id), (true, client_id(1)));
    assert_eq!((keyed_again.replayed, keyed_again.id), (true, keyed.id));
    assert_eq!(node.info().usage.unsettled, 3);

    let batch = node.lease_one(worker("w"));
    assert_eq!(ids(&batch), [plain.id, named.id, keyed.id], "in their order");
    assert_eq!(
        node.settle(settle_some(batch.token, vec![ok(named.id, "1")])),
        ["applied"]
    );
    let second = submit_many(&mut node, jobs());
    let seen: Vec<_> = second
        .iter()
        .map(|entry| {
            entry
                .as_ref()
                .map(|taken| (taken.status, taken.state, taken.replayed))
        })
        .collect();
    let done = (Status::ProcessedOk, State::Done, true);
    let running = (Status::Submitted, State::Running, true);
    assert_eq!(
        seen,
        [
            Ok((Status::Submitted, State::Queued, false)),
            Ok(done),
            Ok(running),
            Ok(done),
            Err(&Refusal::IdReused(Differs::of(&["data"]))),
            Ok(running),
            Err(&Refusal::IdempotencyKeyReused(Differs::of(&["data"]))),
        ]
    );
    assert_ne!(second[0].as_ref().unwrap().id, plain.id);
}

/// A submit of one and one among many that meet in flight are one job.
pub(crate) fn one_and_one_of_many_that_meet_in_flight_are_one_job<H: Harness>() {
    let mut node = Node::<H>::start();
    let one = |data: &str, id| Command::Submit(Box::new(job(data).with_id(client_id(id)).0));
    let first = node.post(one("1", 1));
    let jobs = vec![
        job("1").with_id(client_id(1)),
        job("2").with_id(client_id(2)),
        job("other").with_id(client_id(1)),
    ];
    let many = node.post(command(jobs, None));
    let second = node.post(one("2", 2));
    let clash = node.post(one("other", 2));
    node.run();
    assert!(!node.submitted(first).unwrap().unwrap().replayed);
    let entries = entries(&mut node, many);
    assert!(entries[0].as_ref().unwrap().replayed);
    assert!(!entries[1].as_ref().unwrap().replayed);
    assert_eq!(entries[2], Err(Refusal::IdReused(Differs::of(&["data"]))));
    let second = node.submitted(second).unwrap().unwrap();
    assert!(second.replayed);
    assert_eq!(
        (second.job.id, second.job.state, second.job.submitted_at.is_some()),
        (client_id(2), State::Queued, true)
    );
    let clash = node.submitted(clash).unwrap().expect_err("other content");
    assert!(matches!(clash, Refusal::IdReused(_)), "{clash:?}");
    assert_eq!(ids(&node.lease_one(worker("w"))), [client_id(1), client_id(2)]);
}

/// A limit that is reached in the middle refuses the rest, and what is known already stays welcome.
pub(crate) fn a_limit_in_the_middle_of_many_refuses_the_rest<H: Harness>() {
    let mut node = Node::<H>::start_limited(|limits| limits.jobs_max = 2);
    let jobs = vec![
        job("1").with_id(client_id(1)),
        job("2"),
        job("3"),
        job("1").with_id(client_id(1)),
    ];
    let codes = codes(&submit_many(&mut node, jobs));
    assert_eq!(codes, ["", "", "queue_full", ""]);

    let mut node = Node::<H>::start_limited(|limits| limits.keys_max = 2);
    let jobs = vec![
        job("1").with_id(client_id(1)),
        job("2"),
        job("3").with_idempotency_key(3),
        job("4").with_idempotency_key(4),
        job("5"),
    ];
    assert_eq!(codes_of(&mut node, jobs), ["", "", "", "keys_full", ""]);

    let mut node = Node::<H>::start_limited(|limits| limits.processors_max = 2);
    let of = |name: &str| {
        let mut job = job("1");
        job.0.processor = Processor::parse(name).unwrap();
        job
    };
    let jobs = ["orders", "a", "b", "a", "orders"].map(of).to_vec();
    assert_eq!(codes_of(&mut node, jobs), ["", "", "too_many_processors", "", ""]);
    assert_eq!(node.info().usage.unsettled, 4);
}

/// Many that wait are answered when all are done, each with its own end; each takes a waiter's place meanwhile.
pub(crate) fn many_that_wait_are_answered_when_all_are_done<H: Harness>() {
    let mut node = Node::<H>::start_limited(|limits| limits.waiters_max = 3);
    let known = node.submit(job("known").with_id(client_id(9)));
    let jobs = vec![job("1"), job("known").with_id(client_id(9)), job("2"), job("3")];
    let call = node.call(command(jobs, Some(seconds(60))));
    assert_eq!(node.info().waiters, 3);
    assert_eq!(
        node.info().usage.unsettled,
        3,
        "the fourth found no place and is not stored"
    );
    let batch = node.lease_one(worker("w"));
    let last = batch.jobs[2].id;
    let outcomes = vec![ok(known, "\"known\""), ok(batch.jobs[1].id, "\"1\"")];
    node.settle(settle_some(batch.token, outcomes));
    assert!(node.answer(call).is_none());
    assert_eq!(node.info().waiters, 1);
    node.settle(settle(batch.token, vec![ok(last, "\"2\"")]));
    let entries = entries(&mut node, call);
    assert_eq!(codes(&entries), ["", "", "", "too_many_waiters"]);
    for taken in entries.iter().flatten() {
        assert_eq!((taken.status, taken.state), (Status::ProcessedOk, State::Done));
    }
    assert_eq!(node.info().waiters, 0);
    let ids: Vec<_> = entries.iter().flatten().map(|taken| taken.id).collect();
    assert_eq!(results(&mut node, ids), ["\"1\"", "\"known\"", "\"2\""]);
}

/// The time is up: the answer says where each job is. The jobs go on.
pub(crate) fn many_whose_time_is_up_are_answered_as_they_are<H: Harness>() {
    let mut node = Node::<H>::start();
    let call = node.call(command(vec![job("1"), job("2"), job("3")], Some(seconds(10))));
    let batch = node.lease_one(worker("w").max_jobs(2));
    node.settle(settle_some(batch.token, vec![ok(batch.jobs[0].id, "1")]));
    node.advance(seconds(9));
    assert!(node.answer(call).is_none());
    node.advance(seconds(1));
    let states: Vec<_> = entries(&mut node, call)
        .iter()
        .flatten()
        .map(|taken| taken.state)
        .collect();
    assert_eq!(states, [State::Done, State::Running, State::Queued]);
    assert_eq!(node.info().waiters, 0);

    // A caller that left gives all of its places back.
    let call = node.call(command(vec![job("4"), job("5")], Some(seconds(10))));
    assert_eq!(node.info().waiters, 2);
    node.hang_up(call);
    assert_eq!(node.info().waiters, 0);
    node.advance(seconds(20));
    assert!(node.answer(call).is_none());
}

/// A stop: nobody waits for what no worker is at; what a worker is at is waited for, within the grace.
pub(crate) fn many_that_wait_through_a_stop_wait_for_leased_jobs_only<H: Harness>() {
    let mut node = Node::<H>::start();
    let leased = node.call(command(vec![job("1"), job("2")], Some(seconds(60))));
    let batch = node.lease_one(worker("w"));
    let queued = node.call(command(vec![job("3"), job("4")], Some(seconds(60))));
    node.notify(jitney::driver::port::Inbound::Stop { grace: seconds(10) });
    let states: Vec<_> = entries(&mut node, queued)
        .iter()
        .flatten()
        .map(|taken| taken.state)
        .collect();
    assert_eq!(states, [State::Queued, State::Queued]);
    let late = node.call(command(vec![job("5")], None));
    assert!(matches!(
        node.answer(late),
        Some(Answer::Refused(Refusal::Draining))
    ));
    assert!(node.answer(leased).is_none());
    node.settle(settle_some(batch.token, vec![ok(batch.jobs[0].id, "1")]));
    assert!(node.answer(leased).is_none());
    node.advance(seconds(10));
    let states: Vec<_> = entries(&mut node, leased)
        .iter()
        .flatten()
        .map(|taken| taken.state)
        .collect();
    assert_eq!(states, [State::Done, State::Running]);
    assert_eq!(node.ended(), Some(&Ended::Stopped));
}

/// More jobs than one append takes come back in their order, each once.
pub(crate) fn more_jobs_than_one_append_takes_keep_their_order<H: Harness>() {
    let mut node = Node::<H>::start();
    let jobs = (0..2_500).map(|n| job(n.to_string())).collect();
    let taken: Vec<JobId> = submit_many(&mut node, jobs)
        .into_iter()
        .map(|entry| entry.unwrap().id)
        .collect();
    let mut leased = Vec::new();
    while leased.len() < taken.len() {
        let batch = node.lease_one(worker("w").max_jobs(1_000));
        leased.extend(ids(&batch));
        node.settle(echo(&batch));
    }
    assert_eq!(leased, taken);
}

/// What was accepted among many is there after the process died.
pub(crate) fn accepted_of_many_is_there_after_a_restart<H: Restarts>() {
    let mut node = Node::<H>::start();
    let jobs = || {
        vec![
            job("1").with_id(client_id(1)),
            job("2").with_idempotency_key(2),
            job("3"),
        ]
    };
    let first = submit_many(&mut node, jobs());
    node.kill_and_restart();
    let again = submit_many(&mut node, jobs());
    let replayed: Vec<_> = again
        .iter()
        .map(|entry| entry.as_ref().unwrap().replayed)
        .collect();
    assert_eq!(replayed, [true, true, false]);
    let of = |entries: &Entries, place: usize| entries[place].as_ref().unwrap().id;
    assert_eq!(
        ids(&node.lease_one(worker("w"))),
        [of(&first, 0), of(&first, 1), of(&first, 2), of(&again, 2)]
    );
}

/// Lines of a body wait for places, in their order, and leave a quarter of them to others.
pub(crate) fn many_that_are_patient_wait_for_places<H: Harness>() {
    let mut node = Node::<H>::start_limited(|limits| limits.waiters_max = 8);
    let first = node.call(patient(3));
    let second = node.call(patient(3));
    let third = node.call(patient(3));
    let fourth = node.call(patient(1));
    assert_eq!((node.info().waiters, node.info().usage.unsettled), (6, 6));
    let single = node.submit_and_wait(job("2").wait(seconds(10)));
    assert!(node.submitted(single).is_none());
    // Who is not patient is refused beyond the last place.
    let entries_of = node.call(command(vec![job("3"), job("4")], Some(seconds(5))));
    node.advance(seconds(5));
    let refused = codes(&entries(&mut node, entries_of));
    assert_eq!(refused, ["", "too_many_waiters"]);

    let batch = node.lease_one(worker("w").max_jobs(3));
    assert_eq!(node.settle(echo(&batch)), ["applied"; 3]);
    assert_eq!(codes(&entries(&mut node, first)), ["", "", ""]);
    // Three of the second and the single one: the third would leave no quarter.
    assert_eq!(node.info().waiters, 4);
    node.advance(seconds(5));
    assert!(node.submitted(single).is_some());
    assert_eq!(node.info().waiters, 6);
    assert!(node.answer(third).is_none());
    // One that is gone is not submitted, and holds up none.
    let before = node.info().usage.unsettled;
    node.hang_up(fourth);
    node.advance(seconds(50));
    assert_eq!(codes(&entries(&mut node, second)), ["", "", ""]);
    assert_eq!(node.info().usage.unsettled, before);
    assert_eq!(node.info().waiters, 3);
}

/// A call with more jobs than there are places waits until all are free; one whose caller may be gone, and a stop, wait
/// for none.
pub(crate) fn many_that_are_patient_are_answered_in_the_end<H: Harness>() {
    let mut node = Node::<H>::start_limited(|limits| limits.waiters_max = 4);
    let small = node.call(patient(1));
    let large = node.call(patient(6));
    let leaves = node.call(patient(2));
    let last = node.call(patient(2));
    assert_eq!(node.info().waiters, 1);
    node.hurry(leaves, seconds(5));
    let taken = entries(&mut node, leaves);
    assert!(
        taken
            .iter()
            .all(|taken| taken.as_ref().is_ok_and(|taken| taken.state == State::Queued))
    );
    assert_eq!((node.info().waiters, node.info().usage.unsettled), (1, 3));
    node.advance(seconds(60));
    assert_eq!(codes(&entries(&mut node, small)), [""]);
    assert_eq!(node.info().waiters, 4);
    node.stop(seconds(1));
    let refused = node.peek_refusal(last);
    assert_eq!(refused, Some(Refusal::Draining));
    let over = ["", "", "", "", "too_many_waiters", "too_many_waiters"];
    assert_eq!(codes(&entries(&mut node, large)), over);
}

/// A job that no append can hold is refused with the limit, and its neighbours are not.
pub(crate) fn one_of_many_that_no_append_can_hold_is_refused_alone<H: Faulty>() {
    let mut node = Node::<H>::start();
    let limit = node.harness.append_bytes_max();
    let too_large = vec![b'x'; usize::try_from(limit).unwrap()];
    let jobs = vec![job("1"), job(&too_large), job("3")];
    assert_eq!(codes_of(&mut node, jobs), ["", "body_too_large", ""]);
    assert_eq!(node.lease_one(worker("w")).jobs.len(), 2);
}

/// Many that find no room on the disk are refused, and bind nothing: sent again they are new.
pub(crate) fn many_that_found_no_room_are_new_when_they_come_again<H: Faulty>() {
    let mut node = Node::<H>::start();
    let jobs = || vec![job("1").with_id(client_id(1)), job("2")];
    node.harness.hold(Step::Write);
    node.harness.fail_next_write_for_want_of_room();
    let many = node.call(command(jobs(), Some(seconds(60))));
    let repeat = node.call(Command::Submit(Box::new(job("1").with_id(client_id(1)).0)));
    node.harness.release();
    node.run();
    let refused = entries(&mut node, many);
    assert_eq!(codes(&refused), ["disk_full", "disk_full"]);
    let repeat = node.submitted(repeat).expect("answered");
    assert_eq!(repeat.expect_err("it shares its fate"), Refusal::DiskFull);
    assert_eq!((node.info().waiters, node.info().usage.unsettled), (0, 0));
    node.advance(seconds(60));
    let again = submit_many(&mut node, jobs());
    assert!(
        again
            .iter()
            .all(|entry| entry.as_ref().is_ok_and(|taken| !taken.replayed))
    );
}

/// No entry says that its job is accepted before that is durable, and after a failed sync none does.
pub(crate) fn many_are_accepted_after_their_sync_or_not_at_all<H: Faulty>() {
    let mut node = Node::<H>::start();
    node.harness.hold(Step::Sync);
    let call = node.call(command(vec![job("1"), job("2")], None));
    assert!(node.harness.is_held());
    assert!(node.answer(call).is_none());
    node.harness.release();
    node.run();
    assert_eq!(codes(&entries(&mut node, call)), ["", ""]);

    let waiting = node.call(command(vec![job("3")], Some(seconds(60))));
    node.harness.fail_next_sync();
    let call = node.call(command(vec![job("4")], None));
    assert_eq!(node.ended(), Some(&Ended::Poisoned));
    assert_eq!(codes(&entries(&mut node, call)), ["outcome_unknown"]);
    let waiting = node.answer(waiting);
    assert!(
        matches!(waiting, Some(Answer::Refused(Refusal::OutcomeUnknown))),
        "{waiting:?}"
    );
}

fn command(jobs: Vec<Job>, wait: Option<std::time::Duration>) -> Command {
    let jobs = jobs.into_iter().map(|job| job.0).collect();
    Command::SubmitMany(Box::new(SubmitMany {
        jobs,
        wait,
        patient: false,
    }))
}

/// So many jobs that wait for a minute, and would rather wait for places than be refused.
fn patient(count: usize) -> Command {
    Command::SubmitMany(Box::new(SubmitMany {
        jobs: vec![job("1").0; count],
        wait: Some(seconds(60)),
        patient: true,
    }))
}

fn entries<H: Harness>(node: &mut Node<H>, call: Call) -> Entries {
    match node.answer(call) {
        Some(Answer::SubmittedMany(entries)) => entries,
        other => panic!("no answer to many: {other:?}"),
    }
}

fn submit_many<H: Harness>(node: &mut Node<H>, jobs: Vec<Job>) -> Entries {
    let call = node.call(command(jobs, None));
    entries(node, call)
}

fn codes_of<H: Harness>(node: &mut Node<H>, jobs: Vec<Job>) -> Vec<&'static str> {
    codes(&submit_many(node, jobs))
}

/// The code of each refusal; empty for what was taken.
fn codes(entries: &Entries) -> Vec<&'static str> {
    entries
        .iter()
        .map(|entry| entry.as_ref().err().map_or("", Refusal::code))
        .collect()
}

/// The results of jobs that must all have ended well.
fn results<H: Harness>(node: &mut Node<H>, ids: Vec<JobId>) -> Vec<String> {
    let call = node.call(Command::GetMany(ids));
    let Some(Answer::Jobs(jobs)) = node.answer(call) else {
        panic!("a read is answered at once");
    };
    jobs.into_iter()
        .map(|job| {
            let result = job.unwrap().result.expect("it ended well");
            String::from_utf8(result.bytes.to_vec()).unwrap()
        })
        .collect()
}
