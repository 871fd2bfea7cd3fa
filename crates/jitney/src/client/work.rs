//! What a worker says and hears: polls, batches, outcomes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::error::{Error, Retry};
use super::submit::Submit;
use super::transport::Reply;
use super::wire;
use crate::clock::WallMs;
use crate::job::{JobId, Payload, Priority};
use crate::units::format_duration;

/// The longest code of an error that the server takes.
const CODE_BYTES_MAX: usize = 64;

/// The longest message of an error that the server takes.
const MESSAGE_BYTES_MAX: usize = 4_096;

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

/// Why a batch failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchError {
    /// A short name that programs match on. Sent are at most 64 bytes of it.
    #[serde(serialize_with = "write_code")]
    pub code: String,
    /// A sentence for people. Sent are at most 4,096 bytes of it.
    #[serde(serialize_with = "write_message")]
    pub message: String,
}

/// What became of one job, ready to be sent.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The job.
    pub id: JobId,
    /// The outcome as it goes over the wire.
    json: Box<RawValue>,
    /// Whether it submits child jobs: then the server may ask to send it again later.
    has_children: bool,
}

/// Why one job failed.
#[derive(Clone, Debug, Serialize)]
pub struct OutcomeError {
    /// A short name that programs match on. Sent are at most 64 bytes of it.
    #[serde(serialize_with = "write_code")]
    pub code: String,
    /// A sentence for people. Sent are at most 4,096 bytes of it.
    #[serde(serialize_with = "write_message")]
    pub message: String,
    /// Whether another try may help.
    pub retryable: bool,
    /// Not before this long from now.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_maybe_duration"
    )]
    pub retry_after: Option<Duration>,
    /// JSON for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl LeaseRequest {
    /// A poll for one batch of any lane that comes back at once.
    #[must_use]
    pub fn new(worker: &str) -> Self {
        Self {
            worker: worker.to_owned(),
            slots: 1,
            max_jobs: None,
            max_bytes: None,
            wait: Duration::ZERO,
            priorities: Vec::new(),
            request_id: None,
            settle: Vec::new(),
        }
    }
}

impl Outcome {
    /// Done, with this JSON as its result.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a child's data is not what it should be.
    pub fn ok(id: JobId, result: &RawValue, children: &[Submit]) -> Result<Self, Error> {
        let mut line = Line::new(id);
        line.ok = Some(result);
        line.with_children(children)
    }

    /// Done, with these bytes as its result.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the bytes have no content type and are not JSON, or a child's data is not what it
    /// should be.
    pub fn ok_payload(id: JobId, result: &Payload, children: &[Submit]) -> Result<Self, Error> {
        let Some(content_type) = result.content_type.as_deref() else {
            let json = wire::raw(result.bytes.to_vec()).map_err(|error| Error::Invalid {
                detail: format!("the result is not json: {error}"),
            })?;
            return Self::ok(id, &json, children);
        };
        let mut line = Line::new(id);
        line.ok_base64 = Some(wire::base64(&result.bytes));
        line.content_type = Some(content_type);
        line.with_children(children)
    }

    /// Failed.
    #[must_use]
    pub fn error(id: JobId, error: &OutcomeError) -> Self {
        let mut line = Line::new(id);
        line.error = Some(error);
        line.finish(false)
    }

    /// Given back; nothing is counted.
    #[must_use]
    pub fn release(id: JobId) -> Self {
        let mut line = Line::new(id);
        line.release = true;
        line.finish(false)
    }

    /// An outcome as a program wrote it; the server checks it.
    pub(crate) fn verbatim(id: JobId, json: Box<RawValue>, has_children: bool) -> Self {
        Self {
            id,
            json,
            has_children,
        }
    }

    /// How many bytes it takes on the wire.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        self.json.get().len()
    }

    pub(crate) fn has_children(&self) -> bool {
        self.has_children
    }
}

/// What the server gives to a poll.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct LeaseAnswer {
    /// Per settle of the request, in its order.
    #[serde(default)]
    pub settled: Vec<SettleAnswer>,
    /// The batches; empty if the wait ended first.
    #[serde(default)]
    pub batches: Vec<Batch>,
    /// The server drains: ask again after this long.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// A batch of jobs under one lease.
#[derive(Clone, Debug, Deserialize)]
pub struct Batch {
    /// The lease's token.
    pub lease: String,
    /// The batch's id.
    pub batch: String,
    /// Its lane.
    #[serde(deserialize_with = "wire::priority")]
    pub priority: Priority,
    /// When the lease ends, RFC 3339.
    pub expires_at: String,
    /// How long the lease lasts without an extend, milliseconds.
    pub expires_in_ms: u64,
    /// The job objects as the server wrote them; [`LeasedJob::read`] reads one.
    pub jobs: Vec<Box<RawValue>>,
}

/// A job in a batch, borrowed from its JSON.
#[derive(Clone, Debug, Deserialize)]
pub struct LeasedJob<'a> {
    /// The job's id.
    #[serde(deserialize_with = "wire::id")]
    pub id: JobId,
    /// The kind of job.
    #[serde(borrow)]
    pub group: Cow<'a, str>,
    /// Which try this is, from 1.
    #[serde(default)]
    pub attempt: u32,
    /// How often it was handed out, this time included.
    #[serde(default)]
    pub delivery: u32,
    /// The data, if it is JSON.
    #[serde(borrow, default)]
    pub data: Option<&'a RawValue>,
    /// The data, if it is not.
    #[serde(borrow, default)]
    pub data_base64: Option<Cow<'a, str>>,
    /// What `data_base64` is.
    #[serde(borrow, default)]
    pub content_type: Option<Cow<'a, str>>,
    /// The caller's key.
    #[serde(borrow, default)]
    pub key: Option<Cow<'a, str>>,
    /// When it was accepted.
    #[serde(default, deserialize_with = "wire::maybe_time")]
    pub submitted_at: Option<WallMs>,
    /// When it expires.
    #[serde(default, deserialize_with = "wire::maybe_time")]
    pub deadline: Option<WallMs>,
    /// Names and values that the caller attached.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// W3C trace context.
    #[serde(borrow, default)]
    pub traceparent: Option<Cow<'a, str>>,
}

impl<'a> LeasedJob<'a> {
    /// Reads a job object.
    ///
    /// # Errors
    /// It is none.
    pub fn read(json: &'a RawValue) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json.get())
    }

    /// The data; `null` if the job has none.
    ///
    /// # Errors
    /// The base64 is broken.
    pub fn payload(&self) -> Result<Payload, base64::DecodeError> {
        let payload = wire::payload(
            self.data,
            self.data_base64.as_deref(),
            self.content_type.as_deref(),
        )?;
        Ok(payload.unwrap_or(Payload {
            content_type: None,
            bytes: Bytes::from_static(b"null"),
        }))
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
        let answer = if reply.body.is_empty() {
            Self::default()
        } else {
            wire::read(&reply.body)?
        };
        Ok(Self {
            retry_after: reply.retry_after,
            ..answer
        })
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    settle: Vec<WireSettle<'a>>,
}

#[derive(Serialize)]
struct WireSettle<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "write_outcomes")]
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

#[derive(Serialize)]
struct Line<'a> {
    #[serde(serialize_with = "wire::write_id")]
    id: JobId,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ok_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    jobs: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a OutcomeError>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    release: bool,
}

impl Line<'_> {
    fn new(id: JobId) -> Self {
        Self {
            id,
            ok: None,
            ok_base64: None,
            content_type: None,
            jobs: Vec::new(),
            error: None,
            release: false,
        }
    }

    fn with_children(mut self, children: &[Submit]) -> Result<Outcome, Error> {
        self.jobs = children
            .iter()
            .map(Submit::encode_child)
            .collect::<Result<_, _>>()?;
        Ok(self.finish(!children.is_empty()))
    }

    fn finish(self, has_children: bool) -> Outcome {
        let json = serde_json::value::to_raw_value(&self)
            .expect("strings, booleans and raw JSON can always be written as JSON");
        Outcome {
            id: self.id,
            json,
            has_children,
        }
    }
}

fn write_outcomes<S: Serializer>(outcomes: &Option<&[Outcome]>, serializer: S) -> Result<S::Ok, S::Error> {
    let outcomes = outcomes.unwrap_or_default();
    let mut sequence = serializer.serialize_seq(Some(outcomes.len()))?;
    for outcome in outcomes {
        sequence.serialize_element(&outcome.json)?;
    }
    sequence.end()
}

/// The server takes no empty code.
fn write_code<S: Serializer>(code: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if code.is_empty() {
        "error"
    } else {
        clip(code, CODE_BYTES_MAX)
    })
}

fn write_message<S: Serializer>(message: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(clip(message, MESSAGE_BYTES_MAX))
}

/// Cuts a text between two characters.
fn clip(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

fn write_maybe_duration<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => serializer.serialize_str(&format_duration(*duration)),
        None => serializer.serialize_none(),
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
            settle: vec![
                Settle {
                    lease: "t1".to_owned(),
                    body: SettleBody::Outcomes {
                        outcomes: vec![Outcome::ok(id(), RawValue::NULL, &[]).unwrap()],
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
            r#"{"worker":"w-1","slots":2,"max_jobs":16,"wait":"30s","priorities":["NORMAL"],"request_id":"r","settle":["#,
            r#"{"lease":"t1","outcomes":[{"id":"0199b7a0-0000-7000-8000-000000000001","ok":null}],"final":true},"#,
            r#"{"lease":"t2","failed":{"code":"crashed","message":"gone"},"crashed":true}]}"#
        );
        assert_eq!(&encode_lease(&request).unwrap()[..], expected.as_bytes());
    }

    #[test]
    fn every_kind_of_outcome_is_written_as_the_contract_says() {
        let error = OutcomeError {
            code: "busy".to_owned(),
            message: "later".to_owned(),
            retryable: true,
            retry_after: Some(Duration::from_millis(1500)),
            data: None,
        };
        let child = Submit::json("mail", &1).unwrap().id(id());
        let bytes = Payload {
            content_type: Some("image/png".into()),
            bytes: Bytes::from_static(&[0xff, 0]),
        };
        let outcomes = [
            (
                Outcome::error(id(), &error),
                r#""error":{"code":"busy","message":"later","retryable":true,"retry_after":"1500ms"}"#,
            ),
            (Outcome::release(id()), r#""release":true"#),
            (
                Outcome::ok_payload(id(), &bytes, &[]).unwrap(),
                r#""ok_base64":"/wA=","content_type":"image/png""#,
            ),
            (
                Outcome::ok(id(), RawValue::TRUE, &[child]).unwrap(),
                r#""ok":true,"jobs":[{"processor":"mail","data":1}]"#,
            ),
        ];
        for (outcome, expected) in outcomes {
            let expected = format!(r#"{{"id":"{}",{expected}}}"#, id());
            assert_eq!(outcome.json.get(), expected);
        }
    }

    #[test]
    fn an_error_is_cut_to_what_the_server_takes() {
        let error = BatchError {
            code: String::new(),
            message: "\u{e9}".repeat(3_000),
        };
        let sent: serde_json::Value = serde_json::to_value(&error).unwrap();
        assert_eq!(sent["code"], "error");
        assert_eq!(sent["message"], "\u{e9}".repeat(2_048));
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
        let answer: LeaseAnswer = wire::read(answer.as_bytes()).unwrap();
        let raw = &answer.batches[0].jobs[0];
        assert_eq!(raw.get(), job);
        let read = LeasedJob::read(raw).unwrap();
        assert_eq!((read.group.as_ref(), read.attempt, read.delivery), ("a-b", 2, 3));
        assert_eq!(&read.payload().unwrap().bytes[..], b"{\"x\":\r\n 1.0}");
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
