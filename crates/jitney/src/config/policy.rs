//! `[processor.NAME]` and its narrower tables: how jobs gather and retry; `[processor."*"]`, the same for all.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Complaint, Complaints, Place, suggestion};
use super::source::{Keys, Source};
use crate::job::{Group, Priority, Processor};
pub(super) use crate::policy::KEYS;
use crate::policy::{Contradiction, FOR_ALL, PolicyBook, PolicyPatch, ProcessorPolicy, isolated, together};

/// The name of what is written for all processors, which is none of a processor.
const ALL: &str = "*";

/// What is written for all processors.
#[derive(Default)]
struct ForAll {
    written: Option<Written>,
    /// What is wrong with it alone, which is no mistake of each processor too.
    mistakes: Vec<Complaint>,
}

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
    let all = table.iter().find(|(key, _)| key.get_ref().as_ref() == ALL);
    let all = match all {
        Some((_, value)) => read_all(value, source, complaints),
        None => ForAll::default(),
    };
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        if name == ALL {
            continue;
        }
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
        written.check(name, &all, complaints);
        policies.processors.insert(processor, written.into_policy());
    }
    if let Some(written) = all.written {
        *policies.all = written.into_policy();
    }
}

/// Reads `[processor."*"]`.
fn read_all(value: &Spanned<DeValue<'_>>, source: &Source, complaints: &mut Complaints) -> ForAll {
    let title = format!("[processor.{FOR_ALL}]");
    let Some(table) = source.table(value, &title, complaints) else {
        return ForAll::default();
    };
    if let Some((key, _)) = table.iter().find(|(key, _)| key.get_ref().as_ref() == "group") {
        complaints.push(
            Complaint::new(
                format!("`group` has no place in {title}"),
                source.place(key.span()),
            )
            .hint("each processor has groups of its own: write [processor.NAME.group.GROUP]"),
        );
    }
    let mut written = read_processor(table, FOR_ALL, source, complaints);
    written.groups.clear();
    let mistakes = written.mistakes(ALL, &ForAll::default());
    for mistake in &mistakes {
        complaints.push(mistake.clone());
    }
    ForAll {
        written: Some(written),
        mistakes,
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

    /// Complains about contradictions, but for those that are mistakes of what is written for all.
    fn check(&self, name: &str, all: &ForAll, complaints: &mut Complaints) {
        for mistake in self.mistakes(name, all) {
            let told = |other: &Complaint| other.place == mistake.place;
            if !all.mistakes.iter().any(told) {
                complaints.push(mistake);
            }
        }
    }

    /// Checks every combination of tables that can be in force together, and names each contradiction once.
    fn mistakes(&self, name: &str, all: &ForAll) -> Vec<Complaint> {
        let mut found: Vec<Complaint> = Vec::new();
        let groups = || std::iter::once(None).chain(self.groups.values().map(Some));
        for priority in Priority::ALL {
            let lane = self.priorities[priority.index()].as_ref();
            let wider = all
                .written
                .iter()
                .flat_map(|all| std::iter::once(&all.base).chain(all.priorities[priority.index()].as_ref()));
            for group in groups() {
                let own = std::iter::once(&self.base).chain(lane).chain(group);
                let layers: Vec<_> = wider.clone().chain(own).collect();
                Layers { priority, layers }.check(name, &mut found);
            }
        }
        if let Some(realtime) = &self.priorities[Priority::Realtime.index()] {
            for wrong in isolated(name, &realtime.draft) {
                found.push(complaint(&wrong, realtime.first_place(wrong.keys)));
            }
        }
        let mut once = Vec::with_capacity(found.len());
        for complaint in found {
            if !once.contains(&complaint) {
                once.push(complaint);
            }
        }
        once
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
        for wrong in together(name, self.priority, &patch) {
            found.push(complaint(&wrong, self.place(wrong.keys)));
        }
    }
}

fn complaint(wrong: &Contradiction, place: Option<Place>) -> Complaint {
    Complaint {
        message: wrong.message.clone(),
        place,
        hint: wrong.hint.map(str::to_owned),
    }
}

fn bad_name(what: &str, name: &str, also: &str, place: Place) -> Complaint {
    Complaint::new(format!("`{name}` cannot be the name of a {what}"), place).hint(format!(
        "1 to 64 letters, digits, {also}, starting with a letter or digit"
    ))
}
