//! Jobs as callers and workers see them, read from what the bus stored.

use std::sync::Arc;

use bytes::Bytes;
use joblog::record::{ErrorFields, Outcome, Submit};

use super::port::{BatchJob, Submit as NewJob};
use super::refusal::Refusal;
use crate::bus::StoredJob;
use crate::clock::WallMs;
use crate::dispatcher::event::{GrantedJob, JobStatus};
use crate::job::{End, Group, JobError, JobId, JobView, Payload, Processor, Reason, State, Status};

/// A job that was accepted just now.
pub(super) fn accepted(id: JobId, job: &NewJob, submitted_at: Option<WallMs>) -> JobView {
    JobView {
        id,
        processor: job.processor.clone(),
        group: job.group.clone(),
        priority: job.priority,
        status: Status::Submitted,
        state: State::Queued,
        reason: None,
        attempts: 0,
        crashes: 0,
        started_at: None,
        parent: None,
        children: 0,
        submitted_at,
        finished_at: None,
        result: None,
        result_expired: false,
        error: None,
        key: job.key.clone(),
        labels: job.labels.clone(),
    }
}

/// The caller's key of a stored job.
pub(super) fn key(job: &StoredJob) -> Result<Option<Arc<str>>, Refusal> {
    Ok(decode_submit(&job.submit)?.key.map(Arc::from))
}

/// A stored job: with its outcome if that is kept, else as `status` has it.
pub(super) fn stored(job: &StoredJob, status: Option<JobStatus>) -> Result<JobView, Refusal> {
    let submit = decode_submit(&job.submit)?;
    let status = status.unwrap_or(JobStatus {
        state: State::Queued,
        attempts: 0,
        crashes: 0,
        started: None,
    });
    let mut view = JobView {
        id: submit.id,
        processor: Processor::trusted(submit.processor),
        group: Group::trusted(submit.group),
        priority: submit.priority,
        status: Status::Submitted,
        state: status.state,
        reason: None,
        attempts: status.attempts,
        crashes: status.crashes,
        started_at: status.started,
        parent: submit.parent.map(|(parent, _)| parent),
        children: 0,
        submitted_at: Some(submit.accepted),
        finished_at: None,
        result: None,
        result_expired: false,
        error: None,
        key: submit.key.map(str::to_owned),
        labels: owned_labels(&submit),
    };
    if let Some(bytes) = &job.outcome {
        let outcome = decode_outcome(bytes)?;
        view.status = outcome.end.into();
        view.state = end_state(outcome.reason);
        view.reason = outcome.reason;
        view.attempts = outcome.attempts;
        view.crashes = outcome.crashes;
        view.started_at = outcome.started;
        view.children = outcome.children;
        view.finished_at = Some(outcome.finished);
        view.error = outcome.error.map(|error| owned_error(bytes, &error));
        view.result = (outcome.end == End::Ok).then(|| Payload {
            content_type: outcome.content_type.map(Arc::from),
            bytes: slice(bytes, outcome.result),
        });
    }
    Ok(view)
}

/// A finished job whose result had to give way. What the repeat says of itself is what the first said.
pub(super) fn expired(id: JobId, repeat: &NewJob, end: End, reason: Option<Reason>) -> JobView {
    let mut view = accepted(id, repeat, None);
    view.status = end.into();
    view.state = end_state(reason);
    view.reason = reason;
    view.result_expired = true;
    view
}

/// A job as its worker gets it. The data is a slice of what was stored.
pub(super) fn batch_job(job: &StoredJob, granted: GrantedJob) -> Result<BatchJob, Refusal> {
    let submit = decode_submit(&job.submit)?;
    Ok(BatchJob {
        id: granted.id,
        group: Group::trusted(submit.group),
        attempt: granted.attempt,
        delivery: granted.delivery,
        payload: Payload {
            content_type: submit.content_type.map(Arc::from),
            bytes: slice(&job.submit, submit.data),
        },
        key: submit.key.map(str::to_owned),
        submitted_at: submit.accepted,
        labels: owned_labels(&submit),
        traceparent: submit.traceparent.map(str::to_owned),
    })
}

/// The trace that a stored job belongs to.
pub(super) fn traceparent(job: &StoredJob) -> Option<String> {
    let submit = Submit::decode(&job.submit).ok()?;
    submit.traceparent.map(str::to_owned)
}

/// How the job ended, if its stored outcome was given under this very lease.
pub(super) fn settled_under(job: &StoredJob, token: crate::job::Token) -> Result<Option<End>, Refusal> {
    let Some(bytes) = &job.outcome else {
        return Ok(None);
    };
    let outcome = decode_outcome(bytes)?;
    Ok((outcome.token == Some(token)).then_some(outcome.end))
}

pub(super) const fn end_state(reason: Option<Reason>) -> State {
    match reason {
        Some(Reason::Exhausted | Reason::Dead) => State::Dead,
        _ => State::Done,
    }
}

fn owned_labels(submit: &Submit<'_>) -> Vec<(String, String)> {
    submit
        .labels
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn owned_error(bytes: &Bytes, error: &ErrorFields<'_>) -> JobError {
    JobError {
        code: error.code.to_owned(),
        message: error.message.to_owned(),
        data: error.data.map(|data| slice(bytes, data)),
    }
}

/// The part of `whole` that `part` borrows, sharing its memory.
fn slice(whole: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() {
        Bytes::new()
    } else {
        whole.slice_ref(part)
    }
}

fn decode_submit(bytes: &[u8]) -> Result<Submit<'_>, Refusal> {
    Submit::decode(bytes).map_err(|error| Refusal::Internal(format!("a stored job cannot be read: {error}")))
}

fn decode_outcome(bytes: &[u8]) -> Result<Outcome<'_>, Refusal> {
    Outcome::decode(bytes)
        .map_err(|error| Refusal::Internal(format!("a stored outcome cannot be read: {error}")))
}
