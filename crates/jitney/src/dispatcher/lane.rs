//! A lane: the jobs of one processor at one priority, its queues, its units and its counts.

use std::collections::BTreeMap;

use crate::clock::Mono;
use crate::dispatcher::closing::Limits;
use crate::dispatcher::entry::{Jobs, Order, Place};
use crate::dispatcher::event::Ended;
use crate::dispatcher::queue::{Cut, Sort};
use crate::dispatcher::rate::Rate;
use crate::dispatcher::share::Share;
use crate::dispatcher::standing::Standings;

/// One lane.
#[derive(Debug)]
pub(super) struct Lane {
    /// The queue of all jobs that may be mixed.
    pub(super) shared: u32,
    /// The queues of those that must not be mixed with others; each goes with its last job.
    pub(super) apart: BTreeMap<Sort, u32>,
    pub(super) standings: Standings,
    /// What goes before the queues: jobs that travel alone, and batches that are retried as they were.
    units: BTreeMap<Order, Vec<u32>>,
    pub(super) share: Share,
    /// Nothing of it is handed out.
    pub(super) paused: bool,
    /// Jobs in queues and units.
    pub(super) ready: u64,
    /// Jobs that are not due.
    pub(super) waiting: u64,
    /// Jobs that leases hold.
    pub(super) held: u64,
    /// All its unsettled jobs.
    pub(super) total: u64,
    pub(super) dispatched: u64,
    pub(super) arrived: u64,
    pub(super) ended: Ended,
    pub(super) rate_in: Rate,
    pub(super) rate_out: Rate,
}

impl Lane {
    pub(super) fn new(shared: u32, share: Share) -> Self {
        Self {
            shared,
            apart: BTreeMap::new(),
            standings: Standings::default(),
            units: BTreeMap::new(),
            share,
            paused: false,
            ready: 0,
            waiting: 0,
            held: 0,
            total: 0,
            dispatched: 0,
            arrived: 0,
            ended: Ended::default(),
            rate_in: Rate::NONE,
            rate_out: Rate::NONE,
        }
    }

    /// All its queues.
    pub(super) fn queues(&self) -> impl Iterator<Item = u32> {
        std::iter::once(self.shared).chain(self.apart.values().copied())
    }

    /// Whether a job of it could be handed out, were it only its turn.
    pub(super) const fn waits(&self) -> bool {
        self.ready > 0 && !self.paused
    }

    /// The unit that goes next, by its first job.
    pub(super) fn first_unit(&self) -> Option<u32> {
        self.units.values().next().and_then(|unit| unit.first()).copied()
    }

    /// Since when the job in a unit that waits longest waits.
    pub(super) fn oldest_in_units(&self, jobs: &Jobs) -> Option<Mono> {
        self.units.values().flatten().map(|&slot| jobs[slot].clock).min()
    }

    /// Holds jobs together. They must be of one queue.
    pub(super) fn push_unit(&mut self, mut slots: Vec<u32>, jobs: &mut Jobs) {
        slots.sort_unstable_by_key(|&slot| jobs.order(slot));
        let Some(&first) = slots.first() else { return };
        let key = jobs.order(first);
        for &slot in &slots {
            jobs[slot].place = Place::Unit;
            jobs[slot].tried().unit = key;
        }
        self.units.insert(key, slots);
    }

    /// Takes one job out of its unit. The caller sets its new place.
    pub(super) fn remove_from_unit(&mut self, slot: u32, jobs: &mut Jobs) {
        let key = jobs[slot].tried().unit;
        if let Some(mut rest) = self.units.remove(&key) {
            rest.retain(|&other| other != slot);
            self.push_unit(rest, jobs);
        }
    }

    /// Cuts what fits off the unit that goes next.
    pub(super) fn cut_unit(&mut self, limits: Limits, jobs: &mut Jobs) -> Cut {
        let Some((_, mut slots)) = self.units.pop_first() else {
            return Cut::default();
        };
        let limit = usize::try_from(limits.jobs).unwrap_or(usize::MAX).max(1);
        let mut bytes = 0_u64;
        let mut fit = 0;
        while fit < slots.len().min(limit) {
            bytes += u64::from(jobs[slots[fit]].bytes);
            if bytes > limits.bytes && fit > 0 {
                break;
            }
            fit += 1;
        }
        let rest = slots.split_off(fit);
        self.push_unit(rest, jobs);
        Cut {
            slots,
            by_bytes: bytes > limits.bytes,
        }
    }

    /// Takes all units apart, in order.
    pub(super) fn drain_units(&mut self) -> Vec<Vec<u32>> {
        std::mem::take(&mut self.units).into_values().collect()
    }
}
