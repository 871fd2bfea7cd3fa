//! Batches on their way to their workers: they are in memory until they are written to a connection.
//!
//! In: each batch that goes out, and each that reached its worker or did not. Out: whether more may go. A worker that asks
//! for a thousand batches of large jobs and reads none would else hold gigabytes.

use std::collections::BTreeMap;

use crate::dispatcher::Dispatcher;
use crate::job::Token;

/// What is on its way.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The bytes of each batch, each time that it went out; one that goes again may be smaller.
    batches: BTreeMap<Token, Vec<u64>>,
    /// Bytes of all of them.
    bytes: u64,
    bounds: Bounds,
}

/// How many bytes may be on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// With so many an answer takes no further batch.
    pub answer: u64,
    /// With so many, over all answers, none goes out; with half of them no answer has more than one batch.
    pub all: u64,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self {
            batches: BTreeMap::new(),
            bytes: 0,
            bounds: Bounds {
                answer: u64::MAX,
                all: u64::MAX,
            },
        }
    }
}

impl Outgoing {
    /// Whether no batch may go out.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes >= self.bounds.all
    }

    /// Whether an answer with so many bytes may take a further batch.
    pub(super) const fn has_room_beside(&self, bytes: u64) -> bool {
        bytes < self.bounds.answer && self.bytes < self.bounds.all / 2
    }

    /// A batch goes out, perhaps again.
    pub(super) fn goes(&mut self, token: Token, bytes: u64) {
        self.bytes += bytes;
        self.batches.entry(token).or_default().push(bytes);
    }

    /// It reached its worker once, or will not.
    fn went(&mut self, token: Token) {
        let Some(times) = self.batches.get_mut(&token) else {
            return;
        };
        // Which of them it was does not matter: in the end all of them are taken off.
        self.bytes -= times.pop().unwrap_or_default();
        if times.is_empty() {
            self.batches.remove(&token);
        }
    }
}

impl Dispatcher {
    /// The same, with bounds on what is on its way to workers.
    #[must_use]
    pub fn bounded(mut self, bounds: Bounds) -> Self {
        self.outgoing.bounds = bounds;
        self
    }

    /// A batch is no longer on its way. Where that makes room, polls that wait are looked at again.
    pub(super) fn arrived_or_not(&mut self, token: Token) {
        let full = self.outgoing.is_full();
        self.outgoing.went(token);
        if full && !self.outgoing.is_full() {
            self.touched.extend(0..self.processors.len());
            self.readmitted.append(&mut self.held_up);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch that went again with fewer jobs was taken off twice as it was at first.
    #[test]
    fn a_batch_that_goes_again_smaller_counts_as_it_went() {
        let token = |sequence| Token {
            node: 1,
            epoch: 1,
            sequence,
        };
        let mut outgoing = Outgoing::default();
        outgoing.goes(token(1), 400);
        outgoing.goes(token(2), 300);
        outgoing.goes(token(1), 100);
        assert_eq!(outgoing.bytes, 800);
        outgoing.went(token(1));
        outgoing.went(token(1));
        outgoing.went(token(1));
        assert_eq!(outgoing.bytes, 300);
    }
}
