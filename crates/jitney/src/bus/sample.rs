//! Records for the tests of the buses.

use joblog::record::{End, Outcome, Submit};

use super::Record;
use crate::clock::WallMs;
use crate::job::{JobId, Priority};

pub(super) fn submit(id: JobId) -> Record<'static> {
    Record::Submit(Submit {
        id,
        processor: "p",
        group: "g",
        priority: Priority::Normal,
        data: b"1",
        content_type: None,
        key: None,
        labels: Vec::new(),
        idempotency: None,
        fingerprint: 0,
        client_id: false,
        parent: None,
        traceparent: None,
        ttl_ms: None,
        deadline: None,
        run_at: None,
        sequence: 1,
        accepted: WallMs(0),
    })
}

pub(super) fn outcome(id: JobId) -> Record<'static> {
    Record::Outcome(Outcome {
        id,
        end: End::Ok,
        reason: None,
        token: None,
        worker: None,
        started: None,
        finished: WallMs(0),
        attempts: 1,
        crashes: 0,
        result: b"2",
        content_type: None,
        error: None,
        children: 0,
        keep_ms: None,
    })
}
