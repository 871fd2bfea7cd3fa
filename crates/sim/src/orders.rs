//! Orders: what simulated callers submit, what workers do with it, and what must come back.
//!
//! An order's data names it, and its result follows from its data alone, so that a result which went to
//! another caller, or data which went under another id, shows.

use bytes::Bytes;
use jitney::driver::port::{Child, Submit};
use jitney::job::{Group, IdempotencyKey, JobId, Payload, Priority, Processor};

use crate::random::{Rng, hash, mix};

/// Names an order in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct OrderId(pub u64);

/// How a repeat of an order is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Identity {
    /// It is not: each submit is a job of its own.
    Anonymous,
    /// By the caller's id.
    Own(JobId),
    /// By an idempotency key.
    Keyed(IdempotencyKey),
}

/// What a worker does with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Succeeds, and makes so many children.
    Succeed { children: u32 },
    /// Fails so many times in a way that another try may help, then succeeds.
    Flaky { failures: u32 },
    /// Fails for good.
    Refuse,
    /// Kills its worker so many times, then succeeds.
    Poison { kills: u32 },
}

/// One order.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub id: OrderId,
    pub processor: Processor,
    pub group: Group,
    pub priority: Priority,
    pub data: Bytes,
    pub key: Option<String>,
    pub labels: Vec<(String, String)>,
    pub identity: Identity,
    pub fingerprint: u128,
    pub work: Work,
}

/// The code of every simulated final error.
pub(crate) const REFUSED: &str = "refused_order";
/// The code of every simulated error that another try may help.
pub(crate) const FLAKY: &str = "flaky";

impl Order {
    pub(crate) fn new(
        id: OrderId,
        processor: &Processor,
        group: &Group,
        priority: Priority,
        rng: &mut Rng,
    ) -> Self {
        let pad = if rng.permille(50) {
            rng.range(200, 3_000)
        } else {
            rng.below(60)
        };
        let pad = "x".repeat(usize::try_from(pad).unwrap_or(0));
        let data = Bytes::from(format!(
            "{{\"n\":{},\"salt\":{},\"pad\":\"{pad}\"}}",
            id.0,
            rng.below(1 << 30)
        ));
        let labelled = rng.permille(300);
        Self {
            id,
            processor: processor.clone(),
            group: group.clone(),
            priority,
            fingerprint: 0,
            key: rng.permille(200).then(|| format!("tenant-{}", rng.below(4))),
            labels: if labelled {
                vec![("order".to_owned(), id.0.to_string())]
            } else {
                Vec::new()
            },
            identity: Identity::Anonymous,
            work: Work::Succeed { children: 0 },
            data,
        }
    }

    /// Gives it an identity; its fingerprint follows from its content.
    pub(crate) fn identified(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self.fingerprint = (u128::from(hash(&self.data)) << 64) | u128::from(mix(self.id.0));
        self
    }

    pub(crate) fn submit(&self, wait: Option<std::time::Duration>) -> Submit {
        Submit {
            processor: self.processor.clone(),
            group: self.group.clone(),
            priority: self.priority,
            payload: self.payload(),
            id: match self.identity {
                Identity::Own(id) => Some(id),
                _ => None,
            },
            key: self.key.clone(),
            labels: self.labels.clone(),
            idempotency: match self.identity {
                Identity::Keyed(key) => Some(key),
                _ => None,
            },
            fingerprint: self.fingerprint,
            traceparent: None,
            wait,
        }
    }

    pub(crate) fn child(&self) -> Child {
        Child {
            processor: self.processor.clone(),
            group: self.group.clone(),
            priority: self.priority,
            payload: self.payload(),
            key: self.key.clone(),
            labels: self.labels.clone(),
            traceparent: None,
        }
    }

    fn payload(&self) -> Payload {
        Payload {
            content_type: None,
            bytes: self.data.clone(),
        }
    }
}

/// What the handler gives back for some data.
pub(crate) fn result_of(data: &[u8]) -> Bytes {
    let digest = hash(data);
    let pad = if digest.is_multiple_of(20) {
        1_500
    } else {
        digest % 40
    };
    let pad = "r".repeat(usize::try_from(pad).unwrap_or(0));
    Bytes::from(format!("{{\"done\":\"{digest:016x}\",\"pad\":\"{pad}\"}}"))
}

/// Which order some data is of.
pub(crate) fn order_of(data: &[u8]) -> Option<OrderId> {
    let digits = data.strip_prefix(b"{\"n\":")?;
    let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end])
        .ok()?
        .parse()
        .ok()
        .map(OrderId)
}
