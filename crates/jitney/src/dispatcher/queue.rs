//! One queue: jobs of one lane that may travel together, oldest first.
//!
//! Jobs come in order and leave in order, so most are in a ring of slot numbers. Those that came back from a
//! lease, or were not due, are in a sorted set beside it; the two are merged by sequence when a batch is cut.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use crate::clock::Mono;
use crate::dispatcher::closing::Limits;
use crate::dispatcher::entry::{Jobs, Order, Place};
use crate::dispatcher::standing::Standing;
use crate::job::{Group, Priority};
use crate::policy::Policy;

/// Jobs of one lane that may be mixed in a batch.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) processor: usize,
    pub(super) priority: Priority,
    pub(super) policy: Policy,
    /// In order of sequence and of clock.
    fresh: VecDeque<u32>,
    back: BTreeSet<Order>,
    /// The clocks of `back`, so that the oldest is found.
    clocks: BTreeSet<(Mono, u32)>,
    pub(super) bytes: u64,
    /// Jobs that do not linger.
    prompt: u32,
    /// Jobs held by leases.
    pub(super) in_flight: u64,
    /// Its jobs, wherever they are.
    pub(super) members: u64,
    /// What its jobs have in common that others of the lane have not.
    pub(super) sort: Sort,
    /// Its place among the queues of its lane, as of when it was last looked at.
    pub(super) standing: Option<Standing>,
    /// It changed since.
    pub(super) stale: bool,
}

/// What jobs must have in common to travel together, where a policy says that they must.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sort {
    pub(super) group: Option<Group>,
    pub(super) key: Option<Arc<str>>,
}

/// A prefix cut from a queue or a unit.
#[derive(Debug, Default)]
pub(super) struct Cut {
    pub(super) slots: Vec<u32>,
    /// It ended because the next job was too large for what was left.
    pub(super) by_bytes: bool,
}

impl Queue {
    pub(super) const fn new(processor: usize, priority: Priority, policy: Policy, sort: Sort) -> Self {
        Self {
            processor,
            priority,
            policy,
            fresh: VecDeque::new(),
            back: BTreeSet::new(),
            clocks: BTreeSet::new(),
            bytes: 0,
            prompt: 0,
            in_flight: 0,
            members: 0,
            sort,
            standing: None,
            stale: false,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.back.len()
    }

    pub(super) const fn prompt(&self) -> bool {
        self.prompt > 0
    }

    /// The order of the first job.
    pub(super) fn head(&self, jobs: &Jobs) -> Option<Order> {
        let fresh = self.fresh.front().map(|&slot| jobs.order(slot));
        let back = self.back.first().copied();
        fresh.into_iter().chain(back).min()
    }

    /// Since when the job that waits longest waits.
    pub(super) fn oldest(&self, jobs: &Jobs) -> Option<Mono> {
        let fresh = self.fresh.front().map(|&slot| jobs[slot].clock);
        let back = self.clocks.first().map(|&(clock, _)| clock);
        fresh.into_iter().chain(back).min()
    }

    /// Puts a job at its place.
    pub(super) fn push(&mut self, slot: u32, jobs: &mut Jobs) {
        let in_order = self.fresh.back().is_none_or(|&last| {
            let (last, job) = (&jobs[last], &jobs[slot]);
            last.sequence < job.sequence && last.clock <= job.clock
        });
        let job = &mut jobs[slot];
        self.bytes += u64::from(job.bytes);
        self.prompt += u32::from(job.prompt);
        if in_order && job.tried.is_none() {
            job.place = Place::Fresh;
            self.fresh.push_back(slot);
        } else {
            job.place = Place::Back;
            self.back.insert((job.sequence, slot));
            self.clocks.insert((job.clock, slot));
        }
    }

    /// Takes a job out of the middle. The caller sets its new place.
    pub(super) fn remove(&mut self, slot: u32, jobs: &Jobs) {
        self.uncount(slot, jobs);
        if jobs[slot].place == Place::Fresh {
            let order = jobs.order(slot);
            let at = self.fresh.partition_point(|&other| jobs.order(other) < order);
            self.fresh.remove(at);
        } else {
            self.remove_back(slot, jobs);
        }
    }

    /// Cuts the longest prefix that fits; at least one job, if there is one.
    pub(super) fn cut(&mut self, limits: Limits, jobs: &Jobs) -> Cut {
        let mut cut = Cut::default();
        let mut bytes = 0_u64;
        let limit = usize::try_from(limits.jobs).unwrap_or(usize::MAX).max(1);
        self.warm(limit, jobs);
        while let (true, Some((_, slot))) = (cut.slots.len() < limit, self.head(jobs)) {
            bytes += u64::from(jobs[slot].bytes);
            if bytes > limits.bytes && !cut.slots.is_empty() {
                cut.by_bytes = true;
                break;
            }
            self.uncount(slot, jobs);
            if jobs[slot].place == Place::Fresh {
                self.fresh.pop_front();
            } else {
                self.remove_back(slot, jobs);
            }
            cut.slots.push(slot);
        }
        // A single job that is larger than the limit goes alone: it too was closed by its bytes.
        cut.by_bytes |= bytes > limits.bytes;
        cut
    }

    /// Looks at the jobs that are cut next, all at once (see [`super::id_index::IdIndex::warm`]): they came long ago.
    fn warm(&self, limit: usize, jobs: &Jobs) {
        let sequences = self.fresh.iter().take(limit).map(|&slot| jobs[slot].sequence);
        std::hint::black_box(sequences.fold(0, |all, sequence| all ^ sequence));
    }

    /// Empties the queue, in order.
    pub(super) fn drain(&mut self, jobs: &Jobs) -> Vec<u32> {
        let everything = Limits {
            jobs: u32::MAX,
            bytes: u64::MAX,
        };
        self.cut(everything, jobs).slots
    }

    fn uncount(&mut self, slot: u32, jobs: &Jobs) {
        self.bytes -= u64::from(jobs[slot].bytes);
        self.prompt -= u32::from(jobs[slot].prompt);
    }

    fn remove_back(&mut self, slot: u32, jobs: &Jobs) {
        self.back.remove(&jobs.order(slot));
        self.clocks.remove(&(jobs[slot].clock, slot));
    }
}
