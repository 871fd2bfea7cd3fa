//! Child jobs: no id of theirs is another job's, and who meets one in flight hears what became of it.

use jitney::driver::child_id;
use jitney::driver::differs::Differs;
use jitney::driver::port::{Command, SettleIs};
use jitney::driver::refusal::Refusal;
use jitney::job::{JobId, Priority, Token};

use crate::harness::{Faulty, Harness, Restarts, Step, limits};
use crate::node::Node;
use crate::words::{Job, client_id, ids, job, ok_with_children, seconds, settle, worker};

/// The name of the first parent of a test.
fn parent(data: &str) -> Job {
    job(data).priority(Priority::Realtime).with_id(client_id(1))
}

/// Leases the parent, which is REALTIME, before all that waits.
fn lease_parent<H: Harness>(node: &mut Node<H>, parent: JobId) -> Token {
    let batch = node.lease_one(worker("w"));
    assert_eq!(ids(&batch), [parent]);
    batch.token
}

/// Settles the parent with children of this data; their ids, as the settle's answer lists them.
fn settle_with<H: Harness>(node: &mut Node<H>, token: Token, parent: JobId, data: &[&str]) -> Vec<JobId> {
    let outcome = ok_with_children(parent, "1", data);
    let answer = node.settle_whole(settle(token, vec![outcome]));
    match &answer.results.as_ref().expect("the lease is known")[0].is {
        SettleIs::Applied { children } => children.clone(),
        other => panic!("not applied: {other:?}"),
    }
}

/// The id that the first child of the first job of this start would have, were it nobody's.
fn first_child(token: Token, parent: JobId) -> JobId {
    child_id(parent, (u64::from(token.epoch) << 40) + 1, 0, 0)
}

fn assert_waiting<H: Harness>(node: &mut Node<H>, wanted: &[(JobId, &str)]) {
    let batches = node.lease(worker("all").slots(10));
    let jobs = batches.iter().flat_map(|batch| &batch.jobs);
    let mut waiting: Vec<_> = jobs
        .map(|job| (job.id, String::from_utf8(job.payload.bytes.to_vec()).unwrap()))
        .collect();
    let mut wanted: Vec<_> = wanted
        .iter()
        .map(|(id, data)| (*id, (*data).to_owned()))
        .collect();
    waiting.sort();
    wanted.sort();
    assert_eq!(waiting, wanted);
}

/// A parent of a client's own id comes again after its time, while its first children still wait: the second run's
/// children are jobs of their own.
pub(crate) fn a_parent_that_comes_again_has_other_children<H: Harness>() {
    let mut node = Node::<H>::start();
    let id = node.submit(parent("1"));
    let token = lease_parent(&mut node, id);
    let first = settle_with(&mut node, token, id, &["2", "3"]);
    assert_eq!(first[0], first_child(token, id));
    node.advance(limits().key_ttl + seconds(1));
    assert!(
        !node.try_submit(parent("4")).unwrap().replayed,
        "its time is over"
    );
    let token = lease_parent(&mut node, id);
    let second = settle_with(&mut node, token, id, &["5", "6"]);
    let all = [
        (first[0], "2"),
        (first[1], "3"),
        (second[0], "5"),
        (second[1], "6"),
    ];
    assert_waiting(&mut node, &all);
}

/// A client's job has the id that a child would have: the child is given another.
pub(crate) fn a_childs_id_that_is_taken_is_made_anew<H: Harness>() {
    let mut node = Node::<H>::start();
    let id = node.submit(parent("1"));
    let token = lease_parent(&mut node, id);
    let taken = first_child(token, id);
    assert_eq!(node.submit(job("2").with_id(taken)), taken);
    let children = settle_with(&mut node, token, id, &["3", "4"]);
    assert!(!children.contains(&taken), "{children:?}");
    assert_eq!(node.get(children[0]).unwrap().parent, Some(id));
    assert_waiting(&mut node, &[(taken, "2"), (children[0], "3"), (children[1], "4")]);
}

/// The same over a restart: what ended is known as well.
pub(crate) fn a_childs_id_that_is_taken_is_made_anew_after_a_restart<H: Restarts>() {
    let mut node = Node::<H>::start();
    let id = node.submit(parent("1"));
    let token = lease_parent(&mut node, id);
    let taken = first_child(token, id);
    node.submit(job("2").with_id(taken));
    let other = node.lease_one(worker("other"));
    assert_eq!(ids(&other), [taken]);
    assert_eq!(node.settle(crate::words::echo(&other)), ["applied"]);
    node.kill_and_restart();
    let children = settle_with(&mut node, token, id, &["3"]);
    assert_ne!(children[0], taken);
    node.kill_and_restart();
    assert_eq!(node.result(taken), b"2");
    assert_waiting(&mut node, &[(children[0], "3")]);
}

/// A submit whose id is that of a child whose commit is under way waits for that commit, and hears that the id is
/// taken, or that there was no room.
pub(crate) fn a_submit_that_meets_a_child_in_flight_is_answered<H: Faulty>() {
    for (room, wanted) in [
        (true, Refusal::IdReused(Differs::default())),
        (false, Refusal::DiskFull),
    ] {
        let mut node = Node::<H>::start();
        let id = node.submit(parent("1"));
        let token = lease_parent(&mut node, id);
        node.harness.hold(Step::Write);
        if !room {
            node.harness.fail_next_write_for_want_of_room();
        }
        let outcome = ok_with_children(id, "1", &["2"]);
        let settling = node.call(Command::Settle(settle(token, vec![outcome])));
        let clash = node.call(Command::Submit(Box::new(
            job("3").with_id(first_child(token, id)).0,
        )));
        assert!(node.submitted(clash).is_none(), "it is not known yet");
        node.harness.release();
        node.run();
        assert_eq!(node.settled(settling).expect("answered").is_ok(), room);
        let answer = node.submitted(clash).expect("answered");
        assert_eq!(answer.expect_err("they share its fate"), wanted);
    }
}
