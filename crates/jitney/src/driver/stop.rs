//! A graceful stop: refuse new work, answer who need not wait, let leased jobs settle, close the bus.

use std::time::Duration;

use super::Driver;
use super::port::Port;
use super::refusal::Refusal;
use crate::bus::Bus;
use crate::clock::{Clock, Mono, after};
use crate::dispatcher::event::Event;
use crate::job::State;

/// A stop in progress.
#[derive(Debug)]
pub(super) struct Stopping {
    /// When callers of leased jobs are answered with their job as it is.
    grace_ends: Mono,
    /// The bus was asked to close.
    closing: bool,
}

impl Stopping {
    /// When the grace ends, while that still matters.
    pub(super) fn next_timer(&self) -> Option<Mono> {
        (!self.closing).then_some(self.grace_ends)
    }
}

impl<B: Bus, C: Clock, P: Port> Driver<B, C, P> {
    pub(super) fn on_stop(&mut self, grace: Duration) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Stopping {
            grace_ends: after(self.now.mono, grace),
            closing: false,
        });
        self.step(Event::Drain);
        self.refuse_changes(&Refusal::Draining);
        self.refuse_parked(&Refusal::Draining);
    }

    /// A caller waits through a stop only while a worker is at its job.
    fn answer_who_need_not_wait(&mut self) {
        for waiter in self.waiters.calls() {
            let running = self
                .dispatcher
                .job(waiter.job)
                .is_some_and(|job| job.state == State::Running);
            if !running {
                self.waiters.remove(waiter.call);
                self.answer_waiter(waiter);
            }
        }
        self.stop_waiting_for_many(true);
    }

    /// Closes the bus once nothing is leased or in flight, or the grace is over.
    pub(super) fn keep_stopping(&mut self) {
        let Some(stopping) = &self.stopping else { return };
        let grace_over = stopping.grace_ends <= self.now.mono;
        let quiet = self.dispatcher.leased_jobs() == 0 && self.pending.is_empty() && !self.control.is_busy();
        let closing = stopping.closing;
        self.answer_who_need_not_wait();
        if closing || !(quiet || grace_over) {
            return;
        }
        for waiter in self.waiters.calls() {
            self.waiters.remove(waiter.call);
            self.answer_waiter(waiter);
        }
        self.stop_waiting_for_many(false);
        self.marks_due = self.marks_due.map(|_| self.now.mono);
        self.write_marks();
        self.bus.close();
        if let Some(stopping) = &mut self.stopping {
            stopping.closing = true;
        }
    }
}
