//! A job on its way to the server, and what the server says to it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::Error;
use super::http::Reply;
use super::job::Job;
use super::outcome::raw_json;
use super::wire;
use crate::job::{JobId, Payload, Priority};

/// A job to submit. Only the processor and the data are required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submit {
    pub(crate) processor: String,
    pub(crate) group: Option<String>,
    pub(crate) priority: Option<Priority>,
    pub(crate) payload: Payload,
    pub(crate) id: Option<JobId>,
    pub(crate) key: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) traceparent: Option<String>,
}

impl Submit {
    /// A job with this data, as JSON.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the data cannot be written as JSON.
    pub fn json(processor: impl Into<String>, data: &impl Serialize) -> Result<Self, Error> {
        Ok(Self::payload(
            processor,
            Payload {
                content_type: None,
                bytes: wire::write(data)?,
            },
        ))
    }

    /// A job with these bytes as its data. Without a content type they are JSON, carried as they are;
    /// [`Client::submit`](super::Client::submit) says so if they are not.
    #[must_use]
    pub fn payload(processor: impl Into<String>, payload: Payload) -> Self {
        Self {
            processor: processor.into(),
            group: None,
            priority: None,
            payload,
            id: None,
            key: None,
            labels: BTreeMap::new(),
            idempotency_key: None,
            traceparent: None,
        }
    }

    /// The kind of job; `default` if not said.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// The lane; NORMAL if not said.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Your own id for it: submitting the same id twice is submitting once. Not together with
    /// [`Submit::idempotency_key`].
    #[must_use]
    pub fn id(mut self, id: JobId) -> Self {
        self.id = Some(id);
        self
    }

    /// A key that is kept and shown, a tenant's name say.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// A name and a value that are kept and shown.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    /// Your own idempotency key, 1 to 255 visible characters: the same key and content is the same job,
    /// also if the program that submits it starts again in between.
    #[must_use]
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// W3C trace context: it travels with the job to its handler. Of a child job it is left out.
    #[must_use]
    pub fn traceparent(mut self, traceparent: impl Into<String>) -> Self {
        self.traceparent = Some(traceparent.into());
        self
    }

    pub(super) fn encode(&self) -> Result<Bytes, Error> {
        let json = self.raw_json()?;
        wire::write(&self.envelope(json, self.id))
    }

    /// The job among many: its idempotency key is a field.
    pub(super) fn encode_named(&self, json: Option<&RawValue>) -> Result<Vec<u8>, Error> {
        let mut envelope = self.envelope(json, self.id);
        envelope.idempotency_key = self.idempotency_key.as_deref();
        Ok(wire::write(&envelope)?.into())
    }

    /// The job as a child of another one's outcome. Its id derives from its parent's, whatever was set.
    pub(crate) fn encode_child(&self) -> Result<Box<RawValue>, Error> {
        let json = self.raw_json()?;
        serde_json::value::to_raw_value(&self.envelope(json, None)).map_err(|error| Error::Invalid {
            detail: format!("cannot write a child job as json: {error}"),
        })
    }

    /// The data as the JSON value that it must be; `None` for other bytes.
    pub(super) fn raw_json(&self) -> Result<Option<&RawValue>, Error> {
        raw_json(&self.payload)
    }

    fn envelope<'a>(&'a self, json: Option<&'a RawValue>, id: Option<JobId>) -> Envelope<'a> {
        Envelope {
            processor: &self.processor,
            group: self.group.as_deref(),
            priority: self.priority.map(Priority::name),
            data_base64: json.is_none().then(|| wire::base64(&self.payload.bytes)),
            data: json,
            content_type: self.payload.content_type.as_deref(),
            id: id.map(|id| id.to_string()),
            key: self.key.as_deref(),
            labels: &self.labels,
            idempotency_key: None,
        }
    }
}

/// What the server says to a submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The job, durable.
    pub job: Job,
    /// It was submitted before under the same id or key.
    pub replayed: bool,
    /// How many workers there are for the processor, if the server says it: 0 if none ever asked.
    pub workers: Option<u32>,
    /// A processor of a near name that has workers, where this one has none.
    pub did_you_mean: Option<String>,
}

impl Submitted {
    pub(super) fn decode(reply: &Reply) -> Result<Self, Error> {
        let beside: Beside = wire::read(&reply.body)?;
        Ok(Self {
            job: Job::decode(reply.body.clone())?,
            replayed: reply.replayed,
            workers: beside.workers,
            did_you_mean: beside.did_you_mean,
        })
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    processor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
}

#[derive(Deserialize)]
struct Beside {
    #[serde(default)]
    workers: Option<u32>,
    #[serde(default)]
    did_you_mean: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_data_is_written_as_the_bytes_it_is() {
        let payload = Payload {
            content_type: None,
            bytes: Bytes::from_static(br#"{"b":1.0,  "a":1e400}"#),
        };
        let submit = Submit::payload("orders", payload)
            .group("order")
            .priority(Priority::Slow)
            .label("a", "b");
        assert_eq!(
            &submit.encode().unwrap()[..],
            br#"{"processor":"orders","group":"order","priority":"SLOW","data":{"b":1.0,  "a":1e400},"labels":{"a":"b"}}"#
        );
    }

    #[test]
    fn other_bytes_travel_in_base64() {
        let payload = Payload {
            content_type: Some("image/png".into()),
            bytes: Bytes::from_static(&[0xff, 0]),
        };
        assert_eq!(
            &Submit::payload("p", payload).encode().unwrap()[..],
            br#"{"processor":"p","data_base64":"/wA=","content_type":"image/png"}"#
        );
    }

    #[test]
    fn data_that_is_not_the_json_it_should_be_is_refused_before_it_is_sent() {
        let payload = Payload {
            content_type: None,
            bytes: Bytes::from_static(b"{oops"),
        };
        assert!(matches!(
            Submit::payload("p", payload).encode(),
            Err(Error::Invalid { .. })
        ));
    }
}
