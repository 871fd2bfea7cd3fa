//! Leases: who holds which jobs, under which token, until when.
//!
//! A lease that ended is kept while one of its members may still be taken back under its token.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Mono, after, between};
use crate::dispatcher::Dispatcher;
use crate::dispatcher::entry::Place;
use crate::dispatcher::event::{Action, Change, ClosedBy, Decision, Decisions, Extended, RequestId, Verdict};
use crate::dispatcher::polls::RequestKey;
use crate::dispatcher::timers::Timer;
use crate::job::{Cause, JobId, Priority, Token};
use crate::mutants::{Mutant, active};

/// A worker's hold on a batch.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) processor: usize,
    pub(super) priority: Priority,
    pub(super) worker: Arc<str>,
    pub(super) in_process: bool,
    pub(super) request: Option<RequestKey>,
    pub(super) closed_by: ClosedBy,
    /// Its jobs were held together before, and are again if they come back undelivered.
    pub(super) together: bool,
    /// It was granted for one job.
    pub(super) single: bool,
    pub(super) phase: Phase,
    /// Answers on their way that carry it.
    pub(super) outgoing: u32,
    /// An earlier answer may have reached the worker.
    pub(super) handed_out: bool,
    /// How long a heartbeat keeps it.
    pub(super) term: Duration,
    /// When it ends whatever the heartbeats say.
    pub(super) limit: Mono,
    /// When its term ends, if a term runs.
    pub(super) ends: Option<Mono>,
    /// When what is left of it is forgotten, once it ended.
    pub(super) forgotten: Option<Mono>,
    pub(super) members: Vec<Member>,
    /// Members that it holds, those whose change is being written included.
    pub(super) held: usize,
    /// Members that it holds or may take back.
    pub(super) open: usize,
}

/// The states of a lease in docs/state_machine.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Granting,
    Written,
    Delivered,
    Ended,
}

/// A job of a batch.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) job: JobId,
    /// Where it is, while it is unsettled.
    pub(super) slot: u32,
    /// It is held or may be taken back.
    pub(super) open: bool,
    /// A settle of this lease took effect on it.
    pub(super) settled: bool,
}

impl Member {
    pub(super) const fn new(job: JobId, slot: u32) -> Self {
        Self {
            job,
            slot,
            open: true,
            settled: false,
        }
    }
}

impl Dispatcher {
    /// L7, L10.
    pub(super) fn extend(&mut self, request: RequestId, token: Token, actions: &mut Vec<Action>) {
        if !self.made_here(token) {
            actions.push(Action::UnknownLease(request));
            return;
        }
        self.delivered(token);
        let mut answer = Extended {
            request,
            token,
            term: None,
            lost: Vec::new(),
            retaken: Vec::new(),
            worker: Arc::from(""),
            in_process: false,
            request_id: None,
        };
        if let Some(lease) = self.leases.get(&token) {
            answer.worker = lease.worker.clone();
            answer.in_process = lease.in_process;
            answer.request_id = lease.request.as_ref().map(|(_, _, id)| id.clone());
            answer.lost = self.lost(lease, token);
            if lease.limit > self.now.mono {
                let slots = self.retakable(token);
                answer.retaken = slots.iter().map(|&slot| self.jobs[slot].id).collect();
                self.take_back(token, &slots, Phase::Delivered);
                answer.term = self.extended(token);
            }
        }
        actions.push(Action::Extended(answer));
    }

    /// The new term, if the lease holds a job that is not on its way back already.
    fn extended(&mut self, token: Token) -> Option<Duration> {
        let kept = self.members_at(token, |place| matches!(place, Place::Leased | Place::Committing));
        let stays = |slot| {
            let commit = self.commits.get(slot);
            commit.is_none_or(|commit| commit.leased && commit.by_settle)
        };
        if !kept.iter().any(stays) {
            return None;
        }
        if self.is_granting(token) || active(Mutant::ForgetExtend) {
            return self.leases.get(&token).map(|lease| lease.term);
        }
        self.refresh(token)
    }

    /// L8, J8, L16: the worker is lost. Each member that it still holds counts a crash.
    pub(super) fn lose(&mut self, token: Token, cause: Cause, actions: &mut Vec<Action>) {
        let slots = self.members_at(token, |place| place == Place::Leased);
        let Some(lease) = self.leases.get_mut(&token) else {
            return;
        };
        if let Some(ends) = lease.ends.take() {
            self.timers.clear(ends, Timer::Lease(token));
        }
        let worker = lease.worker.clone();
        let mut jobs = Vec::with_capacity(slots.len());
        for slot in slots {
            let change = self
                .a_try(slot)
                .crash(cause, &self.queues[self.jobs[slot].queue].policy);
            jobs.push(self.decide(slot, None, change, false));
        }
        if !jobs.is_empty() {
            actions.push(Action::Decide(Decisions {
                request: None,
                token,
                worker,
                jobs,
            }));
        }
    }

    /// Nothing can be written: nothing ends. Written again: every lease has a full term before it.
    pub(super) fn stall(&mut self, stalled: bool) {
        self.stalled = stalled;
        for (&token, lease) in &mut self.leases {
            if let Some(ends) = lease.ends {
                self.timers.clear(ends, Timer::Lease(token));
            }
            if !stalled && matches!(lease.phase, Phase::Written | Phase::Delivered) {
                let full = after(self.now.mono, lease.term);
                lease.limit = lease.limit.max(full);
                let ends = lease.ends.map_or(full, |ends| ends.max(full));
                lease.ends = Some(ends);
                self.timers.set(ends, Timer::Lease(token));
            }
        }
        self.touched.extend(0..self.processors.len());
    }

    /// Gives the lease a full new term, within its limit, and says how long that is; `None` if it has ended.
    pub(super) fn refresh(&mut self, token: Token) -> Option<Duration> {
        let lease = self.leases.get_mut(&token)?;
        if !matches!(lease.phase, Phase::Written | Phase::Delivered) {
            return None;
        }
        if let Some(ends) = lease.ends {
            self.timers.clear(ends, Timer::Lease(token));
        }
        let ends = after(self.now.mono, lease.term).min(lease.limit);
        lease.ends = Some(ends);
        if !self.stalled {
            self.timers.set(ends, Timer::Lease(token));
        }
        Some(between(self.now.mono, ends))
    }

    /// The job's place is with the lease no more.
    pub(super) fn leave_lease(&mut self, slot: u32) {
        let queue = self.jobs[slot].queue;
        self.queues[queue].in_flight -= 1;
        self.mark(queue);
        self.lane_of(slot).held -= 1;
        self.leased -= 1;
        self.touch(slot);
        let Some(token) = self.jobs[slot].last_token() else {
            return;
        };
        let Some(lease) = self.leases.get_mut(&token) else {
            return;
        };
        lease.held -= 1;
        if lease.held == 0 {
            self.end(token);
        }
    }

    /// L9: the lease holds nothing more.
    fn end(&mut self, token: Token) {
        let Some(lease) = self.leases.get_mut(&token) else {
            return;
        };
        let granting = std::mem::replace(&mut lease.phase, Phase::Ended) == Phase::Granting;
        let (processor, worker) = (lease.processor, lease.worker.clone());
        let request = lease.request.clone().filter(|_| granting);
        if let Some(ends) = lease.ends.take() {
            self.timers.clear(ends, Timer::Lease(token));
        }
        lease.forgotten = Some(lease.limit);
        self.timers.set(lease.limit, Timer::Forget(token));
        self.release_worker(processor, &worker);
        self.readmit(request.as_ref());
    }

    /// The job cannot come back to the lease of its last token any more.
    pub(super) fn close_member(&mut self, slot: u32, settled: bool) {
        let job = &self.jobs[slot];
        let Some(tried) = &job.tried else { return };
        let Some(token) = tried.last else { return };
        let Some(lease) = self.leases.get_mut(&token) else {
            return;
        };
        // A lease restored after a restart has only some of its jobs, so a job may have no seat in it.
        let member = lease.members.get_mut(tried.seat);
        if let Some(member) = member.filter(|member| member.job == job.id && member.open) {
            member.open = false;
            member.settled = settled;
            lease.open -= 1;
            if lease.open == 0 {
                self.forget(token);
            }
        }
    }

    /// L12.
    pub(super) fn forget(&mut self, token: Token) {
        let Some(lease) = self.leases.remove(&token) else {
            return;
        };
        if let Some(at) = lease.forgotten {
            self.timers.clear(at, Timer::Forget(token));
        }
        if let Some(key) = &lease.request {
            self.leave_request(key, token);
        }
    }

    /// Whether a token was made by this node, in this start or an earlier one.
    pub(super) const fn made_here(&self, token: Token) -> bool {
        token.node == self.identity.node
            && token.sequence >= 1
            && (token.epoch < self.identity.epoch
                || token.epoch == self.identity.epoch && token.sequence < self.next_sequence)
    }

    /// Whether it is open if this lease will have been handed out.
    pub(super) fn is_granting(&self, token: Token) -> bool {
        self.leases
            .get(&token)
            .is_some_and(|lease| lease.phase == Phase::Granting)
    }

    /// The members whose last token this is, at such a place, in the order of the batch.
    pub(super) fn members_at(&self, token: Token, at: impl Fn(Place) -> bool) -> Vec<u32> {
        let Some(lease) = self.leases.get(&token) else {
            return Vec::new();
        };
        let found = lease
            .members
            .iter()
            .filter_map(|member| self.jobs.find_at(member.slot, member.job));
        found
            .filter(|&slot| self.jobs[slot].last_token() == Some(token) && at(self.jobs[slot].place))
            .collect()
    }

    /// Members in their lane that no other lease got and that this one did not settle.
    pub(super) fn retakable(&self, token: Token) -> Vec<u32> {
        let ready = |place| matches!(place, Place::Fresh | Place::Back | Place::Unit);
        let mut slots = self.members_at(token, ready);
        slots.retain(|&slot| !self.jobs[slot].spent());
        slots
    }

    /// J13: jobs go from their lane back to the lease.
    pub(super) fn take_back(&mut self, token: Token, slots: &[u32], phase: Phase) {
        for &slot in slots {
            self.pick(slot);
        }
        self.hold(token, slots, phase);
    }

    /// The lease holds these jobs, which are in no lane; one that had ended is alive again.
    pub(super) fn hold(&mut self, token: Token, slots: &[u32], phase: Phase) {
        if slots.is_empty() {
            return;
        }
        for &slot in slots {
            self.jobs[slot].place = Place::Leased;
            let queue = self.jobs[slot].queue;
            self.queues[queue].in_flight += 1;
            self.mark(queue);
            self.lane_of(slot).held += 1;
        }
        self.leased += slots.len();
        let Some(lease) = self.leases.get_mut(&token) else {
            return;
        };
        lease.held += slots.len();
        if lease.phase == Phase::Ended {
            lease.phase = phase;
            let (processor, worker) = (lease.processor, lease.worker.clone());
            if let Some(at) = lease.forgotten.take() {
                self.timers.clear(at, Timer::Forget(token));
            }
            self.hold_worker(processor, &worker);
        }
    }

    /// Members that are neither held, nor to be taken back, nor settled by this lease.
    fn lost(&self, lease: &Lease, token: Token) -> Vec<JobId> {
        let lost = lease.members.iter().filter(|member| {
            let Some(slot) = self.jobs.find_at(member.slot, member.job) else {
                return !member.settled;
            };
            let job = &self.jobs[slot];
            let returning = self.commits.get(&slot).is_some_and(|commit| !commit.by_settle);
            !member.settled && (job.last_token() != Some(token) || returning)
        });
        lost.map(|member| member.job).collect()
    }

    /// Shorthand for a decision that is to be written.
    pub(super) fn decide(
        &mut self,
        slot: u32,
        verdict: Option<Verdict>,
        change: Change,
        by_settle: bool,
    ) -> Decision {
        let job = self.jobs[slot].id;
        self.begin_commit(slot, change, by_settle);
        Decision {
            job,
            verdict,
            change: Some(change),
        }
    }
}
