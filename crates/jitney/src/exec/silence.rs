//! How long a child has said nothing of its batch: programs that write into a pipe often keep their lines to
//! themselves, and nobody sees why.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// After so long somebody should look. Most batches take far less; a lease by default as long.
const SILENT_AFTER: Duration = Duration::from_secs(30);

/// Since when, and whether it was said.
#[derive(Debug)]
pub(super) struct Silence {
    since: Instant,
    said: bool,
    /// Lines since then that were no outcome.
    other_lines: u64,
}

impl Silence {
    /// From now on.
    pub(super) fn begin() -> Self {
        Self {
            since: Instant::now(),
            said: false,
            other_lines: 0,
        }
    }

    /// The child said something of its batch.
    pub(super) fn broken(&mut self) {
        *self = Self::begin();
    }

    /// The child wrote a line that is no outcome.
    pub(super) const fn other_line(&mut self) {
        self.other_lines += 1;
    }

    /// Waits until it has lasted too long, once: how many lines came that were no outcome. Cancel-safe.
    pub(super) async fn lasts(&mut self) -> u64 {
        if self.said {
            return std::future::pending().await;
        }
        sleep_until(self.since + SILENT_AFTER).await;
        self.said = true;
        self.other_lines
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn a_silence_is_told_once_and_an_outcome_ends_it() {
        let mut silence = Silence::begin();
        advance(SILENT_AFTER - Duration::from_secs(1)).await;
        silence.broken();
        silence.other_line();
        let began = Instant::now();
        assert_eq!(silence.lasts().await, 1);
        assert!(began.elapsed() >= SILENT_AFTER);
        assert!(timeout(LONG, silence.lasts()).await.is_err(), "it was said");
        silence.broken();
        assert_eq!(timeout(LONG, silence.lasts()).await, Ok(0));
    }
}
