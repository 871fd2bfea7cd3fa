//! SIGTERM and SIGINT: the first asks to stop, the second to stop at once. SIGHUP asks to reload.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Exit;
use super::failure::Failure;

/// The signals that ask the process to end, or to read its configuration again.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Only where there is something to read again: elsewhere a hangup ends the process, as it always does.
    hangup: Option<Signal>,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To end.
    Stop,
    /// To read the configuration again.
    Reload,
}

impl Signals {
    /// From now on these signals end the process only where it says so.
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: None,
        })
    }

    /// The same, and SIGHUP asks for a reload.
    pub(super) fn with_hangup() -> Result<Self, Failure> {
        Ok(Self {
            hangup: Some(listen(SignalKind::hangup())?),
            ..Self::new()?
        })
    }

    /// Waits for one. Cancel-safe: one that came meanwhile is seen by the next call.
    pub(super) async fn asked(&mut self) -> Asked {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop,
            _ = self.interrupt.recv() => Asked::Stop,
            () = hangup => Asked::Reload,
        }
    }

    /// Waits for one that asks to end. Cancel-safe likewise; a hangup meanwhile asks for nothing.
    pub(super) async fn next(&mut self) {
        while self.asked().await != Asked::Stop {}
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(Exit::Io, format!("cannot listen for signals: {error}")))
}

/// Ends the process at once, after a second signal.
#[expect(
    clippy::disallowed_methods,
    reason = "the user asked twice; what was acknowledged is on disk, and nothing else is owed"
)]
pub(super) fn exit_at_once() -> ! {
    std::process::exit(i32::from(Exit::Interrupted.code()))
}
