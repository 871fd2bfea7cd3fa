//! What an operator changes in the running server: paused lanes and policies, durable before they are answered.
//!
//! In: commands, and settings as the bus reports them. Out: setting records, events for the dispatcher, answers.
//! A change takes effect when the bus reports it, never because it was asked for here, so that another node's
//! change would do the same. One change is in flight at a time and the others wait in line: each is checked
//! against what is in force by then.

use std::collections::{HashSet, VecDeque};

use super::port::{Answer, CallId, Command, LanePaused, PolicyView, Port, SetPolicy};
use super::refusal::Refusal;
use super::setting::{self, Name, PAUSED};
use super::{Driver, Pending};
use crate::bus::{Bus, Durability, Record, Setting, SettingRecord, Space, Ticket};
use crate::clock::Clock;
use crate::dispatcher::event::Event;
use crate::job::{Group, Priority, Processor};
use crate::policy::{Policies, PolicyBook, Table};

/// What is in force, and what is on its way.
pub(super) struct Control {
    policies: Policies,
    /// The dispatcher has not heard of what the file says now.
    reconfigured: bool,
    /// Changes that wait for the one in flight. Bounded by the calls that may be open.
    line: VecDeque<(CallId, Command)>,
    changing: Option<Changing>,
}

/// The change in flight.
struct Changing {
    call: CallId,
    answer: Then,
    name: Name,
    /// Batches that were granted before it took effect and are still to be handed out; `None` until the bus
    /// reported it. Who hears that a lane is paused must see nothing of it leave afterwards.
    before: Option<HashSet<Ticket>>,
}

/// What a change is answered with.
enum Then {
    Lane(LanePaused),
    Policy(Processor, Table),
}

impl Control {
    pub(super) fn new(configured: PolicyBook) -> Self {
        Self {
            policies: Policies::new(configured),
            reconfigured: false,
            line: VecDeque::new(),
            changing: None,
        }
    }

    /// A change is on its way.
    pub(super) const fn is_busy(&self) -> bool {
        self.changing.is_some()
    }
}

impl<B: Bus, C: Clock, P: Port> Driver<B, C, P> {
    pub(super) fn on_change(&mut self, call: CallId, command: Command) {
        if self.stopping.is_some() {
            return self.refuse(call, Refusal::Draining);
        }
        self.control.line.push_back((call, command));
    }

    pub(super) fn on_policy(
        &mut self,
        call: CallId,
        processor: Processor,
        group: Option<Group>,
        priority: Priority,
    ) {
        let view = self.policy_view(processor, group, priority);
        self.port.answer(call, Answer::Policy(Box::new(view)));
    }

    /// The configuration was read again.
    pub(super) fn on_configured(&mut self, book: PolicyBook) {
        self.control.policies.configure(book);
        self.control.reconfigured = true;
        if self.ready {
            self.renew_policies();
        }
    }

    /// Takes effect: the bus says that it is durable. At a start all settings come before the first job.
    pub(super) fn on_setting(&mut self, setting: &Setting) {
        let Some(name) = Name::parse(&setting.name) else {
            tracing::warn!(name = %setting.name, "a setting of another version is left alone");
            return;
        };
        match &name {
            Name::Pause(processor, priority) => {
                self.expected_processors.remove(processor);
                let paused = setting.value.is_some();
                tracing::info!(
                    processor = processor.as_str(),
                    priority = priority.name(),
                    paused,
                    "a lane was paused or resumed"
                );
                self.step(Event::Pause {
                    processor: processor.clone(),
                    priority: *priority,
                    paused,
                });
            }
            Name::Policy(processor, table) => {
                let (patch, unread) = setting.value.as_deref().map(setting::decode).unwrap_or_default();
                for why in unread {
                    tracing::warn!(name = %setting.name, %why, "a part of a setting is left alone");
                }
                self.control.policies.put(processor, table.clone(), patch);
            }
        }
        if self.ready {
            self.renew_policies();
        }
        self.took_effect(&name);
    }

    /// Puts changed policies in force, and says what the configuration file keeps from it.
    pub(super) fn renew_policies(&mut self) {
        let mut changed = self.control.policies.enforce();
        let policies = &self.control.policies;
        let reconfigured = std::mem::take(&mut self.control.reconfigured);
        if reconfigured {
            changed.extend(policies.live_processors().cloned());
        }
        for processor in &changed {
            for warning in policies.shadowed(processor) {
                tracing::warn!(processor = processor.as_str(), "{warning}");
            }
        }
        match changed.pop_first() {
            None if !reconfigured => {}
            Some(processor) if changed.is_empty() && !reconfigured => {
                let written = policies.of(&processor).cloned().map(Box::new);
                self.step(Event::Policy(processor, written));
            }
            _ => self.step(Event::Policies(policies.in_force().clone())),
        }
    }

    /// Answers the change in flight once it may be, and begins the next.
    pub(super) fn keep_changing(&mut self) {
        self.end_change(false);
        while self.control.changing.is_none()
            && let Some((call, command)) = self.control.line.pop_front()
        {
            self.begin_change(call, command);
        }
    }

    /// Answers the change in flight if it took effect, and nothing that was granted before is still to leave.
    pub(super) fn end_change(&mut self, whatever: bool) {
        let over = |changing: &Changing| match &changing.before {
            Some(before) => whatever || !before.iter().any(|ticket| self.pending.contains_key(ticket)),
            None => false,
        };
        if self.control.changing.as_ref().is_some_and(over)
            && let Some(changing) = self.control.changing.take()
        {
            self.answer_change(changing.call, changing.answer);
        }
    }

    /// The change in flight did not become durable, or nobody knows.
    pub(super) fn change_failed(&mut self, refusal: &Refusal) {
        if let Some(changing) = self.control.changing.take() {
            if let Name::Pause(processor, _) = &changing.name {
                self.expected_processors.remove(processor);
            }
            self.refuse(changing.call, refusal.clone());
        }
    }

    /// Nothing more is changed.
    pub(super) fn refuse_changes(&mut self, refusal: &Refusal) {
        for (call, _) in std::mem::take(&mut self.control.line) {
            self.refuse(call, refusal.clone());
        }
    }

    /// The caller of a change that waits in line is gone. One in flight goes on.
    pub(super) fn forget_change(&mut self, call: CallId) {
        self.control.line.retain(|(other, _)| *other != call);
    }

    fn took_effect(&mut self, name: &Name) {
        let Some(changing) = self
            .control
            .changing
            .as_mut()
            .filter(|changing| changing.name == *name)
        else {
            return;
        };
        let granted = self
            .pending
            .iter()
            .filter(|(_, pending)| matches!(pending, Pending::Grant(_)));
        changing.before = Some(granted.map(|(ticket, _)| *ticket).collect());
    }

    fn begin_change(&mut self, call: CallId, command: Command) {
        let begun = match command {
            Command::Pause {
                processor,
                priority,
                paused,
            } => self.begin_pause(call, processor, priority, paused),
            Command::SetPolicy(set) => self.begin_policy(call, *set),
            // Nothing else is put in line.
            _ => Ok(()),
        };
        if let Err(refusal) = begun {
            self.refuse(call, refusal);
        }
    }

    fn begin_pause(
        &mut self,
        call: CallId,
        processor: Processor,
        priority: Priority,
        paused: bool,
    ) -> Result<(), Refusal> {
        let answer = Then::Lane(LanePaused {
            processor: processor.clone(),
            priority,
            paused,
        });
        if self.dispatcher.is_paused(&processor, priority) == paused {
            self.answer_change(call, answer);
            return Ok(());
        }
        if paused {
            self.admit_processor(&processor, &HashSet::new())?;
        }
        let name = Name::Pause(processor.clone(), priority);
        self.append_change(call, name, paused.then_some(PAUSED), answer)?;
        if paused {
            self.expect_processor(&processor);
        }
        Ok(())
    }

    fn begin_policy(&mut self, call: CallId, set: SetPolicy) -> Result<(), Refusal> {
        let SetPolicy {
            processor,
            table,
            patch: said,
            clear,
        } = set;
        let before = self.control.policies.live(&processor, &table);
        let mut patch = before.clone();
        for key in &clear {
            patch.clear(key);
        }
        patch.lay(&said);
        let answer = Then::Policy(processor.clone(), table.clone());
        if patch == before {
            self.answer_change(call, answer);
            return Ok(());
        }
        let policies = &self.control.policies;
        let contradictions = policies.would_contradict(&processor, table.clone(), patch.clone());
        // Taking away all that was set is always right: the file alone is then in force.
        if let Some(wrong) = contradictions.first().filter(|_| !patch.is_empty()) {
            let hint = wrong.hint.map_or_else(String::new, |hint| format!("; {hint}"));
            let at_fault = wrong.keys.iter().find(|key| said.says(key));
            return Err(Refusal::InvalidValue {
                detail: format!("{}{hint}", wrong.message),
                pointer: at_fault.map_or_else(String::new, |key| format!("/{key}")),
            });
        }
        let value = setting::encode(&patch);
        self.append_change(call, Name::Policy(processor, table), value.as_deref(), answer)
    }

    fn append_change(
        &mut self,
        call: CallId,
        name: Name,
        value: Option<&[u8]>,
        answer: Then,
    ) -> Result<(), Refusal> {
        let text = name.to_string();
        let record = Record::Setting(SettingRecord {
            name: &text,
            value,
            version: 0,
        });
        let appended = self.bus.append(&[record], Space::Settle, Durability::Sync);
        let ticket = self.appended(appended, Space::Settle, Durability::Sync)?;
        self.pending.insert(ticket, Pending::Change);
        self.control.changing = Some(Changing {
            call,
            answer,
            name,
            before: None,
        });
        Ok(())
    }

    fn answer_change(&mut self, call: CallId, answer: Then) {
        let answer = match answer {
            Then::Lane(lane) => Answer::Paused(lane),
            Then::Policy(processor, table) => {
                let (group, priority) = match table {
                    Table::Processor => (None, Priority::Normal),
                    Table::Priority(priority) => (None, priority),
                    Table::Group(group) => (Some(group), Priority::Normal),
                };
                Answer::Policy(Box::new(self.policy_view(processor, group, priority)))
            }
        };
        self.port.answer(call, answer);
    }

    fn policy_view(&self, processor: Processor, group: Option<Group>, priority: Priority) -> PolicyView {
        let policies = &self.control.policies;
        let live = policies.live_tables(&processor);
        PolicyView {
            keys: policies.explain(&processor, group.as_ref(), priority),
            set: live.map(|(table, patch)| (table, patch.clone())).collect(),
            configured: policies.configured(&processor),
            warnings: policies.shadowed(&processor),
            processor,
            group,
            priority,
        }
    }
}
