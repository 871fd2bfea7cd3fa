//! SIGTERM, SIGINT and a terminal that closes: the first asks to stop, the second to stop at once. SIGHUP asks a server
//! to reload.

use std::fs;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Exit;
use super::failure::Failure;

/// The signals that ask the process to end, or to read its configuration again.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Option<Signal>,
    /// What a hangup asks for.
    on_hangup: Asked,
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
    /// From now on these signals end the process only where it says so. SIGHUP asks to end, unless whoever started the
    /// process had it ignored (`nohup`).
    pub(super) fn new() -> Result<Self, Failure> {
        let ignored = fs::read_to_string("/proc/self/status")
            .ok()
            .and_then(|status| ignores_hangup(&status));
        // Where the system does not say, a hangup does what it always does there.
        let hangup = match ignored {
            Some(false) => Some(listen(SignalKind::hangup())?),
            Some(true) | None => None,
        };
        Self::with(hangup, Asked::Stop)
    }

    /// The same, and SIGHUP asks for a reload.
    pub(super) fn with_reload() -> Result<Self, Failure> {
        Self::with(Some(listen(SignalKind::hangup())?), Asked::Reload)
    }

    fn with(hangup: Option<Signal>, on_hangup: Asked) -> Result<Self, Failure> {
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup,
            on_hangup,
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
            () = hangup => {
                if self.on_hangup == Asked::Stop {
                    // A terminal that closes may say so twice, the system and the shell: that is no second wish.
                    self.hangup = None;
                }
                self.on_hangup
            }
        }
    }

    /// Waits for one that asks to end. Cancel-safe likewise; a wish to reload meanwhile asks for nothing.
    pub(super) async fn next(&mut self) {
        while self.asked().await != Asked::Stop {}
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(Exit::Io, format!("cannot listen for signals: {error}")))
}

/// Whether SIGHUP is ignored, from the text of /proc/PID/status: a mask in hexadecimal, whose lowest bit is signal 1.
fn ignores_hangup(status: &str) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask & 1 == 1)
}

/// Ends the process at once, after a second signal.
#[expect(
    clippy::disallowed_methods,
    reason = "the user asked twice; what was acknowledged is on disk, and nothing else is owed"
)]
pub(super) fn exit_at_once() -> ! {
    std::process::exit(i32::from(Exit::Interrupted.code()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_that_is_ignored_is_seen() {
        assert_eq!(
            ignores_hangup("Name:\tx\nSigIgn:\t0000000000001000\n"),
            Some(false)
        );
        assert_eq!(
            ignores_hangup("Name:\tx\nSigIgn:\t0000000000001001\n"),
            Some(true)
        );
        assert_eq!(ignores_hangup("SigIgn:\tx\n"), None);
        assert_eq!(ignores_hangup("Name:\tx\n"), None);
    }
}
