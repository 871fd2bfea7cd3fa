//! A change of policies: in force from the next decision on, for what is here already too.

use std::ops::Range;

use crate::dispatcher::entry::Place;
use crate::dispatcher::places::share_of;
use crate::dispatcher::{Dispatcher, size};
use crate::job::{Group, Priority, Processor};
use crate::policy::{GroupBy, PolicyBook, ProcessorPolicy};

impl Dispatcher {
    pub(super) fn change_policies(&mut self, book: PolicyBook) {
        let affected: Vec<bool> = self
            .processors
            .iter()
            .map(|state| sorting(&self.policies, &state.name) != sorting(&book, &state.name))
            .collect();
        self.policies = book;
        self.keyed = self.policies.groups_by_key();
        self.resolve_again(0..self.processors.len());
        if affected.contains(&true) {
            self.regroup(&affected);
        }
        self.touched.extend(0..self.processors.len());
    }

    /// The same, of one processor.
    pub(super) fn change_policy(&mut self, processor: Processor, written: Option<Box<ProcessorPolicy>>) {
        let earlier = self.policies.processors.get(&processor);
        let sorts_anew = earlier.map(own_sorting) != written.as_deref().map(own_sorting);
        let at = self.by_name.get(&processor).copied();
        match written {
            Some(written) => drop(self.policies.processors.insert(processor, *written)),
            None => drop(self.policies.processors.remove(&processor)),
        }
        self.keyed = self.policies.groups_by_key();
        let Some(at) = at else { return };
        self.resolve_again(at..at + 1);
        if sorts_anew {
            let affected: Vec<bool> = (0..self.processors.len()).map(|other| other == at).collect();
            self.regroup(&affected);
        }
        self.touched.extend(at..at + 1);
    }

    /// Gives every lane and queue of these processors the policy that is in force for it.
    fn resolve_again(&mut self, which: Range<usize>) {
        for state in &mut self.processors[which] {
            for (priority, lane) in Priority::ALL.into_iter().zip(&mut state.lanes) {
                let policy = self.policies.resolve_lane(&state.name, priority);
                lane.share.set(share_of(priority, policy.lower_lane_share));
                if priority == Priority::Realtime {
                    state.reserve = policy.realtime_reserve;
                }
                for (sort, &queue) in &lane.apart {
                    let apart = sort
                        .group
                        .as_ref()
                        .map(|group| self.policies.resolve(&state.name, group, priority));
                    self.queues[queue].policy = apart.unwrap_or_else(|| policy.clone());
                }
                self.queues[lane.shared].policy = policy;
                lane.standings.forget_limits();
            }
        }
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
            let queue = self.jobs[slot].queue;
            self.queues[queue].push(slot, &mut self.jobs);
            self.mark(queue);
        }
        for unit in units {
            // They were counted as ready, and will be again.
            if let Some(&first) = unit.first() {
                self.lane_of(first).ready -= size(unit.len());
            }
            self.enqueue_units(unit);
        }
    }

    /// Gives every job of these processors its queue. A job whose key nobody asked for when it came has none.
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
            let (earlier, key) = (job.queue, self.queues[job.queue].sort.key.clone());
            let queue = self.queue_for(processor, priority, &group, key.as_ref());
            self.jobs[slot].queue = queue;
            self.queues[queue].members += 1;
            self.queues[queue].in_flight += u64::from(held);
            self.mark(queue);
            self.mark(earlier);
            self.leave_queue(earlier);
        }
    }
}

/// What decides which jobs are mixed: the groups with policies of their own, and what each table groups by.
type Sorting<'a> = Vec<(Option<&'a Group>, Option<GroupBy>)>;

fn sorting<'a>(book: &'a PolicyBook, processor: &Processor) -> Sorting<'a> {
    let written = std::iter::once(&*book.all).chain(book.processors.get(processor));
    written.flat_map(own_sorting).collect()
}

/// The part that one processor's tables have in it.
fn own_sorting(written: &ProcessorPolicy) -> Sorting<'_> {
    let tables = std::iter::once(&written.base).chain(&written.priorities);
    let tables = tables.map(|table| (None, table.group_by));
    let groups = written.groups.iter();
    tables
        .chain(groups.map(|(group, table)| (Some(group), table.group_by)))
        .collect()
}
