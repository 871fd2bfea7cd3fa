//! The policies in force: what the configuration file says, and below it what was set over the API.
//!
//! Both are written in the same tables. Within a table the file wins, key by key; between tables the narrower
//! wins, whoever wrote it. Where what was set contradicts the file, nothing that was set for that processor is in
//! force until one of the two is changed: a file that was right stays right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Contradiction, FileLine, Policy, PolicyBook, PolicyPatch, ProcessorPolicy, Shown};
use crate::job::{Group, Priority, Processor};

/// The name that stands for all processors, as it is written in a heading.
pub(crate) const FOR_ALL: &str = "\"*\"";

/// One table of a processor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// `[processor.NAME]`.
    Processor,
    /// `[processor.NAME.priority.PRIORITY]`.
    Priority(Priority),
    /// `[processor.NAME.group.GROUP]`.
    Group(Group),
}

/// Who gave a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody: it is the default.
    Default,
    /// The configuration file, in this table.
    Config(Table),
    /// The configuration file, in this table of all processors.
    ConfigForAll(Table),
    /// Somebody, over the API, in this table.
    Api(Table),
}

/// A key's value, and who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The key.
    pub key: &'static str,
    /// Its value; `None` where the server's own value holds.
    pub value: Option<Shown>,
    /// Who gave it.
    pub origin: Origin,
    /// Where it stands, if it is in a file.
    pub at: Option<FileLine>,
}

/// A key's value as the configuration has it, in force or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// In the table with this heading.
    pub heading: String,
    /// The key.
    pub key: &'static str,
    /// Its value.
    pub value: Shown,
    /// Where it stands, if it is in a file.
    pub at: Option<FileLine>,
}

/// All policies, with where they come from.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    configured: PolicyBook,
    live: PolicyBook,
    in_force: PolicyBook,
    /// Processors whose live values contradict the file, with the first contradiction.
    left_out: BTreeMap<Processor, Contradiction>,
    /// Tables of which something was set that is not in force yet.
    put: Vec<(Processor, Table)>,
}

impl Table {
    /// The table's heading, as it stands in the file.
    pub fn heading<'a>(&'a self, processor: &'a Processor) -> impl fmt::Display + 'a {
        self.heading_of(processor.as_str())
    }

    /// The heading of the table of all processors.
    pub fn heading_for_all(&self) -> impl fmt::Display {
        self.heading_of(FOR_ALL)
    }

    fn heading_of<'a>(&'a self, name: &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| match self {
            Self::Processor => write!(f, "[processor.{name}]"),
            Self::Priority(priority) => write!(f, "[processor.{name}.priority.{}]", priority.name()),
            Self::Group(group) => write!(f, "[processor.{name}.group.{}]", group.as_str()),
        })
    }
}

impl ProcessorPolicy {
    /// What a table says; `None` if it is not there.
    #[must_use]
    pub fn table(&self, table: &Table) -> Option<&PolicyPatch> {
        match table {
            Table::Processor => Some(&self.base),
            Table::Priority(priority) => Some(&self.priorities[priority.index()]),
            Table::Group(group) => self.groups.get(group),
        }
    }

    /// Every table that says something.
    pub fn tables(&self) -> impl Iterator<Item = (Table, &PolicyPatch)> {
        let lanes = Priority::ALL.into_iter().zip(&self.priorities);
        std::iter::once((Table::Processor, &self.base))
            .chain(lanes.map(|(priority, patch)| (Table::Priority(priority), patch)))
            .chain(
                self.groups
                    .iter()
                    .map(|(group, patch)| (Table::Group(group.clone()), patch)),
            )
            .filter(|(_, patch)| !patch.is_empty())
    }

    /// Puts a patch in a table's place. A group that says nothing has no table.
    fn put(&mut self, table: Table, patch: PolicyPatch) {
        match table {
            Table::Processor => self.base = patch,
            Table::Priority(priority) => self.priorities[priority.index()] = patch,
            Table::Group(group) if patch.is_empty() => drop(self.groups.remove(&group)),
            Table::Group(group) => drop(self.groups.insert(group, patch)),
        }
    }

    /// The same without the tables of other groups.
    fn with_group(&self, group: &Group) -> Self {
        let table = self.groups.get(group).map(|patch| (group.clone(), patch.clone()));
        Self {
            base: self.base.clone(),
            priorities: self.priorities.clone(),
            groups: table.into_iter().collect(),
        }
    }

    /// Takes over, table by table, whatever `over` says.
    fn lay(&mut self, over: &Self) {
        self.base.lay(&over.base);
        for (patch, over) in self.priorities.iter_mut().zip(&over.priorities) {
            patch.lay(over);
        }
        for (group, over) in &over.groups {
            self.groups.entry(group.clone()).or_default().lay(over);
        }
    }
}

impl Policies {
    /// Those of the file, with nothing set over the API.
    #[must_use]
    pub fn new(configured: PolicyBook) -> Self {
        Self {
            in_force: configured.clone(),
            configured,
            ..Self::default()
        }
    }

    /// What is in force.
    #[must_use]
    pub const fn in_force(&self) -> &PolicyBook {
        &self.in_force
    }

    /// The file says something else now.
    pub fn configure(&mut self, configured: PolicyBook) {
        self.configured = configured;
        self.put.clear();
        self.in_force = self.configured.clone();
        self.left_out.clear();
        for processor in self.live.processors.keys().cloned().collect::<Vec<_>>() {
            self.merge(&processor);
        }
    }

    /// What was set over the API for a table.
    #[must_use]
    pub fn live(&self, processor: &Processor, table: &Table) -> PolicyPatch {
        let live = self.live.processors.get(processor);
        live.and_then(|live| live.table(table))
            .cloned()
            .unwrap_or_default()
    }

    /// Every table of the processor that was set over the API.
    pub fn live_tables(&self, processor: &Processor) -> impl Iterator<Item = (Table, &PolicyPatch)> {
        let live = self.live.processors.get(processor);
        live.into_iter().flat_map(ProcessorPolicy::tables)
    }

    /// Every key that the configuration has for the processor: in its own tables, and in those of all processors.
    #[must_use]
    pub fn configured(&self, processor: &Processor) -> Vec<Configured> {
        let own = self.configured.processors.get(processor).into_iter();
        let own = own
            .flat_map(ProcessorPolicy::tables)
            .map(|(table, patch)| (table.heading(processor).to_string(), patch));
        let all = self.configured.all.tables();
        let all = all.map(|(table, patch)| (table.heading_for_all().to_string(), patch));
        let mut configured = Vec::new();
        for (heading, patch) in own.chain(all) {
            for (key, value) in patch.values() {
                if let Some(value) = value {
                    configured.push(Configured {
                        at: self.configured.places.of(&heading, key).cloned(),
                        heading: heading.clone(),
                        key,
                        value,
                    });
                }
            }
        }
        configured
    }

    /// This is what is set over the API for a table from now on. It is in force once [`Policies::enforce`] was called:
    /// at a start thousands of tables come one after the other.
    pub fn put(&mut self, processor: &Processor, table: Table, patch: PolicyPatch) {
        let live = self.live.processors.entry(processor.clone()).or_default();
        live.put(table.clone(), patch);
        if live.tables().next().is_none() {
            self.live.processors.remove(processor);
        }
        self.put.push((processor.clone(), table));
    }

    /// Puts in force what was put, and gives the processors that it was about.
    pub fn enforce(&mut self) -> BTreeSet<Processor> {
        let put = std::mem::take(&mut self.put);
        let processors: BTreeSet<_> = put.iter().map(|(processor, _)| processor.clone()).collect();
        match put.as_slice() {
            [(processor, Table::Group(group))] => self.merge_group(processor, group),
            _ => processors.iter().for_each(|processor| self.merge(processor)),
        }
        processors
    }

    /// What would contradict what if this were set for a table.
    #[must_use]
    pub fn would_contradict(
        &self,
        processor: &Processor,
        table: Table,
        patch: PolicyPatch,
    ) -> Vec<Contradiction> {
        // Of a processor whose other tables are right only this one can be wrong.
        let group = match &table {
            Table::Group(group) if !self.left_out.contains_key(processor) => Some(group.clone()),
            _ => None,
        };
        let part = |written: &ProcessorPolicy| match &group {
            Some(group) => written.with_group(group),
            None => written.clone(),
        };
        let mut changed = self.live.processors.get(processor).map(part).unwrap_or_default();
        changed.put(table, patch);
        if let Some(configured) = self.configured.processors.get(processor) {
            changed.lay(&part(configured));
        }
        changed.contradictions(processor.as_str(), &self.configured.all)
    }

    /// The policy in force for these, and who gave each of its values. Without a group: that of all groups
    /// without a policy of their own.
    #[must_use]
    pub fn explain(
        &self,
        processor: &Processor,
        group: Option<&Group>,
        priority: Priority,
    ) -> Vec<Explained> {
        let policy = match group {
            Some(group) => self.in_force.resolve(processor, group, priority),
            None => self.in_force.resolve_lane(processor, priority),
        };
        let narrowest_first = group
            .map(|group| Table::Group(group.clone()))
            .into_iter()
            .chain([Table::Priority(priority), Table::Processor]);
        let tables: Vec<_> = narrowest_first.collect();
        self.origins(&policy, processor, &tables)
    }

    /// What was set over the API and is not in force, in words, because the file says otherwise.
    #[must_use]
    pub fn shadowed(&self, processor: &Processor) -> Vec<String> {
        let configured = self.configured.processors.get(processor);
        let mut shadowed = Vec::new();
        if let Some(wrong) = self.left_out.get(processor) {
            shadowed.push(format!(
                "nothing that was set over the API for `{}` is in force, because it contradicts the configuration \
                 file: {}",
                processor.as_str(),
                wrong.message
            ));
        }
        let Some((configured, live)) = configured.zip(self.live.processors.get(processor)) else {
            return shadowed;
        };
        for (table, file) in configured.tables() {
            let Some(live) = live.table(&table) else {
                continue;
            };
            for ((key, live), (_, file)) in live.values().into_iter().zip(file.values()) {
                if let (Some(live), Some(file)) = (live, file) {
                    let at = self.written_at(processor, &table, key);
                    let at = at.map_or_else(String::new, |at| format!(" ({at})"));
                    shadowed.push(format!(
                        "`{key}` of {} was set to {live} over the API; the configuration file says {file}{at}, and wins",
                        table.heading(processor)
                    ));
                }
            }
        }
        shadowed
    }

    /// What is in force for a processor.
    #[must_use]
    pub fn of(&self, processor: &Processor) -> Option<&ProcessorPolicy> {
        self.in_force.processors.get(processor)
    }

    /// Every processor for which something was set over the API.
    pub fn live_processors(&self) -> impl Iterator<Item = &Processor> {
        self.live.processors.keys()
    }

    fn origins(&self, policy: &Policy, processor: &Processor, tables: &[Table]) -> Vec<Explained> {
        let configured = self.configured.processors.get(processor);
        let live = self.live.processors.get(processor);
        let live = live.filter(|_| !self.left_out.contains_key(processor));
        let says = |written: Option<&ProcessorPolicy>, table: &Table, key: &str| {
            let patch = written.and_then(|written| written.table(table));
            patch.is_some_and(|patch| patch.says(key))
        };
        let for_all = |key: &str| {
            let mut tables = tables.iter();
            let table = tables.find(|table| says(Some(&self.configured.all), table, key));
            table.map(|table| Origin::ConfigForAll(table.clone()))
        };
        let origin = |key: &str| {
            let own = tables.iter().find_map(|table| {
                if says(configured, table, key) {
                    Some(Origin::Config(table.clone()))
                } else if says(live, table, key) {
                    Some(Origin::Api(table.clone()))
                } else {
                    None
                }
            });
            own.or_else(|| for_all(key))
        };
        let explained = policy.values().into_iter().map(|(key, value)| {
            let origin = origin(key).unwrap_or(Origin::Default);
            let at = match &origin {
                Origin::Config(table) => self.written_at(processor, table, key),
                Origin::ConfigForAll(table) => {
                    let heading = table.heading_for_all().to_string();
                    self.configured.places.of(&heading, key).cloned()
                }
                Origin::Default | Origin::Api(_) => None,
            };
            Explained {
                key,
                value,
                origin,
                at,
            }
        });
        explained.collect()
    }

    fn written_at(&self, processor: &Processor, table: &Table, key: &str) -> Option<FileLine> {
        let heading = table.heading(processor).to_string();
        self.configured.places.of(&heading, key).cloned()
    }

    /// Puts in force what a processor's tables say.
    fn merge(&mut self, processor: &Processor) {
        let configured = self.configured.processors.get(processor);
        let merged = self.live.processors.get(processor).map(|live| {
            let mut merged = live.clone();
            if let Some(configured) = configured {
                merged.lay(configured);
            }
            merged
        });
        let wrong = merged.as_ref().and_then(|merged| {
            let wrong = merged.contradictions(processor.as_str(), &self.configured.all);
            wrong.into_iter().next()
        });
        let merged = if wrong.is_some() { None } else { merged };
        match merged.or_else(|| configured.cloned()) {
            Some(written) => drop(self.in_force.processors.insert(processor.clone(), written)),
            None => drop(self.in_force.processors.remove(processor)),
        }
        match wrong {
            Some(wrong) => drop(self.left_out.insert(processor.clone(), wrong)),
            None => drop(self.left_out.remove(processor)),
        }
    }

    /// The same, where only the table of a group is another: a processor may have thousands of them.
    fn merge_group(&mut self, processor: &Processor, group: &Group) {
        let configured = self.configured.processors.get(processor);
        let live = self.live.processors.get(processor);
        let Some((live, in_force)) = live.zip(self.in_force.processors.get_mut(processor)) else {
            return self.merge(processor);
        };
        let mut merged = live.with_group(group);
        if let Some(configured) = configured {
            merged.lay(&configured.with_group(group));
        }
        if self.left_out.contains_key(processor)
            || !merged
                .contradictions(processor.as_str(), &self.configured.all)
                .is_empty()
        {
            return self.merge(processor);
        }
        match merged.groups.remove(group) {
            Some(patch) => drop(in_force.groups.insert(group.clone(), patch)),
            None => drop(in_force.groups.remove(group)),
        }
    }
}

#[cfg(test)]
mod tests {
    use joblog::testing::Random;

    use super::*;

    fn orders() -> Processor {
        Processor::parse("orders").unwrap()
    }

    fn patch(pairs: &[(&str, &str)]) -> PolicyPatch {
        let mut patch = PolicyPatch::default();
        for (key, text) in pairs {
            patch.set_text(key, text).unwrap();
        }
        patch
    }

    fn policies(base: &[(&str, &str)]) -> Policies {
        let mut book = PolicyBook::default();
        book.processors.entry(orders()).or_default().base = patch(base);
        Policies::new(book)
    }

    fn set(policies: &mut Policies, table: Table, patch: PolicyPatch) {
        policies.put(&orders(), table, patch);
        assert_eq!(policies.enforce(), BTreeSet::from([orders()]));
    }

    fn origin(policies: &Policies, group: Option<&str>, key: &str) -> (String, Origin) {
        let group = group.map(|group| Group::parse(group).unwrap());
        let all = policies.explain(&orders(), group.as_ref(), Priority::Normal);
        let found = all.into_iter().find(|explained| explained.key == key).unwrap();
        (found.value.unwrap().to_string(), found.origin)
    }

    #[test]
    fn the_file_wins_within_a_table_and_the_narrower_table_over_the_file() {
        let mut policies = policies(&[("max_jobs", "20")]);
        set(
            &mut policies,
            Table::Processor,
            patch(&[("max_jobs", "30"), ("lease", "5s")]),
        );
        assert_eq!(
            origin(&policies, None, "max_jobs"),
            ("20".to_owned(), Origin::Config(Table::Processor))
        );
        assert_eq!(
            origin(&policies, None, "lease"),
            ("5s".to_owned(), Origin::Api(Table::Processor))
        );
        assert_eq!(origin(&policies, None, "backoff").1, Origin::Default);
        assert_eq!(
            policies.shadowed(&orders()),
            [
                "`max_jobs` of [processor.orders] was set to 30 over the API; the configuration file says 20, and wins"
            ]
        );
        let group = Table::Group(Group::parse("order").unwrap());
        set(&mut policies, group.clone(), patch(&[("max_jobs", "40")]));
        assert_eq!(
            origin(&policies, Some("order"), "max_jobs"),
            ("40".to_owned(), Origin::Api(group.clone()))
        );
        assert_eq!(origin(&policies, Some("other"), "max_jobs").0, "20");
        assert!(
            policies
                .in_force()
                .stands_apart(&orders(), &Group::parse("order").unwrap())
        );
        set(&mut policies, group, PolicyPatch::default());
        assert!(
            !policies
                .in_force()
                .stands_apart(&orders(), &Group::parse("order").unwrap())
        );
        set(&mut policies, Table::Processor, PolicyPatch::default());
        assert_eq!(policies.live_processors().count(), 0);
    }

    #[test]
    fn what_is_written_for_all_gives_way_to_a_processors_own_table_whoever_wrote_it() {
        let mut policies = policies(&[("backoff", "1s")]);
        let mut book = policies.in_force().clone();
        book.all.base = patch(&[("max_jobs", "20"), ("backoff", "2s"), ("lease", "9s")]);
        book.all.priorities[Priority::Normal.index()] = patch(&[("lease", "8s")]);
        policies.configure(book);
        assert_eq!(
            origin(&policies, None, "max_jobs"),
            ("20".to_owned(), Origin::ConfigForAll(Table::Processor))
        );
        assert_eq!(
            origin(&policies, Some("order"), "lease"),
            (
                "8s".to_owned(),
                Origin::ConfigForAll(Table::Priority(Priority::Normal))
            )
        );
        assert_eq!(
            origin(&policies, None, "backoff"),
            ("1s".to_owned(), Origin::Config(Table::Processor))
        );
        policies.put(&orders(), Table::Processor, patch(&[("max_jobs", "30")]));
        policies.enforce();
        assert_eq!(
            origin(&policies, None, "max_jobs"),
            ("30".to_owned(), Origin::Api(Table::Processor))
        );
        assert!(policies.shadowed(&orders()).is_empty());
        // It counts for what can be in force together.
        let wrong = policies.would_contradict(&orders(), Table::Processor, patch(&[("min_jobs", "21")]));
        assert_eq!(
            wrong[0].message,
            "processor `orders`: `min_jobs` is 21 and `max_jobs` is 20: no batch could gather that many"
        );
    }

    #[test]
    fn what_contradicts_is_found_before_it_is_set() {
        let policies = policies(&[("max_jobs", "4")]);
        let wrong = |table, pairs: &[(&str, &str)]| {
            let found = policies.would_contradict(&orders(), table, patch(pairs));
            found.into_iter().map(|wrong| wrong.message).collect::<Vec<_>>()
        };
        assert_eq!(
            wrong(Table::Processor, &[("min_jobs", "4")]),
            Vec::<String>::new()
        );
        assert_eq!(
            wrong(Table::Processor, &[("min_jobs", "8")]),
            ["processor `orders`: `min_jobs` is 8 and `max_jobs` is 4: no batch could gather that many"]
        );
        let realtime = wrong(Table::Priority(Priority::Realtime), &[("max_jobs", "8")]);
        assert_eq!(
            realtime,
            ["processor `orders`: `max_jobs` has no use for REALTIME, whose jobs travel alone and at once"]
        );
    }

    #[test]
    fn a_file_that_comes_to_contradict_what_was_set_stays_in_force_alone() {
        let mut policies = policies(&[]);
        set(
            &mut policies,
            Table::Processor,
            patch(&[("min_jobs", "8"), ("lease", "5s")]),
        );
        assert_eq!(origin(&policies, None, "lease").0, "5s");
        let mut book = PolicyBook::default();
        book.processors.entry(orders()).or_default().base = patch(&[("max_jobs", "4")]);
        policies.configure(book);
        assert_eq!(
            origin(&policies, None, "lease"),
            ("30s".to_owned(), Origin::Default)
        );
        let shadowed = policies.shadowed(&orders());
        assert!(shadowed[0].starts_with("nothing that was set over the API for `orders` is in force"));
        policies.configure(PolicyBook::default());
        assert_eq!(origin(&policies, None, "lease").0, "5s");
        assert!(policies.shadowed(&orders()).is_empty());
    }

    /// Tables that agree and tables that do not, of two processors, one of them in the file.
    fn some_table(random: &mut Random) -> (Processor, Table, PolicyPatch) {
        let mut below = |limit: u64| random.next() % limit;
        let name = ["orders", "mail"][usize::from(below(2) == 0)];
        let table = match below(6) {
            0 => Table::Processor,
            1 => Table::Priority(Priority::Slow),
            group => Table::Group(Group::parse(&format!("g{group}")).unwrap()),
        };
        let said = [
            &[][..],
            &[("max_jobs", "20")],
            &[("max_jobs", "4"), ("lease", "5s")],
            &[("min_jobs", "9")],
        ];
        let said = said[usize::try_from(below(4)).unwrap()];
        (Processor::parse(name).unwrap(), table, patch(said))
    }

    #[test]
    fn one_table_after_the_other_comes_to_the_same_as_all_at_once() {
        let mut contradicted = 0;
        for seed in 0..200 {
            let mut random = Random(seed);
            let mut book = PolicyBook::default();
            let written = book.processors.entry(orders()).or_default();
            written.base = patch(&[("max_delay", "9ms")]);
            written
                .groups
                .insert(Group::parse("g2").unwrap(), PolicyPatch::default());
            written
                .groups
                .insert(Group::parse("g3").unwrap(), patch(&[("max_jobs", "6")]));
            let mut singly = Policies::new(book.clone());
            let mut all = Vec::new();
            for _ in 0..30 {
                let (processor, table, patch) = some_table(&mut random);
                let wrong = singly.would_contradict(&processor, table.clone(), patch.clone());
                singly.put(&processor, table.clone(), patch.clone());
                singly.enforce();
                assert_eq!(
                    wrong.is_empty(),
                    !singly.left_out.contains_key(&processor),
                    "seed {seed}"
                );
                contradicted += usize::from(!wrong.is_empty());
                all.push((processor, table, patch));
                let mut at_once = Policies::new(book.clone());
                for (processor, table, patch) in &all {
                    at_once.put(processor, table.clone(), patch.clone());
                }
                at_once.enforce();
                assert_eq!(singly.in_force, at_once.in_force, "seed {seed}: {all:?}");
                assert_eq!(singly.left_out, at_once.left_out, "seed {seed}: {all:?}");
                assert_eq!(singly.live, at_once.live);
            }
        }
        assert!(contradicted > 100, "{contradicted}");
    }

    /// With work that grows with the square of them this takes minutes.
    #[test]
    fn ten_thousand_tables_come_into_force() {
        let mut policies = policies(&[("max_jobs", "20")]);
        for number in 0..10_000 {
            let group = Group::parse(&format!("g{number}")).unwrap();
            let processor = if number % 2 == 0 {
                orders()
            } else {
                Processor::parse(&format!("p{number}")).unwrap()
            };
            policies.put(&processor, Table::Group(group), patch(&[("lease", "5s")]));
        }
        assert_eq!(policies.enforce().len(), 5_001);
        // One more is no more work than the first.
        for number in 0..2_000 {
            let table = || Table::Group(Group::parse(&format!("g{number}")).unwrap());
            let said = patch(&[("max_jobs", "7")]);
            assert!(
                policies
                    .would_contradict(&orders(), table(), said.clone())
                    .is_empty()
            );
            set(&mut policies, table(), said);
        }
        assert_eq!(policies.of(&orders()).unwrap().groups.len(), 5_000 + 1_000);
        assert_eq!(origin(&policies, Some("g1999"), "max_jobs").0, "7");
        assert!(policies.shadowed(&orders()).is_empty());
    }
}
