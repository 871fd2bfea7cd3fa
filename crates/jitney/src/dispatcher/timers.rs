//! What happens by itself, and when: one ordered set for all of it.

use std::collections::BTreeSet;

use crate::clock::Mono;
use crate::dispatcher::Dispatcher;
use crate::dispatcher::event::{Action, PollId};
use crate::job::{Cause, Token};

/// What an instant is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The lease's term or its `batch_timeout` ends.
    Lease(Token),
    /// What is left of an ended lease is forgotten.
    Forget(Token),
    /// The job in this slot is due.
    Due(u32),
    /// A batch of this processor has lingered long enough.
    Linger(usize),
    /// The poll's wait is over.
    Poll(PollId),
}

/// All that is set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    set: BTreeSet<(Mono, Timer)>,
}

impl Timers {
    pub(super) fn next(&self) -> Option<Mono> {
        self.set.first().map(|&(at, _)| at)
    }

    pub(super) fn set(&mut self, at: Mono, timer: Timer) {
        self.set.insert((at, timer));
    }

    pub(super) fn clear(&mut self, at: Mono, timer: Timer) {
        self.set.remove(&(at, timer));
    }

    fn pop(&mut self, now: Mono) -> Option<Timer> {
        let &(at, timer) = self.set.first().filter(|&&(at, _)| at <= now)?;
        self.set.remove(&(at, timer));
        Some(timer)
    }
}

impl Dispatcher {
    /// Lets everything happen that is due, but for polls: those are served once more before they end.
    pub(super) fn fire(&mut self, actions: &mut Vec<Action>) -> Vec<PollId> {
        let mut polls = Vec::new();
        while let Some(timer) = self.timers.pop(self.now.mono) {
            match timer {
                Timer::Lease(token) => self.lose(token, Cause::Expired, actions),
                Timer::Forget(token) => self.forget(token),
                Timer::Due(slot) => self.due(slot),
                Timer::Linger(processor) => {
                    self.processors[processor].linger = None;
                    self.touched.insert(processor);
                }
                Timer::Poll(poll) => polls.push(poll),
            }
        }
        polls
    }
}
