//! The driver carries the dispatcher's decisions out: one synchronous loop over bus, clock and port.
//!
//! In: calls from the port, events from the bus, time from the clock. Out: records to the bus, answers to
//! the port. It owns the dispatcher, the waiters, and what hangs on each queued append. The server and
//! the simulator run this same type.
//!
//! Invariants:
//! 1. Durable, then visible, then notify: a job is enqueued when it *arrives* from the bus, a waiter is
//!    woken by an *outcome* from the bus, and a settle is answered by the `Durable` of its ticket.
//! 2. A waiter is registered before its job can be seen by a worker.
//! 3. Every call is answered once.
//! 4. After a failed sync nothing is acknowledged any more; the loop ends.

mod control;
pub mod differs;
mod ids;
mod lease;
mod many;
mod parked;
pub mod port;
mod records;
pub mod refusal;
mod setting;
mod settle;
mod stop;
mod submit;
mod view;
mod waiters;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::bus::{self, AppendError, Bus, Durability, Failure, Space, Ticket};
use crate::clock::{Clock, Mono, Now, after};
use crate::dispatcher::event::{Action, Event, LaneStats};
use crate::dispatcher::{Bounds, Dispatcher};
use crate::job::{JobId, JobView, Priority, Processor, Token};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::policy::PolicyBook;
use control::Control;
use ids::IdSource;
pub use ids::child_id;
use lease::{Granting, LeaseCalls};
use many::{ManyCalls, SubmittingMany};
use parked::Parked;
use port::{Answer, CallId, Command, Inbound, Info, Port, Readiness, SettleAnswer};
use refusal::Refusal;
use settle::{ReplyTo, Settling, SettlingTable};
use stop::Stopping;
use submit::Submitting;
use waiters::{Asked, Waiter, Waiters};

/// Calls taken in one go before the bus is looked at again, so that a flood of them delays no commit.
const CALLS_PER_ROUND: usize = 1_024;

/// With so many bytes a poll's answer takes no further batch: they are read at once, and no other call is looked at
/// meanwhile.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// The dispatcher sees so many arrivals at once at most: a start brings millions.
const ARRIVALS_AT_ONCE: usize = 1_024;

/// A delivered mark waits so long for a frame to ride in before it goes alone.
const MARK_DELAY: Duration = Duration::from_millis(10);

/// What a driver is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bounds.
    pub limits: Limits,
    /// How jobs gather and retry.
    pub policies: PolicyBook,
    /// Seeds the ids that the driver makes.
    pub seed: u64,
    /// Where the driver counts.
    pub metrics: Arc<Metrics>,
}

/// The loop. Generic, so that the simulator runs it over its own world.
pub struct Driver<B, C, P> {
    bus: B,
    clock: C,
    port: P,
    limits: Limits,
    metrics: Arc<Metrics>,
    dispatcher: Dispatcher,
    /// Jobs that became durable and that the dispatcher has not seen yet.
    arrived: Vec<bus::Arrival>,
    /// What the dispatcher wants done; drained in every round.
    actions: Vec<Action>,
    waiters: Waiters,
    /// Calls that submit many jobs, and wait for them.
    many: ManyCalls,
    /// Calls that submit many jobs once they can be waited for.
    parked: Parked,
    /// Callers that may be gone and whose submit is in flight: when their waits end at the latest.
    hurried: HashMap<CallId, Mono>,
    /// Processors whose first job is in flight: the dispatcher does not know them yet.
    expected_processors: HashSet<Processor>,
    /// What happens when an append is written, durable, or failed.
    pending: HashMap<Ticket, Pending>,
    /// Settles on their way through the dispatcher and the bus.
    settling: SettlingTable,
    /// Settle answers that need no append of their own, and go with one that is in flight.
    riders: HashMap<Ticket, Vec<(ReplyTo, SettleAnswer)>>,
    /// Lease calls that wait for their settles, or for a batch.
    leases: LeaseCalls,
    /// Paused lanes and policies: what is in force, what is on its way.
    control: Control,
    /// Leases whose delivery is to be marked, and when at the latest.
    marks: Vec<Token>,
    marks_due: Option<Mono>,
    ids: IdSource,
    /// The last append that somebody waits to be synced.
    last_sync: Option<Ticket>,
    /// Nothing can be written; the dispatcher knows.
    stalled: bool,
    /// New work was refused for want of room, and none has returned since.
    full: bool,
    /// Everything pending from before the start has been reported.
    ready: bool,
    stopping: Option<Stopping>,
    ended: Option<Ended>,
    /// The clocks as this turn reads them.
    now: Now,
}

/// What hangs on one append.
enum Pending {
    Submit(Submitting),
    SubmitMany(SubmittingMany),
    Grant(Granting),
    Settle(Settling),
    /// The one that [`Control`] has in flight.
    Change,
}

/// What a turn says to whoever runs the loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing more to do now. Turn again when something comes, at the latest at this instant.
    Idle(Option<Mono>),
    /// The loop is over.
    Ended(Ended),
}

/// How the loop ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As asked; everything is on disk.
    Stopped,
    /// A sync failed: the process must exit (74), the next start recovers.
    Poisoned,
}

impl<B: Bus, C: Clock, P: Port> Driver<B, C, P> {
    /// A driver over an opened bus.
    #[must_use]
    pub fn new(bus: B, clock: C, port: P, options: Options) -> Self {
        let identity = bus.identity();
        let now = clock.now();
        Self {
            dispatcher: Dispatcher::new(identity, options.policies.clone()).bounded(Bounds {
                answer: ANSWER_BYTES_MAX,
                all: options.limits.bodies_bytes_max,
            }),
            control: Control::new(options.policies),
            ids: IdSource::new(options.seed, identity.epoch),
            bus,
            clock,
            port,
            limits: options.limits,
            metrics: options.metrics,
            arrived: Vec::new(),
            actions: Vec::new(),
            waiters: Waiters::default(),
            many: ManyCalls::default(),
            parked: Parked::default(),
            hurried: HashMap::new(),
            expected_processors: HashSet::new(),
            pending: HashMap::new(),
            settling: SettlingTable::default(),
            riders: HashMap::new(),
            leases: LeaseCalls::default(),
            marks: Vec::new(),
            marks_due: None,
            last_sync: None,
            stalled: false,
            full: false,
            ready: false,
            stopping: None,
            ended: None,
            now,
        }
    }

    /// Whether everything that was pending before the start is back in its lane.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    /// How many submits may wait before it is worth a turn: they could not become durable at once anyway.
    pub fn unread_max(&self) -> usize {
        self.bus.unread_max()
    }

    /// The port, for whoever runs the loop to wait on.
    pub fn port(&mut self) -> &mut P {
        &mut self.port
    }

    /// The bus, for the simulator to look at.
    pub fn bus(&mut self) -> &mut B {
        &mut self.bus
    }

    /// Does everything that can be done now.
    pub fn turn(&mut self) -> Turn {
        loop {
            self.now = self.clock.now();
            let calls = self.take_calls();
            self.step(Event::Tick);
            self.expire_waits();
            self.take_parked();
            self.write_marks();
            self.keep_stopping();
            self.keep_changing();
            // Last, because it starts the I/O for whatever was appended.
            let events = self.take_bus_events();
            if let Some(ended) = &self.ended {
                return Turn::Ended(ended.clone());
            }
            if calls + events == 0 {
                return Turn::Idle(self.next_timer());
            }
        }
    }

    fn take_calls(&mut self) -> usize {
        let mut taken = 0;
        while taken < CALLS_PER_ROUND
            && let Some(inbound) = self.port.take()
        {
            taken += weight(&inbound);
            match inbound {
                Inbound::Call(call, command) => self.on_call(call, command),
                Inbound::Gone(call) => self.on_gone(call),
                Inbound::Hurry { call, hold_max } => self.on_hurry(call, hold_max),
                Inbound::Delivered(tokens) => self.on_delivered(tokens),
                Inbound::Undelivered(tokens) => self.on_undelivered(&tokens),
                Inbound::Policies(policies) => self.on_configured(policies),
                Inbound::Stop { grace } => self.on_stop(grace),
            }
        }
        taken
    }

    fn on_call(&mut self, call: CallId, command: Command) {
        if !self.ready {
            return self.refuse(call, Refusal::Recovering);
        }
        match command {
            Command::Submit(submit) => self.on_submit(call, submit),
            Command::SubmitMany(many) => self.park_or_submit_many(call, many),
            Command::Get { id, wait } => self.on_get(call, id, wait),
            Command::GetMany(ids) => self.on_get_many(call, &ids),
            Command::Lease(lease) => self.on_lease(call, *lease),
            Command::Settle(settle) => self.on_settle(call, settle),
            Command::Extend { token } => self.on_extend(call, token),
            change @ (Command::Pause { .. } | Command::SetPolicy(_)) => self.on_change(call, change),
            Command::Policy {
                processor,
                group,
                priority,
            } => self.on_policy(call, processor, group, priority),
            Command::Lanes => {
                let lanes = self.lanes();
                self.port.answer(call, Answer::Lanes(lanes));
            }
            Command::Info => self.on_info(call),
        }
    }

    /// The caller may be gone. A submit in flight is hurried once its wait begins.
    fn on_hurry(&mut self, call: CallId, hold_max: Duration) {
        if !self.port.waits(call) || self.hurry_lease(call) || self.hurry_parked(call) {
            return;
        }
        let until = after(self.now.mono, hold_max);
        if !self.waiters.hurry(call, until) && !self.many.hurry(call, until) {
            self.hurried.insert(call, until);
        }
    }

    fn on_gone(&mut self, call: CallId) {
        self.hurried.remove(&call);
        self.waiters.remove(call);
        self.many.forget(call);
        self.parked.forget(call);
        self.forget_lease_call(call);
        self.forget_change(call);
    }

    fn on_get(&mut self, call: CallId, id: JobId, wait: Option<Duration>) {
        match (self.view(id), wait) {
            (Err(refusal), _) => self.refuse(call, refusal),
            (Ok(job), Some(wait)) if job.finished_at.is_none() && self.stopping.is_none() => {
                self.wait_for(call, id, wait, Asked::Get);
            }
            (Ok(job), _) => self.port.answer(call, Answer::Job(Box::new(job))),
        }
    }

    fn on_info(&mut self, call: CallId) {
        let processors = self.dispatcher.processors().count() + self.expected_processors.len();
        let info = Info {
            capabilities: self.bus.capabilities(),
            usage: self.bus.usage(),
            readiness: self.readiness(),
            processors: u64::try_from(processors).unwrap_or(u64::MAX),
            waiters: u64::try_from(self.waiters.len() + self.many.waiting()).unwrap_or(u64::MAX),
        };
        self.port.answer(call, Answer::Info(Box::new(info)));
    }

    /// Every lane, those with nothing but dead jobs of before the start too.
    fn lanes(&self) -> Vec<LaneStats> {
        let mut lanes = self.dispatcher.lanes(self.now.mono);
        let dead = self.bus.dead().into_iter();
        let mut dead: HashMap<_, _> = dead
            .map(|lane| ((lane.processor, lane.priority), lane.jobs))
            .collect();
        let unknown: HashSet<_> = dead.keys().map(|(processor, _)| processor.clone()).collect();
        for processor in unknown
            .into_iter()
            .filter(|processor| !self.dispatcher.knows(processor))
        {
            lanes.extend(Priority::ALL.map(|priority| LaneStats::idle(processor.clone(), priority)));
        }
        for lane in &mut lanes {
            let of = (lane.processor.clone(), lane.priority);
            lane.dead = dead.remove(&of).unwrap_or(0);
        }
        lanes.sort_by(|a, b| (&a.processor, a.priority).cmp(&(&b.processor, b.priority)));
        lanes
    }

    fn readiness(&self) -> Readiness {
        if self.ended == Some(Ended::Poisoned) {
            Readiness::Poisoned
        } else if self.stopping.is_some() {
            Readiness::Draining
        } else if !self.ready {
            Readiness::Recovering
        } else if self.full {
            Readiness::DiskFull
        } else if self.is_log_too_small() {
            Readiness::LogTooSmall
        } else {
            Readiness::Ready
        }
    }

    /// Whether the log takes no jobs because of a limit that it cannot always keep. One that is merely reached is no
    /// reason to be sent no workers.
    fn is_log_too_small(&self) -> bool {
        let usage = self.bus.usage();
        let limit = self.limits.log_bytes_short_of(usage.needed_bytes);
        limit.is_some_and(|limit| usage.segments_bytes() >= limit)
    }

    fn take_bus_events(&mut self) -> usize {
        let mut taken = 0;
        while let Some(event) = self.bus.poll(self.now) {
            taken += 1;
            if !matches!(event, bus::Event::Setting(_)) {
                // At a start all settings come first: the first job finds the policies of before.
                self.renew_policies();
            }
            match event {
                bus::Event::Written(ticket) => self.on_written(ticket),
                bus::Event::Durable(ticket) => self.on_durable(ticket),
                bus::Event::Failed(ticket, failure) => self.on_failed(ticket, failure),
                // Only what is durable becomes visible.
                bus::Event::Arrived(arrival) => self.on_arrived(*arrival),
                bus::Event::Gone(id) => self.step(Event::Gone(id)),
                // Only what is durable is told.
                bus::Event::Outcome(id) => self.wake(id),
                bus::Event::Leased(lease) => self.step(Event::Recovered(*lease)),
                bus::Event::Setting(setting) => self.on_setting(&setting),
                bus::Event::Ready => self.ready = true,
                bus::Event::SpaceReturned => {
                    self.set_full(false);
                    self.set_stalled(false);
                }
                bus::Event::Closed => {
                    self.end_change(true);
                    self.ended = Some(Ended::Stopped);
                }
                bus::Event::Broken => self.poison(),
            }
        }
        self.see_arrivals();
        taken
    }

    fn on_arrived(&mut self, mut arrival: bus::Arrival) {
        if self.dispatcher.wants_keys() {
            arrival.key = self.key_of(arrival.id);
        }
        tracing::trace!(
            job = %arrival.id,
            processor = arrival.processor.as_str(),
            group = arrival.group.as_str(),
            priority = arrival.priority.name(),
            "job accepted"
        );
        self.arrived.push(arrival);
        if self.arrived.len() >= ARRIVALS_AT_ONCE {
            self.see_arrivals();
        }
    }

    /// What became durable together is seen together: the first of them does not leave in a batch by itself while
    /// the others are on their way.
    fn see_arrivals(&mut self) {
        if !self.arrived.is_empty() {
            let arrived = std::mem::take(&mut self.arrived);
            if !self.expected_processors.is_empty() {
                for arrival in &arrived {
                    self.expected_processors.remove(&arrival.processor);
                }
            }
            self.step(Event::Arrived(arrived));
        }
    }

    /// The caller's key of a durable job. A job whose record cannot be read travels with those that have none.
    fn key_of(&self, id: JobId) -> Option<Arc<str>> {
        let key = match self.bus.read(id) {
            Ok(stored) => stored.map_or(Ok(None), |stored| view::key(&stored)),
            Err(error) => Err(Refusal::Internal(error.to_string())),
        };
        key.unwrap_or_else(|error| {
            tracing::error!(job = %id, %error, "a job's key cannot be read back");
            None
        })
    }

    fn on_written(&mut self, ticket: Ticket) {
        // Only grants wait for no more than the write.
        if let Some(Pending::Grant(_)) = self.pending.get(&ticket)
            && let Some(Pending::Grant(granting)) = self.pending.remove(&ticket)
        {
            self.hand_out(granting);
        }
    }

    fn on_durable(&mut self, ticket: Ticket) {
        match self.pending.remove(&ticket) {
            Some(Pending::Submit(submitting)) => self.submit_is_durable(submitting),
            Some(Pending::SubmitMany(submitting)) => self.many_are_durable(submitting),
            Some(Pending::Settle(settling)) => self.settle_is_durable(settling),
            Some(Pending::Grant(granting)) => self.hand_out(granting),
            // It takes effect when the bus reports the setting.
            Some(Pending::Change) | None => {}
        }
        for (reply_to, answer) in self.riders.remove(&ticket).unwrap_or_default() {
            self.answer_settle(reply_to, answer);
        }
    }

    fn on_failed(&mut self, ticket: Ticket, failure: Failure) {
        let refusal = match failure {
            Failure::DiskFull => {
                self.set_full(true);
                Refusal::DiskFull
            }
            Failure::Unknown => Refusal::OutcomeUnknown,
        };
        match self.pending.remove(&ticket) {
            Some(Pending::Submit(submitting)) => self.submit_failed(submitting, &refusal),
            Some(Pending::SubmitMany(submitting)) => self.many_failed(submitting, &refusal),
            Some(Pending::Settle(settling)) => self.settle_failed(settling, &refusal),
            Some(Pending::Grant(granting)) => self.grant_failed(granting, &refusal),
            Some(Pending::Change) => self.change_failed(&refusal),
            None => {}
        }
        self.fail_riders(ticket, &refusal);
        if failure == Failure::Unknown {
            self.poison();
        }
    }

    /// Nothing is acknowledged after a failed sync: whoever still waits hears that it is unknown.
    fn poison(&mut self) {
        self.ended = Some(Ended::Poisoned);
        // Nothing of these was begun.
        self.refuse_parked(&Refusal::Draining);
        for call in self.many.take_calls() {
            self.refuse(call, Refusal::OutcomeUnknown);
        }
        let mut pending: Vec<_> = std::mem::take(&mut self.pending).into_iter().collect();
        pending.sort_unstable_by_key(|(ticket, _)| *ticket);
        for (ticket, pending) in pending {
            self.fail_riders(ticket, &Refusal::OutcomeUnknown);
            match pending {
                Pending::Submit(submitting) => self.submit_failed(submitting, &Refusal::OutcomeUnknown),
                Pending::SubmitMany(submitting) => self.many_failed(submitting, &Refusal::OutcomeUnknown),
                Pending::Settle(settling) => self.settle_failed(settling, &Refusal::OutcomeUnknown),
                Pending::Grant(granting) => self.grant_failed(granting, &Refusal::OutcomeUnknown),
                Pending::Change => self.change_failed(&Refusal::OutcomeUnknown),
            }
        }
        self.change_failed(&Refusal::OutcomeUnknown);
        self.refuse_changes(&Refusal::OutcomeUnknown);
        for waiter in self.waiters.calls() {
            self.waiters.remove(waiter.call);
            self.refuse(waiter.call, Refusal::OutcomeUnknown);
        }
        self.refuse_lease_calls(&Refusal::OutcomeUnknown);
    }

    /// What an append means: a full disk is told to the dispatcher when it stops settles.
    fn appended(
        &mut self,
        appended: Result<Ticket, AppendError>,
        space: Space,
        durability: Durability,
    ) -> Result<Ticket, Refusal> {
        match appended {
            Ok(ticket) => {
                if durability == Durability::Sync {
                    self.last_sync = Some(ticket);
                }
                Ok(ticket)
            }
            Err(AppendError::DiskFull) => {
                self.set_full(true);
                if space == Space::Settle {
                    self.set_stalled(true);
                }
                Err(Refusal::DiskFull)
            }
            Err(AppendError::KeysFull) => Err(Refusal::KeysFull {
                limit: self.limits.keys_max,
            }),
            Err(AppendError::SettingsFull) => Err(Refusal::InvalidValue {
                detail: "as many settings are kept as may be: remove one first".to_owned(),
                pointer: String::new(),
            }),
            // Nothing was queued: the stop came first.
            Err(AppendError::Closed) if self.stopping.is_some() => Err(Refusal::Draining),
            Err(AppendError::Closed) => Err(Refusal::OutcomeUnknown),
            Err(AppendError::TooLarge { bytes, limit }) => Err(Refusal::BodyTooLarge { bytes, limit }),
        }
    }

    fn set_full(&mut self, full: bool) {
        if self.full != full {
            self.full = full;
            if full {
                tracing::warn!("the disk is full: new jobs are refused until there is room");
            } else {
                tracing::info!("there is room on the disk again");
            }
        }
    }

    fn set_stalled(&mut self, stalled: bool) {
        if self.stalled != stalled {
            self.stalled = stalled;
            self.step(Event::Stalled(stalled));
        }
    }

    /// One step of the dispatcher, and all that it asks for; what arrived before comes first.
    fn step(&mut self, event: Event) {
        self.see_arrivals();
        let mut actions = std::mem::take(&mut self.actions);
        self.dispatcher.step(event, self.now, &mut actions);
        for action in actions.drain(..) {
            match action {
                Action::Answer { poll, grants } => self.on_grants(poll, grants),
                Action::Decide(decisions) => self.on_decisions(decisions),
                Action::Extended(extended) => self.on_extended(extended),
                Action::UnknownLease(request) => self.on_unknown_lease(request),
            }
        }
        if self.actions.capacity() == 0 {
            self.actions = actions;
        }
    }

    /// The job as it is now.
    fn view(&self, id: JobId) -> Result<JobView, Refusal> {
        match self.bus.find(id) {
            // A submit in flight is not visible yet: it may still fail.
            None | Some(bus::Known::Submitting { .. } | bus::Known::Finished { readable: false, .. }) => {
                Err(Refusal::UnknownJob)
            }
            Some(bus::Known::Unsettled { .. } | bus::Known::Finished { .. }) => {
                let stored = self
                    .bus
                    .read(id)
                    .map_err(|error| Refusal::Internal(error.to_string()))?;
                view::stored(&stored.ok_or(Refusal::UnknownJob)?, self.dispatcher.job(id))
            }
        }
    }

    /// Holds a call until the job's outcome, or its time is up.
    fn wait_for(&mut self, call: CallId, job: JobId, wait: Duration, asked: Asked) {
        if !self.port.waits(call) {
            return;
        }
        if self.waiters_full() {
            let limit = self.limits.waiters_max;
            return self.refuse(call, Refusal::TooManyWaiters { limit });
        }
        let until = after(self.now.mono, wait);
        let hurried = self.hurried.remove(&call);
        self.waiters.register(Waiter {
            call,
            job,
            until: hurried.map_or(until, |hurried| hurried.min(until)),
            asked,
        });
    }

    /// Waiters' places that are taken.
    fn waiting(&self) -> u64 {
        u64::try_from(self.waiters.taken() + self.many.waiting()).unwrap_or(u64::MAX)
    }

    fn waiters_full(&self) -> bool {
        self.waiting() >= self.limits.waiters_max
    }

    fn wake(&mut self, id: JobId) {
        for waiter in self.waiters.wake(id) {
            self.answer_waiter(waiter);
        }
        self.wake_many(id);
    }

    fn expire_waits(&mut self) {
        while let Some(waiter) = self.waiters.expire(self.now.mono) {
            self.answer_waiter(waiter);
        }
        self.expire_many();
    }

    /// Answers with the job as it is: ended, or not yet.
    fn answer_waiter(&mut self, waiter: Waiter) {
        match (self.view(waiter.job), waiter.asked) {
            (Err(refusal), _) => self.refuse(waiter.call, refusal),
            (Ok(job), Asked::Get) => self.port.answer(waiter.call, Answer::Job(Box::new(job))),
            (Ok(job), Asked::Submit { replayed }) => self.answer_submit(waiter.call, job, replayed),
        }
    }

    fn refuse(&mut self, call: CallId, refusal: Refusal) {
        self.hurried.remove(&call);
        self.port.answer(call, Answer::Refused(refusal));
    }

    fn next_timer(&self) -> Option<Mono> {
        let grace = self.stopping.as_ref().and_then(Stopping::next_timer);
        [
            self.dispatcher.next_timer(),
            self.waiters.next_end(),
            self.many.next_end(),
            self.bus.next_timer(),
            self.marks_due,
            grace,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// How much of a round a call takes up.
fn weight(inbound: &Inbound) -> usize {
    match inbound {
        Inbound::Call(_, Command::SubmitMany(many)) => many.jobs.len().max(1),
        Inbound::Call(_, Command::GetMany(ids)) => ids.len().max(1),
        _ => 1,
    }
}
