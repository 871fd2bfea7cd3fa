//! Hands out batches to workers that poll.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use serde_json::value::RawValue;

use super::body::{self, Bound};
use super::error::{Problem, Result, retry_after, with_header};
use super::json::Json;
use super::parse::object::{self, At, Object};
use super::parse::outcome::{Read, Reader, Strangers};
use super::parse::query::Query;
use super::parse::{self, job};
use super::settle::whole_problem;
use super::{App, Connection, Segment, headers, submit, view};
use crate::driver::port::{Answer, Command, Lease, Leased, Settle, SettleAnswer};
use crate::driver::refusal::Refusal;
use crate::job::{Processor, Token};
use crate::limits::Limits;

/// Batches of one poll at most: each is a lease to keep.
pub(crate) const SLOTS_MAX: u32 = 1_000;
/// The most that a worker can ask for in one batch; the policy is smaller.
pub(super) const BATCH_JOBS_MAX: u32 = 1_000_000;
/// Settles of one poll at most: one for each batch that it can hold.
pub(super) const SETTLES_MAX: usize = 1_000;
/// The longest name of a worker or a poll, bytes.
pub(super) const NAME_BYTES_MAX: usize = 128;
/// The longest reason why a worker's program cannot start, bytes: a line of a list.
pub(crate) const NOT_READY_BYTES_MAX: usize = 256;
/// When to come back to a server that drains.
pub(crate) const DRAINING_RETRY: Duration = Duration::from_secs(1);

pub(super) const FIELDS: &[&str] = &[
    "worker",
    "slots",
    "max_jobs",
    "max_bytes",
    "wait",
    "priorities",
    "request_id",
    "not_ready",
    "settle",
];
pub(super) const SETTLE_FIELDS: &[&str] = &["lease", "outcomes", "final", "failed", "crashed"];

/// A poll, and the leases of its settles in their order.
pub(crate) struct Poll {
    pub(crate) lease: Lease,
    leases: Vec<SettledLease>,
}

/// The lease of a settle within a poll.
enum SettledLease {
    /// The driver answers it, but for these outcomes, whose id is none.
    Known(Token, Strangers),
    /// What was written is no token; the edge answers it.
    Unknown(String),
}

/// `POST /v1/processors/{processor}/lease`
pub(super) async fn poll(
    State(app): State<App>,
    Segment(processor): Segment,
    request: Request,
) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let here = Connection::of(&parts);
    let bytes = body::read(&app, &parts, body, Bound::work(app.limits())).await?;
    headers::check_accept(&parts.headers)?;
    headers::check_json_type(&parts.headers)?;
    Query::parse(&parts.uri, &[], &[])?;
    let processor =
        job::processor_name(&processor).map_err(|detail| Problem::invalid("processor", detail))?;
    let poll = read(app.limits(), processor, &bytes)?;
    let command = Command::Lease(Box::new(poll.lease));
    // A worker that sends no more can settle nothing: it gets no jobs.
    let leaving = here.leaving();
    let at_once = async move {
        leaving.await;
        Duration::ZERO
    };
    let mut reply = app.handle().begin_unless(command, at_once).await;
    match reply.answer {
        Answer::Leased(mut leased) => {
            if here.link().is_input_over() {
                leased.batches.clear();
                reply.delivery = None;
            }
            let response = answer(&poll.leases, &leased);
            if let Some(delivery) = reply.delivery {
                here.link().owe(delivery);
            }
            Ok(response)
        }
        // Nothing of it reached the worker, and what it settled is fenced by its tokens.
        Answer::Refused(refusal) => Err(Box::<Problem>::from(refusal).repeatable()),
        other => Err(submit::foreign(&other).into()),
    }
}

pub(crate) fn read(limits: &Limits, processor: Processor, bytes: &Bytes) -> Result<Poll> {
    let object = object::body(bytes, FIELDS, &[])?;
    object.required("worker")?;
    let worker = object.bounded_text("worker", 1..=NAME_BYTES_MAX)?;
    let request_id = object.bounded_text("request_id", 1..=NAME_BYTES_MAX)?;
    let not_ready = object.bounded_text("not_ready", 1..=NOT_READY_BYTES_MAX)?;
    let wait = object.duration("wait")?.unwrap_or_default();
    headers::check_wait(wait, limits.wait_max, "/wait")?;
    let max_bytes = object.size("max_bytes")?;
    if max_bytes == Some(0) {
        return Err(Problem::invalid("/max_bytes", "`max_bytes` must be at least 1"));
    }
    let (leases, settle) = settles(limits, &object, bytes)?;
    let lease = Lease {
        processor,
        worker: Arc::from(worker.unwrap_or_default()),
        in_process: false,
        slots: object.number("slots", 1..=SLOTS_MAX)?.unwrap_or(1),
        max_jobs: object.number("max_jobs", 1..=BATCH_JOBS_MAX)?,
        max_bytes,
        wait,
        priorities: priorities(&object)?,
        request_id: request_id.map(Arc::from),
        not_ready: not_ready.map(Arc::from),
        settle,
    };
    Ok(Poll { lease, leases })
}

/// Fails if a worker's name is none.
pub(crate) fn check_worker(name: &str) -> object::Result<()> {
    match (1..=NAME_BYTES_MAX).contains(&name.len()) {
        true => Ok(()),
        false => Err(At::Field(&At::Body, "worker").invalid(format!(
            "`worker` is {} bytes; it must be 1 to {NAME_BYTES_MAX}",
            name.len()
        ))),
    }
}

fn priorities(object: &Object<'_, '_>) -> Result<[bool; 3]> {
    let Some(raw) = object.get("priorities") else {
        return Ok([true; 3]);
    };
    let at = At::Field(&At::Body, "priorities");
    let mut asked = [false; 3];
    for (index, raw) in object::list(raw, at)?.into_iter().enumerate() {
        let here = At::Item(&at, index);
        let text = object::text(raw, here)?;
        let priority = parse::priority(&text).map_err(|detail| here.invalid(detail))?;
        asked[priority.index()] = true;
    }
    if asked == [false; 3] {
        return Err(at.invalid("`priorities` names no lane").into());
    }
    Ok(asked)
}

fn settles(
    limits: &Limits,
    object: &Object<'_, '_>,
    bytes: &Bytes,
) -> Result<(Vec<SettledLease>, Vec<Settle>)> {
    let Some(raw) = object.get("settle") else {
        return Ok((Vec::new(), Vec::new()));
    };
    let at = At::Field(&At::Body, "settle");
    let list = object::list(raw, at)?;
    if list.len() > SETTLES_MAX {
        let detail = format!(
            "a poll settles at most {SETTLES_MAX} leases; these are {}",
            list.len()
        );
        return Err(at.invalid(detail).into());
    }
    let mut leases = Vec::with_capacity(list.len());
    let mut settles = Vec::with_capacity(list.len());
    for (index, raw) in list.into_iter().enumerate() {
        match settle(limits, raw, At::Item(&at, index), bytes)? {
            Ok((settle, strangers)) => {
                leases.push(SettledLease::Known(settle.token, strangers));
                settles.push(settle);
            }
            Err(text) => leases.push(SettledLease::Unknown(text)),
        }
    }
    Ok((leases, settles))
}

/// One settle, or what stands where its token should.
fn settle(
    limits: &Limits,
    raw: &RawValue,
    at: At<'_>,
    body: &Bytes,
) -> Result<std::result::Result<(Settle, Strangers), String>> {
    let object = object::object(raw, at, SETTLE_FIELDS, &[])?;
    let text = object::text(object.required("lease")?, At::Field(&at, "lease"))?;
    let reader = Reader { body, limits };
    let Read { body, strangers } = reader.settle(&object)?;
    Ok(match Token::parse(&text) {
        Some(token) => Ok((Settle { token, body }, strangers)),
        None => Err(parse::shown(&text)),
    })
}

fn answer(leases: &[SettledLease], leased: &Leased) -> Response<Body> {
    let response = match leases.is_empty() && leased.batches.is_empty() {
        true => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
        false => view::json_response(StatusCode::OK, written(leases, leased)),
    };
    if !leased.draining {
        return response;
    }
    let response = with_header(response, header::RETRY_AFTER, retry_after(DRAINING_RETRY));
    with_header(response, header::CONNECTION, HeaderValue::from_static("close"))
}

fn written(leases: &[SettledLease], leased: &Leased) -> Json {
    let room = leased.batches.iter().map(view::batch_room).sum::<usize>();
    let mut json = Json::sharing(room + 128 * leases.len() + 64);
    json.open();
    json.key("settled");
    json.open_list();
    let mut answers = leased.settled.iter();
    for lease in leases {
        json.open();
        json.key("lease");
        match lease {
            SettledLease::Known(token, strangers) => {
                json.plain(token);
                settled(&mut json, answers.next(), strangers);
            }
            SettledLease::Unknown(text) => {
                json.string(text);
                json.key("error");
                whole_problem(Refusal::UnknownLease).write(&mut json);
            }
        }
        json.close();
    }
    json.close_list();
    json.key("batches");
    json.open_list();
    for batch in &leased.batches {
        view::batch(&mut json, batch);
    }
    json.close_list();
    json.close();
    json
}

/// The driver answers every settle in the order of the request.
fn settled(json: &mut Json, answer: Option<&SettleAnswer>, strangers: &[(usize, String)]) {
    let missing = Err(Refusal::Internal(
        "the driver left a settle unanswered".to_owned(),
    ));
    match answer.map_or(&missing, |answer| &answer.results) {
        Ok(results) => view::settle_results(json, results, strangers),
        Err(refusal) => {
            json.key("error");
            whole_problem(refusal.clone()).write(json);
        }
    }
}
