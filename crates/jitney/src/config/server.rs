//! `[server]`: where it listens, where it keeps jobs, its limits and its log.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::report::{Complaint, Complaints, suggestion};
use super::source::{Key, Keys, version};
use super::value::{Value, Wrong};
use crate::limits::{BODIES_PER_SEGMENT, Limits};
use crate::policy::PolicyBook;
use crate::server::options::{AllowedHost, BusOptions, Options, Route};
use crate::units::format_size;

/// Below, headers and reserves would fill it; above, places in it do not fit in 32 bits.
const SEGMENT_BYTES: std::ops::Range<u64> = 1 << 20..4 << 30;

/// How the server logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The form of a line.
    pub format: LogFormat,
    /// The least important that is shown.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How important a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Somebody must act now.
    Error,
    /// It recovered, but have a look.
    Warn,
    /// Start, stop, configuration.
    Info,
    /// Per batch.
    Debug,
    /// Per job.
    Trace,
}

impl LogFormat {
    /// Both.
    const ALL: [Self; 2] = [Self::Text, Self::Json];

    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl LogLevel {
    /// From the most important.
    const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The level of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.name() == name)
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: LogLevel::Info,
        }
    }
}

/// The buses of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bus {
    Log,
    Memory,
}

/// What `[server]` says, laid over the defaults.
pub(super) struct Server {
    listen: SocketAddr,
    /// Whether to listen on other addresses than the loopback, with no keys to check.
    no_auth: bool,
    allowed_hosts: Vec<AllowedHost>,
    data: PathBuf,
    bus: Bus,
    segment_bytes: u64,
    cache_bytes: u64,
    limits: Limits,
    grace: Duration,
    slow_client_timeout: Duration,
    log: LogOptions,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            no_auth: false,
            allowed_hosts: Vec::new(),
            data: PathBuf::from("./jitney-data"),
            bus: Bus::Log,
            segment_bytes: 64 << 20,
            cache_bytes: 64 << 20,
            limits: Limits::default(),
            grace: Duration::from_secs(10),
            slow_client_timeout: Duration::from_secs(10),
            log: LogOptions::default(),
        }
    }
}

impl Server {
    /// The longest wait that anyone may ask for.
    pub(super) const fn wait_max(&self) -> Duration {
        self.limits.wait_max
    }

    pub(super) fn into_options(self, policies: PolicyBook, routes: Vec<Route>) -> (Options, LogOptions) {
        let bus = match self.bus {
            Bus::Memory => BusOptions::Memory,
            Bus::Log => BusOptions::Log {
                data: self.data,
                segment_bytes: self.segment_bytes,
                cache_bytes: usize::try_from(self.cache_bytes).unwrap_or(usize::MAX),
            },
        };
        let options = Options {
            listen: self.listen,
            bus,
            allowed_hosts: self.allowed_hosts,
            limits: self.limits,
            policies,
            routes,
            grace: self.grace,
            slow_client_timeout: self.slow_client_timeout,
        };
        (options, self.log)
    }
}

/// A key whose value is read as it is.
macro_rules! key {
    ($name:literal, $($field:ident).+, $read:ident $(, $argument:expr)*) => {
        Key {
            name: $name,
            set: |server, value| {
                server.$($field).+ = value.$read($($argument),*)?;
                Ok(())
            },
        }
    };
}

/// Every key of `[server]`.
pub(super) const KEYS: &[Key<Server>] = &[
    key!("listen", listen, address),
    key!("no_auth", no_auth, switch),
    key!("allowed_hosts", allowed_hosts, hosts),
    key!("data", data, path),
    Key {
        name: "bus",
        set: |server, value| {
            server.bus = bus(value)?;
            Ok(())
        },
    },
    Key {
        name: "segment_bytes",
        set: |server, value| {
            let bytes = value.size()?;
            if !SEGMENT_BYTES.contains(&bytes) {
                let written = format_size(bytes);
                return Err(Wrong::new(format!(
                    "{written} is not at least 1MiB and below 4GiB"
                )));
            }
            server.segment_bytes = bytes;
            Ok(())
        },
    },
    key!("cache_bytes", cache_bytes, size),
    key!("jobs_max", limits.jobs_max, count, 1),
    Key {
        name: "log_bytes_max",
        set: |server, value| {
            server.limits.log_bytes_max = match value.text() {
                Ok("auto") => None,
                _ => Some(value.size()?),
            };
            Ok(())
        },
    },
    key!("max_job_bytes", limits.job_bytes_max, size),
    key!("max_body_bytes", limits.body_bytes_max, size),
    key!("bodies_bytes_max", limits.bodies_bytes_max, size),
    key!("queued_bytes_max", limits.queued_bytes_max, size),
    key!("waiters_max", limits.waiters_max, count, 1),
    key!("connections_max", limits.connections_max, count, 1),
    key!("processors_max", limits.processors_max, count, 1),
    key!("children_max", limits.children_max, count, 0),
    key!("wait_max", limits.wait_max, span),
    key!("keys_max", limits.keys_max, count, 1),
    key!("results_max", limits.results_max, count, 1),
    key!("result_bytes_max", limits.result_bytes_max, size),
    key!("result_ttl", limits.result_ttl, span),
    key!("key_ttl", limits.key_ttl, span),
    key!("grace", grace, duration),
    key!("slow_client_timeout", slow_client_timeout, span),
    Key {
        name: "log_format",
        set: |server, value| {
            server.log.format = choice(value, &LogFormat::ALL.map(|format| (format.name(), format)))?;
            Ok(())
        },
    },
    Key {
        name: "log_level",
        set: |server, value| {
            server.log.level = choice(value, &LogLevel::ALL.map(|level| (level.name(), level)))?;
            Ok(())
        },
    },
];

/// Complains about values that contradict each other.
pub(super) fn check(server: &Keys<Server>, complaints: &mut Complaints) {
    let draft = &server.draft;
    let (job, body) = (draft.limits.job_bytes_max, draft.limits.whole_body_bytes_max());
    if job > body {
        let message = format!(
            "`max_job_bytes` is {} and `max_body_bytes` is {}: a job of that size could never come in",
            format_size(job),
            format_size(body),
        );
        complaints.push(
            Complaint::new(message, server.first_place(&["max_job_bytes", "max_body_bytes"]))
                .hint("raise `max_body_bytes`, or lower `max_job_bytes`"),
        );
    }
    let least = body.saturating_mul(BODIES_PER_SEGMENT);
    if draft.bus == Bus::Log && draft.segment_bytes < least {
        let message = format!(
            "`segment_bytes` is {}, less than {BODIES_PER_SEGMENT} times `max_body_bytes` ({})",
            format_size(draft.segment_bytes),
            format_size(body),
        );
        complaints.push(
            Complaint::new(message, server.first_place(&["segment_bytes", "max_body_bytes"])).hint(format!(
                "set `segment_bytes` to at least {}, or lower `max_body_bytes`",
                format_size(least)
            )),
        );
    }
    if !draft.listen.ip().is_loopback() && !draft.no_auth {
        let message = format!(
            "`listen` is {}, which other machines can reach, and jitney {} has no keys to ask them for",
            draft.listen,
            version(),
        );
        complaints.push(Complaint::new(message, server.place("listen")).hint(
            "listen on 127.0.0.1, or say `--no-auth` (JITNEY_NO_AUTH=true, `no_auth = true`) if everyone \
             who can reach it may submit and take jobs",
        ));
    }
}

fn bus(value: &Value<'_>) -> Result<Bus, Wrong> {
    let text = value.text()?;
    let scheme = text.split_once(':').map_or(text, |(scheme, _)| scheme);
    if matches!(scheme, "kafka" | "sqs") {
        let message = format!("the {scheme} bus is not in jitney {}", version());
        return Err(Wrong::new(message).hint("use `log`, which is durable on this machine, or `memory`"));
    }
    choice(value, &[("log", Bus::Log), ("memory", Bus::Memory)])
}

/// One of a few names.
fn choice<T: Copy>(value: &Value<'_>, choices: &[(&str, T)]) -> Result<T, Wrong> {
    let text = value.text()?;
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text) {
        return Ok(*choice);
    }
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    Err(Wrong {
        message: format!("`{text}` is not one of {}", names.join(", ")),
        hint: suggestion(text, names),
    })
}
