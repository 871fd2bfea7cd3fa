//! What can happen to the dispatcher, and what it wants done about it.

use std::sync::Arc;
use std::time::Duration;

use crate::bus::{Arrival, RecoveredLease};
use crate::clock::{Mono, WallMs};
use crate::job::{Cause, End, JobId, Priority, Processor, Reason, State, Token};
use crate::policy::{PolicyBook, ProcessorPolicy};

/// Names a worker's poll; the driver makes it, unique in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PollId(pub u64);

/// Names a settle or extend that wants an answer; the driver makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Everything that can happen. Time is the second argument of `step`, not an event of its own.
#[derive(Clone, Debug)]
pub enum Event {
    /// Durable jobs came from the bus, as many as became durable together: polls are served once all are here.
    Arrived(Vec<Arrival>),
    /// After a restart: a lease that was alive. Its jobs arrived before.
    Recovered(RecoveredLease),
    /// A job is no longer this node's.
    Gone(JobId),
    /// A worker asks for batches.
    Poll(Poll),
    /// The connection of a poll died: its credit is void.
    PollGone(PollId),
    /// The dispatch record of a granted lease was written: the batch may be handed out.
    GrantWritten(Token),
    /// The dispatch record could not be written, or the batch was not handed out: nothing is counted.
    GrantFailed(Token),
    /// The batch was written to the worker's connection.
    Delivered(Token),
    /// The batch could not be written to the worker's connection: back to the lane at once.
    Undelivered(Token),
    /// A worker reports outcomes.
    Settle(Settle),
    /// A worker's heartbeat.
    Extend {
        /// Who wants the answer.
        request: RequestId,
        /// The lease.
        token: Token,
    },
    /// The changes decided for these jobs are durable: carry them out.
    Committed(Vec<JobId>),
    /// The changes decided for these jobs could not be written: the jobs stay as they were.
    CommitFailed(Vec<JobId>),
    /// New policies, in force from the next decision on.
    Policies(PolicyBook),
    /// New policies of one processor; the others have theirs. `None`: the defaults.
    Policy(Processor, Option<Box<ProcessorPolicy>>),
    /// A lane hands nothing out from now on, or again. What is leased goes on; jobs go on arriving.
    Pause {
        /// Whose lane. One that is not known is known from now on if it is paused.
        processor: Processor,
        /// Which.
        priority: Priority,
        /// Whether it pauses.
        paused: bool,
    },
    /// `true`: nothing can be written, so no lease and no batch timeout ends until it is `false` again.
    Stalled(bool),
    /// No batch is formed from now on; pending polls are answered empty.
    Drain,
    /// Only time went by.
    Tick,
}

/// A worker's poll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// Its name.
    pub id: PollId,
    /// Whose jobs.
    pub processor: Processor,
    /// Who asks.
    pub worker: Arc<str>,
    /// Whether the worker lives in this process.
    pub in_process: bool,
    /// How many batches it takes at most; 1 or more.
    pub slots: u32,
    /// Most jobs in a batch, if it wants fewer than the policy.
    pub max_jobs: Option<u32>,
    /// Most wire bytes in a batch, if it wants fewer than the policy.
    pub max_bytes: Option<u64>,
    /// Which lanes, by [`Priority::index`].
    pub priorities: [bool; 3],
    /// When it is answered empty.
    pub until: Mono,
    /// The worker's own id of the poll; the same again gives the same batches again.
    pub request_id: Option<Arc<str>>,
    /// Why the worker's program cannot start. Such a poll takes no batch: while it waits it says that the worker is
    /// there.
    pub not_ready: Option<Arc<str>>,
}

/// A worker's report about the jobs of a lease. Payloads stay with the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    /// Who wants the answer.
    pub request: RequestId,
    /// The lease.
    pub token: Token,
    /// Per job; the first of two for one job wins.
    pub outcomes: Vec<(JobId, Report)>,
    /// The batch failed as a whole: every unsettled job of the lease is split off.
    pub failed: bool,
    /// With `failed`: the program that ran the batch died, so the unsettled jobs count a crash each, as if the
    /// lease had run out.
    pub crashed: bool,
    /// The lease ends: a job left unnamed counts as a failed try.
    pub last: bool,
}

/// What a worker says of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Done.
    Ok,
    /// Failed.
    Error {
        /// Whether another try may help.
        retryable: bool,
        /// Not before this long from now, if the worker says so.
        retry_after: Option<Duration>,
    },
    /// Given back, nothing counted.
    Release,
    /// The driver found this outcome invalid. With `last` it counts as a failed try, else nothing changes.
    Refused,
}

/// What the dispatcher wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Answer this poll. Fresh grants are written to the bus first (`Dispatch`, unsynced), then handed out.
    /// No grants: the poll's wait is over, it was replaced, or the server drains.
    Answer {
        /// The poll.
        poll: PollId,
        /// Its batches.
        grants: Vec<Grant>,
    },
    /// Write these changes in one append; report `Committed` or `CommitFailed` for the jobs that change.
    Decide(Decisions),
    /// Answer this heartbeat.
    Extended(Extended),
    /// The token was never made by this server: answer `unknown_lease`.
    UnknownLease(RequestId),
}

/// A batch for a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The lease.
    pub token: Token,
    /// Its lane.
    pub priority: Priority,
    /// How long until the lease ends without a heartbeat.
    pub term: Duration,
    /// Its jobs, in the order of the batch.
    pub jobs: Vec<GrantedJob>,
    /// `false`: the poll was repeated, the lease exists, its dispatch record too.
    pub fresh: bool,
    /// Why the batch closed; a metric label.
    pub closed_by: ClosedBy,
}

/// A job in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantedJob {
    /// The job.
    pub id: JobId,
    /// Attempts + 1.
    pub attempt: u32,
    /// How often it was handed out, this time included.
    pub delivery: u32,
}

/// Why a batch closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClosedBy {
    /// `max_jobs` reached.
    Full,
    /// The next job would exceed `max_bytes`.
    Bytes,
    /// Nothing of the queue was in flight.
    Idle,
    /// `min_jobs` reached.
    Hint,
    /// The oldest job waited `max_delay`.
    Delay,
    /// The lane was owed its share.
    Share,
    /// REALTIME, a batch of one, a retried batch: nothing to wait for.
    Alone,
}

/// Changes that become durable together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decisions {
    /// Who wants the answer; `None`: the dispatcher decided by itself (a lease ended).
    pub request: Option<RequestId>,
    /// The lease.
    pub token: Token,
    /// Who held it; empty if the lease is no longer remembered.
    pub worker: Arc<str>,
    /// Per job: first those that the settle named, in its order, then those that it left unnamed.
    pub jobs: Vec<Decision>,
}

/// What becomes of one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The job.
    pub job: JobId,
    /// What the settle's caller is told; `None` for a job that it did not name.
    pub verdict: Option<Verdict>,
    /// What is to be written; `None`: nothing changes.
    pub change: Option<Change>,
}

/// What a settle's caller is told of one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It counts.
    Applied,
    /// Back in its lane.
    Released,
    /// Settled before under this very token.
    Duplicate,
    /// Another lease was granted, or settled it.
    Late,
    /// Not in this lease.
    Unknown,
    /// The driver refused it.
    Refused,
    /// No unsettled job of this id: the driver looks into the results whether it is `Duplicate`, `Late`
    /// or `Unknown`.
    Ended,
}

/// What is to be written for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The job ends.
    Finish(Finish),
    /// The job goes back to its lane.
    Requeue(Requeue),
}

/// The end of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// How.
    pub end: End,
    /// Why.
    pub reason: Option<Reason>,
    /// What ended the last try where no outcome did: the driver makes the error of it
    /// (`missing_outcome`, `crashed`, the batch's own error).
    pub cause: Option<Cause>,
    /// Counted tries.
    pub attempts: u32,
    /// Counted crashes.
    pub crashes: u32,
    /// When it was first handed out.
    pub started: Option<WallMs>,
    /// How long its result is kept, if not the server's default.
    pub keep: Option<Duration>,
}

/// A job's way back to its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requeue {
    /// What sent it back.
    pub cause: Cause,
    /// Not before this instant; `None`: at once.
    pub due: Option<WallMs>,
    /// Whether it travels alone from now on.
    pub alone: bool,
    /// Counted tries.
    pub attempts: u32,
    /// Counted crashes.
    pub crashes: u32,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extended {
    /// Who asked.
    pub request: RequestId,
    /// The lease.
    pub token: Token,
    /// How long until the lease ends; `None`: every job of it is lost.
    pub term: Option<Duration>,
    /// Jobs of the lease that another lease holds, or that ended otherwise.
    pub lost: Vec<JobId>,
    /// Jobs taken back from their lane after the term ran out: the driver writes their dispatch again.
    pub retaken: Vec<JobId>,
    /// Who holds the lease; for that record.
    pub worker: Arc<str>,
    /// Whether the worker lives in this process; for that record.
    pub in_process: bool,
    /// The poll's own id; for that record.
    pub request_id: Option<Arc<str>>,
}

/// Where an unsettled job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobStatus {
    /// Where.
    pub state: State,
    /// Counted tries.
    pub attempts: u32,
    /// Counted crashes.
    pub crashes: u32,
    /// When it was first handed out.
    pub started: Option<WallMs>,
}

/// How many jobs ended, by how they did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// `processed_ok`.
    pub ok: u64,
    /// `processed_error`.
    pub error: u64,
    /// `batch_failed`.
    pub failed: u64,
}

impl Ended {
    /// One more.
    pub const fn count(&mut self, end: End) {
        match end {
            End::Ok => self.ok += 1,
            End::Error => self.error += 1,
            End::Failed => self.failed += 1,
        }
    }

    /// All of them.
    #[must_use]
    pub const fn all(&self) -> u64 {
        self.ok + self.error + self.failed
    }
}

/// One lane, counted.
#[derive(Clone, Debug, PartialEq)]
pub struct LaneStats {
    /// Whose.
    pub processor: Processor,
    /// Which.
    pub priority: Priority,
    /// It hands nothing out until somebody resumes it.
    pub paused: bool,
    /// Ready to go.
    pub queued: u64,
    /// Leased.
    pub running: u64,
    /// Waiting for their next try.
    pub retrying: u64,
    /// Given up, and can still be read: the bus knows them.
    pub dead: u64,
    /// How long the oldest queued job has waited.
    pub oldest_age: Option<Duration>,
    /// Workers that poll now for batches or hold a lease of the processor.
    pub workers: u32,
    /// Workers of the processor that say now that their program cannot start.
    pub workers_not_ready: u32,
    /// What the first of them, by name, says: its name and why.
    pub not_ready: Option<(Arc<str>, Arc<str>)>,
    /// Jobs dispatched so far, each delivery counted.
    pub dispatched: u64,
    /// Jobs arrived so far.
    pub arrived: u64,
    /// Jobs ended so far.
    pub ended: Ended,
    /// Jobs that arrive per second, as of late.
    pub rate_in: f64,
    /// Jobs that end per second, as of late.
    pub rate_out: f64,
    /// How long a job submitted now would wait for its turn, at the rate at which the processor's jobs end;
    /// `None` if none ended yet, or the lane is paused.
    pub predicted_wait: Option<Duration>,
}

impl LaneStats {
    /// Of a lane of which nothing is known in this process.
    #[must_use]
    pub const fn idle(processor: Processor, priority: Priority) -> Self {
        Self {
            processor,
            priority,
            paused: false,
            queued: 0,
            running: 0,
            retrying: 0,
            dead: 0,
            oldest_age: None,
            workers: 0,
            workers_not_ready: 0,
            not_ready: None,
            dispatched: 0,
            arrived: 0,
            ended: Ended {
                ok: 0,
                error: 0,
                failed: 0,
            },
            rate_in: 0.0,
            rate_out: 0.0,
            predicted_wait: None,
        }
    }
}
