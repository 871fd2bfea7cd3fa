//! The bus that keeps nothing: everything lives in this process and ends with it.
//!
//! A real peer of the log bus, not a mock: it keeps the same rules but the restart, and passes the same
//! conformance suite. Records are kept encoded, so that a read gives what the log would give.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use joblog::record::{Outcome, Submit};

use super::{
    AppendError, Bus, Capabilities, DeadLane, Durability, Event, Identity, KeyEntry, Known, ReadError,
    Record, Setting, Space, StoredJob, Ticket, Usage, arrival,
};
use crate::clock::{Mono, Now, after};
use crate::job::{End, IdempotencyKey, JobId, Priority, Processor, Reason};

/// How long and how many finished jobs and keys are kept.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// A finished job stays readable so long.
    pub result_ttl: Duration,
    /// A key, or a client's id, is remembered so long after its job ended.
    pub key_ttl: Duration,
    /// Finished jobs kept at most; the oldest give way.
    pub results_max: u64,
}

/// Jobs in memory.
#[derive(Debug)]
pub struct MemoryBus {
    identity: Identity,
    retention: Retention,
    next_ticket: u64,
    /// What [`Bus::poll`] reports next.
    events: VecDeque<Event>,
    jobs: HashMap<JobId, Entry>,
    keys: HashMap<IdempotencyKey, KeyEntry>,
    /// Finished jobs and when their result goes, by time to live: each queue is in the order of its ends.
    results: HashMap<Duration, VecDeque<(Mono, JobId)>>,
    /// Finished jobs with a key or a client's id, and when that is forgotten.
    ended_keys: VecDeque<(Mono, JobId)>,
    usage: Usage,
    /// Jobs that were given up and can still be read, by lane.
    dead: BTreeMap<(Processor, Priority), u64>,
    closed: bool,
    /// Outcomes since the last poll, and how long each is kept: an append has no clock, the poll after it has.
    ended: Vec<(JobId, Duration)>,
}

#[derive(Debug)]
struct Entry {
    submit: Bytes,
    outcome: Option<Bytes>,
    fingerprint: u128,
    end: Option<(End, Option<Reason>)>,
    key: Option<IdempotencyKey>,
    /// A repeat under the client's own id is still recognised.
    client_id: bool,
}

impl Entry {
    /// Whose lane it is in, if it was given up.
    fn dead_lane(&self) -> Option<(Processor, Priority)> {
        let (_, reason) = self.end?;
        matches!(reason, Some(Reason::Dead | Reason::Exhausted)).then_some(())?;
        let submit = Submit::decode(&self.submit).ok()?;
        Some((Processor::trusted(submit.processor), submit.priority))
    }

    /// Whether a repeat of its submit is recognised.
    fn has_name(&self) -> bool {
        self.key.is_some() || self.client_id
    }
}

impl MemoryBus {
    /// An empty bus. `node` makes its lease tokens differ from those of other processes.
    #[must_use]
    pub fn new(node: u64, retention: Retention) -> Self {
        Self {
            identity: Identity { node, epoch: 1 },
            retention,
            next_ticket: 1,
            events: VecDeque::from([Event::Ready]),
            jobs: HashMap::new(),
            keys: HashMap::new(),
            results: HashMap::new(),
            ended_keys: VecDeque::new(),
            usage: Usage::default(),
            dead: BTreeMap::new(),
            closed: false,
            ended: Vec::new(),
        }
    }

    fn take_submit(&mut self, submit: &Submit<'_>, record: &Record<'_>) -> Event {
        if let Some(key) = submit.idempotency {
            self.keys.insert(
                key,
                KeyEntry {
                    id: submit.id,
                    fingerprint: submit.fingerprint,
                },
            );
        }
        let entry = Entry {
            submit: encoded(record),
            outcome: None,
            fingerprint: submit.fingerprint,
            end: None,
            key: submit.idempotency,
            client_id: submit.client_id,
        };
        if submit.has_identity() {
            self.usage.keys += 1;
        }
        self.jobs.insert(submit.id, entry);
        self.usage.unsettled += 1;
        Event::Arrived(Box::new(arrival(submit)))
    }

    /// The first outcome of a job counts; there is no event for another.
    fn take_outcome(&mut self, outcome: &Outcome<'_>, record: &Record<'_>) -> Option<Event> {
        let entry = self
            .jobs
            .get_mut(&outcome.id)
            .filter(|entry| entry.end.is_none())?;
        let bytes = encoded(record);
        self.usage.unsettled -= 1;
        self.usage.results += 1;
        self.usage.result_bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        entry.end = Some((outcome.end, outcome.reason));
        if let Some(lane) = entry.dead_lane() {
            *self.dead.entry(lane).or_default() += 1;
        }
        entry.outcome = Some(bytes);
        let mut ttl = outcome
            .keep_ms
            .map_or(self.retention.result_ttl, Duration::from_millis);
        if entry.has_name() {
            // A repeat gets the answer as long as it is recognised.
            ttl = ttl.max(self.retention.key_ttl);
        }
        self.ended.push((outcome.id, ttl));
        Some(Event::Outcome(outcome.id))
    }

    /// The time of what ended since the last poll begins.
    fn stamp(&mut self, now: Mono) {
        for (id, ttl) in std::mem::take(&mut self.ended) {
            self.results
                .entry(ttl)
                .or_default()
                .push_back((after(now, ttl), id));
            if self.jobs.get(&id).is_some_and(Entry::has_name) {
                self.ended_keys
                    .push_back((after(now, self.retention.key_ttl), id));
            }
        }
    }

    /// Once everybody who waits has read what was told: a result does not give way before.
    fn expire(&mut self, now: Mono) {
        while self.usage.results > self.retention.results_max {
            self.usage.results_evicted += 1;
            self.drop_oldest_result();
        }
        while self.oldest_result().is_some_and(|(due, _)| due <= now) {
            self.drop_oldest_result();
        }
        while let Some((_, id)) = self.ended_keys.pop_front_if(|(due, _)| *due <= now) {
            if let Some(entry) = self.jobs.get_mut(&id) {
                entry.client_id = false;
                self.usage.keys -= 1;
                if let Some(key) = entry.key.take() {
                    self.keys.remove(&key);
                }
                self.forget_if_empty(id);
            }
        }
    }

    /// When the next result goes, and which queue it is in.
    fn oldest_result(&self) -> Option<(Mono, Duration)> {
        let heads = self
            .results
            .iter()
            .filter_map(|(ttl, queue)| queue.front().map(|(due, _)| (*due, *ttl)));
        heads.min()
    }

    fn drop_oldest_result(&mut self) {
        let Some((_, ttl)) = self.oldest_result() else {
            return;
        };
        let Some((_, id)) = self.results.get_mut(&ttl).and_then(VecDeque::pop_front) else {
            return;
        };
        let entry = self.jobs.get_mut(&id);
        let dead = entry.as_ref().and_then(|entry| entry.dead_lane());
        if let Some(bytes) = entry.and_then(|entry| entry.outcome.take()) {
            if let Some(jobs) = dead.and_then(|lane| self.dead.get_mut(&lane)) {
                *jobs -= 1;
            }
            self.usage.results -= 1;
            self.usage.result_bytes -= u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        }
        self.forget_if_empty(id);
    }

    fn forget_if_empty(&mut self, id: JobId) {
        let over = |entry: &Entry| {
            entry.end.is_some() && entry.outcome.is_none() && entry.key.is_none() && !entry.client_id
        };
        if self.jobs.get(&id).is_some_and(over) {
            self.jobs.remove(&id);
        }
    }
}

impl Bus for MemoryBus {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: "memory",
            durable: false,
            follow: false,
            atomic_children: true,
            durable_keys: false,
            point_reads: true,
        }
    }

    fn identity(&self) -> Identity {
        self.identity
    }

    fn append(
        &mut self,
        records: &[Record<'_>],
        _space: Space,
        _durability: Durability,
    ) -> Result<Ticket, AppendError> {
        if self.closed {
            return Err(AppendError::Closed);
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.usage.groups += 1;
        self.events
            .extend([Event::Written(ticket), Event::Durable(ticket)]);
        for record in records {
            let event = match record {
                Record::Submit(submit) => Some(self.take_submit(submit, record)),
                Record::Outcome(outcome) => self.take_outcome(outcome, record),
                Record::Setting(setting) => Some(Event::Setting(Box::new(Setting::of(setting)))),
                _ => None,
            };
            self.events.extend(event);
        }
        Ok(ticket)
    }

    fn poll(&mut self, now: Now) -> Option<Event> {
        self.stamp(now.mono);
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        self.expire(now.mono);
        None
    }

    fn next_timer(&self) -> Option<Mono> {
        let result = self.oldest_result().map(|(due, _)| due);
        let key = self.ended_keys.front().map(|(due, _)| *due);
        result.into_iter().chain(key).min()
    }

    fn answered(&mut self) {}

    fn unread_max(&self) -> usize {
        0
    }

    fn find(&self, id: JobId) -> Option<Known> {
        let entry = self.jobs.get(&id)?;
        let fingerprint = entry.fingerprint;
        Some(match entry.end {
            None => Known::Unsettled { fingerprint },
            Some((end, reason)) => Known::Finished {
                fingerprint,
                end,
                reason,
                readable: entry.outcome.is_some(),
            },
        })
    }

    fn find_key(&self, key: IdempotencyKey) -> Option<KeyEntry> {
        self.keys.get(&key).copied()
    }

    fn read(&self, id: JobId) -> Result<Option<StoredJob>, ReadError> {
        let entry = self.jobs.get(&id);
        Ok(entry.map(|entry| StoredJob {
            submit: entry.submit.clone(),
            outcome: entry.outcome.clone(),
        }))
    }

    fn dead(&self) -> Vec<DeadLane> {
        let some = self.dead.iter().filter(|(_, jobs)| **jobs > 0);
        let lanes = some.map(|((processor, priority), jobs)| DeadLane {
            processor: processor.clone(),
            priority: *priority,
            jobs: *jobs,
        });
        lanes.collect()
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn close(&mut self) {
        self.closed = true;
        self.events.push_back(Event::Closed);
    }
}

fn encoded(record: &Record<'_>) -> Bytes {
    let mut bytes = Vec::with_capacity(record.bytes_max());
    record.encode(&mut bytes);
    Bytes::from(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::sample::{outcome, submit};
    use crate::clock::WallMs;

    const HOUR: Duration = Duration::from_hours(1);

    /// Two callers waited, both jobs were settled together, and only one result may be kept.
    #[test]
    fn a_result_gives_way_only_after_its_outcome_was_told() {
        let retention = Retention {
            result_ttl: HOUR,
            key_ttl: HOUR,
            results_max: 1,
        };
        let mut bus = MemoryBus::new(1, retention);
        let ids = [JobId([1; 16]), JobId([2; 16])];
        for records in [ids.map(submit), ids.map(outcome)] {
            bus.append(&records, Space::Settle, Durability::Sync).unwrap();
        }
        let mut told = Vec::new();
        while let Some(event) = bus.poll(Now::default()) {
            if let Event::Outcome(id) = event {
                assert!(bus.read(id).unwrap().is_some(), "{id}");
                told.push(id);
            }
        }
        assert_eq!((told.as_slice(), bus.usage().results), (&ids[..], 1));
    }

    /// An outcome that ended a quiet hour was dated at the beginning of that hour, so its result went early.
    #[test]
    fn a_result_is_kept_for_its_time_from_the_poll_that_tells_of_it() {
        let retention = Retention {
            result_ttl: HOUR,
            key_ttl: HOUR,
            results_max: 10,
        };
        let mut bus = MemoryBus::new(1, retention);
        let at = |mono: Duration| Now {
            mono: after(Mono(0), mono),
            wall: WallMs(0),
        };
        let drain = |bus: &mut MemoryBus, now| while bus.poll(now).is_some() {};
        let id = JobId([1; 16]);
        bus.append(&[submit(id)], Space::Submit, Durability::Sync)
            .unwrap();
        drain(&mut bus, at(Duration::ZERO));
        bus.append(&[outcome(id)], Space::Settle, Durability::Sync)
            .unwrap();
        drain(&mut bus, at(HOUR));
        drain(&mut bus, at(HOUR * 2 - Duration::from_micros(1)));
        assert!(bus.read(id).unwrap().is_some());
        drain(&mut bus, at(HOUR * 2));
        assert!(bus.read(id).unwrap().is_none());
    }
}
