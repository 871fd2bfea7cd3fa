//! Tests of the dispatcher as a whole: scripted ones by theme, random ones against invariants, and a naive
//! model that must decide the same.

mod batches;
mod forgetting;
mod invariants;
mod leases;
mod model;
mod outgoing;
mod random;
mod settles;

use std::sync::Arc;
use std::time::Duration;

use crate::bus::{Arrival, Identity};
use crate::clock::{Mono, Now, WallMs, after};
use crate::dispatcher::Dispatcher;
use crate::dispatcher::event::{
    Action, Change, ClosedBy, Decisions, Event, Extended, Grant, LaneStats, Poll, PollId, Report, RequestId,
    Settle, Verdict,
};
use crate::job::{Group, JobId, Priority, Processor, State, Token};
use crate::policy::{PolicyBook, PolicyPatch};

const NODE: u64 = 77;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn orders() -> Processor {
    Processor::parse("orders").unwrap()
}

fn id(n: u64) -> JobId {
    JobId(u128::from(n).to_be_bytes())
}

fn number(id: JobId) -> u64 {
    u64::try_from(u128::from_be_bytes(id.0)).unwrap()
}

fn arrival(n: u64, priority: Priority) -> Arrival {
    Arrival {
        id: id(n),
        processor: orders(),
        group: Group::default(),
        priority,
        wire_bytes: 100,
        sequence: n,
        accepted: WallMs(0),
        due: None,
        deadline: None,
        key: None,
        recovered: None,
    }
}

fn a_poll(n: u64) -> Poll {
    Poll {
        id: PollId(n),
        processor: orders(),
        worker: Arc::from("w"),
        in_process: false,
        slots: 1,
        max_jobs: None,
        max_bytes: None,
        priorities: [true; 3],
        until: Mono(u64::MAX),
        request_id: None,
        not_ready: None,
    }
}

fn token(sequence: u64) -> Token {
    Token {
        node: NODE,
        epoch: 3,
        sequence,
    }
}

fn numbers(grant: &Grant) -> Vec<u64> {
    grant.jobs.iter().map(|job| number(job.id)).collect()
}

/// A dispatcher with a clock, and a driver's manners: decisions become durable when the test says so.
struct Desk {
    dispatcher: Dispatcher,
    now: Now,
    /// Actions since they were last taken.
    actions: Vec<Action>,
    polls: u64,
    jobs: u64,
}

impl Desk {
    fn new() -> Self {
        Self::with(PolicyPatch::default())
    }

    /// With this policy for the processor `orders`.
    fn with(base: PolicyPatch) -> Self {
        let identity = Identity { node: NODE, epoch: 3 };
        Self {
            dispatcher: Dispatcher::new(identity, book(base)),
            now: Now {
                mono: Mono(1_000_000),
                wall: WallMs(1_700_000_000_000),
            },
            actions: Vec::new(),
            polls: 0,
            jobs: 0,
        }
    }

    fn step(&mut self, event: Event) {
        self.dispatcher.step(event, self.now, &mut self.actions);
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono = after(self.now.mono, time);
        self.now.wall.0 += u64::try_from(time.as_millis()).unwrap();
        self.step(Event::Tick);
    }

    /// `jobs` new ones in a lane; their numbers go on from the last.
    fn arrive(&mut self, priority: Priority, jobs: u64) {
        for _ in 0..jobs {
            self.jobs += 1;
            self.step(Event::Arrived(vec![arrival(self.jobs, priority)]));
        }
    }

    /// A poll that waits for ever unless the closure says otherwise.
    fn poll(&mut self, change: impl FnOnce(&mut Poll)) -> Vec<Grant> {
        self.polls += 1;
        let mut poll = a_poll(self.polls);
        change(&mut poll);
        self.step(Event::Poll(poll));
        self.grants()
    }

    /// What polls were granted since this was last asked.
    fn grants(&mut self) -> Vec<Grant> {
        let mut grants = Vec::new();
        self.actions.retain(|action| match action {
            Action::Answer { grants: fresh, .. } => {
                grants.extend(fresh.clone());
                false
            }
            _ => true,
        });
        grants
    }

    /// A batch, written and delivered.
    fn lease(&mut self) -> Grant {
        let grant = self.poll(|_| {}).pop().expect("a batch closes");
        self.step(Event::GrantWritten(grant.token));
        self.step(Event::Delivered(grant.token));
        grant
    }

    fn settle(&mut self, token: Token, outcomes: &[(u64, Report)], last: bool) -> Decisions {
        self.report(Settle {
            request: RequestId(1),
            token,
            outcomes: outcomes.iter().map(|&(n, report)| (id(n), report)).collect(),
            failed: false,
            crashed: false,
            last,
        })
    }

    fn fail(&mut self, token: Token, crashed: bool) -> Decisions {
        self.report(Settle {
            request: RequestId(1),
            token,
            outcomes: Vec::new(),
            failed: true,
            crashed,
            last: true,
        })
    }

    fn report(&mut self, settle: Settle) -> Decisions {
        self.step(Event::Settle(settle));
        self.decisions().pop().expect("a settle is decided")
    }

    fn decisions(&mut self) -> Vec<Decisions> {
        let mut decisions = Vec::new();
        self.actions.retain(|action| match action {
            Action::Decide(decided) => {
                decisions.push(decided.clone());
                false
            }
            _ => true,
        });
        decisions
    }

    fn commit(&mut self, decisions: &Decisions) {
        self.step(Event::Committed(changed(decisions)));
    }

    fn extend(&mut self, token: Token) -> Extended {
        self.step(Event::Extend {
            request: RequestId(2),
            token,
        });
        let at = self
            .actions
            .iter()
            .position(|action| matches!(action, Action::Extended(_)));
        match self.actions.remove(at.expect("a heartbeat is answered")) {
            Action::Extended(extended) => extended,
            other => panic!("{other:?}"),
        }
    }

    fn state(&self, n: u64) -> Option<State> {
        Some(self.dispatcher.job(id(n))?.state)
    }
}

fn book(base: PolicyPatch) -> PolicyBook {
    let mut book = PolicyBook::default();
    book.processors.entry(orders()).or_default().base = base;
    book
}

fn changed(decisions: &Decisions) -> Vec<JobId> {
    let changed = decisions.jobs.iter().filter(|decision| decision.change.is_some());
    changed.map(|decision| decision.job).collect()
}

fn verdicts(decisions: &Decisions) -> Vec<Option<Verdict>> {
    decisions.jobs.iter().map(|decision| decision.verdict).collect()
}

const OK: Report = Report::Ok;
const RETRY: Report = Report::Error {
    retryable: true,
    retry_after: None,
};
