//! The checker finds what it looks for: each test spoils a history that is fine, in one way.

use super::*;
use crate::history::{End, Held, Lane, Name, Outcome, Said, Submit, Verdict as Spoken, View};
use crate::order::{self, CHILDREN, Executed, LABEL, Order, Plan, STEADY};

/// A history as it is made, one millisecond per line.
#[derive(Default)]
struct History {
    lines: Vec<Line>,
    calls: u64,
}

fn data(n: u64, plan: Plan) -> Order {
    let pad = String::new();
    Order { n, plan, pad }
}

fn lane() -> Lane {
    Lane {
        processor: STEADY.to_owned(),
        priority: "NORMAL".to_owned(),
    }
}

fn hash_of(order: &Order) -> u64 {
    order::hash(order.json().get().as_bytes())
}

/// The one right end of a job, made under this lease.
fn end(order: &Order, lease: &str) -> End {
    let executed = Executed {
        n: order.n,
        hash: hash_of(order),
        lease: lease.to_owned(),
    };
    let children = if order.plan == Plan::Parent { CHILDREN } else { 0 };
    End {
        status: "processed_ok".to_owned(),
        reason: None,
        result: Some(serde_json::to_string(&executed).unwrap()),
        code: None,
        message: None,
        children: u32::try_from(children).unwrap(),
        finished_at: Some(7),
    }
}

impl History {
    fn push(&mut self, by: &str, event: Event) {
        let at = u64::try_from(self.lines.len()).unwrap();
        let by = by.to_owned();
        self.lines.push(Line { at, by, event });
    }

    fn call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    fn submit(&mut self, n: u64, plan: Plan, name: Name, clash: bool) -> u64 {
        let call = self.call();
        let submit = Submit {
            call,
            n,
            hash: hash_of(&data(n, plan)),
            plan,
            processor: STEADY.to_owned(),
            name,
            wait: false,
            clash,
        };
        self.push("callers", Event::Submit(submit));
        call
    }

    fn answer(&mut self, call: u64, id: &str, n: u64, end: Option<End>) {
        let job = View {
            id: id.to_owned(),
            n: Some(n),
            parent: None,
            end,
        };
        self.push("callers", Event::Answer { call, job });
    }

    fn accepted(&mut self, id: &str, n: u64) {
        let call = self.submit(n, Plan::Well, Name::Key(format!("key-{n}")), false);
        self.answer(call, id, n, None);
    }

    fn leased(&mut self, worker: &str, lease: &str, id: &str, order: &Order) {
        let call = self.call();
        let request = format!("{worker}-{call}");
        self.push(worker, Event::Poll { call, request });
        let held = Held {
            lease: lease.to_owned(),
            lane: lane(),
            jobs: vec![(id.to_owned(), order.n, hash_of(order), 1)],
        };
        self.push(
            worker,
            Event::Leased {
                call,
                batches: vec![held],
            },
        );
    }

    fn settle(&mut self, worker: &str, lease: &str, id: &str, of: Outcome) -> u64 {
        let call = self.call();
        let said = vec![Said {
            id: id.to_owned(),
            of,
        }];
        let lease = lease.to_owned();
        self.push(worker, Event::Settle { call, lease, said });
        call
    }

    fn settled(&mut self, worker: &str, call: u64, id: &str, is: &str) {
        let verdict = Spoken {
            id: id.to_owned(),
            is: is.to_owned(),
        };
        let verdicts = vec![verdict];
        self.push(worker, Event::Settled { call, verdicts });
    }

    fn worked(&mut self, worker: &str, lease: &str, id: &str, order: &Order) {
        self.leased(worker, lease, id, order);
        let call = self.settle(worker, lease, id, Outcome::Ok);
        self.settled(worker, call, id, "applied");
    }

    fn last_read(&mut self, id: &str, n: u64, parent: Option<&str>, end: Option<End>) {
        let call = self.call();
        let read = Event::Read {
            call,
            id: id.to_owned(),
            last: true,
        };
        self.push("callers", read);
        let job = View {
            id: id.to_owned(),
            n: Some(n),
            parent: parent.map(str::to_owned),
            end,
        };
        self.push("callers", Event::Answer { call, job });
    }

    /// Jobs 1 and 2, from their submit to the last read.
    fn fine() -> Self {
        let mut history = Self::default();
        for (id, n, lease) in [("a", 1, "t1"), ("b", 2, "t2")] {
            let order = data(n, Plan::Well);
            history.accepted(id, n);
            history.worked("w1", lease, id, &order);
            history.last_read(id, n, None, Some(end(&order, lease)));
        }
        history
    }

    /// A parent and its children.
    fn family(children: u64) -> Self {
        let mut history = Self::default();
        let parent = data(1, Plan::Parent);
        let call = history.submit(1, Plan::Parent, Name::None, false);
        history.answer(call, "a", 1, None);
        history.worked("w1", "t0", "a", &parent);
        history.last_read("a", 1, None, Some(end(&parent, "t0")));
        for (index, child) in (1..=children).zip(parent.children()) {
            let (id, lease) = (format!("child-{index}"), format!("t{index}"));
            history.worked("w1", &lease, &id, &child);
            history.last_read(&id, child.n, Some("a"), Some(end(&child, &lease)));
        }
        history
    }

    fn found(&self) -> Vec<Check> {
        let mut found: Vec<Check> = check(&self.lines)
            .findings
            .iter()
            .map(|finding| finding.check)
            .collect();
        found.dedup();
        found
    }

    /// The last line that fits, changed.
    fn spoil(&mut self, change: impl Fn(&mut Event) -> bool) {
        let changed = self.lines.iter_mut().rev().any(|line| change(&mut line.event));
        assert!(changed, "there is nothing to spoil");
    }
}

/// Changes the outcome that the last answer shows.
fn of_end(change: impl Fn(&mut End)) -> impl Fn(&mut Event) -> bool {
    move |event| match event {
        Event::Answer { job, .. } => job.end.as_mut().map(&change).is_some(),
        _ => false,
    }
}

#[test]
fn a_history_that_is_fine_is_found_fine_and_every_check_looks_at_something() {
    assert_eq!(History::fine().found(), []);
    let verdict = check(&History::fine().lines);
    assert_eq!(
        (verdict.acknowledged, verdict.results, verdict.deliveries),
        (2, 2, 2)
    );
    for (check, looked_at, _) in verdict.checks() {
        let absent = matches!(
            check,
            Check::Clash | Check::Unrefused | Check::Children | Check::Paused
        );
        assert_eq!(looked_at == 0, absent, "{check:?}");
    }
}

#[test]
fn a_lost_job_is_found() {
    let mut history = History::fine();
    history.accepted("c", 3);
    assert_eq!(history.found(), [Check::Kept]);
    assert_eq!(check(&history.lines).findings[0].subject, "c");
}

#[test]
fn a_job_that_never_ends_is_found() {
    let mut history = History::fine();
    history.accepted("c", 3);
    history.last_read("c", 3, None, None);
    assert_eq!(history.found(), [Check::Kept]);
}

#[test]
fn a_swapped_result_is_found() {
    let mut history = History::fine();
    let other = end(&data(1, Plan::Well), "t2").result;
    history.spoil(of_end(|end| end.result = other.clone()));
    assert_eq!(history.found(), [Check::Own]);
}

#[test]
fn an_answer_for_another_caller_is_found() {
    let mut history = History::fine();
    let call = history.submit(3, Plan::Well, Name::None, false);
    history.answer(call, "a", 1, None);
    assert!(history.found().contains(&Check::Own));
}

#[test]
fn a_changed_outcome_is_found() {
    let mut history = History::fine();
    history.last_read("b", 2, None, Some(end(&data(2, Plan::Well), "t2")));
    assert_eq!(history.found(), []);
    history.spoil(of_end(|end| end.finished_at = Some(8)));
    assert_eq!(history.found(), [Check::Stable]);
}

#[test]
fn a_job_that_comes_back_to_life_is_found() {
    let mut history = History::fine();
    let call = history.submit(2, Plan::Well, Name::Key("key-2".to_owned()), false);
    history.answer(call, "b", 2, None);
    assert_eq!(history.found(), [Check::Stable]);
}

#[test]
fn a_key_that_makes_a_second_job_is_found() {
    let mut history = History::fine();
    let order = data(2, Plan::Well);
    history.accepted("c", 2);
    history.worked("w1", "t3", "c", &order);
    history.last_read("c", 2, None, Some(end(&order, "t3")));
    assert_eq!(history.found(), [Check::Once]);
}

#[test]
fn an_id_that_is_not_the_callers_own_is_found() {
    let mut history = History::fine();
    let call = history.submit(1, Plan::Well, Name::Id("mine".to_owned()), false);
    history.answer(call, "a", 1, Some(end(&data(1, Plan::Well), "t1")));
    assert_eq!(history.found(), [Check::Once]);
}

#[test]
fn a_reused_key_that_is_accepted_or_refused_in_other_words_is_found() {
    for code in ["idempotency_key_reused", "unreachable", "id_reused"] {
        let mut history = History::fine();
        let call = history.submit(3, Plan::Well, Name::Key("key-1".to_owned()), true);
        let (code, effect) = (code.to_owned(), false);
        let wrong = code == "id_reused";
        history.push("callers", Event::Failed { call, code, effect });
        assert_eq!(history.found().contains(&Check::Clash), wrong);
    }
    let mut history = History::fine();
    let call = history.submit(3, Plan::Well, Name::Key("key-1".to_owned()), true);
    history.answer(call, "a", 1, Some(end(&data(1, Plan::Well), "t1")));
    assert_eq!(history.found(), [Check::Clash]);
}

#[test]
fn an_end_that_the_data_does_not_allow_is_found() {
    let mut history = History::fine();
    history.spoil(of_end(|end| {
        end.status = "batch_failed".to_owned();
        end.reason = Some("dead".to_owned());
        end.result = None;
        end.code = Some("crashed".to_owned());
    }));
    assert!(history.found().contains(&Check::Plan));
}

#[test]
fn a_waiter_that_is_answered_twice_is_found() {
    let mut history = History::fine();
    let call = history.submit(3, Plan::Well, Name::None, false);
    history.answer(call, "a", 3, None);
    history.answer(call, "a", 3, None);
    assert!(history.found().contains(&Check::Asked));
}

#[test]
fn a_refusal_without_a_cause_is_found() {
    let mut history = History::fine();
    let call = history.settle("w1", "t1", "a", Outcome::Ok);
    let (code, effect) = ("unknown_lease".to_owned(), false);
    history.push("w1", Event::Failed { call, code, effect });
    assert_eq!(history.found(), [Check::Unrefused]);
}

#[test]
fn a_lease_may_be_forgotten_only_if_the_power_went_after_it_was_given() {
    for (cut_first, verdict) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut history = History::fine();
        let order = data(1, Plan::Well);
        if cut_first {
            history.push("callers", Event::Cut);
        }
        history.leased("w2", "t3", "a", &order);
        if !cut_first {
            history.push("callers", Event::Cut);
        }
        let call = history.settle("w2", "t3", "a", Outcome::Ok);
        if verdict {
            history.settled("w2", call, "a", "unknown");
        } else {
            let (code, effect) = ("unknown_lease".to_owned(), false);
            history.push("w2", Event::Failed { call, code, effect });
        }
        let check = if verdict { Check::Fenced } else { Check::Unrefused };
        let expected = if cut_first { vec![check] } else { Vec::new() };
        assert_eq!(history.found(), expected);
    }
}

#[test]
fn data_that_changed_on_its_way_is_found() {
    let mut history = History::fine();
    history.spoil(|event| match event {
        Event::Leased { batches, .. } => {
            batches[0].jobs[0].2 ^= 1;
            true
        }
        _ => false,
    });
    assert_eq!(history.found(), [Check::Data]);
}

#[test]
fn a_result_of_a_worker_that_never_held_the_job_is_found() {
    let mut history = History::fine();
    history
        .lines
        .retain(|line| !matches!(&line.event, Event::Leased { batches, .. } if batches[0].lease == "t2"));
    assert_eq!(history.found(), [Check::Delivered]);
}

#[test]
fn a_result_that_its_worker_never_settled_is_found() {
    let mut history = History::fine();
    history.accepted("c", 3);
    let order = data(3, Plan::Well);
    history.leased("w1", "t3", "c", &order);
    history.last_read("c", 3, None, Some(end(&order, "t3")));
    assert_eq!(history.found(), [Check::Delivered]);
}

#[test]
fn a_repeated_token_is_found() {
    let mut history = History::fine();
    history.leased("w2", "t1", "a", &data(1, Plan::Well));
    assert_eq!(history.found(), [Check::Tokens]);
}

#[test]
fn a_poll_that_is_repeated_gets_its_token_again() {
    let mut history = History::fine();
    let polls: Vec<_> = history
        .lines
        .iter()
        .filter(|line| line.by == "w1")
        .take(2)
        .cloned()
        .collect();
    for mut line in polls {
        if let Event::Poll { call, .. } | Event::Leased { call, .. } = &mut line.event {
            *call += 100;
        }
        history.lines.push(line);
    }
    assert_eq!(history.found(), []);
}

#[test]
fn an_outcome_that_was_applied_and_does_not_count_is_found() {
    let mut history = History::fine();
    history.leased("w2", "t3", "a", &data(1, Plan::Well));
    let call = history.settle("w2", "t3", "a", Outcome::Ok);
    history.settled("w2", call, "a", "late");
    assert_eq!(history.found(), []);
    history.lines.pop();
    history.settled("w2", call, "a", "applied");
    assert_eq!(history.found(), [Check::Fenced]);
}

#[test]
fn a_try_that_counts_after_the_end_is_found() {
    let mut history = History::fine();
    history.leased("w2", "t3", "a", &data(1, Plan::Well));
    let call = history.settle("w2", "t3", "a", Outcome::RetryableError);
    history.settled("w2", call, "a", "applied");
    assert_eq!(history.found(), [Check::Fenced]);
}

#[test]
fn a_settle_that_was_lost_after_its_answer_is_found() {
    let mut history = History::fine();
    history.accepted("c", 3);
    let order = data(3, Plan::Well);
    history.worked("w1", "t3", "c", &order);
    history.worked("w1", "t4", "c", &order);
    history.last_read("c", 3, None, Some(end(&order, "t4")));
    assert_eq!(history.found(), [Check::Fenced]);
}

#[test]
fn a_duplicate_of_nothing_is_found() {
    let mut history = History::fine();
    let call = history.settle("w1", "t1", "a", Outcome::Ok);
    history.settled("w1", call, "a", "duplicate");
    assert_eq!(history.found(), []);
    history.leased("w2", "t3", "b", &data(2, Plan::Well));
    let call = history.settle("w2", "t3", "b", Outcome::Ok);
    history.settled("w2", call, "b", "duplicate");
    assert_eq!(history.found(), [Check::Fenced]);
}

#[test]
fn a_missing_child_is_found() {
    assert_eq!(History::family(CHILDREN).found(), []);
    assert_eq!(History::family(CHILDREN - 1).found(), [Check::Children]);
}

#[test]
fn children_of_a_parent_that_did_not_end_well_are_found() {
    let mut history = History::family(0);
    history.lines.truncate(2);
    let child = &data(1, Plan::Parent).children()[0];
    history.worked("w1", "t1", "child-1", child);
    history.last_read("child-1", child.n, Some("a"), Some(end(child, "t1")));
    history.last_read("a", 1, None, None);
    assert!(history.found().contains(&Check::Children));
}

#[test]
fn jobs_that_were_taken_together_are_judged_like_any() {
    let taken = |id: &str, n: u64, replayed: bool| {
        let mut history = History::fine();
        let call = history.submit(n, Plan::Well, Name::Key(format!("key-{n}")), false);
        let id = id.to_owned();
        history.push("callers", Event::Taken { call, id, replayed });
        history
    };
    assert_eq!(taken("a", 1, true).found(), []);
    assert!(
        taken("a", 2, true).found().contains(&Check::Once),
        "in each other's place"
    );
    assert_eq!(taken("c", 3, false).found(), [Check::Kept]);
    let mut twice = taken("a", 1, false);
    assert_eq!(twice.found(), []);
    let call = twice.submit(1, Plan::Well, Name::Key("key-1".to_owned()), false);
    let (id, replayed) = ("a".to_owned(), false);
    twice.push("callers", Event::Taken { call, id, replayed });
    assert_eq!(twice.found(), [Check::Once]);
}

/// A history in which the lane of all jobs was paused, and perhaps let go on.
fn paused(resumed: bool) -> History {
    let mut history = History::fine();
    for paused in [true, false] {
        if paused || resumed {
            let (call, lane) = (history.call(), lane());
            history.push("callers", Event::Pause { call, lane, paused });
            history.push("callers", Event::Paused { call });
        }
    }
    history
}

#[test]
fn a_batch_of_a_paused_lane_is_found() {
    for (resumed, found) in [(true, vec![]), (false, vec![Check::Paused])] {
        let mut history = paused(resumed);
        let order = data(3, Plan::Well);
        history.accepted("c", 3);
        history.worked("w1", "t3", "c", &order);
        history.last_read("c", 3, None, Some(end(&order, "t3")));
        assert_eq!(history.found(), found);
    }
}

#[test]
fn a_pause_that_a_restart_forgot_is_found() {
    for (resumed, there, found) in [
        (false, true, vec![]),
        (false, false, vec![Check::Paused]),
        (true, true, vec![Check::Paused]),
    ] {
        let mut history = paused(resumed);
        let call = history.call();
        let paused = if there { vec![lane()] } else { Vec::new() };
        history.push("callers", Event::Look { call });
        history.push("callers", Event::Looked { call, paused });
        assert_eq!(history.found(), found, "{resumed} {there}");
    }
}

#[test]
fn the_story_of_a_job_is_all_its_calls_and_no_others() {
    let history = History::fine();
    let story = story(&history.lines, "\"b\"");
    let of_b = history.lines.iter().filter(|line| line.at >= 8);
    assert_eq!(story, of_b.collect::<Vec<_>>());
    assert_eq!(LABEL, "n");
}
