//! The checker: reads the tape and says whether a promise was broken.
//!
//! In: what callers and workers asked, and everything that passed the driver's doors. Out: the first broken
//! rule. It keeps a shadow of its own of every job, lease, call and lane, made from the contracts alone
//! (the promises, docs/state_machine.md, the durability rules of the bus), never from the code under test.

mod answers;
mod audit;
mod calls;
mod control;
mod jobs;
mod lanes;
mod leases;
mod many;
mod records;
#[cfg(test)]
mod tests;
mod why;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use jitney::bus::{Bus, Durability, Failure, Identity as BusIdentity, Ticket};
use jitney::driver::Ended;
use jitney::driver::port::CallId;
use jitney::job::{JobId, Token};
use jitney::policy::PolicyBook;

use crate::orders::{Identity, Order, OrderId};
use crate::plan::Plan;
use crate::tape::{Report, Seen, Written};
pub(crate) use calls::Asked;
use calls::Call;
use control::Control;
use jobs::Job;
use lanes::Lanes;
use leases::Lease;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its short name.
    pub rule: &'static str,
    /// What happened.
    pub detail: String,
}

/// Whether all is well.
pub(crate) type Verdict = Result<(), Violation>;

impl Violation {
    pub(crate) const fn new(rule: &'static str, detail: String) -> Self {
        Self { rule, detail }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

/// Breaks a rule.
pub(crate) fn broken(rule: &'static str, detail: impl FnOnce() -> String) -> Verdict {
    Err(Violation::new(rule, detail()))
}

/// The shadow of the whole system.
#[derive(Debug)]
pub(crate) struct Checker {
    plan: Plan,
    /// The policies in force.
    book: PolicyBook,
    orders: BTreeMap<OrderId, Rc<Order>>,
    calls: BTreeMap<CallId, Call>,
    /// By when calls must be answered.
    deadlines: BTreeSet<(u64, CallId)>,
    jobs: BTreeMap<JobId, Job>,
    /// Which job an accepted identity stands for.
    identities: HashMap<Identity, JobId>,
    leases: BTreeMap<Token, Lease>,
    /// Polls that named themselves: worker and request.
    requests: BTreeSet<(Arc<str>, Arc<str>)>,
    lanes: Lanes,
    control: Control,
    /// Appends of this boot that are not durable yet.
    pending: BTreeMap<Ticket, Vec<Effect>>,
    boot: u64,
    identity: Option<BusIdentity>,
    /// When the bus had reported everything that was pending.
    ready: Option<u64>,
    /// `Ready` came in this turn; the bus is yet to be looked into.
    audit_due: bool,
    draining: bool,
    /// A sync failed in this boot.
    poisoned: bool,
    /// The disk was full at some time in this boot, so that nothing can be said of when things go on.
    disk_full: bool,
    /// There was no room once: results may have given way.
    ever_full: bool,
    /// Power was cut since the last `Ready`.
    power: bool,
    /// Sum of the wall clock's jumps forwards so far, microseconds.
    jumped: u64,
    /// The process is gone.
    down: bool,
}

/// What an append does, once it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Submit(JobId),
    Grant(Token),
    /// Of the lease, and of this one of its dispatches.
    Mark(Token, u32),
    End(JobId),
    Back(JobId),
}

impl Checker {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            book: plan.policies.clone(),
            plan: plan.clone(),
            orders: BTreeMap::new(),
            calls: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            jobs: BTreeMap::new(),
            identities: HashMap::new(),
            leases: BTreeMap::new(),
            requests: BTreeSet::new(),
            lanes: Lanes::default(),
            control: Control::new(plan.policies.clone()),
            pending: BTreeMap::new(),
            boot: 0,
            identity: None,
            ready: None,
            audit_due: false,
            draining: false,
            poisoned: false,
            disk_full: false,
            ever_full: false,
            power: false,
            jumped: 0,
            down: true,
        }
    }

    pub(crate) fn order(&mut self, order: Rc<Order>) {
        self.orders.insert(order.id, order);
    }

    /// The wall clock went forwards: results may go sooner.
    pub(crate) fn jumped(&mut self, by: Duration) {
        self.jumped += u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
    }

    pub(crate) const fn disk_was_full(&mut self) {
        self.disk_full = true;
        self.ever_full = true;
    }

    pub(crate) fn accepted(&self) -> u64 {
        u64::try_from(self.jobs.len()).unwrap_or(u64::MAX)
    }

    /// A server starts.
    pub(crate) fn booted(&mut self, boot: u64, identity: BusIdentity) -> Verdict {
        self.boot = boot;
        self.down = false;
        (self.ready, self.audit_due, self.draining, self.poisoned) = (None, false, false, false);
        self.book = self.plan.policies.clone();
        self.lanes = Lanes::default();
        self.control.booted(self.plan.policies.clone());
        if let Some(before) = self.identity
            && (before.node != identity.node || before.epoch >= identity.epoch)
        {
            return broken("token", || format!("{identity:?} does not follow {before:?}"));
        }
        self.identity = Some(identity);
        Ok(())
    }

    /// The process ended, or with `power` the machine; both may come again before the next start.
    pub(crate) fn crashed(&mut self, now: u64, power: bool) {
        let disk_full = self.disk_full;
        self.down = true;
        self.power |= power;
        self.disk_full = false;
        self.pending.clear();
        self.control.crashed();
        self.calls.clear();
        self.deadlines.clear();
        for job in self.jobs.values_mut() {
            job.crashed();
        }
        for lease in self.leases.values_mut() {
            lease.crashed(now, power, disk_full);
        }
    }

    /// The loop ended by itself: nobody may be left without an answer.
    pub(crate) fn ended(&mut self, now: u64, ended: &Ended) -> Verdict {
        match ended {
            Ended::Poisoned if !self.poisoned => {
                return broken("poison", || {
                    "the driver ended poisoned, and no append failed".to_owned()
                });
            }
            Ended::Stopped if !self.draining => {
                return broken("stop", || "the driver stopped unasked".to_owned());
            }
            _ => {}
        }
        let left = self
            .calls
            .iter()
            .find(|(_, call)| call.taken.is_some() && !call.gone && call.boot == self.boot);
        match left {
            Some((id, call)) => broken("unanswered", || {
                format!("{id:?} {} at the end ({ended:?}, {now})", call.asked)
            }),
            None => Ok(()),
        }
    }

    /// One thing on the tape.
    pub(crate) fn seen(&mut self, now: u64, seen: &Seen) -> Verdict {
        match seen {
            Seen::Call(call) => self.took(now, *call),
            Seen::Gone(call) => {
                self.hung_up(*call);
                Ok(())
            }
            Seen::Delivered(tokens) => {
                self.delivered(now, tokens);
                Ok(())
            }
            Seen::Undelivered(tokens) => {
                self.undelivered(tokens);
                Ok(())
            }
            Seen::Policies(book) => {
                self.configured(book);
                Ok(())
            }
            Seen::Stop => {
                self.draining = true;
                Ok(())
            }
            Seen::Answer(call, answer) => self.answered(now, *call, answer),
            Seen::Append {
                records,
                durability,
                result,
            } => {
                synced(records, *durability)?;
                if result.is_ok() {
                    self.asked_for(records)?;
                }
                self.appended(now, records, result)
            }
            Seen::Bus(report) => self.reported(now, report),
        }
    }

    fn reported(&mut self, now: u64, report: &Report) -> Verdict {
        if self.poisoned && matches!(report, Report::Durable(_)) {
            return broken("poison", || format!("{report:?} after a failed sync"));
        }
        match report {
            Report::Written(ticket) => self.written(*ticket),
            Report::Durable(ticket) => {
                self.control.durable(*ticket);
                self.durable(now, *ticket)
            }
            Report::Failed(ticket, failure) => {
                self.control.failed(*ticket, *failure);
                self.poisoned |= *failure == Failure::Unknown;
                self.failed(*ticket, *failure);
                Ok(())
            }
            Report::Arrived {
                id,
                attempts,
                crashes,
                fresh,
                due,
            } => self.arrived(now, *id, (*attempts, *crashes), *fresh, *due),
            Report::Leased(restored) => self.restored(now, restored),
            Report::Outcome(id) => self.outcome_reported(*id),
            Report::Ready => {
                self.audit_settings()?;
                self.ready = Some(now);
                self.audit_due = true;
                Ok(())
            }
            Report::Gone(id) => broken("phantom", || format!("{id} is said to be another node's")),
            Report::Broken => {
                self.poisoned = true;
                Ok(())
            }
            Report::Setting(name, value) => self.setting_reported(name, value),
            Report::SpaceReturned | Report::Closed => Ok(()),
        }
    }

    /// The driver has nothing more to do at this instant.
    pub(crate) fn turned(&mut self, now: u64, bus: &dyn Bus, ended: bool) -> Verdict {
        self.control.turned();
        if std::mem::take(&mut self.audit_due) {
            self.settle_maybes(now, bus)?;
            self.power = false;
        }
        if ended || self.ready.is_none() || self.disk_full || self.draining || self.poisoned {
            return Ok(());
        }
        self.nobody_is_stuck(now)
    }

    /// Time went by.
    pub(crate) fn tick(&mut self, now: u64) -> Verdict {
        if self.down {
            return Ok(());
        }
        match self.deadlines.first() {
            Some((deadline, call)) if *deadline < now => {
                let asked = self
                    .calls
                    .get(call)
                    .map_or_else(String::new, |call| call.asked.to_string());
                broken("unanswered", || {
                    format!("{call:?} {asked} is overdue since {deadline}")
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether everything that is known to be durable has ended, durably.
    pub(crate) fn all_settled(&self) -> bool {
        self.ready.is_some() && !self.down && self.jobs.values().all(Job::is_settled)
    }

    /// The jobs that have not, for a person.
    pub(crate) fn unsettled(&self) -> String {
        let open: Vec<_> = self.jobs.iter().filter(|(_, job)| !job.is_settled()).collect();
        let first: Vec<_> = open
            .iter()
            .take(3)
            .map(|(id, job)| format!("{id} {job:?}"))
            .collect();
        format!("{} jobs, such as {}", open.len(), first.join("; "))
    }

    /// Some job that is known, for workers that name what is not theirs.
    pub(crate) fn any_job(&self, not_of: Token, random: u64) -> Option<JobId> {
        let count = u64::try_from(self.jobs.len()).ok()?;
        let at = usize::try_from(random.checked_rem(count)?).ok()?;
        let own = self.leases.get(&not_of).map(|lease| &lease.jobs);
        let found = self.jobs.keys().nth(at).copied();
        found.filter(|id| own.is_none_or(|own| !own.contains(id)))
    }
}

/// What is promised to somebody is synced; what only saves work may be written and no more.
fn synced(records: &[Written], durability: Durability) -> Verdict {
    let promise = |record: &&Written| !matches!(record, Written::Dispatch { .. } | Written::Delivered(_));
    match records.iter().find(promise) {
        Some(record) if durability == Durability::Write => {
            broken("durable", || format!("{record:?} is not synced"))
        }
        _ => Ok(()),
    }
}
