//! The schemas of what callers and operators send and get. Those of workers are in `work.rs`.

use serde_json::{Map, Value, json};

use super::schema::{
    answer, anything, boolean, count, fields, list, named, named_as, one_of, or_null, request, text, text_of,
    time,
};
use super::{control, many, patterns, work};
use crate::http::error::{Code, Retry};
use crate::http::ops::{FEATURES, STATES};
use crate::http::parse::job::{KEY_BYTES_MAX, LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX};
use crate::http::parse::payload::CONTENT_TYPE_BYTES_MAX;
use crate::job::{Priority, Reason, State, Status, reason_name};
use crate::limits::Limits;
use crate::units::format_duration;

/// Base64 in the standard alphabet, with padding, and without stray bits at its end.
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

/// Every named schema.
pub(super) fn all(limits: &Limits) -> Map<String, Value> {
    let mut schemas = fields([
        (
            "Processor",
            name("", "The application whose workers run the job; case-sensitive."),
        ),
        (
            "Group",
            name(".", "The kind of job inside its processor; case-sensitive."),
        ),
        ("Priority", priority()),
        (
            "Key",
            text_of(1, KEY_BYTES_MAX, "The caller's key: a tenant, an account."),
        ),
        ("Labels", labels()),
        (
            "JobId",
            json!({"type": "string", "format": "uuid", "description": "A UUID with hyphens."}),
        ),
        (
            "Lease",
            json!({"type": "string", "pattern": "^[0-9a-f]{40}$", "description": "The token of a lease."}),
        ),
        ("Wait", wait(limits)),
        ("JobError", job_error()),
        ("Job", answer("A job as it is now.", JOB_REQUIRED, job())),
        ("SubmittedJob", submitted_job()),
        ("Envelope", envelope(limits)),
        ("EnvelopeOfJson", json_envelope(limits)),
        ("EnvelopeOfBytes", bytes_envelope(limits)),
        (
            "Lanes",
            answer(
                "All lanes.",
                &["lanes"],
                fields([("lanes", list(named("Lane"), "Each of them."))]),
            ),
        ),
        ("Lane", lane()),
        ("Info", info()),
        ("Problem", answer("An error.", PROBLEM_REQUIRED, problem())),
        ("JobProblem", job_problem()),
    ]);
    schemas.extend(many::schemas(limits));
    schemas.extend(work::schemas(limits));
    schemas.extend(control::schemas());
    schemas
}

/// Fields of a job that are always there: how it fared is not known once its result is gone.
const JOB_REQUIRED: &[&str] = &[
    "id",
    "processor",
    "group",
    "priority",
    "status",
    "state",
    "reason",
    "error",
    "key",
    "labels",
];

/// Fields of a problem that are always there.
const PROBLEM_REQUIRED: &[&str] = &["type", "title", "status", "code", "detail", "retry"];

fn name(more: &str, description: &str) -> Value {
    let pattern = format!("^[A-Za-z0-9][A-Za-z0-9_{more}-]{{0,63}}$");
    json!({"type": "string", "pattern": pattern, "description": description})
}

fn priority() -> Value {
    let mut schema = one_of(
        &Priority::ALL.map(Priority::name),
        "The lane: `REALTIME` overtakes, `SLOW` waits.",
    );
    schema["default"] = json!(Priority::Normal.name());
    schema
}

fn labels() -> Value {
    json!({
        "type": "object",
        "description": "Names and values that travel with the job.",
        "maxProperties": LABELS_MAX,
        "propertyNames": {"minLength": 1, "maxLength": LABEL_NAME_BYTES_MAX},
        "additionalProperties": {"type": "string", "maxLength": LABEL_VALUE_BYTES_MAX},
    })
}

/// A wait within the limit in force.
fn wait(limits: &Limits) -> Value {
    let max = format_duration(limits.wait_max);
    json!({
        "type": "string",
        "pattern": patterns::duration(limits.wait_max),
        "description": format!("A duration of at most `{max}` (`wait_max`), like `10s`."),
    })
}

/// How bytes come and go: JSON as it is, or base64 with a type.
pub(super) fn base64(limits: &Limits) -> Value {
    json!({"type": "string", "contentEncoding": "base64", "pattern": BASE64,
        "description": format!("Other bytes, in the standard alphabet with padding. {}", data_limit(limits))})
}

pub(super) fn content_type() -> Value {
    json!({"type": "string", "pattern": format!("^[ -~]{{1,{CONTENT_TYPE_BYTES_MAX}}}$"),
        "description": "What the bytes are; `application/octet-stream` where it is absent."})
}

/// The type of JSON that has one of its own.
pub(super) fn json_content_type() -> Value {
    json!({"type": "string", "pattern": "^application/(json|[A-Za-z0-9.-]{1,200}[+]json)$",
        "description": "A JSON type of its own (`+json`), if it has one."})
}

pub(super) fn data_limit(limits: &Limits) -> String {
    format!("At most {} bytes (`max_job_bytes`).", limits.job_bytes_max)
}

/// The fields of a job that its caller chooses, beside its data.
pub(super) fn chosen() -> Map<String, Value> {
    fields([
        ("processor", named("Processor")),
        (
            "group",
            or_null(named_as("Group", "`default` where it is absent.")),
        ),
        ("priority", or_null(named("Priority"))),
        ("key", or_null(named("Key"))),
        ("labels", or_null(named("Labels"))),
    ])
}

fn envelope(limits: &Limits) -> Value {
    json!({
        "description": format!("A job and its data. {}", data_limit(limits)),
        "anyOf": [named("EnvelopeOfJson"), named("EnvelopeOfBytes")],
    })
}

fn own_id() -> Value {
    or_null(named_as(
        "JobId",
        "The client's own id: submitting the same id twice is submitting once.",
    ))
}

pub(super) fn json_envelope(limits: &Limits) -> Value {
    let mut properties = chosen();
    properties.extend(fields([
        (
            "data",
            anything(&format!(
                "Any JSON value, kept as it is written. {}",
                data_limit(limits)
            )),
        ),
        ("content_type", or_null(json_content_type())),
        ("id", own_id()),
    ]));
    request("A job whose data is JSON.", &["processor"], properties)
}

pub(super) fn bytes_envelope(limits: &Limits) -> Value {
    let mut properties = chosen();
    properties.extend(fields([
        ("data_base64", base64(limits)),
        ("content_type", or_null(content_type())),
        ("id", own_id()),
    ]));
    request(
        "A job whose data is other bytes.",
        &["processor", "data_base64"],
        properties,
    )
}

fn job_error() -> Value {
    answer(
        "The error that a job ended with.",
        &["code", "message", "data"],
        fields([
            ("code", text("The handler's, or jitney's own word for it.")),
            ("message", text("For people.")),
            ("data", anything("What the handler added, or `null`.")),
        ]),
    )
}

pub(super) fn job() -> Map<String, Value> {
    let statuses = Status::ALL.map(Status::name);
    let states = State::ALL.map(State::name);
    fields([
        ("id", named("JobId")),
        ("processor", named("Processor")),
        ("group", named("Group")),
        ("priority", named("Priority")),
        ("status", one_of(&statuses, "Its outcome so far.")),
        ("state", one_of(&states, "Where it is.")),
        (
            "reason",
            or_null(one_of(&reasons(), "Why it ended without an outcome of its own.")),
        ),
        ("attempts", count("Tries that count.")),
        ("crashes", count("Leases that ran out, or programs that died.")),
        ("started", boolean("Whether a worker may have run it.")),
        (
            "parent",
            or_null(named_as("JobId", "The job whose outcome made this one.")),
        ),
        ("children", count("Jobs that its outcome made.")),
        ("submitted_at", or_null(time("When it was accepted."))),
        ("started_at", or_null(time("When it was first handed out."))),
        ("finished_at", or_null(time("When it ended."))),
        (
            "result",
            anything("What the handler gave, byte for byte; `null` where it gave nothing."),
        ),
        (
            "result_base64",
            json!({"type": "string", "contentEncoding": "base64",
            "description": "The result where it is not JSON."}),
        ),
        (
            "content_type",
            text("What the result is, where it is not `application/json`."),
        ),
        (
            "result_expired",
            boolean("`true` where the result had to give way; absent otherwise."),
        ),
        ("error", or_null(named("JobError"))),
        ("key", or_null(text("The caller's key."))),
        (
            "labels",
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
        ),
    ])
}

fn reasons() -> Vec<&'static str> {
    let all = [
        Reason::Exhausted,
        Reason::Expired,
        Reason::Cancelled,
        Reason::TimedOut,
        Reason::Dead,
    ];
    all.map(reason_name).to_vec()
}

fn submitted_job() -> Value {
    let mut properties = job();
    properties.extend(fields([
        (
            "workers",
            count("Workers that poll this processor or hold a lease of it now."),
        ),
        (
            "did_you_mean",
            text("A processor of a near name that has workers, where this one never had any."),
        ),
    ]));
    let required = [JOB_REQUIRED, &["workers"]].concat();
    answer(
        "The answer to a submit: the job, and who may run it.",
        &required,
        properties,
    )
}

fn lane() -> Value {
    let rate = |description: &str| json!({"type": "number", "minimum": 0, "description": description});
    let properties = fields([
        ("processor", named("Processor")),
        ("priority", named("Priority")),
        (
            "paused",
            boolean("It hands nothing out until somebody resumes it."),
        ),
        ("queued", count("Jobs that may go.")),
        ("scheduled", count("Jobs that wait for their time.")),
        ("running", count("Jobs in a lease.")),
        ("retrying", count("Jobs that wait for another try.")),
        ("dead", count("Jobs that were given up and can still be read.")),
        (
            "oldest_age_ms",
            or_null(count("How long the oldest queued job has waited.")),
        ),
        (
            "workers",
            count("Workers that poll it for batches or hold a lease of it."),
        ),
        (
            "workers_not_ready",
            count("Workers that say now that their program cannot start."),
        ),
        ("not_ready", or_null(not_ready())),
        ("arrived", count("Jobs that came, in all.")),
        ("dispatched", count("Jobs that were handed out, in all.")),
        (
            "ended",
            count("Jobs that ended, in all: the next three together."),
        ),
        ("processed_ok", count("Jobs that ended with a result, in all.")),
        ("processed_error", count("Jobs that ended with an error, in all.")),
        (
            "batch_failed",
            count("Jobs that were given up without an outcome, in all."),
        ),
        ("rate_in", rate("Jobs per second that came, about the last 30 s.")),
        (
            "rate_out",
            rate("Jobs per second that ended, about the last 30 s."),
        ),
        (
            "predicted_wait_ms",
            or_null(count(
                "Of a job submitted now; `null` until one has ended, and while the lane is paused.",
            )),
        ),
    ]);
    let required: Vec<String> = properties.keys().cloned().collect();
    let required: Vec<&str> = required.iter().map(String::as_str).collect();
    answer("A lane: one priority of one processor.", &required, properties)
}

fn not_ready() -> Value {
    answer(
        "One of the workers that cannot start.",
        &["worker", "why"],
        fields([
            ("worker", text("Its name.")),
            ("why", text("What it says of its program.")),
        ]),
    )
}

fn info() -> Value {
    let features = json!({"type": "array", "items": {"type": "string"}, "examples": [FEATURES],
        "description": "What this server can do; send it only what is listed."});
    let usage = json!({"type": "object", "additionalProperties": {"type": "integer"},
        "description": "What is in use of what the limits bound."});
    answer(
        "The server.",
        &[
            "version", "bus", "durable", "state", "features", "limits", "usage",
        ],
        fields([
            ("version", text("Of jitney.")),
            ("bus", text("Where jobs are kept.")),
            ("durable", boolean("Whether jobs outlive the process.")),
            ("state", one_of(&STATES, "Whether it takes work.")),
            ("features", features),
            (
                "limits",
                json!({"type": "object", "additionalProperties": {"type": ["integer", "string", "null"]},
                "description": "In force; durations with their unit."}),
            ),
            ("usage", usage),
        ]),
    )
}

fn problem() -> Map<String, Value> {
    let codes = Code::ALL.map(Code::name);
    let violation = answer(
        "One place.",
        &["pointer", "detail"],
        fields([
            ("pointer", text("JSON pointer into the body.")),
            ("detail", text("What is wrong there.")),
        ]),
    );
    fields([
        (
            "type",
            json!({"type": "string", "format": "uri-reference", "description": "Where the code is explained."}),
        ),
        ("title", text("A few words for people.")),
        (
            "status",
            json!({"type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status."}),
        ),
        ("code", one_of(&codes, "Stable: match on it.")),
        (
            "detail",
            text("What is wrong and what would be right, for people; it may change."),
        ),
        (
            "retry",
            one_of(
                &Retry::ALL.map(Retry::name),
                "Whether the same request may be sent again.",
            ),
        ),
        (
            "retry_after_ms",
            count("When, more precisely than `Retry-After`."),
        ),
        (
            "limit",
            count("The limit that was met; for `wait`, in milliseconds."),
        ),
        (
            "pointer",
            text("JSON pointer to the field at fault, or the query parameter's or header's name."),
        ),
        (
            "violations",
            list(
                violation,
                "Places where a body does not fit its route's schema; `detail` says if there may be more.",
            ),
        ),
        (
            "results",
            list(
                named("SettleResult"),
                "With `lease_lost`, after a settle: what became of each outcome.",
            ),
        ),
    ])
}

fn job_problem() -> Value {
    let mut properties = problem();
    properties.insert("code".to_owned(), text("What the handler called the error."));
    properties.retain(|name, _| PROBLEM_REQUIRED.contains(&name.as_str()));
    properties.insert("data".to_owned(), anything("What the handler added."));
    properties.insert(
        "reason".to_owned(),
        one_of(
            &reasons(),
            "Why the job ended, where there is a reason beside the error.",
        ),
    );
    properties.insert(
        "replayed".to_owned(),
        boolean("The job was submitted, and failed, before, under the same idempotency key: nothing ran for this request."),
    );
    answer(
        "The error that the job of a route ended with.",
        PROBLEM_REQUIRED,
        properties,
    )
}
