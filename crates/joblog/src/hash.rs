//! A cheap hasher for ids. Ids are random, or chosen by callers: a secret seed keeps the latter from colliding on
//! purpose, one multiplication per 8 bytes is all the rest.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

/// A map whose keys are ids.
pub(crate) type IdMap<K, V> = HashMap<K, V, Seed>;

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
