//! What becomes of a job whose try failed: tries and crashes counted, the next try's time, the end.

use std::time::Duration;

use crate::clock::WallMs;
use crate::dispatcher::entry::mix;
use crate::dispatcher::event::{Change, Finish, Requeue};
use crate::job::{Cause, End, JobId, Reason};
use crate::mutants::{Mutant, active};
use crate::policy::Policy;

/// What is known of a job when its try ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    pub(super) job: JobId,
    /// Counted before.
    pub(super) attempts: u32,
    /// Counted before.
    pub(super) crashes: u32,
    pub(super) alone: bool,
    pub(super) started: Option<WallMs>,
    /// Its batch had no other job.
    pub(super) single: bool,
}

impl Try {
    /// It ended with an outcome of its own: a result, or a final error.
    pub(super) fn finish(&self, end: End, policy: &Policy) -> Change {
        Change::Finish(Finish {
            end,
            reason: None,
            cause: None,
            attempts: self.attempts.saturating_add(1),
            crashes: self.crashes,
            started: self.started,
            keep: policy.result_ttl,
        })
    }

    /// It failed and may be tried again, if a try is left. `after` is what the worker asked for.
    pub(super) fn fail(
        &self,
        cause: Cause,
        after: Option<Duration>,
        policy: &Policy,
        wall: WallMs,
    ) -> Change {
        let attempts = self.attempts.saturating_add(1);
        if attempts >= policy.max_attempts {
            return Change::Finish(Finish {
                end: End::Error,
                reason: Some(Reason::Exhausted),
                cause: (cause != Cause::Error).then_some(cause),
                attempts,
                crashes: self.crashes,
                started: self.started,
                keep: policy.result_ttl,
            });
        }
        let wait = backoff(policy, self.job, attempts).max(after.unwrap_or_default());
        Change::Requeue(Requeue {
            cause,
            due: Some(WallMs(wall.0.saturating_add(millis(wait)))),
            alone: self.alone,
            attempts,
            crashes: self.crashes,
        })
    }

    /// Its worker was lost. At its first crash it travels once more as it was.
    pub(super) fn crash(&self, cause: Cause, policy: &Policy) -> Change {
        let crashes = if active(Mutant::UncountedCrash) {
            self.crashes
        } else {
            self.crashes.saturating_add(1)
        };
        if self.single && crashes >= policy.max_crashes {
            return Change::Finish(Finish {
                end: End::Failed,
                reason: Some(Reason::Dead),
                cause: Some(cause),
                attempts: self.attempts,
                crashes,
                started: self.started,
                keep: policy.result_ttl,
            });
        }
        self.back(cause, crashes, self.alone || crashes >= 2)
    }

    /// Its batch failed as a whole: alone from now on, or a failed try if it was alone.
    pub(super) fn split(&self, policy: &Policy, wall: WallMs) -> Change {
        if self.single {
            return self.fail(Cause::BatchFailed, None, policy, wall);
        }
        self.back(Cause::BatchFailed, self.crashes, true)
    }

    /// Its worker gave it back.
    pub(super) fn release(&self) -> Change {
        self.back(Cause::Released, self.crashes, self.alone)
    }

    const fn back(&self, cause: Cause, crashes: u32, alone: bool) -> Change {
        Change::Requeue(Requeue {
            cause,
            due: None,
            alone,
            attempts: self.attempts,
            crashes,
        })
    }
}

/// How long to wait before the try after `attempts`: doubling, 20 % more or less, at most `backoff_max`.
pub(super) fn backoff(policy: &Policy, job: JobId, attempts: u32) -> Duration {
    let doubled = 2_u32
        .checked_pow(attempts.saturating_sub(1))
        .and_then(|factor| policy.backoff.checked_mul(factor))
        .unwrap_or(policy.backoff_max)
        .min(policy.backoff_max);
    let [low, high] = [&job.0[..8], &job.0[8..]]
        .map(|half| u64::from_le_bytes(half.try_into().expect("half an id is 8 bytes")));
    let jitter = mix(mix(low ^ u64::from(attempts)) ^ high) % 401;
    let permille = 800 + u32::try_from(jitter).expect("a remainder of 401 is small");
    (doubled / 1000).saturating_mul(permille).min(policy.backoff_max)
}

/// Whole milliseconds, rounded up.
pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Priority;
    use crate::policy::PolicyPatch;

    fn policy() -> Policy {
        PolicyPatch::default().over_defaults(Priority::Normal)
    }

    fn a_try(attempts: u32, crashes: u32, single: bool) -> Try {
        Try {
            job: JobId([7; 16]),
            attempts,
            crashes,
            alone: false,
            started: Some(WallMs(5)),
            single,
        }
    }

    #[test]
    fn backoff_doubles_within_a_fifth_and_has_a_ceiling() {
        for n in 0..=255_u8 {
            for (attempts, base) in [(1, 200), (2, 400), (5, 3200), (9, 51_200)] {
                let wait = backoff(&policy(), JobId([n; 16]), attempts);
                let (low, high) = (base * 8 / 10, (base * 12 / 10).min(60_000));
                assert!((low..=high).contains(&millis(wait)), "{wait:?} of {base}");
            }
            assert!(backoff(&policy(), JobId([n; 16]), u32::MAX) <= policy().backoff_max);
        }
        let distinct: std::collections::BTreeSet<_> =
            (0..=255).map(|n| backoff(&policy(), JobId([n; 16]), 1)).collect();
        assert!(distinct.len() > 100);
    }

    #[test]
    fn the_fifth_failed_try_is_the_last() {
        let retry = a_try(3, 0, false).fail(Cause::Error, None, &policy(), WallMs(0));
        assert!(matches!(retry, Change::Requeue(Requeue { attempts: 4, .. })));
        let end = a_try(4, 0, false).fail(Cause::MissingOutcome, None, &policy(), WallMs(0));
        let Change::Finish(end) = end else {
            panic!("{end:?}")
        };
        assert_eq!(
            (end.end, end.reason, end.attempts),
            (End::Error, Some(Reason::Exhausted), 5)
        );
        assert_eq!(end.cause, Some(Cause::MissingOutcome));
    }

    #[test]
    fn a_worker_may_ask_for_a_later_try_but_not_for_an_earlier_one() {
        let due = |after| match a_try(0, 0, false).fail(Cause::Error, after, &policy(), WallMs(1000)) {
            Change::Requeue(requeue) => requeue.due.unwrap().0,
            finish @ Change::Finish(_) => panic!("{finish:?}"),
        };
        assert_eq!(due(Some(Duration::from_secs(5))), 6000);
        assert!((1160..=1240).contains(&due(Some(Duration::from_millis(1)))));
    }

    #[test]
    fn crashes_retry_once_together_then_alone_then_end() {
        let alone = |change| match change {
            Change::Requeue(requeue) => Some(requeue.alone),
            Change::Finish(_) => None,
        };
        assert_eq!(
            alone(a_try(0, 0, false).crash(Cause::Expired, &policy())),
            Some(false)
        );
        assert_eq!(
            alone(a_try(0, 1, false).crash(Cause::Expired, &policy())),
            Some(true)
        );
        assert_eq!(
            alone(a_try(0, 2, false).crash(Cause::Expired, &policy())),
            Some(true)
        );
        assert_eq!(alone(a_try(0, 2, true).crash(Cause::Expired, &policy())), None);
    }
}
