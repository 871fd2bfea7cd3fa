//! Measures jitney: what `jitney bench` and the benches run.
//!
//! In: a scenario and its options. Out: a [`Report`]. A server is this program again, a process of its own, so
//! that what it uses is its own; the load is a few tasks on one thread. Nothing of the server uses this module.

mod bulk;
mod context;
mod crew;
pub mod dispatcher;
mod error;
mod idle;
mod log;
mod machine;
mod pace;
mod parts;
mod pending;
mod priority;
mod process;
mod progress;
mod random;
mod report;
mod scrape;
mod scratch;
mod single;
mod submits;
mod sync;
mod wire;
mod worker;
pub mod yardstick;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use error::Error;
pub use progress::Progress;
pub use report::{Counts, Figure, Report, Target, Unit};

use context::Context;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Callers that wait for their own result, and a worker.
    Sync,
    /// Single submits that nobody waits for, without a worker.
    Async,
    /// Many jobs per request and per lease.
    Bulk,
    /// Many pending jobs.
    Backlog,
    /// Urgent jobs among slow ones.
    Priority,
    /// A start after a kill, over many jobs.
    Recovery,
    /// A server without work.
    Idle,
    /// The log alone.
    Log,
    /// The dispatcher alone.
    Dispatcher,
}

/// How it is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program whose `serve` is measured.
    pub program: PathBuf,
    /// Where the bench makes its own directory, which it removes again.
    pub directory: PathBuf,
    /// A server that runs already; `None`: one is started.
    pub address: Option<SocketAddr>,
    /// The configuration of the server that is started; `None`: what the scenario needs, and defaults.
    pub config: Option<PathBuf>,
    /// How long is measured.
    pub duration: Duration,
    /// Jobs per second of an open loop; `None`: a closed one, where the scenario can be either.
    pub rate: Option<u32>,
    /// Callers at once; `None`: as the scenario says.
    pub connections: Option<u32>,
    /// Bytes of a job's data.
    pub payload_bytes: usize,
    /// Whether the server has a core to itself, and the load another.
    pub pin: bool,
    /// Pending jobs, for scenarios that have some; none: as the scenario says.
    pub pending: Vec<u64>,
    /// Settled jobs beside them, where the scenario has some; `None`: as the scenario says.
    pub settled: Option<u64>,
}

impl Options {
    /// Unmeasured, so that buffers, caches and connections are as they will be.
    fn warm_up(&self) -> Duration {
        (self.duration / 10).min(Duration::from_secs(2))
    }
}

/// Runs a scenario to its end. Dropping it ends the server and removes what it wrote.
///
/// # Errors
/// [`Error`] says what to change.
pub async fn run(scenario: Scenario, options: &Options, progress: &Arc<Progress>) -> Result<Report, Error> {
    // Parts alone have no server to share the machine with.
    let has_server = !matches!(scenario, Scenario::Log | Scenario::Dispatcher);
    let context = Context::new(options, progress, has_server)?;
    match scenario {
        Scenario::Sync => sync::run(&context).await,
        Scenario::Backlog => pending::backlog(&context).await,
        Scenario::Priority => priority::run(&context).await,
        Scenario::Recovery => pending::recovery(&context).await,
        Scenario::Async => single::run(&context).await,
        Scenario::Bulk => bulk::run(&context).await,
        Scenario::Idle => idle::run(&context).await,
        Scenario::Log => parts::log(&context).await,
        Scenario::Dispatcher => parts::dispatcher(&context).await,
    }
}

/// A count as a number to divide with; beyond 2^53 it would be rounded, and no count comes near.
#[expect(clippy::cast_precision_loss, reason = "a figure is read to three digits")]
#[must_use]
pub fn figure(count: u64) -> f64 {
    count as f64
}
