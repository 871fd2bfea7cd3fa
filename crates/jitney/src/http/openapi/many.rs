//! Many jobs in one request, as the document has it. An envelope among many that is wrong is an entry of the
//! answer, not an error of the request: so the schema lets it pass.

use serde_json::{Map, Value, json};

use super::examples;
use super::schema::{answer, boolean, count, fields, list, named};
use super::schemas::{bytes_envelope, job, json_envelope};
use crate::http::headers::NDJSON_TYPES;
use crate::http::many::ITEMS_MAX;
use crate::http::parse::job::IDEMPOTENCY_KEY_BYTES_MAX;
use crate::limits::Limits;

/// The schemas of many.
pub(super) fn schemas(limits: &Limits) -> Map<String, Value> {
    fields([
        (
            "OneOfMany",
            json!({
                "description": "A job among many, and its data.",
                "anyOf": [named("OneOfManyOfJson"), named("OneOfManyOfBytes")],
            }),
        ),
        ("OneOfManyOfJson", named_too(json_envelope(limits))),
        ("OneOfManyOfBytes", named_too(bytes_envelope(limits))),
        ("Entry", entry()),
        ("Many", many()),
    ])
}

/// An envelope that may have its own idempotency key.
fn named_too(mut envelope: Value) -> Value {
    envelope["properties"]["idempotency_key"] = json!({
        "type": ["string", "null"],
        "pattern": format!("^[!-~]{{1,{IDEMPOTENCY_KEY_BYTES_MAX}}}$"),
        "description": "As the header `Idempotency-Key`, for this job. Not together with an `id`.",
    });
    envelope
}

/// What became of one of them.
fn entry() -> Value {
    let mut properties = job();
    properties.extend(fields([
        ("index", count("Which of the envelopes, from 0.")),
        (
            "replayed",
            boolean("`true` where it was submitted before; absent otherwise."),
        ),
        (
            "error",
            json!({"anyOf": [named("Problem"), named("JobError"), {"type": "null"}]}),
        ),
    ]));
    answer(
        "What became of one job. It was accepted if it has an `id`: with its `status` and `state`, and with all fields of \
         a job where the caller waited. Otherwise `error` is why not.",
        &["index"],
        properties,
    )
}

fn many() -> Value {
    answer(
        "The answer to an array.",
        &["accepted", "rejected", "jobs"],
        fields([
            ("accepted", count("Jobs that are durable now, or were before.")),
            ("rejected", count("Envelopes that were refused.")),
            ("jobs", list(named("Entry"), "An entry for each, in their order.")),
        ]),
    )
}

/// The body of a request with one job or many.
pub(super) fn request_content() -> Value {
    let items = json!({"anyOf": [named("OneOfMany"), {}]});
    let array = json!({"type": "array", "maxItems": ITEMS_MAX, "items": items,
        "description": "Each stands alone: one that is wrong is an entry of the answer."});
    let mut content = json!({"application/json": {
        "schema": {"anyOf": [named("Envelope"), array]},
        "examples": {
            "one": {"value": examples::envelope()},
            "many": {"value": [examples::one_of_many(), {"processor": "payments", "gruop": "a misspelt one"}]},
        },
    }});
    content[NDJSON_TYPES[0]] = lines(
        "An envelope a line.",
        &[examples::one_of_many(), examples::envelope()],
    );
    content
}

/// What a request with many is answered with, beside `one`, the schema and example of an answer to one.
pub(super) fn answer_content(one: Value, example: &Value) -> Value {
    let mut content = json!({"application/json": {
        "schema": {"anyOf": [one, named("Many")]},
        "examples": {"one": {"value": example}, "many": {"value": examples::many()}},
    }});
    let entries = examples::many()["jobs"].as_array().cloned().unwrap_or_default();
    content[NDJSON_TYPES[0]] = lines("An `Entry` a line.", &entries);
    content
}

fn lines(description: &str, lines: &[Value]) -> Value {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    json!({"schema": {"type": "string", "description": description}, "example": text})
}
