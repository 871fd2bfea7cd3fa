//! Values that cannot be in force together. Where they were written is their reader's affair.

use std::time::Duration;

use super::{Policy, PolicyPatch, ProcessorPolicy};
use crate::job::Priority;
use crate::units::format_duration;

/// The most jobs of a batch: its answer must be held in memory, and settled in one request.
const BATCH_JOBS_MAX: u32 = 10_000;

/// The shortest lease: a worker must be able to extend it over a network.
const LEASE_MIN: Duration = Duration::from_millis(100);

/// What contradicts what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    /// What is wrong, with the names and numbers in it.
    pub message: String,
    /// The keys that say so, the likeliest culprit first.
    pub keys: &'static [&'static str],
    /// What to do.
    pub hint: Option<&'static str>,
}

impl ProcessorPolicy {
    /// Every contradiction in what can be in force together, each once. `name` is the processor's, `all` what is
    /// written for all processors.
    #[must_use]
    pub fn contradictions(&self, name: &str, all: &Self) -> Vec<Contradiction> {
        let mut found = isolated(name, &self.priorities[Priority::Realtime.index()]);
        let below = self.priorities[1..].iter().chain(self.groups.values());
        if below.into_iter().any(|table| table.realtime_reserve.is_some()) {
            found.push(Contradiction {
                message: format!(
                    "processor `{name}`: `realtime_reserve` counts slots of the whole processor"
                ),
                keys: &["realtime_reserve"],
                hint: Some("set it for the processor"),
            });
        }
        for priority in Priority::ALL {
            for group in std::iter::once(None).chain(self.groups.values().map(Some)) {
                let mut patch = all.lane(priority);
                patch.lay(&self.lane(priority));
                if let Some(group) = group {
                    patch.lay(group);
                }
                found.extend(together(name, priority, &patch));
            }
        }
        let mut once = Vec::with_capacity(found.len());
        for contradiction in found {
            if !once.contains(&contradiction) {
                once.push(contradiction);
            }
        }
        once
    }
}

/// What is wrong with the tables in force together for a lane, laid one over the other.
pub(crate) fn together(name: &str, priority: Priority, patch: &PolicyPatch) -> Vec<Contradiction> {
    let mut found = Vec::new();
    let policy = patch.over_defaults(priority);
    if priority != Priority::Realtime {
        jobs(name, patch, &policy, &mut found);
    }
    times(name, &policy, &mut found);
    found
}

/// REALTIME jobs travel alone and at once; a table that says otherwise is a misunderstanding.
pub(crate) fn isolated(name: &str, realtime: &PolicyPatch) -> Vec<Contradiction> {
    let many = |jobs: Option<u32>| jobs.is_some_and(|jobs| jobs > 1);
    let contradicts: [(&'static [&'static str], bool); 3] = [
        (&["max_jobs"], many(realtime.max_jobs)),
        (&["min_jobs"], many(realtime.min_jobs)),
        (
            &["max_delay"],
            realtime.max_delay.is_some_and(|delay| !delay.is_zero()),
        ),
    ];
    let found = contradicts.into_iter().filter(|(_, contradicts)| *contradicts);
    found
        .map(|(keys, _)| Contradiction {
            message: format!(
                "processor `{name}`: `{}` has no use for REALTIME, whose jobs travel alone and at once",
                keys[0]
            ),
            keys,
            hint: Some("set it for NORMAL or SLOW, or for the processor"),
        })
        .collect()
}

fn jobs(name: &str, patch: &PolicyPatch, policy: &Policy, found: &mut Vec<Contradiction>) {
    let max = policy.max_jobs;
    if let Some(min) = patch.min_jobs
        && min > max
    {
        found.push(Contradiction {
            message: format!(
                "processor `{name}`: `min_jobs` is {min} and `max_jobs` is {max}: no batch could gather that many"
            ),
            keys: &["min_jobs", "max_jobs"],
            hint: Some("lower `min_jobs`, or raise `max_jobs`"),
        });
    }
    if max > BATCH_JOBS_MAX {
        found.push(Contradiction {
            message: format!(
                "processor `{name}`: `max_jobs` is {max}, above the most possible, {BATCH_JOBS_MAX}"
            ),
            keys: &["max_jobs"],
            hint: None,
        });
    }
}

fn times(name: &str, policy: &Policy, found: &mut Vec<Contradiction>) {
    let lease = format_duration(policy.lease);
    if policy.lease < LEASE_MIN {
        let least = format_duration(LEASE_MIN);
        found.push(Contradiction {
            message: format!("processor `{name}`: `lease` is {lease}, below the least possible, {least}"),
            keys: &["lease"],
            hint: None,
        });
    }
    if policy.heartbeat > policy.lease / 2 {
        let heartbeat = format_duration(policy.heartbeat);
        found.push(Contradiction {
            message: format!(
                "processor `{name}`: `heartbeat` is {heartbeat}, more than half of `lease` ({lease}): one lost heartbeat would lose the batch"
            ),
            keys: &["heartbeat", "lease"],
            hint: Some("leave `heartbeat` out: it is a third of `lease`"),
        });
    }
    if policy.batch_timeout < policy.lease {
        let timeout = format_duration(policy.batch_timeout);
        found.push(Contradiction {
            message: format!("processor `{name}`: `batch_timeout` is {timeout}, less than `lease` ({lease})"),
            keys: &["batch_timeout", "lease"],
            hint: Some("raise `batch_timeout`, or lower `lease`"),
        });
    }
    if policy.backoff > policy.backoff_max {
        let (first, max) = (
            format_duration(policy.backoff),
            format_duration(policy.backoff_max),
        );
        found.push(Contradiction {
            message: format!("processor `{name}`: `backoff` is {first}, more than `backoff_max` ({max})"),
            keys: &["backoff", "backoff_max"],
            hint: Some("raise `backoff_max`, or lower `backoff`"),
        });
    }
}
