//! What can go wrong between a client and its server, and who can do what about it.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::job::JobId;
use crate::units::format_duration;

/// Why a call did not give what it was made for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server said no, and why. [`Problem::retry`] says whether to try again.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// No answer came. For whoever runs the server or the network between. With `sent` the request may have
    /// taken effect; trying again is safe only if doing it twice is doing it once.
    #[error("cannot reach `{url}`")]
    Unreachable {
        /// Where.
        url: String,
        /// Whether the request may have arrived.
        sent: bool,
        /// What the network said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The wait ended before the job did. The job goes on; wait again by its id.
    #[error("job `{id}` has not ended after {}; it goes on", format_duration(*.waited))]
    TimedOut {
        /// The job.
        id: JobId,
        /// How long was waited.
        waited: Duration,
    },
    /// The job was accepted, and then waiting for it failed. The job goes on; wait again by its id.
    #[error("job `{id}` was accepted, but its outcome could not be read: {source}")]
    Accepted {
        /// The job.
        id: JobId,
        /// What failed.
        source: Box<Self>,
    },
    /// The answer is not one that a jitney server gives: a proxy's, or a bug. The request may have taken
    /// effect.
    #[error("the answer is not one of jitney's: {detail}")]
    Protocol {
        /// What is wrong with it.
        detail: String,
        /// Whether the server, or what stands before it, said that it is at fault.
        server_fault: bool,
    },
    /// The request cannot be made. For the caller: nothing was sent, and trying again does not help.
    #[error("{detail}")]
    Invalid {
        /// What is wrong.
        detail: String,
    },
}

/// What the server said when it refused.
#[derive(Clone, PartialEq, Eq)]
pub struct Problem {
    /// The stable name of the reason, to match on: `queue_full`.
    pub code: String,
    /// A sentence for people.
    pub detail: String,
    /// The HTTP status.
    pub status: u16,
    /// Whether to try again.
    pub retry: Retry,
    /// Not before this long from now.
    pub retry_after: Option<Duration>,
    /// The nearest thing that exists, if the server knows one.
    pub did_you_mean: Option<String>,
    /// The problem as the server wrote it.
    json: String,
}

/// Whether trying again is safe and of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// It would be refused again.
    No,
    /// At any time.
    Safe,
    /// After `retry_after`.
    After,
    /// It may have taken effect: only with an idempotency key or an id.
    OnlyWithIdempotencyKey,
}

impl Problem {
    /// Reads a problem, or gives nothing if the text is none.
    pub(crate) fn decode(body: &[u8], status: u16, retry_after: Option<Duration>) -> Option<Self> {
        let wire: Wire = serde_json::from_slice(body).ok()?;
        Some(Self {
            code: wire.code,
            detail: wire.detail,
            status,
            retry: wire.retry.unwrap_or(Retry::No),
            retry_after,
            did_you_mean: wire.did_you_mean,
            // Valid JSON is valid UTF-8.
            json: String::from_utf8_lossy(body).into_owned(),
        })
    }

    /// The problem as the server wrote it, with whatever else it says (`pointer`, `violations`, `limit`).
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.code)
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.json)
    }
}

impl Error {
    /// What went wrong, with what the system said of it.
    pub(crate) fn told(&self) -> String {
        match self {
            Self::Unreachable { source, .. } => format!("{self}: {}", root(&**source)),
            _ => self.to_string(),
        }
    }

    /// Whether the request certainly took no effect.
    #[must_use]
    pub fn took_no_effect(&self) -> bool {
        match self {
            // With a key or an id trying again is safe, and what happened is still not known.
            Self::Refused(problem) => {
                problem.retry != Retry::OnlyWithIdempotencyKey && problem.code != "outcome_unknown"
            }
            Self::Unreachable { sent, .. } => !sent,
            Self::Invalid { .. } => true,
            Self::TimedOut { .. } | Self::Accepted { .. } | Self::Protocol { .. } => false,
        }
    }
}

/// The error at the bottom: what the operating system said.
fn root<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

#[derive(Deserialize)]
struct Wire {
    code: String,
    #[serde(default)]
    detail: String,
    retry: Option<Retry>,
    #[serde(default)]
    did_you_mean: Option<String>,
}
