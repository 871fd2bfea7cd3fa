//! How jobs gather into batches, who goes first, and what happens when a try fails.
//!
//! A [`PolicyBook`] holds what was written, as patches over the defaults; [`PolicyBook::resolve`] gives the
//! [`Policy`] in force for one processor, group and priority. Narrower wins: group over priority over
//! processor over what is written for all processors (again priority over the rest) over default.

mod check;
mod keys;
mod live;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use check::Contradiction;
pub(crate) use check::{isolated, together};
pub use keys::Shown;
pub(crate) use keys::{KEYS, LATER_KEYS};
pub(crate) use live::FOR_ALL;
pub use live::{Configured, Explained, Origin, Policies, Table};

use crate::job::{Group, Priority, Processor};

/// Everything that is decided by configuration about one kind of job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Most jobs in a batch. Default 64; 1 for REALTIME, whatever is written.
    pub max_jobs: u32,
    /// Most wire bytes in a batch, checked before a job is added; a single larger job goes alone. Default 1 MiB.
    pub max_bytes: u64,
    /// NORMAL: this many jobs close a batch. Default 8, or `max_jobs` if smaller.
    pub min_jobs: u32,
    /// The oldest job waits at most this long for others. Default 0 REALTIME, 5 ms NORMAL, 250 ms SLOW.
    pub max_delay: Duration,
    /// NORMAL: a batch closes at once while nothing of its queue is in flight. Default on.
    pub idle_flush: bool,
    /// Which jobs of a lane may not share a batch. Default: any may.
    pub group_by: GroupBy,
    /// The share of the jobs dispatched that this lane is owed while lanes above it are busy.
    pub lower_lane_share: LaneShare,
    /// So many slots of the processor's workers take no lower lane. Of the whole processor: what REALTIME's own
    /// table or the processor's says. Default 0.
    pub realtime_reserve: u32,
    /// How long a lease lasts without a heartbeat. Default 30 s.
    pub lease: Duration,
    /// How often a worker should extend. Default a third of `lease`.
    pub heartbeat: Duration,
    /// A lease ends this long after it was granted, heartbeats or not. Default 10 min.
    pub batch_timeout: Duration,
    /// Counted tries before a job is given up. Default 5.
    pub max_attempts: u32,
    /// Delay before the second try; doubles with each. Default 200 ms.
    pub backoff: Duration,
    /// The longest delay between tries. Default 60 s.
    pub backoff_max: Duration,
    /// Crashes after which a job that is alone is given up. Default 3.
    pub max_crashes: u32,
    /// How long a finished job stays readable. `None`: the server's `result_ttl`.
    pub result_ttl: Option<Duration>,
}

/// A lower lane is owed one job after so many jobs of the lanes above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneShare {
    /// Jobs of the lanes above per owed job: 15 for a share of 1/16. `None`: strict priority, never owed.
    pub above: Option<u32>,
}

/// What keeps a batch homogeneous: each value gathers, lingers and is flushed by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GroupBy {
    /// Nothing: any jobs of a lane travel together.
    #[default]
    None,
    /// The group.
    Group,
    /// The job's `key`; jobs without one travel together.
    Key,
}

/// What one table of the configuration says; absent means "as the wider table has it".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyPatch {
    /// See [`Policy::max_jobs`].
    pub max_jobs: Option<u32>,
    /// See [`Policy::max_bytes`].
    pub max_bytes: Option<u64>,
    /// See [`Policy::min_jobs`].
    pub min_jobs: Option<u32>,
    /// See [`Policy::max_delay`].
    pub max_delay: Option<Duration>,
    /// See [`Policy::idle_flush`].
    pub idle_flush: Option<bool>,
    /// See [`Policy::group_by`].
    pub group_by: Option<GroupBy>,
    /// See [`Policy::lower_lane_share`].
    pub lower_lane_share: Option<LaneShare>,
    /// See [`Policy::realtime_reserve`].
    pub realtime_reserve: Option<u32>,
    /// See [`Policy::lease`].
    pub lease: Option<Duration>,
    /// See [`Policy::heartbeat`].
    pub heartbeat: Option<Duration>,
    /// See [`Policy::batch_timeout`].
    pub batch_timeout: Option<Duration>,
    /// See [`Policy::max_attempts`].
    pub max_attempts: Option<u32>,
    /// See [`Policy::backoff`].
    pub backoff: Option<Duration>,
    /// See [`Policy::backoff_max`].
    pub backoff_max: Option<Duration>,
    /// See [`Policy::max_crashes`].
    pub max_crashes: Option<u32>,
    /// See [`Policy::result_ttl`].
    pub result_ttl: Option<Duration>,
}

/// What is written for one processor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessorPolicy {
    /// `[processor.NAME]`.
    pub base: PolicyPatch,
    /// `[processor.NAME.priority.PRIORITY]`, by [`Priority::index`].
    pub priorities: [PolicyPatch; 3],
    /// `[processor.NAME.group.GROUP]`. A group named here is never mixed with others in a batch.
    pub groups: BTreeMap<Group, PolicyPatch>,
}

/// All that is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyBook {
    /// `[processor."*"]`: the defaults of all processors. It has no groups: each processor names its own.
    pub all: Box<ProcessorPolicy>,
    /// By processor; one that is absent has the defaults.
    pub processors: BTreeMap<Processor, ProcessorPolicy>,
    /// Where it is written, as far as it is in a file.
    pub places: Places,
}

/// Where the keys of a policy stand in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// By the heading of the table, and the key. A book is copied with every change, and this is not.
    places: Arc<BTreeMap<(String, String), FileLine>>,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLine {
    /// The file, as the server was told of it.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl Default for LaneShare {
    fn default() -> Self {
        Self { above: Some(15) }
    }
}

impl Places {
    /// Those of a file: the heading of the table, the key, and the line.
    #[must_use]
    pub fn new(written: impl IntoIterator<Item = (String, String, FileLine)>) -> Self {
        let places = written.into_iter();
        let places = places.map(|(heading, key, at)| ((heading, key), at));
        Self {
            places: Arc::new(places.collect()),
        }
    }

    /// Where a key of the table with this heading stands; `None` if nobody wrote it into a file.
    #[must_use]
    pub fn of(&self, heading: &str, key: &str) -> Option<&FileLine> {
        self.places.get(&(heading.to_owned(), key.to_owned()))
    }
}

impl fmt::Display for FileLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

impl PolicyBook {
    /// The policy in force for these.
    #[must_use]
    pub fn resolve(&self, processor: &Processor, group: &Group, priority: Priority) -> Policy {
        self.patch(processor, Some(group), priority)
            .over_defaults(priority)
    }

    /// The policy in force for a lane: for its share, and for all groups without a policy of their own.
    #[must_use]
    pub fn resolve_lane(&self, processor: &Processor, priority: Priority) -> Policy {
        self.patch(processor, None, priority).over_defaults(priority)
    }

    /// The policy in force for the lanes of every processor that is not named.
    #[must_use]
    pub fn resolve_others(&self, priority: Priority) -> Policy {
        self.all.lane(priority).over_defaults(priority)
    }

    /// What all the tables say of these, the narrower over the wider.
    fn patch(&self, processor: &Processor, group: Option<&Group>, priority: Priority) -> PolicyPatch {
        let mut patch = self.all.lane(priority);
        if let Some(written) = self.processors.get(processor) {
            patch.lay(&written.lane(priority));
            if let Some(group) = group.and_then(|group| written.groups.get(group)) {
                patch.lay(group);
            }
        }
        patch
    }

    /// Whether any table groups by the jobs' keys.
    #[must_use]
    pub fn groups_by_key(&self) -> bool {
        let all = std::iter::once(&*self.all).chain(self.processors.values());
        let mut tables = all.flat_map(|written| {
            let lanes = std::iter::once(&written.base).chain(&written.priorities);
            lanes.chain(written.groups.values())
        });
        tables.any(|table| table.group_by == Some(GroupBy::Key))
    }

    /// Whether the group has a policy of its own, so that its jobs are never mixed with others.
    #[must_use]
    pub fn stands_apart(&self, processor: &Processor, group: &Group) -> bool {
        self.processors
            .get(processor)
            .is_some_and(|written| written.groups.contains_key(group))
    }
}

impl ProcessorPolicy {
    /// What it says of a lane, but for its groups.
    pub(crate) fn lane(&self, priority: Priority) -> PolicyPatch {
        let mut patch = self.base.clone();
        patch.lay(&self.priorities[priority.index()]);
        patch
    }
}

impl PolicyPatch {
    /// The policy that this patch makes of the defaults of a lane.
    #[must_use]
    pub fn over_defaults(&self, priority: Priority) -> Policy {
        let isolated = priority == Priority::Realtime;
        let max_jobs = if isolated {
            1
        } else {
            self.max_jobs.unwrap_or(64).max(1)
        };
        let lease = self.lease.unwrap_or(Duration::from_secs(30));
        let delay = match priority {
            Priority::Realtime => Duration::ZERO,
            Priority::Normal => Duration::from_millis(5),
            Priority::Slow => Duration::from_millis(250),
        };
        Policy {
            max_jobs,
            max_bytes: self.max_bytes.unwrap_or(1 << 20),
            min_jobs: self.min_jobs.unwrap_or(8).clamp(1, max_jobs),
            max_delay: if isolated {
                delay
            } else {
                self.max_delay.unwrap_or(delay)
            },
            idle_flush: self.idle_flush.unwrap_or(true),
            group_by: self.group_by.unwrap_or_default(),
            lower_lane_share: self.lower_lane_share.unwrap_or_default(),
            realtime_reserve: self.realtime_reserve.unwrap_or(0),
            lease,
            heartbeat: self.heartbeat.unwrap_or(lease / 3),
            batch_timeout: self.batch_timeout.unwrap_or(Duration::from_mins(10)),
            max_attempts: self.max_attempts.unwrap_or(5).max(1),
            backoff: self.backoff.unwrap_or(Duration::from_millis(200)),
            backoff_max: self.backoff_max.unwrap_or(Duration::from_mins(1)),
            max_crashes: self.max_crashes.unwrap_or(3).max(1),
            result_ttl: self.result_ttl,
        }
    }
}
