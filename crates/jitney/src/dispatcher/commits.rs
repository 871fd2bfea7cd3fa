//! Changes that are being written: begun, carried out when durable, undone when they could not be written.

use std::collections::BTreeMap;

use crate::clock::Mono;
use crate::dispatcher::Dispatcher;
use crate::dispatcher::entry::{Place, Spent};
use crate::dispatcher::event::{Change, Requeue};
use crate::job::{Cause, End, JobId};
use crate::mutants::{Mutant, active};

/// A change of one job on its way to the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Commit {
    pub(super) change: Change,
    /// A worker's report decided it, not the end of its lease.
    pub(super) by_settle: bool,
    /// The job is held by its lease meanwhile; otherwise it came out of its lane.
    pub(super) leased: bool,
    /// J9: an earlier change, still being written, that this one overtakes.
    overtaken: Option<Requeue>,
    /// When the job is due, if it goes back later.
    due: Option<Mono>,
}

impl Dispatcher {
    /// J7, J8, J9: the job's change goes to be written.
    pub(super) fn begin_commit(&mut self, slot: u32, change: Change, by_settle: bool) {
        let earlier = self.commits.remove(&slot);
        let leased = match self.jobs[slot].place {
            Place::Leased => true,
            Place::Committing => earlier.is_some_and(|commit| commit.leased),
            Place::Waiting | Place::Fresh | Place::Back | Place::Unit => {
                self.pick(slot);
                false
            }
        };
        let due = match change {
            Change::Requeue(Requeue { due: Some(due), .. }) => {
                let wait = due.0.saturating_sub(self.now.wall.0).saturating_mul(1000);
                Some(Mono(self.now.mono.0.saturating_add(wait)))
            }
            Change::Requeue(_) | Change::Finish(_) => None,
        };
        let overtaken = earlier.and_then(|commit| match commit.change {
            Change::Requeue(requeue) => Some(requeue),
            Change::Finish(_) => None,
        });
        self.jobs[slot].place = Place::Committing;
        self.commits.insert(
            slot,
            Commit {
                change,
                by_settle,
                leased,
                overtaken,
                due,
            },
        );
    }

    /// J10, J11: the changes are durable.
    pub(super) fn committed(&mut self, ids: &[JobId]) {
        let mut together = Vec::new();
        for slot in ids
            .iter()
            .filter_map(|&id| self.jobs.find(id))
            .collect::<Vec<_>>()
        {
            let Some(commit) = self.commits.get_mut(&slot) else {
                continue;
            };
            let leased = std::mem::take(&mut commit.leased);
            if let Some(overtaken) = commit.overtaken.take() {
                if leased {
                    self.leave_lease(slot);
                }
                self.count(slot, &overtaken);
                continue;
            }
            let Some(commit) = self.commits.remove(&slot) else {
                continue;
            };
            if leased {
                self.leave_lease(slot);
            }
            match commit.change {
                Change::Finish(finish) => self.finish(slot, finish.end, commit.by_settle),
                Change::Requeue(requeue) => {
                    self.count(slot, &requeue);
                    self.jobs[slot].tried().spent = Spent::No;
                    if commit.by_settle {
                        self.jobs[slot].tried().spent = Spent::by(requeue.cause);
                        self.close_member(slot, true);
                    }
                    if let Some(due) = commit.due {
                        self.jobs[slot].clock = due;
                    }
                    if held_together(&requeue) {
                        together.push(slot);
                    } else {
                        self.put_back(slot);
                    }
                }
            }
        }
        if !active(Mutant::LoseUnit) {
            self.enqueue_units(together);
        }
    }

    /// J12: the changes could not be written; the jobs are where they were.
    pub(super) fn commit_failed(&mut self, ids: &[JobId]) {
        for slot in ids
            .iter()
            .filter_map(|&id| self.jobs.find(id))
            .collect::<Vec<_>>()
        {
            let Some(commit) = self.commits.get_mut(&slot) else {
                continue;
            };
            if commit.overtaken.take().is_some() {
                continue;
            }
            let leased = commit.leased;
            self.commits.remove(&slot);
            if leased {
                self.jobs[slot].place = Place::Leased;
                self.revive(slot);
            } else {
                self.put_back(slot);
            }
        }
    }

    /// Puts jobs that travel together into their lane: one unit per lease and queue.
    pub(super) fn enqueue_units(&mut self, slots: Vec<u32>) {
        let mut units = BTreeMap::new();
        for slot in slots {
            let key = (self.jobs[slot].last_token(), self.jobs[slot].queue);
            units.entry(key).or_insert_with(Vec::new).push(slot);
        }
        for unit in units.into_values() {
            self.enqueue_unit(unit);
        }
    }

    /// Into its lane, or to wait until it is due.
    fn put_back(&mut self, slot: u32) {
        if self.jobs[slot].clock > self.now.mono {
            self.wait(slot);
        } else {
            self.enqueue(slot);
        }
    }

    /// The lease of a job that stays has at least a full term before it.
    fn revive(&mut self, slot: u32) {
        let Some(token) = self.jobs[slot].last_token() else {
            return;
        };
        let Some(lease) = self.leases.get(&token) else {
            return;
        };
        let full = self.later(lease.term);
        if let Some(lease) = self.leases.get_mut(&token) {
            lease.limit = lease.limit.max(full);
        }
        self.refresh(token);
    }

    fn count(&mut self, slot: u32, requeue: &Requeue) {
        let job = &mut self.jobs[slot];
        job.alone = requeue.alone;
        let tried = job.tried();
        tried.attempts = requeue.attempts;
        tried.crashes = requeue.crashes;
    }

    fn finish(&mut self, slot: u32, end: End, by_settle: bool) {
        self.close_member(slot, by_settle);
        let now = self.now.mono;
        let processor = self.queues[self.jobs[slot].queue].processor;
        self.processors[processor].rate.count(now);
        let lane = self.lane_of(slot);
        lane.ended.count(end);
        lane.rate_out.count(now);
        self.erase(slot);
    }
}

/// The first crash: the members of the batch travel once more as they did.
fn held_together(requeue: &Requeue) -> bool {
    matches!(requeue.cause, Cause::Expired | Cause::Crashed) && !requeue.alone
}
