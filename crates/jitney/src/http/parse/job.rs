//! The fields that make a job: in an envelope, in a child of an outcome, in a query.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::object::{self, At, Object, Result};
use super::{payload, shown};
use crate::driver::refusal::Refusal;
use crate::job::{Group, Payload, Priority, Processor};
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

/// The fields of an envelope.
pub(crate) const ENVELOPE_FIELDS: &[&str] = &[
    "processor",
    "group",
    "priority",
    "data",
    "data_base64",
    "content_type",
    "key",
    "labels",
    "id",
];

/// Fields of a job that a later version has.
pub(crate) const LATER_FIELDS: &[&str] = &[
    "ttl",
    "deadline",
    "delay",
    "run_at",
    "callback_url",
    "idempotency_key",
];

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

/// Reads the fields of a job. `body` is what `object` was read from: data stays a slice of it.
pub(crate) fn fields(object: &Object<'_, '_>, body: &Bytes, job_bytes_max: u64) -> Result<JobFields> {
    let at = object.at();
    let field = |name| At::Field(&at, name);
    let processor = object::text(object.required("processor")?, At::Field(&at, "processor"))?;
    let processor =
        processor_name(&processor).map_err(|detail| At::Field(&at, "processor").invalid(detail))?;
    let group = match object.text("group")? {
        Some(text) => group_name(&text).map_err(|detail| At::Field(&at, "group").invalid(detail))?,
        None => Group::default(),
    };
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
