//! The schemas of what workers send and get.

use serde_json::{Map, Value, json};

use super::patterns;
use super::schema::{
    answer, anything, boolean, count, fields, list, named, named_as, one_of, or_null, request, text, text_of,
    time,
};
use super::schemas::{base64, chosen, content_type, data_limit, json_content_type};
use crate::http::lease::{BATCH_JOBS_MAX, NAME_BYTES_MAX, NOT_READY_BYTES_MAX, SETTLES_MAX, SLOTS_MAX};
use crate::http::parse::outcome::{CODE_BYTES_MAX, MESSAGE_BYTES_MAX};
use crate::http::view::SETTLE_NAMES;
use crate::limits::Limits;

/// Every named schema of this page.
pub(super) fn schemas(limits: &Limits) -> Map<String, Value> {
    fields([
        ("Poll", poll()),
        ("Leased", leased()),
        ("Batch", batch()),
        ("BatchJob", batch_job()),
        (
            "Settle",
            either_settle("A settle.", "SettleOutcomes", "SettleFailed"),
        ),
        ("SettleOutcomes", settle_outcomes("Outcomes, job by job.", false)),
        (
            "SettleFailed",
            settle_failed("The batch failed as a whole.", false),
        ),
        (
            "PolledSettle",
            either_settle("A settle inside a poll.", "PolledOutcomes", "PolledFailed"),
        ),
        (
            "PolledOutcomes",
            settle_outcomes("Outcomes of a lease, job by job.", true),
        ),
        (
            "PolledFailed",
            settle_failed("The batch of a lease failed as a whole.", true),
        ),
        ("Outcome", outcome()),
        ("OutcomeOk", outcome_ok(limits)),
        ("OutcomeOkBytes", outcome_ok_bytes(limits)),
        ("OutcomeError", outcome_error(limits)),
        ("OutcomeRelease", outcome_release()),
        (
            "Child",
            json!({"description": "A child job.", "anyOf": [named("ChildOfJson"), named("ChildOfBytes")]}),
        ),
        ("ChildOfJson", child(limits, false)),
        ("ChildOfBytes", child(limits, true)),
        ("SettleResult", settle_result()),
        (
            "Settled",
            answer(
                "What became of each outcome, in their order.",
                &["results"],
                fields([(
                    "results",
                    list(named("SettleResult"), "In the order of the outcomes."),
                )]),
            ),
        ),
        ("Extended", extended()),
    ])
}

fn poll() -> Value {
    let size = json!({"anyOf": [
        {"type": "string", "pattern": patterns::size()},
        {"type": "integer", "minimum": 1, "maximum": u64::MAX},
        {"type": "null"},
    ], "description": "The bytes of a batch at most; the policy's where it is absent."});
    let number = |max: u32, description: &str| {
        or_null(json!({"type": "integer", "minimum": 1, "maximum": max, "description": description}))
    };
    let priorities = json!({"type": "array", "minItems": 1, "items": named("Priority"),
        "description": "Which lanes; all where it is absent."});
    let settle = json!({"type": "array", "maxItems": SETTLES_MAX, "items": named("PolledSettle"),
        "description": "Settled first, durably, before the poll waits."});
    request(
        "A worker asks for work.",
        &["worker"],
        fields([
            (
                "worker",
                text_of(1, NAME_BYTES_MAX, "Who asks, for logs and leases."),
            ),
            (
                "slots",
                number(SLOTS_MAX, "How many batches at most; 1 where it is absent."),
            ),
            (
                "max_jobs",
                number(
                    BATCH_JOBS_MAX,
                    "The jobs of a batch at most; the policy's where it is absent.",
                ),
            ),
            ("max_bytes", size),
            (
                "wait",
                json!({"anyOf": [named("Wait"), {"const": 0}, {"type": "null"}],
                "description": "How long to wait for a batch."}),
            ),
            ("priorities", or_null(priorities)),
            (
                "request_id",
                or_null(text_of(
                    1,
                    NAME_BYTES_MAX,
                    "Names this poll, so that it can be repeated if its answer is lost.",
                )),
            ),
            (
                "not_ready",
                or_null(text_of(
                    1,
                    NOT_READY_BYTES_MAX,
                    "Why the worker's program cannot start. With it the poll takes no batch: while it waits the worker \
                     is shown as one that cannot start.",
                )),
            ),
            ("settle", or_null(settle)),
        ]),
    )
}

fn leased() -> Value {
    let settled = answer(
        "What became of one settle.",
        &["lease"],
        fields([
            ("lease", text("As it was written.")),
            (
                "results",
                list(named("SettleResult"), "In the order of the outcomes."),
            ),
            ("error", named_as("Problem", "Why the whole settle was refused.")),
        ]),
    );
    answer(
        "What was settled, and the batches.",
        &["settled", "batches"],
        fields([
            ("settled", list(settled, "In the order of the poll's settles.")),
            ("batches", list(named("Batch"), "At most `slots`.")),
        ]),
    )
}

fn batch() -> Value {
    answer(
        "A leased batch.",
        &[
            "lease",
            "batch",
            "priority",
            "expires_at",
            "expires_in_ms",
            "jobs",
        ],
        fields([
            ("lease", named("Lease")),
            ("batch", text("Names the batch in logs.")),
            ("priority", named("Priority")),
            (
                "expires_at",
                or_null(time(
                    "When its jobs may go to another worker, unless it is extended.",
                )),
            ),
            ("expires_in_ms", count("The same, from now.")),
            ("jobs", list(named("BatchJob"), "In the order of their lane.")),
        ]),
    )
}

fn batch_job() -> Value {
    answer(
        "A job as its worker gets it: `data`, or `data_base64` and `content_type`.",
        &[
            "id",
            "group",
            "attempt",
            "delivery",
            "key",
            "submitted_at",
            "deadline",
            "labels",
            "traceparent",
        ],
        fields([
            ("id", named("JobId")),
            ("group", named("Group")),
            ("attempt", count("Its counted attempts, and 1.")),
            (
                "delivery",
                count("How often it was handed out, this time included."),
            ),
            ("data", anything("As it came.")),
            (
                "data_base64",
                json!({"type": "string", "contentEncoding": "base64"}),
            ),
            (
                "content_type",
                text("What the data is, where it is not `application/json`."),
            ),
            ("key", or_null(text("The caller's key."))),
            ("submitted_at", or_null(time("When it was accepted."))),
            ("deadline", or_null(time("When it must have ended."))),
            (
                "labels",
                json!({"type": "object", "additionalProperties": {"type": "string"}}),
            ),
            ("traceparent", or_null(text("W3C trace context."))),
        ]),
    )
}

fn either_settle(description: &str, outcomes: &str, failed: &str) -> Value {
    json!({"description": description, "anyOf": [named(outcomes), named(failed)]})
}

/// The fields of a settle; inside a poll it names its lease, which is not checked before it is looked up.
fn settle(description: &str, in_poll: bool, required: &str, properties: Map<String, Value>) -> Value {
    if !in_poll {
        return request(description, &[required], properties);
    }
    let mut with_lease = fields([("lease", text("The token of the lease."))]);
    with_lease.extend(properties);
    request(description, &["lease", required], with_lease)
}

fn settle_outcomes(description: &str, in_poll: bool) -> Value {
    let last = or_null(boolean(
        "Whether the lease ends; `true` where it is absent. A job left unnamed failed.",
    ));
    let properties = fields([
        ("outcomes", list(named("Outcome"), "Each stands alone.")),
        ("final", last),
    ]);
    settle(description, in_poll, "outcomes", properties)
}

fn settle_failed(description: &str, in_poll: bool) -> Value {
    let failed = request(
        "Why.",
        &["code", "message"],
        fields([
            ("code", code()),
            ("message", message()),
            ("data", anything("Anything more.")),
        ]),
    );
    let crashed = or_null(boolean(
        "Whether the program that ran the batch died: each job counts a crash.",
    ));
    settle(
        description,
        in_poll,
        "failed",
        fields([
            ("failed", failed),
            ("crashed", crashed),
            (
                "final",
                json!({"enum": [true, null], "description": "It always ends the lease."}),
            ),
        ]),
    )
}

fn code() -> Value {
    text_of(1, CODE_BYTES_MAX, "A stable word for programs.")
}

fn message() -> Value {
    text_of(0, MESSAGE_BYTES_MAX, "For people.")
}

fn outcome() -> Value {
    let forms = ["OutcomeOk", "OutcomeOkBytes", "OutcomeError", "OutcomeRelease"].map(named);
    json!({
        "description": "What became of a job. One that does not fit is `refused` by itself, the others count.",
        "anyOf": forms,
    })
}

fn children(limits: &Limits) -> Value {
    let description = format!(
        "Child jobs, durable together with the outcome or not at all; at most {} bytes in all \
         (`max_body_bytes`).",
        limits.whole_body_bytes_max()
    );
    or_null(
        json!({"type": "array", "maxItems": limits.children_max, "items": named("Child"),
        "description": description}),
    )
}

fn outcome_ok(limits: &Limits) -> Value {
    request(
        "It went well.",
        &["id", "ok"],
        fields([
            ("id", named("JobId")),
            (
                "ok",
                anything(&format!("The result, any JSON value. {}", data_limit(limits))),
            ),
            ("content_type", or_null(json_content_type())),
            ("jobs", children(limits)),
        ]),
    )
}

fn outcome_ok_bytes(limits: &Limits) -> Value {
    request(
        "It went well, and the result is other bytes.",
        &["id", "ok_base64"],
        fields([
            ("id", named("JobId")),
            ("ok_base64", base64(limits)),
            ("content_type", or_null(content_type())),
            ("jobs", children(limits)),
        ]),
    )
}

fn outcome_error(limits: &Limits) -> Value {
    let error = request(
        "Why.",
        &["code", "message"],
        fields([
            ("code", code()),
            ("message", message()),
            (
                "retryable",
                or_null(boolean(
                    "Whether another try may help; `false` where it is absent.",
                )),
            ),
            (
                "data",
                anything(&format!("Anything more. {}", data_limit(limits))),
            ),
            (
                "retry_after",
                json!({"type": ["string", "number", "null"], "pattern": "^(0+|0*[0-9]{1,10}(ms|s|m|h|d))$",
                    "minimum": 0, "maximum": 9_999_999_999_u64,
                    "description": "Not before this long, a duration or seconds; with `retryable` only."}),
            ),
        ]),
    );
    request(
        "It failed.",
        &["id", "error"],
        fields([("id", named("JobId")), ("error", error)]),
    )
}

fn outcome_release() -> Value {
    request(
        "It goes back to its lane, and nothing is counted.",
        &["id", "release"],
        fields([("id", named("JobId")), ("release", json!({"const": true}))]),
    )
}

fn child(limits: &Limits, is_bytes: bool) -> Value {
    let mut properties = chosen();
    if is_bytes {
        properties.extend(fields([
            ("data_base64", base64(limits)),
            ("content_type", or_null(content_type())),
        ]));
        return request(
            "A child job whose data is other bytes.",
            &["processor", "data_base64"],
            properties,
        );
    }
    properties.extend(fields([
        (
            "data",
            anything(&format!("Any JSON value. {}", data_limit(limits))),
        ),
        ("content_type", or_null(json_content_type())),
    ]));
    request("A child job whose data is JSON.", &["processor"], properties)
}

fn settle_result() -> Value {
    answer(
        "What became of an outcome.",
        &["id", "is"],
        fields([
            ("id", text("The job, as it was written.")),
            (
                "is",
                one_of(
                    &SETTLE_NAMES,
                    "`applied` and `released`: done. `duplicate`: settled before under this very \
            token. `late`: another lease has it. `unknown`: not in this lease. `refused`: `error` says why.",
                ),
            ),
            ("children", list(named("JobId"), "The ids of its child jobs.")),
            ("error", named_as("Problem", "Why it was refused.")),
        ]),
    )
}

fn extended() -> Value {
    answer(
        "The lease's new term.",
        &["expires_in_ms", "cancelled", "lost"],
        fields([
            ("expires_in_ms", count("From now.")),
            (
                "cancelled",
                list(named("JobId"), "Jobs whose callers want them no more."),
            ),
            (
                "lost",
                list(named("JobId"), "Jobs that are settled or leased again."),
            ),
        ]),
    )
}
