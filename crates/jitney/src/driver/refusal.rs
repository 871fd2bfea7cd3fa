//! Why a call is refused: one variant per stable error code of the contract.

use std::time::Duration;

use super::differs::Differs;
use crate::units::format_count;

/// A refusal. Nothing of the call was done, except where a variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many unsettled jobs, bytes on disk, or bytes on their way there. Retry after a while.
    #[error("the queue is full: `{what}` is {}", format_count(*limit))]
    QueueFull {
        /// Which limit: `jobs_max`, `log_bytes_max` or `queued_bytes_max`.
        what: &'static str,
        /// Its value.
        limit: u64,
        /// The time the backlog needs at the present rate.
        retry_after: Duration,
    },
    /// Too many idempotency keys. Retry after a while, or submit without one.
    #[error("{} idempotency keys are held, which is `keys_max`; none is forgotten early", format_count(*limit))]
    KeysFull {
        /// The limit.
        limit: u64,
    },
    /// Too many waiting callers; nothing was submitted. Retry after a while, or submit without wait.
    #[error("{} callers are waiting, which is `waiters_max`; nothing was submitted", format_count(*limit))]
    TooManyWaiters {
        /// The limit.
        limit: u64,
    },
    /// Too many processors. An operator's affair.
    #[error("{} processors exist, which is `processors_max`", format_count(*limit))]
    TooManyProcessors {
        /// The limit.
        limit: u64,
    },
    /// The disk is full. Retry after a while: nothing of the call is stored.
    #[error("the disk is full")]
    DiskFull,
    /// The server is stopping. Retry against another, or after a while.
    #[error("the server is draining")]
    Draining,
    /// The server still reads its log.
    #[error("the server is recovering")]
    Recovering,
    /// A sync failed: whether the call was stored is known only after the restart.
    #[error("a write to the log failed; whether it was stored is known after the restart")]
    OutcomeUnknown,
    /// No such job, or its time is over.
    #[error("no such job; it may have expired")]
    UnknownJob,
    /// The token was never made by this server.
    #[error("no such lease")]
    UnknownLease,
    /// Every job of the lease is lost.
    #[error("the lease is lost: all of its jobs are settled or leased again")]
    LeaseLost,
    /// The id was used for another job.
    #[error("this id was used with other content{0}")]
    IdReused(Differs),
    /// The key was used for another job.
    #[error("this idempotency key was used with other content{0}")]
    IdempotencyKeyReused(Differs),
    /// The job's data, or a result, is too large.
    #[error("{what} is {} bytes; `max_job_bytes` is {}", format_count(*bytes), format_count(*limit))]
    JobTooLarge {
        /// `data` or `result`.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// An outcome with its children is too large.
    #[error(
        "the outcome and its children are {} bytes; `max_body_bytes` is {}",
        format_count(*bytes),
        format_count(*limit)
    )]
    BodyTooLarge {
        /// Their size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// An outcome with more children than `children_max`.
    #[error("an outcome has at most {} child jobs (`children_max`); these are {}", format_count(*limit), format_count(*count))]
    TooManyChildren {
        /// How many they are.
        count: u64,
        /// The limit.
        limit: u64,
        /// JSON pointer to them.
        pointer: String,
    },
    /// A value inside a settle that the edge found wrong.
    #[error("{detail}")]
    InvalidValue {
        /// What is wrong, what is right.
        detail: String,
        /// JSON pointer to it.
        pointer: String,
    },
    /// A field inside a settle that nobody knows.
    #[error("{detail}")]
    UnknownField {
        /// Which, and the nearest known one.
        detail: String,
        /// JSON pointer to it.
        pointer: String,
    },
    /// A field inside a settle that must be there.
    #[error("{detail}")]
    MissingField {
        /// Which.
        detail: String,
        /// JSON pointer to it.
        pointer: String,
    },
    /// A bug or a failing medium: a stored record could not be read.
    #[error("{0}")]
    Internal(String),
}

impl Refusal {
    /// The stable code of the contract.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::QueueFull { .. } => "queue_full",
            Self::KeysFull { .. } => "keys_full",
            Self::TooManyWaiters { .. } => "too_many_waiters",
            Self::TooManyProcessors { .. } => "too_many_processors",
            Self::DiskFull => "disk_full",
            Self::Draining => "draining",
            Self::Recovering => "recovering",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::UnknownJob => "unknown_job",
            Self::UnknownLease => "unknown_lease",
            Self::LeaseLost => "lease_lost",
            Self::IdReused(_) => "id_reused",
            Self::IdempotencyKeyReused(_) => "idempotency_key_reused",
            Self::JobTooLarge { .. } => "job_too_large",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::TooManyChildren { .. } | Self::InvalidValue { .. } => "invalid_value",
            Self::UnknownField { .. } => "unknown_field",
            Self::MissingField { .. } => "missing_field",
            Self::Internal(_) => "internal",
        }
    }
}
