//! What a worker says and hears: polls, batches, outcomes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::{Error, Retry};
use super::http::Reply;
use super::outcome::{BatchError, Outcome};
use super::text::Text;
use super::wire;
use crate::clock::WallMs;
use crate::job::{JobId, Payload, Priority};
use crate::units::format_duration;

/// A worker's poll.
#[derive(Clone, Debug)]
pub struct LeaseRequest {
    /// Who asks, 1 to 128 bytes.
    pub worker: String,
    /// How many batches at most.
    pub slots: u32,
    /// Most jobs per batch, if fewer than the policy's.
    pub max_jobs: Option<u32>,
    /// Most wire bytes per batch, if fewer than the policy's.
    pub max_bytes: Option<u64>,
    /// How long the server holds the answer for a batch.
    pub wait: Duration,
    /// Which lanes; empty means all.
    pub priorities: Vec<Priority>,
    /// The poll's own id: the same again, after a lost answer, gives the same batches again.
    pub request_id: Option<String>,
    /// Why the worker's program cannot start, 1 to 256 bytes. Such a poll takes no batch: while the server holds it, it
    /// shows the worker as one that cannot start.
    pub not_ready: Option<String>,
    /// Settled first, durably.
    pub settle: Vec<Settle>,
}

/// Outcomes for the jobs of a lease.
#[derive(Clone, Debug)]
pub struct Settle {
    /// The lease's token.
    pub lease: String,
    /// What it says.
    pub body: SettleBody,
}

/// Either per job, or for the batch as a whole.
#[derive(Clone, Debug)]
pub enum SettleBody {
    /// Per job.
    Outcomes {
        /// In any order; the first of two for one job wins.
        outcomes: Vec<Outcome>,
        /// Whether the lease ends with it: then a job left unnamed counts as a failed try.
        last: bool,
    },
    /// The batch failed as a whole: its unsettled jobs are split.
    Failed {
        /// With what.
        error: BatchError,
        /// The program that ran the batch died: each unsettled job counts a crash.
        crashed: bool,
    },
}

impl LeaseRequest {
    /// A poll for one batch of any lane that comes back at once.
    #[must_use]
    pub fn new(worker: impl Into<String>) -> Self {
        Self {
            worker: worker.into(),
            slots: 1,
            max_jobs: None,
            max_bytes: None,
            wait: Duration::ZERO,
            priorities: Vec::new(),
            request_id: None,
            not_ready: None,
            settle: Vec::new(),
        }
    }
}

/// What the server gives to a poll.
#[derive(Clone, Debug, Default)]
pub struct LeaseAnswer {
    /// Per settle of the request, in its order.
    pub settled: Vec<SettleAnswer>,
    /// The batches; empty if the wait ended first.
    pub batches: Vec<Batch>,
    /// The server drains: ask again after this long.
    pub retry_after: Option<Duration>,
}

/// A batch of jobs under one lease.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The lease's token.
    pub lease: String,
    /// The batch's id.
    pub batch: String,
    /// Its lane.
    pub priority: Priority,
    /// When the lease ends, RFC 3339.
    pub expires_at: String,
    /// How long the lease lasts without an extend, milliseconds.
    pub expires_in_ms: u64,
    /// Its jobs, in the order in which they are to be processed.
    pub jobs: Vec<LeasedJob>,
}

/// A job in a batch.
#[derive(Clone, Debug)]
pub struct LeasedJob {
    /// The job's id.
    pub id: JobId,
    /// The kind of job.
    pub group: String,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// How often it was handed out, this time included.
    pub delivery: u32,
    /// The data; JSON `null` if the job has none.
    pub payload: Payload,
    /// The caller's key.
    pub key: Option<String>,
    /// When it was accepted.
    pub submitted_at: Option<WallMs>,
    /// When it expires.
    pub deadline: Option<WallMs>,
    /// Names and values that the caller attached.
    pub labels: BTreeMap<String, String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The job object as JSON.
    pub(crate) text: Text<Self>,
}

impl LeasedJob {
    /// The job object as the server writes it, with fields that this client may not know.
    #[must_use]
    pub fn json(&self) -> &str {
        self.text.of(self)
    }

    /// Reads a job object; its data stays a slice of `body`, as its text does.
    pub(crate) fn read(json: &RawValue, body: &Bytes) -> Result<Self, serde_json::Error> {
        let wire: WireJob<'_> = serde_json::from_str(json.get())?;
        let payload = wire::payload(
            body,
            wire.data,
            wire.data_base64.as_deref(),
            wire.content_type.as_deref(),
        )
        .map_err(serde::de::Error::custom)?;
        Ok(Self {
            id: wire.id,
            group: wire.group.into_owned(),
            attempt: wire.attempt,
            delivery: wire.delivery,
            payload: payload.unwrap_or(Payload {
                content_type: None,
                bytes: Bytes::from_static(b"null"),
            }),
            key: wire.key.map(Cow::into_owned),
            submitted_at: wire.submitted_at,
            deadline: wire.deadline,
            labels: wire.labels,
            traceparent: wire.traceparent.map(Cow::into_owned),
            text: Text::came(body.slice_ref(json.get().as_bytes())),
        })
    }
}

/// What the server says to a settle.
#[derive(Clone, Debug, Deserialize)]
pub struct SettleAnswer {
    /// Per outcome, in the order of the request.
    #[serde(default)]
    pub results: Vec<SettleResult>,
    /// The settle as a whole was refused (inside a poll; alone it is [`Error::Refused`]).
    #[serde(default)]
    pub error: Option<SettleError>,
}

/// What became of one outcome.
#[derive(Clone, Debug, Deserialize)]
pub struct SettleResult {
    /// The job.
    #[serde(deserialize_with = "wire::id")]
    pub id: JobId,
    /// What became of it.
    pub is: SettleIs,
    /// Why it was refused.
    #[serde(default)]
    pub error: Option<SettleError>,
}

/// What became of one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettleIs {
    /// It counts, and is durable.
    Applied,
    /// Back in its lane.
    Released,
    /// Settled before under this very token.
    Duplicate,
    /// Another lease was granted, or settled it.
    Late,
    /// Not in this lease.
    Unknown,
    /// Invalid or over a limit; nothing of it is applied.
    Refused,
}

/// Why an outcome, or a settle, was refused.
#[derive(Clone, Debug, Deserialize)]
pub struct SettleError {
    /// The stable name of the reason.
    pub code: String,
    /// A sentence for people.
    #[serde(default)]
    pub detail: String,
    /// Whether to try again.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// Not before so many milliseconds from now.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, Deserialize)]
pub struct Extended {
    /// How long the lease lasts from now, milliseconds.
    pub expires_in_ms: u64,
    /// Jobs that their callers gave up.
    #[serde(default, deserialize_with = "wire::ids")]
    pub cancelled: Vec<JobId>,
    /// Jobs that this lease no longer holds.
    #[serde(default, deserialize_with = "wire::ids")]
    pub lost: Vec<JobId>,
}

impl LeaseAnswer {
    pub(super) fn decode(reply: &Reply) -> Result<Self, Error> {
        // Nothing settled and no batch in time: no content.
        let mut answer = if reply.body.is_empty() {
            Self::default()
        } else {
            Self::read(&reply.body)?
        };
        answer.retry_after = reply.retry_after;
        Ok(answer)
    }

    fn read(body: &Bytes) -> Result<Self, Error> {
        let wire: WireAnswer<'_> = wire::read(body)?;
        Ok(Self {
            settled: wire.settled,
            batches: wire.batches.into_iter().map(|batch| batch.read(body)).collect(),
            retry_after: None,
        })
    }
}

/// The answer to a poll, borrowed from its JSON.
#[derive(Deserialize)]
struct WireAnswer<'a> {
    #[serde(default)]
    settled: Vec<SettleAnswer>,
    #[serde(borrow, default)]
    batches: Vec<WireBatch<'a>>,
}

#[derive(Deserialize)]
struct WireBatch<'a> {
    lease: String,
    batch: String,
    #[serde(deserialize_with = "wire::priority")]
    priority: Priority,
    expires_at: String,
    expires_in_ms: u64,
    #[serde(borrow)]
    jobs: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct WireJob<'a> {
    #[serde(deserialize_with = "wire::id")]
    id: JobId,
    #[serde(borrow)]
    group: Cow<'a, str>,
    #[serde(default)]
    attempt: u32,
    #[serde(default)]
    delivery: u32,
    /// The data, if it is JSON.
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    /// The data, if it is not.
    #[serde(borrow, default)]
    data_base64: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    content_type: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
    #[serde(default, deserialize_with = "wire::maybe_time")]
    submitted_at: Option<WallMs>,
    #[serde(default, deserialize_with = "wire::maybe_time")]
    deadline: Option<WallMs>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(borrow, default)]
    traceparent: Option<Cow<'a, str>>,
}

impl WireBatch<'_> {
    fn read(self, body: &Bytes) -> Batch {
        let jobs = self.jobs.iter().filter_map(|json| {
            LeasedJob::read(json, body)
                // The others go on; this one has no outcome, which counts as a failed try.
                .inspect_err(
                    |error| tracing::error!(%error, batch = self.batch, "a job of the batch cannot be read"),
                )
                .ok()
        });
        Batch {
            jobs: jobs.collect(),
            lease: self.lease,
            batch: self.batch,
            priority: self.priority,
            expires_at: self.expires_at,
            expires_in_ms: self.expires_in_ms,
        }
    }
}

pub(super) fn encode_lease(request: &LeaseRequest) -> Result<Bytes, Error> {
    wire::write(&WireLease {
        worker: &request.worker,
        slots: request.slots,
        max_jobs: request.max_jobs,
        max_bytes: request.max_bytes,
        wait: format_duration(request.wait),
        priorities: request.priorities.iter().map(|p| p.name()).collect(),
        request_id: request.request_id.as_deref(),
        not_ready: request.not_ready.as_deref(),
        settle: request
            .settle
            .iter()
            .map(|settle| WireSettle::new(Some(&settle.lease), &settle.body))
            .collect(),
    })
}

pub(super) fn encode_settle(settle: &Settle) -> Result<Bytes, Error> {
    wire::write(&WireSettle::new(None, &settle.body))
}

#[derive(Serialize)]
struct WireLease<'a> {
    worker: &'a str,
    slots: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_jobs: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    wait: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    priorities: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_ready: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    settle: Vec<WireSettle<'a>>,
}

#[derive(Serialize)]
struct WireSettle<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcomes: Option<&'a [Outcome]>,
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    last: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<&'a BatchError>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    crashed: bool,
}

impl<'a> WireSettle<'a> {
    fn new(lease: Option<&'a str>, body: &'a SettleBody) -> Self {
        let mut wire = Self {
            lease,
            outcomes: None,
            last: None,
            failed: None,
            crashed: false,
        };
        match body {
            SettleBody::Outcomes { outcomes, last } => {
                wire.outcomes = Some(outcomes);
                wire.last = Some(*last);
            }
            SettleBody::Failed { error, crashed } => {
                wire.failed = Some(error);
                wire.crashed = *crashed;
            }
        }
        wire
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> JobId {
        wire::parse_id("0199b7a0-0000-7000-8000-000000000001").unwrap()
    }

    #[test]
    fn a_poll_settles_on_its_way() {
        let request = LeaseRequest {
            worker: "w-1".to_owned(),
            slots: 2,
            max_jobs: Some(16),
            max_bytes: None,
            wait: Duration::from_secs(30),
            priorities: vec![Priority::Normal],
            request_id: Some("r".to_owned()),
            not_ready: Some("gone".to_owned()),
            settle: vec![
                Settle {
                    lease: "t1".to_owned(),
                    body: SettleBody::Outcomes {
                        outcomes: vec![
                            Outcome::ok(id(), crate::driver::port::json("null"), Vec::new()).unwrap(),
                        ],
                        last: true,
                    },
                },
                Settle {
                    lease: "t2".to_owned(),
                    body: SettleBody::Failed {
                        error: BatchError {
                            code: "crashed".to_owned(),
                            message: "gone".to_owned(),
                        },
                        crashed: true,
                    },
                },
            ],
        };
        let expected = concat!(
            r#"{"worker":"w-1","slots":2,"max_jobs":16,"wait":"30s","priorities":["NORMAL"],"request_id":"r","not_ready":"gone","settle":["#,
            r#"{"lease":"t1","outcomes":[{"id":"0199b7a0-0000-7000-8000-000000000001","ok":null}],"final":true},"#,
            r#"{"lease":"t2","failed":{"code":"crashed","message":"gone"},"crashed":true}]}"#
        );
        assert_eq!(&encode_lease(&request).unwrap()[..], expected.as_bytes());
    }

    #[test]
    fn a_batch_keeps_the_bytes_of_its_jobs() {
        let job = concat!(
            r#"{"id":"0199b7a0-0000-7000-8000-000000000001","group":"a\u002db","attempt":2,"delivery":3,"#,
            "\"data\":{\"x\":\r\n 1.0},\"key\":null,\"submitted_at\":\"2026-01-05T10:00:00.000Z\",",
            r#""deadline":null,"labels":{},"traceparent":null,"later":1}"#
        );
        let answer = format!(
            r#"{{"batches":[{{"lease":"t","batch":"b","priority":"SLOW","expires_at":"x","expires_in_ms":30000,"jobs":[{job}]}}],"new":1}}"#
        );
        let body = Bytes::from(answer);
        let answer = LeaseAnswer::read(&body).unwrap();
        let read = &answer.batches[0].jobs[0];
        assert_eq!(read.json(), job);
        assert_eq!((read.group.as_str(), read.attempt, read.delivery), ("a-b", 2, 3));
        let data = &read.payload.bytes;
        assert_eq!(&data[..], b"{\"x\":\r\n 1.0}");
        assert!(
            body.as_ptr_range().contains(&data.as_ptr()),
            "the data is a slice of what came"
        );
    }

    #[test]
    fn a_refused_outcome_says_why() {
        let answer: SettleAnswer = wire::read(
            br#"{"results":[{"id":"0199b7a0-0000-7000-8000-000000000001","is":"refused","error":{"code":"queue_full","retry":"after"}}]}"#,
        )
        .unwrap();
        assert_eq!(answer.results[0].is, SettleIs::Refused);
        assert_eq!(
            answer.results[0].error.as_ref().unwrap().retry,
            Some(Retry::After)
        );
    }
}
