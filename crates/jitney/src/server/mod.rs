//! The server: the threads and tasks around the driver, from the socket to a clean stop.
//!
//! In: [`Options`]. Out: a [`Running`] server, once it is ready. One thread runs the driver, two do the
//! log's I/O, tasks on the runtime serve HTTP. All of them end with the server.

pub mod handle;
pub mod io;
pub mod log;
mod machine;
pub mod options;
pub mod port;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task;

use crate::bus::{Bus, MemoryBus, Retention};
use crate::clock::{Clock, SystemClock, between};
use crate::driver::{self, Driver, Ended, Turn};
use crate::entropy::random_u64;
use crate::http::{self, App, RouteError};
use crate::limits::Limits;
use crate::metrics::Metrics;
use handle::Handle;
use log::OpenError;
use options::{BusOptions, Options};
use port::ChannelPort;

/// A finished stop may leave answers half written; they get so long to end.
const ANSWERS_END: Duration = Duration::from_secs(2);

/// A server that takes work.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    handle: Handle,
    /// `true` once the driver has ended: HTTP finishes the answers in progress and stops.
    stop_http: watch::Sender<bool>,
    http: task::JoinHandle<()>,
    driver: JoinHandle<()>,
    /// How the driver ended, once it has.
    ended: watch::Receiver<Option<Ended>>,
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
    let limits = machine::bound(options.limits.clone(), &options.bus);
    let options = Options {
        limits: limits.clone(),
        ..options
    };
    let (handle, port) = port::port(calls_max(&limits));
    let listener = TcpListener::bind(options.listen).await;
    let bound = listener.and_then(|listener| listener.local_addr().map(|address| (listener, address)));
    let (listener, address) = bound.map_err(|source| StartError::Listen {
        address: options.listen,
        source,
    })?;
    let metrics = Arc::new(Metrics::default());
    let app = App::new(handle.clone(), &options, Arc::clone(&metrics))?;
    let (stop_http, mut stop_seen) = watch::channel(false);
    let stopped = async move { drop(stop_seen.wait_for(|stop| *stop).await) };
    let http = task::spawn(http::serve(listener, app, stopped));

    let thread = DriverThread {
        handle: handle.clone(),
        bus: options.bus,
        options: driver::Options {
            limits,
            policies: options.policies,
            seed: random_u64(),
            metrics,
        },
    };
    let (opened_sender, opened) = oneshot::channel();
    let (ended_sender, ended) = watch::channel(None);
    let driver = Builder::new()
        .name("jitney-driver".to_owned())
        .spawn(move || thread.run(port, opened_sender, &ended_sender))
        .map_err(StartError::Thread)?;
    match opened.await {
        Ok(Ok(())) => Ok(Running {
            address,
            handle,
            stop_http,
            http,
            driver,
            ended,
        }),
        Ok(Err(error)) => {
            http.abort();
            Err(error)
        }
        // The thread says why before it ends, unless it panicked.
        Err(_) => Err(StartError::Thread(std::io::Error::other(
            "the driver's thread ended at once",
        ))),
    }
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Calls its driver, without HTTP.
    #[must_use]
    pub const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Waits until the driver has ended: after a stop, or because a sync failed.
    pub async fn ended(&mut self) -> Ended {
        let ended = self.ended.wait_for(Option::is_some).await;
        // A driver that ended without a word panicked: what it wrote is not known.
        ended
            .ok()
            .and_then(|ended| ended.clone())
            .unwrap_or(Ended::Poisoned)
    }

    /// Drains, waits for leased jobs up to `grace`, and ends.
    pub async fn stop(mut self, grace: Duration) -> Ended {
        self.handle.stop(grace);
        let ended = self.ended().await;
        self.stop_http.send_replace(true);
        if tokio::time::timeout(ANSWERS_END, &mut self.http).await.is_err() {
            self.http.abort();
        }
        drop(task::spawn_blocking(move || self.driver.join()).await);
        ended
    }
}

/// What the driver's thread is started with.
struct DriverThread {
    handle: Handle,
    bus: BusOptions,
    options: driver::Options,
}

impl DriverThread {
    fn run(
        self,
        port: ChannelPort,
        opened: oneshot::Sender<Result<(), StartError>>,
        ended: &watch::Sender<Option<Ended>>,
    ) {
        let clock = SystemClock::new();
        let limits = &self.options.limits;
        match &self.bus {
            BusOptions::Memory => {
                let retention = Retention {
                    result_ttl: limits.result_ttl,
                    key_ttl: limits.key_ttl,
                    results_max: limits.results_max,
                };
                let bus = MemoryBus::new(random_u64(), retention);
                self.drive(bus, clock, port, opened, ended);
            }
            BusOptions::Log {
                data,
                segment_bytes,
                cache_bytes,
            } => {
                let options = log::Options {
                    segment_bytes: *segment_bytes,
                    cache_bytes: *cache_bytes,
                };
                let opening = log::open(data, options, limits, &self.handle, clock.now());
                match opening {
                    Ok(bus) => self.drive(bus, clock, port, opened, ended),
                    Err(source) => {
                        let data = data.clone();
                        drop(opened.send(Err(StartError::Log { data, source })));
                    }
                }
            }
        }
    }

    /// Turns the driver until it ends; reports once it is ready.
    fn drive<B: Bus>(
        self,
        bus: B,
        clock: SystemClock,
        port: ChannelPort,
        opened: oneshot::Sender<Result<(), StartError>>,
        ended: &watch::Sender<Option<Ended>>,
    ) {
        let capabilities = bus.capabilities();
        for lack in capabilities.lacks() {
            tracing::warn!(
                bus = capabilities.name,
                not = lack,
                "this bus cannot do everything"
            );
        }
        let mut driver = Driver::new(bus, clock, port, self.options);
        let mut opened = Some(opened);
        loop {
            match driver.turn() {
                Turn::Idle(wake) => {
                    if driver.is_ready()
                        && let Some(opened) = opened.take()
                    {
                        self.handle.set_ready();
                        drop(opened.send(Ok(())));
                    }
                    let timeout = wake.map(|at| between(clock.now().mono, at));
                    driver.port().wait(timeout);
                }
                Turn::Ended(how) => {
                    if how == Ended::Stopped {
                        self.handle.set_stopped();
                    }
                    // The bus is dropped, its threads joined and the directory unlocked, before anyone hears.
                    drop(driver);
                    ended.send_replace(Some(how));
                    return;
                }
            }
        }
    }
}

/// Each connection has at most one call under way; a wait that outlives its connection counts until the
/// driver has heard of it.
fn calls_max(limits: &Limits) -> usize {
    usize::try_from(limits.connections_max.saturating_add(limits.waiters_max)).unwrap_or(usize::MAX)
}
