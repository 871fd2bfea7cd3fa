//! A change of policies: in force from the next decision on, for what is here already too.

use crate::dispatcher::entry::Place;
use crate::dispatcher::places::share_of;
use crate::dispatcher::{Dispatcher, size};
use crate::job::{Group, Priority};
use crate::policy::PolicyBook;

impl Dispatcher {
    pub(super) fn change_policies(&mut self, book: PolicyBook) {
        let affected: Vec<bool> = self
            .processors
            .iter()
            .map(|state| {
                let groups = |book: &PolicyBook| -> Vec<Group> {
                    let written = book.processors.get(&state.name);
                    written.map_or_else(Vec::new, |written| written.groups.keys().cloned().collect())
                };
                groups(&self.policies) != groups(&book)
            })
            .collect();
        self.policies = book;
        if affected.contains(&true) {
            self.regroup(&affected);
        }
        for state in &mut self.processors {
            for (priority, lane) in Priority::ALL.into_iter().zip(&mut state.lanes) {
                let policy = self.policies.resolve_lane(&state.name, priority);
                lane.share.set(share_of(priority, policy.lower_lane_share));
                self.queues[lane.shared].policy = policy;
                for (group, &queue) in &lane.apart {
                    self.queues[queue].policy = self.policies.resolve(&state.name, group, priority);
                }
            }
        }
        self.touched.extend(0..self.processors.len());
    }

    /// Sorts the jobs of these processors into the queues that the new policies want. All jobs are looked at:
    /// an operator changes groups rarely.
    fn regroup(&mut self, affected: &[bool]) {
        let mut ready = Vec::new();
        let mut units = Vec::new();
        for state in self
            .processors
            .iter_mut()
            .zip(affected)
            .filter(|(_, is)| **is)
            .map(|(state, _)| state)
        {
            for lane in &mut state.lanes {
                for queue in lane.queues() {
                    ready.extend(self.queues[queue].drain(&self.jobs));
                    self.queues[queue].in_flight = 0;
                }
                units.extend(lane.drain_units());
            }
        }
        self.reassign(affected);
        ready.sort_unstable_by_key(|&slot| self.jobs.order(slot));
        for slot in ready {
            self.queues[self.jobs[slot].queue].push(slot, &mut self.jobs);
        }
        for unit in units {
            // They were counted as ready, and will be again.
            if let Some(&first) = unit.first() {
                self.lane_of(first).ready -= size(unit.len());
            }
            self.enqueue_units(unit);
        }
        for at in (0..affected.len()).filter(|&at| affected[at]) {
            self.drop_queues(at);
        }
    }

    /// Gives every job of these processors its queue.
    fn reassign(&mut self, affected: &[bool]) {
        let jobs: Vec<u32> = self.jobs.slab.iter().map(|(slot, _)| slot).collect();
        for slot in jobs {
            let job = &self.jobs[slot];
            let (processor, priority) = {
                let queue = &self.queues[job.queue];
                (queue.processor, queue.priority)
            };
            if !affected[processor] {
                continue;
            }
            let held = match job.place {
                Place::Leased => true,
                Place::Committing => self.commits.get(&slot).is_some_and(|commit| commit.leased),
                _ => false,
            };
            let group = self.groups.name(job.group).clone();
            let queue = self.queue_for(processor, priority, &group);
            self.jobs[slot].queue = queue;
            self.queues[queue].in_flight += u64::from(held);
        }
    }

    /// Removes the queues of groups that no longer stand apart; no job is in them.
    fn drop_queues(&mut self, processor: usize) {
        let state = &mut self.processors[processor];
        for lane in &mut state.lanes {
            lane.apart.retain(|group, queue| {
                let stays = self.policies.stands_apart(&state.name, group);
                if !stays {
                    self.queues.remove(*queue);
                }
                stays
            });
        }
    }
}
