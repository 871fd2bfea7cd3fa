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
    /// How often each batch is, and its bytes each time.
    batches: BTreeMap<Token, (u32, u64)>,
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
        self.bytes = self.bytes.saturating_add(bytes);
        let (times, _) = self.batches.entry(token).or_insert((0, bytes));
        *times += 1;
    }

    /// It reached its worker once, or will not.
    fn went(&mut self, token: Token) {
        let Some((times, bytes)) = self.batches.get_mut(&token) else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(*bytes);
        *times -= 1;
        if *times == 0 {
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
