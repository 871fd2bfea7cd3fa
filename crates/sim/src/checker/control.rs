//! The shadow of what an operator changes: paused lanes and policies. A change is told when it is durable and in
//! force; after a restart exactly the durable ones are there, before any job; and once a pause was answered nothing
//! of its lane is handed out until somebody asks for a resume.
//!
//! How a policy that was set lies under the file's is jitney's own code; what the checker judges is what then holds.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jitney::bus::{Failure, Ticket};
use jitney::job::{Priority, Processor};
use jitney::policy::{Policies, PolicyBook, PolicyPatch, Table};

use super::{Checker, Verdict, broken};
use crate::tape::Written;

/// A setting's value; `None`: it is not there.
type Value = Option<Bytes>;

/// All settings.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// What is durable for sure.
    durable: BTreeMap<String, Value>,
    /// Appended, and not known to be durable or not.
    pending: Vec<(Ticket, String, Value)>,
    /// From before a crash: each may be there or not, the latest that is counts.
    maybe: BTreeMap<String, Vec<Value>>,
    /// What the bus reported in this boot.
    in_force: BTreeMap<String, Bytes>,
    /// What was removed in this turn.
    removed: BTreeSet<String>,
    /// Lanes whose pause was answered, and whose resume nobody asked for since.
    paused: BTreeSet<(Processor, Priority)>,
    policies: Policies,
}

/// The setting of a lane's pause.
pub(super) fn pause_name(processor: &Processor, priority: Priority) -> String {
    format!("pause/{}/{}", processor.as_str(), priority.name())
}

/// The setting of a processor's own table.
pub(super) fn policy_name(processor: &Processor) -> String {
    format!("policy/{}", processor.as_str())
}

impl Control {
    pub(super) fn new(configured: PolicyBook) -> Self {
        Self {
            policies: Policies::new(configured),
            ..Self::default()
        }
    }

    /// The process is gone; what was on its way may be there or not.
    pub(super) fn crashed(&mut self) {
        for (_, name, value) in self.pending.drain(..) {
            self.maybe.entry(name).or_default().push(value);
        }
        self.in_force.clear();
        self.removed.clear();
    }

    pub(super) fn booted(&mut self, configured: PolicyBook) {
        self.policies = Policies::new(configured);
    }

    /// Records wait to be durable.
    pub(super) fn queued(&mut self, ticket: Ticket, records: &[Written]) {
        for record in records {
            let Written::Setting(name, value) = record else {
                continue;
            };
            if value.is_none() {
                self.paused
                    .retain(|(processor, priority)| pause_name(processor, *priority) != *name);
            }
            self.pending.push((ticket, name.clone(), value.clone()));
        }
    }

    pub(super) fn durable(&mut self, ticket: Ticket) {
        let ready = |(other, _, _): &mut (Ticket, String, Value)| *other == ticket;
        for (_, name, value) in self.pending.extract_if(.., ready) {
            self.durable.insert(name, value);
        }
    }

    pub(super) fn failed(&mut self, ticket: Ticket, failure: Failure) {
        if failure != Failure::Unknown {
            self.pending.retain(|(other, _, _)| *other != ticket);
        }
    }

    /// The bus reported everything from before: what is there must be what was durable, or what may be.
    fn audit(&mut self) -> Verdict {
        let names: BTreeSet<String> = self
            .durable
            .keys()
            .chain(self.maybe.keys())
            .chain(self.in_force.keys())
            .cloned()
            .collect();
        for name in names {
            let there = self.in_force.get(&name).cloned();
            let sure = self.durable.get(&name).cloned().flatten();
            let may_be = self.maybe.get(&name).is_some_and(|maybe| maybe.contains(&there));
            if there != sure && !may_be {
                return broken("setting", || {
                    format!("`{name}` is {there:?} after a start; {sure:?} is durable")
                });
            }
            self.durable.insert(name, there);
        }
        self.maybe.clear();
        Ok(())
    }

    /// The driver has nothing more to do at this instant.
    pub(super) fn turned(&mut self) {
        self.removed.clear();
    }

    /// Whether the lane may be paused, as far as anybody outside can know. What became durable before its resume, and
    /// in the same commit, may go while the pause still holds.
    pub(super) fn may_be_paused(&self, processor: &Processor, priority: Priority) -> bool {
        let name = pause_name(processor, priority);
        let on_its_way = |(_, other, value): &(Ticket, String, Value)| *other == name && value.is_some();
        self.in_force.contains_key(&name)
            || self.removed.contains(&name)
            || self.pending.iter().any(on_its_way)
    }
}

impl Checker {
    /// The bus reported a setting: it is in force from here.
    pub(super) fn setting_reported(&mut self, name: &str, value: &Value) -> Verdict {
        if self.ready.is_some() && self.control.durable.get(name) != Some(value) {
            return broken("durable", || {
                format!("`{name}` {value:?} is reported before it is durable")
            });
        }
        match value {
            Some(value) => drop(self.control.in_force.insert(name.to_owned(), value.clone())),
            None => {
                self.control.in_force.remove(name);
                self.control.removed.insert(name.to_owned());
            }
        }
        for processor in &self.plan.processors {
            if policy_name(processor) == name {
                let patch = value.as_ref().map(max_jobs_of).unwrap_or_default();
                self.control.policies.put(processor, Table::Processor, patch);
                self.control.policies.enforce();
                self.book = self.control.policies.in_force().clone();
                if self.ready.is_some() {
                    self.lanes.policies_changed();
                }
            } else if name.starts_with(&format!("pause/{}/", processor.as_str())) {
                self.lanes.shares_unsure(processor);
            }
        }
        Ok(())
    }

    pub(super) fn configured(&mut self, book: &PolicyBook) {
        self.control.policies.configure(book.clone());
        self.book = self.control.policies.in_force().clone();
        self.lanes.policies_changed();
    }

    pub(super) fn audit_settings(&mut self) -> Verdict {
        self.control.audit()
    }

    /// An operator is told that a lane is paused, or goes on.
    pub(super) fn paused(&mut self, processor: &Processor, priority: Priority, paused: bool) -> Verdict {
        let name = pause_name(processor, priority);
        let durable = self.control.durable.get(&name).is_some_and(Option::is_some);
        let in_force = self.control.in_force.contains_key(&name);
        if durable != paused || in_force != paused {
            return broken("durable", || {
                format!("`{name}` {paused} is told; durable: {durable}, in force: {in_force}")
            });
        }
        if paused {
            self.control.paused.insert((processor.clone(), priority));
        }
        Ok(())
    }

    /// An operator is told that a policy was set.
    pub(super) fn policy_set(&self, processor: &Processor, max_jobs: Option<u32>) -> Verdict {
        let name = policy_name(processor);
        let there = self.control.in_force.get(&name);
        let durable = self.control.durable.get(&name).cloned().flatten();
        let said = there.map(max_jobs_of).and_then(|patch| patch.max_jobs);
        if said != max_jobs || durable.as_ref() != there {
            return broken("durable", || {
                format!("`{name}` {max_jobs:?} is told; in force: {there:?}, durable: {durable:?}")
            });
        }
        Ok(())
    }

    /// Nothing of a lane leaves after its pause was answered.
    pub(super) fn not_paused(&self, processor: &Processor, priority: Priority, what: &str) -> Verdict {
        if self.control.paused.contains(&(processor.clone(), priority)) {
            return broken("paused", || {
                format!("{what} of {processor:?} {priority}, which is paused")
            });
        }
        Ok(())
    }
}

/// The one key that the simulated operator sets.
fn max_jobs_of(value: &Bytes) -> PolicyPatch {
    let object: Option<BTreeMap<String, u32>> = serde_json::from_slice(value).ok();
    PolicyPatch {
        max_jobs: object.and_then(|object| object.get("max_jobs").copied()),
        ..PolicyPatch::default()
    }
}
