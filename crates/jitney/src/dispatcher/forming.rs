//! Forming batches for polls: which poll, which lane, which jobs.

use crate::clock::Mono;
use crate::dispatcher::closing::{Closing, Limits, closing};
use crate::dispatcher::event::{Action, ClosedBy, Grant, PollId};
use crate::dispatcher::polls::{Class, Pending};
use crate::dispatcher::queue::Cut;
use crate::dispatcher::timers::Timer;
use crate::dispatcher::{Dispatcher, size};
use crate::job::Priority;
use crate::mutants::{Mutant, active};

/// The order of a mutant.
const LOWEST_FIRST: [Priority; 3] = [Priority::Slow, Priority::Normal, Priority::Realtime];

/// A batch that can close now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) priority: Priority,
    from: From,
    limits: Limits,
    pub(super) closed_by: ClosedBy,
    /// It goes before a lane above it, on its lane's share.
    on_share: bool,
}

/// Where its jobs are.
#[derive(Clone, Copy, Debug)]
enum From {
    /// The first unit of the lane.
    Unit,
    Queue(u32),
}

/// What a poll of some class can have.
#[derive(Clone, Copy, Debug)]
enum Offer {
    Batch(Choice),
    /// Nothing yet; something will have lingered long enough then.
    Later(Mono),
    Nothing,
}

impl Dispatcher {
    /// Answers every poll for which a batch can close, and sets the timers of those that linger.
    pub(super) fn serve(&mut self, actions: &mut Vec<Action>) {
        while let Some(processor) = self.touched.pop_first() {
            while let Some(poll) = self.next_poll(processor) {
                let Some(pending) = self.take_poll(poll) else {
                    break;
                };
                let grants = self.fill(&pending);
                actions.push(Action::Answer { poll, grants });
            }
            self.touched.remove(processor);
            self.set_linger(processor);
            self.watch_idle(processor);
        }
    }

    /// The longest-waiting poll that a batch can close for.
    fn next_poll(&mut self, processor: usize) -> Option<PollId> {
        if self.stalled || self.outgoing.is_full() {
            return None;
        }
        self.look_again(processor, None);
        let classes = self.processors[processor].classes.iter();
        let able = classes.filter(|(class, _)| matches!(self.offer(processor, class, 0), Offer::Batch(_)));
        let first = able.filter_map(|(_, polls)| polls.first_key_value()).min();
        first.map(|(_, &poll)| poll)
    }

    /// All batches that can close now for this poll, up to its slots, and to what may be on its way; one in any case.
    fn fill(&mut self, pending: &Pending) -> Vec<Grant> {
        let mut grants = Vec::new();
        let mut bytes = 0;
        for slots in (1..=pending.slots).rev() {
            if !grants.is_empty() && !self.outgoing.has_room_beside(bytes) {
                break;
            }
            self.look_again(pending.processor, Some(&pending.class));
            let Offer::Batch(choice) = self.offer(pending.processor, &pending.class, slots) else {
                break;
            };
            let cut = self.cut(pending.processor, choice);
            let closed_by = match choice.closed_by {
                ClosedBy::Full if cut.by_bytes => ClosedBy::Bytes,
                other => other,
            };
            bytes += self.bytes_of(&cut.slots);
            let unit = matches!(choice.from, From::Unit);
            grants.push(self.grant(pending, &cut.slots, choice.priority, closed_by, unit));
        }
        grants
    }

    fn set_linger(&mut self, processor: usize) {
        let classes = self.processors[processor].classes.keys();
        let later = classes.filter_map(|class| match self.offer(processor, class, 0) {
            Offer::Later(at) => Some(at),
            Offer::Batch(_) | Offer::Nothing => None,
        });
        let linger = later.min().filter(|_| !self.stalled && !self.outgoing.is_full());
        let state = &mut self.processors[processor];
        if state.linger != linger {
            if let Some(at) = state.linger {
                self.timers.clear(at, Timer::Linger(processor));
            }
            if let Some(at) = linger {
                self.timers.set(at, Timer::Linger(processor));
            }
            state.linger = linger;
        }
    }

    /// The rule of order: an owed lane if one above it waits, else the highest lane that can close now. `own`:
    /// free slots of the poll that is being served, which is not among those that wait any more.
    fn offer(&self, processor: usize, class: &Class, own: u32) -> Offer {
        if self.keeps_slots(processor, class, own) {
            return self.offer_of(processor, class, Priority::Realtime);
        }
        if let Some(choice) = self.owed(processor, class) {
            return Offer::Batch(choice);
        }
        let mut later: Option<Mono> = None;
        let order = if active(Mutant::RealtimeLast) {
            LOWEST_FIRST
        } else {
            Priority::ALL
        };
        for priority in order {
            match self.offer_of(processor, class, priority) {
                Offer::Batch(choice) => return Offer::Batch(choice),
                Offer::Later(at) => later = Some(later.map_or(at, |earlier| earlier.min(at))),
                Offer::Nothing => {}
            }
        }
        later.map_or(Offer::Nothing, Offer::Later)
    }

    /// Whether no slot is to spare for a lane below REALTIME: what stays free or runs REALTIME is reserved.
    fn keeps_slots(&self, processor: usize, class: &Class, own: u32) -> bool {
        let state = &self.processors[processor];
        let realtime = Priority::Realtime.index();
        let (free, running) = (state.free + u64::from(own), state.lanes[realtime].held);
        state.reserve > 0 && class.priorities[realtime] && free + running <= u64::from(state.reserve)
    }

    /// The lane that goes on its share: owed, it waits, and one above it waits. Longest owed first, then NORMAL.
    fn owed(&self, processor: usize, class: &Class) -> Option<Choice> {
        let lanes = &self.processors[processor].lanes;
        let waits = |at: usize| class.priorities[at] && lanes[at].waits();
        let owed = [Priority::Normal, Priority::Slow]
            .into_iter()
            .filter_map(|priority| {
                let at = priority.index();
                let since = lanes[at].share.owed()?;
                (waits(at) && (0..at).any(waits)).then_some((since, priority))
            });
        let (_, priority) = owed.min()?;
        let lane = &lanes[priority.index()];
        let from = if lane.first_unit().is_some() {
            From::Unit
        } else {
            From::Queue(lane.standings.first()?)
        };
        let mut limits = self.limits(processor, priority, from, class);
        limits.jobs = limits
            .jobs
            .min((self.policy_max_jobs(processor, priority, from) / 4).max(1));
        Some(Choice {
            priority,
            from,
            limits,
            closed_by: ClosedBy::Share,
            on_share: true,
        })
    }

    /// What one lane offers by itself.
    fn offer_of(&self, processor: usize, class: &Class, priority: Priority) -> Offer {
        let lane = &self.processors[processor].lanes[priority.index()];
        if !class.priorities[priority.index()] || !lane.waits() {
            return Offer::Nothing;
        }
        let batch = |from, closed_by| {
            Offer::Batch(Choice {
                priority,
                from,
                limits: self.limits(processor, priority, from, class),
                closed_by,
                on_share: false,
            })
        };
        if lane.first_unit().is_some() {
            return batch(From::Unit, ClosedBy::Alone);
        }
        let owed = lane.share.owed().is_some();
        let mut later = lane.standings.next();
        for at in lane.standings.candidates(owed) {
            let queue = &self.queues[at];
            let Some(pile) = queue.pile(owed, &self.jobs) else {
                continue;
            };
            let limits = class.limits().within(&queue.policy);
            match closing(priority, &queue.policy, limits, pile, self.now.mono) {
                Closing::Now(reason) => return batch(From::Queue(at), reason),
                Closing::At(at) => later = Some(later.map_or(at, |earlier| earlier.min(at))),
                Closing::Empty => {}
            }
        }
        later.map_or(Offer::Nothing, Offer::Later)
    }

    fn queue_of(&self, processor: usize, priority: Priority, from: From) -> u32 {
        let lane = &self.processors[processor].lanes[priority.index()];
        match from {
            From::Queue(queue) => queue,
            From::Unit => lane
                .first_unit()
                .map_or(lane.shared, |slot| self.jobs[slot].queue),
        }
    }

    fn policy_max_jobs(&self, processor: usize, priority: Priority, from: From) -> u32 {
        self.queues[self.queue_of(processor, priority, from)]
            .policy
            .max_jobs
    }

    fn limits(&self, processor: usize, priority: Priority, from: From, class: &Class) -> Limits {
        let queue = self.queue_of(processor, priority, from);
        class.limits().within(&self.queues[queue].policy)
    }

    /// Takes the jobs of a choice out of their lane and keeps the shares.
    fn cut(&mut self, processor: usize, choice: Choice) -> Cut {
        let at = choice.priority.index();
        let cut = match choice.from {
            From::Unit => self.processors[processor].lanes[at].cut_unit(choice.limits, &mut self.jobs),
            From::Queue(queue) => {
                self.mark(queue);
                self.queues[queue].cut(choice.limits, &self.jobs)
            }
        };
        let jobs = size(cut.slots.len());
        self.formed += 1;
        let lanes = &mut self.processors[processor].lanes;
        lanes[at].ready -= jobs;
        lanes[at].dispatched += jobs;
        if choice.on_share {
            lanes[at].share.served(jobs);
        }
        if lanes[at].ready == 0 {
            lanes[at].share.reset();
        }
        for below in &mut lanes[at + 1..] {
            if below.waits() {
                below.share.passed(jobs, self.formed);
            }
        }
        cut
    }
}
