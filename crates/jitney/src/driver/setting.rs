//! Settings by name, as the bus keeps them (docs/log_format.md, section 11): what an operator changed in the
//! running server, and a restart must find again.
//!
//! `pause/PROCESSOR/PRIORITY` is there while the lane is paused; its value is `true`.
//! `policy/PROCESSOR`, `policy/PROCESSOR/priority/PRIORITY`, `policy/PROCESSOR/group/GROUP` hold what was set over
//! the API for that table, a JSON object. What this version cannot read it leaves alone, and says so.

use std::fmt;

use serde_json::{Map, Value};

use crate::job::{Group, Priority, Processor};
use crate::policy::{PolicyPatch, Shown, Table};

/// What a setting is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Whether a lane is paused.
    Pause(Processor, Priority),
    /// What was set for a table.
    Policy(Processor, Table),
}

/// The value of a pause.
pub(super) const PAUSED: &[u8] = b"true";

impl Name {
    /// The setting of that name; `None` if it is of another version.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.split('/');
        let kind = parts.next()?;
        let processor = Processor::parse(parts.next()?)?;
        let rest: Vec<_> = parts.collect();
        match (kind, rest.as_slice()) {
            ("pause", [lane]) => Some(Self::Pause(processor, priority(lane)?)),
            ("policy", []) => Some(Self::Policy(processor, Table::Processor)),
            ("policy", ["priority", lane]) => Some(Self::Policy(processor, Table::Priority(priority(lane)?))),
            ("policy", ["group", group]) => Some(Self::Policy(processor, Table::Group(Group::parse(group)?))),
            _ => None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pause(processor, lane) => write!(f, "pause/{}/{}", processor.as_str(), lane.name()),
            Self::Policy(processor, Table::Processor) => write!(f, "policy/{}", processor.as_str()),
            Self::Policy(processor, Table::Priority(lane)) => {
                write!(f, "policy/{}/priority/{}", processor.as_str(), lane.name())
            }
            Self::Policy(processor, Table::Group(group)) => {
                write!(f, "policy/{}/group/{}", processor.as_str(), group.as_str())
            }
        }
    }
}

/// A patch as it is kept; `None` removes the setting, because it says nothing.
pub(super) fn encode(patch: &PolicyPatch) -> Option<Vec<u8>> {
    let said = patch.values().into_iter();
    let said = said.filter_map(|(key, value)| Some((key.to_owned(), json(value?))));
    let mut object: Map<String, Value> = said.collect();
    // The same patch is the same bytes, whatever the order of the table of keys.
    object.sort_keys();
    (!object.is_empty()).then(|| Value::Object(object).to_string().into_bytes())
}

/// A patch as it was kept, and what in it this version cannot read.
pub(super) fn decode(bytes: &[u8]) -> (PolicyPatch, Vec<String>) {
    let mut patch = PolicyPatch::default();
    let object: Map<String, Value> = match serde_json::from_slice(bytes) {
        Ok(object) => object,
        Err(error) => return (patch, vec![error.to_string()]),
    };
    let mut unread = Vec::new();
    for (key, value) in object {
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        if let Err(why) = patch.set_text(&key, &text) {
            unread.push(format!("`{key}`: {why}"));
        }
    }
    (patch, unread)
}

fn json(value: Shown) -> Value {
    match value {
        Shown::Number(number) => number.into(),
        Shown::Switch(on) => on.into(),
        Shown::Text(text) => text.into(),
    }
}

fn priority(name: &str) -> Option<Priority> {
    Priority::ALL.into_iter().find(|priority| priority.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_others_are_left_alone() {
        for name in [
            "pause/orders/SLOW",
            "policy/orders",
            "policy/orders/priority/REALTIME",
            "policy/orders/group/order.paid",
        ] {
            assert_eq!(Name::parse(name).unwrap().to_string(), name);
        }
        for name in [
            "",
            "pause",
            "pause/orders",
            "pause/orders/slow",
            "pause/orders/SLOW/x",
            "policy",
            "policy/-",
            "policy/orders/group",
            "policy/orders/lane/SLOW",
            "rate/orders",
        ] {
            assert_eq!(Name::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_patch_reads_back_and_what_is_newer_is_named() {
        let mut patch = PolicyPatch::default();
        assert_eq!(encode(&patch), None);
        for (key, text) in [("max_jobs", "20"), ("lease", "5s"), ("idle_flush", "false")] {
            patch.set_text(key, text).unwrap();
        }
        let bytes = encode(&patch).unwrap();
        assert_eq!(bytes, br#"{"idle_flush":false,"lease":"5s","max_jobs":20}"#);
        assert_eq!(decode(&bytes), (patch.clone(), Vec::new()));
        let newer = br#"{"idle_flush":false,"lease":"5s","max_jobs":20,"warp":9,"backoff":"soon"}"#;
        let (read, unread) = decode(newer);
        assert_eq!(read, patch);
        assert_eq!(unread.len(), 2, "{unread:?}");
        assert_eq!(decode(b"[]").0, PolicyPatch::default());
    }
}
