//! `[processor.NAME]` and its narrower tables: how jobs gather and retry.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Complaint, Complaints, Place, suggestion};
use super::source::{Key, Keys, Source};
use crate::job::{Group, Priority, Processor};
use crate::policy::{Policy, PolicyBook, PolicyPatch, ProcessorPolicy};
use crate::units::format_duration;

/// The most jobs of a batch: its answer must be held in memory, and settled in one request.
const BATCH_JOBS_MAX: u32 = 10_000;

/// The shortest lease: a worker must be able to extend it over a network.
const LEASE_MIN: Duration = Duration::from_millis(100);

macro_rules! key {
    ($field:ident, $read:ident) => {
        Key {
            name: stringify!($field),
            set: |patch, value| {
                patch.$field = Some(value.$read()?);
                Ok(())
            },
        }
    };
}

/// Every key of these tables.
pub(super) const KEYS: &[Key<PolicyPatch>] = &[
    key!(max_jobs, small_count),
    key!(max_bytes, size),
    key!(min_jobs, small_count),
    key!(max_delay, duration),
    key!(idle_flush, switch),
    key!(lower_lane_share, share),
    key!(lease, span),
    key!(heartbeat, span),
    key!(batch_timeout, span),
    key!(max_attempts, small_count),
    key!(backoff, duration),
    key!(backoff_max, duration),
    key!(max_crashes, small_count),
    key!(result_ttl, span),
];

/// The tables of one processor.
struct Written {
    base: Keys<PolicyPatch>,
    priorities: [Option<Keys<PolicyPatch>>; 3],
    groups: BTreeMap<Group, Keys<PolicyPatch>>,
}

/// Reads `processor`, the table of all processors.
pub(super) fn read(
    value: &Spanned<DeValue<'_>>,
    source: &Source,
    policies: &mut PolicyBook,
    complaints: &mut Complaints,
) {
    let Some(table) = source.table(value, "[processor]", complaints) else {
        return;
    };
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let Some(processor) = Processor::parse(name) else {
            complaints.push(bad_name(
                "processor",
                name,
                "`_` and `-`",
                source.place(key.span()),
            ));
            continue;
        };
        let title = format!("[processor.{name}]");
        let Some(table) = source.table(value, &title, complaints) else {
            continue;
        };
        let written = read_processor(table, name, source, complaints);
        written.check(name, complaints);
        policies.processors.insert(processor, written.into_policy());
    }
}

fn read_processor(table: &DeTable<'_>, name: &str, source: &Source, complaints: &mut Complaints) -> Written {
    let mut written = Written {
        base: Keys::new(PolicyPatch::default()).also(&["priority", "group"]),
        priorities: [None, None, None],
        groups: BTreeMap::new(),
    };
    let mut plain = DeTable::new();
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "priority" => read_priorities(value, name, source, &mut written, complaints),
            "group" => read_groups(value, name, source, &mut written, complaints),
            _ => drop(plain.insert(key.clone(), value.clone())),
        }
    }
    let title = format!("[processor.{name}]");
    written.base.set_table(KEYS, &plain, &title, source, complaints);
    written
}

fn read_priorities(
    value: &Spanned<DeValue<'_>>,
    name: &str,
    source: &Source,
    written: &mut Written,
    complaints: &mut Complaints,
) {
    let title = format!("[processor.{name}.priority]");
    let Some(table) = source.table(value, &title, complaints) else {
        return;
    };
    for (key, value) in table {
        let lane = key.get_ref().as_ref();
        let Some(priority) = Priority::ALL.into_iter().find(|priority| priority.name() == lane) else {
            complaints.push(Complaint {
                message: format!("`{lane}` is not a priority"),
                place: Some(source.place(key.span())),
                hint: suggestion(lane, Priority::ALL.map(Priority::name)),
            });
            continue;
        };
        let title = format!("[processor.{name}.priority.{lane}]");
        if let Some(table) = source.table(value, &title, complaints) {
            let mut keys = Keys::new(PolicyPatch::default());
            keys.set_table(KEYS, table, &title, source, complaints);
            written.priorities[priority.index()] = Some(keys);
        }
    }
}

fn read_groups(
    value: &Spanned<DeValue<'_>>,
    name: &str,
    source: &Source,
    written: &mut Written,
    complaints: &mut Complaints,
) {
    let title = format!("[processor.{name}.group]");
    let Some(table) = source.table(value, &title, complaints) else {
        return;
    };
    for (key, value) in table {
        let text = key.get_ref().as_ref();
        let Some(group) = Group::parse(text) else {
            complaints.push(bad_name(
                "group",
                text,
                "`_`, `-` and `.`",
                source.place(key.span()),
            ));
            continue;
        };
        let title = format!("[processor.{name}.group.{text}]");
        if let Some(table) = source.table(value, &title, complaints) {
            let mut keys = Keys::new(PolicyPatch::default());
            keys.set_table(KEYS, table, &title, source, complaints);
            written.groups.insert(group, keys);
        }
    }
}

impl Written {
    fn into_policy(self) -> ProcessorPolicy {
        let [realtime, normal, slow] = self.priorities;
        let patch = |keys: Option<Keys<PolicyPatch>>| keys.map(|keys| keys.draft).unwrap_or_default();
        ProcessorPolicy {
            base: self.base.draft,
            priorities: [patch(realtime), patch(normal), patch(slow)],
            groups: self
                .groups
                .into_iter()
                .map(|(group, keys)| (group, keys.draft))
                .collect(),
        }
    }

    /// Checks every combination of tables that can be in force together, and names each contradiction once.
    fn check(&self, name: &str, complaints: &mut Complaints) {
        let mut found = Vec::new();
        let groups = || std::iter::once(None).chain(self.groups.values().map(Some));
        for priority in Priority::ALL {
            let lane = self.priorities[priority.index()].as_ref();
            for group in groups() {
                let layers: Vec<_> = std::iter::once(&self.base).chain(lane).chain(group).collect();
                Layers { priority, layers }.check(name, &mut found);
            }
        }
        if let Some(realtime) = &self.priorities[Priority::Realtime.index()] {
            check_isolated(realtime, name, &mut found);
        }
        for (at, complaint) in found.iter().enumerate() {
            if !found[..at].contains(complaint) {
                complaints.push(complaint.clone());
            }
        }
    }
}

/// The tables in force together, the widest first.
struct Layers<'a> {
    priority: Priority,
    layers: Vec<&'a Keys<PolicyPatch>>,
}

impl Layers<'_> {
    /// Where the narrowest of these tables sets one of these keys; `None` if none was written.
    fn place(&self, keys: &[&str]) -> Option<Place> {
        self.layers.iter().rev().find_map(|layer| layer.first_place(keys))
    }

    fn check(&self, name: &str, found: &mut Vec<Complaint>) {
        let mut patch = PolicyPatch::default();
        for layer in &self.layers {
            patch.lay(&layer.draft);
        }
        let policy = patch.over_defaults(self.priority);
        if self.priority != Priority::Realtime {
            self.check_jobs(name, &patch, &policy, found);
        }
        self.check_times(name, &policy, found);
    }

    fn check_jobs(&self, name: &str, patch: &PolicyPatch, policy: &Policy, found: &mut Vec<Complaint>) {
        let keys = ["min_jobs", "max_jobs"];
        if let Some(min) = patch.min_jobs
            && min > policy.max_jobs
        {
            let max = policy.max_jobs;
            let message = format!(
                "processor `{name}`: `min_jobs` is {min} and `max_jobs` is {max}: no batch could gather that many"
            );
            found.push(
                Complaint::new(message, self.place(&keys)).hint("lower `min_jobs`, or raise `max_jobs`"),
            );
        }
        if policy.max_jobs > BATCH_JOBS_MAX {
            let max = policy.max_jobs;
            let message =
                format!("processor `{name}`: `max_jobs` is {max}, above the most possible, {BATCH_JOBS_MAX}");
            found.push(Complaint::new(message, self.place(&["max_jobs"])));
        }
    }

    fn check_times(&self, name: &str, policy: &Policy, found: &mut Vec<Complaint>) {
        let lease = format_duration(policy.lease);
        if policy.lease < LEASE_MIN {
            let least = format_duration(LEASE_MIN);
            let message =
                format!("processor `{name}`: `lease` is {lease}, below the least possible, {least}");
            found.push(Complaint::new(message, self.place(&["lease"])));
        }
        if policy.heartbeat > policy.lease / 2 {
            let heartbeat = format_duration(policy.heartbeat);
            let message = format!(
                "processor `{name}`: `heartbeat` is {heartbeat}, more than half of `lease` ({lease}): one lost heartbeat would lose the batch"
            );
            let place = self.place(&["heartbeat", "lease"]);
            found
                .push(Complaint::new(message, place).hint("leave `heartbeat` out: it is a third of `lease`"));
        }
        if policy.batch_timeout < policy.lease {
            let timeout = format_duration(policy.batch_timeout);
            let message =
                format!("processor `{name}`: `batch_timeout` is {timeout}, less than `lease` ({lease})");
            let place = self.place(&["batch_timeout", "lease"]);
            found.push(Complaint::new(message, place).hint("raise `batch_timeout`, or lower `lease`"));
        }
        if policy.backoff > policy.backoff_max {
            let (first, max) = (
                format_duration(policy.backoff),
                format_duration(policy.backoff_max),
            );
            let message =
                format!("processor `{name}`: `backoff` is {first}, more than `backoff_max` ({max})");
            let place = self.place(&["backoff", "backoff_max"]);
            found.push(Complaint::new(message, place).hint("raise `backoff_max`, or lower `backoff`"));
        }
    }
}

/// REALTIME jobs travel alone and at once; a table that says otherwise is a misunderstanding.
fn check_isolated(realtime: &Keys<PolicyPatch>, name: &str, found: &mut Vec<Complaint>) {
    let patch = &realtime.draft;
    let contradicts = [
        ("max_jobs", patch.max_jobs.is_some_and(|jobs| jobs > 1)),
        ("min_jobs", patch.min_jobs.is_some_and(|jobs| jobs > 1)),
        ("max_delay", patch.max_delay.is_some_and(|delay| !delay.is_zero())),
    ];
    for (key, contradicts) in contradicts {
        if contradicts {
            let message = format!(
                "processor `{name}`: `{key}` has no use for REALTIME, whose jobs travel alone and at once"
            );
            found.push(
                Complaint::new(message, realtime.place(key))
                    .hint("set it for NORMAL or SLOW, or for the processor"),
            );
        }
    }
}

fn bad_name(what: &str, name: &str, also: &str, place: Place) -> Complaint {
    Complaint::new(format!("`{name}` cannot be the name of a {what}"), place).hint(format!(
        "1 to 64 letters, digits, {also}, starting with a letter or digit"
    ))
}
