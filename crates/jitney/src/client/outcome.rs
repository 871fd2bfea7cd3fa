//! What became of a job, on its way to jitney: kept as it was said, written as JSON only where it travels.

use std::time::Duration;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::error::Error;
use super::submit::Submit;
use super::wire;
use crate::job::{JobId, Payload};
use crate::units::format_duration;

/// The longest code of an error that the server takes.
const CODE_BYTES_MAX: usize = 64;

/// What stands for a code that is empty or too long.
const INVALID_CODE: &str = "invalid_code";

/// The longest message of an error that the server takes.
const MESSAGE_BYTES_MAX: usize = 4_096;

/// Error data of so many bytes is taken by any server whose `max_job_bytes` is of use.
const ERROR_DATA_BYTES_SURE: usize = 4_096;

/// What an outcome, or a child, takes on the wire beside its data, about.
const ROOM: usize = 256;

/// What became of one job.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The job.
    pub id: JobId,
    said: Said,
}

/// The kinds of outcomes.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// Done; a result without a content type is JSON.
    Ok {
        result: Payload,
        children: Vec<Submit>,
    },
    Error(OutcomeError),
    Release,
    /// As a program wrote it; the server checks it.
    Verbatim {
        json: Box<RawValue>,
        has_children: bool,
    },
}

/// Why a batch failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchError {
    /// A short name that programs match on, 1 to 64 bytes. Another is sent as `invalid_code`.
    #[serde(serialize_with = "write_code")]
    pub code: String,
    /// A sentence for people. Sent are at most 4,096 bytes of it.
    #[serde(serialize_with = "write_message")]
    pub message: String,
}

/// Why one job failed.
#[derive(Clone, Debug, Serialize)]
pub struct OutcomeError {
    /// A short name that programs match on, 1 to 64 bytes. Another is sent as `invalid_code`.
    #[serde(serialize_with = "write_code")]
    pub code: String,
    /// A sentence for people. Sent are at most 4,096 bytes of it.
    #[serde(serialize_with = "write_message")]
    pub message: String,
    /// Whether another try may help.
    pub retryable: bool,
    /// Not before this long from now. Sent only where another try may help.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_maybe_duration"
    )]
    pub retry_after: Option<Duration>,
    /// JSON for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl Outcome {
    /// Done, with this result as JSON, and these jobs to submit with it.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the result cannot be written as JSON, or a child's data has no content type and is
    /// not JSON.
    pub fn json(id: JobId, result: &impl Serialize, children: Vec<Submit>) -> Result<Self, Error> {
        let result = Payload {
            content_type: None,
            bytes: wire::write(result)?,
        };
        Self::done(id, result, children)
    }

    /// Done, with these bytes as the result, and these jobs to submit with it.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the result, or a child's data, has no content type and is not JSON.
    pub fn ok(id: JobId, result: Payload, children: Vec<Submit>) -> Result<Self, Error> {
        raw_json(&result)?;
        Self::done(id, result, children)
    }

    /// Done, with bytes that were written as JSON, or have a content type.
    pub(crate) fn done(id: JobId, result: Payload, children: Vec<Submit>) -> Result<Self, Error> {
        for child in &children {
            child.raw_json()?;
        }
        let said = Said::Ok { result, children };
        Ok(Self { id, said })
    }

    /// Failed.
    #[must_use]
    pub fn error(id: JobId, mut error: OutcomeError) -> Self {
        // The server refuses a time for what is not tried again, and would try it again for that.
        error.retry_after = error.retry_after.filter(|_| error.retryable);
        let said = Said::Error(error);
        Self { id, said }
    }

    /// Given back; nothing is counted.
    #[must_use]
    pub fn release(id: JobId) -> Self {
        let said = Said::Release;
        Self { id, said }
    }

    /// An outcome as a program wrote it; the server checks it.
    pub(crate) fn verbatim(id: JobId, json: Box<RawValue>, has_children: bool) -> Self {
        let said = Said::Verbatim { json, has_children };
        Self { id, said }
    }

    /// Whether it is a final error with so much data that the server may refuse it for that.
    pub(crate) fn may_lose_data(&self) -> bool {
        let large = |data: &RawValue| data.get().len() > ERROR_DATA_BYTES_SURE;
        matches!(&self.said, Said::Error(error) if !error.retryable && error.data.as_deref().is_some_and(large))
    }

    /// A final error without its data, if it has any.
    pub(crate) fn without_data(&self) -> Option<Self> {
        match &self.said {
            Said::Error(error) if !error.retryable && error.data.is_some() => Some(Self::error(
                self.id,
                OutcomeError {
                    data: None,
                    ..error.clone()
                },
            )),
            _ => None,
        }
    }

    /// About how many bytes it takes on the wire.
    #[must_use]
    pub fn wire_bytes(&self) -> usize {
        let payload = |payload: &Payload| {
            let base64 = payload.content_type.is_some();
            ROOM + payload.bytes.len() + if base64 { payload.bytes.len() / 3 } else { 0 }
        };
        match &self.said {
            Said::Ok { result, children } => {
                payload(result)
                    + children
                        .iter()
                        .map(|child| payload(&child.payload))
                        .sum::<usize>()
            }
            Said::Error(error) => {
                let data = error.data.as_ref().map_or(0, |data| data.get().len());
                ROOM + error.code.len() + error.message.len() + data
            }
            Said::Release => ROOM,
            Said::Verbatim { json, .. } => json.get().len(),
        }
    }

    /// Whether it submits child jobs: then the server may ask to send it again later.
    pub(crate) fn has_children(&self) -> bool {
        match &self.said {
            Said::Ok { children, .. } => !children.is_empty(),
            Said::Verbatim { has_children, .. } => *has_children,
            Said::Error(_) | Said::Release => false,
        }
    }

    /// What it says.
    pub(crate) fn said(&self) -> &Said {
        &self.said
    }
}

impl BatchError {
    /// What of it is sent otherwise.
    pub(crate) fn too_long(&self) -> Vec<String> {
        too_long(&self.code, &self.message)
    }

    /// The code and the message, as they are sent.
    pub(crate) fn clipped(&self) -> (&str, &str) {
        (clipped_code(&self.code), clip(&self.message, MESSAGE_BYTES_MAX))
    }
}

impl OutcomeError {
    /// What of it is sent otherwise.
    pub(crate) fn too_long(&self) -> Vec<String> {
        too_long(&self.code, &self.message)
    }

    /// The code and the message, as they are sent.
    pub(crate) fn clipped(&self) -> (&str, &str) {
        (clipped_code(&self.code), clip(&self.message, MESSAGE_BYTES_MAX))
    }
}

/// The bytes as the JSON value that they must be; `None` for bytes of another type.
pub(super) fn raw_json(payload: &Payload) -> Result<Option<&RawValue>, Error> {
    if payload.content_type.is_some() {
        return Ok(None);
    }
    serde_json::from_slice(&payload.bytes)
        .map(Some)
        .map_err(|error| Error::Invalid {
            detail: format!("the data is not json: {error}; name its content type if it is not meant to be"),
        })
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = Line::new(self.id);
        match &self.said {
            Said::Ok { result, children } => {
                line.ok = raw_json(result).map_err(serde::ser::Error::custom)?;
                if line.ok.is_none() {
                    line.ok_base64 = Some(wire::base64(&result.bytes));
                    line.content_type = result.content_type.as_deref();
                }
                let children = children.iter().map(Submit::encode_child);
                line.jobs = children
                    .collect::<Result<_, _>>()
                    .map_err(serde::ser::Error::custom)?;
            }
            Said::Error(error) => line.error = Some(error),
            Said::Release => line.release = true,
            Said::Verbatim { json, .. } => return json.serialize(serializer),
        }
        line.serialize(serializer)
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
}

fn write_code<S: Serializer>(code: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(clipped_code(code))
}

fn write_message<S: Serializer>(message: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(clip(message, MESSAGE_BYTES_MAX))
}

/// A code that is cut would be another one, which programs may match on.
fn clipped_code(code: &str) -> &str {
    match code.len() {
        1..=CODE_BYTES_MAX => code,
        _ => INVALID_CODE,
    }
}

fn too_long(code: &str, message: &str) -> Vec<String> {
    let mut said = Vec::new();
    if code.len() > CODE_BYTES_MAX {
        said.push(format!(
            "its code is {} bytes, at most {CODE_BYTES_MAX} are taken",
            code.len()
        ));
    }
    if message.len() > MESSAGE_BYTES_MAX {
        let sent = clip(message, MESSAGE_BYTES_MAX).len();
        said.push(format!("its message is {} bytes, sent are {sent}", message.len()));
    }
    said
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

/// JSON as the bytes that it is.
pub(crate) fn json_bytes(json: Box<RawValue>) -> Bytes {
    Bytes::from(String::from(Box::<str>::from(json)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> JobId {
        wire::parse_id("0199b7a0-0000-7000-8000-000000000001").unwrap()
    }

    fn json(text: &'static str) -> Payload {
        Payload {
            content_type: None,
            bytes: Bytes::from_static(text.as_bytes()),
        }
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
                Outcome::error(id(), error),
                r#""error":{"code":"busy","message":"later","retryable":true,"retry_after":"1500ms"}"#,
            ),
            (Outcome::release(id()), r#""release":true"#),
            (
                Outcome::ok(id(), bytes, Vec::new()).unwrap(),
                r#""ok_base64":"/wA=","content_type":"image/png""#,
            ),
            (
                Outcome::ok(id(), json("true"), vec![child]).unwrap(),
                r#""ok":true,"jobs":[{"processor":"mail","data":1}]"#,
            ),
        ];
        for (outcome, expected) in outcomes {
            let expected = format!(r#"{{"id":"{}",{expected}}}"#, id());
            assert_eq!(serde_json::to_string(&outcome).unwrap(), expected);
        }
    }

    #[test]
    fn a_result_that_is_not_the_json_it_should_be_is_refused_before_it_is_sent() {
        for (result, children) in [
            (json("{oops"), Vec::new()),
            (json("1"), vec![Submit::payload("mail", json("{oops"))]),
        ] {
            assert!(matches!(
                Outcome::ok(id(), result, children),
                Err(Error::Invalid { .. })
            ));
        }
    }

    #[test]
    fn an_error_is_cut_to_what_the_server_takes() {
        let error = BatchError {
            code: String::new(),
            message: "\u{e9}".repeat(3_000),
        };
        let sent: serde_json::Value = serde_json::to_value(&error).unwrap();
        assert_eq!(sent["code"], "invalid_code");
        assert_eq!(sent["message"], "\u{e9}".repeat(2_048));
    }

    #[test]
    fn a_final_error_is_sent_as_one() {
        let error = OutcomeError {
            code: "c".repeat(65),
            message: "m".to_owned(),
            retryable: false,
            retry_after: Some(Duration::from_secs(1)),
            data: Some(serde_json::value::to_raw_value(&"x".repeat(5_000)).unwrap()),
        };
        let outcome = Outcome::error(id(), error);
        assert!(outcome.may_lose_data());
        let sent = serde_json::to_value(outcome.without_data().unwrap()).unwrap();
        assert_eq!(
            sent["error"],
            serde_json::json!({"code": "invalid_code", "message": "m", "retryable": false})
        );
    }
}
