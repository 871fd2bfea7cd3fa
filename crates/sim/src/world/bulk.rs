//! Callers with many orders at once: they submit them together, some of them twice, wait for all, ask how they are,
//! and repeat what they did not hear of.

use std::rc::Rc;

use jitney::driver::port::{Answer, CallId, Taken};
use jitney::driver::refusal::Refusal;
use jitney::job::JobId;

use super::{Happening, Owner, SECOND, World};
use crate::checker::Asked;
use crate::orders::{Identity, Order};

/// A caller with many orders.
#[derive(Debug)]
pub(super) struct Bulk {
    /// What it still submits, in its order.
    orders: Vec<Rc<Order>>,
    /// Submits that it still makes.
    tries: u32,
    /// Reads that it still makes.
    reads: u32,
    /// What it was told of.
    jobs: Vec<JobId>,
    /// The call that it waits for.
    call: Option<CallId>,
}

impl World {
    /// Somebody comes with so many orders.
    pub(super) fn new_bulk(&mut self, count: u64) {
        let mut orders: Vec<Rc<Order>> = Vec::new();
        for _ in 0..count {
            // Now and then one stands in it twice, or was submitted by somebody else.
            let again = match self.rng.below(20) {
                0 => self.rng.pick(&orders).cloned(),
                1 => self.rng.pick(&self.orders).cloned(),
                _ => None,
            };
            let order = again.filter(|order| order.identity != Identity::Anonymous);
            let order = order.unwrap_or_else(|| self.draw_order());
            orders.push(order);
        }
        let bulk = Bulk {
            orders,
            tries: u32::try_from(self.rng.range(1, 4)).unwrap_or(1),
            reads: u32::try_from(self.rng.below(3)).unwrap_or(0),
            jobs: Vec::new(),
            call: None,
        };
        self.bulks.push(bulk);
        self.after(0, Happening::Bulk(self.bulks.len() - 1));
    }

    pub(super) fn bulk_acts(&mut self, at: usize) {
        if self.bulks[at].call.is_some() {
            return;
        }
        let wait = self.draw_wait();
        let bulk = &mut self.bulks[at];
        let asked = if bulk.tries > 0 && !bulk.orders.is_empty() {
            bulk.tries -= 1;
            Asked::SubmitMany {
                orders: bulk.orders.clone(),
                wait,
            }
        } else if bulk.reads > 0 && !bulk.jobs.is_empty() {
            bulk.reads -= 1;
            Asked::GetMany {
                ids: bulk.jobs.clone(),
            }
        } else {
            return;
        };
        let call = self.call(Owner::Bulk(at), asked);
        self.bulks[at].call = Some(call);
    }

    pub(super) fn bulk_hears(&mut self, at: usize, call: CallId, answer: &Answer) {
        let bulk = &mut self.bulks[at];
        if bulk.call != Some(call) {
            return;
        }
        bulk.call = None;
        match answer {
            Answer::SubmittedMany(entries) => bulk.took(entries),
            Answer::Refused(Refusal::OutcomeUnknown) => bulk.keep_named(),
            _ => {}
        }
        let later = self.rng.skewed(0, 20 * SECOND);
        self.after(later, Happening::Bulk(at));
    }

    pub(super) fn bulk_lost(&mut self, at: usize, call: CallId) {
        let bulk = &mut self.bulks[at];
        if bulk.call != Some(call) {
            return;
        }
        bulk.call = None;
        bulk.keep_named();
        let later = self.rng.skewed(0, 20 * SECOND);
        self.after(later, Happening::Bulk(at));
    }
}

impl Bulk {
    pub(super) const fn is_waiting(&self) -> bool {
        self.call.is_some()
    }

    pub(super) const fn silence(&mut self) {
        (self.tries, self.reads) = (0, 0);
    }

    /// It may not be known what became of an anonymous order: submitting it again would make another job.
    fn keep_named(&mut self) {
        self.orders.retain(|order| order.identity != Identity::Anonymous);
    }

    /// What was refused may be tried again; of what was taken only that which is recognised.
    fn took(&mut self, entries: &[Result<Taken, Refusal>]) {
        let ids = entries.iter().flatten().map(|taken| taken.id);
        self.jobs.extend(ids);
        let mut entries = entries.iter();
        self.orders.retain(|order| {
            let named = order.identity != Identity::Anonymous;
            match entries.next() {
                Some(Ok(_) | Err(Refusal::OutcomeUnknown)) => named,
                Some(Err(Refusal::IdReused(_) | Refusal::IdempotencyKeyReused(_))) => false,
                Some(Err(_)) | None => true,
            }
        });
    }
}
