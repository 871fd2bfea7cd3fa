//! What memory knows of every job that is not forgotten.
//!
//! In: records as they become durable, or as recovery reads them: the same code for both. Out: where a job's
//! records are, what an id or a key stands for, how much of each segment is live. The log owns it.
//!
//! Sizes without the tables' own overhead: an unsettled job is 36 bytes, a finished one 44 and 24 in its queue; a
//! job with a client's id or an idempotency key adds about 150.

use std::sync::Arc;

use crate::dead::Dead;
use crate::hash::{IdMap, Seed, WideMap};
use crate::ids::{JobId, Priority, WallMs};
use crate::live::{ENDED_BYTES, Live};
use crate::log::{KeyEntry, Known, Options, Ticket};
use crate::record::{End, Ended, IdempotencyKey, Outcome, Reason, Submit};
use crate::replay::Seat;
use crate::retention::Retention;
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
struct Unsettled {
    submit: Place,
    /// During a start only.
    seat: Seat,
    /// It has an [`Identity`].
    identified: bool,
}

#[derive(Clone, Copy)]
struct Finished {
    submit: Place,
    outcome: Place,
    end: End,
    reason: Option<Reason>,
    /// It has an [`Identity`].
    identified: bool,
}

/// What a client's id or an idempotency key adds.
struct Identity {
    fingerprint: u128,
    key: Option<IdempotencyKey>,
    client_id: bool,
    /// How the job ended, which outlives its result.
    end: Option<(End, Option<Reason>, WallMs)>,
    /// The segment that holds what recognises a repeat, once the result gave way.
    slot: Option<u32>,
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
    unsettled: WideMap<JobId, Unsettled>,
    finished: WideMap<JobId, Finished>,
    identities: WideMap<JobId, Identity>,
    keys: WideMap<IdempotencyKey, JobId>,
    retention: Retention,
    dead: Dead,
    pub(crate) live: Live,
    counts: Counts,
    /// The log is being read: nobody asks for results, but for those of jobs with an identity.
    starting: bool,
}

struct Limits {
    result_ttl_ms: u64,
    key_ttl_ms: u64,
    results_max: usize,
    result_bytes_max: u64,
    keys_max: usize,
}

/// What of an outcome the index keeps, or keeps it by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) id: JobId,
    pub(crate) end: End,
    pub(crate) reason: Option<Reason>,
    pub(crate) finished: WallMs,
    /// How long the result is kept, if not as long as others.
    pub(crate) keep_ms: Option<u64>,
}

/// A job that an outcome ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) seat: Seat,
    /// Where its submit is, if it was given up and its result is kept: who knows its lane says so to [`Index::died`].
    pub(crate) dead: Option<Place>,
}

impl From<&Outcome<'_>> for Ending {
    fn from(outcome: &Outcome<'_>) -> Self {
        Self {
            id: outcome.id,
            end: outcome.end,
            reason: outcome.reason,
            finished: outcome.finished,
            keep_ms: outcome.keep_ms,
        }
    }
}

/// What [`Index::warm`] looks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Warm {
    /// A place for a new job.
    Submit(JobId),
    /// A job, and a place for its result.
    Ending(JobId),
    Nothing,
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
            unsettled: WideMap::new(seed),
            finished: WideMap::new(seed),
            identities: WideMap::new(seed),
            keys: WideMap::new(seed),
            retention: Retention::default(),
            dead: Dead::new(seed),
            live: Live::new(seed),
            counts: Counts::default(),
            starting: true,
        }
    }

    /// All has been read.
    pub(crate) fn started(&mut self) {
        for (id, before) in self.finished.enter() {
            self.result_gone(id, &before);
        }
        self.starting = false;
        self.shed();
    }

    /// A submit was queued: its id and key are taken from now on.
    pub(crate) fn submit_queued(&mut self, submit: &Submit<'_>, ticket: Ticket) {
        self.submitting.insert(submit.id, ticket);
        self.identify(submit);
    }

    /// A queued submit failed: it binds nothing.
    pub(crate) fn submit_failed(&mut self, id: JobId) {
        if self.submitting.remove(&id).is_some() {
            self.drop_identity(id);
        }
    }

    /// A submit is durable. At a start `seat` is the job's in the replay.
    pub(crate) fn submit(&mut self, submit: &Submit<'_>, place: Place, seat: Seat) -> Submitted {
        let (id, identified) = (submit.id, submit.has_identity());
        let queued = self.submitting.remove(&id).is_some();
        if !self.enter(id, identified, place, seat) {
            return Submitted::Ignored;
        }
        if identified {
            if (!queued || self.finished.contains_key(&id)) && self.forget(id) {
                // Its result's time was up when it was submitted anew; a wall clock that went back hides that.
                self.retention.forget(id);
            }
            self.identify(submit);
        }
        Submitted::New
    }

    /// A queued submit is durable that has neither a client's id nor a key.
    pub(crate) fn nameless_submit(&mut self, id: JobId, place: Place) {
        self.submitting.remove(&id);
        self.enter(id, false, place, Seat::default());
    }

    /// `false` if the job is there already.
    fn enter(&mut self, id: JobId, identified: bool, place: Place, seat: Seat) -> bool {
        let unsettled = Unsettled {
            submit: place,
            seat,
            identified,
        };
        let new = self.unsettled.insert_new(id, unsettled);
        if new {
            self.live.add(place.slot, u64::from(place.bytes));
            self.live.job_in(place.slot);
        } else {
            self.counts.submits_ignored += 1;
        }
        new
    }

    /// An outcome is durable. `None` if it changes nothing: the first wins.
    pub(crate) fn outcome(&mut self, outcome: &Ending, place: Place, age_ms: u64, now: Now) -> Option<Taken> {
        let id = outcome.id;
        let Some(unsettled) = self.unsettled.remove(&id) else {
            self.counts.outcomes_ignored += 1;
            return None;
        };
        let Unsettled {
            submit,
            seat,
            identified,
        } = unsettled;
        let mut keep_ms = outcome.keep_ms.unwrap_or(self.limits.result_ttl_ms);
        if identified && let Some(identity) = self.identities.get_mut(&id) {
            identity.end = Some((outcome.end, outcome.reason, outcome.finished));
            keep_ms = keep_ms.max(self.limits.key_ttl_ms);
        }
        let finished = Finished {
            submit,
            outcome: place,
            end: outcome.end,
            reason: outcome.reason,
            identified,
        };
        self.live.job_out(submit.slot);
        self.live.count_end();
        self.live.add(place.slot, u64::from(place.bytes));
        self.counts.result_bytes += finished.bytes();
        if age_ms >= keep_ms {
            self.result_gone(id, &finished);
            if identified {
                self.drop_identity(id);
            }
            return Some(Taken { seat, dead: None });
        }
        self.retention.enter(id, keep_ms, age_ms, now);
        if self.starting && !identified {
            self.finished.put_by(id, finished);
        } else if let Some(before) = self.finished.insert(id, finished) {
            // Nobody submits an id of the server's own anew; a log that says so is read all the same.
            self.result_gone(id, &before);
        }
        let dead = finished.is_dead().then_some(submit);
        Some(Taken { seat, dead })
    }

    /// The lane of a job that was given up.
    pub(crate) fn died(&mut self, id: JobId, processor: &str, priority: Priority) {
        self.dead.enter(id, processor, priority);
    }

    /// The lanes with jobs that were given up and can still be read, and how many these are.
    pub(crate) fn dead(&self) -> impl Iterator<Item = (&Arc<str>, Priority, u64)> {
        self.dead.lanes()
    }

    /// Looks at the places of jobs whose records follow. The looks do not depend on one another, so the processor
    /// fetches many from memory at once, where it would wait for each.
    pub(crate) fn warm(&self, records: impl Iterator<Item = Warm>) {
        let known = |record: &Warm| match record {
            Warm::Submit(id) => self.unsettled.contains_key(id),
            Warm::Ending(id) => self.unsettled.contains_key(id) & self.finished.contains_key(id),
            Warm::Nothing => false,
        };
        std::hint::black_box(records.filter(known).count());
    }

    /// Forgets results that are more than may be kept, and up to `at_most` jobs whose time is up. Says whether there
    /// may be more of these.
    pub(crate) fn expire(&mut self, now: Now, at_most: usize) -> bool {
        self.shed();
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
        let (end, reason, _) = identity?.end?;
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

    /// The seat of an unsettled job in the replay: at a start only.
    pub(crate) fn seat(&self, id: JobId) -> Option<Seat> {
        self.unsettled.get(&id).map(|job| job.seat)
    }

    /// Where a durable job's submit is, and its outcome if that is kept.
    pub(crate) fn places(&self, id: JobId) -> Option<(Place, Option<Place>)> {
        if let Some(job) = self.unsettled.get(&id) {
            return Some((job.submit, None));
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

    /// An end without a result was read: at a start only. The job's seat, if it was unsettled.
    pub(crate) fn ended(&mut self, ended: &Ended, place: Place, age_ms: u64, now: Now) -> Option<Seat> {
        let unsettled = self.unsettled.remove(&ended.id);
        let submit = unsettled.map(|job| job.submit);
        if let Some(submit) = submit {
            self.live.job_out(submit.slot);
            self.live.sub(submit.slot, u64::from(submit.bytes));
            self.live.bury(ended.id, submit.slot, place.slot);
        }
        let slot = submit.map_or(place.slot, |submit| submit.slot);
        if ended.has_identity() && !self.finished.contains_key(&ended.id) {
            self.identify_ended(ended);
        } else if submit.is_none() {
            return None;
        }
        if let Some(identity) = self.identities.get_mut(&ended.id) {
            identity.end = Some((ended.end, ended.reason, ended.finished));
            identity.slot = Some(slot);
            self.live.add(slot, ENDED_BYTES);
            if age_ms >= self.limits.key_ttl_ms {
                self.forget(ended.id);
            } else {
                self.retention
                    .enter_key(ended.id, self.limits.key_ttl_ms, age_ms, now);
            }
        }
        unsettled.map(|job| job.seat)
    }

    /// What recognises a repeat of a job is all that is left of it.
    fn identify_ended(&mut self, ended: &Ended) {
        let id = ended.id;
        self.drop_identity(id);
        if let Some(key) = ended.idempotency {
            self.keys.insert(key, id);
        }
        self.identities.insert(
            id,
            Identity {
                fingerprint: ended.fingerprint,
                key: ended.idempotency,
                client_id: ended.client_id,
                end: None,
                slot: None,
            },
        );
    }

    /// Lets the oldest results give way until so many bytes of them are gone: the disk is full.
    pub(crate) fn shed_bytes(&mut self, bytes: u64) {
        let target = self.counts.result_bytes.saturating_sub(bytes);
        while self.counts.result_bytes > target && self.shed_one() {}
    }

    /// What a copy of this submit must be, if it is to be copied.
    pub(crate) fn submit_to_copy(&self, id: JobId, place: Place) -> Kept {
        if self.unsettled.get(&id).is_some_and(|job| job.submit == place)
            || self.finished.get(&id).is_some_and(|job| job.submit == place)
        {
            return Kept::Whole;
        }
        if self.unsettled.contains_key(&id) || self.finished.contains_key(&id) {
            return Kept::Nothing;
        }
        let identity = self
            .identities
            .get(&id)
            .filter(|job| job.slot == Some(place.slot));
        let ended = identity.and_then(|identity| {
            let (end, reason, finished) = identity.end?;
            Some(Ended {
                id,
                finished,
                end,
                reason,
                client_id: identity.client_id,
                idempotency: identity.key,
                fingerprint: identity.fingerprint,
            })
        });
        ended.map_or(Kept::Nothing, Kept::End)
    }

    /// What a copy of this outcome must be, if it is to be copied.
    pub(crate) fn outcome_to_copy(&self, outcome: &Outcome<'_>, place: Place) -> Kept {
        let id = outcome.id;
        if self.finished.get(&id).is_some_and(|job| job.outcome == place) {
            return Kept::Whole;
        }
        if !self.live.needs_end(id) {
            return Kept::Nothing;
        }
        Kept::End(Ended {
            id,
            finished: outcome.finished,
            end: outcome.end,
            reason: outcome.reason,
            client_id: false,
            idempotency: None,
            fingerprint: 0,
        })
    }

    /// What a copy of this end must be, if it is to be copied.
    pub(crate) fn end_to_copy(&self, ended: &Ended, slot: u32) -> Kept {
        let known = self.submit_to_copy(
            ended.id,
            Place {
                slot,
                offset: 0,
                bytes: 0,
            },
        );
        match known {
            Kept::End(_) if ended.has_identity() => known,
            _ if self.live.needs_end(ended.id) => Kept::End(Ended {
                client_id: false,
                idempotency: None,
                fingerprint: 0,
                ..*ended
            }),
            _ => Kept::Nothing,
        }
    }

    pub(crate) fn is_unsettled(&self, id: JobId) -> bool {
        self.unsettled.contains_key(&id)
    }

    /// A submit was copied, durably.
    pub(crate) fn submit_copied(&mut self, id: JobId, from: Place, to: Place) {
        let bytes = u64::from(from.bytes);
        if let Some(job) = self.unsettled.get_mut(&id).filter(|job| job.submit == from) {
            job.submit = to;
            self.live.job_out(from.slot);
            self.live.job_in(to.slot);
        } else if let Some(job) = self.finished.get_mut(&id).filter(|job| job.submit == from) {
            job.submit = to;
        } else {
            // Forgotten while it was copied: the copy must stay as dead as its original.
            let end = self.live.end_of(id, from.slot).unwrap_or(from.slot);
            self.live.bury(id, to.slot, end);
            self.identity_copied(id, from.slot, to.slot);
            return;
        }
        self.live.sub(from.slot, bytes);
        self.live.add(to.slot, bytes);
    }

    /// An outcome was copied, durably.
    pub(crate) fn outcome_copied(&mut self, id: JobId, from: Place, to: Place) {
        if let Some(job) = self.finished.get_mut(&id).filter(|job| job.outcome == from) {
            job.outcome = to;
            self.live.sub(from.slot, u64::from(from.bytes));
            self.live.add(to.slot, u64::from(to.bytes));
        } else {
            self.live.end_copied(id, to.slot);
        }
    }

    /// An end was copied, durably.
    pub(crate) fn end_copied(&mut self, id: JobId, from: u32, to: u32) {
        self.identity_copied(id, from, to);
        self.live.end_copied(id, to);
    }

    fn identity_copied(&mut self, id: JobId, from: u32, to: u32) {
        if let Some(identity) = self.identities.get_mut(&id)
            && identity.slot == Some(from)
        {
            identity.slot = Some(to);
            self.live.sub(from, ENDED_BYTES);
            self.live.add(to, ENDED_BYTES);
        }
    }

    fn identify(&mut self, submit: &Submit<'_>) {
        if !submit.has_identity() {
            return;
        }
        let (fingerprint, key) = (submit.fingerprint, submit.idempotency);
        if let Some(key) = key {
            self.keys.insert(key, submit.id);
        }
        let before = self.identities.insert(
            submit.id,
            Identity {
                fingerprint,
                key,
                client_id: submit.client_id,
                end: None,
                slot: None,
            },
        );
        if let Some(slot) = before.and_then(|before| before.slot) {
            self.live.sub(slot, ENDED_BYTES);
        }
    }

    fn drop_identity(&mut self, id: JobId) -> Option<Identity> {
        let identity = self.identities.remove(&id)?;
        if let Some(key) = identity.key
            && self.keys.get(&key) == Some(&id)
        {
            self.keys.remove(&key);
        }
        if let Some(slot) = identity.slot {
            self.live.sub(slot, ENDED_BYTES);
        }
        Some(identity)
    }

    /// Forgets a finished job: its result and its key. `false` if nothing of it was known.
    fn forget(&mut self, id: JobId) -> bool {
        let finished = self.finished.remove(&id);
        if let Some(finished) = finished {
            self.result_gone(id, &finished);
            if !finished.identified {
                return true;
            }
        }
        let identity = self.drop_identity(id);
        finished.is_some() || identity.is_some_and(|identity| identity.slot.is_some())
    }

    /// Its submit and its outcome stay on disk until their segments go, the submit's first.
    fn result_gone(&mut self, id: JobId, finished: &Finished) {
        self.counts.result_bytes -= finished.bytes();
        if finished.is_dead() {
            self.dead.leave(id);
        }
        let Finished { submit, outcome, .. } = finished;
        self.live.sub(submit.slot, u64::from(submit.bytes));
        self.live.sub(outcome.slot, u64::from(outcome.bytes));
        self.live.bury(id, submit.slot, outcome.slot);
    }

    /// Lets results give way, oldest first, until they are within their limits.
    fn shed(&mut self) {
        while self.finished.len() > self.limits.results_max
            || self.counts.result_bytes > self.limits.result_bytes_max
        {
            if !self.shed_one() {
                return;
            }
        }
    }

    /// The oldest result gives way; a job with an identity stays known. `false`: there is none.
    fn shed_one(&mut self) -> bool {
        let finished = &self.finished;
        let key_stays = |id| finished.get(&id).is_some_and(|job| job.identified);
        let Some(id) = self.retention.give_way(key_stays) else {
            return false;
        };
        self.counts.results_evicted += 1;
        let Some(finished) = self.finished.remove(&id) else {
            return true;
        };
        self.result_gone(id, &finished);
        if finished.identified
            && let Some(identity) = self.identities.get_mut(&id)
        {
            identity.slot = Some(finished.submit.slot);
            self.live.add(finished.submit.slot, ENDED_BYTES);
        }
        true
    }
}

/// What of a record is copied when its segment is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All of it.
    Whole,
    /// That the job ended.
    End(Ended),
    Nothing,
}

impl Finished {
    const fn is_dead(&self) -> bool {
        matches!(self.reason, Some(Reason::Dead | Reason::Exhausted))
    }

    /// What a kept result costs on disk: its submit's record stays as long as its outcome's.
    fn bytes(&self) -> u64 {
        u64::from(self.submit.bytes) + u64::from(self.outcome.bytes)
    }
}
