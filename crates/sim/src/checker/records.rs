//! Judging what the driver appends, and keeping what becomes of it: written, durable, failed.

use jitney::bus::{AppendError, Failure, Ticket};
use jitney::driver::port::Lease as Poll;
use jitney::job::{Cause, JobId, Priority, Processor, Reason, Token};

use super::jobs::{Back, Counts, Fate, Granted, Job, Place};
use super::leases::{Lease, micros};
use super::{Checker, Effect, Verdict, broken};
use crate::orders::{Identity, order_of};
use crate::tape::{Ended, Written};

/// What became of the record of a batch that was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decided {
    Written,
    /// Its append was refused: its jobs are back in their lane.
    Refused,
    /// So was it, and another batch stands before it in that append: who waited when this one was decided is not
    /// known any more.
    RefusedBehind,
}

impl Checker {
    pub(super) fn appended(
        &mut self,
        now: u64,
        records: &[Written],
        result: &Result<Ticket, AppendError>,
    ) -> Verdict {
        let Ok(ticket) = result else {
            return self.append_refused(records);
        };
        let mut effects = Vec::with_capacity(records.len());
        for record in records {
            match record {
                Written::Submit { id, data, .. } => {
                    self.submit_appended(now, *id, data)?;
                    effects.push(Effect::Submit(*id));
                }
                Written::Dispatch {
                    token,
                    worker,
                    request_id,
                    in_process,
                    jobs,
                } => {
                    self.decided(*token, worker, jobs, Decided::Written)?;
                    let lease = (worker.clone(), request_id.clone(), *in_process);
                    self.dispatched(now, *token, lease, jobs)?;
                    effects.push(Effect::Grant(*token));
                }
                Written::Delivered(token) => {
                    if let Some(lease) = self.leases.get_mut(token) {
                        lease.mark = lease.mark.or(Some(false));
                        effects.push(Effect::Mark(*token, lease.dispatches));
                    }
                }
                Written::Outcome(ended) => {
                    self.ending(now, ended)?;
                    effects.push(Effect::End(ended.id));
                }
                Written::Return {
                    id,
                    cause,
                    token,
                    alone,
                    attempts,
                    crashes,
                } => {
                    let fate = Fate::Queued { written: false };
                    let back = Back {
                        token: *token,
                        cause: *cause,
                        counts: (*attempts, *crashes),
                        alone: *alone,
                        fate,
                    };
                    self.returning(now, *id, back)?;
                    effects.push(Effect::Back(*id));
                }
                Written::Setting(..) => {}
            }
        }
        self.control.queued(*ticket, records);
        self.queued(now, *ticket, effects)
    }

    /// There was no room: batches that were decided are back in their lanes.
    fn append_refused(&mut self, records: &[Written]) -> Verdict {
        let mut fate = Decided::Refused;
        for record in records {
            if let Written::Dispatch {
                token, worker, jobs, ..
            } = record
            {
                self.decided(*token, worker, jobs, fate)?;
                fate = Decided::RefusedBehind;
            }
        }
        Ok(())
    }

    /// The append waits to be durable.
    fn queued(&mut self, now: u64, ticket: Ticket, effects: Vec<Effect>) -> Verdict {
        self.pending.insert(ticket, effects);
        if self.plan.memory {
            // What is in memory is as safe as it will ever be, and may be told before it is reported.
            self.control.durable(ticket);
            self.durable(now, ticket)?;
        }
        Ok(())
    }

    /// Somebody asks for the jobs that are nobody's children, in this order.
    pub(super) fn asked_for(&mut self, records: &[Written]) -> Verdict {
        let orders: Vec<_> = records
            .iter()
            .filter_map(|record| match record {
                Written::Submit {
                    parent: None, data, ..
                } => order_of(data),
                _ => None,
            })
            .collect();
        if orders.is_empty() || self.calls.values_mut().any(|call| call.asks_for(&orders)) {
            return Ok(());
        }
        broken("content", || {
            format!("{orders:?} are appended, and nobody asks for them in this order")
        })
    }

    /// Nobody may have the job's id after its end either. On a full disk results give way, and with its result one that
    /// has no name goes altogether.
    pub(super) fn stays_known(&self, job: &Job) -> bool {
        let order = self.orders.get(&job.order);
        let named = order.is_some_and(|order| order.identity != Identity::Anonymous);
        self.is_remembered() && (named || !self.ever_full)
    }

    fn submit_appended(&mut self, now: u64, id: JobId, data: &bytes::Bytes) -> Verdict {
        let Some(order) = order_of(data).and_then(|order| self.orders.get(&order)) else {
            return broken("content", || {
                format!("{id} is appended with data that nobody submitted")
            });
        };
        if *order.data != **data {
            return broken("content", || {
                format!("{id} is appended with other data than its order's")
            });
        }
        if self
            .jobs
            .get(&id)
            .is_some_and(|job| self.stays_known(job) || !job.is_settled())
        {
            return broken("identity", || format!("{id} is appended twice"));
        }
        let job = Job {
            order: order.id,
            processor: order.processor.clone(),
            group: order.group.clone(),
            priority: order.priority,
            data: data.clone(),
            submit: Fate::Queued { written: false },
            appended_at: now,
            acked: None,
            firsts: 0,
            end: None,
            ended_at: (0, 0),
            told_at: 0,
            held_before: None,
            counts: (0, 0),
            backs: Vec::new(),
            place: Place::Unseen,
            alone: false,
            grants: Vec::new(),
            arrived: 0,
        };
        self.jobs.insert(id, job);
        Ok(())
    }

    /// A batch was decided, or a lease goes to its worker again.
    fn decided(&mut self, token: Token, worker: &str, jobs: &[JobId], fate: Decided) -> Verdict {
        if self.leases.contains_key(&token) {
            // Its worker gets it back: no decision between lanes.
            self.taken_back(worker, jobs);
            return Ok(());
        }
        self.dispatch_unpaused(jobs)?;
        self.dispatch_in_order(worker, jobs, fate)
    }

    /// Nothing is decided for a lane after its pause was answered.
    fn dispatch_unpaused(&self, ids: &[JobId]) -> Verdict {
        match ids.first().and_then(|id| self.jobs.get(id)) {
            Some(first) => self.not_paused(&first.processor, first.priority, "a new batch"),
            None => Ok(()),
        }
    }

    /// REALTIME and shares, at the moment of the decision.
    fn dispatch_in_order(&mut self, worker: &str, ids: &[JobId], fate: Decided) -> Verdict {
        let Some(first) = ids.first().and_then(|id| self.jobs.get(id)) else {
            return Ok(());
        };
        let (processor, priority): (Processor, Priority) = (first.processor.clone(), first.priority);
        let polls = self
            .calls
            .values()
            .filter_map(|call| call.poll_of(self.boot, worker, &processor));
        let polls: Vec<Poll> = polls.cloned().collect();
        let count = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        if fate != Decided::RefusedBehind {
            self.order_of_lanes(&processor, priority, count, &polls)?;
        }
        if fate == Decided::Written {
            for id in ids {
                self.lanes.left(&processor, priority, *id);
            }
        }
        self.count_shares(&processor, priority, count, &polls);
        for call in self.calls.values_mut() {
            call.may_be_served(worker, &processor);
        }
        Ok(())
    }

    /// A lease goes to its worker again; who knows whether the lanes below count it.
    fn taken_back(&mut self, worker: &str, ids: &[JobId]) {
        let Some(first) = ids.first().and_then(|id| self.jobs.get(id)) else {
            return;
        };
        let (processor, priority) = (first.processor.clone(), first.priority);
        for id in ids {
            self.lanes.left(&processor, priority, *id);
        }
        self.lanes
            .may_have_passed(&processor, priority, u64::try_from(ids.len()).unwrap_or(u64::MAX));
        for call in self.calls.values_mut() {
            call.may_be_served(worker, &processor);
        }
    }

    fn dispatched(
        &mut self,
        now: u64,
        token: Token,
        lease: (String, Option<String>, bool),
        ids: &[JobId],
    ) -> Verdict {
        let (worker, request_id, in_process) = lease;
        if self.identity.is_some_and(|identity| token.node != identity.node) {
            return broken("token", || format!("{token} is of another node"));
        }
        if let Some(old) = self.leases.get(&token) {
            // Jobs taken back by an extend or a repeated poll are dispatched again under their old token.
            let same = old.worker == worker && old.request_id == request_id;
            if !same || ids.iter().any(|id| !old.jobs.contains(id)) {
                return broken("token", || format!("{token} is used again, for another lease"));
            }
        } else if self
            .identity
            .is_some_and(|identity| token.epoch != identity.epoch)
        {
            return broken("token", || format!("{token} is new, and of another boot"));
        }
        self.may_be_granted(token, ids)?;
        for id in ids {
            if let Some(job) = self.jobs.get_mut(id) {
                job.place = Place::Held(token);
                job.grants.push(Granted { token, handed: false });
            }
        }
        let boot = self.boot;
        let timeouts = ids.iter().filter_map(|id| self.jobs.get(id)).map(|job| {
            self.book
                .resolve(&job.processor, &job.group, job.priority)
                .batch_timeout
        });
        let limit = now + timeouts.min().map_or(0, micros);
        let lease = self.leases.entry(token).or_insert_with(|| Lease {
            boot,
            worker,
            request_id,
            in_process,
            jobs: ids.to_vec(),
            written: false,
            durable: false,
            sure: true,
            handed: false,
            writing: true,
            out: false,
            limit,
            ends: None,
            undelivered: false,
            dispatches: 0,
            mark: None,
            notified: None,
            must_be_marked: false,
            said: Vec::new(),
            restarted: false,
        });
        (lease.undelivered, lease.writing, lease.out) = (false, true, false);
        lease.dispatched_again();
        Ok(())
    }

    /// The jobs of a grant are in their lane, as far as anyone can know.
    fn may_be_granted(&self, token: Token, ids: &[JobId]) -> Verdict {
        for id in ids {
            let Some(job) = self.jobs.get(id) else {
                return broken("phantom", || format!("{token} has {id}, which does not exist"));
            };
            if job.arrived != self.boot || job.submit != Fate::Durable {
                return broken("early", || {
                    format!("{token} has {id}, which has not arrived: {job:?}")
                });
            }
            if job.has_end() {
                return broken("lost", || {
                    format!("{token} has {id}, which has ended: {:?}", job.end)
                });
            }
            if job.place != Place::Held(token) && !self.is_free(job.place) {
                return broken("double", || format!("{token} has {id}, which is {:?}", job.place));
            }
        }
        Ok(())
    }

    /// What an outcome and a return have in common: the lease has the job, and no later lease does.
    fn may_change(&self, id: JobId, token: Token) -> Verdict {
        let Some(job) = self.jobs.get(&id) else {
            return broken("phantom", || format!("a change of {id}, which does not exist"));
        };
        if job.has_end() {
            return broken("twice", || {
                format!("{id} changes under {token} after its end {:?}", job.end)
            });
        }
        let Some(at) = job.grants.iter().rposition(|grant| grant.token == token) else {
            return broken("lease", || {
                format!("{id} changes under {token}, which never had it")
            });
        };
        let sure = |token: Token| self.leases.get(&token).is_some_and(|lease| lease.sure);
        let fenced = job.grants[at..]
            .iter()
            .find(|later| later.token != token && later.handed && sure(later.token));
        match fenced {
            Some(later) => broken("fencing", || {
                format!("{id} changes under {token}, after {} had it", later.token)
            }),
            None => Ok(()),
        }
    }

    fn ending(&mut self, now: u64, ended: &Ended) -> Verdict {
        let id = ended.id;
        let Some(token) = ended.token else {
            return broken("why", || format!("{id} ends without a lease: {ended:?}"));
        };
        self.may_change(id, token)?;
        let (Some(job), Some(lease)) = (self.jobs.get(&id), self.leases.get(&token)) else {
            return Ok(());
        };
        self.why_ended(now, job, lease, ended)?;
        let crash = ended.reason == Some(Reason::Dead);
        let step = if crash { (0, 1) } else { (1, 0) };
        counted(id, job, (ended.attempts, ended.crashes), &[step])?;
        let jumped = self.jumped;
        if let Some(job) = self.jobs.get_mut(&id) {
            job.ended_at = (now, jumped);
            job.end = Some((ended.clone(), Fate::Queued { written: false }));
        }
        Ok(())
    }

    fn returning(&mut self, now: u64, id: JobId, back: Back) -> Verdict {
        self.may_change(id, back.token)?;
        let (Some(job), Some(lease)) = (self.jobs.get(&id), self.leases.get(&back.token)) else {
            return Ok(());
        };
        self.why_returned(now, id, job, lease, &back)?;
        let steps: &[Counts] = match back.cause {
            Cause::Released | Cause::Undelivered => &[(0, 0)],
            Cause::Expired | Cause::Crashed => &[(0, 1)],
            Cause::Error | Cause::MissingOutcome => &[(1, 0)],
            // Only a job that fails alone has an attempt counted; after a restart the size is not known.
            Cause::BatchFailed if lease.restarted => &[(0, 0), (1, 0)],
            Cause::BatchFailed if lease.jobs.len() == 1 => &[(1, 0)],
            Cause::BatchFailed => &[(0, 0)],
        };
        counted(id, job, back.counts, steps)?;
        if let Some(job) = self.jobs.get_mut(&id) {
            job.backs.push(back);
        }
        Ok(())
    }

    pub(super) fn written(&mut self, ticket: Ticket) -> Verdict {
        for effect in self.pending.get(&ticket).cloned().unwrap_or_default() {
            let fate = Fate::Queued { written: true };
            match effect {
                Effect::Grant(token) => {
                    if let Some(lease) = self.leases.get_mut(&token) {
                        (lease.written, lease.writing) = (true, false);
                    }
                }
                Effect::Mark(token, dispatch) => {
                    let lease = self.leases.get_mut(&token);
                    if let Some(lease) = lease.filter(|lease| lease.dispatches == dispatch) {
                        lease.mark = Some(true);
                    }
                }
                Effect::Submit(id) => self.with(id, |job| job.submit = fate),
                Effect::End(id) => self.with(id, |job| {
                    if let Some((_, end)) = &mut job.end {
                        *end = fate;
                    }
                }),
                Effect::Back(id) => self.with(id, |job| {
                    let queued = job
                        .backs
                        .iter_mut()
                        .find(|back| back.fate == Fate::Queued { written: false });
                    if let Some(back) = queued {
                        back.fate = fate;
                    }
                }),
            }
        }
        Ok(())
    }

    pub(super) fn durable(&mut self, now: u64, ticket: Ticket) -> Verdict {
        if let Some(first) = self.pending.keys().next()
            && *first < ticket
        {
            return broken("order", || format!("{ticket:?} is durable before {first:?}"));
        }
        for effect in self.pending.remove(&ticket).unwrap_or_default() {
            match effect {
                Effect::Grant(token) => {
                    if let Some(lease) = self.leases.get_mut(&token) {
                        (lease.written, lease.durable, lease.writing) = (true, true, false);
                    }
                }
                Effect::Mark(..) => {}
                Effect::Submit(id) => self.with(id, |job| job.submit = Fate::Durable),
                Effect::End(id) => self.with(id, |job| {
                    job.told_at = now;
                    if let Some((_, fate)) = &mut job.end {
                        *fate = Fate::Durable;
                    }
                }),
                Effect::Back(id) => self.with(id, |job| {
                    if !job.backs.is_empty() {
                        let back = job.backs.remove(0);
                        job.counts = back.counts;
                        job.alone |= back.alone;
                        if job.place == Place::Held(back.token) {
                            job.place = Place::Free;
                        }
                    }
                }),
            }
        }
        Ok(())
    }

    pub(super) fn failed(&mut self, ticket: Ticket, failure: Failure) {
        if failure == Failure::Unknown {
            // It may be there: as a crash leaves it.
            return;
        }
        for effect in self.pending.remove(&ticket).unwrap_or_default() {
            match effect {
                Effect::Grant(token) => {
                    let jobs = self
                        .leases
                        .get(&token)
                        .map(|lease| lease.jobs.clone())
                        .unwrap_or_default();
                    for id in jobs {
                        self.with(id, |job| {
                            job.grants.retain(|grant| grant.token != token || grant.handed);
                            if job.place == Place::Held(token) {
                                job.place = Place::Free;
                            }
                        });
                    }
                }
                Effect::Mark(token, dispatch) => {
                    let lease = self.leases.get_mut(&token);
                    if let Some(lease) = lease.filter(|lease| lease.dispatches == dispatch) {
                        lease.mark = None;
                    }
                }
                Effect::Submit(id) => {
                    self.jobs.remove(&id);
                }
                Effect::End(id) => self.with(id, |job| job.end = None),
                Effect::Back(id) => self.with(id, |job| {
                    job.backs.pop();
                }),
            }
        }
    }

    fn with(&mut self, id: JobId, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs.get_mut(&id) {
            change(job);
        }
    }
}

/// Attempts and crashes move by one of these steps, from where they surely or possibly are.
fn counted(id: JobId, job: &Job, counts: Counts, steps: &[Counts]) -> Verdict {
    let reached = |base: Counts| {
        steps
            .iter()
            .any(|step| (base.0 + step.0, base.1 + step.1) == counts)
    };
    if job.bases().any(reached) {
        return Ok(());
    }
    broken("counts", || {
        let bases: Vec<_> = job.bases().collect();
        format!("{id} goes from {bases:?} to {counts:?} (attempts, crashes); allowed steps {steps:?}")
    })
}
