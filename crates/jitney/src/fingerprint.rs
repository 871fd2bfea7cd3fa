//! What makes a repeated submit "the same": one hash over everything that the job is.
//!
//! Fingerprints and key hashes are stored with the job and compared after a restart, so this is part of the
//! format on disk: `SipHash-2-4` with 128 bits of output and the fixed key below (the ASCII bytes
//! `jitney fprint v1`), read as a little-endian integer. What is hashed is a sequence of fields, each a tag
//! (one byte), its length in bytes (8 bytes, little-endian), its bytes. An absent field is left out, so that
//! later fields leave the fingerprints of older jobs as they are.
//!
//! | tag | field |
//! | --- | --- |
//! | 1 | processor |
//! | 2 | group |
//! | 3 | priority, by its name |
//! | 4 | key |
//! | 5 | label, name: one pair of 5 and 6 per label, sorted by name |
//! | 6 | label, value |
//! | 7 | content type; absent means JSON |
//! | 8 | data |
//! | 9 to 13 | reserved: ttl, deadline, delay, `run_at` (as written), `callback_url` |
//! | 32 | caller's identity; empty while there are no API keys |
//! | 33 | idempotency key |

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::job::{Group, IdempotencyKey, Payload, Priority, Processor};

/// The key of the hash. Changing it makes every stored fingerprint foreign.
const KEY: [u8; 16] = *b"jitney fprint v1";

/// What a fingerprint is made of. Not among it: how long the caller waits, and the form the job came in.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Whose.
    pub processor: &'a Processor,
    /// Which kind.
    pub group: &'a Group,
    /// Which lane.
    pub priority: Priority,
    /// The caller's key.
    pub key: Option<&'a str>,
    /// Names and values, in any order.
    pub labels: &'a [(String, String)],
    /// The data, as it came.
    pub payload: &'a Payload,
}

/// The fingerprint of a submit.
#[must_use]
pub fn fingerprint(content: &Content<'_>) -> u128 {
    let mut fields = Fields::new();
    fields.add(1, content.processor.as_str().as_bytes());
    fields.add(2, content.group.as_str().as_bytes());
    fields.add(3, content.priority.name().as_bytes());
    if let Some(key) = content.key {
        fields.add(4, key.as_bytes());
    }
    let mut labels: Vec<_> = content.labels.iter().collect();
    labels.sort();
    for (name, value) in labels {
        fields.add(5, name.as_bytes());
        fields.add(6, value.as_bytes());
    }
    if let Some(content_type) = &content.payload.content_type {
        fields.add(7, content_type.as_bytes());
    }
    fields.add(8, &content.payload.bytes);
    fields.finish()
}

/// An idempotency key as it is kept: its scope is the caller and the processor.
#[must_use]
pub fn idempotency_key(caller: &str, processor: &Processor, key: &str) -> IdempotencyKey {
    let mut scope = Fields::new();
    scope.add(32, caller.as_bytes());
    scope.add(1, processor.as_str().as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = scope.finish().to_le_bytes();
    let mut hash = Fields::new();
    hash.add(33, key.as_bytes());
    IdempotencyKey {
        scope: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        hash: hash.finish(),
    }
}

/// Tagged, length-prefixed fields on their way into the hash.
struct Fields(SipHasher24);

impl Fields {
    fn new() -> Self {
        Self(SipHasher24::new_with_key(&KEY))
    }

    fn add(&mut self, tag: u8, bytes: &[u8]) {
        self.0.write(&[tag]);
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.0.write(&length.to_le_bytes());
        self.0.write(bytes);
    }

    fn finish(self) -> u128 {
        self.0.finish128().as_u128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::Arc;

    use crate::driver::port::json;

    struct Job {
        processor: Processor,
        group: Group,
        priority: Priority,
        key: Option<String>,
        labels: Vec<(String, String)>,
        payload: Payload,
    }

    fn job() -> Job {
        Job {
            processor: Processor::parse("payments").unwrap(),
            group: Group::default(),
            priority: Priority::Normal,
            key: Some("tenant-7".to_owned()),
            labels: vec![("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())],
            payload: json("{}"),
        }
    }

    fn of(job: &Job) -> u128 {
        fingerprint(&Content {
            processor: &job.processor,
            group: &job.group,
            priority: job.priority,
            key: job.key.as_deref(),
            labels: &job.labels,
            payload: &job.payload,
        })
    }

    #[test]
    fn the_value_on_disk_stays_what_it_is() {
        assert_eq!(of(&job()), GOLDEN_FINGERPRINT);
        let key = idempotency_key("", &Processor::parse("payments").unwrap(), "order-17");
        assert_eq!((key.scope, key.hash), GOLDEN_KEY);
    }

    // Both were computed by another implementation of SipHash.
    const GOLDEN_FINGERPRINT: u128 = 0xa352_32ff_42ca_7db1_fd1b_bd0d_3202_33f1;
    const GOLDEN_KEY: (u64, u128) = (0x66a2_b0f2_72bb_16db, 0x5ab0_77fc_4cb7_e444_be20_d33d_5e33_9de7);

    #[test]
    fn every_part_counts_but_the_order_of_labels_does_not() {
        type Change = fn(&mut Job);
        let changes: [Change; 8] = [
            |job| job.processor = Processor::parse("payment").unwrap(),
            |job| job.group = Group::parse("other").unwrap(),
            |job| job.priority = Priority::Slow,
            |job| job.key = None,
            |job| job.key = Some("tenant-8".to_owned()),
            |job| job.labels[0].1 = "3".to_owned(),
            |job| job.payload.content_type = Some(Arc::from("text/plain")),
            |job| job.payload = json("{} "),
        ];
        let original = of(&job());
        for (at, change) in changes.iter().enumerate() {
            let mut changed = job();
            change(&mut changed);
            assert_ne!(of(&changed), original, "change {at}");
        }
        let mut turned = job();
        turned.labels.reverse();
        assert_eq!(of(&turned), original);
    }

    #[test]
    fn bytes_cannot_move_from_one_field_to_the_next() {
        let mut left = job();
        left.labels = vec![("ab".to_owned(), "c".to_owned())];
        let mut right = job();
        right.labels = vec![("a".to_owned(), "bc".to_owned())];
        assert_ne!(of(&left), of(&right));
    }

    #[test]
    fn a_key_of_another_processor_or_caller_is_another_key() {
        let payments = Processor::parse("payments").unwrap();
        let mail = Processor::parse("mail").unwrap();
        let key = idempotency_key("", &payments, "k");
        assert_eq!(key, idempotency_key("", &payments, "k"));
        assert_ne!(key, idempotency_key("", &mail, "k"));
        assert_ne!(key, idempotency_key("caller", &payments, "k"));
        assert_ne!(key, idempotency_key("", &payments, "l"));
    }
}
