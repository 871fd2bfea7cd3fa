//! From a batch to a worker's hands: a lease is granted, written, handed out, delivered, or comes back.

use std::time::Duration;

use crate::clock::between;
use crate::dispatcher::Dispatcher;
use crate::dispatcher::entry::{Place, Spent};
use crate::dispatcher::event::{ClosedBy, Grant, GrantedJob};
use crate::dispatcher::leases::{Lease, Member, Phase};
use crate::dispatcher::polls::Pending;
use crate::job::{Priority, Token};

impl Dispatcher {
    /// L1, J4: leases these jobs, which are out of their lane already.
    pub(super) fn grant(
        &mut self,
        pending: &Pending,
        slots: &[u32],
        priority: Priority,
        closed_by: ClosedBy,
        together: bool,
    ) -> Grant {
        let token = Token {
            node: self.identity.node,
            epoch: self.identity.epoch,
            sequence: self.next_sequence,
        };
        self.next_sequence += 1;
        let policy = slots
            .first()
            .map(|&slot| &self.queues[self.jobs[slot].queue].policy);
        let batch_timeout = policy.map_or(Duration::ZERO, |policy| policy.batch_timeout);
        let term = policy.map_or(Duration::ZERO, |policy| policy.lease.min(batch_timeout));
        let mut jobs = Vec::with_capacity(slots.len());
        for (seat, &slot) in slots.iter().enumerate() {
            self.close_member(slot, false);
            let wall = self.now.wall;
            let tried = self.jobs[slot].tried();
            tried.last = Some(token);
            tried.spent = Spent::No;
            tried.seat = seat;
            tried.deliveries = tried.deliveries.saturating_add(1);
            tried.started.get_or_insert(wall);
            jobs.push(self.granted_job(slot));
        }
        let lease = Lease {
            processor: pending.processor,
            priority,
            worker: pending.worker.clone(),
            in_process: pending.in_process,
            request: pending.request.clone(),
            closed_by,
            together,
            single: slots.len() == 1,
            phase: Phase::Ended,
            outgoing: 1,
            handed_out: false,
            term,
            limit: self.later(batch_timeout),
            ends: None,
            forgotten: None,
            members: jobs
                .iter()
                .zip(slots)
                .map(|(job, &slot)| Member::new(job.id, slot))
                .collect(),
            held: 0,
            open: slots.len(),
        };
        if let Some(key) = &lease.request {
            self.join_request(key, token);
        }
        self.outgoing.goes(token, self.bytes_of(slots));
        self.leases.insert(token, lease);
        self.hold(token, slots, Phase::Granting);
        Grant {
            token,
            priority,
            term,
            jobs,
            fresh: true,
            closed_by,
        }
    }

    /// L10, L11, L13: the same batches again for a repeated poll, if there is something left of them.
    pub(super) fn grant_again(&mut self, token: Token) -> Option<Grant> {
        let mut slots = self.members_at(token, |place| place == Place::Leased);
        let fresh = slots.is_empty();
        if fresh {
            if self.stalled || self.is_held_back(token) {
                return None;
            }
            slots = self.retakable(token);
            self.take_back(token, &slots, Phase::Granting);
        } else {
            self.refresh(token);
        }
        if slots.is_empty() {
            return None;
        }
        let jobs = slots.iter().map(|&slot| self.granted_job(slot)).collect();
        let bytes = self.bytes_of(&slots);
        let lease = self.leases.get_mut(&token)?;
        self.outgoing.goes(token, bytes);
        lease.outgoing += 1;
        Some(Grant {
            token,
            priority: lease.priority,
            term: lease.ends.map_or(lease.term, |ends| between(self.now.mono, ends)),
            jobs,
            fresh,
            closed_by: lease.closed_by,
        })
    }

    /// Whether its lane is paused: what is queued there goes out to nobody, its last holder included.
    fn is_held_back(&self, token: Token) -> bool {
        self.leases.get(&token).is_some_and(|lease| {
            let lanes = &self.processors[lease.processor].lanes;
            lanes[lease.priority.index()].paused
        })
    }

    /// L2: the batch may be handed out; its term starts.
    pub(super) fn grant_written(&mut self, token: Token) {
        let Some(lease) = self.leases.get_mut(&token) else {
            return;
        };
        if lease.phase == Phase::Granting {
            lease.phase = Phase::Written;
            lease.handed_out = true;
            let request = lease.request.clone();
            self.refresh(token);
            self.readmit(request.as_ref());
        } else {
            // It goes out again with another batch, whose record was written meanwhile: its worker is told a
            // full term now.
            self.refresh(token);
        }
    }

    /// L3: the batch was not handed out.
    pub(super) fn grant_failed(&mut self, token: Token) {
        let Some(lease) = self.leases.get(&token) else {
            return;
        };
        let handed_out = lease.handed_out;
        self.give_back(token, !handed_out);
        if self.leases.get(&token).is_some_and(|lease| !lease.handed_out) {
            self.forget(token);
        }
    }

    /// L4.
    pub(super) fn delivered(&mut self, token: Token) {
        if let Some(lease) = self.leases.get_mut(&token)
            && lease.phase == Phase::Written
        {
            lease.phase = Phase::Delivered;
        }
    }

    /// L5, L6: an answer with this lease did not reach the worker.
    pub(super) fn undelivered(&mut self, token: Token) {
        let Some(lease) = self.leases.get_mut(&token) else {
            return;
        };
        lease.outgoing = lease.outgoing.saturating_sub(1);
        if lease.outgoing == 0 && matches!(lease.phase, Phase::Granting | Phase::Written) {
            lease.handed_out = true;
            self.give_back(token, false);
        }
    }

    /// J5, J6: the held members go back to their places, nothing counted.
    fn give_back(&mut self, token: Token, uncount: bool) {
        let slots = self.members_at(token, |place| place == Place::Leased);
        let together = self.leases.get(&token).is_some_and(|lease| lease.together);
        let mut unit = Vec::new();
        for slot in slots {
            self.leave_lease(slot);
            let tried = self.jobs[slot].tried();
            if uncount {
                tried.deliveries = tried.deliveries.saturating_sub(1);
                tried.started = tried.started.filter(|_| tried.deliveries > 0);
            }
            if together && !self.jobs[slot].alone {
                unit.push(slot);
            } else {
                self.enqueue(slot);
            }
        }
        self.enqueue_units(unit);
        // What it still holds has its report being written: so the worker has the batch after all.
        if let Some(lease) = self.leases.get_mut(&token)
            && lease.held > 0
        {
            let granting = std::mem::replace(&mut lease.phase, Phase::Delivered) == Phase::Granting;
            let request = lease.request.clone().filter(|_| granting);
            lease.handed_out = true;
            self.refresh(token);
            self.readmit(request.as_ref());
        }
    }

    /// Bytes that these jobs take on the wire.
    pub(super) fn bytes_of(&self, slots: &[u32]) -> u64 {
        slots.iter().map(|&slot| u64::from(self.jobs[slot].bytes)).sum()
    }

    fn granted_job(&self, slot: u32) -> GrantedJob {
        let job = &self.jobs[slot];
        GrantedJob {
            id: job.id,
            attempt: job.counts().0.saturating_add(1),
            delivery: job.tried.as_ref().map_or(1, |tried| tried.deliveries),
        }
    }
}
