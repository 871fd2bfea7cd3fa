//! When a failed call is made again: a pure decision over the failure.

use std::time::Duration;

use super::error::{Error, Retry};
use crate::entropy::jittered;

/// How often and how long a call is retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retries {
    /// Tries in all, the first included; 1 turns retries off. 6.
    pub attempts_max: u32,
    /// No retry starts later than this after the call. 30 s.
    pub total: Duration,
    /// The pause before the second try; it doubles with each. 100 ms.
    pub first_pause: Duration,
    /// The longest pause of our own making; a server's `Retry-After` may be longer. 5 s.
    pub pause_max: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts_max: 6,
            total: Duration::from_secs(30),
            first_pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(5),
        }
    }
}

impl Retries {
    /// One try and no more.
    #[must_use]
    pub fn none() -> Self {
        Self {
            attempts_max: 1,
            ..Self::default()
        }
    }

    /// How long to pause before the next try, or `None` if there is to be none.
    /// `repeatable`: doing it twice is doing it once.
    pub(super) fn pause(
        &self,
        error: &Error,
        repeatable: bool,
        attempt: u32,
        left: Duration,
    ) -> Option<Duration> {
        if attempt >= self.attempts_max {
            return None;
        }
        let pause = match worth(error, repeatable)? {
            // The server named the earliest moment; the jitter is on top of it.
            Some(after) => after + jittered(self.backoff(1)),
            None => jittered(self.backoff(attempt)),
        };
        (pause < left).then_some(pause)
    }

    /// The full pause after so many tries, before jitter.
    pub(crate) fn backoff(&self, attempt: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first_pause
            .saturating_mul(doubled.max(1))
            .min(self.pause_max)
    }
}

/// `None`: do not retry. `Some(None)`: with our own backoff. `Some(Some(after))`: as the server says.
fn worth(error: &Error, repeatable: bool) -> Option<Option<Duration>> {
    match error {
        Error::Refused(problem) => match problem.retry {
            Retry::No => None,
            Retry::Safe | Retry::After => Some(problem.retry_after),
            Retry::OnlyWithIdempotencyKey => repeatable.then_some(problem.retry_after),
        },
        Error::Unreachable { sent: false, .. } => Some(None),
        Error::Unreachable { sent: true, .. } => repeatable.then_some(None),
        // A gateway that cannot reach the server says so in its own words.
        Error::Protocol { server_fault, .. } => (*server_fault && repeatable).then_some(None),
        Error::TimedOut { .. } | Error::Accepted { .. } | Error::Invalid { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Problem;

    const LONG: Duration = Duration::from_secs(60);

    fn refused(retry: &str, after: Option<Duration>) -> Error {
        let body = format!(r#"{{"code":"x","detail":"y","retry":"{retry}"}}"#);
        Error::Refused(Box::new(Problem::decode(body.as_bytes(), 503, after).unwrap()))
    }

    fn unreachable(sent: bool) -> Error {
        Error::Unreachable {
            url: String::new(),
            sent,
            source: "gone".into(),
        }
    }

    #[test]
    fn what_was_not_sent_is_always_retried() {
        let retries = Retries::default();
        assert!(retries.pause(&unreachable(false), false, 1, LONG).is_some());
    }

    #[test]
    fn what_may_have_arrived_is_retried_only_if_repeating_it_is_safe() {
        let retries = Retries::default();
        for error in [unreachable(true), refused("only_with_idempotency_key", None)] {
            assert!(retries.pause(&error, false, 1, LONG).is_none());
            assert!(retries.pause(&error, true, 1, LONG).is_some());
        }
    }

    #[test]
    fn a_final_refusal_is_not_retried() {
        let retries = Retries::default();
        assert!(retries.pause(&refused("no", None), true, 1, LONG).is_none());
    }

    #[test]
    fn the_servers_time_is_honoured_and_one_that_is_too_far_away_is_not_waited_for() {
        let retries = Retries::default();
        let error = refused("after", Some(Duration::from_secs(10)));
        let pause = retries.pause(&error, false, 1, LONG).unwrap();
        assert!(pause >= Duration::from_secs(10));
        assert_eq!(retries.pause(&error, false, 1, Duration::from_secs(9)), None);
    }

    #[test]
    fn tries_are_bounded_and_pauses_grow_to_their_cap() {
        let retries = Retries::default();
        assert_eq!(retries.pause(&unreachable(false), true, 6, LONG), None);
        assert_eq!(retries.backoff(1), Duration::from_millis(100));
        assert_eq!(retries.backoff(4), Duration::from_millis(800));
        assert_eq!(retries.backoff(400), Duration::from_secs(5));
    }
}
