//! What the server tells about a job, its lanes and itself.

use std::collections::BTreeMap;
use std::ops::Deref;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::error::Error;
use super::text::Text;
use super::wire;
use crate::clock::WallMs;
use crate::job::{Group, JobError, JobId, JobView, Priority, Processor, Reason, State, Status};

/// A job as the server told it: what is known of its fields, and the answer itself.
#[derive(Clone, Debug)]
pub struct Job {
    view: JobView,
    text: Text<JobView>,
}

/// Why a job's result could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// The job failed: this is its error. For whoever wrote the job or its handler; trying again is a new job.
    #[error("job `{id}` failed: {} ({})", .error.message, .error.code)]
    Failed {
        /// The job.
        id: JobId,
        /// Its error.
        error: Box<JobError>,
    },
    /// The job has no outcome yet. Wait for it: [`Client::get_and_wait`](super::Client::get_and_wait).
    #[error("job `{id}` has not ended")]
    NotEnded {
        /// The job.
        id: JobId,
    },
    /// The job ended, and what it gave had to give way. Come sooner, or raise `result_ttl`.
    #[error("the result of job `{id}` had to give way; it ended as `{}`", .status.name())]
    Expired {
        /// The job.
        id: JobId,
        /// How it ended.
        status: Status,
    },
    /// The result is no JSON: its bytes are in `result`.
    #[error("the result is `{content_type}`, not json")]
    NotJson {
        /// What it is.
        content_type: String,
    },
    /// The result does not fit the type that was asked for.
    #[error("the result does not fit: {0}")]
    Unfit(#[source] serde_json::Error),
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        self.view == other.view && self.json() == other.json()
    }
}

impl Eq for Job {}

impl Deref for Job {
    type Target = JobView;

    fn deref(&self) -> &JobView {
        &self.view
    }
}

impl Job {
    /// The answer as the server wrote it, with fields that this client may not know.
    #[must_use]
    pub fn json(&self) -> &str {
        self.text.of(&self.view)
    }

    /// Whether it has an outcome, of whatever kind.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.view.status != Status::Submitted
    }

    /// Reads the result.
    ///
    /// # Errors
    /// [`ResultError`]: why there is none, first of all the job's own error; or that it does not fit.
    pub fn result_as<T: DeserializeOwned>(&self) -> Result<T, ResultError> {
        let JobView { id, status, .. } = self.view;
        match (&self.view.result, &self.view.error) {
            (Some(result), _) => {
                serde_json::from_slice(&result.bytes).map_err(|error| match &result.content_type {
                    Some(kept) if !wire::is_json(kept) => ResultError::NotJson {
                        content_type: kept.to_string(),
                    },
                    _ => ResultError::Unfit(error),
                })
            }
            (None, Some(error)) => Err(ResultError::Failed {
                id,
                error: Box::new(error.clone()),
            }),
            (None, None) if status == Status::Submitted => Err(ResultError::NotEnded { id }),
            (None, None) => Err(ResultError::Expired { id, status }),
        }
    }

    /// A job of this process; its JSON is written when it is asked for.
    pub(crate) fn here(view: JobView, text: Text<JobView>) -> Self {
        Self { view, text }
    }

    pub(super) fn decode(json: Bytes) -> Result<Self, Error> {
        let wire: Wire<'_> = wire::read(&json)?;
        let view = wire.view(&json).ok_or_else(|| Error::Protocol {
            detail: "a job has a value that is none of its kind".to_owned(),
            server_fault: false,
        })?;
        let text = Text::came(json);
        Ok(Self { view, text })
    }
}

/// The lanes, as the server counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lanes {
    json: Bytes,
}

/// What the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    json: Bytes,
}

impl Lanes {
    pub(crate) fn new(json: Bytes) -> Self {
        Self { json }
    }

    /// The answer of `/v1/lanes`, as the server wrote it.
    #[must_use]
    pub fn json(&self) -> &str {
        text(&self.json)
    }
}

impl Info {
    pub(crate) fn new(json: Bytes) -> Self {
        Self { json }
    }

    /// The answer of `/v1/info`, as the server wrote it.
    #[must_use]
    pub fn json(&self) -> &str {
        text(&self.json)
    }
}

pub(super) fn text(json: &Bytes) -> &str {
    std::str::from_utf8(json).expect("the bytes parsed as JSON when they came, so they are UTF-8")
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(deserialize_with = "wire::id")]
    id: JobId,
    processor: String,
    group: String,
    #[serde(deserialize_with = "wire::priority")]
    priority: Priority,
    status: String,
    state: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    crashes: u32,
    #[serde(default, deserialize_with = "wire::maybe_time")]
    started_at: Option<WallMs>,
    #[serde(default, deserialize_with = "wire::maybe_id")]
    parent: Option<JobId>,
    #[serde(default)]
    children: u32,
    #[serde(default, deserialize_with = "wire::maybe_time")]
    submitted_at: Option<WallMs>,
    #[serde(default, deserialize_with = "wire::maybe_time")]
    finished_at: Option<WallMs>,
    #[serde(borrow, default, deserialize_with = "wire::present")]
    result: Option<&'a RawValue>,
    #[serde(default)]
    result_base64: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    result_expired: bool,
    #[serde(borrow, default)]
    error: Option<WireError<'a>>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct WireError<'a> {
    code: String,
    #[serde(default)]
    message: String,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

impl Wire<'_> {
    /// `None` if a name is none of its kind, or the base64 is broken.
    fn view(self, body: &Bytes) -> Option<JobView> {
        let status = statuses().find(|status| status.name() == self.status)?;
        // `null` is the result of a job that ended well, and the absence of one otherwise.
        let json = self
            .result
            .filter(|json| status == Status::ProcessedOk || json.get() != "null");
        let json = json.filter(|_| !self.result_expired);
        let result = wire::payload(
            body,
            json,
            self.result_base64.as_deref(),
            self.content_type.as_deref(),
        );
        Some(JobView {
            id: self.id,
            processor: Processor::parse(&self.processor)?,
            group: Group::parse(&self.group)?,
            priority: self.priority,
            status,
            state: states().find(|state| state.name() == self.state)?,
            reason: match self.reason {
                Some(name) => Some(reasons().find(|reason| crate::job::reason_name(*reason) == name)?),
                None => None,
            },
            attempts: self.attempts,
            crashes: self.crashes,
            started_at: self.started_at,
            parent: self.parent,
            children: self.children,
            submitted_at: self.submitted_at,
            finished_at: self.finished_at,
            result: result.ok()?,
            result_expired: self.result_expired,
            error: self.error.map(|error| error.error(body)),
            key: self.key,
            labels: self.labels.into_iter().collect(),
        })
    }
}

impl WireError<'_> {
    fn error(self, body: &Bytes) -> JobError {
        JobError {
            code: self.code,
            message: self.message,
            data: self.data.map(|data| body.slice_ref(data.get().as_bytes())),
        }
    }
}

fn statuses() -> impl Iterator<Item = Status> {
    [
        Status::Submitted,
        Status::ProcessedOk,
        Status::ProcessedError,
        Status::BatchFailed,
    ]
    .into_iter()
}

fn states() -> impl Iterator<Item = State> {
    [
        State::Scheduled,
        State::Queued,
        State::Running,
        State::Retrying,
        State::Done,
        State::Dead,
    ]
    .into_iter()
}

fn reasons() -> impl Iterator<Item = Reason> {
    [
        Reason::Exhausted,
        Reason::Expired,
        Reason::Cancelled,
        Reason::TimedOut,
        Reason::Dead,
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DONE: &str = r#"{"id":"0199b7a0-0000-7000-8000-000000000001","processor":"payments","group":"submit",
        "priority":"REALTIME","status":"processed_ok","state":"done","reason":null,"attempts":1,"crashes":0,
        "started":true,"parent":null,"children":0,"submitted_at":"2026-01-05T10:00:00.000Z",
        "started_at":"2026-01-05T10:00:00.001Z","finished_at":"2026-01-05T10:00:00.002Z",
        "result":{"b":1.0,  "a":1e400},"error":null,"key":"tenant-7","labels":{"order":"A-17"},"new":[1]}"#;

    fn decode(json: &str) -> Job {
        Job::decode(Bytes::copy_from_slice(json.as_bytes())).unwrap()
    }

    #[test]
    fn a_result_keeps_its_bytes_and_unknown_fields_are_let_pass() {
        let job = decode(DONE);
        assert_eq!(
            &job.result.as_ref().unwrap().bytes[..],
            br#"{"b":1.0,  "a":1e400}"#
        );
        assert_eq!(job.finished_at.unwrap().0 - job.submitted_at.unwrap().0, 2);
        assert!(job.has_ended());
        assert_eq!(job.json(), DONE);
    }

    /// It was the parser's: "EOF while parsing a value".
    #[test]
    fn the_error_of_a_result_is_that_of_its_job() {
        let said = |json: &str| decode(json).result_as::<u64>().unwrap_err().to_string();
        let result = r#"{"b":1.0,  "a":1e400}"#;
        let none = DONE.replace(result, "null");
        let failed = none.replace("processed_ok", "processed_error").replace(
            r#""error":null"#,
            r#""error":{"code":"card_declined","message":"no money","data":null}"#,
        );
        let id = "0199b7a0-0000-7000-8000-000000000001";
        assert_eq!(
            said(&failed),
            format!("job `{id}` failed: no money (card_declined)")
        );
        let waits = none
            .replace("processed_ok", "submitted")
            .replace("done", "queued");
        assert_eq!(said(&waits), format!("job `{id}` has not ended"));
        let expired = none.replace(r#""result":null"#, r#""result_expired":true"#);
        assert_eq!(
            said(&expired),
            format!("the result of job `{id}` had to give way; it ended as `processed_ok`")
        );
        let bytes = none.replace(
            r#""result":null"#,
            r#""result_base64":"/wA=","content_type":"image/png""#,
        );
        assert_eq!(said(&bytes), "the result is `image/png`, not json");
        let json = none.replace(
            r#""result":null"#,
            r#""result_base64":"NDI=","content_type":"text/plain""#,
        );
        assert_eq!(
            decode(&json).result_as::<u64>().unwrap(),
            42,
            "who asks for JSON gets it if it is"
        );
        assert!(said(&DONE.replace(result, "[]")).starts_with("the result does not fit: "));
    }

    #[test]
    fn a_result_of_null_is_a_result_and_a_null_beside_an_error_is_none() {
        let null = DONE.replace(r#"{"b":1.0,  "a":1e400}"#, "null");
        let job = decode(&null);
        assert_eq!(&job.result.as_ref().unwrap().bytes[..], b"null");
        let failed = null.replace("processed_ok", "processed_error").replace(
            r#""error":null"#,
            r#""error":{"code":"x","message":"y","data":{"z": 1}}"#,
        );
        let job = decode(&failed);
        assert_eq!(job.result, None);
        assert_eq!(
            job.error.as_ref().unwrap().data.as_deref(),
            Some(&br#"{"z": 1}"#[..])
        );
    }

    #[test]
    fn a_result_of_bytes_is_read_back() {
        let bytes = DONE.replace(
            r#""result":{"b":1.0,  "a":1e400}"#,
            r#""result_base64":"/wA=","content_type":"image/png""#,
        );
        let result = decode(&bytes).result.clone().unwrap();
        assert_eq!(&result.bytes[..], &[0xff, 0]);
        assert_eq!(result.content_type.as_deref(), Some("image/png"));
        let typed = DONE.replace(r#""error":null"#, r#""content_type":"application/ld+json""#);
        let result = decode(&typed).result.clone().unwrap();
        assert_eq!(result.content_type.as_deref(), Some("application/ld+json"));
        assert_eq!(&result.bytes[..], br#"{"b":1.0,  "a":1e400}"#);
    }

    #[test]
    fn what_is_no_job_is_an_error() {
        for wrong in [
            "",
            "{}",
            "[]",
            &DONE.replace("NORMAL", "x").replace("REALTIME", "x"),
        ] {
            assert!(
                Job::decode(Bytes::copy_from_slice(wrong.as_bytes())).is_err(),
                "{wrong}"
            );
        }
    }
}
