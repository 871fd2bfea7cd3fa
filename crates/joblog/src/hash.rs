//! A cheap hasher for ids, and the tables under it. Ids are random, or chosen by callers: a secret seed keeps the
//! latter from colliding on purpose, one multiplication per 8 bytes is all the rest.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, Hash, Hasher};

/// A map whose keys are ids, for as many as are under way at once.
pub(crate) type IdMap<K, V> = HashMap<K, V, Seed>;

/// Shards of a [`WideMap`], a power of two.
const SHARDS: u64 = 256;

/// A map whose keys are ids, for millions of them. It is cut in shards, because a table that doubles moves
/// everything it holds: a shard does so in the processor's cache, and holds nobody up.
pub(crate) struct WideMap<K, V> {
    shards: Vec<IdMap<K, V>>,
    /// What [`WideMap::enter`] is to take in, by shard; empty but at a start.
    waiting: Vec<Vec<(K, V)>>,
    seed: Seed,
    len: usize,
}

impl<K: Copy + Eq + Hash, V> WideMap<K, V> {
    pub(crate) fn new(seed: Seed) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| HashMap::with_hasher(seed)).collect(),
            waiting: Vec::new(),
            seed,
            len: 0,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.shards[self.shard(key)].get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let shard = self.shard(key);
        self.shards[shard].get_mut(key)
    }

    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// Enters a value; returns the one that was there.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let shard = self.shard(&key);
        let before = self.shards[shard].insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    /// Enters a value unless there is one.
    pub(crate) fn insert_new(&mut self, key: K, value: V) -> bool {
        let shard = self.shard(&key);
        let Entry::Vacant(vacant) = self.shards[shard].entry(key) else {
            return false;
        };
        vacant.insert(value);
        self.len += 1;
        true
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let shard = self.shard(key);
        let value = self.shards[shard].remove(key)?;
        self.len -= 1;
        Some(value)
    }

    /// Puts a value by for [`WideMap::enter`]: until then nobody finds it.
    pub(crate) fn put_by(&mut self, key: K, value: V) {
        let shard = self.shard(&key);
        self.waiting.resize_with(self.shards.len(), Vec::new);
        self.waiting[shard].push((key, value));
    }

    /// Enters all that was put by, a shard at a time: each is small enough for the processor's cache, where inserting
    /// is many times faster than all over the memory. Returns the values that others took the place of.
    pub(crate) fn enter(&mut self) -> Vec<(K, V)> {
        let mut replaced = Vec::new();
        for (shard, waiting) in std::mem::take(&mut self.waiting).into_iter().enumerate() {
            self.shards[shard].reserve(waiting.len());
            for (key, value) in waiting {
                replaced.extend(self.insert(key, value).map(|before| (key, before)));
            }
        }
        replaced
    }

    /// The key's shard: by bits of its hash that the table itself uses last.
    fn shard(&self, key: &K) -> usize {
        let hash = self.seed.hash_one(key);
        usize::try_from((hash >> 40) % SHARDS).expect("there are 256 shards")
    }
}

/// The secret of one log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seed(pub(crate) u64);

/// The golden ratio's bits: odd, and without a pattern.
const ODD: u64 = 0x9E37_79B9_7F4A_7C15;

/// Folds words into one.
pub(crate) struct IdHasher(u64);

impl BuildHasher for Seed {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher(self.0)
    }
}

impl IdHasher {
    /// The full product's halves, one over the other: every bit of the word reaches every bit of the hash.
    fn fold(&mut self, word: u64) {
        let (low, high) = (self.0 ^ word).carrying_mul(ODD, 0);
        self.0 = low ^ high;
    }
}

fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            self.fold(word_of(chunk));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.fold(word);
    }

    /// The length that goes before an array of fixed length says nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against the standard library's map.
        #[test]
        fn a_wide_map_is_a_map(steps in prop::collection::vec((0..6_u8, 0..40_u64, any::<u32>()), 0..400)) {
            let mut wide = WideMap::new(Seed(7));
            let mut map = HashMap::new();
            let mut waiting = Vec::new();
            for (what, key, value) in steps {
                match what {
                    0 => prop_assert_eq!(wide.insert(key, value), map.insert(key, value)),
                    1 => {
                        let new = !map.contains_key(&key);
                        map.entry(key).or_insert(value);
                        prop_assert_eq!(wide.insert_new(key, value), new);
                    }
                    2 => prop_assert_eq!(wide.remove(&key), map.remove(&key)),
                    3 => {
                        wide.put_by(key, value);
                        waiting.push((key, value));
                    }
                    4 => {
                        let mut before = wide.enter();
                        let entered = waiting.drain(..);
                        let mut expected: Vec<_> = entered.filter_map(|(key, value)| Some((key, map.insert(key, value)?))).collect();
                        before.sort_unstable();
                        expected.sort_unstable();
                        prop_assert_eq!(before, expected);
                    }
                    _ => prop_assert_eq!(wide.get_mut(&key), map.get_mut(&key)),
                }
                prop_assert_eq!(wide.get(&key), map.get(&key));
                prop_assert_eq!(wide.contains_key(&key), map.contains_key(&key));
                prop_assert_eq!(wide.len(), map.len());
            }
        }
    }
}
