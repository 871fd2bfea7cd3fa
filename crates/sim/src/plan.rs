//! What one seed is about: its bus, processors, policies, limits, and how much goes wrong.

use std::collections::BTreeMap;
use std::time::Duration;

use jitney::job::{Group, Priority, Processor};
use jitney::limits::Limits;
use jitney::policy::{GroupBy, LaneShare, PolicyBook, PolicyPatch, ProcessorPolicy};

use crate::random::Rng;

/// The draw of a seed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Jobs live in memory only: no restart.
    pub memory: bool,
    pub processors: Vec<Processor>,
    pub groups: Vec<Group>,
    pub policies: PolicyBook,
    pub limits: Limits,
    /// The longest that one step of a commit takes without a stall, microseconds.
    pub io_max: u64,
    /// The longest way of a message, microseconds.
    pub net_max: u64,
    /// New orders come about so far apart, microseconds.
    pub order_gap: u64,
    /// Orders come in crowds of at most so many.
    pub crowd_max: u64,
    /// How many in a thousand crowds are one caller with many orders.
    pub together: u64,
    /// How many in a thousand are REALTIME, and SLOW.
    pub realtime: u64,
    pub slow: u64,
    /// Faults come about so far apart, microseconds.
    pub fault_gap: u64,
    /// An operator changes something about so far apart, microseconds.
    pub control_gap: u64,
    /// How many in a thousand of worker's batches go wrong in some way.
    pub mischief: u64,
    /// How many in a thousand connections die.
    pub hangups: u64,
    pub workers: u64,
    pub segment_bytes: u64,
    pub faults: Faults,
}

/// Which faults the seed knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub kill: bool,
    pub power: bool,
    pub disk_full: bool,
    pub failed_sync: bool,
    pub failed_write: bool,
    pub wall_jumps: bool,
    pub stops: bool,
    pub stalls: bool,
    pub policy_changes: bool,
    /// An operator pauses lanes, resumes them, and sets policies.
    pub controls: bool,
    /// Power is cut right after some answers, where a promise was just made.
    pub after_answers: bool,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let memory = rng.permille(100);
        let processors: Vec<_> = ["orders", "mail", "audit"]
            .into_iter()
            .take(rng.index(3) + 1)
            .map(Processor::trusted)
            .collect();
        let groups: Vec<_> = ["default", "bulk", "alone"]
            .into_iter()
            .take(rng.index(3) + 1)
            .map(Group::trusted)
            .collect();
        let policies = draw_policies(&processors, rng);
        // Most seeds are quiet in most ways, so that each fault also meets a world that is otherwise well.
        let on = |rng: &mut Rng, permille: u64| rng.permille(permille);
        let faults = Faults {
            kill: !memory && on(rng, 600),
            power: !memory && on(rng, 700),
            disk_full: !memory && on(rng, 250),
            failed_sync: !memory && on(rng, 250),
            failed_write: !memory && on(rng, 150),
            wall_jumps: on(rng, 400),
            stops: !memory && on(rng, 300),
            stalls: !memory && on(rng, 300),
            policy_changes: on(rng, 300),
            controls: on(rng, 500),
            after_answers: !memory && on(rng, 400),
        };
        let busy = rng.permille(300);
        let limits = draw_limits(rng);
        let mut plan = Self {
            memory,
            policies,
            limits,
            io_max: if rng.permille(300) { 200_000 } else { 5_000 },
            net_max: if rng.permille(300) { 500_000 } else { 2_000 },
            order_gap: if busy {
                rng.range(100, 2_000)
            } else {
                rng.range(2_000, 2_000_000)
            },
            crowd_max: if busy { 40 } else { 8 },
            together: *rng.pick(&[0, 150, 600]).unwrap_or(&0),
            realtime: *rng.pick(&[0, 100, 400, 850]).unwrap_or(&0),
            slow: *rng.pick(&[0, 100, 300]).unwrap_or(&0),
            fault_gap: rng.range(50_000, 20_000_000),
            control_gap: rng.range(20_000, 5_000_000),
            mischief: *rng.pick(&[0, 50, 200, 500]).unwrap_or(&0),
            hangups: *rng.pick(&[0, 20, 150]).unwrap_or(&0),
            workers: rng.range(1, 6),
            segment_bytes: *rng.pick(&[64 << 10, 128 << 10]).unwrap_or(&(64 << 10)),
            processors,
            groups,
            faults,
        };
        plan.bound_log(&mut rng.clone());
        plan
    }

    /// Where what ended is soon forgotten, the log may also be as small as it can be at all: once everything is worked
    /// off, it must take jobs again.
    fn bound_log(&mut self, rng: &mut Rng) {
        let forgets = self.limits.result_ttl < Duration::from_mins(1);
        if forgets && rng.permille(400) {
            self.limits.log_bytes_max = Some(3 * self.segment_bytes);
        }
    }
}

fn draw_limits(rng: &mut Rng) -> Limits {
    let days = Duration::from_hours(24 * 60);
    // Sometimes results go soon, and segments are copied; else everything must be remembered to the end.
    let forgetful = rng.permille(350);
    let soon = Duration::from_secs(rng.range(3, 30));
    let short_queue = rng.permille(100);
    Limits {
        jobs_max: if short_queue { 20 } else { 100_000 },
        // Two of the largest jobs: the simulated disk stalls now and then.
        queued_bytes_max: if short_queue { 8 << 10 } else { 64 << 20 },
        job_bytes_max: 4 << 10,
        body_bytes_max: 16 << 10,
        waiters_max: if rng.permille(50) { 3 } else { 20_000 },
        wait_max: Duration::from_mins(5),
        result_ttl: if forgetful { soon } else { days },
        key_ttl: if forgetful { soon * 4 } else { days },
        ..Limits::default()
    }
}

/// Policies of some processors, lanes and groups; the rest has the defaults.
pub(crate) fn draw_policies(processors: &[Processor], rng: &mut Rng) -> PolicyBook {
    let mut book = PolicyBook::default();
    for processor in processors {
        let mut written = ProcessorPolicy {
            base: draw_patch(rng),
            ..ProcessorPolicy::default()
        };
        if rng.permille(300) {
            written.priorities[Priority::Slow.index()] = draw_patch(rng);
        }
        if rng.permille(300) {
            written.groups = BTreeMap::from([(Group::trusted("alone"), draw_patch(rng))]);
        }
        book.processors.insert(processor.clone(), written);
    }
    book
}

fn draw_patch(rng: &mut Rng) -> PolicyPatch {
    fn maybe<T>(rng: &mut Rng, draw: impl FnOnce(&mut Rng) -> T) -> Option<T> {
        rng.permille(400).then(|| draw(rng))
    }
    let lease = rng.millis(1_000, 40_000);
    PolicyPatch {
        max_jobs: maybe(rng, |rng| u32::try_from(rng.range(1, 40)).unwrap_or(1)),
        max_bytes: maybe(rng, |rng| rng.range(300, 8_000)),
        min_jobs: maybe(rng, |rng| u32::try_from(rng.range(1, 40)).unwrap_or(1)),
        max_delay: maybe(rng, |rng| rng.millis(0, 3_000)),
        idle_flush: maybe(rng, |rng| rng.permille(500)),
        group_by: maybe(rng, |rng| {
            *rng.pick(&[GroupBy::Group, GroupBy::Key])
                .unwrap_or(&GroupBy::None)
        }),
        realtime_reserve: None,
        lower_lane_share: maybe(rng, |rng| LaneShare {
            above: Some(u32::try_from(rng.range(1, 20)).unwrap_or(1)).filter(|_| rng.permille(850)),
        }),
        lease: Some(lease),
        heartbeat: Some(lease / 3),
        batch_timeout: maybe(rng, |rng| rng.millis(40_000, 120_000)),
        max_attempts: maybe(rng, |rng| u32::try_from(rng.range(1, 5)).unwrap_or(1)),
        backoff: maybe(rng, |rng| rng.millis(1, 5_000)),
        backoff_max: Some(Duration::from_secs(20)),
        max_crashes: maybe(rng, |rng| u32::try_from(rng.range(1, 4)).unwrap_or(1)),
        result_ttl: None,
    }
}
