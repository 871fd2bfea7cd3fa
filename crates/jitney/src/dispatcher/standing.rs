//! Which queues of a lane could close a batch now, and when the others will.
//!
//! A lane has one queue, or as many as its jobs have groups or keys that must not mix. So that a hundred thousand
//! of them cost a poll no more than one, each queue that is not empty stands in two sorted sets; one that changed
//! is looked at again before the next poll is served. All are looked at again when the smallest limits of the polls
//! that wait change: workers of one processor seldom ask for different ones.

use std::collections::BTreeSet;

use crate::clock::Mono;
use crate::dispatcher::Dispatcher;
use crate::dispatcher::closing::{Closing, Limits, Pile, closing};
use crate::dispatcher::entry::{Jobs, Order};
use crate::dispatcher::polls::Class;
use crate::dispatcher::queue::Queue;
use crate::job::Priority;

/// The queues of one lane, by what they wait for.
#[derive(Debug, Default)]
pub(super) struct Standings {
    /// Every queue that is not empty, by its first job.
    heads: BTreeSet<(Order, u32)>,
    /// Those that close now for the poll that is easiest to please.
    ripe: BTreeSet<(Order, u32)>,
    /// Those that linger, until when.
    lingering: BTreeSet<(Mono, u32)>,
    /// Queues that changed since they were looked at.
    stale: Vec<u32>,
    /// The smallest limits of the polls that wait: what closes for another poll closes for these.
    easiest: Option<Limits>,
}

/// A queue's place in the sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    head: Order,
    /// `None`: it closes now.
    until: Option<Mono>,
}

impl Standings {
    /// The queue whose first job is the lane's first.
    pub(super) fn first(&self) -> Option<u32> {
        self.heads.first().map(|&(_, queue)| queue)
    }

    /// The queues that may close now, by their first jobs: all of them if the lane is owed its share.
    pub(super) fn candidates(&self, owed: bool) -> impl Iterator<Item = u32> {
        let set = if owed { &self.heads } else { &self.ripe };
        set.iter().map(|&(_, queue)| queue)
    }

    /// When the next one will have lingered long enough.
    pub(super) fn next(&self) -> Option<Mono> {
        self.lingering.first().map(|&(until, _)| until)
    }

    /// Another policy is in force: every queue is looked at again.
    pub(super) const fn forget_limits(&mut self) {
        self.easiest = None;
    }

    fn put(&mut self, queue: u32, standing: Standing) {
        self.heads.insert((standing.head, queue));
        match standing.until {
            None => self.ripe.insert((standing.head, queue)),
            Some(until) => self.lingering.insert((until, queue)),
        };
    }

    pub(super) fn take(&mut self, queue: u32, standing: Standing) {
        self.heads.remove(&(standing.head, queue));
        match standing.until {
            None => self.ripe.remove(&(standing.head, queue)),
            Some(until) => self.lingering.remove(&(until, queue)),
        };
    }
}

impl Queue {
    /// What is there to close. Whether the lane is owed its share is not the queue's to know.
    pub(super) fn pile(&self, owed: bool, jobs: &Jobs) -> Option<Pile> {
        Some(Pile {
            jobs: self.len(),
            bytes: self.bytes,
            oldest: self.oldest(jobs)?,
            prompt: self.prompt(),
            busy: self.in_flight > 0,
            owed,
        })
    }

    fn stand(&self, easiest: Limits, jobs: &Jobs, now: Mono) -> Option<Standing> {
        let (head, pile) = (self.head(jobs)?, self.pile(false, jobs)?);
        let until = match closing(
            self.priority,
            &self.policy,
            easiest.within(&self.policy),
            pile,
            now,
        ) {
            Closing::Now(_) => None,
            Closing::At(at) => Some(at),
            Closing::Empty => return None,
        };
        Some(Standing { head, until })
    }
}

impl Dispatcher {
    /// The queue changed: it is looked at again before a poll is served.
    pub(super) fn mark(&mut self, at: u32) {
        let queue = &mut self.queues[at];
        if !queue.stale {
            queue.stale = true;
            let lanes = &mut self.processors[queue.processor].lanes;
            lanes[queue.priority.index()].standings.stale.push(at);
        }
    }

    /// Looks again at what changed in the processor's lanes, for the polls that wait and for `also`.
    pub(super) fn look_again(&mut self, processor: usize, also: Option<&Class>) {
        for priority in Priority::ALL {
            let classes = self.processors[processor].classes.keys().chain(also);
            let asking = classes.filter(|class| class.priorities[priority.index()]);
            if let Some(easiest) = asking.map(|class| class.limits()).reduce(Limits::smaller) {
                self.look_again_at(processor, priority, easiest);
            }
        }
    }

    fn look_again_at(&mut self, processor: usize, priority: Priority, easiest: Limits) {
        let lane = &mut self.processors[processor].lanes[priority.index()];
        if lane.standings.easiest != Some(easiest) {
            lane.standings.easiest = Some(easiest);
            let all: Vec<u32> = lane.standings.candidates(true).collect();
            for queue in all {
                self.mark(queue);
            }
        }
        let now = self.now.mono;
        let standings = &mut self.processors[processor].lanes[priority.index()].standings;
        for at in std::mem::take(&mut standings.stale) {
            // Its number may be another's by now.
            let mine = |queue: &&mut Queue| queue.processor == processor && queue.priority == priority;
            let Some(queue) = self.queues.get_mut(at).filter(mine) else {
                continue;
            };
            queue.stale = false;
            let standing = queue.stand(easiest, &self.jobs, now);
            let earlier = std::mem::replace(&mut queue.standing, standing);
            if earlier != standing {
                if let Some(earlier) = earlier {
                    standings.take(at, earlier);
                }
                if let Some(standing) = standing {
                    standings.put(at, standing);
                }
            }
        }
        while let Some((_, at)) = standings
            .lingering
            .first()
            .copied()
            .filter(|(until, _)| *until <= now)
        {
            if let Some(standing) = &mut self.queues[at].standing {
                standings.take(at, *standing);
                standing.until = None;
                standings.put(at, *standing);
            }
        }
    }
}
