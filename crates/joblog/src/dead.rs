//! The dead: jobs that were given up, and whose results can still be read, counted by lane.
//!
//! In: jobs as they end so, and as their results go. Out: how many there are. The index owns it. They are few; each
//! takes about 40 bytes until its result goes, so that there are no more than results.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::hash::{IdMap, Seed};
use crate::ids::{JobId, Priority};

pub(crate) struct Dead {
    /// The lane of each, by its place in `lanes`.
    jobs: IdMap<JobId, usize>,
    lanes: Vec<Lane>,
    /// Where a processor's lanes are: three in a row.
    processors: BTreeMap<Arc<str>, usize>,
}

struct Lane {
    processor: Arc<str>,
    priority: Priority,
    jobs: u64,
}

impl Dead {
    pub(crate) fn new(seed: Seed) -> Self {
        Self {
            jobs: IdMap::with_hasher(seed),
            lanes: Vec::new(),
            processors: BTreeMap::new(),
        }
    }

    pub(crate) fn enter(&mut self, id: JobId, processor: &str, priority: Priority) {
        let first = self.processors.get(processor).copied().unwrap_or_else(|| {
            let (first, name) = (self.lanes.len(), Arc::<str>::from(processor));
            self.lanes.extend(Priority::ALL.map(|priority| Lane {
                processor: Arc::clone(&name),
                priority,
                jobs: 0,
            }));
            self.processors.insert(name, first);
            first
        });
        let place = Priority::ALL.iter().position(|other| *other == priority);
        let lane = first + place.unwrap_or(0);
        if self.jobs.insert(id, lane).is_none() {
            self.lanes[lane].jobs += 1;
        }
    }

    pub(crate) fn leave(&mut self, id: JobId) {
        if let Some(lane) = self.jobs.remove(&id) {
            self.lanes[lane].jobs -= 1;
        }
    }

    /// The lanes that have some, and how many.
    pub(crate) fn lanes(&self) -> impl Iterator<Item = (&Arc<str>, Priority, u64)> {
        let some = self.lanes.iter().filter(|lane| lane.jobs > 0);
        some.map(|lane| (&lane.processor, lane.priority, lane.jobs))
    }
}
