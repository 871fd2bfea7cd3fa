//! The embedded bus: a thin adapter over `joblog`.
//!
//! The log itself never blocks: it says what is to be written, and an [`Executor`] does it. The server's
//! executor has one thread for commits and one for chores; the simulator's does the same work step by
//! step, under its own clock.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use joblog::log::{self, Chore, Commit, Log, Progress};
use joblog::replay::{Recovered, RecoveredJob};
use joblog::storage::Storage;

use super::{
    AppendError, Arrival, Bus, Capabilities, DeadLane, Durability, Event, Identity, KeyEntry, Known, Past,
    ReadError, Record, RecoveredLease, Setting, Space, StoredJob, Ticket, Usage, arrival,
};
use crate::clock::{Mono, Now};
use crate::job::{Group, IdempotencyKey, JobId, Processor};
use crate::limits::Limits;

mod gathering;

use gathering::Gathering;

/// So many submits may lie unread while a commit is under way: to append them takes about as long as a sync.
const UNREAD_MAX: usize = 128;

/// Does the log's I/O.
pub trait Executor<S: Storage> {
    /// Starts a commit. One is under way at most.
    fn start_commit(&mut self, commit: Commit<S>);

    /// Starts a chore. One is under way at most.
    fn start_chore(&mut self, chore: Chore<S>);

    /// The next thing that is done, if one is.
    fn poll(&mut self) -> Option<Done>;
}

/// What an executor did.
#[derive(Debug)]
pub enum Done {
    /// [`Commit::write`].
    Written(io::Result<()>),
    /// [`Commit::sync`].
    Synced(io::Result<()>),
    /// [`Chore::run`].
    Chore(io::Result<()>),
}

/// Jobs in a [`Log`].
pub struct LogBus<S: Storage, E> {
    log: Log<S>,
    executor: E,
    /// What becomes visible once a ticket is durable, in ticket order.
    visible: VecDeque<(Ticket, Vec<Event>)>,
    /// What [`Bus::poll`] reports next.
    events: VecDeque<Event>,
    recovered: bool,
    /// The settings were reported.
    settings_told: bool,
    /// It was reported that the log takes no more records.
    broken: bool,
    chore_under_way: bool,
    gathering: Gathering,
}

impl<S: Storage, E: Executor<S>> LogBus<S, E> {
    /// A bus over an opened log; what the log recovered is reported first.
    pub fn new(log: Log<S>, executor: E) -> Self {
        Self {
            log,
            executor,
            visible: VecDeque::new(),
            events: VecDeque::new(),
            recovered: false,
            settings_told: false,
            broken: false,
            chore_under_way: false,
            gathering: Gathering::default(),
        }
    }

    /// The same, for a server: a commit waits for company for a moment where many come (see `gathering`).
    #[must_use]
    pub const fn holding_commits(mut self) -> Self {
        self.gathering = Gathering::for_a_moment();
        self
    }

    /// The executor, for the simulator to look at.
    pub fn executor(&mut self) -> &mut E {
        &mut self.executor
    }

    fn next_recovered(&mut self) -> Option<Event> {
        if self.recovered {
            return None;
        }
        if !std::mem::replace(&mut self.settings_told, true) {
            let settings = self.log.settings().map(|(name, value)| Setting {
                name: Box::from(name),
                value: Some(Bytes::from_owner(Arc::clone(value))),
            });
            self.events
                .extend(settings.map(|setting| Event::Setting(Box::new(setting))));
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
        }
        match self.log.next_recovered() {
            Some(Recovered::Job(job)) => Some(Event::Arrived(Box::new(recovered_job(job)))),
            Some(Recovered::Lease(lease)) => Some(Event::Leased(Box::new(RecoveredLease {
                token: lease.token,
                processor: Processor::shared(lease.processor),
                worker: lease.worker,
                in_process: lease.in_process,
                request_id: lease.request_id,
                term_ms: lease.term_ms,
                granted: lease.granted,
                delivered: lease.delivered,
                jobs: lease.jobs,
            }))),
            None => {
                self.recovered = true;
                Some(Event::Ready)
            }
        }
    }

    /// Whether a commit ended.
    fn take_done(&mut self, now: Now) -> bool {
        let mut ended = false;
        while let Some(done) = self.executor.poll() {
            match done {
                Done::Written(result) => self.log.written(result, now),
                Done::Synced(result) => {
                    self.log.synced(result, now);
                    self.gathering.commit_ended(now.mono);
                    ended = true;
                }
                Done::Chore(result) => {
                    self.chore_under_way = false;
                    self.log.chore_done(result, now);
                }
            }
        }
        ended
    }

    fn take_progress(&mut self) {
        while let Some(progress) = self.log.progress() {
            match progress {
                Progress::Written(ticket) => self.events.push_back(Event::Written(ticket)),
                Progress::Durable(ticket) => {
                    self.events.push_back(Event::Durable(ticket));
                    let visible = self.take_visible(ticket).unwrap_or_default();
                    self.events.extend(visible);
                }
                Progress::Failed(ticket, failure) => {
                    drop(self.take_visible(ticket));
                    self.events.push_back(Event::Failed(ticket, failure));
                }
                Progress::SpaceReturned => self.events.push_back(Event::SpaceReturned),
                Progress::Closed => self.events.push_back(Event::Closed),
            }
        }
    }

    fn take_visible(&mut self, ticket: Ticket) -> Option<Vec<Event>> {
        // A refused append may be reported before earlier ones are durable.
        let at = self.visible.partition_point(|(other, _)| *other < ticket);
        let found = self.visible.get(at).is_some_and(|(other, _)| *other == ticket);
        if found {
            self.visible.remove(at).map(|(_, events)| events)
        } else {
            None
        }
    }

    /// Starts the next commit, unless it is held back. `told`: the last one's callers have their answers.
    fn start_commit(&mut self, now: Now, told: bool) {
        if !self.gathering.holds(now.mono, told)
            && let Some(commit) = self.log.next_commit(now)
        {
            self.gathering.commit_started();
            self.executor.start_commit(commit);
        }
    }

    fn start_chore(&mut self) {
        if !self.chore_under_way
            && let Some(chore) = self.log.next_chore()
        {
            self.chore_under_way = true;
            self.executor.start_chore(chore);
        }
    }
}

impl<S: Storage, E: Executor<S>> Bus for LogBus<S, E> {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "log",
            durable: true,
            follow: true,
            atomic_children: true,
            durable_keys: true,
            point_reads: true,
        }
    }

    fn identity(&self) -> Identity {
        Identity {
            node: self.log.node(),
            epoch: self.log.epoch(),
        }
    }

    fn append(
        &mut self,
        records: &[Record<'_>],
        space: Space,
        durability: Durability,
    ) -> Result<Ticket, AppendError> {
        let ticket = self.log.append(records, space, durability)?;
        self.gathering.appended(records.len(), space);
        let visible: Vec<_> = records.iter().filter_map(becomes_visible).collect();
        if !visible.is_empty() {
            self.visible.push_back((ticket, visible));
        }
        Ok(ticket)
    }

    fn poll(&mut self, now: Now) -> Option<Event> {
        if let Some(event) = self.events.pop_front().or_else(|| self.next_recovered()) {
            return Some(event);
        }
        // While this group is written and synced the last one's jobs are told of, and the next one gathers.
        let ended = self.take_done(now);
        self.start_commit(now, !ended);
        self.log.tick(now);
        self.take_progress();
        if let Some(why) = self.log.poisoned().filter(|_| !self.broken) {
            tracing::error!(why, "the log takes no more records");
            self.broken = true;
            self.events.push_back(Event::Broken);
        }
        // What has just ended is read by those who wait for it before a full disk lets results give way.
        if self.events.is_empty() {
            self.start_chore();
        }
        self.events.pop_front()
    }

    fn next_timer(&self) -> Option<Mono> {
        let held_until = self.gathering.until();
        // A commit that is held back does not begin when it is due, but when it is held back no more.
        let commit = self.log.commit_due().filter(|_| held_until.is_none());
        [self.log.next_timer(), commit, held_until]
            .into_iter()
            .flatten()
            .min()
    }

    fn answered(&mut self) {
        self.gathering.answered();
    }

    fn unread_max(&self) -> usize {
        match self.log.is_committing() {
            true => UNREAD_MAX,
            false if self.gathering.until().is_some() => self.gathering.missing().min(UNREAD_MAX),
            false => 0,
        }
    }

    fn find(&self, id: JobId) -> Option<Known> {
        self.log.find(id)
    }

    fn find_key(&self, key: IdempotencyKey) -> Option<KeyEntry> {
        self.log.find_key(key)
    }

    fn read(&self, id: JobId) -> Result<Option<StoredJob>, ReadError> {
        let stored = self.log.read(id).map_err(|error| ReadError(error.to_string()))?;
        Ok(stored.map(|stored| StoredJob {
            submit: Bytes::from_owner(stored.submit),
            outcome: stored.outcome.map(Bytes::from_owner),
        }))
    }

    fn dead(&self) -> Vec<DeadLane> {
        let lanes = self.log.dead().map(|(processor, priority, jobs)| DeadLane {
            processor: Processor::shared(Arc::clone(processor)),
            priority,
            jobs,
        });
        lanes.collect()
    }

    fn usage(&self) -> Usage {
        self.log.usage()
    }

    fn close(&mut self) {
        self.gathering.end();
        self.log.close();
    }
}

/// What records add at most to the body that they came in, bytes: a lease of 10,000 jobs, settled at once, is the
/// worst. With small bodies it is twice the body, so that a frame fits in the smallest segment, four bodies long.
const FRAME_ALLOWANCE: usize = 4 << 20;

/// The log's options for these limits.
#[must_use]
pub fn options(limits: &Limits, segment_bytes: u64, cache_bytes: usize) -> log::Options {
    let body = size(limits.whole_body_bytes_max());
    log::Options {
        segment_bytes,
        cache_bytes,
        frame_bytes_max: body.saturating_add(FRAME_ALLOWANCE.min(body.saturating_mul(2))),
        result_ttl_ms: millis(limits.result_ttl),
        key_ttl_ms: millis(limits.key_ttl),
        results_max: size(limits.results_max),
        result_bytes_max: limits.result_bytes_max,
        keys_max: size(limits.keys_max),
        ..log::Options::default()
    }
}

fn size(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What the dispatcher or a waiter sees of a record, once it is durable.
fn becomes_visible(record: &Record<'_>) -> Option<Event> {
    match record {
        Record::Submit(submit) => Some(Event::Arrived(Box::new(arrival(submit)))),
        Record::Outcome(outcome) => Some(Event::Outcome(outcome.id)),
        Record::Setting(setting) => Some(Event::Setting(Box::new(Setting::of(setting)))),
        _ => None,
    }
}

fn recovered_job(job: RecoveredJob) -> Arrival {
    Arrival {
        id: job.id,
        processor: Processor::shared(job.processor),
        group: Group::shared(job.group),
        priority: job.priority,
        wire_bytes: job.wire_bytes,
        sequence: job.sequence,
        accepted: job.accepted,
        due: job.due,
        deadline: job.deadline,
        key: None,
        recovered: Some(Past {
            attempts: job.past.attempts,
            crashes: job.past.crashes,
            deliveries: job.past.deliveries,
            alone: job.past.alone,
            started: job.past.started,
            last_token: job.past.last_token,
            spent: job.past.spent,
        }),
    }
}

#[cfg(test)]
mod tests {
    use joblog::testing::SimDisk;

    use super::*;
    use crate::bus::{SettingRecord, sample};

    /// Does the log's I/O when a test says so; chores at once.
    #[derive(Default)]
    struct ByHand {
        commit: Option<Commit<SimDisk>>,
        done: VecDeque<Done>,
    }

    impl Executor<SimDisk> for ByHand {
        fn start_commit(&mut self, commit: Commit<SimDisk>) {
            self.done.push_back(Done::Written(commit.write()));
            self.commit = Some(commit);
        }

        fn start_chore(&mut self, chore: Chore<SimDisk>) {
            self.done.push_back(Done::Chore(chore.run()));
        }

        fn poll(&mut self) -> Option<Done> {
            self.done.pop_front()
        }
    }

    fn at(seconds: u64) -> Now {
        Now {
            mono: Mono(seconds * 1_000_000),
            ..Now::default()
        }
    }

    /// Until nothing more happens at this instant.
    fn poll_all(bus: &mut LogBus<SimDisk, ByHand>, now: Now) {
        while bus.poll(now).is_some() || !bus.executor().done.is_empty() {}
    }

    /// A sync took longer than a second, so that the mark of its own frame was due when it ended, while the next
    /// commit was held back for its callers: for a millisecond the driver woke as often as it could.
    #[test]
    fn a_mark_that_is_due_wakes_nobody_while_commits_are_held_back() {
        let options = options(&Limits::default(), 64 << 20, 0);
        let opened = Log::open(SimDisk::default(), options, Box::new(|| 7), Now::default()).unwrap();
        let mut bus = LogBus::new(opened.log, ByHand::default()).holding_commits();
        poll_all(&mut bus, at(1));
        let record = Record::Setting(SettingRecord {
            name: "a",
            value: Some(b"1"),
            version: 0,
        });
        bus.append(&[record], Space::Submit, Durability::Sync).unwrap();
        poll_all(&mut bus, at(1));
        (0..40).for_each(|_| bus.answered());
        let synced = bus.executor().commit.take().unwrap().sync();
        bus.executor().done.push_back(Done::Synced(synced));
        poll_all(&mut bus, at(3));
        let held_until = Mono(at(3).mono.0 + 1_000);
        assert_eq!(bus.next_timer(), Some(held_until));
        let later = Now {
            mono: held_until,
            ..at(3)
        };
        poll_all(&mut bus, later);
        assert!(bus.executor().commit.is_some(), "the mark is written");
    }

    /// Two callers waited, both jobs were settled together, and only one result may be kept.
    #[test]
    fn a_result_gives_way_only_after_its_outcome_was_told() {
        let limits = Limits {
            results_max: 1,
            ..Limits::default()
        };
        let opened = Log::open(
            SimDisk::default(),
            options(&limits, 64 << 20, 0),
            Box::new(|| 7),
            Now::default(),
        );
        let mut bus = LogBus::new(opened.unwrap().log, ByHand::default());
        let ids = [JobId([1; 16]), JobId([2; 16])];
        let mut told = Vec::new();
        for records in [ids.map(sample::submit), ids.map(sample::outcome)] {
            poll_all(&mut bus, at(1));
            bus.append(&records, Space::Settle, Durability::Sync).unwrap();
            poll_all(&mut bus, at(1));
            let synced = bus.executor().commit.take().unwrap().sync();
            bus.executor().done.push_back(Done::Synced(synced));
            while let Some(event) = bus.poll(at(1)) {
                if let Event::Outcome(id) = event {
                    let stored = bus.read(id).unwrap().expect("it is there");
                    assert!(stored.outcome.is_some(), "{id}");
                    told.push(id);
                }
            }
        }
        assert_eq!((told.as_slice(), bus.usage().results), (&ids[..], 1));
    }

    #[test]
    fn the_smallest_segment_that_the_configuration_takes_holds_the_largest_frame() {
        for body in [64 << 10, 256 << 10, 1 << 20, 16 << 20] {
            let limits = Limits {
                body_bytes_max: body,
                ..Limits::default()
            };
            let options = options(&limits, body * 4, 0);
            let opened = Log::open(SimDisk::default(), options, Box::new(|| 7), Now::default());
            assert!(opened.is_ok(), "max_body_bytes {body}");
        }
    }
}
