//! Takes jobs: as the body itself, or in an envelope.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response, StatusCode, header};

use super::body::{self, Bound};
use super::error::{Problem, Result, with_header};
use super::parse::job::{self, JobFields, LATER_FIELDS, Name};
use super::parse::query::Query;
use super::parse::{self, payload};
use super::{App, Connection, Segment, headers, many, view};
use crate::driver::port::{Answer, Command, Submitted};
use crate::driver::refusal::Refusal;
use crate::job::{Group, JobId, JobView, Priority};

/// The options of a job whose data is the body.
pub(super) const PARAMETERS: &[&str] = &["group", "priority", "wait", "id", "key", "label."];

/// `POST /v1/processors/{processor}/jobs`
pub(super) async fn plain(
    State(app): State<App>,
    Segment(processor): Segment,
    request: Request,
) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let bytes = body::read(&app, &parts, body, Bound::data(app.limits())).await?;
    headers::check_accept(&parts.headers)?;
    let processor =
        job::processor_name(&processor).map_err(|detail| Problem::invalid("processor", detail))?;
    let query = Query::parse(&parts.uri, PARAMETERS, LATER_FIELDS)?;
    let group = match query.get("group") {
        Some(text) => job::group_name(text).map_err(|detail| Problem::invalid("group", detail))?,
        None => Group::default(),
    };
    let priority = match query.get("priority") {
        Some(text) => parse::priority(text).map_err(|detail| Problem::invalid("priority", detail))?,
        None => Priority::Normal,
    };
    let key = match query.get("key") {
        Some(text) => {
            job::check_key(text).map_err(|detail| Problem::invalid("key", detail))?;
            Some(text.to_owned())
        }
        None => None,
    };
    let fields = JobFields {
        processor,
        group,
        priority,
        payload: payload::data(payload::content_type(&parts.headers)?, bytes)?,
        key,
        labels: labels(&query)?,
    };
    let id = match query.get("id") {
        Some(text) => Some(job::id(text).map_err(|detail| Problem::invalid("id", detail))?),
        None => None,
    };
    let wait = headers::wait(&query, &parts.headers, app.limits().wait_max)?;
    submit(&app, &parts, fields, id, wait).await
}

/// `POST /v1/jobs`: an envelope, or many.
pub(super) async fn envelope(State(app): State<App>, request: Request) -> Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    if headers::is_ndjson(&parts.headers)? {
        // Boxed, as is the other: their futures are large, and every single submit would carry their room along.
        return Box::pin(many::ndjson(app, parts, body)).await;
    }
    let bytes = body::read(&app, &parts, body, Bound::request(app.limits())).await?;
    headers::check_accept(&parts.headers)?;
    headers::check_json_type(&parts.headers)?;
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Box::pin(many::array(app, &parts, bytes)).await;
    }
    let wait = envelope_wait(&app, &parts)?;
    let envelope = job::envelope(&bytes)?;
    let (fields, id) = job::single(&envelope, &bytes, app.limits().job_bytes_max)?;
    submit(&app, &parts, fields, id, wait).await
}

/// The query of a request whose jobs come in envelopes.
pub(super) fn envelope_wait(app: &App, parts: &Parts) -> Result<Option<Duration>> {
    let query = Query::parse(&parts.uri, &["wait"], LATER_FIELDS)?;
    headers::wait(&query, &parts.headers, app.limits().wait_max)
}

fn labels(query: &Query<'_>) -> Result<Vec<(String, String)>> {
    let mut labels = Vec::new();
    for (name, value) in query.prefixed("label.") {
        job::check_label(name, value)
            .map_err(|detail| Problem::invalid(format!("label.{}", parse::shown(name)), detail))?;
        labels.push((name.to_owned(), value.to_owned()));
    }
    job::check_label_count(labels.len()).map_err(|detail| Problem::invalid("label", detail))?;
    Ok(labels)
}

/// Submits a job and answers with it.
async fn submit(
    app: &App,
    parts: &Parts,
    fields: JobFields,
    id: Option<JobId>,
    wait: Option<Duration>,
) -> Result<Response<Body>> {
    let submitted = accept(app, parts, fields, id, wait).await?;
    let response = answer(&submitted);
    Ok(match submitted.replayed {
        true => replayed(response),
        false => response,
    })
}

/// Hands a job to the driver; comes back once it is durable, or with `wait` once it has ended.
pub(super) async fn accept(
    app: &App,
    parts: &Parts,
    fields: JobFields,
    id: Option<JobId>,
    wait: Option<Duration>,
) -> Result<Submitted> {
    let key = headers::idempotency_key(&parts.headers)?;
    if id.is_some() && key.is_some() {
        return Err(both_names());
    }
    let traceparent = headers::traceparent(&parts.headers);
    let here = Connection::of(parts);
    hand_over(app, Some(&here), fields, Name { id, key, traceparent }, wait).await
}

/// A job that is named twice.
pub(crate) fn both_names() -> Box<Problem> {
    Problem::invalid(
        "Idempotency-Key",
        "a job has an `id` of its own or an `Idempotency-Key`, not both",
    )
}

/// Hands checked fields to the driver; comes back as [`accept`] does. `here` is the caller's connection, if it has one.
pub(crate) async fn hand_over(
    app: &App,
    here: Option<&Connection>,
    fields: JobFields,
    name: Name<'_>,
    wait: Option<Duration>,
) -> Result<Submitted> {
    let mut submit = job::submit(fields, name);
    submit.wait = wait;
    let once = submit.is_named();
    let command = Command::Submit(Box::new(submit));
    let reply = match here.filter(|_| wait.is_some()) {
        Some(here) => app.handle().begin_unless(command, here.leaving()).await,
        None => app.handle().call(command).await,
    };
    let refusal = match reply.answer {
        Answer::Submitted(submitted) => return Ok(*submitted),
        Answer::Refused(refusal) => refusal,
        other => foreign(&other),
    };
    Err(refused(refusal, once))
}

/// Why a submit is refused; `named` if its repeat is recognised.
pub(crate) fn refused(refusal: Refusal, named: bool) -> Box<Problem> {
    let problem = Box::<Problem>::from(refusal);
    if named { problem.repeatable() } else { problem }
}

/// The driver gave an answer that does not belong to the call.
pub(crate) fn foreign(answer: &Answer) -> Refusal {
    Refusal::Internal(format!("the driver gave a foreign answer: {answer:?}"))
}

fn answer(submitted: &Submitted) -> Response<Body> {
    let job = &submitted.job;
    let mut json = view::room_for(job);
    json.open();
    view::job_fields(&mut json, job);
    json.key("workers");
    json.number(u64::from(submitted.workers));
    if let Some(near) = &submitted.did_you_mean {
        json.key("did_you_mean");
        json.string(near);
    }
    json.close();
    let status = match view::is_done(job) {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    located(view::json_response(status, json), job)
}

/// Adds where the job can be read.
pub(super) fn located(response: Response<Body>, job: &JobView) -> Response<Body> {
    let value = HeaderValue::try_from(format!("/v1/jobs/{}", job.id)).expect("an id is visible ASCII");
    with_header(response, header::LOCATION, value)
}

/// Says that the job was submitted before.
pub(super) fn replayed(response: Response<Body>) -> Response<Body> {
    let value = HeaderValue::from_static("true");
    with_header(response, headers::IDEMPOTENCY_REPLAYED, value)
}
