//! Every value in force, and where it comes from.
//!
//! In: a configuration, with what was written. Out: one entry per key, in the order of the reference: of `[server]`,
//! of each processor that is named, of all others, of each route. No key holds a secret; one that does will be
//! shown as `(secret)`.

use toml::de::DeTable;

use super::value::typed;
use super::{Config, DEFAULT_TOML, Place, Written, route, server};
use crate::job::{Priority, Processor};
use crate::policy::{Policy, ProcessorPolicy, Table};

/// A value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The table, or for policies the lane: `[processor.orders] NORMAL`.
    pub title: String,
    /// The key.
    pub key: String,
    /// The value, as it can be written.
    pub value: String,
    /// Where it was set; `None`: it is the default.
    pub place: Option<Place>,
}

/// Shows a configuration.
#[must_use]
pub fn show(config: &Config) -> Vec<Shown> {
    let mut shown = of_server(&config.written);
    for (name, written) in &config.options.policies.processors {
        of_processor(config, name, written, &mut shown);
    }
    for priority in Priority::ALL {
        let policy = config.options.policies.resolve_others(priority);
        let [base, lane] = for_all(priority);
        let title = format!("{base} {priority}");
        of_policy(&title, &policy, config, &[&base, &lane], &mut shown);
    }
    of_routes(&config.written, &mut shown);
    shown
}

fn of_server(written: &[Written]) -> Vec<Shown> {
    let title = "[server]";
    // A test holds the reference to the defaults of the code.
    let reference = DeTable::parse(DEFAULT_TOML).expect("the reference is TOML: a test reads it");
    let defaults = reference
        .get_ref()
        .get(title.trim_matches(['[', ']']))
        .and_then(|table| table.get_ref().as_table());
    let value = |key: &str| {
        let value = defaults.and_then(|table| table.get(key));
        value.map_or_else(String::new, |value| typed(value.get_ref()).to_string())
    };
    let key = |key: &&'static str| match last(written, title, key) {
        Some(found) => entry(title, key, &found.value, Some(&found.place)),
        None => entry(title, key, &value(key), None),
    };
    let keys: Vec<_> = server::KEYS.iter().map(|key| key.name).collect();
    keys.iter().map(key).collect()
}

fn of_processor(config: &Config, name: &Processor, written: &ProcessorPolicy, shown: &mut Vec<Shown>) {
    let base = format!("[processor.{}]", name.as_str());
    let policies = &config.options.policies;
    for priority in Priority::ALL {
        let [all, all_lane] = for_all(priority);
        let lane = format!("[processor.{}.priority.{priority}]", name.as_str());
        let policy = policies.resolve_lane(name, priority);
        let title = format!("{base} {priority}");
        of_policy(&title, &policy, config, &[&all, &all_lane, &base, &lane], shown);
        for group in written.groups.keys() {
            let narrow = format!("[processor.{}.group.{}]", name.as_str(), group.as_str());
            let policy = policies.resolve(name, group, priority);
            let title = format!("{narrow} {priority}");
            let tables = [&*all, &all_lane, &base, &lane, &narrow];
            of_policy(&title, &policy, config, &tables, shown);
        }
    }
}

/// The headings of what is written for all processors.
fn for_all(priority: Priority) -> [String; 2] {
    [Table::Processor, Table::Priority(priority)].map(|table| table.heading_for_all().to_string())
}

/// `tables`: those that say something of this policy, the widest first.
fn of_policy(title: &str, policy: &Policy, config: &Config, tables: &[&str], shown: &mut Vec<Shown>) {
    for (key, value) in policy.values() {
        let value = value.map_or_else(
            || format!("as [server] has it, {}", server_value(config, key)),
            |value| value.to_string(),
        );
        let place = tables
            .iter()
            .rev()
            .find_map(|table| last(&config.written, table, key))
            .map(|written| &written.place);
        shown.push(entry(title, key, &value, place));
    }
}

fn server_value(config: &Config, key: &str) -> String {
    of_server(&config.written)
        .into_iter()
        .find(|shown| shown.key == key)
        .map_or_else(String::new, |shown| shown.value)
}

fn of_routes(written: &[Written], shown: &mut Vec<Shown>) {
    let routes: Vec<&Written> = written
        .iter()
        .filter(|written| written.title == "[[route]]")
        .collect();
    let mut tables: Vec<usize> = routes.iter().map(|written| written.table).collect();
    tables.dedup();
    for table in tables {
        let of_route = || routes.iter().filter(move |written| written.table == table);
        let path = of_route().find(|written| written.key == "path");
        let title = format!("[[route]] {}", path.map_or("", |written| written.value.as_str()));
        for key in route::KEYS.iter().map(|key| key.name) {
            let found = of_route().find(|written| written.key == key);
            let default = route::DEFAULTS.iter().find(|(name, _)| *name == key);
            match (found, default) {
                (Some(found), _) => shown.push(entry(&title, key, &found.value, Some(&found.place))),
                (None, Some((_, value))) => shown.push(entry(&title, key, value, None)),
                (None, None) => {}
            }
        }
        for found in of_route().filter(|written| written.key.starts_with("status.")) {
            shown.push(entry(&title, &found.key, &found.value, Some(&found.place)));
        }
    }
}

fn last<'a>(written: &'a [Written], title: &str, key: &str) -> Option<&'a Written> {
    written
        .iter()
        .rfind(|written| written.key == key && written.title == title)
}

fn entry(title: &str, key: &str, value: &str, place: Option<&Place>) -> Shown {
    Shown {
        title: title.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
        place: place.cloned(),
    }
}
