//! The bus makes it durable: jobs and outcomes go in, and come back as events once they are safe.
//!
//! In: records, appended in units that become durable wholly or not at all. Out: [`Event`]s, polled.
//! The bus owns what is stored; the driver owns the bus. Nothing here blocks: an append is queued and
//! answered later, by its ticket, so that a log that syncs, a Kafka producer and an SQS client all fit.
//!
//! The durability rules, which every implementation keeps and the conformance suite checks:
//!
//! 1. `Durable(ticket)` comes only after every record of that append would survive a power cut.
//! 2. `Durable` comes for tickets in the order of their appends; a failed ticket's records are not there,
//!    now or after a restart, unless the failure is [`Failure::Unknown`].
//! 3. `Arrived(job)` comes after the `Durable` of its submit, once per job and boot; after a restart every
//!    unsettled job arrives again, in the order of acceptance, before [`Event::Ready`].
//! 4. `Outcome(job)` comes after the `Durable` of its outcome; the job never arrives again.
//! 5. After `Failed(_, Unknown)` nothing is ever `Durable` again: the process must end.
//! 6. `Written(ticket)` promises survival of the process, not of the machine; it precedes `Durable`.
//! 7. `Setting` comes after the `Durable` of its record; after a restart the latest of each name comes again, before
//!    any `Arrived`, and a removed one does not.

pub mod log;
mod memory;
#[cfg(test)]
mod sample;

pub use joblog::log::{AppendError, Durability, Failure, KeyEntry, Known, Space, Ticket, Usage};
pub use joblog::record::{Record, Setting as SettingRecord};
pub use memory::{MemoryBus, Retention};

use std::sync::Arc;

use bytes::Bytes;
use joblog::record::Submit;

use crate::clock::{Mono, Now, WallMs};
use crate::job::{Group, IdempotencyKey, JobId, Priority, Processor, Token};

/// What makes jobs and results durable and carries them.
pub trait Bus {
    /// What this bus can do. A feature that needs what is missing is refused at start.
    fn capabilities(&self) -> Capabilities;

    /// The node id and boot epoch of this start, durable already: lease tokens are made of them.
    fn identity(&self) -> Identity;

    /// Queues records that become durable together or not at all.
    ///
    /// # Errors
    /// [`AppendError`]: nothing was queued.
    fn append(
        &mut self,
        records: &[Record<'_>],
        space: Space,
        durability: Durability,
    ) -> Result<Ticket, AppendError>;

    /// The next thing that happened, or `None` if nothing did. Also starts whatever I/O is due, so the
    /// driver calls it in every turn until it returns `None`.
    fn poll(&mut self, now: Now) -> Option<Event>;

    /// When [`Bus::poll`] must be called next even if nothing else happens.
    fn next_timer(&self) -> Option<Mono>;

    /// A submitter has its answer, and may soon be back with its next job: the next commit may wait for it.
    fn answered(&mut self);

    /// How many submits may lie unread before it is worth looking at them: those that come now are durable after the
    /// commit that is under way, or the next, which is held back until [`Bus::next_timer`]. None where nothing is.
    fn unread_max(&self) -> usize;

    /// What is known of a job, from memory.
    fn find(&self, id: JobId) -> Option<Known>;

    /// Which job an idempotency key stands for, from memory. Includes appends that are not durable yet.
    fn find_key(&self, key: IdempotencyKey) -> Option<KeyEntry>;

    /// Reads a job's submit back, and its outcome if it has one that is still kept.
    ///
    /// # Errors
    /// [`ReadError`] if the medium fails or the record is damaged.
    fn read(&self, id: JobId) -> Result<Option<StoredJob>, ReadError>;

    /// How many jobs were given up and can still be read, by lane; lanes without any are left out.
    fn dead(&self) -> Vec<DeadLane>;

    /// Figures for limits, `/v1/info` and `/metrics`.
    fn usage(&self) -> Usage;

    /// Asks for a clean end: what is queued is written and synced, then [`Event::Closed`] comes.
    fn close(&mut self);
}

/// What [`Bus::poll`] reports.
#[derive(Debug)]
pub enum Event {
    /// The records survive the end of this process.
    Written(Ticket),
    /// The records survive a power cut.
    Durable(Ticket),
    /// The append failed.
    Failed(Ticket, Failure),
    /// A durable job is here to be dispatched.
    Arrived(Box<Arrival>),
    /// A job is no longer this node's to dispatch (another node has it); its waiters stay.
    Gone(JobId),
    /// A job's outcome is durable.
    Outcome(JobId),
    /// A setting is durable; also at start, before anything else, for each that has a value.
    Setting(Box<Setting>),
    /// After a restart: a lease that was alive, reported after its jobs arrived.
    Leased(Box<RecoveredLease>),
    /// After a start: everything that was pending has been reported.
    Ready,
    /// There is room again after [`AppendError::DiskFull`] or [`Failure::DiskFull`].
    SpaceReturned,
    /// The end that [`Bus::close`] asked for is durable.
    Closed,
    /// The medium failed beside any append, in the background: as after [`Failure::Unknown`] nothing is ever
    /// durable again, and the process must end.
    Broken,
}

/// A name and its value, which outlive restarts where the bus does: the latest [`Record::Setting`] of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The name.
    pub name: Box<str>,
    /// The value; `None` if it was removed.
    pub value: Option<Bytes>,
}

/// Jobs of one lane that were given up and can still be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLane {
    /// Whose.
    pub processor: Processor,
    /// Which.
    pub priority: Priority,
    /// How many.
    pub jobs: u64,
}

/// A stored record could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the record back: {0}")]
pub struct ReadError(pub String);

/// What a bus can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The bus's name: `log`, `memory`.
    pub name: &'static str,
    /// Accepted jobs outlive the process.
    pub durable: bool,
    /// A ledger can follow it by position.
    pub follow: bool,
    /// An outcome and its children become durable together.
    pub atomic_children: bool,
    /// Idempotency keys outlive the process.
    pub durable_keys: bool,
    /// A payload can be read back by id.
    pub point_reads: bool,
}

impl Capabilities {
    /// What it cannot do, in words.
    pub fn lacks(&self) -> impl Iterator<Item = &'static str> {
        [
            (self.durable, "jobs outlive the process"),
            (self.follow, "a ledger can follow"),
            (
                self.atomic_children,
                "an outcome and its children become durable together",
            ),
            (self.durable_keys, "idempotency keys outlive the process"),
            (self.point_reads, "a job can be read back by its id"),
        ]
        .into_iter()
        .filter_map(|(can, what)| (!can).then_some(what))
    }
}

/// The lease tokens of this boot start with these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The node's own random number.
    pub node: u64,
    /// One more at each start.
    pub epoch: u32,
}

/// A job on its way into the dispatcher: all that deciding needs, without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The job's id.
    pub id: JobId,
    /// The application that processes it.
    pub processor: Processor,
    /// The kind of job.
    pub group: Group,
    /// Its lane.
    pub priority: Priority,
    /// What it weighs in a batch, wire bytes (data and an allowance for the rest).
    pub wire_bytes: u32,
    /// Its place in the order of acceptance.
    pub sequence: u64,
    /// When it was accepted.
    pub accepted: WallMs,
    /// Not before this instant.
    pub due: Option<WallMs>,
    /// When it expires.
    pub deadline: Option<WallMs>,
    /// The caller's key, where batches may be grouped by it: whoever takes the arrival from the bus reads it.
    pub key: Option<Arc<str>>,
    /// What is known from before a restart; `None` for a new job.
    pub recovered: Option<Past>,
}

/// A job's life before the restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Counted tries.
    pub attempts: u32,
    /// Counted crashes.
    pub crashes: u32,
    /// How often it was handed out.
    pub deliveries: u32,
    /// Whether it must travel alone.
    pub alone: bool,
    /// When it was first handed to a worker.
    pub started: Option<WallMs>,
    /// The last lease that held it; an outcome under this token still counts.
    pub last_token: Option<Token>,
    /// Whether a settle under `last_token` sent the job back: the same settle again is a duplicate.
    pub spent: bool,
}

/// A lease that was alive when the process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredLease {
    /// Its token.
    pub token: Token,
    /// Its processor.
    pub processor: Processor,
    /// Who holds it.
    pub worker: String,
    /// Whether the worker lived in the process that ended.
    pub in_process: bool,
    /// The poll's own id.
    pub request_id: Option<String>,
    /// Its term, milliseconds.
    pub term_ms: u64,
    /// When it was granted.
    pub granted: WallMs,
    /// Whether the batch is known to have reached the worker.
    pub delivered: bool,
    /// Its unsettled jobs that no later lease holds and that were not returned, in the order of the batch.
    pub jobs: Vec<JobId>,
}

/// Encoded records of one job, read back. Cheap to clone: the bytes are shared.
#[derive(Clone, Debug)]
pub struct StoredJob {
    /// The encoded submit; [`joblog::record::Submit::decode`] reads it without copying.
    pub submit: Bytes,
    /// The encoded outcome, if there is one that is kept.
    pub outcome: Option<Bytes>,
}

impl Setting {
    /// A copy of a record's.
    pub(crate) fn of(setting: &SettingRecord<'_>) -> Self {
        Self {
            name: Box::from(setting.name),
            value: setting.value.map(Bytes::copy_from_slice),
        }
    }
}

/// A submit as the dispatcher sees it.
pub(crate) fn arrival(submit: &Submit<'_>) -> Arrival {
    Arrival {
        id: submit.id,
        processor: Processor::trusted(submit.processor),
        group: Group::trusted(submit.group),
        priority: submit.priority,
        wire_bytes: submit.wire_bytes(),
        sequence: submit.sequence,
        accepted: submit.accepted,
        due: submit.run_at,
        deadline: submit.deadline,
        key: None,
        recovered: None,
    }
}
