//! Handing batches out: poll, dispatch record, answer, delivered mark; and heartbeats.
//!
//! A lease call first settles what it brought, durably, then polls. A batch is handed out once its
//! dispatch record is written; the record's sync is not awaited.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use joblog::record::Dispatch;

use super::port::{Answer, Batch, CallId, Lease, Leased, Port, SettleAnswer};
use super::refusal::Refusal;
use super::settle::ReplyTo;
use super::{Driver, MARK_DELAY, Pending, view};
use crate::bus::{Bus, Durability, Record, Space};
use crate::clock::{Clock, WallMs, after};
use crate::dispatcher::event::{Event, Extended, Grant, Poll, PollId, RequestId};
use crate::job::Token;

/// Lease calls that are not answered yet.
#[derive(Default)]
pub(super) struct LeaseCalls {
    calls: HashMap<CallId, LeaseCall>,
}

struct LeaseCall {
    /// Per settle that the call brought; `None` until it is durable.
    settled: Vec<Option<SettleAnswer>>,
    lease: Lease,
    /// The worker may be gone: it is answered with what it settled.
    takes_none: bool,
}

/// Grants whose dispatch records are queued.
pub(super) struct Granting {
    call: CallId,
    grants: Vec<Grant>,
}

impl<B: Bus, C: Clock, P: Port> Driver<B, C, P> {
    pub(super) fn on_lease(&mut self, call: CallId, mut lease: Lease) {
        let settles = std::mem::take(&mut lease.settle);
        let settled = settles.iter().map(|_| None).collect();
        let lease_call = LeaseCall {
            settled,
            lease,
            takes_none: false,
        };
        self.leases.calls.insert(call, lease_call);
        if settles.is_empty() {
            return self.poll_if_settled(call);
        }
        // The last of them to be answered polls.
        for (index, settle) in settles.into_iter().enumerate() {
            self.begin_settle(settle, ReplyTo::Lease { call, index });
        }
    }

    /// A settle of a lease call is answered.
    pub(super) fn lease_settled(&mut self, call: CallId, index: usize, answer: SettleAnswer) {
        if let Some(slot) = self
            .leases
            .calls
            .get_mut(&call)
            .and_then(|lease| lease.settled.get_mut(index))
        {
            *slot = Some(answer);
            self.poll_if_settled(call);
        }
    }

    fn poll_if_settled(&mut self, call: CallId) {
        let Some(LeaseCall {
            settled,
            lease,
            takes_none,
        }) = self.leases.calls.get(&call)
        else {
            return;
        };
        if settled.iter().any(Option::is_none) {
            return;
        }
        if *takes_none || self.stopping.is_some() || !self.port.waits(call) {
            return self.answer_lease(call, Vec::new());
        }
        if let Err(refusal) = self.admit_processor(&lease.processor, &HashSet::new()) {
            return self.refuse_poll(call, &refusal);
        }
        // The poll makes it known.
        self.expected_processors.remove(&lease.processor);
        let poll = Poll {
            id: PollId(call.0),
            processor: lease.processor.clone(),
            worker: Arc::clone(&lease.worker),
            in_process: lease.in_process,
            slots: lease.slots,
            max_jobs: lease.max_jobs,
            max_bytes: lease.max_bytes,
            priorities: lease.priorities,
            until: after(self.now.mono, lease.wait),
            request_id: lease.request_id.clone(),
            not_ready: lease.not_ready.clone(),
        };
        if let Some(why) = &lease.not_ready {
            tracing::warn!(
                processor = lease.processor.as_str(),
                worker = &*lease.worker,
                %why,
                "a worker cannot start its program"
            );
        }
        self.step(Event::Poll(poll));
    }

    /// The dispatcher answers a poll.
    pub(super) fn on_grants(&mut self, poll: PollId, grants: Vec<Grant>) {
        let call = CallId(poll.0);
        if grants.is_empty() {
            return self.answer_lease(call, Vec::new());
        }
        let Some(LeaseCall { lease, .. }) = self.leases.calls.get(&call) else {
            return self.return_grants(&grants);
        };
        let records: Vec<_> = grants
            .iter()
            .filter(|grant| grant.fresh)
            .map(|grant| dispatch(grant, lease, self.now.wall))
            .collect();
        if records.is_empty() {
            return self.hand_out(Granting { call, grants });
        }
        let appended = self.bus.append(&records, Space::Settle, Durability::Write);
        match self.appended(appended, Space::Settle, Durability::Write) {
            Ok(ticket) => {
                self.pending
                    .insert(ticket, Pending::Grant(Granting { call, grants }));
            }
            Err(refusal) => self.grant_failed(Granting { call, grants }, &refusal),
        }
    }

    /// The dispatch records are written: the batches go to their worker.
    pub(super) fn hand_out(&mut self, granting: Granting) {
        let Granting { call, grants } = granting;
        if self.stopping.is_some() || !self.port.waits(call) {
            self.return_grants(&grants);
            return self.answer_lease(call, Vec::new());
        }
        let mut batches = Vec::with_capacity(grants.len());
        for grant in &grants {
            match self.batch(grant) {
                Ok(batch) => {
                    self.step(Event::GrantWritten(grant.token));
                    self.handed_out(grant);
                    batches.push(batch);
                }
                Err(refusal) => {
                    tracing::error!(token = %grant.token, error = %refusal, "a batch cannot be read back");
                    self.step(Event::GrantFailed(grant.token));
                }
            }
        }
        self.answer_lease(call, batches);
    }

    fn handed_out(&self, grant: &Grant) {
        let jobs = grant.jobs.len();
        self.metrics
            .batch(grant.closed_by, u64::try_from(jobs).unwrap_or(u64::MAX));
        tracing::debug!(
            lease = %grant.token,
            jobs,
            priority = grant.priority.name(),
            closed_by = ?grant.closed_by,
            "batch handed out"
        );
        for granted in &grant.jobs {
            tracing::trace!(job = %granted.id, lease = %grant.token, "job handed out");
        }
    }

    pub(super) fn grant_failed(&mut self, granting: Granting, refusal: &Refusal) {
        self.return_grants(&granting.grants);
        self.refuse_poll(granting.call, refusal);
    }

    /// Refuses a poll. One that settled something hears of that, and gets no batch.
    fn refuse_poll(&mut self, call: CallId, refusal: &Refusal) {
        let settled_something = self
            .leases
            .calls
            .get(&call)
            .is_some_and(|lease| !lease.settled.is_empty());
        if settled_something {
            self.answer_lease(call, Vec::new());
        } else {
            self.leases.calls.remove(&call);
            self.refuse(call, refusal.clone());
        }
    }

    /// Batches that are not handed out return to their lane; nothing is counted.
    fn return_grants(&mut self, grants: &[Grant]) {
        for grant in grants {
            let event = if grant.fresh {
                Event::GrantFailed
            } else {
                Event::Undelivered
            };
            self.step(event(grant.token));
        }
    }

    fn batch(&self, grant: &Grant) -> Result<Batch, Refusal> {
        let jobs = grant.jobs.iter().map(|granted| {
            let stored = self
                .bus
                .read(granted.id)
                .map_err(|error| Refusal::Internal(error.to_string()))?;
            view::batch_job(&stored.ok_or(Refusal::UnknownJob)?, *granted)
        });
        let term_ms = u64::try_from(grant.term.as_millis()).unwrap_or(u64::MAX);
        Ok(Batch {
            token: grant.token,
            priority: grant.priority,
            expires_at: WallMs(self.now.wall.0.saturating_add(term_ms)),
            expires_in: grant.term,
            jobs: jobs.collect::<Result<_, _>>()?,
        })
    }

    fn answer_lease(&mut self, call: CallId, batches: Vec<Batch>) {
        let Some(LeaseCall { settled, .. }) = self.leases.calls.remove(&call) else {
            return;
        };
        let settled = settled.into_iter().flatten().collect();
        let draining = self.stopping.is_some();
        self.port.answer(
            call,
            Answer::Leased(Leased {
                settled,
                batches,
                draining,
            }),
        );
    }

    /// The worker sends no more: its credit is void, and it hears what it settled. Says whether the call is a poll.
    pub(super) fn hurry_lease(&mut self, call: CallId) -> bool {
        let Some(lease) = self.leases.calls.get_mut(&call) else {
            return false;
        };
        lease.takes_none = true;
        if lease.settled.iter().all(Option::is_some) {
            self.step(Event::PollGone(PollId(call.0)));
            // A batch whose record is being written returns to its lane, as nobody waits for it.
            self.answer_lease(call, Vec::new());
        }
        true
    }

    /// The worker's connection is gone: its credit is void.
    pub(super) fn forget_lease_call(&mut self, call: CallId) {
        if self.leases.calls.remove(&call).is_some() {
            self.step(Event::PollGone(PollId(call.0)));
        }
    }

    pub(super) fn refuse_lease_calls(&mut self, refusal: &Refusal) {
        let mut calls: Vec<_> = std::mem::take(&mut self.leases.calls).into_keys().collect();
        calls.sort_unstable();
        for call in calls {
            self.refuse(call, refusal.clone());
        }
    }

    pub(super) fn on_delivered(&mut self, tokens: Vec<Token>) {
        for token in &tokens {
            self.step(Event::Delivered(*token));
        }
        self.marks.extend(tokens);
        self.marks_due.get_or_insert(after(self.now.mono, MARK_DELAY));
    }

    pub(super) fn on_undelivered(&mut self, tokens: &[Token]) {
        for token in tokens {
            self.step(Event::Undelivered(*token));
        }
    }

    /// Delivered marks ride in a frame that is written anyway, or go alone when they are due. One that
    /// cannot be written is left out: the lease then returns at a restart, which is safe.
    pub(super) fn write_marks(&mut self) {
        let rides = !self.pending.is_empty();
        if self.marks.is_empty() || !(rides || self.marks_due.is_some_and(|due| due <= self.now.mono)) {
            return;
        }
        let records: Vec<_> = self.marks.drain(..).map(Record::Delivered).collect();
        self.marks_due = None;
        if let Err(error) = self.bus.append(&records, Space::Settle, Durability::Write) {
            tracing::debug!(%error, "delivered marks were not written");
        }
    }

    pub(super) fn on_extend(&mut self, call: CallId, token: Token) {
        self.step(Event::Extend {
            request: RequestId(call.0),
            token,
        });
    }

    pub(super) fn on_extended(&mut self, extended: Extended) {
        let call = CallId(extended.request.0);
        let Some(term) = extended.term else {
            return self.refuse(call, Refusal::LeaseLost);
        };
        if !extended.retaken.is_empty() {
            self.write_retaken(&extended);
        }
        self.port.answer(
            call,
            Answer::Extended {
                expires_in: term,
                lost: extended.lost,
            },
        );
    }

    /// Jobs that the worker took back are its own again after a restart, too.
    fn write_retaken(&mut self, extended: &Extended) {
        let record = Record::Dispatch(Dispatch {
            token: extended.token,
            worker: &extended.worker,
            in_process: extended.in_process,
            request_id: extended.request_id.as_deref(),
            term_ms: extended
                .term
                .map_or(0, |term| u64::try_from(term.as_millis()).unwrap_or(u64::MAX)),
            granted: self.now.wall,
            jobs: extended.retaken.clone(),
        });
        let records = [record, Record::Delivered(extended.token)];
        if let Err(error) = self.bus.append(&records, Space::Settle, Durability::Write) {
            tracing::warn!(%error, "a retaken lease was not written; a restart returns its jobs");
        }
    }
}

fn dispatch<'a>(grant: &Grant, lease: &'a Lease, now: WallMs) -> Record<'a> {
    Record::Dispatch(Dispatch {
        token: grant.token,
        worker: &lease.worker,
        in_process: lease.in_process,
        request_id: lease.request_id.as_deref(),
        term_ms: u64::try_from(grant.term.as_millis()).unwrap_or(u64::MAX),
        granted: now,
        jobs: grant.jobs.iter().map(|job| job.id).collect(),
    })
}
