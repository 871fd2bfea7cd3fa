//! Time and randomness come in through here, and nowhere else.
//!
//! The server reads the machine's clocks; the simulator and the tests hand out their own.

pub use joblog::ids::WallMs;
pub use joblog::time::{Mono, Now};

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A source of both clocks.
pub trait Clock {
    /// Reads both.
    fn now(&self) -> Now;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    /// Where `mono` counts from.
    start: Instant,
}

impl SystemClock {
    /// A clock whose `mono` starts at zero now.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clocks"
    )]
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clocks"
    )]
    fn now(&self) -> Now {
        let mono = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        Now {
            mono: Mono(mono),
            wall: WallMs(u64::try_from(wall).unwrap_or(u64::MAX)),
        }
    }
}

/// `mono` later by a duration, saturating.
#[must_use]
pub fn after(mono: Mono, duration: Duration) -> Mono {
    Mono(
        mono.0
            .saturating_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)),
    )
}

/// How long from `earlier` to `later`; zero if it is not later.
#[must_use]
pub fn between(earlier: Mono, later: Mono) -> Duration {
    Duration::from_micros(later.0.saturating_sub(earlier.0))
}
