//! What a server is started with: the configuration, checked and resolved.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
    /// Names under which it may be reached, beside `localhost` and any IP address.
    pub allowed_hosts: Vec<AllowedHost>,
    /// The bounds.
    pub limits: Limits,
    /// How jobs gather and retry.
    pub policies: PolicyBook,
    /// Plain URLs in front of jobs.
    pub routes: Vec<Route>,
    /// How long a stop waits for leased jobs. 10 s.
    pub grace: Duration,
    /// The longest a client may take to send a request's head, between two pieces of its body, and to read some
    /// of an answer. 10 s.
    pub slow_client_timeout: Duration,
}

impl Default for Options {
    /// Port 8080 of the loopback, and a log in `./jitney-data`.
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            bus: BusOptions::Log {
                data: PathBuf::from("./jitney-data"),
                segment_bytes: 64 << 20,
                cache_bytes: 64 << 20,
            },
            allowed_hosts: Vec::new(),
            limits: Limits::default(),
            policies: PolicyBook::default(),
            routes: Vec::new(),
            grace: Duration::from_secs(10),
            slow_client_timeout: Duration::from_secs(10),
        }
    }
}

/// A name that requests may call this server by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedHost {
    /// Any: whatever stands before this server checks names.
    Any,
    /// This one, in lower case.
    Exactly(String),
    /// All below this one, in lower case: `*.jobs.example`.
    Below(String),
}

impl AllowedHost {
    /// Reads `*`, `jobs.example` or `*.jobs.example`; no port and no scheme.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let fine = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if !name.split('.').all(fine) {
            return None;
        }
        let name = name.to_ascii_lowercase();
        Some(if below {
            Self::Below(name)
        } else {
            Self::Exactly(name)
        })
    }

    /// Whether it says that a name, in lower case and without port, is this server's. [`AllowedHost::Any`] does
    /// not: it vouches for none.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        match self {
            Self::Any => false,
            Self::Exactly(name) => host == name,
            Self::Below(name) => host
                .strip_suffix(name.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
        }
    }
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
