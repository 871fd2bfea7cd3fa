//! The driver's door: commands come in, answers go out, each call gets exactly one.
//!
//! In: [`Command`]s, each with the [`CallId`] under which it wants its [`Answer`]. Notices want none.
//! The server fills the port from channels, the simulator from its simulated callers and workers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::bus::{Capabilities, Usage};
use crate::clock::WallMs;
use crate::dispatcher::event::LaneStats;
use crate::driver::refusal::Refusal;
use crate::job::{
    Group, IdempotencyKey, JobError, JobId, JobView, Payload, Priority, Processor, State, Status, Token,
};
use crate::policy::{Configured, Explained, PolicyBook, PolicyPatch, Table};

/// Names a call; its maker never uses one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Where commands come from and answers go to.
pub trait Port {
    /// The next thing from outside, or `None` if there is nothing now. Never blocks.
    fn take(&mut self) -> Option<Inbound>;

    /// Whether the caller of this open call is still there.
    fn waits(&self, call: CallId) -> bool;

    /// Answers a call. The driver answers each call once. A caller that is gone is the port's affair.
    fn answer(&mut self, call: CallId, answer: Answer);
}

/// What comes through the port.
#[derive(Debug)]
pub enum Inbound {
    /// A call that wants an answer.
    Call(CallId, Command),
    /// The caller of this call is gone: give back what it holds (a waiter's place, a poll's credit).
    Gone(CallId),
    /// The caller of this call sends no more, and may be gone: hold its answer for no longer than this. A poll takes
    /// no job from now on.
    Hurry {
        /// Its call.
        call: CallId,
        /// How much longer an outcome is waited for.
        hold_max: Duration,
    },
    /// These leases were written to their worker's connection.
    Delivered(Vec<Token>),
    /// These leases could not be written to their worker's connection.
    Undelivered(Vec<Token>),
    /// New policies.
    Policies(PolicyBook),
    /// Begin to drain: refuse submits, answer polls, let leased jobs settle for `grace`, then end.
    Stop {
        /// How long callers of leased jobs still wait.
        grace: Duration,
    },
}

/// What callers and workers ask for.
#[derive(Debug)]
pub enum Command {
    /// Take a job.
    Submit(Box<Submit>),
    /// Take many jobs, each on its own: one that is refused refuses no other.
    SubmitMany(Box<SubmitMany>),
    /// Show a job; with `wait`, once it has ended.
    Get {
        /// The job.
        id: JobId,
        /// How long to hold the answer for the outcome.
        wait: Option<Duration>,
    },
    /// Show many jobs, as they are: as many of the first as fit in one answer, at least one.
    GetMany(Vec<JobId>),
    /// Hand out batches.
    Lease(Box<Lease>),
    /// Take outcomes.
    Settle(Settle),
    /// Extend a lease.
    Extend {
        /// The lease.
        token: Token,
    },
    /// Let a lane hand nothing out, or let it go on. Durable before it is answered.
    Pause {
        /// Whose lane. It need not have a job yet.
        processor: Processor,
        /// Which.
        priority: Priority,
        /// Whether it pauses.
        paused: bool,
    },
    /// Show the policy in force.
    Policy {
        /// Whose.
        processor: Processor,
        /// Of which group; `None`: of all groups without a policy of their own.
        group: Option<Group>,
        /// In which lane.
        priority: Priority,
    },
    /// Change what is set over the API. Durable before it is answered.
    SetPolicy(Box<SetPolicy>),
    /// Count the lanes.
    Lanes,
    /// Describe the bus.
    Info,
}

/// A job on its way in. Sizes and names are checked before it gets here.
#[derive(Debug, Clone)]
pub struct Submit {
    /// Whose.
    pub processor: Processor,
    /// Which kind.
    pub group: Group,
    /// Which lane.
    pub priority: Priority,
    /// The data, as it came.
    pub payload: Payload,
    /// The client's own id.
    pub id: Option<JobId>,
    /// The caller's key.
    pub key: Option<String>,
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// The idempotency key, hashed.
    pub idempotency: Option<IdempotencyKey>,
    /// Hash over what makes a repeat the same submit (docs/http_api.md, section 1).
    pub fingerprint: u128,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// How long to hold the answer for the outcome.
    pub wait: Option<Duration>,
}

impl Submit {
    /// Whether a repeat of it is recognised: it has an id of its own or an idempotency key.
    #[must_use]
    pub const fn is_named(&self) -> bool {
        self.id.is_some() || self.idempotency.is_some()
    }
}

/// Many jobs on their way in, in their order.
#[derive(Debug, Clone)]
pub struct SubmitMany {
    /// The jobs. Their own `wait` is not looked at.
    pub jobs: Vec<Submit>,
    /// How long to hold the answer for the outcomes of all of them.
    pub wait: Option<Duration>,
    /// With `wait`: hold the call until all of its jobs can be waited for, rather than refuse those that cannot.
    pub patient: bool,
}

/// A worker's poll, with what it settles on the way.
#[derive(Debug, Clone)]
pub struct Lease {
    /// Whose jobs.
    pub processor: Processor,
    /// Who asks.
    pub worker: Arc<str>,
    /// Whether the worker lives in this process.
    pub in_process: bool,
    /// How many batches at most.
    pub slots: u32,
    /// Most jobs per batch.
    pub max_jobs: Option<u32>,
    /// Most wire bytes per batch.
    pub max_bytes: Option<u64>,
    /// How long to wait for a batch.
    pub wait: Duration,
    /// Which lanes, by [`Priority::index`].
    pub priorities: [bool; 3],
    /// The worker's own id of this poll.
    pub request_id: Option<Arc<str>>,
    /// Why the worker's program cannot start: it takes no batch.
    pub not_ready: Option<Arc<str>>,
    /// Settled first, durably.
    pub settle: Vec<Settle>,
}

/// Outcomes for the jobs of a lease.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The lease.
    pub token: Token,
    /// What it says.
    pub body: SettleBody,
}

/// Either per job, or for the batch as a whole.
#[derive(Debug, Clone)]
pub enum SettleBody {
    /// Per job.
    Outcomes {
        /// In the order of the request.
        outcomes: Vec<JobOutcome>,
        /// Whether the lease ends with it.
        last: bool,
    },
    /// The batch failed as a whole.
    Failed {
        /// With what.
        error: JobError,
        /// The program that ran the batch died: each unsettled job counts a crash, as if its lease had run out,
        /// instead of the batch being split.
        crashed: bool,
    },
}

/// What a worker says of one job.
#[derive(Debug, Clone)]
pub struct JobOutcome {
    /// The job.
    pub id: JobId,
    /// Its outcome, or why the request's outcome is refused (a limit, a bad child).
    pub said: Result<Said, Refusal>,
}

/// A valid outcome.
#[derive(Debug, Clone)]
pub enum Said {
    /// Done.
    Ok {
        /// What the handler gave back.
        result: Payload,
        /// Jobs to submit with it, wholly or not at all.
        children: Vec<Child>,
    },
    /// Failed.
    Error {
        /// What went wrong.
        error: JobError,
        /// Whether another try may help.
        retryable: bool,
        /// Not before this long from now.
        retry_after: Option<Duration>,
    },
    /// Given back.
    Release,
}

/// A job that an outcome submits.
#[derive(Debug, Clone)]
pub struct Child {
    /// Whose.
    pub processor: Processor,
    /// Which kind.
    pub group: Group,
    /// Which lane.
    pub priority: Priority,
    /// The data.
    pub payload: Payload,
    /// The caller's key.
    pub key: Option<String>,
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// A change of what is set over the API for one table of policies.
#[derive(Debug, Clone)]
pub struct SetPolicy {
    /// Whose.
    pub processor: Processor,
    /// Which table.
    pub table: Table,
    /// What is set; what it does not say stays as it was.
    pub patch: PolicyPatch,
    /// Keys that are no longer set.
    pub clear: Vec<&'static str>,
}

/// What a call gets.
#[derive(Debug)]
pub enum Answer {
    /// To a submit.
    Submitted(Box<Submitted>),
    /// To many submits: what became of each, in their order.
    SubmittedMany(Vec<Result<Taken, Refusal>>),
    /// To a get. `None` inside a refusal never happens: an unknown job is [`Refusal::UnknownJob`].
    Job(Box<JobView>),
    /// To a get of many: the first of them, in their order.
    Jobs(Vec<Result<JobView, Refusal>>),
    /// To a lease poll.
    Leased(Leased),
    /// To a settle.
    Settled(SettleAnswer),
    /// To an extend.
    Extended {
        /// How long until the lease ends.
        expires_in: Duration,
        /// Jobs that its worker no longer holds.
        lost: Vec<JobId>,
    },
    /// To `Pause`.
    Paused(LanePaused),
    /// To `Policy` and `SetPolicy`.
    Policy(Box<PolicyView>),
    /// To `Lanes`.
    Lanes(Vec<LaneStats>),
    /// To `Info`.
    Info(Box<Info>),
    /// Any call can be refused.
    Refused(Refusal),
}

/// The answer to a submit.
#[derive(Debug)]
pub struct Submitted {
    /// The job, as it is now.
    pub job: JobView,
    /// It was submitted before under the same id or key.
    pub replayed: bool,
    /// Workers that poll the processor or hold a lease of it.
    pub workers: u32,
    /// A processor of a near name that has workers, where this one has never had any.
    pub did_you_mean: Option<String>,
}

/// One of many jobs, taken: what a caller needs to know of it, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The job.
    pub id: JobId,
    /// What callers see of its life.
    pub status: Status,
    /// Where exactly it is.
    pub state: State,
    /// It was submitted before under the same id or key.
    pub replayed: bool,
}

/// The answer to a lease poll.
#[derive(Debug)]
pub struct Leased {
    /// Per settle of the request, in its order.
    pub settled: Vec<SettleAnswer>,
    /// The batches; empty if the wait ended first.
    pub batches: Vec<Batch>,
    /// The server drains: come back later, on another connection.
    pub draining: bool,
}

/// The answer to a settle.
#[derive(Debug, Clone)]
pub struct SettleAnswer {
    /// The lease.
    pub token: Token,
    /// Per outcome, in the order of the request; or why the whole settle is refused (unknown lease, disk full).
    pub results: Result<Vec<SettleResult>, Refusal>,
}

/// What became of one outcome.
#[derive(Debug, Clone)]
pub struct SettleResult {
    /// The job.
    pub id: JobId,
    /// What became of it.
    pub is: SettleIs,
}

/// What became of one outcome.
#[derive(Debug, Clone)]
pub enum SettleIs {
    /// It counts, and is durable.
    Applied {
        /// The ids of the child jobs it made.
        children: Vec<JobId>,
    },
    /// Back in its lane.
    Released,
    /// Settled before under this very token.
    Duplicate,
    /// Another lease was granted, or settled it.
    Late,
    /// Not in this lease.
    Unknown,
    /// Invalid or over a limit; nothing of it is applied.
    Refused(Refusal),
}

/// A batch as its worker gets it.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The lease.
    pub token: Token,
    /// Its lane.
    pub priority: Priority,
    /// When the lease ends, by the wall clock.
    pub expires_at: WallMs,
    /// How long until then.
    pub expires_in: Duration,
    /// Its jobs.
    pub jobs: Vec<BatchJob>,
}

/// A job as its worker gets it.
#[derive(Debug, Clone)]
pub struct BatchJob {
    /// The job.
    pub id: JobId,
    /// Its kind.
    pub group: Group,
    /// Attempts + 1.
    pub attempt: u32,
    /// How often it was handed out, this time included.
    pub delivery: u32,
    /// Its data: a slice of what was stored.
    pub payload: Payload,
    /// The caller's key.
    pub key: Option<String>,
    /// When it was accepted.
    pub submitted_at: WallMs,
    /// Names and values.
    pub labels: Vec<(String, String)>,
    /// W3C trace context.
    pub traceparent: Option<String>,
}

/// Whether a lane is paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanePaused {
    /// Whose lane.
    pub processor: Processor,
    /// Which.
    pub priority: Priority,
    /// Whether it is paused, durably.
    pub paused: bool,
}

/// A policy in force, and where it comes from.
#[derive(Debug, Clone)]
pub struct PolicyView {
    /// Whose.
    pub processor: Processor,
    /// Of which group; `None`: of all groups without a policy of their own.
    pub group: Option<Group>,
    /// In which lane.
    pub priority: Priority,
    /// Every key.
    pub keys: Vec<Explained>,
    /// What is set over the API, in every table of the processor, in force or not.
    pub set: Vec<(Table, PolicyPatch)>,
    /// What the configuration says in every table of the processor, in force or not.
    pub configured: Vec<Configured>,
    /// What of it is not in force, and why, in words.
    pub warnings: Vec<String>,
}

/// The bus, described.
#[derive(Debug, Clone)]
pub struct Info {
    /// What it can do.
    pub capabilities: Capabilities,
    /// How full it is.
    pub usage: Usage,
    /// Whether the server can take work, and why not.
    pub readiness: Readiness,
    /// Callers waiting now.
    pub waiters: u64,
    /// Processors that are known, those of submits in flight included.
    pub processors: u64,
}

/// Whether the server can take work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It can.
    Ready,
    /// The bus still reports what was pending.
    Recovering,
    /// It was asked to stop.
    Draining,
    /// There is no room for new work.
    DiskFull,
    /// The log is as large as it may be, and that is less than it needs.
    LogTooSmall,
    /// A sync failed; the process ends.
    Poisoned,
}

/// Result data shared without a copy.
#[must_use]
pub fn json(bytes: impl Into<Bytes>) -> Payload {
    Payload {
        content_type: None,
        bytes: bytes.into(),
    }
}
