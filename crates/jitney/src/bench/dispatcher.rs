//! The dispatcher alone: what one job costs it, with so many others pending.

use std::sync::Arc;
use std::time::Duration;

use super::random::Random;
use crate::bus::{Arrival, Identity};
use crate::clock::{Clock as _, Mono, Now, SystemClock, WallMs, between};
use crate::dispatcher::Dispatcher;
use crate::dispatcher::event::{Action, Decisions, Event, Grant, Poll, PollId, Report, RequestId, Settle};
use crate::job::{Group, JobId, Priority, Processor};
use crate::policy::PolicyBook;

/// Jobs that arrive together, as after one commit, and that are leased together.
const BATCH: u64 = 64;

/// How long a job's way through the dispatcher takes in the clock of its events, microseconds.
const CYCLE_US: u64 = 100;

/// A dispatcher with pending jobs, and the driver's side of its events.
#[derive(Debug)]
pub struct Steps {
    dispatcher: Dispatcher,
    actions: Vec<Action>,
    processor: Processor,
    group: Group,
    worker: Arc<str>,
    random: Random,
    now: Now,
    jobs: u64,
    polls: u64,
}

impl Steps {
    /// With so many pending jobs, all in one lane.
    #[must_use]
    pub fn new(pending: u64) -> Self {
        let identity = Identity { node: 1, epoch: 1 };
        let mut steps = Self {
            dispatcher: Dispatcher::new(identity, PolicyBook::default()),
            actions: Vec::new(),
            processor: Processor::trusted("bench"),
            group: Group::default(),
            worker: Arc::from("bench-1"),
            random: Random::new(1),
            now: Now {
                mono: Mono(1_000_000),
                wall: WallMs(1_700_000_000_000),
            },
            jobs: 0,
            polls: 0,
        };
        let mut left = pending;
        while left > 0 {
            let together = left.min(BATCH);
            steps.arrive(together);
            left -= together;
        }
        steps
    }

    /// Jobs arrive, as many are leased as one batch holds, and all of those end: as many as came, so that the
    /// number of pending jobs stays. Returns how many, 64 if so many are pending.
    pub fn cycle(&mut self) -> usize {
        self.now.mono.0 += CYCLE_US;
        self.now.wall.0 = 1_700_000_000_000 + self.now.mono.0 / 1_000;
        self.arrive(BATCH);
        let grant = self.lease();
        let jobs = grant.jobs.len();
        self.settle(&grant);
        jobs
    }

    fn step(&mut self, event: Event) {
        self.dispatcher.step(event, self.now, &mut self.actions);
    }

    /// So many jobs became durable together.
    fn arrive(&mut self, jobs: u64) {
        let arrivals = (0..jobs).map(|_| self.arrival()).collect();
        self.step(Event::Arrived(arrivals));
        self.actions.clear();
    }

    fn arrival(&mut self) -> Arrival {
        self.jobs += 1;
        Arrival {
            id: self.id(),
            processor: self.processor.clone(),
            group: self.group.clone(),
            priority: Priority::Normal,
            wire_bytes: 512,
            sequence: self.jobs,
            accepted: self.now.wall,
            due: None,
            deadline: None,
            key: None,
            recovered: None,
        }
    }

    /// As the driver makes them: the time first, the rest random.
    fn id(&mut self) -> JobId {
        let time = u128::from(self.now.wall.0) << 80;
        let random = u128::from(self.random.next()) << 16 | u128::from(self.jobs & 0xFFFF);
        JobId((time | random).to_be_bytes())
    }

    fn lease(&mut self) -> Grant {
        self.polls += 1;
        let poll = Poll {
            id: PollId(self.polls),
            processor: self.processor.clone(),
            worker: Arc::clone(&self.worker),
            in_process: false,
            slots: 1,
            max_jobs: None,
            max_bytes: None,
            priorities: [true; 3],
            until: Mono(u64::MAX),
            request_id: None,
            not_ready: None,
        };
        self.step(Event::Poll(poll));
        let granted = self.actions.drain(..).find_map(|action| match action {
            Action::Answer { mut grants, .. } => grants.pop(),
            _ => None,
        });
        let grant = granted.expect("jobs are pending, and nothing is leased, so a batch closes at once");
        self.step(Event::GrantWritten(grant.token));
        self.step(Event::Delivered(grant.token));
        self.actions.clear();
        grant
    }

    fn settle(&mut self, grant: &Grant) {
        let settle = Settle {
            request: RequestId(self.polls),
            token: grant.token,
            outcomes: grant.jobs.iter().map(|job| (job.id, Report::Ok)).collect(),
            failed: false,
            crashed: false,
            last: true,
        };
        self.step(Event::Settle(settle));
        let decided = self.actions.drain(..).find_map(|action| match action {
            Action::Decide(Decisions { jobs, .. }) => Some(jobs),
            _ => None,
        });
        let jobs = decided.expect("a settle of a live lease is decided");
        let ids = jobs.iter().map(|decision| decision.job).collect();
        self.step(Event::Committed(ids));
        self.actions.clear();
    }
}

/// What a job costs with so many pending.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Pending jobs.
    pub pending: u64,
    /// Jobs that came, were leased and ended in the time.
    pub jobs: u64,
    /// The time.
    pub took: Duration,
}

impl Cost {
    /// Nanoseconds per job.
    #[must_use]
    pub fn nanos_per_job(&self) -> f64 {
        self.took.as_secs_f64() * 1e9 / super::figure(self.jobs.max(1))
    }
}

/// Turns jobs over for about `duration`.
#[must_use]
pub fn measure(pending: u64, duration: Duration) -> Cost {
    let clock = SystemClock::new();
    let mut steps = Steps::new(pending);
    let start = clock.now().mono;
    let mut jobs = 0;
    loop {
        for _ in 0..16 {
            jobs += u64::try_from(steps.cycle()).unwrap_or(u64::MAX);
        }
        let took = between(start, clock.now().mono);
        if took >= duration {
            return Cost { pending, jobs, took };
        }
    }
}
