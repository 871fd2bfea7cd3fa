//! Processors that are forgotten: a misspelled name leaves no lane behind for ever. Nobody is woken for it: it happens in
//! the first step after its time.

use std::time::Duration;

use crate::dispatcher::Dispatcher;
use crate::dispatcher::lane::Lane;
use crate::job::Priority;

/// A processor is forgotten when it had no job, worker, pause and policy for so long.
const FORGET_AFTER: Duration = Duration::from_hours(24);

impl Dispatcher {
    /// Starts the time of a processor that nobody uses any more, and stops it for one that somebody does.
    pub(super) fn watch_idle(&mut self, at: usize) {
        let idle = self.is_idle(at);
        let state = &mut self.processors[at];
        match (state.forgotten_at, idle) {
            (None, true) => {
                let forgotten_at = self.later(FORGET_AFTER);
                self.processors[at].forgotten_at = Some(forgotten_at);
                self.idle.insert((forgotten_at, at));
            }
            (Some(set), false) => {
                state.forgotten_at = None;
                self.idle.remove(&(set, at));
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    fn is_idle(&self, at: usize) -> bool {
        let state = &self.processors[at];
        let unused = |lane: &Lane| lane.total == 0 && !lane.paused;
        self.by_name.get(&state.name) == Some(&at)
            && state.lanes.iter().all(unused)
            && state.workers.is_empty()
            && state.not_ready.is_empty()
            && state.classes.is_empty()
            && !self.policies.processors.contains_key(&state.name)
    }

    /// Forgets processors that nobody used for long.
    pub(super) fn forget_idle(&mut self) {
        while let Some(&(_, at)) = self.idle.first().filter(|(set, _)| *set <= self.now.mono) {
            self.idle.pop_first();
            self.forget_processor(at);
        }
    }

    /// The time of an unused processor is over. While a lease of it is still remembered it stays a day more.
    fn forget_processor(&mut self, at: usize) {
        self.processors[at].forgotten_at = None;
        if !self.is_idle(at) || self.leases.values().any(|lease| lease.processor == at) {
            self.watch_idle(at);
            return;
        }
        self.by_name.remove(&self.processors[at].name);
        self.vacant.push(at);
    }

    /// A number for a processor: one of a forgotten one, with its queues, if there is one.
    pub(super) fn vacant_number(&mut self) -> Option<(usize, [u32; 3])> {
        let at = self.vacant.pop()?;
        let lanes = &self.processors[at].lanes;
        Some((at, Priority::ALL.map(|priority| lanes[priority.index()].shared)))
    }
}
