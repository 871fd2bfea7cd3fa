//! Simulated callers: they submit, wait, ask again, hang up, and repeat themselves.

use std::rc::Rc;
use std::time::Duration;

use jitney::driver::child_id;
use jitney::driver::port::{Answer, CallId};
use jitney::driver::refusal::Refusal;
use jitney::job::{IdempotencyKey, JobId, Priority};

use super::bulk::Bulk;
use super::{Happening, Owner, SECOND, World};
use crate::checker::Asked;
use crate::orders::{Identity, Order, Work};

/// Orders of one run at most: a run stays short, and its end settles in reasonable time.
const ORDERS_MAX: usize = 600;

/// One caller with one order.
#[derive(Debug)]
pub(super) struct Caller {
    order: Rc<Order>,
    /// Submits that it still makes.
    tries: u32,
    /// Reads that it still makes.
    reads: u32,
    /// It was told which job its order is.
    job: Option<JobId>,
    /// The call that it waits for.
    call: Option<CallId>,
    /// An anonymous submit whose fate is not known is not made again: that would be another job.
    gave_up: bool,
}

impl World {
    pub(super) fn new_orders(&mut self) {
        if self.calm || self.orders.len() >= ORDERS_MAX {
            return;
        }
        let count = self.rng.range(1, self.plan.crowd_max);
        let together = self.rng.permille(self.plan.together);
        if together {
            self.new_bulk(count * 2);
        }
        for _ in 0..if together { 0 } else { count } {
            let order = self.draw_order();
            self.add_caller(Rc::clone(&order), 0);
            if order.identity != Identity::Anonymous && self.rng.permille(100) {
                // Somebody else submits the very same at nearly the same time.
                let later = self.rng.skewed(0, SECOND);
                self.add_caller(order, later);
            }
        }
        let next = self.rng.skewed(0, self.plan.order_gap * 4) + 1;
        self.after(next, Happening::NewOrders);
    }

    fn add_caller(&mut self, order: Rc<Order>, later: u64) {
        let tries = if order.identity == Identity::Anonymous {
            3
        } else {
            u32::try_from(self.rng.range(1, 6)).unwrap_or(1)
        };
        let reads = u32::try_from(self.rng.below(4)).unwrap_or(0);
        self.callers.push(Caller {
            order,
            tries,
            reads,
            job: None,
            call: None,
            gave_up: false,
        });
        self.after(later, Happening::Caller(self.callers.len() - 1));
    }

    /// Somebody with one order that nobody had before, who submits it once.
    pub(super) fn add_last_caller(&mut self) -> usize {
        let order = loop {
            let order = self.draw_order();
            if order.identity == Identity::Anonymous {
                break order;
            }
        };
        self.callers.push(Caller {
            order,
            tries: 1,
            reads: 0,
            job: None,
            call: None,
            gave_up: false,
        });
        let at = self.callers.len() - 1;
        self.caller_acts(at);
        at
    }

    /// Whether a caller was told that its order is a job.
    pub(super) fn was_accepted(&self, caller: usize) -> bool {
        self.callers
            .get(caller)
            .is_some_and(|caller| caller.job.is_some())
    }

    pub(super) fn draw_order(&mut self) -> Rc<Order> {
        let id = self.next_order_id();
        let processor = self.rng.pick(&self.plan.processors).cloned();
        let group = self.rng.pick(&self.plan.groups).cloned();
        let (Some(processor), Some(group)) = (processor, group) else {
            unreachable!("every plan has a processor and a group");
        };
        let priority = self.draw_priority();
        let mut order = Order::new(id, &processor, &group, priority, &mut self.rng);
        order.work = self.draw_work();
        let identity = match self.rng.below(10) {
            0..3 => Identity::Own(JobId(self.rng.u128().to_be_bytes())),
            3..7 => Identity::Keyed(IdempotencyKey {
                scope: 1 + self.rng.below(2),
                hash: self.rng.u128(),
            }),
            _ => Identity::Anonymous,
        };
        // Now and then somebody uses a name that stands for something else.
        let stolen = self.rng.permille(40).then(|| self.rng.index(self.orders.len()));
        let stolen = stolen
            .and_then(|at| self.orders.get(at))
            .map(|other| other.identity);
        // Or the id that a child would have.
        let childs = self.rng.permille(40).then(|| self.rng.index(self.parents.len()));
        let childs = childs.and_then(|at| self.parents.get(at));
        let childs = childs.map(|&(parent, sequence)| Identity::Own(child_id(parent, sequence, 0, 0)));
        let identity = stolen.or(childs).unwrap_or(identity);
        self.add_order(order.identified(identity))
    }

    pub(super) fn draw_priority(&mut self) -> Priority {
        if self.rng.permille(self.plan.realtime) {
            Priority::Realtime
        } else if self.rng.permille(self.plan.slow) {
            Priority::Slow
        } else {
            Priority::Normal
        }
    }

    fn draw_work(&mut self) -> Work {
        if !self.rng.permille(self.plan.mischief) {
            return Work::Succeed { children: 0 };
        }
        let times = u32::try_from(self.rng.range(1, 6)).unwrap_or(1);
        match self.rng.below(10) {
            0..3 => Work::Flaky { failures: times },
            3..5 => Work::Refuse,
            5..7 => Work::Poison { kills: times },
            _ => Work::Succeed {
                children: times.min(4),
            },
        }
    }

    pub(super) fn caller_acts(&mut self, at: usize) {
        if self.callers[at].call.is_some() || self.callers[at].gave_up {
            return;
        }
        let wait = self.draw_wait();
        let caller = &mut self.callers[at];
        let asked = match caller.job {
            Some(id) if caller.reads > 0 => {
                caller.reads -= 1;
                Asked::Get { id, wait }
            }
            _ if caller.tries > 0 => {
                caller.tries -= 1;
                Asked::Submit {
                    order: Rc::clone(&caller.order),
                    wait,
                }
            }
            _ => return,
        };
        let call = self.call(Owner::Caller(at), asked);
        self.callers[at].call = Some(call);
    }

    pub(super) fn draw_wait(&mut self) -> Option<Duration> {
        match self.rng.below(4) {
            0 => None,
            1 => Some(self.rng.millis(0, 500)),
            _ => Some(self.rng.millis(500, 60_000)),
        }
    }

    /// Callers ask for nothing more.
    pub(super) fn silence_callers(&mut self) {
        for caller in &mut self.callers {
            (caller.tries, caller.reads) = (0, 0);
        }
        self.bulks.iter_mut().for_each(Bulk::silence);
    }

    /// Every caller has its answer.
    pub(super) fn callers_are_done(&self) -> bool {
        self.callers.iter().all(|caller| caller.call.is_none()) && !self.bulks.iter().any(Bulk::is_waiting)
    }

    pub(super) fn caller_hears(&mut self, at: usize, call: CallId, answer: &Answer) {
        let caller = &mut self.callers[at];
        if caller.call != Some(call) {
            return;
        }
        caller.call = None;
        let again = match answer {
            Answer::Submitted(submitted) => {
                caller.job = Some(submitted.job.id);
                // An anonymous order was accepted: submitting it again would be a new job.
                if caller.order.identity == Identity::Anonymous {
                    caller.tries = 0;
                }
                caller.tries + caller.reads > 0
            }
            Answer::Refused(Refusal::OutcomeUnknown) => {
                caller.gave_up = caller.order.identity == Identity::Anonymous;
                true
            }
            Answer::Refused(
                Refusal::IdReused(_) | Refusal::IdempotencyKeyReused(_) | Refusal::UnknownJob,
            ) => {
                caller.gave_up = caller.job.is_none();
                false
            }
            _ => true,
        };
        if again {
            let later = self.rng.skewed(0, 20 * SECOND);
            self.after(later, Happening::Caller(at));
        }
    }

    pub(super) fn caller_lost(&mut self, at: usize, call: CallId) {
        let caller = &mut self.callers[at];
        if caller.call != Some(call) {
            return;
        }
        caller.call = None;
        caller.gave_up = caller.order.identity == Identity::Anonymous && caller.job.is_none();
        let later = self.rng.skewed(0, 20 * SECOND);
        self.after(later, Happening::Caller(at));
    }
}
