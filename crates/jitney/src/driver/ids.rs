//! Ids that the driver makes: UUIDs of version 7 from the driver's own clock and random numbers, and the
//! sequence that orders jobs by acceptance.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::clock::WallMs;
use crate::job::JobId;

/// Keys of the hash that makes child ids. They are part of the format: other keys, other ids.
const CHILD_KEYS: (u64, u64) = (0x6a69_746e_6579_2063, 0x6869_6c64_2069_6473);

/// How far the boot epoch is shifted in a sequence: 2^40 jobs fit in one boot, 2^24 boots in all.
const EPOCH_SHIFT: u32 = 40;

/// Makes ids. Deterministic from its seed.
#[derive(Debug)]
pub(super) struct IdSource {
    /// State of the generator (`splitmix64`).
    random: u64,
    /// The last sequence that was given out.
    sequence: u64,
}

impl IdSource {
    pub(super) fn new(seed: u64, epoch: u32) -> Self {
        Self {
            random: seed,
            sequence: u64::from(epoch) << EPOCH_SHIFT,
        }
    }

    /// The next place in the order of acceptance; never given out again, on this node.
    pub(super) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// A UUID of version 7: 48 bits of milliseconds, then random bits.
    pub(super) fn next_id(&mut self, now: WallMs) -> JobId {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&now.0.to_be_bytes()[2..]);
        bytes[6..8].copy_from_slice(&self.next_random().to_be_bytes()[..2]);
        bytes[8..].copy_from_slice(&self.next_random().to_be_bytes());
        JobId(with_version(bytes, 7))
    }

    /// Splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The id of a parent's child: a UUID of version 8, the same however often the outcome is sent. The parent's place in
/// the order of acceptance, `sequence`, tells two jobs apart that had one id after another. `taken`: so many ids of
/// this child before were another job's.
#[must_use]
pub fn child_id(parent: JobId, sequence: u64, index: u32, taken: u32) -> JobId {
    let mut hasher = SipHasher13::new_with_keys(CHILD_KEYS.0, CHILD_KEYS.1);
    hasher.write(&parent.0);
    hasher.write(&sequence.to_be_bytes());
    hasher.write(&index.to_be_bytes());
    if taken > 0 {
        hasher.write(&taken.to_be_bytes());
    }
    JobId(with_version(hasher.finish128().as_bytes(), 8))
}

const fn with_version(mut bytes: [u8; 16], version: u8) -> [u8; 16] {
    bytes[6] = (bytes[6] & 0x0f) | (version << 4);
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_their_time_version_and_variant_and_differ() {
        let mut ids = IdSource::new(1, 3);
        let (first, second) = (
            ids.next_id(WallMs(0x0102_0304_0506)),
            ids.next_id(WallMs(0x0102_0304_0506)),
        );
        assert_ne!(first, second);
        assert!(first.to_string().starts_with("01020304-0506-7"), "{first}");
        assert!(matches!(first.0[8] >> 6, 0b10));
    }

    #[test]
    fn a_childs_id_is_of_its_parent_its_place_and_what_was_taken() {
        let ids = [(1, 0, 0), (1, 1, 0), (2, 0, 0), (1, 0, 1), (1, 0, 2)];
        let ids = ids.map(|(sequence, index, taken)| child_id(JobId([5; 16]), sequence, index, taken));
        let different: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
        assert_eq!(child_id(JobId([5; 16]), 1, 0, 0), ids[0]);
        assert_ne!(child_id(JobId([6; 16]), 1, 0, 0), ids[0]);
    }

    #[test]
    fn a_later_boot_continues_above_every_earlier_sequence() {
        let mut earlier = IdSource::new(1, 1);
        let last = (0..1_000).map(|_| earlier.next_sequence()).last();
        assert!(Some(IdSource::new(1, 2).next_sequence()) > last);
    }
}
