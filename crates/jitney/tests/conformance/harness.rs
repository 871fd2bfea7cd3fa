//! The world that a bus under test lives in: what it is opened on, and what can happen to that.
//!
//! Three traits, each with more power over the bus: [`Harness`] opens it, [`Restarts`] can also let its
//! process die, [`Faulty`] can also stop its I/O between two steps, fail it, and cut the power. A test asks for
//! the least that it needs, so that the compiler says which bus can run it. A Kafka or SQS bus joins with a
//! harness of its own; no test changes for it.

use jitney::bus::{Bus, MemoryBus, Retention};
use jitney::clock::Now;
use jitney::limits::Limits;

/// A bus and what it is opened on.
pub(crate) trait Harness: Sized {
    /// The bus under test.
    type Bus: Bus;

    /// A world in which the bus was never opened.
    fn new() -> Self;

    /// Opens the bus, on what the one before left.
    fn open(&mut self, now: Now) -> Self::Bus;

    /// Lets I/O that is under way get on. `false`: there is none, or it is held.
    fn progress(&mut self) -> bool {
        false
    }
}

/// What the bus has written outlives its process.
pub(crate) trait Restarts: Harness {
    /// The process is gone, without a word, and its bus with it. What it had written stays.
    fn kill(&mut self);
}

/// Where a commit can be stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Before its write.
    Write,
    /// Between its write and its sync.
    Sync,
    /// Between its sync and the word that it is done.
    Report,
}

/// The medium under the bus obeys the test.
pub(crate) trait Faulty: Restarts {
    /// Stops the next commit before this step.
    fn hold(&mut self, step: Step);

    /// Lets everything flow again.
    fn release(&mut self);

    /// Whether a commit stands still now.
    fn is_held(&self) -> bool;

    /// The power is gone, and the bus with it. What was not synced stays in part, as `seed` has it.
    fn cut_power(&mut self, seed: u64);

    /// The next write finds no room, after some of its bytes.
    fn fail_next_write_for_want_of_room(&mut self);

    /// The next sync fails, and what it should have made durable is lost with the power.
    fn fail_next_sync(&mut self);

    /// There is no more room from now on than what is used already.
    fn fill(&mut self);

    /// There is room again.
    fn make_room(&mut self);

    /// The most bytes that one append may have.
    fn append_bytes_max(&self) -> u64;
}

/// Small enough that a test can exceed them, large enough that it must want to.
pub(crate) fn limits() -> Limits {
    Limits {
        job_bytes_max: 16 << 10,
        body_bytes_max: 64 << 10,
        waiters_max: 50_000,
        ..Limits::default()
    }
}

/// The memory bus has no world: it ends with its process.
pub(crate) struct Memory;

impl Harness for Memory {
    type Bus = MemoryBus;

    fn new() -> Self {
        Self
    }

    fn open(&mut self, _now: Now) -> MemoryBus {
        let Limits {
            result_ttl,
            key_ttl,
            results_max,
            ..
        } = limits();
        MemoryBus::new(
            7,
            Retention {
                result_ttl,
                key_ttl,
                results_max,
            },
        )
    }
}
