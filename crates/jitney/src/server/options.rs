//! What a server is started with: the configuration, checked and resolved.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::job::{Group, Priority, Processor};
use crate::limits::Limits;
use crate::policy::PolicyBook;

/// Everything that a server needs to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where jobs are kept.
    pub bus: BusOptions,
    /// The bounds.
    pub limits: Limits,
    /// How jobs gather and retry.
    pub policies: PolicyBook,
    /// Plain URLs in front of jobs.
    pub routes: Vec<Route>,
    /// How long a stop waits for leased jobs. 10 s.
    pub grace: Duration,
    /// The longest a client may take to send a request's head, and between two pieces of its body. 10 s.
    pub slow_client_timeout: Duration,
}

/// Which bus, and what it needs.
#[derive(Clone, Debug)]
pub enum BusOptions {
    /// The embedded log in a directory.
    Log {
        /// The directory; made if it is not there.
        data: PathBuf,
        /// The size of a segment file. 64 MiB; at least four times `max_body_bytes`.
        segment_bytes: u64,
        /// Payloads kept in memory. 64 MiB.
        cache_bytes: usize,
    },
    /// Nothing outlives the process.
    Memory,
}

/// A plain URL in front of a job.
#[derive(Clone, Debug)]
pub struct Route {
    /// `POST`, `PUT`, ...
    pub method: String,
    /// `/orders/{kind}`: segments in braces become labels.
    pub path: String,
    /// Whose jobs it makes.
    pub processor: Processor,
    /// Their group.
    pub group: Group,
    /// Their lane.
    pub priority: Priority,
    /// How long the answer is held for the outcome; `None`: `202` at once.
    pub wait: Option<Duration>,
    /// JSON Schema of the body, parsed from its file.
    pub schema: Option<serde_json::Value>,
    /// Status codes for errors: `error`, `exhausted`, `batch_failed`, or `error.CODE`.
    pub status: BTreeMap<String, u16>,
}
