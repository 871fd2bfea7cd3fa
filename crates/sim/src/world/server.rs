//! The server of one boot: the real driver over the simulated port, clock, bus and disk.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use jitney::bus::log::{LogBus, options};
use jitney::bus::{Bus, MemoryBus, Retention};
use jitney::clock::Clock;
use jitney::driver::port::{Answer, CallId, Inbound};
use jitney::driver::{Driver, Ended, Options, Turn};
use jitney::job::JobId;
use joblog::log::Log;

use super::{Happening, SECOND, World};
use crate::checker::Violation;
use crate::clock::SimClock;
use crate::disk::{Hands, SimExecutor, SimStorage, Step};
use crate::observed::ObservedBus;
use crate::port::{PortState, SimPort};
use crate::random::Rng;
use crate::tape::{Seen, Tape, Written};

/// Turns without any time passing, or anything coming in, beyond which the driver runs in circles.
const RESTLESS_MAX: u32 = 1_000;

/// Cache of the simulated log: small, so that payloads are read back from the disk.
const CACHE_BYTES: usize = 8 << 10;

/// A running server.
pub(super) struct Server {
    pub(super) boot: u64,
    pub(super) port: Rc<RefCell<PortState>>,
    driver: Driver<ObservedBus, SimClock, SimPort>,
    hands: Rc<RefCell<Hands>>,
    tape: Tape,
    /// The last wake-up that is in the queue, and its number.
    wake_at: u64,
    wake: u64,
    /// Turns since time last moved.
    restless: u32,
    turned_at: u64,
}

impl World {
    /// Starts the server over whatever the disk holds.
    pub(super) fn open(&mut self) {
        self.reopening = false;
        if self.server.is_some() {
            return;
        }
        self.boots += 1;
        let fuse = (!self.calm && self.boots > 1 && self.plan.faults.power && self.rng.permille(150))
            .then(|| self.rng.below(40));
        let hands = Rc::new(RefCell::new(Hands::new(self.sabotage.disk())));
        let Some(bus) = self.open_bus(fuse, &hands) else {
            return;
        };
        let tape = Tape::default();
        let bus = ObservedBus::new(bus, Rc::clone(&tape), self.sabotage);
        let opened = self.checker.booted(self.boots, bus.identity());
        self.judge(opened);
        if self.disk_full || self.armed {
            self.checker.disk_was_full();
        }
        let port = Rc::new(RefCell::new(PortState::new(self.sabotage)));
        let options = Options {
            limits: self.plan.limits.clone(),
            policies: self.plan.policies.clone(),
            seed: self.rng.next(),
            metrics: Arc::default(),
        };
        let sim_port = SimPort::new(Rc::clone(&port), Rc::clone(&tape));
        self.server = Some(Server {
            boot: self.boots,
            driver: Driver::new(bus, self.clock.clone(), sim_port, options),
            port,
            hands,
            tape,
            wake_at: u64::MAX,
            wake: 0,
            restless: 0,
            turned_at: 0,
        });
        self.turn();
    }

    /// `None`: the start failed, as it may while faults are about; another is scheduled.
    fn open_bus(&mut self, fuse: Option<u64>, hands: &Rc<RefCell<Hands>>) -> Option<Box<dyn Bus>> {
        if self.plan.memory {
            let limits = &self.plan.limits;
            let retention = Retention {
                result_ttl: limits.result_ttl,
                key_ttl: limits.key_ttl,
                results_max: limits.results_max,
            };
            return Some(Box::new(MemoryBus::new(self.rng.next(), retention)));
        }
        let storage = SimStorage::new(self.disk.clone(), fuse, self.sabotage.disk());
        let mut options = options(&self.plan.limits, self.plan.segment_bytes, CACHE_BYTES);
        options.frame_bytes_max = 48 << 10;
        options.group_bytes_max = 16 << 10;
        let mut random = Rng::new(self.rng.next());
        let random = Box::new(move || random.next());
        match Log::open(storage.clone(), options, random, self.clock.now()) {
            Ok(opened) => {
                storage.disarm();
                self.trace
                    .line(self.clock.micros(), || format!("opened: {:?}", opened.report));
                let bus = LogBus::new(opened.log, SimExecutor(Rc::clone(hands)));
                Some(Box::new(bus.holding_commits()))
            }
            Err(error) if fuse.is_some() || self.armed => {
                self.trace.line(self.clock.micros(), || {
                    format!("the power went during the start: {error}")
                });
                self.power_cut();
                self.schedule_open();
                None
            }
            Err(error) => {
                self.fail(Violation::new("start", format!("the log does not open: {error}")));
                None
            }
        }
    }

    pub(super) fn inbound(&mut self, boot: u64, inbound: Inbound) {
        let Some(server) = self.server.as_ref().filter(|server| server.boot == boot) else {
            return;
        };
        if let Inbound::Call(call, _) = &inbound
            && !self.calls.contains_key(call)
        {
            return;
        }
        server.port.borrow_mut().push(inbound);
        // Sometimes more comes before the driver looks.
        if self.rng.permille(900) || self.calm {
            self.turn();
        } else {
            let soon = self.rng.below(300);
            self.wake_in(soon);
        }
    }

    pub(super) fn wake(&mut self, boot: u64, wake: u64) {
        if self
            .server
            .as_ref()
            .is_some_and(|server| server.boot == boot && server.wake == wake)
        {
            self.wakes += 1;
            self.turn();
        }
    }

    pub(super) fn io_step(&mut self, boot: u64, commit: bool) {
        let Some(server) = self.server.as_ref().filter(|server| server.boot == boot) else {
            return;
        };
        let mut hands = server.hands.borrow_mut();
        let step = if commit {
            hands.step_commit()
        } else {
            hands.step_chore()
        };
        drop(hands);
        self.trace.line(self.clock.micros(), || format!("  {step:?}"));
        if step == Step::LateSync {
            return;
        }
        if step == Step::Write(true) && self.sabotage.disk().is_some() {
            let late = self.rng.range(1, SECOND);
            self.after(late, Happening::CommitStep(boot));
        }
        self.turn();
    }

    /// One turn of the driver, and what comes of it.
    pub(super) fn turn(&mut self) {
        let now = self.clock.micros();
        let Some(server) = &mut self.server else { return };
        server.port.borrow_mut().begin_turn();
        server.restless = if server.turned_at == now {
            server.restless + 1
        } else {
            0
        };
        server.turned_at = now;
        let restless = server.restless > RESTLESS_MAX;
        let turn = server.driver.turn();
        let tape = std::mem::take(&mut *server.tape.borrow_mut());
        let mut hands = server.hands.borrow_mut();
        let (commit, chore, boot) = (hands.wants_commit_step(), hands.wants_chore_step(), server.boot);
        drop(hands);
        if restless {
            self.fail(Violation::new(
                "busy",
                format!("{RESTLESS_MAX} turns without time passing"),
            ));
        }
        let ended = matches!(turn, Turn::Ended(_));
        self.read_tape(tape, boot, ended);
        if commit {
            let io = self.io_time();
            self.after(io, Happening::CommitStep(boot));
        }
        if chore {
            let io = self.io_time() * 3;
            self.after(io, Happening::ChoreStep(boot));
        }
        match turn {
            Turn::Idle(Some(at)) => self.wake_in(at.0.saturating_sub(now)),
            Turn::Idle(None) => {}
            Turn::Ended(ended) => self.server_ended(&ended),
        }
    }

    fn wake_in(&mut self, micros: u64) {
        let at = self.clock.micros() + micros;
        let Some(server) = &mut self.server else { return };
        if server.wake_at > self.clock.micros() && server.wake_at <= at && server.wake > 0 {
            // An earlier one is on its way, and asks again.
            return;
        }
        server.wake += 1;
        server.wake_at = at;
        let (boot, wake) = (server.boot, server.wake);
        self.at(at, Happening::Wake(boot, wake));
    }

    fn io_time(&mut self) -> u64 {
        if !self.calm && self.plan.faults.stalls && self.rng.permille(20) {
            return self.rng.range(SECOND, 4 * SECOND);
        }
        self.rng.skewed(5, self.plan.io_max)
    }

    fn read_tape(&mut self, tape: Vec<Seen>, boot: u64, ended: bool) {
        let now = self.clock.micros();
        for seen in tape {
            if self.failed.is_some() {
                return;
            }
            self.trace.line(now, || format!("  {seen:?}"));
            let verdict = self.checker.seen(now, &seen);
            self.judge(verdict);
            match seen {
                Seen::Answer(call, answer) => self.send(call, *answer, boot),
                Seen::Append { records, .. } => self.parents.extend(records.iter().filter_map(parent)),
                _ => {}
            }
        }
        let Some(server) = &mut self.server else { return };
        let verdict = self.checker.turned(now, server.driver.bus(), ended);
        self.judge(verdict);
    }

    /// An answer leaves the server. It may get lost, and the server may hear whether it was written.
    fn send(&mut self, call: CallId, answer: Answer, boot: u64) {
        let travel = self.travel();
        let present = self.calls.contains_key(&call);
        let mut arrives = present;
        if let Answer::Leased(leased) = &answer
            && !leased.batches.is_empty()
        {
            let tokens: Vec<_> = leased.batches.iter().map(|batch| batch.token).collect();
            self.tokens.extend(&tokens);
            let odd = !self.calm && self.rng.permille(self.plan.hangups);
            let mut written = present;
            if odd {
                // Written and lost, half written, or read although the write failed.
                written = self.rng.permille(500);
                arrives &= self.rng.permille(300);
            }
            let notice = if written {
                Inbound::Delivered(tokens)
            } else {
                Inbound::Undelivered(tokens)
            };
            let later = self.rng.skewed(1, self.plan.net_max);
            self.after(later, Happening::Inbound(boot, notice));
        }
        if self.plan.faults.after_answers && !self.calm && self.rng.permille(4) {
            let soon = self.rng.below(50);
            self.after(soon, Happening::Cut(boot));
        }
        if arrives {
            self.after(travel, Happening::Answer(call, Box::new(answer)));
        } else if present {
            self.after(travel + SECOND, Happening::Lost(call));
        }
    }

    fn server_ended(&mut self, ended: &Ended) {
        let now = self.clock.micros();
        let verdict = self.checker.ended(now, ended);
        self.judge(verdict);
        match ended {
            // After a clean end a power cut takes nothing.
            Ended::Stopped => self.crash(true),
            Ended::Poisoned => {
                let power = self.rng.permille(500);
                self.crash(power);
            }
        }
    }

    /// The process ends at once; with `power` the machine does.
    pub(super) fn crash(&mut self, power: bool) {
        let Some(server) = self.server.take() else { return };
        drop(server);
        self.trace
            .line(self.clock.micros(), || format!("crash, power {power}"));
        self.checker.crashed(self.clock.micros(), power);
        if power {
            self.power_cut();
        } else {
            self.disk = self.disk.kill();
            self.armed = false;
        }
        for call in self.calls.keys().copied().collect::<Vec<_>>() {
            let travel = self.travel();
            self.after(travel, Happening::Lost(call));
        }
        self.forget_in_process_workers();
        self.schedule_open();
    }

    fn power_cut(&mut self) {
        let seed = self.rng.next();
        self.disk = self.disk.crash(seed);
        self.armed = false;
        self.checker.crashed(self.clock.micros(), true);
    }

    pub(super) fn schedule_open(&mut self) {
        if !self.reopening {
            self.reopening = true;
            let pause = self.rng.skewed(1_000, 20 * SECOND);
            self.after(pause, Happening::Open);
        }
    }

    /// The bus of the running server, to be looked into after the last restart.
    pub(super) fn audit(&mut self) {
        let now = self.clock.micros();
        if let Some(server) = &mut self.server {
            let verdict = self.checker.audit(now, server.driver.bus());
            self.judge(verdict);
        }
    }
}

/// A job that may have children, and its place in the order of acceptance.
const fn parent(record: &Written) -> Option<(JobId, u64)> {
    match record {
        Written::Submit {
            id,
            parent: None,
            sequence,
            ..
        } => Some((*id, *sequence)),
        _ => None,
    }
}
