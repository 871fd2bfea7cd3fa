//! Leases from before a restart: restored, given up, or counted as a crash.

use std::sync::Arc;
use std::time::Duration;

use crate::bus::RecoveredLease;
use crate::dispatcher::Dispatcher;
use crate::dispatcher::entry::Spent;
use crate::dispatcher::event::{Action, ClosedBy};
use crate::dispatcher::leases::{Lease, Member, Phase};
use crate::dispatcher::timers::Timer;
use crate::job::{Cause, Priority};

impl Dispatcher {
    /// L14, L15, L16. The lease's jobs arrived before.
    pub(super) fn recovered(&mut self, recovered: RecoveredLease, actions: &mut Vec<Action>) {
        let token = recovered.token;
        let found = recovered.jobs.iter().filter_map(|&id| self.jobs.find(id));
        let slots: Vec<u32> = found
            .filter(|&slot| self.jobs[slot].is_ready())
            .filter(|&slot| self.jobs[slot].last_token().is_none_or(|last| last <= token))
            .collect();
        let Some(&first) = slots.first() else { return };
        if self.leases.contains_key(&token) {
            return;
        }
        let processor = self.processor(&recovered.processor);
        self.processors[processor].ever_worked = true;
        let queue = &self.queues[self.jobs[first].queue];
        let isolated = self.jobs[first].alone || queue.priority == Priority::Realtime;
        let limit = self.later(queue.policy.batch_timeout);
        let worker: Arc<str> = Arc::from(recovered.worker);
        let request = recovered
            .request_id
            .map(|id| (processor, worker.clone(), Arc::from(id)));
        let lease = Lease {
            processor,
            priority: queue.priority,
            worker,
            in_process: recovered.in_process,
            request,
            closed_by: ClosedBy::Alone,
            together: false,
            single: slots.len() == 1 && isolated,
            phase: Phase::Ended,
            outgoing: 0,
            handed_out: true,
            term: Duration::from_millis(recovered.term_ms).min(queue.policy.batch_timeout),
            limit,
            ends: None,
            forgotten: Some(limit),
            members: slots
                .iter()
                .map(|&slot| Member::new(self.jobs[slot].id, slot))
                .collect(),
            held: 0,
            open: slots.len(),
        };
        for (seat, &slot) in slots.iter().enumerate() {
            let tried = self.jobs[slot].tried();
            tried.last = Some(token);
            tried.spent = Spent::No;
            tried.seat = seat;
            tried.started.get_or_insert(recovered.granted);
        }
        if let Some(key) = &lease.request {
            self.join_request(key, token);
        }
        self.leases.insert(token, lease);
        self.timers.set(limit, Timer::Forget(token));
        if recovered.delivered || recovered.in_process {
            self.take_back(token, &slots, Phase::Delivered);
            self.refresh(token);
        }
        if recovered.in_process {
            self.lose(token, Cause::Crashed, actions);
        }
    }
}
