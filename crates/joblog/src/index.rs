//! What memory knows of every job that is not forgotten.
//!
//! In: records as they become durable, or as recovery reads them: the same code for both. Out: where a job's
//! records are, what an id or a key stands for, how many live jobs each segment holds. The log owns it.
//!
//! Sizes without the tables' own overhead: an unsettled job is 28 bytes, a finished one 44 and 24 in its queue; a
//! job with a client's id or an idempotency key adds about 150.

use std::collections::VecDeque;

use crate::hash::{IdMap, Seed};
use crate::ids::JobId;
use crate::log::{KeyEntry, Known, Options, Ticket};
use crate::record::{End, IdempotencyKey, Outcome, Reason, Submit};
use crate::retention::Retention;
use crate::settings::Applied;
use crate::time::{Mono, Now};

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which segment: counts the segments of this boot, so that a copy of a segment keeps the places in it.
    pub(crate) slot: u32,
    /// Bytes from the start of the file.
    pub(crate) offset: u32,
    /// The record's own length.
    pub(crate) bytes: u32,
}

#[derive(Clone, Copy)]
struct Finished {
    submit: Place,
    outcome: Place,
    end: End,
    reason: Option<Reason>,
}

/// What a client's id or an idempotency key adds.
struct Identity {
    fingerprint: u128,
    key: Option<IdempotencyKey>,
    /// The segment that holds the submit; `None` until it is durable.
    slot: Option<u32>,
    /// How the job ended, which outlives its result.
    end: Option<(End, Option<Reason>)>,
}

/// Figures for [`crate::log::Usage`] and the recovery report.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) result_bytes: u64,
    pub(crate) results_evicted: u64,
    /// Outcomes of jobs that are not there or had one.
    pub(crate) outcomes_ignored: u64,
    /// Submits of jobs that are there already.
    pub(crate) submits_ignored: u64,
}

pub(crate) struct Index {
    limits: Limits,
    submitting: IdMap<JobId, Ticket>,
    unsettled: IdMap<JobId, Place>,
    finished: IdMap<JobId, Finished>,
    identities: IdMap<JobId, Identity>,
    keys: IdMap<IdempotencyKey, JobId>,
    retention: Retention,
    /// Live jobs per segment, from `first_slot` on.
    live: VecDeque<u64>,
    first_slot: u32,
    counts: Counts,
}

struct Limits {
    result_ttl_ms: u64,
    key_ttl_ms: u64,
    results_max: usize,
    result_bytes_max: u64,
    keys_max: usize,
}

/// What [`Index::submit`] did with a submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Submitted {
    New,
    /// The id is that of an unsettled job.
    Ignored,
}

impl Index {
    pub(crate) fn new(options: &Options, seed: u64) -> Self {
        let seed = Seed(seed);
        Self {
            limits: Limits {
                result_ttl_ms: options.result_ttl_ms,
                key_ttl_ms: options.key_ttl_ms,
                results_max: options.results_max,
                result_bytes_max: options.result_bytes_max,
                keys_max: options.keys_max,
            },
            submitting: IdMap::with_hasher(seed),
            unsettled: IdMap::with_hasher(seed),
            finished: IdMap::with_hasher(seed),
            identities: IdMap::with_hasher(seed),
            keys: IdMap::with_hasher(seed),
            retention: Retention::default(),
            live: VecDeque::new(),
            first_slot: 0,
            counts: Counts::default(),
        }
    }

    /// A submit was queued: its id and key are taken from now on.
    pub(crate) fn submit_queued(&mut self, submit: &Submit<'_>, ticket: Ticket) {
        self.submitting.insert(submit.id, ticket);
        self.identify(submit, None);
    }

    /// A queued submit failed: it binds nothing.
    pub(crate) fn submit_failed(&mut self, id: JobId) {
        if self.submitting.remove(&id).is_some() {
            self.drop_identity(id);
        }
    }

    /// A submit is durable.
    pub(crate) fn submit(&mut self, submit: &Submit<'_>, place: Place) -> Submitted {
        let id = submit.id;
        if self.unsettled.contains_key(&id) {
            self.submitting.remove(&id);
            self.counts.submits_ignored += 1;
            return Submitted::Ignored;
        }
        let queued = self.submitting.remove(&id).is_some();
        if (!queued || self.finished.contains_key(&id)) && self.forget(id) {
            // Its result's time was up when it was submitted anew; a wall clock that went back hides that.
            self.retention.forget(id);
        }
        self.unsettled.insert(id, place);
        self.identify(submit, Some(place.slot));
        self.count_live(place.slot, 1);
        Submitted::New
    }

    /// An outcome is durable. `false` if it changes nothing: the first wins.
    pub(crate) fn outcome(&mut self, outcome: &Outcome<'_>, place: Place, age_ms: u64, now: Now) -> bool {
        let id = outcome.id;
        let Some(submit) = self.unsettled.remove(&id) else {
            self.counts.outcomes_ignored += 1;
            return false;
        };
        let mut keep_ms = outcome.keep_ms.unwrap_or(self.limits.result_ttl_ms);
        if let Some(identity) = self.identities.get_mut(&id) {
            identity.end = Some((outcome.end, outcome.reason));
            keep_ms = keep_ms.max(self.limits.key_ttl_ms);
        }
        let finished = Finished {
            submit,
            outcome: place,
            end: outcome.end,
            reason: outcome.reason,
        };
        self.counts.result_bytes += finished.bytes();
        self.finished.insert(id, finished);
        if age_ms >= keep_ms {
            self.forget(id);
        } else {
            self.retention.enter(id, keep_ms, age_ms, now);
            self.shed();
        }
        true
    }

    /// Forgets up to `at_most` jobs whose time is up. Says whether there may be more.
    pub(crate) fn expire(&mut self, now: Now, at_most: usize) -> bool {
        for _ in 0..at_most {
            let Some(id) = self.retention.next_expired(now) else {
                return false;
            };
            self.forget(id);
        }
        true
    }

    pub(crate) fn next_timer(&self) -> Option<Mono> {
        self.retention.next_timer()
    }

    pub(crate) fn find(&self, id: JobId) -> Option<Known> {
        let identity = self.identities.get(&id);
        let fingerprint = identity.map_or(0, |identity| identity.fingerprint);
        if let Some(ticket) = self.submitting.get(&id) {
            return Some(Known::Submitting {
                ticket: *ticket,
                fingerprint,
            });
        }
        if self.unsettled.contains_key(&id) {
            return Some(Known::Unsettled { fingerprint });
        }
        if let Some(finished) = self.finished.get(&id) {
            let (end, reason) = (finished.end, finished.reason);
            return Some(Known::Finished {
                fingerprint,
                end,
                reason,
                readable: true,
            });
        }
        let (end, reason) = identity?.end?;
        Some(Known::Finished {
            fingerprint,
            end,
            reason,
            readable: false,
        })
    }

    pub(crate) fn find_key(&self, key: IdempotencyKey) -> Option<KeyEntry> {
        let id = *self.keys.get(&key)?;
        let fingerprint = self.identities.get(&id)?.fingerprint;
        Some(KeyEntry { id, fingerprint })
    }

    /// Where a durable job's submit is, and its outcome if that is kept.
    pub(crate) fn places(&self, id: JobId) -> Option<(Place, Option<Place>)> {
        if let Some(submit) = self.unsettled.get(&id) {
            return Some((*submit, None));
        }
        self.finished
            .get(&id)
            .map(|finished| (finished.submit, Some(finished.outcome)))
    }

    /// Whether `more` further keys would be too many.
    pub(crate) fn keys_full(&self, more: usize) -> bool {
        self.identities.len() + more > self.limits.keys_max
    }

    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled.len() + self.submitting.len()
    }

    pub(crate) fn results(&self) -> usize {
        self.finished.len()
    }

    pub(crate) fn keys(&self) -> usize {
        self.identities.len()
    }

    pub(crate) const fn counts(&self) -> Counts {
        self.counts
    }

    /// A segment was begun; its slot is the next one.
    pub(crate) fn add_segment(&mut self) {
        self.live.push_back(0);
    }

    pub(crate) fn segments(&self) -> usize {
        self.live.len()
    }

    /// Whether nothing in the oldest segment is live.
    pub(crate) fn oldest_is_dead(&self) -> bool {
        self.live.front() == Some(&0)
    }

    /// The oldest segment is gone.
    pub(crate) fn drop_oldest_segment(&mut self) {
        if self.live.pop_front().is_some() {
            self.first_slot += 1;
        }
    }

    /// A setting is durable: its segment stays as long as it is the newest of its name.
    pub(crate) fn setting(&mut self, applied: Applied, slot: u32) {
        if let Applied::Counts { live, instead_of } = applied {
            self.count_live(slot, i64::from(live));
            if let Some(before) = instead_of {
                self.count_live(before, -1);
            }
        }
    }

    fn identify(&mut self, submit: &Submit<'_>, slot: Option<u32>) {
        if !submit.has_identity() {
            return;
        }
        let (fingerprint, key) = (submit.fingerprint, submit.idempotency);
        if let Some(key) = key {
            self.keys.insert(key, submit.id);
        }
        self.identities.insert(
            submit.id,
            Identity {
                fingerprint,
                key,
                slot,
                end: None,
            },
        );
    }

    fn drop_identity(&mut self, id: JobId) -> Option<Identity> {
        let identity = self.identities.remove(&id)?;
        if let Some(key) = identity.key
            && self.keys.get(&key) == Some(&id)
        {
            self.keys.remove(&key);
        }
        Some(identity)
    }

    /// Forgets a finished job: its result and its key. `false` if nothing of it was known.
    fn forget(&mut self, id: JobId) -> bool {
        let finished = self.finished.remove(&id);
        let identity = self.drop_identity(id);
        if let Some(finished) = finished {
            self.counts.result_bytes -= finished.bytes();
        }
        let slot = finished.map(|finished| finished.submit.slot);
        match slot.or_else(|| identity?.slot) {
            Some(slot) => {
                self.count_live(slot, -1);
                true
            }
            None => false,
        }
    }

    /// Lets results give way, oldest first, until they are within their limits.
    fn shed(&mut self) {
        while self.finished.len() > self.limits.results_max
            || self.counts.result_bytes > self.limits.result_bytes_max
        {
            let identities = &self.identities;
            let Some(id) = self.retention.give_way(|id| identities.contains_key(&id)) else {
                return;
            };
            self.counts.results_evicted += 1;
            if !self.identities.contains_key(&id) {
                self.forget(id);
            } else if let Some(finished) = self.finished.remove(&id) {
                self.counts.result_bytes -= finished.bytes();
            }
        }
    }

    fn count_live(&mut self, slot: u32, by: i64) {
        let at = slot
            .checked_sub(self.first_slot)
            .and_then(|at| usize::try_from(at).ok());
        if let Some(count) = at.and_then(|at| self.live.get_mut(at)) {
            *count = count.saturating_add_signed(by);
        }
    }
}

impl Finished {
    /// What a kept result costs on disk: its submit's record stays as long as its outcome's.
    fn bytes(&self) -> u64 {
        u64::from(self.submit.bytes) + u64::from(self.outcome.bytes)
    }
}
