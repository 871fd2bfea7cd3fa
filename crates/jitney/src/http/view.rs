//! How jobs, batches and settle results look on the wire.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};

use super::error::Problem;
use super::json::{Json, SHARED_BYTES_MIN};
use super::parse::payload;
use crate::driver::port::{Batch, BatchJob, SettleIs, SettleResult};
use crate::job::{JobError, JobView, Payload, State, reason_name};

/// Room that a job takes on the wire beside its result.
const JOB_ROOM: usize = 512;

/// A successful answer in JSON.
pub(crate) fn json_response(status: StatusCode, json: Json) -> Response<Body> {
    let mut response = Response::new(json.into_body());
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Whether the job has ended.
pub(crate) const fn is_done(job: &JobView) -> bool {
    matches!(job.state, State::Done | State::Dead)
}

/// Begins a JSON text that a job goes into.
pub(crate) fn room_for(job: &JobView) -> Json {
    Json::sharing(JOB_ROOM + job.result.as_ref().map_or(0, copied))
}

/// Writes the fields of a job; opening and closing the object is the caller's, who may add more.
pub(crate) fn job_fields(json: &mut Json, job: &JobView) {
    json.key("id");
    json.plain(job.id);
    json.key("processor");
    json.string(job.processor.as_str());
    json.key("group");
    json.string(job.group.as_str());
    json.key("priority");
    json.string(job.priority.name());
    json.key("status");
    json.string(job.status.name());
    json.key("state");
    json.string(job.state.name());
    json.key("reason");
    json.string_or_null(job.reason.map(reason_name));
    // What went with the result is not said, rather than said wrongly.
    if !job.result_expired {
        course(json, job);
    }
    match &job.result {
        Some(result) => bytes(json, result, "result", "result_base64"),
        None => {
            json.key("result");
            json.null();
        }
    }
    if job.result_expired {
        json.key("result_expired");
        json.boolean(true);
    }
    json.key("error");
    match &job.error {
        Some(error) => job_error(json, error),
        None => json.null(),
    }
    json.key("key");
    json.string_or_null(job.key.as_deref());
    labels(json, &job.labels);
}

/// How the job fared.
fn course(json: &mut Json, job: &JobView) {
    json.key("attempts");
    json.number(u64::from(job.attempts));
    json.key("crashes");
    json.number(u64::from(job.crashes));
    json.key("started");
    json.boolean(job.started_at.is_some());
    json.key("parent");
    match job.parent {
        Some(parent) => json.plain(parent),
        None => json.null(),
    }
    json.key("children");
    json.number(u64::from(job.children));
    json.key("submitted_at");
    json.time_or_null(job.submitted_at);
    json.key("started_at");
    json.time_or_null(job.started_at);
    json.key("finished_at");
    json.time_or_null(job.finished_at);
}

fn job_error(json: &mut Json, error: &JobError) {
    json.open();
    json.key("code");
    json.string(&error.code);
    json.key("message");
    json.string(&error.message);
    json.key("data");
    match &error.data {
        Some(data) => json.raw(data),
        None => json.null(),
    }
    json.close();
}

fn labels(json: &mut Json, labels: &[(String, String)]) {
    json.key("labels");
    json.open();
    for (name, value) in labels {
        json.name(name);
        json.string(value);
    }
    json.close();
}

/// Data or a result: spliced in as it is if it is JSON, else as base64 with its type.
fn bytes(json: &mut Json, payload: &Payload, name: &'static str, base64_name: &'static str) {
    if payload::splices(payload) {
        json.key(name);
        json.value(&payload.bytes);
    } else {
        json.key(base64_name);
        json.base64(&payload.bytes);
    }
    if let Some(content_type) = &payload.content_type {
        json.key("content_type");
        json.string(content_type);
    }
}

/// Writes a batch as its worker gets it.
pub(crate) fn batch(json: &mut Json, batch: &Batch) {
    json.open();
    json.key("lease");
    json.plain(batch.token);
    json.key("batch");
    json.plain(batch.token);
    json.key("priority");
    json.string(batch.priority.name());
    json.key("expires_at");
    json.time(batch.expires_at);
    json.key("expires_in_ms");
    json.millis(batch.expires_in);
    json.key("jobs");
    json.open_list();
    for job in &batch.jobs {
        batch_job(json, job);
    }
    json.close_list();
    json.close();
}

/// Room that a batch takes on the wire.
pub(crate) fn batch_room(batch: &Batch) -> usize {
    let data = batch.jobs.iter().map(|job| copied(&job.payload) + JOB_ROOM);
    JOB_ROOM + data.sum::<usize>()
}

/// Bytes of a payload that are copied into an answer: JSON that is large is shared, other bytes are encoded.
fn copied(payload: &Payload) -> usize {
    match payload.bytes.len() {
        large if large >= SHARED_BYTES_MIN && payload.content_type.is_none() => 0,
        length if payload.content_type.is_some() => length / 3 * 4,
        length => length,
    }
}

/// Writes a job as its worker gets it.
pub(crate) fn batch_job(json: &mut Json, job: &BatchJob) {
    json.open();
    json.key("id");
    json.plain(job.id);
    json.key("group");
    json.string(job.group.as_str());
    json.key("attempt");
    json.number(u64::from(job.attempt));
    json.key("delivery");
    json.number(u64::from(job.delivery));
    bytes(json, &job.payload, "data", "data_base64");
    json.key("key");
    json.string_or_null(job.key.as_deref());
    json.key("submitted_at");
    json.time(job.submitted_at);
    json.key("deadline");
    json.null();
    labels(json, &job.labels);
    json.key("traceparent");
    json.string_or_null(job.traceparent.as_deref());
    json.close();
}

/// Writes `results` of a settle: the driver's, and between them, at their places, outcomes whose id is none.
pub(crate) fn settle_results(json: &mut Json, results: &[SettleResult], strangers: &[(usize, String)]) {
    json.key("results");
    json.open_list();
    let mut strangers = strangers.iter().peekable();
    let mut results = results.iter();
    for place in 0.. {
        if let Some((_, id)) = strangers.next_if(|(at, _)| *at == place) {
            json.open();
            json.key("id");
            json.string(id);
            json.key("is");
            json.string(settle_name(&SettleIs::Unknown));
            json.close();
        } else if let Some(result) = results.next() {
            settle_result(json, result);
        } else {
            break;
        }
    }
    json.close_list();
}

fn settle_result(json: &mut Json, result: &SettleResult) {
    json.open();
    json.key("id");
    json.plain(result.id);
    json.key("is");
    json.string(settle_name(&result.is));
    match &result.is {
        SettleIs::Applied { children } if !children.is_empty() => {
            json.key("children");
            json.open_list();
            for child in children {
                json.plain(*child);
            }
            json.close_list();
        }
        SettleIs::Refused(refusal) => {
            json.key("error");
            Box::<Problem>::from(refusal.clone()).write(json);
        }
        SettleIs::Applied { .. }
        | SettleIs::Released
        | SettleIs::Duplicate
        | SettleIs::Late
        | SettleIs::Unknown => {}
    }
    json.close();
}

/// Every name that [`settle_name`] gives.
pub(crate) const SETTLE_NAMES: [&str; 6] = ["applied", "released", "duplicate", "late", "unknown", "refused"];

const fn settle_name(is: &SettleIs) -> &'static str {
    match is {
        SettleIs::Applied { .. } => "applied",
        SettleIs::Released => "released",
        SettleIs::Duplicate => "duplicate",
        SettleIs::Late => "late",
        SettleIs::Unknown => "unknown",
        SettleIs::Refused(_) => "refused",
    }
}
