//! How long a commit waits for company.
//!
//! In: appends, commits, their ends. Out: until when the next commit is held back. A commit costs the same whatever
//! is in it: a write, a sync, the switches between threads. Under load the next one could start as soon as the last
//! has ended, with the little that came meanwhile; held back for a moment it takes several times as much, and more
//! jobs become durable in the same time. When few come nobody is held up: their group would not grow by waiting.
//! Source: the sibling commits of `PostgreSQL` (`commit_delay`, `commit_siblings`).

use crate::clock::Mono;

/// The next commit is held back if the last one had so many appends.
const COMPANY_MIN: usize = 8;

/// So many appends are company enough.
const COMPANY_MAX: usize = 64;

/// How long after the last commit's end, microseconds.
const HOLD_US: u64 = 250;

/// Holds commits back while others are about to come; as it is by default, none.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// How long after the last commit's end, microseconds.
    hold_us: u64,
    /// Appends that no commit has taken.
    waiting: usize,
    /// Appends of the commit that started last.
    last: usize,
    until: Option<Mono>,
}

impl Gathering {
    pub(super) const fn for_a_moment() -> Self {
        Self {
            hold_us: HOLD_US,
            waiting: 0,
            last: 0,
            until: None,
        }
    }

    pub(super) const fn appended(&mut self) {
        self.waiting += 1;
    }

    /// A commit took what waits.
    pub(super) const fn commit_started(&mut self) {
        self.last = self.waiting;
        self.waiting = 0;
        self.until = None;
    }

    pub(super) const fn commit_ended(&mut self, now: Mono) {
        if self.hold_us > 0 && self.last >= COMPANY_MIN {
            self.until = Some(Mono(now.0 + self.hold_us));
        }
    }

    /// Whether the next commit is still held back.
    pub(super) fn holds(&mut self, now: Mono) -> bool {
        self.until = self
            .until
            .filter(|until| now < *until && self.waiting < COMPANY_MAX);
        self.until.is_some()
    }

    /// Until when, as it was known last.
    pub(super) const fn until(&self) -> Option<Mono> {
        self.until
    }

    /// Nobody else comes: nothing is held back any more.
    pub(super) const fn end(&mut self) {
        self.hold_us = 0;
        self.until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(appends: usize) -> Gathering {
        let mut gathering = Gathering::for_a_moment();
        (0..appends).for_each(|_| gathering.appended());
        gathering.commit_started();
        gathering.commit_ended(Mono(1_000));
        gathering
    }

    #[test]
    fn after_a_small_commit_nobody_is_held_up() {
        let mut gathering = after(COMPANY_MIN - 1);
        assert!(!gathering.holds(Mono(1_000)));
        assert_eq!(gathering.until(), None);
    }

    #[test]
    fn after_a_large_one_the_next_waits_for_its_time_or_for_company() {
        let mut gathering = after(COMPANY_MIN);
        assert!(gathering.holds(Mono(1_000 + HOLD_US - 1)));
        assert_eq!(gathering.until(), Some(Mono(1_000 + HOLD_US)));
        assert!(!gathering.holds(Mono(1_000 + HOLD_US)));
        let mut gathering = after(COMPANY_MIN);
        (0..COMPANY_MAX).for_each(|_| gathering.appended());
        assert!(!gathering.holds(Mono(1_001)));
    }

    #[test]
    fn a_clean_end_waits_for_nobody() {
        let mut gathering = after(COMPANY_MAX);
        gathering.end();
        assert!(!gathering.holds(Mono(1_001)));
        (0..COMPANY_MIN).for_each(|_| gathering.appended());
        gathering.commit_started();
        gathering.commit_ended(Mono(2_000));
        assert!(!gathering.holds(Mono(2_001)));
    }
}
