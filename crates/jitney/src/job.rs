//! The words of the domain: what a job is, and what callers see of it.

pub use joblog::ids::{JobId, Priority, Token};
pub use joblog::record::{Cause, End, IdempotencyKey, Reason};

use std::sync::Arc;

use bytes::Bytes;

use crate::clock::WallMs;

/// The name of the application that processes a job. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Processor(Arc<str>);

/// The kind of a job inside its processor. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(Arc<str>);

/// The longest processor or group name, bytes: it stays readable in a URL and in a metric label.
pub const NAME_BYTES_MAX: usize = 64;

impl Processor {
    /// A processor of that name, or `None` if the name is not 1 to 64 of `A-Z a-z 0-9 _ -`, starting
    /// with a letter or digit.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        is_name(name, b"_-").then(|| Self(Arc::from(name)))
    }

    /// A name that was checked before, and is shared already.
    #[must_use]
    pub const fn shared(name: Arc<str>) -> Self {
        Self(name)
    }

    /// A name that was checked before it was stored.
    #[must_use]
    pub fn trusted(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Group {
    /// The group of a job that names none.
    pub const DEFAULT: &str = "default";

    /// A group of that name, or `None` if the name is not 1 to 64 of `A-Z a-z 0-9 _ - .`, starting with
    /// a letter or digit.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        is_name(name, b"_-.").then(|| Self(Arc::from(name)))
    }

    /// A name that was checked before, and is shared already.
    #[must_use]
    pub const fn shared(name: Arc<str>) -> Self {
        Self(name)
    }

    /// A name that was checked before it was stored.
    #[must_use]
    pub fn trusted(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Group {
    fn default() -> Self {
        Self(Arc::from(Self::DEFAULT))
    }
}

fn is_name(name: &str, also: &[u8]) -> bool {
    let bytes = name.as_bytes();
    bytes.len() <= NAME_BYTES_MAX
        && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || also.contains(b))
}

/// Bytes and what they are: a job's data, or its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// `None` means `application/json`, and that the bytes are JSON.
    pub content_type: Option<Arc<str>>,
    /// As they came.
    pub bytes: Bytes,
}

/// What a handler, or jitney for it, says went wrong with a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// A short name that programs match on.
    pub code: String,
    /// A sentence for people.
    pub message: String,
    /// JSON that the handler attached, as it came.
    pub data: Option<Bytes>,
}

/// What callers see of a job's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Accepted, not ended.
    Submitted,
    /// Ended with a result.
    ProcessedOk,
    /// Ended with an error.
    ProcessedError,
    /// Ended without an outcome; it will not be dispatched again.
    BatchFailed,
}

/// Where exactly a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Not due yet, never tried.
    Scheduled,
    /// In its lane.
    Queued,
    /// Leased to a worker.
    Running,
    /// Tried, and waiting for the next try.
    Retrying,
    /// Ended.
    Done,
    /// Ended as a dead letter.
    Dead,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 4] = [
        Self::Submitted,
        Self::ProcessedOk,
        Self::ProcessedError,
        Self::BatchFailed,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Submitted => "submitted",
            Self::ProcessedOk => "processed_ok",
            Self::ProcessedError => "processed_error",
            Self::BatchFailed => "batch_failed",
        }
    }
}

impl From<End> for Status {
    fn from(end: End) -> Self {
        match end {
            End::Ok => Self::ProcessedOk,
            End::Error => Self::ProcessedError,
            End::Failed => Self::BatchFailed,
        }
    }
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Scheduled,
        Self::Queued,
        Self::Running,
        Self::Retrying,
        Self::Done,
        Self::Dead,
    ];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }
}

/// The name of a reason on the wire.
#[must_use]
pub const fn reason_name(reason: Reason) -> &'static str {
    match reason {
        Reason::Exhausted => "exhausted",
        Reason::Expired => "expired",
        Reason::Cancelled => "cancelled",
        Reason::TimedOut => "timed_out",
        Reason::Dead => "dead",
    }
}

/// A job as its caller sees it: the answer to a read, a wait, a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobView {
    /// The job's id.
    pub id: JobId,
    /// The application that processes it.
    pub processor: Processor,
    /// The kind of job.
    pub group: Group,
    /// Its lane.
    pub priority: Priority,
    /// What callers see of its life.
    pub status: Status,
    /// Where exactly it is.
    pub state: State,
    /// Why it ended, where the status alone does not say it.
    pub reason: Option<Reason>,
    /// Counted tries.
    pub attempts: u32,
    /// Counted crashes.
    pub crashes: u32,
    /// When it was first handed to a worker; `None` if never (`started` on the wire says which).
    pub started_at: Option<WallMs>,
    /// The job that made this one.
    pub parent: Option<JobId>,
    /// How many jobs its outcome made.
    pub children: u32,
    /// When it was accepted; `None` where only its end is still known.
    pub submitted_at: Option<WallMs>,
    /// When it ended.
    pub finished_at: Option<WallMs>,
    /// What the handler gave back.
    pub result: Option<Payload>,
    /// Whether a result was there and had to give way.
    pub result_expired: bool,
    /// What went wrong.
    pub error: Option<JobError>,
    /// The caller's key.
    pub key: Option<String>,
    /// Names and values that the caller attached.
    pub labels: Vec<(String, String)>,
}
