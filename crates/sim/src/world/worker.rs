//! What a simulated worker is: its habits, what it holds, and what it is about to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use jitney::driver::port::{BatchJob, CallId, Lease, Settle};
use jitney::job::{Processor, Token};

/// A worker. When it crashes it forgets everything and starts a new life.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) name: Arc<str>,
    pub(super) processor: Processor,
    pub(super) in_process: bool,
    /// It takes single jobs, as many as it has free slots.
    pub(super) per_job: bool,
    pub(super) slots: u32,
    pub(super) priorities: [bool; 3],
    pub(super) names_polls: bool,
    pub(super) life: u64,
    /// The poll that is out.
    pub(super) poll: Option<(CallId, Lease)>,
    /// A poll whose answer was lost: made again as it was.
    pub(super) repeat: Option<Lease>,
    pub(super) batches: BTreeMap<Token, Held>,
    /// Settles that are out, to be made again if their answer is lost.
    pub(super) settles: BTreeMap<CallId, (Settle, u32)>,
    /// Settles that travel with the next poll.
    pub(super) baggage: Vec<Settle>,
    pub(super) extends: BTreeMap<CallId, Token>,
}

/// A batch in its hands.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) jobs: Vec<BatchJob>,
    pub(super) style: Style,
    /// A third of the term, microseconds.
    pub(super) beat: u64,
}

/// How a worker treats one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Everything at the end.
    Whole,
    /// Each job as it is done, then the end.
    OneByOne,
    /// As whole, but says nothing until its lease is long over.
    Stalls,
    /// Says everything twice.
    Twice,
    /// Names jobs that are not its own.
    Strangers,
    /// Settles under another lease's token.
    WrongToken,
    /// Leaves some jobs unnamed.
    Forgets,
    /// Fails the batch as a whole.
    Fails,
    /// Its program dies, and it says so.
    Crashed,
    /// Gives the jobs back.
    Releases,
    /// Dies without a word.
    Dies,
    /// Takes the batch and never says a word about it.
    Silent,
}

/// What a worker is about to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    Poll,
    /// Goes on with a batch.
    Work(Token),
    /// A heartbeat.
    Beat(Token),
    /// Comes back after a crash.
    Revive,
}

impl Worker {
    pub(super) fn free_slots(&self) -> u32 {
        self.slots
            .saturating_sub(u32::try_from(self.batches.len()).unwrap_or(u32::MAX))
    }

    /// Everything that it knew is gone.
    pub(super) fn forget(&mut self) {
        self.life += 1;
        self.poll = None;
        self.repeat = None;
        self.batches.clear();
        self.settles.clear();
        self.baggage.clear();
        self.extends.clear();
    }
}
