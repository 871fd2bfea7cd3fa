//! docs/buses.md is compared with what the buses say of themselves.

use jitney::bus::{Bus, Capabilities};
use jitney::clock::Now;

use crate::harness::{Harness, Memory};
use crate::sim_log::SimLog;

const DOCS: &str = include_str!("../../../../docs/buses.md");

/// One of the capabilities.
type Fact = fn(&Capabilities) -> bool;

#[test]
fn the_documented_capabilities_are_those_of_the_buses() {
    let memory = Memory::new().open(Now::default()).capabilities();
    let log = SimLog::new().open(Now::default()).capabilities();
    assert_eq!((memory.name, log.name), ("memory", "log"));
    let facts: [(&str, Fact); 5] = [
        ("durable", |can| can.durable),
        ("follow", |can| can.follow),
        ("atomic_children", |can| can.atomic_children),
        ("durable_keys", |can| can.durable_keys),
        ("point_reads", |can| can.point_reads),
    ];
    let word = |can: bool| if can { "yes" } else { "no" };
    for (name, fact) in facts {
        let row = format!("| `{name}` | {} | {} |", word(fact(&memory)), word(fact(&log)));
        assert!(DOCS.contains(&row), "docs/buses.md has the row `{row}`");
    }
}
