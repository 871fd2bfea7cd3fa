//! Judging what callers and workers are told: only what is durable, to the right one, once, in time.

use jitney::driver::port::{
    Answer, CallId, Leased, Settle, SettleAnswer, SettleBody, SettleIs, SettleResult,
};
use jitney::driver::refusal::Refusal;
use jitney::job::{JobId, JobView, Reason, Status, Token};

use super::calls::{Asked, Call};
use super::jobs::{Fate, Job, Place};
use super::leases::micros;
use super::{Checker, Verdict, broken};
use crate::orders::{Identity, Order, result_of};
use crate::tape::Ended;

impl Checker {
    pub(super) fn answered(&mut self, now: u64, id: CallId, answer: &Answer) -> Verdict {
        let Some(call) = self.calls.remove(&id) else {
            return broken("twice", || {
                format!("{id:?} is answered, and is not open: {answer:?}")
            });
        };
        self.deadlines.retain(|(_, other)| *other != id);
        let Some(taken) = call.taken else {
            return broken("twice", || {
                format!("{id:?} is answered before it was asked: {answer:?}")
            });
        };
        match (&call.asked, answer) {
            (_, Answer::Refused(refusal)) => self.refused(now, &call.asked, refusal),
            (Asked::Submit { order, .. }, Answer::Submitted(submitted)) => {
                self.submitted(now, taken, order, (submitted.job.id, submitted.replayed))?;
                self.told(now, taken, &call, &submitted.job)
            }
            (Asked::SubmitMany { orders, .. }, Answer::SubmittedMany(entries)) => {
                self.submitted_many(now, taken, &call, orders, entries)
            }
            (Asked::GetMany { ids }, Answer::Jobs(views)) => self.shown_many(now, taken, &call, ids, views),
            (Asked::Get { id, .. }, Answer::Job(view)) => {
                if view.id != *id {
                    return broken("misdelivered", || format!("{} instead of {id}", view.id));
                }
                self.told(now, taken, &call, view)
            }
            (Asked::Lease(poll), Answer::Leased(leased)) => self.leased(now, taken, &call, poll, leased),
            (Asked::Settle(settle), Answer::Settled(settled)) => self.settled(settle, settled),
            (Asked::Extend { token }, Answer::Extended { expires_in, lost }) => {
                self.extended(now, *token, micros(*expires_in), lost)
            }
            (
                Asked::Pause {
                    processor,
                    priority,
                    paused,
                },
                Answer::Paused(lane),
            ) if (&lane.processor, lane.priority, lane.paused) == (processor, *priority, *paused) => {
                self.paused(processor, *priority, *paused)
            }
            (Asked::SetPolicy { processor, max_jobs }, Answer::Policy(_)) => {
                self.policy_set(processor, *max_jobs)
            }
            (asked, answer) => broken("misdelivered", || format!("{asked} got {answer:?}")),
        }
    }

    /// An order is told which job it is, and whether it was submitted before.
    pub(super) fn submitted(
        &mut self,
        now: u64,
        taken: u64,
        order: &Order,
        (id, replayed): (JobId, bool),
    ) -> Verdict {
        let Some(job) = self.jobs.get_mut(&id) else {
            return broken("durable", || {
                format!("{:?} is accepted as {id}, never appended", order.id)
            });
        };
        if job.order != order.id {
            return broken("misdelivered", || {
                format!("{:?} is told of {id}, which is {:?}", order.id, job.order)
            });
        }
        if job.submit != Fate::Durable {
            return broken("durable", || {
                format!("{:?} is accepted as {id} before that is durable", order.id)
            });
        }
        let before = *job.acked.get_or_insert(now) < taken;
        job.firsts += u32::from(!replayed);
        let mut same = job.firsts <= 1 && (replayed || !before);
        match order.identity {
            Identity::Anonymous => same &= !replayed,
            Identity::Own(own) if own != id => same = false,
            identity => {
                let bound = *self.identities.entry(identity).or_insert(id);
                if bound != id && self.jobs.contains_key(&bound) && self.is_remembered() {
                    return broken("identity", || {
                        format!("{identity:?} was {bound}, and is {id} now")
                    });
                }
            }
        }
        if !same {
            return broken("identity", || {
                format!("{:?} {:?}: {id}, replayed {replayed}", order.id, order.identity)
            });
        }
        Ok(())
    }

    /// A view of a job, told to the maker of this call.
    pub(super) fn told(&self, now: u64, taken: u64, call: &Call, view: &JobView) -> Verdict {
        let (Some(job), wait) = (self.jobs.get(&view.id), call.asked.wait()) else {
            return broken("phantom", || {
                format!("{} is told of, and does not exist", view.id)
            });
        };
        let Some(order) = self.orders.get(&job.order) else {
            return Ok(());
        };
        let same = view.processor == order.processor
            && view.group == order.group
            && view.priority == order.priority
            && view.key == order.key
            && view.labels == order.labels;
        if !same {
            return broken("misdelivered", || format!("{view:?} is not as {order:?}"));
        }
        let durable = match &job.end {
            Some((ended, Fate::Durable)) => Some(ended),
            _ => None,
        };
        if view.status == Status::Submitted {
            let patience = wait.map(micros).filter(|_| !self.draining && !call.gone);
            if patience.is_some_and(|wait| now < taken + wait) {
                return broken("too soon", || {
                    format!(
                        "{} is told unfinished at {now}: {}, taken {taken}",
                        view.id, call.asked
                    )
                });
            }
            if durable.is_some() && job.told_at < now {
                return broken("late", || {
                    format!("{} is told unfinished, and has ended", view.id)
                });
            }
            return Ok(());
        }
        let Some(ended) = durable else {
            return broken("durable", || {
                format!("an end of {} is told that is not durable: {view:?}", view.id)
            });
        };
        let at = job.told_at;
        if wait.is_some() && taken < at && at < now {
            return broken("late", || {
                format!("{} ended at {at}, and is told at {now}", view.id)
            });
        }
        told_the_end(job, ended, view)
    }

    fn leased(
        &mut self,
        now: u64,
        taken: u64,
        call: &Call,
        poll: &jitney::driver::port::Lease,
        leased: &Leased,
    ) -> Verdict {
        if leased.settled.len() != poll.settle.len() {
            return broken("settle", || {
                format!("{} settles, {} answers", poll.settle.len(), leased.settled.len())
            });
        }
        for (settle, answer) in poll.settle.iter().zip(&leased.settled) {
            self.settled(settle, answer)?;
        }
        if leased.batches.len() > usize::try_from(poll.slots).unwrap_or(usize::MAX)
            && poll.request_id.is_none()
        {
            return broken("batch", || {
                format!("{} batches for {} slots", leased.batches.len(), poll.slots)
            });
        }
        if poll.not_ready.is_some() && !leased.batches.is_empty() {
            return broken("not ready", || {
                format!("{} batches for a worker that cannot start", leased.batches.len())
            });
        }
        let named = poll.request_id.is_some();
        let troubled = self.draining || self.poisoned || self.disk_full;
        if leased.batches.is_empty() && !troubled && !named && !call.gone && now < taken + micros(poll.wait) {
            return broken("too soon", || {
                format!(
                    "a poll of {:?} taken {taken} is answered empty at {now}",
                    poll.wait
                )
            });
        }
        for batch in &leased.batches {
            let handed = self.leases.get(&batch.token).is_some_and(|lease| lease.handed);
            if !handed {
                self.not_paused(&poll.processor, batch.priority, "a batch is handed out")?;
            }
            self.handed(now, poll, batch)?;
            for given in &batch.jobs {
                let Some(job) = self.jobs.get(&given.id) else {
                    continue;
                };
                if given.payload.bytes != job.data || given.group != job.group {
                    return broken("misdelivered", || {
                        format!("{} goes to its worker with other data", given.id)
                    });
                }
                if job.backs.is_empty() && given.attempt != job.counts.0 + 1 {
                    return broken("counts", || {
                        format!(
                            "{} is attempt {}, after {:?}",
                            given.id, given.attempt, job.counts
                        )
                    });
                }
            }
        }
        Ok(())
    }

    /// What a worker is told of its settle.
    fn settled(&self, settle: &Settle, answer: &SettleAnswer) -> Verdict {
        let token = settle.token;
        if answer.token != token {
            return broken("misdelivered", || {
                format!("a settle of {token} is answered as {}", answer.token)
            });
        }
        let results = match &answer.results {
            Ok(results) => results,
            Err(refusal) => return self.settle_refused(token, refusal),
        };
        if let SettleBody::Outcomes { outcomes, .. } = &settle.body {
            let ids: Vec<JobId> = results.iter().map(|result| result.id).collect();
            let asked: Vec<JobId> = outcomes.iter().map(|outcome| outcome.id).collect();
            if ids != asked {
                return broken("settle", || {
                    format!("{token}: results for {ids:?}, outcomes for {asked:?}")
                });
            }
        }
        results
            .iter()
            .try_for_each(|result| self.settle_result(token, result))
    }

    fn settle_result(&self, token: Token, result: &SettleResult) -> Verdict {
        let id = result.id;
        let job = self.jobs.get(&id);
        let in_lease = self
            .leases
            .get(&token)
            .is_some_and(|lease| lease.jobs.contains(&id));
        match (&result.is, job) {
            (SettleIs::Applied { .. } | SettleIs::Released | SettleIs::Duplicate, _) if !in_lease => {
                broken("lease", || {
                    format!("{id} {:?} under {token}, which never had it", result.is)
                })
            }
            (SettleIs::Applied { children }, Some(job)) => {
                let pending = job.backs.iter().any(|back| back.token == token);
                let undecided = matches!(&job.end, Some((ended, fate)) if ended.token == Some(token) && *fate != Fate::Durable);
                if pending || undecided {
                    return broken("durable", || {
                        format!("{id} is applied under {token} before that is durable")
                    });
                }
                for child in children {
                    if self
                        .jobs
                        .get(child)
                        .is_none_or(|child| child.submit != Fate::Durable)
                    {
                        return broken("durable", || {
                            format!("child {child} of {id} is told, and is not durable")
                        });
                    }
                }
                Ok(())
            }
            (SettleIs::Late, Some(job)) if in_lease => {
                let other = job.grants.iter().any(|grant| grant.token != token);
                let dead = matches!(&job.end, Some((ended, _)) if ended.reason == Some(Reason::Dead));
                // Whose settle it was stands in a result that may have gone, or given way on a full disk.
                let gone = !self.is_remembered() || self.ever_full;
                if other || dead || gone || self.had_no_outcome(token, job, id) {
                    return Ok(());
                }
                broken("fencing", || {
                    format!("{id} is late under {token}, its only lease")
                })
            }
            (SettleIs::Unknown, Some(job))
                if in_lease && job.place == Place::Held(token) && !job.has_end() =>
            {
                broken("settle", || {
                    format!("{id} is unknown under {token}, which holds it")
                })
            }
            _ => Ok(()),
        }
    }

    fn settle_refused(&self, token: Token, refusal: &Refusal) -> Verdict {
        let known = self
            .leases
            .get(&token)
            .is_some_and(|lease| lease.sure && lease.handed);
        match refusal {
            Refusal::UnknownLease if known => broken("settle", || format!("{token} is said to be unknown")),
            Refusal::UnknownLease => Ok(()),
            other => self.refusal(other),
        }
    }

    fn extended(&mut self, now: u64, token: Token, term: u64, lost: &[JobId]) -> Verdict {
        let Some(lease) = self.leases.get_mut(&token) else {
            return broken("token", || format!("{token} is extended, and was never granted"));
        };
        lease.ends = Some(now + term);
        for id in &lease.jobs {
            let Some(job) = self.jobs.get(id) else { continue };
            if lost.contains(id) && job.place == Place::Held(token) && !job.has_end() && job.backs.is_empty()
            {
                return broken("lease", || {
                    format!("{id} is said to be lost to {token}, which holds it")
                });
            }
        }
        Ok(())
    }

    fn refused(&self, now: u64, asked: &Asked, refusal: &Refusal) -> Verdict {
        match (asked, refusal) {
            (Asked::Settle(settle), _) => self.settle_refused(settle.token, refusal),
            (Asked::Extend { token }, Refusal::LeaseLost | Refusal::UnknownLease) => {
                let Some(lease) = self.leases.get(token) else {
                    return Ok(());
                };
                let held = |id: &&JobId| {
                    self.jobs.get(*id).is_some_and(|job| {
                        job.place == Place::Held(*token) && !job.has_end() && job.backs.is_empty()
                    })
                };
                let alive = lease.ends.is_some_and(|ends| now < ends) && !lease.undelivered;
                match lease.jobs.iter().find(held) {
                    Some(id) if alive => {
                        broken("lease", || format!("{token} is said to be lost, and holds {id}"))
                    }
                    _ => Ok(()),
                }
            }
            (Asked::Submit { order, .. }, _) => self.submit_refused(order, refusal),
            (Asked::Get { id, .. }, Refusal::UnknownJob) => self.unknown(now, *id),
            // It contradicts what the file says.
            (Asked::SetPolicy { .. }, Refusal::InvalidValue { .. }) => Ok(()),
            _ => self.refusal(refusal),
        }
    }

    /// An order is refused.
    pub(super) fn submit_refused(&self, order: &Order, refusal: &Refusal) -> Verdict {
        if !matches!(refusal, Refusal::IdReused(_) | Refusal::IdempotencyKeyReused(_)) {
            return self.refusal(refusal);
        }
        let other = self
            .orders
            .values()
            .any(|other| other.identity == order.identity && other.id != order.id);
        // It may be a child's.
        let child = match order.identity {
            Identity::Own(id) => self.jobs.get(&id).is_some_and(|job| job.order != order.id),
            _ => false,
        };
        if other || child {
            Ok(())
        } else {
            broken("identity", || {
                format!("{:?} {:?} is said to be used", order.id, order.identity)
            })
        }
    }

    /// A job is said to be unknown.
    pub(super) fn unknown(&self, now: u64, id: JobId) -> Verdict {
        match self.jobs.get(&id) {
            Some(job) if job.acked.is_some() && self.must_know(job, now) => {
                broken("lost", || format!("{id} was accepted, and is unknown: {job:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Whether there is a reason for a refusal at all.
    fn refusal(&self, refusal: &Refusal) -> Verdict {
        let limits = &self.plan.limits;
        let reason = match refusal {
            Refusal::Recovering => self.ready.is_none(),
            Refusal::Draining => self.draining,
            Refusal::DiskFull => self.disk_full,
            Refusal::OutcomeUnknown => self.poisoned || self.draining,
            Refusal::QueueFull {
                what: "log_bytes_max",
                ..
            } => limits.log_bytes_max.is_some(),
            Refusal::QueueFull { .. } => limits.jobs_max < 1_000,
            Refusal::TooManyWaiters { .. } => limits.waiters_max < 1_000,
            // Results go soon in this seed: a job may have ended, and its result gone, while somebody waited.
            Refusal::UnknownJob => limits.result_ttl.as_secs() < 3_600,
            _ => false,
        };
        if reason {
            Ok(())
        } else {
            broken("refusal", || format!("no reason for {refusal:?}"))
        }
    }
}

/// What a caller is told of a job's end is what is durable, and its own.
fn told_the_end(job: &Job, ended: &Ended, view: &JobView) -> Verdict {
    let result = view.result.as_ref().map_or(&b""[..], |payload| &payload.bytes);
    let agrees = Status::from(ended.end) == view.status && ended.reason == view.reason;
    if !agrees {
        return broken("two ends", || format!("{view:?} is told, {ended:?} is durable"));
    }
    if view.result_expired {
        return Ok(());
    }
    let code = view.error.as_ref().map(|error| &error.code);
    if *result != *ended.result
        || code != ended.code.as_ref()
        || (view.attempts, view.crashes) != (ended.attempts, ended.crashes)
    {
        return broken("two ends", || format!("{view:?} is told, {ended:?} is durable"));
    }
    if view.status == Status::ProcessedOk && *result != *result_of(&job.data) {
        return broken("misdelivered", || {
            format!("{} has another job's result: {view:?}", view.id)
        });
    }
    Ok(())
}
