//! Many submits whose caller would rather wait than be refused: they are held until there are places to wait in.
//!
//! In: calls with `patient`. Out: the same, once as many waiters' places are free as they have jobs. They take none of
//! the last quarter, so that a long list leaves places for callers who come one by one. Nothing of a call that is held is
//! stored yet. What is held is bounded by its makers: the lines of a body that may be in flight.

use std::collections::VecDeque;

use super::Driver;
use super::port::{CallId, Port, SubmitMany};
use super::refusal::Refusal;
use crate::bus::Bus;
use crate::clock::Clock;

/// The calls that are held, in their order.
#[derive(Debug, Default)]
pub(super) struct Parked {
    calls: VecDeque<(CallId, Box<SubmitMany>)>,
}

impl Parked {
    /// Takes a call out, wherever it is.
    fn take(&mut self, call: CallId) -> Option<Box<SubmitMany>> {
        let at = self.calls.iter().position(|(other, _)| *other == call)?;
        self.calls.remove(at).map(|(_, many)| many)
    }

    /// A caller is gone: nothing of its call was done.
    pub(super) fn forget(&mut self, call: CallId) {
        drop(self.take(call));
    }
}

impl<B: Bus, C: Clock, P: Port> Driver<B, C, P> {
    /// Takes many jobs, or holds them until there are places to wait in.
    pub(super) fn park_or_submit_many(&mut self, call: CallId, many: Box<SubmitMany>) {
        let patient = many.patient && many.wait.is_some() && self.stopping.is_none();
        if patient && !(self.parked.calls.is_empty() && self.has_places(&many)) {
            self.parked.calls.push_back((call, many));
        } else {
            self.on_submit_many(call, &many);
        }
    }

    /// Takes the held calls that there are places for now.
    pub(super) fn take_parked(&mut self) {
        while let Some((_, many)) = self.parked.calls.front()
            && self.has_places(many)
            && let Some((call, many)) = self.parked.calls.pop_front()
        {
            self.on_submit_many(call, &many);
        }
    }

    /// The caller may be gone, and will not wait for places: its jobs are taken, and not waited for. Says whether the
    /// call is held.
    pub(super) fn hurry_parked(&mut self, call: CallId) -> bool {
        let Some(mut many) = self.parked.take(call) else {
            return false;
        };
        many.wait = None;
        self.on_submit_many(call, &many);
        true
    }

    pub(super) fn refuse_parked(&mut self, refusal: &Refusal) {
        for (call, _) in std::mem::take(&mut self.parked.calls) {
            self.refuse(call, refusal.clone());
        }
    }

    /// Whether as many places are free as these need; more than there can be need all of them.
    fn has_places(&self, many: &SubmitMany) -> bool {
        let places = self.limits.patient_waiters_max();
        let jobs = u64::try_from(many.jobs.len()).unwrap_or(u64::MAX);
        self.waiting().saturating_add(jobs.min(places)) <= places
    }
}
