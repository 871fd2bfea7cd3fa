//! The fields that make a job: in an envelope, in a child of an outcome, in a query.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::object::{self, At, Object, Result};
use super::{payload, shown};
use crate::driver::port::Submit;
use crate::driver::refusal::Refusal;
use crate::fingerprint::{Content, fingerprint, idempotency_key};
use crate::http::error::Code;
use crate::job::{Group, JobId, Payload, Priority, Processor};
use crate::units::format_count;

/// Labels of one job at most: they travel with it everywhere.
pub(crate) const LABELS_MAX: usize = 16;
/// The longest name of a label, bytes.
pub(crate) const LABEL_NAME_BYTES_MAX: usize = 64;
/// The longest value of a label, bytes.
pub(crate) const LABEL_VALUE_BYTES_MAX: usize = 256;
/// The longest key, bytes.
pub(crate) const KEY_BYTES_MAX: usize = 255;

/// The fields of a child job.
pub(crate) const CHILD_FIELDS: &[&str] = &[
    "processor",
    "group",
    "priority",
    "data",
    "data_base64",
    "content_type",
    "key",
    "labels",
];

/// The fields of an envelope that stands among many. One that comes alone is read with the same, so that
/// [`single`] can say what to do instead.
pub(crate) const ONE_OF_MANY_FIELDS: &[&str] = &[
    "processor",
    "group",
    "priority",
    "data",
    "data_base64",
    "content_type",
    "key",
    "labels",
    "id",
    IDEMPOTENCY_KEY,
];

/// The field that names a submit among many; a request with one job has a header.
const IDEMPOTENCY_KEY: &str = "idempotency_key";

/// The longest idempotency key.
pub(crate) const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The identity of every caller while there are no API keys.
const NOBODY: &str = "";

/// Fields of a job that a later version has.
pub(crate) const LATER_FIELDS: &[&str] = &["ttl", "deadline", "delay", "run_at", "callback_url"];

/// What a job is, apart from its name.
#[derive(Debug)]
pub(crate) struct JobFields {
    pub(crate) processor: Processor,
    pub(crate) group: Group,
    pub(crate) priority: Priority,
    pub(crate) payload: Payload,
    pub(crate) key: Option<String>,
    pub(crate) labels: Vec<(String, String)>,
}

/// What a caller calls its job, to find it again.
#[derive(Debug, Default)]
pub(crate) struct Name<'a> {
    /// Its own id.
    pub(crate) id: Option<JobId>,
    /// An idempotency key; not both.
    pub(crate) key: Option<&'a str>,
    /// W3C trace context.
    pub(crate) traceparent: Option<String>,
}

/// Names as they came last: jobs that come together mostly share them, and then share their memory.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    processor: Option<Processor>,
    group: Option<Group>,
}

impl Shared {
    fn processor(&mut self, text: &str) -> std::result::Result<Processor, String> {
        match &self.processor {
            Some(last) if last.as_str() == text => Ok(last.clone()),
            _ => Ok(self.processor.insert(processor_name(text)?).clone()),
        }
    }

    fn group(&mut self, text: Option<&str>) -> std::result::Result<Group, String> {
        match (&self.group, text) {
            (Some(last), Some(text)) if last.as_str() == text => Ok(last.clone()),
            (Some(last), None) if last.as_str() == Group::DEFAULT => Ok(last.clone()),
            (_, Some(text)) => Ok(self.group.insert(group_name(text)?).clone()),
            (_, None) => Ok(self.group.insert(Group::default()).clone()),
        }
    }
}

/// A job on its way to the driver. Whatever form it came in, this makes it.
pub(crate) fn submit(fields: JobFields, name: Name<'_>) -> Submit {
    // Only what can be repeated is ever compared.
    let fingerprint = match name.id.is_some() || name.key.is_some() {
        true => fingerprint(&Content {
            processor: &fields.processor,
            group: &fields.group,
            priority: fields.priority,
            key: fields.key.as_deref(),
            labels: &fields.labels,
            payload: &fields.payload,
        }),
        false => 0,
    };
    Submit {
        idempotency: name
            .key
            .map(|key| idempotency_key(NOBODY, &fields.processor, key)),
        processor: fields.processor,
        group: fields.group,
        priority: fields.priority,
        payload: fields.payload,
        id: name.id,
        key: fields.key,
        labels: fields.labels,
        fingerprint,
        traceparent: name.traceparent,
        wait: None,
    }
}

/// Reads a request's body as an envelope.
pub(crate) fn envelope(body: &[u8]) -> crate::http::error::Result<Object<'_, 'static>> {
    object::body(body, ONE_OF_MANY_FIELDS, LATER_FIELDS).map_err(|mut problem| {
        if problem.code == Code::MalformedJson && holds_several(body) {
            problem.detail.push_str(
                "; many jobs, one a line, need `Content-Type: application/x-ndjson` (curl: `--data-binary @FILE`, as `-d` \
                 takes the ends of the lines away, and `-H 'content-type: application/x-ndjson'`)",
            );
        }
        problem
    })
}

/// Whether the first line is JSON by itself, and more follows; or there is one object after the other.
fn holds_several(body: &[u8]) -> bool {
    let mut lines = body.trim_ascii().splitn(2, |byte| *byte == b'\n');
    let by_line = lines.next().is_some_and(payload::is_json) && lines.next().is_some();
    by_line || {
        let mut values = serde_json::Deserializer::from_slice(body).into_iter::<&RawValue>();
        let first = values.next().is_some_and(|first| first.is_ok());
        let rest = body.get(values.byte_offset()..).unwrap_or_default();
        first && rest.trim_ascii_start().starts_with(b"{")
    }
}

/// Reads an envelope that is the only one of its request. `body` is what `object` was read from.
pub(crate) fn single(
    object: &Object<'_, '_>,
    body: &Bytes,
    job_bytes_max: u64,
) -> Result<(JobFields, Option<JobId>)> {
    if object.get(IDEMPOTENCY_KEY).is_some() {
        return Err(Refusal::UnknownField {
            detail: format!(
                "field `{IDEMPOTENCY_KEY}` stands among many jobs; one job takes the header `Idempotency-Key`"
            ),
            pointer: At::Field(&object.at(), IDEMPOTENCY_KEY).to_string(),
        });
    }
    let fields = fields(object, body, job_bytes_max, &mut Shared::default())?;
    Ok((fields, own_id(object)?))
}

/// Reads an envelope that stands among others. `body` is what `object` was read from.
pub(crate) fn one_of_many(
    object: &Object<'_, '_>,
    body: &Bytes,
    job_bytes_max: u64,
    shared: &mut Shared,
    traceparent: Option<&str>,
) -> Result<Submit> {
    let fields = fields(object, body, job_bytes_max, shared)?;
    let id = own_id(object)?;
    let key = object.text(IDEMPOTENCY_KEY)?;
    let at = object.at();
    let at = At::Field(&at, IDEMPOTENCY_KEY);
    if let Some(key) = &key {
        check_idempotency_key(key.as_bytes(), IDEMPOTENCY_KEY).map_err(|detail| at.invalid(detail))?;
    }
    if id.is_some() && key.is_some() {
        return Err(at.invalid(format!(
            "a job has an `id` of its own or an `{IDEMPOTENCY_KEY}`, not both"
        )));
    }
    let name = Name {
        id,
        key: key.as_deref(),
        traceparent: traceparent.map(str::to_owned),
    };
    Ok(submit(fields, name))
}

/// What is wrong with an idempotency key that came under this name.
pub(crate) fn check_idempotency_key(key: &[u8], name: &str) -> std::result::Result<(), String> {
    let visible = key.iter().all(|byte| (b'!'..=b'~').contains(byte));
    if key.is_empty() || key.len() > IDEMPOTENCY_KEY_BYTES_MAX || !visible {
        return Err(format!(
            "`{name}` must be 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"
        ));
    }
    Ok(())
}

fn own_id(object: &Object<'_, '_>) -> Result<Option<JobId>> {
    let Some(text) = object.text("id")? else {
        return Ok(None);
    };
    let id = id(&text).map_err(|detail| At::Field(&object.at(), "id").invalid(detail))?;
    Ok(Some(id))
}

/// A client's own id, or what is wrong with it.
pub(crate) fn id(text: &str) -> std::result::Result<JobId, String> {
    super::job_id(text).ok_or_else(|| {
        format!(
            "`{}` is no id: a UUID like 0199a3c4-0000-7000-8000-00000000002a",
            shown(text)
        )
    })
}

/// Reads the fields of a job. `body` is what `object` was read from: data stays a slice of it.
pub(crate) fn fields(
    object: &Object<'_, '_>,
    body: &Bytes,
    job_bytes_max: u64,
    shared: &mut Shared,
) -> Result<JobFields> {
    let at = object.at();
    let field = |name| At::Field(&at, name);
    let processor = object::text(object.required("processor")?, field("processor"))?;
    let processor = shared
        .processor(&processor)
        .map_err(|detail| field("processor").invalid(detail))?;
    let group = object.text("group")?;
    let group = shared
        .group(group.as_deref())
        .map_err(|detail| field("group").invalid(detail))?;
    let priority = match object.text("priority")? {
        Some(text) => super::priority(&text).map_err(|detail| At::Field(&at, "priority").invalid(detail))?,
        None => Priority::Normal,
    };
    let key = object
        .bounded_text("key", 1..=KEY_BYTES_MAX)?
        .map(std::borrow::Cow::into_owned);
    let labels = match object.get("labels") {
        Some(raw) => labels(raw, field("labels"))?,
        None => Vec::new(),
    };
    let payload = data(object, body)?;
    check_size("data", &payload.bytes, job_bytes_max)?;
    Ok(JobFields {
        processor,
        group,
        priority,
        payload,
        key,
        labels,
    })
}

/// Fails if data or a result is too large.
pub(crate) fn check_size(what: &'static str, bytes: &Bytes, limit: u64) -> Result<()> {
    let bytes = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    match bytes > limit {
        true => Err(Refusal::JobTooLarge { what, bytes, limit }),
        false => Ok(()),
    }
}

/// Reads `data`, or `data_base64` with `content_type`.
fn data(object: &Object<'_, '_>, body: &Bytes) -> Result<Payload> {
    let names = Names {
        json: "data",
        base64: "data_base64",
    };
    either(object, body, &names, object.get(names.json))
}

/// The two names under which bytes come.
pub(crate) struct Names {
    pub(crate) json: &'static str,
    pub(crate) base64: &'static str,
}

/// Reads bytes that come as JSON under one name or as base64 under another, with a content type. With neither
/// they are the JSON value `null`.
pub(crate) fn either(
    object: &Object<'_, '_>,
    body: &Bytes,
    names: &Names,
    json: Option<&RawValue>,
) -> Result<Payload> {
    let at = object.at();
    let content_type = object.text("content_type")?;
    let content_type = content_type.as_deref();
    if let Some(content_type) = content_type {
        payload::check_content_type(content_type)
            .map_err(|detail| At::Field(&at, "content_type").invalid(detail))?;
    }
    let Some(base64) = object.text(names.base64)? else {
        let bytes = match json {
            Some(raw) => body.slice_ref(raw.get().as_bytes()),
            None => Bytes::from_static(b"null"),
        };
        return match payload::declared(content_type) {
            payload::Declared::Nothing => Ok(Payload {
                content_type: None,
                bytes,
            }),
            payload::Declared::Json | payload::Declared::OwnJson => {
                Ok(payload::typed(content_type, bytes).expect("what stands in a JSON text is JSON"))
            }
            payload::Declared::Form | payload::Declared::Other => Err(At::Field(&at, "content_type")
                .invalid(format!(
                    "`{}` is JSON; bytes of another type come as `{}`",
                    names.json, names.base64
                ))),
        };
    };
    if json.is_some() {
        return Err(At::Field(&at, names.base64).invalid(format!(
            "`{}` and `{}` exclude each other",
            names.json, names.base64
        )));
    }
    let bytes = STANDARD.decode(base64.as_bytes()).map_err(|error| {
        At::Field(&at, names.base64).invalid(format!(
            "`{}` is not base64 (standard alphabet, with padding): {error}",
            names.base64
        ))
    })?;
    payload::typed(content_type, Bytes::from(bytes)).ok_or_else(|| {
        At::Field(&at, names.base64).invalid(format!(
            "`content_type` says JSON, and `{}` is not JSON",
            names.base64
        ))
    })
}

/// Reads labels.
fn labels(raw: &RawValue, at: At<'_>) -> Result<Vec<(String, String)>> {
    let object = object::open(raw, at)?;
    let mut labels = Vec::with_capacity(object.fields().len());
    for (name, raw) in object.fields() {
        if raw.get() == "null" {
            continue;
        }
        let here = At::Field(&at, name);
        let value = object::text(raw, here)?;
        check_label(name, &value).map_err(|detail| here.invalid(detail))?;
        labels.push((name.to_owned(), value.into_owned()));
    }
    check_label_count(labels.len()).map_err(|detail| at.invalid(detail))?;
    Ok(labels)
}

/// A processor's name, or what is wrong with it.
pub(crate) fn processor_name(text: &str) -> std::result::Result<Processor, String> {
    Processor::parse(text).ok_or_else(|| {
        format!(
            "`{}` is no processor name: 1 to 64 of A-Z a-z 0-9 _ -, starting with a letter or digit",
            shown(text)
        )
    })
}

/// A group's name, or what is wrong with it.
pub(crate) fn group_name(text: &str) -> std::result::Result<Group, String> {
    Group::parse(text).ok_or_else(|| {
        format!(
            "`{}` is no group name: 1 to 64 of A-Z a-z 0-9 _ - ., starting with a letter or digit",
            shown(text)
        )
    })
}

/// What is wrong with a key.
pub(crate) fn check_key(key: &str) -> std::result::Result<(), String> {
    match (1..=KEY_BYTES_MAX).contains(&key.len()) {
        true => Ok(()),
        false => Err(format!("`key` is {} bytes; it must be 1 to 255", key.len())),
    }
}

/// What is wrong with a label.
pub(crate) fn check_label(name: &str, value: &str) -> std::result::Result<(), String> {
    if name.is_empty() || name.len() > LABEL_NAME_BYTES_MAX {
        return Err(format!(
            "a label's name is 1 to {LABEL_NAME_BYTES_MAX} bytes; this one is {}",
            name.len()
        ));
    }
    if value.len() > LABEL_VALUE_BYTES_MAX {
        return Err(format!(
            "a label's value is at most {LABEL_VALUE_BYTES_MAX} bytes; that of `{name}` is {}",
            format_count(u64::try_from(value.len()).unwrap_or(u64::MAX))
        ));
    }
    Ok(())
}

/// What is wrong with the number of labels.
pub(crate) fn check_label_count(count: usize) -> std::result::Result<(), String> {
    match count > LABELS_MAX {
        true => Err(format!(
            "a job has at most {LABELS_MAX} labels; these are {count}"
        )),
        false => Ok(()),
    }
}
