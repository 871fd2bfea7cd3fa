//! What is kept of an unsettled job. Most jobs were never dispatched: those cost one [`Job`], one entry of
//! the id index and one number in a queue, together at most 80 bytes; the rest is in [`Tried`].

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};

use crate::clock::{Mono, WallMs};
use crate::dispatcher::id_index::IdIndex;
use crate::dispatcher::slab::Slab;
use crate::job::{Cause, Group, JobId, Token};

/// A job's order in its lane; the slot number only tells equal sequences apart.
pub(super) type Order = (u64, u32);

/// An unsettled job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: JobId,
    /// Its place in the order of acceptance.
    pub(super) sequence: u64,
    /// Since when it waits; while it is not due, when it will be.
    pub(super) clock: Mono,
    /// `None` until it is first granted, or carries a past.
    pub(super) tried: Option<Box<Tried>>,
    /// What it weighs in a batch.
    pub(super) bytes: u32,
    /// Its queue, which also says its lane and policy.
    pub(super) queue: u32,
    /// Its group's interned name.
    pub(super) group: u32,
    pub(super) place: Place,
    /// Travels in a batch of one.
    pub(super) alone: bool,
    /// Does not linger: it was recovered after a restart.
    pub(super) prompt: bool,
}

/// What only a job that was dispatched has.
#[derive(Debug, Default)]
pub(super) struct Tried {
    pub(super) attempts: u32,
    pub(super) crashes: u32,
    /// Dispatch records written for it.
    pub(super) deliveries: u32,
    pub(super) started: Option<WallMs>,
    /// The lease granted last: the only one whose word counts.
    pub(super) last: Option<Token>,
    /// Whether a settle under `last` took effect already.
    pub(super) spent: Spent,
    /// Its place among the members of that lease.
    pub(super) seat: usize,
    /// The unit it is in, while its place is [`Place::Unit`].
    pub(super) unit: Order,
}

/// What a settle under a job's last token did, if it took effect and sent the job back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Spent {
    /// Nothing yet: the token is good.
    #[default]
    No,
    /// It reported the job: the same report again is a duplicate.
    Reported,
    /// It ended the lease without an outcome that could be taken: one that comes now is late.
    Missed,
}

impl Spent {
    /// What a settle leaves that sends a job back for this cause.
    pub(super) fn by(cause: Cause) -> Self {
        match cause {
            Cause::MissingOutcome => Self::Missed,
            _ => Self::Reported,
        }
    }
}

/// Where a job is; the states of docs/state_machine.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not due.
    Waiting,
    /// In its queue, never dispatched.
    Fresh,
    /// In its queue, out of the order of arrival.
    Back,
    /// In a unit of its lane.
    Unit,
    /// Held by the lease `tried.last`.
    Leased,
    /// A change of it is being written.
    Committing,
}

impl Job {
    pub(super) fn last_token(&self) -> Option<Token> {
        self.tried.as_ref().and_then(|tried| tried.last)
    }

    pub(super) fn spent(&self) -> bool {
        self.spent_by() != Spent::No
    }

    pub(super) fn spent_by(&self) -> Spent {
        self.tried.as_ref().map_or(Spent::No, |tried| tried.spent)
    }

    pub(super) fn tried(&mut self) -> &mut Tried {
        self.tried.get_or_insert_default()
    }

    /// Attempts and crashes.
    pub(super) fn counts(&self) -> (u32, u32) {
        self.tried
            .as_ref()
            .map_or((0, 0), |tried| (tried.attempts, tried.crashes))
    }

    pub(super) const fn is_ready(&self) -> bool {
        matches!(self.place, Place::Fresh | Place::Back | Place::Unit)
    }
}

/// All unsettled jobs, by slot and by id.
#[derive(Debug)]
pub(super) struct Jobs {
    pub(super) slab: Slab<Job>,
    index: IdIndex,
}

impl Jobs {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            slab: Slab::new(),
            index: IdIndex::new(IdHash(seed)),
        }
    }

    pub(super) fn insert(&mut self, job: Job) -> u32 {
        let id = job.id;
        let slot = self.slab.insert(job);
        self.index.insert(id, slot, &self.slab);
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) -> Job {
        self.index.remove(self.slab[slot].id, slot);
        self.slab.remove(slot)
    }

    pub(super) fn find(&self, id: JobId) -> Option<u32> {
        self.index.find(id, &self.slab)
    }

    /// See [`IdIndex::warm`].
    pub(super) fn warm(&self, ids: impl Iterator<Item = JobId>) {
        self.index.warm(ids);
    }

    /// As [`Jobs::find`], for one who knows in which slot the job is, if it still is.
    pub(super) fn find_at(&self, slot: u32, id: JobId) -> Option<u32> {
        self.slab.get(slot).filter(|job| job.id == id).map(|_| slot)
    }

    pub(super) const fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) fn order(&self, slot: u32) -> Order {
        (self.slab[slot].sequence, slot)
    }
}

impl std::ops::Index<u32> for Jobs {
    type Output = Job;

    fn index(&self, slot: u32) -> &Job {
        &self.slab[slot]
    }
}

impl std::ops::IndexMut<u32> for Jobs {
    fn index_mut(&mut self, slot: u32) -> &mut Job {
        &mut self.slab[slot]
    }
}

/// Group names, each kept once while a job bears it.
#[derive(Debug, Default)]
pub(super) struct Groups {
    names: Option<Slab<(Group, u64)>>,
    by_name: BTreeMap<Group, u32>,
}

impl Groups {
    /// The number of this name, with one job more.
    pub(super) fn take(&mut self, name: Group) -> u32 {
        let names = self.names.get_or_insert_with(Slab::new);
        if let Some(&key) = self.by_name.get(&name) {
            names[key].1 += 1;
            return key;
        }
        let key = names.insert((name.clone(), 1));
        self.by_name.insert(name, key);
        key
    }

    /// One job less bears this name.
    pub(super) fn give_back(&mut self, key: u32) {
        let Some(names) = self.names.as_mut() else { return };
        names[key].1 -= 1;
        if names[key].1 == 0 {
            let (name, _) = names.remove(key);
            self.by_name.remove(&name);
        }
    }

    pub(super) fn name(&self, key: u32) -> &Group {
        let names = self.names.as_ref().expect("a key was taken before it is read");
        &names[key].0
    }
}

/// Hashes ids and slots by one multiplication a word. Ids are mostly random; a client's own are kept from
/// colliding on purpose by the seed, which is the node's random number.
#[derive(Clone, Copy, Debug)]
pub(super) struct IdHash(pub(super) u64);

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher(self.0)
    }
}

#[derive(Debug)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for half in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..half.len()].copy_from_slice(half);
            self.0 = mix(self.0 ^ u64::from_le_bytes(word));
        }
    }

    fn write_usize(&mut self, _: usize) {
        // The length of an id is always the same.
    }
}

/// Spreads the bits of a number over all of it (the finalizer of splitmix64).
pub(super) const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_job_stays_within_its_memory() {
        // An index of n slots holds at most 16/7 n buckets of a slot and a control byte; a queue's ring at
        // most doubles.
        let index = (size_of::<u32>() + 1) * 16 / 7;
        assert!(size_of::<Option<Job>>() + index + 2 * size_of::<u32>() <= 80);
    }

    #[test]
    fn a_group_name_goes_with_its_last_job() {
        let mut groups = Groups::default();
        let group = Group::default();
        let key = groups.take(group.clone());
        assert_eq!(groups.take(group.clone()), key);
        groups.give_back(key);
        assert_eq!(groups.name(key), &group);
        groups.give_back(key);
        assert!(groups.by_name.is_empty());
    }
}
