//! How long a commit waits for company.
//!
//! In: appends, commits, their ends, callers that got their answer. Out: whether the next commit is held back. A commit
//! costs the same whatever is in it: a write, a sync, the switches between threads. Under load the next one could start
//! as soon as the last has ended, with the little that came meanwhile; but callers that were just answered tend to be
//! back at once with their next job. While many of them are expected the commit waits for them, for a moment, and takes
//! several times as many jobs. When few were answered nobody is held up, nor is what a worker waits for.
//! Source: the sibling commits of `PostgreSQL` (`commit_delay`, `commit_siblings`).

use crate::bus::Space;
use crate::clock::Mono;

/// A commit waits while so many callers are expected.
const COMPANY_MIN: usize = 8;

/// How long after the last commit's end, microseconds.
const HOLD_US: u64 = 1_000;

/// Holds commits back while others are about to come; as it is by default, none.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    /// How long after the last commit's end, microseconds.
    hold_us: u64,
    /// Single submits that no commit has taken.
    waiting: usize,
    /// Single submits of the commit that started last: so many callers may be answered at its end.
    committed: usize,
    /// Callers that were answered and have not come again. Many never do: each commit halves what is left of them.
    expected: usize,
    /// A worker, or the callers of a whole batch, wait for what no commit has taken.
    urgent: bool,
    until: Option<Mono>,
}

impl Gathering {
    pub(super) const fn for_a_moment() -> Self {
        Self {
            hold_us: HOLD_US,
            waiting: 0,
            committed: 0,
            expected: 0,
            urgent: false,
            until: None,
        }
    }

    /// An append of so many records.
    pub(super) fn appended(&mut self, records: usize, space: Space) {
        match space {
            Space::Submit if records == 1 => {
                self.waiting += 1;
                self.expected = self.expected.saturating_sub(1);
            }
            Space::Submit => {}
            Space::Settle => self.urgent = true,
        }
    }

    /// A submitter has its answer.
    pub(super) const fn answered(&mut self) {
        self.expected += 1;
    }

    /// A commit took what waits.
    pub(super) const fn commit_started(&mut self) {
        self.committed = self.waiting;
        self.waiting = 0;
        self.urgent = false;
        self.until = None;
    }

    pub(super) const fn commit_ended(&mut self, now: Mono) {
        self.expected /= 2;
        if self.hold_us > 0 {
            self.until = Some(Mono(now.0 + self.hold_us));
        }
    }

    /// Whether the next commit is held back. `told`: the last one's callers have their answers.
    pub(super) fn holds(&mut self, now: Mono, told: bool) -> bool {
        let expected = self.expected + if told { 0 } else { self.committed };
        let worth_it = expected >= COMPANY_MIN && !self.urgent;
        self.until = self.until.filter(|until| now < *until && worth_it);
        self.until.is_some()
    }

    /// Until when, as it was known last.
    pub(super) const fn until(&self) -> Option<Mono> {
        self.until
    }

    /// How many of those that are expected need not come one by one.
    pub(super) const fn missing(&self) -> usize {
        self.expected.saturating_sub(COMPANY_MIN)
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

    const END: Mono = Mono(1_000);

    /// A commit of so many single submits has ended, and its callers were answered.
    fn after(submits: usize) -> Gathering {
        let mut gathering = Gathering::for_a_moment();
        (0..submits).for_each(|_| gathering.appended(1, Space::Submit));
        gathering.commit_started();
        gathering.commit_ended(END);
        (0..submits).for_each(|_| gathering.answered());
        gathering
    }

    #[test]
    fn after_few_answers_nobody_is_held_up() {
        let mut gathering = after(COMPANY_MIN - 1);
        assert!(!gathering.holds(END, true));
        assert_eq!(gathering.until(), None);
    }

    #[test]
    fn after_many_the_next_commit_waits_for_them_or_for_its_time() {
        let end = Mono(END.0 + HOLD_US);
        let mut gathering = after(20);
        assert!(gathering.holds(Mono(end.0 - 1), true));
        assert_eq!((gathering.until(), gathering.missing()), (Some(end), 12));
        assert!(!gathering.holds(end, true));
        let mut gathering = after(20);
        for _ in 0..12 {
            gathering.appended(1, Space::Submit);
            assert!(gathering.holds(END, true));
        }
        gathering.appended(1, Space::Submit);
        assert!(!gathering.holds(END, true));
    }

    /// A commit that started before its predecessor's callers were answered found none of them.
    #[test]
    fn callers_that_are_about_to_be_answered_are_expected() {
        let mut gathering = Gathering::for_a_moment();
        (0..COMPANY_MIN).for_each(|_| gathering.appended(1, Space::Submit));
        gathering.commit_started();
        gathering.commit_ended(END);
        assert!(gathering.holds(END, false));
        // They wait for their jobs' ends: nobody was answered.
        assert!(!gathering.holds(END, true));
    }

    #[test]
    fn what_a_worker_waits_for_is_not_held_up() {
        let mut gathering = after(20);
        gathering.appended(1, Space::Settle);
        assert!(!gathering.holds(END, true));
    }

    /// It came while the commit before was under way, and waited for callers all the same.
    #[test]
    fn what_a_worker_waits_for_already_is_not_held_up_either() {
        let mut gathering = Gathering::for_a_moment();
        gathering.commit_started();
        gathering.appended(1, Space::Settle);
        gathering.commit_ended(END);
        (0..20).for_each(|_| gathering.answered());
        assert!(!gathering.holds(END, true));
        gathering.commit_started();
        gathering.commit_ended(END);
        (0..20).for_each(|_| gathering.answered());
        assert!(gathering.holds(END, true));
    }

    #[test]
    fn callers_that_never_come_back_are_forgotten() {
        let mut gathering = after(100);
        for _ in 0..4 {
            assert!(gathering.holds(END, true));
            gathering.commit_started();
            gathering.commit_ended(END);
        }
        assert!(!gathering.holds(END, true));
    }

    #[test]
    fn a_clean_end_waits_for_nobody() {
        let mut gathering = after(20);
        gathering.end();
        assert!(!gathering.holds(END, true));
        gathering.commit_started();
        gathering.commit_ended(END);
        (0..20).for_each(|_| gathering.answered());
        assert!(!gathering.holds(END, true));
    }
}
