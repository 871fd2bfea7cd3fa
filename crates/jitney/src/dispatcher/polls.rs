//! Pending polls: who waits for batches, since when, and which poll is a repeat of which.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Mono;
use crate::dispatcher::Dispatcher;
use crate::dispatcher::closing::Limits;
use crate::dispatcher::event::{Action, Grant, Poll, PollId};
use crate::dispatcher::timers::Timer;
use crate::job::{Priority, Token};
use crate::mutants::{Mutant, active};

/// What a poll asks for. Polls that ask for the same are served in turn, so only the first of them is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    pub(super) priorities: [bool; 3],
    pub(super) max_jobs: u32,
    pub(super) max_bytes: u64,
}

impl Class {
    pub(super) const fn limits(&self) -> Limits {
        Limits {
            jobs: self.max_jobs,
            bytes: self.max_bytes,
        }
    }
}

/// A poll that waits.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) processor: usize,
    pub(super) class: Class,
    /// Its place in the order of waiting.
    pub(super) order: u64,
    pub(super) worker: Arc<str>,
    pub(super) in_process: bool,
    pub(super) slots: u32,
    until: Mono,
    pub(super) request: Option<RequestKey>,
    /// It takes no batch.
    not_ready: bool,
}

/// A worker whose program cannot start.
#[derive(Debug)]
pub(super) struct NotReady {
    /// How many of its polls say so.
    polls: u32,
    /// Why, as the latest of them says.
    pub(super) reason: Arc<str>,
}

/// Names a worker's request: processor, worker, its own id of the poll.
pub(super) type RequestKey = (usize, Arc<str>, Arc<str>);

/// What is kept of a request.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// Its poll, while that waits.
    poll: Option<PollId>,
    /// What it was given and still remembers.
    leases: Vec<Token>,
}

impl Dispatcher {
    pub(super) fn poll(&mut self, poll: Poll, actions: &mut Vec<Action>) {
        let processor = self.processor(&poll.processor);
        self.processors[processor].ever_worked = true;
        // One that takes no batch has none to be given again.
        let named = poll.request_id.filter(|_| poll.not_ready.is_none());
        let request = named.map(|id| (processor, poll.worker.clone(), id));
        let earlier = request.as_ref().and_then(|key| self.requests.get(key)?.poll);
        for replaced in earlier.into_iter().chain([poll.id]) {
            self.answer_empty(replaced, actions);
        }
        if self.draining {
            actions.push(Action::Answer {
                poll: poll.id,
                grants: Vec::new(),
            });
            return;
        }
        if let Some(key) = &request {
            self.requests.entry(key.clone()).or_default().poll = Some(poll.id);
        }
        match &poll.not_ready {
            None => self.hold_worker(processor, &poll.worker),
            Some(reason) => self.worker_not_ready(processor, &poll.worker, reason),
        }
        self.timers.set(poll.until, Timer::Poll(poll.id));
        self.polled += 1;
        let pending = Pending {
            processor,
            class: Class {
                priorities: poll.priorities,
                max_jobs: poll.max_jobs.unwrap_or(u32::MAX).max(1),
                max_bytes: poll.max_bytes.unwrap_or(u64::MAX),
            },
            order: self.polled,
            worker: poll.worker,
            in_process: poll.in_process,
            slots: poll.slots.max(1),
            until: poll.until,
            request,
            not_ready: poll.not_ready.is_some(),
        };
        let ready = !pending.not_ready;
        self.polls.insert(poll.id, pending);
        if ready || active(Mutant::ServeNotReady) {
            self.admit(poll.id, actions);
        }
    }

    /// L11, L13: a poll that repeats gets its leases again. Otherwise it stands in line, but not while it is
    /// open whether a lease of its request will have been handed out.
    fn admit(&mut self, id: PollId, actions: &mut Vec<Action>) {
        let Some(pending) = self.polls.get(&id) else {
            return;
        };
        let (processor, class, order) = (pending.processor, pending.class, pending.order);
        let pending_slots = pending.slots;
        let tokens = pending.request.as_ref().and_then(|key| self.requests.get(key));
        let tokens = tokens.map_or_else(Vec::new, |request| request.leases.clone());
        if tokens.iter().any(|token| self.is_granting(*token)) {
            return;
        }
        if !tokens.is_empty() && self.outgoing.is_full() {
            self.held_up.insert(id);
            return;
        }
        let grants: Vec<Grant> = tokens
            .into_iter()
            .filter_map(|token| self.grant_again(token))
            .collect();
        if grants.is_empty() {
            let (slots, realtime) = (
                u64::from(pending_slots),
                class.priorities[Priority::Realtime.index()],
            );
            let state = &mut self.processors[processor];
            let new = state
                .classes
                .entry(class)
                .or_default()
                .insert(order, id)
                .is_none();
            if new && realtime {
                state.free += slots;
            }
            self.touched.insert(processor);
        } else {
            self.take_poll(id);
            actions.push(Action::Answer { poll: id, grants });
        }
    }

    /// The poll that waits for this request, if one does, may go on before this step ends.
    pub(super) fn readmit(&mut self, request: Option<&RequestKey>) {
        let request = request.and_then(|key| self.requests.get(key));
        self.readmitted.extend(request.and_then(|request| request.poll));
    }

    pub(super) fn admit_again(&mut self, actions: &mut Vec<Action>) {
        while let Some(poll) = self.readmitted.pop_first() {
            self.admit(poll, actions);
        }
    }

    pub(super) fn poll_gone(&mut self, id: PollId) {
        self.take_poll(id);
    }

    pub(super) fn drain(&mut self, actions: &mut Vec<Action>) {
        self.draining = true;
        let by_order: BTreeMap<u64, PollId> = self.polls.iter().map(|(&id, poll)| (poll.order, id)).collect();
        for id in by_order.into_values() {
            self.answer_empty(id, actions);
        }
    }

    /// Answers those that still wait although their time is over.
    pub(super) fn end_polls(&mut self, ended: &[PollId], actions: &mut Vec<Action>) {
        for &id in ended.iter().filter(|_| !active(Mutant::KeepPoll)) {
            self.answer_empty(id, actions);
        }
        if !ended.is_empty() {
            self.serve(actions);
        }
    }

    fn answer_empty(&mut self, id: PollId, actions: &mut Vec<Action>) {
        if self.take_poll(id).is_some() {
            actions.push(Action::Answer {
                poll: id,
                grants: Vec::new(),
            });
        }
    }

    /// Removes a poll from everywhere.
    pub(super) fn take_poll(&mut self, id: PollId) -> Option<Pending> {
        let pending = self.polls.remove(&id)?;
        self.timers.clear(pending.until, Timer::Poll(id));
        let state = &mut self.processors[pending.processor];
        if let Some(class) = state.classes.get_mut(&pending.class) {
            let stood = class.remove(&pending.order).is_some();
            if class.is_empty() {
                state.classes.remove(&pending.class);
            }
            if stood && pending.class.priorities[Priority::Realtime.index()] {
                state.free -= u64::from(pending.slots);
            }
        }
        self.touched.insert(pending.processor);
        if pending.not_ready {
            self.worker_may_be_ready(pending.processor, &pending.worker);
        } else {
            self.release_worker(pending.processor, &pending.worker);
        }
        if let Some(key) = &pending.request {
            if let Some(request) = self.requests.get_mut(key) {
                request.poll = None;
            }
            self.tidy_request(key);
        }
        Some(pending)
    }

    /// Remembers that this request was given this lease.
    pub(super) fn join_request(&mut self, key: &RequestKey, token: Token) {
        self.requests.entry(key.clone()).or_default().leases.push(token);
    }

    /// Forgets that lease of the request.
    pub(super) fn leave_request(&mut self, key: &RequestKey, token: Token) {
        if let Some(request) = self.requests.get_mut(key) {
            request.leases.retain(|&other| other != token);
        }
        self.tidy_request(key);
    }

    fn tidy_request(&mut self, key: &RequestKey) {
        let empty = |request: &Request| request.poll.is_none() && request.leases.is_empty();
        if self.requests.get(key).is_some_and(empty) {
            self.requests.remove(key);
        }
    }

    /// The worker polls, or holds a lease, once more.
    pub(super) fn hold_worker(&mut self, processor: usize, worker: &Arc<str>) {
        let workers = &mut self.processors[processor].workers;
        *workers.entry(worker.clone()).or_insert(0) += 1;
    }

    /// One poll more says that the worker's program cannot start.
    fn worker_not_ready(&mut self, processor: usize, worker: &Arc<str>, reason: &Arc<str>) {
        let workers = &mut self.processors[processor].not_ready;
        let said = workers.entry(worker.clone()).or_insert_with(|| NotReady {
            polls: 0,
            reason: Arc::clone(reason),
        });
        said.polls += 1;
        said.reason = Arc::clone(reason);
    }

    /// One poll less says so.
    fn worker_may_be_ready(&mut self, processor: usize, worker: &Arc<str>) {
        let workers = &mut self.processors[processor].not_ready;
        if let Some(said) = workers.get_mut(worker) {
            said.polls -= 1;
            if said.polls == 0 {
                workers.remove(worker);
            }
        }
    }

    /// The worker polls, or holds a lease, once less.
    pub(super) fn release_worker(&mut self, processor: usize, worker: &Arc<str>) {
        let workers = &mut self.processors[processor].workers;
        if let Some(held) = workers.get_mut(worker) {
            *held -= 1;
            if *held == 0 {
                workers.remove(worker);
                self.touched.insert(processor);
            }
        }
    }
}
