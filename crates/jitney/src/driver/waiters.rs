//! Callers that wait for a job's outcome: by job, and by when their wait ends.
//!
//! In: registrations, before the job can be seen by a worker. Out: each caller exactly once: with its
//! job's outcome, or because its time is up, or because it left.

use std::collections::{BTreeSet, HashMap};

use super::port::CallId;
use crate::clock::Mono;
use crate::job::JobId;

/// The table of waiting callers.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    by_job: HashMap<JobId, Vec<CallId>>,
    by_call: HashMap<CallId, Waiter>,
    by_end: BTreeSet<(Mono, CallId)>,
    /// Callers that will wait once their submit is durable.
    expected: usize,
}

/// One waiting caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiter {
    pub call: CallId,
    pub job: JobId,
    /// When the wait ends.
    pub until: Mono,
    /// What the caller asked, and so how it is answered.
    pub asked: Asked,
}

/// What a waiting caller asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A submit; `replayed` if the job was there before.
    Submit { replayed: bool },
    /// A read.
    Get,
}

impl Waiters {
    pub(super) fn len(&self) -> usize {
        self.by_call.len()
    }

    /// Those that wait, and those that a submit in flight will bring.
    pub(super) fn taken(&self) -> usize {
        self.by_call.len() + self.expected
    }

    /// Keeps a place for a caller whose submit is in flight: once its job is durable it must find one.
    pub(super) const fn expect(&mut self) {
        self.expected += 1;
    }

    /// Gives such a place back: its submit is durable now, or failed.
    pub(super) const fn unexpect(&mut self) {
        self.expected = self.expected.saturating_sub(1);
    }

    pub(super) fn register(&mut self, waiter: Waiter) {
        self.by_job.entry(waiter.job).or_default().push(waiter.call);
        self.by_end.insert((waiter.until, waiter.call));
        self.by_call.insert(waiter.call, waiter);
    }

    /// Lets a wait end no later than this. Says whether that caller waits.
    pub(super) fn hurry(&mut self, call: CallId, until: Mono) -> bool {
        let Some(waiter) = self.by_call.get_mut(&call) else {
            return false;
        };
        if until < waiter.until {
            self.by_end.remove(&(waiter.until, call));
            self.by_end.insert((until, call));
            waiter.until = until;
        }
        true
    }

    /// Takes everybody who waits for this job.
    pub(super) fn wake(&mut self, job: JobId) -> Vec<Waiter> {
        let calls = self.by_job.remove(&job).unwrap_or_default();
        calls.into_iter().filter_map(|call| self.forget(call)).collect()
    }

    /// Takes one whose wait is over.
    pub(super) fn expire(&mut self, now: Mono) -> Option<Waiter> {
        let (_, call) = self.by_end.first().copied().filter(|(until, _)| *until <= now)?;
        self.remove(call)
    }

    /// Takes a caller out, because it left or is to be answered now.
    pub(super) fn remove(&mut self, call: CallId) -> Option<Waiter> {
        let waiter = self.forget(call)?;
        if let Some(calls) = self.by_job.get_mut(&waiter.job) {
            calls.retain(|other| *other != call);
            if calls.is_empty() {
                self.by_job.remove(&waiter.job);
            }
        }
        Some(waiter)
    }

    /// Everybody, in the order in which their waits end.
    pub(super) fn calls(&self) -> Vec<Waiter> {
        self.by_end
            .iter()
            .filter_map(|(_, call)| self.by_call.get(call).copied())
            .collect()
    }

    pub(super) fn next_end(&self) -> Option<Mono> {
        self.by_end.first().map(|(until, _)| *until)
    }

    fn forget(&mut self, call: CallId) -> Option<Waiter> {
        let waiter = self.by_call.remove(&call)?;
        self.by_end.remove(&(waiter.until, call));
        Some(waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter(call: u64, job: u8, until: u64) -> Waiter {
        Waiter {
            call: CallId(call),
            job: JobId([job; 16]),
            until: Mono(until),
            asked: Asked::Get,
        }
    }

    #[test]
    fn every_caller_leaves_exactly_once() {
        let mut waiters = Waiters::default();
        for (call, job, until) in [(1, 7, 50), (2, 7, 20), (3, 8, 20), (4, 9, 90)] {
            waiters.register(waiter(call, job, until));
        }
        assert_eq!(waiters.expire(Mono(19)), None);
        assert_eq!(waiters.expire(Mono(20)), Some(waiter(2, 7, 20)));
        assert_eq!(waiters.wake(JobId([7; 16])), vec![waiter(1, 7, 50)]);
        assert_eq!(waiters.remove(CallId(3)), Some(waiter(3, 8, 20)));
        assert_eq!(waiters.wake(JobId([8; 16])), Vec::new());
        assert_eq!(waiters.next_end(), Some(Mono(90)));
        assert!(waiters.hurry(CallId(4), Mono(95)));
        assert_eq!(waiters.next_end(), Some(Mono(90)));
        assert!(waiters.hurry(CallId(4), Mono(60)));
        assert_eq!(waiters.next_end(), Some(Mono(60)));
        assert!(!waiters.hurry(CallId(3), Mono(60)));
        assert_eq!(waiters.len(), 1);
    }
}
