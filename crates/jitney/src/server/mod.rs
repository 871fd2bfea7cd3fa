//! The server: the threads and tasks around the driver, from the socket to a clean stop.
//!
//! In: [`Options`]. Out: a [`Running`] server, once it is ready. One thread runs the driver, two do the
//! log's I/O, tasks on the runtime serve HTTP. All of them end with the server.

mod core;
#[doc(hidden)]
pub mod handle;
#[doc(hidden)]
pub mod io;
#[doc(hidden)]
pub mod log;
mod machine;
mod mailbox;
pub mod options;
#[doc(hidden)]
pub mod port;

pub use machine::raise_open_files;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task;
use tokio_util::sync::CancellationToken;

use crate::driver;
use crate::entropy::random_u64;
use crate::http::{self, App, Door, RouteError};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::policy::PolicyBook;
use crate::units::format_size;
pub(crate) use core::Core;
pub use core::Ended;
use handle::Handle;
use log::OpenError;
use options::{BusOptions, Options, Route};
use port::ChannelPort;

/// A finished stop may leave answers half written; they get so long to end.
const ANSWERS_END: Duration = Duration::from_secs(2);

/// A server that takes work.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    core: Core,
    door: Door,
    /// `true` once the driver has ended: HTTP finishes the answers in progress and stops.
    stop_http: watch::Sender<bool>,
    http: task::JoinHandle<()>,
    /// Cancelled when `http` ends.
    http_ended: CancellationToken,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken or not ours. The operator picks another.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The log cannot be opened: in use, damaged, of a newer format, or the medium fails.
    #[error("cannot open the log in `{}`: {source}", .data.display())]
    Log {
        /// The directory.
        data: PathBuf,
        /// Why.
        source: OpenError,
    },
    /// `log_bytes_max` was set by hand, and the log can never keep it. The operator changes it, or `segment_bytes`.
    #[error(
        "`log_bytes_max` is {}, and a log with segments of {} needs at least {}: three of them, beside its spares; \
         raise `log_bytes_max` or lower `segment_bytes`",
        format_size(*limit),
        format_size(*segment),
        format_size(*needed)
    )]
    LogTooSmall {
        /// The limit.
        limit: u64,
        /// The size of a segment.
        segment: u64,
        /// What the log needs.
        needed: u64,
    },
    /// A route of the configuration cannot be served.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The system has no thread for us.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// Starts a server and waits until it is ready: everything pending in its log is in its lanes again.
///
/// # Errors
/// [`StartError`] says what to change.
pub async fn start(options: Options) -> Result<Running, StartError> {
    let listener = TcpListener::bind(options.listen).await;
    let bound = listener.and_then(|listener| listener.local_addr().map(|address| (listener, address)));
    let (listener, address) = bound.map_err(|source| StartError::Listen {
        address: options.listen,
        source,
    })?;
    let parts = Parts::prepare(options)?;
    let door = Door::new(parts.app.clone());
    let (stop_http, mut stop_seen) = watch::channel(false);
    let stopped = async move { drop(stop_seen.wait_for(|stop| *stop).await) };
    let http_ended = CancellationToken::new();
    let ending = http_ended.clone().drop_guard();
    let serving = http::serve(listener, door.clone(), stopped);
    let http = task::spawn(async move {
        // Dropped at the end, also in a panic.
        let _ending = ending;
        serving.await;
    });
    match parts.start().await {
        Ok(core) => Ok(Running {
            address,
            core,
            door,
            stop_http,
            http,
            http_ended,
        }),
        Err(error) => {
            http.abort();
            Err(error)
        }
    }
}

/// Starts all of a server but its listener, and waits until it is ready.
///
/// # Errors
/// As [`start`], but for those of an address.
pub(crate) async fn start_without_http(options: Options) -> Result<(Core, App), StartError> {
    let parts = Parts::prepare(options)?;
    let app = parts.app.clone();
    Ok((parts.start().await?, app))
}

/// What a server is made of, before it runs.
struct Parts {
    handle: Handle,
    port: ChannelPort,
    app: App,
    bus: BusOptions,
    /// Whether somebody set `log_bytes_max`.
    log_bytes_told: bool,
    driver: driver::Options,
}

impl Parts {
    fn prepare(options: Options) -> Result<Self, StartError> {
        let log_bytes_told = options.limits.log_bytes_max.is_some();
        let limits = machine::bound(options.limits.clone(), &options.bus);
        let options = Options {
            limits: limits.clone(),
            ..options
        };
        let (handle, port) = port::port(calls_max(&limits));
        let metrics = Arc::new(Metrics::default());
        Ok(Self {
            app: App::new(handle.clone(), &options, Arc::clone(&metrics))?,
            handle,
            port,
            bus: options.bus,
            log_bytes_told,
            driver: driver::Options {
                limits,
                policies: options.policies,
                seed: random_u64(),
                metrics,
            },
        })
    }

    async fn start(self) -> Result<Core, StartError> {
        let bus = core::BusOf {
            options: self.bus,
            log_bytes_told: self.log_bytes_told,
        };
        Core::start(self.handle, self.port, bus, self.driver).await
    }
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Calls its driver, without HTTP.
    #[doc(hidden)]
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        self.core.handle()
    }

    /// What the front door works with.
    pub(crate) fn app(&self) -> App {
        self.door.app()
    }

    /// Puts the policies and routes of a configuration that was read again in the place of those before. Policies
    /// are in force from the next decision, routes from the next request; what was set over the API stays set.
    ///
    /// # Errors
    /// [`RouteError`] if a route cannot be served; then nothing has changed.
    pub fn reload(&self, policies: PolicyBook, routes: &[Route]) -> Result<(), RouteError> {
        self.door
            .exchange_routes(routes)
            .inspect_err(|_| self.reload_refused())?;
        self.handle().set_policies(policies);
        self.app().metrics().reloaded(true);
        Ok(())
    }

    /// Counts a configuration that was read again and has a mistake.
    pub fn reload_refused(&self) {
        self.app().metrics().reloaded(false);
    }

    /// The driver behind the door.
    pub(crate) const fn core(&self) -> &Core {
        &self.core
    }

    /// Waits until it has ended though nobody stopped it: a sync failed, or a part of it panicked.
    pub async fn ended(&self) -> Ended {
        tokio::select! {
            biased;
            ended = self.core.ended() => ended,
            // Unasked it ends only by a panic, and nobody would be listening any more.
            () = self.http_ended.cancelled() => Ended::Panicked,
        }
    }

    /// Drains, waits for leased jobs up to `grace`, and ends.
    pub async fn stop(mut self, grace: Duration) -> Ended {
        self.core.handle().stop(grace);
        let ended = self.core.ended().await;
        self.stop_http.send_replace(true);
        if tokio::time::timeout(ANSWERS_END, &mut self.http).await.is_err() {
            self.http.abort();
        }
        self.core.join().await;
        ended
    }
}

/// Each connection has at most one call under way; a wait that outlives its connection counts until the
/// driver has heard of it.
fn calls_max(limits: &Limits) -> usize {
    usize::try_from(limits.connections_max.saturating_add(limits.waiters_max)).unwrap_or(usize::MAX)
}
