//! What the document shows. Every example fits its schema; a test holds them together.

use serde_json::{Map, Value, json};

use crate::http::docs::{ERRORS, sections};
use crate::http::error::{Code, Problem};
use crate::http::json::Json;

pub(super) const JOB_ID: &str = "0199a3c4-0000-7000-8000-00000000002a";
pub(super) const LEASE: &str = "00000000deadbeef000000070000000000000001";
const SUBMITTED_AT: &str = "2026-01-31T09:30:00.250Z";
const STARTED_AT: &str = "2026-01-31T09:30:00.262Z";
const FINISHED_AT: &str = "2026-01-31T09:30:00.301Z";

/// A problem of each code, as the server writes it. `detail` is the first sentence of its page.
pub(super) fn problems() -> Value {
    let problems: Map<String, Value> = Code::ALL
        .into_iter()
        .map(|code| (code.name().to_owned(), json!({"value": problem(code)})))
        .collect();
    Value::Object(problems)
}

fn problem(code: Code) -> Value {
    let mut json = Json::default();
    Problem::new(code, first_sentence(code.name())).write(&mut json);
    serde_json::from_slice(&json.finish()).expect("a problem is written as JSON")
}

/// What the page of errors says first of a code.
pub(super) fn first_sentence(code: &str) -> String {
    let text = sections(ERRORS)
        .find(|(name, _)| *name == code)
        .map(|(_, text)| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .unwrap_or_default();
    // Each section begins with its status and whether to retry.
    let explained = text.split_once(". ").map_or(text.as_str(), |(_, rest)| rest);
    let sentence = explained.split_once(". ").map_or(explained, |(first, _)| first);
    sentence.trim_end_matches('.').replace('`', "")
}

/// A caller's order.
pub(super) fn data() -> Value {
    json!({"amount": 1990, "currency": "EUR"})
}

pub(super) fn envelope() -> Value {
    json!({"processor": "payments", "group": "payment-submit", "priority": "REALTIME", "data": data(),
        "key": "tenant-7", "labels": {"order": "A-17"}})
}

/// An envelope among others.
pub(super) fn one_of_many() -> Value {
    json!({"processor": "payments", "data": data(), "idempotency_key": "order-17"})
}

/// What became of two of them.
pub(super) fn many() -> Value {
    let mut wrong = problem(Code::UnknownField);
    wrong["pointer"] = json!("/gruop");
    json!({"accepted": 1, "rejected": 1, "jobs": [
        {"index": 0, "id": JOB_ID, "status": "submitted", "state": "queued"}, {"index": 1, "error": wrong}]})
}

/// A job that was just submitted.
pub(super) fn queued() -> Value {
    let mut job = done();
    for (name, value) in [
        ("status", json!("submitted")),
        ("state", json!("queued")),
        ("attempts", json!(0)),
        ("started", json!(false)),
        ("started_at", Value::Null),
        ("finished_at", Value::Null),
        ("result", Value::Null),
    ] {
        job[name] = value;
    }
    job
}

/// The answer to its submit.
pub(super) fn submitted() -> Value {
    let mut job = queued();
    job["workers"] = json!(0);
    job["did_you_mean"] = json!("payment");
    job
}

/// The answer to its submit, where the caller waited.
pub(super) fn submitted_and_done() -> Value {
    let mut job = done();
    job["workers"] = json!(1);
    job
}

/// A job that went well.
pub(super) fn done() -> Value {
    json!({"id": JOB_ID, "processor": "payments", "group": "payment-submit", "priority": "REALTIME",
        "status": "processed_ok", "state": "done", "reason": null, "attempts": 1, "crashes": 0, "started": true,
        "parent": null, "children": 0, "submitted_at": SUBMITTED_AT, "started_at": STARTED_AT,
        "finished_at": FINISHED_AT, "result": {"charge": "ch_1"}, "error": null, "key": "tenant-7",
        "labels": {"order": "A-17"}})
}

pub(super) fn poll() -> Value {
    json!({"worker": "w-1", "slots": 1, "max_jobs": 64, "max_bytes": "1MiB", "wait": "1s"})
}

pub(super) fn leased() -> Value {
    json!({"settled": [{"lease": LEASE, "results": [{"id": JOB_ID, "is": "applied"}]}],
        "batches": [{"lease": LEASE, "batch": LEASE, "priority": "REALTIME", "expires_at": "2026-01-31T09:30:30.262Z",
            "expires_in_ms": 30_000, "jobs": [{"id": JOB_ID, "group": "payment-submit", "attempt": 1, "delivery": 1,
                "data": data(), "key": "tenant-7", "submitted_at": SUBMITTED_AT, "deadline": null,
                "labels": {"order": "A-17"}, "traceparent": null}]}]})
}

pub(super) fn settle() -> Value {
    json!({"outcomes": [
        {"id": JOB_ID, "ok": {"charge": "ch_1"}, "jobs": [{"processor": "mail", "data": {"to": "a@example.org"}}]},
        {"id": "0199a3c4-0000-7000-8000-00000000002b",
            "error": {"code": "card_declined", "message": "the bank said no", "retryable": false}},
        {"id": "0199a3c4-0000-7000-8000-00000000002c", "release": true}], "final": true})
}

pub(super) fn settle_failed() -> Value {
    json!({"failed": {"code": "bank_down", "message": "the bank does not answer"}})
}

pub(super) fn settled() -> Value {
    json!({"results": [
        {"id": JOB_ID, "is": "applied", "children": ["0199a3c4-0000-7000-8000-00000000002d"]},
        {"id": "0199a3c4-0000-7000-8000-00000000002b", "is": "duplicate"},
        {"id": "0199a3c4-0000-7000-8000-00000000002c", "is": "released"}]})
}

pub(super) fn extended() -> Value {
    json!({"expires_in_ms": 30_000, "cancelled": [], "lost": []})
}

pub(super) fn lanes() -> Value {
    json!({"lanes": [{"processor": "payments", "priority": "REALTIME", "paused": false, "queued": 3, "scheduled": 0, "running": 2,
        "retrying": 1, "dead": 0, "oldest_age_ms": 1500, "workers": 4, "workers_not_ready": 1,
        "not_ready": {"worker": "w-9", "why": "`./executor.py` exited with code 1"}, "arrived": 12, "dispatched": 10, "ended": 8,
        "processed_ok": 6, "processed_error": 1, "batch_failed": 1, "rate_in": 2.0, "rate_out": 1.5, "predicted_wait_ms": 4000}]})
}

pub(super) fn lane_paused(paused: bool) -> Value {
    json!({"processor": "payments", "priority": "SLOW", "paused": paused})
}

/// A policy, by whom each of its values was given.
pub(super) fn policy() -> Value {
    json!({"processor": "payments", "group": null, "priority": "NORMAL",
        "policy": {"max_jobs": 20, "lease": "5s", "result_ttl": null},
        "origin": {
            "max_jobs": {"from": "config", "table": "[processor.payments]", "file": "jitney.toml", "line": 6},
            "lease": {"from": "api", "table": "[processor.payments]"}, "result_ttl": {"from": "default"}},
        "configured": {"[processor.payments]": {"max_jobs": {"value": 20, "file": "jitney.toml", "line": 6}}},
        "set": {"[processor.payments]": {"lease": "5s", "max_jobs": 32}},
        "warnings": ["`max_jobs` of [processor.payments] was set to 32 over the API; the configuration file says 20 \
            (jitney.toml:6), and wins"]})
}

/// What a route answers where its job failed.
pub(super) fn job_problem(status: u16) -> Value {
    json!({"type": "/docs/errors#job_failed", "title": "The job failed", "status": status,
        "code": "card_declined", "detail": "the bank said no", "retry": "no"})
}
