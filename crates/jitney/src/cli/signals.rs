//! SIGTERM and SIGINT: the first asks to stop, the second to stop at once.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Exit;
use super::failure::Failure;

/// The signals that ask the process to end.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on these signals end the process only where it says so.
    pub(super) fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(Exit::Io, format!("cannot listen for signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for one. Cancel-safe: one that came meanwhile is seen by the next call.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Ends the process at once, after a second signal.
#[expect(
    clippy::disallowed_methods,
    reason = "the user asked twice; what was acknowledged is on disk, and nothing else is owed"
)]
pub(super) fn exit_at_once() -> ! {
    std::process::exit(i32::from(Exit::Interrupted.code()))
}
