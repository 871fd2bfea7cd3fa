//! What an operator changes in the running server: its operations and their bodies.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::operation::{Answer, Operation};
use super::operations::{
    BODY, DRIVER, EVERYWHERE, JSON_ANSWER, JSON_BODY, PATH, QUERY, body, nothing, parameter, processor,
    segment,
};
use super::schema::{answer, boolean, count, fields, list, named, one_of, or_null, request, text};
use super::{examples, patterns};
use crate::http::error::Code;

/// Of a change that is kept over a restart.
const KEPT: &[Code] = &[Code::DiskFull];

/// The longest duration whose pattern a page still shows well: 1,000 days.
const SPAN_MAX: Duration = Duration::from_hours(24_000);

/// Its operations, in the order of the page.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        pause(true),
        pause(false),
        read_policy(),
        set_policy(),
        clear_policy(),
    ]
}

/// The schemas of its bodies.
pub(super) fn schemas() -> Map<String, Value> {
    fields([
        (
            "LanePaused",
            answer(
                "Whether a lane is paused.",
                &["processor", "priority", "paused"],
                fields([
                    ("processor", named("Processor")),
                    ("priority", named("Priority")),
                    ("paused", boolean("Durably.")),
                ]),
            ),
        ),
        (
            "Policy",
            request(
                "Values of a policy. In a `PUT`, `null` takes away what was set; in an answer it says that the \
                 server's own value holds.",
                &[],
                values(),
            ),
        ),
        (
            "PolicyInForce",
            answer(
                "The policy in force, and where it comes from.",
                &[
                    "processor",
                    "group",
                    "priority",
                    "policy",
                    "origin",
                    "configured",
                    "set",
                    "warnings",
                ],
                fields([
                    ("processor", named("Processor")),
                    ("group", or_null(named("Group"))),
                    ("priority", named("Priority")),
                    ("policy", named("Policy")),
                    (
                        "origin",
                        json!({"type": "object", "additionalProperties": origin(),
                            "description": "Who gave each value."}),
                    ),
                    (
                        "configured",
                        json!({"type": "object",
                            "additionalProperties": {"type": "object", "additionalProperties": configured()},
                            "description": "What the configuration says for the processor, by table and key, in \
                                force or not."}),
                    ),
                    (
                        "set",
                        json!({"type": "object", "additionalProperties": named("Policy"),
                            "description": "All that was set over the API for the processor, by table, in force or not."}),
                    ),
                    (
                        "warnings",
                        list(text("One."), "What of it is not in force, and why."),
                    ),
                ]),
            ),
        ),
    ])
}

fn origin() -> Value {
    let table = text("The table of the configuration that says it.");
    answer(
        "Where a value comes from.",
        &["from"],
        fields([
            (
                "from",
                one_of(&["default", "config", "api"], "Who gave the value."),
            ),
            ("table", table),
            ("file", text(FILE)),
            ("line", count(LINE)),
        ]),
    )
}

/// A value of the configuration, and where it stands.
fn configured() -> Value {
    answer(
        "A value of the configuration.",
        &["value"],
        fields([
            (
                "value",
                json!({"type": ["integer", "boolean", "string"], "description": "The value."}),
            ),
            ("file", text(FILE)),
            ("line", count(LINE)),
        ]),
    )
}

const FILE: &str = "The file in which it stands, as the server was told of it; if it stands in one.";

const LINE: &str = "The line in that file.";

fn values() -> Map<String, Value> {
    let of = |minimum: u64, maximum: u64, what: &str| {
        let mut schema = count(what);
        schema["minimum"] = json!(minimum);
        schema["maximum"] = json!(maximum);
        or_null(schema)
    };
    let jobs = |what: &str| of(1, 10_000, what);
    let tries = |what: &str| of(1, u64::from(u32::MAX), what);
    let duration = |what: &str| {
        or_null(json!({"type": "string", "pattern": patterns::duration(SPAN_MAX), "description": what}))
    };
    let size = json!({"anyOf": [
        {"type": "string", "pattern": patterns::size()},
        {"type": "integer", "minimum": 1, "maximum": i64::MAX},
        {"type": "null"},
    ], "description": "The most bytes in a batch."});
    let share = json!({"anyOf": [
        {"type": "string", "pattern": "^(0|1/([2-9]|[1-9][0-9]{1,8}))$"},
        {"type": "integer", "const": 0},
        {"type": "null"},
    ], "description": "The share of a waiting lower lane: `1/16`, or 0 for strict priority."});
    fields([
        ("max_jobs", jobs("The most jobs in a batch.")),
        ("max_bytes", size),
        ("min_jobs", jobs("NORMAL: so many jobs close a batch.")),
        ("max_delay", duration("How long the oldest job waits for others.")),
        (
            "idle_flush",
            or_null(boolean(
                "NORMAL: a batch goes at once while nothing of its lane is worked on.",
            )),
        ),
        (
            "group_by",
            or_null(one_of(
                &["none", "group", "key"],
                "What must be the same in all jobs of a batch.",
            )),
        ),
        ("lower_lane_share", share),
        (
            "realtime_reserve",
            of(
                0,
                u64::from(u32::MAX),
                "Slots of the processor's workers that only REALTIME takes.",
            ),
        ),
        (
            "lease",
            duration("How long a worker holds a batch without a sign of life; at least 100ms."),
        ),
        ("heartbeat", duration("How often a worker should extend.")),
        (
            "batch_timeout",
            duration("How long a worker may hold a batch at all."),
        ),
        ("max_attempts", tries("Counted tries before a job is given up.")),
        ("backoff", duration("Pause before the second try.")),
        ("backoff_max", duration("The longest pause between tries.")),
        (
            "max_crashes",
            tries("Crashes after which a job that ran alone is given up."),
        ),
        ("result_ttl", duration("How long a finished job stays readable.")),
    ])
}

fn pause(paused: bool) -> Operation {
    let (path, id, summary, description) = match paused {
        true => (
            "/v1/lanes/{processor}/{priority}/pause",
            "pauseLane",
            "Pause a lane",
            "From the answer on nothing of the lane is handed out, also after a restart; everything else goes on. \
             Pausing twice is pausing once. The processor need not have a job yet.",
        ),
        false => (
            "/v1/lanes/{processor}/{priority}/resume",
            "resumeLane",
            "Resume a lane",
            "The lane hands out again. Resuming what is not paused changes nothing.",
        ),
    };
    let done = Answer::json(
        StatusCode::OK,
        "Durable.",
        "LanePaused",
        examples::lane_paused(paused),
    );
    let mut errors = vec![
        EVERYWHERE,
        PATH,
        QUERY,
        BODY,
        JSON_BODY,
        JSON_ANSWER,
        KEPT,
        DRIVER,
    ];
    if paused {
        errors.push(&[Code::TooManyProcessors]);
    }
    Operation {
        method: "post",
        path,
        tag: "operate",
        id,
        summary,
        description: description.to_owned(),
        parameters: vec![processor(), segment("priority", "Priority", "The lane.", "SLOW")],
        body: Some(nothing()),
        answers: vec![done],
        errors,
    }
}

const POLICY: &str = "/v1/processors/{processor}/policy";

fn scope() -> [Value; 2] {
    [
        parameter(
            "query",
            "group",
            named("Group"),
            "Of this group; else of all groups without a policy of their own.",
        ),
        parameter(
            "query",
            "priority",
            named("Priority"),
            "In this lane. To change a policy: not together with `group`.",
        ),
    ]
}

fn in_force(description: &'static str) -> Answer {
    Answer::json(StatusCode::OK, description, "PolicyInForce", examples::policy())
}

fn policy_parameters() -> Vec<Value> {
    let mut parameters = vec![processor()];
    parameters.extend(scope());
    parameters
}

fn read_policy() -> Operation {
    Operation {
        method: "get",
        path: POLICY,
        tag: "operate",
        id: "readPolicy",
        summary: "See the policy in force",
        description: "How jobs of the processor gather and retry, and who said so.".to_owned(),
        parameters: policy_parameters(),
        body: None,
        answers: vec![in_force("The policy in force.")],
        errors: vec![EVERYWHERE, PATH, QUERY, JSON_ANSWER, DRIVER],
    }
}

fn set_policy() -> Operation {
    let content =
        json!({"application/json": {"schema": named("Policy"), "example": {"max_jobs": 20, "lease": "5s"}}});
    Operation {
        method: "put",
        path: POLICY,
        tag: "operate",
        id: "setPolicy",
        summary: "Set a policy",
        description: "What is not named stays as it is. In force from the next decision, and after a restart; but \
                      the configuration file wins, and `warnings` says so. Values that cannot be in force together \
                      are refused."
            .to_owned(),
        parameters: policy_parameters(),
        body: Some(body("The values.", content)),
        answers: vec![in_force("Durable, and in force.")],
        errors: changing(),
    }
}

/// The errors of what changes a policy.
fn changing() -> Vec<&'static [Code]> {
    vec![
        EVERYWHERE,
        PATH,
        QUERY,
        BODY,
        JSON_BODY,
        JSON_ANSWER,
        KEPT,
        DRIVER,
    ]
}

fn clear_policy() -> Operation {
    Operation {
        method: "delete",
        path: POLICY,
        tag: "operate",
        id: "clearPolicy",
        summary: "Take away what was set",
        description: "All that was set over the API for this table.".to_owned(),
        parameters: policy_parameters(),
        body: None,
        answers: vec![in_force("Durable, and in force.")],
        errors: changing(),
    }
}
