//! Lanes that hand nothing out until somebody resumes them.

use crate::dispatcher::Dispatcher;
use crate::job::{Priority, Processor};

impl Dispatcher {
    /// A paused lane does not wait for its turn: it is owed nothing, and holds no lane below it back. Polls go
    /// on waiting; a resume looks at them again. Resuming what nobody named changes nothing.
    pub(super) fn pause(&mut self, name: &Processor, priority: Priority, paused: bool) {
        if !paused && self.state_of(name).is_none() {
            return;
        }
        let processor = self.processor(name);
        let lane = &mut self.processors[processor].lanes[priority.index()];
        if lane.paused != paused {
            lane.paused = paused;
            lane.share.reset();
            self.touched.insert(processor);
        }
    }

    /// Whether the lane hands nothing out.
    #[must_use]
    pub fn is_paused(&self, name: &Processor, priority: Priority) -> bool {
        self.state_of(name)
            .is_some_and(|state| state.lanes[priority.index()].paused)
    }
}
