//! Taking jobs in: recognised as a repeat, admitted or refused, appended, and answered once durable.

use std::collections::HashSet;
use std::time::Duration;

use joblog::record::Submit as SubmitRecord;

use super::differs::Differs;
use super::port::{Answer, CallId, Port, Submit, Submitted};
use super::refusal::Refusal;
use super::view;
use super::waiters::Asked;
use super::{Driver, Pending};
use crate::bus::{Bus, Durability, Known, Record, Space, Ticket, Usage};
use crate::clock::{Clock, WallMs};
use crate::job::{JobId, JobView, Processor};
use crate::near::nearest;

/// `Retry-After` where no rate is known yet.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// A submit whose append is queued.
pub(super) struct Submitting {
    call: CallId,
    id: JobId,
    submit: Box<Submit>,
    accepted: WallMs,
    /// Submits under the same id or key that came meanwhile; each waits for this commit and shares its fate.
    repeats: Vec<Repeat>,
}

/// A submit that met its first in flight.
pub(super) struct Repeat {
    pub asker: Asker,
    /// The job that both mean.
    pub id: JobId,
    pub wait: Option<Duration>,
    /// Its content is another: what it hears once the first is durable.
    pub conflict: Option<Refusal>,
}

/// Who hears what became of a repeat.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asker {
    /// A call of its own.
    Call(CallId),
    /// One of many: the call, and the place in it.
    Place(CallId, usize),
}

/// What a submit is, before it is admitted.
pub(super) enum Recognised {
    New,
    /// Its first is in this append; with the refusal that is due if their content differs.
    InFlight(JobId, Ticket, Option<Refusal>),
    /// It was submitted before.
    Known(JobId, Known),
    /// Its id or key was used for something else.
    Conflict(Refusal),
}

impl<B: Bus, C: Clock, P: Port> Driver<B, C, P> {
    pub(super) fn on_submit(&mut self, call: CallId, submit: Box<Submit>) {
        if self.stopping.is_some() {
            return self.refuse(call, Refusal::Draining);
        }
        match self.recognise(&submit) {
            Recognised::New => match self
                .admit(&submit, submit.wait, &self.bus.usage())
                .and_then(|()| self.admit_processor(&submit.processor, &HashSet::new()))
            {
                Ok(()) => self.append_submit(call, submit),
                Err(refusal) => self.refuse(call, refusal),
            },
            Recognised::InFlight(id, ticket, conflict) => {
                // What clashes with its first is refused in the end: it will not wait.
                let wait = submit.wait.filter(|_| conflict.is_none());
                let repeat = Repeat {
                    asker: Asker::Call(call),
                    id,
                    wait,
                    conflict,
                };
                if let Err(refusal) = self.join(ticket, repeat) {
                    self.refuse(call, refusal);
                }
            }
            Recognised::Known(id, known) => self.replay(call, id, known, &submit),
            Recognised::Conflict(refusal) => self.refuse(call, refusal),
        }
    }

    pub(super) fn recognise(&self, submit: &Submit) -> Recognised {
        let (id, conflict): (_, fn(Differs) -> Refusal) = if let Some(id) = submit.id {
            (id, Refusal::IdReused)
        } else if let Some(entry) = submit.idempotency.and_then(|key| self.bus.find_key(key)) {
            (entry.id, Refusal::IdempotencyKeyReused)
        } else {
            return Recognised::New;
        };
        let Some(known) = self.bus.find(id) else {
            return Recognised::New;
        };
        let (Known::Submitting { fingerprint, .. }
        | Known::Unsettled { fingerprint }
        | Known::Finished { fingerprint, .. }) = known;
        let differs = fingerprint != submit.fingerprint;
        let conflict = differs.then(|| conflict(self.differing(id, known, submit)));
        match known {
            // The first may still fail, and then binds nothing.
            Known::Submitting { ticket, .. } if self.pending.contains_key(&ticket) => {
                Recognised::InFlight(id, ticket, conflict)
            }
            _ => match conflict {
                Some(conflict) => Recognised::Conflict(conflict),
                None => Recognised::Known(id, known),
            },
        }
    }

    /// In what a submit differs from a job that is known, as far as its content still is.
    fn differing(&self, id: JobId, known: Known, submit: &Submit) -> Differs {
        match known {
            Known::Submitting { ticket, .. } => match self.pending.get(&ticket) {
                Some(Pending::Submit(first)) => Differs::between(submit, &first.submit),
                _ => Differs::default(),
            },
            Known::Unsettled { .. } | Known::Finished { readable: true, .. } => match self.bus.read(id) {
                Ok(Some(stored)) => SubmitRecord::decode(&stored.submit)
                    .map_or(Differs::default(), |first| Differs::from_stored(submit, &first)),
                Ok(None) | Err(_) => Differs::default(),
            },
            Known::Finished { readable: false, .. } => Differs::default(),
        }
    }

    /// A submit whose first is in flight waits for it, and afterwards perhaps for the job.
    pub(super) fn join(&mut self, ticket: Ticket, repeat: Repeat) -> Result<(), Refusal> {
        self.admit_waiter(repeat.wait)?;
        self.expect_waiter(repeat.wait);
        match self.pending.get_mut(&ticket) {
            Some(Pending::Submit(first)) => first.repeats.push(repeat),
            Some(Pending::SubmitMany(first)) => first.repeats.push(repeat),
            // Its id is that of a child.
            Some(Pending::Settle(first)) => first.repeats.push(repeat),
            Some(Pending::Grant(_) | Pending::Change) | None => {
                self.unexpect_waiter(repeat.wait);
                let detail = "no submit is in the append that has its id".to_owned();
                return Err(Refusal::Internal(detail));
            }
        }
        Ok(())
    }

    pub(super) fn admit_waiter(&self, wait: Option<Duration>) -> Result<(), Refusal> {
        if wait.is_some() && self.waiters_full() {
            return Err(Refusal::TooManyWaiters {
                limit: self.limits.waiters_max,
            });
        }
        Ok(())
    }

    pub(super) fn expect_waiter(&mut self, wait: Option<Duration>) {
        if wait.is_some() {
            self.waiters.expect();
        }
    }

    pub(super) fn unexpect_waiter(&mut self, wait: Option<Duration>) {
        if wait.is_some() {
            self.waiters.unexpect();
        }
    }

    /// Whether there is room for a job that is new, with the bus as full as `usage` says; its processor apart.
    pub(super) fn admit(
        &self,
        submit: &Submit,
        wait: Option<Duration>,
        usage: &Usage,
    ) -> Result<(), Refusal> {
        let limits = &self.limits;
        self.admit_waiter(wait)?;
        if usage.unsettled >= limits.jobs_max {
            return Err(self.queue_full("jobs_max", limits.jobs_max, &submit.processor));
        }
        if let Some(limit) = limits.log_bytes_reached(usage.segments_bytes()) {
            return Err(self.queue_full("log_bytes_max", limit, &submit.processor));
        }
        if usage.queued_bytes >= limits.queued_bytes_max {
            // The disk is slow, not the workers.
            return Err(Refusal::QueueFull {
                what: "queued_bytes_max",
                limit: limits.queued_bytes_max,
                retry_after: RETRY_AFTER_DEFAULT,
            });
        }
        if submit.is_named() && usage.keys >= limits.keys_max {
            return Err(Refusal::KeysFull {
                limit: limits.keys_max,
            });
        }
        Ok(())
    }

    /// Whether there is room for this processor, and those that a call in hand (`also`) brings before it.
    pub(super) fn admit_processor(
        &self,
        processor: &Processor,
        also: &HashSet<Processor>,
    ) -> Result<(), Refusal> {
        let limit = self.limits.processors_max;
        let expected = &self.expected_processors;
        if self.dispatcher.knows(processor) || expected.contains(processor) || also.contains(processor) {
            return Ok(());
        }
        let count = self.dispatcher.processors().count() + expected.len() + also.len();
        if u64::try_from(count).unwrap_or(u64::MAX) < limit {
            Ok(())
        } else {
            Err(Refusal::TooManyProcessors { limit })
        }
    }

    /// The first job of a processor is in flight: it counts from now on, not only once that job arrives.
    pub(super) fn expect_processor(&mut self, processor: &Processor) {
        if !self.dispatcher.knows(processor) && !self.expected_processors.contains(processor) {
            self.expected_processors.insert(processor.clone());
        }
    }

    pub(super) fn queue_full(&self, what: &'static str, limit: u64, processor: &Processor) -> Refusal {
        let wait = self
            .dispatcher
            .predicted_wait(processor)
            .unwrap_or(RETRY_AFTER_DEFAULT);
        let retry_after = wait.clamp(RETRY_AFTER_DEFAULT, Duration::from_mins(1));
        Refusal::QueueFull {
            what,
            limit,
            retry_after,
        }
    }

    fn append_submit(&mut self, call: CallId, submit: Box<Submit>) {
        let (id, record) = self.submit_record(&submit);
        let appended = self.bus.append(&[record], Space::Submit, Durability::Sync);
        match self.appended(appended, Space::Submit, Durability::Sync) {
            Ok(ticket) => {
                let accepted = self.now.wall;
                self.expect_waiter(submit.wait);
                self.expect_processor(&submit.processor);
                let submitting = Submitting {
                    call,
                    id,
                    submit,
                    accepted,
                    repeats: Vec::new(),
                };
                self.pending.insert(ticket, Pending::Submit(submitting));
            }
            Err(refusal) => self.refuse(call, refusal),
        }
    }

    /// A new job as it is stored, with its id.
    pub(super) fn submit_record<'a>(&mut self, submit: &'a Submit) -> (JobId, Record<'a>) {
        let id = submit.id.unwrap_or_else(|| self.ids.next_id(self.now.wall));
        let record = SubmitRecord {
            id,
            processor: submit.processor.as_str(),
            group: submit.group.as_str(),
            priority: submit.priority,
            data: &submit.payload.bytes,
            content_type: submit.payload.content_type.as_deref(),
            key: submit.key.as_deref(),
            labels: submit
                .labels
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            idempotency: submit.idempotency,
            fingerprint: submit.fingerprint,
            client_id: submit.id.is_some(),
            parent: None,
            traceparent: submit.traceparent.as_deref(),
            ttl_ms: None,
            deadline: None,
            run_at: None,
            sequence: self.ids.next_sequence(),
            accepted: self.now.wall,
        };
        (id, Record::Submit(record))
    }

    /// The job is durable, and not visible yet: its arrival comes after this.
    pub(super) fn submit_is_durable(&mut self, submitting: Submitting) {
        let Submitting {
            call,
            id,
            submit,
            accepted,
            repeats,
        } = submitting;
        self.metrics.submitted(submit.priority);
        self.unexpect_waiter(submit.wait);
        match submit.wait {
            Some(wait) if self.stopping.is_none() => {
                self.wait_for(call, id, wait, Asked::Submit { replayed: false });
            }
            _ => {
                let job = view::accepted(id, &submit, Some(accepted));
                self.answer_submit(call, job, false);
            }
        }
        self.firsts_are_durable(repeats);
    }

    pub(super) fn submit_failed(&mut self, submitting: Submitting, refusal: &Refusal) {
        self.expected_processors.remove(&submitting.submit.processor);
        self.unexpect_waiter(submitting.submit.wait);
        self.refuse(submitting.call, refusal.clone());
        self.firsts_failed(submitting.repeats, refusal);
    }

    /// The first of each of these is durable.
    pub(super) fn firsts_are_durable(&mut self, repeats: Vec<Repeat>) {
        for repeat in repeats {
            self.unexpect_waiter(repeat.wait);
            let call = match repeat.asker {
                Asker::Call(call) => call,
                Asker::Place(call, place) => {
                    self.joined(call, place, repeat.conflict);
                    continue;
                }
            };
            if let Some(conflict) = repeat.conflict {
                self.refuse(call, conflict);
                continue;
            }
            if let Some(wait) = repeat.wait.filter(|_| self.stopping.is_none()) {
                self.wait_for(call, repeat.id, wait, Asked::Submit { replayed: true });
                continue;
            }
            match self.view(repeat.id) {
                Ok(job) => self.answer_submit(call, job, true),
                Err(refusal) => self.refuse(call, refusal),
            }
        }
    }

    /// The first of each of these failed, and they share its fate.
    pub(super) fn firsts_failed(&mut self, repeats: Vec<Repeat>, refusal: &Refusal) {
        for repeat in repeats {
            self.unexpect_waiter(repeat.wait);
            match repeat.asker {
                Asker::Call(call) => self.refuse(call, refusal.clone()),
                Asker::Place(call, place) => self.joined(call, place, Some(refusal.clone())),
            }
        }
    }

    fn replay(&mut self, call: CallId, id: JobId, known: Known, submit: &Submit) {
        if let Known::Finished {
            end,
            reason,
            readable: false,
            ..
        } = known
        {
            return self.answer_submit(call, view::expired(id, submit, end, reason), true);
        }
        match (self.view(id), submit.wait) {
            (Err(refusal), _) => self.refuse(call, refusal),
            (Ok(job), Some(wait)) if job.finished_at.is_none() => {
                self.wait_for(call, id, wait, Asked::Submit { replayed: true });
            }
            (Ok(job), _) => self.answer_submit(call, job, true),
        }
    }

    pub(super) fn answer_submit(&mut self, call: CallId, job: JobView, replayed: bool) {
        self.hurried.remove(&call);
        if replayed {
            self.metrics.replayed();
        }
        let workers = self.dispatcher.workers(&job.processor);
        let did_you_mean = if workers == 0 {
            self.near_processor(&job.processor)
        } else {
            None
        };
        let submitted = Submitted {
            job,
            replayed,
            workers,
            did_you_mean,
        };
        self.port.answer(call, Answer::Submitted(Box::new(submitted)));
        self.bus.answered();
    }

    /// A processor with workers and a near name, where this one has never had a worker.
    fn near_processor(&self, processor: &Processor) -> Option<String> {
        if self.dispatcher.ever_had_worker(processor) {
            return None;
        }
        let worked = self
            .dispatcher
            .processors()
            .filter(|(other, had_worker)| *had_worker && *other != processor)
            .map(|(other, _)| other.as_str());
        nearest(processor.as_str(), worked).map(str::to_owned)
    }
}
