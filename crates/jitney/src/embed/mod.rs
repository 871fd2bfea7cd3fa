//! jitney inside your own program: the same promises without HTTP.
//!
//! In: a directory. Out: a [`Jitney`], which owns the driver on its thread and the log under it; its
//! [`Client`]s submit and wait, its [`Worker`]s run handlers, all in this process. A program that outgrows it
//! makes the client of a URL instead ([`Client::new`]), and changes nothing else. The guide is docs/embedding.md.

mod local;
mod words;

/// The code of the guide compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../../../../docs/embedding.md")]
struct Guide;

pub use crate::server::Ended;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::job::Processor;
use crate::limits::{BODIES_PER_SEGMENT, Limits};
use crate::policy::{PolicyBook, PolicyPatch};
use crate::server::options::{BusOptions, Options, Route};
use crate::server::{self, Core, Running, StartError};
use crate::units::format_size;
use crate::worker::Worker;
use local::Local;

/// How long the driver outlasts the grace of the workers, at most.
const HEARING: Duration = Duration::from_secs(1);

/// A jitney in this process. One at a time has a data directory; whoever comes second is told who has it.
///
/// ```
/// use std::time::Duration;
/// use jitney::Jitney;
/// use jitney::client::Submit;
/// use jitney::worker::{HandlerError, Job};
///
/// async fn shout(job: Job<String>) -> Result<String, HandlerError> {
///     Ok(job.data.to_uppercase())
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// # let path = directory.path();
/// let jitney = Jitney::open(path).await?;
/// jitney.spawn(jitney.worker("words").on_group("shout", shout));
///
/// let word = Submit::json("words", &"hello")?.group("shout");
/// let job = jitney.client().submit_and_wait(word, Duration::from_secs(10)).await?;
/// assert_eq!(job.result_as::<String>()?, "HELLO");
///
/// jitney.close().await?;
/// # Ok(())
/// # }
/// ```
///
/// # Promises
///
/// - A submit comes back when the job is on disk, synced. What was accepted outlives the process, however it
///   ends: the next [`Jitney::open`] of the directory finds it.
/// - A job runs at least once: its id is the handler's idempotency key. What this process ran when it was
///   killed counts as a crash at the next start, at once.
/// - Every caller that waits gets the result of its own job.
///
/// # Threads
///
/// The driver and the log have three threads of their own. Everything else runs on the tokio runtime that it is
/// called from, which must have its timer enabled.
#[derive(Debug)]
pub struct Jitney {
    server: Option<Server>,
    client: Client,
    grace: Duration,
    workers: Mutex<JoinSet<()>>,
    stop_workers: CancellationToken,
}

#[derive(Debug)]
enum Server {
    Alone(Core),
    WithHttp(Running),
}

/// Why a jitney is not open any more, though nobody closed it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// A write to the log failed. For whoever runs the machine: look at the disk. What was acknowledged is safe;
    /// of what was under way only the next start knows. Opening it again is safe, and recovers.
    #[error("a write to the log failed, and nothing is acknowledged any more")]
    Poisoned,
    /// A part of jitney panicked, which is a bug in it: the message went to standard error. What was acknowledged is
    /// safe, and opening it again recovers.
    #[error("a part of jitney panicked")]
    Panicked,
}

/// Why a jitney does not open. Nothing was lost by trying.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What was set up contradicts itself. For whoever wrote the program: trying again does not help.
    #[error("{0}")]
    Contradiction(String),
    /// The directory is in use (by which process) or damaged, the disk fails, the address is taken. The error says
    /// for whom it is.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Sets a [`Jitney`] up.
#[derive(Clone, Debug)]
#[must_use = "nothing is opened before `open` is called"]
pub struct Builder {
    options: Options,
    listen: Option<SocketAddr>,
    /// The first processor's name that is none.
    no_name: Option<String>,
}

impl Builder {
    /// How the jobs of one processor gather into batches, are leased, and retry. What the patch leaves out is the
    /// default of [`Policy`](crate::policy::Policy).
    pub fn policy(mut self, processor: &str, patch: PolicyPatch) -> Self {
        match Processor::parse(processor) {
            Some(processor) => {
                let processors = &mut self.options.policies.processors;
                processors.entry(processor).or_default().base = patch;
            }
            None => drop(self.no_name.get_or_insert(processor.to_owned())),
        }
        self
    }

    /// All policies, also those of single groups and priorities. Replaces what was set before.
    pub fn policies(mut self, policies: PolicyBook) -> Self {
        self.options.policies = policies;
        self
    }

    /// The bounds on jobs, bytes, callers, keys and results. The defaults of [`Limits`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options.limits = limits;
        self
    }

    /// The size of a segment file, bytes; at least four times [`Limits::body_bytes_max`]. 64 MiB. Smaller
    /// segments give disk space back sooner, larger ones cost fewer files. Without meaning in memory.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        if let BusOptions::Log { segment_bytes, .. } = &mut self.options.bus {
            *segment_bytes = bytes;
        }
        self
    }

    /// Data of pending jobs that is kept in memory, bytes; the rest is read back from disk. 64 MiB. Without
    /// meaning in memory.
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        if let BusOptions::Log { cache_bytes, .. } = &mut self.options.bus {
            *cache_bytes = bytes;
        }
        self
    }

    /// How long [`Jitney::close`] waits for jobs that run. 10 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.options.grace = grace;
        self
    }

    /// Serves HTTP too, at this address: for `jitney` on the command line, workers in other processes, metrics.
    /// Port 0 takes a free one. Not said, nothing listens. There are no API keys yet: keep it on the loopback.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// Plain URLs in front of jobs, for [`Builder::listen`]. None.
    pub fn routes(mut self, routes: Vec<Route>) -> Self {
        self.options.routes = routes;
        self
    }

    /// Opens it, and waits until every job that was pending is in its lane again.
    ///
    /// # Errors
    /// [`OpenError`] says what to change.
    pub async fn open(mut self) -> Result<Jitney, OpenError> {
        self.check()?;
        let grace = self.options.grace;
        let (server, local) = match self.listen {
            Some(address) => {
                self.options.listen = address;
                let running = server::start(self.options).await?;
                let local = Local::new(running.app(), running.core().watch());
                (Server::WithHttp(running), local)
            }
            None => {
                let (core, app) = server::start_without_http(self.options).await?;
                let local = Local::new(app, core.watch());
                (Server::Alone(core), local)
            }
        };
        Ok(Jitney {
            server: Some(server),
            client: Client::over(local),
            grace,
            workers: Mutex::new(JoinSet::new()),
            stop_workers: CancellationToken::new(),
        })
    }
}

impl Jitney {
    /// Opens the jitney in this directory, which is made if it is not there, with the defaults of [`Builder`].
    ///
    /// # Errors
    /// As [`Builder::open`].
    pub async fn open(directory: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Self::builder(directory).open().await
    }

    /// Sets up the jitney in this directory.
    pub fn builder(directory: impl Into<PathBuf>) -> Builder {
        Builder::new(BusOptions::Log {
            data: directory.into(),
            segment_bytes: 64 << 20,
            cache_bytes: 64 << 20,
        })
    }

    /// Sets up a jitney that keeps everything in memory and loses it with the process: for tests.
    pub fn in_memory() -> Builder {
        Builder::new(BusOptions::Memory)
    }

    /// Submits jobs, waits for results, reads them. Cheap to clone, and the same type as the client of a server:
    /// code that takes a [`Client`] runs with either. After [`Jitney::close`] its calls are refused `draining`.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// A worker of this processor in this process. Give it handlers, then [`Jitney::spawn`] it, or run it
    /// yourself with [`Worker::run_until`]: one that still runs after [`Jitney::close`] ends with an error.
    pub fn worker(&self, processor: &str) -> Worker {
        Worker::new(self.client(), processor)
    }

    /// Runs a worker on the current runtime until [`Jitney::close`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn spawn(&self, worker: Worker) {
        let stop = self.stop_workers.clone();
        let worker = worker.grace_at_most(self.grace);
        self.workers
            .lock()
            // A set is whole after each of its operations.
            .unwrap_or_else(PoisonError::into_inner)
            .spawn(async move {
                if let Err(error) = worker.run_until(stop.cancelled_owned()).await {
                    tracing::error!(%error, "a worker ended before it was asked to");
                }
            });
    }

    /// Where it listens, if it serves HTTP.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.server {
            Some(Server::WithHttp(running)) => Some(running.address()),
            _ => None,
        }
    }

    /// Waits until it has ended though nobody closed it: a write to the log failed, or a part of it panicked. Every
    /// call is refused from then on. A program that cannot do without it ends, and starts again.
    pub async fn ended(&self) -> Ended {
        match &self.server {
            Some(Server::Alone(core)) => core.ended().await,
            Some(Server::WithHttp(running)) => running.ended().await,
            None => Ended::Stopped,
        }
    }

    /// Stops gracefully: new submits are refused, spawned workers finish the job at hand and give the others
    /// back, callers of jobs that run wait up to the grace. What is left undone is found at the next start. Only
    /// when this comes back may the directory be opened again.
    ///
    /// # Errors
    /// [`CloseError`] if it had ended by itself.
    pub async fn close(mut self) -> Result<(), CloseError> {
        self.stop_workers.cancel();
        let mut workers = std::mem::take(&mut *self.workers.lock().unwrap_or_else(PoisonError::into_inner));
        let all_workers = async {
            while let Some(ended) = workers.join_next().await {
                if let Err(panic) = ended {
                    tracing::error!(%panic, "a worker panicked");
                }
            }
        };
        // The workers give back what outlasts the grace; the driver is there to hear it.
        let grace = self.grace + HEARING;
        let server = self.server.take();
        let ended = async {
            match server {
                Some(Server::Alone(core)) => core.stop(grace).await,
                Some(Server::WithHttp(running)) => running.stop(grace).await,
                None => Ended::Stopped,
            }
        };
        // Together: the driver ends as soon as the workers have settled what they held.
        let ((), ended) = tokio::join!(all_workers, ended);
        match ended {
            Ended::Stopped => Ok(()),
            Ended::Poisoned => Err(CloseError::Poisoned),
            Ended::Panicked => Err(CloseError::Panicked),
        }
    }
}

impl Drop for Jitney {
    /// Without [`Jitney::close`] it ends as soon as it can, and nobody waits for it. Nothing accepted is lost.
    fn drop(&mut self) {
        self.stop_workers.cancel();
        let handle = match &self.server {
            Some(Server::Alone(core)) => core.handle(),
            Some(Server::WithHttp(running)) => running.handle(),
            None => return,
        };
        handle.stop(Duration::ZERO);
    }
}

impl Builder {
    /// What the configuration file would complain of.
    fn check(&self) -> Result<(), OpenError> {
        let wrong = |detail| Err(OpenError::Contradiction(detail));
        if let Some(name) = &self.no_name {
            return wrong(format!("`{name}` is no name of a processor"));
        }
        let policies = &self.options.policies;
        let named = policies.processors.iter();
        let named = named.map(|(processor, policy)| (processor.as_str(), policy));
        for (name, policy) in std::iter::once(("*", &*policies.all)).chain(named) {
            if let Some(first) = policy.contradictions(name, &policies.all).first() {
                return wrong(first.message.clone());
            }
        }
        let least = self
            .options
            .limits
            .whole_body_bytes_max()
            .saturating_mul(BODIES_PER_SEGMENT);
        match &self.options.bus {
            BusOptions::Log { segment_bytes, .. } if *segment_bytes < least => wrong(format!(
                "`segment_bytes` is {}, less than {BODIES_PER_SEGMENT} times `body_bytes_max` ({})",
                format_size(*segment_bytes),
                format_size(self.options.limits.whole_body_bytes_max())
            )),
            _ => Ok(()),
        }
    }

    fn new(bus: BusOptions) -> Self {
        Self {
            no_name: None,
            options: Options {
                bus,
                ..Options::default()
            },
            listen: None,
        }
    }
}
