//! Moving a job from place to place: the only code that does, so that every count stays true.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::bus::{Arrival, Past};
use crate::clock::{Mono, after};
use crate::dispatcher::entry::{Job, Place, Spent, Tried};
use crate::dispatcher::lane::Lane;
use crate::dispatcher::queue::{Queue, Sort};
use crate::dispatcher::rate::Rate;
use crate::dispatcher::share::Share;
use crate::dispatcher::timers::Timer;
use crate::dispatcher::{Dispatcher, ProcessorState, size};
use crate::job::{Group, JobId, Priority, Processor};
use crate::policy::{GroupBy, LaneShare};

impl Dispatcher {
    /// J1, J2: a durable job is here. One that is here already stays as it is.
    pub(super) fn arrived(&mut self, arrival: Arrival) {
        if self.jobs.find(arrival.id).is_some() {
            return;
        }
        let processor = self.processor(&arrival.processor);
        let queue = self.queue_for(processor, arrival.priority, &arrival.group, arrival.key.as_ref());
        self.queues[queue].members += 1;
        let wait = arrival.due.map_or(0, |due| due.0.saturating_sub(self.now.wall.0));
        let past = arrival.recovered;
        let tried = past.filter(|past| *past != Past::default());
        let slot = self.jobs.insert(Job {
            id: arrival.id,
            sequence: arrival.sequence,
            clock: Mono(self.now.mono.0.saturating_add(wait.saturating_mul(1000))),
            tried: tried.map(|past| {
                Box::new(Tried {
                    attempts: past.attempts,
                    crashes: past.crashes,
                    deliveries: past.deliveries,
                    started: past.started,
                    last: past.last_token,
                    spent: if past.spent { Spent::Reported } else { Spent::No },
                    ..Tried::default()
                })
            }),
            bytes: arrival.wire_bytes,
            queue,
            group: self.groups.take(arrival.group),
            place: Place::Waiting,
            alone: past.is_some_and(|past| past.alone),
            prompt: past.is_some() && wait == 0,
        });
        let now = self.now.mono;
        let lane = self.lane_of(slot);
        lane.total += 1;
        lane.arrived += 1;
        lane.rate_in.count(now);
        if wait == 0 {
            self.enqueue(slot);
        } else {
            self.wait(slot);
        }
    }

    /// J14: another node has the job, wherever it was here.
    pub(super) fn gone(&mut self, id: JobId) {
        let Some(slot) = self.jobs.find(id) else { return };
        match self.jobs[slot].place {
            Place::Leased => self.leave_lease(slot),
            Place::Committing => {
                if self.commits.remove(&slot).is_some_and(|commit| commit.leased) {
                    self.leave_lease(slot);
                }
            }
            _ => self.pick(slot),
        }
        self.close_member(slot, false);
        self.erase(slot);
    }

    /// J3: a job's time has come.
    pub(super) fn due(&mut self, slot: u32) {
        self.lane_of(slot).waiting -= 1;
        self.enqueue(slot);
    }

    /// Puts a job into its lane: in its queue, or as a unit if it travels alone.
    pub(super) fn enqueue(&mut self, slot: u32) {
        if self.jobs[slot].alone {
            self.enqueue_unit(vec![slot]);
            return;
        }
        let queue = self.jobs[slot].queue;
        self.queues[queue].push(slot, &mut self.jobs);
        self.mark(queue);
        self.lane_of(slot).ready += 1;
        self.touch(slot);
    }

    /// Puts jobs of one queue into their lane, held together.
    pub(super) fn enqueue_unit(&mut self, slots: Vec<u32>) {
        let Some(&first) = slots.first() else { return };
        let queue = &self.queues[self.jobs[first].queue];
        let lane = &mut self.processors[queue.processor].lanes[queue.priority.index()];
        lane.ready += size(slots.len());
        lane.push_unit(slots, &mut self.jobs);
        self.touch(first);
    }

    /// Lets a job wait until its clock.
    pub(super) fn wait(&mut self, slot: u32) {
        let job = &mut self.jobs[slot];
        job.place = Place::Waiting;
        self.timers.set(job.clock, Timer::Due(slot));
        self.lane_of(slot).waiting += 1;
    }

    /// Takes a job out of its lane, ready or not. The caller sets its new place.
    pub(super) fn pick(&mut self, slot: u32) {
        let queue = &mut self.queues[self.jobs[slot].queue];
        let lane = &mut self.processors[queue.processor].lanes[queue.priority.index()];
        match self.jobs[slot].place {
            Place::Fresh | Place::Back => queue.remove(slot, &self.jobs),
            Place::Unit => lane.remove_from_unit(slot, &mut self.jobs),
            Place::Waiting => {
                self.timers.clear(self.jobs[slot].clock, Timer::Due(slot));
                lane.waiting -= 1;
                return;
            }
            Place::Leased | Place::Committing => return,
        }
        self.picked(slot, 1);
    }

    /// `jobs` left the lane of this one.
    pub(super) fn picked(&mut self, slot: u32, jobs: u64) {
        self.mark(self.jobs[slot].queue);
        let lane = self.lane_of(slot);
        lane.ready -= jobs;
        if lane.ready == 0 {
            lane.share.reset();
        }
        self.touch(slot);
    }

    /// The job is not this dispatcher's any more.
    pub(super) fn erase(&mut self, slot: u32) {
        self.lane_of(slot).total -= 1;
        let job = self.jobs.remove(slot);
        self.groups.give_back(job.group);
        self.leave_queue(job.queue);
    }

    /// The queue has one job less. One that keeps jobs apart goes with its last.
    pub(super) fn leave_queue(&mut self, at: u32) {
        let queue = &mut self.queues[at];
        queue.members -= 1;
        let lane = &mut self.processors[queue.processor].lanes[queue.priority.index()];
        if queue.members == 0 && at != lane.shared {
            let queue = self.queues.remove(at);
            lane.apart.remove(&queue.sort);
            if let Some(standing) = queue.standing {
                lane.standings.take(at, standing);
            }
        }
    }

    /// Looks at the job's processor again before this step ends.
    pub(super) fn touch(&mut self, slot: u32) {
        self.touched.insert(self.queues[self.jobs[slot].queue].processor);
    }

    pub(super) fn lane_of(&mut self, slot: u32) -> &mut Lane {
        let queue = &self.queues[self.jobs[slot].queue];
        &mut self.processors[queue.processor].lanes[queue.priority.index()]
    }

    /// The number of a processor, known from now on.
    pub(super) fn processor(&mut self, name: &Processor) -> usize {
        if let Some(&at) = self.by_name.get(name) {
            return at;
        }
        let vacant = self.vacant_number();
        let at = vacant.map_or(self.processors.len(), |(at, _)| at);
        let lanes = Priority::ALL.map(|priority| {
            let policy = self.policies.resolve_lane(name, priority);
            let share = share_of(priority, policy.lower_lane_share);
            let shared = Queue::new(at, priority, policy, Sort::default());
            let queue = match vacant {
                None => self.queues.insert(shared),
                Some((_, queues)) => {
                    self.queues[queues[priority.index()]] = shared;
                    queues[priority.index()]
                }
            };
            Lane::new(queue, share)
        });
        let state = ProcessorState {
            name: name.clone(),
            lanes,
            classes: BTreeMap::new(),
            workers: BTreeMap::new(),
            not_ready: BTreeMap::new(),
            ever_worked: false,
            free: 0,
            reserve: self
                .policies
                .resolve_lane(name, Priority::Realtime)
                .realtime_reserve,
            linger: None,
            forgotten_at: None,
            rate: Rate::default(),
        };
        match vacant {
            None => self.processors.push(state),
            Some(_) => self.processors[at] = state,
        }
        self.touched.insert(at);
        self.by_name.insert(name.clone(), at);
        at
    }

    /// The queue of a job in a lane.
    pub(super) fn queue_for(
        &mut self,
        processor: usize,
        priority: Priority,
        group: &Group,
        key: Option<&Arc<str>>,
    ) -> u32 {
        let state = &mut self.processors[processor];
        let lane = &mut state.lanes[priority.index()];
        let apart = self.policies.stands_apart(&state.name, group);
        let policy = apart.then(|| self.policies.resolve(&state.name, group, priority));
        let policy = policy.as_ref().unwrap_or(&self.queues[lane.shared].policy);
        let sort = Sort {
            group: (apart || policy.group_by == GroupBy::Group).then(|| group.clone()),
            key: key.filter(|_| policy.group_by == GroupBy::Key).cloned(),
        };
        if sort == Sort::default() {
            return lane.shared;
        }
        if let Some(&queue) = lane.apart.get(&sort) {
            return queue;
        }
        let queue = Queue::new(processor, priority, policy.clone(), sort.clone());
        let queue = self.queues.insert(queue);
        lane.apart.insert(sort, queue);
        queue
    }

    /// The instant a duration from now.
    pub(super) fn later(&self, duration: Duration) -> Mono {
        after(self.now.mono, duration)
    }
}

/// The share that a lane of this priority counts: nothing is above REALTIME.
pub(super) fn share_of(priority: Priority, share: LaneShare) -> Share {
    match priority {
        Priority::Realtime => Share::new(LaneShare { above: None }),
        Priority::Normal | Priority::Slow => Share::new(share),
    }
}
