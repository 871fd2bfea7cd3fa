//! Taking many jobs at once: each is recognised, admitted and answered on its own, and they share commits.
//!
//! In: one call with many submits. Out: one answer, with an entry for each in their order, once all that was
//! appended is durable and, with `wait`, every job has ended or the time is up. New jobs are appended in
//! chunks, each one unit: a limit that a chunk meets is met by its jobs one by one, so that none fails for
//! another's sake. A job that is waited for takes a waiter's place, as a caller of its own would.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use super::port::{Answer, CallId, Port, Submit, SubmitMany, Taken};
use super::refusal::Refusal;
use super::submit::{Asker, Recognised, Repeat};
use super::view;
use super::{Driver, Pending};
use crate::bus::{AppendError, Bus, Durability, Known, Record, Space, Ticket, Usage};
use crate::clock::{Clock, Mono, after};
use crate::job::{IdempotencyKey, JobId, Processor, State, Status};
use crate::mutants::{Mutant, active};

/// Jobs of one append at most: one commit's group takes them whole, and its latency stays bounded.
const CHUNK_JOBS_MAX: usize = 1_000;

/// Bytes of records of one append at most, for the same reason.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Results of one answer to a get of many, bytes; the one that goes beyond is the last.
const VIEWS_BYTES_MAX: usize = 4 << 20;

/// The calls that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct ManyCalls {
    calls: HashMap<CallId, ManyCall>,
    /// Who waits for a job: calls, and the place of the job in each.
    by_job: HashMap<JobId, Vec<(CallId, usize)>>,
    /// When the waits of the calls end whose jobs are all durable.
    by_end: BTreeSet<(Mono, CallId)>,
    /// Places in `by_job`.
    waiting: usize,
}

#[derive(Debug)]
struct ManyCall {
    /// What each job is answered with, as far as it is known.
    entries: Vec<Result<Taken, Refusal>>,
    /// Appends of this call, and places that joined another's, that are not durable yet.
    in_flight: usize,
    /// Places that wait for the outcome of their job.
    waiting: usize,
    wait: Option<Duration>,
    /// When the wait ends; `None` while something is in flight.
    until: Option<Mono>,
    /// When it ends at the latest, as its caller may be gone.
    hurried: Option<Mono>,
}

/// An append with some of a call's jobs.
pub(super) struct SubmittingMany {
    call: CallId,
    /// Which of them.
    places: Vec<usize>,
    /// How many of each priority.
    counts: [u64; 3],
    /// Processors of which one of these is the first job.
    processors: Vec<Processor>,
    wait: Option<Duration>,
    /// Submits under the same ids or keys that came meanwhile.
    pub repeats: Vec<Repeat>,
}

/// A call while its jobs are looked at one by one.
struct Taking<'a> {
    call: CallId,
    wait: Option<Duration>,
    entries: Vec<Result<Taken, Refusal>>,
    in_flight: usize,
    waiting: usize,
    /// How full the bus is, this call's jobs included.
    usage: Usage,
    /// The last processor that there was room for.
    admitted: Option<&'a Processor>,
    chunk: Chunk<'a>,
}

/// New jobs that are appended next.
#[derive(Default)]
struct Chunk<'a> {
    records: Vec<Record<'a>>,
    submits: Vec<(usize, &'a Submit)>,
    bytes: usize,
    /// What would be recognised if the chunk were appended already.
    ids: HashSet<JobId>,
    keys: HashSet<IdempotencyKey>,
}

impl ManyCalls {
    /// Places that wait, over all calls.
    pub(super) const fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn next_end(&self) -> Option<Mono> {
        self.by_end.first().map(|(until, _)| *until)
    }

    /// Lets the wait of a call end no later than this. Says whether there is that call.
    pub(super) fn hurry(&mut self, call: CallId, hurried: Mono) -> bool {
        let Some(many) = self.calls.get_mut(&call) else {
            return false;
        };
        many.hurried = Some(hurried);
        if let Some(until) = many.until.filter(|until| hurried < *until) {
            self.by_end.remove(&(until, call));
            self.by_end.insert((hurried, call));
            many.until = Some(hurried);
        }
        true
    }

    /// A caller is gone. What is in flight for it goes on.
    pub(super) fn forget(&mut self, call: CallId) {
        drop(self.take(call));
    }

    /// Takes all calls out, in their order.
    pub(super) fn take_calls(&mut self) -> Vec<CallId> {
        let mut calls: Vec<_> = self.calls.keys().copied().collect();
        calls.sort_unstable();
        for call in &calls {
            self.forget(*call);
        }
        calls
    }

    /// Takes a call out, wherever it is.
    fn take(&mut self, call: CallId) -> Option<ManyCall> {
        let mut many = self.calls.remove(&call)?;
        if let Some(until) = many.until {
            self.by_end.remove(&(until, call));
        }
        self.release(call, &mut many, false, |_| None);
        Some(many)
    }

    /// Lets a call wait no longer for its jobs, or only not for those that no worker is at. `state` says where
    /// a job is, where that is known.
    fn release(
        &mut self,
        call: CallId,
        many: &mut ManyCall,
        keep_running: bool,
        state: impl Fn(JobId) -> Option<State>,
    ) {
        if many.waiting == 0 {
            return;
        }
        for (place, entry) in many.entries.iter_mut().enumerate() {
            let Ok(taken) = entry else { continue };
            let Some(waiting) = self.by_job.get_mut(&taken.id) else {
                continue;
            };
            let Some(at) = waiting.iter().position(|other| *other == (call, place)) else {
                continue;
            };
            let state = state(taken.id);
            if keep_running && state == Some(State::Running) {
                continue;
            }
            waiting.remove(at);
            if waiting.is_empty() {
                self.by_job.remove(&taken.id);
            }
            self.waiting -= 1;
            many.waiting -= 1;
            taken.state = state.unwrap_or(taken.state);
        }
    }

    /// Somebody waits for a job.
    fn register(&mut self, call: CallId, place: usize, job: JobId) {
        self.by_job.entry(job).or_default().push((call, place));
        self.waiting += 1;
    }
}

impl Chunk<'_> {
    /// Whether the bus will recognise this submit once the chunk is appended.
    fn names(&self, submit: &Submit) -> bool {
        submit.id.is_some_and(|id| self.ids.contains(&id))
            || submit.idempotency.is_some_and(|key| self.keys.contains(&key))
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.records.is_empty()
            || (self.records.len() < CHUNK_JOBS_MAX && self.bytes.saturating_add(bytes) <= CHUNK_BYTES_MAX)
    }
}

impl<B: Bus, C: Clock, P: Port> Driver<B, C, P> {
    pub(super) fn on_submit_many(&mut self, call: CallId, many: &SubmitMany) {
        if self.stopping.is_some() {
            return self.refuse(call, Refusal::Draining);
        }
        let mut taking = Taking {
            call,
            wait: many.wait,
            entries: Vec::with_capacity(many.jobs.len()),
            in_flight: 0,
            waiting: 0,
            usage: self.bus.usage(),
            admitted: None,
            chunk: Chunk::default(),
        };
        for submit in &many.jobs {
            let entry = self.take_one(&mut taking, submit);
            taking.entries.push(entry);
        }
        self.append_chunk(&mut taking);
        let many = ManyCall {
            entries: taking.entries,
            in_flight: taking.in_flight,
            waiting: taking.waiting,
            wait: taking.wait,
            until: None,
            hurried: None,
        };
        self.many.calls.insert(call, many);
        self.go_on(call);
    }

    /// Recognises one job, admits it, and puts it into the chunk, or says at once what becomes of it.
    fn take_one<'a>(&mut self, taking: &mut Taking<'a>, submit: &'a Submit) -> Result<Taken, Refusal> {
        if !submit.is_named() {
            return self.take_new(taking, submit);
        }
        if taking.chunk.names(submit) && !active(Mutant::RepeatAmongMany) {
            self.append_chunk(taking);
        }
        match self.recognise(submit) {
            Recognised::New => self.take_new(taking, submit),
            Recognised::InFlight(id, ticket, conflict) => {
                let repeat = Repeat {
                    asker: Asker::Place(taking.call, taking.entries.len()),
                    id,
                    wait: taking.wait.filter(|_| conflict.is_none()),
                    conflict,
                };
                self.join(ticket, repeat)?;
                taking.in_flight += 1;
                Ok(Taken {
                    replayed: true,
                    ..queued(id)
                })
            }
            Recognised::Known(id, known) => self.take_known(taking, id, known),
            Recognised::Conflict(refusal) => Err(refusal),
        }
    }

    fn take_new<'a>(&mut self, taking: &mut Taking<'a>, submit: &'a Submit) -> Result<Taken, Refusal> {
        self.admit(submit, taking.wait, &taking.usage)?;
        if taking.admitted != Some(&submit.processor) {
            self.admit_processor(&submit.processor, &HashSet::new())?;
        }
        let (id, record) = self.submit_record(submit);
        let bytes = record.bytes_max();
        if !taking.chunk.has_room(bytes) {
            self.append_chunk(taking);
        }
        if taking.admitted != Some(&submit.processor) {
            self.expect_processor(&submit.processor);
            taking.admitted = Some(&submit.processor);
        }
        self.expect_waiter(taking.wait);
        let chunk = &mut taking.chunk;
        if submit.is_named() {
            chunk.ids.extend(submit.id);
            chunk.keys.extend(submit.idempotency);
            taking.usage.keys += 1;
        }
        taking.usage.unsettled += 1;
        chunk.bytes += bytes;
        chunk.records.push(record);
        chunk.submits.push((taking.entries.len(), submit));
        Ok(queued(id))
    }

    fn take_known(&mut self, taking: &mut Taking<'_>, id: JobId, known: Known) -> Result<Taken, Refusal> {
        let (status, state) = match known {
            Known::Finished { end, reason, .. } => (end.into(), view::end_state(reason)),
            Known::Submitting { .. } | Known::Unsettled { .. } => {
                if taking.wait.is_some() {
                    self.admit_waiter(taking.wait)?;
                    self.many.register(taking.call, taking.entries.len(), id);
                    taking.waiting += 1;
                }
                (Status::Submitted, self.state_of(id).unwrap_or(State::Queued))
            }
        };
        self.metrics.replayed();
        Ok(Taken {
            id,
            status,
            state,
            replayed: true,
        })
    }

    /// Appends what is in the chunk. A limit of the bus that the chunk meets as a whole is met by its jobs one by
    /// one.
    fn append_chunk(&mut self, taking: &mut Taking<'_>) {
        let chunk = std::mem::take(&mut taking.chunk);
        if chunk.records.is_empty() {
            return;
        }
        let appended = self.bus.append(&chunk.records, Space::Submit, Durability::Sync);
        match appended {
            Err(AppendError::TooLarge { .. } | AppendError::KeysFull) if chunk.records.len() > 1 => {
                for (record, submit) in chunk.records.iter().zip(&chunk.submits) {
                    let appended =
                        self.bus
                            .append(std::slice::from_ref(record), Space::Submit, Durability::Sync);
                    self.chunk_appended(taking, std::slice::from_ref(submit), appended);
                }
            }
            appended => self.chunk_appended(taking, &chunk.submits, appended),
        }
    }

    fn chunk_appended(
        &mut self,
        taking: &mut Taking<'_>,
        submits: &[(usize, &Submit)],
        appended: Result<Ticket, AppendError>,
    ) {
        let mut submitting = SubmittingMany {
            call: taking.call,
            places: submits.iter().map(|(place, _)| *place).collect(),
            counts: [0; 3],
            processors: Vec::new(),
            wait: taking.wait,
            repeats: Vec::new(),
        };
        for (_, submit) in submits {
            submitting.counts[submit.priority.index()] += 1;
            if self.expected_processors.contains(&submit.processor)
                && submitting.processors.last() != Some(&submit.processor)
            {
                submitting.processors.push(submit.processor.clone());
            }
        }
        match self.appended(appended, Space::Submit, Durability::Sync) {
            Ok(ticket) => {
                taking.in_flight += 1;
                self.pending.insert(ticket, Pending::SubmitMany(submitting));
            }
            Err(refusal) => {
                self.unexpect_many(&submitting);
                self.forget_processors(submitting.processors);
                taking.admitted = None;
                for place in submitting.places {
                    taking.entries[place] = Err(refusal.clone());
                }
            }
        }
    }

    /// Gives the waiters' places back that were kept for these.
    fn unexpect_many(&mut self, submitting: &SubmittingMany) {
        for _ in &submitting.places {
            self.unexpect_waiter(submitting.wait);
        }
    }

    fn forget_processors(&mut self, processors: Vec<Processor>) {
        for processor in processors {
            self.expected_processors.remove(&processor);
        }
    }

    /// The jobs of an append are durable, and not visible yet: their arrivals come after this.
    pub(super) fn many_are_durable(&mut self, submitting: SubmittingMany) {
        self.metrics.submitted_many(submitting.counts);
        self.unexpect_many(&submitting);
        if let Some(mut many) = self.many.calls.remove(&submitting.call) {
            for place in submitting.places {
                self.wait_at(submitting.call, &mut many, place);
            }
            many.in_flight -= 1;
            self.many.calls.insert(submitting.call, many);
            self.go_on(submitting.call);
        }
        self.firsts_are_durable(submitting.repeats);
    }

    pub(super) fn many_failed(&mut self, submitting: SubmittingMany, refusal: &Refusal) {
        self.unexpect_many(&submitting);
        self.forget_processors(submitting.processors);
        if let Some(many) = self.many.calls.get_mut(&submitting.call) {
            for place in submitting.places {
                many.entries[place] = Err(refusal.clone());
            }
            many.in_flight -= 1;
            self.go_on(submitting.call);
        }
        self.firsts_failed(submitting.repeats, refusal);
    }

    /// The first of the job at this place is durable, or this refusal is what became of it.
    pub(super) fn joined(&mut self, call: CallId, place: usize, refusal: Option<Refusal>) {
        let Some(mut many) = self.many.calls.remove(&call) else {
            return;
        };
        match refusal {
            Some(refusal) => many.entries[place] = Err(refusal),
            None => {
                self.metrics.replayed();
                self.wait_at(call, &mut many, place);
            }
        }
        many.in_flight -= 1;
        self.many.calls.insert(call, many);
        self.go_on(call);
    }

    /// Registers a waiter for a job that is durable, before it can be seen by a worker.
    fn wait_at(&mut self, call: CallId, many: &mut ManyCall, place: usize) {
        if let Ok(taken) = &many.entries[place]
            && many.wait.is_some()
            && self.stopping.is_none()
        {
            self.many.register(call, place, taken.id);
            many.waiting += 1;
        }
    }

    /// Answers a call if nothing of it is in flight or waited for; starts its wait if nothing is in flight.
    fn go_on(&mut self, call: CallId) {
        let Some(many) = self.many.calls.get_mut(&call) else {
            return;
        };
        if many.in_flight > 0 {
            return;
        }
        if many.waiting > 0 {
            if many.until.is_none() {
                let until = after(self.now.mono, many.wait.unwrap_or_default());
                let until = many.hurried.map_or(until, |hurried| hurried.min(until));
                many.until = Some(until);
                self.many.by_end.insert((until, call));
            }
            return;
        }
        if let Some(many) = self.many.take(call) {
            self.port.answer(call, Answer::SubmittedMany(many.entries));
        }
    }

    /// A job has ended: whoever waits for it among others waits for one less.
    pub(super) fn wake_many(&mut self, id: JobId) {
        let Some(waiting) = self.many.by_job.remove(&id) else {
            return;
        };
        self.many.waiting -= waiting.len();
        let ended = match self.bus.find(id) {
            Some(Known::Finished { end, reason, .. }) => Some((Status::from(end), view::end_state(reason))),
            _ => None,
        };
        for (call, place) in waiting {
            let Some(many) = self.many.calls.get_mut(&call) else {
                continue;
            };
            if let (Ok(taken), Some((status, state))) = (&mut many.entries[place], ended) {
                (taken.status, taken.state) = (status, state);
            }
            many.waiting -= 1;
            if active(Mutant::FirstOfMany) {
                self.stop_waiting(call, false);
            }
            self.go_on(call);
        }
    }

    /// Answers the calls whose time is up.
    pub(super) fn expire_many(&mut self) {
        while let Some((_, call)) = self
            .many
            .by_end
            .first()
            .copied()
            .filter(|(until, _)| *until <= self.now.mono)
        {
            self.stop_waiting(call, false);
        }
    }

    /// A stop has begun: nobody waits for a job that no worker is at, or for any.
    pub(super) fn stop_waiting_for_many(&mut self, keep_running: bool) {
        if self.many.waiting == 0 {
            return;
        }
        let mut calls: Vec<_> = self.many.calls.keys().copied().collect();
        calls.sort_unstable();
        for call in calls {
            self.stop_waiting(call, keep_running);
        }
    }

    fn stop_waiting(&mut self, call: CallId, keep_running: bool) {
        let Some(mut many) = self.many.calls.remove(&call) else {
            return;
        };
        let dispatcher = &self.dispatcher;
        let state = |id| dispatcher.job(id).map(|job| job.state);
        self.many.release(call, &mut many, keep_running, state);
        self.many.calls.insert(call, many);
        self.go_on(call);
    }

    /// Shows jobs as they are, as many as one answer takes.
    pub(super) fn on_get_many(&mut self, call: CallId, ids: &[JobId]) {
        let mut jobs = Vec::with_capacity(ids.len());
        let mut bytes = 0;
        for id in ids {
            let job = self.view(*id);
            let result = job.as_ref().ok().and_then(|job| job.result.as_ref());
            bytes += result.map_or(0, |result| result.bytes.len());
            jobs.push(job);
            if bytes >= VIEWS_BYTES_MAX {
                break;
            }
        }
        self.port.answer(call, Answer::Jobs(jobs));
    }

    fn state_of(&self, id: JobId) -> Option<State> {
        self.dispatcher.job(id).map(|job| job.state)
    }
}

/// A job that was taken just now.
const fn queued(id: JobId) -> Taken {
    Taken {
        id,
        status: Status::Submitted,
        state: State::Queued,
        replayed: false,
    }
}
