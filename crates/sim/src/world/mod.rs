//! The world of one seed: virtual time, a queue of what is to happen, and those to whom it happens.
//!
//! In: a seed. Out: a violation or none, and the hash of the trace. One thread; everything random comes from
//! the seed's generator, and simultaneous happenings are put in a random order by it.

mod bulk;
mod callers;
mod faults;
mod operator;
mod server;
mod worker;
mod workers;

use std::collections::BTreeMap;
use std::rc::Rc;

use jitney::driver::port::{Answer, CallId, Inbound};
use jitney::job::{JobId, Token};
use joblog::testing::SimDisk;

use crate::checker::{Asked, Checker, Violation};
use crate::clock::SimClock;
use crate::mutants::Sabotage;
use crate::orders::{Order, OrderId};
use crate::plan::Plan;
use crate::random::Rng;
use crate::trace::Trace;
use bulk::Bulk;
use callers::Caller;
use operator::Operator;
use server::Server;
use worker::Worker;

/// After the faults stop, all accepted jobs must be settled within so much virtual time: backoffs and leases
/// are seconds, whatever becomes of the wall clock.
const CALM_MAX: u64 = 3_600 * SECOND;

/// A second in microseconds.
pub(crate) const SECOND: u64 = 1_000_000;

/// Everything in one run.
pub(crate) struct World {
    seed: u64,
    plan: Plan,
    rng: Rng,
    clock: SimClock,
    queue: BTreeMap<(u64, u64), Happening>,
    scheduled: u64,
    disk: SimDisk,
    server: Option<Server>,
    boots: u64,
    sabotage: Sabotage,
    checker: Checker,
    trace: Trace,
    orders: Vec<Rc<Order>>,
    callers: Vec<Caller>,
    bulks: Vec<Bulk>,
    workers: Vec<Worker>,
    operator: Operator,
    /// Open calls: whose they are.
    calls: BTreeMap<CallId, Owner>,
    next_call: u64,
    /// Jobs that may have children, with their places in the order of acceptance.
    parents: Vec<(JobId, u64)>,
    /// Tokens that were handed out, for workers that use the wrong one.
    tokens: Vec<Token>,
    /// The faults are over.
    calm: bool,
    /// Turns that the driver's own timers asked for.
    wakes: u64,
    /// The disk was told to fail once; it may not have done so yet.
    armed: bool,
    /// There is no room on the disk, or little.
    disk_full: bool,
    /// A reopening is under way or scheduled.
    reopening: bool,
    failed: Option<Violation>,
}

/// Who made a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Caller(usize),
    Bulk(usize),
    /// A worker in one of its lives.
    Worker(usize, u64),
    Operator,
}

/// What is to happen.
#[derive(Debug)]
enum Happening {
    /// It reaches the server, if that is still the same boot.
    Inbound(u64, Inbound),
    /// It reaches whoever made the call.
    Answer(CallId, Box<Answer>),
    /// The connection of a call breaks.
    HangUp(CallId),
    /// Whoever made the call learns that the connection broke.
    Lost(CallId),
    /// The driver asked to be called now.
    Wake(u64, u64),
    CommitStep(u64),
    ChoreStep(u64),
    NewOrders,
    Caller(usize),
    Bulk(usize),
    Worker(usize, u64, worker::Task),
    Operator,
    Fault,
    /// The server starts.
    Open,
    /// A full disk has room again.
    Room,
    /// Power is cut, at a moment chosen before.
    Cut(u64),
}

/// What came of a seed.
#[derive(Debug)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// The rule that was broken, if one was.
    pub violation: Option<Violation>,
    /// Equal traces have equal hashes.
    pub hash: u64,
    /// Happenings processed.
    pub steps: u64,
    /// Jobs that were accepted.
    pub jobs: u64,
    /// Times the server started.
    pub boots: u64,
}

impl World {
    pub(crate) fn new(seed: u64, sabotage: Sabotage, verbose: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        let mut trace = Trace::new(verbose);
        trace.line(0, || format!("{plan:?}"));
        Self {
            seed,
            clock: SimClock::new(),
            queue: BTreeMap::new(),
            scheduled: 0,
            disk: SimDisk::new(),
            server: None,
            boots: 0,
            sabotage,
            checker: Checker::new(&plan),
            trace,
            orders: Vec::new(),
            callers: Vec::new(),
            bulks: Vec::new(),
            workers: Vec::new(),
            operator: Operator::default(),
            calls: BTreeMap::new(),
            next_call: 1,
            parents: Vec::new(),
            tokens: Vec::new(),
            calm: false,
            wakes: 0,
            armed: false,
            disk_full: false,
            reopening: false,
            failed: None,
            plan,
            rng,
        }
    }

    /// Lives through `steps` happenings with faults, then in peace until all is settled.
    pub(crate) fn run(mut self, steps: u64) -> Run {
        self.sabotage.arm();
        self.open();
        self.hire();
        self.at(0, Happening::NewOrders);
        let first_fault = self.rng.below(self.plan.fault_gap * 2);
        self.after(first_fault, Happening::Fault);
        if self.plan.faults.controls {
            let first = self.rng.below(self.plan.control_gap * 2);
            self.after(first, Happening::Operator);
        }
        let mut taken = 0;
        while taken < steps && self.failed.is_none() && self.step() {
            taken += 1;
        }
        if self.failed.is_none() {
            taken += self.settle_down(steps);
        }
        Sabotage::default().arm();
        let boots = self.boots;
        Run {
            seed: self.seed,
            violation: self.failed,
            hash: self.trace.hash(),
            steps: taken,
            jobs: self.checker.accepted(),
            boots,
        }
    }

    /// The end of every run: no more faults, good workers, and everything that was accepted must settle.
    fn settle_down(&mut self, steps: u64) -> u64 {
        self.calm = true;
        self.begin_calm();
        let mut taken = self.live_until(steps, |world| world.checker.all_settled());
        self.silence_callers();
        taken += self.live_until(steps, |world| {
            world.checker.all_settled() && world.callers_are_done()
        });
        if self.failed.is_none() {
            taken += self.idle(60 * SECOND);
        }
        if self.failed.is_none() && self.plan.limits.log_bytes_max.is_some() {
            taken += self.one_more(steps);
        }
        if self.failed.is_none() {
            self.last_rites();
        }
        taken
    }

    /// In peace, until this holds.
    fn live_until(&mut self, steps: u64, done: impl Fn(&Self) -> bool) -> u64 {
        let limit = self.clock.micros() + CALM_MAX;
        let mut taken = 0;
        while self.failed.is_none() && !done(self) {
            if self.clock.micros() > limit || taken > 200 * steps + 2_000_000 {
                let open = self.checker.unsettled();
                self.fail(Violation::new(
                    "liveness",
                    format!("not settled after the faults ended: {open}"),
                ));
            } else if !self.step() {
                self.fail(Violation::new("liveness", "nothing happens any more".to_owned()));
            }
            taken += 1;
        }
        taken
    }

    /// Where the log is small: once everything is worked off and forgotten it takes a job, at the first try.
    fn one_more(&mut self, steps: u64) -> u64 {
        let key_ttl = u64::try_from(self.plan.limits.key_ttl.as_micros()).unwrap_or(u64::MAX);
        let mut taken = self.idle(key_ttl + 10 * SECOND);
        let caller = self.add_last_caller();
        taken += self.live_until(steps, |world| {
            world.checker.all_settled() && world.callers_are_done()
        });
        if !self.was_accepted(caller) {
            self.fail(Violation::new(
                "room",
                "everything is worked off and forgotten, and a job is refused".to_owned(),
            ));
        }
        taken
    }

    /// With nothing to do the driver sleeps: a minute costs it few turns.
    fn idle(&mut self, time: u64) -> u64 {
        let until = self.clock.micros() + time;
        let before = (self.wakes, self.next_call);
        let mut taken = 0;
        while self.failed.is_none()
            && self
                .queue
                .first_key_value()
                .is_some_and(|((at, _), _)| *at < until)
        {
            self.step();
            taken += 1;
        }
        let (wakes, calls) = (self.wakes - before.0, self.next_call - before.1);
        // Where results and keys go soon, each takes a wake-up with it.
        let forgotten = if self.checker.is_remembered() {
            0
        } else {
            2 * self.checker.accepted()
        };
        if wakes > IDLE_WAKES_MAX + IDLE_WAKES_PER_CALL * calls + forgotten {
            self.fail(Violation::new(
                "busy",
                format!("{wakes} wake-ups in an idle minute"),
            ));
        }
        taken
    }

    /// One happening. `false` if there is none.
    fn step(&mut self) -> bool {
        let Some(((at, _), happening)) = self.queue.pop_first() else {
            return false;
        };
        self.clock.advance_to(at);
        self.trace.line(at, || format!("{happening:?}"));
        self.happen(happening);
        if self.failed.is_none() {
            let checked = self.checker.tick(at);
            self.judge(checked);
        }
        true
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Inbound(boot, inbound) => self.inbound(boot, inbound),
            Happening::Answer(call, answer) => self.answer_arrives(call, *answer),
            Happening::HangUp(call) => self.hang_up(call),
            Happening::Lost(call) => self.lost(call),
            Happening::Wake(boot, wake) => self.wake(boot, wake),
            Happening::CommitStep(boot) => self.io_step(boot, true),
            Happening::ChoreStep(boot) => self.io_step(boot, false),
            Happening::NewOrders => self.new_orders(),
            Happening::Caller(caller) => self.caller_acts(caller),
            Happening::Bulk(bulk) => self.bulk_acts(bulk),
            Happening::Worker(worker, life, task) => self.worker_acts(worker, life, task),
            Happening::Operator => self.operator_acts(),
            Happening::Fault => self.fault(),
            Happening::Open => self.open(),
            Happening::Room => self.room_returns(),
            Happening::Cut(boot) => {
                if self.server.as_ref().is_some_and(|server| server.boot == boot) && !self.calm {
                    self.crash(true);
                }
            }
        }
    }

    fn answer_arrives(&mut self, call: CallId, answer: Answer) {
        match self.calls.remove(&call) {
            Some(Owner::Caller(caller)) => self.caller_hears(caller, call, &answer),
            Some(Owner::Bulk(bulk)) => self.bulk_hears(bulk, call, &answer),
            Some(Owner::Worker(worker, life)) => self.worker_hears(worker, life, call, answer),
            Some(Owner::Operator) => self.operator_hears(call, &answer),
            None => {}
        }
    }

    /// Whoever made the call never hears of it.
    fn lost(&mut self, call: CallId) {
        match self.calls.remove(&call) {
            Some(Owner::Caller(caller)) => self.caller_lost(caller, call),
            Some(Owner::Bulk(bulk)) => self.bulk_lost(bulk, call),
            Some(Owner::Worker(worker, life)) => self.worker_lost(worker, life, call),
            Some(Owner::Operator) => self.operator_lost(call),
            None => {}
        }
    }

    /// Makes a call: it travels, and may be cut off on the way.
    fn call(&mut self, owner: Owner, asked: Asked) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.calls.insert(call, owner);
        let travel = self.travel();
        let Some(server) = &self.server else {
            // Connection refused.
            self.after(travel, Happening::Lost(call));
            return call;
        };
        let boot = server.boot;
        let command = asked.command();
        self.checker.sent(call, asked);
        self.after(travel, Happening::Inbound(boot, Inbound::Call(call, command)));
        if !self.calm && self.rng.permille(self.plan.hangups) {
            let at = self.rng.skewed(0, 2 * SECOND);
            self.after(at, Happening::HangUp(call));
        }
        call
    }

    fn hang_up(&mut self, call: CallId) {
        if !self.calls.contains_key(&call) {
            return;
        }
        let travel = self.travel();
        if let Some(server) = &self.server {
            server.port.borrow_mut().hang_up(call);
            let boot = server.boot;
            self.after(travel, Happening::Inbound(boot, Inbound::Gone(call)));
        }
        self.checker.hung_up(call);
        self.lost(call);
    }

    fn order(&self, id: OrderId) -> Option<Rc<Order>> {
        usize::try_from(id.0)
            .ok()
            .and_then(|at| self.orders.get(at))
            .cloned()
    }

    fn add_order(&mut self, order: Order) -> Rc<Order> {
        let order = Rc::new(order);
        self.checker.order(Rc::clone(&order));
        self.orders.push(Rc::clone(&order));
        order
    }

    fn next_order_id(&self) -> OrderId {
        OrderId(u64::try_from(self.orders.len()).unwrap_or(u64::MAX))
    }

    fn travel(&mut self) -> u64 {
        self.rng.skewed(10, self.plan.net_max)
    }

    fn after(&mut self, micros: u64, happening: Happening) {
        self.at(self.clock.micros() + micros, happening);
    }

    fn at(&mut self, at: u64, happening: Happening) {
        self.scheduled += 1;
        // The upper half decides among simultaneous happenings, the lower half keeps keys apart.
        let tie = (self.rng.next() << 32) | (self.scheduled & u64::from(u32::MAX));
        self.queue.insert((at, tie), happening);
    }

    fn judge(&mut self, verdict: Result<(), Violation>) {
        if let Err(violation) = verdict {
            self.fail(violation);
        }
    }

    fn fail(&mut self, violation: Violation) {
        self.trace
            .line(self.clock.micros(), || format!("VIOLATION {violation}"));
        self.failed.get_or_insert(violation);
    }
}

/// The mark frame, timers that were set for what is settled by now, polls that end.
const IDLE_WAKES_MAX: u64 = 50;

/// Its wait, its linger, its mark frame, its delivered mark.
const IDLE_WAKES_PER_CALL: u64 = 5;
