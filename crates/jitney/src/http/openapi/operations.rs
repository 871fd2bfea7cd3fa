//! Every operation of the contract. An endpoint that is served and not here fails
//! `tests::every_endpoint_is_documented_and_nothing_else`.
//!
//! An entry says what the endpoint takes, what it answers, and every error code it can give (docs/errors.md), most
//! of them by groups: [`EVERYWHERE`], [`DRIVER`], [`BODY`] and so on, after what its handler does.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::control;
use super::examples::{self, JOB_ID, LEASE};
use super::many;
use super::operation::{Answer, Operation};
use super::schema::{named, named_as};
use crate::http::error::Code;
use crate::http::parse::job::{LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX};
use crate::limits::Limits;

/// Of every request: its head, its host and origin, and the number of connections.
pub(super) const EVERYWHERE: &[Code] = &[
    Code::InvalidValue,
    Code::Forbidden,
    Code::HeadTooLarge,
    Code::TooManyConnections,
];
/// Of every call to the driver.
pub(super) const DRIVER: &[Code] = &[
    Code::TooManyWaiters,
    Code::Internal,
    Code::Draining,
    Code::Recovering,
    Code::OutcomeUnknown,
];
/// Of a path with parameters.
pub(super) const PATH: &[Code] = &[Code::InvalidValue];
/// Of an endpoint that reads its query.
pub(super) const QUERY: &[Code] = &[Code::UnknownField, Code::InvalidValue];
/// Of an answer in JSON.
pub(super) const JSON_ANSWER: &[Code] = &[Code::NotAcceptable];
/// Of a body: its encoding, its size, the time that it takes, and the memory for all of them.
pub(super) const BODY: &[Code] = &[
    Code::InvalidValue,
    Code::SlowBody,
    Code::BodyTooLarge,
    Code::UnsupportedMediaType,
    Code::QueueFull,
];
/// Of a body that must be JSON.
pub(super) const JSON_BODY: &[Code] = &[
    Code::MalformedJson,
    Code::UnknownField,
    Code::MissingField,
    Code::InvalidValue,
    Code::UnsupportedMediaType,
];
/// Of a submit.
pub(super) const SUBMIT: &[Code] = &[
    Code::JobTooLarge,
    Code::IdempotencyKeyReused,
    Code::QueueFull,
    Code::KeysFull,
    Code::TooManyProcessors,
    Code::DiskFull,
];
/// Of a submit with an id of its own.
const OWN_ID: &[Code] = &[Code::IdReused];

/// All of them, in the order of the page.
pub(super) fn all(limits: &Limits) -> Vec<Operation> {
    let mut all = vec![
        submit(limits),
        submit_envelope(),
        read_job(),
        lease(limits),
        settle(),
        extend(),
        lanes(),
    ];
    all.extend(control::operations());
    all.extend([
        info(),
        healthz(),
        readyz(),
        metrics(),
        openapi(),
        docs(),
        errors(),
    ]);
    all
}

/// A parameter.
pub(super) fn parameter(place: &str, name: &str, schema: Value, description: &str) -> Value {
    json!({"name": name, "in": place, "required": place == "path", "description": description, "schema": schema})
}

/// A parameter of the path, with an example, which pages fill in.
pub(super) fn segment(name: &str, schema: &str, description: &str, example: &str) -> Value {
    let mut parameter = parameter("path", name, named(schema), description);
    parameter["example"] = json!(example);
    parameter
}

pub(super) fn processor() -> Value {
    segment("processor", "Processor", "Whose job it is.", "payments")
}

fn lease_token() -> Value {
    segment(
        "lease",
        "Lease",
        "The token of the lease, as the poll gave it.",
        LEASE,
    )
}

/// How long the answer may be held.
fn wait() -> [Value; 2] {
    [
        parameter(
            "query",
            "wait",
            named("Wait"),
            "How long to hold the answer for the outcome.",
        ),
        prefer(),
    ]
}

fn prefer() -> Value {
    let schema = json!({"type": "string"});
    parameter(
        "header",
        "Prefer",
        schema,
        "`wait=10`: as the parameter `wait`, in seconds; the parameter wins.",
    )
}

/// What makes a submit repeatable, and its trace.
pub(super) fn submit_headers() -> [Value; 2] {
    let key = json!({"type": "string", "pattern": "^[!-~]{1,255}$"});
    [
        parameter(
            "header",
            "Idempotency-Key",
            key,
            "The same key with the same job is the same submit. Not together with an `id`.",
        ),
        parameter(
            "header",
            "traceparent",
            json!({"type": "string"}),
            "W3C trace context, given to the worker.",
        ),
    ]
}

pub(super) fn body(description: &str, content: Value) -> Value {
    json!({"description": description, "required": true, "content": content})
}

/// Where to go on with a submitted job.
pub(super) fn job_links() -> Value {
    json!({"read": {"operationId": "readJob", "parameters": {"id": "$response.body#/id"},
        "description": "The job, now or when it is done."}})
}

fn submitted() -> [Answer; 2] {
    [
        Answer::json(
            StatusCode::OK,
            "With `wait`: the job is done. Or a repeat of a submit whose job is.",
            "SubmittedJob",
            examples::submitted_and_done(),
        )
        .headers(&["Location", "Idempotency-Replayed"])
        .links(job_links()),
        Answer::json(
            StatusCode::ACCEPTED,
            "The job is accepted and durable; it goes on.",
            "SubmittedJob",
            examples::submitted(),
        )
        .headers(&["Location", "Idempotency-Replayed"])
        .links(job_links()),
    ]
}

fn submit(limits: &Limits) -> Operation {
    let labels = json!({
        "type": "object",
        "maxProperties": LABELS_MAX,
        "patternProperties": {
            format!("^label\\..{{1,{LABEL_NAME_BYTES_MAX}}}$"):
                {"type": "string", "maxLength": LABEL_VALUE_BYTES_MAX},
        },
        "additionalProperties": false,
    });
    let mut labels = parameter(
        "query",
        "labels",
        labels,
        "Labels, each a parameter of its own: `label.order=A-17` is the label `order`.",
    );
    labels["style"] = json!("form");
    labels["explode"] = json!(true);
    labels["example"] = json!({});
    let mut parameters = vec![
        processor(),
        parameter(
            "query",
            "group",
            named("Group"),
            "The kind of job; `default` where it is absent.",
        ),
        parameter("query", "priority", named("Priority"), "The lane."),
        parameter("query", "id", named("JobId"), "The client's own id."),
        parameter(
            "query",
            "key",
            named("Key"),
            "The caller's key: a tenant, an account.",
        ),
        labels,
    ];
    parameters.extend(wait());
    parameters.extend(submit_headers());
    Operation {
        method: "post",
        path: "/v1/processors/{processor}/jobs",
        tag: "submit",
        id: "submitJob",
        summary: "Submit a job: the body is its data",
        description:
            "Any bytes of any content type, given to the worker unchanged. Declared JSON must be JSON; \
            without a type the bytes decide."
                .to_owned(),
        parameters,
        body: Some(any_body(limits)),
        answers: submitted().into(),
        errors: vec![
            EVERYWHERE,
            PATH,
            QUERY,
            BODY,
            &[Code::MalformedJson],
            JSON_ANSWER,
            SUBMIT,
            OWN_ID,
            DRIVER,
        ],
    }
}

/// A job's data of any type.
pub(super) fn any_body(limits: &Limits) -> Value {
    let binary = json!({"schema": {"type": "string", "format": "binary"}});
    let description = format!(
        "The data, at most {} bytes (`max_job_bytes`).",
        limits.job_bytes_max
    );
    json!({"description": description, "required": false, "content": {
        "application/json": {"schema": {}, "example": examples::data()},
        "text/plain": {"schema": {"type": "string"}, "example": "any text"},
        "application/octet-stream": binary,
    }})
}

fn submit_envelope() -> Operation {
    let mut parameters = wait().to_vec();
    parameters.extend(submit_headers());
    let [mut done, accepted] = submitted();
    done.description = "With `wait`: the job is done. Or a repeat of a submit whose job is. Or many were read, whatever \
        became of each.";
    // The answer to many has no id of its own to go on with.
    done.links = Value::Null;
    done.content = many::answer_content(named("SubmittedJob"), &examples::submitted_and_done());
    Operation {
        method: "post",
        path: "/v1/jobs",
        tag: "submit",
        id: "submitEnvelope",
        summary: "Submit a job in an envelope, or many",
        description: "As above, with the options beside the data. An array has many, and so has NDJSON, an envelope \
            a line: each stands alone, and has an entry in the answer. With `wait` this comes when all are done or the \
            time is up. Many have no `Idempotency-Key`, but an `idempotency_key` each."
            .to_owned(),
        parameters,
        body: Some(body("The job, or many.", many::request_content())),
        answers: vec![done, accepted],
        errors: vec![
            EVERYWHERE,
            QUERY,
            BODY,
            JSON_BODY,
            JSON_ANSWER,
            SUBMIT,
            OWN_ID,
            DRIVER,
        ],
    }
}

fn read_job() -> Operation {
    let mut parameters = vec![segment("id", "JobId", "The job.", JOB_ID)];
    parameters.extend(wait());
    Operation {
        method: "get",
        path: "/v1/jobs/{id}",
        tag: "submit",
        id: "readJob",
        summary: "Read a job, or wait for it",
        description:
            "With `wait` the answer is held until the job is done. An outcome is no HTTP error: a job that \
            was read is `200` whatever became of it. Finished jobs stay readable for `result_ttl`."
                .to_owned(),
        parameters,
        body: None,
        answers: vec![Answer::json(
            StatusCode::OK,
            "The job as it is now.",
            "Job",
            examples::done(),
        )],
        errors: vec![EVERYWHERE, PATH, QUERY, JSON_ANSWER, &[Code::UnknownJob], DRIVER],
    }
}

fn lease(limits: &Limits) -> Operation {
    let content = json!({"application/json": {"schema": named("Poll"), "example": examples::poll()}});
    let token = "$response.body#/batches/0/lease";
    let links = json!({
        "settle": {"operationId": "settleLease", "parameters": {"lease": token}, "description": "Say what became of it."},
        "extend": {"operationId": "extendLease", "parameters": {"lease": token}, "description": "Ask for more time."},
    });
    let nothing = Answer {
        status: StatusCode::NO_CONTENT,
        description: "There was nothing to settle, and nothing came in time.",
        content: Value::Null,
        headers: &["Retry-After"],
        links: Value::Null,
    };
    Operation {
        method: "post",
        path: "/v1/processors/{processor}/lease",
        tag: "work",
        id: "leaseBatches",
        summary: "Ask for batches; settle others on the way",
        description: format!(
            "Settles first, durably; then takes up to `slots` batches, waiting for at most `wait`. The body is at most \
             {} bytes (`max_body_bytes`). `Retry-After` is there while the server drains.",
            limits.whole_body_bytes_max()
        ),
        parameters: vec![processor()],
        body: Some(body("The poll.", content)),
        answers: vec![
            Answer::json(
                StatusCode::OK,
                "What was settled, and the batches.",
                "Leased",
                examples::leased(),
            )
            .headers(&["Retry-After"])
            .links(links),
            nothing,
        ],
        errors: vec![
            EVERYWHERE,
            PATH,
            QUERY,
            BODY,
            JSON_BODY,
            JSON_ANSWER,
            &[Code::UnknownJob, Code::DiskFull],
            DRIVER,
        ],
    }
}

/// Of a lease.
const LEASE_CALL: &[Code] = &[Code::UnknownLease, Code::LeaseLost];

fn settle() -> Operation {
    let content = json!({"application/json": {"schema": named("Settle"), "examples": {
        "outcomes": {"summary": "Job by job", "value": examples::settle()},
        "failed": {"summary": "The batch as a whole", "value": examples::settle_failed()},
    }}});
    Operation {
        method: "post",
        path: "/v1/leases/{lease}/settle",
        tag: "work",
        id: "settleLease",
        summary: "Settle jobs of a lease",
        description: "Answered when it is durable. Settling again is always safe: the token fences. An outcome that \
            does not fit is `refused` by itself, inside a `200`. With `409 lease_lost` the problem carries `results`."
            .to_owned(),
        parameters: vec![lease_token()],
        body: Some(body("What became of the jobs.", content)),
        answers: vec![Answer::json(StatusCode::OK, "What became of each outcome.", "Settled", examples::settled())],
        errors: vec![EVERYWHERE, PATH, QUERY, BODY, JSON_BODY, &[Code::JobTooLarge, Code::DiskFull], JSON_ANSWER,
            LEASE_CALL, DRIVER],
    }
}

/// A body that says nothing.
pub(super) fn nothing() -> Value {
    let nothing = json!({"type": "object", "additionalProperties": false, "maxProperties": 0});
    let content = json!({"application/json": {"schema": nothing, "example": {}}});
    json!({"description": "`{}`, or nothing.", "required": false, "content": content})
}

fn extend() -> Operation {
    Operation {
        method: "post",
        path: "/v1/leases/{lease}/extend",
        tag: "work",
        id: "extendLease",
        summary: "Extend a lease",
        description: "Also takes back jobs whose term ran out and that nobody else holds, never beyond `batch_timeout`."
            .to_owned(),
        parameters: vec![lease_token()],
        body: Some(nothing()),
        answers: vec![Answer::json(StatusCode::OK, "The new term.", "Extended", examples::extended())],
        errors: vec![EVERYWHERE, PATH, QUERY, BODY, JSON_BODY, JSON_ANSWER, LEASE_CALL, DRIVER],
    }
}

/// An operation that only shows something.
fn look(
    path: &'static str,
    tag: &'static str,
    id: &'static str,
    summary: &'static str,
    answer: Answer,
) -> Operation {
    Operation {
        method: "get",
        path,
        tag,
        id,
        summary,
        description: String::new(),
        parameters: Vec::new(),
        body: None,
        answers: vec![answer],
        errors: vec![EVERYWHERE],
    }
}

fn lanes() -> Operation {
    let answer = Answer::json(StatusCode::OK, "All lanes.", "Lanes", examples::lanes());
    let mut operation = look(
        "/v1/lanes",
        "operate",
        "readLanes",
        "See what waits where",
        answer,
    );
    operation.errors.extend([QUERY, JSON_ANSWER, DRIVER]);
    operation
}

fn info() -> Operation {
    let mut answer = Answer::json(StatusCode::OK, "The server.", "Info", Value::Null);
    answer.content = json!({"application/json": {"schema": named_as("Info", "This server.")}});
    let mut operation = look(
        "/v1/info",
        "operate",
        "readInfo",
        "See version, features, limits and usage",
        answer,
    );
    operation.errors.extend([QUERY, JSON_ANSWER, DRIVER]);
    operation
}

fn healthz() -> Operation {
    let answer = Answer::text("The process serves.", "text/plain");
    look(
        "/healthz",
        "operate",
        "readHealth",
        "Is the process alive?",
        answer,
    )
}

fn readyz() -> Operation {
    let answer = Answer::text("It takes work.", "text/plain");
    let mut operation = look(
        "/readyz",
        "operate",
        "readReadiness",
        "Does it take work?",
        answer,
    );
    operation.errors.extend([DRIVER, &[Code::DiskFull]]);
    operation
}

fn metrics() -> Operation {
    let answer = Answer::text(
        "Metrics in the Prometheus text format.",
        "application/openmetrics-text",
    );
    look("/metrics", "operate", "readMetrics", "Metrics", answer)
}

fn openapi() -> Operation {
    let mut answer = Answer::text("This document.", "application/json").headers(&["ETag"]);
    answer.content = json!({"application/json": {"schema": {"type": "object"}}});
    look("/openapi.json", "docs", "readOpenapi", "This document", answer)
}

fn docs() -> Operation {
    let answer = Answer::text("This document as a page to try things on.", "text/html").headers(&["ETag"]);
    look("/docs", "docs", "readDocs", "This document as a page", answer)
}

fn errors() -> Operation {
    let text = json!({"schema": {"type": "string"}});
    let mut answer = Answer::text("Every error and what to do.", "text/html").headers(&["ETag"]);
    answer.content = json!({"text/html": text, "text/markdown": text});
    let mut operation = look(
        "/docs/errors",
        "docs",
        "readErrors",
        "Every error explained",
        answer,
    );
    operation.description = "HTML where `Accept` names it, else Markdown.".to_owned();
    operation
}

/// A parameter of a route's path.
pub(super) fn label_segment(name: &str) -> Value {
    let schema = json!({"type": "string", "minLength": 1, "maxLength": LABEL_VALUE_BYTES_MAX});
    parameter(
        "path",
        name,
        schema,
        &format!("Becomes the label `{name}` of the job."),
    )
}
