//! The heart of a server, without a door: the driver on its thread, with the bus under it.
//!
//! In: calls through the [`Handle`]. Out: their answers. The thread owns the driver and the bus, and ends with
//! the driver; the bus's own threads end before it.

use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task;

use super::StartError;
use super::handle::Handle;
use super::log::{self, DirBus};
use super::options::BusOptions;
use super::port::ChannelPort;
use crate::bus::{Bus, MemoryBus, Retention, Usage};
use crate::clock::{Clock, SystemClock, between};
use crate::driver::{self, Driver, Turn};
use crate::entropy::random_u64;
use crate::limits::Limits;

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// As asked; everything is on disk.
    Stopped,
    /// A sync failed: the process should end (74), the next start recovers.
    Poisoned,
    /// A part of the server panicked, which is a bug: the process should end (70), the next start recovers.
    Panicked,
}

impl From<driver::Ended> for Ended {
    fn from(ended: driver::Ended) -> Self {
        match ended {
            driver::Ended::Stopped => Self::Stopped,
            driver::Ended::Poisoned => Self::Poisoned,
        }
    }
}

/// Which bus, and what is known of its limits.
pub(super) struct BusOf {
    pub(super) options: BusOptions,
    /// Whether somebody set `log_bytes_max`; else it was found.
    pub(super) log_bytes_told: bool,
}

/// A driver that takes calls.
#[derive(Debug)]
pub(crate) struct Core {
    handle: Handle,
    driver: JoinHandle<()>,
    /// How the driver ended, once it has.
    ended: watch::Receiver<Option<Ended>>,
}

impl Core {
    /// Starts the thread and waits until everything pending in the log is in its lanes again.
    ///
    /// # Errors
    /// [`StartError`] says what to change.
    pub(super) async fn start(
        handle: Handle,
        port: ChannelPort,
        bus: BusOf,
        options: driver::Options,
    ) -> Result<Self, StartError> {
        let thread = DriverThread {
            handle: handle.clone(),
            bus,
            options,
        };
        let (opened_sender, opened) = oneshot::channel();
        let (ended_sender, ended) = watch::channel(None);
        let driver = Builder::new()
            .name("jitney-driver".to_owned())
            .spawn(move || thread.run(port, opened_sender, &ended_sender))
            .map_err(StartError::Thread)?;
        match opened.await {
            Ok(Ok(())) => Ok(Self {
                handle,
                driver,
                ended,
            }),
            Ok(Err(error)) => Err(error),
            // The thread says why before it ends, unless it panicked.
            Err(_) => Err(StartError::Thread(std::io::Error::other(
                "the driver's thread ended at once",
            ))),
        }
    }

    /// Calls its driver.
    pub(crate) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// How the driver ended, once it has.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Ended>> {
        self.ended.clone()
    }

    /// Waits until the driver has ended: after a stop, or because a sync failed.
    pub(crate) async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let ended = ended.wait_for(Option::is_some).await;
        // A driver that ended without a word panicked, or one of the threads under it did.
        ended.ok().and_then(|ended| *ended).unwrap_or(Ended::Panicked)
    }

    /// Drains, waits for leased jobs up to `grace`, and ends.
    pub(crate) async fn stop(self, grace: Duration) -> Ended {
        self.handle.stop(grace);
        let ended = self.ended().await;
        self.join().await;
        ended
    }

    /// Waits for a thread whose driver has ended.
    pub(super) async fn join(self) {
        // A thread that panicked has said so on standard error.
        drop(task::spawn_blocking(move || self.driver.join()).await);
    }
}

/// What is wrong with a limit that the log can never keep.
fn too_small(limits: &Limits, usage: &Usage, segment: u64) -> Option<StartError> {
    let needed = usage.needed_bytes;
    let limit = limits.log_bytes_short_of(needed)?;
    Some(StartError::LogTooSmall {
        limit,
        segment,
        needed,
    })
}

/// Whether nobody would miss anything if the server did not start.
const fn holds_nothing(usage: &Usage) -> bool {
    usage.unsettled == 0 && usage.results == 0 && usage.keys == 0
}

/// What the driver's thread is started with.
struct DriverThread {
    handle: Handle,
    bus: BusOf,
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
        match &self.bus.options {
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
                let too_small = |bus: &DirBus| too_small(limits, &bus.usage(), *segment_bytes);
                let opening = opening.map(|bus| (too_small(&bus), bus));
                match opening {
                    Ok((Some(error), bus)) if self.bus.log_bytes_told && holds_nothing(&bus.usage()) => {
                        // Unlocked before anyone hears.
                        drop(bus);
                        drop(opened.send(Err(error)));
                    }
                    Ok((short, bus)) => {
                        if let Some(error) = short {
                            tracing::warn!(%error, "no new jobs are taken once the log is as large as it may be");
                        }
                        self.drive(bus, clock, port, opened, ended);
                    }
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
            let turn = driver.turn();
            if driver.port().is_broken() {
                // What that thread had under way will never be done. Whoever waits hears that nobody knows.
                return;
            }
            match turn {
                Turn::Idle(wake) => {
                    if driver.is_ready()
                        && let Some(opened) = opened.take()
                    {
                        self.handle.set_ready();
                        drop(opened.send(Ok(())));
                    }
                    let timeout = wake.map(|at| between(clock.now().mono, at));
                    let unread_max = driver.unread_max();
                    driver.port().wait(unread_max, timeout);
                }
                Turn::Ended(how) => {
                    let how = Ended::from(how);
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
