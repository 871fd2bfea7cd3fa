//! Random traces: arrivals of every size, group and lane, polls, workers that settle late, twice, wrongly or
//! never, writes that fail, policies that change, restarts, drains. After every step the dispatcher must have
//! decided as the naive model did (20) and keep the invariants of `invariants.rs`; at the end every job ends.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::invariants::Watch;
use super::model::Model;
use super::*;
use crate::policy::{GroupBy, LaneShare};

/// What happens next. Numbers pick among what is there, modulo its count.
#[derive(Clone, Debug)]
enum Op {
    Arrive {
        lane: usize,
        group: usize,
        bytes: u32,
        jobs: u64,
        due: u64,
    },
    Poll(Ask),
    PollGone(usize),
    Pass(u64),
    JumpWall(u64),
    Written {
        fails: bool,
    },
    Delivered {
        at: usize,
        lost: bool,
    },
    Settle(Word),
    Extend(usize),
    Durable {
        fails: bool,
    },
    Policies(usize),
    Pause {
        lane: usize,
        other: bool,
        paused: bool,
    },
    Stalled(bool),
    Gone(usize),
    Restart,
    Drain,
}

#[derive(Clone, Debug)]
struct Ask {
    other: bool,
    worker: u8,
    slots: u32,
    max_jobs: Option<u32>,
    max_bytes: Option<u64>,
    lanes: [bool; 3],
    wait: u64,
    request: Option<u8>,
    not_ready: bool,
}

#[derive(Clone, Debug)]
struct Word {
    lease: usize,
    /// Which member (or, beyond them, which job at all), and what is said.
    outcomes: Vec<(usize, Report)>,
    failed: bool,
    crashed: bool,
    last: bool,
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = prop_oneof![4 => 1..200_u32, 1 => 200..2000_u32];
    let due = prop_oneof![9 => Just(0), 1 => 1..2000_u64];
    let time = prop_oneof![4 => 0..6_u64, 2 => 6..300_u64, 1 => 1000..40_000_u64];
    prop_oneof![
        12 => (0..3_usize, 0..3_usize, bytes, 1..9_u64, due)
            .prop_map(|(lane, group, bytes, jobs, due)| Op::Arrive { lane, group, bytes, jobs, due }),
        10 => ask().prop_map(Op::Poll),
        1 => (0..9_usize).prop_map(Op::PollGone),
        7 => time.prop_map(Op::Pass),
        1 => (0..4_000_000_u64).prop_map(Op::JumpWall),
        9 => prop::bool::weighted(0.1).prop_map(|fails| Op::Written { fails }),
        5 => (0..4_usize, prop::bool::weighted(0.2)).prop_map(|(at, lost)| Op::Delivered { at, lost }),
        12 => word().prop_map(Op::Settle),
        3 => (0..6_usize).prop_map(Op::Extend),
        12 => prop::bool::weighted(0.1).prop_map(|fails| Op::Durable { fails }),
        1 => (0..6_usize).prop_map(Op::Policies),
        2 => (0..3_usize, prop::bool::weighted(0.1), prop::bool::weighted(0.4))
            .prop_map(|(lane, other, paused)| Op::Pause { lane, other, paused }),
        1 => prop::bool::weighted(0.4).prop_map(Op::Stalled),
        1 => (0..50_usize).prop_map(Op::Gone),
        1 => Just(Op::Restart),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let lanes = prop_oneof![
        5 => Just([true; 3]),
        1 => prop::array::uniform3(any::<bool>()),
    ];
    (
        (prop::bool::weighted(0.1), 0..3_u8, 1..4_u32),
        prop::option::weighted(0.4, 1..12_u32),
        prop::option::weighted(0.2, 100..900_u64),
        lanes,
        prop_oneof![0..20_u64, Just(60_000_u64)],
        prop::option::weighted(0.3, 0..2_u8),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |((other, worker, slots), max_jobs, max_bytes, lanes, wait, request, not_ready)| Ask {
                other,
                worker,
                slots,
                max_jobs,
                max_bytes,
                lanes,
                wait,
                request,
                not_ready,
            },
        )
}

fn word() -> impl Strategy<Value = Word> {
    let report = prop_oneof![
        4 => Just(OK),
        2 => (any::<bool>(), prop::option::of(0..3000_u64)).prop_map(|(retryable, wait)| Report::Error {
            retryable,
            retry_after: wait.map(ms),
        }),
        1 => Just(Report::Release),
        1 => Just(Report::Refused),
    ];
    let lease = prop_oneof![5 => 0..3_usize, 1 => 3..20_usize];
    let flags = (prop::bool::weighted(0.1), any::<bool>(), any::<bool>());
    (lease, prop::collection::vec((0..12_usize, report), 0..9), flags).prop_map(
        |(lease, outcomes, (failed, crashed, last))| Word {
            lease,
            outcomes: if failed { Vec::new() } else { outcomes },
            failed,
            crashed,
            last: last || failed,
        },
    )
}

fn groups() -> [Group; 3] {
    ["a", "b", "c"].map(|name| Group::parse(name).unwrap())
}

fn policies(which: usize) -> PolicyBook {
    let small = PolicyPatch {
        max_jobs: Some(5),
        max_bytes: Some(600),
        lease: Some(ms(2000)),
        batch_timeout: Some(ms(9000)),
        lower_lane_share: Some(LaneShare { above: Some(3) }),
        max_attempts: Some(3),
        backoff: Some(ms(40)),
        ..PolicyPatch::default()
    };
    let mut book = book(if which == 0 { PolicyPatch::default() } else { small });
    let written = book.processors.get_mut(&orders()).unwrap();
    if which == 4 {
        written.base.group_by = Some(GroupBy::Key);
        written.base.realtime_reserve = Some(2);
    }
    if which == 5 {
        written.priorities[2].group_by = Some(GroupBy::Key);
    }
    if which == 2 || which == 3 {
        let own = PolicyPatch {
            max_jobs: Some(12),
            min_jobs: Some(12),
            idle_flush: Some(false),
            max_delay: Some(ms(30)),
            max_crashes: Some(1),
            ..PolicyPatch::default()
        };
        written.groups.insert(groups()[which - 2].clone(), own);
    }
    if which == 3 {
        written.base.lower_lane_share = Some(LaneShare { above: None });
    }
    if which == 5 {
        book.all.base.group_by = Some(GroupBy::Group);
    }
    book
}

/// A driver, its workers and its disk, played by the trace.
struct World {
    dispatcher: Dispatcher,
    model: Model,
    now: Now,
    epoch: u32,
    book: PolicyBook,
    /// Lanes that are paused, also over a restart.
    paused: BTreeSet<(Processor, Priority)>,
    watch: Watch,
    polls: Vec<PollId>,
    polled: u64,
    jobs: u64,
    /// Granted, the dispatch record not written yet.
    unwritten: VecDeque<Token>,
    /// Written, on their way to the worker.
    outgoing: Vec<Token>,
    /// All that were ever granted, with their jobs.
    granted: Vec<(Token, Vec<JobId>)>,
    deciding: VecDeque<Decisions>,
}

impl World {
    fn new(which: usize) -> Self {
        let identity = Identity { node: NODE, epoch: 3 };
        let book = policies(which);
        Self {
            dispatcher: Dispatcher::new(identity, book.clone()),
            model: Model::new(identity, book.clone()),
            now: Now {
                mono: Mono(1_000_000),
                wall: WallMs(1_700_000_000_000),
            },
            epoch: 3,
            book,
            paused: BTreeSet::new(),
            watch: Watch::default(),
            polls: Vec::new(),
            polled: 0,
            jobs: 0,
            unwritten: VecDeque::new(),
            outgoing: Vec::new(),
            granted: Vec::new(),
            deciding: VecDeque::new(),
        }
    }

    fn step(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.watch.before(&self.dispatcher, &event);
        self.dispatcher.step(event.clone(), self.now, &mut actions);
        let expected = self.model.step(&event, self.now);
        assert_eq!(actions, expected, "{event:?}");
        assert_eq!(self.dispatcher.next_timer(), self.model.next_timer(), "{event:?}");
        self.watch
            .after(&self.dispatcher, &self.book, self.now, &event, &actions);
        for action in actions {
            match action {
                Action::Answer { poll, grants } => {
                    self.polls.retain(|&other| other != poll);
                    for grant in grants {
                        let ids = grant.jobs.iter().map(|job| job.id).collect();
                        self.granted.push((grant.token, ids));
                        if grant.fresh {
                            self.unwritten.push_back(grant.token);
                        } else {
                            self.outgoing.push(grant.token);
                        }
                    }
                }
                Action::Decide(decided) if !changed(&decided).is_empty() => self.deciding.push_back(decided),
                Action::Decide(_) | Action::Extended(_) | Action::UnknownLease(_) => {}
            }
        }
    }

    fn change_policies(&mut self, which: usize) {
        let before = std::mem::replace(&mut self.book, policies(which));
        // What is written for all processors changes with the whole book.
        if which.is_multiple_of(2) || before.all != self.book.all {
            return self.step(Event::Policies(self.book.clone()));
        }
        // One processor after the other comes to the same.
        let book = self.book.processors.clone();
        let names: BTreeSet<_> = before
            .processors
            .into_keys()
            .chain(book.keys().cloned())
            .collect();
        for name in names {
            let written = book.get(&name).cloned().map(Box::new);
            self.step(Event::Policy(name, written));
        }
    }

    fn play(&mut self, op: Op) {
        match op {
            Op::Arrive { .. } => self.arrive(&op),
            Op::Poll(ask) => self.ask(&ask),
            Op::PollGone(at) => {
                if !self.polls.is_empty() {
                    let poll = self.polls.remove(at % self.polls.len());
                    self.step(Event::PollGone(poll));
                }
            }
            Op::Pass(time) => {
                self.now.mono = after(self.now.mono, ms(time));
                self.now.wall.0 += time;
                self.step(Event::Tick);
            }
            Op::JumpWall(by) => self.now.wall.0 = self.now.wall.0 + by - 2_000_000,
            Op::Written { fails } => {
                if let Some(token) = self.unwritten.pop_front() {
                    self.step(if fails {
                        Event::GrantFailed(token)
                    } else {
                        Event::GrantWritten(token)
                    });
                    self.outgoing.extend((!fails).then_some(token));
                }
            }
            Op::Delivered { at, lost } => {
                if !self.outgoing.is_empty() {
                    let token = self.outgoing.remove(at % self.outgoing.len());
                    self.step(if lost {
                        Event::Undelivered(token)
                    } else {
                        Event::Delivered(token)
                    });
                }
            }
            Op::Settle(word) => self.say(word),
            Op::Extend(at) => {
                let (token, _) = self.recent(at);
                self.step(Event::Extend {
                    request: RequestId(1),
                    token,
                });
            }
            Op::Durable { fails } => {
                if let Some(decided) = self.deciding.pop_front() {
                    let jobs = changed(&decided);
                    self.step(if fails {
                        Event::CommitFailed(jobs)
                    } else {
                        Event::Committed(jobs)
                    });
                }
            }
            Op::Policies(which) => self.change_policies(which),
            Op::Pause { lane, other, paused } => self.pause(lane, other, paused),
            Op::Stalled(stalled) => self.step(Event::Stalled(stalled)),
            Op::Gone(at) => {
                if self.jobs > 0 {
                    self.step(Event::Gone(id(at as u64 % self.jobs + 1)));
                }
            }
            Op::Restart => self.restart(),
            Op::Drain => self.step(Event::Drain),
        }
    }

    fn arrive(&mut self, op: &Op) {
        let &Op::Arrive {
            lane,
            group,
            bytes,
            jobs,
            due,
        } = op
        else {
            return;
        };
        let mut together = Vec::new();
        for _ in 0..jobs {
            self.jobs += 1;
            let job = Arrival {
                group: groups()[group].clone(),
                key: [None, Some("a"), Some("b")][usize::try_from(self.jobs % 3).unwrap()].map(Arc::from),
                wire_bytes: bytes + u32::try_from(self.jobs % 7).unwrap(),
                due: (due > 0).then_some(WallMs(self.now.wall.0 + due)),
                ..arrival(self.jobs, Priority::ALL[lane])
            };
            together.push(job);
            // Some commits hold one job, others many.
            if bytes % 2 == 0 {
                self.step(Event::Arrived(std::mem::take(&mut together)));
            }
        }
        self.step(Event::Arrived(together));
    }

    fn pause(&mut self, lane: usize, other: bool, paused: bool) {
        let processor = if other {
            Processor::parse("other").unwrap()
        } else {
            orders()
        };
        let priority = Priority::ALL[lane];
        if paused {
            self.paused.insert((processor.clone(), priority));
        } else {
            self.paused.remove(&(processor.clone(), priority));
        }
        self.step(Event::Pause {
            processor,
            priority,
            paused,
        });
    }

    fn ask(&mut self, ask: &Ask) {
        self.polled += 1;
        let poll = Poll {
            id: PollId(self.polled),
            processor: if ask.other {
                Processor::parse("other").unwrap()
            } else {
                orders()
            },
            worker: Arc::from(format!("w{}", ask.worker)),
            slots: ask.slots,
            max_jobs: ask.max_jobs,
            max_bytes: ask.max_bytes,
            priorities: ask.lanes,
            until: after(self.now.mono, ms(ask.wait)),
            request_id: ask.request.map(|request| Arc::from(format!("r{request}"))),
            not_ready: ask.not_ready.then(|| Arc::from("gone")),
            ..a_poll(self.polled)
        };
        self.polls.push(poll.id);
        self.step(Event::Poll(poll));
    }

    /// The lease granted `at` before the last; one that was never made, if there is none.
    fn recent(&self, at: usize) -> (Token, Vec<JobId>) {
        let last = self.granted.len().checked_sub(at + 1);
        last.map_or((token(9999), Vec::new()), |at| self.granted[at].clone())
    }

    fn say(&mut self, word: Word) {
        let (token, members) = self.recent(word.lease);
        let job = |at: usize| members.get(at).copied().unwrap_or(id(at as u64 + 1));
        self.step(Event::Settle(Settle {
            request: RequestId(1),
            token,
            outcomes: word
                .outcomes
                .into_iter()
                .map(|(at, report)| (job(at), report))
                .collect(),
            failed: word.failed,
            crashed: word.failed && word.crashed,
            last: word.last,
        }));
    }

    /// A new boot: what was being written is lost, what was held is restored or returned.
    fn restart(&mut self) {
        self.epoch += 1;
        let identity = Identity {
            node: NODE,
            epoch: self.epoch,
        };
        let mut jobs = self.model.jobs.clone();
        jobs.sort_by_key(|job| job.sequence);
        let leases = self.model.recoverable();
        let pasts: Vec<_> = jobs.iter().map(|job| self.model.past(job.id)).collect();
        self.dispatcher = Dispatcher::new(identity, self.book.clone());
        self.model = Model::new(identity, self.book.clone());
        self.polls.clear();
        self.unwritten.clear();
        self.outgoing.clear();
        self.deciding.clear();
        self.watch.restart();
        for (processor, priority) in self.paused.clone() {
            self.step(Event::Pause {
                processor,
                priority,
                paused: true,
            });
        }
        for (job, past) in jobs.into_iter().zip(pasts) {
            self.step(Event::Arrived(vec![Arrival {
                group: job.group,
                wire_bytes: job.bytes,
                key: job.key,
                recovered: past,
                ..arrival(job.sequence, job.priority)
            }]));
        }
        for lease in leases {
            self.step(Event::Recovered(lease));
        }
    }

    /// From here on everything goes well: every job must end.
    fn finish(&mut self) {
        self.play(Op::Stalled(false));
        for (lane, other) in [
            (0, false),
            (1, false),
            (2, false),
            (0, true),
            (1, true),
            (2, true),
        ] {
            self.pause(lane, other, false);
        }
        for _ in 0..400 {
            if self.dispatcher.unsettled() == 0 {
                break;
            }
            while !self.deciding.is_empty() {
                self.play(Op::Durable { fails: false });
            }
            while !self.unwritten.is_empty() {
                self.play(Op::Written { fails: false });
            }
            while !self.outgoing.is_empty() {
                self.play(Op::Delivered { at: 0, lost: false });
            }
            for (token, jobs) in std::mem::take(&mut self.granted) {
                self.step(Event::Settle(Settle {
                    request: RequestId(1),
                    token,
                    outcomes: jobs.into_iter().map(|job| (job, OK)).collect(),
                    failed: false,
                    crashed: false,
                    last: true,
                }));
            }
            self.play(Op::Pass(10_000));
            self.ask(&Ask {
                other: false,
                worker: 9,
                slots: 20,
                max_jobs: None,
                max_bytes: None,
                lanes: [true; 3],
                wait: 0,
                request: None,
                not_ready: false,
            });
        }
        assert_eq!(self.dispatcher.unsettled(), 0, "{:?}", self.dispatcher.jobs);
        assert_eq!(self.dispatcher.leased_jobs(), 0);
        assert!(self.dispatcher.leases.is_empty(), "{:?}", self.dispatcher.leases);
        assert!(self.dispatcher.commits.is_empty());
    }
}

fn play(which: usize, ops: Vec<Op>) {
    let mut world = World::new(which);
    for op in ops {
        world.play(op);
    }
    world.finish();
    world.play(Op::Drain);
    assert!(world.polls.is_empty());
    assert!(world.dispatcher.requests.is_empty() && world.dispatcher.polls.is_empty());
}

/// A few seconds of it; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    let cases = std::env::var("PROPTEST_CASES").map_or(48, |_| config.cases);
    ProptestConfig { cases, ..config }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_dispatcher_decides_as_the_model_does_and_keeps_the_invariants(
        which in 0..6_usize,
        ops in prop::collection::vec(op(), 1..160),
    ) {
        play(which, ops);
    }

    #[test]
    fn a_drain_hands_out_nothing_and_settles_go_on(
        ops in prop::collection::vec(op(), 1..60),
        after in prop::collection::vec(op(), 1..60),
    ) {
        let mut world = World::new(1);
        ops.into_iter().for_each(|op| world.play(op));
        world.play(Op::Drain);
        let granted = world.granted.len();
        for op in after.into_iter().filter(|op| !matches!(op, Op::Restart)) {
            world.play(op);
            prop_assert!(world.polls.is_empty());
        }
        prop_assert_eq!(world.granted.len(), granted);
    }
}
