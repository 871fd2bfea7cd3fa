//! The shadow of the lanes: who waits in them, and whether REALTIME and the owed shares get their due.
//!
//! Only jobs of which it is certain that they wait are counted: they arrived in this boot for the first time
//! and were never dispatched. What the driver knows beside them can only make a lane owed sooner.

use std::collections::BTreeMap;

use jitney::driver::port::Lease as Poll;
use jitney::job::{Group, JobId, Priority, Processor};

use super::leases::micros;
use super::{Checker, Verdict, broken};

/// All lanes.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<(Processor, Priority), Lane>,
    /// Policies changed in this boot: old batches may still travel.
    changed: bool,
}

#[derive(Debug, Default)]
struct Lane {
    /// Jobs that surely wait, since when.
    waiting: BTreeMap<JobId, u64>,
    /// Jobs from above since its last share: at least, while somebody surely waited; and at most.
    passed_least: u64,
    passed_most: u64,
    /// Jobs that its last share had, surely; and at most.
    served: u64,
    served_most: u64,
    /// Its share may have been counted anew.
    unsure: bool,
}

impl Lanes {
    pub(super) fn arrived(&mut self, processor: &Processor, priority: Priority, id: JobId, now: u64) {
        self.lane(processor, priority).waiting.insert(id, now);
    }

    pub(super) fn left(&mut self, processor: &Processor, priority: Priority, id: JobId) {
        self.lane(processor, priority).waiting.remove(&id);
    }

    pub(super) fn policies_changed(&mut self) {
        self.changed = true;
        for lane in self.lanes.values_mut() {
            (lane.unsure, lane.passed_least) = (true, 0);
        }
    }

    /// A lane of the processor was paused or resumed: who knows when it was counted.
    pub(super) fn shares_unsure(&mut self, processor: &Processor) {
        for priority in Priority::ALL {
            let lane = self.lane(processor, priority);
            (lane.unsure, lane.passed_least) = (true, 0);
        }
    }

    /// Jobs of a lane went, and the lanes below count it or not.
    pub(super) fn may_have_passed(&mut self, processor: &Processor, priority: Priority, count: u64) {
        for lower in Priority::ALL.into_iter().filter(|lower| *lower > priority) {
            self.lane(processor, lower).passed_most += count;
        }
        self.lane(processor, priority).passed_least = 0;
    }

    /// No policy changed in this boot.
    pub(super) const fn steady(&self) -> bool {
        !self.changed
    }

    fn lane(&mut self, processor: &Processor, priority: Priority) -> &mut Lane {
        self.lanes.entry((processor.clone(), priority)).or_default()
    }

    fn waits(&self, processor: &Processor, priority: Priority) -> bool {
        self.lanes
            .get(&(processor.clone(), priority))
            .is_some_and(|lane| !lane.waiting.is_empty())
    }
}

impl Checker {
    /// A batch of these jobs was decided for this poll; `polls` are all that it may have been decided for.
    pub(super) fn order_of_lanes(
        &mut self,
        processor: &Processor,
        priority: Priority,
        count: u64,
        polls: &[Poll],
    ) -> Verdict {
        let takes =
            |lane: Priority| !polls.is_empty() && polls.iter().all(|poll| poll.priorities[lane.index()]);
        if priority != Priority::Realtime
            && takes(Priority::Realtime)
            && self.lanes.waits(processor, Priority::Realtime)
            && !self.control.may_be_paused(processor, Priority::Realtime)
        {
            self.share_is_due(processor, priority, count)?;
        }
        if priority == Priority::Realtime {
            for lower in [Priority::Normal, Priority::Slow] {
                let paused = self.control.may_be_paused(processor, lower);
                if takes(lower) && !paused && self.is_owed(processor, lower) {
                    return broken("starved", || {
                        format!("{processor:?}: REALTIME goes although {lower} is owed")
                    });
                }
            }
        }
        Ok(())
    }

    /// REALTIME waits: a lower lane may go only on its share, and only a quarter of a batch.
    fn share_is_due(&mut self, processor: &Processor, priority: Priority, count: u64) -> Verdict {
        let above = self.share(processor, priority);
        let lane = self.lanes.lane(processor, priority);
        let due = above.map(|above| u64::from(above).saturating_mul(lane.served.max(1)));
        if lane.unsure || due.is_some_and(|due| lane.passed_most >= due) {
            return Ok(());
        }
        let passed = lane.passed_most;
        broken("realtime", || {
            format!(
                "{count} jobs of {processor:?} {priority} go before REALTIME; passed {passed}, due {due:?}"
            )
        })
    }

    fn is_owed(&self, processor: &Processor, priority: Priority) -> bool {
        let Some(lane) = self.lanes.lanes.get(&(processor.clone(), priority)) else {
            return false;
        };
        let Some(above) = self.share(processor, priority) else {
            return false;
        };
        !lane.waiting.is_empty()
            && lane.passed_least >= u64::from(above).saturating_mul(lane.served_most.max(1))
    }

    fn share(&self, processor: &Processor, priority: Priority) -> Option<u32> {
        // A name that no group has: what is written for the lane itself.
        self.book
            .resolve(processor, &Group::trusted("0"), priority)
            .lower_lane_share
            .above
            .map(|above| above.max(1))
    }

    /// Keeps the counts of the lanes below, and of the lane itself.
    pub(super) fn count_shares(
        &mut self,
        processor: &Processor,
        priority: Priority,
        count: u64,
        polls: &[Poll],
    ) {
        let takes =
            |lane: Priority| !polls.is_empty() && polls.iter().all(|poll| poll.priorities[lane.index()]);
        // Only REALTIME never lingers: a lane that does lets those below go before it.
        let realtime = Priority::Realtime;
        let above_paused = self.control.may_be_paused(processor, realtime);
        let on_share =
            priority != realtime && takes(realtime) && self.lanes.waits(processor, realtime) && !above_paused;
        for lower in Priority::ALL.into_iter().filter(|lower| *lower > priority) {
            let paused = self.control.may_be_paused(processor, lower);
            let lane = self.lanes.lane(processor, lower);
            lane.passed_most += count;
            if !lane.waiting.is_empty() && !paused {
                lane.passed_least += count;
            }
        }
        let lane = self.lanes.lane(processor, priority);
        lane.passed_least = 0;
        lane.unsure |= above_paused;
        // What it is served beside its share does not count, but who knows whether it was.
        lane.served_most = lane.served_most.max(count);
        if on_share {
            (lane.passed_most, lane.served, lane.served_most, lane.unsure) = (0, count, count, false);
        }
        if lane.waiting.is_empty() {
            // It may be empty: then its share begins anew.
            lane.served = 1;
        }
    }

    /// A poll that takes a lane is not left waiting while a job of it has waited long enough.
    pub(super) fn nobody_is_stuck(&self, now: u64) -> Verdict {
        for call in self.calls.values() {
            let Some((poll, taken)) = call.pending_poll(self.boot) else {
                continue;
            };
            for ((processor, priority), lane) in &self.lanes.lanes {
                let paused = self.control.may_be_paused(processor, *priority);
                if *processor != poll.processor || !poll.priorities[priority.index()] || paused {
                    continue;
                }
                let patient = self.patience(processor, *priority);
                let stuck = lane
                    .waiting
                    .iter()
                    .find(|(_, since)| **since + patient < now && taken < now);
                if let Some((id, since)) = stuck {
                    return broken("stuck", || {
                        format!(
                            "{id} of {processor:?} {priority} waits since {since}, and so does a poll since {taken}"
                        )
                    });
                }
            }
        }
        Ok(())
    }

    /// The longest that any group of the lane lingers.
    fn patience(&self, processor: &Processor, priority: Priority) -> u64 {
        let delays = self
            .plan
            .groups
            .iter()
            .map(|group| self.book.resolve(processor, group, priority).max_delay);
        delays.max().map_or(0, micros)
    }
}
