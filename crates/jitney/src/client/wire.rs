//! The serde types of what goes over HTTP, and the conversions of ids, times, durations and bytes.
//!
//! Fields of an answer that are not known here are ignored: a newer server may say more. `data` and
//! results stay the bytes that they are.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serializer};
use serde_json::value::RawValue;

use super::error::Error;
use crate::clock::WallMs;
use crate::job::{JobId, Payload, Priority};

/// Reads an answer.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Protocol {
        detail: error.to_string(),
        server_fault: false,
    })
}

/// Checks that an answer is JSON, so that it can be shown as text.
pub(super) fn check(body: &[u8]) -> Result<(), Error> {
    read::<serde::de::IgnoredAny>(body).map(|_| ())
}

/// Writes a request. Nothing that is written here can fail to be JSON.
pub(super) fn write<T: serde::Serialize>(request: &T) -> Result<Bytes, Error> {
    serde_json::to_vec(request)
        .map(Bytes::from)
        .map_err(|error| Error::Invalid {
            detail: format!("cannot write the request as json: {error}"),
        })
}

/// Whether a content type says JSON, alone or as the form of a type of its own.
pub(crate) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// Reads a job id as people and answers write it: a UUID.
#[must_use]
pub fn parse_id(text: &str) -> Option<JobId> {
    uuid::Uuid::parse_str(text).ok().map(|id| JobId(id.into_bytes()))
}

/// A job id in an answer.
pub(super) fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<JobId, D::Error> {
    uuid::Uuid::deserialize(deserializer).map(|id| JobId(id.into_bytes()))
}

/// A job id in an answer, or none.
pub(super) fn maybe_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<JobId>, D::Error> {
    let id = Option::<uuid::Uuid>::deserialize(deserializer)?;
    Ok(id.map(|id| JobId(id.into_bytes())))
}

/// Job ids in an answer.
pub(super) fn ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<JobId>, D::Error> {
    let ids = Vec::<uuid::Uuid>::deserialize(deserializer)?;
    Ok(ids.into_iter().map(|id| JobId(id.into_bytes())).collect())
}

/// A job id in a request.
pub(super) fn write_id<S: Serializer>(id: &JobId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// A time in an answer, or none.
pub(super) fn maybe_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<WallMs>, D::Error> {
    let Some(text) = Option::<std::borrow::Cow<'de, str>>::deserialize(deserializer)? else {
        return Ok(None);
    };
    let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
    // Times before 1970 do not occur; one that does is shown as 1970.
    Ok(Some(WallMs(u64::try_from(time.as_millisecond()).unwrap_or(0))))
}

/// A priority in an answer.
pub(super) fn priority<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Priority, D::Error> {
    let name = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    parse_priority(&name).ok_or_else(|| serde::de::Error::custom(format!("`{name}` is no priority")))
}

/// Reads a priority as callers write it.
#[must_use]
pub(super) fn parse_priority(name: &str) -> Option<Priority> {
    Priority::ALL.into_iter().find(|priority| priority.name() == name)
}

/// Bytes as they travel where JSON has no place for them.
#[must_use]
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// A payload as an answer has it: a JSON value, which stays a slice of `body`, or bytes in base64 and what
/// they are.
///
/// # Errors
/// The base64 is broken.
pub(super) fn payload(
    body: &Bytes,
    json: Option<&RawValue>,
    base64: Option<&str>,
    content_type: Option<&str>,
) -> Result<Option<Payload>, base64::DecodeError> {
    if let Some(text) = base64 {
        return Ok(Some(Payload {
            content_type: Some(content_type.unwrap_or("application/octet-stream").into()),
            bytes: STANDARD.decode(text)?.into(),
        }));
    }
    Ok(json.map(|json| Payload {
        // A `+json` type of its own comes beside its value.
        content_type: content_type.map(Into::into),
        bytes: body.slice_ref(json.get().as_bytes()),
    }))
}

/// Keeps `"result":null`, which is a result, apart from no `result`.
pub(super) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}
