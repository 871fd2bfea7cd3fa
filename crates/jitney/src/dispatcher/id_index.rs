//! Which slot an id is in: a table of slots alone, whose ids are read where the jobs are.
//!
//! So it is small enough to stay in the processor's cache with a million jobs. It is cut in shards, because a
//! table that doubles moves everything it holds: a shard's doubling holds up one step by little.

use std::hash::BuildHasher;

use hashbrown::HashTable;

use crate::dispatcher::entry::{IdHash, Job};
use crate::dispatcher::slab::Slab;
use crate::job::JobId;

/// Shards, a power of two.
const SHARDS: usize = 256;

/// The slots of all unsettled jobs.
#[derive(Debug)]
pub(super) struct IdIndex {
    shards: Vec<HashTable<u32>>,
    hash: IdHash,
}

impl IdIndex {
    pub(super) fn new(hash: IdHash) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            hash,
        }
    }

    pub(super) fn find(&self, id: JobId, jobs: &Slab<Job>) -> Option<u32> {
        let (hash, shard) = self.place(id);
        self.shards[shard]
            .find(hash, |&slot| jobs[slot].id == id)
            .copied()
    }

    /// Looks at the places of ids that are asked for or inserted next. The looks do not depend on one another, so the
    /// processor fetches many from memory at once, where one by one it would wait for each.
    pub(super) fn warm(&self, ids: impl Iterator<Item = JobId>) {
        let places = ids.map(|id| self.place(id));
        let never = places.filter(|(hash, shard)| self.shards[*shard].find(*hash, |_| false).is_some());
        std::hint::black_box(never.count());
    }

    /// The job is in `jobs` already, and its id not here yet.
    pub(super) fn insert(&mut self, id: JobId, slot: u32, jobs: &Slab<Job>) {
        let (hash, shard) = self.place(id);
        let hasher = self.hash;
        self.shards[shard].insert_unique(hash, slot, |&slot| hasher.hash_one(jobs[slot].id));
    }

    pub(super) fn remove(&mut self, id: JobId, slot: u32) {
        let (hash, shard) = self.place(id);
        if let Ok(entry) = self.shards[shard].find_entry(hash, |&other| other == slot) {
            entry.remove();
        }
    }

    /// The id's hash, and its shard: by bits that the table itself uses last.
    fn place(&self, id: JobId) -> (u64, usize) {
        let hash = self.hash.hash_one(id);
        let shard = usize::try_from((hash >> 40) % 256).expect("less than 256");
        (hash, shard)
    }
}
