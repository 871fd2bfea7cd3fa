//! A node: the real driver over the bus under test, a clock that only the test moves, and a port that the test
//! speaks through.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use jitney::clock::{Clock, Mono, Now, WallMs, after, between};
use jitney::driver::port::{
    Answer, Batch, CallId, Command, Inbound, Info, Leased, Port, Settle, SettleAnswer, SettleIs, Submitted,
};
use jitney::driver::refusal::Refusal;
use jitney::driver::{Driver, Ended, Options, Turn};
use jitney::job::{JobId, JobView, Token};
use jitney::limits::Limits;
use jitney::policy::PolicyBook;

use crate::harness::{Faulty, Harness, Restarts, limits};
use crate::words::{Job, Poll};

/// Turns until a node is quiet, at most; beyond this it would never be.
const TURNS_MAX: usize = 1_000_000;

/// The wall clock of the first start: some day in 2025.
const FIRST_WALL: WallMs = WallMs(1_750_000_000_000);

/// How long a restart takes, by the wall clock.
const RESTART: Duration = Duration::from_secs(2);

/// One node, in the boot that it is in.
pub(crate) struct Node<H: Harness> {
    pub(crate) harness: H,
    driver: Option<Driver<H::Bus, ManualClock, ScriptedPort>>,
    clock: ManualClock,
    port: ScriptedPort,
    limits: Limits,
    policies: PolicyBook,
    boots: u64,
    calls: u64,
    ended: Option<Ended>,
}

/// A call that is not answered yet, or whose answer was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Call(CallId);

impl<H: Harness> Node<H> {
    /// A node with the default policies, ready.
    pub(crate) fn start() -> Self {
        Self::start_with(PolicyBook::default())
    }

    /// A node with these policies, ready.
    pub(crate) fn start_with(policies: PolicyBook) -> Self {
        Self::start_bounded(policies, limits())
    }

    /// A node with the default policies and tighter limits, ready. What the bus itself bounds stays as it is.
    pub(crate) fn start_limited(tighten: impl FnOnce(&mut Limits)) -> Self {
        let mut limits = limits();
        tighten(&mut limits);
        Self::start_bounded(PolicyBook::default(), limits)
    }

    fn start_bounded(policies: PolicyBook, limits: Limits) -> Self {
        let mut node = Self {
            harness: H::new(),
            driver: None,
            clock: ManualClock::new(),
            port: ScriptedPort::default(),
            limits,
            policies,
            boots: 0,
            calls: 0,
            ended: None,
        };
        node.boot();
        node
    }

    fn boot(&mut self) {
        self.boots += 1;
        self.ended = None;
        let options = Options {
            limits: self.limits.clone(),
            policies: self.policies.clone(),
            seed: self.boots,
            metrics: std::sync::Arc::default(),
        };
        let bus = self.harness.open(self.clock.now());
        self.driver = Some(Driver::new(bus, self.clock.clone(), self.port.clone(), options));
        self.run();
        assert!(
            self.driver().is_ready(),
            "the bus reported everything but that it is ready"
        );
    }

    fn driver(&mut self) -> &mut Driver<H::Bus, ManualClock, ScriptedPort> {
        self.driver.as_mut().expect("the node runs")
    }

    /// Turns the driver until nothing more happens at this instant.
    pub(crate) fn run(&mut self) -> Option<Mono> {
        for _ in 0..TURNS_MAX {
            match self.driver().turn() {
                Turn::Ended(ended) => {
                    self.ended = Some(ended);
                    return None;
                }
                Turn::Idle(timer) if !self.harness.progress() => return timer,
                Turn::Idle(_) => {}
            }
        }
        panic!("the node never came to rest");
    }

    /// Time goes by, from timer to timer as it would for the server.
    pub(crate) fn advance(&mut self, duration: Duration) {
        let target = after(self.clock.now().mono, duration);
        for _ in 0..TURNS_MAX {
            match self.run() {
                Some(timer) if timer <= target && timer > self.clock.now().mono => self.clock.move_to(timer),
                Some(timer) if timer <= self.clock.now().mono => panic!("a timer of the past: {timer:?}"),
                _ => {
                    self.clock.move_to(target);
                    self.run();
                    return;
                }
            }
        }
        panic!("timers without end before {target:?}");
    }

    pub(crate) fn now(&self) -> Now {
        self.clock.now()
    }

    /// Somebody sets the wall clock back.
    pub(crate) fn set_clock_back(&self, by: Duration) {
        self.clock.set_back(by);
    }

    /// How the driver ended, if it has.
    pub(crate) const fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }

    // Calls: raw, then each kind.

    pub(crate) fn call(&mut self, command: Command) -> Call {
        let call = self.post(command);
        self.run();
        call
    }

    /// Leaves a call at the door; [`Node::run`] lets it in.
    pub(crate) fn post(&mut self, command: Command) -> Call {
        self.calls += 1;
        let call = CallId(self.calls);
        self.port.with(|door| {
            door.open.insert(call);
            door.inbox.push_back(Inbound::Call(call, command));
        });
        Call(call)
    }

    /// Takes the answer to a call, if it came.
    pub(crate) fn answer(&mut self, call: Call) -> Option<Answer> {
        self.port.with(|door| door.answers.remove(&call.0))
    }

    /// The answer to a call that must have come.
    fn answered(&mut self, call: Call) -> Answer {
        self.answer(call).expect("the call is answered at once")
    }

    pub(crate) fn notify(&mut self, notice: Inbound) {
        self.port.with(|door| door.inbox.push_back(notice));
        self.run();
    }

    /// The caller's connection is gone.
    pub(crate) fn hang_up(&mut self, call: Call) {
        self.port.with(|door| door.open.remove(&call.0));
        self.notify(Inbound::Gone(call.0));
    }

    /// The caller sends no more, and may be gone.
    pub(crate) fn hurry(&mut self, call: Call, hold_max: Duration) {
        let call = call.0;
        self.notify(Inbound::Hurry { call, hold_max });
    }

    /// Submits a job that must be accepted.
    pub(crate) fn submit(&mut self, job: Job) -> JobId {
        self.try_submit(job).expect("the job is accepted").job.id
    }

    pub(crate) fn try_submit(&mut self, job: Job) -> Result<Submitted, Refusal> {
        let call = self.call(Command::Submit(Box::new(job.0)));
        self.submitted(call)
            .expect("a submit without wait is answered at once")
    }

    /// Submits a job whose caller waits; [`Node::submitted`] has its answer.
    pub(crate) fn submit_and_wait(&mut self, job: Job) -> Call {
        assert!(job.0.wait.is_some(), "say how long with `wait`");
        self.call(Command::Submit(Box::new(job.0)))
    }

    /// What the caller of a submit was told.
    pub(crate) fn submitted(&mut self, call: Call) -> Option<Result<Submitted, Refusal>> {
        Some(match self.answer(call)? {
            Answer::Submitted(submitted) => Ok(*submitted),
            Answer::Refused(refusal) => Err(refusal),
            other => panic!("no answer to a submit: {other:?}"),
        })
    }

    /// Why a call was refused, if it was; any other answer stays for later.
    pub(crate) fn peek_refusal(&mut self, call: Call) -> Option<Refusal> {
        self.port.with(|door| match door.answers.get(&call.0) {
            Some(Answer::Refused(refusal)) => Some(refusal.clone()),
            _ => None,
        })
    }

    pub(crate) fn get(&mut self, id: JobId) -> Result<JobView, Refusal> {
        let call = self.call(Command::Get { id, wait: None });
        match self.answered(call) {
            Answer::Job(job) => Ok(*job),
            Answer::Refused(refusal) => Err(refusal),
            other => panic!("no answer to a read: {other:?}"),
        }
    }

    /// The result of a job that must have ended well.
    pub(crate) fn result(&mut self, id: JobId) -> Vec<u8> {
        let job = self.get(id).expect("the job is known");
        job.result
            .unwrap_or_else(|| panic!("the job ended well: {}", job.status.name()))
            .bytes
            .to_vec()
    }

    /// What is there to be leased now; the batches reach their worker.
    pub(crate) fn lease(&mut self, poll: Poll) -> Vec<Batch> {
        let call = self.poll(poll);
        self.leased(call)
            .expect("a poll without wait is answered at once")
            .batches
    }

    /// The one batch that is there to be leased now.
    pub(crate) fn lease_one(&mut self, poll: Poll) -> Batch {
        let mut batches = self.lease(poll);
        assert_eq!(batches.len(), 1, "one batch is there");
        batches.remove(0)
    }

    /// A poll that may wait; [`Node::leased`] has its answer.
    pub(crate) fn poll(&mut self, poll: Poll) -> Call {
        self.call(Command::Lease(Box::new(poll.0)))
    }

    /// The answer to a poll, which reaches its worker.
    pub(crate) fn leased(&mut self, call: Call) -> Option<Leased> {
        let leased = self.leased_in_transit(call)?;
        let tokens: Vec<Token> = leased.batches.iter().map(|batch| batch.token).collect();
        if !tokens.is_empty() {
            self.notify(Inbound::Delivered(tokens));
        }
        Some(leased)
    }

    /// The answer to a poll, before anybody knows whether it reaches its worker.
    pub(crate) fn leased_in_transit(&mut self, call: Call) -> Option<Leased> {
        Some(match self.answer(call)? {
            Answer::Leased(leased) => leased,
            other => panic!("no answer to a poll: {other:?}"),
        })
    }

    /// What each outcome of a settle is told.
    pub(crate) fn settle(&mut self, settle: Settle) -> Vec<&'static str> {
        self.try_settle(settle).expect("the settle is taken")
    }

    pub(crate) fn try_settle(&mut self, settle: Settle) -> Result<Vec<&'static str>, Refusal> {
        let call = self.call(Command::Settle(settle));
        self.settled(call).expect("a settle is answered at once")
    }

    /// The whole answer to a settle that is taken at once.
    pub(crate) fn settle_whole(&mut self, settle: Settle) -> SettleAnswer {
        let call = self.call(Command::Settle(settle));
        match self.answered(call) {
            Answer::Settled(answer) => answer,
            other => panic!("no answer to a settle: {other:?}"),
        }
    }

    pub(crate) fn settled(&mut self, call: Call) -> Option<Result<Vec<&'static str>, Refusal>> {
        Some(match self.answer(call)? {
            Answer::Settled(answer) => Ok(verdicts(&answer)),
            Answer::Refused(refusal) => Err(refusal),
            other => panic!("no answer to a settle: {other:?}"),
        })
    }

    /// A heartbeat: how long the lease has now, and which of its jobs are lost.
    pub(crate) fn extend(&mut self, token: Token) -> Result<(Duration, Vec<JobId>), Refusal> {
        let call = self.call(Command::Extend { token });
        match self.answered(call) {
            Answer::Extended { expires_in, lost } => Ok((expires_in, lost)),
            Answer::Refused(refusal) => Err(refusal),
            other => panic!("no answer to a heartbeat: {other:?}"),
        }
    }

    pub(crate) fn info(&mut self) -> Info {
        let call = self.call(Command::Info);
        match self.answered(call) {
            Answer::Info(info) => *info,
            other => panic!("no answer to `Info`: {other:?}"),
        }
    }

    /// Asks the node to drain and end.
    pub(crate) fn stop(&mut self, grace: Duration) {
        self.notify(Inbound::Stop { grace });
    }

    /// The process is gone: its bus, its calls, its connections.
    fn end_process(&mut self) {
        self.driver = None;
        self.port.with(|door| *door = Door::default());
    }

    /// A new process: its monotonic clock begins anew, the wall clock went on.
    fn begin_process(&mut self) {
        self.clock.restart(RESTART);
        self.boot();
    }
}

impl<H: Restarts> Node<H> {
    /// Kill -9, and a new start.
    pub(crate) fn kill_and_restart(&mut self) {
        self.end_process();
        self.harness.kill();
        self.begin_process();
    }

    /// A new start after the node ended as asked.
    pub(crate) fn restart_after_stop(&mut self) {
        assert_eq!(self.ended, Some(Ended::Stopped), "the node ended as asked");
        self.kill_and_restart();
    }
}

impl<H: Faulty> Node<H> {
    /// The power goes, and comes back.
    pub(crate) fn cut_power_and_restart(&mut self, seed: u64) {
        self.end_process();
        self.harness.cut_power(seed);
        self.begin_process();
    }
}

fn verdicts(answer: &SettleAnswer) -> Vec<&'static str> {
    let results = answer.results.as_ref().expect("the settle is taken");
    let verdict = |is: &SettleIs| match is {
        SettleIs::Applied { .. } => "applied",
        SettleIs::Released => "released",
        SettleIs::Duplicate => "duplicate",
        SettleIs::Late => "late",
        SettleIs::Unknown => "unknown",
        SettleIs::Refused(refusal) => refusal.code(),
    };
    results.iter().map(|result| verdict(&result.is)).collect()
}

/// A clock that only the test moves: both hands go together, and a restart sets `mono` back.
#[derive(Clone)]
struct ManualClock(Rc<Cell<Hands>>);

#[derive(Clone, Copy)]
struct Hands {
    mono: Mono,
    /// The wall clock at the start of the process.
    started: WallMs,
}

/// What `mono` is at the start of a process.
const START: Mono = Mono(1);

impl ManualClock {
    fn new() -> Self {
        Self(Rc::new(Cell::new(Hands {
            mono: START,
            started: FIRST_WALL,
        })))
    }

    fn move_to(&self, mono: Mono) {
        self.0.set(Hands { mono, ..self.0.get() });
    }

    /// Somebody sets the wall clock back.
    fn set_back(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap();
        let hands = self.0.get();
        self.0.set(Hands {
            started: WallMs(hands.started.0 - by),
            ..hands
        });
    }

    fn restart(&self, took: Duration) {
        self.0.set(Hands {
            mono: START,
            started: later(self.now().wall, took),
        });
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Now {
        let Hands { mono, started } = self.0.get();
        Now {
            mono,
            wall: later(started, between(START, mono)),
        }
    }
}

fn later(wall: WallMs, by: Duration) -> WallMs {
    WallMs(wall.0 + u64::try_from(by.as_millis()).unwrap())
}

/// A port that a test fills and reads. It fails the test if a call is answered twice.
#[derive(Clone, Default)]
struct ScriptedPort(Rc<RefCell<Door>>);

#[derive(Default)]
struct Door {
    inbox: VecDeque<Inbound>,
    answers: HashMap<CallId, Answer>,
    /// Calls whose caller waits for the answer.
    open: HashSet<CallId>,
    answered: HashSet<CallId>,
}

impl ScriptedPort {
    fn with<T>(&self, act: impl FnOnce(&mut Door) -> T) -> T {
        act(&mut self.0.borrow_mut())
    }
}

impl Port for ScriptedPort {
    fn take(&mut self) -> Option<Inbound> {
        self.with(|door| door.inbox.pop_front())
    }

    fn waits(&self, call: CallId) -> bool {
        self.with(|door| door.open.contains(&call))
    }

    fn answer(&mut self, call: CallId, answer: Answer) {
        self.with(|door| {
            assert!(
                door.answered.insert(call),
                "{call:?} is answered twice, now with {answer:?}"
            );
            if door.open.remove(&call) {
                door.answers.insert(call, answer);
            }
        });
    }
}
