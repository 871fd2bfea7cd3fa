//! The shadow of a call: what was asked, when, and by when it must be answered.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jitney::driver::port::{CallId, Command, Lease as Poll, SetPolicy, Settle, SubmitMany};
use jitney::job::{JobId, Priority, Processor, Token};
use jitney::policy::{PolicyPatch, Table};

use super::leases::micros;
use super::{Checker, Verdict};
use crate::orders::{Order, OrderId};

/// What a caller or a worker asks.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Submit {
        order: Rc<Order>,
        wait: Option<Duration>,
    },
    SubmitMany {
        orders: Vec<Rc<Order>>,
        wait: Option<Duration>,
    },
    Get {
        id: JobId,
        wait: Option<Duration>,
    },
    GetMany {
        ids: Vec<JobId>,
    },
    Lease(Poll),
    Settle(Settle),
    Extend {
        token: Token,
    },
    Pause {
        processor: Processor,
        priority: Priority,
        paused: bool,
    },
    /// Sets `max_jobs` of a processor, or takes it away.
    SetPolicy {
        processor: Processor,
        max_jobs: Option<u32>,
    },
}

impl Asked {
    pub(crate) fn command(&self) -> Command {
        match self {
            Self::Submit { order, wait } => Command::Submit(Box::new(order.submit(*wait))),
            Self::SubmitMany { orders, wait } => Command::SubmitMany(Box::new(SubmitMany {
                jobs: orders.iter().map(|order| order.submit(None)).collect(),
                wait: *wait,
                patient: false,
            })),
            Self::Get { id, wait } => Command::Get { id: *id, wait: *wait },
            Self::GetMany { ids } => Command::GetMany(ids.clone()),
            Self::Lease(lease) => Command::Lease(Box::new(lease.clone())),
            Self::Settle(settle) => Command::Settle(settle.clone()),
            Self::Extend { token } => Command::Extend { token: *token },
            Self::Pause {
                processor,
                priority,
                paused,
            } => Command::Pause {
                processor: processor.clone(),
                priority: *priority,
                paused: *paused,
            },
            Self::SetPolicy { processor, max_jobs } => Command::SetPolicy(Box::new(SetPolicy {
                processor: processor.clone(),
                table: Table::Processor,
                patch: PolicyPatch {
                    max_jobs: *max_jobs,
                    ..PolicyPatch::default()
                },
                clear: vec!["max_jobs"],
            })),
        }
    }

    /// How long its answer may be held.
    pub(super) fn wait(&self) -> Option<Duration> {
        match self {
            Self::Submit { wait, .. } | Self::SubmitMany { wait, .. } | Self::Get { wait, .. } => *wait,
            Self::Lease(lease) => Some(lease.wait),
            Self::GetMany { .. }
            | Self::Settle(_)
            | Self::Extend { .. }
            | Self::Pause { .. }
            | Self::SetPolicy { .. } => None,
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submit { order, wait } => {
                write!(f, "submit {:?} {:?} wait {wait:?}", order.id, order.identity)
            }
            Self::SubmitMany { orders, wait } => {
                let ids: Vec<_> = orders.iter().map(|order| order.id.0).collect();
                write!(f, "submit many {ids:?} wait {wait:?}")
            }
            Self::Get { id, wait } => write!(f, "get {id} wait {wait:?}"),
            Self::GetMany { ids } => write!(f, "get many {ids:?}"),
            Self::Lease(lease) => write!(f, "lease {lease:?}"),
            Self::Settle(settle) => write!(f, "settle {settle:?}"),
            Self::Extend { token } => write!(f, "extend {token}"),
            Self::Pause {
                processor,
                priority,
                paused,
            } => write!(f, "pause {processor:?} {priority} {paused}"),
            Self::SetPolicy { processor, max_jobs } => write!(f, "set {processor:?} max_jobs {max_jobs:?}"),
        }
    }
}

/// A call.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) asked: Asked,
    pub(super) boot: u64,
    /// When the driver took it.
    pub(super) taken: Option<u64>,
    pub(super) gone: bool,
    /// A batch may be on its way to it.
    served: bool,
    /// How many of its orders are behind those that were appended.
    appended: usize,
}

impl Call {
    /// The poll that surely waits for a batch.
    pub(super) fn pending_poll(&self, boot: u64) -> Option<(&Poll, u64)> {
        match (&self.asked, self.taken) {
            (Asked::Lease(poll), Some(taken)) if self.boot == boot && !self.gone && !self.served => {
                (poll.settle.is_empty() && poll.not_ready.is_none()).then_some((poll, taken))
            }
            _ => None,
        }
    }

    /// The poll of this worker, if it is one.
    pub(super) fn poll_of(&self, boot: u64, worker: &str, processor: &Processor) -> Option<&Poll> {
        match &self.asked {
            Asked::Lease(poll) if self.taken.is_some() && self.boot == boot => {
                let its_own = *poll.worker == *worker && poll.processor == *processor;
                (its_own && poll.not_ready.is_none()).then_some(poll)
            }
            _ => None,
        }
    }

    /// Whether these orders may be appended for it: it asks for them, in this order, and for none of them before
    /// what was appended for it already.
    pub(super) fn asks_for(&mut self, orders: &[OrderId]) -> bool {
        if self.taken.is_none() {
            return false;
        }
        match &self.asked {
            Asked::Submit { order, .. } => orders == [order.id],
            Asked::SubmitMany { orders: asked, .. } => {
                let mut rest = asked.iter().enumerate().skip(self.appended);
                let mut behind = self.appended;
                for order in orders {
                    let Some((place, _)) = rest.find(|(_, asked)| asked.id == *order) else {
                        return false;
                    };
                    behind = place + 1;
                }
                self.appended = behind;
                true
            }
            _ => false,
        }
    }

    pub(super) fn may_be_served(&mut self, worker: &str, processor: &Processor) {
        if self.poll_of(self.boot, worker, processor).is_some() {
            self.served = true;
        }
    }
}

/// What a disk that stalls may add to any answer: a commit under way, its own, a switch of segments.
const STALL_SLACK: u64 = 40_000_000;

impl Checker {
    /// Somebody makes a call.
    pub(crate) fn sent(&mut self, call: CallId, asked: Asked) {
        let boot = self.boot;
        self.calls.insert(
            call,
            Call {
                asked,
                boot,
                taken: None,
                gone: false,
                served: false,
                appended: 0,
            },
        );
    }

    /// Its maker is gone: it may be answered or not.
    pub(crate) fn hung_up(&mut self, call: CallId) {
        if let Some(call) = self.calls.get_mut(&call) {
            call.gone = true;
        }
        self.deadlines.retain(|(_, other)| *other != call);
    }

    /// The driver took a call.
    pub(super) fn took(&mut self, now: u64, id: CallId) -> Verdict {
        let Some(call) = self.calls.get_mut(&id) else {
            return Ok(());
        };
        call.taken = Some(now);
        if let Asked::Lease(Poll {
            worker,
            request_id: Some(request),
            ..
        }) = &call.asked
        {
            // A repeated poll waits until it is known whether the first was served.
            call.served |= !self.requests.insert((Arc::clone(worker), Arc::clone(request)));
        }
        let slack = STALL_SLACK + 20 * self.plan.io_max;
        let deadline = now + call.asked.wait().map_or(0, micros) + slack;
        if !call.gone {
            self.deadlines.insert((deadline, id));
        }
        let settles = match &call.asked {
            Asked::Settle(settle) => vec![settle.clone()],
            Asked::Lease(poll) => poll.settle.clone(),
            _ => Vec::new(),
        };
        for settle in settles {
            if let Some(lease) = self.leases.get_mut(&settle.token) {
                lease.said.push(settle.body);
            }
        }
        Ok(())
    }
}
