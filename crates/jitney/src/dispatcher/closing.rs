//! When a queue's next batch closes: one pure function, the table of docs/state_machine.md.

use crate::clock::{Mono, after};
use crate::dispatcher::event::ClosedBy;
use crate::job::Priority;
use crate::policy::Policy;

/// How large a batch may be: the smaller of the policy's and the poll's, and of the share's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) jobs: u32,
    pub(super) bytes: u64,
}

impl Limits {
    /// Those of a policy where they are smaller.
    pub(super) fn within(self, policy: &Policy) -> Self {
        self.smaller(Self {
            jobs: policy.max_jobs,
            bytes: policy.max_bytes,
        })
    }

    /// The smaller of both, each by itself.
    pub(super) fn smaller(self, other: Self) -> Self {
        Self {
            jobs: self.jobs.min(other.jobs),
            bytes: self.bytes.min(other.bytes),
        }
    }
}

/// What is there to close.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pile {
    /// Jobs in the queue.
    pub(super) jobs: usize,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Since when the oldest waits.
    pub(super) oldest: Mono,
    /// One of them does not linger.
    pub(super) prompt: bool,
    /// Jobs of the queue are leased and not settled.
    pub(super) busy: bool,
    /// The lane is owed its share.
    pub(super) owed: bool,
}

/// The verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// It can close, for this reason.
    Now(ClosedBy),
    /// It lingers until then, if nothing else happens.
    At(Mono),
    /// There is nothing.
    Empty,
}

/// Whether a batch can close now.
pub(super) fn closing(priority: Priority, policy: &Policy, limits: Limits, pile: Pile, now: Mono) -> Closing {
    let limit = usize::try_from(limits.jobs).unwrap_or(usize::MAX);
    let delay = after(pile.oldest, policy.max_delay);
    if pile.jobs == 0 {
        return Closing::Empty;
    }
    if priority == Priority::Realtime {
        return Closing::Now(ClosedBy::Alone);
    }
    if pile.jobs >= limit {
        return Closing::Now(ClosedBy::Full);
    }
    if pile.bytes > limits.bytes {
        return Closing::Now(ClosedBy::Bytes);
    }
    if pile.owed {
        return Closing::Now(ClosedBy::Share);
    }
    if priority == Priority::Normal {
        if policy.idle_flush && !pile.busy {
            return Closing::Now(ClosedBy::Idle);
        }
        if pile.jobs >= usize::try_from(policy.min_jobs).unwrap_or(usize::MAX).min(limit) {
            return Closing::Now(ClosedBy::Hint);
        }
    }
    if pile.prompt || now >= delay {
        return Closing::Now(ClosedBy::Delay);
    }
    Closing::At(delay)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicyPatch;

    const LIMITS: Limits = Limits {
        jobs: 64,
        bytes: 1000,
    };

    fn pile(jobs: usize) -> Pile {
        Pile {
            jobs,
            bytes: 10,
            oldest: Mono(1_000_000),
            prompt: false,
            busy: true,
            owed: false,
        }
    }

    fn at(priority: Priority, pile: Pile, now: u64) -> Closing {
        let policy = PolicyPatch::default().over_defaults(priority);
        closing(priority, &policy, LIMITS, pile, Mono(now))
    }

    #[test]
    fn realtime_closes_at_once() {
        assert_eq!(
            at(Priority::Realtime, pile(1), 1_000_000),
            Closing::Now(ClosedBy::Alone)
        );
    }

    #[test]
    fn normal_waits_for_hint_or_delay_while_busy_and_not_while_idle() {
        use Closing::{At, Empty, Now};
        let normal = |pile, now| at(Priority::Normal, pile, now);
        assert_eq!(normal(pile(0), 0), Empty);
        assert_eq!(normal(pile(7), 1_004_999), At(Mono(1_005_000)));
        assert_eq!(normal(pile(7), 1_005_000), Now(ClosedBy::Delay));
        assert_eq!(normal(pile(8), 1_000_000), Now(ClosedBy::Hint));
        let idle = Pile {
            busy: false,
            ..pile(1)
        };
        assert_eq!(normal(idle, 1_000_000), Now(ClosedBy::Idle));
        let prompt = Pile {
            prompt: true,
            ..pile(1)
        };
        assert_eq!(normal(prompt, 1_000_000), Now(ClosedBy::Delay));
    }

    #[test]
    fn slow_fills_first_and_is_not_flushed_when_idle() {
        let idle = Pile {
            busy: false,
            ..pile(63)
        };
        assert_eq!(at(Priority::Slow, idle, 1_000_000), Closing::At(Mono(1_250_000)));
        assert_eq!(
            at(Priority::Slow, pile(64), 1_000_000),
            Closing::Now(ClosedBy::Full)
        );
        let owed = Pile {
            owed: true,
            ..pile(1)
        };
        assert_eq!(at(Priority::Slow, owed, 1_000_000), Closing::Now(ClosedBy::Share));
    }

    #[test]
    fn bytes_close_only_when_they_exceed_the_limit() {
        let exact = Pile {
            bytes: 1000,
            ..pile(2)
        };
        assert_eq!(at(Priority::Slow, exact, 1_000_000), Closing::At(Mono(1_250_000)));
        let over = Pile {
            bytes: 1001,
            ..pile(2)
        };
        assert_eq!(at(Priority::Slow, over, 1_000_000), Closing::Now(ClosedBy::Bytes));
    }

    #[test]
    fn min_jobs_is_capped_by_the_effective_max_jobs() {
        let policy = PolicyPatch::default().over_defaults(Priority::Normal);
        let limits = Limits { jobs: 2, bytes: 1000 };
        let two = closing(Priority::Normal, &policy, limits, pile(2), Mono(1_000_000));
        assert_eq!(two, Closing::Now(ClosedBy::Full));
    }
}
