//! What the log remembers: one record for each thing that happens to a job.
//!
//! Records borrow: encoding copies each byte once, into the frame; decoding copies nothing but labels.
//! The bytes are described in docs/log_format.md. A field that is `Option` or a `Vec` is a tagged field on
//! disk: absent costs nothing, and a reader skips the tags that it does not know.

mod decode;
mod encode;
mod format;
#[cfg(test)]
mod tests;

pub use decode::{DecodeError, Records};

use crate::ids::{JobId, Priority, Token, WallMs};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// A job was accepted.
    Submit(Submit<'a>),
    /// A batch was leased to a worker. Written before the batch is handed out; its sync is not awaited.
    Dispatch(Dispatch<'a>),
    /// The batch of this lease was written to the worker's connection.
    Delivered(Token),
    /// A job ended.
    Outcome(Outcome<'a>),
    /// A job went back from a lease to its lane.
    Return(Return<'a>),
    /// A name was given a value that outlives restarts, or lost it.
    Setting(Setting<'a>),
    /// A job ended, and its result is not kept any more. Only copies have it.
    Ended(Ended),
    /// What happened to an unsettled job in one segment, in sum. Only copies have it.
    Tries(Tries),
    /// The records that follow in this frame are copies. Only copies have it.
    Copied(Copied),
}

/// A job as it was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submit<'a> {
    /// The job's id.
    pub id: JobId,
    /// The application that processes the job.
    pub processor: &'a str,
    /// The kind of job inside the processor.
    pub group: &'a str,
    /// Which lane.
    pub priority: Priority,
    /// The job's data, as it came.
    pub data: &'a [u8],
    /// What `data` is; `None` means JSON.
    pub content_type: Option<&'a str>,
    /// The caller's key (a tenant, say).
    pub key: Option<&'a str>,
    /// Names and values that the caller attached.
    pub labels: Vec<(&'a str, &'a str)>,
    /// The idempotency key that the submit came with.
    pub idempotency: Option<IdempotencyKey>,
    /// Hash over everything that makes a repeat "the same submit"; 0 where neither id nor key was given.
    pub fingerprint: u128,
    /// Whether the caller chose `id`.
    pub client_id: bool,
    /// The job whose outcome made this one, and its place among its siblings.
    pub parent: Option<(JobId, u32)>,
    /// W3C trace context.
    pub traceparent: Option<&'a str>,
    /// Time to live, milliseconds after acceptance, as the caller wrote it.
    pub ttl_ms: Option<u64>,
    /// When the job expires.
    pub deadline: Option<WallMs>,
    /// Not before this instant.
    pub run_at: Option<WallMs>,
    /// The job's place in the order of acceptance, over all lanes; never reused on one node.
    pub sequence: u64,
    /// When it was accepted.
    pub accepted: WallMs,
}

/// An idempotency key, as hashes: the key itself is not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey {
    /// Hash of the caller's identity and the processor.
    pub scope: u64,
    /// Hash of the key.
    pub hash: u128,
}

/// A batch handed to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispatch<'a> {
    /// The lease.
    pub token: Token,
    /// Who took it.
    pub worker: &'a str,
    /// Whether the worker lives in this process, so that its lease cannot outlive it.
    pub in_process: bool,
    /// The poll's own id, so that a repeated poll finds its batches again.
    pub request_id: Option<&'a str>,
    /// How long the lease lasts without a heartbeat, milliseconds.
    pub term_ms: u64,
    /// When it was granted.
    pub granted: WallMs,
    /// Its jobs, in the order of the batch.
    pub jobs: Vec<JobId>,
}

/// What a job ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// The job.
    pub id: JobId,
    /// How it ended.
    pub end: End,
    /// Why it ended so, where the status alone does not say it.
    pub reason: Option<Reason>,
    /// The lease under which it was settled; `None` where no worker settled it.
    pub token: Option<Token>,
    /// The worker that settled it.
    pub worker: Option<&'a str>,
    /// When it was first handed to a worker; `None` if never.
    pub started: Option<WallMs>,
    /// When it ended.
    pub finished: WallMs,
    /// Counted tries, the last one included.
    pub attempts: u32,
    /// Counted crashes.
    pub crashes: u32,
    /// The result of an [`End::Ok`]; empty otherwise.
    pub result: &'a [u8],
    /// What `result` is; `None` means JSON.
    pub content_type: Option<&'a str>,
    /// The error of an [`End::Error`] or [`End::Failed`].
    pub error: Option<ErrorFields<'a>>,
    /// How many child jobs became durable in the same frame.
    pub children: u32,
    /// How long the result is kept, milliseconds; `None` means the log's default.
    pub keep_ms: Option<u64>,
}

/// The status a job ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// `processed_ok`.
    Ok,
    /// `processed_error`.
    Error,
    /// `batch_failed`: no outcome, and it will not be dispatched again.
    Failed,
}

/// Why a job ended without a plain outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its attempts are used up.
    Exhausted,
    /// Its deadline passed before it was dispatched.
    Expired,
    /// Its caller cancelled it.
    Cancelled,
    /// It ran longer than it may.
    TimedOut,
    /// Its crashes are used up.
    Dead,
}

/// An error as a handler gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// A short name that programs match on.
    pub code: &'a str,
    /// A sentence for people.
    pub message: &'a str,
    /// JSON that the handler attached.
    pub data: Option<&'a [u8]>,
}

/// A job that goes back to its lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Return<'a> {
    /// The job.
    pub id: JobId,
    /// What sent it back.
    pub cause: Cause,
    /// The lease that held it.
    pub token: Token,
    /// Not before this instant; `None` means at once.
    pub due: Option<WallMs>,
    /// When it was written, where `due` is set: what bounds the pause if the clock is set back before a restart. `None`
    /// in a record of an older version.
    pub written: Option<WallMs>,
    /// Whether it must travel in a batch of one from now on.
    pub alone: bool,
    /// Counted tries so far.
    pub attempts: u32,
    /// Counted crashes so far.
    pub crashes: u32,
    /// The error of the try that ended.
    pub error: Option<ErrorFields<'a>>,
}

/// A name and its value, kept until the next setting of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting<'a> {
    /// The name; at most [`crate::settings::NAME_BYTES_MAX`].
    pub name: &'a str,
    /// The value; at most [`crate::settings::VALUE_BYTES_MAX`]. `None` removes the name.
    pub value: Option<&'a [u8]>,
    /// Of two settings of a name the one with the higher version counts. The log gives it when it appends the
    /// record; what stands here before does not matter.
    pub version: u64,
}

/// A job that ended, without its result: what recognises a repeat of its submit, and what keeps a submit that is
/// still on disk from coming back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The job.
    pub id: JobId,
    /// When it ended.
    pub finished: WallMs,
    /// How it ended.
    pub end: End,
    /// Why.
    pub reason: Option<Reason>,
    /// Whether the caller chose `id`. With this or a key the record stands for the submit, too.
    pub client_id: bool,
    /// The idempotency key that the submit came with.
    pub idempotency: Option<IdempotencyKey>,
    /// The submit's fingerprint.
    pub fingerprint: u128,
}

/// The dispatches and returns of an unsettled job from its first dispatch in a segment on, in sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// The job.
    pub id: JobId,
    /// The last lease.
    pub token: Token,
    /// How often it was handed out, batches that never reached their worker not counted.
    pub deliveries: u32,
    /// The tries and crashes so far as the last return tells them; `None` without a return.
    pub counts: Option<(u32, u32)>,
    /// Whether a return said that it must travel alone.
    pub alone: bool,
    /// Whether the lease still holds it.
    pub held: bool,
    /// Whether a settle under the lease sent it back.
    pub spent: bool,
    /// When it was first handed out.
    pub started: Option<WallMs>,
    /// Not before this instant.
    pub due: Option<WallMs>,
    /// When that was written, as in a [`Return`].
    pub written: Option<WallMs>,
}

/// Where copies come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The number of the segment that they were copied from. While it is there they do not count.
    pub source: u64,
    /// The first LSN of the hot segment that they were first written to: their place in the order of the log.
    pub origin: u64,
}

/// What ended a lease on a job without settling it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The worker gave it back; nothing is counted.
    Released,
    /// The batch never reached its worker; nothing is counted.
    Undelivered,
    /// The lease's term ran out; a crash is counted.
    Expired,
    /// The worker crashed, or its lease could not be restored; a crash is counted.
    Crashed,
    /// The batch failed as a whole; nothing is counted unless the job was alone.
    BatchFailed,
    /// A retryable error; an attempt is counted.
    Error,
    /// A final settle did not name it; an attempt is counted.
    MissingOutcome,
}

/// What a job weighs in a batch beside its data: ids, times and names on the wire.
const WIRE_BYTES_BESIDE: usize = 256;

impl Submit<'_> {
    /// What the job weighs in a batch, wire bytes: its data, key and labels, and an allowance for the rest.
    #[must_use]
    pub fn wire_bytes(&self) -> u32 {
        let labels: usize = self
            .labels
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let bytes = WIRE_BYTES_BESIDE + self.data.len() + self.key.map_or(0, str::len) + labels;
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// Whether a repeat of this submit is answered by this job: it came with an idempotency key, or
    /// with an id of its caller's.
    #[must_use]
    pub const fn has_identity(&self) -> bool {
        self.client_id || self.idempotency.is_some()
    }
}

impl Ended {
    /// Whether it recognises a repeat of the submit.
    #[must_use]
    pub const fn has_identity(&self) -> bool {
        self.client_id || self.idempotency.is_some()
    }
}

/// The CRC of a record's bytes: all but the CRC itself.
fn checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[8..])
}
