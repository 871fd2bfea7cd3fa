//! The operator: pauses lanes and resumes them, and sets policies, one call after the other.

use std::collections::BTreeSet;

use jitney::driver::port::{Answer, CallId, LanePaused};
use jitney::job::{Priority, Processor};

use super::{Happening, Owner, SECOND, World};
use crate::checker::Asked;

/// Who controls the running server.
#[derive(Debug, Default)]
pub(super) struct Operator {
    call: Option<CallId>,
    /// Lanes that may be paused, as far as the operator knows.
    paused: BTreeSet<(Processor, Priority)>,
}

impl World {
    pub(super) fn operator_acts(&mut self) {
        if self.operator.call.is_none()
            && let Some(asked) = self.draw_change()
        {
            let call = self.call(Owner::Operator, asked);
            self.operator.call = Some(call);
        }
        if !self.calm {
            let next = self.rng.below(2 * self.plan.control_gap) + 1;
            self.after(next, Happening::Operator);
        } else if !self.operator.paused.is_empty() {
            // In peace every lane goes on, or nothing in it could end.
            self.after(SECOND, Happening::Operator);
        }
    }

    pub(super) fn operator_hears(&mut self, call: CallId, answer: &Answer) {
        if self.operator.call != Some(call) {
            return;
        }
        self.operator.call = None;
        if let Answer::Paused(LanePaused {
            processor,
            priority,
            paused: false,
        }) = answer
        {
            self.operator.paused.remove(&(processor.clone(), *priority));
        }
    }

    pub(super) fn operator_lost(&mut self, call: CallId) {
        if self.operator.call == Some(call) {
            self.operator.call = None;
        }
    }

    fn draw_change(&mut self) -> Option<Asked> {
        if self.calm {
            let (processor, priority) = self.operator.paused.first()?.clone();
            return Some(Asked::Pause {
                processor,
                priority,
                paused: false,
            });
        }
        let processor = self.rng.pick(&self.plan.processors)?.clone();
        if self.rng.permille(250) {
            let max_jobs = self
                .rng
                .permille(700)
                .then(|| u32::try_from(self.rng.range(1, 40)).unwrap_or(1));
            return Some(Asked::SetPolicy { processor, max_jobs });
        }
        let priority = *self.rng.pick(&Priority::ALL)?;
        let paused = self.rng.permille(500);
        if paused {
            self.operator.paused.insert((processor.clone(), priority));
        }
        Some(Asked::Pause {
            processor,
            priority,
            paused,
        })
    }
}
