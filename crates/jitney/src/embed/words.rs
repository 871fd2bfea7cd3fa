//! From the words of the client to those of the driver, and back: moves of what is there, and the checks that
//! the front door makes.

use std::time::Duration;

use bytes::Bytes;

use crate::client::text::Text;
use crate::client::{
    Batch, Error, LeaseRequest, LeasedJob, Outcome, OutcomeError, Problem, Retry, Said, Settle, SettleAnswer,
    SettleBody, SettleError, SettleIs, SettleResult, Submit, json_bytes,
};
use crate::clock::WallMs;
use crate::driver::port;
use crate::driver::refusal::Refusal;
use crate::http::error::Problem as EdgeProblem;
use crate::http::json::{self, Json};
use crate::http::parse::job::{self as rules, JobFields};
use crate::http::parse::object::At;
use crate::http::parse::outcome::{Reader, check_child_count, check_total};
use crate::http::parse::payload;
use crate::http::settle::whole_problem;
use crate::http::{error, headers, lease, submit, view};
use crate::job::{Group, JobError, JobView, Payload, Priority, Processor, Token};
use crate::limits::Limits;

/// A refusal of the edge, as clients know it.
pub(super) fn refused(edge: &EdgeProblem) -> Error {
    Error::Refused(problem(edge))
}

/// A problem as clients see it.
pub(super) fn problem(edge: &EdgeProblem) -> Box<Problem> {
    let mut json = Json::default();
    edge.write(&mut json);
    let decoded = Problem::decode(&json.finish(), edge.code.status(), edge.retry_after);
    Box::new(decoded.expect("the edge writes problems that its clients read"))
}

/// A refusal that repeats harmlessly: of a poll, a settle, a read.
pub(super) fn lease_refused(refusal: Refusal) -> Error {
    refused(&whole_problem(refusal))
}

/// What a driver says that does not give what was asked for.
pub(super) fn not_given(answer: port::Answer) -> Error {
    lease_refused(match answer {
        port::Answer::Refused(refusal) => refusal,
        other => submit::foreign(&other),
    })
}

fn refused_value(refusal: Refusal) -> Error {
    refused(&Box::<EdgeProblem>::from(refusal))
}

pub(super) fn processor(name: &str) -> Result<Processor, Error> {
    rules::processor_name(name)
        .map_err(|detail| refused_value(At::Field(&At::Body, "processor").invalid(detail)))
}

pub(super) fn worker(name: &str) -> Result<&str, Error> {
    lease::check_worker(name).map_err(refused_value)?;
    Ok(name)
}

/// The key of a submit, if it is one.
pub(super) fn idempotency_key(submit: &Submit) -> Result<Option<&str>, Error> {
    let Some(key) = submit.idempotency_key.as_deref() else {
        return Ok(None);
    };
    headers::check_idempotency_key(key.as_bytes()).map_err(|problem| refused(&problem))?;
    if submit.id.is_some() {
        return Err(refused(&submit::both_names()));
    }
    Ok(Some(key))
}

/// A wrong trace context is as good as none, says the standard.
pub(super) fn traceparent(text: Option<&str>) -> Option<String> {
    text.filter(|text| headers::is_traceparent(text))
        .map(str::to_owned)
}

/// The fields of a job, by the rules of the front door.
pub(super) fn fields(submit: &Submit, at: At<'_>, limits: &Limits) -> Result<JobFields, Error> {
    checked_fields(submit, at, limits).map_err(refused_value)
}

fn checked_fields(submit: &Submit, at: At<'_>, limits: &Limits) -> Result<JobFields, Refusal> {
    let wrong = |name: &str, detail: String| At::Field(&at, name).invalid(detail);
    let group = match &submit.group {
        Some(name) => rules::group_name(name).map_err(|detail| wrong("group", detail))?,
        None => Group::default(),
    };
    if let Some(key) = &submit.key {
        rules::check_key(key).map_err(|detail| wrong("key", detail))?;
    }
    for (name, value) in &submit.labels {
        rules::check_label(name, value).map_err(|detail| wrong("labels", detail))?;
    }
    rules::check_label_count(submit.labels.len()).map_err(|detail| wrong("labels", detail))?;
    let payload = checked_payload(&submit.payload).map_err(|detail| wrong("data", detail))?;
    rules::check_size("data", &payload.bytes, limits.job_bytes_max)?;
    Ok(JobFields {
        processor: rules::processor_name(&submit.processor).map_err(|detail| wrong("processor", detail))?,
        group,
        priority: submit.priority.unwrap_or(Priority::Normal),
        payload,
        key: submit.key.clone(),
        labels: submit
            .labels
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    })
}

/// Bytes that are what their type says, shared and not copied.
fn checked_payload(payload: &Payload) -> Result<Payload, String> {
    let Some(content_type) = payload.content_type.as_deref() else {
        return match payload::is_json(&payload.bytes) {
            true => Ok(payload.clone()),
            false => Err("the data is not json; name its content type if it is not meant to be".to_owned()),
        };
    };
    payload::check_content_type(content_type)?;
    payload::typed(Some(content_type), payload.bytes.clone())
        .ok_or_else(|| format!("the content type is `{content_type}`, and the bytes are not json"))
}

/// A settle; `None` if its lease is none of this jitney.
pub(super) fn settle(settle: &Settle, limits: &Limits) -> Result<Option<port::Settle>, Error> {
    let Some(token) = Token::parse(&settle.lease) else {
        return Ok(None);
    };
    let body = match &settle.body {
        SettleBody::Outcomes { outcomes, last } => port::SettleBody::Outcomes {
            outcomes: outcomes
                .iter()
                .map(|outcome| job_outcome(outcome, limits))
                .collect::<Result<_, _>>()?,
            last: *last,
        },
        SettleBody::Failed { error, crashed } => {
            let (code, message) = error.clipped();
            port::SettleBody::Failed {
                error: job_error(code, message, None),
                crashed: *crashed,
            }
        }
    };
    Ok(Some(port::Settle { token, body }))
}

fn job_outcome(outcome: &Outcome, limits: &Limits) -> Result<port::JobOutcome, Error> {
    let said = match outcome.said() {
        Said::Ok { result, children } => done(result, children, limits),
        Said::Error(error) => failed(error, limits),
        Said::Release => Ok(port::Said::Release),
        Said::Verbatim { json, .. } => {
            let body = json_bytes(json.clone());
            let reader = Reader { body: &body, limits };
            let raw = serde_json::from_slice(&body).expect("it was JSON before it became bytes");
            return reader.whole(raw).map_err(refused_value);
        }
    };
    Ok(port::JobOutcome { id: outcome.id, said })
}

fn done(result: &Payload, children: &[Submit], limits: &Limits) -> Result<port::Said, Refusal> {
    // It was checked, or written, by the client.
    let result = match result.content_type.as_deref() {
        None => result.clone(),
        Some(_) => checked_payload(result).map_err(|detail| At::Field(&At::Body, "ok").invalid(detail))?,
    };
    rules::check_size("result", &result.bytes, limits.job_bytes_max)?;
    let at = At::Field(&At::Body, "jobs");
    check_child_count(children.len(), at, limits)?;
    let children = children.iter().enumerate().map(|(index, child)| {
        let fields = checked_fields(child, At::Item(&at, index), limits)?;
        Ok(port::Child {
            processor: fields.processor,
            group: fields.group,
            priority: fields.priority,
            payload: fields.payload,
            key: fields.key,
            labels: fields.labels,
            traceparent: None,
        })
    });
    let children = children.collect::<Result<Vec<_>, Refusal>>()?;
    check_total(&result, &children, limits)?;
    Ok(port::Said::Ok { result, children })
}

fn failed(error: &OutcomeError, limits: &Limits) -> Result<port::Said, Refusal> {
    let (code, message) = error.clipped();
    let data = error.data.clone().map(json_bytes);
    if let Some(data) = &data {
        rules::check_size("error data", data, limits.job_bytes_max)?;
    }
    Ok(port::Said::Error {
        error: job_error(code, message, data),
        retryable: error.retryable,
        retry_after: error.retry_after.filter(|after| !after.is_zero()),
    })
}

fn job_error(code: &str, message: &str, data: Option<Bytes>) -> JobError {
    JobError {
        code: code.to_owned(),
        message: message.to_owned(),
        data,
    }
}

/// The answers to the settles of a poll, in its order.
pub(super) fn settled(request: &LeaseRequest, answers: Vec<port::SettleAnswer>) -> Vec<SettleAnswer> {
    let mut answers = answers.into_iter();
    let answer = |settle: &Settle| {
        let results = match Token::parse(&settle.lease) {
            Some(_) => answers.next().map_or_else(
                || {
                    Err(Refusal::Internal(
                        "the driver left a settle unanswered".to_owned(),
                    ))
                },
                |answer| answer.results,
            ),
            None => Err(Refusal::UnknownLease),
        };
        match results {
            Ok(results) => settle_answer(results),
            Err(refusal) => SettleAnswer {
                results: Vec::new(),
                error: Some(settle_error(&whole_problem(refusal))),
            },
        }
    };
    request.settle.iter().map(answer).collect()
}

/// What became of the outcomes of one settle.
pub(super) fn settle_answer(results: Vec<port::SettleResult>) -> SettleAnswer {
    let results = results.into_iter().map(|result| {
        let (is, error) = match result.is {
            port::SettleIs::Applied { .. } => (SettleIs::Applied, None),
            port::SettleIs::Released => (SettleIs::Released, None),
            port::SettleIs::Duplicate => (SettleIs::Duplicate, None),
            port::SettleIs::Late => (SettleIs::Late, None),
            port::SettleIs::Unknown => (SettleIs::Unknown, None),
            port::SettleIs::Refused(refusal) => {
                let problem = Box::<EdgeProblem>::from(refusal);
                (SettleIs::Refused, Some(settle_error(&problem)))
            }
        };
        SettleResult {
            id: result.id,
            is,
            error,
        }
    });
    SettleAnswer {
        results: results.collect(),
        error: None,
    }
}

fn settle_error(problem: &EdgeProblem) -> SettleError {
    SettleError {
        code: problem.code.name().to_owned(),
        detail: problem.detail.clone(),
        retry: Some(match problem.retry {
            error::Retry::No => Retry::No,
            error::Retry::Safe => Retry::Safe,
            error::Retry::After => Retry::After,
            error::Retry::OnlyWithIdempotencyKey => Retry::OnlyWithIdempotencyKey,
        }),
        retry_after_ms: problem.retry_after.map(millis),
    }
}

/// A batch as its worker gets it. The data stays the slice of what was stored.
pub(super) fn batch(batch: port::Batch) -> Batch {
    let token = batch.token.to_string();
    Batch {
        lease: token.clone(),
        batch: token,
        priority: batch.priority,
        expires_at: json::time_text(batch.expires_at),
        expires_in_ms: millis(batch.expires_in),
        jobs: batch.jobs.into_iter().map(leased_job).collect(),
    }
}

fn leased_job(job: port::BatchJob) -> LeasedJob {
    LeasedJob {
        id: job.id,
        group: job.group.as_str().to_owned(),
        attempt: job.attempt,
        delivery: job.delivery,
        payload: job.payload,
        key: job.key,
        submitted_at: Some(job.submitted_at),
        deadline: None,
        labels: job.labels.into_iter().collect(),
        traceparent: job.traceparent,
        text: Text::made_by(leased_json),
    }
}

/// The object that a worker over HTTP would get.
fn leased_json(job: &LeasedJob) -> Bytes {
    let job = port::BatchJob {
        id: job.id,
        group: Group::trusted(&job.group),
        attempt: job.attempt,
        delivery: job.delivery,
        payload: job.payload.clone(),
        key: job.key.clone(),
        submitted_at: job.submitted_at.unwrap_or(WallMs(0)),
        labels: job.labels.clone().into_iter().collect(),
        traceparent: job.traceparent.clone(),
    };
    let mut json = Json::default();
    view::batch_job(&mut json, &job);
    json.finish()
}

/// The answer that a caller over HTTP would get.
pub(super) fn job_json(job: &JobView) -> Bytes {
    let mut json = view::room_for(job);
    json.open();
    view::job_fields(&mut json, job);
    json.close();
    json.finish()
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
